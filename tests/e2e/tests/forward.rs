//! Store-and-forward: what an edge router puts while its line is cut reaches the cloud, once and as it
//! was put, whatever dies meanwhile; what does not reach it is told.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Range,
    path::Path,
    thread,
};

use serde_json::{Value, json};
use weir_e2e::{
    Client, Router, guest, http,
    line::Line,
    python::packed,
    time::{SECOND, hour_ago},
    until,
};

/// Vehicle 42 on its way through tunnels, and the cloud: two routers, and the line between them.
struct Tunnel {
    edge: Router,
    cloud: Router,
    line: Line,
    /// The time of sample 0.
    begin: u64,
}

/// One record, as a series answers it.
type Record = (String, String, Vec<u8>);

impl Tunnel {
    /// A cloud that keeps every sample, and an edge with these settings of its link.
    fn start(link: &str) -> Self {
        Self::between(
            r#"backend: "rocksdb", history: "all", dir: "$DIR/s""#,
            link,
            "",
        )
    }

    /// A cloud with a storage of these settings; an edge with these of its link, and others.
    fn between(storage: &str, link: &str, others: &str) -> Self {
        let cloud = format!(
            r#"id: "c1", storages: {{ s: {{ key_expr: "v/**", mirror: false, {storage} }} }},"#
        );
        let cloud = Router::start_with(&cloud);
        let line = Line::to(&cloud.endpoint);
        let edge = format!(
            r#"id: "ed", connect: {{ endpoints: ["{}"] }}, {others}
            forward: {{ cloud: {{ key_expr: "v/42/**", period: "300ms", timeout: "2s", keep: "0s", {link} }} }},"#,
            line.endpoint
        );
        let edge = Router::start_with(&edge);
        Self {
            edge,
            cloud,
            line,
            begin: hour_ago(),
        }
    }

    fn status(&self) -> Result<Value, String> {
        let key = format!("@weir/{}/forward/cloud", self.edge.id());
        self.edge.rest_value(&key).ok_or("no such link".to_owned())
    }

    /// Waits until the status of the link is as it should be.
    #[track_caller]
    fn wait(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        until(what, || {
            let status = self.status()?;
            if is_it(&status) {
                Ok(status)
            } else {
                Err(status.to_string())
            }
        })
    }

    /// Waits until the cloud has all there is, for certain, and the journal is empty.
    #[track_caller]
    fn wait_drained(&self) -> Value {
        self.wait("the link is drained", |status| {
            status["state"] == "up" && status["queued"]["records"] == 0
        })
    }

    /// Cuts the line; the link knows.
    #[track_caller]
    fn cut(&self) {
        self.line.cut();
        self.wait("the link is down", |status| status["state"] == "down");
    }

    /// Puts samples; what the cloud has to answer for them.
    fn put(&self, client: &mut Client, numbers: Range<u64>) -> Vec<Record> {
        put(client, self.begin, numbers)
    }

    /// All that the cloud has, in order.
    fn held(&self) -> Vec<Record> {
        let got = self.cloud.python().get_all("v/**?_time=[now(-2h)..now()]");
        assert_eq!(got.errors, Vec::<String>::new());
        let record = |sample: weir_e2e::Sample| {
            assert!(
                sample.encoding.starts_with("application/json"),
                "{sample:?}"
            );
            (sample.key, sample.timestamp.unwrap(), sample.value)
        };
        let mut held: Vec<Record> = got.samples.into_iter().map(record).collect();
        held.sort();
        held
    }

    /// The cloud has exactly these.
    #[track_caller]
    fn assert_held(&self, mut expected: Vec<Record>) {
        expected.sort();
        let held = self.held();
        let first = held.iter().zip(&expected).find(|(one, other)| one != other);
        assert_eq!(
            (held.len(), first),
            (expected.len(), None),
            "held and expected"
        );
    }

