//! What replicas hold after they have exchanged records and wildcard operations.

use super::*;

impl Shard {
    /// Takes over what the other holds, as a mirror does: the operations first, then records. Answers
    /// whether anything changed.
    fn learn_from(&mut self, other: &Self) -> bool {
        let before = self.state();
        for op in other.admitter.journal().iter() {
            self.offer(&Op::Wildcard(WildcardChange {
                expr: op.expr.clone(),
                stamp: Some(op.version.stamp),
                value: op.value.clone(),
            }));
        }
        for (key, record) in &other.store.latest {
            self.take(key, record, other.admitter.folded_through);
        }
        self.state() != before
    }

    fn take(&mut self, key: &Key, record: &Record, horizon: Version) -> Admission {
        let mut writes = Vec::new();
        self.admitter.begin();
        if self.admitter.must_read_record(key) {
            let head = self.store.latest.get(key).map(|record| record.head);
            self.admitter.learn(key, head);
        }
        let admission = self
            .admitter
            .admit_replica(NOW, key, record, horizon, &mut writes);
        self.admitter.seal(&mut writes);
        self.store.commit(writes);
        admission
    }
}

/// Lets all learn from all until nothing changes any more.
fn settle(shards: &mut [Shard]) {
    for _ in 0..8 {
        let mut changed = false;
        for to in 0..shards.len() {
            for from in 0..shards.len() {
                if from != to {
                    let mut other = Shard::new(shards[from].admitter.history());
                    other.store = shards[from].store.clone();
                    other.restart();
                    changed |= shards[to].learn_from(&other);
                }
            }
        }
        if !changed {
            return;
        }
    }
    panic!("they never settle");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Whatever reached whom, in whatever order, and whoever has folded what: once they have exchanged
    /// what they hold, all hold what the plain model says.
    #[test]
    fn who_exchanged_everything_holds_the_same(
        ops in proptest::collection::vec(op(), 1..10),
        arrivals in proptest::collection::vec(
            (any::<prop::sample::Index>(), 0usize..3, any::<bool>()),
            0..25,
        ),
        all in any::<bool>(),
    ) {
        let history = if all { History::All } else { History::Latest };
        let mut shards = [(); 3].map(|()| Shard::new(history));
        // Each change reaches somebody.
        for (index, op) in ops.iter().enumerate() {
            shards[index % 3].offer(op);
        }
        for (index, to, fold) in arrivals {
            shards[to].offer(index.get(&ops));
            if fold {
                shards[to].fold();
            }
        }
        settle(&mut shards);
        let expected = model(&ops);
        for shard in &mut shards {
            prop_assert_eq!(shard.state(), expected.clone());
            shard.restart();
            shard.fold();
            prop_assert_eq!(shard.state(), expected.clone());
        }
    }
}

#[test]
fn each_record_of_another_has_its_admission() {
    let Op::Key(change) = put("a", 5, "x") else {
        unreachable!()
    };
    let own = change.version(change.stamp.unwrap());
    let record = Record::own(own, change.value.clone());
    let later = Version::put(stamp(7, 2).unwrap(), Value::bytes("w").hash());
    let folded = Record {
        head: Head {
            own,
            folded: Some(later),
        },
        value: Some(Value::bytes("w")),
        merged: None,
    };
    let future = Record::own(Version::delete(stamp(NOW + 101, 0).unwrap()), None);
    let key = Key::from("a");
    let mut shard = Shard::new(History::Latest);
    let mut take = |record: &Record, horizon| shard.take(&key, record, horizon).name();
    assert_eq!(take(&record, Version::ZERO), "applied");
    assert_eq!(take(&record, Version::ZERO), "known");
    // Who remembers the operation has told of it, and would have been believed.
    assert_eq!(take(&folded, Version::ZERO), "known");
    // It is forgotten there and was never known here: the record alone tells of it.
    let forgotten = Version::delete(stamp(8, 0).unwrap());
    assert_eq!(take(&folded, forgotten), "applied");
    assert_eq!(take(&record, Version::ZERO), "outdated");
    assert_eq!(take(&future, Version::ZERO), "parked");
    assert_eq!(shard.state()["a"], (later, Value::bytes("w")));
    assert_eq!(shard.offer(&put("a", 9, "y")).name(), "applied");
    let mut take = |key: &str, record: &Record| {
        let key = Key::from(key);
        shard.take(&key, record, Version::ZERO).name()
    };
    assert_eq!(take("a", &folded), "outdated");
    shard.offer(&delete("b", stamp(6, 0)));
    shard.collect(collection::before(8));
    let mut take = |key: &str, record: &Record| {
        let key = Key::from(key);
        shard.take(&key, record, Version::ZERO).name()
    };
    assert_eq!(take("c", &record), "quarantined");
    assert_eq!(take("c", &Record::own(own.tombstone(), None)), "nothing");
}

/// Found by the simulator: a replica that keeps no series has sent what a wildcard operation had made of
/// a change, and the change itself was then taken for known.
#[test]
fn a_series_gets_the_change_of_which_it_knew_the_effect() {
    let Op::Key(change) = put("a", 5, "x") else {
        unreachable!()
    };
    let own = change.version(change.stamp.unwrap());
    let later = Version::put(stamp(7, 2).unwrap(), Value::bytes("w").hash());
    let folded = Record {
        head: Head {
            own,
            folded: Some(later),
        },
        value: Some(Value::bytes("w")),
        merged: None,
    };
    let (key, record) = (Key::from("a"), Record::own(own, change.value.clone()));
    let has_it = |shard: &Shard| shard.store.history.contains_key(&(Key::from("a"), own));
    for from_a_replica in [true, false] {
        let mut shard = Shard::new(History::All);
        assert_eq!(shard.take(&key, &folded, Version::ZERO).name(), "applied");
        assert!(!has_it(&shard), "a value under the version of another");
        let admission = if from_a_replica {
            shard.take(&key, &record, Version::ZERO)
        } else {
            shard.offer(&Op::Key(change.clone()))
        };
        assert_eq!(admission.name(), "known");
        assert!(has_it(&shard));
    }
}
