//! Parcels: what is shipped together, in columns, each packed by zstd at level 1.
//!
//! Entries are sorted by key, and within a key as they came; so they come out. Of values that are text, as
//! JSON is, what they have in common is told once and each number is a column of its own: differences of
//! decimals, the lowest bytes together, then the next. 40 bytes of JSON become 3 to 4; a stamp takes some 3
//! that cannot be guessed.
//!
//! ```text
//! 0    version (1)
//! then [`STREAMS`] streams: length, length packed (0: as it is), bytes. Numbers are varints.
//!
//! head       how many sources, 16 bytes each
//!            how many shapes, each: index of its source, encoding id, flags (1 schema, 2 attachment),
//!                if 1: length, schema
//!            how many keys, each: bytes shared with the last one, length of the rest, the rest,
//!                1 if it is a wildcard operation's, how many entries;
//!                behind it its runs, until they have that many entries:
//!                kind, how many entries, then
//!                0 deletes
//!                1 anything: lengths are in `lengths`, bytes in `plain`
//!                2 of one length up to 8: the length; each xor the one before is in `numbers`
//!                3 text: length of the template in `templates`; 0 stands in it for a column. Of each column
//!                  how many decimals, or 255 for text in `texts`, each with a line feed behind; if decimals:
//!                  bytes of a difference, the first (zigzag); the others are in `numbers`
//! shapes     of each entry
//! lengths    of plain values and of attachments; attachments, then plain values, then templates, texts
//! times      way from the entry before, zigzag, by byte: 8 streams; the first of a key from that of the last
//! numbers    by byte: 8 streams
//! ```

mod columns;
mod text;

use std::collections::HashMap;

use bytes::Bytes;
use thiserror::Error;
use weir_core::{
    change::{Change, KeptChange, WildcardChange},
    forward::{Entry, Source},
    key::Key,
    value::{Encoding, Value},
    version::Stamp,
};
use zenoh_keyexpr::OwnedKeyExpr;

use crate::{
    block::shared_len,
    pack::columns::{Input, Output},
    varint::{put, put_len, unzigzag, zigzag},
};

/// What this build writes and reads.
const VERSION: u8 = 1;
/// How many streams a parcel has.
pub(crate) const STREAMS: usize = 23;
/// Bytes that an entry counts for beside its key and value.
const ENTRY_BYTES: usize = 64;
const SCHEMA: u8 = 1;
const ATTACHMENT: u8 = 2;

/// A parcel that makes no sense, or is larger than is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Unpackable {
    /// It is of another version.
    #[error("the parcel is of version {0}, this release reads version 1")]
    Version(u8),
    /// Its bytes are none of a parcel.
    #[error("the parcel makes no sense")]
    Malformed,
    /// It would hold more than is taken.
    #[error("the parcel is too large")]
    Large,
}

/// What the entries of a parcel share but for key and time.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Shape {
    source: usize,
    encoding: u16,
    schema: Option<Bytes>,
    has_attachment: bool,
}

