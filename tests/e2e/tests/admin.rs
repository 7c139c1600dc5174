//! What the router shows and lets be changed while it runs: Zenoh's admin keys, ours, and the pages
//! for machines.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use weir_e2e::{
    Router, http,
    python::packed,
    time::{SECOND, rfc3339},
};

fn start() -> Router {
    Router::start(
        r#"
        cache: { key_expr: "cache/**", backend: "memory" },
        disk: { key_expr: "disk/**", backend: "rocksdb", strip_prefix: "disk" },
        "#,
    )
}

/// A key of the storage manager in the admin space.
fn manager(router: &Router, rest: &str) -> String {
    format!(
        "@/{}/router/{}",
        router.id(),
        rest.replace("~", "plugins/storage_manager")
    )
}

/// Waits until a storage that was asked for is open.
fn wait_up(router: &Router, name: &str) -> Value {
    weir_e2e::until(&format!("storage {name} is up"), || {
        let key = manager(router, &format!("status/~/storages/{name}"));
        let value = router.rest_value(&key).unwrap_or_default();
        if value["state"] == "up" {
            Ok(value)
        } else {
            Err(value.to_string())
        }
    })
}

/// Waits until a key of the storage manager's status answers, or answers no more.
fn wait_status(router: &Router, name: &str, there: bool) -> Value {
    let key = manager(router, &format!("status/~/{name}"));
    weir_e2e::until(&format!("{key} is there: {there}"), || {
        match router.rest_value(&key) {
            Some(value) if there => Ok(value),
            None if !there => Ok(Value::Null),
            other => Err(format!("{other:?}")),
        }
    })
}

#[test]
fn the_keys_that_existing_scripts_read_are_there() {
    let router = start();
    let answer = router.rest_get(&manager(&router, "status/~/**")).json();
    let entries = answer.as_array().unwrap();
    let value = |rest: &str| {
        let key = manager(&router, &format!("status/~/{rest}"));
        let entry = entries.iter().find(|entry| entry["key"] == key.as_str());
        &entry.unwrap_or_else(|| panic!("no {key} in {answer}"))["value"]
    };
    assert!(
        value("version")
            .as_str()
            .unwrap()
            .starts_with(char::is_numeric)
    );
    assert_eq!(value("storages/disk")["state"], "up");
    assert_eq!(value("storages/disk")["strip_prefix"], "disk");
    assert_eq!(value("storages/cache")["key_expr"], json!(["cache/**"]));
    assert_eq!(value("volumes/rocksdb")["backend"], "rocksdb");
    assert_eq!(value("volumes/memory/__path__"), "__static_lib__");
    // The router itself, and its plugins.
    let router_value = router.rest_value(&manager(&router, "").replace("/router/", "/router"));
    let plugins = &router_value.unwrap()["plugins"];
    assert!(
        plugins["storage_manager"].is_object() && plugins["rest"].is_object(),
        "{plugins}"
    );
}

#[test]
fn storages_come_and_go_at_run_time_through_rest() {
    let router = start();
    let config = manager(&router, "config/~/storages/more");
    let dir = router.dir().join("more");
    let text = json!({
        "key_expr": "more/**",
        "volume": { "id": "rocksdb", "dir": dir, "create_db": true, "on_closure": "destroy_db" },
    });
    assert_eq!(
        router
            .rest_put(&config, "application/json", &text.to_string())
            .status,
        200
    );
    assert_eq!(wait_up(&router, "more")["key_expr"], json!(["more/**"]));
    router.rest_put("more/a", "text/plain", "1");
    weir_e2e::until("the new storage answers", || {
        let value = router.rest_value("more/a");
        if value == Some(json!("1")) {
            Ok(())
        } else {
            Err(format!("{value:?}"))
        }
    });
    assert!(dir.join("CURRENT").is_file());
    assert_eq!(router.rest_delete(&config).status, 200);
    wait_status(&router, "storages/more", false);
    assert_eq!(router.rest_value("more/a"), None);
    weir_e2e::until("the database is destroyed, as it was told", || {
        if dir.join("CURRENT").exists() {
            Err("there".to_owned())
        } else {
            Ok(())
        }
    });
    // What was there before is untouched.
    wait_up(&router, "disk");
}

