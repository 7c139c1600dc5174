//! Each cause of a failure, provoked by a guest that does it; and that nothing else happens.

use std::{sync::Arc, time::Duration};

use weir_core::placement::Destination;
use weir_policy::{Blame, Cause, Environment, Limits, RouteInstance, Stats};

use crate::{
    guest::{Guest, PRIORITIZE, ROUTE},
    support::{host_with, load, route, router},
};

/// A host whose limits are met soon.
fn limits() -> Limits {
    Limits {
        memory_bytes_max: 4 << 20,
        batch_cpu_max: Duration::from_millis(10),
        init_cpu_max: Duration::from_millis(50),
        ..Limits::default()
    }
}

/// Routes with the body, twice, and expects the same failure both times: an instance that failed is
/// replaced, and the samples go where the native rule puts them.
fn check(name: &str, guest: &Guest, cause: Cause, says: &str) {
    let host = host_with(limits());
    let mut instance = router(&host, guest).unwrap_or_else(|fault| panic!("{name}: {fault}"));
    for round in 1..=2 {
        let (destinations, result) = route(&mut instance, 3);
        let fault = result.expect_err(name);
        assert_eq!(
            (fault.cause, fault.blame),
            (cause, Blame::Guest),
            "{name}: {fault}"
        );
        assert!(fault.message.contains(says), "{name}: {fault}");
        assert_eq!(destinations, vec![Destination::Default; 3], "{name}");
        let statistics = instance.stats().statistics();
        assert_eq!(statistics.faults, [(cause, round)], "{name}");
        assert_eq!(
            (statistics.fallbacks, statistics.calls),
            (3 * round, round),
            "{name}"
        );
        assert_eq!(statistics.last_fault, Some(fault), "{name}");
    }
}

#[test]
fn whatever_a_guest_does_costs_its_answer_and_nothing_else() {
    let body = |body: &str| Guest::router(body);
    let each = |body: &str| Guest::router_each(body);
    check("trap", &body("(unreachable)"), Cause::Trap, "unreachable");
    let divides = body("(i32.div_u (i32.const 1) (i32.const 0))");
    check("division", &divides, Cause::Trap, "divide by zero");
    let outside = body("(i32.load (i32.const -8))");
    check("outside of memory", &outside, Cause::Trap, "out of bounds");
    let mut recursion = body("(call $deeper (local.get $count))");
    recursion.more = "(func $deeper (param i32) (result i32)
        (i32.add (i32.const 1) (call $deeper (i32.add (local.get 0) (i32.const 1)))))"
        .into();
    check("recursion", &recursion, Cause::Trap, "stack");
    check(
        "loop",
        &body("(loop $l (br $l)) (unreachable)"),
        Cause::Timeout,
        "10ms of CPU",
    );
    let grows = body(
        "(loop $l (br_if $l (i32.ne (i32.const -1) (memory.grow (i32.const 1))))) (unreachable)",
    );
    check("growth", &grows, Cause::Memory, "4194304 is the limit");
    let short = body("(call $list (i32.const 2048) (i32.sub (local.get $count) (i32.const 1)))");
    check("too few", &short, Cause::Length, "2 answers for 3 samples");
    let long = body("(call $list (i32.const 2048) (i32.add (local.get $count) (i32.const 1)))");
    check("too many", &long, Cause::Length, "4 answers for 3 samples");
    let shard = "(i32.store8 (local.get $answer) (i32.const 2))
        (i32.store offset=8 (local.get $answer) (local.get $shards))";
    check(
        "no such shard",
        &each(shard),
        Cause::ShardRange,
        "shard 4, there are 4",
    );
    let shards = |at: &str, count: &str| {
        each(&format!(
            "(i32.store8 (local.get $answer) (i32.const 3))
            (i32.store offset=8 (local.get $answer) (i32.const {at}))
            (i32.store offset=12 (local.get $answer) (i32.const {count}))"
        ))
    };
    check(
        "no shards",
        &shards("2048", "0"),
        Cause::Answer,
        "named 0 shards",
    );
    check(
        "many shards",
        &shards("2048", "17"),
        Cause::Answer,
        "named 17 shards",
    );
    let mut one = shards("4096", "1");
    one.more = r#"(data (i32.const 4096) "\09")"#.into();
    check(
        "a list with no such shard",
        &one,
        Cause::ShardRange,
        "shard 9",
    );
    check(
        "a list outside of memory",
        &shards("-4", "4"),
        Cause::Answer,
        "cannot be read",
    );
    check(
        "a crooked list",
        &shards("2049", "1"),
        Cause::Answer,
        "cannot be read",
    );
    // Every answer names the whole memory: 3 MiB that are one MiB in the guest.
    check(
        "answers that multiply",
        &shards("0", "262144"),
        Cause::Answer,
        "cannot be read",
    );
    let reject = "(i32.store8 (local.get $answer) (i32.const 4))
        (i32.store offset=8 (local.get $answer) (i32.const 1))";
    check(
        "an unknown reason",
        &each(reject),
        Cause::Answer,
        "reason 1, its manifest names 1",
    );
    let case = "(i32.store8 (local.get $answer) (i32.const 9))";
    check(
        "an unknown case",
        &each(case),
        Cause::Answer,
        "cannot be read",
    );
    let huge = body("(call $list (i32.const 0) (i32.const 80000))");
    check("a huge answer", &huge, Cause::Answer, "cannot be read");
    check(
        "an answer nowhere",
        &body("(i32.const -4)"),
        Cause::Answer,
        "cannot be read",
    );
    let error = |at: u32, length: u32| {
        body(&format!(
            "(i32.store8 (i32.const 512) (i32.const 1))
            (i32.store (i32.const 516) (i32.const {at}))
            (i32.store (i32.const 520) (i32.const {length})) (i32.const 512)"
        ))
    };
    let mut own = error(4096, 8);
    own.more = r#"(data (i32.const 4096) "I refuse")"#.into();
    check("an error of its own", &own, Cause::GuestError, "I refuse");
    let mut broken = error(4096, 2);
    broken.more = r#"(data (i32.const 4096) "\ff\fe")"#.into();
    check(
        "an error that is no text",
        &broken,
        Cause::Answer,
        "cannot be read",
    );
    check(
        "an endless error",
        &error(0, 1_000_000),
        Cause::Answer,
        "cannot be read",
    );
}

