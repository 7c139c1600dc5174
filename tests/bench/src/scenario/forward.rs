//! An outage, and what happens when it ends: how fast a backlog leaves a vehicle, and how many bytes that
//! takes, against the same samples put over the same line by plain Zenoh.
//!
//! The line is a process's own proxy that can be cut and counts what passes; the samples are a recorded
//! flight. After each run the cloud must hold every sample once, byte for byte.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result, ensure};
use serde_json::Value;
use weir_e2e::{flight, line::Line};
use zenoh::{
    Session, Wait as _,
    qos::{CongestionControl, Reliability},
};

use super::{Bench, series};
use crate::{
    client,
    dataset::digest,
    report::{Report, Row, Target, Unit},
    router::{Kind, Router, Storages},
};

/// Samples that wait when the outage ends.
const SAMPLES: usize = 600_000;
/// Bytes a second of the lines: 100 Mbit/s, and 10.
const FAST: u64 = 12_500_000;
const SLOW: u64 = 1_250_000;
const DRAIN: Duration = Duration::from_secs(300);

/// What a run showed.
#[derive(Debug, Default)]
struct Drained {
    /// Samples a second, from when the first one leaves.
    rate: f64,
    /// That passed the line for all of them.
    bytes: f64,
    /// From the end of the outage until the first one leaves, in milliseconds.
    wait: f64,
    /// CPU time of the router that sends, in microseconds a sample.
    cpu: f64,
}

/// Keys and values in the order of the flight, over again until there are enough.
struct Samples(Vec<(String, String)>);

impl Samples {
    fn read(count: usize) -> Option<Self> {
        let recorded = flight::read("px4-flight-181s.ndjson.zst", usize::MAX)?;
        let sample = |n: usize| {
            let recorded = &recorded[n % recorded.len()];
            let key = format!("bench/flight/{}", recorded.topic);
            (key, recorded.value.clone())
        };
        Some(Self((0..count).map(sample).collect()))
    }

    fn digest(&self) -> u64 {
        let digests = self
            .0
            .iter()
            .map(|(key, value)| digest(key, value.as_bytes()));
        digests.fold(0, u64::wrapping_add)
    }

