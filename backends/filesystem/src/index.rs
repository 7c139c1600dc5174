//! The index: rows of latest records, history and tables, in one redb file.
//!
//! Its commits are not durable by themselves: the log is, until a checkpoint makes the index so.

use std::path::Path;

use redb::{
    Builder, Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, Table as RedbTable,
    TableDefinition, WriteTransaction, backends::InMemoryBackend,
};
use weir_backend_api::{Error, ErrorKind, Result};

/// The rows of a table.
pub type Rows = ReadOnlyTable<&'static [u8], &'static [u8]>;
/// The same to be written.
pub type RowsMut<'t> = RedbTable<'t, &'static [u8], &'static [u8]>;

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Ordered key -> [`crate::row::Row`] and record.
const LATEST: Definition = TableDefinition::new("latest");
/// Ordered key, 0, version -> record.
const HISTORY: Definition = TableDefinition::new("history");
/// Table number and row key -> row value.
const TABLES: Definition = TableDefinition::new("tables");
/// Name -> number.
const NUMBERS: TableDefinition<'static, &'static str, u64> = TableDefinition::new("numbers");

const FORMAT: u64 = 1;
/// Pages kept in memory. What the index holds is small: payloads are in files.
const CACHE_BYTES: usize = 32 << 20;

/// The open index.
#[derive(Debug)]
pub struct Index {
    db: Database,
}

/// The index at one moment.
pub struct Reading {
    /// Latest records.
    pub latest: Rows,
    /// History.
    pub history: Rows,
    /// Rows of the core's tables.
    pub tables: Rows,
    numbers: ReadOnlyTable<&'static str, u64>,
}

/// A batch on its way into the index.
pub struct Writing {
    transaction: WriteTransaction,
}

/// What a batch writes to.
pub struct Tables<'t> {
    /// Latest records.
    pub latest: RowsMut<'t>,
    /// History.
    pub history: RowsMut<'t>,
    /// Rows of the core's tables.
    pub tables: RowsMut<'t>,
    numbers: RedbTable<'t, &'static str, u64>,
}

/// A number that the index keeps about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Number {
    /// Sequence of the batch committed last.
    Seq,
    /// Bytes of all payloads in files.
    FileBytes,
}

impl Number {
    const fn name(self) -> &'static str {
        match self {
            Self::Seq => "seq",
            Self::FileBytes => "file_bytes",
        }
    }
}

impl Index {
    /// Opens the index, or makes it.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.exists() {
            // Made aside, so that a crash leaves a whole one or none.
            let new = path.with_extension("new");
            match std::fs::remove_file(&new) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(format!("cannot remove {}", new.display()), e));
                }
                _ => {}
            }
            let index = Self {
                db: builder().create(&new).map_err(|e| opening(path, e))?,
            };
            index.initialize()?;
            index.close()?;
            std::fs::rename(&new, path)
                .map_err(|e| Error::io(format!("cannot make {}", path.display()), e))?;
        }
        let db = builder().open(path).map_err(|e| opening(path, e))?;
        let index = Self { db };
        let format = index.read()?.number("format")?;
        if format != FORMAT {
            let message = format!(
                "{} has format {format}, and this Weir knows {FORMAT}: open it with the Weir that \
                 wrote it, or move it away to start anew",
                path.display()
            );
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        Ok(index)
    }

    /// An empty index in memory, for a directory that must not be written to.
    pub fn in_memory() -> Result<Self> {
        let db = builder()
            .create_with_backend(InMemoryBackend::new())
            .map_err(|e| opening(Path::new("an index in memory"), e))?;
        let index = Self { db };
        index.initialize()?;
        Ok(index)
    }

    fn initialize(&self) -> Result<()> {
        let writing = self.write()?;
        writing
            .tables()?
            .numbers
            .insert("format", FORMAT)
            .map_err(failed)?;
        writing.transaction.commit().map_err(failed)
    }

    /// What it holds now.
    pub fn read(&self) -> Result<Reading> {
        let transaction = self.db.begin_read().map_err(failed)?;
        Reading::new(&transaction)
    }

    /// Starts a batch.
    pub fn write(&self) -> Result<Writing> {
        let transaction = self.db.begin_write().map_err(failed)?;
        Ok(Writing { transaction })
    }

    /// Makes all batches durable.
    pub fn checkpoint(&self) -> Result<()> {
        self.write()?.commit_durably()
    }

    /// Closes it.
    pub fn close(self) -> Result<()> {
        self.db.close().map_err(failed)
    }
}

