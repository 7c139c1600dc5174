//! Key patterns: key expressions that may also hold character classes, sets and numeric ranges.
//!
//! A shard is declared as `fleet/drone/[0-3]**`. Zenoh knows no character classes, so a pattern is
//! compiled to the plain key expressions that a router declares ([`KeyPattern::declared`]): Zenoh
//! itself then keeps the traffic of the other shards away, and nothing is filtered here. Only a
//! numeric range needs a filter behind it, because no key expression says "below 3000".
//!
//! | in a chunk | stands for | declared as |
//! | --- | --- | --- |
//! | `[0-3]`, `[abc]`, `[0-35x]` | exactly one of these characters | one expression a member |
//! | `{red,green}` | exactly one of these words | one expression a word |
//! | `{0..3000}`, `{0..=2999}` | a decimal number, upper bound excluded or included | at most 16 expressions by leading digits, filtered exactly by [`KeyPattern::matches`] |
//! | `{000..500}` | the same, always written with three digits | likewise |
//! | `x**` (at the end of a chunk) | a chunk that starts with `x`, then anything below | `x$*/**` |
//! | `*`, `**`, `$*` | as in any Zenoh key expression | themselves |
//!
//! A number takes all the digits that stand where it starts and has no leading zeros unless its
//! lower bound is written with some: `drone/{0..300}**` holds `drone/29a/x` but neither
//! `drone/2999` nor `drone/029`. To write a literal `[` or `{`, put it in a class: `[[]`, `[{]`.
//! Chunks that start with `@` keep Zenoh's rule: no wildcard ever matches them.

mod expand;
mod group;
mod meet;
mod number;
mod parse;
#[cfg(test)]
mod tests;

pub use expand::DECLARED_MAX;
pub use group::{GroupProblem, check_group};
pub use parse::{PatternError, PatternErrorKind, parse_key_expr};

use number::NumberRange;
use parse::Syntax;
use std::fmt;
use std::str::FromStr;
use zenoh_keyexpr::{OwnedKeyExpr, keyexpr};

/// A key expression that may hold character classes, sets and numeric ranges.
///
/// Immutable once parsed; equality is equality of the text that it was parsed from.
#[derive(Clone, Debug)]
pub struct KeyPattern {
    text: String,
    chunks: Vec<Chunk>,
    declared: Vec<OwnedKeyExpr>,
    exact: bool,
}

/// What lies between two slashes.
#[derive(Clone, Debug, PartialEq)]
enum Chunk {
    /// `*`: one chunk, whatever it is.
    Any,
    /// `**`: any number of chunks, none included.
    Deep,
    /// A sequence to be matched inside one chunk.
    Parts(Vec<Part>),
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    /// These characters.
    Text(String),
    /// One of these characters; sorted, without doubles.
    Class(Vec<char>),
    /// One of these words.
    Set(Vec<Word>),
    /// `$*`: any characters, none included.
    Many,
}

#[derive(Clone, Debug, PartialEq)]
enum Word {
    Text(String),
    Number(NumberRange),
}

impl KeyPattern {
    /// Parses a pattern and compiles it to the key expressions to declare.
    ///
    /// Key expressions that are not canonical (`a/**/**`) are made so.
    ///
    /// # Errors
    /// [`PatternError`] with the byte span of the offending part and a hint; also if the pattern
    /// stands for more than [`DECLARED_MAX`] key expressions.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let chunks = parse::parse(text, Syntax::Pattern)?;
        let declared =
            expand::declared(&chunks).map_err(|kind| PatternError::new(kind, 0..text.len()))?;
        let exact = chunks.iter().all(expand::is_exact);
        Ok(Self {
            text: text.to_owned(),
            chunks,
            declared,
            exact,
        })
    }

    /// The text that the pattern was parsed from.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The plain canonical key expressions that hold every key of the pattern, sorted, none
    /// included in another, at least one and at most [`DECLARED_MAX`].
    #[must_use]
    pub fn declared(&self) -> &[OwnedKeyExpr] {
        &self.declared
    }

    /// Whether the declared key expressions hold nothing but keys of the pattern, so that what
    /// arrives on them needs no [`matches`](Self::matches). False only for some numeric ranges.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// Whether a concrete key belongs to the pattern. Exact. An expression with wildcards never
    /// does: ask [`intersects`](Self::intersects).
    ///
    /// Allocates nothing; linear in the key but for patterns with several wildcards.
    #[must_use]
    pub fn matches(&self, key: &keyexpr) -> bool {
        !is_wild(key) && chunks_match(&self.chunks, Some(key.as_str()))
    }

    /// Whether the pattern and the expression may have a key in common: for queries and deletes
    /// with wildcards.
    ///
    /// Exact for concrete keys and for patterns that are [exact](Self::is_exact). For the others
    /// it answers for the declared key expressions, so it may say yes where no key is shared, and
    /// never no where one is.
    #[must_use]
    pub fn intersects(&self, other: &keyexpr) -> bool {
        if is_wild(other) {
            self.declared
                .iter()
                .any(|declared| declared.intersects(other))
        } else {
            chunks_match(&self.chunks, Some(other.as_str()))
        }
    }
}

