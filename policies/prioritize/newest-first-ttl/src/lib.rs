//! Lets the newest samples leave a backlog first, and drops those that are too old to matter.
//!
//! After a long tunnel the present is worth more than the beginning of the tunnel. A sample's lane is
//! fixed when it begins to wait, so newer ones get there by finding earlier lanes: the longer the
//! backlog, the earlier the lane of what joins it. Samples that arrive late wait in the lane that
//! their age puts them in.

use serde::Deserialize;
use weir_policy_sdk::prelude::*;

/// The rules of the settings.
pub struct NewestFirst(Settings);

/// What an operator writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How long after it was stamped a sample is no longer worth sending.
    ttl: Span,
    /// Other lives for some keys; the first that matches decides.
    #[serde(default)]
    rules: Vec<Rule>,
    /// How many samples wait in the last lane before the next ones get an earlier one; each earlier
    /// lane takes twice as many.
    #[serde(default = "band")]
    band: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    keys: Pattern,
    ttl: Span,
}

fn band() -> u64 {
    1000
}

const LAST_LANE: u8 = 7;
const EXPIRED: u32 = 0;

impl Policy for NewestFirst {
    type Settings = Settings;

    fn new(_: &Environment, settings: Settings) -> Result<Self, InitError> {
        let mut spans = settings
            .rules
            .iter()
            .map(|rule| rule.ttl)
            .chain([settings.ttl]);
        if spans.any(|ttl| ttl == Span(0)) {
            return Err("a `ttl` of 0 drops everything".into());
        }
        if settings.band == 0 {
            return Err("`band` is 0: use the number of samples of the last lane".into());
        }
        Ok(Self(settings))
    }

    fn manifest(&self) -> Manifest {
        let keys = if self.0.rules.is_empty() {
            Fields::empty()
        } else {
            Fields::KEY
        };
        manifest!()
            .needs(Fields::TIMESTAMP | keys)
            .counters(["expired"])
            .reasons(["expired"])
    }
}

impl Prioritize for NewestFirst {
    fn prioritize(&mut self, link: &Link, sample: Sample<'_>) -> Verdict {
        // A delete that nobody stamped is as new as can be.
        let stamp = sample.timestamp().map_or(link.now, |stamp| stamp.ntp64);
        let rule = self
            .0
            .rules
            .iter()
            .find(|rule| rule.keys.matches(sample.key()));
        let ttl = rule.map_or(self.0.ttl, |rule| rule.ttl);
        let expires = stamp.saturating_add(ttl.0);
        if expires <= link.now {
            count(0, 1);
            return Verdict::Drop(EXPIRED);
        }
        let age = link.now.saturating_sub(stamp);
        let lane = by_queue(link.queued, self.0.band).max(by_age(age, ttl));
        Verdict::Place(Placement {
            lane,
            expires,
            newest_only: false,
        })
    }
}

/// The first `band` samples wait in lane 7, twice as many after them in lane 6, and so on.
fn by_queue(queued: u64, band: u64) -> u8 {
    let doublings = (1 + queued / band).ilog2().min(u32::from(LAST_LANE));
    LAST_LANE - u8::try_from(doublings).unwrap_or(LAST_LANE)
}

/// Eighths of its life.
fn by_age(age: u64, ttl: Span) -> u8 {
    let eighths = u128::from(age) * 8 / u128::from(ttl.0);
    u8::try_from(eighths).unwrap_or(LAST_LANE).min(LAST_LANE)
}

weir_policy_sdk::export!(NewestFirst: prioritize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases() {
        weir_policy_sdk::testing::prioritize::<NewestFirst>(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/cases"
        ));
    }

    #[test]
    fn each_lane_takes_twice_as_many() {
        for (queued, lane) in [
            (0, 7),
            (99, 7),
            (100, 6),
            (299, 6),
            (300, 5),
            (700, 4),
            (12_700, 0),
            (u64::MAX - 1, 0),
        ] {
            assert_eq!(by_queue(queued, 100), lane, "{queued}");
        }
    }
}
