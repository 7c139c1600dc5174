//! What a storage knows it has, summarised by range, so that two replicas compare without showing
//! each other everything (S9).
//!
//! A summary is a count and the sum of the hashes of what lies in the range. Sums are additive: those
//! of neighbouring ranges, and of the shards of a storage, add up, in any order.
//!
//! Two axes, because two histories differ in what they lose:
//!
//! - by key, for the latest record of every key: [`runs`]. What is overwritten is no longer there, so
//!   a write only says that its run has to be counted again, and nothing is read for it;
//! - by time, for a time series: [`calendar`]. Its versions only come, so a new one is added.

mod batches;
pub mod calendar;
mod fences;
pub mod runs;

pub use batches::Covered;

use std::{iter::Sum, ops::AddAssign};

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::{key::Key, record::Merged, version::Version};

/// Sets these hashes apart from others of the same bytes, a key's for one.
const SEED: u64 = 0x7765_6972_2d6c_6564;

/// A version of a key that two replicas compare: the latest, or one of a time series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// The key in full, with the storage's prefix.
    pub key: Key,
    /// What the key holds: the effective version of a latest record, the own version of one of a
    /// series. Tombstones are items like any other.
    pub version: Version,
    /// [`merged_hash`] of what the record has merged.
    pub merged: u64,
}

/// What lies in a range: how much, and which.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Items.
    pub count: u64,
    /// The sum of their hashes, modulo 2^128.
    pub sum: u128,
}

/// By what a range is ordered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Axis {
    /// By key in full, in ordered form ([`Key::ordered`]): the latest records.
    Keys,
    /// By time (NTP64, 8 bytes, big-endian): the versions of a series.
    Times,
}

/// A range of items: from `from` (inclusive) to `to` (exclusive; `None` is the end).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Span {
    /// By what it is ordered.
    pub axis: Axis,
    /// The first position inside. Empty is the beginning.
    pub from: Vec<u8>,
    /// The first position behind.
    pub to: Option<Vec<u8>>,
}

/// What stands for a record's vector in an [`Item`]; 0 for a record that has merged its own change
/// alone. The revision is left out: who made a value does not make it another.
#[must_use]
pub fn merged_hash(merged: Option<&Merged>) -> u64 {
    let Some(merged) = merged else { return 0 };
    let mut bytes = Vec::new();
    merged.vector.encode_into(&mut bytes);
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

impl Item {
    /// 128 bits that stand for the item in sums. Costs one hash of the key's length and some 40 bytes.
    #[must_use]
    pub fn hash(&self) -> u128 {
        let mut bytes = Vec::with_capacity(self.key.len() + Version::LEN + 8);
        self.hash_with(&mut bytes)
    }

    /// [`Item::hash`], building the bytes in a buffer of the caller's.
    #[must_use]
    pub fn hash_with(&self, bytes: &mut Vec<u8>) -> u128 {
        hash_of(&self.key, self.version, self.merged, bytes)
    }

    /// 64 bits that stand for the item in lists: half of its hash.
    #[must_use]
    pub fn id(&self) -> u64 {
        id_of(self.hash())
    }

    /// The item's position on an axis.
    #[must_use]
    pub fn position(&self, axis: Axis) -> Vec<u8> {
        match axis {
            Axis::Keys => self.key.ordered(),
            Axis::Times => self.version.stamp.time.to_be_bytes().to_vec(),
        }
    }
}

/// [`Item::hash`] of what would make the item, building the bytes in a buffer of the caller's.
fn hash_of(key: &str, version: Version, merged: u64, bytes: &mut Vec<u8>) -> u128 {
    bytes.clear();
    bytes.extend(version.to_bytes());
    bytes.extend(merged.to_be_bytes());
    bytes.extend(key.as_bytes());
    xxh3_128_with_seed(bytes, SEED)
}

/// The id of an item with this hash ([`Item::id`]).
#[must_use]
pub const fn id_of(hash: u128) -> u64 {
    (hash >> 64) as u64
}

impl Summary {
    /// Nothing.
    pub const EMPTY: Self = Self { count: 0, sum: 0 };

    /// Adds an item by its hash.
    pub const fn add(&mut self, hash: u128) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(hash);
    }

    /// Whether there is nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

impl Sum for Summary {
    fn sum<I: Iterator<Item = Self>>(summaries: I) -> Self {
        summaries.fold(Self::EMPTY, |mut total, summary| {
            total += summary;
            total
        })
    }
}

impl Span {
    /// Everything on an axis.
    #[must_use]
    pub const fn all(axis: Axis) -> Self {
        Self {
            axis,
            from: Vec::new(),
            to: None,
        }
    }

    /// Whether a position lies inside.
    #[must_use]
    pub fn contains(&self, position: &[u8]) -> bool {
        self.from.as_slice() <= position && self.to.as_deref().is_none_or(|to| position < to)
    }

    /// Whether a position cuts the span in two.
    #[must_use]
    pub fn is_cut_by(&self, position: &[u8]) -> bool {
        self.contains(position) && position != self.from
    }

    /// Whether nothing can lie inside.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.to.as_ref().is_some_and(|to| *to <= self.from)
    }
}
