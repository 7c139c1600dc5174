//! What is promised on the way and at the end of a history, and how it ends.

use std::{
    collections::BTreeSet,
    hash::{Hash, Hasher},
};

use weir_backend_api::conformance::model::covers;
use weir_core::{
    admission::History,
    change::Admission,
    key::Key,
    keyexpr::OwnedKeyExpr,
    mirror::{State, answer::Admit},
    version::Version,
};

use super::{MILLI, PATIENCE, World};
use crate::mirroring::{
    contending::{Contended, Seated, compare},
    reached::Outcome,
    replica::Replica,
    scenario::Step,
};

impl World {
    /// Where a policy resolves, a delete is merged with what came since, and a record is sent without the
    /// operations on top of it: who has forgotten the one, or the others since the round began, cannot say
    /// that this was done. Set aside is then what is deleted everywhere. And what is written while the
    /// policy is absent claims to have merged nothing.
    pub(super) fn may_be_aside(
        &self,
        replica: usize,
        admit: &Admit,
        aside: &Admission,
        round: u64,
    ) -> bool {
        let (Some(_), Admission::Quarantined(version)) = (&self.contention, aside) else {
            return false;
        };
        let mut records = admit.states.iter();
        let is_emptied = records.any(|State { key, record }| {
            let is_covered =
                |(by, expr): &(Version, OwnedKeyExpr)| by > version && covers(expr, key);
            record.head.effective() == *version && self.emptied.iter().any(is_covered)
        });
        let is_late = self.replicas[replica].raised >= round;
        self.is_unled || version.is_delete() || is_late && is_emptied
    }

    /// Nothing is in the way any more: everybody gets in step, and has everything.
    pub(super) fn end(mut self) -> Result<Outcome, String> {
        self.now += 100_000 * MILLI;
        for replica in 0..self.replicas.len() {
            self.replicas[replica].faults.calm();
            if let Some(contention) = &self.contention {
                let last = Seated::Serves(contention.last[replica]);
                self.step(&Step::Interrupt(replica, 0))?;
                self.seat(replica, last);
            }
            self.restart(replica)?;
        }
        self.release()?;
        self.heal()?;
        self.settle()?;
        for replica in 0..self.replicas.len() {
            self.restart(replica)?;
            self.retry(replica, |shard| shard.fold())?;
        }
        let ended = match self.contention {
            // What each says of the others is asked anew.
            Some(_) => self.settle()?,
            None => self.compare()?,
        };
        self.contended.add(&ended);
        for replica in &self.replicas {
            let state = replica.state()?;
            format!("{state:?}").hash(&mut self.trace);
        }
        for replica in &self.replicas {
            replica.count(&mut self.contended);
        }
        self.contended.unled += u64::from(self.is_unled);
        self.contended.collected += self.reached.collected;
        self.contended.restored += self.reached.restored + self.reached.wiped;
        Ok(Outcome {
            trace: self.trace.finish(),
            reached: self.reached,
            contended: self.contended,
        })
    }

    /// Lets everything arrive until all is as it should be.
    fn settle(&mut self) -> Result<Contended, String> {
        let until = self.now + PATIENCE;
        loop {
            self.arrive_all()?;
            match self.compare() {
                Ok(ended) => return Ok(ended),
                Err(violation) if self.now > until => return Err(violation),
                Err(_) => {}
            }
            self.pass(until + 1)?;
        }
    }

    fn compare(&self) -> Result<Contended, String> {
        if let Some(contention) = &self.contention {
            let horizons = self.replicas.iter().map(Replica::horizon);
            let horizons = horizons.collect::<Result<Vec<_>, String>>()?;
            let has_forgotten = horizons.iter().any(|horizon| *horizon > Version::ZERO);
            let is_forgetful = has_forgotten || self.is_unled;
            return compare(contention, &self.replicas, &self.made, is_forgetful);
        }
        let expected = self.model.state();
        for (index, replica) in self.replicas.iter().enumerate() {
            let mut expected = expected.clone();
            expected.retain(|key, _| replica.concerns(key));
            let state = replica.state()?;
            if state != expected {
                return Err(format!(
                    "replica {index} holds\n{state:#?}\nthe model\n{expected:#?}"
                ));
            }
        }
        // Whoever keeps series has the same ones.
        let series = |replica: &Replica| replica.member.history == History::All;
        for a in self.replicas.iter().filter(|replica| series(replica)) {
            for b in self.replicas.iter().filter(|replica| series(replica)) {
                let shared =
                    |a: &Replica, b: &Replica| -> Result<BTreeSet<(Key, Version)>, String> {
                        let mut versions = a.versions()?;
                        versions.retain(|(key, _)| b.concerns(key));
                        Ok(versions)
                    };
                let (ours, theirs) = (shared(a, b)?, shared(b, a)?);
                if ours != theirs {
                    let differ: Vec<_> = ours.symmetric_difference(&theirs).collect();
                    return Err(format!("two series differ: {differ:?}"));
                }
            }
        }
        Ok(Contended::default())
    }
}
