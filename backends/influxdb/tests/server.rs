//! A real server that goes away, comes back, refuses, and was written to by others.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "common/influxd.rs"]
mod influxd;
#[path = "common/shipped.rs"]
mod shipped;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tempfile::TempDir;
use weir_backend_api::{Backlog, Direction, Durability, ErrorKind, Store, StoreSpec, Volume};
use weir_backend_filesystem::FilesystemVolume;
use weir_backend_influxdb::{Fields, InfluxSettings, InfluxVolume};
use weir_backend_memory::MemoryVolume;
use weir_core::{
    change::{KeptChange, Table, Write},
    key::{Key, KeyRange},
    record::Record,
    value::{Encoding, Value},
    version::{Stamp, Version},
};

use crate::shipped::settle;

/// Today, as HLC time.
const NOW: u64 = 1_790_000_000 << 32;

fn stamp(time: u64) -> Stamp {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&[0xAB, 0x01]);
    Stamp { time, id }
}

fn put_value(time: u64, value: Value) -> Record {
    Record::own(Version::put(stamp(time), value.hash()), Some(value))
}

fn put(time: u64, payload: impl Into<Bytes>) -> Record {
    put_value(time, Value::bytes(payload))
}

fn open(settings: InfluxSettings, dir: &TempDir) -> Box<dyn Store> {
    let volume = InfluxVolume::new(settings, Arc::new(FilesystemVolume::new())).unwrap();
    let spec = StoreSpec {
        name: "store".to_owned(),
        dir: dir.path().join("store"),
        create: true,
        history: true,
        ..StoreSpec::default()
    };
    volume.open(&spec).unwrap()
}

fn commit(store: &dyn Store, rows: &[(Key, Record)]) {
    let both = rows.iter().flat_map(|(key, record)| {
        let record = record.as_ref();
        [
            Write::History { key, record },
            Write::Latest { key, record },
        ]
    });
    store
        .commit(&both.collect::<Vec<_>>(), Durability::Written)
        .unwrap();
}

/// All history, by key and version.
fn history(store: &dyn Store) -> Vec<(Key, Record)> {
    let snapshot = store.snapshot().unwrap();
    let rows = snapshot.history(&KeyRange::all(), None, Direction::Forward);
    rows.map(Result::unwrap).collect()
}

fn sorted(mut rows: Vec<(Key, Record)>) -> Vec<(Key, Record)> {
    rows.sort_by_key(|(key, record)| (key.ordered(), record.head.own));
    rows
}