    /// Puts the cable back: the hundred alarms are there while most of the rest still waits.
    fn mend_and_see_alarms_first(&self) {
        self.line.mend();
        let count = |selector: &str| self.cloud.python().get(selector).samples.len();
        until("the alarms are there", || match count("v/42/alarm/**") {
            100 => Ok(()),
            other => Err(other.to_string()),
        });
        let status = self.status().unwrap();
        assert_eq!(status["state"], "draining", "{status}");
        assert!(number(&status["queued"]["records"]) > 5_000, "{status}");
    }
}

/// Puts samples: thirty topics, one sample each millisecond since `begin`; what the cloud has to answer for
/// them.
fn put(client: &mut Client, begin: u64, numbers: Range<u64>) -> Vec<Record> {
    let put = |n: u64| {
        json!({
            "key": format!("v/42/topic{}/0", n % 30),
            "value": packed(value(n)),
            "encoding": "application/json",
            "at": begin + n * SECOND / 1_000,
        })
    };
    let stamps = client.puts(&numbers.clone().map(put).collect::<Vec<_>>());
    let record = |(n, stamp): (u64, String)| {
        (
            format!("v/42/topic{}/0", n % 30),
            stamp,
            value(n).into_bytes(),
        )
    };
    numbers.zip(stamps).map(record).collect()
}

/// What a robot sends.
fn value(n: u64) -> String {
    let (x, y) = (n as f64 * 0.25, 100.0 - n as f64 / 7.0);
    format!(r#"{{"n":{n},"x":{x:.2},"y":{y:.4}}}"#)
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("no number: {value}"))
}

