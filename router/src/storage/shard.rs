//! One shard of a storage: a store, the judge of its changes, and what helps them over failures.
//!
//! Owned by the storage's task; readers share a [`Reader`]. Changes go through [`Shard::offer`]:
//! into the store if it is up and nothing waits before them, else into the spool. When the store is
//! back, the spool goes first. If neither store nor spool can take a batch it stays in the task's
//! hands, the queue fills, and the publishers feel it: nothing that was accepted is lost (S6).

mod commit;
mod job;
mod members;
mod parked;
mod resolving;
mod run;
mod waiting;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use parking_lot::RwLock;
use weir_backend_api::{
    Durability, Error, ErrorKind, Ledger, Store, StoreSpec, Volume, recover,
    replica::{Reading, Source},
};
use weir_core::{
    admission::{Admitter, History, Rules},
    change::{Admission, Change, KeptChange, Rejection, Table, Write},
    health::{Cure, Health},
    identity::Identity,
    key::{Key, KeyRange},
    keyspace::KeySpace,
    membership::Members,
    view::View,
};

use self::{
    commit::{commit, keep_meaning, write},
    parked::due_at,
};
pub(crate) use self::{
    job::Job,
    members::{Learnt, News, Told},
    resolving::{ResolverSlot, Resolving},
};
use super::{
    counters::Counters,
    offer::{Offer, Outcome},
    spool::{Mark, Spool},
};

/// What a shard is made of; enough to open it again.
#[derive(Clone)]
pub(crate) struct Plan {
    /// What opens the store.
    pub volume: Arc<dyn Volume>,
    /// Where it is.
    pub spec: StoreSpec,
    /// How changes are judged.
    pub rules: Rules,
    /// The storage's prefix.
    pub space: KeySpace,
    /// How durable a change is before it counts as stored.
    pub durability: Durability,
    /// Where changes wait while the store cannot take them, and how many bytes of them.
    pub spool: (PathBuf, u64),
    /// What resolves its conflicts, if a policy is bound to that ([`Rules::resolves`]), there or not.
    pub resolver: Option<Arc<dyn ResolverSlot>>,
    /// What mirrors call its storage: `ROUTER/STORAGE`.
    pub address: String,
}

/// A shard, in the hands of its storage's task.
pub(crate) struct Shard {
    plan: Plan,
    open: Option<Open>,
    health: Health,
    spool: Spool,
    /// How far the spool has been replayed into the store.
    replayed: Option<Mark>,
    /// Changes that neither the store nor the spool could take.
    held: Vec<Offer>,
    /// When the next parked change is due (NTP64).
    due: Option<u64>,
    /// Whether the resolver can be asked, and when those that wait for it are asked again.
    asking: Health,
    counters: Arc<Counters>,
    reader: Arc<SharedReader>,
    /// The storage's other replicas.
    members: Members,
    /// Wildcard operations whose effect is still to be folded into the records.
    pub jobs: Vec<Job>,
}

struct Open {
    store: Arc<Box<dyn Store>>,
    admitter: Admitter,
    ledger: Arc<Ledger>,
    /// The run that was begun with it; `None` if nothing can be written to it.
    run: Option<Identity>,
}

/// What readers share with the task: the store and how to see it. `None` while it is not open.
#[derive(Default)]
pub(crate) struct SharedReader(RwLock<Option<Reader>>);

/// A store and the view under which to read it.
#[derive(Clone)]
pub(crate) struct Reader {
    /// The store.
    pub store: Arc<Box<dyn Store>>,
    /// How to see its records; take it before a snapshot.
    pub view: View,
    /// What the store knows it has.
    pub ledger: Arc<Ledger>,
    /// How old a version may be (NTP64).
    pub age_max: Option<u64>,
}

impl SharedReader {
    /// The store and how to see it, now.
    pub(crate) fn get(&self) -> Option<Reader> {
        self.0.read().clone()
    }
}

impl Source for SharedReader {
    fn reading(&self) -> Option<Reading> {
        let open = self.get()?;
        Some(Reading {
            store: open.store,
            view: open.view,
            ledger: open.ledger,
        })
    }
}

