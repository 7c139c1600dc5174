//! The ledger of the latest records, by key: runs of about [`RUN`] neighbouring keys, each with its sum.
//!
//! A write says that the run of its key is stale, and reads nothing for it: that is all it costs. Who
//! compares counts the stale runs again, beside the writer: [`Runs::stale`], then a snapshot, then
//! [`Counter::add`] for each item in it, then [`Runs::renew`]. What a batch has touched in between stays
//! stale. What a wildcard operation changes is not known by key: it makes every run stale.
//!
//! Keys are relative to the storage's prefix and in ordered form, as stores have them.
//!
//! ```text
//! rows of Table::Ledger            value (integers big-endian)
//! k FENCE                          1, count u64, sum u128, epoch u64: this is in the run, if the epoch is the current one
//! k FENCE                          1: the run has to be counted
//! k 0                              1, epoch u64: the current epoch; 0 if there is no such row
//! ```
//!
//! A run goes from its fence to the next one, the first from the beginning; no key holds the byte 0. To
//! make all rows stale at once the epoch is raised. Rows go into the batches that they speak of
//! ([`Runs::note`]), all that differ at once, so after every batch the rows are what is known here, and
//! a row that says a sum is right, whenever the process ends.

mod counting;

use std::{collections::BTreeMap, ops::Range};

pub use counting::{Counted, Counter, Stale};
use counting::{Piece, joins};

use super::{
    Covered, Summary,
    batches::{Batches, Written, exact_row, is_stale_row, read_row, stale_row},
    fences::Fences,
};
use crate::{
    admission::Memory,
    change::{Table, Write},
    key::{Key, KeyRange},
};

/// About how many items a run has: between a third of it and twice as many, if its neighbours allow.
/// A difference is found by listing one run, and a million keys need some six thousand.
pub const RUN: u64 = 180;

/// Sets the rows apart from those of [`super::calendar`].
const TAG: u8 = b'k';
/// Behind the tag, the row of the epoch. No fence is this.
const EPOCH: &[u8] = &[0];
/// No epoch is ever as high: one that is was not written by us.
const EPOCH_MAX: u64 = u64::MAX >> 1;

/// What a store knows of its latest records, by range. See the module.
#[derive(Clone, Debug)]
pub struct Runs {
    /// [`RUN`], or less in tests.
    size: u64,
    batches: Batches,
    fences: Fences,
    /// One for each fence.
    runs: Vec<Run>,
    epoch: u64,
    /// The epoch's row, and the batch that wrote it last.
    epoch_written: (Written, u64),
    /// Some run's row is not what it should be, or one has to go.
    is_behind: bool,
    /// Runs that became stale in the batch at hand whose rows said otherwise.
    fallen: Vec<usize>,
    /// Fences that are gone, whose rows are still there.
    gone: Vec<Vec<u8>>,
    /// Those of them that the batch in flight removes.
    going: Vec<Vec<u8>>,
    /// An ordered key.
    scratch: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    /// Of a stale run an old one, good for estimates.
    summary: Summary,
    is_stale: bool,
    /// The last batch that may have changed something in it. Never lowered, for counts that began
    /// earlier may still arrive.
    touched: u64,
    written: Written,
    /// The batch that wrote the row last.
    written_by: u64,
}

impl Default for Runs {
    fn default() -> Self {
        Self::begin(false)
    }
}

impl Runs {
    /// A ledger that knows nothing: one stale run over everything. `in_flight` says that a batch may be
    /// on its way that it was not told of.
    #[must_use]
    pub fn begin(in_flight: bool) -> Self {
        Self::sized(RUN, in_flight)
    }

    /// What a store has kept: rows of [`Table::Ledger`], of which others are passed over. A row that
    /// makes no sense makes its run stale; without any this is [`Runs::begin`].
    #[must_use]
    pub fn load(rows: &[(Vec<u8>, Vec<u8>)]) -> Self {
        Self::load_sized(RUN, rows)
    }

