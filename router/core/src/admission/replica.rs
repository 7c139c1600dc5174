//! Admission of what another replica holds (S9): the same questions as for a change, of a record that
//! may have a wildcard operation folded in.
//!
//! The record keeps its own version beside the folded one, so that a change that comes late is judged
//! here as it is there. Where the operation has been forgotten on the other side its effect is a fact.

use super::{Admitter, History, is_tie, row};
use crate::{
    change::{Admission, KeptChange, Rejection, Table, Write},
    key::Key,
    record::{Head, Record, RecordRef},
    version::Version,
};

impl Admitter {
    /// Whether the head of the key has to be read before the record can be judged.
    #[must_use]
    pub fn must_read_record(&self, key: &Key) -> bool {
        !self.cache.contains(key.hash128())
    }

    /// Judges a latest record of another replica, which has forgotten the operations below `horizon`,
    /// and pushes what is to be written for it. `now` is NTP64. The wildcard operations that the other
    /// replica remembers must have been offered before.
    ///
    /// The head of its key must have been learnt if [`Admitter::must_read_record`] asked for it. Not
    /// for a storage whose conflicts a policy resolves: see [`Admitter::admit_record`].
    pub fn admit_replica<'a>(
        &mut self,
        now: u64,
        key: &'a Key,
        record: &'a Record,
        horizon: Version,
        writes: &mut Vec<Write<'a>>,
    ) -> Admission {
        let theirs = record.head.effective();
        if theirs.stamp.time < self.floor_at(now) {
            return Admission::Rejected(Rejection::Expired);
        }
        if self.is_future(now, theirs.stamp) {
            writes.push(row(Table::Parked, &KeptChange::of_record(key, record)));
            return Admission::Parked(theirs);
        }
        // What was folded in and forgotten there is a fact: nobody there judges it again, and here
        // nothing may be known of it.
        let is_final = record.head.folded.is_some_and(|folded| folded < horizon);
        let head = if is_final {
            Head::own(theirs)
        } else {
            record.head
        };
        // The series keeps values under the versions that they were put with.
        let is_put = !is_final && head.folded.is_none();
        let held = self.cache.get(key.hash128()).flatten();
        let Some(known) = held else {
            return self.take_replica(key, record, head, is_put, None, writes);
        };
        if is_tie(known.own, head.own) {
            self.ties += 1;
        }
        if head.own == known.own {
            if is_put && self.may_lack_in_series(known) {
                let record = record.as_ref();
                writes.push(Write::History { key, record });
            }
            return Admission::Known(head.own);
        }
        if head.own < known.own && !(is_put && self.rules.history == History::All) {
            return Admission::Outdated(theirs);
        }
        self.take_replica(key, record, head, is_put, held, writes)
    }

    fn take_replica<'a>(
        &mut self,
        key: &'a Key,
        record: &'a Record,
        head: Head,
        is_put: bool,
        held: Option<Head>,
        writes: &mut Vec<Write<'a>>,
    ) -> Admission {
        let theirs = head.effective();
        // A wildcard operation on what had been deleted before does not make it news.
        let judged = if held.is_none() { head.own } else { theirs };
        if self.is_beyond_judgement(judged, held) {
            if held.is_none() && theirs.is_delete() {
                return Admission::Nothing;
            }
            writes.push(row(Table::Quarantine, &KeptChange::of_record(key, record)));
            return Admission::Quarantined(theirs);
        }
        let record = RecordRef {
            head,
            ..record.as_ref()
        };
        if self.rules.history == History::All && is_put {
            writes.push(Write::History { key, record });
        }
        if held.is_none_or(|held| head.own > held.own) {
            writes.push(Write::Latest { key, record });
            self.cache.insert(key.hash128(), Some(head));
        }
        self.newest = self.newest.max(theirs);
        if theirs.is_delete() {
            self.note_garbage(theirs);
        }
        if self.rules.history == History::Latest && self.is_hidden(key, head) {
            return Admission::Outdated(theirs);
        }
        Admission::Applied(theirs)
    }
}
