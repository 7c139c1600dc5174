//! The ledger of a time series, by time: a cell for each minute in which something was stamped.
//!
//! The versions of a series only come, so one that is surely new is added to its cell and nothing is
//! read: one that is newer than everything that was held before its batch. Any other may be a
//! repetition, and one that is dropped may not have been there: their cells become stale and are counted
//! again by whoever compares, beside the writer: [`Calendar::stale`], then a snapshot, then
//! [`Counter::add`] for each item in it, then [`Calendar::renew`]. What a batch has touched in between
//! stays as it is.
//!
//! ```text
//! rows of Table::Ledger            value (integers big-endian)
//! t MINUTE (u64)                   1, count u64, sum u128: this is in the minute
//! t MINUTE (u64)                   1: the minute has to be counted
//! t                                1, floor u64: no minute without a row, from this one on, has anything
//! ```
//!
//! Minutes are counted since the Unix epoch. A row that says a sum is right, whenever the process ends:
//! the batch that makes it wrong makes it stale ([`Calendar::note`]). Sums are written when the series
//! has gone on to later minutes.

mod counting;

use std::collections::{BTreeMap, BTreeSet};

pub use counting::{Counted, Counter, Stale};

use super::{
    Covered, Summary,
    batches::{Batches, Written, exact_row, is_stale_row, read_row, stale_row},
    hash_of,
};
use crate::{
    change::{Table, Write},
    key::Key,
    keyspace::KeySpace,
    version::{Stamp, Version},
};

/// A span of time, both ends inclusive (NTP64).
pub type Times = (u64, u64);

/// All there is.
const ALWAYS: Times = (0, u64::MAX);
/// Sets the rows apart from those of [`super::runs`].
const TAG: u8 = b't';
/// Seconds in a cell.
const CELL: u64 = 60;
/// NTP64: seconds are in the upper half.
const SECOND: u32 = 32;

/// What a store knows of its time series, by minute. See the module. About 100 bytes a minute.
#[derive(Clone, Debug)]
pub struct Calendar {
    batches: Batches,
    cells: BTreeMap<u64, Cell>,
    /// Whether a minute without a cell may have something.
    is_unknown: bool,
    /// The first minute that is counted.
    floor: u64,
    /// The row that says so, once nothing is unknown, and the batch that wrote it last.
    floor_written: (Written, u64),
    /// The last minute that something was stamped in.
    newest: u64,
    /// Minutes that are known and whose rows do not say so.
    behind: BTreeSet<u64>,
    /// Minutes without a cell whose rows are still there.
    gone: BTreeSet<u64>,
    /// Those of them that the batch in flight removes.
    going: Vec<u64>,
    /// Minutes that the batch in flight has touched or whose rows it writes.
    in_flight: Vec<u64>,
    /// The last batch that touched any of the cells that are no more.
    dropped: u64,
    scratch: Scratch,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    /// Of a stale cell an old one, good for estimates.
    summary: Summary,
    is_stale: bool,
    /// The last batch that may have changed something in it.
    touched: u64,
    written: Written,
    /// The batch that wrote the row last.
    written_by: u64,
}

/// Buffers.
#[derive(Clone, Debug, Default)]
struct Scratch {
    full: String,
    bytes: Vec<u8>,
    /// The hashes of what was surely new in a batch, in the order of time.
    new: Vec<u128>,
    /// What is new unless it is repeated in the batch, and its minute.
    perhaps: Vec<(u128, u64)>,
}

impl Default for Calendar {
    fn default() -> Self {
        Self::begin(false)
    }
}