#[test]
fn the_cloud_has_every_sample_once_after_a_tunnel() {
    let tunnel = Tunnel::start("");
    let mut client = tunnel.edge.python();
    let mut expected = tunnel.put(&mut client, 0..2_000);
    tunnel.wait_drained();

    // It enters and leaves while samples are put all the time.
    let begin = tunnel.begin;
    thread::scope(|scope| {
        let putting = scope.spawn(|| put(&mut client, begin, 2_000..40_000));
        let appended = |at: u64| move |status: &Value| number(&status["appended"]) > at;
        tunnel.wait("it is on its way", appended(8_000));
        tunnel.cut();
        tunnel.wait("it is in the tunnel", appended(25_000));
        tunnel.line.mend();
        expected.extend(putting.join().unwrap());
    });
    let status = tunnel.wait_drained();
    assert_eq!(status["appended"], 40_000, "{status}");
    assert_eq!(status["lost"], json!([]), "{status}");
    let upstream = &status["upstreams"][0];
    assert_eq!(
        (&upstream["router"], &upstream["storage"]),
        (&json!("c1"), &json!("s"))
    );
    let shipped = number(&upstream["shipped_records"]);
    assert!(
        (5_000..38_000).contains(&shipped),
        "what came live is not shipped: {status}"
    );
    tunnel.assert_held(expected);

    let page = http::get(tunnel.edge.http, "/metrics").body;
    assert!(
        page.contains(r#"weir_forward_appended_total{link="cloud"} 40000"#),
        "{page}"
    );
}

#[test]
fn nothing_acknowledged_is_lost_when_the_edge_dies_in_the_tunnel() {
    let mut tunnel = Tunnel::start("");
    tunnel.wait("they have met", |status| status["state"] == "up");
    tunnel.cut();
    let mut expected = Vec::new();
    for round in 0..3_u64 {
        let mut client = tunnel.edge.python();
        let stamp = |n: u64| (((tunnel.begin / SECOND) << 32) + n) | 1;
        let numbers = round * 500..(round + 1) * 500;
        let request = |n: u64| {
            json!({
                "selector": format!("v/42/topic{}/0?_put;durability=synced;timestamp={}/c11e", n % 30, stamp(n * 2)),
                "value": packed(value(n)),
                "encoding": "application/json",
                "target": "all",
                "timeout": 5,
            })
        };
        let requests: Vec<Value> = numbers.clone().map(request).collect();
        let receipts = client.acks(&requests, || {});
        for (n, receipt) in numbers.zip(&receipts) {
            assert_eq!(receipt["admission"], "queued", "{receipt}");
            assert_eq!(receipt["durability"], "synced", "{receipt}");
            let stamp = format!("{}/c11e", stamp(n * 2));
            expected.push((
                format!("v/42/topic{}/0", n % 30),
                stamp,
                value(n).into_bytes(),
            ));
        }
        tunnel.edge.kill9();
        tunnel.edge.restart();
    }
    tunnel.line.mend();
    tunnel.wait_drained();
    tunnel.assert_held(expected);
}

#[test]
fn what_was_being_shipped_when_the_cloud_died_is_shipped_again() {
    let mut tunnel = Tunnel::start(r#"rate: "256KiB""#);
    tunnel.wait("they have met", |status| status["state"] == "up");
    tunnel.cut();
    let mut client = tunnel.edge.python();
    let expected = tunnel.put(&mut client, 0..20_000);
    tunnel.line.mend();
    for part in 1..=2 {
        tunnel.wait("it is draining", |status| {
            let shipped = &status["upstreams"][0]["shipped_records"];
            status["state"] == "draining" && number(shipped) > part * 2_000
        });
        tunnel.cloud.kill9();
        tunnel.cloud.restart();
    }
    tunnel.wait_drained();
    tunnel.assert_held(expected);
}

#[test]
fn an_upstream_that_keeps_the_latest_is_sent_the_latest() {
    let storage = r#"backend: "filesystem", dir: "$DIR/s""#;
    let tunnel = Tunnel::between(storage, "", "");
    let mut client = tunnel.edge.python();
    tunnel.put(&mut client, 0..300);
    tunnel.wait_drained();
    tunnel.cut();
    tunnel.put(&mut client, 300..6_000);
    client.delete_at("v/42/topic7/0", tunnel.begin + 60 * SECOND);
    tunnel.line.mend();
    let status = tunnel.wait_drained();
    let shipped = number(&status["upstreams"][0]["shipped_records"]);
    assert!(
        shipped < 600,
        "only the newest of each key is worth it: {status}"
    );
    let mut expected: Vec<String> = (5_970..6_000)
        .filter(|n| n % 30 != 7)
        .map(|n| format!("v/42/topic{}/0={}", n % 30, value(n)))
        .collect();
    expected.sort();
    assert_eq!(tunnel.cloud.python().values("v/**"), expected);
}

#[test]
fn deletes_and_wildcard_deletes_reach_the_cloud() {
    let tunnel = Tunnel::between(r#"backend: "memory""#, "", "");
    let mut client = tunnel.edge.python();
    for n in 0..4 {
        client.put(&format!("v/42/a/{n}"), "old");
        client.put(&format!("v/42/b/{n}"), "old");
    }
    tunnel.wait_drained();
    tunnel.cut();
    client.delete("v/42/a/0");
    client.delete("v/42/b/**");
    client.put("v/42/b/3", "new");
    tunnel.wait("all is kept", |status| number(&status["appended"]) == 11);
    tunnel.line.mend();
    tunnel.wait_drained();
    let expected = [
        "v/42/a/1=old",
        "v/42/a/2=old",
        "v/42/a/3=old",
        "v/42/b/3=new",
    ];
    tunnel.cloud.python().wait_values("v/**", &expected);
}

#[test]
fn what_has_no_room_is_told_on_both_sides_and_the_rest_arrives() {
    let link = r#"budget: { bytes: "1MiB" }, on_full: "drop-oldest""#;
    let tunnel = Tunnel::start(link);
    tunnel.wait("they have met", |status| status["state"] == "up");
    tunnel.cut();
    let mut client = tunnel.edge.python();
    let mut expected = tunnel.put(&mut client, 0..40_000);
    let status = tunnel.wait("all came", |status| number(&status["appended"]) == 40_000);
    let lost: u64 = status["lost"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lost| number(&lost["records"]))
        .sum();
    assert!(lost > 10_000, "{status}");
    assert_eq!(
        number(&status["queued"]["records"]) + lost,
        40_000,
        "{status}"
    );
    tunnel.line.mend();
    tunnel.wait_drained();
    let expected = expected.split_off(usize::try_from(lost).unwrap());
    tunnel.assert_held(expected);
    let told = until("the cloud has been told", || {
        let status = tunnel.cloud.storage("s").unwrap();
        let told = status["lost"].as_array().unwrap();
        let records: u64 = told.iter().map(|lost| number(&lost["records"])).sum();
        (records == lost)
            .then(|| told.clone())
            .ok_or(status.to_string())
    });
    assert_eq!(
        (&told[0]["router"], &told[0]["link"]),
        (&json!("ed"), &json!("cloud"))
    );
}

#[test]
fn alarms_leave_first_if_a_policy_says_so() {
    let Some(module) = guest::built("prioritize/alarms-first") else {
        return;
    };
    let others = r#"policies: { dir: "$DIR/policies", settings: {
        "alarms-first": { alarms: ["**/alarm/**"], others: 6 } } },"#;
    let storage = r#"backend: "memory", history: "all""#;
    let link = r#"rate: "64KiB", policies: { prioritize: "alarms-first" }"#;
    let tunnel = Tunnel::between(storage, link, others);
    drop_in(
        tunnel.edge.dir(),
        "alarms-first.wasm",
        &fs::read(module).unwrap(),
    );
    tunnel.wait("they have met, and the policy serves", |status| {
        status["state"] == "up" && status["policy"]["service"] == "policy"
    });
    tunnel.cut();
    let mut client = tunnel.edge.python();
    tunnel.put(&mut client, 0..10_000);
    let alarm = |n: u64| {
        let at = tunnel.begin + (100_000 + n) * SECOND / 1_000;
        json!({ "key": format!("v/42/alarm/{n}"), "value": packed("{}"), "at": at })
    };
    client.puts(&(0..100).map(alarm).collect::<Vec<_>>());
    let status = tunnel.wait("all is kept", |status| {
        number(&status["appended"]) == 10_100
    });
    let lanes: BTreeMap<u64, u64> = status["lanes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lane| (number(&lane["lane"]), number(&lane["records"])))
        .filter(|(_, records)| *records > 0)
        .collect();
    assert_eq!(lanes, BTreeMap::from([(0, 100), (6, 10_000)]));
    tunnel.mend_and_see_alarms_first();
}

/// A policy that comes, goes and comes back decides each time about what waits already.
#[test]
fn what_waits_is_decided_again_when_the_policy_is_another() {
    let Some(module) = guest::built("prioritize/alarms-first") else {
        return;
    };
    let module = fs::read(module).unwrap();
    let others = r#"policies: { dir: "$DIR/policies", settings: {
        "alarms-first": { alarms: ["**/alarm/**"], others: 6 } } },"#;
    let storage = r#"backend: "rocksdb", history: "all", dir: "$DIR/s""#;
    let link = r#"rate: "64KiB", policies: { prioritize: "alarms-first" }"#;
    let mut tunnel = Tunnel::between(storage, link, others);
    tunnel.wait("they have met", |status| status["state"] == "up");
    tunnel.cut();
    let mut client = tunnel.edge.python();
    let mut expected = tunnel.put(&mut client, 0..10_000);
    let alarm = |n: u64| {
        let at = tunnel.begin + (100_000 + n) * SECOND / 1_000;
        json!({ "key": format!("v/42/alarm/{n}"), "value": packed("{}"), "at": at,
            "encoding": "application/json" })
    };
    let stamps = client.puts(&(0..100).map(alarm).collect::<Vec<_>>());
    for (n, stamp) in stamps.into_iter().enumerate() {
        expected.push((format!("v/42/alarm/{n}"), stamp, b"{}".to_vec()));
    }
    let lanes = |status: &Value| -> BTreeMap<u64, u64> {
        let lanes = status["lanes"].as_array().unwrap().iter();
        lanes
            .map(|lane| (number(&lane["lane"]), number(&lane["records"])))
            .filter(|(_, records)| *records > 0)
            .collect()
    };
    // Data, says Zenoh's priority.
    let native = BTreeMap::from([(5, 10_100)]);
    let ranked = BTreeMap::from([(0, 100), (6, 10_000)]);
    tunnel.wait("all is kept", |status| lanes(status) == native);
    for turn in 1..=3 {
        if turn == 2 {
            fs::remove_file(tunnel.edge.dir().join("policies/alarms-first.wasm")).unwrap();
        } else {
            drop_in(tunnel.edge.dir(), "alarms-first.wasm", &module);
        }
        let goal = if turn == 2 { &native } else { &ranked };
        let status = tunnel.wait("it waits as is decided now", |status| {
            lanes(status) == *goal && status["ranked"]["left"] == 0
        });
        assert_eq!(status["ranked"]["decided"], turn * 10_100, "{status}");
        assert_eq!(status["ranked"]["moved"], turn * 10_100, "{status}");
        assert_eq!(status["queued"]["records"], 10_100, "{status}");
    }
    // Who has decided is known after a crash, too: nothing goes back and forth meanwhile.
    tunnel.edge.kill9();
    tunnel.edge.restart();
    let status = tunnel.wait("the policy serves", |status| {
        status["policy"]["service"] == "policy"
    });
    assert_eq!(lanes(&status), ranked, "{status}");
    assert_eq!(status["ranked"]["moved"], 0, "{status}");

    tunnel.mend_and_see_alarms_first();
    tunnel.wait_drained();
    tunnel.assert_held(expected);
}

