//! The fields of each kind of frame.

use bytes::Bytes;

use super::{Bad, Found, Reply, Request, Stored};
use crate::{
    forward::{Cause, Lost, Source, Stretch},
    key::Key,
    ledger::Summary,
    version::Version,
    wire::{Fields, Last, Reader, bound, count, field, ids, sized, varint},
};

const COMPARE: u8 = 1;
const LIST: u8 = 2;
const HEADS: u8 = 3;
const OPERATIONS: u8 = 4;
const SHIP: u8 = 5;
const LOST: u8 = 6;
const REPLY: u8 = 0x80;
const REFUSED: u8 = REPLY;

/// The tags of fields; each means the same in every kind that has it.
mod tag {
    pub const STRETCHES: u8 = 1;
    pub const STRETCH: u8 = 2;
    pub const IDS: u8 = 3;
    pub const HEADS: u8 = 4;
    pub const PACKED: u8 = 5;
    pub const LOST: u8 = 6;
    pub const FOUND: u8 = 7;
    pub const ABSENT: u8 = 8;
    pub const STORED: u8 = 9;
    pub const WHY: u8 = 10;
}

/// A stretch of the source of the one before, told from where that one ends.
const FOLLOWS: u8 = 1;
/// A stretch that is not of whole seconds.
const FINE: u8 = 2;

pub fn write_request(request: &Request, out: &mut Vec<u8>) -> u8 {
    match request {
        Request::Compare(stretches) => {
            field(out, tag::STRETCHES, |out| {
                let mut before = None;
                for (of, summary) in stretches {
                    stretch(out, &mut before, of);
                    varint(out, summary.count);
                    out.extend(summary.sum.to_be_bytes());
                }
            });
            COMPARE
        }
        Request::List {
            stretch: of,
            ids: asked,
        } => {
            field(out, tag::STRETCH, |out| stretch(out, &mut None, of));
            field(out, tag::IDS, |out| ids(out, asked));
            LIST
        }
        Request::Heads(heads) => {
            field(out, tag::HEADS, |out| {
                let mut last = Last::default();
                for (key, version) in heads {
                    bound(out, &mut last, Some(key.as_bytes()));
                    out.extend(version.to_bytes());
                }
            });
            HEADS
        }
        Request::Operations(asked) => {
            field(out, tag::IDS, |out| ids(out, asked));
            OPERATIONS
        }
        Request::Ship { packed } => {
            out.push(tag::PACKED);
            sized(out, packed);
            SHIP
        }
        Request::Lost(lost) => {
            field(out, tag::LOST, |out| {
                let mut before = None;
                for of in lost {
                    stretch(out, &mut before, &of.stretch);
                    varint(out, of.count);
                    out.push(cause_code(of.cause));
                }
            });
            LOST
        }
    }
}

pub fn write_reply(reply: &Reply, out: &mut Vec<u8>) -> u8 {
    let kind = match reply {
        Reply::Compared(found) => {
            field(out, tag::FOUND, |out| {
                for found in found {
                    write_found(out, *found);
                }
            });
            COMPARE
        }
        Reply::Listed(absent) => {
            field(out, tag::ABSENT, |out| bitmap(out, absent));
            LIST
        }
        Reply::Heads(absent) => {
            field(out, tag::ABSENT, |out| bitmap(out, absent));
            HEADS
        }
        Reply::Operations(absent) => {
            field(out, tag::ABSENT, |out| bitmap(out, absent));
            OPERATIONS
        }
        Reply::Stored(stored) => {
            field(out, tag::STORED, |out| {
                let Stored {
                    applied,
                    superfluous,
                    aside,
                    refused,
                    credit,
                    spent_us,
                } = *stored;
                for number in [applied, superfluous, aside, refused, credit, spent_us] {
                    varint(out, number);
                }
            });
            SHIP
        }
        Reply::Noted => LOST,
        Reply::Refused(why) => {
            field(out, tag::WHY, |out| out.push(why.code()));
            return REFUSED;
        }
    };
    REPLY | kind
}

