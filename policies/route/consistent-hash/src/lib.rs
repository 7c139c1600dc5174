//! Spreads keys over shards by one chunk, with a weight for each shard.

use std::collections::BTreeMap;

use serde::Deserialize;
use weir_policy_sdk::{hash, prelude::*};

/// The shards by index: a hash of the name, and the weight.
pub struct ConsistentHash {
    chunk: i32,
    shards: Vec<(u64, f64)>,
}

/// What an operator writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Which chunk of the key decides: from 0, or from the end if negative. Keys that agree in it
    /// live together; a key that has no such chunk goes by its whole self.
    chunk: i32,
    /// Shares, as multiples of each other. A shard that is not named has 1; one with 0 gets nothing.
    #[serde(default)]
    weights: BTreeMap<String, f64>,
}

impl Policy for ConsistentHash {
    type Settings = Settings;

    fn new(environment: &Environment, settings: Settings) -> Result<Self, InitError> {
        for (name, weight) in &settings.weights {
            environment.shard(name)?;
            if !(0.0..=1e6).contains(weight) {
                return Err(format!("the weight of `{name}` is {weight}: use 0 to 1000000").into());
            }
        }
        let weight = |name| settings.weights.get(name).copied().unwrap_or(1.0);
        let shards = environment.shards.iter();
        let shards: Vec<_> = shards
            .map(|name| (hash::bytes(name.as_bytes()), weight(name)))
            .collect();
        if shards.iter().all(|(_, weight)| *weight == 0.0) {
            return Err("every shard has weight 0: nothing could be placed".into());
        }
        Ok(Self {
            chunk: settings.chunk,
            shards,
        })
    }

    fn manifest(&self) -> Manifest {
        manifest!().needs(Fields::KEY)
    }
}

impl Route for ConsistentHash {
    fn route(&mut self, sample: Sample<'_>) -> Destination {
        let token = match sample.chunk(self.chunk) {
            Some(chunk) => hash::bytes(chunk.as_bytes()),
            None => sample.key_hash(),
        };
        let mut best = (0, f64::NEG_INFINITY);
        for (index, (name, weight)) in (0..).zip(&self.shards) {
            let score = hash::score(token, *name, *weight);
            if score > best.1 {
                best = (index, score);
            }
        }
        Destination::Shard(best.0)
    }
}

weir_policy_sdk::export!(ConsistentHash: route);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases() {
        weir_policy_sdk::testing::route::<ConsistentHash>(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/cases"
        ));
    }
}
