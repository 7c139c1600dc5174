//! The harness on compiled guests: those that are kept from each version of the interface, and some
//! written as text.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use weir_core::{key::Key, laws::Law, value::Value, version::Stamp};
use weir_policy::{
    Environment, Hook, Host, Revision, Settings,
    harness::{
        admission,
        case::Link,
        cases::{self, Counts, Entry, Outcome},
        check::{self, Problem, check},
        golden,
        measure::{self, measure},
        recording::{About, Reader, Writer},
        replay::{self, diff, replay},
        sample::Sample,
    },
    registry::{Admit, Candidate},
};

#[path = "host/guest.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod guest;

use guest::Guest;

fn fixture(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/fixtures/0.1.0");
    fixtures.join(name)
}

fn host() -> Arc<Host> {
    Host::new(Settings::default()).unwrap()
}

fn load(name: &str) -> Arc<Revision> {
    let bytes = fs::read(fixture(&format!("{name}.wasm"))).unwrap();
    host().load(name, &bytes).unwrap()
}

fn entries(text: &str) -> Vec<Entry> {
    cases::parse(Path::new("own.json"), text).unwrap()
}

#[test]
fn what_was_compiled_for_an_older_interface_decides_as_it_did() {
    for (name, hooks) in [("witness", 3), ("keep-first", 1), ("latest-only", 1)] {
        let revision = load(name);
        let entries = cases::read(&fixture(name)).unwrap();
        assert!(!entries.is_empty(), "{name} has no cases");
        let report = cases::run(&revision, &entries);
        for ran in &report.cases {
            assert_eq!(ran.outcome, Outcome::Passed, "{name}: {}", ran.name);
        }
        assert_eq!(revision.hooks.iter().count(), hooks, "{name}");
    }
}

#[test]
fn a_case_that_is_not_kept_shows_where() {
    let text = r#"{ "hook": "route", "shards": ["eu", "us"], "samples": [{ "key": "a/last" }, { "key": "b/nowhere" }], "cases": [
        { "name": "one is wrong", "expect": [{ "shard": "us" }, { "reject": "first reason" }] },
        { "name": "all is wrong", "expect": { "error": "not this" } },
        { "name": "nothing is promised" },
        { "name": "broken", "samples": [] },
        { "name": "right", "expect": [{ "shard": "us" }, { "reject": "second reason" }] }
    ] }"#;
    let revision = load("witness");
    let report = cases::run(&revision, &entries(text));
    let counts = Counts {
        passed: 1,
        failed: 3,
        broken: 1,
    };
    assert_eq!(report.counts(), counts);
    let complaints: Vec<Vec<String>> = report.cases.iter().map(|ran| ran.complaint()).collect();
    let got = r#"+ got      [{ "shard": "us" }, { "reject": "second reason" }]"#;
    let expected = [
        vec![
            "sample 1 (b/nowhere)",
            r#"- expected { "reject": "first reason" }"#,
            r#"+ got      { "reject": "second reason" }"#,
        ],
        vec![r#"- expected { "error": "not this" }"#, got],
        vec!["- expected nothing is promised", got],
        vec!["a route case needs `samples`"],
        vec![],
    ];
    assert_eq!(complaints, expected);

    // Written down, all of it is right.
    let answers: Vec<_> = report
        .cases
        .iter()
        .map(|ran| match &ran.outcome {
            Outcome::Failed { got, .. } => Some(got.clone()),
            Outcome::Passed | Outcome::Broken { .. } => None,
        })
        .collect();
    let text = golden::rewrite(text, &answers).unwrap();
    let counts = cases::run(&revision, &entries(&text)).counts();
    assert_eq!((counts.passed, counts.failed), (4, 0), "{text}");
}

