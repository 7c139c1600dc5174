//! A block-based table of RocksDB, versions 2 to 6 of its format (`format_version`).
//!
//! ```text
//! data blocks, ..., index block, properties, metaindex block, footer
//! block:  bytes, compression u8, checksum u32
//! footer: checksum kind u8, 40 bytes of handles, version u32, magic u64
//! ```

use std::{fs::File, os::unix::fs::FileExt, path::Path, vec};

use bytes::Bytes;
use weir_backend_api::{Error, Result};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Entry,
    bytes::{Input, masked_crc32c},
    corrupt,
};

const FOOTER: usize = 53;
const MAGIC: u64 = 0x88E2_41B7_85F4_CFF7;
/// Compression and checksum behind a block.
const TRAILER: u64 = 5;
/// A block beyond this is taken for damage, not for data.
const BLOCK_BYTES_MAX: u64 = 1 << 32;

/// Where a block is.
#[derive(Clone, Copy, Debug)]
struct Handle {
    offset: u64,
    size: u64,
}

/// An open table, read in key order. A block that cannot be read is an error and is passed over.
#[derive(Debug)]
pub struct Table {
    file: File,
    name: String,
    checksum: Checksum,
    blocks: vec::IntoIter<Handle>,
    /// Entries of the block that is being read.
    entries: vec::IntoIter<Entry>,
    /// Versions of keys in the table, deletes included.
    pub len: u64,
}

/// How blocks are protected.
#[derive(Clone, Copy, Debug)]
struct Checksum {
    kind: u8,
    /// Makes a block's checksum differ by where it is; 0 before version 6.
    context: u32,
}

impl Table {
    /// Opens a table; reads its index.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|e| Error::io(format!("cannot open {name}"), e))?;
        let len = file.metadata();
        let len = len
            .map_err(|e| Error::io(format!("cannot read {name}"), e))?
            .len();
        let mut table = Self {
            file,
            name,
            checksum: Checksum {
                kind: 0,
                context: 0,
            },
            blocks: Vec::new().into_iter(),
            entries: Vec::new().into_iter(),
            len: 0,
        };
        let at = len.checked_sub(FOOTER as u64);
        let at = at.ok_or_else(|| table.damaged("it is too short"))?;
        let footer = table.bytes(at, FOOTER as u64)?;
        let (metaindex, index) = table
            .footer(&footer, at)
            .ok_or_else(|| table.damaged("its footer is not one that is known here"))?;
        let metaindex = table.pairs(metaindex)?;
        let handle = |name: &str| {
            let found = metaindex.iter().find(|(key, _)| key == name.as_bytes());
            found.and_then(|(_, value)| Handle::decode(&mut Input(value)))
        };
        let index = index.or_else(|| handle("rocksdb.index"));
        let index = index.ok_or_else(|| table.damaged("it has no index"))?;
        let properties = handle("rocksdb.properties");
        let properties = properties.ok_or_else(|| table.damaged("it has no properties"))?;
        let properties = table.pairs(properties)?;
        let number = |name: &str| {
            let found = properties.iter().find(|(key, _)| key == name.as_bytes());
            found.and_then(|(_, value)| Input(value).varint())
        };
        if number("rocksdb.num.range-deletions").unwrap_or(0) > 0 {
            return Err(table.damaged("it has range deletions, which no stock storage writes"));
        }
        table.len = number("rocksdb.num.entries").unwrap_or(0);
        let is_delta = number("rocksdb.index.value.is.delta.encoded").unwrap_or(0) > 0;
        let block = table.block(index)?;
        let blocks = index_handles(&block, is_delta)
            .ok_or_else(|| table.damaged("its index is not understood"))?;
        table.blocks = blocks.into_iter();
        Ok(table)
    }

    /// Reads the footer: the metaindex, and the index if it is there.
    fn footer(&mut self, footer: &[u8], at: u64) -> Option<(Handle, Option<Handle>)> {
        let (head, tail) = footer.split_at(1 + 40);
        let mut tail = Input(tail);
        let (version, magic) = (tail.fixed32()?, tail.fixed64()?);
        if magic != MAGIC {
            return None;
        }
        self.checksum.kind = head[0];
        let mut head = Input(&head[1..]);
        match version {
            2..=5 => {
                let metaindex = Handle::decode(&mut head)?;
                Some((metaindex, Some(Handle::decode(&mut head)?)))
            }
            6 => {
                if head.take(4)? != [0x3E, 0, 0x7A, 0] {
                    return None;
                }
                let checksum = head.fixed32()?;
                self.checksum.context = head.fixed32()?;
                let size = u64::from(head.fixed32()?);
                let mut blank = footer.to_vec();
                blank[5..9].fill(0);
                if self.checksum.of(&blank, at)? != checksum {
                    return None;
                }
                let offset = at.checked_sub(TRAILER + size)?;
                Some((Handle { offset, size }, None))
            }
            _ => None,
        }
    }

    /// Reads a block, checks it, unpacks it.
    fn block(&self, handle: Handle) -> Result<Bytes> {
        if handle.size > BLOCK_BYTES_MAX {
            return Err(self.damaged("a block has no sensible size"));
        }
        let mut block = self.bytes(handle.offset, handle.size + TRAILER)?;
        let trailer = block.split_off(block.len() - 4);
        let stored = Input(&trailer).fixed32();
        let computed = self.checksum.of(&block, handle.offset);
        if computed.is_none() || computed != stored {
            return Err(self.damaged(&format!("the block at byte {} is damaged", handle.offset)));
        }
        match block.pop() {
            Some(0) => Ok(Bytes::from(block)),
            Some(1) => snap::raw::Decoder::new()
                .decompress_vec(&block)
                .map(Bytes::from)
                .map_err(|e| self.damaged("a block cannot be unpacked").because(e)),
            _ => Err(self.damaged("a block is packed in a way that no stock storage uses")),
        }
    }

    /// The keys and values of a block about the table itself.
    fn pairs(&self, handle: Handle) -> Result<Vec<(Vec<u8>, Bytes)>> {
        let block = self.block(handle)?;
        let pairs = pairs(&block);
        pairs.ok_or_else(|| self.damaged("a block about the table is not understood"))
    }

    fn load(&self, handle: Handle) -> Result<Vec<Entry>> {
        let block = self.block(handle)?;
        let entries = pairs(&block).and_then(|pairs| pairs.into_iter().map(entry).collect());
        entries.ok_or_else(|| {
            self.damaged(&format!(
                "the block at byte {} is not understood",
                handle.offset
            ))
        })
    }

    fn bytes(&self, offset: u64, len: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(|e| self.damaged("it cannot be read").because(e))?;
        Ok(bytes)
    }

    fn damaged(&self, what: &str) -> Error {
        corrupt(format!("{}: {what}", self.name))
    }
}

