//! Directories that a real zenohd has written (`fixtures/make-zenohd.py`), read as they would be
//! imported, against what zenohd itself answered.

#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps and fails says where"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tempfile::TempDir;
use weir_backend_api::{Error, ErrorKind};
use weir_backend_stock::{Changes, StockFilesystem, StockRocksdb};
use weir_core::{
    change::Change,
    key::Key,
    value::{Encoding, Value},
    version::Stamp,
};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// What zenohd answered.
fn expected(path: &Path) -> BTreeMap<String, Change> {
    let text = fs::read_to_string(path).unwrap();
    let rows = text.lines().map(|line| {
        let fields: Vec<_> = line.split('\t').collect();
        let [key, time, id, encoding, schema, payload] = fields[..] else {
            panic!("{line:?}");
        };
        let change = Change {
            key: Key::from(key),
            stamp: Some(Stamp {
                time: time.parse().unwrap(),
                id: id_of(id),
            }),
            value: Some(Value {
                encoding: Encoding {
                    id: encoding.parse().unwrap(),
                    schema: (schema != "-").then(|| Bytes::copy_from_slice(schema.as_bytes())),
                },
                attachment: None,
                payload: unhex(payload),
            }),
        };
        (key.to_owned(), change)
    });
    rows.collect()
}

fn unhex(text: &str) -> Bytes {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// uhlc prints an id as one hexadecimal number, and keeps it little-endian.
fn id_of(text: &str) -> [u8; 16] {
    u128::from_str_radix(text, 16).unwrap().to_le_bytes()
}

fn collect(changes: Changes) -> (BTreeMap<String, Change>, Vec<Error>) {
    let mut read = BTreeMap::new();
    let mut errors = Vec::new();
    for change in changes {
        match change {
            Ok(change) => {
                let key = change.key.to_string();
                assert_eq!(read.insert(key, change), None, "a key came twice");
            }
            Err(error) => errors.push(error),
        }
    }
    (read, errors)
}

/// Names, lengths and times of everything below a directory.
fn listing(dir: &Path) -> Vec<(PathBuf, u64, SystemTime)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let about = entry.metadata().unwrap();
        if about.is_dir() {
            files.extend(listing(&entry.path()));
        }
        files.push((entry.path(), about.len(), about.modified().unwrap()));
    }
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_rocksdb_directory_is_read_as_zenohd_answers_it() {
    for kind in ["stripped", "plain"] {
        let dir = fixtures().join("rocksdb").join(kind);
        let before = listing(&dir);
        let stock = StockRocksdb::open(&dir).unwrap();
        let expected = expected(&dir.with_extension("expected"));
        assert!(stock.total().unwrap() >= expected.len() as u64);
        let (read, errors) = collect(stock.changes().unwrap());
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(read, expected, "{kind}");
        assert!(expected.len() > 45);
        assert_eq!(expected.contains_key(""), kind == "stripped");
        assert_eq!(listing(&dir), before, "the directory was changed");
    }
}

#[test]
fn a_filesystem_directory_is_read_as_zenohd_answers_it() {
    for kind in ["stripped", "plain"] {
        let dir = fixtures().join("filesystem").join(kind);
        let before = listing(&dir);
        let stock = StockFilesystem::open(&dir).unwrap();
        let expected = expected(&dir.with_extension("expected"));
        assert!(stock.total().unwrap() >= expected.len() as u64);
        let (read, errors) = collect(stock.changes().unwrap());
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(read, expected, "{kind}");
        assert!(expected.len() > 45);
        assert_eq!(listing(&dir), before, "the directory was changed");
    }
}

#[test]
fn files_by_hand_have_the_files_time_and_bad_names_are_told() {
    let temp = TempDir::new().unwrap();
    let dir = temp.path().join("elsewhere");
    copy(&fixtures().join("filesystem/stripped"), &dir);
    let hand = dir.join("sub/page.html");
    fs::create_dir_all(hand.parent().unwrap()).unwrap();
    fs::write(&hand, "<p>").unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    fs::File::options()
        .write(true)
        .open(&hand)
        .unwrap()
        .set_modified(time)
        .unwrap();
    fs::write(dir.join("no*key"), "").unwrap();
    let (mut read, errors) = collect(StockFilesystem::open(&dir).unwrap().changes().unwrap());
    let change = read.remove("sub/page.html").unwrap();
    let stamp = Stamp {
        time: 1_700_000_000 << 32,
        id: id_of("1"),
    };
    assert_eq!(change.stamp, Some(stamp));
    assert_eq!(change.value.unwrap().encoding.id, 23);
    assert_eq!(
        read,
        expected(&fixtures().join("filesystem/stripped.expected"))
    );
    assert_eq!(errors.len(), 1);
    assert!(errors[0].to_string().contains("no*key"), "{}", errors[0]);
}

#[test]
fn a_database_that_lost_a_table_tells_which_entries_are_lost() {
    let temp = TempDir::new().unwrap();
    let whole = expected(&fixtures().join("rocksdb/plain.expected"));
    let source = fixtures().join("rocksdb/plain");
    let tables = listing(&source);
    let tables = tables
        .iter()
        .filter(|(path, ..)| path.extension().is_some_and(|e| e == "sst"));
    for (number, (table, ..)) in tables.enumerate() {
        let dir = temp.path().join(number.to_string());
        copy(&source, &dir);
        fs::remove_file(dir.join(table.file_name().unwrap())).unwrap();
        let (read, errors) = collect(StockRocksdb::open(&dir).unwrap().changes().unwrap());
        assert!(!errors.is_empty());
        assert!(read != whole);
        // Nothing is made up: what is read was there once.
        assert!(
            read.keys().all(|key| whole.contains_key(key)
                || key.contains("gone")
                || key.contains("many/7"))
        );
    }
}

#[test]
fn other_directories_are_refused() {
    let temp = TempDir::new().unwrap();
    let kinds = [
        StockRocksdb::open(temp.path()).unwrap_err().kind(),
        StockFilesystem::open(temp.path()).unwrap_err().kind(),
        // A database without the families of that backend.
        StockRocksdb::open(&fixtures().join("filesystem/plain/.zenoh_datainfo"))
            .unwrap_err()
            .kind(),
    ];
    let unavailable = ErrorKind::Unavailable;
    assert_eq!(kinds, [unavailable, unavailable, ErrorKind::Corrupt]);
}
