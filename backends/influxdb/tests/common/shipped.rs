//! A volume whose commits wait until the server has everything, so that what is read is the server's.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use weir_backend_api::{
    Backlog, Capability, Count, Direction, Durability, Result, Rows, Snapshot, Store, StoreSpec,
    Volume,
};
use weir_core::{
    change::{Table, Write},
    key::{Key, KeyRange},
    record::{Head, Record},
    version::Version,
};

pub struct ShippedVolume<V>(pub V);

struct ShippedStore {
    inner: Box<dyn Store>,
    snapshots: Arc<AtomicU64>,
}

struct ShippedSnapshot<'a> {
    inner: Box<dyn Snapshot + 'a>,
    snapshots: Arc<AtomicU64>,
}

/// Waits until nothing waits for the server.
pub fn settle(store: &dyn Store) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while let Some(backlog) = store.backlog()
        && backlog.changes > 0
    {
        assert!(Instant::now() < deadline, "{backlog:?}");
        thread::sleep(Duration::from_micros(200));
    }
}

impl<V: Volume> Volume for ShippedVolume<V> {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn capability(&self) -> Capability {
        self.0.capability()
    }

    fn open(&self, spec: &StoreSpec) -> Result<Box<dyn Store>> {
        let inner = self.0.open(spec)?;
        Ok(Box::new(ShippedStore {
            inner,
            snapshots: Arc::default(),
        }))
    }
}

impl Store for ShippedStore {
    fn capability(&self) -> Capability {
        self.inner.capability()
    }

    fn heads(&self, keys: &[&Key]) -> Result<Vec<Option<Head>>> {
        self.inner.heads(keys)
    }

    fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.inner.get(key)
    }

    fn commit(&self, batch: &[Write<'_>], durability: Durability) -> Result<Durability> {
        let reached = self.inner.commit(batch, durability)?;
        // An open snapshot holds back what comes after it.
        if self.snapshots.load(Ordering::Acquire) == 0 {
            settle(&*self.inner);
        }
        Ok(reached)
    }

    fn sync(&self) -> Result<Durability> {
        self.inner.sync()
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        let inner = self.inner.snapshot()?;
        self.snapshots.fetch_add(1, Ordering::AcqRel);
        let snapshots = Arc::clone(&self.snapshots);
        Ok(Box::new(ShippedSnapshot { inner, snapshots }))
    }

    fn rows(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.inner.rows(table, from, limit)
    }

    fn count(&self) -> Result<Count> {
        self.inner.count()
    }

    fn backlog(&self) -> Option<Backlog> {
        self.inner.backlog()
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.inner.close()
    }
}

impl Drop for ShippedSnapshot<'_> {
    fn drop(&mut self) {
        self.snapshots.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Snapshot for ShippedSnapshot<'_> {
    fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.inner.get(key)
    }

    fn latest<'s>(&'s self, range: &KeyRange, direction: Direction) -> Rows<'s> {
        self.inner.latest(range, direction)
    }

    fn history<'s>(
        &'s self,
        range: &KeyRange,
        versions: Option<(Version, Version)>,
        direction: Direction,
    ) -> Rows<'s> {
        self.inner.history(range, versions, direction)
    }
}
