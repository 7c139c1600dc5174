//! How many samples a second a store hands on, against one point a request on the same server.
//!
//! ```text
//! cargo run --release -p weir-backend-influxdb --example throughput [URL]
//! ```
//!
//! The local store is one in memory, so that the server's side is measured and not a disk. Without a URL it starts an influxd 1.x of its own. Exits 1 below the ratio that is promised.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]
#![allow(clippy::unwrap_used, reason = "a measurement that fails has no result")]

#[path = "../tests/common/influxd.rs"]
mod influxd;

use std::{
    process::ExitCode,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use weir_backend_api::{Durability, StoreSpec, Volume};
use weir_backend_influxdb::{InfluxSettings, InfluxVolume};
use weir_backend_memory::MemoryVolume;
use weir_core::{
    change::Write,
    key::Key,
    record::Record,
    value::Value,
    version::{Stamp, Version},
};

/// Samples of each part: enough for several seconds of either.
const ALONE: u64 = 2_000;
const TOGETHER: u64 = 200_000;
const BATCH: u64 = 1_000;
/// What is promised.
const RATIO: f64 = 50.0;

fn main() -> ExitCode {
    let server = if std::env::args().len() > 1 {
        None
    } else {
        influxd::own("")
    };
    let url = std::env::args()
        .nth(1)
        .or_else(|| server.as_ref().map(influxd::Influxd::url));
    let Some(url) = url else {
        println!("there is no influxd here; name a server");
        return ExitCode::FAILURE;
    };
    let settings = InfluxSettings {
        create_db: true,
        ..InfluxSettings::new(&url, "weir-throughput-{name}")
    };
    let dir = tempfile::tempdir().unwrap();
    let volume = InfluxVolume::new(settings, Arc::new(MemoryVolume::new())).unwrap();
    let spec = StoreSpec {
        name: "weir".to_owned(),
        dir: dir.path().join("store"),
        create: true,
        history: true,
        destroy_on_close: true,
        ..StoreSpec::default()
    };
    let store = volume.open(&spec).unwrap();
    let started = Instant::now();
    for batch in 0..TOGETHER / BATCH {
        let rows: Vec<(Key, Record)> = (0..BATCH).map(|n| sample(batch * BATCH + n)).collect();
        let writes = rows.iter().flat_map(|(key, record)| {
            let record = record.as_ref();
            [
                Write::History { key, record },
                Write::Latest { key, record },
            ]
        });
        store
            .commit(&writes.collect::<Vec<_>>(), Durability::Written)
            .unwrap();
    }
    let committed = started.elapsed();
    while store.backlog().is_some_and(|backlog| backlog.changes > 0) {
        thread::sleep(Duration::from_millis(1));
    }
    let shipped = started.elapsed();
    println!(
        "{TOGETHER} samples committed in {committed:.1?}, with the server in {shipped:.1?}: {:?}",
        store.backlog()
    );

    let alone = one_by_one(&url);
    let together = rate(TOGETHER, shipped);
    let ratio = together / alone;
    println!(
        "one point a request: {alone:.0}/s; this store: {together:.0}/s; ratio {ratio:.0} (promised: {RATIO})"
    );
    store.close().unwrap();
    if ratio >= RATIO {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Points a second of a client that writes one point a request, over one connection.
fn one_by_one(url: &str) -> f64 {
    let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
    let query = [("q", "CREATE DATABASE \"weir-throughput-alone\"")];
    agent.post(format!("{url}/query")).send_form(query).unwrap();
    let write = format!("{url}/write?db=weir-throughput-alone&precision=ns");
    let started = Instant::now();
    for n in 0..ALONE {
        let (key, record) = sample(n);
        let time = record.head.own.stamp.time;
        let payload = record.value.unwrap().payload;
        let value = String::from_utf8_lossy(&payload).replace('"', "\\\"");
        let line = format!(
            "{key},kind=PUT timestamp=\"{time}/1\",encoding_prefix=0i,encoding_suffix=\"\",base64=false,\
             value=\"{value}\" {}",
            1_790_000_000_000_000_000 + n * 100_000
        );
        agent.post(&write).send(line).unwrap();
    }
    let rate = rate(ALONE, started.elapsed());
    let query = [("q", "DROP DATABASE \"weir-throughput-alone\"")];
    agent.post(format!("{url}/query")).send_form(query).unwrap();
    rate
}

/// The nth sample of a fleet: 100 keys, 10,000 samples a second.
fn sample(n: u64) -> (Key, Record) {
    let mut id = [0; 16];
    id[0] = 1;
    let time = (1_790_000_000 << 32) + n * 429_496;
    let value = Value::bytes(format!("{{\"speed\": {}, \"n\": {n}}}", n % 37));
    let version = Version::put(Stamp { time, id }, value.hash());
    (
        Key::new(format!("fleet/{}/state", n % 100)),
        Record::own(version, Some(value)),
    )
}

fn rate(count: u64, elapsed: Duration) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / elapsed.as_secs_f64()
}
