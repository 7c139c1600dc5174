//! The values of a key: runs of those that are alike.

use bytes::Bytes;

use super::{
    Unpackable,
    columns::{Input, Output},
};
use crate::varint::{put, put_len, unzigzag, zigzag};

const DELETES: u8 = 0;
const PLAIN: u8 = 1;
const SHORT: u8 = 2;
const TEXT: u8 = 3;
/// Stands for a number in a template.
const HOLE: u8 = 0;
/// A column that is not of decimals.
const NO_DECIMALS: u8 = 255;
/// Ends a piece of such a column; no piece holds one.
const END: u8 = b'\n';
/// Digits, sign and point of a decimal that is sure to fit 64 bits.
const DECIMAL_MAX: usize = 18;

/// How the values of a run are written.
#[derive(PartialEq, Eq)]
enum Kind {
    Deletes,
    Plain,
    Short(usize),
    /// The template.
    Text(Vec<u8>),
}

/// Writes the values of a key; `None` is a delete.
pub(super) fn write(values: &[Option<&[u8]>], out: &mut Output) {
    let mut rest = values;
    let mut pieces = Vec::new();
    let mut next = rest.first().map(|value| kind_of(*value, &mut pieces));
    while let Some(kind) = next.take() {
        let mut len = 1;
        while len < rest.len() {
            let before = pieces.len();
            let other = kind_of(rest[len], &mut pieces);
            if other != kind {
                pieces.truncate(before);
                break;
            }
            len += 1;
        }
        let (run, others) = rest.split_at(len);
        write_run(&kind, run, &pieces, out);
        pieces.clear();
        rest = others;
        next = rest.first().map(|value| kind_of(*value, &mut pieces));
    }
}

/// Says how a value is written. The numbers of a text are added to `pieces`.
fn kind_of<'a>(value: Option<&'a [u8]>, pieces: &mut Vec<&'a [u8]>) -> Kind {
    let Some(value) = value else {
        return Kind::Deletes;
    };
    let is_plain = |byte: &u8| *byte >= b' ' || matches!(byte, b'\t' | b'\n' | b'\r');
    if !value.iter().all(is_plain) || std::str::from_utf8(value).is_err() {
        return if value.len() <= 8 {
            Kind::Short(value.len())
        } else {
            Kind::Plain
        };
    }
    let is_number = |byte: u8| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+');
    let mut template = Vec::with_capacity(value.len());
    let mut at = 0;
    while at < value.len() {
        if !is_number(value[at]) {
            template.push(value[at]);
            at += 1;
            continue;
        }
        let len = value[at..]
            .iter()
            .take_while(|byte| is_number(**byte))
            .count();
        template.push(HOLE);
        pieces.push(&value[at..at + len]);
        at += len;
    }
    Kind::Text(template)
}

fn write_run(kind: &Kind, run: &[Option<&[u8]>], pieces: &[&[u8]], out: &mut Output) {
    let begin = |kind: u8, out: &mut Output| {
        out.head.push(kind);
        put_len(&mut out.head, run.len());
    };
    match kind {
        Kind::Deletes => begin(DELETES, out),
        Kind::Plain => {
            begin(PLAIN, out);
            for value in run.iter().flatten() {
                put_len(&mut out.lengths, value.len());
                out.plain.extend_from_slice(value);
            }
        }
        Kind::Short(len) => {
            begin(SHORT, out);
            put_len(&mut out.head, *len);
            let mut before = 0;
            for value in run.iter().flatten() {
                let number = number_of(value);
                out.push_number(number ^ before, *len);
                before = number;
            }
        }
        Kind::Text(template) => {
            begin(TEXT, out);
            put_len(&mut out.head, template.len());
            out.templates.extend_from_slice(template);
            let columns = pieces.len() / run.len();
            for column in 0..columns {
                let column = || pieces.iter().skip(column).step_by(columns).copied();
                write_column(column, out);
            }
        }
    }
}

/// Writes a column as differences of decimals if all of it are some, with one number of decimals.
fn write_column<'a, I: Iterator<Item = &'a [u8]>>(column: impl Fn() -> I, out: &mut Output) {
    let mut numbers = Vec::new();
    let mut places = None;
    for piece in column() {
        match decimal_of(piece) {
            Some((number, found)) if places.is_none_or(|places| places == found) => {
                places = Some(found);
                numbers.push(number);
            }
            _ => {
                out.head.push(NO_DECIMALS);
                for piece in column() {
                    out.texts.extend_from_slice(piece);
                    out.texts.push(END);
                }
                return;
            }
        }
    }
    let steps = || {
        numbers
            .windows(2)
            .map(|pair| zigzag(pair[1].wrapping_sub(pair[0])))
    };
    let bits = 64 - steps().max().unwrap_or(0).leading_zeros();
    let width = u8::try_from(bits.div_ceil(8)).unwrap_or(8);
    out.head.extend([places.unwrap_or(0), width]);
    put(&mut out.head, zigzag(numbers.first().copied().unwrap_or(0)));
    for step in steps() {
        out.push_number(step, usize::from(width));
    }
}

