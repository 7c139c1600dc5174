//! What a shard knows of the storage's other replicas, and so what it may forget.

use std::sync::atomic::Ordering::Relaxed;

use weir_core::{
    change::{KeptChange, Table, Write},
    identity::{Fate, Identity},
    key::Key,
    membership::Member,
    version::Version,
};

use super::Shard;
use crate::convert;

/// How late a change may be without holding up collections, and so how often a mirror must be compared
/// for them not to be held up.
pub(super) const MARGIN: std::time::Duration = std::time::Duration::from_secs(60);

/// What was learnt of a replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum News {
    /// It is there.
    Seen,
    /// It has told of its stores in an answer.
    Told(Told),
    /// It has told of its stores in a question.
    Asked {
        /// One for each shard.
        stores: Vec<Identity>,
        /// When both were found equal by it (NTP64), if they were.
        in_step: Option<u64>,
        /// Whether that counts for forgetting.
        counts: bool,
    },
    /// A comparison that began then (NTP64) found both equal, with these stores if it tells of any.
    InStep(u64, Option<Told>),
    /// Both are equal but for what the replica has forgotten, which is what is below this.
    Horizon(Version),
}

/// What a replica has told of its stores.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Told {
    /// One for each shard.
    pub stores: Vec<Identity>,
    /// When it was asked for what it told in answer (NTP64).
    pub first: u64,
}

/// What is made of news.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Learnt {
    /// What has become of the replica's stores.
    pub fate: Option<Fate>,
    /// Both were found equal, and it does not count: the replica has to be asked which stores it has.
    pub is_doubtful: bool,
}

impl Shard {
    /// Takes note of what was learnt of a replica; what must outlast a restart is committed. `own` are the
    /// stores of the storage.
    pub(crate) fn learn(&mut self, now: u64, name: &str, news: &News, own: &[Identity]) -> Learnt {
        let before = self.members.get(name).cloned();
        let mut learnt = Learnt::default();
        let in_step = match news {
            News::Horizon(horizon) => {
                self.adopt(now, *horizon);
                return learnt;
            }
            News::Seen => {
                self.members.seen(name, now);
                None
            }
            News::Told(told) => {
                learnt.fate = self.hear(now, name, told, own);
                None
            }
            News::Asked {
                stores,
                in_step,
                counts,
            } => {
                let is_known = self.members.asked(name, stores, own, now);
                learnt.is_doubtful = !is_known && in_step.is_some();
                in_step.filter(|_| is_known && *counts)
            }
            News::InStep(at, told) => {
                // Again: the queue may have been full when it was told.
                learnt.fate = told
                    .as_ref()
                    .and_then(|told| self.hear(now, name, told, own));
                Some(*at)
            }
        };
        if let Some(at) = in_step {
            self.members.in_step(name, at);
            self.hear_of_deletes(now);
        }
        let Some(member) = self.members.get(name) else {
            return learnt;
        };
        if self.open.is_some() && before.is_none_or(|before| is_to_keep(&before, member)) {
            let row = Write::Row {
                table: Table::System,
                key: Member::row_key(name),
                value: Some(member.encode()),
            };
            self.maintain(now, vec![row]);
        }
        learnt
    }

    fn hear(&mut self, now: u64, name: &str, told: &Told, own: &[Identity]) -> Option<Fate> {
        self.members
            .told(name, &told.stores, own, (told.first, now))
    }

    /// What every replica has for certain was made before this (NTP64).
    pub(crate) fn have_all_before(&mut self, now: u64, patience: u64) -> u64 {
        self.hear_of_deletes(now);
        let gone = self.members.retire(now, patience);
        for name in &gone {
            tracing::warn!(
                store = self.plan.spec.name,
                replica = name,
                "it was silent for too long; tombstones wait for it no more"
            );
        }
        let rows: Vec<Write<'_>> = gone
            .iter()
            .map(|name| Write::Row {
                table: Table::System,
                key: Member::row_key(name),
                value: None,
            })
            .collect();
        if !rows.is_empty() && !self.maintain(now, rows) {
            return 0;
        }
        self.members.have_all_before()
    }

    fn hear_of_deletes(&mut self, now: u64) {
        let deleted = self
            .open
            .as_mut()
            .and_then(|open| open.admitter.take_deleted());
        if let Some(time) = deleted {
            self.members.deleted(time, now);
        }
    }

    /// Judges with care from now on what the replica does: both hold the same, so nothing was missed of
    /// what is below.
    fn adopt(&mut self, now: u64, horizon: Version) {
        let Some(open) = &mut self.open else { return };
        if horizon <= open.admitter.horizon() {
            return;
        }
        open.admitter.begin();
        let mut writes = Vec::new();
        open.admitter.raise_horizon(horizon, &mut writes);
        self.maintain(now, writes);
    }

    /// Sets aside what a replica has forgotten, where it is still held so: nobody can say whether it was
    /// deleted since. `false` if the store failed.
    pub(crate) fn set_aside_forgotten(&mut self, now: u64, keys: &[(Key, Version)]) -> bool {
        let Some(open) = &mut self.open else {
            return false;
        };
        let view = open.admitter.view(now);
        let mut scratch = String::new();
        let mut writes = Vec::new();
        for (key, version) in keys {
            let record = match open.store.get(key) {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                Err(error) => {
                    self.fail(now, &error);
                    return false;
                }
            };
            if view.newest(key, &record, &mut scratch) != *version {
                continue;
            }
            let kept = KeptChange::of_record(key, &record);
            writes.push(Write::ForgetLatest { key });
            writes.push(Write::Row {
                table: Table::Quarantine,
                key: kept.row_key(),
                value: Some(kept.encode()),
            });
        }
        if writes.is_empty() {
            return true;
        }
        open.admitter.begin();
        for write in &writes {
            if let Write::ForgetLatest { key } = write {
                open.admitter.learn(key, None);
            }
        }
        let count = writes.len() as u64 / 2;
        self.counters.quarantined.fetch_add(count, Relaxed);
        self.maintain(now, writes)
    }
}

/// Whether what is remembered of a replica is too old. It may be old, but never too new; and what counts is
/// of the stores beside it. So a row a minute is enough, and one for each change of its stores.
fn is_to_keep(before: &Member, now: &Member) -> bool {
    let margin = convert::ntp64_span(MARGIN);
    let minutes = |member: &Member| (member.seen / margin, member.in_step / margin);
    let runs = |member: &Member| -> Vec<_> {
        let stores = member.stores.iter();
        stores.map(|store| (store.id, store.run)).collect()
    };
    minutes(before) != minutes(now) || runs(before) != runs(now)
}
