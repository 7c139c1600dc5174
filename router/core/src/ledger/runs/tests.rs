//! A plain store beside the ledger, with batches that fail, scans that are overtaken, and crashes.

use std::{collections::BTreeSet, sync::LazyLock};

use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_128;

use super::*;
use crate::{
    record::RecordRef,
    version::{Stamp, Version},
};

/// Small runs, so that a hundred keys make many.
const SIZE: u64 = 6;

static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let keys = (0..120).map(|number| Key::new(format!("fleet/{}/{number:03}", number % 3)));
    keys.collect()
});

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a store holds, without the values.
#[derive(Clone, Debug, Default)]
struct Store {
    latest: BTreeMap<Vec<u8>, u64>,
    /// How many wildcard operations there were: each changes what every key holds.
    wildcards: u64,
    rows: Rows,
}

impl Store {
    fn commit(&mut self, writes: &[Write<'_>]) {
        for write in writes {
            match write {
                Write::Latest { key, record } => {
                    let time = record.head.own.stamp.time;
                    self.latest.insert(key.ordered(), time);
                }
                Write::ForgetLatest { key } => {
                    self.latest.remove(&key.ordered());
                }
                Write::Row {
                    table: Table::Ledger,
                    key,
                    value,
                } => match value {
                    Some(value) => drop(self.rows.insert(key.clone(), value.clone())),
                    None => drop(self.rows.remove(key)),
                },
                Write::Row { .. } => self.wildcards += 1,
                other => panic!("{other:?}"),
            }
        }
    }

    fn items(&self, range: &KeyRange) -> impl Iterator<Item = (&[u8], u128)> {
        let inside = self.latest.iter().filter(|(key, _)| range.contains(key));
        inside.map(|(key, time)| {
            let own = [&time.to_be_bytes()[..], &self.wildcards.to_be_bytes(), key].concat();
            (key.as_slice(), xxh3_128(&own))
        })
    }

    fn sum(&self, range: &KeyRange) -> Summary {
        let mut summary = Summary::EMPTY;
        self.items(range).for_each(|(_, hash)| summary.add(hash));
        summary
    }

    fn load(&self) -> Runs {
        let rows: Vec<_> = self.rows.clone().into_iter().collect();
        Runs::load_sized(SIZE, &rows)
    }

    fn count(&self, stale: &Stale) -> Counted {
        let mut counter = stale.counter();
        for range in stale.ranges() {
            self.items(range)
                .for_each(|(key, hash)| counter.add(key, hash));
        }
        counter.finish()
    }
}

fn put(key: usize, time: u64) -> Write<'static> {
    let id = [1; 16];
    let own = Version::put(Stamp { time, id }, 0);
    Write::Latest {
        key: &KEYS[key],
        record: RecordRef::own(own, None),
    }
}

fn wildcard() -> Write<'static> {
    Write::Row {
        table: Table::Wildcards,
        key: vec![1],
        value: Some(vec![1]),
    }
}

fn forget(key: usize) -> Write<'static> {
    Write::ForgetLatest { key: &KEYS[key] }
}

fn range(from: usize, to: usize) -> KeyRange {
    KeyRange {
        from: KEYS[from].ordered(),
        to: Some(KEYS[to].ordered()),
    }
}

/// What becomes of a batch.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Committed,
    Aborted,
    /// And the same writes are tried again, with the rows that were added to them.
    Retried,
    /// It reached the store, and the store said that it had not.
    Denied,
}

#[derive(Clone, Debug)]
enum Step {
    Note {
        from: usize,
        puts: Vec<(usize, bool)>,
        wildcard: bool,
    },
    Settle(Fate),
    Flush,
    Ask(usize, usize),
    Snapshot(usize),
    Renew(usize),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![
        4 => Just(Fate::Committed),
        1 => Just(Fate::Aborted),
        1 => Just(Fate::Retried),
        1 => Just(Fate::Denied),
    ];
    let near = proptest::collection::vec((0usize..12, prop::bool::weighted(0.7)), 0..10);
    prop_oneof![
        8 => (0usize..108, near, prop::bool::weighted(0.04))
            .prop_map(|(from, puts, wildcard)| Step::Note { from, puts, wildcard }),
        8 => fate.prop_map(Step::Settle),
        1 => Just(Step::Flush),
        4 => (0usize..120, 0usize..120).prop_map(|(a, b)| Step::Ask(a.min(b), a.max(b))),
        4 => (0usize..4).prop_map(Step::Snapshot),
        6 => (0usize..4).prop_map(Step::Renew),
        1 => Just(Step::Crash),
    ]
}

