//! Store-and-forward: what a link knows of the samples that wait in its outbox, and how it finds out
//! which of them an upstream has (S11).
//!
//! "Sent" is never evidence. Every sample that a link is for lies in its journal from before anybody
//! could know whether it arrived, and stays until each upstream has certified it: by saying that what
//! it holds of a source in a stretch of time has the same count and sum as what the link has seen, or
//! that it has stored what was shipped to it.
//!
//! A [`Stretch`] is compared as a whole first, and cut where it differs; a hole that an outage has left
//! is found as one stretch of which the upstream has nothing, and is shipped without being listed. What
//! is left over is listed by ids. Identity is the version: shipping twice stores once.
//!
//! The upstream answers from a [`crate::mirror::Replica`] and remembers nothing ([`answer`]); the link
//! owns a [`link::Link`] for each upstream. [`frame`] is what they say.

pub mod answer;
pub mod frame;
pub mod link;

use std::collections::HashSet;

use crate::{
    backlog::LANES,
    change::KeptChange,
    ledger::{Item, Summary, id_of},
    mirror::Unreadable,
    version::{Stamp, Version},
    wildcard::WildcardOp,
};

/// Who has stamped something: the HLC id of its stamp.
pub type Source = [u8; 16];

/// A stretch of one source's time: from `from` (inclusive) to `to` (exclusive), both NTP64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Stretch {
    /// Whose.
    pub source: Source,
    /// The first time inside.
    pub from: u64,
    /// The first time behind.
    pub to: u64,
}

/// Something that was given up: it was seen, and will not be shipped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Lost {
    /// Whose, and when it was stamped.
    pub stretch: Stretch,
    /// How many puts and deletes.
    pub count: u64,
    /// Why.
    pub cause: Cause,
}

/// Why something was given up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cause {
    /// The outbox was full.
    Full,
    /// It had waited for too long.
    Age,
    /// It could not be read any more.
    Damage,
    /// A later version of this protocol knows.
    Other,
}

/// Something that waits: a put or delete of a key (in full, whatever `strip_prefix` says elsewhere), or
/// a wildcard operation. It is stamped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What was put or deleted.
    pub change: KeptChange,
    /// Its lane, below [`LANES`].
    pub lane: u8,
    /// When it is no longer worth sending (NTP64).
    pub expires: Option<u64>,
}

/// Where in a lane reading goes on. Opaque to the core; ordered as the lane is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position(pub u64);

/// How much had been appended at some moment. What was appended later is behind it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Mark(pub u64);

/// In which order a lane is shipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Order {
    /// As it was appended.
    #[default]
    OldestFirst,
    /// Blocks appended last go first.
    NewestFirst,
}

/// Some of a lane.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// What was wanted, in the order that was asked for.
    pub entries: Vec<Entry>,
    /// Their encoded size, bytes.
    pub bytes: usize,
    /// Where to go on; `None` if the lane has no more.
    pub next: Option<Position>,
}

/// What waits, as a link sees it that has one upstream: of what concerns that upstream, everything that
/// it has not certified since it was appended. Reading may cost reads of files.
pub trait Outbox {
    /// How much has been appended so far. What is certified from now on is certified up to here.
    fn mark(&mut self) -> Mark;

    /// The longest stretches of whole seconds that wait, older than `before` (NTP64), in order of
    /// source and time, each with the sum of all that the link has seen of it: what was dropped, by
    /// rule or by a policy, included. Operations are in no sum, but the seconds of those that wait are
    /// in a stretch like others. A stretch does not reach over seconds whose sums were forgotten: the
    /// upstream has them still. At most `max` stretches.
    ///
    /// # Errors
    /// If the journal cannot be read now.
    fn pending(&mut self, before: u64, max: usize) -> Result<Vec<(Stretch, Summary)>, Unreadable>;

    /// Cuts a stretch into at most `parts`, in order and without a gap, by whole seconds as long as
    /// there are several of which something was seen. One part if there is nothing to cut.
    ///
    /// # Errors
    /// If the journal cannot be read now.
    fn split(
        &mut self,
        stretch: &Stretch,
        parts: usize,
    ) -> Result<Vec<(Stretch, Summary)>, Unreadable>;

