//! The yardstick: a plain Zenoh router of the same build with the least that can take the
//! storage's place inside it.
//!
//! It lives inside the router process, as a storage does: a process of its own would cost a second
//! pass through the network and a share of another core, and flatter us.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, channel},
    },
    thread,
};

use anyhow::{Error, Result};
use clap::Args;
use zenoh::{Session, Wait as _, bytes::ZBytes, key_expr::KeyExpr, query::Query, time::Timestamp};

use super::{say, wait_input};
use crate::{
    client,
    dataset::{self, Values},
};

/// Where the counting subscriber answers what it has counted.
pub const COUNT: &str = "@weir/bench/count";

/// What the router hosts.
#[derive(Args, Clone, Debug)]
pub struct Yardstick {
    #[arg(long)]
    pub listen: String,
    /// A subscriber that only counts.
    #[arg(long)]
    pub count: bool,
    /// A queryable that answers every query at once, with an empty value.
    #[arg(long)]
    pub empty: bool,
    /// A queryable that answers every query with this many samples from a vector.
    #[arg(long, default_value_t = 0)]
    pub vector: usize,
    /// Bytes of each of those samples.
    #[arg(long, default_value_t = 64)]
    pub size: usize,
    /// This many subscribers and queryables, each on a prefix of its own.
    #[arg(long, default_value_t = 0)]
    pub many: usize,
}

impl Yardstick {
    /// One that hosts nothing.
    pub fn bare() -> Self {
        Self {
            listen: String::new(),
            count: false,
            empty: false,
            vector: 0,
            size: 0,
            many: 0,
        }
    }

    /// The arguments that make a worker of this.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["yardstick".to_owned()];
        for (name, value) in [
            ("listen", self.listen.clone()),
            ("vector", self.vector.to_string()),
            ("size", self.size.to_string()),
            ("many", self.many.to_string()),
        ] {
            arguments.extend([format!("--{name}"), value]);
        }
        for (name, wanted) in [("--count", self.count), ("--empty", self.empty)] {
            arguments.extend(wanted.then(|| name.to_owned()));
        }
        arguments
    }

    pub(super) fn run(self) -> Result<()> {
        let config = client::config("router", "listen", &self.listen)?;
        let session = zenoh::open(config).wait().map_err(Error::from_boxed)?;
        if self.count {
            count(&session)?;
        }
        if self.empty {
            empty(&session)?;
        }
        if self.vector > 0 {
            vector(&session, self.vector, self.size)?;
        }
        for n in 0..self.many {
            one_of_many(&session, n)?;
        }
        say("ready")?;
        wait_input()
    }
}

fn count(session: &Session) -> Result<()> {
    let counted = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&counted);
    session
        .declare_subscriber(dataset::ALL)
        .callback(move |_| {
            counter.fetch_add(1, Relaxed);
        })
        .background()
        .wait()
        .map_err(Error::from_boxed)?;
    session
        .declare_queryable(COUNT)
        .callback(move |query| {
            reply(
                &query,
                query.key_expr().clone(),
                counted.load(Relaxed).to_string().into_bytes(),
            );
        })
        .background()
        .wait()
        .map_err(Error::from_boxed)
}

fn empty(session: &Session) -> Result<()> {
    session
        .declare_queryable(dataset::ALL)
        .callback(move |query| reply(&query, query.key_expr().clone(), Vec::new()))
        .background()
        .wait()
        .map_err(Error::from_boxed)
}

/// Replies from a thread of its own: a callback that replies a million times would keep Zenoh's
/// receiving thread from receiving.
fn vector(session: &Session, keys: usize, size: usize) -> Result<()> {
    let values = Values::new(size);
    let samples = (0..keys)
        .map(|n| {
            let key = KeyExpr::try_from(dataset::key(n)).map_err(Error::from_boxed)?;
            Ok((
                key,
                ZBytes::from(values.make(n as u64)),
                session.new_timestamp(),
            ))
        })
        .collect::<Result<Vec<_>>>()?;
    let (sender, receiver) = channel();
    thread::spawn(move || answer_all(&receiver, &samples));
    session
        .declare_queryable(dataset::ALL)
        .callback(move |query| {
            // The thread ends with the process.
            let _ = sender.send(query);
        })
        .background()
        .wait()
        .map_err(Error::from_boxed)
}

fn answer_all(queries: &Receiver<Query>, samples: &[(KeyExpr<'static>, ZBytes, Timestamp)]) {
    while let Ok(query) = queries.recv() {
        for (key, value, timestamp) in samples {
            let sent = query.reply(key, value.clone()).timestamp(*timestamp).wait();
            if let Err(error) = sent {
                eprintln!("reply: {error}");
                break;
            }
        }
    }
}

fn one_of_many(session: &Session, n: usize) -> Result<()> {
    let all = format!("bench/many/{n}/**");
    session
        .declare_subscriber(all.clone())
        .callback(|_| ())
        .background()
        .wait()
        .map_err(Error::from_boxed)?;
    let key = KeyExpr::try_from(format!("bench/many/{n}/state")).map_err(Error::from_boxed)?;
    session
        .declare_queryable(all)
        .callback(move |query| reply(&query, key.clone(), vec![0; 64]))
        .background()
        .wait()
        .map_err(Error::from_boxed)
}

fn reply(query: &Query, key: KeyExpr<'static>, value: Vec<u8>) {
    if let Err(error) = query.reply(key, value).wait() {
        eprintln!("reply: {error}");
    }
}
