//! The latest records: what was committed is what is held.

use weir_core::{
    change::Write,
    key::Key,
    record::{Head, Merged, Record},
    value::Value,
    vector::Vector,
    version::Version,
};

use super::{
    Site, commit,
    samples::{keys, latest, put, put_value, stamp, tombstone, values},
};
use crate::{Durability, ErrorKind, Store};

/// A longer key may be refused as [`ErrorKind::Rejected`]: a path of a file system is no longer.
const KEY_BYTES_SURE: usize = 4_000;

/// `get` and `heads` agree with what was committed.
fn check(store: &dyn Store, key: &Key, expected: Option<&Record>) {
    assert_eq!(store.get(key).unwrap().as_ref(), expected, "get of {key:?}");
    let heads = store.heads(&[key]).unwrap();
    let head = expected.map(|record| record.head);
    assert_eq!(heads, [head], "head of {key:?}");
    let snapshot = store.snapshot().unwrap();
    assert_eq!(
        snapshot.get(key).unwrap().as_ref(),
        expected,
        "snapshot of {key:?}"
    );
}

/// A commit is seen by every read that follows it, an empty batch changes nothing.
pub fn holds_what_was_committed(site: &mut Site) {
    let store = site.open();
    let (a, b, c) = (Key::from("a"), Key::from("a/b"), Key::from("c"));
    check(&*store, &a, None);
    assert_eq!(store.heads(&[]).unwrap(), []);
    commit(&*store, &[]);

    let (first, second) = (put(1, "first"), put(2, "second"));
    commit(&*store, &[latest(&a, &first), latest(&b, &second)]);
    check(&*store, &a, Some(&first));
    check(&*store, &b, Some(&second));
    check(&*store, &c, None);
    // In the order asked for, with repetitions and gaps.
    let heads = store.heads(&[&c, &b, &a, &b]).unwrap();
    let expected = [None, Some(second.head), Some(first.head), Some(second.head)];
    assert_eq!(heads, expected);

    // A store takes what it is given: it does not compare versions.
    let older = put(1, "an older version, of another length");
    commit(&*store, &[latest(&b, &older)]);
    check(&*store, &b, Some(&older));
    check(&*store, &a, Some(&first));
    store.close().unwrap();
}

/// A later write of the same row wins, also over a forgetting and after one.
pub fn the_last_write_of_a_batch_wins(site: &mut Site) {
    let store = site.open();
    let (a, b, c) = (Key::from("a"), Key::from("b"), Key::from("c"));
    let (one, two, three) = (put(1, "1"), put(2, "2"), tombstone(3));
    let forget = |key| Write::ForgetLatest { key };
    commit(&*store, &[latest(&c, &one)]);
    commit(
        &*store,
        &[
            latest(&a, &three),
            latest(&b, &one),
            latest(&a, &two),
            forget(&b),
            forget(&c),
            latest(&a, &one),
            latest(&c, &two),
        ],
    );
    check(&*store, &a, Some(&one));
    check(&*store, &b, None);
    check(&*store, &c, Some(&two));
    store.close().unwrap();
}

/// A forgotten key leaves nothing, and takes nothing with it.
pub fn forgets_a_key_entirely(site: &mut Site) {
    let store = site.open();
    let (parent, child, absent) = (Key::from("a"), Key::from("a/b"), Key::from("x/y"));
    let (live, dead) = (put(1, "live"), tombstone(2));
    let forget = |key| Write::ForgetLatest { key };
    commit(&*store, &[latest(&parent, &live), latest(&child, &dead)]);
    commit(&*store, &[forget(&parent), forget(&absent)]);
    check(&*store, &parent, None);
    check(&*store, &absent, None);
    check(&*store, &child, Some(&dead));
    commit(&*store, &[latest(&parent, &live), forget(&child)]);
    check(&*store, &child, None);
    check(&*store, &parent, Some(&live));
    // Forgetting twice, and something that never was, is no error.
    commit(&*store, &[forget(&child), forget(&absent)]);
    check(&*store, &child, None);
    store.close().unwrap();
}

/// A batch may be large, and so may a question.
pub fn takes_a_large_batch(site: &mut Site) {
    let mut store = site.open();
    let keys: Vec<Key> = (0..3_000).map(|n| Key::new(format!("k/{n}"))).collect();
    let records: Vec<Record> = (1..=3_000).map(|time| put(time, vec![7; 100])).collect();
    let batch: Vec<Write<'_>> = keys
        .iter()
        .zip(&records)
        .map(|(k, r)| latest(k, r))
        .collect();
    commit(&*store, &batch);
    if site.can().persistent {
        store = site.reopen(store);
    }
    // Half of the questions are about keys that are not there.
    let absent: Vec<Key> = (0..3_000)
        .map(|n| Key::new(format!("absent/{n}")))
        .collect();
    let both: Vec<&Key> = keys.iter().zip(&absent).flat_map(|(a, b)| [a, b]).collect();
    let expected: Vec<Option<Head>> = records.iter().flat_map(|r| [Some(r.head), None]).collect();
    assert_eq!(store.heads(&both).unwrap(), expected);
    check(&*store, &keys[2_999], Some(&records[2_999]));
    store.close().unwrap();
}

