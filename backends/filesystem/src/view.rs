//! The store at one moment: rows of the index, payloads of the files, and files that somebody put
//! there, changed or removed by hand.
//!
//! A file by hand counts as a put: its version has the file's time, but at least the time after the
//! version that it replaces, so that it is newer. A file removed by hand counts as a delete without a
//! stamp: its version is the tombstone of the version that was in it.

use std::{io, sync::Arc};

use bytes::Bytes;
use weir_backend_api::{Direction, Error, ErrorKind, Result, Rows, Snapshot};
use weir_core::{
    key::{Key, KeyRange},
    record::{Head, Record},
    value::Value,
    version::{Stamp, Version},
};

use crate::{
    files::{Files, Found},
    index::{Index, Reading, failed},
    mime, names,
    readers::{Pin, Readers},
    row::{FileId, Place, Row},
    scan,
};

/// What the writer and its readers share.
#[derive(Debug)]
pub struct Shared {
    /// The files.
    pub files: Files,
    /// The index.
    pub index: Index,
    /// Who reads.
    pub readers: Arc<Readers>,
}

/// One state of the store.
pub struct View {
    shared: Arc<Shared>,
    reading: Reading,
    /// Dropped after the reading.
    _pin: Pin,
}

/// The id in the stamp of a file by hand, as in the stock backend.
const BY_HAND: [u8; 16] = {
    let mut id = [0; 16];
    id[0] = 1;
    id
};

impl View {
    /// The state now.
    pub fn new(shared: &Arc<Shared>) -> Result<Self> {
        let (reading, pin) = shared.readers.begin(&shared.index)?;
        Ok(Self {
            shared: Arc::clone(shared),
            reading,
            _pin: pin,
        })
    }

    /// The index of this state.
    pub const fn reading(&self) -> &Reading {
        &self.reading
    }

    /// The files.
    pub fn files(&self) -> &Files {
        &self.shared.files
    }

    /// The versions of what a key holds. Costs a look at the file, and reads it only if it is not
    /// as we left it.
    pub fn head(&self, key: &Key) -> Result<Option<Head>> {
        let Some(bytes) = self.row(key)? else {
            return Ok(self.by_hand(key, None)?.map(|record| record.head));
        };
        let bytes = bytes.value();
        let row = Row::decode(bytes)?;
        let untouched = match (row.place, names::path_of(key)) {
            (Place::Here, _) | (_, None) => true,
            (Place::Nowhere | Place::File, Some(path)) => {
                let stat = self.files().stat(path).map_err(|e| unreadable(key, e))?;
                stat.map_or(row.place == Place::Nowhere, |stat| stat == row.stat)
            }
        };
        if untouched {
            Row::head(bytes).map(Some)
        } else {
            self.record(key, bytes).map(|record| Some(record.head))
        }
    }

    /// The record of a key whose row is `bytes`.
    pub fn record(&self, key: &Key, bytes: &[u8]) -> Result<Record> {
        let row = Row::decode(bytes)?;
        let mut record = Row::record(bytes)?;
        let Some(path) = names::path_of(key) else {
            return Ok(record);
        };
        let unreadable = |e| unreadable(key, e);
        match row.place {
            Place::Here => Ok(record),
            Place::Nowhere => {
                // Costs a look; the file is read only if there is one.
                let stat = self.files().stat(path).map_err(unreadable)?;
                if stat.is_none_or(|stat| stat == row.stat) {
                    return Ok(record);
                }
                let by_hand = self.by_hand(key, Some((row.id, record.head)))?;
                Ok(by_hand.unwrap_or(record))
            }
            Place::File => {
                let found = self.files().read(path).map_err(unreadable)?;
                let found = match found.filter(|found| row.is_payload(&found.content)) {
                    Some(found) => found,
                    // Replaced since, by a batch or by hand.
                    None => match self.files().read_kept(row.id).map_err(unreadable)? {
                        Some(kept) if row.is_payload(&kept.content) => kept,
                        Some(kept) => return Ok(of_hand(path, kept, Some(record.head))),
                        None => {
                            let by_hand = self.by_hand(key, Some((row.id, record.head)))?;
                            return Ok(by_hand.unwrap_or_else(|| removed(record)));
                        }
                    },
                };
                if let Some(value) = &mut record.value {
                    value.payload = Bytes::from(found.content);
                }
                Ok(record)
            }
        }
    }

    /// What somebody put by hand where the key's file is. `held` is what the index holds for it.
    pub fn by_hand(&self, key: &Key, held: Option<(FileId, Head)>) -> Result<Option<Record>> {
        let unreadable = |e| unreadable(key, e);
        let Some(path) = names::path_of(key) else {
            return Ok(None);
        };
        let found = match self.files().read(path) {
            // Somebody else's, and not for us: it is not the storage's either.
            Err(error) if held.is_none() && error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::warn!(%key, %error, "a file by hand is not served");
                return Ok(None);
            }
            found => found.map_err(unreadable)?,
        };
        let Some(found) = found else {
            return Ok(None);
        };
        if self.files().is_behind_link(path).map_err(unreadable)?
            || self.is_of_later_batch(key, held.map(|(id, _)| id))?
        {
            return Ok(None);
        }
        Ok(Some(of_hand(path, found, held.map(|(_, head)| head))))
    }

    /// Whether a batch after this state has written the key. Asked after the file was read: its
    /// batch is being published, or shown.
    fn is_of_later_batch(&self, key: &Key, held: Option<FileId>) -> Result<bool> {
        if self.shared.readers.is_publishing(key) {
            return Ok(true);
        }
        let now = self.shared.index.read()?;
        let row = now.latest.get(&*key.ordered()).map_err(failed)?;
        let id = row.map(|row| Row::decode(row.value())).transpose()?;
        Ok(id.map(|row| row.id) != held)
    }

    fn row(&self, key: &Key) -> Result<Option<redb::AccessGuard<'static, &'static [u8]>>> {
        self.reading.latest.get(&*key.ordered()).map_err(failed)
    }
}

impl Snapshot for View {
    fn get(&self, key: &Key) -> Result<Option<Record>> {
        match self.row(key)? {
            Some(row) => self.record(key, row.value()).map(Some),
            None => self.by_hand(key, None),
        }
    }

    fn latest<'s>(&'s self, range: &KeyRange, direction: Direction) -> Rows<'s> {
        scan::latest(self, range, direction)
    }

    fn history<'s>(
        &'s self,
        range: &KeyRange,
        versions: Option<(Version, Version)>,
        direction: Direction,
    ) -> Rows<'s> {
        scan::history(&self.reading.history, range, versions, direction)
    }
}

/// The record of a file by hand.
fn of_hand(path: &str, found: Found, held: Option<Head>) -> Record {
    let after = held.map_or(0, |held| held.effective().stamp.time.saturating_add(1));
    let stamp = Stamp {
        time: found.stat.ntp64().max(after),
        id: BY_HAND,
    };
    let value = Value {
        encoding: mime::guess(path),
        attachment: None,
        payload: Bytes::from(found.content),
    };
    Record::own(Version::put(stamp, value.hash()), Some(value))
}

/// The record of a key whose file was removed by hand.
fn removed(held: Record) -> Record {
    // Who removed it had seen all that was merged into it.
    Record {
        merged: held.merged,
        ..Record::own(held.head.effective().tombstone(), None)
    }
}

fn unreadable(key: &Key, error: io::Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("cannot read the file of {key}"),
    )
    .because(error)
}
