//! A vehicle and its cloud on a line that is reset, swallows everything, carries one way only, comes and
//! goes, or is slow, while samples are put all the time: the cloud has each once, as it was put. And what it
//! costs to find out that nothing is missing.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use weir_e2e::{
    Client, Router, http,
    line::{Line, Way},
    python::packed,
    rng::Rng,
    say,
    time::rfc3339,
    until_within,
};

/// Times that the line comes and goes, unless `WEIR_FORWARD_FLAPS` says otherwise.
const FLAPS: usize = 20;
const KEYS: u64 = 50;
/// A few at a time, which fit into one of the client's buffers: see `drop` there.
const EVERY_MS: u64 = 10;
const BATCH: u64 = 5;
/// Longer than Zenoh waits before it takes a silent line for a dead one, which is 2 s here.
const LONG: Duration = Duration::from_secs(4);
/// 16 kbit/s.
const SLOW: u64 = 2_000;
/// In long samples, two megabytes a second: more than the sockets along the line hold back.
const PAD: usize = 4_000;
const PATIENCE: Duration = Duration::from_secs(120);

/// A vehicle, its cloud, and the line between them.
struct Rig {
    edge: Router,
    cloud: Router,
    line: Line,
}

/// What is put.
struct Load {
    /// Milliseconds from a few samples to the next.
    every_ms: AtomicU64,
    /// Bytes that each is longer.
    pad: AtomicUsize,
    stop: AtomicBool,
}

/// What a link's status counts.
#[derive(Clone, Copy, Debug)]
struct Counts {
    appended: u64,
    /// Records that were shipped, and of these what was there already.
    shipped: u64,
    superfluous: u64,
    /// Records that were shipped again.
    resent: u64,
    /// Bytes of questions and answers.
    frames: u64,
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_nanos()).unwrap()
}

/// A record, as a series answers it.
type Record = (String, String, Vec<u8>);

/// Puts samples at a steady rate until told to stop. What the cloud has to have.
fn put(client: &mut Client, load: &Load) -> Vec<Record> {
    let mut put = Vec::new();
    while !load.stop.load(Relaxed) {
        let due = Instant::now() + Duration::from_millis(load.every_ms.load(Relaxed));
        let (first, at) = (put.len() as u64, now());
        let pad = "x".repeat(load.pad.load(Relaxed));
        let value = |n: u64| format!("{{\"n\":{n}}}{pad}");
        let sample = |n: u64| {
            // A microsecond apart, and in the past.
            let (key, value) = (format!("v/42/{}", n % KEYS), value(n));
            json!({ "key": key, "value": packed(value), "at": at - 1_000_000 + (n - first) * 1_000, "drop": true })
        };
        let numbers = first..first + BATCH;
        let samples: Vec<Value> = numbers.clone().map(sample).collect();
        for (n, stamp) in numbers.zip(client.puts(&samples)) {
            put.push((format!("v/42/{}", n % KEYS), stamp, value(n).into_bytes()));
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    put
}

impl Rig {
    fn start() -> Self {
        // What is large would go around the line, through memory that both are in.
        let zenoh =
            "transport: { shared_memory: { enabled: false }, link: { tx: { lease: 2000 } } },";
        let cloud = Router::start_with(&format!(
            r#"id: "c1", {zenoh} storages: {{ s: {{
                key_expr: "v/**", backend: "rocksdb", history: "all", dir: "$DIR/s", mirror: false }} }},"#
        ));
        let line = Line::to(&cloud.endpoint);
        let edge = Router::start_with(&format!(
            r#"id: "ed", {zenoh}
            connect: {{ endpoints: ["{}"], retry: {{ period_init_ms: 100, period_max_ms: 500 }} }},
            forward: {{ cloud: {{ key_expr: "v/42/**", period: "500ms" }} }},"#,
            line.endpoint
        ));
        Self { edge, cloud, line }
    }

    #[track_caller]
    fn wait(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        until_within(PATIENCE, what, || {
            let status = self.edge.rest_value("@weir/ed/forward/cloud");
            let status = status.ok_or("no such link")?;
            match is_it(&status) {
                true => Ok(status),
                false => Err(status.to_string()),
            }
        })
    }

    /// Waits until the cloud has, for certain, all that was put up to now.
    #[track_caller]
    fn wait_certified(&self) {
        let now = rfc3339(now());
        self.wait(&format!("all until {now} is certified"), |status| {
            let through = status["upstreams"][0]["certified_through"].as_str();
            status["state"] == "up" && through.is_some_and(|through| through[..19] > now[..19])
        });
    }

    fn counts(&self) -> Counts {
        let status = self.edge.rest_value("@weir/ed/forward/cloud").unwrap();
        let upstream = &status["upstreams"][0];
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        Counts {
            appended: number(&status["appended"]),
            shipped: number(&upstream["shipped_records"]),
            superfluous: number(&upstream["superfluous"]),
            resent: number(&upstream["resent"]),
            frames: number(&upstream["asked_bytes"]) + number(&upstream["answered_bytes"]),
        }
    }

    /// How many samples the edge was sent, by Zenoh's own count.
    fn received(&self) -> u64 {
        const NAME: &str = "zenoh_rx_network_message_total{";
        let metrics = http::get(self.edge.http, "/metrics").body;
        let is_put = |line: &&str| line.starts_with(NAME) && line.contains(r#"message="put""#);
        let count = |line: &str| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
        metrics.lines().filter(is_put).map(count).sum()
    }

    /// Something happens to the line and ends; then the cloud gets what it missed. Gives how much that was,
    /// and how much was shipped in vain.
    #[track_caller]
    fn trouble(&self, what: &str, happens: impl FnOnce(&Line)) -> (u64, u64) {
        let before = self.counts();
        happens(&self.line);
        self.line.mend();
        self.line.limit(0);
        let mended = Instant::now();
        self.wait_certified();
        let after = self.counts();
        let superfluous = after.superfluous - before.superfluous;
        let missed = after.shipped - before.shipped - superfluous;
        let resent = after.resent - before.resent;
        say(&format!(
            "{what}: {} put, {missed} missed; shipped in vain {superfluous}, again {resent}; {} B of frames; certified after {:.1?}",
            after.appended - before.appended,
            after.frames - before.frames,
            mended.elapsed(),
        ));
        (missed, superfluous.max(resent))
    }
}

