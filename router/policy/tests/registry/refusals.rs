//! What does not serve, why, and who is told.

use std::{fs, io::Cursor, sync::Arc};

use minisign::KeyPair;
use weir_core::slot::Limits;
use weir_policy::{
    registry::{Candidate, NotAdmitted},
    signature::{Key, SignatureMode},
};

use crate::fleet::{Fleet, NATIVE, PATIENCE, SECOND, answers, ask, traps};

#[test]
fn a_file_that_is_no_policy_leaves_the_old_one_serving_and_says_why() {
    let fleet = Fleet::new();
    let mut slot = fleet.bind("geo");
    fleet.drop_in("geo.wasm", answers(1).wasm());
    fleet.wait_for_verdict(&mut slot, 1);
    let module = answers(2).wasm();
    let rows: [(&[u8], &str); 4] = [
        (b"", "not-wasm"),
        (b"no module", "not-wasm"),
        (&module[..module.len() / 2], "invalid"),
        (&module[..8], "world"),
    ];
    for (bytes, code) in rows {
        fleet.drop_in("geo.wasm", bytes);
        let hash = blake3::hash(bytes).to_string();
        fleet.wait("geo", |status| {
            let file = status.file.as_ref().unwrap();
            file.hash.as_ref() == Some(&hash) && file.state == "refused"
        });
        let refusal = fleet.status("geo").file.unwrap().refusal.unwrap();
        assert_eq!(refusal.code, code);
        assert_eq!(ask(&mut slot, 3), 1, "{code}");
        let note = fleet.note("geo").unwrap();
        assert!(
            note.contains(&format!("geo.wasm is refused: {code}: ")),
            "{note}"
        );
        assert!(note.contains(&refusal.message), "{note}");
    }
    fleet.drop_in("geo.wasm", &module);
    fleet.wait_for_verdict(&mut slot, 2);
    assert_eq!(fleet.note("geo"), None);
    // What nobody has bound is refused as well, and its note goes with it.
    fleet.drop_in("far.wasm", "no module");
    fleet.wait("far", |status| {
        status.file.as_ref().unwrap().state == "refused"
    });
    assert!(fleet.note("far").is_some());
    fs::remove_file(fleet.at("far.wasm")).unwrap();
    crate::fleet::wait(|| match fleet.note("far") {
        None => Ok(()),
        Some(note) => Err(note),
    });
}

#[test]
fn a_policy_that_cannot_serve_the_hook_is_refused_where_it_is_bound() {
    let fleet = Fleet::new();
    let mut slot = fleet.bind("geo");
    fleet.drop_in("geo.wasm", crate::guest::Guest::resolver_constant(1).wasm());
    fleet.wait("geo", |status| status.slots[0].report.is_some());
    assert_eq!(ask(&mut slot, 1), NATIVE);
    let status = fleet.status("geo");
    assert_eq!(status.file.unwrap().state, "ready");
    let report = status.slots[0].report.clone().unwrap();
    assert_eq!(report.what, "refused");
    assert!(
        report.message.contains("does not export shard-routing"),
        "{report:?}"
    );
    assert!(
        fleet
            .note("geo")
            .unwrap()
            .contains("it cannot serve storages/fleet (route): init:")
    );
}

