//! A vehicle's router that is killed at each of the calls by which its journal changes the disk, again and
//! again on the same data; and one whose disk fails. Whatever was acknowledged reaches the cloud, once and as
//! it was put, or is told as lost where the settings say that it may be.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::{collections::BTreeMap, fs, thread, time::Duration};

use serde_json::{Value, json};
use weir_e2e::{
    Client, Router,
    failpoint::{Failpoints, How, counts},
    guest,
    line::Line,
    say,
    time::{SECOND, rfc3339},
    tried::Tried,
    until_within,
};

/// How many calls of each kind are died at: the first ones, or, of the most frequent, some of all that a life
/// makes, a hundred and more. With `WEIR_FORWARD_FAILPOINTS=all` it is every one, before it, after it and in the middle.
const EACH: usize = 5;
/// A segment is closed after sixty of these: an eighth of the smallest budget.
const VALUE_BYTES: usize = 2_000;
/// While the cloud is away, and afterwards.
const ALONE: u64 = 160;
const TOGETHER: u64 = 32;
const PATIENCE: Duration = Duration::from_secs(60);

/// A vehicle, its cloud, and the line between them.
struct Rig {
    edge: Router,
    cloud: Router,
    line: Line,
    points: Failpoints,
    client: Client,
    tried: Tried,
    /// How often it died, at which call and of which file.
    deaths: BTreeMap<String, usize>,
    /// The most calls of each kind that a life has made.
    made: BTreeMap<String, usize>,
    /// A policy that decides otherwise about what waits; in each life it comes or goes.
    policy: Option<Vec<u8>>,
}

impl Rig {
    /// `None`, and the test is skipped, where calls cannot be counted.
    fn start(on_full: &str) -> Option<Self> {
        let lanes = r#"lanes: [{ key_expr: "v/42/alarm/**", lane: 0 }],"#;
        Self::start_with(on_full, lanes, "")
    }

