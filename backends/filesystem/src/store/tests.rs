//! Names, conflicts and files by hand, on a real directory.

use std::{
    os::unix::fs::{MetadataExt, symlink},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tempfile::TempDir;
use weir_backend_api::Direction;
use weir_core::{
    key::KeyRange,
    record::Record,
    value::{Encoding, Value},
    version::{Kind, Stamp, Version},
};

use super::*;

/// Seconds of an ordinary version.
const NOW: u64 = 1_700_000_000;

struct Site {
    store: FilesystemStore,
    temp: TempDir,
}

impl Site {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let store = open(temp.path());
        Self { store, temp }
    }

    fn reopen(self) -> Self {
        Box::new(self.store).close().unwrap();
        let store = open(self.temp.path());
        Self { store, ..self }
    }

    fn put(&self, key: &str, payload: &'static str, seconds: u64) -> Record {
        let value = Value {
            encoding: Encoding {
                id: 5,
                schema: Some(Bytes::from("s")),
            },
            attachment: Some(Bytes::from("a")),
            payload: Bytes::from(payload),
        };
        self.write(key, seconds, Some(value))
    }

    fn delete(&self, key: &str, seconds: u64) -> Record {
        self.write(key, seconds, None)
    }

    fn write(&self, key: &str, seconds: u64, value: Option<Value>) -> Record {
        let stamp = Stamp {
            time: seconds << 32,
            id: [9; 16],
        };
        let version = value.as_ref().map_or(Version::delete(stamp), |value| {
            Version::put(stamp, value.hash())
        });
        let record = Record::own(version, value);
        let key = &Key::from(key);
        let batch = [Write::Latest {
            key,
            record: record.as_ref(),
        }];
        self.store.commit(&batch, Durability::Written).unwrap();
        record
    }

    /// Puts a file there by hand.
    fn file(&self, path: &str, content: &str, seconds: u64) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(time)
            .unwrap();
    }

    fn path(&self, path: &str) -> PathBuf {
        self.temp.path().join(path)
    }

    fn content(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok()
    }

    /// What `get`, `heads` and a scan agree on.
    fn get(&self, key: &str) -> Option<Record> {
        let key = Key::from(key);
        let record = self.store.get(&key).unwrap();
        let heads = self.store.heads(&[&key]).unwrap();
        assert_eq!(
            heads[0],
            record.as_ref().map(|record| record.head),
            "{key:?}"
        );
        let snapshot = self.store.snapshot().unwrap();
        let scanned: Vec<_> = snapshot
            .latest(&KeyRange::only(&key), Direction::Forward)
            .map(Result::unwrap)
            .collect();
        let expected: Vec<_> = record
            .iter()
            .map(|record| (key.clone(), record.clone()))
            .collect();
        assert_eq!(scanned, expected);
        record
    }

    fn payload(&self, key: &str) -> Option<Bytes> {
        self.get(key)?.value.map(|value| value.payload)
    }

    fn keys(&self, range: &KeyRange) -> Vec<String> {
        let snapshot = self.store.snapshot().unwrap();
        let keys = |direction| -> Vec<_> {
            let rows = snapshot.latest(range, direction);
            rows.map(|row| row.unwrap().0.to_string()).collect()
        };
        let forward = keys(Direction::Forward);
        let mut backward = keys(Direction::Backward);
        backward.reverse();
        assert_eq!(forward, backward);
        forward
    }
}

fn open(dir: &Path) -> FilesystemStore {
    FilesystemStore::open(&spec(dir)).unwrap()
}

fn spec(dir: &Path) -> StoreSpec {
    StoreSpec {
        name: "test".into(),
        dir: dir.to_owned(),
        create: true,
        ..StoreSpec::default()
    }
}

#[test]
fn values_are_files_that_a_user_can_read() {
    let site = Site::new();
    for (key, path) in [
        ("a/b.json", "a/b.json"),
        ("", "@root"),
        ("@root", ""),
        (".weir", ""),
        ("../escape", ""),
        ("x/..", ""),
        ("sp ace/é", "sp ace/é"),
    ] {
        let record = site.put(key, "payload", NOW);
        assert_eq!(site.get(key), Some(record), "{key:?}");
        if !path.is_empty() {
            assert_eq!(site.content(path).as_deref(), Some("payload"), "{key:?}");
            let seconds = fs::metadata(site.path(path)).unwrap().mtime();
            assert_eq!(seconds, i64::try_from(NOW).unwrap());
        }
    }
    assert!(!site.temp.path().parent().unwrap().join("escape").exists());
    let long = "l".repeat(300);
    let record = site.put(&long, "long", NOW);
    let site = site.reopen();
    assert_eq!(site.get(&long), Some(record));
    assert_eq!(site.payload("../escape"), Some(Bytes::from("payload")));
}

