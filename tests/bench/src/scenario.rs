//! What is measured.

mod append;
mod forward;
mod ingest;
mod live;
mod many;
mod mirror;
mod overwrite;
mod point;
mod reload;
mod restart;
mod route;
mod scan;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::{
    Options, client,
    process::Process,
    report::{Report, Series},
    router::{Kind, Programs, Router},
    worker::{Publish, Published},
};

/// What a scenario does with the machine and the report.
type Run = fn(&Bench, &mut Report) -> Result<()>;

/// Name, what it shows, how it runs.
const ALL: &[(&str, &str, Run)] = &[
    (
        "ingest-64",
        "64 B from one publisher, keys not declared",
        |b, r| ingest::run(b, r, 64, ingest::Mode::Undeclared),
    ),
    (
        "ingest-316",
        "316 B from one publisher, keys not declared",
        |b, r| ingest::run(b, r, 316, ingest::Mode::Undeclared),
    ),
    (
        "ingest-declared-64",
        "64 B from one publisher, keys declared",
        |b, r| ingest::run(b, r, 64, ingest::Mode::Declared),
    ),
    (
        "ingest-declared-316",
        "316 B from one publisher, keys declared",
        |b, r| ingest::run(b, r, 316, ingest::Mode::Declared),
    ),
    (
        "ingest-four-64",
        "64 B from four publishers at once",
        |b, r| ingest::run(b, r, 64, ingest::Mode::Four),
    ),
    (
        "ingest-four-316",
        "316 B from four publishers at once",
        |b, r| ingest::run(b, r, 316, ingest::Mode::Four),
    ),
    (
        "route",
        "64 B onto two shards in memory, by the native rule and by a policy",
        route::run,
    ),
    (
        "reload",
        "a policy that is replaced again and again at full rate",
        reload::run,
    ),
    (
        "mirror",
        "64 B into a storage that keeps a ledger for its mirrors, and into one that does not",
        mirror::run,
    ),
    (
        "overwrite",
        "keys overwritten whose versions lie a month apart, and a minute, with a ledger",
        overwrite::run,
    ),
    (
        "append",
        "samples into a link's journal, synced, and into a bare RocksDB that is never",
        append::run,
    ),
    (
        "forward",
        "what waited for an outage to end, against plain Zenoh over the same line",
        forward::run,
    ),
    ("scan-64", "wildcard get of all keys, 64 B", |b, r| {
        scan::run(b, r, 64)
    }),
    ("scan-316", "wildcard get of all keys, 316 B", |b, r| {
        scan::run(b, r, 316)
    }),
    ("point-quiet", "get of one key", |b, r| {
        point::run(b, r, false)
    }),
    (
        "point-busy",
        "get of one key while ingest runs at full rate",
        |b, r| point::run(b, r, true),
    ),
    ("restart", "restart on a full database", restart::run),
    (
        "live",
        "latency from publisher to subscriber, with and without a storage",
        live::run,
    ),
    ("many", "thousands of storages on one router", many::run),
];

/// The names of the scenarios and what they show.
pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    ALL.iter().map(|(name, about, _)| (*name, *about))
}

/// Runs what was asked for; a scenario that fails is reported, and the next one runs.
pub fn run_all(bench: &Bench, options: &Options, report: &mut Report) {
    for (name, about, run) in ALL {
        let wanted = |pattern: &String| name.contains(pattern.as_str());
        if options.only.is_empty() || options.only.iter().any(wanted) {
            eprintln!("{name}: {about}");
            if let Err(error) = run(bench, report) {
                report.fail(name, &error);
            }
        }
    }
}

/// What every scenario needs.
pub struct Bench {
    programs: Programs,
    dir: TempDir,
    /// How often every contestant is measured.
    pub rounds: usize,
    quick: bool,
}

impl Bench {
    /// Finds the programs and makes the folder that holds all databases.
    pub fn new(options: &Options) -> Result<Self> {
        let bench = std::env::current_exe()?;
        // Without the variable: what cargo has put beside this program.
        let beside = || bench.parent().map(|dir| dir.join("weir"));
        let weir = options
            .weir
            .clone()
            .or_else(beside)
            .filter(|path| path.is_file());
        let dir = TempDir::with_prefix_in("weir-bench-", &options.dir)
            .with_context(|| format!("make a folder in {}", options.dir.display()))?;
        ensure!(options.rounds > 0, "--rounds must be at least 1");
        Ok(Self {
            programs: Programs {
                weir: weir.map(|path| path.canonicalize()).transpose()?,
                stock: options.stock.clone().map(absolute).transpose()?,
                policies: absolute(options.policies.clone())?,
                bench,
            },
            dir,
            rounds: if options.quick {
                options.rounds.min(2)
            } else {
                options.rounds
            },
            quick: options.quick,
        })
    }

    /// Where the databases lie.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `full`, or a tenth of it in a quick run.
    pub fn scaled(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(10) } else { full }
    }

    /// How long a publisher publishes at full rate, in seconds.
    fn publish_seconds(&self) -> f64 {
        if self.quick { 0.5 } else { 3.0 }
    }

    /// Those of the contestants that are there; the others are reported as skipped.
    fn present(&self, kinds: impl IntoIterator<Item = Kind>, report: &mut Report) -> Vec<Kind> {
        let mut present = Vec::new();
        for kind in kinds {
            match kind.missing(&self.programs) {
                None => present.push(kind),
                Some(reason) => report.skip(reason),
            }
        }
        present
    }

    /// A folder for one router.
    fn home(&self) -> Result<TempDir> {
        TempDir::new_in(self.dir()).context("make a folder")
    }

    /// A router in that folder whose storage answers.
    fn start(&self, kind: &Kind, home: &TempDir) -> Result<Router> {
        Router::start_serving(kind, &self.programs, home)
    }

    /// Starts a worker.
    fn worker(&self, arguments: Vec<String>) -> Result<Process> {
        let name = arguments.first().cloned().unwrap_or_default();
        Process::spawn(name, Command::new(&self.programs.bench).args(arguments))
    }

    /// Runs a worker to its answer.
    fn ask<T: DeserializeOwned>(&self, arguments: Vec<String>) -> Result<T> {
        let worker = self.worker(arguments)?;
        worker.answer(client::PATIENCE)
    }

    /// Puts `keys` keys into a router, key `n` with the value `n`, and waits until all are stored
    /// and the router has come to rest.
    fn load(&self, router: &Router, keys: usize, size: usize) -> Result<()> {
        self.load_as(
            router,
            &Publish {
                count: keys as u64,
                ..Publish::new(router.endpoint.clone(), size, keys)
            },
        )
    }

    /// [`Bench::load`] with what is said about its keys and stamps.
    fn load_as(&self, router: &Router, publish: &Publish) -> Result<()> {
        let mut worker = self.worker(publish.arguments())?;
        worker.wait_line(client::PATIENCE, |line| (line == "ready").then_some(()))?;
        worker.tell("go")?;
        let published: Published = worker.answer(client::PATIENCE)?;
        let session = router.client()?;
        client::wait_stored(
            &session,
            &[(publish.share(), published.sent)],
            client::PATIENCE,
        )?;
        worker.stop(Duration::from_secs(10))?;
        router.process.settle()
    }
}

/// A folder that need not exist yet, whatever the working directory becomes.
fn absolute(path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&path).with_context(|| path.display().to_string())
}

/// The figures of one contestant, for as many rounds as there were.
fn series<T>(outcomes: &[T], figure: impl Fn(&T) -> f64) -> Series {
    outcomes.iter().map(figure).collect()
}
