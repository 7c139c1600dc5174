//! What readers see: the same function of records and journal that admission uses.

use std::sync::Arc;

use crate::{
    collection::newest_seen,
    key::Key,
    keyspace::KeySpace,
    record::{Head, Record},
    value::Value,
    version::Version,
    wildcard::{Effect, WildcardJournal},
};

/// Everything besides the records that decides what a key holds. Cheap to clone; a reader takes one
/// **before** its snapshot, so that a fold or a collection that the snapshot holds is never judged by
/// a journal that lacks it.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The wildcard operations still remembered.
    pub journal: Arc<WildcardJournal>,
    /// Everything below has been folded into the records and forgotten.
    pub folded_through: Version,
    /// Changes below are judged with care: something older than this was forgotten, or will be.
    pub horizon: Version,
    /// Nothing older is answered (NTP64): what retention has dropped or will.
    pub floor: u64,
    /// The storage's prefix.
    pub space: KeySpace,
    /// Records keep their own values until the horizon has passed ([`crate::admission::Rules`]).
    pub resolves: bool,
}

/// A value that a key holds and its version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Live {
    /// The version, of the key's own change or of the wildcard put that overwrote it.
    pub version: Version,
    /// The value.
    pub value: Value,
}

impl View {
    /// The version of what a key holds whose record has this head, tombstones included.
    ///
    /// `scratch` is a buffer to build the key in; nothing is built while the journal is empty.
    #[must_use]
    pub fn effective(&self, key: &Key, head: Head, scratch: &mut String) -> Version {
        match self.effect(key, head, scratch) {
            Effect::Own => self.base(head),
            Effect::Put(op) => op.version,
            Effect::Deleted(version) => version,
        }
    }

    /// The version of what a key holds, or of the newest change that it has merged if that is newer: while
    /// this is the same, nothing has become of the record.
    #[must_use]
    pub fn newest(&self, key: &Key, record: &Record, scratch: &mut String) -> Version {
        let version = self.effective(key, record.head, scratch);
        version.max(newest_seen(record))
    }

    /// What a key holds now; `None` if it is deleted or fell out of retention.
    #[must_use]
    pub fn live(&self, key: &Key, record: Record, scratch: &mut String) -> Option<Live> {
        let head = record.head;
        let (version, value) = match self.effect(key, head, scratch) {
            // The record's value is that of `folded` if it has one; with `base` at `own` that
            // operation is still in the journal and would have been the effect.
            Effect::Own => (head.effective(), record.value?),
            Effect::Put(op) => (op.version, op.value.clone()?),
            Effect::Deleted(_) => return None,
        };
        (version.stamp.time >= self.floor).then_some(Live { version, value })
    }

    /// Every live version of a key over time: its own puts, and the wildcard puts that found it alive.
    /// `own` are its own changes in any order.
    #[must_use]
    pub fn timeline(&self, key: &Key, mut own: Vec<Record>) -> Vec<Live> {
        own.sort_by_key(|record| record.head.own);
        own.dedup_by_key(|record| record.head.own);
        let mut full = String::new();
        let about = self
            .space
            .full(key, &mut full)
            .map(|full| self.journal.about(full));
        let mut ops = about.iter().flat_map(WildcardJournal::iter).peekable();
        let mut line = Vec::with_capacity(own.len());
        let mut alive = false;
        let mut apply = |alive: &mut bool, line: &mut Vec<Live>, before: Option<Version>| {
            while let Some(op) = ops.next_if(|op| before.is_none_or(|before| op.version < before)) {
                match &op.value {
                    None => *alive = false,
                    Some(value) if *alive => {
                        line.push(Live {
                            version: op.version,
                            value: value.clone(),
                        });
                    }
                    Some(_) => {}
                }
            }
        };
        for record in own {
            let version = record.head.own;
            apply(&mut alive, &mut line, Some(version));
            alive = record.value.is_some();
            if let Some(value) = record.value {
                line.push(Live { version, value });
            }
        }
        apply(&mut alive, &mut line, None);
        line
    }

    /// The record as it should be held: with the effect of the journal folded in; `None` if it is.
    ///
    /// Nothing is folded in where conflicts are resolved: a change that comes late is merged with
    /// what was put, and an operation between the two is evaluated on top of what comes of it.
    #[must_use]
    pub fn fold(&self, key: &Key, record: &Record, scratch: &mut String) -> Option<Record> {
        if self.resolves {
            return None;
        }
        let effect = self.effect(key, record.head, scratch);
        Self::folded(record, effect)
    }

    /// The record with the effect of the operations below `horizon` folded in; `None` if it is. No
    /// change from before them is judged any more.
    #[must_use]
    pub fn fold_below(
        &self,
        horizon: Version,
        key: &Key,
        record: &Record,
        scratch: &mut String,
    ) -> Option<Record> {
        if !self.resolves {
            return self.fold(key, record, scratch);
        }
        let full = self.space.full(key, scratch)?;
        let base = self.base(record.head);
        Self::folded(record, self.journal.effect_below(horizon, base, full))
    }

    /// The record as a replica is sent it that has forgotten what lies below `horizon`; `None` if that is
    /// as it is held. Who knows nothing of the record's own change any more is told what has become of it.
    #[must_use]
    pub fn fold_for(
        &self,
        horizon: Version,
        key: &Key,
        record: &Record,
        scratch: &mut String,
    ) -> Option<Record> {
        if record.head.own.max(newest_seen(record)) < horizon {
            let effect = self.effect(key, record.head, scratch);
            return Self::folded(record, effect);
        }
        self.fold_below(horizon, key, record, scratch)
    }

    fn folded(record: &Record, effect: Effect) -> Option<Record> {
        let own = record.head.own;
        let (folded, value) = match effect {
            Effect::Own => return None,
            Effect::Put(op) => (op.version, op.value.clone()),
            Effect::Deleted(version) => (version, None),
        };
        (record.head.folded != Some(folded)).then_some(Record {
            head: Head {
                own,
                folded: Some(folded),
            },
            value,
            merged: record.merged.clone(),
        })
    }

    fn effect(&self, key: &Key, head: Head, scratch: &mut String) -> Effect {
        if self.journal.is_empty() {
            return Effect::Own;
        }
        match self.space.full(key, scratch) {
            Some(full) => self.journal.effect(self.base(head), full),
            None => Effect::Own,
        }
    }

    /// The version from which the journal counts: below `folded_through` the record has it all. Where
    /// conflicts are resolved nothing else is folded in, be it here or by the replica that it comes from.
    fn base(&self, head: Head) -> Version {
        match head.folded {
            Some(folded) if self.resolves || folded < self.folded_through => folded.max(head.own),
            _ => head.own,
        }
    }
}
