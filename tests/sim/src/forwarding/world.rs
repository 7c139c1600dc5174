//! Plays a forwarded history and watches: what is certified is there, what was taken arrives or was
//! given up by rule, nothing is made up, nothing takes for ever.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use weir_backend_api::{
    ErrorKind,
    conformance::model::Model,
    fault::{Fault, Operation},
};
use weir_core::{
    change::{Change, KeptChange, WildcardChange},
    forward::{
        Entry,
        link::{Event, Link, Rules, Sizes, State},
    },
    key::Key,
    keyexpr::OwnedKeyExpr,
    version::{Stamp, Version},
};

use super::{
    journal::{Journal, version_of},
    network::Message,
    reached::{Outcome, Reached},
    scenario::{Edge, Scenario, Step, Taken},
    upstream::{Store, op},
};
use crate::{disk::Disk, scenario::Break};

/// A millisecond, nearly (NTP64).
const MILLI: u64 = (1 << 32) / 1_000;
/// When a history begins.
pub(super) const START: u64 = 1 << 50;
/// How far ahead a stamp may be.
pub(super) const DRIFT: u64 = 500 * MILLI;
/// How long everything may take once nothing is in the way.
const PATIENCE: u64 = 900_000 * MILLI;
/// More failures in a row than faults were asked for are a bug.
pub(super) const TRIES_MAX: usize = 64;
/// More packets at once than all links together may have under way.
const PACKETS_MAX: usize = 2_000;
/// What a parcel may hold, in bytes.
const PARCEL_BYTES: usize = 200;

/// So that few samples reach every branch.
const SMALL: Sizes = Sizes {
    stretches_max: 6,
    compare_max: 3,
    versions_max: 9,
    list_below: 3,
    parts: 3,
    ids_max: 3,
    heads_max: 2,
    items_max: 5,
    ripe_parts: 4,
    ripe_bytes: 150,
};

/// An edge: its journal, and a link to each upstream.
pub(super) struct Router {
    pub(super) of: Edge,
    pub(super) journal: Journal,
    pub(super) links: Vec<Link>,
    /// How often it was started: answers to questions of an earlier life are nobody's.
    pub(super) life: u64,
    /// The highest question that each link has asked.
    pub(super) asked: Vec<u64>,
}

/// A sample, and who has to get it from whom.
pub(super) struct Sample {
    pub(super) change: KeptChange,
    pub(super) expires: Option<u64>,
    /// By whom (an edge), to whom (an upstream).
    pub(super) owed: BTreeSet<(usize, usize)>,
}

