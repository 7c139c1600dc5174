//! Looks at the directory: what is there, with which content.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{
    Dropped,
    listing::{Content, Fingerprint, Listing, Look, Seen},
};

/// The longest module that is read. Python's, the largest that are known, have 18 MiB.
pub(crate) const MODULE_BYTES_MAX: u64 = 64 << 20;
/// Detached signatures have four short lines.
const SIGNATURE_BYTES_MAX: u64 = 8 << 10;
/// How many modules a directory may hold; the first by name count.
const MODULES_MAX: usize = 1024;
/// A file may have been written to again within the file system's clock tick and look the same. Two
/// seconds are the coarsest tick in use (FAT); what is older needs no second hash.
const TICK: Duration = Duration::from_secs(2);
/// Directories elsewhere, where links point, that are worth watching.
const PLACES_MAX: usize = 64;

const MODULE: &str = ".wasm";
pub(crate) const SIGNATURE: &str = ".minisig";

/// What a look found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) listing: Listing,
    /// The directories where the files of links lie.
    pub(crate) places: BTreeSet<PathBuf>,
    /// Files that end in `.wasm` and are left alone, and why.
    pub(crate) ignored: Vec<String>,
}

/// Reads a directory; remembers hashes so that a look at what has not changed opens nothing.
#[derive(Debug)]
pub(crate) struct Scanner {
    dir: PathBuf,
    hashes: HashMap<PathBuf, Hashed>,
}

#[derive(Debug)]
struct Hashed {
    look: Look,
    hash: blake3::Hash,
    at: SystemTime,
}

impl Scanner {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            hashes: HashMap::new(),
        }
    }

    /// Forgets the hashes: the next look opens every file.
    pub(crate) fn forget(&mut self) {
        self.hashes.clear();
    }

    /// What is there.
    ///
    /// # Errors
    /// The directory itself cannot be read, which says nothing about any file in it.
    pub(crate) fn look(&mut self) -> io::Result<Found> {
        let mut found = Found::default();
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let file = entry.file_name();
            let Some(name) = file.to_str().and_then(|file| file.strip_suffix(MODULE)) else {
                continue;
            };
            if name.starts_with('.') {
                // Editors and copying tools write to hidden files first.
                continue;
            }
            if !is_name(name) {
                let rule = "a policy's name has letters, digits, `-`, `_` and `.` alone";
                found.ignored.push(format!("{name}{MODULE}: {rule}"));
                continue;
            }
            if entry.file_type()?.is_symlink() && found.places.len() < PLACES_MAX {
                found.places.extend(self.place(&entry.path()));
            }
            names.insert(name.to_owned());
        }
        while names.len() > MODULES_MAX
            && let Some(name) = names.pop_last()
        {
            let rule = format!("no more than {MODULES_MAX} modules are read");
            found.ignored.push(format!("{name}{MODULE}: {rule}"));
        }
        let mut met = BTreeSet::new();
        for name in names {
            let (module, signature) = self.paths(&name);
            let seen = self.see(&module, MODULE_BYTES_MAX);
            let Some(module_seen) = seen else { continue };
            let print = Fingerprint {
                module: module_seen,
                signature: self.see(&signature, SIGNATURE_BYTES_MAX),
            };
            met.extend([module, signature]);
            found.listing.insert(name, print);
        }
        self.hashes.retain(|path, _| met.contains(path));
        Ok(found)
    }

    /// A module and its signature, if they are still what was seen.
    pub(crate) fn read(&self, name: &str, print: &Fingerprint) -> Option<Dropped> {
        let (module, signature) = self.paths(name);
        let bytes = read_as(&module, MODULE_BYTES_MAX, &print.module)?;
        let signature = match &print.signature {
            Some(Seen {
                content: Content::Unreadable(reason),
                ..
            }) => Some(Err(reason.clone())),
            Some(seen) => {
                let bytes = read_as(&signature, SIGNATURE_BYTES_MAX, seen)?;
                // Text that is none does not verify, and is told as such.
                Some(Ok(String::from_utf8_lossy(&bytes).into_owned()))
            }
            None => None,
        };
        Some(Dropped {
            name: name.to_owned(),
            bytes: bytes.into(),
            signature,
        })
    }

    /// Whether it has lain there for so long that nobody is writing to it.
    pub(crate) fn is_old(print: &Fingerprint) -> bool {
        let is_old = |seen: &Seen| is_older(SystemTime::now(), seen.look.changed, TICK);
        is_old(&print.module) && print.signature.as_ref().is_none_or(is_old)
    }

    /// Where the file of a link lies, or would lie if it were there.
    fn place(&self, link: &Path) -> Option<PathBuf> {
        let target = fs::canonicalize(link);
        let target = target.or_else(|_| fs::read_link(link).map(|path| self.dir.join(path)));
        Some(target.ok()?.parent()?.to_owned())
    }

    fn paths(&self, name: &str) -> (PathBuf, PathBuf) {
        let module = self.dir.join(format!("{name}{MODULE}"));
        let signature = self.dir.join(format!("{name}{MODULE}{SIGNATURE}"));
        (module, signature)
    }

    /// A file as it is now; `None` if it is not there.
    fn see(&mut self, path: &Path, bytes_max: u64) -> Option<Seen> {
        let unreadable = |reason: String| {
            Some(Seen {
                look: Look::default(),
                content: Content::Unreadable(reason),
            })
        };
        // Taken before the file is looked at: it cannot be too late.
        let at = SystemTime::now();
        let look = match fs::metadata(path) {
            Ok(meta) => Look::of(&meta),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return unreadable(format!("cannot be read: {error}")),
        };
        if let Some(known) = self.hashes.get(path)
            && known.look == look
            && is_older(known.at, look.changed, TICK)
        {
            let content = Content::Hash(known.hash);
            return Some(Seen { look, content });
        }
        match read(path, bytes_max) {
            Ok((look, bytes)) => {
                let hash = blake3::hash(&bytes);
                self.hashes
                    .insert(path.to_owned(), Hashed { look, hash, at });
                let content = Content::Hash(hash);
                Some(Seen { look, content })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => unreadable(format!("cannot be read: {error}")),
        }
    }
}

