//! Changes as they arrive, what became of them, and what is to be written.

use bytes::Bytes;
use thiserror::Error;
use zenoh_keyexpr::OwnedKeyExpr;

use crate::{
    key::Key,
    record::{Record, RecordRef},
    value::Value,
    version::{Stamp, Version},
    wildcard::WildcardOp,
};

/// A put or delete of one key, to be decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The key, relative to the storage's prefix.
    pub key: Key,
    /// When and by whom; `None` if nobody stamped it on the way.
    pub stamp: Option<Stamp>,
    /// The value put; `None` for a delete.
    pub value: Option<Value>,
}

/// A put or delete on a key expression, to be decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WildcardChange {
    /// The key expression, with the storage's prefix.
    pub expr: OwnedKeyExpr,
    /// When and by whom; `None` if nobody stamped it on the way.
    pub stamp: Option<Stamp>,
    /// The value put; `None` for a delete.
    pub value: Option<Value>,
}

/// What became of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// The storage holds it now, as its latest or as one of its versions.
    Applied(Version),
    /// This very change was held already.
    Known(Version),
    /// A later one was held; it changes nothing.
    Outdated(Version),
    /// A policy made something else of it and of what was held; the storage holds that now, under
    /// this version.
    Merged(Version),
    /// It comes from the future: kept aside, to be applied when due.
    Parked(Version),
    /// It is older than what the storage can still judge: kept aside, never applied by itself.
    Quarantined(Version),
    /// A delete without a stamp of a key that is not there.
    Nothing,
    /// Refused.
    Rejected(Rejection),
}

/// Why a change was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Rejection {
    /// It has no timestamp and the storage asks for one.
    #[error("it has no timestamp, and this storage rejects changes without one")]
    Unstamped,
    /// It is older than what retention keeps.
    #[error("it is older than this storage retains")]
    Expired,
    /// The storage takes no changes.
    #[error("this storage is read-only")]
    ReadOnly,
    /// Its key does not belong to the storage.
    #[error("the key does not belong to this storage")]
    NotMember,
}

/// The tables for what is neither a latest record nor history, each ordered by its row's key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Table {
    /// The wildcard journal: version and expression -> operation.
    Wildcards = 1,
    /// Changes from the future: stamp and serial -> change.
    Parked = 2,
    /// Changes that could not be judged: stamp and serial -> change.
    Quarantine = 3,
    /// Work that must survive a restart: serial -> job.
    Jobs = 4,
    /// One row for each fact about the store: name -> value.
    System = 5,
    /// What the store knows it has, by range ([`crate::ledger`]): position -> summary.
    Ledger = 6,
    /// What a store has taken and not yet handed on to the server it keeps its history on:
    /// serial -> what is to be done there. Such a store's own; for others a table like any.
    Spool = 7,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 7] = [
        Self::Wildcards,
        Self::Parked,
        Self::Quarantine,
        Self::Jobs,
        Self::System,
        Self::Ledger,
        Self::Spool,
    ];
}

/// One write of an atomic batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write<'a> {
    /// Sets what the key holds.
    Latest {
        /// The key.
        key: &'a Key,
        /// The record.
        record: RecordRef<'a>,
    },
    /// Forgets the key entirely, tombstone included.
    ForgetLatest {
        /// The key.
        key: &'a Key,
    },
    /// Adds a version to the key's history; the same version again changes nothing.
    History {
        /// The key.
        key: &'a Key,
        /// The version, in `head.own`.
        record: RecordRef<'a>,
    },
    /// Drops one version from the key's history.
    ForgetHistory {
        /// The key.
        key: &'a Key,
        /// The version.
        version: Version,
    },
    /// Sets or removes a row of a table.
    Row {
        /// The table.
        table: Table,
        /// The row's key.
        key: Vec<u8>,
        /// The row's value, or nothing to remove it.
        value: Option<Vec<u8>>,
    },
}

/// A change at rest in [`Table::Parked`], [`Table::Quarantine`] or [`Table::Wildcards`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeptChange {
    /// Of one key.
    Key(Change),
    /// Of a key expression.
    Wildcard(WildcardChange),
}

impl Change {
    /// Its version once it is stamped `stamp`. Hashes the value.
    #[must_use]
    pub fn version(&self, stamp: Stamp) -> Version {
        version(stamp, self.value.as_ref())
    }
}

impl WildcardChange {
    /// Its version once it is stamped `stamp`. Hashes the value.
    #[must_use]
    pub fn version(&self, stamp: Stamp) -> Version {
        version(stamp, self.value.as_ref())
    }

