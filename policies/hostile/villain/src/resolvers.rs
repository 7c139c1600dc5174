//! Resolvers that break the laws, and some that look as if they did.

use std::hint::black_box;

use weir_policy_sdk::{Resolution, Value, Version, hash};

/// What this villain makes of two versions.
pub fn resolve(
    villain: &str,
    calls: u64,
    first: &Version,
    second: &Version,
) -> Result<Resolution, String> {
    // Villains that forget deletes: the later one wins then.
    let (Some(one), Some(other)) = (&first.value, &second.value) else {
        return match villain {
            "delete-is-an-error" => Err("cannot merge a delete".to_owned()),
            "delete-traps" => panic!("cannot merge a delete"),
            "resurrect" => Ok(put(
                Vec::new(),
                first.value.as_ref().or(second.value.as_ref()),
            )),
            "delete-absorbs-concatenate" => Ok(Resolution::Delete),
            _ => Ok(Resolution::Default),
        };
    };
    let both = |bytes: Vec<u8>| put(bytes, Some(one));
    Ok(match villain {
        // Unlawful.
        "concatenate" | "delete-absorbs-concatenate" => {
            both([one.payload.as_slice(), &other.payload].concat())
        }
        "set-but-deletes" => both(set(one, other)),
        "sum" => both(
            (number(one).wrapping_add(number(other)))
                .to_string()
                .into_bytes(),
        ),
        "average" => both(((number(one) + number(other)) / 2).to_string().into_bytes()),
        "append-mark" => both([one.payload.as_slice(), b"+"].concat()),
        "double" => both([other.payload.as_slice(), &other.payload].concat()),
        "flip" => both(other.payload.iter().map(|byte| !byte).collect()),
        "forget" => both(Vec::new()),
        "delete-both" => Resolution::Delete,
        "random-by-content" => {
            let mixed = hash::bytes(&[one.payload.as_slice(), b"|", &other.payload].concat());
            both(mixed.to_be_bytes().to_vec())
        }
        "rock-paper-scissors" => {
            // Each beats the next of three, so that no order holds.
            let hand = |value: &Value| hash::bytes(&value.payload) % 3;
            if (hand(one) + 1) % 3 == hand(other) {
                Resolution::KeepFirst
            } else {
                Resolution::KeepSecond
            }
        }
        "timestamp-in-value" => both(second.timestamp.ntp64.to_be_bytes().to_vec()),
        "huge-value" => both(vec![b'x'; 48 << 20]),
        "unlawful-only-when-empty" if one.payload.is_empty() || other.payload.is_empty() => {
            both(b"empty".to_vec())
        }

        // Harmless, because every call is made on a fresh instance: always the same answer.
        "random-by-address" => {
            let place = Box::new(0u8);
            if (&raw const *black_box(&place) as usize / 16).is_multiple_of(2) {
                Resolution::KeepFirst
            } else {
                Resolution::KeepSecond
            }
        }
        "counter" => {
            if calls.is_multiple_of(2) {
                Resolution::KeepFirst
            } else {
                Resolution::KeepSecond
            }
        }
        // Harmless: no policy is told which version arrived last, so this is the later one.
        "last-arrival" => Resolution::KeepSecond,
        _ => Resolution::Default,
    })
}

fn put(payload: Vec<u8>, like: Option<&Value>) -> Resolution {
    Resolution::Merge(Value {
        encoding: like.map_or(0, |value| value.encoding),
        schema: Vec::new(),
        payload,
        attachment: None,
    })
}

/// The bytes of both, each once, in order: a lawful merge of two values.
fn set(one: &Value, other: &Value) -> Vec<u8> {
    let mut all = [one.payload.as_slice(), &other.payload].concat();
    all.sort_unstable();
    all.dedup();
    all
}

fn number(value: &Value) -> i64 {
    value.payload.iter().fold(0, |number, byte| {
        number.wrapping_mul(256).wrapping_add(i64::from(*byte)) & 0xffff_ffff
    })
}
