//! The fields of each kind of frame.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::{Bad, Brief, Cut, Parcel, Probe, Probed, Reply, Request, Rest, Strip, Verdict, Want};
use crate::{
    change::{KeptChange, WildcardChange},
    identity::Identity,
    key::Key,
    ledger::{Axis, Span, Summary},
    mirror::State,
    record::Record,
    version::Version,
    wildcard::WildcardOp,
    wire::{Fields, Last, Reader, bound, count, field, ids, sized, varint, word},
};

const PROBE: u8 = 1;
const WILDCARDS: u8 = 2;
const COMPARE: u8 = 3;
const LIST: u8 = 4;
const FETCH: u8 = 5;
const PUSH: u8 = 6;
const REPLY: u8 = 0x80;
const REFUSED: u8 = REPLY;

/// The tags of fields; each means the same in every kind that has it.
mod tag {
    pub const KEYS: u8 = 1;
    pub const TIMES: u8 = 2;
    pub const REST: u8 = 3;
    pub const NOW: u8 = 4;
    pub const FLAGS: u8 = 5;
    pub const KEYS_CUT: u8 = 6;
    pub const TIMES_CUT: u8 = 7;
    pub const FLOOR: u8 = 8;
    pub const HORIZON: u8 = 9;
    pub const REVISION: u8 = 10;
    pub const WILDCARDS: u8 = 11;
    pub const IDS: u8 = 12;
    pub const CREDIT: u8 = 13;
    pub const STRIPS: u8 = 14;
    pub const SPAN: u8 = 15;
    pub const PART: u8 = 16;
    pub const WANTS: u8 = 17;
    pub const OPS: u8 = 18;
    pub const STATES: u8 = 19;
    pub const MORE: u8 = 20;
    pub const VERDICTS: u8 = 21;
    pub const NEXT: u8 = 22;
    pub const WHY: u8 = 23;
    pub const PACKED: u8 = 24;
    pub const STORES: u8 = 25;
    /// The greatest of them.
    pub const LAST: u8 = STORES;
}

const SILENT: u8 = 1;
const DEAF: u8 = 2;
const WAITS: u8 = 4;
const UNPACKS: u8 = 8;

/// What stands for a wildcard operation in lists.
#[must_use]
pub fn op_id(op: &WildcardOp) -> u64 {
    let mut bytes = op.version.to_bytes().to_vec();
    bytes.extend_from_slice(op.expr.as_bytes());
    xxh3_64(&bytes)
}

pub fn write_request(request: &Request, out: &mut Vec<u8>) -> u8 {
    match request {
        Request::Probe(probe) => {
            field(out, tag::KEYS, |out| summary(out, probe.keys));
            if let Some((minute, times)) = probe.times {
                field(out, tag::TIMES, |out| {
                    varint(out, minute);
                    summary(out, times);
                });
            }
            word(out, tag::REST, probe.rest);
            if probe.revision != 0 {
                word(out, tag::REVISION, probe.revision);
            }
            flags(out, &[(probe.waits, WAITS)]);
            stores(out, &probe.stores);
            PROBE
        }
        Request::Wildcards {
            horizon,
            ids: known,
            credit,
        } => {
            version(out, *horizon);
            field(out, tag::IDS, |out| ids(out, known));
            field(out, tag::CREDIT, |out| varint(out, *credit));
            WILDCARDS
        }
        Request::Compare(strips) => {
            field(out, tag::STRIPS, |out| {
                let mut last = Last::default();
                for strip in strips {
                    span(out, &mut last, &strip.span);
                    cut(out, &mut last, strip.span.axis, &strip.cut);
                }
            });
            COMPARE
        }
        Request::List {
            span: of_span,
            of,
            part,
        } => {
            field(out, tag::SPAN, |out| {
                span(out, &mut Last::default(), of_span)
            });
            field(out, tag::PART, |out| {
                varint(out, *of);
                varint(out, *part);
            });
            LIST
        }
        Request::Fetch {
            wants,
            floor,
            horizon,
            credit,
            unpacks,
        } => {
            field(out, tag::WANTS, |out| {
                let mut last = Last::default();
                for want in wants {
                    span(out, &mut last, &want.span);
                    out.push(u8::from(want.ids.is_some()));
                    if let Some(wanted) = &want.ids {
                        ids(out, wanted);
                    }
                }
            });
            word(out, tag::FLOOR, *floor);
            version(out, *horizon);
            field(out, tag::CREDIT, |out| varint(out, *credit));
            flags(out, &[(*unpacks, UNPACKS)]);
            FETCH
        }
        Request::Push(sent) => {
            parcel(out, sent);
            PUSH
        }
    }
}