    fn start_with(on_full: &str, link: &str, others: &str) -> Option<Self> {
        let cloud = Router::start_with(
            r#"id: "c1", storages: { s: {
                key_expr: "v/**", backend: "rocksdb", history: "all", dir: "$DIR/s", mirror: false } },"#,
        );
        let line = Line::to(&cloud.endpoint);
        line.cut();
        let edge = Router::start_with(&format!(
            r#"id: "ed", {others}
            connect: {{ endpoints: ["{}"], retry: {{ period_init_ms: 100, period_max_ms: 100 }} }},
            forward: {{ cloud: {{ key_expr: "v/42/**", dir: "$DIR/journal", budget: {{ bytes: "1MiB" }},
                on_full: "{on_full}", {link} period: "300ms", keep: "0s" }} }},"#,
            line.endpoint
        ));
        let points = Failpoints::of(&edge.dir().join("journal"))?;
        let client = edge.python();
        let mut tried = Tried::default();
        tried.timeout_s = 3;
        Some(Self {
            edge,
            cloud,
            line,
            points,
            client,
            tried,
            deaths: BTreeMap::new(),
            made: BTreeMap::new(),
            policy: None,
        })
    }

    /// Puts into two lanes; only what the journal itself has acknowledged counts.
    fn put(&mut self, count: u64) {
        let sample = |n: u64| {
            let lane = if n.is_multiple_of(2) {
                "alarm"
            } else {
                "topic"
            };
            // Most are of a few keys, others of a key of their own.
            let key = match n % 7 {
                0 => format!("v/42/{lane}/own/{n}"),
                _ => format!("v/42/{lane}/{}", n % 50),
            };
            (key, format!("{n}:{}", "x".repeat(VALUE_BYTES)))
        };
        self.tried
            .put(&mut self.client, count, Some("queued"), sample, || {});
    }

    fn status(&self) -> Option<Value> {
        self.edge.try_rest_value("@weir/ed/forward/cloud")
    }

    /// Waits until the cloud has all there is and nothing of it is kept; or until the edge has died.
    fn wait_trimmed(&mut self) -> bool {
        self.line.mend();
        until_within(PATIENCE, "the journal is empty, or nobody has it", || {
            if !self.edge.is_running() {
                return Ok(false);
            }
            let status = self.status().unwrap_or_default();
            let is_up = status["state"] == "up" && status["queued"]["records"] == 0;
            match is_up && status["kept"]["records"] == 0 {
                true => Ok(true),
                false => Err(status.to_string()),
            }
        })
    }

    /// The policy comes if it is not there, else it goes; waits until all waits as is decided now, or until the
    /// edge has died.
    fn decide_otherwise(&mut self, module: &[u8]) -> bool {
        let dir = self.edge.dir();
        let path = dir.join("policies/alarms-first.wasm");
        let comes = !path.exists();
        if comes {
            fs::create_dir_all(dir.join("policies")).unwrap();
            fs::write(dir.join("part"), module).unwrap();
            fs::rename(dir.join("part"), &path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        until_within(PATIENCE, "all waits as is decided now", || {
            if !self.edge.is_running() {
                return Ok(false);
            }
            let status = self.status().unwrap_or_default();
            // Alarms wait in lane 0 if the policy says so, and with all else if it does not.
            let lanes = status["lanes"].as_array().cloned().unwrap_or_default();
            let alarms = lanes
                .iter()
                .any(|lane| lane["lane"] == 0 && lane["records"] != 0);
            match alarms == comes && status["ranked"]["left"] == 0 {
                true => Ok(true),
                false => Err(status.to_string()),
            }
        })
    }

    /// Starts the edge and lives on; whether it has died before it was told to end. `meets` says whether it
    /// meets the cloud.
    fn live(&mut self, meets: bool, alone: u64) -> bool {
        self.line.cut();
        if self.edge.try_restart().is_err() {
            return true;
        }
        if !self.client.try_reconnect() {
            assert!(!self.edge.is_running(), "{}", self.edge.log());
            return true;
        }
        self.put(alone);
        if let Some(module) = self.policy.clone()
            && (!self.edge.is_running() || !self.decide_otherwise(&module))
        {
            return true;
        }
        if meets {
            if !self.edge.is_running() || !self.wait_trimmed() {
                return true;
            }
            self.put(TOGETHER);
        }
        !self.edge.try_term()
    }

    /// A life at whose Nth call of a kind something happens; whether it did.
    fn die_at(&mut self, call: &str, number: usize, how: How, meets: bool, alone: u64) -> bool {
        self.edge.set_variables(self.points.at(call, number, how));
        let died = self.live(meets, alone);
        let calls = self.points.take_calls();
        let counts = counts(&calls);
        for (call, count) in &counts {
            let most = self.made.entry((*call).to_owned()).or_default();
            *most = (*most).max(*count);
        }
        let made = counts.get(call).copied().unwrap_or(0);
        // What it died of is what was meant, or else it lived on.
        assert_eq!(died, made >= number, "{call} {number}: {}", self.edge.log());
        if died {
            let file = calls
                .iter()
                .filter(|(made, _)| made == call)
                .nth(number - 1);
            let file = match &*file.unwrap().1 {
                "." => "directory",
                "lock" => "lock",
                name if name.starts_with("lost") => "lost",
                name if name.starts_with("moved") => "moved",
                _ => "segment",
            };
            *self.deaths.entry(format!("{call} {file}")).or_default() += 1;
        }
        died
    }

    fn most(&self, call: &str) -> usize {
        self.made.get(call).copied().unwrap_or(0)
    }

    /// Dies at calls of each kind in turn, so that each life finds what another death has left.
    fn die_everywhere(&mut self, kinds: &[&str], meets: bool, alone: u64) {
        // A life to its end, to see how many calls there are. It begins as most do: with what another has
        // left that was killed.
        self.die_at("fdatasync", 9, How::After, meets, alone);
        assert!(!self.die_at("", 1, How::Before, meets, alone));
        say(&format!("a life makes {:?}", self.made));
        let hows = [How::Before, How::Torn, How::After];
        if std::env::var("WEIR_FORWARD_FAILPOINTS").is_ok_and(|text| text == "all") {
            for how in hows {
                let mut number = 1;
                // Until all of a life's calls were too few.
                while kinds.iter().any(|call| self.most(call) >= number) {
                    for call in kinds {
                        if self.most(call) >= number {
                            self.die_at(call, number, how, meets, alone);
                        }
                    }
                    number += 1;
                }
                say(&format!("{how:?}: {:?} of {:?}", self.deaths, self.made));
            }
            return;
        }
        for turn in 0..EACH {
            for call in kinds {
                let made = self.most(call).max(1);
                let number = 1 + if made > 4 * EACH {
                    turn * made / EACH
                } else {
                    turn % made
                };
                self.die_at(call, number, hows[turn % 3], meets, alone);
            }
        }
    }

    /// Starts the edge as it is; what the cloud has when all is drained.
    fn drain(&mut self) -> (Vec<weir_e2e::Sample>, Value) {
        self.edge.set_variables(Vec::new());
        self.line.cut();
        self.edge.restart();
        assert!(self.wait_trimmed(), "{}", self.edge.log());
        let got = self.cloud.python().get_all("v/**?_time=[now(-2h)..now()]");
        assert_eq!(got.errors, Vec::<String>::new());
        let status = self.status().unwrap();
        assert_eq!(status["damaged"], json!([]), "{status}");
        say(&format!(
            "{:?}; {} of {} acknowledged, {} in the cloud",
            self.deaths,
            self.tried.acknowledged(),
            self.tried.count(),
            got.samples.len(),
        ));
        (got.samples, status)
    }
}

#[test]
fn what_was_acknowledged_reaches_the_cloud_wherever_the_journal_is_killed() {
    let Some(mut rig) = Rig::start("reject-new") else {
        return;
    };
    // The journal is made anew: nothing was put yet.
    rig.edge.term();
    for how in [How::Before, How::After] {
        fs::remove_dir_all(rig.edge.dir().join("journal")).unwrap();
        assert!(rig.die_at("mkdir", 1, how, true, ALONE));
        // What comes after needs something to remove.
        fs::create_dir_all(rig.edge.dir().join("journal")).unwrap();
    }
    // A segment that was not closed is cut and gets its end in the life after that in which it was written.
    let kinds = [
        "create",
        "write",
        "pwrite",
        "fdatasync",
        "ftruncate",
        "unlink",
        "fsync",
    ];
    rig.die_everywhere(&kinds, true, ALONE);
    let (held, _) = rig.drain();
    assert_eq!(rig.tried.missing(held), Vec::<String>::new());
    for hit in [
        "mkdir directory",
        "create lock",
        "create segment",
        "write segment",
        "ftruncate segment",
        "fdatasync segment",
        "pwrite segment",
        "unlink segment",
        "fsync directory",
    ] {
        assert!(rig.deaths.contains_key(hit), "never at {hit}");
    }
    assert!(rig.tried.acknowledged() > 200);
}

#[test]
fn what_is_decided_about_again_is_kept_once_wherever_the_journal_is_killed() {
    let Some(module) = guest::built("prioritize/alarms-first") else {
        return;
    };
    let policies = r#"policies: { dir: "$DIR/policies", settings: {
        "alarms-first": { alarms: ["**/alarm/**"], others: 5 } } },"#;
    let link = r#"policies: { prioritize: "alarms-first" },"#;
    let Some(mut rig) = Rig::start_with("reject-new", link, policies) else {
        return;
    };
    rig.edge.term();
    rig.policy = Some(fs::read(module).unwrap());
    let kinds = ["rename", "create", "unlink", "write", "fsync", "fdatasync"];
    rig.die_everywhere(&kinds, true, ALONE);
    let (held, status) = rig.drain();
    assert_eq!(status["damaged"], json!([]), "{status}");
    assert_eq!(rig.tried.missing(held), Vec::<String>::new());
    let renames = rig.deaths.keys().filter(|hit| hit.starts_with("rename"));
    assert!(renames.count() > 0 && rig.deaths.contains_key("unlink segment"));
}