    fn sized(size: u64, in_flight: bool) -> Self {
        let batches = Batches::begun(in_flight);
        let mut fences = Fences::default();
        fences.push(&[]);
        fences.seal();
        Self {
            size,
            runs: vec![Run::unknown(batches.last(), Written::Nothing)],
            batches,
            fences,
            epoch: 0,
            epoch_written: (Written::Exact, 0),
            is_behind: true,
            fallen: Vec::new(),
            gone: Vec::new(),
            going: Vec::new(),
            scratch: Vec::new(),
        }
    }

    fn load_sized(size: u64, rows: &[(Vec<u8>, Vec<u8>)]) -> Self {
        let own = rows.iter().filter_map(|(key, value)| {
            let fence = key.strip_prefix(&[TAG])?;
            Some((fence, value.as_slice()))
        });
        let mut rows: BTreeMap<&[u8], &[u8]> = own.collect();
        let mut loaded = Self::sized(size, false);
        let epoch = match rows.remove(EPOCH) {
            None => Some(0),
            Some(row) => read_epoch_row(row),
        };
        if rows.is_empty() && epoch == Some(0) {
            return loaded;
        }
        let highest = rows.values().filter_map(|row| Some(read_run_row(row)?.1));
        let highest = highest.max().unwrap_or(0).max(epoch.unwrap_or(0));
        // An epoch that was lost could be any that the rows speak of: none of them is believed.
        let is_sound = epoch == Some(highest);
        (loaded.epoch, loaded.epoch_written.0) = if is_sound {
            (highest, Written::Exact)
        } else {
            (highest + 1, Written::Unknown)
        };
        loaded.is_behind = false;
        loaded.fences = Fences::default();
        loaded.runs.clear();
        if !rows.contains_key([].as_slice()) {
            loaded.fences.push(&[]);
            loaded.runs.push(Run::unknown(0, Written::Nothing));
            loaded.is_behind = true;
        }
        for (fence, row) in rows {
            loaded.fences.push(fence);
            let run = match read_run_row(row) {
                Some((summary, epoch)) if is_sound && epoch == highest => Run {
                    summary,
                    is_stale: false,
                    touched: 0,
                    written: Written::Exact,
                    written_by: 0,
                },
                // Of an earlier epoch.
                Some((summary, _)) => Run {
                    summary,
                    ..Run::unknown(0, Written::Stale)
                },
                None if is_stale_row(row) => Run::unknown(0, Written::Stale),
                None => Run::unknown(0, Written::Unknown),
            };
            loaded.is_behind |= run.written == Written::Unknown;
            loaded.runs.push(run);
        }
        loaded.fences.seal();
        loaded
    }

    /// Takes note of a sealed batch that is about to be committed, and adds the rows that go with it.
    /// [`Runs::settle`] has to follow; a batch that failed is noted again before it is tried again.
    ///
    /// Costs the search for the run of each key that it writes; one allocation for a run that becomes
    /// stale, and nothing more for one that is.
    pub fn note(&mut self, writes: &mut Vec<Write<'_>>) {
        // Nobody said what became of the batch before: its rows may be there or not.
        self.settle(false);
        let batch = self.batches.next();
        let mut all = false;
        let mut noted_before = false;
        for write in writes.iter() {
            match write {
                Write::Latest { key, .. } | Write::ForgetLatest { key } => self.touch(key, batch),
                Write::Row { table, key, .. } => match table {
                    Table::Wildcards => all = true,
                    Table::System => {
                        all |= key == Memory::HORIZON || key == Memory::FOLDED_THROUGH;
                    }
                    Table::Ledger => noted_before |= is_own(key),
                    _ => {}
                },
                Write::History { .. } | Write::ForgetHistory { .. } => {}
            }
        }
        if noted_before {
            // Of an attempt that failed; what is to be written may be something else by now.
            writes.retain(|write| {
                !matches!(write, Write::Row { table: Table::Ledger, key, .. } if is_own(key))
            });
        }
        if all {
            self.touch_all(batch);
        }
        self.push_rows(batch, writes);
    }

