//! The layers that settings are merged from, each a figment provider.

use crate::diagnostic::Diagnostic;
use crate::form::canonical;
use crate::path::KeyPath;
use crate::source::{Kind, Source, Sources, Spot};
use crate::table::{Report, did_you_mean};
use crate::text::{self, Document, Language, Place, Places};
use figment::value::{Dict, Map as FigmentMap};
use figment::{Figment, Metadata, Profile, Provider};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What settings are read from, the weakest first.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// What holds where nothing else says otherwise.
    pub defaults: Defaults,
    /// Files in JSON5 (also JSON), YAML or TOML, by their ending; a later one overrides.
    pub files: Vec<PathBuf>,
    /// The environment. `WEIR_STORAGES__demo__VOLUME=memory` sets `storages/demo/volume`: names in
    /// capitals are made small, others stay as they are; the value is JSON5, or else a string.
    /// Where stock backends look for their directories is taken from here too.
    pub env: Vec<(String, String)>,
    /// Flags, a later one overrides.
    pub flags: Vec<Flag>,
}

/// What holds where nobody says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Defaults {
    /// For a start without any file: a storage `default` on `**` in RocksDB, REST on
    /// 127.0.0.1:8000, metrics and health on 127.0.0.1:8001.
    Embedded,
    /// Nothing but what Zenoh does by itself.
    #[default]
    Minimal,
}

/// One setting of the command line.
#[derive(Clone, Debug, PartialEq)]
pub struct Flag {
    /// Where it goes, as names between slashes: `plugins/rest/http_port`; empty for the root.
    pub path: String,
    /// What it sets.
    pub value: Value,
    /// The flag as people typed it: `--rest-http-port 8000`. Mistakes are shown in it.
    pub shown: String,
}

impl Flag {
    /// A flag that sets one entry.
    #[must_use]
    pub fn new(path: &str, value: Value, shown: &str) -> Self {
        Self {
            path: path.to_owned(),
            value,
            shown: shown.to_owned(),
        }
    }

    /// Reads zenohd's `--cfg KEY:VALUE`: a path with slashes, and JSON5. An empty key is the root.
    ///
    /// # Errors
    /// A [`Diagnostic`] if there is no colon, or no JSON5 behind it.
    pub fn cfg(argument: &str) -> Result<Self, Box<Diagnostic>> {
        let help =
            "write for example --cfg 'storages/demo:{key_expr: \"demo/**\", volume: \"memory\"}'";
        let error =
            |message: String| Box::new(Diagnostic::error("weir::syntax", message).help(help));
        let (key, value) = argument
            .split_once(':')
            .ok_or_else(|| error(format!("`--cfg {argument}` is no KEY:VALUE pair")))?;
        let value = text::parse(Language::Json5, value).map_err(|e| {
            error(format!(
                "the value of `--cfg {argument}` is not JSON5: {}",
                e.message
            ))
        })?;
        let path = key.trim_matches('/');
        Ok(Self::new(path, value.value, &format!("--cfg '{argument}'")))
    }
}

/// Variables with our prefix that are no settings.
///
/// `weir` itself reads the first as defaults of flags; the others tell the project's tests and
/// benchmarks where things are, and a router that they start must not wonder about them.
pub const RESERVED_VARIABLES: [&str; 19] = [
    "WEIR_CONFIG",
    "WEIR_LOG",
    "WEIR_LOG_FORMAT",
    "WEIR_ENDPOINT",
    "WEIR_COLOR",
    "WEIR_BIN",
    "WEIR_PYTHON",
    "WEIR_SKIPPED",
    "WEIR_SEED",
    "WEIR_BENCH_POLICIES",
    "WEIR_BENCH_STOCK",
    "WEIR_TEST_SILENCE_MAX_S",
    "WEIR_MIRROR_TROUBLES",
    "WEIR_OUTAGE_SECONDS",
    "WEIR_WIRE_KEYS",
    "WEIR_FORWARD_TROUBLES",
    "WEIR_FORWARD_FAILPOINTS",
    "WEIR_FORWARD_FLAPS",
    "WEIR_FORWARD_EDGES",
];

const PREFIX: &str = "WEIR_";

impl Provider for Source {
    fn metadata(&self) -> Metadata {
        let metadata = Metadata::named(self.kind.name().to_owned());
        match &self.kind {
            Kind::File(name) => metadata.source(Path::new(name)),
            Kind::Environment(name) | Kind::Flag(name) => metadata.source(name.as_str()),
            Kind::Defaults => metadata,
        }
    }

    fn data(&self) -> Result<FigmentMap<Profile, Dict>, figment::Error> {
        let value = figment::value::Value::serialize(canonical(self.value.clone()))?;
        let dict = value.into_dict().unwrap_or_default();
        Ok(FigmentMap::from([(Profile::Default, dict)]))
    }
}

