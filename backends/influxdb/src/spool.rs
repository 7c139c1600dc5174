//! What waits for the server: rows of [`Table::Spool`] beside the history rows of the local store.
//!
//! ```text
//! a                              what there is: next serial, entries, bytes
//! c KEY 0 VERSION                the serial of the last entry about a version that has several
//! q SERIAL                       an entry: what is to be done with a version of a key
//! u ROW                          a row of the store's user in this table
//! ```
//!
//! The records themselves are history rows of the local store until the server has them. So a
//! reader finds what waits where it belongs, by key and version, in the local store's own snapshot.
//! A version that is to be forgotten is a [`mask`] there, which hides what the server still has.
//!
//! An entry is carried out in the order of serials, and only if it is the last about its version: what
//! lies before it would be undone anyway, and its record may be gone.

use std::collections::{HashMap, hash_map::Entry as Slot};

use weir_backend_api::{Direction, Error, ErrorKind, Result, Snapshot, Store};
use weir_core::{
    change::{Change, KeptChange, Table, Write},
    key::{Key, KeyRange},
    record::{Head, Record, RecordRef},
    version::{Stamp, Version},
};

use crate::name;

const STATE: u8 = b'a';
const CONTESTED: u8 = b'c';
const QUEUE: u8 = b'q';
const USER: u8 = b'u';

/// Contested versions that are read at a time when a store is opened.
const READ_ROWS: usize = 1_000;

/// What is to be done with a version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Task {
    /// It goes to the server. With `is_newest` it is later than anything that was ever stored of its
    /// key, so no other put there can have its timestamp.
    Put { is_newest: bool },
    /// It goes from the server.
    Forget,
}

/// A task and its place in the queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub serial: u64,
    pub task: Task,
    pub key: Key,
    pub version: Version,
    /// What it counts for in the backlog.
    pub bytes: u32,
}

/// What became of an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// The server has it (or no longer has it): the local row goes.
    Done,
    /// The local row stays, because the server cannot do this.
    Kept,
    /// The server refuses it for good: it stays readable here, and is told.
    Refused(Record),
}

/// What is known of the queue. Whoever commits to the local store holds it.
#[derive(Debug, Default)]
pub(crate) struct Spool {
    /// The serial that the next entry gets.
    pub next: u64,
    /// Entries that wait.
    pub entries: u64,
    /// What they count for.
    pub bytes: u64,
    /// The last entry about each version that has several, by [`place`].
    contested: HashMap<Vec<u8>, u64>,
}

/// A batch as it goes to the local store, and what the spool is when it has gone.
pub(crate) struct Plan<'a> {
    pub writes: Vec<Write<'a>>,
    next: u64,
    entries: u64,
    bytes: u64,
    contested: Vec<(Vec<u8>, u64)>,
}

/// The record that says that a version is to be forgotten. No other is folded by nothing.
pub(crate) const fn mask(version: Version) -> RecordRef<'static> {
    RecordRef {
        head: Head {
            own: version,
            folded: Some(Version::ZERO),
        },
        value: None,
        merged: None,
    }
}

/// Whether a history row of the local store is a [`mask`].
pub(crate) fn is_mask(head: Head) -> bool {
    head.folded == Some(Version::ZERO)
}

/// The row of the local store that a row of the user's [`Table::Spool`] is.
pub(crate) fn user_row(key: &[u8]) -> Vec<u8> {
    [&[USER], key].concat()
}

/// The inverse of [`user_row`]; `None` for a row of ours.
pub(crate) fn of_user_row(row: &[u8]) -> Option<&[u8]> {
    row.strip_prefix(&[USER])
}

/// The row of the local store that an entry is.
pub(crate) fn queue_row(serial: u64) -> Vec<u8> {
    [&[QUEUE][..], &serial.to_be_bytes()].concat()
}

/// The one history row of a version, if the snapshot has it.
pub(crate) fn local_row(
    snapshot: &dyn Snapshot,
    key: &Key,
    version: Version,
) -> Result<Option<Record>> {
    let range = KeyRange::only(key);
    let mut rows = snapshot.history(&range, Some((version, version)), Direction::Forward);
    Ok(rows.next().transpose()?.map(|(_, record)| record))
}

/// A version of a key, as bytes.
fn place(key: &Key, version: Version) -> Vec<u8> {
    let mut place = vec![CONTESTED];
    key.order_into(&mut place);
    place.push(0);
    place.extend(version.to_bytes());
    place
}

