//! `weir put`.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueHint};
use zenoh::bytes::{Encoding, ZBytes};

use super::ack::{AckArgs, Operation};
use super::timestamp::GivenTimestamp;
use super::{ConnectArgs, FLUSH_LIMIT, Outcome, Streams, check_key_expr};
use crate::session::PutOptions;

/// Arguments of `weir put`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir put demo/room/temperature 21.5
  weir put demo/config @config.json --encoding application/json
  producer | weir put demo/blob -
  weir put demo/valve open --ack --durability synced

A value given as an argument is put as text/plain, a file or standard input as zenoh/bytes,
unless --encoding says otherwise. A key expression with wildcards updates the keys that exist.

Exit status: 0 done; 1 --ack and no storage answered; 2 error, or a storage refused.")]
pub struct PutArgs {
    /// Key (or key expression)
    pub key: String,

    /// The value: text, `-` for standard input, `@FILE` for a file [default: standard input]
    #[arg(conflicts_with_all = ["file", "text"], allow_hyphen_values = true)]
    pub value: Option<String>,

    /// Read the value from a file
    #[arg(long, value_name = "FILE", conflicts_with = "text", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,

    /// The value, taken literally, even if it starts with `@`
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub text: Option<String>,

    /// Encoding, such as application/json or text/plain
    #[arg(long)]
    pub encoding: Option<String>,

    /// What the change carries besides.
    #[command(flatten)]
    pub change: ChangeArgs,

    /// Whether to wait for the storages.
    #[command(flatten)]
    pub ack: AckArgs,

    /// Where the router is.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// What put and delete have in common.
#[derive(Args, Clone, Debug, Default)]
pub struct ChangeArgs {
    /// Attachment, as text
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub attachment: Option<String>,

    /// Event time, as 2026-05-04T10:00:00Z or as Zenoh prints it; /ID may follow
    /// [default: the first router's clock]
    #[arg(long, value_name = "TIME", value_parser = |text: &str| GivenTimestamp::parse(text))]
    pub timestamp: Option<GivenTimestamp>,
}

/// Where the value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source<'a> {
    Text(&'a str),
    File(&'a Path),
    Stdin,
}

/// Puts a value.
pub async fn put(args: &PutArgs, streams: &mut Streams<'_>) -> Result<Outcome> {
    check_key_expr(&args.key)?;
    let source = args.source();
    let payload = ZBytes::from(source.read()?);
    let encoding = match (&args.encoding, source) {
        (Some(given), _) => Some(Encoding::from(given.as_str())),
        (None, Source::Text(_)) => Some(Encoding::TEXT_PLAIN),
        (None, Source::File(_) | Source::Stdin) => None,
    };
    let attachment = args.change.attachment.as_deref().map(ZBytes::from);

    let bus = args.connect.open().await?;
    let timestamp = args
        .change
        .timestamp
        .map(|given| given.resolve(*bus.new_timestamp().get_id()));
    let outcome = if args.ack.wanted() {
        let operation = Operation::Put { payload, encoding };
        args.ack
            .ask(&bus, &args.key, operation, attachment, timestamp, streams)
            .await?
    } else {
        bus.put(
            &args.key,
            payload,
            PutOptions {
                encoding,
                attachment,
                timestamp,
            },
        )
        .await?;
        bus.flush(FLUSH_LIMIT).await?;
        Outcome::Done
    };
    bus.close().await?;
    Ok(outcome)
}

impl PutArgs {
    fn source(&self) -> Source<'_> {
        match (&self.value, &self.file, &self.text) {
            (_, Some(file), _) => Source::File(file),
            (_, _, Some(text)) => Source::Text(text),
            (Some(value), ..) if value == "-" => Source::Stdin,
            (Some(value), ..) => match value.strip_prefix('@') {
                Some(file) => Source::File(Path::new(file)),
                None => Source::Text(value),
            },
            (None, ..) => Source::Stdin,
        }
    }
}

impl Source<'_> {
    fn read(&self) -> Result<Vec<u8>> {
        match self {
            Source::Text(text) => Ok(text.as_bytes().to_vec()),
            Source::File(path) => std::fs::read(path)
                .with_context(|| format!("cannot read the value from {}", path.display())),
            Source::Stdin => {
                let mut stdin = std::io::stdin().lock();
                if stdin.is_terminal() {
                    bail!("no value: give one as an argument, as @FILE, or on standard input");
                }
                let mut value = Vec::new();
                stdin
                    .read_to_end(&mut value)
                    .context("cannot read the value from standard input")?;
                Ok(value)
            }
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
        args: PutArgs,
    }

    #[test]
    fn the_value_comes_from_where_it_says() {
        let rows = [
            (&["k", "21.5"][..], Source::Text("21.5")),
            (&["k", "-5"], Source::Text("-5")),
            (&["k", ""], Source::Text("")),
            (&["k", "-"], Source::Stdin),
            (&["k"], Source::Stdin),
            (&["k", "@a.json"], Source::File(Path::new("a.json"))),
            (
                &["k", "--file", "a.json"],
                Source::File(Path::new("a.json")),
            ),
            (&["k", "--text", "@a"], Source::Text("@a")),
            (&["k", "--text", "-"], Source::Text("-")),
        ];
        for (line, expected) in rows {
            let cli = Cli::try_parse_from(std::iter::once(&"put").chain(line)).unwrap();
            assert_eq!(cli.args.source(), expected, "{line:?}");
        }
    }

    #[test]
    fn one_value_is_enough() {
        for line in [
            &["k", "v", "--file", "f"][..],
            &["k", "v", "--text", "t"],
            &["k", "--file", "f", "--text", "t"],
            &[],
            &["k", "v", "--durability", "hoped"],
            &["k", "v", "--timestamp", "noon"],
        ] {
            let parsed = Cli::try_parse_from(std::iter::once(&"put").chain(line));
            assert!(parsed.is_err(), "{line:?}");
        }
    }

    #[test]
    fn a_file_is_read_as_it_is_and_a_missing_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value");
        std::fs::write(&path, b"a\n\xff").unwrap();
        assert_eq!(Source::File(&path).read().unwrap(), b"a\n\xff");
        let missing = dir.path().join("missing");
        let error = Source::File(&missing).read().unwrap_err().to_string();
        assert!(error.contains("missing"), "{error}");
    }
}
