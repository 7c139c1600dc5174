//! The storage service's own hybrid logical clock (S5).
//!
//! It never goes back, not even over a restart with the wall clock set back: before a stamp above the
//! ceiling is given out, a higher ceiling is made durable, and a restart continues above the ceiling.
//! It follows stamps that it sees, but never one from the future.

use crate::version::Stamp;

/// How far a new ceiling is set ahead (NTP64): a quarter of a second. A restart continues above the
/// ceiling, so this must stay below the drift that others allow, or the first stamps after a restart
/// would come from the future. It is written at most four times a second, while stamps are given.
const CEILING_AHEAD: u64 = 1 << 30;

/// A hybrid logical clock with a durable ceiling.
#[derive(Clone, Debug)]
pub struct Clock {
    id: [u8; 16],
    last: u64,
    ceiling: u64,
    drift: u64,
}

/// What [`Clock::stamp`] answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tick {
    /// A stamp, greater than every one before.
    Stamp(Stamp),
    /// Make this ceiling (NTP64) durable, tell [`Clock::raise`], ask again.
    NeedsCeiling(u64),
}

impl Clock {
    /// A clock for the HLC id `id` that continues above `ceiling`, the last durable one (0 at first).
    /// `drift` is how far ahead of the wall clock a seen stamp may pull it (all NTP64).
    #[must_use]
    pub const fn new(id: [u8; 16], ceiling: u64, drift: u64) -> Self {
        Self {
            id,
            last: ceiling,
            ceiling,
            drift,
        }
    }

    /// The next stamp; `wall` is the wall clock (NTP64).
    pub fn stamp(&mut self, wall: u64) -> Tick {
        let next = wall.max(self.last.saturating_add(1));
        if next > self.ceiling {
            return Tick::NeedsCeiling(next.saturating_add(CEILING_AHEAD));
        }
        self.last = next;
        Tick::Stamp(Stamp {
            time: next,
            id: self.id,
        })
    }

    /// A new ceiling has been made durable.
    pub fn raise(&mut self, ceiling: u64) {
        self.ceiling = self.ceiling.max(ceiling);
    }

    /// Follows a seen stamp, unless it lies further ahead than the drift allows.
    pub fn observe(&mut self, wall: u64, seen: Stamp) {
        if seen.time <= wall.saturating_add(self.drift) {
            self.last = self.last.max(seen.time.min(self.ceiling));
        }
    }

    /// The time that judgements are made by (NTP64): the wall clock, never behind what was given out.
    #[must_use]
    pub fn now(&self, wall: u64) -> u64 {
        wall.max(self.last)
    }

    /// How far the clock runs ahead of the wall (NTP64): after a start with the wall clock set back.
    #[must_use]
    pub const fn ahead(&self, wall: u64) -> u64 {
        self.last.saturating_sub(wall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(clock: &mut Clock, wall: u64) -> u64 {
        match clock.stamp(wall) {
            Tick::Stamp(stamp) => stamp.time,
            Tick::NeedsCeiling(ceiling) => {
                clock.raise(ceiling);
                stamp(clock, wall)
            }
        }
    }

    #[test]
    fn never_goes_back_over_a_restart_with_the_clock_set_back() {
        let mut clock = Clock::new([1; 16], 0, 10);
        let first = stamp(&mut clock, 1_000);
        assert_eq!(first, 1_000);
        let Tick::NeedsCeiling(ceiling) = Clock::new([1; 16], 0, 10).stamp(1_000) else {
            panic!("a first stamp needs a ceiling");
        };
        let mut restarted = Clock::new([1; 16], ceiling, 10);
        assert!(stamp(&mut restarted, 500) > ceiling);
    }

    #[test]
    fn stamps_rise_while_the_wall_stands_still() {
        let mut clock = Clock::new([1; 16], 0, 10);
        let stamps: Vec<u64> = (0..5).map(|_| stamp(&mut clock, 7)).collect();
        assert_eq!(stamps, [7, 8, 9, 10, 11]);
    }

    #[test]
    fn what_it_stamps_is_never_from_the_future_to_itself() {
        // Restarted with the wall clock an hour behind.
        let hour = 3_600 << 32;
        let mut clock = Clock::new([1; 16], 10 * hour, 10);
        let first = stamp(&mut clock, 9 * hour);
        assert!(clock.now(9 * hour) >= first);
        // And restarted at once, it is ahead by less than the half second that others allow.
        let Tick::NeedsCeiling(ceiling) = Clock::new([1; 16], 0, 10).stamp(hour) else {
            panic!("a first stamp needs a ceiling");
        };
        assert!(ceiling - hour < 1 << 31);
    }

    #[test]
    fn follows_the_present_but_not_the_future() {
        let mut clock = Clock::new([1; 16], 0, 10);
        stamp(&mut clock, 100);
        clock.observe(
            100,
            Stamp {
                time: 110,
                id: [2; 16],
            },
        );
        assert_eq!(stamp(&mut clock, 100), 111);
        clock.observe(
            100,
            Stamp {
                time: 1_000_000,
                id: [2; 16],
            },
        );
        assert_eq!(stamp(&mut clock, 100), 112);
    }
}
