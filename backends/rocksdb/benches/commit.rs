//! What a store costs over bare RocksDB: commits, reads, opening, memory.
//!
//! ```text
//! cargo bench -p weir -p weir-backend-rocksdb --bench commit [-- commit|reads|million|many...]
//! ```
//!
//! Every ratio is against a loop on RocksDB's defaults in the same run.

#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails stops")]

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rocksdb::{DB, Options, WriteBatch, WriteOptions};
use tempfile::TempDir;
use weir_backend_api::{Direction, Durability, Store, StoreSpec, Volume};
use weir_backend_rocksdb::RocksdbVolume;
use weir_core::{
    change::Write,
    key::{Key, KeyRange},
    record::RecordRef,
    value::Value,
    version::{Stamp, Version},
};

const BATCH: usize = 1_000;
const KEYS: u32 = 10_000;
const MILLION: u32 = 1_000_000;
const DATABASES: u32 = 1_000;

fn main() {
    // Cargo adds a flag of its own.
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let sections: [(&str, fn()); 4] = [
        ("commit", commits),
        ("reads", reads),
        ("million", million),
        ("many", many),
    ];
    for (name, section) in sections {
        if wanted.is_empty() || wanted.iter().any(|arg| arg == name) {
            section();
        }
    }
}

/// A million writes in batches of 1,000 over 10,000 keys in no order.
fn commits() {
    println!("commit: {BATCH} writes a batch, {KEYS} keys");
    for value_bytes in [64, 316] {
        for durability in [Durability::Written, Durability::Synced] {
            let bare = bare_loop(value_bytes, durability);
            let (store, dir) = open_fresh();
            let ours = store_loop(&*store, value_bytes, durability, MILLION, KEYS);
            store.close().unwrap();
            drop(dir);
            println!(
                "  {value_bytes:>3} B {durability:?}: store {ours}, bare {bare}: ratio {:.2}",
                ours.rate() / bare.rate()
            );
        }
    }
}

/// Heads in batches of 1,000, and a scan, over a million keys on the disk.
fn reads() {
    println!("reads: {MILLION} keys of 64 B");
    let (store, dir) = open_fresh();
    store_loop(&*store, 64, Durability::Written, MILLION, MILLION);
    let rate = measure(MILLION, || {
        let keys: Vec<Key> = (0..MILLION).map(|n| key(scatter(n, MILLION))).collect();
        for keys in keys.chunks(BATCH) {
            let keys: Vec<&Key> = keys.iter().collect();
            let heads = store.heads(&keys).unwrap();
            assert!(heads.iter().all(Option::is_some));
        }
    });
    println!("  heads, present: {rate}");
    let rate = measure(MILLION, || {
        let keys: Vec<Key> = (0..MILLION)
            .map(|n| Key::new(format!("absent/{n}")))
            .collect();
        for keys in keys.chunks(BATCH) {
            let keys: Vec<&Key> = keys.iter().collect();
            let heads = store.heads(&keys).unwrap();
            assert!(heads.iter().all(Option::is_none));
        }
    });
    println!("  heads, absent: {rate}");
    for direction in [Direction::Forward, Direction::Backward] {
        let rate = measure(MILLION, || {
            let snapshot = store.snapshot().unwrap();
            let rows = snapshot.latest(&KeyRange::all(), direction);
            assert_eq!(rows.map(Result::unwrap).count(), MILLION as usize);
        });
        println!("  scan {direction:?}: {rate}");
    }
    println!("  memory {} MiB", resident_kib() >> 10);
    store.close().unwrap();
    drop(dir);
}

/// Opening a million keys of 316 B after a close, and after a crash.
fn million() {
    println!("million: {MILLION} keys of 316 B");
    let before = resident_kib();
    let (store, dir) = open_fresh();
    store_loop(&*store, 316, Durability::Written, MILLION, MILLION);
    println!(
        "  written: memory {} MiB more",
        (resident_kib() - before) >> 10
    );
    store.close().unwrap();
    let mut spec = spec(dir.path());
    spec.create = false;
    for how in ["a close", "a crash with 60,000 writes in the log"] {
        let before = resident_kib();
        let start = Instant::now();
        let store = RocksdbVolume::default().open(&spec).unwrap();
        let opened = start.elapsed();
        let count = store.count().unwrap();
        let snapshot = store.snapshot().unwrap();
        let rows = snapshot.latest(&KeyRange::all(), Direction::Forward);
        assert_eq!(rows.map(Result::unwrap).count(), MILLION as usize);
        drop(snapshot);
        println!(
            "  open after {how}: {opened:?}, memory {} MiB more, {} keys, {} MiB",
            (resident_kib().saturating_sub(before)) >> 10,
            count.keys,
            count.bytes >> 20,
        );
        // Enough for the log, too little to be flushed.
        store_loop(&*store, 316, Durability::Written, 60_000, MILLION);
    }
}

