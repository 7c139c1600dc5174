//! The client commands: what a newcomer needs to talk to a router.
//!
//! Each command checks its arguments, opens one connection, does one thing, closes the connection
//! and says by its [`Outcome`] what the process should exit with. What a command prints goes to
//! the [`Streams`] it is given, so that tests read it without a process.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum, ValueHint};

use crate::session::{Bus, ClientMode, ClientOptions};

mod ack;
mod ask;
pub mod del;
mod format;
pub mod forward;
pub mod get;
pub mod import;
pub mod policy;
pub mod put;
pub mod status;
pub mod storage;
pub mod sub;
mod table;
pub mod tap;
mod timestamp;
pub mod verify;

pub use ack::Durability;
pub use format::Format;
pub(crate) use format::{Printer, Row};
pub(crate) use table::{Table, printable};

/// How long a put or delete that nobody acknowledges waits for the router to have taken it.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// How a command ended, short of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what was asked.
    Done,
    /// Nothing matched, or nobody answered.
    Nothing,
    /// Somebody answered with an error, which has been printed.
    Refused,
}

/// Where a command writes, and whether a person watches.
pub struct Streams<'a> {
    /// Results.
    pub out: &'a mut dyn Write,
    /// Remarks and errors.
    pub err: &'a mut dyn Write,
    /// Whether `out` is a terminal.
    pub out_is_terminal: bool,
}

/// Arguments of every client command: where the router is.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection")]
pub struct ConnectArgs {
    /// Endpoint of a router; may be repeated, the first that answers is used
    /// [default: tcp/127.0.0.1:7447, or what --config names]
    #[arg(
        short = 'e',
        long,
        value_name = "ENDPOINT",
        env = "WEIR_ENDPOINT",
        hide_env_values = true
    )]
    pub connect: Vec<String>,

    /// Zenoh mode of the connection
    #[arg(short, long, value_enum, default_value_t = Mode::Client)]
    pub mode: Mode,

    /// Zenoh configuration file (json5, json, yaml) with what the connection needs: TLS, user
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}

/// The Zenoh modes that a client command can take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// One connection, to the first router that answers
    #[default]
    Client,
    /// Connections to all that are named
    Peer,
}

impl ConnectArgs {
    /// Connects, or says why not.
    pub async fn open(&self) -> Result<Bus> {
        let mode = match self.mode {
            Mode::Client => ClientMode::Client,
            Mode::Peer => ClientMode::Peer,
        };
        let options = ClientOptions {
            endpoints: self.connect.clone(),
            mode,
            config: self.config.clone(),
        };
        Ok(Bus::open_client(options).await?)
    }
}

/// Checks a key expression before anything is connected, so that the message is about the text.
fn check_key_expr(text: &str) -> Result<()> {
    let Err(refused) = zenoh::key_expr::keyexpr::new(text) else {
        return Ok(());
    };
    if let Ok(canonical) = zenoh::key_expr::KeyExpr::autocanonize(text.to_owned()) {
        bail!("`{text}` is not in canonical form: write `{canonical}`");
    }
    let hint = match text {
        "" => "it is empty",
        _ if text.starts_with('/') || text.ends_with('/') => {
            "a key expression neither starts nor ends with `/`"
        }
        _ if text.contains("//") => "a chunk between two `/` cannot be empty",
        _ if text.contains(['?', '#']) => "`?` and `#` cannot be part of a key",
        _ if text.contains('$') => "`$` is only legal in `$*`",
        _ => {
            return Err(anyhow::anyhow!(refused)).context(format!("`{text}` is no key expression"));
        }
    };
    bail!("`{text}` is no key expression: {hint}")
}

/// Parses `--timeout`: `10s`, `500ms`, `1m 30s`, or a number of seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string());
    }
    humantime::parse_duration(text).map_err(|e| format!("{e}; write for example 10s or 500ms"))
}

#[cfg(test)]
mod tests;
