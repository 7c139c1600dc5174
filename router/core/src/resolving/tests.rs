//! S13 on replicas that exchange their states: any resolver leaves them byte-equal, a lawful one
//! leaves the fold of all changes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64_with_seed;
use zenoh_keyexpr::OwnedKeyExpr;

use super::*;
use crate::{
    admission::{Admitter, History, Memory, Rules},
    change::{Admission, Change, Table, WildcardChange},
    collection::{self, Collect},
    keyspace::KeySpace,
    version::Stamp,
};

const NOW: u64 = 1_000;
const KEYS: [&str; 2] = ["a", "a/b"];

/// Resolvers, lawful and not.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Answers with whatever a hash of its arguments says.
    Random(u64),
    /// Puts the payloads one behind the other: neither commutative nor idempotent.
    Append,
    /// Subtracts the second's first byte from the first's: not associative.
    Subtract,
    /// The greater payload; a delete is the least.
    Greatest,
    /// The union of the bytes; a delete absorbs.
    Union,
    /// The later version.
    Later,
    /// The earlier version.
    Earlier,
}

struct Asked {
    kind: Kind,
    /// Every so manyth question is interrupted.
    interrupt_every: u64,
    questions: u64,
}

fn answer(kind: Kind, first: Contender<'_>, second: Contender<'_>) -> Resolution {
    let bytes = |one: Contender<'_>| one.value.map_or(Vec::new(), |value| value.payload.to_vec());
    let (a, b) = (bytes(first), bytes(second));
    let merge = |bytes: Vec<u8>| Resolution::Merge(Value::bytes(bytes));
    match kind {
        Kind::Random(seed) => {
            let mut all = first.version.to_bytes().to_vec();
            all.extend(second.version.to_bytes());
            match xxh3_64_with_seed(&all, seed) % 8 {
                0 => Resolution::Default,
                1 => Resolution::First,
                2 => Resolution::Second,
                3 => Resolution::Delete,
                byte => merge(vec![byte.to_le_bytes()[0]]),
            }
        }
        Kind::Append => merge([a, b].concat().into_iter().take(6).collect()),
        Kind::Subtract => {
            let byte = |bytes: &[u8]| bytes.first().copied().unwrap_or(0);
            merge(vec![byte(&a).wrapping_sub(byte(&b))])
        }
        Kind::Greatest => match (first.value.is_some(), second.value.is_some()) {
            (true, false) => Resolution::First,
            (true, true) if a > b => Resolution::First,
            _ => Resolution::Second,
        },
        Kind::Union if first.value.is_none() || second.value.is_none() => Resolution::Delete,
        Kind::Union => {
            let union: BTreeSet<u8> = a.into_iter().chain(b).collect();
            merge(union.into_iter().collect())
        }
        Kind::Later => Resolution::Default,
        Kind::Earlier => Resolution::First,
    }
}

impl Resolve for Asked {
    fn resolve(
        &mut self,
        _: &str,
        first: Contender<'_>,
        second: Contender<'_>,
    ) -> Result<Resolution, Interrupted> {
        assert!(first.version < second.version, "not in canonical order");
        self.questions += 1;
        if self.interrupt_every > 0 && self.questions.is_multiple_of(self.interrupt_every) {
            return Err(Interrupted("test".into()));
        }
        Ok(answer(self.kind, first, second))
    }
}

/// A replica of a storage: what is in its store survives a crash, the rest does not.
struct Replica {
    admitter: Admitter,
    store: BTreeMap<Key, Record>,
    rows: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
    asked: Asked,
    revision: u64,
}

impl Replica {
    fn new(kind: Kind) -> Self {
        let rules = Rules {
            history: History::Latest,
            drift: 100,
            age_max: None,
            cache_keys: 2,
            resolves: true,
        };
        Self {
            admitter: Admitter::new(rules, KeySpace::default(), Memory::default()),
            store: BTreeMap::new(),
            rows: BTreeMap::new(),
            asked: Asked {
                kind,
                interrupt_every: 0,
                questions: 0,
            },
            revision: 7,
        }
    }

