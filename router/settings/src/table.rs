//! Reading one object of the configuration: every mistake is told, and reading goes on.

use crate::diagnostic::Diagnostic;
use crate::path::KeyPath;
use crate::source::{Sources, Spot};
use crate::units;
use serde_json::{Map, Value};
use std::time::Duration;
use weir_core::pattern::PatternError;

/// What may stand in an object: the one list behind reading, "did you mean" and the schema.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    /// Its JSON schema, as JSON.
    pub(crate) schema: &'static str,
    pub(crate) about: &'static str,
}

pub(crate) const fn field(name: &'static str, schema: &'static str, about: &'static str) -> Field {
    Field {
        name,
        schema,
        about,
    }
}

/// Collects what is wrong, with its place.
pub(crate) struct Report<'s> {
    pub(crate) sources: &'s Sources,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl<'s> Report<'s> {
    pub(crate) fn new(sources: &'s Sources) -> Self {
        Self {
            sources,
            diagnostics: Vec::new(),
        }
    }

    pub(crate) fn tell(&mut self, path: &KeyPath, spot: Spot, mut diagnostic: Diagnostic) {
        diagnostic.location = self.sources.locate(path, spot);
        diagnostic.path = path.to_string();
        self.diagnostics.push(diagnostic);
    }

    pub(crate) fn wrong_type(&mut self, path: &KeyPath, expected: &str, found: &Value) {
        let found = match found {
            Value::Number(number) => format!("the number {number}"),
            other => kind(other).to_owned(),
        };
        let message = format!("expected {expected}, found {found}");
        self.tell(
            path,
            Spot::Value,
            Diagnostic::error("weir::wrong-type", message),
        );
    }

    pub(crate) fn invalid(&mut self, path: &KeyPath, message: impl Into<String>, help: &str) {
        let diagnostic = Diagnostic::error("weir::invalid-value", message).help(help);
        self.tell(path, Spot::Value, diagnostic);
    }

    pub(crate) fn missing(&mut self, path: &KeyPath, message: impl Into<String>, help: &str) {
        let diagnostic = Diagnostic::error("weir::missing-field", message).help(help);
        self.tell(path, Spot::Begun, diagnostic);
    }

    pub(crate) fn conflict(&mut self, path: &KeyPath, message: impl Into<String>, help: &str) {
        let diagnostic = Diagnostic::error("weir::conflicting-fields", message).help(help);
        self.tell(path, Spot::Key, diagnostic);
    }

    pub(crate) fn ignored(&mut self, path: &KeyPath, message: impl Into<String>, help: &str) {
        let diagnostic = Diagnostic::warning("weir::ignored", message).help(help);
        self.tell(path, Spot::Key, diagnostic);
    }

    /// A key expression or pattern that is none, with the caret under the part that is wrong.
    pub(crate) fn bad_pattern(&mut self, path: &KeyPath, text: &str, error: &PatternError) {
        let message = format!("invalid key expression `{text}`: {error}");
        let diagnostic = Diagnostic::error("weir::invalid-key-expression", message);
        self.tell(
            path,
            Spot::Within(error.span.clone()),
            diagnostic.help(error.hint()),
        );
    }

    /// A name that is none of those known, with what was most likely meant.
    pub(crate) fn unknown_field<'k>(
        &mut self,
        path: &KeyPath,
        place: &str,
        known: impl Iterator<Item = &'k str> + Clone,
    ) {
        let name = path.last().unwrap_or_default();
        let message = format!("unknown field `{name}` in {place}");
        let help = did_you_mean(name, known.clone()).unwrap_or_else(|| {
            let known: Vec<&str> = known.filter(|name| !name.starts_with('_')).collect();
            format!("known fields: {}", known.join(", "))
        });
        let diagnostic = Diagnostic::error("weir::unknown-field", message).help(help);
        self.tell(path, Spot::Key, diagnostic);
    }
}

/// An object whose fields are known.
pub(crate) struct Table<'v> {
    pub(crate) path: KeyPath,
    map: &'v Map<String, Value>,
}

impl<'v> Table<'v> {
    /// Reads a value as an object and tells the fields that do not belong there. `place` is what
    /// people call it: "storage `demo`".
    pub(crate) fn open(
        report: &mut Report<'_>,
        path: KeyPath,
        value: &'v Value,
        place: &str,
        fields: &[&[Field]],
    ) -> Option<Self> {
        let table = Self::open_any(report, path, value)?;
        for name in table.map.keys() {
            let known = fields.iter().copied().flatten().map(|field| field.name);
            if !known.clone().any(|known| known == name) {
                report.unknown_field(&table.path.join(name), place, known);
            }
        }
        Some(table)
    }

