//! The service's clock: the core's, with its ceiling in a file.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use parking_lot::Mutex;
use weir_core::{
    clock::{Clock, Tick},
    version::Stamp,
};

use crate::convert::ntp64;

/// A clock that is shared by the storages of a router and survives it.
pub(crate) struct SharedClock {
    clock: Mutex<Clock>,
    path: PathBuf,
}

impl SharedClock {
    /// The clock of the HLC `id`, continuing above the ceiling in `data_dir/clock`.
    ///
    /// # Errors
    /// If the file is there and cannot be read, or is not a ceiling.
    pub(crate) fn open(data_dir: &Path, id: [u8; 16], drift: u64) -> io::Result<Self> {
        let path = data_dir.join("clock");
        let ceiling = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|error| {
                io::Error::other(format!("{}: not a clock ceiling: {error}", path.display()))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let ahead = Clock::new(id, ceiling, drift).ahead(wall());
        // A ceiling is a little ahead by design.
        if ahead > 1 << 32 {
            tracing::warn!(
                seconds = ahead >> 32,
                "the wall clock is behind what this router has stamped before: \
                 its own stamps continue above, Zenoh's do not until the clock is right"
            );
        }
        Ok(Self {
            clock: Mutex::new(Clock::new(id, ceiling, drift)),
            path,
        })
    }

    /// The next stamp.
    ///
    /// # Errors
    /// If a new ceiling could not be made durable: no stamp is given then.
    pub(crate) fn stamp(&self) -> io::Result<Stamp> {
        let mut clock = self.clock.lock();
        // Read once: while a disk takes longer to sync than a ceiling reaches ahead, the wall clock
        // would be above every new ceiling.
        let wall = wall();
        loop {
            match clock.stamp(wall) {
                Tick::Stamp(stamp) => return Ok(stamp),
                Tick::NeedsCeiling(ceiling) => {
                    self.save(ceiling)?;
                    clock.raise(ceiling);
                }
            }
        }
    }

    /// Follows a stamp that was seen.
    pub(crate) fn observe(&self, stamp: Stamp) {
        self.clock.lock().observe(wall(), stamp);
    }

    /// Now (NTP64), never behind what was stamped.
    pub(crate) fn now(&self) -> u64 {
        self.clock.lock().now(wall())
    }

    fn save(&self, ceiling: u64) -> io::Result<()> {
        let temporary = self.path.with_extension("new");
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut file = File::create(&temporary)?;
        writeln!(file, "{ceiling}")?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        match self.path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    }
}

/// The wall clock (NTP64).
pub(crate) fn wall() -> u64 {
    ntp64(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_continues_above() {
        let dir = tempfile::tempdir().unwrap();
        let before = SharedClock::open(dir.path(), [1; 16], 0)
            .unwrap()
            .stamp()
            .unwrap();
        let after = SharedClock::open(dir.path(), [1; 16], 0)
            .unwrap()
            .stamp()
            .unwrap();
        assert!(after > before);
        fs::write(dir.path().join("clock"), "no number").unwrap();
        assert!(SharedClock::open(dir.path(), [1; 16], 0).is_err());
    }
}