impl Plan {
    /// Removes a shard that is closed, for good: what its store holds, and what waits for it. A storage
    /// of the same name must not be given that.
    ///
    /// # Errors
    /// Any; then not all of it is removed.
    pub(crate) fn destroy(mut self) -> Result<(), Error> {
        self.spec.destroy_on_close = true;
        self.volume.open(&self.spec)?.close()?;
        Spool::remove(&self.spool.0).map_err(|error| {
            let message = format!("cannot remove the spool in {}", self.spool.0.display());
            Error::new(ErrorKind::Unavailable, message).because(error)
        })
    }
}

impl Shard {
    /// A shard that opens its store at once if it can, and later if it cannot.
    pub(crate) fn new(plan: Plan, counters: Arc<Counters>, now: u64) -> std::io::Result<Self> {
        let spool = Spool::open(&plan.spool.0, plan.spool.1)?;
        let mut shard = Self {
            plan,
            open: None,
            health: Health::Up,
            spool,
            replayed: None,
            held: Vec::new(),
            due: None,
            asking: Health::Up,
            counters,
            reader: Arc::default(),
            members: Members::new([], 0, now),
            jobs: Vec::new(),
        };
        shard.reopen(now);
        Ok(shard)
    }

    /// What readers need.
    pub(crate) fn reader(&self) -> Arc<SharedReader> {
        Arc::clone(&self.reader)
    }

    /// Decides a batch and empties it. Only what could be kept nowhere stays in the shard's hands.
    pub(crate) fn offer(&mut self, now: u64, batch: &mut Vec<Offer>) {
        if !self.held.is_empty() || !self.spool.is_empty() || !self.health.is_up() {
            self.catch_up(now);
        }
        if batch.is_empty() {
            return;
        }
        if self.held.is_empty() && self.spool.is_empty() && self.health.is_up() {
            self.store(now, batch, &[]);
        }
        if !batch.is_empty() {
            self.set_aside(now, batch);
        }
    }

    /// Does what is due: the next try of a store that failed, parked changes. `true` if there is more
    /// to do at once.
    pub(crate) fn tick(&mut self, now: u64) -> bool {
        self.catch_up(now);
        if self.health.is_up() && self.due.is_some_and(|due| due <= now) {
            return self.release_due(now);
        }
        false
    }

    /// When [`Shard::tick`] has something to do (NTP64).
    pub(crate) fn deadline(&self) -> Option<u64> {
        match self.health.deadline() {
            Some(until) => Some(until),
            // What a restart has found in the spool waits for nothing but a look.
            None if !self.is_current() => Some(0),
            None => self.due,
        }
    }

    /// Whether changes are in its hands that could be kept nowhere: no more should be taken.
    pub(crate) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether the store is up and nothing waits to get into it.
    pub(crate) fn is_current(&self) -> bool {
        self.health.is_up() && self.held.is_empty() && self.spool.is_empty()
    }

    /// How many changes wait in the spool, and their bytes.
    pub(crate) fn spooled(&self) -> (u64, u64) {
        (self.spool.changes(), self.spool.bytes())
    }

    /// The rules by which it judges.
    pub(crate) fn rules(&self) -> &Rules {
        &self.plan.rules
    }

    /// What resolves its conflicts, if a policy is bound to that.
    pub(crate) fn resolver(&self) -> Option<Arc<dyn ResolverSlot>> {
        self.plan.resolver.clone()
    }

    /// The storage's prefix.
    pub(crate) fn space(&self) -> &KeySpace {
        &self.plan.space
    }

    /// The store and the judge, while open.
    pub(crate) fn parts(&mut self) -> Option<(Arc<Box<dyn Store>>, &mut Admitter)> {
        let open = self.open.as_mut()?;
        Some((Arc::clone(&open.store), &mut open.admitter))
    }