pub fn read_request(kind: u8, fields: Bytes) -> Result<Request, Bad> {
    let mut found = read_fields(kind, fields)?;
    Ok(match kind {
        COMPARE => {
            let mut value = found.required(tag::STRETCHES)?;
            let (mut before, mut stretches) = (None, Vec::new());
            while !value.is_empty() {
                let of = read_stretch(&mut value, &mut before)?;
                let count = value.varint()?;
                let sum = u128::from_be_bytes(value.array()?);
                stretches.push((of, Summary { count, sum }));
            }
            Request::Compare(stretches)
        }
        LIST => Request::List {
            stretch: read_stretch(&mut found.required(tag::STRETCH)?, &mut None)?,
            ids: found.required(tag::IDS)?.ids()?,
        },
        HEADS => {
            let mut value = found.required(tag::HEADS)?;
            let (mut last, mut heads) = (Last::default(), Vec::new());
            while !value.is_empty() {
                let key = value.bound(&mut last)?.ok_or(Bad::Malformed)?;
                let key = String::from_utf8(key).map_err(|_| Bad::Malformed)?;
                let version = value.take(Version::LEN)?;
                let version = Version::from_bytes(&version).ok_or(Bad::Malformed)?;
                heads.push((Key::new(key), version));
            }
            Request::Heads(heads)
        }
        OPERATIONS => Request::Operations(found.required(tag::IDS)?.ids()?),
        SHIP => Request::Ship {
            packed: found.required(tag::PACKED)?.rest(),
        },
        LOST => {
            let mut value = found.required(tag::LOST)?;
            let (mut before, mut lost) = (None, Vec::new());
            while !value.is_empty() {
                lost.push(Lost {
                    stretch: read_stretch(&mut value, &mut before)?,
                    count: value.varint()?,
                    cause: cause(value.u8()?),
                });
            }
            Request::Lost(lost)
        }
        _ => return Err(Bad::Kind),
    })
}

pub fn read_reply(kind: u8, fields: Bytes) -> Result<Reply, Bad> {
    if kind == REFUSED {
        let mut found = Fields::read(fields, tag::WHY)?;
        return Ok(Reply::Refused(Bad::of(found.required(tag::WHY)?.u8()?)));
    }
    let mut found = read_fields(kind ^ REPLY, fields)?;
    Ok(match kind ^ REPLY {
        COMPARE => {
            let mut value = found.required(tag::FOUND)?;
            let mut founds = Vec::new();
            while !value.is_empty() {
                founds.push(read_found(&mut value)?);
            }
            Reply::Compared(founds)
        }
        LIST => Reply::Listed(read_bitmap(found.required(tag::ABSENT)?)?),
        HEADS => Reply::Heads(read_bitmap(found.required(tag::ABSENT)?)?),
        OPERATIONS => Reply::Operations(read_bitmap(found.required(tag::ABSENT)?)?),
        SHIP => {
            let mut value = found.required(tag::STORED)?;
            Reply::Stored(Stored {
                applied: value.varint()?,
                superfluous: value.varint()?,
                aside: value.varint()?,
                refused: value.varint()?,
                credit: value.varint()?,
                spent_us: value.varint()?,
            })
        }
        LOST => Reply::Noted,
        _ => return Err(Bad::Kind),
    })
}

fn read_fields(kind: u8, fields: Bytes) -> Result<Fields, Bad> {
    if !(COMPARE..=LOST).contains(&kind) {
        return Err(Bad::Kind);
    }
    Fields::read(fields, tag::WHY)
}

/// The source and the end (in seconds) of the stretch before.
type Before = Option<(Source, u64)>;