    /// One batch: judged, then committed, or lost in a crash.
    fn batch<T>(
        &mut self,
        about: &[Key],
        crash: bool,
        judge: impl FnOnce(&mut Admitter, &mut Keys, &mut Resolver<'_>, &mut Vec<Write<'_>>) -> T,
    ) -> T {
        let mut keys = Keys::default();
        for key in about {
            keys.learn(key.clone(), self.store.get(key).cloned());
        }
        let mut resolver = Resolver {
            revision: self.revision,
            resolve: &mut self.asked,
        };
        let mut writes = Vec::new();
        self.admitter.begin();
        let result = judge(&mut self.admitter, &mut keys, &mut resolver, &mut writes);
        self.admitter.seal(&mut writes);
        keys.write(&mut writes);
        if crash {
            self.admitter.abort();
            return result;
        }
        for write in writes {
            match write {
                Write::Latest { key, record } => {
                    // Through its bytes, as a store would.
                    let bytes = record.encode().into();
                    let record = Record::decode(&bytes).unwrap();
                    self.store.insert(key.clone(), record);
                }
                Write::Row { table, key, value } => {
                    let row = (table, key);
                    match value {
                        Some(value) => self.rows.insert(row, value),
                        None => self.rows.remove(&row),
                    };
                }
                other => panic!("not written here: {other:?}"),
            }
        }
        result
    }

    fn offer(&mut self, changes: &[Change], crash: bool) -> Vec<Result<Admission, Interrupted>> {
        let about: Vec<Key> = changes.iter().map(|change| change.key.clone()).collect();
        self.batch(&about, crash, |admitter, keys, resolver, writes| {
            changes
                .iter()
                .map(|change| admitter.admit_resolving(NOW, change, false, keys, resolver, writes))
                .collect()
        })
    }

    fn wildcard(&mut self, change: WildcardChange) {
        self.batch(&[], false, |admitter, _, _, writes| {
            admitter.admit_wildcard(NOW, change, false, writes);
        });
    }

    /// Takes all that another holds. `true` if it keeps something of its own all the same.
    fn take(&mut self, others: &BTreeMap<Key, Record>, theirs: u64) -> bool {
        let about: Vec<Key> = others.keys().cloned().collect();
        self.batch(&about, false, |admitter, keys, resolver, writes| {
            let mut apart = false;
            for (key, record) in others {
                let offered = Theirs {
                    record: record.clone(),
                    revision: theirs,
                };
                let (_, stays) = admitter
                    .admit_record(NOW, key, offered, keys, resolver, writes)
                    .unwrap();
                apart |= stays;
            }
            apart
        })
    }

    /// What a reader sees.
    fn live(&self) -> BTreeMap<String, Vec<u8>> {
        let (view, mut scratch) = (self.admitter.view(NOW), String::new());
        let live = self.store.iter().filter_map(|(key, record)| {
            let live = view.live(key, record.clone(), &mut scratch)?;
            Some((key.to_string(), live.value.payload.to_vec()))
        });
        live.collect()
    }

    fn bytes(&self) -> Vec<(Key, Vec<u8>)> {
        let rows = self.store.iter();
        rows.map(|(key, record)| (key.clone(), record.as_ref().encode()))
            .collect()
    }
}

/// What happens in a history. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    /// Some changes arrive in one batch, perhaps in vain.
    Deliver {
        to: usize,
        changes: Vec<usize>,
        crash: bool,
    },
    /// A delete without a stamp arrives.
    Delete { to: usize, key: usize },
    /// One takes what another holds.
    Gossip { to: usize, from: usize },
    /// A wildcard operation arrives.
    Wildcard { to: usize, op: usize },
}

fn key() -> impl Strategy<Value = Key> {
    (0..KEYS.len()).prop_map(|index| Key::from(KEYS[index]))
}

