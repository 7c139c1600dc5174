//! What a shard remembers across a restart, read back from a store's rows.

use std::ops::ControlFlow;

use bytes::Bytes;
use weir_core::{
    admission::Memory,
    change::{KeptChange, Table, Write},
    identity::Identity,
    membership::{Member, Members},
    version::Version,
    wildcard::WildcardJournal,
};

use crate::{Durability, Error, ErrorKind, Result, Store};

/// Rows read at a time.
const PAGE_ROWS: usize = 1024;

/// What an [`Admitter`](weir_core::admission::Admitter) over this store was before it was closed. An
/// empty store remembers nothing. Costs a read for each mark and for each 1024 wildcard operations.
///
/// # Errors
/// Any of the store; [`ErrorKind::Corrupt`] if a row is not what it should be.
pub fn memory(store: &dyn Store) -> Result<Memory> {
    Ok(Memory {
        newest: version(store, Memory::NEWEST)?,
        horizon: version(store, Memory::HORIZON)?,
        folded_through: version(store, Memory::FOLDED_THROUGH)?,
        floor: time(store, Memory::FLOOR)?.unwrap_or_default(),
        garbage: time(store, Memory::GARBAGE)?,
        position: position(store)?,
        journal: journal(store)?,
    })
}

/// Which store this is, and how much was committed to it; `None` if it was never opened to be written to
/// by who gives ids. Costs two reads.
///
/// # Errors
/// Any of the store; [`ErrorKind::Corrupt`] if a row is not what it should be.
pub fn identity(store: &dyn Store) -> Result<Option<Identity>> {
    let Some(row) = mark(store, Identity::ROW)? else {
        return Ok(None);
    };
    // After the row: of a batch that is committed meanwhile it may tell, of none that is not.
    let identity = Identity::decode(&row, position(store)?);
    let identity = identity.ok_or_else(|| corrupt(Identity::ROW, "not an identity"))?;
    Ok(Some(identity))
}

/// Begins another run of a store that is opened to be written to, as durably as it can; `chance` makes
/// what is drawn.
///
/// # Errors
/// Any of the store.
pub fn begin_run(store: &dyn Store, chance: u128) -> Result<Identity> {
    let next = Identity::next(identity(store)?, position(store)?, chance);
    let row = Write::Row {
        table: Table::System,
        key: Identity::ROW.to_vec(),
        value: Some(next.encode()),
    };
    store.commit(&[row], Durability::Synced)?;
    Ok(next)
}

/// The replicas that a storage knows of, as it was left at the last start before `now` (NTP64), with
/// the margin of [`Members`]. Costs a read for each 1024.
///
/// # Errors
/// Any of the store.
pub fn members(store: &dyn Store, margin: u64, now: u64) -> Result<Members> {
    let mut members = Vec::new();
    each_row(store, Table::System, Member::first_row(), |key, value| {
        match Member::decode(&key, &value) {
            Some(member) => {
                members.push(member);
                Ok(ControlFlow::Continue(()))
            }
            // Behind the last.
            None => Ok(ControlFlow::Break(())),
        }
    })?;
    Ok(Members::new(members, margin, now))
}

/// Reads the rows of a table from one on, in order, a page at a time, until told to stop.
pub(crate) fn each_row(
    store: &dyn Store,
    table: Table,
    mut from: Vec<u8>,
    mut each: impl FnMut(Vec<u8>, Vec<u8>) -> Result<ControlFlow<()>>,
) -> Result<()> {
    loop {
        let rows = store.rows(table, &from, PAGE_ROWS)?;
        let is_last = rows.len() < PAGE_ROWS;
        if let Some((last, _)) = rows.last() {
            from.clone_from(last);
            // The next page begins with the smallest key above the last one.
            from.push(0);
        }
        for (key, value) in rows {
            if each(key, value)?.is_break() {
                return Ok(());
            }
        }
        if is_last {
            return Ok(());
        }
    }
}

fn version(store: &dyn Store, name: &'static [u8]) -> Result<Version> {
    let Some(value) = mark(store, name)? else {
        return Ok(Version::ZERO);
    };
    Version::from_bytes(&value).ok_or_else(|| corrupt(name, "not a version"))
}

fn position(store: &dyn Store) -> Result<u64> {
    time(store, Identity::POSITION).map(Option::unwrap_or_default)
}

fn time(store: &dyn Store, name: &'static [u8]) -> Result<Option<u64>> {
    let Some(value) = mark(store, name)? else {
        return Ok(None);
    };
    let bytes = value.as_slice().try_into();
    let bytes = bytes.map_err(|_| corrupt(name, "not a number"))?;
    Ok(Some(u64::from_be_bytes(bytes)))
}

fn mark(store: &dyn Store, name: &'static [u8]) -> Result<Option<Vec<u8>>> {
    let mut rows = store.rows(Table::System, name, 1)?;
    Ok(rows
        .pop()
        .filter(|(key, _)| key == name)
        .map(|(_, value)| value))
}

fn journal(store: &dyn Store) -> Result<WildcardJournal> {
    let mut journal = WildcardJournal::default();
    each_row(store, Table::Wildcards, Vec::new(), |key, value| {
        let Some(KeptChange::Wildcard(change)) = KeptChange::decode(&Bytes::from(value)) else {
            return Err(corrupt(&key, "not a wildcard operation"));
        };
        // A change at rest is always stamped.
        let stamp = change.stamp.unwrap_or_default();
        journal.insert(change.into_op(stamp));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(journal)
}

fn corrupt(row: &[u8], what: &str) -> Error {
    let message = format!("row `{}` is {what}", row.escape_ascii());
    Error::new(ErrorKind::Corrupt, message)
}
