//! Where changes wait while their store cannot take them (S6): a durable file, in order.
//!
//! ```text
//! segment  = entry*                      files SPOOL/NUMBER-BEGUN.spool, 16 hex digits each
//! entry    = length u32, crc32 u32, bytes
//! bytes    = stamped u8 (0 or 1), KeptChange::encode
//! ```
//!
//! A batch is appended, then synced, then counted as kept. What a crash tore is cut off at the first
//! entry that does not check, which can only be one that nobody was promised. A segment is removed
//! when everything in it has been committed to the store.
//!
//! No change may be replayed twice: a delete without a stamp would delete what was put behind it. So
//! each batch that is replayed takes a [`Mark`] with it into the store, and the next try begins behind
//! that. A mark is about one segment and no other: numbers begin at 0 again when a router starts with
//! an empty spool, so the time at which a segment was begun is in its name too.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use weir_core::change::{Change, KeptChange, Table, Write as Row};

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
    /// The file's name without its extension.
    name: Arc<str>,
    path: PathBuf,
    bytes: u64,
    changes: u64,
    /// Its file is removed, though perhaps not from the disk yet.
    is_removed: bool,
}

/// Everything up to here has been replayed: in the store, a row of [`Table::System`] that is committed
/// with what it speaks of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    segment: Arc<str>,
    /// Where the last change that was replayed ends in the segment.
    end: u64,
}

impl Mark {
    /// The key of its row.
    pub(crate) const ROW: &'static [u8] = b"spool";

