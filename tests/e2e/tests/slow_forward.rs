//! A vehicle and its cloud, killed and cut off from each other at random while samples are put: whatever
//! was acknowledged is in the cloud afterwards, once, and as it was put.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "../../../backends/influxdb/tests/common/influxd.rs"]
mod influxd;

use std::time::Duration;

use serde_json::{Value, json};
use weir_e2e::{
    Client, Router,
    line::Line,
    python::packed,
    rng::Rng,
    time::{SECOND, hour_ago},
    tried::Tried,
    until_within,
};

/// Troubles, unless `WEIR_FORWARD_TROUBLES` says otherwise.
const TROUBLES: usize = 40;
/// Samples before, during and after each.
const SAMPLES: u64 = 300;
/// How soon after the last trouble the cloud has everything.
const DRAINED: Duration = Duration::from_secs(60);

/// Puts some samples of fifty topics; whoever acknowledges one, it has to be there.
fn put(tried: &mut Tried, client: &mut Client, rng: &mut Rng, meanwhile: impl FnOnce()) {
    let sample = |n: u64| (format!("v/42/{}", rng.below(50)), format!("{{\"n\":{n}}}"));
    tried.put(client, SAMPLES, None, sample, meanwhile);
}

fn state(edge: &Router) -> Value {
    let key = format!("@weir/{}/forward/cloud", edge.id());
    edge.rest_value(&key).unwrap_or_default()
}

#[test]
fn what_was_acknowledged_reaches_the_cloud_once_whatever_dies() {
    let troubles = std::env::var("WEIR_FORWARD_TROUBLES");
    let troubles = troubles.map_or(TROUBLES, |text| text.parse().unwrap());
    let mut rng = Rng::from_environment();
    let mut cloud = Router::start_with(
        r#"id: "c1", storages: { s: {
            key_expr: "v/**", backend: "rocksdb", history: "all", dir: "$DIR/s", mirror: false } },"#,
    );
    let line = Line::to(&cloud.endpoint);
    let mut edge = Router::start_with(&format!(
        r#"id: "ed", connect: {{ endpoints: ["{}"] }},
        forward: {{ cloud: {{ key_expr: "v/42/**", period: "500ms", timeout: "1s", keep: "0s" }} }},"#,
        line.endpoint
    ));
    let mut client = edge.python();
    let mut tried = Tried::default();
    let mut counts = [0; 4];
    let mut is_broken = false;
    for _ in 0..troubles {
        put(&mut tried, &mut client, &mut rng, || {});
        let trouble = usize::try_from(rng.below(4)).unwrap();
        counts[trouble] += 1;
        match trouble {
            0 => {
                let edge = &mut edge;
                put(&mut tried, &mut client, &mut rng, || edge.kill9());
                edge.restart();
                client.reconnect();
            }
            1 => {
                let cloud = &mut cloud;
                put(&mut tried, &mut client, &mut rng, || cloud.kill9());
                put(&mut tried, &mut client, &mut rng, || {});
                cloud.restart();
            }
            _ => {
                let line = &line;
                put(&mut tried, &mut client, &mut rng, || {
                    match (is_broken, trouble) {
                        (true, _) => line.mend(),
                        (false, 2) => line.cut(),
                        (false, _) => line.stall(),
                    }
                });
                is_broken = !is_broken;
            }
        }
    }
    put(&mut tried, &mut client, &mut rng, || {});
    line.mend();
    until_within(DRAINED, "the journal is empty", || {
        let status = state(&edge);
        match status["state"] == "up" && status["queued"]["records"] == 0 {
            true => Ok(()),
            false => Err(status.to_string()),
        }
    });
    assert_eq!(state(&edge)["lost"], json!([]));
    let got = cloud.python().get_all("v/**?_time=[now(-2h)..now()]");
    assert_eq!(got.errors, Vec::<String>::new());
    let missing = tried.missing(got.samples);
    assert!(
        missing.is_empty(),
        "{} missing: {:?}",
        missing.len(),
        &missing[..1]
    );
    let [edges, clouds, cuts, stalls] = counts;
    weir_e2e::say(&format!(
        "{edges} deaths of the edge, {clouds} of the cloud, {cuts} cuts, {stalls} stalls, or mends; {} of {} acknowledged",
        tried.acknowledged(),
        tried.count(),
    ));
    assert!(tried.acknowledged() > troubles * 200);
}

#[test]
fn a_cloud_in_influxdb_has_every_sample_once() {
    const KEYS: u64 = 20;
    const COUNT: u64 = 20_000;
    let Some(mut server) = influxd::own("") else {
        return;
    };
    let cloud = Router::start_with(&format!(
        r#"id: "c1", storages: {{ s: {{ key_expr: "v/**", backend: "influxdb", url: "{}", db: "s",
            create_db: true, mirror: false }} }},"#,
        server.url()
    ));
    let line = Line::to(&cloud.endpoint);
    let edge = Router::start_with(&format!(
        r#"id: "ed", connect: {{ endpoints: ["{}"] }},
        forward: {{ cloud: {{ key_expr: "v/42/**", period: "500ms", keep: "0s" }} }},"#,
        line.endpoint
    ));
    let wait = |what: &str, is_it: &dyn Fn(&Value) -> bool| {
        until_within(DRAINED, what, || {
            let status = state(&edge);
            is_it(&status).then_some(()).ok_or(status.to_string())
        });
    };
    let is_drained = |status: &Value| status["state"] == "up" && status["queued"]["records"] == 0;
    let begin = hour_ago();
    let mut client = edge.python();
    let mut expected = Vec::new();
    let mut put = |numbers: std::ops::Range<u64>| {
        let sample = |n: u64| {
            let at = begin + n * SECOND / 500;
            json!({ "key": format!("v/42/{:02}", n % KEYS), "value": packed(n.to_string()), "at": at })
        };
        let puts: Vec<Value> = numbers.clone().map(sample).collect();
        for (n, stamp) in numbers.zip(client.puts(&puts)) {
            expected.push((
                format!("v/42/{:02}", n % KEYS),
                stamp,
                n.to_string().into_bytes(),
            ));
        }
    };
    put(0..COUNT / 4);
    wait("what came live is certified", &is_drained);
    line.cut();
    put(COUNT / 4..COUNT / 2);
    // The server is away when the vehicle comes back: nothing can be compared, so nothing is certified.
    server.kill();
    line.mend();
    put(COUNT / 2..COUNT);
    wait("no certificates come", &|status| {
        let waiting = status["queued"]["records"].as_u64();
        status["upstreams"][0]["failures"] != 0 && waiting >= Some(3 * COUNT / 4)
    });
    server.resume();
    wait("the journal is empty", &is_drained);
    until_within(DRAINED, "nothing waits for the server", || {
        let status = cloud.storage("s").ok_or("no status")?;
        match status["server"]["waiting_changes"] == 0 {
            true => Ok(()),
            false => Err(status.to_string()),
        }
    });
    let points = server.query("s", "SELECT count(\"value\") FROM /.*/");
    let each = format!(",{}]", COUNT / KEYS);
    assert_eq!(points.matches(&each).count() as u64, KEYS, "{points}");
    let got = cloud.python().get_all("v/**?_time=[now(-2h)..now()]");
    assert_eq!(got.errors, Vec::<String>::new());
    let record = |sample: weir_e2e::Sample| (sample.key, sample.timestamp.unwrap(), sample.value);
    let mut held: Vec<_> = got.samples.into_iter().map(record).collect();
    held.sort();
    expected.sort();
    assert_eq!(held.len(), expected.len());
    assert!(held == expected, "a timestamp or a value is another");
}
