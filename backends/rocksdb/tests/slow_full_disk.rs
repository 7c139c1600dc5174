//! A disk that is really full: a small tmpfs. Needs root; says so and passes without.

#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps and fails says where"
)]
#![allow(clippy::print_stderr, reason = "a test that cannot run says why")]

#[path = "common/batches.rs"]
mod common;

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use weir_backend_api::{Durability, ErrorKind, Store};
use weir_backend_rocksdb::RocksdbSettings;

use crate::common::{commit, has_batch, open_with};

const DISK: &str = "48m";
const PAYLOAD_BYTES: usize = 20_000;
/// Larger than the reserve, so that its removal makes room again.
const BALLAST_BYTES: usize = 16 << 20;

/// A small disk, unmounted when dropped.
struct Disk(TempDir);

impl Disk {
    fn mount() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={DISK}"), "tmpfs"])
            .arg(dir.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(dir)),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                eprintln!("skipped: cannot mount a small disk: {}", why.trim());
                None
            }
            Err(error) => {
                eprintln!("skipped: cannot mount a small disk: {error}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("cannot unmount {}", self.0.path().display());
        }
    }
}

fn settings(reserve_bytes: u64) -> RocksdbSettings {
    RocksdbSettings {
        buffer_bytes: 2 << 20,
        reserve_bytes,
        ..RocksdbSettings::default()
    }
}

/// Commits from `first` on until the disk is full; the number and the kind of the first failure.
fn fill(store: &dyn Store, first: u64) -> (u64, ErrorKind) {
    for batch in first.. {
        if let Err(error) = commit(store, batch, PAYLOAD_BYTES, Durability::Written) {
            eprintln!("batch {batch}: {error}");
            return (batch, error.kind());
        }
    }
    unreachable!("a disk of {DISK} holds everything")
}

#[test]
fn with_a_reserve_a_full_disk_is_told_before_anything_breaks() {
    let Some(disk) = Disk::mount() else { return };
    let dir = disk.path().join("store");
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![1; BALLAST_BYTES]).unwrap();
    let mut store = open_with(&dir, settings(1 << 30)).unwrap();
    let mut failed = 0;
    // Flushes and compactions find room for some more.
    for _ in 0..3 {
        let kind;
        (failed, kind) = fill(&*store, failed);
        if kind == ErrorKind::Poisoned {
            // A compaction took the reserve between the look at it and the commit. That is not told
            // beforehand, and costs nothing either.
            store = recover(&dir, store, kind, failed, &ballast);
            failed += 1;
            break;
        }
        assert_eq!(kind, ErrorKind::Full);
    }
    // Everything is there and can be read, and nothing of the refused batch is.
    for batch in 0..failed {
        assert!(has_batch(&*store, batch, PAYLOAD_BYTES), "{batch}");
    }
    assert!(!has_batch(&*store, failed, PAYLOAD_BYTES));
    // With space again it goes on without being opened again: at once, or when RocksDB next looks
    // for space if a compaction had needed more than the reserve.
    if ballast.exists() {
        fs::remove_file(&ballast).unwrap();
    }
    let start = Instant::now();
    while let Err(error) = commit(&*store, failed, PAYLOAD_BYTES, Durability::Synced) {
        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        assert!(start.elapsed() < Duration::from_secs(30), "{error}");
        std::thread::sleep(Duration::from_millis(100));
    }
    store.close().unwrap();
    let store = open_with(&dir, settings(1 << 30)).unwrap();
    for batch in 0..=failed {
        assert!(has_batch(&*store, batch, PAYLOAD_BYTES), "{batch}");
    }
}

#[test]
fn without_a_reserve_a_full_disk_tears_nothing() {
    let Some(disk) = Disk::mount() else { return };
    let ballast = disk.path().join("ballast");
    // The log, a flush or a compaction is what hits the end of the disk, so more than once.
    for round in 0..6 {
        let dir = disk.path().join(format!("store-{round}"));
        fs::write(&ballast, vec![1; BALLAST_BYTES + round * 300_000]).unwrap();
        let store = open_with(&dir, settings(0)).unwrap();
        let (failed, kind) = fill(&*store, 0);
        let store = recover(&dir, store, kind, failed, &ballast);
        for batch in 0..=failed {
            assert!(has_batch(&*store, batch, PAYLOAD_BYTES), "{batch}");
        }
        assert!(!has_batch(&*store, failed + 1, PAYLOAD_BYTES));
        store.close().unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }
}

/// Does what a driver does: opens a poisoned store again, and tries the refused batch until it is
/// committed. Makes space after the first try.
fn recover(
    dir: &Path,
    store: Box<dyn Store>,
    mut kind: ErrorKind,
    batch: u64,
    ballast: &Path,
) -> Box<dyn Store> {
    let mut store = Some(store);
    let start = Instant::now();
    loop {
        if kind == ErrorKind::Poisoned {
            store = None;
        }
        let tried = match &store {
            None => open_with(dir, settings(0)).map(|opened| store = Some(opened)),
            Some(open) => match commit(&**open, batch, PAYLOAD_BYTES, Durability::Written) {
                Ok(_) => return store.unwrap(),
                Err(error) => Err(error),
            },
        };
        match tried {
            // It is open; the batch comes next.
            Ok(()) => kind = ErrorKind::Unavailable,
            Err(error) => {
                eprintln!("after {:?}: {error}", start.elapsed());
                let passing = [ErrorKind::Full, ErrorKind::Poisoned, ErrorKind::Unavailable];
                assert!(passing.contains(&error.kind()), "{error}");
                assert!(start.elapsed() < Duration::from_secs(30), "{error}");
                kind = error.kind();
                if ballast.exists() {
                    fs::remove_file(ballast).unwrap();
                } else {
                    // RocksDB itself looks for space every 5 s.
                    std::thread::sleep(Duration::from_millis(500));
                }
            }
        }
    }
}
