//! What can go wrong in a store, by what the caller does about it.

use std::{error::Error as StdError, fmt};

use thiserror::Error;

/// An answer of a store.
pub type Result<T> = std::result::Result<T, Error>;

/// What the caller does about an error.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ErrorKind {
    /// Nothing was done; later it may work: keep the batch and try again.
    Unavailable,
    /// The disk or the budget is full; nothing was done: keep the batch, say so, try again.
    Full,
    /// This can never work (a key that the backend cannot hold): set it aside and go on.
    Rejected,
    /// What is stored cannot be read: say so, touch nothing.
    Corrupt,
    /// It is unknown what reached the disk: acknowledge nothing more, open the store again.
    Poisoned,
    /// The store was closed.
    Closed,
}

/// An error of a store.
#[derive(Debug, Error)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error with a message: lowercase, what was tried on what, and what to do if that is known.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// With what caused it.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// From an I/O error: a full disk is [`ErrorKind::Full`], the rest [`ErrorKind::Unavailable`].
    pub fn io(message: impl Into<String>, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match source.kind() {
            Io::StorageFull | Io::QuotaExceeded => ErrorKind::Full,
            _ => ErrorKind::Unavailable,
        };
        Self::new(kind, message).because(source)
    }

    /// What to do about it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut source = self.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
