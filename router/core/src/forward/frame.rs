//! What a link and an upstream say to each other, and its bytes.
//!
//! ```text
//! 0      0x46: a mirror's frames begin with other bytes
//! 1      version (1): of another one nothing is understood
//! 2      kind of request or reply; replies have the highest bit
//! 3..    fields: tag u8, length (varint), value. A tag that is not known is skipped, so a later
//!        version may add fields to these kinds.
//! ```
//!
//! Sums are whole: what a comparison certifies is given up by the link. All that is read is checked, and
//! what a frame decodes to is within a constant times its length.

mod body;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use super::{Lost, Stretch};
use crate::{key::Key, ledger::Summary, version::Version};

pub use crate::wire::Bad;

/// The first byte of a frame.
pub const FORWARD: u8 = 0x46;
/// What this build speaks.
const VERSION: u8 = 1;

/// What can be asked of an upstream. Each says all there is to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// "This is what I have seen in these stretches."
    Compare(Vec<(Stretch, Summary)>),
    /// "Which of these do you lack?"
    List {
        /// Where they lie.
        stretch: Stretch,
        /// [`crate::ledger::Item::id`] of each.
        ids: Vec<u64>,
    },
    /// "Which of these do you lack?", of a storage that keeps no series: there a later one is as good.
    Heads(Vec<(Key, Version)>),
    /// "Which of these wildcard operations do you not remember?"
    Operations(Vec<u64>),
    /// "Store this."
    Ship {
        /// A parcel, packed; not the core's.
        packed: Bytes,
    },
    /// "This was given up: do not wait for it."
    Lost(Vec<Lost>),
}

/// What is found of a stretch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// The same.
    Have,
    /// Nothing.
    Absent,
    /// Something else.
    Differs {
        /// About how much.
        count: u64,
    },
    /// The storage keeps only the latest of each key: [`Request::Heads`], of the newest of each.
    Latest,
    /// A policy makes one value of all of a key's versions: [`Request::Heads`], of every version.
    Merged,
    /// It is older than what the storage keeps.
    Gone,
}

/// What became of a parcel, in puts, deletes and operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stored {
    /// They changed something.
    pub applied: u64,
    /// They were there already, or something later was.
    pub superfluous: u64,
    /// They are kept aside: from the future, or too old to be judged.
    pub aside: u64,
    /// The storage does not take them.
    pub refused: u64,
    /// How many bytes the upstream can take at once from this link from now on, before they are packed.
    pub credit: u64,
    /// How long the upstream took to store them, in microseconds: the rest is the line's.
    pub spent_us: u64,
}

/// The answers, in the order of [`Request`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// What is found of each stretch, in order.
    Compared(Vec<Found>),
    /// Which is absent, in the order of the ids.
    Listed(Vec<bool>),
    /// Which is absent, in the order of the keys.
    Heads(Vec<bool>),
    /// Which is absent, in the order of the ids.
    Operations(Vec<bool>),
    /// The parcel is decided, and stored.
    Stored(Stored),
    /// It is noted what is lost.
    Noted,
    /// No.
    Refused(Bad),
}

/// Whether a frame is one of these, and no mirror's.
#[must_use]
pub fn is_forward(frame: &[u8]) -> bool {
    frame.first() == Some(&FORWARD)
}

impl Request {
    /// The frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORWARD, VERSION, 0];
        out[2] = body::write_request(self, &mut out);
        out
    }

    /// Reads a frame; a parcel in it is a slice of it.
    ///
    /// # Errors
    /// [`Bad::Version`], [`Bad::Kind`] or [`Bad::Malformed`].
    pub fn decode(frame: &Bytes) -> Result<Self, Bad> {
        let (kind, fields) = open(frame)?;
        body::read_request(kind, fields)
    }
}

impl Reply {
    /// The frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORWARD, VERSION, 0];
        out[2] = body::write_reply(self, &mut out);
        out
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// As [`Request::decode`].
    pub fn decode(frame: &Bytes) -> Result<Self, Bad> {
        let (kind, fields) = open(frame)?;
        body::read_reply(kind, fields)
    }
}

fn open(frame: &Bytes) -> Result<(u8, Bytes), Bad> {
    match &**frame {
        [FORWARD, VERSION, kind, ..] => Ok((*kind, frame.slice(3..))),
        [FORWARD, version, ..] if *version != VERSION => Err(Bad::Version),
        _ => Err(Bad::Malformed),
    }
}