impl Reading {
    fn new(transaction: &ReadTransaction) -> Result<Self> {
        Ok(Self {
            latest: transaction.open_table(LATEST).map_err(failed)?,
            history: transaction.open_table(HISTORY).map_err(failed)?,
            tables: transaction.open_table(TABLES).map_err(failed)?,
            numbers: transaction.open_table(NUMBERS).map_err(failed)?,
        })
    }

    fn number(&self, name: &str) -> Result<u64> {
        let number = self.numbers.get(name).map_err(failed)?;
        Ok(number.map_or(0, |number| number.value()))
    }

    /// A number; 0 if it was never set.
    pub fn get(&self, number: Number) -> Result<u64> {
        self.number(number.name())
    }
}

impl Writing {
    /// The tables. They must be dropped before the commit.
    pub fn tables(&self) -> Result<Tables<'_>> {
        Ok(Tables {
            latest: self.transaction.open_table(LATEST).map_err(failed)?,
            history: self.transaction.open_table(HISTORY).map_err(failed)?,
            tables: self.transaction.open_table(TABLES).map_err(failed)?,
            numbers: self.transaction.open_table(NUMBERS).map_err(failed)?,
        })
    }

    /// Shows the batch to readers; a crash takes it back.
    pub fn commit(mut self) -> Result<()> {
        self.transaction
            .set_durability(redb::Durability::None)
            .map_err(failed)?;
        self.transaction.commit().map_err(failed)
    }

    /// Puts this and all batches before it on the disk.
    fn commit_durably(mut self) -> Result<()> {
        // Without it the next opening after a crash reads the whole index.
        self.transaction.set_quick_repair(true);
        self.transaction.commit().map_err(failed)
    }
}

impl Tables<'_> {
    /// A number; 0 if it was never set.
    pub fn get(&self, number: Number) -> Result<u64> {
        use redb::ReadableTable;
        let number = self.numbers.get(number.name()).map_err(failed)?;
        Ok(number.map_or(0, |number| number.value()))
    }

    /// Sets a number.
    pub fn set(&mut self, number: Number, to: u64) -> Result<()> {
        self.numbers.insert(number.name(), to).map_err(failed)?;
        Ok(())
    }
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// After any failure of the index it is unknown what it holds: the log knows, at the next opening.
pub fn failed(error: impl Into<redb::Error>) -> Error {
    let error = error.into();
    let kind = match error {
        redb::Error::Corrupted(_) => ErrorKind::Corrupt,
        redb::Error::ValueTooLarge(_) => ErrorKind::Rejected,
        redb::Error::DatabaseClosed => ErrorKind::Closed,
        _ => ErrorKind::Poisoned,
    };
    Error::new(kind, "the index failed").because(error)
}

fn opening(path: &Path, error: redb::DatabaseError) -> Error {
    let message = format!("cannot open {}", path.display());
    let kind = match &error {
        redb::DatabaseError::DatabaseAlreadyOpen => ErrorKind::Unavailable,
        redb::DatabaseError::Storage(redb::StorageError::Io(e))
            if e.kind() != std::io::ErrorKind::InvalidData =>
        {
            ErrorKind::Unavailable
        }
        _ => ErrorKind::Corrupt,
    };
    Error::new(kind, message).because(error)
}
