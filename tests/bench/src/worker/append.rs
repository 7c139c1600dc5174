//! Samples into a link's journal, or into a bare RocksDB.
//!
//! The journal is driven as a link drives it: batch by batch, with a sync when the last one is 10 ms ago,
//! and one at the end. RocksDB gets the same batches, each as one `WriteBatch`, and is never synced. Its rows
//! are either in the order of the keys, as a time series has them, or in the order in which they come: that is
//! the least that it can be asked for, and finds nothing again but by reading all of it. What is held
//! afterwards is counted.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use rocksdb::{DB, IteratorMode, WriteBatch};
use serde::{Deserialize, Serialize};
use weir_core::{
    change::{Change, KeptChange},
    forward::Entry,
    key::Key,
    value::Value,
    version::Stamp,
};
use weir_e2e::flight;
use weir_journal::{Journal, Keep, Options, Waiting};
use zenoh::{qos::Priority, time::NTP64};

use super::answer;
use crate::{
    dataset::{self, Values},
    process,
};

/// The recording that samples of a flight come from.
pub const FLIGHT: &str = "px4-flight-181s.ndjson.zst";

/// Samples of a batch.
const BATCH: usize = 1_000;
/// What a link syncs within, if its settings say nothing else.
const SYNC_EVERY: Duration = Duration::from_millis(10);
/// Samples a second, as they are stamped: the rate of a vehicle, so that a second has as many.
const STAMPED_RATE: u64 = 10_000;
/// Keys of what is not a flight.
const KEYS: usize = 10_000;
/// Bytes of a random value.
const RANDOM_BYTES: usize = 64;

/// What to append, and to what.
#[derive(Args, Clone, Debug)]
pub struct Append {
    #[arg(long, value_enum)]
    pub sink: Sink,
    #[arg(long, value_enum)]
    pub content: Content,
    #[arg(long)]
    pub count: usize,
    /// A directory that is not there yet.
    #[arg(long)]
    pub dir: PathBuf,
}

/// What is appended to.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum Sink {
    Journal,
    /// RocksDB, rows by key and stamp.
    ByKey,
    /// RocksDB, rows by position.
    InOrder,
}

/// What the samples are.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Those of a recorded flight, over again until there are enough: JSON.
    Flight,
    /// Eight bytes each.
    Floats,
    /// Bytes that no compressor shortens.
    Random,
}

/// What appending took.
#[derive(Debug, Serialize, Deserialize)]
pub struct Appended {
    /// From the first batch until the last is where it is to be.
    pub seconds: f64,
    /// CPU time in that time, in seconds.
    pub cpu: f64,
    /// How often the disk was waited for.
    pub syncs: f64,
}

impl Content {
    /// In words.
    pub fn describe(self) -> String {
        match self {
            Self::Flight => "a flight".to_owned(),
            Self::Floats => "8 B floats".to_owned(),
            Self::Random => format!("{RANDOM_BYTES} random bytes"),
        }
    }

    /// Keys and values, as many as wanted.
    fn make(self, count: usize) -> Result<Vec<(Key, Value)>> {
        let keys: Vec<Key> = (0..KEYS).map(|n| Key::new(dataset::key(n))).collect();
        let key = |n: usize| keys[n % KEYS].clone();
        Ok(match self {
            Self::Flight => {
                let recorded = flight::read(FLIGHT, usize::MAX).context("no recorded flight")?;
                let samples = recorded.into_iter().map(|sample| {
                    let key = format!("bench/flight/{}", sample.topic);
                    (Key::new(key), Value::bytes(sample.value))
                });
                let samples: Vec<_> = samples.collect();
                samples.iter().cloned().cycle().take(count).collect()
            }
            Self::Floats => {
                let value = |n: usize| (n as f64 / 100.0).sin().to_le_bytes().to_vec();
                (0..count)
                    .map(|n| (key(n), Value::bytes(value(n))))
                    .collect()
            }
            Self::Random => {
                let values = Values::new(RANDOM_BYTES);
                let value = |n: usize| Value::bytes(values.make(n as u64));
                (0..count).map(|n| (key(n), value(n))).collect()
            }
        })
    }
}

impl Append {
    /// The arguments that make a worker of this.
    pub fn arguments(&self) -> Vec<String> {
        let name = |value: Option<clap::builder::PossibleValue>| {
            value.map_or_else(String::new, |value| value.get_name().to_owned())
        };
        vec![
            "append".to_owned(),
            "--sink".to_owned(),
            name(self.sink.to_possible_value()),
            "--content".to_owned(),
            name(self.content.to_possible_value()),
            "--count".to_owned(),
            self.count.to_string(),
            "--dir".to_owned(),
            self.dir.display().to_string(),
        ]
    }

