//! Chance from a seed, so that a failure can be run again.

/// A generator of numbers (splitmix64: G. L. Steele, D. Lea, C. H. Flood, "Fast splittable
/// pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Seeded by `WEIR_SEED`, or else by the clock; says which seed it is.
    ///
    /// # Panics
    /// If `WEIR_SEED` is no number.
    #[must_use]
    pub fn from_environment() -> Self {
        let seed = match std::env::var("WEIR_SEED") {
            Ok(text) => text.parse().expect("WEIR_SEED is a number"),
            Err(_) => crate::time::hour_ago() / crate::time::SECOND,
        };
        crate::say(&format!("seed {seed}; run it again with WEIR_SEED={seed}"));
        Self(seed)
    }

    /// A number in `0..bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// Bytes that nothing compresses.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let byte = |_| u8::try_from(self.below(256)).unwrap_or(0);
        (0..length).map(byte).collect()
    }
}
