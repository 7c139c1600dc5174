//! `weir run` without a configuration, its flags, its end, and the commands of a newcomer.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use serde_json::json;
use weir_e2e::{Router, http, line::Line, python::packed, weir, weir_with};

/// Embedded defaults, on addresses that nobody else has.
const DEFAULTS: [&str; 7] = [
    "-l",
    "$LISTEN",
    "--rest-http-port",
    "127.0.0.1:$REST",
    "--http-listen",
    "127.0.0.1:$HTTP",
    "--no-multicast-scouting",
];

fn start(more: &[&str]) -> Router {
    Router::start_flags(&[&DEFAULTS, more].concat())
}

#[test]
fn without_configuration_the_first_lines_say_what_runs_where() {
    let router = start(&[]);
    let lines: Vec<&str> = router.greeting.iter().map(|line| line.trim()).collect();
    let value = |name: &str| {
        let found = lines.iter().find_map(|line| line.strip_prefix(name));
        found
            .unwrap_or_else(|| panic!("no `{name}`: {lines:#?}"))
            .trim()
    };
    assert!(value("weir ").contains("(zenoh v1.10.2"), "{lines:#?}");
    assert!(u128::from_str_radix(value("id "), 16).is_ok(), "{lines:#?}");
    assert!(
        value("settings ").starts_with("embedded defaults"),
        "{lines:#?}"
    );
    assert_eq!(
        value("storage "),
        "default on **: rocksdb in ./weir-data/default"
    );
    assert_eq!(value("listening "), router.endpoint);
    assert_eq!(value("rest "), format!("http://127.0.0.1:{}", router.rest));
    assert_eq!(
        value("metrics "),
        format!("http://127.0.0.1:{}/metrics", router.http)
    );
    assert!(value("ready in ").ends_with(" ms"), "{lines:#?}");
    assert!(router.dir().join("weir-data/default").is_dir());
}