impl Calendar {
    /// A ledger that knows nothing. `in_flight` says that a batch may be on its way that it was not
    /// told of: what that holds may be missing from a count that begins before it is settled.
    #[must_use]
    pub fn begin(in_flight: bool) -> Self {
        let batches = Batches::begun(in_flight);
        Self {
            // As if it had touched all there was: no count is believed that began before.
            dropped: batches.last(),
            batches,
            cells: BTreeMap::new(),
            is_unknown: true,
            floor: 0,
            floor_written: (Written::Nothing, 0),
            newest: 0,
            behind: BTreeSet::new(),
            gone: BTreeSet::new(),
            going: Vec::new(),
            in_flight: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// What a store has kept: rows of [`Table::Ledger`], of which others are passed over. A row that
    /// makes no sense makes its minute stale; without the row of the floor everything is.
    #[must_use]
    pub fn load(rows: &[(Vec<u8>, Vec<u8>)]) -> Self {
        let mut loaded = Self::begin(false);
        let mut is_sound = true;
        for (key, row) in rows {
            let Some(key) = key.strip_prefix(&[TAG]) else {
                continue;
            };
            if key.is_empty() {
                if let Some(floor) = read_floor_row(row) {
                    loaded.floor = floor;
                    loaded.is_unknown = false;
                    loaded.floor_written.0 = Written::Exact;
                }
                continue;
            }
            let minute = key.try_into().ok().map(u64::from_be_bytes);
            let Some(minute) = minute.filter(|minute| *minute <= minute_of(u64::MAX)) else {
                // Which minute it was about, nobody knows.
                is_sound = false;
                continue;
            };
            let mut cell = Cell::new();
            match read_row(row) {
                Some((summary, [])) => {
                    cell.summary = summary;
                    cell.written = Written::Exact;
                }
                _ if is_stale_row(row) => cell.written = Written::Stale,
                _ => cell.written = Written::Unknown,
            }
            cell.is_stale = cell.written != Written::Exact;
            loaded.newest = loaded.newest.max(minute);
            loaded.cells.insert(minute, cell);
        }
        loaded.is_unknown |= !is_sound;
        if loaded.is_unknown {
            loaded.floor = 0;
            loaded.floor_written.0 = Written::Unknown;
            loaded
                .cells
                .values_mut()
                .for_each(|cell| cell.is_stale = true);
        }
        loaded
    }

    /// Takes note of a sealed batch that is about to be committed, and adds the rows that go with it.
    /// `newest` is the newest version that the store had ever held before the batch.
    /// [`Calendar::settle`] has to follow; a batch that failed is noted again before it is tried again.
    ///
    /// Costs a hash and a search for each version that it writes.
    pub fn note(&mut self, space: &KeySpace, writes: &mut Vec<Write<'_>>, newest: Version) {
        // Nobody said what became of the batch before.
        self.settle(false);
        let batch = self.batches.next();
        let mut noted_before = false;
        // Whatever is newer is new, and no repetition of what came before it in the batch.
        let mut latest = newest.stamp;
        for write in writes.iter() {
            match write {
                Write::History { key, record } => {
                    let version = record.head.own;
                    self.take(space, key, version, newest.stamp, &mut latest, batch);
                }
                Write::ForgetHistory { version, .. } => {
                    let minute = minute_of(version.stamp.time);
                    if let Some(cell) = self.touch(minute, batch) {
                        cell.is_stale = true;
                    }
                }
                Write::Row {
                    table: Table::Ledger,
                    key,
                    ..
                } => noted_before |= is_own(key),
                _ => {}
            }
        }
        self.take_perhaps(batch);
        if noted_before {
            // Of an attempt that failed; what is to be written may be something else by now.
            writes.retain(|write| {
                !matches!(write, Write::Row { table: Table::Ledger, key, .. } if is_own(key))
            });
        }
        self.push_rows(batch, false, writes);
    }

    /// What became of the batch that was noted last: it was committed and readers see it (`done`), or
    /// it never will be. Until then what it has touched cannot be renewed.
    pub fn settle(&mut self, done: bool) {
        if !self.batches.in_flight() {
            return;
        }
        let batch = self.batches.last();
        self.batches.settle();
        let going = std::mem::take(&mut self.going);
        let in_flight = std::mem::take(&mut self.in_flight);
        if done {
            return;
        }
        self.gone.extend(going);
        for minute in in_flight {
            let Some(cell) = self.cells.get_mut(&minute) else {
                continue;
            };
            if cell.touched == batch {
                cell.is_stale = true;
            }
            if cell.written_by == batch {
                cell.written = Written::Unknown;
            }
            if cell.is_stale {
                self.behind.remove(&minute);
            } else {
                self.behind.insert(minute);
            }
        }
        if self.floor_written.1 == batch {
            self.floor_written.0 = Written::Unknown;
        }
    }

    /// [`Calendar::settle`]: it was committed.
    pub fn committed(&mut self) {
        self.settle(true);
    }

    /// [`Calendar::settle`]: it was not, and never will be.
    pub fn aborted(&mut self) {
        self.settle(false);
    }

    /// What is left to be written of minutes that are over, as a batch of its own that counts as noted:
    /// settle it. It would also go with the next batch that is noted. Empty while a batch is in flight.
    pub fn rows_to_write(&mut self) -> Vec<Write<'static>> {
        self.rows(false)
    }

    /// [`Calendar::rows_to_write`], with those of the last minutes: for a store that is about to be
    /// closed.
    pub fn all_rows_to_write(&mut self) -> Vec<Write<'static>> {
        self.rows(true)
    }

