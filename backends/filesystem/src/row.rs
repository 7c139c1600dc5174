//! A row of the index: what is known of a key's latest record without its file.
//!
//! ```text
//! 0   format (1)
//! 1   place: 0 nowhere (a tombstone), 1 here, behind the record, 2 in the key's file
//! 2   file id: sequence of the batch u64, number in the batch u32
//! 14  payload: length u64, xxh3-128 u128
//! 38  file as last seen: inode u64, seconds i64, nanoseconds u32, length u64
//! 66  the record; its payload only if the place is here. Integers are big-endian.
//! ```

use std::{
    fs::Metadata,
    os::unix::fs::MetadataExt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use weir_backend_api::{Error, ErrorKind, Result};
use weir_core::{
    record::{Head, Record, RecordRef},
    value::Value,
};
use xxhash_rust::xxh3::xxh3_128;

const FORMAT: u8 = 1;
const FIXED: usize = 66;

/// Where the payload is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Nowhere: a tombstone.
    Nowhere,
    /// In the row.
    Here,
    /// In the key's file.
    File,
}

/// Names one content of one key's file, for ever: the batch that wrote it and its place there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FileId {
    /// The batch.
    pub seq: u64,
    /// The write in the batch.
    pub write: u32,
}

/// By what a file is recognised without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stat {
    inode: u64,
    seconds: i64,
    nanos: u32,
    len: u64,
}

/// What the index knows of a key, but for the record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Where the payload is.
    pub place: Place,
    /// Which content of the file it is.
    pub id: FileId,
    /// Bytes of the payload.
    pub len: u64,
    /// Hash of the payload.
    pub hash: u128,
    /// The file: of the payload, or what a tombstone could not remove.
    pub stat: Stat,
}

impl Stat {
    /// Of an open or named file.
    pub fn of(file: &Metadata) -> Self {
        Self {
            inode: file.ino(),
            seconds: file.mtime(),
            nanos: u32::try_from(file.mtime_nsec()).unwrap_or(0),
            len: file.len(),
        }
    }

    /// When it was modified, as NTP64 since the Unix epoch; 0 for before.
    pub fn ntp64(&self) -> u64 {
        let seconds = u64::try_from(self.seconds).unwrap_or(0);
        (seconds << 32) + (u64::from(self.nanos) << 32) / 1_000_000_000
    }
}

/// The time that a file of a version stamped `time` (NTP64) shows.
pub fn modified(time: u64) -> SystemTime {
    let nanos = ((time & 0xFFFF_FFFF) * 1_000_000_000) >> 32;
    UNIX_EPOCH + Duration::from_secs(time >> 32) + Duration::from_nanos(nanos)
}

impl Row {
    /// A tombstone's.
    pub fn tombstone(id: FileId) -> Self {
        Self {
            place: Place::Nowhere,
            id,
            len: 0,
            hash: 0,
            stat: Stat::default(),
        }
    }

    /// A live value's whose payload is in the row.
    pub fn here(id: FileId, payload: &[u8]) -> Self {
        Self {
            place: Place::Here,
            id,
            len: payload.len() as u64,
            hash: xxh3_128(payload),
            stat: Stat::default(),
        }
    }

    /// The same with the payload in the file.
    pub fn in_file(self, stat: Stat) -> Self {
        Self {
            place: Place::File,
            stat,
            ..self
        }
    }

    /// Whether a file holds this row's payload.
    pub fn is_payload(&self, content: &[u8]) -> bool {
        self.len == content.len() as u64 && self.hash == xxh3_128(content)
    }

    /// The bytes of the row and its record.
    pub fn encode(&self, record: RecordRef<'_>) -> Vec<u8> {
        let mut out = vec![FORMAT, self.place as u8];
        out.extend(self.id.seq.to_be_bytes());
        out.extend(self.id.write.to_be_bytes());
        out.extend(self.len.to_be_bytes());
        out.extend(self.hash.to_be_bytes());
        out.extend(self.stat.inode.to_be_bytes());
        out.extend(self.stat.seconds.to_be_bytes());
        out.extend(self.stat.nanos.to_be_bytes());
        out.extend(self.stat.len.to_be_bytes());
        let bare = match (self.place, record.value) {
            (Place::File, Some(value)) => Some(Value {
                payload: Bytes::new(),
                ..value.clone()
            }),
            _ => None,
        };
        RecordRef {
            value: bare.as_ref().or(record.value),
            ..record
        }
        .encode_into(&mut out);
        out
    }

    /// Reads a row, not its record.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let Some((fixed, _)) = bytes.split_first_chunk::<FIXED>() else {
            return Err(corrupt("a row is too short"));
        };
        let mut at = 2;
        let mut take = |len: usize| {
            let n = fixed[at..at + len]
                .iter()
                .fold(0u128, |n, byte| n << 8 | u128::from(*byte));
            at += len;
            n
        };
        // Each has as many bytes as its type: nothing is cut.
        #[expect(clippy::cast_possible_truncation, reason = "see above")]
        let row = Self {
            place: match (fixed[0], fixed[1]) {
                (FORMAT, 0) => Place::Nowhere,
                (FORMAT, 1) => Place::Here,
                (FORMAT, 2) => Place::File,
                _ => return Err(corrupt("a row has an unknown format: a newer Weir?")),
            },
            id: FileId {
                seq: take(8) as u64,
                write: take(4) as u32,
            },
            len: take(8) as u64,
            hash: take(16),
            stat: Stat {
                inode: take(8) as u64,
                seconds: take(8) as i64,
                nanos: take(4) as u32,
                len: take(8) as u64,
            },
        };
        Ok(row)
    }

    /// The versions of a row's record.
    pub fn head(bytes: &[u8]) -> Result<Head> {
        Head::decode(bytes.get(FIXED..).unwrap_or_default())
            .map_err(|e| corrupt("a row's record").because(e))
    }

    /// A row's record; its payload is empty if it is in the file.
    pub fn record(bytes: &[u8]) -> Result<Record> {
        let record = Bytes::copy_from_slice(bytes.get(FIXED..).unwrap_or_default());
        Record::decode(&record).map_err(|e| corrupt("a row's record").because(e))
    }
}

fn corrupt(message: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("corrupt index: {message}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_core::version::{Stamp, Version};

    use super::*;

    proptest! {
        #[test]
        fn comes_back_as_it_was(
            seq: u64, write: u32, inode: u64, seconds: i64, nanos: u32, len: u64,
            payload in proptest::collection::vec(any::<u8>(), 0..40), in_file: bool,
        ) {
            let value = Value::bytes(payload.clone());
            let head = Head::own(Version::put(Stamp::ZERO, 1));
            let record = RecordRef { head, value: Some(&value), merged: None };
            let mut row = Row::here(FileId { seq, write }, &payload);
            if in_file {
                row = row.in_file(Stat { inode, seconds, nanos, len });
            }
            let bytes = row.encode(record);
            prop_assert_eq!(Row::decode(&bytes).unwrap(), row);
            prop_assert_eq!(Row::head(&bytes).unwrap(), head);
            let expected = if in_file { Vec::new() } else { payload.clone() };
            prop_assert_eq!(&Row::record(&bytes).unwrap().value.unwrap().payload[..], &expected[..]);
            prop_assert!(row.is_payload(&payload));
        }
    }

    #[test]
    fn a_files_time_tells_the_versions_time() {
        let time = 1_700_000_000 << 32 | 0x8000_0000;
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("a")).unwrap();
        file.set_modified(modified(time)).unwrap();
        assert_eq!(Stat::of(&file.metadata().unwrap()).ntp64(), time);
    }
}