impl Entry {
    /// Task, bytes (u32), version, key in ordered form.
    fn encode(&self) -> Vec<u8> {
        let task = match self.task {
            Task::Put { is_newest: true } => 0,
            Task::Put { is_newest: false } => 1,
            Task::Forget => 2,
        };
        let mut out = vec![task];
        out.extend(self.bytes.to_be_bytes());
        out.extend(self.version.to_bytes());
        self.key.order_into(&mut out);
        out
    }

    /// The inverse of [`Entry::encode`], with the row's key.
    pub(crate) fn decode(row: &[u8], value: &[u8]) -> Option<Self> {
        let serial = row.strip_prefix(&[QUEUE])?.try_into().ok()?;
        let (task, rest) = value.split_first()?;
        let (bytes, rest) = rest.split_first_chunk::<4>()?;
        let (version, key) = rest.split_at_checked(Version::LEN)?;
        Some(Self {
            serial: u64::from_be_bytes(serial),
            task: match task {
                0 => Task::Put { is_newest: true },
                1 => Task::Put { is_newest: false },
                2 => Task::Forget,
                _ => return None,
            },
            key: Key::from_ordered(key)?,
            version: Version::from_bytes(version)?,
            bytes: u32::from_be_bytes(*bytes),
        })
    }

    /// Whether a row can be an entry.
    pub(crate) fn is_row(row: &[u8]) -> bool {
        row.first() == Some(&QUEUE)
    }
}

impl Spool {
    /// What a local store was left with.
    ///
    /// # Errors
    /// Any of the store; [`ErrorKind::Corrupt`] if its rows are not of this format.
    pub(crate) fn load(local: &dyn Store) -> Result<Self> {
        let corrupt = || {
            let message = "the local store's spool is not of this release: remove nothing, go back to the release that wrote it";
            Error::new(ErrorKind::Corrupt, message)
        };
        let number = |bytes: &[u8], at: usize| {
            let bytes = bytes.get(at..at + 8)?.try_into().ok()?;
            Some(u64::from_be_bytes(bytes))
        };
        let mut spool = Self {
            next: 1,
            ..Self::default()
        };
        let state = local.rows(Table::Spool, &[STATE], 1)?;
        if let Some((_, state)) = state.iter().find(|(row, _)| *row == [STATE]) {
            let parts = [0, 8, 16].map(|at| number(state, at));
            let [Some(next), Some(entries), Some(bytes)] = parts else {
                return Err(corrupt());
            };
            (spool.next, spool.entries, spool.bytes) = (next, entries, bytes);
        }
        let mut from = vec![CONTESTED];
        loop {
            let rows = local.rows(Table::Spool, &from, READ_ROWS)?;
            let count = rows.len();
            for (row, value) in rows {
                if row.first() != Some(&CONTESTED) {
                    return Ok(spool);
                }
                from.clone_from(&row);
                from.push(0);
                let serial = number(&value, 0).ok_or_else(corrupt)?;
                spool.contested.insert(row, serial);
            }
            if count < READ_ROWS {
                return Ok(spool);
            }
        }
    }

