//! A publisher as fast as the router lets it be.

use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use zenoh::{
    Session, Wait as _,
    key_expr::KeyExpr,
    qos::{CongestionControl, Reliability},
    time::{NTP64, Timestamp},
};

use super::{answer, say, wait_input};
use crate::{
    client,
    dataset::{self, Share, Values},
    process,
};

/// What to publish.
#[derive(Args, Clone, Debug)]
pub struct Publish {
    #[arg(long)]
    pub connect: String,
    /// Bytes a value.
    #[arg(long)]
    pub size: usize,
    #[arg(long, default_value_t = 0)]
    pub publisher: usize,
    #[arg(long, default_value_t = 1)]
    pub of: usize,
    /// Keys of all publishers together.
    #[arg(long)]
    pub keys: usize,
    /// Stop after this time.
    #[arg(long, default_value_t = 600.0)]
    pub seconds: f64,
    /// Stop after this many samples.
    #[arg(long, default_value_t = u64::MAX)]
    pub count: u64,
    /// A declared publisher for each key, instead of puts with the whole key.
    #[arg(long)]
    pub declared: bool,
    /// One sample on each key before it is ready, so that every route is known on both sides.
    #[arg(long)]
    pub warm_up: bool,
    /// The number of the first sample.
    #[arg(long, default_value_t = 0)]
    pub first: u64,
    /// The keys in an order that looks random.
    #[arg(long)]
    pub scattered: bool,
    /// Stamp all `count` samples here, evenly over this many seconds until now, instead of leaving it
    /// to the router.
    #[arg(long)]
    pub spread: Option<f64>,
}

/// What was published.
#[derive(Debug, Serialize, Deserialize)]
pub struct Published {
    /// The number of the next sample: all of them, those of the warm-up and those before the first included.
    pub sent: u64,
    /// From the first put to the return of the last.
    pub seconds: f64,
    /// CPU time of the publisher in that time, in seconds.
    pub cpu: f64,
}

/// Stamps that are given before anything is put.
struct Stamps {
    id: zenoh::time::TimestampId,
    from: u64,
    step: u64,
}

/// Samples between two looks at the clock.
const STRIDE: u64 = 64;

impl Publish {
    /// One publisher that puts with whole keys for as long as it is let, and begins at once.
    pub fn new(connect: String, size: usize, keys: usize) -> Self {
        Self {
            connect,
            size,
            publisher: 0,
            of: 1,
            keys,
            seconds: client::PATIENCE.as_secs_f64(),
            count: u64::MAX,
            declared: false,
            warm_up: false,
            first: 0,
            scattered: false,
            spread: None,
        }
    }

    /// Which keys it publishes on.
    pub fn share(&self) -> Share {
        Share {
            publisher: self.publisher,
            of: self.of,
            keys: self.keys,
            scattered: self.scattered,
        }
    }

    /// The arguments that make a worker of this.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["publish".to_owned()];
        for (name, value) in [
            ("connect", self.connect.clone()),
            ("size", self.size.to_string()),
            ("publisher", self.publisher.to_string()),
            ("of", self.of.to_string()),
            ("keys", self.keys.to_string()),
            ("seconds", self.seconds.to_string()),
            ("count", self.count.to_string()),
            ("first", self.first.to_string()),
        ] {
            arguments.extend([format!("--{name}"), value]);
        }
        if let Some(spread) = self.spread {
            arguments.extend(["--spread".to_owned(), spread.to_string()]);
        }
        for (name, wanted) in [
            ("--declared", self.declared),
            ("--warm-up", self.warm_up),
            ("--scattered", self.scattered),
        ] {
            arguments.extend(wanted.then(|| name.to_owned()));
        }
        arguments
    }

    pub(super) fn run(self) -> Result<()> {
        let session = client::connect(&self.connect)?;
        let share = self.share();
        let keys = (0..share.len())
            .map(|nth| {
                KeyExpr::try_from(dataset::key(share.key_index(nth))).map_err(Error::from_boxed)
            })
            .collect::<Result<Vec<_>>>()?;
        let stamps = self
            .spread
            .map(|spread| Stamps::until_now(&session, spread, self.count));
        let published = if self.declared {
            self.run_declared(&session, &keys)?
        } else {
            self.drive(|nth, value, number| {
                session
                    .put(&keys[nth], value)
                    .timestamp(stamps.as_ref().map(|stamps| stamps.of(number)))
                    .congestion_control(CongestionControl::Block)
                    .reliability(Reliability::Reliable)
                    .wait()
                    .map_err(Error::from_boxed)
            })?
        };
        answer(&published)?;
        // Closing would throw away what is still in the send queue.
        wait_input()
    }

    fn run_declared(&self, session: &Session, keys: &[KeyExpr<'static>]) -> Result<Published> {
        let publishers = keys
            .iter()
            .map(|key| {
                session
                    .declare_publisher(key)
                    .congestion_control(CongestionControl::Block)
                    .reliability(Reliability::Reliable)
                    .wait()
                    .map_err(Error::from_boxed)
            })
            .collect::<Result<Vec<_>>>()?;
        // Until the router has answered for a key, Zenoh drops what is put on it: with thousands of
        // keys that takes seconds.
        for publisher in &publishers {
            client::poll(
                client::PATIENCE,
                "nobody subscribes to a declared key",
                || {
                    let status = publisher.matching_status().wait();
                    Ok(status.map_err(Error::from_boxed)?.matching())
                },
            )?;
        }
        self.drive(|nth, value, _| publishers[nth].put(value).wait().map_err(Error::from_boxed))
    }

    /// Warms up, waits for the word to go, then puts until the time or the count is over.
    fn drive(&self, mut put: impl FnMut(usize, Vec<u8>, u64) -> Result<()>) -> Result<Published> {
        let values = Values::new(self.size);
        let len = self.share().len();
        let mut sent = self.first;
        if self.warm_up {
            for nth in 0..len {
                put(nth, values.make(sent), sent)?;
                sent += 1;
            }
        }
        say("ready")?;
        wait_input()?;
        let limit = Duration::from_secs_f64(self.seconds);
        let cpu = process::own_cpu()?;
        let start = Instant::now();
        let mut nth = usize::try_from(sent)? % len;
        while sent < self.count && (!sent.is_multiple_of(STRIDE) || start.elapsed() < limit) {
            put(nth, values.make(sent), sent)?;
            sent += 1;
            nth = if nth + 1 == len { 0 } else { nth + 1 };
        }
        Ok(Published {
            sent,
            seconds: start.elapsed().as_secs_f64(),
            cpu: (process::own_cpu()? - cpu).as_secs_f64(),
        })
    }
}

impl Stamps {
    fn until_now(session: &Session, seconds: f64, count: u64) -> Self {
        let now = session.new_timestamp();
        let spread = NTP64::from(Duration::from_secs_f64(seconds)).as_u64();
        Self {
            id: *now.get_id(),
            from: now.get_time().as_u64().saturating_sub(spread),
            step: spread / count.max(1),
        }
    }

    /// The stamp of the sample with this number.
    fn of(&self, number: u64) -> Timestamp {
        Timestamp::new(NTP64(self.from + number * self.step), self.id)
    }
}
