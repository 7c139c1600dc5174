//! Stores in a directory of plain files that a user can look at.
//!
//! ```text
//! DIR/a/b.json      the payload of the key a/b.json (see `names` for the exceptions)
//! DIR/.weir/index   rows: versions, encodings, attachments, tombstones, history, tables (redb)
//! DIR/.weir/log     batches since the last checkpoint, whole, payloads included
//! DIR/.weir/staging values on their way in
//! DIR/.weir/kept    replaced values that somebody still reads
//! ```
//!
//! A commit writes the values aside, appends the batch to the log (and syncs it, if asked): that
//! decides. Then it renames the values to their places and shows the batch to readers. A checkpoint
//! syncs the files, commits the index durably, and cuts the log. So after a crash at any point the
//! log, written again from its beginning, makes files and index what they were to become; a batch
//! whose frame is torn has not happened, and no file has changed for it.
//!
//! Files that somebody puts there, changes or removes by hand are served as such (`view`), with what
//! follows from nobody telling the store:
//! - [`weir_backend_api::Store::count`] counts what came through the store, and so does history;
//! - a snapshot promises nothing about them but what it can still find;
//! - what is changed by hand between a crash and the next opening is overwritten where the log, a
//!   checkpoint's worth of batches, has the key;
//! - a scan that meets many of them in one directory holds their names in memory.
//!
//! A store opened to be read only still recovers, which writes; a directory that never was a store is
//! then served as it is, and left so. A payload is written twice, to the log and to its file.

mod change;
mod files;
mod index;
mod log;
mod mime;
mod names;
mod readers;
mod row;
mod scan;
mod store;
mod view;
mod walk;

use weir_backend_api::{Capability, Durability, Result, Store, StoreSpec, Volume};

use crate::store::FilesystemStore;

/// Opens stores in directories of files.
#[derive(Clone, Copy, Debug, Default)]
pub struct FilesystemVolume;

/// What a store in a directory of files can do.
const CAPABILITY: Capability = Capability {
    durability_max: Durability::Synced,
    history: true,
    persistent: true,
    exact_count: true,
};

impl FilesystemVolume {
    /// A volume; it holds nothing itself.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Volume for FilesystemVolume {
    fn kind(&self) -> &'static str {
        "filesystem"
    }

    fn capability(&self) -> Capability {
        CAPABILITY
    }

    fn open(&self, spec: &StoreSpec) -> Result<Box<dyn Store>> {
        Ok(Box::new(FilesystemStore::open(spec)?))
    }
}