    /// The write that remembers it: where it ends (u64), and the segment's name.
    pub(crate) fn row(&self) -> Row<'static> {
        let mut value = self.end.to_be_bytes().to_vec();
        value.extend_from_slice(self.segment.as_bytes());
        Row::Row {
            table: Table::System,
            key: Self::ROW.to_vec(),
            value: Some(value),
        }
    }

    /// What [`Mark::row`] wrote; nothing if it is something else.
    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        let (end, segment) = value.split_first_chunk()?;
        Some(Self {
            segment: std::str::from_utf8(segment).ok()?.into(),
            end: u64::from_be_bytes(*end),
        })
    }
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
            let Some(name) = path.file_stem().and_then(|stem| stem.to_str()) else {
                continue;
            };
            // What an older version has written is named by its number alone.
            let number = name.split('-').next().unwrap_or_default();
            let Ok(number) = u64::from_str_radix(number, 16) else {
                continue;
            };
            let name = name.into();
            spool.next = spool.next.max(number + 1);
            let (bytes, changes) = recover(&path)?;
            if changes == 0 {
                fs::remove_file(&path)?;
            } else {
                spool.segments.push(Segment {
                    name,
                    path,
                    bytes,
                    changes,
                    is_removed: false,
                });
            }
        }
        Ok(spool)
    }

    /// Removes the spool in `dir`, and the directory unless somebody keeps something else there.
    pub(crate) fn remove(dir: &Path) -> io::Result<()> {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|it| it == "spool") {
                fs::remove_file(path)?;
            }
        }
        File::open(dir)?.sync_all()?;
        match fs::remove_dir(dir) {
            Err(error) if error.kind() != ErrorKind::DirectoryNotEmpty => Err(error),
            _ => Ok(()),
        }
    }

    /// Appends changes and syncs them. All of them are kept or, on an error, none is promised: the
    /// segment is cut back to what was there before. `now` is NTP64.
    pub(crate) fn append<'a>(
        &mut self,
        now: u64,
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
            self.begin_segment(now)?;
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

    /// The changes of the oldest segment that are still to be replayed, each with the mark that says it
    /// was; `replayed` is the last mark that the store has. They stay until [`Spool::drop_oldest`].
    pub(crate) fn oldest(
        &mut self,
        replayed: Option<&Mark>,
    ) -> io::Result<Vec<(KeptChange, Mark)>> {
        let Some(segment) = self.segments.first() else {
            return Ok(Vec::new());
        };
        if segment.is_removed {
            return Ok(Vec::new());
        }
        if self.segments.len() == 1 {
            // What is appended from here on goes into another segment.
            self.tail = None;
        }
        let name = &segment.name;
        let from = replayed.filter(|mark| mark.segment == *name);
        let mut changes = Vec::new();
        read(&segment.path, from.map_or(0, |mark| mark.end), |op, end| {
            let segment = Arc::clone(name);
            changes.push((op, Mark { segment, end }));
        })?;
        Ok(changes)
    }

    /// Removes the oldest segment: everything in it is in the store. After an error it is to be called
    /// again before another segment is replayed, whose marks take the place of this one's: if the disk
    /// forgot that this one was removed, nobody would know any more that it was replayed.
    pub(crate) fn drop_oldest(&mut self) -> io::Result<()> {
        let Some(segment) = self.segments.first_mut() else {
            return Ok(());
        };
        if !segment.is_removed {
            fs::remove_file(&segment.path)?;
            segment.is_removed = true;
        }
        File::open(&self.dir)?.sync_all()?;
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

    fn begin_segment(&mut self, now: u64) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let name = format!("{:016x}-{now:016x}", self.next);
        let path = self.dir.join(format!("{name}.spool"));
        // Whatever fails from here on, the next try is about another file.
        self.next += 1;
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(&path)?;
        if let Err(error) = File::open(&self.dir).and_then(|dir| dir.sync_all()) {
            // It is empty; if it stays, the next start removes it.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        self.segments.push(Segment {
            name: name.into(),
            path,
            bytes: 0,
            changes: 0,
            is_removed: false,
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
    let good = read(path, 0, |_, _| changes += 1)?;
    let file = OpenOptions::new().write(true).open(path)?;
    if file.metadata()?.len() > good {
        tracing::warn!(path = %path.display(), good, "spool: cut off an entry that a crash tore");
        file.set_len(good)?;
        file.sync_data()?;
    }
    Ok((good, changes))
}

/// Calls `each` for every entry from `from` on that checks, with its end; answers where the last of
/// them ends. An entry that does not check but is followed by some that do was torn by the disk, not by
/// a crash: it is told.
fn read(path: &Path, from: u64, mut each: impl FnMut(KeptChange, u64)) -> io::Result<u64> {
    let mut file = BufReader::new(File::open(path)?);
    let len = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(from))?;
    let (mut at, mut good, mut broken) = (from, from, 0u64);
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
        each(op, at);
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

    fn ops(spool: &mut Spool) -> Vec<KeptChange> {
        let changes = spool.oldest(None).unwrap();
        changes.into_iter().map(|(op, _)| op).collect()
    }

    fn all(spool: &mut Spool) -> Vec<KeptChange> {
        let mut changes = Vec::new();
        while !spool.is_empty() {
            changes.extend(ops(spool));
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
            spool.append(1, batch).unwrap();
        }
        drop(spool);
        let mut spool = Spool::open(dir.path(), u64::MAX).unwrap();
        assert_eq!(spool.changes(), 100);
        // What comes while the oldest segment is replayed is not lost with it.
        let first = ops(&mut spool);
        spool.append(1, [&change(100)]).unwrap();
        spool.drop_oldest().unwrap();
        assert_eq!(first, changes);
        assert_eq!(all(&mut spool), [change(100)]);
        assert_eq!(Spool::open(dir.path(), u64::MAX).unwrap().changes(), 0);
    }

    #[test]
    fn a_torn_tail_costs_what_nobody_was_promised() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), u64::MAX).unwrap();
        spool.append(1, &[change(1), change(2)]).unwrap();
        let path = spool.segments[0].path.clone();
        let promised = fs::metadata(&path).unwrap().len();
        spool.append(1, &[change(4)]).unwrap();
        drop(spool);
        let whole = fs::read(&path).unwrap();
        for cut in usize::try_from(promised).unwrap()..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut spool = Spool::open(dir.path(), u64::MAX).unwrap();
            assert_eq!(ops(&mut spool), [change(1), change(2)], "cut at {cut}");
        }
        for at in usize::try_from(promised).unwrap()..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&path, &flipped).unwrap();
            let mut spool = Spool::open(dir.path(), u64::MAX).unwrap();
            assert_eq!(ops(&mut spool), [change(1), change(2)], "flipped at {at}");
        }
    }

    #[test]
    fn it_goes_on_behind_the_mark_and_in_no_other_segment() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), u64::MAX).unwrap();
        spool.append(1, &[change(0), change(1), change(2)]).unwrap();
        let marks = spool.oldest(None).unwrap();
        let [mark, .., last] = &marks[..] else {
            panic!("{marks:?}")
        };
        let Row::Row { value, .. } = mark.1.row() else {
            panic!("{mark:?}")
        };
        let mark = Mark::decode(&value.unwrap()).unwrap();
        drop(spool);
        let mut spool = Spool::open(dir.path(), u64::MAX).unwrap();
        assert_eq!(spool.oldest(Some(&mark)).unwrap(), marks[1..]);
        assert_eq!(spool.oldest(Some(&last.1)).unwrap(), []);
        spool.drop_oldest().unwrap();
        drop(spool);
        // After a restart the first segment has the same number, and its changes are others.
        let mut spool = Spool::open(dir.path(), u64::MAX).unwrap();
        spool.append(2, &[change(4)]).unwrap();
        assert_eq!(spool.oldest(Some(&last.1)).unwrap().len(), 1);
    }

    #[test]
    fn a_segment_that_could_not_be_begun_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), u64::MAX).unwrap();
        let name = format!("{:016x}-{:016x}.spool", 0, 1);
        fs::write(dir.path().join(name), "").unwrap();
        spool.append(1, &[change(1)]).unwrap_err();
        spool.append(1, &[change(2)]).unwrap();
        assert_eq!(all(&mut spool), [change(2)]);
    }

    #[test]
    fn its_budget_is_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), 500).unwrap();
        spool.append(1, &[change(1), change(2)]).unwrap();
        let error = spool.append(1, &[change(4), change(5)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert_eq!(all(&mut spool), [change(1), change(2)]);
    }
}
