//! The side that is shipped to: it answers what it has, and remembers nothing.

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use bytes::Bytes;
use thiserror::Error;

use super::{
    Lost, Stretch,
    frame::{Bad, Found, Reply, Request},
};
use crate::{
    key::{Key, KeyRange},
    ledger::{Axis, Item, Span, Summary},
    mirror::{Marks, Replica, State, Unreadable, frame::op_id},
    version::Version,
};

/// Up to so many versions of all sources in a stretch are told apart by source; of more a source's own
/// are only said to differ, and the link cuts the stretch.
pub const ITEMS_MAX: u64 = 1 << 16;
/// Versions of a stretch that is listed; what lies behind counts as absent, and is shipped in vain.
pub const LIST_READ_MAX: usize = 1 << 20;

/// What may be asked of a storage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Whether it takes parcels from this link.
    pub take: bool,
    /// The longest frame that is read, in bytes.
    pub frame_bytes_max: usize,
    /// Stretches compared for a frame.
    pub stretches_max: usize,
    /// Ids looked up for a frame.
    pub ids_max: usize,
    /// Keys read for a frame.
    pub keys_max: usize,
    /// Known-lost intervals in a frame.
    pub lost_max: usize,
}

/// The answer to a frame.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answer {
    /// What to reply. Empty if something was shipped: then [`Reply::Stored`] is, once it is, and
    /// [`Reply::Refused`] if it cannot be.
    pub reply: Vec<u8>,
    /// A parcel to unpack, admit and store.
    pub ship: Option<Bytes>,
    /// What the link has given up, to be noted before the reply.
    pub lost: Option<Vec<Lost>>,
}

/// A frame is not obeyed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("a link's request was refused: {why}")]
pub struct Refused {
    /// Why.
    pub why: Bad,
    /// What to reply.
    pub reply: Vec<u8>,
    /// The store's error, if that was it.
    pub unreadable: Option<Unreadable>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            take: true,
            // A parcel is far shorter, and one record may be as long as a message of Zenoh.
            frame_bytes_max: 1 << 30,
            // Some times what a link asks at once, so that a later one may ask more.
            stretches_max: 1 << 10,
            ids_max: 1 << 16,
            keys_max: 1 << 13,
            lost_max: 1 << 12,
        }
    }
}

/// Answers a frame of a link. Costs what the replica's reads cost: a sum for each stretch, and where it
/// is not the same up to [`ITEMS_MAX`] items; the items of a stretch that is listed; a record for each
/// head.
///
/// # Errors
/// If the frame is not understood, asks for too much or what is not allowed, or the replica cannot be
/// read.
pub fn answer(frame: &[u8], replica: &mut dyn Replica, limits: &Limits) -> Result<Answer, Refused> {
    let refused = |why, unreadable| Refused {
        why,
        reply: Reply::Refused(why).encode(),
        unreadable,
    };
    if frame.len() > limits.frame_bytes_max {
        return Err(refused(Bad::Length, None));
    }
    let frame = Bytes::copy_from_slice(frame);
    let request = Request::decode(&frame).map_err(|why| refused(why, None))?;
    let is_too_long = match &request {
        Request::Compare(stretches) => stretches.len() > limits.stretches_max,
        Request::List { ids, .. } | Request::Operations(ids) => ids.len() > limits.ids_max,
        Request::Heads(heads) => heads.len() > limits.keys_max,
        Request::Lost(lost) => lost.len() > limits.lost_max,
        Request::Ship { .. } => false,
    };
    if is_too_long {
        return Err(refused(Bad::Length, None));
    }
    let reply = match request {
        Request::Compare(stretches) => compared(&stretches, replica).map(Reply::Compared),
        Request::List { stretch, ids } => listed(&stretch, &ids, replica).map(Reply::Listed),
        Request::Heads(heads) => absent_heads(&heads, replica).map(Reply::Heads),
        Request::Operations(ids) => absent_operations(&ids, replica).map(Reply::Operations),
        Request::Ship { .. } if !limits.take => return Err(refused(Bad::Forbidden, None)),
        Request::Ship { packed } => {
            return Ok(Answer {
                ship: Some(packed),
                ..Answer::default()
            });
        }
        Request::Lost(lost) => {
            return Ok(Answer {
                reply: Reply::Noted.encode(),
                ship: None,
                lost: Some(lost),
            });
        }
    };
    let reply = reply.map_err(|error| refused(Bad::Unreadable, Some(error)))?;
    Ok(Answer {
        reply: reply.encode(),
        ..Answer::default()
    })
}

