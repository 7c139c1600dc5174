//! A disk that is simulated in memory and outlives the stores on it, with or without a flaw.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use weir_backend_api::{
    Capability, Count, Direction, Durability, Error, ErrorKind, Result, Row, Rows, Snapshot, Store,
    StoreSpec, Volume,
};
use weir_backend_memory::MemoryVolume;
use weir_core::{
    change::{Table, Write},
    key::{Key, KeyRange},
    record::{Head, Record},
    version::Version,
};

/// What may be wrong with a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    LosesLastCommitOfADeadProcess,
    TearsLastCommitOfADeadProcess,
    CommitsInTwoParts,
    AppliesBackwards,
    SnapshotsMove,
    ForgetsJournalRows,
    ForgetsTombstones,
    DropsHistoryThatComesLate,
    DropsEmptyAttachments,
    FoldsCase,
    LeavesOutTheLastOfARange,
    OpensTwice,
    CreatesUnasked,
    KeepsWhatItShouldDestroy,
    WritesThoughReadOnly,
    SaysSynced,
}

/// Every disk of this process, by directory; directories are fresh for each test.
static DISKS: Mutex<BTreeMap<PathBuf, Platter>> = Mutex::new(BTreeMap::new());

struct Platter {
    store: Arc<dyn Store>,
    is_open: bool,
}

pub struct Disk {
    flaw: Option<Flaw>,
}

struct DiskStore {
    inner: Arc<dyn Store>,
    spec: StoreSpec,
    flaw: Option<Flaw>,
    /// What takes the last commit back.
    undo: Mutex<Vec<Undo>>,
    newest: Mutex<BTreeMap<Key, Version>>,
    snapshots: AtomicU64,
}

enum Undo {
    Latest(Key, Option<Record>),
    Row(Table, Vec<u8>, Option<Vec<u8>>),
}

/// A snapshot that is a new one for each read, or that loses rows.
struct Flawed<'a> {
    inner: Box<dyn Snapshot + 'a>,
    store: &'a DiskStore,
}

impl Disk {
    pub const fn new(flaw: Option<Flaw>) -> Self {
        Self { flaw }
    }

    pub const fn flawless() -> Self {
        Self::new(None)
    }
}

fn disks() -> MutexGuard<'static, BTreeMap<PathBuf, Platter>> {
    DISKS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Volume for Disk {
    fn kind(&self) -> &'static str {
        "disk"
    }

    fn capability(&self) -> Capability {
        Capability {
            durability_max: Durability::Written,
            history: true,
            persistent: true,
            exact_count: true,
        }
    }

    fn open(&self, spec: &StoreSpec) -> Result<Box<dyn Store>> {
        let mut disks = disks();
        let unavailable = |message| Err(Error::new(ErrorKind::Unavailable, message));
        let create = spec.create || self.flaw == Some(Flaw::CreatesUnasked);
        if !disks.contains_key(&spec.dir) {
            if !create {
                return unavailable("there is no such store");
            }
            let store = Arc::from(MemoryVolume::new().open(&StoreSpec::default())?);
            let is_open = false;
            disks.insert(spec.dir.clone(), Platter { store, is_open });
        }
        let Some(platter) = disks.get_mut(&spec.dir) else {
            return unavailable("it is gone");
        };
        if platter.is_open && self.flaw != Some(Flaw::OpensTwice) {
            return unavailable("it is open already");
        }
        platter.is_open = true;
        Ok(Box::new(DiskStore {
            inner: Arc::clone(&platter.store),
            spec: spec.clone(),
            flaw: self.flaw,
            undo: Mutex::default(),
            newest: Mutex::default(),
            snapshots: AtomicU64::new(0),
        }))
    }
}

impl DiskStore {
    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn remember(&self, batch: &[Write<'_>]) -> Result<()> {
        let mut undo = Vec::new();
        for write in batch {
            undo.push(match write {
                Write::Latest { key, .. } | Write::ForgetLatest { key } => {
                    Undo::Latest((*key).clone(), self.inner.get(key)?)
                }
                Write::Row { table, key, .. } => {
                    let rows = self.inner.rows(*table, key, 1)?;
                    let row = rows.into_iter().find(|(held, _)| held == key);
                    Undo::Row(*table, key.clone(), row.map(|(_, value)| value))
                }
                Write::History { .. } | Write::ForgetHistory { .. } => continue,
            });
        }
        undo.reverse();
        *self.undo.lock().unwrap() = undo;
        Ok(())
    }

    /// What a store with the flaw makes of one write.
    fn commit_one(&self, write: &Write<'_>) -> Result<Durability> {
        let one = |write: Write<'_>| self.inner.commit(&[write], Durability::Written);
        match (write, self.flaw) {
            (Write::Row { table, .. }, Some(Flaw::ForgetsJournalRows))
                if *table == Table::Wildcards =>
            {
                Ok(Durability::Written)
            }
            (Write::Latest { key, record }, Some(Flaw::ForgetsTombstones))
                if record.value.is_none() =>
            {
                one(Write::ForgetLatest { key })
            }
            (Write::History { key, record }, Some(Flaw::DropsHistoryThatComesLate)) => {
                let mut newest = self.newest.lock().unwrap();
                let newest = newest.entry((*key).clone()).or_default();
                if record.head.own < *newest {
                    return Ok(Durability::Written);
                }
                *newest = record.head.own;
                one(write.clone())
            }
            (Write::Latest { key, record }, Some(Flaw::DropsEmptyAttachments)) => {
                let mut record = record.to_record();
                if let Some(value) = &mut record.value {
                    value.attachment.take_if(|attachment| attachment.is_empty());
                }
                let record = record.as_ref();
                one(Write::Latest { key, record })
            }
            (Write::Latest { key, record }, Some(Flaw::FoldsCase)) => {
                let key = &Key::new(key.to_lowercase());
                let record = *record;
                one(Write::Latest { key, record })
            }
            _ => one(write.clone()),
        }
    }
}

impl Store for DiskStore {
    fn capability(&self) -> Capability {
        Disk::flawless().capability()
    }