pub(super) struct World {
    pub(super) now: u64,
    pub(super) routers: Vec<Router>,
    pub(super) stores: Vec<Store>,
    /// Edge, upstream, whether it goes up, what.
    pub(super) messages: Vec<(usize, usize, bool, Message)>,
    pub(super) cut: BTreeSet<(usize, usize, bool)>,
    pub(super) sensors: Vec<i64>,
    pub(super) samples: BTreeMap<Version, Sample>,
    /// Parcels that were stored.
    pub(super) parcels: BTreeSet<(usize, Vec<u8>)>,
    pub(super) serial: u64,
    pub(super) reached: Reached,
    pub(super) trace: DefaultHasher,
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
        let stores = scenario.upstreams.iter().map(|of| Store::new(*of));
        let stores = stores.collect::<Result<Vec<_>, String>>()?;
        let count = stores.len();
        let routers = scenario.edges.iter().map(|of| Router {
            of: *of,
            journal: Journal::new(count, of.capacity, of.keep.saturating_mul(MILLI)),
            links: Vec::new(),
            life: 0,
            asked: vec![0; count],
        });
        let mut world = Self {
            now: START,
            routers: routers.collect(),
            stores,
            messages: Vec::new(),
            cut: BTreeSet::new(),
            sensors: scenario.sensors.clone(),
            samples: BTreeMap::new(),
            parcels: BTreeSet::new(),
            serial: 0,
            reached: Reached::default(),
            trace: DefaultHasher::new(),
        };
        for edge in 0..world.routers.len() {
            world.begin_links(edge)?;
        }
        Ok(world)
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Sample { .. } => self.sample(step)?,
            Step::Packet(pick, how) => self.packet(*pick, *how)?,
            Step::Pass(millis) => {
                self.now += millis * MILLI;
                self.release()?;
                self.tick()?;
                self.trim();
            }
            Step::Calm(millis) => {
                let until = self.now + millis * MILLI;
                while self.now < until {
                    self.arrive_all()?;
                    self.pass(until)?;
                }
                self.release()?;
                self.trim();
            }
            Step::Cut(edge, upstream, up, is_noticed) => {
                self.cut.insert((*edge, *upstream, *up));
                if *is_noticed {
                    self.tell(*edge, *upstream, Event::Gone)?;
                }
            }
            Step::Heal => self.heal()?,
            Step::Sync(edge) => self.routers[*edge].journal.sync(),
            Step::EdgeDies(edge) => {
                self.reached.edge_died += 1;
                for version in self.routers[*edge].journal.crash() {
                    self.reached.unsynced += 1;
                    self.excuse(*edge, &version);
                }
                self.begin_links(*edge)?;
            }
            Step::Rank(edge, how) => {
                let router = &mut self.routers[*edge];
                let moved = router.journal.rank(*how);
                let drains = |link: &Link| link.status().state == State::Draining;
                self.reached.ranked += moved;
                if router.links.iter().any(drains) {
                    self.reached.ranked_in_drain += moved;
                }
            }
            Step::Unreadable(edge, times) => self.routers[*edge].journal.unreadable = *times,
            Step::Restart(upstream) => self.restart(*upstream)?,
            Step::Break { upstream, nth, how } => {
                let fault = match *how {
                    Break::Refused => Fault::Error(ErrorKind::Unavailable),
                    Break::Torn { applied } => Fault::Torn { applied },
                    Break::Crash { applied } => Fault::Crash { applied },
                };
                let faults = &self.stores[*upstream].faults;
                faults.at(Operation::Commit, *nth, fault);
            }
            Step::Backup(upstream) => {
                let store = &mut self.stores[*upstream];
                store.backup = Some(store.copy()?);
            }
            Step::Restore(upstream) => self.restore(*upstream)?,
        }
        Ok(())
    }

    /// A sensor stamps a sample; edges take it, and it goes on its way.
    fn sample(&mut self, step: &Step) -> Result<(), String> {
        let Step::Sample {
            sensor,
            away,
            on,
            value,
            heard,
            live,
            taken,
            lane,
            worth,
        } = step
        else {
            return Ok(());
        };
        let stamp = self.stamp(*sensor, *away);
        let value = value.clone();
        let change = if on.contains('*') {
            let expr = OwnedKeyExpr::new(*on).map_err(|error| error.to_string())?;
            let stamp = Some(stamp);
            KeptChange::Wildcard(WildcardChange { expr, stamp, value })
        } else {
            let (key, stamp) = (Key::from(*on), Some(stamp));
            KeptChange::Key(Change { key, stamp, value })
        };
        format!("{change:?}").hash(&mut self.trace);
        let version = version_of(&change);
        let edges = self.routers.len();
        let mut hears: Vec<usize> = (0..edges).filter(|edge| heard >> edge & 1 == 1).collect();
        if hears.is_empty() {
            hears.push(0);
        }
        // Operations are neither dropped nor do they expire.
        let is_op = matches!(change, KeptChange::Wildcard(_));
        let worth = worth.filter(|_| !is_op);
        let expires = worth.map(|worth| self.now + worth * MILLI);
        let mut owed = BTreeSet::new();
        for edge in &hears {
            let entry = Entry {
                change: change.clone(),
                lane: *lane,
                expires,
            };
            let is_kept = is_op || !matches!(taken, Taken::Dropped);
            let journal = &mut self.routers[*edge].journal;
            let mut dropped = Vec::new();
            if matches!(taken, Taken::NewestOnly) && !is_op {
                dropped = journal.coalesce(&entry);
            }
            let given_up = journal.append(entry, is_kept);
            if is_kept {
                owed.extend((0..self.stores.len()).map(|upstream| (*edge, upstream)));
            } else {
                self.reached.dropped += 1;
            }
            self.reached.dropped += dropped.len() as u64;
            self.reached.given_up += given_up.len() as u64;
            for version in dropped.iter().chain(&given_up) {
                self.excuse(*edge, version);
            }
            // Not only after those before: this very sample may have been given up.
            if given_up.contains(&version) {
                owed.retain(|(by, _)| by != edge);
            }
        }
        let sample = Sample {
            change: change.clone(),
            expires,
            owed,
        };
        self.samples.insert(version, sample);
        for upstream in 0..self.stores.len() {
            if live >> upstream & 1 == 1 {
                let message = Message::Live(change.clone());
                self.messages.push((hears[0], upstream, true, message));
            }
        }
        Ok(())
    }

    fn stamp(&mut self, sensor: usize, away: i64) -> Stamp {
        let milli = i64::try_from(MILLI).unwrap_or(i64::MAX);
        let wrong = (self.sensors[sensor] + away).saturating_mul(milli);
        // Never the same twice.
        self.serial += 1;
        let time = self.now.saturating_add_signed(wrong) & !0xffff | self.serial;
        let mut id = [0; 16];
        id[0] = u8::try_from(sensor + 1).unwrap_or(u8::MAX);
        Stamp { time, id }
    }

    /// Nobody can ask an edge for this any more.
    fn excuse(&mut self, edge: usize, version: &Version) {
        if let Some(sample) = self.samples.get_mut(version) {
            sample.owed.retain(|(by, _)| *by != edge);
        }
    }

    pub(super) fn edge_now(&self, edge: usize) -> u64 {
        self.skewed(self.routers[edge].of.skew)
    }

    pub(super) fn upstream_now(&self, upstream: usize) -> u64 {
        self.skewed(self.stores[upstream].of.skew)
    }

    fn skewed(&self, skew: i64) -> u64 {
        let milli = i64::try_from(MILLI).unwrap_or(i64::MAX);
        self.now.saturating_add_signed(skew.saturating_mul(milli))
    }

    /// Time passes until some link is due, or until then.
    fn pass(&mut self, until: u64) -> Result<(), String> {
        let mut next = until;
        for edge in 0..self.routers.len() {
            let ahead = self.edge_now(edge);
            let links = self.routers[edge].links.iter();
            if let Some(due) = links.filter_map(Link::deadline).min() {
                next = next.min(self.now + due.saturating_sub(ahead));
            }
        }
        self.now = next.max(self.now + 1);
        self.tick()
    }

    /// Ticks whoever is due.
    fn tick(&mut self) -> Result<(), String> {
        for edge in 0..self.routers.len() {
            for upstream in 0..self.stores.len() {
                let due = self.routers[edge].links[upstream].deadline();
                if due.is_some_and(|due| due <= self.edge_now(edge)) {
                    self.tell(edge, upstream, Event::Tick)?;
                }
            }
        }
        Ok(())
    }

    /// Applies what is due at the upstreams.
    fn release(&mut self) -> Result<(), String> {
        for upstream in 0..self.stores.len() {
            let now = self.upstream_now(upstream);
            let released = self.stores[upstream].release(now).map(|()| Vec::new());
            self.judge(upstream, released)?;
        }
        Ok(())
    }

    fn trim(&mut self) {
        for edge in 0..self.routers.len() {
            let now = self.edge_now(edge);
            self.routers[edge].journal.trim(now);
        }
    }

    /// Everything gets through again. Who had noticed that nothing does notices that, too.
    fn heal(&mut self) -> Result<(), String> {
        self.cut.clear();
        for edge in 0..self.routers.len() {
            for upstream in 0..self.stores.len() {
                if self.routers[edge].links[upstream].status().state == State::Down {
                    self.tell(edge, upstream, Event::Wake)?;
                }
            }
        }
        Ok(())
    }

    fn is_open(&self, edge: usize, upstream: usize) -> bool {
        [true, false]
            .iter()
            .all(|up| !self.cut.contains(&(edge, upstream, *up)))
    }

    pub(super) fn restart(&mut self, upstream: usize) -> Result<(), String> {
        let now = self.upstream_now(upstream);
        self.stores[upstream].reopen(now)?;
        self.is_another(upstream)
    }

    fn restore(&mut self, upstream: usize) -> Result<(), String> {
        let now = self.upstream_now(upstream);
        let store = &mut self.stores[upstream];
        let copy = store.backup.as_ref().map(Disk::copy).transpose();
        let disk = match copy.map_err(|error| error.to_string())? {
            Some(disk) => {
                self.reached.restored += 1;
                disk
            }
            None => {
                self.reached.wiped += 1;
                Disk::new().map_err(|error| error.to_string())?
            }
        };
        store.put_back(disk, now)?;
        // What no edge keeps any more is gone with what had certified it.
        for (version, sample) in &mut self.samples {
            sample
                .owed
                .retain(|(by, to)| *to != upstream || self.routers[*by].journal.keeps(version));
        }
        self.is_another(upstream)
    }

    /// All links learn that an upstream was away.
    fn is_another(&mut self, upstream: usize) -> Result<(), String> {
        for edge in 0..self.routers.len() {
            let is_open = self.is_open(edge, upstream);
            // Some are only told that it is there, and were never told that it was not.
            if !is_open || self.now.is_multiple_of(2) {
                self.tell(edge, upstream, Event::Gone)?;
            }
            if is_open {
                self.tell(edge, upstream, Event::Wake)?;
            }
        }
        Ok(())
    }

    /// Makes the links of an edge that has just started.
    fn begin_links(&mut self, edge: usize) -> Result<(), String> {
        let router = &mut self.routers[edge];
        router.life += 1;
        let rules = Rules {
            order: router.of.order,
            period: 5_000 * MILLI,
            settle: 1_000 * MILLI,
            timeout: 2_000 * MILLI,
            in_flight: router.of.in_flight,
            parcel_bytes: PARCEL_BYTES,
            rate: router.of.rate,
        };
        let seed = router.life << 8 | edge as u64;
        let upstreams = self.stores.len();
        router.asked = vec![0; upstreams];
        let sizes = if router.of.is_large {
            Sizes::default()
        } else {
            SMALL
        };
        let link = |upstream| Link::with_sizes(rules, sizes, seed << 8 | upstream as u64);
        router.links = (0..upstreams).map(link).collect();
        for upstream in 0..upstreams {
            if self.is_open(edge, upstream) {
                self.tell(edge, upstream, Event::Wake)?;
            }
        }
        Ok(())
    }

    /// Nothing is in the way any more: every upstream gets what it is owed.
    fn end(mut self) -> Result<Outcome, String> {
        self.now += 100_000 * MILLI;
        for router in &mut self.routers {
            router.journal.sync();
            router.journal.unreadable = 0;
        }
        for upstream in 0..self.stores.len() {
            self.stores[upstream].faults.calm();
            self.restart(upstream)?;
        }
        self.release()?;
        self.heal()?;
        let until = self.now + PATIENCE;
        loop {
            self.arrive_all()?;
            let unsettled = self.unsettled();
            match unsettled {
                None => break,
                Some(what) if self.now > until => return Err(what),
                Some(_) => self.pass(until + 1)?,
            }
        }
        self.release()?;
        self.compare()?;
        for router in &self.routers {
            self.reached.cut += router.journal.splits;
            self.reached.cut_finely += router.journal.fine_splits;
            self.reached.late += router.journal.late;
        }
        for store in &self.stores {
            format!("{:?}", store.versions()?).hash(&mut self.trace);
        }
        Ok(Outcome {
            trace: self.trace.finish(),
            reached: self.reached,
        })
    }

    /// What has not come to rest.
    fn unsettled(&self) -> Option<String> {
        for (edge, router) in self.routers.iter().enumerate() {
            for (upstream, link) in router.links.iter().enumerate() {
                if link.status().state != State::Up {
                    let status = link.status();
                    return Some(format!("edge {edge}, upstream {upstream}: {status:?}"));
                }
                if router.journal.is_waiting(upstream) {
                    return Some(format!("edge {edge}, upstream {upstream}: something waits"));
                }
            }
        }
        None
    }

    fn compare(&mut self) -> Result<(), String> {
        for sample in self.samples.values() {
            if sample.expires.is_some_and(|expires| expires < self.now) {
                self.reached.expired += 1;
                continue;
            }
            for (edge, upstream) in &sample.owed {
                if !self.stores[*upstream].holds(&sample.change)? {
                    return Err(format!(
                        "upstream {upstream} did not get {:?} from edge {edge}",
                        sample.change
                    ));
                }
            }
        }
        for (index, store) in self.stores.iter().enumerate() {
            // Whoever is owed everything answers as if it had heard everything.
            let is_owed_all = self.samples.values().all(|sample| {
                let mut owed = sample.owed.iter();
                sample.expires.is_none() && owed.any(|(_, upstream)| *upstream == index)
            });
            if is_owed_all {
                self.reached.owed_all += 1;
                let mut model = Model::default();
                for sample in self.samples.values() {
                    model.apply(&op(&sample.change));
                }
                let (live, expected) = (store.live()?, model.state());
                if live != expected {
                    return Err(format!(
                        "upstream {index} holds\n{live:#?}\nthe model\n{expected:#?}"
                    ));
                }
            }
            for (key, version) in store.versions()? {
                let is_real = self.samples.get(&version).is_some_and(
                    |sample| matches!(&sample.change, KeptChange::Key(change) if change.key == key),
                );
                if !is_real {
                    return Err(format!("upstream {index} made up {key:?} {version}"));
                }
            }
        }
        Ok(())
    }
}
