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

use bytes::Bytes;

use crate::{
    error::{JournalError, Result},
    files::{self, Files},
    options::Recovery,
    varint::Cursor,
};

const MAGIC: [u8; 10] = *b"WEIRMOVE\x01\x00";

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
        let mut out = MAGIC.to_vec();
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

    /// The inverse; `None` if the bytes make no sense.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut cursor = Cursor::new(Bytes::copy_from_slice(body.strip_prefix(&MAGIC)?));
        let mut name = || Some((cursor.byte()?, cursor.u64()?));
        let from = name()?;
        let count = cursor.byte()?;
        let mut name = || Some((cursor.byte()?, cursor.u64()?));
        let to: Option<Vec<Name>> = (0..count).map(|_| name()).collect();
        Some(Self { from, to: to? })
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
        files::sync_dir(dir)?;
        files.remove(&dir.join(files::MOVED))?;
        files::sync_dir(dir)
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
    if let Some(moved) = Move::decode(&bytes) {
        let done = moved.put(files, dir);
        return done
            .and_then(|()| moved.clean_up(files, dir))
            .map_err(JournalError::io(&path));
    }
    // It was whole when it got its name, so the disk has lost it. What was moved and has no name yet is in
    // the old segment still; what has one may be there twice, and is stored once.
    let aside = format!("{}{}", files::MOVED, files::DAMAGED);
    recovery.repaired.push(format!(
        "what says where entries were moved is damaged; it was set aside as {aside}"
    ));
    fs::rename(&path, dir.join(aside)).map_err(JournalError::io(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_whole_or_not_at_all() {
        let moved = Move {
            from: (5, 7),
            to: vec![(5, 7), (0, 9), (1, 10)],
        };
        let bytes = moved.encode();
        assert_eq!(Move::decode(&bytes), Some(moved));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 4;
            assert_eq!(Move::decode(&bad), None, "byte {at}");
            assert_eq!(Move::decode(&bytes[..at]), None, "cut at {at}");
        }
    }
}
