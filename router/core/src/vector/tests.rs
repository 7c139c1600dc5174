//! The laws of a join-semilattice, against a plain set of stamps, and the bounds.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn stamp(time: u64, id: u8) -> Stamp {
    Stamp { time, id: [id; 16] }
}

fn vector(stamps: &[Stamp]) -> Vector {
    let mut vector = Vector::default();
    for stamp in stamps {
        vector.insert(*stamp);
    }
    vector
}

fn joined(left: &Vector, right: &Vector) -> Vector {
    let mut joined = left.clone();
    joined.join(right);
    joined
}

/// Few enough that nothing is rounded.
fn few() -> impl Strategy<Value = Vec<Stamp>> {
    proptest::collection::vec(
        (1u64..10, 1u8..5).prop_map(|(time, id)| stamp(time, id)),
        0..20,
    )
}

/// So many of so few clocks, or of so many, that each bound is met.
fn many() -> impl Strategy<Value = Vec<Stamp>> {
    let wide = (1u64..2_000, 0u16..400).prop_map(|(time, id)| {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&id.to_be_bytes());
        Stamp { time, id: bytes }
    });
    let deep = (1u64..2_000, 1u8..4).prop_map(|(time, id)| stamp(time, id));
    prop_oneof![
        proptest::collection::vec(wide, 0..900),
        proptest::collection::vec(deep, 0..200),
    ]
}

proptest! {
    #[test]
    fn is_a_set_of_stamps(left in few(), right in few()) {
        let (a, b) = (vector(&left), vector(&right));
        let (sa, sb): (BTreeSet<_>, BTreeSet<_>) =
            (left.iter().copied().collect(), right.iter().copied().collect());
        let expected = match (sa.is_superset(&sb), sa.is_subset(&sb)) {
            (true, true) => Relation::Equal,
            (true, false) => Relation::Dominates,
            (false, true) => Relation::Dominated,
            (false, false) => Relation::Concurrent,
        };
        prop_assert_eq!(a.compare(&b), expected);
        prop_assert_eq!(a == b, expected == Relation::Equal);
        let both = joined(&a, &b);
        for time in 1..10 {
            for id in 1..5 {
                let one = stamp(time, id);
                prop_assert_eq!(both.contains(one), sa.contains(&one) || sb.contains(&one));
            }
        }
        prop_assert_eq!(both.newest(), sa.union(&sb).max().copied().unwrap_or(Stamp::ZERO));
    }

    #[test]
    fn joining_is_commutative_associative_idempotent(a in few(), b in few(), c in few()) {
        let (a, b, c) = (vector(&a), vector(&b), vector(&c));
        prop_assert_eq!(joined(&a, &b), joined(&b, &a));
        prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
        prop_assert_eq!(joined(&a, &a), a);
    }

    /// Rounded or not, a join holds both, and exchanging until nothing changes ends alike.
    #[test]
    fn rounding_only_grows(left in many(), right in many(), third in many()) {
        let (a, b, c) = (vector(&left), vector(&right), vector(&third));
        for (some, stamps) in [(&a, &left), (&b, &right), (&c, &third)] {
            prop_assert!(stamps.iter().all(|stamp| some.contains(*stamp)));
        }
        let both = joined(&a, &b);
        prop_assert_eq!(&both, &joined(&b, &a));
        for part in [&a, &b] {
            prop_assert!(matches!(both.compare(part), Relation::Dominates | Relation::Equal));
        }
        let mut ring = [both, joined(&b, &c), joined(&c, &a)];
        for _ in 0..4 {
            for at in 0..3 {
                let next = joined(&ring[at], &ring[(at + 1) % 3]);
                ring[at] = next;
            }
        }
        prop_assert_eq!(&ring[0], &ring[1]);
        prop_assert_eq!(&ring[1], &ring[2]);
    }

    #[test]
    fn comes_back_as_it_was(stamps in many(), cut in any::<prop::sample::Index>()) {
        let vector = vector(&stamps);
        let mut bytes = Vec::new();
        vector.encode_into(&mut bytes);
        prop_assert!(bytes.len() <= Vector::LEN_MAX, "{} bytes", bytes.len());
        prop_assert_eq!(Vector::decode(&bytes), Some(vector));
        prop_assert_eq!(Vector::decode(&bytes[..cut.index(bytes.len())]), None);
    }

    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Some(vector) = Vector::decode(&bytes) {
            let mut again = Vec::new();
            vector.encode_into(&mut again);
            prop_assert_eq!(again, bytes);
        }
    }
}

#[test]
fn each_bound_rounds_as_it_says() {
    // Of one clock, what is older than the newest sixteen counts as merged; of another nothing does.
    let mut one = vector(&(1..=17).map(|time| stamp(2 * time, 1)).collect::<Vec<_>>());
    assert!(one.contains(stamp(1, 1)) && !one.contains(stamp(3, 1)) && !one.contains(stamp(1, 2)));
    // With many clocks fewer are told apart of each.
    for id in 0..100 {
        for time in 1..=8 {
            one.insert(stamp(2 * time, 100 + id));
        }
    }
    assert!(one.contains(stamp(3, 150)) && !one.contains(stamp(3, 99)));
    assert!(one.contains(stamp(11, 150)) && !one.contains(stamp(13, 150)));
    // With too many clocks the oldest are no longer told from anybody.
    let clock = |index: u64| {
        let mut id = [0; 16];
        id[8..].copy_from_slice(&index.to_be_bytes());
        Stamp { time: index, id }
    };
    let wide = vector(&(1..=CLOCKS_MAX as u64 + 2).map(clock).collect::<Vec<_>>());
    assert!(wide.contains(stamp(2, 9)) && !wide.contains(stamp(3, 9)));
    assert!(wide.contains(clock(3)) && wide.contains(clock(258)));
}
