//! Whether two patterns share a key, shown by the shortest such key.
//!
//! Chunk lists are walked together; two chunks are compared as automata over characters, in a
//! breadth-first search through pairs of states. That is exact, numeric ranges included.

use super::number::NumberRange;
use super::{Chunk, KeyPattern, Part, Word};
use std::collections::{BTreeMap, VecDeque};
use zenoh_keyexpr::OwnedKeyExpr;

/// A key that belongs to both patterns, or `None` if no key does.
pub(super) fn meet(a: &KeyPattern, b: &KeyPattern) -> Option<OwnedKeyExpr> {
    key_of(meet_chunks(&a.chunks, &b.chunks)?)
}

/// A short key that belongs to a pattern.
pub(super) fn example(chunks: &[Chunk]) -> Option<OwnedKeyExpr> {
    key_of(meet_chunks(chunks, chunks)?)
}

fn key_of(chunks: Vec<String>) -> Option<OwnedKeyExpr> {
    // Two `**` meet in no chunk at all, which is no key; any will do.
    let key = if chunks.is_empty() {
        "key".to_owned()
    } else {
        chunks.join("/")
    };
    OwnedKeyExpr::new(key).ok()
}

fn meet_chunks(a: &[Chunk], b: &[Chunk]) -> Option<Vec<String>> {
    match (a, b) {
        ([], []) => Some(Vec::new()),
        // Where both could take a chunk, the shortest key lets one of them take none.
        ([Chunk::Deep, a_rest @ ..], [Chunk::Deep, b_rest @ ..]) => {
            meet_chunks(a_rest, b).or_else(|| meet_chunks(a, b_rest))
        }
        ([Chunk::Deep, rest @ ..], _) => meet_chunks(rest, b).or_else(|| swallow(a, b)),
        (_, [Chunk::Deep, rest @ ..]) => meet_chunks(a, rest).or_else(|| swallow(b, a)),
        ([], _) | (_, []) => None,
        ([a, a_rest @ ..], [b, b_rest @ ..]) => {
            let here = meet_chunk(a, b)?;
            join(here, meet_chunks(a_rest, b_rest)?)
        }
    }
}

/// Lets the `**` that `deep` starts with take the first chunk of the other list.
fn swallow(deep: &[Chunk], other: &[Chunk]) -> Option<Vec<String>> {
    let (first, rest) = other.split_first()?;
    let here = meet_chunk(&Chunk::Any, first)?;
    join(here, meet_chunks(deep, rest)?)
}

#[expect(clippy::unnecessary_wraps, reason = "both callers end in it")]
fn join(here: String, mut rest: Vec<String>) -> Option<Vec<String>> {
    rest.insert(0, here);
    Some(rest)
}

fn meet_chunk(a: &Chunk, b: &Chunk) -> Option<String> {
    if let (Some(a), Some(b)) = (only_text(a), only_text(b)) {
        // Nearly every pair of a large group parts here.
        return (a == b).then(|| a.to_owned());
    }
    let (a, b) = (Automaton::of(a), Automaton::of(b));
    let start = Pair {
        a: At::START,
        b: At::START,
        started: false,
    };
    let mut came_from: BTreeMap<Pair, Option<(Pair, Option<char>)>> = BTreeMap::new();
    came_from.insert(start, None);
    let mut queue = VecDeque::from([start]);
    while let Some(pair) = queue.pop_front() {
        if pair.started && pair.a.state == a.end && pair.b.state == b.end {
            return Some(spell(&came_from, pair));
        }
        for (next, c) in steps(&a, &b, pair) {
            came_from.entry(next).or_insert_with(|| {
                queue.push_back(next);
                Some((pair, c))
            });
        }
    }
    None
}

fn only_text(chunk: &Chunk) -> Option<&str> {
    match chunk {
        Chunk::Parts(parts) => match &parts[..] {
            [Part::Text(text)] => Some(text),
            _ => None,
        },
        _ => None,
    }
}

fn spell(came_from: &BTreeMap<Pair, Option<(Pair, Option<char>)>>, end: Pair) -> String {
    let mut reversed = Vec::new();
    let mut at = end;
    while let Some(Some((before, c))) = came_from.get(&at) {
        reversed.extend(*c);
        at = *before;
    }
    reversed.iter().rev().collect()
}

