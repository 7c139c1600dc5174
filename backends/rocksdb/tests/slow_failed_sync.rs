//! A disk that does not sync: strace makes the system call fail in a process of its own.
//! Needs strace; says so and passes without.

#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps and fails says where"
)]
#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test that cannot run says why; its child process reports on its output"
)]

#[path = "common/batches.rs"]
mod common;

use std::{path::Path, process::Command};

use tempfile::TempDir;
use weir_backend_api::{Durability, ErrorKind};

use crate::common::{commit, has_batch, open};

const PAYLOAD_BYTES: usize = 500;
const DIR: &str = "WEIR_TEST_SYNC_DIR";

/// Not a test of its own: what the process does whose syncs fail.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let store = open(Path::new(&dir)).unwrap();
    for batch in 0..1_000 {
        match commit(&*store, batch, PAYLOAD_BYTES, Durability::Synced) {
            Ok(_) => println!("committed {batch}"),
            Err(error) => {
                println!("failed {error}");
                // Nothing more is promised, not even what needs no sync; reads go on.
                let written = commit(&*store, batch + 1, PAYLOAD_BYTES, Durability::Written);
                assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
                assert_eq!(written.unwrap_err().kind(), ErrorKind::Poisoned);
                assert_eq!(store.sync().unwrap_err().kind(), ErrorKind::Poisoned);
                assert!(has_batch(&*store, 0, PAYLOAD_BYTES));
                println!("poisoned");
                return;
            }
        }
    }
}

#[test]
fn after_a_failed_sync_nothing_more_is_promised() {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("skipped: no strace");
        return;
    }
    let dir = TempDir::new().unwrap();
    // Made beforehand, so that the syncs that fail are those of commits.
    open(dir.path()).unwrap().close().unwrap();
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync"])
        .args(["-e", "inject=fdatasync:error=EIO:when=30+"])
        .arg(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture"])
        .env(DIR, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("ptrace") {
        eprintln!("skipped: strace may not trace here: {errors}");
        return;
    }
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.contains("poisoned"), "no sync failed: {said}{errors}");
    // The output of the test harness and of the child share a line at first.
    let committed: Vec<u64> = said
        .lines()
        .filter_map(|line| line.split_once("committed ")?.1.parse().ok())
        .collect();
    assert!(!committed.is_empty(), "{said}");
    let store = open(dir.path()).unwrap();
    for batch in &committed {
        assert!(has_batch(&*store, *batch, PAYLOAD_BYTES), "{batch} is lost");
    }
    // Unknown, but whole or absent; and it can be written now.
    let failed = committed.len() as u64;
    has_batch(&*store, failed, PAYLOAD_BYTES);
    commit(&*store, failed, PAYLOAD_BYTES, Durability::Synced).unwrap();
}
