//! The host: engines, limits and the cache of compiled modules, shared by every policy of a router.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use thiserror::Error;
use wasmtime::component::{Component, Linker};

use crate::{
    cache::Cache,
    engine::{Engines, Metering, Watch},
    environment::{Hook, Hooks},
    instance::{self, State},
    limits::Limits,
    load::{self, Refusal, RefusalCode, panic_text},
    revision::{Origin, Program, Revision},
};

/// How a host is set up.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What policies may use.
    pub limits: Limits,
    /// Where compiled modules are kept: a directory that nobody else can write. `None` compiles each
    /// module whenever it is loaded.
    pub cache: Option<PathBuf>,
    /// Compile a module on all cores. A router compiles on one, so that its data path keeps the others.
    pub compile_in_parallel: bool,
}

/// Why there is no host.
#[derive(Debug, Error)]
pub enum HostError {
    /// The machine cannot run WebAssembly, or a limit is out of range.
    #[error("cannot set up the engine for policies: {0}")]
    Engine(String),
    /// The directory for compiled modules cannot be used.
    #[error("cannot keep compiled policies: {0}")]
    Cache(#[from] io::Error),
}

/// Loads policies. One for each router.
pub struct Host {
    limits: Limits,
    engines: Engines,
    linkers: [Linker<State>; 2],
    cache: Option<Cache>,
}

impl Host {
    /// A host. Starts one thread, which sleeps while no policy is called.
    ///
    /// # Errors
    /// If the machine cannot run WebAssembly, or the cache's directory cannot be used safely.
    pub fn new(settings: Settings) -> Result<Arc<Self>, HostError> {
        let engine = |error: wasmtime::Error| HostError::Engine(format!("{error:#}"));
        let engines =
            Engines::new(&settings.limits, settings.compile_in_parallel).map_err(engine)?;
        let linker = |metering| instance::linker(engines.of(metering)).map_err(engine);
        let linkers = [linker(Metering::Time)?, linker(Metering::Fuel)?];
        Ok(Arc::new(Self {
            limits: settings.limits,
            linkers,
            engines,
            cache: settings.cache.as_deref().map(Cache::open).transpose()?,
        }))
    }

    /// What policies may use.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Makes a revision of a component or core module. Runs nothing of it: see [`Revision::manifest`].
    ///
    /// Costs about 2 ms for each KB that was never compiled here, and a fraction of a millisecond if it
    /// was. A module that is made to be hard to compile takes minutes of one core, and nothing can cut
    /// that short: call it on a thread that nobody waits for.
    ///
    /// # Errors
    /// [`Refusal`], with the reason and what to do.
    pub fn load(self: &Arc<Self>, name: &str, bytes: &[u8]) -> Result<Arc<Revision>, Refusal> {
        let start = Instant::now();
        let module = blake3::hash(bytes);
        let (origin, hooks, programs) = match self.cached(&module) {
            Some((hooks, programs)) => (Origin::Cache, hooks, programs),
            None => {
                let (hooks, programs) = self.compile(&module, bytes)?;
                (Origin::Compiled, hooks, programs)
            }
        };
        let [time, fuel] = programs;
        Ok(Arc::new(Revision {
            name: name.into(),
            hash: *module.as_bytes(),
            size: bytes.len(),
            hooks,
            origin,
            took: start.elapsed(),
            time,
            fuel,
            host: Arc::clone(self),
        }))
    }

    /// Has running calls looked at until the answer is dropped.
    pub(crate) fn watch(&self) -> Watch<'_> {
        self.engines.watch()
    }

    pub(crate) fn engine(&self, metering: Metering) -> &wasmtime::Engine {
        self.engines.of(metering)
    }

    fn linker(&self, metering: Metering) -> &Linker<State> {
        let [time, fuel] = &self.linkers;
        match metering {
            Metering::Time => time,
            Metering::Fuel => fuel,
        }
    }

