//! S1 and S3 against a plain model: every arrival order of a set of changes leaves the same state.

use std::collections::BTreeMap;

use proptest::prelude::*;
use zenoh_keyexpr::OwnedKeyExpr;

use super::*;
use crate::{
    collection::{self, Collect},
    record::Record,
    value::Value,
};

/// The smallest store that can hold what the writes say.
#[derive(Clone, Default)]
struct Store {
    latest: BTreeMap<Key, Record>,
    history: BTreeMap<(Key, Version), Record>,
    rows: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
}

impl Store {
    fn commit(&mut self, writes: Vec<Write<'_>>) {
        for write in writes {
            match write {
                Write::Latest { key, record } => {
                    self.latest.insert(key.clone(), record.to_record());
                }
                Write::ForgetLatest { key } => {
                    self.latest.remove(key);
                }
                Write::History { key, record } => {
                    let row = (key.clone(), record.head.own);
                    self.history.insert(row, record.to_record());
                }
                Write::ForgetHistory { key, version } => {
                    self.history.remove(&(key.clone(), version));
                }
                Write::Row {
                    table,
                    key,
                    value: Some(value),
                } => {
                    self.rows.insert((table, key), value);
                }
                Write::Row {
                    table,
                    key,
                    value: None,
                } => {
                    self.rows.remove(&(table, key));
                }
            }
        }
    }
}

mod replicas;

#[derive(Clone, PartialEq, Eq, Debug)]
enum Op {
    Key(Change),
    Wildcard(WildcardChange),
}

struct Shard {
    admitter: Admitter,
    store: Store,
}

const NOW: u64 = 1_000;

fn rules(history: History) -> Rules {
    // A cache of two keys, so that reads and rotations happen.
    Rules {
        history,
        drift: 100,
        age_max: None,
        cache_keys: 2,
        resolves: false,
    }
}

impl Shard {
    fn new(history: History) -> Self {
        let admitter = Admitter::new(rules(history), KeySpace::default(), Memory::default());
        Self {
            admitter,
            store: Store::default(),
        }
    }

    fn restart(&mut self) {
        let mark = |name: &[u8]| {
            let row = self.store.rows.get(&(Table::System, name.to_vec()));
            row.and_then(|bytes| Version::from_bytes(bytes))
                .unwrap_or_default()
        };
        let mut memory = Memory {
            newest: mark(Memory::NEWEST),
            horizon: mark(Memory::HORIZON),
            folded_through: mark(Memory::FOLDED_THROUGH),
            ..Memory::default()
        };
        for ((table, _), row) in &self.store.rows {
            if *table != Table::Wildcards {
                continue;
            }
            let Some(KeptChange::Wildcard(change)) = KeptChange::decode(&row.clone().into()) else {
                panic!("a journal row that is not an operation");
            };
            let stamp = change.stamp.unwrap();
            memory.journal.insert(change.into_op(stamp));
        }
        let rules = self.admitter.rules.clone();
        self.admitter = Admitter::new(rules, KeySpace::default(), memory);
    }

    fn offer(&mut self, op: &Op) -> Admission {
        self.offer_batch(std::slice::from_ref(op))[0]
    }

    /// All of them in one batch.
    fn offer_batch(&mut self, ops: &[Op]) -> Vec<Admission> {
        let mut writes = Vec::new();
        self.admitter.begin();
        for op in ops {
            if let Op::Key(change) = op
                && self.admitter.must_read(change)
            {
                let head = self.store.latest.get(&change.key).map(|record| record.head);
                self.admitter.learn(&change.key, head);
            }
        }
        let mut admissions = Vec::new();
        for op in ops {
            admissions.push(match op {
                Op::Key(change) => self.admitter.admit(NOW, change, false, &mut writes),
                Op::Wildcard(change) => {
                    self.admitter
                        .admit_wildcard(NOW, change.clone(), false, &mut writes)
                }
            });
        }
        self.admitter.seal(&mut writes);
        self.store.commit(writes);
        admissions
    }

