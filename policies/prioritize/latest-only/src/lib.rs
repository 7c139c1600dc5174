//! Of each key keeps only the newest sample in a backlog: for states, of which the last counts, and
//! not for events, of which each does.

use serde::Deserialize;
use weir_policy_sdk::prelude::*;

/// The keys of the settings.
pub struct LatestOnly(Settings);

/// What an operator writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The keys of states; the link's own rule decides all others.
    #[serde(default = "every_key")]
    keys: Vec<Pattern>,
    /// Keys that are events even if `keys` matches them.
    #[serde(default)]
    except: Vec<Pattern>,
    /// Their lane, 0 (first) to 7 (last); Zenoh's priority unless said otherwise.
    lane: Option<u8>,
}

fn every_key() -> Vec<Pattern> {
    Pattern::parse("**").into_iter().collect()
}

impl Policy for LatestOnly {
    type Settings = Settings;

    fn new(_: &Environment, settings: Settings) -> Result<Self, InitError> {
        match settings.lane {
            Some(lane) if lane > 7 => {
                Err(format!("lane {lane}: lanes are 0 (first) to 7 (last)").into())
            }
            _ if settings.keys.is_empty() => {
                Err("`keys` is empty: nothing would be kept short".into())
            }
            _ => Ok(Self(settings)),
        }
    }

    fn manifest(&self) -> Manifest {
        manifest!().needs(Fields::KEY | Fields::PRIORITY)
    }
}

impl Prioritize for LatestOnly {
    fn prioritize(&mut self, _: &Link, sample: Sample<'_>) -> Verdict {
        let found = |patterns: &[Pattern]| patterns.iter().any(|keys| keys.matches(sample.key()));
        if !found(&self.0.keys) || found(&self.0.except) {
            return Verdict::Default;
        }
        let lane = self.0.lane.unwrap_or(sample.priority().min(7));
        Verdict::Place(Placement {
            lane,
            expires: 0,
            newest_only: true,
        })
    }
}

weir_policy_sdk::export!(LatestOnly: prioritize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases() {
        weir_policy_sdk::testing::prioritize::<LatestOnly>(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/cases"
        ));
    }
}
