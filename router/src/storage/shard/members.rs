//! What a shard knows of the storage's other replicas, and so what it may forget.

use std::sync::atomic::Ordering::Relaxed;

use weir_core::{
    change::{KeptChange, Table, Write},
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
    /// A comparison that began then (NTP64) found both equal.
    InStep(u64),
    /// Both are equal but for what the replica has forgotten, which is what is below this.
    Horizon(Version),
}

impl Shard {
    /// Takes note of what was learnt of a replica; what must outlast a restart is committed.
    pub(crate) fn learn(&mut self, now: u64, name: &str, news: &News) {
        let before = self.members.get(name);
        match news {
            News::Horizon(horizon) => return self.adopt(now, *horizon),
            News::Seen => self.members.seen(name, now),
            News::InStep(at) => {
                self.members.in_step(name, *at);
                self.hear_of_deletes(now);
            }
        }
        let Some(member) = self.members.get(name) else {
            return;
        };
        // What is remembered may be old, but never too new; a row a minute is enough.
        let minutes = |member: Member| {
            let margin = convert::ntp64_span(MARGIN);
            (member.seen / margin, member.in_step / margin)
        };
        if self.open.is_some() && before.map(minutes) != Some(minutes(member)) {
            let row = Write::Row {
                table: Table::System,
                key: Member::row_key(name),
                value: Some(member.encode()),
            };
            self.maintain(now, vec![row]);
        }
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
