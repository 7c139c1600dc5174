//! Looks at a journal's directory from outside, also while a router has it open: nothing is locked, nothing
//! is written. What is removed meanwhile is not shown; what is being written is the end of an open segment.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
    vec,
};

use bytes::Bytes;
use weir_core::forward::{Entry, Lost};

use crate::{
    block::{Block, Head},
    calendar::{Slot, Sums},
    error::{JournalError, Result},
    files,
    lost::LostList,
    options::Damaged,
    recovery::{Scan, scan, usize_of},
    segment::{
        HEADER_LEN, Header, INDEX_LEN, SUMS_LEN, TRAILER_LEN, Trailer, Unlike, read_index,
        read_sums,
    },
};

/// A segment, read through.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Its name, without the directory.
    pub file: String,
    /// Its lane.
    pub lane: u8,
    /// Its id; segments of all lanes rise in the order in which they were begun.
    pub id: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Whether it has a footer.
    pub is_closed: bool,
    /// Whether it was written again without what was superseded.
    pub is_coalesced: bool,
    /// Its blocks that can be read.
    pub blocks: Vec<BlockAt>,
    /// What cannot be read.
    pub damaged: Vec<Damaged>,
    /// Bytes behind the last block of a segment that is not closed, which are none: torn, or being written.
    pub tail: u64,
    /// What else is wrong, in words.
    pub problems: Vec<String>,
}

/// Where a block is, and what its head says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockAt {
    /// Where in the file.
    pub offset: u64,
    /// Its head.
    pub head: Head,
}

/// What was found in a whole directory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verified {
    /// Files.
    pub segments: u64,
    /// Blocks that can be read.
    pub blocks: u64,
    /// Entries in them.
    pub records: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// What cannot be read.
    pub damaged: Vec<Damaged>,
    /// What else is wrong: the file, and what, in words.
    pub problems: Vec<(String, String)>,
}

/// The entries of a directory, lane by lane, in the order in which they were appended. See [`entries`].
#[derive(Debug)]
pub struct Entries {
    dir: PathBuf,
    segments: VecDeque<(u8, u64)>,
    rows: vec::IntoIter<(u64, Entry)>,
}

impl Segment {
    /// Entries in its blocks.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.blocks
            .iter()
            .map(|block| u64::from(block.head.records))
            .sum()
    }

    /// The earliest and the latest stamp (NTP64); `None` if it has no entry.
    #[must_use]
    pub fn times(&self) -> Option<(u64, u64)> {
        let heads = || {
            self.blocks
                .iter()
                .map(|block| block.head)
                .filter(|head| head.records > 0)
        };
        let earliest = heads().map(|head| head.earliest).min()?;
        Some((earliest, heads().map(|head| head.latest).max()?))
    }
}

/// Every segment, lane by lane, each read through. Costs a read of the directory.
///
/// # Errors
/// If a file cannot be read, or is of a later version of the format.
pub fn segments(dir: &Path) -> Result<Vec<Segment>> {
    let mut found = Vec::new();
    for (lane, id) in names(dir)? {
        found.extend(read(dir, lane, id)?);
    }
    Ok(found)
}

/// Reads everything and says what is wrong.
///
/// # Errors
/// As [`segments`]. What is damaged is no error.
pub fn verify(dir: &Path) -> Result<Verified> {
    let mut verified = Verified::default();
    for (lane, id) in names(dir)? {
        let Some(segment) = read(dir, lane, id)? else {
            continue;
        };
        verified.segments += 1;
        verified.blocks += segment.blocks.len() as u64;
        verified.records += segment.records();
        verified.bytes += segment.bytes;
        verified.damaged.extend(segment.damaged);
        let problems = segment.problems.into_iter();
        verified
            .problems
            .extend(problems.map(|problem| (segment.file.clone(), problem)));
    }
    if let Err(problem) = read_lost(dir)? {
        verified.problems.push((files::LOST.to_owned(), problem));
    }
    Ok(verified)
}

/// What was given up, and its lane. What is damaged of it is empty.
///
/// # Errors
/// If the file cannot be read.
pub fn lost(dir: &Path) -> Result<Vec<(u8, Lost)>> {
    Ok(read_lost(dir)?.unwrap_or_default())
}

/// Every entry that can be read, with its position in its lane, whether it was certified or not. Reads one
/// segment at a time.
///
/// # Errors
/// If the directory cannot be read.
pub fn entries(dir: &Path) -> Result<Entries> {
    Ok(Entries {
        dir: dir.to_owned(),
        segments: names(dir)?.into(),
        rows: Vec::new().into_iter(),
    })
}