/// A thousand empty databases in one volume.
fn many() {
    let root = TempDir::new().unwrap();
    let volume = RocksdbVolume::default();
    for how in ["made", "opened again"] {
        let before = resident_kib();
        let start = Instant::now();
        let stores: Vec<_> = (0..DATABASES)
            .map(|n| {
                volume
                    .open(&spec(&root.path().join(n.to_string())))
                    .unwrap()
            })
            .collect();
        let each = start.elapsed() / DATABASES;
        let memory = (resident_kib() - before) / u64::from(DATABASES);
        let start = Instant::now();
        for (n, store) in stores.iter().enumerate() {
            let n = u32::try_from(n).unwrap();
            store_loop(&**store, 64, Durability::Written, 1, n + 1);
        }
        let first = start.elapsed() / DATABASES;
        let written = (resident_kib() - before) / u64::from(DATABASES);
        let threads = fs::read_dir("/proc/self/task").unwrap().count();
        let files = fs::read_dir("/proc/self/fd").unwrap().count();
        let disk = fs::read_dir(root.path().join("0"))
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum::<u64>();
        let start = Instant::now();
        for store in stores {
            store.close().unwrap();
        }
        println!(
            "many: {DATABASES} databases {how}: each {each:?} and {memory} KiB, with a first write \
             {first:?} and {written} KiB, close {:?}; {threads} threads, {files} files, {disk} B",
            start.elapsed() / DATABASES
        );
    }
}

fn bare_loop(value_bytes: usize, durability: Durability) -> Rate {
    let dir = TempDir::new().unwrap();
    let mut options = Options::default();
    options.create_if_missing(true);
    let db = DB::open(&options, dir.path()).unwrap();
    let mut sync = WriteOptions::default();
    sync.set_sync(durability == Durability::Synced);
    let keys: Vec<Key> = (0..KEYS).map(key).collect();
    let payload = vec![7; value_bytes];
    measure(MILLION, || {
        for from in (0..MILLION).step_by(BATCH) {
            let mut batch = WriteBatch::default();
            for n in from..from + u32::try_from(BATCH).unwrap() {
                batch.put(&keys[scatter(n, KEYS) as usize][..], &payload);
            }
            db.write_opt(batch, &sync).unwrap();
        }
    })
}

fn store_loop(
    store: &dyn Store,
    value_bytes: usize,
    durability: Durability,
    writes: u32,
    keys: u32,
) -> Rate {
    let names: Vec<Key> = (0..keys.min(writes.max(KEYS))).map(key).collect();
    let value = Value::bytes(vec![7; value_bytes]);
    measure(writes, || {
        let mut batch = Vec::with_capacity(BATCH);
        for n in 0..writes {
            let key = &names[scatter(n, keys) as usize % names.len()];
            let stamp = Stamp {
                time: u64::from(n) + 1,
                id: [1; 16],
            };
            let record = RecordRef::own(Version::put(stamp, 1), Some(&value));
            batch.push(Write::Latest { key, record });
            if batch.len() == BATCH || n + 1 == writes {
                store.commit(&batch, durability).unwrap();
                batch.clear();
            }
        }
    })
}

fn open_fresh() -> (Box<dyn Store>, TempDir) {
    let dir = TempDir::new().unwrap();
    let store = RocksdbVolume::default().open(&spec(dir.path())).unwrap();
    (store, dir)
}

fn spec(dir: &Path) -> StoreSpec {
    StoreSpec {
        name: "bench".to_owned(),
        dir: dir.to_path_buf(),
        create: true,
        history: true,
        ..StoreSpec::default()
    }
}

fn key(n: u32) -> Key {
    Key::new(format!("fleet/drone/{}/sensor/{}", n / 100, n % 100))
}

/// Visits all of `0..of` in no order: the factor is a prime that divides none of the sizes.
fn scatter(n: u32, of: u32) -> u32 {
    u32::try_from(u64::from(n) * 7_919 % u64::from(of)).unwrap()
}

struct Rate {
    count: u32,
    wall: Duration,
    cpu: Duration,
}

impl Rate {
    fn rate(&self) -> f64 {
        f64::from(self.count) / self.wall.as_secs_f64()
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cpu = self.cpu.as_secs_f64() * 1e6 / f64::from(self.count);
        write!(f, "{:.0} k/s ({cpu:.2} us CPU)", self.rate() / 1e3)
    }
}

fn measure(count: u32, work: impl FnOnce()) -> Rate {
    let (start, cpu) = (Instant::now(), cpu_time());
    work();
    Rate {
        count,
        wall: start.elapsed(),
        cpu: cpu_time() - cpu,
    }
}

/// CPU time of the whole process, flushes and compactions included.
fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    // User and system time, in ticks of 10 ms.
    let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse().unwrap()
}
