//! HLC times to nanoseconds and back, without loss.
//!
//! A second has 2^32 fractions and 10^9 nanoseconds, so four or five HLC times share a nanosecond.
//! What tells them apart is their rank in it: how far they are from the first of them.

const NANOS_PER_SEC: u128 = 1_000_000_000;

/// The nanosecond that an HLC time (NTP64) lies in, since the Unix epoch, rounded up as
/// `uhlc::NTP64::as_nanos` does: the last fractions of a second share the next second's first.
/// Below 2^62, so it fits what InfluxDB takes.
#[must_use]
pub fn nanos(time: u64) -> u64 {
    saturated((u128::from(time) * NANOS_PER_SEC).div_ceil(1 << 32))
}

/// The first HLC time of a nanosecond. Beyond the last, the last.
#[must_use]
pub fn first_of(nanos: u64) -> u64 {
    let Some(before) = nanos.checked_sub(1) else {
        return 0;
    };
    saturated((u128::from(before) << 32) / NANOS_PER_SEC + 1)
}

/// An HLC time as its nanosecond and its rank in it, 0 to 4.
#[must_use]
pub fn split(time: u64) -> (u64, u64) {
    let nanos = nanos(time);
    (nanos, time - first_of(nanos))
}

/// The inverse of [`split`]; `None` for what no time is split into.
#[must_use]
pub fn join(nanos: u64, rank: u64) -> Option<u64> {
    let time = first_of(nanos).checked_add(rank)?;
    (split(time) == (nanos, rank)).then_some(time)
}

fn saturated(wide: u128) -> u64 {
    u64::try_from(wide).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As uhlc has it: whole seconds, and the fraction rounded up.
    fn as_uhlc(time: u64) -> u64 {
        let fraction = u128::from(time & 0xFFFF_FFFF) * NANOS_PER_SEC;
        (time >> 32) * 1_000_000_000 + u64::try_from(fraction.div_ceil(1 << 32)).unwrap()
    }

    #[track_caller]
    fn check(time: u64) {
        let (nanos, rank) = split(time);
        assert_eq!(nanos, as_uhlc(time), "{time}");
        assert_eq!(join(nanos, rank), Some(time), "{time}");
        assert!(rank <= 4, "{time} has rank {rank}");
        assert_eq!(join(nanos, rank + 5), None, "{time}");
        assert!(i64::try_from(nanos).is_ok());
    }

    /// Every time within 20 of an edge: of the epoch, of seconds, of all there is.
    #[test]
    fn is_exact_at_the_edges() {
        let seconds = [
            0u64,
            1,
            2,
            1_700_000_000,
            (1 << 31) - 1,
            1 << 31,
            (1 << 32) - 1,
        ];
        for second in seconds {
            for step in 0..20 {
                check((second << 32) + step);
                check((second << 32).saturating_sub(step));
                check(((second << 32) | 0xFFFF_FFFF) - step);
                check((second << 32) + (1 << 31) + step);
            }
        }
        for step in 0..20 {
            check(u64::MAX - step);
            check(step);
        }
    }

    #[test]
    fn the_last_fractions_of_a_second_are_in_the_next() {
        let next = 7u64 << 32;
        assert_eq!(nanos(next), 7_000_000_000);
        assert_eq!(split(next), (7_000_000_000, 4));
        assert_eq!(split(next - 4), (7_000_000_000, 0));
        assert_eq!(nanos(next - 5), 6_999_999_999);
    }

    proptest! {
        #[test]
        fn the_inverse_is_exact(time in any::<u64>()) {
            check(time);
        }

        #[test]
        fn order_is_kept(a in any::<u64>(), step in 0u64..20) {
            let b = a.saturating_add(step);
            prop_assert!(nanos(a) <= nanos(b));
            prop_assert!(nanos(a) < nanos(b) || split(a).1 <= split(b).1);
        }
    }
}
