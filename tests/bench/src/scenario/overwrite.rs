//! Overwriting keys whose stored versions lie far apart in time, and close together: what a storage keeps
//! for its mirrors must not cost more for a month of history than for a minute of it.
//!
//! Both get the same keys, in an order that has nothing to do with theirs, with stamps that rise evenly; a
//! mirror compares itself with the storage once, so that it has a ledger; then all keys are overwritten at
//! full rate, in the same order.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{
    Bench,
    ingest::{Mode, Outcome, Run, measure_run},
    mirror::compare_once,
    series,
};
use crate::{
    report::{Report, Row, Target, Unit},
    router::{Kind, Router},
    worker::Publish,
};

/// Bytes of a sample.
const SIZE: usize = 64;
const KEYS: usize = 1_000_000;
const LONG: Duration = Duration::from_secs(30 * 24 * 3_600);
const SHORT: Duration = Duration::from_secs(60);

/// Measures both in turn, round by round.
pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let kind = Kind::weir("rocksdb", "written");
    if bench.present([kind.clone()], report).is_empty() {
        return Ok(());
    }
    let keys = bench.scaled(KEYS);
    let mut outcomes: [Vec<Outcome>; 2] = Default::default();
    for _ in 0..bench.rounds {
        for (spread, outcomes) in [LONG, SHORT].into_iter().zip(&mut outcomes) {
            let run = Run {
                kind: &kind,
                size: SIZE,
                mode: Mode::Undeclared,
                keys,
                loaded: true,
            };
            let before = |router: &Router| {
                let load = Publish {
                    count: keys as u64,
                    scattered: true,
                    spread: Some(spread.as_secs_f64()),
                    ..Publish::new(router.endpoint.clone(), SIZE, keys)
                };
                bench.load_as(router, &load)?;
                compare_once(bench, router)?;
                // What the comparison has counted is written when there is time.
                router.process.settle()
            };
            let outcome = measure_run(bench, &run, before, |_, _| Ok(()))
                .with_context(|| format!("stamps over {spread:?}"))?;
            eprintln!(
                "  stamps over {spread:?}: {:.1} k/s, router {:.2} us a sample",
                outcome.rate / 1e3,
                outcome.router_cpu,
            );
            outcomes.push(outcome);
        }
    }
    let [long, short] = &outcomes;
    let cpu = |outcomes: &[Outcome]| series(outcomes, |outcome| outcome.router_cpu).median();
    report.row(Row {
        name: format!(
            "overwrite {SIZE} B, {keys} keys in random order, with a ledger: their stamps over 30 days / \
             over a minute"
        ),
        unit: Unit::Rate,
        ours: series(long, |outcome| outcome.rate),
        yardstick: series(short, |outcome| outcome.rate),
        target: Target::AtLeast(0.9),
        notes: format!("CPU a sample: router {:.2} / {:.2} us", cpu(long), cpu(short)),
    });
    Ok(())
}
