//! From the text of a key pattern to its chunks, with the byte span of whatever is wrong.

use super::expand::{DECLARED_MAX, declared};
use super::number::NumberRange;
use super::{Chunk, Part, Word};
use std::ops::Range;
use zenoh_keyexpr::OwnedKeyExpr;

/// Why a text is no key pattern, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct PatternError {
    /// What is wrong.
    pub kind: PatternErrorKind,
    /// The offending bytes of the text; empty only where something is missing.
    pub span: Range<usize>,
}

/// What can be wrong with a key pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternErrorKind {
    /// No text at all.
    #[error("a key expression cannot be empty")]
    Empty,
    /// Two slashes in a row.
    #[error("empty chunk")]
    EmptyChunk,
    /// A slash before the first chunk.
    #[error("a key expression cannot start with `/`")]
    LeadingSlash,
    /// A slash after the last chunk.
    #[error("a key expression cannot end with `/`")]
    TrailingSlash,
    /// A `*` that is no chunk of its own.
    #[error("`*` inside a chunk")]
    StarInChunk,
    /// A `$` without `*`.
    #[error("`$` without `*`")]
    LoneDollar,
    /// A character that no key may hold, or not here.
    #[error("`{0}` is not allowed here")]
    Forbidden(char),
    /// A class or set without its end.
    #[error("`{0}` without `{1}`")]
    Unclosed(char, char),
    /// `[]`, `{}` or an empty word in a set.
    #[error("nothing to choose from")]
    Nothing,
    /// `[^...]`.
    #[error("a class cannot be negated")]
    Negated,
    /// A range that ends before it starts.
    #[error("the range is empty")]
    EmptyRange,
    /// Bounds that are no decimal numbers.
    #[error("the bounds of a range must be decimal numbers")]
    BadNumber,
    /// Bounds with leading zeros of different lengths.
    #[error("bounds with leading zeros must have the same number of digits")]
    UnevenWidth,
    /// A number directly before something that can only be another digit.
    #[error("digits directly after a numeric range")]
    DigitAfterNumber,
    /// A long numeric range in a chunk that no wildcard can match.
    #[error("a long numeric range in a chunk that starts with `@`")]
    NumberAfterAt,
    /// The pattern stands for more key expressions than a router should declare.
    #[error("the pattern stands for {0} key expressions")]
    TooMany(usize),
    /// Zenoh's own verdict on an expression that the pattern stands for.
    #[error("`{0}` is not a key expression")]
    NotKeyExpr(String),
}

impl PatternError {
    pub(super) fn new(kind: PatternErrorKind, span: Range<usize>) -> Self {
        Self { kind, span }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        use PatternErrorKind as Kind;
        match &self.kind {
            Kind::Empty => "write `**` for every key".into(),
            Kind::EmptyChunk => "remove one `/`".into(),
            Kind::LeadingSlash | Kind::TrailingSlash => "remove the `/`".into(),
            Kind::StarInChunk => "write `$*` for any characters inside a chunk, `*` for a whole \
                 chunk, or end the chunk in `**` for everything that starts so"
                .into(),
            Kind::LoneDollar => "write `$*`".into(),
            Kind::Forbidden('?' | '#') => "no key can hold `?` or `#`".into(),
            Kind::Forbidden(_) => "a class or set holds plain characters only".into(),
            Kind::Unclosed(open, close) => {
                format!("add `{close}` in the same chunk, or write `[{open}]` for a literal one")
            }
            Kind::Nothing => "remove it, or name what may stand here".into(),
            Kind::Negated => "list what may stand here, or use `exclude`".into(),
            Kind::EmptyRange => "put the lower bound first; `..` excludes the upper bound, `..=` \
                 includes it"
                .into(),
            Kind::BadNumber => "write `{0..3000}` (3000 excluded) or `{0..=2999}`".into(),
            Kind::UnevenWidth => "write for example `{000..500}`".into(),
            Kind::DigitAfterNumber => "a number takes all digits that follow, so this never \
                 matches: put something between them"
                .into(),
            Kind::NumberAfterAt => "no wildcard matches a chunk that starts with `@`, so its \
                 numbers can only be declared one by one: list them, or use a short range"
                .into(),
            Kind::TooMany(_) => format!(
                "at most {DECLARED_MAX} can be declared: use a numeric range, or `$*` and `exclude`"
            ),
            Kind::NotKeyExpr(_) => "see Zenoh's rules for key expressions".into(),
        }
    }
}

