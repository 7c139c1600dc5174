//! The router: composition root, the Zenoh seam, one driver per subsystem, command line, admin.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")
)]

mod admin;
mod bench;
pub mod cli;
pub mod client;
mod clock;
mod convert;
mod forward;
mod http;
mod identity;
mod mirror;
mod plan;
mod plugin;
mod policies;
mod query;
pub mod run;
mod runtime;
mod service;
pub mod session;
mod share;
mod storage;
mod zenoh_settings;
