//! What mirroring costs on the wire between two routers, with all headers: idle, and for differences of
//! several shapes.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::time::Duration;

use serde_json::{Value, json};
use weir_e2e::{
    Client, Router, mortal::Operation, netns::Namespace, python::packed, say, skip, until_within,
};

/// Keys, unless `WEIR_WIRE_KEYS` says otherwise.
const KEYS: u64 = 100_000;
/// Seldom enough that what is put for one measurement is compared at once, and often enough that the
/// connection itself needs not be kept alive by anything else.
const PERIOD: &str = "2s";
/// How often a difference is made until no comparison began meanwhile.
const TURNS_MAX: u64 = 20;
const PATIENCE: Duration = Duration::from_secs(300);

fn key(number: u64) -> String {
    format!("w/{:03}/{:06}", number % 1_000, number)
}

/// The mirror as the storage's status shows it.
fn mirror(router: &Router) -> Value {
    router.storage("w").unwrap()["mirrors"][0].take()
}

fn rounds(router: &Router) -> u64 {
    mirror(router)["rounds"].as_u64().unwrap()
}

/// Bytes of frames that it has sent or heard.
fn frames(router: &Router) -> u64 {
    let mirror = mirror(router);
    let bytes = |name: &str| mirror[name].as_u64().unwrap();
    bytes("sent_bytes") + bytes("received_bytes")
}

/// Waits until a round that began later has found both the same.
fn wait_round(router: &Router, rounds: u64) {
    let before = self::rounds(router);
    until_within(PATIENCE, "rounds end in step", || {
        let mirror = mirror(router);
        let ended = mirror["rounds"].as_u64().unwrap() >= before + rounds;
        if ended && mirror["state"] == "in_step" {
            Ok(())
        } else {
            Err(mirror.to_string())
        }
    });
}

/// Puts that only the router asked stores: it says that it is complete, and is the nearest. The other one
/// keeps its storage in memory, and refuses to promise more.
fn put_here(client: &mut Client, number: &mut u64, keys: &[String]) {
    let request = |key: &String| {
        *number += 1;
        let value = Some(format!("n{number:09}").into_bytes());
        let key = key.clone();
        let mut request = Operation { key, value }.request();
        request["target"] = json!("best");
        request
    };
    let requests: Vec<Value> = keys.iter().map(request).collect();
    for receipt in client.acks(&requests, || {}) {
        assert_eq!(receipt["admission"], "applied", "{receipt}");
    }
}

#[test]
fn differences_cost_little_on_the_wire() {
    let space = match Namespace::new() {
        Ok(space) => space,
        Err(why) => return skip(&why),
    };
    let keys = std::env::var("WEIR_WIRE_KEYS").map_or(KEYS, |text| text.parse().unwrap());
    // What is large would go through the memory that both are in, and not over the wire.
    let storage = |more: &str| {
        format!(
            r#"transport: {{ shared_memory: {{ enabled: false }} }},
            storages: {{ w: {{ key_expr: "w/**", {more}, mirror: {{ period: "{PERIOD}" }} }} }},"#
        )
    };
    let wire = format!("tcp/{}:7447", space.here);
    let here = Router::start_file(
        "weir.json5",
        &format!(
            r#"{{ id: "a1", listen: {{ endpoints: ["$LISTEN", "{wire}"] }},
                scouting: {{ multicast: {{ enabled: false }} }},
                rest: {{ http_port: "127.0.0.1:$REST" }}, http: {{ listen: "127.0.0.1:$HTTP" }},
                data_dir: "$DIR/data", {} }}"#,
            storage(r#"backend: "rocksdb", complete: true"#)
        ),
        &[],
    );
    let mut client = here.python();
    let all: Vec<u64> = (0..keys).collect();
    for part in all.chunks(10_000) {
        let put = |n: &u64| json!({ "key": key(*n), "value": packed(format!("v{n:09}")) });
        client.puts(&part.iter().map(put).collect::<Vec<_>>());
    }
    let last = keys - 1;
    client.wait_values(&key(last), &[&format!("{}=v{last:09}", key(last))]);
    let _there = Router::start_in_namespace(
        &space,
        &format!(
            r#"id: "b2", connect: {{ endpoints: ["{wire}"] }}, {}"#,
            storage(r#"backend: "memory""#)
        ),
    );
    until_within(PATIENCE, "both hold the same", || {
        let ended = here.weir(&["storage", "verify", "w", "--against", "b2", "--json"]);
        let verified = ended.json().pop().ok_or(ended.err)?;
        match verified["counts"] == json!([keys, keys]) && ended.code == 0 {
            true => Ok(()),
            false => Err(verified.to_string()),
        }
    });
    wait_round(&here, 2);

    const PROBES: u64 = 10;
    wait_round(&here, 1);
    let before = space.bytes();
    wait_round(&here, PROBES);
    let idle = (space.bytes() - before) / PROBES;

    let mut number = 0;
    let mut measured = Vec::new();
    for (what, count, most) in [
        ("1 key", 1, 4 << 10),
        ("100 scattered keys", 100, 150 << 10),
        ("100 keys of one prefix", 100, 6 << 10),
    ] {
        // New ones: of what is overwritten both send each other what they hold.
        let different = |turn: u64| -> Vec<String> {
            let new = |number: u64| format!("{}/new{turn}", key(number));
            match what {
                "1 key" => vec![new(12_345)],
                "100 scattered keys" => (0..100).map(|n| new(n * (keys / 100) + n)).collect(),
                _ => (0..100).map(|n| new(n * 1_000 + 7)).collect(),
            }
        };
        // The puts' own questions reach the other router as well, which refuses them, since it keeps
        // nothing for good. Only what follows is counted; so not if a comparison has begun meanwhile.
        let counted = (0..TURNS_MAX).find_map(|turn| {
            wait_round(&here, 1);
            let (before, rounds) = (frames(&here), rounds(&here));
            let different = different(turn);
            put_here(&mut client, &mut number, &different);
            let bytes = space.bytes();
            let is_quiet = frames(&here) == before;
            wait_round(&here, 2);
            // The probes of idle rounds in between would have been sent in any case, too.
            let probes = (self::rounds(&here) - rounds).saturating_sub(1) * idle;
            is_quiet.then(|| (space.bytes() - bytes - probes, different))
        });
        let (bytes, different) = counted.expect("a pause between two comparisons");
        assert_eq!(different.len(), count);
        // What has to be sent in any case: the keys, the values, the versions.
        let records: u64 = different.iter().map(|key| key.len() as u64 + 10 + 33).sum();
        measured.push(format!("{what} {bytes} B ({records} B of records)"));
        assert!(bytes <= most, "{what}: {bytes} B for {records} B");
    }
    say(&format!(
        "{keys} keys, on the wire: idle {idle} B a probe; {}",
        measured.join(", ")
    ));
    assert!(idle <= 700, "{idle} B a probe");
}
