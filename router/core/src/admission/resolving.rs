//! Admission where a policy resolves conflicts (S13): the same questions in the same order as without
//! one, but what is held is read whole, and two states that know nothing of each other are merged
//! ([`crate::resolving`]) instead of the later one taking all.
//!
//! Wildcard operations are no states. They stay operations, evaluated on top of what comes of the
//! merging: which is why nothing is folded into records here before the horizon has passed. What is
//! folded by then is a state like any other, and has merged the operation.

use super::{Admitter, row};
use crate::{
    change::{Admission, Change, KeptChange, Rejection, Table, Write},
    collection::newest_seen,
    key::Key,
    record::Record,
    resolution::Interrupted,
    resolving::{self, Keys, Merge, Resolver, Theirs},
    vector::Relation,
    version::{Stamp, Version},
};

impl Admitter {
    /// Judges one change, as [`Admitter::admit`] does; rows go to `writes`, records to `keys`, which
    /// must have learnt what the store holds for the key.
    ///
    /// # Errors
    /// [`Interrupted`] if the resolver gave no answer. Nothing is decided and nothing pushed:
    /// [`Admitter::park`] keeps the change until it is asked again.
    pub fn admit_resolving(
        &mut self,
        now: u64,
        change: &Change,
        released: bool,
        keys: &mut Keys,
        resolver: &mut Resolver<'_>,
        writes: &mut Vec<Write<'_>>,
    ) -> Result<Admission, Interrupted> {
        let held = keys.get(&change.key);
        let Some(stamp) = change.stamp else {
            return Ok(self.delete_held(change, keys));
        };
        if stamp.time < self.floor_at(now) {
            return Ok(Admission::Rejected(Rejection::Expired));
        }
        let version = change.version(stamp);
        if self.is_future(now, stamp) && !released {
            return Ok(self.park(change, writes));
        }
        if let Some(held) = held {
            if version == held.head.own {
                return Ok(Admission::Known(version));
            }
            if held.head.own.stamp == stamp && held.head.own.kind == version.kind {
                self.ties += 1;
            }
            // How an unstamped delete comes back that was decided once, or stands for a wildcard.
            if version.is_delete() && self.effective(now, &change.key, held.head).stamp == stamp {
                return Ok(self.delete_held(change, keys));
            }
        }
        // Nobody else's: whoever made it, it is merged here.
        let ours = Theirs {
            record: Record::own(version, change.value.clone()),
            revision: resolver.revision,
        };
        let (admission, _) = self.take(&change.key, ours, keys, resolver, writes)?;
        Ok(admission)
    }

    /// Judges what another replica holds. The flag says that the two stay apart: the replicas do not agree about the resolver yet, and each keeps its own.
    ///
    /// A state from the future or from below the horizon is kept aside as a change of its key. What
    /// it had merged is not kept with it, which claims too little and never too much.
    ///
    /// # Errors
    /// As [`Admitter::admit_resolving`].
    pub fn admit_record(
        &mut self,
        now: u64,
        key: &Key,
        theirs: Theirs,
        keys: &mut Keys,
        resolver: &mut Resolver<'_>,
        writes: &mut Vec<Write<'_>>,
    ) -> Result<(Admission, bool), Interrupted> {
        let record = &theirs.record;
        let version = record.head.effective();
        let held = keys.get(key);
        if held == Some(record) {
            return Ok((Admission::Known(version), false));
        }
        if version.stamp.time < self.floor_at(now) {
            return Ok((Admission::Rejected(Rejection::Expired), false));
        }
        if self.is_future(now, version.stamp) {
            writes.push(row(Table::Parked, &KeptChange::of_record(key, record)));
            return Ok((Admission::Parked(version), false));
        }
        self.take(key, theirs, keys, resolver, writes)
    }

    /// Keeps a change aside that is to be judged later; pushes its row.
    pub fn park(&mut self, change: &Change, writes: &mut Vec<Write<'_>>) -> Admission {
        let version = change.version(change.stamp.unwrap_or(Stamp::ZERO));
        writes.push(row(Table::Parked, &KeptChange::Key(change.clone())));
        Admission::Parked(version)
    }

