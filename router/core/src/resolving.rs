//! What becomes of two states of a key under a `resolve` policy (S13).
//!
//! A state is a record: a version, a value or none, and what it has merged ([`crate::vector`]).
//!
//! - A state that has merged all of the other, and more, wins.
//! - Two that have merged different things are given to the resolver in canonical order, the earlier
//!   version first, and what comes of it has merged what both had. The resolver is not asked about
//!   two that hold the same version.
//! - Two that have merged the same and differ are settled by version order: a tombstone beats a live
//!   value, the greater value hash wins; then the greater revision.
//!
//! Why this converges whatever the resolver answers: vectors only grow, and grow to the same end on
//! every replica that exchanges its states; at equal vectors the version only grows. Why a lawful
//! resolver leaves the fold of all changes: nothing is lost that was not merged, and what is merged
//! twice changes nothing.
//!
//! What is kept stays what it was: its version is not renewed, so that a reader sees when the value
//! was made, and a resolver that keeps the first of three finds it again whoever came between. Only a
//! new value (or a delete that the resolver made) has a new version, with the newest stamp of the two.

use std::collections::BTreeMap;

use crate::{
    change::Write,
    key::Key,
    record::{Merged, Record},
    resolution::{Contender, Interrupted, Resolution, Resolve},
    value::Value,
    vector::{Relation, Vector},
    version::Version,
};

/// Who resolves.
pub struct Resolver<'r> {
    /// The revision: a hash of the module and its settings; 0 for the native rule. What it makes is
    /// marked with it.
    pub revision: u64,
    /// What is asked.
    pub resolve: &'r mut dyn Resolve,
}

/// What another replica holds for a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Theirs {
    /// The record.
    pub record: Record,
    /// The revision that the replica serves now.
    pub revision: u64,
}

/// The native rule as a resolver: the later version wins.
#[derive(Clone, Copy, Debug, Default)]
pub struct LaterWins;

/// What becomes of two states.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Merge {
    /// The held one stays as it is.
    Held,
    /// The other takes its place.
    Other,
    /// This takes its place.
    Merged(Record),
    /// Each stays where it is: the two sides do not agree about the resolver.
    Apart,
}

/// What the keys of a batch hold while it is judged, and what is to be written at its end.
#[derive(Debug, Default)]
pub struct Keys(BTreeMap<Key, Held>);

#[derive(Debug, Default)]
struct Held {
    record: Option<Record>,
    changed: bool,
}

impl Resolve for LaterWins {
    fn resolve(
        &mut self,
        _: &str,
        _: Contender<'_>,
        _: Contender<'_>,
    ) -> Result<Resolution, Interrupted> {
        Ok(Resolution::Default)
    }
}

/// What becomes of what is held for `key` and of another state of it: a change made here, or a state
/// of a replica that `theirs`, the revision that it serves now, resolves for. `key` is in full. The
/// result is the same with the two exchanged, but for what it is called.
///
/// # Errors
/// [`Interrupted`] if the resolver gave no answer: nothing is decided.
pub fn merge(
    key: &str,
    held: &Record,
    other: &Record,
    theirs: u64,
    resolver: &mut Resolver<'_>,
) -> Result<Merge, Interrupted> {
    let mut merged = vector_of(held);
    let others = vector_of(other);
    match merged.compare(&others) {
        Relation::Dominates => return Ok(Merge::Held),
        Relation::Dominated => return Ok(Merge::Other),
        Relation::Equal if rank(other) > rank(held) => return Ok(Merge::Other),
        Relation::Equal => return Ok(Merge::Held),
        Relation::Concurrent => {}
    }
    let (mine, others_version) = (held.head.effective(), other.head.effective());
    let (version, value) = if mine == others_version {
        (mine, held.value.clone())
    } else if theirs != resolver.revision {
        return Ok(Merge::Apart);
    } else {
        let (first, second) = if mine < others_version {
            (contender(held), contender(other))
        } else {
            (contender(other), contender(held))
        };
        let resolution = resolver.resolve.resolve(key, first, second)?;
        settle(first, second, resolution)
    };
    merged.join(&others);
    Ok(Merge::Merged(state(
        version,
        value,
        merged,
        resolver.revision,
    )))
}

