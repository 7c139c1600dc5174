//! Mirrors: storages of several routers on keys that intersect hold the same again after whatever
//! happened.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use serde_json::{Value, json};
use weir_e2e::{
    Client, Router, http,
    python::packed,
    time::{SECOND, hour_ago},
    until,
};

/// A router of this id, connected to these, with these storages.
fn router(id: &str, peers: &[&Router], storages: &str) -> Router {
    let peers: Vec<_> = peers.iter().map(|peer| peer.endpoint.as_str()).collect();
    Router::start_with(&format!(
        r#"id: "{id}", connect: {{ endpoints: {peers:?} }}, storages: {{ {storages} }},"#
    ))
}

/// The handbook's pair: Seoul, and Ohio, which connects to it.
fn seoul_and_ohio() -> (Router, Router) {
    let seoul =
        r#"seoul: { key_expr: "global/telemetry/**", backend: "rocksdb", dir: "$DIR/zone" }"#;
    let seoul = router("5e0", &[], seoul);
    let ohio = r#"ohio: { key_expr: "global/telemetry/**", backend: "memory" }"#;
    let ohio = router("41", &[&seoul], ohio);
    (seoul, ohio)
}

/// Waits until `weir storage verify` finds nothing, and so many items on both sides.
#[track_caller]
fn wait_same(at: &Router, storage: &str, against: &str, items: u64) -> Value {
    until(
        &format!("{storage} and {against} hold the same {items}"),
        || {
            let ended = at.weir(&["storage", "verify", storage, "--against", against, "--json"]);
            if ended.code != 0 {
                return Err(format!(
                    "{} {}",
                    String::from_utf8_lossy(&ended.out),
                    ended.err
                ));
            }
            let verified = ended.json().pop().unwrap();
            if verified["counts"] == json!([items, items]) {
                Ok(verified)
            } else {
                Err(verified.to_string())
            }
        },
    )
}

/// The mirrors of a storage, as its status shows them.
fn mirrors(router: &Router, storage: &str) -> Vec<Value> {
    let status = router.storage(storage).unwrap();
    status["mirrors"].as_array().unwrap().clone()
}

/// Puts, and waits until the last is stored: one session's changes come in order.
fn put_many(client: &mut Client, prefix: &str, numbers: std::ops::Range<u32>, value: &str) {
    let last = expected(prefix, numbers.end - 1..numbers.end, value);
    let puts: Vec<Value> = numbers
        .map(|n| json!({ "key": format!("{prefix}/{n:04}"), "value": packed(format!("{value}{n}")) }))
        .collect();
    client.puts(&puts);
    let (key, _) = last[0].split_once('=').unwrap();
    client.wait_values(key, &[&last[0]]);
}

fn expected(prefix: &str, numbers: std::ops::Range<u32>, value: &str) -> Vec<String> {
    numbers
        .map(|n| format!("{prefix}/{n:04}={value}{n}"))
        .collect()
}

#[test]
fn a_replica_that_was_away_catches_up_and_what_was_deleted_stays_deleted() {
    let (mut seoul, mut ohio) = seoul_and_ohio();
    let mut client = ohio.python();
    put_many(&mut client, "global/telemetry/x", 0..200, "old");
    put_many(&mut client, "global/telemetry/y", 0..200, "old");
    wait_same(&seoul, "seoul", "ohio", 400);

    seoul.term();
    for n in 0..10 {
        client.delete(&format!("global/telemetry/x/{n:04}"));
    }
    put_many(&mut client, "global/telemetry/x", 10..20, "new");
    client.delete("global/telemetry/y/**");
    put_many(&mut client, "global/telemetry/z", 0..50, "new");
    seoul.restart();
    // Tombstones are items like any other: 200 + 200 + 50.
    wait_same(&seoul, "seoul", "ohio", 450);

    // Seoul alone answers, from its own disk.
    ohio.kill9();
    let mut held = expected("global/telemetry/x", 10..20, "new");
    held.extend(expected("global/telemetry/x", 20..200, "old"));
    held.extend(expected("global/telemetry/z", 0..50, "new"));
    assert_eq!(seoul.python().values("global/telemetry/**"), held);

    // A memory storage comes back with nothing, and claims nothing: absence is no delete.
    ohio.restart();
    wait_same(&ohio, "ohio", "5e0", 450);
    seoul.term();
    assert_eq!(ohio.python().values("global/telemetry/**"), held);
}