fn stretch(out: &mut Vec<u8>, before: &mut Before, stretch: &Stretch) {
    let Stretch { source, from, to } = *stretch;
    let is_fine = whole(from).is_none() || whole(to).is_none();
    let (begin, end) = (from >> 32, to >> 32);
    let base = before.and_then(|(of, at)| (of == source && at <= begin).then_some(at));
    let flag = |set, flag| if set { flag } else { 0 };
    out.push(flag(base.is_some(), FOLLOWS) | flag(is_fine, FINE));
    if base.is_none() {
        out.extend(source);
    }
    if is_fine {
        out.extend(from.to_be_bytes());
        out.extend(to.to_be_bytes());
    } else {
        varint(out, begin - base.unwrap_or(0));
        varint(out, end.saturating_sub(begin));
    }
    *before = Some((source, end));
}

fn read_stretch(value: &mut Reader, before: &mut Before) -> Result<Stretch, Bad> {
    let flags = value.u8()?;
    if flags > FOLLOWS | FINE {
        return Err(Bad::Malformed);
    }
    let (source, base) = match before {
        Some((source, base)) if flags & FOLLOWS != 0 => (*source, *base),
        None if flags & FOLLOWS != 0 => return Err(Bad::Malformed),
        _ => (value.array()?, 0),
    };
    let (from, to) = if flags & FINE != 0 {
        (value.u64()?, value.u64()?)
    } else {
        let begin = base.checked_add(value.varint()?).ok_or(Bad::Malformed)?;
        let end = begin.checked_add(value.varint()?).ok_or(Bad::Malformed)?;
        let time = |seconds: u64| u32::try_from(seconds).map(|seconds| u64::from(seconds) << 32);
        let time = |seconds| time(seconds).map_err(|_| Bad::Malformed);
        (time(begin)?, time(end)?)
    };
    if to <= from {
        return Err(Bad::Malformed);
    }
    *before = Some((source, to >> 32));
    Ok(Stretch { source, from, to })
}

/// The second that a time is the beginning of.
const fn whole(time: u64) -> Option<u64> {
    if time.trailing_zeros() >= 32 {
        Some(time >> 32)
    } else {
        None
    }
}

fn write_found(out: &mut Vec<u8>, found: Found) {
    match found {
        Found::Have => out.push(0),
        Found::Absent => out.push(1),
        Found::Differs { count } => {
            out.push(2);
            varint(out, count);
        }
        Found::Latest => out.push(3),
        Found::Gone => out.push(4),
        Found::Merged => out.push(5),
    }
}

fn read_found(value: &mut Reader) -> Result<Found, Bad> {
    Ok(match value.u8()? {
        0 => Found::Have,
        1 => Found::Absent,
        2 => Found::Differs {
            count: value.varint()?,
        },
        3 => Found::Latest,
        4 => Found::Gone,
        5 => Found::Merged,
        _ => return Err(Bad::Malformed),
    })
}

/// How many, then a bit for each, the lowest of a byte first.
fn bitmap(out: &mut Vec<u8>, bits: &[bool]) {
    count(out, bits.len());
    for bits in bits.chunks(8) {
        let mut byte = 0;
        for (at, bit) in bits.iter().enumerate() {
            byte |= u8::from(*bit) << at;
        }
        out.push(byte);
    }
}

fn read_bitmap(mut value: Reader) -> Result<Vec<bool>, Bad> {
    let count = value.count()?;
    let bytes = value.take(count.div_ceil(8))?;
    let bits = bytes
        .iter()
        .flat_map(|byte| (0..8).map(move |at| byte >> at & 1 == 1));
    let mut bits: Vec<bool> = bits.collect();
    if bits[count..].contains(&true) {
        return Err(Bad::Malformed);
    }
    bits.truncate(count);
    Ok(bits)
}

const fn cause_code(cause: Cause) -> u8 {
    match cause {
        Cause::Other => 0,
        Cause::Full => 1,
        Cause::Age => 2,
        Cause::Damage => 3,
    }
}

const fn cause(code: u8) -> Cause {
    match code {
        1 => Cause::Full,
        2 => Cause::Age,
        3 => Cause::Damage,
        _ => Cause::Other,
    }
}
