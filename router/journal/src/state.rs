//! What is in memory of a journal: the writer changes it, outboxes look at it, each holding the lock for
//! as long as memory takes and no file.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use bytes::Bytes;
use weir_core::{
    backlog::LANES,
    change::KeptChange,
    forward::{Cause, Entry, Lost, Stretch},
    version::Stamp,
};

use crate::{
    block::{Builder, HEAD_LEN, Head},
    calendar::{Calendar, Slot, Sums, slot_of},
    files,
    lost::LostList,
    moves::Name,
    newest::{Known, Newest, Superseded},
    options::{Damaged, LaneStatus, Options, Ranked, one},
    reader::Cache,
    segment::{HEADER_LEN, INDEX_LEN, Info, SUMS_LEN, TRAILER_LEN},
};

/// Blocks that wait in memory to be set aside.
const ASIDE_MAX: usize = 64;
/// Reasons for dropping that are told apart: a policy's numbers could be any.
const REASONS_MAX: usize = 256;

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) options: Options,
    pub(crate) lanes: [Lane; LANES as usize],
    pub(crate) calendar: Calendar,
    pub(crate) newest: Newest,
    pub(crate) lost: LostList,
    pub(crate) damaged: Vec<Damaged>,
    /// Blocks that were set aside already: segment and offset.
    pub(crate) aside: HashSet<(u64, u64)>,
    /// Those of them that are to be written beside their segments, once the disk has them as lost: who opens
    /// the journal tells nobody of what lies there.
    pub(crate) unwritten_aside: Vec<(Damaged, Bytes)>,
    /// By number; a hole is one that was forgotten.
    pub(crate) upstreams: Vec<Option<String>>,
    /// How much has been appended.
    pub(crate) mark: u64,
    pub(crate) next_segment: u64,
    /// Bytes of all segments, written or not, but for the blocks that are being filled.
    pub(crate) bytes: u64,
    /// Bytes of blocks that are not written yet.
    pub(crate) unwritten: u64,
    /// How much the disk has taken at the most, once it has refused to take more.
    pub(crate) disk: Option<u64>,
    pub(crate) poisoned: Option<String>,
    /// Who decides now.
    pub(crate) ranking: u32,
    pub(crate) ranked: Ranked,
    /// How often entries were put into other lanes.
    pub(crate) moved: u64,
    /// What outboxes that are no more have left for the next of their upstream.
    pub(crate) caches: HashMap<u64, Cache>,
}

/// A lane: its segments, and the block that is being filled.
#[derive(Debug)]
pub(crate) struct Lane {
    /// By id, which is the order of their positions.
    pub(crate) segments: BTreeMap<u64, Segment>,
    /// The segment that the block belongs to.
    pub(crate) open: Option<u64>,
    pub(crate) builder: Builder,
    /// The next entry's position.
    pub(crate) next: u64,
    /// What has to be written, in order.
    pub(crate) jobs: VecDeque<Job>,
    pub(crate) counters: LaneStatus,
    pub(crate) dropped: BTreeMap<u32, u64>,
    /// Up to which position expired entries were counted.
    pub(crate) expired_to: u64,
}

/// Something to be written.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    /// A block.
    Block { id: u64, bytes: Bytes },
    /// The footer.
    Close { id: u64 },
}

/// A file of a lane.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: u64,
    /// Another one if it was written again.
    pub(crate) generation: u32,
    pub(crate) first: u64,
    pub(crate) end: u64,
    /// The earliest stamp inside, as far as is known; above `latest` if there is no entry.
    pub(crate) earliest: u64,
    pub(crate) latest: u64,
    /// When the last of it was appended (NTP64).
    pub(crate) appended: u64,
    pub(crate) has_operations: bool,
    /// Who decided about its entries ([`State::ranking`]).
    pub(crate) ranked: u32,
    /// Up to which segment of its lane it was written again without what that has newer; 0 for never.
    pub(crate) thinned_to: u64,
    /// Bytes of the file, once all is written.
    pub(crate) bytes: u64,
    pub(crate) slots: Slots,
    /// How many of each second are known to be superseded.
    pub(crate) hidden: BTreeMap<Slot, u32>,
    /// Its blocks, while it has no footer that says so.
    pub(crate) blocks: Option<Vec<Info>>,
    /// Those of them that are not written yet.
    pub(crate) unwritten: VecDeque<(u64, Bytes)>,
    /// Since when it is known to be certified by all (NTP64).
    pub(crate) certified: Option<u64>,
}

