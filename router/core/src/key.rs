//! Keys as a storage holds them, and the byte order in which it keeps them.
//!
//! A [`Key`] is a plain Zenoh key after `strip_prefix`; the root (a key that equals the prefix) is
//! the empty key. Stores keep keys in *ordered form*: `/` becomes a byte below all others, so that a
//! key is directly followed by everything under it and `vehicle/42/**` is exactly one range.

use std::{fmt, ops::Deref};

use bytestring::ByteString;
use xxhash_rust::xxh3::xxh3_128;

/// What `/` becomes in ordered form. The byte below it, 0, ends a key where something follows it
/// in a row (a version, for one), so that all rows of a key stand together.
pub(crate) const SEPARATOR: u8 = 1;
/// Introduces the three bytes that ordered form uses itself, for keys that hold them.
const ESCAPE: u8 = 2;

/// A plain key, relative to the storage's `strip_prefix`. May share its text with the other keys of
/// the batch that it came in; a clone shares it too.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Key(ByteString);

/// A range of keys in ordered form: from `from` (inclusive) to `to` (exclusive; `None` is the end).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KeyRange {
    /// First ordered key of the range.
    pub from: Vec<u8>,
    /// First ordered key behind the range.
    pub to: Option<Vec<u8>>,
}

impl Key {
    /// The key that equals the storage's prefix.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// A key from its text.
    #[must_use]
    pub fn new(text: impl Into<ByteString>) -> Self {
        Self(text.into())
    }

    /// A part of this key's text as a key of its own, sharing it.
    ///
    /// # Panics
    /// If `part` is not a part of this key's own text: a bug of the caller.
    #[must_use]
    pub fn part(&self, part: &str) -> Self {
        Self(self.0.slice_ref(part))
    }

    /// Appends the ordered form to `out`. It never holds the byte 0.
    pub fn order_into(&self, out: &mut Vec<u8>) {
        let from = out.len();
        out.extend_from_slice(self.0.as_bytes());
        // Hardly any key holds a byte to be escaped: then this is a copy.
        let mut is_plain = true;
        for byte in &mut out[from..] {
            is_plain &= *byte > ESCAPE;
            if *byte == b'/' {
                *byte = SEPARATOR;
            }
        }
        if is_plain {
            return;
        }
        out.truncate(from);
        for byte in self.0.bytes() {
            match byte {
                b'/' => out.push(SEPARATOR),
                0..=ESCAPE => out.extend([ESCAPE, byte + 1]),
                _ => out.push(byte),
            }
        }
    }

    /// The ordered form.
    #[must_use]
    pub fn ordered(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.order_into(&mut out);
        out
    }

    /// The inverse of [`Key::ordered`]; `None` if `ordered` is not one.
    #[must_use]
    pub fn from_ordered(ordered: &[u8]) -> Option<Self> {
        let mut text = Vec::with_capacity(ordered.len());
        let mut bytes = ordered.iter();
        while let Some(&byte) = bytes.next() {
            text.push(match byte {
                0 => return None,
                SEPARATOR => b'/',
                ESCAPE => bytes
                    .next()?
                    .checked_sub(1)
                    .filter(|byte| *byte <= ESCAPE)?,
                _ => byte,
            });
        }
        String::from_utf8(text).ok().map(Self::new)
    }

    /// 128 bits that stand for the key in caches and placements, stable across versions.
    #[must_use]
    pub fn hash128(&self) -> u128 {
        xxh3_128(self.0.as_bytes())
    }

    /// The chunk at `index`, counted from the end if negative (-1 is the last).
    #[must_use]
    pub fn chunk(&self, index: i32) -> Option<&str> {
        let offset = usize::try_from(index.unsigned_abs()).ok()?;
        if index >= 0 {
            self.0.split('/').nth(offset)
        } else {
            self.0.rsplit('/').nth(offset - 1)
        }
    }
}

impl Deref for Key {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl KeyRange {
    /// Every key.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// `key` alone.
    #[must_use]
    pub fn only(key: &Key) -> Self {
        let from = key.ordered();
        let mut to = from.clone();
        // 0 is in no ordered key, so nothing lies between a key and the key with 0 behind it.
        to.push(0);
        Self { from, to: Some(to) }
    }

    /// `key` and everything under it.
    #[must_use]
    pub fn under(key: &Key) -> Self {
        if key.is_empty() {
            return Self::all();
        }
        let from = key.ordered();
        let mut to = from.clone();
        to.push(SEPARATOR + 1);
        Self { from, to: Some(to) }
    }

    /// The keys of the range behind `key`.
    #[must_use]
    pub fn after(mut self, key: &Key) -> Self {
        let mut from = key.ordered();
        from.push(0);
        self.from = self.from.max(from);
        self
    }

    /// The keys of the range before `key`.
    #[must_use]
    pub fn before(mut self, key: &Key) -> Self {
        let to = key.ordered();
        self.to = Some(self.to.map_or(to.clone(), |old| old.min(to)));
        self
    }

    /// Whether the ordered key lies inside.
    #[must_use]
    pub fn contains(&self, ordered: &[u8]) -> bool {
        self.from.as_slice() <= ordered && self.to.as_deref().is_none_or(|to| ordered < to)
    }

    /// What lies in both.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        let from = self.from.clone().max(other.from.clone());
        let to = match (&self.to, &other.to) {
            (Some(a), Some(b)) => Some(a.min(b).clone()),
            (a, b) => a.clone().or_else(|| b.clone()),
        };
        Self { from, to }
    }

    /// Whether no key can lie inside.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.to.as_ref().is_some_and(|to| *to <= self.from)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_key() -> impl Strategy<Value = Key> {
        "[ab\u{0}\u{1}\u{2}\u{3}é/]{0,6}".prop_map(Key::new)
    }

    proptest! {
        #[test]
        fn ordered_form_is_exact(key in any_key()) {
            prop_assert_eq!(Key::from_ordered(&key.ordered()), Some(key));
        }

        #[test]
        fn a_prefix_is_one_range(prefix in any_key(), key in any_key()) {
            let under = prefix.is_empty()
                || key == prefix
                || key.strip_prefix(&*prefix).is_some_and(|rest| rest.starts_with('/'));
            prop_assert_eq!(KeyRange::under(&prefix).contains(&key.ordered()), under);
            prop_assert_eq!(KeyRange::only(&prefix).contains(&key.ordered()), key == prefix);
            let (at, all) = (key.ordered(), KeyRange::all());
            prop_assert_eq!(all.clone().after(&prefix).contains(&at), at > prefix.ordered());
            prop_assert_eq!(all.before(&prefix).contains(&at), at < prefix.ordered());
        }

        #[test]
        fn from_ordered_never_panics(bytes in proptest::collection::vec(0u8..5, 0..8)) {
            if let Some(key) = Key::from_ordered(&bytes) {
                prop_assert_eq!(key.ordered(), bytes);
            }
        }
    }

    #[test]
    fn chunks_count_from_both_ends() {
        let key = Key::from("fleet/drone/7");
        for (index, chunk) in [
            (0, Some("fleet")),
            (2, Some("7")),
            (3, None),
            (-1, Some("7")),
            (-3, Some("fleet")),
            (-4, None),
        ] {
            assert_eq!(key.chunk(index), chunk, "{index}");
        }
    }
}
