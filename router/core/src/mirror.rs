//! Mirroring: how two replicas of a storage become equal, over a network that loses, repeats, reorders
//! and delays (S9).
//!
//! One side asks, the other answers. Who answers remembers nothing: every frame says all there is to
//! know, so one that is lost is asked again and one that comes twice does no harm. Who asks owns a
//! [`round::Mirror`] for each peer. Both may ask each other at once; whatever one side learns that the
//! other lacks is pushed to it, so one round repairs both.
//!
//! What is compared is what keys hold now, and the versions of time series ([`crate::ledger`]); what is
//! sent are whole records, which enter the same admission as a put. Wildcard operations go first: a
//! record without the operations that its replica had judged it by could be alive where it was deleted.

pub mod answer;
pub mod frame;
pub mod round;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use frame::Bad;
use thiserror::Error;

use crate::{
    identity::Identity,
    key::Key,
    ledger::{Item, Span, Summary},
    record::Record,
    version::Version,
    wildcard::WildcardOp,
};

/// A replica, as reconciliation sees it: everything that a storage holds, or, where key expressions
/// only intersect, the part that concerns the peer. Reading may cost reads of the store.
pub trait Replica {
    /// What decides about more than one key.
    ///
    /// # Errors
    /// If the store cannot be read now.
    fn marks(&mut self) -> Result<Marks, Unreadable>;

    /// The stores that it is kept in, as they are now: whatever was read of them before is in them. None
    /// if one of them has no id, or where nobody is told.
    ///
    /// # Errors
    /// If a store cannot be read now.
    fn stores(&mut self) -> Result<Vec<Identity>, Unreadable> {
        Ok(Vec::new())
    }

    /// The wildcard operations that are remembered, in version order.
    ///
    /// # Errors
    /// If the store cannot be read now.
    fn wildcards(&mut self) -> Result<Vec<Arc<WildcardOp>>, Unreadable>;

    /// The sum of a span.
    ///
    /// # Errors
    /// If the store cannot be read now.
    fn summary(&mut self, span: &Span) -> Result<Summary, Unreadable>;

    /// Cuts a span into at most `parts` of about as many items each (of time: of about as much each),
    /// in order and without a gap. One part if there is nothing to cut.
    ///
    /// # Errors
    /// If the store cannot be read now.
    fn split(&mut self, span: &Span, parts: usize) -> Result<Vec<(Span, Summary)>, Unreadable>;

    /// The items of a span in order, at most `max` of them.
    ///
    /// # Errors
    /// If the store cannot be read now.
    fn items(&mut self, span: &Span, max: usize) -> Result<Vec<Item>, Unreadable>;

    /// The items of a span that are wanted, in order, as records to send: until they are `bytes_max`
    /// together, but one at least.
    ///
    /// # Errors
    /// If the store cannot be read now.
    fn read(
        &mut self,
        span: &Span,
        wanted: &mut dyn FnMut(&Item) -> bool,
        bytes_max: usize,
    ) -> Result<Page, Unreadable>;

    /// Writes into states what the wildcard operations below `horizon`, or the own one, made of them, if
    /// nothing of the kind was done when they were read. These operations are not told by themselves, and a
    /// peer that has forgotten them would take what they have deleted for a put of old. Does nothing where
    /// no policy resolves conflicts.
    ///
    /// # Errors
    /// If the store cannot be read now.
    fn fold(&mut self, horizon: Version, states: &mut [State]) -> Result<(), Unreadable> {
        let (_, _) = (horizon, states);
        Ok(())
    }

    /// Whether [`Replica::pack`] and [`Replica::unpack`] do something. How they do it is not the core's.
    fn packs(&self) -> bool {
        false
    }

    /// Takes states out that are shorter together than one by one, and packs them; `None` if there are
    /// none. What is packed may be in another order, but for states of one key.
    fn pack(&mut self, states: &mut Vec<State>) -> Option<Bytes> {
        let _ = states;
        None
    }

    /// The inverse. Costs memory within a fixed limit, whatever the bytes claim.
    ///
    /// # Errors
    /// [`Bad::Malformed`] if the bytes are none of [`Replica::pack`], [`Bad::Length`] if they would become
    /// more than is taken at once, [`Bad::Kind`] if nothing is ever packed here.
    fn unpack(&mut self, packed: &Bytes) -> Result<Vec<State>, Bad> {
        let _ = packed;
        Err(Bad::Kind)
    }
}

/// What a replica says of itself as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Marks {
    /// Whether it has a time series ([`crate::ledger::Axis::Times`]) to compare.
    pub series: bool,
    /// Changes below are judged with care: something older was forgotten.
    pub horizon: Version,
    /// Nothing older is kept (NTP64).
    pub floor: u64,
    /// The revision of the resolver that serves; 0 for none.
    pub revision: u64,
    /// Changes wait for the resolver: it does not hold all that it was told.
    pub waits: bool,
    /// Its clock (NTP64).
    pub now: u64,
}

/// What is sent of a key: a record of it, whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    /// The key in full.
    pub key: Key,
    /// What is held: the latest record, or a version of the series.
    pub record: Record,
}

/// Some of what was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// In order.
    pub states: Vec<State>,
    /// Where to go on; `None` if that was all.
    pub next: Option<Vec<u8>>,
}

/// The store cannot be read now.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{0}")]
pub struct Unreadable(pub String);
