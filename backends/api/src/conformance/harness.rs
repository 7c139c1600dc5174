//! The smallest complete driver of a shard: an admitter over a store, every step one batch.
//!
//! It does what a router's shard does, in the same order, on one thread: read the heads that
//! admission asks for, decide, seal, commit, and take back on failure. It panics on nothing that a
//! store may answer.

mod resolving;

use std::sync::Arc;

use bytes::Bytes;
use weir_core::{
    admission::{Admitter, History, Rules},
    change::{Admission, Change, KeptChange, Table, WildcardChange, Write},
    collection::{self, Collect},
    identity::{Fate, Identity},
    key::{Key, KeyRange},
    keyexpr::keyexpr,
    keyspace::KeySpace,
    membership::{Member, Members},
    mirror::{State as Held, answer::Admit},
    pattern::KeySet,
    record::Record,
    version::Version,
    view::Live,
};

use super::model::{Op, State, covers};
use crate::{
    Direction, Durability, Error, ErrorKind, Ledger, Result, Store, recover,
    replica::{Reading, Scope, Source, StoreReplica},
};

pub use resolving::Seat;

/// Rows that are folded, collected or released in one batch: small, so that tests need several.
const BATCH_ROWS: usize = 3;
/// How late a change may be without holding up collections (NTP64): 15 s.
const MARGIN: u64 = 15 << 32;

/// An admitter over a store.
pub struct Shard {
    seat: Seat,
    /// States of replicas that were kept apart from what is held.
    pub apart: u64,
    store: Arc<Box<dyn Store>>,
    admitter: Admitter,
    ledger: Arc<Ledger>,
    members: Members,
    /// The run that it has begun, if it has.
    own: Vec<Identity>,
    rules: Rules,
    /// The time that changes are judged at (NTP64).
    pub now: u64,
    /// What became of the batch offered last, whether or not it could be committed; empty if it was
    /// not decided.
    pub decided: Vec<Admission>,
}

/// A maintenance write that outlives the read it came from.
enum Kept {
    Fold(Key, Record),
    Forget(Key),
}

impl Shard {
    /// A shard that continues where the store was left.
    ///
    /// # Errors
    /// Any of the store.
    pub fn new(store: Box<dyn Store>, rules: Rules, now: u64) -> Result<Self> {
        let memory = recover::memory(&*store)?;
        let ledger = ledger(&*store, &rules)?;
        let members = recover::members(&*store, MARGIN, now)?;
        let admitter = Admitter::new(rules.clone(), KeySpace::default(), memory);
        Ok(Self {
            seat: Seat::default(),
            apart: 0,
            store: Arc::new(store),
            admitter,
            ledger,
            members,
            own: Vec::new(),
            rules,
            now,
            decided: Vec::new(),
        })
    }

    /// The store, as it was left; what the admitter knew is gone.
    ///
    /// # Panics
    /// If a replica of it is still there.
    #[must_use]
    pub fn into_store(self) -> Box<dyn Store> {
        let store = Arc::try_unwrap(self.store);
        store.unwrap_or_else(|_| panic!("a replica still reads the store"))
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &**self.store
    }

    /// The shard, whose keys are `ours`, as a mirror sees it whose keys are `theirs`.
    #[must_use]
    pub fn replica(&self, ours: &KeySet, theirs: &KeySet) -> StoreReplica {
        let space = KeySpace::default();
        let scope = Scope::of(ours, &space, theirs);
        let series = self.rules.history == History::All;
        let source = Fixed(Reading {
            store: Arc::clone(&self.store),
            view: self.admitter.view(self.now),
            ledger: Arc::clone(&self.ledger),
        });
        StoreReplica::new(
            vec![Arc::new(source)],
            space,
            scope,
            series,
            self.seat.revision(),
            self.now,
        )
    }

