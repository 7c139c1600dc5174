//! Spreads large samples of one key over several shards, so that one video stream does not fill one
//! disk.
//!
//! Every key has a list of `spread` shards, its own by rendezvous over their names. Small samples
//! live on the first of them, large ones anywhere in the list, by a hash of what does not change
//! from router to router: the size class, or the first bytes. A delete goes to the whole list,
//! because any of them may hold the key; and a query finds the newest of them all.

use serde::Deserialize;
use weir_policy_sdk::{hash, prelude::*};

/// As set, with the shards' names as hashes.
pub struct HotKeySpread {
    settings: Settings,
    shards: Vec<u64>,
}

/// What an operator writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The keys to spread; the router's own rule places all others.
    #[serde(default = "every_key")]
    keys: Vec<Pattern>,
    /// From how many bytes a sample counts as large.
    #[serde(default = "large")]
    from_bytes: u32,
    /// Over how many shards, 2 to 16.
    #[serde(default = "pair")]
    spread: usize,
    /// What decides among them.
    #[serde(default)]
    by: By,
}

#[derive(Clone, Copy, PartialEq, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
enum By {
    /// The size class: samples of about one size of one key live together.
    #[default]
    Size,
    /// The first 256 bytes: also spreads samples that are all of one size.
    Payload,
}

fn every_key() -> Vec<Pattern> {
    Pattern::parse("**").into_iter().collect()
}

fn large() -> u32 {
    64 * 1024
}

fn pair() -> usize {
    2
}

/// How much of a payload tells one sample from another.
const PREFIX_BYTES: u32 = 256;

impl Policy for HotKeySpread {
    type Settings = Settings;

    fn new(environment: &Environment, settings: Settings) -> Result<Self, InitError> {
        if !(2..=16).contains(&settings.spread) {
            return Err(format!("`spread` is {}: use 2 to 16", settings.spread).into());
        }
        if environment.shards.len() < settings.spread {
            let there = environment.shards.len();
            return Err(format!("`spread` is {}, of {there} shards", settings.spread).into());
        }
        let shards = environment
            .shards
            .iter()
            .map(|name| hash::bytes(name.as_bytes()))
            .collect();
        Ok(Self { settings, shards })
    }

    fn manifest(&self) -> Manifest {
        let manifest = manifest!()
            .needs(Fields::KEY)
            .route_varies_with(Fields::SIZE | Fields::KIND);
        match self.settings.by {
            By::Size => manifest,
            By::Payload => manifest
                .payload_prefix(PREFIX_BYTES)
                .route_varies_with(Fields::PAYLOAD),
        }
    }
}

impl Route for HotKeySpread {
    fn route(&mut self, sample: Sample<'_>) -> Destination {
        if !self
            .settings
            .keys
            .iter()
            .any(|keys| keys.matches(sample.key()))
        {
            return Destination::Default;
        }
        let key = sample.key_hash();
        if sample.is_delete() {
            return Destination::Shards(self.list(key));
        }
        if sample.payload_size() < self.settings.from_bytes {
            return Destination::Shard(self.own(key));
        }
        let class = match self.settings.by {
            By::Size => u64::from(size_class(sample.payload_size())),
            By::Payload => hash::bytes(sample.payload()),
        };
        let list = self.list(key);
        let place = hash::mix(key ^ hash::mix(class)) % list.len() as u64;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "below the length of the list, 16"
        )]
        Destination::Shard(list[place as usize])
    }
}

/// Eight classes to each doubling: 12.5 % wide at the most.
fn size_class(size: u32) -> u32 {
    let log = size.max(8).ilog2();
    log * 8 + ((size >> (log - 3)) & 7)
}

impl HotKeySpread {
    /// The shards with their ranks for a key.
    fn ranked(&self, key_hash: u64) -> impl Iterator<Item = (u32, u64)> {
        let rank = move |name: &u64| hash::rank(key_hash, *name);
        (0..).zip(self.shards.iter().map(rank))
    }

    /// The first of a key's shards.
    fn own(&self, key_hash: u64) -> u32 {
        let better = |a: (u32, u64), b: (u32, u64)| if b.1 > a.1 { b } else { a };
        let best = self.ranked(key_hash).reduce(better);
        best.map_or(0, |best| best.0)
    }

    /// The shards of a key, its own first.
    fn list(&self, key_hash: u64) -> Vec<u32> {
        let mut ranked: Vec<(u32, u64)> = self.ranked(key_hash).collect();
        ranked.sort_by_key(|(_, rank)| std::cmp::Reverse(*rank));
        let list = ranked.iter().take(self.settings.spread);
        list.map(|shard| shard.0).collect()
    }
}

weir_policy_sdk::export!(HotKeySpread: route);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases() {
        weir_policy_sdk::testing::route::<HotKeySpread>(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/cases"
        ));
    }

    #[test]
    fn the_own_shard_is_the_first_of_the_list() {
        let policy = HotKeySpread {
            settings: Settings {
                keys: every_key(),
                from_bytes: large(),
                spread: pair(),
                by: By::Size,
            },
            shards: [1, 2, 3, 4, 5].map(hash::mix).to_vec(),
        };
        for key in (0..1_000).map(hash::mix) {
            assert_eq!(policy.list(key)[0], policy.own(key));
        }
    }

    #[test]
    fn a_class_is_an_eighth_of_a_doubling() {
        assert_eq!(size_class(0), size_class(8));
        assert_ne!(size_class(65_536), size_class(65_535));
        assert_eq!(size_class(65_536), size_class(65_536 + 8191));
        assert_ne!(size_class(65_536), size_class(65_536 + 8192));
        assert_eq!(size_class(u32::MAX), 31 * 8 + 7);
    }
}
