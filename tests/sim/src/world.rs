//! Plays a scenario and watches: replicas agree with each other and with a plain model, nothing
//! acknowledged is lost, nothing deleted comes back, no clock goes back.

use std::hash::{DefaultHasher, Hash, Hasher};

use weir_backend_api::{
    ErrorKind, StoreSpec, Volume,
    conformance::{
        harness::Shard,
        model::{Model, Op, State},
    },
    fault::{Fault, Faults, Faulty, Operation},
};
use weir_core::{
    admission::{Admitter, History, Rules},
    change::{Admission, Change, WildcardChange},
    clock::{Clock, Tick},
    collection,
    key::Key,
    keyexpr::OwnedKeyExpr,
    version::Stamp,
};

use crate::{
    coverage::counted,
    disk::Disk,
    scenario::{Break, Scenario, StampedAs, Step},
};

/// A millisecond, nearly (NTP64).
const MILLI: u64 = (1 << 32) / 1_000;
/// When a history begins.
const START: u64 = 1 << 50;
/// How far ahead a stamp may be.
const DRIFT: u64 = 500 * MILLI;
/// How old a tombstone is before it is collected. Shorter than clocks are wrong, so that the bound by
/// what is still on the way is what protects.
const LIFESPAN: u64 = 300 * MILLI;
/// A fault happens once; more failures in a row than faults were asked for are a bug.
const TRIES_MAX: usize = 64;

counted! {
    /// How often the rare branches were reached.
    Coverage {
        /// Changes applied.
        applied,
        /// Changes that were held already.
        known,
        /// Changes older than what was held.
        outdated,
        /// Changes from the future.
        parked,
        /// Parked changes applied when due.
        released,
        /// Changes older than the horizon, set aside.
        quarantined,
        /// Wildcard operations delivered.
        wildcards,
        /// Commits that were refused.
        refused,
        /// Commits in doubt.
        torn,
        /// Deaths during a commit.
        crashes,
        /// Restarts in between.
        restarts,
        /// Collections that forgot something.
        collections,
        /// Stamps given above a wall clock that was set back.
        clock_held,
        /// Two different changes of one key with one stamp.
        ties,
    }
}

/// What came of a history.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// A hash of everything that happened and of the final states.
    pub trace: u64,
    /// What was reached.
    pub coverage: Coverage,
}

struct Replica {
    volume: Faulty<Disk>,
    faults: Faults,
    shard: Option<Shard>,
    rules: Rules,
    /// Everything that was acknowledged and not set aside.
    model: Model,
    /// What was acknowledged as parked and is not due yet.
    parked: Vec<Op>,
}

struct Gateway {
    clock: Clock,
    /// What is durable of the clock.
    ceiling: u64,
    id: [u8; 16],
    /// How wrong the wall clock is (NTP64, wrapping).
    skew: i64,
    last: Stamp,
}

struct World<'s> {
    scenario: &'s Scenario,
    now: u64,
    replicas: Vec<Replica>,
    gateways: Vec<Gateway>,
    /// What is on the way, and to which replica.
    messages: Vec<(usize, Op)>,
    last: Option<Stamp>,
    coverage: Coverage,
    trace: DefaultHasher,
}

/// Plays a scenario.
///
/// # Errors
/// What was violated.
pub fn run(scenario: &Scenario) -> Result<Outcome, String> {
    let mut world = World::new(scenario)?;
    for step in &scenario.steps {
        world.step(step)?;
    }
    world.end()
}

