//! What a shard knows of the storage's other replicas, and so what it may forget.

use weir_core::{
    change::{Table, Write},
    membership::Member,
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
}

impl Shard {
    /// Takes note of what was learnt of a replica; what must outlast a restart is committed.
    pub(crate) fn learn(&mut self, now: u64, name: &str, news: &News) {
        let before = self.members.get(name);
        match news {
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
        let margin = convert::ntp64_span(MARGIN);
        let is_old = before.is_none_or(|before| before.seen == 0)
            || member.in_step > self.members_written.saturating_add(margin)
            || member.seen > self.members_written.saturating_add(margin);
        if is_old {
            let row = Write::Row {
                table: Table::System,
                key: Member::row_key(name),
                value: Some(member.encode()),
            };
            if self.open.is_some() && self.maintain(now, vec![row]) {
                self.members_written = now;
            }
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
}
