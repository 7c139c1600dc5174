//! The two halves of a slot. The registry's thread owns the half that decides ([`weir_core::slot`])
//! and speaks to the other through a [`Port`]; the storage or link that asks owns a *seat*
//! ([`RouteSlot`], [`PrioritizeSlot`]) or shares a handle ([`ResolveSlot`]).
//!
//! Before each batch a seat looks at one number. If it has moved, it takes over what was published:
//! who answers from now on, and the instances that were started for it meanwhile on another thread. So
//! a batch is decided by one revision, and no batch waits for a module to be loaded.

mod prioritize;
mod resolve;
mod route;
mod seat;

use std::{sync::Arc, time::SystemTime};

use parking_lot::Mutex;
use weir_core::slot::{Blame, ContentHash, Service};

use crate::{
    environment::{Environment, Hook, Manifest},
    fault::{self, Fault},
    revision::Revision,
    stats::Stats,
};

pub use prioritize::PrioritizeSlot;
pub(crate) use resolve::Asked;
pub(crate) use resolve::ResolvePort;
pub use resolve::{CurrentResolver, ResolveSlot};
pub use route::RouteSlot;

/// The registry's side of a slot.
pub(crate) trait Port: Send + Sync {
    /// Where it serves.
    fn hook(&self) -> Hook;

    /// What a policy is told here.
    fn environment(&self) -> &Environment;

    /// Starts what will serve if this revision is published. Runs the guest's `init`: for threads that
    /// may block.
    fn prepare(
        &self,
        content: ContentHash,
        revision: &Arc<Revision>,
        stats: &Arc<Stats>,
    ) -> Result<Manifest, Fault>;

    /// From the next batch on `service` answers; of what was prepared, only `keep` may still be needed.
    fn publish(&self, service: Service, keep: &[ContentHash]);

    /// How many calls `content` has answered since this was asked last.
    fn take_answered(&self, content: ContentHash) -> u64;

    /// What the revision that serves was asked about since this was asked last, if its answers have
    /// laws to keep.
    fn take_asked(&self) -> Option<(ContentHash, Asked)> {
        None
    }

    /// What else happened here.
    fn notes(&self) -> &Notebook;
}

/// What seats note down, and how they tell the registry.
pub(crate) struct Notebook {
    /// Samples that the native rule has decided because no revision served.
    pub(crate) native: std::sync::atomic::AtomicU64,
    last_fault: Mutex<Option<(SystemTime, Fault)>>,
    tell: Box<dyn Fn(Told) + Send + Sync>,
}

/// What a seat tells the registry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    /// A call of this revision has failed.
    Failed(ContentHash, Blame),
    /// Nobody will ask any more.
    Left,
}

impl Notebook {
    pub(crate) fn new(tell: impl Fn(Told) + Send + Sync + 'static) -> Self {
        Self {
            native: std::sync::atomic::AtomicU64::new(0),
            last_fault: Mutex::new(None),
            tell: Box::new(tell),
        }
    }

    pub(crate) fn last_fault(&self) -> Option<(SystemTime, Fault)> {
        self.last_fault.lock().clone()
    }

    fn note(&self, fault: &Fault) {
        *self.last_fault.lock() = Some((SystemTime::now(), fault.clone()));
    }

    fn failed(&self, content: ContentHash, fault: &Fault) {
        self.note(fault);
        let blame = match fault.blame {
            fault::Blame::Guest => Blame::Guest,
            fault::Blame::Host => Blame::Host,
        };
        (self.tell)(Told::Failed(content, blame));
    }

    fn left(&self) {
        (self.tell)(Told::Left);
    }
}
