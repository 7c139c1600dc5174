//! What a storage should hold, computed the plain way: everything sorted, then applied.

use std::collections::{BTreeMap, BTreeSet};

use weir_core::{
    change::{Change, WildcardChange},
    key::Key,
    keyexpr::keyexpr,
    value::Value,
    version::{Stamp, Version},
};

/// A change offered to a storage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Of one key.
    Key(Change),
    /// Of a key expression.
    Wildcard(WildcardChange),
    /// An unstamped delete that found nothing: decided, and not to be decided again.
    Nothing,
}

/// What each key holds.
pub type State = BTreeMap<String, (Version, Value)>;

/// Everything that counts, as if it had been one place and one clock.
#[derive(Clone, Default, Debug)]
pub struct Model {
    ops: Vec<(Version, Op)>,
}

impl Model {
    /// Takes note of a change. A delete without a stamp takes effect on what is held now (S4): a
    /// wildcard one on each key that it covers.
    ///
    /// # Panics
    /// On a put without a stamp: nobody could say what it should do.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Nothing => {}
            Op::Key(change) => match change.stamp {
                Some(stamp) => self.ops.push((change.version(stamp), op.clone())),
                None => {
                    assert!(change.value.is_none(), "a put without a stamp");
                    self.delete_held(|key| key == &*change.key);
                }
            },
            Op::Wildcard(change) => match change.stamp {
                Some(stamp) => self.ops.push((change.version(stamp), op.clone())),
                None => {
                    assert!(change.value.is_none(), "a wildcard put without a stamp");
                    self.delete_held(|key| covers(&change.expr, key));
                }
            },
        }
    }

    /// What each key holds.
    #[must_use]
    pub fn state(&self) -> State {
        let mut sorted: Vec<&(Version, Op)> = self.ops.iter().collect();
        sorted.sort_by_key(|(version, _)| *version);
        let mut state = State::new();
        for (version, op) in sorted {
            match op {
                Op::Nothing => {}
                Op::Key(change) => match &change.value {
                    Some(value) => {
                        state.insert(change.key.to_string(), (*version, value.clone()));
                    }
                    None => _ = state.remove(&*change.key),
                },
                Op::Wildcard(WildcardChange { expr, value, .. }) => match value {
                    None => state.retain(|key, _| !covers(expr, key)),
                    // It touches only keys that exist.
                    Some(value) => {
                        for (_, held) in state.iter_mut().filter(|(key, _)| covers(expr, key)) {
                            *held = (*version, value.clone());
                        }
                    }
                },
            }
        }
        state
    }

    /// Every version of every key's own changes: what a time series keeps.
    #[must_use]
    pub fn series(&self) -> BTreeSet<(Key, Version)> {
        let keys = self.ops.iter().filter_map(|(version, op)| match op {
            Op::Key(change) => Some((change.key.clone(), *version)),
            _ => None,
        });
        keys.collect()
    }

    fn delete_held(&mut self, covers: impl Fn(&str) -> bool) {
        for (key, (version, _)) in self.state() {
            if covers(&key) {
                let change = Change {
                    key: Key::from(&*key),
                    stamp: Some(version.stamp),
                    value: None,
                };
                self.ops.push((version.tombstone(), Op::Key(change)));
            }
        }
    }
}

/// The stamp of a change, if it has one.
#[must_use]
pub fn stamp_of(op: &Op) -> Option<Stamp> {
    match op {
        Op::Key(change) => change.stamp,
        Op::Wildcard(change) => change.stamp,
        Op::Nothing => None,
    }
}

/// Whether the expression matches the key.
#[must_use]
pub fn covers(expr: &keyexpr, key: &str) -> bool {
    keyexpr::new(key).is_ok_and(|key| expr.intersects(key))
}
