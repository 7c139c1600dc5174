//! Configuration text in three languages: the value it holds, and where in the text each part is.
//!
//! The values come from parsers that others maintain; they give no positions, so a second and
//! much simpler pass over the same, by then valid, text finds those.

mod json5;
mod toml;
mod yaml;

use crate::path::KeyPath;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;

/// A language that configuration is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Json5,
    Yaml,
    Toml,
}

impl Language {
    /// By the ending of a file's name; whatever is not known is read as JSON5, the language of
    /// Zenoh's own files.
    pub(crate) fn of(path: &std::path::Path) -> Self {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("yaml" | "yml") => Self::Yaml,
            Some("toml") => Self::Toml,
            _ => Self::Json5,
        }
    }
}

/// Where an entry is in its text, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The entry's name; absent for list items and the whole document.
    pub(crate) key: Option<Range<usize>>,
    pub(crate) value: Range<usize>,
}

pub(crate) type Places = BTreeMap<KeyPath, Place>;

/// A parsed text.
#[derive(Debug, Default)]
pub(crate) struct Document {
    pub(crate) value: Value,
    pub(crate) places: Places,
    /// Names that stand twice in one object, at their later place.
    pub(crate) doubles: Vec<(KeyPath, Range<usize>)>,
}

impl Document {
    /// Enters a place; whatever was there under the same path is overridden, as in the value.
    fn enter(&mut self, path: &KeyPath, place: Place) {
        if let Some(key) = place.key.clone()
            && self.places.contains_key(path)
        {
            self.doubles.push((path.clone(), key));
            self.places.retain(|other, _| !other.starts_with(path));
        }
        self.places.insert(path.clone(), place);
    }
}

/// What makes a text unreadable, and where.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) message: String,
    pub(crate) span: Range<usize>,
}

// Every parser here is recursive. Zenoh's own configuration is nested less than ten deep.
const DEPTH_MAX: usize = 256;

pub(crate) fn parse(language: Language, text: &str) -> Result<Document, SyntaxError> {
    if let Some(at) = too_deep(text) {
        return Err(SyntaxError {
            message: "nested too deeply".into(),
            span: at..at + 1,
        });
    }
    match language {
        Language::Json5 => json5::parse(text),
        Language::Yaml => yaml::parse(text),
        Language::Toml => toml::parse(text),
    }
}

/// Where brackets nest too deeply. Counts those in strings and comments too.
fn too_deep(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    text.bytes().position(|b| {
        match b {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > DEPTH_MAX
    })
}

/// The byte span of the character at a line and column, both counted from zero.
fn character_at(text: &str, line: usize, column: usize) -> Range<usize> {
    let start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let at = text[start..]
        .char_indices()
        .nth(column)
        .map_or(text.len(), |(at, _)| start + at);
    let width = text[at..].chars().next().map_or(0, char::len_utf8);
    at..at + width
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The text at each path, in the order of the paths.
    fn places(language: Language, text: &str, expected: &[(&str, &str, &str)]) {
        let document = parse(language, text).unwrap();
        let found: Vec<(String, &str, &str)> = document
            .places
            .iter()
            .map(|(path, place)| {
                let key = place.key.clone().map_or("", |key| &text[key]);
                (path.to_string(), key, &text[place.value.clone()])
            })
            .skip(1)
            .collect();
        let found: Vec<_> = found.iter().map(|(p, k, v)| (p.as_str(), *k, *v)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn finds_entries_in_json5() {
        let text = "\u{feff}// {a: 1}\n{ /* x: { */ a: 1, 'b\\n': [+.5e3, 'it\\'s', {}],\n \"c\": \
                    {d: null // }\n, }, \\u0065: true}";
        places(
            Language::Json5,
            text.trim_start_matches('\u{feff}'),
            &[
                ("a", "a", "1"),
                ("b\n", "'b\\n'", "[+.5e3, 'it\\'s', {}]"),
                ("b\n/0", "", "+.5e3"),
                ("b\n/1", "", "'it\\'s'"),
                ("b\n/2", "", "{}"),
                ("c", "\"c\"", "{d: null // }\n, }"),
                ("c/d", "d", "null"),
                ("e", "\\u0065", "true"),
            ],
        );
    }

    #[test]
    fn finds_entries_in_yaml() {
        let text =
            "# é\na: 1\nb:\n  - x é\n  - {c: \"d\"}\ne: &anchor plain text # no\nf: *anchor\n";
        places(
            Language::Yaml,
            text,
            &[
                ("a", "a", "1"),
                ("b", "b", "- x é\n  - {c: \"d\"}\n"),
                ("b/0", "", "x é"),
                ("b/1", "", "{c: \"d\"}"),
                ("b/1/c", "c", "\"d\""),
                ("e", "e", "&anchor plain text"),
                ("f", "f", "*anchor"),
            ],
        );
    }

    #[test]
    fn finds_entries_in_toml() {
        let text = "a = 1\n[b.c]\nd = ['x', {e = \"y\"}]\n";
        places(
            Language::Toml,
            text,
            &[
                ("a", "a", "1"),
                ("b", "b", "b"),
                ("b/c", "c", "[b.c]"),
                ("b/c/d", "d", "['x', {e = \"y\"}]"),
                ("b/c/d/0", "", "'x'"),
                ("b/c/d/1", "", "{e = \"y\"}"),
                ("b/c/d/1/e", "e", "\"y\""),
            ],
        );
    }

    fn fails(language: Language, text: &str, at: &str) {
        let error = parse(language, text).unwrap_err();
        assert_eq!(&text[error.span.clone()], at, "{}", error.message);
    }

    #[test]
    fn says_where_a_text_is_unreadable() {
        fails(Language::Json5, "{\n  é: 1,\n  a: @\n}", "@");
        fails(Language::Json5, "", "");
        fails(Language::Json5, &"[".repeat(300), "[");
        fails(Language::Yaml, "a: 1\nb: [é, ]]\n", "]");
        fails(Language::Toml, "a = 1\nb = é\n", "é");
    }

    #[test]
    fn tells_names_that_stand_twice() {
        let document = parse(Language::Json5, "{a: {x: 1}, a: {y: 2}}").unwrap();
        assert_eq!(document.doubles.len(), 1);
        assert_eq!(document.doubles[0].1, 12..13);
        assert!(!document.places.contains_key(&KeyPath::parse("a/x")));
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-c]|.{0,3}", inner, 0..4)
                    .prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        /// What stands at a place is the value at its path, wherever that can be read by itself.
        #[test]
        fn places_hold_their_values(value in json()) {
            for (language, text) in [
                (Language::Json5, serde_json::to_string_pretty(&value).unwrap()),
                (Language::Json5, ::json5::to_string(&value).unwrap()),
                (Language::Yaml, serde_json::to_string(&value).unwrap()),
            ] {
                let Ok(document) = parse(language, &text) else {
                    // YAML refuses some control characters that JSON does not.
                    prop_assert_eq!(language, Language::Yaml);
                    continue;
                };
                for (path, place) in &document.places {
                    let expected = path.get(&document.value);
                    let text = &text[place.value.clone()];
                    let found = parse(language, text).map(|document| document.value).ok();
                    prop_assert_eq!(found.as_ref(), expected, "{} in {}", path, text);
                }
            }
        }
    }
}
