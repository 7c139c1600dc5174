//! What the seats of `route` and `prioritize` share: instances that are taken over between two batches,
//! and the port through which the registry lays them out.

use std::sync::{
    Arc,
    atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use parking_lot::Mutex;
use weir_core::slot::{ContentHash, Service};

use crate::{
    environment::{Environment, Hook, Manifest},
    fault::Fault,
    revision::Revision,
    stats::Stats,
};

use super::{Notebook, Port};

/// An instance that is asked about batches.
pub(crate) trait Instance: Sized + Send + 'static {
    /// What it is asked for.
    const HOOK: Hook;

    /// Starts one.
    fn start(
        revision: &Arc<Revision>,
        environment: &Environment,
        stats: Arc<Stats>,
    ) -> Result<Self, Fault>;

    /// What the policy says about itself.
    fn manifest(&self) -> &Manifest;
}

/// The registry's side of a seat.
pub(crate) struct SeatPort<I> {
    environment: Environment,
    shared: Arc<Shared<I>>,
}

impl<I: Instance> SeatPort<I> {
    /// Both sides of a slot.
    pub(super) fn new(environment: Environment, notes: Notebook) -> (Self, Seat<I>) {
        let shared = Arc::new(Shared::new(notes));
        let seat = Seat::new(Arc::clone(&shared));
        let port = Self {
            environment,
            shared,
        };
        (port, seat)
    }
}

impl<I: Instance> Port for SeatPort<I> {
    fn hook(&self) -> Hook {
        I::HOOK
    }

    fn environment(&self) -> &Environment {
        &self.environment
    }

    fn prepare(
        &self,
        content: ContentHash,
        revision: &Arc<Revision>,
        stats: &Arc<Stats>,
    ) -> Result<Manifest, Fault> {
        let instance = I::start(revision, &self.environment, Arc::clone(stats))?;
        let manifest = instance.manifest().clone();
        self.shared.lay_out(content, instance);
        Ok(manifest)
    }

    fn publish(&self, service: Service, keep: &[ContentHash]) {
        self.shared.publish(service, keep);
    }

    fn take_answered(&self, content: ContentHash) -> u64 {
        self.shared.take_answered(content)
    }

    fn notes(&self) -> &Notebook {
        &self.shared.notes
    }
}

/// An instance, and how many calls it has answered.
struct Ready<I> {
    content: ContentHash,
    instance: I,
    answered: Arc<AtomicU64>,
}

/// What both sides of a slot see.
pub(super) struct Shared<I> {
    /// Moves whenever `published` has changed.
    generation: AtomicU64,
    published: Mutex<Published<I>>,
    pub(super) notes: Notebook,
}

struct Published<I> {
    service: Option<ContentHash>,
    /// Nothing serves, is being loaded or rests.
    is_absent: bool,
    /// Started, and not yet taken by the seat.
    fresh: Vec<Ready<I>>,
    /// How many calls were answered, by revision; for each that is prepared.
    answered: Vec<(ContentHash, Arc<AtomicU64>)>,
}

impl<I> Shared<I> {
    pub(super) fn new(notes: Notebook) -> Self {
        Self {
            generation: AtomicU64::new(0),
            published: Mutex::new(Published {
                service: None,
                is_absent: false,
                fresh: Vec::new(),
                answered: Vec::new(),
            }),
            notes,
        }
    }

    /// Lays an instance out for the seat.
    pub(super) fn lay_out(&self, content: ContentHash, instance: I) {
        let mut published = self.published.lock();
        published.fresh.retain(|ready| ready.content != content);
        published.answered.retain(|(other, _)| *other != content);
        let answered = Arc::new(AtomicU64::new(0));
        published.answered.push((content, Arc::clone(&answered)));
        published.fresh.push(Ready {
            content,
            instance,
            answered,
        });
    }