    /// Sets aside what a replica has forgotten; answers how many were still held so.
    ///
    /// # Errors
    /// Any of the store.
    pub fn set_aside(&mut self, forgotten: &[(Key, Version)]) -> Result<u64> {
        let view = self.admitter.view(self.now);
        let mut scratch = String::new();
        let mut writes = Vec::new();
        for (key, version) in forgotten {
            let Some(record) = self.store.get(key)? else {
                continue;
            };
            if view.newest(key, &record, &mut scratch) == *version {
                let kept = KeptChange::of_record(key, &record);
                writes.push(Write::ForgetLatest { key });
                writes.push(Write::Row {
                    table: Table::Quarantine,
                    key: kept.row_key(),
                    value: Some(kept.encode()),
                });
            }
        }
        let count = writes.len() as u64 / 2;
        self.admitter.begin();
        self.commit(writes)?;
        // Some may be held otherwise.
        for (key, _) in forgotten {
            let head = self.store.heads(&[key])?.pop().flatten();
            self.admitter.learn(key, head);
        }
        Ok(count)
    }

    /// Judges with care from now on what lies below this.
    ///
    /// # Errors
    /// Any of the store.
    pub fn adopt(&mut self, horizon: Version) -> Result<()> {
        if horizon <= self.admitter.horizon() {
            return Ok(());
        }
        self.admitter.begin();
        let mut writes = Vec::new();
        self.admitter.raise_horizon(horizon, &mut writes);
        self.commit(writes)
    }

    /// Takes what a mirror holds, in one batch for each wildcard operation and one for all records. May
    /// fail at any of them and be given the same again.
    ///
    /// # Errors
    /// Any of the store; [`ErrorKind::Unavailable`] if a policy gave no answer about one of the records,
    /// and the others are taken.
    pub fn take(&mut self, admit: &Admit) -> Result<Vec<Admission>> {
        let mut admissions = Vec::new();
        for op in &admit.ops {
            let change = WildcardChange {
                expr: op.expr.clone(),
                stamp: Some(op.version.stamp),
                value: op.value.clone(),
            };
            admissions.extend(self.offer(&mut vec![Op::Wildcard(change)])?);
        }
        if self.rules.resolves {
            let (taken, is_whole) = self.take_resolving(admit)?;
            if !is_whole {
                return Err(Error::new(ErrorKind::Unavailable, "no answer"));
            }
            admissions.extend(taken);
            return Ok(admissions);
        }
        let keys: Vec<&Key> = admit.states.iter().map(|state| &state.key).collect();
        self.admitter.begin();
        let unread = keys
            .into_iter()
            .filter(|key| self.admitter.must_read_record(key));
        let unread: Vec<&Key> = unread.collect();
        for (key, head) in unread.iter().zip(self.store.heads(&unread)?) {
            self.admitter.learn(key, head);
        }
        let mut writes = Vec::new();
        for Held { key, record } in &admit.states {
            let horizon = admit.horizon;
            admissions.push(self.admitter.admit_replica(
                self.now,
                key,
                record,
                horizon,
                &mut writes,
            ));
        }
        self.commit(writes)?;
        Ok(admissions)
    }

    /// Begins another run of the store, as a router does that opens it to write to it; `chance` makes
    /// what is drawn.
    ///
    /// # Errors
    /// Any of the store.
    pub fn begin_run(&mut self, chance: u128) -> Result<Identity> {
        let run = recover::begin_run(&**self.store, chance)?;
        self.own = vec![run];
        Ok(run)
    }

    /// Forgets what is known of a replica: this one itself, whose store was another's.
    pub fn leave_out(&mut self, name: &str) {
        self.members.leave_out(name);
    }

