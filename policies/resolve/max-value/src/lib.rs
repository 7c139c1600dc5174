//! Keeps the greater number: high-water marks, counters that only rise, best bids.

use std::cmp::Ordering;

use serde::Deserialize;
use serde_json::{Number, Value as Json};
use weir_policy_sdk::{number_order, prelude::*};

/// Keeps the greatest, or the least.
pub struct MaxValue(Settings);

/// What an operator writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the number is in a JSON document, as a JSON pointer (`/battery/level`). Without it the
    /// whole payload is the number.
    #[serde(default)]
    field: String,
    /// Which of the two stays.
    #[serde(default)]
    keep: Keep,
    /// What becomes of a put and a delete that know nothing of each other.
    #[serde(default)]
    deletes: Deletes,
}

#[derive(Clone, Copy, PartialEq, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
enum Keep {
    #[default]
    Greatest,
    Least,
}

impl Policy for MaxValue {
    type Settings = Settings;

    fn new(_: &Environment, settings: Settings) -> Result<Self, InitError> {
        if !settings.field.is_empty() && !settings.field.starts_with('/') {
            let field = &settings.field;
            return Err(format!("`field` is a JSON pointer: `/{field}`, not `{field}`").into());
        }
        Ok(Self(settings))
    }

    fn manifest(&self) -> Manifest {
        manifest!()
    }
}

impl Resolve for MaxValue {
    fn resolve(
        &mut self,
        _: &str,
        first: &Version,
        second: &Version,
    ) -> Result<Resolution, String> {
        Ok(join(
            first,
            second,
            self.0.deletes,
            |first, second| match self.order(first, second) {
                Ordering::Greater => Joined::First,
                _ => Joined::Second,
            },
        ))
    }
}

impl MaxValue {
    /// A total order of values: what holds no number lies below what does, and values with equal
    /// numbers (`1` and `1.0`) are ordered by all that is in them.
    fn order(&self, first: &Value, second: &Value) -> Ordering {
        let numbers = match (self.number(first), self.number(second)) {
            (Some(first), Some(second)) if self.0.keep == Keep::Greatest => {
                number_order(&first, &second)
            }
            (Some(first), Some(second)) => number_order(&second, &first),
            (first, second) => first.is_some().cmp(&second.is_some()),
        };
        numbers.then_with(|| first.cmp(second))
    }

    fn number(&self, value: &Value) -> Option<Number> {
        let document: Json = serde_json::from_slice(&value.payload).ok()?;
        match document.pointer(&self.0.field)? {
            Json::Number(number) => Some(number.clone()),
            _ => None,
        }
    }
}

weir_policy_sdk::export!(MaxValue: resolve);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_policy_sdk::testing::{Held, check_laws, check_laws_of_all, resolve};

    use super::*;

    #[test]
    fn cases() {
        resolve::<MaxValue>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }

    const NUMBERS: [&str; 14] = [
        "",
        "x",
        "{}",
        "0",
        "-0.0",
        "0.0",
        "1",
        "1.0",
        " 1",
        "9007199254740992",
        "9007199254740993",
        "9007199254740992.0",
        "18446744073709551615",
        "1e300",
    ];

    #[test]
    fn it_keeps_the_laws() {
        let mut versions = vec![Held::delete(1), Held::delete(2)];
        versions.extend(NUMBERS.map(|text| Held::put(1, text)));
        versions.extend(["1", "", "0.0"].map(|text| Held::put(2, text)));
        for settings in ["{}", r#"{"keep": "least"}"#, r#"{"deletes": "lose"}"#] {
            check_laws_of_all::<MaxValue>(settings, &versions);
        }
    }

    proptest! {
        #[test]
        fn any_three_versions_keep_the_laws(numbers: [f64; 3], integers: [i64; 3], times: [u8; 3], kinds: [u8; 3]) {
            let version = |at: usize| match kinds[at] % 4 {
                0 => Held::delete(u32::from(times[at] % 3)),
                1 => Held::put(u32::from(times[at] % 3), numbers[at].to_string()),
                2 => Held::put(u32::from(times[at] % 3), integers[at].to_string()),
                _ => Held::put(u32::from(times[at] % 3), (integers[at] as f64).to_string()),
            };
            let [a, b, c] = [version(0), version(1), version(2)];
            check_laws::<MaxValue>("{}", [&a, &b, &c]).map_err(TestCaseError::fail)?;
        }
    }
}
