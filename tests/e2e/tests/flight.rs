//! What real robots sent, stored and read back: every sample, byte by byte, under its own timestamp.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};
use weir_e2e::{
    Client, Router,
    flight::{self, Recorded},
    guest,
    python::packed,
    time::hour_ago,
};

/// Puts that the client is told in one line, some megabytes.
const AT_ONCE: usize = 4_000;

/// Keys and timestamps with their values.
type Samples = BTreeMap<(String, String), Vec<u8>>;

/// Puts a recording as one drone's, at the times at which it was recorded; gives what was put.
fn fly(client: &mut Client, prefix: &str, recording: &[Recorded]) -> Samples {
    let takeoff = hour_ago();
    let mut samples = Samples::new();
    let mut number = 0;
    for part in recording.chunks(AT_ONCE) {
        let puts: Vec<Value> = part
            .iter()
            .map(|sample| {
                // Some topics have two samples in a microsecond, which an autopilot counts in: a
                // nanosecond for each sample before keeps them apart and in order.
                number += 1;
                let at = takeoff + sample.at_us * 1_000 + number;
                json!({
                    "key": format!("{prefix}/{}", sample.topic),
                    "value": packed(&sample.value),
                    "encoding": "application/json",
                    "at": at,
                })
            })
            .collect();
        let stamps = client.puts(&puts);
        for ((sample, put), stamp) in part.iter().zip(&puts).zip(stamps) {
            let key = put["key"].as_str().unwrap().to_owned();
            let twice = samples.insert((key, stamp), sample.value.clone().into_bytes());
            assert!(twice.is_none(), "every sample has a timestamp of its own");
        }
    }
    assert_eq!(samples.len(), recording.len());
    samples
}

/// What a selector answers, each as it is stored.
fn answered(client: &mut Client, selector: &str) -> Samples {
    let got = client.get(selector);
    assert_eq!(got.errors, [""; 0], "{selector}");
    let count = got.samples.len();
    let samples: Samples = got
        .samples
        .into_iter()
        .map(|sample| {
            assert_eq!(sample.encoding, "application/json", "{}", sample.key);
            ((sample.key, sample.timestamp.unwrap()), sample.value)
        })
        .collect();
    assert_eq!(samples.len(), count, "each once");
    samples
}

/// Says what differs, not all that is equal.
#[track_caller]
fn assert_same(seen: &Samples, expected: &Samples, what: &str) {
    let missing = expected
        .iter()
        .filter(|(key, value)| seen.get(key) != Some(value))
        .count();
    let invented = seen
        .keys()
        .filter(|key| !expected.contains_key(key))
        .count();
    assert_eq!(
        (missing, invented),
        (0, 0),
        "{what}: (missing or changed, invented)"
    );
}

/// The latest sample of each key.
fn latest(samples: &Samples) -> Samples {
    let mut latest: BTreeMap<&str, (&str, &[u8])> = BTreeMap::new();
    for ((key, stamp), value) in samples {
        // All of one id, and as many digits each: the text's order is the time's.
        let entry = latest.entry(key).or_insert((stamp, value));
        *entry = (*entry).max((stamp, value));
    }
    let own = |(key, (stamp, value)): (&str, (&str, &[u8]))| {
        ((key.to_owned(), stamp.to_owned()), value.to_vec())
    };
    latest.into_iter().map(own).collect()
}

#[test]
fn a_flight_is_stored_and_read_back_bit_by_bit() {
    check("rocksdb", "px4-flight-181s.ndjson.zst", usize::MAX);
}

#[test]
fn ninety_six_topics_are_stored_and_read_back_bit_by_bit() {
    check("rocksdb", "px4-boot-96-topics.ndjson.zst", usize::MAX);
}

/// A file a key, and a log for the versions, are slower: the first seconds.
#[test]
fn files_hold_a_flight_bit_by_bit() {
    check("filesystem", "px4-boot-96-topics.ndjson.zst", 4_000);
}

