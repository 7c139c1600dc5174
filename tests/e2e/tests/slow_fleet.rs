//! A hundred vehicles that come back to one cloud at the same moment, each with samples that wait: all are
//! drained, none is left behind, and the cloud has each sample once.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use weir_e2e::{
    Router,
    python::packed,
    say,
    time::{SECOND, hour_ago},
    until_within,
};

/// Vehicles, unless `WEIR_FORWARD_EDGES` says otherwise.
const EDGES: usize = 100;
const SAMPLES: u64 = 1_000;
/// How many start at once.
const STARTING: usize = 4;
const PATIENCE: Duration = Duration::from_secs(300);
/// What the last one may take: so many times what half of them take, and what a vehicle waits between two
/// tries to connect and two rounds, in which chance decides who is first.
const SPREAD: u32 = 3;
const ROUNDS: Duration = Duration::from_secs(5);

fn start(number: usize, cloud: &str) -> Router {
    Router::start_with(&format!(
        r#"id: "e{number:03}", transport: {{ shared_memory: {{ enabled: false }} }},
        connect: {{ endpoints: ["{cloud}"], retry: {{ period_init_ms: 500, period_max_ms: 500 }} }},
        forward: {{ cloud: {{ key_expr: "v/{number:03}/**", period: "1s", keep: "0s" }} }},"#
    ))
}

/// Starts all, a few at once.
fn start_all(count: usize, cloud: &str) -> Vec<Router> {
    let (next, started) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..STARTING {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= count {
                        return;
                    }
                    let router = start(number, cloud);
                    started.lock().unwrap().push(router);
                }
            });
        }
    });
    started.into_inner().unwrap()
}

fn status(edge: &Router) -> Value {
    let key = format!("@weir/{}/forward/cloud", edge.id());
    edge.rest_value(&key).unwrap_or_default()
}

#[track_caller]
fn wait_all(edges: &[Router], what: &str, is_it: impl Fn(&Value) -> bool) {
    for edge in edges {
        until_within(PATIENCE, &format!("{}: {what}", edge.id()), || {
            let status = status(edge);
            is_it(&status).then_some(()).ok_or(status.to_string())
        });
    }
}

/// Memory of a process in KiB: what it has, and its share of it where others have it, too.
fn memory(edge: &Router) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", edge.pid())).unwrap();
    let of = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (of("Rss:"), of("Pss:"))
}

/// When each had brought the cloud all it had.
fn watch(edges: &[Router]) -> Vec<Duration> {
    let began = Instant::now();
    let mut waiting: Vec<&Router> = edges.iter().collect();
    let mut done = Vec::new();
    while !waiting.is_empty() {
        assert!(began.elapsed() < PATIENCE, "{} wait yet", waiting.len());
        waiting.retain(|edge| {
            let status = status(edge);
            let is_done = status["state"] == "up" && status["queued"]["records"] == 0;
            if is_done {
                done.push(began.elapsed());
            }
            !is_done
        });
    }
    done
}

#[test]
fn a_fleet_that_reconnects_at_once_is_drained_and_nobody_is_left_behind() {
    let count = std::env::var("WEIR_FORWARD_EDGES");
    let count = count.map_or(EDGES, |text| text.parse().unwrap());
    let mut cloud = Router::start_with(
        r#"id: "c1", transport: { shared_memory: { enabled: false } }, storages: { s: {
            key_expr: "v/**", backend: "rocksdb", history: "all", dir: "$DIR/s", mirror: false } },"#,
    );
    let began = Instant::now();
    let edges = start_all(count, &cloud.endpoint);
    wait_all(&edges, "they have met", |status| status["state"] == "up");
    say(&format!(
        "{count} have met the cloud after {:.0?}",
        began.elapsed()
    ));
    cloud.kill9();
    wait_all(&edges, "it is alone", |status| status["state"] == "down");

    let begin = hour_ago();
    let mut expected = BTreeMap::new();
    let mut client = edges[0].python();
    for edge in &edges {
        client.connect_to(&edge.endpoint);
        let key = |n: u64| format!("v/{}/{}", &edge.id()[1..], n % 10);
        let value = |n: u64| format!("{{\"of\":\"{}\",\"n\":{n}}}", edge.id());
        let put = |n: u64| json!({ "key": key(n), "value": packed(value(n)), "at": begin + n * SECOND / 100 });
        let puts: Vec<Value> = (0..SAMPLES).map(put).collect();
        for (n, stamp) in (0..SAMPLES).zip(client.puts(&puts)) {
            expected.insert((key(n), stamp), value(n).into_bytes());
        }
    }
    wait_all(&edges, "all of it waits", |status| {
        status["queued"]["records"] == SAMPLES
    });
    let before: Vec<(u64, u64)> = edges.iter().map(memory).collect();
    cloud.restart();
    let mut done = watch(&edges);
    done.sort();
    let (first, median, last) = (done[0], done[count / 2], done[count - 1]);

    let (mut vain, mut again) = (0, 0);
    for edge in &edges {
        let status = status(edge);
        assert_eq!(status["lost"], json!([]), "{status}");
        let upstream = &status["upstreams"][0];
        assert_eq!(upstream["router"], "c1", "{status}");
        vain += upstream["superfluous"].as_u64().unwrap();
        again += upstream["resent"].as_u64().unwrap();
    }
    let of = |part: fn(&(u64, u64)) -> u64| before.iter().map(part).sum::<u64>() / 1_024;
    say(&format!(
        "{} samples of {count}: the first done after {first:.1?}, half {median:.1?}, the last {last:.1?}; {vain} shipped in vain, {again} again; {} MiB of memory, {} shared apart",
        expected.len(),
        of(|(rss, _)| *rss),
        of(|(_, pss)| *pss),
    ));
    let got = cloud.python().get_all("v/**?_time=[now(-2h)..now()]");
    assert_eq!(got.errors, Vec::<String>::new());
    for sample in got.samples {
        let key = (sample.key, sample.timestamp.unwrap());
        // What is there twice, or was never put, is not there to be removed.
        assert_eq!(expected.remove(&key), Some(sample.value), "{key:?}");
    }
    assert_eq!(expected.len(), 0, "missing: {:?}", expected.keys().next());
    assert!(
        last <= median * SPREAD + ROUNDS,
        "{last:?}, half {median:?}"
    );
}