#[test]
fn a_resolver_that_concatenates_is_found_out() {
    let host = host();
    let revision = host
        .load("concat", &Guest::resolver_concatenating().wasm())
        .unwrap();
    let setup = check::Setup {
        environment: None,
        cases: Vec::new(),
        calls_max: 2_000,
    };
    let checked = check(&revision, &setup);
    let [problem] = &checked.problems[..] else {
        panic!("{:?}", checked.problems);
    };
    let Problem::Unlawful { example, .. } = problem else {
        panic!("{problem:?}");
    };
    assert!(
        matches!(example.law, Law::Idempotent | Law::Commutative),
        "{example}"
    );
    assert!(problem.text().contains("merge(a, b)"), "{}", problem.text());
    assert_eq!(problem.json()["code"], json!("law"));

    let environment = Environment::default();
    let candidate = Candidate {
        name: "concat",
        revision: &revision,
        hook: Hook::Resolve,
        environment: &environment,
    };
    let refused = admission::Laws { calls_max: 500 }.admit(&candidate);
    assert_eq!(refused.unwrap_err().code, "law");
    let lawful = load("keep-first");
    let candidate = Candidate {
        revision: &lawful,
        ..candidate
    };
    assert_eq!(admission::Laws { calls_max: 500 }.admit(&candidate), Ok(()));
    let checked = check(&lawful, &setup);
    assert!(checked.problems.is_empty(), "{:?}", checked.problems);
    assert!(checked.held[0].passed.calls > 0);
}

#[test]
fn a_router_that_hides_what_it_depends_on_is_found_out() {
    // The token is the size of the payload; the manifest says that the key alone decides.
    let guest = Guest {
        needs: guest::SIZE,
        varies: 0,
        ..Guest::router_each(
            "(i32.store8 (local.get $answer) (i32.const 1))
            (i64.store offset=8 (local.get $answer) (i64.load32_u offset=32 (local.get $sample)))",
        )
    };
    let revision = host().load("sly", &guest.wasm()).unwrap();
    let text = r#"{ "name": "n", "hook": "route", "shards": ["a"], "samples": [{ "key": "k", "payload": "x" }] }"#;
    let cases = entries(text).into_iter().map(|entry| entry.case.unwrap());
    let setup = check::Setup {
        environment: None,
        cases: cases.collect(),
        calls_max: 0,
    };
    let checked = check(&revision, &setup);
    let [Problem::Undeclared { key, .. }] = &checked.problems[..] else {
        panic!("{:?}", checked.problems);
    };
    assert_eq!(key, "k");
}

#[test]
fn a_router_admits_what_keeps_the_cases_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let revision = load("keep-first");
    let environment = Environment::default();
    let admitted = || {
        let cases = admission::Cases {
            dir: dir.path().to_owned(),
        };
        cases.admit(&Candidate {
            name: "geo",
            revision: &revision,
            hook: Hook::Resolve,
            environment: &environment,
        })
    };
    assert_eq!(admitted(), Ok(()), "none");
    fs::create_dir(dir.path().join("geo.cases")).unwrap();
    fs::copy(
        fixture("keep-first/first.json"),
        dir.path().join("geo.cases/first.json"),
    )
    .unwrap();
    assert_eq!(admitted(), Ok(()), "good ones");
    let other = r#"{ "name": "of another hook", "hook": "route", "samples": [{ "key": "k" }], "expect": 1 }"#;
    fs::write(dir.path().join("geo.cases.json"), other).unwrap();
    assert_eq!(admitted(), Ok(()), "another hook's");
    let bad = r#"{ "name": "the later stays", "hook": "resolve", "key": "k", "expect": "keep-second",
        "first": { "timestamp": 1, "put": "a" }, "second": { "timestamp": 2, "put": "b" } }"#;
    fs::write(dir.path().join("geo.cases.json"), bad).unwrap();
    let refused = admitted().unwrap_err();
    assert_eq!(refused.code, "case");
    assert!(
        refused.message.contains("1 of its") && refused.message.contains("the later stays"),
        "{}",
        refused.message
    );
    fs::write(dir.path().join("geo.cases.json"), "{").unwrap();
    assert!(admitted().unwrap_err().message.contains("cannot be read"));
}