#[test]
fn three_routers_in_a_row_hold_the_same_after_each_was_away() {
    let storage = |backend: &str| {
        format!(
            r#"demo: {{ key_expr: "demo/**", backend: "{backend}", mirror: {{ period: "2s" }} }}"#
        )
    };
    let mut first = router("a1", &[], &storage("rocksdb"));
    let mut second = router("b2", &[&first], &storage("filesystem"));
    let third = router("c3", &[&second], &storage("memory"));
    put_many(&mut third.python(), "demo/a", 0..100, "v");
    wait_same(&third, "demo", "a1", 100);
    wait_same(&third, "demo", "b2", 100);

    // The middle one is away: nobody reaches anybody.
    second.term();
    put_many(&mut first.python(), "demo/b", 0..100, "first");
    put_many(&mut third.python(), "demo/b", 50..150, "third");
    second.restart();
    for (one, other) in [("a1", "b2"), ("b2", "c3"), ("a1", "c3")] {
        wait_same(
            &second,
            &format!("{one}/demo"),
            &format!("{other}/demo"),
            250,
        );
    }
    first.kill9();
    let mut client = third.python();
    put_many(&mut client, "demo/c", 0..10, "late");
    first.restart();
    wait_same(&first, "demo", "c3", 260);
    let status = third.weir(&["status"]).with_code(0);
    let shown = String::from_utf8(status.out).unwrap();
    assert!(
        shown.contains("a1/demo") && shown.contains("IN STEP SINCE"),
        "{shown}"
    );
}

#[test]
fn only_what_both_store_is_compared_and_repaired() {
    let edge =
        r#"edge: { key_expr: "vehicle/42/**", strip_prefix: "vehicle/42", backend: "rocksdb" }"#;
    let mut edge = router("ed", &[], edge);
    let cloud = r#"cloud: { key_expr: "vehicle/**", backend: "memory", history: "all" }"#;
    let cloud = router("c1", &[&edge], cloud);
    put_many(&mut cloud.python(), "vehicle/42", 0..50, "v");
    wait_same(&edge, "edge", "cloud", 50);
    edge.term();
    let mut client = cloud.python();
    put_many(&mut client, "vehicle/42", 40..100, "w");
    put_many(&mut client, "vehicle/43", 0..100, "w");
    client.delete("vehicle/42/0000");
    client.wait_values("vehicle/42/0000", &[]);
    edge.restart();
    wait_same(&edge, "edge", "cloud", 100);
    wait_same(&cloud, "cloud", "edge", 100);
    let found = cloud.python().values("vehicle/43/**");
    assert_eq!(found, expected("vehicle/43", 0..100, "w"));
    drop(cloud);
    let mut held = expected("vehicle/42", 1..40, "v");
    held.extend(expected("vehicle/42", 40..100, "w"));
    assert_eq!(edge.python().values("vehicle/**"), held);
}

