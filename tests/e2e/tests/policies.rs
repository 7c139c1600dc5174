//! Policies in a real router: dropped, serving, refused, removed; and who is told.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::{fs, path::PathBuf};

use serde_json::{Value, json};
use weir_e2e::{Router, http, python::packed, time};

/// A guest that answers what the last chunk of the key says: `last` (the last shard), `everywhere`,
/// `nowhere`, `first` (keep the first of two versions), anything else (the default).
fn witness() -> PathBuf {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies/fixtures");
    PathBuf::from(fixtures).join("0.1.0/witness.wasm")
}

const SETTINGS: &str = r#"
  policies: { dir: "$DIR/policies", zone: "seoul" },
  storages: {
    fleet: {
      key_expr: "fleet/**",
      shards: [
        { backend: "filesystem", dir: "$DIR/a" },
        { backend: "filesystem", dir: "$DIR/b" },
      ],
      policies: { route: "place" },
    },
    merged: { key_expr: "merged/**", backend: "memory", policies: { resolve: "merge" } },
  },"#;

fn policy(router: &Router, name: &str) -> Option<Value> {
    router.rest_value(&format!("@weir/{}/policies/{name}", router.id()))
}

/// Waits until the only slot of a policy is so.
fn wait_slot(router: &Router, name: &str, field: &str, expected: &str) -> Value {
    weir_e2e::until(&format!("{field} of {name} is {expected}"), || {
        let found = policy(router, name).unwrap_or_default();
        let slot = found["slots"][0].clone();
        if slot[field] == expected {
            Ok(slot)
        } else {
            Err(found.to_string())
        }
    })
}

/// Drops a file as careful tools do.
fn drop_in(router: &Router, name: &str, bytes: &[u8]) {
    let dir = router.dir().join("policies");
    fs::create_dir_all(&dir).unwrap();
    fs::write(router.dir().join("part"), bytes).unwrap();
    fs::rename(router.dir().join("part"), dir.join(name)).unwrap();
}

/// Which drones have their value on a shard, by the files there.
fn drones_on(router: &Router, shard: &str, topic: &str) -> Vec<String> {
    let fleet = router.dir().join(shard).join("fleet");
    let Ok(drones) = fs::read_dir(fleet) else {
        return Vec::new();
    };
    let drones = drones.map(|drone| drone.unwrap().path());
    let is_there = |drone: &PathBuf| {
        let mut files = fs::read_dir(drone).unwrap();
        files.any(|file| {
            let name = file.unwrap().file_name();
            name.to_str().unwrap().starts_with(topic)
        })
    };
    let name = |drone: PathBuf| drone.file_name().unwrap().to_str().unwrap().to_owned();
    let mut found: Vec<_> = drones.filter(is_there).map(name).collect();
    found.sort();
    found
}

#[test]
fn a_dropped_policy_moves_drones_and_a_bad_one_does_no_harm() {
    const DRONES: u64 = 40;
    let mut router = Router::start_with(SETTINGS);
    let mut client = router.python();
    let mut put = |topic: &str| {
        let key = |drone| format!("fleet/{drone}/{topic}");
        let puts = (0..DRONES).map(|drone| json!({ "key": key(drone), "value": packed("up") }));
        client.puts(&puts.collect::<Vec<_>>());
    };
    let greeting = router.greeting.join("\n");
    assert!(greeting.contains("policies  "), "{greeting}");

    // Bound, and not there: the native rule, and everybody can see it.
    let found = policy(&router, "place").unwrap();
    assert_eq!(found["warning"], "place.wasm is not there");
    assert!(router.log().contains("no such policy"), "{}", router.log());
    put("last");
    router.wait_decided("fleet", DRONES);
    let native = drones_on(&router, "b", "last").len();
    assert!(
        0 < native && native < 40,
        "{native} of 40 on the second shard"
    );

    // It is dropped while the router runs.
    let module = fs::read(witness()).unwrap();
    drop_in(&router, "place.wasm", &module);
    wait_slot(&router, "place", "service", "policy");
    put("last");
    router.wait_decided("fleet", 2 * DRONES);
    assert_eq!(drones_on(&router, "b", "last").len(), 40);
    put("everywhere");
    router.wait_decided("fleet", 4 * DRONES);
    for shard in ["a", "b"] {
        assert_eq!(drones_on(&router, shard, "everywhere").len(), 40, "{shard}");
    }
    put("nowhere");
    router.wait_total("fleet", "rejected", DRONES);

    // A file that is no policy leaves it serving, and says so in three places.
    drop_in(&router, "place.wasm", &module[..module.len() / 2]);
    let note = weir_e2e::until("a note lies beside the file", || {
        let note = router.dir().join("policies/place.wasm.error");
        fs::read_to_string(note).map_err(|error| error.to_string())
    });
    assert!(note.contains("place.wasm is refused: invalid: "), "{note}");
    let slot = wait_slot(&router, "place", "service", "policy");
    assert_eq!(slot["fallbacks"], 0);
    assert_eq!(slot["samples"], 3 * DRONES);
    let listed = router.weir(&["policy", "ls"]).with_code(0);
    let listed = String::from_utf8(listed.out).unwrap();
    assert!(listed.contains("refused: invalid: "), "{listed}");
    assert!(listed.contains("storages/fleet"), "{listed}");
    let metrics = http::get(router.http, "/metrics").body;
    let labels = r#"{policy="place",owner="storages/fleet",hook="route"}"#;
    let line = format!("weir_policy_samples_total{labels} {}\n", 3 * DRONES);
    assert!(metrics.contains(&line), "{metrics}");

    // After a restart the file is refused again, now with nothing before it; then it is gone.
    router.term();
    router.restart();
    let found = policy(&router, "place").unwrap();
    assert_eq!(found["file"]["state"], "refused", "{found}");
    assert_eq!(found["slots"][0]["service"], "native", "{found}");
    drop_in(&router, "place.wasm", &module);
    wait_slot(&router, "place", "service", "policy");
    // From the cache, since it was compiled before.
    assert_eq!(policy(&router, "place").unwrap()["file"]["origin"], "cache");
    fs::remove_file(router.dir().join("policies/place.wasm")).unwrap();
    wait_slot(&router, "place", "service", "native");
    assert!(!router.dir().join("policies/place.wasm.error").exists());
    router.term();
}

#[test]
fn a_resolver_decides_what_two_robots_said_at_once() {
    let router = Router::start_with(SETTINGS);
    let (mut one, mut two) = (router.python(), router.python());
    let now = time::hour_ago();
    // Without the policy the later wins.
    one.put_at("merged/a/first", "one", now);
    two.put_at("merged/a/first", "two", now + time::SECOND);
    one.wait_values("merged/a/first", &["merged/a/first=two"]);

    drop_in(&router, "merge.wasm", &fs::read(witness()).unwrap());
    let slot = wait_slot(&router, "merge", "service", "policy");
    assert_eq!(slot["hook"], "resolve");
    let revision = slot["resolver_revision"].as_str().unwrap();
    assert_eq!(revision.len(), 16);
    one.put_at("merged/b/first", "one", now);
    two.put_at("merged/b/first", "two", now + time::SECOND);
    router.wait_decided("merged", 4);
    one.wait_values("merged/b/first", &["merged/b/first=one"]);
    let slot = wait_slot(&router, "merge", "state", "serving");
    assert_eq!(
        (&slot["samples"], &slot["fallbacks"]),
        (&json!(1), &json!(0))
    );
}