/// Reads every layer and merges them. The mistakes told are those that keep a layer, or a part of
/// it, from being read.
pub(crate) fn read(layers: &Layers, top_level: &[&str]) -> (Sources, Value, Vec<Diagnostic>) {
    let mut sources = Sources::default();
    let mut diagnostics = Vec::new();
    let mut told = Vec::new();
    sources.push(defaults(layers.defaults));
    for file in &layers.files {
        read_file(
            &mut sources,
            &mut diagnostics,
            &mut told,
            file,
            &KeyPath::default(),
            &mut vec![],
        );
    }
    for (name, value) in &layers.env {
        if let Some(source) = variable(&mut diagnostics, name, value, top_level) {
            sources.push(source);
        }
    }
    for flag in &layers.flags {
        let source = flag_source(flag);
        if !source.value.is_object() {
            let found = crate::table::kind(&source.value);
            let message = format!("`{}` sets the whole configuration to {found}", flag.shown);
            let help = "the whole configuration is an object";
            diagnostics.push(Diagnostic::error("weir::wrong-type", message).help(help));
        }
        sources.push(source);
    }
    let mut report = Report::new(&sources);
    for (path, diagnostic) in told {
        report.tell(&path, Spot::Value, diagnostic);
    }
    diagnostics.append(&mut report.diagnostics);
    let merged = sources.iter().fold(Figment::new(), Figment::merge);
    let merged = merged.extract::<Value>().unwrap_or_else(|e| {
        // Every layer is an object by now, and figment merges those without conditions.
        diagnostics.push(Diagnostic::error(
            "weir::internal",
            format!("cannot merge: {e}"),
        ));
        json!({})
    });
    (sources, merged, diagnostics)
}

fn defaults(defaults: Defaults) -> Source {
    let value = match defaults {
        Defaults::Minimal => json!({}),
        Defaults::Embedded => json!({
            "storages": { "default": { "key_expr": "**", "volume": "rocksdb" } },
            "rest": { "http_port": "127.0.0.1:8000" },
            "http": { "listen": "127.0.0.1:8001" },
        }),
    };
    Source {
        kind: Kind::Defaults,
        text: String::new(),
        value,
        places: Places::new(),
    }
}

/// Reads a file, and what it includes by `__config__`, as further layers on top of it.
fn read_file(
    sources: &mut Sources,
    diagnostics: &mut Vec<Diagnostic>,
    told: &mut Vec<(KeyPath, Diagnostic)>,
    file: &Path,
    below: &KeyPath,
    open: &mut Vec<PathBuf>,
) {
    let name = file.display().to_string();
    let unreadable = |why: String| {
        let diagnostic = Diagnostic::error("weir::file", format!("cannot read `{name}`: {why}"));
        match below.is_empty() {
            true => (None, diagnostic),
            false => (Some(below.join("__config__")), diagnostic),
        }
    };
    let text = std::fs::read(file)
        .map_err(|e| e.to_string())
        .and_then(|bytes| {
            String::from_utf8(bytes)
                .map_err(|e| format!("not UTF-8 at byte {}", e.utf8_error().valid_up_to()))
        });
    let text = match text {
        Ok(text) => text.trim_start_matches('\u{feff}').to_owned(),
        Err(why) => {
            match unreadable(why) {
                (Some(path), diagnostic) => told.push((path, diagnostic)),
                (None, diagnostic) => diagnostics.push(diagnostic),
            }
            return;
        }
    };
    let at = sources.len();
    let located = |diagnostic: Diagnostic, span| Diagnostic {
        location: Some(crate::Location {
            file: name.clone(),
            span,
            source: at,
        }),
        ..diagnostic
    };
    let Document {
        mut value,
        places,
        doubles,
    } = text::parse(Language::of(file), &text).unwrap_or_else(|e| {
        let diagnostic = Diagnostic::error("weir::syntax", e.message);
        diagnostics.push(located(diagnostic, e.span));
        Document {
            value: json!({}),
            ..Document::default()
        }
    });
    for (path, span) in doubles {
        let name = path.last().unwrap_or_default();
        let message = format!("`{name}` stands here twice; the last one counts");
        let diagnostic = Diagnostic::warning("weir::duplicate-key", message);
        diagnostics.push(Diagnostic {
            path: path.to_string(),
            ..located(diagnostic, span)
        });
    }
    if value.is_null() {
        // An empty YAML document.
        value = json!({});
    }
    if !value.is_object() {
        let message = format!("expected an object, found {}", crate::table::kind(&value));
        diagnostics.push(located(
            Diagnostic::error("weir::wrong-type", message),
            0..text.len(),
        ));
        value = json!({});
    }
    let places = places
        .into_iter()
        .map(|(path, place)| (path.below(below), place))
        .collect();
    let value = below.wrap(value);
    let includes = includes(&value);
    sources.push(Source {
        kind: Kind::File(name),
        text,
        value,
        places,
    });

    let real = |file: &Path| std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    open.push(real(file));
    for (path, include) in includes {
        // zenohd looks from where it was started; a file beside the including one is as likely.
        let beside = file.parent().unwrap_or(Path::new("")).join(&include);
        let included = if include.exists() { include } else { beside };
        if open.contains(&real(&included)) {
            let message = format!("`{}` includes itself", included.display());
            told.push((
                path.join("__config__"),
                Diagnostic::error("weir::file", message),
            ));
        } else {
            read_file(sources, diagnostics, told, &included, &path, open);
        }
    }
    open.pop();
}