#[test]
fn storages_and_volumes_come_and_go_at_run_time_through_the_client() {
    let router = start();
    let mut client = router.python();
    let disk = router.dir().join("disk2");
    client.put_with(json!({
        "key": manager(&router, "config/~/volumes/second"),
        "value": packed(json!({ "backend": "filesystem", "dir": disk }).to_string()),
    }));
    wait_status(&router, "volumes/second", true);
    let config = manager(&router, "config/~/storages/more");
    let text = json!({
        "key_expr": "more/**",
        "strip_prefix": "more",
        // Nothing is created unless it is said, as with zenohd.
        "volume": { "id": "second", "dir": "more", "create_db": true },
    });
    client.put_with(json!({ "key": config, "value": packed(text.to_string()) }));
    wait_up(&router, "more");
    client.put("more/a", "1");
    client.wait_values("more/a", &["more/a=1"]);
    assert_eq!(std::fs::read(disk.join("more/a")).unwrap(), b"1");
    client.delete(&config);
    wait_status(&router, "storages/more", false);
    assert_eq!(client.values("more/**"), [""; 0]);
    // Closed and not destroyed: a storage that comes again continues.
    client.put_with(json!({ "key": config, "value": packed(text.to_string()) }));
    wait_up(&router, "more");
    client.wait_values("more/a", &["more/a=1"]);
}

#[test]
fn a_refused_change_leaves_its_reason() {
    let router = start();
    let put = |name: &str, value: Value| {
        let key = manager(&router, &format!("config/~/storages/{name}"));
        router.rest_put(&key, "application/json", &value.to_string());
    };
    let dir = router.dir().join("data/disk");
    // A name, what is asked for it, and words of the reason.
    let rows: [(&str, Value, &[&str]); 5] = [
        (
            "typing",
            json!({ "key_expr": "a//b", "volum": "memory" }),
            &["`volum`", "did you mean `volume`?", "a//b"],
        ),
        (
            "unknown",
            json!({ "key_expr": "a/**", "volume": "tape" }),
            &["tape"],
        ),
        (
            "pattern",
            json!({ "key_expr": "a/[9-1]**", "volume": "memory" }),
            &["[9-1]"],
        ),
        (
            "cache",
            json!({ "key_expr": "b/**", "volume": "memory" }),
            &["cache", "is there"],
        ),
        (
            "squatter",
            json!({ "key_expr": "a/**", "backend": "rocksdb", "dir": dir }),
            &["disk", "same directory"],
        ),
    ];
    for (name, value, words) in rows {
        put(name, value);
        let refusal = wait_status(&router, &format!("refusals/storages/{name}"), true);
        let reason = refusal["reason"].as_str().unwrap();
        for word in words {
            assert!(reason.contains(word), "{name}: no {word} in: {reason}");
        }
        assert!(name == "cache" || router.storage(name).is_none(), "{name}");
    }
    assert_eq!(
        router.storage("cache").unwrap()["key_expr"],
        json!(["cache/**"])
    );
    // A change that makes sense takes the reason away.
    put("typing", json!({ "key_expr": "a/b", "volume": "memory" }));
    wait_up(&router, "typing");
    wait_status(&router, "refusals/storages/typing", false);
}

#[test]
fn our_own_status_counts_what_happens() {
    let router = start();
    let mut client = router.python();
    for number in 0..10 {
        client.put(&format!("disk/{number}"), "12345");
    }
    client.delete("disk/0");
    router.wait_decided("disk", 11);
    let _ = client.get("disk/**");
    let _ = client.get("disk/**?_limit=x");
    let status = router.storage("disk").unwrap();
    assert_eq!(status["totals"]["applied"], 11, "{status}");
    assert_eq!(status["totals"]["received_bytes"], 50, "{status}");
    assert_eq!(status["totals"]["queries"], 2, "{status}");
    assert_eq!(status["totals"]["replies"], 9, "{status}");
    assert_eq!(status["totals"]["query_errors"], 1, "{status}");
    assert_eq!(
        (&status["state"], &status["durability"]),
        (&json!("up"), &json!("written"))
    );
    let id = router.id();
    let whole = router.rest_value(&format!("@weir/{id}/status")).unwrap();
    assert_eq!(
        (&whole["router"], &whole["storages"]),
        (&json!(id), &json!(2)),
        "{whole}"
    );
    assert_eq!(
        (&whole["ready"], &whole["down"]),
        (&json!(true), &json!([])),
        "{whole}"
    );
    // The same from the client, and from the command for people.
    let got = client.get(&format!("@weir/{id}/storages/*"));
    assert_eq!(got.samples.len(), 2, "{got:?}");
    let told = router.weir(&["status", "--json"]).with_code(0);
    let told = String::from_utf8(told.out).unwrap();
    assert!(told.contains(id) && told.contains("\"disk\""), "{told}");
}

