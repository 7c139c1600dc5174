//! What happens in a simulated history, made of a seed.

use weir_backend_api::fault::Rng;
use weir_core::{admission::History, value::Value};

/// Keys and expressions from a small domain, so that they meet all the time.
const KEYS: [&str; 5] = ["a", "a/b", "a/c", "b/b", "b/c/d"];
const EXPRS: [&str; 5] = ["**", "a/*", "a/**", "*/b", "b/**"];

/// A history to play.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// How many replicas.
    pub replicas: usize,
    /// What they keep.
    pub history: History,
    /// Whether replicas collect what others may not have seen yet: then late changes are set aside.
    pub collects_early: bool,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// One thing that happens. Numbers choose among what there is at that moment.
#[derive(Clone, Debug)]
pub enum Step {
    /// A gateway stamps a change and sends it to every replica.
    Change {
        /// Which gateway.
        gateway: usize,
        /// On what: a key, or a key expression.
        on: &'static str,
        /// What is put; `None` deletes.
        value: Option<Value>,
        /// The stamp differs from the gateway's clock: so many milliseconds later, or that of an
        /// earlier change of another value.
        stamp: StampedAs,
    },
    /// A message arrives, perhaps not for the last time.
    Deliver {
        /// Which of those on the way.
        message: u64,
        /// Whether it will arrive once more.
        again: bool,
    },
    /// Time passes (milliseconds).
    Pass(u64),
    /// A gateway's wall clock jumps (milliseconds) and the gateway restarts.
    Jump {
        /// Which gateway.
        gateway: usize,
        /// How far.
        millis: i64,
    },
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
    /// A replica folds wildcard operations into its records.
    Fold(usize),
    /// A replica collects tombstones and wildcard operations.
    Collect(usize),
}

/// How a change is stamped.
#[derive(Clone, Copy, Debug)]
pub enum StampedAs {
    /// By the gateway's clock.
    Clock,
    /// So many milliseconds after the gateway's clock.
    Later(u64),
    /// As the change before it was.
    Before,
}

/// How a commit fails.
#[derive(Clone, Copy, Debug)]
pub enum Break {
    /// Nothing is done.
    Refused,
    /// It is unknown whether it was done.
    Torn {
        /// Whether it was.
        applied: bool,
    },
    /// The process dies.
    Crash {
        /// Whether the batch was written before.
        applied: bool,
    },
}

impl Scenario {
    /// The scenario of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let replicas = 2 + index(&mut rng, 4);
        let history = if rng.below(4) == 0 {
            History::All
        } else {
            History::Latest
        };
        let collects_early = history == History::Latest && rng.below(4) == 0;
        let steps = 20 + index(&mut rng, 60);
        let steps = (0..steps).map(|_| step(&mut rng, replicas)).collect();
        Self {
            replicas,
            history,
            collects_early,
            steps,
        }
    }
}

fn step(rng: &mut Rng, replicas: usize) -> Step {
    match rng.below(100) {
        0..30 => {
            let wild = rng.below(4) == 0;
            let on = if wild {
                EXPRS[index(rng, EXPRS.len())]
            } else {
                KEYS[index(rng, KEYS.len())]
            };
            let stamp = match rng.below(12) {
                0 => StampedAs::Later(400 + rng.below(2_000)),
                // Two operations of one stamp only on single keys: one stamp, one operation.
                1 if !wild => StampedAs::Before,
                _ => StampedAs::Clock,
            };
            let value = (rng.below(5) < 3).then(|| Value::bytes(vec![byte(rng)]));
            Step::Change {
                gateway: index(rng, replicas),
                on,
                value,
                stamp,
            }
        }
        30..75 => Step::Deliver {
            message: rng.next(),
            again: rng.below(6) == 0,
        },
        75..82 => Step::Pass(rng.below(400)),
        82..84 => Step::Jump {
            gateway: index(rng, replicas),
            millis: i64::from(byte(rng)) * 20 - 2_500,
        },
        84..88 => Step::Restart(index(rng, replicas)),
        88..93 => {
            let applied = rng.below(2) == 0;
            let how = match rng.below(3) {
                0 => Break::Refused,
                1 => Break::Torn { applied },
                _ => Break::Crash { applied },
            };
            Step::Break {
                replica: index(rng, replicas),
                nth: 1 + rng.below(3),
                how,
            }
        }
        93..97 => Step::Fold(index(rng, replicas)),
        _ => Step::Collect(index(rng, replicas)),
    }
}

fn index(rng: &mut Rng, len: usize) -> usize {
    usize::try_from(rng.below(len as u64)).unwrap_or(0)
}

fn byte(rng: &mut Rng) -> u8 {
    u8::try_from(rng.below(256)).unwrap_or(0)
}
