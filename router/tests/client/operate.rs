//! What an operator sees and does: the status of routers that are not well, permissions, and imports
//! that meet what is there already.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rocksdb::{DB, Options};
use serde_json::{Value, json};

use crate::storages::{Stock, WeirRun, timestamp, write_stock};
use crate::support::{Answer, Ended, Router, interrupt, start, weir};
use crate::{DONE, ERROR, NOTHING};

const MEMORY: [&str; 2] = ["--durability", "memory"];

#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_by_its_exit_status_whether_every_router_is_ready() {
    let router = Router::start().await;
    let status = async || weir(&["status", "-e", &router.endpoint]).await;
    let nobody = status().await;
    assert_eq!(nobody.code, NOTHING, "{nobody:?}");
    assert_eq!(
        (nobody.out.as_str(), nobody.err.as_str()),
        ("", "no weir router answers\n")
    );

    let _one = router.answer("@weir/ab12/**", |query| {
        let (key, value) = match query.key_expr().as_str() {
            "@weir/*/status" => (
                "@weir/ab12/status",
                json!({
                    "router": "ab12", "version": "9.9", "ready": false, "down": ["demo"],
                    "opening": ["locked"],
                }),
            ),
            _ => (
                "@weir/ab12/storages/demo",
                json!({
                    "name": "demo", "state": "down", "keys": 7, "keys_exact": false,
                    "spooled_changes": 12, "last_error": { "message": "no space left" },
                }),
            ),
        };
        query.reply_value(key, &value.to_string());
    });
    let ended = status().await;
    assert_eq!((ended.code, ended.err.as_str()), (NOTHING, ""));
    for part in [
        "9.9",
        "demo",
        "~7",
        "12",
        "no space left",
        "locked is opening",
    ] {
        assert!(ended.out.contains(part), "no `{part}` in {}", ended.out);
    }

    let _other = router.answer("@weir/cd34/**", |query| {
        query.refuse("permissions.read is off")
    });
    let ended = status().await;
    assert_eq!(ended.code, ERROR);
    assert!(ended.err.contains("permissions.read is off"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_is_watched_until_interrupted() {
    let router = WeirRun::start(json!({
        "demo": { "key_expr": "demo/**", "volume": "memory" },
    }))
    .await;
    let line = ["status", "--watch=100ms", "--json", "-e", &router.endpoint];
    let mut child = start(&line);
    let mut out = tokio::io::BufReader::new(child.stdout.take().unwrap());
    for _ in 0..3 {
        let mut line = String::new();
        let read = tokio::io::AsyncBufReadExt::read_line(&mut out, &mut line);
        tokio::time::timeout(Duration::from_secs(60), read)
            .await
            .unwrap()
            .unwrap();
        let look: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(look["ready"], true, "{line}");
        assert_eq!(look["routers"][0]["storages"][0]["name"], "demo");
    }
    interrupt(&child).await;
    child.stdout = Some(out.into_inner());
    assert_eq!(Ended::of(child).await.code, DONE);

    let table = router.weir(&["status"]).await;
    assert_eq!((table.code, table.err.as_str()), (DONE, ""));
    assert!(table.out.starts_with("ROUTER"), "{}", table.out);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_permits_no_writing_keeps_what_was_set_aside() {
    let storages = json!({ "demo": { "key_expr": "demo/**", "volume": "memory" } });
    let router = WeirRun::start_with(storages, json!({ "read": true, "write": false })).await;
    let future = [
        "put",
        "demo/a",
        "5",
        "--ack",
        "--timestamp",
        "2100-01-01T00:00:00Z/ab",
    ];
    assert_eq!(router.weir(&future).await.code, DONE);
    for action in ["purge", "release"] {
        let refused = router.weir(&["storage", "parked", action, "demo"]).await;
        assert_eq!(refused.code, ERROR, "{refused:?}");
        assert!(
            refused.err.contains("adminspace.permissions.write is off")
                && refused.err.contains("--adminspace-permissions rw"),
            "{}",
            refused.err
        );
    }
    let kept = router.weir(&["storage", "parked", "list", "demo"]).await;
    assert!(kept.code == DONE && kept.out.contains("demo/a"), "{kept:?}");
    let empty = router
        .weir(&["storage", "quarantine", "list", "demo"])
        .await;
    assert!(
        empty.code == DONE && empty.out.is_empty() && empty.err.contains("nothing is set aside"),
        "{empty:?}"
    );
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_tells_what_became_of_each_value_and_leaves_the_directory_as_it_was() {
    let router = WeirRun::start(json!({
        "demo": { "key_expr": "fleet/**", "volume": "rocksdb", "strip_prefix": "fleet" },
        "all": { "key_expr": "fleet/**", "volume": "memory" },
    }))
    .await;
    let dir = router.dir.path().join("zenohd");
    let value = |time: u64, value| Stock {
        time: timestamp(time),
        value,
    };
    write_stock(
        &dir,
        [
            ("a", value(1, Some("1"))),
            ("b", value(2, Some("2"))),
            ("gone", value(3, None)),
            ("not//a/key", value(4, Some("4"))),
            ("every/*", value(5, Some("5"))),
        ],
    );
    let before = listing(&dir);
    // Newer than what is imported.
    let newer = [
        "put",
        "fleet/b",
        "new",
        "--ack",
        "--timestamp",
        "2026-01-01T00:00:00Z/cd",
    ];
    assert_eq!(router.weir(&newer).await.code, DONE);

    let dir_text = dir.to_str().unwrap();
    let import = ["storage", "import", "--from", "zenohd-rocksdb", dir_text];
    let import = async |more: &[&str]| router.weir(&[&import[..], more].concat()).await;
    let ended = import(&["--storage", "demo"]).await;
    assert_eq!(ended.code, ERROR, "two entries cannot be imported");
    for entry in ["not//a/key", "every/*"] {
        assert!(ended.err.contains(entry), "{}", ended.err);
    }
    let first = "2 imported, 0 already there, 1 outdated, 0 quarantined, 2 failed\n";
    assert_eq!(ended.out, first);
    // Into every storage on the keys: `all` cannot promise `written`.
    let refused = import(&["--prefix", "fleet"]).await;
    assert_eq!(refused.code, ERROR);
    assert!(
        refused.err.contains("`memory` at the most"),
        "{}",
        refused.err
    );
    for summary in [
        first,
        "0 imported, 2 already there, 1 outdated, 0 quarantined, 2 failed\n",
    ] {
        let ended = import(&[&["--prefix", "fleet"], &MEMORY[..]].concat()).await;
        assert_eq!((ended.code, ended.out.as_str()), (ERROR, summary));
    }

    let get = router.lines(&["get", "fleet/**"]).await;
    let held: BTreeMap<&str, &Value> = get
        .iter()
        .map(|sample| (sample["key"].as_str().unwrap(), &sample["value"]))
        .collect();
    assert_eq!(
        held,
        BTreeMap::from([("fleet/a", &json!(1)), ("fleet/b", &json!("new"))])
    );
    // The tombstone has its time: an older put does not bring the key back.
    let stale = [
        "put",
        "fleet/gone",
        "x",
        "--ack",
        "--timestamp",
        "2025-01-01T00:00:01Z/ab",
    ];
    for receipt in router.lines(&stale).await {
        assert_eq!(receipt["admission"], "outdated", "{receipt}");
    }
    assert_eq!(listing(&dir), before);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_zenohd_are_imported_with_their_timestamps() {
    let router = WeirRun::start(json!({
        "files": { "key_expr": "files/**", "volume": "memory" },
    }))
    .await;
    let dir = router.dir.path().join("zenohd-fs");
    std::fs::create_dir_all(dir.join("deep/er")).unwrap();
    std::fs::write(dir.join("deep/er/note.txt"), "hello").unwrap();
    {
        let mut options = Options::default();
        options.create_if_missing(true);
        let infos = DB::open(&options, dir.join(".zenoh_datainfo")).unwrap();
        // Time, id, encoding text/plain, no schema.
        let mut id = [0; 16];
        id[0] = 0xab;
        let rest: &[u8] = &[4, 0, 0];
        let info = [&timestamp(9).to_le_bytes()[..], &[16], &id, rest].concat();
        let path = dir.canonicalize().unwrap().join("deep/er/note.txt");
        infos.put(path.to_str().unwrap(), info).unwrap();
    }
    let before = listing(&dir);
    let line = [
        "storage",
        "import",
        "--from",
        "zenohd-filesystem",
        dir.to_str().unwrap(),
    ];
    let line = [&line[..], &["--prefix", "files"], &MEMORY].concat();
    let ended = router.weir(&line).await;
    let summary = "1 imported, 0 already there, 0 outdated, 0 quarantined, 0 failed\n";
    assert_eq!(
        (ended.code, ended.out.as_str(), ended.err.as_str()),
        (DONE, summary, "")
    );
    let samples = router.lines(&["get", "files/**"]).await;
    assert_eq!(samples[0]["key"], "files/deep/er/note.txt");
    assert_eq!(samples[0]["value"], "hello");
    assert_eq!(samples[0]["encoding"], "text/plain");
    assert_eq!(samples[0]["timestamp"], format!("{}/ab", timestamp(9)));
    assert_eq!(listing(&dir), before);
    router.stop().await;
}

/// Every file below a directory, with its bytes and when it was changed.
fn listing(dir: &Path) -> BTreeMap<String, (Vec<u8>, SystemTime)> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let changed = path.metadata().unwrap().modified().unwrap();
                let bytes = std::fs::read(&path).unwrap();
                files.insert(path.display().to_string(), (bytes, changed));
            }
        }
    }
    files
}
