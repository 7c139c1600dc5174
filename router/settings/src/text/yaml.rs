//! YAML: values by `serde-saphyr`, places by the events of `saphyr-parser`.
//!
//! What an alias or a merge key brings in has no place of its own; whoever asks for it is given
//! the place of the nearest entry above.

use super::{Document, Place, SyntaxError, character_at};
use crate::path::KeyPath;
use saphyr_parser::{Event, Parser, Span, StrInput};
use serde_json::Value;
use std::ops::Range;

pub(super) fn parse(text: &str) -> Result<Document, SyntaxError> {
    let value: Value = serde_saphyr::from_str(text).map_err(|e| syntax_error(text, &e))?;
    let document = Document {
        value,
        ..Document::default()
    };
    let mut walk = Walk {
        text,
        offsets: offsets(text),
        parser: Parser::new_from_str(text),
        document,
    };
    while let Some((event, span)) = walk.next() {
        if !matches!(event, Event::StreamStart | Event::DocumentStart(_)) {
            walk.node(&KeyPath::default(), None, &event, span);
            break;
        }
    }
    Ok(walk.document)
}

fn syntax_error(text: &str, error: &serde_saphyr::Error) -> SyntaxError {
    let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).saturating_sub(1);
    let span = match error.location() {
        Some(place) if place.line() > 0 => character_at(text, at(place.line()), at(place.column())),
        _ => text.len()..text.len(),
    };
    let message = error.without_snippet().to_string();
    // The position stands in the message too, and in front of it once more.
    let message = message.split(" at line ").next().unwrap_or(&message);
    SyntaxError {
        message: message.trim_start_matches("error: ").to_owned(),
        span,
    }
}

/// Byte offsets of the characters, and of the end: the parser counts in characters.
fn offsets(text: &str) -> Vec<usize> {
    text.char_indices()
        .map(|(at, _)| at)
        .chain([text.len()])
        .collect()
}

struct Walk<'t> {
    text: &'t str,
    offsets: Vec<usize>,
    parser: Parser<'t, StrInput<'t>>,
    document: Document,
}

impl<'t> Walk<'t> {
    /// The next event. The two parsers may disagree over what is valid: then places are missing
    /// from there on, and nothing else.
    fn next(&mut self) -> Option<(Event<'t>, Range<usize>)> {
        let (event, span) = self.parser.next()?.ok()?;
        let bytes = self.bytes(span);
        Some((event, bytes))
    }

    fn bytes(&self, span: Span) -> Range<usize> {
        let offset = |at: usize| self.offsets.get(at).copied().unwrap_or(self.text.len());
        let (start, end) = (offset(span.start.index()), offset(span.end.index()));
        start..end.max(start)
    }

    /// One node, whose first event was read already; gives back where it ends.
    fn node(
        &mut self,
        path: &KeyPath,
        key: Option<Range<usize>>,
        event: &Event<'t>,
        span: Range<usize>,
    ) -> usize {
        self.document.enter(
            path,
            Place {
                key,
                value: span.clone(),
            },
        );
        let end = match event {
            Event::MappingStart(..) => self.mapping(path, span.end),
            Event::SequenceStart(..) => self.sequence(path, span.end),
            _ => span.end,
        };
        if let Some(place) = self.document.places.get_mut(path) {
            place.value.end = end;
        }
        end
    }

    fn mapping(&mut self, path: &KeyPath, mut end: usize) -> usize {
        while let Some((event, span)) = self.next() {
            let key = span.clone();
            let name = match event {
                Event::MappingEnd => return end.max(span.end),
                Event::Scalar(name, ..) => name.into_owned(),
                // A key that is no text: its parts are walked, but nobody can ask for them.
                _ => {
                    self.node(&path.join(String::new()), None, &event, span);
                    String::new()
                }
            };
            let Some((event, value)) = self.next() else {
                return end;
            };
            end = self.node(&path.join(name), Some(key), &event, value);
        }
        end
    }

    fn sequence(&mut self, path: &KeyPath, mut end: usize) -> usize {
        let mut index = 0_usize;
        while let Some((event, span)) = self.next() {
            if event == Event::SequenceEnd {
                return end.max(span.end);
            }
            end = self.node(&path.join(index.to_string()), None, &event, span);
            index += 1;
        }
        end
    }
}