/// A ledger beside its store.
struct Scene {
    store: Store,
    runs: Runs,
    in_flight: Option<Vec<Write<'static>>>,
    scans: Vec<(Stale, Option<Store>)>,
    time: u64,
}

impl Scene {
    fn new() -> Self {
        Self {
            store: Store::default(),
            runs: Runs::sized(SIZE, false),
            in_flight: None,
            scans: Vec::new(),
            time: 0,
        }
    }

    fn commit(&mut self, mut writes: Vec<Write<'static>>) -> usize {
        let before = writes.len();
        self.runs.note(&mut writes);
        self.store.commit(&writes);
        self.runs.committed();
        writes.len() - before
    }

    fn renew(&mut self) {
        let stale = self.runs.stale(&KeyRange::all());
        // Of all that there is it picks what it needs.
        let mut counter = stale.counter();
        let all = KeyRange::all();
        let items = self.store.items(&all);
        items.for_each(|(key, hash)| counter.add(key, hash));
        self.runs.renew(counter.finish());
    }

    fn filled() -> Self {
        let mut scene = Self::new();
        scene.commit((0..120).map(|key| put(key, 1)).collect());
        scene.renew();
        scene.commit(Vec::new());
        scene
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Note {
                from,
                puts,
                wildcard: wild,
            } => {
                self.settle(Fate::Committed);
                let mut writes = Vec::new();
                for (key, is_put) in puts {
                    self.time += 1;
                    let key = from + key;
                    writes.push(if *is_put {
                        put(key, self.time)
                    } else {
                        forget(key)
                    });
                }
                if *wild {
                    writes.push(wildcard());
                }
                self.runs.note(&mut writes);
                self.in_flight = Some(writes);
            }
            Step::Settle(fate) => self.settle(*fate),
            Step::Flush => {
                if self.in_flight.is_none() {
                    let rows = self.runs.rows_to_write();
                    self.in_flight = (!rows.is_empty()).then_some(rows);
                }
            }
            Step::Ask(from, to) => {
                let stale = self.runs.stale(&range(*from, *to));
                self.scans.push((stale, None));
            }
            Step::Snapshot(scan) => {
                if let Some((_, snapshot)) = self.scans.get_mut(*scan) {
                    snapshot.get_or_insert_with(|| self.store.clone());
                }
            }
            Step::Renew(scan) => {
                if *scan < self.scans.len() {
                    let (stale, snapshot) = self.scans.remove(*scan);
                    let counted = snapshot.as_ref().unwrap_or(&self.store).count(&stale);
                    self.runs.renew(counted);
                }
            }
            Step::Crash => {
                self.in_flight = None;
                self.scans.clear();
                self.runs = self.store.load();
            }
        }
    }

    fn settle(&mut self, fate: Fate) {
        let Some(mut writes) = self.in_flight.take() else {
            return;
        };
        match fate {
            Fate::Committed => {
                self.store.commit(&writes);
                self.runs.committed();
            }
            Fate::Aborted => self.runs.aborted(),
            Fate::Denied => {
                self.store.commit(&writes);
                self.runs.aborted();
            }
            Fate::Retried => {
                self.runs.aborted();
                self.runs.note(&mut writes);
                self.store.commit(&writes);
                self.runs.committed();
            }
        }
    }

    /// Nothing that is known is wrong, here or in the rows.
    fn check(&self) {
        self.check_runs(&self.runs, "in memory");
        self.check_runs(&self.store.load(), "in the rows");
    }

    fn check_runs(&self, runs: &Runs, which: &str) {
        for (index, run) in runs.runs.iter().enumerate() {
            let range = runs.range(index);
            if !run.is_stale {
                assert_eq!(run.summary, self.store.sum(&range), "{which}: {range:?}");
            }
        }
    }

    /// The rows are what is known here.
    fn check_rows(&self) {
        let shown = |runs: &Runs| -> Vec<_> {
            let stale = runs.runs.iter().map(|run| run.is_stale);
            stale.zip(runs.fences.iter().map(<[u8]>::to_vec)).collect()
        };
        assert_eq!(shown(&self.store.load()), shown(&self.runs));
    }

    fn check_sizes(&self) {
        let counts: Vec<_> = self.runs.runs.iter().map(|run| run.summary.count).collect();
        assert!(counts.iter().all(|count| *count <= 2 * SIZE), "{counts:?}");
        for pair in counts.windows(2) {
            let small = pair[0].min(pair[1]) < SIZE / 3 && pair[0] + pair[1] <= 2 * SIZE;
            assert!(!small, "{counts:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn what_is_known_is_right_at_every_moment(
        is_filled in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..80),
        asked in (0usize..120, 0usize..120),
    ) {
        let mut scene = if is_filled { Scene::filled() } else { Scene::new() };
        for step in &steps {
            scene.apply(step);
            scene.check();
        }
        scene.settle(Fate::Committed);
        // What is covered, what is stale and what is partial make up the range.
        let asked = range(asked.0.min(asked.1), asked.0.max(asked.1));
        let covered = scene.runs.summary(&asked);
        prop_assert!(covered.partial.len() <= 2);
        let stale: Summary = covered.stale.iter().map(|range| scene.store.sum(range)).sum();
        let known: Summary = (0..scene.runs.len())
            .filter(|index| scene.runs.is_inside(*index, &asked) && !scene.runs.runs[*index].is_stale)
            .map(|index| scene.runs.runs[index].summary)
            .sum();
        let partial: Summary = covered.partial.iter().map(|range| scene.store.sum(range)).sum();
        prop_assert_eq!([stale, known, partial].into_iter().sum::<Summary>(), scene.store.sum(&asked));
        // And when there is peace everything is known, and written.
        scene.renew();
        prop_assert!(!scene.runs.is_stale());
        scene.check();
        scene.check_sizes();
        prop_assert_eq!(scene.runs.count(), scene.store.latest.len() as u64);
        scene.commit(Vec::new());
        scene.check_rows();
        prop_assert!(scene.runs.rows_to_write().is_empty());
        let covered = scene.runs.summary(&asked);
        prop_assert_eq!(covered.stale, vec![]);
        let partial: Summary = covered.partial.iter().map(|range| scene.store.sum(range)).sum();
        prop_assert_eq!([covered.summary, partial].into_iter().sum::<Summary>(), scene.store.sum(&asked));
    }

    #[test]
    fn rows_are_what_is_known_after_every_batch(steps in proptest::collection::vec(step(), 1..60)) {
        let mut scene = Scene::new();
        for step in &steps {
            scene.apply(step);
            if matches!(step, Step::Settle(Fate::Committed)) && scene.in_flight.is_none() {
                scene.commit(Vec::new());
                scene.check_rows();
            }
        }
    }

    #[test]
    fn rows_that_make_no_sense_claim_nothing(
        cuts in proptest::collection::vec((0usize..40, 0usize..40, 0usize..12), 1..6),
    ) {
        let mut scene = Scene::filled();
        scene.commit(vec![wildcard()]);
        scene.renew();
        scene.commit(Vec::new());
        let mut rows = BTreeSet::new();
        for (row, len, extra) in cuts {
            let row = row % scene.store.rows.len();
            if !rows.insert(row) {
                continue;
            }
            let value = scene.store.rows.values_mut().nth(row).unwrap();
            value.truncate(len);
            // Longer or shorter than it was: a sum that is wrong by a bit is for the store to notice.
            if value.len() + extra == 33 || value.len() + extra == 9 {
                continue;
            }
            value.extend(vec![0xff; extra]);
        }
        scene.check_runs(&scene.store.load(), "of spoilt rows");
        scene.runs = scene.store.load();
        scene.commit(vec![put(3, 9)]);
        scene.check();
        scene.renew();
        scene.commit(Vec::new());
        scene.check_rows();
        scene.check();
        prop_assert!(!scene.store.load().is_stale());
    }

    #[test]
    fn cuts_are_inside_and_about_equal(from in 0usize..120, to in 0usize..120, parts in 1usize..9) {
        let scene = Scene::filled();
        let whole = range(from.min(to), from.max(to));
        let cuts = scene.runs.cut(&whole, parts);
        prop_assert!(cuts.len() < parts);
        prop_assert!(cuts.is_sorted_by(|a, b| a < b));
        let inside = |cut: &Vec<u8>| whole.contains(cut) && *cut != whole.from;
        prop_assert!(cuts.iter().all(inside));
        let total = scene.store.sum(&whole).count;
        if cuts.is_empty() {
            // It is a part of two runs at the most, or nobody wanted it cut.
            prop_assert!(parts == 1 || total <= 4 * SIZE, "{total}");
            return Ok(());
        }
        let fences = [vec![whole.from.clone()], cuts, vec![whole.to.clone().unwrap()]].concat();
        for pair in fences.windows(2) {
            let part = KeyRange { from: pair[0].clone(), to: Some(pair[1].clone()) };
            let most = total / parts as u64 + 4 * SIZE;
            prop_assert!(scene.store.sum(&part).count <= most);
        }
    }

    #[test]
    fn sums_of_shards_add_up(keys in proptest::collection::vec(0usize..120, 0..80)) {
        let mut whole = Scene::new();
        let mut shards = [Scene::new(), Scene::new(), Scene::new()];
        for (time, key) in keys.into_iter().enumerate() {
            let write = put(key, time as u64);
            shards[key % 3].commit(vec![write.clone()]);
            whole.commit(vec![write]);
        }
        let sum = |scene: &mut Scene| {
            scene.renew();
            scene.runs.summary(&KeyRange::all()).summary
        };
        prop_assert_eq!(shards.iter_mut().map(sum).sum::<Summary>(), sum(&mut whole));
    }
}

