//! `weir policy bench`: what a policy costs.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueHint};
use weir_policy::harness::case::{Case, Link, Question};
use weir_policy::harness::measure::{self, Measured, Setup};
use weir_policy::harness::recording::Reader;
use weir_policy::harness::replay::Neighbours;
use weir_policy::harness::sample::Sample;
use weir_policy::{Hook, Limits};

use super::common::{EnvironmentArgs, HookArg, LimitsArgs, Paint, bytes, host, load};
use crate::cli::EXIT_NOTHING;
use crate::client::{Streams, parse_duration};

/// Samples of a recording that are measured with: enough that caches do not flatter.
const SAMPLES_MAX: usize = 100_000;

/// Arguments of `weir policy bench`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir policy bench geo.wasm
  weir policy bench geo.wasm --recording fleet.rec --batch 64
  weir policy bench set.wasm --max-p99 100us --max-fuel 1000000

Measures on one thread: route and prioritize in batches on one instance, with nothing remembered
between calls; resolve on a fresh instance each time. The yardstick is an empty call of a core
module in the same run.

Exit status: 0 measured; 1 a limit of --max-p99 or --max-fuel was missed, or calls failed; 2 error.")]
pub(super) struct BenchArgs {
    /// The module
    #[arg(value_name = "FILE.wasm", value_hint = ValueHint::FilePath)]
    module: PathBuf,

    /// The hook, where the module serves several [default: all of them]
    #[arg(long, value_enum)]
    hook: Option<HookArg>,

    /// Recorded samples to ask about [default: those of its cases, else 256 of 300 bytes]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    recording: Option<PathBuf>,

    /// Samples in a call
    #[arg(long, value_name = "COUNT", default_value_t = 256)]
    batch: usize,

    /// How long to measure each hook
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1s")]
    time: Duration,

    /// The 99th percentile of a call that must not be exceeded: 100us, 2ms
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    max_p99: Option<Duration>,

    /// The fuel of a question to a resolver that must not be exceeded
    #[arg(long, value_name = "UNITS")]
    max_fuel: Option<u64>,

    /// Print JSON, one object for each hook
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    limits: LimitsArgs,

    #[command(flatten)]
    environment: EnvironmentArgs,
}

/// Runs `weir policy bench`.
pub(super) fn bench(args: &BenchArgs, paint: Paint, streams: &mut Streams<'_>) -> Result<ExitCode> {
    // What is remembered would not be measured.
    let limits = Limits {
        memo_keys_max: 0,
        ..args.limits.limits()?
    };
    let module = load(&host(limits)?, &args.module, None)?;
    let cases = module.sound_cases();
    let hooks: Vec<Hook> = match args.hook {
        Some(_) => vec![module.hook(args.hook)?],
        None => module.revision.hooks.iter().collect(),
    };
    if args.max_fuel.is_some() && !hooks.contains(&Hook::Resolve) {
        bail!("--max-fuel is for resolvers: route and prioritize run on CPU time, see --max-p99");
    }
    let mut missed = Vec::new();
    for hook in hooks {
        let setup = setup(args, &module.revision, hook, &cases)?;
        let measured = measure::measure(&module.revision, &setup)?;
        if args.json {
            writeln!(streams.out, "{}", serde_json::to_string(&measured)?)?;
        } else {
            show(&module.revision.name, &measured, streams.out)?;
        }
        missed.extend(misses(args, &measured));
    }
    for miss in &missed {
        writeln!(streams.err, "{}", paint.bad(miss))?;
    }
    Ok(match missed.as_slice() {
        [] => ExitCode::SUCCESS,
        _ => ExitCode::from(EXIT_NOTHING),
    })
}

