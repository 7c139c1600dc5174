//! `weir storage`: what a storage holds besides its keys, and what fills it.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::ask::{ask, router_of, shown, shown_bytes, shown_keys};
use super::import::{self, ImportArgs};
use super::table::Table;
use super::verify::{self, VerifyArgs};
use super::{ConnectArgs, Outcome, Streams, parse_duration};

/// What a router says that does not permit it.
const NO_WRITE: &str = "adminspace.permissions.write";
/// What to do about it.
const WRITE_HINT: &str = "\
hint: start that router with `--adminspace-permissions rw`, or set adminspace.permissions.write in
its configuration";

/// Arguments of `weir storage`.
#[derive(Args, Clone, Debug)]
pub struct StorageArgs {
    #[command(subcommand)]
    command: StorageCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum StorageCommand {
    /// List the storages of all routers
    Ls(Box<LsArgs>),
    /// Changes from the future, kept until they are due
    Parked(Box<AsideArgs>),
    /// Changes too old to be judged, kept until somebody decides
    Quarantine(Box<AsideArgs>),
    /// Import a directory that zenohd's storage backends have written
    Import(Box<ImportArgs>),
    /// Compare two live storages: whether they hold the same, and what differs
    Verify(Box<VerifyArgs>),
}

/// Where to ask, and how long.
#[derive(Args, Clone, Debug)]
pub struct AskArgs {
    /// Print JSON, one object a line
    #[arg(long)]
    pub json: bool,

    /// How long to wait for the answers: 10s, 500ms, 3
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "30s")]
    pub timeout: Duration,

    /// Where the router is.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  weir storage ls

Exit status: 0 there are storages; 1 there are none; 2 error.")]
struct LsArgs {
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir storage parked list demo
  weir storage quarantine release demo
  weir storage quarantine purge demo --router 5a1f...

Releasing puts the change again under a new timestamp; purging drops it. Both need write permission
on the router's admin space: `weir run --adminspace-permissions rw`.

Exit status: 0 done; 1 no such storage; 2 error, or the router refused.")]
struct AsideArgs {
    /// What to do
    #[arg(value_enum)]
    action: Action,

    /// The storage
    name: String,

