//! Three mirrors, killed and cut off at random while they are written to: nothing acknowledged is lost,
//! and all hold the same soon afterwards. Once on engines that keep files, once on RocksDB, on InfluxDB,
//! whose server is killed too, and in memory, of which nothing is left after a kill.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "../../../backends/influxdb/tests/common/influxd.rs"]
mod influxd;

use std::time::{Duration, Instant};

use influxd::Influxd;
use serde_json::{Value, json};
use weir_e2e::{
    Client, Router,
    line::Line,
    mortal::{Ledger, Operation},
    rng::Rng,
};

/// Troubles, one in five a partition and the others kills, unless `WEIR_MIRROR_TROUBLES` says otherwise.
const TROUBLES: usize = 25;
const KEYS: u64 = 300;
/// Operations before, during and after each.
const OPERATIONS: u64 = 120;
/// How soon after the last trouble all have to hold the same.
const HEALED: Duration = Duration::from_secs(10);
const NAMES: [&str; 3] = ["a1", "b2", "c3"];

/// Three routers, each connected to the others by lines that can be cut.
struct Fleet {
    routers: Vec<Router>,
    /// The lines of each router.
    lines: Vec<Vec<Line>>,
}

impl Fleet {
    fn start(engines: &[String; 3]) -> Self {
        let mut fleet = Self {
            routers: Vec::new(),
            lines: vec![Vec::new(); 3],
        };
        for (number, engine) in engines.iter().enumerate() {
            let mut endpoints = Vec::new();
            for other in 0..number {
                let line = Line::to(&fleet.routers[other].endpoint);
                endpoints.push(line.endpoint.clone());
                fleet.lines[other].push(line.clone());
                fleet.lines[number].push(line);
            }
            let id = NAMES[number];
            fleet.routers.push(Router::start_with(&format!(
                r#"id: "{id}", connect: {{ endpoints: {endpoints:?} }},
                storages: {{ k: {{ key_expr: "k/**", {engine},
                    mirror: {{ period: "2s", timeout: "2s" }} }} }},"#
            )));
        }
        fleet
    }

    /// How long it takes until all three hold the same.
    fn heal(&self, when: &str) -> Duration {
        let began = Instant::now();
        for (one, other) in [(0, 1), (1, 2), (0, 2)] {
            let [one_name, other_name] = [one, other].map(|n: usize| format!("{}/k", NAMES[n]));
            let verify = [
                "storage",
                "verify",
                &one_name,
                "--against",
                &other_name,
                "--within",
                "10s",
            ];
            loop {
                let ended = self.routers[one].weir(&verify);
                let took = began.elapsed();
                if ended.code == 0 && took <= HEALED {
                    break;
                }
                // Until it is connected again it does not know the other.
                let shown = String::from_utf8_lossy(&ended.out).into_owned() + &ended.err;
                assert!(took < HEALED, "{when}, after {took:?}: {shown}");
            }
        }
        began.elapsed()
    }
}

/// Acknowledged puts, of increasing numbers.
fn put_some(client: &mut Client, rng: &mut Rng, number: &mut u64, ledger: &mut Ledger) {
    let first = *number + 1;
    let operations: Vec<Operation> = (0..OPERATIONS)
        .map(|_| {
            *number += 1;
            Operation {
                key: format!("k/{}", rng.below(KEYS)),
                value: Some(number.to_string().into_bytes()),
            }
        })
        .collect();
    let request = |(number, operation): (u64, &Operation)| {
        let mut request = operation.numbered(number);
        request["timeout"] = json!(3);
        request
    };
    let requests: Vec<Value> = (first..).zip(&operations).map(request).collect();
    let receipts = client.acks(&requests, || {});
    for (operation, receipt) in operations.iter().zip(&receipts) {
        ledger.record(operation, receipt["admission"].is_string());
    }
}

#[test]
fn mirrors_that_are_killed_and_cut_off_lose_nothing_and_become_equal() {
    let engine = |name: &str| format!(r#"backend: "{name}", dir: "$DIR/k""#);
    trouble(&["rocksdb", "filesystem", "rocksdb"].map(engine), None);
}

#[test]
fn mirrors_in_influxdb_and_in_memory_lose_nothing_and_become_equal() {
    let Some(server) = influxd::own("") else {
        return;
    };
    let engines = [
        r#"backend: "rocksdb", dir: "$DIR/k""#.to_owned(),
        format!(
            r#"backend: "influxdb", url: "{}", db: "k", create_db: true"#,
            server.url()
        ),
        r#"backend: "memory""#.to_owned(),
    ];
    trouble(&engines, Some(server));
}

/// Troubles one after the other; the server's death is one of them.
fn trouble(engines: &[String; 3], mut server: Option<Influxd>) {
    let troubles = std::env::var("WEIR_MIRROR_TROUBLES");
    let troubles = troubles.map_or(TROUBLES, |text| text.parse().unwrap());
    let mut rng = Rng::from_environment();
    let mut fleet = Fleet::start(engines);
    let mut ledger = Ledger::default();
    let mut number = 0;
    let (mut longest, mut partitions, mut outages) = (Duration::ZERO, 0, 0);
    for trouble in 0..troubles {
        let victim = usize::try_from(rng.below(3)).unwrap();
        let other = (victim + 1 + usize::try_from(rng.below(2)).unwrap()) % 3;
        let is_partition = rng.below(5) == 0;
        let mut client = fleet.routers[other].python();
        // Beside one of the others, so that what waits for the server meets a kill or a partition.
        let mut outage = server.as_mut().filter(|_| rng.below(4) == 0);
        outages += usize::from(outage.is_some());
        if let Some(server) = &mut outage {
            server.kill();
        }
        if is_partition {
            partitions += 1;
            for line in &fleet.lines[victim] {
                line.cut();
            }
            // Both sides are written to.
            put_some(&mut client, &mut rng, &mut number, &mut ledger);
            let mut cut_off = fleet.routers[victim].python();
            put_some(&mut cut_off, &mut rng, &mut number, &mut ledger);
            put_some(&mut client, &mut rng, &mut number, &mut ledger);
            for line in &fleet.lines[victim] {
                line.mend();
            }
        } else {
            put_some(&mut client, &mut rng, &mut number, &mut ledger);
            fleet.routers[victim].kill9();
            put_some(&mut client, &mut rng, &mut number, &mut ledger);
            fleet.routers[victim].restart();
        }
        if let Some(server) = outage {
            server.resume();
        }
        put_some(&mut client, &mut rng, &mut number, &mut ledger);
        let what = if is_partition { "partition" } else { "kill" };
        let when = format!("trouble {trouble}, a {what} of {}", NAMES[victim]);
        longest = longest.max(fleet.heal(&when));
        // Whoever is asked alone has everything: its own acknowledgement that it is the only one asked.
        let got = client.get_with(json!({ "selector": "k/**", "target": "all" }));
        ledger.check(&got, &when);
    }
    weir_e2e::say(&format!(
        "{} kills, {partitions} partitions, {outages} outages of the server, {} acknowledged, equal after at most {longest:.1?}",
        troubles - partitions,
        ledger.acknowledged,
    ));
    assert!(
        ledger.acknowledged > troubles * 200,
        "{}",
        ledger.acknowledged
    );
}
