//! Counting stale runs again, beside whoever writes.

use super::super::Summary;
use crate::key::KeyRange;

/// Ranges that have to be counted again.
#[derive(Clone, Debug)]
pub struct Stale {
    pub(super) size: u64,
    pub(super) through: u64,
    pub(super) ranges: Vec<KeyRange>,
    /// The fences inside of each range.
    pub(super) inner: Vec<Vec<Vec<u8>>>,
}

/// Counts the items of stale ranges. Holds a sum and a key for each run.
#[derive(Debug)]
pub struct Counter<'a> {
    stale: &'a Stale,
    /// The inner fences of the range at hand that were passed.
    passed: usize,
    /// The run at hand, cut up in case it is too long.
    pieces: Vec<Piece>,
    /// The runs of the range at hand.
    runs: Vec<Piece>,
    /// Of each range that was passed.
    done: Vec<Vec<Piece>>,
}

/// What is in stale ranges.
#[derive(Clone, Debug)]
pub struct Counted {
    pub(super) through: u64,
    pub(super) ranges: Vec<(KeyRange, Vec<Piece>)>,
}

/// A run as it was counted.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) fence: Vec<u8>,
    pub(super) summary: Summary,
}

/// Whether two neighbours are better one run.
pub(super) fn joins(size: u64, a: Summary, b: Summary) -> bool {
    a.count.min(b.count) < size / 3 && a.count.saturating_add(b.count) <= 2 * size
}

impl Stale {
    /// What is to be counted, in order, without overlaps.
    #[must_use]
    pub fn ranges(&self) -> &[KeyRange] {
        &self.ranges
    }

    /// Whether there is nothing to be counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Begins to count.
    #[must_use]
    pub fn counter(&self) -> Counter<'_> {
        let mut counter = Counter {
            stale: self,
            passed: 0,
            pieces: Vec::new(),
            runs: Vec::new(),
            done: Vec::new(),
        };
        counter.open();
        counter
    }
}

impl Counter<'_> {
    /// Counts an item, by its key (relative, in ordered form) and [`crate::ledger::Item::hash`]. Items come in
    /// the order of their keys, each once; what is in no range to be counted is passed over.
    pub fn add(&mut self, ordered: &[u8], hash: u128) {
        while let Some(range) = self.stale.ranges.get(self.done.len()) {
            if range.to.as_deref().is_some_and(|to| to <= ordered) {
                self.close();
                continue;
            }
            if ordered < range.from.as_slice() {
                return;
            }
            self.pass(Some(ordered));
            if let Some(piece) = self.pieces.last_mut() {
                if piece.summary.count < self.stale.size {
                    piece.summary.add(hash);
                } else {
                    debug_assert!(piece.fence.as_slice() < ordered, "items out of order");
                    let mut summary = Summary::EMPTY;
                    summary.add(hash);
                    self.pieces.push(Piece::new(ordered, summary));
                }
            }
            return;
        }
    }

    /// Everything that there is in the ranges was added.
    #[must_use]
    pub fn finish(mut self) -> Counted {
        while self.done.len() < self.stale.ranges.len() {
            self.close();
        }
        let ranges = self.stale.ranges.iter().cloned();
        Counted {
            through: self.stale.through,
            ranges: ranges.zip(self.done).collect(),
        }
    }

    /// Begins with the next range.
    fn open(&mut self) {
        self.passed = 0;
        if let Some(range) = self.stale.ranges.get(self.done.len()) {
            self.pieces.push(Piece::new(&range.from, Summary::EMPTY));
        }
    }

    /// Passes the fences of the range at hand through a position, or all of them.
    fn pass(&mut self, through: Option<&[u8]>) {
        let inner = &self.stale.inner[self.done.len()];
        while let Some(fence) = inner.get(self.passed)
            && through.is_none_or(|through| fence.as_slice() <= through)
        {
            self.cut();
            self.pieces.push(Piece::new(fence, Summary::EMPTY));
            self.passed += 1;
        }
    }

    /// Ends the run at hand. It stays one unless it is too long, so that fences stay where they are.
    fn cut(&mut self) {
        let size = self.stale.size;
        let count: u64 = self.pieces.iter().map(|piece| piece.summary.count).sum();
        for (number, piece) in self.pieces.drain(..).enumerate() {
            let is_more = number > 0 && count <= 2 * size;
            match self.runs.last_mut() {
                Some(last)
                    if joins(size, last.summary, piece.summary)
                        || (is_more && last.summary.count + piece.summary.count <= 2 * size) =>
                {
                    last.summary += piece.summary;
                }
                _ => self.runs.push(piece),
            }
        }
    }

    /// Ends the range at hand.
    fn close(&mut self) {
        self.pass(None);
        self.cut();
        self.done.push(std::mem::take(&mut self.runs));
        self.open();
    }
}

impl Piece {
    fn new(fence: &[u8], summary: Summary) -> Self {
        Self {
            fence: fence.to_vec(),
            summary,
        }
    }
}