fn hold(span: Duration) {
    thread::sleep(span);
}

/// The line comes and goes: for 0.1 to 3 s it is cut, swallows all, or one way.
fn flap(line: &Line, flaps: usize) {
    let mut rng = Rng::from_environment();
    for _ in 0..flaps {
        match rng.below(4) {
            0 => line.cut(),
            1 => line.stall(),
            2 => line.stall_way(Way::There),
            _ => line.stall_way(Way::Back),
        }
        hold(Duration::from_millis(100 + rng.below(2_900)));
        line.mend();
        hold(Duration::from_millis(100 + rng.below(400)));
    }
}

/// Everything that may happen to the line.
fn suffer(rig: &Rig, load: &Load) {
    let flaps = std::env::var("WEIR_FORWARD_FLAPS");
    let flaps = flaps.map_or(FLAPS, |text| text.parse().unwrap());
    rig.wait_certified();
    // Calm: the line is away, and then it is there.
    let mut calm = Vec::new();
    calm.push(rig.trouble("reset", |line| {
        line.cut();
        hold(LONG);
    }));
    calm.push(rig.trouble("black hole", |line| {
        line.stall();
        hold(LONG);
    }));
    for (missed, in_vain) in calm {
        assert!(missed > 1_000, "{missed}: nothing was missed");
        assert!(in_vain * 200 <= missed, "{in_vain} in vain of {missed}");
    }
    rig.trouble("half-open, nothing gets there", |line| {
        line.stall_way(Way::There);
        hold(LONG);
    });
    rig.trouble("half-open, nothing comes back", |line| {
        line.stall_way(Way::Back);
        hold(LONG);
    });
    rig.trouble(&format!("{flaps} flaps"), |line| flap(line, flaps));
    load.pad.store(PAD, Relaxed);
    rig.trouble("16 kbit/s, too little for what is put", |line| {
        line.limit(SLOW);
        hold(LONG);
        load.pad.store(0, Relaxed);
    });
    rig.trouble("16 kbit/s, enough for little and a backlog", |line| {
        line.cut();
        hold(LONG);
        load.every_ms.store(1_000, Relaxed);
        line.limit(SLOW);
        line.mend();
        rig.wait_certified();
    });
}

#[test]
fn the_cloud_has_every_sample_once_whatever_becomes_of_the_line() {
    let rig = Rig::start();
    let mut client = rig.edge.python();
    let load = Load {
        every_ms: AtomicU64::new(EVERY_MS),
        pad: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
    };
    let mut expected = thread::scope(|scope| {
        let putting = scope.spawn(|| put(&mut client, &load));
        // Whatever fails, the thread has to end before the scope does.
        let suffered =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| suffer(&rig, &load)));
        load.stop.store(true, Relaxed);
        let put = putting.join().unwrap();
        if let Err(why) = suffered {
            std::panic::resume_unwind(why);
        }
        put
    });
    let status = rig.wait("all is certified", |status| {
        status["state"] == "up" && status["queued"]["records"] == 0
    });
    assert_eq!(status["lost"], json!([]), "{status}");
    let got = rig.cloud.python().get_all("v/**?_time=[now(-1h)..now()]");
    assert_eq!(got.errors, Vec::<String>::new());
    let record = |sample: weir_e2e::Sample| (sample.key, sample.timestamp.unwrap(), sample.value);
    let mut held: Vec<Record> = got.samples.into_iter().map(record).collect();
    held.sort();
    // What is put without waiting may be dropped before it comes to the router, most likely by a client that
    // gets no processor; all that comes is in the journal, and in the cloud.
    let received = rig.received();
    assert_eq!(status["appended"], received, "not all is in the journal");
    assert_eq!(held.len() as u64, received, "not all is in the cloud");
    let put = expected.len();
    expected.retain(|record| held.binary_search(record).is_ok());
    let dropped = put - expected.len();
    assert!(dropped * 20 <= put, "{dropped} of {put} never came");
    expected.sort();
    let differs = held.iter().zip(&expected).find(|(one, other)| one != other);
    assert_eq!((held.len(), differs), (expected.len(), None));

    // All of that is still kept, in case the upstream is restored, so all of it is compared.
    assert!(status["kept"]["records"].as_u64() >= Some(expected.len() as u64));
    let before = rig.counts();
    rig.line.cut();
    rig.wait("it is down", |status| status["state"] == "down");
    rig.line.mend();
    rig.wait("it is up", |status| status["state"] == "up");
    let after = rig.counts();
    let (frames, shipped) = (after.frames - before.frames, after.shipped - before.shipped);
    say(&format!(
        "{} samples, each there once, {dropped} that never came; to reconnect with nothing missing took {frames} B of frames",
        expected.len()
    ));
    assert!(
        frames <= 4_096 && shipped == 0,
        "{frames} B, {shipped} shipped"
    );
}
