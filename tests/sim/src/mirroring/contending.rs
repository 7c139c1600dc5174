//! Mirrored replicas whose conflicts a policy resolves (S13), lawful or not, interrupted, absent for a
//! while, and of different revisions at different places and times.
//!
//! What is promised and watched, besides what a plain mirrored history watches:
//!
//! - replicas that serve the same revision end with the same versions, values and vectors, whatever the
//!   resolver answers;
//! - where nothing was forgotten and the policy never absent, what is left of a key has merged every
//!   change of it: nothing is lost that was not given to the resolver, or to the law;
//! - and if the resolver is lawful it is the fold of all of them;
//! - replicas that do not agree about the revision may stay apart, and then say both; what one of them
//!   has not merged another still holds.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use weir_backend_api::{conformance::harness::Seat, fault::Rng};
use weir_core::{
    admission::History,
    change::Change,
    collection::newest_seen,
    key::Key,
    ledger::merged_hash,
    record::Record,
    resolution::{Contender, Interrupted, Resolution, Resolve},
    resolving::vector_of,
    value::Value,
    vector::Vector,
    version::Version,
};

use super::{
    replica::Replica,
    scenario::{Scenario, Step},
};
use crate::{
    coverage::counted,
    resolving::{Kind, answer, fold},
};

counted! {
    /// How often the rare branches of resolving were reached.
    Contended {
        /// Questions answered.
        asked,
        /// Questions interrupted.
        interrupted,
        /// Changes and states that became a value of two.
        merged,
        /// States of replicas of another revision that were kept apart.
        apart,
        /// Histories that ended with the fold of all changes.
        folded,
        /// Histories that ended with every change merged, whatever the resolver.
        whole,
        /// Histories that ended with replicas apart that did not agree.
        parted,
        /// Histories in which the policy was absent for a while.
        unled,
        /// Tombstones and operations forgotten by collections.
        collected,
        /// Disks lost or put back.
        restored,
    }
}

/// What resolves in a history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// By a rule.
    Rule(RuleOf),
    /// Something else each time.
    Moody,
    /// It traps: the later version wins, everywhere.
    Trap,
}

/// A rule of a resolver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RuleOf(Kind);

/// The policies of a history.
#[derive(Clone, Debug)]
pub struct Contention {
    /// Of the revisions 1 and 2.
    pub policies: [Policy; 2],
    /// What each replica serves at first.
    pub first: Vec<Seated>,
    /// What each serves in the end.
    pub last: Vec<u64>,
    /// Only changes of keys, nothing is forgotten, and the policy is never absent.
    pub is_plain: bool,
    /// Makes chance of the moody.
    pub seed: u64,
}

/// What a replica is told about its policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seated {
    /// Its file was removed: the native rule.
    Absent,
    /// It is being loaded: what needs an answer waits.
    Loading,
    /// A revision serves.
    Serves(u64),
}

/// The policy of one replica.
#[derive(Clone, Debug)]
pub(super) struct Chair {
    pub(super) seated: Seated,
    policies: [Policy; 2],
    seed: u64,
    calls: Arc<Calls>,
}

#[derive(Default, Debug)]
struct Calls {
    asked: AtomicU64,
    interrupted: AtomicU64,
    /// So many questions from now on are interrupted.
    interruptions: AtomicU64,
}

struct Asker {
    policy: Policy,
    rng: Rng,
    calls: Arc<Calls>,
}

impl Policy {
    fn new(rng: &mut Rng) -> Self {
        let of = |kind| Self::Rule(RuleOf(kind));
        match rng.below(10) {
            0..3 => of(Kind::Union),
            3 | 4 => of(Kind::Greatest),
            5 => of(Kind::Earlier),
            6 => of(Kind::Append),
            7 => of(Kind::Random(rng.next())),
            8 => Self::Moody,
            _ => Self::Trap,
        }
    }

    const fn lawful(self) -> Option<Kind> {
        match self {
            Self::Rule(RuleOf(kind)) if kind.is_lawful() => Some(kind),
            _ => None,
        }
    }
}

impl Contention {
    /// The rule of both revisions, if it is one and keeps the laws.
    fn lawful(&self) -> Option<Kind> {
        let [one, two] = self.policies;
        one.lawful().filter(|_| one == two)
    }

    fn agrees(&self) -> bool {
        self.last.iter().all(|last| *last == self.last[0])
    }

    pub(super) fn chair(&self, replica: usize) -> Chair {
        Chair {
            seated: self.first[replica],
            policies: self.policies,
            seed: self.seed ^ (replica as u64) << 32,
            calls: Arc::default(),
        }
    }
}

