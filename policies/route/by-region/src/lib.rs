//! Puts keys on the shard of their region, by a table in the settings.

use serde::Deserialize;
use std::collections::BTreeMap;
use weir_policy_sdk::prelude::*;

/// The table, with shards by index.
pub struct ByRegion {
    chunk: Option<(i32, BTreeMap<String, Destination>)>,
    rules: Vec<(Pattern, Destination)>,
    otherwise: Destination,
}

/// What an operator writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Which chunk of the key is looked up in `regions`: from 0, or from the end if negative.
    chunk: Option<i32>,
    /// The shards of the regions, by that chunk.
    #[serde(default)]
    regions: BTreeMap<String, Shards>,
    /// For what `regions` does not hold: the first pattern that matches decides.
    #[serde(default)]
    rules: Vec<Rule>,
    /// For everything else: `default`, `reject`, or a shard.
    #[serde(default)]
    otherwise: Otherwise,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    keys: Pattern,
    shard: Shards,
}

/// One shard, or several that each get a copy.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a shard's name, or a list of names")]
enum Shards {
    One(String),
    Several(Vec<String>),
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Otherwise {
    #[default]
    Default,
    Reject,
    Shard(Shards),
}

impl Shards {
    fn find(&self, environment: &Environment) -> Result<Destination, InitError> {
        match self {
            Self::One(name) => Ok(Destination::Shard(environment.shard(name)?)),
            Self::Several(names) => {
                if !(1..=16).contains(&names.len()) {
                    return Err("a list of shards holds 1 to 16 names".into());
                }
                let shards = names.iter().map(|name| environment.shard(name));
                Ok(Destination::Shards(shards.collect::<Result<_, _>>()?))
            }
        }
    }
}

impl Policy for ByRegion {
    type Settings = Settings;

    fn new(environment: &Environment, settings: Settings) -> Result<Self, InitError> {
        let find = |shards: &Shards| shards.find(environment);
        let regions = settings
            .regions
            .iter()
            .map(|(name, shards)| Ok((name.clone(), find(shards)?)));
        let regions = regions.collect::<Result<BTreeMap<_, _>, InitError>>()?;
        let rules = settings
            .rules
            .into_iter()
            .map(|rule| Ok((rule.keys, find(&rule.shard)?)));
        let rules = rules.collect::<Result<Vec<_>, InitError>>()?;
        if regions.is_empty() && rules.is_empty() {
            return Err(
                "name `regions` (with `chunk`) or `rules`: an empty table places nothing".into(),
            );
        }
        let chunk = match (settings.chunk, regions.is_empty()) {
            (Some(_), true) => return Err("`chunk` without `regions` looks up nothing".into()),
            (None, false) => {
                return Err("`regions` needs `chunk`: which chunk names the region?".into());
            }
            (chunk, _) => chunk.map(|chunk| (chunk, regions)),
        };
        let otherwise = match &settings.otherwise {
            Otherwise::Default => Destination::Default,
            Otherwise::Reject => Destination::Reject(0),
            Otherwise::Shard(shards) => find(shards)?,
        };
        Ok(Self {
            chunk,
            rules,
            otherwise,
        })
    }

    fn manifest(&self) -> Manifest {
        manifest!().needs(Fields::KEY).reasons(["no region"])
    }
}

impl Route for ByRegion {
    fn route(&mut self, sample: Sample<'_>) -> Destination {
        let region = self
            .chunk
            .as_ref()
            .and_then(|(chunk, regions)| regions.get(sample.chunk(*chunk)?));
        let rule = || {
            self.rules
                .iter()
                .find(|(keys, _)| keys.matches(sample.key()))
                .map(|rule| &rule.1)
        };
        region.or_else(rule).unwrap_or(&self.otherwise).clone()
    }
}

weir_policy_sdk::export!(ByRegion: route);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases() {
        weir_policy_sdk::testing::route::<ByRegion>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }
}
