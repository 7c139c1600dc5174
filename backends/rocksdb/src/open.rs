//! Opening: recognise what is in the directory before anything is written to it.

use std::{io, path::Path};

use rocksdb::{DB, Options, WriteOptions};
use weir_backend_api::{Error, ErrorKind, Result, StoreSpec};

use crate::{
    RocksdbVolume, errors,
    options::{self, HISTORY, LATEST, TABLES},
    rows,
    space::Reserve,
    store::RocksdbStore,
};

/// The format of the rows that this crate writes.
const FORMAT: u32 = 1;
/// Tells our format row from anybody else's.
const MAGIC: &[u8] = b"weir";
/// What the stock Zenoh backend has besides the default column family.
const STOCK: &str = "data_info";
const FOREIGN: &str = "holds a RocksDB database that is not Weir's: use another directory";

/// Opens the database of a store; makes it if there is none and the spec says so.
pub fn open(volume: &RocksdbVolume, spec: &StoreSpec) -> Result<RocksdbStore> {
    let dir = &spec.dir;
    let existing = recognise(dir)?;
    if !existing && (!spec.create || spec.read_only) {
        let message = format!(
            "no database in {}: check the path, or let the storage create it",
            dir.display()
        );
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    std::fs::create_dir_all(dir)
        .map_err(|error| Error::io(format!("cannot create {}", dir.display()), error))?;
    let reserve = Reserve::new(dir, volume.settings.reserve_bytes)?;
    let failed = |error| errors::opening(dir, error);
    let mut options = options::database(volume, &spec.name).map_err(failed)?;
    let families = options::families(volume).map_err(failed)?;
    let db = if spec.read_only {
        DB::open_cf_descriptors_read_only(&options, dir, families, false)
    } else {
        options.create_if_missing(!existing);
        options.create_missing_column_families(true);
        DB::open_cf_descriptors(&options, dir, families)
    }
    .map_err(failed)?;
    check_format(&db, spec)?;
    Ok(RocksdbStore::new(db, spec, reserve))
}

/// Whether there is a database of ours in the directory; an error if there is another one.
fn recognise(dir: &Path) -> Result<bool> {
    match std::fs::symlink_metadata(dir.join("CURRENT")) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => {
            return Err(Error::io(format!("cannot read {}", dir.display()), error));
        }
    }
    let families = DB::list_cf(&Options::default(), dir).map_err(|e| errors::opening(dir, e))?;
    let ours = [TABLES, LATEST, HISTORY];
    let foreign = families.iter().find(|name| !ours.contains(&name.as_str()));
    match foreign.map(String::as_str) {
        // A crash while it was made leaves some of ours, without a single write.
        None if families.len() == ours.len() || is_unwritten(dir)? => Ok(true),
        None => Err(refuse(dir, FOREIGN)),
        Some(STOCK) => Err(refuse(
            dir,
            &format!(
                "was written by the RocksDB backend of zenohd: import it into another one with \
                 `weir storage import --from zenohd-rocksdb {}`",
                dir.display()
            ),
        )),
        Some(name) => Err(refuse(
            dir,
            &format!(
                "holds a database that is not Weir's, or a newer Weir's (column family `{name}`): \
                 use another directory or a newer Weir"
            ),
        )),
    }
}

/// Whether nothing was ever written to the database; reads alone.
fn is_unwritten(dir: &Path) -> Result<bool> {
    let db = DB::open_for_read_only(&Options::default(), dir, false)
        .map_err(|error| errors::opening(dir, error))?;
    Ok(db.latest_sequence_number() == 0)
}

/// Checks the format row; writes it if the database has just been made.
fn check_format(db: &DB, spec: &StoreSpec) -> Result<()> {
    let dir = &spec.dir;
    let row = db.get_pinned(rows::FORMAT).map_err(errors::reading)?;
    let Some(row) = row else {
        // A database without a single write is new, or was left so by a crash right here.
        if db.latest_sequence_number() > 0 || spec.read_only {
            return Err(refuse(dir, FOREIGN));
        }
        let mut durably = WriteOptions::default();
        durably.set_sync(true);
        let row = [MAGIC, &FORMAT.to_be_bytes()].concat();
        return db
            .put_opt(rows::FORMAT, row, &durably)
            .map_err(|error| errors::opening(dir, error));
    };
    match row
        .strip_prefix(MAGIC)
        .and_then(|rest| <[u8; 4]>::try_from(rest).ok())
        .map(u32::from_be_bytes)
    {
        Some(FORMAT) => Ok(()),
        Some(format) => Err(refuse(
            dir,
            &format!(
                "was written by a newer Weir (format {format}; this one reads {FORMAT}): \
                 use that one, or another directory"
            ),
        )),
        None => Err(refuse(dir, "holds a damaged format row: restore it")),
    }
}

fn refuse(dir: &Path, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{} {what}", dir.display()))
}
