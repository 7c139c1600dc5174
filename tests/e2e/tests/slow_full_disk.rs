//! A disk that fills up under a router: it says so, keeps what it acknowledged, answers, and goes on
//! by itself when there is room again.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use weir_e2e::{
    Client, Router, http,
    line::Line,
    mortal::{Ledger, Operation},
    python::packed,
    rng::Rng,
    until_within,
};

/// Values that fill it in a few hundred puts.
const VALUE_BYTES: usize = 32 << 10;
/// A store that was closed by a full disk is tried again in steps of up to half a minute.
const RECOVERY: Duration = Duration::from_secs(90);

/// A file system in memory, of a fixed size.
struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// Mounts one; `None`, and a line that says so, where that is not permitted.
    fn mount(mebibytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { dir }),
            refused => {
                weir_e2e::skip(&format!("a tmpfs cannot be mounted here: {refused:?}"));
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Takes the rest of the disk but for some bytes.
    fn fill(&self, left: u64) -> PathBuf {
        let path = self.path().join("ballast");
        let mut file = std::fs::File::create(&path).unwrap();
        // Ends when the disk is full: that is the point.
        let _ = std::io::copy(&mut std::io::repeat(1), &mut file);
        let size = file.metadata().unwrap().len();
        file.set_len(size.saturating_sub(left)).unwrap();
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open there is about to end.
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            weir_e2e::say(&format!("{} could not be unmounted", self.path().display()));
        }
    }
}

/// Acknowledged puts until one is refused, at most `count`; gives the refusal.
fn put_until_refused(
    client: &mut Client,
    ledger: &mut Ledger,
    rng: &mut Rng,
    count: usize,
) -> Option<Value> {
    let operations: Vec<Operation> = (0..count)
        .map(|_| {
            let key = format!("d/{}", rng.below(10_000));
            Operation {
                key,
                value: Some(rng.bytes(VALUE_BYTES)),
            }
        })
        .collect();
    let requests: Vec<Value> = operations.iter().map(Operation::request).collect();
    let receipts = client.acks(&requests, || ());
    for (operation, receipt) in operations.iter().zip(&receipts) {
        ledger.record(operation, receipt["admission"].is_string());
    }
    receipts
        .into_iter()
        .find(|receipt| !receipt["admission"].is_string())
}