impl<'s> World<'s> {
    fn new(scenario: &'s Scenario) -> Result<Self, String> {
        let replicas = (0..scenario.replicas)
            .map(|_| Replica::new(scenario.history))
            .collect::<Result<Vec<_>, String>>()?;
        let gateways = (0..scenario.replicas).map(Gateway::new).collect();
        Ok(Self {
            scenario,
            now: START,
            replicas,
            gateways,
            messages: Vec::new(),
            last: None,
            coverage: Coverage::default(),
            trace: DefaultHasher::new(),
        })
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Change {
                gateway,
                on,
                value,
                stamp,
            } => {
                let op = self.change(*gateway, on, value.clone(), *stamp)?;
                self.messages
                    .extend((0..self.replicas.len()).map(|to| (to, op.clone())));
            }
            Step::Deliver { message, again } => {
                if self.messages.is_empty() {
                    return Ok(());
                }
                let at = usize::try_from(*message % self.messages.len() as u64).unwrap_or(0);
                let (to, op) = self.messages[at].clone();
                if !again {
                    self.messages.swap_remove(at);
                }
                self.deliver(to, op)?;
            }
            Step::Pass(millis) => {
                self.now += millis * MILLI;
                self.release()?;
            }
            Step::Jump { gateway, millis } => {
                let gateway = &mut self.gateways[*gateway];
                gateway.skew = millis * i64::try_from(MILLI).unwrap_or(i64::MAX);
                gateway.clock = Clock::new(gateway.id, gateway.ceiling, DRIFT);
            }
            Step::Restart(replica) => {
                self.coverage.restarts += 1;
                self.replicas[*replica].reopen(self.now)?;
            }
            Step::Break { replica, nth, how } => {
                let fault = match *how {
                    Break::Refused => Fault::Error(ErrorKind::Unavailable),
                    Break::Torn { applied } => Fault::Torn { applied },
                    Break::Crash { applied } => Fault::Crash { applied },
                };
                self.replicas[*replica]
                    .faults
                    .at(Operation::Commit, *nth, fault);
            }
            Step::Fold(replica) => {
                self.retry(*replica, |shard| shard.fold())?;
            }
            Step::Collect(replica) => self.collect(*replica)?,
        }
        Ok(())
    }

    fn change(
        &mut self,
        gateway: usize,
        on: &str,
        value: Option<weir_core::value::Value>,
        stamped: StampedAs,
    ) -> Result<Op, String> {
        let now = self.now;
        let by_clock = self.gateways[gateway].stamp(now, &mut self.coverage)?;
        let stamp = match (stamped, self.last) {
            (StampedAs::Later(millis), _) => Stamp {
                time: by_clock.time + millis * MILLI,
                ..by_clock
            },
            (StampedAs::Before, Some(last)) => last,
            (StampedAs::Before | StampedAs::Clock, _) => by_clock,
        };
        let op = if on.contains('*') {
            let expr = OwnedKeyExpr::new(on).map_err(|error| error.to_string())?;
            Op::Wildcard(WildcardChange {
                expr,
                stamp: Some(stamp),
                value,
            })
        } else {
            self.last = Some(stamp);
            Op::Key(Change {
                key: Key::from(on),
                stamp: Some(stamp),
                value,
            })
        };
        format!("{op:?}").hash(&mut self.trace);
        Ok(op)
    }

    /// Offers a change until it is acknowledged.
    fn deliver(&mut self, to: usize, op: Op) -> Result<(), String> {
        let mut batch = vec![op.clone()];
        let ties = self.replicas[to].ties();
        let admissions = self.retry(to, |shard| shard.offer(&mut batch))?;
        self.coverage.ties += self.replicas[to].ties().saturating_sub(ties);
        self.coverage.wildcards += u64::from(matches!(op, Op::Wildcard(_)));
        for admission in admissions {
            (to, admission.name()).hash(&mut self.trace);
            match admission {
                Admission::Applied(_) => self.coverage.applied += 1,
                Admission::Known(_) => self.coverage.known += 1,
                Admission::Outdated(_) => self.coverage.outdated += 1,
                Admission::Merged(_) => return Err(format!("merged without a policy: {op:?}")),
                Admission::Parked(_) => {
                    // It counts from when it is due.
                    self.coverage.parked += 1;
                    self.replicas[to].parked.push(op);
                    return Ok(());
                }
                Admission::Quarantined(_) => {
                    self.coverage.quarantined += 1;
                    if !self.scenario.collects_early {
                        return Err(format!("set aside although all was seen: {op:?}"));
                    }
                    return Ok(());
                }
                Admission::Nothing => return Ok(()),
                Admission::Rejected(why) => return Err(format!("rejected: {why}: {op:?}")),
            }
        }
        self.replicas[to].model.apply(&op);
        self.compare_with_model(to)
    }

    /// Applies what is due everywhere.
    fn release(&mut self) -> Result<(), String> {
        for to in 0..self.replicas.len() {
            // What it says to have released is not asked: a crash may come between the two.
            self.retry(to, Shard::release)?;
            let due = self.now + DRIFT;
            let replica = &mut self.replicas[to];
            let parked = std::mem::take(&mut replica.parked);
            let is_due = |op: &Op| time_of(op).is_none_or(|time| time <= due);
            let (released, parked) = parked.into_iter().partition::<Vec<_>, _>(is_due);
            replica.parked = parked;
            self.coverage.released += released.len() as u64;
            for op in released {
                replica.model.apply(&op);
            }
            if !self.scenario.collects_early {
                self.compare_with_model(to)?;
            }
        }
        Ok(())
    }

    /// A replica forgets what is old, but, unless the scenario is about that, nothing newer than what
    /// is still on the way to anybody or waits somewhere to be due.
    fn collect(&mut self, replica: usize) -> Result<(), String> {
        let mut old = self.now.saturating_sub(LIFESPAN);
        if !self.scenario.collects_early {
            let waits = self.messages.iter().filter_map(|(_, op)| time_of(op));
            let lagging = self
                .gateways
                .iter()
                .map(|gateway| gateway.next_at_least(self.now));
            old = waits.chain(lagging).fold(old, u64::min);
        }
        let before = self.replicas[replica].kept()?;
        self.retry(replica, |shard| shard.collect(collection::before(old)))?;
        let after = self.replicas[replica].kept()?;
        self.coverage.collections += u64::from(after < before);
        self.compare_with_model(replica)
    }

    /// Calls until it works: after a failure the same again, after a doubt or a death on the store
    /// opened anew.
    fn retry<T>(
        &mut self,
        replica: usize,
        mut call: impl FnMut(&mut Shard) -> weir_backend_api::Result<T>,
    ) -> Result<T, String> {
        let now = self.now;
        for _ in 0..TRIES_MAX {
            let replica = &mut self.replicas[replica];
            let Some(shard) = &mut replica.shard else {
                replica.reopen(now)?;
                continue;
            };
            shard.now = now;
            match call(shard) {
                Ok(done) => return Ok(done),
                Err(error) if error.kind() == ErrorKind::Unavailable => self.coverage.refused += 1,
                Err(error) => {
                    if replica.faults.is_dead() {
                        self.coverage.crashes += 1;
                    } else if error.kind() == ErrorKind::Poisoned {
                        self.coverage.torn += 1;
                    } else {
                        return Err(format!("unexpected: {error}"));
                    }
                    replica.reopen(now)?;
                }
            }
        }
        Err("it never works again".to_owned())
    }

    fn compare_with_model(&mut self, replica: usize) -> Result<(), String> {
        let replica_state = self.retry(replica, |shard| shard.state())?;
        let expected = self.replicas[replica].model.state();
        same(
            &format!("replica {replica}"),
            &replica_state,
            "the model",
            &expected,
        )
    }

    /// Everything arrives, everything becomes due, everybody restarts once more: all agree.
    fn end(mut self) -> Result<Outcome, String> {
        while let Some((to, op)) = self.messages.pop() {
            self.deliver(to, op)?;
        }
        self.now += 100_000 * MILLI;
        self.release()?;
        let mut states = Vec::new();
        for index in 0..self.replicas.len() {
            self.retry(index, |shard| shard.fold())?;
            self.replicas[index].reopen(self.now)?;
            self.compare_with_model(index)?;
            states.push(self.retry(index, |shard| shard.state())?);
        }
        if !self.scenario.collects_early {
            for (index, state) in states.iter().enumerate() {
                same(&format!("replica {index}"), state, "replica 0", &states[0])?;
            }
        }
        format!("{states:?}").hash(&mut self.trace);
        Ok(Outcome {
            trace: self.trace.finish(),
            coverage: self.coverage,
        })
    }
}