impl Look {
    fn of(meta: &fs::Metadata) -> Self {
        Self {
            id: (meta.dev(), meta.ino()),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// Names are chunks of admin keys, labels of metrics and parts of file names.
fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && name.len() <= 128 && name.chars().all(allowed)
}

fn is_older(now: SystemTime, changed: (i64, i64), age: Duration) -> bool {
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    let (seconds, nanos) = changed;
    let changed = u64::try_from(seconds)
        .ok()
        .zip(u32::try_from(nanos).ok())
        .map(|(seconds, nanos)| Duration::new(seconds, nanos));
    match (since, changed) {
        (Ok(now), Some(changed)) => now >= changed + age,
        // Clocks before 1970: nothing is certain.
        _ => false,
    }
}

fn read(path: &Path, bytes_max: u64) -> io::Result<(Look, Vec<u8>)> {
    // A pipe that is named like a module would otherwise hold us up until somebody writes to it.
    let mut options = OpenOptions::new();
    let mut file: File = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let too_long = || io::Error::other(format!("it has more than {bytes_max} bytes"));
    if meta.len() > bytes_max {
        return Err(too_long());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or_default());
    Read::by_ref(&mut file)
        .take(bytes_max + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(too_long());
    }
    Ok((Look::of(&file.metadata()?), bytes))
}

fn read_as(path: &Path, bytes_max: u64, seen: &Seen) -> Option<Vec<u8>> {
    let (_, bytes) = read(path, bytes_max).ok()?;
    (seen.content == Content::Hash(blake3::hash(&bytes))).then_some(bytes)
}
