//! One open database.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use rocksdb::{BoundColumnFamily, DB, Options, ReadOptions, WriteBatch, WriteOptions};
use weir_backend_api::{
    Capability, Count, Durability, Error, ErrorKind, Result, Snapshot, Store, StoreSpec,
};
use weir_core::{
    change::{Table, Write},
    key::Key,
    record::{Head, Record},
};

use crate::{
    CAPABILITY, errors,
    options::{HISTORY, LATEST, TABLES},
    rows,
    snapshot::RocksdbSnapshot,
    space::Reserve,
    stall::{Again, Stalls},
};

/// A RocksDB database that holds one store.
pub struct RocksdbStore {
    db: DB,
    name: String,
    dir: PathBuf,
    read_only: bool,
    destroy_on_close: bool,
    reserve: Reserve,
    stalls: Stalls,
    /// Also keeps commits apart.
    scratch: Mutex<Scratch>,
    /// Set by the first write or sync whose outcome is unknown, never cleared.
    poisoned: AtomicBool,
}

/// What a commit needs besides its batch, kept for the next one.
#[derive(Default)]
struct Scratch {
    rows: Vec<RowOf>,
    /// The keys of all rows, one behind the other.
    keys: Vec<u8>,
    value: Vec<u8>,
    batch_bytes: usize,
}

/// Where a write of a batch goes.
#[derive(Clone, Copy)]
struct RowOf {
    family: Family,
    /// Where its key starts and ends in the scratch.
    key: (usize, usize),
    /// Its place in the batch.
    write: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    Tables,
    Latest,
    History,
}

/// Bytes that a store keeps for its next batch: those of an ordinary one.
const SCRATCH_BYTES_MAX: usize = 1 << 20;
/// Bytes of a row up to which RocksDB takes it; more would be left out without a word.
const ROW_BYTES_MAX: usize = u32::MAX as usize;

impl RocksdbStore {
    pub(crate) fn new(db: DB, spec: &StoreSpec, reserve: Reserve) -> Self {
        Self {
            db,
            name: spec.name.clone(),
            dir: spec.dir.clone(),
            read_only: spec.read_only,
            destroy_on_close: spec.destroy_on_close,
            reserve,
            stalls: Stalls::default(),
            scratch: Mutex::default(),
            poisoned: AtomicBool::new(false),
        }
    }

    pub(crate) fn db(&self) -> &DB {
        &self.db
    }

    /// A column family; all are opened with the database.
    pub(crate) fn family(&self, name: &str) -> Result<Arc<BoundColumnFamily<'_>>> {
        self.db.cf_handle(name).ok_or_else(|| errors::corrupt(name))
    }

    fn check_writable(&self) -> Result<()> {
        if self.read_only {
            let message = format!("{} is open for reading only", self.name);
            return Err(Error::new(ErrorKind::Rejected, message));
        }
        if self.poisoned.load(Ordering::Acquire) {
            return Err(errors::poisoned(&self.name));
        }
        Ok(())
    }

    /// Remembers an error whose outcome is unknown.
    fn note(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::Poisoned {
            self.poisoned.store(true, Ordering::Release);
        }
        error
    }

    /// The batch as RocksDB's: the last write of each row, in key order.
    ///
    /// Few keys that are put often are what telemetry is, and what is not written costs nothing.
    /// In key order RocksDB finds the place of a row in its buffer next to that of the one before,
    /// which saves about a quarter of what a write costs.
    fn encode(&self, batch: &[Write<'_>], scratch: &mut Scratch) -> Result<WriteBatch> {
        scratch.sort(batch);
        let (tables, latest, history) = (
            self.family(TABLES)?,
            self.family(LATEST)?,
            self.family(HISTORY)?,
        );
        let mut out = WriteBatch::with_capacity_bytes(scratch.batch_bytes);
        let Scratch {
            rows, keys, value, ..
        } = scratch;
        for (at, row) in rows.iter().enumerate() {
            let key = row.key_in(keys);
            let is_last = rows
                .get(at + 1)
                .is_none_or(|next| (next.family, next.key_in(keys)) != (row.family, key));
            if !is_last {
                continue;
            }
            let family = match row.family {
                Family::Tables => &tables,
                Family::Latest => &latest,
                Family::History => &history,
            };
            value.clear();
            let value = match &batch[row.write] {
                Write::Latest { record, .. } | Write::History { record, .. } => {
                    record.encode_into(value);
                    Some(&*value)
                }
                Write::Row { value, .. } => value.as_ref(),
                Write::ForgetLatest { .. } | Write::ForgetHistory { .. } => None,
            };
            match value {
                Some(value) => {
                    check_size(value)?;
                    out.put_cf(family, key, value);
                }
                None => out.delete_cf(family, key),
            }
        }
        // One huge batch must not be paid for ever after.
        scratch.batch_bytes = out.size_in_bytes().min(SCRATCH_BYTES_MAX);
        scratch.value.clear();
        scratch.value.shrink_to(SCRATCH_BYTES_MAX);
        Ok(out)
    }
}