impl Replica {
    fn new(history: History) -> Result<Self, String> {
        let faults = Faults::new();
        let disk = Disk::new().map_err(|error| error.to_string())?;
        let volume = Faulty::new(disk, faults.clone());
        // A cache of three keys, so that reads and rotations happen.
        let rules = Rules {
            history,
            drift: DRIFT,
            age_max: None,
            cache_keys: 3,
            resolves: false,
        };
        let mut replica = Self {
            volume,
            faults,
            shard: None,
            rules,
            model: Model::default(),
            parked: Vec::new(),
        };
        replica.reopen(START)?;
        Ok(replica)
    }

    fn reopen(&mut self, now: u64) -> Result<(), String> {
        self.shard = None;
        if self.faults.is_dead() {
            self.faults.revive();
        }
        let spec = StoreSpec {
            create: true,
            history: true,
            ..StoreSpec::default()
        };
        let opened = self.volume.open(&spec);
        let shard = opened.and_then(|store| Shard::new(store, self.rules.clone(), now));
        self.shard = Some(shard.map_err(|error| error.to_string())?);
        Ok(())
    }

    fn ties(&self) -> u64 {
        self.shard
            .as_ref()
            .map_or(0, |shard| shard.admitter().ties())
    }

    /// How many records and wildcard operations there are.
    fn kept(&self) -> Result<usize, String> {
        let Some(shard) = &self.shard else {
            return Ok(0);
        };
        let records = shard.records().map_err(|error| error.to_string())?;
        Ok(records.len() + Admitter::journal(shard.admitter()).len())
    }
}

