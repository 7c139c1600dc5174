//! What happens in a mirrored history, made of a seed.

use weir_backend_api::fault::Rng;
use weir_core::{admission::History, value::Value};

use super::contending::{Contention, Seated};
use crate::scenario::Break;

/// Keys and expressions from a small domain, so that they meet all the time.
const KEYS: [&str; 8] = ["a", "a/b", "a/c", "a/c/d", "b/b", "b/c/d", "c", "c/b"];
const EXPRS: [&str; 6] = ["**", "a/*", "a/**", "*/b", "b/**", "c/**"];
/// What a replica may be for; the first is for everything.
const KEYS_OF: [&str; 6] = ["**", "a/**", "b/**", "*/b", "a/c/**", "*/b/**"];

/// A history to play.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The replicas. The first is for every key, and its disk is never put back.
    pub members: Vec<Member>,
    /// What happens, in order.
    pub steps: Vec<Step>,
    /// What resolves conflicts, if a policy is bound to the storages.
    pub contention: Option<Contention>,
}

/// A replica.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Which keys are its own.
    pub keys: &'static str,
    /// What it keeps.
    pub history: History,
    /// How wrong its clock is (milliseconds).
    pub skew: i64,
    /// Whether it tells of its store, and hears what others tell; older versions do neither.
    pub tells: bool,
}

/// One thing that happens. Numbers choose among what there is at that moment.
#[derive(Clone, Debug)]
pub enum Step {
    /// A change is stamped by a replica's clock and reaches some replicas; the first of them whose keys
    /// it concerns, if none would.
    Change {
        /// Who stamps it.
        by: usize,
        /// So many milliseconds later than its clock says.
        later: u64,
        /// On what: a key, or a key expression.
        on: &'static str,
        /// What is put; `None` deletes.
        value: Option<Value>,
        /// Whom it reaches: a bit for each replica.
        reaches: u64,
    },
    /// Something happens to one of the packets on the way.
    Packet(u64, Packet),
    /// Time passes (milliseconds).
    Pass(u64),
    /// Time passes (milliseconds), and whatever is not cut off arrives at once.
    Calm(u64),
    /// Nothing gets from one replica to another any more.
    Cut(usize, usize),
    /// Everything gets through again everywhere, and everybody knows.
    Heal,
    /// A replica restarts: it knows what is in its store.
    Restart(usize),
    /// A replica's next commits fail.
    Break {
        /// Which replica.
        replica: usize,
        /// At which commit from now on.
        nth: u64,
        /// How.
        how: Break,
    },
    /// A replica's disk is copied.
    Backup(usize),
    /// A replica restarts on the copy of its disk, or on an empty one if there is none.
    Restore(usize),
    /// A replica restarts on an empty disk.
    Wipe(usize),
    /// Two replicas restart, each on the other's disk.
    Swap(usize, usize),
    /// A replica restarts on a copy of another's disk.
    Clone {
        /// Whose disk is copied.
        from: usize,
        /// Who restarts on it.
        to: usize,
    },
    /// A replica folds wildcard operations into its records.
    Fold(usize),
    /// A replica writes what it has counted.
    KeepLedger(usize),
    /// A replica forgets what is old and what everybody has.
    Collect(usize),
    /// A replica's policy is another one, or none.
    Seat(usize, Seated),
    /// So many questions to a replica's policy are interrupted.
    Interrupt(usize, u64),
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug)]
pub enum Packet {
    /// It arrives.
    Arrives,
    /// It arrives, and will arrive again.
    Repeats,
    /// It never arrives.
    Lost,
}

impl Scenario {
    /// The history of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut scenario = Self::without_ids(seed);
        let mut rng = Rng::new(seed ^ 0x0073_746f_7265);
        let count = scenario.members.len();
        if rng.below(2) == 0 {
            let at = index(&mut rng, scenario.steps.len());
            let steps = another_store(&mut rng, count);
            scenario.steps.splice(at..at, steps);
        }
        for member in &mut scenario.members {
            member.tells = rng.below(12) > 0;
        }
        scenario
    }

    /// The same of replicas that tell nothing of their stores, as older versions do.
    #[must_use]
    pub fn without_ids(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x6d69_7272_6f72);
        let count = match rng.below(10) {
            0..5 => 2,
            5..8 => 3,
            8 => 4,
            _ => 5 + index(&mut rng, 4),
        };
        let alike = rng.below(2) == 0;
        let members = (0..count).map(|member| Member {
            keys: KEYS_OF[if member == 0 || alike {
                0
            } else {
                index(&mut rng, KEYS_OF.len())
            }],
            history: if rng.below(3) == 0 {
                History::All
            } else {
                History::Latest
            },
            skew: i64::try_from(rng.below(600)).unwrap_or(0) - 300,
            tells: false,
        });
        let members: Vec<Member> = members.collect();
        let steps = 20 + index(&mut rng, 100);
        let mut steps: Vec<Step> = (0..steps).map(|_| step(&mut rng, count)).collect();
        if rng.below(8) == 0 {
            let at = index(&mut rng, steps.len());
            steps.splice(at..at, forgotten_since(&mut rng, count));
        }
        Self {
            members,
            steps,
            contention: None,
        }
    }
}

