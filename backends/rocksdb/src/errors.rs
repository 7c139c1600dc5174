//! What RocksDB's statuses mean to the caller.

use std::path::Path;

use rocksdb::ErrorKind as Rocks;
use weir_backend_api::{Error, ErrorKind};

/// A read failed: what is stored is broken, or the disk did not answer.
pub fn reading(error: rocksdb::Error) -> Error {
    let kind = match error.kind() {
        Rocks::Corruption => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, "cannot read").because(error)
}

/// Opening failed.
pub fn opening(dir: &Path, error: rocksdb::Error) -> Error {
    let dir = dir.display();
    let text = error.as_ref();
    let (kind, message) = if text.contains("lock file") || text.contains("LOCK: ") {
        let message = format!(
            "{dir} is in use by another storage or process: stop it, or use another directory"
        );
        (ErrorKind::Unavailable, message)
    } else if is_full(&error) {
        (ErrorKind::Full, format!("cannot open {dir}"))
    } else if error.kind() == Rocks::Corruption {
        let message = format!(
            "the database in {dir} is damaged: restore it, or set `recover_damaged` to keep what \
             was written before the damage in its log"
        );
        (ErrorKind::Corrupt, message)
    } else {
        (ErrorKind::Unavailable, format!("cannot open {dir}"))
    };
    Error::new(kind, message).because(error)
}

/// A commit failed. RocksDB stops writing after any error; what matters is whether this batch can
/// have reached the log.
///
/// If a flush ran out of space the write is refused before it touches the log, and RocksDB goes
/// on by itself within seconds once there is space. If the log itself could not be written, parts
/// of the batch may be in it: only opening the database again tells.
pub fn writing(error: rocksdb::Error) -> Error {
    if is_full(&error) && !error.as_ref().contains(".log") {
        return Error::new(ErrorKind::Full, "cannot write").because(error);
    }
    Error::new(ErrorKind::Poisoned, "cannot write").because(error)
}

/// Whether a commit was refused because RocksDB would have held it up. It writes nothing then.
pub fn is_held_up(error: &rocksdb::Error) -> bool {
    error.kind() == Rocks::Incomplete && error.as_ref().contains("Write stall")
}

/// A sync failed: what was written since the last one may be lost.
pub fn syncing(error: rocksdb::Error) -> Error {
    Error::new(ErrorKind::Poisoned, "cannot sync").because(error)
}

/// A store was poisoned by an earlier error.
pub fn poisoned(name: &str) -> Error {
    let message = format!("an earlier write to {name} failed: the store must be opened again");
    Error::new(ErrorKind::Poisoned, message)
}

/// Something that this crate wrote does not read back.
pub fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("corrupt {what}"))
}

fn is_full(error: &rocksdb::Error) -> bool {
    error.as_ref().contains("No space left on device")
}
