//! `weir forward`: what waits in the links of the routers, and how it leaves.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::ask::{Answers, ask, router_of};
use super::{ConnectArgs, Outcome, Streams, parse_duration};
use crate::session::Bus;

mod view;

pub(super) use view::print_links;
use view::{Backlog, details, is_certified, line};

/// Asking more often tells a person nothing, and routers something all the time.
const EVERY_MIN: Duration = Duration::from_millis(100);

/// Arguments of `weir forward`.
#[derive(Args, Clone, Debug)]
pub struct ForwardArgs {
    #[command(subcommand)]
    command: ForwardCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum ForwardCommand {
    /// List the links of all routers
    Ls(Box<LsArgs>),
    /// Show how a link drains, until interrupted
    Watch(Box<WatchArgs>),
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  weir forward ls

WAITING is what not every upstream has certified yet, the last seconds among it, and OLDEST when the
oldest of it was stamped; LACKS is what this upstream is known to lack. LOST
counts records that were given up, for want of room, by age or by damage.

Exit status: 0 there are links; 1 there are none; 2 error.")]
struct LsArgs {
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,

    /// How long to wait for the answers: 10s, 500ms, 3
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "5s")]
    timeout: Duration,

    /// Where the router is.
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Arguments of `weir forward watch`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir forward watch cloud
  weir forward watch cloud -e tcp/10.0.0.7:7447 --until-certified
  weir forward watch cloud --json | jq '.link.queued'

The bar is full when nothing waits; its whole length is the most that has waited since it was last
full. Without a terminal, a line is printed each time.

Exit status: 0 interrupted, or all is certified; 1 no router has such a link; 2 error.")]
pub struct WatchArgs {
    /// The link
    name: String,

    /// Only on this router
    #[arg(long, value_name = "ID")]
    router: Option<String>,

    /// How often to look: 500ms, 2s
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1s")]
    every: Duration,

    /// End when nothing waits and every upstream has certified it
    #[arg(long)]
    until_certified: bool,

    /// Print JSON, one object a line and look
    #[arg(long)]
    json: bool,

    /// How long to wait for the answers: 10s, 500ms, 3
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "5s")]
    timeout: Duration,

    /// Where the router is.
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Runs `weir forward ...`.
pub async fn forward(args: &ForwardArgs, streams: &mut Streams<'_>) -> Result<Outcome> {
    match &args.command {
        ForwardCommand::Ls(args) => ls(args, streams).await,
        ForwardCommand::Watch(args) => watch(args, streams).await,
    }
}

async fn ls(args: &LsArgs, streams: &mut Streams<'_>) -> Result<Outcome> {
    let bus = args.connect.open().await?;
    let answers = ask(&bus, "@weir/*/forward/*", args.timeout, streams).await?;
    bus.close().await?;
    if args.json {
        print_json(&answers, streams)?;
    } else {
        let links = answers.values.iter();
        let links = links.map(|(key, link)| (router_of(key), link));
        print_links(links, streams)?;
    }
    Ok(
        match (answers.errors.is_empty(), answers.values.is_empty()) {
            (true, false) => Outcome::Done,
            (true, true) => Outcome::Nothing,
            (false, _) => Outcome::Refused,
        },
    )
}

/// Looks until interrupted, or until all is certified if that was asked for.
async fn watch(args: &WatchArgs, streams: &mut Streams<'_>) -> Result<Outcome> {
    let bus = args.connect.open().await?;
    let mut screen = Screen::new()?;
    // Made once: an interrupt that comes while something is printed is not missed.
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let mut ticks = tokio::time::interval(args.every.max(EVERY_MIN));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut was_there = false;
    let outcome = loop {
        let look = async {
            ticks.tick().await;
            args.look(&bus, streams).await
        };
        let answers = tokio::select! {
            answers = look => answers?,
            interrupted = &mut interrupt => {
                interrupted.context("cannot wait for an interrupt")?;
                break Outcome::Done;
            }
        };
        was_there |= !answers.values.is_empty();
        if !was_there {
            if answers.errors.is_empty() {
                writeln!(streams.err, "no router has a link `{}`", args.name)?;
                break Outcome::Nothing;
            }
            break Outcome::Refused;
        }
        if args.json {
            print_json(&answers, streams)?;
        } else {
            screen.show(&args.name, &answers.values, streams)?;
        }
        streams.out.flush()?;
        let mut links = answers.values.iter().map(|(_, link)| link);
        // An answer that did not come says nothing.
        if args.until_certified && !answers.values.is_empty() && links.all(is_certified) {
            break Outcome::Done;
        }
    };
    screen.finish();
    bus.close().await?;
    Ok(outcome)
}

impl WatchArgs {
    async fn look(&self, bus: &Bus, streams: &mut Streams<'_>) -> Result<Answers> {
        let router = self.router.as_deref().unwrap_or("*");
        let selector = format!("@weir/{router}/forward/{}", self.name);
        ask(bus, &selector, self.timeout, streams).await
    }
}

fn print_json(answers: &Answers, streams: &mut Streams<'_>) -> Result<()> {
    for (key, link) in &answers.values {
        let line = json!({ "router": router_of(key), "link": link });
        writeln!(streams.out, "{line}")?;
    }
    Ok(())
}

/// A bar and what is told below it, for a person; lines for a log.
struct Screen {
    bar: ProgressBar,
    backlog: Backlog,
}

impl Screen {
    fn new() -> Result<Self> {
        // Draws on standard error, and only if that is a terminal.
        let style = ProgressStyle::with_template("{prefix}\n{bar:50} {percent}%\n{msg}")?;
        let bar = ProgressBar::new(1).with_style(style);
        Ok(Self {
            bar,
            backlog: Backlog::default(),
        })
    }

    fn show(
        &mut self,
        name: &str,
        links: &[(String, Value)],
        streams: &mut Streams<'_>,
    ) -> Result<()> {
        let now = SystemTime::now();
        if self.bar.is_hidden() {
            for (key, link) in links {
                writeln!(streams.out, "{}", line(router_of(key), link, now))?;
            }
            return Ok(());
        }
        if links.is_empty() {
            self.bar.set_prefix(format!("{name}: no answer"));
            return Ok(());
        }
        let (done, total) = self.backlog.look(links.iter().map(|(_, link)| link));
        let heads = links
            .iter()
            .map(|(key, link)| line(router_of(key), link, now));
        self.bar.set_prefix(heads.collect::<Vec<_>>().join("\n"));
        let below = links.iter().flat_map(|(_, link)| details(link, now));
        self.bar.set_message(below.collect::<Vec<_>>().join("\n"));
        self.bar.set_length(total);
        self.bar.set_position(done);
        Ok(())
    }

    /// Leaves what was seen last where it is.
    fn finish(&self) {
        self.bar.abandon();
    }
}
