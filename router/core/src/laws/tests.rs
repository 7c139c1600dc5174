//! Lawful resolvers pass, each unlawful one is told by a law that it breaks, small and readable.

use std::{cell::Cell, collections::BTreeSet};

use super::*;
use crate::value::Encoding;

type Answer = Result<Resolution, &'static str>;

fn payload<'c>(one: Contender<'c>) -> Option<&'c [u8]> {
    one.value.map(|value| &value.payload[..])
}

fn number(one: Contender<'_>) -> Option<i64> {
    std::str::from_utf8(payload(one)?).ok()?.parse().ok()
}

fn merged(bytes: Vec<u8>) -> Answer {
    Ok(Resolution::Merge(Value::bytes(bytes)))
}

fn either(first: bool) -> Answer {
    Ok(if first {
        Resolution::First
    } else {
        Resolution::Second
    })
}

fn run(ask: impl FnMut(&str, Contender<'_>, Contender<'_>) -> Answer) -> Result<Passed, String> {
    check(&Domain::default(), ask).map_err(|example| example.to_string())
}

#[test]
fn lawful_resolvers_pass() {
    let later = run(|_, _, _| Ok(Resolution::Default));
    let earlier = run(|_, _, _| Ok(Resolution::First));
    // The greater value by any total order that holds every value.
    let greatest = run(|_, a, b| either((number(a), payload(a)) > (number(b), payload(b))));
    let union = run(|_, a, b| match (payload(a), payload(b)) {
        (Some(a), Some(b)) => merged(
            a.iter()
                .chain(b)
                .collect::<BTreeSet<_>>()
                .into_iter()
                .copied()
                .collect(),
        ),
        _ => Ok(Resolution::Delete),
    });
    let never = run(|_, _, _| Ok(Resolution::Delete));
    for passed in [later, earlier, greatest, union, never] {
        let passed = passed.unwrap();
        assert!(
            passed.equations > 1_000 && passed.calls <= 5_000,
            "{passed:?}"
        );
    }
}

#[test]
fn each_unlawful_one_is_told() {
    let flips = Cell::new(0u64);
    type Ask<'a> = Box<dyn FnMut(&str, Contender<'_>, Contender<'_>) -> Answer + 'a>;
    let rows: Vec<(&str, &str, Ask<'_>)> = vec![
        (
            "fails on a delete",
            "total",
            Box::new(|_, a, b| match (payload(a), payload(b)) {
                (Some(_), Some(_)) => Ok(Resolution::Default),
                _ => Err("trap: unreachable"),
            }),
        ),
        (
            "keeps a count",
            "deterministic",
            Box::new(|_, _, _| {
                flips.set(flips.get() + 1);
                either(u64::is_multiple_of(flips.get(), 2))
            }),
        ),
        (
            "cannot read its own",
            "closed",
            Box::new(|_, a, b| {
                if payload(a) == Some(b"!") || payload(b) == Some(b"!") {
                    return Err("unreadable");
                }
                merged(b"!".to_vec())
            }),
        ),
        (
            "too long a schema",
            "closed",
            Box::new(|_, _, _| {
                let schema = Some(bytes::Bytes::from(vec![b's'; 256]));
                let encoding = Encoding { id: 0, schema };
                Ok(Resolution::Merge(Value {
                    encoding,
                    ..Value::default()
                }))
            }),
        ),
        (
            "appends",
            "idempotent",
            Box::new(|_, a, b| {
                merged(
                    [
                        payload(a).unwrap_or_default(),
                        payload(b).unwrap_or_default(),
                    ]
                    .concat(),
                )
            }),
        ),
        (
            "adds",
            "idempotent",
            Box::new(|_, a, b| {
                let sum = number(a).unwrap_or(0) + number(b).unwrap_or(0);
                merged(sum.to_string().into_bytes())
            }),
        ),
        (
            "averages",
            "idempotent",
            Box::new(|_, a, b| {
                let mean = (number(a).unwrap_or(0) + number(b).unwrap_or(0)) / 2;
                merged(mean.to_string().into_bytes())
            }),
        ),
        (
            "greatest of those it can read",
            "commutative",
            Box::new(|_, a, b| match (number(a), number(b)) {
                (Some(a), Some(b)) => either(a > b),
                _ => Ok(Resolution::Default),
            }),
        ),
        (
            "rock, paper, scissors",
            "commutative",
            Box::new(|_, a, b| {
                let class = |one| payload(one).map_or(0, <[u8]>::len) % 3;
                either((class(a) + 1) % 3 == class(b))
            }),
        ),
    ];
    for (name, law, ask) in rows {
        let told = run(ask).expect_err(name);
        assert!(told.starts_with(&format!("not {law} ")), "{name}: {told}");
    }
}

#[test]
fn what_is_told_is_small_and_readable() {
    let sum = run(|_, a, b| {
        let sum = number(a).unwrap_or(0) + number(b).unwrap_or(0);
        merged(sum.to_string().into_bytes())
    });
    assert_eq!(
        sum.unwrap_err(),
        "not idempotent (key laws/of/a/resolver):\n  \
           a = `2` at time 1 by clock 1\n  \
           b = deleted at time 1 by clock 2\n  \
           merge(merge(a, b), a) = `4`\n  \
           merge(a, b) = `2`"
    );
    let trap = run(|_, a, _| match payload(a) {
        Some([0xFF, ..]) => Err("trap: out of bounds"),
        _ => Ok(Resolution::Default),
    });
    let trap = trap.unwrap_err();
    assert!(trap.contains("a = 0xff at time 1 by clock 1"), "{trap}");
    assert!(
        trap.contains("merge(a, b) = no answer: trap: out of bounds"),
        "{trap}"
    );
}

/// The caller's own values find what none of ours would.
#[test]
fn samples_are_tried() {
    let picky = |_: &str, a: Contender<'_>, b: Contender<'_>| {
        let special = |one| payload(one).is_some_and(|bytes| bytes.starts_with(b"site=42"));
        if special(a) || special(b) {
            Err("trap")
        } else {
            Ok(Resolution::Default)
        }
    };
    assert!(run(picky).is_ok());
    let samples = vec![Value::bytes("site=42;load=7"), Value::bytes("site=1")];
    let domain = Domain {
        samples,
        ..Domain::default()
    };
    let told = check(&domain, picky).unwrap_err();
    assert_eq!((told.law, told.inputs.len()), (Law::Total, 2));
    assert!(told.to_string().contains("`site=42`"), "{told}");
}

/// The same seed tries the same, and the budget is kept.
#[test]
fn is_a_function_of_its_seed_within_its_budget() {
    for calls_max in [0, 1, 100] {
        let mut trace = Vec::new();
        for _ in 0..2 {
            let (domain, mut asked) = (
                Domain {
                    calls_max,
                    seed: 7,
                    ..Domain::default()
                },
                Vec::new(),
            );
            let passed = check(&domain, |_, a, b| {
                asked.push((a.version, b.version));
                Answer::Ok(Resolution::Default)
            });
            // A pair is asked twice, an equation of four asks six times at the most.
            assert!(passed.unwrap().calls <= calls_max + 6);
            trace.push(asked);
        }
        assert_eq!(trace[0], trace[1]);
    }
}