impl Gateway {
    fn new(index: usize) -> Self {
        let mut id = [0; 16];
        id[0] = u8::try_from(index).unwrap_or(u8::MAX).saturating_add(1);
        let clock = Clock::new(id, 0, DRIFT);
        Self {
            clock,
            ceiling: 0,
            id,
            skew: 0,
            last: Stamp::ZERO,
        }
    }

    fn wall(&self, now: u64) -> u64 {
        now.saturating_add_signed(self.skew)
    }

    /// No stamp that it will give is lower than this.
    fn next_at_least(&self, now: u64) -> u64 {
        // The wall clock may still be set back by a jump; what was given out holds in any case.
        self.last.time.min(now.saturating_sub(3_000 * MILLI))
    }

    fn stamp(&mut self, now: u64, coverage: &mut Coverage) -> Result<Stamp, String> {
        let wall = self.wall(now);
        loop {
            match self.clock.stamp(wall) {
                Tick::NeedsCeiling(ceiling) => {
                    self.ceiling = ceiling;
                    self.clock.raise(ceiling);
                }
                Tick::Stamp(stamp) if stamp > self.last => {
                    coverage.clock_held += u64::from(stamp.time > wall);
                    self.last = stamp;
                    return Ok(stamp);
                }
                Tick::Stamp(stamp) => return Err(format!("the clock went back to {stamp}")),
            }
        }
    }
}

fn time_of(op: &Op) -> Option<u64> {
    match op {
        Op::Key(change) => change.stamp.map(|stamp| stamp.time),
        Op::Wildcard(change) => change.stamp.map(|stamp| stamp.time),
        Op::Nothing => None,
    }
}

fn same(left_name: &str, left: &State, right_name: &str, right: &State) -> Result<(), String> {
    if left == right {
        return Ok(());
    }
    let keys = left.keys().chain(right.keys());
    let differing = keys.filter(|key| left.get(*key) != right.get(*key));
    let lines: Vec<String> = differing
        .map(|key| format!("{key}: {:?} and {:?}", left.get(key), right.get(key)))
        .collect();
    Err(format!(
        "{left_name} and {right_name} differ: {}",
        lines.join("; ")
    ))
}
