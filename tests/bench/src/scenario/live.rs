//! What a storage costs the traffic that passes by it: latency from a publisher to an ordinary
//! subscriber, at a thousand samples a second, with a storage on the key and without one.

use anyhow::Result;

use super::{Bench, series};
use crate::{
    report::{Report, Row, Target, Unit},
    router::{Kind, Storages},
    worker::{Live, Times},
};

/// Far below what the machine can carry: latency, not queueing.
const RATE: f64 = 1_000.0;

/// Asks in turn, round by round. The routers run all the time; one that has nothing to do costs
/// nothing.
pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let without = Kind::Weir(Storages::None);
    let memory = Kind::weir("memory", "written");
    let written = Kind::weir("rocksdb", "written");
    let synced = Kind::weir("rocksdb", "synced");
    let kinds = bench.present([without, memory, written, synced], report);
    let mut running = Vec::new();
    for kind in &kinds {
        let home = bench.home()?;
        running.push((kind.name(), bench.start(kind, &home)?, home, Vec::new()));
    }
    for _ in 0..bench.rounds {
        for (name, router, _, outcomes) in &mut running {
            let live = Live {
                connect: router.endpoint.clone(),
                rate: RATE,
                count: bench.scaled(5_000),
                keys: 10_000,
            };
            let times: Times = bench.ask(live.arguments())?;
            eprintln!("  {name}: p50 {:.0} us, p99 {:.0} us", times.p50, times.p99);
            outcomes.push(times);
        }
    }
    if let Some(((_, _, _, without), with)) = running.split_first() {
        for (name, _, _, outcomes) in with {
            let p99 = |outcomes: &[Times]| series(outcomes, |times| times.p99 / 1e3).median();
            report.row(Row {
                name: format!("publisher to subscriber, p50: {name} / weir without storage"),
                unit: Unit::Millis,
                ours: series(outcomes, |times| times.p50 / 1e3),
                yardstick: series(without, |times| times.p50 / 1e3),
                target: Target::AtMost(1.05),
                notes: format!("p99 {:.2} / {:.2} ms", p99(outcomes), p99(without)),
            });
        }
    }
    for (_, router, _, _) in running {
        router.stop()?;
    }
    Ok(())
}
