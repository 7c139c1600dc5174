//! Replicas under a resolver, lawful or not, that exchange their states over a bad network and bad
//! stores: they end byte-equal, and with a lawful resolver as the fold of all changes (S13).

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use weir_backend_api::{
    Direction, Durability, ErrorKind, Store, StoreSpec, Volume,
    fault::{Fault, Faults, Faulty, Operation, Rng},
    recover,
};
use weir_core::{
    admission::{Admitter, History, Rules},
    change::{Admission, Change, KeptChange, Table, WildcardChange, Write},
    collection::{self, Collect},
    key::{Key, KeyRange},
    keyexpr::OwnedKeyExpr,
    keyspace::KeySpace,
    record::Record,
    resolution::{Contender, Interrupted, Resolution, Resolve},
    resolving::{Keys, Resolver, Theirs, settle},
    value::Value,
    version::{Stamp, Version},
};

use crate::disk::Disk;

const KEYS: [&str; 3] = ["a", "a/b", "b"];
const EXPRS: [&str; 3] = ["**", "a/*", "a/**"];
const REVISION: u64 = 7;
/// Nothing is from the future here, and nothing expires.
const DRIFT: u64 = 1 << 40;
/// A fault happens once; more failures in a row than faults were asked for are a bug.
const TRIES_MAX: usize = 64;

/// How often the rare branches were reached.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reached {
    /// Questions answered.
    pub asked: u64,
    /// Questions interrupted.
    pub interrupted: u64,
    /// States of others that were merged with what was held.
    pub merged: u64,
    /// Deaths and doubts during a commit.
    pub crashes: u64,
    /// Records forgotten by collections.
    pub forgotten: u64,
    /// What came again after that.
    pub quarantined: u64,
}

/// What came of a history.
#[derive(Clone, Debug)]
pub struct Ended {
    /// A hash of everything that happened and of the final state.
    pub trace: u64,
    /// What was reached.
    pub reached: Reached,
}

/// What a resolver answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Anything, the same for the same versions.
    Random(u64),
    /// The two, one behind the other: the order decides.
    Append,
    /// The greater of the two.
    Greatest,
    /// All letters of both; a delete absorbs.
    Union,
    /// The earlier version.
    Earlier,
}

impl Kind {
    /// Whether it keeps the laws: then what is left is the fold of all changes.
    pub(crate) const fn is_lawful(self) -> bool {
        matches!(self, Self::Union | Self::Greatest | Self::Earlier)
    }
}

struct Asker {
    kind: Kind,
    rng: Rng,
    asked: u64,
    interrupted: u64,
    /// Nothing is interrupted: everything is to be settled.
    calm: bool,
}

#[derive(Clone, Debug)]
enum Message {
    Change(Change),
    Wildcard(WildcardChange),
    /// What another replica held for a key.
    Record(Key, Record),
}

struct Replica {
    volume: Faulty<Disk>,
    faults: Faults,
    open: Option<(Box<dyn Store>, Admitter)>,
    asker: Asker,
}

struct World {
    rng: Rng,
    kind: Kind,
    /// Only changes with a stamp, and no collection: the fold of all of them is known.
    is_plain: bool,
    now: u64,
    replicas: Vec<Replica>,
    messages: Vec<(usize, Message)>,
    made: Vec<Change>,
    reached: Reached,
    trace: DefaultHasher,
}

/// Plays the history of a seed.
///
/// # Errors
/// What was violated, with the command that replays it.
pub fn check(seed: u64) -> Result<Ended, String> {
    let mut world = World::new(seed)?;
    let played = (|| {
        for _ in 0..30 + world.rng.below(60) {
            world.step()?;
        }
        world.end()
    })();
    played.map_err(|violation: String| {
        let (kind, plain) = (world.kind, world.is_plain);
        format!("resolving, seed {seed}, {kind:?}, plain {plain}: {violation}\nreplay: make sim SEED={seed}\n")
    })?;
    for replica in &world.replicas {
        world.reached.asked += replica.asker.asked;
        world.reached.interrupted += replica.asker.interrupted;
    }
    Ok(Ended {
        trace: world.trace.finish(),
        reached: world.reached,
    })
}

