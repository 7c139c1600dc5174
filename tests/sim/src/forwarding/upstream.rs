//! An upstream of a forwarded history, and what it holds.

use std::collections::BTreeSet;

use weir_backend_api::{
    Direction, Error, ErrorKind, Result as StoreResult, StoreSpec, Volume,
    conformance::{
        harness::{Shard, rules},
        model::{Op, State as Live, covers},
    },
    fault::{Faults, Faulty},
};
use weir_core::{
    admission::{History, Rules},
    change::{Admission, KeptChange, Table},
    forward::Lost,
    key::{Key, KeyRange},
    mirror::{State, answer::Admit},
    pattern::{KeyPattern, KeySet},
    record::Record,
    version::Version,
    wildcard::Insertion,
};

use super::{
    journal::{item, version_of},
    scenario::Upstream,
    world::{DRIFT, START, TRIES_MAX},
};
use crate::disk::Disk;

/// A storage that is forwarded to: its disk, and its shard while it runs.
pub(super) struct Store {
    pub(super) of: Upstream,
    pub(super) keys: KeySet,
    pub(super) volume: Faulty<Disk>,
    pub(super) faults: Faults,
    rules: Rules,
    pub(super) shard: Option<Shard>,
    pub(super) backup: Option<Disk>,
    /// What links have told that they gave up.
    pub(super) noted: Vec<Lost>,
    /// Parcels that came.
    pub(super) parcels: u64,
}

impl Store {
    pub(super) fn new(of: Upstream) -> Result<Self, String> {
        let disk = Disk::new().map_err(|error| error.to_string())?;
        let faults = Faults::new();
        let pattern = KeyPattern::parse("**").map_err(|error| error.to_string())?;
        let mut store = Self {
            of,
            keys: KeySet::from(pattern),
            volume: Faulty::new(disk, faults.clone()),
            faults,
            rules: Rules {
                drift: DRIFT,
                ..rules(of.history)
            },
            shard: None,
            backup: None,
            noted: Vec::new(),
            parcels: 0,
        };
        store.reopen(START)?;
        Ok(store)
    }

    pub(super) fn reopen(&mut self, now: u64) -> Result<(), String> {
        self.shard = None;
        self.faults.revive();
        for _ in 0..TRIES_MAX {
            let opened = self
                .volume
                .open(&StoreSpec::default())
                .and_then(|store| Shard::new(store, self.rules.clone(), now));
            match opened {
                Ok(shard) => {
                    self.shard = Some(shard);
                    return Ok(());
                }
                Err(_) => self.faults.revive(),
            }
        }
        Err("it never opens again".to_owned())
    }

    pub(super) fn copy(&self) -> Result<Disk, String> {
        self.volume
            .inner()
            .copy()
            .map_err(|error| error.to_string())
    }

    pub(super) fn put_back(&mut self, disk: Disk, now: u64) -> Result<(), String> {
        self.shard = None;
        self.faults = Faults::new();
        self.volume = Faulty::new(disk, self.faults.clone());
        self.noted.clear();
        self.reopen(now)
    }

    /// Admits what was shipped, as whole records, the operations first.
    pub(super) fn take(
        &mut self,
        now: u64,
        changes: Vec<KeptChange>,
    ) -> StoreResult<Vec<Admission>> {
        let mut admit = Admit::default();
        for change in changes {
            let version = version_of(&change);
            match change {
                KeptChange::Key(change) => admit.states.push(State {
                    key: change.key,
                    record: Record::own(version, change.value),
                }),
                KeptChange::Wildcard(change) => admit.ops.push(change.into_op(version.stamp)),
            }
        }
        let shard = self.open_shard()?;
        shard.now = now;
        shard.take(&admit)
    }

    /// Admits what comes live.
    pub(super) fn hear(&mut self, now: u64, change: KeptChange) -> StoreResult<Vec<Admission>> {
        let shard = self.open_shard()?;
        shard.now = now;
        shard.offer(&mut vec![op(&change)])
    }

    pub(super) fn release(&mut self, now: u64) -> StoreResult<()> {
        let shard = self.open_shard()?;
        shard.now = now;
        shard.release().map(|_| ())
    }

    fn open_shard(&mut self) -> StoreResult<&mut Shard> {
        self.shard
            .as_mut()
            .ok_or_else(|| Error::new(ErrorKind::Closed, "it is not open"))
    }

    fn running(&self) -> Result<&Shard, String> {
        self.shard
            .as_ref()
            .ok_or_else(|| "it is not open".to_owned())
    }

    /// Whether it has a change, or something later that makes it superfluous.
    pub(super) fn holds(&self, change: &KeptChange) -> Result<bool, String> {
        let shard = self.running()?;
        let version = version_of(change);
        let is_held = match (change, item(change)) {
            (KeptChange::Wildcard(change), _) => {
                let mut journal = shard.admitter().journal().clone();
                let op = change.clone().into_op(version.stamp);
                !matches!(journal.insert(op), Insertion::Inserted(_))
            }
            (KeptChange::Key(change), Some(_)) if self.of.history == History::All => {
                self.versions()?.contains(&(change.key.clone(), version))
            }
            (KeptChange::Key(change), _) => {
                let held = shard.store().get(&change.key);
                let held = held.map_err(|error| error.to_string())?;
                // A later delete of whatever was there makes it superfluous, too.
                let mut ops = shard.admitter().journal().iter();
                held.is_some_and(|record| record.head.own >= version)
                    || ops.any(|op| {
                        let is_later = op.value.is_none() && op.version >= version;
                        is_later && covers(&op.expr, &change.key)
                    })
            }
        };
        Ok(is_held || self.is_parked(change)?)
    }

    /// Whether it will have it when it is due, or something later of its key.
    fn is_parked(&self, change: &KeptChange) -> Result<bool, String> {
        let rows = self
            .running()?
            .store()
            .rows(Table::Parked, &[], usize::MAX)
            .map_err(|error| error.to_string())?;
        let version = version_of(change);
        Ok(rows.into_iter().any(|(_, row)| {
            let Some(parked) = KeptChange::decode(&row.into()) else {
                return false;
            };
            match (change, &parked) {
                (KeptChange::Key(ours), KeptChange::Key(theirs))
                    if self.of.history == History::Latest =>
                {
                    ours.key == theirs.key && version_of(&parked) >= version
                }
                _ => parked == *change,
            }
        }))
    }

    /// What a query for everything would answer.
    pub(super) fn live(&self) -> Result<Live, String> {
        let live = self.running()?.state();
        live.map_err(|error| error.to_string())
    }

    /// Every version of every key.
    pub(super) fn versions(&self) -> Result<BTreeSet<(Key, Version)>, String> {
        let read = |shard: &Shard| -> StoreResult<BTreeSet<(Key, Version)>> {
            let snapshot = shard.store().snapshot()?;
            let rows = snapshot.history(&KeyRange::all(), None, Direction::Forward);
            let mut versions = rows
                .map(|row| row.map(|(key, record)| (key, record.head.own)))
                .collect::<StoreResult<BTreeSet<_>>>()?;
            for (key, record) in shard.records()? {
                versions.insert((key, record.head.own));
            }
            Ok(versions)
        };
        read(self.running()?).map_err(|error| error.to_string())
    }
}

/// A change as a shard is offered it.
pub(super) fn op(change: &KeptChange) -> Op {
    match change {
        KeptChange::Key(change) => Op::Key(change.clone()),
        KeptChange::Wildcard(change) => Op::Wildcard(change.clone()),
    }
}
