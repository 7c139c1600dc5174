//! A plain store beside the ledger, with batches that fail, scans that are overtaken, and crashes.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::{keyexpr::OwnedKeyExpr, ledger::Item, record::RecordRef};

static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    (0..4)
        .map(|number| Key::new(format!("pos/{number}")))
        .collect()
});

static SPACE: LazyLock<KeySpace> =
    LazyLock::new(|| KeySpace::new(Some(OwnedKeyExpr::try_from("fleet/drone").unwrap())).unwrap());

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a store holds, without the values.
#[derive(Clone, Debug, Default)]
struct Store {
    history: BTreeSet<(usize, Version)>,
    rows: Rows,
    /// The newest version it has ever held.
    newest: Version,
}

impl Store {
    fn commit(&mut self, writes: &[Write<'_>]) {
        let number = |key: &Key| KEYS.iter().position(|other| other == key).unwrap();
        for write in writes {
            match write {
                Write::History { key, record } => {
                    self.history.insert((number(key), record.head.own));
                    self.newest = self.newest.max(record.head.own);
                }
                Write::ForgetHistory { key, version } => {
                    self.history.remove(&(number(key), *version));
                }
                Write::Row {
                    table: Table::Ledger,
                    key,
                    value,
                } => match value {
                    Some(value) => drop(self.rows.insert(key.clone(), value.clone())),
                    None => drop(self.rows.remove(key)),
                },
                other => panic!("{other:?}"),
            }
        }
    }

    /// In the order of a store: by key first.
    fn items(&self, times: Times) -> impl Iterator<Item = (u64, u128)> {
        self.history.iter().filter_map(move |&(key, version)| {
            let time = version.stamp.time;
            let key = Key::new(format!("fleet/drone/{}", KEYS[key]));
            let item = Item {
                key,
                version,
                merged: 0,
            };
            (times.0 <= time && time <= times.1).then(|| (time, item.hash()))
        })
    }

    fn sum(&self, times: Times) -> Summary {
        let mut summary = Summary::EMPTY;
        self.items(times).for_each(|(_, hash)| summary.add(hash));
        summary
    }

    fn load(&self) -> Calendar {
        let rows: Vec<_> = self.rows.clone().into_iter().collect();
        Calendar::load(&rows)
    }

    fn count(&self, stale: &Stale) -> Counted {
        let mut counter = stale.counter();
        for times in stale.times() {
            self.items(*times)
                .for_each(|(time, hash)| counter.add(time, hash));
        }
        counter.finish()
    }
}

fn version(second: u64, id: u8) -> Version {
    let time = second << SECOND;
    Version::put(Stamp { time, id: [id; 16] }, 7)
}

fn put(key: usize, version: Version) -> Write<'static> {
    Write::History {
        key: &KEYS[key],
        record: RecordRef::own(version, None),
    }
}

fn forget(key: usize, version: Version) -> Write<'static> {
    Write::ForgetHistory {
        key: &KEYS[key],
        version,
    }
}