/// What a segment has of which second.
#[derive(Debug)]
pub(crate) enum Slots {
    /// In full, as the footer will say it.
    Open(BTreeMap<Slot, Sums>),
    /// How much is kept of each.
    Closed(Box<[(Slot, u32)]>),
}

/// How an entry enters the sums.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    pub(crate) stamp: Stamp,
    /// The hash of a put or delete; operations are in no sum.
    pub(crate) hash: Option<u128>,
}

impl State {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            options,
            lanes: std::array::from_fn(|_| Lane::new()),
            calendar: Calendar::default(),
            newest: Newest::default(),
            lost: LostList::default(),
            damaged: Vec::new(),
            aside: HashSet::new(),
            unwritten_aside: Vec::new(),
            upstreams: Vec::new(),
            mark: 0,
            next_segment: 1,
            bytes: 0,
            unwritten: 0,
            disk: None,
            poisoned: None,
            ranking: 0,
            ranked: Ranked::default(),
            moved: 0,
            caches: HashMap::new(),
        }
    }

    pub(crate) fn lane(&self, lane: u8) -> &Lane {
        &self.lanes[usize::from(lane)]
    }

    pub(crate) fn lane_mut(&mut self, lane: u8) -> &mut Lane {
        &mut self.lanes[usize::from(lane)]
    }

    /// A bit for each upstream.
    pub(crate) fn required(&self) -> u64 {
        let named = self
            .upstreams
            .iter()
            .enumerate()
            .filter(|(_, name)| name.is_some());
        named.fold(0, |bits, (at, _)| bits | 1 << at)
    }

    /// Bytes that the files will have once everything is written and every segment is closed.
    pub(crate) fn total(&self) -> u64 {
        let lanes = self.lanes.iter().map(|lane| {
            let footers: u64 = lane.segments.values().map(Segment::footer_len).sum();
            footers
                + if lane.builder.is_empty() {
                    0
                } else {
                    (lane.builder.len() + INDEX_LEN) as u64
                }
        });
        self.bytes + lanes.sum::<u64>()
    }

    /// Bytes of what is written.
    pub(crate) const fn written_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.unwritten)
    }

    /// When a segment is closed. A disk that is full before the budget is used up is a smaller budget: on it
    /// too, what is given up at once is an eighth.
    fn segment_max(&self) -> u64 {
        let most = self.options.segment_max();
        let block = self.options.block_bytes as u64;
        self.disk
            .map_or(most, |disk| most.min((disk / 8).max(block)))
    }

    /// Keeps an entry; answers in which segment.
    pub(crate) fn keep(
        &mut self,
        entry: &Entry,
        priority: u8,
        newest_only: bool,
        counted: Counted,
        now: u64,
    ) -> Name {
        let sums = Sums {
            all: counted.hash.map(one).unwrap_or_default(),
            kept: 1,
        };
        let mark = self.count(entry.lane, slot_of(&counted.stamp), sums, now);
        let lane = self.lane_mut(entry.lane);
        lane.builder.push(entry, priority, newest_only, mark, now);
        lane.next += 1;
        lane.counters.kept += 1;
        let end = lane.next;
        let id = lane.open.unwrap_or_default();
        if let Some(segment) = lane.open_segment() {
            segment.end = end;
            segment.earliest = segment.earliest.min(counted.stamp.time);
            segment.latest = segment.latest.max(counted.stamp.time);
            segment.has_operations |= matches!(entry.change, KeptChange::Wildcard(_));
        }
        self.seal_if_long(entry.lane);
        (entry.lane, id)
    }

    /// An entry that is kept was superseded: nobody waits for it any more.
    pub(crate) fn hide(&mut self, known: &Known) {
        let Some((lane, id)) = known.segment else {
            return;
        };
        let slot = slot_of(&known.version.stamp);
        if let Some(segment) = self.lane_mut(lane).segments.get_mut(&id) {
            *segment.hidden.entry(slot).or_default() += 1;
            self.calendar.hide(slot, 1);
        }
    }

    /// A segment was written anew, and has these of which a newer one may be: counts those of which one is.
    /// What it had before is not there for certain, so what was counted of it counts no longer. To count too
    /// few makes a second wait for too long; too many, and others of it would wait for nobody.
    pub(crate) fn settle(&mut self, name: Name, entries: &[Superseded]) {
        let mut hidden: BTreeMap<Slot, u32> = BTreeMap::new();
        self.newest.forget_place(name);
        for entry in entries {
            if self.newest.settle(entry, name) {
                *hidden.entry(slot_of(&entry.version.stamp)).or_default() += 1;
            }
        }
        let Some(segment) = self.lanes[usize::from(name.0)].segments.get_mut(&name.1) else {
            return;
        };
        for (slot, count) in &segment.hidden {
            self.calendar.unhide(*slot, *count);
        }
        for (slot, count) in &hidden {
            self.calendar.hide(*slot, *count);
        }
        segment.hidden = hidden;
    }

    /// Counts what is not kept.
    pub(crate) fn pass(&mut self, lane: u8, counted: Counted, now: u64) {
        let Some(hash) = counted.hash else { return };
        let slot = slot_of(&counted.stamp);
        let mark = self.count(
            lane,
            slot,
            Sums {
                all: one(hash),
                kept: 0,
            },
            now,
        );
        self.lane_mut(lane)
            .builder
            .push_gone(slot, one(hash), mark, now);
        self.seal_if_long(lane);
    }

    /// Closes the block that is being filled.
    pub(crate) fn seal(&mut self, at: u8) {
        let segment_max = self.segment_max();
        let lane = self.lane_mut(at);
        let Some(id) = lane.open.filter(|_| !lane.builder.is_empty()) else {
            return;
        };
        let (head, bytes) = lane.builder.encode();
        let next = lane.next;
        let Some(segment) = lane.segments.get_mut(&id) else {
            return;
        };
        let offset = segment.bytes;
        let len = bytes.len() as u64;
        segment.bytes += len;
        segment
            .blocks
            .get_or_insert_default()
            .push(Info { offset, head });
        segment.unwritten.push_back((offset, bytes.clone()));
        let is_full = segment.bytes >= segment_max;
        lane.jobs.push_back(Job::Block { id, bytes });
        if is_full {
            lane.jobs.push_back(Job::Close { id });
            lane.open = None;
            lane.builder.clear();
        } else {
            lane.builder.begin(id, next);
        }
        self.bytes += len;
        self.unwritten += len;
    }

    /// Closes every segment: its footer is to be written.
    pub(crate) fn close_all(&mut self) {
        for lane in 0..LANES {
            self.close_open(lane);
        }
    }

    /// Closes the segment of a lane that is being filled.
    pub(crate) fn close_open(&mut self, at: u8) {
        self.seal(at);
        let lane = self.lane_mut(at);
        if let Some(id) = lane.open.take() {
            lane.builder.clear();
            lane.jobs.push_back(Job::Close { id });
        }
    }

    /// The first thing to be written of a lane was.
    pub(crate) fn written(&mut self, at: u8, footer_len: u64) {
        let lane = self.lane_mut(at);
        match lane.jobs.pop_front() {
            Some(Job::Block { id, bytes, .. }) => {
                if let Some(segment) = lane.segments.get_mut(&id) {
                    segment.unwritten.pop_front();
                }
                self.unwritten -= bytes.len() as u64;
            }
            Some(Job::Close { id }) => self.ended(at, id, footer_len),
            None => {}
        }
    }

    /// A segment has its footer.
    pub(crate) fn ended(&mut self, at: u8, id: u64, footer_len: u64) {
        if let Some(segment) = self.lane_mut(at).segments.get_mut(&id) {
            segment.close(footer_len);
        }
        self.bytes += footer_len;
    }

    /// Takes over a segment that was found.
    pub(crate) fn adopt(&mut self, at: u8, segment: Segment, sums: &[(Slot, Sums)], mark: u64) {
        for (slot, sums) in sums {
            self.calendar.add(*slot, *sums, mark);
            self.calendar.hold(*slot);
        }
        self.mark = self.mark.max(mark);
        self.next_segment = self.next_segment.max(segment.id + 1);
        self.bytes += segment.bytes;
        let lane = self.lane_mut(at);
        lane.next = lane.next.max(segment.end);
        lane.segments.insert(segment.id, segment);
    }

    /// Forgets a segment, whatever it holds; its file is the caller's.
    pub(crate) fn remove(&mut self, at: u8, id: u64) -> Option<Segment> {
        let lane = self.lane_mut(at);
        let segment = lane.segments.remove(&id)?;
        if lane.open == Some(id) {
            lane.open = None;
            lane.builder.clear();
        }
        lane.jobs.retain(|job| job.id() != id);
        // A file that somebody has open keeps its room on the disk.
        for cache in self.caches.values_mut() {
            cache.close(id);
        }
        self.bytes -= segment.bytes;
        self.unwritten -= segment
            .unwritten
            .iter()
            .map(|(_, bytes)| bytes.len() as u64)
            .sum::<u64>();
        for (slot, count) in &segment.hidden {
            self.calendar.unhide(*slot, *count);
        }
        for (slot, kept) in segment.slots.kept() {
            self.calendar.release(slot, kept);
        }
        Some(segment)
    }

    /// Whether something in a segment waits for an upstream.
    pub(crate) fn waits(&self, segment: &Segment, required: u64) -> bool {
        segment.shown().any(|slot| self.share(slot, required) > 0)
    }

    /// How much of a segment's part in a second waits for an upstream.
    pub(crate) fn share(&self, (slot, kept): (Slot, u32), required: u64) -> u64 {
        let waits = self
            .calendar
            .get(&slot)
            .is_some_and(|cell| cell.waits(required));
        if waits { u64::from(kept) } else { 0 }
    }

    /// Sets a block aside, unless it was before.
    pub(crate) fn set_aside(&mut self, at: u8, id: u64, damaged: Damaged, bytes: Bytes) {
        if !self.aside.insert((id, damaged.offset)) {
            return;
        }
        if let Some(head) = damaged.head.filter(|head| head.records > 0) {
            let source = self.only_source(at, id, &head);
            let stretch = Stretch {
                source,
                from: head.earliest,
                to: head.latest.saturating_add(1),
            };
            let count = u64::from(head.records - head.operations.min(head.records));
            self.lost.add_stretch(
                at,
                Lost {
                    stretch,
                    count,
                    cause: Cause::Damage,
                },
            );
        }
        // A disk that takes nothing takes no list of what is lost either: then it is told again.
        if self.unwritten_aside.len() < ASIDE_MAX {
            self.unwritten_aside.push((damaged.clone(), bytes));
        }
        self.damaged.push(damaged);
    }

    /// Whose the entries of a block are, if all that the segment has from its time is of one source; an id
    /// that is nobody's otherwise.
    fn only_source(&self, at: u8, id: u64, head: &Head) -> [u8; 16] {
        let nobody = [0; 16];
        let Some(segment) = self.lane(at).segments.get(&id) else {
            return nobody;
        };
        let (from, to) = (head.earliest >> 32, head.latest >> 32);
        let slots = segment.slots.kept().map(|(slot, _)| slot);
        let mut sources = slots.filter(|slot| (from..=to).contains(&u64::from(slot.1)));
        let Some((source, _)) = sources.next() else {
            return nobody;
        };
        if sources.all(|slot| slot.0 == source) {
            source
        } else {
            nobody
        }
    }

    fn seal_if_long(&mut self, lane: u8) {
        if self.lane(lane).builder.len() >= self.options.block_bytes {
            self.seal(lane);
        }
    }

    /// Adds to the sums of the open segment, which is begun if there is none, and to the calendar.
    fn count(&mut self, at: u8, slot: Slot, sums: Sums, now: u64) -> u64 {
        self.mark += 1;
        let mark = self.mark;
        self.calendar.add(slot, sums, mark);
        let (id, ranked) = (self.next_segment, self.ranking);
        let lane = self.lane_mut(at);
        if lane.open.is_none() {
            lane.open = Some(id);
            lane.builder.begin(id, lane.next);
            let segment = Segment {
                ranked,
                ..Segment::new(id, lane.next)
            };
            lane.segments.insert(id, segment);
            self.next_segment += 1;
            self.bytes += HEADER_LEN as u64;
        }
        if let Some(segment) = self.lane_mut(at).open_segment() {
            segment.appended = now;
            segment.certified = None;
            if segment.slots.add(slot, sums) {
                self.calendar.hold(slot);
            }
        }
        mark
    }
}