/// A router all of whose data lies on the small disk, spool and clock included.
fn check(backend: &str) {
    let Some(disk) = SmallDisk::mount(64) else {
        return;
    };
    let mut rng = Rng::from_environment();
    let mut router = Router::start_in(
        disk.path(),
        &format!(r#"storages: {{ d: {{ key_expr: "d/**", backend: "{backend}" }} }},"#),
    );
    let mut client = router.python();
    let mut ledger = Ledger::default();
    assert_eq!(
        put_until_refused(&mut client, &mut ledger, &mut rng, 100),
        None
    );

    let ballast = disk.fill(4 << 20);
    let refused = put_until_refused(&mut client, &mut ledger, &mut rng, 1_000);
    let refused = refused.expect("a thousand values do not fit into 4 MiB");
    let error = refused["error"].as_str().expect("a refusal says why");
    assert!(error.contains("storage `d`"), "{error}");
    weir_e2e::say(&format!(
        "{backend}: {} acknowledged, then: {error}",
        ledger.acknowledged
    ));
    // A plain put cannot be refused: it waits, and while anything waits the router is not ready and
    // says why, and goes on answering.
    let waiting = Operation {
        key: "d/waiting".to_owned(),
        value: Some(rng.bytes(VALUE_BYTES)),
    };
    client.put_with(json!({ "key": waiting.key, "value": waiting.value.as_ref().map(packed) }));
    let status = weir_e2e::until("the status is red", || {
        let status = router.storage("d").unwrap();
        if status["state"] == "up" {
            Err(status.to_string())
        } else {
            Ok(status)
        }
    });
    let last = status["last_error"]["message"]
        .as_str()
        .unwrap()
        .to_lowercase();
    assert!(last.contains("space") || last.contains("full"), "{last}");
    assert_eq!(http::get(router.http, "/readyz").status, 503);
    assert_eq!(http::get(router.http, "/livez").status, 200);

    std::fs::remove_file(ballast).unwrap();
    until_within(
        RECOVERY,
        "it takes puts again by itself",
        || match put_until_refused(&mut client, &mut ledger, &mut rng, 1) {
            None => Ok(()),
            Some(refusal) => Err(refusal.to_string()),
        },
    );
    weir_e2e::until("it is ready again", || {
        let ready = http::get(router.http, "/readyz?verbose");
        if ready.status == 200 {
            Ok(())
        } else {
            Err(ready.body)
        }
    });
    assert_eq!(
        put_until_refused(&mut client, &mut ledger, &mut rng, 50),
        None
    );
    weir_e2e::until("what waited is stored", || {
        let got = client.get(&waiting.key);
        let value = got.samples.first().map(|sample| sample.value.clone());
        if value == waiting.value {
            Ok(())
        } else {
            Err(format!("{:?}", got.errors))
        }
    });
    ledger.record(&waiting, true);
    let all = json!({ "selector": "d/**", "target": "all" });
    ledger.check(&client.get_with(all.clone()), "after the disk was full");
    router.kill9();
    router.restart();
    client.reconnect();
    ledger.check(&client.get_with(all), "after a crash behind that");
}

#[test]
fn rocksdb_survives_a_full_disk() {
    check("rocksdb");
}

#[test]
fn the_filesystem_survives_a_full_disk() {
    check("filesystem");
}

/// Plain puts, which nobody can refuse, wait in a spool on another disk and are stored in the end.
#[test]
fn puts_that_nobody_can_refuse_wait_in_the_spool_until_there_is_room() {
    let Some(disk) = SmallDisk::mount(32) else {
        return;
    };
    let mut rng = Rng::from_environment();
    let dir = disk.path().join("d").display().to_string();
    let router = Router::start(&format!(
        r#"d: {{ key_expr: "d/**", backend: "rocksdb", dir: "{dir}" }}"#
    ));
    let mut client = router.python();
    let ballast = disk.fill(2 << 20);
    let mut expected = std::collections::BTreeMap::new();
    for part in 0..8 {
        let puts: Vec<Value> = (0..50)
            .map(|number| {
                let (key, value) = (format!("d/{part}/{number}"), rng.bytes(VALUE_BYTES));
                let put = json!({ "key": key, "value": packed(&value) });
                expected.insert(key, value);
                put
            })
            .collect();
        client.puts(&puts);
    }
    weir_e2e::until("changes wait in the spool", || {
        let status = router.storage("d").unwrap();
        let spooled = status["spooled_changes"].as_u64().unwrap();
        if spooled > 0 {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    std::fs::remove_file(ballast).unwrap();
    until_within(RECOVERY, "the spool is empty and all is stored", || {
        let status = router.storage("d").unwrap();
        let empty = status["spooled_changes"] == 0 && status["queued"] == 0;
        if empty && status["state"] == "up" {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    let got = client.get_with(json!({ "selector": "d/**", "target": "all" }));
    let stored: std::collections::BTreeMap<_, _> = got
        .samples
        .into_iter()
        .map(|sample| (sample.key, sample.value))
        .collect();
    assert_eq!(stored.len(), expected.len(), "{:?}", got.errors);
    assert!(stored == expected, "values differ");
}

/// What a link's status says, once it is as it should be.
fn wait_link(edge: &Router, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    until_within(RECOVERY, what, || {
        let status = edge.rest_value("@weir/ed/forward/cloud");
        let status = status.ok_or("no such link")?;
        is_it(&status)
            .then(|| status.clone())
            .ok_or(status.to_string())
    })
}

/// The first time that the disk is full the journal has but one segment, which is not given up: what comes
/// is refused. From then on segments are small, and the oldest go.
#[test]
fn a_journal_on_a_full_disk_refuses_or_gives_up_the_oldest_says_so_and_drains() {
    const SAMPLES: u64 = 40_000;
    let Some(disk) = SmallDisk::mount(4) else {
        return;
    };
    let cloud = Router::start_with(
        r#"id: "c1", storages: { s: {
            key_expr: "v/**", backend: "rocksdb", history: "all", dir: "$DIR/s", mirror: false } },"#,
    );
    let line = Line::to(&cloud.endpoint);
    let edge = Router::start_with(&format!(
        r#"id: "ed", connect: {{ endpoints: ["{}"] }},
        forward: {{ cloud: {{ key_expr: "v/**", dir: "{}", period: "500ms", keep: "0s" }} }},"#,
        line.endpoint,
        disk.path().join("journal").display(),
    ));
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let lost = |status: &Value| -> u64 {
        let lost = status["lost"].as_array().unwrap();
        lost.iter().map(|lost| number(&lost["records"])).sum()
    };
    let count = || {
        let got = cloud.python().get_all("v/**?_time=[now(-1h)..now()]");
        assert_eq!(got.errors, Vec::<String>::new());
        let is_last = |sample: &weir_e2e::Sample| sample.value == b"last";
        let last = got.samples.iter().filter(|sample| is_last(sample));
        (got.samples.len() as u64, last.count() as u64)
    };
    let mut rng = Rng::from_environment();
    let mut client = edge.python();
    let (mut held, mut lost_before) = (0, 0);
    for is_first in [true, false] {
        wait_link(&edge, "they have met", |status| status["state"] == "up");
        line.cut();
        wait_link(&edge, "it is alone", |status| status["state"] == "down");
        // Nothing compresses these: some 10 MB on a disk of 4.
        for first in (0..SAMPLES).step_by(1_000) {
            let put =
                |n: u64| json!({ "key": format!("v/{}", n % 50), "value": packed(rng.bytes(256)) });
            let puts: Vec<Value> = (first..first + 1_000).map(put).collect();
            client.puts(&puts);
        }
        let last = Operation {
            key: "v/0".to_owned(),
            value: Some(b"last".to_vec()),
        };
        let receipt = client.acks(&[last.request()], || {}).pop().unwrap();
        if is_first {
            let error = receipt["error"].as_str().unwrap_or_default();
            let is_why = error.contains("no space") || error.contains("full");
            assert!(is_why, "{receipt}");
        } else {
            assert_eq!(receipt["admission"], "queued", "{receipt}");
        }
        let status = wait_link(
            &edge,
            "all of it was kept, or is known to be lost",
            |status| {
                number(&status["queued"]["records"]) + lost(status) - lost_before == SAMPLES + 1
            },
        );
        let kept = number(&status["queued"]["records"]);
        let gone = lost(&status) - lost_before;
        assert!(gone > SAMPLES / 4 && kept > SAMPLES / 10, "{status}");
        let given_up = number(&status["dropped"]["full"]);
        let expected = if is_first { 0 } else { gone };
        assert_eq!(given_up, expected, "{status}");
        // It drains without a byte of room.
        let ballast = disk.fill(0);
        line.mend();
        wait_link(&edge, "it is drained", |status| {
            status["state"] == "up" && number(&status["queued"]["records"]) == 0
        });
        held += kept;
        let (count, lasts) = count();
        assert_eq!(count, held);
        // What was acknowledged is there.
        assert!(is_first || lasts > 0);
        std::fs::remove_file(ballast).unwrap();
        lost_before = lost(&status);
    }
    let before = wait_link(&edge, "it is there", |_| true);
    client.put("v/0", "again");
    wait_link(&edge, "what comes is kept again", |status| {
        number(&status["appended"]) > number(&before["appended"])
            && number(&status["queued"]["records"]) == 0
    });
    wait_link(&edge, "nothing more is lost", |status| {
        lost(status) == lost_before
    });
}
