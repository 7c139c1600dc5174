//! What a record has merged (S13): its version vector.
//!
//! A vector is a set of stamps: the changes whose part in the record is done. It lists, for each
//! clock, the stamps of that clock's changes, so that a change that comes late or twice is told from
//! one that is new even if a later change of the same clock came before it. Nothing in a Zenoh put
//! says that its writer had seen an earlier one, not even that of the same clock, which is the first
//! router's and shared by all of its clients: so a put alone has the vector [`Vector::of`] its own
//! stamp.
//!
//! The set only grows. Joining is union, the order is inclusion, and whatever is done to keep it small
//! makes it larger as a set, never smaller: two replicas that go on exchanging records end with equal
//! vectors. It is kept small by rounding up:
//!
//! - of each clock the newest [`TIMES_PER_CLOCK_MAX`] changes are told apart; everything older of that
//!   clock counts as merged ("its later changes have seen its earlier ones");
//! - of all clocks together at most [`TIMES_MAX`], by telling fewer apart of each;
//! - over [`CLOCKS_MAX`] clocks, everything as old as the clock that was silent longest counts as
//!   merged, whoever made it.
//!
//! Price of rounding: a change that arrives after so many newer ones of its key is outdated.

use std::cmp::Ordering;

use crate::version::Stamp;

/// How many changes of one clock are told apart: more than a network reorders on one path.
pub const TIMES_PER_CLOCK_MAX: usize = 16;
/// How many changes are told apart in all: 2 KiB of a record.
pub const TIMES_MAX: usize = 256;
/// How many clocks have an entry of their own: 6.4 KiB of a record at the most. Beyond that a key is
/// no longer a value that a fleet agrees on but a stream that it writes to.
pub const CLOCKS_MAX: usize = 256;

/// A set of stamps that only grows; see the module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Vector {
    /// Every stamp at or before this time (NTP64) is in it.
    floor: u64,
    /// By id. None is empty, and nothing is said twice: equal sets are equal values.
    clocks: Vec<Clock>,
}

/// The stamps of one clock.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Clock {
    id: [u8; 16],
    /// Every stamp of this clock at or before this time is in it; 0 if the floor says all there is.
    through: u64,
    /// More of its times, ascending, all above `through` and the floor.
    times: Vec<u64>,
}

/// How two vectors stand to each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    /// Both have merged the same.
    Equal,
    /// The left has merged all of the right, and more.
    Dominates,
    /// The right has merged all of the left, and more.
    Dominated,
    /// Each has merged what the other has not.
    Concurrent,
}

impl Vector {
    /// Bytes of [`Vector::encode_into`] at the most: every clock with one time.
    pub const LEN_MAX: usize = 8 + 2 + CLOCKS_MAX * Clock::FIXED + TIMES_MAX * 8;

    /// The vector of one change.
    #[must_use]
    pub fn of(stamp: Stamp) -> Self {
        let mut vector = Self::default();
        vector.insert(stamp);
        vector
    }

    /// Whether a change counts as merged. Costs two binary searches.
    #[must_use]
    pub fn contains(&self, stamp: Stamp) -> bool {
        stamp.time <= self.floor
            || self.clock(&stamp.id).is_some_and(|clock| {
                stamp.time <= clock.through || clock.times.binary_search(&stamp.time).is_ok()
            })
    }

    /// Adds a change.
    pub fn insert(&mut self, stamp: Stamp) {
        if self.contains(stamp) {
            return;
        }
        let id = stamp.id;
        let at = match self.clocks.binary_search_by(|clock| clock.id.cmp(&id)) {
            Ok(at) => at,
            Err(at) => {
                let (through, times) = (0, Vec::with_capacity(1));
                self.clocks.insert(at, Clock { id, through, times });
                at
            }
        };
        let times = &mut self.clocks[at].times;
        times.insert(times.partition_point(|time| *time < stamp.time), stamp.time);
        self.bound();
    }

    /// Adds all that the other has merged.
    pub fn join(&mut self, other: &Self) {
        self.floor = self.floor.max(other.floor);
        let mut clocks = Vec::with_capacity(self.clocks.len().max(other.clocks.len()));
        let mut mine = std::mem::take(&mut self.clocks).into_iter().peekable();
        let mut theirs = other.clocks.iter().peekable();
        loop {
            let order = match (mine.peek(), theirs.peek()) {
                (Some(mine), Some(theirs)) => mine.id.cmp(&theirs.id),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            let mut clock = match order {
                Ordering::Less | Ordering::Equal => mine.next(),
                Ordering::Greater => theirs.next().cloned(),
            };
            if order == Ordering::Equal
                && let (Some(clock), Some(theirs)) = (&mut clock, theirs.next())
            {
                clock.join(theirs);
            }
            clocks.extend(clock);
        }
        self.clocks = clocks;
        self.normalise();
        self.bound();
    }

    /// How it stands to another.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Relation {
        match (other.is_within(self), self.is_within(other)) {
            (true, true) => Relation::Equal,
            (true, false) => Relation::Dominates,
            (false, true) => Relation::Dominated,
            (false, false) => Relation::Concurrent,
        }
    }