impl Chair {
    /// What the shard is told. `life` makes chance differ from start to start.
    pub(super) fn seat(&self, life: u64) -> Seat {
        match self.seated {
            Seated::Absent => Seat::Absent,
            Seated::Loading => Seat::Loading,
            Seated::Serves(revision) => {
                let policy = self.policies[usize::from(revision == 2)];
                let rng = Rng::new(self.seed ^ life);
                let calls = Arc::clone(&self.calls);
                Seat::Serves(revision, Box::new(Asker { policy, rng, calls }))
            }
        }
    }

    pub(super) fn interrupt(&self, times: u64) {
        self.calls.interruptions.store(times, Relaxed);
    }
}

impl Resolve for Asker {
    fn resolve(
        &mut self,
        _: &str,
        first: Contender<'_>,
        second: Contender<'_>,
    ) -> Result<Resolution, Interrupted> {
        let left = self.calls.interruptions.load(Relaxed);
        if left > 0 {
            self.calls.interruptions.store(left - 1, Relaxed);
            self.calls.interrupted.fetch_add(1, Relaxed);
            return Err(Interrupted("by chance".into()));
        }
        self.calls.asked.fetch_add(1, Relaxed);
        Ok(match self.policy {
            Policy::Rule(RuleOf(kind)) => answer(kind, first, second),
            Policy::Moody => answer(Kind::Random(self.rng.next()), first, second),
            Policy::Trap => Resolution::Default,
        })
    }
}

impl Scenario {
    /// The contended history of a seed: a mirrored one of storages that keep the latest and are bound to
    /// a policy.
    #[must_use]
    pub fn contending(seed: u64) -> Self {
        let mut scenario = Self::without_ids(seed ^ 0x0063_6f6e_7465_6e64);
        let mut rng = Rng::new(seed ^ 0x7365_6174);
        let count = scenario.members.len();
        for member in &mut scenario.members {
            member.history = History::Latest;
        }
        let one = Policy::new(&mut rng);
        let two = if rng.below(2) == 0 {
            one
        } else {
            Policy::new(&mut rng)
        };
        let is_plain = rng.below(2) == 0;
        let seated = |rng: &mut Rng| match rng.below(8) {
            0 if !is_plain => Seated::Absent,
            0 | 1 => Seated::Loading,
            2 | 3 => Seated::Serves(2),
            _ => Seated::Serves(1),
        };
        let agreed = 1 + rng.below(2);
        let agrees = rng.below(6) > 0;
        let contention = Contention {
            policies: [one, two],
            first: (0..count).map(|_| seated(&mut rng)).collect(),
            last: (0..count)
                .map(|_| if agrees { agreed } else { 1 + rng.below(2) })
                .collect(),
            is_plain,
            seed: rng.next(),
        };
        let steps = std::mem::take(&mut scenario.steps);
        for step in steps {
            let replica = usize::try_from(rng.below(count as u64)).unwrap_or(0);
            match rng.below(20) {
                0 => scenario.steps.push(Step::Seat(replica, seated(&mut rng))),
                1 => scenario
                    .steps
                    .push(Step::Interrupt(replica, 1 + rng.below(6))),
                _ => {}
            }
            let is_left_out = match &step {
                Step::Change { on, .. } => on.contains('*'),
                Step::Collect(_) => true,
                _ => false,
            };
            if !(is_plain && is_left_out) {
                scenario.steps.push(step);
            }
        }
        scenario.contention = Some(contention);
        scenario
    }
}

/// What a replica holds of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Holding {
    /// Operations included, as readers see it.
    version: Version,
    /// Of all that it has merged.
    newest: Version,
    value: Option<Value>,
    /// What the ledger says of what it has merged. What an operation hides is not compared.
    merged: u64,
}

/// The changes that a record has merged.
type Merged = BTreeMap<Key, Vector>;

