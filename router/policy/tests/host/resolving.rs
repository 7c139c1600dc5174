//! `resolve` is a pure function of its arguments, also where it fails.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use weir_core::{
    resolution::{Contender, Resolution, Resolve},
    value::{Encoding, Value},
    version::{Stamp, Version},
};
use weir_policy::{Cause, Limits, ResolveFault, Resolver, Stats};

use crate::{
    guest::Guest,
    support::{host_with, load},
};

fn limits() -> Limits {
    Limits {
        resolve_fuel: 1_000_000,
        memory_bytes_max: 4 << 20,
        ..Limits::default()
    }
}

fn resolver(limits: Limits, guest: &Guest) -> Result<Resolver, weir_policy::Fault> {
    Resolver::new(
        &load(&host_with(limits), guest),
        "{}",
        Arc::new(Stats::default()),
    )
}

/// Asks about `a` at 1 and `b` at 2.
fn ask(resolver: &Resolver) -> (Result<Resolution, ResolveFault>, u64) {
    ask_about(resolver, &Value::bytes("a"), Some(&Value::bytes("b")))
}

fn ask_about(
    resolver: &Resolver,
    first: &Value,
    second: Option<&Value>,
) -> (Result<Resolution, ResolveFault>, u64) {
    let stamp = |time| Stamp { time, id: [1; 16] };
    let first = Contender {
        version: Version::put(stamp(1), first.hash()),
        value: Some(first),
    };
    let version = match second {
        Some(value) => Version::put(stamp(2), value.hash()),
        None => Version::delete(stamp(2)),
    };
    let second = Contender {
        version,
        value: second,
    };
    resolver.resolve_metered("fleet/7", first, second)
}

#[test]
fn every_kind_of_resolution_arrives() {
    for (case, expected) in [
        (0, Resolution::Default),
        (1, Resolution::First),
        (2, Resolution::Second),
        (4, Resolution::Delete),
    ] {
        let resolver = resolver(limits(), &Guest::resolver_constant(case)).unwrap();
        assert_eq!(ask(&resolver).0, Ok(expected));
    }
    let resolver = resolver(limits(), &Guest::resolver_concatenating()).unwrap();
    assert_eq!(ask(&resolver).0, Ok(Resolution::Merge(Value::bytes("ab"))));
    let full = Value {
        encoding: Encoding {
            id: 7,
            schema: Some(Bytes::from_static(b"schema")),
        },
        attachment: Some(Bytes::from_static(b"attached")),
        payload: Bytes::from(vec![b'x'; 100_000]),
    };
    let (resolution, _) = ask_about(&resolver, &full, None);
    assert_eq!(
        resolution,
        Ok(Resolution::Merge(Value::bytes(full.payload)))
    );
}

#[test]
fn the_same_question_takes_the_same_fuel() {
    let guest = Guest::resolver_concatenating();
    let counts: Vec<_> = (0..3)
        .flat_map(|_| {
            let resolver = resolver(limits(), &guest).unwrap();
            [ask(&resolver).1, ask(&resolver).1]
        })
        .collect();
    assert!(
        counts[0] > 0 && counts.iter().all(|count| *count == counts[0]),
        "{counts:?}"
    );
    // Bytes that are copied in bulk are paid for.
    let resolver = resolver(limits(), &guest).unwrap();
    let long = Value::bytes(vec![0; 50_000]);
    let more = ask_about(&resolver, &long, None).1;
    assert!(more > counts[0] + 49_000, "{more}");
}

#[test]
fn a_failure_is_the_policys_and_the_later_version_wins() {
    let loops = "(loop $l (br $l)) (unreachable)";
    let fills = "(loop $l (memory.fill (i32.const 8192) (i32.const 0) (i32.const 500000)) (br $l)) (unreachable)";
    let floods = "(loop $l (call $log (i32.const 4) (i32.const 8192) (i32.const 100000)) (br $l)) (unreachable)";
    let grows =
        "(loop $l (br_if $l (i32.ne (i32.const -1) (memory.grow (i32.const 1))))) (unreachable)";
    let error = "(i32.store8 (i32.const 512) (i32.const 1)) (i32.const 512)";
    let value = "(i32.store8 (i32.const 516) (i32.const 3))
        (i32.store (i32.const 536) (i32.const -1)) (i32.const 512)";
    for (name, body, cause) in [
        ("trap", "(unreachable)", Cause::Trap),
        ("loop", loops, Cause::Fuel),
        ("bulk", fills, Cause::Fuel),
        ("flood", floods, Cause::Fuel),
        ("growth", grows, Cause::Memory),
        ("error", error, Cause::GuestError),
        ("a value outside of memory", value, Cause::Answer),
    ] {
        let mut resolver = resolver(limits(), &Guest::resolver(body)).unwrap();
        let mut fuel = Vec::new();
        for _ in 0..3 {
            let (result, used) = ask(&resolver);
            match result {
                Err(ResolveFault::Guest(fault)) => {
                    assert_eq!(fault.cause, cause, "{name}: {fault}")
                }
                other => panic!("{name}: {other:?}"),
            }
            fuel.push(used);
        }
        assert!(fuel.iter().all(|used| *used == fuel[0]), "{name}: {fuel:?}");
        let statistics = resolver.stats().statistics();
        assert_eq!(statistics.faults, [(cause, 3)], "{name}");
        assert_eq!(
            (statistics.fallbacks, statistics.interruptions),
            (3, 0),
            "{name}"
        );
        let value = Value::bytes("a");
        let contender = Contender {
            version: Version::default(),
            value: Some(&value),
        };
        let answer = Resolve::resolve(&mut resolver, "k", contender, contender);
        assert_eq!(answer, Ok(Resolution::Default), "{name}");
    }
}

#[test]
fn an_instance_remembers_nothing() {
    // Answers the first only if it was never called before.
    let guest = Guest {
        more: "(global $calls (mut i32) (i32.const 0))".into(),
        ..Guest::resolver(
            "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
            (i32.store8 (i32.const 516) (global.get $calls)) (i32.const 512)",
        )
    };
    let resolver = resolver(limits(), &guest).unwrap();
    for _ in 0..5 {
        assert_eq!(ask(&resolver).0, Ok(Resolution::First));
    }
}

#[test]
fn what_the_host_interrupts_is_not_decided() {
    let long = Limits {
        resolve_fuel: u64::MAX / 2,
        resolve_patience: Duration::from_millis(5),
        ..limits()
    };
    let guest = Guest::resolver("(loop $l (br $l)) (unreachable)");
    let mut resolver = resolver(long, &guest).unwrap();
    match ask(&resolver).0 {
        Err(ResolveFault::Interrupted(interrupted)) => {
            assert!(interrupted.0.contains("wall clock"), "{interrupted}");
        }
        other => panic!("{other:?}"),
    }
    let value = Value::bytes("a");
    let contender = Contender {
        version: Version::default(),
        value: Some(&value),
    };
    assert!(Resolve::resolve(&mut resolver, "k", contender, contender).is_err());
    let statistics = resolver.stats().statistics();
    assert_eq!((statistics.interruptions, statistics.fallbacks), (2, 0));
    assert_eq!(statistics.faults, [(Cause::Host, 2)]);
}

#[test]
fn a_resolver_that_does_not_start_fails_before_it_serves() {
    let guest = Guest {
        init: "(loop $l (br $l)) (unreachable)".into(),
        ..Guest::resolver("(unreachable)")
    };
    let fault = resolver(limits(), &guest).err().unwrap();
    assert_eq!(fault.cause, Cause::Fuel);
}
