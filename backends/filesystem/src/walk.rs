//! The files that somebody put into the directory by hand: those that the index has no row for.
//!
//! A walk lists one directory after the other, in key order, only those that can hold keys of the
//! range. It remembers the names of one directory on each level, and of these only the
//! subdirectories and the files without a row.

use std::{fs, io::ErrorKind as Io, path::Path};

use weir_backend_api::{Direction, Error, Result};
use weir_core::key::{Key, KeyRange};

use crate::{index::failed, names, view::View};

/// What `/` is in an ordered key.
const SEPARATOR: u8 = 1;

/// Ordered keys and keys of files without a row, in order.
pub struct Walk<'v> {
    view: &'v View,
    range: KeyRange,
    direction: Direction,
    /// What is still to be visited, the next one last.
    stack: Vec<Visit>,
}

/// Files before directories, so that a key comes before what is under it.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    File,
    Dir,
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Visit {
    ordered: Vec<u8>,
    kind: Kind,
    key: String,
}

impl<'v> Walk<'v> {
    /// A walk over a range.
    pub fn new(view: &'v View, range: &KeyRange, direction: Direction) -> Self {
        let mut walk = Self {
            view,
            range: range.clone(),
            direction,
            stack: Vec::new(),
        };
        let base = base(range);
        let Some(key) = Key::from_ordered(&base) else {
            return walk;
        };
        if !key.is_empty() && names::path_of(&key).is_none() {
            return walk;
        }
        // The root key's file is found like any other; only the place to start is named here.
        let visit = |kind| Visit {
            ordered: base.clone(),
            kind,
            key: key.to_string(),
        };
        let mut visits = vec![visit(Kind::File)];
        if base.is_empty() || walk.reaches_under(&base) {
            visits.push(visit(Kind::Dir));
        }
        walk.push(visits);
        walk
    }

    fn push(&mut self, mut visits: Vec<Visit>) {
        visits.sort_unstable();
        if self.direction == Direction::Forward {
            visits.reverse();
        }
        self.stack.extend(visits);
    }

    fn visit(&mut self, visit: Visit) -> Result<Option<(Vec<u8>, Key)>> {
        match visit.kind {
            Kind::File => {
                let key = Key::from(&*visit.key);
                let has_row = self.has_row(&visit.ordered)?;
                let wanted = !has_row && self.range.contains(&visit.ordered);
                Ok(wanted.then_some((visit.ordered, key)))
            }
            Kind::Dir => {
                let visits = self.list(&visit)?;
                self.push(visits);
                Ok(None)
            }
        }
    }

    fn list(&self, dir: &Visit) -> Result<Vec<Visit>> {
        let path = self.view.files().dir().join(&dir.key);
        let unreadable = |e| Error::io(format!("cannot list {}", path.display()), e);
        let listing = match fs::symlink_metadata(&path) {
            // The storage's own directory may be a link, none below.
            Ok(there) if dir.key.is_empty() || there.is_dir() => fs::read_dir(&path),
            Ok(_) => return Ok(Vec::new()),
            Err(e) => Err(e),
        };
        let listing = match listing {
            Err(e) if skip(&path, &e) => return Ok(Vec::new()),
            listing => listing.map_err(unreadable)?,
        };
        let mut visits = Vec::new();
        for entry in listing {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name();
            let Some((chunk, conflict)) = name.to_str().and_then(names::chunk_of) else {
                continue;
            };
            let kind = match entry.file_type() {
                Ok(kind) if kind.is_file() => Kind::File,
                Ok(kind) if kind.is_dir() && !conflict => Kind::Dir,
                Ok(_) => continue,
                Err(e) if e.kind() == Io::NotFound => continue,
                Err(e) => return Err(unreadable(e)),
            };
            let key = match &*dir.key {
                "" => chunk.to_owned(),
                parent => format!("{parent}/{chunk}"),
            };
            let key = Key::from(&*key);
            // The root's own file is visited from the start; what else has no path is not ours.
            if names::path_of(&key).is_none() {
                continue;
            }
            let ordered = key.ordered();
            let wanted = match kind {
                Kind::File => self.range.contains(&ordered) && !self.has_row(&ordered)?,
                Kind::Dir => self.reaches_under(&ordered),
            };
            if wanted {
                visits.push(Visit {
                    ordered,
                    kind,
                    key: key.to_string(),
                });
            }
        }
        visits.sort_unstable();
        // A file and its double with the suffix are one key.
        visits.dedup();
        Ok(visits)
    }

    /// Whether a key under this one can lie in the range.
    fn reaches_under(&self, ordered: &[u8]) -> bool {
        let mut first = ordered.to_vec();
        first.push(SEPARATOR);
        let mut behind = ordered.to_vec();
        behind.push(SEPARATOR + 1);
        self.range.from < behind && self.range.to.as_ref().is_none_or(|to| first < *to)
    }

    fn has_row(&self, ordered: &[u8]) -> Result<bool> {
        let row = self.view.reading().latest.get(ordered).map_err(failed)?;
        Ok(row.is_some())
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<(Vec<u8>, Key)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let visit = self.stack.pop()?;
            if let Some(found) = self.visit(visit).transpose() {
                return Some(found);
            }
        }
    }
}

/// The ordered key of the deepest directory that everything in the range is in or under.
fn base(range: &KeyRange) -> Vec<u8> {
    let Some(to) = &range.to else {
        return Vec::new();
    };
    let common = range
        .from
        .iter()
        .zip(to)
        .take_while(|(a, b)| a == b)
        .count();
    let common = &to[..common];
    // All of the range is this key or under it.
    let rest = &to[common.len()..];
    if rest == [SEPARATOR + 1] || rest == [0] || rest.first() == Some(&SEPARATOR) {
        return common.to_vec();
    }
    let end = common.iter().rposition(|byte| *byte == SEPARATOR);
    common[..end.unwrap_or(0)].to_vec()
}

/// Whether a directory that cannot be listed is passed over: it is gone, or not for us to read.
fn skip(path: &Path, error: &std::io::Error) -> bool {
    let denied = error.kind() == Io::PermissionDenied;
    if denied {
        let path = path.display();
        tracing::warn!(%path, %error, "files in this directory are not served");
    }
    denied || matches!(error.kind(), Io::NotFound | Io::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_starts_at_the_deepest_directory() {
        let under = |key| KeyRange::under(&Key::from(key));
        let only = |key| KeyRange::only(&Key::from(key));
        for (range, start) in [
            (KeyRange::all(), ""),
            (under("a/b"), "a/b"),
            (only("a/b"), "a/b"),
            (under("a/b").after(&Key::from("a/b/c")), "a/b"),
            (under("a").before(&Key::from("a/b/c")), "a"),
            (
                under("a")
                    .after(&Key::from("a/b/c"))
                    .before(&Key::from("a/b/d")),
                "a/b",
            ),
        ] {
            assert_eq!(base(&range), Key::from(start).ordered(), "{range:?}");
        }
    }
}
