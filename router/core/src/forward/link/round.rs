//! One round: what waits is compared, what the upstream lacks is found and shipped, and all of it is
//! certified.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Failure, Rules, Sizes};
use crate::{
    change::{KeptChange, WildcardChange},
    forward::{
        Entry, Lost, Mark, Missing, Order, Outbox, Position, Stretch,
        frame::{Bad, Found, Reply, Request},
        lanes,
    },
    ledger::{Item, Summary},
    mirror::frame::op_id,
    version::Version,
    wildcard::WildcardOp,
};

/// Keys that are remembered to have been asked for in a later stretch. Of others an older version may
/// be shipped that nobody needs.
const KEYS_MAX: usize = 1 << 16;
/// Known-lost intervals told in a round.
const LOST_MAX: usize = 256;
/// How long a round goes on, at the least, after what waits was put into other lanes (NTP64, 2 s): to
/// begin anew costs a comparison.
const ANEW_AFTER: u64 = 2 << 32;
/// Every so-manieth parcel is of the lowest lane that has something, so that it never stands still.
const LOWEST_EVERY: u64 = 16;

/// What is asked for.
#[derive(Clone, Debug)]
pub enum Job {
    Operations(Vec<WildcardOp>),
    Compare(Vec<(Stretch, Summary)>),
    List(Stretch, Vec<u64>),
    /// Ids of what heads the keys.
    Heads(Stretch, Vec<u64>),
    /// Whether everything of it has arrived, while it is being shipped.
    Ripe(Stretch),
    /// What came after the round had begun, up to a mark of its own.
    Tail(Vec<Stretch>, Mark),
    Lost(Vec<Lost>),
    Ship(Parcel),
}

/// Some of a lane, on its way.
#[derive(Clone, Debug)]
pub struct Parcel {
    pub lane: u8,
    pub entries: Vec<Entry>,
    /// Before they are packed.
    pub bytes: usize,
}

/// How a round goes on that has nothing to ask and nothing to ship now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// When something is answered, or time has passed.
    Wait,
    /// There is something to ask now.
    Again,
    /// There is something to ship.
    Drain,
    /// It is over.
    End,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// The operations first: a record without those that came after it could be alive where it was
    /// deleted.
    Operations,
    Comparing,
    Shipping,
}

/// How far a lane was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cursor {
    At(Option<Position>),
    Done,
}

/// A round.
#[derive(Clone, Debug)]
pub struct Round {
    /// What is younger is not asked for (NTP64).
    pub before: u64,
    /// All that waits was taken into this round.
    pub is_all: bool,
    /// The upstream lacked something.
    pub has_shipped: bool,
    sizes: Sizes,
    mark: Mark,
    phase: Phase,
    lost: Vec<Lost>,
    asked_ops: VecDeque<WildcardOp>,
    /// Operations that the upstream lacks.
    absent_ops: VecDeque<WildcardOp>,
    /// To be compared; what was cut last goes first, so that few are open at once.
    stretches: VecDeque<(Stretch, Summary)>,
    /// To be listed.
    lists: Vec<Stretch>,
    /// To be looked up by key.
    heads: Vec<(Stretch, Summary)>,
    /// Questions that are made and do not fit in the flights yet.
    ready: VecDeque<(Job, Request)>,
    /// Compared by key: everything, in case it has to be done again.
    latest: Vec<(Stretch, Summary)>,
    /// Every version, not only the newest of each key.
    is_each: bool,
    /// Those are to be looked up when all is compared.
    are_heads_due: bool,
    /// The newest version of each key that was asked for.
    newest: BTreeMap<u128, Version>,
    /// Heads to be shipped that no page had yet.
    wanted: BTreeSet<u64>,
    /// Heads that no page had: they expired, or were given up.
    vanished: BTreeSet<u64>,
    /// Seconds that were found out about piece by piece.
    pieces: BTreeSet<Stretch>,
    /// Seconds that were looked up by key. What is missing in one may make superfluous what is missing in
    /// another, so all are certified together.
    by_key: BTreeSet<Stretch>,
    /// Seconds of which something is missing.
    lacking: BTreeSet<Stretch>,
    missing: Missing,
    /// What is missing, in records; what of it is stored.
    found: u64,
    stored: u64,
    cursors: Vec<(u8, Cursor)>,
    parcels: u64,
    /// What the outbox had moved when shipping began; and since when there is something to ship (NTP64).
    moved: u64,
    began: Option<u64>,
    /// What is being shipped, in parts, the oldest first.
    ripening: VecDeque<Stretch>,
    is_ripe_asked: bool,
    /// Bytes stored, and how many there have to be before the oldest part is asked for.
    stored_bytes: usize,
    ripe_bytes: usize,
    /// What is younger was not asked for yet, while the rest is being shipped (NTP64).
    tail: u64,
    /// Certified, and not told yet: up to where, of what.
    certain: BTreeMap<Mark, Vec<Stretch>>,
}

