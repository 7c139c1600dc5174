//! A store: opening and recovery, batches, checkpoints, closing.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, TryLockError},
    io,
    path::Path,
    sync::Arc,
};

use parking_lot::Mutex;
use redb::ReadableTableMetadata;
use weir_backend_api::{
    Capability, Count, Durability, Error, ErrorKind, Result, Snapshot, Store, StoreSpec,
};
use weir_core::{
    change::{Table, Write},
    key::Key,
    record::Head,
};

use crate::{
    CAPABILITY,
    change::{LatestChange, table_row, write_row},
    files::{Files, Staged},
    index::{Index, Number, failed},
    log::{End, Log, Owned},
    names,
    readers::Readers,
    row::FileId,
    view::{Shared, View},
};

/// Bytes of the log at which it is cut. It bounds what an opening after a crash writes again, some
/// 100,000 small values or a few large ones, and how often all files are synced.
const LOG_BYTES_MAX: u64 = 16 << 20;

/// A directory of files, opened.
#[derive(Debug)]
pub struct FilesystemStore {
    shared: Arc<Shared>,
    /// `None`: nothing may be written.
    writer: Option<Mutex<Writer>>,
    destroy_on_close: bool,
}

#[derive(Debug)]
struct Writer {
    shared: Arc<Shared>,
    log: Log,
    /// Sequence of the batch committed last.
    seq: u64,
    /// Paths of the files that the log is needed for.
    changed: HashSet<String>,
    /// Something failed that leaves it unknown what reached the disk or the index.
    poisoned: bool,
    /// Held as long as the store is open.
    _lock: File,
}

/// Where a crash is tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// A value is written aside.
    Staged,
    /// The batch is in the log.
    Logged,
    /// A replaced file is kept.
    Kept,
    /// A value is in its place, or a deleted one is gone.
    Moved,
    /// The batch is shown to readers.
    Shown,
    /// The files are synced.
    FilesSynced,
    /// The index is durable.
    IndexSynced,
    /// The log is empty.
    Cut,
}

impl FilesystemStore {
    /// Opens a directory, and recovers it.
    pub(crate) fn open(spec: &StoreSpec) -> Result<Self> {
        let dir = &*spec.dir;
        prepare(dir, spec)?;
        let sidecar = dir.join(names::SIDECAR);
        let files = Files::new(dir);
        if spec.read_only && !sidecar.exists() {
            // Somebody else's directory, to be served as it is.
            return Ok(Self {
                shared: Arc::new(Shared {
                    files,
                    index: Index::in_memory()?,
                    readers: Arc::new(Readers::new(0)),
                }),
                writer: None,
                destroy_on_close: false,
            });
        }
        let unwritable = |e| Error::io(format!("cannot prepare {}", sidecar.display()), e);
        fs::create_dir_all(&sidecar).map_err(unwritable)?;
        let lock = lock(&sidecar.join("lock"))?;
        if sidecar.join("LOCK").exists() {
            let message = format!(
                "{} is on a file system that does not tell upper from lower case: keys that differ \
                 in nothing else would share a file",
                dir.display()
            );
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        files.prepare().map_err(unwritable)?;
        let index = Index::open(&sidecar.join("index"))?;
        let seq = index.read()?.get(Number::Seq)?;
        let path = sidecar.join("log");
        let log = Log::open(&path)?;
        for dir in [dir, &sidecar] {
            let synced = File::open(dir).and_then(|dir| dir.sync_all());
            synced.map_err(unwritable)?;
        }
        let shared = Arc::new(Shared {
            files,
            index,
            readers: Arc::new(Readers::new(seq)),
        });
        let mut writer = Writer {
            shared: Arc::clone(&shared),
            log,
            seq,
            changed: HashSet::new(),
            poisoned: false,
            _lock: lock,
        };
        writer.recover(&path)?;
        Ok(Self {
            shared,
            writer: (!spec.read_only).then(|| Mutex::new(writer)),
            destroy_on_close: spec.destroy_on_close,
        })
    }

    fn writer(&self) -> Result<&Mutex<Writer>> {
        self.writer
            .as_ref()
            .ok_or_else(|| Error::new(ErrorKind::Rejected, "the store is opened read-only"))
    }

    fn view(&self) -> Result<View> {
        View::new(&self.shared)
    }
}

impl Store for FilesystemStore {
    fn capability(&self) -> Capability {
        CAPABILITY
    }

    fn heads(&self, keys: &[&Key]) -> Result<Vec<Option<Head>>> {
        let view = self.view()?;
        keys.iter().map(|key| view.head(key)).collect()
    }

    fn get(&self, key: &Key) -> Result<Option<weir_core::record::Record>> {
        self.view()?.get(key)
    }

