//! A shard whose conflicts a policy resolves (S13): the same steps as a router's shard takes.

use weir_core::{
    change::{Admission, Change, KeptChange, Table, Write},
    mirror::{State as Held, answer::Admit},
    resolution::{Contender, Interrupted, Resolution, Resolve},
    resolving::{Keys, LaterWins, Resolver, Theirs},
};

use super::{super::model::Op, Shard};
use crate::{Error, ErrorKind, Result};

/// Who resolves, where a policy is bound ([`weir_core::admission::Rules::resolves`]).
#[derive(Default)]
pub enum Seat {
    /// The policy is absent: the native rule.
    #[default]
    Absent,
    /// It is not there yet: what needs an answer waits.
    Loading,
    /// A revision of it.
    Serves(u64, Box<dyn Resolve>),
}

/// Gives no answer.
struct Nobody;

impl Resolve for Nobody {
    fn resolve(
        &mut self,
        _: &str,
        _: Contender<'_>,
        _: Contender<'_>,
    ) -> std::result::Result<Resolution, Interrupted> {
        Err(Interrupted("the policy is not there yet".into()))
    }
}

impl Seat {
    /// The revision that serves; 0 for none.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        match self {
            Self::Absent | Self::Loading => 0,
            Self::Serves(revision, _) => *revision,
        }
    }

    const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl Shard {
    /// Lets this resolve from now on.
    pub fn seat(&mut self, seat: Seat) {
        self.seat = seat;
    }

    /// Decides a stamped change of a key and commits it; it is parked if it has to wait for an answer.
    pub(super) fn offer_resolving(&mut self, change: &Change, released: bool) -> Result<Admission> {
        if self.seat.is_absent() {
            // By heads alone, as if no policy were bound.
            return self.offer_native(change, released);
        }
        let now = self.now;
        let keys = self.keys_of(std::iter::once(change))?;
        let row = KeptChange::Key(change.clone()).row_key();
        self.judge(keys, |admitter, keys, resolver, rows| {
            match admitter.admit_resolving(now, change, released, keys, resolver, rows) {
                Ok(admission) => {
                    if released {
                        rows.push(forget_parked(row));
                    }
                    admission
                }
                Err(Interrupted(_)) => admitter.park(change, rows),
            }
        })
    }

    /// Decides what a mirror holds in one batch; what could not be asked about is not taken, and `false`
    /// is answered with what was.
    pub(super) fn take_resolving(&mut self, admit: &Admit) -> Result<(Vec<Admission>, bool)> {
        let now = self.now;
        let mut keys = Keys::default();
        for Held { key, .. } in &admit.states {
            if keys.must_read(key) {
                keys.learn(key.clone(), self.store.get(key)?);
            }
        }
        let revision = admit.revision;
        let (admissions, is_whole, apart) =
            self.judge(keys, |admitter, keys, resolver, rows| {
                let mut admissions = Vec::with_capacity(admit.states.len());
                let (mut is_whole, mut apart) = (true, 0);
                for Held { key, record } in &admit.states {
                    let record = record.clone();
                    let theirs = Theirs { record, revision };
                    match admitter.admit_record(now, key, theirs, keys, resolver, rows) {
                        Ok((admission, is_apart)) => {
                            admissions.push(admission);
                            apart += u64::from(is_apart);
                        }
                        Err(Interrupted(_)) => is_whole = false,
                    }
                }
                (admissions, is_whole, apart)
            })?;
        self.apart += apart;
        Ok((admissions, is_whole))
    }

    fn offer_native(&mut self, change: &Change, released: bool) -> Result<Admission> {
        self.admitter.begin();
        if self.admitter.must_read(change) {
            let head = self.store.heads(&[&change.key])?.pop().flatten();
            self.admitter.learn(&change.key, head);
        }
        let mut writes = Vec::new();
        let admission = self.admitter.admit(self.now, change, released, &mut writes);
        if released {
            let row = KeptChange::Key(change.clone()).row_key();
            writes.push(forget_parked(row));
        }
        self.commit(writes)?;
        Ok(admission)
    }

    fn keys_of<'c>(&self, changes: impl Iterator<Item = &'c Change>) -> Result<Keys> {
        let mut keys = Keys::default();
        for change in changes {
            keys.learn(change.key.clone(), self.store.get(&change.key)?);
        }
        Ok(keys)
    }

    fn judge<T>(
        &mut self,
        mut keys: Keys,
        judge: impl FnOnce(
            &mut weir_core::admission::Admitter,
            &mut Keys,
            &mut Resolver<'_>,
            &mut Vec<Write<'static>>,
        ) -> T,
    ) -> Result<T> {
        let (mut native, mut nobody) = (LaterWins, Nobody);
        let revision = self.seat.revision();
        let resolve: &mut dyn Resolve = match &mut self.seat {
            // Only for what replicas hold.
            Seat::Absent => &mut native,
            Seat::Loading => &mut nobody,
            Seat::Serves(_, policy) => &mut **policy,
        };
        let mut resolver = Resolver { revision, resolve };
        self.admitter.begin();
        let mut rows = Vec::new();
        let judged = judge(&mut self.admitter, &mut keys, &mut resolver, &mut rows);
        let mut writes: Vec<Write<'_>> = rows;
        keys.write(&mut writes);
        self.commit(writes)?;
        Ok(judged)
    }

    /// Applies what was parked, is due now and can be answered.
    pub(super) fn release_resolving(&mut self) -> Result<Vec<Op>> {
        let mut released = Vec::new();
        for (row, bytes) in self.store.rows(Table::Parked, &[], usize::MAX)? {
            let kept = KeptChange::decode(&bytes.into());
            let kept =
                kept.ok_or_else(|| Error::new(ErrorKind::Corrupt, "a parked row is no change"))?;
            let op = match kept {
                KeptChange::Key(change) => Op::Key(change),
                KeptChange::Wildcard(change) => Op::Wildcard(change),
            };
            let time = super::super::model::stamp_of(&op).unwrap_or_default().time;
            if time > self.now.saturating_add(self.rules.drift) {
                break;
            }
            match &op {
                Op::Key(change) => _ = self.offer_resolving(change, true)?,
                Op::Wildcard(change) => {
                    let mut writes = vec![forget_parked(row)];
                    self.admitter.begin();
                    self.admitter
                        .admit_wildcard(self.now, change.clone(), true, &mut writes);
                    self.commit(writes)?;
                }
                Op::Nothing => {}
            }
            released.push(op);
        }
        Ok(released)
    }
}

fn forget_parked(key: Vec<u8>) -> Write<'static> {
    let table = Table::Parked;
    Write::Row {
        table,
        key,
        value: None,
    }
}
