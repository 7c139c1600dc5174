//! What is known of a mirror, and what a round did or why it ended.

use thiserror::Error;

use crate::mirror::{Unreadable, frame::Bad};

/// Why a round ended early.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Failure {
    /// No answer, asked several times.
    #[error("the mirror does not answer")]
    Silent,
    /// The peer refused.
    #[error("the mirror refused: {0}")]
    Refused(Bad),
    /// The peer's answer was not understood.
    #[error("the mirror's answer was not understood: {0}")]
    Answer(Bad),
    /// Our store cannot be read.
    #[error("the storage cannot be read: {0}")]
    Unreadable(Unreadable),
    /// What came could not be stored.
    #[error("what the mirror sent was not stored: {0}")]
    Admission(String),
}

/// What a round did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Records and operations that came.
    pub fetched: u64,
    /// Records and operations that were sent and stored.
    pub pushed: u64,
    /// Spans that were found to differ, by the last look.
    pub spans: u64,
    /// Bytes of questions.
    pub asked_bytes: u64,
    /// Bytes of answers.
    pub answered_bytes: u64,
}

/// What is known of a mirror.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// Since when every round has found both equal (NTP64).
    pub in_step_since: Option<u64>,
    /// When the last round ended (NTP64).
    pub last_round: Option<u64>,
    /// Rounds that ended, errors included.
    pub rounds: u64,
    /// All rounds together; `spans` is of now.
    pub total: Report,
    /// Items that this round has found and that are yet to come or go, about.
    pub waiting: u64,
    /// Why the last round ended early, if it did.
    pub last_error: Option<Failure>,
    /// The peer's clock minus ours, as NTP64 counts (2^-32 s).
    pub clock_offset: Option<i64>,
    /// Whether both have the same resolver.
    pub revision_agrees: Option<bool>,
    /// Whether the peer is there and asked regularly.
    pub is_present: bool,
}

impl Report {
    pub(super) fn add(&mut self, other: &Self) {
        self.fetched += other.fetched;
        self.pushed += other.pushed;
        self.asked_bytes += other.asked_bytes;
        self.answered_bytes += other.answered_bytes;
    }
}

impl From<Unreadable> for Failure {
    fn from(error: Unreadable) -> Self {
        Self::Unreadable(error)
    }
}
