//! A storage under a `resolve` policy, from its queue to a real store and back.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicU32},
};

use weir_core::resolution::{Contender, Interrupted, Resolution, Resolve};

use super::*;
use crate::storage::shard::{ResolverSlot, Resolving};

/// Sets of letters; a delete absorbs.
#[derive(Default)]
pub(super) struct Union {
    absent: AtomicBool,
    loading: AtomicBool,
    /// So many questions are interrupted first.
    interruptions: AtomicU32,
    asked: AtomicU32,
}

struct Asked(Arc<Union>);

impl ResolverSlot for Handle {
    fn resolving(&self) -> Resolving {
        if self.0.absent.load(Relaxed) {
            Resolving::Native
        } else if self.0.loading.load(Relaxed) {
            Resolving::Wait
        } else {
            Resolving::Policy(7, Box::new(Asked(Arc::clone(&self.0))))
        }
    }
}

struct Handle(Arc<Union>);

impl Resolve for Asked {
    fn resolve(
        &mut self,
        key: &str,
        first: Contender<'_>,
        second: Contender<'_>,
    ) -> Result<Resolution, Interrupted> {
        assert!(key.starts_with("set/"), "not the whole key: {key}");
        self.0.asked.fetch_add(1, Relaxed);
        let left = self.0.interruptions.load(Relaxed);
        if left > 0 {
            self.0.interruptions.store(left - 1, Relaxed);
            return Err(Interrupted("as asked for".into()));
        }
        let (Some(a), Some(b)) = (first.value, second.value) else {
            return Ok(Resolution::Delete);
        };
        let union: BTreeSet<u8> = a.payload.iter().chain(&b.payload[..]).copied().collect();
        let union: Vec<u8> = union.into_iter().collect();
        Ok(Resolution::Merge(Value::bytes(union)))
    }
}

pub(super) fn world<V: Volume + 'static>(volume: V) -> (World, Arc<Union>) {
    let union = Arc::new(Union::default());
    let shape = Shape {
        resolver: Some(Arc::new(Handle(Arc::clone(&union)))),
        ..Shape::default()
    };
    (World::new(volume, shape), union)
}

pub(super) fn set(letters: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("set/a".to_owned(), letters.to_owned())])
}

impl World {
    fn ask_name(&self, key: &str, millis: i64, value: &str) -> &'static str {
        match self.ask(key, self.stamp(millis), Some(value)) {
            Outcome::Decided(admission, _) => admission.name(),
            Outcome::Failed(why) => panic!("{why}"),
        }
    }

    /// Offers a put or delete of `set/a`; what became of it.
    fn becomes(&self, millis: Option<i64>, value: Option<&str>) -> &'static str {
        let stamp = millis.and_then(|millis| self.stamp(millis));
        match self.ask("set/a", stamp, value) {
            Outcome::Decided(admission, _) => admission.name(),
            Outcome::Failed(why) => panic!("{why}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_knows_nothing_of_each_other_is_merged() {
    for (world, _) in [world(MemoryVolume::new()), world(RocksdbVolume::default())] {
        let rows = [
            (Some(5), Some("b"), "applied"),
            (Some(2), Some("c"), "merged"),
            (Some(2), Some("c"), "outdated"),
            (Some(9), Some("a"), "merged"),
            (Some(9), Some("a"), "outdated"),
        ];
        for (millis, value, name) in rows {
            assert_eq!(world.becomes(millis, value), name, "{millis:?} {value:?}");
        }
        world.holds(&set("abc"));
        // S4, and then nothing brings it back: a delete absorbs.
        assert_eq!(world.becomes(None, None), "applied");
        assert_eq!(world.becomes(None, None), "nothing");
        assert_eq!(world.becomes(Some(12), Some("d")), "merged");
        world.holds(&BTreeMap::new());
        assert_eq!(world.storage.counters.merged.load(Relaxed), 3);
        world.storage.close().await;
    }
}

/// Many in few batches, handed over in no order: each key is written once a batch and loses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_merged_in_batches() {
    let (world, union) = world(RocksdbVolume::default());
    let letters = "abcdefghijklmnop";
    for turn in 0..3 {
        for (index, letter) in (0i64..).zip(letters.chars()) {
            world.put("set/a", (index * 7 + turn) % 16, &letter.to_string());
        }
    }
    world.holds(&set(letters));
    assert!(union.asked.load(Relaxed) >= 15);
    world.storage.close().await;
}

