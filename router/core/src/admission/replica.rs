//! Admission of what another replica holds (S9): the same questions as for a change, of a record that
//! may have a wildcard operation folded in.
//!
//! The record keeps its own version beside the folded one, so that a change that comes late is judged
//! here as it is there. Where the operation has been forgotten on the other side, nothing but the
//! record tells of it: then the later of the two effects wins.

use super::{Admitter, History, is_tie, row};
use crate::{
    change::{Admission, KeptChange, Rejection, Table, Write},
    key::Key,
    record::{Head, Record},
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
        let Head { own, folded } = record.head;
        let theirs = record.head.effective();
        if theirs.stamp.time < self.floor_at(now) {
            return Admission::Rejected(Rejection::Expired);
        }
        if self.is_future(now, theirs.stamp) {
            writes.push(row(Table::Parked, &KeptChange::of_record(key, record)));
            return Admission::Parked(theirs);
        }
        let held = self.cache.get(key.hash128()).flatten();
        let Some(head) = held else {
            return self.take_replica(key, record, None, writes);
        };
        if is_tie(head.own, own) {
            self.ties += 1;
        }
        let ours = self.effective(now, key, head);
        // What was folded in and forgotten there, and is unknown here: nothing else tells of it.
        let is_news = folded.is_some_and(|folded| folded < horizon) && theirs > ours;
        if own == head.own && !is_news {
            if folded.is_none() && self.may_lack_in_series(head) {
                let record = record.as_ref();
                writes.push(Write::History { key, record });
            }
            return Admission::Known(own);
        }
        if own < head.own && !is_news {
            if folded.is_none() && self.rules.history == History::All {
                return self.take_replica(key, record, held, writes);
            }
            return Admission::Outdated(theirs);
        }
        self.take_replica(key, record, held, writes)
    }

    fn take_replica<'a>(
        &mut self,
        key: &'a Key,
        record: &'a Record,
        held: Option<Head>,
        writes: &mut Vec<Write<'a>>,
    ) -> Admission {
        let head = record.head;
        let theirs = head.effective();
        if self.is_beyond_judgement(theirs, held) {
            if held.is_none() && theirs.is_delete() {
                return Admission::Nothing;
            }
            writes.push(row(Table::Quarantine, &KeptChange::of_record(key, record)));
            return Admission::Quarantined(theirs);
        }
        let record = record.as_ref();
        // The series keeps values under the versions that they were put with, which a folded one is not.
        if self.rules.history == History::All && head.folded.is_none() {
            writes.push(Write::History { key, record });
        }
        if held.is_none_or(|held| head.own > held.own || theirs > held.effective()) {
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
