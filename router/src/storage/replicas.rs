//! A storage as its mirrors know it: what it holds, to be compared, and how what they hold comes in.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use weir_backend_api::{
    Durability,
    replica::{Scope, Source, StoreReplica},
};
use weir_core::{
    admission::History,
    change::{Admission, KeptChange, WildcardChange},
    key::Key,
    mirror::{State, answer::Admit},
    pattern::KeySet,
    resolving::Theirs,
    version::Version,
};

use super::{
    Storage,
    offer::{Ack, Offer, Outcome, Replicated},
    queue::{Manners, Pushed},
    shard::News,
    worker::Handed,
};

/// What became of what a mirror sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Admitted {
    /// Changes that the storage holds now and did not before.
    pub applied: u64,
    /// Those that it held already, or something later.
    pub superfluous: u64,
    /// Those that it set aside: from the future, or older than it can judge.
    pub aside: u64,
    /// Those that are no business of its.
    pub refused: u64,
    /// The mirror has forgotten more than the storage has.
    pub is_behind: bool,
}

/// Who waits until all of a delivery is decided.
struct Delivery {
    left: usize,
    admitted: Admitted,
    failed: Option<String>,
    done: Option<oneshot::Sender<Result<Admitted, String>>>,
}

impl Storage {
    /// What it holds of what concerns a peer with the keys `theirs`. Reads block.
    pub(crate) fn replica(&self, theirs: &KeySet) -> StoreReplica {
        let sources = self
            .readers
            .iter()
            .map(|reader| Arc::clone(reader) as Arc<dyn Source>);
        let revision = self.revision();
        StoreReplica::new(
            sources.collect(),
            self.space.clone(),
            Scope::of(&self.set, &self.space, theirs),
            self.history == History::All,
            revision,
            self.clock.now(),
        )
    }

    /// The revision of the resolver that serves; 0 for none.
    pub(crate) fn revision(&self) -> u64 {
        self.resolver.as_ref().map_or(0, |slot| slot.revision())
    }

    /// Whether a peer with the keys `theirs` is for everything that this storage is for.
    pub(crate) fn is_covered_by(&self, theirs: &KeySet) -> bool {
        Scope::of(&self.set, &self.space, theirs).is_all()
    }

    /// Takes note of what was learnt of the replica of this name, when its turn comes. If the queue is
    /// full it is not: there will be more.
    pub(crate) fn learn(&self, name: &str, news: News) {
        let manners = Manners {
            block: false,
            hurry: false,
            bytes: 0,
        };
        self.queue
            .push(Handed::News(Box::new((name.to_owned(), news))), manners);
    }

    /// Takes what a mirror holds, by the same admission as a put; all of it is decided, and as durable
    /// as the storage makes anything, when this returns. What is no business of the storage is left out.
    ///
    /// # Errors
    /// If the storage takes no changes now: nothing, or some of it, was taken, and may come again.
    pub(crate) async fn admit(&self, admit: Admit) -> Result<Admitted, String> {
        if self.intake.read_only {
            return Err("this storage is read-only".to_owned());
        }
        self.set_aside_forgotten(&admit.forgotten).await?;
        let is_behind = self.is_behind(admit.horizon);
        let (done, outcome) = oneshot::channel();
        let delivery = Arc::new(Mutex::new(Delivery {
            // Until everything is in the queue, so that it does not end before.
            left: 1,
            admitted: Admitted {
                is_behind,
                ..Admitted::default()
            },
            failed: None,
            done: Some(done),
        }));
        let ack = || {
            delivery.lock().left += 1;
            let delivery = Arc::clone(&delivery);
            Ack {
                durability: Durability::Memory,
                answer: Box::new(move |outcome| delivery.lock().decided(outcome)),
            }
        };
        let ops = admit.ops.into_iter().map(|op| Offer {
            ack: Some(ack()),
            ..Offer::silent(KeptChange::Wildcard(WildcardChange {
                stamp: Some(op.version.stamp),
                expr: op.expr,
                value: op.value,
            }))
        });
        let mut offers: Vec<Offer> = ops.collect();
        let mut refused = 0;
        for State { key, record } in admit.states {
            let is_ours =
                zenoh::key_expr::keyexpr::new(&*key).is_ok_and(|full| self.set.matches(full));
            let Some(key) = self.space.strip(key).filter(|_| is_ours) else {
                refused += 1;
                continue;
            };
            let replicated = Replicated {
                theirs: Theirs {
                    record,
                    revision: admit.revision,
                },
                horizon: admit.horizon,
            };
            offers.push(Offer::replicated(key, replicated, ack()));
        }
        let manners = Manners {
            block: false,
            hurry: true,
            bytes: offers
                .iter()
                .map(|offer| super::offer::size_of(&offer.op))
                .sum(),
        };
        if self.queue.push(Handed::Offers(offers), manners) == Pushed::Dropped {
            self.counters.dropped.fetch_add(1, Relaxed);
            return Err("the queue is full".to_owned());
        }
        {
            let mut delivery = delivery.lock();
            delivery.admitted.refused += refused;
            delivery.finished_one();
        }
        match outcome.await {
            Ok(outcome) => outcome,
            Err(_) => Err("the storage was closed".to_owned()),
        }
    }
}

impl Storage {
    /// Sets aside what a mirror has forgotten.
    async fn set_aside_forgotten(&self, keys: &[(Key, Version)]) -> Result<(), String> {
        let keys: Vec<_> = keys
            .iter()
            .filter_map(|(key, version)| Some((self.space.strip(key.clone())?, *version)))
            .collect();
        if keys.is_empty() {
            return Ok(());
        }
        let (done, outcome) = oneshot::channel();
        let manners = Manners {
            block: false,
            hurry: true,
            bytes: 0,
        };
        if self.queue.push(Handed::Forgotten { keys, done }, manners) == Pushed::Dropped {
            return Err("the queue is full".to_owned());
        }
        match outcome.await {
            Ok(true) => Ok(()),
            Ok(false) => Err("the store failed".to_owned()),
            Err(_) => Err("the storage was closed".to_owned()),
        }
    }

    /// Whether a mirror with this horizon has forgotten more than this storage. A series forgets nothing.
    fn is_behind(&self, horizon: Version) -> bool {
        let open = self.readers.iter().filter_map(|reader| reader.get());
        let ours = open.map(|reader| reader.view.horizon).min();
        self.history == History::Latest && ours.is_some_and(|ours| ours < horizon)
    }
}

impl Delivery {
    fn decided(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Decided(admission, _) => {
                let count = match admission {
                    Admission::Applied(_) | Admission::Merged(_) => &mut self.admitted.applied,
                    Admission::Known(_) | Admission::Outdated(_) | Admission::Nothing => {
                        &mut self.admitted.superfluous
                    }
                    Admission::Parked(_) | Admission::Quarantined(_) => &mut self.admitted.aside,
                    Admission::Rejected(_) => &mut self.admitted.refused,
                };
                *count += 1;
            }
            Outcome::Failed(why) => self.failed = Some(why),
        }
        self.finished_one();
    }

    fn finished_one(&mut self) {
        self.left -= 1;
        if self.left > 0 {
            return;
        }
        let Some(done) = self.done.take() else { return };
        let outcome = match self.failed.take() {
            Some(why) => Err(why),
            None => Ok(self.admitted),
        };
        // Who sent it may have stopped waiting.
        let _ = done.send(outcome);
    }
}
