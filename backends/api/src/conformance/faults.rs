//! S6 over a store that fails: whatever it does and whenever, every acknowledged change is there, a
//! batch is there whole or not at all, and what was offered again is there once.

use std::cell::Cell;

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngSeed, TestRunner},
};
use weir_core::{admission::History, collection, value::Value};

use super::{
    Site,
    admission::{NOW, Step, check_series, counts, property, step},
    harness::{Shard, rules},
    model::{Model, Op},
    samples::stamp,
};
use crate::{
    Error, ErrorKind, Result, StoreSpec, Volume,
    fault::{Fault, Faults, Faulty, Operation},
};

/// More attempts than any run of faults is long: one call in six fails at the most, and opening makes
/// about twenty.
const ATTEMPTS_MAX: u32 = 1_000;

/// Drives a shard over a faulty store as a router does: tries again what was not done, opens again
/// what is in doubt, offers again what was not acknowledged.
struct Driver<'a> {
    volume: &'a dyn Volume,
    spec: &'a StoreSpec,
    faults: &'a Faults,
    history: History,
    shard: Option<Shard>,
    /// Everything acknowledged.
    model: Model,
    /// The same and the batch that is in doubt.
    in_doubt: Option<Model>,
    decided: Vec<Vec<Op>>,
}

impl<'a> Driver<'a> {
    fn new(
        volume: &'a dyn Volume,
        spec: &'a StoreSpec,
        faults: &'a Faults,
        history: History,
    ) -> Self {
        Self {
            volume,
            spec,
            faults,
            history,
            shard: None,
            model: Model::default(),
            in_doubt: None,
            decided: Vec::new(),
        }
    }

    fn run(&mut self, steps: &[Step]) {
        for (index, step) in steps.iter().enumerate() {
            match step {
                Step::Batch(batch) => {
                    let batch = self.offer(batch.clone());
                    self.decided.push(batch);
                }
                Step::Again(at) if !self.decided.is_empty() => {
                    let batch = at.get(&self.decided).clone();
                    self.offer(batch);
                }
                Step::Again(_) => {}
                Step::Restart => self.restart(),
                Step::Fold => self.attempt(|driver| driver.shard()?.fold()),
                Step::Collect(old) => {
                    self.attempt(|driver| driver.shard()?.collect(collection::before(*old)));
                }
            }
            let state = self.attempt(|driver| driver.shard()?.state());
            assert_eq!(state, self.model.state(), "after step {index}");
        }
        // And once more without what the judge remembers.
        self.faults.calm();
        self.restart();
        let state = self.attempt(|driver| driver.shard()?.state());
        assert_eq!(state, self.model.state(), "after the last restart");
        if let Some(shard) = self.shard.take() {
            check_series(&shard, &self.model);
            shard.into_store().close().unwrap();
        }
    }

    /// Offers a batch until it is acknowledged; returns it as it was decided.
    fn offer(&mut self, mut batch: Vec<Op>) -> Vec<Op> {
        let admissions = self.attempt(|driver| {
            let offered = driver.shard()?.offer(&mut batch);
            // What failed before it was decided has written nothing: what was in doubt still is.
            let decided = match &offered {
                Ok(_) => Vec::new(),
                Err(_) => driver.shard()?.decided.clone(),
            };
            if !decided.is_empty() {
                let mut model = driver.model.clone();
                for (op, admission) in batch.iter().zip(decided) {
                    if counts(admission) {
                        model.apply(op);
                    }
                }
                driver.in_doubt = Some(model);
            }
            offered
        });
        self.in_doubt = None;
        for (op, admission) in batch.iter().zip(admissions) {
            if counts(admission) {
                self.model.apply(op);
            }
        }
        batch
    }

    fn restart(&mut self) {
        if !self.volume.capability().persistent {
            return self.attempt(|driver| driver.shard()?.forget());
        }
        if let Some(shard) = self.shard.take()
            && let Err(error) = shard.into_store().close()
        {
            // It is closed all the same.
            self.recover(&error);
        }
        self.attempt(|driver| driver.shard().map(|_| ()));
    }

