//! Opening, closing, counting, refusing.

use std::fs;

use weir_core::{
    change::{Table, Write},
    key::{Key, KeyRange},
    record::Record,
};

use super::{
    Site, commit,
    ranges::collect,
    samples::{history, latest, put, tombstone},
};
use crate::{Direction, Durability, ErrorKind, Store, StoreSpec};

/// Some of everything, in one batch.
struct Content {
    keys: Vec<Key>,
    record: Record,
    dead: Record,
    has_history: bool,
}

impl Content {
    fn new(site: &Site) -> Self {
        Self {
            keys: ["", "a", "a/b", "c"].map(Key::from).to_vec(),
            record: put(1, "x"),
            dead: tombstone(2),
            has_history: site.can().history,
        }
    }

    fn write(&self, store: &dyn Store) {
        let mut batch = Vec::new();
        for key in &self.keys {
            batch.push(latest(key, &self.record));
            if self.has_history {
                batch.push(history(key, &self.record));
                batch.push(history(key, &self.dead));
            }
        }
        batch.push(latest(&self.keys[1], &self.dead));
        for table in Table::ALL {
            batch.push(Write::Row {
                table,
                key: b"row".to_vec(),
                value: Some(vec![table as u8]),
            });
        }
        commit(store, &batch);
    }

    fn check(&self, store: &dyn Store) {
        for (index, key) in self.keys.iter().enumerate() {
            let expected = if index == 1 { &self.dead } else { &self.record };
            assert_eq!(store.get(key).unwrap().as_ref(), Some(expected), "{key:?}");
        }
        let snapshot = store.snapshot().unwrap();
        let all = KeyRange::all();
        let rows = collect(snapshot.latest(&all, Direction::Forward));
        assert_eq!(rows.len(), self.keys.len());
        if self.has_history {
            let rows = collect(snapshot.history(&all, None, Direction::Forward));
            assert_eq!(rows.len(), 2 * self.keys.len());
        }
        for table in Table::ALL {
            let rows = store.rows(table, b"", 9).unwrap();
            assert_eq!(rows, [(b"row".to_vec(), vec![table as u8])]);
        }
    }

    fn check_empty(&self, store: &dyn Store) {
        for key in &self.keys {
            assert_eq!(store.get(key).unwrap(), None, "{key:?}");
        }
        for table in Table::ALL {
            assert_eq!(store.rows(table, b"", 9).unwrap(), []);
        }
    }
}

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
    let mut store = site.open();
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
    let again = latest(&keys[2], &live);
    commit(&*store, &[again.clone(), forget(&keys[2]), again]);
    check(&*store, 99);
    if site.can().persistent {
        store = site.reopen(store);
        check(&*store, 99);
    }
    store.close().unwrap();
}

/// Everything is there again after a close, as often as one likes.
pub fn a_restart_loses_nothing(site: &mut Site) {
    let content = Content::new(site);
    let store = site.open();
    content.write(&*store);
    content.check(&*store);
    if !site.can().persistent {
        store.close().unwrap();
        content.check_empty(&*site.open());
        return;
    }
    let store = site.reopen(store);
    content.check(&*store);
    let store = site.reopen(store);
    content.check(&*store);
    store.close().unwrap();
}

/// What was committed as written is there when the store was dropped without a close.
pub fn a_drop_without_close_loses_nothing(site: &mut Site) {
    let content = Content::new(site);
    if !site.can().persistent {
        return;
    }
    let store = site.open();
    content.write(&*store);
    drop(store);
    for _ in 0..2 {
        site.restart_volume();
        let store = site.open();
        content.check(&*store);
        drop(store);
    }
}

/// A store opened to be read refuses every write and answers every read.
pub fn read_only_refuses_writes(site: &mut Site) {
    let content = Content::new(site);
    let store = site.open();
    content.write(&*store);
    store.close().unwrap();
    let spec = StoreSpec {
        read_only: true,
        create: !site.can().persistent,
        ..site.main()
    };
    let store = site.volume().open(&spec).unwrap();
    let (key, record) = (Key::from("new"), put(9, "x"));
    let row = Write::Row {
        table: Table::System,
        key: b"new".to_vec(),
        value: Some(Vec::new()),
    };
    let known = &content.keys[0];
    let refused = [
        latest(&key, &record),
        Write::ForgetLatest { key: known },
        history(&key, &record),
        row,
    ];
    for write in refused {
        let answer = store.commit(std::slice::from_ref(&write), Durability::Written);
        let kind = answer.map_err(|error| error.kind());
        assert_eq!(kind, Err(ErrorKind::Rejected), "{write:?}");
    }
    if site.can().persistent {
        content.check(&*store);
    } else {
        content.check_empty(&*store);
    }
    store.close().unwrap();
    if site.can().persistent {
        content.check(&*site.open());
    }
}