impl Lane {
    fn new() -> Self {
        Self {
            segments: BTreeMap::new(),
            open: None,
            builder: Builder::new(),
            next: 0,
            jobs: VecDeque::new(),
            counters: LaneStatus::default(),
            dropped: BTreeMap::new(),
            expired_to: 0,
        }
    }

    /// Counts by reason; those beyond some come under the greatest number.
    pub(crate) fn count_dropped(&mut self, reason: u32, count: u64) {
        let is_new = !self.dropped.contains_key(&reason);
        let reason = if is_new && self.dropped.len() >= REASONS_MAX {
            u32::MAX
        } else {
            reason
        };
        *self.dropped.entry(reason).or_default() += count;
    }

    fn open_segment(&mut self) -> Option<&mut Segment> {
        self.segments.get_mut(&self.open?)
    }
}

impl Job {
    pub(crate) const fn id(&self) -> u64 {
        match self {
            Self::Block { id, .. } | Self::Close { id } => *id,
        }
    }
}

impl Segment {
    /// An empty one.
    pub(crate) const fn new(id: u64, first: u64) -> Self {
        Self {
            id,
            generation: 0,
            first,
            end: first,
            earliest: u64::MAX,
            latest: 0,
            appended: 0,
            has_operations: false,
            ranked: 0,
            thinned_to: 0,
            bytes: HEADER_LEN as u64,
            slots: Slots::Open(BTreeMap::new()),
            hidden: BTreeMap::new(),
            blocks: Some(Vec::new()),
            unwritten: VecDeque::new(),
            certified: None,
        }
    }

