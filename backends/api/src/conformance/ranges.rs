//! Scans of the latest records, and snapshots beside commits.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use weir_core::{
    change::Write,
    key::{Key, KeyRange},
    record::Record,
};

use super::{
    Site, commit,
    samples::{keys, latest, put, tombstone},
};
use crate::{Direction, Durability, ErrorKind, Rows, Snapshot, Store};

/// What a store should hold: records by ordered key.
type Expected = BTreeMap<Vec<u8>, (Key, Record)>;

/// Both directions.
pub(super) const DIRECTIONS: [Direction; 2] = [Direction::Forward, Direction::Backward];

/// The rows of a scan; none may be an error.
pub(super) fn collect(rows: Rows<'_>) -> Vec<(Key, Record)> {
    rows.map(Result::unwrap).collect()
}

/// Reversed if read backwards.
pub(super) fn directed<T>(mut rows: Vec<T>, direction: Direction) -> Vec<T> {
    if direction == Direction::Backward {
        rows.reverse();
    }
    rows
}

/// A scan of `range` gives what is expected, both ways.
fn check(snapshot: &dyn Snapshot, range: &KeyRange, expected: &Expected) {
    for direction in DIRECTIONS {
        let rows = expected.iter().filter(|(key, _)| range.contains(key));
        let rows = directed(rows.map(|(_, row)| row.clone()).collect(), direction);
        let held = collect(snapshot.latest(range, direction));
        // Long keys make long messages: tell the keys first.
        let names = |rows: &[(Key, Record)]| -> Vec<Key> {
            rows.iter().map(|(key, _)| key.clone()).collect()
        };
        assert_eq!(names(&held), names(&rows), "{range:?} {direction:?}");
        assert_eq!(held, rows, "{range:?} {direction:?}");
    }
}

/// Writes every sample key that the store takes and returns what it should hold.
fn fill(store: &dyn Store) -> Expected {
    let mut expected = Expected::new();
    for (time, key) in (1..).zip(keys()) {
        let record = if time % 4 == 0 {
            tombstone(time)
        } else {
            put(time, vec![7; usize::try_from(time).unwrap()])
        };
        match store.commit(&[latest(&key, &record)], Durability::Memory) {
            Ok(_) => _ = expected.insert(key.ordered(), (key, record)),
            // Which keys may be refused is told in `records`.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Rejected, "{key:?}: {error}"),
        }
    }
    expected
}

/// Every kind of range, forwards and backwards, bounds included and excluded.
pub fn scans_ranges_in_both_directions(site: &mut Site) {
    let mut store = site.open();
    check(
        &*store.snapshot().unwrap(),
        &KeyRange::all(),
        &Expected::new(),
    );
    let expected = fill(&*store);
    if site.can().persistent {
        store = site.reopen(store);
    }
    let snapshot = store.snapshot().unwrap();
    check(&*snapshot, &KeyRange::all(), &expected);
    let (low, high) = (Key::from("a/b"), Key::from("n/10"));
    for (key, _) in expected.values() {
        check(&*snapshot, &KeyRange::only(key), &expected);
        check(&*snapshot, &KeyRange::under(key), &expected);
        // As pages of a query are read.
        check(&*snapshot, &KeyRange::all().after(key), &expected);
        check(&*snapshot, &KeyRange::all().before(key), &expected);
        check(&*snapshot, &KeyRange::under(&low).after(key), &expected);
        check(
            &*snapshot,
            &KeyRange::all().after(&low).before(key),
            &expected,
        );
        check(
            &*snapshot,
            &KeyRange::all().after(key).before(&high),
            &expected,
        );
    }
    for absent in ["a/b/b", "a/a", "zz", "\u{1}\u{1}", "caf"] {
        let key = Key::from(absent);
        check(&*snapshot, &KeyRange::only(&key), &expected);
        check(&*snapshot, &KeyRange::under(&key), &expected);
        check(&*snapshot, &KeyRange::all().after(&key), &expected);
        check(&*snapshot, &KeyRange::all().before(&key), &expected);
    }
    drop(snapshot);
    store.close().unwrap();
}

