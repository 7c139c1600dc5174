//! How many samples a second a router takes in, and what a sample costs.
//!
//! The limit is the same router without a storage, with a subscriber in its process that only
//! counts; a plain Zenoh router that counts shows what the rest of ours costs. A run lasts from
//! the word to go until the last sample is counted, or stored and readable; after it every key
//! must hold its last value. One sample more or less fails the scenario.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use zenoh::Session;

use super::{Bench, series};
use crate::{
    client,
    dataset::Share,
    report::{Report, Row, Target, Unit},
    router::{Kind, Router, StockVolume},
    worker::{Publish, Published, Yardstick},
};

/// Few enough to fit every cache: what is measured is the way in, not the size of an index.
const KEYS: usize = 10_000;

/// How long a router may need for what is still queued: the stock one is sent three seconds'
/// worth at most, since its publisher waits.
const DRAIN: Duration = Duration::from_secs(120);

/// Who publishes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// One session that puts with the whole key.
    Undeclared,
    /// One session with a publisher declared for each key.
    Declared,
    /// Four sessions in four processes, a quarter of the keys each, with the whole key.
    Four,
}

impl Mode {
    fn describe(self) -> &'static str {
        match self {
            Self::Undeclared => "1 publisher",
            Self::Declared => "1 publisher, keys declared",
            Self::Four => "4 publishers",
        }
    }
}

/// What one run showed.
pub(super) struct Outcome {
    /// Samples a second.
    pub rate: f64,
    /// CPU time of the router, in microseconds a sample.
    pub router_cpu: f64,
    /// CPU time of the publishers, in microseconds a sample.
    publisher_cpu: f64,
    /// Memory of the router right after the run, in bytes.
    resident: f64,
}

/// Measures all contestants in turn, round by round.
pub fn run(bench: &Bench, report: &mut Report, size: usize, mode: Mode) -> Result<()> {
    let plain = Kind::Yardstick(Yardstick {
        count: true,
        ..Yardstick::bare()
    });
    let limit = Kind::Counting;
    let memory = Kind::weir("memory", "written");
    let written = Kind::weir("rocksdb", "written");
    let synced = Kind::weir("rocksdb", "synced");
    let mut kinds = vec![
        plain.clone(),
        limit.clone(),
        memory.clone(),
        written.clone(),
        synced.clone(),
    ];
    let stock_memory = Kind::Stock(StockVolume::Memory);
    let stock_rocksdb = Kind::Stock(StockVolume::RocksDb);
    if mode == Mode::Undeclared {
        kinds.extend([stock_memory.clone(), stock_rocksdb.clone()]);
    }
    let kinds = bench.present(kinds, report);
    let mut outcomes: Vec<(String, Vec<Outcome>)> =
        kinds.iter().map(|kind| (kind.name(), Vec::new())).collect();
    for _ in 0..bench.rounds {
        for (kind, (name, outcomes)) in kinds.iter().zip(&mut outcomes) {
            let outcome = measure(bench, kind, size, mode).with_context(|| name.clone())?;
            eprintln!(
                "  {name}: {:.1} k/s, router {:.2} us, publisher {:.2} us a sample, {:.0} MiB",
                outcome.rate / 1e3,
                outcome.router_cpu,
                outcome.publisher_cpu,
                outcome.resident / f64::from(1 << 20)
            );
            outcomes.push(outcome);
        }
    }
    let find = |kind: &Kind| outcomes.iter().find(|(name, _)| *name == kind.name());
    for (ours, yardstick, target) in [
        (&memory, &limit, Target::AtLeast(0.9)),
        (&written, &limit, Target::AtLeast(0.75)),
        (&synced, &limit, Target::AtLeast(0.6)),
        (&memory, &stock_memory, Target::None),
        (&written, &stock_rocksdb, Target::AtLeast(6.0)),
        (&limit, &plain, Target::None),
        (&stock_memory, &limit, Target::None),
        (&stock_rocksdb, &limit, Target::None),
    ] {
        if let (Some(ours), Some(yardstick)) = (find(ours), find(yardstick)) {
            report.row(row(ours, yardstick, target, size, mode));
        }
    }
    Ok(())
}

fn row(
    (name, ours): &(String, Vec<Outcome>),
    (other, yardstick): &(String, Vec<Outcome>),
    target: Target,
    size: usize,
    mode: Mode,
) -> Row {
    let median =
        |outcomes: &[Outcome], figure: fn(&Outcome) -> f64| series(outcomes, figure).median();
    let other = if other == "yardstick" {
        "plain Zenoh counting"
    } else {
        other
    };
    Row {
        name: format!("ingest {size} B, {}: {name} / {other}", mode.describe()),
        unit: Unit::Rate,
        ours: series(ours, |outcome| outcome.rate),
        yardstick: series(yardstick, |outcome| outcome.rate),
        target,
        notes: format!(
            "CPU a sample: router {:.2} / {:.2} us, publisher {:.2} / {:.2} us; {:.0} / {:.0} MiB",
            median(ours, |outcome| outcome.router_cpu),
            median(yardstick, |outcome| outcome.router_cpu),
            median(ours, |outcome| outcome.publisher_cpu),
            median(yardstick, |outcome| outcome.publisher_cpu),
            median(ours, |outcome| outcome.resident) / f64::from(1 << 20),
            median(yardstick, |outcome| outcome.resident) / f64::from(1 << 20),
        ),
    }
}

