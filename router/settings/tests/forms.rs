//! The three forms and the four languages, from real files, as they come out.

#![allow(clippy::unwrap_used, reason = "tests")]

mod golden;

use serde_json::json;
use std::path::Path;
use std::time::Duration;
use weir_settings::{
    Backend, Budget, Defaults, Durability, Flag, Form, ForwardSettings, History, InfluxVersion,
    JournalSync, Layers, Loaded, MirrorSettings, OnClosure, OnFull, Order, Origin, Peers,
    PolicyLimits, Settings, Signatures, StorageSettings, Timestamps, load, parse_storage,
    parse_volume, schema, show,
};

fn layers(files: &[&str]) -> Layers {
    Layers {
        files: files
            .iter()
            .map(|name| format!("tests/files/good/{name}").into())
            .collect(),
        env: vec![("HOME".into(), "/home/op".into())],
        ..Layers::default()
    }
}

fn good(layers: &Layers) -> (Settings, Loaded) {
    let loaded = load(layers);
    let settings = loaded.settings.clone();
    (
        settings.unwrap_or_else(|| panic!("{}", loaded.sources.render(&loaded.diagnostics, false))),
        loaded,
    )
}

fn env(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn shows_what_is_in_force_and_where_it_was_written() {
    for name in [
        "ours.json5",
        "handbook.json5",
        "zenohd.json5",
        "included.json5",
        "ours.yaml",
        "ours.toml",
        "ours.json",
        "policies.json5",
        "mirrors.json5",
        "forward.json5",
        "forward.yaml",
        "forward.toml",
        "influxdb.json5",
        "influxdb_zenohd.json5",
    ] {
        let (_, loaded) = good(&layers(&[name]));
        golden::check(&format!("good/{name}.show"), &show(&loaded, true));
    }
}

#[test]
fn what_is_shown_reads_back_as_the_same() {
    for name in [
        "ours.json5",
        "handbook.json5",
        "ours.yaml",
        "ours.toml",
        "ours.json",
        "policies.json5",
        "mirrors.json5",
        "forward.json5",
    ] {
        let (settings, loaded) = good(&layers(&[name]));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("shown.json5");
        std::fs::write(&file, show(&loaded, false)).unwrap();
        let (again, _) = good(&Layers {
            files: vec![file],
            ..layers(&[])
        });
        assert_eq!(again.effective, settings.effective, "{name}");
    }
}

#[test]
fn a_storage_is_mirrored_unless_it_says_otherwise() {
    let (settings, loaded) = good(&layers(&["mirrors.json5"]));
    assert_eq!(loaded.diagnostics, []);
    let mirror = |name: &str| settings.storages[name].mirror.clone();
    assert_eq!(mirror("open"), Some(MirrorSettings::default()));
    assert_eq!(mirror("alone"), None);
    let narrow = mirror("narrow").unwrap();
    let named =
        |names: &[&str]| Peers::Named(names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(narrow.from, named(&["seoul", "5a1f/telemetry"]));
    assert_eq!(narrow.to, named(&[]));
    assert_eq!(narrow.period, Duration::from_secs(30));
    assert_eq!(narrow.timeout, Duration::from_millis(2_500));
}

#[test]
fn a_key_expression_alone_is_a_link() {
    let (settings, loaded) = good(&layers(&["forward.json5"]));
    assert_eq!(loaded.diagnostics, []);
    let plain = &settings.forward["plain"];
    let keys = plain.keys.clone();
    assert_eq!(keys.patterns[0].as_str(), "telemetry/**");
    let expected = ForwardSettings {
        name: "plain".into(),
        keys,
        to: Peers::All,
        dir: "/var/lib/weir/forward/plain".into(),
        budget: Budget {
            bytes: 8 << 30,
            age: None,
        },
        on_full: OnFull::DropOldest,
        lanes: Vec::new(),
        order: Order::OldestFirst,
        rate: None,
        sync: JournalSync::Within(Duration::from_millis(10)),
        period: Duration::from_secs(2),
        timeout: Duration::from_secs(5),
        keep: Duration::from_secs(600),
        prioritize: None,
    };
    assert_eq!(*plain, expected);
    // Nothing else is said of policies, and `cloud` names one.
    assert_eq!(settings.policies.unwrap().dir, Path::new("./policies"));

    // A later layer adds to it; both say where they were written.
    let mut more = layers(&["forward.json5"]);
    more.env = vec![env("WEIR_FORWARD__plain__RATE", "1MiB")];
    more.flags = vec![Flag::cfg("forward/more:['a/**', 'b/**']").unwrap()];
    let (settings, loaded) = good(&more);
    assert_eq!(settings.forward["plain"].rate, Some(1 << 20));
    assert_eq!(settings.forward["more"].keys.patterns.len(), 2);
    let origin = |path: &str| loaded.sources.origin(path).to_string();
    let file = "tests/files/good/forward.json5:5";
    assert_eq!(origin("forward/plain/key_expr"), file);
    assert_eq!(origin("forward/plain/rate"), "WEIR_FORWARD__plain__RATE");
    assert_eq!(origin("forward/more/key_expr"), "--cfg");
    assert_eq!(origin("forward/more/rate"), "default");
}

#[test]
fn reads_every_setting_of_a_link_in_every_language() {
    for name in ["forward.json5", "forward.yaml", "forward.toml"] {
        let (settings, loaded) = good(&layers(&[name]));
        assert_eq!(loaded.diagnostics, [], "{name}");
        let cloud = &settings.forward["cloud"];
        assert_eq!(cloud.keys.patterns.len(), 2);
        assert_eq!(cloud.keys.exclude[0].as_str(), "vehicle/42/debug/**");
        let to = ["5a1f", "seoul/telemetry"].map(str::to_owned);
        assert_eq!(cloud.to, Peers::Named(to.into()));
        assert_eq!(cloud.dir, Path::new("/mnt/ssd/outbox"));
        let age = Some(Duration::from_secs(3 * 86_400));
        let bytes = 64 << 30;
        assert_eq!(cloud.budget, Budget { bytes, age });
        assert_eq!(cloud.on_full, OnFull::DropLowestLane);
        assert_eq!(cloud.order, Order::NewestFirst);
        assert_eq!(cloud.rate, Some(2 << 20));
        assert_eq!(cloud.sync, JournalSync::Always);
        assert_eq!(cloud.period, Duration::from_millis(500));
        assert_eq!(cloud.timeout, Duration::from_millis(2_500));
        assert_eq!(cloud.keep, Duration::from_secs(3_600));
        assert_eq!(cloud.prioritize.as_deref(), Some("alarms-first"));
        let lanes: Vec<_> = cloud.lanes.iter().collect();
        let lane = |n: usize| (lanes[n].lane, lanes[n].expires, lanes[n].newest_only);
        assert_eq!(lane(0), (Some(0), None, false));
        assert_eq!(lane(1), (Some(6), Some(Duration::from_secs(60)), true));
        assert_eq!(lane(2), (None, None, true));
        assert_eq!(lanes[0].keys.patterns.len(), 2);
    }
}

#[test]
fn reads_every_setting_of_a_storage() {
    let (settings, loaded) = good(&layers(&["ours.json5"]));
    assert_eq!(loaded.diagnostics, []);
    let StorageSettings {
        keys,
        history,
        durability,
        timestamps,
        future_drift,
        retain,
        garbage_collection,
        queue_changes,
        spool,
        shards,
        ..
    } = &settings.storages["telemetry"];
    assert_eq!(keys.patterns.len(), 2);
    assert_eq!(keys.exclude[0].as_str(), "vehicle/*/telemetry/debug/**");
    assert_eq!((*history, *durability), (History::All, Durability::Synced));
    assert_eq!(*timestamps, Timestamps::Reject);
    assert_eq!(*future_drift, Duration::from_millis(250));
    assert_eq!(retain.age, Some(Duration::from_secs(7 * 86_400)));
    assert_eq!(
        (retain.bytes, retain.versions),
        (Some(10 << 30), Some(1000))
    );
    assert_eq!(garbage_collection.period, Duration::from_secs(60));
    assert_eq!(garbage_collection.lifespan, Duration::from_secs(172_800));
    assert_eq!((*queue_changes, spool.bytes_max), (1024, 512_000_000));
    assert_eq!(
        shards[0].dir.as_deref(),
        Some(Path::new("/mnt/nvme/telemetry"))
    );

    let maps = &settings.storages["maps"];
    assert_eq!(maps.strip_prefix.as_ref().unwrap().as_str(), "maps");
    assert!(maps.complete && maps.read_only && !maps.shards[0].keep_mime_types);
    assert_eq!(
        maps.shards[0].dir.as_deref(),
        Some(Path::new("/var/lib/weir/archive/maps"))
    );

    let drones = &settings.storages["drones"];
    let dirs: Vec<_> = drones
        .shards
        .iter()
        .map(|shard| shard.dir.clone())
        .collect();
    let expected = [Some("/mnt/nvme/drones"), Some("/mnt/hdd/drones"), None];
    assert_eq!(dirs, expected.map(|dir| dir.map(Into::into)));
    assert_eq!((drones.shards[0].weight, drones.shard_by), (3, Some(2)));

    assert_eq!(settings.http.unwrap().listen.to_string(), "127.0.0.1:9001");
    assert_eq!(
        settings.zenoh,
        json!({
            "mode": "router",
            "listen": { "endpoints": ["tcp/127.0.0.1:7447"] },
            "adminspace": { "enabled": true, "permissions": { "read": true, "write": true } },
            "plugins": { "rest": { "http_port": 8000 } },
        })
    );
}

#[test]
fn has_a_schema() {
    let schema = serde_json::to_string_pretty(&schema()).unwrap();
    golden::check("schema.json", &schema);
}

#[test]
fn runs_the_handbook_as_written() {
    let (settings, loaded) = good(&layers(&["handbook.json5"]));
    assert_eq!(loaded.diagnostics, []);
    let shard = &settings.storages["shard_volume_2_rack"];
    let declared: Vec<_> = shard
        .keys
        .declared()
        .iter()
        .map(|ke| ke.to_string())
        .collect();
    assert_eq!(
        declared,
        [
            "fleet/drone/4$*/**",
            "fleet/drone/5$*/**",
            "fleet/drone/6$*/**"
        ]
    );
    assert_eq!(shard.shards[0].backend, Backend::RocksDb);
    assert_eq!(
        shard.shards[0].dir.as_deref(),
        Some(Path::new("/data/shard2_huge_mount"))
    );
    assert!(shard.shards[0].create_db);
    assert_eq!((settings.zenoh, settings.http), (json!({}), None));
}

#[test]
fn the_examples_are_sound() {
    let examples = std::fs::read_dir("../../examples").unwrap();
    let folders = examples.map(|folder| folder.unwrap().path());
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let files = files.map(|file| file.unwrap().path());
    let files: Vec<_> = files
        .filter(|file| file.extension().is_some_and(|ending| ending == "json5"))
        .collect();
    assert!(files.len() >= 7, "{files:?}");
    for file in files {
        let (_, loaded) = good(&Layers {
            files: vec![file],
            ..layers(&[])
        });
        assert_eq!(loaded.diagnostics, []);
    }
}

#[test]
fn reads_zenohd_files_by_their_own_rules() {
    let (settings, loaded) = good(&layers(&["zenohd.json5"]));
    golden::check(
        "good/zenohd.json5.warnings",
        &loaded.sources.render(&loaded.diagnostics, false),
    );
    let demo2 = &settings.storages["demo2"];
    let place = |home: &str, rest: &str| Some(format!("{home}/{rest}").into());
    assert_eq!(
        demo2.shards[0].dir,
        place("/home/op/.zenoh/zenoh_backend_rocksdb", "demo2")
    );
    assert!(demo2.complete && demo2.shards[0].create_db);
    assert_eq!(demo2.on_closure, OnClosure::Destroy);
    assert_eq!(demo2.garbage_collection.lifespan, Duration::from_secs(3600));
    let demo3 = &settings.storages["demo3"];
    assert_eq!(
        demo3.shards[0].dir,
        place("/home/op/.zenoh/zenoh_backend_fs", "demo3")
    );
    assert!(demo3.read_only && demo3.shards[0].create_db);
    let demo4 = &settings.storages["demo4"];
    assert_eq!(demo4.shards[0].dir.as_deref(), Some(Path::new("/srv/old")));
    assert!(!demo4.shards[0].create_db);
    assert!(settings.zenoh["plugins"].get("storage_manager").is_none());
    assert!(!show(&loaded, true).contains("hidden"));

    let mut moved = layers(&["zenohd.json5"]);
    moved.env = vec![
        env("ZENOH_BACKEND_ROCKSDB_ROOT", "/rocks"),
        env("ZENOH_HOME", "/zenoh"),
    ];
    let (settings, _) = good(&moved);
    assert_eq!(
        settings.storages["demo2"].shards[0].dir,
        place("/rocks", "demo2")
    );
    assert_eq!(
        settings.storages["demo3"].shards[0].dir,
        place("/zenoh/zenoh_backend_fs", "demo3")
    );
}

#[test]
fn later_layers_win() {
    let mut all = layers(&["zenohd.json5", "ours.yaml"]);
    all.env.extend([
        env("WEIR_STORAGES__demo__HISTORY", "all"),
        env("WEIR_STORAGES__telemetry__RETAIN", "{age: '2d', bytes: 1}"),
        env("WEIR_ID", "1234"),
        env("WEIR_DATA_DIR", "/from/env"),
        env("WEIR_PORT_7447_TCP", "tcp://10.0.0.1:7447"),
        env("WEIR_LOG", "debug"),
    ]);
    all.flags = vec![
        Flag::new(
            "rest/http_port",
            json!("127.0.0.1:9000"),
            "--rest-http-port 127.0.0.1:9000",
        ),
        Flag::cfg("storages/demo/read_only:true").unwrap(),
        Flag::cfg("plugins/storage_manager/storages/more:{key_expr: 'more/**', volume: 'memory'}")
            .unwrap(),
        Flag::cfg(":{metadata: {name: 'x'}}").unwrap(),
    ];
    let (settings, loaded) = good(&all);
    let demo = &settings.storages["demo"];
    assert!(demo.read_only && demo.history == History::All);
    let telemetry = &settings.storages["telemetry"];
    assert_eq!(telemetry.retain.age, Some(Duration::from_secs(2 * 86_400)));
    assert_eq!(settings.data_dir, Path::new("/from/env"));
    assert_eq!(settings.zenoh["id"], "1234");
    assert_eq!(
        settings.zenoh["plugins"]["rest"]["http_port"],
        "127.0.0.1:9000"
    );
    assert_eq!(settings.zenoh["metadata"]["name"], "x");
    assert_eq!(
        settings.zenoh["connect"]["endpoints"],
        json!(["tcp/10.0.0.1:7447"])
    );
    assert!(settings.storages.contains_key("more"));
    let origin = |path: &str| loaded.sources.origin(path).to_string();
    assert_eq!(
        origin("storages/demo/history"),
        "WEIR_STORAGES__demo__HISTORY"
    );
    assert_eq!(origin("storages/demo/read_only"), "--cfg");
    assert_eq!(
        origin("storages/demo/key_expr"),
        "tests/files/good/zenohd.json5:15"
    );
    assert_eq!(origin("plugins/rest/http_port"), "--rest-http-port");
    assert_eq!(
        loaded.sources.origin("storages/demo/group"),
        Origin::Default
    );
    let unknown: Vec<_> = loaded
        .diagnostics
        .iter()
        .filter(|d| d.code == "weir::unknown-variable")
        .collect();
    assert_eq!(unknown.len(), 1);
    assert!(unknown[0].message.contains("WEIR_PORT_7447_TCP"));
}

#[test]
fn starts_without_any_file() {
    let embedded = Layers {
        defaults: Defaults::Embedded,
        ..layers(&[])
    };
    let (settings, loaded) = good(&embedded);
    assert_eq!(loaded.diagnostics, []);
    let default = &settings.storages["default"];
    assert_eq!(
        default.shards[0].dir.as_deref(),
        Some(Path::new("./weir-data/default"))
    );
    assert!(default.shards[0].create_db);
    assert_eq!(
        settings.zenoh,
        json!({ "plugins": { "rest": { "http_port": "127.0.0.1:8000" } } })
    );
    assert_eq!(settings.http.unwrap().listen.port(), 8001);

    let mut off = embedded;
    off.flags = vec![
        Flag::cfg("rest:false").unwrap(),
        Flag::cfg("http:null").unwrap(),
    ];
    let (settings, _) = good(&off);
    assert_eq!((settings.zenoh, settings.http), (json!({}), None));

    let (settings, _) = good(&layers(&[]));
    assert!(settings.storages.is_empty() && settings.zenoh == json!({}));
}

#[test]
fn reads_what_is_said_of_policies() {
    let (settings, loaded) = good(&layers(&["policies.json5"]));
    assert_eq!(loaded.diagnostics, []);
    let fleet = &settings.storages["fleet"].policies;
    let named: Vec<_> = fleet.iter().collect();
    assert_eq!(named, [("route", "geo"), ("resolve", "set-union")]);
    let policies = settings.policies.unwrap();
    assert_eq!(policies.poll, Duration::from_millis(500));
    assert_eq!(policies.signatures, Signatures::Require);
    assert_eq!(
        policies.cache.as_deref(),
        Some(Path::new("/var/lib/weir/compiled"))
    );
    assert_eq!(
        (policies.limits.memory, policies.limits.fuel),
        (16 << 20, 2_000_000)
    );
    // Sorted, however it was written: replicas compare it.
    let geo = r#"{"default":"seoul","table":{"ohio":1,"seoul":0}}"#;
    assert_eq!(policies.settings["geo"], geo);
    let [file, line] = &policies.keys[..] else {
        panic!("{:?}", policies.keys);
    };
    assert!(file.file.is_some() && file.text.contains(&line.text));

    let (settings, _) = good(&layers(&["ours.json5"]));
    assert_eq!(settings.policies, None);
    // Naming one is enough.
    let mut bound = layers(&["ours.json5"]);
    bound.flags = vec![Flag::cfg("storages/drones/policies:{route: 'geo'}").unwrap()];
    let (settings, _) = good(&bound);
    let policies = settings.policies.unwrap();
    assert_eq!(policies.dir, Path::new("./policies"));
    assert_eq!(policies.limits, PolicyLimits::default());
    assert_eq!(
        policies.cache.as_deref(),
        Some(Path::new("/var/lib/weir/policy-cache"))
    );
}

#[test]
fn reads_what_is_added_at_run_time() {
    let (settings, _) = good(&layers(&["ours.json5"]));
    let (volumes, roots) = (&settings.volumes, &settings.roots);
    let storage = json!({ "key_expr": "new/**", "volume": { "id": "rocksdb", "dir": "new" } });
    let ours = parse_storage("new", &storage, Form::Weir, volumes, roots).unwrap();
    assert_eq!(
        ours.shards[0].dir.as_deref(),
        Some(Path::new("/var/lib/weir/new"))
    );
    let stock = parse_storage("new", &storage, Form::Zenohd, volumes, roots).unwrap();
    let dir = "/home/op/.zenoh/zenoh_backend_rocksdb/new";
    assert_eq!(stock.shards[0].dir.as_deref(), Some(Path::new(dir)));

    let storage = json!({ "key_expr": "new//x", "volum": "memory" });
    let mistakes = parse_storage("new", &storage, Form::Zenohd, volumes, roots).unwrap_err();
    let lines: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "storages/new/volum: unknown field `volum` in storage `new` (did you mean `volume`?)",
            "storages/new/key_expr: invalid key expression `new//x`: empty chunk (remove one `/`)",
            "storages/new: storage `new` has no `volume` (add `volume: \"rocksdb\"`, or memory, \
             filesystem, or a declared volume)",
        ]
    );
    assert_eq!(
        parse_volume(
            "disk",
            &json!({ "backend": "rocksdb", "dir": "disk" }),
            roots
        )
        .unwrap()
        .dir,
        Some("/var/lib/weir/disk".into())
    );
    assert!(parse_volume("disk", &json!({ "backend": "s3" }), roots).is_err());
    assert!(parse_volume("a/b", &json!({ "backend": "memory" }), roots).is_err());
}

