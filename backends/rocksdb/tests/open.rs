//! What is recognised in a directory, and what a damaged log means.

#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps and fails says where"
)]

#[path = "common/batches.rs"]
mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use rocksdb::{DB, Options};
use tempfile::TempDir;
use weir_backend_api::{Durability, ErrorKind};
use weir_backend_rocksdb::RocksdbSettings;

use crate::common::{commit, has_batch, open, open_with, spec};

/// Opens a database as it is, without this crate.
fn bare(dir: &Path, families: &[&str]) -> DB {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    DB::open_cf(&options, dir, families).unwrap()
}

/// Opening is refused as corrupt, and the message says `words`; nothing in the directory changes.
fn check_refused(dir: &Path, words: &[&str]) {
    let before = listing(dir);
    let error = open(dir).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "no `{word}` in: {message}");
    }
    assert!(message.contains(&*dir.to_string_lossy()), "{message}");
    assert_eq!(listing(dir), before);
}

fn listing(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.path(), entry.metadata().unwrap().len())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn the_stock_backend_is_recognised() {
    let dir = TempDir::new().unwrap();
    let db = bare(dir.path(), &["default", "data_info"]);
    db.put("demo/a", "1").unwrap();
    drop(db);
    check_refused(
        dir.path(),
        &["zenohd", "weir storage import --from zenohd-rocksdb"],
    );
}

#[test]
fn a_foreign_database_is_left_alone() {
    for families in [&["default"][..], &["default", "users"]] {
        let dir = TempDir::new().unwrap();
        bare(dir.path(), families).put("a", "1").unwrap();
        let before = fs::read(dir.path().join("CURRENT")).unwrap();
        let error = open(dir.path()).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert_eq!(fs::read(dir.path().join("CURRENT")).unwrap(), before);
        let left = DB::list_cf(&Options::default(), dir.path()).unwrap();
        assert_eq!(left, families);
    }
}

#[test]
fn a_newer_format_is_refused() {
    let dir = TempDir::new().unwrap();
    open(dir.path()).unwrap().close().unwrap();
    let families = ["default", "latest", "history"];
    bare(dir.path(), &families)
        .put(b"\0format", b"weir\0\0\0\x02")
        .unwrap();
    let error = open(dir.path()).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        error.to_string().contains("newer Weir (format 2"),
        "{error}"
    );

    bare(dir.path(), &families).put(b"\0format", b"?").unwrap();
    let error = open(dir.path()).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn a_database_half_made_is_finished() {
    for families in [&["default"][..], &["default", "latest"]] {
        let dir = TempDir::new().unwrap();
        drop(bare(dir.path(), families));
        let store = open(dir.path()).unwrap();
        commit(&*store, 1, 10, Durability::Written).unwrap();
        assert!(has_batch(&*store, 1, 10));
    }
}

#[test]
fn a_read_only_store_follows_no_writer() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).unwrap();
    commit(&*store, 1, 10, Durability::Written).unwrap();
    let mut reading = spec(dir.path());
    reading.read_only = true;
    let volume = weir_backend_rocksdb::RocksdbVolume::default();
    let reader = weir_backend_api::Volume::open(&volume, &reading).unwrap();
    commit(&*store, 2, 10, Durability::Written).unwrap();
    assert!(has_batch(&*reader, 1, 10));
    assert!(!has_batch(&*reader, 2, 10));
    reader.close().unwrap();
    assert!(has_batch(&*store, 2, 10));
}

/// The newest write-ahead log of a store.
fn log(dir: &Path) -> PathBuf {
    listing(dir)
        .into_iter()
        .map(|(path, _)| path)
        .rfind(|path| path.extension().is_some_and(|extension| extension == "log"))
        .unwrap()
}

/// A store with the batches 0 to 9 of 5 kB each in its log, dropped without a close.
fn logged() -> TempDir {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).unwrap();
    for batch in 0..10 {
        commit(&*store, batch, 5_000, Durability::Synced).unwrap();
    }
    dir
}

#[test]
fn a_torn_end_of_the_log_loses_the_torn_batch_alone() {
    for torn in [1, 100, 40_000] {
        let dir = logged();
        let log = log(dir.path());
        let len = fs::metadata(&log).unwrap().len();
        fs::OpenOptions::new()
            .write(true)
            .open(&log)
            .unwrap()
            .set_len(len - torn)
            .unwrap();
        // Twice: the log stays where it is until its rows are flushed.
        for round in 0..3 {
            let store = open(dir.path()).unwrap();
            for batch in 0..9 {
                assert!(has_batch(&*store, batch, 5_000), "{torn}: {batch}");
            }
            assert!(!has_batch(&*store, 9, 5_000), "{torn}");
            for batch in 0..round {
                assert!(has_batch(&*store, 10 + batch, 10), "{torn}: round {batch}");
            }
            commit(&*store, 10 + round, 10, Durability::Written).unwrap();
        }
    }
}

#[test]
fn damage_inside_the_log_is_told_and_can_be_given_up() {
    let dir = logged();
    let log = log(dir.path());
    let mut bytes = fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&log, bytes).unwrap();
    check_refused(dir.path(), &["damaged", "recover_damaged"]);

    let settings = RocksdbSettings {
        recover_damaged: true,
        ..RocksdbSettings::default()
    };
    let store = open_with(dir.path(), settings).unwrap();
    let held: Vec<bool> = (0..10)
        .map(|batch| has_batch(&*store, batch, 5_000))
        .collect();
    let kept = held.iter().take_while(|held| **held).count();
    assert!((1..9).contains(&kept), "{held:?}");
    assert!(!held[kept..].contains(&true), "{held:?}");
}

#[test]
fn a_file_in_place_of_the_directory_is_an_error() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "x").unwrap();
    let error = open(&path).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("file"), "{error}");
}
