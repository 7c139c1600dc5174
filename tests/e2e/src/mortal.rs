//! Acknowledged operations against a router that may die or fill up at any moment, and what must be
//! there afterwards.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    Got,
    python::packed,
    time::{SECOND, hour_ago},
};

/// What was asked of a router and what it acknowledged.
///
/// A key must hold what was acknowledged last, or what was tried on it after that: an operation that
/// was cut off may or may not have happened, but it happened whole or not at all.
#[derive(Debug, Default)]
pub struct Ledger {
    keys: BTreeMap<String, Possible>,
    /// How many operations were acknowledged.
    pub acknowledged: usize,
}

/// A value, or nothing after a delete.
type Held = Option<Vec<u8>>;

#[derive(Debug, Default)]
struct Possible {
    acknowledged: Held,
    tried: Vec<Held>,
}

/// A put, or a delete.
#[derive(Clone, Debug)]
pub struct Operation {
    /// On this key.
    pub key: String,
    /// The value to put; a delete if there is none.
    pub value: Held,
}

impl Operation {
    /// As `py/client.py` takes it: a get that waits for the acknowledgement.
    #[must_use]
    pub fn request(&self) -> Value {
        let verb = if self.value.is_some() {
            "_put"
        } else {
            "_delete"
        };
        json!({
            "selector": format!("{}?{verb};durability=written", self.key),
            "value": self.value.as_ref().map(packed),
            "target": "all",
        })
    }
}

impl Operation {
    /// As [`Operation::request`], stamped: the greater number is the later one. Without a stamp each mirror
    /// would stamp it by its own clock, and one put would be several versions.
    #[must_use]
    pub fn numbered(&self, number: u64) -> Value {
        let mut request = self.request();
        let selector = request["selector"].as_str().unwrap_or_default();
        let stamp = ((hour_ago() / SECOND) << 32) + number;
        request["selector"] = json!(format!("{selector};timestamp={stamp}/c11e"));
        request
    }
}

impl Ledger {
    /// Writes down what became of an operation.
    pub fn record(&mut self, operation: &Operation, acknowledged: bool) {
        let possible = self.keys.entry(operation.key.clone()).or_default();
        if acknowledged {
            self.acknowledged += 1;
            possible.acknowledged.clone_from(&operation.value);
            possible.tried.clear();
        } else {
            possible.tried.push(operation.value.clone());
        }
    }

    /// Compares with all that a router answers. What is found is taken as settled: from now on it
    /// has to stay.
    ///
    /// # Panics
    /// If anything acknowledged is lost, torn or came back, or if there is a key that nobody put.
    #[track_caller]
    pub fn check(&mut self, got: &Got, when: &str) {
        assert!(got.errors.is_empty(), "{when}: {:?}", got.errors);
        let mut stored: BTreeMap<&str, &[u8]> = got
            .samples
            .iter()
            .map(|sample| (sample.key.as_str(), sample.value.as_slice()))
            .collect();
        for (key, possible) in &mut self.keys {
            let held = stored.remove(key.as_str()).map(<[u8]>::to_vec);
            let is_possible = held == possible.acknowledged || possible.tried.contains(&held);
            let short = |held: &Held| {
                held.as_ref().map(|value| {
                    let end = value.len().min(24);
                    format!(
                        "{} bytes {:?}",
                        value.len(),
                        String::from_utf8_lossy(&value[..end])
                    )
                })
            };
            assert!(
                is_possible,
                "{when}: {key} holds {:?}; acknowledged was {:?}, tried since {:?}",
                short(&held),
                short(&possible.acknowledged),
                possible.tried.iter().map(short).collect::<Vec<_>>(),
            );
            possible.acknowledged = held;
            possible.tried.clear();
        }
        assert!(stored.is_empty(), "{when}: nobody put {:?}", stored.keys());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sample;

    fn got(rows: &[(&str, &str)]) -> Got {
        let sample = |(key, value): &(&str, &str)| Sample {
            key: (*key).to_owned(),
            kind: "put".to_owned(),
            value: value.as_bytes().to_vec(),
            encoding: String::new(),
            attachment: None,
            timestamp: None,
        };
        Got {
            samples: rows.iter().map(sample).collect(),
            errors: Vec::new(),
        }
    }

    /// `a` holds 1 for sure; 2, and then a delete, were tried.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        let operation = |value: Option<&str>| Operation {
            key: "a".to_owned(),
            value: value.map(|value| value.as_bytes().to_vec()),
        };
        ledger.record(&operation(Some("1")), true);
        ledger.record(&operation(Some("2")), false);
        ledger.record(&operation(None), false);
        ledger
    }

    #[test]
    fn what_was_acknowledged_or_tried_since_is_right() {
        for rows in [&[("a", "1")][..], &[("a", "2")], &[]] {
            ledger().check(&got(rows), "now");
        }
    }

    #[test]
    fn what_is_torn_invented_or_changes_later_is_not() {
        for rows in [&[("a", "")][..], &[("a", "1"), ("b", "1")], &[("a", "3")]] {
            let checked = std::panic::catch_unwind(|| ledger().check(&got(rows), "now"));
            assert!(checked.is_err(), "{rows:?}");
        }
        let mut settled = ledger();
        settled.check(&got(&[("a", "2")]), "now");
        let checked = std::panic::catch_unwind(move || settled.check(&got(&[("a", "1")]), "later"));
        assert!(checked.is_err());
    }
}
