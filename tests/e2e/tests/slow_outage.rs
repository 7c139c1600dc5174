//! An InfluxDB server that is away for long while samples come at a steady rate: all of them are there
//! afterwards, once.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "../../../backends/influxdb/tests/common/influxd.rs"]
mod influxd;

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use weir_e2e::{Router, python::packed, until_within};

/// Samples a second, in batches.
const RATE: u64 = 5_000;
const BATCH: u64 = 500;
const KEYS: u64 = 20;
/// Seconds, unless `WEIR_OUTAGE_SECONDS` says otherwise.
const SECONDS: u64 = 10;

#[test]
fn a_long_outage_of_the_server_loses_nothing() {
    let Some(mut server) = influxd::own("") else {
        return;
    };
    let seconds = std::env::var("WEIR_OUTAGE_SECONDS");
    let seconds = seconds.map_or(SECONDS, |text| text.parse().unwrap());
    let router = Router::start(&format!(
        r#"s: {{ key_expr: "s/**", backend: "influxdb", url: "{}", db: "s", create_db: true }}"#,
        server.url()
    ));
    let mut client = router.python();
    server.kill();
    let (began, total) = (Instant::now(), seconds * RATE);
    for first in (0..total).step_by(usize::try_from(BATCH).unwrap()) {
        // A steady rate: a batch is due when it is due, however long the one before took.
        let due = Duration::from_secs_f64(first as f64 / RATE as f64);
        thread::sleep(due.saturating_sub(began.elapsed()));
        let put =
            |n: u64| json!({ "key": format!("s/{:02}", n % KEYS), "value": packed(n.to_string()) });
        let puts: Vec<Value> = (first..first + BATCH).map(put).collect();
        client.puts(&puts);
    }
    let took = began.elapsed();
    let waiting = until_within(Duration::from_secs(60), "all of it waits", || {
        let status = router.storage("s").ok_or("no status")?;
        let waiting = status["server"]["waiting_changes"].as_u64();
        match waiting == Some(total) {
            true => Ok(status["server"]["waiting_bytes"]
                .as_u64()
                .unwrap_or_default()),
            false => Err(status.to_string()),
        }
    });
    server.resume();
    let resumed = Instant::now();
    until_within(Duration::from_secs(60 + seconds), "nothing waits", || {
        let status = router.storage("s").ok_or("no status")?;
        match status["server"]["waiting_changes"] == 0 {
            true => Ok(()),
            false => Err(status.to_string()),
        }
    });
    let drained = resumed.elapsed();
    // A point of its own for each: the server would count two of one time as one.
    let points = server.query("s", "SELECT count(\"value\") FROM /.*/");
    let each = format!(",{}]", total / KEYS);
    assert_eq!(points.matches(&each).count() as u64, KEYS, "{points}");
    for key in 0..KEYS {
        let wanted = total - KEYS + key;
        let held = client.values(&format!("s/{key:02}"));
        assert_eq!(held, [format!("s/{key:02}={wanted}")]);
    }
    let status = router.storage("s").unwrap();
    assert_eq!(status["server"]["refused"], 0, "{status}");
    weir_e2e::say(&format!(
        "{total} samples in {took:.0?} without a server, {:.1} MiB waited; drained in {drained:.1?}, each there once",
        waiting as f64 / f64::from(1 << 20),
    ));
}
