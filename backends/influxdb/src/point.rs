//! Records to points and back.
//!
//! ```text
//! KEY,id=ID,kind=PUT|DEL[,more=1][,rank=N][,tie=HASH]
//!     base64=B,encoding_prefix=Ni,encoding_suffix="S",timestamp="NTP64/ID",value="V"[,weir="R"]
//!     NANOSECONDS
//! ```
//!
//! `kind` and the fields are those of the stock backend, except `weir`. The tags `id` (the HLC's id)
//! and `rank` (see [`crate::time`]) keep changes apart that share a nanosecond; `tie` does so for
//! different puts that carry one timestamp, all but the one that came first. `weir` is there only
//! where the other fields cannot give the record back exactly (an attachment, a schema that is no
//! text, what a resolver merged): the record's own bytes without its payload, as base64. The tag
//! `more` says that it is there: a server shows the fields of a point one by one while it writes
//! them, and a point without all of its fields is not there yet.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde_json::Value as Json;
use weir_core::{
    record::{Record, RecordRef},
    value::{Encoding, Value},
    version::{Stamp, Version},
};

use crate::{settings::Fields, text, time, typed};

/// The columns that a point is read from, in the order in which they are selected.
pub(crate) const COLUMNS: [&str; 11] = [
    "kind",
    "timestamp",
    "base64",
    "encoding_prefix",
    "encoding_suffix",
    "value",
    "weir",
    "id",
    "rank",
    "tie",
    "more",
];

/// Which of them every point has.
const REQUIRED: std::ops::RangeInclusive<usize> = 0..=5;

/// A point as it was read: the record, and what else says where the point lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Point {
    /// The measurement, or its stand-in where the key is a tag.
    pub name: String,
    /// Nanoseconds since the Unix epoch.
    pub nanos: u64,
    /// Its [`TAGS`]; empty for one that it does not have.
    pub tags: [String; 5],
    /// What it holds.
    pub record: Record,
}

/// Names of the tags in [`Point::tags`].
pub(crate) const TAGS: [&str; 5] = ["kind", "id", "rank", "tie", "more"];

/// Writes the line of a record, its end included. `series` is what comes before the tags, escaped.
pub(crate) fn line(
    out: &mut String,
    series: &str,
    record: RecordRef<'_>,
    is_tie: bool,
    fields: Fields,
) {
    let version = record.head.own;
    let (nanos, rank) = time::split(version.stamp.time);
    let kind = if version.is_delete() { "DEL" } else { "PUT" };
    let id = id_text(version.stamp);
    out.push_str(series);
    // Servers like tags in the order of their names. Writing to a string cannot fail.
    let _ = write!(out, ",id={id},kind={kind}");
    let none = Value::default();
    let value = record.value.unwrap_or(&none);
    let schema = value.encoding.schema.as_deref();
    let suffix = schema.and_then(plain_text).unwrap_or_default();
    let has_more = !is_stock(record, suffix);
    if has_more {
        out.push_str(",more=1");
    }
    if rank > 0 {
        let _ = write!(out, ",rank={rank}");
    }
    if is_tie {
        let _ = write!(out, ",tie={:016x}", version.hash);
    }
    let plain = plain_text(&value.payload);
    let is_text = plain.is_some();
    let encoding = value.encoding.id;
    let _ = write!(out, " base64={},encoding_prefix={encoding}i", !is_text);
    out.push_str(",encoding_suffix=");
    text::string_field(out, suffix);
    let _ = write!(out, ",timestamp=\"{}/{id}\"", version.stamp.time);
    out.push_str(",value=");
    match plain {
        Some(plain) => text::string_field(out, plain),
        None => text::string_field(out, &BASE64.encode(&value.payload)),
    }
    if has_more {
        out.push_str(",weir=");
        text::string_field(out, &BASE64.encode(without_payload(record)));
    }
    if fields == Fields::Typed
        && let Some(plain) = plain
        && record.value.is_some()
    {
        typed::write(out, plain);
    }
    let _ = writeln!(out, " {nanos}");
}

