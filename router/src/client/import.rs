//! `weir storage import`: what zenohd's backends have written, put into a running router under its
//! own timestamps.
//!
//! Each value is an acknowledged put: it takes the way of every other change, is decided by its
//! timestamp, and can be imported again after an interruption without being stored twice.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum, ValueHint};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use weir_backend_stock::{Changes, StockFilesystem, StockRocksdb};
use weir_core::change::Change;
use weir_core::value::Value;
use zenoh::query::{ConsolidationMode, QueryTarget};

use super::ack::{Durability, Receipt};
use super::ask::{ask, router_of};
use super::table::printable;
use super::{ConnectArgs, Outcome, Streams, check_key_expr, parse_duration};
use crate::convert;
use crate::session::{Bus, GetOptions};

pub(super) mod progress;
mod tally;

use progress::Progress;
use tally::{Fate, Tally};

/// What may be on its way at once, in [`UNIT`]s: enough that the storage writes in batches, and 16 MiB
/// however large the values are.
const IN_FLIGHT_MAX: usize = 16 << 10;
/// Bytes of a unit.
const UNIT: usize = 1 << 10;
/// Units that a value costs beside its payload: no more than 512 queries at once.
const UNITS_MIN: usize = 32;
/// Values read from the directory ahead of that.
const READ_AHEAD: usize = 64;

/// How often a value is offered to a storage whose queue is full. With doubled pauses from
/// [`PAUSE`] on that is half a minute: a storage that takes nothing for so long needs a look.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(30);
/// What a storage says whose queue is full.
const TRY_AGAIN: &str = "try again";

/// Arguments of `weir storage import`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir storage import --from zenohd-rocksdb ~/.zenoh/zenoh_backend_rocksdb/demo --prefix demo
  weir storage import --from zenohd-rocksdb ~/.zenoh/zenoh_backend_rocksdb/demo --storage demo
  weir storage import --from zenohd-filesystem /data/fs --storage archive -e tcp/10.0.0.7:7447

The router that wrote the directory must not run on it; the one that imports must run. The directory
is only read. Timestamps and encodings are kept. zenohd stored keys without the storage's
strip_prefix, and nowhere its prefix: --prefix puts it back in front. Importing twice stores once.

Exit status: 0 everything is stored; 1 there was nothing; 2 error, or something was not imported.")]
pub struct ImportArgs {
    /// The directory
    #[arg(value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,

    /// What has written it
    #[arg(long, value_enum)]
    pub from: From,

    /// What the keys had in front of them: strip_prefix of the storage that wrote the directory
    /// [default: strip_prefix of --storage, else nothing]
    #[arg(long, value_name = "KEY")]
    pub prefix: Option<String>,

    /// Only the storage of this name takes them [default: every storage on the keys]
    #[arg(long, alias = "into", value_name = "NAME")]
    pub storage: Option<String>,

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

/// Where values go.
struct Target {
    bus: Bus,
    /// Every storage on the key when absent.
    storage: Option<String>,
    prefix: Option<String>,
    durability: Durability,
    timeout: Duration,
}

/// Imports a directory.
pub async fn import(args: &ImportArgs, streams: &mut Streams<'_>) -> Result<Outcome> {
    args.check()?;
    let (total, changes) = args.from.open(&args.dir)?;
    let bus = args.connect.open().await?;
    let target = Arc::new(args.target(&bus, streams).await?);
    let mut tally = Tally::default();
    let mut progress = Progress::new(total)?;
    let done = put_all(changes, &target, &mut tally, &mut progress, streams).await;
    progress.finish();
    drop(target);
    if let Some(rest) = tally.not_printed() {
        writeln!(streams.err, "and {rest} more that were not imported")?;
    }
    writeln!(streams.out, "{}", tally.summary())?;
    streams.out.flush()?;
    done.context("not everything was read; run it again: what is stored is not stored twice")?;
    bus.close().await?;
    if tally.quarantined() > 0 {
        writeln!(
            streams.err,
            "see `weir storage quarantine list` for what was too old to be decided"
        )?;
    }
    Ok(tally.outcome())
}

async fn put_all(
    changes: Changes,
    target: &Arc<Target>,
    tally: &mut Tally,
    progress: &mut Progress,
    streams: &mut Streams<'_>,
) -> Result<()> {
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
    let mut count = async |fate: Result<Fate>, streams: &mut Streams<'_>| {
        progress.step(Instant::now(), streams.err)?;
        let failed = fate.is_err();
        progress.suspend(|| tally.add(fate, streams.err))?;
        if failed && target.bus.routers().await.is_empty() {
            bail!("the connection to the router is lost");
        }
        Ok(())
    };
    while let Some(change) = values.recv().await {
        match change {
            Ok(change) => {
                let room = Arc::clone(&room).acquire_many_owned(units(&change)).await?;
                let target = Arc::clone(target);
                under_way.spawn(async move {
                    let fate = target.put(change).await;
                    drop(room);
                    fate
                });
            }
            Err(unreadable) => count(Err(anyhow!(unreadable)), streams).await?,
        }
        while let Some(done) = under_way.try_join_next() {
            count(done?, streams).await?;
        }
    }
    reader.await?;
    while let Some(done) = under_way.join_next().await {
        count(done?, streams).await?;
    }
    Ok(())
}

