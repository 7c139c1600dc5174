//! A storage's task: empties the queue in batches, sends each change to its shard, and does the work
//! that takes long between batches.

mod aside;

use std::{
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use weir_core::{
    change::{Change, KeptChange, Rejection, Table, WildcardChange, Write},
    identity::Identity,
    key::Key,
    keyspace::KeySpace,
    pattern::KeySet,
    placement::{Description, Destination, Ring, Route},
    version::{Stamp, Version},
};
use zenoh::{key_expr::keyexpr, sample::Sample};

use super::{
    counters::Counters,
    jobs,
    noticed::Notices,
    offer::{self, Offer, Outcome},
    packed::{Packed, Unpacked},
    queue::{Batch, Queue},
    shard::{Job, Learnt, News, Shard},
};
use crate::{clock::SharedClock, convert};

/// How long the task waits for more after a batch while changes keep coming.
const LINGER: Duration = Duration::from_millis(1);
/// How long a shard with nothing due may sleep.
const SLEEP_MAX: Duration = Duration::from_secs(3_600);

/// What is handed to a storage.
pub(crate) enum Handed {
    /// A small sample; the rest of it is in the queue's arena.
    Packed(Packed),
    /// A sample as it came.
    Sample(Box<Sample>),
    /// A change.
    Offer(Box<Offer>),
    /// What another replica has sent: stamped, each with somebody who waits for its outcome.
    Offers(Vec<Offer>),
    /// What was set aside is to be dropped or put again.
    Aside(Aside),
    /// What was learnt of the replica of this name.
    News(Box<(String, News)>),
    /// What a replica has forgotten is to be set aside; `done` hears whether it was.
    Forgotten {
        /// Keys and what they hold, if they still do.
        keys: Vec<(Key, Version)>,
        /// Who waits.
        done: oneshot::Sender<bool>,
    },
    /// What links have told that they lost is to be remembered; `done` hears whether it is.
    Lost {
        /// Rows of [`Table::System`].
        rows: Vec<(Vec<u8>, Vec<u8>)>,
        /// Who waits.
        done: oneshot::Sender<bool>,
    },
}

// It goes from one core to another with every sample, so what is rare is behind a pointer.
const _: () = assert!(size_of::<Handed>() <= 64);

/// Drop or put again what was set aside in a table.
pub(crate) struct Aside {
    /// [`Table::Parked`] or [`Table::Quarantine`].
    pub table: Table,
    /// Put it again, under a new timestamp; otherwise it is dropped.
    pub release: bool,
    /// Told how many there were.
    pub done: mpsc::Sender<Result<u64, String>>,
}

/// How a storage's changes are treated before they reach a shard.
pub(crate) struct Intake {
    /// Which keys are the storage's.
    pub set: KeySet,
    /// Whether nothing but those keys is subscribed to, so that none needs a second look.
    pub is_exact: bool,
    /// Its prefix.
    pub space: KeySpace,
    /// Refuse changes.
    pub read_only: bool,
    /// Stamp puts that nobody stamped; otherwise they are rejected.
    pub stamp: bool,
}

/// What the task shows of itself.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(crate) struct Condition {
    /// Whether every store is up and nothing waits to get into it.
    pub current: bool,
    /// Changes in spools.
    pub spooled_changes: u64,
    /// Bytes of spools.
    pub spooled_bytes: u64,
    /// Long work that waits or is under way.
    pub jobs: usize,
    /// The task has ended because of a bug; nothing more is stored.
    pub failed: bool,
}

/// Housekeeping that comes round.
#[derive(Clone, Debug)]
pub(crate) struct Upkeep {
    /// How often (NTP64).
    pub period: u64,
    /// How old a tombstone is before it may be collected (NTP64).
    pub lifespan: u64,
    /// How long tombstones wait for a replica that is silent (NTP64).
    pub patience: u64,
    /// Bytes of values that each shard keeps at the most.
    pub bytes_max: Option<u64>,
    /// Versions of a key that a time series keeps at the most.
    pub versions_max: Option<usize>,
}

/// A storage's task.
pub(crate) struct Worker {
    /// The storage's name.
    pub name: String,
    /// What was noticed of its mirrors' stores.
    pub notices: Notices,
    pub queue: Arc<Queue<Handed>>,
    pub intake: Arc<Intake>,
    pub shards: Vec<Shard>,
    pub ring: Ring,
    pub route: Box<dyn Route>,
    pub clock: Arc<SharedClock>,
    pub counters: Arc<Counters>,
    pub condition: Arc<Mutex<Condition>>,
    pub upkeep: Upkeep,
    /// When housekeeping is next due (NTP64).
    pub upkeep_due: u64,
    pub lots: Vec<Vec<Offer>>,
    /// Room for the next batch.
    pub batch: Batch<Handed>,
    /// Room for the next batch's changes.
    pub offers: Vec<Offer>,
    /// What retention has last looked at, for each shard.
    pub retained: Vec<Retained>,
}

