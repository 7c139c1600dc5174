//! The streams of a parcel.

use std::collections::HashMap;

use bytes::Bytes;
use weir_core::forward::Source;
use zstd_safe::CCtx;

use super::{STREAMS, Unpackable};
use crate::varint::{Cursor, put_len};

/// Fast, and on such columns almost as good as slower ones.
const LEVEL: i32 = 1;
/// Which of the streams has the shapes.
const SHAPES: usize = 1;
/// What is shorter is not worth a frame.
const PACKED_MIN: usize = 24;

/// The streams as they are written.
#[derive(Default)]
pub(super) struct Output {
    pub(super) head: Vec<u8>,
    pub(super) shapes: Vec<u8>,
    pub(super) lengths: Vec<u8>,
    pub(super) attachments: Vec<u8>,
    pub(super) plain: Vec<u8>,
    pub(super) templates: Vec<u8>,
    pub(super) texts: Vec<u8>,
    times: [Vec<u8>; 8],
    pub(super) numbers: [Vec<u8>; 8],
    /// Which source has which number.
    pub(super) sources: HashMap<Source, usize>,
}

impl Output {
    pub(super) fn push_time(&mut self, step: u64) {
        push(&mut self.times, step, 8);
    }

    /// Adds the lowest `width` bytes of a number.
    pub(super) fn push_number(&mut self, number: u64, width: usize) {
        push(&mut self.numbers, number, width);
    }

    /// Packs the streams.
    pub(super) fn finish(self, version: u8) -> Bytes {
        let mut out = vec![version];
        let mut zstd = CCtx::create();
        let Self {
            head,
            shapes,
            lengths,
            attachments,
            plain,
            templates,
            texts,
            ..
        } = self;
        let streams = [head, shapes, lengths, attachments, plain, templates, texts];
        for stream in streams.into_iter().chain(self.times).chain(self.numbers) {
            put_len(&mut out, stream.len());
            let packed = (stream.len() >= PACKED_MIN)
                .then(|| compress(&mut zstd, &stream))
                .flatten();
            match packed.filter(|packed| packed.len() < stream.len()) {
                Some(packed) => {
                    put_len(&mut out, packed.len());
                    out.extend_from_slice(&packed);
                }
                None => {
                    put_len(&mut out, 0);
                    out.extend_from_slice(&stream);
                }
            }
        }
        Bytes::from(out)
    }
}

/// `None` if zstd fails, which it does for want of memory alone: the stream goes as it is.
fn compress(zstd: &mut CCtx<'_>, stream: &[u8]) -> Option<Vec<u8>> {
    let mut packed = vec![0; zstd_safe::compress_bound(stream.len())];
    let len = zstd.compress(&mut packed[..], stream, LEVEL).ok()?;
    packed.truncate(len);
    Some(packed)
}

fn push(planes: &mut [Vec<u8>; 8], number: u64, width: usize) {
    for (plane, byte) in planes.iter_mut().zip(number.to_le_bytes()).take(width) {
        plane.push(byte);
    }
}

/// The streams as they are read.
pub(super) struct Input {
    pub(super) head: Cursor,
    pub(super) shapes: Cursor,
    pub(super) lengths: Cursor,
    pub(super) attachments: Cursor,
    pub(super) plain: Cursor,
    pub(super) templates: Cursor,
    pub(super) texts: Cursor,
    times: [Cursor; 8],
    numbers: [Cursor; 8],
    /// Bytes that may still come of it.
    room: usize,
}

impl Input {
    /// Unpacks the streams, which are together at most twice what `bytes_max` says of a parcel of so many
    /// entries at the most.
    pub(super) fn open(
        bytes: &Bytes,
        version: u8,
        bytes_max: impl FnOnce(usize) -> usize,
    ) -> Result<Self, Unpackable> {
        let mut cursor = Cursor::new(bytes.clone());
        match cursor.byte() {
            Some(known) if known == version => {}
            Some(other) => return Err(Unpackable::Version(other)),
            None => return Err(Unpackable::Malformed),
        }
        // Nothing is unpacked before it is known how much that is.
        let mut parts = Vec::with_capacity(STREAMS);
        for _ in 0..STREAMS {
            parts.push(part(&mut cursor).ok_or(Unpackable::Malformed)?);
        }
        // Each entry has a byte at least that says its shape.
        let bytes_max = bytes_max(parts[SHAPES].0);
        let mut room = bytes_max.saturating_mul(2);
        for (len, _) in &parts {
            room = room.checked_sub(*len).ok_or(Unpackable::Large)?;
        }
        let mut streams = Vec::with_capacity(STREAMS);
        for part in parts {
            streams.push(Cursor::new(read(part).ok_or(Unpackable::Malformed)?));
        }
        let streams: [Cursor; STREAMS] = streams.try_into().map_err(|_| Unpackable::Malformed)?;
        let [
            head,
            shapes,
            lengths,
            attachments,
            plain,
            templates,
            texts,
            rest @ ..,
        ] = streams;
        let (times, numbers) = halves(rest);
        Ok(Self {
            head,
            shapes,
            lengths,
            attachments,
            plain,
            templates,
            texts,
            times,
            numbers,
            room: bytes_max,
        })
    }

    pub(super) fn time(&mut self) -> Option<u64> {
        pull(&mut self.times, 8)
    }

    pub(super) fn number(&mut self, width: usize) -> Option<u64> {
        pull(&mut self.numbers, width)
    }

    /// Something of so many bytes comes of it.
    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), Unpackable> {
        self.room = self.room.checked_sub(bytes).ok_or(Unpackable::Large)?;
        Ok(())
    }
}

/// The length of a stream, and its bytes: packed, unless it is they.
type Part = (usize, Result<Bytes, Bytes>);

fn part(cursor: &mut Cursor) -> Option<Part> {
    let len = cursor.len()?;
    Some(match cursor.len()? {
        0 => (len, Ok(cursor.take(len)?)),
        packed => (len, Err(cursor.take(packed)?)),
    })
}

fn read((len, bytes): Part) -> Option<Bytes> {
    let packed = match bytes {
        Ok(bytes) => return Some(bytes),
        Err(packed) => packed,
    };
    let mut stream = vec![0; len];
    let found = zstd_safe::decompress(&mut stream[..], &packed).ok()?;
    (found == len).then(|| Bytes::from(stream))
}

fn pull(planes: &mut [Cursor; 8], width: usize) -> Option<u64> {
    let mut bytes = [0; 8];
    for (byte, plane) in bytes.iter_mut().zip(planes).take(width) {
        *byte = plane.byte()?;
    }
    Some(u64::from_le_bytes(bytes))
}

fn halves(planes: [Cursor; 16]) -> ([Cursor; 8], [Cursor; 8]) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = planes;
    ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p])
}