fn minutes(from: u64, to: u64) -> Times {
    (first_of(from), last_of(to))
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

/// A write of a batch, told by what the store holds.
#[derive(Clone, Copy, Debug)]
enum Made {
    /// A version so many seconds ahead of the clock.
    New(usize, u64, u8),
    /// A version of some time that has passed.
    Late(usize, u64, u8),
    /// A version that is held.
    Again(usize),
    /// A version that is held is dropped.
    Forget(usize),
}

#[derive(Clone, Debug)]
enum Step {
    /// Seconds that pass, and what comes then.
    Note(u64, Vec<Made>),
    Settle(Fate),
    Flush(bool),
    Ask(u64, u64),
    Snapshot(usize),
    Renew(usize),
    ForgetBelow(u64),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let made = prop_oneof![
        8 => (0usize..4, 0u64..30, 1u8..3).prop_map(|(key, ahead, id)| Made::New(key, ahead, id)),
        1 => (0usize..4, 0u64..600, 1u8..3).prop_map(|(key, at, id)| Made::Late(key, at, id)),
        1 => (0usize..100).prop_map(Made::Again),
        1 => (0usize..100).prop_map(Made::Forget),
    ];
    let fate = prop_oneof![
        6 => Just(Fate::Committed),
        1 => Just(Fate::Aborted),
        1 => Just(Fate::Retried),
        1 => Just(Fate::Denied),
    ];
    prop_oneof![
        8 => (0u64..50, proptest::collection::vec(made, 0..7))
            .prop_map(|(passed, made)| Step::Note(passed, made)),
        8 => fate.prop_map(Step::Settle),
        1 => any::<bool>().prop_map(Step::Flush),
        4 => (0u64..1_000, 0u64..1_000).prop_map(|(a, b)| Step::Ask(a.min(b), a.max(b))),
        4 => (0usize..4).prop_map(Step::Snapshot),
        6 => (0usize..4).prop_map(Step::Renew),
        1 => (0u64..300).prop_map(Step::ForgetBelow),
        1 => Just(Step::Crash),
    ]
}

/// A ledger beside its store.
struct Scene {
    store: Store,
    calendar: Calendar,
    /// The newest version that was ever offered.
    newest: Version,
    in_flight: Option<Vec<Write<'static>>>,
    scans: Vec<(Stale, Option<Store>)>,
    /// Seconds.
    clock: u64,
}

impl Scene {
    fn new() -> Self {
        Self {
            store: Store::default(),
            calendar: Calendar::begin(false),
            newest: Version::ZERO,
            in_flight: None,
            scans: Vec::new(),
            clock: 0,
        }
    }

    /// One that knows that there is nothing.
    fn known() -> Self {
        let mut scene = Self::new();
        scene.renew();
        scene.commit(Vec::new());
        scene
    }

    fn note(&mut self, writes: &mut Vec<Write<'static>>) {
        self.calendar.note(&SPACE, writes, self.newest);
        for write in writes {
            if let Write::History { record, .. } = write {
                self.newest = self.newest.max(record.head.own);
            }
        }
    }

    fn commit(&mut self, mut writes: Vec<Write<'static>>) -> usize {
        let before = writes.len();
        self.note(&mut writes);
        self.store.commit(&writes);
        self.calendar.committed();
        writes.len() - before
    }

    fn renew(&mut self) {
        let stale = self.calendar.stale(ALWAYS);
        self.calendar.renew(self.store.count(&stale));
    }

    fn made(&self, made: Made) -> Option<Write<'static>> {
        let held = |index: usize| {
            let len = self.store.history.len().max(1);
            self.store.history.iter().nth(index % len).copied()
        };
        match made {
            Made::New(key, ahead, id) => Some(put(key, version(self.clock + ahead, id))),
            Made::Late(key, at, id) => Some(put(key, version(at.min(self.clock), id))),
            Made::Again(index) => held(index).map(|(key, version)| put(key, version)),
            Made::Forget(index) => held(index).map(|(key, version)| forget(key, version)),
        }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Note(passed, made) => {
                self.settle(Fate::Committed);
                self.clock += passed;
                let mut writes: Vec<_> = made.iter().filter_map(|made| self.made(*made)).collect();
                self.note(&mut writes);
                self.in_flight = Some(writes);
            }
            Step::Settle(fate) => self.settle(*fate),
            Step::Flush(all) => {
                if self.in_flight.is_none() {
                    let rows = if *all {
                        self.calendar.all_rows_to_write()
                    } else {
                        self.calendar.rows_to_write()
                    };
                    self.in_flight = (!rows.is_empty()).then_some(rows);
                }
            }
            Step::Ask(from, to) => {
                let stale = self.calendar.stale((from << SECOND, to << SECOND));
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
                    self.calendar.renew(counted);
                }
            }
            Step::ForgetBelow(second) => self.calendar.forget_below(second << SECOND),
            Step::Crash => {
                self.in_flight = None;
                self.scans.clear();
                self.calendar = self.store.load();
                self.newest = self.store.newest;
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
                self.calendar.committed();
            }
            Fate::Aborted => self.calendar.aborted(),
            Fate::Denied => {
                self.store.commit(&writes);
                self.calendar.aborted();
            }
            Fate::Retried => {
                self.calendar.aborted();
                self.note(&mut writes);
                self.store.commit(&writes);
                self.calendar.committed();
            }
        }
    }

    /// Nothing that is known is wrong, here or in the rows.
    fn check(&self) {
        // What is in flight was added already; whether it is right is seen when it has settled.
        if self.in_flight.is_none() {
            self.check_calendar(&self.calendar, "in memory");
        }
        self.check_calendar(&self.store.load(), "in the rows");
    }

    fn check_calendar(&self, calendar: &Calendar, which: &str) {
        let mut at = Vec::new();
        for (minute, cell) in &calendar.cells {
            let sum = self.store.sum(minutes(*minute, *minute));
            if !cell.is_stale {
                assert_eq!(cell.summary, sum, "{which}: minute {minute}");
            }
            at.push(*minute);
        }
        if !calendar.is_unknown {
            for (time, _) in self.store.items((first_of(calendar.floor), u64::MAX)) {
                assert!(
                    at.contains(&minute_of(time)),
                    "{which}: {}",
                    minute_of(time)
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    #[test]
    fn what_is_known_is_right_at_every_moment(
        is_known in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..80),
        asked in (0u64..1_000, 0u64..1_000),
    ) {
        let mut scene = if is_known { Scene::known() } else { Scene::new() };
        for step in &steps {
            scene.apply(step);
            scene.check();
        }
        scene.settle(Fate::Committed);
        scene.check();
        // And when there is peace everything is known, and written.
        scene.renew();
        prop_assert!(!scene.calendar.is_stale());
        scene.check();
        scene.commit(Vec::new());
        let rows = scene.calendar.all_rows_to_write();
        scene.store.commit(&rows);
        scene.calendar.committed();
        prop_assert!(scene.calendar.all_rows_to_write().is_empty());
        let loaded = scene.store.load();
        prop_assert!(!loaded.is_stale());
        let (from, to) = (asked.0.min(asked.1), asked.0.max(asked.1));
        let asked = (from << SECOND, to << SECOND);
        for calendar in [&scene.calendar, &loaded] {
            let covered = calendar.summary(asked);
            prop_assert!(covered.partial.len() <= 2);
            prop_assert_eq!(covered.stale, vec![]);
            let partial: Summary = covered.partial.iter().map(|times| scene.store.sum(*times)).sum();
            let above = (asked.0.max(first_of(calendar.floor)), asked.1);
            prop_assert_eq!(
                [covered.summary, partial].into_iter().sum::<Summary>(),
                scene.store.sum(above)
            );
        }
    }

    #[test]
    fn what_is_stale_says_so(
        steps in proptest::collection::vec(step(), 1..60),
        asked in (0u64..1_000, 0u64..1_000),
    ) {
        let mut scene = Scene::known();
        for step in &steps {
            scene.apply(step);
        }
        scene.settle(Fate::Committed);
        let (from, to) = (asked.0.min(asked.1), asked.0.max(asked.1));
        let asked = (from << SECOND, to << SECOND);
        // Renewing what a summary calls stale is enough for it.
        let stale = scene.calendar.stale(asked);
        let covered = scene.calendar.summary(asked);
        for times in &covered.stale {
            let inside = |stale: &&Times| stale.0 <= times.0 && times.1 <= stale.1;
            prop_assert!(stale.times().iter().any(|stale| inside(&stale)), "{times:?}");
        }
        scene.calendar.renew(scene.store.count(&stale));
        prop_assert_eq!(scene.calendar.summary(asked).stale, vec![]);
        scene.check();
    }

    #[test]
    fn rows_that_make_no_sense_claim_nothing(
        seconds in proptest::collection::vec(0u64..900, 1..40),
        spoilt in proptest::collection::vec((0usize..40, 0usize..40, 0usize..9), 1..5),
    ) {
        let mut scene = Scene::known();
        for second in seconds {
            scene.commit(vec![put(0, version(second, 1))]);
        }
        scene.renew();
        scene.store.commit(&scene.calendar.all_rows_to_write());
        scene.calendar.committed();
        let mut rows = BTreeSet::new();
        for (row, len, extra) in spoilt {
            let row = row % scene.store.rows.len();
            if !rows.insert(row) {
                continue;
            }
            let value = scene.store.rows.values_mut().nth(row).unwrap();
            value.truncate(len);
            // Longer or shorter than it was: a sum that is wrong by a bit is for the store to notice.
            if value.len() + extra == 25 || value.len() + extra == 9 {
                continue;
            }
            value.extend(vec![0xff; extra]);
        }
        scene.check_calendar(&scene.store.load(), "of spoilt rows");
        scene.calendar = scene.store.load();
        scene.commit(vec![put(1, version(450, 1)), put(1, version(1_000, 1))]);
        scene.check();
        scene.renew();
        scene.commit(Vec::new());
        scene.check();
        prop_assert!(!scene.calendar.is_stale());
    }

    #[test]
    fn cuts_are_inside_and_about_equal(
        seconds in proptest::collection::btree_set(0u64..6_000, 1..60),
        asked in (0u64..6_000, 0u64..6_000),
        parts in 1usize..9,
    ) {
        let mut scene = Scene::known();
        for second in seconds {
            scene.commit(vec![put(0, version(second, 1))]);
        }
        let (from, to) = (asked.0.min(asked.1) << SECOND, asked.0.max(asked.1) << SECOND);
        let cuts = scene.calendar.cut((from, to), parts);
        prop_assert!(cuts.len() < parts);
        prop_assert!(cuts.is_sorted_by(|a, b| a < b));
        prop_assert!(cuts.iter().all(|cut| from < *cut && *cut <= to));
        let held = |from: u64, to: u64| scene.calendar.range(minute_of(from), minute_of(to)).count();
        let all = held(from, to);
        if all > 1 {
            let ends: Vec<u64> = cuts.iter().copied().chain([to + 1]).collect();
            let mut from = from;
            for end in ends {
                prop_assert!(held(from, end - 1) <= all / parts + 2);
                from = end;
            }
        }
    }

    #[test]
    fn sums_of_shards_add_up(
        made in proptest::collection::vec((0usize..4, 0u64..600), 0..60),
    ) {
        let mut whole = Scene::known();
        let mut shards = [Scene::known(), Scene::known()];
        for (key, second) in made {
            let write = put(key, version(second, 1));
            shards[key % 2].commit(vec![write.clone()]);
            whole.commit(vec![write]);
        }
        let sum = |scene: &mut Scene| {
            scene.renew();
            scene.calendar.summary(ALWAYS).summary
        };
        prop_assert_eq!(shards.iter_mut().map(sum).sum::<Summary>(), sum(&mut whole));
    }
}

#[test]
fn what_is_surely_new_is_added_and_nothing_is_read() {
    let mut scene = Scene::known();
    for second in 0..600 {
        scene.commit(vec![put(0, version(second, 1))]);
        assert!(!scene.calendar.is_stale());
    }
    // Within a batch any order will do, repetitions too.
    let batch: Vec<_> = [630, 610, 620, 610, 630]
        .map(|second| put(1, version(second, 1)))
        .into();
    scene.commit(batch);
    assert!(!scene.calendar.is_stale());
    assert_eq!(scene.calendar.count(), 603);
    scene.check();
    // What is older may be a repetition.
    scene.commit(vec![put(1, version(610, 1))]);
    assert_eq!(scene.calendar.stale(ALWAYS).times(), [minutes(10, 10)]);
    scene.commit(vec![put(2, version(10, 1)), forget(0, version(70, 1))]);
    assert_eq!(
        scene.calendar.stale(ALWAYS).times(),
        [minutes(0, 1), minutes(10, 10)]
    );
    assert_eq!(scene.calendar.stale(minutes(1, 5)).times(), [minutes(1, 1)]);
    scene.renew();
    assert!(!scene.calendar.is_stale());
    scene.check();
}

#[test]
fn rows_are_written_when_the_series_has_gone_on() {
    let mut scene = Scene::known();
    let key = |minute: u64| [b"t", &minute.to_be_bytes()[..]].concat();
    let row = |scene: &Scene, minute| {
        let sum = scene.store.sum(minutes(minute, minute));
        [&[1], &sum.count.to_be_bytes()[..], &sum.sum.to_be_bytes()].concat()
    };
    let floor = (vec![b't'], vec![1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(scene.store.rows, Rows::from([floor.clone()]));
    assert_eq!(
        scene.commit(vec![put(0, version(1, 1))]),
        1,
        "the minute is open"
    );
    assert_eq!(scene.commit(vec![put(0, version(2, 1))]), 0, "it is");
    assert_eq!(scene.store.rows[&key(0)], [1]);
    assert_eq!(
        scene.commit(vec![put(0, version(61, 1))]),
        1,
        "so is the next one"
    );
    assert!(scene.calendar.rows_to_write().is_empty());
    assert_eq!(
        scene.commit(vec![put(0, version(121, 1))]),
        2,
        "the first one is over"
    );
    assert_eq!(scene.store.rows[&key(0)], row(&scene, 0));
    let rows = scene.calendar.all_rows_to_write();
    assert_eq!(rows.len(), 2, "a store that is closed knows it all");
    scene.store.commit(&rows);
    scene.calendar.committed();
    let all = (0..3).map(|minute| (key(minute), row(&scene, minute)));
    assert_eq!(scene.store.rows, all.chain([floor]).collect());
    assert_eq!(
        scene.commit(vec![put(0, version(122, 1))]),
        1,
        "it is open again"
    );
    // Those of the runs are not ours.
    let mut rows: Vec<_> = scene.store.rows.clone().into_iter().collect();
    rows.push((vec![b'k'], vec![1]));
    assert_eq!(Calendar::load(&rows).stale(ALWAYS).times(), [minutes(2, 2)]);
}

#[test]
fn what_is_below_the_floor_is_dropped_with_its_rows() {
    let mut scene = Scene::known();
    for second in 0..600 {
        scene.commit(vec![put(0, version(second, 1))]);
    }
    scene.calendar.forget_below(version(330, 1).stamp.time);
    assert_eq!(scene.calendar.len(), 5);
    scene.commit(vec![forget(0, version(3, 1)), put(0, version(4, 2))]);
    assert_eq!(scene.calendar.len(), 5, "nobody counts there");
    let loaded = scene.store.load();
    assert_eq!((loaded.len(), loaded.floor), (5, 5));
    assert_eq!(loaded.summary((0, last_of(4))).summary, Summary::EMPTY);
    assert_eq!(
        scene.calendar.summary(ALWAYS).summary,
        scene.store.sum((first_of(5), u64::MAX))
    );
}

#[test]
fn what_is_in_flight_cannot_be_renewed() {
    for done in [true, false] {
        let mut scene = Scene::known();
        scene.commit(vec![put(0, version(3, 1))]);
        let mut writes = vec![forget(0, version(3, 1))];
        scene.note(&mut writes);
        // The snapshot may hold the batch already, or not yet.
        scene.renew();
        assert!(scene.calendar.is_stale());
        if done {
            scene.store.commit(&writes);
        }
        scene.calendar.settle(done);
        scene.renew();
        assert!(!scene.calendar.is_stale());
        scene.check();
    }
    // Nor what was on its way before there was a ledger.
    let mut scene = Scene::new();
    scene.calendar = Calendar::begin(true);
    scene.renew();
    assert!(scene.calendar.is_stale());
    scene.store.commit(&[put(0, version(3, 1))]);
    scene.calendar.committed();
    scene.renew();
    assert!(!scene.calendar.is_stale());
    scene.check();
}

#[test]
fn a_count_that_comes_late_finds_nothing_that_is_no_more() {
    let mut scene = Scene::known();
    scene.commit(vec![put(0, version(3, 1)), put(0, version(200, 1))]);
    scene.commit(vec![forget(1, version(3, 1))]);
    let early = scene.store.count(&scene.calendar.stale(ALWAYS));
    scene.commit(vec![forget(0, version(3, 1))]);
    scene.renew();
    assert_eq!(scene.calendar.len(), 1);
    scene.calendar.renew(early);
    assert!(scene.calendar.is_stale());
    scene.check();
    scene.renew();
    scene.commit(Vec::new());
    // One of the floor, one of the minute that is left.
    assert_eq!((scene.calendar.len(), scene.store.rows.len()), (1, 2));
    scene.check();
}

#[test]
fn a_batch_that_is_tried_again_has_no_rows_of_the_first_time() {
    let mut scene = Scene::known();
    let mut writes = vec![put(0, version(3, 1)), put(0, version(300, 1))];
    scene.note(&mut writes);
    scene.calendar.aborted();
    scene.note(&mut writes);
    let rows = writes
        .iter()
        .filter(|write| matches!(write, Write::Row { .. }))
        .count();
    assert_eq!(rows, 2, "{writes:?}");
    scene.store.commit(&writes);
    scene.calendar.committed();
    scene.check();
}

#[test]
fn one_minute_is_cut_by_seconds() {
    let mut scene = Scene::known();
    for second in 60..120 {
        scene.commit(vec![put(0, version(second, 1))]);
    }
    let second = |second: u64| second << SECOND;
    let quarters = [75, 90, 105].map(second);
    assert_eq!(scene.calendar.cut(ALWAYS, 4), quarters);
    assert_eq!(
        scene.calendar.cut((second(70), second(72)), 16),
        [71, 72].map(second)
    );
    assert_eq!(scene.calendar.cut((second(70), second(70) + 9), 16), [0; 0]);
    assert_eq!(scene.calendar.cut((second(0), second(59)), 16), [0; 0]);
}
