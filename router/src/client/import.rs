//! `weir storage import`: what zenohd's backends have written, put into a storage of a running
//! router under its own timestamps.
//!
//! Each value is an acknowledged put: it takes the way of every other change, is decided by its
//! timestamp, and can be imported again after an interruption without being stored twice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum, ValueHint};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use weir_backend_stock::{Changes, StockFilesystem, StockRocksdb};
use weir_core::change::Change;
use zenoh::query::{ConsolidationMode, QueryTarget};

use super::ack::{Durability, Receipt};
use super::ask::{ask, router_of};
use super::table::printable;
use super::{ConnectArgs, Outcome, Streams, parse_duration};
use crate::convert;
use crate::session::{Bus, GetOptions};

/// Values on their way at once: enough that the storage writes in batches, and a few MB at most
/// for ordinary values.
const IN_FLIGHT_MAX: usize = 512;
/// Values read from the directory ahead of that.
const READ_AHEAD: usize = 64;
/// Problems that are printed; the rest is counted.
const PRINTED_MAX: u64 = 20;

/// Arguments of `weir storage import`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir storage import --from zenohd-rocksdb ~/.zenoh/zenoh_backend_rocksdb/demo --into demo
  weir storage import --from zenohd-filesystem /data/fs --into archive -e tcp/10.0.0.7:7447

The router that wrote the directory must not run on it; the one that imports must. Timestamps and
encodings are kept, and the storage's strip_prefix is put before every key. Importing twice stores
once.

Exit status: 0 everything is stored; 1 there was nothing; 2 error, or something was not imported.")]
pub struct ImportArgs {
    /// The directory
    #[arg(value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,

    /// What has written it
    #[arg(long, value_enum)]
    pub from: From,

    /// The storage that takes it
    #[arg(long, value_name = "STORAGE")]
    pub into: String,

    /// How durable each value must be before it counts
    #[arg(long, value_enum, default_value_t = Durability::Written)]
    pub durability: Durability,

    /// How long to wait for the answer to one value: 10s, 500ms, 3
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "60s")]
    pub timeout: Duration,

    /// Where the router is.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// A backend that can be imported from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum From {
    /// zenoh-backend-rocksdb
    ZenohdRocksdb,
    /// zenoh-backend-filesystem
    ZenohdFilesystem,
}

/// What became of the values, by the word of the storage.
#[derive(Debug, Default)]
struct Tally {
    admissions: BTreeMap<String, u64>,
    failed: u64,
}

/// Where values go.
struct Target {
    bus: Bus,
    storage: String,
    prefix: Option<String>,
    durability: Durability,
    timeout: Duration,
}

/// Imports a directory.
pub async fn import(args: &ImportArgs, streams: &mut Streams<'_>) -> Result<Outcome> {
    let (total, changes) = args.from.open(&args.dir)?;
    let bus = args.connect.open().await?;
    let target = Arc::new(Target {
        prefix: strip_prefix(&bus, &args.into, streams).await?,
        bus: bus.clone(),
        storage: args.into.clone(),
        durability: args.durability,
        timeout: args.timeout,
    });
    let progress = progress_bar(total)?;
    let tally = put_all(changes, &target, &progress, streams).await?;
    progress.finish_and_clear();
    drop(target);
    bus.close().await?;
    writeln!(streams.out, "{}", tally.summary())?;
    streams.out.flush()?;
    Ok(tally.outcome())
}

