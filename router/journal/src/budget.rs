//! What becomes of a journal that is full.

use std::collections::{BTreeMap, HashMap};

use weir_core::{
    backlog::LANES, change::KeptChange, forward::Cause, key::Key, ledger::Summary, version::Version,
};

use crate::{
    block::{Block, Builder, Damage},
    calendar::{Slot, Sums, slot_of},
    error::{JournalError, Result},
    files,
    journal::Journal,
    newest::Superseded,
    options::{OnFull, one},
    reader::read_blocks,
    recovery::{counted, set_slots},
    segment::{self, Header, Info},
    state::{ROOM_MIN, Segment, State},
};

/// How many segments are written again in vain before one is dropped: each takes a read of several.
const TRIES: u32 = 4;
/// With how many younger ones a segment is compared at once. They are read whole.
const NEIGHBOURS: usize = 4;

/// What is done to make room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Drop { lane: u8, id: u64 },
    Thin { lane: u8, id: u64 },
}

impl Journal {
    /// Makes room for so many bytes and new seconds, if the options say how. Returns how many entries were
    /// given up.
    pub(crate) fn make_room(&mut self, wanted: u64, seconds: usize, now: u64) -> Result<u64> {
        let mut lost = 0;
        let mut tries = TRIES;
        loop {
            let way = {
                let state = self.lock();
                let budget = state.options.budget_bytes;
                // What could never fit is refused, and moves nothing else.
                let is_hopeless =
                    wanted + ROOM_MIN > budget || seconds > state.options.budget_seconds;
                let has_bytes = state.total() + wanted + ROOM_MIN <= budget;
                let has_seconds = state.calendar.len() + seconds <= state.options.budget_seconds;
                if is_hopeless || (has_bytes && has_seconds) {
                    return Ok(lost);
                }
                state.way(tries > 0)
            };
            let Some(way) = way else { return Ok(lost) };
            let before = self.lock().total();
            lost += self.go(way, now)?;
            if self.lock().total() >= before {
                tries = tries.saturating_sub(1);
            }
        }
    }

    /// The disk is full although the budget is not: makes room once. Returns how many bytes that was; `None`
    /// if there is nothing to give up. What is being written is not given up, and not all that there is:
    /// what comes waits in memory then, and is refused once that is much.
    pub(crate) fn give_way(&mut self) -> Result<Option<u64>> {
        let way = {
            let mut state = self.lock();
            // To write a segment again takes room itself.
            match state.way(false) {
                Some(Way::Drop { lane, id }) if state.lane(lane).open == Some(id) => {
                    // Its end is written when there is room. If it comes to the worst it can be given up
                    // then, without what comes from now on.
                    state.close_open(lane);
                    None
                }
                Some(Way::Drop { lane, id }) if state.is_all_there_is(lane, id) => None,
                other => other,
            }
        };
        let Some(way) = way else { return Ok(None) };
        let before = self.lock().total();
        self.go(way, 0)?;
        Ok(Some(before.saturating_sub(self.lock().total())))
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
        // There may have been no room to write that down.
        self.write_lost(now, true)?;
        Ok(lost)
    }