    fn commit(&self, batch: &[Write<'_>], durability: Durability) -> Result<Durability> {
        self.writer()?.lock().commit(batch, durability)
    }

    fn sync(&self) -> Result<Durability> {
        if let Some(writer) = &self.writer {
            writer.lock().sync()?;
        }
        Ok(Durability::Synced)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        Ok(Box::new(self.view()?))
    }

    fn rows(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let rows = self.shared.index.read()?.tables;
        let from = table_row(table, from);
        let to = [table as u8 + 1];
        let rows = rows.range::<&[u8]>(&*from..&to[..]).map_err(failed)?;
        rows.take(limit)
            .map(|row| {
                let (key, value) = row.map_err(failed)?;
                Ok((key.value()[1..].to_vec(), value.value().to_vec()))
            })
            .collect()
    }

    fn count(&self) -> Result<Count> {
        let reading = self.shared.index.read()?;
        let sidecar = self.shared.files.dir().join(names::SIDECAR);
        let mut bytes = reading.get(Number::FileBytes)?;
        for file in ["index", "log"] {
            match fs::metadata(sidecar.join(file)) {
                Ok(file) => bytes += file.len(),
                // Read-only, and never ours.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io("cannot measure the sidecar", e)),
            }
        }
        Ok(Count {
            keys: reading.latest.len().map_err(failed)?,
            bytes,
        })
    }

    fn close(self: Box<Self>) -> Result<()> {
        let Self {
            shared,
            writer,
            destroy_on_close,
        } = *self;
        let dir = shared.files.dir().to_owned();
        let checkpoint = match writer.map(Mutex::into_inner) {
            Some(mut writer) if !destroy_on_close => {
                writer.check().and_then(|()| writer.checkpoint())
            }
            _ => Ok(()),
        };
        let closed = match Arc::into_inner(shared) {
            Some(shared) => shared.index.close(),
            // No snapshot outlives the store.
            None => Ok(()),
        };
        if destroy_on_close {
            fs::remove_dir_all(&dir)
                .map_err(|e| Error::io(format!("cannot remove {}", dir.display()), e))?;
        }
        checkpoint.and(closed)
    }
}

impl Writer {
    fn commit(&mut self, batch: &[Write<'_>], durability: Durability) -> Result<Durability> {
        self.check()?;
        let seq = self.seq + 1;
        let mut staged = self.stage(seq, batch)?;
        let sync = durability == Durability::Synced;
        // Here it is decided. What fails from now on is repaired by the next opening.
        let logged = self.log.append(seq, batch, sync);
        self.poisoned = matches!(&logged, Err(e) if e.kind() == ErrorKind::Poisoned);
        logged?;
        self.step(Step::Logged);
        self.poisoned = true;
        self.apply(seq, batch, &mut staged).map_err(poisoned)?;
        self.poisoned = false;
        if self.log.bytes() >= LOG_BYTES_MAX
            && let Err(error) = self.checkpoint()
        {
            // The batch is safe in the log; the next one is refused.
            tracing::error!(%error, "the checkpoint failed");
        }
        Ok(if sync {
            Durability::Synced
        } else {
            Durability::Written
        })
    }

    fn sync(&mut self) -> Result<()> {
        self.check()?;
        self.log.sync().inspect_err(|_| self.poisoned = true)
    }

    fn check(&self) -> Result<()> {
        if self.poisoned {
            let message = "the store failed before: it must be opened again";
            return Err(Error::new(ErrorKind::Poisoned, message));
        }
        Ok(())
    }

    /// Makes files and index what the log says, and starts a new log.
    fn recover(&mut self, path: &Path) -> Result<()> {
        let mut batches = 0;
        let mut frames = self.log.frames(path)?;
        for frame in &mut frames {
            let (seq, writes) = frame?;
            let batch: Vec<_> = writes.iter().map(Owned::as_write).collect();
            let mut staged = self.stage(seq, &batch)?;
            self.apply(seq, &batch, &mut staged)?;
            batches += 1;
        }
        let end = frames.end();
        if end == End::Damaged {
            let kept = path.with_extension("damaged");
            fs::copy(path, &kept)
                .map_err(|e| Error::io(format!("cannot keep {}", kept.display()), e))?;
            let kept = kept.display();
            tracing::error!(%kept, "the log is damaged: batches at its end are lost");
        }
        if batches > 0 || end == End::Torn {
            let path = path.display();
            tracing::info!(%path, batches, ?end, "recovered the store from its log");
        }
        self.checkpoint()
    }

    /// Makes everything safe without the log, and empties it.
    fn checkpoint(&mut self) -> Result<()> {
        if self.log.bytes() == 0 {
            return Ok(());
        }
        self.poisoned = true;
        let synced = self.shared.files.sync(&self.changed);
        synced.map_err(|e| Error::new(ErrorKind::Poisoned, "cannot sync the files").because(e))?;
        self.step(Step::FilesSynced);
        self.shared.index.checkpoint()?;
        self.step(Step::IndexSynced);
        self.log.cut()?;
        self.step(Step::Cut);
        self.changed.clear();
        self.poisoned = false;
        Ok(())
    }

    /// Writes the values of a batch aside, those that have a file and are not overwritten by the
    /// same batch.
    fn stage(&mut self, seq: u64, batch: &[Write<'_>]) -> Result<HashMap<u32, Staged>> {
        let mut staged = HashMap::new();
        for (key, write) in last_writes(batch) {
            let Write::Latest { record, .. } = &batch[write as usize] else {
                continue;
            };
            if let (Some(value), Some(_)) = (record.value, names::path_of(key)) {
                let id = FileId { seq, write };
                let time = record.head.effective().stamp.time;
                let value = self.shared.files.stage(id, &value.payload, time);
                let value =
                    value.map_err(|e| Error::io(format!("cannot write the value of {key}"), e))?;
                staged.insert(write, value);
                self.step(Step::Staged);
            }
        }
        Ok(staged)
    }

    /// Moves the files of a batch that is in the log, and shows it to readers.
    fn apply(
        &mut self,
        seq: u64,
        batch: &[Write<'_>],
        staged: &mut HashMap<u32, Staged>,
    ) -> Result<()> {
        let last = last_writes(batch);
        let shared = Arc::clone(&self.shared);
        shared
            .readers
            .publish(last.keys().map(|key| (*key).clone()));
        let paths = last.keys().filter_map(|key| names::path_of(key));
        self.changed.extend(paths.map(str::to_owned));
        let writing = shared.index.write()?;
        let mut kept = Vec::new();
        {
            let mut tables = writing.tables()?;
            let mut change = LatestChange {
                files: &shared.files,
                bytes: tables.get(Number::FileBytes)?,
                kept: &mut kept,
            };
            for (write, number) in batch.iter().zip(0..) {
                let id = FileId { seq, write: number };
                match write {
                    Write::Latest { key, record } if last.get(key) == Some(&number) => {
                        let staged = staged.remove(&number);
                        change.set(&mut tables.latest, key, *record, id, staged, |step| {
                            self.step(step);
                        })?;
                    }
                    Write::ForgetLatest { key } if last.get(key) == Some(&number) => {
                        change.forget(&mut tables.latest, key)?;
                        self.step(Step::Moved);
                    }
                    Write::Latest { .. } | Write::ForgetLatest { .. } => {}
                    other => write_row(&mut tables, other)?,
                }
            }
            let bytes = change.bytes;
            tables.set(Number::FileBytes, bytes)?;
            tables.set(Number::Seq, seq)?;
        }
        shared.readers.show(seq, writing, kept)?;
        self.seq = seq;
        self.step(Step::Shown);
        Ok(())
    }

    /// Passes a point at which a crash is tried.
    fn step(&self, step: Step) {
        #[cfg(test)]
        crash::at(step, self.shared.files.dir());
        #[cfg(not(test))]
        let _ = (self, step);
    }
}

/// For each key of the batch whose latest record is written, the number of the write that counts.
fn last_writes<'a>(batch: &[Write<'a>]) -> HashMap<&'a Key, u32> {
    let mut last = HashMap::new();
    for (write, number) in batch.iter().zip(0..) {
        if let Write::Latest { key, .. } | Write::ForgetLatest { key } = write {
            last.insert(*key, number);
        }
    }
    last
}

/// After the log has the batch, a failure leaves the index behind it.
fn poisoned(error: Error) -> Error {
    Error::new(ErrorKind::Poisoned, "the batch is only in the log").because(error)
}

/// Makes the directory if it may, and refuses one that is the stock backend's.
fn prepare(dir: &Path, spec: &StoreSpec) -> Result<()> {
    let message = |what| format!("cannot {what} {} of {}", dir.display(), spec.name);
    if spec.create && !spec.read_only {
        make_dirs(dir).map_err(|e| Error::io(message("make"), e))?;
    }
    fs::read_dir(dir).map_err(|e| Error::io(message("open"), e))?;
    if dir.join(names::STOCK_SIDECAR).exists() {
        let message = format!(
            "{0} was written by zenohd's filesystem backend: import it into another directory with \
             `weir storage import --from zenohd-filesystem {0}`",
            dir.display()
        );
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    Ok(())
}

/// Makes a directory and those above it, for good.
fn make_dirs(dir: &Path) -> io::Result<()> {
    let missing: Vec<_> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
    fs::create_dir_all(dir)?;
    for parent in missing.iter().filter_map(|dir| dir.parent()) {
        let here = parent.as_os_str().is_empty();
        File::open(if here { Path::new(".") } else { parent })?.sync_all()?;
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File> {
    let file = File::create(path);
    let file = file.map_err(|e| Error::io(format!("cannot open {}", path.display()), e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let message = format!("{} is held by another store or process", path.display());
            Err(Error::new(ErrorKind::Unavailable, message))
        }
        Err(TryLockError::Error(e)) => Err(Error::io(format!("cannot lock {}", path.display()), e)),
    }
}

#[cfg(test)]
mod crash;
#[cfg(test)]
mod tests;
