//! The seam between a storage and what it stores on.
//!
//! A [`Volume`] opens [`Store`]s; a store holds records by key, their history if it can, and rows of
//! a few ordered tables, and takes batches that are written whole or not at all. It knows nothing of
//! Zenoh, of admission, or of other stores. Every call blocks; the caller brings the thread.
//!
//! A new backend is right when `conformance!` passes for it, which also puts it behind a
//! `fault::Faulty` (features `conformance` and `fault`; the router is built without).

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod error;
#[cfg(feature = "fault")]
pub mod fault;
pub mod ledger;
pub mod recover;
pub mod replica;

use std::path::PathBuf;

pub use error::{Error, ErrorKind, Result};
pub use ledger::Ledger;
use weir_core::{
    change::{Table, Write},
    key::{Key, KeyRange},
    record::{Head, Record},
    version::Version,
};

/// How far a committed batch has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Durability {
    /// It is in this process and dies with it.
    Memory,
    /// It is with the operating system: it survives this process, kill -9 included.
    Written,
    /// It is on the disk: it survives a loss of power.
    Synced,
}

/// What a store can do; the conformance suite asks for no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capability {
    /// The most that it can promise of a committed batch.
    pub durability_max: Durability,
    /// Whether it keeps more than the latest version of a key.
    pub history: bool,
    /// Whether what was committed is there after it is closed and opened again.
    pub persistent: bool,
    /// Whether [`Store::count`] is exact.
    pub exact_count: bool,
}

/// Where a store lives and how it is to be opened.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StoreSpec {
    /// The storage's name and the shard's number, for messages and metrics.
    pub name: String,
    /// Its directory; backends without one ignore it.
    pub dir: PathBuf,
    /// Make the directory if it is not there; otherwise its absence is an error.
    pub create: bool,
    /// Refuse every write.
    pub read_only: bool,
    /// Whether history rows will be written.
    pub history: bool,
    /// Remove everything when the store is closed by [`Store::close`].
    pub destroy_on_close: bool,
}

/// What a store holds, roughly or exactly ([`Capability::exact_count`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    /// Keys with a latest record, tombstones included.
    pub keys: u64,
    /// Bytes on disk, or in memory for a store without a disk.
    pub bytes: u64,
}

/// How far a store that keeps its history on a server has come with handing it on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Backlog {
    /// Whether the server takes what it is given, as far as is known.
    pub ready: bool,
    /// Changes that wait for it.
    pub changes: u64,
    /// Bytes that they take here.
    pub bytes: u64,
    /// Changes that it has taken since the store was opened.
    pub shipped: u64,
    /// Changes that it refused for good since then; they are in `Table::Quarantine`.
    pub refused: u64,
    /// Changes that were older than it keeps anything.
    pub expired: u64,
    /// Why it was last not reached or did not take something; gone when it takes the next.
    pub last_error: Option<String>,
}

/// In which direction rows are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Direction {
    /// By key, and by version within a key.
    #[default]
    Forward,
    /// The same, backwards.
    Backward,
}

/// A row of a scan. An error ends the scan.
pub type Row = Result<(Key, Record)>;

/// The rows of a scan, read as they are asked for.
pub type Rows<'a> = Box<dyn Iterator<Item = Row> + 'a>;

/// Opens stores of one kind.
pub trait Volume: Send + Sync {
    /// The kind's name, as in `backend: "rocksdb"`.
    fn kind(&self) -> &'static str;

    /// What its stores can do.
    fn capability(&self) -> Capability;

    /// Opens a store, and recovers it if it was not closed.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be opened now, [`ErrorKind::Corrupt`] if what is there
    /// is not a store of this kind and format: the message says what it is and what to do.
    fn open(&self, spec: &StoreSpec) -> Result<Box<dyn Store>>;
}

/// Records by key, history and tables. One thread commits at a time; any number read beside it.
pub trait Store: Send + Sync {
    /// What it can do.
    fn capability(&self) -> Capability;

    /// The heads of the latest records of `keys`, in their order: one batched read, no values.
    ///
    /// # Errors
    /// Any; nothing is known then.
    fn heads(&self, keys: &[&Key]) -> Result<Vec<Option<Head>>>;

    /// The latest record of a key.
    ///
    /// # Errors
    /// Any.
    fn get(&self, key: &Key) -> Result<Option<Record>>;

    /// Writes a batch, whole or not at all, in order (a later write of the same row wins), at least
    /// as durably as asked, and says how durably. A store never promises more than it keeps: asked
    /// for more than [`Capability::durability_max`] it gives that.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Full`]: nothing was written, try again;
    /// [`ErrorKind::Poisoned`]: unknown what reached the disk, the store must be opened again;
    /// [`ErrorKind::Rejected`]: this batch can never be written.
    fn commit(&self, batch: &[Write<'_>], durability: Durability) -> Result<Durability>;

    /// Makes everything committed so far as durable as the store can.
    ///
    /// # Errors
    /// [`ErrorKind::Poisoned`].
    fn sync(&self) -> Result<Durability>;

    /// What the store holds at this moment, to be read while batches go on being committed.
    ///
    /// # Errors
    /// Any.
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>>;

    /// Rows of a table in key order, from `from` (inclusive) on, at most `limit`.
    ///
    /// # Errors
    /// Any.
    fn rows(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>>;

    /// How much it holds. Cheap.
    ///
    /// # Errors
    /// Any.
    fn count(&self) -> Result<Count>;

    /// What waits for the server that it keeps its history on; `None` for a store without one.
    /// Cheap.
    fn backlog(&self) -> Option<Backlog> {
        None
    }

    /// Syncs and closes it, and destroys it if the spec says so.
    ///
    /// # Errors
    /// Any; it is closed all the same.
    fn close(self: Box<Self>) -> Result<()>;
}

/// A store at one moment.
pub trait Snapshot {
    /// The latest record of a key.
    ///
    /// # Errors
    /// Any.
    fn get(&self, key: &Key) -> Result<Option<Record>>;

    /// The latest records of a range, by key (ordered form), tombstones included. Memory does not
    /// grow with the range.
    fn latest<'s>(&'s self, range: &KeyRange, direction: Direction) -> Rows<'s>;

    /// Every version of the keys of a range, by key and then version. With `versions`, only those
    /// from the first to the last, both inclusive, of each key; cheap where the store can seek.
    fn history<'s>(
        &'s self,
        range: &KeyRange,
        versions: Option<(Version, Version)>,
        direction: Direction,
    ) -> Rows<'s>;
}

impl<V: Volume + ?Sized> Volume for &V {
    fn kind(&self) -> &'static str {
        (**self).kind()
    }

    fn capability(&self) -> Capability {
        (**self).capability()
    }

    fn open(&self, spec: &StoreSpec) -> Result<Box<dyn Store>> {
        (**self).open(spec)
    }
}

impl<V: Volume + ?Sized> Volume for Box<V> {
    fn kind(&self) -> &'static str {
        (**self).kind()
    }

    fn capability(&self) -> Capability {
        (**self).capability()
    }

    fn open(&self, spec: &StoreSpec) -> Result<Box<dyn Store>> {
        (**self).open(spec)
    }
}
