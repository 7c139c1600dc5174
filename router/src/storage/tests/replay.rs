//! What was spooled comes into the store once, whatever fails on the way: shards without a task, and
//! with a time that the tests make.

use std::{fs, path::PathBuf};

use weir_backend_filesystem::FilesystemVolume;

use super::{
    shard::{Job, Shard},
    *,
};

/// A second.
const SECOND: u64 = 1 << 32;

/// A store that can be told to fail, and the shard over it.
pub(super) struct Bench {
    pub plan: shard::Plan,
    pub faults: Faults,
    pub counters: Arc<Counters>,
    pub now: u64,
    _dir: TempDir,
}

impl Bench {
    pub(super) fn new<V: Volume + 'static>(volume: V) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let faults = Faults::new();
        let plan = shard::Plan {
            volume: Arc::new(Faulty::new(volume, faults.clone())),
            spec: StoreSpec {
                name: "tested".to_owned(),
                dir: dir.path().join("store"),
                create: true,
                ..StoreSpec::default()
            },
            rules: Rules {
                history: History::Latest,
                drift: 500 * SECOND,
                age_max: None,
                cache_keys: 16,
                resolves: false,
            },
            space: KeySpace::default(),
            durability: Durability::Written,
            address: "r/tested".to_owned(),
            spool: (spool_dir(dir.path(), 0), 1 << 30),
            resolver: None,
        };
        Self {
            plan,
            faults,
            counters: Arc::default(),
            now: 1_000 * SECOND,
            _dir: dir,
        }
    }

    pub(super) fn open(&self) -> Shard {
        Shard::new(self.plan.clone(), Arc::clone(&self.counters), self.now).unwrap()
    }

    /// A shard whose store rests, so that what is offered is spooled.
    fn resting(&mut self, ops: &[KeptChange]) -> Shard {
        let mut shard = self.open();
        offer_all(&mut shard, self.now, &[put("k", 1), put("a/b", 1)]);
        let down = Fault::Error(ErrorKind::Unavailable);
        self.faults.at(Operation::Commit, 1, down);
        offer_all(&mut shard, self.now, &[put("down", 1)]);
        offer_all(&mut shard, self.now, ops);
        assert_eq!(shard.spooled().0, ops.len() as u64 + 1);
        shard
    }

    /// Ticks until nothing waits any more.
    pub(super) fn settle(&mut self, shard: &mut Shard) {
        for _ in 0..100 {
            if shard.is_current() {
                return;
            }
            self.now += 10 * SECOND;
            if self.faults.is_dead() {
                self.faults.revive();
            }
            shard.tick(self.now);
        }
        panic!("never current: {:?}", self.counters.last_error.lock());
    }
}

pub(super) fn offer_all(shard: &mut Shard, now: u64, ops: &[KeptChange]) {
    let mut batch = ops.iter().cloned().map(Offer::silent).collect();
    shard.offer(now, &mut batch);
    assert!(batch.is_empty());
}

fn stamp(seconds: u64) -> Option<Stamp> {
    Some(Stamp {
        time: seconds * SECOND,
        id: [9; 16],
    })
}

/// The time is the value, too.
pub(super) fn put(key: &str, seconds: u64) -> KeptChange {
    KeptChange::Key(Change {
        key: Key::from(key),
        stamp: stamp(seconds),
        value: Some(Value::bytes(seconds.to_string().into_bytes())),
    })
}

/// A delete that nobody has stamped.
pub(super) fn delete(key: &str) -> KeptChange {
    KeptChange::Key(Change {
        key: Key::from(key),
        stamp: None,
        value: None,
    })
}

fn wildcard(expr: &str, stamp: Option<Stamp>, value: Option<&str>) -> KeptChange {
    KeptChange::Wildcard(WildcardChange {
        expr: OwnedKeyExpr::try_from(expr.to_owned()).unwrap(),
        stamp,
        value: value.map(|value| Value::bytes(value.as_bytes().to_vec())),
    })
}

/// What a key holds; nothing if it was deleted.
pub(super) fn held(shard: &Shard, key: &str) -> Option<String> {
    let reader = shard.reader().get().unwrap();
    let record = reader.store.get(&Key::from(key)).unwrap()?;
    let value = record.value?.payload.to_vec();
    Some(String::from_utf8(value).unwrap())
}

/// An unstamped delete, what is put behind it, and operations that make several batches of it.
fn spooled() -> Vec<KeptChange> {
    vec![
        put("x", 2),
        delete("k"),
        wildcard("o/**", stamp(3), Some("o")),
        put("k", 4),
        wildcard("p/**", stamp(5), Some("p")),
        put("y", 6),
    ]
}

