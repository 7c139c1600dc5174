//! The store: the state behind one lock.

use std::ops::Bound;

use parking_lot::RwLock;
use weir_backend_api::{
    Capability, Count, Direction, Durability, Error, ErrorKind, Result, Rows, Snapshot, Store,
    StoreSpec,
};
use weir_core::{
    change::{Table, Write},
    key::{Key, KeyRange},
    record::{Head, Record},
    version::Version,
};

use crate::{
    CAPABILITY,
    kept::Kept,
    scan::{Cursor, Scan},
    state::{Kind, State},
};

/// Past records that are forgotten under one lock.
const RELEASE_ROWS: usize = 256;

/// A store in memory.
pub(crate) struct MemoryStore {
    name: String,
    read_only: bool,
    state: RwLock<State>,
}

/// The store as it was after a batch.
struct MemorySnapshot<'a> {
    state: &'a RwLock<State>,
    at: u64,
}

impl MemoryStore {
    pub(crate) fn new(spec: &StoreSpec) -> Self {
        Self {
            name: spec.name.clone(),
            read_only: spec.read_only,
            state: RwLock::default(),
        }
    }
}

impl Store for MemoryStore {
    fn capability(&self) -> Capability {
        CAPABILITY
    }

    fn heads(&self, keys: &[&Key]) -> Result<Vec<Option<Head>>> {
        let mut row = Vec::new();
        let state = self.state.read();
        let head = |key: &&Key| {
            row.clear();
            key.order_into(&mut row);
            state
                .layer(Kind::Latest)
                .get(&row)
                .map(Kept::head)
                .transpose()
        };
        keys.iter().map(head).collect()
    }

    fn get(&self, key: &Key) -> Result<Option<Record>> {
        let row = key.ordered();
        let kept = self.state.read().layer(Kind::Latest).get(&row).cloned();
        kept.map(|kept| kept.record()).transpose()
    }

    fn commit(&self, batch: &[Write<'_>], _durability: Durability) -> Result<Durability> {
        if self.read_only {
            let message = format!("storage `{}` is read-only, nothing was written", self.name);
            return Err(Error::new(ErrorKind::Rejected, message));
        }
        self.state.write().apply(batch);
        Ok(Durability::Memory)
    }

    fn sync(&self) -> Result<Durability> {
        Ok(Durability::Memory)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        let at = self.state.write().enter();
        Ok(Box::new(MemorySnapshot {
            state: &self.state,
            at,
        }))
    }

    fn rows(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let state = self.state.read();
        let rows = state
            .table(table)
            .range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
        let rows = rows.map(|(key, value)| (key.clone(), value.clone()));
        Ok(rows.take(limit).collect())
    }

    fn count(&self) -> Result<Count> {
        let state = self.state.read();
        Ok(Count {
            keys: state.layer(Kind::Latest).len(),
            bytes: state.bytes(),
        })
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl Snapshot for MemorySnapshot<'_> {
    fn get(&self, key: &Key) -> Result<Option<Record>> {
        let row = key.ordered();
        let state = self.state.read();
        let kept = state.layer(Kind::Latest).get_at(&row, self.at).cloned();
        drop(state);
        kept.map(|kept| kept.record()).transpose()
    }

    fn latest<'s>(&'s self, range: &KeyRange, direction: Direction) -> Rows<'s> {
        let cursor = Cursor::latest(range, direction);
        Box::new(Scan::new(self.state, self.at, Kind::Latest, cursor))
    }

    fn history<'s>(
        &'s self,
        range: &KeyRange,
        versions: Option<(Version, Version)>,
        direction: Direction,
    ) -> Rows<'s> {
        let cursor = Cursor::history(range, versions, direction);
        Box::new(Scan::new(self.state, self.at, Kind::History, cursor))
    }
}

impl Drop for MemorySnapshot<'_> {
    fn drop(&mut self) {
        let mut past = self.state.write().leave(self.at);
        // In pieces, so that a long scan's end does not hold up a commit.
        while self.state.write().release(self.at, &mut past, RELEASE_ROWS) {}
    }
}