#[test]
fn a_write_costs_a_row_once() {
    let mut scene = Scene::filled();
    let runs = scene.runs.len();
    assert!(runs > 15, "{runs}");
    assert_eq!(
        scene.commit(vec![put(0, 2), put(0, 3)]),
        1,
        "the run becomes stale"
    );
    assert_eq!(scene.commit(vec![put(0, 4)]), 0, "it is");
    assert_eq!(
        scene.commit(vec![wildcard()]),
        1,
        "one row makes all the others stale"
    );
    assert_eq!(scene.commit(vec![wildcard(), put(50, 5)]), 0, "they are");
    assert!(scene.store.load().runs.iter().all(|run| run.is_stale));
    scene.renew();
    assert_eq!(
        scene.commit(Vec::new()),
        runs,
        "all that is known is written again"
    );
    assert_eq!(scene.commit(Vec::new()), 0);
}

#[test]
fn rows_are_as_described() {
    let mut scene = Scene::new();
    scene.commit(vec![put(0, 1)]);
    let key = |rest: &[u8]| [b"k", rest].concat();
    assert_eq!(scene.store.rows, Rows::from([(key(&[]), vec![1])]));
    scene.renew();
    scene.commit(Vec::new());
    let sum = scene.store.sum(&KeyRange::all());
    let row = |sum: Summary, epoch: u64| {
        let parts: [&[u8]; 4] = [
            &[1],
            &sum.count.to_be_bytes(),
            &sum.sum.to_be_bytes(),
            &epoch.to_be_bytes(),
        ];
        parts.concat()
    };
    assert_eq!(scene.store.rows, Rows::from([(key(&[]), row(sum, 0))]));
    scene.commit(vec![wildcard()]);
    scene.renew();
    scene.commit(Vec::new());
    let sum = scene.store.sum(&KeyRange::all());
    let epoch = [&[1][..], &1u64.to_be_bytes()].concat();
    assert_eq!(
        scene.store.rows,
        Rows::from([(key(&[]), row(sum, 1)), (key(&[0]), epoch)])
    );
    // Those of the calendar are not ours.
    let mut rows: Vec<_> = scene.store.rows.clone().into_iter().collect();
    rows.push((vec![b't', 0, 0, 0, 0, 0, 0, 0, 1], vec![1]));
    let loaded = Runs::load(&rows);
    assert_eq!((loaded.len(), loaded.is_stale()), (1, false));
}