fn stamp(time: u64, id: u8) -> Stamp {
    Stamp {
        time,
        id: [id + 1; 16],
    }
}

fn value() -> impl Strategy<Value = Option<Value>> {
    let payload = proptest::collection::vec(0u8..4, 0..3);
    proptest::option::weighted(0.8, payload.prop_map(Value::bytes))
}

/// Few clocks and times, so that changes of one clock, and of one stamp, meet all the time.
fn change() -> impl Strategy<Value = Change> {
    (key(), 1u64..8, 0u8..3, value()).prop_map(|(key, time, id, value)| Change {
        key,
        stamp: Some(stamp(time, id)),
        value,
    })
}

fn wildcard() -> impl Strategy<Value = WildcardChange> {
    (prop_oneof![Just("**"), Just("a/*")], 1u64..8, value()).prop_map(|(expr, time, value)| {
        WildcardChange {
            expr: OwnedKeyExpr::new(expr).unwrap(),
            stamp: Some(stamp(time, 9)),
            value,
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let (to, from) = (0usize..3, 0usize..3);
    prop_oneof![
        6 => (to.clone(), proptest::collection::vec(0usize..12, 1..4), proptest::bool::weighted(0.1))
            .prop_map(|(to, changes, crash)| Step::Deliver { to, changes, crash }),
        1 => (to.clone(), 0..KEYS.len()).prop_map(|(to, key)| Step::Delete { to, key }),
        3 => (to.clone(), from).prop_map(|(to, from)| Step::Gossip { to, from }),
        1 => (to, 0usize..3).prop_map(|(to, op)| Step::Wildcard { to, op }),
    ]
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => any::<u64>().prop_map(Kind::Random),
        2 => Just(Kind::Append),
        2 => Just(Kind::Subtract),
        1 => lawful(),
    ]
}

fn lawful() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Greatest),
        Just(Kind::Union),
        Just(Kind::Later),
        Just(Kind::Earlier),
    ]
}

