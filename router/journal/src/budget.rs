//! What becomes of a journal that is full.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
};

use weir_core::{
    backlog::LANES, change::KeptChange, forward::Cause, key::Key, ledger::Summary, version::Version,
};

use crate::{
    block::{Block, Builder, Damage},
    calendar::{Slot, Sums, slot_of},
    error::{JournalError, Result},
    files,
    journal::Journal,
    options::{OnFull, one},
    reader::read_blocks,
    recovery::{counted, set_slots},
    segment::{self, Header, Info},
    state::{ROOM_MIN, Segment, State},
};

/// What is done to make room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Drop { lane: u8, id: u64 },
    Thin { lane: u8, id: u64 },
}

impl Journal {
    /// Makes room for so many bytes, if the options say how. Returns how many entries were given up.
    pub(crate) fn make_room(&mut self, wanted: u64, now: u64) -> Result<u64> {
        let mut lost = 0;
        loop {
            let way = {
                let state = self.lock();
                let budget = state.options.budget_bytes;
                if wanted + ROOM_MIN > budget || state.total() + wanted + ROOM_MIN <= budget {
                    return Ok(lost);
                }
                state.way()
            };
            match way {
                None => return Ok(lost),
                Some(way) => lost += self.go(way, now)?,
            }
        }
    }

    /// The disk is full although the budget is not: makes room once. Returns whether it did.
    pub(crate) fn give_way(&mut self) -> Result<bool> {
        // To write a segment again takes room itself.
        let way = match self.lock().way() {
            Some(Way::Thin { lane, id }) => Some(Way::Drop { lane, id }),
            other => other,
        };
        let Some(way) = way else { return Ok(false) };
        self.go(way, 0)?;
        Ok(true)
    }

    fn go(&mut self, way: Way, now: u64) -> Result<u64> {
        match way {
            Way::Drop { lane, id } => self.give_up(lane, id, now),
            Way::Thin { lane, id } => match self.thin(lane, id) {
                Err(error) if !error.is_full() => Err(error),
                Err(_) => self.give_up(lane, id, now),
                Ok(()) => Ok(0),
            },
        }
    }

    /// Drops a segment; what waits of it is lost.
    fn give_up(&mut self, lane: u8, id: u64, now: u64) -> Result<u64> {
        let lost = {
            let mut state = self.lock();
            let lost = state.mourn(lane, id, Cause::Full);
            state.lane_mut(lane).counters.given_up += lost;
            state.remove(lane, id);
            lost
        };
        // Before the file goes, so that a loss is known whenever the process ends.
        self.write_lost(now, true)?;
        self.writer.remove(lane, id)?;
        files::sync_dir(&self.dir).map_err(JournalError::io(&self.dir))?;
        Ok(lost)
    }

    /// Writes a closed segment again, with the newest version of each key that it and the next one of its
    /// lane have. Its entries move to the end of its positions: who reads on may see one twice, but none
    /// is passed over.
    fn thin(&self, lane: u8, id: u64) -> Result<()> {
        let (path, next, ends) = {
            let mut state = self.lock();
            let mut segments = state.lane_mut(lane).segments.range_mut(id..);
            let Some((_, segment)) = segments.next().filter(|(found, _)| **found == id) else {
                return Ok(());
            };
            segment.is_coalesced = true;
            let ends = (segment.first, segment.end);
            let next = segments.next().filter(|(_, next)| next.is_closed());
            (
                self.dir.join(files::name_of(lane, id)),
                next.map(|(id, _)| *id),
                ends,
            )
        };
        let read = |id: u64| {
            let path = self.dir.join(files::name_of(lane, id));
            read_blocks(&path, lane, id).map_err(JournalError::io(path))
        };
        let own = read(id)?;
        let others = next.map_or_else(|| Ok(Vec::new()), read)?;
        let block_bytes = self.lock().options.block_bytes;
        let Ok(Some(thinned)) = rewrite(lane, id, &own, &others, ends, block_bytes) else {
            return Ok(()); // Nothing is superseded, or it cannot be read: another way is found next time.
        };
        let old = fs::metadata(&path).map_err(JournalError::io(&path))?.len();
        if thinned.bytes.len() as u64 >= old {
            return Ok(());
        }
        let name = files::name_of(lane, id);
        files::replace(&*self.files, &self.dir, &name, &thinned.bytes)
            .map_err(JournalError::io(&path))?;
        self.lock().thinned(lane, id, &thinned);
        Ok(())
    }
}

/// A segment that was written again.
struct Thinned {
    bytes: Vec<u8>,
    sums: BTreeMap<Slot, Sums>,
    first: u64,
    fewer: u64,
}

