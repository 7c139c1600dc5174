//! What a query asks for besides its key expression.
//!
//! | parameter | meaning |
//! | --- | --- |
//! | `_time=[start..end]` | only versions stamped inside; Zenoh's own syntax |
//! | `_limit=N` | at most N samples from each storage |
//! | `_order=key`, `-key`, `time`, `-time` | in this order; by time only with a limit |
//! | `_cursor=KEY` | only what follows KEY in the order, for the next page |
//!
//! A cursor is the last sample of the page before: its key, percent-encoded, and for a time series
//! `@` and its timestamp. So a client pages with what it has in its hands, and the pages of several
//! storages merge.

use std::ops::Bound;

use thiserror::Error;

use crate::version::Stamp;

/// The largest limit that an order by time may have: it is sorted in memory.
pub const SORTED_MAX: usize = 100_000;

/// In which order samples are answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Order {
    /// By key, and within a key by version.
    #[default]
    Key,
    /// By key, backwards.
    KeyDescending,
    /// Oldest first.
    Time,
    /// Newest first.
    TimeDescending,
}

/// Where a page begins: behind this sample.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cursor {
    /// The full key of the last sample.
    pub key: String,
    /// Its timestamp, where a key has several samples.
    pub stamp: Option<Stamp>,
}

/// What a query asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selection {
    /// The stamps' times, inclusive (NTP64); `None` asks for what the keys hold now.
    pub time: Option<(u64, u64)>,
    /// How many samples at the most.
    pub limit: Option<usize>,
    /// In which order.
    pub order: Order,
    /// Where to begin.
    pub cursor: Option<Cursor>,
}

/// A parameter that makes no sense.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SelectionError {
    /// `_limit` is not a positive number.
    #[error("`_limit={0}`: expected a positive whole number")]
    Limit(String),
    /// `_order` is not one of the four.
    #[error("`_order={0}`: expected key, -key, time or -time")]
    Order(String),
    /// `_cursor` cannot be read.
    #[error("`_cursor={0}`: expected a percent-encoded key, and `@` and a timestamp for a series")]
    Cursor(String),
    /// An order by time without a limit that fits into memory.
    #[error("`_order` by time needs a `_limit` of at most {SORTED_MAX}")]
    Unbounded,
    /// An order by time with a cursor that has no timestamp.
    #[error("`_order` by time needs a `_cursor` with a timestamp (KEY@TIME/ID)")]
    CursorWithoutStamp,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            time: None,
            limit: None,
            order: Order::Key,
            cursor: None,
        }
    }
}

impl Selection {
    /// Reads the parameters of a query; `get` looks one up. `time` is what Zenoh made of `_time`.
    ///
    /// # Errors
    /// The first parameter that makes no sense.
    pub fn parse<'p>(
        get: impl Fn(&str) -> Option<&'p str>,
        time: Option<(Bound<u64>, Bound<u64>)>,
    ) -> Result<Self, SelectionError> {
        let limit = match get("_limit") {
            None => None,
            Some(text) => match text.parse::<usize>() {
                Ok(limit) if limit > 0 => Some(limit),
                _ => return Err(SelectionError::Limit(text.to_owned())),
            },
        };
        let order = match get("_order") {
            None | Some("key") => Order::Key,
            Some("-key") => Order::KeyDescending,
            Some("time") => Order::Time,
            Some("-time") => Order::TimeDescending,
            Some(text) => return Err(SelectionError::Order(text.to_owned())),
        };
        let cursor = match get("_cursor") {
            None => None,
            Some(text) => {
                Some(Cursor::decode(text).ok_or_else(|| SelectionError::Cursor(text.to_owned()))?)
            }
        };
        if matches!(order, Order::Time | Order::TimeDescending) {
            if limit.is_none_or(|limit| limit > SORTED_MAX) {
                return Err(SelectionError::Unbounded);
            }
            if cursor.as_ref().is_some_and(|cursor| cursor.stamp.is_none()) {
                return Err(SelectionError::CursorWithoutStamp);
            }
        }
        Ok(Self {
            time: time.map(inclusive),
            limit,
            order,
            cursor,
        })
    }

    /// Whether a stamp lies inside the asked time.
    #[must_use]
    pub fn in_time(&self, stamp: Stamp) -> bool {
        self.time
            .is_none_or(|(from, to)| (from..=to).contains(&stamp.time))
    }
}