fn volumes() -> [fn() -> Bench; 3] {
    [
        || Bench::new(MemoryVolume::new()),
        || Bench::new(FilesystemVolume),
        || Bench::new(RocksdbVolume::default()),
    ]
}

fn kinds() -> Vec<Fault> {
    let errors = [ErrorKind::Full, ErrorKind::Unavailable].map(Fault::Error);
    let mut faults = errors.to_vec();
    for applied in [true, false] {
        faults.push(Fault::Torn { applied });
        faults.push(Fault::Crash { applied });
    }
    faults
}

/// Any commit of a replay fails, once or twice in a row, in every way.
#[test]
fn a_put_behind_an_unstamped_delete_survives_any_failure_of_the_replay() {
    for bench in volumes() {
        for fault in kinds() {
            for nth in 1..=6 {
                for second in 0..=2 {
                    let mut bench = bench();
                    let mut shard = bench.resting(&spooled());
                    let kind = bench.plan.volume.kind();
                    let case = format!("{kind}: {fault:?} at {nth}, and {second} after that");
                    bench.faults.at(Operation::Commit, nth, fault.clone());
                    if second > 0 {
                        let nth = nth + second;
                        bench.faults.at(Operation::Commit, nth, fault.clone());
                    }
                    bench.settle(&mut shard);
                    assert_eq!(held(&shard, "k").as_deref(), Some("4"), "{case}");
                    assert_eq!(held(&shard, "x").as_deref(), Some("2"), "{case}");
                    assert_eq!(held(&shard, "y").as_deref(), Some("6"), "{case}");
                }
            }
        }
    }
}

/// One batch of keys, written though its sync failed.
#[test]
fn a_batch_that_was_written_after_all_is_not_replayed() {
    for bench in volumes() {
        let mut bench = bench();
        let mut shard = bench.resting(&[put("x", 2), delete("k"), put("k", 4)]);
        let torn = Fault::Torn { applied: true };
        bench.faults.at(Operation::Commit, 1, torn);
        bench.settle(&mut shard);
        let kind = bench.plan.volume.kind();
        assert_eq!(held(&shard, "k").as_deref(), Some("4"), "{kind}");
    }
}

/// A wildcard delete without a stamp means what was there when it came, in each of its replays.
#[test]
fn a_wildcard_delete_that_was_replayed_is_not_expanded_again() {
    for fault in kinds() {
        for nth in 1..=4 {
            let mut bench = Bench::new(RocksdbVolume::default());
            let ops = [
                wildcard("a/**", None, None),
                put("a/b", 4),
                wildcard("p/**", stamp(5), Some("p")),
            ];
            let mut shard = bench.resting(&ops);
            bench.faults.at(Operation::Commit, nth, fault.clone());
            bench.settle(&mut shard);
            let ceilings: Vec<u64> = shard
                .jobs
                .iter()
                .filter_map(|job| match job {
                    Job::Expand { ceiling, .. } => Some(ceiling.time / SECOND),
                    Job::Fold(_) => None,
                })
                .collect();
            assert_eq!(ceilings, [1], "{fault:?} at {nth}");
        }
    }
}

/// The process ends, or the power fails, when all is in the store and the segment is still on the disk.
#[test]
fn a_segment_that_is_still_there_after_its_replay_is_not_replayed() {
    for bench in [
        || Bench::new(FilesystemVolume),
        || Bench::new(RocksdbVolume::default()),
    ] as [fn() -> Bench; 2]
    {
        let mut bench = bench();
        let mut shard = bench.resting(&spooled());
        let segments = contents(&bench);
        assert_eq!(segments.len(), 1);
        bench.settle(&mut shard);
        shard.close(bench.now);
        for (path, bytes) in &segments {
            fs::write(path, bytes).unwrap();
        }
        let mut shard = bench.open();
        // Nothing else comes: what the start has found is looked at by itself.
        assert!(shard.deadline().is_some_and(|due| due <= bench.now));
        bench.settle(&mut shard);
        assert_eq!(held(&shard, "k").as_deref(), Some("4"));
        assert_eq!(contents(&bench), []);
        // The next segment has the same number as the first, and is replayed all the same.
        let down = Fault::Error(ErrorKind::Unavailable);
        bench.faults.at(Operation::Commit, 1, down);
        offer_all(&mut shard, bench.now, &[put("z", 7)]);
        bench.settle(&mut shard);
        assert_eq!(held(&shard, "z").as_deref(), Some("7"));
        shard.close(bench.now);
    }
}

fn contents(bench: &Bench) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(&bench.plan.spool.0).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    paths
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}