    fn state(&self) -> BTreeMap<String, (Version, Value)> {
        let view = self.admitter.view(NOW);
        let mut scratch = String::new();
        let live = self.store.latest.iter().filter_map(|(key, record)| {
            let live = view.live(key, record.clone(), &mut scratch)?;
            Some((key.to_string(), (live.version, live.value)))
        });
        live.collect()
    }

    /// Folds what the journal says into every record, as the background job does.
    fn fold(&mut self) {
        let view = self.admitter.view(NOW);
        let mut scratch = String::new();
        for (key, record) in self.store.latest.clone() {
            if let Some(folded) = view.fold(&key, &record, &mut scratch) {
                self.store.latest.insert(key.clone(), folded.clone());
                self.admitter.learn(&key, Some(folded.head));
            }
        }
    }

    fn collect(&mut self, old: Version) {
        let mut scratch = String::new();
        let view = self.admitter.view(NOW);
        let bounds = self.store.latest.iter().filter_map(|(key, record)| {
            collection::bound_of(&view, key, record, old, &mut scratch)
        });
        let journal = view
            .journal
            .iter()
            .map(|op| op.version)
            .filter(|version| *version < old);
        let Some(mut bound) = bounds.chain(journal).max() else {
            return;
        };
        bound.hash += 1;
        let mut writes = Vec::new();
        self.admitter.begin();
        self.admitter.raise_horizon(bound, &mut writes);
        self.store.commit(writes);
        for (key, record) in self.store.latest.clone() {
            let history = self.admitter.history();
            match collection::collect(&view, history, &key, &record, bound, &mut scratch) {
                Collect::Keep => {}
                Collect::Forget => {
                    self.store.latest.remove(&key);
                    self.admitter.learn(&key, None);
                }
                Collect::Fold(folded) => {
                    self.admitter.learn(&key, Some(folded.head));
                    self.store.latest.insert(key, folded);
                }
            }
        }
        let mut writes = Vec::new();
        self.admitter
            .finish_collection(Some(bound), None, &mut writes);
        self.store.commit(writes);
    }
}

/// Applies everything in version order, as if it had been one place and one clock.
fn model(ops: &[Op]) -> BTreeMap<String, (Version, Value)> {
    let mut sorted: Vec<(Version, &Op)> = ops
        .iter()
        .map(|op| match op {
            Op::Key(change) => (change.version(change.stamp.unwrap()), op),
            Op::Wildcard(change) => (change.version(change.stamp.unwrap()), op),
        })
        .collect();
    sorted.sort_by_key(|(version, _)| *version);
    let mut state = BTreeMap::new();
    for (version, op) in sorted {
        match op {
            Op::Key(Change {
                key,
                value: Some(value),
                ..
            }) => {
                state.insert(key.to_string(), (version, value.clone()));
            }
            Op::Key(Change {
                key, value: None, ..
            }) => {
                state.remove(&**key);
            }
            Op::Wildcard(WildcardChange { expr, value, .. }) => {
                let covers = |key: &str| expr.intersects(zenoh_keyexpr::keyexpr::new(key).unwrap());
                match value {
                    None => state.retain(|key, _| !covers(key)),
                    Some(value) => {
                        for (_, held) in state.iter_mut().filter(|(key, _)| covers(key)) {
                            *held = (version, value.clone());
                        }
                    }
                }
            }
        }
    }
    state
}

fn stamp(time: u64, id: u8) -> Option<Stamp> {
    let mut bytes = [0; 16];
    bytes[0] = id + 1;
    Some(Stamp { time, id: bytes })
}

