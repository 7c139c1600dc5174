//! Writes Weir policies in Rust.
//!
//! A policy is a type with settings, a manifest and one trait for each hook that it serves;
//! [`export!`] makes a module of it:
//!
//! ```
//! use weir_policy_sdk::prelude::*;
//!
//! /// Puts every video on the shard that `settings.shard` names.
//! struct Video(u32);
//!
//! #[derive(serde::Deserialize)]
//! struct Settings { shard: String }
//!
//! impl Policy for Video {
//!     type Settings = Settings;
//!     fn new(environment: &Environment, settings: Settings) -> Result<Self, InitError> {
//!         Ok(Self(environment.shard(&settings.shard)?))
//!     }
//!     fn manifest(&self) -> Manifest {
//!         manifest!().needs(Fields::KEY)
//!     }
//! }
//!
//! impl Route for Video {
//!     fn route(&mut self, sample: Sample<'_>) -> Destination {
//!         if sample.key().ends_with("/video") { Destination::Shard(self.0) } else { Destination::Default }
//!     }
//! }
//!
//! weir_policy_sdk::export!(Video: route);
//! ```
//!
//! Build it with `weir policy build`, or with `policies/build` of Weir's repository. A panic ends the
//! instance, costs its answer, and its text appears in the router's log.

mod batch;
pub mod bindings;
mod export;
pub mod hash;
mod host;
mod lattice;
mod manifest;
mod number;
mod pattern;
mod policy;
#[cfg(feature = "testing")]
pub mod testing;
mod time;

pub use batch::{Batch, Sample, Samples};
pub use bindings::{
    exports::weir::policy::{
        backlog_priority::{Link, Placement, Verdict},
        conflict_resolution::{Resolution, Value, Version},
        lifecycle::{Environment, Hooks, InitError},
        shard_routing::Destination,
    },
    weir::policy::{
        host::Level,
        types::{Fields, Hlc},
    },
};
pub use host::{count, log};
pub use lattice::{Deletes, Joined, join};
pub use manifest::Manifest;
pub use number::number_order;
pub use pattern::{Pattern, PatternError};
pub use policy::{Policy, Prioritize, Resolve, Route};
pub use time::Span;

/// What a policy names, in one line.
pub mod prelude {
    pub use crate::{
        Batch, Deletes, Destination, Environment, Fields, Hlc, InitError, Joined, Level, Link,
        Manifest, Pattern, Placement, Policy, Prioritize, Resolution, Resolve, Route, Sample, Span,
        Value, Verdict, Version, count, join, log, manifest,
    };
}

/// For [`export!`] alone; may change at any time.
#[doc(hidden)]
pub mod private {
    pub use crate::{
        bindings::{
            exports::weir::policy::{
                backlog_priority, conflict_resolution, lifecycle, shard_routing,
            },
            weir::policy::types,
        },
        export::{Slot, init, prioritize, resolve, route},
    };
}

/// What a module exports, for each set of hooks; written by build.rs.
#[doc(hidden)]
pub mod descriptions {
    macro_rules! descriptions {
        ($($name:ident $file:literal)+) => {
            $(pub const $name: &[u8; include_bytes!(concat!(env!("OUT_DIR"), "/", $file, ".section")).len()] =
                include_bytes!(concat!(env!("OUT_DIR"), "/", $file, ".section"));)+
        };
    }
    descriptions! {
        ROUTE "route"
        RESOLVE "resolve"
        PRIORITIZE "prioritize"
        ROUTE_RESOLVE "route-resolve"
        ROUTE_PRIORITIZE "route-prioritize"
        RESOLVE_PRIORITIZE "resolve-prioritize"
        ROUTE_RESOLVE_PRIORITIZE "route-resolve-prioritize"
    }
}