#[test]
fn a_scan_that_is_overtaken_knows_where_runs_begin() {
    let mut scene = Scene::new();
    scene.commit((0..120).map(|key| put(key, 1)).collect());
    let stale = scene.runs.stale(&KeyRange::all());
    let counted = scene.store.count(&stale);
    scene.commit(vec![put(7, 2)]);
    scene.runs.renew(counted);
    // It cannot say what is in them, for there was but one run and it was touched.
    assert!(scene.runs.len() > 15);
    assert!(scene.runs.runs.iter().all(|run| run.is_stale));
    // The next one can, all but one.
    let stale = scene.runs.stale(&KeyRange::all());
    let counted = scene.store.count(&stale);
    scene.commit(vec![put(7, 3)]);
    scene.runs.renew(counted);
    assert_eq!(scene.runs.runs.iter().filter(|run| run.is_stale).count(), 1);
    scene.check();
}

#[test]
fn what_is_in_flight_cannot_be_renewed() {
    for done in [true, false] {
        let mut scene = Scene::filled();
        let mut writes = vec![put(7, 2)];
        scene.runs.note(&mut writes);
        // The snapshot may hold the batch already, or not yet.
        scene.renew();
        assert!(scene.runs.is_stale());
        if done {
            scene.store.commit(&writes);
        }
        scene.runs.settle(done);
        scene.renew();
        assert!(!scene.runs.is_stale());
        scene.check();
    }
    // Nor what was on its way before there was a ledger.
    let mut scene = Scene::new();
    scene.runs = Runs::sized(SIZE, true);
    scene.renew();
    assert!(scene.runs.is_stale());
    scene.runs.committed();
    scene.renew();
    assert!(!scene.runs.is_stale());
}

