//! The three forms of configuration, from real files, in routers that store and answer.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use weir_e2e::Router;

/// Flags for a file that says nothing of addresses: the handbook's.
const ADDRESSES: [&str; 7] = [
    "-l",
    "$LISTEN",
    "--no-multicast-scouting",
    "--rest-http-port",
    "127.0.0.1:$REST",
    "--data-dir",
    "$DIR/data",
];

/// Puts on each key, gets it back, also after a restart where it is to survive one.
fn check(router: &mut Router, keys: &[(&str, bool)]) {
    let mut client = router.python();
    for (key, _) in keys {
        client.put(key, "here");
        client.wait_values(key, &[&format!("{key}=here")]);
    }
    drop(client);
    router.term();
    router.restart();
    let mut client = router.python();
    for (key, survives) in keys {
        let expected: &[&str] = if *survives {
            &[&format!("{key}=here")]
        } else {
            &[]
        };
        assert_eq!(client.values(key), expected, "{key} after a restart");
    }
}

#[test]
fn ours_in_four_languages() {
    let json5 = r#"{
      // Zenoh's own settings stand at the top, as in zenohd's file.
      listen: { endpoints: ["$LISTEN"] },
      scouting: { multicast: { enabled: false } },
      data_dir: "$DIR/data",
      volumes: { disk: { backend: "rocksdb", dir: "$DIR/disk" } },
      storages: {
        telemetry: { key_expr: "telemetry/**", volume: "disk", history: "all", durability: "synced" },
        files: { key_exprs: ["files/**", "more/*"], exclude: "files/tmp/**", backend: "fs" },
        cache: { key_expr: "cache/**", backend: "memory" },
      },
    }"#;
    let json = r#"{
      "listen": { "endpoints": ["$LISTEN"] },
      "scouting": { "multicast": { "enabled": false } },
      "data_dir": "$DIR/data",
      "volumes": { "disk": { "backend": "rocksdb", "dir": "$DIR/disk" } },
      "storages": {
        "telemetry": { "key_expr": "telemetry/**", "volume": "disk", "history": "all" },
        "files": { "key_expr": ["files/**", "more/*"], "exclude": ["files/tmp/**"], "backend": "fs" },
        "cache": { "key_expr": "cache/**", "backend": "memory" }
      }
    }"#;
    let yaml = r#"
listen: { endpoints: ["$LISTEN"] }
scouting: { multicast: { enabled: false } }
data_dir: $DIR/data
volumes:
  disk: { backend: rocksdb, dir: $DIR/disk }
storages:
  telemetry: { key_expr: "telemetry/**", volume: disk, history: all }
  files:
    key_expr: ["files/**", "more/*"]
    exclude: ["files/tmp/**"]
    backend: fs
  cache: { key_expr: "cache/**", backend: memory }
"#;
    let toml = r#"
data_dir = "$DIR/data"
[listen]
endpoints = ["$LISTEN"]
[scouting.multicast]
enabled = false
[volumes.disk]
backend = "rocksdb"
dir = "$DIR/disk"
[storages.telemetry]
key_expr = "telemetry/**"
volume = "disk"
history = "all"
[storages.files]
key_expr = ["files/**", "more/*"]
exclude = ["files/tmp/**"]
backend = "fs"
[storages.cache]
key_expr = "cache/**"
backend = "memory"
"#;
    for (name, text) in [
        ("weir.json5", json5),
        ("weir.json", json),
        ("weir.yaml", yaml),
        ("weir.toml", toml),
    ] {
        let mut router = Router::start_file(name, text, &[]);
        let keys = [
            ("telemetry/a/b", true),
            ("files/a", true),
            ("more/x", true),
            ("cache/a", false),
        ];
        check(&mut router, &keys);
        assert!(router.dir().join("disk/telemetry").is_dir(), "{name}");
        // What a storage excludes, and what none has, is stored nowhere.
        let mut client = router.python();
        for key in ["files/tmp/a", "other/a"] {
            client.put(key, "lost");
        }
        client.put("files/z", "last");
        client.wait_values("files/z", &["files/z=last"]);
        assert_eq!(client.values("files/tmp/*"), [""; 0], "{name}");
        assert_eq!(client.values("other/*"), [""; 0], "{name}");
    }
}

