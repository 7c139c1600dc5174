//! One write of a batch: what becomes of the key's file and of its rows in the index.

use std::path::PathBuf;

use redb::ReadableTable;
use weir_backend_api::{Error, Result};
use weir_core::{
    change::{Table, Write},
    key::Key,
    record::RecordRef,
    value::Value,
    version::Version,
};

use crate::{
    files::{Files, Staged},
    index::{RowsMut, Tables, failed},
    names,
    row::{FileId, Place, Row},
    store::Step,
};

/// Changes files and rows together.
pub struct LatestChange<'a> {
    pub files: &'a Files,
    /// Bytes of all payloads in files.
    pub bytes: u64,
    /// Files that were replaced.
    pub kept: &'a mut Vec<PathBuf>,
}

impl LatestChange<'_> {
    /// Sets what a key holds.
    pub fn set(
        &mut self,
        rows: &mut RowsMut<'_>,
        key: &Key,
        record: RecordRef<'_>,
        id: FileId,
        staged: Option<Staged>,
        mut step: impl FnMut(Step),
    ) -> Result<()> {
        let ordered = key.ordered();
        self.keep(rows, key, &ordered)?;
        step(Step::Kept);
        let row = match (record.value, names::path_of(key)) {
            (None, None) => Row::tombstone(id),
            (None, Some(path)) => {
                let mut row = Row::tombstone(id);
                if let Err(error) = self.files.withdraw(path) {
                    tracing::warn!(%key, %error, "cannot remove the file of a deleted key");
                    // What is there now is not by hand.
                    row.stat = self.files.stat(path).ok().flatten().unwrap_or_default();
                }
                row
            }
            (Some(value), path) => self.place(key, value, path.zip(staged), id),
        };
        step(Step::Moved);
        if row.place == Place::File {
            self.bytes += row.len;
        }
        let bytes = row.encode(record);
        rows.insert(&*ordered, &*bytes).map_err(failed)?;
        Ok(())
    }

    /// Puts a value in its file; where that cannot be done, it stays in the row.
    fn place(&self, key: &Key, value: &Value, staged: Option<(&str, Staged)>, id: FileId) -> Row {
        let row = Row::here(id, &value.payload);
        let Some((path, staged)) = staged else {
            return row;
        };
        let stat = staged.stat;
        match self.files.publish(staged, path) {
            Ok(()) => row.in_file(stat),
            Err(error) => {
                tracing::warn!(%key, %error, "the value is kept in the index, not in a file");
                row
            }
        }
    }

    /// Forgets a key.
    pub fn forget(&mut self, rows: &mut RowsMut<'_>, key: &Key) -> Result<()> {
        let ordered = key.ordered();
        self.keep(rows, key, &ordered)?;
        if let Some(path) = names::path_of(key)
            && let Err(error) = self.files.withdraw(path)
        {
            tracing::warn!(%key, %error, "cannot remove the file of a forgotten key");
        }
        rows.remove(&*ordered).map_err(failed)?;
        Ok(())
    }

    /// Keeps what the key's row stands for, for those who read it.
    fn keep(&mut self, rows: &RowsMut<'_>, key: &Key, ordered: &[u8]) -> Result<()> {
        let row = rows.get(ordered).map_err(failed)?;
        let row = row.map(|row| Row::decode(row.value())).transpose()?;
        let (Some(row), Some(path)) = (row, names::path_of(key)) else {
            return Ok(());
        };
        if row.place == Place::File {
            self.bytes = self.bytes.saturating_sub(row.len);
            let kept = self.files.keep(path, row.id);
            let kept = kept.map_err(|e| Error::io(format!("cannot keep the file of {key}"), e))?;
            self.kept.extend(kept);
        }
        Ok(())
    }
}

/// Writes what has no file.
pub fn write_row(tables: &mut Tables<'_>, write: &Write<'_>) -> Result<()> {
    match write {
        Write::Latest { .. } | Write::ForgetLatest { .. } => {}
        Write::History { key, record } => {
            let row = history_row(key, record.head.own.to_bytes());
            let record = record.encode();
            tables.history.insert(&*row, &*record).map_err(failed)?;
        }
        Write::ForgetHistory { key, version } => {
            let row = history_row(key, version.to_bytes());
            tables.history.remove(&*row).map_err(failed)?;
        }
        Write::Row { table, key, value } => {
            let row = table_row(*table, key);
            match value {
                Some(value) => tables.tables.insert(&*row, &**value),
                None => tables.tables.remove(&*row),
            }
            .map_err(failed)?;
        }
    }
    Ok(())
}

fn history_row(key: &Key, version: [u8; Version::LEN]) -> Vec<u8> {
    let mut row = key.ordered();
    row.push(0);
    row.extend(version);
    row
}

/// The index's key of a row of one of the core's tables.
pub fn table_row(table: Table, key: &[u8]) -> Vec<u8> {
    [&[table as u8], key].concat()
}