    fn put(&self, session: &Session) -> Result<()> {
        for (key, value) in &self.0 {
            session
                .put(key, value.as_str())
                .congestion_control(CongestionControl::Block)
                .reliability(Reliability::Reliable)
                .wait()
                .map_err(Error::from_boxed)?;
        }
        Ok(())
    }
}

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    if bench
        .present([Kind::Weir(Storages::Series)], report)
        .is_empty()
    {
        return Ok(());
    }
    let samples =
        Samples::read(bench.scaled(SAMPLES)).context("the recorded flight is not there")?;
    let (mut links, mut plains) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        links.push([drain(bench, &samples, 0)?, drain(bench, &samples, FAST)?]);
        plains.push([relay(bench, &samples, 0)?, relay(bench, &samples, FAST)?]);
    }
    let of = |runs: &[[Drained; 2]], line: usize, figure: fn(&Drained) -> f64| {
        series(runs, |run| figure(&run[line]))
    };
    let count = samples.0.len();
    for (line, name, target) in [
        (0, "a line without limits", Target::None),
        (1, "100 Mbit/s", Target::AtLeast(2.0)),
    ] {
        let notes = format!(
            "first one after {:.0} ms; CPU a sample {:.2} / {:.2} us",
            of(&links, line, |run| run.wait).median(),
            of(&links, line, |run| run.cpu).median(),
            of(&plains, line, |run| run.cpu).median(),
        );
        report.row(Row {
            name: format!(
                "{count} samples of a flight after an outage, {name}: a link / plain Zenoh"
            ),
            unit: Unit::Rate,
            ours: of(&links, line, |run| run.rate),
            yardstick: of(&plains, line, |run| run.rate),
            target,
            notes,
        });
    }
    let each = |runs: &[[Drained; 2]]| of(runs, 1, |run| run.bytes).median() / count as f64;
    report.row(Row {
        name: "the bytes of that on the line: a link / plain Zenoh".to_owned(),
        unit: Unit::Bytes,
        ours: of(&links, 1, |run| run.bytes),
        yardstick: of(&plains, 1, |run| run.bytes),
        target: Target::AtMost(1.0 / 6.0),
        notes: format!("{:.1} / {:.1} B a sample", each(&links), each(&plains)),
    });
    let mut lives = Vec::new();
    for _ in 0..bench.rounds {
        lives.push([live(bench, &samples, FAST)?, live(bench, &samples, SLOW)?]);
    }
    for (at, line, target) in [
        (0, "100 Mbit/s", Target::AtMost(1.0)),
        (1, "10 Mbit/s", Target::None),
    ] {
        let of = |figure: fn(&Live) -> f64| series(&lives, |run| figure(&run[at]));
        report.row(Row {
            name: format!(
                "live samples while that drains, p99, {line} / 1.5 times the idle one and 5 ms"
            ),
            unit: Unit::Millis,
            ours: of(|live| live.draining),
            yardstick: of(|live| live.idle * 1.5 + 5.0),
            target,
            notes: format!("idle {:.2} ms", of(|live| live.idle).median()),
        });
    }
    report.row(Row {
        name: "what that uses of 10 Mbit/s, a second, live samples included".to_owned(),
        unit: Unit::Bytes,
        ours: series(&lives, |run| run[1].used),
        yardstick: series(&lives, |_| SLOW as f64),
        target: Target::AtLeast(0.9),
        notes: "while the second to the ninth tenth of the backlog drain".to_owned(),
    });
    report.row(Row {
        name: "from the end of an outage to the first live sample: with a backlog / without"
            .to_owned(),
        unit: Unit::Millis,
        ours: series(&lives, |run| run[0].first_behind),
        yardstick: series(&lives, |run| run[0].first),
        target: Target::AtMost(1.2),
        notes: "outages of one length; Zenoh tries to connect ten times a second".to_owned(),
    });
    Ok(())
}

/// From one live sample to the next.
const LIVE_PERIOD: Duration = Duration::from_millis(2);

/// What live samples take, in milliseconds.
#[derive(Debug, Default)]
struct Live {
    /// The slowest of a hundred while nothing else is sent.
    idle: f64,
    /// The same while a backlog drains.
    draining: f64,
    /// From the end of an outage to the first live sample, without a backlog.
    first: f64,
    /// The same with one.
    first_behind: f64,
    /// Bytes a second that pass while a backlog drains, but for its begin and its end.
    used: f64,
}

/// A publisher of live samples at the edge and a subscriber at the cloud, of one clock.
struct Beat {
    took: Receiver<(Instant, Instant)>,
    is_over: Arc<AtomicBool>,
    publisher: Option<thread::JoinHandle<()>>,
    _subscriber: zenoh::pubsub::Subscriber<()>,
    // Without its session a subscriber receives nothing.
    _cloud: Session,
}

impl Beat {
    fn start(edge: Session, cloud: Session) -> Result<Self> {
        let began = Instant::now();
        let (told, took) = channel();
        let subscriber = cloud
            .declare_subscriber("bench/live")
            .callback(move |sample| {
                let bytes = sample.payload().to_bytes();
                if let Some(micros) = bytes.first_chunk().copied().map(u64::from_be_bytes) {
                    let sent = began + Duration::from_micros(micros);
                    // Who measures no more needs no more.
                    let _ = told.send((sent, Instant::now()));
                }
            })
            .wait()
            .map_err(Error::from_boxed)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let publisher = thread::spawn(move || {
            while !over.load(Relaxed) {
                let now = u64::try_from(began.elapsed().as_micros()).unwrap_or_default();
                let put = edge.put("bench/live", now.to_be_bytes().to_vec());
                if put
                    .congestion_control(CongestionControl::Drop)
                    .wait()
                    .is_err()
                {
                    return;
                }
                thread::sleep(LIVE_PERIOD);
            }
        });
        Ok(Self {
            took,
            is_over,
            publisher: Some(publisher),
            _subscriber: subscriber,
            _cloud: cloud,
        })
    }

