//! One running instance: its memory, its budget, what it can call, and what becomes of its failures.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use wasmtime::{
    Engine, Error, ResourceLimiter, Store, StoreContextMut, Trap, UpdateDeadline, WasmBacktrace,
    component::{ComponentNamedList, Instance, Lift, Linker, Lower, TypedFunc, WasmStr},
};

use crate::{
    bindings::{self, HOST, InitError, Level},
    engine::{Metering, thread_cpu_nanos},
    environment::{Hook, Manifest},
    fault::{Cause, Fault},
    host::Host,
    limits::{CORE_INSTANCES_MAX, MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX},
    log::{self, Speaker},
    revision::{Program, Revision, Signature},
    stats::Stats,
};

/// Bytes that the host takes for a manifest, before it looks at what it says.
const MANIFEST_BYTES_MAX: usize = 1 << 20;

type InitParams = <bindings::Init as Signature>::Params;
type InitResults = <bindings::Init as Signature>::Results;

/// What a store carries beside the guest.
pub(crate) struct State {
    usage: Usage,
    budget: Budget,
    metering: Metering,
    speaker: Speaker,
    stats: Arc<Stats>,
    host: Arc<Host>,
}

/// What an instance has of memory and tables, and what it was refused.
struct Usage {
    memory_bytes: usize,
    memory_bytes_max: usize,
    table_elements: usize,
    /// It was refused memory since the call began.
    refused: bool,
    /// The machine could not give what the limits allow.
    starved: bool,
}

/// What ends a call, besides fuel.
struct Budget {
    /// CPU time of this thread, in nanoseconds, when the call began.
    cpu_start: u64,
    cpu_max: u64,
    /// On the wall clock; only for calls under fuel.
    wall: Option<(Instant, Duration)>,
    spent: bool,
}

impl Budget {
    /// The deadline callback: whether the call may go on.
    fn check(&mut self) -> Result<UpdateDeadline, Error> {
        self.spent |= match self.wall {
            Some((start, patience)) => start.elapsed() > patience,
            None => thread_cpu_nanos().saturating_sub(self.cpu_start) > self.cpu_max,
        };
        if self.spent {
            return Err(Error::msg("the budget is spent"));
        }
        Ok(UpdateDeadline::Continue(1))
    }
}

impl ResourceLimiter for Usage {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, Error> {
        let total = self
            .memory_bytes
            .saturating_add(desired.saturating_sub(current));
        let granted =
            total <= self.memory_bytes_max && maximum.is_none_or(|maximum| desired <= maximum);
        if granted {
            self.memory_bytes = total;
        }
        self.refused |= !granted;
        Ok(granted)
    }

    fn memory_grow_failed(&mut self, error: Error) -> Result<(), Error> {
        // A guest may ask for more than 4 GiB; wasmtime tells that in words only. Everything else that
        // we did grant is the machine's failure: another replica may have had the memory.
        if error.to_string().contains("type's limits") {
            self.refused = true;
            return Ok(());
        }
        self.starved = true;
        Err(error)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> Result<bool, Error> {
        let total = self
            .table_elements
            .saturating_add(desired.saturating_sub(current));
        let granted = total <= TABLE_ELEMENTS_MAX;
        if granted {
            self.table_elements = total;
        }
        self.refused |= !granted;
        Ok(granted)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}

/// All that a policy can call.
pub(crate) fn linker(engine: &Engine) -> Result<Linker<State>, Error> {
    let mut linker = Linker::new(engine);
    let mut host = linker.instance(HOST)?;
    host.func_wrap("log", log)?;
    host.func_wrap("count", |store: StoreContextMut<'_, State>, (id, n)| {
        store.data().stats.count(id, n);
        Ok(())
    })?;
    Ok(linker)
}

fn log(
    mut store: StoreContextMut<'_, State>,
    (level, message): (Level, WasmStr),
) -> Result<(), Error> {
    let text = message.to_str(&store)?;
    let length = text.len() as u64;
    let state = store.data();
    log::say(
        &state.speaker,
        &state.stats,
        state.host.limits(),
        level,
        &text,
    );
    if state.metering == Metering::Fuel {
        // Reading the message is work that the guest's own instructions do not pay for. It has to be
        // paid alike on every replica, so it is paid whether or not the line is written.
        let left = store
            .get_fuel()?
            .checked_sub(length)
            .ok_or(Trap::OutOfFuel)?;
        store.set_fuel(left)?;
    }
    Ok(())
}

/// An instance that has been started, with the function of one hook.
pub(crate) struct Live {
    store: Store<State>,
    instance: Instance,
    pub manifest: Manifest,
}

/// An instance that did not start, with the fuel that it used.
pub(crate) struct Broken {
    pub fault: Fault,
    pub fuel: u64,
}

impl Live {
    /// Instantiates and calls `init`. For `resolve` all of this comes from the fuel of the one call.
    pub fn start(
        revision: &Revision,
        program: &Program,
        hook: Hook,
        environment: Arc<bindings::Environment>,
        stats: &Arc<Stats>,
    ) -> Result<Self, Broken> {
        let mut store = store(revision, hook, stats);
        stats.started();
        let started = start(&mut store, program, environment);
        let fault = match started {
            Ok((instance, raw)) => {
                let checked = Manifest::check(raw, revision.hooks);
                match checked.and_then(|manifest| manifest.require(hook).map(|()| manifest)) {
                    Ok(manifest) => {
                        store.data().account();
                        return Ok(Self {
                            store,
                            instance,
                            manifest,
                        });
                    }
                    Err(fault) => fault,
                }
            }
            Err(fault) => fault,
        };
        store.data().account();
        let fuel = fuel_used(&store);
        Err(Broken { fault, fuel })
    }