#[test]
fn a_policy_that_fails_too_often_is_rolled_back_and_the_batch_is_decided_natively() {
    let fleet = Fleet::with(|settings| {
        settings.breaker = Limits {
            probation_calls: 1,
            probation: 0,
            faults_max: 3,
            ..Limits::default()
        };
    });
    let mut slot = fleet.bind("geo");
    fleet.drop_in("geo.wasm", answers(1).wasm());
    fleet.wait_for_verdict(&mut slot, 1);
    // Proven after one call.
    fleet.wait("geo", |status| status.slots[0].state == "serving");
    fleet.drop_in("geo.wasm", traps().wasm());
    let bad = blake3::hash(&traps().wasm()).to_string();
    fleet.wait("geo", |status| {
        status.slots[0].revision.as_ref() == Some(&bad)
    });
    for _ in 0..3 {
        assert_eq!(ask(&mut slot, 4), NATIVE);
    }
    fleet.wait_for_verdict(&mut slot, 1);
    let found = fleet.slot("geo");
    assert_eq!(found.state, "rolled-back");
    // Three batches of four, and perhaps some of three until the registry had heard of them.
    let traps = found.errors["trap"];
    assert!(
        traps >= 3 && found.fallbacks == 12 + 3 * (traps - 3),
        "{found:?}"
    );
    let (report, error) = (found.report.unwrap(), found.last_error.unwrap());
    assert_eq!(
        (report.what.as_str(), &report.revision),
        ("rolled-back", &bad)
    );
    assert_eq!(
        (error.cause.as_str(), error.blame.as_str()),
        ("trap", "guest")
    );
    assert!(error.at.ends_with('Z'), "{error:?}");
    assert!(
        fleet
            .note("geo")
            .unwrap()
            .contains("failed too often in storages/fleet (route)")
    );
    // The same file is not tried again; another is.
    fleet.policies.rescan();
    fleet.drop_in("geo.wasm", answers(3).wasm());
    fleet.wait_for_verdict(&mut slot, 3);
    assert_eq!(fleet.note("geo"), None);
}

#[test]
fn a_policy_that_fails_and_has_no_predecessor_rests_and_is_tried_again() {
    let fleet = Fleet::with(|settings| {
        settings.breaker = Limits {
            faults_max: 2,
            rest_min: SECOND / 10,
            rest_max: SECOND / 10,
            trial_calls: 2,
            ..Limits::default()
        };
    });
    let mut slot = fleet.bind("geo");
    // Traps for odd numbers of samples alone.
    let body = "(if (i32.and (i32.const 1) (local.get $count)) (then unreachable))
        (i32.store8 (local.get $answer) (i32.const 1))
        (i64.store (i32.add (local.get $answer) (i32.const 8)) (i64.const 7))";
    fleet.drop_in("geo.wasm", crate::guest::Guest::router_each(body).wasm());
    fleet.wait("geo", |status| status.slots[0].service == "policy");
    assert_eq!(ask(&mut slot, 2), 7);
    assert_eq!((ask(&mut slot, 1), ask(&mut slot, 1)), (NATIVE, NATIVE));
    fleet.wait("geo", |status| status.slots[0].state == "open");
    let asked = fleet.slot("geo").calls;
    assert_eq!(ask(&mut slot, 2), NATIVE);
    // It rests for a tenth of a second: the call above may have met it resting or tried again.
    fleet.wait("geo", |status| status.slots[0].state == "half-open");
    assert!(fleet.slot("geo").calls <= asked + 1);
    assert_eq!((ask(&mut slot, 2), ask(&mut slot, 2)), (7, 7));
    fleet.wait("geo", |status| status.slots[0].state == "serving");
    assert_eq!((fleet.note("geo"), fleet.slot("geo").report), (None, None));
}

