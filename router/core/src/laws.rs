//! Whether a resolver keeps the laws under which replicas converge to what was meant (S13).
//!
//! Replicas converge whatever a resolver answers. To the fold of all changes, whatever the order and
//! however often a change comes, they converge if it is
//!
//! - **total**: every question has an answer;
//! - **deterministic**: the same question has the same answer;
//! - **closed**: what it answers can be kept, and resolved again;
//! - **commutative**: it does not matter in which order changes are merged one by one;
//! - **associative**: nor which of them were merged with each other first;
//! - **idempotent**: nor whether something is merged again that was merged before.
//!
//! [`check`] tries them over a small domain that is made to hurt: stamps that are equal but for the
//! id, or altogether; tombstones on either side; empty and unreadable payloads; attachments; answers
//! merged again. What it finds it makes as small as it can. It is a test and no proof: a resolver that
//! passes keeps the laws on what was tried, and the caller's own samples are what is tried first.

mod domain;
mod show;

use std::{collections::BTreeMap, fmt::Display};

use self::{
    domain::{Rng, pool},
    show::{show_resolution, show_value, written},
};
use crate::{
    resolution::{Contender, Resolution},
    resolving,
    value::Value,
    version::{Stamp, Version},
};

/// What is tried.
#[derive(Clone, Debug)]
pub struct Domain {
    /// The key that is asked about.
    pub key: String,
    /// Values as the key really holds them; the more they differ, the better.
    pub samples: Vec<Value>,
    /// Chooses among what there is.
    pub seed: u64,
    /// How often the resolver is asked at the most; as many questions again may go into making a
    /// counterexample small. At 40 us a question the default takes a fifth of a second.
    pub calls_max: u64,
}

/// One of the laws.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Law {
    /// Every question has an answer.
    Total,
    /// The same question has the same answer.
    Deterministic,
    /// An answer can be kept, and resolved again.
    Closed,
    /// The order of merging one by one does not matter.
    Commutative,
    /// Which were merged with each other first does not matter.
    Associative,
    /// Merging again changes nothing.
    Idempotent,
}

/// What a key holds: a version and a value, or none if it is deleted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// The version.
    pub version: Version,
    /// The value.
    pub value: Option<Value>,
}

/// How a law is broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counterexample {
    /// Which law.
    pub law: Law,
    /// The key that was asked about.
    pub key: String,
    /// What was merged, named `a`, `b`, `c`, `d`.
    pub inputs: Vec<Held>,
    /// One way, and what it gave.
    pub left: Side,
    /// Another way that should give the same, and what it gave.
    pub right: Side,
}

/// One side of an equation that does not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Side {
    /// As in `merge(merge(a, b), c)`.
    pub how: String,
    /// What came of it, readable.
    pub gave: String,
}

/// What was tried without finding anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Passed {
    /// How often the resolver was asked.
    pub calls: u64,
    /// How many equations held.
    pub equations: u64,
}

/// Equations over inputs, in postfix: a letter is an input, `+` merges the two before it.
const EQUATIONS: [(Law, &str, &str); 6] = [
    (Law::Idempotent, "ab+a+", "ab+"),
    (Law::Idempotent, "ab+b+", "ab+"),
    (Law::Commutative, "ab+c+", "ac+b+"),
    (Law::Commutative, "ab+c+", "bc+a+"),
    (Law::Idempotent, "ab+bc++", "ab+c+"),
    (Law::Associative, "ab+cd++", "ab+c+d+"),
];

impl Default for Domain {
    fn default() -> Self {
        Self {
            key: "laws/of/a/resolver".to_owned(),
            samples: Vec::new(),
            seed: 1,
            calls_max: 5_000,
        }
    }
}