    /// The function of a hook, to be called with [`Live::call`].
    pub fn function<P, R>(
        &mut self,
        program: &Program,
        hook: Hook,
    ) -> Result<TypedFunc<P, R>, Fault>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        let missing = || Fault::host(format!("{hook} is gone from the module"));
        let index = program.export(hook).ok_or_else(missing)?;
        let function = self
            .instance
            .get_func(&mut self.store, index)
            .ok_or_else(missing)?;
        function
            .typed(&self.store)
            .map_err(|error| Fault::host(format!("{error:#}")))
    }

    /// Calls under the budget of a batch. After an error the instance is of no use any more.
    pub fn call<P, R>(
        &mut self,
        function: &TypedFunc<P, R>,
        params: P,
        answer_bytes_max: usize,
    ) -> Result<R, Fault>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        let store = &mut self.store;
        let host = Arc::clone(&store.data().host);
        let _watch = host.watch();
        arm(store, host.limits().batch_cpu_max);
        store.set_hostcall_fuel(answer_bytes_max);
        let result = function.call(&mut *store, params);
        store.data().account();
        result.map_err(|error| blame(store, &error, Cause::Answer))
    }

    /// Fuel used since the instance was made; 0 if it is not metered so.
    pub fn fuel_used(&self) -> u64 {
        fuel_used(&self.store)
    }
}

fn fuel_used(store: &Store<State>) -> u64 {
    let left = store.get_fuel();
    left.map_or(0, |left| store.data().host.limits().resolve_fuel - left)
}

impl State {
    fn account(&self) {
        self.stats.memory(self.usage.memory_bytes);
        if self.metering == Metering::Time {
            self.stats
                .cpu(thread_cpu_nanos().saturating_sub(self.budget.cpu_start));
        }
    }
}

fn store(revision: &Revision, hook: Hook, stats: &Arc<Stats>) -> Store<State> {
    let limits = revision.host.limits();
    let metering = match hook {
        Hook::Route | Hook::Prioritize => Metering::Time,
        Hook::Resolve => Metering::Fuel,
    };
    let state = State {
        usage: Usage {
            memory_bytes: 0,
            memory_bytes_max: limits.memory_bytes_max,
            table_elements: 0,
            refused: false,
            starved: false,
        },
        budget: Budget {
            cpu_start: 0,
            cpu_max: 0,
            wall: (metering == Metering::Fuel).then(|| (Instant::now(), limits.resolve_patience)),
            spent: false,
        },
        metering,
        speaker: Speaker {
            policy: Arc::clone(&revision.name),
            hook,
        },
        stats: Arc::clone(stats),
        host: Arc::clone(&revision.host),
    };
    let mut store = Store::new(revision.host.engine(metering), state);
    store.limiter(|state| &mut state.usage);
    store.epoch_deadline_callback(|mut store| store.data_mut().budget.check());
    store
}

