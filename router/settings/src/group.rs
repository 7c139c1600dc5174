//! Shard groups: do their members overlap, do they leave something out?

use crate::diagnostic::Diagnostic;
use crate::path::KeyPath;
use crate::source::Spot;
use crate::storage::{StorageSettings, read_texts};
use crate::table::{Report, Table, did_you_mean};
use serde_json::Value;
use std::collections::BTreeMap;
use weir_core::pattern::{GroupProblem, KeyPattern, KeySet, check_group};

/// Shard groups by name, each with the patterns of all its members, on whatever router they are.
pub type ShardGroups = BTreeMap<String, Vec<KeyPattern>>;

pub(crate) fn read_groups(report: &mut Report<'_>, value: Option<&Value>) -> ShardGroups {
    let path = KeyPath::parse("shard_groups");
    let table = value.and_then(|value| Table::open_any(report, path, value));
    table
        .iter()
        .flat_map(Table::iter)
        .filter_map(|(name, value)| {
            let path = KeyPath::from_iter(["shard_groups", name]);
            Some((
                name.to_owned(),
                read_texts(report, &path, value, KeyPattern::parse)?,
            ))
        })
        .collect()
}

/// One member of a group, and where its keys are written.
struct Member {
    name: String,
    path: KeyPath,
    keys: KeySet,
}

pub(crate) fn check_groups(
    report: &mut Report<'_>,
    groups: &ShardGroups,
    storages: &BTreeMap<String, StorageSettings>,
) {
    let mut used: BTreeMap<&str, Vec<&StorageSettings>> = BTreeMap::new();
    for storage in storages.values() {
        if let Some(group) = &storage.group {
            used.entry(group).or_default().push(storage);
        }
    }
    for (group, patterns) in groups {
        let members: Vec<Member> = patterns
            .iter()
            .enumerate()
            .map(|(index, pattern)| Member {
                name: pattern.to_string(),
                path: ["shard_groups", group, &index.to_string()]
                    .into_iter()
                    .collect(),
                keys: pattern.clone().into(),
            })
            .collect();
        check_members(report, group, &members, "the other shards of the group");
    }
    for (group, storages) in used {
        let members: Vec<Member> = storages
            .iter()
            .map(|storage| Member {
                name: storage.name.clone(),
                path: ["storages", &storage.name, "key_expr"]
                    .into_iter()
                    .collect(),
                keys: storage.keys.clone(),
            })
            .collect();
        match groups.get(group) {
            Some(listed) => check_listed(report, group, &storages, listed),
            None => {
                if !groups.is_empty()
                    && let Some(help) = did_you_mean(group, groups.keys().map(String::as_str))
                {
                    let path = KeyPath::from_iter(["storages", &storages[0].name, "group"]);
                    let message = format!("`shard_groups` has no group `{group}`");
                    let diagnostic = Diagnostic::warning("weir::unknown-group", message).help(help);
                    report.tell(&path, Spot::Value, diagnostic);
                }
                let more =
                    format!("the shards of other routers in `shard_groups: {{{group}: [...]}}`");
                check_members(report, group, &members, &more);
            }
        }
    }
}

/// Where the whole group is listed, a storage of it holds what is listed, and nothing else.
fn check_listed(
    report: &mut Report<'_>,
    group: &str,
    storages: &[&StorageSettings],
    listed: &[KeyPattern],
) {
    for storage in storages {
        for pattern in storage
            .keys
            .patterns
            .iter()
            .filter(|pattern| !listed.contains(pattern))
        {
            let path = KeyPath::from_iter(["storages", &storage.name, "key_expr"]);
            let message = format!("`{pattern}` is not in `shard_groups/{group}`");
            let help = "the group is checked as it is listed there: add the pattern, or correct it";
            let diagnostic = Diagnostic::error("weir::shard-not-listed", message).help(help);
            report.tell(&path, Spot::Value, diagnostic);
        }
    }
}

fn check_members(report: &mut Report<'_>, group: &str, members: &[Member], others: &str) {
    let pairs: Vec<(&str, &KeySet)> = members.iter().map(|m| (m.name.as_str(), &m.keys)).collect();
    for problem in check_group(&pairs) {
        match problem {
            GroupProblem::Overlap { a, b, example } => {
                let message = format!("`{a}` and `{b}` of group `{group}` both hold `{example}`");
                let help = "the shards of a group share no key";
                let path = members.iter().find(|m| m.name == b).map(|m| m.path.clone());
                let diagnostic = Diagnostic::error("weir::shard-overlap", message).help(help);
                report.tell(&path.unwrap_or_default(), Spot::Value, diagnostic);
            }
            GroupProblem::Gap { missing, example } => {
                let message = format!(
                    "no shard of group `{group}` holds `{missing}`, for example `{example}`"
                );
                let help = format!("add a shard for it, or name {others}");
                let path = members.first().map(|m| m.path.clone()).unwrap_or_default();
                let diagnostic = Diagnostic::warning("weir::shard-gap", message).help(help);
                report.tell(&path, Spot::Value, diagnostic);
            }
        }
    }
}