fn setup(
    args: &BenchArgs,
    revision: &weir_policy::Revision,
    hook: Hook,
    cases: &[Case],
) -> Result<Setup> {
    // What is to fail would be measured failing.
    let works = |case: &&Case| {
        let expect = case.expect.as_ref();
        !expect.is_some_and(|expect| {
            ["error", "init_error"]
                .iter()
                .any(|name| expect.get(name).is_some())
        })
    };
    let cases: Vec<Case> = cases.iter().filter(works).cloned().collect();
    let environment = args.environment.resolve(revision, hook, &cases)?;
    let recorded = args.recording.as_ref().map(read).transpose()?;
    let of_hook = |case: &&Case| case.hook == hook && case.environment == environment;
    let mut samples = recorded.unwrap_or_else(|| {
        let own = cases.iter().filter(of_hook);
        own.flat_map(Case::samples).cloned().collect()
    });
    if samples.is_empty() {
        samples = measure::own_samples();
    }
    let mut conflicts = Vec::new();
    if args.recording.is_some() {
        let mut neighbours = Neighbours::default();
        for sample in &samples {
            if let Some((first, second)) = neighbours.next(sample) {
                conflicts.push((sample.key.to_string(), first, second));
            }
        }
    } else {
        conflicts = measure::conflicts_of(&cases);
    }
    if conflicts.is_empty() {
        conflicts.push(measure::own_conflict());
    }
    let links = cases
        .iter()
        .filter(of_hook)
        .filter_map(|case| match &case.question {
            Question::Prioritize(link, _) => Some(link.clone()),
            Question::Route(_) | Question::Resolve(_) => None,
        });
    Ok(Setup {
        hook,
        link: links.into_iter().next().unwrap_or_else(Link::default),
        environment,
        samples,
        batch: args.batch,
        conflicts,
        time: args.time,
    })
}

fn read(path: &PathBuf) -> Result<Vec<Sample>> {
    let name = path.display();
    let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
    let reader =
        Reader::new(BufReader::new(file)).with_context(|| format!("cannot read {name}"))?;
    let samples: Result<Vec<_>, _> = reader.take(SAMPLES_MAX).collect();
    samples.with_context(|| format!("cannot read {name}"))
}

fn misses(args: &BenchArgs, measured: &Measured) -> Vec<String> {
    let mut missed = Vec::new();
    let hook = measured.hook;
    if let Some(max) = args.max_p99 {
        let max_us = max.as_secs_f64() * 1e6;
        if measured.p99_us > max_us {
            let p99 = measured.p99_us;
            missed.push(format!("{hook}: p99 {p99:.1} us is above {max_us:.1} us"));
        }
    }
    if let (Some(max), Some(fuel)) = (args.max_fuel, measured.fuel_max)
        && fuel > max
    {
        missed.push(format!("{hook}: {fuel} units of fuel are above {max}"));
    }
    if let Some(fault) = &measured.first_fault {
        let failed = measured.failed;
        missed.push(format!(
            "{hook}: {failed} calls failed, the first with {fault}"
        ));
    }
    missed
}

fn show(name: &str, measured: &Measured, out: &mut dyn Write) -> Result<()> {
    let Measured {
        hook,
        batch,
        calls,
        samples_per_second,
        p50_us,
        p99_us,
        max_us,
        sample_ns,
        empty_call_ns,
        ratio,
        ..
    } = measured;
    let what = if *hook == Hook::Resolve {
        "conflicts"
    } else {
        "samples"
    };
    writeln!(out, "{name}: {hook}, {calls} calls of {batch}")?;
    writeln!(out, "  {what}  {samples_per_second:.0}/s on one core")?;
    writeln!(
        out,
        "  a call   p50 {p50_us:.1} us, p99 {p99_us:.1} us, max {max_us:.1} us"
    )?;
    writeln!(
        out,
        "  each     {sample_ns:.1} ns, {ratio:.1}x an empty call of a core module ({empty_call_ns:.1} ns)"
    )?;
    if let Some(fuel) = measured.fuel_max {
        writeln!(out, "  fuel     {fuel} units at the most")?;
    }
    writeln!(
        out,
        "  memory   {} at the most",
        bytes(measured.memory_bytes_peak)
    )?;
    Ok(())
}