    pub(crate) fn name(&self, lane: u8) -> String {
        files::name_of(lane, self.id)
    }

    pub(crate) const fn is_closed(&self) -> bool {
        self.blocks.is_none()
    }

    /// How many of each second are kept and not known to be superseded.
    pub(crate) fn shown(&self) -> impl Iterator<Item = (Slot, u32)> {
        self.slots.kept().map(|(slot, kept)| {
            let hidden = self.hidden.get(&slot).copied().unwrap_or(0);
            (slot, kept.saturating_sub(hidden))
        })
    }

    /// Whether some of it is written.
    pub(crate) fn is_on_disk(&self) -> bool {
        let unwritten = self.unwritten.iter().map(|(_, bytes)| bytes.len() as u64);
        self.bytes - unwritten.sum::<u64>() > HEADER_LEN as u64
    }

    /// Entries that are kept.
    pub(crate) fn records(&self) -> u64 {
        self.slots.kept().map(|(_, kept)| u64::from(kept)).sum()
    }

    /// Bytes of the footer that it has not got yet.
    fn footer_len(&self) -> u64 {
        let Slots::Open(slots) = &self.slots else {
            return 0;
        };
        let blocks = self.blocks.as_ref().map_or(0, Vec::len);
        (TRAILER_LEN + slots.len() * SUMS_LEN + blocks * INDEX_LEN) as u64
    }

