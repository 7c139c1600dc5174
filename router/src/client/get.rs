//! `weir get`.

use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};
use zenoh::query::{ConsolidationMode, Parameters, QueryTarget};

use super::ack::print_reply_error;
use super::format::{Printer, Row};
use super::{ConnectArgs, Format, Outcome, Streams, check_key_expr, parse_duration};
use crate::session::GetOptions;

/// Arguments of `weir get`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir get demo/room/temperature
  weir get 'demo/**' --limit 10
  weir get 'fleet/drone/**?_time=[now(-1h)..]' --all
  weir get demo/blob --format raw > blob

Zenoh gives one answer a key, the latest, and holds them all until the last has come; with --all
every answer is printed as it arrives, from each storage and of each version.

Exit status: 0 something matched; 1 nothing matched; 2 error, or somebody answered with one.")]
pub struct GetArgs {
    /// What to get: KEYEXPR or KEYEXPR?PARAMETERS
    pub selector: String,

    /// How to print [default: table on a terminal, else json]
    #[arg(long, value_enum)]
    pub format: Option<Format>,

    /// Stop after this many (also told to the storages, as _limit)
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<usize>,

    /// How long to wait for the answers: 10s, 500ms, 3
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10s")]
    pub timeout: Duration,

    /// Print every answer as it arrives, not one a key
    #[arg(long)]
    pub all: bool,

    /// Whom to ask
    #[arg(long, value_enum, default_value_t = Target::Best)]
    pub target: Target,

    /// Where the router is.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Zenoh's query targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// The nearest that holds everything, or else all
    #[default]
    Best,
    /// All that hold any of it
    All,
    /// All that hold everything
    AllComplete,
}

/// Gets what a selector matches.
pub async fn get(args: &GetArgs, streams: &mut Streams<'_>) -> Result<Outcome> {
    let (key_expr, _) = args
        .selector
        .split_once('?')
        .unwrap_or((&args.selector, ""));
    check_key_expr(key_expr)?;
    if args.limit == Some(0) {
        return Ok(Outcome::Done);
    }

    let bus = args.connect.open().await?;
    let mut replies = bus.get(&args.selector_with_limit(), args.options()).await?;
    let format = Format::or_default(args.format, streams.out_is_terminal);
    let mut printer = Printer::for_replies(format, streams.out_is_terminal);
    let (mut samples, mut errors) = (0, 0);
    while let Some(reply) = replies.next().await {
        let source = reply.replier_id().map(|id| id.zid().to_string());
        match reply.result() {
            Ok(sample) => {
                samples += 1;
                printer.print(&Row::new(sample, source), streams.out)?;
            }
            Err(error) => {
                errors += 1;
                print_reply_error(&error.payload().to_bytes(), source, streams)?;
            }
        }
        if args.limit == Some(samples) {
            break;
        }
    }
    printer.finish(streams.out)?;
    drop(replies);
    bus.close().await?;
    match (samples, errors) {
        (0, 0) => {
            writeln!(streams.err, "nothing matches {}", args.selector)?;
            Ok(Outcome::Nothing)
        }
        (_, 0) => Ok(Outcome::Done),
        _ => Ok(Outcome::Refused),
    }
}

impl GetArgs {
    /// The selector, with our limit as its `_limit` unless it has one.
    fn selector_with_limit(&self) -> String {
        let (key_expr, given) = self
            .selector
            .split_once('?')
            .unwrap_or((&self.selector, ""));
        let Some(limit) = self
            .limit
            .filter(|_| !Parameters::from(given).contains_key("_limit"))
        else {
            return self.selector.clone();
        };
        let separator = if given.is_empty() { "" } else { ";" };
        format!("{key_expr}?{given}{separator}_limit={limit}")
    }

    fn options(&self) -> GetOptions {
        GetOptions {
            timeout: self.timeout,
            target: match self.target {
                Target::Best => QueryTarget::BestMatching,
                Target::All => QueryTarget::All,
                Target::AllComplete => QueryTarget::AllComplete,
            },
            consolidation: if self.all {
                ConsolidationMode::None
            } else {
                ConsolidationMode::Auto
            },
            ..GetOptions::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: GetArgs,
    }

    #[test]
    fn the_limit_is_told_to_the_storages() {
        let rows = [
            (&["a/**"][..], "a/**"),
            (&["a/**", "--limit", "3"], "a/**?_limit=3"),
            (&["a/**?", "--limit", "3"], "a/**?_limit=3"),
            (
                &["a/**?_time=[..]", "--limit", "3"],
                "a/**?_time=[..];_limit=3",
            ),
            (&["a/**?_limit=9", "--limit", "3"], "a/**?_limit=9"),
        ];
        for (line, expected) in rows {
            let cli = Cli::try_parse_from(std::iter::once(&"get").chain(line)).unwrap();
            assert_eq!(cli.args.selector_with_limit(), expected, "{line:?}");
        }
    }
}
