//! Queriers: one wildcard get, or single keys one after the other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Sender, channel},
    },
    time::{Duration, Instant},
};

use anyhow::{Error, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;
use zenoh::{
    Wait as _,
    query::{ConsolidationMode, QueryTarget, Reply},
};

use super::{Times, answer};
use crate::{client, dataset};

/// A wildcard get.
#[derive(Args, Clone, Debug)]
pub struct Scan {
    #[arg(long)]
    pub connect: String,
    #[arg(long, default_value = dataset::ALL)]
    pub selector: String,
}

/// What a wildcard get brought.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Scanned {
    pub samples: u64,
    pub errors: u64,
    /// The sum of [`dataset::digest`] over the samples.
    pub digest: u64,
    /// Until the last reply and the word that it was the last.
    pub seconds: f64,
    /// Until the first reply.
    pub first_seconds: f64,
    /// CPU time of the querier, in seconds.
    pub cpu: f64,
}

impl Scan {
    /// The arguments that make a worker of this.
    pub fn arguments(&self) -> Vec<String> {
        [
            "scan",
            "--connect",
            &self.connect,
            "--selector",
            &self.selector,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// Consolidation is off: it would hold every key in the querier, which is not what is
    /// measured, and there is one storage.
    pub(super) fn run(self) -> Result<()> {
        let session = client::connect(&self.connect)?;
        let tally = Arc::new(Tally::default());
        let (done, wait) = channel();
        let cpu = crate::process::own_cpu()?;
        let start = Instant::now();
        let taking = Taking {
            tally: Arc::clone(&tally),
            start,
            _done: done,
        };
        session
            .get(&self.selector)
            .consolidation(ConsolidationMode::None)
            .target(QueryTarget::All)
            .timeout(client::PATIENCE)
            .callback(move |reply| taking.take(&reply))
            .wait()
            .map_err(Error::from_boxed)?;
        // Nothing is ever sent; it ends when Zenoh drops the callback after the last reply.
        let _ = wait.recv();
        let elapsed = start.elapsed();
        answer(&Scanned {
            samples: tally.samples.load(Relaxed),
            errors: tally.errors.load(Relaxed),
            digest: tally.digest.load(Relaxed),
            seconds: elapsed.as_secs_f64(),
            first_seconds: Duration::from_micros(tally.first_micros.load(Relaxed)).as_secs_f64(),
            cpu: (crate::process::own_cpu()? - cpu).as_secs_f64(),
        })
    }
}

#[derive(Default)]
struct Tally {
    samples: AtomicU64,
    errors: AtomicU64,
    digest: AtomicU64,
    first_micros: AtomicU64,
}

struct Taking {
    tally: Arc<Tally>,
    start: Instant,
    _done: Sender<()>,
}

impl Taking {
    fn take(&self, reply: &Reply) {
        let Ok(sample) = reply.result() else {
            self.tally.errors.fetch_add(1, Relaxed);
            return;
        };
        if self.tally.samples.fetch_add(1, Relaxed) == 0 {
            let micros = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.tally.first_micros.store(micros, Relaxed);
        }
        let digest = dataset::digest(sample.key_expr().as_str(), &sample.payload().to_bytes());
        self.tally.digest.fetch_add(digest, Relaxed);
    }
}

/// Gets of single keys.
#[derive(Args, Clone, Debug)]
pub struct Point {
    #[arg(long)]
    pub connect: String,
    /// Keys to choose from.
    #[arg(long)]
    pub keys: usize,
    /// Stop after this many gets.
    #[arg(long)]
    pub count: usize,
    /// Stop after this time.
    #[arg(long)]
    pub seconds: f64,
}

/// What single gets took.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pointed {
    pub times: Times,
    pub gets: usize,
    /// Gets that did not bring exactly one value.
    pub misses: usize,
}

impl Point {
    /// The arguments that make a worker of this.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["point".to_owned()];
        for (name, value) in [
            ("connect", self.connect.clone()),
            ("keys", self.keys.to_string()),
            ("count", self.count.to_string()),
            ("seconds", self.seconds.to_string()),
        ] {
            arguments.extend([format!("--{name}"), value]);
        }
        arguments
    }

    pub(super) fn run(self) -> Result<()> {
        let session = client::connect(&self.connect)?;
        let limit = Duration::from_secs_f64(self.seconds);
        let mut times = Vec::with_capacity(self.count);
        let mut misses = 0;
        let begin = Instant::now();
        for n in 0..self.count as u64 {
            if begin.elapsed() > limit {
                break;
            }
            let index = usize::try_from(xxh3_64(&n.to_le_bytes())).unwrap_or_default() % self.keys;
            let key = dataset::key(index);
            let start = Instant::now();
            let replies = session.get(&key).wait().map_err(Error::from_boxed)?;
            let values = replies.into_iter().filter(client::is_value).count();
            times.push(start.elapsed());
            misses += usize::from(values != 1);
        }
        // The first gets open routes and caches on every side.
        let warm_up = times.len() / 20;
        let gets = times.len();
        answer(&Pointed {
            times: Times::of(times.split_off(warm_up)),
            gets,
            misses,
        })
    }
}