/// Tries the laws on a resolver. `ask` answers as [`crate::resolution::Resolve::resolve`] does; an
/// error is a question without an answer, so what is the host's own trouble must be asked again before.
///
/// # Errors
/// The first counterexample, made small.
pub fn check<E: Display>(
    domain: &Domain,
    ask: impl FnMut(&str, Contender<'_>, Contender<'_>) -> Result<Resolution, E>,
) -> Result<Passed, Box<Counterexample>> {
    let mut asker = Asker {
        key: &domain.key,
        ask,
        answers: BTreeMap::new(),
        calls: 0,
    };
    let mut rng = Rng(domain.seed);
    let pool = pool(&domain.samples, &mut rng);
    let mut equations = 0;
    let mut found = None;
    // Every pair, twice, and again with itself; then equations over whatever comes, until the budget is spent.
    'search: {
        for (at, a) in pool.iter().enumerate() {
            for b in &pool[..at] {
                if asker.calls >= domain.calls_max {
                    break 'search;
                }
                equations += 1;
                let inputs = [a.clone(), b.clone()];
                found = asker
                    .asks_alike(&inputs)
                    .or_else(|| asker.holds(EQUATIONS[0], &inputs))
                    .or_else(|| asker.holds(EQUATIONS[1], &inputs));
                if found.is_some() {
                    break 'search;
                }
            }
        }
        // Most questions are remembered after a while: an end even if none is new.
        for round in 0..domain.calls_max.saturating_mul(4) {
            if asker.calls >= domain.calls_max {
                break;
            }
            let inputs: Vec<Held> = (0..4).map(|_| rng.pick(&pool).clone()).collect();
            let at = usize::try_from(round).unwrap_or(0) % EQUATIONS.len();
            equations += 1;
            found = asker.holds(EQUATIONS[at], &inputs);
            if found.is_some() {
                break;
            }
        }
    }
    match found {
        None => Ok(Passed {
            calls: asker.calls,
            equations,
        }),
        Some(found) => {
            let calls_max = asker.calls.saturating_add(domain.calls_max);
            Err(Box::new(shrink(found, &mut asker, calls_max)))
        }
    }
}

/// A law that was broken, with what it takes to try it again.
#[derive(Clone)]
struct Found {
    example: Counterexample,
    /// `None`: the question itself, asked twice.
    equation: Option<(Law, &'static str, &'static str)>,
}

struct Asker<'k, F> {
    key: &'k str,
    ask: F,
    answers: BTreeMap<(Version, Version), Held>,
    calls: u64,
}

/// A question that had no answer, or none that can be kept.
struct Unanswered {
    first: Held,
    second: Held,
    why: String,
    closed: bool,
}

impl<E: Display, F> Asker<'_, F>
where
    F: FnMut(&str, Contender<'_>, Contender<'_>) -> Result<Resolution, E>,
{
    /// Asks twice about two states.
    fn asks_alike(&mut self, inputs: &[Held]) -> Option<Found> {
        let [a, b] = inputs else { return None };
        if a.version == b.version {
            return None;
        }
        let (first, second) = ordered(a, b);
        let mut answers = [None, None];
        for answer in &mut answers {
            match self.question(first, second) {
                Ok(resolution) => *answer = Some(resolution),
                Err(unanswered) => return Some(self.unanswered(unanswered, None)),
            }
        }
        let [Some(once), Some(again)] = answers else {
            return None;
        };
        let side = |how: &str, resolution: &Resolution| Side {
            how: how.to_owned(),
            gave: show_resolution(resolution),
        };
        (once != again).then(|| Found {
            equation: None,
            example: Counterexample {
                law: Law::Deterministic,
                key: self.key.to_owned(),
                left: side("merge(a, b)", &once),
                right: side("merge(a, b), asked again", &again),
                inputs: vec![first.clone(), second.clone()],
            },
        })
    }

    /// Tries an equation on as many of the inputs as it has letters, if they differ.
    fn holds(
        &mut self,
        equation: (Law, &'static str, &'static str),
        inputs: &[Held],
    ) -> Option<Found> {
        let (law, left, right) = equation;
        let inputs = inputs.get(..letters(left).max(letters(right)))?;
        let is_twice = |at: usize| {
            inputs[..at]
                .iter()
                .any(|held| held.version == inputs[at].version)
        };
        if (1..inputs.len()).any(is_twice) {
            // The same change twice is a matter of being idempotent, which has its own equations.
            return None;
        }
        let sides = self
            .evaluate(left, inputs)
            .and_then(|left| Ok((left, self.evaluate(right, inputs)?)));
        let (gave_left, gave_right) = match sides {
            Ok(sides) => sides,
            Err(unanswered) => return Some(self.unanswered(unanswered, Some(equation))),
        };
        if gave_left.value == gave_right.value {
            return None;
        }
        let side = |how: &str, gave: &Held| Side {
            how: written(how),
            gave: show_value(gave.value.as_ref()),
        };
        Some(Found {
            equation: Some(equation),
            example: Counterexample {
                law,
                key: self.key.to_owned(),
                left: side(left, &gave_left),
                right: side(right, &gave_right),
                inputs: inputs.to_vec(),
            },
        })
    }

    fn unanswered(
        &self,
        unanswered: Box<Unanswered>,
        equation: Option<(Law, &'static str, &'static str)>,
    ) -> Found {
        // What an answer of its own made is a matter of being closed.
        let law = if unanswered.closed || equation.is_some() {
            Law::Closed
        } else {
            Law::Total
        };
        Found {
            equation: None,
            example: Counterexample {
                law,
                key: self.key.to_owned(),
                left: Side {
                    how: "merge(a, b)".to_owned(),
                    gave: unanswered.why,
                },
                right: Side {
                    how: "any resolver".to_owned(),
                    gave: "an answer that can be kept".to_owned(),
                },
                inputs: vec![unanswered.first, unanswered.second],
            },
        }
    }

    fn evaluate(&mut self, postfix: &str, inputs: &[Held]) -> Result<Held, Box<Unanswered>> {
        let mut stack: Vec<Held> = Vec::with_capacity(4);
        for symbol in postfix.bytes() {
            if symbol == b'+' {
                if let (Some(b), Some(a)) = (stack.pop(), stack.pop()) {
                    stack.push(self.merge(&a, &b)?);
                }
            } else {
                stack.push(inputs[usize::from(symbol - b'a')].clone());
            }
        }
        Ok(stack.pop().unwrap_or_else(|| inputs[0].clone()))
    }

    fn merge(&mut self, a: &Held, b: &Held) -> Result<Held, Box<Unanswered>> {
        if a.version == b.version {
            return Ok(a.clone());
        }
        let (first, second) = ordered(a, b);
        let question = (first.version, second.version);
        if let Some(answer) = self.answers.get(&question) {
            return Ok(answer.clone());
        }
        let resolution = self.question(first, second)?;
        let (version, value) = resolving::settle(first.contender(), second.contender(), resolution);
        let held = Held { version, value };
        self.answers.insert(question, held.clone());
        Ok(held)
    }

    fn question(&mut self, first: &Held, second: &Held) -> Result<Resolution, Box<Unanswered>> {
        self.calls += 1;
        let unanswered = |why: String, closed: bool| {
            Box::new(Unanswered {
                first: first.clone(),
                second: second.clone(),
                why,
                closed,
            })
        };
        let resolution = (self.ask)(self.key, first.contender(), second.contender())
            .map_err(|error| unanswered(format!("no answer: {error}"), false))?;
        match &resolution {
            Resolution::Merge(value)
                if value
                    .encoding
                    .schema
                    .as_ref()
                    .is_some_and(|schema| schema.len() > 255) =>
            {
                let why = "a schema of more than 255 bytes, which Zenoh cannot carry".to_owned();
                Err(unanswered(why, true))
            }
            _ => Ok(resolution),
        }
    }
}

