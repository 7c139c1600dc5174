//! The side that is asked. It remembers nothing between two frames.

use std::collections::BTreeSet;

use thiserror::Error;

use super::{
    Marks, Replica, Unreadable,
    frame::{
        Bad, Brief, Cut, MINUTE, Parcel, Probe, Probed, Reply, Request, Rest, Strip, Verdict, Want,
        op_id, times_from,
    },
};
use crate::{
    identity::{self, Identity},
    key::Key,
    ledger::{Axis, Span, Summary},
    mirror::State,
    version::Version,
    wildcard::WildcardOp,
};

/// Up to so many items on both sides a span is listed, beyond that it is cut: sixteen sums cost about
/// as much as thirty-odd ids, and leave a sixteenth of the ids.
pub const ITEMS_MAX: u64 = 40;
/// Into how many parts a span of keys is cut.
pub const KEYS_PARTS: usize = 16;
/// Into how many parts time is cut first. A hole of an hour in months is then a part or two.
pub const TIMES_PARTS: usize = 384;
/// Into how many parts each of few spans of time is cut: those of such a part are about a minute.
pub const TIMES_PARTS_BELOW: usize = 128;
/// Items of one second that are read to be listed; more are not compared.
pub const LIST_READ_MAX: usize = 1 << 20;

/// About the longest reply, in bytes, whatever the credit; one record or list may exceed it.
const REPLY_BYTES_MAX: usize = 512 << 10;
/// The same before it is packed.
const PACKED_BYTES_MAX: usize = 2 << 20;

/// What may be asked of a storage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Whether it sends records to this peer (settings: `to`).
    pub give: bool,
    /// Whether it takes records from this peer (settings: `from`).
    pub take: bool,
    /// The longest frame that is read, in bytes. A record is never divided.
    pub frame_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            give: true,
            take: true,
            // Zenoh's own limit of a message.
            frame_bytes_max: 1 << 30,
        }
    }
}

/// What is to be admitted before anything else is done with it. The records go by the rules of a put.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Admit {
    /// First these.
    pub ops: Vec<WildcardOp>,
    /// Then these, in order.
    pub states: Vec<State>,
    /// The revision of the resolver of the replica that they come from; 0 for none.
    pub revision: u64,
    /// The horizon of that replica.
    pub horizon: Version,
    /// These keys, if they still hold these versions ([`crate::view::View::newest`]), are to be set aside:
    /// that replica does not have them, would not take them, and has forgotten whether they were deleted.
    pub forgotten: Vec<(Key, Version)>,
}

/// The answer to a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// What to reply.
    pub reply: Vec<u8>,
    /// What to admit and store first. If that fails nothing is replied.
    pub admit: Option<Admit>,
    /// It was a probe, and this is whether both hold the same: to be told to the own mirror
    /// ([`super::round::Event::Probed`]). If not, the peer is about to see to it.
    pub probed: Option<bool>,
    /// The stores that who asks is kept in, if it was a probe that told of them
    /// ([`crate::membership::Members::asked`]).
    pub stores: Vec<Identity>,
}

/// A frame is not obeyed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("a mirror's request was refused: {why}")]
pub struct Refused {
    /// Why.
    pub why: Bad,
    /// What to reply.
    pub reply: Vec<u8>,
    /// The store's error, if that was it.
    pub unreadable: Option<Unreadable>,
}

/// Answers a frame of a peer. Costs what the replica's reads cost.
///
/// # Errors
/// If the frame is not understood, not allowed, or the replica cannot be read.
pub fn answer(frame: &[u8], replica: &mut dyn Replica, limits: &Limits) -> Result<Answer, Refused> {
    let refused = |why, unreadable| Refused {
        why,
        reply: Reply::Refused(why).encode(),
        unreadable,
    };
    if frame.len() > limits.frame_bytes_max {
        return Err(refused(Bad::Length, None));
    }
    let mut request = Request::decode(frame).map_err(|why| refused(why, None))?;
    let forbidden = match &request {
        Request::Fetch { .. } => !limits.give,
        Request::Push(_) => !limits.take,
        _ => false,
    };
    if forbidden {
        return Err(refused(Bad::Forbidden, None));
    }
    if let Request::Push(parcel) = &mut request {
        parcel.unpack(replica).map_err(|why| refused(why, None))?;
    }
    let unreadable = |error| refused(Bad::Unreadable, Some(error));
    let asked = match &request {
        Request::Probe(probe) => Some(probe.clone()),
        _ => None,
    };
    let (reply, admit) = reply_to(request, replica, limits).map_err(unreadable)?;
    let (probed, stores) = match (asked, &reply) {
        (Some(asked), Reply::Probed(said)) => (Some(said.is_in_step(&asked)), asked.stores),
        _ => (None, Vec::new()),
    };
    Ok(Answer {
        reply: reply.encode(),
        admit,
        probed,
        stores,
    })
}