/// When and at what size retention has last looked at a shard.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Retained {
    /// When (NTP64).
    pub at: u64,
    /// [`Counters::received_bytes`] then.
    pub received_bytes: u64,
}

impl Worker {
    /// Works until there is nothing to do; answers how long it may sleep.
    pub(crate) fn turn(&mut self) -> Duration {
        let mut linger = Duration::ZERO;
        self.queue.attend();
        loop {
            if self.drain(linger) {
                linger = LINGER;
                self.work();
                continue;
            }
            let was_holding = self.is_holding();
            self.work();
            // What it could keep nowhere is kept now: the queue, which was left alone, has more.
            if !was_holding || self.is_holding() {
                return self.sleep();
            }
        }
    }

    /// Whether a shard holds changes that it could keep nowhere, so that more must not be taken.
    fn is_holding(&self) -> bool {
        self.shards.iter().any(Shard::is_holding)
    }

    /// Takes one batch from the queue and offers it; `false` if there was none, or if a shard holds
    /// changes that it could keep nowhere and more must not be taken.
    pub(crate) fn drain(&mut self, linger: Duration) -> bool {
        !self.is_holding() && self.take(linger)
    }

    /// Takes one batch from the queue and offers it, whatever the shards hold; `false` if there was none.
    fn take(&mut self, linger: Duration) -> bool {
        let mut batch = std::mem::take(&mut self.batch);
        if !self.queue.take(&mut batch, linger) {
            self.batch = batch;
            return false;
        }
        let mut newest = Stamp::ZERO;
        let mut bytes = 0;
        let received = batch.items.len() as u64;
        let mut offers = std::mem::take(&mut self.offers);
        offers.reserve(batch.items.len());
        let (mut asides, mut news, mut forgotten) = (Vec::new(), Vec::new(), Vec::new());
        let mut lost = Vec::new();
        let mut unpacker = batch.arena.unpack();
        for handed in batch.items.drain(..) {
            let mut offer = match handed {
                Handed::Packed(packed) => match self.intake.unpacked(unpacker.next(&packed)) {
                    Some(offer) => offer,
                    None => {
                        self.counters.foreign.fetch_add(1, Relaxed);
                        continue;
                    }
                },
                Handed::Sample(sample) => match self.intake.read(&sample) {
                    Some(op) => Offer {
                        priority: sample.priority() as u8,
                        ..Offer::silent(op)
                    },
                    None => {
                        self.counters.foreign.fetch_add(1, Relaxed);
                        continue;
                    }
                },
                Handed::Offer(offer) => *offer,
                Handed::Offers(more) => {
                    for offer in more {
                        bytes += offer::size_of(&offer.op) as u64;
                        newest = newest.max(offer::stamp_of(&offer.op).unwrap_or_default());
                        offers.push(offer);
                    }
                    continue;
                }
                Handed::Aside(aside) => {
                    asides.push(aside);
                    continue;
                }
                Handed::Forgotten { keys, done } => {
                    forgotten.push((keys, done));
                    continue;
                }
                Handed::Lost { rows, done } => {
                    lost.push((rows, done));
                    continue;
                }
                Handed::News(learnt) => {
                    news.push(learnt);
                    continue;
                }
            };
            bytes += offer::size_of(&offer.op) as u64;
            if let Some(rejection) = self.stamp(&mut offer) {
                self.counters.rejected.fetch_add(1, Relaxed);
                offer.answer(|| rejection);
                continue;
            }
            newest = newest.max(offer::stamp_of(&offer.op).unwrap_or_default());
            offers.push(offer);
        }
        drop(unpacker);
        // The queue gets the room of this batch for the next but one.
        self.batch = batch;
        self.counters.received.fetch_add(received, Relaxed);
        self.counters.received_bytes.fetch_add(bytes, Relaxed);
        self.clock.observe(newest);
        self.distribute(offers);
        // Not before the changes were stamped: that may have waited for the disk, and then our own
        // stamps would seem to come from the future.
        let now = self.clock.now();
        for (shard, lot) in self.shards.iter_mut().zip(&mut self.lots) {
            shard.offer(now, lot);
        }
        for (keys, done) in forgotten {
            let shards = &mut self.shards;
            let all = shards
                .iter_mut()
                .map(|shard| shard.set_aside_forgotten(now, &keys));
            // All of them, whatever the first says. Who asked may have stopped waiting.
            let _ = done.send(all.fold(true, |all, one| all & one));
        }
        for (rows, done) in lost {
            let row = |(key, value)| Write::Row {
                table: Table::System,
                key,
                value: Some(value),
            };
            // Of all shards together: the first keeps it. Who told may have stopped waiting.
            let first = self.shards.first_mut();
            let rows = rows.into_iter().map(row).collect();
            let _ = done.send(first.is_some_and(|shard| shard.maintain(now, rows)));
        }
        for learnt in news {
            self.learn(now, &learnt.0, &learnt.1);
        }
        for aside in asides {
            let outcome = self.empty_table(&aside);
            // Who asked may have stopped waiting.
            let _ = aside.done.send(outcome);
        }
        self.show();
        true
    }

