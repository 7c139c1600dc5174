//! What is wrong with a configuration, and how it is shown.

use crate::{secret, source::Sources};
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::fmt;
use std::ops::Range;

/// One thing that is wrong, or worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the router can start all the same.
    pub severity: Severity,
    /// A name for this kind of mistake that stays the same in every version: `weir::unknown-field`.
    pub code: &'static str,
    /// One sentence, lower case, without full stop.
    pub message: String,
    /// The entry, as names between slashes; empty if it concerns no single one.
    pub path: String,
    /// Where that was written, if it was.
    pub location: Option<Location>,
    /// What to do about it.
    pub help: Option<String>,
}

/// How bad a [`Diagnostic`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The router can run, but not as one may think.
    Warning,
    /// The router cannot run on this.
    Error,
}

/// A place in a file, an environment variable or a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The file as it was given, `environment` or `command line`.
    pub file: String,
    /// Bytes in the text of the source.
    pub span: Range<usize>,
    /// Which source of the [`Sources`] it is.
    pub(crate) source: usize,
}

impl Diagnostic {
    pub(crate) fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            path: String::new(),
            location: None,
            help: None,
        }
    }

    pub(crate) fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, message)
        }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// One line, without the source text: for logs and admin replies.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

impl Sources {
    /// The diagnostics for people, each with its source line and a caret under what is wrong,
    /// separated by empty lines, in the order of the sources.
    #[must_use]
    pub fn render(&self, diagnostics: &[Diagnostic], color: bool) -> String {
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let mut placed: Vec<(Option<Location>, &Diagnostic)> = diagnostics
            .iter()
            .map(|diagnostic| (self.location_of(diagnostic), diagnostic))
            .collect();
        placed.sort_by_key(|(location, _)| {
            location
                .as_ref()
                .map(|location| (location.source, location.span.start))
        });
        placed
            .into_iter()
            .map(|(location, diagnostic)| self.render_one(&renderer, location, diagnostic))
            .collect::<Vec<_>>()
            .join("\n\n")
    }

    fn location_of(&self, diagnostic: &Diagnostic) -> Option<Location> {
        if diagnostic.location.is_some() || diagnostic.path.is_empty() {
            return diagnostic.location.clone();
        }
        self.location(&crate::path::KeyPath::parse(&diagnostic.path))
    }

    fn render_one(
        &self,
        renderer: &Renderer,
        location: Option<Location>,
        diagnostic: &Diagnostic,
    ) -> String {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level
            .primary_title(diagnostic.message.as_str())
            .id(diagnostic.code);
        let mut group = Group::with_title(title);
        let shown = location
            .as_ref()
            .and_then(|at| Some((at, secret::cover(self.text(at.source)?))));
        match &shown {
            Some((at, text)) => {
                let span = visible(text, &at.span);
                let snippet = Snippet::source(text)
                    .path(at.file.as_str())
                    .annotation(AnnotationKind::Primary.span(span));
                group = group.element(snippet);
            }
            None if !diagnostic.path.is_empty() => {
                group = group.element(Level::NOTE.message(format!("at `{}`", diagnostic.path)));
            }
            None => {}
        }
        if let Some(help) = &diagnostic.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }
}

/// The part of a span that is worth underlining: its first line, without the line's end.
fn visible(text: &str, span: &Range<usize>) -> Range<usize> {
    let within = text.get(span.clone()).unwrap_or_default();
    let line = within.lines().next().unwrap_or_default();
    span.start..span.start + line.trim_end().len()
}
