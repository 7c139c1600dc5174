//! What replicas know of each other; and disks that are put back, lost, swapped and copied: who was in
//! step with a replica counts it again only after it has noticed; what is noticed is what has happened.

use weir_backend_api::{
    fault::{Faults, Faulty},
    replica::Scope,
};
use weir_core::{
    admission::History,
    identity::{Fate, Identity},
    keyspace::KeySpace,
};

use super::World;
use crate::{disk::Disk, mirroring::replica::Put};

impl World {
    /// A replica restarts on the copy of its disk, or on an empty one if there is none.
    pub(super) fn restore(&mut self, replica: usize) -> Result<(), String> {
        let copy = self.replicas[replica].backup.as_ref().map(Disk::copy);
        match copy.transpose().map_err(|error| error.to_string())? {
            Some(disk) if replica != 0 => {
                self.reached.restored += 1;
                self.put(replica, disk)
            }
            _ => self.wipe(replica),
        }
    }

    /// A replica restarts on an empty disk.
    pub(super) fn wipe(&mut self, replica: usize) -> Result<(), String> {
        if replica == 0 {
            return Ok(());
        }
        self.reached.wiped += 1;
        self.put(replica, Disk::new().map_err(|error| error.to_string())?)
    }

    /// Two replicas of the same keys restart on each other's disks.
    pub(super) fn swap(&mut self, one: usize, other: usize) -> Result<(), String> {
        if one == other || one == 0 || other == 0 || !self.is_alike(one, other) {
            return Ok(());
        }
        let disks = (self.replicas[one].copy()?, self.replicas[other].copy()?);
        self.put(one, disks.1)?;
        self.put(other, disks.0)
    }

    /// A replica restarts on a copy of the disk of another one of the same keys.
    pub(super) fn copy(&mut self, from: usize, to: usize) -> Result<(), String> {
        if from == to || to == 0 || !self.is_alike(from, to) {
            return Ok(());
        }
        let disk = self.replicas[from].copy()?;
        self.put(to, disk)
    }

    fn is_alike(&self, one: usize, other: usize) -> bool {
        let [one, other] = [one, other].map(|index| &self.replicas[index].member);
        one.tells && other.tells && (one.keys, one.history) == (other.keys, other.history)
    }

    /// Puts a disk in, and restarts the replica on it.
    fn put(&mut self, replica: usize, disk: Disk) -> Result<(), String> {
        let of = &mut self.replicas[replica];
        of.shard = None;
        of.faults = Faults::new();
        of.volume = Faulty::new(disk, of.faults.clone());
        let store = of.identity()?;
        let mut others = (0..self.replicas.len()).filter(|other| *other != replica);
        if let Some(store) = store
            && others.any(|other| {
                let other = self.replicas[other].identity();
                other.is_ok_and(|other| other.is_some_and(|other| other.id == store.id))
            })
        {
            self.cloned.insert(store.id);
        }
        let of = &mut self.replicas[replica];
        of.disk = Some(Put {
            store,
            runs: of.runs.len(),
            life: of.life + 1,
        });
        for other in 0..self.replicas.len() {
            if self.must_notice(other, replica) {
                self.reached.replaced += 1;
                self.owed.insert((other, replica));
            } else {
                self.owed.remove(&(other, replica));
            }
        }
        self.restart(replica)
    }

    /// A replica knows after a start what it knew when it last wrote it.
    pub(super) fn remember(&mut self, replica: usize) {
        for other in 0..self.replicas.len() {
            if !self.must_notice(replica, other) {
                self.owed.remove(&(replica, other));
            }
        }
    }

    /// Whether a replica counts another one as in step by a store, or a state of it, that is not there any
    /// more.
    fn must_notice(&self, replica: usize, other: usize) -> bool {
        let [ours, theirs] = [replica, other].map(|index| &self.replicas[index]);
        let (Some(shard), Some(put)) = (&ours.shard, &theirs.disk) else {
            return false;
        };
        let member = shard.member(&other.to_string());
        let Some(member) = member.filter(|member| member.in_step > 0) else {
            return false;
        };
        let Some(known) = member.stores.first() else {
            return false;
        };
        match &put.store {
            Some(store) if store.id == known.id => store.position < known.position,
            _ => true,
        }
    }

