//! Plays a mirrored history and watches: whoever shares keys ends with the same for them, which is
//! what a plain model says of everything acknowledged; nothing takes for ever; queues stay short.

mod promises;
mod stores;

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash},
    time::Duration,
};

use weir_backend_api::{
    ErrorKind,
    conformance::{
        harness::Shard,
        model::{Model, Op},
    },
    fault::{Fault, Operation},
};
use weir_core::{
    admission::History,
    change::{Admission, Change, WildcardChange},
    collection,
    key::Key,
    keyexpr::{OwnedKeyExpr, keyexpr},
    mirror::{
        answer::{Admit, Limits, answer},
        frame::{Reply, Request},
        round::{self, Effect, Event, Mirror},
    },
    version::{Stamp, Version},
};

use super::{
    contending::{Contended, Contention, Seated, is_unled},
    reached::{Outcome, Reached},
    replica::Replica,
    scenario::{Packet, Scenario, Step},
};
use crate::scenario::Break;

/// A millisecond, nearly (NTP64).
const MILLI: u64 = (1 << 32) / 1_000;
/// When a history begins.
pub(super) const START: u64 = 1 << 50;
/// How far ahead a stamp may be.
pub(super) const DRIFT: u64 = 500 * MILLI;
/// How old a tombstone is before it is collected.
const LIFESPAN: u64 = 20_000 * MILLI;
/// How long two replicas may take to be in step once nothing is in the way: a follower waits two
/// periods, and who was told that nothing could be done believes it for some rounds.
const PATIENCE: u64 = 600_000 * MILLI;
/// More failures in a row than faults were asked for are a bug.
pub(super) const TRIES_MAX: usize = 64;
/// More packets at once than all mirrors together may have under way.
const PACKETS_MAX: usize = 4_000;

/// Something on the way between two replicas.
#[derive(Clone, Debug)]
enum Message {
    /// `round` is when the round began that it is of.
    Ask {
        life: u64,
        ask: u64,
        round: u64,
        frame: Vec<u8>,
    },
    /// `of` is the life of who answers.
    Reply {
        life: u64,
        of: u64,
        ask: u64,
        frame: Vec<u8>,
    },
}

struct World {
    now: u64,
    replicas: Vec<Replica>,
    /// From, to, what.
    messages: Vec<(usize, usize, Message)>,
    cut: BTreeSet<(usize, usize)>,
    model: Model,
    /// Whose disks are put back in this history: alone, they may lose what they have acknowledged.
    unsafe_disks: BTreeSet<usize>,
    /// Who was in step with whom when another store took its place, and has not noticed.
    owed: BTreeSet<(usize, usize)>,
    /// Stores that there were two of.
    cloned: BTreeSet<u64>,
    /// What resolves conflicts, if anything does, and every change of a key.
    contention: Option<Contention>,
    made: Vec<Change>,
    /// Wildcard deletes.
    emptied: Vec<(Version, OwnedKeyExpr)>,
    /// The policy is absent somewhere for a while.
    is_unled: bool,
    reached: Reached,
    contended: Contended,
    trace: DefaultHasher,
}

/// Plays a history.
///
/// # Errors
/// What was violated.
pub fn run(scenario: &Scenario) -> Result<Outcome, String> {
    let mut world = World::new(scenario)?;
    for step in &scenario.steps {
        world.step(step)?;
        if world.messages.len() > PACKETS_MAX {
            return Err(format!("{} packets are on the way", world.messages.len()));
        }
    }
    world.end()
}

