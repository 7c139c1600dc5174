//! Faults on demand: a volume around a volume whose stores fail when and how they are told.
//!
//! [`Faulty`] is the volume, [`Faults`] the handle that tells it. What comes back is what a real
//! store gives: an error before anything was done, a commit that hangs, a disk that is full until
//! there is room, a commit of which nobody knows whether it reached the disk, a process that dies at
//! any write. For tests and simulations; the router is built without.
//!
//! A store goes through these states:
//!
//! ```text
//! open -- Torn, Error(Poisoned) --> poisoned: refuses commits and syncs until it is opened again
//! open, poisoned -- Crash --> dead: everything is Closed, opening too, until Faults::revive;
//!                             the store itself stays dead, what it had committed is in the volume
//! ```

mod gate;
mod rng;
mod store;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use gate::Gate;
pub use rng::Rng;

use crate::{Capability, Error, ErrorKind, Result, Store, StoreSpec, Volume};

/// What can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Operation {
    /// [`Volume::open`].
    Open,
    /// [`Store::heads`].
    Heads,
    /// [`Store::get`] and [`crate::Snapshot::get`].
    Get,
    /// [`Store::commit`].
    Commit,
    /// [`Store::sync`].
    Sync,
    /// [`Store::snapshot`].
    Snapshot,
    /// One row of a scan.
    Scan,
    /// [`Store::rows`].
    Rows,
    /// [`Store::count`].
    Count,
    /// [`Store::close`].
    Close,
}

/// How it fails.
#[derive(Clone)]
pub enum Fault {
    /// With an error of this kind, and nothing was done. [`ErrorKind::Poisoned`] also poisons.
    Error(ErrorKind),
    /// Not at all, but first this is called; [`Gate::fault`] makes one that parks.
    Slow(Arc<dyn Fn() + Send + Sync>),
    /// With [`ErrorKind::Poisoned`]: the batch was written or was not.
    Torn {
        /// Whether it was.
        applied: bool,
    },
    /// The process dies, with or without the batch.
    Crash {
        /// Whether the batch was written.
        applied: bool,
    },
}

/// Tells the stores of a [`Faulty`] volume what to do. Clones tell the same volume.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

/// A volume whose stores fail as its [`Faults`] say.
#[derive(Debug)]
pub struct Faulty<V> {
    inner: V,
    faults: Faults,
}

#[derive(Debug, Default)]
struct Plan {
    calls: BTreeMap<Operation, u64>,
    /// By operation and number of the call.
    script: BTreeMap<(Operation, u64), Fault>,
    chance: Option<Chance>,
    /// Bytes that may still be written.
    budget: Option<u64>,
    dead: bool,
    /// Stores opened before the last crash are of an older one.
    generation: u64,
    injected: u64,
}

#[derive(Debug)]
struct Chance {
    seed: u64,
    rng: Rng,
    one_in: u64,
    faults: Vec<(Operation, Fault)>,
}

impl<V: Volume> Faulty<V> {
    /// A volume that does what `inner` does until `faults` says otherwise.
    pub const fn new(inner: V, faults: Faults) -> Self {
        Self { inner, faults }
    }

    /// The volume that does it.
    #[must_use]
    pub const fn inner(&self) -> &V {
        &self.inner
    }
}

impl<V: Volume> Volume for Faulty<V> {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn capability(&self) -> Capability {
        self.inner.capability()
    }

    fn open(&self, spec: &StoreSpec) -> Result<Box<dyn Store>> {
        let generation = self.faults.plan().generation;
        let fault = self.faults.next(Operation::Open, generation)?;
        // Nothing is open yet that could be poisoned: it just fails.
        if let Some(fault) = fault {
            fault.settle(&self.faults, Operation::Open)?;
        }
        let inner = self.inner.open(spec)?;
        Ok(Box::new(store::FaultyStore::new(
            inner,
            self.faults.clone(),
            generation,
        )))
    }
}

