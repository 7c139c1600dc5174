//! S1 to S6 and S8, by admission over a store: whatever the order of arrival, the repetitions, the
//! restarts and the jobs in between, queries answer what the plain [`Model`] says.

use std::{cell::Cell, collections::BTreeSet, fmt::Debug};

use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};
use weir_core::{
    admission::{History, Memory},
    change::{Admission, Change, Rejection, Table, WildcardChange, Write},
    collection,
    key::{Key, KeyRange},
    keyexpr::OwnedKeyExpr,
    value::Value,
    version::{Stamp, Version},
};

use super::{
    Site,
    harness::{Shard, rules},
    model::{Model, Op},
    samples::stamp,
};
use crate::{Direction, Durability, Store, StoreSpec, Volume, recover};

/// The time at which everything is judged, unless a test lets it pass.
pub(super) const NOW: u64 = 1_000;

/// One thing that happens to a shard.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Changes arrive together.
    Batch(Vec<Op>),
    /// A batch that came before comes again, as it was decided.
    Again(Index),
    /// The store is closed and opened, the judge made again from the rows.
    Restart,
    /// The journal is folded into the records.
    Fold,
    /// What is older than this is collected.
    Collect(u64),
}

/// A put of one key, or a delete without a value.
fn change(key: &str, stamp: Option<Stamp>, value: Option<&'static str>) -> Op {
    Op::Key(Change {
        key: Key::from(key),
        stamp,
        value: value.map(Value::bytes),
    })
}

/// A put or delete on a key expression.
fn wildcard(expr: &str, stamp: Option<Stamp>, value: Option<&'static str>) -> Op {
    Op::Wildcard(WildcardChange {
        expr: OwnedKeyExpr::new(expr).unwrap(),
        stamp,
        value: value.map(Value::bytes),
    })
}

/// A small domain, so that equal keys, equal stamps and nested expressions meet all the time.
fn op() -> impl Strategy<Value = Op> {
    let key = || prop_oneof![Just("a"), Just("a/b"), Just("a/c"), Just("a/b/c")];
    let expr = prop_oneof![Just("**"), Just("a/*"), Just("a/**"), Just("*/b")];
    let value = || proptest::option::weighted(0.6, prop_oneof![Just("x"), Just("y"), Just("")]);
    // One operation has one stamp; only changes of keys may share theirs, so ids tell them apart.
    prop_oneof![
        6 => (key(), 1u64..9, 0u8..2, value())
            .prop_map(|(key, time, id, value)| change(key, Some(stamp(time, id)), value)),
        3 => (expr, 1u64..9, 2u8..4, value())
            .prop_map(|(expr, time, id, value)| wildcard(expr, Some(stamp(time, id)), value)),
        1 => key().prop_map(|key| change(key, None, None)),
    ]
}

/// What may happen to a shard; `collect` says whether collections do.
pub(super) fn step(collect: bool) -> impl Strategy<Value = Step> {
    let unstamped = prop_oneof![Just("**"), Just("a/*")];
    prop_oneof![
        12 => proptest::collection::vec(op(), 1..5).prop_map(Step::Batch),
        1 => unstamped.prop_map(|expr| Step::Batch(vec![wildcard(expr, None, None)])),
        3 => any::<Index>().prop_map(Step::Again),
        2 => Just(Step::Restart),
        2 => Just(Step::Fold),
        u32::from(collect) * 2 + u32::from(!collect) => (1u64..10).prop_map(move |time| {
            if collect { Step::Collect(time) } else { Step::Fold }
        }),
    ]
}

