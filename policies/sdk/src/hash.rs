//! Hashes that are the same everywhere and for ever: what they answer is where data lies.

/// FNV-1a over the bytes, then [`mix`]: for short texts such as the name of a shard or a chunk of a
/// key. For a whole key use [`Sample::key_hash`](crate::Sample::key_hash), which costs nothing.
#[must_use]
pub fn bytes(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// Spreads a number over all 64 bits: the finalizer of SplitMix64, a bijection.
#[must_use]
pub fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The score of a bucket for a token in weighted rendezvous hashing; the greatest score has the
/// token. A bucket that comes or goes moves its own tokens only, a weight that changes only what it
/// wins or loses. 0 for a weight that is not positive.
///
/// Source: Schindelhauer and Schomaker, "Weighted distributed hash tables", SPAA 2005.
#[must_use]
pub fn score(token: u64, bucket: u64, weight: f64) -> f64 {
    if weight <= 0.0 {
        return 0.0;
    }
    // A uniform number inside (0, 1): 52 bits and a half, so that its logarithm is never 0.
    let uniform = (rank(token, bucket) as f64 + 0.5) / (1u64 << 52) as f64;
    weight / -uniform.ln()
}

/// [`score`] for buckets of one weight: other numbers in the same order, without the logarithm.
#[must_use]
pub fn rank(token: u64, bucket: u64) -> u64 {
    mix(token ^ bucket.rotate_left(32)) >> 12
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data lies where these numbers say.
    #[test]
    fn the_numbers_never_change() {
        assert_eq!(bytes(b""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(bytes(b"drone/7"), bytes(b"drone/7"));
        assert_eq!(mix(1), 0x5692_161d_100b_05e5);
    }

    #[test]
    fn ranks_are_in_the_order_of_scores() {
        for token in 0..1_000 {
            let [a, b] = [mix(token), mix(!token)];
            let (by_rank, by_score) = (
                rank(token, a) < rank(token, b),
                score(token, a, 1.0) < score(token, b, 1.0),
            );
            assert_eq!(by_rank, by_score, "{token}");
        }
    }

    #[test]
    fn weights_are_shares_and_a_new_bucket_takes_only_its_own() {
        let buckets = [("a", 1.0), ("b", 2.0), ("c", 0.0), ("d", 1.0)];
        let place = |token: u64, buckets: &[(&str, f64)]| {
            let score =
                |(name, weight): &(&str, f64)| score(mix(token), bytes(name.as_bytes()), *weight);
            (0..buckets.len()).max_by(|a, b| score(&buckets[*a]).total_cmp(&score(&buckets[*b])))
        };
        let mut counts = [0u32; 4];
        for token in 0..20_000 {
            let before = place(token, &buckets[..3]).unwrap();
            let after = place(token, &buckets).unwrap();
            assert!(
                after == before || after == 3,
                "{token} moved from {before} to {after}"
            );
            counts[after] += 1;
        }
        for (count, share) in counts.into_iter().zip([5_000, 10_000, 0, 5_000]) {
            assert!(count.abs_diff(share) < 400, "{counts:?}");
        }
    }
}
