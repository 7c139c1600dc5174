//! `weir policy ...` and `weir tap`, on the compiled guests that the repository keeps.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Router, start, wait_for_line, weir};
use crate::{DONE, ERROR, NOTHING};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A directory with the guests in it.
fn guests() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["witness", "keep-first", "latest-only"] {
        let from = repository().join(format!("policies/fixtures/0.1.0/{name}.wasm"));
        fs::copy(from, dir.path().join(format!("{name}.wasm"))).unwrap();
        let cases = dir.path().join(format!("{name}.cases"));
        fs::create_dir(&cases).unwrap();
        let from = repository().join(format!("policies/fixtures/0.1.0/{name}"));
        for file in fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), cases.join(file.file_name())).unwrap();
        }
    }
    dir
}

fn path(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_modules_is_tested_on_the_cases_beside_them() {
    let dir = guests();
    let all = weir(&["policy", "test", &path(&dir, "")]).await;
    assert_eq!(all.code, DONE, "{all:?}");
    assert!(all.out.contains("cases of 3 policies"), "{}", all.out);
    assert!(
        all.out.contains("  ok     the first  resolve, "),
        "{}",
        all.out
    );

    let module = path(&dir, "witness.wasm");
    let one = weir(&["policy", "test", &module, "--filter", "the first", "--json"]).await;
    assert_eq!(one.code, DONE, "{one:?}");
    let report: Value = serde_json::from_str(&one.out).unwrap();
    assert_eq!(report["policy"], "witness");
    assert_eq!(report["cases"][0]["outcome"], "passed");
    let none = weir(&["policy", "test", &module, "--filter", "no such case"]).await;
    assert_eq!(none.code, ERROR, "{none:?}");
    let nothing = tempfile::tempdir().unwrap();
    let empty = weir(&["policy", "test", &path(&nothing, "")]).await;
    assert_eq!(empty.code, ERROR, "{empty:?}");
    assert!(empty.err.contains("there is no policy in"), "{}", empty.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_case_that_fails_is_shown_and_can_be_written_anew() {
    let dir = guests();
    let module = path(&dir, "witness.wasm");
    let case = r#"{ "name": "the last shard", "hook": "route", "shards": ["eu", "us"],
  "samples": [{ "key": "a/last" }, { "key": "b/nowhere" }],
  "expect": [{ "shard": "eu" }, { "reject": "second reason" }] }"#;
    let file = path(&dir, "own.json");
    fs::write(&file, case).unwrap();
    let junit = path(&dir, "r.xml");
    let own = ["policy", "test", &module, "--cases", &file];
    let failed = weir(&[&own[..], &["--junit", &junit]].concat()).await;
    assert_eq!(failed.code, NOTHING, "{failed:?}");
    for line in [
        "  FAILED the last shard",
        "         sample 0 (a/last)\n",
        "         - expected { \"shard\": \"eu\" }\n",
        "         + got      { \"shard\": \"us\" }\n",
        "1 case of 1 policy: 0 passed, 1 failed, 0 broken\n",
    ] {
        assert!(failed.out.contains(line), "{line}:\n{}", failed.out);
    }
    assert!(fs::read_to_string(&junit).unwrap().contains("<failure>"));
    let updated = weir(&[&own[..], &["--update"]].concat()).await;
    assert_eq!(updated.code, DONE, "{updated:?}");
    let expected = case.replace("\"shard\": \"eu\"", "\"shard\": \"us\"");
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        expected,
        "and nothing else"
    );
    assert_eq!(weir(&own).await.code, DONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_a_module_is_and_whether_it_may_serve() {
    let dir = guests();
    let lawful = weir(&[
        "policy",
        "check",
        &path(&dir, "keep-first.wasm"),
        "--calls",
        "500",
    ])
    .await;
    assert_eq!(lawful.code, DONE, "{lawful:?}");
    for part in [
        "exports   resolve",
        "serves resolve",
        "units of fuel",
        "hold with settings {}",
    ] {
        assert!(lawful.out.contains(part), "{part}:\n{}", lawful.out);
    }
    let settings = ["--settings", "{\"deletes\": \"draw\"}", "--json"];
    let module = path(&dir, "keep-first.wasm");
    let refused = weir(&[&["policy", "check", &module][..], &settings].concat()).await;
    assert_eq!(refused.code, NOTHING, "{refused:?}");
    let found: Value = serde_json::from_str(&refused.out).unwrap();
    assert_eq!(found["problems"][0]["code"], "init");
    fs::write(path(&dir, "broken.wasm"), b"\0asm\x01\0\0").unwrap();
    let broken = weir(&["policy", "check", &path(&dir, "broken.wasm")]).await;
    assert_eq!(broken.code, NOTHING, "{broken:?}");
    assert!(
        broken.out.contains("broken is refused\n  invalid: "),
        "{}",
        broken.out
    );
    let gone = weir(&["policy", "check", &path(&dir, "gone.wasm")]).await;
    assert_eq!(gone.code, ERROR, "{gone:?}");
    let laws = weir(&["policy", "laws"]).await;
    assert!(laws.out.contains("\nassociative\n"), "{}", laws.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn bench_measures_and_gates() {
    let dir = guests();
    let bench = |more: &'static [&'static str]| {
        let module = path(&dir, "witness.wasm");
        async move {
            let words = ["policy", "bench", &module, "--time", "20ms"];
            weir(&[&words[..], more].concat()).await
        }
    };
    let all = bench(&[]).await;
    assert_eq!(all.code, DONE, "{all:?}");
    assert_eq!(all.out.matches("an empty call").count(), 3, "{}", all.out);
    let dear = bench(&["--hook", "resolve", "--max-fuel", "1", "--json"]).await;
    assert_eq!(dear.code, NOTHING, "{dear:?}");
    assert!(
        dear.err.contains("units of fuel are above 1"),
        "{}",
        dear.err
    );
    assert_eq!(
        bench(&["--hook", "route", "--max-p99", "1ns"]).await.code,
        NOTHING
    );
    assert_eq!(
        bench(&["--hook", "route", "--max-fuel", "1"]).await.code,
        ERROR
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_is_verified_by_the_key_and_no_other() {
    let dir = guests();
    let (module, ops, dev) = (
        path(&dir, "witness.wasm"),
        path(&dir, "ops"),
        path(&dir, "dev"),
    );
    for name in [&ops, &dev] {
        let made = weir(&["policy", "keygen", name]).await;
        assert_eq!(made.code, DONE, "{made:?}");
    }
    assert_eq!(
        weir(&["policy", "keygen", &ops]).await.code,
        ERROR,
        "it is there"
    );
    let (key, public, other) = (ops.clone() + ".key", ops + ".pub", dev + ".pub");
    let verify = ["policy", "verify", &module, "--key"];
    let unsigned = weir(&[&verify[..], &[&public]].concat()).await;
    assert_eq!(unsigned.code, NOTHING, "{unsigned:?}");
    let signed = weir(&[
        "policy",
        "sign",
        &module,
        "--key",
        &key,
        "--comment",
        "by ops",
    ])
    .await;
    assert_eq!(
        (signed.code, signed.out.trim()),
        (DONE, &*format!("{module}.minisig"))
    );
    let good = weir(&[&verify[..], &[&public, "--key", &other]].concat()).await;
    assert_eq!(good.code, DONE, "{good:?}");
    assert!(good.out.contains("by ops"), "{}", good.out);
    assert_eq!(weir(&[&verify[..], &[&other]].concat()).await.code, NOTHING);
    let not_a_key = weir(&["policy", "sign", &module, "--key", &public]).await;
    assert_eq!(not_a_key.code, ERROR, "{not_a_key:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_tapped_is_replayed_and_compared() {
    let dir = guests();
    let router = Router::start().await;
    let recording = path(&dir, "fleet.rec");
    let tap = [
        "tap",
        "fleet/**",
        "--record",
        &recording,
        "--count",
        "4",
        "-e",
        &router.endpoint,
    ];
    let mut tapping = start(&tap);
    wait_for_line(
        &mut tapping,
        &format!("recording fleet/** into {recording}"),
    )
    .await;
    for (key, value) in [
        ("fleet/1/last", "a"),
        ("fleet/2/nowhere", "b"),
        ("fleet/1/last", "c"),
    ] {
        router.session.put(key, value).await.unwrap();
    }
    router.session.delete("fleet/3").await.unwrap();
    let tapped = crate::Ended::of(tapping).await;
    assert_eq!(
        (tapped.code, tapped.err.as_str()),
        (DONE, "recorded 4 samples\n")
    );
    assert_eq!(weir(&tap).await.code, ERROR, "nothing is written over");

    let witness = path(&dir, "witness.wasm");
    let asked = ["--hook", "route", "--shards", "eu,us"];
    let replay = ["policy", "replay", &witness, "--recording", &recording];
    let replayed = weir(&[&replay[..], &asked, &["--each"]].concat()).await;
    assert_eq!(replayed.code, DONE, "{replayed:?}");
    let first: Value = serde_json::from_str(replayed.out.lines().next().unwrap()).unwrap();
    assert_eq!(first["key"], "fleet/1/last");
    assert_eq!(first["answer"]["shard"], "us");
    assert!(
        replayed.err.contains("witness: 4 samples, 4 decisions"),
        "{}",
        replayed.err
    );
    assert!(
        replayed.err.contains("50.0 %  { \"shard\": \"us\" }"),
        "{}",
        replayed.err
    );

    let (first, latest) = (
        path(&dir, "keep-first.wasm"),
        path(&dir, "latest-only.wasm"),
    );
    let conflicts = weir(&["policy", "replay", &first, "--recording", &recording]).await;
    assert!(
        conflicts.out.contains("keep-first: 4 samples, 1 decisions"),
        "{conflicts:?}"
    );
    let diff = |old: &str, new: &str, hook: &'static str| {
        let words = [
            "policy", "diff", old, new, "--corpus", &recording, "--hook", hook,
        ];
        let words = words.map(str::to_owned);
        async move { weir(&words.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    let same = diff(&first, &first, "resolve").await;
    assert_eq!(same.code, DONE, "{same:?}");
    let other = diff(&latest, &witness, "prioritize").await;
    assert_eq!(other.code, NOTHING, "{other:?}");
    assert!(other.out.contains("4 decisions, "), "{}", other.out);
    assert_eq!(
        diff(&latest, &first, "prioritize").await.code,
        ERROR,
        "it does not serve that"
    );
}
