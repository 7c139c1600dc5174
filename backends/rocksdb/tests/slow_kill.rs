//! Real processes that are killed with SIGKILL, and real locks between processes.
//!
//! The test starts itself again as the process to be killed.

#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps and fails says where"
)]

#[path = "common/batches.rs"]
mod common;

use std::{
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use weir_backend_api::{Durability, ErrorKind};

use crate::common::{commit, has_batch, open};

const ROUNDS: u64 = 40;
const PAYLOAD_BYTES: usize = 2_000;
const DIR: &str = "WEIR_TEST_KILL_DIR";
const FIRST: &str = "WEIR_TEST_KILL_FIRST";

/// Not a test of its own: what the process to be killed does.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let first = std::env::var(FIRST).unwrap().parse().unwrap();
    let store = open(Path::new(&dir)).unwrap();
    let mut out = std::io::stdout();
    for batch in first.. {
        commit(&*store, batch, PAYLOAD_BYTES, Durability::Written).unwrap();
        writeln!(out, "committed {batch}").unwrap();
        out.flush().unwrap();
    }
}

fn spawn(dir: &Path, first: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture"])
        .env(DIR, dir)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for `count` commits, and gives what is still to be read.
fn wait_for(child: &mut Child, count: u64) -> (u64, BufReader<std::process::ChildStdout>) {
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut last = 0;
    for _ in 0..count {
        last = next_committed(&mut lines).unwrap();
    }
    (last, lines)
}

fn next_committed(lines: &mut impl BufRead) -> Option<u64> {
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 0 {
        // The last line may be torn by the kill; it counts only with its end.
        if let Some((_, number)) = line.trim_end_matches('\n').split_once("committed ")
            && line.ends_with('\n')
        {
            return Some(number.parse().unwrap());
        }
        line.clear();
    }
    None
}

#[test]
fn a_killed_process_loses_nothing_committed() {
    let dir = TempDir::new().unwrap();
    let mut first = 0;
    for round in 0..ROUNDS {
        let mut child = spawn(dir.path(), first);
        // Right after the open, and up to some flushes later.
        let (mut last, mut lines) = wait_for(&mut child, 1 + round * round % 300);
        child.kill().unwrap();
        child.wait().unwrap();
        while let Some(batch) = next_committed(&mut lines) {
            last = batch;
        }
        let store = open(dir.path()).unwrap();
        for batch in first..=last {
            assert!(
                has_batch(&*store, batch, PAYLOAD_BYTES),
                "round {round}: batch {batch} of {first}..={last} is lost"
            );
        }
        // Committed and killed before it could say so, or not committed: whole in either case.
        has_batch(&*store, last + 1, PAYLOAD_BYTES);
        assert!(!has_batch(&*store, last + 2, PAYLOAD_BYTES));
        first = last + 2;
    }
}

#[test]
fn a_store_of_another_process_is_named() {
    let dir = TempDir::new().unwrap();
    let mut child = spawn(dir.path(), 0);
    let (_, lines) = wait_for(&mut child, 1);
    let error = open(dir.path()).map(|_| ()).unwrap_err();
    child.kill().unwrap();
    child.wait().unwrap();
    drop(lines);
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let message = error.to_string();
    assert!(message.contains("in use by another"), "{message}");
    assert!(
        message.contains(&*dir.path().to_string_lossy()),
        "{message}"
    );
    open(dir.path()).unwrap();
}
