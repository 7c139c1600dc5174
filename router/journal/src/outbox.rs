//! A journal as a link sees it that has one upstream ([`Outbox`]).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use weir_core::{
    backlog::LANES,
    change::KeptChange,
    forward::{Lost, Mark, Missing, Order, Outbox, Page, Position, Stretch},
    ledger::{Item, Summary},
    mirror::Unreadable,
    version::{Stamp, Version},
    wildcard::WildcardOp,
};

use crate::{
    block::{Block, Damage, Head, Row},
    calendar::{Slot, second_of, slot_of, times_of},
    options::{Scope, one},
    reader::{Reader, Seek},
    state::State,
};

/// Seconds whose sums are remembered that had to be read, for a scope that is not everything.
const SUMS_MAX: usize = 16 << 10;
/// The fraction of a second in a time.
const FRACTION: u64 = u32::MAX as u64;

/// What waits for one upstream. Sums over everything are at hand; what is shipped or listed, and sums over a
/// [`Scope`] of some keys, are read from the files.
///
/// Below a second sums are of what is kept alone: what was dropped by rule is known by the second.
#[derive(Debug)]
pub struct JournalOutbox {
    reader: Reader,
    /// One bit.
    upstream: u64,
    scope: Scope,
}

/// Of a scope: what was read of a second, and how much had been appended when its last was.
#[derive(Debug, Default)]
pub(crate) struct ScopeSums {
    scope: Scope,
    seconds: HashMap<Slot, (u64, Second)>,
}

/// What the scope has of a second.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    all: Summary,
    operations: u64,
}

impl JournalOutbox {
    pub(crate) fn new(state: Arc<Mutex<State>>, upstream: u64, scope: Scope) -> Self {
        let mut cache = state.lock().caches.remove(&upstream).unwrap_or_default();
        if cache.sums.scope != scope {
            cache.sums = ScopeSums {
                scope: scope.clone(),
                seconds: HashMap::new(),
            };
        }
        Self {
            reader: Reader::new(state, cache),
            upstream,
            scope,
        }
    }

    /// Calls `f` with every row of a stretch that the scope has, operations included.
    fn each(&mut self, stretch: &Stretch, f: &mut dyn FnMut(Row)) -> Result<(), Unreadable> {
        let wanted = |head: &Head| head.earliest < stretch.to && stretch.from <= head.latest;
        for lane in 0..LANES {
            let mut seek = Seek::From(0);
            while let Some(block) = self.reader.next(lane, seek, &wanted)? {
                seek = Seek::From(block.head.end());
                for row in self.rows(&block, lane)? {
                    if stretch.contains(&stamp_of(&row)) {
                        f(row);
                    }
                }
            }
        }
        Ok(())
    }

    /// The rows of a block that could be shipped: not those of which a newer one is.
    fn rows(&self, block: &Block, lane: u8) -> Result<Vec<Row>, Unreadable> {
        let nonsense = |damage: Damage| Unreadable(damage.to_string());
        let mut rows = Vec::new();
        for row in block.rows(lane) {
            let row = row.map_err(nonsense)?;
            let is_ours = match &row.entry.change {
                KeptChange::Key(change) => self.scope.has_key(&change.key),
                KeptChange::Wildcard(change) => self.scope.has_expr(&change.expr),
            };
            if is_ours {
                rows.push(row);
            }
        }
        let state = self.reader.state.lock();
        if !state.newest.is_empty() {
            rows.retain(|row| match &row.entry.change {
                KeptChange::Key(change) => !state
                    .newest
                    .supersedes(&change.key, change.version(stamp_of(row))),
                KeptChange::Wildcard(_) => true,
            });
        }
        Ok(rows)
    }

    /// What the scope has of each second of a stretch of whole ones that there is something of.
    fn seconds(&mut self, stretch: &Stretch) -> Result<Vec<(u32, Second)>, Unreadable> {
        let cells = self.reader.state.lock().calendar.within(stretch);
        if self.scope == Scope::All {
            let second = |(at, cell): &(u32, crate::calendar::Cell)| {
                (
                    *at,
                    Second {
                        all: cell.all,
                        operations: cell.kept,
                    },
                )
            };
            return Ok(cells.iter().map(second).collect());
        }
        let known = |sums: &HashMap<Slot, (u64, Second)>, second: u32, last: u64| {
            let sums = sums
                .get(&(stretch.source, second))
                .filter(|(then, _)| *then == last);
            sums.map(|(_, second)| *second)
        };
        if cells.iter().any(|(second, cell)| {
            known(&self.reader.cache.sums.seconds, *second, cell.last()).is_none()
        }) {
            let mut read: BTreeMap<u32, Second> = BTreeMap::new();
            self.each(stretch, &mut |row| {
                let second = read.entry(second_of(stamp_of(&row).time)).or_default();
                match hash_of(&row) {
                    Some(hash) => second.all += one(hash),
                    None => second.operations += 1,
                }
            })?;
            if self.reader.cache.sums.seconds.len() + cells.len() > SUMS_MAX {
                self.reader.cache.sums.seconds.clear();
            }
            for (second, cell) in &cells {
                let found = read.get(second).copied().unwrap_or_default();
                self.reader
                    .cache
                    .sums
                    .seconds
                    .insert((stretch.source, *second), (cell.last(), found));
            }
        }
        let second = |(at, cell): &(u32, crate::calendar::Cell)| {
            (
                *at,
                known(&self.reader.cache.sums.seconds, *at, cell.last()).unwrap_or_default(),
            )
        };
        Ok(cells.iter().map(second).collect())
    }

