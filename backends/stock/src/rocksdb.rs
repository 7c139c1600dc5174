//! Directories of zenohd's RocksDB backend: payloads in the default column family, what belongs to
//! them in `data_info`, both under the key after `strip_prefix`.

use std::{cmp::Ordering, path::Path};

use bytes::Bytes;
use weir_backend_api::{Error, Result};
use weir_core::{change::Change, key::Key, value::Value};

use crate::{
    Changes, bad,
    info::Info,
    lsm::{Lsm, Rows},
};

const PAYLOADS: &str = "default";
const INFOS: &str = "data_info";
/// The key of a value whose key equals the prefix.
const ROOT: &[u8] = b"@@none_key@@";

/// A directory written by zenohd's RocksDB backend.
#[derive(Debug)]
pub struct StockRocksdb {
    db: Lsm,
}

impl StockRocksdb {
    /// Opens a directory. It is not changed; its router must not run.
    ///
    /// # Errors
    /// [`weir_backend_api::ErrorKind::Unavailable`] if it cannot be read or a router has it open,
    /// [`weir_backend_api::ErrorKind::Corrupt`] if that backend has not written it.
    pub fn open(dir: &Path) -> Result<Self> {
        let db = Lsm::open(dir)?;
        for family in [PAYLOADS, INFOS] {
            db.check(family)?;
        }
        Ok(Self { db })
    }

    /// About how many changes there are: at least as many, since overwritten values may count again.
    /// Opens every table.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        self.db.len(INFOS).ok()
    }

    /// What it holds, in no particular order of keys. An entry that cannot be read is an error, after
    /// which the rest follows.
    ///
    /// # Errors
    /// None; what fails later is in the iterator.
    pub fn changes(self) -> Result<Changes> {
        let Self { mut db } = self;
        let damage = db.take_damage();
        let join = Join {
            payloads: Side::new(db.rows(PAYLOADS)?),
            infos: Side::new(db.rows(INFOS)?),
        };
        Ok(Box::new(damage.map(Err).into_iter().chain(join)))
    }
}

/// Brings payloads and infos of the same key together; both are in key order.
struct Join {
    payloads: Side,
    infos: Side,
}

struct Side {
    head: Option<Result<(Vec<u8>, Bytes)>>,
    rest: Rows,
}

impl Side {
    fn new(mut rest: Rows) -> Self {
        Self {
            head: rest.next(),
            rest,
        }
    }

    fn next(&mut self) -> Option<Result<(Vec<u8>, Bytes)>> {
        std::mem::replace(&mut self.head, self.rest.next())
    }
}

impl Iterator for Join {
    type Item = Result<Change>;

    fn next(&mut self) -> Option<Self::Item> {
        let order = match (&self.infos.head, &self.payloads.head) {
            (Some(Err(_)), _) | (Some(_), None) => Ordering::Less,
            (_, Some(Err(_))) | (None, Some(_)) => Ordering::Greater,
            (Some(Ok((info, _))), Some(Ok((payload, _)))) => info.cmp(payload),
            (None, None) => return None,
        };
        let info = if order.is_le() {
            self.infos.next()
        } else {
            None
        };
        let payload = if order.is_ge() {
            self.payloads.next()
        } else {
            None
        };
        Some(match (info.transpose(), payload.transpose()) {
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(info), Ok(payload)) => change(info, payload),
        })
    }
}

fn change(info: Option<(Vec<u8>, Bytes)>, payload: Option<(Vec<u8>, Bytes)>) -> Result<Change> {
    let name = match (&info, &payload) {
        (Some((name, _)), _) | (None, Some((name, _))) => name.clone(),
        (None, None) => Vec::new(),
    };
    let failed = |what: &str| -> Error { bad(&name.escape_ascii().to_string(), what) };
    let text = std::str::from_utf8(&name).map_err(|_| failed("its key is not text"))?;
    let (_, info) = info.ok_or_else(|| {
        failed("it has a payload but no timestamp: a zenohd before 1.0 has left it there")
    })?;
    let info = Info::of_rocksdb(&info).ok_or_else(|| failed("its data_info is not understood"))?;
    let value = match payload {
        _ if info.is_deleted => None,
        Some((_, payload)) => Some(Value {
            encoding: info.encoding,
            attachment: None,
            payload,
        }),
        None => return Err(failed("its payload is lost")),
    };
    Ok(Change {
        key: if name == ROOT {
            Key::root()
        } else {
            Key::from(text)
        },
        stamp: Some(info.stamp),
        value,
    })
}
