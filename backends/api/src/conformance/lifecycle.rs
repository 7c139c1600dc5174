//! Opening, closing, counting, refusing.

use weir_core::{change::Write, key::Key};

use super::{
    Site, commit,
    samples::{latest, put, tombstone},
};
use crate::{Durability, Store};

/// A commit is at least as durable as asked, as far as the store can; it never says more than it can.
pub fn says_how_durable_a_commit_is(site: &mut Site) {
    let store = site.open();
    let can = site.can();
    assert_eq!(store.capability(), can, "the store and its volume differ");
    let (key, record) = (Key::from("a"), put(1, "x"));
    for asked in [Durability::Memory, Durability::Written, Durability::Synced] {
        let reached = store.commit(&[latest(&key, &record)], asked).unwrap();
        assert!(
            reached >= asked.min(can.durability_max),
            "{asked:?}: {reached:?}"
        );
        assert!(reached <= can.durability_max, "{asked:?}: {reached:?}");
    }
    assert_eq!(store.sync().unwrap(), can.durability_max);
    store.close().unwrap();
}

/// Keys are counted with their tombstones; bytes grow with what is held.
pub fn counts_keys(site: &mut Site) {
    let store = site.open();
    let is_exact = site.can().exact_count;
    let check = |store: &dyn Store, keys: u64| {
        let count = store.count().unwrap();
        if is_exact {
            assert_eq!(count.keys, keys);
        }
    };
    check(&*store, 0);
    let keys: Vec<Key> = (0..100).map(|n| Key::new(format!("k/{n}"))).collect();
    let (live, dead) = (put(1, vec![7; 1_000]), tombstone(2));
    let batch: Vec<Write<'_>> = keys.iter().map(|key| latest(key, &live)).collect();
    commit(&*store, &batch);
    commit(&*store, &batch);
    check(&*store, 100);
    store.sync().unwrap();
    assert!(store.count().unwrap().bytes > 0, "100 kB are nothing");
    commit(&*store, &[latest(&keys[0], &dead), latest(&keys[1], &dead)]);
    check(&*store, 100);
    let forget = |key| Write::ForgetLatest { key };
    commit(
        &*store,
        &[forget(&keys[0]), forget(&keys[0]), forget(&keys[2])],
    );
    check(&*store, 98);
    commit(
        &*store,
        &[
            latest(&keys[2], &live),
            forget(&keys[2]),
            latest(&keys[2], &live),
        ],
    );
    check(&*store, 99);
    store.close().unwrap();
}
