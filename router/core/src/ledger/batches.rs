//! What both ledgers share: which batches a count covers, and how a count is kept in a row.
//!
//! Batches are numbered as they are noted. Whatever a batch touches remembers its number. A count is
//! begun by asking through which batch everything is settled, before the store is read: what a later
//! batch has touched may or may not be in the count, so it stays stale.

use super::Summary;

/// The format of rows.
const FORMAT: u8 = 1;

/// The numbers of the batches of one store, of which one at a time is between noted and settled.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Batches {
    noted: u64,
    settled: u64,
}

/// What the store holds in the row of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Written {
    /// No row.
    Nothing,
    /// That the range has to be counted.
    Stale,
    /// What is in the range.
    Exact,
    /// Any of these: a batch has failed that was to change it.
    Unknown,
}

/// The sum of a range as far as it is known, and what is to be counted for the rest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Covered<R> {
    /// The sum of what lies wholly inside, stale or not.
    pub summary: Summary,
    /// What lies inside of ranges that do not: at most two, to be counted by whoever asks.
    pub partial: Vec<R>,
    /// What of the sum is stale. To be renewed first; otherwise the sum is an old one.
    pub stale: Vec<R>,
}

impl Batches {
    /// Those of a store of which a batch may be on its way that nobody has noted.
    pub(super) fn begun(in_flight: bool) -> Self {
        Self {
            noted: u64::from(in_flight),
            settled: 0,
        }
    }

    /// The number of a new batch.
    pub(super) fn next(&mut self) -> u64 {
        self.noted += 1;
        self.noted
    }

    /// The last batch that was noted.
    pub(super) fn last(&self) -> u64 {
        self.noted
    }

    /// Whether a batch is noted and not settled.
    pub(super) fn in_flight(&self) -> bool {
        self.noted > self.settled
    }

    /// What a reader who begins now sees for certain.
    pub(super) fn through(&self) -> u64 {
        self.settled
    }

    /// The last batch was committed, or never will be.
    pub(super) fn settle(&mut self) {
        self.settled = self.noted;
    }
}

/// A row that says how much is in its range: format, count (u64), sum (u128), big-endian.
pub(super) fn exact_row(summary: Summary) -> Vec<u8> {
    let mut row = vec![FORMAT];
    row.extend(summary.count.to_be_bytes());
    row.extend(summary.sum.to_be_bytes());
    row
}

/// A row that says that its range has to be counted: the format alone.
pub(super) fn stale_row() -> Vec<u8> {
    vec![FORMAT]
}

/// What a row says, and what follows it; `None` if that is nothing to rely on.
pub(super) fn read_row(row: &[u8]) -> Option<(Summary, &[u8])> {
    let (format, rest) = row.split_first()?;
    let (count, rest) = rest.split_first_chunk::<8>()?;
    let (sum, rest) = rest.split_first_chunk::<16>()?;
    let summary = Summary {
        count: u64::from_be_bytes(*count),
        sum: u128::from_be_bytes(*sum),
    };
    (*format == FORMAT).then_some((summary, rest))
}

/// Whether a row says that its range has to be counted.
pub(super) fn is_stale_row(row: &[u8]) -> bool {
    row == [FORMAT]
}
