//! The log: batches that are committed, until the index and the files are safe without it.
//!
//! ```text
//! frame: body length u64, xxh3-64 of all that follows, sequence u64, body. Integers are big-endian.
//! body:  number of writes u32, then for each: tag u8 and its fields (see `encode`).
//! ```
//!
//! A batch is committed when its frame is whole: a frame that was torn by a crash was never
//! acknowledged, and ends the log.

use std::{
    fs::{File, OpenOptions},
    io::{BufReader, Read},
    os::unix::fs::FileExt,
    path::Path,
};

use bytes::Bytes;
use weir_backend_api::{Error, ErrorKind, Result};
use weir_core::{
    change::{Table, Write},
    key::Key,
    record::{Record, RecordRef},
    version::Version,
};
use xxhash_rust::xxh3::xxh3_64;

const HEADER: usize = 16;

/// The open log, at its end.
#[derive(Debug)]
pub struct Log {
    file: File,
    bytes: u64,
}

/// Frames, in order, up to the first that is not whole.
#[derive(Debug)]
pub struct Frames {
    input: BufReader<File>,
    left: u64,
    /// Sequence of the frame read last.
    last: Option<u64>,
    end: End,
}

/// How a log ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// With a whole frame.
    Whole,
    /// With a frame that is cut off, as a crash leaves it: it was never acknowledged.
    Torn,
    /// With a frame of full length that is not what was written: what follows may have been
    /// acknowledged, and cannot be trusted.
    Damaged,
}

/// A write that owns what it writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Owned {
    /// [`Write::Latest`].
    Latest(Key, Record),
    /// [`Write::ForgetLatest`].
    ForgetLatest(Key),
    /// [`Write::History`].
    History(Key, Record),
    /// [`Write::ForgetHistory`].
    ForgetHistory(Key, Version),
    /// [`Write::Row`].
    Row(Table, Vec<u8>, Option<Vec<u8>>),
}

impl Log {
    /// Opens the log, or starts one.
    pub fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|e| Error::io(format!("cannot open {}", path.display()), e))?;
        let bytes = file
            .metadata()
            .map_err(|e| Error::io(format!("cannot read {}", path.display()), e))?
            .len();
        Ok(Self { file, bytes })
    }

    /// What it holds.
    pub fn frames(&self, path: &Path) -> Result<Frames> {
        let file = File::open(path)
            .map_err(|e| Error::io(format!("cannot open {}", path.display()), e))?;
        Ok(Frames {
            input: BufReader::with_capacity(1 << 16, file),
            left: self.bytes,
            last: None,
            end: End::Whole,
        })
    }

    /// Its length in bytes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends a batch, whole or not at all, and syncs it if asked.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] or [`ErrorKind::Unavailable`] if nothing was appended,
    /// [`ErrorKind::Poisoned`] if that is not sure.
    pub fn append(&mut self, seq: u64, batch: &[Write<'_>], sync: bool) -> Result<()> {
        let frame = encode(seq, batch);
        if let Err(error) = self.file.write_all_at(&frame, self.bytes) {
            self.file
                .set_len(self.bytes)
                .map_err(|e| poisoned("cannot cut a torn batch off the log", e))?;
            return Err(Error::io("cannot write to the log", error));
        }
        self.bytes += frame.len() as u64;
        if sync { self.sync() } else { Ok(()) }
    }

    /// Syncs what was appended.
    pub fn sync(&self) -> Result<()> {
        self.file
            .sync_data()
            .map_err(|e| poisoned("cannot sync the log", e))
    }

    /// Empties it: everything in it is safe elsewhere.
    pub fn cut(&mut self) -> Result<()> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.sync_all())
            .map_err(|e| poisoned("cannot cut the log", e))?;
        self.bytes = 0;
        Ok(())
    }
}

fn poisoned(message: &str, source: std::io::Error) -> Error {
    Error::new(ErrorKind::Poisoned, message).because(source)
}

