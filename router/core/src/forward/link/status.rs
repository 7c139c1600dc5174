//! What is known of a link, and why a round ended early.

use thiserror::Error;

use super::{State, round::Parcel};
use crate::{
    forward::frame::{Bad, Stored},
    mirror::Unreadable,
};

/// Why a round ended early.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Failure {
    /// No answer, asked several times. What was said the last time that one did not come.
    #[error("no answer from the upstream: {0}")]
    Silent(String),
    /// The upstream refused.
    #[error("the upstream refused: {0}")]
    Refused(Bad),
    /// The upstream's answer was not understood.
    #[error("the upstream's answer was not understood: {0}")]
    Answer(Bad),
    /// Our journal cannot be read.
    #[error("the journal cannot be read: {0}")]
    Unreadable(Unreadable),
}

/// What is known of a link. Counts are since it was made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// How it stands.
    pub state: State,
    /// Since when (NTP64).
    pub since: u64,
    /// Records that the upstream is known to lack, about: what was found so far in this round and is not
    /// stored there yet.
    pub waiting: u64,
    /// Their bytes, by the size of those that were shipped; `None` if none was yet.
    pub waiting_bytes: Option<u64>,
    /// Records and operations of parcels that are stored.
    pub shipped: u64,
    /// Their bytes, before they are packed.
    pub shipped_bytes: u64,
    /// Of those, what the upstream did not need: it was there already, or something later was.
    pub superfluous: u64,
    /// Of those, what it keeps aside: from the future, or too old to be judged.
    pub aside: u64,
    /// Of those, what it will never take.
    pub refused: u64,
    /// Records and operations that were shipped again, because no answer came.
    pub resent: u64,
    /// Everything that is older than this was certified when the last round ended, or was given up
    /// (NTP64).
    pub certified_through: Option<u64>,
    /// Rounds that ended, those that failed included.
    pub rounds: u64,
    /// Rounds that failed.
    pub failures: u64,
    /// Why the last round failed, if it did.
    pub last_error: Option<Failure>,
    /// Answers that came.
    pub round_trips: u64,
    /// Bytes of questions; parcels are not counted, whose bytes are the driver's.
    pub asked_bytes: u64,
    /// Bytes of answers.
    pub answered_bytes: u64,
}

impl From<Unreadable> for Failure {
    fn from(error: Unreadable) -> Self {
        Self::Unreadable(error)
    }
}

impl Status {
    /// About how many bytes so many records are, by those that were shipped.
    pub(super) fn bytes_of(&self, records: u64) -> Option<u64> {
        let average = self.shipped_bytes.checked_div(self.shipped)?;
        Some(average.saturating_mul(records))
    }

    pub(super) fn stored(&mut self, parcel: &Parcel, stored: &Stored) {
        self.shipped += parcel.entries.len() as u64;
        self.shipped_bytes += parcel.bytes as u64;
        self.superfluous += stored.superfluous;
        self.aside += stored.aside;
        self.refused += stored.refused;
    }
}
