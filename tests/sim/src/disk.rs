//! A disk: it outlives the stores that are opened on it.

use std::sync::Arc;

use weir_backend_api::{
    Capability, Count, Direction, Durability, Result, Snapshot, Store, StoreSpec, Volume,
};
use weir_backend_memory::MemoryVolume;
use weir_core::{
    change::{Table, Write},
    key::{Key, KeyRange},
    record::{Head, Record},
};

/// One store that is there again when it is opened again.
pub struct Disk(Arc<Box<dyn Store>>);

struct Opened(Arc<Box<dyn Store>>);

impl Disk {
    /// An empty disk.
    ///
    /// # Errors
    /// None: it is in memory.
    pub fn new() -> Result<Self> {
        Ok(Self(Arc::new(
            MemoryVolume::new().open(&StoreSpec::default())?,
        )))
    }
}

impl Disk {
    /// Another disk with the same on it.
    ///
    /// # Errors
    /// None: both are in memory.
    pub fn copy(&self) -> Result<Self> {
        let copy = Self::new()?;
        let (all, forward) = (KeyRange::all(), Direction::Forward);
        let snapshot = self.0.snapshot()?;
        for row in snapshot.latest(&all, forward) {
            let (key, record) = row?;
            let (key, record) = (&key, record.as_ref());
            copy.write(Write::Latest { key, record })?;
        }
        for row in snapshot.history(&all, None, forward) {
            let (key, record) = row?;
            let (key, record) = (&key, record.as_ref());
            copy.write(Write::History { key, record })?;
        }
        for table in Table::ALL {
            for (key, value) in self.0.rows(table, &[], usize::MAX)? {
                let value = Some(value);
                copy.write(Write::Row { table, key, value })?;
            }
        }
        Ok(copy)
    }

    fn write(&self, write: Write<'_>) -> Result<()> {
        self.0.commit(&[write], Durability::Written).map(|_| ())
    }
}

impl Volume for Disk {
    fn kind(&self) -> &'static str {
        "disk"
    }

    fn capability(&self) -> Capability {
        Capability {
            persistent: true,
            ..self.0.capability()
        }
    }

    fn open(&self, _: &StoreSpec) -> Result<Box<dyn Store>> {
        Ok(Box::new(Opened(Arc::clone(&self.0))))
    }
}

impl Store for Opened {
    fn capability(&self) -> Capability {
        self.0.capability()
    }

    fn heads(&self, keys: &[&Key]) -> Result<Vec<Option<Head>>> {
        self.0.heads(keys)
    }

    fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.0.get(key)
    }

    fn commit(&self, batch: &[Write<'_>], durability: Durability) -> Result<Durability> {
        self.0.commit(batch, durability)
    }

    fn sync(&self) -> Result<Durability> {
        self.0.sync()
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        self.0.snapshot()
    }

    fn rows(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.0.rows(table, from, limit)
    }

    fn count(&self) -> Result<Count> {
        self.0.count()
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
