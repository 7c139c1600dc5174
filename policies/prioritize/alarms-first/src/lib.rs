//! Lets alarms leave a backlog first, by the patterns of their keys.

use serde::Deserialize;
use weir_policy_sdk::prelude::*;

/// The lanes, in the order in which they are tried.
pub struct AlarmsFirst {
    lanes: Vec<Lane>,
    others: Option<u8>,
}

/// What an operator writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The keys of alarms: they leave in lane 0.
    #[serde(default)]
    alarms: Vec<Pattern>,
    /// More lanes; the first that matches decides.
    #[serde(default)]
    lanes: Vec<Lane>,
    /// The lane of everything else; the link's own rule decides if there is none.
    others: Option<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lane {
    keys: Vec<Pattern>,
    lane: u8,
    /// How long after it was stamped a sample is no longer worth sending.
    ttl: Option<Span>,
    #[serde(default)]
    newest_only: bool,
}

impl Policy for AlarmsFirst {
    type Settings = Settings;

    fn new(_: &Environment, settings: Settings) -> Result<Self, InitError> {
        let alarms = Lane {
            keys: settings.alarms,
            lane: 0,
            ttl: None,
            newest_only: false,
        };
        let lanes: Vec<_> = [alarms]
            .into_iter()
            .chain(settings.lanes)
            .filter(|lane| !lane.keys.is_empty())
            .collect();
        if lanes.is_empty() {
            return Err("name `alarms`: the patterns of the keys that leave first".into());
        }
        let used = lanes.iter().map(|lane| lane.lane).chain(settings.others);
        if let Some(lane) = used.into_iter().find(|lane| *lane > 7) {
            return Err(format!("lane {lane}: lanes are 0 (first) to 7 (last)").into());
        }
        Ok(Self {
            lanes,
            others: settings.others,
        })
    }

    fn manifest(&self) -> Manifest {
        let needs = Fields::KEY | Fields::TIMESTAMP;
        manifest!()
            .needs(needs)
            .counters(["alarms"])
            .reasons(["expired"])
    }
}

impl Prioritize for AlarmsFirst {
    fn prioritize(&mut self, link: &Link, sample: Sample<'_>) -> Verdict {
        let found = |lane: &&Lane| lane.keys.iter().any(|keys| keys.matches(sample.key()));
        let Some(lane) = self.lanes.iter().find(found) else {
            return self.others.map_or(Verdict::Default, |lane| {
                Verdict::Place(Placement {
                    lane,
                    expires: 0,
                    newest_only: false,
                })
            });
        };
        if lane.lane == 0 {
            count(0, 1);
        }
        let stamp = sample.timestamp().map(|stamp| stamp.ntp64);
        let expires = stamp
            .zip(lane.ttl)
            .map_or(0, |(stamp, ttl)| stamp.saturating_add(ttl.0));
        if expires != 0 && expires <= link.now {
            return Verdict::Drop(0);
        }
        Verdict::Place(Placement {
            lane: lane.lane,
            expires,
            newest_only: lane.newest_only,
        })
    }
}

weir_policy_sdk::export!(AlarmsFirst: prioritize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases() {
        weir_policy_sdk::testing::prioritize::<AlarmsFirst>(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/cases"
        ));
    }
}