    /// What a batch becomes.
    ///
    /// # Errors
    /// [`ErrorKind::Rejected`] if the server cannot hold a key of it, [`ErrorKind::Full`] if more would
    /// wait than `bytes_max`, any of the local store.
    pub(crate) fn plan<'a>(
        &self,
        local: &dyn Store,
        batch: &[Write<'a>],
        bytes_max: u64,
    ) -> Result<Plan<'a>> {
        let mut planner = Planner {
            local,
            snapshot: None,
            newest: newest(local, batch)?,
            contested: &self.contested,
            plan: Plan {
                writes: Vec::with_capacity(batch.len() * 2 + 1),
                next: self.next,
                entries: self.entries,
                bytes: self.bytes,
                contested: Vec::new(),
            },
        };
        let last = last_words(batch)?;
        let is_last =
            |index: usize, key: &'a Key, version| last.get(&(&**key, version)) == Some(&index);
        for (index, write) in batch.iter().enumerate() {
            match write {
                Write::History { key, record } if is_last(index, key, record.head.own) => {
                    planner.put(key, *record)?;
                }
                Write::ForgetHistory { key, version } if is_last(index, key, *version) => {
                    planner.forget(key, *version)?;
                }
                Write::History { .. } | Write::ForgetHistory { .. } => {}
                Write::Row {
                    table: Table::Spool,
                    key,
                    value,
                } => planner.plan.writes.push(Write::Row {
                    table: Table::Spool,
                    key: user_row(key),
                    value: value.clone(),
                }),
                Write::Latest { .. } | Write::ForgetLatest { .. } | Write::Row { .. } => {
                    planner.plan.writes.push(write.clone());
                }
            }
        }
        let mut plan = planner.plan;
        if plan.next > self.next {
            let has_puts =
                plan.bytes > bytes_max && batch.iter().any(|w| matches!(w, Write::History { .. }));
            if has_puts {
                let message = format!("{} bytes wait for InfluxDB, and no more may", self.bytes);
                return Err(Error::new(ErrorKind::Full, message));
            }
            plan.writes
                .push(state_row(plan.next, plan.entries, plan.bytes));
        }
        Ok(plan)
    }

    /// A plan was committed.
    pub(crate) fn planned(&mut self, plan: &mut Plan<'_>) {
        (self.next, self.entries, self.bytes) = (plan.next, plan.entries, plan.bytes);
        self.contested.extend(plan.contested.drain(..));
    }

    /// Whether nothing was said about the version after this entry.
    pub(crate) fn is_last(&self, entry: &Entry) -> bool {
        let last = self.contested.get(&place(&entry.key, entry.version));
        last.is_none_or(|last| *last == entry.serial)
    }

    /// The batch that takes finished entries out of the local store.
    pub(crate) fn finish<'a>(&self, entries: &'a [(Entry, Outcome)]) -> Vec<Write<'a>> {
        let mut writes = Vec::with_capacity(entries.len() * 2 + 1);
        let (mut left, mut bytes) = (self.entries, self.bytes);
        for (entry, outcome) in entries {
            let gone = |key| Write::Row {
                table: Table::Spool,
                key,
                value: None,
            };
            writes.push(gone(queue_row(entry.serial)));
            left = left.saturating_sub(1);
            bytes = bytes.saturating_sub(entry.bytes.into());
            if !self.is_last(entry) {
                // A later entry needs the row.
                continue;
            }
            let place = place(&entry.key, entry.version);
            if self.contested.contains_key(&place) {
                writes.push(gone(place));
            }
            match outcome {
                Outcome::Done => writes.push(Write::ForgetHistory {
                    key: &entry.key,
                    version: entry.version,
                }),
                Outcome::Kept => {}
                Outcome::Refused(record) => {
                    let change = KeptChange::Key(Change {
                        key: entry.key.clone(),
                        stamp: Some(entry.version.stamp),
                        value: record.value.clone(),
                    });
                    writes.push(Write::Row {
                        table: Table::Quarantine,
                        key: change.row_key(),
                        value: Some(change.encode()),
                    });
                }
            }
        }
        writes.push(state_row(self.next, left, bytes));
        writes
    }

    /// The batch of [`Spool::finish`] was committed.
    pub(crate) fn finished(&mut self, entries: &[(Entry, Outcome)]) {
        for (entry, _) in entries {
            self.entries = self.entries.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(entry.bytes.into());
            if let Slot::Occupied(slot) = self.contested.entry(place(&entry.key, entry.version))
                && *slot.get() == entry.serial
            {
                slot.remove();
            }
        }
    }
}

struct Planner<'p, 'a> {
    local: &'p dyn Store,
    snapshot: Option<Box<dyn Snapshot + 'p>>,
    /// The newest stamp of each key that the batch writes and the store holds.
    newest: HashMap<&'a str, Stamp>,
    contested: &'p HashMap<Vec<u8>, u64>,
    plan: Plan<'a>,
}

