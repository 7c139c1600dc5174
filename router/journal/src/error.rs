//! What can go wrong with a journal.

use std::{io, path::PathBuf};

use thiserror::Error;

/// A journal cannot do what it was asked.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The file system refuses.
    #[error("{path}: {source}")]
    Io {
        /// About what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no room on the disk. What was appended waits in memory and is tried again with the next
    /// flush; meanwhile more is refused.
    #[error("{path}: no space left on the disk")]
    Full {
        /// What could not grow.
        path: PathBuf,
    },
    /// A later release has written it. It is left as it is.
    #[error(
        "{path} is of version {version} of the journal's format, this release reads version 1; use the release that wrote it, or drain it there"
    )]
    Version {
        /// Which file.
        path: PathBuf,
        /// Its version.
        version: u16,
    },
    /// Another process, or another journal of this one, has the directory.
    #[error("{path} is in use by another process")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A write or a sync has failed: what is on the disk is not known before the journal is opened again.
    #[error("the journal takes nothing before it is opened again: {why}")]
    Poisoned {
        /// What had failed.
        why: String,
    },
    /// More upstreams than a certificate has bits for.
    #[error("a journal has at most 64 upstreams")]
    Upstreams,
}

/// What most functions here return.
pub type Result<T, E = JournalError> = std::result::Result<T, E>;

impl JournalError {
    /// Whether more room would help.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| {
            if is_no_room(&source) {
                Self::Full { path }
            } else {
                Self::Io { path, source }
            }
        }
    }
}

/// Whether a write failed for want of room.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Whether a read failed because the disk has lost what it had: it fails the next time, too.
pub(crate) fn is_bad_medium(error: &io::Error) -> bool {
    // Rust has no name for EIO, which is 5 on every Unix.
    error.raw_os_error() == Some(5)
}