fn reply_to(
    request: Request,
    replica: &mut dyn Replica,
    limits: &Limits,
) -> Result<(Reply, Option<Admit>), Unreadable> {
    let room = REPLY_BYTES_MAX;
    let up_to = |credit: u64, room: usize| usize::try_from(credit).unwrap_or(room).min(room);
    let within = |credit: u64| up_to(credit, room);
    let reply = match request {
        Request::Probe(probe) => Reply::Probed(Box::new(probed(&probe, replica, limits)?)),
        Request::Wildcards {
            horizon,
            ids,
            credit,
        } => {
            let credit = if limits.give { within(credit) } else { 0 };
            wildcards(horizon, &ids, credit, limits, replica)?
        }
        Request::Compare(strips) => Reply::Compared(compared(&strips, replica, room)?),
        Request::List { span, of, part } => Reply::Listed(listed(&span, of, part, replica)?),
        Request::Fetch {
            wants,
            floor,
            horizon,
            credit,
            unpacks,
        } if unpacks && replica.packs() => {
            let credit = up_to(credit, PACKED_BYTES_MAX);
            let mut page = page(&wants, (floor, horizon), credit, replica)?;
            if let Reply::Page { parcel, .. } = &mut page {
                parcel.packed = replica.pack(&mut parcel.states);
            }
            page
        }
        Request::Fetch {
            wants,
            floor,
            horizon,
            credit,
            ..
        } => page(&wants, (floor, horizon), within(credit), replica)?,
        Request::Push(parcel) => return Ok((Reply::Stored, Some(parcel.into()))),
    };
    Ok((reply, None))
}

/// What a replica would ask in a probe, or compare one with. `minute` is the first that counts of a
/// series; `before` are the stores before the marks were read.
pub(super) fn probe_of(
    replica: &mut dyn Replica,
    before: &[Identity],
    marks: &Marks,
    minute: Option<u64>,
) -> Result<(Probe, Rest), Unreadable> {
    let rest = Rest {
        horizon: marks.horizon,
        floor: marks.floor,
        revision: marks.revision,
        wildcards: wildcards_hash(replica, marks.horizon)?,
    };
    let times = match minute {
        Some(minute) => Some((minute, replica.summary(&times_from(minute))?)),
        None => None,
    };
    let keys = replica.summary(&Span::all(Axis::Keys))?;
    // Told is what holds all that was counted, and nothing was counted of another store.
    let stores = replica.stores()?;
    if before != stores && !identity::go_on(before, &stores) {
        return Err(Unreadable("a store was opened anew meanwhile".to_owned()));
    }
    let probe = Probe {
        keys,
        times,
        rest: rest.hash(),
        revision: marks.revision,
        waits: marks.waits,
        stores,
    };
    Ok((probe, rest))
}

/// Cuts a span: the parts with what lies in them. `spans` is how many are cut for one frame.
pub(super) fn split(
    replica: &mut dyn Replica,
    span: &Span,
    spans: usize,
) -> Result<Vec<(Span, Summary)>, Unreadable> {
    let parts = match span.axis {
        Axis::Keys => KEYS_PARTS,
        // In all no more than what a few have: where much differs it is found step by step.
        Axis::Times => (TIMES_PARTS / spans.max(1)).clamp(KEYS_PARTS, TIMES_PARTS_BELOW),
    };
    replica.split(span, parts)
}

fn wildcards_hash(replica: &mut dyn Replica, horizon: Version) -> Result<u64, Unreadable> {
    let mut ids: Vec<u64> = replica
        .wildcards()?
        .iter()
        .filter(|op| op.version >= horizon)
        .map(|op| op_id(op))
        .collect();
    ids.sort_unstable();
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_be_bytes()).collect();
    Ok(xxhash_rust::xxh3::xxh3_64(&bytes))
}