#[test]
fn what_waits_for_a_server_that_is_not_there_is_shown() {
    // Nobody listens there any more.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", taken.local_addr().unwrap());
    drop(taken);
    let router = Router::start(&format!(
        r#"far: {{ key_expr: "far/**", backend: "influxdb", url: "{url}", db: "d" }}"#
    ));
    let mut client = router.python();
    client.put("far/a", "1");
    client.put("far/b", "2");
    let status = weir_e2e::until("both wait, and it is said why", || {
        let status = router.storage("far").ok_or("no status")?;
        let is_told = status["server"]["last_error"].is_string();
        if status["server"]["waiting_changes"] == 2 && is_told {
            Ok(status)
        } else {
            Err(status.to_string())
        }
    });
    assert_eq!(status["state"], "down", "{status}");
    assert_eq!(status["totals"]["applied"], 2, "{status}");
    let readyz = http::get(router.http, "/readyz?verbose");
    assert_eq!(readyz.status, 503);
    let line = "[-] storage far: up, 2 changes wait for its server: ";
    assert!(readyz.body.starts_with(line), "{}", readyz.body);
    let page = http::get(router.http, "/metrics").body;
    for sample in [
        "weir_storage_server_up{storage=\"far\"} 0",
        "weir_storage_server_waiting_changes{storage=\"far\"} 2",
    ] {
        assert!(page.lines().any(|line| line == sample), "{sample}: {page}");
    }
    let told = String::from_utf8(router.weir(&["status"]).out).unwrap();
    let row: Vec<&str> = told
        .lines()
        .filter(|line| line.starts_with("far "))
        .collect();
    assert!(told.contains("UNSENT") && row.len() == 1, "{told}");
}

#[test]
fn a_delete_from_the_future_is_parked_shown_and_purged() {
    let router = start();
    let mut client = router.python();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let ahead = (now + 3_600) * SECOND;
    for storage in ["cache", "disk"] {
        let key = format!("{storage}/a");
        client.put(&key, "1");
        client.wait_values(&key, &[&format!("{key}=1")]);
        client.delete_at(&key, ahead);
        router.wait_total(storage, "parked", 1);
        // It did nothing, and does not keep others from writing.
        client.wait_values(&key, &[&format!("{key}=1")]);
        client.put(&key, "2");
        client.wait_values(&key, &[&format!("{key}=2")]);
        let parked = format!("@weir/{}/storages/{storage}/parked", router.id());
        let shown = router.rest_value(&parked).unwrap();
        let changes = shown["changes"].as_array().unwrap();
        assert_eq!(changes.len(), 1, "{shown}");
        assert_eq!(
            (&changes[0]["key"], &changes[0]["kind"]),
            (&json!(key), &json!("delete"))
        );
        assert!(
            changes[0]["timestamp"].as_str().unwrap().ends_with("/77"),
            "{shown}"
        );
        let purged = client.get(&format!("{parked}?_purge"));
        let answer: Value = serde_json::from_slice(&purged.samples[0].value).unwrap();
        assert_eq!(answer, json!({ "purged": 1 }));
        assert_eq!(router.rest_value(&parked).unwrap()["changes"], json!([]));
        client.wait_values(&key, &[&format!("{key}=2")]);
    }
}