    /// Writes a closed segment again, without what itself or one of the next of its lane has newer. Its
    /// entries move to the end of its positions: who reads on may see one twice, but none is passed over.
    pub(crate) fn thin(&mut self, lane: u8, id: u64) -> Result<()> {
        let found = self.lock().neighbours(lane, id);
        let Some((ends, ranked, others)) = found else {
            return Ok(());
        };
        let path = self.dir.join(files::name_of(lane, id));
        let read = |id: u64| {
            let path = self.dir.join(files::name_of(lane, id));
            read_blocks(&path, lane, id).map_err(JournalError::io(path))
        };
        // What cannot be read is left as it is, and another way is found.
        let Some(own) = read(id)? else { return Ok(()) };
        let mut newest = HashMap::new();
        if note_newest(lane, &own, &mut newest).is_err() {
            return Ok(());
        }
        for other in others {
            let Some(other) = read(other)? else {
                return Ok(());
            };
            if note_newest(lane, &other, &mut newest).is_err() {
                return Ok(());
            }
        }
        let block_bytes = self.lock().options.block_bytes;
        let Ok(Some(thinned)) = rewrite((lane, id), &own, &newest, (ends, ranked), block_bytes)
        else {
            return Ok(());
        };
        if thinned.first == ends.1 {
            let mut state = self.lock();
            state.lane_mut(lane).counters.coalesced += thinned.fewer;
            state.remove(lane, id);
            drop(state);
            self.writer.remove(lane, id)?;
            return files::sync_dir(&self.dir).map_err(JournalError::io(&self.dir));
        }
        let name = files::name_of(lane, id);
        let io = |error| JournalError::io(&path)(error);
        files::prepare(&*self.files, &self.dir, &name, &thinned.bytes).map_err(io)?;
        // Whoever reads must not find the new file where the old one is expected.
        let mut state = self.lock();
        files::finish(&*self.files, &self.dir, &name).map_err(io)?;
        state.thinned(lane, id, &thinned);
        drop(state);
        files::sync_dir(&self.dir).map_err(JournalError::io(&self.dir))
    }
}

/// A segment that was written again.
struct Thinned {
    bytes: Vec<u8>,
    sums: BTreeMap<Slot, Sums>,
    first: u64,
    fewer: u64,
    /// What of it waits only as long as nothing newer does.
    newest_only: Vec<Superseded>,
}

impl State {
    /// What to do next; `may_thin` says whether segments may be written again. What nobody waits for any more
    /// goes first: of that nothing is lost, whatever the options say.
    fn way(&self, may_thin: bool) -> Option<Way> {
        if let Some((_, id, lane)) = self.needless() {
            return Some(Way::Drop { lane, id });
        }
        let first = |lane: u8| Some((*self.lane(lane).segments.first_key_value()?.0, lane));
        let drop = |found: Option<(u64, u8)>| found.map(|(id, lane)| Way::Drop { lane, id });
        let oldest = || drop((0..LANES).filter_map(first).min());
        match self.options.on_full {
            OnFull::RejectNew => None,
            OnFull::DropOldest => oldest(),
            OnFull::DropLowestLane => drop((0..LANES).rev().find_map(first)),
            OnFull::Coalesce => {
                let fat = |lane: u8| {
                    let closed = || {
                        self.lane(lane)
                            .segments
                            .values()
                            .filter(|it| it.is_closed())
                    };
                    let last = closed().next_back()?.id;
                    Some((closed().find(|it| it.thinned_to < last)?.id, lane))
                };
                let fat = (0..LANES).filter_map(fat).min().filter(|_| may_thin);
                fat.map(|(id, lane)| Way::Thin { lane, id }).or_else(oldest)
            }
        }
    }

    /// The oldest segment that every upstream has: whether it is being filled, its id, its lane. One that is
    /// not is preferred.
    fn needless(&self) -> Option<(bool, u64, u8)> {
        let required = self.required();
        if required == 0 {
            return None;
        }
        let in_lane = |at: u8| {
            let lane = self.lane(at);
            let is = move |it: &&Segment| !self.waits(it, required);
            let name = move |it: &Segment| (lane.open == Some(it.id), it.id, at);
            lane.segments.values().filter(is).map(name)
        };
        (0..LANES).flat_map(in_lane).min()
    }

    /// Whether something waits in a segment, and no other is on the disk.
    fn is_all_there_is(&self, lane: u8, id: u64) -> bool {
        let waits = |it: &Segment| self.waits(it, self.required());
        let segments = &self.lane(lane).segments;
        let mut others = self.lanes.iter().flat_map(|lane| lane.segments.values());
        let has_other = others.any(|other| other.id != id && other.is_on_disk());
        segments.get(&id).is_some_and(waits) && !has_other
    }

