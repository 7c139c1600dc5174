//! Where settings came from: every text that was read, in order of precedence.

use crate::diagnostic::{Diagnostic, Location};
use crate::form::written_as;
use crate::path::KeyPath;
use crate::text::{Place, Places};
use serde_json::Value;
use std::fmt;
use std::ops::Range;

/// Every text that settings were read from, the weakest first: defaults, files in the order in
/// which they were given, environment variables, flags.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    sources: Vec<Source>,
}

#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) kind: Kind,
    pub(crate) text: String,
    pub(crate) value: Value,
    pub(crate) places: Places,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Defaults,
    File(String),
    Environment(String),
    Flag(String),
}

/// Where a setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A file, with line and column counted from one.
    File {
        /// The file as it was given.
        name: String,
        /// The line.
        line: usize,
        /// The column, in characters.
        column: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { name, line, .. } => write!(f, "{name}:{line}"),
            Self::Environment(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

impl Kind {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Defaults => "defaults",
            Self::File(name) => name,
            Self::Environment(_) => "environment",
            Self::Flag(_) => "command line",
        }
    }
}

/// Which part of an entry a diagnostic is about.
#[derive(Clone, Debug)]
pub(crate) enum Spot {
    /// Its name: what is unknown.
    Key,
    /// Its name where it was written first: what lacks something.
    Begun,
    /// What it says.
    Value,
    /// Some bytes of the string that it says.
    Within(Range<usize>),
}

impl Source {
    /// Whether the entry at a path is written at this one here. A link that is a key expression is
    /// also where its `key_expr` is written; a link that is an object is not.
    fn holds(&self, here: &KeyPath, path: &KeyPath) -> bool {
        let is_link = path.names().first().is_some_and(|name| name == "forward");
        let is_above = here.names().len() < path.names().len();
        let found = here.get(&self.value);
        found.is_some_and(|found| !(is_link && is_above && found.is_object()))
    }
}

impl Sources {
    pub(crate) fn push(&mut self, source: Source) {
        self.sources.push(source);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.sources.len()
    }

    pub(crate) fn text(&self, source: usize) -> Option<&str> {
        self.sources.get(source).map(|source| source.text.as_str())
    }

    /// Where the setting at a path came from.
    #[must_use]
    pub fn origin(&self, path: &str) -> Origin {
        self.origin_of(&KeyPath::parse(path))
    }

    pub(crate) fn origin_of(&self, path: &KeyPath) -> Origin {
        let holder = self.sources.iter().rev().find_map(|source| {
            let at = written_as(path)
                .into_iter()
                .find(|at| source.holds(at, path))?;
            Some((source, at))
        });
        let Some((source, path)) = holder else {
            return Origin::Default;
        };
        match &source.kind {
            Kind::Defaults => Origin::Default,
            Kind::Environment(name) => Origin::Environment(name.clone()),
            Kind::Flag(name) => Origin::Flag(name.clone()),
            Kind::File(name) => {
                let place = nearest(source, &path);
                let start =
                    place.map_or(0, |place| place.key.as_ref().unwrap_or(&place.value).start);
                let before = &source.text[..start.min(source.text.len())];
                let line_start = before.rfind('\n').map_or(0, |at| at + 1);
                Origin::File {
                    name: name.clone(),
                    line: before.matches('\n').count() + 1,
                    column: before[line_start..].chars().count() + 1,
                }
            }
        }
    }

    /// What Zenoh says about an entry of its part of the configuration, with the place where it
    /// was written. The path is written as `connect/endpoints` or `listen.endpoints[0]`.
    #[must_use]
    pub fn zenoh_problem(&self, path: &str, message: &str) -> Diagnostic {
        let path = KeyPath::parse(path);
        let mut diagnostic = Diagnostic::error("weir::zenoh", message);
        diagnostic.location = self.locate(&path, Spot::Value);
        diagnostic.path = path.to_string();
        diagnostic
    }

    /// Where an entry was written: its value, or the nearest entry above that was written.
    pub(crate) fn location(&self, path: &KeyPath) -> Option<Location> {
        self.locate(path, Spot::Value)
    }

    pub(crate) fn locate(&self, path: &KeyPath, spot: Spot) -> Option<Location> {
        let written = written_as(path);
        let place = |(at, source): (usize, &Source)| {
            Some((
                at,
                written
                    .iter()
                    .filter(|at| source.holds(at, path))
                    .find_map(|at| source.places.get(at).cloned())?,
            ))
        };
        let mut sources = self.sources.iter().enumerate();
        let found = match spot {
            Spot::Begun => sources.find_map(place),
            _ => sources.rev().find_map(place),
        };
        let Some((at, place)) = found else {
            // What nobody wrote is missing from the entry above.
            let above = path.parent().filter(|above| !above.is_empty())?;
            return self.locate(&above, Spot::Begun);
        };
        let source = &self.sources[at];
        let span = match spot {
            Spot::Key | Spot::Begun => place.key.as_ref().unwrap_or(&place.value).clone(),
            Spot::Value => place.value.clone(),
            Spot::Within(part) => within(source, path, &place, part),
        };
        Some(Location {
            file: source.kind.name().to_owned(),
            span,
            source: at,
        })
    }

    /// Whether a storage was declared in zenohd's form.
    pub(crate) fn is_zenohd_storage(&self, name: &str) -> bool {
        let path = KeyPath::from_iter(["plugins", "storage_manager", "storages", name]);
        self.sources
            .iter()
            .any(|source| path.get(&source.value).is_some())
    }
}

fn nearest<'s>(source: &'s Source, path: &KeyPath) -> Option<&'s Place> {
    let found = source.places.get(path);
    found.or_else(|| nearest(source, &path.parent()?))
}

/// The text of some bytes of a string value, where the text is the string; else all of the value.
fn within(source: &Source, path: &KeyPath, place: &Place, part: Range<usize>) -> Range<usize> {
    let value = written_as(path)
        .into_iter()
        .find_map(|path| path.get(&source.value)?.as_str());
    let written = source.text.get(place.value.clone()).unwrap_or_default();
    let plain = written
        .starts_with(['"', '\''])
        .then(|| &written[1..written.len().max(2) - 1]);
    let offset = usize::from(plain.is_some());
    if value.is_some_and(|value| value == plain.unwrap_or(written)) {
        // What is missing has no width; the character before it shows where.
        let start = place.value.start + offset + part.start;
        start..(place.value.start + offset + part.end)
    } else {
        place.value.clone()
    }
}
