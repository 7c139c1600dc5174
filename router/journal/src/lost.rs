//! What was given up, and who knows of it. It is kept in a file of its own, which is replaced as a whole:
//!
//! ```text
//! 0    magic "WEIRLOST", version u16 (1), count u32
//! then of each: lane u8, cause u8 (0 full, 1 age, 2 damage, 3 other), source 16 bytes, from u64,
//!      to u64, count u64
//! end  checksum u32 of all before
//! ```
//!
//! Who knows of it is not kept: after a restart it is told again.

use std::collections::{HashMap, HashSet};

use weir_core::forward::{Cause, Lost, Source, Stretch};

use crate::{
    calendar::{Slot, times_of},
    segment::{Unlike, list, list_of},
    varint::Cursor,
};

const MAGIC: [u8; 8] = *b"WEIRLOST";
/// How many intervals are told apart. With more, neighbours become one.
const INTERVALS_MAX: usize = 4096;
/// How far back a neighbour is looked for: a burst of losses is of a few sources and lanes.
const LOOK_BACK: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct LostList {
    all: Vec<Given>,
    is_dirty: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Given {
    lane: u8,
    lost: Lost,
    /// A bit for each upstream that knows of it.
    noted: u64,
    /// One was told of it: its beginning, by which that one remembers it, stays what it is.
    is_told: bool,
}

/// What an upstream remembers an interval by. What has the same is one to it, whatever its lane.
type Beginning = (Source, u64, Cause);

impl LostList {
    /// So many of a second were given up.
    pub(crate) fn add(&mut self, lane: u8, (source, second): Slot, count: u64, cause: Cause) {
        let (from, to) = times_of(second);
        self.add_stretch(
            lane,
            Lost {
                stretch: Stretch { source, from, to },
                count,
                cause,
            },
        );
    }

    pub(crate) fn add_stretch(&mut self, lane: u8, lost: Lost) {
        self.is_dirty = true;
        let begin = self.all.len().saturating_sub(LOOK_BACK);
        let new = lost.stretch;
        let neighbour = self.all[begin..].iter_mut().rev().find(|given| {
            let old = given.lost.stretch;
            given.is_like(lane, &lost)
                && given.noted == 0
                && (!given.is_told || old.from <= new.from)
                && old.from <= new.to
                && new.from <= old.to
        });
        match neighbour {
            Some(given) => join(&mut given.lost, &lost),
            None => self.all.push(Given::new(lane, lost)),
        }
        if self.all.len() > INTERVALS_MAX {
            self.shrink();
        }
    }

    /// What an upstream (one bit) does not know of yet, or not all of. What began at the same time is one, since
    /// the upstream remembers the last that it is told of a beginning: so what it remembers adds up.
    pub(crate) fn unnoted(&mut self, upstream: u64, max: usize) -> Vec<Lost> {
        let together = self.together();
        let mut seen = HashSet::new();
        let mut unnoted = Vec::new();
        for given in &self.all {
            let beginning = given.beginning();
            if unnoted.len() >= max {
                break;
            }
            if given.noted & upstream == 0 && seen.insert(beginning) {
                unnoted.extend(together.get(&beginning));
            }
        }
        for given in &mut self.all {
            given.is_told |= seen.contains(&given.beginning());
        }
        unnoted
    }

    /// An upstream knows of these. What has grown since it was told is told again.
    pub(crate) fn note(&mut self, upstream: u64, lost: &[Lost]) {
        let together = self.together();
        for given in &mut self.all {
            let told = together.get(&given.beginning());
            if told.is_some_and(|told| lost.contains(told)) {
                given.noted |= upstream;
            }
        }
    }

    /// An upstream knows of nothing.
    pub(crate) fn reset(&mut self, upstream: u64) {
        for given in &mut self.all {
            given.noted &= !upstream;
        }
    }

    pub(crate) fn list(&self) -> Vec<(u8, Lost)> {
        self.all
            .iter()
            .map(|given| (given.lane, given.lost))
            .collect()
    }

    /// Its bytes, if they are others than those of the last time.
    pub(crate) fn take_changes(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.is_dirty).then(|| self.encode())
    }

    /// The bytes could not be written.
    pub(crate) const fn keep_changes(&mut self) {
        self.is_dirty = true;
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = list(MAGIC);
        out.extend(
            u32::try_from(self.all.len())
                .unwrap_or(u32::MAX)
                .to_le_bytes(),
        );
        for Given { lane, lost, .. } in &self.all {
            out.extend([*lane, cause_byte(lost.cause)]);
            out.extend(lost.stretch.source);
            for value in [lost.stretch.from, lost.stretch.to, lost.count] {
                out.extend(value.to_le_bytes());
            }
        }
        out.extend(crc32fast::hash(&out).to_le_bytes());
        out
    }

    /// The inverse.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unlike> {
        let mut cursor = Cursor::new(list_of(bytes, MAGIC)?);
        let mut read = || {
            let mut all = Vec::new();
            for _ in 0..cursor.u32()? {
                let (lane, cause) = (cursor.byte()?, cause_of(cursor.byte()?));
                let source = cursor.array()?;
                let (from, to, count) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
                let lost = Lost {
                    stretch: Stretch { source, from, to },
                    count,
                    cause,
                };
                all.push(Given::new(lane, lost));
            }
            Some(Self {
                all,
                is_dirty: false,
            })
        };
        read().ok_or(Unlike::Damaged)
    }

    /// All that began at the same time, as one.
    fn together(&self) -> HashMap<Beginning, Lost> {
        let mut together: HashMap<Beginning, Lost> = HashMap::new();
        for given in &self.all {
            let one = together.entry(given.beginning());
            one.and_modify(|one| join(one, &given.lost))
                .or_insert(given.lost);
        }
        together
    }

    /// Makes one of two that are alike, the oldest first; if no two are, the oldest goes.
    fn shrink(&mut self) {
        // Each step remembers the next one that is alike, so the last that is found is the oldest.
        let mut next = HashMap::new();
        let mut oldest = None;
        for (at, given) in self.all.iter().enumerate().rev() {
            let alike = (given.lane, given.lost.cause, given.lost.stretch.source);
            if let Some(next) = next.insert(alike, at) {
                oldest = Some((at, next));
            }
        }
        let Some((at, next)) = oldest else {
            self.all.remove(0);
            return;
        };
        let next = self.all.remove(next);
        join(&mut self.all[at].lost, &next.lost);
        self.all[at].noted = 0;
    }
}

