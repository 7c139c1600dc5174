//! Plays many seeds, or one: `weir-sim --seeds N [--from S]`, `weir-sim --seed S`; of every kind of
//! history, or with `--only KIND` of one: plain, resolving, mirroring, contending, forwarding.

use std::{io::Write, process::ExitCode, time::Instant};

use weir_sim::{Coverage, check, forwarding, mirroring, resolving};

/// The kinds of histories.
const KINDS: [&str; 5] = [
    "plain",
    "resolving",
    "mirroring",
    "contending",
    "forwarding",
];

fn main() -> std::io::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let (mut from, mut count) = (1, 1_000);
    let mut only = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().unwrap_or_default();
        if name == "--only" && KINDS.contains(&value.as_str()) {
            only = Some(value);
            continue;
        }
        match (name.as_str(), value.parse::<u64>().ok()) {
            ("--seed", Some(seed)) => (from, count) = (seed, 1),
            ("--seeds", Some(seeds)) => count = seeds,
            ("--from", Some(seed)) => from = seed,
            _ => {
                writeln!(
                    out,
                    "usage: weir-sim [--only KIND] [--seeds N] [--from SEED] | --seed SEED"
                )?;
                return Ok(ExitCode::from(2));
            }
        }
    }
    let began = Instant::now();
    let (mut passed, mut failed) = (0u64, 0u64);
    let mut coverage = Coverage::default();
    let mut mirrored = mirroring::Reached::default();
    let mut contended = mirroring::Contended::default();
    let mut forwarded = forwarding::Reached::default();
    let plays = |kind: &str| only.as_deref().is_none_or(|only| only == kind);
    for seed in from..from + count {
        let mut play = || {
            if plays("plain") {
                coverage.add(&check(seed)?.coverage);
            }
            if plays("resolving") {
                resolving::check(seed)?;
            }
            if plays("mirroring") {
                mirrored.add(&mirroring::check(seed)?.reached);
            }
            if plays("contending") {
                contended.add(&mirroring::check_contending(seed)?.contended);
            }
            if plays("forwarding") {
                forwarded.add(&forwarding::check(seed)?.reached);
            }
            Ok::<(), String>(())
        };
        match play() {
            Ok(()) => passed += 1,
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
    writeln!(out, "contending:")?;
    for (name, reached) in contended.each() {
        writeln!(out, "{name:>12} {reached}")?;
    }
    writeln!(out, "forwarding:")?;
    for (name, reached) in forwarded.each() {
        writeln!(out, "{name:>15} {reached}")?;
    }
    let kinds = KINDS.iter().filter(|kind| plays(kind)).count() as u64;
    let rate = (kinds * count) as f64 / began.elapsed().as_secs_f64();
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
