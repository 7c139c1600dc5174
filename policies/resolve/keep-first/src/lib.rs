//! The first put of a key stays: for keys that are written once, such as registrations and receipts.

use serde::Deserialize;
use weir_policy_sdk::prelude::*;

/// Keeps the earlier of two puts.
pub struct KeepFirst(Deletes);

/// What an operator writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What becomes of a put and a delete that know nothing of each other. Unless said otherwise
    /// the put stays: what cannot be changed cannot be deleted by accident.
    #[serde(default = "lose")]
    deletes: Deletes,
}

fn lose() -> Deletes {
    Deletes::Lose
}

impl Policy for KeepFirst {
    type Settings = Settings;

    fn new(_: &Environment, settings: Settings) -> Result<Self, InitError> {
        Ok(Self(settings.deletes))
    }

    fn manifest(&self) -> Manifest {
        manifest!()
    }
}

impl Resolve for KeepFirst {
    /// The least of all puts in the order of versions, which is a join because nothing new is ever
    /// made: whatever is kept has its own stamp. So of two equal puts, too, the first has to stay.
    fn resolve(
        &mut self,
        _: &str,
        first: &Version,
        second: &Version,
    ) -> Result<Resolution, String> {
        if first.value.is_some() && second.value.is_some() {
            return Ok(Resolution::KeepFirst);
        }
        Ok(join(first, second, self.0, |_, _| Joined::First))
    }
}

weir_policy_sdk::export!(KeepFirst: resolve);

#[cfg(test)]
mod tests {
    use weir_policy_sdk::testing::{Held, check_laws_of_all, resolve};

    use super::*;

    #[test]
    fn cases() {
        resolve::<KeepFirst>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }

    #[test]
    fn it_keeps_the_laws() {
        let mut versions: Vec<Held> = Vec::new();
        for time in 1..4 {
            versions.extend(["", "a", "b"].map(|text| Held::put(time, text)));
            versions.push(Held::delete(time));
        }
        check_laws_of_all::<KeepFirst>("{}", &versions);
        check_laws_of_all::<KeepFirst>(r#"{"deletes": "win"}"#, &versions);
    }
}
