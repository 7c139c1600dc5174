//! `weir policy replay` and `weir policy diff`: recorded traffic.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, ValueHint};
use serde_json::Value;
use weir_policy::Limits;
use weir_policy::harness::recording::Reader;
use weir_policy::harness::replay::{self, Diff, Replayed, Setup};
use weir_policy::harness::written::line;

use super::common::{EnvironmentArgs, HookArg, Module, Paint, host, load};
use crate::cli::EXIT_NOTHING;
use crate::client::{Streams, printable};

/// Characters of one answer that are shown.
const ANSWER_CHARS_MAX: usize = 160;

/// What both commands ask with.
#[derive(Args, Clone, Debug)]
struct AskedArgs {
    /// The hook, where the module serves several
    #[arg(long, value_enum)]
    hook: Option<HookArg>,

    /// The name of the link whose backlog it is, for `prioritize`
    #[arg(long, value_name = "NAME", default_value = "replay")]
    link: String,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    environment: EnvironmentArgs,
}

/// Arguments of `weir policy replay`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir tap 'fleet/**' --record fleet.rec --for 1m
  weir policy replay geo.wasm --recording fleet.rec --shards eu,us
  weir policy replay geo.wasm --recording fleet.rec --each | grep reject

A resolver is asked about each version of a key and the one recorded before it, as if they knew
nothing of each other. The time that `prioritize` is told is that of the newest sample.

Exit status: 0 replayed; 1 calls failed; 2 error.")]
pub(super) struct ReplayArgs {
    /// The module
    #[arg(value_name = "FILE.wasm", value_hint = ValueHint::FilePath)]
    module: PathBuf,

    /// What `weir tap` has recorded
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    recording: PathBuf,

    /// Print each decision, as a JSON object a line
    #[arg(long)]
    each: bool,

    #[command(flatten)]
    asked: AskedArgs,
}

/// Arguments of `weir policy diff`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  weir policy diff geo-1.wasm geo-2.wasm --corpus fleet.rec --shards eu,us

Both are told the same environment: what is given, else what the cases of the new one say.

Exit status: 0 they decide alike; 1 they do not; 2 error.")]
pub(super) struct DiffArgs {
    /// The module that serves
    #[arg(value_name = "OLD.wasm", value_hint = ValueHint::FilePath)]
    old: PathBuf,

    /// The module that is to serve
    #[arg(value_name = "NEW.wasm", value_hint = ValueHint::FilePath)]
    new: PathBuf,

    /// What `weir tap` has recorded
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    corpus: PathBuf,

    #[command(flatten)]
    asked: AskedArgs,
}

/// Runs `weir policy replay`.
pub(super) fn replay(
    args: &ReplayArgs,
    paint: Paint,
    streams: &mut Streams<'_>,
) -> Result<ExitCode> {
    let module = load(&host(Limits::default())?, &args.module, None)?;
    let setup = args.asked.setup(&module)?;
    let mut reader = open(&args.recording)?;
    let mut printed = Ok(());
    let replayed = replay::replay(&module.revision, &setup, reader.by_ref(), |decision| {
        if args.each && printed.is_ok() {
            let line = serde_json::to_string(decision).map_err(std::io::Error::from);
            printed = line.and_then(|line| writeln!(streams.out, "{line}"));
        }
    });
    let replayed =
        replayed.with_context(|| format!("cannot replay {}", args.recording.display()))?;
    printed?;
    warn_of_cut(&reader, &args.recording, streams)?;
    if args.asked.json {
        writeln!(streams.out, "{}", serde_json::to_string(&replayed)?)?;
    } else {
        let out = if args.each {
            &mut *streams.err
        } else {
            &mut *streams.out
        };
        show(&module.revision.name, &replayed, paint, out)?;
    }
    Ok(match replayed.statistics.faults.as_slice() {
        [] => ExitCode::SUCCESS,
        _ => ExitCode::from(EXIT_NOTHING),
    })
}