/// Plays steps, then lets every change reach somebody and everybody exchange until nothing moves.
fn play(
    kind: Kind,
    changes: &[Change],
    wildcards: &[WildcardChange],
    steps: &[Step],
) -> Vec<Replica> {
    let mut replicas: Vec<Replica> = (0..3).map(|_| Replica::new(kind)).collect();
    for step in steps {
        match step {
            Step::Deliver {
                to,
                changes: some,
                crash,
            } => {
                let some: Vec<Change> = some
                    .iter()
                    .map(|index| changes[index % changes.len()].clone())
                    .collect();
                replicas[*to].offer(&some, *crash);
            }
            Step::Delete { to, key } => {
                let (key, stamp, value) = (Key::from(KEYS[*key]), None, None);
                replicas[*to].offer(&[Change { key, stamp, value }], false);
            }
            Step::Gossip { to, from } => {
                let others = replicas[*from].store.clone();
                replicas[*to].take(&others, 7);
            }
            Step::Wildcard { to, op } => {
                if let Some(op) = wildcards.get(*op) {
                    replicas[*to].wildcard(op.clone());
                }
            }
        }
    }
    for (index, change) in changes.iter().enumerate() {
        replicas[index % 3].offer(std::slice::from_ref(change), false);
    }
    for op in wildcards {
        replicas
            .iter_mut()
            .for_each(|replica| replica.wildcard(op.clone()));
    }
    // Two rounds are enough: after the first, one has merged everything, and hands it on.
    for _ in 0..2 {
        for (to, from) in [(1, 0), (2, 1), (0, 2), (1, 0), (2, 1)] {
            let others = replicas[from].store.clone();
            assert!(!replicas[to].take(&others, 7));
        }
    }
    replicas
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// S13: even a random resolver cannot make replicas differ for ever.
    #[test]
    fn any_resolver_leaves_replicas_byte_equal(
        kind in any_kind(),
        changes in proptest::collection::vec(change(), 1..12),
        wildcards in proptest::collection::vec(wildcard(), 0..3),
        steps in proptest::collection::vec(step(), 0..24),
    ) {
        let replicas = play(kind, &changes, &wildcards, &steps);
        for other in &replicas[1..] {
            prop_assert_eq!(replicas[0].bytes(), other.bytes());
            prop_assert_eq!(replicas[0].live(), other.live());
        }
    }

    /// In any order, any number of times, through any exchange and any crash: with laws it ends as if
    /// all changes had been merged one by one, and no change is forgotten because a later one of its
    /// clock came first.
    #[test]
    fn a_lawful_resolver_leaves_the_fold_of_all_changes(
        kind in lawful(),
        changes in proptest::collection::btree_map((key(), 1u64..8, 0u8..3), value(), 1..12),
        steps in proptest::collection::vec(step(), 0..24),
    ) {
        let changes: Vec<Change> = changes
            .into_iter()
            .map(|((key, time, id), value)| Change { key, stamp: Some(stamp(time, id)), value })
            .collect();
        let steps: Vec<Step> = steps
            .into_iter()
            .filter(|step| !matches!(step, Step::Delete { .. }))
            .collect();
        let replicas = play(kind, &changes, &[], &steps);
        let mut folded: BTreeMap<String, (Version, Option<Value>)> = BTreeMap::new();
        for change in &changes {
            let new = (change.version(change.stamp.unwrap()), change.value.clone());
            let key = change.key.to_string();
            let Some(old) = folded.get(&key) else {
                folded.insert(key, new);
                continue;
            };
            let (first, second) = if old.0 < new.0 { (old, &new) } else { (&new, old) };
            let contender = |one: &'_ (Version, Option<Value>)| (one.0, one.1.clone());
            let (first, second) = (contender(first), contender(second));
            let first = Contender { version: first.0, value: first.1.as_ref() };
            let second = Contender { version: second.0, value: second.1.as_ref() };
            folded.insert(key, settle(first, second, answer(kind, first, second)));
        }
        let folded: BTreeMap<String, Vec<u8>> = folded
            .into_iter()
            .filter_map(|(key, (_, value))| Some((key, value?.payload.to_vec())))
            .collect();
        for replica in &replicas {
            prop_assert_eq!(replica.live(), folded.clone());
        }
    }

    /// Interrupted anywhere: what was not decided is kept aside, and asked again it ends as without.
    #[test]
    fn an_interruption_decides_nothing(
        changes in proptest::collection::btree_map((key(), 1u64..8, 0u8..3), value(), 1..12),
        interrupt_every in 1u64..4,
    ) {
        let changes: Vec<Change> = changes
            .into_iter()
            .map(|((key, time, id), value)| Change { key, stamp: Some(stamp(time, id)), value })
            .collect();
        let mut calm = Replica::new(Kind::Union);
        calm.offer(&changes, false);
        let mut disturbed = Replica::new(Kind::Union);
        disturbed.asked.interrupt_every = interrupt_every;
        let before = disturbed.offer(&changes, false);
        let held = disturbed.bytes();
        let waiting: Vec<Change> = changes
            .iter()
            .zip(before)
            .filter(|(_, result)| result.is_err())
            .map(|(change, _)| change.clone())
            .collect();
        for change in &waiting {
            disturbed.batch(&[], false, |admitter, _, _, writes| {
                assert_eq!(admitter.park(change, writes).name(), "parked");
            });
        }
        prop_assert_eq!(disturbed.rows.keys().filter(|row| row.0 == Table::Parked).count(), waiting.len());
        prop_assert_eq!(disturbed.bytes(), held);
        disturbed.asked.interrupt_every = 0;
        disturbed.offer(&waiting, false);
        prop_assert_eq!(disturbed.bytes(), calm.bytes());
    }
}

