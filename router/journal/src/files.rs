//! The files of a journal: their names, and the few things that are done to them. Writing goes through
//! [`Files`], so that tests can fill the disk and break it.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use weir_core::backlog::LANES;

/// The file that one process has locked while it has the journal open.
pub(crate) const LOCK: &str = "lock";
/// The file that says which segments a segment has become, until they have its place.
pub(crate) const MOVED: &str = "moved";
/// The file of what was given up.
pub(crate) const LOST: &str = "lost";
/// How a file ends that is not finished; it is removed when the journal is opened.
pub(crate) const UNFINISHED: &str = ".new";
/// How a file ends that holds damaged blocks.
pub(crate) const DAMAGED: &str = ".damaged";
const SEGMENT: &str = ".journal";

/// Where a journal writes.
pub trait Files: Send + Sync + fmt::Debug {
    /// Creates a file to append to; one that is there is emptied.
    ///
    /// # Errors
    /// What the file system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>>;

    /// Gives a file another name; what has that is no more.
    ///
    /// # Errors
    /// What the file system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Removes a file; it may be gone already.
    ///
    /// # Errors
    /// What the file system says.
    fn remove(&self, path: &Path) -> io::Result<()> {
        remove(path)
    }

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the file system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        sync_dir(dir)
    }
}

/// A file that is appended to.
pub trait Output: Send + fmt::Debug {
    /// Appends all of it, or fails; some of it may be there then.
    ///
    /// # Errors
    /// What the file system says.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Cuts it to a length; what is appended comes behind.
    ///
    /// # Errors
    /// What the file system says.
    fn cut(&mut self, len: u64) -> io::Result<()>;

    /// Waits until the disk has what was appended.
    ///
    /// # Errors
    /// What the file system says. What the disk has then is not known.
    fn sync(&mut self) -> io::Result<()>;
}

/// The file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Files for Disk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        Ok(Box::new(File::create(path)?))
    }
}

impl Output for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)?;
        io::Seek::seek(self, io::SeekFrom::Start(len)).map(drop)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// The name of a segment's file.
pub(crate) fn name_of(lane: u8, id: u64) -> String {
    format!("{lane}-{id:016x}{SEGMENT}")
}

/// The lane and id in a segment's name; `None` for another file.
pub(crate) fn parse_name(name: &str) -> Option<(u8, u64)> {
    let (lane, id) = name.strip_suffix(SEGMENT)?.split_once('-')?;
    let lane = lane.parse().ok().filter(|lane| *lane < LANES)?;
    Some((
        lane,
        u64::from_str_radix(id, 16)
            .ok()
            .filter(|_| id.len() == 16)?,
    ))
}

/// Makes the names in a directory durable.
///
/// # Errors
/// What the file system says.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Replaces a file as a whole: whatever happens, it is there as it was or as it shall be.
///
/// # Errors
/// What the file system says.
pub(crate) fn replace(files: &dyn Files, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    prepare(files, dir, name, bytes)?;
    finish(files, dir, name)?;
    files.sync_dir(dir)
}

/// The first half of [`replace`]: the new file is there under another name, on the disk.
///
/// # Errors
/// What the file system says.
pub(crate) fn prepare(files: &dyn Files, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = unfinished(dir, name);
    let write = || {
        let mut file = files.create(&unfinished)?;
        file.append(bytes)?;
        file.sync()
    };
    write().inspect_err(|_| {
        // What is left of it takes room, and nobody would read it.
        let _ = fs::remove_file(&unfinished);
    })
}

/// The second half: it has its name. That is on the disk once the directory is synced.
///
/// # Errors
/// What the file system says.
pub(crate) fn finish(files: &dyn Files, dir: &Path, name: &str) -> io::Result<()> {
    files.rename(&unfinished(dir, name), &dir.join(name))
}

/// Where a file is while it is not finished.
pub(crate) fn unfinished(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}{UNFINISHED}"))
}

/// Removes a file; it may be gone already.
///
/// # Errors
/// What the file system says.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Opens and locks the lock file of a directory; `None` if somebody else has it.
///
/// # Errors
/// What the file system says.
pub(crate) fn lock(dir: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}
