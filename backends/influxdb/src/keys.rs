//! Which keys the server may have something of, in the order of keys.
//!
//! A server lists names in an order of its own, so a listing is read whole; of it only the next few
//! thousand keys are kept, and the listing is read again for those behind them.

use std::collections::{BTreeMap, VecDeque};

use weir_backend_api::Direction;
use weir_core::key::{Key, KeyRange};

use crate::{http::Trouble, name, server::Server};

/// Keys that are kept of a listing.
const KEYS_MAX: usize = 4_096;

/// The keys of a range, each once.
pub(crate) struct Keys {
    range: KeyRange,
    /// What the names of all of them begin with.
    prefix: String,
    direction: Direction,
    found: VecDeque<Key>,
    is_over: bool,
}

impl Keys {
    /// No keys; asks nobody.
    pub(crate) fn none() -> Self {
        Self {
            range: KeyRange::all(),
            prefix: String::new(),
            direction: Direction::Forward,
            found: VecDeque::new(),
            is_over: true,
        }
    }

    /// The keys of `range`; asks when it is asked.
    pub(crate) fn new(range: &KeyRange, direction: Direction) -> Self {
        let only = only(range);
        Self {
            prefix: common_prefix(range),
            range: range.clone(),
            direction,
            is_over: only.is_some(),
            found: only.into_iter().collect(),
        }
    }

    /// The next keys, at most `count`; empty if there are no more.
    ///
    /// # Errors
    /// [`Trouble`] of the listing.
    pub(crate) fn take(&mut self, server: &Server, count: usize) -> Result<Vec<Key>, Trouble> {
        if self.found.is_empty() && !self.is_over {
            self.list(server)?;
        }
        let count = count.min(self.found.len());
        Ok(self.found.drain(..count).collect())
    }

    fn list(&mut self, server: &Server) -> Result<(), Trouble> {
        let mut nearest: BTreeMap<Vec<u8>, Key> = BTreeMap::new();
        let mut is_cut = false;
        let (range, direction) = (&self.range, self.direction);
        server.names(&self.prefix, |name| {
            let key = name::key_of(&name);
            let ordered = key.ordered();
            if !range.contains(&ordered) {
                return;
            }
            nearest.insert(ordered, key);
            if nearest.len() > KEYS_MAX {
                is_cut = true;
                _ = match direction {
                    Direction::Forward => nearest.pop_last(),
                    Direction::Backward => nearest.pop_first(),
                };
            }
        })?;
        self.is_over = !is_cut;
        let keys = nearest.into_values();
        self.found = match direction {
            Direction::Forward => keys.collect(),
            Direction::Backward => keys.rev().collect(),
        };
        if let Some(last) = self.found.back() {
            let range = std::mem::take(&mut self.range);
            self.range = match direction {
                Direction::Forward => range.after(last),
                Direction::Backward => range.before(last),
            };
        }
        Ok(())
    }
}

/// The one key that a range can hold, if it is that narrow.
fn only(range: &KeyRange) -> Option<Key> {
    let to = range.to.as_deref()?;
    (to.strip_suffix(&[0])? == range.from).then(|| Key::from_ordered(&range.from))?
}

/// What every key of a range begins with.
fn common_prefix(range: &KeyRange) -> String {
    let to = range.to.as_deref().unwrap_or_default();
    let common = range
        .from
        .iter()
        .zip(to)
        .take_while(|(a, b)| a == b)
        .count();
    // Back to where a character, or an escaped one, ends.
    let whole = (0..=common)
        .rev()
        .find_map(|len| Key::from_ordered(&range.from[..len]));
    whole.map(|key| key.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_has_a_prefix() {
        let key = Key::from("a/b");
        let rows = [
            (KeyRange::all(), ""),
            (KeyRange::under(&key), "a/b"),
            (KeyRange::under(&key).after(&Key::from("a/b/c")), "a/b"),
            (KeyRange::all().after(&key), ""),
            (
                KeyRange::all()
                    .after(&Key::from("aé"))
                    .before(&Key::from("aè")),
                "a",
            ),
            (
                KeyRange::all()
                    .after(&Key::from("a\u{1}"))
                    .before(&Key::from("a\u{2}")),
                "a",
            ),
        ];
        for (range, prefix) in rows {
            assert_eq!(common_prefix(&range), prefix, "{range:?}");
        }
        assert_eq!(only(&KeyRange::only(&key)), Some(key.clone()));
        assert_eq!(only(&KeyRange::only(&Key::root())), Some(Key::root()));
        assert_eq!(only(&KeyRange::under(&key)), None);
        assert_eq!(only(&KeyRange::all()), None);
    }

    proptest! {
        #[test]
        fn every_key_of_a_range_has_its_prefix(
            a in "[ab\u{1}\u{2}é/]{0,5}", b in "[ab\u{1}\u{2}é/]{0,5}", key in "[ab\u{1}\u{2}é/]{0,5}",
        ) {
            let range = KeyRange::all().after(&Key::new(a)).before(&Key::new(b));
            let key = Key::new(key);
            if range.contains(&key.ordered()) {
                prop_assert!(key.starts_with(&common_prefix(&range)));
            }
        }
    }
}