impl World {
    fn new(scenario: &Scenario) -> Result<Self, String> {
        let members = scenario.members.iter().enumerate();
        let chair = |index| scenario.contention.as_ref().map(|of| of.chair(index));
        let replicas = members.map(|(index, member)| Replica::new(index, *member, chair(index)));
        let replicas = replicas.collect::<Result<Vec<_>, String>>()?;
        let unsafe_disks = scenario.steps.iter().flat_map(|step| match step {
            Step::Restore(replica) | Step::Wipe(replica) => vec![*replica],
            Step::Clone { to, .. } => vec![*to],
            Step::Swap(one, other) => vec![*one, *other],
            _ => Vec::new(),
        });
        let mut world = Self {
            now: START,
            replicas,
            messages: Vec::new(),
            cut: BTreeSet::new(),
            model: Model::default(),
            unsafe_disks: unsafe_disks.collect(),
            owed: BTreeSet::new(),
            cloned: BTreeSet::new(),
            contention: scenario.contention.clone(),
            made: Vec::new(),
            emptied: Vec::new(),
            is_unled: is_unled(scenario),
            contended: Contended::default(),
            reached: Reached::default(),
            trace: DefaultHasher::new(),
        };
        for replica in 0..world.replicas.len() {
            world.begin_mirrors(replica)?;
        }
        Ok(world)
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Change {
                by,
                later,
                on,
                value,
                reaches,
            } => {
                let stamp = self.stamp(*by, *later);
                let op = if on.contains('*') {
                    let expr = OwnedKeyExpr::new(*on).map_err(|error| error.to_string())?;
                    let (stamp, value) = (Some(stamp), value.clone());
                    Op::Wildcard(WildcardChange { expr, stamp, value })
                } else {
                    let (key, stamp, value) = (Key::from(*on), Some(stamp), value.clone());
                    Op::Key(Change { key, stamp, value })
                };
                format!("{op:?}").hash(&mut self.trace);
                self.change(on, &op, *reaches)?;
            }
            Step::Packet(pick, how) => {
                if self.messages.is_empty() {
                    return Ok(());
                }
                let at = usize::try_from(*pick % self.messages.len() as u64).unwrap_or(0);
                match how {
                    Packet::Arrives => {
                        let (from, to, message) = self.messages.swap_remove(at);
                        self.arrive(from, to, message)?;
                    }
                    Packet::Repeats => {
                        self.reached.repeated += 1;
                        let (from, to, message) = self.messages[at].clone();
                        self.arrive(from, to, message)?;
                    }
                    Packet::Lost => {
                        self.reached.lost += 1;
                        self.messages.swap_remove(at);
                    }
                }
            }
            Step::Pass(millis) => {
                self.now += millis * MILLI;
                self.release()?;
                self.tick()?;
            }
            Step::Calm(millis) => {
                let until = self.now + millis * MILLI;
                while self.now < until {
                    self.arrive_all()?;
                    self.pass(until)?;
                }
                self.release()?;
            }
            Step::Cut(from, to) => {
                self.cut.insert((*from, *to));
                // Whoever notices first: here the one that hears nothing any more.
                self.tell(*to, *from, Event::Gone)?;
            }
            Step::Heal => self.heal()?,
            Step::Restart(replica) => self.restart(*replica)?,
            Step::Break { replica, nth, how } => {
                let fault = match *how {
                    Break::Refused => Fault::Error(ErrorKind::Unavailable),
                    Break::Torn { applied } => Fault::Torn { applied },
                    Break::Crash { applied } => Fault::Crash { applied },
                };
                let faults = &self.replicas[*replica].faults;
                faults.at(Operation::Commit, *nth, fault);
            }
            Step::Backup(replica) => {
                let replica = &mut self.replicas[*replica];
                replica.backup = Some(replica.copy()?);
            }
            Step::Restore(replica) => self.restore(*replica)?,
            Step::Wipe(replica) => self.wipe(*replica)?,
            Step::Swap(one, other) => self.swap(*one, *other)?,
            Step::Clone { from, to } => self.copy(*from, *to)?,
            Step::Fold(replica) => {
                self.retry(*replica, |shard| shard.fold())?;
            }
            Step::KeepLedger(replica) => {
                self.retry(*replica, |shard| shard.keep_ledger())?;
            }
            Step::Collect(replica) => self.collect(*replica)?,
            Step::Seat(replica, seated) => self.seat(*replica, *seated),
            Step::Interrupt(replica, times) => {
                if let Some(chair) = &self.replicas[*replica].chair {
                    chair.interrupt(*times);
                }
            }
        }
        Ok(())
    }

    fn stamp(&mut self, by: usize, later: u64) -> Stamp {
        let replica = &mut self.replicas[by];
        let skew = replica
            .member
            .skew
            .saturating_mul(i64::try_from(MILLI).unwrap_or(i64::MAX));
        let wall = self.now.saturating_add_signed(skew);
        // A clock of its own for each: never the same twice.
        replica.last_time = (replica.last_time + 1).max(wall);
        let mut id = [0; 16];
        id[0] = u8::try_from(by + 1).unwrap_or(u8::MAX);
        let time = replica.last_time + later * MILLI;
        Stamp { time, id }
    }

    /// A change reaches some of those whom it concerns.
    fn change(&mut self, on: &str, op: &Op, reaches: u64) -> Result<(), String> {
        let concerns = |replica: &Replica| match keyexpr::new(on) {
            Ok(key) if on.contains('*') => replica.keys.intersects(key),
            Ok(key) => replica.keys.matches(key),
            Err(_) => false,
        };
        let whom = (0..self.replicas.len()).filter(|index| concerns(&self.replicas[*index]));
        let mut whom: BTreeSet<usize> = whom.filter(|index| reaches >> index & 1 == 1).collect();
        if whom.iter().all(|index| self.unsafe_disks.contains(index)) {
            // The first has everything and is never put back: then no change can be lost.
            whom.insert(0);
        }
        for index in whom {
            let mut batch = vec![op.clone()];
            for admission in self.retry(index, |shard| shard.offer(&mut batch))? {
                (index, admission.name()).hash(&mut self.trace);
                match admission {
                    Admission::Parked(_) => self.reached.parked += 1,
                    Admission::Merged(_) if self.contention.is_some() => self.contended.merged += 1,
                    Admission::Quarantined(_) | Admission::Rejected(_) | Admission::Merged(_) => {
                        return Err(format!("{}: {op:?}", admission.name()));
                    }
                    _ => {}
                }
            }
        }
        self.model.apply(op);
        match op {
            Op::Key(change) if self.contention.is_some() => self.made.push(change.clone()),
            Op::Wildcard(change) if change.value.is_none() => {
                let stamp = change.stamp.unwrap_or_default();
                self.emptied
                    .push((change.version(stamp), change.expr.clone()));
            }
            _ => {}
        }
        Ok(())
    }

    fn seat(&mut self, replica: usize, seated: Seated) {
        let of = &mut self.replicas[replica];
        if let Some(chair) = &mut of.chair {
            chair.seated = seated;
            of.sit();
        }
    }

    /// A packet arrives, if the way is open.
    fn arrive(&mut self, from: usize, to: usize, message: Message) -> Result<(), String> {
        if self.cut.contains(&(from, to)) {
            self.reached.lost += 1;
            return Ok(());
        }
        match message {
            Message::Ask {
                life,
                ask,
                round,
                frame,
            } => {
                let replica = &self.replicas[to];
                let Some(shard) = &replica.shard else {
                    return Ok(());
                };
                let mut shown = shard.replica(&replica.keys, &self.replicas[from].keys);
                let answered = answer(&frame, &mut shown, &Limits::default());
                drop(shown);
                let frame = match answered {
                    Ok(answered) => {
                        if let Some(admit) = answered.admit {
                            if !self.admit(to, &admit, round)? {
                                return Ok(());
                            }
                            if self.replicas[to].horizon()? < admit.horizon && self.covers(from, to)
                            {
                                // It has to find out for itself what the peer has forgotten.
                                self.tell(to, from, Event::Wake)?;
                            }
                        }
                        if let Some(in_step) = answered.probed {
                            let counts = self.asked(to, from, &answered.stores)?;
                            if in_step && counts {
                                self.count(to, from, life)?;
                                self.meet(to, from, Some(self.now))?;
                            }
                            self.tell(to, from, Event::Probed { in_step })?;
                            if in_step && !counts {
                                self.tell(to, from, Event::Wake)?;
                            }
                        }
                        answered.reply
                    }
                    Err(refused) => refused.reply,
                };
                let of = self.replicas[to].life;
                let reply = Message::Reply {
                    life,
                    of,
                    ask,
                    frame,
                };
                self.messages.push((to, from, reply));
                Ok(())
            }
            Message::Reply {
                life,
                of,
                ask,
                frame,
            } if life == self.replicas[to].life => {
                let frame = frame.into();
                if matches!(Reply::decode(&frame), Ok(Reply::Probed(_))) {
                    self.replicas[to].heard.insert(from, of);
                }
                self.tell(to, from, Event::Reply { ask, frame })
            }
            Message::Reply { .. } => Ok(()),
        }
    }

    /// Lets a replica take what a mirror holds, by a round that began then; `false` if its store did not.
    fn admit(&mut self, replica: usize, admit: &Admit, round: u64) -> Result<bool, String> {
        let now = self.now;
        let of = &mut self.replicas[replica];
        let mut admit = admit.clone();
        let is_ours = |key: &Key| keyexpr::new(&**key).is_ok_and(|key| of.keys.matches(key));
        admit.states.retain(|state| is_ours(&state.key));
        let Some(shard) = &mut of.shard else {
            return Ok(false);
        };
        shard.now = now;
        let apart = shard.apart;
        let taken = match shard.set_aside(&admit.forgotten) {
            Ok(count) => {
                self.reached.forgotten += count;
                shard.take(&admit)
            }
            Err(error) => Err(error),
        };
        self.contended.apart += shard.apart - apart;
        if let Ok(admissions) = &taken {
            let is_merged = |admission: &&Admission| matches!(admission, Admission::Merged(_));
            self.contended.merged += admissions.iter().filter(is_merged).count() as u64;
            // An operation may be on its way to who has it and forgets it now: nobody can tell that from
            // one that was never there. And who was restored may hold what others have seen deleted.
            let mut of_states = admissions.iter().skip(admit.ops.len());
            let is_aside = |admission: &&Admission| matches!(admission, Admission::Quarantined(_));
            if let Some(aside) = of_states.find(is_aside)
                && self.unsafe_disks.is_empty()
                && !self.may_be_aside(replica, &admit, aside, round)
            {
                return Err(format!(
                    "{replica}: set aside although everybody counts: {aside:?} of {admit:?}"
                ));
            }
        }
        format!("{replica} {admit:?} {taken:?}").hash(&mut self.trace);
        match taken {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                self.reached.refused += 1;
                Ok(false)
            }
            Err(error) => {
                self.failed(replica, &error)?;
                Ok(false)
            }
        }
    }

    /// Tells a mirror what happened, and does what it wants.
    fn tell(&mut self, replica: usize, peer: usize, event: Event) -> Result<(), String> {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let theirs = self.replicas[peer].keys.clone();
            let of = &mut self.replicas[replica];
            let (Some(shard), Some(mirror)) = (&of.shard, of.mirrors.get_mut(&peer)) else {
                return Ok(());
            };
            let life = of.life;
            let mut shown = shard.replica(&of.keys, &theirs);
            let effects = mirror.handle(self.now, event, &mut shown);
            drop(shown);
            for effect in effects {
                match effect {
                    Effect::Ask { ask, frame, .. } => {
                        let is_probe = matches!(Request::decode(&frame), Ok(Request::Probe(_)));
                        let rounds = &mut self.replicas[replica].rounds;
                        let round = rounds.entry(peer).or_default();
                        if is_probe {
                            *round = self.now;
                        }
                        let round = *round;
                        let asked = self.replicas[replica].asked.entry(peer).or_default();
                        if asked.0 != ask {
                            *asked = (ask, self.now);
                        }
                        let frame = frame.to_vec();
                        let message = Message::Ask {
                            life,
                            ask,
                            round,
                            frame,
                        };
                        self.messages.push((replica, peer, message));
                    }
                    Effect::Admit { batch, admit } => {
                        let round = self.replicas[replica].rounds.get(&peer).copied();
                        let taken = self.admit(replica, &admit, round.unwrap_or(0))?;
                        if self.replicas[replica].life != life {
                            return Ok(());
                        }
                        events.push(if taken {
                            Event::Admitted { batch }
                        } else {
                            let why = "the store refused".to_owned();
                            Event::Refused { batch, why }
                        });
                    }
                    Effect::InStep(report) => {
                        self.reached.in_step += 1;
                        self.note(&report);
                        let heard = self.replicas[replica].heard[&peer];
                        self.count(replica, peer, heard)?;
                        // Nothing was asked since the probe.
                        let (_, probed) = self.replicas[replica].asked[&peer];
                        self.meet(replica, peer, Some(probed))?;
                        if self.replicas[replica].life != life {
                            return Ok(());
                        }
                    }
                    Effect::Differs { report, .. } => {
                        self.reached.differed += 1;
                        self.note(&report);
                    }
                    Effect::Failed { .. } => self.reached.failed += 1,
                    Effect::Told { stores, first } => self.told(replica, peer, &stores, first)?,
                    Effect::Horizon(horizon) => {
                        if !self.covers(peer, replica) {
                            continue;
                        }
                        self.reached.horizons += 1;
                        self.retry(replica, |shard| shard.adopt(horizon))?;
                        self.replicas[replica].raised = self.now;
                        if self.replicas[replica].life != life {
                            return Ok(());
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// A replica forgets what is old and what everybody has.
    fn collect(&mut self, replica: usize) -> Result<(), String> {
        if self.replicas[replica].member.history == History::All {
            return Ok(());
        }
        let now = self.now;
        let before = self.records(replica)?;
        self.retry(replica, |shard| {
            let old = now.saturating_sub(LIFESPAN).min(shard.have_all_before());
            shard.collect(collection::before(old))
        })?;
        self.replicas[replica].raised = now;
        self.reached.collected += u64::from(self.records(replica)? < before);
        Ok(())
    }

    fn records(&mut self, replica: usize) -> Result<usize, String> {
        self.retry(replica, |shard| Ok(shard.records()?.len()))
    }

    fn note(&mut self, report: &round::Report) {
        self.reached.fetched += report.fetched;
        self.reached.pushed += report.pushed;
    }

    /// Everything on the way arrives, and what that leads to.
    fn arrive_all(&mut self) -> Result<(), String> {
        while !self.messages.is_empty() {
            let (from, to, message) = self.messages.remove(0);
            self.arrive(from, to, message)?;
        }
        Ok(())
    }

    /// Time passes until somebody is due, or until then.
    fn pass(&mut self, until: u64) -> Result<(), String> {
        let mirrors = self
            .replicas
            .iter()
            .flat_map(|replica| replica.mirrors.values());
        let next = mirrors.filter_map(Mirror::deadline).min();
        self.now = next.map_or(until, |next| next.min(until)).max(self.now + 1);
        self.tick()
    }

    /// Ticks whoever is due.
    fn tick(&mut self) -> Result<(), String> {
        for replica in 0..self.replicas.len() {
            for peer in 0..self.replicas.len() {
                let mirror = self.replicas[replica].mirrors.get(&peer);
                let due = mirror.and_then(Mirror::deadline);
                if due.is_some_and(|due| due <= self.now) {
                    self.tell(replica, peer, Event::Tick)?;
                }
            }
        }
        Ok(())
    }

    /// Applies what is due everywhere.
    fn release(&mut self) -> Result<(), String> {
        for replica in 0..self.replicas.len() {
            self.retry(replica, Shard::release)?;
        }
        Ok(())
    }

    fn heal(&mut self) -> Result<(), String> {
        self.cut.clear();
        for replica in 0..self.replicas.len() {
            for peer in 0..self.replicas.len() {
                self.tell(replica, peer, Event::Wake)?;
            }
        }
        Ok(())
    }

    fn restart(&mut self, replica: usize) -> Result<(), String> {
        self.replicas[replica].reopen(self.now)?;
        self.remember(replica);
        self.begin_mirrors(replica)
    }

    /// Makes the machines of a replica that has just started, and tells both sides of it.
    fn begin_mirrors(&mut self, replica: usize) -> Result<(), String> {
        let others = (0..self.replicas.len()).filter(|other| *other != replica);
        let others: Vec<usize> = others.collect();
        let of = &mut self.replicas[replica];
        of.life += 1;
        of.asked.clear();
        of.heard.clear();
        let seed = of.life << 8;
        of.mirrors = others
            .iter()
            .map(|peer| {
                let rules = round::Rules {
                    lead: replica < *peer,
                    period: Duration::from_secs(10),
                    ..round::Rules::default()
                };
                (*peer, Mirror::new(rules, seed + *peer as u64))
            })
            .collect();
        for peer in others {
            self.meet(replica, peer, None)?;
            self.meet(peer, replica, None)?;
            self.tell(replica, peer, Event::Wake)?;
            self.tell(peer, replica, Event::Gone)?;
            self.tell(peer, replica, Event::Wake)?;
        }
        Ok(())
    }

    /// A store failed other than by refusing: the replica dies and comes back.
    fn failed(&mut self, replica: usize, error: &weir_backend_api::Error) -> Result<(), String> {
        if self.replicas[replica].faults.is_dead() {
            self.reached.crashes += 1;
        } else if error.kind() == ErrorKind::Poisoned {
            self.reached.torn += 1;
        } else {
            return Err(format!("unexpected: {error}"));
        }
        self.restart(replica)
    }

    /// Calls until it works.
    fn retry<T>(
        &mut self,
        replica: usize,
        mut call: impl FnMut(&mut Shard) -> weir_backend_api::Result<T>,
    ) -> Result<T, String> {
        for _ in 0..TRIES_MAX {
            let of = &mut self.replicas[replica];
            let Some(shard) = &mut of.shard else {
                self.restart(replica)?;
                continue;
            };
            shard.now = self.now;
            match call(shard) {
                Ok(done) => return Ok(done),
                Err(error) if error.kind() == ErrorKind::Unavailable => {}
                Err(error) => self.failed(replica, &error)?,
            }
        }
        Err("it never works again".to_owned())
    }
}