/// A small domain, so that equal keys, equal stamps and nested expressions meet all the time.
fn op() -> impl Strategy<Value = Op> {
    let key = prop_oneof![Just("a"), Just("a/b"), Just("a/c")];
    let expr = prop_oneof![Just("**"), Just("a/*"), Just("a/**"), Just("*/b")];
    let value = proptest::option::weighted(0.6, (0u8..3).prop_map(|byte| Value::bytes(vec![byte])));
    // One operation has one stamp; only changes of keys may share theirs, so ids tell them apart.
    prop_oneof![
        3 => (key, 1u64..7, 0u8..2, value.clone()).prop_map(|(key, time, id, value)| {
            Op::Key(Change { key: Key::from(key), stamp: stamp(time, id), value })
        }),
        2 => (expr, 1u64..7, 2u8..4, value).prop_map(|(expr, time, id, value)| {
            let expr = OwnedKeyExpr::new(expr).unwrap();
            Op::Wildcard(WildcardChange { expr, stamp: stamp(time, id), value })
        }),
    ]
}

/// Calls `check` with every order of `ops` (Heap's algorithm).
fn every_order(ops: &mut [Op], check: &mut impl FnMut(&[Op])) {
    fn permute(len: usize, ops: &mut [Op], check: &mut impl FnMut(&[Op])) {
        if len <= 1 {
            return check(ops);
        }
        for i in 0..len {
            permute(len - 1, ops, check);
            let other = if len.is_multiple_of(2) { i } else { 0 };
            ops.swap(other, len - 1);
        }
    }
    permute(ops.len(), ops, check);
}