    /// What is known of a replica.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.get(name)
    }

    /// A replica has told of its stores in answer to a question that was asked at `first`; answers what has become of them. Nothing of it is
    /// written before the next [`Shard::meet`]: after a restart what was known of older stores is known.
    pub fn told(&mut self, name: &str, stores: &[Identity], first: u64) -> Option<Fate> {
        let times = (first, self.now);
        self.members.told(name, stores, &self.own, times)
    }

    /// A replica has told of its stores in a question; answers whether what is found out by it counts.
    pub fn asked(&mut self, name: &str, stores: &[Identity]) -> bool {
        self.members.asked(name, stores, &self.own, self.now)
    }

    /// There is a replica, and if a comparison with it found both equal, that began then.
    ///
    /// # Errors
    /// Any of the store.
    pub fn meet(&mut self, name: &str, in_step: Option<u64>) -> Result<()> {
        match in_step {
            None => self.members.seen(name, self.now),
            Some(at) => self.members.in_step(name, at),
        }
        if let Some(time) = self.admitter.take_deleted() {
            self.members.deleted(time, self.now);
        }
        let row = self.members.get(name).map(Member::encode);
        self.admitter.begin();
        self.commit(vec![Write::Row {
            table: Table::System,
            key: Member::row_key(name),
            value: row,
        }])
    }

    /// Before when every replica has everything.
    pub fn have_all_before(&mut self) -> u64 {
        if let Some(time) = self.admitter.take_deleted() {
            self.members.deleted(time, self.now);
        }
        self.members.have_all_before()
    }

    /// Writes what was counted again for comparisons.
    ///
    /// # Errors
    /// Any of the store.
    pub fn keep_ledger(&mut self) -> Result<()> {
        let rows = self.ledger.rows_to_write(true);
        let done = self.store.commit(&rows, Durability::Written);
        self.ledger.settle(done.is_ok());
        done.map(|_| ())
    }

    /// The judge.
    #[must_use]
    pub const fn admitter(&self) -> &Admitter {
        &self.admitter
    }

    /// Forgets everything that is not in the store, as a restart does.
    ///
    /// # Errors
    /// Any of the store.
    pub fn forget(&mut self) -> Result<()> {
        let memory = recover::memory(&**self.store)?;
        self.ledger = ledger(&**self.store, &self.rules)?;
        self.members = recover::members(&**self.store, MARGIN, self.now)?;
        self.admitter = Admitter::new(self.rules.clone(), KeySpace::default(), memory);
        Ok(())
    }

    /// Decides a batch and commits it. On an error nothing was decided; the same batch may be offered
    /// again, to this shard or, after a reopening, to the next.
    ///
    /// Whatever a delete without a stamp was found to mean is written into the batch, so that offering
    /// it again cannot make it mean something else: after a commit in doubt, a put behind it in the
    /// same batch may be held already. A wildcard delete without a stamp means one delete of each key
    /// that is held before the batch: offer it alone.
    ///
    /// # Errors
    /// Any of the store.
    pub fn offer(&mut self, batch: &mut Vec<Op>) -> Result<Vec<Admission>> {
        self.decided.clear();
        if self.rules.resolves
            && let [Op::Key(change)] = batch.as_slice()
        {
            return Ok(vec![self.offer_resolving(change, false)?]);
        }
        self.expand(batch)?;
        let mut writes = Vec::new();
        let mut admissions = Vec::new();
        self.admitter.begin();
        self.learn(batch)?;
        for op in batch.iter() {
            admissions.push(match op {
                Op::Key(change) => self.admitter.admit(self.now, change, false, &mut writes),
                Op::Wildcard(change) => {
                    let change = change.clone();
                    self.admitter
                        .admit_wildcard(self.now, change, false, &mut writes)
                }
                Op::Nothing => Admission::Nothing,
            });
        }
        let done = self.commit(writes);
        for (op, admission) in batch.iter_mut().zip(&admissions) {
            decide(op, *admission);
        }
        self.decided.clone_from(&admissions);
        done.map(|()| admissions)
    }

    /// Applies what was parked and is due now.
    ///
    /// # Errors
    /// Any of the store.
    pub fn release(&mut self) -> Result<Vec<Op>> {
        if self.rules.resolves {
            return self.release_resolving();
        }
        let mut released = Vec::new();
        loop {
            let due = self.due()?;
            if due.is_empty() {
                return Ok(released);
            }
            let (rows, ops): (Vec<Vec<u8>>, Vec<Op>) = due.into_iter().unzip();
            let mut writes = Vec::new();
            self.admitter.begin();
            self.learn(&ops)?;
            for (row, op) in rows.into_iter().zip(&ops) {
                match op {
                    Op::Key(change) => _ = self.admitter.admit(self.now, change, true, &mut writes),
                    Op::Wildcard(change) => {
                        let change = change.clone();
                        self.admitter
                            .admit_wildcard(self.now, change, true, &mut writes);
                    }
                    Op::Nothing => {}
                }
                writes.push(Write::Row {
                    table: Table::Parked,
                    key: row,
                    value: None,
                });
            }
            self.commit(writes)?;
            released.extend(ops);
        }
    }

    /// Folds what the journal says into every record, as the background job does.
    ///
    /// # Errors
    /// Any of the store.
    pub fn fold(&mut self) -> Result<()> {
        let view = self.admitter.view(self.now);
        let mut scratch = String::new();
        self.maintain(|key, record| {
            let folded = view.fold(key, record, &mut scratch);
            folded.map(|folded| Kept::Fold(key.clone(), folded))
        })
    }

    /// Collects tombstones and wildcard operations below `old` ([`collection`]). May fail at any
    /// write and be begun again.
    ///
    /// # Errors
    /// Any of the store.
    pub fn collect(&mut self, old: Version) -> Result<()> {
        let view = self.admitter.view(self.now);
        let mut scratch = String::new();
        let mut bound = None;
        for (key, record) in self.records()? {
            bound = bound.max(collection::bound_of(
                &view,
                &key,
                &record,
                old,
                &mut scratch,
            ));
        }
        let journal = view.journal.iter().map(|op| op.version);
        let Some(mut horizon) = bound.into_iter().chain(journal.filter(|v| *v < old)).max() else {
            return Ok(());
        };
        // What bounds is below the horizon itself.
        horizon.hash += 1;
        let mut writes = Vec::new();
        self.admitter.begin();
        self.admitter.raise_horizon(horizon, &mut writes);
        self.commit(writes)?;
        let horizon = self.admitter.horizon();
        let history = self.admitter.history();
        self.maintain(|key, record| {
            match collection::collect(&view, history, key, record, horizon, &mut scratch) {
                Collect::Keep => None,
                Collect::Forget => Some(Kept::Forget(key.clone())),
                Collect::Fold(folded) => Some(Kept::Fold(key.clone(), folded)),
            }
        })?;
        let mut oldest = None;
        for (key, record) in self.records()? {
            let version = view.effective(&key, record.head, &mut scratch);
            if version.is_delete() {
                let time = version.stamp.time;
                oldest = Some(oldest.map_or(time, |oldest: u64| oldest.min(time)));
            }
        }
        let mut writes = Vec::new();
        self.admitter.begin();
        self.admitter
            .finish_collection(Some(horizon), oldest, &mut writes);
        self.commit(writes)
    }

    /// What a query for everything would answer.
    ///
    /// # Errors
    /// Any of the store.
    pub fn state(&self) -> Result<State> {
        // The view before the snapshot, as every reader takes them.
        let view = self.admitter.view(self.now);
        let mut scratch = String::new();
        let mut state = State::new();
        for (key, record) in self.records()? {
            if let Some(Live { version, value }) = view.live(&key, record, &mut scratch) {
                state.insert(key.to_string(), (version, value));
            }
        }
        Ok(state)
    }

    /// Every latest record.
    ///
    /// # Errors
    /// Any of the store.
    pub fn records(&self) -> Result<Vec<(Key, Record)>> {
        let snapshot = self.store.snapshot()?;
        let rows = snapshot.latest(&KeyRange::all(), Direction::Forward);
        rows.collect()
    }

    /// Turns each wildcard delete without a stamp into one delete of each key that it covers.
    fn expand(&self, batch: &mut Vec<Op>) -> Result<()> {
        let unstamped = |op: &Op| matches!(op, Op::Wildcard(change) if change.stamp.is_none());
        while let Some(at) = batch.iter().position(unstamped) {
            let Op::Wildcard(change) = &batch[at] else {
                break;
            };
            let deletes = self.held(&change.expr)?.into_iter().map(|key| {
                Op::Key(Change {
                    key,
                    stamp: None,
                    value: None,
                })
            });
            batch.splice(at..=at, deletes);
        }
        Ok(())
    }

    fn held(&self, expr: &keyexpr) -> Result<Vec<Key>> {
        let keys = self.records()?.into_iter().map(|(key, _)| key);
        Ok(keys.filter(|key| covers(expr, key)).collect())
    }

    fn learn(&mut self, ops: &[Op]) -> Result<()> {
        let changes = ops.iter().filter_map(|op| match op {
            Op::Key(change) => Some(change),
            _ => None,
        });
        let keys: Vec<&Key> = changes
            .filter(|change| self.admitter.must_read(change))
            .map(|change| &change.key)
            .collect();
        for (key, head) in keys.iter().zip(self.store.heads(&keys)?) {
            self.admitter.learn(key, head);
        }
        Ok(())
    }

    fn commit(&mut self, mut writes: Vec<Write<'_>>) -> Result<()> {
        self.admitter.seal(&mut writes);
        self.ledger
            .note(&mut writes, self.admitter.newest_at_begin());
        let done = self.store.commit(&writes, Durability::Written);
        self.ledger.settle(done.is_ok());
        if done.is_err() {
            self.admitter.abort();
        }
        done.map(|_| ())
    }

    /// Rewrites records a few at a time.
    fn maintain(&mut self, mut rewrite: impl FnMut(&Key, &Record) -> Option<Kept>) -> Result<()> {
        let kept: Vec<Kept> = self
            .records()?
            .iter()
            .filter_map(|(key, record)| rewrite(key, record))
            .collect();
        for part in kept.chunks(BATCH_ROWS) {
            let writes = part.iter().map(|kept| match kept {
                Kept::Fold(key, record) => Write::Latest {
                    key,
                    record: record.as_ref(),
                },
                Kept::Forget(key) => Write::ForgetLatest { key },
            });
            self.admitter.begin();
            self.commit(writes.collect())?;
            for kept in part {
                match kept {
                    Kept::Fold(key, record) => self.admitter.learn(key, Some(record.head)),
                    Kept::Forget(key) => self.admitter.learn(key, None),
                }
            }
        }
        Ok(())
    }

    /// The first few parked changes that are due, with their rows.
    fn due(&self) -> Result<Vec<(Vec<u8>, Op)>> {
        let mut due = Vec::new();
        for (row, bytes) in self.store.rows(Table::Parked, &[], BATCH_ROWS)? {
            let op = match KeptChange::decode(&Bytes::from(bytes)) {
                Some(KeptChange::Key(change)) => Op::Key(change),
                Some(KeptChange::Wildcard(change)) => Op::Wildcard(change),
                None => return Err(Error::new(ErrorKind::Corrupt, "a parked row is no change")),
            };
            let time = super::model::stamp_of(&op).unwrap_or_default().time;
            if time > self.now.saturating_add(self.rules.drift) {
                break;
            }
            due.push((row, op));
        }
        Ok(due)
    }
}

/// What the tests' shards are told: a small cache, so that reads and rotations happen.
#[must_use]
pub const fn rules(history: History) -> Rules {
    Rules {
        history,
        drift: 100,
        age_max: None,
        cache_keys: 2,
        resolves: false,
    }
}

/// A shard at one moment. Nobody writes to it while it is compared.
struct Fixed(Reading);

impl Source for Fixed {
    fn reading(&self) -> Option<Reading> {
        Some(self.0.clone())
    }
}

fn ledger(store: &dyn Store, rules: &Rules) -> Result<Arc<Ledger>> {
    let series = rules.history == History::All;
    Ledger::open(store, KeySpace::default(), series).map(Arc::new)
}

/// Writes what a delete without a stamp was found to mean into it.
fn decide(op: &mut Op, admission: Admission) {
    let Op::Key(change) = op else { return };
    if change.stamp.is_some() || change.value.is_some() {
        return;
    }
    match admission.version() {
        Some(version) => change.stamp = Some(version.stamp),
        None => *op = Op::Nothing,
    }
}
