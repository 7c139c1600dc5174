//! Stores on RocksDB: one database a store, made for few keys that are overwritten often and for
//! many databases in one process.
//!
//! ```text
//! default   0, name -> facts about the database (its format)
//!           table byte, row key -> row (weir_core::change::Table)
//! latest    key in ordered form -> record
//! history   key in ordered form, 0, version (33 bytes) -> record
//! ```
//!
//! A batch is one `WriteBatch`, so it is in the write-ahead log whole or not at all; without a sync
//! it survives the process, with one it survives a loss of power.

mod errors;
mod open;
mod options;
mod rows;
mod snapshot;
mod space;
mod stall;
mod store;

use rocksdb::{Cache, WriteBufferManager};
use weir_backend_api::{Capability, Durability, Result, Store, StoreSpec, Volume};

/// What all stores of a volume share or are opened with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RocksdbSettings {
    /// Bytes of the block cache that all stores share; indexes and filters live in it too.
    pub cache_bytes: usize,
    /// Bytes that the unflushed writes of all stores may take. Beyond, every store flushes what it
    /// has when it is written to, however little; so allow 16 KiB at least for each store.
    pub buffers_bytes_max: usize,
    /// Bytes of unflushed writes after which a store starts a new buffer and flushes the old one.
    /// Bounds, with the write-ahead log, how long it takes to open a store that was not closed.
    pub buffer_bytes: usize,
    /// Table files that a store keeps open.
    pub open_files_max: u16,
    /// Bytes left free on the disk: below, commits are refused as [`Full`], so that what is there
    /// can still be flushed, compacted and read. On a small disk it is an eighth of the disk at
    /// most; 0 leaves it to the disk.
    ///
    /// [`Full`]: weir_backend_api::ErrorKind::Full
    pub reserve_bytes: u64,
    /// Opens a store whose write-ahead log is damaged before its end at the last batch before the
    /// damage, instead of refusing to open it.
    pub recover_damaged: bool,
}

/// Opens RocksDB databases that share a cache and a budget for unflushed writes.
pub struct RocksdbVolume {
    settings: RocksdbSettings,
    cache: Cache,
    buffers: WriteBufferManager,
}

const CAPABILITY: Capability = Capability {
    durability_max: Durability::Synced,
    history: true,
    persistent: true,
    exact_count: false,
};

impl Default for RocksdbSettings {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            buffers_bytes_max: 128 << 20,
            buffer_bytes: 8 << 20,
            open_files_max: 512,
            reserve_bytes: 64 << 20,
            recover_damaged: false,
        }
    }
}

impl RocksdbVolume {
    /// A volume with a cache and a write budget of its own. Opens nothing.
    #[must_use]
    pub fn new(settings: RocksdbSettings) -> Self {
        let cache = Cache::new_lru_cache(settings.cache_bytes);
        // Never stall: a full budget starts flushes, and the stores' own limits hold back writers.
        let buffers =
            WriteBufferManager::new_write_buffer_manager(settings.buffers_bytes_max, false);
        Self {
            settings,
            cache,
            buffers,
        }
    }
}

impl Default for RocksdbVolume {
    fn default() -> Self {
        Self::new(RocksdbSettings::default())
    }
}

impl Volume for RocksdbVolume {
    fn kind(&self) -> &'static str {
        "rocksdb"
    }

    fn capability(&self) -> Capability {
        CAPABILITY
    }

    fn open(&self, spec: &StoreSpec) -> Result<Box<dyn Store>> {
        Ok(Box::new(open::open(self, spec)?))
    }
}