#[test]
fn a_run_is_as_stale_as_any_that_it_is_made_of() {
    let mut scene = Scene::filled();
    // Nearly empties some neighbours, so that they will be one.
    let rest: Vec<usize> = (0..120).filter(|key| key % 12 == 0).collect();
    let writes = (0..120).filter(|key| key % 3 == 0 && !rest.contains(key));
    scene.commit(writes.map(forget).collect());
    let before = scene.runs.len();
    for key in rest {
        let stale = scene.runs.stale(&KeyRange::all());
        let counted = scene.store.count(&stale);
        let mut writes = vec![put(key, 9)];
        let mut overtaken = scene.runs.clone();
        overtaken.note(&mut writes);
        overtaken.committed();
        overtaken.renew(counted);
        assert!(overtaken.len() < before);
        let held = overtaken.fences.find(&KEYS[key].ordered());
        assert!(overtaken.runs[held].is_stale, "{key}");
    }
}

#[test]
fn short_runs_do_not_make_long_ones() {
    let mut scene = Scene::new();
    scene.commit(
        (0..120)
            .filter(|key| key % 2 == 0)
            .map(|key| put(key, 1))
            .collect(),
    );
    scene.renew();
    let keys_of = |scene: &Scene, index: usize| -> Vec<usize> {
        let range = scene.runs.range(index);
        let inside = |key: &usize| range.contains(&KEYS[*key].ordered());
        (0..120).filter(inside).collect()
    };
    // One item in the one, and as many in the other as a run may have.
    let emptied = keys_of(&scene, 1);
    scene.commit(
        emptied
            .into_iter()
            .filter(|key| key % 2 == 0)
            .skip(1)
            .map(forget)
            .collect(),
    );
    let filled = keys_of(&scene, 2);
    scene.commit(filled.into_iter().map(|key| put(key, 2)).collect());
    assert_eq!(scene.store.sum(&scene.runs.range(1)).count, 1);
    assert_eq!(scene.store.sum(&scene.runs.range(2)).count, 2 * SIZE);
    scene.renew();
    scene.check_sizes();
    scene.check();
}

#[test]
fn a_batch_that_is_tried_again_has_no_rows_of_the_first_time() {
    let mut scene = Scene::filled();
    let mut writes = vec![put(3, 2), put(22, 2)];
    scene.runs.note(&mut writes);
    scene.runs.aborted();
    // The runs that it had touched are no more when it is tried again.
    scene.commit((0..40).map(forget).collect());
    scene.renew();
    scene.runs.note(&mut writes);
    let keys = writes.iter().filter_map(|write| match write {
        Write::Row { key, .. } => Some(key),
        _ => None,
    });
    let mut keys: Vec<_> = keys.collect();
    let len = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), len);
    scene.store.commit(&writes);
    scene.runs.committed();
    scene.check();
    scene.check_rows();
}

#[test]
fn runs_that_are_emptied_go() {
    let mut scene = Scene::filled();
    // From the front, one by one, as where keys hold the time, and from the back.
    let forwards = (0..120).filter(|key| key % 3 == 0);
    let backwards = (0..120).rev().filter(|key| key % 3 == 2);
    for key in forwards.chain(backwards) {
        scene.commit(vec![forget(key)]);
        scene.renew();
        scene.check_sizes();
        scene.commit(Vec::new());
        scene.check_rows();
        scene.check();
    }
    for key in 0..120 {
        scene.commit(vec![forget(key)]);
    }
    scene.renew();
    scene.commit(Vec::new());
    assert_eq!((scene.runs.len(), scene.runs.count()), (1, 0));
    scene.check_rows();
}