impl Held {
    fn contender(&self) -> Contender<'_> {
        Contender {
            version: self.version,
            value: self.value.as_ref(),
        }
    }

    fn new(stamp: Stamp, value: Option<Value>) -> Self {
        let version = value.as_ref().map_or(Version::delete(stamp), |value| {
            Version::put(stamp, value.hash())
        });
        Self { version, value }
    }
}

/// Makes inputs simpler while the law stays broken.
fn shrink<E: Display, F>(
    mut best: Found,
    asker: &mut Asker<'_, F>,
    calls_max: u64,
) -> Counterexample
where
    F: FnMut(&str, Contender<'_>, Contender<'_>) -> Result<Resolution, E>,
{
    let mut again = true;
    while again {
        again = false;
        'inputs: for at in 0..best.example.inputs.len() {
            for simpler in best.example.inputs[at].simpler() {
                if asker.calls >= calls_max {
                    return best.example;
                }
                let mut inputs = best.example.inputs.clone();
                inputs[at] = simpler;
                let found = match best.equation {
                    Some(equation) => asker.holds(equation, &inputs),
                    None => asker.asks_alike(&inputs),
                };
                // Another law may break on the way; it is not what was found.
                let found = found.filter(|found| {
                    found.example.law == best.example.law && found.equation == best.equation
                        || best.equation.is_none() && found.example.law == Law::Total
                });
                if let Some(found) = found {
                    let law = best.example.law;
                    best = found;
                    best.example.law = law;
                    again = true;
                    break 'inputs;
                }
            }
        }
    }
    best.example
}

fn ordered<'h>(a: &'h Held, b: &'h Held) -> (&'h Held, &'h Held) {
    if a.version < b.version {
        (a, b)
    } else {
        (b, a)
    }
}

/// How many inputs an expression takes.
fn letters(postfix: &str) -> usize {
    let last = postfix.bytes().filter(u8::is_ascii_lowercase).max();
    last.map_or(0, |last| usize::from(last - b'a') + 1)
}

impl Law {
    /// One word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Deterministic => "deterministic",
            Self::Closed => "closed",
            Self::Commutative => "commutative",
            Self::Associative => "associative",
            Self::Idempotent => "idempotent",
        }
    }
}

#[cfg(test)]
mod tests;
