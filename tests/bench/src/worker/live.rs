//! Latency of live traffic: one client publishes, another one subscribes.
//!
//! Two sessions in one process see each other only through the router, and share a clock.

use std::{
    sync::mpsc::channel,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Error, Result};
use clap::Args;
use zenoh::{
    Session, Wait as _,
    qos::{CongestionControl, Reliability},
};

use super::{Times, answer};
use crate::{client, dataset};

/// A paced publisher and an ordinary subscriber.
#[derive(Args, Clone, Debug)]
pub struct Live {
    #[arg(long)]
    pub connect: String,
    /// Samples a second.
    #[arg(long)]
    pub rate: f64,
    /// Samples.
    #[arg(long)]
    pub count: usize,
    #[arg(long, default_value_t = 10_000)]
    pub keys: usize,
}

impl Live {
    /// The arguments that make a worker of this.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["live".to_owned()];
        for (name, value) in [
            ("connect", self.connect.clone()),
            ("rate", self.rate.to_string()),
            ("count", self.count.to_string()),
            ("keys", self.keys.to_string()),
        ] {
            arguments.extend([format!("--{name}"), value]);
        }
        arguments
    }

    pub(super) fn run(self) -> Result<()> {
        let publisher = client::connect(&self.connect)?;
        let subscriber = client::connect(&self.connect)?;
        let epoch = Instant::now();
        let (sender, receiver) = channel();
        let subscription = subscriber
            .declare_subscriber(dataset::ALL)
            .callback(move |sample| {
                let now = epoch.elapsed();
                let sent = dataset::number(&sample.payload().to_bytes()).map(Duration::from_nanos);
                // The receiver goes when the measurement is over.
                let _ = sender.send(now.saturating_sub(sent.unwrap_or_default()));
            })
            .wait()
            .map_err(Error::from_boxed)?;
        // Until the router knows the subscription, puts go nowhere.
        client::poll(client::PATIENCE, "the subscriber hears nothing", || {
            put(&publisher, &dataset::key(0), epoch)?;
            Ok(receiver.recv_timeout(Duration::from_millis(100)).is_ok())
        })?;
        while receiver.recv_timeout(Duration::from_millis(200)).is_ok() {}

        let step = Duration::from_secs_f64(1.0 / self.rate);
        let mut due = Instant::now();
        for n in 0..self.count {
            // Pacing, not waiting for anything: a publisher that sends when its time has come.
            thread::sleep(due.saturating_duration_since(Instant::now()));
            put(&publisher, &dataset::key(n % self.keys), epoch)?;
            due += step;
        }
        let times = (0..self.count)
            .map(|_| receiver.recv_timeout(Duration::from_secs(10)))
            .collect::<Result<Vec<_>, _>>()?;
        subscription.undeclare().wait().map_err(Error::from_boxed)?;
        answer(&Times::of(times))
    }
}

fn put(session: &Session, key: &str, epoch: Instant) -> Result<()> {
    let nanos = u64::try_from(epoch.elapsed().as_nanos())?;
    let mut value = vec![0; 64];
    value[..8].copy_from_slice(&nanos.to_le_bytes());
    session
        .put(key, value)
        .congestion_control(CongestionControl::Block)
        .reliability(Reliability::Reliable)
        .wait()
        .map_err(Error::from_boxed)
}
