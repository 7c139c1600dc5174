//! What a store could not take: it waits in the spool, or in the hands, until the store is back.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use weir_backend_api::{Durability, Error, ErrorKind, Store};
use weir_core::{
    change::{Table, Write},
    health::Cure,
};

use super::{Shard, jitter};
use crate::storage::{
    offer::{Offer, Outcome},
    spool::Mark,
};

impl Shard {
    /// If the store is due for a try, tries it; then empties the spool and the hands.
    pub(super) fn catch_up(&mut self, now: u64) {
        match self.health.may_try(now) {
            None => return,
            Some(Some(Cure::Reopen)) => {
                if !self.reopen(now) {
                    return;
                }
                tracing::info!(store = self.plan.spec.name, "the store is open again");
            }
            Some(Some(Cure::Retry)) | Some(None) => {}
        }
        while !self.spool.is_empty() {
            let (mut batch, marks): (Vec<_>, Vec<_>) =
                match self.spool.oldest(self.replayed.as_ref()) {
                    Ok(changes) => changes
                        .into_iter()
                        .map(|(op, mark)| (Offer::silent(op), mark))
                        .unzip(),
                    Err(error) => return self.rest_for_spool(now, &error),
                };
            self.store(now, &mut batch, &marks);
            if !batch.is_empty() {
                return;
            }
            if let Err(error) = self.spool.drop_oldest() {
                return self.rest_for_spool(now, &error);
            }
        }
        if !self.held.is_empty() {
            let mut held = std::mem::take(&mut self.held);
            self.store(now, &mut held, &[]);
            self.held = held;
        }
        if self.held.is_empty() && !self.health.is_up() {
            // It was up to this try, and there was nothing to try with: an empty batch tells whether
            // it takes any, which a full disk does not, and a sync whether the disk takes that.
            let result = self.open.as_ref().map(|open| {
                open.store.commit(&[], Durability::Memory)?;
                open.store.sync()
            });
            match result {
                Some(Err(error)) => self.fail(now, &error),
                Some(Ok(_)) | None => self.health.recovered(),
            }
        }
    }

    /// Keeps a batch that the store cannot take: in the spool, or in the hands.
    pub(super) fn set_aside(&mut self, now: u64, batch: &mut Vec<Offer>) {
        // Who asked for an answer gets one now and may try again; an answer later would be of no use.
        batch.retain_mut(|offer| {
            // A replica offers what it holds again by itself.
            let again = offer.ack.is_some() || offer.replica.is_some();
            offer.answer(|| Outcome::Failed(self.why_down()));
            !again
        });
        if batch.is_empty() {
            return;
        }
        if self.held.is_empty() {
            match self.spool.append(now, batch.iter().map(|offer| &offer.op)) {
                Ok(()) => {
                    self.counters.spooled.fetch_add(batch.len() as u64, Relaxed);
                    batch.clear();
                    return;
                }
                Err(error) => {
                    self.rest_for_spool(now, &error);
                }
            }
        }
        self.held.append(batch);
    }

    /// A change that the store can never hold is kept where somebody can look at it, in one batch with
    /// `also`.
    ///
    /// # Errors
    /// If that cannot be written now: the change is not done with, and comes again.
    pub(super) fn quarantine_unstorable(
        &mut self,
        offer: &mut Offer,
        error: &Error,
        also: &[Write<'static>],
    ) -> Result<(), Error> {
        let Some(open) = &mut self.open else {
            return Err(Error::new(ErrorKind::Closed, "the store is not open"));
        };
        open.admitter.abort();
        let mut writes = vec![Write::Row {
            table: Table::Quarantine,
            key: offer.op.row_key(),
            value: Some(offer.op.encode()),
        }];
        writes.extend_from_slice(also);
        match open.store.commit(&writes, self.plan.durability) {
            Ok(_) => {}
            Err(worse) if worse.kind() == ErrorKind::Rejected => {
                // It is too long for any row: nothing will ever keep it, and everything behind it would
                // wait for it for ever.
                tracing::error!(store = self.plan.spec.name, %error, %worse, "a change is lost");
                open.store.commit(also, self.plan.durability)?;
            }
            Err(worse) => return Err(worse),
        }
        self.counters.quarantined.fetch_add(1, Relaxed);
        self.counters
            .failed(format!("{}: {error}", self.plan.spec.name));
        offer.answer(|| Outcome::Failed(error.to_string()));
        Ok(())
    }

    /// Has what it holds in its hands stored now, or spooled if there is room again: there is no later
    /// in which to be tried. `true` if nothing is in its hands any more.
    pub(crate) fn try_last(&mut self, now: u64) -> bool {
        if self.held.is_empty() {
            return true;
        }
        self.health.cut_short(now);
        self.catch_up(now);
        if !self.held.is_empty() {
            match self
                .spool
                .append(now, self.held.iter().map(|offer| &offer.op))
            {
                Ok(()) => {
                    let count = self.held.len() as u64;
                    self.counters.spooled.fetch_add(count, Relaxed);
                    self.held.clear();
                }
                Err(error) => self.rest_for_spool(now, &error),
            }
        }
        self.held.is_empty()
    }

    /// Closes the store. What could be kept nowhere is told as an error and lost, and counted in the
    /// answer; it can only be there if both the store and the spool refused it until the end.
    pub(crate) fn close(mut self, now: u64) -> usize {
        if self.held.is_empty() {
            self.catch_up(now);
        } else {
            self.try_last(now);
        }
        self.keep_ledger(now, true);
        let lost = self.held.len();
        if lost > 0 {
            tracing::error!(
                store = self.plan.spec.name,
                lost,
                "closed while changes could be kept nowhere"
            );
        }
        *self.reader.0.write() = None;
        let Some(open) = self.open.take() else {
            return lost;
        };
        drop(open.admitter);
        // A query that still reads keeps the store open and closes it when it ends; what was promised
        // is on the disk already, but for this sync.
        let closed = match Arc::try_unwrap(open.store) {
            Ok(store) => store.close(),
            Err(shared) => shared.sync().map(drop),
        };
        if let Err(error) = closed {
            tracing::error!(store = self.plan.spec.name, %error, "the store did not close cleanly");
        }
        lost
    }

    fn why_down(&self) -> String {
        let last = self.counters.last_error.lock();
        last.as_ref().map_or_else(
            || format!("{}: the store is down", self.plan.spec.name),
            |error| format!("the store is down: {}", error.message),
        )
    }

    /// The spool failed. Nothing can be stored past it, so all of the shard rests.
    fn rest_for_spool(&mut self, now: u64, error: &std::io::Error) {
        self.health.failed(now, Cure::Retry, jitter(now));
        let dir = self.plan.spool.0.display();
        self.counters
            .failed(format!("{}: spool in {dir}: {error}", self.plan.spec.name));
        tracing::error!(store = self.plan.spec.name, %dir, %error, "the spool failed");
    }
}

/// How far the spool has been replayed into a store.
pub(super) fn replayed(store: &dyn Store) -> Result<Option<Mark>, Error> {
    let row = store.rows(Table::System, Mark::ROW, 1)?.pop();
    let Some((_, value)) = row.filter(|(key, _)| key == Mark::ROW) else {
        return Ok(None);
    };
    let broken = || Error::new(ErrorKind::Corrupt, "row `spool` is not a mark");
    Mark::decode(&value).map(Some).ok_or_else(broken)
}