/// Whether the replicas have ended as was promised, and what of it was watched.
pub(super) fn compare(
    contention: &Contention,
    replicas: &[Replica],
    made: &[Change],
    is_forgetful: bool,
) -> Result<Contended, String> {
    let mut reached = Contended::default();
    let held = replicas.iter().map(Replica::holdings);
    let held = held.collect::<Result<Vec<_>, String>>()?;
    let horizons = replicas.iter().map(Replica::horizon);
    let horizons = horizons.collect::<Result<Vec<_>, String>>()?;
    for a in 0..replicas.len() {
        for b in a + 1..replicas.len() {
            let horizon = horizons[a].max(horizons[b]);
            let ours = shared(&held[a], &replicas[b], &held[b], horizon);
            let theirs = shared(&held[b], &replicas[a], &held[a], horizon);
            if ours == theirs {
                continue;
            }
            if contention.last[a] == contention.last[b] {
                return Err(format!(
                    "replica {a} holds\n{ours:?}\nreplica {b}\n{theirs:?}"
                ));
            }
            reached.parted = 1;
            let of = |replica: usize, peer: usize| replicas[replica].mirrors[&peer].status();
            let (ours, theirs) = (of(a, b), of(b, a));
            let says = [ours.revision_agrees, theirs.revision_agrees];
            if !says.contains(&Some(false)) || says.contains(&Some(true)) {
                return Err(format!("{a} and {b} are apart and say of it {says:?}"));
            }
            if ours.in_step_since.is_some() || theirs.in_step_since.is_some() {
                return Err(format!("{a} and {b} are apart and in step"));
            }
        }
    }
    if is_forgetful {
        return Ok(reached);
    }
    reached.whole = 1;
    let merged = replicas.iter().map(Replica::merged);
    let merged = merged.collect::<Result<Vec<_>, String>>()?;
    // If they agree, and no operation hides it, the first has it, which is for every key.
    let is_everywhere = contention.is_plain && contention.agrees();
    let whose = if is_everywhere { &merged[..1] } else { &merged };
    for change in made {
        let stamp = change.stamp.unwrap_or_default();
        let has = |merged: &Merged| {
            merged
                .get(&change.key)
                .is_some_and(|vector| vector.contains(stamp))
        };
        if !whose.iter().any(has) {
            return Err(format!("{change:?} is lost: {held:?}"));
        }
    }
    if let (true, Some(kind)) = (is_everywhere, contention.lawful()) {
        reached.folded = 1;
        let live = |(key, held): (&Key, &Holding)| Some((key.clone(), held.value.clone()?));
        let held: BTreeMap<Key, _> = held[0].iter().filter_map(live).collect();
        let folded = fold(kind, made).into_iter();
        let folded: BTreeMap<Key, _> = folded
            .filter_map(|(key, (_, value))| Some((key, value?)))
            .collect();
        if held != folded {
            return Err(format!(
                "{kind:?}: they hold {held:#?}\nthe fold of all changes is {folded:#?}"
            ));
        }
    }
    Ok(reached)
}

/// What of this concerns another replica: not what is deleted, if it was forgotten there or is about to be.
fn shared(
    held: &BTreeMap<Key, Holding>,
    with: &Replica,
    theirs: &BTreeMap<Key, Holding>,
    horizon: Version,
) -> BTreeMap<Key, Holding> {
    let is_shared = |(key, held): &(&Key, &Holding)| {
        let is_garbage = held.newest < horizon || !theirs.contains_key(*key);
        with.concerns(key) && !(held.version.is_delete() && is_garbage)
    };
    let held = held.iter().filter(is_shared);
    held.map(|(key, held)| (key.clone(), held.clone()))
        .collect()
}

impl Replica {
    /// What it holds of every key, as readers and mirrors see it.
    fn holdings(&self) -> Result<BTreeMap<Key, Holding>, String> {
        let shard = self.shard()?;
        let view = shard.admitter().view(shard.now);
        let records = shard.records().map_err(|error| error.to_string())?;
        let mut scratch = String::new();
        let holding = |(key, record): (Key, Record)| {
            let version = view.effective(&key, record.head, &mut scratch);
            let merged = merged_hash(record.merged.as_deref());
            let newest = version.max(newest_seen(&record));
            let live = view.live(&key, record, &mut scratch);
            let value = live.map(|live| live.value);
            let held = Holding {
                version,
                newest,
                value,
                merged,
            };
            (key, held)
        };
        Ok(records.into_iter().map(holding).collect())
    }

    /// What it has merged of every key.
    fn merged(&self) -> Result<Merged, String> {
        let records = self.shard()?.records().map_err(|error| error.to_string())?;
        let records = records.into_iter();
        Ok(records
            .map(|(key, record)| (key, vector_of(&record)))
            .collect())
    }

    /// Adds what its policy was asked.
    pub(super) fn count(&self, reached: &mut Contended) {
        if let Some(chair) = &self.chair {
            reached.asked += chair.calls.asked.load(Relaxed);
            reached.interrupted += chair.calls.interrupted.load(Relaxed);
        }
    }
}

/// Whether the policy is absent somewhere at some time: then the later version wins there, by heads alone.
pub(super) fn is_unled(scenario: &Scenario) -> bool {
    let first = scenario.contention.iter().flat_map(|of| &of.first);
    let mut later = scenario.steps.iter().filter_map(|step| match step {
        Step::Seat(_, seated) => Some(seated),
        _ => None,
    });
    first.clone().any(|seated| *seated == Seated::Absent)
        || later.any(|seated| *seated == Seated::Absent)
}
