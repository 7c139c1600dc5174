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

/// A parcel that [`pack`] would never make.
fn forged(shape: &[u8], fill: impl FnOnce(&mut Output)) -> Bytes {
    let mut out = Output::default();
    put_len(&mut out.head, 1);
    out.head.extend([1; 16]);
    put_len(&mut out.head, 1);
    out.head.extend_from_slice(shape);
    fill(&mut out);
    out.finish(VERSION)
}

fn forged_group(out: &mut Output, shared: usize, rest: &[u8], rows: usize) {
    put_len(&mut out.head, shared);
    put_len(&mut out.head, rest.len());
    out.head.extend_from_slice(rest);
    out.head.push(0);
    put_len(&mut out.head, rows);
    for _ in 0..rows {
        out.shapes.push(0);
        out.lengths.push(0);
        out.push_time(0);
    }
    if rows > 0 {
        out.head.push(1);
        put_len(&mut out.head, rows);
    }
}

#[test]
fn a_key_of_no_entries_is_none() {
    const LONG: usize = 1 << 20;
    let packed = forged(&[0, 0, 0], |out| {
        put_len(&mut out.head, 8_000);
        forged_group(out, 0, &[b'x'; LONG], 0);
        for _ in 1..8_000 {
            forged_group(out, LONG, &[], 0);
        }
    });
    assert!(packed.len() < 1000);
    assert_eq!(unpack(&packed, 4 << 20).unwrap_err(), Unpackable::Malformed);
}

/// Each entry has it in full: it counts as often as it comes.
#[test]
fn a_shared_schema_counts_for_each_entry() {
    const LONG: usize = 1 << 20;
    let mut shape = vec![0, 0, SCHEMA];
    put_len(&mut shape, LONG);
    shape.extend([b's'; LONG]);
    for (rows, is_large) in [(3, false), (4, true), (2_000, true)] {
        let packed = forged(&shape, |out| {
            put_len(&mut out.head, 1);
            forged_group(out, 0, b"a", rows);
        });
        assert!(packed.len() < 1000);
        let unpacked = unpack(&packed, 4 << 20);
        assert_eq!(unpacked == Err(Unpackable::Large), is_large, "{rows}");
        assert_eq!(unpacked.is_ok(), !is_large, "{rows}");
    }
}

#[test]
fn one_entry_may_be_longer_than_several_together() {
    let entry = |len: usize| Entry {
        change: KeptChange::Key(Change {
            key: Key::from("a"),
            stamp: Some(Stamp {
                time: 1,
                id: [1; 16],
            }),
            value: Some(Value::bytes("x".repeat(len))),
        }),
        lane: 0,
        expires: None,
    };
    for (lens, is_taken) in [
        (&[60_000][..], true),
        (&[70_000], false),
        (&[3_000, 500], true),
        (&[3_000, 1_500], false),
        (&[60_000, 1], false),
    ] {
        let entries: Vec<Entry> = lens.iter().map(|len| entry(*len)).collect();
        let unpacked = unpack_long(&pack(&entries), 4 << 10, 64 << 10);
        assert_eq!(unpacked.is_ok(), is_taken, "{lens:?}");
        assert!(is_taken || unpacked == Err(Unpackable::Large), "{lens:?}");
    }
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