    /// What of waiting stretches concerns the scope; what does not is certified at once.
    fn narrow(
        &mut self,
        stretches: Vec<(Stretch, Summary)>,
    ) -> Result<Vec<(Stretch, Summary)>, Unreadable> {
        let mark = self.mark();
        let mut narrowed = Vec::new();
        for (stretch, _) in stretches {
            let mut open: Option<(Stretch, Summary)> = None;
            for (second, it) in self.seconds(&stretch)? {
                let (from, to) = times_of(second);
                if it.all.is_empty() && it.operations == 0 {
                    narrowed.extend(open.take());
                    let nothing = Stretch {
                        source: stretch.source,
                        from,
                        to,
                    };
                    self.reader
                        .state
                        .lock()
                        .calendar
                        .certify(self.upstream, &nothing, mark.0);
                } else if let Some((open, sum)) = &mut open {
                    open.to = to;
                    *sum += it.all;
                } else {
                    open = Some((
                        Stretch {
                            source: stretch.source,
                            from,
                            to,
                        },
                        it.all,
                    ));
                }
            }
            narrowed.extend(open);
        }
        Ok(narrowed)
    }
}

impl Drop for JournalOutbox {
    fn drop(&mut self) {
        let cache = std::mem::take(&mut self.reader.cache);
        let mut state = self.reader.state.lock();
        // What was superseded by another outbox meanwhile is as good.
        state.caches.insert(self.upstream, cache);
    }
}

impl Outbox for JournalOutbox {
    fn mark(&mut self) -> Mark {
        Mark(self.reader.state.lock().mark)
    }

    fn pending(&mut self, before: u64, max: usize) -> Result<Vec<(Stretch, Summary)>, Unreadable> {
        loop {
            let state = self.reader.state.lock();
            let found = state.calendar.pending(self.upstream, before, max);
            drop(state);
            if self.scope == Scope::All || found.is_empty() {
                return Ok(found);
            }
            // What does not concern the scope is certified by this, so the next look finds other stretches.
            let mut found = self.narrow(found)?;
            if !found.is_empty() {
                found.truncate(max);
                return Ok(found);
            }
        }
    }

    fn split(
        &mut self,
        stretch: &Stretch,
        parts: usize,
    ) -> Result<Vec<(Stretch, Summary)>, Unreadable> {
        let is_whole = stretch.from & FRACTION == 0 && stretch.to & FRACTION == 0;
        let seconds = if is_whole {
            self.seconds(stretch)?
        } else {
            Vec::new()
        };
        if seconds.len() > 1 || (is_whole && parts <= 1) {
            let cells: Vec<_> = seconds
                .iter()
                .map(|(at, it)| (times_of(*at).0, it.all))
                .collect();
            return Ok(cut(stretch, &cells, parts));
        }
        let mut items: Vec<(u64, Summary)> = Vec::new();
        self.each(stretch, &mut |row| {
            items.extend(hash_of(&row).map(|hash| (stamp_of(&row).time, one(hash))));
        })?;
        items.sort_unstable_by_key(|(time, _)| *time);
        items.dedup_by(|next, before| {
            let is_same = next.0 == before.0;
            if is_same {
                before.1 += next.1;
            }
            is_same
        });
        if items.len() < 2 {
            let sum = match seconds.first() {
                Some((_, second)) => second.all,
                None => items.iter().map(|(_, sum)| *sum).sum(),
            };
            return Ok(vec![(*stretch, sum)]);
        }
        Ok(cut(stretch, &items, parts))
    }

    fn items(&mut self, stretch: &Stretch) -> Result<Vec<Item>, Unreadable> {
        let mut items = Vec::new();
        self.each(stretch, &mut |row| items.extend(item_of(&row)))?;
        Ok(items)
    }