/// An instance that does not start says why, and starting it does no harm either.
fn check_start(name: &str, guest: &Guest, cause: Cause, says: &str) {
    let host = host_with(limits());
    let fault = router(&host, guest)
        .err()
        .unwrap_or_else(|| panic!("{name}: it started"));
    assert_eq!(
        (fault.cause, fault.blame),
        (cause, Blame::Guest),
        "{name}: {fault}"
    );
    assert!(fault.message.contains(says), "{name}: {fault}");
    let manifest = load(&host, guest).manifest(&Environment::default());
    assert!(manifest.is_err(), "{name}");
}

#[test]
fn an_instance_that_does_not_start_is_told() {
    let init = |init: &str| Guest {
        init: init.into(),
        ..Guest::router("(unreachable)")
    };
    check_start("trap", &init("(unreachable)"), Cause::Trap, "unreachable");
    check_start(
        "loop",
        &init("(loop $l (br $l)) (unreachable)"),
        Cause::Timeout,
        "50ms of CPU",
    );
    let started = Guest {
        more: "(start $begin) (func $begin (loop $l (br $l)))".into(),
        ..Guest::router("(unreachable)")
    };
    check_start(
        "a start that loops",
        &started,
        Cause::Timeout,
        "50ms of CPU",
    );
    let refuses = Guest {
        init: "(i32.store8 (i32.const 512) (i32.const 1))
            (i32.store (i32.const 520) (i32.const 4096))
            (i32.store (i32.const 524) (i32.const 13)) (i32.const 512)"
            .into(),
        more: r#"(data (i32.const 4096) "no such region")"#.into(),
        ..Guest::router("(unreachable)")
    };
    check_start(
        "refusal",
        &refuses,
        Cause::Init,
        "bad settings: no such regio",
    );
    let manifest = |change: fn(&mut Guest)| {
        let mut guest = Guest::router("(unreachable)");
        change(&mut guest);
        guest
    };
    check_start(
        "no hook",
        &manifest(|guest| guest.hooks = 0),
        Cause::Init,
        "names no hook",
    );
    check_start(
        "a hook that is not exported",
        &manifest(|guest| guest.hooks = ROUTE | PRIORITIZE),
        Cause::Init,
        "does not export backlog-priority",
    );
    check_start(
        "too much of each payload",
        &manifest(|guest| guest.payload_prefix = 4097),
        Cause::Init,
        "4096 is the most",
    );
    check_start(
        "too many reasons",
        &manifest(|guest| guest.reasons = vec!["r".into(); 65]),
        Cause::Init,
        "64 is the most",
    );
    check_start(
        "a long name",
        &manifest(|guest| guest.reasons = vec!["r".repeat(257)]),
        Cause::Init,
        "256 is the most",
    );
    check_start(
        "a manifest without end",
        &manifest(|guest| {
            guest.init =
                "(i32.store (i32.const 1032) (i32.const 1000000000)) (global.get $manifest)".into()
        }),
        Cause::Answer,
        "cannot be read",
    );
}

