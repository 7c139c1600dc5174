//! `resolve`: verdicts that every replica has to find.

use std::{fs, sync::mpsc, time::Duration};

use parking_lot::Mutex;
use weir_core::{
    resolution::{Contender, Resolution, Resolve},
    value::Value,
    version::Version,
};
use weir_policy::{registry::Candidate, slot::CurrentResolver};

use crate::{
    fleet::{Fleet, PATIENCE},
    guest::Guest,
};

fn resolve(mut resolver: CurrentResolver) -> Result<Resolution, String> {
    let (one, two) = (Value::bytes("one"), Value::bytes("two"));
    let contender = |value| Contender {
        version: Version::default(),
        value: Some(value),
    };
    let resolution = resolver.resolve("a/b", contender(&one), contender(&two));
    resolution.map_err(|interrupted| interrupted.to_string())
}

#[test]
fn a_resolver_is_known_by_its_revision_and_gone_with_its_file() {
    let fleet = Fleet::new();
    let slot = fleet.policies.bind_resolve("fleet", "merge");
    assert!(slot.current().is_none());
    fleet.drop_in("merge.wasm", Guest::resolver_concatenating().wasm());
    fleet.wait("merge", |status| status.slots[0].service == "policy");
    let first = slot.current().unwrap();
    let revision = first.revision();
    assert!(revision != 0);
    assert_eq!(
        fleet.slot("merge").resolver_revision,
        Some(format!("{revision:016x}"))
    );
    assert_eq!(
        resolve(first.clone()),
        Ok(Resolution::Merge(Value::bytes("onetwo")))
    );
    fleet.drop_in("merge.wasm", Guest::resolver_constant(1).wasm());
    crate::fleet::wait(|| match slot.current().map(|now| now.revision()) {
        Some(now) if now != revision => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(resolve(slot.current().unwrap()), Ok(Resolution::First));
    // Whoever has begun a batch with the first ends it with the first.
    assert_eq!(
        resolve(first),
        Ok(Resolution::Merge(Value::bytes("onetwo")))
    );
    fs::remove_file(fleet.at("merge.wasm")).unwrap();
    crate::fleet::wait(|| match slot.current().map(|now| now.revision()) {
        None => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn a_resolver_is_tried_on_what_it_is_asked_about_and_its_counterexample_is_shown() {
    let fleet = Fleet::with(|settings| settings.laws_every = Duration::from_millis(20));
    let slot = fleet.policies.bind_resolve("fleet", "merge");
    fleet.drop_in("merge.wasm", Guest::resolver_concatenating().wasm());
    fleet.wait("merge", |status| status.slots[0].service == "policy");
    // Nobody has asked anything yet, so there is nothing to try it on.
    assert_eq!(fleet.slot("merge").report, None);
    resolve(slot.current().unwrap()).unwrap();
    fleet.wait("merge", |status| status.slots[0].report.is_some());
    let found = fleet.slot("merge");
    let report = found.report.unwrap();
    assert_eq!(report.what, "unlawful");
    assert!(report.message.starts_with("it is not "), "{report:?}");
    // It serves on: what one replica found must not make it decide differently.
    assert_eq!(found.service, "policy");
    assert_eq!(found.samples, 1, "what was tried is not counted");
    // A lawful one clears its name.
    fleet.drop_in("merge.wasm", Guest::resolver_constant(2).wasm());
    fleet.wait("merge", |status| status.slots[0].report.is_none());
}

#[test]
fn a_resolver_that_traps_is_not_rolled_back() {
    let fleet = Fleet::new();
    let slot = fleet.policies.bind_resolve("fleet", "merge");
    fleet.drop_in("merge.wasm", Guest::resolver("unreachable").wasm());
    fleet.wait("merge", |status| status.slots[0].service == "policy");
    for _ in 0..20 {
        assert_eq!(resolve(slot.current().unwrap()), Ok(Resolution::Default));
    }
    let found = fleet.slot("merge");
    assert_eq!(
        (found.state.as_str(), found.service.as_str()),
        ("serving", "policy")
    );
    assert_eq!((found.errors.get("trap"), found.fallbacks), (Some(&20), 20));
    assert_eq!(found.last_error.unwrap().blame, "guest");
}

#[test]
fn conflicts_wait_for_the_first_resolver_rather_than_being_decided_without_it() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let fleet = Fleet::with(|settings| {
        settings
            .admission
            .push(std::sync::Arc::new(move |_: &Candidate<'_>| {
                wait.lock().recv_timeout(PATIENCE).unwrap();
                Ok(())
            }));
    });
    fleet.drop_in("merge.wasm", Guest::resolver_constant(2).wasm());
    fleet.wait("merge", |status| {
        status.file.as_ref().unwrap().state == "ready"
    });
    let slot = fleet.policies.bind_resolve("fleet", "merge");
    // From the first change on.
    let waiting = slot.current().unwrap();
    let revision = waiting.revision();
    assert!(resolve(waiting).unwrap_err().contains("not there yet"));
    assert_eq!(fleet.slot("merge").service, "wait");
    assert!(
        !fleet
            .policies
            .wait_until_loaded(std::time::Duration::from_millis(20))
    );
    go.send(()).unwrap();
    assert!(fleet.policies.wait_until_loaded(PATIENCE));
    let current = slot.current().unwrap();
    assert_eq!(current.revision(), revision, "it has waited for this one");
    assert_eq!(resolve(current), Ok(Resolution::Second));
}