    /// Tells every shard what was learnt of a mirror.
    fn learn(&mut self, now: u64, mirror: &str, news: &News) {
        let own: Vec<Identity> = self.shards.iter().filter_map(Shard::store_id).collect();
        let all = self.shards.iter_mut();
        let learnt: Vec<Learnt> = all
            .map(|shard| shard.learn(now, mirror, news, &own))
            .collect();
        // All judge alike by what they remember; one that was down for long remembers less.
        let Some(first) = learnt.first() else { return };
        if let Some(fate) = first.fate {
            self.notices.note(&self.name, mirror, fate);
        }
        if learnt.iter().any(|learnt| learnt.is_doubtful) {
            self.notices.doubt(mirror);
        }
    }

    /// Does what is due, and the long work, taking batches in between.
    fn work(&mut self) {
        let now = self.clock.now();
        for shard in &mut self.shards {
            while shard.deadline().is_some_and(|due| due <= now) && shard.tick(now) {}
        }
        for index in 0..self.shards.len() {
            // A store that rests would fail them again: they wait with everything else.
            while self.shards[index].is_current() && !self.shards[index].jobs.is_empty() {
                let job = self.shards[index].jobs.remove(0);
                if !jobs::run(self, index, &job) {
                    self.shards[index].begin_again(job);
                    break;
                }
            }
        }
        if now >= self.upkeep_due {
            self.upkeep_due = now.saturating_add(self.upkeep.period);
            for index in 0..self.shards.len() {
                jobs::upkeep(self, index);
            }
        }
        self.show();
    }

    fn sleep(&self) -> Duration {
        let now = self.clock.now();
        let upkeep = self.needs_upkeep().then_some(self.upkeep_due);
        let deadline = self
            .shards
            .iter()
            .filter_map(Shard::deadline)
            .chain(upkeep)
            .min();
        match deadline {
            // A millisecond at the least: a deadline in the past that cannot be met must not spin.
            Some(due) => convert::span(due.saturating_sub(now))
                .max(LINGER)
                .min(SLEEP_MAX),
            None => SLEEP_MAX,
        }
    }

    fn needs_upkeep(&self) -> bool {
        !self.intake.read_only
    }

    /// Stamps a put that nobody stamped, or refuses it.
    fn stamp(&self, offer: &mut Offer) -> Option<Outcome> {
        if offer::stamp_of(&offer.op).is_some() || !offer::is_put(&offer.op) {
            return None;
        }
        if !self.intake.stamp {
            let rejected = weir_core::change::Admission::Rejected(Rejection::Unstamped);
            return Some(Outcome::Decided(
                rejected,
                weir_backend_api::Durability::Memory,
            ));
        }
        match self.clock.stamp() {
            Ok(stamp) => {
                offer::set_stamp(&mut offer.op, stamp);
                None
            }
            Err(error) => {
                self.counters.failed(format!("clock: {error}"));
                Some(Outcome::Failed(format!(
                    "no timestamp can be given: {error}"
                )))
            }
        }
    }

    /// Sends each change to its shard; a wildcard operation goes to all.
    fn distribute(&mut self, mut offers: Vec<Offer>) {
        if self.shards.len() == 1 {
            std::mem::swap(&mut self.lots[0], &mut offers);
            // What was there is decided; its room is for the next batch.
            self.offers = offers;
            return;
        }
        let mut destinations = Vec::with_capacity(offers.len());
        {
            let descriptions: Vec<Description<'_>> = offers
                .iter()
                .filter_map(|offer| match &offer.op {
                    KeptChange::Key(change) => Some(describe(change, offer.priority)),
                    KeptChange::Wildcard(_) => None,
                })
                .collect();
            self.route.route(&descriptions, &mut destinations);
        }
        let mut destinations = destinations.into_iter();
        for mut offer in offers.drain(..) {
            let KeptChange::Key(change) = &offer.op else {
                self.offer_all(offer);
                continue;
            };
            let hash = token(&change.key);
            match destinations.next().unwrap_or(Destination::Default) {
                Destination::Default => self.to(self.ring.place(hash), offer),
                Destination::Token(token) => self.to(self.ring.place(token), offer),
                Destination::Shard(shard) if (shard as usize) < self.shards.len() => {
                    self.to(shard as usize, offer);
                }
                // An answer that makes no sense costs the answer, not the sample.
                Destination::Shard(_) => self.to(self.ring.place(hash), offer),
                Destination::Shards(shards) => {
                    let mut shards: Vec<usize> =
                        shards.into_iter().map(|shard| shard as usize).collect();
                    shards.retain(|shard| *shard < self.shards.len());
                    shards.sort_unstable();
                    shards.dedup();
                    if shards.is_empty() {
                        self.to(self.ring.place(hash), offer);
                        continue;
                    }
                    let copies = offer.for_shards(shards.len());
                    for (shard, copy) in shards.into_iter().zip(copies) {
                        self.to(shard, copy);
                    }
                }
                Destination::Reject(_) => {
                    self.counters.rejected.fetch_add(1, Relaxed);
                    offer.refuse(Rejection::NotMember);
                }
            }
        }
        self.offers = offers;
    }

