//! Disks that are full, break, and lose what was not synced.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering::SeqCst},
    },
};

use crate::files::{Disk, Files, Output};

/// A disk with faults.
#[derive(Clone, Debug)]
pub(super) struct Faults(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Bytes that may still be appended.
    room: AtomicI64,
    /// Operations before everything stops, in the middle of the last.
    steps: AtomicI64,
    /// Whether a sync fails.
    bad_sync: AtomicU64,
    /// Syncs of directories before one finds no room; none does below 0.
    dir_syncs: AtomicI64,
    /// How much of each file was synced.
    synced: Mutex<BTreeMap<PathBuf, u64>>,
}

#[derive(Debug)]
struct Faulty {
    file: Box<dyn Output>,
    path: PathBuf,
    len: u64,
    faults: Faults,
}

impl Faults {
    pub(super) fn none() -> Self {
        Self(Arc::new(Inner {
            room: AtomicI64::new(i64::MAX),
            steps: AtomicI64::new(i64::MAX),
            bad_sync: AtomicU64::new(0),
            dir_syncs: AtomicI64::new(-1),
            synced: Mutex::default(),
        }))
    }

    pub(super) fn files(&self) -> Arc<dyn Files> {
        Arc::new(self.clone())
    }

    pub(super) fn set_room(&self, bytes: i64) {
        self.0.room.store(bytes, SeqCst);
    }

    pub(super) fn stop_after(&self, steps: i64) {
        self.0.steps.store(steps, SeqCst);
    }

    pub(super) fn break_sync(&self) {
        self.0.bad_sync.store(1, SeqCst);
    }

    /// After so many, one sync of a directory finds no room.
    pub(super) fn fill_at_dir_sync(&self, count: i64) {
        self.0.dir_syncs.store(count, SeqCst);
    }

    /// The power is gone: of what was not synced, a part is lost.
    pub(super) fn lose_unsynced(&self, part: impl Fn(u64) -> u64) {
        for (path, synced) in &*self.0.synced.lock().unwrap() {
            let Ok(file) = OpenOptions::new().write(true).open(path) else {
                continue;
            };
            let len = file.metadata().unwrap().len();
            if len > *synced {
                file.set_len(synced + part(len - synced)).unwrap();
            }
        }
    }

    /// Counts an operation; false if it is the last, which gets half done.
    fn step(&self) -> io::Result<bool> {
        match self.0.steps.fetch_sub(1, SeqCst) {
            ..=0 => Err(io::Error::other("it has stopped")),
            1 => Ok(false),
            _ => Ok(true),
        }
    }
}

impl Files for Faults {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        if !self.step()? {
            return Err(io::Error::other("it stops"));
        }
        let file = Disk.create(path)?;
        self.0.synced.lock().unwrap().insert(path.to_owned(), 0);
        Ok(Box::new(Faulty {
            file,
            path: path.to_owned(),
            len: 0,
            faults: self.clone(),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.whole_step()?;
        Disk.rename(from, to)?;
        let mut synced = self.0.synced.lock().unwrap();
        // What is not known here was there before, and is on the disk.
        match synced.remove(from) {
            Some(len) => synced.insert(to.to_owned(), len),
            None => synced.remove(to),
        };
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.whole_step()?;
        let len = path.metadata().map_or(0, |file| file.len());
        let len = i64::try_from(len).unwrap();
        Disk.remove(path)?;
        let more = |room: i64| Some(room.saturating_add(len));
        let _ = self.0.room.fetch_update(SeqCst, SeqCst, more);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.0.dir_syncs.fetch_sub(1, SeqCst) == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Disk.sync_dir(dir)
    }
}

/// Names, too, change one by one.
impl Faults {
    fn whole_step(&self) -> io::Result<()> {
        match self.step()? {
            true => Ok(()),
            false => Err(io::Error::other("it stops")),
        }
    }
}

impl Output for Faulty {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let is_whole = self.faults.step()?;
        let len = i64::try_from(bytes.len()).unwrap();
        let room = self.faults.0.room.fetch_sub(len, SeqCst);
        let fits = usize::try_from(room.max(0)).unwrap();
        if fits < bytes.len() {
            self.faults.0.room.store(0, SeqCst);
            self.file.append(&bytes[..fits])?;
            self.len += fits as u64;
            return Err(io::ErrorKind::StorageFull.into());
        }
        if !is_whole {
            self.file.append(&bytes[..bytes.len() / 2])?;
            return Err(io::Error::other("it stops"));
        }
        self.len += bytes.len() as u64;
        self.file.append(bytes)
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.faults
            .0
            .room
            .fetch_add(i64::try_from(self.len - len).unwrap(), SeqCst);
        self.len = len;
        self.file.cut(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        if !self.faults.step()? || self.faults.0.bad_sync.load(SeqCst) > 0 {
            return Err(io::Error::other("the disk is bad"));
        }
        self.file.sync()?;
        self.faults
            .0
            .synced
            .lock()
            .unwrap()
            .insert(self.path.clone(), self.len);
        Ok(())
    }
}