    /// What became of the batch that was noted last: it was committed and readers see it (`done`), or
    /// it never will be. Until then what it has touched cannot be renewed.
    pub fn settle(&mut self, done: bool) {
        if !self.batches.in_flight() {
            return;
        }
        let batch = self.batches.last();
        self.batches.settle();
        if done {
            self.going.clear();
            return;
        }
        self.gone.append(&mut self.going);
        self.is_behind |= !self.gone.is_empty();
        for run in &mut self.runs {
            if run.written_by == batch {
                run.written = Written::Unknown;
                self.is_behind = true;
            }
        }
        if self.epoch_written.1 == batch {
            self.epoch_written.0 = Written::Unknown;
        }
    }

    /// [`Runs::settle`]: it was committed.
    pub fn committed(&mut self) {
        self.settle(true);
    }

    /// [`Runs::settle`]: it was not, and never will be.
    pub fn aborted(&mut self) {
        self.settle(false);
    }

    /// What renewals have left to be written, as a batch of its own that counts as noted: settle it. It
    /// would also go with the next batch that is noted. Empty while a batch is in flight.
    pub fn rows_to_write(&mut self) -> Vec<Write<'static>> {
        let mut rows = Vec::new();
        let is_behind = self.is_behind || self.epoch_written.0 != Written::Exact;
        if is_behind && !self.batches.in_flight() {
            self.note(&mut rows);
        }
        rows
    }

    fn touch(&mut self, key: &Key, batch: u64) {
        self.scratch.clear();
        key.order_into(&mut self.scratch);
        let index = self.fences.find(&self.scratch);
        let run = &mut self.runs[index];
        run.is_stale = true;
        run.touched = batch;
        if run.written == Written::Exact {
            run.written = Written::Stale;
            run.written_by = batch;
            self.fallen.push(index);
        }
    }

    fn touch_all(&mut self, batch: u64) {
        let mut fallen = false;
        for run in &mut self.runs {
            run.is_stale = true;
            run.touched = batch;
            if run.written == Written::Exact {
                run.written = Written::Stale;
                fallen = true;
            }
        }
        if fallen {
            self.epoch += 1;
            self.epoch_written.0 = Written::Unknown;
        }
    }

    fn push_rows(&mut self, batch: u64, writes: &mut Vec<Write<'_>>) {
        if self.epoch_written.0 != Written::Exact {
            self.epoch_written = (Written::Exact, batch);
            let mut row = stale_row();
            row.extend(self.epoch.to_be_bytes());
            writes.push(own_row(EPOCH, Some(row)));
        }
        for index in self.fallen.drain(..) {
            writes.push(own_row(self.fences.get(index), Some(stale_row())));
        }
        if !std::mem::take(&mut self.is_behind) {
            return;
        }
        // Before the others: a fence that is gone may have come back.
        writes.extend(self.gone.iter().map(|fence| own_row(fence, None)));
        self.going.append(&mut self.gone);
        for (run, fence) in self.runs.iter_mut().zip(self.fences.iter()) {
            let written = if run.is_stale {
                Written::Stale
            } else {
                Written::Exact
            };
            if run.written != written {
                run.written = written;
                run.written_by = batch;
                writes.push(own_row(fence, Some(run.row(self.epoch))));
            }
        }
    }

    /// What has to be counted again of all that concerns `within`, and through which batch it is
    /// complete. To be asked before the snapshot is taken that is counted.
    #[must_use]
    pub fn stale(&self, within: &KeyRange) -> Stale {
        let mut stale = Stale {
            size: self.size,
            through: self.batches.through(),
            ranges: Vec::new(),
            inner: Vec::new(),
        };
        for index in self.indices(within) {
            if !self.runs[index].is_stale {
                continue;
            }
            let run = self.range(index);
            match (stale.ranges.last_mut(), stale.inner.last_mut()) {
                (Some(range), Some(inner)) if range.to.as_ref() == Some(&run.from) => {
                    range.to = run.to;
                    inner.push(run.from);
                }
                _ => {
                    stale.ranges.push(run);
                    stale.inner.push(Vec::new());
                }
            }
        }
        stale
    }

    /// Takes over what was counted. Runs that have grown too long are cut, short ones joined to their
    /// neighbours. Costs a pass over all runs.
    pub fn renew(&mut self, counted: Counted) {
        let mut renewed = Renewed::default();
        let mut at = 0;
        for (range, pieces) in counted.ranges {
            let to = match &range.to {
                Some(to) => self.fences.exactly(to),
                None => Some(self.runs.len()),
            };
            // Others may have renewed meanwhile and cut elsewhere: their count is as good.
            let (Some(from), Some(to)) = (self.fences.exactly(&range.from), to) else {
                continue;
            };
            for index in at..from {
                renewed.put(self.size, self.fences.get(index), self.runs[index]);
            }
            self.replace(counted.through, from..to, &pieces, &mut renewed);
            at = to;
        }
        if at == 0 {
            return;
        }
        for index in at..self.runs.len() {
            renewed.put(self.size, self.fences.get(index), self.runs[index]);
        }
        renewed.fences.seal();
        self.fences = renewed.fences;
        self.runs = renewed.runs;
        self.gone.append(&mut renewed.gone);
        self.is_behind = true;
    }

    /// Puts `pieces` in place of some runs.
    fn replace(
        &mut self,
        through: u64,
        old: Range<usize>,
        pieces: &[Piece],
        renewed: &mut Renewed,
    ) {
        let mut first = old.start;
        for (number, piece) in pieces.iter().enumerate() {
            // The old runs that the piece has something of.
            while first + 1 < old.end && self.fences.get(first + 1) <= piece.fence.as_slice() {
                first += 1;
            }
            let mut last = first;
            let next = pieces.get(number + 1).map(|next| next.fence.as_slice());
            while last + 1 < old.end && next.is_none_or(|next| self.fences.get(last + 1) < next) {
                last += 1;
            }
            let touched = self.runs[first..=last].iter().map(|run| run.touched).max();
            let touched = touched.unwrap_or(u64::MAX);
            let mut run = Run {
                summary: piece.summary,
                // Whatever has changed since may be in the count or not. The fences are good all the
                // same: next time less is touched.
                is_stale: touched > through,
                touched,
                written: Written::Nothing,
                written_by: 0,
            };
            if self.fences.get(first) == piece.fence {
                let row = &mut self.runs[first];
                run.written_by = row.written_by;
                run.written = match std::mem::replace(&mut row.written, Written::Nothing) {
                    Written::Exact => Written::Unknown,
                    written => written,
                };
            }
            renewed.put(self.size, &piece.fence, run);
        }
        for index in old {
            if self.runs[index].written != Written::Nothing {
                renewed.gone.push(self.fences.get(index).to_vec());
            }
        }
    }

    /// The sum of a range. Costs a pass over its runs.
    #[must_use]
    pub fn summary(&self, range: &KeyRange) -> Covered<KeyRange> {
        let mut covered = Covered {
            summary: Summary::EMPTY,
            partial: Vec::new(),
            stale: Vec::new(),
        };
        for index in self.indices(range) {
            if !self.is_inside(index, range) {
                let mut part = self.range(index);
                part.from = part.from.max(range.from.clone());
                part.to = match (part.to, range.to.clone()) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (to, None) | (None, to) => to,
                };
                covered.partial.push(part);
                continue;
            }
            let run = &self.runs[index];
            covered.summary += run.summary;
            if run.is_stale {
                let part = self.range(index);
                match covered.stale.last_mut() {
                    Some(last) if last.to.as_ref() == Some(&part.from) => last.to = part.to,
                    _ => covered.stale.push(part),
                }
            }
        }
        covered
    }

    /// The positions inside of a range that cut it into at most `parts` of about as many items each, as
    /// far as is known. None if it lies in one run. Costs a pass over its runs.
    #[must_use]
    pub fn cut(&self, range: &KeyRange, parts: usize) -> Vec<Vec<u8>> {
        let indices = self.indices(range);
        // A run of which nothing is known is something still.
        let weight = |index: usize| u128::from(self.runs[index].summary.count) + 1;
        let total: u128 = indices.clone().map(weight).sum();
        let parts = parts.max(1) as u128;
        let mut before = 0;
        let mut part = 1;
        let mut cuts = Vec::new();
        for index in indices {
            let fence = self.fences.get(index);
            if part < parts && before * parts >= total * part && fence > range.from.as_slice() {
                cuts.push(fence.to_vec());
                part = before * parts / total + 1;
            }
            before += weight(index);
        }
        cuts
    }

    /// How many runs there are; one at least.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is always a run")]
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether anything has to be counted again. Costs a pass over the runs.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.runs.iter().any(|run| run.is_stale)
    }

    /// How many items there are; of stale runs, how many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.runs.iter().map(|run| run.summary.count).sum()
    }

    /// The runs that have something of a range.
    fn indices(&self, range: &KeyRange) -> Range<usize> {
        if range.is_empty() {
            return 0..0;
        }
        let from = self.fences.find(&range.from);
        let to = match &range.to {
            None => self.runs.len(),
            Some(to) => {
                let last = self.fences.find(to);
                last + usize::from(self.fences.get(last) < to.as_slice())
            }
        };
        from..to
    }

    fn range(&self, index: usize) -> KeyRange {
        KeyRange {
            from: self.fences.get(index).to_vec(),
            to: (index + 1 < self.runs.len()).then(|| self.fences.get(index + 1).to_vec()),
        }
    }

    fn is_inside(&self, index: usize, range: &KeyRange) -> bool {
        let Some(to) = &range.to else {
            return self.fences.get(index) >= range.from.as_slice();
        };
        self.fences.get(index) >= range.from.as_slice()
            && index + 1 < self.runs.len()
            && self.fences.get(index + 1) <= to.as_slice()
    }
}

