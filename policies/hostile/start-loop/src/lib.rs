//! A policy that never starts: its start function loops before anybody called it.

#![allow(unsafe_code, reason = "a start function is a symbol with a fixed name")]
#![cfg_attr(
    not(target_arch = "wasm32"),
    allow(dead_code, reason = "exports are for modules")
)]

use weir_policy_sdk::prelude::*;

/// Called by whoever instantiates the module, before `init`.
#[unsafe(export_name = "_initialize")]
pub extern "C" fn initialize() {
    let mut n = 0u64;
    loop {
        n = std::hint::black_box(n).wrapping_add(1);
    }
}

struct Never;

/// It takes none.
#[derive(serde::Deserialize)]
struct Settings {}

impl Policy for Never {
    type Settings = Settings;

    fn new(_: &Environment, _: Settings) -> Result<Self, InitError> {
        Ok(Self)
    }

    fn manifest(&self) -> Manifest {
        manifest!()
    }
}

impl Route for Never {
    fn route(&mut self, _: Sample<'_>) -> Destination {
        Destination::Default
    }
}

weir_policy_sdk::export!(Never: route);