/// Runs a property on fresh stores; a failure is shrunk, and the panic tells the smallest input.
pub(super) fn property<S: Strategy>(
    site: &Site,
    input: S,
    test: impl Fn(&dyn Volume, &StoreSpec, S::Value),
) where
    S::Value: Debug,
{
    // A store on a disk takes some 30 ms to open.
    let cases = if site.can().persistent { 16 } else { 1_500 };
    let config = Config {
        cases,
        // There is no file to keep seeds in: the smallest input goes into a test of its own.
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    };
    let case = Cell::new(0u32);
    let volume = site.make_volume();
    let verdict = TestRunner::new(config).run(&input, |value| {
        case.set(case.get() + 1);
        test(&*volume, &site.spec(&format!("case-{}", case.get())), value);
        Ok(())
    });
    if let Err(failure) = verdict {
        panic!("{failure}");
    }
}

/// Closes the store and opens it again, where that keeps anything; the judge starts from the rows.
fn restart(volume: &dyn Volume, spec: &StoreSpec, mut shard: Shard, history: History) -> Shard {
    if !volume.capability().persistent {
        shard.forget().unwrap();
        return shard;
    }
    shard.into_store().close().unwrap();
    open(volume, spec, history)
}

fn open(volume: &dyn Volume, spec: &StoreSpec, history: History) -> Shard {
    Shard::new(volume.open(spec).unwrap(), rules(history), NOW).unwrap()
}

/// Whether a change counts in the model: what is set aside does not.
pub(super) const fn counts(admission: Admission) -> bool {
    !matches!(
        admission,
        Admission::Quarantined(_) | Admission::Parked(_) | Admission::Rejected(_)
    )
}

fn run(volume: &dyn Volume, spec: &StoreSpec, history: History, steps: &[Step]) {
    let mut shard = open(volume, spec, history);
    let mut model = Model::default();
    let mut decided: Vec<Vec<Op>> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        match step {
            Step::Batch(batch) => {
                let mut batch = batch.clone();
                offer(&mut shard, &mut model, &mut batch);
                decided.push(batch);
            }
            Step::Again(at) if !decided.is_empty() => {
                offer(&mut shard, &mut model, &mut at.get(&decided).clone());
            }
            Step::Again(_) => {}
            Step::Restart => shard = restart(volume, spec, shard, history),
            Step::Fold => shard.fold().unwrap(),
            Step::Collect(old) => shard.collect(collection::before(*old)).unwrap(),
        }
        let state = shard.state().unwrap();
        assert_eq!(state, model.state(), "after step {index}");
    }
    let shard = restart(volume, spec, shard, history);
    assert_eq!(
        shard.state().unwrap(),
        model.state(),
        "after the last restart"
    );
    check_series(&shard, &model);
    shard.into_store().close().unwrap();
}

/// A time series holds each version once.
pub(super) fn check_series(shard: &Shard, model: &Model) {
    if shard.admitter().history() != History::All {
        return;
    }
    let snapshot = shard.store().snapshot().unwrap();
    let rows = snapshot.history(&KeyRange::all(), None, Direction::Forward);
    let rows: Vec<(Key, Version)> = rows
        .map(|row| row.map(|(key, record)| (key, record.head.own)).unwrap())
        .collect();
    let series = model.series();
    assert_eq!(rows.len(), series.len(), "rows of the series");
    assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), series);
}

/// Offers a batch and tells the model, each change at its turn.
fn offer(shard: &mut Shard, model: &mut Model, batch: &mut Vec<Op>) {
    // The model decides what deletes without a stamp mean by itself, from what it was told before.
    let before = batch.clone();
    let admissions = shard.offer(batch).unwrap();
    if before.len() == batch.len() {
        for (op, admission) in before.iter().zip(&admissions) {
            if counts(*admission) {
                model.apply(op);
            }
        }
    } else {
        for op in &before {
            model.apply(op);
        }
    }
}

/// Any changes in any order, with duplicates, restarts and folds, end as the model says.
pub fn any_order_ends_alike(site: &mut Site) {
    let steps = proptest::collection::vec(step(false), 1..14);
    property(site, steps, |volume, spec, steps| {
        run(volume, spec, History::Latest, &steps);
    });
}