/// Waits for something that the server's thread does.
#[track_caller]
fn wait(store: &dyn Store, what: impl Fn(&Backlog) -> bool) -> Backlog {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let backlog = store.backlog().unwrap();
        if what(&backlog) {
            return backlog;
        }
        assert!(Instant::now() < deadline, "{backlog:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Samples come before there is a server's answer, while it is dead and after; the router dies in
/// between, too. None is lost, none is there twice.
#[test]
fn an_outage_loses_nothing() {
    let Some(mut server) = influxd::own("") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(server.settings("outage"), &dir);
    let mut expected = Vec::new();
    for batch in 0..60u64 {
        match batch {
            15 => server.kill(),
            30 => {
                // As after a crash: nothing is closed.
                drop(store);
                store = open(server.settings("outage"), &dir);
                assert!(store.backlog().unwrap().changes >= 1_500);
            }
            45 => server.resume(),
            _ => {}
        }
        let rows: Vec<(Key, Record)> = (0..100u64)
            .map(|n| {
                let time = NOW + ((batch * 100 + n) << 22);
                (
                    Key::new(format!("robot/{}/speed", n % 7)),
                    put(time, format!("{batch}.{n}")),
                )
            })
            .collect();
        let started = Instant::now();
        commit(&*store, &rows);
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "a commit waited for the server"
        );
        expected.extend(rows);
        if batch == 29 {
            let error = store.snapshot().unwrap();
            let mut rows = error.history(&KeyRange::all(), None, Direction::Forward);
            // Who cannot know all that was stored says so.
            let kind = rows.find_map(Result::err).map(|error| error.kind());
            assert_eq!(kind, Some(ErrorKind::Unavailable));
        }
    }
    settle(&*store);
    let backlog = store.backlog().unwrap();
    assert!(
        backlog.ready && backlog.refused == 0 && backlog.last_error.is_none(),
        "{backlog:?}"
    );
    assert_eq!(history(&*store), sorted(expected));
    let points = server.query("outage", "SELECT count(\"value\") FROM /.*/");
    let counts = points.matches("\"count\"").count();
    assert_eq!(counts, 7, "{points}");
    store.close().unwrap();
}

/// The clock of a source was pulled ahead and its HLC counts fractions: four or five changes share
/// each nanosecond.
#[test]
fn stamps_that_share_a_nanosecond_stay_apart() {
    const STAMPS: u64 = 10_000;
    let Some(server) = influxd::shared() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let store = open(server.settings("burst"), &dir);
    let ahead = NOW + (400 << 32) / 1_000;
    let rows: Vec<(Key, Record)> = (0..STAMPS)
        .map(|n| (Key::from("burst"), put(ahead + n, n.to_string())))
        .collect();
    for part in rows.chunks(700) {
        commit(&*store, part);
    }
    settle(&*store);
    let count = server.query("burst", "SELECT count(\"value\") FROM \"burst\"");
    assert!(count.contains(&format!(",{STAMPS}]")), "{count}");
    assert_eq!(history(&*store), rows);
    // A part of them, cut in the middle of a nanosecond, both ways.
    let (first, last) = (rows[3_001].1.head.own, rows[7_003].1.head.own);
    let snapshot = store.snapshot().unwrap();
    let range = KeyRange::only(&rows[0].0);
    let part = snapshot.history(&range, Some((first, last)), Direction::Backward);
    let part: Vec<_> = part.map(Result::unwrap).collect();
    assert!(part.iter().eq(rows[3_001..=7_003].iter().rev()));
    drop(snapshot);
    store.close().unwrap();
}

/// Whatever the bytes, in keys and in values.
#[test]
fn hostile_keys_and_values_come_back_from_the_server() {
    let Some(server) = influxd::shared() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let settings = InfluxSettings {
        fields: Fields::Typed,
        ..server.settings("it's \"hostile\", really")
    };
    let store = open(settings, &dir);
    let keys = [
        "",
        "a b",
        "a,b",
        "a=b",
        "a\"b",
        "a'b",
        "a\\",
        "\\",
        "a\\ b",
        "a\\,b",
        "line\nbreak",
        "cr\r",
        "#comment",
        " space",
        "trailing ",
        "서울/온도",
        "@@none_key@@",
        "@@weir@@x",
        "_internal",
        "a;b--",
        "/re.*/",
        "$x",
        "%41",
        "\u{0}",
        "a/b/c",
        "\"; DROP DATABASE burst; --",
    ];
    let payloads: [&[u8]; 12] = [
        b"",
        b"plain",
        b"\"",
        b"\\",
        b"a\\\"b",
        b"ends in \\",
        b"two\nlines",
        b"\0\xff",
        b"{\"a\": 1.5, \"b c\": \"d\\\"e\"}",
        b"21.5",
        "온도".as_bytes(),
        b"tab\there",
    ];
    let mut rows = Vec::new();
    for (k, key) in (0u64..).zip(keys) {
        for (p, payload) in (0u64..).zip(payloads) {
            let time = NOW + ((k * 100 + p) << 20);
            rows.push((Key::from(key), put(time, payload.to_vec())));
        }
        let value = Value {
            encoding: Encoding {
                id: 5,
                schema: Some(Bytes::from_static(b"odd\0schema")),
            },
            attachment: Some(Bytes::from_static(b"attached\n\xff")),
            payload: Bytes::from_static(b"with attachment"),
        };
        rows.push((
            Key::from(key),
            put_value(NOW + ((k * 100 + 50) << 20), value),
        ));
        let gone = Version::delete(stamp(NOW + ((k * 100 + 60) << 20)));
        rows.push((Key::from(key), Record::own(gone, None)));
    }
    rows.push((Key::from("large"), put(NOW, vec![b'x'; 3 << 20])));
    commit(&*store, &rows);
    settle(&*store);
    assert_eq!(store.backlog().unwrap().refused, 0, "{:?}", store.backlog());
    assert_eq!(history(&*store), sorted(rows));
    for key in keys {
        let key = Key::from(key);
        let snapshot = store.snapshot().unwrap();
        let held = snapshot.history(&KeyRange::only(&key), None, Direction::Forward);
        assert_eq!(
            held.map(Result::unwrap).count(),
            payloads.len() + 2,
            "{key:?}"
        );
    }
    store.close().unwrap();
}

/// Points that the stock backend wrote are versions as any; points of others are not there, and stay.
#[test]
fn the_points_of_the_stock_backend_are_read() {
    let Some(server) = influxd::shared() else {
        return;
    };
    server.query("", "CREATE DATABASE \"stock\"");
    let nanos = 1_790_000_000_000_000_000_u64;
    let time = NOW;
    server.write(
        "stock",
        &format!(
            "a/b,kind=PUT timestamp=\"{time}/1ab\",encoding_prefix=4i,encoding_suffix=\"\",base64=false,value=\"x\" {nanos}\n\
             a\\b,kind=PUT timestamp=\"{time}/1ab\",encoding_prefix=0i,encoding_suffix=\"s\",base64=true,value=\"AP8=\" {nanos}\n\
             a/b,kind=DEL timestamp=\"{}/1ab\",encoding_prefix=0i,encoding_suffix=\"\",base64=false,value=\"\" {}\n\
             cpu,host=a load=0.5 {nanos}\n",
            time + (1 << 32),
            nanos + 1_000_000_000,
        ),
    );
    let dir = tempfile::tempdir().unwrap();
    let store = open(server.settings("stock"), &dir);
    let rows = history(&*store);
    let keys: Vec<&str> = rows.iter().map(|(key, _)| &**key).collect();
    assert_eq!(keys, ["a/b", "a/b", "a\\b"], "{rows:?}");
    let value = rows[0].1.value.clone().unwrap();
    assert_eq!((&*value.payload, value.encoding.id), (&b"x"[..], 4));
    assert_eq!(
        rows[0].1.head.own.stamp,
        stamp(time),
        "uhlc writes ids last byte first"
    );
    assert!(rows[1].1.head.own.is_delete());
    assert_eq!(&*rows[2].1.value.as_ref().unwrap().payload, b"\0\xff");
    // The same change through us is the same version, and one of theirs can be forgotten.
    commit(&*store, &rows[..1]);
    settle(&*store);
    assert_eq!(history(&*store), rows);
    let (key, version) = (&rows[0].0, rows[0].1.head.own);
    store
        .commit(
            &[Write::ForgetHistory { key, version }],
            Durability::Written,
        )
        .unwrap();
    assert_eq!(history(&*store), rows[1..]);
    settle(&*store);
    assert_eq!(history(&*store), rows[1..]);
    assert!(
        server
            .query("stock", "SELECT * FROM \"cpu\"")
            .contains("0.5")
    );
    store.close().unwrap();
}

/// One change among many that the server refuses costs itself, visibly, and stays readable here.
#[test]
fn a_poisoned_change_is_set_aside() {
    let Some(server) = influxd::shared() else {
        return;
    };
    server.query("", "CREATE DATABASE \"poison\"");
    // Somebody made `value` a number in this measurement: every text there is a conflict of types.
    server.write("poison", &format!("bad value=1 {}", NOW >> 2));
    let nanos = 1_790_000_000_000_000_000_u64;
    server.write("poison", &format!("bad value=1 {nanos}"));
    let dir = tempfile::tempdir().unwrap();
    let store = open(server.settings("poison"), &dir);
    let rows: Vec<(Key, Record)> = (0..500u64)
        .map(|n| {
            let key = if n == 123 {
                "bad".to_owned()
            } else {
                format!("good/{}", n % 5)
            };
            (Key::new(key), put(NOW + (n << 20), n.to_string()))
        })
        .collect();
    commit(&*store, &rows);
    settle(&*store);
    let backlog = store.backlog().unwrap();
    assert_eq!((backlog.refused, backlog.shipped), (1, 499), "{backlog:?}");
    assert!(backlog.ready);
    let aside = store.rows(Table::Quarantine, b"", 9).unwrap();
    assert_eq!(aside.len(), 1);
    let change = KeptChange::decode(&Bytes::from(aside[0].1.clone()));
    assert!(matches!(change, Some(KeptChange::Key(change)) if &*change.key == "bad"));
    assert_eq!(history(&*store), sorted(rows.clone()));
    // What comes next is not held up.
    let next = [(Key::from("good/0"), put(NOW + (1_000 << 20), "next"))];
    commit(&*store, &next);
    settle(&*store);
    store.close().unwrap();
    let store = open(server.settings("poison"), &dir);
    assert_eq!(history(&*store).len(), 501);
    store.close().unwrap();
}

/// Without its database the store takes everything, says what is wrong, and goes on when it is right.
#[test]
fn a_missing_database_is_told_and_waited_for() {
    let Some(server) = influxd::shared() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let settings = InfluxSettings {
        create_db: false,
        ..server.settings("missing")
    };
    let store = open(settings, &dir);
    let rows = [(Key::from("a"), put(NOW, "x"))];
    commit(&*store, &rows);
    let told = wait(&*store, |backlog| backlog.last_error.is_some());
    assert!(!told.ready && told.changes == 1, "{told:?}");
    assert!(told.last_error.unwrap().contains("database not found"));
    let snapshot = store.snapshot().unwrap();
    let mut scan = snapshot.history(&KeyRange::all(), None, Direction::Forward);
    assert!(
        scan.any(|row| row.is_err()),
        "a database that is not there was read as an empty one"
    );
    drop(scan);
    drop(snapshot);
    server.query("", "CREATE DATABASE \"missing\"");
    let told = wait(&*store, |backlog| backlog.changes == 0);
    assert!(told.ready && told.last_error.is_none(), "{told:?}");
    assert_eq!(history(&*store), rows);
    store.close().unwrap();
}

/// A wrong password stops the shipping and nothing else.
#[test]
fn a_wrong_password_is_told() {
    let Some(server) = influxd::own("auth-enabled = true") else {
        return;
    };
    server.query(
        "",
        "CREATE USER \"weir\" WITH PASSWORD 'se\\'cret' WITH ALL PRIVILEGES",
    );
    let dir = tempfile::tempdir().unwrap();
    let with = |password: &str| InfluxSettings {
        login: Some(("weir".to_owned(), password.to_owned())),
        ..server.settings("auth")
    };
    let store = open(with("wrong"), &dir);
    let rows = [(Key::from("a"), put(NOW, "x"))];
    commit(&*store, &rows);
    let told = wait(&*store, |backlog| backlog.last_error.is_some());
    assert!(!told.ready && told.last_error.unwrap().contains("401"));
    store.close().unwrap();
    let store = open(with("se'cret"), &dir);
    settle(&*store);
    assert_eq!(history(&*store), rows);
    store.close().unwrap();
}

/// Text that does not compress to less than half.
fn noise(seed: u64, len: usize) -> String {
    let mut state = seed * 2 + 1;
    let digit = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from_digit(u32::try_from(state >> 59).unwrap(), 32).unwrap()
    };
    (0..len).map(digit).collect()
}

