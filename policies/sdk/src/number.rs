//! Numbers of JSON in their true order.

use std::cmp::Ordering;

use serde_json::Number;

/// Orders two numbers of JSON exactly: 2^53 + 1 is more than 2^53, which as floats they are not; 1
/// equals 1.0, and 0 equals -0. So it is a total order, which a resolver that compares needs:
/// comparing integers as integers and everything else as floats is none.
#[must_use]
pub fn number_order(one: &Number, other: &Number) -> Ordering {
    let float = |number: &Number| number.as_f64().unwrap_or(0.0);
    match (integer(one), integer(other)) {
        (Some(one), Some(other)) => one.cmp(&other),
        (None, None) => float_order(float(one), float(other)),
        (Some(one), None) => mixed_order(one, float(other)),
        (None, Some(other)) => mixed_order(other, float(one)).reverse(),
    }
}

fn integer(number: &Number) -> Option<i128> {
    number
        .as_i64()
        .map(i128::from)
        .or(number.as_u64().map(i128::from))
}

/// JSON has neither NaN nor infinities, so any two floats can be compared.
fn float_order(one: f64, other: f64) -> Ordering {
    one.partial_cmp(&other).unwrap_or(Ordering::Equal)
}

fn mixed_order(integer: i128, float: f64) -> Ordering {
    // Integers here have 64 bits, so a float outside of 2^100 is beyond them all, and one inside has
    // a whole part that i128 holds exactly.
    const BOUND: f64 = (1u128 << 100) as f64;
    if float >= BOUND {
        return Ordering::Less;
    }
    if float <= -BOUND {
        return Ordering::Greater;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the whole part is what is wanted"
    )]
    let whole = float.trunc() as i128;
    integer
        .cmp(&whole)
        .then_with(|| float_order(0.0, float.fract()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ordered_exactly() {
        let groups = [
            &["-1e300"][..],
            &["-9223372036854775808", "-9223372036854775808.0"],
            &["-2"],
            &["-1.5"],
            &["-1", "-1.0"],
            &["0", "-0", "-0.0", "0e9"],
            &["0.5"],
            &["1", "1.0", "1e0"],
            &["9007199254740992", "9007199254740992.0"],
            &["9007199254740993"],
            &["18446744073709551615"],
            &["18446744073709551616"],
            &["1e300"],
        ];
        let ranked = || {
            groups
                .iter()
                .enumerate()
                .flat_map(|(rank, texts)| texts.iter().map(move |text| (rank, *text)))
        };
        for (rank, one) in ranked() {
            for (other_rank, other) in ranked() {
                let number = |text| serde_json::from_str::<Number>(text).unwrap();
                let order = number_order(&number(one), &number(other));
                assert_eq!(order, rank.cmp(&other_rank), "{one} {other}");
            }
        }
    }
}
