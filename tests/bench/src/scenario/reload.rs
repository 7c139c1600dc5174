//! What swapping a policy costs while samples come at full rate.
//!
//! The file of a policy that is asked about every sample is replaced again and again, each time by a
//! module that the router has to take for a new revision. Meanwhile a client puts with an
//! acknowledgement, one after the other: that is how long a sample takes to be decided and stored. At
//! the end the router must have asked the policy about every sample that was sent: none fell to the
//! native rule, none was asked about by two revisions.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result, ensure};
use serde_json::Value;
use zenoh::{Session, Wait as _, query::ConsolidationMode};

use super::{Bench, series};
use crate::{
    client,
    dataset::Share,
    report::{Report, Row, Target, Unit},
    router::{Kind, Placed, Storages},
    worker::{Publish, Published},
};

const KEYS: usize = 10_000;
/// Outside of what the publisher puts.
const PROBE: &str = "bench/latency";
/// Between two looks at what serves.
const LOOK: Duration = Duration::from_millis(5);
/// How long a swap may take.
const PATIENCE: Duration = Duration::from_secs(30);

struct Outcome {
    /// 99 of 100 acknowledged puts took at most so long, in milliseconds.
    p99: f64,
    /// From the rename to the revision that serves, in milliseconds, a number for each swap.
    swaps: Vec<f64>,
    /// Memory at the end over memory after a quarter of the time.
    growth: f64,
}

/// Measures without and with swaps in turn, round by round.
pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let kind = Kind::Weir(Storages::Sharded(Placed::BySample));
    if bench.present([kind.clone()], report).is_empty() {
        return Ok(());
    }
    let (mut still, mut swapped) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        for (outcomes, swaps) in [(&mut still, false), (&mut swapped, true)] {
            let outcome = measure(bench, &kind, swaps)?;
            eprintln!(
                "  {} swaps: p99 {:.2} ms, memory x {:.2}",
                outcome.swaps.len(),
                outcome.p99,
                outcome.growth
            );
            outcomes.push(outcome);
        }
    }
    let count: usize = swapped.iter().map(|outcome| outcome.swaps.len()).sum();
    let growth = series(&swapped, |outcome| outcome.growth).median();
    report.row(Row {
        name: "acknowledged put, p99, at full rate: a policy that is swapped / one that stays"
            .into(),
        unit: Unit::Millis,
        ours: series(&swapped, |outcome| outcome.p99),
        yardstick: series(&still, |outcome| outcome.p99),
        target: Target::AtMost(1.5),
        notes: format!("{count} swaps, every sample decided once; memory x {growth:.2}"),
    });
    let mut times: Vec<f64> = swapped
        .into_iter()
        .flat_map(|outcome| outcome.swaps)
        .collect();
    times.sort_by(f64::total_cmp);
    let at = |part: usize| {
        times
            .get(times.len() * part / 100)
            .copied()
            .unwrap_or_default()
    };
    eprintln!(
        "  from a file's rename to its first batch: p50 {:.0} ms, p99 {:.0} ms",
        at(50),
        at(99)
    );
    Ok(())
}