#[test]
fn a_delete_leaves_no_file_and_no_empty_directory() {
    let site = Site::new();
    site.put("a/b/c", "1", NOW);
    site.put("a/d", "2", NOW);
    let tombstone = site.delete("a/b/c", NOW + 1);
    assert_eq!(site.get("a/b/c"), Some(tombstone));
    assert!(!site.path("a/b").exists());
    assert_eq!(site.content("a/d").as_deref(), Some("2"));
    site.delete("a/d", NOW + 1);
    assert!(!site.path("a").exists());
    assert!(site.temp.path().exists());
}

#[test]
fn a_key_that_is_also_a_directory_gets_the_stock_suffix() {
    let site = Site::new();
    let a = site.put("a", "file first", NOW);
    let snapshot = site.store.snapshot().unwrap();
    let under = site.put("a/b", "then under it", NOW);
    assert_eq!(site.content("a.##z").as_deref(), Some("file first"));
    assert_eq!(site.content("a/b").as_deref(), Some("then under it"));
    assert_eq!(snapshot.get(&Key::from("a")).unwrap(), Some(a.clone()));
    assert_eq!(snapshot.get(&Key::from("a/b")).unwrap(), None);
    drop(snapshot);

    site.put("c/d", "directory first", NOW);
    let c = site.put("c", "then the file", NOW);
    assert_eq!(site.content("c.##z").as_deref(), Some("then the file"));
    let site = site.reopen();
    assert_eq!(site.get("a"), Some(a));
    assert_eq!(site.get("a/b"), Some(under));
    assert_eq!(site.get("c"), Some(c));
    assert_eq!(site.keys(&KeyRange::all()), ["a", "a/b", "c", "c/d"]);

    site.delete("a/b", NOW + 1);
    assert_eq!(site.payload("a"), Some(Bytes::from("file first")));
    let a = site.put("a", "plain again", NOW + 1);
    assert_eq!(site.get("a"), Some(a));
    assert_eq!(site.content("a").as_deref(), Some("plain again"));
    assert_eq!(site.content("a.##z"), None);
    site.delete("c", NOW + 1);
    assert_eq!(site.content("c.##z"), None);
    assert_eq!(site.content("c/d").as_deref(), Some("directory first"));
}

#[test]
fn files_put_there_by_hand_are_served_in_order() {
    let site = Site::new();
    site.put("b", "ours", NOW);
    site.file("a.txt", "hand", NOW);
    site.file("d/w.json", "{}", NOW + 1);
    site.file("d/x/y", "under ours", NOW);
    site.put("d/x", "ours", NOW);
    site.file("d-/z", "after d/", NOW);
    site.file("f.##z", "a conflict of the stock backend's", NOW);
    site.file("@root", "root", NOW);
    let record = site.get("d/w.json").unwrap();
    let value = record.value.unwrap();
    assert_eq!(
        value.encoding,
        Encoding {
            id: 5,
            schema: None
        }
    );
    assert_eq!(&value.payload[..], b"{}");
    let mut id = [0; 16];
    id[0] = 1;
    let stamp = Stamp {
        time: (NOW + 1) << 32,
        id,
    };
    assert_eq!(
        record.head.own,
        Version::put(
            stamp,
            Value {
                payload: value.payload.clone(),
                ..value
            }
            .hash()
        )
    );
    let all = ["", "a.txt", "b", "d/w.json", "d/x", "d/x/y", "d-/z", "f"];
    assert_eq!(site.keys(&KeyRange::all()), all);
    let under = KeyRange::under(&Key::from("d"));
    assert_eq!(site.keys(&under), ["d/w.json", "d/x", "d/x/y"]);
    let some = under.clone().after(&Key::from("d/w.json"));
    assert_eq!(site.keys(&some), ["d/x", "d/x/y"]);
    assert_eq!(
        site.keys(&under.before(&Key::from("d/x/y"))),
        ["d/w.json", "d/x"]
    );
    let site = site.reopen();
    assert_eq!(site.keys(&KeyRange::all()), all);
    // Once written through us they are ours.
    let ours = site.put("d/w.json", "[]", NOW + 9);
    assert_eq!(site.get("d/w.json"), Some(ours));
    assert_eq!(site.keys(&KeyRange::all()), all);
}

#[test]
fn what_cannot_be_a_key_or_is_a_link_is_not_served() {
    let site = Site::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "x").unwrap();
    symlink(outside.path(), site.path("dir")).unwrap();
    symlink(outside.path().join("secret"), site.path("link")).unwrap();
    site.file("st*r", "x", NOW);
    site.file("half#", "x", NOW);
    let pipe = std::process::Command::new("mkfifo")
        .arg(site.path("pipe"))
        .status();
    assert!(pipe.unwrap().success());
    assert_eq!(site.keys(&KeyRange::all()), Vec::<String>::new());
    for key in [
        "link",
        "dir/secret",
        "st*r",
        "half#",
        "pipe",
        ".weir/index",
        ".weir/log",
    ] {
        assert_eq!(site.get(key), None, "{key}");
    }
    // Nothing is written through a link either.
    let record = site.put("dir/new", "ours", NOW);
    assert_eq!(site.get("dir/new"), Some(record));
    assert!(!outside.path().join("new").exists());
}