/// The server of a storage is what it says itself, over what its volume says.
#[test]
fn an_influxdb_server_is_described_in_every_form() {
    let (ours, loaded) = good(&layers(&["influxdb.json5"]));
    let (theirs, loaded_theirs) = good(&layers(&["influxdb_zenohd.json5"]));
    let storage = |name: &str| {
        ours.storages
            .get(name)
            .unwrap_or_else(|| &theirs.storages[name])
    };
    let influx = |name: &str| storage(name).shards[0].influx.clone().unwrap();
    let login = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));

    let handbook = influx("us_east_master_backup_node");
    assert_eq!(
        (&*handbook.url, &*handbook.db),
        ("http://localhost:8086", "telemetry")
    );
    assert_eq!(handbook.retention, Some(Duration::from_secs(30 * 86_400)));
    assert!(handbook.create_db && !handbook.typed && handbook.login.is_none());
    assert_eq!(handbook.version, InfluxVersion::Auto);
    let node = storage("us_east_master_backup_node");
    assert_eq!(
        (node.history, node.shards[0].backend),
        (History::All, Backend::InfluxDb)
    );

    let plotted = influx("plotted");
    assert_eq!(
        (&*plotted.db, plotted.version),
        ("{name}", InfluxVersion::One)
    );
    assert_eq!(plotted.login, login("weir", "hunter2"));
    assert!(plotted.typed && plotted.drop_db && plotted.backlog_bytes_max == 1 << 30);

    // zenohd's form: nothing is made unless it says so, and the storage's own user comes first.
    let stock = influx("stock");
    assert_eq!(stock.login, login("user1", "hunter5"));
    assert!(stock.create_db && stock.drop_db);
    assert_eq!(storage("stock").on_closure, OnClosure::Destroy);
    let bucket = influx("bucket");
    assert_eq!(
        (bucket.version, bucket.token.as_deref()),
        (InfluxVersion::Two, Some("hunter4"))
    );
    assert_eq!(bucket.org.as_deref(), Some("acme"));
    assert!(!bucket.create_db);

    // No secret is shown, in whatever way.
    let debug = format!("{ours:?}{theirs:?}");
    for text in [show(&loaded, true), show(&loaded_theirs, true), debug] {
        assert!(!text.contains("hunter"), "{text}");
    }
}
