//! Which lane a sample takes, by its key.

use super::LANE_FIELDS;
use crate::diagnostic::Diagnostic;
use crate::path::KeyPath;
use crate::source::Spot;
use crate::storage::read_texts;
use crate::table::{Report, Table};
use serde_json::Value;
use std::time::Duration;
use weir_core::backlog::LANES;
use weir_core::pattern::{KeyPattern, KeySet};

/// How samples of some keys wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneRule {
    /// Of which keys. Nothing is excluded.
    pub keys: KeySet,
    /// Their lane, below [`LANES`]; by Zenoh's priority if absent.
    pub lane: Option<u8>,
    /// How old, by their stamp, they are no longer worth sending.
    pub expires: Option<Duration>,
    /// Whether only the newest of each key is kept.
    pub newest_only: bool,
}

/// The rules in order, each with its number: what a rule says wrong is told, and the others are read.
pub(super) fn read_lanes(
    report: &mut Report<'_>,
    table: &Table<'_>,
    link: &str,
    keys: Option<&KeySet>,
) -> Vec<LaneRule> {
    let path = table.at("lanes");
    let items = match table.get("lanes") {
        None => return Vec::new(),
        Some(Value::Array(items)) => items,
        Some(other) => {
            report.wrong_type(&path, "a list of lanes", other);
            return Vec::new();
        }
    };
    let mut rules: Vec<(KeyPath, LaneRule)> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let path = path.join(index.to_string());
        let place = format!("lane rule {index} of link `{link}`");
        let Some(rule) = read_lane(report, path.clone(), item, &place) else {
            continue;
        };
        if let Some((why, help)) = never_matches(&rule, rules.iter(), keys) {
            let diagnostic = Diagnostic::warning("weir::ignored", format!("{place} {why}"));
            report.tell(&path.join("key_expr"), Spot::Value, diagnostic.help(help));
        }
        rules.push((path, rule));
    }
    rules.into_iter().map(|(_, rule)| rule).collect()
}

fn read_lane(
    report: &mut Report<'_>,
    path: KeyPath,
    value: &Value,
    place: &str,
) -> Option<LaneRule> {
    let table = Table::open(report, path, value, place, &[LANE_FIELDS])?;
    let lane = table.integer(report, "lane", (0, i64::from(LANES) - 1));
    let expires = table.duration(report, "expires");
    if expires == Some(Duration::ZERO) {
        let help = "write how old a sample may become, or leave it out";
        report.invalid(&table.at("expires"), "nothing could ever be sent", help);
    }
    let newest_only = table.bool(report, "newest_only");
    let Some(keys) = table.get("key_expr") else {
        let help = "add `key_expr: \"some/keys/**\"`, or \"**\" for all";
        report.missing(&table.path, format!("{place} has no `key_expr`"), help);
        return None;
    };
    let patterns = read_texts(report, &table.at("key_expr"), keys, KeyPattern::parse)?;
    Some(LaneRule {
        keys: KeySet {
            patterns,
            exclude: Vec::new(),
        },
        lane: lane.and_then(|lane| u8::try_from(lane).ok()),
        expires,
        newest_only: newest_only.unwrap_or_default(),
    })
}

/// Why a rule can never be the first that matches, and what to do; as far as that is plain.
fn never_matches<'r>(
    rule: &LaneRule,
    mut before: impl Iterator<Item = &'r (KeyPath, LaneRule)>,
    keys: Option<&KeySet>,
) -> Option<(String, &'static str)> {
    let declared = rule.keys.declared();
    if keys.is_some_and(|keys| !declared.iter().any(|key_expr| keys.intersects(key_expr))) {
        let why = "matches none of the keys that the link forwards";
        return Some((why.to_owned(), "correct it, or remove it"));
    }
    // One pattern of one earlier rule has to include each of these; several together may as well, but
    // who writes that means it.
    let (path, _) = before.find(|(_, earlier)| {
        let patterns = || earlier.keys.patterns.iter().filter(|p| p.is_exact());
        declared.iter().all(|key_expr| {
            patterns().any(|pattern| pattern.declared().iter().any(|all| all.includes(key_expr)))
        })
    })?;
    let why = format!(
        "never matches: rule {} takes all of its keys",
        path.last().unwrap_or_default()
    );
    Some((
        why,
        "the first rule that matches counts: put this one before it",
    ))
}
