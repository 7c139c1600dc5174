//! Puts the keys that match a pattern on one shard.

use serde::Deserialize;
use weir_policy_sdk::prelude::*;

struct MyPolicy {
    keys: Pattern,
    shard: u32,
}

/// What an operator writes under the policy's `settings`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    keys: Pattern,
    shard: String,
}

impl Policy for MyPolicy {
    type Settings = Settings;

    fn new(environment: &Environment, settings: Settings) -> Result<Self, InitError> {
        Ok(Self {
            keys: settings.keys,
            shard: environment.shard(&settings.shard)?,
        })
    }

    fn manifest(&self) -> Manifest {
        // Whatever is not asked for arrives as zero or empty, and costs nothing.
        manifest!().needs(Fields::KEY)
    }
}

impl Route for MyPolicy {
    fn route(&mut self, sample: Sample<'_>) -> Destination {
        if self.keys.matches(sample.key()) {
            Destination::Shard(self.shard)
        } else {
            Destination::Default
        }
    }
}

// The other hooks: implement `Resolve` or `Prioritize`, and name them here.
weir_policy_sdk::export!(MyPolicy: route);

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        weir_policy_sdk::testing::route::<super::MyPolicy>(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/cases"
        ));
    }
}
