//! TOML: values and places by the `toml` crate, whose tables know their spans.

use super::{Document, Place, SyntaxError};
use crate::path::KeyPath;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(super) fn parse(text: &str) -> Result<Document, SyntaxError> {
    let syntax_error = |e: toml::de::Error| SyntaxError {
        message: e.message().to_owned(),
        span: e.span().unwrap_or(text.len()..text.len()),
    };
    let table = DeTable::parse(text).map_err(syntax_error)?;
    let value = toml::from_str(text).map_err(syntax_error)?;
    let mut document = Document {
        value,
        ..Document::default()
    };
    let root = KeyPath::default();
    document.enter(
        &root,
        Place {
            key: None,
            value: table.span(),
        },
    );
    members(&mut document, &root, table.get_ref());
    Ok(document)
}

fn members(document: &mut Document, path: &KeyPath, table: &DeTable<'_>) {
    for (key, value) in table.iter() {
        entry(
            document,
            &path.join(key.get_ref().to_string()),
            Some(key.span()),
            value,
        );
    }
}

fn entry(
    document: &mut Document,
    path: &KeyPath,
    key: Option<Range<usize>>,
    value: &Spanned<DeValue<'_>>,
) {
    document.enter(
        path,
        Place {
            key,
            value: value.span(),
        },
    );
    match value.get_ref() {
        DeValue::Table(table) => members(document, path, table),
        DeValue::Array(array) => {
            for (index, item) in array.iter().enumerate() {
                entry(document, &path.join(index.to_string()), None, item);
            }
        }
        _ => {}
    }
}
