//! What guests see, what they answer, and what is remembered of it.

use std::sync::Arc;

use weir_core::{
    backlog::{LinkState, Placement, Verdict},
    placement::Destination,
};
use weir_policy::{
    Cause, Environment, Fields, Hook, Limits, PrioritizeInstance, RouteInstance, Stats,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    guest::{ATTACHMENT, ENCODING, Guest, KEY, KIND, PAYLOAD, PRIORITY, SIZE, TIMESTAMP},
    support::{Samples, host, host_with, load, route, router},
};

/// Answers the token at this offset of the sample.
fn token(needs: u8, load: &str) -> Guest {
    Guest {
        needs,
        payload_prefix: 64,
        ..Guest::router_each(&format!(
            "(i32.store8 (local.get $answer) (i32.const 1))
            (i64.store offset=8 (local.get $answer) ({load} (local.get $sample)))"
        ))
    }
}

/// What it answers about two puts and a delete.
fn tokens(guest: &Guest) -> Vec<u64> {
    let mut instance = router(&host(), guest).unwrap();
    let samples = Samples::new(3);
    let mut batch = samples.describe();
    batch[2].value = None;
    let mut destinations = Vec::new();
    instance
        .route("fleet", 4, &batch, &mut destinations)
        .unwrap();
    let token = |destination| match destination {
        Destination::Token(token) => token,
        other => panic!("{other:?}"),
    };
    destinations.into_iter().map(token).collect()
}

#[test]
fn a_guest_sees_what_it_asked_for() {
    let hashes = ["fleet/0", "fleet/1", "fleet/2"].map(|key| xxh3_64(key.as_bytes()));
    assert_eq!(tokens(&token(0, "i64.load")), hashes);
    assert_eq!(
        tokens(&token(TIMESTAMP, "i64.load offset=8")),
        [1000, 1001, 1002]
    );
    assert_eq!(
        tokens(&token(0, "i64.load offset=8")),
        [0, 0, 0],
        "not asked for"
    );
    assert_eq!(tokens(&token(SIZE, "i64.load32_u offset=32")), [9, 9, 0]);
    assert_eq!(tokens(&token(KEY, "i64.load32_u offset=36")), [7, 14, 21]);
    assert_eq!(
        tokens(&token(PAYLOAD, "i64.load32_u offset=40")),
        [9, 18, 18]
    );
    assert_eq!(
        tokens(&token(ATTACHMENT, "i64.load32_u offset=44")),
        [4, 8, 8]
    );
    assert_eq!(
        tokens(&token(TIMESTAMP, "i64.load offset=16")),
        [0x0101_0101_0101_0101; 3]
    );
    assert_eq!(
        tokens(&token(TIMESTAMP, "i64.load offset=24")),
        [0x0101_0101_0101_0102; 3]
    );
    assert_eq!(
        tokens(&token(ENCODING, "i64.load16_u offset=48")),
        [7, 7, 0]
    );
    assert_eq!(tokens(&token(PRIORITY, "i64.load8_u offset=50")), [5; 3]);
    assert_eq!(tokens(&token(KIND, "i64.load8_u offset=51")), [0, 0, 1]);
    // The last byte of each key.
    let last = Guest {
        needs: KEY,
        ..Guest::router_each(
            "(i32.store8 (local.get $answer) (i32.const 1))
            (i64.store offset=8 (local.get $answer) (i64.load8_u (i32.sub
              (i32.add (local.get $keys) (i32.load offset=36 (local.get $sample))) (i32.const 1))))",
        )
    };
    assert_eq!(tokens(&last), b"012".map(u64::from));
}

#[test]
fn every_kind_of_answer_arrives() {
    // The first sample goes to shards 3, 1 and 1, the second to shard 2, the third nowhere.
    let guest = Guest {
        more: r#"(data (i32.const 4096) "\03\00\00\00\01\00\00\00\01\00\00\00")"#.into(),
        ..Guest::router_each(
            "(i32.store8 (local.get $answer) (i32.add (i32.const 2) (local.get $i)))
            (if (i32.eqz (local.get $i)) (then
              (i32.store8 (local.get $answer) (i32.const 3))
              (i32.store offset=8 (local.get $answer) (i32.const 4096))
              (i32.store offset=12 (local.get $answer) (i32.const 3))))
            (if (i32.eq (local.get $i) (i32.const 1)) (then
              (i32.store8 (local.get $answer) (i32.const 2))
              (i32.store offset=8 (local.get $answer) (i32.const 2))))",
        )
    };
    let mut instance = router(&host(), &guest).unwrap();
    let (destinations, result) = route(&mut instance, 3);
    result.unwrap();
    let expected = [
        Destination::Shards(vec![1, 3]),
        Destination::Shard(2),
        Destination::Reject(0),
    ];
    assert_eq!(destinations, expected);
    assert_eq!(instance.manifest().name, "test");
    assert_eq!(instance.manifest().version, "1.2.3");
    assert!(instance.manifest().hooks.contains(Hook::Route));
    assert_eq!(instance.manifest().route_varies_with, Fields::TIMESTAMP);
}

