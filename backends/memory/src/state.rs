//! What a store holds, and for whom.

use std::{collections::BTreeMap, mem};

use weir_core::change::{Table, Write};

use crate::{
    kept::Kept,
    layer::{Layer, Left, RowKey},
    scan::history_row,
};

/// Which rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The latest record of each key.
    Latest,
    /// Every version of each key.
    History,
}

/// Everything that a store holds.
#[derive(Debug, Default)]
pub(crate) struct State {
    latest: Layer,
    history: Layer,
    tables: [BTreeMap<Vec<u8>, Vec<u8>>; Table::ALL.len()],
    table_bytes: u64,
    /// The last batch.
    batch: u64,
    /// The living snapshots, by the last batch that they see.
    readers: BTreeMap<u64, Readers>,
    /// A row.
    scratch: Vec<u8>,
    /// A record.
    packing: Vec<u8>,
}

/// The snapshots of one moment.
#[derive(Debug, Default)]
struct Readers {
    count: usize,
    past: Past,
}

/// Rows with a record that only the past sees.
#[derive(Debug, Default)]
pub(crate) struct Past {
    rows: Vec<(Kind, RowKey)>,
}

impl State {
    pub(crate) const fn layer(&self, kind: Kind) -> &Layer {
        match kind {
            Kind::Latest => &self.latest,
            Kind::History => &self.history,
        }
    }

    pub(crate) const fn table(&self, table: Table) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.tables[index(table)]
    }

    /// Bytes of everything held.
    pub(crate) const fn bytes(&self) -> u64 {
        self.latest.bytes() + self.history.bytes() + self.table_bytes
    }

    /// Applies a batch. It cannot fail half-way, and nobody reads meanwhile.
    pub(crate) fn apply(&mut self, batch: &[Write<'_>]) {
        self.batch += 1;
        let mut row = mem::take(&mut self.scratch);
        let mut packing = mem::take(&mut self.packing);
        for write in batch {
            row.clear();
            match write {
                Write::Latest { key, record } => {
                    key.order_into(&mut row);
                    let kept = Kept::new(record, &mut packing);
                    self.set(Kind::Latest, &row, Some(kept));
                }
                Write::ForgetLatest { key } => {
                    key.order_into(&mut row);
                    self.set(Kind::Latest, &row, None);
                }
                Write::History { key, record } => {
                    history_row(key, record.head.own, &mut row);
                    if self.history.get(&row).is_none() {
                        let kept = Kept::new(record, &mut packing);
                        self.set(Kind::History, &row, Some(kept));
                    }
                }
                Write::ForgetHistory { key, version } => {
                    history_row(key, *version, &mut row);
                    self.set(Kind::History, &row, None);
                }
                Write::Row { table, key, value } => self.set_row(*table, key, value.as_deref()),
            }
        }
        self.scratch = row;
        self.packing = packing;
    }

    /// A new snapshot of this moment.
    pub(crate) fn enter(&mut self) -> u64 {
        self.readers.entry(self.batch).or_default().count += 1;
        self.batch
    }

    /// A snapshot is dropped: what only it could see, to be given to [`State::release`].
    pub(crate) fn leave(&mut self, at: u64) -> Past {
        let Some(readers) = self.readers.get_mut(&at) else {
            return Past::default();
        };
        readers.count -= 1;
        if readers.count > 0 {
            return Past::default();
        }
        let readers = self.readers.remove(&at);
        readers.map_or_else(Past::default, |readers| readers.past)
    }

    /// Forgets at most `rows_max` of what only the snapshots of `at` saw; `false` when all is done.
    pub(crate) fn release(&mut self, at: u64, past: &mut Past, rows_max: usize) -> bool {
        let keep = past.rows.len().saturating_sub(rows_max);
        for (kind, row) in past.rows.drain(keep..) {
            let mut older = self.readers.range_mut(..at).next_back();
            let layer = match kind {
                Kind::Latest => &mut self.latest,
                Kind::History => &mut self.history,
            };
            let seen = layer.release(&row, at, older.as_ref().map(|(older, _)| **older));
            if let (true, Some((_, readers))) = (seen, older.take()) {
                readers.past.rows.push((kind, row));
            }
        }
        !past.rows.is_empty()
    }

    fn set(&mut self, kind: Kind, row: &[u8], record: Option<Kept>) {
        let mut newest = self.readers.last_entry();
        let layer = match kind {
            Kind::Latest => &mut self.latest,
            Kind::History => &mut self.history,
        };
        let left = layer.set(row, record, self.batch, newest.as_ref().map(|n| *n.key()));
        if let (Left::Past(row), Some(readers)) = (left, newest.as_mut()) {
            readers.get_mut().past.rows.push((kind, row));
        }
    }

    fn set_row(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) {
        let rows = &mut self.tables[index(table)];
        let Some(value) = value else {
            if let Some(last) = rows.remove(key) {
                self.table_bytes -= (key.len() + last.len()) as u64;
            }
            return;
        };
        self.table_bytes += value.len() as u64;
        if let Some(held) = rows.get_mut(key) {
            self.table_bytes -= held.len() as u64;
            value.clone_into(held);
        } else {
            self.table_bytes += key.len() as u64;
            rows.insert(key.to_vec(), value.to_vec());
        }
    }
}

const fn index(table: Table) -> usize {
    // The first table's number is 1.
    table as usize - 1
}

#[cfg(test)]
mod tests;
