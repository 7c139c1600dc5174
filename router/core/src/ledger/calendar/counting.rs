//! Counting stale minutes again, beside whoever writes.

use std::collections::BTreeMap;

use super::{Times, minute_of};
use crate::ledger::Summary;

/// Times that have to be counted again.
#[derive(Clone, Debug)]
pub struct Stale {
    times: Vec<Times>,
    through: u64,
}

/// Counts the items of stale times. Holds a sum for each minute.
#[derive(Debug)]
pub struct Counter<'a> {
    stale: &'a Stale,
    minutes: BTreeMap<u64, Summary>,
    /// The minute of the item that came last, and what is to be added to it.
    last: (u64, Summary),
}

/// What is in stale times.
#[derive(Clone, Debug)]
pub struct Counted {
    pub(super) times: Vec<Times>,
    pub(super) through: u64,
    pub(super) minutes: BTreeMap<u64, Summary>,
}

impl Stale {
    pub(super) fn new(times: Vec<Times>, through: u64) -> Self {
        Self { times, through }
    }

    /// What is to be counted: whole minutes, in order, without overlaps.
    #[must_use]
    pub fn times(&self) -> &[Times] {
        &self.times
    }

    /// Whether there is nothing to be counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Begins to count.
    #[must_use]
    pub fn counter(&self) -> Counter<'_> {
        Counter {
            stale: self,
            minutes: BTreeMap::new(),
            last: (0, Summary::EMPTY),
        }
    }
}

impl Counter<'_> {
    /// Counts an item, by its time (NTP64) and [`crate::ledger::Item::hash`]. Items come in any order,
    /// each once; what is at no time to be counted is passed over in the end.
    pub fn add(&mut self, time: u64, hash: u128) {
        let minute = minute_of(time);
        if minute != self.last.0 {
            self.put_last();
            self.last.0 = minute;
        }
        self.last.1.add(hash);
    }

    /// Everything that there is at these times was added.
    #[must_use]
    pub fn finish(mut self) -> Counted {
        self.put_last();
        Counted {
            times: self.stale.times.clone(),
            through: self.stale.through,
            minutes: self.minutes,
        }
    }

    fn put_last(&mut self) {
        let (minute, summary) = std::mem::take(&mut self.last);
        if !summary.is_empty() {
            *self.minutes.entry(minute).or_default() += summary;
        }
    }
}
