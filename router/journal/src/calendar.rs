//! What waits, by source and second: how much, the sum of it, and who has certified it.
//!
//! A cell is there as long as a segment holds something of its second, and has the sum of everything that
//! was tapped of it since the journal was opened, and of what the segments hold that are older than that.
//! About 120 bytes a cell.

use std::collections::{BTreeMap, HashMap};

use weir_core::{
    forward::{Source, Stretch},
    ledger::Summary,
};

/// A source and a second since the Unix epoch.
pub(crate) type Slot = (Source, u32);

/// What a segment has of a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sums {
    /// Everything that was tapped, but for operations.
    pub(crate) all: Summary,
    /// How many of them are kept, and the operations with them.
    pub(crate) kept: u32,
}

/// A second of a source.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cell {
    pub(crate) all: Summary,
    /// How many entries are kept, operations included.
    pub(crate) kept: u64,
    /// How many of them are known to be superseded: nobody waits for these.
    hidden: u64,
    /// Segments that have something of it.
    holders: u32,
    /// How much had been appended when the last of it was.
    last: u64,
    /// A bit for each upstream that has certified it up to the last of it.
    certified: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Calendar {
    cells: BTreeMap<Slot, Cell>,
    /// A bit for each upstream that has to certify.
    required: u64,
    /// How many entries wait for one of them.
    waiting: u64,
    /// The last second of each source of which everything was given back. What lies before it was not
    /// always empty, so no stretch is drawn over it.
    forgotten: HashMap<Source, u32>,
    /// Seconds of which an upstream has certified parts.
    parts: HashMap<(u64, Slot), Parts>,
}

/// The parts of a second that are certified.
#[derive(Debug, Default)]
struct Parts {
    /// [`Cell::last`] when they were: something has come since if it is another.
    last: u64,
    /// From and to, in order, not overlapping and not touching.
    covered: Vec<(u64, u64)>,
}

/// Sources whose last forgotten second is known. Without it stretches are drawn over what was there: they
/// differ, and are cut.
const FORGOTTEN_MAX: usize = 16 << 10;
/// A link cuts a few seconds at a time; what is forgotten here is asked again.
const PARTS_MAX: usize = 1024;

impl Cell {
    /// How much had been appended when the last of it was.
    pub(crate) const fn last(&self) -> u64 {
        self.last
    }

    /// Whether one of these upstreams has not certified what is kept of it.
    pub(crate) const fn waits(&self, required: u64) -> bool {
        self.kept > self.hidden && (required == 0 || self.certified & required != required)
    }
}

impl Cell {
    /// How many entries of it wait.
    const fn weight(&self, required: u64) -> u64 {
        if self.waits(required) {
            self.kept.saturating_sub(self.hidden)
        } else {
            0
        }
    }
}

impl Parts {
    fn cover(&mut self, part: (u64, u64)) {
        let at = self.covered.partition_point(|other| *other < part);
        self.covered.insert(at, part);
        self.covered.dedup_by(|next, before| {
            let meets = next.0 <= before.1;
            if meets {
                before.1 = before.1.max(next.1);
            }
            meets
        });
    }
}

impl Calendar {
    /// Who has to certify from now on. Costs a look at every cell.
    pub(crate) fn require(&mut self, required: u64) {
        self.required = required;
        self.waiting = self.cells.values().map(|cell| cell.weight(required)).sum();
    }

    /// How many entries wait for one of those who have to certify.
    pub(crate) const fn depth(&self) -> u64 {
        self.waiting
    }

    /// Adds what was appended: by then `mark` had been. Whoever has certified the second has not seen it.
    pub(crate) fn add(&mut self, slot: Slot, added: Sums, mark: u64) {
        let cell = self.cells.entry(slot).or_default();
        self.waiting -= cell.weight(self.required);
        cell.all += added.all;
        cell.kept += u64::from(added.kept);
        cell.last = cell.last.max(mark);
        cell.certified = 0;
        self.waiting += cell.weight(self.required);
    }

    /// A segment has something of this second from now on.
    pub(crate) fn hold(&mut self, slot: Slot) {
        self.cells.entry(slot).or_default().holders += 1;
    }

    /// Entries of this second that are kept were superseded.
    pub(crate) fn hide(&mut self, slot: Slot, count: u32) {
        if let Some(cell) = self.cells.get_mut(&slot) {
            self.waiting -= cell.weight(self.required);
            cell.hidden += u64::from(count);
            self.waiting += cell.weight(self.required);
        }
    }

    /// Of these, some are no longer kept.
    pub(crate) fn unhide(&mut self, slot: Slot, count: u32) {
        if let Some(cell) = self.cells.get_mut(&slot) {
            self.waiting -= cell.weight(self.required);
            cell.hidden = cell.hidden.saturating_sub(u64::from(count));
            self.waiting += cell.weight(self.required);
        }
    }