    /// Commits writes that maintenance has made. An error is counted and rests the shard.
    pub(crate) fn maintain(&mut self, now: u64, mut writes: Vec<Write<'_>>) -> bool {
        let Some(open) = &self.open else { return false };
        let ledger = Arc::clone(&open.ledger);
        ledger.note(&mut writes, open.admitter.newest());
        let done = open.store.commit(&writes, self.plan.durability);
        if done.is_ok() {
            // Whoever compares from now on must see what the ledger counts as committed.
            self.publish(now);
        }
        ledger.settle(done.is_ok());
        if let Err(error) = &done {
            self.fail(now, error);
        }
        done.is_ok()
    }

    /// Writes what has been counted again for comparisons, so that it need not be after a restart;
    /// `last` says that the store is about to be closed.
    pub(crate) fn keep_ledger(&mut self, now: u64, last: bool) {
        let Some(open) = &self.open else { return };
        if self.plan.spec.read_only || !self.health.is_up() {
            return;
        }
        let rows = open.ledger.rows_to_write(last);
        if rows.is_empty() {
            return;
        }
        let done = open.store.commit(&rows, self.plan.durability);
        open.ledger.settle(done.is_ok());
        if let Err(error) = done {
            self.fail(now, &error);
        }
    }

    /// Notes that the store failed: it rests, and is opened again if need be.
    pub(crate) fn fail(&mut self, now: u64, error: &Error) {
        let cure = match error.kind() {
            ErrorKind::Poisoned | ErrorKind::Closed | ErrorKind::Corrupt => Cure::Reopen,
            ErrorKind::Unavailable | ErrorKind::Full | ErrorKind::Rejected => Cure::Retry,
        };
        let first = self.health.is_up();
        self.counters
            .failed(format!("{}: {error}", self.plan.spec.name));
        self.health.failed(now, cure, jitter(now));
        if cure == Cure::Reopen {
            // Nobody reads on from a store of which nobody knows what it holds.
            self.open = None;
            *self.reader.0.write() = None;
        } else if let Some(open) = &mut self.open {
            open.admitter.abort();
        }
        if first {
            tracing::warn!(store = self.plan.spec.name, %error, "the store failed; changes are spooled");
        }
    }

    /// Opens the store, and remembers what the judge knew.
    fn reopen(&mut self, now: u64) -> bool {
        self.open = None;
        *self.reader.0.write() = None;
        match self.try_open(now) {
            Ok(open) => {
                self.open = Some(open);
                self.health.recovered();
                self.find_due();
                self.publish(now);
                true
            }
            Err(error) => {
                let first = self.health.is_up();
                self.counters
                    .failed(format!("{}: {error}", self.plan.spec.name));
                self.health.failed(now, Cure::Reopen, jitter(now));
                if first {
                    tracing::error!(store = self.plan.spec.name, %error, "the store cannot be opened");
                }
                false
            }
        }
    }

    fn try_open(&mut self, now: u64) -> Result<Open, Error> {
        let store: Arc<Box<dyn Store>> = Arc::new(self.plan.volume.open(&self.plan.spec)?);
        let run = self.begin_run(&**store)?;
        let memory = recover::memory(&**store)?;
        let margin = crate::convert::ntp64_span(members::MARGIN);
        self.members = recover::members(&**store, margin, now)?;
        // Where the store was another's, we are one of its mirrors.
        self.members.leave_out(&self.plan.address);
        self.jobs.clear();
        if !memory.journal.is_empty() && !self.plan.rules.resolves {
            // A fold that a crash cut short is begun again; one that was finished finds nothing to do.
            self.jobs.push(Job::Fold(KeyRange::all()));
        }
        self.replayed = waiting::replayed(&**store)?;
        for (row, value) in store.rows(Table::Jobs, &[], usize::MAX)? {
            if let Some(job) = Job::decode(row, value) {
                self.jobs.push(job);
            }
        }
        let admitter = Admitter::new(self.plan.rules.clone(), self.plan.space.clone(), memory);
        let series = self.plan.rules.history == History::All;
        let ledger = Ledger::open(&**store, self.plan.space.clone(), series)?;
        Ok(Open {
            store,
            admitter,
            ledger: Arc::new(ledger),
            run,
        })
    }

