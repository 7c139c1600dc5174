//! Key patterns in settings: key expressions that may also hold character classes, words and ranges.
//!
//! | in a chunk | stands for |
//! | --- | --- |
//! | `*` | one chunk, whatever it is |
//! | `**` | any number of chunks, none included |
//! | `$*` | any characters inside a chunk, none included |
//! | `[0-3]`, `[abc]` | exactly one of these characters |
//! | `{red,green}` | exactly one of these words |
//! | `{0..300}`, `{0..=299}` | a decimal number, without leading zeros unless the first bound has some |
//! | `x**` (at the end of a chunk) | a chunk that starts with `x`, then anything below |
//!
//! It is the language in which shards are declared (`fleet/drone/[0-3]**`). A chunk that starts with
//! `@` is matched by no wildcard, as in Zenoh.

use std::{fmt, ops::RangeInclusive};

use serde::{Deserialize, Deserializer, de};

/// A key pattern, parsed.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    chunks: Vec<Chunk>,
}

/// Why a text is no key pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PatternError(String);

#[derive(Clone, PartialEq, Debug)]
enum Chunk {
    /// `*`
    Any,
    /// `**`
    Deep,
    Parts(Vec<Part>),
}

#[derive(Clone, PartialEq, Debug)]
enum Part {
    Text(String),
    Class(Vec<RangeInclusive<char>>),
    Words(Vec<String>),
    Number {
        range: RangeInclusive<u64>,
        width: Option<usize>,
    },
    /// `$*`
    Many,
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// [`PatternError`], with the chunk that is wrong.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let fail = |why: &str| Err(PatternError(format!("`{text}` is no key pattern: {why}")));
        if text.is_empty() {
            return fail("it is empty");
        }
        let mut chunks = Vec::new();
        for chunk in text.split('/') {
            match chunk {
                "" => return fail("a chunk is empty"),
                "*" => chunks.push(Chunk::Any),
                "**" => chunks.push(Chunk::Deep),
                _ => {
                    // `x**` is a chunk that starts with x, and everything below it.
                    let (start, deep) = chunk
                        .strip_suffix("**")
                        .map_or((chunk, false), |start| (start, true));
                    let mut parts = match parts(start) {
                        Ok(parts) => parts,
                        Err(why) => return fail(&format!("{why} in `{chunk}`")),
                    };
                    if deep {
                        parts.push(Part::Many);
                    }
                    chunks.push(Chunk::Parts(parts));
                    chunks.extend(deep.then_some(Chunk::Deep));
                }
            }
        }
        Ok(Self {
            text: text.to_owned(),
            chunks,
        })
    }

    /// The text that the pattern was parsed from.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it matches a key. Costs the key's length, more where several wildcards have to be
    /// tried against each other.
    #[must_use]
    pub fn matches(&self, key: &str) -> bool {
        match_chunks(&self.chunks, Some(key))
    }
}

/// `key` is what is left of it; nothing if the last chunk is matched.
fn match_chunks(chunks: &[Chunk], key: Option<&str>) -> bool {
    let Some((chunk, rest)) = chunks.split_first() else {
        return key.is_none();
    };
    let next = || {
        let key = key?;
        Some(
            key.split_once('/')
                .map_or((key, None), |(first, rest)| (first, Some(rest))),
        )
    };
    let is_plain = |text: &str| !text.starts_with('@');
    match chunk {
        // Everything that is left, in one go; a chunk that starts with `@` is looked at more closely.
        Chunk::Deep if rest.is_empty() && key.is_none_or(|key| !key.contains('@')) => true,
        Chunk::Deep => {
            match_chunks(rest, key)
                || next().is_some_and(|(first, key)| is_plain(first) && match_chunks(chunks, key))
        }
        Chunk::Any => next().is_some_and(|(first, key)| is_plain(first) && match_chunks(rest, key)),
        Chunk::Parts(parts) => next().is_some_and(|(first, key)| {
            let literal = matches!(parts.first(), Some(Part::Text(_)));
            (literal || is_plain(first)) && match_parts(parts, first) && match_chunks(rest, key)
        }),
    }
}

fn match_parts(parts: &[Part], text: &str) -> bool {
    let Some((part, rest)) = parts.split_first() else {
        return text.is_empty();
    };
    match part {
        Part::Text(literal) => text
            .strip_prefix(literal.as_str())
            .is_some_and(|text| match_parts(rest, text)),
        Part::Class(ranges) => {
            let mut characters = text.chars();
            characters.next().is_some_and(|first| {
                ranges.iter().any(|range| range.contains(&first))
                    && match_parts(rest, characters.as_str())
            })
        }
        Part::Words(words) => words.iter().any(|word| {
            text.strip_prefix(word.as_str())
                .is_some_and(|text| match_parts(rest, text))
        }),
        Part::Number { range, width } => {
            let end = text
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(text.len());
            let (digits, text) = text.split_at(end);
            let is_canonical = match width {
                Some(width) => digits.len() == *width,
                None => digits.len() == 1 || !digits.starts_with('0'),
            };
            is_canonical
                && digits.parse().is_ok_and(|number| range.contains(&number))
                && match_parts(rest, text)
        }
        Part::Many => (0..=text.len())
            .filter(|start| text.is_char_boundary(*start))
            .any(|start| match_parts(rest, &text[start..])),
    }
}

