//! The end of a storage: nothing that was accepted is given up without a try.

use super::{
    replay::{Bench, held, offer_all, put},
    *,
};

/// A store that has failed rests for 50 ms at the least; the process ends sooner.
const MILLISECOND: u64 = (1 << 32) / 1_000;

#[test]
fn what_is_held_when_a_resting_store_is_closed_is_stored() {
    let faults = [
        Fault::Error(ErrorKind::Full),
        Fault::Error(ErrorKind::Unavailable),
        Fault::Torn { applied: false },
    ];
    for fault in faults {
        let mut bench = Bench::new(RocksdbVolume::default());
        bench.plan.spool.1 = 10;
        let mut shard = bench.open();
        bench.faults.at(Operation::Commit, 1, fault.clone());
        offer_all(&mut shard, bench.now, &[put("k", 1)]);
        assert!(shard.is_holding());
        bench.now += MILLISECOND;
        assert_eq!(shard.close(bench.now), 0, "{fault:?}");
        let shard = bench.open();
        assert_eq!(held(&shard, "k").as_deref(), Some("1"), "{fault:?}");
    }
}

#[test]
fn what_could_be_kept_nowhere_until_the_end_is_counted() {
    let mut bench = Bench::new(RocksdbVolume::default());
    bench.plan.spool.1 = 10;
    let mut shard = bench.open();
    bench.faults.set_budget(Some(0));
    offer_all(&mut shard, bench.now, &[put("k", 1), put("l", 2)]);
    assert_eq!(shard.close(bench.now), 2);
}

#[test]
fn what_waits_for_a_store_is_destroyed_with_it() {
    let mut bench = Bench::new(RocksdbVolume::default());
    let mut shard = bench.open();
    let down = Fault::Error(ErrorKind::Unavailable);
    bench.faults.at(Operation::Commit, 1, down);
    offer_all(&mut shard, bench.now, &[put("k", 1)]);
    shard.close(bench.now);
    assert!(bench.plan.spool.0.exists());
    bench.plan.clone().destroy().unwrap();
    assert!(!bench.plan.spool.0.exists());
    // A storage of the same name begins with nothing.
    let mut shard = bench.open();
    bench.settle(&mut shard);
    assert_eq!(held(&shard, "k"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_behind_a_resting_store_is_stored_when_the_router_stops() {
    let shape = Shape {
        spool_bytes_max: 10,
        ..Shape::default()
    };
    let world = World::new(RocksdbVolume::default(), shape);
    world.eventually("up", |world| world.storage.condition().current);
    // So many failures in a row that the last rest outlasts the test's begin.
    for nth in 1..=12 {
        let full = Fault::Error(ErrorKind::Full);
        world.faults.at(Operation::Commit, nth, full);
    }
    let expected = numbered(0..40);
    for (key, value) in &expected {
        world.put(key, 1, value);
    }
    world.eventually("holding", |world| {
        !world.storage.condition().current && world.faults.injected() >= 6
    });
    // More is queued behind what is held.
    world.put("k/last", 1, "last");
    assert!(world.storage.queued() > 0);
    world.faults.calm();
    world.storage.close().await;
    let spec = StoreSpec {
        dir: world.dir.path().join("shard-0"),
        ..StoreSpec::default()
    };
    let store = RocksdbVolume::default().open(&spec).unwrap();
    for (key, value) in &expected {
        let record = store.get(&Key::from(key.as_str())).unwrap().unwrap();
        assert_eq!(record.value.unwrap().payload, value.as_bytes());
    }
    assert!(store.get(&Key::from("k/last")).unwrap().is_some());
}
