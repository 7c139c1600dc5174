//! Snapshots against copies of a map, and what is kept for whom.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use weir_backend_api::Direction;
use weir_core::{
    key::{Key, KeyRange},
    record::RecordRef,
    value::Value,
    version::{Stamp, Version},
};

use super::*;
use crate::scan::Cursor;

/// A row and the batch that wrote it.
type Map = BTreeMap<(bool, u8), u64>;

#[derive(Clone, Debug)]
enum Step {
    /// One batch: for each, whether it is history, which key, and whether it is there.
    Commit(Vec<(bool, u8, bool)>),
    Enter,
    Leave(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let write = (any::<bool>(), 0u8..4, proptest::bool::weighted(0.7));
    prop_oneof![
        5 => proptest::collection::vec(write, 1..5).prop_map(Step::Commit),
        2 => Just(Step::Enter),
        2 => any::<prop::sample::Index>().prop_map(Step::Leave),
    ]
}

fn version(time: u64) -> Version {
    Version::put(Stamp { time, id: [1; 16] }, 1)
}

fn key(n: u8) -> Key {
    Key::new(format!("k/{n}"))
}

/// Reads everything that a snapshot sees, in chunks of two rows.
fn read(state: &State, at: u64) -> Map {
    let mut map = Map::new();
    for (kind, direction) in [
        (Kind::Latest, Direction::Forward),
        (Kind::Latest, Direction::Backward),
        (Kind::History, Direction::Forward),
    ] {
        let mut cursor = match kind {
            Kind::Latest => Cursor::latest(&KeyRange::all(), direction),
            Kind::History => Cursor::history(&KeyRange::all(), None, direction),
        };
        let mut rows = Vec::new();
        while cursor.range().is_some() {
            state.layer(kind).scan(&mut cursor, at, 2, &mut rows);
        }
        for (row, kept) in rows {
            let n = row[2] - b'0';
            // A history row's own version is fixed; its payload tells the batch.
            let value = kept.record().unwrap().value.unwrap().payload;
            let batch = u64::from_be_bytes(value[..8].try_into().unwrap());
            map.insert((kind == Kind::History, n), batch);
        }
    }
    map
}

fn commit(state: &mut State, now: &mut Map, batch: u64, writes: &[(bool, u8, bool)]) {
    let keys: Vec<Key> = (0..4).map(key).collect();
    let value = Value::bytes(batch.to_be_bytes().to_vec());
    let record = |version| RecordRef::own(version, Some(&value));
    let writes: Vec<Write<'_>> = writes
        .iter()
        .map(|(is_history, n, is_there)| {
            let row = (*is_history, *n);
            match (is_there, is_history) {
                // The same version again changes nothing.
                (true, true) => _ = now.entry(row).or_insert(batch),
                (true, false) => _ = now.insert(row, batch),
                (false, _) => _ = now.remove(&row),
            }
            let key = &keys[usize::from(*n)];
            match (is_there, is_history) {
                (true, true) => Write::History {
                    key,
                    record: record(version(1)),
                },
                (true, false) => Write::Latest {
                    key,
                    record: record(version(batch)),
                },
                (false, true) => Write::ForgetHistory {
                    key,
                    version: version(1),
                },
                (false, false) => Write::ForgetLatest { key },
            }
        })
        .collect();
    state.apply(&writes);
}

fn leave(state: &mut State, at: u64) {
    let mut past = state.leave(at);
    while state.release(at, &mut past, 1) {}
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    /// A snapshot sees what was there, exactly what the living ones see is kept, and nothing once
    /// they are gone.
    #[test]
    fn keeps_what_somebody_sees_and_no_more(steps in proptest::collection::vec(step(), 1..60)) {
        let mut state = State::default();
        let mut now = Map::new();
        let mut living: Vec<(u64, Map)> = Vec::new();
        let mut batch = 0;
        for step in steps {
            match step {
                Step::Commit(writes) => {
                    batch += 1;
                    commit(&mut state, &mut now, batch, &writes);
                }
                Step::Enter => living.push((state.enter(), now.clone())),
                Step::Leave(index) if !living.is_empty() => {
                    let (at, _) = living.swap_remove(index.index(living.len()));
                    leave(&mut state, at);
                }
                Step::Leave(_) => {}
            }
            for (at, then) in &living {
                prop_assert_eq!(&read(&state, *at), then);
            }
            // Records that somebody sees though they are not current; a row that was forgotten and
            // written again keeps its absence in between too, which a map cannot count.
            let seen: BTreeSet<_> = living
                .iter()
                .flat_map(|(_, then)| then)
                .filter(|(row, batch)| now.get(row) != Some(batch))
                .collect();
            let kept = state.latest.past() + state.history.past();
            prop_assert!(kept >= seen.len(), "{} of {} kept", kept, seen.len());
            let rows = 2 * 4;
            let moments: BTreeSet<u64> = living.iter().map(|(at, _)| *at).collect();
            prop_assert!(kept <= moments.len() * rows, "{} kept for {:?}", kept, moments);
        }
        for (at, _) in living {
            leave(&mut state, at);
        }
        prop_assert_eq!(state.latest.past() + state.history.past(), 0);
        prop_assert!(state.readers.is_empty());
        prop_assert_eq!(state.latest.len() + state.history.len(), now.len() as u64);

        // Bytes are those of a store that never held anything else.
        let mut fresh = State::default();
        for (row, batch) in &now {
            commit(&mut fresh, &mut Map::new(), *batch, &[(row.0, row.1, true)]);
        }
        prop_assert_eq!(state.bytes(), fresh.bytes());
    }
}

#[test]
fn nothing_is_kept_without_a_reader() {
    let mut state = State::default();
    let mut now = Map::new();
    for batch in 1..100 {
        commit(&mut state, &mut now, batch, &[(false, 1, true)]);
        assert_eq!(state.latest.past(), 0);
    }
    let at = state.enter();
    for batch in 100..200 {
        commit(&mut state, &mut now, batch, &[(false, 1, true)]);
        // The one record that the reader sees, however often it is overwritten.
        assert_eq!(state.latest.past(), 1);
    }
    leave(&mut state, at);
    assert_eq!(state.latest.past(), 0);
}
