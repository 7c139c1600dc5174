//! What a journal is told and what it tells.

use std::path::PathBuf;

use weir_core::{
    backlog::LANES,
    forward::{Entry, Lost},
    ledger::Summary,
    pattern::KeySet,
};
use zenoh_keyexpr::keyexpr;

use crate::block::Head;

/// How a journal is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Its directory, its own alone; made if it is not there.
    pub dir: PathBuf,
    /// Bytes that its segments may have together. What becomes of more is `on_full`.
    pub budget_bytes: u64,
    /// Seconds of sources that may wait together, each of which takes some 200 bytes of memory. What becomes of
    /// more is `on_full` as well.
    pub budget_seconds: usize,
    /// How long after it was appended a segment is given up (NTP64), certified or not; `None` for never.
    pub age: Option<u64>,
    /// What is done when a budget, or the disk, is full.
    pub on_full: OnFull,
    /// Bytes of a segment, about; it is closed once it has them. At most an eighth of the budget is taken.
    pub segment_bytes: u64,
    /// Bytes of a block, about.
    pub block_bytes: usize,
    /// How long a segment stays that every upstream has certified (NTP64), as long as there is room. An
    /// upstream that has lost what it had is given that much again.
    pub keep: u64,
}

/// What is done when a journal is full. A disk that is full before the budget is used up never costs the
/// segment that is being written, nor the only one that there is: what comes is refused instead, once some
/// mebibytes wait in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnFull {
    /// What comes is refused, and is lost.
    #[default]
    RejectNew,
    /// The oldest segment of all lanes is dropped.
    DropOldest,
    /// The oldest segment of the lowest lane (7 is the lowest) that has one is dropped.
    DropLowestLane,
    /// The oldest segments are written again with the newest version of each key alone; if none gets
    /// smaller by that, the oldest is dropped.
    Coalesce,
}

/// A sample that is offered to a journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// The sample. Without a stamp it is refused.
    pub entry: Entry,
    /// Zenoh's priority. It is remembered for who decides again ([`Unranked`]).
    pub priority: u8,
    /// What becomes of it.
    pub keep: Keep,
}

/// An entry that waits, and about which another has decided than who decides now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unranked {
    /// What waits, and how.
    pub entry: Entry,
    /// Zenoh's priority.
    pub priority: u8,
}

/// What becomes of a sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// It waits.
    Yes,
    /// It waits, and nothing older of its key does.
    NewestOnly,
    /// It is counted in the sums and not kept, for this reason.
    Drop(u32),
}

/// What became of a batch, in entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Appended {
    /// They wait.
    pub kept: u64,
    /// There was no room; they are among [`Status::lost`].
    pub rejected: u64,
    /// Their verdict was to drop them.
    pub dropped: u64,
    /// A newer one of their key was there, or came.
    pub coalesced: u64,
    /// They have no stamp, or a lane that is none. Nothing remembers them.
    pub refused: u64,
    /// Older ones that were given up to make room for these.
    pub lost: u64,
}

/// What was trimmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Trimmed {
    /// Segments that are no more.
    pub segments: u64,
    /// Their entries.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of the entries, those that somebody still waited for: they were too old.
    pub expired: u64,
}

/// Which keys an upstream is for.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum Scope {
    /// Everything that the journal has. Sums cost nothing then.
    #[default]
    All,
    /// These. What waits is read to sum it up.
    Only(KeySet),
}

impl Scope {
    /// Whether a key belongs to it. A key that Zenoh could not carry does not.
    pub(crate) fn has_key(&self, key: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(keys) => keyexpr::new(key).is_ok_and(|key| keys.matches(key)),
        }
    }

    pub(crate) fn has_expr(&self, expr: &keyexpr) -> bool {
        match self {
            Self::All => true,
            Self::Only(keys) => keys.intersects(expr),
        }
    }
}

/// An upstream of a journal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Upstream(pub(crate) u8);

/// What a journal holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// By lane.
    pub lanes: [LaneStatus; LANES as usize],
    /// Files.
    pub segments: u64,
    /// Bytes of the files, and of what is not written yet.
    pub bytes: u64,
    /// Seconds of sources that are remembered; memory grows with them.
    pub seconds: u64,
    /// By upstream, in the order in which they were named.
    pub upstreams: Vec<UpstreamStatus>,
    /// What was given up, and its lane.
    pub lost: Vec<(u8, Lost)>,
    /// What could not be read.
    pub damaged: Vec<Damaged>,
    /// Why nothing is taken any more, until the journal is opened again.
    pub poisoned: Option<String>,
    /// What was decided again since it was opened.
    pub ranked: Ranked,
    /// Entries that wait to be decided again.
    pub unranked: u64,
}

/// What was decided again, in entries, after another began to decide ([`crate::Journal::rank_by`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ranked {
    /// All of them.
    pub decided: u64,
    /// Those that wait in another lane now.
    pub moved: u64,
    /// Those that are kept no longer: dropped, or there is a newer one.
    pub dropped: u64,
}

/// What a lane holds. The counters begin when the journal is opened.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LaneStatus {
    /// Entries that are kept.
    pub records: u64,
    /// Of these, those that an upstream has not certified.
    pub waiting: u64,
    /// Bytes of the lane's segments.
    pub bytes: u64,
    /// The second in which the oldest of what waits was stamped (NTP64).
    pub oldest: Option<u64>,
    /// Entries that were appended and kept.
    pub kept: u64,
    /// Entries for which there was no room.
    pub rejected: u64,
    /// Entries that were given up to make room.
    pub given_up: u64,
    /// Entries that had waited for too long.
    pub expired: u64,
    /// Entries of which there was a newer one.
    pub coalesced: u64,
    /// Entries that a rule dropped, by its reason; reasons beyond 256 come under the greatest number.
    pub dropped: Vec<(u32, u64)>,
}

/// What waits for an upstream. Exact for the whole journal; a [`Scope`] is not looked at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UpstreamStatus {
    /// Its name.
    pub name: String,
    /// Entries that it has not certified.
    pub waiting: u64,
    /// The second in which the oldest of them was stamped (NTP64).
    pub oldest: Option<u64>,
}

/// A block that was set aside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damaged {
    /// Its file, without the directory.
    pub file: String,
    /// Where in the file it begins.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
    /// What its head said, as far as that is known.
    pub head: Option<Head>,
    /// What is wrong with it.
    pub why: String,
}

/// What was found when a journal was opened.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovery {
    /// Files that were taken over.
    pub segments: u64,
    /// Entries in them.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were not closed, and so were read through.
    pub scanned: u64,
    /// Ends of files that were cut, since no whole block was there: the file, and how many bytes.
    pub torn: Vec<(String, u64)>,
    /// What was set aside.
    pub damaged: Vec<Damaged>,
    /// What else was put right, in words.
    pub repaired: Vec<String>,
}

impl Options {
    /// Segments of 16 MiB, blocks of 64 KiB, 1 GiB and 2^20 seconds in all; refuses what comes when that is full.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            budget_bytes: 1 << 30,
            // Some 200 MB: twelve days of one source, three hours of a hundred.
            budget_seconds: 1 << 20,
            age: None,
            on_full: OnFull::default(),
            segment_bytes: 16 << 20,
            block_bytes: 64 << 10,
            keep: 0,
        }
    }

    /// When a segment is closed.
    pub(crate) fn segment_max(&self) -> u64 {
        self.segment_bytes.min(self.budget_bytes / 8)
    }
}

/// A sum and how much of it is kept, of one entry.
pub(crate) fn one(hash: u128) -> Summary {
    Summary {
        count: 1,
        sum: hash,
    }
}
