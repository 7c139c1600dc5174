//! Scans: a cursor over rows, and the rows of a snapshot read chunk by chunk.

use std::ops::Bound;

use parking_lot::RwLock;
use weir_backend_api::{Direction, Error, ErrorKind, Row};
use weir_core::{
    key::{Key, KeyRange},
    version::Version,
};

use crate::{
    kept::Kept,
    layer::RowKey,
    state::{Kind, State},
};

/// Rows that are read under one lock: about 30 us, which is what a commit waits at the most.
const CHUNK_ROWS: usize = 256;

/// Ends a key in a history row; no ordered key holds it.
const END: u8 = 0;
/// Above everything that can follow a whole key in a history row, and below any longer key.
const BEHIND: u8 = END + 1;

/// Of rows still to be read.
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The key of a history row: the ordered key, an end mark, the version.
pub(crate) fn history_row(key: &Key, version: Version, out: &mut Vec<u8>) {
    key.order_into(out);
    out.push(END);
    out.extend_from_slice(&version.to_bytes());
}

/// Where a scan stands and what it is still to read: rows from `from` up to but without `to`.
#[derive(Debug)]
pub(crate) struct Cursor {
    from: Vec<u8>,
    to: Option<Vec<u8>>,
    direction: Direction,
    versions: Option<([u8; Version::LEN], [u8; Version::LEN])>,
    finished: bool,
}

/// The rows of a snapshot, a chunk at a time.
pub(crate) struct Scan<'s> {
    pub(crate) state: &'s RwLock<State>,
    pub(crate) at: u64,
    pub(crate) kind: Kind,
    pub(crate) cursor: Cursor,
    chunk: std::vec::IntoIter<(RowKey, Kept)>,
}

impl Cursor {
    /// Over latest rows.
    pub(crate) fn latest(range: &KeyRange, direction: Direction) -> Self {
        Self {
            from: range.from.clone(),
            to: range.to.clone(),
            direction,
            versions: None,
            finished: false,
        }
    }

    /// Over history rows.
    pub(crate) fn history(
        range: &KeyRange,
        versions: Option<(Version, Version)>,
        direction: Direction,
    ) -> Self {
        Self {
            from: history_bound(&range.from),
            to: range.to.as_deref().map(history_bound),
            direction,
            versions: versions.map(|(first, last)| (first.to_bytes(), last.to_bytes())),
            finished: false,
        }
    }

    pub(crate) const fn is_forward(&self) -> bool {
        matches!(self.direction, Direction::Forward)
    }

    /// What is left to read, if anything can be.
    pub(crate) fn range(&self) -> Option<Bounds<'_>> {
        let to = self.to.as_deref();
        if self.finished || to.is_some_and(|to| to <= self.from.as_slice()) {
            return None;
        }
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        Some((Bound::Included(&self.from), to))
    }

    /// Whether the row's version lies outside the bounds; leaps to the next that may lie inside.
    pub(crate) fn skip(&mut self, row: &[u8]) -> bool {
        let Some((first, last)) = &self.versions else {
            return false;
        };
        let (key, version) = row.split_at(row.len() - Version::LEN);
        // `key` still has its end mark.
        let plain = &key[..key.len() - 1];
        let is_early = version < first.as_slice();
        if !is_early && version <= last.as_slice() {
            return false;
        }
        match (self.direction, is_early) {
            (Direction::Forward, true) => self.from = [key, first].concat(),
            (Direction::Forward, false) => self.from = [plain, &[BEHIND]].concat(),
            // The smallest row above the last version.
            (Direction::Backward, false) => self.to = Some([key, last, &[0]].concat()),
            (Direction::Backward, true) => self.to = Some(key.to_vec()),
        }
        true
    }

    /// Continues behind this row.
    pub(crate) fn pass(&mut self, row: &[u8]) {
        match self.direction {
            Direction::Forward => {
                self.from.clear();
                self.from.extend_from_slice(row);
                self.from.push(0);
            }
            Direction::Backward => self.to = Some(row.to_vec()),
        }
    }

    /// There is nothing left to read.
    pub(crate) const fn finish(&mut self) {
        self.finished = true;
    }
}

impl<'s> Scan<'s> {
    pub(crate) fn new(state: &'s RwLock<State>, at: u64, kind: Kind, cursor: Cursor) -> Self {
        Self {
            state,
            at,
            kind,
            cursor,
            chunk: Vec::new().into_iter(),
        }
    }
}

impl Iterator for Scan<'_> {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        loop {
            if let Some((row, kept)) = self.chunk.next() {
                return Some(key_of(self.kind, &row).and_then(|key| Ok((key, kept.record()?))));
            }
            self.cursor.range()?;
            let mut chunk = Vec::with_capacity(CHUNK_ROWS);
            let state = self.state.read();
            state
                .layer(self.kind)
                .scan(&mut self.cursor, self.at, CHUNK_ROWS, &mut chunk);
            drop(state);
            self.chunk = chunk.into_iter();
        }
    }
}

/// The first history row that belongs to a key at or above a bound of ordered keys.
///
/// A bound that holds an end mark means "behind this very key": its history rows are behind the mark
/// too, but belong to the key.
fn history_bound(bound: &[u8]) -> Vec<u8> {
    match bound.iter().position(|byte| *byte == END) {
        Some(end) => [&bound[..end], &[BEHIND]].concat(),
        None => bound.to_vec(),
    }
}

fn key_of(kind: Kind, row: &[u8]) -> weir_backend_api::Result<Key> {
    let ordered = match kind {
        Kind::Latest => Some(row),
        Kind::History => row
            .len()
            .checked_sub(Version::LEN + 1)
            .map(|len| &row[..len]),
    };
    ordered.and_then(Key::from_ordered).ok_or_else(|| {
        Error::new(
            ErrorKind::Corrupt,
            "a row in memory has a key that is not one",
        )
    })
}
