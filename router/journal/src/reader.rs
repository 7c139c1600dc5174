//! Finds and reads blocks, of closed segments, of open ones and of the one that is being filled. It holds
//! the lock only to look where a block is.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use weir_core::mirror::Unreadable;

use crate::{
    block::{Block, Head},
    error::is_bad_medium,
    options::Damaged,
    outbox::ScopeSums,
    recovery::{Scan, read_at, read_trailer, scan, usize_of},
    segment::{self, INDEX_LEN, Info, Trailer},
    state::{Segment, State},
};

/// From where in a lane to look, and in which direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Seek {
    /// The first block that ends behind this position.
    From(u64),
    /// The last block that begins before this position.
    Before(u64),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) state: Arc<Mutex<State>>,
    dir: PathBuf,
    pub(crate) cache: Cache,
}

/// The file and the index that were used last, and sums that were read.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    file: Option<(FileId, File)>,
    index: Option<(FileId, Vec<Info>)>,
    pub(crate) sums: ScopeSums,
}

impl Cache {
    /// Closes a file if it is the one.
    pub(crate) fn close(&mut self, segment: u64) {
        self.file.take_if(|((id, _), _)| *id == segment);
    }
}

/// Segment and generation.
type FileId = (u64, u32);

/// Where the next block is.
enum Found {
    /// Here.
    Memory(Bytes),
    /// In a file.
    File(FileId, String, Info),
    /// In a closed segment, if its index says so: from and to which position that goes.
    Index(FileId, String, u64, u64),
}

impl Reader {
    pub(crate) fn new(state: Arc<Mutex<State>>, cache: Cache) -> Self {
        let dir = state.lock().options.dir.clone();
        Self { state, dir, cache }
    }

    /// The next block of a lane whose head is wanted. A segment is asked about as if it were a block. One
    /// that is damaged is set aside and skipped.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub(crate) fn next(
        &mut self,
        lane: u8,
        mut seek: Seek,
        wanted: &dyn Fn(&Head) -> bool,
    ) -> Result<Option<Block>, Unreadable> {
        loop {
            let Some(found) = find(&self.state.lock(), lane, seek, wanted) else {
                return Ok(None);
            };
            let (id, name, info) = match found {
                Found::Memory(bytes) => {
                    return Block::open(&bytes)
                        .map(Some)
                        .map_err(|damage| Unreadable(damage.to_string()));
                }
                Found::File(id, name, info) => (id, name, info),
                Found::Index(id, name, first, end) => {
                    let Some(index) = self.index(lane, id, &name)? else {
                        continue;
                    };
                    match pick(index, seek, wanted) {
                        Some(info) => (id, name, info),
                        None => {
                            seek = seek.past(first, end);
                            continue;
                        }
                    }
                }
            };
            let Some(bytes) = self.read(lane, id, &name, info)? else {
                continue;
            };
            match Block::open(&bytes) {
                Ok(block) if block.head == info.head => return Ok(Some(block)),
                other => {
                    let why = other.map_or_else(
                        |damage| damage.to_string(),
                        |_| "it is another block".to_owned(),
                    );
                    self.set_aside(lane, id.0, name, info, why, &bytes);
                    seek = seek.past(info.head.first, info.head.end());
                }
            }
        }
    }

    /// The index of a closed segment; `None` if it is gone meanwhile.
    fn index(&mut self, lane: u8, id: FileId, name: &str) -> Result<Option<&[Info]>, Unreadable> {
        if self
            .cache
            .index
            .as_ref()
            .is_none_or(|(known, _)| *known != id)
        {
            let Some(file) = self.open(lane, id, name)? else {
                return Ok(None);
            };
            let index =
                read_index(file, name, lane, id.0).map_err(|error| unreadable(name, &error))?;
            for (damaged, bytes) in index.damaged {
                self.state.lock().set_aside(lane, id.0, damaged, bytes);
            }
            self.cache.index = Some((id, index.blocks));
        }
        Ok(self.cache.index.as_ref().map(|(_, blocks)| &blocks[..]))
    }

    /// The bytes of a block; `None` if its segment is gone meanwhile.
    fn read(
        &mut self,
        lane: u8,
        id: FileId,
        name: &str,
        info: Info,
    ) -> Result<Option<Bytes>, Unreadable> {
        let Some(file) = self.open(lane, id, name)? else {
            return Ok(None);
        };
        match read_at(file, info.offset, usize_of(info.head.len())) {
            Ok(bytes) => Ok(Some(Bytes::from(bytes))),
            // It was cut behind our back, or the disk has lost it: as good as damaged.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof || is_bad_medium(&error) => {
                Ok(Some(Bytes::new()))
            }
            Err(error) => Err(unreadable(name, &error)),
        }
    }

    fn open(&mut self, lane: u8, id: FileId, name: &str) -> Result<Option<&File>, Unreadable> {
        if self
            .cache
            .file
            .as_ref()
            .is_none_or(|(known, _)| *known != id)
        {
            let file = File::open(self.dir.join(name));
            // Another one may have got its name meanwhile.
            let state = self.state.lock();
            let segment = state.lane(lane).segments.get(&id.0);
            if segment.is_none_or(|segment| segment.generation != id.1) {
                return Ok(None);
            }
            drop(state);
            self.cache.file = Some((id, file.map_err(|error| unreadable(name, &error))?));
        }
        Ok(self.cache.file.as_ref().map(|(_, file)| file))
    }

    fn set_aside(&self, lane: u8, id: u64, file: String, info: Info, why: String, bytes: &Bytes) {
        let damaged = Damaged {
            file,
            offset: info.offset,
            bytes: info.head.len(),
            head: Some(info.head),
            why,
        };
        self.state
            .lock()
            .set_aside(lane, id, damaged, bytes.clone());
    }
}