    /// What samples took that were sent between two moments, sorted, in milliseconds.
    fn between(&self, from: Instant, to: Instant) -> Vec<f64> {
        let mut took: Vec<f64> = self
            .took
            .try_iter()
            .filter(|(sent, _)| from <= *sent && *sent < to)
            .map(|(sent, came)| (came - sent).as_secs_f64() * 1e3)
            .collect();
        took.sort_by(f64::total_cmp);
        took
    }

    /// Waits for the first sample that was sent after a moment; how long after it that came.
    fn first(&self, from: Instant) -> Result<f64> {
        loop {
            let (sent, came) = self.took.recv_timeout(DRAIN)?;
            if sent > from {
                return Ok((came - from).as_secs_f64() * 1e3);
            }
        }
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        if let Some(publisher) = self.publisher.take() {
            // It only publishes: what it has to say is said.
            let _ = publisher.join();
        }
    }
}

/// What a backlog does to what is live, on a line of so many bytes a second.
fn live(bench: &Bench, samples: &Samples, limit: u64) -> Result<Live> {
    let (cloud_home, edge_home) = (bench.home()?, bench.home()?);
    let cloud = bench.start(&Kind::Weir(Storages::Series), &cloud_home)?;
    let line = Line::to(&cloud.endpoint);
    line.limit(limit);
    let link = Kind::Weir(Storages::Forward(line.endpoint.clone()));
    let edge = bench.start(&link, &edge_home)?;
    let session = edge.client()?;
    let wait_for =
        |wanted: &'static str| client::poll(DRAIN, wanted, || Ok(outbox(&session)?.1 == wanted));
    let until_left = |left: u64| {
        client::poll(DRAIN, "the backlog does not end", || {
            Ok(outbox(&session)?.0 < left)
        })
    };
    wait_for("up")?;
    let beat = Beat::start(edge.client()?, cloud.client()?)?;
    let began = Instant::now();
    beat.first(began)?;
    let from = Instant::now();
    thread::sleep(Duration::from_secs(5));
    let p99 = |took: &[f64]| took.get(took.len() * 99 / 100).copied();
    let idle = p99(&beat.between(from, Instant::now())).context("no live samples")?;

    line.cut();
    let cut = Instant::now();
    wait_for("down")?;
    samples.put(&session)?;
    let waiting = samples.0.len() as u64;
    client::poll(DRAIN, "not all of it waits", || {
        Ok(outbox(&session)?.0 >= waiting)
    })?;
    let mended = Instant::now();
    line.mend();
    let first_behind = beat.first(mended)?;
    wait_for("draining")?;
    let from = Instant::now();
    until_left(waiting * 9 / 10)?;
    let (second, passed) = (Instant::now(), line.passed());
    until_left(waiting / 10)?;
    let used = (line.passed() - passed) as f64 / second.elapsed().as_secs_f64();
    let draining = p99(&beat.between(from, Instant::now())).context("no live samples")?;
    until_left(10_000)?;
    wait_for("up")?;

    let outage = mended - cut;
    line.cut();
    thread::sleep(outage);
    let mended = Instant::now();
    line.mend();
    let first = beat.first(mended)?;
    drop(beat);
    edge.stop()?;
    cloud.stop()?;
    Ok(Live {
        idle,
        draining,
        first,
        first_behind,
        used,
    })
}

/// What waits in the link's outbox, and the state of the link.
fn outbox(session: &Session) -> Result<(u64, String)> {
    let statuses = client::statuses(session, "@weir/*/forward/cloud")?;
    let status = statuses.first().context("no status of the link")?;
    let queued = status.pointer("/queued/records").and_then(Value::as_u64);
    let state = status["state"].as_str().unwrap_or_default().to_owned();
    Ok((queued.with_context(|| status.to_string())?, state))
}