fn put(time: u64, id: u8, payload: &'static str) -> Change {
    Change {
        key: Key::from("a"),
        stamp: Some(stamp(time, id)),
        value: Some(Value::bytes(payload)),
    }
}

fn delete(stamp: Option<Stamp>) -> Change {
    Change {
        key: Key::from("a"),
        stamp,
        value: None,
    }
}

fn names(results: Vec<Result<Admission, Interrupted>>) -> Vec<&'static str> {
    results
        .iter()
        .map(|result| result.as_ref().unwrap().name())
        .collect()
}

/// Changes in order -> what becomes of each, and what the key holds then.
#[test]
fn each_admission_has_its_name() {
    let (x, y, z) = (put(1, 0, "x"), put(2, 0, "y"), put(3, 1, "z"));
    let gone = delete(Some(stamp(4, 2)));
    type Row<'a> = (
        &'a str,
        Kind,
        Vec<&'a Change>,
        &'a [&'a str],
        Option<&'a str>,
    );
    let rows: [Row<'_>; 11] = [
        ("one", Kind::Union, vec![&x], &["applied"], Some("x")),
        (
            "twice",
            Kind::Union,
            vec![&x, &x],
            &["applied", "known"],
            Some("x"),
        ),
        (
            "of one clock",
            Kind::Union,
            vec![&x, &y],
            &["applied", "merged"],
            Some("xy"),
        ),
        (
            "late",
            Kind::Union,
            vec![&z, &y, &x],
            &["applied", "merged", "merged"],
            Some("xyz"),
        ),
        (
            "late and twice",
            Kind::Union,
            vec![&y, &x, &y],
            &["applied", "merged", "outdated"],
            Some("xy"),
        ),
        (
            "naive last writer",
            Kind::Later,
            vec![&x, &y],
            &["applied", "applied"],
            Some("y"),
        ),
        (
            "its late change",
            Kind::Later,
            vec![&y, &x],
            &["applied", "outdated"],
            Some("y"),
        ),
        (
            "the first stays",
            Kind::Earlier,
            vec![&x, &z, &y],
            &["applied", "outdated", "outdated"],
            Some("x"),
        ),
        (
            "the first comes late",
            Kind::Earlier,
            vec![&z, &x],
            &["applied", "applied"],
            Some("x"),
        ),
        (
            "a stamped delete is resolved",
            Kind::Greatest,
            vec![&x, &gone],
            &["applied", "outdated"],
            Some("x"),
        ),
        (
            "and absorbs",
            Kind::Union,
            vec![&gone, &x],
            &["applied", "outdated"],
            None,
        ),
    ];
    for (name, kind, changes, admissions, held) in rows {
        let mut replica = Replica::new(kind);
        let changes: Vec<Change> = changes.into_iter().cloned().collect();
        let admitted = names(replica.offer(&changes, false));
        assert_eq!(admitted, admissions, "{name}");
        let live = replica.live().remove("a");
        assert_eq!(live.as_deref(), held.map(str::as_bytes), "{name}");
        // One by one it is the same as in one batch.
        let mut alone = Replica::new(kind);
        for change in &changes {
            alone.offer(std::slice::from_ref(change), false);
        }
        assert_eq!(alone.bytes(), replica.bytes(), "{name}");
    }
}

