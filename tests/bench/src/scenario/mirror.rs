//! What it costs to be comparable: the same ingest into a storage that no mirror has ever compared, and
//! into one that has been, and so keeps its ledger with every batch.
//!
//! The mirror is a router of its own that is stopped again before anything is measured: what it would
//! itself take of the machine is not what a write costs.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    Bench,
    ingest::{Mode, Outcome, Run, measure_run},
    series,
};
use crate::{
    client,
    report::{Report, Row, Target, Unit},
    router::{Kind, Router, Storages},
};

/// Bytes of a sample.
const SIZE: usize = 64;

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
    Ok(())
}

/// Lets a mirror compare itself with the router's storage until both are in step, and stops it.
fn compare_once(bench: &Bench, router: &Router) -> Result<()> {
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
