//! What a mirror is told, and what it says is to be done.

use bytes::Bytes;

use super::{Failure, Report};
use crate::{identity::Identity, mirror::answer::Admit, version::Version};

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// An answer has come.
    Reply {
        /// To which question.
        ask: u64,
        /// The answer's bytes.
        frame: Bytes,
    },
    /// There will be no answer.
    Failed {
        /// To which question.
        ask: u64,
    },
    /// What was to be admitted is decided and stored.
    Admitted {
        /// Of [`Effect::Admit`].
        batch: u64,
    },
    /// What was to be admitted cannot be stored. No record's own fault: those are decided.
    Refused {
        /// Of [`Effect::Admit`].
        batch: u64,
        /// Why.
        why: String,
    },
    /// The peer is there, or someone wants to know: a round at once.
    Wake,
    /// The peer is not there. Nothing is asked until [`Event::Wake`].
    Gone,
    /// The peer has asked us ([`crate::mirror::answer::Answer::probed`]).
    Probed {
        /// Whether both hold the same.
        in_step: bool,
    },
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Ask the peer. [`Event::Reply`] or [`Event::Failed`] is told with this number; the same may be
    /// asked again.
    Ask {
        /// The question's number.
        ask: u64,
        /// Its bytes, for [`crate::mirror::answer::answer`].
        frame: Bytes,
        /// How it goes.
        priority: Priority,
    },
    /// Admit and store; then [`Event::Admitted`] or [`Event::Refused`]. One of them must come.
    Admit {
        /// The batch's number.
        batch: u64,
        /// What to admit.
        admit: Admit,
    },
    /// The peer has told of its stores: whatever else is learnt of it from the same event is of these.
    Told {
        /// See [`crate::membership::Members::told`].
        stores: Vec<Identity>,
        /// When the question was asked to which this is the answer (NTP64).
        first: u64,
    },
    /// A round is about to end with both holding the same, but for tombstones that the peer, whose
    /// horizon this is, has forgotten. Ours may be raised to it: nothing below was missed.
    Horizon(Version),
    /// A round ends: both hold the same.
    InStep(Report),
    /// A round ends: both do not hold the same.
    Differs {
        /// What it did.
        report: Report,
        /// Whether it is because of writes meanwhile. If not, settings or admission are in the way.
        live: bool,
    },
    /// A round ends in an error.
    Failed {
        /// Why.
        why: Failure,
        /// When the next one begins (NTP64).
        retry: u64,
    },
}

/// How a question goes through the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Priority {
    /// Short, and others wait for it; below live data all the same.
    Control,
    /// Records.
    Bulk,
}