/// Answers how many samples the instance has seen, so that a remembered answer shows.
fn counting(varies: u8) -> Guest {
    Guest {
        varies,
        more: "(global $seen (mut i64) (i64.const 0))".into(),
        ..Guest::router_each(
            "(global.set $seen (i64.add (global.get $seen) (i64.const 1)))
            (if (i64.eq (global.get $seen) (i64.const 5)) (then (unreachable)))
            (i32.store8 (local.get $answer) (i32.const 1))
            (i64.store offset=8 (local.get $answer) (global.get $seen))",
        )
    }
}

fn seen(tokens: impl IntoIterator<Item = u64>) -> Vec<Destination> {
    tokens.into_iter().map(Destination::Token).collect()
}

#[test]
fn a_route_by_key_alone_is_asked_for_once() {
    let mut instance = router(&host(), &counting(0)).unwrap();
    assert_eq!(route(&mut instance, 2).0, seen([1, 2]));
    assert_eq!(route(&mut instance, 3).0, seen([1, 2, 3]));
    assert_eq!(route(&mut instance, 3).0, seen([1, 2, 3]));
    let statistics = instance.stats().statistics();
    assert_eq!(
        (statistics.calls, statistics.samples, statistics.remembered),
        (2, 3, 5)
    );
    // The call fails, so what it was about is not remembered; what was known stays.
    let (destinations, result) = route(&mut instance, 6);
    assert_eq!(result.unwrap_err().cause, Cause::Trap);
    assert_eq!(destinations[..3], seen([1, 2, 3]));
    assert_eq!(destinations[3..], vec![Destination::Default; 3]);
    let (destinations, result) = route(&mut instance, 6);
    result.unwrap();
    assert_eq!(destinations, seen([1, 2, 3, 1, 2, 3]));
    // Other shards are another question.
    let samples = Samples::new(2);
    let mut out = Vec::new();
    let result = instance.route("fleet", 5, &samples.describe(), &mut out);
    assert_eq!((result.unwrap_err().cause, out.len()), (Cause::Trap, 2));
}

#[test]
fn a_route_that_varies_or_must_not_be_remembered_is_asked_for_again() {
    let mut varies = router(&host(), &counting(SIZE)).unwrap();
    assert_eq!(route(&mut varies, 2).0, seen([1, 2]));
    assert_eq!(route(&mut varies, 2).0, seen([3, 4]));
    let without = host_with(Limits {
        memo_keys_max: 0,
        ..Limits::default()
    });
    let mut without = router(&without, &counting(0)).unwrap();
    assert_eq!(route(&mut without, 2).0, seen([1, 2]));
    assert_eq!(route(&mut without, 2).0, seen([3, 4]));
}

#[test]
fn a_backlog_is_ordered_by_link_and_sample() {
    // Lane by the queue's length, expiry by the clock, and only the newest; the third is dropped.
    let guest = Guest::prioritizer_each(
        "(i32.store8 (local.get $answer) (i32.const 1))
        (i64.store8 offset=8 (local.get $answer) (local.get $queued))
        (i64.store offset=16 (local.get $answer) (local.get $now))
        (i32.store8 offset=24 (local.get $answer) (i32.eq (local.get $i) (i32.const 1)))
        (if (i32.eq (local.get $i) (i32.const 2)) (then
          (i32.store8 (local.get $answer) (i32.const 2))
          (i32.store offset=8 (local.get $answer) (i32.const 0))))",
    );
    let revision = load(&host(), &guest);
    let environment = Environment::default();
    let mut instance =
        PrioritizeInstance::new(&revision, &environment, Arc::new(Stats::default())).unwrap();
    let mut ask = |queued, now| {
        let link = LinkState {
            name: "cloud",
            now,
            queued,
            queued_bytes: 0,
            capacity_bytes: 0,
        };
        let samples = Samples::new(3);
        let mut out = Vec::new();
        let result = instance.prioritize("fleet", link, &samples.describe(), &mut out);
        assert_eq!(out.len(), 3);
        (out, result)
    };
    let place = |expires, newest_only| {
        Verdict::Place(Placement {
            lane: 7,
            expires,
            newest_only,
        })
    };
    let (verdicts, result) = ask(7, 99);
    result.unwrap();
    assert_eq!(
        verdicts,
        [
            place(Some(99), false),
            place(Some(99), true),
            Verdict::Drop(0)
        ]
    );
    assert_eq!(ask(7, 0).0[0], place(None, false));
    let (verdicts, result) = ask(8, 0);
    let fault = result.unwrap_err();
    assert_eq!(fault.cause, Cause::Answer);
    assert!(fault.message.contains("lane 8"), "{fault}");
    assert_eq!(verdicts, [Verdict::Default; 3]);
}

#[test]
fn a_policy_is_not_bound_where_it_does_not_serve() {
    let revision = load(&host(), &Guest::resolver_constant(0));
    let environment = Environment::default();
    let routed = RouteInstance::new(&revision, &environment, Arc::new(Stats::default()));
    let fault = routed.err().unwrap();
    assert_eq!(fault.cause, Cause::Init);
    assert!(fault.message.contains("shard-routing"), "{fault}");
}
