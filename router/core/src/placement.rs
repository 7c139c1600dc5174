//! On which of a storage's shards a key lives.
//!
//! [`Route`] is the seam: the native rule answers it here, a policy answers it instead where one is
//! bound. Both answer in [`Destination`]s, and [`Ring::place`] turns those into shards.

use crate::{key::Key, value::Value, version::Stamp};

/// A sample, as those see it that decide where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Description<'a> {
    /// The key, relative to the storage's prefix.
    pub key: &'a Key,
    /// A hash of that key that is the same on every router and in every version.
    pub key_hash: u64,
    /// When and by whom it was stamped; only a delete may lack it.
    pub stamp: Option<Stamp>,
    /// What it puts; nothing if it deletes.
    pub value: Option<&'a Value>,
    /// Zenoh's priority: 1 (real time) to 7 (background).
    pub priority: u8,
}

/// An answer to a [`Description`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Destination {
    /// Where the native rule puts it.
    Default,
    /// Where the ring puts this token.
    Token(u64),
    /// This shard.
    Shard(u32),
    /// A copy on each of these shards.
    Shards(Vec<u32>),
    /// Nowhere; the number says why.
    Reject(u32),
}

/// Decides where samples go.
pub trait Route: Send {
    /// Pushes one destination for each description, in order.
    fn route(&mut self, batch: &[Description<'_>], destinations: &mut Vec<Destination>);
}

/// The native rule: a hash of one chunk of the key, or of the whole key if it has no such chunk.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByChunk {
    /// Which chunk, counted from the end if negative; `None` takes the whole key.
    pub chunk: Option<i32>,
}

impl Route for ByChunk {
    fn route(&mut self, batch: &[Description<'_>], destinations: &mut Vec<Destination>) {
        destinations.extend(batch.iter().map(|sample| {
            let chunk = self.chunk.and_then(|index| sample.key.chunk(index));
            Destination::Token(match chunk {
                Some(chunk) => xxhash_rust::xxh3::xxh3_64(chunk.as_bytes()),
                None => sample.key_hash,
            })
        }));
    }
}

/// Weighted rendezvous hashing: each shard scores a token, the highest score has it. Adding a shard
/// moves only the tokens that the new shard wins; shards are known by name, not by place.
#[derive(Clone, Debug)]
pub struct Ring {
    shards: Vec<(u64, f64)>,
}

impl Ring {
    /// A ring of shards with a name and a weight (a multiple of the others' share).
    #[must_use]
    pub fn new<'a>(shards: impl IntoIterator<Item = (&'a str, f64)>) -> Self {
        let hash = |name: &str| xxhash_rust::xxh3::xxh3_64(name.as_bytes());
        Self {
            shards: shards
                .into_iter()
                .map(|(name, weight)| (hash(name), weight))
                .collect(),
        }
    }

    /// How many shards there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// The shard of a token, by index.
    #[must_use]
    pub fn place(&self, token: u64) -> usize {
        let score = |(seed, weight): &(u64, f64)| {
            let hash = xxhash_rust::xxh3::xxh3_64_with_seed(&token.to_be_bytes(), *seed);
            // A uniform number in (0, 1]: 53 bits are what an f64 holds exactly.
            let uniform = ((hash >> 11) + 1) as f64 / (1u64 << 53) as f64;
            weight / -uniform.ln().min(-f64::MIN_POSITIVE)
        };
        let scores = self.shards.iter().map(score);
        let best = scores.enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
        best.map_or(0, |(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_shares_and_a_new_shard_takes_only_its_own() {
        let ring = Ring::new([("a", 1.0), ("b", 2.0), ("c", 1.0)]);
        let wider = Ring::new([("a", 1.0), ("b", 2.0), ("c", 1.0), ("d", 1.0)]);
        let mut counts = [0u32; 3];
        for token in 0..20_000u64 {
            let (before, after) = (ring.place(token), wider.place(token));
            counts[before] += 1;
            assert!(
                after == before || after == 3,
                "token {token} moved from {before} to {after}"
            );
        }
        for (count, share) in counts.into_iter().zip([5_000, 10_000, 5_000]) {
            assert!(count.abs_diff(share) < 400, "{counts:?}");
        }
    }

    #[test]
    fn the_chunk_decides_alone() {
        let keys = [
            "fleet/drone/7/video",
            "fleet/drone/7/lidar",
            "fleet/drone/8/video",
            "x",
        ];
        let keys = keys.map(Key::from);
        let batch: Vec<_> = keys
            .iter()
            .map(|key| Description {
                key,
                key_hash: 9,
                stamp: None,
                value: None,
                priority: 5,
            })
            .collect();
        let mut out = Vec::new();
        ByChunk { chunk: Some(2) }.route(&batch, &mut out);
        assert_eq!(out[0], out[1]);
        assert_ne!(out[0], out[2]);
        assert_eq!(
            out[3],
            Destination::Token(9),
            "a key without the chunk goes by its own hash"
        );
    }
}
