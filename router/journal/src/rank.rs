//! Deciding again about what waits, once another decides than did when it was appended: a block at a time,
//! and a segment is written again if something of it is to wait otherwise. What stays keeps its place; what
//! goes to other lanes goes to segments of its own at their ends.
//!
//! ```text
//! rank_by(who) -> unranked(): entries of a block -> rank(verdicts) -> ... -> the segment is over:
//!     write and sync X.new, Y.new -> `moved` -> rename them, forget the old one -> remove `moved`
//! ```
//!
//! Each entry, and each part of the sums, is in exactly one segment whenever the process ends: in the old one
//! until `moved` is there, in the new ones from then on ([`crate::moves`]).

mod part;

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io,
    path::Path,
};

use bytes::Bytes;
use weir_core::{
    backlog::{LANES, Verdict},
    change::{Change, KeptChange},
    forward::{Entry, Order},
    ledger::Summary,
};

use self::part::{NEWEST_MAX, Part};
use crate::{
    block::{Block, Row, Whole},
    calendar::{Slot, Sums, slot_of},
    error::{JournalError, Result},
    files::{self, Files},
    journal::Journal,
    moves::{Move, Name},
    newest::{Place, Superseded},
    options::{Ranked, Unranked, one},
    reader::read_index,
    recovery::{counted, read_at, read_footer, usize_of},
    segment::{Header, Info},
    state::{Segment, Slots, State},
};

/// A segment that is being decided about.
#[derive(Debug)]
pub(crate) struct Again {
    lane: u8,
    id: u64,
    generation: u32,
    is_coalesced: bool,
    /// Who decides.
    ranking: u32,
    file: File,
    blocks: Vec<Info>,
    /// The next of them.
    at: usize,
    /// What it has of which second, less what has left it.
    sums: BTreeMap<Slot, Sums>,
    /// The block that is being asked about, and what becomes of its rows.
    asked: Option<Asked>,
    /// What stays, once something does not.
    stays: Option<Part>,
    /// What goes, by lane.
    goes: BTreeMap<u8, Part>,
    /// What of it stays as long as nothing newer waits.
    newest_only: Vec<Superseded>,
    tally: Tally,
}

#[derive(Debug)]
struct Asked {
    block: Block,
    whole: Whole,
    fates: Vec<Fate>,
}

/// What becomes of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Asked,
    Stays,
    /// It stays, and waits otherwise: when it expires, whether newer ones supersede it.
    Changes(Option<u64>, bool),
    /// To a lane, where it expires then, and whether newer ones supersede it.
    Goes(u8, Option<u64>, bool),
    /// It is counted in the sums, and kept no longer.
    Ends,
}

/// What is counted once the segment is over.
#[derive(Debug, Default)]
struct Tally {
    ranked: Ranked,
    coalesced: u64,
    reasons: HashMap<u32, u64>,
}

impl Journal {
    /// From now on another decides about what is appended: 0 for the link's own rules, another number for
    /// each policy. What waits is decided again by [`Journal::unranked`]. A segment says in its footer who
    /// has decided, so after a restart nothing is decided again that need not be; one that a crash has left
    /// open counts as decided by the own rules.
    pub fn rank_by(&mut self, who: u32) {
        let mut state = self.lock();
        if state.ranking == who {
            return;
        }
        // What was decided by another must not lie in one segment with what comes.
        state.close_all();
        state.ranking = who;
        drop(state);
        self.forget_again();
    }

