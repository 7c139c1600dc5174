//! Reads RocksDB databases as zenohd's backends leave them, without RocksDB.
//!
//! Those backends link RocksDB 8 to 9 with its default options: block-based tables packed with
//! Snappy, which the RocksDB that Weir links is built without; and even its read-only mode writes a
//! log file into the directory. This reads files and writes none. It knows what the default options
//! produce, checks every checksum, and refuses the rest by name.

mod bytes;
mod manifest;
mod record;
mod table;
mod wal;

use std::{
    cmp::Ordering,
    path::{Path, PathBuf},
};

use ::bytes::Bytes;
use weir_backend_api::{Error, ErrorKind, Result};

pub use self::bytes::Input;
use self::{
    manifest::{Family, Manifest},
    table::Table,
};

/// One version of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The user's key.
    pub key: Vec<u8>,
    /// The greater is the later one.
    pub seq: u64,
    /// `None`: deleted.
    pub value: Option<Bytes>,
}

/// A database, at the moment of its opening.
#[derive(Debug)]
pub struct Lsm {
    dir: PathBuf,
    manifest: Manifest,
    logged: wal::Logged,
}

/// The live keys of a family in byte order, with their values. What cannot be read is an error, after
/// which the rest follows.
pub struct Rows {
    sources: Vec<Source>,
    /// Key given, or found deleted, last.
    last: Option<Vec<u8>>,
}

type Entries = Box<dyn Iterator<Item = Result<Entry>> + Send>;

/// Entries in the order of a merge.
struct Source {
    head: Option<Result<Entry>>,
    rest: Entries,
}

impl Source {
    fn new(mut rest: Entries) -> Self {
        Self {
            head: rest.next(),
            rest,
        }
    }

    fn next(&mut self) -> Option<Result<Entry>> {
        std::mem::replace(&mut self.head, self.rest.next())
    }
}

impl Entry {
    /// By key, the latest version first.
    fn merge_order(&self, other: &Self) -> Ordering {
        let by_key = self.key.cmp(&other.key);
        by_key.then_with(|| other.seq.cmp(&self.seq))
    }
}

impl Lsm {
    /// Opens a database. Reads the manifest and the write-ahead logs, no table.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be read or somebody has it open,
    /// [`ErrorKind::Corrupt`] if it is not understood.
    pub fn open(dir: &Path) -> Result<Self> {
        check_unlocked(&dir.join("LOCK"))?;
        let manifest = Manifest::read(dir)?;
        let logged = wal::read(dir, &manifest)?;
        Ok(Self {
            dir: dir.to_owned(),
            manifest,
            logged,
        })
    }

    /// Where the logs are damaged, if they are: what was written later is not read. Told once.
    pub fn take_damage(&mut self) -> Option<Error> {
        self.logged.damage.take()
    }

    /// Whether there is such a family.
    ///
    /// # Errors
    /// If there is not.
    pub fn check(&self, family: &str) -> Result<()> {
        self.family(family).map(|_| ())
    }

    /// Number of versions of keys in a family, overwritten and deleted ones included.
    ///
    /// # Errors
    /// If there is no such family. Tables that cannot be opened are left out.
    pub fn len(&self, family: &str) -> Result<u64> {
        let (number, family) = self.family(family)?;
        let tables = family.tables.keys();
        let tables = tables.filter_map(|table| Table::open(&self.path(*table)).ok());
        let logged = self.logged.entries.get(&number).map_or(0, Vec::len);
        Ok(tables.map(|table| table.len).sum::<u64>() + logged as u64)
    }

    /// The rows of a family.
    ///
    /// # Errors
    /// If there is no such family.
    pub fn rows(&self, family: &str) -> Result<Rows> {
        let (number, family) = self.family(family)?;
        let mut sources = Vec::new();
        let mut add = |entries: Entries| sources.push(Source::new(entries));
        let logged = self
            .logged
            .entries
            .get(&number)
            .cloned()
            .unwrap_or_default();
        add(Box::new(logged.into_iter().map(Ok)));
        // Tables of level 0 overlap; those of another level follow each other.
        let mut levels = family.tables.iter().peekable();
        while let Some((&(level, number), smallest)) = levels.next() {
            let mut tables = vec![(smallest, (level, number))];
            while let Some((&table, smallest)) =
                levels.next_if(|((l, _), _)| level > 0 && *l == level)
            {
                tables.push((smallest, table));
            }
            tables.sort_unstable();
            let paths: Vec<_> = tables
                .into_iter()
                .map(|(_, table)| self.path(table))
                .collect();
            add(Box::new(
                paths.into_iter().flat_map(|path| table_entries(&path)),
            ));
        }
        Ok(Rows {
            sources,
            last: None,
        })
    }

    fn family(&self, name: &str) -> Result<(u32, &Family)> {
        let found = self
            .manifest
            .families
            .iter()
            .find(|(_, family)| family.name == name);
        found
            .map(|(number, family)| (*number, family))
            .ok_or_else(|| {
                corrupt(format!(
                    "{} has no column family {name}",
                    self.dir.display()
                ))
            })
    }

    fn path(&self, (_, number): (u64, u64)) -> PathBuf {
        self.dir.join(format!("{number:06}.sst"))
    }
}

/// The entries of a table, or why it cannot be opened.
fn table_entries(path: &Path) -> Entries {
    match Table::open(path) {
        Ok(table) => Box::new(table),
        Err(error) => Box::new(std::iter::once(Err(error))),
    }
}

impl Iterator for Rows {
    type Item = Result<(Vec<u8>, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entry = match self.next_entry()? {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error)),
            };
            // Older versions of it follow.
            if self.last.as_ref() == Some(&entry.key) {
                continue;
            }
            self.last = Some(entry.key.clone());
            if let Some(value) = entry.value {
                return Some(Ok((entry.key, value)));
            }
        }
    }
}

impl Rows {
    fn next_entry(&mut self) -> Option<Result<Entry>> {
        let mut first: Option<(usize, &Entry)> = None;
        for (index, source) in self.sources.iter().enumerate() {
            match &source.head {
                None => {}
                // Told at once, whatever is before it.
                Some(Err(_)) => return self.sources[index].next(),
                Some(Ok(entry)) => {
                    let is_first = |(_, least): (usize, &Entry)| entry.merge_order(least).is_lt();
                    first = match first {
                        Some(least) if !is_first(least) => first,
                        _ => Some((index, entry)),
                    };
                }
            }
        }
        let (index, _) = first?;
        self.sources[index].next()
    }
}

fn corrupt(message: String) -> Error {
    Error::new(ErrorKind::Corrupt, message)
}

/// Whether nobody has the database open: RocksDB locks this file as long as it does.
fn check_unlocked(path: &Path) -> Result<()> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io(format!("cannot open {}", path.display()), e)),
    };
    // It goes with the file, at once.
    match rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => {
            let message = format!(
                "{} is locked: stop the router that has it open",
                path.display()
            );
            Err(Error::new(ErrorKind::Unavailable, message))
        }
        Err(e) => Err(Error::io(
            format!("cannot look at {}", path.display()),
            e.into(),
        )),
    }
}

#[cfg(test)]
mod tests;
