//! Shards by pattern on several routers, and by hash on several disks of one.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use weir_e2e::{Router, http, python::packed};

/// The handbook's three shards: name, pattern, and a drone in each.
const SHARDS: [(&str, &str, &str); 3] = [
    ("shard_volume_1_rack", "[0-3]", "0700"),
    ("shard_volume_2_rack", "[4-6]", "5500"),
    ("shard_volume_3_rack", "[7-9]", "9901"),
];

/// A shard, connected to routers that run already.
fn shard(number: usize, peers: &[&Router]) -> Router {
    let (name, digits, _) = SHARDS[number];
    let peers: Vec<_> = peers
        .iter()
        .map(|router| router.endpoint.as_str())
        .collect();
    Router::start_with(&format!(
        r#"connect: {{ endpoints: {peers:?} }},
        storages: {{
          {name}: {{ key_expr: "fleet/drone/{digits}**", backend: "rocksdb", dir: "$DIR/huge_mount" }},
        }},"#
    ))
}

/// Puts through a router until each shard has answered for its drone: from then on the routes are
/// known everywhere that matters.
fn wait_routes(through: &Router) {
    let mut client = through.python();
    for (_, _, drone) in SHARDS {
        let key = format!("fleet/drone/{drone}/probe");
        weir_e2e::until(&format!("{key} finds its shard"), || {
            client.put(&key, "?");
            let got = client.get(&key);
            if got.samples.len() == 1 {
                Ok(())
            } else {
                Err(format!("{got:?}"))
            }
        });
    }
}

/// The user's puts and deletes that a router received from the network, and their bytes, as Zenoh
/// counts them.
fn received(router: &Router) -> BTreeMap<&'static str, u64> {
    let id = router.id();
    let answer = router
        .rest_get(&format!("@/{id}/router?_stats=true"))
        .json();
    let stats = &answer[0]["value"]["stats"];
    let counters = [
        "rx_z_put_msgs",
        "rx_z_put_pl_bytes",
        "rx_z_del_msgs",
        "rx_z_del_pl_bytes",
    ]
    .into_iter();
    counters
        .map(|name| {
            (
                name,
                stats[name]["user"]
                    .as_u64()
                    .unwrap_or_else(|| panic!("{name}: {answer}")),
            )
        })
        .collect()
}

