//! What may be forgotten, and how far (S2, retention).
//!
//! A collection goes in this order, so that it may stop at any write and be begun again:
//!
//! 1. [`bound_of`] over every record finds the greatest version that is old enough to go;
//! 2. the horizon is raised to it: from here on older changes are judged with care;
//! 3. [`collect`] on every record: tombstones below are forgotten, wildcard effects folded in;
//! 4. the journal forgets what lies below.

use crate::{
    admission::History,
    key::Key,
    record::Record,
    version::{Stamp, Version},
    view::View,
};

/// What to do with a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Collect {
    /// Leave it.
    Keep,
    /// It is a tombstone that nobody needs any more, or older than retention keeps.
    Forget,
    /// Hold this instead: the effect of the wildcard journal, folded in.
    Fold(Record),
}

/// The version just above everything stamped before `time` (NTP64).
#[must_use]
pub const fn before(time: u64) -> Version {
    Version::put(Stamp { time, id: [0; 16] }, 0)
}

/// The version of the record if it is a tombstone below `old`.
#[must_use]
pub fn bound_of(
    view: &View,
    key: &Key,
    record: &Record,
    old: Version,
    scratch: &mut String,
) -> Option<Version> {
    let version = view.effective(key, record.head, scratch);
    let seen = version.max(newest_seen(record));
    (version.is_delete() && seen < old).then_some(seen)
}

/// At least the version of the newest change that a record has merged: while that may come again, the
/// record that knows it must stay. It may be newer than the record, if what it put has lost.
#[must_use]
pub fn newest_seen(record: &Record) -> Version {
    record.merged.as_ref().map_or(Version::ZERO, |merged| {
        Version::delete(merged.vector.newest())
    })
}

/// What to do with a record when everything below `horizon` is collected. With [`History::All`] only
/// retention forgets: a tombstone there is the end of a series, and the series is still told.
#[must_use]
pub fn collect(
    view: &View,
    history: History,
    key: &Key,
    record: &Record,
    horizon: Version,
    scratch: &mut String,
) -> Collect {
    let effective = view.effective(key, record.head, scratch);
    if effective.stamp.time < view.floor {
        return Collect::Forget;
    }
    if history == History::All {
        return Collect::Keep;
    }
    if effective.is_delete() && effective.max(newest_seen(record)) < horizon {
        return Collect::Forget;
    }
    view.fold_below(horizon, key, record, scratch)
        .map_or(Collect::Keep, Collect::Fold)
}

/// Sizes by age, to find how old the youngest data are that do not fit a budget. Constant memory:
/// 64 buckets for each power of two of age.
#[derive(Clone, Debug)]
pub struct AgeHistogram {
    now: u64,
    bytes: Vec<u64>,
}

/// Buckets for each doubling of the age: the cut is at most 1/64 of the age too early.
const BUCKETS_PER_DOUBLING: u64 = 64;

impl AgeHistogram {
    /// An empty one; ages count back from `now` (NTP64).
    #[must_use]
    pub fn new(now: u64) -> Self {
        Self {
            now,
            bytes: vec![0; 65 * 64],
        }
    }

    /// Counts `bytes` stamped at `time` (NTP64).
    pub fn add(&mut self, time: u64, bytes: u64) {
        let bucket = Self::bucket(self.now.saturating_sub(time));
        self.bytes[bucket] = self.bytes[bucket].saturating_add(bytes);
    }

    /// The time (NTP64) before which everything has to go so that at most `bytes_max` stay; `None`
    /// if everything fits.
    #[must_use]
    pub fn floor(&self, bytes_max: u64) -> Option<u64> {
        let mut total = 0u64;
        for (bucket, bytes) in self.bytes.iter().enumerate() {
            total = total.saturating_add(*bytes);
            if total > bytes_max {
                return Some(
                    self.now
                        .saturating_sub(Self::youngest(bucket))
                        .saturating_add(1),
                );
            }
        }
        None
    }

    fn bucket(age: u64) -> usize {
        let bucket = if age < BUCKETS_PER_DOUBLING {
            age
        } else {
            let doubling = u64::from(age.ilog2()) - 6;
            (doubling + 1) * BUCKETS_PER_DOUBLING + ((age >> doubling) - BUCKETS_PER_DOUBLING)
        };
        usize::try_from(bucket).unwrap_or(usize::MAX)
    }

    /// The smallest age in a bucket.
    fn youngest(bucket: usize) -> u64 {
        let bucket = bucket as u64;
        if bucket < BUCKETS_PER_DOUBLING {
            return bucket;
        }
        let doubling = bucket / BUCKETS_PER_DOUBLING - 1;
        (BUCKETS_PER_DOUBLING + bucket % BUCKETS_PER_DOUBLING) << doubling
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_stays_fits_the_budget(
            samples in proptest::collection::vec((0u64..1 << 40, 1u64..100), 0..60),
            budget in 0u64..3_000,
        ) {
            let now = 1 << 40;
            let mut histogram = AgeHistogram::new(now);
            for (time, bytes) in &samples {
                histogram.add(*time, *bytes);
            }
            let sum = |floor: u64| {
                samples.iter().filter(|(time, _)| *time >= floor).map(|(_, bytes)| bytes).sum::<u64>()
            };
            match histogram.floor(budget) {
                None => prop_assert!(sum(0) <= budget),
                Some(floor) => {
                    prop_assert!(sum(0) > budget);
                    prop_assert!(sum(floor) <= budget);
                    // Not much more than needed goes: a little younger would no longer fit, or the
                    // bucket that was cut is within 1/64 of the age.
                    let age = now - floor.min(now);
                    prop_assert!(sum(floor.saturating_sub(age / 32 + 2)) > budget);
                }
            }
        }

        #[test]
        fn buckets_hold_their_ages(age in any::<u64>()) {
            let bucket = AgeHistogram::bucket(age);
            prop_assert!(bucket < 65 * 64);
            prop_assert!(AgeHistogram::youngest(bucket) <= age);
            prop_assert_eq!(AgeHistogram::bucket(AgeHistogram::youngest(bucket)), bucket);
        }
    }
}