/// A scan is read as far as wanted, begun again, and two go side by side.
pub fn scans_are_independent(site: &mut Site) {
    let store = site.open();
    let keys: Vec<Key> = (0..700).map(|n| Key::new(format!("k/{n:03}"))).collect();
    let record = put(1, "x");
    let batch: Vec<Write<'_>> = keys.iter().map(|key| latest(key, &record)).collect();
    commit(&*store, &batch);
    let snapshot = store.snapshot().unwrap();
    let all = KeyRange::all();
    let mut forward = snapshot.latest(&all, Direction::Forward);
    let mut backward = snapshot.latest(&all, Direction::Backward);
    for (low, high) in keys.iter().zip(keys.iter().rev()).take(500) {
        assert_eq!(forward.next().unwrap().unwrap().0, *low);
        assert_eq!(backward.next().unwrap().unwrap().0, *high);
    }
    drop(forward);
    assert_eq!(backward.next().unwrap().unwrap().0, keys[199]);
    let rest = snapshot.latest(&KeyRange::all().after(&keys[499]), Direction::Forward);
    assert_eq!(rest.count(), 200);
    drop(backward);
    drop(snapshot);
    store.close().unwrap();
}

/// A snapshot holds what was there when it was taken, whatever is committed meanwhile, also between
/// two rows of a scan; several see several moments.
pub fn a_snapshot_is_one_moment(site: &mut Site) {
    let store = site.open();
    let keys: Vec<Key> = (0..300).map(|n| Key::new(format!("k/{n:03}"))).collect();
    let mut now = Expected::new();
    let mut moments: Vec<(Box<dyn Snapshot + '_>, Expected)> = Vec::new();
    for round in 1..=6u64 {
        moments.push((store.snapshot().unwrap(), now.clone()));
        // Some are overwritten, some forgotten, some appear, some stay.
        for (n, key) in (0u64..).zip(&keys) {
            let record = put(round, format!("{round} of {n}"));
            match (n + round) % 5 {
                0 => {
                    commit(&*store, &[Write::ForgetLatest { key }]);
                    now.remove(&key.ordered());
                }
                1 | 2 => {
                    commit(&*store, &[latest(key, &record)]);
                    now.insert(key.ordered(), (key.clone(), record));
                }
                _ => {}
            }
        }
        for (snapshot, then) in &moments {
            check(&**snapshot, &KeyRange::all(), then);
        }
        // They go in no order.
        if round % 3 == 0 {
            moments.remove(1);
        }
    }
    let (oldest, then) = moments.remove(0);
    let mut rows = oldest.latest(&KeyRange::all(), Direction::Forward);
    assert!(then.is_empty() && rows.next().is_none());
    drop(rows);
    let (snapshot, then) = moments.remove(0);
    let mut rows = snapshot.latest(&KeyRange::all(), Direction::Backward);
    for (key, record) in then.values().rev() {
        assert_eq!(rows.next().unwrap().unwrap(), (key.clone(), record.clone()));
        commit(&*store, &[Write::ForgetLatest { key }]);
        assert_eq!(snapshot.get(key).unwrap().as_ref(), Some(record));
        assert_eq!(store.get(key).unwrap(), None);
    }
    assert!(rows.next().is_none());
    drop(rows);
    drop((oldest, snapshot, moments));
    store.close().unwrap();
}

/// A batch is seen whole or not at all, by every read, while others are being committed.
pub fn readers_see_whole_batches(site: &mut Site) {
    const ROUNDS: u64 = 25;
    let store = site.open();
    let keys: Vec<Key> = (0..300).map(|n| Key::new(format!("k/{n:03}"))).collect();
    let round = |round: u64| put(round, round.to_string());
    let write = |record: &Record| {
        let batch: Vec<Write<'_>> = keys.iter().map(|key| latest(key, record)).collect();
        store.commit(&batch, Durability::Memory).unwrap();
    };
    write(&round(1));
    let done = AtomicU64::new(1);
    thread::scope(|scope| {
        for direction in DIRECTIONS {
            let (done, store, keys) = (&done, &store, &keys);
            scope.spawn(move || {
                let mut last = 0;
                while last < ROUNDS {
                    let before = done.load(Ordering::Acquire);
                    let snapshot = store.snapshot().unwrap();
                    let rows = collect(snapshot.latest(&KeyRange::all(), direction));
                    assert_eq!(rows.len(), keys.len());
                    let record = &rows[0].1;
                    assert!(
                        rows.iter().all(|(_, other)| other == record),
                        "a torn batch"
                    );
                    let seen = record.head.own.stamp.time;
                    assert!(
                        seen >= last && seen >= before,
                        "{seen} after {last}, {before}"
                    );
                    last = seen;
                }
            });
        }
        for n in 2..=ROUNDS {
            write(&round(n));
            done.store(n, Ordering::Release);
        }
    });
    store.close().unwrap();
}