pub fn write_reply(reply: &Reply, out: &mut Vec<u8>) -> u8 {
    let kind = match reply {
        Reply::Probed(probed) => {
            write_probed(out, probed);
            PROBE
        }
        Reply::Wildcards {
            parcel: sent,
            more,
            missing,
        } => {
            parcel(out, sent);
            if *more {
                field(out, tag::MORE, |_| ());
            }
            field(out, tag::IDS, |out| ids(out, missing));
            WILDCARDS
        }
        Reply::Compared(verdicts) => {
            field(out, tag::VERDICTS, |out| write_verdicts(out, verdicts));
            COMPARE
        }
        Reply::Listed(listed) => {
            field(out, tag::IDS, |out| ids(out, listed));
            LIST
        }
        Reply::Page { parcel: sent, next } => {
            parcel(out, sent);
            if let Some((index, position)) = next {
                field(out, tag::NEXT, |out| {
                    varint(out, *index);
                    out.extend_from_slice(position);
                });
            }
            FETCH
        }
        Reply::Stored => PUSH,
        Reply::Refused(why) => {
            field(out, tag::WHY, |out| out.push(why.code()));
            return REFUSED;
        }
    };
    REPLY | kind
}

pub fn read_request(kind: u8, fields: Bytes) -> Result<Request, Bad> {
    let mut found = read_fields(kind & !REPLY, fields)?;
    Ok(match kind {
        PROBE => {
            let mut times = found.optional(tag::TIMES);
            Request::Probe(Probe {
                keys: read_summary(&mut found.required(tag::KEYS)?)?,
                times: times
                    .as_mut()
                    .map(|value| Ok((value.varint()?, read_summary(value)?)))
                    .transpose()?,
                rest: found.word(tag::REST)?,
                revision: match found.optional(tag::REVISION) {
                    Some(mut value) => value.u64()?,
                    None => 0,
                },
                waits: found.flags()? & WAITS != 0,
                stores: found.stores()?,
            })
        }
        WILDCARDS => Request::Wildcards {
            horizon: found.horizon()?,
            ids: found.required(tag::IDS)?.ids()?,
            credit: found.required(tag::CREDIT)?.varint()?,
        },
        COMPARE => {
            let mut value = found.required(tag::STRIPS)?;
            let (mut last, mut strips) = (Last::default(), Vec::new());
            while !value.is_empty() {
                let span = read_span(&mut value, &mut last)?;
                let cut = read_cut(&mut value, &mut last, span.axis)?;
                if cut.parts(&span).is_none() {
                    return Err(Bad::Malformed);
                }
                strips.push(Strip { span, cut });
            }
            Request::Compare(strips)
        }
        LIST => {
            let mut part = found.required(tag::PART)?;
            Request::List {
                span: read_span(&mut found.required(tag::SPAN)?, &mut Last::default())?,
                of: part.varint()?,
                part: part.varint()?,
            }
        }
        FETCH => {
            let mut value = found.required(tag::WANTS)?;
            let (mut last, mut wants) = (Last::default(), Vec::new());
            while !value.is_empty() {
                let span = read_span(&mut value, &mut last)?;
                let ids = if value.u8()? == 0 {
                    None
                } else {
                    Some(value.ids()?)
                };
                wants.push(Want { span, ids });
            }
            Request::Fetch {
                wants,
                floor: found.word(tag::FLOOR)?,
                horizon: found.horizon()?,
                credit: found.required(tag::CREDIT)?.varint()?,
                unpacks: found.flags()? & UNPACKS != 0,
            }
        }
        PUSH => Request::Push(found.parcel()?),
        _ => return Err(Bad::Kind),
    })
}

