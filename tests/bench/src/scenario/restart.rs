//! Restart on a full database: until it serves, and what it holds in memory.
//!
//! The yardstick is a plain router that hosts nothing.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::Bench;
use crate::{
    client, dataset,
    report::{Report, Row, Series, Target, Unit},
    router::{Kind, Router},
    worker::{Scan, Scanned, Yardstick},
};

const MIB: f64 = 1_048_576.0;
const SIZE: usize = 64;

#[derive(Default)]
struct Figures {
    ready: Series,
    first: Series,
    said: Series,
    started: Series,
    scanned: Series,
}

/// Loads once, then stops and starts, with a bare router in turn.
pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let keys = bench.scaled(1_000_000);
    let kind = Kind::weir("rocksdb", "written");
    if bench.present([kind.clone()], report).is_empty() {
        return Ok(());
    }
    let home = bench.home()?;
    let router = bench.start(&kind, &home)?;
    bench.load(&router, keys, SIZE)?;
    router.stop()?;
    let digest = dataset::digest_all(keys, SIZE);
    let (mut ours, mut bare) = (Figures::default(), Figures::default());
    for _ in 0..bench.rounds {
        let plain = Kind::Yardstick(Yardstick::bare());
        let empty = bench.home()?;
        let router = Router::start(&plain, &bench.programs, empty.path())?;
        bare.ready.push(router.ready.as_secs_f64() * 1e3);
        bare.started.push(router.process.resident()? as f64);
        router.stop()?;

        let start = Instant::now();
        let router = Router::start(&kind, &bench.programs, home.path())?;
        let found = client::get(&router.client()?, &dataset::key(keys / 2))?;
        ensure!(
            found.len() == 1,
            "one key has {} values after the restart",
            found.len()
        );
        ours.first.push(start.elapsed().as_secs_f64() * 1e3);
        ours.ready.push(router.ready.as_secs_f64() * 1e3);
        ours.said
            .push(router.said_ms.context("it does not say when it is ready")?);
        ours.started.push(router.process.resident()? as f64);
        let scan = Scan {
            connect: router.endpoint.clone(),
            selector: dataset::ALL.to_owned(),
        };
        let scanned: Scanned = bench.ask(scan.arguments())?;
        ensure!(
            scanned.samples == keys as u64,
            "{} samples of {keys}",
            scanned.samples
        );
        ensure!(
            scanned.digest == digest,
            "the samples are not those that were put"
        );
        ours.scanned.push(router.process.resident()? as f64);
        router.stop()?;
    }
    let notes = format!(
        "it says {:.0} ms itself; first answer to a new client after {:.0} ms",
        ours.said.median(),
        ours.first.median()
    );
    for (what, unit, ours, yardstick, target, notes) in [
        (
            "ready",
            Unit::Millis,
            ours.ready,
            &bare.ready,
            Target::Below(1_000.0),
            notes.as_str(),
        ),
        (
            "memory after start",
            Unit::Bytes,
            ours.started,
            &bare.started,
            Target::Below(256.0 * MIB),
            "",
        ),
        (
            "memory after a wildcard get",
            Unit::Bytes,
            ours.scanned,
            &bare.started,
            Target::Below(256.0 * MIB),
            "",
        ),
    ] {
        report.row(Row {
            name: format!("restart on {keys} keys, {what}: weir rocksdb / a plain router"),
            unit,
            ours,
            yardstick: yardstick.clone(),
            target,
            notes: notes.to_owned(),
        });
    }
    Ok(())
}