fn compared(
    stretches: &[(Stretch, Summary)],
    replica: &mut dyn Replica,
) -> Result<Vec<Found>, Unreadable> {
    let marks = replica.marks()?;
    stretches
        .iter()
        .map(|(stretch, seen)| compare(stretch, *seen, &marks, replica))
        .collect()
}

fn compare(
    stretch: &Stretch,
    seen: Summary,
    marks: &Marks,
    replica: &mut dyn Replica,
) -> Result<Found, Unreadable> {
    if stretch.to <= marks.floor {
        return Ok(Found::Gone);
    }
    if !marks.series {
        return Ok(if marks.revision == 0 {
            Found::Latest
        } else {
            Found::Merged
        });
    }
    let span = span_of(stretch);
    let mut held = replica.summary(&span)?;
    if held != seen && (1..=ITEMS_MAX).contains(&held.count) {
        // What others have stamped meanwhile is no difference.
        let max = usize::try_from(ITEMS_MAX + 1).unwrap_or(usize::MAX);
        let items = replica.items(&span, max)?;
        let of_source = items
            .iter()
            .filter(|item| item.version.stamp.id == stretch.source);
        held = Summary::EMPTY;
        let mut bytes = Vec::new();
        for item in of_source {
            held.add(item.hash_with(&mut bytes));
        }
    }
    Ok(if held == seen {
        Found::Have
    } else if held.is_empty() {
        Found::Absent
    } else {
        Found::Differs { count: held.count }
    })
}

fn listed(
    stretch: &Stretch,
    ids: &[u64],
    replica: &mut dyn Replica,
) -> Result<Vec<bool>, Unreadable> {
    let items = replica.items(&span_of(stretch), LIST_READ_MAX)?;
    let held: HashSet<u64> = items.iter().map(Item::id).collect();
    Ok(ids.iter().map(|id| !held.contains(id)).collect())
}

fn absent_heads(
    heads: &[(Key, Version)],
    replica: &mut dyn Replica,
) -> Result<Vec<bool>, Unreadable> {
    heads
        .iter()
        .map(|(key, version)| Ok(!is_covered(key, *version, replica)?))
        .collect()
}

/// Whether a version of a key would change nothing.
fn is_covered(key: &Key, version: Version, replica: &mut dyn Replica) -> Result<bool, Unreadable> {
    let KeyRange { from, to } = KeyRange::only(key);
    let axis = Axis::Keys;
    let mut effective = Version::ZERO;
    let mut note = |item: &Item| {
        effective = item.version;
        true
    };
    let page = replica.read(&Span { axis, from, to }, &mut note, 0)?;
    let Some(State { record, .. }) = page.states.first() else {
        return Ok(false);
    };
    // A wildcard put on top of an older version says nothing: this one may be the delete that the put
    // did not touch.
    let is_deleted = effective.is_delete() && effective >= version;
    let is_held = match &record.merged {
        Some(merged) => merged.vector.contains(version.stamp),
        None => record.head.own >= version,
    };
    Ok(is_deleted || is_held)
}

fn absent_operations(ids: &[u64], replica: &mut dyn Replica) -> Result<Vec<bool>, Unreadable> {
    let ops = replica.wildcards()?;
    let held: HashSet<u64> = ops.iter().map(|op| op_id(op)).collect();
    Ok(ids.iter().map(|id| !held.contains(id)).collect())
}

fn span_of(stretch: &Stretch) -> Span {
    Span {
        axis: Axis::Times,
        from: stretch.from.to_be_bytes().to_vec(),
        to: Some(stretch.to.to_be_bytes().to_vec()),
    }
}