#[test]
fn a_file_changed_by_hand_is_a_newer_version() {
    let site = Site::new();
    let ours = site.put("a.txt", "ours", NOW);
    // Touched, or copied back from a backup, it is the same.
    site.file("a.txt", "ours", NOW + 50);
    assert_eq!(site.get("a.txt"), Some(ours.clone()));
    for (content, seconds, expected) in [
        ("newer", NOW + 60, (NOW + 60) << 32),
        // An editor that keeps the time, or a copy of an old file.
        ("older", NOW - 60, (NOW << 32) + 1),
    ] {
        site.file("a.txt", content, seconds);
        let record = site.get("a.txt").unwrap();
        assert!(record.head.own > ours.head.own, "{content}");
        assert_eq!(record.head.own.stamp.time, expected, "{content}");
        let value = record.value.unwrap();
        assert_eq!(&value.payload[..], content.as_bytes());
        assert_eq!(value.encoding.id, 4);
        assert_eq!(value.attachment, None);
    }
    let site = site.reopen();
    assert_eq!(site.payload("a.txt"), Some(Bytes::from("older")));
    // Who has begun to read sees what was there, whoever wrote it.
    let snapshot = site.store.snapshot().unwrap();
    let ours = site.put("a.txt", "ours again", NOW + 99);
    let seen = snapshot.get(&Key::from("a.txt")).unwrap().unwrap();
    assert_eq!(seen.value.unwrap().payload, Bytes::from("older"));
    drop(snapshot);
    assert_eq!(site.get("a.txt"), Some(ours));
}

#[test]
fn a_file_removed_by_hand_is_a_delete_without_a_stamp() {
    let site = Site::new();
    let ours = site.put("a/b", "ours", NOW);
    fs::remove_file(site.path("a/b")).unwrap();
    let record = site.get("a/b").unwrap();
    assert_eq!(record.head.own, ours.head.own.tombstone());
    assert_eq!(record.value, None);
    // Moved back it is what it was.
    site.file("a/b", "ours", NOW);
    assert_eq!(site.get("a/b"), Some(ours));
}

#[test]
fn a_file_put_back_by_hand_after_a_delete_is_newer_than_the_delete() {
    let site = Site::new();
    site.put("a", "ours", NOW);
    let tombstone = site.delete("a", NOW + 1);
    site.file("a", "hand", NOW);
    let record = site.get("a").unwrap();
    assert!(record.head.own > tombstone.head.own);
    assert_eq!(record.head.own.kind, Kind::Put);
    let gone = site.delete("a", NOW + 2);
    assert_eq!(site.get("a"), Some(gone));
    assert_eq!(site.content("a"), None);
}

#[test]
fn a_reader_sees_one_moment_while_files_come_and_go() {
    let site = Site::new();
    let old = site.put("a", "old", NOW);
    let dead = site.put("b", "soon dead", NOW);
    let snapshot = site.store.snapshot().unwrap();
    for n in 1..5 {
        site.put("a", "new", NOW + n);
        site.put("c/d", "later", NOW + n);
    }
    site.delete("b", NOW + 1);
    let rows: Vec<_> = snapshot
        .latest(&KeyRange::all(), Direction::Forward)
        .map(Result::unwrap)
        .collect();
    assert_eq!(rows, [(Key::from("a"), old), (Key::from("b"), dead)]);
    let kept = || fs::read_dir(site.path(".weir/kept")).unwrap().count();
    assert!(kept() > 0);
    drop(snapshot);
    assert_eq!(kept(), 0);
}

#[test]
fn a_stock_directory_is_refused_and_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join(".zenoh_datainfo")).unwrap();
    let error = FilesystemStore::open(&spec(temp.path())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let hint = "weir storage import --from zenohd-filesystem";
    assert!(error.to_string().contains(hint), "{error}");
    assert!(!temp.path().join(".weir").exists());
}

#[test]
fn a_directory_to_be_read_only_is_left_as_it_is() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("index.html"), "<p>").unwrap();
    let spec = StoreSpec {
        read_only: true,
        ..spec(temp.path())
    };
    let store = FilesystemStore::open(&spec).unwrap();
    let record = store.get(&Key::from("index.html")).unwrap().unwrap();
    assert_eq!(record.value.unwrap().encoding.id, 23);
    assert_eq!(store.sync().unwrap(), Durability::Synced);
    assert!(store.count().unwrap().keys == 0);
    Box::new(store).close().unwrap();
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
}

#[test]
fn a_file_system_that_ignores_case_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join(".weir")).unwrap();
    // There it would be the store's own lock.
    fs::write(temp.path().join(".weir/LOCK"), "").unwrap();
    let error = FilesystemStore::open(&spec(temp.path())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("case"), "{error}");
}

#[test]
fn a_newer_format_is_refused() {
    let site = Site::new();
    site.put("a", "x", NOW);
    let Site { store, temp } = site;
    Box::new(store).close().unwrap();
    let path = temp.path().join(".weir/index");
    let mut bytes = fs::read(&path).unwrap();
    bytes[..8].fill(0);
    fs::write(&path, bytes).unwrap();
    let error = FilesystemStore::open(&spec(temp.path())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}
