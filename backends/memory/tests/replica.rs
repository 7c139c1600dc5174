//! What mirrors are shown of a store, with a ledger that knows much of it, little, or nothing, against
//! everything read plainly.

#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps and fails says where"
)]

use proptest::{prelude::*, sample::Index};
use weir_backend_api::{
    Direction, StoreSpec, Volume,
    conformance::{
        harness::{Shard, rules},
        model::Op,
    },
    replica::StoreReplica,
};
use weir_backend_memory::MemoryVolume;
use weir_core::{
    admission::History,
    change::{Change, WildcardChange},
    key::{Key, KeyRange},
    keyexpr::{OwnedKeyExpr, keyexpr},
    ledger::{Axis, Item, Span, Summary},
    mirror::Replica,
    pattern::{KeyPattern, KeySet},
    value::Value,
    version::Stamp,
};

const NOW: u64 = 1_000 << 32;

#[derive(Clone, Debug)]
enum Step {
    /// Changes arrive together.
    Batch(Vec<Op>),
    /// The last batch comes again.
    Again,
    Fold,
    Restart,
    KeepLedger,
    /// A mirror compares a span.
    Compare(Index, Index),
}

fn stamp(time: u64, id: u8) -> Stamp {
    let mut bytes = [0; 16];
    bytes[0] = id + 1;
    // Over ten minutes, so that a calendar has something to tell apart.
    let time = (time << 32) * 11 + u64::from(id);
    Stamp { time, id: bytes }
}

fn op() -> impl Strategy<Value = Op> {
    let value =
        || proptest::option::weighted(0.7, (0u8..3).prop_map(|byte| Value::bytes(vec![byte])));
    let expr = prop_oneof![Just("**"), Just("k/1*"), Just("k/*/x"), Just("k/2/**")];
    prop_oneof![
        12 => (0u8..40, any::<bool>(), 1u64..60, 0u8..3, value()).prop_map(|(n, deep, time, id, value)| {
            let key = format!("k/{n}{}", if deep { "/x" } else { "" });
            Op::Key(Change { key: Key::from(&*key), stamp: Some(stamp(time, id)), value })
        }),
        1 => (expr, 1u64..60, 3u8..5, value()).prop_map(|(expr, time, id, value)| {
            let expr = expr.replace("1*", "1$*");
            let expr = OwnedKeyExpr::new(expr).unwrap();
            Op::Wildcard(WildcardChange { expr, stamp: Some(stamp(time, id)), value })
        }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => proptest::collection::vec(op(), 1..12).prop_map(Step::Batch),
        1 => Just(Step::Again),
        1 => Just(Step::Fold),
        1 => Just(Step::Restart),
        1 => Just(Step::KeepLedger),
        4 => (any::<Index>(), any::<Index>()).prop_map(|(a, b)| Step::Compare(a, b)),
    ]
}

fn keys(patterns: &[&str]) -> KeySet {
    KeySet {
        patterns: patterns
            .iter()
            .map(|text| KeyPattern::parse(text).unwrap())
            .collect(),
        exclude: Vec::new(),
    }
}

/// Everything that concerns `theirs`, read plainly, in the order of the axis.
fn plain(shard: &Shard, axis: Axis, theirs: &KeySet) -> Vec<(Vec<u8>, Item)> {
    let concerns = |key: &Key| keyexpr::new(&**key).is_ok_and(|key| theirs.matches(key));
    let mut items = Vec::new();
    if axis == Axis::Keys {
        let view = shard.admitter().view(NOW);
        let mut scratch = String::new();
        for (key, record) in shard.records().unwrap() {
            let version = view.effective(&key, record.head, &mut scratch);
            items.push(Item {
                key,
                version,
                merged: 0,
            });
        }
    } else {
        let snapshot = shard.store().snapshot().unwrap();
        for row in snapshot.history(&KeyRange::all(), None, Direction::Forward) {
            let (key, record) = row.unwrap();
            items.push(Item {
                key,
                version: record.head.own,
                merged: 0,
            });
        }
    }
    items.retain(|item| concerns(&item.key));
    let mut items: Vec<_> = items
        .into_iter()
        .map(|item| (item.position(axis), item))
        .collect();
    items.sort_by(|(a, x), (b, y)| (a, x.version, &x.key).cmp(&(b, y.version, &y.key)));
    items
}

fn sum<'i>(items: impl Iterator<Item = &'i Item>) -> Summary {
    let mut summary = Summary::EMPTY;
    items.for_each(|item| summary.add(item.hash()));
    summary
}