/// Runs `weir policy diff`.
pub(super) fn diff(args: &DiffArgs, paint: Paint, streams: &mut Streams<'_>) -> Result<ExitCode> {
    let host = host(Limits::default())?;
    let (old, new) = (load(&host, &args.old, None)?, load(&host, &args.new, None)?);
    let setup = args.asked.setup(&new)?;
    let mut reader = open(&args.corpus)?;
    let found = replay::diff(&old.revision, &new.revision, &setup, reader.by_ref());
    let found = found.with_context(|| format!("cannot compare over {}", args.corpus.display()))?;
    warn_of_cut(&reader, &args.corpus, streams)?;
    if args.asked.json {
        writeln!(streams.out, "{}", serde_json::to_string(&found)?)?;
    } else {
        show_diff(&found, paint, streams.out)?;
    }
    Ok(match found.changed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(EXIT_NOTHING),
    })
}

impl AskedArgs {
    fn setup(&self, module: &Module) -> Result<Setup> {
        let hook = module.hook(self.hook)?;
        let cases = module.sound_cases();
        Ok(Setup {
            hook,
            environment: self.environment.resolve(&module.revision, hook, &cases)?,
            link: self.link.clone(),
        })
    }
}

fn open(path: &Path) -> Result<Reader<BufReader<File>>> {
    let name = path.display();
    let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
    Reader::new(BufReader::new(file)).with_context(|| format!("cannot read {name}"))
}

fn warn_of_cut(
    reader: &Reader<BufReader<File>>,
    path: &Path,
    streams: &mut Streams<'_>,
) -> Result<()> {
    if reader.was_cut() {
        let name = path.display();
        writeln!(
            streams.err,
            "warning: {name} ends in the middle of a sample, which is left out"
        )?;
    }
    Ok(())
}

fn show(name: &str, replayed: &Replayed, paint: Paint, out: &mut dyn Write) -> Result<()> {
    let Replayed {
        samples, decisions, ..
    } = replayed;
    writeln!(out, "{name}: {samples} samples, {decisions} decisions")?;
    let mut kinds: Vec<_> = replayed.by_kind.iter().collect();
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for (kind, count) in kinds {
        let share = 100.0 * *count as f64 / (*decisions).max(1) as f64;
        writeln!(
            out,
            "  {count:>9}  {share:>5.1} %  {}",
            printable(kind, ANSWER_CHARS_MAX)
        )?;
    }
    for (cause, count) in &replayed.statistics.faults {
        let text = format!("  {count:>9}  calls failed: {cause}");
        writeln!(out, "{}", paint.bad(&text))?;
    }
    if let Some(fault) = &replayed.statistics.last_fault {
        writeln!(
            out,
            "             the last: {}",
            printable(&fault.message, ANSWER_CHARS_MAX)
        )?;
    }
    Ok(())
}

fn show_diff(found: &Diff, paint: Paint, out: &mut dyn Write) -> Result<()> {
    let Diff {
        samples,
        decisions,
        changed,
        ..
    } = found;
    let summary = format!("{samples} samples, {decisions} decisions, {changed} of them change");
    let summary = if *changed == 0 {
        paint.good(&summary)
    } else {
        summary
    };
    writeln!(out, "{summary}")?;
    let shown = |answer: &Value| printable(&line(answer), ANSWER_CHARS_MAX);
    for change in &found.changes {
        let (count, from, to) = (change.count, &change.from, &change.to);
        writeln!(out, "\n{count:>9}  {from}  becomes  {to}")?;
        for example in &change.examples {
            let stamps = paint.dim(&example.stamps.join(" and "));
            writeln!(
                out,
                "           {} {stamps}",
                printable(&example.key, ANSWER_CHARS_MAX)
            )?;
            writeln!(
                out,
                "           {}",
                paint.bad(&format!("- {}", shown(&example.from)))
            )?;
            writeln!(
                out,
                "           {}",
                paint.good(&format!("+ {}", shown(&example.to)))
            )?;
        }
    }
    Ok(())
}