/// Parses a plain Zenoh key expression, in which `[` and `{` are literal, and makes it canonical.
///
/// # Errors
/// [`PatternError`] with the byte span of the offending part and a hint.
pub fn parse_key_expr(text: &str) -> Result<OwnedKeyExpr, PatternError> {
    let whole = |kind| PatternError::new(kind, 0..text.len());
    let declared = declared(&parse(text, Syntax::Plain)?).map_err(whole)?;
    // One text in, one out: there is nothing to choose from in it.
    let not_one = || whole(PatternErrorKind::NotKeyExpr(text.to_owned()));
    declared.into_iter().next().ok_or_else(not_one)
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Syntax {
    /// Zenoh's key expressions.
    Plain,
    /// Those, and classes, sets, ranges, and `**` at the end of a chunk.
    Pattern,
}

pub(super) fn parse(text: &str, syntax: Syntax) -> Result<Vec<Chunk>, PatternError> {
    let fail = |kind, span| Err(PatternError::new(kind, span));
    if text.is_empty() {
        return fail(PatternErrorKind::Empty, 0..0);
    }
    if text.starts_with('/') {
        return fail(PatternErrorKind::LeadingSlash, 0..1);
    }
    if text.ends_with('/') {
        return fail(PatternErrorKind::TrailingSlash, text.len() - 1..text.len());
    }
    let mut chunks = Vec::new();
    let mut at = 0;
    for chunk in text.split('/') {
        match chunk {
            "" => return fail(PatternErrorKind::EmptyChunk, at - 1..at + 1),
            "*" => chunks.push(Chunk::Any),
            "**" => chunks.push(Chunk::Deep),
            _ => {
                let parts = Vec::new();
                Parser {
                    text: chunk,
                    syntax,
                    base: at,
                    at: 0,
                    parts,
                }
                .chunk(&mut chunks)?;
            }
        }
        at += chunk.len() + 1;
    }
    Ok(chunks)
}

/// Reads one chunk that is no whole wildcard.
struct Parser<'t> {
    text: &'t str,
    syntax: Syntax,
    /// Where the chunk starts in the whole text.
    base: usize,
    at: usize,
    parts: Vec<Part>,
}

impl Parser<'_> {
    fn chunk(mut self, chunks: &mut Vec<Chunk>) -> Result<(), PatternError> {
        let mut deep = false;
        while let Some(c) = self.text[self.at..].chars().next() {
            let start = self.at;
            let rest = &self.text[start..];
            let classes = self.syntax == Syntax::Pattern;
            let part = match c {
                '*' if classes && rest == "**" && start > 0 => {
                    deep = true;
                    self.at += 2;
                    Part::Many
                }
                '*' => {
                    let stars = rest.bytes().take_while(|b| *b == b'*').count();
                    return self.fail(PatternErrorKind::StarInChunk, start, start + stars);
                }
                '$' if rest.starts_with("$*") => {
                    self.at += 2;
                    Part::Many
                }
                '$' => return self.fail(PatternErrorKind::LoneDollar, start, start + 1),
                '?' | '#' => return self.fail(PatternErrorKind::Forbidden(c), start, start + 1),
                '[' if classes => self.class()?,
                '{' if classes => self.set()?,
                _ => {
                    self.at += c.len_utf8();
                    Part::Text(c.to_string())
                }
            };
            self.push(part, start)?;
        }
        let needs_wild =
            self.parts.iter().any(is_declared_wild) && !self.parts.contains(&Part::Many);
        if needs_wild && self.parts.first().is_some_and(may_start_with_at) {
            return self.fail(PatternErrorKind::NumberAfterAt, 0, self.text.len());
        }
        chunks.push(match &self.parts[..] {
            [Part::Many] => Chunk::Any,
            _ => Chunk::Parts(self.parts),
        });
        if deep {
            chunks.push(Chunk::Deep);
        }
        Ok(())
    }

    /// Appends a part, joining neighbours that mean the same together.
    fn push(&mut self, part: Part, start: usize) -> Result<(), PatternError> {
        if self.parts.last().is_some_and(ends_in_number) && can_only_be_digit(&part) {
            return self.fail(PatternErrorKind::DigitAfterNumber, start, self.at);
        }
        match (self.parts.last_mut(), part) {
            (Some(Part::Text(text)), Part::Text(more)) => text.push_str(&more),
            (Some(Part::Many), Part::Many) => {}
            (_, part) => self.parts.push(part),
        }
        Ok(())
    }

    /// `[...]`: characters and ranges of them. A `]` directly after the `[` is a member.
    fn class(&mut self) -> Result<Part, PatternError> {
        let start = self.at;
        let body_at = start + 1;
        let close = self.text[body_at..]
            .char_indices()
            .find(|(at, c)| *c == ']' && *at > 0)
            .map(|(at, _)| body_at + at);
        let Some(close) = close else {
            return match &self.text[body_at..] {
                "]" => self.fail(PatternErrorKind::Nothing, start, self.text.len()),
                _ => self.fail(PatternErrorKind::Unclosed('[', ']'), start, self.text.len()),
            };
        };
        let body: Vec<(usize, char)> = self.text[body_at..close].char_indices().collect();
        if body.len() > 1 && matches!(body[0].1, '^' | '!') {
            return self.fail(PatternErrorKind::Negated, body_at, body_at + 1);
        }
        let mut members = Vec::new();
        let mut rest = &body[..];
        while let Some((&(at, first), later)) = rest.split_first() {
            let at = body_at + at;
            if let Some(c) = [first].into_iter().find(|c| "*$?#".contains(*c)) {
                return self.fail(PatternErrorKind::Forbidden(c), at, at + 1);
            }
            if let [(_, '-'), (end_at, last), later @ ..] = later {
                let end = body_at + end_at + last.len_utf8();
                if first > *last {
                    return self.fail(PatternErrorKind::EmptyRange, at, end);
                }
                if let Some(c) = "*$?#".chars().find(|c| (first..=*last).contains(c)) {
                    return self.fail(PatternErrorKind::Forbidden(c), at, end);
                }
                let count = (first..=*last).count();
                if count > DECLARED_MAX {
                    return self.fail(PatternErrorKind::TooMany(count), at, end);
                }
                // `/` cannot be written in a class but lies inside ranges such as `[--9]`.
                members.extend((first..=*last).filter(|c| *c != '/'));
                rest = later;
            } else {
                members.push(first);
                rest = later;
            }
        }
        members.sort_unstable();
        members.dedup();
        self.at = close + 1;
        Ok(Part::Class(members))
    }

    /// `{...}`: words and numeric ranges between commas; spaces around them do not count.
    fn set(&mut self) -> Result<Part, PatternError> {
        let start = self.at;
        let Some(len) = self.text[start..].find('}') else {
            return self.fail(PatternErrorKind::Unclosed('{', '}'), start, self.text.len());
        };
        let mut words = Vec::new();
        let mut at = start + 1;
        for raw in self.text[start + 1..start + len].split(',') {
            let word = raw.trim();
            let word_at = at + (raw.len() - raw.trim_start().len());
            let end = word_at + word.len();
            if word.is_empty() {
                return self.fail(PatternErrorKind::Nothing, start, start + len + 1);
            }
            if let Some((i, c)) = word.char_indices().find(|(_, c)| "*$?#[{".contains(*c)) {
                return self.fail(PatternErrorKind::Forbidden(c), word_at + i, word_at + i + 1);
            }
            let word = match word.split_once("..") {
                None => Word::Text(word.to_owned()),
                Some((low, high)) => match number_range(low, high) {
                    Ok(range) => Word::Number(range),
                    Err(kind) => return self.fail(kind, word_at, end),
                },
            };
            if !words.contains(&word) {
                words.push(word);
            }
            at += raw.len() + 1;
        }
        self.at = start + len + 1;
        Ok(Part::Set(words))
    }

    fn fail<T>(&self, kind: PatternErrorKind, start: usize, end: usize) -> Result<T, PatternError> {
        Err(PatternError::new(kind, self.base + start..self.base + end))
    }
}

