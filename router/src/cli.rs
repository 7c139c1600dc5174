//! The command line: its grammar, and which function each command calls.

use std::io::{BufWriter, IsTerminal, Write, stderr, stdout};
use std::process::ExitCode;
use std::sync::LazyLock;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::client::del::{self, DelArgs};
use crate::client::forward::{self, ForwardArgs};
use crate::client::get::{self, GetArgs};
use crate::client::put::{self, PutArgs};
use crate::client::status::{self, StatusArgs};
use crate::client::storage::{self, StorageArgs};
use crate::client::sub::{self, SubArgs};
use crate::client::tap::{self, TapArgs};
use crate::client::{Outcome, Streams};

pub mod check;
mod failure;
mod generate;
mod journal;
pub mod logging;
mod policy;
mod run;
pub mod settings;

use check::{CheckArgs, ConfigArgs};
use generate::{CompletionsArgs, ManArgs};
use journal::JournalArgs;
use logging::{LogArgs, Voice};
use policy::PolicyArgs;
use run::RunArgs;

/// Exit status when nothing matched, or when warnings were denied.
const EXIT_NOTHING: u8 = 1;
/// Exit status of an error. Clap's own for a wrong command line is the same.
const EXIT_ERROR: u8 = 2;

/// `0.1.0 (zenoh v1.10.2-release)`
static VERSION: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{} (zenoh {})",
        env!("CARGO_PKG_VERSION"),
        zenoh::GIT_VERSION
    )
});

/// Weir: a Zenoh storage router.
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version = VERSION.as_str(),
    about = "A Zenoh storage router: a full Zenoh router with storages inside",
    after_help = "\
Start here:
  weir run                                start a router that stores everything in ./weir-data
  weir put demo/hello world               put a value
  weir get 'demo/**'                      get it back
  weir status                             see how the router is
  weir check weir.json5                   check a configuration
  weir COMMAND --help                     options and examples of a command

Exit status: 0 done; 1 nothing matched, or warnings were denied; 2 error.",
    subcommand_required = true,
    arg_required_else_help = true,
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a router
    Run(Box<RunArgs>),
    /// Put a value
    Put(Box<PutArgs>),
    /// Get what a selector matches
    Get(Box<GetArgs>),
    /// Delete a key, or what a key expression matches
    Del(Box<DelArgs>),
    /// Print samples as they are put
    Sub(Box<SubArgs>),
    /// Record samples, for `weir policy replay`
    Tap(Box<TapArgs>),
    /// Show how the routers and their storages are
    Status(Box<StatusArgs>),
    /// List, look into, clear, fill and compare storages
    Storage(StorageArgs),
    /// List links and watch them drain
    Forward(ForwardArgs),
    /// Look into a link's journal, check it, print its samples
    Journal(JournalArgs),
    /// Write, test, build, measure and sign WebAssembly modules that decide, and list those that serve
    Policy(PolicyArgs),
    /// Check a configuration: every mistake at once, with file, line and column
    Check(Box<CheckArgs>),
    /// Show the settings, or the schema of the configuration file
    Config(ConfigArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Write the manual pages
    Man(ManArgs),
}

/// Runs the program: parses the command line, calls the command, prints what went wrong.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => return failure::usage(&usage),
    };
    match cli.run() {
        Ok(code) => code,
        Err(error) => failure::report(&error),
    }
}

impl Cli {
    fn run(self) -> Result<ExitCode> {
        self.log.start(self.command.voice())?;
        match self.command {
            Command::Run(args) => run::run(&args),
            Command::Put(args) => client(async |streams| put::put(&args, streams).await),
            Command::Get(args) => client(async |streams| get::get(&args, streams).await),
            Command::Del(args) => client(async |streams| del::del(&args, streams).await),
            Command::Sub(args) => client(async |streams| sub::sub(&args, streams).await),
            Command::Tap(args) => client(async |streams| tap::tap(&args, streams).await),
            Command::Status(args) => client(async |streams| status::status(&args, streams).await),
            Command::Storage(args) => {
                client(async |streams| storage::storage(&args, streams).await)
            }
            Command::Forward(args) => {
                client(async |streams| forward::forward(&args, streams).await)
            }
            Command::Journal(args) => print(|streams| journal::journal(&args, streams)),
            Command::Policy(args) => policy::policy(&args, self.log.color),
            Command::Check(args) => print(|streams| check::check(*args, self.log.color, streams)),
            Command::Config(args) => print(|streams| check::config(args, self.log.color, streams)),
            Command::Completions(args) => generate::completions(&args),
            Command::Man(args) => generate::man(&args),
        }
    }
}

impl Command {
    /// How much a command says of what goes on.
    fn voice(&self) -> Voice {
        match self {
            Self::Run(_) => Voice::Router,
            Self::Put(_)
            | Self::Get(_)
            | Self::Del(_)
            | Self::Sub(_)
            | Self::Tap(_)
            | Self::Status(_)
            | Self::Storage(_)
            | Self::Forward(_)
            | Self::Journal(_)
            | Self::Policy(_)
            | Self::Check(_)
            | Self::Config(_)
            | Self::Completions(_)
            | Self::Man(_) => Voice::Command,
        }
    }
}

/// Runs a client command on a runtime of its own.
fn client(command: impl AsyncFnOnce(&mut Streams<'_>) -> Result<Outcome>) -> Result<ExitCode> {
    // Zenoh refuses to run on a current-thread runtime.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    print(|streams| {
        Ok(match runtime.block_on(command(streams))? {
            Outcome::Done => ExitCode::SUCCESS,
            Outcome::Nothing => ExitCode::from(EXIT_NOTHING),
            Outcome::Refused => ExitCode::from(EXIT_ERROR),
        })
    })
}

/// Runs a command with the process's streams.
fn print(command: impl FnOnce(&mut Streams<'_>) -> Result<ExitCode>) -> Result<ExitCode> {
    let mut out = BufWriter::new(stdout().lock());
    let mut err = stderr();
    let out_is_terminal = stdout().is_terminal();
    let code = command(&mut Streams {
        out: &mut out,
        err: &mut err,
        out_is_terminal,
    })?;
    out.flush()?;
    Ok(code)
}

#[cfg(test)]
mod tests;
