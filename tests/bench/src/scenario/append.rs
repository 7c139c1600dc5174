//! What it takes to keep a sample until it is certified: the journal, synced every 10 ms, against a bare
//! RocksDB that takes the same samples and is never synced.
//!
//! The target is for rows by key and stamp, among which a key's samples can be found again. Rows as they come
//! are a log in RocksDB's place; that is shown for what it is worth.

use anyhow::Result;
use weir_e2e::flight;

use super::{Bench, series};
use crate::{
    report::{Report, Row, Target, Unit},
    worker::{Append, Appended, Content, FLIGHT, Sink},
};

const SAMPLES: usize = 1_000_000;

/// Measures both in turn, round by round, for each kind of samples.
pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let count = bench.scaled(SAMPLES);
    for content in [Content::Flight, Content::Floats, Content::Random] {
        if content == Content::Flight && flight::read(FLIGHT, 1).is_none() {
            report.skip("append of a flight: the recorded flight is not there");
            continue;
        }
        let mut runs: [Vec<Appended>; 3] = Default::default();
        for _ in 0..bench.rounds {
            let sinks = [Sink::Journal, Sink::ByKey, Sink::InOrder];
            for (sink, runs) in sinks.into_iter().zip(&mut runs) {
                let home = bench.home()?;
                let append = Append {
                    sink,
                    content,
                    count,
                    dir: home.path().join("data"),
                };
                runs.push(bench.ask(append.arguments())?);
            }
        }
        let [journal, by_key, in_order] = &runs;
        let names = format!("{count} samples, {}", content.describe());
        for (rocksdb, rows, target) in [
            (by_key, "by key", Target::AtLeast(3.0)),
            (in_order, "as they come", Target::None),
        ] {
            let name =
                format!("append {names}: a journal, synced / RocksDB, not synced, rows {rows}");
            report.row(row(name, journal, rocksdb, target, count));
        }
    }
    Ok(())
}

fn row(
    name: String,
    journal: &[Appended],
    rocksdb: &[Appended],
    target: Target,
    count: usize,
) -> Row {
    let cpu = |runs: &[Appended]| series(runs, |run| run.cpu * 1e6 / count as f64).median();
    let rate = |runs: &[Appended]| series(runs, |run| count as f64 / run.seconds);
    Row {
        name,
        unit: Unit::Rate,
        ours: rate(journal),
        yardstick: rate(rocksdb),
        target,
        notes: format!(
            "CPU a sample {:.2} / {:.2} us; {:.0} syncs a second",
            cpu(journal),
            cpu(rocksdb),
            series(journal, |run| run.syncs / run.seconds).median()
        ),
    }
}