    /// The positions of a segment, who decided about it, and the next segments that it was not compared
    /// with. It counts as compared from now on.
    fn neighbours(&mut self, lane: u8, id: u64) -> Option<((u64, u64), u32, Vec<u64>)> {
        let segments = &mut self.lane_mut(lane).segments;
        let from = segments.get(&id)?.thinned_to.max(id) + 1;
        let closed = segments.range(from..).filter(|(_, it)| it.is_closed());
        let others: Vec<u64> = closed.map(|(id, _)| *id).take(NEIGHBOURS).collect();
        let segment = segments.get_mut(&id)?;
        segment.thinned_to = others.last().copied().unwrap_or(from - 1);
        Some(((segment.first, segment.end), segment.ranked, others))
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
        self.mark += 1;
        for (slot, old) in &before {
            self.calendar.moved(*slot, self.mark);
            let new = thinned.sums.get(slot).map_or(0, |sums| sums.kept);
            self.calendar.thin(*slot, old.saturating_sub(new));
        }
        self.lane_mut(at).counters.coalesced += thinned.fewer;
        self.settle((at, id), &thinned.newest_only);
    }
}

/// Notes the newest version of each key.
fn note_newest(
    lane: u8,
    blocks: &[Block],
    newest: &mut HashMap<Key, Version>,
) -> Result<(), Damage> {
    for block in blocks {
        for row in block.rows(lane) {
            if let KeptChange::Key(change) = row?.entry.change {
                let version = change.version(change.stamp.unwrap_or_default());
                let held = newest.entry(change.key).or_insert(version);
                *held = version.max(*held);
            }
        }
    }
    Ok(())
}

/// A segment's bytes without what is superseded; `None` if nothing is.
fn rewrite(
    (lane, id): (u8, u64),
    own: &[Block],
    newest: &HashMap<Key, Version>,
    (ends, ranked): ((u64, u64), u32),
    block_bytes: usize,
) -> Result<Option<Thinned>, Damage> {
    let mut fewer = 0;
    let mut sums: BTreeMap<Slot, Sums> = BTreeMap::new();
    let mut kept = Vec::new();
    let mut gone: BTreeMap<Slot, Summary> = BTreeMap::new();
    let (mut mark, mut appended) = (0, 0);
    for block in own {
        mark = block.head.mark.max(mark);
        appended = block.head.appended.max(appended);
        let whole = block.whole(lane)?;
        for (slot, summary) in whole.gone {
            *gone.entry(slot).or_default() += summary;
        }
        for (row, priority) in whole.rows.into_iter().zip(whole.priorities) {
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
                fewer += 1;
                *gone.entry(slot).or_default() += all;
            } else {
                cell.kept += 1;
                kept.push((row, priority));
            }
        }
    }
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
    let mut newest_only = Vec::new();
    let mut builder = Builder::new();
    builder.begin(id, first);
    let now = u64::from(appended) << 32;
    for (slot, summary) in gone {
        builder.push_gone(slot, summary, mark, now);
        flush_if(&mut builder, block_bytes, &mut bytes, &mut blocks, id);
    }
    for (row, priority) in kept {
        builder.push(&row.entry, priority, row.newest_only, mark, now);
        if let (true, KeptChange::Key(change)) = (row.newest_only, &row.entry.change) {
            let version = change.version(change.stamp.unwrap_or_default());
            newest_only.push(Superseded::of(&change.key, version));
        }
        flush_if(&mut builder, block_bytes, &mut bytes, &mut blocks, id);
    }
    flush_if(&mut builder, 0, &mut bytes, &mut blocks, id);
    let end = bytes.len() as u64;
    let positions = (first, ends.1);
    bytes.extend(segment::footer(
        sums.iter(),
        &blocks,
        end,
        positions,
        ranked,
    ));
    Ok(Some(Thinned {
        bytes,
        sums,
        first,
        fewer,
        newest_only,
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