/// S4: an unstamped delete is the tombstone of all that was merged, on every replica alike, and comes
/// back as itself when it is offered again under the stamp that it was given.
#[test]
fn an_unstamped_delete_has_seen_what_is_held() {
    let mut replicas = [Replica::new(Kind::Union), Replica::new(Kind::Union)];
    replicas[0].offer(&[put(1, 0, "x"), put(2, 1, "y")], false);
    replicas[1].offer(&[put(2, 1, "y")], false);
    replicas[1].offer(&[put(1, 0, "x")], false);
    for replica in &mut replicas {
        assert_eq!(names(replica.offer(&[delete(None)], false)), ["applied"]);
        assert_eq!(
            names(replica.offer(&[delete(Some(stamp(2, 1)))], false)),
            ["known"]
        );
        assert_eq!(names(replica.offer(&[delete(None)], false)), ["nothing"]);
        assert_eq!(names(replica.offer(&[put(1, 0, "x")], false)), ["outdated"]);
    }
    assert_eq!(replicas[0].bytes(), replicas[1].bytes());
    // One that held less: what it had not seen is settled by the resolver, not dropped.
    let mut third = Replica::new(Kind::Greatest);
    third.offer(&[put(1, 0, "x")], false);
    third.offer(&[delete(None)], false);
    assert_eq!(names(third.offer(&[put(2, 1, "y")], false)), ["applied"]);
}

/// A wildcard operation is evaluated on top of what was merged, whenever it comes.
#[test]
fn wildcards_lie_on_top() {
    let op = |time| WildcardChange {
        expr: OwnedKeyExpr::new("**").unwrap(),
        stamp: Some(stamp(time, 9)),
        value: None,
    };
    for at in 0..3 {
        for (time, held) in [(3, Some("xz")), (5, None)] {
            let mut replica = Replica::new(Kind::Union);
            for (index, change) in [put(1, 0, "x"), put(4, 1, "z")].iter().enumerate() {
                if index == at {
                    replica.wildcard(op(time));
                }
                replica.offer(std::slice::from_ref(change), false);
            }
            if at == 2 {
                replica.wildcard(op(time));
            }
            let live = replica.live().remove("a");
            assert_eq!(
                live.as_deref(),
                held.map(str::as_bytes),
                "at {at}, time {time}"
            );
        }
    }
}

/// Nothing is folded before the horizon; then it is a state that has merged the operation, and what
/// is older is judged no more. A tombstone stays as long as what it merged may come again.
#[test]
fn collection_forgets_no_vector_that_is_needed() {
    let mut replica = Replica::new(Kind::Earlier);
    let op = WildcardChange {
        expr: OwnedKeyExpr::new("a").unwrap(),
        stamp: Some(stamp(3, 9)),
        value: None,
    };
    replica.offer(&[put(2, 0, "x"), put(9, 1, "y")], false);
    replica.wildcard(op);
    let mut scratch = String::new();
    let key = Key::from("a");
    let view = replica.admitter.view(NOW);
    let record = replica.store[&key].clone();
    assert_eq!(view.fold(&key, &record, &mut scratch), None);
    assert_eq!(replica.live(), BTreeMap::new());
    let check = |record: &Record, horizon: u64, scratch: &mut String| {
        collection::collect(
            &view,
            History::Latest,
            &key,
            record,
            collection::before(horizon),
            scratch,
        )
    };
    // y, which lost, is newer than this horizon: the tombstone that knows it stays.
    let Collect::Fold(folded) = check(&record, 5, &mut scratch) else {
        panic!("not folded");
    };
    assert_eq!(folded.head.folded, Some(Version::delete(stamp(3, 9))));
    assert!(vector_of(&folded).contains(stamp(3, 9)) && vector_of(&folded).contains(stamp(9, 1)));
    assert_eq!(check(&folded, 5, &mut scratch), Collect::Keep);
    assert_eq!(check(&folded, 10, &mut scratch), Collect::Forget);
    assert_eq!(
        collection::bound_of(&view, &key, &folded, collection::before(5), &mut scratch),
        None
    );
    // Below the horizon only what is known is known; anything else is set aside.
    replica.batch(&[], false, |admitter, _, _, writes| {
        admitter.raise_horizon(collection::before(5), writes);
    });
    let rows = [(put(2, 0, "x"), "known"), (put(1, 1, "z"), "quarantined")];
    for (change, name) in rows {
        assert_eq!(names(replica.offer(&[change], false)), [name]);
    }
    assert_eq!(
        replica
            .rows
            .keys()
            .filter(|row| row.0 == Table::Quarantine)
            .count(),
        1
    );
}

