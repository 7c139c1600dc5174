//! A storage: one task that owns the shards, and what the rest of the router holds of it.

pub(crate) mod counters;
mod jobs;
pub(crate) mod lost;
pub(crate) mod noticed;
pub(crate) mod offer;
pub(crate) mod packed;
pub(crate) mod queue;
mod replicas;
pub(crate) mod shard;
mod spool;
mod worker;

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use weir_backend_api::{Backlog, Capability, Count, recover};
use weir_core::{
    admission::History,
    identity::Identity,
    keyspace::KeySpace,
    pattern::KeySet,
    placement::{ByChunk, Ring, Route},
    value::Value,
    version::Stamp,
};
use zenoh::{bytes::ZBytes, key_expr::keyexpr, qos::CongestionControl, sample::Sample};

use self::{
    counters::Counters,
    noticed::Notices,
    offer::{Ack, Offer},
    packed::Packed,
    queue::{Batch, Manners, Pushed, Queue},
    shard::{ResolverSlot, Shard, SharedReader},
    worker::{Handed, Intake, Retained, Worker},
};
pub(crate) use self::{
    shard::{News, Told},
    worker::{Aside, Condition, Upkeep},
};
use crate::clock::SharedClock;

/// What a storage is made of.
pub(crate) struct Plan {
    /// Its name.
    pub name: String,
    /// Which keys are its own.
    pub set: KeySet,
    /// Its prefix.
    pub space: KeySpace,
    /// Whether its queryable says that it has all there is to know of its keys.
    pub complete: bool,
    /// Refuse changes.
    pub read_only: bool,
    /// Stamp puts without a stamp; otherwise they are rejected.
    pub stamp: bool,
    /// How many changes may wait.
    pub queue_max: usize,
    /// Housekeeping.
    pub upkeep: Upkeep,
    /// Which chunk of a key decides its shard.
    pub shard_by: Option<i32>,
    /// Name, weight and plan of each shard.
    pub shards: Vec<(String, f64, shard::Plan)>,
    /// What people call the shards.
    pub labels: Vec<String>,
}

/// A storage that is open.
pub(crate) struct Storage {
    /// Its name.
    pub name: String,
    /// Which keys are its own.
    pub set: KeySet,
    /// Its prefix.
    pub space: KeySpace,
    /// Whether it has all there is to know of its keys.
    pub complete: bool,
    /// What it keeps.
    pub history: History,
    /// What its stores can do; the least of them.
    pub capability: Capability,
    /// What it has counted.
    pub counters: Arc<Counters>,
    /// What was noticed of its mirrors' stores.
    pub notices: Notices,
    queue: Arc<Queue<Handed>>,
    condition: Arc<Mutex<Condition>>,
    readers: Vec<Arc<SharedReader>>,
    resolver: Option<Arc<dyn ResolverSlot>>,
    labels: Vec<String>,
    clock: Arc<SharedClock>,
    intake: Arc<Intake>,
    rates: Mutex<Rates>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What goes through a storage, over about the last second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    /// Changes received a second.
    pub ingest: f64,
    /// Queries received a second.
    pub queries: f64,
    received: u64,
    queried: u64,
}

/// How long a storage may take to empty its queue and close.
const CLOSE_LIMIT: Duration = Duration::from_secs(60);