impl Cursor {
    /// As a parameter's value.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        for byte in self.key.bytes() {
            if byte.is_ascii_alphanumeric() || b"/-_.~$*".contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push('%');
                out.push_str(&format!("{byte:02X}"));
            }
        }
        if let Some(stamp) = self.stamp {
            out.push_str(&format!("@{stamp}"));
        }
        out
    }

    /// The inverse of [`Cursor::encode`].
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let (key, stamp) = match text.split_once('@') {
            None => (text, None),
            Some((key, stamp)) => {
                let stamp: uhlc::Timestamp = stamp.parse().ok()?;
                (key, Some(Stamp::from_uhlc(&stamp)))
            }
        };
        let mut bytes = Vec::with_capacity(key.len());
        let mut rest = key.bytes();
        while let Some(byte) = rest.next() {
            if byte == b'%' {
                let digits = [rest.next()?, rest.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
            } else {
                bytes.push(byte);
            }
        }
        Some(Self {
            key: String::from_utf8(bytes).ok()?,
            stamp,
        })
    }
}

fn inclusive((from, to): (Bound<u64>, Bound<u64>)) -> (u64, u64) {
    let from = match from {
        Bound::Included(time) => time,
        Bound::Excluded(time) => time.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match to {
        Bound::Included(time) => time,
        Bound::Excluded(time) => time.saturating_sub(1),
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(parameters: &'static str) -> Result<Selection, SelectionError> {
        let get = |name: &str| {
            parameters
                .split(';')
                .find_map(|pair| pair.split_once('=').filter(|p| p.0 == name))
        };
        Selection::parse(|name| get(name).map(|pair| pair.1), None)
    }

    #[test]
    fn parameters_are_read_or_refused() {
        let of = Selection::default;
        let stamped = Stamp {
            time: 1 << 32,
            id: 1u128.to_le_bytes(),
        };
        let cursor = |key: &str, stamp| {
            Some(Cursor {
                key: key.to_owned(),
                stamp,
            })
        };
        let rows = [
            ("", Ok(of())),
            (
                "_limit=3",
                Ok(Selection {
                    limit: Some(3),
                    ..of()
                }),
            ),
            ("_limit=0", Err(SelectionError::Limit("0".into()))),
            ("_limit=x", Err(SelectionError::Limit("x".into()))),
            (
                "_order=-key",
                Ok(Selection {
                    order: Order::KeyDescending,
                    ..of()
                }),
            ),
            ("_order=up", Err(SelectionError::Order("up".into()))),
            ("_order=time", Err(SelectionError::Unbounded)),
            ("_order=time;_limit=100001", Err(SelectionError::Unbounded)),
            (
                "_order=time;_limit=2",
                Ok(Selection {
                    order: Order::Time,
                    limit: Some(2),
                    ..of()
                }),
            ),
            (
                "_order=time;_limit=2;_cursor=a",
                Err(SelectionError::CursorWithoutStamp),
            ),
            (
                "_cursor=a/b%3Bc",
                Ok(Selection {
                    cursor: cursor("a/b;c", None),
                    ..of()
                }),
            ),
            (
                "_cursor=a@4294967296/1",
                Ok(Selection {
                    cursor: cursor("a", Some(stamped)),
                    ..of()
                }),
            ),
            ("_cursor=a%", Err(SelectionError::Cursor("a%".into()))),
        ];
        for (text, expected) in rows {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn cursors_come_back(key in "\\PC{0,12}", stamp in proptest::option::of(any::<(u64, u128)>())) {
            let stamp = stamp.map(|(time, id)| Stamp { time, id: id.max(1).to_le_bytes() });
            let cursor = Cursor { key, stamp };
            prop_assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        }
    }
}
