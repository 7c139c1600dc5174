//! What it costs to be comparable: the same ingest into a storage that no mirror has ever compared, and
//! into one that has been, and so keeps its ledger with every batch.
//!
//! The mirror is a router of its own that is stopped again before anything is measured: what it would
//! itself take of the machine is not what a write costs.
//!
//! And how much later a change is stored on a mirror than on the router that it was put to: both
//! acknowledge it to one client.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context as _, Error, Result, ensure};
use serde_json::Value;
use zenoh::{
    Session, Wait as _,
    query::{ConsolidationMode, QueryTarget},
};

use super::{
    Bench,
    ingest::{Mode, Outcome, Run, measure_run},
    series,
};
use crate::{
    client,
    report::{Report, Row, Series, Target, Unit},
    router::{Kind, Router, Storages},
};

/// Bytes of a sample.
const SIZE: usize = 64;

/// Puts of which the moment of storing is measured.
const ARRIVALS: usize = 2_000;

/// Measures with and without in turn, round by round, over few keys and over many: of many, a batch
/// touches as many parts of the ledger as it has samples.
pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    for (keys, target) in [(10_000, 0.85), (bench.scaled(1_000_000), 0.85)] {
        let kind = Kind::weir("rocksdb", "written");
        if bench.present([kind.clone()], report).is_empty() {
            return Ok(());
        }
        let mut outcomes: [Vec<Outcome>; 2] = Default::default();
        for _ in 0..bench.rounds {
            for (compared, outcomes) in [false, true].into_iter().zip(&mut outcomes) {
                let run = Run {
                    kind: &kind,
                    size: SIZE,
                    mode: Mode::Undeclared,
                    keys,
                    loaded: false,
                };
                let before = |router: &Router| {
                    if compared {
                        compare_once(bench, router)?;
                    }
                    Ok(())
                };
                let outcome = measure_run(bench, &run, before, |_, _| Ok(()))
                    .with_context(|| format!("{keys} keys, compared: {compared}"))?;
                eprintln!(
                    "  {keys} keys, compared: {compared}: {:.1} k/s, router {:.2} us a sample",
                    outcome.rate / 1e3,
                    outcome.router_cpu,
                );
                outcomes.push(outcome);
            }
        }
        let [without, with] = &outcomes;
        let cpu = |outcomes: &[Outcome]| series(outcomes, |outcome| outcome.router_cpu).median();
        report.row(Row {
            name: format!("ingest {SIZE} B, {keys} keys: with a ledger / without"),
            unit: Unit::Rate,
            ours: series(with, |outcome| outcome.rate),
            yardstick: series(without, |outcome| outcome.rate),
            target: Target::AtLeast(target),
            notes: format!(
                "CPU a sample: router {:.2} / {:.2} us",
                cpu(with),
                cpu(without)
            ),
        });
    }
    arrivals(bench, report)
}

/// How much later the second of two mirrors has stored what is put to the first.
fn arrivals(bench: &Bench, report: &mut Report) -> Result<()> {
    let (first_home, second_home) = (bench.home()?, bench.home()?);
    let memory = Storages::One {
        backend: "memory",
        durability: "written",
    };
    let first = bench.start(&Kind::Weir(memory), &first_home)?;
    let mirror = Kind::Weir(Storages::MirrorOf(first.endpoint.clone()));
    let second = bench.start(&mirror, &second_home)?;
    let session = first.client()?;
    client::poll(client::PATIENCE, "the mirror does not answer", || {
        Ok(acknowledged(&session)?.len() == 2)
    })?;
    let (mut here, mut there) = (Series::default(), Series::default());
    for _ in 0..bench.rounds {
        // Of one put both times: what the machine does meanwhile is the same.
        let (mut soon, mut late) = (Series::default(), Series::default());
        for _ in 0..bench.scaled(ARRIVALS) {
            let times = acknowledged(&session)?;
            let (Some(first), Some(last)) = (times.first(), times.last()) else {
                continue;
            };
            soon.push(*first);
            late.push(*last);
        }
        ensure!(!soon.median().is_nan(), "nothing was acknowledged");
        here.push(soon.median());
        there.push(late.median() - soon.median());
    }
    let notes = format!(
        "a put is stored here after {:.3} ms; both times hold the way back of the acknowledgement",
        here.median()
    );
    report.row(Row {
        name: "stored on the second mirror later than on the first, p50".to_owned(),
        unit: Unit::Millis,
        ours: there,
        yardstick: here,
        target: Target::Below(0.1),
        notes,
    });
    second.stop()?;
    first.stop()
}

/// After how many milliseconds the storages of different routers acknowledge a put, the first one first.
fn acknowledged(session: &Session) -> Result<Vec<f64>> {
    let began = Instant::now();
    let replies = session
        .get("bench/mirror?_put")
        .payload("0123456789012345678901234567890123456789")
        .consolidation(ConsolidationMode::None)
        .target(QueryTarget::All)
        .wait()
        .map_err(Error::from_boxed)?;
    let mut times = BTreeMap::new();
    for reply in replies {
        let took = began.elapsed().as_secs_f64() * 1e3;
        let Ok(sample) = reply.result() else {
            continue;
        };
        let said: Value = serde_json::from_slice(&sample.payload().to_bytes())?;
        times.entry(said["router"].to_string()).or_insert(took);
    }
    let mut times: Vec<f64> = times.into_values().collect();
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// Lets a mirror compare itself with the router's storage until both are in step, and stops it.
pub(super) fn compare_once(bench: &Bench, router: &Router) -> Result<()> {
    let home = bench.home()?;
    let mirror = bench.start(
        &Kind::Weir(Storages::MirrorOf(router.endpoint.clone())),
        &home,
    )?;
    let session = router.client()?;
    client::poll(client::PATIENCE, "the mirror is not in step", || {
        let storages = client::statuses(&session, "@weir/*/storages/bench")?;
        let mut mirrors = storages
            .iter()
            .filter_map(|storage| storage.pointer("/mirrors/0/state"));
        Ok(mirrors.any(|state| state == &Value::from("in_step")))
    })?;
    mirror.stop()
}
