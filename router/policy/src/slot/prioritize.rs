//! `prioritize`: the seat of a link.

use std::sync::Arc;

use weir_core::{
    backlog::{LinkState, Prioritize, Verdict},
    placement::Description,
    slot::{ContentHash, Service},
};

use super::{
    Notebook, Port,
    seat::{Seat, Shared},
};
use crate::{
    environment::{Environment, Hook, Manifest},
    fault::Fault,
    prioritize::PrioritizeInstance,
    revision::Revision,
    stats::Stats,
};

/// Decides what leaves a backlog first: the policy if one serves, else the link's own settings.
pub struct PrioritizeSlot {
    seat: Seat<PrioritizeInstance>,
    prefix: String,
    native: Box<dyn Prioritize>,
}

pub(crate) struct PrioritizePort {
    environment: Environment,
    shared: Arc<Shared<PrioritizeInstance>>,
}

impl PrioritizePort {
    /// Both sides of a slot. Keys are relative to `prefix`.
    pub(crate) fn new(
        environment: Environment,
        prefix: String,
        native: Box<dyn Prioritize>,
        notes: Notebook,
    ) -> (Self, PrioritizeSlot) {
        let shared = Arc::new(Shared::new(notes));
        let slot = PrioritizeSlot {
            seat: Seat::new(Arc::clone(&shared)),
            prefix,
            native,
        };
        let port = Self {
            environment,
            shared,
        };
        (port, slot)
    }
}

impl Port for PrioritizePort {
    fn hook(&self) -> Hook {
        Hook::Prioritize
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
        let instance = PrioritizeInstance::new(revision, &self.environment, Arc::clone(stats))?;
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

impl Prioritize for PrioritizeSlot {
    fn prioritize(
        &mut self,
        link: LinkState<'_>,
        batch: &[Description<'_>],
        verdicts: &mut Vec<Verdict>,
    ) {
        if batch.is_empty() {
            return;
        }
        let begin = verdicts.len();
        let is_decided = self.seat.ask(batch.len(), |instance| {
            instance.prioritize(&self.prefix, link, batch, verdicts)
        });
        if !is_decided {
            verdicts.truncate(begin);
            self.native.prioritize(link, batch, verdicts);
        }
    }
}
