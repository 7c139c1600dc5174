//! How far an import is: a bar for a person, now and then a line for a log.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

/// Between two lines where no bar can be drawn.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Counts what is done and shows it on standard error.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    total: Option<u64>,
    /// Lines instead of a bar: when the last one was due, and how much was done then.
    lines: Option<(Instant, u64)>,
}

impl Progress {
    /// Starts at nothing of about `total`.
    pub fn new(total: Option<u64>) -> Result<Self> {
        // Draws on standard error, and only if that is a terminal.
        let bar = match total {
            Some(total) => ProgressBar::new(total).with_style(ProgressStyle::with_template(
                "{bar:30} {human_pos}/{human_len}  {per_sec}  {eta} left",
            )?),
            None => ProgressBar::new_spinner().with_style(ProgressStyle::with_template(
                "{spinner} {human_pos}  {per_sec}",
            )?),
        };
        let lines = bar.is_hidden().then(|| (Instant::now(), 0));
        Ok(Self { bar, total, lines })
    }

    /// There are about `total`, it turns out.
    pub fn expect(&mut self, total: u64) {
        self.total = Some(total);
        self.bar.set_length(total);
    }

    /// One more is done.
    pub fn step(&mut self, now: Instant, err: &mut dyn Write) -> io::Result<()> {
        self.advance(1, now, err)
    }

    /// Some more are done.
    pub fn advance(&mut self, done: u64, now: Instant, err: &mut dyn Write) -> io::Result<()> {
        self.bar.inc(done);
        let Some((last, before)) = &mut self.lines else {
            return Ok(());
        };
        let passed = now.saturating_duration_since(*last);
        if passed < LINE_EVERY {
            return Ok(());
        }
        let done = self.bar.position();
        let per_second = (done - *before) as f64 / passed.as_secs_f64();
        (*last, *before) = (now, done);
        let done = HumanCount(done);
        match self.total {
            Some(total) => {
                writeln!(
                    err,
                    "{done} of about {}, {per_second:.0}/s",
                    HumanCount(total)
                )
            }
            None => writeln!(err, "{done}, {per_second:.0}/s"),
        }
    }

    /// Prints something else without a bar in the middle of it.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_gets_a_line_every_few_seconds() {
        let start = Instant::now();
        let rows = [
            (
                Some(20_000),
                "3,000 of about 20,000, 600/s\n6,000 of about 20,000, 600/s\n",
            ),
            (None, "3,000, 600/s\n6,000, 600/s\n"),
        ];
        for (total, expected) in rows {
            let mut progress = Progress {
                bar: ProgressBar::hidden(),
                total,
                lines: Some((start, 0)),
            };
            let mut err = Vec::new();
            for step in 1..=8_000_u64 {
                // 600 a second.
                let now = start + Duration::from_micros(step * 1_000_000 / 600);
                progress.step(now, &mut err).unwrap();
            }
            assert_eq!(String::from_utf8(err).unwrap(), expected);
        }
    }
}
