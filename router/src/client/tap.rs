//! `weir tap`: records samples for replay.

use std::fs::OpenOptions;
use std::io::BufWriter;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use clap::{Args, ValueHint};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use weir_core::key::Key;
use weir_core::version::Stamp;
use weir_policy::harness::recording::{About, Writer};
use weir_policy::harness::sample::Sample;

use super::{ConnectArgs, FLUSH_LIMIT, Outcome, Streams, check_key_expr, parse_duration};
use crate::convert;

/// How often what was recorded goes to the file: a recording that is killed loses so much.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// Arguments of `weir tap`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir tap 'fleet/**' --record fleet.rec --for 1m
  weir tap 'fleet/**' --record fleet.rec --count 100000

Records until interrupted, or as long as asked. The file is text, a sample a line, in the form of the
cases of policies; `weir policy replay` and `weir policy diff` read it. Samples that are put with
congestion control `drop` can be lost where this command is slower than they come.

Exit status: 0 recorded; 1 nothing came; 2 error.")]
pub struct TapArgs {
    /// Key expression
    pub key_expr: String,

    /// The file to write; it must not be there
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub record: PathBuf,

    /// Write over a file that is there
    #[arg(long)]
    pub force: bool,

    /// Stop after this many samples
    #[arg(long, value_name = "COUNT")]
    pub count: Option<u64>,

    /// Stop after this time: 30s, 5m
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    pub time: Option<Duration>,

    /// Where the router is.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Records every sample on a key expression.
///
/// # Errors
/// If no router can be reached, or the file cannot be written.
pub async fn tap(args: &TapArgs, streams: &mut Streams<'_>) -> Result<Outcome> {
    check_key_expr(&args.key_expr)?;
    let name = args.record.display();
    let cannot_write = || format!("cannot write {name}");
    // Caught from here on: whoever reads the next line may interrupt at once.
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let bus = args.connect.open().await?;
    let mut samples = bus.subscribe(&args.key_expr).await?;
    // What is put after this line is printed will be recorded.
    bus.flush(FLUSH_LIMIT).await?;
    let mut options = OpenOptions::new();
    options.write(true).truncate(args.force);
    let options = if args.force {
        options.create(true)
    } else {
        options.create_new(true)
    };
    let file = options.open(&args.record).with_context(cannot_write)?;
    let begun = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let about = About::new(args.key_expr.clone(), begun);
    let mut writer = Writer::new(BufWriter::new(file), &about).with_context(cannot_write)?;
    writer.flush().with_context(cannot_write)?;
    writeln!(streams.err, "recording {} into {name}", args.key_expr)?;

    // A year is forever for a recording.
    let end = Instant::now() + args.time.unwrap_or(Duration::from_secs(365 * 86_400));
    let mut flushes = interval(FLUSH_EVERY);
    flushes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while args.count != Some(writer.samples()) {
        let sample = tokio::select! {
            biased;
            _ = interrupts.recv() => None,
            _ = terminations.recv() => None,
            () = sleep_until(end) => None,
            _ = flushes.tick() => {
                writer.flush().with_context(cannot_write)?;
                continue;
            }
            sample = samples.next() => sample,
        };
        let Some(sample) = sample else { break };
        writer
            .write(&recorded(&sample))
            .with_context(cannot_write)?;
    }
    let count = writer.samples();
    writer.finish().with_context(cannot_write)?;
    drop(samples);
    bus.close().await?;
    writeln!(streams.err, "recorded {count} samples")?;
    Ok(match count {
        0 => Outcome::Nothing,
        _ => Outcome::Done,
    })
}

fn recorded(sample: &zenoh::sample::Sample) -> Sample {
    Sample {
        key: Key::from(sample.key_expr().as_str()),
        stamp: sample.timestamp().map(Stamp::from_uhlc),
        value: convert::value_of(sample),
        priority: sample.priority() as u8,
    }
}
