//! A segment that is being written under another name, beside those that are there.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;

use crate::{
    block::{Block, Builder},
    calendar::{Slot, Sums},
    error::{JournalError, Result},
    files::{self, Files, Output},
    moves::Name,
    newest::Superseded,
    recovery::set_slots,
    segment::{self, HEADER_LEN, Header, Info},
    state::{Segment, State},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: Name,
    /// The position of the first entry, and the one behind the last.
    pub(super) ends: (u64, u64),
    output: Box<dyn Output>,
    len: u64,
    pub(super) blocks: Vec<Info>,
    pub(super) builder: Builder,
    pub(super) sums: BTreeMap<Slot, Sums>,
    /// What of it waits only as long as nothing newer does. What is beyond the limit counts as waiting.
    pub(super) newest_only: Vec<Superseded>,
}

/// As many as there are keys of which the newest is known.
pub(super) const NEWEST_MAX: usize = 64 << 10;

impl Part {
    /// At the end of a lane; behind it there is room for all the positions of a segment.
    pub(super) fn at_the_end(
        state: &Mutex<State>,
        files: &dyn Files,
        dir: &Path,
        from: Name,
        lane: u8,
    ) -> Result<Self> {
        let header = {
            let mut state = state.lock();
            let segment = state.lane(from.0).segments.get(&from.1);
            let most = segment.map_or(0, |segment| segment.end - segment.first);
            // Ids and positions rise together.
            state.close_open(lane);
            let id = state.next_segment;
            state.next_segment += 1;
            let first = state.lane(lane).next;
            state.lane_mut(lane).next += most;
            Header {
                lane,
                is_coalesced: false,
                id,
                first,
            }
        };
        Self::begin(files, dir, header, header.first)
    }

    pub(super) fn begin(files: &dyn Files, dir: &Path, header: Header, end: u64) -> Result<Self> {
        let path = files::unfinished(dir, &files::name_of(header.lane, header.id));
        let mut output = files.create(&path).map_err(JournalError::io(&path))?;
        let mut builder = Builder::new();
        builder.begin(header.id, header.first);
        let begun = output.append(&header.encode());
        let part = Self {
            name: (header.lane, header.id),
            ends: (header.first, end),
            output,
            len: HEADER_LEN as u64,
            blocks: Vec::new(),
            builder,
            sums: BTreeMap::new(),
            newest_only: Vec::new(),
        };
        if let Err(error) = begun {
            drop(part);
            // What is left of it is removed when the journal is opened.
            let _ = files.remove(&path);
            return Err(JournalError::io(&path)(error));
        }
        Ok(part)
    }

    /// Writes the block that was filled.
    pub(super) fn flush(&mut self, dir: &Path) -> Result<()> {
        if self.builder.is_empty() {
            return Ok(());
        }
        let (head, bytes) = self.builder.encode();
        self.builder.begin(self.name.1, head.end());
        self.append(dir, Info { offset: 0, head }, &bytes)
    }

    /// Writes a block as it was.
    pub(super) fn copy(&mut self, dir: &Path, block: &Block) -> Result<()> {
        let (offset, head) = (0, block.head);
        self.append(dir, Info { offset, head }, &block.bytes())
    }

    pub(super) fn append(&mut self, dir: &Path, info: Info, bytes: &[u8]) -> Result<()> {
        self.write(dir, bytes)?;
        self.blocks.push(Info {
            offset: self.len - bytes.len() as u64,
            ..info
        });
        Ok(())
    }

    /// Writes the footer, and waits until the disk has it all.
    pub(super) fn end(&mut self, dir: &Path, ranking: u32) -> Result<()> {
        self.flush(dir)?;
        let sums = self.sums.iter();
        let footer = segment::footer(sums, &self.blocks, self.len, self.ends, ranking);
        self.write(dir, &footer)?;
        self.output.sync().map_err(|source| JournalError::Io {
            path: self.path(dir),
            source,
        })
    }

    fn write(&mut self, dir: &Path, bytes: &[u8]) -> Result<()> {
        let appended = self.output.append(bytes);
        appended.map_err(|error| JournalError::io(self.path(dir))(error))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn path(&self, dir: &Path) -> PathBuf {
        files::unfinished(dir, &files::name_of(self.name.0, self.name.1))
    }

    /// As it is in memory.
    pub(super) fn segment(&self, ranked: u32) -> (Segment, Vec<(Slot, Sums)>) {
        let mut segment = Segment::new(self.name.1, self.ends.0);
        let sums: Vec<(Slot, Sums)> = self.sums.iter().map(|(slot, it)| (*slot, *it)).collect();
        let heads = || self.blocks.iter().map(|info| info.head);
        let appended = heads().map(|head| head.appended).max().unwrap_or(0);
        segment.end = self.ends.1;
        segment.ranked = ranked;
        segment.bytes = self.len;
        segment.appended = u64::from(appended) << 32;
        segment.has_operations = heads().any(|head| head.operations > 0);
        segment.blocks = None;
        set_slots(&mut segment, &sums);
        (segment, sums)
    }
}