fn start(
    store: &mut Store<State>,
    program: &Program,
    environment: Arc<bindings::Environment>,
) -> Result<(Instance, bindings::Manifest), Fault> {
    let host = Arc::clone(&store.data().host);
    let _watch = host.watch();
    if store.data().metering == Metering::Fuel {
        let filled = store.set_fuel(host.limits().resolve_fuel);
        filled.map_err(|error| Fault::host(format!("{error:#}")))?;
    }
    arm(store, host.limits().init_cpu_max);
    store.set_hostcall_fuel(MANIFEST_BYTES_MAX);
    let instance = program.pre.instantiate(&mut *store);
    let instance = instance.map_err(|error| blame(store, &error, Cause::Host))?;
    let gone = || Fault::host("init is gone from the module");
    let init = instance
        .get_func(&mut *store, program.init)
        .ok_or_else(gone)?;
    let init = init
        .typed(&*store)
        .map_err(|error| Fault::host(format!("{error:#}")))?;
    let init: TypedFunc<InitParams, InitResults> = init;
    let answer = init.call(&mut *store, (environment,));
    let (answer,) = answer.map_err(|error| blame(store, &error, Cause::Answer))?;
    let failed = |kind, why| Fault::guest(Cause::Init, format!("init: {kind}: {why}"));
    let manifest = answer.map_err(|error| match error {
        InitError::BadSettings(why) => failed("bad settings", why),
        InitError::Unsupported(why) => failed("unsupported", why),
        InitError::Other(why) => failed("other", why),
    })?;
    Ok((instance, manifest))
}

/// Begins the budget of a call.
fn arm(store: &mut Store<State>, cpu_max: Duration) {
    let state = store.data_mut();
    state.usage.refused = false;
    state.budget.spent = false;
    if state.metering == Metering::Time {
        state.budget.cpu_start = thread_cpu_nanos();
        state.budget.cpu_max = u64::try_from(cpu_max.as_nanos()).unwrap_or(u64::MAX);
    }
    // The default deadline is now.
    store.set_epoch_deadline(1);
}

/// What a failed call is counted as. `otherwise` is what it is if neither the guest trapped nor a
/// limit was met.
fn blame(store: &Store<State>, error: &Error, otherwise: Cause) -> Fault {
    let state = store.data();
    let trap = error.downcast_ref::<Trap>();
    if state.usage.starved {
        return Fault::host(format!("the machine gave no more memory: {error}"));
    }
    if state.budget.spent {
        return match state.budget.wall {
            Some((_, patience)) => Fault::host(format!(
                "the call took longer than {patience:?} on the wall clock, so it was interrupted"
            )),
            None => {
                let budget = Duration::from_nanos(state.budget.cpu_max);
                Fault::guest(
                    Cause::Timeout,
                    format!("it ran longer than {budget:?} of CPU time{}", place(error)),
                )
            }
        };
    }
    if trap == Some(&Trap::OutOfFuel) {
        let fuel = state.host.limits().resolve_fuel;
        return Fault::guest(Cause::Fuel, format!("it used up {fuel} units of fuel"));
    }
    // The number of instances, memories and tables is limited too; wasmtime tells it in words only.
    if state.usage.refused || error.to_string().contains("resource limit exceeded") {
        let (has, max) = (state.usage.memory_bytes, state.usage.memory_bytes_max);
        let why = trap.map_or_else(
            || format!("{error}"),
            |trap| format!("{trap}{}", place(error)),
        );
        return Fault::guest(
            Cause::Memory,
            format!(
                "it has {has} bytes of memory and was refused more ({max} is the limit): {why}"
            ),
        );
    }
    match trap {
        Some(trap) => Fault::guest(Cause::Trap, format!("{trap}{}", place(error))),
        None if otherwise == Cause::Host => Fault::host(format!("{error:#}")),
        None => Fault::guest(
            otherwise,
            format!("its answer cannot be read: {}", error.root_cause()),
        ),
    }
}

/// Where in the guest a call ended, if its functions have names.
fn place(error: &Error) -> String {
    let frames = error
        .downcast_ref::<WasmBacktrace>()
        .map(WasmBacktrace::frames);
    let names = frames
        .unwrap_or_default()
        .iter()
        .filter_map(|frame| frame.func_name());
    let names: Vec<_> = names.take(3).collect();
    if names.is_empty() {
        String::new()
    } else {
        format!(", in {}", names.join(" called by "))
    }
}