/// Replicas on different revisions keep both until they agree; what is plainly newer still goes over.
#[test]
fn different_revisions_stay_apart_until_they_agree() {
    let (mut old, mut new) = (Replica::new(Kind::Union), Replica::new(Kind::Append));
    new.revision = 8;
    old.offer(&[put(1, 0, "x")], false);
    new.offer(&[put(2, 1, "y")], false);
    let (olds, news) = (old.store.clone(), new.store.clone());
    assert!(old.take(&news, 8) && new.take(&olds, 7));
    assert_eq!((&old.store, &new.store), (&olds, &news));
    // One that has merged both is no matter of opinion.
    new.offer(&[put(1, 0, "x")], false);
    let news = new.store.clone();
    assert!(!old.take(&news, 8));
    assert_eq!(old.bytes(), new.bytes());
    assert_eq!(
        old.store[&Key::from("a")].merged.as_ref().unwrap().revision,
        8
    );
    // And once they serve the same, they merge.
    old.revision = 8;
    old.offer(&[put(3, 2, "z")], false);
    let olds = old.store.clone();
    assert!(!new.take(&olds, 8));
    assert_eq!(old.bytes(), new.bytes());
}

/// The future is parked and what retention has dropped refused, from clients and replicas alike.
#[test]
fn the_future_waits_and_the_expired_is_refused() {
    let mut replica = Replica::new(Kind::Union);
    let late = put(NOW + 101, 0, "later");
    assert_eq!(
        names(replica.offer(std::slice::from_ref(&late), false)),
        ["parked"]
    );
    let version = late.version(late.stamp.unwrap());
    let others = BTreeMap::from([(late.key.clone(), Record::own(version, late.value))]);
    replica.take(&others, 7);
    assert!(replica.store.is_empty());
    assert_eq!(
        replica
            .rows
            .keys()
            .filter(|row| row.0 == Table::Parked)
            .count(),
        1
    );
    replica.batch(&[], false, |admitter, _, _, writes| {
        admitter.raise_floor(10, writes)
    });
    assert_eq!(names(replica.offer(&[put(9, 0, "x")], false)), ["rejected"]);
}

/// More clocks and changes than a vector tells apart: what is rounded away is outdated on some
/// replicas and merged on others, and they end alike all the same.
#[test]
fn rounding_leaves_replicas_alike() {
    for kind in [Kind::Random(3), Kind::Append, Kind::Union] {
        let mut replicas = [Replica::new(kind), Replica::new(kind), Replica::new(kind)];
        for number in 0..900u64 {
            let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
            let mut id = [1; 16];
            id[..2].copy_from_slice(&u16::try_from(mixed % 300).unwrap().to_be_bytes());
            let time = 1 + (mixed / 300) % 900;
            let change = Change {
                key: Key::from("a"),
                stamp: Some(Stamp { time, id }),
                value: Some(Value::bytes(vec![number.to_le_bytes()[0] % 26 + b'a'])),
            };
            let to = usize::try_from(mixed % 7).unwrap();
            for replica in replicas.iter_mut().skip(to % 3).take(1 + to / 3) {
                replica.offer(std::slice::from_ref(&change), false);
            }
            if number % 50 == 49 {
                let others = replicas[to % 3].store.clone();
                replicas[(to + 1) % 3].take(&others, 7);
            }
        }
        for (to, from) in [(1, 0), (2, 1), (0, 2), (1, 0), (2, 1)] {
            let others = replicas[from].store.clone();
            replicas[to].take(&others, 7);
        }
        assert_eq!(replicas[0].bytes(), replicas[1].bytes());
        assert_eq!(replicas[0].bytes(), replicas[2].bytes());
        let record = &replicas[0].bytes()[0].1;
        assert!(
            record.len() < Vector::LEN_MAX + 200,
            "{} bytes",
            record.len()
        );
    }
}
