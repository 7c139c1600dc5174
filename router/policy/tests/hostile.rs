//! The hostile corpus: whatever a module does, it costs its answer and nothing else.
//!
//! `policies/hostile/corpus.json` says what the host has to make of each.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use serde_json::Value as Json;
use weir_core::{
    backlog::{LinkState, Verdict},
    key::Key,
    placement::{Description, Destination},
    resolution::{Contender, Resolve},
    value::Value,
    version::{Stamp, Version},
};
use weir_policy::{
    Cause, Environment, Host, Limits, PrioritizeInstance, RefusalCode, Resolver, Revision,
    RouteInstance, Settings, Statistics, Stats,
};

#[derive(Deserialize, Debug)]
struct Row {
    name: String,
    file: String,
    hook: String,
    #[serde(default)]
    settings: Json,
    truncate_every: Option<usize>,
    expect: Json,
}

/// What became of a row, in the words of the corpus.
#[derive(PartialEq, Debug)]
enum Outcome {
    Refused(&'static str),
    Start(&'static str),
    /// What each of some calls ended in; nothing if its answers count.
    Calls(Vec<Option<&'static str>>, BTreeSet<u64>),
}

const SHARDS: u32 = 4;
const CALLS: usize = 6;

fn corpus() -> (PathBuf, Vec<Row>) {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile");
    let make = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/hostile/make");
    let made = Command::new(make).arg(&directory).status().unwrap();
    assert!(made.success(), "policies/hostile/make: {made}");
    let rows = fs::read(directory.join("corpus.json")).unwrap();
    (directory, serde_json::from_slice(&rows).unwrap())
}

/// Limits that are met soon, so that a hundred modules take seconds.
fn host() -> Arc<Host> {
    let limits = Limits {
        memory_bytes_max: 64 << 20,
        batch_cpu_max: Duration::from_millis(20),
        init_cpu_max: Duration::from_millis(100),
        resolve_fuel: 20_000_000,
        ..Limits::default()
    };
    Host::new(Settings {
        limits,
        ..Settings::default()
    })
    .unwrap()
}

/// What was loaded, by file: many rows are of one module.
type Loaded = HashMap<(String, usize), Result<Arc<Revision>, RefusalCode>>;

fn meet(host: &Arc<Host>, loaded: &mut Loaded, row: &Row, bytes: &[u8]) -> Outcome {
    let load = || host.load(&row.name, bytes).map_err(|refusal| refusal.code);
    let place = (row.file.clone(), bytes.len());
    let revision = match loaded.entry(place).or_insert_with(load) {
        Ok(revision) => Arc::clone(revision),
        Err(code) => return Outcome::Refused(code.as_str()),
    };
    let settings = if row.settings.is_null() {
        "{}".to_owned()
    } else {
        row.settings.to_string()
    };
    let environment = Environment {
        shards: (0..SHARDS).map(|n| n.to_string()).collect(),
        settings_json: settings.clone(),
        ..Environment::default()
    };
    let stats = Arc::new(Stats::default());
    let mut tokens = BTreeSet::new();
    let key = Key::from("drone/7");
    let value = Value::bytes("payload");
    let sample = Description {
        key: &key,
        key_hash: 7,
        stamp: Some(Stamp {
            time: 1 << 32,
            id: [1; 16],
        }),
        value: Some(&value),
        priority: 5,
    };
    let batch = [sample; 3];
    let mut calls = Vec::new();
    match row.hook.as_str() {
        "route" => {
            let mut instance = match RouteInstance::new(&revision, &environment, stats) {
                Ok(instance) => instance,
                Err(fault) => return Outcome::Start(fault.cause.code()),
            };
            for _ in 0..CALLS {
                let mut out = Vec::new();
                let called = instance.route("fleet", SHARDS, &batch, &mut out);
                assert_eq!(out.len(), batch.len(), "{}: one answer each", row.name);
                if called.is_err() {
                    let native = out.iter().all(|answer| *answer == Destination::Default);
                    assert!(native, "{}: {out:?}", row.name);
                }
                tokens.extend(out.iter().filter_map(|answer| match answer {
                    Destination::Token(token) => Some(*token),
                    _ => None,
                }));
                calls.push(called.err().map(|fault| fault.cause.code()));
            }
        }
        "prioritize" => {
            let mut instance = match PrioritizeInstance::new(&revision, &environment, stats) {
                Ok(instance) => instance,
                Err(fault) => return Outcome::Start(fault.cause.code()),
            };
            let link = LinkState {
                name: "cloud",
                now: 1 << 33,
                queued: 1,
                queued_bytes: 1,
                capacity_bytes: 1000,
            };
            for _ in 0..CALLS {
                let mut out = Vec::new();
                let called = instance.prioritize("fleet", link, &batch, &mut out);
                assert_eq!(out.len(), batch.len(), "{}: one answer each", row.name);
                if called.is_err() {
                    let native = out.iter().all(|answer| *answer == Verdict::Default);
                    assert!(native, "{}: {out:?}", row.name);
                }
                calls.push(called.err().map(|fault| fault.cause.code()));
            }
        }
        "resolve" => {
            let mut resolver = match Resolver::new(&revision, &settings, Arc::clone(&stats)) {
                Ok(resolver) => resolver,
                Err(fault) => return Outcome::Start(fault.cause.code()),
            };
            let other = Value::bytes("other");
            let version =
                |time, value: &Value| Version::put(Stamp { time, id: [1; 16] }, value.hash());
            for _ in 0..CALLS {
                let first = Contender {
                    version: version(1, &value),
                    value: Some(&value),
                };
                let second = Contender {
                    version: version(2, &other),
                    value: Some(&other),
                };
                let before = stats.statistics();
                // A failure of the policy is an answer; only the host is interrupted.
                Resolve::resolve(&mut resolver, "fleet/7", first, second).unwrap();
                let after = stats.statistics();
                calls.push(Cause::ALL.into_iter().find_map(|cause| {
                    let count = |stats: &Statistics| {
                        stats
                            .faults
                            .iter()
                            .find(|row| row.0 == cause)
                            .map_or(0, |row| row.1)
                    };
                    (count(&after) > count(&before)).then(|| cause.code())
                }));
            }
        }
        other => panic!("{}: no hook is called {other}", row.name),
    }
    Outcome::Calls(calls, tokens)
}

fn is_expected(row: &Row, outcome: &Outcome) -> bool {
    let Json::Object(expect) = &row.expect else {
        return false;
    };
    let word = |name: &str| expect.get(name).and_then(Json::as_str);
    let has = |name: &str| expect.contains_key(name);
    match outcome {
        Outcome::Refused(code) => {
            word("refused") == Some(code)
                || has("refused_any")
                || has("each_refused")
                || has("anything")
        }
        Outcome::Start(cause) => word("start") == Some(cause) || has("anything"),
        Outcome::Calls(calls, tokens) => {
            let harmless = calls.iter().all(Option::is_none);
            if let Some(at) = expect.get("fault_at_call").and_then(Json::as_u64) {
                let first = calls.iter().position(Option::is_some);
                return first.map(|index| index as u64 + 1) == Some(at);
            }
            if let Some(cause) = word("fault") {
                return calls.iter().all(|call| *call == Some(cause));
            }
            if let Some(Json::Array(causes)) = expect.get("fault_any") {
                return calls
                    .iter()
                    .all(|call| call.is_some_and(|call| causes.contains(&call.into())));
            }
            if let Some(cause) = word("harmless_or_fault") {
                return calls
                    .iter()
                    .all(|call| call.is_none_or(|call| call == cause));
            }
            if has("same_token") {
                return harmless && tokens.len() == 1;
            }
            // Laws are another matter: `weir policy check` tries them.
            (has("harmless") && harmless) || has("anything") || has("unlawful") || has("lawful")
        }
    }
}

#[test]
fn each_is_met_as_the_corpus_says() {
    let (directory, rows) = corpus();
    let host = host();
    let mut loaded = Loaded::new();
    let mut wrong = Vec::new();
    assert!(rows.len() >= 30, "{} rows", rows.len());
    for row in &rows {
        let bytes = fs::read(directory.join(&row.file)).unwrap();
        let lengths: Vec<usize> = match row.truncate_every {
            Some(every) => (0..bytes.len()).step_by(every).collect(),
            None => vec![bytes.len()],
        };
        for length in lengths {
            let outcome = meet(&host, &mut loaded, row, &bytes[..length]);
            if !is_expected(row, &outcome) {
                wrong.push(format!(
                    "{} ({length} bytes): expected {}, got {outcome:?}",
                    row.name, row.expect
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} rows:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
}
