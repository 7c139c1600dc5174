//! The time as the slots' machines take it: NTP64, and it never goes back.

use std::time::{Duration, Instant, SystemTime};

/// The wall clock when the registry began, and what has passed since.
#[derive(Debug)]
pub(super) struct Clock {
    began: Instant,
    base: u64,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self {
            began: Instant::now(),
            base: ntp64(SystemTime::now()),
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.base.saturating_add(span(self.began.elapsed()))
    }

    /// How long it is until `due`.
    pub(super) fn until(&self, due: u64) -> Duration {
        duration(due.saturating_sub(self.now()))
    }
}

fn ntp64(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    // A clock before 1970 is as good as one in 1970: only differences count.
    since.map_or(0, span)
}

fn span(duration: Duration) -> u64 {
    let fraction = (u64::from(duration.subsec_nanos()) << 32) / 1_000_000_000;
    (duration.as_secs() << 32) | fraction
}

fn duration(ntp64: u64) -> Duration {
    let nanos = ((ntp64 & 0xffff_ffff) * 1_000_000_000) >> 32;
    Duration::from_secs(ntp64 >> 32) + Duration::from_nanos(nanos)
}