fn steps(a: &Automaton, b: &Automaton, pair: Pair) -> Vec<(Pair, Option<char>)> {
    let mut steps = Vec::new();
    for &to in &a.states[pair.a.state].free {
        steps.push((
            Pair {
                a: a.enter(pair.a, to),
                ..pair
            },
            None,
        ));
    }
    for &to in &b.states[pair.b.state].free {
        steps.push((
            Pair {
                b: b.enter(pair.b, to),
                ..pair
            },
            None,
        ));
    }
    let no_digit = pair.a.no_digit || pair.b.no_digit;
    let no_at = !pair.started && (a.wild || b.wild);
    for &(a_low, a_high, a_to) in &a.states[pair.a.state].edges {
        for &(b_low, b_high, b_to) in &b.states[pair.b.state].edges {
            let range = (a_low.max(b_low), a_high.min(b_high));
            if let Some(c) = pick(range, |c| {
                !(no_digit && c.is_ascii_digit() || no_at && c == '@')
            }) {
                let pair = Pair {
                    a: a.after(a_to),
                    b: b.after(b_to),
                    started: true,
                };
                steps.push((pair, Some(c)));
            }
        }
    }
    steps
}

/// The most natural character of a range. Every edge is one character, some digits, or any
/// character, so one stands for all.
fn pick((low, high): (char, char), allowed: impl Fn(char) -> bool) -> Option<char> {
    ('0'..='9')
        .chain('a'..='z')
        .chain('A'..='Z')
        .chain([low])
        .find(|c| (low..=high).contains(c) && allowed(*c))
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    a: At,
    b: At,
    /// Whether a character was taken: no chunk is empty.
    started: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct At {
    state: usize,
    /// A number has just ended, so the next character is no digit.
    no_digit: bool,
}

impl At {
    const START: At = At {
        state: 0,
        no_digit: false,
    };
}

#[derive(Default)]
struct State {
    edges: Vec<(char, char, usize)>,
    free: Vec<usize>,
    ends_number: bool,
}

struct Automaton {
    states: Vec<State>,
    end: usize,
    /// Whether a wildcard is in it, which keeps `@` from its start.
    wild: bool,
}

impl Automaton {
    fn of(chunk: &Chunk) -> Self {
        let any = [Part::Many];
        let parts = match chunk {
            Chunk::Parts(parts) => &parts[..],
            Chunk::Any | Chunk::Deep => &any,
        };
        let wild = parts.contains(&Part::Many);
        let mut this = Self {
            states: vec![State::default()],
            end: 0,
            wild,
        };
        for part in parts {
            let from = this.end;
            let to = this.add();
            match part {
                Part::Text(text) => this.text(from, text, to),
                Part::Class(members) => {
                    this.states[from]
                        .edges
                        .extend(members.iter().map(|c| (*c, *c, to)));
                }
                Part::Many => {
                    this.states[from].free.push(to);
                    this.states[to].edges.push(('\u{1}', char::MAX, to));
                }
                Part::Set(words) => {
                    for word in words {
                        match word {
                            Word::Text(text) => this.text(from, text, to),
                            Word::Number(range) => this.number(from, range, to),
                        }
                    }
                }
            }
            this.end = to;
        }
        this
    }

    fn add(&mut self) -> usize {
        self.states.push(State::default());
        self.states.len() - 1
    }

    fn text(&mut self, mut from: usize, text: &str, to: usize) {
        let mut left = text.chars().count();
        for c in text.chars() {
            left -= 1;
            let next = if left == 0 { to } else { self.add() };
            self.states[from].edges.push((c, c, next));
            from = next;
        }
    }

    fn number(&mut self, from: usize, range: &NumberRange, to: usize) {
        let done = self.add();
        self.states[done].ends_number = true;
        self.states[done].free.push(to);
        for (low, high) in range.bounds_by_length() {
            let (low, high) = (low.as_bytes(), high.as_bytes());
            self.digits(from, done, low, high, (true, true), &mut BTreeMap::new());
        }
    }

    /// Digits between two bounds of one length. A bound binds for as long as all digits so far
    /// were its own, so there are four states a place and not one for every number.
    fn digits(
        &mut self,
        from: usize,
        done: usize,
        low: &[u8],
        high: &[u8],
        (low_binds, high_binds): (bool, bool),
        seen: &mut BTreeMap<(usize, bool, bool), usize>,
    ) {
        let first = if low_binds { low[0] } else { b'0' };
        let last = if high_binds { high[0] } else { b'9' };
        for digit in first..=last {
            let binds = (low_binds && digit == first, high_binds && digit == last);
            let c = char::from(digit);
            if low.len() == 1 {
                self.states[from].edges.push((c, c, done));
                continue;
            }
            let key = (low.len(), binds.0, binds.1);
            let known = seen.get(&key).copied();
            let next = known.unwrap_or_else(|| self.add());
            self.states[from].edges.push((c, c, next));
            if known.is_none() {
                seen.insert(key, next);
                self.digits(next, done, &low[1..], &high[1..], binds, seen);
            }
        }
    }

    /// Moves without a character.
    fn enter(&self, from: At, to: usize) -> At {
        At {
            state: to,
            no_digit: from.no_digit || self.states[to].ends_number,
        }
    }

    /// Moves over a character.
    fn after(&self, to: usize) -> At {
        At {
            state: to,
            no_digit: self.states[to].ends_number,
        }
    }
}