impl World {
    fn new(seed: u64) -> Result<Self, String> {
        // Another history than the other simulation's of this seed.
        let mut rng = Rng::new(seed ^ 0x5E50_1E0D);
        let kind = match rng.below(8) {
            0..3 => Kind::Random(rng.next()),
            3 => Kind::Append,
            4 => Kind::Greatest,
            5 | 6 => Kind::Union,
            _ => Kind::Earlier,
        };
        let replicas = (0..2 + index(&mut rng, 3))
            .map(|_| Replica::new(kind, rng.next()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            is_plain: rng.below(2) == 0,
            rng,
            kind,
            now: 1_000,
            replicas,
            messages: Vec::new(),
            made: Vec::new(),
            reached: Reached::default(),
            trace: DefaultHasher::new(),
        })
    }

    fn step(&mut self) -> Result<(), String> {
        self.now += self.rng.below(20);
        let to = index(&mut self.rng, self.replicas.len());
        match self.rng.below(100) {
            0..30 => self.change(),
            30..70 => {
                if self.messages.is_empty() {
                    return Ok(());
                }
                let at = index(&mut self.rng, self.messages.len());
                let (to, message) = self.messages[at].clone();
                if self.rng.below(6) > 0 {
                    self.messages.swap_remove(at);
                }
                self.deliver(to, &message)?;
            }
            70..80 => {
                let from = index(&mut self.rng, self.replicas.len());
                let records = self.records(from)?;
                let messages = records
                    .into_iter()
                    .map(|(key, record)| (to, Message::Record(key, record)));
                self.messages.extend(messages);
            }
            80..84 => self.replicas[to].open = None,
            84..92 => {
                let applied = self.rng.below(2) == 0;
                let fault = match self.rng.below(3) {
                    0 => Fault::Error(ErrorKind::Unavailable),
                    1 => Fault::Torn { applied },
                    _ => Fault::Crash { applied },
                };
                let nth = 1 + self.rng.below(3);
                self.replicas[to].faults.at(Operation::Commit, nth, fault);
            }
            92..96 => self.ask_again(to)?,
            _ if self.is_plain => {}
            _ => {
                // What everybody has may be forgotten; messages from before may come again.
                let again = self.messages.clone();
                self.settle()?;
                self.messages = again;
                for replica in 0..self.replicas.len() {
                    self.collect(replica)?;
                }
            }
        }
        Ok(())
    }

    fn change(&mut self) {
        let id = [u8::try_from(1 + self.rng.below(4)).unwrap_or(1); 16];
        // Clocks are wrong, and of one gateway two changes may come in one instant.
        let time = self.now.saturating_sub(self.rng.below(60));
        let mut stamp = Some(Stamp { time, id });
        let len = self.rng.below(3);
        let bytes: Vec<u8> = (0..len)
            .map(|_| b'a' + u8::try_from(self.rng.below(4)).unwrap_or(0))
            .collect();
        let mut value = (self.rng.below(8) > 0).then(|| Value::bytes(bytes));
        let message = if !self.is_plain && self.rng.below(8) == 0 {
            let expr = EXPRS[index(&mut self.rng, EXPRS.len())];
            let Ok(expr) = OwnedKeyExpr::new(expr) else {
                return;
            };
            let stamp = Some(Stamp {
                time: self.now,
                id: [9; 16],
            });
            Message::Wildcard(WildcardChange { expr, stamp, value })
        } else {
            if !self.is_plain && self.rng.below(8) == 0 {
                (stamp, value) = (None, None);
            }
            let key = Key::from(KEYS[index(&mut self.rng, KEYS.len())]);
            let twice = |made: &Change| made.key == key && made.stamp == stamp;
            if self.is_plain && self.made.iter().any(twice) {
                // One stamp, one change: which of two is held is settled before any resolver.
                return;
            }
            let change = Change { key, stamp, value };
            self.made.push(change.clone());
            Message::Change(change)
        };
        format!("{message:?}").hash(&mut self.trace);
        // To everybody, or to whoever can be reached: the others have it from them.
        let everybody = matches!(message, Message::Wildcard(_)) || self.rng.below(4) > 0;
        let one = index(&mut self.rng, self.replicas.len());
        let to = (0..self.replicas.len()).filter(|to| everybody || *to == one);
        self.messages.extend(to.map(|to| (to, message.clone())));
    }

