//! What lies aside until its time: changes from the future, and those that wait for their policy.

use std::sync::atomic::Ordering::Relaxed;

use weir_backend_api::ErrorKind;
use weir_core::{
    admission::Rules,
    change::{KeptChange, Table, Write},
    version::Stamp,
};

use super::{Shard, resolving::INTERRUPTED_MAX};
use crate::storage::offer::Offer;

/// How many parked changes are looked at in one go when some are due.
const DUE_MAX: usize = 1_024;

impl Shard {
    /// Applies parked changes that are due. `true` if there may be more.
    pub(super) fn release_due(&mut self, now: u64) -> bool {
        let Some(open) = &self.open else { return false };
        let rows = match open.store.rows(Table::Parked, &[], DUE_MAX) {
            Ok(rows) => rows,
            Err(error) => {
                self.fail(now, &error);
                return false;
            }
        };
        let full = rows.len() == DUE_MAX;
        let (mut asking, mut interrupted) = (self.asking, 0);
        for (key, value) in rows {
            let is_due = Stamp::from_bytes(key.get(..Stamp::LEN).unwrap_or_default())
                .is_some_and(|stamp| due_at(stamp, &self.plan.rules) <= now);
            if !is_due {
                self.find_due();
                return false;
            }
            let forget = [Write::Row {
                table: Table::Parked,
                key,
                value: None,
            }];
            let Some(op) = KeptChange::decode(&value.clone().into()) else {
                // Nothing that this version can apply: kept where somebody can look at it.
                let Write::Row { key, .. } = &forget[0] else {
                    continue;
                };
                let keep = Write::Row {
                    table: Table::Quarantine,
                    key: key.clone(),
                    value: Some(value),
                };
                self.counters.quarantined.fetch_add(1, Relaxed);
                let [forget] = forget;
                if !self.maintain(now, vec![keep, forget]) {
                    return false;
                }
                continue;
            };
            let mut offer = Offer::silent(op);
            let result = match offer.op {
                KeptChange::Key(_) => {
                    self.commit_keys(now, std::slice::from_mut(&mut offer), true, &forget)
                }
                KeptChange::Wildcard(_) => self.commit_wildcard(now, &mut offer, true, &forget),
            };
            let result = match result {
                Err(error) if error.kind() == ErrorKind::Rejected => {
                    self.quarantine_unstorable(&mut offer, &error, &forget)
                }
                result => result,
            };
            if let Err(error) = result {
                self.fail(now, &error);
                return false;
            }
            if self.asking != asking && !self.asking.is_up() {
                interrupted += 1;
                if interrupted == INTERRUPTED_MAX {
                    // The others would wait no less.
                    break;
                }
            }
            asking = self.asking;
        }
        self.find_due();
        full
    }

    /// Finds when the first parked change is due.
    pub(super) fn find_due(&mut self) {
        let Some(open) = &self.open else { return };
        let first = open
            .store
            .rows(Table::Parked, &[], 1)
            .ok()
            .and_then(|rows| rows.into_iter().next());
        self.due = first
            .and_then(|(key, _)| Stamp::from_bytes(key.get(..Stamp::LEN)?))
            // What waits for the resolver lies there too, and is due since it came.
            .map(|stamp| due_at(stamp, &self.plan.rules).max(self.asking.deadline().unwrap_or(0)));
    }
}

/// When a parked change may be applied: when it is no further ahead than any change may be.
pub(super) fn due_at(stamp: Stamp, rules: &Rules) -> u64 {
    stamp.time.saturating_sub(rules.drift)
}
