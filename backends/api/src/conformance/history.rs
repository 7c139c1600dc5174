//! History rows; a store without history has no promises here.

use std::collections::{BTreeMap, BTreeSet};

use weir_core::{
    change::Write,
    key::{Key, KeyRange},
    record::Record,
    value::Value,
    version::Version,
};

use super::{
    Site, commit,
    ranges::{DIRECTIONS, collect, directed},
    samples::{history, keys, latest, put, stamp, tombstone},
};
use crate::{Direction, Snapshot};

/// What a store should hold: versions by ordered key.
type Expected = BTreeMap<(Vec<u8>, Version), (Key, Record)>;

/// A scan gives what is expected, both ways.
fn check(
    snapshot: &dyn Snapshot,
    range: &KeyRange,
    versions: Option<(Version, Version)>,
    expected: &Expected,
) {
    let inside = |version: &Version| {
        versions.is_none_or(|(first, last)| first <= *version && *version <= last)
    };
    for direction in DIRECTIONS {
        let rows = expected
            .iter()
            .filter(|((key, version), _)| range.contains(key) && inside(version));
        let rows = directed(rows.map(|(_, row)| row.clone()).collect(), direction);
        let held = collect(snapshot.history(range, versions, direction));
        assert_eq!(held, rows, "{range:?} {versions:?} {direction:?}");
    }
}

fn insert(expected: &mut Expected, key: &Key, record: &Record) {
    let row = (key.ordered(), record.head.own);
    expected.insert(row, (key.clone(), record.clone()));
}

/// Versions of one key, in order: equal times, equal stamps, tombstones.
fn versions() -> Vec<Record> {
    let put = |time, id, payload: &'static str| {
        let value = Value::bytes(payload);
        Record::own(Version::put(stamp(time, id), value.hash()), Some(value))
    };
    let mut records = vec![
        put(1, 0, "first"),
        put(2, 0, "x"),
        put(2, 0, "y"),
        put(2, 1, "x"),
        tombstone(2),
        tombstone(5),
        put(5, 0, "beaten by the delete"),
        put(9, 0, ""),
        put(256, 0, "a byte higher"),
        put(u64::MAX, 254, "last"),
    ];
    records.sort_by_key(|record| record.head.own);
    records
}

/// The same version again changes nothing; latest and history do not touch each other.
pub fn history_takes_each_version_once(site: &mut Site) {
    if !site.can().history {
        return;
    }
    let mut store = site.open();
    let (a, b) = (Key::from("a"), Key::from("a/b"));
    let mut expected = Expected::new();
    // Latest first, then in order, then again in one batch: arrival order is of no matter.
    for record in versions().iter().rev().chain(&versions()) {
        commit(&*store, &[history(&a, record), history(&a, record)]);
        insert(&mut expected, &a, record);
    }
    let all = versions();
    let batch: Vec<Write<'_>> = all.iter().map(|record| history(&b, record)).collect();
    commit(&*store, &batch);
    commit(&*store, &batch);
    for record in &all {
        insert(&mut expected, &b, record);
    }
    check(
        &*store.snapshot().unwrap(),
        &KeyRange::all(),
        None,
        &expected,
    );
    assert_eq!(store.get(&a).unwrap(), None, "history is not the latest");

    commit(&*store, &[latest(&a, &all[0])]);
    commit(&*store, &[Write::ForgetLatest { key: &a }]);
    check(
        &*store.snapshot().unwrap(),
        &KeyRange::all(),
        None,
        &expected,
    );
    commit(&*store, &[latest(&b, &all[1])]);
    if site.can().persistent {
        store = site.reopen(store);
        check(
            &*store.snapshot().unwrap(),
            &KeyRange::all(),
            None,
            &expected,
        );
    }
    // One version goes, and going twice is no error.
    let gone = all[3].head.own;
    let forget = |key| Write::ForgetHistory { key, version: gone };
    commit(&*store, &[forget(&a), forget(&a)]);
    commit(&*store, &[forget(&a)]);
    expected.remove(&(a.ordered(), gone));
    check(
        &*store.snapshot().unwrap(),
        &KeyRange::all(),
        None,
        &expected,
    );
    // In a batch the last word counts.
    commit(
        &*store,
        &[
            history(&a, &all[3]),
            forget(&a),
            forget(&b),
            history(&b, &all[3]),
        ],
    );
    check(
        &*store.snapshot().unwrap(),
        &KeyRange::all(),
        None,
        &expected,
    );
    commit(&*store, &[history(&a, &all[3])]);
    insert(&mut expected, &a, &all[3]);
    check(
        &*store.snapshot().unwrap(),
        &KeyRange::all(),
        None,
        &expected,
    );
    assert_eq!(store.get(&b).unwrap().as_ref(), Some(&all[1]));
    store.close().unwrap();
}

