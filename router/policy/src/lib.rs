//! The host of policies: WebAssembly modules that decide shards, conflicts and the order of a backlog.
//!
//! ```text
//! Host::new(Settings) -> Arc<Host>
//!   host.load(name, bytes) -> Arc<Revision> | Refusal      compiled, nothing of it has run
//!     revision.manifest(&Environment) -> Manifest | Fault  `init` on a throw-away instance
//!     RouteInstance::new(&revision, &environment, stats)   long-lived, one a worker
//!       .route(prefix, shards, &[Description], &mut out)   out gets an answer for each sample, always
//!     PrioritizeInstance::new(&revision, &environment, stats)
//!       .prioritize(prefix, link, &[Description], &mut out)
//!     Resolver::new(&revision, settings_json, stats)       a fresh instance for each question
//!       .resolve(key, first, second) -> Resolution | ResolveFault
//! stats.statistics() -> Statistics                         from any thread, at any time
//! ```
//!
//! A policy is a guest: whatever it does costs its answer and nothing else. A [`Refusal`] keeps it out,
//! a [`Fault`] has the native rule decide instead, and both have a code that never changes and a sentence
//! that says what to do. `route` and `prioritize` may use so much CPU time; `resolve` so much fuel, so
//! that it ends alike on every replica.
//!
//! Stack is the one thing that is not metered alike everywhere: how deep a recursion gets before it
//! traps depends on the processor. A resolver that recurses so deep is not the same function on an ARM
//! and an x86 router.

mod asker;
mod bindings;
mod cache;
mod columns;
pub mod directory;
mod engine;
mod environment;
mod fault;
pub mod harness;
mod host;
mod instance;
pub mod limits;
mod load;
mod log;
mod memo;
mod prioritize;
pub mod registry;
mod resolve;
mod revision;
mod route;
pub mod signature;
pub mod slot;
mod stats;
pub mod status;

pub use engine::TICK;
pub use environment::{Environment, Fields, Hook, Hooks, Manifest};
pub use fault::{Blame, Cause, Fault, ResolveFault};
pub use host::{Host, HostError, Settings};
pub use limits::Limits;
pub use load::{Refusal, RefusalCode};
pub use prioritize::PrioritizeInstance;
pub use registry::{Policies, PoliciesSettings};
pub use resolve::Resolver;
pub use revision::{Origin, Revision};
pub use route::RouteInstance;
pub use stats::{Statistics, Stats};
