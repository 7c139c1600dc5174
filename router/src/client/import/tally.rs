//! What became of what was imported.

use std::io::{self, Write};

use anyhow::{Result, bail};

use super::super::Outcome;
use super::super::ack::{Durability, Receipt};
use super::super::table::printable;

/// Problems that are printed; the rest is counted.
const PRINTED_MAX: u64 = 20;

/// What became of one value. When several storages take it, the greatest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It was there before.
    Known,
    /// There is something newer.
    Outdated,
    /// It is from the future and will be applied when it is due.
    Parked,
    /// It is stored.
    Imported,
    /// It is kept, but too old to be decided.
    Quarantined,
}

/// How many had which fate.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    fates: [u64; 5],
    failed: u64,
}

impl Fate {
    /// What a storage says, if it is a yes.
    pub fn of(receipt: &Receipt, asked: Durability) -> Result<Self> {
        if receipt.admission == "quarantined" {
            return Ok(Self::Quarantined);
        }
        if let Some(refusal) = receipt.refusal(Some(asked)) {
            bail!(refusal);
        }
        Ok(match receipt.admission.as_str() {
            "applied" | "merged" => Self::Imported,
            "known" | "nothing" => Self::Known,
            "outdated" => Self::Outdated,
            "parked" => Self::Parked,
            other => bail!("`{}` is no answer that is understood", printable(other, 50)),
        })
    }
}

impl Tally {
    /// Counts a value; prints why it failed.
    pub fn add(&mut self, fate: Result<Fate>, err: &mut dyn Write) -> io::Result<()> {
        match fate {
            Ok(fate) => self.fates[fate as usize] += 1,
            Err(problem) => {
                self.failed += 1;
                if self.failed <= PRINTED_MAX {
                    writeln!(err, "error: {problem:#}")?;
                }
            }
        }
        Ok(())
    }

    /// How many failed without a word.
    pub fn not_printed(&self) -> Option<u64> {
        self.failed
            .checked_sub(PRINTED_MAX)
            .filter(|rest| *rest > 0)
    }

    /// How many wait for somebody to decide.
    pub fn quarantined(&self) -> u64 {
        self.fates[Fate::Quarantined as usize]
    }

    /// `1190 imported, 10 already there, 0 outdated, 0 quarantined, 3 failed`
    pub fn summary(&self) -> String {
        let count = |fate: Fate| self.fates[fate as usize];
        let parked = match count(Fate::Parked) {
            0 => String::new(),
            parked => format!("{parked} parked until they are due, "),
        };
        format!(
            "{} imported, {} already there, {} outdated, {parked}{} quarantined, {} failed",
            count(Fate::Imported),
            count(Fate::Known),
            count(Fate::Outdated),
            count(Fate::Quarantined),
            self.failed
        )
    }

    /// Refused if anything is neither stored nor superseded.
    pub fn outcome(&self) -> Outcome {
        match (self.fates.iter().sum(), self.failed + self.quarantined()) {
            (0_u64, 0) => Outcome::Nothing,
            (_, 0) => Outcome::Done,
            _ => Outcome::Refused,
        }
    }
}