    /// A segment with so many entries of this second is no more.
    pub(crate) fn release(&mut self, slot: Slot, kept: u32) {
        let Some(cell) = self.cells.get_mut(&slot) else {
            return;
        };
        self.waiting -= cell.weight(self.required);
        cell.kept = cell.kept.saturating_sub(u64::from(kept));
        self.waiting += cell.weight(self.required);
        cell.holders = cell.holders.saturating_sub(1);
        if cell.holders == 0 {
            self.cells.remove(&slot);
            if self.forgotten.len() >= FORGOTTEN_MAX {
                self.forgotten.clear();
            }
            let forgotten = self.forgotten.entry(slot.0).or_default();
            *forgotten = slot.1.max(*forgotten);
        }
    }

    /// A segment has so many entries of this second from now on that another one had.
    pub(crate) fn take_over(&mut self, slot: Slot, kept: u32) {
        let cell = self.cells.entry(slot).or_default();
        self.waiting -= cell.weight(self.required);
        cell.kept += u64::from(kept);
        cell.holders += 1;
        self.waiting += cell.weight(self.required);
    }

    /// Entries of this second are in another place: who has read past it has not seen them, so what is
    /// found out from before `mark` certifies it no longer. What is certified stays so.
    pub(crate) fn moved(&mut self, slot: Slot, mark: u64) {
        if let Some(cell) = self.cells.get_mut(&slot) {
            cell.last = cell.last.max(mark);
        }
    }

    /// So many entries of this second are no longer kept by a segment that goes on.
    pub(crate) fn thin(&mut self, slot: Slot, fewer: u32) {
        if let Some(cell) = self.cells.get_mut(&slot) {
            self.waiting -= cell.weight(self.required);
            cell.kept = cell.kept.saturating_sub(u64::from(fewer));
            self.waiting += cell.weight(self.required);
        }
    }

    pub(crate) fn get(&self, slot: &Slot) -> Option<&Cell> {
        self.cells.get(slot)
    }

    pub(crate) fn len(&self) -> usize {
        self.cells.len()
    }

    /// An upstream (one bit) has everything of a stretch that had been appended by `mark`.
    pub(crate) fn certify(&mut self, upstream: u64, stretch: &Stretch, mark: u64) {
        for cell in self
            .cells
            .range_mut(slots_of(stretch))
            .map(|(_, cell)| cell)
        {
            if cell.last <= mark {
                self.waiting -= cell.weight(self.required);
                cell.certified |= upstream;
                self.waiting += cell.weight(self.required);
            }
        }
        let first = second_of(stretch.from);
        let last = second_of(stretch.to);
        for second in [Some(first), (last != first).then_some(last)]
            .into_iter()
            .flatten()
        {
            self.certify_part(upstream, (stretch.source, second), stretch, mark);
        }
    }

    /// A second is certified once its parts are all of it.
    fn certify_part(&mut self, upstream: u64, slot: Slot, stretch: &Stretch, mark: u64) {
        let Some(cell) = self.cells.get_mut(&slot).filter(|cell| cell.last <= mark) else {
            return;
        };
        let (from, to) = times_of(slot.1);
        let part = (from.max(stretch.from), to.min(stretch.to));
        if part.0 >= part.1 || part == (from, to) {
            return; // None of it, or all: that is certified already.
        }
        if self.parts.len() >= PARTS_MAX {
            self.parts.clear();
        }
        let parts = self.parts.entry((upstream, slot)).or_default();
        if parts.last != cell.last {
            *parts = Parts {
                last: cell.last,
                covered: Vec::new(),
            };
        }
        parts.cover(part);
        if parts.covered == [(from, to)] {
            self.waiting -= cell.weight(self.required);
            cell.certified |= upstream;
            self.waiting += cell.weight(self.required);
            self.parts.remove(&(upstream, slot));
        }
    }

    /// An upstream has nothing for certain.
    pub(crate) fn reset(&mut self, upstream: u64) {
        self.parts.retain(|(other, _), _| *other != upstream);
        for cell in self.cells.values_mut() {
            cell.certified &= !upstream;
        }
        self.require(self.required);
    }

    /// What waits for an upstream, whole seconds before `before`, as long stretches as there are.
    pub(crate) fn pending(
        &self,
        upstream: u64,
        before: u64,
        max: usize,
    ) -> Vec<(Stretch, Summary)> {
        let mut found: Vec<(Stretch, Summary)> = Vec::new();
        let mut between = false; // Something lies between that does not wait.
        for (&(source, second), cell) in &self.cells {
            let (from, to) = times_of(second);
            if to > before || !cell.waits(upstream) {
                between = true;
                continue;
            }
            let forgotten = self.forgotten.get(&source).copied().unwrap_or(0);
            let is_near = |stretch: &Stretch| {
                stretch.source == source
                    && (stretch.to == from || second_of(stretch.to) > forgotten)
            };
            let before = found
                .last_mut()
                .filter(|(stretch, _)| !between && is_near(stretch));
            if let Some((stretch, sum)) = before {
                stretch.to = to;
                *sum += cell.all;
            } else if found.len() < max {
                found.push((Stretch { source, from, to }, cell.all));
            } else {
                break;
            }
            between = false;
        }
        found
    }