/// Nothing is decided in the place of a policy that could not be asked; asked again, it is merged.
#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_asked_waits_and_is_asked_again() {
    let (world, union) = world(RocksdbVolume::default());
    assert_eq!(world.becomes(Some(5), Some("b")), "applied");
    union.interruptions.store(3, Relaxed);
    assert_eq!(world.becomes(Some(2), Some("a")), "parked");
    // Others go on meanwhile.
    assert_eq!(world.ask_name("set/b", 3, "x"), "applied");
    world.holds(&BTreeMap::from([
        ("set/a".to_owned(), "ab".to_owned()),
        ("set/b".to_owned(), "x".to_owned()),
    ]));
    assert_eq!(world.storage.counters.interrupted.load(Relaxed), 3);
    world.storage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_wait_while_the_policy_is_loaded() {
    let (world, union) = world(MemoryVolume::new());
    union.loading.store(true, Relaxed);
    assert_eq!(world.becomes(Some(5), Some("b")), "applied");
    for (millis, letter) in [(1, "a"), (7, "c"), (8, "d"), (2, "e"), (3, "f"), (4, "g")] {
        assert_eq!(world.becomes(Some(millis), Some(letter)), "parked");
    }
    assert_eq!(world.read(), Ok(set("b")));
    union.loading.store(false, Relaxed);
    world.holds(&set("abcdefg"));
    world.storage.close().await;
}

/// Without its file the later version wins; what that leaves has merged nothing, so that the policy
/// that comes back can merge again what others still bring.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_policy_the_later_version_wins() {
    let (world, union) = world(RocksdbVolume::default());
    assert_eq!(world.becomes(Some(1), Some("a")), "applied");
    assert_eq!(world.becomes(Some(2), Some("b")), "merged");
    union.absent.store(true, Relaxed);
    assert_eq!(world.becomes(Some(1), Some("a")), "outdated");
    assert_eq!(world.becomes(Some(3), Some("c")), "applied");
    world.holds(&set("c"));
    union.absent.store(false, Relaxed);
    assert_eq!(world.becomes(Some(2), Some("b")), "merged");
    world.holds(&set("bc"));
    world.storage.close().await;
}

/// A wildcard operation lies on top of what is merged, and collection keeps what it has merged until
/// that cannot come again.
#[tokio::test(flavor = "multi_thread")]
async fn wildcards_and_collection_forget_nothing_that_is_needed() {
    let union = Arc::new(Union::default());
    let shape = Shape {
        resolver: Some(Arc::new(Handle(Arc::clone(&union)))),
        upkeep: Upkeep {
            period: convert::ntp64_span(Duration::from_millis(5)),
            lifespan: convert::ntp64_span(Duration::from_secs(2)),
            patience: convert::ntp64_span(Duration::from_secs(60)),
            bytes_max: None,
            versions_max: None,
        },
        ..Shape::default()
    };
    let world = World::new(MemoryVolume::new(), shape);
    assert_eq!(world.becomes(Some(-60_000), Some("a")), "applied");
    world.hand(KeptChange::Wildcard(WildcardChange {
        expr: OwnedKeyExpr::try_from("set/*").unwrap(),
        stamp: world.stamp(-50_000),
        value: None,
    }));
    world.holds(&BTreeMap::new());
    // It comes between, and lies below what is merged with it: the operation does not reach it.
    assert_eq!(world.becomes(Some(0), Some("b")), "merged");
    world.holds(&set("ab"));
    world.eventually("collected", |world| {
        let reader = world.storage.readers()[0].get();
        reader.is_some_and(|reader| reader.view.journal.is_empty())
    });
    assert_eq!(world.becomes(Some(-55_000), Some("c")), "quarantined");
    assert_eq!(world.becomes(Some(-60_000), Some("a")), "outdated");
    world.storage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_commits_change_nothing_about_what_is_merged() {
    let (world, _) = world(RocksdbVolume::default());
    for (nth, applied) in [(2, true), (5, false), (9, true)] {
        world
            .faults
            .at(Operation::Commit, nth, Fault::Torn { applied });
    }
    for (millis, letter) in [(5, "c"), (1, "a"), (9, "e"), (3, "b"), (7, "d"), (5, "c")] {
        world.put("set/a", millis, letter);
        std::thread::yield_now();
    }
    world.holds(&set("abcde"));
    world.storage.close().await;
}