impl<'a> Planner<'_, 'a> {
    fn put(&mut self, key: &'a Key, record: RecordRef<'a>) -> Result<()> {
        let version = record.head.own;
        let mut is_newest = false;
        if let Some(newest) = self.newest.get_mut(&**key) {
            is_newest = version.stamp > *newest;
            *newest = version.stamp.max(*newest);
        }
        let held = if is_newest {
            None
        } else {
            self.held(key, version)?
        };
        match held {
            // It waits already: the same version again changes nothing.
            Some(held) if !is_mask(held.head) => return Ok(()),
            held => self.push(
                key,
                version,
                record,
                Task::Put { is_newest },
                held.is_some(),
            ),
        }
        Ok(())
    }

    fn forget(&mut self, key: &'a Key, version: Version) -> Result<()> {
        match self.held(key, version)? {
            Some(held) if is_mask(held.head) => {}
            held => self.push(key, version, mask(version), Task::Forget, held.is_some()),
        }
        Ok(())
    }

    fn push(
        &mut self,
        key: &'a Key,
        version: Version,
        record: RecordRef<'a>,
        task: Task,
        is_held: bool,
    ) {
        let payload = record.value.map_or(0, weir_core::value::Value::len);
        // Row keys, heads and lengths beside the key (twice) and the payload.
        let bytes = u32::try_from(payload + 2 * key.len() + 160).unwrap_or(u32::MAX);
        let entry = Entry {
            serial: self.plan.next,
            task,
            key: key.clone(),
            version,
            bytes,
        };
        let row = |key, value| Write::Row {
            table: Table::Spool,
            key,
            value: Some(value),
        };
        if is_held {
            // A history row that is there is not written again: it goes first.
            self.plan.writes.push(Write::ForgetHistory { key, version });
        }
        self.plan.writes.push(Write::History { key, record });
        self.plan
            .writes
            .push(row(queue_row(entry.serial), entry.encode()));
        let place = place(key, version);
        if is_held || self.contested.contains_key(&place) {
            let serial = entry.serial.to_be_bytes().to_vec();
            self.plan.writes.push(row(place.clone(), serial));
            self.plan.contested.push((place, entry.serial));
        }
        self.plan.next += 1;
        self.plan.entries += 1;
        self.plan.bytes += u64::from(bytes);
    }

    fn held(&mut self, key: &Key, version: Version) -> Result<Option<Record>> {
        let snapshot = match self.snapshot.take() {
            Some(snapshot) => snapshot,
            None => self.local.snapshot()?,
        };
        local_row(&**self.snapshot.insert(snapshot), key, version)
    }
}

/// The newest stamps that the store holds of the keys whose history a batch adds to. One batched read.
fn newest<'a>(local: &dyn Store, batch: &[Write<'a>]) -> Result<HashMap<&'a str, Stamp>> {
    let mut seen: HashMap<&'a str, ()> = HashMap::new();
    let mut keys: Vec<&'a Key> = Vec::new();
    for write in batch {
        if let Write::History { key, .. } = write
            && seen.insert(&***key, ()).is_none()
        {
            keys.push(key);
        }
    }
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let heads = keys.iter().zip(local.heads(&keys)?);
    let stamps = heads.filter_map(|(key, head)| Some((&***key, head?.own.stamp)));
    Ok(stamps.collect())
}

/// Where in a batch the last word about each version is said.
fn last_words<'a>(batch: &[Write<'a>]) -> Result<HashMap<(&'a str, Version), usize>> {
    let mut last = HashMap::new();
    for (index, write) in batch.iter().enumerate() {
        let (key, version) = match write {
            Write::History { key, record } => (*key, record.head.own),
            Write::ForgetHistory { key, version } => (*key, *version),
            _ => continue,
        };
        if name::of(key).is_none() {
            let message = format!("a key of {} bytes is longer than InfluxDB takes", key.len());
            return Err(Error::new(ErrorKind::Rejected, message));
        }
        last.insert((&**key, version), index);
    }
    Ok(last)
}

fn state_row(next: u64, entries: u64, bytes: u64) -> Write<'static> {
    Write::Row {
        table: Table::Spool,
        key: vec![STATE],
        value: Some([next, entries, bytes].map(u64::to_be_bytes).concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back() {
        let stamp = Stamp {
            time: 7,
            id: [1; 16],
        };
        for task in [
            Task::Put { is_newest: true },
            Task::Put { is_newest: false },
            Task::Forget,
        ] {
            let entry = Entry {
                serial: 258,
                task,
                key: Key::from("a/\u{1}b"),
                version: Version::put(stamp, 9),
                bytes: 77,
            };
            let (row, value) = (queue_row(entry.serial), entry.encode());
            assert_eq!(Entry::decode(&row, &value), Some(entry));
            for cut in 0..5 + Version::LEN {
                assert_eq!(Entry::decode(&row, &value[..cut]), None);
            }
        }
    }
}
