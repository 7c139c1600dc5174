//! The bytes of frames: fields, and below them integers, strings, bounds. Whatever is read may come
//! from anyone: nothing here panics, and nothing is reserved for what a length only claims.

use bytes::Bytes;
use thiserror::Error;

/// How much of the bound before it a bound may repeat. Keeps what a frame decodes to within a
/// constant times its length.
const SHARED_MAX: usize = 254;
/// Stands for the end of an axis.
const END: u8 = 255;

/// Why a frame was not understood or not obeyed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Bad {
    /// Its bytes make no sense.
    #[error("the frame makes no sense")]
    Malformed,
    /// It is of another version of the protocol.
    #[error("the frame is of an unknown version")]
    Version,
    /// It asks for something unknown.
    #[error("the frame is of an unknown kind")]
    Kind,
    /// It is longer than what is taken.
    #[error("the frame is too long")]
    Length,
    /// The settings of who was asked do not allow it.
    #[error("the settings of the peer do not allow it")]
    Forbidden,
    /// The store cannot be read now; ask again later.
    #[error("the store of the peer cannot be read now")]
    Unreadable,
}

/// The fields of a frame, by tag; the first of each counts. A field is its tag (u8), its length
/// (varint) and its value.
#[derive(Debug)]
pub struct Fields(Vec<(u8, Reader)>);

/// Reads a frame's bytes.
#[derive(Clone, Debug)]
pub struct Reader {
    bytes: Bytes,
}

/// The bound before, that the next one may share its beginning with.
#[derive(Clone, Default, Debug)]
pub struct Last(Vec<u8>);

impl Bad {
    /// Its number in frames.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Malformed => 1,
            Self::Version => 2,
            Self::Kind => 3,
            Self::Length => 4,
            Self::Forbidden => 5,
            Self::Unreadable => 6,
        }
    }

    /// The inverse of [`Bad::code`]; what is not known is the first.
    #[must_use]
    pub const fn of(code: u8) -> Self {
        match code {
            2 => Self::Version,
            3 => Self::Kind,
            4 => Self::Length,
            5 => Self::Forbidden,
            6 => Self::Unreadable,
            _ => Self::Malformed,
        }
    }
}

impl Fields {
    /// Reads fields; those whose tag is 0 or above `last` are skipped.
    pub fn read(fields: Bytes, last: u8) -> Result<Self, Bad> {
        let mut reader = Reader::new(fields);
        let mut found: Vec<(u8, Reader)> = Vec::new();
        while !reader.is_empty() {
            let tag = reader.u8()?;
            let value = reader.sized()?;
            let is_known = (1..=last).contains(&tag);
            if is_known && found.iter().all(|(other, _)| *other != tag) {
                found.push((tag, Reader::new(value)));
            }
        }
        Ok(Self(found))
    }

    /// A field that may be there.
    pub fn optional(&mut self, tag: u8) -> Option<Reader> {
        let at = self.0.iter().position(|(other, _)| *other == tag)?;
        Some(self.0.swap_remove(at).1)
    }

    /// A field that must be there.
    pub fn required(&mut self, tag: u8) -> Result<Reader, Bad> {
        self.optional(tag).ok_or(Bad::Malformed)
    }

    /// A field of 8 bytes that must be there.
    pub fn word(&mut self, tag: u8) -> Result<u64, Bad> {
        self.required(tag)?.u64()
    }
}

impl Reader {
    /// Of these bytes; what is read are slices of them.
    #[must_use]
    pub const fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    /// Whether all was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<Bytes, Bad> {
        if self.bytes.len() < len {
            return Err(Bad::Malformed);
        }
        Ok(self.bytes.split_to(len))
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        <[u8; N]>::try_from(&*self.take(N)?).map_err(|_| Bad::Malformed)
    }

    /// What is left.
    #[must_use]
    pub fn rest(self) -> Bytes {
        self.bytes
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Bad> {
        Ok(self.array::<1>()?[0])
    }

    /// 8 bytes, big-endian.
    pub fn u64(&mut self) -> Result<u64, Bad> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// 7 bits a byte, the lowest first.
    pub fn varint(&mut self) -> Result<u64, Bad> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(Bad::Malformed);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Bad::Malformed)
    }

    /// A varint that counts something in memory.
    pub fn count(&mut self) -> Result<usize, Bad> {
        usize::try_from(self.varint()?).map_err(|_| Bad::Malformed)
    }

    /// A length and as many bytes.
    pub fn sized(&mut self) -> Result<Bytes, Bad> {
        let len = self.count()?;
        self.take(len)
    }

    /// A bound; `None` is the end.
    pub fn bound(&mut self, last: &mut Last) -> Result<Option<Vec<u8>>, Bad> {
        let shared = self.u8()?;
        if shared == END {
            return Ok(None);
        }
        let head = last.0.get(..usize::from(shared)).ok_or(Bad::Malformed)?;
        let mut bound = head.to_vec();
        bound.extend_from_slice(&self.sized()?);
        last.0.clone_from(&bound);
        Ok(Some(bound))
    }

    /// Ids: how many, then 8 bytes each.
    pub fn ids(&mut self) -> Result<Vec<u64>, Bad> {
        let count = self.count()?;
        let bytes = self.take(count.checked_mul(8).ok_or(Bad::Malformed)?)?;
        let mut rest = Self::new(bytes);
        (0..count).map(|_| rest.u64()).collect()
    }
}

/// Appends a field.
pub fn field(out: &mut Vec<u8>, tag: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let mut value = Vec::new();
    write(&mut value);
    out.push(tag);
    sized(out, &value);
}

/// Appends a field of 8 bytes.
pub fn word(out: &mut Vec<u8>, tag: u8, value: u64) {
    field(out, tag, |out| out.extend(value.to_be_bytes()));
}

/// Appends an integer, 7 bits a byte.
pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// Appends how many there are of something.
pub fn count(out: &mut Vec<u8>, count: usize) {
    varint(out, count as u64);
}

/// Appends a length and the bytes.
pub fn sized(out: &mut Vec<u8>, bytes: &[u8]) {
    count(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends a bound by what it does not share with the one before.
pub fn bound(out: &mut Vec<u8>, last: &mut Last, bound: Option<&[u8]>) {
    let Some(bound) = bound else {
        out.push(END);
        return;
    };
    let same = last.0.iter().zip(bound).take_while(|(a, b)| a == b).count();
    let shared = same.min(SHARED_MAX);
    out.push(u8::try_from(shared).unwrap_or(0));
    sized(out, &bound[shared..]);
    last.0.clear();
    last.0.extend_from_slice(bound);
}

/// Appends ids.
pub fn ids(out: &mut Vec<u8>, ids: &[u64]) {
    count(out, ids.len());
    for id in ids {
        out.extend(id.to_be_bytes());
    }
}
