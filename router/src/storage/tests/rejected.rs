//! Changes that a store can never write: each is quarantined, whatever way it came, and stands in
//! nobody's way.

use super::{
    replay::{Bench, held, offer_all, put},
    *,
};

const SECOND: u64 = 1 << 32;

fn rows(shard: &shard::Shard, table: Table) -> usize {
    let reader = shard.reader().get().unwrap();
    reader.store.rows(table, &[], usize::MAX).unwrap().len()
}

#[test]
fn a_parked_change_that_cannot_be_written_lets_those_behind_it_pass() {
    let mut bench = Bench::new(RocksdbVolume::default());
    let mut shard = bench.open();
    let future = bench.now / SECOND + 600;
    let ops = [put("a", future), put("b", future + 1)];
    offer_all(&mut shard, bench.now, &ops);
    assert_eq!(rows(&shard, Table::Parked), 2);
    bench.now += 200 * SECOND;
    let rejected = Fault::Error(ErrorKind::Rejected);
    bench.faults.at(Operation::Commit, 1, rejected);
    while shard.tick(bench.now) {}
    assert_eq!(rows(&shard, Table::Quarantine), 1);
    assert_eq!(rows(&shard, Table::Parked), 0);
    assert_eq!(held(&shard, "a"), None);
    assert!(held(&shard, "b").is_some());
    assert!(shard.is_current());
}

#[test]
fn a_change_that_cannot_be_quarantined_either_is_spooled_and_comes_again() {
    for together in [false, true] {
        let mut bench = Bench::new(RocksdbVolume::default());
        let mut shard = bench.open();
        let rejected = || Fault::Error(ErrorKind::Rejected);
        let mut ops = vec![put("a", 1)];
        if together {
            ops.push(put("b", 2));
            // The batch, and then its first change alone.
            bench.faults.at(Operation::Commit, 1, rejected());
        }
        let nth = ops.len() as u64;
        bench.faults.at(Operation::Commit, nth, rejected());
        let full = Fault::Error(ErrorKind::Full);
        bench.faults.at(Operation::Commit, nth + 1, full);
        offer_all(&mut shard, bench.now, &ops);
        assert_eq!(shard.spooled().0, nth);
        assert_eq!(bench.counters.quarantined.load(Relaxed), 0);
        bench.settle(&mut shard);
        // It is refused no longer.
        assert_eq!(held(&shard, "a").as_deref(), Some("1"));
    }
}

/// Of what is replayed, too: and the mark says that it was.
#[test]
fn a_spooled_change_that_cannot_be_written_is_quarantined_once() {
    let mut bench = Bench::new(RocksdbVolume::default());
    let mut shard = bench.open();
    let down = Fault::Error(ErrorKind::Unavailable);
    bench.faults.at(Operation::Commit, 1, down);
    offer_all(&mut shard, bench.now, &[put("a", 1), put("b", 2)]);
    for nth in [1, 2] {
        let rejected = Fault::Error(ErrorKind::Rejected);
        bench.faults.at(Operation::Commit, nth, rejected);
    }
    let full = Fault::Error(ErrorKind::Full);
    bench.faults.at(Operation::Commit, 4, full);
    bench.settle(&mut shard);
    assert_eq!(rows(&shard, Table::Quarantine), 1);
    assert_eq!(held(&shard, "a"), None);
    assert_eq!(held(&shard, "b").as_deref(), Some("2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_to_the_quarantine_is_released_once() {
    let world = World::rocksdb();
    world.eventually("up", |world| world.storage.condition().current);
    let rejected = || Fault::Error(ErrorKind::Rejected);
    world.faults.at(Operation::Commit, 1, rejected());
    world.put("a", 1, "x");
    world.eventually("quarantined", |world| {
        world.storage.counters.quarantined.load(Relaxed) == 1
    });
    // Each time that it is put again it is refused, quarantined, and removed from where it was.
    for round in 0..50 {
        world
            .faults
            .at(Operation::Commit, 3 * round + 1, rejected());
    }
    let (done, outcome) = mpsc::channel();
    let aside = Aside {
        table: Table::Quarantine,
        release: true,
        done,
    };
    world.storage.set_aside(aside).unwrap();
    assert_eq!(outcome.recv_timeout(PATIENCE).unwrap(), Ok(1));
    assert_eq!(world.storage.counters.quarantined.load(Relaxed), 2);
    let reader = world.storage.readers()[0].get().unwrap();
    let rows = reader.store.rows(Table::Quarantine, &[], 10).unwrap();
    assert_eq!(rows.len(), 1, "it is still there, under its new stamp");
    drop(reader);
    world.storage.close().await;
}