#[test]
fn a_policy_that_traps_now_and_then_loses_those_calls_alone() {
    // Every third call of an instance traps; a fresh one counts from 0 again.
    let guest = Guest {
        more: "(global $calls (mut i32) (i32.const 0))".into(),
        ..Guest::router_each(
            "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
            (if (i32.eq (global.get $calls) (i32.const 3)) (then (unreachable)))
            (i32.store8 (local.get $answer) (i32.const 1))
            (i64.store32 offset=8 (local.get $answer) (i64.extend_i32_u (global.get $calls)))",
        )
    };
    let host = host_with(limits());
    let mut instance = router(&host, &guest).unwrap();
    let mut seen = Vec::new();
    for _ in 0..7 {
        let (destinations, result) = route(&mut instance, 1);
        assert_eq!(result.is_err(), destinations == [Destination::Default]);
        seen.extend(destinations);
    }
    let (one, two) = (Destination::Token(1), Destination::Token(2));
    let none = Destination::Default;
    let expected = [&one, &two, &none, &one, &two, &none, &one];
    assert_eq!(seen.iter().collect::<Vec<_>>(), expected);
    assert_eq!(instance.stats().statistics().starts, 3);
}

#[test]
fn a_long_batch_loses_only_the_call_that_failed() {
    // A call is refused if it begins with the second thousand and so.
    let guest = Guest::router_each(
        "(if (i64.eq (i64.load offset=8 (local.get $sample)) (i64.const 2024)) (then (unreachable)))
        (i32.store8 (local.get $answer) (i32.const 2))",
    );
    let guest = Guest {
        needs: crate::guest::TIMESTAMP,
        ..guest
    };
    let host = host_with(limits());
    let mut instance = router(&host, &guest).unwrap();
    let (destinations, result) = route(&mut instance, 2500);
    assert_eq!(result.unwrap_err().cause, Cause::Trap);
    for (index, destination) in destinations.into_iter().enumerate() {
        let failed = (1024..2048).contains(&index);
        let expected = if failed {
            Destination::Default
        } else {
            Destination::Shard(0)
        };
        assert_eq!(destination, expected, "{index}");
    }
    let statistics = instance.stats().statistics();
    assert_eq!(
        (statistics.calls, statistics.samples, statistics.fallbacks),
        (3, 2500, 1024)
    );
}

#[test]
fn a_flood_of_lines_is_dropped_and_counted() {
    let guest = Guest::router_each("(call $log (i32.const 2) (i32.const 1024) (i32.const 16))");
    let host = host_with(limits());
    let mut instance = router(&host, &guest).unwrap();
    let (_, result) = route(&mut instance, 500);
    assert_eq!(result, Ok(()));
    let dropped = instance.stats().statistics().log_lines_dropped;
    assert!((450..=480).contains(&dropped), "{dropped}");
}

#[test]
fn two_instances_share_what_they_count() {
    let guest = Guest::router_each("(call $count_up (i32.const 0) (i64.const 2))");
    let host = host_with(limits());
    let revision = load(&host, &guest);
    let stats = Arc::new(Stats::default());
    for _ in 0..2 {
        let environment = Environment::default();
        let mut instance = RouteInstance::new(&revision, &environment, Arc::clone(&stats)).unwrap();
        route(&mut instance, 10).1.unwrap();
    }
    let statistics = stats.statistics();
    assert_eq!((statistics.calls, statistics.counters[0]), (2, 40));
    assert!(statistics.memory_bytes_peak >= 20 << 16, "{statistics:?}");
    assert!(statistics.p99 > Duration::ZERO && statistics.cpu > Duration::ZERO);
}
