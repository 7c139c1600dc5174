//! The get of one key, on a quiet router and while a publisher puts at full rate.
//!
//! The yardstick is a queryable in the router process that answers at once with nothing, beside a
//! subscriber that counts: it has the same traffic to carry, and nothing to look up.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Bench, series};
use crate::{
    client,
    report::{Report, Row, Target, Unit},
    router::{Kind, Router, StockVolume},
    worker::{Point, Pointed, Publish, Published, Yardstick},
};

const KEYS: usize = 10_000;

/// Asks in turn, round by round.
pub fn run(bench: &Bench, report: &mut Report, busy: bool) -> Result<()> {
    let empty = Kind::Yardstick(Yardstick {
        count: true,
        empty: true,
        ..Yardstick::bare()
    });
    let memory = Kind::weir("memory", "written");
    let rocksdb = Kind::weir("rocksdb", "written");
    let stock = Kind::Stock(StockVolume::RocksDb);
    let kinds = bench.present(
        [
            empty.clone(),
            memory.clone(),
            rocksdb.clone(),
            stock.clone(),
        ],
        report,
    );
    let mut running = Vec::new();
    for kind in &kinds {
        let home = bench.home()?;
        let router = bench.start(kind, &home)?;
        if !matches!(kind, Kind::Yardstick(_)) {
            bench
                .load(&router, KEYS, 64)
                .with_context(|| format!("load {}", kind.name()))?;
        }
        running.push((kind.name(), router, home, Vec::new()));
    }
    for _ in 0..bench.rounds {
        for (name, router, _, outcomes) in &mut running {
            let (pointed, rate) = measure(bench, router, busy).with_context(|| name.clone())?;
            ensure!(
                pointed.misses == 0,
                "{name}: {} of {} gets found nothing",
                pointed.misses,
                pointed.gets
            );
            eprintln!(
                "  {name}: p50 {:.0} us, p99 {:.0} us, {} gets, {:.1} k/s put meanwhile",
                pointed.times.p50,
                pointed.times.p99,
                pointed.gets,
                rate / 1e3
            );
            outcomes.push((pointed, rate));
        }
    }
    let find = |kind: &Kind| running.iter().find(|(name, ..)| *name == kind.name());
    for (ours, yardstick, target) in [
        (&memory, &empty, Target::AtMost(1.3)),
        (&rocksdb, &empty, Target::AtMost(1.3)),
        (&stock, &empty, Target::None),
    ] {
        let (Some((name, _, _, ours)), Some((_, _, _, yardstick))) = (find(ours), find(yardstick))
        else {
            continue;
        };
        let p99 = |outcomes: &[(Pointed, f64)]| {
            series(outcomes, |(pointed, _)| pointed.times.p99 / 1e3).median()
        };
        let rate = |outcomes: &[(Pointed, f64)]| series(outcomes, |(_, rate)| rate / 1e3).median();
        let meanwhile = if busy {
            format!(
                "; {:.0} / {:.0} k/s put meanwhile",
                rate(ours),
                rate(yardstick)
            )
        } else {
            String::new()
        };
        report.row(Row {
            name: format!(
                "get of one key, p50, {}: {name} / an empty queryable",
                if busy { "during ingest" } else { "quiet" }
            ),
            unit: Unit::Millis,
            ours: series(ours, |(pointed, _)| pointed.times.p50 / 1e3),
            yardstick: series(yardstick, |(pointed, _)| pointed.times.p50 / 1e3),
            target,
            notes: format!("p99 {:.2} / {:.2} ms{meanwhile}", p99(ours), p99(yardstick)),
        });
    }
    for (_, router, _, _) in running {
        router.stop()?;
    }
    Ok(())
}

/// The times of the gets, and the samples a second that were put meanwhile.
fn measure(bench: &Bench, router: &Router, busy: bool) -> Result<(Pointed, f64)> {
    let seconds = if busy { bench.publish_seconds() } else { 60.0 };
    let point = Point {
        connect: router.endpoint.clone(),
        keys: KEYS,
        count: bench.scaled(5_000),
        seconds,
    };
    if !busy {
        return Ok((bench.ask(point.arguments())?, 0.0));
    }
    let publish = Publish {
        // The publisher outlasts the querier, which still has to connect.
        seconds: seconds + 1.0,
        ..Publish::new(router.endpoint.clone(), 64, KEYS)
    };
    let mut publisher = bench.worker(publish.arguments())?;
    publisher.wait_line(client::PATIENCE, |line| (line == "ready").then_some(()))?;
    publisher.tell("go")?;
    let pointed = bench.ask(point.arguments())?;
    let published: Published = publisher.answer(client::PATIENCE)?;
    publisher.stop(Duration::from_secs(10))?;
    // What is still queued must not weigh on the next contestant.
    router.process.settle()?;
    Ok((pointed, published.sent as f64 / published.seconds))
}
