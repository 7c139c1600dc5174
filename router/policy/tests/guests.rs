//! The policies that ship, built from their sources: their cases, their laws, and the laws that the
//! hostile ones break.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::{fs, path::Path, process::Command, sync::Arc};

use serde::Deserialize;
use serde_json::Value as Json;
use weir_policy::{
    Environment, Hook, Host, Resolver, Revision, Settings,
    harness::{
        case::Case,
        cases,
        check::{self, check},
    },
};

/// The root of the guests.
fn policies() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies")
}

fn build(guest: &Path) -> Vec<u8> {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shipped");
    let built = Command::new(policies().join("build"))
        .arg("--out")
        .arg(out)
        .arg(guest)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{said}");
    fs::read(String::from_utf8(built.stdout).unwrap().trim()).unwrap()
}

fn load(host: &Arc<Host>, name: &str, bytes: &[u8]) -> Arc<Revision> {
    host.load(name, bytes)
        .unwrap_or_else(|refusal| panic!("{name}: {refusal}"))
}

fn check_hook(hook: &str) {
    let host = Host::new(Settings::default()).unwrap();
    let mut guests: Vec<_> = fs::read_dir(policies().join(hook))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    guests.sort();
    assert!(guests.len() >= 3, "{guests:?}");
    for guest in guests {
        let name = guest.file_name().unwrap().to_string_lossy().into_owned();
        let revision = load(&host, &name, &build(&guest));
        let entries = cases::read(&guest.join("cases")).unwrap();
        assert!(!entries.is_empty(), "{name} has no cases");
        let report = cases::run(&revision, &entries);
        for ran in &report.cases {
            assert!(
                ran.complaint().is_empty(),
                "{name}: {}: {:#?}",
                ran.name,
                ran.complaint()
            );
        }
        let setup = check::Setup {
            environment: None,
            cases: entries
                .into_iter()
                .filter_map(|entry| entry.case.ok())
                .collect::<Vec<Case>>(),
            // A second or so for each resolver.
            calls_max: 10_000,
        };
        let checked = check(&revision, &setup);
        let problems: Vec<_> = checked.problems.iter().map(check::Problem::text).collect();
        assert!(problems.is_empty(), "{name}:\n{}", problems.join("\n"));
        assert_eq!(
            checked
                .hooks
                .iter()
                .map(|hook| hook.name())
                .collect::<Vec<_>>(),
            [hook],
            "{name}"
        );
    }
}

#[test]
fn routes_decide_as_their_cases_say() {
    check_hook("route");
}

#[test]
fn resolvers_decide_as_their_cases_say_and_keep_the_laws() {
    check_hook("resolve");
}

#[test]
fn prioritizers_decide_as_their_cases_say() {
    check_hook("prioritize");
}

#[derive(Deserialize)]
struct Row {
    name: String,
    hook: String,
    #[serde(default)]
    settings: Json,
    expect: Json,
}

/// A resolver that traps or fails is one, too: the later version wins then, so its laws are those of
/// what is left.
#[test]
fn every_unlawful_resolver_of_the_corpus_is_found_out() {
    let host = Host::new(Settings::default()).unwrap();
    let hostile = policies().join("hostile");
    let revision = load(&host, "villain", &build(&hostile.join("villain")));
    let rows: Vec<Row> =
        serde_json::from_slice(&fs::read(hostile.join("corpus.json")).unwrap()).unwrap();
    let mut wrong = Vec::new();
    let mut tried = 0;
    for row in rows.iter().filter(|row| row.hook == Hook::Resolve.name()) {
        let (lawful, unlawful) = (row.expect["lawful"] == true, row.expect["unlawful"] == true);
        if !lawful && !unlawful {
            continue;
        }
        let environment = Environment::for_resolve(row.settings.to_string());
        let resolver =
            Resolver::new(&revision, &environment.settings_json, Arc::default()).unwrap();
        let found = check::try_laws(&resolver, Vec::new(), 3_000);
        tried += 1;
        match found {
            Ok(_) if unlawful => wrong.push(format!("{}: nothing was found", row.name)),
            Err(example) if lawful => wrong.push(format!("{}: {example}", row.name)),
            _ => {}
        }
    }
    assert!(tried >= 15, "{tried} resolvers");
    assert!(
        wrong.is_empty(),
        "{} of {tried}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
