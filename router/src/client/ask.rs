//! Questions to routers on `@weir/...`, answered in JSON.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use zenoh::query::QueryTarget;

use super::Streams;
use super::ack::print_reply_error;
use crate::session::{Bus, GetOptions};

/// What all routers answered.
#[derive(Debug, Default)]
pub struct Answers {
    /// Key and value, in the order of keys.
    pub values: Vec<(String, Value)>,
    /// Error replies, which have been printed.
    pub errors: Vec<String>,
}

/// Asks every router, and prints what they refuse.
pub async fn ask(
    bus: &Bus,
    selector: &str,
    timeout: Duration,
    streams: &mut Streams<'_>,
) -> Result<Answers> {
    let options = GetOptions {
        timeout,
        target: QueryTarget::All,
        ..GetOptions::default()
    };
    let mut replies = bus.get(selector, options).await?;
    let mut answers = Answers::default();
    while let Some(reply) = replies.next().await {
        match reply.result() {
            Ok(sample) => {
                let key = sample.key_expr().to_string();
                match serde_json::from_slice(&sample.payload().to_bytes()) {
                    Ok(value) => answers.values.push((key, value)),
                    Err(error) => {
                        let problem = format!("{key} is no JSON: {error}");
                        writeln!(streams.err, "error: {problem}")?;
                        answers.errors.push(problem);
                    }
                }
            }
            Err(error) => {
                let text = error.payload().to_bytes();
                let source = reply.replier_id().map(|id| id.zid().to_string());
                print_reply_error(&text, source, streams)?;
                answers
                    .errors
                    .push(String::from_utf8_lossy(&text).into_owned());
            }
        }
    }
    answers.values.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(answers)
}

/// The router of a key `@weir/ROUTER/...`.
pub fn router_of(key: &str) -> &str {
    key.split('/').nth(1).unwrap_or_default()
}

/// A field as a person reads it: `-` where there is none.
pub fn shown(value: &Value, field: &str) -> String {
    match value.pointer(&format!("/{}", field.replace('.', "/"))) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => super::table::printable(text, 200),
        Some(Value::Array(items)) => {
            let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            super::table::printable(&items.join(" "), 200)
        }
        Some(Value::Number(number)) => match number.as_f64() {
            // A rate: nobody reads more digits.
            Some(float) if number.is_f64() => format!("{float:.1}"),
            _ => number.to_string(),
        },
        Some(other) => other.to_string(),
    }
}

/// A storage's number of keys: with `~` if it is an estimate.
pub fn shown_keys(storage: &Value) -> String {
    match (storage["keys"].as_u64(), storage["keys_exact"].as_bool()) {
        (Some(keys), Some(false)) => format!("~{keys}"),
        _ => shown(storage, "keys"),
    }
}

/// A storage's size: `1.50 KiB`.
pub fn shown_bytes(storage: &Value) -> String {
    match storage["bytes"].as_u64() {
        Some(bytes) => indicatif::HumanBytes(bytes).to_string(),
        None => shown(storage, "bytes"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_is_shown_as_a_person_reads_it() {
        let value = json!({
            "name": "demo", "keys": 12, "rate": 1234.5678, "last": null,
            "expr": ["a/**", "b"], "totals": { "errors": 3 }, "ok": true,
        });
        let rows = [
            ("name", "demo"),
            ("keys", "12"),
            ("rate", "1234.6"),
            ("last", "-"),
            ("missing", "-"),
            ("expr", "a/** b"),
            ("totals.errors", "3"),
            ("ok", "true"),
        ];
        for (field, expected) in rows {
            assert_eq!(shown(&value, field), expected, "{field}");
        }
        assert_eq!(router_of("@weir/ab12/storages/demo"), "ab12");
    }

    #[test]
    fn an_amount_says_its_unit_and_whether_it_is_exact() {
        let rows = [
            (
                json!({ "keys": 5, "keys_exact": true, "bytes": 0 }),
                "5",
                "0 B",
            ),
            (
                json!({ "keys": 5, "keys_exact": false, "bytes": 1024 }),
                "~5",
                "1.00 KiB",
            ),
            (
                json!({ "keys": 5, "bytes": 3_500_000_000_u64 }),
                "5",
                "3.26 GiB",
            ),
            (
                json!({ "keys": null, "keys_exact": false, "bytes": null }),
                "-",
                "-",
            ),
        ];
        for (storage, keys, bytes) in rows {
            assert_eq!(
                (
                    shown_keys(&storage).as_str(),
                    shown_bytes(&storage).as_str()
                ),
                (keys, bytes)
            );
        }
    }
}