impl Storage {
    /// Opens the stores and starts the task. A store that cannot be opened yet is tried again and
    /// again, and what comes meanwhile is spooled. `route` decides the shards; without it, the native
    /// rule does.
    ///
    /// # Errors
    /// If the spool cannot be opened: then nothing could be promised.
    pub(crate) fn open(
        plan: Plan,
        route: Option<Box<dyn Route>>,
        clock: Arc<SharedClock>,
    ) -> io::Result<Arc<Self>> {
        let counters = Arc::new(Counters::default());
        let now = clock.now();
        let history = plan
            .shards
            .first()
            .map_or(History::Latest, |shard| shard.2.rules.history);
        let capability = plan.shards.iter().map(|shard| shard.2.volume.capability());
        let capability = capability
            .reduce(|a, b| Capability {
                durability_max: a.durability_max.min(b.durability_max),
                history: a.history && b.history,
                persistent: a.persistent && b.persistent,
                exact_count: a.exact_count && b.exact_count,
            })
            .ok_or_else(|| io::Error::other("a storage needs a shard"))?;
        let ring = Ring::new(
            plan.shards
                .iter()
                .map(|(name, weight, _)| (name.as_str(), *weight)),
        );
        let shards = plan
            .shards
            .into_iter()
            .map(|(_, _, plan)| Shard::new(plan, Arc::clone(&counters), now))
            .collect::<io::Result<Vec<_>>>()?;
        let queue = Arc::new(Queue::new(plan.queue_max));
        let condition = Arc::new(Mutex::new(Condition::default()));
        let notices = Notices::default();
        let intake = Arc::new(Intake {
            is_exact: plan.set.is_exact(),
            set: plan.set.clone(),
            space: plan.space.clone(),
            read_only: plan.read_only,
            stamp: plan.stamp,
        });
        let readers = shards.iter().map(Shard::reader).collect();
        let resolver = shards.first().and_then(Shard::resolver);
        let native = ByChunk {
            chunk: plan.shard_by,
        };
        let worker = Worker {
            name: plan.name.clone(),
            notices: notices.clone(),
            queue: Arc::clone(&queue),
            intake: Arc::clone(&intake),
            lots: shards.iter().map(|_| Vec::new()).collect(),
            retained: vec![Retained::default(); shards.len()],
            batch: Batch::default(),
            offers: Vec::new(),
            shards,
            ring,
            route: route.unwrap_or_else(|| Box::new(native)),
            clock: Arc::clone(&clock),
            counters: Arc::clone(&counters),
            condition: Arc::clone(&condition),
            upkeep_due: now.saturating_add(plan.upkeep.period),
            upkeep: plan.upkeep,
        };
        let task = tokio::spawn(drive(worker, Arc::clone(&queue), plan.name.clone()));
        Ok(Arc::new(Self {
            name: plan.name,
            set: plan.set,
            space: plan.space,
            complete: plan.complete,
            history,
            capability,
            counters,
            notices,
            queue,
            condition,
            readers,
            resolver,
            labels: plan.labels,
            clock,
            intake,
            rates: Mutex::default(),
            task: Mutex::new(Some(task)),
        }))
    }

