//! The hidden commands: what publishes, asks, listens and serves while the directing process is
//! idle. Each says one line of JSON when it is done, or `ready` when it serves.

mod append;
mod live;
mod publish;
mod query;
mod yardstick;

use std::{io::Write as _, time::Duration};

use anyhow::Result;
use clap::Subcommand;
use serde::Serialize;

pub use append::{Append, Appended, Content, FLIGHT, Sink};
pub use live::Live;
pub use publish::{Publish, Published};
pub use query::{Point, Pointed, Scan, Scanned};
pub use yardstick::{COUNT, Yardstick};

/// What a worker does.
#[derive(Subcommand)]
pub enum Worker {
    /// Append samples to a link's journal, or to a bare RocksDB.
    #[command(hide = true)]
    Append(Append),
    /// Publish, told to go by a line of input, connected until the input ends.
    #[command(hide = true)]
    Publish(Publish),
    /// One wildcard get.
    #[command(hide = true)]
    Scan(Scan),
    /// Gets of single keys, one after the other.
    #[command(hide = true)]
    Point(Point),
    /// Publisher and subscriber in one process, so that they share a clock.
    #[command(hide = true)]
    Live(Live),
    /// A plain router with the least that can take the storage's place, until the input ends.
    #[command(hide = true)]
    Yardstick(Yardstick),
}

impl Worker {
    /// Runs it to its end.
    pub fn run(self) -> Result<()> {
        match self {
            Self::Append(append) => append.run(),
            Self::Publish(publish) => publish.run(),
            Self::Scan(scan) => scan.run(),
            Self::Point(point) => point.run(),
            Self::Live(live) => live.run(),
            Self::Yardstick(yardstick) => yardstick.run(),
        }
    }
}

/// Times of one kind, in microseconds.
#[derive(Debug, Serialize, serde::Deserialize)]
pub struct Times {
    /// Half of them were shorter.
    pub p50: f64,
    /// One in a hundred was longer.
    pub p99: f64,
}

impl Times {
    /// Zeros if there is none.
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |hundredth: usize| {
            times
                .get(times.len() * hundredth / 100)
                .map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        Self {
            p50: at(50),
            p99: at(99),
        }
    }
}

/// Says a line at once: whoever waits for it reads a pipe.
fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn answer(answer: &impl Serialize) -> Result<()> {
    say(&serde_json::to_string(answer)?)
}

/// Waits for a line of input or its end.
fn wait_input() -> Result<()> {
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times = Times::of((0..200).rev().map(Duration::from_micros).collect());
        assert!(
            (times.p50 - 100.0).abs() < 1e-6 && (times.p99 - 198.0).abs() < 1e-6,
            "{times:?}"
        );
        assert!(Times::of(Vec::new()).p50.abs() < 1e-6);
    }
}
