//! `weir sub`.

use anyhow::Result;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::format::{Printer, Row};
use super::{ConnectArgs, FLUSH_LIMIT, Format, Outcome, Streams, check_key_expr};

/// Arguments of `weir sub`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir sub 'demo/**'
  weir sub demo/room/temperature --count 1 --format raw

Prints until interrupted. When the output is slower than the samples, they wait in the router and
those that are put with congestion control `drop` are lost there.

Exit status: 0 interrupted, or --count reached; 2 error.")]
pub struct SubArgs {
    /// Key expression
    pub key_expr: String,

    /// How to print [default: table on a terminal, else json]
    #[arg(long, value_enum)]
    pub format: Option<Format>,

    /// Stop after this many samples
    #[arg(long, value_name = "COUNT")]
    pub count: Option<usize>,

    /// Where the router is.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Prints every sample on a key expression.
pub async fn sub(args: &SubArgs, streams: &mut Streams<'_>) -> Result<Outcome> {
    check_key_expr(&args.key_expr)?;
    // Caught from here on: whoever reads the next line may interrupt at once.
    let mut interrupts = signal(SignalKind::interrupt())?;
    let bus = args.connect.open().await?;
    let mut samples = bus.subscribe(&args.key_expr).await?;
    // What is put after this line is printed will be seen.
    bus.flush(FLUSH_LIMIT).await?;
    writeln!(streams.err, "subscribed to {}", args.key_expr)?;

    let format = Format::or_default(args.format, streams.out_is_terminal);
    let mut printer = Printer::for_stream(format, streams.out_is_terminal);
    let mut seen = 0;
    while args.count != Some(seen) {
        let sample = tokio::select! {
            sample = samples.next() => sample,
            _ = interrupts.recv() => None,
        };
        let Some(sample) = sample else { break };
        seen += 1;
        printer.print(&Row::new(&sample, None), streams.out)?;
        // Somebody waits for this line.
        streams.out.flush()?;
    }
    printer.finish(streams.out)?;
    drop(samples);
    bus.close().await?;
    Ok(Outcome::Done)
}
