//! Between the keys that Zenoh shows and the keys that a storage holds.

use thiserror::Error;
use zenoh_keyexpr::{OwnedKeyExpr, keyexpr};

use crate::key::{Key, KeyRange, SEPARATOR};

/// A storage's `strip_prefix`: what is cut from keys before they are stored and put back in replies.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KeySpace {
    prefix: Option<OwnedKeyExpr>,
}

/// A prefix that cannot be stripped.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("the prefix `{0}` holds a wildcard; a prefix to strip must be plain")]
pub struct WildPrefix(String);

impl KeySpace {
    /// A key space with or without a prefix.
    ///
    /// # Errors
    /// If the prefix holds a wildcard.
    pub fn new(prefix: Option<OwnedKeyExpr>) -> Result<Self, WildPrefix> {
        match prefix {
            Some(prefix) if prefix.is_wild() => Err(WildPrefix(prefix.to_string())),
            prefix => Ok(Self { prefix }),
        }
    }

    /// The prefix.
    #[must_use]
    pub fn prefix(&self) -> Option<&keyexpr> {
        self.prefix.as_deref()
    }

    /// The stored key of a plain key; `None` if it does not lie under the prefix.
    #[must_use]
    pub fn relative(&self, full: &str) -> Option<Key> {
        self.rest(full).map(Key::from)
    }

    /// [`KeySpace::relative`] for a key that is at hand as one; copies nothing.
    #[must_use]
    pub fn strip(&self, full: Key) -> Option<Key> {
        if self.prefix.is_none() {
            return Some(full);
        }
        self.rest(&full).map(|rest| full.part(rest))
    }

