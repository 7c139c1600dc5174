//! Ratios, medians and the table.

use std::fmt;

use anyhow::{Result, bail};

/// What was measured, round by round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series(Vec<f64>);

impl Series {
    /// Adds a round.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The middle value; of an even number of rounds the mean of the two in the middle. Not a
    /// number if there was no round.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => sorted[n / 2],
            n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
        }
    }

    fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::min)
    }

    fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::max)
    }

    /// This series over another, round by round: what disturbs the machine for a while disturbs
    /// both sides of one round.
    pub fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect())
    }
}

impl FromIterator<f64> for Series {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    /// Samples a second.
    Rate,
    /// Milliseconds.
    Millis,
    /// Bytes, shown as MiB.
    Bytes,
}

impl Unit {
    fn show(self, value: f64) -> String {
        format!("{} {}", self.number(value), self.symbol())
    }

    fn number(self, value: f64) -> String {
        match self {
            Self::Rate => format!("{:.1}", value / 1_000.0),
            Self::Millis if value < 10.0 => format!("{value:.3}"),
            Self::Millis => format!("{value:.0}"),
            Self::Bytes => format!("{:.0}", value / f64::from(1 << 20)),
        }
    }

    fn symbol(self) -> &'static str {
        match self {
            Self::Rate => "k/s",
            Self::Millis => "ms",
            Self::Bytes => "MiB",
        }
    }
}

/// What a row is meant to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// The ratio to the yardstick.
    AtLeast(f64),
    /// The ratio to the yardstick.
    AtMost(f64),
    /// Our own figure, in its unit.
    Below(f64),
    /// Shown for what it is worth.
    None,
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was done, and to what it is compared.
    pub name: String,
    pub unit: Unit,
    pub ours: Series,
    pub yardstick: Series,
    pub target: Target,
    /// CPU, memory and whatever else belongs to the figure.
    pub notes: String,
}

impl Row {
    fn ratio(&self) -> Series {
        self.ours.over(&self.yardstick)
    }

    /// Whether the median reaches the target; nothing if there is none.
    fn met(&self) -> Option<bool> {
        match self.target {
            Target::AtLeast(least) => Some(self.ratio().median() >= least),
            Target::AtMost(most) => Some(self.ratio().median() <= most),
            Target::Below(most) => Some(self.ours.median() <= most),
            Target::None => None,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |series: &Series| match series.0.len() {
            0 => "-".to_owned(),
            1 => self.unit.show(series.median()),
            _ => format!(
                "{} ({} to {})",
                self.unit.show(series.median()),
                self.unit.number(series.min()),
                self.unit.number(series.max())
            ),
        };
        let ratio = match self.ratio() {
            ratio if ratio.0.is_empty() => "-".to_owned(),
            ratio => format!(
                "{:.2} ({:.2} to {:.2})",
                ratio.median(),
                ratio.min(),
                ratio.max()
            ),
        };
        let target = match self.target {
            Target::AtLeast(least) => format!(">= {least}"),
            Target::AtMost(most) => format!("<= {most}"),
            Target::Below(most) => format!("<= {}", self.unit.show(most)),
            Target::None => String::new(),
        };
        let met = match self.met() {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "",
        };
        write!(
            f,
            "| {} | {} | {} | {ratio} | {target} | {met} | {} |",
            self.name,
            show(&self.ours),
            show(&self.yardstick),
            self.notes
        )
    }
}

/// The rows of a run.
pub struct Report {
    machine: String,
    rows: Vec<Row>,
    skipped: Vec<String>,
    failed: Vec<String>,
}

impl Report {
    /// An empty one.
    pub fn new(machine: String) -> Self {
        Self {
            machine,
            rows: Vec::new(),
            skipped: Vec::new(),
            failed: Vec::new(),
        }
    }

    /// Adds a row, and shows it at once: a run takes long.
    pub fn row(&mut self, row: Row) {
        eprintln!("{row}");
        self.rows.push(row);
    }

    /// What could not be measured here, and why.
    pub fn skip(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.skipped.contains(&what) {
            eprintln!("skipped: {what}");
            self.skipped.push(what);
        }
    }

    /// What went wrong.
    pub fn fail(&mut self, scenario: &str, error: &anyhow::Error) {
        eprintln!("FAILED {scenario}: {error:#}");
        let first = format!("{error:#}");
        let first = first.lines().next().unwrap_or_default();
        self.failed.push(format!("{scenario}: {first}"));
    }

    /// An error if a scenario failed. A target that was missed is no failure: a shared machine
    /// would decide it.
    pub fn verdict(&self) -> Result<()> {
        match self.failed.len() {
            0 => Ok(()),
            n => bail!("{n} scenarios failed: {}", self.failed.join("; ")),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        writeln!(
            f,
            "| what | ours | yardstick | ratio | target | met | notes |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- |")?;
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        writeln!(f, "\nMedian (least to greatest) over the rounds.")?;
        for what in &self.skipped {
            writeln!(f, "\nSkipped: {what}.")?;
        }
        for what in &self.failed {
            writeln!(f, "\n**Failed**: {what}.")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series<const N: usize>(values: [f64; N]) -> Series {
        Series(values.to_vec())
    }

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(series([3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(series([4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert!(Series::default().median().is_nan());
    }

    #[test]
    fn a_row_compares_round_by_round() {
        let row = |target| Row {
            name: "ingest".to_owned(),
            unit: Unit::Rate,
            ours: series([90_000.0, 50_000.0, 80_000.0]),
            yardstick: series([100_000.0, 50_000.0, 100_000.0]),
            target,
            notes: "note".to_owned(),
        };
        assert_eq!(
            row(Target::AtLeast(0.9)).to_string(),
            "| ingest | 80.0 k/s (50.0 to 90.0) | 100.0 k/s (50.0 to 100.0) \
             | 0.90 (0.80 to 1.00) | >= 0.9 | yes | note |"
        );
        assert_eq!(row(Target::AtLeast(0.95)).met(), Some(false));
        assert_eq!(row(Target::AtMost(0.9)).met(), Some(true));
        assert_eq!(row(Target::Below(70_000.0)).met(), Some(false));
        assert_eq!(row(Target::None).met(), None);
    }

    #[test]
    fn only_a_failure_fails_a_run() {
        let mut report = Report::new("a machine".to_owned());
        report.skip("stock: it is not built");
        assert!(report.verdict().is_ok());
        report.fail("ingest", &anyhow::anyhow!("3 samples are missing\nmore"));
        let text = report.to_string();
        assert!(text.contains("Skipped: stock: it is not built."), "{text}");
        assert!(
            text.contains("**Failed**: ingest: 3 samples are missing."),
            "{text}"
        );
        assert!(report.verdict().is_err());
    }
}