/// What was received since.
fn since(before: &BTreeMap<&'static str, u64>, router: &Router) -> BTreeMap<&'static str, u64> {
    received(router)
        .into_iter()
        .map(|(name, now)| (name, now - before[name]))
        .collect()
}

/// The same counter as the metrics page has it: puts of users, received, over all transports.
fn put_metric(router: &Router) -> u64 {
    let page = http::get(router.http, "/metrics").body;
    let is_put = |line: &&str| {
        line.starts_with("zenoh_rx_network_message_payload_bytes_count{")
            && line.contains("message=\"put\"")
            && line.contains("space=\"user\"")
    };
    let values = page
        .lines()
        .filter(is_put)
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    values.sum::<u64>()
}

#[test]
fn a_put_reaches_one_shard_and_the_others_see_no_data_message() {
    const PUTS: u64 = 500;
    let hub = Router::start("");
    let shards: Vec<Router> = (0..3).map(|number| shard(number, &[&hub])).collect();
    wait_routes(&hub);
    let mut client = hub.python();
    for (target, (name, _, drone)) in SHARDS.into_iter().enumerate() {
        let before: Vec<_> = shards.iter().map(received).collect();
        let decided = shards[target].decided(name);
        let value = packed([7u8; 1_000]);
        let puts: Vec<Value> = (0..PUTS)
            .map(|n| json!({ "key": format!("fleet/drone/{drone}/video/{n}"), "value": value }))
            .collect();
        client.puts(&puts);
        client.delete(&format!("fleet/drone/{drone}/video/0"));
        shards[target].wait_decided(name, decided + PUTS + 1);
        for (number, shard) in shards.iter().enumerate() {
            let seen = since(&before[number], shard);
            if number == target {
                assert_eq!(
                    (seen["rx_z_put_msgs"], seen["rx_z_del_msgs"]),
                    (PUTS, 1),
                    "{name}"
                );
                assert_eq!(seen["rx_z_put_pl_bytes"], PUTS * 1_000, "{name}");
            } else {
                assert!(
                    seen.values().all(|count| *count == 0),
                    "{name}: {number} saw {seen:?}"
                );
            }
        }
    }
}

#[test]
fn zenoh_counts_the_same_on_the_metrics_page() {
    let hub = Router::start("");
    let shards: Vec<Router> = (0..2).map(|number| shard(number, &[&hub])).collect();
    let mut client = hub.python();
    let key = format!("fleet/drone/{}/a", SHARDS[1].2);
    weir_e2e::until("the shard takes a put", || {
        client.put(&key, "?");
        let got = client.get(&key);
        if got.samples.len() == 1 {
            Ok(())
        } else {
            Err(format!("{got:?}"))
        }
    });
    for shard in &shards {
        assert_eq!(put_metric(shard), received(shard)["rx_z_put_msgs"]);
    }
    assert_eq!(put_metric(&shards[0]), 0);
    assert!(put_metric(&shards[1]) > 0);
}

#[test]
fn a_get_from_anywhere_answers_the_union_once() {
    let first = shard(0, &[]);
    let second = shard(1, &[&first]);
    let third = shard(2, &[&first, &second]);
    let mut routers = [first, second, third];
    for router in &routers {
        wait_routes(router);
    }
    // Whoever is told, the shard keeps it: a client of each router puts a third of the drones.
    let mut expected = BTreeSet::new();
    for (index, router) in routers.iter().enumerate() {
        let mut client = router.python();
        let puts: Vec<Value> = (index..90)
            .step_by(3)
            .map(|drone| format!("fleet/drone/{:04}/state", drone * 111))
            .map(|key| {
                expected.insert(key.clone());
                json!({ "key": key, "value": packed("up") })
            })
            .collect();
        client.puts(&puts);
        // The client is ended here: what a query travels behind has arrived.
        let _ = client.get(&format!("fleet/drone/{}/probe", SHARDS[index].2));
    }
    let union: Vec<&str> = expected.iter().map(String::as_str).collect();
    for router in &routers {
        let mut client = router.python();
        weir_e2e::until("the union is answered", || {
            // Unconsolidated: a sample that two shards held would show.
            let got = client.get_all("fleet/drone/*/state");
            let mut keys = got.keys();
            keys.sort_unstable();
            if keys == union {
                Ok(())
            } else {
                Err(format!("{} of {}", keys.len(), union.len()))
            }
        });
        let answered = router
            .weir(&["get", "fleet/drone/*/state"])
            .with_code(0)
            .json();
        assert_eq!(answered.len(), union.len(), "the command");
        let rest = router.rest_get("fleet/drone/*/state").json();
        assert_eq!(rest.as_array().unwrap().len(), union.len(), "REST");
    }
    // Each shard answers its own, and nothing else.
    let answered = routers[0]
        .weir(&["get", "fleet/drone/*/state", "--all"])
        .with_code(0)
        .json();
    for ((_, digits, _), router) in SHARDS.into_iter().zip(&routers) {
        let own = digits.as_bytes()[1]..=digits.as_bytes()[3];
        let is_own = |key: &str| own.contains(&key.as_bytes()["fleet/drone/".len()]);
        let count = union.iter().filter(|key| is_own(key)).count();
        let from = answered.iter().filter(|line| line["source"] == router.id());
        let keys: Vec<_> = from.map(|line| line["key"].as_str().unwrap()).collect();
        assert!(
            keys.len() == count && keys.iter().all(|key| is_own(key)),
            "{digits}: {keys:?}"
        );
    }

    // One dies: reads and writes of the others go on; it comes back with what it held.
    routers[1].kill9();
    let without: Vec<&str> = union
        .iter()
        .copied()
        .filter(|key| !(b'4'..=b'6').contains(&key.as_bytes()["fleet/drone/".len()]))
        .collect();
    let mut client = routers[2].python();
    let wait = |client: &mut weir_e2e::Client, expected: &[&str]| {
        weir_e2e::until("what the living hold is answered", || {
            let got = client.get("fleet/drone/*/state");
            let mut keys = got.keys();
            keys.sort_unstable();
            if keys == expected {
                Ok(())
            } else {
                Err(format!("{}, {:?}", keys.len(), got.errors))
            }
        });
    };
    wait(&mut client, &without);
    client.put("fleet/drone/0001/state", "new");
    client.wait_values("fleet/drone/0001/state", &["fleet/drone/0001/state=new"]);
    client.delete("fleet/drone/0001/state");
    routers[1].restart();
    wait(&mut client, &union);
}

#[test]
fn one_storage_is_spread_over_three_disks_by_a_chunk_of_the_key() {
    const DRONES: usize = 300;
    const TOPICS: [&str; 3] = ["attitude", "battery", "video"];
    let disks = ["one", "two", "three"];
    let storage = |backend: &str| {
        let shards: Vec<String> = disks
            .map(|disk| format!(r#"{{ backend: "{backend}", dir: "$DIR/{backend}/{disk}" }}"#))
            .to_vec();
        let shards = shards.join(", ");
        format!(
            r#"{backend}: {{
              key_expr: "{backend}/drone/**", shards: [{shards}], shard_by: {{ chunk: 2 }},
            }}"#
        )
    };
    let storages = ["filesystem", "rocksdb"].map(storage).join(",\n");
    let mut router = Router::start(&storages);
    let mut client = router.python();
    for backend in ["filesystem", "rocksdb"] {
        let key = |drone: usize, topic: &str| format!("{backend}/drone/{drone}/{topic}");
        let puts: Vec<Value> = (0..DRONES)
            .flat_map(|drone| TOPICS.map(|topic| key(drone, topic)))
            .map(|key| json!({ "key": key, "value": packed(&key) }))
            .collect();
        client.puts(&puts);
        router.wait_decided(backend, puts.len() as u64);
    }
    // What the operating system shows: each drone has a folder on one disk, with all its topics.
    let on = |disk: &str| -> BTreeSet<String> {
        let dir = router
            .dir()
            .join("filesystem")
            .join(disk)
            .join("filesystem/drone");
        let drones = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap());
        drones
            .map(|entry| {
                let topics = std::fs::read_dir(entry.path()).unwrap().count();
                assert_eq!(topics, TOPICS.len(), "{}", entry.path().display());
                entry.file_name().into_string().unwrap()
            })
            .collect()
    };
    let drones = disks.map(on);
    assert_eq!(drones.iter().map(BTreeSet::len).sum::<usize>(), DRONES);
    assert_eq!(
        drones.iter().flatten().collect::<BTreeSet<_>>().len(),
        DRONES,
        "each on one disk"
    );
    // A fair hash gives each a hundred; half of that would be very strange.
    assert!(
        drones.iter().all(|drones| drones.len() > 50),
        "{:?}",
        drones.each_ref().map(BTreeSet::len)
    );
    for disk in disks {
        assert!(
            router
                .dir()
                .join("rocksdb")
                .join(disk)
                .join("CURRENT")
                .is_file()
        );
    }

    for backend in ["filesystem", "rocksdb"] {
        let mut expected: Vec<String> = (0..DRONES)
            .flat_map(|drone| TOPICS.map(|topic| format!("{backend}/drone/{drone}/{topic}")))
            .collect();
        expected.sort();
        let got = client.get_all(&format!("{backend}/drone/**?_order=key"));
        // Chunk by chunk is the order of keys, `/` before all else.
        let mut keys = got.keys();
        assert!(
            keys.is_sorted_by_key(|key| key.split('/').collect::<Vec<_>>()),
            "merged in order"
        );
        keys.sort_unstable();
        assert_eq!(keys, expected, "all, each once");
        client.delete(&format!("{backend}/drone/*/video"));
        client.delete(&format!("{backend}/drone/7/battery"));
        weir_e2e::until("videos are deleted on every disk", || {
            let left = client.get_all(&format!("{backend}/**")).samples.len();
            if left == DRONES * 2 - 1 {
                Ok(())
            } else {
                Err(left.to_string())
            }
        });
    }
    drop(client);
    router.term();
    router.restart();
    let mut client = router.python();
    for backend in ["filesystem", "rocksdb"] {
        assert_eq!(
            client.get_all(&format!("{backend}/**")).samples.len(),
            DRONES * 2 - 1,
            "{backend}"
        );
        let point = client.values(&format!("{backend}/drone/77/attitude"));
        assert_eq!(
            point,
            [format!(
                "{backend}/drone/77/attitude={backend}/drone/77/attitude"
            )]
        );
    }
}