fn measure(bench: &Bench, kind: &Kind, size: usize, mode: Mode) -> Result<Outcome> {
    measure_and(bench, kind, size, mode, |_, _| Ok(()))
}

/// [`measure_run`] over the usual keys.
pub(super) fn measure_and(
    bench: &Bench,
    kind: &Kind,
    size: usize,
    mode: Mode,
    look: impl FnOnce(&Session, u64) -> Result<()>,
) -> Result<Outcome> {
    let run = Run {
        kind,
        size,
        mode,
        keys: KEYS,
        loaded: false,
    };
    measure_run(bench, &run, |_| Ok(()), look)
}

/// What is measured.
pub(super) struct Run<'k> {
    /// The router.
    pub kind: &'k Kind,
    /// Bytes of a sample.
    pub size: usize,
    /// Who publishes.
    pub mode: Mode,
    /// On how many keys.
    pub keys: usize,
    /// They are there when publishing begins: `before` has put each once, scattered, and they are
    /// overwritten in that order.
    pub loaded: bool,
}

/// One run, after which every key must hold its last value. `before` is called before anything is
/// published, `look` before the router is stopped, with the number of samples that it took.
pub(super) fn measure_run(
    bench: &Bench,
    &Run {
        kind,
        size,
        mode,
        keys,
        loaded,
    }: &Run<'_>,
    before: impl FnOnce(&Router) -> Result<()>,
    look: impl FnOnce(&Session, u64) -> Result<()>,
) -> Result<Outcome> {
    let home = bench.home()?;
    let router = bench.start(kind, &home)?;
    before(&router)?;
    let session = router.client()?;
    let of = if mode == Mode::Four { 4 } else { 1 };
    let plan = |publisher| {
        let plan = Publish {
            publisher,
            of,
            seconds: bench.publish_seconds(),
            declared: mode == Mode::Declared,
            scattered: loaded,
            ..Publish::new(router.endpoint.clone(), size, keys)
        };
        let len = plan.share().len() as u64;
        Publish {
            warm_up: !loaded,
            first: if loaded { len } else { 0 },
            ..plan
        }
    };
    let plans: Vec<Publish> = (0..of).map(plan).collect();
    let mut workers = plans
        .iter()
        .map(|plan| bench.worker(plan.arguments()))
        .collect::<Result<Vec<_>>>()?;
    for worker in &workers {
        worker.wait_line(DRAIN, |line| (line == "ready").then_some(()))?;
    }
    let warm_up: Vec<(Share, u64)> = plans
        .iter()
        .map(|plan| (plan.share(), plan.share().len() as u64))
        .collect();
    wait_taken(kind, &session, &warm_up)?;
    let cpu = router.process.cpu()?;
    let start = Instant::now();
    for worker in &mut workers {
        worker.tell("go")?;
    }
    let published = workers
        .iter()
        .map(|worker| worker.answer(DRAIN))
        .collect::<Result<Vec<Published>>>()?;
    let sent: Vec<(Share, u64)> = plans
        .iter()
        .zip(&published)
        .map(|(plan, published)| (plan.share(), published.sent))
        .collect();
    wait_taken(kind, &session, &sent)?;
    let elapsed = start.elapsed();
    let cpu = router.process.cpu()? - cpu;
    let resident = router.process.resident()?;
    if !matches!(kind, Kind::Yardstick(_) | Kind::Counting) {
        client::check_stored(&session, &sent)?;
    }
    look(&session, total(&sent))?;
    for worker in workers {
        worker.stop(Duration::from_secs(10))?;
    }
    router.stop()?;
    let samples = (total(&sent) - total(&warm_up)) as f64;
    Ok(Outcome {
        rate: samples / elapsed.as_secs_f64(),
        router_cpu: cpu.as_secs_f64() * 1e6 / samples,
        publisher_cpu: published.iter().map(|published| published.cpu).sum::<f64>() * 1e6 / samples,
        resident: resident as f64,
    })
}

/// Waits until all samples are counted, or stored and readable.
fn wait_taken(kind: &Kind, session: &Session, sent: &[(Share, u64)]) -> Result<()> {
    match kind {
        Kind::Yardstick(_) | Kind::Counting => client::wait_counted(session, total(sent), DRAIN),
        _ => client::wait_stored(session, sent, DRAIN),
    }
}

fn total(sent: &[(Share, u64)]) -> u64 {
    sent.iter().map(|(_, sent)| sent).sum()
}