impl Round {
    /// Begins a round about what is older than `before` (NTP64).
    pub fn new(before: u64, sizes: Sizes, outbox: &mut dyn Outbox) -> Result<Self, Failure> {
        let mark = outbox.mark();
        let mut ops = outbox.operations()?;
        ops.retain(|op| op.version.stamp.time < before);
        Ok(Self {
            before,
            sizes,
            is_all: true,
            has_shipped: false,
            mark,
            phase: Phase::Operations,
            lost: outbox.lost(LOST_MAX)?,
            asked_ops: ops.into(),
            absent_ops: VecDeque::new(),
            stretches: VecDeque::new(),
            lists: Vec::new(),
            heads: Vec::new(),
            ready: VecDeque::new(),
            latest: Vec::new(),
            is_each: false,
            are_heads_due: false,
            newest: BTreeMap::new(),
            wanted: BTreeSet::new(),
            vanished: BTreeSet::new(),
            pieces: BTreeSet::new(),
            by_key: BTreeSet::new(),
            lacking: BTreeSet::new(),
            missing: Missing::default(),
            found: 0,
            stored: 0,
            cursors: Vec::new(),
            parcels: 0,
            moved: 0,
            began: None,
            ripening: VecDeque::new(),
            is_ripe_asked: false,
            stored_bytes: 0,
            ripe_bytes: sizes.ripe_bytes,
            tail: before,
            certain: BTreeMap::new(),
        })
    }

    /// Records that are missing and not stored yet, as far as is known.
    pub fn waiting(&self) -> u64 {
        self.found.saturating_sub(self.stored)
    }

    /// Whether a parcel may be made.
    pub fn wants_to_ship(&self) -> bool {
        !self.absent_ops.is_empty() || self.open_lanes().next().is_some()
    }

    /// What became certain since this was last asked, and up to where.
    pub fn take_certain(&mut self) -> BTreeMap<Mark, Vec<Stretch>> {
        std::mem::take(&mut self.certain)
    }

    fn certify(&mut self, stretches: impl IntoIterator<Item = Stretch>) {
        let mut stretches = stretches.into_iter().peekable();
        if stretches.peek().is_some() {
            self.certain.entry(self.mark).or_default().extend(stretches);
        }
    }

    /// The next question, if there is one to be asked now.
    pub fn question(
        &mut self,
        now: u64,
        rules: &Rules,
        outbox: &mut dyn Outbox,
    ) -> Result<Option<(Job, Request)>, Failure> {
        if !self.lost.is_empty() {
            let lost = std::mem::take(&mut self.lost);
            return Ok(Some((Job::Lost(lost.clone()), Request::Lost(lost))));
        }
        match self.phase {
            Phase::Operations => {
                let count = self.asked_ops.len().min(self.sizes.ids_max);
                let ops: Vec<WildcardOp> = self.asked_ops.drain(..count).collect();
                let ids = ops.iter().map(op_id).collect();
                let is_some = !ops.is_empty();
                Ok(is_some.then_some((Job::Operations(ops), Request::Operations(ids))))
            }
            Phase::Comparing => self.comparison(outbox),
            Phase::Shipping => match self.ripe(outbox)? {
                Some(ripe) => Ok(Some(ripe)),
                None => self.tail(now, rules, outbox),
            },
        }
    }