    /// Hands a sample over; called on Zenoh's receive threads.
    pub(crate) fn take(&self, sample: Sample) {
        let manners = Manners {
            block: sample.congestion_control() == CongestionControl::Block,
            hurry: false,
            bytes: sample.payload().len() + sample.attachment().map_or(0, ZBytes::len),
        };
        let pushed = if Packed::fits(&sample) {
            let pack = |arena: &mut _| Handed::Packed(Packed::new(&sample, arena));
            self.queue.push_with(manners, pack)
        } else {
            self.queue.push(Handed::Sample(Box::new(sample)), manners)
        };
        if pushed == Pushed::Dropped {
            self.counters.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Offers a change whose outcome somebody waits for. `Err` gives the acknowledgement back: the
    /// change does not belong here, or the queue is full.
    pub(crate) fn offer(
        &self,
        expr: &keyexpr,
        stamp: Option<Stamp>,
        value: Option<Value>,
        ack: Ack,
    ) -> Result<(), (Ack, &'static str)> {
        let bytes = value.as_ref().map_or(0, Value::len);
        if self.intake.read_only {
            return Err((ack, "this storage is read-only"));
        }
        let Some(op) = self.intake.change(expr, stamp, value) else {
            return Err((ack, "the key does not belong to this storage"));
        };
        let (waiter, answer) = slot(ack);
        let manners = Manners {
            block: false,
            hurry: true,
            bytes,
        };
        match self.queue.push(
            Handed::Offer(Box::new(Offer {
                ack: Some(waiter),
                ..Offer::silent(op)
            })),
            manners,
        ) {
            Pushed::Queued => Ok(()),
            Pushed::Dropped => {
                self.counters.dropped.fetch_add(1, Relaxed);
                match answer.lock().take() {
                    Some(ack) => Err((ack, "the queue is full; try again")),
                    None => Ok(()),
                }
            }
        }
    }

    /// Has the task drop or put again what was set aside.
    ///
    /// # Errors
    /// If the queue is full or closed.
    pub(crate) fn set_aside(&self, aside: Aside) -> Result<(), String> {
        let manners = Manners {
            block: false,
            hurry: true,
            bytes: 0,
        };
        match self.queue.push(Handed::Aside(aside), manners) {
            Pushed::Queued => Ok(()),
            Pushed::Dropped => Err("the queue is full; try again".to_owned()),
        }
    }

    /// Takes the measure of the last `span`.
    pub(crate) fn measure(&self, span: Duration) {
        let (received, queried) = (
            self.counters.received.load(Relaxed),
            self.counters.queries.load(Relaxed),
        );
        let mut rates = self.rates.lock();
        let per_second = |now: u64, before: u64| (now - before) as f64 / span.as_secs_f64();
        *rates = Rates {
            ingest: per_second(received, rates.received),
            queries: per_second(queried, rates.queried),
            received,
            queried,
        };
    }

    /// What goes through.
    pub(crate) fn rates(&self) -> Rates {
        *self.rates.lock()
    }

    /// What the task shows of itself.
    pub(crate) fn condition(&self) -> Condition {
        self.condition.lock().clone()
    }

    /// How many changes wait in the queue.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// How much each shard holds, by what people call it; `None` while it is not open or cannot tell.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&str, Option<Count>)> {
        let shards = self.labels.iter().zip(&self.readers);
        shards.map(|(label, reader)| {
            let count = reader.get().and_then(|open| open.store.count().ok());
            (label.as_str(), count)
        })
    }

    /// Which store each shard is kept in, by what people call the shard; `None` while it is not open, or if
    /// it has no id.
    pub(crate) fn stores(&self) -> impl Iterator<Item = (&str, Option<Identity>)> {
        let shards = self.labels.iter().zip(&self.readers);
        shards.map(|(label, reader)| {
            let store = reader
                .get()
                .and_then(|open| recover::identity(&**open.store).ok());
            (label.as_str(), store.flatten())
        })
    }

    /// How much the stores hold; `None` while one is not open or cannot tell.
    pub(crate) fn count(&self) -> Option<Count> {
        total(self.counts().map(|(_, count)| count))
    }

    /// How far its stores have come with handing on what they keep on a server; `None` if they have none.
    pub(crate) fn backlog(&self) -> Option<Backlog> {
        let open = self.readers.iter().filter_map(|reader| reader.get());
        let backlogs = open.filter_map(|open| open.store.backlog());
        backlogs.reduce(|sum, one| Backlog {
            ready: sum.ready && one.ready,
            changes: sum.changes + one.changes,
            bytes: sum.bytes + one.bytes,
            shipped: sum.shipped + one.shipped,
            refused: sum.refused + one.refused,
            expired: sum.expired + one.expired,
            last_error: sum.last_error.or(one.last_error),
        })
    }

    /// Whether it takes and hands on what comes: its stores are up, and so is the server of each that has
    /// one, as far as is known.
    pub(crate) fn is_well(&self) -> bool {
        let server = self.backlog();
        self.condition().current && server.is_none_or(|server| server.last_error.is_none())
    }

    /// The shards, for readers.
    pub(crate) fn readers(&self) -> &[Arc<SharedReader>] {
        &self.readers
    }

    /// Now, by the clock that changes are judged by (NTP64).
    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Refuses more, decides what is queued, closes the stores.
    pub(crate) async fn close(&self) {
        self.queue.close();
        let task = self.task.lock().take();
        let Some(task) = task else { return };
        match tokio::time::timeout(CLOSE_LIMIT, task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(storage = self.name, %error, "the task ended badly"),
            Err(_) => tracing::error!(storage = self.name, "the task did not end in time"),
        }
    }
}

/// What shards hold together; `None` if one of them cannot tell.
pub(crate) fn total(counts: impl IntoIterator<Item = Option<Count>>) -> Option<Count> {
    counts.into_iter().try_fold(Count::default(), |sum, count| {
        let count = count?;
        Some(Count {
            keys: sum.keys + count.keys,
            bytes: sum.bytes + count.bytes,
        })
    })
}

/// An acknowledgement that can be taken back while nobody has used it.
fn slot(ack: Ack) -> (Ack, Arc<Mutex<Option<Ack>>>) {
    let durability = ack.durability;
    let shared = Arc::new(Mutex::new(Some(ack)));
    let answer = Arc::clone(&shared);
    let waiter = Ack {
        durability,
        answer: Box::new(move |outcome| {
            let ack = answer.lock().take();
            if let Some(ack) = ack {
                (ack.answer)(outcome);
            }
        }),
    };
    (waiter, shared)
}

/// The task: sleeps until there is something to do, then works on a thread that may block.
async fn drive(mut worker: Worker, queue: Arc<Queue<Handed>>, name: String) {
    let mut sleep = Duration::ZERO;
    let condition = Arc::clone(&worker.condition);
    loop {
        // Either is a reason to look; which of them it was does not matter.
        let _ = tokio::time::timeout(sleep, queue.woken()).await;
        let closed = queue.is_closed();
        let turn = tokio::task::spawn_blocking(move || {
            if closed {
                worker.finish();
                return None;
            }
            let sleep = worker.turn();
            Some((worker, sleep))
        });
        match turn.await {
            Ok(Some(next)) => (worker, sleep) = next,
            Ok(None) => return,
            Err(error) => {
                // A bug of ours: this storage stops, the router does not (S15).
                tracing::error!(storage = name, %error, "the storage's task failed; it is stopped");
                queue.close();
                *condition.lock() = Condition {
                    current: false,
                    failed: true,
                    ..Condition::default()
                };
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