    /// Only on this router
    #[arg(long, value_name = "ID")]
    router: Option<String>,

    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Show them
    List,
    /// Put them again under new timestamps
    Release,
    /// Drop them
    Purge,
}

/// Runs `weir storage ...`.
pub async fn storage(args: &StorageArgs, streams: &mut Streams<'_>) -> Result<Outcome> {
    match &args.command {
        StorageCommand::Ls(args) => ls(args, streams).await,
        StorageCommand::Parked(args) => aside(args, "parked", streams).await,
        StorageCommand::Quarantine(args) => aside(args, "quarantine", streams).await,
        StorageCommand::Import(args) => import::import(args, streams).await,
        StorageCommand::Verify(args) => verify::verify(args, streams).await,
    }
}

async fn ls(args: &LsArgs, streams: &mut Streams<'_>) -> Result<Outcome> {
    let bus = args.ask.connect.open().await?;
    let answers = ask(&bus, "@weir/*/storages/*", args.ask.timeout, streams).await?;
    bus.close().await?;
    let heads = [
        "STORAGE",
        "ROUTER",
        "STATE",
        "HISTORY",
        "DURABILITY",
        "KEYS",
        "BYTES",
        "KEY EXPRESSIONS",
    ];
    let mut table = Table::held(heads);
    for (key, storage) in &answers.values {
        if args.ask.json {
            let line = json!({ "router": router_of(key), "storage": storage });
            writeln!(streams.out, "{line}")?;
            continue;
        }
        let cell = |field| shown(storage, field);
        let router = router_of(key).to_owned();
        let cells = [
            cell("name"),
            router,
            cell("state"),
            cell("history"),
            cell("durability"),
            shown_keys(storage),
            shown_bytes(storage),
            cell("key_expr"),
        ];
        table.row(cells, streams.out)?;
    }
    table.finish(streams.out)?;
    streams.out.flush()?;
    finish(
        answers.values.len(),
        &answers.errors,
        "there is no storage",
        streams,
    )
}

async fn aside(args: &AsideArgs, what: &str, streams: &mut Streams<'_>) -> Result<Outcome> {
    let selector = args.selector(what)?;
    let bus = args.ask.connect.open().await?;
    let answers = ask(&bus, &selector, args.ask.timeout, streams).await?;
    bus.close().await?;
    for (key, answer) in &answers.values {
        let router = router_of(key);
        match args.action {
            _ if args.ask.json => {
                let line = json!({ "router": router, "storage": args.name, what: answer });
                writeln!(streams.out, "{line}")?;
            }
            Action::List => list(router, answer, streams)?,
            Action::Release => {
                writeln!(
                    streams.out,
                    "{router}: released {}",
                    shown(answer, "released")
                )?;
            }
            Action::Purge => {
                writeln!(streams.out, "{router}: purged {}", shown(answer, "purged"))?;
            }
        }
    }
    streams.out.flush()?;
    let nothing = format!("there is no storage {}", args.name);
    finish(answers.values.len(), &answers.errors, &nothing, streams)
}

fn list(router: &str, answer: &Value, streams: &mut Streams<'_>) -> Result<()> {
    if answer["changes"].as_array().is_none_or(Vec::is_empty) {
        writeln!(streams.err, "{router}: nothing is set aside")?;
        return Ok(());
    }
    let mut table = Table::held(["ROUTER", "KEY", "KIND", "TIMESTAMP", "BYTES"]);
    for change in answer["changes"].as_array().into_iter().flatten() {
        let cell = |field| shown(change, field);
        let cells = [
            router.to_owned(),
            cell("key"),
            cell("kind"),
            cell("timestamp"),
            cell("bytes"),
        ];
        table.row(cells, streams.out)?;
    }
    table.finish(streams.out)?;
    if answer["more"] == json!(true) {
        writeln!(streams.err, "{router}: there are more")?;
    }
    Ok(())
}

fn finish(
    answers: usize,
    errors: &[String],
    nothing: &str,
    streams: &mut Streams<'_>,
) -> Result<Outcome> {
    if errors.iter().any(|error| error.contains(NO_WRITE)) {
        writeln!(streams.err, "{WRITE_HINT}")?;
    }
    Ok(match (answers, errors.len()) {
        (0, 0) => {
            writeln!(streams.err, "{nothing}")?;
            Outcome::Nothing
        }
        (_, 0) => Outcome::Done,
        _ => Outcome::Refused,
    })
}

impl AsideArgs {
    fn selector(&self, what: &str) -> Result<String> {
        let router = self.router.as_deref().unwrap_or("*");
        // The name becomes one chunk of a key expression: anything else would ask, or purge, more.
        for (flag, text) in [
            ("the storage's name", self.name.as_str()),
            ("--router", router),
        ] {
            let plain = !text.is_empty() && !text.contains(['/', '$', '?', '#']);
            if !plain || (text.contains('*') && (flag != "--router" || text != "*")) {
                bail!("{flag} cannot be `{text}`");
            }
        }
        let parameter = match self.action {
            Action::List => "",
            Action::Release => "?_release",
            Action::Purge => "?_purge",
        };
        Ok(format!(
            "@weir/{router}/storages/{}/{what}{parameter}",
            self.name
        ))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: AsideArgs,
    }

    #[test]
    fn a_name_asks_for_one_storage_only() {
        let rows = [
            (&["list", "demo"][..], Some("@weir/*/storages/demo/parked")),
            (
                &["purge", "demo"],
                Some("@weir/*/storages/demo/parked?_purge"),
            ),
            (
                &["release", "demo", "--router", "ab"],
                Some("@weir/ab/storages/demo/parked?_release"),
            ),
            (&["purge", "*"], None),
            (&["purge", "a/b"], None),
            (&["purge", "a$*"], None),
            (&["purge", ""], None),
            (&["purge", "a?_x"], None),
            (&["purge", "demo", "--router", "*/a"], None),
        ];
        for (line, expected) in rows {
            let cli = Cli::try_parse_from(std::iter::once(&"parked").chain(line)).unwrap();
            assert_eq!(
                cli.args.selector("parked").ok().as_deref(),
                expected,
                "{line:?}"
            );
        }
    }
}