fn probed(
    theirs: &Probe,
    replica: &mut dyn Replica,
    limits: &Limits,
) -> Result<Probed, Unreadable> {
    let before = replica.stores()?;
    let marks = replica.marks()?;
    let asked = theirs.times.filter(|_| marks.series);
    let minute = asked.map(|(minute, _)| minute);
    let (mine, rest) = probe_of(replica, &before, &marks, minute)?;
    let mut probed = Probed {
        now: marks.now,
        is_silent: !limits.give,
        is_deaf: !limits.take,
        waits: marks.waits,
        unpacks: replica.packs(),
        rest: (mine.rest != theirs.rest).then_some(rest),
        stores: mine.stores,
        ..Probed::default()
    };
    if mine.keys != theirs.keys {
        let parts = cut_first(replica, &Span::all(Axis::Keys), mine.keys, theirs.keys)?;
        probed.keys = Some((mine.keys, parts));
        // What is too old for us is to be left out.
        probed.rest = Some(rest);
    }
    if let (Some((minute, mine)), Some((_, theirs))) = (mine.times, asked) {
        if minute.saturating_mul(MINUTE) < marks.floor {
            probed.floor = Some(marks.floor);
        } else if mine != theirs {
            let parts = cut_first(replica, &times_from(minute), mine, theirs)?;
            probed.times = Some((mine, parts));
        }
    }
    Ok(probed)
}

/// The first cut of an axis, whole where nothing is to be gained by cutting. It is cut for a peer that
/// has nothing, too: so that it can fetch several parts at once.
fn cut_first(
    replica: &mut dyn Replica,
    span: &Span,
    mine: Summary,
    theirs: Summary,
) -> Result<Cut, Unreadable> {
    if mine.is_empty() || mine.count.max(theirs.count) <= ITEMS_MAX {
        return Ok(Cut {
            bounds: Vec::new(),
            briefs: vec![Brief::of(mine)],
        });
    }
    let parts = match span.axis {
        Axis::Keys => KEYS_PARTS,
        Axis::Times => TIMES_PARTS,
    };
    Ok(Cut::of(&replica.split(span, parts)?))
}

fn wildcards(
    horizon: Version,
    ids: &[u64],
    credit: usize,
    limits: &Limits,
    replica: &mut dyn Replica,
) -> Result<Reply, Unreadable> {
    let marks = replica.marks()?;
    let known: BTreeSet<u64> = ids.iter().copied().collect();
    let mut missing = known.clone();
    let mut parcel = parcel_of(&marks);
    let (mut bytes, mut more) = (0, false);
    for op in replica.wildcards()? {
        let id = op_id(&op);
        missing.remove(&id);
        if op.version < horizon || known.contains(&id) || !limits.give {
            continue;
        }
        if bytes > credit {
            more = true;
            continue;
        }
        bytes += op.expr.len() + op.value.as_ref().map_or(0, |value| value.len());
        parcel.ops.push((*op).clone());
    }
    Ok(Reply::Wildcards {
        parcel,
        more,
        missing: missing.into_iter().collect(),
    })
}

fn compared(
    strips: &[Strip],
    replica: &mut dyn Replica,
    room: usize,
) -> Result<Vec<(u64, Verdict)>, Unreadable> {
    let mut different = Vec::new();
    let mut index = 0;
    for strip in strips {
        // A cut that does not fit was refused when the frame was read.
        for (span, theirs) in strip.cut.parts(&strip.span).unwrap_or_default() {
            let mine = Brief::of(replica.summary(&span)?);
            if mine != theirs {
                different.push((index, span, mine, theirs));
            }
            index += 1;
        }
    }
    let spans = different.len();
    let mut bytes = 0;
    let mut verdicts = Vec::with_capacity(spans);
    for (index, span, mine, theirs) in different {
        let verdict = if mine.is_empty() {
            Verdict::Empty
        } else if theirs.is_empty() {
            Verdict::Whole(mine.count)
        } else if bytes > room {
            Verdict::Later
        } else if mine.count.max(theirs.count) <= ITEMS_MAX {
            let max = usize::try_from(4 * ITEMS_MAX).unwrap_or(usize::MAX);
            let items = replica.items(&span, max)?;
            bytes += 8 * items.len();
            Verdict::Ids(items.iter().map(crate::ledger::Item::id).collect())
        } else {
            let parts = split(replica, &span, spans)?;
            if parts.len() < 2 {
                Verdict::Dense(mine.count)
            } else {
                let bounds = parts.iter().map(|(span, _)| span.from.len() + 16);
                bytes += bounds.sum::<usize>();
                Verdict::Split(span.axis, Cut::of(&parts))
            }
        };
        verdicts.push((index, verdict));
    }
    Ok(verdicts)
}