/// Stores a recording with and without history, reads it back, also after a crash.
fn check(backend: &str, recording: &str, limit: usize) {
    let Some(recorded) = flight::read(recording, limit) else {
        return;
    };
    let mut router = Router::start(&format!(
        r#"
        series: {{ key_expr: "series/drone/**", backend: "{backend}", history: "all" }},
        now: {{ key_expr: "now/drone/**", backend: "{backend}" }},
        "#
    ));
    let mut client = router.python();
    let series = fly(&mut client, "series/drone/5500", &recorded);
    // The same rows in a store without history: the first seconds show as much as all.
    let first = &recorded[..recorded.len().min(5_000)];
    let state = fly(&mut client, "now/drone/5500", first);
    router.wait_decided("series", recorded.len() as u64);
    router.wait_decided("now", first.len() as u64);
    let check = |client: &mut Client, when: &str| {
        let what = format!("{recording} on {backend} {when}");
        assert_same(
            &answered(client, "series/drone/**?_time=[..]"),
            &series,
            &what,
        );
        assert_same(
            &answered(client, "series/drone/**"),
            &latest(&series),
            &what,
        );
        assert_same(&answered(client, "now/drone/**"), &latest(&state), &what);
    };
    check(&mut client, "after the flight");
    drop(client);
    router.kill9();
    router.restart();
    check(&mut router.python(), "after a crash");
}

/// How many drones the recording is flown as.
const DRONES: usize = 4;

#[test]
fn a_policy_moves_drones_while_they_fly_and_every_sample_is_found_once() {
    let Some(recorded) = flight::read("px4-flight-181s.ndjson.zst", 12_000) else {
        return;
    };
    let Some(module) = guest::built("route/by-region") else {
        return;
    };
    // Natively the drones are spread over both; the policy has them all in the west.
    let router = Router::start_with(
        r#"
        policies: {
          dir: "$DIR/policies",
          settings: { "by-region": { rules: [{ keys: "fleet/**", shard: "west" }] } },
        },
        storages: {
          fleet: {
            key_expr: "fleet/**", history: "all", shard_by: { chunk: 2 },
            shards: [
              { name: "west", backend: "rocksdb", dir: "$DIR/west" },
              { name: "east", backend: "rocksdb", dir: "$DIR/east" },
            ],
            policies: { route: "by-region" },
          },
        },"#,
    );
    let dropped = router.dir().join("policies/by-region.wasm");
    fs::create_dir_all(dropped.parent().unwrap()).unwrap();
    let slot = |router: &Router| {
        let key = format!("@weir/{}/policies/by-region", router.id());
        router.rest_value(&key).unwrap()["slots"][0].clone()
    };
    let wait_service = |service: &str| {
        weir_e2e::until(&format!("{service} decides"), || {
            let slot = slot(&router);
            if slot["service"] == service {
                Ok(())
            } else {
                Err(slot.to_string())
            }
        });
    };
    let keys_on = |shard: &str| {
        let status = router.storage("fleet").unwrap();
        status["shards"][shard]["keys"].as_u64().unwrap()
    };
    let mut client = router.python();
    let mut expected = Samples::new();
    let mut phase = |client: &mut Client, number: usize| {
        let third = recorded.len() / 3;
        for drone in 0..DRONES {
            let own: Vec<Recorded> = recorded[number * third..(number + 1) * third]
                .iter()
                .skip(drone)
                .step_by(DRONES)
                .cloned()
                .collect();
            // Topics of its own in each phase, so that it shows where the phase's keys live.
            let samples = fly(client, &format!("fleet/drone/{drone}/{number}"), &own);
            expected.extend(samples);
        }
        router.wait_decided("fleet", expected.len() as u64);
        expected.len() as u64
    };
    let first = phase(&mut client, 0);
    let east = keys_on("east");
    assert!(
        east > 0 && keys_on("west") > 0,
        "the native rule spreads them"
    );
    assert_eq!(slot(&router)["native"].as_u64(), Some(first));

    fs::copy(&module, dropped.with_extension("part")).unwrap();
    fs::rename(dropped.with_extension("part"), &dropped).unwrap();
    wait_service("policy");
    let second = phase(&mut client, 1);
    assert_eq!(keys_on("east"), east, "they all fly in the west");
    let decided = slot(&router);
    let of = |name: &str| decided[name].as_u64().unwrap();
    assert_eq!(of("samples") + of("remembered"), second - first);
    assert_eq!((of("native"), of("fallbacks")), (first, 0));

    fs::remove_file(&dropped).unwrap();
    wait_service("native");
    let third = phase(&mut client, 2);
    assert!(keys_on("east") > east, "the native rule spreads them again");
    assert_eq!(
        slot(&router)["native"].as_u64(),
        Some(first + third - second)
    );
    let found = answered(&mut client, "fleet/**?_time=[..]");
    assert_same(&found, &expected, "over both shards");
}
