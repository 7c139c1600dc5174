//! Directories of zenohd's filesystem backend: payloads are files under the key after `strip_prefix`,
//! what belongs to them is in the database `.zenoh_datainfo`, under the file's absolute path.

use std::{
    cmp::Ordering,
    fs, io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use bytes::Bytes;
use weir_backend_api::{Error, Result};
use weir_core::{
    change::Change,
    key::Key,
    value::{Encoding, Value},
    version::Stamp,
};

use crate::{
    Changes, bad,
    info::Info,
    lsm::{Lsm, Rows},
};

const INFOS: &str = ".zenoh_datainfo";
const FAMILY: &str = "default";
/// The file of a value whose key equals the prefix.
const ROOT: &str = "@root";
/// Behind the name of a file whose key is also a directory.
const CONFLICT: &str = ".##z";
/// Infos that are looked at to find out where the directory was when it was written.
const SAMPLES: usize = 10_000;

/// A directory written by zenohd's filesystem backend.
#[derive(Debug)]
pub struct StockFilesystem {
    dir: PathBuf,
    infos: Lsm,
}

impl StockFilesystem {
    /// Opens a directory. It is not changed; its router must not run.
    ///
    /// # Errors
    /// [`weir_backend_api::ErrorKind::Unavailable`] if it cannot be read or a router has it open,
    /// [`weir_backend_api::ErrorKind::Corrupt`] if that backend has not written it.
    pub fn open(dir: &Path) -> Result<Self> {
        let unreadable = |e| Error::io(format!("cannot open {}", dir.display()), e);
        let dir = dir.canonicalize().map_err(unreadable)?;
        let infos = Lsm::open(&dir.join(INFOS))?;
        infos.check(FAMILY)?;
        Ok(Self { dir, infos })
    }

    /// About how many values there are; those put there by hand do not count.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        self.infos.len(FAMILY).ok()
    }

    /// What it holds, by path, files that somebody put there by hand included: these have the file's
    /// time and the HLC id 1, as that backend serves them. An entry that cannot be read is an error,
    /// after which the rest follows.
    ///
    /// # Errors
    /// If the database cannot be read at all.
    pub fn changes(mut self) -> Result<Changes> {
        let damage = self.infos.take_damage();
        let base = self.base()?;
        let files = Files {
            base,
            infos: self.infos.rows(FAMILY)?,
            next_info: None,
            has_lost: damage.is_some(),
            stack: vec![Visit::Dir(String::new())],
            dir: self.dir,
        };
        Ok(Box::new(damage.map(Err).into_iter().chain(files)))
    }

    /// The path, with its last slash, that the directory had when it was written: it may have been
    /// moved or copied since.
    fn base(&self) -> Result<Vec<u8>> {
        let mut here = self.dir.as_os_str().as_encoded_bytes().to_vec();
        here.push(b'/');
        let mut moved = None;
        for row in self.infos.rows(FAMILY)?.take(SAMPLES) {
            // Told when it is read again.
            let Ok((path, _)) = row else { continue };
            if path.starts_with(&here) {
                return Ok(here);
            }
            moved = moved.or_else(|| self.base_of(&path));
        }
        Ok(moved.unwrap_or(here))
    }

    /// What is before the longest end of a path that is a file here.
    fn base_of(&self, path: &[u8]) -> Option<Vec<u8>> {
        let path = std::str::from_utf8(path).ok()?;
        let mut ends = path.match_indices('/').map(|(at, _)| at + 1);
        let end = ends.find(|end| self.dir.join(&path[*end..]).is_file())?;
        Some(path.as_bytes()[..end].to_vec())
    }
}

/// The files in byte order of their paths, which is the order of their infos.
struct Files {
    dir: PathBuf,
    base: Vec<u8>,
    infos: Rows,
    /// The first info that no file has been found for yet.
    next_info: Option<(Vec<u8>, Bytes)>,
    /// Some infos are lost: a file without one is not by hand for sure.
    has_lost: bool,
    /// What is still to be visited, the next one last.
    stack: Vec<Visit>,
}

/// A path below the directory.
enum Visit {
    /// With its last slash.
    Dir(String),
    File(String),
    Bad(Error),
}