    /// The operation that it is once it is stamped.
    #[must_use]
    pub fn into_op(self, stamp: Stamp) -> WildcardOp {
        WildcardOp {
            version: self.version(stamp),
            expr: self.expr,
            value: self.value,
        }
    }
}

fn version(stamp: Stamp, value: Option<&Value>) -> Version {
    value.map_or(Version::delete(stamp), |value| {
        Version::put(stamp, value.hash())
    })
}

impl Admission {
    /// One word for counters, logs and acknowledgements.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Applied(_) => "applied",
            Self::Known(_) => "known",
            Self::Outdated(_) => "outdated",
            Self::Merged(_) => "merged",
            Self::Parked(_) => "parked",
            Self::Quarantined(_) => "quarantined",
            Self::Nothing => "nothing",
            Self::Rejected(_) => "rejected",
        }
    }

    /// The version it was decided under.
    #[must_use]
    pub const fn version(&self) -> Option<Version> {
        match *self {
            Self::Applied(v)
            | Self::Known(v)
            | Self::Outdated(v)
            | Self::Merged(v)
            | Self::Parked(v)
            | Self::Quarantined(v) => Some(v),
            Self::Nothing | Self::Rejected(_) => None,
        }
    }
}

impl KeptChange {
    /// The change that is left of a record when it is kept aside: what the record holds.
    #[must_use]
    pub fn of_record(key: &Key, record: &Record) -> Self {
        Self::Key(Change {
            key: key.clone(),
            stamp: Some(record.head.effective().stamp),
            value: record.value.clone(),
        })
    }

    /// The row's bytes: `k` or `w`, the key's or expression's length (u32) and text, then a record
    /// whose own version is the change's. `stamp` must be the change's own; a change at rest is
    /// always stamped.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (tag, text, stamp, value) = self.parts();
        let own = version(stamp, value);
        let mut out = vec![tag];
        out.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(text.as_bytes());
        RecordRef::own(own, value).encode_into(&mut out);
        out
    }

    /// The inverse of [`KeptChange::encode`]; `None` if the bytes are not a change.
    #[must_use]
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
        let text = std::str::from_utf8(rest.get(..len)?).ok()?;
        let record = Record::decode(&bytes.slice(5 + len..)).ok()?;
        let stamp = Some(record.head.own.stamp);
        let value = record.value;
        match tag {
            b'k' => Some(Self::Key(Change {
                key: Key::from(text),
                stamp,
                value,
            })),
            b'w' => {
                let expr = OwnedKeyExpr::new(text).ok()?;
                Some(Self::Wildcard(WildcardChange { expr, stamp, value }))
            }
            _ => None,
        }
    }

    /// The row's key in a table that is read in version order: the version and what it is about.
    #[must_use]
    pub fn row_key(&self) -> Vec<u8> {
        let (tag, text, stamp, value) = self.parts();
        let mut key = version(stamp, value).to_bytes().to_vec();
        key.push(tag);
        key.extend_from_slice(text.as_bytes());
        key
    }

    fn parts(&self) -> (u8, &str, Stamp, Option<&Value>) {
        let (tag, text, stamp, value) = match self {
            Self::Key(change) => (b'k', &*change.key, change.stamp, change.value.as_ref()),
            Self::Wildcard(change) => (
                b'w',
                change.expr.as_str(),
                change.stamp,
                change.value.as_ref(),
            ),
        };
        (tag, text, stamp.unwrap_or(Stamp::ZERO), value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_at_rest_come_back() {
        let stamp = Some(Stamp {
            time: 7,
            id: [1; 16],
        });
        let expr = OwnedKeyExpr::new("a/**").unwrap();
        let value = Some(Value::bytes("x"));
        let rows = [
            KeptChange::Key(Change {
                key: Key::from("a/b"),
                stamp,
                value: value.clone(),
            }),
            KeptChange::Key(Change {
                key: Key::root(),
                stamp,
                value: None,
            }),
            KeptChange::Wildcard(WildcardChange {
                expr: expr.clone(),
                stamp,
                value,
            }),
            KeptChange::Wildcard(WildcardChange {
                expr,
                stamp,
                value: None,
            }),
        ];
        for row in &rows {
            let bytes = Bytes::from(row.encode());
            assert_eq!(KeptChange::decode(&bytes).as_ref(), Some(row));
            for cut in 0..bytes.len() - 1 {
                assert_ne!(KeptChange::decode(&bytes.slice(..cut)).as_ref(), Some(row));
            }
        }
    }
}