    /// Commits as much of the batch as the store takes, in order, and removes it from the batch. What
    /// comes from the spool has `marks`, one for each change: each commit takes the last of its own.
    fn store(&mut self, now: u64, batch: &mut Vec<Offer>, marks: &[Mark]) {
        let (mut done, mut alone) = (0, 0usize);
        while done < batch.len() {
            let rest = &mut batch[done..];
            // What replicas hold is judged apart from changes: where conflicts are resolved, otherwise.
            let replicated = rest[0].replica.is_some();
            let alike = |offer: &&Offer| {
                matches!(offer.op, KeptChange::Key(_)) && offer.replica.is_some() == replicated
            };
            let count = match alone {
                0 => rest.iter().take_while(alike).count().max(1),
                _ => 1,
            };
            let mark = marks.get(done + count - 1);
            match self.store_together(now, &mut rest[..count], mark) {
                Ok(()) => {
                    done += count;
                    alone = alone.saturating_sub(1);
                    self.health.recovered();
                }
                Err(error) if error.kind() == ErrorKind::Rejected && count > 1 => {
                    // One of them can never be written. One by one, the others can.
                    if let Some(open) = &mut self.open {
                        open.admitter.abort();
                    }
                    alone = count;
                }
                Err(error) => {
                    self.fail(now, &error);
                    break;
                }
            }
        }
        batch.drain(..done);
    }

    /// Commits changes of keys, or one wildcard operation, as one batch with their mark. What can never
    /// be written is quarantined if it is alone.
    fn store_together(
        &mut self,
        now: u64,
        offers: &mut [Offer],
        mark: Option<&Mark>,
    ) -> Result<(), Error> {
        let also: Vec<_> = mark.map(Mark::row).into_iter().collect();
        let stored = match &mut *offers {
            [offer] if matches!(offer.op, KeptChange::Wildcard(_)) => {
                self.commit_wildcard(now, offer, false, &also)
            }
            keys => self.commit_keys(now, keys, false, &also),
        };
        match (stored, offers) {
            (Err(error), [offer]) if error.kind() == ErrorKind::Rejected => {
                self.quarantine_unstorable(offer, &error, &also)?;
            }
            (stored, _) => stored?,
        }
        if let Some(mark) = mark {
            self.replayed = Some(mark.clone());
        }
        Ok(())
    }