    /// A question has told of the stores of who asks: whether what it finds counts.
    pub(super) fn asked(
        &mut self,
        replica: usize,
        peer: usize,
        stores: &[Identity],
    ) -> Result<bool, String> {
        let of = &mut self.replicas[replica];
        let Some(shard) = of
            .shard
            .as_mut()
            .filter(|_| of.member.tells && !stores.is_empty())
        else {
            return Ok(true);
        };
        shard.now = self.now;
        let counts = shard.asked(&peer.to_string(), stores);
        if !counts {
            self.reached.doubted += 1;
            self.counts_no_more(replica, peer)?;
        }
        Ok(counts)
    }

    /// An answer has told of the stores of who gave it.
    pub(super) fn told(
        &mut self,
        replica: usize,
        peer: usize,
        stores: &[Identity],
        first: u64,
    ) -> Result<(), String> {
        let of = &mut self.replicas[replica];
        let Some(shard) = of.shard.as_mut().filter(|_| of.member.tells) else {
            return Ok(());
        };
        shard.now = self.now;
        let name = peer.to_string();
        let known = shard
            .member(&name)
            .and_then(|member| member.stores.first().copied());
        let fate = shard.told(&name, stores, first);
        let (Some(fate), Some(known), Some(told)) = (fate, known, stores.first()) else {
            if fate == Some(Fate::Cloned) {
                self.reached.seen_cloned += 1;
            }
            return Ok(());
        };
        let reached = match fate {
            Fate::Restarted => &mut self.reached.known_again,
            Fate::Missed => &mut self.reached.missed,
            Fate::Restored => &mut self.reached.seen_restored,
            Fate::Wiped => &mut self.reached.seen_wiped,
            Fate::Swapped => &mut self.reached.seen_swapped,
            Fate::Cloned => &mut self.reached.seen_cloned,
        };
        *reached += 1;
        if !self.is_true(peer, fate, &known, told) {
            return Err(format!(
                "{replica} takes the store of {peer} for {fate:?}: {known:?}, now {told:?}"
            ));
        }
        if fate.is_doubtful() {
            self.reached.noticed += u64::from(self.owed.remove(&(replica, peer)));
            self.counts_no_more(replica, peer)?;
        }
        Ok(())
    }

    /// What was known of a replica is doubtful: then it is not counted on.
    fn counts_no_more(&self, replica: usize, peer: usize) -> Result<(), String> {
        let shard = self.replicas[replica].shard()?;
        match shard.member(&peer.to_string()) {
            Some(member) if member.in_step > 0 => Err(format!("{replica} still counts {peer}")),
            _ => Ok(()),
        }
    }

    /// Whether that has become of a store since it was known.
    fn is_true(&self, of: usize, fate: Fate, known: &Identity, told: &Identity) -> bool {
        let of = &self.replicas[of];
        let is_put_since = of.disk.as_ref().is_some_and(|put| {
            let known = of.runs.iter().position(|run| *run == known.run);
            known.is_none_or(|known| known < put.runs)
        });
        match fate {
            Fate::Restarted | Fate::Missed => known.id == told.id,
            Fate::Restored => is_put_since && known.id == told.id,
            Fate::Wiped => is_put_since && known.id != told.id && told.opened == 0,
            Fate::Swapped => is_put_since && known.id != told.id,
            Fate::Cloned => self.cloned.contains(&told.id),
        }
    }

    /// A replica counts another one as in step, by what it said in that life.
    pub(super) fn count(&mut self, replica: usize, peer: usize, life: u64) -> Result<(), String> {
        let put = self.replicas[peer].disk.filter(|put| put.life <= life);
        if put.is_some() && self.owed.contains(&(replica, peer)) {
            return Err(format!(
                "{replica} counts {peer} as in step, and has not noticed {put:?}"
            ));
        }
        Ok(())
    }

    /// A replica learns of another, and perhaps that both hold the same.
    pub(super) fn meet(
        &mut self,
        replica: usize,
        other: usize,
        in_step: Option<u64>,
    ) -> Result<(), String> {
        // Who keeps a series keeps tombstones: what it has seen others may not forget.
        let keeps = self.replicas[other].member.history == History::All;
        let in_step = in_step.filter(|_| !keeps);
        self.retry(replica, |shard| shard.meet(&other.to_string(), in_step))
    }

    /// Whether a replica is for every key of another.
    pub(super) fn covers(&self, replica: usize, other: usize) -> bool {
        let (ours, theirs) = (&self.replicas[other].keys, &self.replicas[replica].keys);
        Scope::of(ours, &KeySpace::default(), theirs).is_all()
    }
}