/// Whether what is missing is among what was told as lost.
fn is_told(status: &Value, stamp: &str) -> bool {
    let time: u64 = stamp.split('/').next().unwrap().parse().unwrap();
    let second = rfc3339((time >> 32) * SECOND);
    // As far as to the second, which sorts as text.
    let told = |lost: &Value| {
        let end = |name: &str| &lost[name].as_str().unwrap()[..19];
        end("from") <= &second[..19] && &second[..19] < end("to")
    };
    status["lost"].as_array().unwrap().iter().any(told)
}

/// More than the budget, and the cloud away: what is given up is told, wherever the journal is killed.
fn check_given_up(on_full: &str) {
    const MORE: u64 = 400;
    let Some(mut rig) = Rig::start(on_full) else {
        return;
    };
    rig.put(600);
    rig.edge.term();
    let kinds = ["rename", "create", "unlink", "write", "fsync", "fdatasync"];
    rig.die_everywhere(&kinds, false, MORE);
    let (held, status) = rig.drain();
    let mut newest: BTreeMap<String, String> = BTreeMap::new();
    for sample in &held {
        let stamp = sample.timestamp.clone().unwrap();
        let held = newest.entry(sample.key.clone()).or_default();
        *held = stamp.max(std::mem::take(held));
    }
    let missing = rig.tried.missing(held);
    for stamp in &missing {
        let (key, _) = rig.tried.get(stamp).unwrap();
        let is_superseded = on_full == "coalesce" && newest.get(key) > Some(stamp);
        assert!(
            is_superseded || is_told(&status, stamp),
            "{stamp} of {key}: {status}"
        );
    }
    let lost = status["lost"].as_array().unwrap().iter();
    let lost: u64 = lost.map(|lost| lost["records"].as_u64().unwrap()).sum();
    say(&format!(
        "{on_full}: {} given up, {lost} told as lost",
        missing.len()
    ));
    assert!(
        on_full == "coalesce" || missing.len() as u64 <= lost,
        "{status}"
    );
    assert!(missing.len() > 1_000, "little was given up");
    let hits = match on_full {
        "coalesce" => &["rename segment", "create segment"][..],
        _ => &["rename lost", "unlink segment", "create lost"],
    };
    for hit in hits {
        assert!(rig.deaths.contains_key(*hit), "never at {hit}");
    }
}

