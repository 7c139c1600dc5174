//! The benchmarks of the router: `make bench`.
//!
//! Every figure is a ratio to a yardstick that was taken in the same run on the same machine,
//! rounds alternate between the two, and the median is reported with the least and the greatest.
//! Nothing passes or fails by the clock: a run fails if a process fails or a sample is missing.
//!
//! The process that you start only directs: it starts the router under test, the yardstick and
//! the stock router as processes, and publishers and queriers as further processes, which are
//! this same binary under a hidden command. It is idle while they work.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`scenario`] | what is measured, one module each |
//! | [`router`] | the routers that are compared and how each is started |
//! | [`worker`] | the hidden commands: publish, scan, point, live, yardstick |
//! | [`process`] | child processes and what the kernel knows about them |
//! | [`dataset`] | keys and values, the same on every side |
//! | [`report`] | ratios, medians and the table |
//! | [`machine`] | the machine that a table is about |

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the table, the progress and the answers of the workers are what this program is for"
)]

mod client;
mod dataset;
mod machine;
mod process;
mod report;
mod router;
mod scenario;
mod worker;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;

use crate::{report::Report, scenario::Bench};

/// Measure the router against its yardsticks.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    worker: Option<worker::Worker>,
}

/// What a run measures and how long it takes.
#[derive(clap::Args)]
pub struct Options {
    /// Run only the scenarios whose name contains this; may be given several times.
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// Measure every contestant this many times, in turn.
    #[arg(long, default_value_t = 5, value_name = "N")]
    rounds: usize,
    /// A tenth of the keys, short runs, two rounds: shows that it works, not how fast.
    #[arg(long)]
    quick: bool,
    /// Write the table to this file as well, as Markdown.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// List the scenarios and stop.
    #[arg(long)]
    list: bool,
    /// The router under test.
    #[arg(long, env = "WEIR_BIN", value_name = "FILE")]
    weir: Option<PathBuf>,
    /// Where the compiled policies are.
    #[arg(
        long,
        value_name = "DIR",
        env = "WEIR_BENCH_POLICIES",
        default_value = "policies/wasm"
    )]
    policies: PathBuf,
    /// Where `make bench-stock` has built the stock router.
    #[arg(long, env = "WEIR_BENCH_STOCK", value_name = "DIR")]
    stock: Option<PathBuf>,
    /// Where the databases lie while they are measured.
    #[arg(long, default_value_os_t = std::env::temp_dir(), value_name = "DIR")]
    dir: PathBuf,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.worker {
        Some(worker) => worker.run(),
        None => run(&cli.options),
    }
}

fn run(options: &Options) -> Result<()> {
    if options.list {
        for (name, about) in scenario::names() {
            println!("{name:<24} {about}");
        }
        return Ok(());
    }
    let bench = Bench::new(options)?;
    let mut report = Report::new(machine::describe(bench.dir())?);
    scenario::run_all(&bench, options, &mut report);
    let table = report.to_string();
    println!("{table}");
    if let Some(path) = &options.out {
        std::fs::write(path, &table).with_context(|| format!("write {}", path.display()))?;
    }
    report.verdict()
}
