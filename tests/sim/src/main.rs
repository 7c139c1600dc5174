//! Plays many seeds, or one: `weir-sim --seeds N [--from S]`, `weir-sim --seed S`.

use std::{io::Write, process::ExitCode, time::Instant};

use weir_sim::{Coverage, check, mirroring, resolving};

fn main() -> std::io::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let (mut from, mut count) = (1, 1_000);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let number = arguments
            .next()
            .and_then(|number| number.parse::<u64>().ok());
        match (name.as_str(), number) {
            ("--seed", Some(seed)) => (from, count) = (seed, 1),
            ("--seeds", Some(seeds)) => count = seeds,
            ("--from", Some(seed)) => from = seed,
            _ => {
                writeln!(
                    out,
                    "usage: weir-sim [--seeds N] [--from SEED] | --seed SEED"
                )?;
                return Ok(ExitCode::from(2));
            }
        }
    }
    let began = Instant::now();
    let (mut passed, mut failed) = (0u64, 0u64);
    let mut coverage = Coverage::default();
    let mut mirrored = mirroring::Reached::default();
    for seed in from..from + count {
        let played = check(seed).and_then(|outcome| {
            resolving::check(seed)?;
            let mirrors = mirroring::check(seed)?;
            Ok((outcome, mirrors))
        });
        match played {
            Ok((outcome, mirrors)) => {
                passed += 1;
                coverage.add(&outcome.coverage);
                mirrored.add(&mirrors.reached);
            }
            Err(report) => {
                failed += 1;
                writeln!(out, "{report}")?;
            }
        }
    }
    for (name, reached) in coverage.each() {
        writeln!(out, "{name:>12} {reached}")?;
    }
    writeln!(out, "mirroring:")?;
    for (name, reached) in mirrored.each() {
        writeln!(out, "{name:>12} {reached}")?;
    }
    let rate = 3.0 * count as f64 / began.elapsed().as_secs_f64();
    writeln!(
        out,
        "seeds {from} to {}, {rate:.0} histories a second",
        from + count - 1
    )?;
    writeln!(out, "{passed} passed, {failed} failed")?;
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