impl Faults {
    /// A handle that tells nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How often an operation was called so far, failed calls included.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> u64 {
        self.plan().calls.get(&operation).copied().unwrap_or(0)
    }

    /// How many faults happened so far.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.plan().injected
    }

    /// The `nth` call from now on (1 is the next) fails so.
    pub fn at(&self, operation: Operation, nth: u64, fault: Fault) {
        let mut plan = self.plan();
        let call = plan.calls.get(&operation).copied().unwrap_or(0) + nth;
        plan.script.insert((operation, call), fault);
    }

    /// The process dies at the `nth` commit from now on (1 is the next), before or after it is written.
    pub fn crash_at_write(&self, nth: u64, applied: bool) {
        self.at(Operation::Commit, nth, Fault::Crash { applied });
    }

    /// From now on one call in `one_in` fails with one of these that fits its operation, chosen by
    /// the seed. Messages of the errors hold the seed.
    pub fn random(
        &self,
        seed: u64,
        one_in: u64,
        faults: impl IntoIterator<Item = (Operation, Fault)>,
    ) {
        self.plan().chance = Some(Chance {
            seed,
            rng: Rng::new(seed),
            one_in: one_in.max(1),
            faults: faults.into_iter().collect(),
        });
    }

    /// Nothing fails any more, but what is dead, poisoned or full stays so.
    pub fn calm(&self) {
        let mut plan = self.plan();
        plan.chance = None;
        plan.script.clear();
    }

    /// From now on so many more bytes (keys and values) may be committed; a batch that does not fit
    /// fails with [`ErrorKind::Full`]. `None` lifts the limit.
    pub fn set_budget(&self, bytes_max: Option<u64>) {
        self.plan().budget = bytes_max;
    }

    /// Whether the process died and was not revived.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.plan().dead
    }

    /// The process runs again: stores can be opened. Those opened before stay dead: drop them first.
    pub fn revive(&self) {
        self.plan().dead = false;
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        // A test that panics elsewhere must not hide its own message behind a poisoned lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call of a store of this generation: the fault that is due.
    fn next(&self, operation: Operation, generation: u64) -> Result<Option<Due>> {
        let mut plan = self.plan();
        if plan.dead || plan.generation != generation {
            return Err(Error::new(ErrorKind::Closed, "the process has died"));
        }
        let calls = plan.calls.entry(operation).or_default();
        *calls += 1;
        let call = *calls;
        let scripted = plan.script.remove(&(operation, call));
        let (fault, seed) = match scripted {
            Some(fault) => (Some(fault), None),
            None => plan.chance.as_mut().map_or((None, None), |chance| {
                (chance.next(operation), Some(chance.seed))
            }),
        };
        plan.injected += u64::from(fault.is_some());
        Ok(fault.map(|fault| Due { fault, call, seed }))
    }

    fn crash(&self) {
        let mut plan = self.plan();
        plan.dead = true;
        plan.generation += 1;
    }

    /// Takes bytes from the budget, if they fit.
    fn spend(&self, bytes: u64) -> Result<()> {
        let mut plan = self.plan();
        let Some(left) = plan.budget else {
            return Ok(());
        };
        match left.checked_sub(bytes) {
            Some(left) => plan.budget = Some(left),
            None => {
                plan.injected += 1;
                let message = format!("{bytes} bytes do not fit the {left} that are left");
                return Err(Error::new(ErrorKind::Full, message));
            }
        }
        Ok(())
    }
}

impl Chance {
    fn next(&mut self, operation: Operation) -> Option<Fault> {
        let fits = |(of, _): &&(Operation, Fault)| *of == operation;
        let count = self.faults.iter().filter(fits).count();
        if count == 0 || self.rng.below(self.one_in) > 0 {
            return None;
        }
        let index = self.rng.below(count as u64);
        let mut fitting = self.faults.iter().filter(fits);
        // The index is below the count.
        fitting
            .nth(usize::try_from(index).unwrap_or(0))
            .map(|(_, fault)| fault.clone())
    }
}

/// A fault that is due now.
struct Due {
    fault: Fault,
    call: u64,
    seed: Option<u64>,
}

impl Due {
    /// Lets it happen to an operation that writes nothing: `Ok` if it only took longer.
    fn settle(&self, faults: &Faults, operation: Operation) -> Result<()> {
        match &self.fault {
            Fault::Slow(hook) => {
                hook();
                Ok(())
            }
            Fault::Error(kind) => Err(self.error(*kind, operation)),
            Fault::Torn { .. } => Err(self.error(ErrorKind::Poisoned, operation)),
            Fault::Crash { .. } => {
                faults.crash();
                Err(self.error(ErrorKind::Closed, operation))
            }
        }
    }

    fn error(&self, kind: ErrorKind, operation: Operation) -> Error {
        let by = self.seed.map_or_else(
            || "as scripted".to_owned(),
            |seed| format!("by seed {seed}"),
        );
        let message = format!("fault in call {} of {operation:?}, {by}", self.call);
        Error::new(kind, message)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(kind) => write!(f, "Error({kind:?})"),
            Self::Slow(_) => f.write_str("Slow"),
            Self::Torn { applied } => write!(f, "Torn {{ applied: {applied} }}"),
            Self::Crash { applied } => write!(f, "Crash {{ applied: {applied} }}"),
        }
    }
}