/// Packs entries. Lane and expiry stay here. Costs some 0.5 us an entry, and zstd's 200 MB/s or so.
#[must_use]
pub fn pack(entries: &[Entry]) -> Bytes {
    let mut groups: Vec<(&str, bool, Vec<Row<'_>>)> = Vec::new();
    let mut known: HashMap<(&str, bool), usize> = HashMap::new();
    for entry in entries {
        let row = Row::of(entry);
        let at = *known
            .entry((row.text, row.is_wildcard))
            .or_insert(groups.len());
        if at == groups.len() {
            groups.push((row.text, row.is_wildcard, Vec::new()));
        }
        groups[at].2.push(row);
    }
    groups.sort_unstable_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    let mut out = Output::default();
    let shapes = write_shapes(&groups, &mut out);
    put_len(&mut out.head, groups.len());
    let (mut text, mut first) = ("", 0);
    for (key, is_wildcard, rows) in &groups {
        let shared = shared_len(text.as_bytes(), key.as_bytes());
        put_len(&mut out.head, shared);
        put_len(&mut out.head, key.len() - shared);
        out.head.extend_from_slice(&key.as_bytes()[shared..]);
        out.head.push(u8::from(*is_wildcard));
        put_len(&mut out.head, rows.len());
        text = key;
        let mut before = first;
        for row in rows {
            put_len(&mut out.shapes, shapes[&row.shape(&out.sources)]);
            if let Some(attachment) = row.value.and_then(|value| value.attachment.as_ref()) {
                put_len(&mut out.lengths, attachment.len());
                out.attachments.extend_from_slice(attachment);
            }
            out.push_time(zigzag(row.stamp.time.wrapping_sub(before)));
            before = row.stamp.time;
        }
        first = rows.first().map_or(first, |row| row.stamp.time);
        let values: Vec<_> = rows
            .iter()
            .map(|row| row.value.map(|it| &it.payload[..]))
            .collect();
        text::write(&values, &mut out);
    }
    out.finish(VERSION)
}

/// Unpacks what [`pack`] has packed, of at most so many bytes: keys, values with all that belongs to them,
/// and 64 an entry.
///
/// # Errors
/// If the bytes are no parcel, or one of more than that. Costs memory in proportion to `bytes_max` at most.
pub fn unpack(bytes: &Bytes, bytes_max: usize) -> Result<Vec<KeptChange>, Unpackable> {
    unpack_long(bytes, bytes_max, bytes_max)
}

/// [`unpack`], with another limit if there is one entry alone: that is as long as it is, and several are
/// packed together only as long as they are short.
///
/// # Errors
/// As there.
pub fn unpack_long(
    bytes: &Bytes,
    bytes_max: usize,
    one_bytes_max: usize,
) -> Result<Vec<KeptChange>, Unpackable> {
    let most = |entries: usize| {
        if entries > 1 {
            bytes_max
        } else {
            one_bytes_max
        }
    };
    let mut input = Input::open(bytes, VERSION, most)?;
    let malformed = Unpackable::Malformed;
    let (sources, shapes) = read_shapes(&mut input).ok_or(malformed)?;
    let mut changes = Vec::new();
    let mut text: Vec<u8> = Vec::new();
    let mut first = 0;
    for _ in 0..input.head.len().ok_or(malformed)? {
        let group = read_group(&mut input, &mut text)?;
        let mut heads = Vec::with_capacity(group.rows);
        let mut time = first;
        for row in 0..group.rows {
            let (shape, attachment) = read_head(&mut input, &shapes).ok_or(malformed)?;
            // Entries share what is told once, but each counts for it.
            let schema = shapes[shape].schema.as_ref().map_or(0, Bytes::len);
            input.spend(schema + attachment.as_ref().map_or(0, Bytes::len))?;
            let step = input.time().ok_or(malformed)?;
            time = u64::wrapping_add(time, unzigzag(step));
            if row == 0 {
                first = time;
            }
            heads.push((
                shape,
                attachment,
                Stamp {
                    time,
                    id: sources[shapes[shape].source],
                },
            ));
        }
        let values = text::read(&mut input, group.rows)?;
        for ((shape, attachment, stamp), payload) in heads.into_iter().zip(values) {
            let shape = &shapes[shape];
            let encoding = Encoding {
                id: shape.encoding,
                schema: shape.schema.clone(),
            };
            let value = payload.map(|payload| Value {
                encoding,
                attachment,
                payload,
            });
            changes.push(group.change(stamp, value));
        }
    }
    Ok(changes)
}

/// An entry, looked at.
struct Row<'a> {
    text: &'a str,
    is_wildcard: bool,
    stamp: Stamp,
    value: Option<&'a Value>,
}

impl<'a> Row<'a> {
    fn of(entry: &'a Entry) -> Self {
        let (text, is_wildcard, stamp, value) = match &entry.change {
            KeptChange::Key(change) => (&*change.key, false, change.stamp, change.value.as_ref()),
            KeptChange::Wildcard(change) => (
                change.expr.as_str(),
                true,
                change.stamp,
                change.value.as_ref(),
            ),
        };
        Self {
            text,
            is_wildcard,
            stamp: stamp.unwrap_or(Stamp::ZERO),
            value,
        }
    }

    fn shape(&self, sources: &HashMap<Source, usize>) -> Shape {
        Shape {
            source: sources.get(&self.stamp.id).copied().unwrap_or(0),
            encoding: self.value.map_or(0, |value| value.encoding.id),
            schema: self.value.and_then(|value| value.encoding.schema.clone()),
            has_attachment: self.value.is_some_and(|value| value.attachment.is_some()),
        }
    }
}

