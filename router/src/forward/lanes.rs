//! Which lane a sample takes where no policy says so: the first rule of the settings whose keys it has,
//! else Zenoh's priority.

use std::time::Duration;

use weir_core::{
    backlog::{LANES, LinkState, Placement, Prioritize, Verdict},
    pattern::KeySet,
    placement::Description,
    version::Stamp,
};
use weir_settings::LaneRule;
use zenoh::key_expr::keyexpr;

use crate::convert;

/// The native rule of a link.
#[derive(Clone)]
pub(super) struct ByRules {
    rules: Vec<LaneRule>,
}

impl ByRules {
    pub(super) fn new(rules: &[LaneRule]) -> Self {
        Self {
            rules: rules.to_vec(),
        }
    }

    /// How a sample waits: of a key, or of a key expression, for which a rule must be for all of it.
    pub(super) fn place(&self, expr: &str, stamp: Option<Stamp>, priority: u8) -> Placement {
        let by_priority = Placement {
            lane: priority.min(LANES - 1),
            expires: None,
            newest_only: false,
        };
        if self.rules.is_empty() {
            return by_priority;
        }
        let Ok(expr) = keyexpr::new(expr) else {
            return by_priority;
        };
        let rule = self.rules.iter().find(|rule| covers(&rule.keys, expr));
        rule.map_or(by_priority, |rule| {
            let expires = |span: Duration| {
                let made = stamp.unwrap_or_default().time;
                made.saturating_add(convert::ntp64_span(span))
            };
            Placement {
                lane: rule.lane.unwrap_or(by_priority.lane),
                expires: rule.expires.map(expires),
                newest_only: rule.newest_only && !expr.is_wild(),
            }
        })
    }
}

impl Prioritize for ByRules {
    fn prioritize(
        &mut self,
        _: LinkState<'_>,
        batch: &[Description<'_>],
        verdicts: &mut Vec<Verdict>,
    ) {
        let place =
            |sample: &Description<'_>| self.place(sample.key, sample.stamp, sample.priority);
        verdicts.extend(batch.iter().map(place).map(Verdict::Place));
    }
}

fn covers(keys: &KeySet, expr: &keyexpr) -> bool {
    if expr.is_wild() {
        return keys.declared().iter().any(|own| own.includes(expr));
    }
    keys.matches(expr)
}

#[cfg(test)]
mod tests {
    use weir_core::pattern::KeyPattern;

    use super::*;

    #[test]
    fn the_first_rule_that_matches_decides_else_the_priority() {
        let rule = |text: &str, lane, expires, newest_only| LaneRule {
            keys: KeyPattern::parse(text).unwrap().into(),
            lane,
            expires,
            newest_only,
        };
        let minute = Duration::from_secs(60);
        let rules = ByRules::new(&[
            rule("*/alarm/**", Some(0), None, false),
            rule("42/**", None, Some(minute), true),
        ]);
        let stamp = Some(Stamp {
            time: 5 << 32,
            id: [1; 16],
        });
        let rows = [
            ("42/alarm/x", 5, (0, None, false)),
            ("42/x", 6, (6, Some(65 << 32), true)),
            ("42/**", 6, (6, Some(65 << 32), false)),
            ("**", 7, (7, None, false)),
            ("43/x", 9, (7, None, false)),
        ];
        for (expr, priority, (lane, expires, newest_only)) in rows {
            let placement = Placement {
                lane,
                expires,
                newest_only,
            };
            assert_eq!(rules.place(expr, stamp, priority), placement, "{expr}");
        }
    }
}
