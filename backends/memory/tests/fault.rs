//! The fault-injecting volume, on stores in memory.

#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps and fails says where"
)]

use std::{sync::Arc, thread};

use weir_backend_api::{
    Direction, Durability, ErrorKind, Result, Store, StoreSpec, Volume,
    fault::{Fault, Faults, Faulty, Gate, Operation},
};
use weir_backend_memory::MemoryVolume;
use weir_core::{
    change::{Table, Write},
    key::{Key, KeyRange},
    record::Record,
    value::Value,
    version::{Stamp, Version},
};

fn open(faults: &Faults) -> Result<Box<dyn Store>> {
    Faulty::new(MemoryVolume::new(), faults.clone()).open(&StoreSpec::default())
}

fn record(time: u64) -> Record {
    let stamp = Stamp { time, id: [1; 16] };
    let value = Value::bytes(vec![7; 10]);
    Record::own(Version::put(stamp, value.hash()), Some(value))
}

/// Commits a record of 10 bytes under a key of 1 byte.
fn commit(store: &dyn Store, key: &str, time: u64) -> Result<Durability> {
    let (key, record) = (&Key::from(key), record(time));
    let record = record.as_ref();
    store.commit(&[Write::Latest { key, record }], Durability::Memory)
}

fn kind<T>(answer: Result<T>) -> Option<ErrorKind> {
    answer.err().map(|error| error.kind())
}

/// Calls an operation, whatever it answers.
fn call(store: &dyn Store, operation: Operation) -> Option<ErrorKind> {
    let key = Key::from("k");
    match operation {
        Operation::Heads => kind(store.heads(&[&key])),
        Operation::Get => kind(store.get(&key)),
        Operation::Commit => kind(commit(store, "k", 1)),
        Operation::Sync => kind(store.sync()),
        Operation::Snapshot => kind(store.snapshot().map(|_| ())),
        Operation::Scan => {
            let snapshot = store.snapshot().unwrap();
            let mut rows = snapshot.latest(&KeyRange::all(), Direction::Forward);
            let error = rows.next().and_then(kind);
            // An error ends the scan.
            assert!(error.is_none() || rows.next().is_none());
            error
        }
        Operation::Rows => kind(store.rows(Table::Jobs, &[], 1)),
        Operation::Count => kind(store.count()),
        Operation::Open | Operation::Close => unreachable!("they need no store"),
    }
}

const OF_A_STORE: [Operation; 8] = [
    Operation::Heads,
    Operation::Get,
    Operation::Commit,
    Operation::Sync,
    Operation::Snapshot,
    Operation::Scan,
    Operation::Rows,
    Operation::Count,
];

#[test]
fn the_nth_call_of_any_operation_fails_as_scripted() {
    let kinds = [
        ErrorKind::Unavailable,
        ErrorKind::Full,
        ErrorKind::Rejected,
        ErrorKind::Corrupt,
    ];
    for operation in OF_A_STORE {
        for expected in kinds {
            let faults = Faults::new();
            let store = open(&faults).unwrap();
            commit(&*store, "k", 1).unwrap();
            faults.at(operation, 2, Fault::Error(expected));
            let answers = [0; 3].map(|_| call(&*store, operation));
            assert_eq!(answers, [None, Some(expected), None], "{operation:?}");
            assert_eq!(faults.injected(), 1);
        }
    }
    let faults = Faults::new();
    faults.at(Operation::Open, 1, Fault::Error(ErrorKind::Unavailable));
    assert_eq!(kind(open(&faults)), Some(ErrorKind::Unavailable));
    let store = open(&faults).unwrap();
    faults.at(Operation::Close, 1, Fault::Error(ErrorKind::Full));
    assert_eq!(kind(store.close()), Some(ErrorKind::Full));
    assert_eq!(faults.calls(Operation::Open), 2);
}

#[test]
fn a_commit_that_fails_leaves_nothing() {
    for fault in [
        Fault::Error(ErrorKind::Unavailable),
        Fault::Torn { applied: false },
        Fault::Error(ErrorKind::Poisoned),
    ] {
        let faults = Faults::new();
        let store = open(&faults).unwrap();
        faults.at(Operation::Commit, 1, fault.clone());
        assert!(commit(&*store, "k", 1).is_err());
        assert_eq!(store.get(&Key::from("k")).unwrap(), None, "{fault:?}");
    }
}

