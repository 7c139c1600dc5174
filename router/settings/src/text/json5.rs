//! JSON5: values by the `json5` crate, places by a walk over the text that it has accepted.

use super::{Document, Place, SyntaxError, character_at};
use crate::path::KeyPath;
use std::ops::Range;

pub(super) fn parse(text: &str) -> Result<Document, SyntaxError> {
    let value = json5::from_str(text).map_err(|e| syntax_error(text, &e))?;
    let document = Document {
        value,
        ..Document::default()
    };
    let mut walk = Walk {
        text,
        at: 0,
        document,
    };
    walk.value(&KeyPath::default(), None);
    Ok(walk.document)
}

fn syntax_error(text: &str, error: &json5::Error) -> SyntaxError {
    let span = match error.position() {
        Some(position) => character_at(text, position.line, position.column),
        None => text.len()..text.len(),
    };
    let message = match error.code() {
        Some(code) => code.to_string(),
        None => error.to_string(),
    };
    SyntaxError { message, span }
}

/// Knows that the text is valid JSON5, and so may be blind to everything but structure.
struct Walk<'t> {
    text: &'t str,
    at: usize,
    document: Document,
}

impl Walk<'_> {
    fn value(&mut self, path: &KeyPath, key: Option<Range<usize>>) {
        self.blank();
        let start = self.at;
        // Entered before its parts, so that a second value under one name discards the first's.
        self.document.enter(
            path,
            Place {
                key,
                value: start..start,
            },
        );
        match self.peek() {
            Some('{') => self.object(path),
            Some('[') => self.array(path),
            Some('"' | '\'') => self.string(),
            _ => self.word(),
        }
        if let Some(place) = self.document.places.get_mut(path) {
            place.value.end = self.at;
        }
    }

    fn object(&mut self, path: &KeyPath) {
        self.at += 1;
        loop {
            self.blank();
            let start = self.at;
            match self.peek() {
                None => return,
                Some('}') => return self.at += 1,
                Some(',') => {
                    self.at += 1;
                    continue;
                }
                Some('"' | '\'') => self.string(),
                Some(_) => self.word(),
            }
            let key = start..self.at;
            self.blank();
            self.at += 1; // The colon.
            let name = name(&self.text[key.clone()]);
            self.value(&path.join(name), Some(key));
        }
    }

    fn array(&mut self, path: &KeyPath) {
        self.at += 1;
        let mut index = 0_usize;
        loop {
            self.blank();
            match self.peek() {
                None => return,
                Some(']') => return self.at += 1,
                Some(',') => self.at += 1,
                Some(_) => {
                    self.value(&path.join(index.to_string()), None);
                    index += 1;
                }
            }
        }
    }

    fn string(&mut self) {
        let quote = self.peek();
        self.next();
        while let Some(c) = self.next() {
            match c {
                '\\' => {
                    self.next();
                }
                c if Some(c) == quote => return,
                _ => {}
            }
        }
    }

    /// A number, a literal or a name without quotes.
    fn word(&mut self) {
        let end = |c: char| is_blank(c) || ",:]}/".contains(c);
        let rest = &self.text[self.at..];
        // At least one character, so that the walk always comes to an end.
        let len = rest
            .char_indices()
            .skip(1)
            .find(|(_, c)| end(*c))
            .map_or(rest.len(), |(at, _)| at);
        self.at += len;
    }

    fn blank(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let end = if let Some(comment) = rest.strip_prefix("//") {
                let newline = ['\n', '\r', '\u{2028}', '\u{2029}'];
                comment.find(newline).map(|at| at + 2)
            } else if let Some(comment) = rest.strip_prefix("/*") {
                comment.find("*/").map(|at| at + 4)
            } else {
                match rest.find(|c| !is_blank(c)) {
                    Some(0) => return,
                    other => other,
                }
            };
            self.at += end.unwrap_or(rest.len());
            if self.at >= self.text.len() {
                return;
            }
        }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }
}

fn is_blank(c: char) -> bool {
    c.is_whitespace() || c == '\u{feff}'
}

/// A member's name without its quotes and escapes.
fn name(raw: &str) -> String {
    if raw.starts_with(['"', '\'']) {
        return json5::from_str(raw).unwrap_or_else(|_| raw.to_owned());
    }
    // Names without quotes may hold escapes too; strings have the same ones.
    match raw.contains('\\') {
        true => json5::from_str(&format!("\"{raw}\"")).unwrap_or_else(|_| raw.to_owned()),
        false => raw.to_owned(),
    }
}
