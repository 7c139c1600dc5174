//! The durable file under a link's outbox: append-only segments, a set of them for each lane.
//!
//! [`Journal`] is the side that writes, and has one owner. [`JournalOutbox`] is the side that a link reads
//! ([`weir_core::forward::Outbox`]); there may be one for each upstream, on threads of their own.
//! [`pack`](pack::pack) makes parcels of what is shipped. [`inspect`] looks at a directory from outside.
//!
//! ```text
//! append(batch) -> memory -> flush() -> blocks -> flush(sync) -> disk
//!                                          |
//!     outbox: pending, split, items, page <+     certified() -> trim() -> segments are removed
//! ```
//!
//! # What is promised
//!
//! - What a [`Journal::flush`] with `sync` has returned for is there after a loss of power; what a flush
//!   without it has returned for, after the end of the process. Nothing else is ever found there.
//! - Damage costs its block. It is set aside, told, and noted as lost; the rest is read.
//! - After a failed write or sync nothing is taken before the journal is opened again.
//! - A second of a source waits for an upstream until that has certified all that had been appended of it.
//!   What is appended late makes it wait again. Wildcard operations wait in the second of their stamp, in
//!   which they are not summed up; so a link ships them before it certifies the second.
//! - Sums hold everything that was tapped, also what a verdict dropped or a newer one superseded, as long as
//!   a segment holds something of the second. After a restart, the part of a segment that was trimmed is no
//!   longer in them: such a second differs, and is compared by what is kept of it.
//! - What was decided about an entry may be decided again ([`Journal::rank_by`]): it is in one segment, and
//!   in the sums once, whenever the process ends.
//! - No certificate is written down: after a restart everything that is kept waits again.
//!
//! Memory: some 200 bytes for each second of each source that is kept (an hour of one source is 0.7 MB), a
//! block for each lane, and the index of one segment for each upstream. It does not depend on how much there
//! is in a second. [`Options::budget_seconds`] is the limit.
//!
//! # Files
//!
//! `lock` is locked by the process that has the journal open. `lost` holds what was given up. A segment is
//! `LANE-ID.journal`, with ids rising over all lanes (16 hexadecimal digits); `X.damaged` beside a file holds
//! what was set aside of it (again and again: offset u64, length u32, bytes), and is never removed; `X.new`
//! is unfinished, and removed when the journal is opened; `moved` says which segments one has become, until
//! they have their names. Integers are little-endian, checksums CRC-32
//! (IEEE), times NTP64. A file of a version that is not known is refused and left as it is.
//!
//! ```text
//! segment    0  magic "WEIRJRNL"           8  version u16 (1)       10  lane u8
//!           11  flags u8: 1 written again without what was superseded
//!           12  id u64                    20  position of the first entry u64
//!           28  checksum of 0..28
//!           32  blocks, one behind the other; then, if it was closed:
//!               sums, index, trailer
//!
//! block      0  magic "WBK", version u8 (1)                          4  length of the body u32
//!            8  checksum of the body      12  entries u32
//!           16  position of the first u64 24  mark of the last u64
//!           32  earliest stamp u64        40  latest stamp u64
//!           48  wildcard operations u32   52  lower half of the segment's id u32
//!           56  when the last was appended, seconds u32
//!           60  checksum of 0..60         64  body: entries, then sums of what is not kept, then priorities
//!
//! entry      flags u8: 1 put, 2 wildcard, 4 schema, 8 attachment, 16 expires, 32 newest only,
//!                64 another encoding than the entry before, 128 another source
//!            if 128: index of the source in the block; if that is new: 16 bytes
//!            index of the key in the block; if that is new: how many bytes it shares with the last new one,
//!                length of the rest, the rest
//!            time: way from the entry before (zigzag); if 16: expiry: way from the time (zigzag)
//!            if 64: encoding id; if 4: length, schema; if 8: length, attachment
//!            if 1: length, payload. Indices, lengths and ways are varints.
//!
//! not kept   how many (varint), then of each: source 16, second u32, count u64, sum u128
//!
//! priorities of Zenoh, of the entries: how many in a row (varint), which u8; nothing if all are 5
//!
//! sums       of each source and second: source 16, second u32, kept u32, count u64, sum u128;
//!                count and sum are of all that was tapped, kept is how many entries are in the blocks
//! index      of each block: offset u64, head 64
//! trailer    0  magic "WEIRFOOT"           8  version u16 (1)      10  flags u8: 1 has operations
//!           12  rows of sums u32          16  their checksum
//!           20  rows of the index u32     24  their checksum
//!           28  where the blocks end u64  36  first position u64   44  position behind the last u64
//!           52  mark of the last u64      60  when it was appended, seconds u32
//!           64  who decided u32 (0: the link's own rules; else of a policy)
//!           68  checksum of 0..68
//! ```
//!
//! A segment that has no trailer, or one that is damaged, is read through when the journal is opened: its
//! end is cut behind its last whole block, and it is closed.

mod block;
mod budget;
mod calendar;
mod error;
mod files;
pub mod inspect;
mod journal;
mod lost;
mod moves;
mod newest;
mod options;
mod outbox;
pub mod pack;
mod rank;
mod reader;
mod recovery;
mod segment;
mod state;
#[cfg(test)]
mod tests;
mod varint;
mod writer;

pub use block::Head;
pub use error::{JournalError, Result};
pub use files::{Disk, Files, Output};
pub use journal::Journal;
pub use options::{
    Appended, Damaged, Keep, LaneStatus, OnFull, Options, Ranked, Recovery, Scope, Status, Trimmed,
    Unranked, Upstream, UpstreamStatus, Waiting,
};
pub use outbox::JournalOutbox;
