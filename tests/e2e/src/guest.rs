//! Policies as their authors build them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

/// The module of a policy under `policies/`, built if something of it changed; `None`, and the test
/// is skipped, if no toolchain for guests can be had.
///
/// # Panics
/// If there is a toolchain and it does not build.
#[must_use]
pub fn built(policy: &str) -> Option<PathBuf> {
    static BUILT: Mutex<BTreeMap<String, Option<PathBuf>>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap();
    built
        .entry(policy.to_owned())
        .or_insert_with(|| build(policy))
        .clone()
}

fn build(policy: &str) -> Option<PathBuf> {
    let policies = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies"));
    let done = Command::new(policies.join("build"))
        .arg(policies.join(policy))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    if errors.contains("cannot build Rust guests") {
        crate::skip(&format!("{policy} cannot be built here: {errors}"));
        return None;
    }
    assert!(done.status.success(), "{policy}: {errors}");
    let path = String::from_utf8(done.stdout).unwrap();
    Some(path.lines().last().unwrap().trim().into())
}