    fn close(&mut self, footer_len: u64) {
        self.bytes += footer_len;
        self.blocks = None;
        self.slots = Slots::Closed(self.slots.kept().collect());
    }
}

impl Slots {
    /// How much is kept of each second.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (Slot, u32)> {
        let (open, closed) = match self {
            Self::Open(slots) => (Some(slots), None),
            Self::Closed(slots) => (None, Some(slots)),
        };
        let open = open
            .into_iter()
            .flatten()
            .map(|(slot, sums)| (*slot, sums.kept));
        open.chain(closed.into_iter().flatten().copied())
    }

    /// Adds to an open segment's; returns whether the second is a new one.
    fn add(&mut self, slot: Slot, added: Sums) -> bool {
        let Self::Open(slots) = self else {
            return false;
        };
        let mut is_new = false;
        let sums = slots.entry(slot).or_insert_with(|| {
            is_new = true;
            Sums::default()
        });
        sums.all += added.all;
        sums.kept += added.kept;
        is_new
    }
}

/// What an entry adds to a block at the most, in bytes: what it holds, and lengths and indices around it.
pub(crate) fn bound(entry: &Entry) -> u64 {
    let (key, value) = match &entry.change {
        KeptChange::Key(change) => (change.key.len(), change.value.as_ref()),
        KeptChange::Wildcard(change) => (change.expr.len(), change.value.as_ref()),
    };
    // The last: a block of its own, and a row of sums.
    (key + value.map_or(0, |value| value.len()) + 96) as u64
}

/// What the rows of a footer and the head of a block may add to a batch, beside [`bound`].
pub(crate) const ROOM_MIN: u64 =
    (HEAD_LEN + INDEX_LEN + SUMS_LEN + HEADER_LEN + TRAILER_LEN) as u64;