    /// Entries to be decided about again, some of what waits in a lane: the better lanes first, each in the
    /// order in which it is shipped. [`Journal::rank`] takes what was decided, and is to be called even if
    /// there are none: that is another step of the work. `None` if all is done. Costs a read of a block, or
    /// of what has to be copied of a segment.
    ///
    /// # Errors
    /// [`JournalError::Full`] if there is no room to write a segment again: all stays as it was. Another
    /// error poisons the journal.
    pub fn unranked(&mut self, order: Order) -> Result<Option<Vec<Unranked>>> {
        self.check()?;
        self.forget_if_gone();
        if self.again.is_none() {
            let Some((lane, id)) = self.lock().stale(order) else {
                return Ok(None);
            };
            self.again = self.begin(lane, id)?;
            if self.again.is_none() {
                // What cannot be read is left as it is.
                self.lock().leave(lane, id);
                return Ok(Some(Vec::new()));
            }
        }
        match self.read() {
            Ok(asked) => Ok(Some(asked)),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Takes the verdicts on what [`Journal::unranked`] gave, one for each, in order. [`Verdict::Default`]
    /// leaves an entry as it is. Other verdicts than were asked for leave all of it.
    ///
    /// # Errors
    /// As there.
    pub fn rank(&mut self, verdicts: &[Verdict]) -> Result<()> {
        self.check()?;
        self.forget_if_gone();
        let Some(again) = &mut self.again else {
            return Ok(());
        };
        let done = match again.asked.take() {
            Some(asked) => {
                let mut state = self.state.lock();
                let fates = again.decide(&mut state, asked, verdicts);
                drop(state);
                again.write(&self.state, &*self.files, &self.dir, fates)
            }
            None => self.commit(),
        };
        done.map_err(|error| self.fail(error))
    }

    /// Begins with a segment; `None` if it cannot be read as it should be.
    fn begin(&self, lane: u8, id: u64) -> Result<Option<Again>> {
        let name = files::name_of(lane, id);
        let path = self.dir.join(&name);
        let open = || -> io::Result<_> {
            let file = File::open(&path)?;
            let footer = read_footer(&file, file.metadata()?.len())?;
            let index = read_index(&file, &name, lane, id)?;
            Ok((file, footer, index))
        };
        let Ok((file, Some((_, sums)), index)) = open() else {
            return Ok(None);
        };
        // To write it again without what is damaged would be to lose that, and to tell nobody.
        if !index.is_whole {
            return Ok(None);
        }
        let state = self.lock();
        let Some(segment) = state.lane(lane).segments.get(&id) else {
            return Ok(None);
        };
        Ok(Some(Again {
            lane,
            id,
            generation: segment.generation,
            is_coalesced: segment.thinned_to > 0,
            ranking: state.ranking,
            file,
            blocks: index.blocks,
            at: 0,
            sums: sums.into_iter().collect(),
            asked: None,
            stays: None,
            goes: BTreeMap::new(),
            newest_only: Vec::new(),
            tally: Tally::default(),
        }))
    }

    /// The rows of the next block that are to be decided about.
    fn read(&mut self) -> Result<Vec<Unranked>> {
        let Some(again) = &mut self.again else {
            return Ok(Vec::new());
        };
        let Some(info) = again.blocks.get(again.at).copied() else {
            return Ok(Vec::new());
        };
        let Some((block, whole)) = again.block(&info) else {
            let (lane, id) = (again.lane, again.id);
            self.lock().leave(lane, id);
            self.forget_again();
            return Ok(Vec::new());
        };
        let state = self.state.lock();
        let required = state.required();
        let fates: Vec<Fate> = whole
            .rows
            .iter()
            .map(|row| state.fate(row, required))
            .collect();
        drop(state);
        let all = whole.rows.iter().zip(&whole.priorities).zip(&fates);
        let asked = all.filter(|(_, fate)| **fate == Fate::Asked);
        let asked = asked.map(|((row, priority), _)| Unranked {
            entry: row.entry.clone(),
            priority: *priority,
        });
        let unranked = asked.collect();
        again.at += 1;
        again.asked = Some(Asked {
            block,
            whole,
            fates,
        });
        Ok(unranked)
    }

    /// All of a segment is decided about: what was written takes its place.
    fn commit(&mut self) -> Result<()> {
        let Some(mut again) = self.again.take() else {
            return Ok(());
        };
        let done = self.replace(&mut again);
        if done.as_ref().is_err_and(JournalError::is_full) {
            again.clean_up(&*self.files, &self.dir);
        }
        done
    }

    fn replace(&self, again: &mut Again) -> Result<()> {
        let ranking = again.ranking;
        if again.stays.is_none() {
            self.lock().ranked_as_it_was(again);
            return Ok(());
        }
        if let Some(empty) = again.stays.take_if(|part| part.blocks.is_empty()) {
            // What is left of it is removed when the journal is opened.
            let _ = self.files.remove(&empty.path(&self.dir));
        }
        if let Some(stays) = &mut again.stays {
            stays.sums.clone_from(&again.sums);
        }
        let parts = again.goes.values_mut().chain(&mut again.stays);
        let mut moved = Move {
            from: (again.lane, again.id),
            to: Vec::new(),
        };
        for part in parts {
            part.end(&self.dir, ranking)?;
            moved.to.push(part.name);
        }
        let files = &*self.files;
        let begun = files::prepare(files, &self.dir, files::MOVED, &moved.encode());
        begun
            .and_then(|()| files::finish(files, &self.dir, files::MOVED))
            .map_err(JournalError::io(self.dir.join(files::MOVED)))?;
        // From here on it has happened, whatever comes, want of room included: a failure is found out about
        // when the journal is opened again.
        let failed = |source| JournalError::Io {
            path: self.dir.join(files::MOVED),
            source,
        };
        files.sync_dir(&self.dir).map_err(failed)?;
        // Whoever reads must not find a new file where the old one is expected.
        let mut state = self.lock();
        moved.put(files, &self.dir).map_err(failed)?;
        state.ranked_again(again);
        drop(state);
        moved.clean_up(files, &self.dir).map_err(failed)
    }

    /// What is being decided about is over if its segment is another one now, or none.
    fn forget_if_gone(&mut self) {
        let is_there = self.again.as_ref().is_none_or(|again| {
            let state = self.lock();
            let segment = state.lane(again.lane).segments.get(&again.id);
            segment.is_some_and(|segment| segment.generation == again.generation)
        });
        if !is_there {
            self.forget_again();
        }
    }

    fn forget_again(&mut self) {
        if let Some(again) = self.again.take() {
            again.clean_up(&*self.files, &self.dir);
        }
    }

    fn fail(&mut self, error: JournalError) -> JournalError {
        if error.is_full() {
            self.forget_again();
        } else {
            self.lock().poisoned = Some(error.to_string());
        }
        error
    }
}

impl Again {
    /// A block and what is in it; `None` if it cannot be read.
    fn block(&self, info: &Info) -> Option<(Block, Whole)> {
        let bytes = read_at(&self.file, info.offset, usize_of(info.head.len())).ok()?;
        let block = Block::open(&Bytes::from(bytes)).ok()?;
        let whole = block.whole(self.lane).ok()?;
        (block.head == info.head).then_some((block, whole))
    }

    /// Makes fates of verdicts.
    fn decide(&mut self, state: &mut State, mut asked: Asked, verdicts: &[Verdict]) -> Asked {
        let count = asked.fates.iter().filter(|fate| **fate == Fate::Asked);
        let is_right = count.count() == verdicts.len();
        // The newest first, so that what they supersede goes at once.
        let mut verdicts = verdicts.iter().rev();
        for (row, fate) in asked.whole.rows.iter().zip(&mut asked.fates).rev() {
            if *fate == Fate::Asked {
                let verdict = verdicts.next().filter(|_| is_right);
                *fate = self.fate(state, row, verdict.unwrap_or(&Verdict::Default));
                self.tally.ranked.decided += u64::from(is_right);
            }
        }
        asked
    }

    fn fate(&mut self, state: &mut State, row: &Row, verdict: &Verdict) -> Fate {
        let place = match verdict {
            Verdict::Default => return Fate::Stays,
            Verdict::Drop(reason) => {
                *self.tally.reasons.entry(*reason).or_default() += 1;
                self.tally.ranked.dropped += 1;
                return Fate::Ends;
            }
            Verdict::Place(place) if place.lane >= LANES => return Fate::Stays,
            Verdict::Place(place) => place,
        };
        if let (true, KeptChange::Key(change)) = (place.newest_only, &row.entry.change) {
            let version = change.version(change.stamp.unwrap_or_default());
            let offered = state.newest.offer(&change.key, version);
            self.tally.coalesced += u64::from(offered != Place::First);
            match offered {
                Place::First => {}
                Place::Newer(before) => state.hide(&before),
                Place::Older => {
                    self.tally.ranked.dropped += 1;
                    return Fate::Ends;
                }
            }
        }
        if place.lane != self.lane {
            self.tally.ranked.moved += 1;
            return Fate::Goes(place.lane, place.expires, place.newest_only);
        }
        match (place.expires, place.newest_only) {
            same if same == (row.entry.expires, row.newest_only) => Fate::Stays,
            (expires, newest_only) => Fate::Changes(expires, newest_only),
        }
    }

    /// Writes what becomes of a block.
    fn write(
        &mut self,
        state: &parking_lot::Mutex<State>,
        files: &dyn Files,
        dir: &Path,
        asked: Asked,
    ) -> Result<()> {
        self.note_newest_only(&asked);
        let is_same = asked.fates.iter().all(|fate| *fate == Fate::Stays);
        if is_same && self.stays.is_none() {
            return Ok(());
        }
        self.begin_stays(state, files, dir)?;
        let Some(stays) = &mut self.stays else {
            return Ok(());
        };
        if is_same {
            return stays.copy(dir, &asked.block);
        }
        let head = asked.block.head;
        let (mark, now) = (head.mark, u64::from(head.appended) << 32);
        // Each keeps its place or gets a later one: who reads on from within passes none over.
        let stay = |(_, fate): &(&Row, &Fate)| !matches!(fate, Fate::Goes(..) | Fate::Ends);
        let rows = || asked.whole.rows.iter().zip(&asked.fates);
        let count = rows().filter(stay).count() as u64;
        let end = rows().filter(stay).last();
        let end = end.map_or(head.end(), |(row, _)| row.position + 1);
        stays.builder.begin(self.id, end - count);
        for (slot, summary) in asked.whole.gone {
            stays.builder.push_gone(slot, summary, mark, now);
        }
        let rows = asked.whole.rows.into_iter().zip(asked.whole.priorities);
        for ((mut row, priority), fate) in rows.zip(asked.fates) {
            match fate {
                Fate::Stays | Fate::Asked => {
                    let newest_only = row.newest_only;
                    stays
                        .builder
                        .push(&row.entry, priority, newest_only, mark, now);
                }
                Fate::Changes(expires, newest_only) => {
                    row.entry.expires = expires;
                    stays
                        .builder
                        .push(&row.entry, priority, newest_only, mark, now);
                }
                Fate::Ends => {
                    let (slot, all) = sums_of(&row.entry);
                    less(&mut self.sums, slot, Summary::EMPTY);
                    stays.builder.push_gone(slot, all, mark, now);
                }
                Fate::Goes(lane, expires, newest_only) => {
                    let (slot, all) = sums_of(&row.entry);
                    less(&mut self.sums, slot, all);
                    row.entry.lane = lane;
                    row.entry.expires = expires;
                    let from = (self.lane, self.id);
                    let part = match self.goes.entry(lane) {
                        std::collections::btree_map::Entry::Occupied(part) => part.into_mut(),
                        std::collections::btree_map::Entry::Vacant(free) => {
                            free.insert(Part::at_the_end(state, files, dir, from, lane)?)
                        }
                    };
                    if let (true, KeptChange::Key(change)) = (newest_only, &row.entry.change)
                        && part.newest_only.len() < NEWEST_MAX
                    {
                        part.newest_only.push(superseded(change));
                    }
                    let sums = part.sums.entry(slot).or_default();
                    sums.all += all;
                    sums.kept += 1;
                    part.builder
                        .push(&row.entry, priority, newest_only, mark, now);
                    part.ends.1 += 1;
                    if part.builder.len() >= state.lock().options.block_bytes {
                        part.flush(dir)?;
                    }
                }
            }
        }
        stays.flush(dir)
    }

    /// Notes what of a block stays as long as nothing newer waits.
    fn note_newest_only(&mut self, asked: &Asked) {
        for (row, fate) in asked.whole.rows.iter().zip(&asked.fates) {
            let newest_only = match fate {
                Fate::Stays | Fate::Asked => row.newest_only,
                Fate::Changes(_, newest_only) => *newest_only,
                Fate::Goes(..) | Fate::Ends => false,
            };
            if let (true, KeptChange::Key(change)) = (newest_only, &row.entry.change)
                && self.newest_only.len() < NEWEST_MAX
            {
                self.newest_only.push(superseded(change));
            }
        }
    }

    /// Begins to write what stays, with all that was before the block at hand.
    fn begin_stays(
        &mut self,
        state: &parking_lot::Mutex<State>,
        files: &dyn Files,
        dir: &Path,
    ) -> Result<()> {
        if self.stays.is_some() {
            return Ok(());
        }
        let ends = {
            let state = state.lock();
            let segment = state.lane(self.lane).segments.get(&self.id);
            segment.map_or((0, 0), |segment| (segment.first, segment.end))
        };
        let header = Header {
            lane: self.lane,
            is_coalesced: self.is_coalesced,
            id: self.id,
            first: ends.0,
        };
        let stays = self.stays.insert(Part::begin(files, dir, header, ends.1)?);
        for info in &self.blocks[..self.at.saturating_sub(1)] {
            let path = dir.join(files::name_of(self.lane, self.id));
            let bytes = read_at(&self.file, info.offset, usize_of(info.head.len()))
                .map_err(JournalError::io(path))?;
            stays.append(dir, *info, &bytes)?;
        }
        Ok(())
    }

    /// Removes what was written in vain.
    fn clean_up(self, files: &dyn Files, dir: &Path) {
        for part in self.stays.iter().chain(self.goes.values()) {
            let (lane, id) = part.name;
            // What is left of it is removed when the journal is opened.
            let _ = files.remove(&files::unfinished(dir, &files::name_of(lane, id)));
        }
    }
}

impl State {
    /// Entries that wait to be decided about again.
    pub(crate) fn unranked(&self) -> u64 {
        let required = self.required();
        let segments = self.lanes.iter().flat_map(|lane| lane.segments.values());
        // One that could not be ended on a full disk is ended when the journal is opened again, and decided
        // about then.
        let can_end = |it: &&Segment| it.is_closed() || matches!(it.slots, Slots::Open(_));
        let stale = segments.filter(|segment| segment.ranked != self.ranking);
        let stale = stale.filter(can_end);
        let waiting = stale.flat_map(Segment::shown);
        waiting.map(|slot| self.share(slot, required)).sum()
    }

    /// The next segment to be decided about.
    fn stale(&self, order: Order) -> Option<Name> {
        let required = self.required();
        let is = |segment: &&Segment| {
            segment.ranked != self.ranking && segment.is_closed() && self.waits(segment, required)
        };
        (0..LANES).find_map(|lane| {
            let mut segments = self.lane(lane).segments.values();
            let found = match order {
                Order::OldestFirst => segments.find(is),
                Order::NewestFirst => segments.rfind(is),
            };
            found.map(|segment| (lane, segment.id))
        })
    }

    /// A segment stays as it is.
    fn leave(&mut self, lane: u8, id: u64) {
        let ranking = self.ranking;
        if let Some(segment) = self.lane_mut(lane).segments.get_mut(&id) {
            segment.ranked = ranking;
        }
    }

    /// What is to be done about a row, as far as it needs no verdict: an operation is for many keys, what
    /// every upstream has is only there in case one loses it, and what a newer one supersedes is not shipped.
    fn fate(&self, row: &Row, required: u64) -> Fate {
        let KeptChange::Key(change) = &row.entry.change else {
            return Fate::Stays;
        };
        let stamp = change.stamp.unwrap_or_default();
        if self.share((slot_of(&stamp), 1), required) == 0 {
            return Fate::Stays;
        }
        if self.newest.supersedes(&change.key, change.version(stamp)) {
            return Fate::Ends;
        }
        Fate::Asked
    }

    fn ranked_as_it_was(&mut self, again: &Again) {
        self.leave(again.lane, again.id);
        self.tally(again);
    }

    /// What was written anew takes the place of the old segment.
    fn ranked_again(&mut self, again: &Again) {
        self.mark += 1;
        let mark = self.mark;
        let (lane, id) = (again.lane, again.id);
        let ranked = again.ranking;
        let Some(old) = self.lane(lane).segments.get(&id) else {
            return;
        };
        let (first, thinned_to, generation) = (old.first, old.thinned_to, old.generation);
        let slots: Vec<Slot> = old.slots.kept().map(|(slot, _)| slot).collect();
        // What takes over first: a second that nobody holds is forgotten.
        let mut segments = Vec::new();
        for part in again.goes.values().chain(&again.stays) {
            let (segment, sums) = part.segment(ranked);
            for (slot, sums) in sums {
                self.calendar.take_over(slot, sums.kept);
            }
            segments.push((part.name.0, segment));
        }
        self.remove(lane, id);
        for (at, mut segment) in segments {
            if (at, segment.id) == (lane, id) {
                segment.first = first;
                segment.thinned_to = thinned_to;
                segment.generation = generation + 1;
            }
            self.bytes += segment.bytes;
            self.lane_mut(at).segments.insert(segment.id, segment);
        }
        self.settle((lane, id), &again.newest_only);
        for part in again.goes.values() {
            self.settle(part.name, &part.newest_only);
        }
        for slot in slots {
            self.calendar.moved(slot, mark);
        }
        self.moved += u64::from(again.tally.ranked.moved > 0);
        self.tally(again);
    }

    fn tally(&mut self, again: &Again) {
        let Ranked {
            decided,
            moved,
            dropped,
        } = again.tally.ranked;
        self.ranked.decided += decided;
        self.ranked.moved += moved;
        self.ranked.dropped += dropped;
        let lane = self.lane_mut(again.lane);
        lane.counters.coalesced += again.tally.coalesced;
        for (reason, count) in &again.tally.reasons {
            lane.count_dropped(*reason, *count);
        }
    }
}

fn superseded(change: &Change) -> Superseded {
    Superseded::of(
        &change.key,
        change.version(change.stamp.unwrap_or_default()),
    )
}

/// The second of an entry, and what it adds to the sums.
fn sums_of(entry: &Entry) -> (Slot, Summary) {
    let (stamp, hash) = counted(&entry.change);
    (slot_of(&stamp), hash.map(one).unwrap_or_default())
}

/// One entry less is kept of a second, and so much less of it was tapped.
fn less(sums: &mut BTreeMap<Slot, Sums>, slot: Slot, all: Summary) {
    let Some(left) = sums.get_mut(&slot) else {
        return;
    };
    left.kept = left.kept.saturating_sub(1);
    left.all.count = left.all.count.saturating_sub(all.count);
    left.all.sum = left.all.sum.wrapping_sub(all.sum);
    if left.kept == 0 && left.all.is_empty() {
        sums.remove(&slot);
    }
}