/// A batch that is more than the server takes is cut in halves.
#[test]
fn what_is_too_large_is_halved() {
    let Some(server) = influxd::own("max-body-size = 200000") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let store = open(server.settings("halves"), &dir);
    let mut rows: Vec<(Key, Record)> = (0..100u64)
        .map(|n| (Key::from("a"), put(NOW + (n << 20), noise(n, 20_000))))
        .collect();
    // One that no half is small enough for.
    rows.push((Key::from("b"), put(NOW, noise(7, 400_000))));
    commit(&*store, &rows);
    settle(&*store);
    let backlog = store.backlog().unwrap();
    assert_eq!((backlog.shipped, backlog.refused), (100, 1), "{backlog:?}");
    assert_eq!(history(&*store), rows);
    store.close().unwrap();
}

/// When as much waits as may, commits that would add to it are refused, and others are not.
#[test]
fn a_full_backlog_refuses_and_resumes() {
    let Some(mut server) = influxd::own("") else {
        return;
    };
    server.kill();
    let dir = tempfile::tempdir().unwrap();
    let settings = InfluxSettings {
        backlog_bytes_max: 20_000,
        ..server.settings("full")
    };
    let store = open(settings, &dir);
    let key = Key::from("a");
    let mut taken = Vec::new();
    let refused = loop {
        let record = put(
            NOW + (u64::try_from(taken.len()).unwrap() << 20),
            vec![b'x'; 1_000],
        );
        let batch = [Write::History {
            key: &key,
            record: record.as_ref(),
        }];
        match store.commit(&batch, Durability::Written) {
            Ok(_) => taken.push((key.clone(), record)),
            Err(error) => break error,
        }
        assert!(taken.len() < 100);
    };
    assert_eq!(refused.kind(), ErrorKind::Full);
    let latest = Write::Latest {
        key: &key,
        record: taken[0].1.as_ref(),
    };
    store.commit(&[latest], Durability::Written).unwrap();
    server.resume();
    settle(&*store);
    let next = (key.clone(), put(NOW + (999 << 20), "next"));
    commit(&*store, std::slice::from_ref(&next));
    taken.push(next);
    settle(&*store);
    assert_eq!(history(&*store), taken);
    store.close().unwrap();
}