impl Scratch {
    /// Sets `rows` to the rows of a batch, by key and then by their place in the batch.
    fn sort(&mut self, batch: &[Write<'_>]) {
        let Self { rows, keys, .. } = self;
        rows.clear();
        keys.clear();
        for (write, what) in batch.iter().enumerate() {
            let from = keys.len();
            let family = match what {
                Write::Latest { key, .. } | Write::ForgetLatest { key } => {
                    key.order_into(keys);
                    Family::Latest
                }
                Write::History { key, record } => {
                    rows::history(key, record.head.own, keys);
                    Family::History
                }
                Write::ForgetHistory { key, version } => {
                    rows::history(key, *version, keys);
                    Family::History
                }
                Write::Row { table, key, .. } => {
                    rows::table(*table, key, keys);
                    Family::Tables
                }
            };
            rows.push(RowOf {
                family,
                key: (from, keys.len()),
                write,
            });
        }
        // Stable, so that a later write of a row stays behind. And quick where much is in order already:
        // publishers mostly go through their keys in the order in which they know them.
        rows.sort_by(|a, b| (a.family, a.key_in(keys)).cmp(&(b.family, b.key_in(keys))));
    }
}

impl RowOf {
    fn key_in(self, keys: &[u8]) -> &[u8] {
        &keys[self.key.0..self.key.1]
    }
}

impl Store for RocksdbStore {
    fn capability(&self) -> Capability {
        CAPABILITY
    }

    fn heads(&self, keys: &[&Key]) -> Result<Vec<Option<Head>>> {
        let latest = self.family(LATEST)?;
        let mut ordered = Vec::new();
        let ends: Vec<usize> = keys
            .iter()
            .map(|key| {
                key.order_into(&mut ordered);
                ordered.len()
            })
            .collect();
        let mut from = 0;
        let slices: Vec<&[u8]> = ends
            .iter()
            .map(|end| &ordered[std::mem::replace(&mut from, *end)..*end])
            .collect();
        self.db
            .batched_multi_get_cf(&latest, slices, false)
            .into_iter()
            .map(|row| {
                let row = row.map_err(errors::reading)?;
                row.map(|row| Head::decode(&row))
                    .transpose()
                    .map_err(|error| errors::corrupt("latest record").because(error))
            })
            .collect()
    }

    fn get(&self, key: &Key) -> Result<Option<Record>> {
        let latest = self.family(LATEST)?;
        let row = self
            .db
            .get_pinned_cf(&latest, key.ordered())
            .map_err(errors::reading)?;
        row.map(|row| decode(&row)).transpose()
    }

    fn commit(&self, batch: &[Write<'_>], durability: Durability) -> Result<Durability> {
        let mut scratch = self.scratch.lock();
        self.check_writable()?;
        self.reserve.check()?;
        let synced = durability == Durability::Synced;
        let mut options = WriteOptions::default();
        options.set_sync(synced);
        let mut again = Again::AsBefore;
        loop {
            options.set_no_slowdown(again == Again::AsBefore);
            let encoded = self.encode(batch, &mut scratch)?;
            match self.db.write_opt(encoded, &options) {
                Ok(()) => break,
                Err(error) if errors::is_held_up(&error) => again = self.stalls.wait(&self.db)?,
                Err(error) => return Err(self.note(errors::writing(error))),
            }
        }
        Ok(if synced {
            Durability::Synced
        } else {
            Durability::Written
        })
    }

    fn sync(&self) -> Result<Durability> {
        if self.read_only {
            return Ok(Durability::Synced);
        }
        self.check_writable()?;
        self.db
            .flush_wal(true)
            .map_err(|error| self.note(errors::syncing(error)))?;
        Ok(Durability::Synced)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        Ok(Box::new(RocksdbSnapshot::new(self)))
    }

    fn rows(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut start = Vec::new();
        rows::table(table, from, &mut start);
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(rows::table_end(table));
        let mut iter = self.db.raw_iterator_opt(options);
        iter.seek(start);
        let mut out = Vec::new();
        while out.len() < limit {
            let Some((key, value)) = iter.item() else {
                break;
            };
            out.push((key[1..].to_vec(), value.to_vec()));
            iter.next();
        }
        iter.status().map_err(errors::reading)?;
        Ok(out)
    }

    /// `keys` counts a key once for each file or buffer that holds it, so it is too high until
    /// RocksDB has merged them.
    fn count(&self) -> Result<Count> {
        let latest = self.family(LATEST)?;
        let property = |family: &Arc<BoundColumnFamily<'_>>, name| {
            self.db
                .property_int_value_cf(family, name)
                .map(Option::unwrap_or_default)
                .map_err(errors::reading)
        };
        let mut bytes = 0;
        for name in [TABLES, LATEST, HISTORY] {
            let family = self.family(name)?;
            bytes += property(&family, "rocksdb.live-sst-files-size")?;
            // What is in the buffers is in the log too.
            bytes += property(&family, "rocksdb.cur-size-all-mem-tables")?;
        }
        Ok(Count {
            keys: property(&latest, "rocksdb.estimate-num-keys")?,
            bytes,
        })
    }

    fn close(self: Box<Self>) -> Result<()> {
        if self.destroy_on_close && !self.read_only {
            let Self { db, dir, .. } = *self;
            drop(db);
            return DB::destroy(&Options::default(), &dir).map_err(|error| {
                let message = format!("cannot remove the database in {}", dir.display());
                Error::new(ErrorKind::Unavailable, message).because(error)
            });
        }
        self.sync().map(drop)
    }
}

fn check_size(value: &[u8]) -> Result<()> {
    if value.len() < ROW_BYTES_MAX {
        return Ok(());
    }
    let message = format!("a record of {} bytes is too long for RocksDB", value.len());
    Err(Error::new(ErrorKind::Rejected, message))
}

/// A record from a row's bytes: one copy, which its value then shares.
pub fn decode(row: &[u8]) -> Result<Record> {
    Record::decode(&Bytes::copy_from_slice(row))
        .map_err(|error| errors::corrupt("record").because(error))
}
