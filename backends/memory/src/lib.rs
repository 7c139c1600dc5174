//! Stores in memory: as fast as an ordered map, gone with the process.
//!
//! The map keeps several states of a row while somebody reads an older one (`layer`), so a snapshot
//! is a number, a commit never waits for a reader longer than one chunk of a scan takes, and what
//! only a dropped snapshot could see is freed by whoever drops it.

mod kept;
mod layer;
mod scan;
mod state;
mod store;

use weir_backend_api::{Capability, Durability, Result, Store, StoreSpec, Volume};

use crate::store::MemoryStore;

/// Opens stores in memory. Each is new and empty, and ignores its directory.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryVolume;

/// What a store in memory can do.
const CAPABILITY: Capability = Capability {
    durability_max: Durability::Memory,
    history: true,
    persistent: false,
    exact_count: true,
};

impl MemoryVolume {
    /// A volume; it holds nothing itself.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Volume for MemoryVolume {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn capability(&self) -> Capability {
        CAPABILITY
    }

    fn open(&self, spec: &StoreSpec) -> Result<Box<dyn Store>> {
        Ok(Box::new(MemoryStore::new(spec)))
    }
}
