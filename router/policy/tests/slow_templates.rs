//! The templates of `weir policy new`, built by the tools of their languages and run: their cases, and
//! the laws of those that resolve. A template whose tools cannot be had here is named and left out.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]
#![allow(
    clippy::print_stdout,
    reason = "tests talk to whoever reads their output"
)]

use std::{fs, fs::OpenOptions, io::Write, path::Path, process::Command};

use weir_policy::{
    Host, Settings,
    harness::{
        cases,
        check::{self, check},
    },
};

/// Builds and runs a template; `needs` are the programs without which it cannot be built.
fn check_template(language: &str, needs: &[&str]) {
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
    let template = policies.join("templates").join(language);
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("templates");
    let built = Command::new(policies.join("build"))
        .arg("--out")
        .arg(&out)
        .arg(&template)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    if !built.status.success() {
        let has = |program: &&&str| {
            Command::new(program)
                .arg("--version")
                .output()
                .is_ok_and(|tried| tried.status.success())
        };
        let missing: Vec<_> = needs.iter().filter(|program| !has(program)).collect();
        assert!(!missing.is_empty(), "{language}:\n{said}");
        skip(language, &format!("missing here: {missing:?}"));
        return;
    }
    let bytes = fs::read(String::from_utf8(built.stdout).unwrap().trim()).unwrap();
    let host = Host::new(Settings::default()).unwrap();
    let revision = host
        .load(language, &bytes)
        .unwrap_or_else(|refusal| panic!("{language}: {refusal}"));
    let entries = cases::read(&template.join("cases")).unwrap();
    assert!(!entries.is_empty());
    for ran in &cases::run(&revision, &entries).cases {
        assert!(
            ran.complaint().is_empty(),
            "{language}: {}: {:#?}",
            ran.name,
            ran.complaint()
        );
    }
    let setup = check::Setup {
        environment: None,
        cases: entries
            .into_iter()
            .filter_map(|entry| entry.case.ok())
            .collect(),
        // An interpreter takes a hundred times as long as a compiled guest.
        calls_max: 500,
    };
    let checked = check(&revision, &setup);
    let problems: Vec<_> = checked.problems.iter().map(check::Problem::text).collect();
    assert!(problems.is_empty(), "{language}:\n{}", problems.join("\n"));
}

/// Tells whoever runs all tests that this one did not run: it is no pass.
fn skip(test: &str, reason: &str) {
    println!("NOT TRIED: {test}: {reason}");
    if let Some(path) = std::env::var_os("WEIR_SKIPPED") {
        let file = OpenOptions::new().append(true).create(true).open(path);
        writeln!(file.unwrap(), "{test}\t{reason}").unwrap();
    }
}

#[test]
fn rust() {
    check_template("rust", &["cargo"]);
}

#[test]
fn c() {
    check_template("c", &["clang", "wasm-ld"]);
}

#[test]
fn js() {
    check_template("js", &["node", "npm"]);
}

#[test]
fn python() {
    check_template("python", &["python3"]);
}