    fn heads(&self, keys: &[&Key]) -> Result<Vec<Option<Head>>> {
        self.inner.heads(keys)
    }

    fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.inner.get(key)
    }

    fn commit(&self, batch: &[Write<'_>], _durability: Durability) -> Result<Durability> {
        if self.spec.read_only && !self.has(Flaw::WritesThoughReadOnly) {
            return Err(Error::new(ErrorKind::Rejected, "it is read-only"));
        }
        self.remember(batch)?;
        match self.flaw {
            Some(Flaw::CommitsInTwoParts) => {
                let (first, second) = batch.split_at(batch.len() / 2);
                self.inner.commit(first, Durability::Written)?;
                // Somebody shall look in between, if anybody does.
                let before = self.snapshots.load(Ordering::Acquire);
                for _ in 0..10_000 {
                    if self.snapshots.load(Ordering::Acquire) > before {
                        break;
                    }
                    thread::yield_now();
                }
                self.inner.commit(second, Durability::Written)?;
            }
            Some(Flaw::AppliesBackwards) => {
                for write in batch.iter().rev() {
                    self.commit_one(write)?;
                }
            }
            Some(
                Flaw::ForgetsJournalRows
                | Flaw::ForgetsTombstones
                | Flaw::DropsHistoryThatComesLate
                | Flaw::DropsEmptyAttachments
                | Flaw::FoldsCase,
            ) => {
                for write in batch {
                    self.commit_one(write)?;
                }
            }
            _ => _ = self.inner.commit(batch, Durability::Written)?,
        }
        Ok(if self.has(Flaw::SaysSynced) {
            Durability::Synced
        } else {
            Durability::Written
        })
    }

    fn sync(&self) -> Result<Durability> {
        Ok(Durability::Written)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        let inner = self.inner.snapshot()?;
        self.snapshots.fetch_add(1, Ordering::AcqRel);
        if self.has(Flaw::SnapshotsMove) || self.has(Flaw::LeavesOutTheLastOfARange) {
            return Ok(Box::new(Flawed { inner, store: self }));
        }
        Ok(inner)
    }

    fn rows(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.inner.rows(table, from, limit)
    }

    fn count(&self) -> Result<Count> {
        self.inner.count()
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.undo.lock().unwrap().clear();
        if self.spec.destroy_on_close && !self.has(Flaw::KeepsWhatItShouldDestroy) {
            disks().remove(&self.spec.dir);
        }
        Ok(())
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        let mut undo = std::mem::take(&mut *self.undo.lock().unwrap());
        match self.flaw {
            Some(Flaw::LosesLastCommitOfADeadProcess) => {}
            Some(Flaw::TearsLastCommitOfADeadProcess) => undo.truncate(undo.len().div_ceil(2)),
            _ => undo.clear(),
        }
        for undo in &undo {
            let write = match undo {
                Undo::Latest(key, Some(record)) => Write::Latest {
                    key,
                    record: record.as_ref(),
                },
                Undo::Latest(key, None) => Write::ForgetLatest { key },
                Undo::Row(table, key, value) => Write::Row {
                    table: *table,
                    key: key.clone(),
                    value: value.clone(),
                },
            };
            self.inner.commit(&[write], Durability::Written).unwrap();
        }
        if let Some(platter) = disks().get_mut(&self.spec.dir) {
            platter.is_open = false;
        }
    }
}

impl Flawed<'_> {
    fn read<'s>(&'s self, read: impl Fn(&dyn Snapshot) -> Vec<Row>) -> Rows<'s> {
        let mut rows = if self.store.has(Flaw::SnapshotsMove) {
            read(&*self.store.inner.snapshot().unwrap())
        } else {
            read(&*self.inner)
        };
        if self.store.has(Flaw::LeavesOutTheLastOfARange) {
            rows.pop();
        }
        Box::new(rows.into_iter())
    }
}

impl Snapshot for Flawed<'_> {
    fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.inner.get(key)
    }

    fn latest<'s>(&'s self, range: &KeyRange, direction: Direction) -> Rows<'s> {
        self.read(|snapshot| snapshot.latest(range, direction).collect())
    }

    fn history<'s>(
        &'s self,
        range: &KeyRange,
        versions: Option<(Version, Version)>,
        direction: Direction,
    ) -> Rows<'s> {
        self.read(|snapshot| snapshot.history(range, versions, direction).collect())
    }
}