fn listed(
    span: &Span,
    of: u64,
    part: u64,
    replica: &mut dyn Replica,
) -> Result<Vec<u64>, Unreadable> {
    let items = replica.items(span, LIST_READ_MAX)?;
    let ids = items.iter().map(crate::ledger::Item::id);
    Ok(ids.filter(|id| id % of.max(1) == part).collect())
}

fn page(
    wants: &[Want],
    (floor, horizon): (u64, Version),
    credit: usize,
    replica: &mut dyn Replica,
) -> Result<Reply, Unreadable> {
    let mut parcel = parcel_of(&replica.marks()?);
    let mut left = credit;
    let mut next = None;
    for (index, want) in wants.iter().enumerate() {
        if left == 0 {
            next = Some((index as u64, want.span.from.clone()));
            break;
        }
        let (states, rest) = read(replica, want, (floor, horizon), left)?;
        left = left.saturating_sub(states.iter().map(size).sum());
        parcel.states.extend(states);
        if let Some(position) = rest {
            next = Some((index as u64, position));
            break;
        }
    }
    Ok(Reply::Page { parcel, next })
}

/// Reads what is wanted, except what is older than `floor`, for a peer with this horizon; and where to
/// go on.
pub(super) fn read(
    replica: &mut dyn Replica,
    want: &Want,
    (floor, horizon): (u64, Version),
    bytes_max: usize,
) -> Result<(Vec<State>, Option<Vec<u8>>), Unreadable> {
    let ids: Option<BTreeSet<u64>> = want.ids.as_ref().map(|ids| ids.iter().copied().collect());
    let mut page = replica.read(
        &want.span,
        &mut |item| {
            item.version.stamp.time >= floor
                && ids.as_ref().is_none_or(|ids| ids.contains(&item.id()))
        },
        bytes_max,
    )?;
    replica.fold(horizon, &mut page.states)?;
    Ok((page.states, page.next))
}

/// About what a state costs on the wire, in bytes.
pub(super) fn size(state: &State) -> usize {
    let value = state.record.value.as_ref();
    48 + state.key.len() / 2 + value.map_or(0, |value| value.len())
}

/// A parcel of a replica, empty yet.
pub(super) fn parcel_of(marks: &Marks) -> Parcel {
    Parcel {
        revision: marks.revision,
        horizon: marks.horizon,
        ..Parcel::default()
    }
}

impl Probed {
    /// Whether nothing differs but, perhaps, the revision.
    fn is_in_step(&self, asked: &Probe) -> bool {
        let revision = asked.revision;
        let is_same = |rest: &Rest| Rest { revision, ..*rest }.hash() == asked.rest;
        !(self.waits || asked.waits)
            && self.keys.is_none()
            && self.times.is_none()
            && self.floor.is_none()
            && self.rest.as_ref().is_none_or(is_same)
    }
}

impl Rest {
    /// What stands for it in a probe. The floor is left out: it moves all the time.
    fn hash(&self) -> u64 {
        let mut bytes = self.horizon.to_bytes().to_vec();
        bytes.extend(self.revision.to_be_bytes());
        bytes.extend(self.wildcards.to_be_bytes());
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }
}

impl Parcel {
    /// Puts what is packed among the records.
    pub(super) fn unpack(&mut self, replica: &mut dyn Replica) -> Result<(), Bad> {
        if let Some(packed) = self.packed.take() {
            self.states.extend(replica.unpack(&packed)?);
        }
        Ok(())
    }
}

impl From<Parcel> for Admit {
    fn from(parcel: Parcel) -> Self {
        Self {
            ops: parcel.ops,
            states: parcel.states,
            revision: parcel.revision,
            horizon: parcel.horizon,
            forgotten: Vec::new(),
        }
    }
}