fn measure(bench: &Bench, kind: &Kind, swaps: bool) -> Result<Outcome> {
    let home = bench.home()?;
    let router = bench.start(kind, &home)?;
    let session = router.client()?;
    let seconds = bench.publish_seconds() * 10.0;
    let publish = Publish {
        seconds,
        warm_up: true,
        ..Publish::new(router.endpoint.clone(), 64, KEYS)
    };
    let mut publisher = bench.worker(publish.arguments())?;
    publisher.wait_line(client::PATIENCE, |line| (line == "ready").then_some(()))?;
    let deadline = Instant::now() + Duration::from_secs_f64(seconds);
    publisher.tell("go")?;
    let policies = home.path().join("policies");
    let swapping = router.client()?;
    let (times, swaps) = thread::scope(|scope| {
        let swapper = scope.spawn(|| -> Result<Vec<f64>> {
            let mut times = Vec::new();
            while swaps && Instant::now() < deadline {
                times.push(swap(&swapping, &policies, times.len())?);
            }
            Ok(times)
        });
        let early = deadline - Duration::from_secs_f64(seconds * 0.75);
        let times = put_until(&session, early).and_then(|mut times| {
            let early = router.process.resident()?;
            times.extend(put_until(&session, deadline)?);
            let late = router.process.resident()?;
            Ok((times, late as f64 / early.max(1) as f64))
        });
        (times, swapper.join())
    });
    let (mut times, growth) = times?;
    let swaps = swaps.map_err(|_| Error::msg("the swapper panicked"))??;
    let published: Published = publisher.answer(client::PATIENCE)?;
    let sent: (Share, u64) = (publish.share(), published.sent);
    client::wait_stored(&session, std::slice::from_ref(&sent), client::PATIENCE)?;
    check_decided(&session, published.sent + times.len() as u64)?;
    publisher.stop(Duration::from_secs(10))?;
    router.stop()?;
    times.sort_unstable();
    let p99 = times
        .get(times.len() * 99 / 100)
        .context("nothing was put")?;
    Ok(Outcome {
        p99: p99.as_secs_f64() * 1e3,
        swaps,
        growth,
    })
}

/// Puts with an acknowledgement, one after the other; how long each took.
fn put_until(session: &Session, deadline: Instant) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    while Instant::now() < deadline {
        let start = Instant::now();
        put(session)?;
        times.push(start.elapsed());
    }
    Ok(times)
}

fn put(session: &Session) -> Result<()> {
    let replies = session
        .get(format!("{PROBE}?_put"))
        .payload("probe")
        .consolidation(ConsolidationMode::None)
        .timeout(PATIENCE)
        .wait()
        .map_err(Error::from_boxed)?;
    let reply = replies.recv().map_err(Error::from_boxed)?;
    match reply.result() {
        Ok(_) => Ok(()),
        Err(error) => {
            let why = error.payload().try_to_string().unwrap_or_default();
            Err(Error::msg(format!("a put was refused: {why}")))
        }
    }
}

/// Replaces the module by one that differs in nothing but a section that nobody reads, and waits until
/// it serves; how long that took, in milliseconds.
fn swap(session: &Session, policies: &Path, number: usize) -> Result<f64> {
    let file = policies.join("hot-key-spread.wasm");
    let mut module = fs::read(&file)?;
    if number > 0 {
        module.truncate(module.len() - SECTION);
    }
    // Two revisions in turn: both are in the cache of compiled modules after the first round.
    let number = u8::try_from(number % 2)?;
    module.extend([0, 6, 4, b'o', b'd', b'd', b'?', number]);
    let before = revision(session)?;
    let part = policies.join("part");
    fs::write(&part, &module)?;
    let start = Instant::now();
    fs::rename(&part, &file)?;
    loop {
        if revision(session)? != before {
            return Ok(start.elapsed().as_secs_f64() * 1e3);
        }
        ensure!(start.elapsed() < PATIENCE, "a swap does not happen");
        thread::sleep(LOOK);
    }
}

/// Bytes of the section that [`swap`] appends.
const SECTION: usize = 8;

/// The revision that serves.
fn revision(session: &Session) -> Result<String> {
    let slot = slot(session)?;
    let revision = slot.get("revision").and_then(Value::as_str);
    Ok(revision.context("nothing serves")?.to_owned())
}

fn slot(session: &Session) -> Result<Value> {
    let policies = client::statuses(session, "@weir/*/policies/*")?;
    let slot = policies
        .iter()
        .find_map(|policy| policy.pointer("/slots/0"));
    slot.cloned().context("no policy is bound")
}

/// The policy was asked about every sample, once.
fn check_decided(session: &Session, sent: u64) -> Result<()> {
    let slot = slot(session)?;
    let figure = |name: &str| slot.get(name).and_then(Value::as_u64).unwrap_or_default();
    let asked = figure("samples");
    // Before the run the storage was asked for a probe: two samples more each time it was not there.
    ensure!(
        figure("native") == 0 && figure("fallbacks") == 0 && asked >= sent && asked < sent + 1_000,
        "{sent} samples were sent, {asked} decided: {slot}"
    );
    Ok(())
}