    /// What is kept of a stretch, in any order: what could be shipped. Without operations.
    ///
    /// # Errors
    /// If the journal cannot be read now.
    fn items(&mut self, stretch: &Stretch) -> Result<Vec<Item>, Unreadable>;

    /// Wildcard operations that wait.
    ///
    /// # Errors
    /// If the journal cannot be read now.
    fn operations(&mut self) -> Result<Vec<WildcardOp>, Unreadable>;

    /// What is missing of a lane, from a position on, until it is `bytes_max` together, but one entry at
    /// least if there is one. Entries that expired before `now` and operations are left out.
    ///
    /// # Errors
    /// If the journal cannot be read now.
    fn page(
        &mut self,
        lane: u8,
        order: Order,
        from: Option<Position>,
        missing: &Missing,
        now: u64,
        bytes_max: usize,
    ) -> Result<Page, Unreadable>;

    /// What was given up and this upstream has not noted yet, `max` at most; none, for an outbox that
    /// gives nothing up.
    ///
    /// # Errors
    /// If the journal cannot be read now.
    fn lost(&mut self, max: usize) -> Result<Vec<Lost>, Unreadable> {
        let _ = max;
        Ok(Vec::new())
    }

    /// How often what waits was put into other lanes. What a lane had been read past may be in it now.
    fn moved(&mut self) -> u64 {
        0
    }
}

/// What an upstream lacks, as far as it has said.
#[derive(Clone, Debug, Default)]
pub struct Missing {
    /// Stretches of which it has nothing, in order, not overlapping.
    whole: Vec<Stretch>,
    /// Stretches of which it has some, in order, not overlapping with these or those.
    partly: Vec<Stretch>,
    /// Of those, what it lacks ([`Item::id`]).
    ids: HashSet<u64>,
}

impl Stretch {
    /// The whole seconds that it lies in: what can be certified of it.
    #[must_use]
    pub const fn seconds(&self) -> Self {
        let second = u32::MAX as u64;
        Self {
            source: self.source,
            from: self.from & !second,
            to: self.to.saturating_add(second) & !second,
        }
    }

    /// Whether some time of a source lies in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.source == other.source && self.from < other.to && other.from < self.to
    }

    /// Whether a stamp lies inside.
    #[must_use]
    pub fn contains(&self, stamp: &Stamp) -> bool {
        self.source == stamp.id && self.from <= stamp.time && stamp.time < self.to
    }
}

impl Missing {
    /// It has nothing of a stretch.
    pub fn add_whole(&mut self, stretch: Stretch) {
        insert(&mut self.whole, stretch);
    }

    /// It lacks these ids of a stretch.
    pub fn add_ids(&mut self, stretch: Stretch, ids: impl IntoIterator<Item = u64>) {
        let before = self.ids.len();
        self.ids.extend(ids);
        if self.ids.len() > before {
            insert(&mut self.partly, stretch);
        }
    }

    /// Whether it lacks nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.ids.is_empty()
    }

    /// Whether something between two times (both inclusive, of whatever source) may be wanted.
    #[must_use]
    pub fn overlaps(&self, first: u64, last: u64) -> bool {
        let any = |list: &[Stretch]| {
            list.iter()
                .any(|stretch| stretch.from <= last && first < stretch.to)
        };
        any(&self.whole) || any(&self.partly)
    }

    /// Whether a version of a key is wanted. `hash` gives [`Item::hash`], and is only asked if it matters.
    pub fn wants(&self, version: &Version, hash: impl FnOnce() -> u128) -> bool {
        find(&self.whole, &version.stamp)
            || (find(&self.partly, &version.stamp) && self.ids.contains(&id_of(hash())))
    }
}

/// Lanes in the order in which they are shipped.
pub fn lanes() -> impl DoubleEndedIterator<Item = u8> {
    0..LANES
}

fn insert(list: &mut Vec<Stretch>, stretch: Stretch) {
    let at = list.partition_point(|other| *other < stretch);
    if list.get(at) != Some(&stretch) {
        list.insert(at, stretch);
    }
}

fn find(list: &[Stretch], stamp: &Stamp) -> bool {
    let behind =
        list.partition_point(|stretch| (stretch.source, stretch.from) <= (stamp.id, stamp.time));
    behind
        .checked_sub(1)
        .is_some_and(|at| list[at].contains(stamp))
}
