//! Which keys are kept in their newest version alone, and which that is. Bounded: a key that is forgotten
//! may be shipped in an older version as well, which an upstream finds outdated.

use std::{collections::HashMap, mem};

use weir_core::{key::Key, version::Version};

use crate::moves::Name;

/// Keys in each of the two generations; about 100 bytes a key.
const KEYS_MAX: usize = 32 << 10;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Newest {
    young: HashMap<u128, Known>,
    old: HashMap<u128, Known>,
}

/// The newest version of a key, and where it waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Known {
    pub(crate) version: Version,
    pub(crate) segment: Name,
}

/// What became of a version of such a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// It is the first that is known.
    First,
    /// It is the newest, and this one was before.
    Newer(Known),
    /// There is a newer one.
    Older,
}

impl Newest {
    pub(crate) fn offer(&mut self, key: &Key, version: Version, segment: Name) -> Place {
        let hash = key.hash128();
        let before = self.find(hash);
        if before.is_some_and(|before| before.version > version) {
            return Place::Older;
        }
        if self.young.len() >= KEYS_MAX && !self.young.contains_key(&hash) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(hash, Known { version, segment });
        // The same one again supersedes nothing.
        match before.filter(|before| before.version < version) {
            Some(before) => Place::Newer(before),
            None => Place::First,
        }
    }

    /// A version waits in another segment from now on, if it is the newest.
    pub(crate) fn moves(&mut self, key: &Key, version: Version, segment: Name) {
        let hash = key.hash128();
        for known in [&mut self.young, &mut self.old] {
            if let Some(known) = known.get_mut(&hash).filter(|it| it.version == version) {
                known.segment = segment;
            }
        }
    }

    /// Whether a newer version of the key is to be shipped instead.
    pub(crate) fn supersedes(&self, key: &Key, version: Version) -> bool {
        self.find(key.hash128())
            .is_some_and(|newest| newest.version > version)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.young.is_empty() // `old` is filled from `young`, which has a key at once.
    }

    fn find(&self, hash: u128) -> Option<Known> {
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
        assert_eq!(it.offer(&key, version(2), (0, 1)), Place::First);
        assert_eq!(it.offer(&key, version(1), (0, 1)), Place::Older);
        it.moves(&key, version(1), (0, 7));
        it.moves(&key, version(2), (0, 2));
        let before = Known {
            version: version(2),
            segment: (0, 2),
        };
        assert_eq!(it.offer(&key, version(3), (0, 1)), Place::Newer(before));
        assert_eq!(it.offer(&key, version(3), (0, 1)), Place::First);
        assert!(it.supersedes(&key, version(2)) && !it.supersedes(&key, version(3)));
        assert!(!it.supersedes(&Key::from("b"), version(2)));
        for i in 0..3 * KEYS_MAX {
            it.offer(&Key::new(format!("k/{i}")), version(9), (0, 1));
        }
        assert!(it.young.len() + it.old.len() <= 2 * KEYS_MAX);
        assert!(!it.supersedes(&key, version(2)), "it was forgotten");
    }
}