#[test]
fn a_torn_commit_poisons_until_the_store_is_opened_again() {
    let faults = Faults::new();
    let store = open(&faults).unwrap();
    faults.at(Operation::Commit, 1, Fault::Torn { applied: true });
    let poisoned = Some(ErrorKind::Poisoned);
    assert_eq!(kind(commit(&*store, "k", 1)), poisoned);
    assert_eq!(kind(commit(&*store, "l", 1)), poisoned);
    assert_eq!(kind(store.sync()), poisoned);
    // What it holds can still be read: this batch had reached it, the next one had not.
    assert_eq!(store.get(&Key::from("k")).unwrap(), Some(record(1)));
    assert_eq!(store.get(&Key::from("l")).unwrap(), None);
    assert_eq!(kind(store.close()), poisoned);
    let store = open(&faults).unwrap();
    commit(&*store, "l", 1).unwrap();
}

#[test]
fn a_dead_process_answers_nothing_until_it_is_revived() {
    for applied in [false, true] {
        let faults = Faults::new();
        let store = open(&faults).unwrap();
        faults.crash_at_write(2, applied);
        commit(&*store, "a", 1).unwrap();
        let closed = Some(ErrorKind::Closed);
        assert_eq!(kind(commit(&*store, "b", 1)), closed);
        assert!(faults.is_dead());
        for operation in OF_A_STORE {
            if operation != Operation::Scan {
                assert_eq!(call(&*store, operation), closed, "{operation:?}");
            }
        }
        assert_eq!(kind(open(&faults)), closed);
        faults.revive();
        // The store that died stays dead; a new one works.
        assert_eq!(kind(store.get(&Key::from("a"))), closed);
        assert_eq!(kind(store.close()), closed);
        let store = open(&faults).unwrap();
        commit(&*store, "b", 1).unwrap();
    }
}

#[test]
fn a_budget_is_kept_to_the_byte() {
    let faults = Faults::new();
    let store = open(&faults).unwrap();
    faults.set_budget(Some(25));
    commit(&*store, "a", 1).unwrap();
    commit(&*store, "b", 1).unwrap();
    for _ in 0..2 {
        assert_eq!(kind(commit(&*store, "c", 1)), Some(ErrorKind::Full));
        assert_eq!(store.get(&Key::from("c")).unwrap(), None);
    }
    faults.set_budget(Some(11));
    commit(&*store, "c", 1).unwrap();
    assert_eq!(kind(commit(&*store, "d", 1)), Some(ErrorKind::Full));
    faults.set_budget(None);
    commit(&*store, "d", 1).unwrap();
}

#[test]
fn a_seed_repeats_its_faults() {
    let history = |seed| {
        let faults = Faults::new();
        let store = open(&faults).unwrap();
        let unavailable = Fault::Error(ErrorKind::Unavailable);
        let full = Fault::Error(ErrorKind::Full);
        let kinds = [
            (Operation::Commit, unavailable.clone()),
            (Operation::Commit, full),
            (Operation::Get, unavailable),
        ];
        faults.random(seed, 3, kinds);
        let answers: Vec<_> = (0..200)
            .flat_map(|_| [Operation::Commit, Operation::Get, Operation::Sync])
            .map(|operation| call(&*store, operation))
            .collect();
        faults.calm();
        assert_eq!(call(&*store, Operation::Commit), None);
        answers
    };
    let (one, again, other) = (history(1), history(1), history(2));
    assert_eq!(one, again);
    assert_ne!(one, other);
    let failed = one.iter().flatten().count();
    // Two of three calls can fail, one time in three: 133 of 600 on average.
    assert!((90..180).contains(&failed), "{failed}");
    assert!(one.contains(&Some(ErrorKind::Full)));

    let faults = Faults::new();
    let store = open(&faults).unwrap();
    let fault = Fault::Error(ErrorKind::Unavailable);
    faults.random(42, 1, [(Operation::Commit, fault)]);
    let message = commit(&*store, "a", 1).unwrap_err().to_string();
    assert!(message.contains("by seed 42"), "{message}");
}

#[test]
fn a_slow_commit_holds_up_nobody_else() {
    let faults = Faults::new();
    let store: Arc<dyn Store> = Arc::from(open(&faults).unwrap());
    commit(&*store, "k", 1).unwrap();
    let gate = Gate::new();
    faults.at(Operation::Commit, 1, gate.fault());
    thread::scope(|scope| {
        let slow = scope.spawn(|| commit(&*store, "k", 2));
        gate.wait_for(1);
        assert_eq!(store.get(&Key::from("k")).unwrap(), Some(record(1)));
        let snapshot = store.snapshot().unwrap();
        let rows = snapshot.latest(&KeyRange::all(), Direction::Forward);
        assert_eq!(rows.count(), 1);
        gate.open();
        slow.join().unwrap().unwrap();
    });
    assert_eq!(store.get(&Key::from("k")).unwrap(), Some(record(2)));
    // Not parked, not failed: it is over.
    commit(&*store, "k", 3).unwrap();
}
