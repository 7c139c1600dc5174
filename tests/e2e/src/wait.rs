//! Waiting for what will be true, never for a time that should be enough.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long a test waits for what takes milliseconds on a quiet machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The pause between two looks: two cores are shared by everything, so looking is not free.
const PAUSE: Duration = Duration::from_millis(30);

/// Looks until `look` answers `Ok`, and gives that; panics with the last `Err` when patience ends.
#[track_caller]
pub fn until<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    until_within(PATIENCE, what, look)
}

/// As [`until`], with a patience of its own.
#[track_caller]
pub fn until_within<T>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let end = Instant::now() + patience;
    loop {
        match look() {
            Ok(seen) => return seen,
            Err(saw) if Instant::now() > end => {
                panic!("not within {patience:?}: {what}; last seen: {saw}")
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}
