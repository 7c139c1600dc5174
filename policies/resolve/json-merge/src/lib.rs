//! Merges JSON documents field by field: of each field the newer value stays.
//!
//! A document is `{"field": {"v": VALUE, "t": TIME}, ...}`. Two vehicles that each wrote other fields
//! of one key both keep what they wrote; where both wrote a field, its greater `t` wins. A field
//! without `v` is a field that was removed, and is kept so that an older value stays away.

use std::cmp::Ordering;

use serde::Deserialize;
use serde_json::{Map, Value as Json, map::Entry};
use weir_policy_sdk::{number_order, prelude::*};

/// Merges by the time of each field.
pub struct JsonMerge(Settings);

/// What an operator writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The name of a field's time.
    #[serde(default = "time_name")]
    time: String,
    /// What becomes of a put and a delete that know nothing of each other.
    #[serde(default)]
    deletes: Deletes,
}

fn time_name() -> String {
    "t".to_owned()
}

impl Policy for JsonMerge {
    type Settings = Settings;

    fn new(_: &Environment, settings: Settings) -> Result<Self, InitError> {
        Ok(Self(settings))
    }

    fn manifest(&self) -> Manifest {
        manifest!()
    }
}

impl Resolve for JsonMerge {
    fn resolve(
        &mut self,
        _: &str,
        first: &Version,
        second: &Version,
    ) -> Result<Resolution, String> {
        Ok(join(first, second, self.0.deletes, |first, second| {
            self.merge(first, second)
        }))
    }
}

impl JsonMerge {
    /// A value that is no JSON object is below every object: it gives way to one, and of two such
    /// values the greater stays. So the merge is total, and still a join.
    fn merge(&self, first: &Value, second: &Value) -> Joined {
        match (object(first), object(second)) {
            (None, None) => Value::greater(first, second),
            (Some(_), None) => Joined::First,
            (None, Some(_)) => Joined::Second,
            (Some(mut merged), Some(others)) => {
                for (name, other) in others {
                    self.add(&mut merged, name, other);
                }
                let payload = Json::Object(merged).to_string().into_bytes();
                Joined::of(Value::merged(payload, first, second), first, second)
            }
        }
    }

    fn add(&self, document: &mut Map<String, Json>, name: String, other: Json) {
        match document.entry(name) {
            Entry::Vacant(place) => {
                place.insert(other);
            }
            Entry::Occupied(mut place) => {
                if self.order(place.get(), &other) == Ordering::Less {
                    place.insert(other);
                }
            }
        }
    }

    /// A total order of what a field can be: by time, fields without one lowest, and at equal times
    /// by their text, so that every replica takes the same.
    fn order(&self, one: &Json, other: &Json) -> Ordering {
        time_order(one.get(&self.0.time), other.get(&self.0.time))
            .then_with(|| one.to_string().cmp(&other.to_string()))
    }
}

/// Nothing, then what is neither number nor text, then numbers, then texts (RFC 3339 in one zone
/// orders as text).
fn time_order(one: Option<&Json>, other: Option<&Json>) -> Ordering {
    let class = |time: Option<&Json>| match time {
        None => 0,
        Some(Json::Number(_)) => 2,
        Some(Json::String(_)) => 3,
        Some(_) => 1,
    };
    class(one)
        .cmp(&class(other))
        .then_with(|| match (one, other) {
            (Some(Json::Number(one)), Some(Json::Number(other))) => number_order(one, other),
            (Some(Json::String(one)), Some(Json::String(other))) => one.cmp(other),
            _ => Ordering::Equal,
        })
}

fn object(value: &Value) -> Option<Map<String, Json>> {
    serde_json::from_slice(&value.payload).ok()
}

weir_policy_sdk::export!(JsonMerge: resolve);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_policy_sdk::testing::{Held, check_laws, check_laws_of_all, resolve};

    use super::*;

    #[test]
    fn cases() {
        resolve::<JsonMerge>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }

    const DOCUMENTS: [&str; 13] = [
        "",
        "[1]",
        "{}",
        " {}",
        r#"{"a":{"t":1,"v":1}}"#,
        r#"{"a": {"v": 1, "t": 1}}"#,
        r#"{"a":{"t":1,"v":2}}"#,
        r#"{"a":{"t":1.0,"v":1}}"#,
        r#"{"a":{"t":1}}"#,
        r#"{"a":{"t":"2024-05-01"},"b":7}"#,
        r#"{"a":{"t":9007199254740993}}"#,
        r#"{"a":{"t":9007199254740992.0,"v":0}}"#,
        r#"{"a":{"t":null},"b":{"t":0}}"#,
    ];

    #[test]
    fn it_keeps_the_laws() {
        let mut versions = vec![Held::delete(1), Held::delete(2)];
        versions.extend(DOCUMENTS.map(|text| Held::put(1, text)));
        versions.extend([4, 6, 0].map(|index: usize| Held::put(2, DOCUMENTS[index])));
        for settings in ["{}", r#"{"deletes": "lose"}"#, r#"{"time": "v"}"#] {
            check_laws_of_all::<JsonMerge>(settings, &versions);
        }
    }

    /// A few fields, few times, few values: so that they meet.
    fn document() -> impl Strategy<Value = String> {
        let scalar = prop_oneof![
            Just("1".to_owned()),
            Just("1.0".to_owned()),
            Just("\"x\"".to_owned()),
            any::<f64>().prop_map(|number| number.to_string()),
        ];
        let field = ("[abt]", scalar.clone(), scalar)
            .prop_map(|(name, t, v)| format!(r#""{name}": {{"v": {v}, "t": {t}}}"#));
        prop::collection::vec(field, 0..3).prop_map(|fields| format!("{{{}}}", fields.join(",")))
    }

    proptest! {
        #[test]
        fn any_three_documents_keep_the_laws(
            documents in prop::array::uniform3(prop::option::weighted(0.9, document())),
            times in prop::array::uniform3(1u32..3),
        ) {
            let version = |at: usize| match &documents[at] {
                Some(text) => Held::put(times[at], text.as_str()),
                None => Held::delete(times[at]),
            };
            let [a, b, c] = [0, 1, 2].map(version);
            check_laws::<JsonMerge>("{}", [&a, &b, &c]).map_err(TestCaseError::fail)?;
        }
    }
}