impl Run {
    fn unknown(touched: u64, written: Written) -> Self {
        Self {
            summary: Summary::EMPTY,
            is_stale: true,
            touched,
            written,
            written_by: 0,
        }
    }

    fn row(&self, epoch: u64) -> Vec<u8> {
        if self.is_stale {
            return stale_row();
        }
        let mut row = exact_row(self.summary);
        row.extend(epoch.to_be_bytes());
        row
    }
}

/// Runs as they are being put together.
#[derive(Default)]
struct Renewed {
    fences: Fences,
    runs: Vec<Run>,
    gone: Vec<Vec<u8>>,
}

impl Renewed {
    /// Adds a run behind the others, or to the last one if both are known and one is short.
    fn put(&mut self, size: u64, fence: &[u8], run: Run) {
        match self.runs.last_mut() {
            Some(last)
                if !last.is_stale && !run.is_stale && joins(size, last.summary, run.summary) =>
            {
                last.summary += run.summary;
                last.touched = last.touched.max(run.touched);
                if last.written != Written::Nothing {
                    last.written = Written::Unknown;
                }
                if run.written != Written::Nothing {
                    self.gone.push(fence.to_vec());
                }
            }
            _ => {
                self.fences.push(fence);
                self.runs.push(run);
            }
        }
    }
}

fn is_own(key: &[u8]) -> bool {
    key.first() == Some(&TAG)
}

fn own_row(fence: &[u8], value: Option<Vec<u8>>) -> Write<'static> {
    Write::Row {
        table: Table::Ledger,
        key: [&[TAG], fence].concat(),
        value,
    }
}

fn read_run_row(row: &[u8]) -> Option<(Summary, u64)> {
    let (summary, epoch) = read_row(row)?;
    let epoch = u64::from_be_bytes(epoch.try_into().ok()?);
    (epoch < EPOCH_MAX).then_some((summary, epoch))
}

fn read_epoch_row(row: &[u8]) -> Option<u64> {
    let epoch = row.strip_prefix(stale_row().as_slice())?;
    let epoch = u64::from_be_bytes(epoch.try_into().ok()?);
    (epoch < EPOCH_MAX).then_some(epoch)
}

#[cfg(test)]
mod tests;