fn parts(chunk: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = chunk;
    while let Some(first) = rest.chars().next() {
        let group = |close: char| {
            let end = rest
                .find(close)
                .ok_or_else(|| format!("`{first}` is not closed"))?;
            Ok::<_, String>((&rest[1..end], &rest[end + close.len_utf8()..]))
        };
        match first {
            '[' => {
                let (members, after) = group(']')?;
                parts.push(class(members)?);
                rest = after;
            }
            '{' => {
                let (members, after) = group('}')?;
                parts.push(words(members)?);
                rest = after;
            }
            '$' => {
                rest = rest.strip_prefix("$*").ok_or("`$` stands only in `$*`")?;
                // Two in a row match what one does, slowly.
                if parts.last() != Some(&Part::Many) {
                    parts.push(Part::Many);
                }
            }
            '*' => return Err("`*` is a whole chunk; inside one write `$*`".to_owned()),
            '?' | '#' => return Err(format!("`{first}` never stands in a key")),
            _ => {
                let end = rest
                    .find(['[', '{', '$', '*', '?', '#'])
                    .unwrap_or(rest.len());
                parts.push(Part::Text(rest[..end].to_owned()));
                rest = &rest[end..];
            }
        }
    }
    Ok(parts)
}

fn class(members: &str) -> Result<Part, String> {
    let mut ranges = Vec::new();
    let mut characters = members.chars().peekable();
    while let Some(low) = characters.next() {
        let mut high = low;
        if characters.peek() == Some(&'-') {
            characters.next();
            high = characters
                .next()
                .ok_or_else(|| format!("`[{members}]` ends in `-`"))?;
        }
        if low > high {
            return Err(format!("`{low}-{high}` is backwards"));
        }
        ranges.push(low..=high);
    }
    if ranges.is_empty() {
        Err("`[]` is empty".to_owned())
    } else {
        Ok(Part::Class(ranges))
    }
}

fn words(members: &str) -> Result<Part, String> {
    let Some((low, high)) = members.split_once("..") else {
        let words: Vec<_> = members.split(',').map(str::to_owned).collect();
        let has_empty = words.iter().any(String::is_empty);
        return if has_empty {
            Err("a word is empty".to_owned())
        } else {
            Ok(Part::Words(words))
        };
    };
    let wrong = |bound: &str| format!("`{bound}` is no bound of a range");
    let parse = |bound: &str| bound.parse::<u64>().map_err(|_| wrong(bound));
    let first = parse(low)?;
    let last = match high.strip_prefix('=') {
        Some(last) => parse(last)?,
        None => parse(high)?.checked_sub(1).ok_or_else(|| wrong(high))?,
    };
    if first > last {
        return Err(format!("no number is in `{{{members}}}`"));
    }
    let width = (low.len() > 1 && low.starts_with('0')).then_some(low.len());
    Ok(Part::Number {
        range: first..=last,
        width,
    })
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PatternError {}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_its_keys() {
        for (pattern, yes, no) in [
            ("a/b", &["a/b"][..], &["a", "a/b/c", "a/bc"][..]),
            ("a/*", &["a/b"], &["a", "a/b/c", "a/@b"]),
            (
                "a/**",
                &["a", "a/b", "a/b/c"],
                &["b", "ab", "a/@x", "a/b/@x/c"],
            ),
            (
                "**/alarm/**",
                &["alarm", "x/alarm", "x/y/alarm/z"],
                &["x/alarms", "@x/alarm"],
            ),
            (
                "a/$*ing",
                &["a/ing", "a/ringing"],
                &["a/ringings", "a/x/ing"],
            ),
            (
                "drone/[0-3]**",
                &["drone/0", "drone/31/video"],
                &["drone/4", "drone", "drone/x/0"],
            ),
            (
                "[ab]{red,green}x",
                &["aredx", "bgreenx"],
                &["ared", "credx", "abluex"],
            ),
            (
                "n/{0..300}",
                &["n/0", "n/299"],
                &["n/300", "n/029", "n/", "n/x"],
            ),
            ("n/{0..300}**", &["n/29a/x"], &["n/2999", "n/029"]),
            (
                "n/{000..=500}",
                &["n/000", "n/500"],
                &["n/0", "n/501", "n/0500"],
            ),
            ("@a/**", &["@a", "@a/b"], &["a"]),
            ("ü/$*ß[à-ï]", &["ü/xßé"], &["ü/xé"]),
        ] {
            let pattern = Pattern::parse(pattern).unwrap();
            for (keys, expected) in [(yes, true), (no, false)] {
                for key in keys {
                    assert_eq!(pattern.matches(key), expected, "{} {key}", pattern.as_str());
                }
            }
        }
    }

    #[test]
    fn a_wrong_pattern_says_what_is_wrong() {
        for (pattern, why) in [
            ("", "it is empty"),
            ("a//b", "a chunk is empty"),
            ("a*b", "inside one write `$*`"),
            ("a/[0-", "`[` is not closed in `[0-`"),
            ("[9-0]", "`9-0` is backwards"),
            ("[]", "`[]` is empty"),
            ("{}", "a word is empty"),
            ("{5..5}", "no number is in `{5..5}`"),
            ("{a..b}", "`a` is no bound of a range"),
            ("$x", "`$` stands only in `$*`"),
            ("a?b", "`?` never stands in a key"),
        ] {
            let error = Pattern::parse(pattern).unwrap_err().to_string();
            assert!(error.contains(why), "{pattern}: {error}");
        }
    }
}
