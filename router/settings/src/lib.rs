//! Weir's configuration: read from several layers and in three forms, checked all at once, and
//! every mistake shown where it was written.
//!
//! Layers, the weakest first: defaults, files (JSON5, JSON, YAML, TOML), the environment
//! (`WEIR_STORAGES__demo__VOLUME=memory`), flags. Objects are merged, everything else is replaced.
//!
//! Forms, which may be mixed, also in one file:
//! - ours: Zenoh's own configuration with `storages`, `volumes`, `shard_groups`, `forward`,
//!   `policies`, `http`, `rest` and `data_dir` beside it;
//! - the short form: `storages: { x: { key_expr: "a/**", backend: "rocksdb", dir: "/data" } }`;
//! - zenohd's: `plugins: { storage_manager: { volumes: ..., storages: ... }, rest: ... }`, with its
//!   own rules for directories (see [`Form`]). Only what stands in a class or set of a key pattern
//!   differs: `[` and `{` in a key expression are literal for zenohd.
//!
//! [`load`] collects and never stops at the first mistake. Nothing here binds, opens or creates.

mod diagnostic;
mod directories;
mod form;
mod forward;
mod group;
mod influx;
mod layer;
mod path;
mod plugins;
mod policy;
mod secret;
mod servers;
mod settings;
mod show;
mod source;
mod storage;
mod table;
mod text;
mod units;
mod volume;

pub use diagnostic::{Diagnostic, Location, Severity};
pub use directories::check_directories;
pub use forward::{Budget, ForwardSettings, JournalSync, LaneRule, OnFull, Order};
pub use group::ShardGroups;
pub use influx::{InfluxSettings, InfluxVersion};
pub use layer::{Defaults, Flag, Layers, RESERVED_VARIABLES};
pub use policy::{OnRemove, PolicyKey, PolicyLimits, PolicySettings, Signatures, StoragePolicies};
pub use servers::HttpSettings;
pub use settings::{Loaded, Settings, load, parse_storage, parse_volume};
pub use show::{schema, show};
pub use source::{Origin, Sources};
pub use storage::{
    Durability, GarbageCollection, History, OnClosure, Retain, ShardSettings, Spool,
    StorageSettings, Timestamps,
};
pub use storage::{MirrorSettings, Peers};
pub use table::did_you_mean;
pub use volume::{Backend, Form, Roots, VolumeSettings};