pub fn read_reply(kind: u8, fields: Bytes) -> Result<Reply, Bad> {
    if kind == REFUSED {
        let mut found = read_fields(PUSH, fields)?;
        return Ok(Reply::Refused(Bad::of(found.required(tag::WHY)?.u8()?)));
    }
    let mut found = read_fields(kind & !REPLY, fields)?;
    Ok(match kind ^ REPLY {
        PROBE => Reply::Probed(Box::new(read_probed(&mut found)?)),
        WILDCARDS => Reply::Wildcards {
            parcel: found.parcel()?,
            more: found.optional(tag::MORE).is_some(),
            missing: found.required(tag::IDS)?.ids()?,
        },
        COMPARE => Reply::Compared(read_verdicts(found.required(tag::VERDICTS)?)?),
        LIST => Reply::Listed(found.required(tag::IDS)?.ids()?),
        FETCH => Reply::Page {
            parcel: found.parcel()?,
            next: match found.optional(tag::NEXT) {
                Some(mut value) => Some((value.varint()?, value.rest().to_vec())),
                None => None,
            },
        },
        PUSH => Reply::Stored,
        _ => return Err(Bad::Kind),
    })
}

fn write_probed(out: &mut Vec<u8>, probed: &Probed) {
    word(out, tag::NOW, probed.now);
    let said = [
        (probed.is_silent, SILENT),
        (probed.is_deaf, DEAF),
        (probed.waits, WAITS),
        (probed.unpacks, UNPACKS),
    ];
    flags(out, &said);
    let axes = [
        (tag::KEYS_CUT, Axis::Keys, &probed.keys),
        (tag::TIMES_CUT, Axis::Times, &probed.times),
    ];
    for (tag, axis, found) in axes {
        if let Some((total, parts)) = found {
            field(out, tag, |out| {
                summary(out, *total);
                cut(out, &mut Last::default(), axis, parts);
            });
        }
    }
    if let Some(floor) = probed.floor {
        word(out, tag::TIMES, floor);
    }
    if let Some(rest) = &probed.rest {
        version(out, rest.horizon);
        word(out, tag::FLOOR, rest.floor);
        word(out, tag::REVISION, rest.revision);
        word(out, tag::WILDCARDS, rest.wildcards);
    }
    stores(out, &probed.stores);
}

fn read_probed(found: &mut Fields) -> Result<Probed, Bad> {
    let flags = found.flags()?;
    let mut axis = |tag, axis| {
        let Some(mut value) = found.optional(tag) else {
            return Ok(None);
        };
        let total = read_summary(&mut value)?;
        Ok(Some((
            total,
            read_cut(&mut value, &mut Last::default(), axis)?,
        )))
    };
    let keys = axis(tag::KEYS_CUT, Axis::Keys)?;
    let times = axis(tag::TIMES_CUT, Axis::Times)?;
    let floor = match found.optional(tag::TIMES) {
        Some(mut value) => Some(value.u64()?),
        None => None,
    };
    let rest = match found.optional(tag::WILDCARDS) {
        Some(mut value) => Some(Rest {
            horizon: found.horizon()?,
            floor: found.word(tag::FLOOR)?,
            revision: found.word(tag::REVISION)?,
            wildcards: value.u64()?,
        }),
        None => None,
    };
    Ok(Probed {
        now: found.word(tag::NOW)?,
        is_silent: flags & SILENT != 0,
        is_deaf: flags & DEAF != 0,
        waits: flags & WAITS != 0,
        unpacks: flags & UNPACKS != 0,
        keys,
        times,
        floor,
        rest,
        stores: found.stores()?,
    })
}

fn write_verdicts(out: &mut Vec<u8>, verdicts: &[(u64, Verdict)]) {
    let mut last = Last::default();
    let mut next = 0;
    for (index, verdict) in verdicts {
        varint(out, index - next);
        next = index + 1;
        match verdict {
            Verdict::Later => out.push(0),
            Verdict::Empty => out.push(1),
            Verdict::Whole(items) => {
                out.push(2);
                varint(out, *items);
            }
            Verdict::Ids(listed) => {
                out.push(3);
                ids(out, listed);
            }
            Verdict::Dense(items) => {
                out.push(4);
                varint(out, *items);
            }
            Verdict::Split(axis, parts) => {
                out.push(5 + u8::from(*axis == Axis::Times));
                cut(out, &mut last, *axis, parts);
            }
        }
    }
}

