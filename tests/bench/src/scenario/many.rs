//! Thousands of storages on one router, each on a prefix of its own, and one wildcard get that all
//! of them answer.
//!
//! The yardstick declares as many subscribers and queryables on a plain router.

use std::time::Instant;

use anyhow::{Error, Result, ensure};
use zenoh::Wait as _;

use super::Bench;
use crate::{
    client,
    report::{Report, Row, Series, Target, Unit},
    router::{Kind, Router, Storages},
    worker::{Scan, Scanned, Yardstick},
};

const ALL: &str = "bench/many/**";

/// Gets from every router, of which the median counts: the first one computes the routes.
const GETS: usize = 5;

#[derive(Default)]
struct Figures {
    ready: Series,
    resident: Series,
    get: Series,
}

/// Starts, fills, asks and stops in turn, round by round.
pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    // A database keeps two dozen files open: three thousand would need more than a process gets.
    for (backend, count) in [("memory", 3_000), ("rocksdb", 300)] {
        let count = bench.scaled(count);
        let plain = Kind::Yardstick(Yardstick {
            many: count,
            ..Yardstick::bare()
        });
        let ours = Kind::Weir(Storages::Many { backend, count });
        if bench.present([ours.clone()], report).is_empty() {
            return Ok(());
        }
        let (mut with, mut without) = (Figures::default(), Figures::default());
        for _ in 0..bench.rounds {
            measure(bench, &plain, count, &mut without)?;
            measure(bench, &ours, count, &mut with)?;
        }
        for (what, unit, ours, yardstick) in [
            ("ready", Unit::Millis, with.ready, without.ready),
            ("memory", Unit::Bytes, with.resident, without.resident),
            (
                "a wildcard get that all answer",
                Unit::Millis,
                with.get,
                without.get,
            ),
        ] {
            report.row(Row {
                name: format!("{count} storages on {backend}, {what} / as many plain queryables"),
                unit,
                ours,
                yardstick,
                target: Target::None,
                notes: String::new(),
            });
        }
    }
    Ok(())
}

fn measure(bench: &Bench, kind: &Kind, count: usize, figures: &mut Figures) -> Result<()> {
    let home = bench.home()?;
    let start = Instant::now();
    let router = Router::start(kind, &bench.programs, home.path())?;
    figures.ready.push(start.elapsed().as_secs_f64() * 1e3);
    let session = router.client()?;
    for n in 0..count {
        session
            .put(format!("bench/many/{n}/state"), vec![0; 64])
            .congestion_control(zenoh::qos::CongestionControl::Block)
            .wait()
            .map_err(Error::from_boxed)?;
    }
    client::poll(
        client::PATIENCE,
        "not every storage has stored its value",
        || Ok(client::get(&session, ALL)?.len() == count),
    )?;
    figures.resident.push(router.process.resident()? as f64);
    let scan = Scan {
        connect: router.endpoint.clone(),
        selector: ALL.to_owned(),
    };
    let mut times = Series::default();
    for _ in 0..GETS {
        let scanned: Scanned = bench.ask(scan.arguments())?;
        ensure!(
            scanned.errors == 0 && scanned.samples == count as u64,
            "incomplete: {scanned:?}"
        );
        times.push(scanned.seconds * 1e3);
    }
    figures.get.push(times.median());
    eprintln!(
        "  {}: ready after {:?}, wildcard get {:.1} ms",
        kind.name(),
        router.ready,
        times.median()
    );
    router.stop()
}