    /// The newest change that it has merged.
    #[must_use]
    pub fn newest(&self) -> Stamp {
        let newest = self.clocks.iter().map(Clock::newest).max();
        let floor = Stamp {
            time: self.floor,
            id: [0; 16],
        };
        newest.unwrap_or(floor)
    }

    /// Appends its bytes: the floor, the number of clocks (u16), and for each clock its id, its
    /// `through`, the number of its times (u8) and the times. Integers are big-endian.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend(self.floor.to_be_bytes());
        // Bounded by CLOCKS_MAX and TIMES_PER_CLOCK_MAX.
        out.extend(
            u16::try_from(self.clocks.len())
                .unwrap_or(u16::MAX)
                .to_be_bytes(),
        );
        for clock in &self.clocks {
            out.extend(clock.id);
            out.extend(clock.through.to_be_bytes());
            out.push(u8::try_from(clock.times.len()).unwrap_or(u8::MAX));
            for time in &clock.times {
                out.extend(time.to_be_bytes());
            }
        }
    }

    /// The inverse of [`Vector::encode_into`]; `None` if `bytes` are not exactly one vector.
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut vector = Self {
            floor: u64::from_be_bytes(take(&mut bytes)?),
            clocks: Vec::new(),
        };
        for _ in 0..u16::from_be_bytes(take(&mut bytes)?) {
            let id = take(&mut bytes)?;
            let through = u64::from_be_bytes(take(&mut bytes)?);
            let [len] = take(&mut bytes)?;
            let times = (0..len)
                .map(|_| take(&mut bytes).map(u64::from_be_bytes))
                .collect::<Option<_>>()?;
            vector.clocks.push(Clock { id, through, times });
        }
        (bytes.is_empty() && vector.is_canonical()).then_some(vector)
    }

    fn clock(&self, id: &[u8; 16]) -> Option<&Clock> {
        let at = self
            .clocks
            .binary_search_by(|clock| clock.id.cmp(id))
            .ok()?;
        self.clocks.get(at)
    }

    /// Whether all of it is in `other`.
    fn is_within(&self, other: &Self) -> bool {
        self.floor <= other.floor
            && self.clocks.iter().all(|clock| {
                let theirs = other.clock(&clock.id);
                let through = theirs.map_or(0, |theirs| theirs.through).max(other.floor);
                clock.through <= through
                    && clock.times.iter().all(|time| {
                        *time <= through
                            || theirs.is_some_and(|theirs| theirs.times.binary_search(time).is_ok())
                    })
            })
    }

    /// Says nothing twice.
    fn normalise(&mut self) {
        let floor = self.floor;
        self.clocks.retain_mut(|clock| {
            if clock.through <= floor {
                clock.through = 0;
            }
            let through = clock.through.max(floor);
            clock
                .times
                .drain(..clock.times.partition_point(|time| *time <= through));
            clock.through > 0 || !clock.times.is_empty()
        });
    }

    fn is_canonical(&self) -> bool {
        let mut normal = self.clone();
        normal.normalise();
        normal == *self
            && self.clocks.is_sorted_by(|a, b| a.id < b.id)
            && self
                .clocks
                .iter()
                .all(|clock| clock.times.is_sorted_by(|a, b| a < b))
    }

    /// Rounds up to what fits.
    fn bound(&mut self) {
        if self.clocks.len() > CLOCKS_MAX {
            let mut newest: Vec<u64> = self
                .clocks
                .iter()
                .map(|clock| clock.newest().time)
                .collect();
            newest.sort_unstable();
            self.floor = newest[newest.len() - CLOCKS_MAX - 1];
            self.normalise();
        }
        let mut each_max = TIMES_PER_CLOCK_MAX;
        loop {
            for clock in &mut self.clocks {
                clock.keep(each_max);
            }
            let times: usize = self.clocks.iter().map(|clock| clock.times.len()).sum();
            if times <= TIMES_MAX || each_max == 1 {
                return;
            }
            each_max /= 2;
        }
    }
}

impl Clock {
    /// Bytes of id, through and the number of times.
    const FIXED: usize = 16 + 8 + 1;

    fn newest(&self) -> Stamp {
        Stamp {
            time: self.times.last().copied().unwrap_or(self.through),
            id: self.id,
        }
    }

    fn join(&mut self, other: &Self) {
        self.through = self.through.max(other.through);
        self.times.extend_from_slice(&other.times);
        self.times.sort_unstable();
        self.times.dedup();
    }

    /// Tells only the newest `max` apart.
    fn keep(&mut self, max: usize) {
        if let Some(excess) = self
            .times
            .len()
            .checked_sub(max)
            .filter(|excess| *excess > 0)
        {
            self.through = self.times[excess - 1];
            self.times.drain(..excess);
        }
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
mod tests;
