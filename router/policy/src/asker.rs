//! What `route` and `prioritize` share: a long-lived instance that is replaced when it fails, and
//! counting.

use std::{sync::Arc, time::Instant};

use wasmtime::component::{ComponentNamedList, Lift, Lower, TypedFunc};
use weir_core::placement::Description;

use crate::{
    bindings::{self, Batch},
    columns::{Columns, Needs},
    environment::{Environment, Hook, Manifest},
    fault::{Cause, Fault},
    instance::Live,
    revision::Revision,
    stats::Stats,
};

/// Bytes of an error that a guest returns; a longer one makes its answer unreadable.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// An instance for batches. `A` is what the guest answers for a sample.
pub(crate) struct Asker<P, A> {
    revision: Arc<Revision>,
    hook: Hook,
    environment: Arc<bindings::Environment>,
    stats: Arc<Stats>,
    manifest: Manifest,
    columns: Columns,
    running: Option<Running<P, A>>,
}

struct Running<P, A> {
    live: Live,
    function: Function<P, A>,
}

type Function<P, A> = TypedFunc<(P, Arc<Batch>), Answers<A>>;
type Answers<A> = (Result<Vec<A>, String>,);

impl<P, A> Asker<P, A>
where
    (P, Arc<Batch>): ComponentNamedList + Lower,
    Answers<A>: ComponentNamedList + Lift,
{
    pub fn new(
        revision: &Arc<Revision>,
        hook: Hook,
        environment: &Environment,
        stats: Arc<Stats>,
    ) -> Result<Self, Fault> {
        let environment = Arc::new(bindings::Environment::from(environment));
        let running = Running::start(revision, hook, &environment, &stats);
        let running = running.inspect_err(|fault| stats.fault(fault, 0))?;
        Ok(Self {
            revision: Arc::clone(revision),
            hook,
            environment,
            stats,
            manifest: running.live.manifest.clone(),
            columns: Columns::default(),
            running: Some(running),
        })
    }

    pub fn revision(&self) -> &Arc<Revision> {
        &self.revision
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// Asks about as many samples from the front as fit into one call. Answers how many those are,
    /// and what `take` made of the answers. After a failure of its own making, or of the host's, the
    /// instance is gone; one that only answered nonsense goes on.
    pub fn ask<'a, T>(
        &mut self,
        prefix: &str,
        param: P,
        samples: impl Iterator<Item = &'a Description<'a>>,
        take: impl FnOnce(&Manifest, Vec<A>) -> Result<T, Fault>,
    ) -> (usize, Result<T, Fault>) {
        let count = self
            .columns
            .fill(prefix, Needs::from(&self.manifest), samples);
        let start = Instant::now();
        let result = self
            .call(param, count)
            .and_then(|answers| take(&self.manifest, answers));
        self.stats.call(count, start.elapsed());
        if let Err(fault) = &result {
            self.stats.fault(fault, count);
        }
        (count, result)
    }

    fn call(&mut self, param: P, count: usize) -> Result<Vec<A>, Fault> {
        let mut running = match self.running.take() {
            Some(running) => running,
            None => Running::start(&self.revision, self.hook, &self.environment, &self.stats)?,
        };
        // An answer may name several shards; whatever is longer than that is nonsense, and must not
        // become the host's memory.
        let answer_bytes_max = ERROR_BYTES_MAX + count * (size_of::<A>() + 64);
        let params = (param, self.columns.batch());
        // An instance that failed here is dropped: what it left behind is unknown.
        let (answers,) = running
            .live
            .call(&running.function, params, answer_bytes_max)?;
        self.running = Some(running);
        let answers = answers.map_err(|error| Fault::guest(Cause::GuestError, error))?;
        if answers.len() == count {
            return Ok(answers);
        }
        let length = answers.len();
        Err(Fault::guest(
            Cause::Length,
            format!("it gave {length} answers for {count} samples"),
        ))
    }
}

impl<P, A> Running<P, A>
where
    (P, Arc<Batch>): ComponentNamedList + Lower,
    Answers<A>: ComponentNamedList + Lift,
{
    fn start(
        revision: &Revision,
        hook: Hook,
        environment: &Arc<bindings::Environment>,
        stats: &Arc<Stats>,
    ) -> Result<Self, Fault> {
        let program = revision.program(hook)?;
        let environment = Arc::clone(environment);
        let live = Live::start(revision, program, hook, environment, stats);
        let mut live = live.map_err(|broken| broken.fault)?;
        let function = live.function(program, hook)?;
        Ok(Self { live, function })
    }
}

/// The answer's number, if the manifest says what it means.
pub(crate) fn reason(manifest: &Manifest, reason: u32) -> Result<(), Fault> {
    let named = manifest.reasons.len();
    if usize::try_from(reason).is_ok_and(|reason| reason < named) {
        return Ok(());
    }
    Err(Fault::guest(
        Cause::Answer,
        format!("it gave reason {reason}, its manifest names {named}"),
    ))
}
