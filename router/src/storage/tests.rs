//! The storage's task with stores that fail: nothing accepted is lost, nothing else is promised.

mod closing;
mod joint;
mod noticed;
mod queries;
mod rejected;
mod replay;
mod replicas;
mod resolving;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use weir_backend_api::{
    Durability, ErrorKind, StoreSpec, Volume,
    fault::{Fault, Faults, Faulty, Operation},
};
use weir_backend_memory::MemoryVolume;
use weir_backend_rocksdb::RocksdbVolume;
use weir_core::{
    admission::Rules,
    change::{Admission, Change, KeptChange, Table, WildcardChange},
    key::Key,
    pattern::{KeyPattern, KeySet},
    selection::Selection,
};
use zenoh::{
    key_expr::{KeyExpr, OwnedKeyExpr},
    sample::SampleBuilder,
};

use super::{offer::Outcome, *};
use crate::{convert, query};

/// Longer than any rest of a failing store; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    storage: Arc<Storage>,
    faults: Faults,
    start: u64,
    dir: TempDir,
}

/// What differs between the tests' storages.
#[derive(Clone)]
struct Shape {
    history: History,
    shards: usize,
    upkeep: Upkeep,
    spool_bytes_max: u64,
    resolver: Option<Arc<dyn shard::ResolverSlot>>,
    prefix: Option<&'static str>,
}

impl Default for Shape {
    fn default() -> Self {
        let day = 86_400 << 32;
        let upkeep = Upkeep {
            period: day,
            lifespan: day,
            patience: day,
            bytes_max: None,
            versions_max: None,
        };
        Self {
            history: History::Latest,
            shards: 1,
            upkeep,
            spool_bytes_max: 1 << 30,
            resolver: None,
            prefix: None,
        }
    }
}