impl Given {
    const fn new(lane: u8, lost: Lost) -> Self {
        Self {
            lane,
            lost,
            noted: 0,
            is_told: false,
        }
    }

    const fn beginning(&self) -> Beginning {
        (
            self.lost.stretch.source,
            self.lost.stretch.from,
            self.lost.cause,
        )
    }

    fn is_like(&self, lane: u8, lost: &Lost) -> bool {
        self.lane == lane
            && self.lost.cause == lost.cause
            && self.lost.stretch.source == lost.stretch.source
    }
}

fn join(one: &mut Lost, other: &Lost) {
    one.stretch.from = one.stretch.from.min(other.stretch.from);
    one.stretch.to = one.stretch.to.max(other.stretch.to);
    one.count += other.count;
}

const fn cause_byte(cause: Cause) -> u8 {
    match cause {
        Cause::Full => 0,
        Cause::Age => 1,
        Cause::Damage => 2,
        Cause::Other => 3,
    }
}

const fn cause_of(byte: u8) -> Cause {
    match byte {
        0 => Cause::Full,
        1 => Cause::Age,
        2 => Cause::Damage,
        _ => Cause::Other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn neighbours_are_one_until_they_are_told() {
        let mut it = LostList::default();
        for second in [3, 4, 4, 9, 5] {
            it.add(2, ([1; 16], second), 10, Cause::Full);
        }
        it.add(3, ([1; 16], 4), 1, Cause::Full);
        let short = |it: &LostList| -> Vec<_> {
            let list = it.list();
            let row = |(lane, lost): &(u8, Lost)| {
                (
                    *lane,
                    lost.stretch.from >> 32,
                    lost.stretch.to >> 32,
                    lost.count,
                )
            };
            list.iter().map(row).collect()
        };
        assert_eq!(short(&it), [(2, 3, 6, 40), (2, 9, 10, 10), (3, 4, 5, 1)]);
        let told = it.unnoted(1, 2);
        it.note(1, &told);
        assert_eq!(it.unnoted(1, 9).len(), 1);
        assert_eq!(it.unnoted(2, 9).len(), 3);
        it.add(2, ([1; 16], 6), 1, Cause::Full);
        assert_eq!(
            it.unnoted(1, 9).len(),
            2,
            "what is told stays as it was told"
        );
        it.reset(1);
        assert_eq!(it.unnoted(1, 9).len(), 4);
    }

    /// An upstream remembers one interval of each source, beginning and cause: what it is told last.
    #[test]
    fn what_an_upstream_remembers_adds_up() {
        let mut it = LostList::default();
        let mut remembered = BTreeMap::new();
        let mut tell = |it: &mut LostList, is_noted: bool| {
            let told = it.unnoted(1, 99);
            for lost in &told {
                remembered.insert(
                    (lost.stretch.source, lost.stretch.from, lost.cause),
                    lost.count,
                );
            }
            if is_noted {
                it.note(1, &told);
                assert_eq!(it.unnoted(1, 99), []);
            }
            remembered.values().sum::<u64>()
        };
        for lane in 0..3 {
            for second in [10, 11, 12] {
                it.add(lane, ([1; 16], second), 10 + u64::from(lane), Cause::Full);
            }
        }
        it.add(0, ([1; 16], 10), 5, Cause::Age);
        it.add(0, ([2; 16], 10), 7, Cause::Full);
        assert_eq!(tell(&mut it, true), 33 * 3 + 5 + 7);
        // In a second that was told, of the same lane and of another.
        it.add(0, ([1; 16], 10), 100, Cause::Full);
        it.add(7, ([1; 16], 10), 200, Cause::Full);
        assert_eq!(tell(&mut it, false), 33 * 3 + 5 + 7 + 300);
        // It was told and nobody has said that it is known yet: earlier ones do not move its beginning.
        it.add(7, ([1; 16], 9), 1000, Cause::Full);
        it.add(7, ([1; 16], 11), 2000, Cause::Full);
        assert_eq!(tell(&mut it, true), 33 * 3 + 5 + 7 + 3300);
        it.add(7, ([1; 16], 11), 4000, Cause::Full);
        assert_eq!(tell(&mut it, true), 33 * 3 + 5 + 7 + 7300);
        let all: u64 = it.list().iter().map(|(_, lost)| lost.count).sum();
        assert_eq!(tell(&mut it, true), all);
    }

    #[test]
    fn it_comes_back_whole_or_not_at_all() {
        let mut it = LostList::default();
        for second in 0..5 {
            it.add(second, ([2; 16], 10 * u32::from(second)), 3, Cause::Damage);
        }
        let bytes = it.take_changes().unwrap();
        assert_eq!(it.take_changes(), None);
        assert_eq!(LostList::decode(&bytes).unwrap().list(), it.list());
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 4;
            assert!(LostList::decode(&bad).is_err(), "byte {at}");
            assert!(LostList::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn it_stays_small_and_counts_on() {
        let mut it = LostList::default();
        for second in 0..2 * 4096 + 10 {
            it.add(0, ([2; 16], 10 * second), 1, Cause::Full);
        }
        assert!(it.all.len() <= INTERVALS_MAX);
        assert_eq!(
            it.all.iter().map(|given| given.lost.count).sum::<u64>(),
            2 * 4096 + 10
        );
    }
}
