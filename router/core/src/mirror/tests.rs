//! Two and more replicas, a plain model each, over a network on seeds; and what it costs on the wire.

mod fuzz;
mod model;
mod network;
mod rules;
mod stores;
mod wire;
