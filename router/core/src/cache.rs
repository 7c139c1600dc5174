//! The heads of the keys that changed most recently, so that admission rarely reads the store.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use crate::record::Head;

/// Two generations of heads by key hash. When the young one is full the old one is dropped and the
/// young one takes its place: constant cost, and a key that is used again is kept.
///
/// A key whose changes come in order is never looked up, so it is not remembered either, but for the
/// batch at hand: that one fits into the processor's own cache, which all keys do not.
///
/// While all changes of a batch come in order nothing is looked up at all: what it puts is written down one
/// behind the other, and becomes a map when somebody asks.
#[derive(Debug)]
pub(crate) struct HeadCache {
    /// What the batch at hand has put, in order; of one key the last holds.
    put: Vec<(u128, Option<Head>)>,
    /// The first so many of those are in `fresh`.
    indexed: usize,
    /// What the batch at hand has put.
    fresh: Generation,
    young: Generation,
    old: Generation,
    keys_max: usize,
}

/// `None` says that the store is known to hold nothing for the key.
type Generation = HashMap<u128, Option<Head>, BuildHasherDefault<Hashed>>;

/// The keys are hashes already: takes the low half as it is.
#[derive(Default, Debug)]
pub(crate) struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(low) = bytes.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*low);
        }
    }
}

impl HeadCache {
    /// Holds between `keys_max` and twice as many keys, about 120 bytes each.
    pub(crate) fn new(keys_max: usize) -> Self {
        Self {
            put: Vec::new(),
            indexed: 0,
            fresh: Generation::default(),
            young: Generation::default(),
            old: Generation::default(),
            keys_max,
        }
    }

    /// Begins a batch: the one before it is committed. Drops the old generation if the young one is
    /// full; never inside a batch, so that what a batch has read stays until it is decided.
    pub(crate) fn rotate(&mut self) {
        self.forget_batch();
        if self.young.len() >= self.keys_max {
            self.old = std::mem::take(&mut self.young);
        }
    }

    /// `None` if nothing is known about the key.
    pub(crate) fn get(&mut self, key: u128) -> Option<Option<Head>> {
        for (key, head) in &self.put[self.indexed..] {
            self.fresh.insert(*key, *head);
        }
        self.indexed = self.put.len();
        if let Some(head) = self.fresh.get(&key) {
            return Some(*head);
        }
        if let Some(head) = self.young.get(&key) {
            return Some(*head);
        }
        let head = self.old.remove(&key)?;
        self.young.insert(key, head);
        Some(head)
    }

    /// Whether [`HeadCache::get`] would find something. Meant for the beginning of a batch, when it has
    /// put nothing yet.
    pub(crate) fn contains(&self, key: u128) -> bool {
        let generations = [&self.fresh, &self.young, &self.old];
        let is_known = |heads: &&Generation| heads.contains_key(&key);
        generations.iter().any(is_known)
            || self.put[self.indexed..].iter().any(|(put, _)| *put == key)
    }

    /// Remembers the head of a key.
    pub(crate) fn insert(&mut self, key: u128, head: Option<Head>) {
        if !self.put.is_empty() {
            // What the batch has put before is older than this, and would be found first.
            self.put.push((key, head));
        }
        self.young.insert(key, head);
    }

    /// Takes note of a change that is newer than everything: a head that is remembered is replaced,
    /// but none is remembered for its sake.
    pub(crate) fn renew(&mut self, key: u128, head: Head) {
        self.put.push((key, Some(head)));
        for generation in [&mut self.young, &mut self.old] {
            if let Some(held) = generation.get_mut(&key) {
                *held = Some(head);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.forget_batch();
        self.young.clear();
        self.old.clear();
    }

    fn forget_batch(&mut self) {
        self.put.clear();
        self.indexed = 0;
        self.fresh.clear();
    }
}
