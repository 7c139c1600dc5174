use proptest::prelude::*;
use weir_core::ledger::Item;

use super::*;

fn any_value() -> impl Strategy<Value = Option<Value>> {
    let payload = prop_oneof![
        "[{]\"v\":-?[0-9]{1,3}[.]?[0-9]{0,2},\"n\":(null|1e-0[0-9]|[0-9]+)[}]"
            .prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..12),
        any::<f64>().prop_map(|value| value.to_le_bytes().to_vec()),
        "[a-z0-9\u{0}\né]{0,5}".prop_map(String::into_bytes),
    ];
    let some = prop::option::of(prop::collection::vec(any::<u8>(), 0..4));
    let value =
        (payload, 0u16..3, some.clone(), some).prop_map(|(payload, id, schema, attachment)| {
            let schema = schema.map(Bytes::from);
            let attachment = attachment.map(Bytes::from);
            Value {
                encoding: Encoding { id, schema },
                attachment,
                payload: payload.into(),
            }
        });
    prop::option::weighted(0.9, value)
}

fn any_entry() -> impl Strategy<Value = Entry> {
    (
        any_value(),
        0u8..3,
        "[ab]/[ab]{1,2}",
        any::<bool>(),
        any::<u64>(),
    )
        .prop_map(|(value, source, key, is_wildcard, time)| {
            let stamp = Some(Stamp {
                time,
                id: [source; 16],
            });
            let change = if is_wildcard {
                let expr = OwnedKeyExpr::new(format!("{key}/**")).unwrap();
                KeptChange::Wildcard(WildcardChange { expr, stamp, value })
            } else {
                KeptChange::Key(Change {
                    key: Key::new(key),
                    stamp,
                    value,
                })
            };
            Entry {
                change,
                lane: 0,
                expires: None,
            }
        })
}

fn sorted(changes: impl IntoIterator<Item = KeptChange>) -> Vec<(String, KeptChange)> {
    let text = |change: &KeptChange| match change {
        KeptChange::Key(change) => format!("{} 0", change.key),
        KeptChange::Wildcard(change) => format!("{} 1", change.expr),
    };
    let mut all: Vec<_> = changes
        .into_iter()
        .map(|change| (text(&change), change))
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0)); // Stable: within a key the order counts.
    all
}

proptest! {
    #[test]
    fn parcels_come_back_bit_by_bit(entries in prop::collection::vec(any_entry(), 0..60)) {
        let packed = pack(&entries);
        let changes = unpack(&packed, 1 << 20).unwrap();
        prop_assert_eq!(sorted(changes), sorted(entries.into_iter().map(|entry| entry.change)));
    }

    #[test]
    fn nonsense_is_refused_and_never_large(
        entries in prop::collection::vec(any_entry(), 1..20),
        at: prop::sample::Index,
        bit in 0u8..8,
        cut: prop::sample::Index,
    ) {
        let packed = pack(&entries).to_vec();
        let mut bad = packed.clone();
        bad[at.index(packed.len())] ^= 1 << bit;
        for bytes in [bad, packed[..cut.index(packed.len())].to_vec()] {
            // It has no checksum of its own; what it must not do is panic, or take more than it may.
            if let Ok(changes) = unpack(&Bytes::from(bytes), 4096) {
                prop_assert!(changes.len() <= 4096 / ENTRY_BYTES);
            }
        }
    }
}

#[test]
fn what_is_too_large_or_of_another_version_is_said() {
    let value = Some(Value::bytes("x".repeat(1000)));
    let stamp = Some(Stamp {
        time: 1,
        id: [1; 16],
    });
    let change = KeptChange::Key(Change {
        key: Key::from("a"),
        stamp,
        value,
    });
    let packed = pack(&vec![
        Entry {
            change,
            lane: 0,
            expires: None
        };
        100
    ]);
    assert!(packed.len() < 1500);
    assert_eq!(unpack(&packed, 100_000).unwrap_err(), Unpackable::Large);
    assert_eq!(unpack(&packed, 110_000).unwrap().len(), 100);
    let mut other = packed.to_vec();
    other[0] = 2;
    assert_eq!(
        unpack(&other.into(), 1 << 20).unwrap_err(),
        Unpackable::Version(2)
    );
}

/// 40 bytes of JSON at 10,000 a second over 200 keys.
pub(crate) fn readings(count: u64) -> Vec<Entry> {
    let mut seed = 7u64;
    let mut chance = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    let mut values = vec![20_000u64; 200];
    let reading = |i: u64| {
        let key = i % 200;
        let value = &mut values[usize::try_from(key).unwrap()];
        *value = *value + chance(41) - 20;
        let (whole, part) = (*value / 1000, *value % 1000);
        let payload = format!("{{\"t\":{i},\"v\":{whole}.{part:03},\"ok\":true,\"q\":9}}");
        // 100 us apart, and up to 10 us late.
        let time = (1_700_000_000 << 32) + i * 429_497 + chance(42_950);
        let change = Change {
            key: Key::new(format!("vehicle/42/sensor/{key}")),
            stamp: Some(Stamp { time, id: [9; 16] }),
            value: Some(Value::bytes(payload)),
        };
        Entry {
            change: KeptChange::Key(change),
            lane: 3,
            expires: None,
        }
    };
    (0..count).map(reading).collect()
}

#[test]
fn small_json_takes_six_bytes() {
    let entries = readings(6_000);
    let packed = pack(&entries);
    let bytes = packed.len() as f64 / entries.len() as f64;
    assert!(bytes < 6.0, "{bytes} bytes an entry");
    let hash = |change: KeptChange| match change {
        KeptChange::Key(change) => {
            let version = change.version(change.stamp.unwrap());
            Item {
                key: change.key,
                version,
                merged: 0,
            }
            .hash()
        }
        KeptChange::Wildcard(_) => 0,
    };
    let sum = |changes: Vec<KeptChange>| changes.into_iter().map(hash).fold(0, u128::wrapping_add);
    let unpacked = unpack(&packed, 1 << 20).unwrap();
    assert_eq!(
        sum(unpacked),
        sum(entries.into_iter().map(|entry| entry.change).collect())
    );
}