/// Every `__config__` below `plugins`, with the path of the object that it stands in.
fn includes(value: &Value) -> Vec<(KeyPath, PathBuf)> {
    fn walk(value: &Value, path: &KeyPath, found: &mut Vec<(KeyPath, PathBuf)>) {
        let Value::Object(map) = value else { return };
        for (name, inner) in map {
            match inner {
                Value::String(file) if name == "__config__" => {
                    found.push((path.clone(), PathBuf::from(file)));
                }
                inner => walk(inner, &path.join(name), found),
            }
        }
    }
    let mut found = Vec::new();
    let plugins = KeyPath::parse("plugins");
    if let Some(value) = plugins.get(value) {
        walk(value, &plugins, &mut found);
    }
    found
}

/// One environment variable as a source of its own, if it is a setting.
fn variable(
    diagnostics: &mut Vec<Diagnostic>,
    name: &str,
    raw: &str,
    top_level: &[&str],
) -> Option<Source> {
    let rest = name
        .strip_prefix(PREFIX)
        .filter(|_| !RESERVED_VARIABLES.contains(&name))?;
    let path: KeyPath = rest.split("__").map(small).collect();
    let first = path.names().first().map_or("", String::as_str);
    if !top_level.contains(&first) {
        // No error: a Kubernetes service of our name puts WEIR_PORT and more into every container.
        let message = format!("there is no setting for the environment variable `{name}`");
        let help = did_you_mean(first, top_level.iter().copied())
            .unwrap_or_else(|| "write for example WEIR_STORAGES__demo__VOLUME=memory".to_owned());
        diagnostics.push(Diagnostic::warning("weir::unknown-variable", message).help(help));
        return None;
    }
    // These two are strings whatever they look like: an id of digits is no number.
    let string = matches!(first, "id" | "namespace");
    let document = text::parse(Language::Json5, raw)
        .ok()
        .filter(|_| !string)
        .filter(|document| {
            // `NaN` and `Infinity` are numbers of JSON5 that no setting has: names, more likely.
            !document.value.is_null() || raw.trim() == "null"
        });
    let text = format!("{name}={raw}");
    Some(virtual_source(
        Kind::Environment(name.to_owned()),
        text,
        name.len() + 1,
        &path,
        document,
        raw,
    ))
}

/// `STORAGES` is `storages`, `demo` and `Demo` stay.
fn small(name: &str) -> String {
    let capitals = !name.chars().any(char::is_lowercase);
    if capitals {
        name.to_lowercase()
    } else {
        name.to_owned()
    }
}

fn flag_source(flag: &Flag) -> Source {
    let path = match flag.path.trim_matches('/') {
        "" => KeyPath::default(),
        path => path.split('/').collect(),
    };
    let kind = Kind::Flag(
        flag.shown
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned(),
    );
    let (_, shown) = flag.shown.split_once(':').unwrap_or_default();
    let shown = shown.strip_suffix('\'').unwrap_or(shown);
    let document = text::parse(Language::Json5, shown)
        .ok()
        .filter(|d| d.value == flag.value);
    match document {
        Some(document) => {
            let at = flag.shown.find(':').map_or(0, |at| at + 1);
            virtual_source(kind, flag.shown.clone(), at, &path, Some(document), shown)
        }
        None => {
            let document = Document {
                value: flag.value.clone(),
                ..Document::default()
            };
            virtual_source(kind, flag.shown.clone(), 0, &path, Some(document), "")
        }
    }
}

/// A source whose text holds a value from some byte on, and the names above it before that.
fn virtual_source(
    kind: Kind,
    text: String,
    value_at: usize,
    path: &KeyPath,
    document: Option<Document>,
    raw: &str,
) -> Source {
    let document = document.unwrap_or_else(|| Document {
        value: Value::String(raw.to_owned()),
        ..Document::default()
    });
    let shift = |span: std::ops::Range<usize>| span.start + value_at..span.end + value_at;
    let mut places: Places = document
        .places
        .into_iter()
        .map(|(inner, place)| {
            let place = Place {
                key: place.key.map(shift),
                value: shift(place.value),
            };
            (inner.below(path), place)
        })
        .collect();
    let name_end = text.find(['=', ':']).unwrap_or(text.len());
    let value = if value_at > 0 {
        value_at..text.strip_suffix('\'').unwrap_or(&text).len()
    } else {
        0..text.len()
    };
    let whole = Place {
        key: Some(0..name_end),
        value,
    };
    let mut above = Some(path.clone());
    while let Some(path) = above.filter(|path| !path.is_empty()) {
        above = path.parent();
        let place = places.entry(path).or_insert_with(|| whole.clone());
        place.key = Some(0..name_end);
    }
    Source {
        kind,
        text,
        value: path.wrap(document.value),
        places,
    }
}
