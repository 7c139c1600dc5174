//! The pure core of Weir: what becomes of changes, what keys hold, what may be forgotten, where
//! samples live. No task, no network, no clock, no file: time, chance and identity are arguments.

pub mod admission;
pub mod backlog;
mod cache;
pub mod change;
pub mod clock;
pub mod collection;
pub mod forward;
pub mod health;
pub mod identity;
pub mod key;
pub mod keyspace;
pub mod laws;
pub mod ledger;
pub mod membership;
pub mod mirror;
pub mod pattern;
pub mod placement;
pub mod record;
pub mod resolution;
pub mod resolving;
pub mod selection;
pub mod slot;
pub mod value;
pub mod vector;
pub mod version;
pub mod view;
pub mod wildcard;
mod wire;

pub use zenoh_keyexpr as keyexpr;