    fn deliver(&mut self, to: usize, message: &Message) -> Result<(), String> {
        let about = match message {
            Message::Change(change) => vec![change.key.clone()],
            Message::Record(key, _) => vec![key.clone()],
            Message::Wildcard(_) => Vec::new(),
        };
        let now = self.now;
        let admission = self.batch(to, &about, |admitter, keys, resolver, writes| {
            match message {
                Message::Change(change) => admitter
                    .admit_resolving(now, change, false, keys, resolver, writes)
                    .unwrap_or_else(|_| admitter.park(change, writes)),
                Message::Wildcard(change) => {
                    admitter.admit_wildcard(now, change.clone(), false, writes)
                }
                Message::Record(key, record) => {
                    let theirs = Theirs {
                        record: record.clone(),
                        revision: REVISION,
                    };
                    let taken = admitter.admit_record(now, key, theirs, keys, resolver, writes);
                    // Not asked: the other will offer it again.
                    taken.map_or(Admission::Nothing, |(admission, _)| admission)
                }
            }
        })?;
        (to, admission.name()).hash(&mut self.trace);
        match admission {
            Admission::Quarantined(_) => {
                self.reached.quarantined += 1;
                if self.is_plain {
                    return Err(format!(
                        "set aside although nothing was forgotten: {message:?}"
                    ));
                }
            }
            Admission::Merged(_) if matches!(message, Message::Record(..)) => {
                self.reached.merged += 1
            }
            Admission::Rejected(why) => return Err(format!("rejected: {why}: {message:?}")),
            _ => {}
        }
        Ok(())
    }

    /// Asks about what waits for its resolver.
    fn ask_again(&mut self, replica: usize) -> Result<(), String> {
        let rows = self.store(replica, |store| store.rows(Table::Parked, &[], 64))?;
        let now = self.now;
        for (row, value) in rows {
            let Some(KeptChange::Key(change)) = KeptChange::decode(&value.into()) else {
                return Err("a parked row is no change".into());
            };
            self.batch(
                replica,
                std::slice::from_ref(&change.key),
                |admitter, keys, resolver, writes| {
                    let key = row.clone();
                    if admitter
                        .admit_resolving(now, &change, true, keys, resolver, writes)
                        .is_ok()
                    {
                        let table = Table::Parked;
                        writes.push(Write::Row {
                            table,
                            key,
                            value: None,
                        });
                    }
                },
            )?;
        }
        Ok(())
    }

    /// Everything arrives, everything is asked, everybody has what the others have.
    fn settle(&mut self) -> Result<(), String> {
        while let Some((to, message)) = self.messages.pop() {
            self.deliver(to, &message)?;
        }
        self.replicas
            .iter_mut()
            .for_each(|replica| replica.asker.calm = true);
        for replica in 0..self.replicas.len() {
            self.ask_again(replica)?;
        }
        let count = self.replicas.len();
        // After one round one of them has merged everything; in the next it hands that on.
        for _ in 0..2 {
            for to in 0..count {
                for (key, record) in self.records((to + count - 1) % count)? {
                    self.deliver(to, &Message::Record(key, record))?;
                }
            }
        }
        self.replicas
            .iter_mut()
            .for_each(|replica| replica.asker.calm = false);
        let first = self.records(0)?;
        for replica in 1..count {
            let other = self.records(replica)?;
            if first != other {
                return Err(format!(
                    "replica {replica} holds {other:#?}\nreplica 0 holds {first:#?}"
                ));
            }
        }
        Ok(())
    }