    fn to(&mut self, shard: usize, offer: Offer) {
        self.lots[shard].push(offer);
    }

    fn offer_all(&mut self, offer: Offer) {
        let copies = offer.for_shards(self.lots.len());
        for (lot, copy) in self.lots.iter_mut().zip(copies) {
            lot.push(copy);
        }
    }

    fn show(&self) {
        let spooled = self.shards.iter().map(Shard::spooled);
        let (changes, bytes) = spooled.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        *self.condition.lock() = Condition {
            current: self.shards.iter().all(Shard::is_current),
            spooled_changes: changes,
            spooled_bytes: bytes,
            jobs: self.shards.iter().map(|shard| shard.jobs.len()).sum(),
            failed: false,
        };
    }

    /// The last turn: everything queued is decided, then the stores are closed. A store that rests is
    /// tried all the same, for as long as that helps.
    pub(crate) fn finish(mut self) {
        loop {
            while self.drain(Duration::ZERO) {}
            let now = self.clock.now();
            let kept = |all: bool, shard: &mut Shard| shard.try_last(now) && all;
            if !self.is_holding() || !self.shards.iter_mut().fold(true, kept) {
                break;
            }
        }
        // Of what is still queued the shards that can take their part; what they cannot take is in
        // their hands then, and counted among what is lost.
        while self.take(Duration::ZERO) {}
        let now = self.clock.now();
        for shard in self.shards {
            shard.close(now);
        }
    }
}

impl Intake {
    /// What a sample changes; `None` if that is not the storage's business.
    pub(crate) fn read(&self, sample: &Sample) -> Option<KeptChange> {
        let stamp = sample.timestamp().map(Stamp::from_uhlc);
        self.change(sample.key_expr(), stamp, convert::value_of(sample))
    }

    /// What a packed sample changes; `None` if that is not the storage's business.
    fn unpacked(&self, sample: Unpacked) -> Option<Offer> {
        let Unpacked {
            key,
            stamp,
            value,
            priority,
        } = sample;
        let op = if self.is_exact && !self.read_only && !is_wild(&key) {
            let key = self.space.strip(key)?;
            KeptChange::Key(Change { key, stamp, value })
        } else {
            // A wildcard operation is remembered for long: its value must not keep the batch's memory.
            let value = value.map(|value| value.detached());
            // Zenoh has carried it, so it is a key expression.
            self.change(keyexpr::new(&*key).ok()?, stamp, value)?
        };
        Some(Offer {
            priority,
            ..Offer::silent(op)
        })
    }

    /// A change of a key or of a key expression; `None` if that is not the storage's business.
    pub(crate) fn change(
        &self,
        expr: &keyexpr,
        stamp: Option<Stamp>,
        value: Option<weir_core::value::Value>,
    ) -> Option<KeptChange> {
        if self.read_only {
            return None;
        }
        if expr.is_wild() {
            let expr = expr.to_owned();
            return Some(KeptChange::Wildcard(WildcardChange { expr, stamp, value }));
        }
        if !self.is_exact && !self.set.matches(expr) {
            return None;
        }
        let key = self.space.relative(expr)?;
        Some(KeptChange::Key(Change { key, stamp, value }))
    }
}

/// As [`keyexpr::is_wild`] has it, for a text that is known to be a key expression.
fn is_wild(expr: &str) -> bool {
    expr.contains('*')
}

fn describe(change: &Change, priority: u8) -> Description<'_> {
    Description {
        key: &change.key,
        key_hash: token(&change.key),
        stamp: change.stamp,
        value: change.value.as_ref(),
        priority,
    }
}

fn token(key: &Key) -> u64 {
    u64::try_from(key.hash128() >> 64).unwrap_or_default()
}

impl Job {
    /// What logs call it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Fold(_) => "fold",
            Self::Expand { .. } => "expand",
        }
    }
}
