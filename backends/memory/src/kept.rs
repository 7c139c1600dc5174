//! A record as the store keeps it: the bytes of a small one in one piece.
//!
//! A record taken apart is 200 bytes and an allocation for each part of its value, most of them for parts
//! that hardly any has. Rows that are overwritten all the time are then more than the processor's own
//! cache holds, and that is what a write costs here.

use bytes::Bytes;
use weir_backend_api::{Error, ErrorKind, Result};
use weir_core::{
    record::{CorruptRecord, Head, Record, RecordRef},
    value::{Encoding, Value},
};

/// Up to this size the parts of a value are copied into one piece; what is larger is copied but once.
const PACKED_MAX: usize = 4 << 10;
/// The longest schema that a packed record holds.
const SCHEMA_MAX: usize = u8::MAX as usize;
/// From this size on a part of a value is shared and not copied. Smaller ones may be slices of a network
/// buffer (64 KiB with Zenoh), all of which they would keep; a larger one fills its own buffer.
pub(crate) const SHARED_FROM: usize = 64 * 1024;

/// A record, keeping no more memory alive than its own bytes.
#[derive(Clone, Debug)]
pub(crate) enum Kept {
    /// As [`RecordRef::encode_into`] has it.
    Packed(Bytes),
    /// What is too large to be copied twice.
    Whole(Box<Record>),
}

impl Kept {
    /// Copies a record; `scratch` is room to do so.
    pub(crate) fn new(record: &RecordRef<'_>, scratch: &mut Vec<u8>) -> Self {
        if !record.value.is_none_or(fits) {
            return Self::Whole(Box::new(compact(record)));
        }
        scratch.clear();
        record.encode_into(scratch);
        // With no room behind it, which would cost an allocation more.
        Self::Packed(Bytes::copy_from_slice(scratch))
    }

    /// The record; its value's parts are shared with what is kept.
    pub(crate) fn record(&self) -> Result<Record> {
        match self {
            Self::Packed(bytes) => Record::decode(bytes).map_err(corrupt),
            Self::Whole(record) => Ok((**record).clone()),
        }
    }

    pub(crate) fn head(&self) -> Result<Head> {
        match self {
            Self::Packed(bytes) => Head::decode(bytes).map_err(corrupt),
            Self::Whole(record) => Ok(record.head),
        }
    }

    /// Bytes that it takes, besides itself.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Packed(bytes) => bytes.len(),
            Self::Whole(record) => {
                size_of::<Record>() + record.value.as_ref().map_or(0, Value::len)
            }
        }
    }
}

fn fits(value: &Value) -> bool {
    let schema = value.encoding.schema.as_ref();
    value.len() <= PACKED_MAX && schema.is_none_or(|schema| schema.len() <= SCHEMA_MAX)
}

fn corrupt(error: CorruptRecord) -> Error {
    Error::new(ErrorKind::Corrupt, "a record in memory makes no sense").because(error)
}

fn compact(record: &RecordRef<'_>) -> Record {
    let value = record.value.map(|value| Value {
        encoding: Encoding {
            id: value.encoding.id,
            schema: value.encoding.schema.as_ref().map(compact_bytes),
        },
        attachment: value.attachment.as_ref().map(compact_bytes),
        payload: compact_bytes(&value.payload),
    });
    Record {
        head: record.head,
        value,
        merged: record.merged.cloned().map(Box::new),
    }
}

fn compact_bytes(bytes: &Bytes) -> Bytes {
    if bytes.len() >= SHARED_FROM {
        bytes.clone()
    } else {
        Bytes::copy_from_slice(bytes)
    }
}

#[cfg(test)]
mod tests {
    use weir_core::version::{Stamp, Version};

    use super::*;

    /// A slice of a network buffer is copied, a value that fills its own is shared; it comes back as it was.
    #[test]
    fn values_keep_no_foreign_buffer_alive() {
        let buffer = Bytes::from(vec![7; SHARED_FROM + 100]);
        for (len, schema, is_shared) in [
            (0, 0, false),
            (300, SCHEMA_MAX, false),
            (300, SCHEMA_MAX + 1, false),
            (PACKED_MAX, 0, false),
            (SHARED_FROM - 1, 9, false),
            (SHARED_FROM, 9, true),
        ] {
            let slice = |len| buffer.slice(10..10 + len);
            let value = Value {
                encoding: Encoding {
                    id: 1,
                    schema: Some(slice(schema)),
                },
                attachment: Some(slice(len)),
                payload: slice(len),
            };
            let stamp = Stamp {
                time: 1,
                id: [1; 16],
            };
            let record = RecordRef::own(Version::put(stamp, 1), Some(&value));
            let kept = Kept::new(&record, &mut vec![1]);
            assert_eq!(kept.head().unwrap(), record.head);
            let back = kept.record().unwrap();
            assert_eq!(back, record.to_record());
            let back = back.value.unwrap();
            for part in [back.payload, back.attachment.unwrap()] {
                let inside = buffer.as_ptr_range().contains(&part.as_ptr());
                assert_eq!(inside, is_shared, "{len} bytes");
            }
        }
    }
}