fn samples(count: u64) -> Vec<Sample> {
    let sample = |n: u64| Sample {
        key: Key::new(format!("fleet/{}/pose", n % 10)),
        stamp: Some(Stamp {
            time: n + 1,
            id: [1; 16],
        }),
        value: (!n.is_multiple_of(7)).then(|| Value::bytes(n.to_string())),
        priority: 5,
    };
    (0..count).map(sample).collect()
}

fn recorded(samples: &[Sample]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &About::new("fleet/**", "now")).unwrap();
    samples
        .iter()
        .for_each(|sample| writer.write(sample).unwrap());
    writer.finish().unwrap()
}

#[test]
fn two_policies_differ_where_a_recording_says_so() {
    let token = |number: &str| {
        let each = format!(
            "(i32.store8 (local.get $answer) (i32.const 2))
            (i32.store offset=8 (local.get $answer) {number})"
        );
        Guest {
            needs: guest::SIZE,
            varies: guest::SIZE,
            ..Guest::router_each(&each)
        }
    };
    let host = host();
    let load = |guest: &Guest| host.load("g", &guest.wasm()).unwrap();
    let old = load(&token("(i32.const 0)"));
    // Deletes have no payload.
    let new = load(&token("(i32.eqz (i32.load offset=32 (local.get $sample)))"));
    let setup = replay::Setup {
        hook: Hook::Route,
        environment: Environment {
            shards: vec!["eu".into(), "us".into()],
            ..Environment::default()
        },
        link: String::new(),
    };
    let recording = recorded(&samples(700));
    let open = || Reader::new(&recording[..]).unwrap();
    let mut seen = 0;
    let replayed = replay(&new, &setup, open(), |_| seen += 1).unwrap();
    assert_eq!(
        (replayed.samples, replayed.decisions, seen),
        (700, 700, 700)
    );
    assert_eq!(replayed.by_kind[r#"{ "shard": "us" }"#], 100);

    assert_eq!(diff(&old, &old, &setup, open()).unwrap().changed, 0);
    let found = diff(&old, &new, &setup, open()).unwrap();
    assert_eq!((found.decisions, found.changed), (700, 100));
    let [change] = &found.changes[..] else {
        panic!("{:?}", found.changes);
    };
    assert_eq!(
        (change.from.as_str(), change.to.as_str()),
        (r#"{ "shard": "eu" }"#, r#"{ "shard": "us" }"#)
    );
    assert_eq!(change.examples[0].key, "fleet/0/pose");
    assert_eq!(change.examples[0].to, json!({ "shard": "us" }));
}

#[test]
fn a_resolver_is_asked_about_neighbours() {
    let setup = replay::Setup {
        hook: Hook::Resolve,
        environment: Environment::default(),
        link: String::new(),
    };
    let recording = recorded(&samples(100));
    let open = || Reader::new(&recording[..]).unwrap();
    let revision = load("keep-first");
    let mut keys = Vec::new();
    let replayed = replay(&revision, &setup, open(), |decision| {
        keys.push(decision.key.clone())
    })
    .unwrap();
    // Ten keys, each without a neighbour at first.
    assert_eq!((replayed.samples, replayed.decisions), (100, 90));
    assert_eq!(keys[0], "fleet/0/pose");
    assert_eq!(
        diff(&revision, &revision, &setup, open()).unwrap().changed,
        0
    );
}

#[test]
fn costs_are_measured_for_every_hook() {
    let revision = load("witness");
    for hook in Hook::ALL {
        let setup = measure::Setup {
            hook,
            environment: Environment::default(),
            link: Link::default(),
            samples: samples(40),
            batch: 16,
            conflicts: vec![measure::own_conflict()],
            time: Duration::from_millis(50),
        };
        let measured = measure(&revision, &setup).unwrap();
        assert!(
            measured.calls >= 100 && measured.p50_us > 0.0,
            "{measured:?}"
        );
        assert!(
            measured.p50_us <= measured.p99_us && measured.ratio > 0.5,
            "{measured:?}"
        );
        assert_eq!(measured.batch, if hook == Hook::Resolve { 1 } else { 16 });
        assert_eq!(measured.fuel_max.is_some(), hook == Hook::Resolve);
        assert_eq!(measured.failed, 0);
    }
}
