//! The total order that every replica agrees on: which of two changes of a key is the later one.

use std::fmt;

/// When and by whom a change was stamped: a Zenoh (uhlc) timestamp, 24 bytes, compared as uhlc
/// compares it: time first, then the bytes of the id.
///
/// `time` is NTP64 since the Unix epoch: seconds in the upper 32 bits, 2^-32 s in the lower.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp {
    /// NTP64 since the Unix epoch.
    pub time: u64,
    /// The stamping HLC's id, little-endian as uhlc keeps it.
    pub id: [u8; 16],
}

/// Whether a change sets or deletes. The order is part of the version order: at equal stamps a
/// tombstone beats a live value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Kind {
    /// The key holds a value.
    #[default]
    Put,
    /// The key holds a tombstone.
    Delete,
}

/// The version of a change. Field order is the priority: HLC time, HLC id, tombstone before live,
/// value hash. The greater wins, on every replica alike, whatever order changes arrive in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    /// When and by whom.
    pub stamp: Stamp,
    /// Put or delete.
    pub kind: Kind,
    /// [`crate::value::Value::hash`] of what was put; 0 for a delete.
    pub hash: u64,
}

impl Stamp {
    /// The smallest stamp; below every real one, since no HLC has the id 0.
    pub const ZERO: Self = Self {
        time: 0,
        id: [0; 16],
    };
    /// Bytes of [`Stamp::to_bytes`].
    pub const LEN: usize = 24;

    /// From uhlc's type.
    #[must_use]
    pub fn from_uhlc(timestamp: &uhlc::Timestamp) -> Self {
        Self {
            time: timestamp.get_time().as_u64(),
            id: timestamp.get_id().to_le_bytes(),
        }
    }

    /// To uhlc's type; `None` for an id of 0, which uhlc cannot hold.
    #[must_use]
    pub fn to_uhlc(self) -> Option<uhlc::Timestamp> {
        let id = uhlc::ID::try_from(&self.id).ok()?;
        Some(uhlc::Timestamp::new(uhlc::NTP64(self.time), id))
    }

    /// 24 bytes whose byte order is the stamp order (time big-endian, then the id as it is).
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.time.to_be_bytes());
        bytes[8..].copy_from_slice(&self.id);
        bytes
    }

    /// The inverse of [`Stamp::to_bytes`]; `None` if `bytes` is not [`Stamp::LEN`] long.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (time, id) = bytes.split_first_chunk::<8>()?;
        Some(Self {
            time: u64::from_be_bytes(*time),
            id: id.try_into().ok()?,
        })
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_uhlc() {
            Some(timestamp) => write!(f, "{timestamp}"),
            None => write!(f, "{}/0", self.time),
        }
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Version {
    /// Below every real version.
    pub const ZERO: Self = Self {
        stamp: Stamp::ZERO,
        kind: Kind::Put,
        hash: 0,
    };
    /// Bytes of [`Version::to_bytes`].
    pub const LEN: usize = Stamp::LEN + 1 + 8;

    /// The version of a delete stamped `stamp`.
    #[must_use]
    pub const fn delete(stamp: Stamp) -> Self {
        Self {
            stamp,
            kind: Kind::Delete,
            hash: 0,
        }
    }

    /// The version of a put of a value with hash `hash`, stamped `stamp`.
    #[must_use]
    pub const fn put(stamp: Stamp, hash: u64) -> Self {
        Self {
            stamp,
            kind: Kind::Put,
            hash,
        }
    }

    /// The tombstone that an unstamped delete makes of this version: the same stamp, deleted.
    ///
    /// No other version of that stamp is greater, and every later stamp is: so all replicas that
    /// hold this version make the same tombstone, and a put made afterwards wins (S4).
    #[must_use]
    pub const fn tombstone(self) -> Self {
        Self::delete(self.stamp)
    }

    /// Whether this is a tombstone's version.
    #[must_use]
    pub const fn is_delete(&self) -> bool {
        matches!(self.kind, Kind::Delete)
    }

    /// 33 bytes whose byte order is the version order.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..Stamp::LEN].copy_from_slice(&self.stamp.to_bytes());
        bytes[Stamp::LEN] = u8::from(self.is_delete());
        bytes[Stamp::LEN + 1..].copy_from_slice(&self.hash.to_be_bytes());
        bytes
    }

    /// The inverse of [`Version::to_bytes`]; `None` if `bytes` is not one.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (stamp, rest) = bytes.split_at_checked(Stamp::LEN)?;
        let (kind, hash) = rest.split_first()?;
        let kind = match kind {
            0 => Kind::Put,
            1 => Kind::Delete,
            _ => return None,
        };
        let hash = u64::from_be_bytes(hash.try_into().ok()?);
        Some(Self {
            stamp: Stamp::from_bytes(stamp)?,
            kind,
            hash,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_delete() { "delete" } else { "put" };
        write!(f, "{}:{kind}:{:016x}", self.stamp, self.hash)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version() -> impl Strategy<Value = Version> {
        // A small domain, so that equal times, equal ids and equal kinds meet often.
        (0u64..3, 0u8..3, any::<bool>(), 0u64..3).prop_map(|(time, id, delete, hash)| {
            let mut bytes = [0; 16];
            bytes[0] = id;
            let stamp = Stamp { time, id: bytes };
            if delete {
                Version::delete(stamp)
            } else {
                Version::put(stamp, hash)
            }
        })
    }

    proptest! {
        #[test]
        fn byte_order_is_version_order(a in version(), b in version()) {
            prop_assert_eq!(a.cmp(&b), a.to_bytes().cmp(&b.to_bytes()));
            prop_assert_eq!(Version::from_bytes(&a.to_bytes()), Some(a));
        }

        #[test]
        fn stamp_order_is_uhlc_order(a in any::<(u64, [u8; 16])>(), b in any::<(u64, [u8; 16])>()) {
            let (a, b) = (Stamp { time: a.0, id: a.1 }, Stamp { time: b.0, id: b.1 });
            if let (Some(ua), Some(ub)) = (a.to_uhlc(), b.to_uhlc()) {
                prop_assert_eq!(a.cmp(&b), ua.cmp(&ub));
                prop_assert_eq!(Stamp::from_uhlc(&ua), a);
            }
        }

        #[test]
        fn a_tombstone_is_the_greatest_of_its_stamp(a in version(), b in version()) {
            prop_assert!(a.tombstone() >= a);
            if b.stamp > a.stamp {
                prop_assert!(b > a.tombstone());
            }
        }
    }
}