    /// The shard; opened, recovered and checked if there is none.
    fn shard(&mut self) -> Result<&mut Shard> {
        let shard = match self.shard.take() {
            Some(shard) => shard,
            None => {
                let store = self.volume.open(self.spec)?;
                let shard = Shard::new(store, rules(self.history), NOW)?;
                let state = shard.state()?;
                let in_doubt = self.in_doubt.as_ref().map(Model::state);
                assert!(
                    state == self.model.state() || Some(&state) == in_doubt.as_ref(),
                    "opened again it holds\n{state:#?}\nacknowledged was\n{:#?}\nin doubt\n{:#?}",
                    self.model.state(),
                    in_doubt,
                );
                shard
            }
        };
        Ok(self.shard.insert(shard))
    }

    /// Does something until it succeeds.
    fn attempt<T>(&mut self, mut act: impl FnMut(&mut Self) -> Result<T>) -> T {
        for _ in 0..ATTEMPTS_MAX {
            match act(self) {
                Ok(done) => return done,
                Err(error) => self.recover(&error),
            }
        }
        panic!("{ATTEMPTS_MAX} attempts were not enough");
    }

    /// What a driver does about an error.
    fn recover(&mut self, error: &Error) {
        match error.kind() {
            ErrorKind::Unavailable => {}
            ErrorKind::Full => self.faults.set_budget(None),
            ErrorKind::Poisoned | ErrorKind::Closed => {
                self.shard = None;
                self.faults.revive();
            }
            ErrorKind::Rejected | ErrorKind::Corrupt => panic!("no fault of ours: {error}"),
        }
    }
}

/// What passes by itself, in everything that a shard calls.
fn passing() -> Vec<(Operation, Fault)> {
    use Operation::{Commit, Heads, Open, Rows, Scan, Snapshot};
    let unavailable = [Open, Heads, Commit, Rows, Scan, Snapshot]
        .map(|op| (op, Fault::Error(ErrorKind::Unavailable)));
    unavailable
        .into_iter()
        .chain([(Commit, Fault::Error(ErrorKind::Full))])
        .collect()
}

/// What leaves a batch in doubt, or ends the process.
fn doubtful() -> Vec<(Operation, Fault)> {
    use Operation::{Close, Commit, Heads, Open, Scan};
    let mut faults = vec![
        (Commit, Fault::Error(ErrorKind::Poisoned)),
        (Heads, Fault::Crash { applied: false }),
        (Scan, Fault::Crash { applied: false }),
        (Open, Fault::Crash { applied: false }),
        (Close, Fault::Crash { applied: false }),
        (Close, Fault::Error(ErrorKind::Unavailable)),
    ];
    for applied in [false, true] {
        faults.push((Commit, Fault::Torn { applied }));
        faults.push((Commit, Fault::Crash { applied }));
    }
    faults
}

/// Random histories over a store that fails at random.
fn random(site: &Site, kinds: impl Fn() -> Vec<(Operation, Fault)>) {
    let history = any::<bool>().prop_map(|all| if all { History::All } else { History::Latest });
    let input = (
        any::<u64>(),
        6u64..40,
        history,
        proptest::collection::vec(step(true), 1..12),
    );
    let injected = Cell::new(0);
    property(
        site,
        input,
        |volume, spec, (seed, one_in, history, steps)| {
            let has_history = volume.capability().history;
            let history = if has_history {
                history
            } else {
                History::Latest
            };
            let faults = Faults::new();
            faults.random(seed, one_in, kinds());
            let volume = Faulty::new(volume, faults.clone());
            Driver::new(&volume, spec, &faults, history).run(&steps);
            injected.set(injected.get() + faults.injected());
        },
    );
    assert!(injected.get() > 20, "{} faults are no test", injected.get());
}

/// Errors that pass: every batch is offered until it is taken, and taken once.
pub fn passing_faults_lose_nothing(site: &mut Site) {
    random(site, passing);
}

