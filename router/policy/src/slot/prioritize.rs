//! `prioritize`: the seat of a link.

use std::sync::Arc;

use weir_core::{
    backlog::{LinkState, Prioritize, Verdict},
    placement::Description,
    slot::ContentHash,
};

use super::{
    Notebook,
    seat::{Instance, Seat, SeatPort, Serving},
};
use crate::{
    environment::{Environment, Hook, Manifest},
    fault::Fault,
    prioritize::PrioritizeInstance,
    revision::Revision,
    stats::Stats,
};

/// Decides what leaves a backlog first: the policy if one serves, else the link's own settings. They
/// also decide on what the policy leaves to them, so a seat answers [`Verdict::Default`] only if they do.
pub struct PrioritizeSlot {
    seat: Seat<PrioritizeInstance>,
    prefix: String,
    native: Box<dyn Prioritize>,
}

impl Instance for PrioritizeInstance {
    const HOOK: Hook = Hook::Prioritize;

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

impl PrioritizeSlot {
    /// Both sides of a slot. Keys are relative to `prefix`.
    pub(crate) fn new(
        environment: Environment,
        prefix: String,
        native: Box<dyn Prioritize>,
        notes: Notebook,
    ) -> (SeatPort<PrioritizeInstance>, Self) {
        let (port, seat) = SeatPort::new(environment, notes);
        let slot = Self {
            seat,
            prefix,
            native,
        };
        (port, slot)
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
        if !self.ask(link, batch, verdicts) {
            verdicts.truncate(begin);
            self.native.prioritize(link, batch, verdicts);
        }
    }

    fn decide_again(
        &mut self,
        link: LinkState<'_>,
        batch: &[Description<'_>],
        verdicts: &mut Vec<Verdict>,
    ) -> bool {
        match self.seat.serving() {
            Serving::Revision(_) => self.ask(link, batch, verdicts),
            Serving::Nothing => self.native.decide_again(link, batch, verdicts),
            Serving::NotNow => false,
        }
    }

    fn revision(&mut self) -> Option<u32> {
        match self.seat.serving() {
            // Beside 0, which is nobody's: one of 2^32 revisions is taken for another.
            Serving::Revision(ContentHash([a, b, c, d, ..])) => {
                Some(u32::from_le_bytes([a, b, c, d]).max(1))
            }
            Serving::Nothing => Some(0),
            Serving::NotNow => None,
        }
    }
}

impl PrioritizeSlot {
    /// The policy's verdicts, and the native ones on what it leaves open; false if there are none.
    fn ask(
        &mut self,
        link: LinkState<'_>,
        batch: &[Description<'_>],
        verdicts: &mut Vec<Verdict>,
    ) -> bool {
        let begin = verdicts.len();
        let is_decided = self.seat.ask(batch.len(), |instance| {
            instance.prioritize(&self.prefix, link, batch, verdicts)
        });
        if !is_decided {
            return false;
        }
        for (sample, at) in batch.iter().zip(begin..) {
            if verdicts[at] == Verdict::Default {
                self.native
                    .prioritize(link, std::slice::from_ref(sample), verdicts);
                verdicts.swap_remove(at);
            }
        }
        true
    }
}
