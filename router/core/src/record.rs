//! What a store holds for a key, and its bytes.
//!
//! ```text
//! 0      format (1)
//! 1      flags: 1 live, 2 folded, 4 schema, 8 attachment, 16 merged
//! 2      own version (33 bytes, see Version::to_bytes)
//! 35     folded version (33 bytes, if flagged)
//! then, if merged: length u16 of what follows, revision u64, vector (see Vector::encode_into)
//! then, if live: encoding id u16, [schema length u8, schema], [attachment length u32, attachment],
//!        payload to the end. Integers are big-endian.
//! ```

use bytes::Bytes;
use thiserror::Error;

use crate::{
    value::{Encoding, Value},
    vector::Vector,
    version::Version,
};

const FORMAT: u8 = 1;
const LIVE: u8 = 1;
const FOLDED: u8 = 2;
const SCHEMA: u8 = 4;
const ATTACHMENT: u8 = 8;
const MERGED: u8 = 16;
const FIXED: usize = 2 + Version::LEN;

/// The versions of a record, without its value: all that admission needs to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// The key's own latest change.
    pub own: Version,
    /// The wildcard operation whose effect on that change is what the record holds now, if one
    /// has been folded in.
    pub folded: Option<Version>,
}

/// What a record has merged, if it is not just its own change (S13).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Merged {
    /// The revision of the resolver that made it; 0 for the native rule.
    pub revision: u64,
    /// Every change whose part in it is done, its own included.
    pub vector: Vector,
}

/// What a store holds for a key. `value` is `None` for a tombstone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Its versions.
    pub head: Head,
    /// The value, or nothing if the key is deleted.
    pub value: Option<Value>,
    /// What it has merged; nothing if that is its own change alone.
    pub merged: Option<Box<Merged>>,
}

/// A record to be written, borrowing what it is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordRef<'a> {
    /// Its versions.
    pub head: Head,
    /// The value, or nothing for a tombstone.
    pub value: Option<&'a Value>,
    /// What it has merged; nothing if that is its own change alone.
    pub merged: Option<&'a Merged>,
}

/// The bytes of a record make no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("corrupt record: {0}")]
pub struct CorruptRecord(&'static str);

impl Head {
    /// A change that nothing was folded into.
    #[must_use]
    pub const fn own(own: Version) -> Self {
        Self { own, folded: None }
    }

    /// The version of what the record holds.
    #[must_use]
    pub fn effective(&self) -> Version {
        self.folded.unwrap_or(self.own)
    }

    /// Reads the head alone from a record's bytes; costs nothing but the copy of two versions.
    ///
    /// # Errors
    /// If the bytes are not a record of a known format.
    pub fn decode(bytes: &[u8]) -> Result<Self, CorruptRecord> {
        Ok(split_head(bytes)?.0)
    }
}

impl Record {
    /// Borrowed, to be written.
    #[must_use]
    pub fn as_ref(&self) -> RecordRef<'_> {
        RecordRef {
            head: self.head,
            value: self.value.as_ref(),
            merged: self.merged.as_deref(),
        }
    }

    /// A change that has merged nothing but itself.
    #[must_use]
    pub const fn own(version: Version, value: Option<Value>) -> Self {
        Self {
            head: Head::own(version),
            value,
            merged: None,
        }
    }

    /// Reads a record; the value's parts are slices of `bytes`.
    ///
    /// # Errors
    /// If the bytes are not a record of a known format.
    pub fn decode(bytes: &Bytes) -> Result<Self, CorruptRecord> {
        let (head, flags, at) = split_head(bytes)?;
        let mut rest = bytes.slice(at..);
        let mut take = |len: usize| {
            if rest.len() < len {
                Err(CorruptRecord("truncated"))
            } else {
                Ok(rest.split_to(len))
            }
        };
        let merged = if flags & MERGED == 0 {
            None
        } else {
            let len = take(2)?;
            let len = u16::from_be_bytes([len[0], len[1]]);
            let merged = Merged::decode(&take(usize::from(len))?);
            Some(Box::new(merged.ok_or(CorruptRecord("vector"))?))
        };
        if flags & LIVE == 0 {
            return Ok(Self {
                head,
                value: None,
                merged,
            });
        }
        let id = take(2)?;
        let schema = if flags & SCHEMA == 0 {
            None
        } else {
            let len = usize::from(take(1)?[0]);
            Some(take(len)?)
        };
        let attachment = if flags & ATTACHMENT == 0 {
            None
        } else {
            let len = take(4)?;
            let len = u32::from_be_bytes([len[0], len[1], len[2], len[3]]);
            Some(take(
                usize::try_from(len).map_err(|_| CorruptRecord("length"))?,
            )?)
        };
        let encoding = Encoding {
            id: u16::from_be_bytes([id[0], id[1]]),
            schema,
        };
        Ok(Self {
            head,
            value: Some(Value {
                encoding,
                attachment,
                payload: rest,
            }),
            merged,
        })
    }
}

impl Merged {
    fn encode_into(&self, out: &mut Vec<u8>) {
        let at = out.len();
        out.extend([0; 2]);
        out.extend(self.revision.to_be_bytes());
        self.vector.encode_into(out);
        // Bounded by Vector::LEN_MAX.
        let len = u16::try_from(out.len() - at - 2).unwrap_or(u16::MAX);
        out[at..at + 2].copy_from_slice(&len.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (revision, vector) = bytes.split_first_chunk::<8>()?;
        Some(Self {
            revision: u64::from_be_bytes(*revision),
            vector: Vector::decode(vector)?,
        })
    }
}

impl<'a> RecordRef<'a> {
    /// A change that has merged nothing but itself.
    #[must_use]
    pub const fn own(version: Version, value: Option<&'a Value>) -> Self {
        Self {
            head: Head::own(version),
            value,
            merged: None,
        }
    }

