//! Batches of a storage whose conflicts a policy resolves (S13): whole records are read, and what
//! knows nothing of each other is merged. What the policy could not be asked waits, durably, among
//! what is parked, and is asked again; nothing is decided in its place.

use std::sync::atomic::Ordering::Relaxed;

use weir_backend_api::{Error, ErrorKind};
use weir_core::{
    change::{Admission, Write},
    health::Cure,
    resolution::{Contender, Interrupted, Resolution, Resolve},
    resolving::{Keys, LaterWins, Resolver},
};

use super::{
    Shard,
    commit::{commit, keep_meaning},
    jitter, key_change,
    parked::due_at,
};
use crate::storage::offer::{Offer, Outcome};

/// Questions of one batch that may go unanswered before the rest waits unasked: each may have taken as
/// long as the host's guard lets it.
pub(super) const INTERRUPTED_MAX: u32 = 4;

/// Where a storage's resolver comes from. It is asked once for each batch, so that a new revision
/// takes effect between two (S14).
pub(crate) trait ResolverSlot: Send + Sync {
    /// Who resolves now.
    fn resolving(&self) -> Resolving;

    /// The revision of who resolves now; 0 for the native rule, and for nobody.
    fn revision(&self) -> u64 {
        match self.resolving() {
            Resolving::Policy(revision, _) => revision,
            Resolving::Native | Resolving::Wait => 0,
        }
    }
}

/// Who resolves.
pub(crate) enum Resolving {
    /// The native rule: there is no policy, or none that could be admitted. What it decides claims to
    /// have merged nothing, so that a policy that comes back can still merge what others have kept.
    Native,
    /// This policy, under its revision.
    Policy(u64, Box<dyn Resolve>),
    /// Nobody yet: what needs an answer waits.
    Wait,
}

/// What became of an offer.
enum Judged {
    Now(Admission),
    /// It waits for the policy, durably.
    Later(Admission),
    /// It waits where it came from.
    Never,
}

/// Asks for as long as answers come.
struct Patient<'r> {
    inner: Option<&'r mut dyn Resolve>,
    interrupted: u32,
}

impl Resolve for Patient<'_> {
    fn resolve(
        &mut self,
        key: &str,
        first: Contender<'_>,
        second: Contender<'_>,
    ) -> Result<Resolution, Interrupted> {
        let asked = match &mut self.inner {
            Some(inner) if self.interrupted < INTERRUPTED_MAX => inner.resolve(key, first, second),
            Some(_) => Err(Interrupted("it was interrupted too often".into())),
            None => Err(Interrupted("the policy is not there yet".into())),
        };
        self.interrupted += u32::from(asked.is_err());
        asked
    }
}

impl Shard {
    /// Judges changes of keys and commits them as one batch, with `also`. A released change that
    /// cannot be asked about stays where it is.
    pub(super) fn commit_resolving(
        &mut self,
        now: u64,
        offers: &mut [Offer],
        released: bool,
        also: &[Write<'static>],
        resolving: Resolving,
    ) -> Result<(), Error> {
        let Some(open) = &mut self.open else {
            return Err(Error::new(ErrorKind::Closed, "the store is not open"));
        };
        let (revision, mut policy) = match resolving {
            Resolving::Policy(revision, policy) => (revision, Some(policy)),
            // Only for what replicas hold: see `commit_keys`.
            Resolving::Native => (0, Some(Box::new(LaterWins) as Box<dyn Resolve>)),
            Resolving::Wait => (0, None),
        };
        let mut patient = Patient {
            inner: policy
                .as_mut()
                .map(|policy| &mut **policy as &mut dyn Resolve),
            interrupted: 0,
        };
        open.admitter.begin();
        let mut keys = Keys::default();
        for change in offers.iter().filter_map(|offer| key_change(&offer.op)) {
            if keys.must_read(&change.key) {
                keys.learn(change.key.clone(), open.store.get(&change.key)?);
            }
        }
        let ties = open.admitter.ties();
        let mut durability = self.plan.durability;
        let mut rows = Vec::new();
        let mut admissions = Vec::with_capacity(offers.len());
        let mut last_interruption = None;
        for offer in offers.iter() {
            let Some(change) = key_change(&offer.op) else {
                continue;
            };
            if let Some(ack) = &offer.ack {
                durability = durability.max(ack.durability);
            }
            let mut resolver = Resolver {
                revision,
                resolve: &mut patient,
            };
            let admitter = &mut open.admitter;
            let (keys, rows) = (&mut keys, &mut rows);
            let judged = match &offer.replica {
                None => admitter.admit_resolving(now, change, released, keys, &mut resolver, rows),
                Some(other) => {
                    let theirs = other.theirs.clone();
                    let (key, resolver) = (&change.key, &mut resolver);
                    let judged = admitter.admit_record(now, key, theirs, keys, resolver, rows);
                    judged.map(|(admission, apart)| {
                        self.counters.apart.fetch_add(u64::from(apart), Relaxed);
                        admission
                    })
                }
            };
            admissions.push(match judged {
                Ok(admission) => Judged::Now(admission),
                Err(interrupted) => {
                    last_interruption = Some(interrupted);
                    match &offer.replica {
                        None => Judged::Later(admitter.park(change, rows)),
                        // The replica keeps it, and offers it again.
                        Some(_) => Judged::Never,
                    }
                }
            });
        }
        if let Some(interruption) = last_interruption {
            if self.asking.is_up() {
                let store = &self.plan.spec.name;
                tracing::warn!(store, %interruption, "changes wait for their policy");
            }
            self.asking.failed(now, Cure::Retry, jitter(now));
        } else if policy.is_some() {
            self.asking.recovered();
        }
        let waits = admissions
            .iter()
            .any(|judged| matches!(judged, Judged::Later(_)));
        let mut writes = rows;
        keys.write(&mut writes);
        open.admitter.seal(&mut writes);
        // What waits on goes on waiting where it is.
        if !(released && waits) {
            writes.extend_from_slice(also);
        }
        let reached = commit(open, writes, durability);
        let reached = match reached {
            Ok(reached) => reached,
            Err(error) => {
                // What a replica holds is stamped: there is no meaning to keep.
                let admissions = admissions.iter().map(|judged| match judged {
                    Judged::Now(admission) | Judged::Later(admission) => admission,
                    Judged::Never => &Admission::Nothing,
                });
                keep_meaning(offers, admissions);
                return Err(error);
            }
        };
        let ties = open.admitter.ties() - ties;
        self.counters.ties.fetch_add(ties, Relaxed);
        self.counters.batches.fetch_add(1, Relaxed);
        for (offer, judged) in offers.iter_mut().zip(&admissions) {
            let (admission, waits) = match judged {
                Judged::Now(admission) => (admission, false),
                Judged::Later(admission) => (admission, true),
                Judged::Never => {
                    self.counters.interrupted.fetch_add(1, Relaxed);
                    offer.answer(|| Outcome::Failed("the policy gave no answer".into()));
                    continue;
                }
            };
            if waits {
                self.counters.interrupted.fetch_add(1, Relaxed);
            }
            if !(released && waits) {
                self.counters.admitted(admission);
            }
            if let Admission::Parked(version) = admission {
                let due = due_at(version.stamp, &self.plan.rules);
                let due = due.max(self.asking.deadline().unwrap_or(0));
                self.due = Some(self.due.unwrap_or(u64::MAX).min(due));
            }
            offer.answer(|| Outcome::Decided(*admission, reached));
        }
        Ok(())
    }
}