    fn cached(&self, module: &blake3::Hash) -> Option<(Hooks, [Option<Program>; 2])> {
        let cache = self.cache.as_ref()?;
        // Whichever engine's file is there says which hooks there are, and so which files there must be.
        let find = |metering| cache.get(module, self.engines.of(metering), metering);
        let (time, fuel) = (find(Metering::Time), find(Metering::Fuel));
        let hooks = time.as_ref().or(fuel.as_ref())?.hooks;
        let mut programs = [None, None];
        for (slot, (metering, found)) in programs
            .iter_mut()
            .zip([(Metering::Time, time), (Metering::Fuel, fuel)])
        {
            if !needed(hooks, metering) {
                continue;
            }
            match self.revive(found?.code(), metering, hooks) {
                Ok(program) => *slot = Some(program),
                Err(error) => {
                    let engine = self.engines.of(metering);
                    tracing::warn!(%error, "a compiled policy does not load; it is compiled again");
                    cache.forget(module, engine, metering);
                    return None;
                }
            }
        }
        Some((hooks, programs))
    }

    #[expect(
        unsafe_code,
        reason = "machine code is taken as it is; only files that this router wrote get here"
    )]
    fn revive(&self, code: &[u8], metering: Metering, hooks: Hooks) -> Result<Program, Refusal> {
        // SAFETY: the code comes from a directory that nobody else can write, with a sound checksum,
        // under a name that holds the compatibility hash of this very engine.
        let component = unsafe { Component::deserialize(self.engines.of(metering), code) };
        let component =
            component.map_err(|error| Refusal::new(RefusalCode::Compile, format!("{error:#}")))?;
        Program::new(self.linker(metering), component, hooks)
    }

    fn compile(
        &self,
        module: &blake3::Hash,
        bytes: &[u8],
    ) -> Result<(Hooks, [Option<Program>; 2]), Refusal> {
        let parts = load::examine(bytes, self.limits.module_bytes_max)?;
        let mut programs = [None, None];
        for (slot, metering) in programs.iter_mut().zip([Metering::Time, Metering::Fuel]) {
            if !needed(parts.hooks, metering) {
                continue;
            }
            let engine = self.engines.of(metering);
            let component = compile(|| Component::new(engine, &parts.component))?;
            self.check_memory(&component)?;
            let program = Program::new(self.linker(metering), component, parts.hooks)?;
            if let Some(cache) = &self.cache {
                let code = program.component.serialize();
                match code {
                    Ok(code) => cache.put(module, engine, metering, parts.hooks, &code),
                    Err(error) => tracing::warn!(%error, "cannot keep a compiled policy"),
                }
            }
            *slot = Some(program);
        }
        Ok((parts.hooks, programs))
    }

    fn check_memory(&self, component: &Component) -> Result<(), Refusal> {
        let required = component.resources_required();
        // In pages, of 64 KiB each.
        let pages = required.and_then(|required| required.max_initial_memory_size);
        let bytes = pages.unwrap_or(0).saturating_mul(64 << 10);
        let bytes_max = self.limits.memory_bytes_max;
        match bytes {
            bytes if bytes > bytes_max as u64 => Err(Refusal::new(
                RefusalCode::Memory,
                format!(
                    "the module wants {bytes} bytes of memory to begin with, {bytes_max} is the \
                     limit: build it with a smaller initial memory and stack, or raise the limit"
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// Whether a module with these hooks is run by this engine.
fn needed(hooks: Hooks, metering: Metering) -> bool {
    match metering {
        Metering::Time => hooks.contains(Hook::Route) || hooks.contains(Hook::Prioritize),
        Metering::Fuel => hooks.contains(Hook::Resolve),
    }
}

/// A compiler is a large program that is fed by strangers: a panic of its own is a refusal.
fn compile(
    compile: impl FnOnce() -> Result<Component, wasmtime::Error>,
) -> Result<Component, Refusal> {
    let refuse = |why: &str| {
        Err(Refusal::new(
            RefusalCode::Compile,
            format!("the module cannot be compiled: {why}; build it with a current toolchain"),
        ))
    };
    match catch_unwind(AssertUnwindSafe(compile)) {
        Ok(Ok(component)) => Ok(component),
        Ok(Err(error)) => refuse(&format!("{error:#}")),
        Err(panic) => refuse(panic_text(panic.as_ref())),
    }
}