/// What two versions leave, given the answer about them: `first` is the earlier.
#[must_use]
pub fn settle(
    first: Contender<'_>,
    second: Contender<'_>,
    resolution: Resolution,
) -> (Version, Option<Value>) {
    let newest = second.version.stamp;
    match resolution {
        Resolution::First => (first.version, first.value.cloned()),
        Resolution::Default | Resolution::Second => (second.version, second.value.cloned()),
        Resolution::Merge(value) => (Version::put(newest, value.hash()), Some(value)),
        Resolution::Delete => (Version::delete(newest), None),
    }
}

/// The tombstone of the very state that is held: who deletes without a stamp has seen all of it (S4).
#[must_use]
pub fn tombstone(held: &Record, version: Version) -> Record {
    let merged = held.merged.as_ref();
    let mut vector = vector_of(held);
    vector.insert(version.stamp);
    state(
        version.tombstone(),
        None,
        vector,
        merged.map_or(0, |merged| merged.revision),
    )
}

/// What a record has merged: its own change if it says nothing else, and the wildcard operation that
/// was folded into it.
#[must_use]
pub fn vector_of(record: &Record) -> Vector {
    let mut vector = vector_of_own(record);
    if let Some(folded) = record.head.folded {
        vector.insert(folded.stamp);
    }
    vector
}

/// What a record has merged but for operations.
#[must_use]
pub fn vector_of_own(record: &Record) -> Vector {
    match &record.merged {
        Some(merged) => merged.vector.clone(),
        None => Vector::of(record.head.own.stamp),
    }
}

impl Keys {
    /// Whether what the store holds for a key has still to be [learnt](Keys::learn).
    #[must_use]
    pub fn must_read(&self, key: &Key) -> bool {
        !self.0.contains_key(key)
    }

    /// Takes note of what the store holds for a key.
    pub fn learn(&mut self, key: Key, record: Option<Record>) {
        let held = Held {
            record,
            changed: false,
        };
        self.0.entry(key).or_insert(held);
    }

    /// What a key holds.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Record> {
        self.0.get(key)?.record.as_ref()
    }

    /// Lets a key hold this.
    pub fn set(&mut self, key: &Key, record: Record) {
        let held = self.0.entry(key.clone()).or_default();
        held.record = Some(record);
        held.changed = true;
    }

    /// Pushes one write for each key that changed.
    pub fn write<'a>(&'a self, writes: &mut Vec<Write<'a>>) {
        for (key, held) in &self.0 {
            if let (true, Some(record)) = (held.changed, &held.record) {
                let record = record.as_ref();
                writes.push(Write::Latest { key, record });
            }
        }
    }
}

fn contender(record: &Record) -> Contender<'_> {
    Contender {
        version: record.head.effective(),
        value: record.value.as_ref(),
    }
}

/// What settles two states that have merged the same. Of one that was merged with what an operation had
/// made of it, and one that the operation was folded into later, the first: only its own vector says so.
fn rank(record: &Record) -> (Version, bool, u64) {
    let revision = record.merged.as_ref().map_or(0, |merged| merged.revision);
    let folded = record.head.folded;
    let has_merged_it = folded.is_none_or(|op| vector_of_own(record).contains(op.stamp));
    (record.head.effective(), has_merged_it, revision)
}

/// A record; equal states are equal bytes.
fn state(version: Version, value: Option<Value>, vector: Vector, revision: u64) -> Record {
    let is_own = vector == Vector::of(version.stamp);
    let merged = (!is_own).then(|| Box::new(Merged { revision, vector }));
    Record {
        merged,
        ..Record::own(version, value)
    }
}

#[cfg(test)]
mod tests;