#[test]
fn an_upstream_that_is_there_and_silent_is_noticed() {
    let tunnel = Tunnel::start("");
    tunnel.wait("they have met", |status| status["state"] == "up");
    tunnel.line.stall();
    // Long before the transport's lease is over.
    let mut client = tunnel.edge.python();
    let mut expected = tunnel.put(&mut client, 0..3_000);
    tunnel.wait("no certificates come", |status| {
        let state = status["state"].as_str().unwrap();
        matches!(state, "faulted" | "down") && status["queued"]["records"] == 3_000
    });
    let ready = http::get(tunnel.edge.http, "/readyz?verbose");
    assert!(ready.body.contains("link cloud: "), "{ready:?}");
    expected.extend(tunnel.put(&mut client, 3_000..4_000));
    tunnel.line.mend();
    tunnel.wait_drained();
    tunnel.assert_held(expected);
}

#[test]
fn a_cloud_that_has_lost_everything_is_given_what_is_kept() {
    let mut tunnel = Tunnel::start(r#"keep: "10m""#);
    let mut client = tunnel.edge.python();
    let expected = tunnel.put(&mut client, 0..5_000);
    let status = tunnel.wait_drained();
    assert_eq!(status["kept"]["records"], 5_000, "{status}");
    tunnel.cloud.kill9();
    fs::remove_dir_all(tunnel.cloud.dir().join("s")).unwrap();
    tunnel.cloud.restart();
    tunnel.wait("all was shipped", |status| {
        number(&status["upstreams"][0]["shipped_records"]) >= 5_000
    });
    tunnel.wait_drained();
    tunnel.assert_held(expected);
}

#[test]
fn a_depot_carries_on_what_vehicles_bring() {
    let storage = |id: &str, peers: &[&str], link: &str| {
        Router::start_with(&format!(
            r#"id: "{id}", connect: {{ endpoints: {peers:?} }}, {link}
            storages: {{ s{id}: {{ key_expr: "v/**", backend: "rocksdb", history: "all", mirror: false }} }},"#
        ))
    };
    let link = |to: &str| {
        format!(
            r#"forward: {{ on: {{ key_expr: "v/**", to: "{to}", period: "300ms", timeout: "2s", keep: "0s" }} }},"#
        )
    };
    let cloud = storage("c1", &[], "");
    let (near, far) = {
        let far = Line::to(&cloud.endpoint);
        let depot = storage("de", &[&far.endpoint], &link("sc1"));
        (depot, far)
    };
    let line = Line::to(&near.endpoint);
    let vehicle = Router::start_with(&format!(
        r#"id: "42", connect: {{ endpoints: ["{}"] }}, {}"#,
        line.endpoint,
        link("sde")
    ));
    let status = |router: &Router| {
        let key = format!("@weir/{}/forward/on", router.id());
        router.rest_value(&key).unwrap()
    };
    let wait = |router: &Router, what: &str, is_it: &dyn Fn(&Value) -> bool| {
        until(what, || {
            let status = status(router);
            is_it(&status).then_some(()).ok_or(status.to_string())
        });
    };
    let drained = |status: &Value| status["state"] == "up" && status["queued"]["records"] == 0;
    for router in [&vehicle, &near] {
        wait(router, "they have met", &|status| status["state"] == "up");
    }
    // First the depot cannot reach the cloud, and the vehicle reaches nobody.
    far.cut();
    line.cut();
    wait(&vehicle, "it is alone", &|status| status["state"] == "down");
    let begin = hour_ago();
    let mut client = vehicle.python();
    let mut expected = put(&mut client, begin, 0..5_000);
    wait(&vehicle, "all is kept", &|status| {
        status["queued"]["records"] == 5_000
    });
    line.mend();
    wait(&vehicle, "the depot has it", &drained);
    // Then the vehicle is away again.
    line.cut();
    far.mend();
    wait(&near, "the cloud has it", &drained);
    // What the depot has is not asked for.
    drop(near);
    let got = cloud.python().get_all("v/**?_time=[now(-2h)..now()]");
    let record = |sample: weir_e2e::Sample| (sample.key, sample.timestamp.unwrap(), sample.value);
    let mut held: Vec<Record> = got.samples.into_iter().map(record).collect();
    held.sort();
    expected.sort();
    assert_eq!(held.len(), expected.len());
    assert!(held == expected);
}

#[test]
fn what_came_is_kept_over_a_stop() {
    let mut tunnel = Tunnel::start(r#"sync: "never""#);
    tunnel.wait("they have met", |status| status["state"] == "up");
    tunnel.cut();
    let mut client = tunnel.edge.python();
    let expected = tunnel.put(&mut client, 0..5_000);
    tunnel.wait("all came", |status| number(&status["appended"]) == 5_000);
    tunnel.edge.term();
    tunnel.edge.restart();
    let status = tunnel.wait("it is open", |status| status["queued"]["records"] == 5_000);
    assert_eq!(status["state"], "down", "{status}");
    tunnel.line.mend();
    tunnel.wait_drained();
    tunnel.assert_held(expected);
}

#[test]
fn many_links_drain_at_once() {
    const LINKS: u64 = 60;
    const EACH: u64 = 200;
    let cloud = Router::start_with(
        r#"id: "c1", storages: { s: { key_expr: "v/**", backend: "rocksdb", history: "all" } },"#,
    );
    let line = Line::to(&cloud.endpoint);
    let links: Vec<String> = (0..LINKS)
        .map(|n| format!(r#"l{n}: {{ key_expr: "v/{n}/**", period: "500ms", keep: "0s" }}"#))
        .collect();
    let edge = Router::start_with(&format!(
        r#"id: "ed", connect: {{ endpoints: ["{}"] }}, forward: {{ {} }},"#,
        line.endpoint,
        links.join(", ")
    ));
    let all = |what: &str, is_it: &dyn Fn(&Value) -> bool| {
        until(what, || {
            let answer = edge.rest_get("@weir/ed/forward/*").json();
            let links = answer.as_array().unwrap();
            let right = links.iter().filter(|link| is_it(&link["value"])).count() as u64;
            (right == LINKS).then_some(()).ok_or(right.to_string())
        });
    };
    all("all have met the cloud", &|link| link["state"] == "up");
    line.cut();
    all("all are alone", &|link| link["state"] == "down");
    let begin = hour_ago();
    let sample = |n: u64| {
        let at = begin + n * SECOND / 1_000;
        json!({ "key": format!("v/{}/x", n % LINKS), "value": packed(value(n)), "at": at })
    };
    let samples: Vec<Value> = (0..LINKS * EACH).map(sample).collect();
    let mut client = edge.python();
    client.puts(&samples);
    all("all is kept", &|link| link["queued"]["records"] == EACH);
    line.mend();
    all("all are drained", &|link| {
        link["state"] == "up" && link["queued"]["records"] == 0
    });
    let got = cloud.python().get_all("v/**?_time=[now(-2h)..now()]");
    assert_eq!(got.samples.len() as u64, LINKS * EACH);
}

#[test]
fn a_journal_that_is_full_and_may_drop_nothing_says_so() {
    let tunnel = Tunnel::start(r#"budget: { bytes: "1MiB" }, on_full: "reject-new""#);
    tunnel.wait("they have met", |status| status["state"] == "up");
    tunnel.cut();
    let mut client = tunnel.edge.python();
    let offered = tunnel.put(&mut client, 0..40_000);
    let status = tunnel.wait("all came", |status| {
        number(&status["appended"]) + number(&status["rejected"]) == 40_000
    });
    let kept = number(&status["appended"]);
    assert!(kept > 5_000, "{status}");
    assert_eq!(status["queued"]["records"], kept, "{status}");
    let ask = json!({ "selector": "v/42/topic0/0?_put", "value": packed(vec![b'x'; 65_536]), "target": "all" });
    let got = client.get_with(ask);
    assert!(got.errors[0].contains("the journal is full"), "{got:?}");
    tunnel.line.mend();
    tunnel.wait_drained();
    // Which of those that came when it was nearly full found room is no matter.
    let held = tunnel.held();
    assert_eq!(held.len() as u64, kept);
    let offered: BTreeSet<Record> = offered.into_iter().collect();
    assert!(held.iter().all(|record| offered.contains(record)));
}

#[test]
fn a_sensor_that_two_vehicles_hear_is_stored_once() {
    let cloud = Router::start_with(
        r#"id: "c1", storages: { s: { key_expr: "v/**", backend: "rocksdb", history: "all" } },"#,
    );
    let vehicle = |id: &str| {
        let line = Line::to(&cloud.endpoint);
        let router = Router::start_with(&format!(
            r#"id: "{id}", connect: {{ endpoints: ["{}"] }},
            forward: {{ cloud: {{ key_expr: "v/**", period: "300ms", keep: "0s" }} }},"#,
            line.endpoint
        ));
        (router, line)
    };
    let vehicles = [vehicle("41"), vehicle("42")];
    let wait = |router: &Router, what: &str, is_it: &dyn Fn(&Value) -> bool| {
        until(what, || {
            let key = format!("@weir/{}/forward/cloud", router.id());
            let status = router.rest_value(&key).unwrap();
            is_it(&status).then_some(()).ok_or(status.to_string())
        });
    };
    let begin = hour_ago();
    let mut expected = Vec::new();
    for (router, line) in &vehicles {
        wait(router, "it has met the cloud", &|status| {
            status["state"] == "up"
        });
        line.cut();
        wait(router, "it is alone", &|status| status["state"] == "down");
        // Both hear this one; each also hears another.
        let mut client = router.python();
        expected = put(&mut client, begin, 0..3_000);
        let own = |n: u64| {
            let at = begin + n * SECOND / 1_000;
            json!({ "key": format!("v/own/{}", router.id()), "value": packed(value(n)),
                "encoding": "application/json", "at": at })
        };
        client.puts(&(0..1_000).map(own).collect::<Vec<_>>());
        wait(router, "all is kept", &|status| {
            status["queued"]["records"] == 4_000
        });
    }
    for (_, line) in &vehicles {
        line.mend();
    }
    for (router, _) in &vehicles {
        wait(router, "it is drained", &|status| {
            status["state"] == "up" && status["queued"]["records"] == 0
        });
    }
    let mut client = cloud.python();
    let got = client.get_all("v/42/**?_time=[now(-2h)..now()]");
    let record = |sample: weir_e2e::Sample| (sample.key, sample.timestamp.unwrap(), sample.value);
    let mut held: Vec<Record> = got.samples.into_iter().map(record).collect();
    held.sort();
    expected.sort();
    assert_eq!(held.len(), expected.len());
    assert!(held == expected);
    let own = client.get_all("v/own/**?_time=[now(-2h)..now()]");
    assert_eq!(own.samples.len(), 2_000);
}

#[test]
fn rules_say_what_leaves_first_what_expires_and_what_is_superseded() {
    let tunnel = Tunnel::start(
        r#"lanes: [
            { key_expr: "v/42/alarm/**", lane: 0 },
            { key_expr: "v/42/debug/**", lane: 7, expires: "1m" },
            { key_expr: "v/42/pose/**", newest_only: true },
        ]"#,
    );
    tunnel.wait("they have met", |status| status["state"] == "up");
    tunnel.cut();
    let mut client = tunnel.edge.python();
    let sample = |topic: &str, n: u64| {
        json!({ "key": format!("v/42/{topic}/x"), "value": packed(value(n)),
            "encoding": "application/json", "at": tunnel.begin + n * SECOND })
    };
    let mut samples = Vec::new();
    for n in 0..100 {
        for topic in ["alarm", "debug", "pose", "other"] {
            samples.push(sample(topic, n));
        }
    }
    client.puts(&samples);
    let status = tunnel.wait("all came", |status| number(&status["appended"]) == 400);
    let lane = |number: u64| {
        let lanes = status["lanes"].as_array().unwrap();
        let lane = lanes.iter().find(|lane| lane["lane"] == number);
        lane.map_or(json!(0), |lane| lane["records"].clone())
    };
    assert_eq!((lane(0), lane(7)), (json!(100), json!(100)), "{status}");
    // Zenoh's default priority. What is superseded still lies there, and waits for nobody.
    assert_eq!(lane(5), json!(101), "{status}");
    assert_eq!(status["kept"]["records"], 400, "{status}");
    assert_eq!(status["coalesced"], 99, "{status}");
    tunnel.line.mend();
    let status = tunnel.wait_drained();
    // They were an hour old.
    assert_eq!(status["expired"], 100, "{status}");
    let keys: Vec<String> = tunnel.held().into_iter().map(|record| record.0).collect();
    let count = |topic: &str| {
        let key = format!("v/42/{topic}/x");
        keys.iter().filter(|other| **other == key).count()
    };
    let counts = ["alarm", "debug", "pose", "other"].map(count);
    assert_eq!(counts, [100, 0, 1, 100]);
}

#[test]
fn a_journal_that_cannot_be_opened_stops_its_link_alone_until_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let obstacle = folder.path().join("journal/lock");
    fs::create_dir_all(&obstacle).unwrap();
    let settings = r#"storages: { s: { key_expr: "v/**", backend: "memory" } },
        forward: { broken: { key_expr: "v/**", dir: "$DIR/journal" }, sound: { key_expr: "v/**" } },"#;
    let router = Router::start_in(folder.path(), settings);
    let mut client = router.python();
    client.put("v/1", "x");
    client.wait_values("v/**", &["v/1=x"]);
    let status = |name: &str| {
        let key = format!("@weir/{}/forward/{name}", router.id());
        router.rest_value(&key).unwrap()
    };
    until("the sound one has it", || {
        match &status("sound")["queued"]["records"] {
            records if *records == 1 => Ok(()),
            other => Err(other.to_string()),
        }
    });
    let broken = status("broken");
    assert_eq!(broken["state"], "faulted", "{broken}");
    assert!(broken["poisoned"].is_string(), "{broken}");
    assert_eq!(number(&broken["rejected"]), 1, "{broken}");
    assert_eq!(status("sound")["state"], "down");
    let ready = http::get(router.http, "/readyz?verbose");
    assert_eq!(ready.status, 503, "{ready:?}");
    assert!(ready.body.contains("[-] link broken"), "{ready:?}");
    assert!(ready.body.contains("[+] link sound"), "{ready:?}");

    fs::remove_dir(obstacle).unwrap();
    until("it is opened again", || {
        let ready = http::get(router.http, "/readyz?verbose");
        (ready.status == 200).then_some(()).ok_or(ready.body)
    });
    client.put("v/2", "x");
    until("it keeps what comes", || {
        match &status("broken")["queued"]["records"] {
            records if *records == 1 => Ok(()),
            other => Err(other.to_string()),
        }
    });
}

/// Drops a file as careful tools do.
fn drop_in(home: &Path, name: &str, bytes: &[u8]) {
    let dir = home.join("policies");
    fs::create_dir_all(&dir).unwrap();
    fs::write(home.join("part"), bytes).unwrap();
    fs::rename(home.join("part"), dir.join(name)).unwrap();
}