    fn rest<'a>(&self, full: &'a str) -> Option<&'a str> {
        let Some(prefix) = &self.prefix else {
            return Some(full);
        };
        let rest = full.strip_prefix(prefix.as_str())?;
        rest.strip_prefix('/').or(rest.is_empty().then_some(rest))
    }

    /// Writes the full key of a stored one into `out` and returns it as a key expression; `None`
    /// for the root of a storage without a prefix and for keys that Zenoh could not have carried.
    pub fn full<'a>(&self, key: &Key, out: &'a mut String) -> Option<&'a keyexpr> {
        out.clear();
        if let Some(prefix) = &self.prefix {
            out.push_str(prefix);
            if !key.is_empty() {
                out.push('/');
            }
        }
        out.push_str(key);
        keyexpr::new(out.as_str()).ok()
    }

    /// The stored keys of a range of keys in full; empty if none is under the prefix.
    #[must_use]
    pub fn stored(&self, full: &KeyRange) -> KeyRange {
        let Some(prefix) = &self.prefix else {
            return full.clone();
        };
        let prefix = Key::from(prefix.as_str()).ordered();
        KeyRange {
            from: Self::stored_bound(&prefix, &full.from).unwrap_or_else(|| vec![u8::MAX]),
            to: match &full.to {
                None => None,
                Some(to) => Self::stored_bound(&prefix, to),
            },
        }
    }

    /// Where a stored key in ordered form (or a fence between two) stands among keys in full; the
    /// inverse of [`KeySpace::stored`].
    #[must_use]
    pub fn position(&self, stored: &[u8]) -> Vec<u8> {
        let Some(prefix) = &self.prefix else {
            return stored.to_vec();
        };
        let mut position = Key::from(prefix.as_str()).ordered();
        if !stored.is_empty() {
            position.push(SEPARATOR);
            position.extend_from_slice(stored);
        }
        position
    }

    /// The first stored key whose full key is at or behind a bound; `None` if there is none.
    fn stored_bound(prefix: &[u8], bound: &[u8]) -> Option<Vec<u8>> {
        if bound <= prefix {
            return Some(Vec::new());
        }
        match bound.strip_prefix(prefix) {
            Some([SEPARATOR, rest @ ..]) if !rest.is_empty() => Some(rest.to_vec()),
            // Behind the root and before everything under it.
            Some([0..=SEPARATOR, ..]) => Some(vec![0]),
            _ => None,
        }
    }

    /// The smallest range of stored keys that holds every key of `expr`; `None` if none can be
    /// under the prefix.
    #[must_use]
    pub fn range(&self, expr: &keyexpr) -> Option<KeyRange> {
        if !expr.is_wild() {
            return self.relative(expr.as_str()).map(|key| KeyRange::only(&key));
        }
        let plain = expr.get_nonwild_prefix().map_or("", |plain| plain.as_str());
        let Some(prefix) = &self.prefix else {
            return Some(KeyRange::under(&Key::from(plain)));
        };
        if let Some(key) = self.relative(plain) {
            return Some(KeyRange::under(&key));
        }
        // The plain part of `expr` is shorter than the prefix, or beside it.
        let above = plain.is_empty()
            || prefix
                .as_str()
                .strip_prefix(plain)
                .is_some_and(|rest| rest.starts_with('/'));
        above.then(KeyRange::all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(prefix: &str) -> KeySpace {
        let prefix = (!prefix.is_empty()).then(|| OwnedKeyExpr::try_from(prefix).unwrap());
        KeySpace::new(prefix).unwrap()
    }

    #[test]
    fn keys_go_in_and_come_back() {
        let rows = [
            ("", "a/b", Some("a/b")),
            ("a", "a/b", Some("b")),
            ("a", "a", Some("")),
            ("a", "ab", None),
            ("a/b", "a", None),
            ("a/b", "a/b/c/d", Some("c/d")),
        ];
        for (prefix, full, stored) in rows {
            let space = space(prefix);
            let key = space.relative(full);
            assert_eq!(key.as_deref(), stored, "{full} under `{prefix}`");
            assert_eq!(space.strip(Key::from(full)), key);
            if let Some(key) = key {
                let mut out = String::new();
                assert_eq!(
                    space.full(&key, &mut out).map(|full| full.as_str()),
                    Some(full)
                );
            }
        }
    }

    #[test]
    fn ranges_hold_what_the_expression_matches() {
        let prefixes = ["", "a", "a/b"];
        let keys = ["a", "a/b", "a/b/c", "a/c", "ab", "b", "a/b/c/d"];
        let exprs = [
            "**", "a/**", "a/*", "a/b/**", "*/b/**", "a/b/c", "a/*/c", "b/**", "a/b$*/c", "a/b/*/d",
        ];
        for prefix in prefixes {
            let space = space(prefix);
            for key in keys {
                let Some(stored) = space.relative(key) else {
                    continue;
                };
                for expr in exprs {
                    let expr = keyexpr::new(expr).unwrap();
                    let inside = space
                        .range(expr)
                        .is_some_and(|range| range.contains(&stored.ordered()));
                    if expr.intersects(keyexpr::new(key).unwrap()) {
                        assert!(inside, "{expr} misses {key} under `{prefix}`");
                    }
                }
            }
        }
        // And they are not all of it.
        let expr = keyexpr::new("a/b/*").unwrap();
        assert!(
            !space("")
                .range(expr)
                .unwrap()
                .contains(&Key::from("a/c").ordered())
        );
        assert_eq!(space("a/b").range(keyexpr::new("b/**").unwrap()), None);
    }

    #[test]
    fn a_range_in_full_is_a_range_of_what_is_stored() {
        let keys = ["", "a", "a/b", "b", "b!", "b/c", "z"];
        let space = space("p/q");
        let mut scratch = String::new();
        let full = |key: &str, scratch: &mut String| {
            let full = space.full(&Key::from(key), scratch).unwrap();
            Key::from(full.as_str()).ordered()
        };
        for key in keys {
            let stored = Key::from(key).ordered();
            assert_eq!(space.position(&stored), full(key, &mut scratch));
        }
        let outside = ["a", "p", "p/q!", "p/qq", "p/r", "q"].map(|key| Key::from(key).ordered());
        let mut bounds: Vec<Vec<u8>> = keys.map(|key| full(key, &mut scratch)).to_vec();
        bounds.extend(outside);
        bounds.extend(
            bounds
                .clone()
                .into_iter()
                .map(|bound| [bound, vec![0]].concat()),
        );
        bounds.extend([vec![], vec![u8::MAX]]);
        for from in &bounds {
            for to in bounds.iter().map(|to| Some(to.clone())).chain([None]) {
                let range = KeyRange {
                    from: from.clone(),
                    to,
                };
                let stored = space.stored(&range);
                for key in keys {
                    assert_eq!(
                        stored.contains(&Key::from(key).ordered()),
                        range.contains(&full(key, &mut scratch)),
                        "{key:?} in {range:?} as {stored:?}"
                    );
                }
            }
        }
    }
}
