//! What mirrors tell of their stores.

use weir_core::identity::Identity;

use super::*;
use crate::storage::{News, Told};

/// What a question tells that has found both equal then.
fn asked(stores: &[Identity], at: u64) -> News {
    News::Asked {
        stores: stores.to_vec(),
        in_step: Some(at),
        counts: true,
    }
}

fn told(stores: &[Identity]) -> News {
    News::Told(Told {
        stores: stores.to_vec(),
        first: u64::MAX,
    })
}

/// Waits until that was noticed last.
async fn wait_noticed(world: &World, kind: &str) {
    let noticed = world.storage.notices.of("r/other");
    let is_noticed = || noticed.status().last.is_some_and(|last| last.kind == kind);
    while !is_noticed() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_become_of_a_mirrors_store_is_noticed_once() {
    for shards in [1, 3] {
        let shape = Shape {
            shards,
            ..Shape::default()
        };
        let world = World::new(MemoryVolume::new(), shape);
        let first = Identity::next(None, 7, (5 << 64) | 1);
        let again = Identity::next(Some(first), 9, 2);
        let older = Identity::next(Some(first), 6, 3);
        let new = Identity::next(None, 0, (6 << 64) | 4);
        for store in [first, again, older] {
            world.storage.learn("r/other", told(&[store]));
        }
        wait_noticed(&world, "restored").await;
        world.storage.learn("r/other", told(&[older, new]));
        world.storage.learn("r/other", told(&[new]));
        wait_noticed(&world, "swapped").await;
        let own: Vec<Identity> = world
            .storage
            .stores()
            .filter_map(|(_, store)| store)
            .collect();
        assert_eq!(own.len(), shards);
        world.storage.learn("r/other", told(&own[shards - 1..]));
        wait_noticed(&world, "cloned").await;
        let noticed = world.storage.notices.of("r/other").status();
        let counts: Vec<u64> = noticed.changes.each().map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 0, 1, 0, 1, 1]);
        world.storage.close().await;
    }
}

/// A question may be old: what it tells is not believed, but looked into.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_by_unknown_stores_makes_us_ask() {
    let world = World::memory();
    let stores = vec![Identity::next(None, 7, 1)];
    let noticed = world.storage.notices.of("r/other");
    world.storage.learn("r/other", asked(&stores, 5));
    noticed.await_doubt().await;
    world.storage.learn("r/other", told(&stores));
    world.storage.learn("r/other", asked(&stores, 6));
    let other = vec![Identity::next(None, 7, 2)];
    world.storage.learn("r/other", asked(&other, 7));
    noticed.await_doubt().await;
    assert!(noticed.status().last.is_none());
    world.storage.close().await;
}