    /// Forgets what is older than now and superfluous, as the background job does.
    fn collect(&mut self, replica: usize) -> Result<(), String> {
        let old = collection::before(self.now);
        let (view, journal) = self.admitter(replica, |admitter| {
            let journal: Vec<Version> = admitter.journal().iter().map(|op| op.version).collect();
            (admitter.view(0), journal)
        })?;
        let records = self.records(replica)?;
        let mut scratch = String::new();
        let bounds = records.iter().filter_map(|(key, record)| {
            collection::bound_of(&view, key, record, old, &mut scratch)
        });
        let Some(mut horizon) = bounds
            .chain(journal.into_iter().filter(|version| *version < old))
            .max()
        else {
            return Ok(());
        };
        horizon.hash = horizon.hash.saturating_add(1);
        self.batch(replica, &[], |admitter, _, _, writes| {
            admitter.raise_horizon(horizon, writes)
        })?;
        for (key, record) in &records {
            let what =
                collection::collect(&view, History::Latest, key, record, horizon, &mut scratch);
            let write = match &what {
                Collect::Keep => continue,
                Collect::Forget => Write::ForgetLatest { key },
                Collect::Fold(record) => Write::Latest {
                    key,
                    record: record.as_ref(),
                },
            };
            self.reached.forgotten += u64::from(what == Collect::Forget);
            self.batch(replica, &[], |_, _, _, writes| writes.push(write.clone()))?;
        }
        self.batch(replica, &[], |admitter, _, _, writes| {
            admitter.finish_collection(Some(horizon), None, writes)
        })
    }

    fn end(&mut self) -> Result<(), String> {
        self.settle()?;
        for replica in &mut self.replicas {
            replica.open = None;
        }
        let records = self.records(0)?;
        format!("{records:?}").hash(&mut self.trace);
        if !self.is_plain || !self.kind.is_lawful() {
            return Ok(());
        }
        let folded = fold(self.kind, &self.made);
        let held = records.into_iter().map(|(key, record)| (key, record.value));
        let folded = folded.into_iter().map(|(key, (_, value))| (key, value));
        let (held, folded): (BTreeMap<_, _>, BTreeMap<_, _>) = (held.collect(), folded.collect());
        if held == folded {
            Ok(())
        } else {
            Err(format!(
                "holds {held:#?}\nthe fold of all changes is {folded:#?}"
            ))
        }
    }

    fn records(&mut self, replica: usize) -> Result<Vec<(Key, Record)>, String> {
        self.store(replica, |store| {
            store
                .snapshot()?
                .latest(&KeyRange::all(), Direction::Forward)
                .collect()
        })
    }

    fn store<T>(
        &mut self,
        replica: usize,
        read: impl FnOnce(&dyn Store) -> weir_backend_api::Result<T>,
    ) -> Result<T, String> {
        let (store, _) = self.replicas[replica].opened()?;
        read(&**store).map_err(|error| error.to_string())
    }

    fn admitter<T>(
        &mut self,
        replica: usize,
        read: impl FnOnce(&mut Admitter) -> T,
    ) -> Result<T, String> {
        self.replicas[replica]
            .opened()
            .map(|(_, admitter)| read(admitter))
    }

    /// One batch, judged and committed again until it is.
    fn batch<'w, T>(
        &mut self,
        replica: usize,
        about: &[Key],
        mut judge: impl FnMut(&mut Admitter, &mut Keys, &mut Resolver<'_>, &mut Vec<Write<'w>>) -> T,
    ) -> Result<T, String> {
        for _ in 0..TRIES_MAX {
            let replica = &mut self.replicas[replica];
            replica.opened()?;
            let Some((store, admitter)) = &mut replica.open else {
                continue;
            };
            let mut keys = Keys::default();
            for key in about {
                keys.learn(
                    key.clone(),
                    store.get(key).map_err(|error| error.to_string())?,
                );
            }
            let mut resolver = Resolver {
                revision: REVISION,
                resolve: &mut replica.asker,
            };
            admitter.begin();
            let mut rows = Vec::new();
            let result = judge(admitter, &mut keys, &mut resolver, &mut rows);
            let mut writes: Vec<Write<'_>> = rows;
            keys.write(&mut writes);
            admitter.seal(&mut writes);
            match store.commit(&writes, Durability::Written) {
                Ok(_) => return Ok(result),
                Err(error) if error.kind() == ErrorKind::Unavailable => admitter.abort(),
                Err(error) if replica.faults.is_dead() || error.kind() == ErrorKind::Poisoned => {
                    self.reached.crashes += 1;
                    replica.open = None;
                }
                Err(error) => return Err(format!("unexpected: {error}")),
            }
        }
        Err("it never works again".to_owned())
    }
}

