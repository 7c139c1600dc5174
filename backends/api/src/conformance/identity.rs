//! Which store it is, over restarts.

use weir_core::{admission::History, change::Change, key::Key, value::Value, version::Stamp};

use super::{
    Site,
    harness::{Shard, rules},
    model::Op,
};
use crate::recover;

/// A store that is opened again is the same, in another run, with all that was committed; one that keeps
/// nothing is another store.
pub fn a_store_is_known_again(site: &mut Site) {
    let store = site.open();
    assert_eq!(recover::identity(&*store).unwrap(), None);
    let mut shard = Shard::new(store, rules(History::Latest), 1).unwrap();
    shard.begin_run((1 << 64) | 2).unwrap();
    let put = |key: &str| {
        let stamp = Stamp {
            time: 1,
            id: [1; 16],
        };
        Op::Key(Change {
            key: Key::from(key),
            stamp: Some(stamp),
            value: Some(Value::bytes("x")),
        })
    };
    for key in ["a", "a", "b"] {
        shard.offer(&mut vec![put(key)]).unwrap();
    }
    let before = recover::identity(shard.store()).unwrap().unwrap();
    assert_eq!((before.id, before.incarnation, before.run), (1, 1, 2));
    // What was known already is no change.
    assert_eq!((before.opened, before.position), (0, 2));

    let store = site.reopen(shard.into_store());
    let after = recover::begin_run(&*store, (3 << 64) | 4).unwrap();
    assert_eq!(recover::identity(&*store).unwrap(), Some(after));
    if site.can().persistent {
        assert_eq!((after.id, after.incarnation), (1, 2));
        assert_eq!((after.run, after.parent), (4, 2));
        assert_eq!((after.opened, after.position), (2, 2));
    } else {
        assert_eq!((after.id, after.incarnation, after.opened), (3, 1, 0));
    }
    store.close().unwrap();
}
