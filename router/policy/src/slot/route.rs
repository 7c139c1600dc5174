//! `route`: the seat of a storage with several shards.

use std::sync::Arc;

use weir_core::{
    placement::{Description, Destination, Route},
    slot::{ContentHash, Service},
};

use super::{
    Notebook, Port,
    seat::{Seat, Shared},
};
use crate::{
    environment::{Environment, Hook, Manifest},
    fault::Fault,
    revision::Revision,
    route::RouteInstance,
    stats::Stats,
};

/// Decides where a storage's samples go: the policy if one serves, else the native rule.
pub struct RouteSlot {
    seat: Seat<RouteInstance>,
    prefix: String,
    shards: u32,
    native: Box<dyn Route>,
}

pub(crate) struct RoutePort {
    environment: Environment,
    shared: Arc<Shared<RouteInstance>>,
}

impl RoutePort {
    /// Both sides of a slot. Keys are relative to `prefix`; the shards are named in `environment`.
    pub(crate) fn new(
        environment: Environment,
        prefix: String,
        native: Box<dyn Route>,
        notes: Notebook,
    ) -> (Self, RouteSlot) {
        let shared = Arc::new(Shared::new(notes));
        let slot = RouteSlot {
            seat: Seat::new(Arc::clone(&shared)),
            prefix,
            shards: u32::try_from(environment.shards.len()).unwrap_or(u32::MAX),
            native,
        };
        let port = Self {
            environment,
            shared,
        };
        (port, slot)
    }
}

impl Port for RoutePort {
    fn hook(&self) -> Hook {
        Hook::Route
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
        let instance = RouteInstance::new(revision, &self.environment, Arc::clone(stats))?;
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

impl Route for RouteSlot {
    fn route(&mut self, batch: &[Description<'_>], destinations: &mut Vec<Destination>) {
        if batch.is_empty() {
            return;
        }
        let begin = destinations.len();
        let is_decided = self.seat.ask(batch.len(), |instance| {
            instance.route(&self.prefix, self.shards, batch, destinations)
        });
        if !is_decided {
            // All of the batch: one sample, one rule.
            destinations.truncate(begin);
            return self.native.route(batch, destinations);
        }
        self.fill_in(batch, &mut destinations[begin..]);
    }
}

impl RouteSlot {
    /// `Default` is wherever the native rule puts it.
    fn fill_in(&mut self, batch: &[Description<'_>], answers: &mut [Destination]) {
        let is_left = |answer: &Destination| *answer == Destination::Default;
        if !answers.iter().any(is_left) {
            return;
        }
        let left: Vec<usize> = (0..answers.len())
            .filter(|at| is_left(&answers[*at]))
            .collect();
        let samples: Vec<Description<'_>> = left.iter().map(|at| batch[*at]).collect();
        let mut native = Vec::with_capacity(samples.len());
        self.native.route(&samples, &mut native);
        for (at, answer) in left.into_iter().zip(native) {
            answers[at] = answer;
        }
    }
}
