//! One module, compiled: what every instance of it is made from.

use std::{fmt, sync::Arc, time::Duration};

use wasmtime::component::{
    Component, ComponentExportIndex, ComponentNamedList, InstancePre, Lift, Linker, Lower,
    types::ComponentItem,
};

use crate::{
    bindings::{
        self, BACKLOG_PRIORITY, CONFLICT_RESOLUTION, LIFECYCLE, PACKAGE, SHARD_ROUTING, VERSION,
    },
    environment::{Environment, Hook, Hooks, Manifest},
    fault::Fault,
    host::Host,
    instance::{Live, State},
    load::{Refusal, RefusalCode},
    stats::Stats,
};

/// Where a revision's machine code came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// It was compiled now.
    Compiled,
    /// It was compiled before.
    Cache,
}

/// One module's content, compiled. Cheap to share; instances are made from it.
pub struct Revision {
    /// The name that it was loaded under.
    pub name: Arc<str>,
    /// blake3 of the module's bytes: what names this revision everywhere.
    pub hash: [u8; 32],
    /// The module's bytes.
    pub size: usize,
    /// What it exports. Its manifest may serve fewer.
    pub hooks: Hooks,
    /// Whether it had to be compiled.
    pub origin: Origin,
    /// How long loading took.
    pub took: Duration,
    pub(crate) time: Option<Program>,
    pub(crate) fuel: Option<Program>,
    pub(crate) host: Arc<Host>,
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revision")
            .field("name", &self.name)
            .field("hash", &self.hash_hex())
            .field("hooks", &self.hooks)
            .finish_non_exhaustive()
    }
}

impl Revision {
    /// The hash as people and other routers see it: 64 hexadecimal digits.
    #[must_use]
    pub fn hash_hex(&self) -> String {
        blake3::Hash::from_bytes(self.hash).to_hex().to_string()
    }

    /// The host that loaded it.
    #[must_use]
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// What the policy says about itself in this environment. Starts an instance and drops it.
    ///
    /// # Errors
    /// If `init` fails, or says what makes no sense.
    pub fn manifest(&self, environment: &Environment) -> Result<Manifest, Fault> {
        let hook = self.hooks.iter().next().unwrap_or(Hook::Route);
        let program = self.program(hook)?;
        let stats = Arc::new(Stats::default());
        let environment = Arc::new(bindings::Environment::from(environment));
        Live::start(self, program, hook, environment, &stats)
            .map(|live| live.manifest)
            .map_err(|broken| broken.fault)
    }

    /// What serves `hook`.
    pub(crate) fn program(&self, hook: Hook) -> Result<&Program, Fault> {
        let program = match hook {
            Hook::Route | Hook::Prioritize => self.time.as_ref(),
            Hook::Resolve => self.fuel.as_ref(),
        };
        program
            .filter(|_| self.hooks.contains(hook))
            .ok_or_else(|| {
                Fault::guest(
                    crate::fault::Cause::Init,
                    format!(
                        "the module does not export {}, so it cannot serve {hook}",
                        hook.interface()
                    ),
                )
            })
    }
}

/// A component for one of the two engines, with the places of what it exports.
pub(crate) struct Program {
    pub component: Component,
    pub pre: InstancePre<State>,
    pub init: ComponentExportIndex,
    route: Option<ComponentExportIndex>,
    resolve: Option<ComponentExportIndex>,
    prioritize: Option<ComponentExportIndex>,
}

impl Program {
    /// Checks every function that will be called against the interface.
    pub fn new(
        linker: &Linker<State>,
        component: Component,
        hooks: Hooks,
    ) -> Result<Self, Refusal> {
        let pre = linker.instantiate_pre(&component).map_err(|error| {
            Refusal::new(
                RefusalCode::Interface,
                format!(
                    "an import is not as the interface says: {error:#}; build it against \
                     {PACKAGE}@{VERSION}"
                ),
            )
        })?;
        let find = Find {
            component: &component,
            pre: &pre,
        };
        let has = |hook| hooks.contains(hook);
        let init = find.typed::<bindings::Init>(LIFECYCLE, "init")?;
        let route = has(Hook::Route).then(|| find.typed::<bindings::Route>(SHARD_ROUTING, "route"));
        let resolve = has(Hook::Resolve).then(|| {
            find.typed::<(bindings::ResolveParams<'static>, bindings::ResolveResult)>(
                CONFLICT_RESOLUTION,
                "resolve",
            )
        });
        let prioritize = has(Hook::Prioritize)
            .then(|| find.typed::<bindings::Prioritize>(BACKLOG_PRIORITY, "prioritize"));
        let (route, resolve) = (route.transpose()?, resolve.transpose()?);
        let prioritize = prioritize.transpose()?;
        Ok(Self {
            component,
            pre,
            init,
            route,
            resolve,
            prioritize,
        })
    }

    /// Where the function of `hook` is.
    pub fn export(&self, hook: Hook) -> Option<&ComponentExportIndex> {
        match hook {
            Hook::Route => self.route.as_ref(),
            Hook::Resolve => self.resolve.as_ref(),
            Hook::Prioritize => self.prioritize.as_ref(),
        }
    }
}

struct Find<'a> {
    component: &'a Component,
    pre: &'a InstancePre<State>,
}

/// The parameters and results of a function.
pub(crate) trait Signature {
    type Params: ComponentNamedList + Lower;
    type Results: ComponentNamedList + Lift;
}

impl<P: ComponentNamedList + Lower, R: ComponentNamedList + Lift> Signature for (P, R) {
    type Params = P;
    type Results = R;
}

impl Find<'_> {
    fn typed<S: Signature>(
        &self,
        interface: &str,
        name: &str,
    ) -> Result<ComponentExportIndex, Refusal> {
        let refuse = |why: String| {
            Refusal::new(
                RefusalCode::Interface,
                format!("{interface}#{name} {why}; build the module against {PACKAGE}@{VERSION}"),
            )
        };
        let instance = self.component.get_export_index(None, interface);
        let found = instance.and_then(|instance| self.component.get_export(Some(&instance), name));
        match found {
            Some((ComponentItem::ComponentFunc(function), index)) => function
                .typecheck::<S::Params, S::Results>(&self.pre.instance_type())
                .map(|()| index)
                .map_err(|error| refuse(format!("is not as the interface says: {error:#}"))),
            Some(_) => Err(refuse("is no function".into())),
            None => Err(refuse("is missing".into())),
        }
    }
}