/// A decimal as a number (two's complement) and how many places it has behind the point; `None` if it would
/// not come back as it is.
fn decimal_of(piece: &[u8]) -> Option<(u64, u8)> {
    if piece.len() > DECIMAL_MAX {
        return None;
    }
    let (is_negative, digits) = match piece.split_first()? {
        (b'-', digits) => (true, digits),
        _ => (false, piece),
    };
    let point = digits.iter().position(|byte| *byte == b'.');
    let (whole, places) = match point {
        Some(point) => (&digits[..point], digits.len() - point - 1),
        None => (digits, 0),
    };
    let is_canonical = whole == b"0" || !matches!(whole.first(), None | Some(b'0'));
    if !is_canonical || (point.is_some() && places == 0) {
        return None;
    }
    let mut number = 0u64;
    for (at, byte) in digits.iter().enumerate() {
        if Some(at) != point {
            let digit = char::from(*byte).to_digit(10)?;
            number = number * 10 + u64::from(digit);
        }
    }
    if is_negative && number == 0 {
        return None;
    }
    let number = if is_negative {
        number.wrapping_neg()
    } else {
        number
    };
    Some((number, u8::try_from(places).ok()?))
}

/// The inverse of [`decimal_of`].
fn write_decimal(number: u64, places: u8, out: &mut Vec<u8>) {
    let signed = number.cast_signed();
    if signed < 0 {
        out.push(b'-');
    }
    let places = usize::from(places);
    let text = format!("{:0width$}", signed.unsigned_abs(), width = places + 1);
    let (whole, fraction) = text.split_at(text.len() - places);
    out.extend_from_slice(whole.as_bytes());
    if places > 0 {
        out.push(b'.');
        out.extend_from_slice(fraction.as_bytes());
    }
}

fn number_of(value: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..value.len()].copy_from_slice(value);
    u64::from_le_bytes(bytes)
}

/// Reads the values of a key that has so many entries.
pub(super) fn read(input: &mut Input, rows: usize) -> Result<Vec<Option<Bytes>>, Unpackable> {
    let mut values = Vec::with_capacity(rows);
    while values.len() < rows {
        let kind = input.head.byte().ok_or(Unpackable::Malformed)?;
        let len = input
            .head
            .len()
            .filter(|len| *len > 0 && *len <= rows - values.len());
        let len = len.ok_or(Unpackable::Malformed)?;
        read_run(input, kind, len, &mut values)?;
    }
    Ok(values)
}

fn read_run(
    input: &mut Input,
    kind: u8,
    len: usize,
    values: &mut Vec<Option<Bytes>>,
) -> Result<(), Unpackable> {
    match kind {
        DELETES => values.extend(std::iter::repeat_n(None, len)),
        PLAIN => {
            for _ in 0..len {
                let size = input.lengths.len().ok_or(Unpackable::Malformed)?;
                input.spend(size)?;
                values.push(Some(input.plain.take(size).ok_or(Unpackable::Malformed)?));
            }
        }
        SHORT => {
            let size = input
                .head
                .len()
                .filter(|size| *size <= 8)
                .ok_or(Unpackable::Malformed)?;
            let mut number = 0;
            for _ in 0..len {
                number ^= input.number(size).ok_or(Unpackable::Malformed)?;
                values.push(Some(Bytes::copy_from_slice(&number.to_le_bytes()[..size])));
            }
        }
        TEXT => {
            let template = input.head.len().and_then(|size| input.templates.take(size));
            let template = template.ok_or(Unpackable::Malformed)?;
            read_text(input, &template, len, values)?;
        }
        _ => return Err(Unpackable::Malformed),
    }
    Ok(())
}

/// Reads texts column by column: the holes of a template, filled from left to right.
fn read_text(
    input: &mut Input,
    template: &[u8],
    len: usize,
    values: &mut Vec<Option<Bytes>>,
) -> Result<(), Unpackable> {
    input.spend(template.len().saturating_mul(len))?;
    let mut parts = template.split(|byte| *byte == HOLE);
    let begin = parts.next().unwrap_or_default();
    let mut texts = vec![begin.to_vec(); len];
    for part in parts {
        let places = input.head.byte().ok_or(Unpackable::Malformed)?;
        if places == NO_DECIMALS {
            for text in &mut texts {
                let before = text.len();
                loop {
                    match input.texts.byte().ok_or(Unpackable::Malformed)? {
                        END => break,
                        byte => text.push(byte),
                    }
                }
                input.spend(text.len() - before)?;
                text.extend_from_slice(part);
            }
            continue;
        }
        let width = input
            .head
            .byte()
            .filter(|width| *width <= 8 && usize::from(places) <= DECIMAL_MAX);
        let width = usize::from(width.ok_or(Unpackable::Malformed)?);
        let mut number = unzigzag(input.head.varint().ok_or(Unpackable::Malformed)?);
        for (at, text) in texts.iter_mut().enumerate() {
            if at > 0 {
                let step = input.number(width).ok_or(Unpackable::Malformed)?;
                number = number.wrapping_add(unzigzag(step));
            }
            let before = text.len();
            write_decimal(number, places, text);
            input.spend(text.len() - before)?;
            text.extend_from_slice(part);
        }
    }
    values.extend(texts.into_iter().map(|text| Some(Bytes::from(text))));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_come_back_as_they_are_or_are_none() {
        for text in [
            "0",
            "-1",
            "12.50",
            "-0.5",
            "0.001",
            "99999999999999.999",
            "-12345678901234567",
        ] {
            let (number, places) = decimal_of(text.as_bytes()).unwrap();
            let mut out = Vec::new();
            write_decimal(number, places, &mut out);
            assert_eq!(out, text.as_bytes());
        }
        for text in [
            "",
            "-",
            "+1",
            "01",
            "-0",
            "-0.0",
            "1.",
            ".5",
            "1.2.3",
            "1-2",
            "1234567890123456789",
        ] {
            assert_eq!(decimal_of(text.as_bytes()), None, "{text}");
        }
    }
}