impl World {
    fn new<V: Volume + 'static>(volume: V, shape: Shape) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let faults = Faults::new();
        let volume: Arc<dyn Volume> = Arc::new(Faulty::new(volume, faults.clone()));
        let clock = SharedClock::open(dir.path(), [7; 16], 0).unwrap();
        let start = clock.now();
        let prefix = shape
            .prefix
            .map(|prefix| OwnedKeyExpr::try_from(prefix).unwrap());
        let space = KeySpace::new(prefix).unwrap();
        let shard = |index: usize| {
            let name = format!("shard-{index}");
            let plan = shard::Plan {
                volume: Arc::clone(&volume),
                spec: StoreSpec {
                    name: name.clone(),
                    dir: dir.path().join(&name),
                    create: true,
                    history: shape.history == History::All,
                    ..StoreSpec::default()
                },
                rules: Rules {
                    history: shape.history,
                    drift: convert::ntp64_span(Duration::from_millis(500)),
                    age_max: None,
                    cache_keys: 16,
                    resolves: shape.resolver.is_some(),
                },
                space: space.clone(),
                durability: Durability::Written,
                spool: (spool_dir(dir.path(), index), shape.spool_bytes_max),
                resolver: shape.resolver.clone(),
                address: "r/tested".to_owned(),
            };
            (name, 1.0, plan)
        };
        let set = KeySet {
            patterns: vec![KeyPattern::parse("**").unwrap()],
            exclude: Vec::new(),
        };
        let plan = Plan {
            name: "tested".to_owned(),
            set,
            space: space.clone(),
            complete: false,
            read_only: false,
            stamp: true,
            queue_max: 64,
            upkeep: shape.upkeep.clone(),
            shard_by: None,
            shards: (0..shape.shards).map(shard).collect(),
            labels: (0..shape.shards).map(|n| n.to_string()).collect(),
        };
        let storage = Storage::open(plan, None, Arc::new(clock)).unwrap();
        Self {
            storage,
            faults,
            start,
            dir,
        }
    }

    fn memory() -> Self {
        Self::new(MemoryVolume::new(), Shape::default())
    }

    fn rocksdb() -> Self {
        Self::new(RocksdbVolume::default(), Shape::default())
    }

    /// A stamp that many milliseconds after the test's begin.
    fn stamp(&self, millis: i64) -> Option<Stamp> {
        let span = convert::ntp64_span(Duration::from_millis(millis.unsigned_abs()));
        let time = if millis < 0 {
            self.start - span
        } else {
            self.start + span
        };
        Some(Stamp { time, id: [9; 16] })
    }

    /// Hands a change over that nobody waits for.
    fn hand(&self, op: KeptChange) {
        let manners = Manners {
            block: true,
            hurry: false,
            bytes: 1,
        };
        let pushed = self
            .storage
            .queue
            .push(Handed::Offer(Box::new(Offer::silent(op))), manners);
        assert_eq!(pushed, Pushed::Queued);
    }

    fn put(&self, key: &str, millis: i64, value: &str) {
        let value = Some(Value::bytes(value.as_bytes().to_vec()));
        self.hand(KeptChange::Key(Change {
            key: Key::from(key),
            stamp: self.stamp(millis),
            value,
        }));
    }

    /// Offers a change and waits for what becomes of it.
    fn ask(&self, key: &str, stamp: Option<Stamp>, value: Option<&str>) -> Outcome {
        self.ask_for(Durability::Written, key, stamp, value)
    }

    /// The same with an answer when it is that durable.
    fn ask_for(
        &self,
        durability: Durability,
        key: &str,
        stamp: Option<Stamp>,
        value: Option<&str>,
    ) -> Outcome {
        let (sender, receiver) = mpsc::channel();
        let ack = Ack {
            durability,
            answer: Box::new(move |outcome| sender.send(outcome).unwrap()),
        };
        let key = KeyExpr::try_from(key.to_owned()).unwrap();
        let value = value.map(|value| Value::bytes(value.as_bytes().to_vec()));
        if let Err((_, why)) = self.storage.offer(&key, stamp, value, ack) {
            panic!("not taken: {why}");
        }
        receiver.recv_timeout(PATIENCE).unwrap()
    }

    fn read(&self) -> Result<BTreeMap<String, String>, String> {
        self.select(&Selection::default()).map(|found| {
            found
                .into_iter()
                .map(|(key, value, _)| (key, value))
                .collect()
        })
    }

    fn select(&self, selection: &Selection) -> Result<Vec<(String, String, u64)>, String> {
        let mut found = Vec::new();
        let all = KeyExpr::try_from("**").unwrap();
        query::run(&self.storage, &all, selection, |sample| {
            let value = String::from_utf8(sample.live.value.payload.to_vec()).unwrap();
            found.push((
                sample.key.to_string(),
                value,
                sample.live.version.stamp.time,
            ));
            Ok(())
        })?;
        Ok(found)
    }

    fn eventually(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds(self) {
            let last = self.storage.counters.last_error.lock().clone();
            assert!(
                Instant::now() < until,
                "never {what}; {:?}; {last:?}",
                self.read()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the storage holds exactly `expected` and keeps up.
    fn holds(&self, expected: &BTreeMap<String, String>) {
        self.eventually("what was accepted", |world| {
            world.storage.condition().current && world.read().as_ref() == Ok(expected)
        });
    }
}

fn spool_dir(dir: &Path, index: usize) -> std::path::PathBuf {
    dir.join("spool").join(index.to_string())
}

fn numbered(range: std::ops::Range<u32>) -> BTreeMap<String, String> {
    range
        .map(|number| (format!("k/{number:03}"), number.to_string()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_the_store_is_down_is_spooled_and_stored_when_it_is_back() {
    for kind in [ErrorKind::Unavailable, ErrorKind::Full] {
        let world = World::memory();
        world.eventually("up", |world| world.storage.condition().current);
        for nth in 1..=4 {
            world.faults.at(Operation::Commit, nth, Fault::Error(kind));
        }
        let expected = numbered(0..200);
        for (key, value) in &expected {
            world.put(key, 1, value);
        }
        world.eventually("spooled", |world| {
            world.storage.counters.spooled.load(Relaxed) > 0
        });
        world.holds(&expected);
        assert!(world.faults.injected() >= 4);
        assert_eq!(world.storage.condition().spooled_changes, 0);
        world.storage.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_is_told_that_the_store_is_down_and_may_try_again() {
    let world = World::memory();
    world
        .faults
        .at(Operation::Commit, 1, Fault::Error(ErrorKind::Unavailable));
    let outcome = world.ask("a", world.stamp(1), Some("x"));
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    world.eventually("up again", |world| world.storage.condition().current);
    let outcome = world.ask("a", world.stamp(1), Some("x"));
    assert!(
        matches!(outcome, Outcome::Decided(Admission::Applied(_), _)),
        "{outcome:?}"
    );
    world.storage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_store_and_spool_are_full_the_queue_fills_and_nothing_is_lost() {
    let shape = Shape {
        spool_bytes_max: 0,
        ..Shape::default()
    };
    let world = Arc::new(World::new(MemoryVolume::new(), shape));
    world.eventually("up", |world| world.storage.condition().current);
    world.faults.set_budget(Some(0));
    let expected = numbered(0..300);
    let publisher = {
        let (world, expected) = (Arc::clone(&world), expected.clone());
        std::thread::spawn(move || {
            for (key, value) in &expected {
                world.put(key, 1, value);
            }
        })
    };
    world.eventually("holding back", |world| {
        !world.storage.condition().current && world.storage.queued() == 64
    });
    assert!(
        !publisher.is_finished(),
        "a publisher that asked to wait waits"
    );
    world.faults.set_budget(None);
    publisher.join().unwrap();
    world.holds(&expected);
    world.storage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_attachments_fill_the_queue_as_large_payloads_do() {
    let shape = Shape {
        spool_bytes_max: 0,
        ..Shape::default()
    };
    let world = World::new(MemoryVolume::new(), shape);
    world.eventually("up", |world| world.storage.condition().current);
    world.faults.set_budget(Some(0));
    world.put("a", 1, "held, so that the queue is left alone");
    world.eventually("holding", |world| !world.storage.condition().current);
    let large = ZBytes::from(vec![b'x'; 40 << 20]);
    for _ in 0..3 {
        let key = KeyExpr::try_from("large").unwrap();
        let sample = SampleBuilder::put(key, "").attachment(large.clone());
        world.storage.take(sample.into());
    }
    // Two of them are more than the queue takes: the third came when it was full.
    assert_eq!(world.storage.queued(), 2);
    assert_eq!(world.storage.counters.dropped.load(Relaxed), 1);
    world.storage.close().await;
}

/// After a failed sync it is unknown what reached the disk: the store is opened again, and what was
/// in doubt is offered again.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_in_doubt_is_acknowledged_by_nobody_and_lost_by_nobody() {
    for applied in [true, false] {
        let world = World::rocksdb();
        world.eventually("up", |world| world.storage.condition().current);
        world.put("a", 1, "first");
        world.eventually("stored", |world| {
            world.read().is_ok_and(|read| read.len() == 1)
        });
        world
            .faults
            .at(Operation::Commit, 1, Fault::Torn { applied });
        let outcome = world.ask("b", world.stamp(1), Some("x"));
        assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
        world.eventually("open again", |world| world.storage.condition().current);
        world
            .faults
            .at(Operation::Commit, 1, Fault::Torn { applied });
        // Nobody waits for these: they are spooled and offered again. The delete must mean the first
        // value even if the batch had been written.
        world.hand(KeptChange::Key(Change {
            key: Key::from("a"),
            stamp: None,
            value: None,
        }));
        world.put("a", 2, "second");
        world.eventually("second", |world| {
            world.storage.condition().current
                && world
                    .read()
                    .is_ok_and(|read| read.get("a").is_some_and(|a| a == "second"))
        });
        world.storage.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_store_at_any_write_loses_nothing() {
    for nth in 1..=8 {
        for applied in [true, false] {
            let world = World::rocksdb();
            world.eventually("up", |world| world.storage.condition().current);
            world.faults.crash_at_write(nth, applied);
            let expected = numbered(0..120);
            for (key, value) in &expected {
                world.put(key, 1, value);
            }
            world.put("k/000", 0, "late and old");
            // With everything taken in few batches the crash may still be to come.
            world.eventually("crashed or done", |world| {
                world.faults.is_dead() || world.read().as_ref() == Ok(&expected)
            });
            world.faults.calm();
            world.faults.revive();
            world.holds(&expected);
            world.storage.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_on_a_broken_store_is_an_error_and_never_empty() {
    let world = World::memory();
    world.put("a", 1, "x");
    world.eventually("stored", |world| {
        world.read().is_ok_and(|read| read.len() == 1)
    });
    world
        .faults
        .at(Operation::Snapshot, 1, Fault::Error(ErrorKind::Unavailable));
    assert!(world.read().is_err());
    world
        .faults
        .at(Operation::Scan, 1, Fault::Error(ErrorKind::Corrupt));
    assert!(world.read().is_err());
    assert_eq!(world.read().unwrap().len(), 1);
    world.storage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wildcard_delete_without_a_stamp_deletes_what_was_there() {
    let world = World::rocksdb();
    let before = numbered(0..60);
    for (key, value) in &before {
        world.put(key, 5, value);
    }
    world.put("other", 5, "stays");
    world.holds(&{
        let mut all = before.clone();
        all.insert("other".into(), "stays".into());
        all
    });
    let expr = OwnedKeyExpr::try_from("k/**").unwrap();
    world.hand(KeptChange::Wildcard(WildcardChange {
        expr,
        stamp: None,
        value: None,
    }));
    world.put("k/new", 6, "made after it");
    let expected = [("other", "stays"), ("k/new", "made after it")];
    world.holds(
        &expected
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    );
    // And what comes late from before it stays deleted.
    world.put("k/000", 4, "late and old");
    let outcome = world.ask("k/001", world.stamp(4), Some("late and old"));
    assert!(
        matches!(outcome, Outcome::Decided(Admission::Outdated(_), _)),
        "{outcome:?}"
    );
    world.holds(
        &expected
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    );
    world.storage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wildcard_delete_without_a_stamp_goes_on_when_a_read_has_failed() {
    let world = World::rocksdb();
    let before = numbered(0..60);
    for (key, value) in &before {
        world.put(key, 5, value);
    }
    world.holds(&before);
    let unread = Fault::Error(ErrorKind::Unavailable);
    world.faults.at(Operation::Scan, 30, unread);
    world.hand(KeptChange::Wildcard(WildcardChange {
        expr: OwnedKeyExpr::try_from("k/**").unwrap(),
        stamp: None,
        value: None,
    }));
    world.eventually("failed", |world| world.faults.injected() == 1);
    world.holds(&BTreeMap::new());
    let reader = world.storage.readers()[0].get().unwrap();
    assert_eq!(reader.store.rows(Table::Jobs, &[], 10).unwrap(), []);
    drop(reader);
    world.storage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_from_the_future_is_parked_and_applied_when_due() {
    let world = World::rocksdb();
    world.put("a", 1, "now");
    world.eventually("stored", |world| {
        world.read().is_ok_and(|read| read.len() == 1)
    });
    let outcome = world.ask("a", world.stamp(1_500), None);
    assert!(
        matches!(outcome, Outcome::Decided(Admission::Parked(_), _)),
        "{outcome:?}"
    );
    assert_eq!(world.read().unwrap().len(), 1, "not yet");
    world.holds(&BTreeMap::new());
    world.storage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_shards_answer_as_one() {
    let shape = Shape {
        shards: 3,
        ..Shape::default()
    };
    let world = World::new(MemoryVolume::new(), shape);
    let expected = numbered(0..200);
    for (key, value) in &expected {
        world.put(key, 1, value);
    }
    world.holds(&expected);
    let counts: Vec<u64> = world
        .storage
        .readers()
        .iter()
        .map(|reader| reader.get().unwrap().store.count().unwrap().keys)
        .collect();
    assert!(counts.iter().all(|count| *count > 20), "{counts:?}");
    let selection = Selection {
        limit: Some(7),
        ..Selection::default()
    };
    let page: Vec<String> = world
        .select(&selection)
        .unwrap()
        .into_iter()
        .map(|sample| sample.0)
        .collect();
    assert!(
        page.iter().eq(expected.keys().take(7)),
        "in key order over the shards: {page:?}"
    );
    world.storage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_keeps_the_newest_versions() {
    let second = 1 << 32;
    let upkeep = Upkeep {
        period: second,
        versions_max: Some(3),
        ..Shape::default().upkeep
    };
    let shape = Shape {
        history: History::All,
        upkeep,
        ..Shape::default()
    };
    let world = World::new(RocksdbVolume::default(), shape);
    for millis in 0..10 {
        world.put("a", millis, &millis.to_string());
    }
    let all = Selection {
        time: Some((0, u64::MAX)),
        ..Selection::default()
    };
    world.eventually("trimmed", |world| {
        let values: Vec<String> = world
            .select(&all)
            .unwrap()
            .into_iter()
            .map(|sample| sample.1)
            .collect();
        values == ["7", "8", "9"]
    });
    world.storage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_by_bytes_drops_the_oldest() {
    let second = 1 << 32;
    let upkeep = Upkeep {
        period: second,
        bytes_max: Some(1_000),
        ..Shape::default().upkeep
    };
    let world = World::new(
        MemoryVolume::new(),
        Shape {
            upkeep,
            ..Shape::default()
        },
    );
    let value = "x".repeat(100);
    for number in 0..50 {
        world.put(&format!("k/{number:02}"), number * 10, &value);
    }
    world.eventually("trimmed", |world| {
        let kept = world.read().unwrap();
        (1..=10).contains(&kept.len()) && kept.contains_key("k/49") && !kept.contains_key("k/00")
    });
    world.storage.close().await;
}
