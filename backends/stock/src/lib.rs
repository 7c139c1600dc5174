//! Reads directories that zenohd's own backends (1.x) have written, to be imported. Timestamps and
//! encodings are kept; attachments were never stored, and a delete left nothing behind.
//!
//! Nothing in such a directory is changed, not even a log file is added.

mod filesystem;
mod info;
mod lsm;
mod rocksdb;

use weir_backend_api::{Error, ErrorKind, Result};
use weir_core::change::Change;

pub use crate::{filesystem::StockFilesystem, rocksdb::StockRocksdb};

/// Changes with their stamps. An error is about what its message names; the rest follows.
pub type Changes = Box<dyn Iterator<Item = Result<Change>> + Send>;

/// One entry that cannot be imported.
fn bad(name: &str, what: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("`{name}` is not imported: {what}"),
    )
}