/// Commits in doubt and deaths of the process among them: the store is opened again.
pub fn doubts_and_crashes_lose_nothing(site: &mut Site) {
    if !site.can().persistent {
        return;
    }
    what_is_in_doubt_stays_so(site);
    random(site, || [passing(), doubtful()].concat());
}

/// A batch of which nobody knows whether it was written is offered again and fails before it is judged;
/// then the process dies.
fn what_is_in_doubt_stays_so(site: &Site) {
    let faults = Faults::new();
    let volume = Faulty::new(site.make_volume(), faults.clone());
    let put = Op::Key(weir_core::change::Change {
        key: weir_core::key::Key::new("k"),
        stamp: Some(stamp(1, 0)),
        value: Some(Value::bytes("v")),
    });
    faults.at(Operation::Commit, 1, Fault::Torn { applied: true });
    // The first is asked for before the commit.
    faults.at(Operation::Heads, 2, Fault::Error(ErrorKind::Unavailable));
    faults.at(Operation::Heads, 3, Fault::Crash { applied: false });
    let spec = site.spec("in-doubt");
    Driver::new(&volume, &spec, &faults, History::Latest).run(&[Step::Batch(vec![put])]);
    assert_eq!(faults.injected(), 3, "what was to fail was not called");
}

/// The process dies at each write of a history in turn, just before and just after it is written.
pub fn a_crash_at_any_write_loses_nothing(site: &mut Site) {
    if !site.can().persistent {
        return;
    }
    let mut crashes = 0;
    for seed in 0..3 {
        // The same histories in every run.
        let config = Config {
            rng_seed: RngSeed::Fixed(seed),
            ..Config::default()
        };
        let steps = proptest::collection::vec(step(true), 16)
            .new_tree(&mut TestRunner::new(config))
            .unwrap()
            .current();
        let volume = site.make_volume();
        let run = |name: &str, faults: &Faults| {
            let volume = Faulty::new(&*volume, faults.clone());
            Driver::new(&volume, &site.spec(name), faults, History::Latest).run(&steps);
        };
        let calm = Faults::new();
        run(&format!("calm-{seed}"), &calm);
        let writes = calm.calls(Operation::Commit);
        crashes += writes;
        for write in 1..=writes {
            for applied in [false, true] {
                let faults = Faults::new();
                faults.crash_at_write(write, applied);
                run(&format!("crash-{seed}-{write}-{applied}"), &faults);
                assert_eq!(faults.injected(), 1, "write {write} never came");
            }
        }
    }
    assert!(crashes >= 30, "{crashes} writes are no histories");
}

/// A full store takes nothing, keeps what it has, and goes on when there is room.
pub fn a_full_store_resumes(site: &mut Site) {
    let faults = Faults::new();
    let volume = Faulty::new(site.make_volume(), faults.clone());
    let spec = site.main();
    let store = volume.open(&spec).unwrap();
    let mut shard = Shard::new(store, rules(History::Latest), NOW).unwrap();
    let mut model = Model::default();
    let put = |time: u64| {
        Op::Key(weir_core::change::Change {
            key: weir_core::key::Key::new(format!("k/{time}")),
            stamp: Some(stamp(time, 0)),
            value: Some(Value::bytes(vec![7; 100])),
        })
    };
    faults.set_budget(Some(2_000));
    let mut waiting = Vec::new();
    for time in 1..=30 {
        let op = put(time);
        match shard.offer(&mut vec![op.clone()]) {
            Ok(_) => model.apply(&op),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Full, "{error}");
                waiting.push(op);
            }
        }
        assert_eq!(shard.state().unwrap(), model.state());
    }
    assert!(!waiting.is_empty() && waiting.len() < 30);
    faults.set_budget(Some(1 << 20));
    shard.offer(&mut waiting.clone()).unwrap();
    waiting.iter().for_each(|op| model.apply(op));
    assert_eq!(shard.state().unwrap(), model.state());
    shard.into_store().close().unwrap();
}
