//! `route`: the seat of a storage with several shards.

use std::sync::Arc;

use weir_core::placement::{Description, Destination, Route};

use super::{
    Notebook,
    seat::{Instance, Seat, SeatPort},
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

impl Instance for RouteInstance {
    const HOOK: Hook = Hook::Route;

    fn start(
        revision: &Arc<Revision>,
        environment: &Environment,
        stats: Arc<Stats>,
    ) -> Result<Self, Fault> {
        Self::new(revision, environment, stats)
    }

    fn manifest(&self) -> &Manifest {
        self.manifest()
    }
}

impl RouteSlot {
    /// Both sides of a slot. Keys are relative to `prefix`; the shards are named in `environment`.
    pub(crate) fn new(
        environment: Environment,
        prefix: String,
        native: Box<dyn Route>,
        notes: Notebook,
    ) -> (SeatPort<RouteInstance>, Self) {
        let shards = u32::try_from(environment.shards.len()).unwrap_or(u32::MAX);
        let (port, seat) = SeatPort::new(environment, notes);
        let slot = Self {
            seat,
            prefix,
            shards,
            native,
        };
        (port, slot)
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
