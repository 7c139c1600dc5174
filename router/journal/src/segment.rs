//! The bytes of a segment around its blocks: the header in front, and behind the last block the sums, the
//! index and the trailer that a closed segment has.
//!
//! The tables are in the documentation of the crate.

use bytes::Bytes;
use weir_core::{forward::Source, ledger::Summary};

use crate::{
    block::{Damage, Head},
    calendar::{Slot, Sums},
    varint::Cursor,
};

/// Bytes of the header.
pub(crate) const HEADER_LEN: usize = 32;
/// Bytes of the trailer.
pub(crate) const TRAILER_LEN: usize = 72;
/// Bytes of a list in a file of its own that has nothing in it: magic, version and checksum.
const LIST_MIN: usize = 14;
/// Bytes of a row of sums.
pub(crate) const SUMS_LEN: usize = 48;
/// Bytes of a row of the index.
pub(crate) const INDEX_LEN: usize = 72;
/// The version of the format that this release writes, and the only one it reads.
pub(crate) const VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"WEIRJRNL";
const TRAILER_MAGIC: [u8; 8] = *b"WEIRFOOT";
const COALESCED: u8 = 1;
const OPERATIONS: u8 = 1;

/// What stands in front of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) lane: u8,
    pub(crate) is_coalesced: bool,
    pub(crate) id: u64,
    pub(crate) first: u64,
}

/// Why a header or a trailer is not one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unlike {
    Damaged,
    /// It is right, and of a version that is not known here.
    Version(u16),
}

/// Where a block lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Info {
    pub(crate) offset: u64,
    pub(crate) head: Head,
}

/// What stands at the very end of a closed segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Trailer {
    /// Rows of sums.
    pub(crate) sums: u32,
    pub(crate) sums_crc: u32,
    /// Blocks.
    pub(crate) blocks: u32,
    pub(crate) index_crc: u32,
    /// Where the blocks end and the sums begin.
    pub(crate) blocks_end: u64,
    pub(crate) first: u64,
    pub(crate) end: u64,
    /// How much had been appended when the last of it was.
    pub(crate) mark: u64,
    /// When that was, in seconds since the Unix epoch.
    pub(crate) appended: u32,
    /// Who decided about its entries.
    pub(crate) ranked: u32,
    pub(crate) has_operations: bool,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10] = self.lane;
        out[11] = if self.is_coalesced { COALESCED } else { 0 };
        out[12..20].copy_from_slice(&self.id.to_le_bytes());
        out[20..28].copy_from_slice(&self.first.to_le_bytes());
        sign(&mut out);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unlike> {
        let bytes = bytes.first_chunk::<HEADER_LEN>().ok_or(Unlike::Damaged)?;
        check(bytes, MAGIC)?;
        let mut cursor = Cursor::new(Bytes::copy_from_slice(&bytes[10..]));
        let mut read = || {
            Some(Self {
                lane: cursor.byte()?,
                is_coalesced: cursor.byte()? & COALESCED != 0,
                id: cursor.u64()?,
                first: cursor.u64()?,
            })
        };
        read().ok_or(Unlike::Damaged)
    }
}