#[test]
fn nobody_locks_a_key_with_a_timestamp_from_the_future() {
    let router = start();
    let mut client = router.python();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    for storage in ["cache", "disk"] {
        // A plain put is re-stamped by the first router, before any storage sees it.
        let key = format!("{storage}/a");
        let given = client.put_at(&key, "from tomorrow", (now + 86_400) * SECOND);
        client.wait_values(&key, &[&format!("{key}=from tomorrow")]);
        assert_ne!(client.get(&key).samples[0].timestamp, Some(given));
        client.put(&key, "today");
        client.wait_values(&key, &[&format!("{key}=today")]);
        // An acknowledged one passes that gate by, and is told that it has to wait.
        let tomorrow = rfc3339((now + 86_400) * SECOND);
        let put = [
            "put",
            &key,
            "from tomorrow",
            "--ack",
            "--timestamp",
            &tomorrow,
        ];
        let receipt = &router.weir(&put).json()[0];
        assert_eq!(receipt["admission"], "parked", "{receipt}");
        client.wait_values(&key, &[&format!("{key}=today")]);
    }
}

#[test]
fn what_is_parked_survives_a_restart() {
    let mut router = start();
    let mut client = router.python();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    client.put("disk/a", "1");
    client.delete_at("disk/a", (now + 3_600) * SECOND);
    router.wait_total("disk", "parked", 1);
    drop(client);
    router.kill9();
    router.restart();
    let parked = format!("@weir/{}/storages/disk/parked", router.id());
    let shown = router.rest_value(&parked).unwrap();
    assert_eq!(shown["changes"][0]["key"], "disk/a", "{shown}");
    assert_eq!(router.rest_value("disk/a").unwrap(), "MQ==");
}

#[test]
fn a_change_that_was_parked_is_applied_when_it_is_due() {
    let router = start();
    let mut client = router.python();
    client.put("disk/a", "1");
    client.wait_values("disk/a", &["disk/a=1"]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let at = u64::try_from(now.as_nanos()).unwrap() + 4 * SECOND;
    client.delete_at("disk/a", at);
    router.wait_total("disk", "parked", 1);
    client.wait_values("disk/a", &[]);
    let gone = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    assert!(
        gone.as_nanos() >= u128::from(at) - 600_000_000,
        "not before it is due"
    );
}

#[test]
fn the_pages_for_machines_parse() {
    let router = start();
    let mut client = router.python();
    client.put("disk/a", "1");
    router.wait_decided("disk", 1);
    let livez = http::get(router.http, "/livez");
    assert_eq!((livez.status, livez.body.as_str()), (200, "ok\n"));
    let readyz = http::get(router.http, "/readyz");
    assert_eq!((readyz.status, readyz.body.as_str()), (200, "ready\n"));
    let verbose = http::get(router.http, "/readyz?verbose").body;
    assert_eq!(
        verbose,
        "[+] storage cache: up\n[+] storage disk: up\nready\n"
    );

    let page = http::get(router.http, "/metrics");
    assert_eq!(page.status, 200);
    let head = page.head.to_lowercase();
    assert!(
        head.contains("content-type: application/openmetrics-text"),
        "{head}"
    );
    assert!(page.body.ends_with("# EOF\n"), "{}", page.body);
    assert_eq!(page.body.matches("# EOF").count(), 1, "{}", page.body);
    let mut families = std::collections::BTreeSet::new();
    for line in page.body.lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next()) {
            (Some("#"), Some("TYPE")) => {
                let family = words.next().unwrap();
                assert!(
                    families.insert(family.to_owned()),
                    "{family} is declared twice"
                );
            }
            (Some("#"), _) => {}
            // A sample: name{labels} value, its family declared above.
            _ => {
                let name = line.split(['{', ' ']).next().unwrap();
                let is_declared = families
                    .iter()
                    .any(|family| name.starts_with(family.as_str()));
                assert!(is_declared, "no family of: {line}");
                let value = line.rsplit(' ').next().unwrap();
                assert!(value.parse::<f64>().is_ok(), "no number: {line}");
            }
        }
    }
    for sample in [
        "weir_storage_applied_total{storage=\"disk\"} 1",
        "weir_storage_applied_total{storage=\"cache\"} 0",
        "weir_storage_keys{storage=\"disk\"} 1",
        "weir_storage_up{storage=\"disk\"} 1",
    ] {
        assert!(
            page.body.lines().any(|line| line == sample),
            "no {sample} in\n{}",
            page.body
        );
    }
    let zenoh = families
        .iter()
        .filter(|family| family.starts_with("zenoh_"))
        .count();
    assert!(zenoh > 5, "{families:?}");
}
