//! The files: how a value gets to its place, how it leaves, and how a file is read.
//!
//! Nothing here is synced: the log holds what a crash could take, until [`Files::sync`].

use std::{
    collections::{BTreeSet, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind as Io, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::{
    names::{CONFLICT, SIDECAR},
    row::{FileId, Stat, modified},
};

/// More files than this are synced by one call for the whole file system: a sync for each is then
/// dearer than writing out what others have written there.
#[cfg(target_os = "linux")]
const FILES_SYNCED_ALONE_MAX: usize = 16;

/// The storage's directory.
#[derive(Clone, Debug)]
pub struct Files {
    dir: PathBuf,
    staging: PathBuf,
    kept: PathBuf,
}

/// A value written aside, on its way to its place.
#[derive(Debug)]
pub struct Staged {
    /// Where it is; empty once it is published.
    path: PathBuf,
    /// What it will look like in its place.
    pub stat: Stat,
}

/// A regular file, read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// All of it.
    pub content: Vec<u8>,
    /// What it looked like when it was opened.
    pub stat: Stat,
}

impl Files {
    /// The files below `dir`.
    pub fn new(dir: &Path) -> Self {
        let sidecar = dir.join(SIDECAR);
        Self {
            dir: dir.to_owned(),
            staging: sidecar.join("staging"),
            kept: sidecar.join("kept"),
        }
    }

    /// The storage's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the directories for what is on its way in or out, empty: what a crash left there is in
    /// the log, or nobody reads it any more.
    pub fn prepare(&self) -> io::Result<()> {
        for dir in [&self.staging, &self.kept] {
            absent(fs::remove_dir_all(dir))?;
            fs::create_dir(dir)?;
        }
        Ok(())
    }

    /// Writes a value aside. The file shows the version's time (NTP64) as its own.
    pub fn stage(&self, id: FileId, payload: &[u8], time: u64) -> io::Result<Staged> {
        let path = self.staging.join(name(id));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)?;
        let mut staged = Staged {
            path,
            stat: Stat::default(),
        };
        file.write_all(payload)?;
        file.set_modified(modified(time))?;
        staged.stat = Stat::of(&file.metadata()?);
        Ok(staged)
    }

    /// Moves a value to its place, and whatever stands in its way aside: a file where a directory
    /// must be gets the suffix of a conflict, and so does this one where a directory is.
    ///
    /// # Errors
    /// [`Io::NotADirectory`] if something else stands in the way, a link to a directory for one.
    pub fn publish(&self, mut staged: Staged, path: &str) -> io::Result<()> {
        self.make_parents(path)?;
        let plain = self.dir.join(path);
        let conflict = self.conflict(path);
        if is_dir(&plain)? {
            fs::rename(&staged.path, conflict)?;
        } else {
            fs::rename(&staged.path, plain)?;
            // Left over from when there was a directory.
            absent(fs::remove_file(conflict))?;
        }
        staged.path = PathBuf::new();
        Ok(())
    }

    /// Gives the file that is in the key's place a second name, for whoever still reads it.
    pub fn keep(&self, path: &str, id: FileId) -> io::Result<Option<PathBuf>> {
        let kept = self.kept.join(name(id));
        for place in [self.dir.join(path), self.conflict(path)] {
            if !is_file(&place)? {
                continue;
            }
            match fs::hard_link(&place, &kept) {
                Ok(()) => return Ok(Some(kept)),
                Err(e) if e.kind() == Io::NotFound => {}
                // Not every file system can link: then nobody sees the file for a moment.
                Err(_) => {
                    fs::rename(&place, &kept)?;
                    return Ok(Some(kept));
                }
            }
        }
        Ok(None)
    }

    /// Removes the key's file, and the directories that are empty without it.
    pub fn withdraw(&self, path: &str) -> io::Result<()> {
        for place in [self.dir.join(path), self.conflict(path)] {
            if is_file(&place)? {
                absent(fs::remove_file(&place))?;
            }
        }
        let mut dir = Path::new(path);
        while let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            match fs::remove_dir(self.dir.join(parent)) {
                Err(e) if e.kind() == Io::DirectoryNotEmpty => break,
                done => absent(done)?,
            }
            dir = parent;
        }
        Ok(())
    }

    /// What the key's file looks like, if there is one.
    pub fn stat(&self, path: &str) -> io::Result<Option<Stat>> {
        for place in [self.dir.join(path), self.conflict(path)] {
            match present(fs::symlink_metadata(place))? {
                Some(file) if file.is_file() => return Ok(Some(Stat::of(&file))),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Reads the key's file, if there is one.
    pub fn read(&self, path: &str) -> io::Result<Option<Found>> {
        match read(&self.dir.join(path))? {
            None => read(&self.conflict(path)),
            found => Ok(found),
        }
    }

    /// Reads what [`Files::keep`] kept.
    pub fn read_kept(&self, id: FileId) -> io::Result<Option<Found>> {
        read(&self.kept.join(name(id)))
    }

    /// Whether a directory above the file is a link: what is behind it is not the storage's.
    pub fn is_behind_link(&self, path: &str) -> io::Result<bool> {
        for (at, _) in path.match_indices('/') {
            let dir = present(fs::symlink_metadata(self.dir.join(&path[..at])))?;
            if dir.is_some_and(|dir| dir.is_symlink()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Puts the files of these paths on the disk, or that they are gone.
    pub fn sync(&self, changed: &HashSet<String>) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if changed.len() > FILES_SYNCED_ALONE_MAX {
            return Ok(rustix::fs::syncfs(File::open(&self.dir)?)?);
        }
        let mut dirs = BTreeSet::new();
        for path in changed {
            for place in [self.dir.join(path), self.conflict(path)] {
                if is_file(&place)? {
                    File::open(place)?.sync_all()?;
                }
            }
            dirs.extend(Path::new(path).ancestors().skip(1));
        }
        for dir in dirs {
            if let Some(dir) = present(File::open(self.dir.join(dir)))? {
                dir.sync_all()?;
            }
        }
        Ok(())
    }

    fn conflict(&self, path: &str) -> PathBuf {
        self.dir.join(format!("{path}{CONFLICT}"))
    }

    fn make_parents(&self, path: &str) -> io::Result<()> {
        for (at, _) in path.match_indices('/') {
            let dir = self.dir.join(&path[..at]);
            match present(fs::symlink_metadata(&dir))? {
                Some(there) if there.is_dir() => continue,
                Some(there) if there.is_file() => fs::rename(&dir, self.conflict(&path[..at]))?,
                Some(_) => return Err(Io::NotADirectory.into()),
                None => {}
            }
            fs::create_dir(dir)?;
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty()
            && let Err(error) = fs::remove_file(&self.path)
        {
            let path = self.path.display();
            tracing::warn!(%path, %error, "cannot remove a value that was not committed");
        }
    }
}

/// Reads a regular file; `None` if there is none, also if there is something else.
fn read(path: &Path) -> io::Result<Option<Found>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    let mut file = match file {
        // What O_NOFOLLOW says of a link.
        Err(e) if e.raw_os_error() == Some(libc::ELOOP) => return Ok(None),
        file => match present(file)? {
            Some(file) => file,
            None => return Ok(None),
        },
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(None);
    }
    let mut content = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.read_to_end(&mut content)?;
    Ok(Some(Found {
        content,
        stat: Stat::of(&metadata),
    }))
}

fn name(id: FileId) -> String {
    format!("{:x}-{:x}", id.seq, id.write)
}

fn is_dir(path: &Path) -> io::Result<bool> {
    Ok(present(fs::symlink_metadata(path))?.is_some_and(|there| there.is_dir()))
}

fn is_file(path: &Path) -> io::Result<bool> {
    Ok(present(fs::symlink_metadata(path))?.is_some_and(|there| there.is_file()))
}

/// Nothing there is an answer.
fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if matches!(e.kind(), Io::NotFound | Io::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Nothing there to remove is fine.
fn absent(result: io::Result<()>) -> io::Result<()> {
    present(result).map(|_| ())
}