impl Trailer {
    fn encode(&self) -> [u8; TRAILER_LEN] {
        let mut out = [0; TRAILER_LEN];
        out[..8].copy_from_slice(&TRAILER_MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10] = if self.has_operations { OPERATIONS } else { 0 };
        let mut at = 12;
        for value in [self.sums, self.sums_crc, self.blocks, self.index_crc] {
            out[at..at + 4].copy_from_slice(&value.to_le_bytes());
            at += 4;
        }
        for value in [self.blocks_end, self.first, self.end, self.mark] {
            out[at..at + 8].copy_from_slice(&value.to_le_bytes());
            at += 8;
        }
        for value in [self.appended, self.ranked] {
            out[at..at + 4].copy_from_slice(&value.to_le_bytes());
            at += 4;
        }
        sign(&mut out);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unlike> {
        let bytes = bytes.first_chunk::<TRAILER_LEN>().ok_or(Unlike::Damaged)?;
        check(bytes, TRAILER_MAGIC)?;
        let has_operations = bytes[10] & OPERATIONS != 0;
        let mut cursor = Cursor::new(Bytes::copy_from_slice(&bytes[12..]));
        let mut read = || {
            Some(Self {
                sums: cursor.u32()?,
                sums_crc: cursor.u32()?,
                blocks: cursor.u32()?,
                index_crc: cursor.u32()?,
                blocks_end: cursor.u64()?,
                first: cursor.u64()?,
                end: cursor.u64()?,
                mark: cursor.u64()?,
                appended: cursor.u32()?,
                ranked: cursor.u32()?,
                has_operations,
            })
        };
        read().ok_or(Unlike::Damaged)
    }

    /// Where the index begins; it ends where the trailer begins.
    pub(crate) fn index_at(&self) -> u64 {
        self.blocks_end
            .saturating_add(u64::from(self.sums) * SUMS_LEN as u64)
    }

    /// How long a file with this trailer is.
    pub(crate) fn file_len(&self) -> u64 {
        let index = u64::from(self.blocks) * INDEX_LEN as u64;
        self.index_at().saturating_add(index + TRAILER_LEN as u64)
    }
}

/// Sums, index and trailer of a segment whose blocks end at `blocks_end`.
pub(crate) fn footer<'a>(
    sums: impl Iterator<Item = (&'a Slot, &'a Sums)>,
    blocks: &[Info],
    blocks_end: u64,
    positions: (u64, u64),
    ranked: u32,
) -> Vec<u8> {
    let mut out = Vec::new();
    let mut count = 0;
    for ((source, second), sums) in sums {
        out.extend(source);
        out.extend(second.to_le_bytes());
        out.extend(sums.kept.to_le_bytes());
        out.extend(sums.all.count.to_le_bytes());
        out.extend(sums.all.sum.to_le_bytes());
        count += 1;
    }
    let index_at = out.len();
    for info in blocks {
        out.extend(info.offset.to_le_bytes());
        out.extend(info.head.encode());
    }
    let trailer = Trailer {
        sums: count,
        sums_crc: crc32fast::hash(&out[..index_at]),
        blocks: u32::try_from(blocks.len()).unwrap_or(u32::MAX),
        index_crc: crc32fast::hash(&out[index_at..]),
        blocks_end,
        first: positions.0,
        end: positions.1,
        mark: blocks.iter().map(|info| info.head.mark).max().unwrap_or(0),
        appended: blocks
            .iter()
            .map(|info| info.head.appended)
            .max()
            .unwrap_or(0),
        ranked,
        has_operations: blocks.iter().any(|info| info.head.operations > 0),
    };
    out.extend(trailer.encode());
    out
}

/// Reads the rows of sums.
///
/// # Errors
/// If the checksum is wrong.
pub(crate) fn read_sums(bytes: &Bytes, trailer: &Trailer) -> Result<Vec<(Slot, Sums)>, Damage> {
    const WRONG: Damage = Damage("the checksum of the sums is wrong");
    if crc32fast::hash(bytes) != trailer.sums_crc {
        return Err(WRONG);
    }
    let mut cursor = Cursor::new(bytes.clone());
    let mut rows = Vec::with_capacity(bytes.len() / SUMS_LEN);
    while !cursor.is_empty() {
        let mut read = || -> Option<(Slot, Sums)> {
            let source: Source = cursor.array()?;
            let slot = (source, cursor.u32()?);
            let kept = cursor.u32()?;
            let (count, sum) = (cursor.u64()?, cursor.u128()?);
            Some((
                slot,
                Sums {
                    all: Summary { count, sum },
                    kept,
                },
            ))
        };
        rows.push(read().ok_or(WRONG)?);
    }
    Ok(rows)
}

/// Reads the rows of the index.
///
/// # Errors
/// If the checksum is wrong.
pub(crate) fn read_index(bytes: &Bytes, trailer: &Trailer) -> Result<Vec<Info>, Damage> {
    if crc32fast::hash(bytes) != trailer.index_crc {
        return Err(Damage("the checksum of the index is wrong"));
    }
    bytes
        .chunks_exact(INDEX_LEN)
        .map(|row| {
            let (offset, head) = row
                .split_first_chunk::<8>()
                .ok_or(Damage("the index is cut"))?;
            Ok(Info {
                offset: u64::from_le_bytes(*offset),
                head: Head::decode(head)?,
            })
        })
        .collect()
}

/// Puts the checksum into the last four bytes.
fn sign(out: &mut [u8]) {
    let at = out.len() - 4;
    let crc = crc32fast::hash(&out[..at]);
    out[at..].copy_from_slice(&crc.to_le_bytes());
}

/// How a list in a file of its own begins; it ends with the checksum of all before.
pub(crate) fn list(magic: [u8; 8]) -> Vec<u8> {
    let mut out = magic.to_vec();
    out.extend(VERSION.to_le_bytes());
    out
}

/// What is in such a list.
pub(crate) fn list_of(bytes: &[u8], magic: [u8; 8]) -> Result<Bytes, Unlike> {
    if bytes.len() < LIST_MIN {
        return Err(Unlike::Damaged);
    }
    check(bytes, magic)?;
    Ok(Bytes::copy_from_slice(&bytes[10..bytes.len() - 4]))
}

fn check(bytes: &[u8], magic: [u8; 8]) -> Result<(), Unlike> {
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or(Unlike::Damaged)?;
    if bytes[..8] != magic || crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err(Unlike::Damaged);
    }
    match u16::from_le_bytes([bytes[8], bytes[9]]) {
        VERSION => Ok(()),
        other => Err(Unlike::Version(other)),
    }
}