#[test]
fn every_version_of_a_series_comes_across() {
    let storage = |backend: &str| {
        format!(r#"s: {{ key_expr: "s/**", backend: "{backend}", history: "all" }}"#)
    };
    let mut first = router("51", &[], &storage("rocksdb"));
    let second = router("52", &[&first], &storage("memory"));
    let begin = hour_ago();
    let put_versions = |client: &mut Client, numbers: std::ops::Range<u64>| {
        let put = |n: u64| {
            let (key, value) = (format!("s/{}", n % 3), packed(n.to_string()));
            json!({ "key": key, "value": value, "at": begin + n * SECOND / 10 })
        };
        let last = numbers.end - 1;
        let puts: Vec<Value> = numbers.map(put).collect();
        client.puts(&puts);
        let key = format!("s/{}", last % 3);
        client.wait_values(&key, &[&format!("{key}={last}")]);
    };
    let mut client = second.python();
    put_versions(&mut client, 0..600);
    // The versions, and the latest of three keys.
    wait_same(&second, "s", "51", 603);
    first.term();
    put_versions(&mut client, 600..900);
    first.restart();
    wait_same(&second, "s", "51", 903);
    drop(second);
    let mut values = first.python().values("s/**?_time=[now(-2h)..now()]");
    values.sort();
    let mut held: Vec<String> = (0..900).map(|n| format!("s/{}={n}", n % 3)).collect();
    held.sort();
    assert_eq!(values, held);
}

#[test]
fn a_storage_that_opts_out_is_left_alone_and_one_way_goes_one_way() {
    let mut first = router(
        "f1",
        &[],
        r#"alone: { key_expr: "alone/**", backend: "rocksdb" },
           source: { key_expr: "way/**", backend: "rocksdb", mirror: { from: [] } }"#,
    );
    let mut second = router(
        "f2",
        &[&first],
        r#"alone: { key_expr: "alone/**", backend: "rocksdb", mirror: false },
           sink: { key_expr: "way/**", backend: "rocksdb" }"#,
    );
    until("they are mirrors", || {
        match mirrors(&first, "source").len() {
            1 => Ok(()),
            n => Err(n.to_string()),
        }
    });
    first.term();
    let mut client = second.python();
    put_many(&mut client, "alone", 0..5, "v");
    put_many(&mut client, "way/back", 0..5, "v");
    first.restart();
    // What goes the permitted way shows that they have met and compared.
    until("they are mirrors again", || {
        match mirrors(&first, "source").len() {
            1 => Ok(()),
            n => Err(n.to_string()),
        }
    });
    second.term();
    let mut client = first.python();
    put_many(&mut client, "way/there", 0..7, "v");
    second.restart();
    // Only the sink's own are left.
    until("the sink has what the source has", || {
        let verify = ["storage", "verify", "source", "--against", "sink", "--json"];
        let ended = first.weir(&verify);
        let verified = ended.json().pop().ok_or(ended.err)?;
        match verified["only_here"] == 0 && verified["counts"] == json!([7, 12]) {
            true => Ok(()),
            false => Err(verified.to_string()),
        }
    });
    let verify = ["storage", "verify", "source", "--against", "sink", "--json"];
    let verified = first.weir(&verify).with_code(1).json().pop().unwrap();
    assert_eq!(
        (&verified["only_here"], &verified["only_there"]),
        (&json!(0), &json!(5))
    );
    assert_eq!(verified["keys"][0]["key"], "way/back/0000");
    assert_eq!(verified["keys"][0]["here"], Value::Null);

    assert_eq!(mirrors(&first, "alone"), Vec::<Value>::new());
    assert_eq!(mirrors(&second, "alone"), Vec::<Value>::new());
    let ended = first
        .weir(&["storage", "verify", "alone", "--against", "f2"])
        .with_code(1);
    let shown = String::from_utf8(ended.out).unwrap();
    assert!(
        shown.contains("alone/0004") && shown.contains("5 only there"),
        "{shown}"
    );
    let nobody = first
        .weir(&["storage", "verify", "alone", "--against", "ffff"])
        .with_code(2);
    assert!(
        nobody.err.contains("there is no peer ffff; there are"),
        "{}",
        nobody.err
    );
}

#[test]
fn mirrors_are_shown_to_operators_and_not_to_users() {
    let (seoul, ohio) = seoul_and_ohio();
    put_many(&mut ohio.python(), "global/telemetry", 0..3, "v");
    wait_same(&seoul, "seoul", "ohio", 3);
    for (router, storage, other) in [(&seoul, "seoul", "41"), (&ohio, "ohio", "5e0")] {
        let mirror = until("they are in step", || {
            let mirror = mirrors(router, storage).pop().ok_or("no mirror")?;
            match mirror["state"] == "in_step" {
                true => Ok(mirror),
                false => Err(mirror.to_string()),
            }
        });
        assert_eq!(mirror["router"], other, "{mirror}");
        assert!(mirror["in_step_since"].is_string(), "{mirror}");
        assert_eq!(
            (&mirror["takes"], &mirror["gives"]),
            (&json!(true), &json!(true)),
            "{mirror}"
        );
        let page = http::get(router.http, "/metrics").body;
        let gauge = format!("weir_mirror_in_step{{storage=\"{storage}\",router=\"{other}\"");
        assert!(page.contains(&gauge), "{page}");
    }
    let keys = |selector: &str| {
        let got = seoul.python().get_all(selector);
        let mut keys: Vec<String> = got.samples.into_iter().map(|sample| sample.key).collect();
        keys.sort();
        keys.dedup();
        keys
    };
    let users: Vec<String> = (0..3).map(|n| format!("global/telemetry/{n:04}")).collect();
    assert_eq!(keys("**"), users);
    let hellos = ["@weir/v1/41/mirror/ohio", "@weir/v1/5e0/mirror/seoul"];
    assert_eq!(keys("@weir/v1/*/mirror/*"), hellos);
}
