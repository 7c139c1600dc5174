//! Where changes wait while their store cannot take them (S6): a durable file, in order.
//!
//! ```text
//! segment  = entry*                      files SPOOL/<first number, 16 hex digits>.spool
//! entry    = length u32, crc32 u32, bytes
//! bytes    = stamped u8 (0 or 1), KeptChange::encode
//! ```
//!
//! A batch is appended, then synced, then counted as kept. What a crash tore is cut off at the first
//! entry that does not check, which can only be one that nobody was promised. A segment is removed
//! when everything in it has been committed to the store; replaying one twice changes nothing.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use weir_core::change::{Change, KeptChange};

use super::offer::stamp_of;

/// A segment is closed when it has grown to this: what a replay holds in memory at once.
const SEGMENT_BYTES: u64 = 16 << 20;
const HEADER: usize = 8;

/// Changes in order, on disk.
pub(crate) struct Spool {
    dir: PathBuf,
    segments: Vec<Segment>,
    /// The last segment, open for appending; `None` after a failure, until the next one is begun.
    tail: Option<File>,
    next: u64,
    bytes_max: u64,
}

struct Segment {
    path: PathBuf,
    bytes: u64,
    changes: u64,
}

impl Spool {
    /// Opens the spool in `dir`, which need not exist, and cuts off what a crash tore. At most
    /// `bytes_max` bytes are kept.
    pub(crate) fn open(dir: &Path, bytes_max: u64) -> io::Result<Self> {
        let mut names = match fs::read_dir(dir) {
            Ok(entries) => entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<io::Result<Vec<_>>>()?,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        names.retain(|path| {
            path.extension()
                .is_some_and(|extension| extension == "spool")
        });
        names.sort();
        let mut spool = Self {
            dir: dir.to_owned(),
            segments: Vec::new(),
            tail: None,
            next: 0,
            bytes_max,
        };
        for path in names {
            let number = path.file_stem().and_then(|stem| stem.to_str());
            let number = number.and_then(|stem| u64::from_str_radix(stem, 16).ok());
            let Some(number) = number else { continue };
            spool.next = spool.next.max(number + 1);
            let (bytes, changes) = recover(&path)?;
            if changes == 0 {
                fs::remove_file(&path)?;
            } else {
                spool.segments.push(Segment {
                    path,
                    bytes,
                    changes,
                });
            }
        }
        Ok(spool)
    }

    /// Appends changes and syncs them. All of them are kept or, on an error, none is promised: the
    /// segment is cut back to what was there before.
    pub(crate) fn append<'a>(
        &mut self,
        ops: impl IntoIterator<Item = &'a KeptChange>,
    ) -> io::Result<()> {
        let mut buffer = Vec::new();
        let mut changes = 0;
        for op in ops {
            encode(op, &mut buffer)?;
            changes += 1;
        }
        if self.bytes() + buffer.len() as u64 > self.bytes_max {
            return Err(io::Error::new(
                ErrorKind::StorageFull,
                "the spool has reached its budget",
            ));
        }
        let full = self
            .segments
            .last()
            .is_none_or(|tail| tail.bytes >= SEGMENT_BYTES);
        if full || self.tail.is_none() {
            self.begin_segment()?;
        }
        let (Some(file), Some(segment)) = (&mut self.tail, self.segments.last_mut()) else {
            return Err(io::Error::other("the spool has no segment"));
        };
        match file.write_all(&buffer).and_then(|()| file.sync_data()) {
            Ok(()) => {
                segment.bytes += buffer.len() as u64;
                segment.changes += changes;
                Ok(())
            }
            Err(error) => {
                // After a failed sync nobody knows what the file holds behind this point. Cut it off
                // and never append to it again.
                let cut = file.set_len(segment.bytes).and_then(|()| file.sync_data());
                self.tail = None;
                if segment.changes == 0 && cut.is_ok() {
                    fs::remove_file(&segment.path)?;
                    self.segments.pop();
                }
                Err(error)
            }
        }
    }

    /// The changes of the oldest segment. They stay until [`Spool::drop_oldest`].
    pub(crate) fn oldest(&mut self) -> io::Result<Vec<KeptChange>> {
        let Some(segment) = self.segments.first() else {
            return Ok(Vec::new());
        };
        if self.segments.len() == 1 {
            // What is appended from here on goes into another segment.
            self.tail = None;
        }
        let mut changes = Vec::new();
        read(&segment.path, |op| changes.push(op))?;
        Ok(changes)
    }

    /// Removes the oldest segment: everything in it is in the store.
    pub(crate) fn drop_oldest(&mut self) -> io::Result<()> {
        if self.segments.is_empty() {
            return Ok(());
        }
        fs::remove_file(&self.segments[0].path)?;
        self.segments.remove(0);
        Ok(())
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// How many changes wait.
    pub(crate) fn changes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.changes).sum()
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let path = self.dir.join(format!("{:016x}.spool", self.next));
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(&path)?;
        File::open(&self.dir)?.sync_all()?;
        self.next += 1;
        self.segments.push(Segment {
            path,
            bytes: 0,
            changes: 0,
        });
        self.tail = Some(file);
        Ok(())
    }
}

