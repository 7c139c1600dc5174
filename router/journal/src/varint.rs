//! Integers of as many bytes as they need, and a reader that never runs over the end.

use bytes::Bytes;

/// Appends `value`, seven bits a byte, the lowest first.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Appends a length.
pub(crate) fn put_len(out: &mut Vec<u8>, len: usize) {
    put(out, len as u64);
}

/// Appends the way from one time to another, short if they are near, whichever is first.
pub(crate) fn put_step(out: &mut Vec<u8>, from: u64, to: u64) {
    put(out, zigzag(to.wrapping_sub(from)));
}

/// A difference as a number that is small if the difference is, up or down.
pub(crate) const fn zigzag(difference: u64) -> u64 {
    (difference << 1) ^ ((difference.cast_signed() >> 63).cast_unsigned())
}

/// The inverse of [`zigzag`].
pub(crate) const fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

/// Reads what the functions above write; `None` at anything that does not fit.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    bytes: Bytes,
    at: usize,
}

impl Cursor {
    pub(crate) const fn new(bytes: Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    /// How much was read.
    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// How much is left.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A length or an index; never more than fits the address space.
    pub(crate) fn len(&mut self) -> Option<usize> {
        usize::try_from(self.varint()?).ok()
    }

    pub(crate) fn step(&mut self, from: u64) -> Option<u64> {
        Some(from.wrapping_add(unzigzag(self.varint()?)))
    }

    /// A slice of what is read, shared.
    pub(crate) fn take(&mut self, len: usize) -> Option<Bytes> {
        let end = self.at.checked_add(len)?;
        if end > self.bytes.len() {
            return None;
        }
        let part = self.bytes.slice(self.at..end);
        self.at = end;
        Some(part)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let array = self.bytes.get(self.at..)?.first_chunk::<N>().copied()?;
        self.at += N;
        Some(array)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(a in any::<u64>(), b in any::<u64>()) {
            let mut out = Vec::new();
            put(&mut out, a);
            put_step(&mut out, a, b);
            let mut cursor = Cursor::new(Bytes::from(out));
            prop_assert_eq!(cursor.varint(), Some(a));
            prop_assert_eq!(cursor.step(a), Some(b));
            prop_assert!(cursor.is_empty());
            prop_assert_eq!(cursor.byte(), None);
        }

        #[test]
        fn nothing_is_read_behind_the_end(bytes in prop::collection::vec(any::<u8>(), 0..12), len: usize) {
            let mut cursor = Cursor::new(Bytes::from(bytes.clone()));
            if let Some(part) = cursor.take(len) {
                prop_assert_eq!(part.len(), len);
            }
            while cursor.varint().is_some() {}
            prop_assert!(cursor.at() <= bytes.len());
        }
    }
}