impl Iterator for Entries {
    type Item = Result<(u64, Entry)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.rows.next() {
                return Some(Ok(row));
            }
            let (lane, id) = self.segments.pop_front()?;
            let bytes = match bytes_of(&self.dir, lane, id) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                Err(error) => return Some(Err(error)),
            };
            let found = scan(&bytes, "", lane, id);
            let blocks = found
                .blocks
                .iter()
                .map(|info| bytes.slice(usize_of(info.offset)..));
            let blocks = blocks.filter_map(|bytes| Block::open(&bytes).ok());
            // The scan has read every row.
            let rows = blocks
                .flat_map(|block| block.rows(lane))
                .filter_map(std::result::Result::ok);
            let rows: Vec<_> = rows.map(|row| (row.position, row.entry)).collect();
            self.rows = rows.into_iter();
        }
    }
}

fn names(dir: &Path) -> Result<Vec<(u8, u64)>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(JournalError::io(dir))? {
        let name = entry.map_err(JournalError::io(dir))?.file_name();
        names.extend(name.to_str().and_then(files::parse_name));
    }
    names.sort_unstable();
    Ok(names)
}

/// `None` if it is gone meanwhile.
fn bytes_of(dir: &Path, lane: u8, id: u64) -> Result<Option<Bytes>> {
    let path = dir.join(files::name_of(lane, id));
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(Bytes::from(bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(JournalError::io(path)(error)),
    }
}

fn read(dir: &Path, lane: u8, id: u64) -> Result<Option<Segment>> {
    let Some(bytes) = bytes_of(dir, lane, id)? else {
        return Ok(None);
    };
    let file = files::name_of(lane, id);
    let mut problems = Vec::new();
    let header = match Header::decode(&bytes) {
        Ok(header) => Some(header),
        Err(Unlike::Version(version)) => {
            return Err(JournalError::Version {
                path: dir.join(file),
                version,
            });
        }
        Err(Unlike::Damaged) => None,
    };
    match header {
        None if bytes.len() >= HEADER_LEN => problems.push("the header is damaged".to_owned()),
        Some(header) if (header.lane, header.id) != (lane, id) => {
            problems.push(format!(
                "it says that it is {}",
                files::name_of(header.lane, header.id)
            ));
        }
        _ => {}
    }
    let found = scan(&bytes, &file, lane, id);
    let trailer = trailer_of(&bytes);
    if let Some(trailer) = &trailer {
        check_footer(&bytes, trailer, &found, &mut problems);
    } else if found.tail > 0 {
        problems.push(format!("{} bytes at the end are no block", found.tail));
    }
    let blocks = found.blocks.iter();
    Ok(Some(Segment {
        file,
        lane,
        id,
        bytes: bytes.len() as u64,
        is_closed: trailer.is_some(),
        is_coalesced: header.is_some_and(|header| header.is_coalesced),
        blocks: blocks
            .map(|info| BlockAt {
                offset: info.offset,
                head: info.head,
            })
            .collect(),
        tail: if trailer.is_some() { 0 } else { found.tail },
        damaged: found.damaged,
        problems,
    }))
}

fn trailer_of(bytes: &Bytes) -> Option<Trailer> {
    let at = bytes.len().checked_sub(TRAILER_LEN)?;
    let trailer = Trailer::decode(&bytes[at..]).ok()?;
    (trailer.file_len() == bytes.len() as u64).then_some(trailer)
}

/// Compares what a footer says with what is there.
fn check_footer(bytes: &Bytes, trailer: &Trailer, found: &Scan, problems: &mut Vec<String>) {
    let part = |at: u64, rows: u32, len: usize| {
        let at = usize_of(at);
        bytes.slice(at..at + rows as usize * len)
    };
    let sums = part(trailer.blocks_end, trailer.sums, SUMS_LEN);
    match read_sums(&sums, trailer) {
        Err(damage) => problems.push(damage.to_string()),
        // What is damaged is missing from what was found.
        Ok(sums) if found.damaged.is_empty() => {
            let all: Vec<(Slot, Sums)> = found
                .sums
                .iter()
                .map(|(slot, sums)| (*slot, *sums))
                .collect();
            if all != sums {
                problems.push("the sums are not those of the blocks".to_owned());
            }
        }
        Ok(_) => {}
    }
    match read_index(
        &part(trailer.index_at(), trailer.blocks, INDEX_LEN),
        trailer,
    ) {
        Err(damage) => problems.push(damage.to_string()),
        Ok(index) if found.damaged.is_empty() && index != found.blocks => {
            problems.push("the index is not that of the blocks".to_owned());
        }
        Ok(_) => {}
    }
    if found.end > trailer.blocks_end {
        problems.push("there are blocks behind the end of the blocks".to_owned());
    }
}

type LostOrProblem = std::result::Result<Vec<(u8, Lost)>, String>;

fn read_lost(dir: &Path) -> Result<LostOrProblem> {
    let path = dir.join(files::LOST);
    match fs::read(&path) {
        Ok(bytes) => match LostList::decode(&bytes) {
            Ok(list) => Ok(Ok(list.list())),
            Err(Unlike::Damaged) => Ok(Err("the checksum is wrong".to_owned())),
            Err(Unlike::Version(version)) => Err(JournalError::Version { path, version }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Ok(Vec::new())),
        Err(error) => Err(JournalError::io(path)(error)),
    }
}