    fn operations(&mut self) -> Result<Vec<WildcardOp>, Unreadable> {
        let mut operations = Vec::new();
        for lane in 0..LANES {
            let mut seek = Seek::From(0);
            while let Some(block) = self.reader.next(lane, seek, &|head| head.operations > 0)? {
                seek = Seek::From(block.head.end());
                for row in self.rows(&block, lane)? {
                    let stamp = stamp_of(&row);
                    let KeptChange::Wildcard(change) = row.entry.change else {
                        continue;
                    };
                    let state = self.reader.state.lock();
                    let cell = state.calendar.get(&slot_of(&stamp));
                    if cell.is_some_and(|cell| cell.waits(self.upstream)) {
                        operations.push(change.into_op(stamp));
                    }
                }
            }
        }
        Ok(operations)
    }

    fn page(
        &mut self,
        lane: u8,
        order: Order,
        from: Option<Position>,
        missing: &Missing,
        now: u64,
        bytes_max: usize,
    ) -> Result<Page, Unreadable> {
        let mut page = Page::default();
        if missing.is_empty() || lane >= LANES {
            return Ok(page);
        }
        let mut seek = match (order, from) {
            (Order::OldestFirst, from) => Seek::From(from.unwrap_or_default().0),
            (Order::NewestFirst, None) => Seek::Before(u64::MAX),
            (Order::NewestFirst, Some(from)) => Seek::Before(from.0.saturating_add(1)),
        };
        let mut resume = from.map(|from| from.0);
        let wanted = |head: &Head| missing.overlaps(head.earliest, head.latest);
        while let Some(block) = self.reader.next(lane, seek, &wanted)? {
            let head = block.head;
            // Only inside of the block where the last page had ended.
            let begin = resume
                .take()
                .filter(|at| (head.first..head.end()).contains(at));
            for row in self.rows(&block, lane)? {
                if begin.is_some_and(|begin| row.position < begin) {
                    continue;
                }
                let Some(item) = item_of(&row) else { continue };
                if !missing.wants(&item.version, || item.hash()) {
                    continue;
                }
                if row.entry.expires.is_some_and(|expires| expires < now) {
                    self.count_expired(lane, row.position);
                    continue;
                }
                if !page.entries.is_empty() && page.bytes + row.bytes > bytes_max {
                    page.next = Some(Position(row.position));
                    return Ok(page);
                }
                page.bytes += row.bytes;
                page.entries.push(row.entry);
            }
            seek = match order {
                Order::OldestFirst => Seek::From(head.end()),
                Order::NewestFirst => Seek::Before(head.first),
            };
        }
        Ok(page)
    }

    fn lost(&mut self, max: usize) -> Result<Vec<Lost>, Unreadable> {
        Ok(self.reader.state.lock().lost.unnoted(self.upstream, max))
    }

    fn moved(&mut self) -> u64 {
        self.reader.state.lock().moved
    }
}

impl JournalOutbox {
    /// Counts an entry that came too late; each once, as long as a lane is read from old to new.
    fn count_expired(&self, lane: u8, position: u64) {
        let mut state = self.reader.state.lock();
        let lane = state.lane_mut(lane);
        if position >= lane.expired_to {
            lane.expired_to = position + 1;
            lane.counters.expired += 1;
        }
    }
}

/// Cuts a stretch where cells begin, so that each part has about as much. `cells` are in order.
fn cut(stretch: &Stretch, cells: &[(u64, Summary)], parts: usize) -> Vec<(Stretch, Summary)> {
    let total: u64 = cells.iter().map(|(_, sum)| sum.count).sum();
    let parts = parts.clamp(1, cells.len().max(1)) as u64;
    let mut found = Vec::new();
    let mut open = (*stretch, Summary::EMPTY);
    let mut passed = 0;
    for (at, (time, sum)) in cells.iter().enumerate() {
        let done = found.len() as u64 + 1;
        // The rest may need a part for each cell.
        let is_due = passed * parts >= total * done && done < parts;
        if at > 0 && is_due && open.0.from < *time {
            open.0.to = *time;
            found.push(open);
            open = (
                Stretch {
                    from: *time,
                    ..*stretch
                },
                Summary::EMPTY,
            );
        }
        open.1 += *sum;
        passed += sum.count;
    }
    found.push(open);
    found
}

fn stamp_of(row: &Row) -> Stamp {
    let stamp = match &row.entry.change {
        KeptChange::Key(change) => change.stamp,
        KeptChange::Wildcard(change) => change.stamp,
    };
    stamp.unwrap_or(Stamp::ZERO)
}

/// The item that a row is; an operation is none.
fn item_of(row: &Row) -> Option<Item> {
    let KeptChange::Key(change) = &row.entry.change else {
        return None;
    };
    let version: Version = change.version(stamp_of(row));
    Some(Item {
        key: change.key.clone(),
        version,
        merged: 0,
    })
}

fn hash_of(row: &Row) -> Option<u128> {
    item_of(row).map(|item| item.hash())
}