/// All are in step; then one comes back on another store.
fn another_store(rng: &mut Rng, members: usize) -> Vec<Step> {
    let replica = 1 + index(rng, members - 1);
    let on = KEYS[index(rng, KEYS.len())];
    let mut change = || Step::Change {
        by: index(rng, members),
        later: 0,
        on,
        value: Some(Value::bytes(vec![byte(rng)])),
        reaches: u64::MAX,
    };
    let mut steps = vec![
        Step::Heal,
        change(),
        Step::Calm(30_000),
        Step::Backup(replica),
        Step::Restart(replica),
        change(),
        Step::Calm(30_000),
    ];
    // While nothing gets through the older copy overtakes what was known of it, and is opened again.
    let mut overtaking = vec![Step::Restore(replica)];
    overtaking.extend((0..60).map(|_| change()));
    overtaking.push(Step::Restart(replica));
    let other = index(rng, members);
    match rng.below(5) {
        0 => steps.push(Step::Restore(replica)),
        1 => steps.push(Step::Wipe(replica)),
        2 => steps.push(Step::Swap(replica, other)),
        3 => steps.push(Step::Clone {
            from: other,
            to: replica,
        }),
        _ => steps.extend(overtaking),
    }
    if rng.below(2) == 0 {
        steps.push(Step::Calm(60_000));
    }
    steps
}

/// A replica comes back with what all others have seen deleted, and forgotten.
fn forgotten_since(rng: &mut Rng, members: usize) -> Vec<Step> {
    let replica = 1 + index(rng, members - 1);
    let on = KEYS[index(rng, KEYS.len())];
    let mut change = |value: Option<Value>| Step::Change {
        by: index(rng, members),
        later: 0,
        on,
        value,
        reaches: u64::MAX,
    };
    let mut steps = vec![
        Step::Heal,
        change(Some(Value::bytes("old"))),
        Step::Calm(30_000),
        Step::Backup(replica),
        change(None),
        Step::Calm(120_000),
    ];
    steps.extend((0..members).map(Step::Collect));
    steps.push(Step::Restore(replica));
    steps
}

fn step(rng: &mut Rng, members: usize) -> Step {
    match rng.below(100) {
        0..30 => {
            let on = if rng.below(5) == 0 {
                EXPRS[index(rng, EXPRS.len())]
            } else {
                KEYS[index(rng, KEYS.len())]
            };
            Step::Change {
                by: index(rng, members),
                later: if rng.below(20) == 0 {
                    900 + rng.below(2_000)
                } else {
                    0
                },
                on,
                value: (rng.below(5) < 3).then(|| Value::bytes(vec![byte(rng)])),
                // All, or some.
                reaches: if rng.below(3) == 0 {
                    u64::MAX
                } else {
                    rng.next()
                },
            }
        }
        30..65 => Step::Packet(
            rng.next(),
            match rng.below(8) {
                0 => Packet::Lost,
                1 => Packet::Repeats,
                _ => Packet::Arrives,
            },
        ),
        65..80 => {
            let most = match rng.below(9) {
                0 => 60_000,
                1 | 2 => 15_000,
                _ => 300,
            };
            Step::Pass(1 + rng.below(most))
        }
        80 | 81 => Step::Calm(10_000 + rng.below(60_000)),
        82 | 83 => Step::Cut(index(rng, members), index(rng, members)),
        84..86 => Step::Heal,
        86..89 => Step::Restart(index(rng, members)),
        89..93 => {
            let applied = rng.below(2) == 0;
            Step::Break {
                replica: index(rng, members),
                nth: 1 + rng.below(4),
                how: match rng.below(3) {
                    0 => Break::Refused,
                    1 => Break::Torn { applied },
                    _ => Break::Crash { applied },
                },
            }
        }
        93 | 94 => Step::Collect(index(rng, members)),
        95 | 96 => Step::Backup(index(rng, members)),
        97 => Step::Restore(index(rng, members)),
        98 => Step::Fold(index(rng, members)),
        _ => Step::KeepLedger(index(rng, members)),
    }
}

fn index(rng: &mut Rng, below: usize) -> usize {
    usize::try_from(rng.below(below as u64)).unwrap_or(0)
}

fn byte(rng: &mut Rng) -> u8 {
    u8::try_from(rng.below(256)).unwrap_or(0)
}