    /// The seconds of a stretch that there is something of.
    pub(crate) fn within(&self, stretch: &Stretch) -> Vec<(u32, Cell)> {
        let range = self.cells.range(slots_of(stretch));
        range.map(|(&(_, second), cell)| (second, *cell)).collect()
    }

    /// Every second that waits for an upstream, and how much of it is kept.
    pub(crate) fn waiting(&self, required: u64) -> impl Iterator<Item = (Slot, u64)> {
        let waits = move |(_, cell): &(&Slot, &Cell)| cell.waits(required);
        self.cells
            .iter()
            .filter(waits)
            .map(|(slot, cell)| (*slot, cell.kept.saturating_sub(cell.hidden)))
    }
}

/// The times of a second: the first inside and the first behind.
pub(crate) const fn times_of(second: u32) -> (u64, u64) {
    let from = (second as u64) << 32;
    (from, from.saturating_add(1 << 32))
}

/// The second that a time lies in.
pub(crate) const fn second_of(time: u64) -> u32 {
    (time >> 32) as u32
}

/// The slot of a stamp.
pub(crate) const fn slot_of(stamp: &weir_core::version::Stamp) -> Slot {
    (stamp.id, second_of(stamp.time))
}

/// The whole seconds of a stretch; it may hold none.
fn slots_of(stretch: &Stretch) -> std::ops::Range<Slot> {
    let rounded = |time: u64| {
        let second = second_of(time);
        if times_of(second).0 == time {
            second
        } else {
            second.saturating_add(1)
        }
    };
    let from = rounded(stretch.from);
    let to = if stretch.to == u64::MAX {
        u32::MAX
    } else {
        second_of(stretch.to)
    };
    (stretch.source, from)..(stretch.source, to.max(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(from: u32, to: u32) -> Stretch {
        Stretch {
            source: [1; 16],
            from: times_of(from).0,
            to: times_of(to).0,
        }
    }

    fn calendar(seconds: &[u32]) -> Calendar {
        let mut calendar = Calendar::default();
        for (mark, &second) in seconds.iter().enumerate() {
            let all = Summary {
                count: 1,
                sum: u128::from(second),
            };
            calendar.add(([1; 16], second), Sums { all, kept: 1 }, mark as u64 + 1);
            calendar.hold(([1; 16], second));
        }
        calendar
    }

    fn pending(calendar: &Calendar) -> Vec<(u32, u32, u128)> {
        let found = calendar.pending(1, u64::MAX, 9);
        let short = |(s, sum): &(Stretch, Summary)| (second_of(s.from), second_of(s.to), sum.sum);
        found.iter().map(short).collect()
    }

    #[test]
    fn stretches_are_as_long_as_what_waits() {
        let mut it = calendar(&[3, 4, 6]);
        assert_eq!(pending(&it), [(3, 7, 13)]);
        it.certify(1, &stretch(4, 5), 9);
        assert_eq!(pending(&it), [(3, 4, 3), (6, 7, 6)]);
        it.release(([1; 16], 4), 1);
        // Something was there in between: it is not as if it had been empty.
        assert_eq!(pending(&it), [(3, 4, 3), (6, 7, 6)]);
        assert_eq!(it.pending(1, times_of(6).0, 9).len(), 1);
        assert_eq!(it.pending(1, u64::MAX, 1).len(), 1);
    }

    #[test]
    fn a_late_one_makes_its_second_wait_again() {
        let mut it = calendar(&[3, 4]);
        it.certify(1, &stretch(0, 9), 1);
        assert_eq!(pending(&it), [(4, 5, 4)], "4 came behind the mark");
        it.certify(1, &stretch(0, 9), 2);
        assert_eq!(pending(&it), []);
        it.add(
            ([1; 16], 3),
            Sums {
                all: Summary { count: 1, sum: 7 },
                kept: 1,
            },
            3,
        );
        assert_eq!(pending(&it), [(3, 4, 10)]);
        it.certify(1, &stretch(0, 9), 3);
        it.reset(1);
        assert_eq!(pending(&it), [(3, 5, 14)]);
    }

    #[test]
    fn a_second_is_certified_once_all_its_parts_are() {
        let from = times_of(3).0;
        let rows: [(&[(u64, u64)], bool); 4] = [
            (&[(0, 9), (10, 1 << 32)], false),
            (&[(9, 1 << 32), (0, 9)], true),
            (&[(0, 9), (9, 20), (30, 1 << 32), (15, 30)], true),
            (&[(0, 9), (0, 9)], false),
        ];
        for (parts, is_certified) in rows {
            let mut it = calendar(&[3]);
            for (a, b) in parts {
                let part = Stretch {
                    source: [1; 16],
                    from: from + a,
                    to: from + b,
                };
                it.certify(1, &part, 9);
            }
            assert_eq!(pending(&it).is_empty(), is_certified, "{parts:?}");
        }
    }
}
