//! From a policy's traits to what the module exports.

use std::cell::RefCell;

use crate::{
    Destination, Environment, Hooks, InitError, Level, Link, Policy, Prioritize, Resolution,
    Resolve, Route, Verdict, Version,
    batch::Batch,
    bindings::{exports::weir::policy::lifecycle, weir::policy::types},
};

/// Where a module keeps its policy between calls.
pub type Slot<P> = RefCell<Option<P>>;

/// Exports a policy: `export!(Geo: route)`, or several hooks of one type in the order of the
/// interface: `export!(Fleet: route, resolve, prioritize)`. Once in a crate, at its top.
///
/// Elsewhere than on WebAssembly it only checks that the type has the traits, so that a policy is an
/// ordinary crate to `cargo test`.
#[macro_export]
macro_rules! export {
    ($policy:ty: route) => { $crate::export!(@ $policy, ROUTE; route ROUTE); };
    ($policy:ty: resolve) => { $crate::export!(@ $policy, RESOLVE; resolve RESOLVE); };
    ($policy:ty: prioritize) => { $crate::export!(@ $policy, PRIORITIZE; prioritize PRIORITIZE); };
    ($policy:ty: route, resolve) => {
        $crate::export!(@ $policy, ROUTE_RESOLVE; route ROUTE, resolve RESOLVE);
    };
    ($policy:ty: route, prioritize) => {
        $crate::export!(@ $policy, ROUTE_PRIORITIZE; route ROUTE, prioritize PRIORITIZE);
    };
    ($policy:ty: resolve, prioritize) => {
        $crate::export!(@ $policy, RESOLVE_PRIORITIZE; resolve RESOLVE, prioritize PRIORITIZE);
    };
    ($policy:ty: route, resolve, prioritize) => {
        $crate::export!(
            @ $policy, ROUTE_RESOLVE_PRIORITIZE; route ROUTE, resolve RESOLVE, prioritize PRIORITIZE
        );
    };
    (@ $policy:ty, $set:ident; $($hook:ident $flag:ident),+) => {
        #[doc(hidden)]
        #[allow(unsafe_code, reason = "an export is a symbol with a fixed name")]
        const _: () = {
            struct Guest;
            ::std::thread_local! {
                static POLICY: $crate::private::Slot<$policy> =
                    const { $crate::private::Slot::new(::core::option::Option::None) };
            }
            impl $crate::private::lifecycle::Guest for Guest {
                fn init(
                    environment: $crate::Environment,
                ) -> ::core::result::Result<$crate::private::lifecycle::Manifest, $crate::InitError> {
                    let hooks = $crate::Hooks::empty()$(.union($crate::Hooks::$flag))+;
                    POLICY.with(|slot| $crate::private::init(slot, hooks, &environment))
                }
            }
            $($crate::export_hook!($hook Guest POLICY);)+

            #[cfg(target_arch = "wasm32")]
            $crate::bindings::exports::weir::policy::lifecycle::__export_weir_policy_lifecycle_0_1_0_cabi!(
                Guest with_types_in $crate::bindings::exports::weir::policy::lifecycle
            );
            #[cfg(target_arch = "wasm32")]
            #[unsafe(link_section = "component-type:weir:policy")]
            #[used]
            static DESCRIPTION: [u8; $crate::descriptions::$set.len()] = *$crate::descriptions::$set;
        };
    };
}

/// One hook of [`export!`].
#[doc(hidden)]
#[macro_export]
macro_rules! export_hook {
    (route $guest:ident $slot:ident) => {
        impl $crate::private::shard_routing::Guest for $guest {
            fn route(
                _shards: u32,
                batch: $crate::private::types::Batch,
            ) -> ::core::result::Result<::std::vec::Vec<$crate::Destination>, ::std::string::String> {
                $slot.with(|slot| $crate::private::route(slot, batch))
            }
        }
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::exports::weir::policy::shard_routing::__export_weir_policy_shard_routing_0_1_0_cabi!(
            $guest with_types_in $crate::bindings::exports::weir::policy::shard_routing
        );
    };
    (resolve $guest:ident $slot:ident) => {
        impl $crate::private::conflict_resolution::Guest for $guest {
            fn resolve(
                key: ::std::string::String,
                first: $crate::Version,
                second: $crate::Version,
            ) -> ::core::result::Result<$crate::Resolution, ::std::string::String> {
                $slot.with(|slot| $crate::private::resolve(slot, &key, first, second))
            }
        }
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::exports::weir::policy::conflict_resolution::__export_weir_policy_conflict_resolution_0_1_0_cabi!(
            $guest with_types_in $crate::bindings::exports::weir::policy::conflict_resolution
        );
    };
    (prioritize $guest:ident $slot:ident) => {
        impl $crate::private::backlog_priority::Guest for $guest {
            fn prioritize(
                link: $crate::Link,
                batch: $crate::private::types::Batch,
            ) -> ::core::result::Result<::std::vec::Vec<$crate::Verdict>, ::std::string::String> {
                $slot.with(|slot| $crate::private::prioritize(slot, &link, batch))
            }
        }
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::exports::weir::policy::backlog_priority::__export_weir_policy_backlog_priority_0_1_0_cabi!(
            $guest with_types_in $crate::bindings::exports::weir::policy::backlog_priority
        );
    };
}

/// Calls the policy's `new`, and keeps it in `slot` for the calls that follow.
///
/// # Errors
/// If the settings make no sense, or the policy says that it cannot serve.
pub fn init<P: Policy>(
    slot: &Slot<P>,
    hooks: Hooks,
    environment: &Environment,
) -> Result<lifecycle::Manifest, InitError> {
    // A panic's text is lost on this target otherwise: the host only sees a trap.
    std::panic::set_hook(Box::new(|panic| {
        crate::log(Level::Error, &panic.to_string())
    }));
    let policy = crate::policy::start::<P>(environment)?;
    let manifest = policy.manifest().for_hooks(hooks);
    *slot.borrow_mut() = Some(policy);
    Ok(manifest)
}

/// Routes a batch.
///
/// # Errors
/// If the policy says so, or `init` was not called.
pub fn route<P: Route>(slot: &Slot<P>, batch: types::Batch) -> Result<Vec<Destination>, String> {
    with(slot, |policy| policy.route_batch(&Batch::from(batch)))
}

/// Resolves two versions.
///
/// # Errors
/// If the policy says so, or `init` was not called.
pub fn resolve<P: Resolve>(
    slot: &Slot<P>,
    key: &str,
    first: Version,
    second: Version,
) -> Result<Resolution, String> {
    with(slot, |policy| policy.resolve(key, &first, &second))
}

/// Prioritizes a batch.
///
/// # Errors
/// If the policy says so, or `init` was not called.
pub fn prioritize<P: Prioritize>(
    slot: &Slot<P>,
    link: &Link,
    batch: types::Batch,
) -> Result<Vec<Verdict>, String> {
    with(slot, |policy| {
        policy.prioritize_batch(link, &Batch::from(batch))
    })
}

fn with<P, T>(slot: &Slot<P>, call: impl FnOnce(&mut P) -> Result<T, String>) -> Result<T, String> {
    match slot.borrow_mut().as_mut() {
        Some(policy) => call(policy),
        None => Err("called before init".to_owned()),
    }
}