/// A position of the axis, of something there or beside it.
fn position(items: &[(Vec<u8>, Item)], at: Index) -> Vec<u8> {
    let n = at.index(items.len() * 2 + 2);
    match items.get(n / 2) {
        None => n.to_le_bytes().to_vec(),
        Some((position, _)) if n.is_multiple_of(2) => position.clone(),
        Some((position, _)) => {
            let mut beside = position.clone();
            if let Some(last) = beside.last_mut() {
                *last = last.wrapping_add(1);
            }
            beside
        }
    }
}

fn compare(shard: &Shard, axis: Axis, theirs: &KeySet, a: Index, b: Index) {
    let all = plain(shard, axis, theirs);
    let (a, b) = (position(&all, a), position(&all, b));
    let (from, to) = if a <= b { (a, Some(b)) } else { (b, None) };
    for span in [Span::all(axis), Span { axis, from, to }] {
        let inside: Vec<&Item> = all
            .iter()
            .filter(|(position, _)| span.contains(position))
            .map(|(_, item)| item)
            .collect();
        let mut replica: StoreReplica = shard.replica(&keys(&["**"]), theirs);
        // Twice: what was counted for the first is known to the second.
        for _ in 0..2 {
            assert_eq!(
                replica.summary(&span),
                Ok(sum(inside.iter().copied())),
                "{span:?}"
            );
        }
        for parts in [1, 3, 16] {
            let split = replica.split(&span, parts).unwrap();
            assert!(
                !split.is_empty() && split.len() <= parts,
                "{} of {parts}",
                split.len()
            );
            assert_eq!(split[0].0.from, span.from);
            assert_eq!(split.last().unwrap().0.to, span.to);
            for (left, right) in split.iter().zip(split.iter().skip(1)) {
                assert_eq!(left.0.to.as_ref(), Some(&right.0.from));
            }
            for (part, summary) in &split {
                let of_part = all.iter().filter(|(position, _)| part.contains(position));
                assert_eq!(*summary, sum(of_part.map(|(_, item)| item)), "{part:?}");
            }
            if parts == 16 && axis == Axis::Keys && inside.len() >= 16 {
                assert!(split.len() > 4, "{} items were not cut", inside.len());
            }
        }
        let listed = replica.items(&span, usize::MAX).unwrap();
        assert_eq!(listed.iter().collect::<Vec<_>>(), inside);
        assert_eq!(
            replica.items(&span, 2).unwrap(),
            listed[..listed.len().min(2)]
        );
        let mut read = Vec::new();
        let mut rest = span.clone();
        loop {
            let page = replica
                .read(&rest, &mut |item| !item.id().is_multiple_of(3), 400)
                .unwrap();
            read.extend(
                page.states
                    .iter()
                    .map(|state| (state.key.clone(), state.record.head.own)),
            );
            let Some(next) = page.next else { break };
            assert!(rest.from < next, "a page goes on where it began");
            rest.from = next;
        }
        let wanted = inside.iter().filter(|item| !item.id().is_multiple_of(3));
        let wanted: Vec<Key> = wanted.map(|item| item.key.clone()).collect();
        assert_eq!(
            read.into_iter().map(|(key, _)| key).collect::<Vec<_>>(),
            wanted
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_shown_is_what_is_there(
        steps in proptest::collection::vec(step(), 1..25),
        all in any::<bool>(),
        theirs in prop_oneof![
            Just(vec!["**"]), Just(vec!["k/**"]), Just(vec!["k/1/**", "k/2/**", "k/2/x"]), Just(vec!["k/*/x"]),
        ],
    ) {
        let history = if all { History::All } else { History::Latest };
        let theirs = keys(&theirs);
        let spec = StoreSpec { history: all, ..StoreSpec::default() };
        let store = MemoryVolume::new().open(&spec).unwrap();
        let mut shard = Shard::new(store, rules(history), NOW).unwrap();
        let mut last = Vec::new();
        for step in steps {
            match step {
                Step::Batch(batch) => {
                    last = batch;
                    shard.offer(&mut last.clone()).unwrap();
                }
                Step::Again => drop(shard.offer(&mut last.clone()).unwrap()),
                Step::Fold => shard.fold().unwrap(),
                Step::Restart => shard.forget().unwrap(),
                Step::KeepLedger => shard.keep_ledger().unwrap(),
                Step::Compare(a, b) => {
                    compare(&shard, Axis::Keys, &theirs, a, b);
                    if all {
                        compare(&shard, Axis::Times, &theirs, a, b);
                    }
                }
            }
        }
    }
}