fn write_shapes(groups: &[(&str, bool, Vec<Row<'_>>)], out: &mut Output) -> HashMap<Shape, usize> {
    let rows = || groups.iter().flat_map(|(_, _, rows)| rows);
    let mut sources = Vec::new();
    for row in rows() {
        let next = out.sources.len();
        out.sources.entry(row.stamp.id).or_insert_with(|| {
            sources.push(row.stamp.id);
            next
        });
    }
    put_len(&mut out.head, sources.len());
    out.head.extend(sources.iter().flatten());
    let mut shapes = HashMap::new();
    let mut list = Vec::new();
    for row in rows() {
        let next = shapes.len();
        let shape = row.shape(&out.sources);
        shapes.entry(shape.clone()).or_insert_with(|| {
            list.push(shape);
            next
        });
    }
    put_len(&mut out.head, list.len());
    for shape in list {
        put_len(&mut out.head, shape.source);
        put(&mut out.head, u64::from(shape.encoding));
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        out.head
            .push(flag(shape.schema.is_some(), SCHEMA) | flag(shape.has_attachment, ATTACHMENT));
        if let Some(schema) = shape.schema {
            put_len(&mut out.head, schema.len());
            out.head.extend_from_slice(&schema);
        }
    }
    shapes
}

fn read_shapes(input: &mut Input) -> Option<(Vec<Source>, Vec<Shape>)> {
    let mut sources = Vec::new();
    for _ in 0..input.head.len()? {
        sources.push(input.head.array()?);
    }
    let mut shapes = Vec::new();
    for _ in 0..input.head.len()? {
        let source = input.head.len().filter(|source| *source < sources.len())?;
        let encoding = u16::try_from(input.head.varint()?).ok()?;
        let flags = input.head.byte()?;
        let schema = if flags & SCHEMA == 0 {
            None
        } else {
            let len = input.head.len()?;
            Some(input.head.take(len)?)
        };
        shapes.push(Shape {
            source,
            encoding,
            schema,
            has_attachment: flags & ATTACHMENT != 0,
        });
    }
    Some((sources, shapes))
}

/// The entries of a key.
struct Group {
    key: Key,
    expr: Option<OwnedKeyExpr>,
    rows: usize,
}

impl Group {
    fn change(&self, stamp: Stamp, value: Option<Value>) -> KeptChange {
        let stamp = Some(stamp);
        match &self.expr {
            None => KeptChange::Key(Change {
                key: self.key.clone(),
                stamp,
                value,
            }),
            Some(expr) => KeptChange::Wildcard(WildcardChange {
                expr: expr.clone(),
                stamp,
                value,
            }),
        }
    }
}

fn read_group(input: &mut Input, text: &mut Vec<u8>) -> Result<Group, Unpackable> {
    let (is_wildcard, rows) = read_group_head(input, text).ok_or(Unpackable::Malformed)?;
    // To look at a key takes as long as it is, so it is paid for first.
    input.spend(rows.saturating_mul(ENTRY_BYTES + text.len()))?;
    let key = String::from_utf8(text.clone()).map_err(|_| Unpackable::Malformed)?;
    let expr = match is_wildcard {
        false => None,
        true => Some(OwnedKeyExpr::new(key.as_str()).map_err(|_| Unpackable::Malformed)?),
    };
    Ok(Group {
        key: Key::new(key),
        expr,
        rows,
    })
}

/// Whether a key is an expression, and how many entries it has: one at least, or it would cost nothing.
fn read_group_head(input: &mut Input, text: &mut Vec<u8>) -> Option<(bool, usize)> {
    let shared = input.head.len().filter(|shared| *shared <= text.len())?;
    let len = input.head.len()?;
    let rest = input.head.take(len)?;
    text.truncate(shared);
    text.extend_from_slice(&rest);
    let is_wildcard = input.head.byte()? != 0;
    let rows = input.head.len().filter(|rows| *rows > 0)?;
    // Each entry has a byte at least that says its shape.
    (rows <= input.shapes.left()).then_some((is_wildcard, rows))
}

fn read_head(input: &mut Input, shapes: &[Shape]) -> Option<(usize, Option<Bytes>)> {
    let shape = input.shapes.len().filter(|shape| *shape < shapes.len())?;
    if !shapes[shape].has_attachment {
        return Some((shape, None));
    }
    let len = input.lengths.len()?;
    Some((shape, Some(input.attachments.take(len)?)))
}

#[cfg(test)]
mod tests;
