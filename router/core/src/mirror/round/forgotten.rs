//! What the peer has forgotten (S2).
//!
//! Who has collected tombstones up to its horizon cannot tell a value from below it that was deleted
//! since from one that never came: it sets such a value aside. A replica that missed the deleting, being
//! restored from an old backup or away for too long, would go on holding it. So what is below the peer's
//! horizon is sent like anything else, and what of it the peer still does not have when it is looked at
//! again is set aside here, too.

use super::Mirror;
use crate::{
    collection::newest_seen,
    mirror::{State, answer::Admit},
    version::Version,
};

/// Records of a round that are remembered to have been sent; others have to wait for the next.
const OLD_MAX: usize = 1 << 16;

impl Mirror {
    /// Takes out of what is to be sent what the peer was sent already in this round and did not take.
    pub(super) fn sift(&mut self, states: &mut Vec<State>) {
        let horizon = self.work.horizon;
        // Who takes nothing would not have heard of what the peer has in its place.
        if !self.work.from || horizon == Version::ZERO {
            return;
        }
        states.retain(|state| {
            let head = state.record.head;
            if head.own.max(newest_seen(&state.record)) >= horizon {
                return true;
            }
            let sent = (state.key.clone(), head.own);
            if !self.old.contains(&sent) {
                if self.old.len() < OLD_MAX {
                    self.old.insert(sent);
                }
                return true;
            }
            let seen = head.effective().max(newest_seen(&state.record));
            if head.effective().is_delete() {
                self.work.is_garbage = true;
            } else {
                self.work.forgotten.push((state.key.clone(), seen));
            }
            false
        });
    }

    /// What is to be set aside, as a batch.
    pub(super) fn set_aside(&mut self) -> Option<(u64, Admit)> {
        if self.work.forgotten.is_empty() {
            return None;
        }
        self.work.is_moved = true;
        self.next += 1;
        self.batches.insert(self.next, 0);
        let forgotten = std::mem::take(&mut self.work.forgotten);
        let admit = Admit {
            forgotten,
            ..Admit::default()
        };
        Some((self.next, admit))
    }
}