    fn rows(&mut self, all: bool) -> Vec<Write<'static>> {
        let mut rows = Vec::new();
        if !self.batches.in_flight() {
            let batch = self.batches.last() + 1;
            self.push_rows(batch, all, &mut rows);
            if !rows.is_empty() {
                self.batches.next();
            }
        }
        rows
    }

    /// A version of a series.
    fn take(
        &mut self,
        space: &KeySpace,
        key: &Key,
        version: Version,
        newest: Stamp,
        latest: &mut Stamp,
        batch: u64,
    ) {
        let minute = minute_of(version.stamp.time);
        let scratch = &mut self.scratch;
        // Nobody could be shown anything else.
        let Some(full) = space.full(key, &mut scratch.full) else {
            return;
        };
        if version.stamp <= newest {
            if let Some(cell) = self.touch(minute, batch) {
                cell.is_stale = true;
            }
            return;
        }
        let hash = hash_of(full.as_str(), version, 0, &mut scratch.bytes);
        if version.stamp <= *latest {
            scratch.perhaps.push((hash, minute));
            return;
        }
        scratch.new.push(hash);
        *latest = version.stamp;
        if let Some(cell) = self.touch(minute, batch) {
            cell.summary.add(hash);
        }
    }

    /// What came in the batch after something later: new unless the batch has it twice.
    fn take_perhaps(&mut self, batch: u64) {
        let mut new = std::mem::take(&mut self.scratch.new);
        let mut perhaps = std::mem::take(&mut self.scratch.perhaps);
        if !perhaps.is_empty() {
            new.sort_unstable();
            perhaps.sort_unstable();
            perhaps.dedup();
            for (hash, minute) in perhaps.drain(..) {
                if new.binary_search(&hash).is_err()
                    && let Some(cell) = self.touch(minute, batch)
                {
                    cell.summary.add(hash);
                }
            }
        }
        new.clear();
        (self.scratch.new, self.scratch.perhaps) = (new, perhaps);
    }

    /// The cell of a minute that a batch changes; `None` below the floor.
    fn touch(&mut self, minute: u64, batch: u64) -> Option<&mut Cell> {
        if minute < self.floor {
            return None;
        }
        self.newest = self.newest.max(minute);
        let cell = self.cells.entry(minute).or_insert_with(|| Cell {
            is_stale: self.is_unknown,
            ..Cell::new()
        });
        if cell.touched != batch {
            cell.touched = batch;
            self.in_flight.push(minute);
        }
        Some(cell)
    }

    fn push_rows(&mut self, batch: u64, all: bool, writes: &mut Vec<Write<'_>>) {
        for minute in std::mem::take(&mut self.gone) {
            match self.cells.get_mut(&minute) {
                // It has come back.
                Some(cell) if cell.written == Written::Nothing => cell.written = Written::Unknown,
                Some(_) => {}
                None => {
                    writes.push(own_row(&minute.to_be_bytes(), None));
                    self.going.push(minute);
                }
            }
        }
        for &minute in &self.in_flight {
            let Some(cell) = self.cells.get_mut(&minute) else {
                continue;
            };
            if cell.written != Written::Stale {
                cell.written = Written::Stale;
                cell.written_by = batch;
                writes.push(own_row(&minute.to_be_bytes(), Some(stale_row())));
            }
            if cell.is_stale {
                self.behind.remove(&minute);
            } else {
                self.behind.insert(minute);
            }
        }
        let is_first = !self.is_unknown && self.floor_written.0 != Written::Exact;
        // A minute that has just passed may get stragglers; the one before hardly.
        let over = if all || is_first {
            u64::MAX
        } else {
            self.newest.saturating_sub(1)
        };
        while let Some(&minute) = self.behind.first()
            && minute < over
        {
            self.behind.pop_first();
            if let Some(cell) = self.cells.get_mut(&minute) {
                cell.written = Written::Exact;
                cell.written_by = batch;
                self.in_flight.push(minute);
                writes.push(own_row(
                    &minute.to_be_bytes(),
                    Some(exact_row(cell.summary)),
                ));
            }
        }
        if is_first {
            self.push_floor(batch, writes);
        }
    }

    /// Says that minutes without a row are empty: so all that are not must have one.
    fn push_floor(&mut self, batch: u64, writes: &mut Vec<Write<'_>>) {
        for (minute, cell) in &mut self.cells {
            if matches!(cell.written, Written::Nothing | Written::Unknown) {
                cell.written = Written::Stale;
                cell.written_by = batch;
                self.in_flight.push(*minute);
                writes.push(own_row(&minute.to_be_bytes(), Some(stale_row())));
            }
        }
        self.floor_written = (Written::Exact, batch);
        let mut row = stale_row();
        row.extend(self.floor.to_be_bytes());
        writes.push(own_row(&[], Some(row)));
    }

    /// What has to be counted again of all that concerns `within`, and through which batch it is
    /// complete. To be asked before the snapshot is taken that is counted.
    #[must_use]
    pub fn stale(&self, within: Times) -> Stale {
        let times = if self.is_unknown {
            vec![ALWAYS]
        } else {
            self.stale_times(minute_of(within.0), minute_of(within.1))
        };
        Stale::new(times, self.batches.through())
    }

    /// The times of the stale cells between two minutes, joined where nothing known lies between.
    fn stale_times(&self, from: u64, to: u64) -> Vec<Times> {
        let mut times: Vec<Times> = Vec::new();
        let mut is_joined = false;
        for (minute, cell) in self.range(from, to) {
            match times.last_mut() {
                Some(last) if cell.is_stale && is_joined => last.1 = last_of(minute),
                _ if cell.is_stale => times.push((first_of(minute), last_of(minute))),
                _ => {}
            }
            is_joined = cell.is_stale;
        }
        times
    }

    /// Takes over what was counted. Costs a search for each minute in it.
    pub fn renew(&mut self, counted: Counted) {
        for times in &counted.times {
            let (from, to) = (minute_of(times.0), minute_of(times.1));
            let minutes: BTreeSet<u64> = {
                let held = self.range(from, to).map(|(minute, _)| minute);
                let found = counted.minutes.range(from..=to).map(|(minute, _)| *minute);
                held.chain(found)
                    .filter(|minute| *minute >= self.floor)
                    .collect()
            };
            for minute in minutes {
                let found = counted.minutes.get(&minute).copied().unwrap_or_default();
                self.renew_cell(minute, found, counted.through);
            }
            if *times == ALWAYS && counted.through >= self.batches_unseen() {
                self.is_unknown = false;
            }
        }
    }

    /// Counts that began before this batch was settled may lack anything.
    fn batches_unseen(&self) -> u64 {
        if self.is_unknown { self.dropped } else { 0 }
    }

    fn renew_cell(&mut self, minute: u64, found: Summary, through: u64) {
        let Some(cell) = self.cells.get_mut(&minute) else {
            // If a later batch has emptied it, this count came too late.
            let is_late = through < self.dropped;
            self.newest = self.newest.max(minute);
            self.cells.insert(
                minute,
                Cell {
                    summary: found,
                    is_stale: is_late,
                    touched: if is_late { self.dropped } else { 0 },
                    ..Cell::new()
                },
            );
            if !is_late {
                self.behind.insert(minute);
            }
            return;
        };
        if !cell.is_stale || cell.touched > through {
            return;
        }
        if found.is_empty() {
            self.dropped = self.dropped.max(cell.touched);
            if cell.written != Written::Nothing {
                self.gone.insert(minute);
            }
            self.cells.remove(&minute);
            return;
        }
        cell.summary = found;
        cell.is_stale = false;
        self.behind.insert(minute);
    }

    /// The sum of a span of time. Costs a pass over its minutes.
    #[must_use]
    pub fn summary(&self, times: Times) -> Covered<Times> {
        let mut covered = Covered {
            summary: Summary::EMPTY,
            partial: Vec::new(),
            stale: Vec::new(),
        };
        let (from, to) = (times.0.max(first_of(self.floor)), times.1);
        if from > to {
            return covered;
        }
        let (first, last) = (minute_of(from), minute_of(to));
        for minute in BTreeSet::from([first, last]) {
            let part = (from.max(first_of(minute)), to.min(last_of(minute)));
            let is_whole = part == (first_of(minute), last_of(minute));
            if !is_whole && (self.is_unknown || self.cells.contains_key(&minute)) {
                covered.partial.push(part);
            }
        }
        let from = first + u64::from(first_of(first) < from);
        let to = (last + 1).saturating_sub(u64::from(last_of(last) > to));
        if from >= to {
            return covered;
        }
        let cells = self.range(from, to - 1);
        covered.summary = cells.map(|(_, cell)| cell.summary).sum();
        covered.stale = if self.is_unknown {
            vec![(first_of(from), last_of(to - 1))]
        } else {
            self.stale_times(from, to - 1)
        };
        covered
    }

    /// The times that cut a span into at most `parts` of about as many minutes each, of those that have
    /// anything: so what a peer lacks of them shows. Where they have but one, it is cut by seconds.
    #[must_use]
    pub fn cut(&self, times: Times, parts: usize) -> Vec<u64> {
        let (from, to) = times;
        let minutes = self.range(minute_of(from), minute_of(to));
        let minutes: Vec<u64> = minutes.map(|(minute, _)| minute).collect();
        let mut cuts: Vec<u64> = match minutes[..] {
            [] => return Vec::new(),
            [minute] => {
                let first = from.max(first_of(minute)) >> SECOND;
                let last = to.min(last_of(minute)) >> SECOND;
                let seconds: Vec<u64> = (first..=last).collect();
                let seconds = evenly(&seconds, parts);
                seconds.map(|second| second << SECOND).collect()
            }
            _ => evenly(&minutes, parts).map(first_of).collect(),
        };
        cuts.dedup();
        cuts.retain(|cut| from < *cut && *cut <= to);
        cuts
    }

    /// Drops the minutes that are over before `floor` (NTP64), and their rows: nothing in them is
    /// counted any more. The floor is never lowered.
    pub fn forget_below(&mut self, floor: u64) {
        let floor = minute_of(floor);
        if floor <= self.floor {
            return;
        }
        self.floor = floor;
        self.floor_written.0 = Written::Unknown;
        let kept = self.cells.split_off(&floor);
        for (minute, cell) in std::mem::replace(&mut self.cells, kept) {
            self.behind.remove(&minute);
            if cell.written != Written::Nothing {
                self.gone.insert(minute);
            }
        }
    }

    /// How many minutes have something.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether there is nothing, as far as is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Whether anything has to be counted again. Costs a pass over the minutes.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.is_unknown || self.cells.values().any(|cell| cell.is_stale)
    }

    /// How many versions there are; of stale minutes, how many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.cells.values().map(|cell| cell.summary.count).sum()
    }

    /// The cells between two minutes, both inclusive.
    fn range(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, &Cell)> {
        let cells = (from <= to).then(|| self.cells.range(from..=to));
        let cells = cells.into_iter().flatten();
        cells.map(|(minute, cell)| (*minute, cell))
    }
}