    fn take(
        &mut self,
        key: &Key,
        theirs: Theirs,
        keys: &mut Keys,
        resolver: &mut Resolver<'_>,
        writes: &mut Vec<Write<'_>>,
    ) -> Result<(Admission, bool), Interrupted> {
        let Theirs {
            record: other,
            revision,
        } = theirs;
        let version = other.head.effective();
        let held = keys.get(key);
        if self.is_beyond_resolving(held, &other) {
            if held.is_none() && version.is_delete() {
                return Ok((Admission::Nothing, false));
            }
            let change = KeptChange::of_record(key, &other);
            writes.push(row(Table::Quarantine, &change));
            return Ok((Admission::Quarantined(version), false));
        }
        let Some(held) = held else {
            return Ok((self.hold(key, other, version, keys), false));
        };
        if is_concurrent(held, &other) && self.has_merged(held, &other) {
            return Ok((Admission::Outdated(version), false));
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let full = self.space.full(key, &mut scratch);
        let full = full.map_or(&**key, |full| full.as_str());
        let merge = resolving::merge(full, held, &other, revision, resolver);
        self.scratch = scratch;
        let admission = match merge? {
            Merge::Held if version == held.head.effective() => Admission::Known(version),
            Merge::Held => Admission::Outdated(version),
            Merge::Apart => return Ok((Admission::Outdated(version), true)),
            Merge::Other => self.hold(key, other, version, keys),
            Merge::Merged(record) if record.head.own == held.head.effective() => {
                self.hold(key, record, version, keys);
                Admission::Outdated(version)
            }
            Merge::Merged(record) => self.hold(key, record, version, keys),
        };
        Ok((admission, false))
    }

    /// An unstamped delete: the tombstone of the very state that is held.
    fn delete_held(&mut self, change: &Change, keys: &mut Keys) -> Admission {
        if change.value.is_some() {
            return Admission::Rejected(Rejection::Unstamped);
        }
        let Some(held) = keys.get(&change.key) else {
            return Admission::Nothing;
        };
        let effective = self.effective(0, &change.key, held.head);
        if effective.is_delete() {
            return match change.stamp {
                Some(_) => Admission::Known(effective),
                None => Admission::Nothing,
            };
        }
        let tombstone = resolving::tombstone(held, effective);
        let version = tombstone.head.own;
        self.hold(&change.key, tombstone, version, keys)
    }

    /// Lets a key hold a record; `version` is that of the change that led to it.
    fn hold(&mut self, key: &Key, record: Record, version: Version, keys: &mut Keys) -> Admission {
        let head = record.head;
        let effective = head.effective();
        self.cache.insert(key.hash128(), Some(head));
        self.newest = self.newest.max(effective);
        if effective.is_delete() {
            self.note_garbage(effective);
        }
        keys.set(key, record);
        if self.is_hidden(key, head) {
            Admission::Outdated(version)
        } else if effective == version {
            Admission::Applied(version)
        } else {
            Admission::Merged(effective)
        }
    }

    /// Whether something that was forgotten might have decided otherwise: what is older than the
    /// horizon, and is not known to have been merged, may have been deleted since.
    fn is_beyond_resolving(&self, held: Option<&Record>, other: &Record) -> bool {
        // A wildcard operation on what had been deleted before does not make it news.
        let newest = match held {
            Some(_) => other.head.effective(),
            None => other.head.own,
        };
        if newest.max(newest_seen(other)) >= self.horizon {
            return false;
        }
        !held.is_some_and(|held| self.has_merged(held, other))
    }

    /// Whether what is held has merged all of another state, but for an operation below the horizon: that
    /// was known here before it was forgotten.
    fn has_merged(&self, held: &Record, other: &Record) -> bool {
        let is_known = |folded: Version| folded < self.horizon;
        let vector = match other.head.folded.is_some_and(is_known) {
            true => resolving::vector_of_own(other),
            false => resolving::vector_of(other),
        };
        let relation = resolving::vector_of(held).compare(&vector);
        matches!(relation, Relation::Dominates | Relation::Equal)
    }
}

fn is_concurrent(held: &Record, other: &Record) -> bool {
    let (held, other) = (resolving::vector_of(held), resolving::vector_of(other));
    held.compare(&other) == Relation::Concurrent
}