    pub(super) fn publish(&self, service: Service, keep: &[ContentHash]) {
        let mut published = self.published.lock();
        published.service = match service {
            Service::Revision(content) => Some(content),
            // Verdicts of these slots are local: nothing ever waits.
            Service::Native | Service::Wait => None,
        };
        published.is_absent = published.service.is_none() && keep.is_empty();
        published
            .fresh
            .retain(|ready| keep.contains(&ready.content));
        published
            .answered
            .retain(|(content, _)| keep.contains(content));
        self.generation.fetch_add(1, Release);
    }

    pub(super) fn take_answered(&self, content: ContentHash) -> u64 {
        let published = self.published.lock();
        let counts = published
            .answered
            .iter()
            .filter(|(other, _)| *other == content);
        counts.map(|(_, count)| count.swap(0, Relaxed)).sum()
    }
}

/// Who answers at a seat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Serving {
    /// This revision.
    Revision(ContentHash),
    /// The native rule, until somebody puts a policy there: the one that was is removed.
    Nothing,
    /// The native rule, for the time being: nothing has served yet, or what did rests.
    NotNow,
}

/// The side that asks.
pub(super) struct Seat<I> {
    pub(super) shared: Arc<Shared<I>>,
    generation: u64,
    serving: Option<usize>,
    /// Something has served, and was removed.
    was_removed: bool,
    has_served: bool,
    /// What serves, and what may serve again: two at the most.
    instances: Vec<Ready<I>>,
}

impl<I> Seat<I> {
    pub(super) fn new(shared: Arc<Shared<I>>) -> Self {
        Self {
            shared,
            generation: 0,
            serving: None,
            was_removed: false,
            has_served: false,
            instances: Vec::new(),
        }
    }

    /// What serves now.
    pub(super) fn serving(&mut self) -> Serving {
        if self.shared.generation.load(Acquire) != self.generation {
            self.take_over();
        }
        match self.serving {
            Some(index) => Serving::Revision(self.instances[index].content),
            None if self.was_removed => Serving::Nothing,
            None => Serving::NotNow,
        }
    }

    /// Asks what serves now. False: the native rule decides, because nothing serves or because it
    /// failed, which is noted.
    pub(super) fn ask(
        &mut self,
        samples: usize,
        ask: impl FnOnce(&mut I) -> Result<(), Fault>,
    ) -> bool {
        if self.shared.generation.load(Acquire) != self.generation {
            self.take_over();
        }
        let Some(index) = self.serving else {
            self.shared.notes.native.fetch_add(samples as u64, Relaxed);
            return false;
        };
        let ready = &mut self.instances[index];
        match ask(&mut ready.instance) {
            Ok(()) => {
                ready.answered.fetch_add(1, Relaxed);
                true
            }
            Err(fault) => {
                self.shared.notes.failed(ready.content, &fault);
                false
            }
        }
    }

    fn take_over(&mut self) {
        let mut published = self.shared.published.lock();
        // Under the lock, so that it belongs to what is read.
        self.generation = self.shared.generation.load(Acquire);
        for fresh in published.fresh.drain(..) {
            self.instances
                .retain(|ready| ready.content != fresh.content);
            self.instances.push(fresh);
        }
        // What is prepared and not yet published may be: it stays.
        let answered = &published.answered;
        self.instances.retain(|ready| {
            answered
                .iter()
                .any(|(content, _)| *content == ready.content)
        });
        let serves = published.service;
        // At the start nothing serves either; what will is still to be found.
        self.was_removed = published.is_absent && (self.was_removed || self.has_served);
        self.has_served |= serves.is_some();
        self.serving = serves.and_then(|content| {
            let mut instances = self.instances.iter();
            instances.position(|ready| ready.content == content)
        });
        drop(published);
        if let (Some(content), None) = (serves, self.serving) {
            // Invariant: what is published was laid out, and is kept until it is forgotten.
            let fault = Fault::host("no instance was laid out for the revision that is to serve");
            self.shared.notes.failed(content, &fault);
        }
    }
}

impl<I> Drop for Seat<I> {
    fn drop(&mut self) {
        self.shared.notes.left();
    }
}