/// Every key that Zenoh can carry, and some more: each its own, over a restart too.
pub fn keeps_every_key(site: &mut Site) {
    let mut store = site.open();
    let mut keys = keys();
    keys.retain(|key| {
        let record = put(1, "first");
        let done = store.commit(&[latest(key, &record)], Durability::Written);
        if let Err(error) = &done {
            assert_eq!(
                error.kind(),
                ErrorKind::Rejected,
                "commit of {key:?}: {error}"
            );
            assert!(key.len() > KEY_BYTES_SURE, "{key:?} is refused: {error}");
            check(&*store, key, None);
        }
        done.is_ok()
    });
    let records: Vec<Record> = (1..)
        .zip(&keys)
        .map(|(time, key)| match time % 3 {
            0 => tombstone(time),
            _ => put(time, key.as_bytes().to_vec()),
        })
        .collect();
    let rows = || keys.iter().zip(&records);
    for (key, record) in rows() {
        commit(&*store, &[latest(key, record)]);
    }
    for (key, record) in rows() {
        check(&*store, key, Some(record));
    }
    if site.can().persistent {
        store = site.reopen(store);
        for (key, record) in rows() {
            check(&*store, key, Some(record));
        }
    }
    // One by one they go again, and each takes only itself.
    for (index, key) in keys.iter().enumerate() {
        commit(&*store, &[Write::ForgetLatest { key }]);
        check(&*store, key, None);
        if let Some(next) = keys.get(index + 1) {
            check(&*store, next, Some(&records[index + 1]));
        }
    }
    store.close().unwrap();
}

/// Encoding, schema, attachment and payload, byte for byte; empty differs from none.
pub fn keeps_values_byte_for_byte(site: &mut Site) {
    let mut store = site.open();
    let records: Vec<(Key, Record)> = (1..)
        .zip(values())
        .map(|(time, value)| (Key::new(format!("v/{time}")), put_value(time, value)))
        .collect();
    let batch: Vec<Write<'_>> = records
        .iter()
        .map(|(key, record)| latest(key, record))
        .collect();
    commit(&*store, &batch);
    for (key, record) in &records {
        check(&*store, key, Some(record));
    }
    // Each over another one of another shape, under the same key.
    let key = Key::from("v");
    for (_, record) in records.iter().chain(records.iter().rev()) {
        commit(&*store, &[latest(&key, record)]);
        check(&*store, &key, Some(record));
    }
    if site.can().persistent {
        store = site.reopen(store);
        for (key, record) in &records {
            check(&*store, key, Some(record));
        }
    }
    store.close().unwrap();
}

/// Tombstones are records; a folded head keeps both of its versions.
pub fn keeps_tombstones_and_folded_heads(site: &mut Site) {
    let mut store = site.open();
    let value = Value::bytes("of the wildcard put");
    let own = Version::put(stamp(1, 0), 7);
    let folded = |folded, value| Record {
        head: Head {
            own,
            folded: Some(folded),
        },
        value,
        merged: None,
    };
    // The greatest version that there is, too.
    let last = Version::put(stamp(u64::MAX, 254), u64::MAX);
    let rows = [
        (Key::from("a"), tombstone(1)),
        (
            Key::from("a/b"),
            folded(Version::put(stamp(5, 1), value.hash()), Some(value.clone())),
        ),
        (Key::from("a/c"), folded(Version::delete(stamp(6, 1)), None)),
        (
            Key::from("a/d"),
            Record {
                head: Head {
                    own: last,
                    folded: Some(last),
                },
                value: Some(value),
                merged: None,
            },
        ),
    ];
    let batch: Vec<Write<'_>> = rows
        .iter()
        .map(|(key, record)| latest(key, record))
        .collect();
    commit(&*store, &batch);
    for (key, record) in &rows {
        check(&*store, key, Some(record));
    }
    if site.can().persistent {
        store = site.reopen(store);
        for (key, record) in &rows {
            check(&*store, key, Some(record));
        }
    }
    store.close().unwrap();
}

/// What a record has merged is kept with it, of any size, over values, tombstones and restarts; and
/// it goes when a record without it takes its place.
pub fn keeps_what_was_merged(site: &mut Site) {
    let mut store = site.open();
    let merged = |clocks: u8, times: u64| {
        let mut vector = Vector::default();
        for (id, time) in (0..clocks).flat_map(|id| (1..=times).map(move |time| (id, time))) {
            vector.insert(stamp(time, id));
        }
        let revision = u64::MAX - times;
        Some(Box::new(Merged { revision, vector }))
    };
    let folded = Head {
        own: Version::put(stamp(3, 0), 7),
        folded: Some(Version::delete(stamp(6, 1))),
    };
    let rows: Vec<(Key, Record)> = [(1, 2), (40, 1), (250, 9), (3, 200)]
        .into_iter()
        .zip(values().into_iter().cycle())
        .enumerate()
        .flat_map(|(index, ((clocks, times), value))| {
            let merged = merged(clocks, times);
            let live = Record {
                merged: merged.clone(),
                ..put_value(9, value)
            };
            let dead = Record {
                merged: merged.clone(),
                ..tombstone(9)
            };
            let ended = Record {
                head: folded,
                value: None,
                merged,
            };
            [live, dead, ended]
                .into_iter()
                .enumerate()
                .map(move |(kind, record)| (Key::new(format!("m/{index}/{kind}")), record))
        })
        .collect();
    let batch: Vec<Write<'_>> = rows
        .iter()
        .map(|(key, record)| latest(key, record))
        .collect();
    commit(&*store, &batch);
    if site.can().persistent {
        store = site.reopen(store);
    }
    for (key, record) in &rows {
        check(&*store, key, Some(record));
    }
    let (key, plain) = (&rows[0].0, put(10, "plain"));
    commit(&*store, &[latest(key, &plain)]);
    check(&*store, key, Some(&plain));
    commit(&*store, &[latest(key, &rows[6].1)]);
    check(&*store, key, Some(&rows[6].1));
    store.close().unwrap();
}