fn number_range(low: &str, high: &str) -> Result<NumberRange, PatternErrorKind> {
    let (high, included) = match high.strip_prefix('=') {
        Some(high) => (high, true),
        None => (high, false),
    };
    let number = |digits: &str| -> Result<u64, PatternErrorKind> {
        let plain = digits.bytes().all(|b| b.is_ascii_digit());
        // `parse` alone would take a sign.
        digits
            .parse()
            .ok()
            .filter(|_| plain)
            .ok_or(PatternErrorKind::BadNumber)
    };
    let (first, end) = (number(low)?, number(high)?);
    let led_by_zero = |digits: &str| digits.len() > 1 && digits.starts_with('0');
    let width = (led_by_zero(low) || led_by_zero(high)).then_some(low.len());
    // `{000..1000}` is as even as a half-open range can be written.
    let round = !included
        && end
            .checked_sub(1)
            .is_some_and(|n| n.to_string().len() == low.len());
    if width.is_some() && high.len() != low.len() && !round {
        return Err(PatternErrorKind::UnevenWidth);
    }
    let last = if included {
        Some(end)
    } else {
        end.checked_sub(1)
    };
    match last {
        Some(last) if last >= first => Ok(NumberRange { first, last, width }),
        _ => Err(PatternErrorKind::EmptyRange),
    }
}

/// Whether the part is declared with a `$*` that its keys do not ask for.
fn is_declared_wild(part: &Part) -> bool {
    matches!(part, Part::Set(words) if words.iter().any(
        |word| matches!(word, Word::Number(range) if range.cover().iter().any(|p| p.open))
    ))
}

fn may_start_with_at(part: &Part) -> bool {
    match part {
        Part::Text(text) => text.starts_with('@'),
        Part::Class(members) => members.contains(&'@'),
        Part::Set(words) => words
            .iter()
            .any(|w| matches!(w, Word::Text(text) if text.starts_with('@'))),
        Part::Many => false,
    }
}

fn ends_in_number(part: &Part) -> bool {
    matches!(part, Part::Set(words) if words.iter().any(|w| matches!(w, Word::Number(_))))
}

fn can_only_be_digit(part: &Part) -> bool {
    let digit = |c: char| c.is_ascii_digit();
    match part {
        Part::Text(text) => text.starts_with(digit),
        Part::Class(members) => members.iter().copied().all(digit),
        Part::Set(words) => words.iter().all(|word| match word {
            Word::Text(text) => text.starts_with(digit),
            Word::Number(_) => true,
        }),
        Part::Many => false,
    }
}