#[test]
fn what_is_dropped_is_told_wherever_the_journal_is_killed() {
    check_given_up("drop-oldest");
}

#[test]
fn what_is_coalesced_leaves_the_newest_wherever_the_journal_is_killed() {
    check_given_up("coalesce");
}

/// A disk that fails from some call on: nothing more is acknowledged, live samples pass, and afterwards all
/// that was acknowledged arrives.
fn check_broken(call: &str, number: usize) {
    let Some(mut rig) = Rig::start("reject-new") else {
        return;
    };
    rig.put(20);
    rig.edge.kill9();
    rig.edge
        .set_variables(rig.points.at(call, number, How::Broken));
    rig.edge.restart();
    rig.client.reconnect();
    rig.put(2 * ALONE);
    let before = rig.tried.acknowledged();
    assert!((20..rig.tried.count()).contains(&before));
    let status = until_within(PATIENCE, "it says that it is poisoned", || {
        let status = rig.status().unwrap_or_default();
        match status["poisoned"].is_string() && status["state"] == "faulted" {
            true => Ok(status),
            false => Err(status.to_string()),
        }
    });
    let why = status["poisoned"].as_str().unwrap();
    assert!(why.contains("os error 5"), "{why}");
    // It is tried again after a second, and then later each time; no try makes it acknowledge anything that
    // would need the disk.
    rig.tried.durability = "synced";
    for _ in 0..6 {
        rig.put(1);
        thread::sleep(Duration::from_millis(700));
    }
    assert_eq!(rig.tried.acknowledged(), before);
    rig.line.mend();
    until_within(PATIENCE, "live samples pass", || {
        rig.client.put("v/42/live", "1");
        let held = rig.cloud.rest_get("v/42/live?_time=[now(-1m)..]").body;
        held.contains("v/42/live").then_some(()).ok_or(held)
    });
    let ready = weir_e2e::http::get(rig.edge.http, "/readyz");
    assert_eq!(ready.status, 503, "{}", ready.body);
    rig.edge.kill9();
    let (held, status) = rig.drain();
    assert_eq!(status["lost"], json!([]), "{status}");
    let held = held
        .into_iter()
        .filter(|it| it.key != "v/42/live")
        .collect();
    assert_eq!(rig.tried.missing(held), Vec::<String>::new());
}