fn encode(op: &KeptChange, buffer: &mut Vec<u8>) -> io::Result<()> {
    let start = buffer.len();
    buffer.extend([0; HEADER]);
    buffer.push(u8::from(stamp_of(op).is_some()));
    buffer.extend(op.encode());
    let bytes = &buffer[start + HEADER..];
    let len = u32::try_from(bytes.len()).map_err(|_| io::Error::other("a value over 4 GiB"))?;
    let crc = crc32fast::hash(bytes);
    buffer[start..start + 4].copy_from_slice(&len.to_be_bytes());
    buffer[start + 4..start + HEADER].copy_from_slice(&crc.to_be_bytes());
    Ok(())
}

/// Reads a segment up to the first entry that does not check, and cuts the file there.
fn recover(path: &Path) -> io::Result<(u64, u64)> {
    let mut changes = 0;
    let good = read(path, |_| changes += 1)?;
    let file = OpenOptions::new().write(true).open(path)?;
    if file.metadata()?.len() > good {
        tracing::warn!(path = %path.display(), good, "spool: cut off an entry that a crash tore");
        file.set_len(good)?;
        file.sync_data()?;
    }
    Ok((good, changes))
}

/// Calls `each` for every entry that checks; answers where the last of them ends. An entry that does
/// not check but is followed by some that do was torn by the disk, not by a crash: it is told.
fn read(path: &Path, mut each: impl FnMut(KeptChange)) -> io::Result<u64> {
    let mut file = BufReader::new(File::open(path)?);
    let len = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    let (mut at, mut good, mut broken) = (0, 0, 0u64);
    let mut header = [0; HEADER];
    while at + HEADER as u64 <= len {
        file.read_exact(&mut header)?;
        let [a, b, c, d, crc @ ..] = header;
        let size = u64::from(u32::from_be_bytes([a, b, c, d]));
        at += HEADER as u64 + size;
        if at > len {
            break;
        }
        let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        file.read_exact(&mut bytes)?;
        if crc32fast::hash(&bytes) != u32::from_be_bytes(crc) {
            broken += 1;
            continue;
        }
        let Some(op) = decode(bytes) else {
            broken += 1;
            continue;
        };
        each(op);
        if broken > 0 {
            tracing::error!(path = %path.display(), broken, "spool: entries cannot be read and are lost");
            broken = 0;
        }
        good = at;
    }
    Ok(good)
}

fn decode(bytes: Vec<u8>) -> Option<KeptChange> {
    let bytes = Bytes::from(bytes);
    let stamped = *bytes.first()? == 1;
    let mut op = KeptChange::decode(&bytes.slice(1..))?;
    if !stamped {
        match &mut op {
            KeptChange::Key(Change { stamp, .. }) => *stamp = None,
            KeptChange::Wildcard(change) => change.stamp = None,
        }
    }
    Some(op)
}

#[cfg(test)]
mod tests {
    use weir_core::{key::Key, value::Value, version::Stamp};

    use super::*;

    fn change(number: u64) -> KeptChange {
        KeptChange::Key(Change {
            key: Key::from(format!("a/{number}").as_str()),
            // Every third one is an unstamped delete.
            stamp: (!number.is_multiple_of(3)).then_some(Stamp {
                time: number,
                id: [1; 16],
            }),
            value: (!number.is_multiple_of(3)).then(|| Value::bytes(vec![b'x'; 100])),
        })
    }

    fn all(spool: &mut Spool) -> Vec<KeptChange> {
        let mut changes = Vec::new();
        while !spool.is_empty() {
            changes.extend(spool.oldest().unwrap());
            spool.drop_oldest().unwrap();
        }
        changes
    }

    #[test]
    fn gives_back_in_order_what_it_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let changes: Vec<_> = (0..100).map(change).collect();
        let mut spool = Spool::open(dir.path(), u64::MAX).unwrap();
        for batch in changes.chunks(7) {
            spool.append(batch).unwrap();
        }
        drop(spool);
        let mut spool = Spool::open(dir.path(), u64::MAX).unwrap();
        assert_eq!(spool.changes(), 100);
        // What comes while the oldest segment is replayed is not lost with it.
        let first = spool.oldest().unwrap();
        spool.append([&change(100)]).unwrap();
        spool.drop_oldest().unwrap();
        assert_eq!(first, changes);
        assert_eq!(all(&mut spool), [change(100)]);
        assert_eq!(Spool::open(dir.path(), u64::MAX).unwrap().changes(), 0);
    }

    #[test]
    fn a_torn_tail_costs_what_nobody_was_promised() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), u64::MAX).unwrap();
        spool.append(&[change(1), change(2)]).unwrap();
        let path = spool.segments[0].path.clone();
        let promised = fs::metadata(&path).unwrap().len();
        spool.append(&[change(4)]).unwrap();
        drop(spool);
        let whole = fs::read(&path).unwrap();
        for cut in usize::try_from(promised).unwrap()..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut spool = Spool::open(dir.path(), u64::MAX).unwrap();
            assert_eq!(
                spool.oldest().unwrap(),
                [change(1), change(2)],
                "cut at {cut}"
            );
        }
        for at in usize::try_from(promised).unwrap()..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&path, &flipped).unwrap();
            let mut spool = Spool::open(dir.path(), u64::MAX).unwrap();
            assert_eq!(
                spool.oldest().unwrap(),
                [change(1), change(2)],
                "flipped at {at}"
            );
        }
    }

    #[test]
    fn its_budget_is_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), 500).unwrap();
        spool.append(&[change(1), change(2)]).unwrap();
        let error = spool.append(&[change(4), change(5)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert_eq!(all(&mut spool), [change(1), change(2)]);
    }
}