/// The same where every version is kept; the series holds each version once, and a collection without
/// retention forgets nothing.
pub fn any_order_ends_alike_with_history(site: &mut Site) {
    if !site.can().history {
        return;
    }
    let steps = proptest::collection::vec(step(true), 1..14);
    property(site, steps, |volume, spec, steps| {
        run(volume, spec, History::All, &steps);
    });
}

/// Collections set late changes aside at worst; they bring nothing back.
pub fn collections_bring_nothing_back(site: &mut Site) {
    let steps = proptest::collection::vec(step(true), 1..14);
    property(site, steps, |volume, spec, steps| {
        run(volume, spec, History::Latest, &steps);
    });
}

/// The names of what became of changes, in the order of the rows.
pub fn each_change_has_its_admission(site: &mut Site) {
    let spec = site.main();
    let mut shard = open(site.volume(), &spec, History::Latest);
    let at = |time| Some(stamp(time, 0));
    let rows = [
        (change("a", at(12), Some("27 degrees")), "applied"),
        (change("a", at(10), Some("25 degrees")), "outdated"),
        (change("a", at(12), Some("27 degrees")), "known"),
        (change("b", None, None), "nothing"),
        (change("a", None, None), "applied"),
        (change("a", None, None), "nothing"),
        // The tombstone has the stamp of what it deleted, and wins at that stamp.
        (change("a", at(12), Some("again")), "outdated"),
        (
            change("a", Some(stamp(12, 1)), Some("by another")),
            "applied",
        ),
        (wildcard("**", at(20), None), "applied"),
        (wildcard("**", at(20), None), "known"),
        (wildcard("a/*", at(19), Some("x")), "outdated"),
        (
            change("a/b", at(15), Some("below the wildcard delete")),
            "outdated",
        ),
        (change("a/b", at(21), Some("above")), "applied"),
        (change("a", at(NOW + 101), Some("future")), "parked"),
        (wildcard("**", at(NOW + 102), None), "parked"),
    ];
    for (index, (op, name)) in rows.into_iter().enumerate() {
        let admissions = shard.offer(&mut vec![op.clone()]).unwrap();
        assert_eq!(admissions[0].name(), name, "row {index}: {op:?}");
        // Nothing of it hangs on what the judge remembers.
        if index % 2 == 0 {
            shard = restart(site.volume(), &spec, shard, History::Latest);
        }
    }
    let state = shard.state().unwrap();
    assert_eq!(state.keys().collect::<Vec<_>>(), ["a/b"]);
    shard.into_store().close().unwrap();
}

/// S5: what comes from the future waits durably, is applied when due, and holds nobody up before.
pub fn the_future_waits(site: &mut Site) {
    let spec = site.main();
    let mut shard = open(site.volume(), &spec, History::Latest);
    let at = |time| Some(stamp(time, 0));
    let soon: Vec<Op> = (0..8)
        .map(|n| change("a", at(NOW + 200 + n), Some("soon")))
        .chain([
            change("b", at(NOW + 300), Some("later")),
            wildcard("b/**", at(NOW + 250), None),
        ])
        .collect();
    let mut model = Model::default();
    let now = [
        change("a", at(NOW), Some("now")),
        change("b/c", at(NOW), Some("now")),
    ];
    for op in soon.iter().chain(&soon).chain(&now) {
        shard.offer(&mut vec![op.clone()]).unwrap();
    }
    now.iter().for_each(|op| model.apply(op));
    assert_eq!(shard.state().unwrap(), model.state());
    let parked = |shard: &Shard| shard.store().rows(Table::Parked, &[], 99).unwrap().len();
    assert_eq!(parked(&shard), soon.len(), "each is parked once");

    for time in [NOW + 99, NOW + 103, NOW + 150, NOW + 200] {
        shard = restart(site.volume(), &spec, shard, History::Latest);
        shard.now = time;
        for op in shard.release().unwrap() {
            model.apply(&op);
        }
        assert_eq!(shard.state().unwrap(), model.state(), "at {time}");
    }
    assert_eq!(parked(&shard), 0);
    soon.iter().for_each(|op| model.apply(op));
    assert_eq!(shard.state().unwrap(), model.state());
    shard.into_store().close().unwrap();
}

