//! Admission: what becomes of a change, and what is written for it (S1 to S5).
//!
//! One [`Admitter`] judges for one shard. It holds no values: the versions of recently changed keys,
//! the wildcard journal, and a few marks. A batch goes through it in four steps:
//!
//! 1. [`Admitter::begin`], then [`Admitter::must_read`] for each change: which heads to fetch;
//! 2. [`Admitter::learn`] what the store holds for those;
//! 3. [`Admitter::admit`] each change, which pushes writes;
//! 4. [`Admitter::seal`], then commit the writes as one batch; if that fails [`Admitter::abort`] and
//!    offer the same changes again later.
//!
//! A change newer than everything the shard has ever held needs no read: it wins whatever is there.

use std::sync::Arc;

use crate::{
    cache::HeadCache,
    change::{Admission, Change, KeptChange, Rejection, Table, WildcardChange, Write},
    identity::Identity,
    key::Key,
    keyspace::KeySpace,
    record::{Head, RecordRef},
    version::{Stamp, Version},
    view::View,
    wildcard::{Insertion, WildcardJournal},
};

/// What a storage keeps of each key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum History {
    /// One version.
    #[default]
    Latest,
    /// Every version: a time series. A delete ends the key's current value; what came before stays
    /// in the series until retention drops it.
    All,
}

/// How a shard judges.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What it keeps.
    pub history: History,
    /// How far ahead of now a stamp may be (NTP64); what is further ahead is parked.
    pub drift: u64,
    /// How old a change may be (NTP64); what is older is refused as expired.
    pub age_max: Option<u64>,
    /// How many heads to remember; 120 bytes each, twice as many at the most.
    pub cache_keys: usize,
    /// Whether a policy resolves conflicts ([`Admitter::admit_resolving`]), also while it is absent.
    /// Only with [`History::Latest`]: a time series has no conflicts.
    pub resolves: bool,
}

/// What an [`Admitter`] was before a restart: rows of [`Table::System`] and [`Table::Wildcards`].
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// The newest version ever held.
    pub newest: Version,
    /// Changes below are judged with care: something older than this was forgotten.
    pub horizon: Version,
    /// Everything below has been folded into the records.
    pub folded_through: Version,
    /// What retention has dropped through (NTP64).
    pub floor: u64,
    /// No tombstone and no wildcard operation is older (NTP64); `None` if there is none at all.
    pub garbage: Option<u64>,
    /// How many batches of changes were committed ([`Identity::position`]).
    pub position: u64,
    /// The wildcard operations.
    pub journal: WildcardJournal,
}

/// Judges the changes of one shard.
#[derive(Debug)]
pub struct Admitter {
    rules: Rules,
    space: KeySpace,
    journal: Arc<WildcardJournal>,
    /// The journal as it was when the batch began.
    journal_before: Option<Arc<WildcardJournal>>,
    cache: HeadCache,
    newest: Version,
    newest_at_begin: Version,
    newest_sealed: Version,
    /// [`Admitter::newest_sealed`] as it was when the batch began.
    sealed_at_begin: Version,
    horizon: Version,
    folded_through: Version,
    floor: u64,
    garbage: Option<u64>,
    garbage_sealed: Option<u64>,
    position: u64,
    /// The time of the oldest delete that was admitted since somebody asked (NTP64).
    deleted: Option<u64>,
    /// How often two different changes of one key had the same stamp.
    ties: u64,
    scratch: String,
}

impl Memory {
    /// The row of [`Table::System`] for [`Memory::newest`].
    pub const NEWEST: &'static [u8] = b"newest";
    /// The row for [`Memory::horizon`].
    pub const HORIZON: &'static [u8] = b"horizon";
    /// The row for [`Memory::folded_through`].
    pub const FOLDED_THROUGH: &'static [u8] = b"folded";
    /// The row for [`Memory::floor`].
    pub const FLOOR: &'static [u8] = b"floor";
    /// The row for [`Memory::garbage`].
    pub const GARBAGE: &'static [u8] = b"garbage";
}