impl Iterator for Table {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(Ok(entry));
            }
            let block = self.blocks.next()?;
            match self.load(block) {
                Ok(entries) => self.entries = entries.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Handle {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        Some(Self {
            offset: input.varint()?,
            size: input.varint()?,
        })
    }
}

impl Checksum {
    /// Of bytes that are at `offset`; `None` if the kind is not known here.
    fn of(self, bytes: &[u8], offset: u64) -> Option<u32> {
        let plain = match self.kind {
            1 => masked_crc32c(&[bytes]),
            4 => {
                let (last, rest) = bytes.split_last()?;
                low(xxh3_64(rest)) ^ u32::from(*last).wrapping_mul(0x6B90_83D9)
            }
            _ => return None,
        };
        let context = match self.context {
            0 => 0,
            base => base ^ low(offset).wrapping_add(low(offset >> 32)),
        };
        Some(plain.wrapping_add(context))
    }
}

fn low(value: u64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the lower half is what is asked for"
    )]
    let low = value as u32;
    low
}

/// What stands before the restart points, with which a search would begin.
fn body(block: &Bytes) -> Option<Bytes> {
    let end = block.len().checked_sub(4)?;
    let mut footer = Input(&block[end..]);
    // The highest bit says that there is a hash index, which stock storages do not ask for.
    let restarts = usize::try_from(footer.fixed32()?).ok()?;
    Some(block.slice(..end.checked_sub(restarts.checked_mul(4)?)?))
}

/// The keys and values of a block: each key tells how much it shares with the one before.
fn pairs(block: &Bytes) -> Option<Vec<(Vec<u8>, Bytes)>> {
    let body = body(block)?;
    let mut input = Input(&body);
    let mut pairs: Vec<(Vec<u8>, Bytes)> = Vec::new();
    while !input.0.is_empty() {
        let (shared, own, len) = (input.length()?, input.length()?, input.length()?);
        let last = pairs.last().map_or(&[][..], |(key, _)| key);
        let mut key = last.get(..shared)?.to_vec();
        key.extend_from_slice(input.take(own)?);
        pairs.push((key, body.slice_ref(input.take(len)?)));
    }
    Some(pairs)
}

/// The handles of an index block. With deltas a value has no length: it is a handle where nothing is
/// shared, and otherwise how much longer the block is than the one before it.
fn index_handles(block: &Bytes, is_delta: bool) -> Option<Vec<Handle>> {
    let body = body(block)?;
    let mut input = Input(&body);
    let mut handles: Vec<Handle> = Vec::new();
    while !input.0.is_empty() {
        let (shared, own) = (input.length()?, input.length()?);
        if !is_delta {
            input.length()?;
        }
        input.take(own)?;
        let handle = if is_delta && shared > 0 {
            let last = handles.last()?;
            Handle {
                offset: last.offset + last.size + TRAILER,
                size: last.size.checked_add_signed(input.signed()?)?,
            }
        } else {
            Handle::decode(&mut input)?
        };
        handles.push(handle);
    }
    Some(handles)
}

/// An entry from its internal key: user key, then sequence and kind in 8 bytes.
fn entry((mut key, value): (Vec<u8>, Bytes)) -> Option<Entry> {
    let tail = key.split_off(key.len().checked_sub(8)?);
    let tail = Input(&tail).fixed64()?;
    let value = match tail & 0xFF {
        0 | 7 => None,
        1 => Some(value),
        _ => return None,
    };
    let seq = tail >> 8;
    Some(Entry { key, seq, value })
}
