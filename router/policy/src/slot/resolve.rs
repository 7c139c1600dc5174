//! `resolve`: a handle that says who resolves now, and under which revision.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use weir_core::{
    resolution::{Contender, Interrupted, Resolution, Resolve},
    slot::{ContentHash, Service},
    value::Value,
};

use super::{Notebook, Port};
use crate::{
    environment::{Environment, Hook, Manifest},
    fault::{Fault, ResolveFault},
    harness::check::try_laws,
    resolve::Resolver,
    revision::Revision,
    stats::Stats,
};

/// Says who resolves a storage's conflicts. Cheap to clone; for any number of threads.
#[derive(Clone)]
pub struct ResolveSlot(Arc<Seat>);

/// Nobody asks any more when the last handle is dropped.
struct Seat(Arc<Shared>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.notes.left();
    }
}

struct Shared {
    current: ArcSwapOption<Current>,
    prepared: Mutex<BTreeMap<ContentHash, Arc<Prepared>>>,
    notes: Notebook,
}

struct Prepared {
    content: ContentHash,
    resolver: Resolver,
    answered: AtomicU64,
    /// Values of questions, a few of many.
    asked: Mutex<Vec<Value>>,
}

/// What a resolver was asked about, to try the laws on.
pub(crate) struct Asked {
    prepared: Arc<Prepared>,
    settings: String,
    values: Vec<Value>,
}

/// One question in so many gives its values: what is taken from the data path is a division.
const ASKED_EVERY: u64 = 16;
/// How many values are kept at the most, and how large.
const ASKED_VALUES_MAX: usize = 8;
const ASKED_BYTES_MAX: usize = 4 << 10;

impl Prepared {
    fn note_asked(&self, first: Contender<'_>, second: Contender<'_>) {
        if !self
            .answered
            .fetch_add(1, Relaxed)
            .is_multiple_of(ASKED_EVERY)
        {
            return;
        }
        let mut asked = self.asked.lock();
        for value in [first.value, second.value].into_iter().flatten() {
            let fits = asked.len() < ASKED_VALUES_MAX && value.len() <= ASKED_BYTES_MAX;
            if fits && !asked.contains(value) {
                asked.push(value.detached());
            }
        }
    }
}

impl Asked {
    /// A counterexample, if one is found.
    pub(crate) fn broken_law(self, calls_max: u64) -> Option<String> {
        let revision = self.prepared.resolver.revision();
        // Counts of its own: these questions are nobody's.
        let resolver = Resolver::new(revision, &self.settings, Arc::default()).ok()?;
        let tried = try_laws(&resolver, self.values, calls_max);
        tried.err().map(|example| format!("it is {example}"))
    }
}

struct Current {
    revision: u64,
    /// `None`: wait.
    prepared: Option<Arc<Prepared>>,
}

/// Who resolves now: one revision for as long as it is held.
#[derive(Clone)]
pub struct CurrentResolver {
    current: Arc<Current>,
    shared: Arc<Shared>,
}

pub(crate) struct ResolvePort {
    environment: Environment,
    shared: Arc<Shared>,
}

impl ResolvePort {
    /// Both sides of a slot.
    pub(crate) fn new(settings: &str, notes: Notebook) -> (Self, ResolveSlot) {
        let shared = Arc::new(Shared {
            current: ArcSwapOption::empty(),
            prepared: Mutex::default(),
            notes,
        });
        let port = Self {
            environment: Environment::for_resolve(settings),
            shared: Arc::clone(&shared),
        };
        (port, ResolveSlot(Arc::new(Seat(shared))))
    }

    fn revision(&self, content: ContentHash) -> u64 {
        content.resolver_revision(&self.environment.settings_json)
    }
}

impl Port for ResolvePort {
    fn hook(&self) -> Hook {
        Hook::Resolve
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
        let settings = &self.environment.settings_json;
        let resolver = Resolver::new(revision, settings, Arc::clone(stats))?;
        let manifest = resolver.manifest().clone();
        let prepared = Arc::new(Prepared {
            content,
            resolver,
            answered: AtomicU64::new(0),
            asked: Mutex::default(),
        });
        self.shared.prepared.lock().insert(content, prepared);
        Ok(manifest)
    }

    fn publish(&self, service: Service, keep: &[ContentHash]) {
        let mut prepared = self.shared.prepared.lock();
        prepared.retain(|content, _| keep.contains(content));
        let current = match service {
            Service::Native => None,
            Service::Wait => {
                // The one that is loading, or that rests: the last that may be needed.
                let awaited = keep.last().copied();
                Some(Current {
                    revision: awaited.map_or(0, |content| self.revision(content)),
                    prepared: None,
                })
            }
            Service::Revision(content) => Some(Current {
                revision: self.revision(content),
                // Not there would be a mistake of ours: waiting harms no replica.
                prepared: prepared.get(&content).cloned(),
            }),
        };
        self.shared.current.store(current.map(Arc::new));
    }

    fn take_answered(&self, content: ContentHash) -> u64 {
        let prepared = self.shared.prepared.lock();
        prepared
            .get(&content)
            .map_or(0, |prepared| prepared.answered.swap(0, Relaxed))
    }

    fn take_asked(&self) -> Option<(ContentHash, Asked)> {
        let current = self.shared.current.load_full()?;
        let prepared = Arc::clone(current.prepared.as_ref()?);
        let values = std::mem::take(&mut *prepared.asked.lock());
        let asked = Asked {
            settings: self.environment.settings_json.clone(),
            values,
            prepared,
        };
        (!asked.values.is_empty()).then(|| (asked.prepared.content, asked))
    }

    fn notes(&self) -> &Notebook {
        &self.shared.notes
    }
}

impl ResolveSlot {
    /// Who resolves now; `None` is the native rule, by which the later version wins. Costs one atomic
    /// load. Hold the answer for a batch and ask again for the next.
    #[must_use]
    pub fn current(&self) -> Option<CurrentResolver> {
        let shared = &self.0.0;
        let current = shared.current.load_full()?;
        Some(CurrentResolver {
            current,
            shared: Arc::clone(shared),
        })
    }
}

impl CurrentResolver {
    /// What marks records that were merged by it: a hash of the module and its settings, never 0. Two
    /// routers with the same number merge alike.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.current.revision
    }

    /// Whether it is not there yet: it answers every question by putting it off.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.current.prepared.is_none()
    }
}

impl Resolve for CurrentResolver {
    fn resolve(
        &mut self,
        key: &str,
        first: Contender<'_>,
        second: Contender<'_>,
    ) -> Result<Resolution, Interrupted> {
        let Some(prepared) = &self.current.prepared else {
            return Err(Interrupted("the resolver is not there yet".into()));
        };
        match prepared.resolver.resolve(key, first, second) {
            Ok(resolution) => {
                prepared.note_asked(first, second);
                Ok(resolution)
            }
            // It fails so on every replica: the later version wins on all of them.
            Err(ResolveFault::Guest(fault)) => {
                self.shared.notes.note(&fault);
                Ok(Resolution::Default)
            }
            Err(ResolveFault::Interrupted(interrupted)) => {
                let fault = Fault::host(interrupted.0.clone());
                self.shared.notes.failed(prepared.content, &fault);
                Err(interrupted)
            }
        }
    }
}
