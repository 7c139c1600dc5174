//! Mistakes, all at once, each shown where it was made.

#![allow(clippy::unwrap_used, reason = "tests")]

mod golden;

use serde_json::json;
use std::fs;
use weir_settings::{Flag, Layers, check_directories, load};

/// What `weir check` prints for these layers.
fn told(layers: &Layers) -> String {
    let loaded = load(layers);
    let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let errors = loaded
        .diagnostics
        .iter()
        .filter(|d| d.severity == weir_settings::Severity::Error);
    let errors = errors.count();
    assert_eq!(loaded.settings.is_none(), errors > 0);
    let warnings = loaded.diagnostics.len() - errors;
    let text = loaded.sources.render(&loaded.diagnostics, false);
    format!(
        "{text}\n\n{}, {}\n",
        counted(errors, "error"),
        counted(warnings, "warning")
    )
}

#[test]
fn shows_every_mistake_of_a_file() {
    let mut files: Vec<_> = fs::read_dir("tests/files/bad")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending != "expected"))
        .collect();
    files.sort();
    assert!(files.len() >= 10);
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let told = told(&Layers {
            files: vec![file],
            ..Layers::default()
        });
        golden::check(&format!("bad/{name}.expected"), &told);
    }
}

#[test]
fn shows_mistakes_of_flags_variables_and_files_that_are_not_there() {
    let env = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let layers = Layers {
        files: vec![
            "tests/files/not-there.json5".into(),
            "tests/files/good/handbook.json5".into(),
        ],
        env: vec![
            env("WEIR_STORAGES__demo__VOLUM", "memory"),
            env("WEIR_STORAGES__demo__KEY_EXPR", "demo/[0-3/**"),
            env(
                "WEIR_STORAGES__other",
                "{key_expr: 'x//y', volume: 'memory'}",
            ),
            env("WEIR_STORAGS", "1"),
        ],
        flags: vec![
            Flag::cfg("storages/demo/volume:'memry'").unwrap(),
            Flag::cfg("storages/third:{key_expr: 'a/**', volume: 'memory', x: 1}").unwrap(),
            Flag::cfg(":[]").unwrap(),
            Flag::new("rest/http_port", json!("here"), "--rest-http-port here"),
        ],
        ..Layers::default()
    };
    golden::check("flags_and_variables.expected", &told(&layers));
    for argument in ["storages", "storages/demo:{"] {
        assert!(Flag::cfg(argument).unwrap_err().help.is_some());
    }
}

#[test]
fn shows_zenohs_verdict_where_it_was_written() {
    let layers = Layers {
        files: vec!["tests/files/good/ours.json5".into()],
        ..Layers::default()
    };
    let sources = load(&layers).sources;
    let problems = [
        sources.zenoh_problem("listen.endpoints[0]", "no such protocol"),
        sources.zenoh_problem("adminspace/permissions", "something is missing"),
        sources.zenoh_problem("transport/link/tx", "nobody wrote this"),
    ];
    golden::check("zenoh_problems.expected", &sources.render(&problems, false));
    assert!(sources.render(&problems, true).contains("\u{1b}["));
}

#[test]
fn finds_directories_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["file", "other"] {
        fs::write(at(name), "").unwrap();
    }
    fs::create_dir(at("real")).unwrap();
    fs::create_dir(at("archive")).unwrap();
    std::os::unix::fs::symlink(at("real"), at("link")).unwrap();
    let storage = |key_expr: &str, more: serde_json::Value| {
        let mut storage = json!({ "key_expr": key_expr, "volume": "rocksdb" });
        storage
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        storage
    };
    let value = json!({
        "data_dir": at("data"),
        "policies": { "dir": at("file") },
        "forward": {
            "below_a_file": { "key_expr": "a/**", "dir": at("other/y") },
            "good": "f/**",
            "linked": { "key_expr": "c/**", "dir": at("link/../real/x") },
        },
        "storages": {
            "below_a_file": storage("a/**", json!({ "dir": at("other/x") })),
            "is_a_file": storage("b/**", json!({ "dir": at("file") })),
            "linked": storage("c/**", json!({ "dir": at("link/x") })),
            "real": storage("d/**", json!({ "dir": at("real/x") })),
            "absent": storage("e/**", json!({ "dir": at("absent"), "create_db": false })),
            "good": storage("f/**", json!({})),
            "readable": storage("g/**", json!({ "dir": at("archive"), "read_only": true })),
            "kernel": storage("h/**", json!({ "dir": "/proc/weir" })),
        },
    });
    let layers = Layers {
        flags: vec![Flag::new("", value, "--cfg x")],
        ..Layers::default()
    };
    let settings = load(&layers).settings.unwrap();
    let found: Vec<_> = check_directories(&settings)
        .iter()
        .map(|d| format!("{} {}", d.path, d.code))
        .collect();
    assert_eq!(
        found,
        [
            "storages/absent/dir weir::unusable-directory",
            "storages/below_a_file/dir weir::unusable-directory",
            "storages/is_a_file/dir weir::unusable-directory",
            "storages/kernel/dir weir::unusable-directory",
            "forward/below_a_file/dir weir::unusable-directory",
            "storages/real/dir weir::shared-directory",
            "forward/linked/dir weir::shared-directory",
            "policies/dir weir::unusable-directory",
        ]
    );
    // Looking leaves nothing behind.
    assert!(!at("data").exists() && fs::read_dir(at("real")).unwrap().next().is_none());
}

/// Real files with a few bytes changed: whatever comes of it, it is told and not panicked.
#[test]
fn survives_damaged_files() {
    let dir = tempfile::tempdir().unwrap();
    let files = [
        "good/ours.json5",
        "good/zenohd.json5",
        "good/ours.yaml",
        "good/ours.toml",
    ];
    let bytes: &[u8] = b"{}[]:,\"'/*\\\n \t-&*!|>#=.0a\xc3\xa9\0";
    // A linear congruential generator: the same damage in every run.
    let mut seed = 1_u64;
    let mut random = |below: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    for round in 0..600 {
        let name = files[round % files.len()];
        let mut text = fs::read(format!("tests/files/{name}")).unwrap();
        for _ in 0..1 + random(3) {
            let at = random(text.len());
            match random(3) {
                0 => text[at] = bytes[random(bytes.len())],
                1 => text.insert(at, bytes[random(bytes.len())]),
                _ => drop(text.drain(at..(at + random(20)).min(text.len()))),
            }
        }
        let file = dir.path().join(name.replace('/', "."));
        fs::write(&file, &text).unwrap();
        let loaded = load(&Layers {
            files: vec![file],
            ..Layers::default()
        });
        let shown = loaded.sources.render(&loaded.diagnostics, false);
        assert_eq!(shown.is_empty(), loaded.diagnostics.is_empty());
    }
}

/// A router with thousands of storages starts: reading them is no matter of minutes.
#[test]
fn reads_three_thousand_storages_of_one_group() {
    let storages: serde_json::Map<String, serde_json::Value> = (0..3_000)
        .map(|n| {
            let storage =
                json!({ "key_expr": format!("fleet/{n}/**"), "volume": "memory", "group": "all" });
            (format!("s{n}"), storage)
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("many.json");
    fs::write(&file, json!({ "storages": storages }).to_string()).unwrap();
    let loaded = load(&Layers {
        files: vec![file],
        ..Layers::default()
    });
    assert_eq!(loaded.diagnostics, []);
    assert_eq!(loaded.settings.unwrap().storages.len(), 3_000);
}