#[test]
fn what_is_not_signed_is_not_run() {
    let pair = KeyPair::generate_unencrypted_keypair().unwrap();
    let key = Key::parse(&pair.pk.to_box().unwrap().into_string()).unwrap();
    let id = key.id().to_owned();
    let sign = |bytes: &[u8]| {
        let signed = minisign::sign(None, &pair.sk, Cursor::new(bytes), Some("by ops"), None);
        signed.unwrap().into_string()
    };
    let fleet = Fleet::with(|settings| {
        settings.signatures = SignatureMode::Require;
        settings.keys = vec![key];
    });
    let mut slot = fleet.bind("geo");
    let (one, two) = (answers(1).wasm(), answers(2).wasm());
    fleet.drop_in("geo.wasm", &one);
    let is_unsigned = |status: &weir_policy::status::PolicyStatus| {
        let refusal = status.file.as_ref().and_then(|file| file.refusal.as_ref());
        refusal.is_some_and(|refusal| refusal.code == "signature")
    };
    fleet.wait("geo", is_unsigned);
    assert_eq!(ask(&mut slot, 1), NATIVE);
    assert!(
        fleet
            .note("geo")
            .unwrap()
            .contains("there is no geo.wasm.minisig")
    );
    // A slot that is bound now does not run it either.
    assert_eq!(ask(&mut fleet.bind("geo"), 1), NATIVE);
    fleet.drop_in("geo.wasm.minisig", sign(&one));
    fleet.wait_for_verdict(&mut slot, 1);
    assert_eq!(fleet.note("geo"), None);
    let signer = fleet.status("geo").file.unwrap().signer.unwrap();
    assert_eq!((signer.key_id, signer.comment.as_str()), (id, "by ops"));
    // Another module beside the old signature: the old module serves on.
    fleet.drop_in("geo.wasm", &two);
    fleet.wait("geo", is_unsigned);
    assert_eq!(ask(&mut slot, 1), 1);
    fleet.drop_in("geo.wasm.minisig", sign(&two));
    fleet.wait_for_verdict(&mut slot, 2);
}

#[test]
fn where_signatures_are_only_wished_for_their_absence_is_a_warning() {
    let fleet = Fleet::with(|settings| settings.signatures = SignatureMode::Warn);
    let mut slot = fleet.bind("geo");
    fleet.drop_in("geo.wasm", answers(1).wasm());
    fleet.wait_for_verdict(&mut slot, 1);
    let warning = fleet.status("geo").warning.unwrap();
    assert!(
        warning.contains("there is no geo.wasm.minisig"),
        "{warning}"
    );
}

#[test]
fn what_is_not_admitted_does_not_serve() {
    let forbidden = blake3::hash(&answers(2).wasm());
    let fleet = Fleet::with(|settings| {
        settings
            .admission
            .push(Arc::new(move |candidate: &Candidate<'_>| {
                assert_eq!(candidate.environment.settings_json, "{\"zone\":1}");
                assert_eq!((candidate.name, candidate.hook.name()), ("geo", "route"));
                if candidate.revision.hash == *forbidden.as_bytes() {
                    return Err(NotAdmitted {
                        code: "case".into(),
                        message: "case 3 of geo.cases: shard 1, not 2".into(),
                    });
                }
                Ok(())
            }));
    });
    let mut slot = fleet.bind("geo");
    fleet.drop_in("geo.wasm", answers(1).wasm());
    fleet.wait_for_verdict(&mut slot, 1);
    fleet.drop_in("geo.wasm", answers(2).wasm());
    fleet.wait("geo", |status| status.slots[0].report.is_some());
    assert!(fleet.policies.wait_until_loaded(PATIENCE));
    assert_eq!(ask(&mut slot, 2), 1);
    assert!(
        fleet
            .note("geo")
            .unwrap()
            .contains("case: case 3 of geo.cases")
    );
}

#[test]
fn a_check_that_panics_refuses_and_the_next_file_is_checked_again() {
    let fleet = Fleet::with(|settings| {
        let bad = blake3::hash(&answers(1).wasm());
        settings
            .admission
            .push(Arc::new(move |candidate: &Candidate<'_>| {
                assert!(
                    candidate.revision.hash != *bad.as_bytes(),
                    "a mistake of ours"
                );
                Ok(())
            }));
    });
    let mut slot = fleet.bind("geo");
    for name in ["geo.wasm", "a.wasm", "b.wasm"] {
        fleet.drop_in(name, answers(1).wasm());
    }
    fleet.wait("geo", |status| status.slots[0].report.is_some());
    let message = fleet.slot("geo").report.unwrap().message;
    assert!(message.contains("a mistake of ours"), "{message}");
    fleet.drop_in("geo.wasm", answers(2).wasm());
    fleet.wait_for_verdict(&mut slot, 2);
}