impl Iterator for Frames {
    type Item = Result<(u64, Vec<Owned>)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

impl Frames {
    /// How the log ends, once all frames are read.
    pub const fn end(&self) -> End {
        self.end
    }

    fn read(&mut self) -> Result<Option<(u64, Vec<Owned>)>> {
        let read = |e| Error::io("cannot read the log", e);
        let Some(left) = self.left.checked_sub(HEADER as u64) else {
            if self.left > 0 {
                self.end = End::Torn;
            }
            return Ok(None);
        };
        let mut header = [0; HEADER];
        self.input.read_exact(&mut header).map_err(read)?;
        let (len, hash) = header.split_at(8);
        let (len, hash) = (be_u64(len), be_u64(hash));
        if len < 8 || len > left {
            self.end = End::Torn;
            return Ok(None);
        }
        let mut body = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.input.read_exact(&mut body).map_err(read)?;
        self.left = left - len;
        let seq = be_u64(&body[..8]);
        // A frame of an older life of the log, behind the newer ones, does not follow on.
        if xxh3_64(&body) != hash || self.last.is_some_and(|last| seq != last + 1) {
            self.end = End::Damaged;
            return Ok(None);
        }
        self.last = Some(seq);
        let body = Bytes::from(body).slice(8..);
        let writes = decode(body).ok_or_else(|| {
            let message = format!("batch {seq} in the log is of an unknown format: a newer Weir?");
            Error::new(ErrorKind::Corrupt, message)
        })?;
        Ok(Some((seq, writes)))
    }
}

fn be_u64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

fn encode(seq: u64, batch: &[Write<'_>]) -> Vec<u8> {
    let mut out = vec![0; HEADER];
    out.extend(seq.to_be_bytes());
    out.extend(u32::try_from(batch.len()).unwrap_or(u32::MAX).to_be_bytes());
    for write in batch {
        match write {
            Write::Latest { key, record } => {
                out.push(1);
                put_bytes(&mut out, key.as_bytes());
                put_record(&mut out, *record);
            }
            Write::ForgetLatest { key } => {
                out.push(2);
                put_bytes(&mut out, key.as_bytes());
            }
            Write::History { key, record } => {
                out.push(3);
                put_bytes(&mut out, key.as_bytes());
                put_record(&mut out, *record);
            }
            Write::ForgetHistory { key, version } => {
                out.push(4);
                put_bytes(&mut out, key.as_bytes());
                out.extend(version.to_bytes());
            }
            Write::Row { table, key, value } => {
                out.push(if value.is_some() { 5 } else { 6 });
                out.push(*table as u8);
                put_bytes(&mut out, key);
                if let Some(value) = value {
                    put_bytes(&mut out, value);
                }
            }
        }
    }
    let len = (out.len() - HEADER) as u64;
    let hash = xxh3_64(&out[HEADER..]);
    out[..8].copy_from_slice(&len.to_be_bytes());
    out[8..HEADER].copy_from_slice(&hash.to_be_bytes());
    out
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn put_record(out: &mut Vec<u8>, record: RecordRef<'_>) {
    let at = out.len();
    out.extend([0; 8]);
    record.encode_into(out);
    let len = (out.len() - at - 8) as u64;
    out[at..at + 8].copy_from_slice(&len.to_be_bytes());
}

fn decode(mut body: Bytes) -> Option<Vec<Owned>> {
    let count = take(&mut body, 4).map(|n| be_u64(&n))?;
    let mut writes = Vec::new();
    for _ in 0..count {
        let tag = take(&mut body, 1)?[0];
        writes.push(match tag {
            1 => Owned::Latest(take_key(&mut body)?, take_record(&mut body)?),
            2 => Owned::ForgetLatest(take_key(&mut body)?),
            3 => Owned::History(take_key(&mut body)?, take_record(&mut body)?),
            4 => {
                let key = take_key(&mut body)?;
                let version = Version::from_bytes(&take(&mut body, Version::LEN)?)?;
                Owned::ForgetHistory(key, version)
            }
            5 | 6 => {
                let number = take(&mut body, 1)?[0];
                let table = Table::ALL.into_iter().find(|t| *t as u8 == number)?;
                let key = take_bytes(&mut body)?.to_vec();
                let value = if tag == 5 {
                    Some(take_bytes(&mut body)?.to_vec())
                } else {
                    None
                };
                Owned::Row(table, key, value)
            }
            _ => return None,
        });
    }
    Some(writes)
}

fn take(body: &mut Bytes, len: usize) -> Option<Bytes> {
    (len <= body.len()).then(|| body.split_to(len))
}

fn take_bytes(body: &mut Bytes) -> Option<Bytes> {
    let len = be_u64(&take(body, 8)?);
    take(body, usize::try_from(len).ok()?)
}

fn take_key(body: &mut Bytes) -> Option<Key> {
    let bytes = take_bytes(body)?;
    Some(Key::from(std::str::from_utf8(&bytes).ok()?))
}

fn take_record(body: &mut Bytes) -> Option<Record> {
    Record::decode(&take_bytes(body)?).ok()
}

impl Owned {
    /// Borrowed, to be written.
    pub fn as_write(&self) -> Write<'_> {
        match self {
            Self::Latest(key, record) => Write::Latest {
                key,
                record: record.as_ref(),
            },
            Self::ForgetLatest(key) => Write::ForgetLatest { key },
            Self::History(key, record) => Write::History {
                key,
                record: record.as_ref(),
            },
            Self::ForgetHistory(key, version) => Write::ForgetHistory {
                key,
                version: *version,
            },
            Self::Row(table, key, value) => Write::Row {
                table: *table,
                key: key.clone(),
                value: value.clone(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_core::{value::Value, version::Stamp};

    use super::*;

    fn writes() -> Vec<Owned> {
        let version = Version::put(
            Stamp {
                time: 7,
                id: [1; 16],
            },
            9,
        );
        let record = |value| Record::own(version, value);
        vec![
            Owned::Latest(Key::from("a/b"), record(Some(Value::bytes("payload")))),
            Owned::ForgetLatest(Key::root()),
            Owned::History(Key::from("c"), record(None)),
            Owned::ForgetHistory(Key::from("c"), version),
            Owned::Row(Table::Jobs, vec![1], Some(vec![2, 3])),
            Owned::Row(Table::System, vec![], None),
        ]
    }

    #[test]
    fn a_log_cut_anywhere_gives_back_the_whole_frames_before_the_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::open(&path).unwrap();
        let owned = writes();
        let batch: Vec<_> = owned.iter().map(Owned::as_write).collect();
        let mut ends = vec![0];
        for seq in 5..8 {
            log.append(seq, &batch, false).unwrap();
            ends.push(log.bytes());
        }
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let log = Log::open(&path).unwrap();
            let mut frames = log.frames(&path).unwrap();
            let read: Vec<_> = frames.by_ref().map(Result::unwrap).collect();
            let is_whole = ends.contains(&(cut as u64));
            let end = if is_whole { End::Whole } else { End::Torn };
            assert_eq!(frames.end(), end, "cut at {cut}");
            let frames = read;
            let expected = ends.iter().filter(|end| **end <= cut as u64).count() - 1;
            assert_eq!(frames.len(), expected, "cut at {cut}");
            for (frame, seq) in frames.iter().zip(5..) {
                assert_eq!(frame, &(seq, owned.clone()));
            }
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::open(&path).unwrap();
        let owned = writes();
        let batch: Vec<_> = owned.iter().map(Owned::as_write).collect();
        log.append(1, &batch, true).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            let log = Log::open(&path).unwrap();
            let mut frames = log.frames(&path).unwrap();
            assert!(frames.next().is_none(), "flipped at {at}");
            assert_ne!(frames.end(), End::Whole, "flipped at {at}");
        }
    }
}