/// Without `create` a store that is not there is an error, and is not there afterwards.
pub fn an_absent_store_is_an_error(site: &mut Site) {
    if !site.can().persistent {
        return;
    }
    let spec = StoreSpec {
        create: false,
        ..site.main()
    };
    for read_only in [false, true] {
        let spec = StoreSpec {
            read_only,
            ..spec.clone()
        };
        let opened = site.volume().open(&spec);
        assert!(opened.is_err(), "a store that is not there was opened");
    }
    assert!(!spec.dir.exists(), "a refused open left a directory");
    site.open().close().unwrap();
    site.volume().open(&spec).unwrap().close().unwrap();
}

/// `destroy_on_close` leaves nothing, and only then.
pub fn destroys_on_close(site: &mut Site) {
    let content = Content::new(site);
    let spec = StoreSpec {
        destroy_on_close: true,
        ..site.main()
    };
    let open = || site.volume().open(&spec).unwrap();
    let store = open();
    content.write(&*store);
    if site.can().persistent {
        // Only a close destroys: a crash is none.
        drop(store);
        let store = open();
        content.check(&*store);
        store.close().unwrap();
        if spec.dir.exists() {
            let left: Vec<_> = fs::read_dir(&spec.dir).unwrap().collect();
            assert!(left.is_empty(), "left behind: {left:?}");
        }
    } else {
        store.close().unwrap();
    }
    let store = site.open();
    content.check_empty(&*store);
    store.close().unwrap();
}

/// One directory is open once at a time.
pub fn a_second_open_is_refused(site: &mut Site) {
    if !site.can().persistent {
        return;
    }
    let content = Content::new(site);
    let store = site.open();
    content.write(&*store);
    let again = site.volume().open(&site.main());
    let kind = again.map(|_| ()).map_err(|error| error.kind());
    assert_eq!(kind, Err(ErrorKind::Unavailable));
    // The first is none the worse.
    content.check(&*store);
    content.write(&*store);
    store.close().unwrap();
    content.check(&*site.open());
}

/// Stores of one volume share nothing.
pub fn stores_are_apart(site: &mut Site) {
    let content = Content::new(site);
    let open = |name| site.volume().open(&site.spec(name)).unwrap();
    let (left, right) = (open("left"), open("right"));
    content.write(&*left);
    content.check(&*left);
    content.check_empty(&*right);
    left.close().unwrap();
    content.check_empty(&*right);
    right.close().unwrap();
}

/// If one key of a batch cannot be held, nothing of the batch is.
pub fn a_refused_batch_leaves_nothing(site: &mut Site) {
    let store = site.open();
    let content = Content::new(site);
    content.write(&*store);
    let record = put(5, "new");
    let (before, behind) = (Key::from("a"), Key::from("z"));
    for len in [8 << 10, 64 << 10, 1 << 20] {
        let long = Key::new("x".repeat(len));
        let batch = [
            latest(&before, &record),
            latest(&long, &record),
            latest(&behind, &record),
            Write::ForgetLatest {
                key: &content.keys[0],
            },
        ];
        match store.commit(&batch, Durability::Written) {
            Ok(_) => {
                assert_eq!(store.get(&long).unwrap().as_ref(), Some(&record));
                assert_eq!(store.get(&behind).unwrap().as_ref(), Some(&record));
                let forget = [&long, &behind].map(|key| Write::ForgetLatest { key });
                commit(&*store, &forget);
                content.write(&*store);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
                assert_eq!(store.get(&long).unwrap(), None);
                assert_eq!(store.get(&behind).unwrap(), None);
            }
        }
        content.check(&*store);
    }
    store.close().unwrap();
}
