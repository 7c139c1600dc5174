//! Killing a process that writes, for real: what it was told is committed is there, batches whole.

#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps and fails says where"
)]

use std::{
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use weir_backend_api::{Durability, Store, StoreSpec, Volume};
use weir_backend_filesystem::FilesystemVolume;
use weir_core::{
    change::Write,
    key::Key,
    record::Record,
    value::Value,
    version::{Stamp, Version},
};

/// Where the child writes; the test that is the child does nothing without it.
const DIR: &str = "WEIR_TEST_KILL_DIR";
const KILLS: u64 = 12;

fn open(dir: &Path) -> Box<dyn Store> {
    let spec = StoreSpec {
        dir: dir.to_owned(),
        create: true,
        ..StoreSpec::default()
    };
    FilesystemVolume::new().open(&spec).unwrap()
}

fn keys() -> [Key; 5] {
    ["a", "a/b", "c/d/e", "f", "not/../a/file"].map(Key::from)
}

/// Batch `n`: every key holds `n`, but every third batch deletes the fourth.
fn record(n: u64, key: usize) -> Record {
    let stamp = Stamp {
        time: n << 32,
        id: [1; 16],
    };
    let value = Value::bytes(format!("{n} {}", "x".repeat(20_000)));
    if key == 3 && n.is_multiple_of(3) {
        return Record::own(Version::delete(stamp), None);
    }
    Record::own(Version::put(stamp, value.hash()), Some(value))
}

/// The batch that the store holds, which it must hold whole.
fn held(store: &dyn Store) -> u64 {
    let records: Vec<_> = keys().iter().map(|key| store.get(key).unwrap()).collect();
    let Some(first) = &records[0] else {
        assert_eq!(records, vec![None; 5]);
        return 0;
    };
    let n = first.head.own.stamp.time >> 32;
    for (index, held) in records.into_iter().enumerate() {
        assert_eq!(held, Some(record(n, index)), "batch {n} is torn");
    }
    n
}

#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let store = open(Path::new(&dir));
    let first = held(&*store) + 1;
    for n in first.. {
        let records: Vec<_> = (0..5).map(|key| record(n, key)).collect();
        let keys = keys();
        let batch: Vec<_> = keys
            .iter()
            .zip(&records)
            .map(|(key, record)| Write::Latest {
                key,
                record: record.as_ref(),
            })
            .collect();
        store.commit(&batch, Durability::Written).unwrap();
        println!("\ncommitted {n}");
        std::io::stdout().flush().unwrap();
    }
}

#[test]
fn a_killed_process_loses_nothing_that_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        // Killed somewhere in the batch after this one; the numbers differ from run to run of the
        // loop, so that checkpoints (every 160 batches) are met as well.
        let commits = usize::try_from(1 + kill * 16).unwrap();
        let told = output.lines().filter_map(|line| {
            let line = line.unwrap();
            line.strip_prefix("committed ")
                .map(|n| n.parse::<u64>().unwrap())
        });
        let told = told.take(commits).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let store = open(dir.path());
        let held = held(&*store);
        assert!(held >= told, "told {told}, holds {held}");
        assert!(held > last);
        last = held;
        // Every other time it is left as a crash leaves it.
        if kill % 2 == 0 {
            store.close().unwrap();
        }
    }
    assert!(last > KILLS);
}