#[test]
fn the_handbook_as_written() {
    // As it stands there, but for the directories.
    let text = r#"{
storages: {
  seoul_rocks_backup_node: { key_expr: "global/telemetry/**", backend: "rocksdb", dir: "$DIR/seoul_rocks_zone" },
  // a shard
  shard_volume_2_rack: { key_expr: "fleet/drone/[4-6]**", backend: "rocksdb", dir: "$DIR/shard2_huge_mount" },
}
}"#;
    let mut router = Router::start_file("handbook.json5", text, &ADDRESSES);
    let keys = [
        ("global/telemetry/seoul/temperature", true),
        ("fleet/drone/5500/video", true),
        ("fleet/drone/4", true),
    ];
    check(&mut router, &keys);
    for dir in ["seoul_rocks_zone", "shard2_huge_mount"] {
        assert!(
            router.dir().join(dir).join("CURRENT").is_file(),
            "{dir} holds a database"
        );
    }
    let mut client = router.python();
    client.put("fleet/drone/7700/video", "another shard's");
    client.put("fleet/drone/6600/video", "ours");
    client.wait_values("fleet/drone/6600/video", &["fleet/drone/6600/video=ours"]);
    assert_eq!(client.values("fleet/drone/7700/**"), [""; 0]);
}

#[test]
fn an_existing_zenohd_file() {
    let text = r#"{
  mode: "router",
  listen: { endpoints: ["$LISTEN"] },
  scouting: { multicast: { enabled: false } },
  adminspace: { enabled: true, permissions: { read: true, write: true } },
  plugins: {
    rest: { __required__: true, http_port: $REST },
    storage_manager: {
      __required__: true,
      backend_search_dirs: ["/usr/lib"],
      volumes: {
        rocksdb: {},
        files: {
          backend: "fs",
          __path__: ["./libzenoh_backend_fs.so"],
          private: { token: "hidden" },
        },
      },
      storages: {
        demo: { key_expr: "demo/memory/**", volume: "memory" },
        demo2: {
          key_expr: "demo/rocksdb/**",
          strip_prefix: "demo/rocksdb",
          complete: "true",
          volume: { id: "rocksdb", dir: "demo2", create_db: true, on_closure: "do_nothing" },
          garbage_collection: { period: 10, lifespan: 3600 },
          replication: { interval: 10, sub_intervals: 5, hot: 6, warm: 30, propagation_delay: 250 },
        },
        demo3: {
          key_expr: "demo/fs/**",
          strip_prefix: "demo/fs",
          volume: { id: "files", dir: "demo3" },
        },
      },
    },
  },
}"#;
    let roots = [
        ("ZENOH_BACKEND_ROCKSDB_ROOT", "$DIR/rocks"),
        ("ZENOH_BACKEND_FS_ROOT", "$DIR/fs"),
    ];
    let mut router =
        Router::start_variables("zenohd.json5", text, &["--data-dir", "$DIR/data"], &roots);
    let keys = [
        ("demo/memory/a", false),
        ("demo/rocksdb/a/b", true),
        // The prefix itself is a key too.
        ("demo/rocksdb", true),
        ("demo/fs/a/b", true),
    ];
    check(&mut router, &keys);
    assert!(router.dir().join("rocks/demo2/CURRENT").is_file());
    assert_eq!(
        std::fs::read(router.dir().join("fs/demo3/a/b")).unwrap(),
        b"here"
    );
    // REST is where the file says, on every address.
    assert_eq!(router.rest_value("demo/rocksdb/a/b").unwrap(), "aGVyZQ==");
    let said = router.log();
    assert!(
        said.contains("replication"),
        "it warns of what has no effect: {said}"
    );
    assert!(!said.contains("hidden"), "{said}");
}
