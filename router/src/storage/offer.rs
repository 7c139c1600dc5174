//! What is offered to a storage, and how it learns what became of it.

mod joint;

use weir_backend_api::Durability;
use weir_core::{
    change::{Admission, Change, KeptChange, Rejection, WildcardChange},
    key::Key,
    record::Record,
    resolving::Theirs,
    version::{Stamp, Version},
};

/// Zenoh's default priority: what a change has that did not come as a sample.
pub(crate) const PRIORITY_DATA: u8 = 5;

/// A change on its way into a storage.
pub(crate) struct Offer {
    /// What is to change.
    pub op: KeptChange,
    /// The sample's priority, as Zenoh numbers it.
    pub priority: u8,
    /// The record that another replica holds, if it is that which is offered: `op` then says what is
    /// left of it as a change, for whoever only asks what it is about.
    pub replica: Option<Box<Replicated>>,
    /// Who waits for the outcome, if anybody does.
    pub ack: Option<Ack>,
}

/// What another replica holds for a key.
#[derive(Clone, Debug)]
pub(crate) struct Replicated {
    /// The record, and the revision of the resolver that the replica serves.
    pub theirs: Theirs,
    /// The replica has forgotten what lies below.
    pub horizon: Version,
}

/// Somebody waits for the outcome of a change.
pub(crate) struct Ack {
    /// How durable it must be before the answer.
    pub durability: Durability,
    /// Called once, with the outcome. Must not block.
    pub answer: Box<dyn FnOnce(Outcome) + Send>,
}

/// What became of a change whose sender asked.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// It was decided, and what had to be written is as durable as said.
    Decided(Admission, Durability),
    /// It was neither decided nor written, if it goes to several shards in one of them at the least;
    /// the sender may try again.
    Failed(String),
}

impl Offer {
    /// A change that nobody waits for.
    pub(crate) const fn silent(op: KeptChange) -> Self {
        Self {
            op,
            priority: PRIORITY_DATA,
            replica: None,
            ack: None,
        }
    }

    /// What another replica holds for a key.
    pub(crate) fn replicated(key: Key, replicated: Replicated, ack: Ack) -> Self {
        let record = &replicated.theirs.record;
        let op = KeptChange::Key(Change {
            key,
            stamp: Some(record.head.effective().stamp),
            value: record.value.clone(),
        });
        Self {
            op,
            priority: PRIORITY_DATA,
            replica: Some(Box::new(replicated)),
            ack: Some(ack),
        }
    }

    /// The same for each of several shards. Who waits hears once of all of them: see [`joint`].
    pub(crate) fn for_shards(mut self, shards: usize) -> impl Iterator<Item = Self> {
        let mut acks = self.ack.take().map(|ack| joint::share(ack, shards));
        (0..shards).map(move |_| Self {
            op: self.op.clone(),
            priority: self.priority,
            replica: self.replica.clone(),
            ack: acks.as_mut().and_then(Iterator::next),
        })
    }

    /// Tells whoever waits.
    pub(crate) fn answer(&mut self, outcome: impl FnOnce() -> Outcome) {
        if let Some(ack) = self.ack.take() {
            (ack.answer)(outcome());
        }
    }

    /// Tells whoever waits that it was refused.
    pub(crate) fn refuse(&mut self, rejection: Rejection) {
        self.answer(|| Outcome::Decided(Admission::Rejected(rejection), Durability::Memory));
    }
}

/// The stamp of a change.
pub(crate) fn stamp_of(op: &KeptChange) -> Option<Stamp> {
    match op {
        KeptChange::Key(change) => change.stamp,
        KeptChange::Wildcard(change) => change.stamp,
    }
}

/// Sets the stamp of a change.
pub(crate) fn set_stamp(op: &mut KeptChange, stamp: Stamp) {
    match op {
        KeptChange::Key(change) => change.stamp = Some(stamp),
        KeptChange::Wildcard(change) => change.stamp = Some(stamp),
    }
}

/// Whether a change puts a value.
pub(crate) fn is_put(op: &KeptChange) -> bool {
    match op {
        KeptChange::Key(Change { value, .. })
        | KeptChange::Wildcard(WildcardChange { value, .. }) => value.is_some(),
    }
}

/// Bytes of the value.
pub(crate) fn size_of(op: &KeptChange) -> usize {
    match op {
        KeptChange::Key(Change { value, .. })
        | KeptChange::Wildcard(WildcardChange { value, .. }) => {
            value.as_ref().map_or(0, weir_core::value::Value::len)
        }
    }
}

/// Bytes of a record's value.
pub(crate) fn record_size(record: &Record) -> u64 {
    record
        .value
        .as_ref()
        .map_or(0, weir_core::value::Value::len) as u64
}