    /// Appends the record's bytes to `out`.
    ///
    /// A schema over 255 bytes or an attachment over 4 GiB is cut: Zenoh's wire carries neither.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let value = self.value;
        let schema = value.and_then(|value| value.encoding.schema.as_deref());
        let attachment = value.and_then(|value| value.attachment.as_deref());
        out.reserve(FIXED + Version::LEN + 7 + value.map_or(0, Value::len));
        out.push(FORMAT);
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        out.push(
            flag(value.is_some(), LIVE)
                | flag(self.head.folded.is_some(), FOLDED)
                | flag(schema.is_some(), SCHEMA)
                | flag(attachment.is_some(), ATTACHMENT)
                | flag(self.merged.is_some(), MERGED),
        );
        out.extend_from_slice(&self.head.own.to_bytes());
        if let Some(folded) = self.head.folded {
            out.extend_from_slice(&folded.to_bytes());
        }
        if let Some(merged) = self.merged {
            merged.encode_into(out);
        }
        let Some(value) = value else { return };
        out.extend_from_slice(&value.encoding.id.to_be_bytes());
        if let Some(schema) = schema {
            let len = u8::try_from(schema.len()).unwrap_or(u8::MAX);
            out.push(len);
            out.extend_from_slice(&schema[..usize::from(len)]);
        }
        if let Some(attachment) = attachment {
            let len = u32::try_from(attachment.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(attachment);
        }
        out.extend_from_slice(&value.payload);
    }

    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    /// An owned copy; the value's parts are shared, not copied.
    #[must_use]
    pub fn to_record(&self) -> Record {
        Record {
            head: self.head,
            value: self.value.cloned(),
            merged: self.merged.cloned().map(Box::new),
        }
    }
}

fn split_head(bytes: &[u8]) -> Result<(Head, u8, usize), CorruptRecord> {
    let version = |at: usize| {
        bytes
            .get(at..at + Version::LEN)
            .and_then(Version::from_bytes)
            .ok_or(CorruptRecord("version"))
    };
    let (Some(&format), Some(&flags)) = (bytes.first(), bytes.get(1)) else {
        return Err(CorruptRecord("truncated"));
    };
    if format != FORMAT {
        return Err(CorruptRecord("unknown format"));
    }
    let own = version(2)?;
    if flags & FOLDED == 0 {
        return Ok((Head { own, folded: None }, flags, FIXED));
    }
    Ok((
        Head {
            own,
            folded: Some(version(FIXED)?),
        },
        flags,
        FIXED + Version::LEN,
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::version::Stamp;

    fn bytes(len: usize) -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..len).prop_map(Bytes::from)
    }

    fn version() -> impl Strategy<Value = Version> {
        (
            any::<u64>(),
            any::<[u8; 16]>(),
            proptest::option::of(any::<u64>()),
        )
            .prop_map(|(time, id, hash)| {
                let stamp = Stamp { time, id };
                hash.map_or(Version::delete(stamp), |hash| Version::put(stamp, hash))
            })
    }

    proptest! {
        #[test]
        fn comes_back_as_it_was(
            own in version(),
            folded in proptest::option::of(version()),
            value in proptest::option::of((
                any::<u16>(),
                proptest::option::of(bytes(255)),
                proptest::option::of(bytes(40)),
                bytes(300),
            )),
            merged in proptest::option::of((any::<u64>(), proptest::collection::vec(version(), 0..20))),
            cut in any::<prop::sample::Index>(),
        ) {
            let value = value.map(|(id, schema, attachment, payload)| Value {
                encoding: Encoding { id, schema }, attachment, payload,
            });
            let merged = merged.map(|(revision, versions)| {
                let mut vector = Vector::of(own.stamp);
                versions.iter().for_each(|version| vector.insert(version.stamp));
                Box::new(Merged { revision, vector })
            });
            let record = Record { head: Head { own, folded }, value, merged };
            let encoded = Bytes::from(record.as_ref().encode());
            prop_assert_eq!(Record::decode(&encoded), Ok(record.clone()));
            prop_assert_eq!(Head::decode(&encoded), Ok(record.head));
            // Cut anywhere it is an error or a shorter payload, never a panic.
            let _ = Record::decode(&encoded.slice(..cut.index(encoded.len())));
        }
    }

    /// Written by the version that knew of no resolvers.
    #[test]
    fn reads_what_was_written_before_there_were_vectors() {
        let own = Version::put(
            Stamp {
                time: 7,
                id: [1; 16],
            },
            9,
        );
        let mut old = vec![1, 1];
        old.extend(own.to_bytes());
        old.extend([0, 4, b'x']);
        let value = Value {
            encoding: Encoding {
                id: 4,
                schema: None,
            },
            attachment: None,
            payload: Bytes::from("x"),
        };
        let record = Record::own(own, Some(value));
        assert_eq!(Record::decode(&old.clone().into()), Ok(record.clone()));
        assert_eq!(record.as_ref().encode(), old);
    }
}