async fn put_all(
    changes: Changes,
    target: &Arc<Target>,
    progress: &ProgressBar,
    streams: &mut Streams<'_>,
) -> Result<Tally> {
    let (read, mut values) = mpsc::channel(READ_AHEAD);
    let reader = tokio::task::spawn_blocking(move || {
        for change in changes {
            // The other end is gone when the import failed.
            if read.blocking_send(change).is_err() {
                return;
            }
        }
    });
    let room = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut under_way = JoinSet::new();
    let mut tally = Tally::default();
    while let Some(change) = values.recv().await {
        match change {
            Ok(change) => {
                let room = Arc::clone(&room).acquire_owned().await?;
                let target = Arc::clone(target);
                under_way.spawn(async move {
                    let outcome = target.put(change).await;
                    drop(room);
                    outcome
                });
            }
            Err(unreadable) => {
                tally.add(Err(anyhow!(unreadable)), progress, streams)?;
            }
        }
        while let Some(done) = under_way.try_join_next() {
            tally.add(done?, progress, streams)?;
        }
    }
    reader.await?;
    while let Some(done) = under_way.join_next().await {
        tally.add(done?, progress, streams)?;
    }
    Ok(tally)
}

impl From {
    /// How many values there are about, and the values.
    fn open(self, dir: &Path) -> Result<(Option<u64>, Changes)> {
        let opened = match self {
            Self::ZenohdRocksdb => StockRocksdb::open(dir).and_then(|stock| {
                let total = stock.total();
                Ok((total, stock.changes()?))
            }),
            Self::ZenohdFilesystem => StockFilesystem::open(dir).and_then(|stock| {
                let total = stock.total();
                Ok((total, stock.changes()?))
            }),
        };
        opened.with_context(|| format!("cannot import {}", dir.display()))
    }
}

impl Target {
    /// Puts one value and waits for the storage's word on it.
    async fn put(&self, change: Change) -> Result<String> {
        let key = match (self.prefix.as_deref(), &*change.key) {
            (Some(prefix), "") => prefix.to_owned(),
            (Some(prefix), key) => format!("{prefix}/{key}"),
            (None, key) => key.to_owned(),
        };
        let named = || format!("`{}` is not imported", printable(&key, 200));
        if let Err(refused) = zenoh::key_expr::keyexpr::new(&key) {
            return Err(anyhow!("{refused}")).with_context(named);
        }
        let verb = if change.value.is_some() {
            "_put"
        } else {
            "_delete"
        };
        let mut selector = format!(
            "{key}?{verb};storage={};durability={}",
            self.storage, self.durability
        );
        if let Some(stamp) = change.stamp {
            let timestamp = convert::timestamp(stamp)
                .with_context(|| format!("`{key}` has a timestamp that no clock gives"))?;
            selector.push_str(&format!(";timestamp={timestamp}"));
        }
        let payload = change.value.as_ref().map(|value| {
            (
                convert::zbytes(&value.payload),
                Some(convert::encoding(&value.encoding)),
            )
        });
        let attachment = change
            .value
            .as_ref()
            .and_then(|value| value.attachment.as_ref());
        let options = GetOptions {
            payload,
            attachment: attachment.map(convert::zbytes),
            timeout: self.timeout,
            target: QueryTarget::All,
            consolidation: ConsolidationMode::None,
        };
        self.answer(&selector, options).await.with_context(named)
    }

    async fn answer(&self, selector: &str, options: GetOptions) -> Result<String> {
        let mut replies = self.bus.get(selector, options).await?;
        let mut admission = None;
        while let Some(reply) = replies.next().await {
            match reply.result() {
                Ok(sample) => {
                    // What is no receipt comes from somebody who is no storage.
                    let receipt = serde_json::from_slice::<Receipt>(&sample.payload().to_bytes());
                    let Ok(receipt) = receipt else { continue };
                    if receipt.storage == self.storage {
                        if let Some(refusal) = receipt.refusal(Some(self.durability)) {
                            bail!(refusal);
                        }
                        admission = Some(receipt.admission);
                    }
                }
                Err(error) => {
                    let text = error.payload().to_bytes();
                    bail!("{}", printable(&String::from_utf8_lossy(&text), 500));
                }
            }
        }
        admission.with_context(|| {
            format!(
                "storage {} does not answer for it: is the key below its key_expr?",
                self.storage
            )
        })
    }
}