impl Cell {
    fn new() -> Self {
        Self {
            summary: Summary::EMPTY,
            is_stale: false,
            touched: 0,
            written: Written::Nothing,
            written_by: 0,
        }
    }
}

/// The firsts of all but the first of at most `parts` about equal parts.
fn evenly(all: &[u64], parts: usize) -> impl Iterator<Item = u64> {
    (1..parts).map(move |part| all[all.len() * part / parts])
}

/// The minute of a time (NTP64).
fn minute_of(time: u64) -> u64 {
    (time >> SECOND) / CELL
}

/// The first time of a minute.
fn first_of(minute: u64) -> u64 {
    (minute * CELL) << SECOND
}

/// The last time of a minute.
fn last_of(minute: u64) -> u64 {
    // The last minute that NTP64 can tell is not a whole one.
    first_of(minute).saturating_add((CELL << SECOND) - 1)
}

fn is_own(key: &[u8]) -> bool {
    key.first() == Some(&TAG)
}

fn own_row(minute: &[u8], value: Option<Vec<u8>>) -> Write<'static> {
    Write::Row {
        table: Table::Ledger,
        key: [&[TAG], minute].concat(),
        value,
    }
}

fn read_floor_row(row: &[u8]) -> Option<u64> {
    let floor = row.strip_prefix(stale_row().as_slice())?;
    let floor = u64::from_be_bytes(floor.try_into().ok()?);
    (floor <= minute_of(u64::MAX)).then_some(floor)
}

#[cfg(test)]
mod tests;
