//! Records of RocksDB's log format, in which its manifest and its write-ahead logs are.
//!
//! A file is blocks of 32 KiB; a record is in one piece or several, none across the end of a block:
//! masked CRC-32C u32 of all that follows, length u16, type u8, bytes.

use std::{fs, path::Path};

use weir_backend_api::{Error, Result};

use super::{
    bytes::{Input, masked_crc32c},
    corrupt,
};

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;

/// The whole records of a file, in order. The last item is an error if the file is damaged; a record
/// that ends with the file is one whose writer was killed, and no error.
pub fn records(path: &Path) -> Result<Vec<Result<Vec<u8>>>> {
    let file = fs::read(path);
    let file = file.map_err(|e| Error::io(format!("cannot read {}", path.display()), e))?;
    let mut records = Vec::new();
    let mut reader = Reader { file: &file, at: 0 };
    loop {
        match reader.record() {
            Ok(Some(record)) => records.push(Ok(record)),
            Ok(None) => return Ok(records),
            Err(what) => {
                let at = reader.at;
                let message = format!("{} is damaged at byte {at}: {what}", path.display());
                records.push(Err(corrupt(message)));
                return Ok(records);
            }
        }
    }
}

struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

/// Type and bytes of a piece.
type Piece<'a> = (u8, &'a [u8]);

impl<'a> Reader<'a> {
    fn record(&mut self) -> std::result::Result<Option<Vec<u8>>, &'static str> {
        let mut record: Option<Vec<u8>> = None;
        while let Some((kind, bytes)) = self.piece()? {
            match (kind, &mut record) {
                (1 | 5, None) => return Ok(Some(bytes.to_vec())),
                (2 | 6, None) => record = Some(bytes.to_vec()),
                (3 | 7, Some(record)) => record.extend_from_slice(bytes),
                (4 | 8, Some(whole)) => {
                    whole.extend_from_slice(bytes);
                    return Ok(record);
                }
                // The sizes of user-defined timestamps, which a stock storage has none of.
                (10 | 11, None) => {}
                (9, _) => return Err("it is compressed, which zenohd's logs are not"),
                _ => return Err("pieces of a record are out of order"),
            }
        }
        Ok(None)
    }

    fn piece(&mut self) -> std::result::Result<Option<Piece<'a>>, &'static str> {
        loop {
            let left_in_block = BLOCK - self.at % BLOCK;
            if left_in_block < HEADER {
                self.at += left_in_block;
            }
            let mut input = Input(self.file.get(self.at..).unwrap_or_default());
            let (Some(crc), Some(len), Some(kind)) =
                (input.fixed32(), input.fixed16(), input.byte())
            else {
                return Ok(None);
            };
            if kind == 0 && len == 0 && crc == 0 {
                // Reserved space that was never written.
                self.at += BLOCK - self.at % BLOCK;
                continue;
            }
            // Recycled files repeat their number in each header.
            let number = if matches!(kind, 5..=8 | 11) { 4 } else { 0 };
            let Some(number) = input.take(number) else {
                return Ok(None);
            };
            let Some(bytes) = input.take(usize::from(len)) else {
                return Ok(None);
            };
            if masked_crc32c(&[&[kind], number, bytes]) != crc {
                return Err("a checksum is wrong");
            }
            self.at += HEADER + number.len() + bytes.len();
            return Ok(Some((kind, bytes)));
        }
    }
}