impl PartialEq for KeyPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for KeyPattern {}

impl fmt::Display for KeyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for KeyPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::parse(text)
    }
}

/// The keys of one storage: those of any of its patterns, less those of its exclusions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet {
    /// What belongs to the set. An empty list holds no key.
    pub patterns: Vec<KeyPattern>,
    /// What does not, although a pattern says so.
    pub exclude: Vec<OwnedKeyExpr>,
}

impl KeySet {
    /// The key expressions to declare: those of all patterns, sorted, none included in another
    /// and none included in an exclusion. Computed at every call, quadratic in their number.
    #[must_use]
    pub fn declared(&self) -> Vec<OwnedKeyExpr> {
        let mut all: Vec<OwnedKeyExpr> = self
            .patterns
            .iter()
            .flat_map(|pattern| pattern.declared().iter().cloned())
            .collect();
        all.retain(|declared| {
            !self
                .exclude
                .iter()
                .any(|excluded| excluded.includes(declared))
        });
        expand::minimal(all)
    }

    /// Whether what arrives on the declared key expressions needs no [`matches`](Self::matches).
    #[must_use]
    pub fn is_exact(&self) -> bool {
        let declared = self.declared();
        self.patterns.iter().all(KeyPattern::is_exact)
            && !self
                .exclude
                .iter()
                .any(|no| declared.iter().any(|yes| no.intersects(yes)))
    }

    /// Whether a concrete key belongs to the set. Exact; false for expressions with wildcards.
    #[must_use]
    pub fn matches(&self, key: &keyexpr) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(key)) && !self.excludes(key)
    }

    /// Whether the set and the expression may have a key in common.
    ///
    /// Exact for concrete keys. For wildcards it may say yes where the exclusions, or a numeric
    /// range, leave nothing in common; it never says no where a key is shared.
    #[must_use]
    pub fn intersects(&self, other: &keyexpr) -> bool {
        self.patterns
            .iter()
            .any(|pattern| pattern.intersects(other))
            && !self.exclude.iter().any(|excluded| excluded.includes(other))
    }

    fn excludes(&self, key: &keyexpr) -> bool {
        self.exclude.iter().any(|excluded| excluded.intersects(key))
    }
}

impl From<KeyPattern> for KeySet {
    fn from(pattern: KeyPattern) -> Self {
        Self {
            patterns: vec![pattern],
            exclude: Vec::new(),
        }
    }
}

fn is_wild(key: &keyexpr) -> bool {
    key.as_str().contains('*')
}

/// Whether the key's remaining chunks (`None`: none left) are those of the pattern.
fn chunks_match(chunks: &[Chunk], key: Option<&str>) -> bool {
    let Some((chunk, later)) = chunks.split_first() else {
        return key.is_none();
    };
    let Some(key) = key else {
        return chunks.iter().all(|chunk| *chunk == Chunk::Deep);
    };
    let (here, below) = match key.split_once('/') {
        Some((here, below)) => (here, Some(below)),
        None => (key, None),
    };
    let verbatim = here.starts_with('@');
    match chunk {
        Chunk::Deep => chunks_match(later, Some(key)) || !verbatim && chunks_match(chunks, below),
        Chunk::Any => !verbatim && chunks_match(later, below),
        Chunk::Parts(parts) => {
            (!verbatim || !parts.contains(&Part::Many))
                && parts_match(parts, here)
                && chunks_match(later, below)
        }
    }
}

fn parts_match(parts: &[Part], chunk: &str) -> bool {
    let Some((part, later)) = parts.split_first() else {
        return chunk.is_empty();
    };
    match part {
        Part::Text(text) => chunk
            .strip_prefix(&**text)
            .is_some_and(|rest| parts_match(later, rest)),
        Part::Class(members) => {
            let mut rest = chunk.chars();
            rest.next()
                .is_some_and(|c| members.binary_search(&c).is_ok())
                && parts_match(later, rest.as_str())
        }
        Part::Set(words) => words.iter().any(|word| {
            let rest = match word {
                Word::Text(text) => chunk.strip_prefix(&**text),
                Word::Number(range) => range.strip(chunk),
            };
            rest.is_some_and(|rest| parts_match(later, rest))
        }),
        Part::Many => {
            later.is_empty()
                || chunk
                    .char_indices()
                    .any(|(at, _)| parts_match(later, &chunk[at..]))
                || parts_match(later, "")
        }
    }
}
