//! A wildcard get of all keys.
//!
//! The yardstick answers the same samples from a vector, in the router process, from a thread of
//! its own: the most that a storage could reach. The digest over keys and values must come out
//! the same from every contestant.

use anyhow::{Context as _, Result, ensure};

use super::{Bench, series};
use crate::{
    dataset,
    report::{Report, Row, Target, Unit},
    router::{Kind, StockVolume},
    worker::{Scan, Scanned, Yardstick},
};

/// A million small values; fewer of the larger ones, which the stock router takes a minute to load.
fn keys(bench: &Bench, size: usize) -> usize {
    bench.scaled(if size <= 64 { 1_000_000 } else { 300_000 })
}

struct Outcome {
    /// Samples a second.
    rate: f64,
    /// CPU time of the router, in microseconds a sample.
    router_cpu: f64,
    querier_cpu: f64,
    /// Until the first reply, in milliseconds.
    first: f64,
    /// Memory of the router after the scan, in bytes.
    resident: f64,
}

/// Loads all contestants once, then asks them in turn.
pub fn run(bench: &Bench, report: &mut Report, size: usize) -> Result<()> {
    let keys = keys(bench, size);
    let vector = Kind::Yardstick(Yardstick {
        vector: keys,
        size,
        ..Yardstick::bare()
    });
    let memory = Kind::weir("memory", "written");
    let rocksdb = Kind::weir("rocksdb", "written");
    let stock = Kind::Stock(StockVolume::RocksDb);
    let kinds = bench.present(
        [
            vector.clone(),
            memory.clone(),
            rocksdb.clone(),
            stock.clone(),
        ],
        report,
    );
    let digest = dataset::digest_all(keys, size);
    let mut running = Vec::new();
    for kind in &kinds {
        let home = bench.home()?;
        let router = bench.start(kind, &home)?;
        if !matches!(kind, Kind::Yardstick(_)) {
            bench
                .load(&router, keys, size)
                .with_context(|| format!("load {}", kind.name()))?;
        }
        running.push((kind.name(), router, home, Vec::new()));
    }
    for _ in 0..bench.rounds {
        for (name, router, _, outcomes) in &mut running {
            let cpu = router.process.cpu()?;
            let scan = Scan {
                connect: router.endpoint.clone(),
                selector: dataset::ALL.to_owned(),
            };
            let scanned: Scanned = bench.ask(scan.arguments()).with_context(|| name.clone())?;
            let cpu = (router.process.cpu()? - cpu).as_secs_f64();
            check(&scanned, keys, digest).with_context(|| name.clone())?;
            let samples = keys as f64;
            let outcome = Outcome {
                rate: samples / scanned.seconds,
                router_cpu: cpu * 1e6 / samples,
                querier_cpu: scanned.cpu * 1e6 / samples,
                first: scanned.first_seconds * 1e3,
                resident: router.process.resident()? as f64,
            };
            eprintln!(
                "  {name}: {:.1} k/s, router {:.2} us, querier {:.2} us a sample, first after {:.1} ms, {:.0} MiB",
                outcome.rate / 1e3,
                outcome.router_cpu,
                outcome.querier_cpu,
                outcome.first,
                outcome.resident / f64::from(1 << 20)
            );
            outcomes.push(outcome);
        }
    }
    let find = |kind: &Kind| running.iter().find(|(name, ..)| *name == kind.name());
    for (ours, yardstick, target) in [
        (&memory, &vector, Target::AtLeast(0.5)),
        (&rocksdb, &vector, Target::AtLeast(0.5)),
        (&rocksdb, &stock, Target::AtLeast(5.0)),
        (&stock, &vector, Target::None),
    ] {
        if let (Some((name, _, _, ours)), Some((other, _, _, yardstick))) =
            (find(ours), find(yardstick))
        {
            report.row(row(name, ours, other, yardstick, target, keys, size));
        }
    }
    for (_, router, _, _) in running {
        router.stop()?;
    }
    Ok(())
}

/// A scan that is incomplete is no faster one.
fn check(scanned: &Scanned, keys: usize, digest: u64) -> Result<()> {
    ensure!(scanned.errors == 0, "{} error replies", scanned.errors);
    ensure!(
        scanned.samples == keys as u64,
        "{} samples of {keys}",
        scanned.samples
    );
    ensure!(
        scanned.digest == digest,
        "the samples are not those that were put"
    );
    Ok(())
}

fn row(
    name: &str,
    ours: &[Outcome],
    other: &str,
    yardstick: &[Outcome],
    target: Target,
    keys: usize,
    size: usize,
) -> Row {
    let median =
        |outcomes: &[Outcome], figure: fn(&Outcome) -> f64| series(outcomes, figure).median();
    let other = if other == "yardstick" {
        "a queryable on a vector"
    } else {
        other
    };
    Row {
        name: format!("wildcard get of {keys} x {size} B: {name} / {other}"),
        unit: Unit::Rate,
        ours: series(ours, |outcome| outcome.rate),
        yardstick: series(yardstick, |outcome| outcome.rate),
        target,
        notes: format!(
            "CPU a sample: router {:.2} / {:.2} us, querier {:.2} / {:.2} us; first reply {:.1} / {:.1} ms; {:.0} / {:.0} MiB",
            median(ours, |outcome| outcome.router_cpu),
            median(yardstick, |outcome| outcome.router_cpu),
            median(ours, |outcome| outcome.querier_cpu),
            median(yardstick, |outcome| outcome.querier_cpu),
            median(ours, |outcome| outcome.first),
            median(yardstick, |outcome| outcome.first),
            median(ours, |outcome| outcome.resident) / f64::from(1 << 20),
            median(yardstick, |outcome| outcome.resident) / f64::from(1 << 20),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_or_changed_scan_is_refused() {
        let scanned = |samples, errors, digest| Scanned {
            samples,
            errors,
            digest,
            ..Scanned::default()
        };
        assert!(check(&scanned(10, 0, 5), 10, 5).is_ok());
        assert!(check(&scanned(9, 0, 5), 10, 5).is_err());
        assert!(check(&scanned(10, 1, 5), 10, 5).is_err());
        assert!(check(&scanned(10, 0, 6), 10, 5).is_err());
    }
}
