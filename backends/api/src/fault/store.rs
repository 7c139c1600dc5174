//! The store and the snapshot that fail.

use std::sync::atomic::{AtomicBool, Ordering};

use weir_core::{
    change::{Table, Write},
    key::{Key, KeyRange},
    record::{Head, Record, RecordRef},
    value::Value,
    version::Version,
};

use super::{Due, Fault, Faults, Operation};
use crate::{
    Backlog, Capability, Count, Direction, Durability, Error, ErrorKind, Result, Rows, Snapshot,
    Store,
};

pub(super) struct FaultyStore {
    inner: Box<dyn Store>,
    faults: Faults,
    generation: u64,
    poisoned: AtomicBool,
}

struct FaultySnapshot<'a> {
    inner: Box<dyn Snapshot + 'a>,
    store: &'a FaultyStore,
}

impl FaultyStore {
    pub(super) const fn new(inner: Box<dyn Store>, faults: Faults, generation: u64) -> Self {
        Self {
            inner,
            faults,
            generation,
            poisoned: AtomicBool::new(false),
        }
    }

    /// Begins an operation that writes nothing.
    fn enter(&self, operation: Operation) -> Result<()> {
        match self.faults.next(operation, self.generation)? {
            None => Ok(()),
            Some(due) => self.settle(&due, operation),
        }
    }

    fn settle(&self, due: &Due, operation: Operation) -> Result<()> {
        let settled = due.settle(&self.faults, operation);
        if let Err(error) = &settled
            && error.kind() == ErrorKind::Poisoned
        {
            self.poisoned.store(true, Ordering::Release);
        }
        settled
    }

    fn refuse_if_poisoned(&self) -> Result<()> {
        if self.poisoned.load(Ordering::Acquire) {
            let message = "an earlier commit is in doubt, open the store again";
            return Err(Error::new(ErrorKind::Poisoned, message));
        }
        Ok(())
    }
}

impl Store for FaultyStore {
    fn capability(&self) -> Capability {
        self.inner.capability()
    }

    fn heads(&self, keys: &[&Key]) -> Result<Vec<Option<Head>>> {
        self.enter(Operation::Heads)?;
        self.inner.heads(keys)
    }

    fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.enter(Operation::Get)?;
        self.inner.get(key)
    }

    fn commit(&self, batch: &[Write<'_>], durability: Durability) -> Result<Durability> {
        let due = self.faults.next(Operation::Commit, self.generation)?;
        self.refuse_if_poisoned()?;
        let in_doubt = matches!(
            due,
            Some(Due {
                fault: Fault::Torn { applied: true } | Fault::Crash { applied: true },
                ..
            })
        );
        if let (false, Some(due)) = (in_doubt, &due) {
            self.settle(due, Operation::Commit)?;
        }
        if !in_doubt {
            self.faults.spend(batch.iter().map(bytes).sum())?;
        }
        let done = self.inner.commit(batch, durability)?;
        if let (true, Some(due)) = (in_doubt, &due) {
            self.settle(due, Operation::Commit)?;
        }
        Ok(done)
    }

    fn sync(&self) -> Result<Durability> {
        self.enter(Operation::Sync)?;
        self.refuse_if_poisoned()?;
        self.inner.sync()
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        self.enter(Operation::Snapshot)?;
        let inner = self.inner.snapshot()?;
        Ok(Box::new(FaultySnapshot { inner, store: self }))
    }

    fn rows(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.enter(Operation::Rows)?;
        self.inner.rows(table, from, limit)
    }

    fn count(&self) -> Result<Count> {
        self.enter(Operation::Count)?;
        self.inner.count()
    }

    fn backlog(&self) -> Option<Backlog> {
        self.inner.backlog()
    }

    fn close(self: Box<Self>) -> Result<()> {
        // Whatever happens, the inner store is dropped: it is closed all the same.
        self.enter(Operation::Close)?;
        let poisoned = self.refuse_if_poisoned();
        self.inner.close()?;
        poisoned
    }
}

impl FaultySnapshot<'_> {
    /// Rows until one of them fails.
    fn rows<'s>(&'s self, rows: Rows<'s>) -> Rows<'s> {
        let mut rows = Some(rows);
        Box::new(std::iter::from_fn(move || {
            if rows.is_some()
                && let Err(error) = self.store.enter(Operation::Scan)
            {
                rows = None;
                return Some(Err(error));
            }
            rows.as_mut()?.next()
        }))
    }
}

impl Snapshot for FaultySnapshot<'_> {
    fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.store.enter(Operation::Get)?;
        self.inner.get(key)
    }

    fn latest<'s>(&'s self, range: &KeyRange, direction: Direction) -> Rows<'s> {
        self.rows(self.inner.latest(range, direction))
    }

    fn history<'s>(
        &'s self,
        range: &KeyRange,
        versions: Option<(Version, Version)>,
        direction: Direction,
    ) -> Rows<'s> {
        self.rows(self.inner.history(range, versions, direction))
    }
}

/// What a write takes from the budget: its key and its value.
fn bytes(write: &Write<'_>) -> u64 {
    let record = |key: &Key, record: &RecordRef<'_>| key.len() + record.value.map_or(0, Value::len);
    let bytes = match write {
        Write::Latest { key, record: held } | Write::History { key, record: held } => {
            record(key, held)
        }
        Write::ForgetLatest { key } | Write::ForgetHistory { key, .. } => key.len(),
        Write::Row { key, value, .. } => key.len() + value.as_ref().map_or(0, Vec::len),
    };
    bytes as u64
}
