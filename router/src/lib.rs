//! The router: composition root, the Zenoh seam, one driver per subsystem, command line, admin.

mod admin;
mod bench;
pub mod cli;
pub mod client;
mod clock;
mod convert;
mod http;
mod plan;
mod plugin;
mod query;
pub mod run;
mod runtime;
mod service;
pub mod session;
mod storage;
mod zenoh_settings;
