//! Routes that depend on the key alone, remembered by the key's hash.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    mem,
};

use weir_core::placement::Destination;

/// What was answered for the keys seen last, in two generations: what the younger one has no room for
/// any more pushes the older one out whole. So a lookup costs one or two probes, nothing is ordered,
/// and a key that keeps coming is never forgotten.
pub(crate) struct Memo {
    keys_max: usize,
    young: Generation,
    old: Generation,
}

type Generation = HashMap<u64, Destination, BuildHasherDefault<Identity>>;

impl Memo {
    /// Remembers `keys_max` keys in each generation.
    pub fn new(keys_max: usize) -> Self {
        Self {
            keys_max: keys_max.max(1),
            young: Generation::default(),
            old: Generation::default(),
        }
    }

    pub fn get(&mut self, key_hash: u64) -> Option<Destination> {
        if let Some(destination) = self.young.get(&key_hash) {
            return Some(destination.clone());
        }
        let destination = self.old.remove(&key_hash)?;
        self.insert(key_hash, destination.clone());
        Some(destination)
    }

    pub fn insert(&mut self, key_hash: u64, destination: Destination) {
        if self.young.len() >= self.keys_max {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key_hash, destination);
    }

    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

/// Key hashes are xxh3: hashing them again adds nothing.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_keeps_coming_is_never_forgotten() {
        let mut memo = Memo::new(100);
        memo.insert(7, Destination::Shard(7));
        for key in 1000..2000 {
            memo.insert(key, Destination::Token(key));
            assert_eq!(memo.get(7), Some(Destination::Shard(7)), "{key}");
            assert_eq!(memo.get(key), Some(Destination::Token(key)));
            assert!(memo.young.len() <= 100 && memo.old.len() <= 100);
        }
        assert_eq!(memo.get(1000), None);
        memo.clear();
        assert_eq!(memo.get(7), None);
    }
}
