//! The commands about storages, against `weir run` itself.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rocksdb::{ColumnFamilyDescriptor, DB, Options};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout};

use crate::support::{Ended, free_port, start_with, terminate, weir};
use crate::{DONE, ERROR, NOTHING};

/// A `weir run` of its own, with a directory that goes with it.
pub struct WeirRun {
    child: Child,
    out: BufReader<ChildStdout>,
    pub endpoint: String,
    pub dir: tempfile::TempDir,
}

impl WeirRun {
    /// Starts with these storages and waits until it is ready.
    pub async fn start(storages: Value) -> Self {
        Self::start_with(storages, json!({ "read": true, "write": true })).await
    }

    /// Starts with these permissions on its admin space.
    pub async fn start_with(storages: Value, permissions: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = format!("tcp/127.0.0.1:{}", free_port());
        let config = json!({
            "listen": { "endpoints": [endpoint] },
            "scouting": { "multicast": { "enabled": false } },
            "adminspace": { "permissions": permissions },
            "data_dir": dir.path().join("data"),
            "storages": storages,
        });
        let file = dir.path().join("weir.json5");
        std::fs::write(&file, config.to_string()).unwrap();
        let args = ["run", "-c", file.to_str().unwrap(), "--log", "warn"];
        let mut child = start_with(&args, Stdio::inherit());
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        while !said.contains("ready in") {
            let read = tokio::time::timeout(Duration::from_secs(60), out.read_line(&mut said));
            let bytes = read.await.expect("the router does not get ready").unwrap();
            assert!(bytes > 0, "the router ended: {said}");
        }
        Self {
            child,
            out,
            endpoint,
            dir,
        }
    }

    /// Runs a client command.
    pub async fn weir(&self, args: &[&str]) -> Ended {
        weir(&[args, &["-e", &self.endpoint]].concat()).await
    }

