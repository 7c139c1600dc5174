//! The integers and strings that RocksDB's files are made of: little-endian, or in groups of 7 bits.

/// Bytes, read from the front. Each answer is `None` when they are not enough.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// So many bytes.
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// One byte.
    pub fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// 16 bits.
    pub fn fixed16(&mut self) -> Option<u16> {
        let bytes = self.take(2)?.try_into().ok()?;
        Some(u16::from_le_bytes(bytes))
    }

    /// 32 bits.
    pub fn fixed32(&mut self) -> Option<u32> {
        let bytes = self.take(4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    }

    /// 64 bits.
    pub fn fixed64(&mut self) -> Option<u64> {
        let bytes = self.take(8)?.try_into().ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    /// Up to 64 bits, 7 in a byte, the lowest first (LEB128).
    pub fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A number of that form that fits a length.
    pub fn length(&mut self) -> Option<usize> {
        usize::try_from(self.varint()?).ok()
    }

    /// A signed number in the same form, the sign in the lowest bit.
    pub fn signed(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    /// Bytes behind their length.
    pub fn string(&mut self) -> Option<&'a [u8]> {
        let len = self.length()?;
        self.take(len)
    }
}

/// CRC-32C (Castagnoli), rotated and shifted as RocksDB stores it.
pub fn masked_crc32c(parts: &[&[u8]]) -> u32 {
    let mut crc = !0u32;
    for byte in parts.iter().flat_map(|part| part.iter()) {
        crc = (crc >> 8) ^ CRC32C[usize::from(crc.to_le_bytes()[0] ^ byte)];
    }
    (!crc).rotate_right(15).wrapping_add(0xA282_EAD8)
}

const CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let mut crc = n;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (0x82F6_3B78 * (crc & 1));
            bit += 1;
        }
        table[n as usize] = crc;
        n += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        let mut input = Input(&[0xAC, 0x02, 0x01, 0x03, 0x34, 0x12, 2, b'a', b'b']);
        assert_eq!(input.varint(), Some(300));
        assert_eq!(input.signed(), Some(-1));
        assert_eq!(input.signed(), Some(-2));
        assert_eq!(input.fixed16(), Some(0x1234));
        assert_eq!(input.string(), Some(&b"ab"[..]));
        assert_eq!(input.byte(), None);
        assert_eq!(Input(&[0x80; 12]).varint(), None);
    }

    #[test]
    fn the_crc_is_the_one_of_rfc_3720() {
        // Appendix B.4: 32 bytes of zeros have the CRC 0x8A9136AA.
        let plain = masked_crc32c(&[&[0; 20], &[0; 12]])
            .wrapping_sub(0xA282_EAD8)
            .rotate_left(15);
        assert_eq!(plain, 0x8A91_36AA);
    }
}