/// Reads the values of [`COLUMNS`] of a row; `None` if the row is not one of a storage, or not all
/// there yet.
///
/// # Errors
/// What is wrong with a row that is one of a storage.
pub(crate) fn read(name: &str, nanos: u64, columns: &[Json]) -> Result<Option<Point>, String> {
    let text = |index: usize| {
        columns
            .get(index)
            .and_then(Json::as_str)
            .unwrap_or_default()
    };
    let kind = text(0);
    let is_there = |index: usize| columns.get(index).is_some_and(|cell| !cell.is_null());
    let mut required = REQUIRED;
    let is_whole = required.all(is_there) && (text(10).is_empty() || is_there(6));
    if !is_whole {
        return Ok(None);
    }
    let Some(stamp) = stamp_of(text(1)) else {
        return Ok(None);
    };
    if kind != "PUT" && kind != "DEL" {
        return Ok(None);
    }
    let bad = |what: &str| format!("the point of {stamp} in {name} {what}");
    // Points of the stock backend, which have no id, are as exact as it makes them.
    let is_in_place =
        text(7).is_empty() || time::join(nanos, text(8).parse().unwrap_or(0)) == Some(stamp.time);
    if !is_in_place {
        return Err(bad("was moved to another time"));
    }
    let value = text(5);
    let payload = if columns.get(2).and_then(Json::as_bool) == Some(true) {
        Bytes::from(BASE64.decode(value).map_err(|_| bad("holds bad base64"))?)
    } else {
        Bytes::copy_from_slice(value.as_bytes())
    };
    let record = match text(6) {
        "" => stock_record(kind, stamp, columns, payload),
        weir => {
            let head = BASE64.decode(weir).ok().map(Bytes::from);
            let record = head.and_then(|head| Record::decode(&head).ok());
            let mut record = record.ok_or_else(|| bad("has a field `weir` that is no record"))?;
            if let Some(value) = &mut record.value {
                value.payload = payload;
            }
            record
        }
    };
    Ok(Some(Point {
        name: name.to_owned(),
        nanos,
        tags: [kind, text(7), text(8), text(9), text(10)].map(str::to_owned),
        record,
    }))
}

/// The version of a point, from a row of [`COLUMNS`].
fn stock_record(kind: &str, stamp: Stamp, columns: &[Json], payload: Bytes) -> Record {
    if kind == "DEL" {
        return Record::own(Version::delete(stamp), None);
    }
    let id = columns.get(3).and_then(Json::as_u64);
    let suffix = columns.get(4).and_then(Json::as_str).unwrap_or_default();
    let value = Value {
        encoding: Encoding {
            id: id.and_then(|id| u16::try_from(id).ok()).unwrap_or_default(),
            schema: (!suffix.is_empty()).then(|| Bytes::copy_from_slice(suffix.as_bytes())),
        },
        attachment: None,
        payload,
    };
    Record::own(Version::put(stamp, value.hash()), Some(value))
}

/// Whether the stock fields alone give the record back.
fn is_stock(record: RecordRef<'_>, suffix: &str) -> bool {
    let head = record.head;
    let value_is_stock = match record.value {
        None => head.own.is_delete() && head.own.hash == 0,
        Some(value) => {
            let schema = value.encoding.schema.as_deref();
            let suffix_is_all = schema.map_or(suffix.is_empty(), |schema| {
                !schema.is_empty() && schema == suffix.as_bytes()
            });
            suffix_is_all
                && value.attachment.is_none()
                && !head.own.is_delete()
                && head.own.hash == value.hash()
        }
    };
    value_is_stock && head.folded.is_none() && record.merged.is_none()
}

fn without_payload(record: RecordRef<'_>) -> Vec<u8> {
    let value = record.value.map(|value| Value {
        payload: Bytes::new(),
        ..value.clone()
    });
    let record = RecordRef {
        value: value.as_ref(),
        ..record
    };
    record.encode()
}

/// The bytes as text that every server takes between quotes as it is: UTF-8 without control
/// characters, tabs aside.
fn plain_text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    (!text.contains(|c: char| c.is_ascii_control() && c != '\t')).then_some(text)
}

/// An HLC's id as uhlc writes it: hexadecimal, no zeros in front, the last byte first.
pub(crate) fn id_text(stamp: Stamp) -> String {
    format!("{:x}", u128::from_le_bytes(stamp.id))
}

/// `NTP64/ID` as a stamp.
fn stamp_of(text: &str) -> Option<Stamp> {
    let (time, id) = text.split_once('/')?;
    Some(Stamp {
        time: time.parse().ok()?,
        id: u128::from_str_radix(id, 16).ok()?.to_le_bytes(),
    })
}

#[cfg(test)]
mod tests;