    /// Runs a client command and reads the JSON lines that it prints.
    pub async fn lines(&self, args: &[&str]) -> Vec<Value> {
        let ended = self.weir(args).await;
        assert_eq!(
            (ended.code, ended.err.as_str()),
            (DONE, ""),
            "{args:?}: {}",
            ended.out
        );
        ended
            .out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    pub async fn stop(mut self) {
        terminate(&self.child).await;
        self.child.stdout = Some(self.out.into_inner());
        assert_eq!(Ended::of(self.child).await.code, DONE);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_comes_back_and_shows_in_the_status() {
    let router = WeirRun::start(json!({
        "demo": { "key_expr": "demo/**", "volume": "memory" },
        "disk": { "key_expr": "disk/**", "volume": "rocksdb", "strip_prefix": "disk" },
    }))
    .await;
    let ended = router.weir(&["put", "demo/a", "21.5"]).await;
    assert_eq!(ended, Ended::quietly(DONE));
    let receipts = router
        .lines(&["put", "disk/b", "7", "--durability", "synced"])
        .await;
    let words = [
        ("storage", "disk"),
        ("admission", "applied"),
        ("durability", "synced"),
    ];
    for (field, expected) in words {
        assert_eq!(receipts[0][field], expected, "{receipts:?}");
    }
    let mut samples = router.lines(&["get", "**"]).await;
    samples.sort_by_key(|sample| sample["key"].to_string());
    let values: Vec<&Value> = samples.iter().map(|sample| &sample["value"]).collect();
    assert_eq!(values, ["21.5", "7"]);
    assert_eq!(samples[1]["timestamp"], receipts[0]["timestamp"]);

    let status = router.lines(&["status", "--json"]).await;
    assert_eq!(status.len(), 1);
    assert_eq!(status[0]["routers"][0]["ready"], true);
    let storages = router.lines(&["storage", "ls", "--json"]).await;
    let names: Vec<&Value> = storages
        .iter()
        .map(|line| &line["storage"]["name"])
        .collect();
    assert_eq!(names, ["demo", "disk"]);
    assert_eq!(storages[0]["storage"]["keys"], 1);

    let table = router.weir(&["storage", "ls"]).await;
    assert!(
        table.code == DONE && table.out.starts_with("STORAGE"),
        "{table:?}"
    );
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_refuses_what_it_cannot_promise() {
    let router =
        WeirRun::start(json!({ "demo": { "key_expr": "demo/**", "volume": "memory" } })).await;
    let ended = router
        .weir(&["put", "demo/a", "1", "--durability", "synced"])
        .await;
    assert_eq!((ended.code, ended.out.as_str()), (ERROR, ""));
    assert!(
        ended.err.contains("durability can be `memory` at the most"),
        "{}",
        ended.err
    );
    assert_eq!(router.weir(&["get", "demo/a"]).await.code, NOTHING);
    assert_eq!(
        router.weir(&["put", "other/a", "1", "--ack"]).await.code,
        NOTHING
    );
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_from_the_future_is_listed_and_decided_on() {
    let router =
        WeirRun::start(json!({ "demo": { "key_expr": "demo/**", "volume": "memory" } })).await;
    for key in ["demo/a", "demo/b"] {
        let put = [
            "put",
            key,
            "5",
            "--ack",
            "--timestamp",
            "2100-01-01T00:00:00Z/ab",
        ];
        assert_eq!(router.lines(&put).await[0]["admission"], "parked");
    }
    let parked = async || {
        let lines = router
            .lines(&["storage", "parked", "list", "demo", "--json"])
            .await;
        lines[0]["parked"]["changes"].as_array().unwrap().len()
    };
    assert_eq!(parked().await, 2);
    let table = router.weir(&["storage", "parked", "list", "demo"]).await;
    assert!(
        table.out.contains("demo/a") && table.out.contains("demo/b"),
        "{}",
        table.out
    );

    let released = router.weir(&["storage", "parked", "release", "demo"]).await;
    assert!(
        released.code == DONE && released.out.contains("released 2"),
        "{released:?}"
    );
    assert_eq!(parked().await, 0);
    assert_eq!(router.lines(&["get", "demo/*"]).await.len(), 2);

    let nobody = router
        .weir(&["storage", "quarantine", "purge", "other"])
        .await;
    assert_eq!(
        (nobody.code, nobody.err.as_str()),
        (NOTHING, "there is no storage other\n")
    );
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_zenohd_stored_is_imported_once_with_its_timestamps() {
    let router = WeirRun::start(json!({
        "archive": { "key_expr": "old/**", "volume": "memory", "strip_prefix": "old" },
        "everything": { "key_expr": "**", "volume": "memory" },
    }))
    .await;
    let dir = router.dir.path().join("zenohd");
    let value = |n: u64| Stock {
        time: timestamp(n),
        value: Some(format!("{{\"n\":{n}}}")),
    };
    let entries = (0..2_000).map(|n| (format!("key/{n}"), value(n)));
    let root = ("@@none_key@@".to_owned(), value(2_000));
    write_stock(&dir, entries.chain([root]));
    let dir = dir.to_str().unwrap();
    let import = [
        "storage",
        "import",
        dir,
        "--from",
        "zenohd-rocksdb",
        "--into",
        "archive",
    ];
    let import = [&import[..], &["--durability", "memory"]].concat();
    let first = router.weir(&import).await;
    assert_eq!((first.code, first.err.as_str()), (DONE, ""), "{first:?}");
    assert_eq!(
        first.out,
        "2001 imported, 0 already there, 0 outdated, 0 quarantined, 0 failed\n"
    );

    let samples = router.lines(&["get", "old/**", "--all"]).await;
    assert_eq!(
        samples.len(),
        2_001,
        "and the storage `everything` took nothing"
    );
    let one = samples
        .iter()
        .find(|sample| sample["key"] == "old/key/7")
        .unwrap();
    assert_eq!(one["value"], json!({ "n": 7 }));
    assert_eq!(one["encoding"], "application/json");
    assert_eq!(one["timestamp"], format!("{}/ab", timestamp(7)));
    assert!(
        samples.iter().any(|sample| sample["key"] == "old"),
        "the root key"
    );

    let again = router.weir(&import).await;
    assert_eq!(
        (again.code, again.out.as_str()),
        (
            DONE,
            "0 imported, 2001 already there, 0 outdated, 0 quarantined, 0 failed\n"
        )
    );

    let elsewhere = [&import[..6], &["nowhere"]].concat();
    let elsewhere = router.weir(&elsewhere).await;
    assert!(
        elsewhere.code == ERROR && elsewhere.err.contains("nowhere"),
        "{elsewhere:?}"
    );
    let missing = [
        "storage",
        "import",
        "/nonexistent",
        "--from",
        "zenohd-filesystem",
    ];
    let missing = router
        .weir(&[&missing[..], &["--into", "archive"]].concat())
        .await;
    assert!(
        missing.code == ERROR && missing.err.contains("/nonexistent"),
        "{missing:?}"
    );
    router.stop().await;
}

/// NTP64 of the n-th value: seconds after the start of 2025.
pub fn timestamp(n: u64) -> u64 {
    (1_735_689_600 + n) << 32
}

/// What zenohd's RocksDB backend holds on a key.
pub struct Stock<V> {
    /// NTP64.
    pub time: u64,
    /// JSON; absent if it was deleted.
    pub value: Option<V>,
}

/// Writes what zenohd's RocksDB backend writes: payloads in the default column family, and in
/// `data_info` time, id, whether deleted, encoding, schema, as zenoh-ext serialises them.
pub fn write_stock<N: AsRef<[u8]>, V: AsRef<[u8]>>(
    dir: &Path,
    entries: impl IntoIterator<Item = (N, Stock<V>)>,
) {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    let families = ["default", "data_info"]
        .map(|family| ColumnFamilyDescriptor::new(family, Options::default()));
    let db = DB::open_cf_descriptors(&options, dir, families).unwrap();
    let infos = db.cf_handle("data_info").unwrap();
    let mut id = [0; 16];
    id[0] = 0xab;
    for (name, stock) in entries {
        // 5 is Zenoh's id of application/json.
        let rest = [u8::from(stock.value.is_none()), 5, 0, 0];
        let info = [&stock.time.to_le_bytes()[..], &[16], &id, &rest].concat();
        if let Some(value) = stock.value {
            db.put(&name, value).unwrap();
        }
        db.put_cf(&infos, &name, info).unwrap();
    }
}