/// What a change costs of what may be on its way.
fn units(change: &Change) -> u32 {
    let bytes = change.value.as_ref().map_or(0, Value::len);
    // One that is larger than everything goes alone.
    let units = (UNITS_MIN + bytes / UNIT).min(IN_FLIGHT_MAX);
    u32::try_from(units).unwrap_or(u32::MAX)
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

impl ImportArgs {
    /// Checks what can be checked before anything is opened.
    fn check(&self) -> Result<()> {
        if let Some(name) = &self.storage
            && (name.is_empty() || name.contains(['/', '*', '$', '?', '#', ';', '=', '|', '&']))
        {
            bail!("`{name}` is no name of a storage");
        }
        if let Some(prefix) = &self.prefix {
            check_key_expr(prefix)?;
            if prefix.contains('*') {
                bail!("--prefix is a key, without `*`: `{prefix}`");
            }
        }
        Ok(())
    }

    async fn target(&self, bus: &Bus, streams: &mut Streams<'_>) -> Result<Target> {
        let of_storage = match &self.storage {
            Some(storage) => strip_prefix(bus, storage, streams).await?,
            None => None,
        };
        Ok(Target {
            bus: bus.clone(),
            storage: self.storage.clone(),
            prefix: self.prefix.clone().or(of_storage),
            durability: self.durability,
            timeout: self.timeout,
        })
    }
}

impl Target {
    /// Puts one value and waits for the storages' word on it.
    async fn put(&self, change: Change) -> Result<Fate> {
        let key = self.key(&change.key);
        let named = || format!("`{}` is not imported", printable(&key, 200));
        let selector = self.selector(&key, &change).with_context(named)?;
        let mut pause = PAUSE;
        for _ in 1..ATTEMPTS {
            let answer = self.ask(&selector, self.options(&change)).await;
            match answer {
                Err(full) if full.to_string().contains(TRY_AGAIN) => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                answer => return answer.with_context(named),
            }
        }
        self.ask(&selector, self.options(&change))
            .await
            .with_context(named)
    }

    /// The key as it was put, from the key as it was stored.
    fn key(&self, stored: &str) -> String {
        match (self.prefix.as_deref(), stored) {
            (Some(prefix), "") => prefix.to_owned(),
            (Some(prefix), key) => format!("{prefix}/{key}"),
            (None, key) => key.to_owned(),
        }
    }

    /// `KEY?_put;durability=written;timestamp=TIME/ID`
    fn selector(&self, key: &str, change: &Change) -> Result<String> {
        let key = zenoh::key_expr::keyexpr::new(key).map_err(|refused| anyhow!("{refused}"))?;
        if key.is_wild() {
            bail!("its key has a wildcard: it would be put on every key that it matches");
        }
        let verb = if change.value.is_some() {
            "_put"
        } else {
            "_delete"
        };
        let mut selector = format!("{key}?{verb};durability={}", self.durability);
        if let Some(stamp) = change.stamp {
            let timestamp = convert::timestamp(stamp);
            let timestamp = timestamp.context("its timestamp is one that no clock gives")?;
            selector.push_str(&format!(";timestamp={timestamp}"));
        }
        if let Some(storage) = &self.storage {
            selector.push_str(&format!(";storage={storage}"));
        }
        Ok(selector)
    }

    fn options(&self, change: &Change) -> GetOptions {
        let value = change.value.as_ref();
        let attachment = value.and_then(|value| value.attachment.as_ref());
        let payload = |value: &Value| {
            (
                convert::zbytes(&value.payload),
                Some(convert::encoding(&value.encoding)),
            )
        };
        GetOptions {
            payload: value.map(payload),
            attachment: attachment.map(convert::zbytes),
            timeout: self.timeout,
            // Every storage, and every answer: two storages answer for the same key.
            target: QueryTarget::All,
            consolidation: ConsolidationMode::None,
            ..GetOptions::default()
        }
    }

    /// Asks once. Every storage must say yes.
    async fn ask(&self, selector: &str, options: GetOptions) -> Result<Fate> {
        let mut replies = self.bus.get(selector, options).await?;
        let mut fates = Vec::new();
        while let Some(reply) = replies.next().await {
            match reply.result() {
                Ok(sample) => {
                    // What is no receipt comes from somebody who is no storage.
                    let receipt = serde_json::from_slice::<Receipt>(&sample.payload().to_bytes());
                    let Ok(receipt) = receipt else { continue };
                    if self
                        .storage
                        .as_ref()
                        .is_none_or(|name| *name == receipt.storage)
                    {
                        fates.push(Fate::of(&receipt, self.durability)?);
                    }
                }
                Err(error) => {
                    let text = error.payload().to_bytes();
                    bail!("{}", printable(&String::from_utf8_lossy(&text), 500));
                }
            }
        }
        fates
            .into_iter()
            .max()
            .with_context(|| match &self.storage {
                Some(name) => {
                    format!("storage {name} does not take it: is the key below its key_expr, and is it up?")
                }
                None => {
                    "no storage takes it: is --prefix what a key_expr starts with, and is the router up?".to_owned()
                }
            })
    }
}

/// What the storage leaves out in front of its keys.
async fn strip_prefix(
    bus: &Bus,
    storage: &str,
    streams: &mut Streams<'_>,
) -> Result<Option<String>> {
    let selector = format!("@weir/*/storages/{storage}");
    let answers = ask(bus, &selector, Duration::from_secs(10), streams).await?;
    let prefixes: Vec<Option<&str>> = answers
        .values
        .iter()
        .map(|(_, status)| status["strip_prefix"].as_str())
        .collect();
    match &prefixes[..] {
        [] => bail!("no router that can be reached has a storage {storage}: see `weir storage ls`"),
        [first, rest @ ..] if rest.iter().all(|prefix| prefix == first) => {
            Ok(first.map(str::to_owned))
        }
        _ => {
            let routers: Vec<&str> = answers
                .values
                .iter()
                .map(|(key, _)| router_of(key))
                .collect();
            let routers = routers.join(", ");
            bail!(
                "the storages {storage} of {routers} have different prefixes: name one by --prefix"
            )
        }
    }
}

#[cfg(test)]
mod tests;
