//! Commits that RocksDB holds up.
//!
//! RocksDB slows a writer down when its flushes and compactions are behind, and stops it when they are
//! far behind; inside the call, for as long as it takes. That is right while they are at work. But those
//! that have failed for want of space are only tried again, every few seconds: the writer is held until
//! somebody makes room, and nobody is told that there is none. So a commit is not stopped inside
//! RocksDB: it is told, and waits here, where the wait has an end.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use rocksdb::{DB, properties};
use weir_backend_api::{Error, ErrorKind, Result};

use crate::errors;

/// How long a commit waits for flushes or compactions that have failed. What is tried every few seconds
/// rarely succeeds within one more, and the driver has a place for what waits.
const FAILED_WAIT_MAX: Duration = Duration::from_secs(1);
/// How long it waits for those that are at work: a slow disk needs seconds for a large compaction.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(60);
/// Between two looks at whether it goes on: a small part of what a flush takes.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What a commit that was held up does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Again {
    /// RocksDB only wants it slower: it is to be tried so that RocksDB slows it down.
    Slowly,
    /// It was stopped, and goes on: it is to be tried as before.
    AsBefore,
}

/// What a database does to its writers.
#[derive(Default)]
pub struct Stalls {
    /// Failures of background work that had been counted when a writer last went on.
    outlived: AtomicU64,
}

impl Stalls {
    /// Waits until a commit that was just held up can be tried again. Blocks.
    ///
    /// # Errors
    /// `Full` if RocksDB takes nothing because background work has failed, `Unavailable` if it takes
    /// nothing for a minute. Nothing of the commit was written.
    pub fn wait(&self, db: &DB) -> Result<Again> {
        let property = |name| {
            let value = db.property_int_value(name).map_err(errors::reading)?;
            Ok(value.unwrap_or_default())
        };
        let since = Instant::now();
        let mut again = Again::Slowly;
        while property(properties::IS_WRITE_STOPPED)? != 0 {
            again = Again::AsBefore;
            let waited = since.elapsed();
            let failures = property(properties::BACKGROUND_ERRORS)?;
            if waited >= FAILED_WAIT_MAX && failures > self.outlived.load(Relaxed) {
                let message = "RocksDB takes nothing more: what it does in the background fails, \
                               most likely for want of space";
                return Err(Error::new(ErrorKind::Full, message));
            }
            if waited >= BUSY_WAIT_MAX {
                let message = format!(
                    "RocksDB has taken nothing for {} s: its flushes and compactions do not keep up",
                    BUSY_WAIT_MAX.as_secs()
                );
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            thread::sleep(LOOK_EVERY);
        }
        if again == Again::AsBefore {
            let failures = property(properties::BACKGROUND_ERRORS)?;
            self.outlived.store(failures, Relaxed);
        }
        Ok(again)
    }
}
