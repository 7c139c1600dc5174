//! What a link sees on Zenoh: every sample on its keys, and every change that somebody wants
//! acknowledged. Runs on receive threads, so it only hands over.
//!
//! Nothing is asked of where a sample comes from: one that came down from an upstream waits too, until
//! the next comparison of sums says that the upstream has it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::sync::oneshot;
use weir_backend_api::Durability;
use weir_core::{
    change::{Change, KeptChange, WildcardChange},
    key::Key,
    pattern::KeySet,
    value::Value,
    version::Stamp,
};
use zenoh::{key_expr::keyexpr, qos::CongestionControl, query::Query, sample::Sample};

use crate::{
    clock::wall,
    convert,
    query::{Acks, Kind, Operation},
    storage::{
        offer,
        packed::{Packed, Unpacked},
        queue::{Manners, Pushed, Queue},
    },
};

/// Samples that may wait for the link's task: some seconds of a busy vehicle.
const QUEUE_MAX: usize = 65_536;

/// Where the link's subscribers and queryables hand over.
pub(super) struct Tap {
    name: String,
    keys: KeySet,
    /// Nothing but the link's keys comes.
    is_exact: bool,
    /// What waits for the link's task.
    pub queue: Queue<Handed>,
    /// Who answers.
    pub acks: Acks,
    /// Samples that were not kept: the queue was full and they did not ask to wait.
    pub overrun: AtomicU64,
}

/// What is handed to a link's task. Times are those of the wall clock when it came (NTP64).
pub(super) enum Handed {
    /// A small sample; the rest of it is in the queue's arena.
    Packed(Packed, u64),
    /// A sample as it came.
    Sample(Box<Sample>, u64),
    /// A change whose sender waits; `None` only while it is handed over.
    Asked(Option<Box<Waiting>>, u64),
    /// What another router's link has brought, and who waits until it is kept, or hears why it is not.
    Carried(Vec<KeptChange>, oneshot::Sender<Result<(), String>>),
}

/// A change whose sender waits until it is kept.
pub(super) struct Waiting {
    /// What is to be kept.
    pub change: KeptChange,
    /// Who waits, and how durable it must be.
    pub sender: Sender,
}

/// Who waits until a change is kept.
pub(super) struct Sender {
    /// To be answered.
    pub query: Query,
    /// How durable it must be.
    pub durability: Durability,
}

/// What is to be kept.
pub(super) struct Tapped {
    /// The change, of a key in full or of a key expression.
    pub change: KeptChange,
    /// When it came, by the wall clock (NTP64).
    pub came: u64,
    /// Zenoh's priority.
    pub priority: u8,
}

impl Tap {
    pub(super) fn new(name: &str, keys: KeySet, acks: Acks) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            is_exact: keys.is_exact(),
            keys,
            queue: Queue::new(QUEUE_MAX),
            acks,
            overrun: AtomicU64::new(0),
        })
    }

    /// Hands a sample over.
    pub(super) fn take(&self, sample: Sample) {
        let manners = Manners {
            block: sample.congestion_control() == CongestionControl::Block,
            hurry: false,
            bytes: sample.payload().len(),
        };
        let came = wall();
        let pushed = if Packed::fits(&sample) {
            let pack = |arena: &mut _| Handed::Packed(Packed::new(&sample, arena), came);
            self.queue.push_with(manners, pack)
        } else {
            let handed = Handed::Sample(Box::new(sample), came);
            self.queue.push(handed, manners)
        };
        if pushed == Pushed::Dropped {
            self.overrun.fetch_add(1, Relaxed);
        }
    }

    /// Takes a query: hands over the change that somebody wants acknowledged. Any other is none of a
    /// link's business, and gets no reply from it.
    pub(super) fn ask(&self, query: Query) {
        let Some(kind) = Kind::of(query.parameters()) else {
            return;
        };
        let asked = match Operation::read(&query, kind, &self.name) {
            Ok(Some(asked)) => asked,
            Ok(None) => return,
            Err(why) => return self.refuse(query, &why),
        };
        let bytes = asked.value.as_ref().map_or(0, Value::len);
        let Some(change) = self.change(query.key_expr(), asked.stamp, asked.value) else {
            return self.refuse(query, "the key does not belong to this link");
        };
        let sender = Sender {
            query,
            durability: asked.durability,
        };
        let mut waiting = Some(Box::new(Waiting { change, sender }));
        let manners = Manners {
            block: false,
            hurry: true,
            bytes,
        };
        let came = wall();
        self.queue
            .push_with(manners, |_| Handed::Asked(waiting.take(), came));
        if let Some(waiting) = waiting {
            self.refuse(waiting.sender.query, "the queue is full; try again");
        }
    }

    /// Hands over what another router's link has brought, as far as it is for this link; returns when it is
    /// kept.
    ///
    /// # Errors
    /// In words, if it is not: nobody would bring it again, so who brings it must not be told that it is here.
    pub(super) async fn carry(&self, changes: &[KeptChange]) -> Result<(), String> {
        let is_ours = |change: &&KeptChange| match change {
            KeptChange::Key(change) => {
                keyexpr::new(&*change.key).is_ok_and(|key| self.keys.matches(key))
            }
            KeptChange::Wildcard(change) => self.keys.intersects(&change.expr),
        };
        let ours: Vec<KeptChange> = changes.iter().filter(is_ours).cloned().collect();
        if ours.is_empty() {
            return Ok(());
        }
        let bytes = ours.iter().map(offer::size_of).sum();
        let manners = Manners {
            block: false,
            hurry: true,
            bytes,
        };
        let (done, kept) = oneshot::channel();
        if self.queue.push(Handed::Carried(ours, done), manners) == Pushed::Dropped {
            // It is brought again, so it does not count as overrun.
            return Err("the queue is full".to_owned());
        }
        let kept = kept.await;
        kept.unwrap_or_else(|_| Err("the link is stopping".to_owned()))
    }

    /// A packed sample, unless it is none of the link's keys.
    pub(super) fn unpacked(&self, sample: Unpacked, came: u64) -> Option<Tapped> {
        let Unpacked {
            key,
            stamp,
            value,
            priority,
        } = sample;
        let change = if self.is_exact && !key.contains('*') {
            KeptChange::Key(Change { key, stamp, value })
        } else {
            // Zenoh has carried it, so it is a key expression.
            self.change(keyexpr::new(&*key).ok()?, stamp, value)?
        };
        Some(Tapped {
            change,
            came,
            priority,
        })
    }

    /// A sample, unless it is none of the link's keys.
    pub(super) fn read(&self, sample: &Sample, came: u64) -> Option<Tapped> {
        let stamp = sample.timestamp().map(Stamp::from_uhlc);
        Some(Tapped {
            change: self.change(sample.key_expr(), stamp, convert::value_of(sample))?,
            came,
            priority: sample.priority() as u8,
        })
    }

    /// Tells whoever waits that the change is not kept.
    pub(super) fn refuse(&self, query: Query, why: &str) {
        self.acks
            .refuse(query, &format!("link `{}`", self.name), why);
    }

    fn change(
        &self,
        expr: &keyexpr,
        stamp: Option<Stamp>,
        value: Option<Value>,
    ) -> Option<KeptChange> {
        if expr.is_wild() {
            let expr = expr.to_owned();
            return Some(KeptChange::Wildcard(WildcardChange { expr, stamp, value }));
        }
        let key = Key::from(expr.as_str());
        let is_ours = self.keys.matches(expr);
        is_ours.then_some(KeptChange::Key(Change { key, stamp, value }))
    }
}
