//! Small samples on their way through the queue, packed one behind the other.
//!
//! A receive thread copies what matters of a sample and drops the rest where it was made. What is
//! handed to the task is plain memory that it reads from front to back: nothing is allocated for a
//! sample, and nothing is freed on another core than the one that allocated it.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use weir_core::{
    key::Key,
    value::{Encoding, Value},
    version::Stamp,
};
use zenoh::{
    bytes::ZBytes,
    sample::{Sample, SampleKind},
};

/// Payload and attachment up to this size are copied; what is larger is cheaper to hand over as it is.
const BYTES_MAX: usize = 4 << 10;

/// The keys and bytes of packed samples, one behind the other.
#[derive(Default)]
pub(crate) struct Arena {
    keys: BytesMut,
    bytes: BytesMut,
}

/// A packed sample. Its key and bytes are in the arena, behind those of the one before it.
#[derive(Clone, Copy)]
pub(crate) struct Packed {
    stamp: Option<Stamp>,
    key_len: u32,
    payload_len: u32,
    attachment_len: Option<u32>,
    encoding: u16,
    /// A schema is 255 bytes at most on Zenoh's wire.
    schema_len: Option<u16>,
    is_put: bool,
    priority: u8,
}

/// Reads an arena from front to back.
pub(crate) struct Unpacker {
    keys: Key,
    bytes: Bytes,
    keys_at: usize,
    bytes_at: usize,
}

/// A sample that was packed. Its parts share the batch's memory.
pub(crate) struct Unpacked {
    /// The key, or a key expression.
    pub key: Key,
    pub stamp: Option<Stamp>,
    pub value: Option<Value>,
    pub priority: u8,
}

impl Packed {
    /// Whether a sample is small enough to be packed.
    pub(crate) fn fits(sample: &Sample) -> bool {
        let attachment = sample.attachment().map_or(0, ZBytes::len);
        let schema = sample.encoding().schema().map_or(0, |schema| schema.len());
        sample.payload().len() + attachment <= BYTES_MAX && schema <= usize::from(u8::MAX)
    }

    /// Packs a sample that fits.
    pub(crate) fn new(sample: &Sample, arena: &mut Arena) -> Self {
        let key = sample.key_expr().as_str();
        arena.keys.extend_from_slice(key.as_bytes());
        let is_put = sample.kind() == SampleKind::Put;
        let encoding = sample.encoding();
        let (mut schema_len, mut attachment_len, mut payload_len) = (None, None, 0);
        if is_put {
            schema_len = encoding.schema().map(|schema| {
                arena.bytes.extend_from_slice(schema);
                u16::try_from(schema.len()).unwrap_or(u16::MAX)
            });
            attachment_len = sample.attachment().map(|bytes| arena.append(bytes));
            payload_len = arena.append(sample.payload());
        }
        Self {
            stamp: sample.timestamp().map(Stamp::from_uhlc),
            key_len: len(key.len()),
            payload_len,
            attachment_len,
            encoding: encoding.id(),
            schema_len,
            is_put,
            priority: sample.priority() as u8,
        }
    }
}

impl Arena {
    /// What was packed, to be read in that order; the arena is empty again. Its memory comes back to
    /// it when nothing of the last batch is held any longer.
    pub(crate) fn unpack(&mut self) -> Unpacker {
        // Keys come from Zenoh, which has checked them; a key that were no text would be a bug there.
        let keys = ByteString::try_from(self.keys.split().freeze()).unwrap_or_default();
        Unpacker {
            keys: Key::new(keys),
            bytes: self.bytes.split().freeze(),
            keys_at: 0,
            bytes_at: 0,
        }
    }

    fn append(&mut self, bytes: &ZBytes) -> u32 {
        for slice in bytes.slices() {
            self.bytes.extend_from_slice(slice);
        }
        len(bytes.len())
    }
}

impl Unpacker {
    /// The next sample; `packed` must be the next of those that the arena was filled with.
    pub(crate) fn next(&mut self, packed: &Packed) -> Unpacked {
        let key_end = self.keys_at + packed.key_len as usize;
        let key = self.keys.get(self.keys_at..key_end).unwrap_or_default();
        let key = self.keys.part(key);
        self.keys_at = key_end;
        let value = packed.is_put.then(|| {
            let schema = packed.schema_len.map(|len| self.take(usize::from(len)));
            let attachment = packed.attachment_len.map(|len| self.take(len as usize));
            Value {
                encoding: Encoding {
                    id: packed.encoding,
                    schema,
                },
                attachment,
                payload: self.take(packed.payload_len as usize),
            }
        });
        Unpacked {
            key,
            stamp: packed.stamp,
            value,
            priority: packed.priority,
        }
    }

    fn take(&mut self, len: usize) -> Bytes {
        let at = self.bytes_at;
        self.bytes_at += len;
        self.bytes.slice(at..self.bytes_at)
    }
}

/// Lengths here are bounded by [`BYTES_MAX`] or by Zenoh's limit of a message, 4 GiB at most.
fn len(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use zenoh::{bytes::Encoding as ZEncoding, key_expr::KeyExpr, sample::SampleBuilder};

    use super::*;
    use crate::convert;

    #[test]
    fn what_was_packed_comes_back_in_order() {
        let put = |key: &'static str, payload: &'static str| {
            SampleBuilder::put(KeyExpr::new(key).unwrap(), payload)
        };
        let samples: [Sample; 6] = [
            put("a/b", "x").into(),
            put("a/é", "").encoding(ZEncoding::TEXT_PLAIN).into(),
            SampleBuilder::delete(KeyExpr::new("a/**").unwrap()).into(),
            put("a", "y").attachment("with").into(),
            put("b", "z")
                .attachment("")
                .encoding(ZEncoding::APPLICATION_JSON.with_schema("s"))
                .into(),
            put("c", "end").into(),
        ];
        let mut arena = Arena::default();
        // Twice, because the arena's memory is used again.
        for _ in 0..2 {
            let packed = samples.each_ref().map(|sample| {
                assert!(Packed::fits(sample));
                Packed::new(sample, &mut arena)
            });
            let mut unpacker = arena.unpack();
            for (sample, packed) in samples.iter().zip(&packed) {
                let unpacked = unpacker.next(packed);
                assert_eq!(&*unpacked.key, sample.key_expr().as_str());
                assert_eq!(unpacked.value, convert::value_of(sample));
                assert_eq!(unpacked.stamp, None);
                assert_eq!(unpacked.priority, 5);
            }
        }
    }
}