/// What the storage leaves out in front of its keys.
async fn strip_prefix(
    bus: &Bus,
    storage: &str,
    streams: &mut Streams<'_>,
) -> Result<Option<String>> {
    if storage.is_empty() || storage.contains(['/', '*', '$', '?', '#', ';', '=', '|']) {
        bail!("`{storage}` is no name of a storage");
    }
    let selector = format!("@weir/*/storages/{storage}");
    let answers = ask(bus, &selector, Duration::from_secs(10), streams).await?;
    let routers: Vec<&str> = answers
        .values
        .iter()
        .map(|(key, _)| router_of(key))
        .collect();
    match &answers.values[..] {
        [] => bail!("no router that can be reached has a storage {storage}: see `weir storage ls`"),
        [(_, status)] => Ok(status["strip_prefix"].as_str().map(str::to_owned)),
        [(_, first), rest @ ..] => {
            let prefix = &first["strip_prefix"];
            if rest
                .iter()
                .any(|(_, status)| &status["strip_prefix"] != prefix)
            {
                let routers = routers.join(", ");
                bail!("the storages {storage} of {routers} have different prefixes");
            }
            Ok(prefix.as_str().map(str::to_owned))
        }
    }
}

fn progress_bar(total: Option<u64>) -> Result<ProgressBar> {
    // Draws on standard error, and only if that is a terminal.
    Ok(match total {
        Some(total) => ProgressBar::new(total).with_style(ProgressStyle::with_template(
            "{bar:30} {human_pos}/{human_len}  {per_sec}  {eta} left",
        )?),
        None => ProgressBar::new_spinner().with_style(ProgressStyle::with_template(
            "{spinner} {human_pos}  {per_sec}",
        )?),
    })
}

impl Tally {
    fn add(
        &mut self,
        outcome: Result<String>,
        progress: &ProgressBar,
        streams: &mut Streams<'_>,
    ) -> Result<()> {
        progress.inc(1);
        match outcome {
            Ok(admission) => *self.admissions.entry(admission).or_default() += 1,
            Err(problem) => {
                self.failed += 1;
                if self.failed <= PRINTED_MAX {
                    progress.suspend(|| writeln!(streams.err, "error: {problem:#}"))?;
                }
            }
        }
        Ok(())
    }

    /// `1200 imported (1190 applied, 10 known), 3 not imported`
    fn summary(&self) -> String {
        let imported: u64 = self.admissions.values().sum();
        let mut text = format!("{imported} imported");
        if !self.admissions.is_empty() {
            let each: Vec<String> = self
                .admissions
                .iter()
                .map(|(word, count)| format!("{count} {word}"))
                .collect();
            text.push_str(&format!(" ({})", each.join(", ")));
        }
        if self.failed > 0 {
            text.push_str(&format!(", {} not imported", self.failed));
        }
        text
    }

    fn outcome(&self) -> Outcome {
        match (self.admissions.is_empty(), self.failed) {
            (true, 0) => Outcome::Nothing,
            (false, 0) => Outcome::Done,
            _ => Outcome::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_what_became_of_each() {
        let tally = |admissions: &[(&str, u64)], failed| Tally {
            admissions: admissions
                .iter()
                .map(|(word, count)| ((*word).to_owned(), *count))
                .collect(),
            failed,
        };
        let rows = [
            (tally(&[], 0), "0 imported", Outcome::Nothing),
            (
                tally(&[("applied", 5)], 0),
                "5 imported (5 applied)",
                Outcome::Done,
            ),
            (
                tally(&[("applied", 5), ("known", 2)], 1),
                "7 imported (5 applied, 2 known), 1 not imported",
                Outcome::Refused,
            ),
        ];
        for (tally, summary, outcome) in rows {
            assert_eq!(
                (tally.summary().as_str(), tally.outcome()),
                (summary, outcome)
            );
        }
    }
}
