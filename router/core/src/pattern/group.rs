//! Whether the key sets of one shard group are disjoint and leave nothing out.

use super::number::NumberRange;
use super::{Chunk, KeyPattern, KeySet, Part, Word, meet};
use std::collections::BTreeMap;
use std::fmt;
use zenoh_keyexpr::OwnedKeyExpr;

/// What is wrong with a group of shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupProblem {
    /// Two members hold the same key.
    Overlap {
        /// The member that was given first.
        a: String,
        /// The other one.
        b: String,
        /// A key that both hold.
        example: OwnedKeyExpr,
    },
    /// No member holds a key that the form of their patterns suggests.
    Gap {
        /// The keys that nobody holds, as a pattern.
        missing: String,
        /// One of them.
        example: OwnedKeyExpr,
    },
}

impl fmt::Display for GroupProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlap { a, b, example } => write!(f, "`{a}` and `{b}` both hold `{example}`"),
            Self::Gap { missing, example } => {
                write!(f, "no shard holds `{missing}`, for example `{example}`")
            }
        }
    }
}

/// Finds the overlaps and gaps of a group, overlaps first. Members of the same name are one
/// member.
///
/// A gap is looked for where patterns differ in one character class or one numeric range: digits
/// are expected to be complete as `0-9`, lower hexadecimal digits as `0-9a-f`, other letters as
/// `a-z` or `A-Z`, numeric ranges without a hole between the lowest and the highest. An overlap
/// that an exclusion takes away is none; where exclusions cut an overlap only in part, it may go
/// unnoticed.
///
/// Quadratic in the number of members, cheaply so for members that differ in plain text.
#[must_use]
pub fn check_group(members: &[(&str, &KeySet)]) -> Vec<GroupProblem> {
    let mut problems = overlaps(members);
    problems.extend(gaps(members));
    problems
}

fn overlaps(members: &[(&str, &KeySet)]) -> Vec<GroupProblem> {
    let mut found: Vec<GroupProblem> = Vec::new();
    for (i, (a, a_keys)) in members.iter().enumerate() {
        for (b, b_keys) in members[i + 1..].iter().filter(|(b, _)| a != b) {
            let told = found
                .iter()
                .any(|p| matches!(p, GroupProblem::Overlap { a: x, b: y, .. } if x == a && y == b));
            if let Some(example) = common_key(a_keys, b_keys).filter(|_| !told) {
                let (a, b) = ((*a).to_owned(), (*b).to_owned());
                found.push(GroupProblem::Overlap { a, b, example });
            }
        }
    }
    found
}

/// A key that belongs to both sets.
fn common_key(a: &KeySet, b: &KeySet) -> Option<OwnedKeyExpr> {
    let both = |key: &OwnedKeyExpr| a.matches(key) && b.matches(key);
    let pairs = || {
        a.patterns
            .iter()
            .flat_map(|p| b.patterns.iter().map(move |q| (p, q)))
    };
    pairs()
        .filter_map(|(p, q)| meet::meet(p, q))
        .find(both)
        .or_else(|| {
            if a.exclude.is_empty() && b.exclude.is_empty() {
                return None;
            }
            // The shortest common key is excluded: look into each pair of declared expressions.
            let plain = |p: &KeyPattern| -> Vec<KeyPattern> {
                p.declared()
                    .iter()
                    .filter_map(|ke| KeyPattern::parse(&escape(ke)).ok())
                    .collect()
            };
            pairs()
                .filter(|(p, q)| meet::meet(p, q).is_some())
                .flat_map(|(p, q)| {
                    let q = plain(q);
                    plain(p).into_iter().flat_map(move |p| {
                        q.iter()
                            .filter_map(|q| meet::meet(&p, q))
                            .collect::<Vec<_>>()
                    })
                })
                .find(both)
        })
}

/// A key expression as a pattern: what opens a class or set there is literal here.
fn escape(plain: &str) -> String {
    plain.replace('[', "[[]").replace('{', "[{]")
}

/// A pattern with one class or number taken out, as text, and what the members have there.
type Holes<'p> = BTreeMap<String, Vec<(&'p KeyPattern, usize, usize)>>;

fn gaps(members: &[(&str, &KeySet)]) -> Vec<GroupProblem> {
    let mut holes: Holes<'_> = BTreeMap::new();
    for pattern in members.iter().flat_map(|(_, keys)| &keys.patterns) {
        for (c, chunk) in pattern.chunks.iter().enumerate() {
            let Chunk::Parts(parts) = chunk else { continue };
            for (p, part) in parts.iter().enumerate() {
                let kind = match part {
                    Part::Class(_) => "class",
                    Part::Set(_) if number(part).is_some() => "number",
                    _ => continue,
                };
                let mut rest = pattern.chunks.clone();
                put(&mut rest, c, p, Part::Text(format!("\0{kind}")));
                holes
                    .entry(render(&rest))
                    .or_default()
                    .push((pattern, c, p));
            }
        }
    }
    let unheld = |key: &OwnedKeyExpr| !members.iter().any(|(_, keys)| keys.matches(key));
    holes
        .values()
        .flat_map(|same| gap_candidates(same))
        .filter_map(|(pattern, c, p, fills)| {
            // Another member, of another form, may hold what seems to be missing.
            let fills: Vec<(Part, OwnedKeyExpr)> = fills
                .into_iter()
                .filter_map(|fill| {
                    let mut chunks = pattern.chunks.clone();
                    put(&mut chunks, c, p, fill.clone());
                    Some((fill, meet::example(&chunks).filter(unheld)?))
                })
                .collect();
            let example = fills.first()?.1.clone();
            let mut chunks = pattern.chunks.clone();
            put(
                &mut chunks,
                c,
                p,
                union(fills.into_iter().map(|(fill, _)| fill)),
            );
            Some(GroupProblem::Gap {
                missing: render(&chunks),
                example,
            })
        })
        .collect()
}

