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
    /// The segment that has it and waits for it; none if that is not known for certain. Only then one that
    /// is newer takes its place: to count the same entry as superseded twice would hide another one.
    pub(crate) segment: Option<Name>,
}

/// An entry that waits only as long as no newer one of its key does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Superseded {
    hash: u128,
    pub(crate) version: Version,
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
    /// A version of a key. Where it waits is told by [`Newest::put`]; the same one as before waits where it
    /// did.
    pub(crate) fn offer(&mut self, key: &Key, version: Version) -> Place {
        let hash = key.hash128();
        let before = self.find(hash);
        if before.is_some_and(|before| before.version > version) {
            return Place::Older;
        }
        if self.young.len() >= KEYS_MAX && !self.young.contains_key(&hash) {
            self.old = mem::take(&mut self.young);
        }
        let same = before.filter(|before| before.version == version);
        let segment = same.and_then(|same| same.segment);
        self.young.insert(hash, Known { version, segment });
        // The same one again supersedes nothing.
        match before.filter(|before| before.version < version) {
            Some(before) => Place::Newer(before),
            None => Place::First,
        }
    }

    /// A version waits in a segment from now on, if it is the newest. It must not count as superseded there.
    pub(crate) fn put(&mut self, key: &Key, version: Version, segment: Name) {
        self.put_hash(key.hash128(), version, segment);
    }

    /// What this segment has is another thing from now on.
    pub(crate) fn forget_place(&mut self, segment: Name) {
        for known in self.young.values_mut().chain(self.old.values_mut()) {
            known.segment.take_if(|place| *place == segment);
        }
    }

    /// Says of an entry that a segment has, and does not count as superseded, where it waits. Returns
    /// whether a newer one waits instead, so that it is to be counted.
    pub(crate) fn settle(&mut self, entry: &Superseded, segment: Name) -> bool {
        let newest = self.find(entry.hash);
        let is_superseded = newest.is_some_and(|newest| newest.version > entry.version);
        if !is_superseded {
            self.put_hash(entry.hash, entry.version, segment);
        }
        is_superseded
    }

    /// Whether a newer version of the key is to be shipped instead.
    pub(crate) fn supersedes(&self, key: &Key, version: Version) -> bool {
        self.find(key.hash128())
            .is_some_and(|newest| newest.version > version)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.young.is_empty() // `old` is filled from `young`, which has a key at once.
    }

    fn put_hash(&mut self, hash: u128, version: Version, segment: Name) {
        for known in [&mut self.young, &mut self.old] {
            if let Some(known) = known.get_mut(&hash).filter(|it| it.version == version) {
                known.segment = Some(segment);
            }
        }
    }

    fn find(&self, hash: u128) -> Option<Known> {
        self.young
            .get(&hash)
            .or_else(|| self.old.get(&hash))
            .copied()
    }
}

impl Superseded {
    pub(crate) fn of(key: &Key, version: Version) -> Self {
        let hash = key.hash128();
        Self { hash, version }
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
        it.put(&key, version(1), (0, 7));
        it.put(&key, version(2), (0, 2));
        assert_eq!(it.offer(&key, version(2)), Place::First);
        it.forget_place((0, 7));
        let before = |time, segment| {
            Place::Newer(Known {
                version: version(time),
                segment,
            })
        };
        assert_eq!(it.offer(&key, version(3)), before(2, Some((0, 2))));
        assert_eq!(it.offer(&key, version(3)), Place::First);
        it.put(&key, version(3), (0, 2));
        it.forget_place((0, 2));
        let old = Superseded::of(&key, version(2));
        assert!(it.settle(&old, (0, 9)), "a newer one is known");
        assert_eq!(it.offer(&key, version(4)), before(3, None));
        assert!(!it.settle(&Superseded::of(&key, version(4)), (0, 9)));
        assert_eq!(it.offer(&key, version(5)), before(4, Some((0, 9))));
        assert!(it.supersedes(&key, version(2)) && !it.supersedes(&key, version(5)));
        assert!(!it.supersedes(&Key::from("b"), version(2)));
        for i in 0..3 * KEYS_MAX {
            it.offer(&Key::new(format!("k/{i}")), version(9));
        }
        assert!(it.young.len() + it.old.len() <= 2 * KEYS_MAX);
        assert!(!it.supersedes(&key, version(2)), "it was forgotten");
    }
}