fn read_verdicts(mut value: Reader) -> Result<Vec<(u64, Verdict)>, Bad> {
    let mut last = Last::default();
    let mut verdicts = Vec::new();
    let mut next = 0u64;
    while !value.is_empty() {
        let index = next.checked_add(value.varint()?).ok_or(Bad::Malformed)?;
        next = index.checked_add(1).ok_or(Bad::Malformed)?;
        let verdict = match value.u8()? {
            0 => Verdict::Later,
            1 => Verdict::Empty,
            2 => Verdict::Whole(value.varint()?),
            3 => Verdict::Ids(value.ids()?),
            4 => Verdict::Dense(value.varint()?),
            5 => Verdict::Split(Axis::Keys, read_cut(&mut value, &mut last, Axis::Keys)?),
            6 => Verdict::Split(Axis::Times, read_cut(&mut value, &mut last, Axis::Times)?),
            _ => return Err(Bad::Malformed),
        };
        verdicts.push((index, verdict));
    }
    Ok(verdicts)
}

fn parcel(out: &mut Vec<u8>, sent: &Parcel) {
    if sent.revision != 0 {
        word(out, tag::REVISION, sent.revision);
    }
    version(out, sent.horizon);
    if !sent.ops.is_empty() {
        field(out, tag::OPS, |out| {
            for op in &sent.ops {
                let kept = KeptChange::Wildcard(WildcardChange {
                    expr: op.expr.clone(),
                    stamp: Some(op.version.stamp),
                    value: op.value.clone(),
                });
                sized(out, &kept.encode());
            }
        });
    }
    if !sent.states.is_empty() {
        field(out, tag::STATES, |out| {
            let mut last = Last::default();
            let mut record = Vec::new();
            for state in &sent.states {
                bound(out, &mut last, Some(state.key.as_bytes()));
                record.clear();
                state.record.as_ref().encode_into(&mut record);
                sized(out, &record);
            }
        });
    }
    if let Some(packed) = &sent.packed {
        field(out, tag::PACKED, |out| out.extend_from_slice(packed));
    }
}

fn read_fields(kind: u8, fields: Bytes) -> Result<Fields, Bad> {
    if !(PROBE..=PUSH).contains(&kind) {
        return Err(Bad::Kind);
    }
    Fields::read(fields, tag::LAST)
}

impl Fields {
    fn flags(&mut self) -> Result<u8, Bad> {
        self.optional(tag::FLAGS)
            .map_or(Ok(0), |mut value| value.u8())
    }

    fn stores(&mut self) -> Result<Vec<Identity>, Bad> {
        let value = self.optional(tag::STORES);
        value.map_or(Ok(Vec::new()), |mut value| Identity::read_all(&mut value))
    }

    fn horizon(&mut self) -> Result<Version, Bad> {
        let Some(mut value) = self.optional(tag::HORIZON) else {
            return Ok(Version::ZERO);
        };
        Version::from_bytes(&value.take(Version::LEN)?).ok_or(Bad::Malformed)
    }

    fn parcel(&mut self) -> Result<Parcel, Bad> {
        let mut parcel = Parcel {
            revision: match self.optional(tag::REVISION) {
                Some(mut value) => value.u64()?,
                None => 0,
            },
            horizon: self.horizon()?,
            ..Parcel::default()
        };
        if let Some(mut value) = self.optional(tag::OPS) {
            while !value.is_empty() {
                let kept = KeptChange::decode(&value.sized()?).ok_or(Bad::Malformed)?;
                let KeptChange::Wildcard(change) = kept else {
                    return Err(Bad::Malformed);
                };
                let stamp = change.stamp.ok_or(Bad::Malformed)?;
                parcel.ops.push(change.into_op(stamp));
            }
        }
        if let Some(mut value) = self.optional(tag::STATES) {
            let mut last = Last::default();
            while !value.is_empty() {
                let key = value.bound(&mut last)?.ok_or(Bad::Malformed)?;
                let key = String::from_utf8(key).map_err(|_| Bad::Malformed)?;
                let record = Record::decode(&value.sized()?).map_err(|_| Bad::Malformed)?;
                parcel.states.push(State {
                    key: Key::new(key),
                    record,
                });
            }
        }
        parcel.packed = self.optional(tag::PACKED).map(Reader::rest);
        Ok(parcel)
    }
}