/// What the form of some patterns suggests and none of them has in the hole: one character or
/// one range each.
fn gap_candidates<'p>(
    same: &[(&'p KeyPattern, usize, usize)],
) -> Option<(&'p KeyPattern, usize, usize, Vec<Part>)> {
    let &(pattern, c, p) = same.first()?;
    let parts = same
        .iter()
        .filter_map(|&(pattern, c, p)| match &pattern.chunks[c] {
            Chunk::Parts(parts) => parts.get(p),
            Chunk::Any | Chunk::Deep => None,
        });
    let mut characters = Vec::new();
    let mut ranges = Vec::new();
    for part in parts {
        match part {
            Part::Class(members) => characters.extend_from_slice(members),
            part => ranges.extend(number(part)),
        }
    }
    let mut fills: Vec<Part> = universe(&characters)
        .into_iter()
        .filter(|c| !characters.contains(c))
        .map(|c| Part::Class(vec![c]))
        .collect();
    ranges.sort_by_key(|range| range.first);
    let mut covered = ranges.first().map_or(0, |range| range.last);
    for range in &ranges {
        if range.first > covered.saturating_add(1) {
            let hole = NumberRange {
                first: covered + 1,
                last: range.first - 1,
                ..range.clone()
            };
            fills.push(Part::Set(vec![Word::Number(hole)]));
        }
        covered = covered.max(range.last);
    }
    Some((pattern, c, p, fills))
}

/// All characters that a complete group would have, given some; empty if nobody can tell.
fn universe(some: &[char]) -> Vec<char> {
    let all = |of: fn(&char) -> bool| !some.is_empty() && some.iter().all(of);
    if all(char::is_ascii_digit) {
        ('0'..='9').collect()
    } else if all(|c| matches!(c, '0'..='9' | 'a'..='f')) {
        ('0'..='9').chain('a'..='f').collect()
    } else if all(|c| matches!(c, '0'..='9' | 'A'..='F')) {
        ('0'..='9').chain('A'..='F').collect()
    } else if all(char::is_ascii_lowercase) {
        ('a'..='z').collect()
    } else if all(char::is_ascii_uppercase) {
        ('A'..='Z').collect()
    } else {
        Vec::new()
    }
}

fn number(part: &Part) -> Option<NumberRange> {
    match part {
        Part::Set(words) => match &words[..] {
            [Word::Number(range)] => Some(range.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn union(fills: impl Iterator<Item = Part>) -> Part {
    let mut characters = Vec::new();
    let mut words = Vec::new();
    for fill in fills {
        match fill {
            Part::Class(members) => characters.extend(members),
            Part::Set(more) => words.extend(more),
            Part::Text(_) | Part::Many => {}
        }
    }
    if words.is_empty() {
        Part::Class(characters)
    } else {
        Part::Set(words)
    }
}

fn put(chunks: &mut [Chunk], chunk: usize, part: usize, new: Part) {
    if let Some(Chunk::Parts(parts)) = chunks.get_mut(chunk) {
        parts[part] = new;
    }
}

fn render(chunks: &[Chunk]) -> String {
    let mut text = String::new();
    for (i, chunk) in chunks.iter().enumerate() {
        let glued = *chunk == Chunk::Deep && text.ends_with("$*");
        if glued {
            // `x$*/**` reads better as it was most likely written.
            text.truncate(text.len() - 2);
        } else if i > 0 {
            text.push('/');
        }
        match chunk {
            Chunk::Any => text.push('*'),
            Chunk::Deep => text.push_str("**"),
            Chunk::Parts(parts) => text.extend(parts.iter().map(render_part)),
        }
    }
    text
}

fn render_part(part: &Part) -> String {
    match part {
        Part::Text(text) => escape(text),
        Part::Many => "$*".to_owned(),
        Part::Class(members) => {
            let mut text = String::from("[");
            let mut rest = &members[..];
            while let Some(&first) = rest.first() {
                let follow = rest.iter().zip(u32::from(first)..);
                let run = follow.take_while(|(a, b)| u32::from(**a) == *b).count();
                match run {
                    0..=2 => text.extend(&rest[..run.max(1)]),
                    _ => text.extend([first, '-', rest[run - 1]]),
                }
                rest = &rest[run.max(1)..];
            }
            text + "]"
        }
        Part::Set(words) => {
            let words: Vec<String> = words
                .iter()
                .map(|word| match word {
                    Word::Text(text) => text.clone(),
                    Word::Number(NumberRange { first, last, width }) => {
                        let width = width.unwrap_or(0);
                        format!("{first:0width$}..={last:0width$}")
                    }
                })
                .collect();
            format!("{{{}}}", words.join(","))
        }
    }
}