    /// Reads a value as an object of any fields.
    pub(crate) fn open_any(
        report: &mut Report<'_>,
        path: KeyPath,
        value: &'v Value,
    ) -> Option<Self> {
        match value {
            Value::Object(map) => Some(Self { path, map }),
            other => {
                report.wrong_type(&path, "an object", other);
                None
            }
        }
    }

    /// All fields.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'v str, &'v Value)> + use<'v> {
        self.map.iter().map(|(name, value)| (name.as_str(), value))
    }

    pub(crate) fn at(&self, name: &str) -> KeyPath {
        self.path.join(name)
    }

    /// A field; null is as good as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&'v Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn read<T>(
        &self,
        report: &mut Report<'_>,
        name: &str,
        expected: &str,
        read: impl FnOnce(&'v Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(name)?;
        let read = read(value);
        if read.is_none() {
            report.wrong_type(&self.at(name), expected, value);
        }
        read
    }

    pub(crate) fn string(&self, report: &mut Report<'_>, name: &str) -> Option<&'v str> {
        self.read(report, name, "a string", Value::as_str)
    }

    pub(crate) fn bool(&self, report: &mut Report<'_>, name: &str) -> Option<bool> {
        self.read(report, name, "true or false", Value::as_bool)
    }

    /// A whole number within bounds, both included.
    pub(crate) fn integer(
        &self,
        report: &mut Report<'_>,
        name: &str,
        bounds: (i64, i64),
    ) -> Option<i64> {
        let (low, high) = bounds;
        let number = self.read(report, name, "a whole number", whole)?;
        if (low..=high).contains(&number) {
            return Some(number);
        }
        let help = match high {
            i64::MAX => format!("write a number from {low} on"),
            _ => format!("write a number from {low} to {high}"),
        };
        report.invalid(&self.at(name), format!("{number} is out of range"), &help);
        None
    }

    /// Seconds, or text such as `7d`.
    pub(crate) fn duration(&self, report: &mut Report<'_>, name: &str) -> Option<Duration> {
        let duration = match self.get(name)? {
            Value::Number(seconds) => seconds
                .as_f64()
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            Value::String(text) => units::duration(text),
            other => {
                report.wrong_type(&self.at(name), "a duration", other);
                return None;
            }
        };
        if duration.is_none() {
            let help = "write seconds as a number, or text such as \"90s\", \"1h 30m\", \"7d\"";
            report.invalid(&self.at(name), "this is not a duration", help);
        }
        duration
    }

    /// Bytes, or text such as `10GiB`.
    pub(crate) fn bytes(&self, report: &mut Report<'_>, name: &str) -> Option<u64> {
        let bytes = match self.get(name)? {
            Value::Number(bytes) => bytes.as_u64(),
            Value::String(text) => units::bytes(text),
            other => {
                report.wrong_type(&self.at(name), "a size", other);
                return None;
            }
        };
        if bytes.is_none() {
            let help = "write bytes as a number, or text such as \"512MB\", \"10GiB\"";
            report.invalid(&self.at(name), "this is not a size", help);
        }
        bytes
    }

    /// One of some words.
    pub(crate) fn choice<T: Copy>(
        &self,
        report: &mut Report<'_>,
        name: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let word = self.string(report, name)?;
        let found = choices.iter().find(|(choice, _)| *choice == word);
        if found.is_none() {
            let words = choices.iter().map(|(choice, _)| *choice);
            let all: Vec<String> = words.clone().map(|word| format!("\"{word}\"")).collect();
            let help = did_you_mean(word, words)
                .unwrap_or_else(|| format!("write one of {}", all.join(", ")));
            report.invalid(
                &self.at(name),
                format!("`{word}` is no choice for `{name}`"),
                &help,
            );
        }
        found.map(|(_, value)| *value)
    }
}

/// Whole numbers, also where a language has written them with a fraction of zero.
fn whole(value: &Value) -> Option<i64> {
    if let Some(number) = value.as_i64() {
        return Some(number);
    }
    let number = value
        .as_f64()
        .filter(|number| number.fract() == 0.0 && number.abs() < 9e15)?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a whole number within bounds"
    )]
    Some(number as i64)
}

pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// "did you mean `volume`?", if something known is close enough.
pub fn did_you_mean<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<String> {
    let lower = name.to_lowercase();
    // A third of the letters may be wrong: enough for slips, too little for guesses.
    let distance_max = (name.chars().count() / 3).clamp(1, 3);
    known
        .map(|known| {
            (
                strsim::damerau_levenshtein(&lower, &known.to_lowercase()),
                known,
            )
        })
        .filter(|(distance, _)| *distance <= distance_max)
        .min()
        .map(|(_, known)| format!("did you mean `{known}`?"))
}
