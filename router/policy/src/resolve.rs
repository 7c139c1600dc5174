//! `resolve`: what becomes of two concurrent versions, as a pure function of them.

use std::{sync::Arc, time::Instant};

use weir_core::resolution::{Contender, Interrupted, Resolution, Resolve};

use crate::{
    bindings::{self, ResolveParams, ResolveResult},
    environment::{Environment, Hook, Manifest},
    fault::{Blame, Cause, Fault, ResolveFault},
    instance::Live,
    revision::Revision,
    stats::Stats,
};

/// Asks a policy about conflicts, each on a fresh instance under fuel. May be shared by threads.
pub struct Resolver {
    revision: Arc<Revision>,
    environment: Arc<bindings::Environment>,
    stats: Arc<Stats>,
    manifest: Manifest,
}

impl Resolver {
    /// A resolver with the policy's own settings, which have to be the same on every replica. They are
    /// all that it is told, since it must answer alike everywhere.
    ///
    /// # Errors
    /// If an instance does not start, or does not serve `resolve`.
    pub fn new(
        revision: &Arc<Revision>,
        settings_json: &str,
        stats: Arc<Stats>,
    ) -> Result<Self, Fault> {
        let environment = Environment::for_resolve(settings_json);
        let environment = Arc::new(bindings::Environment::from(&environment));
        let program = revision.program(Hook::Resolve)?;
        let started = Live::start(
            revision,
            program,
            Hook::Resolve,
            Arc::clone(&environment),
            &stats,
        );
        let live = started.map_err(|broken| {
            stats.fault(&broken.fault, 0);
            broken.fault
        })?;
        Ok(Self {
            revision: Arc::clone(revision),
            environment,
            manifest: live.manifest,
            stats,
        })
    }

    /// What the policy says about itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What it was made from.
    #[must_use]
    pub fn revision(&self) -> &Arc<Revision> {
        &self.revision
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// What `key` holds from now on. `first` is the earlier in the total order of versions; `key` is in
    /// full. Costs some 40 microseconds beside what the policy does itself.
    ///
    /// # Errors
    /// [`ResolveFault::Guest`]: the policy failed, as it does on every replica, and the later version
    /// wins. [`ResolveFault::Interrupted`]: nothing is decided; ask again.
    pub fn resolve(
        &self,
        key: &str,
        first: Contender<'_>,
        second: Contender<'_>,
    ) -> Result<Resolution, ResolveFault> {
        self.resolve_metered(key, first, second).0
    }

    /// The same, with the fuel that it took: a number that depends on the arguments alone.
    pub fn resolve_metered(
        &self,
        key: &str,
        first: Contender<'_>,
        second: Contender<'_>,
    ) -> (Result<Resolution, ResolveFault>, u64) {
        let start = Instant::now();
        let (result, fuel) = self.call(key, first, second);
        self.stats.call(1, start.elapsed());
        self.stats.fuel(fuel);
        let result = result.map_err(|fault| match fault.blame {
            Blame::Guest => {
                self.stats.fault(&fault, 1);
                ResolveFault::Guest(fault)
            }
            Blame::Host => {
                self.stats.interrupted(&fault);
                ResolveFault::Interrupted(Interrupted(fault.message))
            }
        });
        (result, fuel)
    }

    fn call(
        &self,
        key: &str,
        first: Contender<'_>,
        second: Contender<'_>,
    ) -> (Result<Resolution, Fault>, u64) {
        let program = match self.revision.program(Hook::Resolve) {
            Ok(program) => program,
            Err(fault) => return (Err(fault), 0),
        };
        let environment = Arc::clone(&self.environment);
        let started = Live::start(
            &self.revision,
            program,
            Hook::Resolve,
            environment,
            &self.stats,
        );
        let mut live = match started {
            Ok(live) => live,
            Err(broken) => return (Err(broken.fault), broken.fuel),
        };
        // What it answers was in its own memory, so this much is the most that it can be.
        let answer_bytes_max = self.revision.host().limits().memory_bytes_max;
        let params: ResolveParams<'_> = (key, first.into(), second.into());
        let answer = live
            .function::<ResolveParams<'_>, ResolveResult>(program, Hook::Resolve)
            .and_then(|function| live.call(&function, params, answer_bytes_max));
        let resolution = answer.and_then(|(answer,)| match answer {
            Ok(resolution) => Ok(resolution.into()),
            Err(error) => Err(Fault::guest(Cause::GuestError, error)),
        });
        (resolution, live.fuel_used())
    }
}

impl Resolve for Resolver {
    fn resolve(
        &mut self,
        key: &str,
        first: Contender<'_>,
        second: Contender<'_>,
    ) -> Result<Resolution, Interrupted> {
        match Self::resolve(self, key, first, second) {
            Ok(resolution) => Ok(resolution),
            Err(ResolveFault::Guest(_)) => Ok(Resolution::Default),
            Err(ResolveFault::Interrupted(interrupted)) => Err(interrupted),
        }
    }
}