    /// Judges changes of keys and commits them as one batch, with `also`.
    fn commit_keys(
        &mut self,
        now: u64,
        offers: &mut [Offer],
        released: bool,
        also: &[Write<'static>],
    ) -> Result<(), Error> {
        match self.plan.resolver.as_ref().map(|slot| slot.resolving()) {
            None => {}
            Some(Resolving::Native) if offers.iter().all(|offer| offer.replica.is_none()) => {}
            Some(resolving) => {
                return self.commit_resolving(now, offers, released, also, resolving);
            }
        }
        let Some(open) = &mut self.open else {
            return Err(Error::new(ErrorKind::Closed, "the store is not open"));
        };
        open.admitter.begin();
        let must_read = |offer: &Offer, change: &Change| match offer.replica {
            None => open.admitter.must_read(change),
            Some(_) => open.admitter.must_read_record(&change.key),
        };
        let unread: Vec<&Key> = offers
            .iter()
            .filter_map(|offer| key_change(&offer.op).map(|change| (offer, change)))
            .filter(|(offer, change)| must_read(offer, change))
            .map(|(_, change)| &change.key)
            .collect();
        if !unread.is_empty() {
            let heads = open.store.heads(&unread)?;
            for (key, head) in unread.iter().zip(heads) {
                open.admitter.learn(key, head);
            }
        }
        let ties = open.admitter.ties();
        let mut durability = self.plan.durability;
        let mut writes = Vec::with_capacity(offers.len() + 2);
        let mut admissions = Vec::with_capacity(offers.len());
        for offer in offers.iter() {
            let Some(change) = key_change(&offer.op) else {
                continue;
            };
            if let Some(ack) = &offer.ack {
                durability = durability.max(ack.durability);
            }
            let admitter = &mut open.admitter;
            admissions.push(match &offer.replica {
                None => admitter.admit(now, change, released, &mut writes),
                Some(other) => {
                    let record = &other.theirs.record;
                    admitter.admit_replica(now, &change.key, record, other.horizon, &mut writes)
                }
            });
        }
        open.admitter.seal(&mut writes);
        writes.extend_from_slice(also);
        let reached = commit(open, writes, durability);
        let reached = match reached {
            Ok(reached) => reached,
            Err(error) => {
                keep_meaning(offers, admissions.iter());
                return Err(error);
            }
        };
        self.counters
            .ties
            .fetch_add(open.admitter.ties() - ties, Relaxed);
        self.counters.batches.fetch_add(1, Relaxed);
        let mut applied = 0;
        for (offer, admission) in offers.iter_mut().zip(&admissions) {
            match admission {
                // The usual case by far, counted by the batch.
                Admission::Applied(_) => applied += 1,
                other => self.counters.admitted(other),
            }
            if let Admission::Parked(version) = admission {
                let due = due_at(version.stamp, &self.plan.rules);
                self.due = Some(self.due.unwrap_or(u64::MAX).min(due));
            }
            offer.answer(|| Outcome::Decided(*admission, reached));
        }
        self.counters.applied.fetch_add(applied, Relaxed);
        Ok(())
    }

    /// Judges a wildcard operation and commits it, with `also`; leaves a job behind.
    fn commit_wildcard(
        &mut self,
        now: u64,
        offer: &mut Offer,
        released: bool,
        also: &[Write<'static>],
    ) -> Result<(), Error> {
        let KeptChange::Wildcard(change) = &offer.op else {
            return Ok(());
        };
        let Some(open) = &mut self.open else {
            return Err(Error::new(ErrorKind::Closed, "the store is not open"));
        };
        let Some(range) = self.plan.space.range(&change.expr) else {
            self.counters.rejected.fetch_add(1, Relaxed);
            offer.refuse(Rejection::NotMember);
            return Ok(());
        };
        let durability = offer.ack.as_ref().map_or(self.plan.durability, |ack| {
            ack.durability.max(self.plan.durability)
        });
        let mut writes = also.to_vec();
        open.admitter.begin();
        let (admission, job) = if change.stamp.is_none() && change.value.is_none() {
            let job = Job::expand(change.clone(), open.admitter.newest().stamp);
            writes.extend(job.row());
            (
                Admission::Applied(open.admitter.newest().tombstone()),
                Some(job),
            )
        } else {
            let admission =
                open.admitter
                    .admit_wildcard(now, change.clone(), released, &mut writes);
            let applied = matches!(admission, Admission::Applied(_));
            let folds = applied && !self.plan.rules.resolves;
            (admission, folds.then_some(Job::Fold(range)))
        };
        open.admitter.seal(&mut writes);
        let ledger = Arc::clone(&open.ledger);
        ledger.note(&mut writes, open.admitter.newest_at_begin());
        let reached = write(&**open.store, &writes, durability);
        if reached.is_ok() {
            // Whoever compares from now on must see what the ledger counts as committed.
            self.publish(now);
        }
        ledger.settle(reached.is_ok());
        let reached = reached?;
        self.jobs.extend(job);
        self.counters.admitted(&admission);
        if let Admission::Parked(version) = admission {
            let due = due_at(version.stamp, &self.plan.rules);
            self.due = Some(self.due.unwrap_or(u64::MAX).min(due));
        }
        offer.answer(|| Outcome::Decided(admission, reached));
        Ok(())
    }

    /// Lets readers see what the judge sees.
    pub(crate) fn publish(&mut self, now: u64) {
        let Some(open) = &self.open else { return };
        *self.reader.0.write() = Some(Reader {
            store: Arc::clone(&open.store),
            view: open.admitter.view(now),
            ledger: Arc::clone(&open.ledger),
            age_max: self.plan.rules.age_max,
        });
    }
}

fn key_change(op: &KeptChange) -> Option<&Change> {
    match op {
        KeptChange::Key(change) => Some(change),
        KeptChange::Wildcard(_) => None,
    }
}

/// Something in 0..=1<<32 that differs between shards that fail at once: the low bits of the time.
fn jitter(now: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&now.to_be_bytes()) >> 32
}
