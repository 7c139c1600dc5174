//! Which keys a storage holds, or a link forwards.

use crate::diagnostic::Diagnostic;
use crate::path::KeyPath;
use crate::source::Spot;
use crate::table::{Report, Table};
use serde_json::Value;
use weir_core::pattern::{KeyPattern, KeySet, PatternError, parse_key_expr};
use zenoh_keyexpr::OwnedKeyExpr;

/// The keys of a `place`, which is "storage `demo`" or the like.
pub(crate) fn read_keys(report: &mut Report<'_>, table: &Table<'_>, place: &str) -> Option<KeySet> {
    let exclude = read_list(report, table, "exclude", parse_key_expr);
    let field = match (table.get("key_expr"), table.get("key_exprs")) {
        (Some(_), Some(_)) => {
            let message = "`key_expr` and `key_exprs` are two names for one setting";
            report.conflict(&table.at("key_exprs"), message, "keep one of them");
            return None;
        }
        (None, Some(_)) => "key_exprs",
        (Some(_), None) => "key_expr",
        (None, None) => {
            let message = format!("{place} has no `key_expr`");
            report.missing(&table.path, message, "add `key_expr: \"some/keys/**\"`");
            return None;
        }
    };
    let patterns = read_list(report, table, field, KeyPattern::parse)?;
    if patterns.is_empty() {
        report.invalid(&table.at(field), "no key expressions", "name at least one");
        return None;
    }
    Some(KeySet {
        patterns,
        exclude: exclude.unwrap_or_default(),
    })
}

/// One string or a list of them. `None` if any of it is wrong.
fn read_list<T>(
    report: &mut Report<'_>,
    table: &Table<'_>,
    field: &str,
    parse: fn(&str) -> Result<T, PatternError>,
) -> Option<Vec<T>> {
    read_texts(report, &table.at(field), table.get(field)?, parse)
}

pub(crate) fn read_texts<T>(
    report: &mut Report<'_>,
    path: &KeyPath,
    value: &Value,
    parse: fn(&str) -> Result<T, PatternError>,
) -> Option<Vec<T>> {
    let texts: Vec<(KeyPath, &Value)> = match value {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(i, item)| (path.join(i.to_string()), item))
            .collect(),
        one => vec![(path.clone(), one)],
    };
    let mut good = Some(Vec::new());
    for (path, text) in texts {
        let parsed = match text {
            Value::String(text) => match parse(text) {
                Ok(parsed) => Some(parsed),
                Err(error) => {
                    report.bad_pattern(&path, text, &error);
                    None
                }
            },
            other => {
                report.wrong_type(&path, "a key expression", other);
                None
            }
        };
        good = good.zip(parsed).map(|(mut good, parsed)| {
            good.push(parsed);
            good
        });
    }
    good
}

pub(super) fn read_strip_prefix(
    report: &mut Report<'_>,
    table: &Table<'_>,
    keys: Option<&KeySet>,
) -> Option<OwnedKeyExpr> {
    let text = table
        .string(report, "strip_prefix")
        .filter(|text| !text.is_empty())?;
    let path = table.at("strip_prefix");
    let prefix = match parse_key_expr(text) {
        Ok(prefix) => prefix,
        Err(error) => {
            report.bad_pattern(&path, text, &error);
            return None;
        }
    };
    if let Some(at) = text.find(['*', '$']) {
        let message = "a prefix cannot hold wildcards";
        let diagnostic = Diagnostic::error("weir::invalid-key-expression", message)
            .help("cut it before the first wildcard");
        report.tell(&path, Spot::Within(at..at + 1), diagnostic);
        return None;
    }
    let below = |declared: &OwnedKeyExpr| {
        let rest = declared.as_str().strip_prefix(prefix.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if let Some(outside) = keys?.declared().iter().find(|declared| !below(declared)) {
        let message = format!("`{prefix}` is not a prefix of all keys: they include `{outside}`");
        let help = "a prefix is made of whole chunks that every key starts with";
        report.invalid(&path, message, help);
        return None;
    }
    Some(prefix)
}
