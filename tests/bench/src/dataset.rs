//! Keys and values, the same on every side.
//!
//! Sample number `n` of publisher `p` of `of` goes to the key `p + of * (n % share)` and carries
//! `n`, so that whoever knows how many samples were sent knows the last value of every key. A
//! scattered share takes its keys in another order, and that one again and again.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// What the storages and the yardsticks declare.
pub const ALL: &str = "bench/**";

/// The key with this number.
pub fn key(index: usize) -> String {
    format!("bench/drone/{index:07}/pose")
}

/// The values of one size.
pub struct Values {
    /// Bytes that no compressor shortens: a value is a piece of it, and real telemetry is
    /// somewhere between this and a constant.
    pool: Vec<u8>,
    size: usize,
}

/// The number that a value starts with, in bytes.
const NUMBER: usize = size_of::<u64>();

impl Values {
    /// Values of `size` bytes, at least the eight of the number in front.
    pub fn new(size: usize) -> Self {
        let size = size.max(NUMBER);
        let words =
            (0..(64 * 1024 + size).div_ceil(NUMBER) as u64).map(|n| xxh3_64(&n.to_le_bytes()));
        let pool = words.flat_map(u64::to_le_bytes).collect();
        Self { pool, size }
    }

    /// The value with this number.
    pub fn make(&self, number: u64) -> Vec<u8> {
        // A stride that is prime to the pool visits every offset before it repeats one.
        let offset = usize::try_from(number.wrapping_mul(4_099) % (64 * 1024)).unwrap_or_default();
        let mut value = self.pool[offset..offset + self.size].to_vec();
        value[..NUMBER].copy_from_slice(&number.to_le_bytes());
        value
    }
}

/// The number in front of a value; nothing if it is too short to be one of ours.
pub fn number(value: &[u8]) -> Option<u64> {
    value.first_chunk().copied().map(u64::from_le_bytes)
}

/// A digest of one sample. The wrapping sum over many does not depend on their order.
pub fn digest(key: &str, value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, xxh3_64(key.as_bytes()))
}

/// The digest of the first `keys` keys, each with the value of its own number.
pub fn digest_all(keys: usize, size: usize) -> u64 {
    let values = Values::new(size);
    (0..keys).fold(0, |sum: u64, n| {
        sum.wrapping_add(digest(&key(n), &values.make(n as u64)))
    })
}

/// One publisher's part of the keys.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Which of the publishers this is, from 0.
    pub publisher: usize,
    /// How many publishers there are.
    pub of: usize,
    /// How many keys they share.
    pub keys: usize,
    /// Its own keys come in an order that looks random, instead of one after the other.
    pub scattered: bool,
}

impl Share {
    /// How many keys are its own.
    pub fn len(self) -> usize {
        (self.keys - self.publisher).div_ceil(self.of)
    }

    /// The number of its `nth` key.
    pub fn key_index(self, nth: usize) -> usize {
        let nth = if self.scattered {
            scatter(nth, self.len())
        } else {
            nth
        };
        self.publisher + self.of * nth
    }

    /// For each of its keys that has one: the key's number and the last value's number after
    /// `sent` samples.
    pub fn last(self, sent: u64) -> impl Iterator<Item = (usize, u64)> {
        let len = self.len() as u64;
        (0..self.len())
            .take_while(move |nth| (*nth as u64) < sent)
            .map(move |nth| {
                let rounds = (sent - 1 - nth as u64) / len;
                (self.key_index(nth), nth as u64 + rounds * len)
            })
    }
}

/// The number that comes at place `nth` of an order that looks random, in which every number below
/// `len` comes once.
fn scatter(nth: usize, len: usize) -> usize {
    let bits = len.next_power_of_two().trailing_zeros();
    let mask = (1 << bits) - 1;
    let mut n = nth;
    loop {
        // Each step can be undone, so no two numbers ever meet.
        for odd in [0x9E37_79B1, 0x85EB_CA77] {
            n = n.wrapping_add(1).wrapping_mul(odd) & mask;
            n ^= n >> bits.div_ceil(2).max(1);
        }
        // Outside it is one of an order of its own, which comes back inside.
        if n < len {
            return n;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays the publishing and compares with the formula.
    #[track_caller]
    fn check_last(share: Share, sent: u64) {
        let mut expected = std::collections::BTreeMap::new();
        for n in 0..sent {
            let nth = usize::try_from(n).unwrap() % share.len();
            expected.insert(share.key_index(nth), n);
        }
        let got: std::collections::BTreeMap<_, _> = share.last(sent).collect();
        assert_eq!(got, expected, "{share:?} after {sent}");
    }

    #[test]
    fn the_last_value_of_every_key_is_known() {
        for (publisher, of, keys) in [(0, 1, 10), (0, 4, 10), (3, 4, 10), (1, 2, 7)] {
            for sent in [0, 1, 2, 3, 9, 10, 11, 25] {
                for scattered in [false, true] {
                    check_last(
                        Share {
                            publisher,
                            of,
                            keys,
                            scattered,
                        },
                        sent,
                    );
                }
            }
        }
    }

    #[test]
    fn shares_cover_every_key_once() {
        for (of, keys) in [(4, 10), (1, 1), (1, 2), (1, 1_000), (3, 4_097)] {
            for scattered in [false, true] {
                let mut seen: Vec<_> = (0..of)
                    .map(|publisher| Share {
                        publisher,
                        of,
                        keys,
                        scattered,
                    })
                    .flat_map(|share| (0..share.len()).map(move |nth| share.key_index(nth)))
                    .collect();
                seen.sort_unstable();
                assert_eq!(seen, (0..keys).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn neighbours_are_scattered() {
        let near = (1..1_000).filter(|n| scatter(*n, 1_000).abs_diff(scatter(n - 1, 1_000)) < 10);
        assert!(near.count() < 100);
    }

    #[test]
    fn a_value_carries_its_number_and_a_digest_sees_a_change() {
        let values = Values::new(64);
        assert_eq!(values.make(7).len(), 64);
        assert_eq!(number(&values.make(7)), Some(7));
        assert_eq!(number(b"short"), None);
        assert_ne!(values.make(7)[8..], values.make(8)[8..]);
        assert_ne!(digest("a", &values.make(7)), digest("b", &values.make(7)));
        assert_ne!(digest_all(10, 64), digest_all(11, 64));
    }
}