/// Everything that a judge remembers comes back from the rows.
pub fn the_memory_comes_back(site: &mut Site) {
    let spec = site.main();
    let mut shard = open(site.volume(), &spec, History::Latest);
    let at = |time, id| Some(stamp(time, id));
    let mut batch = vec![
        change("a", at(3, 0), Some("x")),
        change("a/b", at(4, 0), None),
        wildcard("a/*", at(6, 2), Some("w")),
        // Put operations do not hide deletes, so both stay.
        wildcard("a/*", at(5, 2), None),
    ];
    // Enough of them for several pages of rows.
    for n in 0..1_200u32 {
        batch.push(Op::Wildcard(WildcardChange {
            expr: OwnedKeyExpr::new(format!("w/{n}/*")).unwrap(),
            stamp: at(7, 3),
            value: None,
        }));
    }
    shard.offer(&mut batch).unwrap();
    shard.collect(collection::before(5)).unwrap();
    // Retention writes its mark through the admitter too.
    let mut writes: Vec<Write<'_>> = Vec::new();
    let floor = Write::Row {
        table: Table::System,
        key: Memory::FLOOR.to_vec(),
        value: Some(2u64.to_be_bytes().to_vec()),
    };
    writes.push(floor);
    shard.store().commit(&writes, Durability::Written).unwrap();

    let admitter = shard.admitter();
    let (newest, horizon) = (admitter.newest(), admitter.horizon());
    let garbage = admitter.garbage();
    let journal: Vec<_> = admitter.journal().iter().cloned().collect();
    let state = shard.state().unwrap();
    assert_eq!(journal.len(), 1_202);
    assert!(horizon > Version::ZERO && garbage.is_some());

    let mut shard = restart(site.volume(), &spec, shard, History::Latest);
    let memory = recover::memory(shard.store()).unwrap();
    assert_eq!(memory.newest, newest);
    assert_eq!(memory.horizon, horizon);
    assert_eq!(memory.folded_through, horizon);
    assert_eq!(memory.floor, 2);
    assert_eq!(memory.garbage, garbage);
    let held: Vec<_> = memory.journal.iter().cloned().collect();
    assert_eq!(held, journal);
    assert_eq!(shard.state().unwrap(), state);
    // What retention has dropped is not taken again.
    let expired = shard.offer(&mut vec![change("z", at(1, 0), Some("old"))]);
    let rejected = Admission::Rejected(Rejection::Expired);
    assert_eq!(expired.unwrap(), [rejected]);
    shard.into_store().close().unwrap();
}

/// Recovery of an empty store remembers nothing, and that of a broken row says so.
pub fn a_broken_row_is_told(site: &mut Site) {
    let store = site.open();
    let memory = recover::memory(&*store).unwrap();
    assert_eq!(memory.newest, Version::ZERO);
    assert_eq!(memory.garbage, None);
    let set = |store: &dyn Store, table, key: &[u8], value: Option<&[u8]>| {
        let write = Write::Row {
            table,
            key: key.to_vec(),
            value: value.map(<[u8]>::to_vec),
        };
        store.commit(&[write], Durability::Written).unwrap();
    };
    let rows = [
        (Table::System, Memory::NEWEST, &b"short"[..]),
        (Table::System, Memory::FLOOR, b"seven b"),
        (Table::Wildcards, b"row", b"no operation"),
    ];
    for (table, key, value) in rows {
        set(&*store, table, key, Some(value));
        let error = recover::memory(&*store).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(&key.escape_ascii().to_string()));
        set(&*store, table, key, None);
    }
    recover::memory(&*store).unwrap();
    store.close().unwrap();
}