impl Replica {
    fn new(kind: Kind, seed: u64) -> Result<Self, String> {
        let faults = Faults::new();
        let disk = Disk::new().map_err(|error| error.to_string())?;
        Ok(Self {
            volume: Faulty::new(disk, faults.clone()),
            faults,
            open: None,
            asker: Asker {
                kind,
                rng: Rng::new(seed),
                asked: 0,
                interrupted: 0,
                calm: false,
            },
        })
    }

    /// Its store and judge, opened if need be.
    fn opened(&mut self) -> Result<&mut (Box<dyn Store>, Admitter), String> {
        if self.open.is_none() {
            if self.faults.is_dead() {
                self.faults.revive();
            }
            let spec = StoreSpec {
                create: true,
                ..StoreSpec::default()
            };
            let opened = self.volume.open(&spec).and_then(|store| {
                let memory = recover::memory(&*store)?;
                // A cache of three keys, so that rotations happen.
                let rules = Rules {
                    history: History::Latest,
                    drift: DRIFT,
                    age_max: None,
                    cache_keys: 3,
                    resolves: true,
                };
                Ok((store, Admitter::new(rules, KeySpace::default(), memory)))
            });
            self.open = Some(opened.map_err(|error| error.to_string())?);
        }
        self.open.as_mut().ok_or_else(|| "not open".to_owned())
    }
}

impl Resolve for Asker {
    fn resolve(
        &mut self,
        _: &str,
        first: Contender<'_>,
        second: Contender<'_>,
    ) -> Result<Resolution, Interrupted> {
        if !self.calm && self.rng.below(10) == 0 {
            self.interrupted += 1;
            return Err(Interrupted("by chance".into()));
        }
        self.asked += 1;
        Ok(answer(self.kind, first, second))
    }
}

pub(crate) fn answer(kind: Kind, first: Contender<'_>, second: Contender<'_>) -> Resolution {
    let bytes = |one: Contender<'_>| one.value.map_or(Vec::new(), |value| value.payload.to_vec());
    let (a, b) = (bytes(first), bytes(second));
    match kind {
        Kind::Random(seed) => {
            let mut hasher = DefaultHasher::new();
            (seed, first.version.to_bytes(), second.version.to_bytes()).hash(&mut hasher);
            match hasher.finish() % 8 {
                0 => Resolution::Default,
                1 => Resolution::First,
                2 => Resolution::Second,
                3 => Resolution::Delete,
                number => Resolution::Merge(Value::bytes(number.to_string())),
            }
        }
        Kind::Append => Resolution::Merge(Value::bytes(
            [a, b].concat().into_iter().take(5).collect::<Vec<_>>(),
        )),
        Kind::Greatest if (first.value.is_some(), &a) > (second.value.is_some(), &b) => {
            Resolution::First
        }
        Kind::Greatest => Resolution::Second,
        Kind::Earlier => Resolution::First,
        Kind::Union if first.value.is_none() || second.value.is_none() => Resolution::Delete,
        Kind::Union => {
            let union: BTreeSet<u8> = a.into_iter().chain(b).collect();
            Resolution::Merge(Value::bytes(union.into_iter().collect::<Vec<_>>()))
        }
    }
}

/// What a lawful resolver makes of changes, whatever the order: of each key a version and a value.
pub(crate) fn fold(kind: Kind, changes: &[Change]) -> BTreeMap<Key, (Version, Option<Value>)> {
    let mut folded: BTreeMap<Key, (Version, Option<Value>)> = BTreeMap::new();
    for change in changes {
        let stamp = change.stamp.unwrap_or_default();
        let new = (change.version(stamp), change.value.clone());
        let next = match folded.get(&change.key) {
            None => new,
            Some(old) => {
                let (first, second) = if old.0 < new.0 {
                    (old, &new)
                } else {
                    (&new, old)
                };
                let first = Contender {
                    version: first.0,
                    value: first.1.as_ref(),
                };
                let second = Contender {
                    version: second.0,
                    value: second.1.as_ref(),
                };
                settle(first, second, answer(kind, first, second))
            }
        };
        folded.insert(change.key.clone(), next);
    }
    folded
}

fn index(rng: &mut Rng, len: usize) -> usize {
    usize::try_from(rng.below(len as u64)).unwrap_or(0)
}