#[test]
fn rest_puts_gets_and_deletes_and_a_second_start_continues() {
    let mut router = start(&[]);
    let id = router.id().to_owned();
    assert_eq!(
        router
            .rest_put("demo/room/1", "application/json", r#"{"t": 21.5}"#)
            .status,
        200
    );
    assert_eq!(
        router.rest_put("demo/room/2", "text/plain", "warm").status,
        200
    );
    let values = |router: &Router| {
        let mut values: Vec<_> = router
            .rest_get("demo/**")
            .json()
            .as_array()
            .unwrap()
            .clone();
        values.sort_by_key(|entry| entry["key"].to_string());
        values
            .iter()
            .map(|entry| json!([entry["key"], entry["value"]]))
            .collect::<Vec<_>>()
    };
    let both = [
        json!(["demo/room/1", { "t": 21.5 }]),
        json!(["demo/room/2", "warm"]),
    ];
    weir_e2e::until("both are stored", || {
        let seen = values(&router);
        if seen == both {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    });
    router.term();
    router.restart();
    assert_eq!(values(&router), both);
    assert_eq!(router.rest_delete("demo/room/1").status, 200);
    weir_e2e::until("one is deleted", || {
        let seen = values(&router);
        if seen == both[1..] {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    });
    router.kill9();
    router.restart();
    assert_eq!(values(&router), both[1..]);
    assert_eq!(
        router.id(),
        id,
        "its settings say none, so it keeps its own"
    );
}

/// Zenoh tells what is declared to whoever is new when it computes its trees. With its own pause of 100 ms
/// between two computations, who is lost and back in one pause is not new (`.cargo/config.toml`).
#[test]
fn a_router_that_is_back_at_once_hears_again_what_others_declare() {
    let far = r#"storages: { far: { key_expr: "far/**", backend: "memory" } }"#;
    let first = Router::start_with(far);
    // A client that ends may not have sent what it put.
    let mut client = first.python();
    client.put("far/a", "1");
    first.wait_decided("far", 1);
    let line = Line::to(&first.endpoint);
    let connect = format!(
        r#"connect: {{ endpoints: ["{}"] }}, storages: {{}}"#,
        line.endpoint
    );
    let mut second = Router::start_with(&connect);
    let hears = |second: &Router| {
        weir_e2e::until("the far storage is heard of", || {
            match second.rest_value("far/a") {
                Some(_) => Ok(()),
                None => Err("no answer".to_owned()),
            }
        });
    };
    for _ in 0..4 {
        line.cut();
        line.mend();
        hears(&second);
        second.kill9();
        second.restart();
        hears(&second);
    }
}

#[test]
fn what_was_received_before_sigterm_is_stored() {
    const PUTS: usize = 20_000;
    let mut router = start(&[]);
    let mut client = router.python();
    let puts: Vec<_> = (0..PUTS)
        .map(|number| json!({ "key": format!("burst/{number:05}"), "value": packed("x") }))
        .collect();
    client.puts(&puts);
    // A query travels behind the puts: who is answered knows that they have arrived.
    let _ = client.get("burst/00000");
    router.term();
    router.restart();
    let answered = router
        .weir(&["get", "burst/**", "--format", "json"])
        .with_code(0)
        .json();
    assert_eq!(answered.len(), PUTS);
}

#[test]
fn a_newcomer_puts_gets_deletes_and_subscribes() {
    let router = start(&[]);
    let receipts = router
        .weir(&["put", "demo/hello", "world", "--ack"])
        .with_code(0)
        .json();
    assert_eq!(receipts[0]["admission"], "applied");
    assert_eq!(receipts[0]["durability"], "written");
    let synced = [
        "put",
        "demo/file",
        "-",
        "--durability",
        "synced",
        "-e",
        &router.endpoint,
    ];
    let receipts = weir_with(&synced, b"\x00from\nstdin\xff")
        .with_code(0)
        .json();
    assert_eq!(receipts[0]["durability"], "synced");

    assert_eq!(
        router
            .weir(&["get", "demo/hello", "--format", "raw"])
            .with_code(0)
            .out,
        b"world"
    );
    let raw = router
        .weir(&["get", "demo/file", "--format", "raw"])
        .with_code(0)
        .out;
    assert_eq!(raw, b"\x00from\nstdin\xff");
    let line = &router
        .weir(&["get", "demo/hello", "--format", "json"])
        .with_code(0)
        .json()[0];
    assert_eq!(
        (&line["key"], &line["value"]),
        (&json!("demo/hello"), &json!("world"))
    );
    assert_eq!(line["encoding"], "text/plain");
    let table = router
        .weir(&["get", "demo/**", "--format", "table"])
        .with_code(0);
    let table = String::from_utf8(table.out).unwrap();
    assert!(table.contains("KEY") && table.contains("world"), "{table}");

    let _ = router.weir(&["get", "demo/nothing"]).with_code(1);
    let _ = router.weir(&["get", "demo/**?_limit=x"]).with_code(2);
    let _ = router.weir(&["del", "demo/nothing", "--ack"]).with_code(1);
    let _ = router.weir(&["del", "demo/**", "--ack"]).with_code(0);
    let _ = router.weir(&["get", "demo/**"]).with_code(1);
    let nobody = weir(&["get", "demo/**", "-e", "tcp/127.0.0.1:1"]);
    assert_eq!(nobody.code, 2, "{nobody:?}");
}

#[test]
fn the_flags_of_zenohd_work() {
    let hub = start(&["-i", "ab12"]);
    assert_eq!(hub.id(), "ab12");
    let router = start(&[
        "-i",
        "cd34",
        "-e",
        &hub.endpoint,
        "-P",
        "storage_manager",
        "-P",
        "webserver:/usr/lib/libzenoh_plugin_webserver.so",
        "--plugin-search-dir",
        "/usr/lib",
        "--adminspace-permissions",
        "r",
        "--no-timestamp",
        "--cfg",
        "storages/mine:{key_expr: 'mine/**', backend: 'memory'}",
    ]);
    let log = weir_e2e::until("it warns", || {
        let log = router.log();
        if log.contains("plugin-search-dir") {
            Ok(log)
        } else {
            Err(log)
        }
    });
    assert!(log.contains("storage_manager is built in"), "{log}");
    assert!(
        log.contains("webserver:/usr/lib/libzenoh_plugin_webserver.so: not loaded"),
        "{log}"
    );
    // --cfg names the storages, so that there is no default one.
    let storages: Vec<_> = router
        .greeting
        .iter()
        .filter(|line| line.contains("storage "))
        .collect();
    assert_eq!(storages.len(), 1, "{storages:?}");
    assert!(
        storages[0].contains("mine on mine/**: memory"),
        "{storages:?}"
    );
    // -e: what one is given, the other answers.
    weir_e2e::until("the two are connected", || {
        router.rest_put("mine/a", "text/plain", "1");
        match hub.rest_value("mine/a") {
            Some(value) if value == "1" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    // Not stamped by Zenoh, since --no-timestamp; stamped by the storage all the same.
    let put = &router.weir(&["get", "mine/a"]).with_code(0).json()[0];
    assert!(put["timestamp"].as_str().is_some(), "{put}");
    // Reading the admin space is permitted, writing is not.
    let id = router.id();
    let key = format!("@/{id}/router/config/plugins/storage_manager/storages/more");
    assert_eq!(router.rest_get(&format!("@/{id}/router")).status, 200);
    router.rest_put(
        &key,
        "application/json",
        r#"{"key_expr": "more/**", "volume": "memory"}"#,
    );
    let purge = router.rest_get(&format!("@weir/{id}/storages/mine/parked?_purge"));
    assert!(
        purge.body.contains("adminspace.permissions.write is off"),
        "{purge:?}"
    );
    assert!(router.storage("more").is_none());
}

#[test]
fn a_configuration_with_mistakes_does_not_start_and_shows_them_all() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("weir.json5");
    let text = "{\n  storages: {\n    a: { key_expr: \"a//b\", volum: \"memory\" },\n    \
                b: { key_expr: \"b/**\", backend: \"rocksbd\" },\n  },\n  lisen: {},\n}\n";
    std::fs::write(&file, text).unwrap();
    for command in ["run", "check"] {
        let ended = weir(&[command, "-c", &file.display().to_string()]).with_code(2);
        let said = format!("{}{}", String::from_utf8_lossy(&ended.out), ended.err);
        for part in [
            "weir.json5:3:",
            "weir.json5:4:",
            "weir.json5:6:",
            "`volume`",
            "`rocksdb`",
            "^",
        ] {
            assert!(said.contains(part), "{command}: no {part} in\n{said}");
        }
    }
}

#[test]
fn an_address_that_is_taken_is_an_error_that_names_it() {
    let router = start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data").display().to_string();
    let http = format!("127.0.0.1:{}", router.http);
    let run = |flags: &[&str]| {
        let common = [
            "run",
            "--no-multicast-scouting",
            "--data-dir",
            &data,
            "--rest-http-port",
            "none",
        ];
        weir(&[&common, flags].concat()).with_code(2).err
    };
    let err = run(&["-l", &router.endpoint, "--http-listen", "none"]);
    assert!(err.contains(&router.endpoint), "{err}");
    let err = run(&["-l", "tcp/127.0.0.1:0", "--http-listen", &http]);
    assert!(err.contains(&http) && err.contains("http.listen"), "{err}");
    assert_eq!(http::get(router.http, "/livez").body, "ok\n");
}