/// Every range of keys with every bound of versions, both ways.
pub fn history_is_read_by_key_and_version(site: &mut Site) {
    if !site.can().history {
        return;
    }
    let mut store = site.open();
    let all = versions();
    let mut expected = Expected::new();
    let mut names = BTreeSet::new();
    for (n, key) in keys().into_iter().enumerate() {
        // Each key has other versions, some have all; very long keys are tested among the latest.
        if key.len() > 2_000 {
            continue;
        }
        let records: Vec<&Record> = all
            .iter()
            .enumerate()
            .filter(|(i, _)| n % 3 == 0 || (i + n) % 3 == 0)
            .map(|(_, record)| record)
            .collect();
        let batch: Vec<Write<'_>> = records.iter().map(|record| history(&key, record)).collect();
        commit(&*store, &batch);
        for record in records {
            insert(&mut expected, &key, record);
        }
        names.insert(key);
    }
    if site.can().persistent {
        store = site.reopen(store);
    }
    let snapshot = store.snapshot().unwrap();
    let version = |index: usize| all[index].head.own;
    let between = Version::put(stamp(3, 0), 0);
    let bounds = [
        None,
        Some((Version::ZERO, version(all.len() - 1))),
        Some((version(1), version(3))),
        Some((version(4), version(4))),
        Some((between, between)),
        Some((Version::ZERO, Version::ZERO)),
        // The wrong way round there is nothing.
        Some((version(3), version(1))),
        Some((version(6), Version::delete(stamp(300, 0)))),
    ];
    for versions in bounds {
        check(&*snapshot, &KeyRange::all(), versions, &expected);
        for name in [
            "", "a", "a/b", "ab", "a\u{0}", "a\u{0}b", "a\u{1}", "long", "none", "n/9",
        ] {
            let key = Key::from(name);
            check(&*snapshot, &KeyRange::only(&key), versions, &expected);
            check(&*snapshot, &KeyRange::under(&key), versions, &expected);
            check(
                &*snapshot,
                &KeyRange::all().after(&key),
                versions,
                &expected,
            );
            check(
                &*snapshot,
                &KeyRange::all().before(&key),
                versions,
                &expected,
            );
        }
    }
    drop(snapshot);
    store.close().unwrap();
}

/// A snapshot holds the versions that were there when it was taken.
pub fn a_snapshot_of_history_is_one_moment(site: &mut Site) {
    if !site.can().history {
        return;
    }
    let store = site.open();
    let keys: Vec<Key> = (0..10).map(|n| Key::new(format!("k/{n}"))).collect();
    let mut now = Expected::new();
    let mut moments: Vec<(Box<dyn Snapshot + '_>, Expected)> = Vec::new();
    for round in 1..=60u64 {
        for (n, key) in (0u64..).zip(&keys) {
            let record = put(round, "x");
            commit(&*store, &[history(key, &record)]);
            insert(&mut now, key, &record);
            if (n + round) % 3 == 0 && round > 2 {
                let version = put(round - 2, "x").head.own;
                commit(&*store, &[Write::ForgetHistory { key, version }]);
                now.remove(&(key.ordered(), version));
            }
        }
        if round % 10 == 0 {
            moments.push((store.snapshot().unwrap(), now.clone()));
        }
        if round % 25 == 0 {
            moments.remove(0);
        }
    }
    for (snapshot, then) in &moments {
        check(&**snapshot, &KeyRange::all(), None, then);
        let bounds = Some((put(7, "x").head.own, put(33, "x").head.own));
        check(&**snapshot, &KeyRange::all(), bounds, then);
    }
    let (snapshot, then) = moments.remove(0);
    let mut rows = snapshot.history(&KeyRange::all(), None, Direction::Forward);
    for (key, record) in then.values() {
        assert_eq!(rows.next().unwrap().unwrap(), (key.clone(), record.clone()));
        let version = record.head.own;
        commit(&*store, &[Write::ForgetHistory { key, version }]);
    }
    assert!(rows.next().is_none());
    drop(rows);
    drop((snapshot, moments));
    store.close().unwrap();
}
