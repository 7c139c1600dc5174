//! Which keys are kept in their newest version alone, and which that is. Bounded: a key that is forgotten
//! may be shipped in an older version as well, which an upstream finds outdated.

use std::{collections::HashMap, mem};

use weir_core::{key::Key, version::Version};

/// Keys in each of the two generations; about 100 bytes a key.
const KEYS_MAX: usize = 32 << 10;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Newest {
    young: HashMap<u128, Version>,
    old: HashMap<u128, Version>,
}

/// What became of a version of such a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// It is the first that is known.
    First,
    /// It is the newest, and another was before.
    Newer,
    /// There is a newer one.
    Older,
}

impl Newest {
    pub(crate) fn offer(&mut self, key: &Key, version: Version) -> Place {
        let hash = key.hash128();
        let before = self.find(hash);
        if before.is_some_and(|before| before > version) {
            return Place::Older;
        }
        if self.young.len() >= KEYS_MAX && !self.young.contains_key(&hash) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(hash, version);
        // The same one again supersedes nothing.
        if before.is_some_and(|before| before < version) {
            Place::Newer
        } else {
            Place::First
        }
    }

    /// Whether a newer version of the key is to be shipped instead.
    pub(crate) fn supersedes(&self, key: &Key, version: Version) -> bool {
        self.find(key.hash128())
            .is_some_and(|newest| newest > version)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.young.is_empty() // `old` is filled from `young`, which has a key at once.
    }

    fn find(&self, hash: u128) -> Option<Version> {
        self.young
            .get(&hash)
            .or_else(|| self.old.get(&hash))
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use weir_core::version::Stamp;

    use super::*;

    #[test]
    fn it_knows_the_newest_and_stays_small() {
        let version = |time| Version::put(Stamp { time, id: [1; 16] }, 7);
        let mut it = Newest::default();
        let key = Key::from("a");
        assert_eq!(it.offer(&key, version(2)), Place::First);
        assert_eq!(it.offer(&key, version(1)), Place::Older);
        assert_eq!(it.offer(&key, version(3)), Place::Newer);
        assert_eq!(it.offer(&key, version(3)), Place::First);
        assert!(it.supersedes(&key, version(2)) && !it.supersedes(&key, version(3)));
        assert!(!it.supersedes(&Key::from("b"), version(2)));
        for i in 0..3 * KEYS_MAX {
            it.offer(&Key::new(format!("k/{i}")), version(9));
        }
        assert!(it.young.len() + it.old.len() <= 2 * KEYS_MAX);
        assert!(!it.supersedes(&key, version(2)), "it was forgotten");
    }
}