/// Retention takes whole spans, and nothing beside them.
#[test]
fn what_is_forgotten_goes_from_the_server() {
    let Some(server) = influxd::shared() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let store = open(server.settings("forget"), &dir);
    let keys = ["a", "b"].map(Key::from);
    let rows: Vec<(Key, Record)> = (0..300u64)
        .flat_map(|n| {
            keys.clone()
                .map(|key| (key, put(NOW + (n << 20), n.to_string())))
        })
        .collect();
    commit(&*store, &rows);
    settle(&*store);
    // Everything old of one key, and every third of the other.
    let is_gone = |(n, (key, _)): &(usize, (Key, Record))| {
        let n = n / 2;
        if **key == *"a" { n < 200 } else { n % 3 == 0 }
    };
    let numbered = || rows.iter().cloned().enumerate();
    let gone: Vec<_> = numbered().filter(is_gone).collect();
    let batch: Vec<Write<'_>> = gone
        .iter()
        .map(|(_, (key, record))| Write::ForgetHistory {
            key,
            version: record.head.own,
        })
        .collect();
    store.commit(&batch, Durability::Written).unwrap();
    let kept: Vec<_> = numbered()
        .filter(|row| !is_gone(row))
        .map(|(_, row)| row)
        .collect();
    let kept = sorted(kept);
    assert_eq!(
        history(&*store),
        kept,
        "what is forgotten is hidden at once"
    );
    settle(&*store);
    assert_eq!(history(&*store), kept);
    let count = server.query("forget", "SELECT count(\"value\") FROM \"a\",\"b\"");
    assert!(
        count.contains(",100]") && count.contains(",200]"),
        "{count}"
    );
    store.close().unwrap();
}