    fn comparison(&mut self, outbox: &mut dyn Outbox) -> Result<Option<(Job, Request)>, Failure> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Ok(Some(ready));
            }
            if !self.stretches.is_empty() {
                let asked = self.some_stretches(outbox)?;
                return Ok(Some((Job::Compare(asked.clone()), Request::Compare(asked))));
            }
            if let Some(stretch) = self.lists.pop() {
                let items = outbox.items(&stretch)?;
                let ids: Vec<u64> = items.iter().map(Item::id).collect();
                self.pieces.insert(stretch.seconds());
                self.ready.extend(ids.chunks(self.sizes.ids_max).map(|ids| {
                    let ids = ids.to_vec();
                    let job = Job::List(stretch, ids.clone());
                    (job, Request::List { stretch, ids })
                }));
                continue;
            }
            let Some((stretch, seen)) = self.heads.pop() else {
                return Ok(None);
            };
            self.ask_heads(stretch, seen, outbox)?;
        }
    }

    /// Stretches for a question, one at least. The first is cut if it is too much.
    fn some_stretches(
        &mut self,
        outbox: &mut dyn Outbox,
    ) -> Result<Vec<(Stretch, Summary)>, Failure> {
        let most = self.sizes.versions_max;
        let mut asked: Vec<(Stretch, Summary)> = Vec::new();
        let mut versions = 0;
        while let Some((stretch, seen)) = self.stretches.pop_front() {
            if asked.is_empty() && seen.count > most {
                let parts = outbox.split(&stretch, self.sizes.parts)?;
                if parts.len() > 1 {
                    self.cut(parts);
                    continue;
                }
            }
            let is_full = asked.len() == self.sizes.compare_max || versions + seen.count > most;
            if is_full && !asked.is_empty() {
                self.stretches.push_front((stretch, seen));
                break;
            }
            versions += seen.count;
            asked.push((stretch, seen));
        }
        Ok(asked)
    }

    /// Parts of a stretch are to be compared before anything else.
    fn cut(&mut self, parts: Vec<(Stretch, Summary)>) {
        for part in parts.into_iter().rev() {
            self.stretches.push_front(part);
        }
    }

    /// Makes the questions for the newest of each key in a stretch, or cuts it.
    fn ask_heads(
        &mut self,
        stretch: Stretch,
        seen: Summary,
        outbox: &mut dyn Outbox,
    ) -> Result<(), Failure> {
        if seen.count > self.sizes.items_max {
            let parts = outbox.split(&stretch, self.sizes.parts)?;
            if parts.len() > 1 {
                // The last part is the newest, and is taken first.
                self.heads.extend(parts);
                return Ok(());
            }
        }
        self.by_key.insert(stretch.seconds());
        let mut items = outbox.items(&stretch)?;
        items.sort_unstable_by(|a, b| (&a.key, b.version).cmp(&(&b.key, a.version)));
        if !self.is_each {
            items.retain(|item| {
                let newer = self.newest.get(&item.key.hash128());
                let is_newest = newer.is_none_or(|newer| *newer < item.version);
                is_newest && !self.vanished.contains(&item.id())
            });
            items.dedup_by(|older, newest| older.key == newest.key);
            for item in &items {
                if self.newest.len() < KEYS_MAX {
                    self.newest.insert(item.key.hash128(), item.version);
                }
            }
        }
        self.ready
            .extend(items.chunks(self.sizes.heads_max).map(|items| {
                let ids = items.iter().map(Item::id).collect();
                let heads = items.iter().map(|item| (item.key.clone(), item.version));
                (Job::Heads(stretch, ids), Request::Heads(heads.collect()))
            }));
        Ok(())
    }

    /// Whether the oldest part of what is being shipped may have arrived as a whole.
    fn ripe(&mut self, outbox: &mut dyn Outbox) -> Result<Option<(Job, Request)>, Failure> {
        if self.is_ripe_asked || self.stored_bytes < self.ripe_bytes {
            return Ok(None);
        }
        let Some(stretch) = self.ripening.front().copied() else {
            return Ok(None);
        };
        let seen = outbox.split(&stretch, 1)?;
        self.is_ripe_asked = true;
        Ok(Some((Job::Ripe(stretch), Request::Compare(seen))))
    }

    /// Shipping may take long. What comes live meanwhile is certified in between, as far as it is there;
    /// the rest waits for the next round.
    fn tail(
        &mut self,
        now: u64,
        rules: &Rules,
        outbox: &mut dyn Outbox,
    ) -> Result<Option<(Job, Request)>, Failure> {
        let before = now.saturating_sub(rules.settle);
        if before.saturating_sub(self.tail) < rules.period || !self.latest.is_empty() {
            return Ok(None);
        }
        let (from, mark) = (self.tail & !u64::from(u32::MAX), outbox.mark());
        self.tail = before;
        let ops = outbox.operations()?;
        // Operations are asked for when a round begins.
        let has_op = |of: &Stretch| ops.iter().any(|op| of.contains(&op.version.stamp));
        let (mut asked, mut versions) = (Vec::new(), 0);
        for (stretch, seen) in outbox.pending(before, self.sizes.stretches_max)? {
            let parts = if stretch.from >= from {
                vec![(stretch, seen)]
            } else if stretch.to > from {
                outbox.split(&Stretch { from, ..stretch }, 1)?
            } else {
                continue;
            };
            versions += parts.iter().map(|(_, seen)| seen.count).sum::<u64>();
            if asked.len() == self.sizes.compare_max || versions > self.sizes.versions_max {
                break;
            }
            asked.extend(parts.into_iter().filter(|(part, _)| !has_op(part)));
        }
        if asked.is_empty() {
            return Ok(None);
        }
        let stretches = asked.iter().map(|(stretch, _)| *stretch).collect();
        Ok(Some((Job::Tail(stretches, mark), Request::Compare(asked))))
    }

    /// The next parcel of about `bytes`, if there is one.
    pub fn parcel(
        &mut self,
        now: u64,
        order: Order,
        bytes: usize,
        outbox: &mut dyn Outbox,
    ) -> Result<Option<Parcel>, Failure> {
        if !self.absent_ops.is_empty() {
            return Ok(Some(self.operations(bytes)));
        }
        let began = *self.began.get_or_insert(now);
        if outbox.moved() != self.moved && now.saturating_sub(began) >= ANEW_AFTER {
            self.stop_shipping();
        }
        loop {
            let is_lowest = self.parcels % LOWEST_EVERY == LOWEST_EVERY - 1;
            let lane = if is_lowest {
                self.open_lanes().last()
            } else {
                self.open_lanes().next()
            };
            let Some((at, lane, from)) = lane else {
                return Ok(None);
            };
            let page = outbox.page(lane, order, from, &self.missing, now, bytes)?;
            self.cursors[at].1 = page
                .next
                .map_or(Cursor::Done, |next| Cursor::At(Some(next)));
            if page.entries.is_empty() {
                continue;
            }
            if !self.wanted.is_empty() {
                for entry in &page.entries {
                    if let Some(id) = id_of(entry) {
                        self.wanted.remove(&id);
                    }
                }
            }
            self.parcels += 1;
            return Ok(Some(Parcel {
                lane,
                entries: page.entries,
                bytes: page.bytes,
            }));
        }
    }

    /// What comes next may lie in a lane that was read to its end: the next round finds it. Nothing is
    /// certified by this one any more that was not found to be there.
    fn stop_shipping(&mut self) {
        self.cursors.clear();
        self.ripening.clear();
        self.by_key.clear();
        self.wanted.clear();
        self.is_all = false;
    }

    fn operations(&mut self, bytes_max: usize) -> Parcel {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while let Some(op) = self.absent_ops.front() {
            let size = 40 + op.expr.len() + op.value.as_ref().map_or(0, |value| value.len());
            if !entries.is_empty() && bytes + size > bytes_max {
                break;
            }
            bytes += size;
            let change = WildcardChange {
                expr: op.expr.clone(),
                stamp: Some(op.version.stamp),
                value: op.value.clone(),
            };
            entries.push(Entry {
                change: KeptChange::Wildcard(change),
                lane: 0,
                expires: None,
            });
            self.absent_ops.pop_front();
        }
        Parcel {
            lane: 0,
            entries,
            bytes,
        }
    }

    /// Lanes that were not read to their end, in order: where in the list, which, and from where.
    fn open_lanes(&self) -> impl DoubleEndedIterator<Item = (usize, u8, Option<Position>)> {
        let lanes = self.cursors.iter().enumerate();
        lanes.filter_map(|(at, (lane, cursor))| match cursor {
            Cursor::At(from) => Some((at, *lane, *from)),
            Cursor::Done => None,
        })
    }

    /// Takes an answer; returns what the upstream has noted as lost.
    pub fn found(
        &mut self,
        job: Job,
        reply: Reply,
        outbox: &mut dyn Outbox,
    ) -> Result<Option<Vec<Lost>>, Failure> {
        match (job, reply) {
            (Job::Lost(lost), Reply::Noted) => return Ok(Some(lost)),
            (Job::Operations(ops), Reply::Operations(absent)) if ops.len() == absent.len() => {
                let asked = ops.into_iter().zip(absent);
                let absent = asked.filter_map(|(op, absent)| absent.then_some(op));
                self.absent_ops.extend(absent);
                self.has_shipped |= !self.absent_ops.is_empty();
                self.found += self.absent_ops.len() as u64;
            }
            (Job::Compare(asked), Reply::Compared(found)) if asked.len() == found.len() => {
                for ((stretch, seen), found) in asked.into_iter().zip(found) {
                    self.compared(stretch, seen, found, outbox)?;
                }
            }
            (Job::List(stretch, ids), Reply::Listed(absent)) if ids.len() == absent.len() => {
                self.absent(stretch, ids, &absent);
            }
            (Job::Heads(stretch, ids), Reply::Heads(absent)) if ids.len() == absent.len() => {
                let ids = self.absent(stretch, ids, &absent);
                self.wanted.extend(ids);
            }
            (Job::Ripe(stretch), Reply::Compared(found)) if found.len() == 1 => {
                self.is_ripe_asked = false;
                match found[0] {
                    Found::Have | Found::Gone => {
                        self.ripening.pop_front();
                        self.certify([stretch]);
                    }
                    _ => self.ripe_bytes = self.stored_bytes + self.sizes.ripe_bytes,
                }
            }
            (Job::Tail(stretches, mark), Reply::Compared(found))
                if stretches.len() == found.len() =>
            {
                let found = stretches.into_iter().zip(found);
                let there = found.filter(|(_, found)| matches!(found, Found::Have | Found::Gone));
                let there: Vec<Stretch> = there.map(|(stretch, _)| stretch).collect();
                if !there.is_empty() {
                    self.certain.entry(mark).or_default().extend(there);
                }
            }
            (Job::Ship(parcel), Reply::Stored(_)) => {
                self.stored += parcel.entries.len() as u64;
                self.stored_bytes += parcel.bytes;
            }
            _ => return Err(Failure::Answer(Bad::Malformed)),
        }
        Ok(None)
    }

    fn compared(
        &mut self,
        stretch: Stretch,
        seen: Summary,
        found: Found,
        outbox: &mut dyn Outbox,
    ) -> Result<(), Failure> {
        match found {
            Found::Have | Found::Gone if stretch == stretch.seconds() => {
                self.certify([stretch]);
            }
            Found::Have | Found::Gone => _ = self.pieces.insert(stretch.seconds()),
            Found::Absent => {
                self.missing.add_whole(stretch);
                self.lacking.insert(stretch.seconds());
                self.found += seen.count;
            }
            Found::Differs { .. } => {
                let parts = if seen.count > self.sizes.list_below {
                    outbox.split(&stretch, self.sizes.parts)?
                } else {
                    Vec::new()
                };
                if parts.len() > 1 {
                    self.cut(parts);
                } else {
                    self.lists.push(stretch);
                }
            }
            Found::Latest | Found::Merged => {
                self.is_each |= found == Found::Merged;
                self.latest.push((stretch, seen));
                self.are_heads_due = true;
            }
        }
        Ok(())
    }

    /// Takes note of which of these the upstream lacks.
    fn absent(&mut self, stretch: Stretch, ids: Vec<u64>, absent: &[bool]) -> Vec<u64> {
        let ids = ids.into_iter().zip(absent);
        let ids: Vec<u64> = ids
            .filter_map(|(id, absent)| absent.then_some(id))
            .collect();
        if !ids.is_empty() {
            self.found += ids.len() as u64;
            self.lacking.insert(stretch.seconds());
            self.missing.add_ids(stretch, ids.iter().copied());
        }
        ids
    }

    /// Goes on when there is nothing to ask and nothing to ship now; `is_quiet` says that nothing is
    /// under way either.
    pub fn next(&mut self, is_quiet: bool, outbox: &mut dyn Outbox) -> Result<Next, Failure> {
        if !is_quiet || self.wants_to_ship() {
            return Ok(Next::Wait);
        }
        match self.phase {
            Phase::Operations => {
                self.phase = Phase::Comparing;
                let waits = outbox.pending(self.before, self.sizes.stretches_max)?;
                self.is_all = waits.len() < self.sizes.stretches_max;
                // What has nothing but operations in it is certain now that they are there.
                let (some, none): (Vec<_>, Vec<_>) =
                    waits.into_iter().partition(|(_, seen)| !seen.is_empty());
                self.certify(none.into_iter().map(|(stretch, _)| stretch));
                self.stretches = VecDeque::from(some);
            }
            Phase::Comparing => {
                if std::mem::take(&mut self.are_heads_due) {
                    // The newest last, where they are taken from.
                    self.latest.sort_unstable_by_key(|(stretch, _)| stretch.to);
                    self.heads = self.latest.clone();
                    return Ok(Next::Again);
                }
                self.settle_pieces();
                if self.missing.is_empty() {
                    let by_key = std::mem::take(&mut self.by_key);
                    self.certify(by_key);
                    return Ok(Next::End);
                }
                self.drain(outbox)?;
                return Ok(Next::Drain);
            }
            Phase::Shipping if !self.wanted.is_empty() && !self.is_each => {
                // Their keys have older versions perhaps, which are the newest now.
                self.vanished.append(&mut self.wanted);
                self.missing = Missing::default();
                self.newest.clear();
                self.ripening.clear();
                self.by_key.clear();
                self.are_heads_due = true;
                self.phase = Phase::Comparing;
            }
            Phase::Shipping => {
                self.by_key.extend(self.ripening.drain(..));
                let by_key = std::mem::take(&mut self.by_key);
                self.certify(by_key);
                return Ok(Next::End);
            }
        }
        Ok(Next::Again)
    }

    /// Certifies the seconds that were found out about piece by piece, but for those of which something is
    /// missing. Pieces of one second may lie in stretches that were cut within it, and so overlap.
    fn settle_pieces(&mut self) {
        let pieces = std::mem::take(&mut self.pieces);
        let lacks = |piece: &Stretch| {
            // What was compared did not overlap: of what begins before this ends, the last ends last.
            let (from, to) = (piece.to, 0);
            let behind = Stretch { from, to, ..*piece };
            let last = self.lacking.range(..behind).next_back();
            last.is_some_and(|last| last.overlaps(piece))
        };
        let (late, there): (Vec<Stretch>, Vec<Stretch>) = pieces.into_iter().partition(lacks);
        self.lacking.extend(late);
        self.certify(there);
    }

    /// Begins to ship what was found missing.
    fn drain(&mut self, outbox: &mut dyn Outbox) -> Result<(), Failure> {
        self.phase = Phase::Shipping;
        self.has_shipped = true;
        self.moved = outbox.moved();
        self.cursors = lanes().map(|lane| (lane, Cursor::At(None))).collect();
        let lacking = std::mem::take(&mut self.lacking);
        let is_cut = self.latest.is_empty() && lacking.len() <= self.sizes.ripe_parts;
        let mut parts = Vec::new();
        for stretch in lacking {
            let mut cut = vec![(stretch, Summary::EMPTY)];
            if is_cut && stretch.to - stretch.from > 1 << 32 {
                let finer = outbox.split(&stretch, self.sizes.ripe_parts)?;
                // Seconds are certified as a whole.
                if finer.iter().all(|(part, _)| *part == part.seconds()) {
                    cut = finer;
                }
            }
            parts.extend(cut.into_iter().map(|(part, _)| part));
        }
        parts.sort_by_key(|part| part.from);
        self.ripening = parts.into();
        Ok(())
    }
}

/// [`Item::id`] of what waits; `None` for an operation.
fn id_of(entry: &Entry) -> Option<u64> {
    let KeptChange::Key(change) = &entry.change else {
        return None;
    };
    let item = Item {
        key: change.key.clone(),
        version: change.version(change.stamp?),
        merged: 0,
    };
    Some(item.id())
}