/// Appends the flags that are set, if any is.
fn flags(out: &mut Vec<u8>, all: &[(bool, u8)]) {
    let set = all.iter().filter(|(is_set, _)| *is_set);
    let flags = set.fold(0, |flags, (_, flag)| flags | flag);
    if flags != 0 {
        field(out, tag::FLAGS, |out| out.push(flags));
    }
}

/// Appends stores, if there are any.
fn stores(out: &mut Vec<u8>, stores: &[Identity]) {
    if !stores.is_empty() {
        field(out, tag::STORES, |out| Identity::write_all(stores, out));
    }
}

/// A horizon, unless it is below everything.
fn version(out: &mut Vec<u8>, horizon: Version) {
    if horizon != Version::ZERO {
        field(out, tag::HORIZON, |out| out.extend(horizon.to_bytes()));
    }
}

fn summary(out: &mut Vec<u8>, summary: Summary) {
    varint(out, summary.count);
    out.extend(summary.sum.to_be_bytes());
}

fn read_summary(value: &mut Reader) -> Result<Summary, Bad> {
    Ok(Summary {
        count: value.varint()?,
        sum: u128::from_be_bytes(value.array()?),
    })
}

fn span(out: &mut Vec<u8>, last: &mut Last, span: &Span) {
    out.push(u8::from(span.axis == Axis::Times));
    position(out, last, span.axis, Some(&span.from));
    position(out, last, span.axis, span.to.as_deref());
}

fn read_span(value: &mut Reader, last: &mut Last) -> Result<Span, Bad> {
    let axis = match value.u8()? {
        0 => Axis::Keys,
        1 => Axis::Times,
        _ => return Err(Bad::Malformed),
    };
    let from = read_position(value, last, axis)?.ok_or(Bad::Malformed)?;
    let to = read_position(value, last, axis)?;
    Ok(Span { axis, from, to })
}

fn cut(out: &mut Vec<u8>, last: &mut Last, axis: Axis, cut: &Cut) {
    count(out, cut.bounds.len());
    for bound in &cut.bounds {
        position(out, last, axis, Some(bound));
    }
    for brief in &cut.briefs {
        varint(out, brief.count);
        if brief.count > 0 {
            out.extend(brief.sum.to_be_bytes());
        }
    }
}

fn read_cut(value: &mut Reader, last: &mut Last, axis: Axis) -> Result<Cut, Bad> {
    let bounds = value.count()?;
    let mut cut = Cut::default();
    for _ in 0..bounds {
        let bound = read_position(value, last, axis)?.ok_or(Bad::Malformed)?;
        cut.bounds.push(bound);
    }
    for _ in 0..=bounds {
        let count = value.varint()?;
        let sum = if count == 0 { 0 } else { value.u64()? };
        cut.briefs.push(Brief { count, sum });
    }
    Ok(cut)
}

/// A bound of an axis. Times are mostly whole seconds, hours or days: the zeros at their end are cut.
fn position(out: &mut Vec<u8>, last: &mut Last, axis: Axis, of: Option<&[u8]>) {
    let cut = of.map(|of| match axis {
        Axis::Times if of.len() == 8 => {
            let zeros = of.iter().rev().take_while(|byte| **byte == 0).count();
            &of[..8 - zeros]
        }
        _ => of,
    });
    bound(out, last, cut);
}

fn read_position(value: &mut Reader, last: &mut Last, axis: Axis) -> Result<Option<Vec<u8>>, Bad> {
    let mut bound = value.bound(last)?;
    if let Some(bound) = &mut bound
        && axis == Axis::Times
        && (1..8).contains(&bound.len())
    {
        bound.resize(8, 0);
    }
    Ok(bound)
}