    pub(super) fn run(self) -> Result<()> {
        let now = now()?;
        let step = (1 << 32) / STAMPED_RATE;
        let from = now - self.count as u64 * step;
        let samples: Vec<Waiting> = self
            .content
            .make(self.count)?
            .into_iter()
            .zip(0..)
            .map(|((key, value), n)| Waiting {
                entry: Entry {
                    change: KeptChange::Key(Change {
                        key,
                        stamp: Some(Stamp {
                            time: from + n * step,
                            id: [7; 16],
                        }),
                        value: Some(value),
                    }),
                    lane: 0,
                    expires: None,
                },
                priority: Priority::DEFAULT as u8,
                keep: Keep::Yes,
            })
            .collect();
        answer(&match self.sink {
            Sink::Journal => to_journal(&samples, &self.dir)?,
            Sink::ByKey => to_rocksdb(&samples, &self.dir, write_by_key)?,
            Sink::InOrder => to_rocksdb(&samples, &self.dir, write_in_order)?,
        })
    }
}

fn to_journal(samples: &[Waiting], dir: &Path) -> Result<Appended> {
    let (mut journal, _) = Journal::open(Options::new(dir), &["cloud"], now()?)?;
    let cpu = process::own_cpu()?;
    let start = Instant::now();
    let (mut synced, mut syncs) = (start, 0.0);
    for batch in samples.chunks(BATCH) {
        journal.append(batch, now()?)?;
        if synced.elapsed() >= SYNC_EVERY {
            journal.flush(true)?;
            syncs += 1.0;
            synced = Instant::now();
        }
    }
    journal.flush(true)?;
    let appended = Appended {
        seconds: start.elapsed().as_secs_f64(),
        cpu: (process::own_cpu()? - cpu).as_secs_f64(),
        syncs: syncs + 1.0,
    };
    journal.close()?;
    let (_, recovery) = Journal::open(Options::new(dir), &["cloud"], now()?)?;
    check_count(recovery.records, samples.len())?;
    Ok(appended)
}

/// Writes the key and the value of a row: of a sample and its position.
type WriteRow = fn(&Waiting, u64, &mut Vec<u8>, &mut Vec<u8>);

fn to_rocksdb(samples: &[Waiting], dir: &Path, write_row: WriteRow) -> Result<Appended> {
    let db = DB::open_default(dir)?;
    let cpu = process::own_cpu()?;
    let start = Instant::now();
    let (mut position, mut key, mut row) = (0, Vec::new(), Vec::new());
    for samples in samples.chunks(BATCH) {
        let mut batch = WriteBatch::default();
        for sample in samples {
            key.clear();
            row.clear();
            write_row(sample, position, &mut key, &mut row);
            batch.put(&key, &row);
            position += 1;
        }
        db.write(batch)?;
    }
    let appended = Appended {
        seconds: start.elapsed().as_secs_f64(),
        cpu: (process::own_cpu()? - cpu).as_secs_f64(),
        syncs: 0.0,
    };
    let mut rows = db.iterator(IteratorMode::Start);
    let rows = rows.try_fold(0, |rows, row| row.map(|_| rows + 1))?;
    check_count(rows, samples.len())?;
    Ok(appended)
}

/// Key, a byte that ends it, stamp; payload.
fn write_by_key(sample: &Waiting, _: u64, key: &mut Vec<u8>, row: &mut Vec<u8>) {
    let (text, stamp, payload) = parts(sample);
    key.extend_from_slice(text.as_bytes());
    key.push(0);
    key.extend_from_slice(&stamp.to_bytes());
    row.extend_from_slice(payload);
}

/// Position; stamp, length of the key, key, payload.
fn write_in_order(sample: &Waiting, position: u64, key: &mut Vec<u8>, row: &mut Vec<u8>) {
    let (text, stamp, payload) = parts(sample);
    key.extend_from_slice(&position.to_be_bytes());
    row.extend_from_slice(&stamp.to_bytes());
    row.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    row.extend_from_slice(text.as_bytes());
    row.extend_from_slice(payload);
}

fn parts(sample: &Waiting) -> (&str, Stamp, &[u8]) {
    match &sample.entry.change {
        KeptChange::Key(Change { key, stamp, value }) => (
            key,
            stamp.unwrap_or_default(),
            value.as_ref().map_or(&[], |value| &value.payload),
        ),
        // There are none here.
        KeptChange::Wildcard(change) => (change.expr.as_str(), Stamp::ZERO, &[]),
    }
}

fn check_count(found: u64, wanted: usize) -> Result<()> {
    ensure!(
        found == wanted as u64,
        "{found} samples of {wanted} are there"
    );
    Ok(())
}

/// The wall clock, as NTP64.
fn now() -> Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(NTP64::from(since).as_u64())
}
