//! Merges JSON arrays as sets: what anybody added is there.

use std::collections::BTreeSet;

use serde::Deserialize;
use weir_policy_sdk::prelude::*;

/// A set that only grows.
pub struct GrowOnlySet(Settings);

/// What an operator writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What becomes of an addition and a delete that know nothing of each other.
    #[serde(default)]
    deletes: Deletes,
}

impl Policy for GrowOnlySet {
    type Settings = Settings;

    fn new(_: &Environment, settings: Settings) -> Result<Self, InitError> {
        Ok(Self(settings))
    }

    fn manifest(&self) -> Manifest {
        manifest!()
    }
}

impl Resolve for GrowOnlySet {
    fn resolve(
        &mut self,
        _: &str,
        first: &Version,
        second: &Version,
    ) -> Result<Resolution, String> {
        Ok(join(first, second, self.0.deletes, union))
    }
}

/// The union of two arrays, its members in the order of their JSON text, each once.
///
/// A value that is no JSON array is below every array: it gives way to one, and of two such values
/// the greater stays. So the merge is total, and still a join.
fn union(first: &Value, second: &Value) -> Joined {
    match (members(first), members(second)) {
        (None, None) => Value::greater(first, second),
        (Some(_), None) => Joined::First,
        (None, Some(_)) => Joined::Second,
        (Some(mut all), Some(others)) => {
            all.extend(others);
            let payload = format!("[{}]", all.into_iter().collect::<Vec<_>>().join(","));
            Joined::of(
                Value::merged(payload.into_bytes(), first, second),
                first,
                second,
            )
        }
    }
}

/// The members of an array as JSON text: compact, fields in order, so that equal members are equal
/// texts.
fn members(value: &Value) -> Option<BTreeSet<String>> {
    let members: Vec<serde_json::Value> = serde_json::from_slice(&value.payload).ok()?;
    Some(members.iter().map(ToString::to_string).collect())
}

weir_policy_sdk::export!(GrowOnlySet: resolve);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_policy_sdk::testing::{Held, check_laws, check_laws_of_all, resolve};

    use super::*;

    #[test]
    fn cases() {
        resolve::<GrowOnlySet>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }

    #[test]
    fn it_keeps_the_laws() {
        let texts = [
            "", "x", "{}", "[]", " []", "[1]", "[ 1]", "[1,2]", "[2,1,1]", "[1.0]", "[[1]]",
        ];
        let mut versions = vec![Held::delete(1), Held::delete(2)];
        versions.extend(texts.map(|text| Held::put(1, text)));
        versions.extend(["[1]", "", "[3]"].map(|text| Held::put(2, text)));
        let mut named = Held::put(1, "[1]");
        if let Some(value) = &mut named.value {
            (value.encoding, value.attachment) = (5, Some(b"a".to_vec()));
        }
        versions.push(named);
        for settings in ["{}", r#"{"deletes": "lose"}"#] {
            check_laws_of_all::<GrowOnlySet>(settings, &versions);
        }
    }

    proptest! {
        #[test]
        fn any_three_sets_keep_the_laws(
            sets in prop::array::uniform3(prop::collection::vec(
                prop_oneof![(0i64..4).prop_map(|n| n.to_string()), any::<f64>().prop_map(|n| n.to_string())],
                0..4,
            )),
            times in prop::array::uniform3(1u32..3),
        ) {
            let [a, b, c] = [0, 1, 2].map(|at: usize| {
                Held::put(times[at], format!("[{}]", sets[at].join(" , ")))
            });
            check_laws::<GrowOnlySet>("{}", [&a, &b, &c]).map_err(TestCaseError::fail)?;
        }
    }
}