impl Admitter {
    /// A judge that remembers `memory`.
    #[must_use]
    pub fn new(rules: Rules, space: KeySpace, memory: Memory) -> Self {
        let cache = HeadCache::new(rules.cache_keys);
        let newest = memory.newest.max(memory.horizon);
        Self {
            rules,
            space,
            journal: Arc::new(memory.journal),
            journal_before: None,
            cache,
            newest,
            newest_at_begin: newest,
            newest_sealed: memory.newest,
            sealed_at_begin: memory.newest,
            horizon: memory.horizon,
            folded_through: memory.folded_through,
            floor: memory.floor,
            garbage: memory.garbage,
            garbage_sealed: memory.garbage,
            position: memory.position,
            deleted: None,
            ties: 0,
            scratch: String::new(),
        }
    }

    /// What readers need to see the records as this judge does. `now` is NTP64.
    #[must_use]
    pub fn view(&self, now: u64) -> View {
        View {
            journal: Arc::clone(&self.journal),
            folded_through: self.folded_through,
            horizon: self.horizon,
            floor: self.floor_at(now),
            space: self.space.clone(),
            resolves: self.rules.resolves,
        }
    }

    /// Begins a batch.
    pub fn begin(&mut self) {
        self.cache.rotate();
        self.newest_at_begin = self.newest;
        self.sealed_at_begin = self.newest_sealed;
        self.journal_before = None;
    }

    /// Whether the head of the change's key has to be read before it can be judged.
    #[must_use]
    pub fn must_read(&self, change: &Change) -> bool {
        !self.surely_newest(change) && !self.cache.contains(change.key.hash128())
    }

    /// Takes note of what the store holds for a key.
    pub fn learn(&mut self, key: &Key, head: Option<Head>) {
        self.cache.insert(key.hash128(), head);
    }

