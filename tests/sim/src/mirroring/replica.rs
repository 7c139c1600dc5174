//! A replica of a mirrored history, and what it holds.

use std::collections::{BTreeMap, BTreeSet};

use weir_backend_api::{
    Direction, ErrorKind, StoreSpec, Volume,
    conformance::{
        harness::{Shard, rules},
        model::State,
    },
    fault::{Faults, Faulty},
    recover,
};
use weir_core::{
    admission::Rules,
    identity::Identity,
    key::{Key, KeyRange},
    keyexpr::keyexpr,
    mirror::round::Mirror,
    pattern::{KeyPattern, KeySet},
    version::Version,
};

use super::{
    contending::Chair,
    scenario::Member,
    world::{DRIFT, START, TRIES_MAX},
};
use crate::disk::Disk;

/// A replica: its disk, its shard while it runs, its mirrors.
pub(super) struct Replica {
    index: usize,
    pub(super) member: Member,
    pub(super) keys: KeySet,
    pub(super) volume: Faulty<Disk>,
    pub(super) faults: Faults,
    pub(super) rules: Rules,
    pub(super) shard: Option<Shard>,
    pub(super) backup: Option<Disk>,
    /// Its mirrors, by the other's number.
    pub(super) mirrors: BTreeMap<usize, Mirror>,
    /// The number of the last question to each, and when it was first asked.
    pub(super) asked: BTreeMap<usize, (u64, u64)>,
    /// When the last round with each began.
    pub(super) rounds: BTreeMap<usize, u64>,
    /// When its horizon may have risen last.
    pub(super) raised: u64,
    /// How often it was started: answers to questions of an earlier life are nobody's.
    pub(super) life: u64,
    /// What resolves its conflicts, if a policy is bound to it.
    pub(super) chair: Option<Chair>,
    /// Every run of its stores, as it was drawn.
    pub(super) runs: Vec<u32>,
    /// How often chance was asked for.
    draws: u128,
    /// What its disk was when it was last put in.
    pub(super) disk: Option<Put>,
    /// The life of each other that the last answer to a probe was of.
    pub(super) heard: BTreeMap<usize, u64>,
    /// What it was told, since its disk was put back.
    pub(super) last_time: u64,
}

/// A disk that was put in instead of another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Put {
    /// The store on it, if there is one.
    pub(super) store: Option<Identity>,
    /// How many runs there were before.
    pub(super) runs: usize,
    /// The life that began with it.
    pub(super) life: u64,
}

impl Replica {
    pub(super) fn new(index: usize, member: Member, chair: Option<Chair>) -> Result<Self, String> {
        let disk = Disk::new().map_err(|error| error.to_string())?;
        let faults = Faults::new();
        let pattern = KeyPattern::parse(member.keys).map_err(|error| error.to_string())?;
        let mut replica = Self {
            index,
            member,
            keys: KeySet::from(pattern),
            volume: Faulty::new(disk, faults.clone()),
            faults,
            rules: Rules {
                drift: DRIFT,
                resolves: chair.is_some(),
                ..rules(member.history)
            },
            shard: None,
            backup: None,
            mirrors: BTreeMap::new(),
            asked: BTreeMap::new(),
            rounds: BTreeMap::new(),
            raised: 0,
            life: 0,
            chair,
            runs: Vec::new(),
            draws: 0,
            disk: None,
            heard: BTreeMap::new(),
            last_time: 0,
        };
        replica.reopen(START)?;
        Ok(replica)
    }

    pub(super) fn reopen(&mut self, now: u64) -> Result<(), String> {
        self.shard = None;
        self.faults.revive();
        for _ in 0..TRIES_MAX {
            match self.try_open(now) {
                Ok(shard) => {
                    self.shard = Some(shard);
                    self.sit();
                    return Ok(());
                }
                Err(_) => self.faults.revive(),
            }
        }
        Err("it never opens again".to_owned())
    }

    fn try_open(&mut self, now: u64) -> weir_backend_api::Result<Shard> {
        let store = self.volume.open(&StoreSpec::default())?;
        let mut shard = Shard::new(store, self.rules.clone(), now)?;
        if self.member.tells {
            // No two draws of any two replicas are the same.
            self.draws += 1;
            let chance = ((self.index as u128 + 1) << 16) + self.draws;
            let run = shard.begin_run(chance << 64 | chance)?.run;
            self.runs.push(run);
            shard.leave_out(&self.index.to_string());
        }
        Ok(shard)
    }

    /// The store that it is kept on.
    pub(super) fn identity(&self) -> Result<Option<Identity>, String> {
        let read = || recover::identity(&*self.volume.inner().open(&StoreSpec::default())?);
        read().map_err(|error| error.to_string())
    }

    /// Lets whoever is seated resolve.
    pub(super) fn sit(&mut self) {
        if let (Some(shard), Some(chair)) = (&mut self.shard, &self.chair) {
            shard.seat(chair.seat(self.life));
        }
    }

    pub(super) fn copy(&self) -> Result<Disk, String> {
        self.volume
            .inner()
            .copy()
            .map_err(|error| error.to_string())
    }

    pub(super) fn concerns(&self, key: &str) -> bool {
        keyexpr::new(key).is_ok_and(|key| self.keys.matches(key))
    }

    pub(super) fn shard(&self) -> Result<&Shard, String> {
        self.shard
            .as_ref()
            .ok_or_else(|| "it is not open".to_owned())
    }

    pub(super) fn horizon(&self) -> Result<Version, String> {
        Ok(self.shard()?.admitter().horizon())
    }

    pub(super) fn state(&self) -> Result<State, String> {
        self.shard()?.state().map_err(|error| error.to_string())
    }

    pub(super) fn versions(&self) -> Result<BTreeSet<(Key, Version)>, String> {
        let read = || -> weir_backend_api::Result<BTreeSet<(Key, Version)>> {
            let snapshot = self
                .shard()
                .map_err(|why| weir_backend_api::Error::new(ErrorKind::Closed, why))?
                .store()
                .snapshot()?;
            let rows = snapshot.history(&KeyRange::all(), None, Direction::Forward);
            rows.map(|row| row.map(|(key, record)| (key, record.head.own)))
                .collect()
        };
        read().map_err(|error| error.to_string())
    }
}
