//! What a segment has become whose entries went to other lanes. The new files have other names until all of
//! them are on the disk; then a file of this name says so, which is the one moment from which on the move has
//! happened, and is gone once each file has its place:
//!
//! ```text
//! 0    magic "WEIRMOVE", version u16 (1), lane u8 and id u64 of the segment, count u8
//! then of each that it has become: lane u8, id u64
//! end  checksum u32 of all before
//! ```

use std::{fs, io, path::Path};

use crate::{
    error::{JournalError, Result},
    files::{self, Files},
    options::Recovery,
    segment::{Unlike, list, list_of},
    varint::Cursor,
};

const MAGIC: [u8; 8] = *b"WEIRMOVE";

/// A segment: its lane and its id.
pub(crate) type Name = (u8, u64);

/// What has become of a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Move {
    pub(crate) from: Name,
    /// It may be among them: what stays of it.
    pub(crate) to: Vec<Name>,
}

impl Move {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = list(MAGIC);
        let name = |out: &mut Vec<u8>, (lane, id): Name| {
            out.push(lane);
            out.extend(id.to_le_bytes());
        };
        name(&mut out, self.from);
        out.push(u8::try_from(self.to.len()).unwrap_or(u8::MAX));
        for to in &self.to {
            name(&mut out, *to);
        }
        out.extend(crc32fast::hash(&out).to_le_bytes());
        out
    }

    /// The inverse.
    fn decode(bytes: &[u8]) -> Result<Self, Unlike> {
        let mut cursor = Cursor::new(list_of(bytes, MAGIC)?);
        let mut read = || {
            let name = |cursor: &mut Cursor| Some((cursor.byte()?, cursor.u64()?));
            let from = name(&mut cursor)?;
            let count = cursor.byte()?;
            let to: Option<Vec<Name>> = (0..count).map(|_| name(&mut cursor)).collect();
            Some(Self { from, to: to? })
        };
        read().ok_or(Unlike::Damaged)
    }

    /// Whether each new file is there, under either name.
    fn is_there(&self, dir: &Path) -> io::Result<bool> {
        for (lane, id) in self.to.iter().filter(|to| **to != self.from) {
            let name = files::name_of(*lane, *id);
            if !dir.join(&name).try_exists()? && !files::unfinished(dir, &name).try_exists()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gives each new file its name that has it not yet; what stays of the old segment last, which puts an
    /// end to the old file.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn put(&self, files: &dyn Files, dir: &Path) -> io::Result<()> {
        let (stays, new): (Vec<&Name>, Vec<&Name>) =
            self.to.iter().partition(|to| **to == self.from);
        for (lane, id) in new.into_iter().chain(stays) {
            let name = files::name_of(*lane, *id);
            if files::unfinished(dir, &name).try_exists()? {
                files::finish(files, dir, &name)?;
            }
        }
        Ok(())
    }

    /// Removes the old segment if nothing stays of it, and then the word that it was moved. Before and
    /// after, the directory is synced: this word must never be found beside other files than its own.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn clean_up(&self, files: &dyn Files, dir: &Path) -> io::Result<()> {
        if !self.to.contains(&self.from) {
            let (lane, id) = self.from;
            files.remove(&dir.join(files::name_of(lane, id)))?;
        }
        files.sync_dir(dir)?;
        files.remove(&dir.join(files::MOVED))?;
        files.sync_dir(dir)
    }
}

/// Ends a move that a crash has interrupted. One that had not begun to be is forgotten: its files are
/// unfinished ones.
///
/// # Errors
/// What the file system says.
pub(crate) fn finish(dir: &Path, files: &dyn Files, recovery: &mut Recovery) -> Result<()> {
    let path = dir.join(files::MOVED);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(JournalError::io(&path))?,
    };
    let why = match Move::decode(&bytes) {
        Ok(moved) if moved.is_there(dir).map_err(JournalError::io(&path))? => {
            let done = moved.put(files, dir);
            return done
                .and_then(|()| moved.clean_up(files, dir))
                .map_err(JournalError::io(&path));
        }
        Err(Unlike::Version(version)) => return Err(JournalError::Version { path, version }),
        // The old segment is all there is.
        Ok(_) => "speaks of files that are not there",
        // It was whole when it got its name, so the disk has lost it.
        Err(Unlike::Damaged) => "is damaged",
    };
    // What was moved and has no name yet is in the old segment still; what has one may be there twice, and is
    // stored once.
    let aside = format!("{}{}", files::MOVED, files::DAMAGED);
    recovery.repaired.push(format!(
        "what says where entries were moved {why}; it was set aside as {aside}"
    ));
    fs::rename(&path, dir.join(aside)).map_err(JournalError::io(&path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Disk;

    /// What it speaks of has to be there, under either name: else the old segment is all there is.
    #[test]
    fn the_old_one_stays_unless_all_that_it_has_become_is_there() {
        let rows: [(&[&str], bool); 4] = [
            (&[], false),
            (&["0-0000000000000009.journal"], false),
            (
                &[
                    "0-0000000000000009.journal",
                    "1-000000000000000a.journal.new",
                ],
                true,
            ),
            (
                &[
                    "0-0000000000000009.journal.new",
                    "1-000000000000000a.journal.new",
                ],
                true,
            ),
        ];
        for (names, is_done) in rows {
            let dir = tempfile::tempdir().unwrap();
            let moved = Move {
                from: (5, 7),
                to: vec![(0, 9), (1, 10)],
            };
            let old = dir.path().join(files::name_of(5, 7));
            fs::write(&old, "old").unwrap();
            fs::write(dir.path().join(files::MOVED), moved.encode()).unwrap();
            for name in names {
                fs::write(dir.path().join(name), "new").unwrap();
            }
            let mut recovery = Recovery::default();
            finish(dir.path(), &Disk, &mut recovery).unwrap();
            assert_eq!(old.exists(), !is_done, "{names:?}");
            assert_eq!(recovery.repaired.len(), usize::from(!is_done), "{names:?}");
            assert!(!dir.path().join(files::MOVED).exists(), "{names:?}");
        }
    }

    #[test]
    fn it_comes_back_whole_or_not_at_all() {
        let moved = Move {
            from: (5, 7),
            to: vec![(5, 7), (0, 9), (1, 10)],
        };
        let bytes = moved.encode();
        assert_eq!(Move::decode(&bytes), Ok(moved));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 4;
            assert_eq!(Move::decode(&bad), Err(Unlike::Damaged), "byte {at}");
            let cut = Move::decode(&bytes[..at]);
            assert_eq!(cut, Err(Unlike::Damaged), "cut at {at}");
        }
    }
}
