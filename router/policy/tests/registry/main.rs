//! Policies from the file in the watched directory to the verdict: real files, real modules, real
//! signatures, and nothing that is waited for by the clock alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../host/guest.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod guest;

mod fleet;
mod refusals;
mod reload;
mod resolving;
