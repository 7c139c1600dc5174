//! Stamps what nobody has stamped on the way.
//!
//! Zenoh's first router stamps every put, and never a delete. A delete has to lie between the puts before
//! and behind it, which bear the stamps of another clock and may be taken in one batch with it. So it is
//! stamped as of when it came: no earlier than anything that came before it, and above that only as far as
//! time had passed.

use std::{io, sync::Arc, time::Duration};

use weir_core::version::Stamp;

use super::tap::Tapped;
use crate::{
    clock::{SharedClock, wall},
    convert,
    storage::offer,
};

/// How far ahead of its arrival a stamp may be to be followed: as far as Zenoh's own clock may be ahead of
/// the wall.
const DRIFT: Duration = Duration::from_millis(500);
/// Ahead of the wall the clock is by a quarter of a second, or, after a start with the wall clock set back,
/// by much.
const SET_BACK_MIN: Duration = Duration::from_secs(1);

/// Stamps what comes, in the order in which it comes.
pub(super) struct Stamping {
    clock: Arc<SharedClock>,
    /// The latest stamp that came, but for those from the future.
    newest: Stamp,
    /// How far the wall clock was set back (NTP64).
    set_back: u64,
}

impl Stamping {
    pub(super) fn new(clock: Arc<SharedClock>) -> Self {
        let ahead = clock.now().saturating_sub(wall());
        let is_set_back = ahead > convert::ntp64_span(SET_BACK_MIN);
        Self {
            clock,
            newest: Stamp::ZERO,
            set_back: if is_set_back { ahead } else { 0 },
        }
    }

    /// Stamps what has none: a put as a storage does, a delete as of when it came.
    ///
    /// # Errors
    /// If the clock's ceiling cannot be made durable.
    pub(super) fn stamp(&mut self, all: &mut [Tapped]) -> io::Result<()> {
        let mut issued = None;
        for tapped in all {
            let stamp = match offer::stamp_of(&tapped.change) {
                Some(stamp) => stamp,
                None if offer::is_put(&tapped.change) => {
                    self.clock.observe(self.newest);
                    self.clock.stamp()?
                }
                None => {
                    // One for a batch: no start will ever give an earlier one than those below it.
                    let issued = match issued {
                        Some(issued) => issued,
                        None => *issued.insert(self.clock.stamp()?),
                    };
                    let came = Stamp {
                        time: tapped.came.saturating_add(self.set_back).min(issued.time),
                        id: issued.id,
                    };
                    came.max(self.newest)
                }
            };
            let ahead = convert::ntp64_span(DRIFT).saturating_add(self.set_back);
            if stamp.time <= tapped.came.saturating_add(ahead) {
                self.newest = self.newest.max(stamp);
            }
            offer::set_stamp(&mut tapped.change, stamp);
        }
        self.clock.observe(self.newest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use weir_core::{
        change::{Change, KeptChange},
        key::Key,
        value::Value,
    };

    use super::*;

    fn tapped(came: u64, stamp: Option<Stamp>, value: Option<Value>) -> Tapped {
        Tapped {
            change: KeptChange::Key(Change {
                key: Key::from("a"),
                stamp,
                value,
            }),
            came,
            priority: 5,
        }
    }

    #[test]
    fn a_delete_lies_between_the_puts_around_it() {
        let dir = tempfile::tempdir().unwrap();
        let own = [7; 16];
        let clock =
            Arc::new(SharedClock::open(dir.path(), own, convert::ntp64_span(DRIFT)).unwrap());
        let mut stamping = Stamping::new(clock);
        let now = wall();
        let tick = 1 << 20;
        let put = |time, id| Some(Stamp { time, id: [id; 16] });
        let value = || Some(Value::bytes("x"));
        // Zenoh's clock is ahead of the wall, and another's stamp is from the future.
        let ahead = now + convert::ntp64_span(DRIFT) / 2;
        let mut all = [
            tapped(now, put(now - tick, 9), value()),
            tapped(now + tick, None, None),
            tapped(now + 2 * tick, put(now + 2 * tick, 9), value()),
            tapped(now + 3 * tick, put(ahead, 9), value()),
            tapped(now + 3 * tick, put(ahead + (9_u64 << 32), 8), value()),
            tapped(now + 3 * tick, None, None),
            tapped(now + 4 * tick, put(ahead + 1, 9), value()),
            tapped(now + 5 * tick, None, value()),
        ];
        // By the time the batch is taken, all of it has come.
        while wall() <= now + 5 * tick {}
        stamping.stamp(&mut all).unwrap();
        let versions: Vec<_> = all
            .iter()
            .map(|tapped| match &tapped.change {
                KeptChange::Key(change) => change.version(change.stamp.unwrap()),
                KeptChange::Wildcard(_) => unreachable!(),
            })
            .collect();
        let [before, delete, after, fast, _, second, next, own_put] = versions[..] else {
            panic!("{versions:?}");
        };
        assert!(before < delete && delete < after, "{versions:?}");
        assert!(fast < second && second < next, "{versions:?}");
        assert_eq!(delete.stamp.id, own);
        assert!(own_put > next, "{versions:?}");
    }
}