impl Visit {
    fn path(&self) -> &str {
        match self {
            Self::Dir(path) | Self::File(path) => path,
            Self::Bad(_) => "",
        }
    }
}

impl Iterator for Files {
    type Item = Result<Change>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.stack.pop()? {
                Visit::Bad(error) => return Some(Err(error)),
                Visit::Dir(path) => match self.list(&path) {
                    Ok(mut visits) => {
                        visits.sort_by(|a, b| b.path().cmp(a.path()));
                        self.stack.append(&mut visits);
                    }
                    Err(e) => return Some(Err(bad(&path, "it cannot be listed").because(e))),
                },
                Visit::File(path) => {
                    if let Some(change) = self.change(&path).transpose() {
                        return Some(change);
                    }
                }
            }
        }
    }
}

impl Files {
    fn list(&self, path: &str) -> io::Result<Vec<Visit>> {
        let mut visits = Vec::new();
        for entry in fs::read_dir(self.dir.join(path))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                let name = format!("{path}{}", name.display());
                visits.push(Visit::Bad(bad(&name, "its name is not text")));
                continue;
            };
            if kind.is_dir() && name != INFOS {
                visits.push(Visit::Dir(format!("{path}{name}/")));
            } else if kind.is_file() {
                visits.push(Visit::File(format!("{path}{name}")));
            }
            // Links that backend does not follow either.
        }
        Ok(visits)
    }

    /// The change that a file is; nothing if another file holds the same key.
    fn change(&mut self, path: &str) -> Result<Option<Change>> {
        // First, so that the infos keep pace with the files.
        let info = self.info(path);
        let file = self.dir.join(path);
        let key = match path.strip_suffix(CONFLICT) {
            // That backend looks at the plain name first.
            Some(plain) if self.dir.join(plain).is_file() => return Ok(None),
            Some(plain) => plain,
            None => path,
        };
        let is_key =
            |key: &str| weir_core::keyexpr::keyexpr::new(key).is_ok_and(|key| !key.is_wild());
        let key = match key {
            ROOT => Key::root(),
            key if is_key(key) => Key::from(key),
            _ => return Err(bad(path, "its name is not that of a key")),
        };
        let info = match info {
            Some(bytes) => {
                let info = Info::of_filesystem(&bytes);
                info.ok_or_else(|| bad(path, "its data-info is not understood"))?
            }
            None if self.has_lost => return Err(bad(path, "its timestamp is lost")),
            None => by_hand(&file).map_err(|e| bad(path, "it has no time").because(e))?,
        };
        let payload = fs::read(&file).map_err(|e| bad(path, "it cannot be read").because(e))?;
        Ok(Some(Change {
            key,
            stamp: Some(info.stamp),
            value: Some(Value {
                encoding: info.encoding,
                attachment: None,
                payload: Bytes::from(payload),
            }),
        }))
    }

    /// The info of a file. Those before it belong to files that are gone.
    fn info(&mut self, path: &str) -> Option<Bytes> {
        let wanted = [&self.base, path.as_bytes()].concat();
        loop {
            let next = match self.next_info.take() {
                Some(next) => next,
                None => match self.infos.next()? {
                    Ok(next) => next,
                    Err(error) => {
                        self.has_lost = true;
                        self.stack.push(Visit::Bad(error));
                        continue;
                    }
                },
            };
            match next.0.cmp(&wanted) {
                Ordering::Less => {}
                Ordering::Equal => return Some(next.1),
                Ordering::Greater => {
                    self.next_info = Some(next);
                    return None;
                }
            }
        }
    }
}

/// What that backend says of a file without an info.
fn by_hand(file: &Path) -> io::Result<Info> {
    let modified = fs::metadata(file)?.modified()?;
    let since = modified
        .duration_since(UNIX_EPOCH)
        .map_err(io::Error::other)?;
    let mut id = [0; 16];
    id[0] = 1;
    let mime = mime_guess::from_path(file).first_or_octet_stream();
    Ok(Info {
        stamp: Stamp {
            time: (since.as_secs() << 32) + (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000,
            id,
        },
        is_deleted: false,
        encoding: Encoding::of_media_type(mime.essence_str()),
    })
}
