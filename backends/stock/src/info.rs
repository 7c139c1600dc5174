//! What the stock backends remember of a value beside its payload.
//!
//! They serialise a tuple with `zenoh-ext`: HLC time u64, HLC id (its length 16, then its bytes),
//! in the RocksDB backend whether it is deleted (a byte, 0 or 1), encoding id u16, schema behind its
//! length. Integers are little-endian, lengths LEB128; an absent schema is an empty one.

use bytes::Bytes;
use weir_core::{value::Encoding, version::Stamp};

use crate::lsm::Input;

/// The timestamp and encoding of a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Info {
    /// When and by whom it was put.
    pub stamp: Stamp,
    /// Whether it was deleted since.
    pub is_deleted: bool,
    /// How its payload is to be read.
    pub encoding: Encoding,
}

impl Info {
    /// From the RocksDB backend's column family `data_info`; `None` if it is something else.
    pub fn of_rocksdb(bytes: &[u8]) -> Option<Self> {
        Self::decode(bytes, true)
    }

    /// From the filesystem backend's `.zenoh_datainfo`; `None` if it is something else.
    pub fn of_filesystem(bytes: &[u8]) -> Option<Self> {
        Self::decode(bytes, false)
    }

    fn decode(bytes: &[u8], has_deleted: bool) -> Option<Self> {
        let mut input = Input(bytes);
        let time = input.fixed64()?;
        let id = input.string()?.try_into().ok()?;
        let is_deleted = match if has_deleted { input.byte()? } else { 0 } {
            0 => false,
            1 => true,
            _ => return None,
        };
        let encoding = input.fixed16()?;
        let schema = input.string()?;
        let stamp = Stamp { time, id };
        // No HLC has the id 0.
        (input.0.is_empty() && stamp.to_uhlc().is_some()).then(|| Self {
            stamp,
            is_deleted,
            encoding: Encoding {
                id: encoding,
                schema: (!schema.is_empty()).then(|| Bytes::copy_from_slice(schema)),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_tuples() {
        let mut id = [0; 16];
        id[..3].copy_from_slice(&[7, 8, 9]);
        let head: Vec<u8> = [&0x0102_0304_0506_0708u64.to_le_bytes()[..], &[16], &id].concat();
        let stamp = Stamp {
            time: 0x0102_0304_0506_0708,
            id,
        };
        for (tail, has_deleted, expected) in [
            (&[5, 0, 0][..], false, Some((false, 5, None))),
            (&[0, 5, 0, 0], true, Some((false, 5, None))),
            (
                &[1, 0xFF, 0xFF, 2, b'x', b'y'],
                true,
                Some((true, 0xFFFF, Some("xy"))),
            ),
            (&[2, 5, 0, 0], true, None),
            (&[5, 0, 0, 0], false, None),
            (&[5, 0, 9], false, None),
            (&[5, 0], false, None),
        ] {
            let bytes = [&head[..], tail].concat();
            let expected = expected.map(|(is_deleted, id, schema)| Info {
                stamp,
                is_deleted,
                encoding: Encoding {
                    id,
                    schema: schema.map(Bytes::from),
                },
            });
            assert_eq!(Info::decode(&bytes, has_deleted), expected, "{tail:?}");
        }
        let no_id = [&[0; 8][..], &[16], &[0; 16], &[5, 0, 0]].concat();
        assert_eq!(Info::of_filesystem(&no_id), None);
    }
}