    /// Judges one change and pushes what is to be written for it. `released` says that it was parked
    /// and is due. `now` is NTP64.
    ///
    /// The head of its key must have been learnt if [`Admitter::must_read`] asked for it.
    pub fn admit<'a>(
        &mut self,
        now: u64,
        change: &'a Change,
        released: bool,
        writes: &mut Vec<Write<'a>>,
    ) -> Admission {
        let hash = change.key.hash128();
        let Some(stamp) = change.stamp else {
            let held = self.cache.get(hash).flatten();
            return self.admit_unstamped(hash, held, change, writes);
        };
        // The usual case by far, and looking it up is the dearest part of judging it.
        let is_newest = stamp > self.newest.stamp;
        let held = if is_newest {
            None
        } else {
            self.cache.get(hash)
        };
        if stamp.time < self.floor_at(now) {
            return Admission::Rejected(Rejection::Expired);
        }
        let version = change.version(stamp);
        if self.is_future(now, stamp) && !released {
            writes.push(row(Table::Parked, &KeptChange::Key(change.clone())));
            return Admission::Parked(version);
        }
        let Some(known) = held else {
            // Not known and not asked for: newer than everything that was held when the batch began.
            return self.apply(hash, None, version, change, writes);
        };
        if let Some(head) = known {
            if is_tie(head.own, version) {
                self.ties += 1;
            }
            if version == head.own {
                if self.may_lack_in_series(head) {
                    let record = RecordRef::own(version, change.value.as_ref());
                    let key = &change.key;
                    writes.push(Write::History { key, record });
                }
                return Admission::Known(version);
            }
            if version < head.own && self.rules.history == History::Latest {
                return Admission::Outdated(version);
            }
        }
        if self.is_beyond_judgement(version, known) {
            if known.is_none() && version.is_delete() {
                return Admission::Nothing;
            }
            writes.push(row(Table::Quarantine, &KeptChange::Key(change.clone())));
            return Admission::Quarantined(version);
        }
        self.apply(hash, known, version, change, writes)
    }

    /// Judges a stamped wildcard operation and pushes what is to be written for it. A wildcard delete
    /// without a stamp is not an operation: it is one unstamped delete for each key that is held.
    pub fn admit_wildcard(
        &mut self,
        now: u64,
        change: WildcardChange,
        released: bool,
        writes: &mut Vec<Write<'_>>,
    ) -> Admission {
        let Some(stamp) = change.stamp else {
            return Admission::Rejected(Rejection::Unstamped);
        };
        let version = change.version(stamp);
        if stamp.time < self.floor_at(now) {
            return Admission::Rejected(Rejection::Expired);
        }
        if self.is_future(now, stamp) && !released {
            writes.push(row(Table::Parked, &KeptChange::Wildcard(change)));
            return Admission::Parked(version);
        }
        if version < self.horizon {
            writes.push(row(Table::Quarantine, &KeptChange::Wildcard(change)));
            return Admission::Quarantined(version);
        }
        let kept = KeptChange::Wildcard(change.clone());
        self.journal_before
            .get_or_insert_with(|| Arc::clone(&self.journal));
        match Arc::make_mut(&mut self.journal).insert(change.into_op(stamp)) {
            Insertion::Known => Admission::Known(version),
            Insertion::Subsumed => Admission::Outdated(version),
            Insertion::Inserted(forgotten) => {
                writes.push(row(Table::Wildcards, &kept));
                for op in forgotten {
                    let key = op.row_key();
                    writes.push(Write::Row {
                        table: Table::Wildcards,
                        key,
                        value: None,
                    });
                }
                self.newest = self.newest.max(version);
                self.note_garbage(version);
                Admission::Applied(version)
            }
        }
    }

    /// Pushes the marks that changed, and the position of a batch that is not empty; to be committed with
    /// the batch.
    pub fn seal(&mut self, writes: &mut Vec<Write<'_>>) {
        self.seal_marks(writes);
        if !writes.is_empty() {
            // Never taken back: a number that a batch in doubt has had is no other batch's.
            self.position += 1;
            writes.push(Write::Row {
                table: Table::System,
                key: Identity::POSITION.to_vec(),
                value: Some(self.position.to_be_bytes().to_vec()),
            });
        }
    }

    fn seal_marks(&mut self, writes: &mut Vec<Write<'_>>) {
        if self.newest > self.newest_sealed {
            writes.push(mark(Memory::NEWEST, self.newest));
            self.newest_sealed = self.newest;
        }
        if self.garbage != self.garbage_sealed {
            let value = self.garbage.map(|time| time.to_be_bytes().to_vec());
            writes.push(Write::Row {
                table: Table::System,
                key: Memory::GARBAGE.to_vec(),
                value,
            });
            self.garbage_sealed = self.garbage;
        }
    }

    /// Takes back what the batch since [`Admitter::begin`] has taught: it was not committed.
    pub fn abort(&mut self) {
        self.cache.clear();
        if let Some(journal) = self.journal_before.take() {
            self.journal = journal;
        }
        // `newest` may stay too high, which costs reads and nothing else; but it must be written
        // with the next batch that is committed.
        self.newest_sealed = self.sealed_at_begin;
        self.garbage_sealed = None;
    }

    /// The version of what a key holds whose record has this head.
    pub fn effective(&mut self, now: u64, key: &Key, head: Head) -> Version {
        let view = self.view(now);
        view.effective(key, head, &mut self.scratch)
    }

    /// How often two different changes of one key came with the same stamp.
    #[must_use]
    pub const fn ties(&self) -> u64 {
        self.ties
    }

    /// The newest version that the shard had ever held when the batch began.
    #[must_use]
    pub const fn newest_at_begin(&self) -> Version {
        self.newest_at_begin
    }

    /// The newest version that the shard has ever held.
    #[must_use]
    pub const fn newest(&self) -> Version {
        self.newest
    }

    /// Below this, changes are judged with care.
    #[must_use]
    pub const fn horizon(&self) -> Version {
        self.horizon
    }

    /// The wildcard operations still remembered.
    #[must_use]
    pub fn journal(&self) -> &WildcardJournal {
        &self.journal
    }

    /// What the shard keeps of each key.
    #[must_use]
    pub const fn history(&self) -> History {
        self.rules.history
    }

    /// Whether a policy resolves conflicts here.
    #[must_use]
    pub const fn resolves(&self) -> bool {
        self.rules.resolves
    }

    /// Begins to forget what lies below `horizon`: from here on changes below it are judged with
    /// care. To be written before the first tombstone is dropped; see [`crate::collection`].
    /// A time series takes late changes however late they are, so there it goes no further than what
    /// retention has dropped: a forgotten wildcard delete would bring back what it deleted.
    pub fn raise_horizon(&mut self, horizon: Version, writes: &mut Vec<Write<'_>>) {
        let horizon = match self.rules.history {
            History::Latest => horizon,
            History::All => horizon.min(crate::collection::before(self.floor)),
        };
        self.horizon = self.horizon.max(horizon);
        // What is newer than everything held is applied unread, and so must lie above the horizon, which
        // a replica that has forgotten more than was ever here may have raised.
        self.newest = self.newest.max(self.horizon);
        writes.push(mark(Memory::HORIZON, self.horizon));
    }

    /// Nothing that could be collected is older than this (NTP64); `None` if there is nothing.
    #[must_use]
    pub const fn garbage(&self) -> Option<u64> {
        self.garbage
    }

    /// The time (NTP64) of the oldest delete or wildcard operation that was admitted since this was last
    /// asked.
    pub fn take_deleted(&mut self) -> Option<u64> {
        self.deleted.take()
    }

    /// A collection has ended. Everything below `swept` has been folded into the records, so the journal
    /// forgets it; nothing was folded if it is `None`. `oldest` is the time (NTP64) of the oldest
    /// tombstone that was left.
    ///
    /// The horizon does not tell how far the records were folded: it may have been taken over from a
    /// replica meanwhile, which says nothing of the operations that are still in this journal.
    pub fn finish_collection(
        &mut self,
        swept: Option<Version>,
        oldest: Option<u64>,
        writes: &mut Vec<Write<'_>>,
    ) {
        if let Some(swept) = swept {
            // Of a series nothing above this was folded: see `raise_horizon`.
            let swept = swept.min(self.horizon);
            self.journal_before
                .get_or_insert_with(|| Arc::clone(&self.journal));
            self.folded_through = self.folded_through.max(swept);
            writes.push(mark(Memory::FOLDED_THROUGH, self.folded_through));
            for op in Arc::make_mut(&mut self.journal).forget_below(swept) {
                writes.push(Write::Row {
                    table: Table::Wildcards,
                    key: op.row_key(),
                    value: None,
                });
            }
        }
        let journal = self.journal.iter().map(|op| op.version.stamp.time).min();
        self.garbage = journal.into_iter().chain(oldest).min();
        self.seal_marks(writes);
    }

    /// Retention drops everything older than `floor` (NTP64); it never goes back.
    pub fn raise_floor(&mut self, floor: u64, writes: &mut Vec<Write<'_>>) {
        self.floor = self.floor.max(floor);
        let (key, value) = (
            Memory::FLOOR.to_vec(),
            Some(self.floor.to_be_bytes().to_vec()),
        );
        writes.push(Write::Row {
            table: Table::System,
            key,
            value,
        });
    }

    fn admit_unstamped<'a>(
        &mut self,
        hash: u128,
        held: Option<Head>,
        change: &'a Change,
        writes: &mut Vec<Write<'a>>,
    ) -> Admission {
        if change.value.is_some() {
            return Admission::Rejected(Rejection::Unstamped);
        }
        let Some(head) = held else {
            return Admission::Nothing;
        };
        let effective = self.effective(0, &change.key, head);
        if effective.is_delete() {
            return Admission::Nothing;
        }
        self.apply(hash, Some(head), effective.tombstone(), change, writes)
    }

    /// Writes a change that has won, or that is one more version of a time series.
    fn apply<'a>(
        &mut self,
        hash: u128,
        held: Option<Head>,
        version: Version,
        change: &'a Change,
        writes: &mut Vec<Write<'a>>,
    ) -> Admission {
        let head = Head::own(version);
        let record = RecordRef::own(version, change.value.as_ref());
        if self.rules.history == History::All {
            writes.push(Write::History {
                key: &change.key,
                record,
            });
        }
        if held.is_none_or(|held| version > held.own) {
            writes.push(Write::Latest {
                key: &change.key,
                record,
            });
            if version.stamp > self.newest.stamp {
                self.cache.renew(hash, head);
            } else {
                self.cache.insert(hash, Some(head));
            }
        }
        self.newest = self.newest.max(version);
        if version.is_delete() {
            self.note_garbage(version);
        }
        if self.rules.history == History::Latest && self.is_hidden(&change.key, head) {
            return Admission::Outdated(version);
        }
        Admission::Applied(version)
    }

    /// Whether a wildcard operation covers what was just written.
    fn is_hidden(&mut self, key: &Key, head: Head) -> bool {
        if self.journal.is_empty() {
            return false;
        }
        let Some(full) = self.space.full(key, &mut self.scratch) else {
            return false;
        };
        self.journal.effect(head.own, full) != crate::wildcard::Effect::Own
    }

    /// Whether something that was forgotten might have decided otherwise.
    fn is_beyond_judgement(&self, version: Version, held: Option<Head>) -> bool {
        if version >= self.horizon || self.rules.history == History::All {
            return false;
        }
        match held {
            None => true,
            // A wildcard operation between the two may have ended the key before it was overwritten.
            Some(head) => head.folded.is_some_and(|folded| folded > version),
        }
    }

    /// Whether the series may lack the own change of a key: a replica that keeps none has sent what a
    /// wildcard operation had made of it.
    fn may_lack_in_series(&self, head: Head) -> bool {
        self.rules.history == History::All && head.folded.is_some()
    }

    fn note_garbage(&mut self, version: Version) {
        let time = version.stamp.time;
        self.garbage = Some(self.garbage.map_or(time, |oldest| oldest.min(time)));
        self.deleted = Some(self.deleted.map_or(time, |oldest| oldest.min(time)));
    }

    fn surely_newest(&self, change: &Change) -> bool {
        // A tombstone or a value at the same stamp would need the comparison of whole versions.
        change
            .stamp
            .is_some_and(|stamp| stamp > self.newest_at_begin.stamp)
    }

    fn is_future(&self, now: u64, stamp: Stamp) -> bool {
        stamp.time > now.saturating_add(self.rules.drift)
    }

    fn floor_at(&self, now: u64) -> u64 {
        let by_age = self.rules.age_max.map_or(0, |age| now.saturating_sub(age));
        self.floor.max(by_age)
    }
}

impl crate::wildcard::WildcardOp {
    /// The key of its row in [`Table::Wildcards`].
    #[must_use]
    pub fn row_key(&self) -> Vec<u8> {
        let change = WildcardChange {
            expr: self.expr.clone(),
            stamp: Some(self.version.stamp),
            value: self.value.clone(),
        };
        KeptChange::Wildcard(change).row_key()
    }
}

/// Whether two changes of a key have one stamp by accident. A tombstone of the same stamp is none: so
/// an unstamped delete is made.
fn is_tie(held: Version, other: Version) -> bool {
    held.stamp == other.stamp && held.kind == other.kind && held != other
}

fn row(table: Table, change: &KeptChange) -> Write<'static> {
    Write::Row {
        table,
        key: change.row_key(),
        value: Some(change.encode()),
    }
}

fn mark(name: &[u8], version: Version) -> Write<'static> {
    Write::Row {
        table: Table::System,
        key: name.to_vec(),
        value: Some(version.to_bytes().to_vec()),
    }
}

mod replica;
mod resolving;
#[cfg(test)]
mod tests;
