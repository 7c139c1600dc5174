//! An ordered map of rows that remembers what its readers can still see.
//!
//! Every batch has a number, and a snapshot is the number of the last batch before it. A row holds
//! its current record and since which batch; when that is overwritten, the old record stays behind it
//! only if a living snapshot can see it. **Invariant:** each past record is on the list of the newest
//! living snapshot that sees it (see [`crate::state`]), and on no other.

use std::{collections::BTreeMap, mem, sync::Arc};

use crate::{kept::Kept, scan::Cursor};

/// The bytes that order a row. Shared with the lists of past records.
pub(crate) type RowKey = Arc<[u8]>;

/// Rows by key, each with as many records as its readers need.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    rows: BTreeMap<RowKey, Entry>,
    /// Rows whose current record is there.
    present: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Entry {
    current: Held,
    /// Oldest first.
    past: Vec<Held>,
}

/// What a row holds from a batch on; `None` if it is not there.
#[derive(Debug)]
struct Held {
    since: u64,
    record: Option<Kept>,
}

/// What [`Layer::set`] left behind.
#[must_use]
pub(crate) enum Left {
    /// Nothing that anybody could see.
    Nothing,
    /// A past record in this row, which the newest snapshot sees.
    Past(RowKey),
}

impl Layer {
    /// How many rows there are.
    pub(crate) const fn len(&self) -> u64 {
        self.present
    }

    /// Bytes of keys, records and values, past ones included; what the map and the allocator add is
    /// not known.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The current record of a row.
    pub(crate) fn get(&self, row: &[u8]) -> Option<&Kept> {
        self.rows.get(row)?.current.record.as_ref()
    }

    /// The record of a row that snapshot `at` sees.
    pub(crate) fn get_at(&self, row: &[u8], at: u64) -> Option<&Kept> {
        self.rows.get(row)?.at(at)
    }

    /// Sets a row in batch `now`, or removes it. `newest` is the newest living snapshot.
    pub(crate) fn set(
        &mut self,
        row: &[u8],
        record: Option<Kept>,
        now: u64,
        newest: Option<u64>,
    ) -> Left {
        let next = Held { since: now, record };
        let Some(entry) = self.rows.get_mut(row) else {
            if next.record.is_some() {
                self.present += 1;
                self.bytes += row.len() as u64 + next.bytes();
                let entry = Entry {
                    current: next,
                    past: Vec::new(),
                };
                self.rows.insert(RowKey::from(row), entry);
            }
            return Left::Nothing;
        };
        self.present += u64::from(next.record.is_some());
        self.present -= u64::from(entry.current.record.is_some());
        self.bytes += next.bytes();
        let last = mem::replace(&mut entry.current, next);
        // Every snapshot is older than this batch, so the newest one decides.
        if newest.is_some_and(|newest| newest >= last.since) {
            entry.past.push(last);
            let key = self.rows.get_key_value(row).map(|(key, _)| key.clone());
            return key.map_or(Left::Nothing, Left::Past);
        }
        self.bytes -= last.bytes();
        if entry.is_gone() {
            self.remove(row);
        }
        Left::Nothing
    }

    /// Forgets the record of a row that snapshot `at` saw, which lives no longer, unless the newest
    /// older one of the living, `older`, sees it too: then it says so.
    pub(crate) fn release(&mut self, row: &[u8], at: u64, older: Option<u64>) -> bool {
        let Some(entry) = self.rows.get_mut(row) else {
            return false;
        };
        let behind = entry.past.partition_point(|held| held.since <= at);
        let Some(index) = behind.checked_sub(1) else {
            return false;
        };
        if older.is_some_and(|older| older >= entry.past[index].since) {
            return true;
        }
        self.bytes -= entry.past.remove(index).bytes();
        if entry.past.is_empty() {
            entry.past = Vec::new();
        }
        if entry.is_gone() {
            self.remove(row);
        }
        false
    }

    /// Moves the cursor over at most `rows_max` rows and appends those that snapshot `at` sees.
    pub(crate) fn scan(
        &self,
        cursor: &mut Cursor,
        at: u64,
        rows_max: usize,
        out: &mut Vec<(RowKey, Kept)>,
    ) {
        let mut visited = 0;
        while visited < rows_max {
            let Some(range) = cursor.range() else { return };
            let mut range = self.rows.range::<[u8], _>(range);
            loop {
                let next = if cursor.is_forward() {
                    range.next()
                } else {
                    range.next_back()
                };
                let Some((key, entry)) = next else {
                    cursor.finish();
                    return;
                };
                visited += 1;
                if cursor.skip(key) {
                    // It leaps over the versions that nobody asked for: look again from there.
                    break;
                }
                if let Some(record) = entry.at(at) {
                    out.push((key.clone(), record.clone()));
                }
                if visited >= rows_max {
                    cursor.pass(key);
                    return;
                }
            }
        }
    }

    /// Records that only snapshots see.
    #[cfg(test)]
    pub(crate) fn past(&self) -> usize {
        self.rows.values().map(|entry| entry.past.len()).sum()
    }

    fn remove(&mut self, row: &[u8]) {
        if let Some(entry) = self.rows.remove(row) {
            self.bytes -= row.len() as u64 + entry.current.bytes();
        }
    }
}

impl Entry {
    fn at(&self, at: u64) -> Option<&Kept> {
        if self.current.since <= at {
            return self.current.record.as_ref();
        }
        let behind = self.past.partition_point(|held| held.since <= at);
        self.past[..behind].last()?.record.as_ref()
    }

    fn is_gone(&self) -> bool {
        self.current.record.is_none() && self.past.is_empty()
    }
}

impl Held {
    fn bytes(&self) -> u64 {
        (size_of::<Self>() + self.record.as_ref().map_or(0, Kept::bytes)) as u64
    }
}
