//! From the chunks of a pattern to the few plain key expressions that a router declares for it.

use super::number::Prefix;
use super::{Chunk, Part, PatternErrorKind, Word};
use zenoh_keyexpr::OwnedKeyExpr;

/// The most key expressions that one pattern may stand for. Each costs memory and a route
/// computation on every router that learns it; a pattern with more is a mistake.
pub const DECLARED_MAX: usize = 1024;

pub(super) fn declared(chunks: &[Chunk]) -> Result<Vec<OwnedKeyExpr>, PatternErrorKind> {
    let chunks: Vec<Vec<Vec<String>>> = chunks.iter().map(alternatives).collect();
    let count = chunks
        .iter()
        .flatten()
        .map(Vec::len)
        .fold(1_usize, usize::saturating_mul);
    if count > DECLARED_MAX {
        return Err(PatternErrorKind::TooMany(count));
    }
    let mut texts = vec![String::new()];
    for (i, chunk) in chunks.iter().enumerate() {
        if i > 0 {
            texts.iter_mut().for_each(|text| text.push('/'));
        }
        for part in chunk {
            texts = texts
                .iter()
                .flat_map(|text| part.iter().map(move |choice| append(text, choice)))
                .collect();
        }
    }
    let all = texts
        .into_iter()
        .map(|text| {
            OwnedKeyExpr::autocanonize(text.clone()).map_err(|_| PatternErrorKind::NotKeyExpr(text))
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(minimal(all))
}

/// Appends, and keeps `$*` from being doubled: Zenoh 1.10.2 panics when it makes `a$*$*/b`
/// canonical.
fn append(text: &str, choice: &str) -> String {
    match choice.strip_prefix("$*") {
        Some(rest) if text.ends_with("$*") => format!("{text}{rest}"),
        _ => format!("{text}{choice}"),
    }
}

/// The same keys in fewer expressions: sorted, none included in another.
pub(super) fn minimal(mut all: Vec<OwnedKeyExpr>) -> Vec<OwnedKeyExpr> {
    all.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    all.dedup();
    let included = |one: &OwnedKeyExpr| {
        // Only an expression with a wildcard includes another one.
        all.iter()
            .any(|other| other != one && other.contains('*') && other.includes(one))
    };
    let kept: Vec<bool> = all.iter().map(|one| !included(one)).collect();
    let mut kept = kept.into_iter();
    all.retain(|_| kept.next().unwrap_or(true));
    all
}

/// Whether the chunk's declared form holds nothing but what the chunk holds.
pub(super) fn is_exact(chunk: &Chunk) -> bool {
    let Chunk::Parts(parts) = chunk else {
        return true;
    };
    parts.iter().enumerate().all(|(i, part)| {
        let Part::Set(words) = part else { return true };
        words.iter().all(|word| match word {
            Word::Text(_) => true,
            // What follows must not begin with a digit, and text after a number never does.
            Word::Number(range) => {
                matches!(parts.get(i + 1), None | Some(Part::Text(_)))
                    && range.cover().iter().all(|prefix| !prefix.open)
            }
        })
    })
}

/// The texts that each part of a chunk may be declared as.
fn alternatives(chunk: &Chunk) -> Vec<Vec<String>> {
    match chunk {
        Chunk::Any => vec![vec!["*".into()]],
        Chunk::Deep => vec![vec!["**".into()]],
        Chunk::Parts(parts) => parts.iter().map(part_alternatives).collect(),
    }
}

fn part_alternatives(part: &Part) -> Vec<String> {
    match part {
        Part::Text(text) => vec![text.clone()],
        Part::Many => vec!["$*".into()],
        Part::Class(members) => members.iter().map(char::to_string).collect(),
        Part::Set(words) => words
            .iter()
            .flat_map(|word| match word {
                Word::Text(text) => vec![text.clone()],
                Word::Number(range) => range.cover().iter().map(prefix_text).collect(),
            })
            .collect(),
    }
}

fn prefix_text(Prefix { digits, open }: &Prefix) -> String {
    if *open {
        format!("{digits}$*")
    } else {
        digits.clone()
    }
}