/// Cuts a line of so many bytes a second, lets everything wait, mends it.
fn drain(bench: &Bench, samples: &Samples, limit: u64) -> Result<Drained> {
    let (cloud_home, edge_home) = (bench.home()?, bench.home()?);
    let cloud = bench.start(&Kind::Weir(Storages::Series), &cloud_home)?;
    let line = Line::to(&cloud.endpoint);
    line.limit(limit);
    let link = Kind::Weir(Storages::Forward(line.endpoint.clone()));
    let edge = bench.start(&link, &edge_home)?;
    let session = edge.client()?;
    client::poll(DRAIN, "the link finds no upstream", || {
        Ok(outbox(&session)?.1 == "up")
    })?;
    line.cut();
    client::poll(DRAIN, "the link does not notice the outage", || {
        Ok(outbox(&session)?.1 == "down")
    })?;
    samples.put(&session)?;
    let total = samples.0.len() as u64;
    client::poll(DRAIN, "not all of it waits", || {
        Ok(outbox(&session)?.0 == total)
    })?;
    let (passed, cpu) = (line.passed(), edge.process.cpu()?);
    let mended = Instant::now();
    line.mend();
    let mut first = None;
    client::poll(DRAIN, "the backlog does not end", || {
        if first.is_none() && line.passed() > passed + (64 << 10) {
            first = Some(Instant::now());
        }
        Ok(outbox(&session)?.0 == 0)
    })?;
    let (ended, bytes) = (Instant::now(), line.passed() - passed);
    let cpu = edge.process.cpu()? - cpu;
    let first = first.context("nothing passed")?;
    let far = cloud.client()?;
    let stored = client::get(&far, "bench/flight/**?_time=[now(-1h)..]")?;
    let sum = stored.iter().fold(0, |sum: u64, (key, value)| {
        sum.wrapping_add(digest(key, value))
    });
    ensure!(
        stored.len() as u64 == total && sum == samples.digest(),
        "the cloud holds {} samples of {total}, or others",
        stored.len()
    );
    edge.stop()?;
    cloud.stop()?;
    Ok(Drained {
        rate: total as f64 / (ended - first).as_secs_f64(),
        bytes: bytes as f64,
        wait: (first - mended).as_secs_f64() * 1e3,
        cpu: cpu.as_secs_f64() * 1e6 / total as f64,
    })
}

/// The same samples put as they are, through a router without a link, to one that counts them.
fn relay(bench: &Bench, samples: &Samples, limit: u64) -> Result<Drained> {
    let (cloud_home, edge_home) = (bench.home()?, bench.home()?);
    let cloud = bench.start(&Kind::Counting, &cloud_home)?;
    let line = Line::to(&cloud.endpoint);
    line.limit(limit);
    let relay = Kind::Weir(Storages::Relay(line.endpoint.clone()));
    let edge: Router = bench.start(&relay, &edge_home)?;
    let (session, far) = (edge.client()?, cloud.client()?);
    // Until the edge knows who subscribes, what is put ends there.
    client::poll(DRAIN, "nothing arrives", || {
        session
            .put("bench/probe", "probe")
            .wait()
            .map_err(Error::from_boxed)?;
        Ok(client::counted(&far)? > 0)
    })?;
    let settled = client::counted(&far)?;
    let (passed, cpu) = (line.passed(), edge.process.cpu()?);
    let began = Instant::now();
    samples.put(&session)?;
    let total = samples.0.len() as u64;
    client::poll(DRAIN, "not all of it arrives", || {
        Ok(client::counted(&far)? >= settled + total)
    })?;
    let (took, cpu) = (began.elapsed(), edge.process.cpu()? - cpu);
    let bytes = line.passed() - passed;
    edge.stop()?;
    cloud.stop()?;
    Ok(Drained {
        rate: total as f64 / took.as_secs_f64(),
        bytes: bytes as f64,
        wait: 0.0,
        cpu: cpu.as_secs_f64() * 1e6 / total as f64,
    })
}
