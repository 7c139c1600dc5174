//! Whether a shard's store can be used, and when to try again if not.
//!
//! ```text
//!          failed(Retry)               failed(Reopen)
//!   Up ------------------> Resting <------------------ Up
//!    ^                        | due
//!    |      recovered         v
//!    +--------------------- Trying --- failed ---> Resting, longer
//! ```

/// How long the first rest is and the longest (NTP64): 50 ms and 5 s.
const REST_MIN: u64 = (1 << 32) / 20;
const REST_MAX: u64 = 5 << 32;

/// What has to be done before the store can be used again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cure {
    /// The same call may work later: it was down, slow or full.
    Retry,
    /// It must be closed and opened again: it is unknown what reached the disk.
    Reopen,
}

/// Whether a store can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Health {
    /// It can.
    #[default]
    Up,
    /// It failed; it rests until `until` (NTP64), then it is tried.
    Resting {
        /// When it failed first (NTP64).
        since: u64,
        /// When it may be tried again (NTP64).
        until: u64,
        /// How often it has failed in a row.
        failures: u32,
        /// What to do first.
        cure: Cure,
    },
}

impl Health {
    /// It failed at `now`. `jitter` in 0..=1<<32 spreads the next try over half of the rest, so that
    /// many shards of one broken disk do not come back at once.
    pub fn failed(&mut self, now: u64, cure: Cure, jitter: u64) {
        let (since, failures, before) = match *self {
            Self::Up => (now, 0, Cure::Retry),
            Self::Resting {
                since,
                failures,
                cure,
                ..
            } => (since, failures, cure),
        };
        let rest = REST_MIN.saturating_mul(1 << failures.min(10)).min(REST_MAX);
        let spread = (u128::from(rest / 2) * u128::from(jitter)) >> 32;
        let until = now
            .saturating_add(rest)
            .saturating_add(u64::try_from(spread).unwrap_or(rest));
        // A store that has to be opened again does not get better by a milder failure.
        let cure = if before == Cure::Reopen { before } else { cure };
        *self = Self::Resting {
            since,
            until,
            failures: failures + 1,
            cure,
        };
    }

    /// It works.
    pub fn recovered(&mut self) {
        *self = Self::Up;
    }

    /// Its rest ends at `now`, because there will be no later.
    pub fn cut_short(&mut self, now: u64) {
        if let Self::Resting { until, .. } = self {
            *until = now.min(*until);
        }
    }

    /// Whether it may be used or tried at `now`; with what to do first.
    #[must_use]
    pub fn may_try(&self, now: u64) -> Option<Option<Cure>> {
        match *self {
            Self::Up => Some(None),
            Self::Resting { until, cure, .. } => (now >= until).then_some(Some(cure)),
        }
    }

    /// When to try again (NTP64).
    #[must_use]
    pub const fn deadline(&self) -> Option<u64> {
        match *self {
            Self::Up => None,
            Self::Resting { until, .. } => Some(until),
        }
    }

    /// Whether it can be used.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        matches!(self, Self::Up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_longer_each_time_and_never_over_the_bound() {
        let mut health = Health::Up;
        let mut rests = Vec::new();
        for _ in 0..12 {
            let now = health.deadline().unwrap_or(1_000);
            assert_eq!(
                health.may_try(now.saturating_sub(1)).is_some(),
                health.is_up()
            );
            health.failed(now, Cure::Retry, 0);
            rests.push(health.deadline().unwrap() - now);
        }
        assert_eq!(rests[0], REST_MIN);
        assert!(rests.windows(2).all(|pair| pair[0] <= pair[1]), "{rests:?}");
        assert_eq!(rests[11], REST_MAX);
        health.recovered();
        assert_eq!(health.may_try(0), Some(None));
    }

    #[test]
    fn a_rest_that_is_cut_short_keeps_its_cure() {
        let mut health = Health::Up;
        health.cut_short(5);
        assert!(health.is_up());
        health.failed(5, Cure::Reopen, 0);
        assert_eq!(health.may_try(6), None);
        health.cut_short(6);
        assert_eq!(health.may_try(6), Some(Some(Cure::Reopen)));
    }

    #[test]
    fn what_must_be_reopened_stays_so_until_it_works() {
        let mut health = Health::Up;
        health.failed(0, Cure::Reopen, 1 << 32);
        health.failed(1 << 40, Cure::Retry, 0);
        assert_eq!(health.may_try(u64::MAX), Some(Some(Cure::Reopen)));
    }
}
