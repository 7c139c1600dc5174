//! What goes wrong when a policy is asked, and who is to blame.

use std::fmt;

use serde::Serialize;
use thiserror::Error;
use weir_core::resolution::Interrupted;

/// Why a policy's answer does not count.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// It trapped: a panic, a division by zero, an access out of bounds, a stack that is full.
    Trap,
    /// It used up its CPU time.
    Timeout,
    /// It trapped after it was refused more memory.
    Memory,
    /// It used up its fuel.
    Fuel,
    /// It gave another number of answers than it was asked for.
    Length,
    /// It named a shard that does not exist.
    ShardRange,
    /// It answered what makes no sense: an unknown reason, a lane above 7, a broken string.
    Answer,
    /// `init` returned an error or a manifest that makes no sense.
    Init,
    /// It returned an error of its own.
    GuestError,
    /// The host could not ask it.
    Host,
}

impl Cause {
    /// All of them, in the order of [`Cause::index`].
    pub const ALL: [Self; 10] = [
        Self::Trap,
        Self::Timeout,
        Self::Memory,
        Self::Fuel,
        Self::Length,
        Self::ShardRange,
        Self::Answer,
        Self::Init,
        Self::GuestError,
        Self::Host,
    ];

    /// Its place in [`Cause::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// A name that never changes, for status and metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::Fuel => "fuel",
            Self::Length => "length",
            Self::ShardRange => "shard-range",
            Self::Answer => "answer",
            Self::Init => "init",
            Self::GuestError => "guest-error",
            Self::Host => "host",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Who has to do something about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blame {
    /// The policy's author.
    Guest,
    /// The router's operator.
    Host,
}

/// A call whose answer does not count: the native rule decides instead.
#[derive(Clone, PartialEq, Eq, Debug, Error, Serialize)]
#[error("{cause}: {message}")]
pub struct Fault {
    /// What it is counted as.
    pub cause: Cause,
    /// Who has to do something about it.
    pub blame: Blame,
    /// What happened, in a sentence.
    pub message: String,
}

impl Fault {
    pub(crate) fn guest(cause: Cause, message: impl Into<String>) -> Self {
        Self {
            cause,
            blame: Blame::Guest,
            message: cut(message.into()),
        }
    }

    pub(crate) fn host(message: impl Into<String>) -> Self {
        Self {
            cause: Cause::Host,
            blame: Blame::Host,
            message: cut(message.into()),
        }
    }
}

/// Why a conflict has no answer of the policy's.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ResolveFault {
    /// The policy failed, on every replica alike: the later version wins.
    #[error(transparent)]
    Guest(Fault),
    /// The host was interrupted: ask again.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// A guest chooses much of what a message says: it is cut where a status or a log line ends.
fn cut(mut message: String) -> String {
    const BYTES_MAX: usize = 1024;
    if message.len() > BYTES_MAX {
        message.truncate(message.floor_char_boundary(BYTES_MAX));
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_have_their_places_and_names() {
        for (index, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause.index(), index);
            let json = serde_json::to_string(&cause).unwrap();
            assert_eq!(json, format!("{:?}", cause.code()));
        }
    }

    #[test]
    fn a_message_is_cut_between_characters() {
        let fault = Fault::host("é".repeat(2000));
        assert!(fault.message.len() <= 1024 + '…'.len_utf8());
        assert!(fault.message.ends_with("é…"));
    }
}
