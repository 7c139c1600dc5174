//! What queries find in storages of several shards, and page by page.

use weir_core::selection::{Cursor, Order};

use super::*;

/// Each shard forgets at a pace of its own: what one has dropped, or still holds, says nothing of the
/// others.
#[tokio::test(flavor = "multi_thread")]
async fn each_shard_drops_its_own_old_data() {
    const VALUE_BYTES: usize = 1_000;
    let value = "v".repeat(VALUE_BYTES);
    let ring = Ring::new([("shard-0", 1.0), ("shard-1", 1.0)]);
    let shard_of = |key: &str| ring.place(u64::try_from(Key::from(key).hash128() >> 64).unwrap());
    let keys_of = |shard: usize, what: &str, count: usize| -> Vec<String> {
        let keys = (0..).map(|number| format!("{what}/{number}"));
        keys.filter(|key| shard_of(key) == shard)
            .take(count)
            .collect()
    };
    for (history, full) in [History::Latest, History::All]
        .into_iter()
        .flat_map(|history| [(history, 0), (history, 1)])
    {
        let mut shape = Shape {
            history,
            shards: 2,
            ..Shape::default()
        };
        shape.upkeep.period = convert::ntp64_span(Duration::from_millis(5));
        shape.upkeep.bytes_max = Some(20 * VALUE_BYTES as u64);
        let world = World::new(MemoryVolume::new(), shape);
        // Old keys on both, then so many on one of them that it has to drop its old ones.
        let (kept, dropped) = (keys_of(1 - full, "old", 3), keys_of(full, "old", 3));
        for key in kept.iter().chain(&dropped) {
            world.put(key, -60_000, &value);
        }
        for key in keys_of(full, "new", 60) {
            world.put(&key, -1_000, &value);
        }
        let names = |selection: &Selection| -> Vec<String> {
            let found = world.select(selection).unwrap();
            found.into_iter().map(|(key, _, _)| key).collect()
        };
        world.eventually("dropped on one shard", |_| {
            let found = names(&Selection::default());
            world.storage.counters.received.load(Relaxed) == 66
                && dropped.iter().all(|key| !found.contains(key))
        });
        for time in [None, Some((0, u64::MAX))] {
            let selection = Selection {
                time,
                ..Selection::default()
            };
            let found = names(&selection);
            for key in &kept {
                assert!(found.contains(key), "{key} of {found:?} by {selection:?}");
            }
            for key in &dropped {
                assert!(!found.contains(key), "{key} of {found:?} by {selection:?}");
            }
        }
        world.storage.close().await;
    }
}

/// A client that pages over several storages hands the last key of one to all of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_goes_on_behind_a_key_that_is_none_of_the_storages() {
    let shape = Shape {
        prefix: Some("m"),
        ..Shape::default()
    };
    let world = World::new(MemoryVolume::new(), shape);
    for (number, key) in ["1", "2", "3"].into_iter().enumerate() {
        world.put(key, -10 + i64::try_from(number).unwrap(), "x");
    }
    world.eventually("stored", |world| {
        world.read().is_ok_and(|read| read.len() == 3)
    });
    let all = ["m/1", "m/2", "m/3"];
    let rows: [(Order, &str, &[&str]); 8] = [
        (Order::Key, "b/5", &all),
        (Order::Key, "m", &all),
        (Order::Key, "m/1", &all[1..]),
        (Order::Key, "z/5", &[]),
        (Order::KeyDescending, "b/5", &[]),
        (Order::KeyDescending, "m/3", &["m/2", "m/1"]),
        (Order::KeyDescending, "mm", &["m/3", "m/2", "m/1"]),
        (Order::KeyDescending, "z/5", &["m/3", "m/2", "m/1"]),
    ];
    for (order, cursor, expected) in rows {
        let selection = Selection {
            order,
            cursor: Some(Cursor {
                key: cursor.to_owned(),
                stamp: None,
            }),
            ..Selection::default()
        };
        let found = world.select(&selection).unwrap();
        let found: Vec<&str> = found.iter().map(|(key, _, _)| &**key).collect();
        assert_eq!(found, expected, "{order:?} behind {cursor}");
    }
    // In time: of one stamp, the full keys decide.
    let stamp = world.stamp(-9);
    for (cursor, expected) in [("b", &all[1..]), ("m/2", &all[2..]), ("z", &all[2..])] {
        let selection = Selection {
            order: Order::Time,
            cursor: Some(Cursor {
                key: cursor.to_owned(),
                stamp,
            }),
            ..Selection::default()
        };
        let found = world.select(&selection).unwrap();
        let found: Vec<&str> = found.iter().map(|(key, _, _)| &**key).collect();
        assert_eq!(found, expected, "in time behind {cursor}");
    }
    world.storage.close().await;
}