#[test]
fn a_disk_that_writes_no_more_poisons_the_link_alone() {
    check_broken("write", 12);
}

#[test]
fn a_disk_that_syncs_no_more_poisons_the_link_alone() {
    check_broken("fdatasync", 3);
}

#[test]
fn a_disk_that_has_failed_once_is_used_again_without_a_restart() {
    let Some(mut rig) = Rig::start("reject-new") else {
        return;
    };
    for (call, number) in [
        ("write", 8),
        ("fdatasync", 3),
        ("pwrite", 1),
        ("ftruncate", 1),
        ("fsync", 1),
    ] {
        rig.line.cut();
        rig.put(20);
        rig.edge.kill9();
        let fails = rig.points.at(call, number, How::Fails);
        rig.edge.set_variables(fails);
        rig.edge.restart();
        rig.client.reconnect();
        rig.put(ALONE);
        let before = rig.tried.acknowledged();
        until_within(PATIENCE, "it acknowledges again", || {
            rig.put(1);
            let count = rig.tried.acknowledged();
            (count > before).then_some(()).ok_or(format!("{count}"))
        });
        assert!(rig.wait_trimmed());
        let got = rig.cloud.python().get_all("v/**?_time=[now(-2h)..now()]");
        let missing = rig.tried.missing(got.samples).len();
        assert_eq!(missing, 0, "after a {call} that failed: {:?}", rig.status());
        let made = rig.points.take_calls();
        assert!(counts(&made)[call] >= number);
    }
    let status = rig.status().unwrap();
    assert_eq!(
        (&status["lost"], &status["damaged"]),
        (&json!([]), &json!([]))
    );
}

#[test]
fn a_segment_that_cannot_be_read_is_told_and_tried_again() {
    let Some(mut rig) = Rig::start("reject-new") else {
        return;
    };
    // Two segments that are closed, and two that are not.
    rig.put(ALONE);
    rig.edge.kill9();
    // The first that is read is the header of the first segment.
    rig.edge
        .set_variables(rig.points.at("pread", 1, How::Fails));
    rig.edge.restart();
    assert!(rig.wait_trimmed());
    let status = rig.status().unwrap();
    let damaged = status["damaged"].as_array().unwrap();
    let why = damaged[0]["why"].as_str().unwrap();
    assert!(damaged.len() == 1 && why.contains("os error 5"), "{status}");
    let got = rig.cloud.python().get_all("v/**?_time=[now(-2h)..now()]");
    let missing = rig.tried.missing(got.samples).len();
    assert!((1..100).contains(&missing), "{missing}: one segment");
    rig.edge.term();
    let (held, _) = rig.drain();
    assert_eq!(rig.tried.missing(held), Vec::<String>::new());
}