fn converges_in_every_order(ops: &mut [Op], history: History) {
    let expected = model(ops);
    every_order(ops, &mut |order| {
        for size in [1, 3, order.len()] {
            let mut shard = Shard::new(history);
            for batch in order.chunks(size) {
                shard.offer_batch(batch);
            }
            assert_eq!(
                shard.state(),
                expected,
                "in batches of {size} arrived as {order:#?}"
            );
            shard.restart();
            assert_eq!(
                shard.state(),
                expected,
                "after a restart; in batches of {size} arrived as {order:#?}"
            );
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn six_changes_in_every_order(mut ops in proptest::collection::vec(op(), 1..=6)) {
        converges_in_every_order(&mut ops, History::Latest);
        converges_in_every_order(&mut ops, History::All);
    }
}

proptest! {
    // 40,320 orders each.
    #![proptest_config(ProptestConfig { cases: 3, ..ProptestConfig::default() })]

    #[test]
    fn eight_changes_in_every_order(mut ops in proptest::collection::vec(op(), 8)) {
        converges_in_every_order(&mut ops, History::Latest);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Duplicates, folds and restarts at any time change nothing, nor how changes come in batches.
    #[test]
    fn repetition_folding_and_restarts_change_nothing(
        ops in proptest::collection::vec(op(), 1..12),
        batches in proptest::collection::vec(
            (proptest::collection::vec(any::<prop::sample::Index>(), 1..8), 0u8..4),
            1..10,
        ),
    ) {
        let mut shard = Shard::new(History::Latest);
        let mut never = ops.clone();
        for (batch, then) in batches {
            let batch: Vec<Op> = batch.iter().map(|index| index.get(&ops).clone()).collect();
            shard.offer_batch(&batch);
            never.retain(|op| !batch.contains(op));
            match then {
                0 => shard.restart(),
                1 => shard.fold(),
                _ => {}
            }
        }
        // What came is not offered again: that would heal.
        for op in &never {
            shard.offer(op);
        }
        prop_assert_eq!(shard.state(), model(&ops));
    }

    /// A collection between any two arrivals may set late changes aside, but it never brings a key
    /// back, and what it does not set aside ends as it would have without.
    #[test]
    fn collection_never_resurrects(
        ops in proptest::collection::vec(op(), 1..10),
        at in any::<prop::sample::Index>(),
        old in 1u64..8,
    ) {
        let mut shard = Shard::new(History::Latest);
        let mut judged = Vec::new();
        let at = at.index(ops.len() + 1);
        for (index, op) in ops.iter().enumerate() {
            if index == at {
                shard.collect(collection::before(old));
            }
            if !matches!(shard.offer(op), Admission::Quarantined(_)) {
                judged.push(op.clone());
            }
        }
        shard.collect(collection::before(old));
        prop_assert_eq!(shard.state(), model(&judged));
    }
}

fn put(key: &str, time: u64, value: &'static str) -> Op {
    let value = Some(Value::bytes(value));
    Op::Key(Change {
        key: Key::from(key),
        stamp: stamp(time, 0),
        value,
    })
}

fn delete(key: &str, stamp: Option<Stamp>) -> Op {
    Op::Key(Change {
        key: Key::from(key),
        stamp,
        value: None,
    })
}

#[test]
fn each_admission_has_its_name() {
    let mut shard = Shard::new(History::Latest);
    let rows = [
        (put("a", 5, "x"), "applied"),
        (put("a", 5, "x"), "known"),
        (put("a", 4, "y"), "outdated"),
        (delete("b", None), "nothing"),
        (delete("a", None), "applied"),
        (delete("a", None), "nothing"),
        (put("a", 5, "z"), "outdated"),
        (put("a", 6, "z"), "applied"),
        (put("a", NOW + 101, "future"), "parked"),
        (delete("a", stamp(NOW + 101, 0)), "parked"),
    ];
    for (op, name) in rows {
        assert_eq!(shard.offer(&op).name(), name, "{op:?}");
    }
    let unstamped = Op::Key(Change {
        key: Key::from("a"),
        stamp: None,
        value: Some(Value::bytes("u")),
    });
    assert_eq!(
        shard.offer(&unstamped),
        Admission::Rejected(Rejection::Unstamped)
    );
    assert_eq!(
        shard
            .store
            .rows
            .keys()
            .filter(|(table, _)| *table == Table::Parked)
            .count(),
        2
    );
}

/// S4: two replicas that held the same version make the same tombstone of an unstamped delete.
#[test]
fn an_unstamped_delete_is_the_same_on_every_replica() {
    let (mut left, mut right) = (Shard::new(History::Latest), Shard::new(History::Latest));
    for shard in [&mut left, &mut right] {
        shard.offer(&put("a", 5, "x"));
    }
    left.offer(&delete("a", None));
    right.offer(&put("a/b", 9, "later on another key"));
    right.offer(&delete("a", None));
    assert_eq!(
        left.store.latest[&Key::from("a")],
        right.store.latest[&Key::from("a")]
    );
    // A put made after it wins, however little later it was stamped.
    for shard in [&mut left, &mut right] {
        let next = Op::Key(Change {
            key: Key::from("a"),
            stamp: stamp(5, 1),
            value: Some(Value::bytes("y")),
        });
        assert_eq!(shard.offer(&next).name(), "applied");
    }
}

#[test]
fn what_retention_has_dropped_is_not_taken_again() {
    let rules = Rules {
        age_max: Some(100),
        ..rules(History::All)
    };
    let mut shard = Shard::new(History::All);
    shard.admitter = Admitter::new(rules, KeySpace::default(), Memory::default());
    assert_eq!(
        shard.offer(&put("a", NOW - 101, "x")),
        Admission::Rejected(Rejection::Expired)
    );
    assert_eq!(shard.offer(&put("a", NOW - 100, "x")).name(), "applied");
}

#[test]
fn an_aborted_batch_has_taught_nothing() {
    let mut shard = Shard::new(History::Latest);
    shard.offer(&put("a", 5, "x"));
    let Op::Key(change) = put("a", 6, "y") else {
        unreachable!()
    };
    let wildcard = WildcardChange {
        expr: OwnedKeyExpr::new("**").unwrap(),
        stamp: stamp(7, 2),
        value: None,
    };
    let mut writes = Vec::new();
    shard.admitter.begin();
    shard.admitter.admit(NOW, &change, false, &mut writes);
    shard
        .admitter
        .admit_wildcard(NOW, wildcard, false, &mut writes);
    drop(writes);
    shard.admitter.abort();
    assert_eq!(shard.state(), model(&[put("a", 5, "x")]));
    assert_eq!(shard.offer(&Op::Key(change)).name(), "applied");
}

/// Found by the conformance suite: what a batch had put first was remembered beside what it put
/// next, and found in its place.
#[test]
fn the_newest_of_a_batch_is_what_the_next_is_judged_by() {
    let batch = [
        put("a", 1, "first"),
        put("b", 9, "newer than all that follows"),
        put("a", 3, "stays"),
        put("a", 2, "late"),
    ];
    let mut shard = Shard::new(History::Latest);
    let admissions = shard.offer_batch(&batch);
    let names: Vec<&str> = admissions
        .iter()
        .map(|admission| admission.name())
        .collect();
    assert_eq!(names, ["applied", "applied", "applied", "outdated"]);
    assert_eq!(shard.state(), model(&batch));
}

/// Found by the conformance suite: after two failures in a row the mark of the newest version was
/// taken for written, and after a restart an older put overwrote a tombstone unread.
#[test]
fn what_failed_twice_is_remembered_over_a_restart() {
    let mut shard = Shard::new(History::Latest);
    let Op::Key(change) = delete("a", stamp(7, 0)) else {
        unreachable!()
    };
    for _ in 0..2 {
        let mut writes = Vec::new();
        shard.admitter.begin();
        shard.admitter.learn(&change.key, None);
        shard.admitter.admit(NOW, &change, false, &mut writes);
        shard.admitter.seal(&mut writes);
        drop(writes);
        shard.admitter.abort();
    }
    assert_eq!(shard.offer(&Op::Key(change)).name(), "applied");
    shard.restart();
    assert_eq!(shard.offer(&put("a", 1, "x")).name(), "outdated");
}

impl Shard {
    /// Takes over the horizon of a replica that holds the same and has forgotten more.
    fn adopt(&mut self, horizon: u64) {
        let mut writes = Vec::new();
        self.admitter.begin();
        self.admitter
            .raise_horizon(collection::before(horizon), &mut writes);
        self.store.commit(writes);
    }
}

/// A replica had forgotten a tombstone that had never come here: a put from before it was newer than
/// everything held, and so applied unread.
#[test]
fn nothing_below_a_horizon_that_was_taken_over_is_newest() {
    for restarts in [false, true] {
        let mut shard = Shard::new(History::Latest);
        shard.offer(&put("a", 1, "x"));
        shard.adopt(5);
        if restarts {
            shard.restart();
        }
        let rows = [
            ("b", 3, "quarantined"),
            ("a", 4, "applied"),
            ("b", 6, "applied"),
        ];
        for (key, time, name) in rows {
            let admission = shard.offer(&put(key, time, "y"));
            assert_eq!(
                admission.name(),
                name,
                "{key} at {time}, restarts: {restarts}"
            );
        }
    }
}

/// A collection forgot every operation below a horizon that had been taken over, folded in or not.
#[test]
fn a_horizon_that_was_taken_over_forgets_no_operation() {
    let wildcard = |time| {
        Op::Wildcard(WildcardChange {
            expr: OwnedKeyExpr::new("a/**").unwrap(),
            stamp: stamp(time, 2),
            value: None,
        })
    };
    // With something else to collect, and without.
    for ops in [
        vec![wildcard(6), put("a/b", 5, "late")],
        vec![delete("c", stamp(1, 0)), wildcard(6), put("a/b", 5, "late")],
    ] {
        let mut shard = Shard::new(History::Latest);
        for op in &ops {
            shard.offer(op);
        }
        shard.adopt(8);
        shard.collect(collection::before(3));
        let mut writes = Vec::new();
        shard.admitter.begin();
        shard.admitter.finish_collection(None, None, &mut writes);
        shard.store.commit(writes);
        for _ in 0..2 {
            assert_eq!(shard.state(), model(&ops), "{ops:?}");
            shard.restart();
        }
    }
}