/// Forgotten and put again in every order, with the server behind: the last word counts.
#[test]
fn the_last_word_about_a_version_counts() {
    let Some(server) = influxd::shared() else {
        return;
    };
    for round in 0..8u64 {
        let dir = tempfile::tempdir().unwrap();
        let store = open(server.settings(&format!("words {round}")), &dir);
        let rows: Vec<(Key, Record)> = (0..50u64)
            .map(|n| (Key::from("a"), put(NOW + (n << 20), n.to_string())))
            .collect();
        let forget = || {
            let batch: Vec<Write<'_>> = rows
                .iter()
                .map(|(key, record)| Write::ForgetHistory {
                    key,
                    version: record.head.own,
                })
                .collect();
            store.commit(&batch, Durability::Written).unwrap();
        };
        for step in 0..4 {
            if round & (1 << step.min(2)) == 0 {
                // Sometimes the server is up to date in between.
                settle(&*store);
            }
            if step % 2 == 0 {
                commit(&*store, &rows)
            } else {
                forget()
            }
            assert_eq!(
                history(&*store).len(),
                if step % 2 == 0 { 50 } else { 0 },
                "{round} {step}"
            );
        }
        commit(&*store, &rows);
        settle(&*store);
        assert_eq!(history(&*store), rows, "{round}");
        store.close().unwrap();
    }
}

/// Numbers and members of objects can be plotted, and the values are as they were.
#[test]
fn typed_fields_stand_beside_the_value() {
    let Some(server) = influxd::shared() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let settings = InfluxSettings {
        fields: Fields::Typed,
        ..server.settings("typed")
    };
    let store = open(settings, &dir);
    let rows = [
        (Key::from("t"), put(NOW, "21.5")),
        (
            Key::from("t"),
            put(
                NOW + (1 << 32),
                "{\"v\": 3, \"ok\": true, \"pose\": {\"x\": -1}}",
            ),
        ),
        // A number that becomes a text is no conflict.
        (Key::from("t"), put(NOW + (2 << 32), "{\"v\": \"three\"}")),
    ];
    commit(&*store, &rows);
    settle(&*store);
    assert_eq!(store.backlog().unwrap().refused, 0);
    let answer = server.query(
        "typed",
        "SELECT mean(\"n\"), mean(\"n.v\"), mean(\"n.pose.x\") FROM \"t\"",
    );
    assert!(answer.contains(",21.5,3,-1]"), "{answer}");
    assert_eq!(history(&*store), rows);
    store.close().unwrap();
}

/// Without history nothing can wait, and an address has a form.
#[test]
fn wrong_settings_are_refused() {
    let local = || Arc::new(MemoryVolume::new());
    for url in ["", "localhost:8086", "ftp://x", "http://x?db=y"] {
        let volume = InfluxVolume::new(InfluxSettings::new(url, "db"), local());
        assert!(volume.is_err(), "{url}");
    }
    assert!(InfluxVolume::new(InfluxSettings::new("http://x:1/", "db"), local()).is_ok());
}