impl State {
    fn way(&self) -> Option<Way> {
        let oldest = |lanes: &mut dyn Iterator<Item = u8>| {
            let first = |lane| Some((*self.lane(lane).segments.first_key_value()?.0, lane));
            lanes.filter_map(first).min()
        };
        let drop = |found: Option<(u64, u8)>| found.map(|(id, lane)| Way::Drop { lane, id });
        match self.options.on_full {
            OnFull::RejectNew => None,
            OnFull::DropOldest => drop(oldest(&mut (0..LANES))),
            OnFull::DropLowestLane => {
                let has_one = |lane: &u8| !self.lane(*lane).segments.is_empty();
                drop(
                    (0..LANES)
                        .rev()
                        .find(has_one)
                        .and_then(|lane| oldest(&mut [lane].into_iter())),
                )
            }
            OnFull::Coalesce => {
                let fat = |lane: u8| {
                    let mut segments = self.lane(lane).segments.values();
                    let is = |segment: &&Segment| segment.is_closed() && !segment.is_coalesced;
                    Some((segments.find(is)?.id, lane))
                };
                let fat = (0..LANES).filter_map(fat).min();
                let thin = fat.map(|(id, lane)| Way::Thin { lane, id });
                thin.or_else(|| drop(oldest(&mut (0..LANES))))
            }
        }
    }

    fn thinned(&mut self, at: u8, id: u64, thinned: &Thinned) {
        let Some(segment) = self.lane_mut(at).segments.get_mut(&id) else {
            return;
        };
        let before: BTreeMap<Slot, u32> = segment.slots.kept().collect();
        let sums: Vec<_> = thinned
            .sums
            .iter()
            .map(|(slot, sums)| (*slot, *sums))
            .collect();
        let old_bytes = std::mem::replace(&mut segment.bytes, thinned.bytes.len() as u64);
        segment.generation += 1;
        segment.first = thinned.first;
        set_slots(segment, &sums);
        let bytes = segment.bytes;
        self.bytes = self.bytes - old_bytes + bytes;
        for (slot, old) in &before {
            let new = thinned.sums.get(slot).map_or(0, |sums| sums.kept);
            self.calendar.thin(*slot, old.saturating_sub(new));
        }
        self.lane_mut(at).counters.coalesced += thinned.fewer;
    }
}

/// A segment's bytes without what is superseded; `None` if nothing is.
fn rewrite(
    lane: u8,
    id: u64,
    own: &[Block],
    others: &[Block],
    ends: (u64, u64),
    block_bytes: usize,
) -> Result<Option<Thinned>, Damage> {
    let mut newest: HashMap<Key, Version> = HashMap::new();
    let mut total = 0;
    for (at, block) in own.iter().chain(others).enumerate() {
        for row in block.rows(lane) {
            total += u64::from(at < own.len());
            if let KeptChange::Key(change) = row?.entry.change {
                let version = change.version(change.stamp.unwrap_or_default());
                let held = newest.entry(change.key).or_insert(version);
                *held = version.max(*held);
            }
        }
    }
    let mut sums: BTreeMap<Slot, Sums> = BTreeMap::new();
    let mut kept = Vec::new();
    let mut gone: BTreeMap<Slot, Summary> = BTreeMap::new();
    let (mut mark, mut appended) = (0, 0);
    for block in own {
        mark = block.head.mark.max(mark);
        appended = block.head.appended.max(appended);
        for (slot, summary) in block.gone(lane)? {
            *gone.entry(slot).or_default() += summary;
        }
        for row in block.rows(lane) {
            let row = row?;
            let (stamp, hash) = counted(&row.entry.change);
            let slot = slot_of(&stamp);
            let is_superseded = match &row.entry.change {
                KeptChange::Key(change) => newest[&change.key] > change.version(stamp),
                KeptChange::Wildcard(_) => false,
            };
            let all = hash.map(one).unwrap_or_default();
            let cell = sums.entry(slot).or_default();
            cell.all += all;
            if is_superseded {
                *gone.entry(slot).or_default() += all;
            } else {
                cell.kept += 1;
                kept.push(row);
            }
        }
    }
    let fewer = total - kept.len() as u64;
    if fewer == 0 {
        return Ok(None);
    }
    // What was gone before is in no row.
    for block in own {
        for (slot, summary) in block.gone(lane)? {
            sums.entry(slot).or_default().all += summary;
        }
    }
    let first = ends.1 - kept.len() as u64;
    let header = Header {
        lane,
        is_coalesced: true,
        id,
        first,
    };
    let mut bytes = header.encode().to_vec();
    let mut blocks = Vec::new();
    let mut builder = Builder::new();
    builder.begin(id, first);
    let now = u64::from(appended) << 32;
    for (slot, summary) in gone {
        builder.push_gone(slot, summary, mark, now);
        flush_if(&mut builder, block_bytes, &mut bytes, &mut blocks, id);
    }
    for row in kept {
        builder.push(&row.entry, row.newest_only, mark, now);
        flush_if(&mut builder, block_bytes, &mut bytes, &mut blocks, id);
    }
    flush_if(&mut builder, 0, &mut bytes, &mut blocks, id);
    let end = bytes.len() as u64;
    bytes.extend(segment::footer(sums.iter(), &blocks, end, (first, ends.1)));
    Ok(Some(Thinned {
        bytes,
        sums,
        first,
        fewer,
    }))
}

/// Ends a block that is so long.
fn flush_if(
    builder: &mut Builder,
    len: usize,
    bytes: &mut Vec<u8>,
    blocks: &mut Vec<Info>,
    id: u64,
) {
    if builder.is_empty() || builder.len() < len {
        return;
    }
    let (head, block) = builder.encode();
    blocks.push(Info {
        offset: bytes.len() as u64,
        head,
    });
    bytes.extend_from_slice(&block);
    builder.begin(id, head.end());
}