impl Seek {
    /// Beyond what lies between two positions.
    const fn past(self, first: u64, end: u64) -> Self {
        match self {
            Self::From(_) => Self::From(end),
            Self::Before(_) => Self::Before(first),
        }
    }

    const fn takes(self, first: u64, end: u64) -> bool {
        match self {
            Self::From(from) => end > from,
            Self::Before(before) => first < before,
        }
    }
}

/// Where the blocks of a segment are.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) blocks: Vec<Info>,
    /// What lies between them and is none.
    pub(crate) damaged: Vec<(Damaged, Bytes)>,
    /// Whether these are all that it has ever had.
    pub(crate) is_whole: bool,
}

impl Index {
    fn of(bytes: &Bytes, found: Scan, trailer: Option<&Trailer>) -> Self {
        let part = |it: &Damaged| bytes.slice(usize_of(it.offset)..usize_of(it.offset + it.bytes));
        let damaged: Vec<_> = found
            .damaged
            .into_iter()
            .map(|it| (part(&it), it))
            .collect();
        let is = |trailer: &Trailer| trailer.blocks as usize == found.blocks.len();
        Self {
            is_whole: damaged.is_empty() && trailer.is_some_and(is),
            damaged: damaged.into_iter().map(|(bytes, it)| (it, bytes)).collect(),
            blocks: found.blocks,
        }
    }
}

/// The index that a segment has, or, if that is damaged, what its blocks say.
pub(crate) fn read_index(file: &File, name: &str, lane: u8, id: u64) -> io::Result<Index> {
    let len = file.metadata()?.len();
    let trailer = read_trailer(file, len)?;
    if let Some(trailer) = trailer {
        let bytes = read_at(
            file,
            trailer.index_at(),
            trailer.blocks as usize * INDEX_LEN,
        )?;
        if let Ok(blocks) = segment::read_index(&Bytes::from(bytes), &trailer) {
            return Ok(Index {
                blocks,
                damaged: Vec::new(),
                is_whole: true,
            });
        }
    }
    let bytes = Bytes::from(read_at(file, 0, usize_of(len))?);
    let found = scan(&bytes, name, lane, id);
    Ok(Index::of(&bytes, found, trailer.as_ref()))
}

/// Reads all blocks of a closed segment; `None` if one of them cannot be read. Whoever reads them one by one
/// sets that aside, and tells.
///
/// # Errors
/// If the file cannot be read.
pub(crate) fn read_blocks(path: &Path, lane: u8, id: u64) -> io::Result<Option<Vec<Block>>> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let read = || Ok((read_trailer(&file, len)?, read_at(&file, 0, usize_of(len))?));
    let (trailer, bytes) = match read() {
        Err(error) if is_bad_medium(&error) => return Ok(None),
        other => other?,
    };
    let bytes = Bytes::from(bytes);
    let index = Index::of(&bytes, scan(&bytes, "", lane, id), trailer.as_ref());
    let open = |info: &Info| Block::open(&bytes.slice(usize_of(info.offset)..)).ok();
    let blocks = index
        .is_whole
        .then(|| index.blocks.iter().map(open).collect());
    Ok(blocks.flatten())
}

fn find(state: &State, lane: u8, seek: Seek, wanted: &dyn Fn(&Head) -> bool) -> Option<Found> {
    let it = state.lane(lane);
    let find = |segment: &Segment| {
        if !seek.takes(segment.first, segment.end) || !wanted(&head_of(segment)) {
            return None;
        }
        let id = (segment.id, segment.generation);
        let name = segment.name(lane);
        let Some(blocks) = &segment.blocks else {
            return Some(Found::Index(id, name, segment.first, segment.end));
        };
        let last = it.builder.head();
        let is_filled = it.open == Some(segment.id)
            && last.records > 0
            && seek.takes(last.first, last.end())
            && wanted(&last);
        let memory = || is_filled.then(|| Found::Memory(it.builder.encode().1));
        let written = || {
            let info = pick(blocks, seek, wanted)?;
            let mut unwritten = segment.unwritten.iter();
            Some(match unwritten.find(|(offset, _)| *offset == info.offset) {
                Some((_, bytes)) => Found::Memory(bytes.clone()),
                None => Found::File(id, name, info),
            })
        };
        match seek {
            Seek::From(_) => written().or_else(memory),
            Seek::Before(_) => memory().or_else(written),
        }
    };
    match seek {
        Seek::From(_) => it.segments.values().find_map(find),
        Seek::Before(_) => it.segments.values().rev().find_map(find),
    }
}

/// The first block in the direction of the search that is wanted. They are in the order of their positions.
fn pick(blocks: &[Info], seek: Seek, wanted: &dyn Fn(&Head) -> bool) -> Option<Info> {
    let is = |info: &&Info| info.head.records > 0 && wanted(&info.head);
    match seek {
        Seek::From(from) => {
            let begin = blocks.partition_point(|info| info.head.end() <= from);
            blocks[begin..].iter().find(is).copied()
        }
        Seek::Before(before) => {
            let end = blocks.partition_point(|info| info.head.first < before);
            blocks[..end].iter().rev().find(is).copied()
        }
    }
}

/// What a head would say of all blocks of a segment.
fn head_of(segment: &Segment) -> Head {
    Head {
        body: 0,
        crc: 0,
        records: 1,
        first: segment.first,
        mark: 0,
        earliest: segment.earliest,
        latest: segment.latest,
        operations: u32::from(segment.has_operations),
        segment: 0,
        appended: 0,
    }
}

fn unreadable(name: &str, error: &io::Error) -> Unreadable {
    Unreadable(format!("{name}: {error}"))
}
