//! Which snapshots are open, and so which entries of the spool have to wait for them.
//!
//! What was committed after a snapshot must not be seen in it, and what was forgotten after it must.
//! What still waits in the local store is right by the local store's own snapshot; so nothing is
//! carried out on the server that is newer than the oldest open snapshot, for a limited time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// The open snapshots, by number: the last serial that each may see, and when it was taken.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    open: BTreeMap<u64, (u64, Instant)>,
    next: u64,
}

impl Holds {
    /// A snapshot is about to be taken that sees at least the entries up to `serial`.
    pub(crate) fn open(&mut self, serial: u64, now: Instant) -> u64 {
        self.next += 1;
        self.open.insert(self.next, (serial, now));
        self.next
    }

    pub(crate) fn close(&mut self, number: u64) {
        self.open.remove(&number);
    }

    /// The last serial that may be carried out; `None` if no snapshot that is younger than `age_max`
    /// holds anything back.
    pub(crate) fn limit(&self, now: Instant, age_max: Duration) -> Option<u64> {
        let young = self
            .open
            .values()
            .filter(|(_, since)| now.duration_since(*since) < age_max);
        young.map(|(serial, _)| *serial).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_young_snapshot_counts() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let age_max = Duration::from_secs(60);
        let mut holds = Holds::default();
        assert_eq!(holds.limit(start, age_max), None);
        let first = holds.open(7, start);
        let second = holds.open(9, at(30));
        assert_eq!(holds.limit(at(40), age_max), Some(7));
        assert_eq!(holds.limit(at(60), age_max), Some(9));
        assert_eq!(holds.limit(at(90), age_max), None);
        holds.close(first);
        assert_eq!(holds.limit(at(40), age_max), Some(9));
        holds.close(second);
        assert_eq!(holds.limit(at(40), age_max), None);
    }
}
