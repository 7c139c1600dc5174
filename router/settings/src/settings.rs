//! The whole of the settings: Zenoh's part is passed on, ours is read.

use crate::diagnostic::{Diagnostic, Severity};
use crate::directories;
use crate::form::canonical_storage;
use crate::group::{self, ShardGroups};
use crate::layer::{self, Layers};
use crate::path::KeyPath;
use crate::source::Sources;
use crate::storage::{self, StorageSettings, Surroundings};
use crate::table::{Field, Report, Table, field};
use crate::volume::{self, Form, Roots, VolumeSettings};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What became of the layers.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings, if nothing is wrong with them.
    pub settings: Option<Settings>,
    /// Zenoh's part as in [`Settings::zenoh`], also where ours has errors: Zenoh's verdict on it
    /// belongs into the same report.
    pub zenoh: Value,
    /// Everything that is wrong or worth knowing.
    pub diagnostics: Vec<Diagnostic>,
    /// Where everything was written, to show diagnostics and origins.
    pub sources: Sources,
}

/// What a router is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Zenoh's own configuration, to be read by Zenoh: all that is not ours, with `plugins.rest`
    /// and without `plugins.storage_manager`. Nothing is filled in.
    pub zenoh: Value,
    /// Where our own files lie; `./weir-data` by default.
    pub data_dir: PathBuf,
    /// Our server for metrics and health, if it is on.
    pub http: Option<HttpSettings>,
    /// The volumes by name, those included that need no declaration.
    pub volumes: BTreeMap<String, VolumeSettings>,
    /// The storages by name.
    pub storages: BTreeMap<String, StorageSettings>,
    /// The shard groups by name.
    pub shard_groups: ShardGroups,
    /// Where relative directories lie; for [`parse_storage`].
    pub roots: Roots,
    /// Everything in force, in our form, with the defaults of storages filled in.
    pub effective: Value,
}

/// Our server for metrics and health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// Where it listens; 127.0.0.1:8001 by default.
    pub listen: SocketAddr,
}

const HTTP_PORT_DEFAULT: u16 = 8001;

pub(crate) const OUR_FIELDS: &[Field] = &[
    field(
        "data_dir",
        r#"{"type":"string","default":"./weir-data"}"#,
        "Where data lies for which no other directory is named.",
    ),
    field(
        "http",
        r#"{"type":["object","boolean"]}"#,
        "The server for metrics and health.",
    ),
    field(
        "rest",
        r#"{"type":["object","boolean"]}"#,
        "Zenoh's REST server: `plugins.rest`.",
    ),
    field(
        "volumes",
        r#"{"type":"object"}"#,
        "Engines and places that storages share, by name.",
    ),
    field("storages", r#"{"type":"object"}"#, "The storages, by name."),
    field(
        "shard_groups",
        r#"{"type":"object"}"#,
        "Shard groups by name, each a list of the key patterns of all its members.",
    ),
];

pub(crate) const HTTP_FIELDS: &[Field] = &[field(
    "listen",
    r#"{"type":["string","integer"],"default":"127.0.0.1:8001"}"#,
    "Address and port, or a port on 127.0.0.1.",
)];

pub(crate) const REST_FIELDS: &[Field] = &[
    field(
        "http_port",
        r#"{"type":["string","integer"]}"#,
        "A port, or an address and a port.",
    ),
    field(
        "work_thread_num",
        r#"{"type":"integer"}"#,
        "Has no effect in a built-in plugin.",
    ),
    field(
        "max_block_thread_num",
        r#"{"type":"integer"}"#,
        "Has no effect in a built-in plugin.",
    ),
    field(
        "__required__",
        r#"{"type":"boolean"}"#,
        "Has no effect in a built-in plugin.",
    ),
    field("__path__", "true", "Has no effect in a built-in plugin."),
    field("__plugin__", "true", "Has no effect in a built-in plugin."),
    field(
        "__config__",
        r#"{"type":"string"}"#,
        "A file to take the rest from.",
    ),
];

const MANAGER_FIELDS: &[Field] = &[
    field("volumes", "true", ""),
    field("storages", "true", ""),
    field("backend_search_dirs", "true", ""),
    field("__path__", "true", ""),
    field("__required__", "true", ""),
    field("__plugin__", "true", ""),
    field("__config__", "true", ""),
];

/// The top-level names of Zenoh's configuration (zenoh-config 1.10.2, `struct Config`).
pub(crate) const ZENOH_FIELDS: [&str; 23] = [
    "id",
    "metadata",
    "mode",
    "region_name",
    "gateway",
    "connect",
    "listen",
    "open",
    "scouting",
    "timestamping",
    "queries_default_timeout",
    "routing",
    "aggregation",
    "qos",
    "transport",
    "adminspace",
    "namespace",
    "downsampling",
    "access_control",
    "low_pass_filter",
    "stats",
    "plugins_loading",
    "plugins",
];

fn top_level() -> Vec<&'static str> {
    let ours = OUR_FIELDS.iter().map(|field| field.name);
    ours.chain(ZENOH_FIELDS).chain(["$schema"]).collect()
}

/// Reads and merges the layers, and tells everything that is wrong with them at once.
///
/// Reads files; writes nothing and binds nothing. [`check_directories`](crate::check_directories)
/// looks at the directories, and whoever starts Zenoh hands its verdict on [`Settings::zenoh`] to
/// [`Sources::zenoh_problem`].
#[must_use]
pub fn load(layers: &Layers) -> Loaded {
    let (sources, merged, mut diagnostics) = layer::read(layers, &top_level());
    let mut report = Report::new(&sources);
    let settings = read(&mut report, merged, &layers.env);
    diagnostics.append(&mut report.diagnostics);
    for diagnostic in diagnostics
        .iter_mut()
        .filter(|d| d.location.is_none() && !d.path.is_empty())
    {
        diagnostic.location = sources.location(&KeyPath::parse(&diagnostic.path));
    }
    let failed = diagnostics.iter().any(|d| d.severity == Severity::Error);
    let zenoh = settings.zenoh.clone();
    Loaded {
        settings: (!failed).then_some(settings),
        zenoh,
        diagnostics,
        sources,
    }
}

fn read(report: &mut Report<'_>, merged: Value, env: &[(String, String)]) -> Settings {
    let mut zenoh = match merged {
        Value::Object(map) => map,
        // Every layer is an object, and merging makes no other thing of them.
        _ => Map::new(),
    };
    check_top_level(report, &zenoh);
    zenoh.remove("$schema");
    check_manager(report, &mut zenoh);
    let ours: Map<String, Value> = OUR_FIELDS
        .iter()
        .filter_map(|field| Some((field.name.to_owned(), zenoh.remove(field.name)?)))
        .collect();
    let ours = Value::Object(ours);
    let table = Table::open_any(report, KeyPath::default(), &ours);
    let data_dir = table
        .as_ref()
        .and_then(|table| table.string(report, "data_dir"));
    let data_dir = PathBuf::from(data_dir.unwrap_or("./weir-data"));
    let http = ours.get("http").and_then(|value| read_http(report, value));
    check_plugins(report, &zenoh);
    put_rest(report, ours.get("rest"), &mut zenoh);

    let volumes = volume::read_volumes(report, ours.get("volumes"), &data_dir);
    let roots = Roots::new(data_dir.clone(), env);
    let storages = ours.get("storages");
    let table = storages.and_then(|all| Table::open_any(report, KeyPath::parse("storages"), all));
    let storages: BTreeMap<String, StorageSettings> = table
        .iter()
        .flat_map(Table::iter)
        .filter_map(|(name, value)| {
            let stock = report.sources.is_zenohd_storage(name);
            let form = if stock { Form::Zenohd } else { Form::Weir };
            let around = Surroundings {
                volumes: &volumes,
                roots: &roots,
                form,
            };
            Some((
                name.to_owned(),
                storage::read_storage(report, name, value, &around)?,
            ))
        })
        .collect();
    report
        .diagnostics
        .extend(directories::check_written(storages.values()));
    let shard_groups = group::read_groups(report, ours.get("shard_groups"));
    group::check_groups(report, &shard_groups, &storages);

    let zenoh = Value::Object(zenoh);
    let mut settings = Settings {
        effective: Value::Null,
        zenoh,
        data_dir,
        http,
        volumes,
        storages,
        shard_groups,
        roots,
    };
    settings.effective = settings.to_json();
    settings
}

fn check_top_level(report: &mut Report<'_>, merged: &Map<String, Value>) {
    let known = top_level();
    for name in merged.keys().filter(|name| !known.contains(&name.as_str())) {
        let path = KeyPath::from_iter([name]);
        report.unknown_field(&path, "the configuration", known.iter().copied());
    }
}

/// Takes what is left of `plugins.storage_manager` out of Zenoh's part: its storages and volumes
/// have moved to ours.
fn check_manager(report: &mut Report<'_>, zenoh: &mut Map<String, Value>) {
    let Some(Value::Object(plugins)) = zenoh.get_mut("plugins") else {
        return;
    };
    let Some(manager) = plugins
        .remove("storage_manager")
        .filter(|value| !value.is_null())
    else {
        return;
    };
    let path = KeyPath::parse("plugins/storage_manager");
    let place = "the storage manager";
    let Some(table) = Table::open(report, path, &manager, place, &[MANAGER_FIELDS]) else {
        return;
    };
    for (name, value) in table.iter() {
        let path = table.at(name);
        match name {
            "backend_search_dirs" | "__path__" | "__plugin__" => {
                let message = format!("`{name}` has no effect");
                report.ignored(&path, message, "backends are built in: remove it");
            }
            "volumes" | "storages" => report.wrong_type(&path, "an object", value),
            _ => {}
        }
    }
}

fn read_http(report: &mut Report<'_>, value: &Value) -> Option<HttpSettings> {
    let default = SocketAddr::from(([127, 0, 0, 1], HTTP_PORT_DEFAULT));
    let table = match value {
        Value::Null | Value::Bool(false) => return None,
        Value::Bool(true) => return Some(HttpSettings { listen: default }),
        value => Table::open(
            report,
            KeyPath::parse("http"),
            value,
            "`http`",
            &[HTTP_FIELDS],
        )?,
    };
    let listen = match table.get("listen") {
        None => Some(default),
        Some(Value::Number(port)) => port
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .map(|port| SocketAddr::from(([127, 0, 0, 1], port))),
        Some(Value::String(text)) => text.parse().ok().or_else(|| {
            Some(SocketAddr::from((
                [127, 0, 0, 1],
                text.parse::<u16>().ok()?,
            )))
        }),
        Some(other) => {
            report.wrong_type(&table.at("listen"), "an address and a port", other);
            return None;
        }
    };
    if listen.is_none() {
        let help = "write for example \"127.0.0.1:8001\", or a port alone";
        report.invalid(&table.at("listen"), "this is no address to listen on", help);
    }
    listen.map(|listen| HttpSettings { listen })
}

/// Puts `rest` where Zenoh's plugin reads it.
fn put_rest(report: &mut Report<'_>, rest: Option<&Value>, zenoh: &mut Map<String, Value>) {
    let rest = match rest {
        None | Some(Value::Null | Value::Bool(false)) => None,
        Some(Value::Bool(true)) => Some(json!({ "http_port": 8000 })),
        Some(rest) => {
            check_rest(report, rest);
            let mut rest = rest.clone();
            if let Value::Object(map) = &mut rest {
                // It was read already, as a layer.
                map.remove("__config__");
            }
            Some(rest)
        }
    };
    let plugins = zenoh.entry("plugins").or_insert_with(|| json!({}));
    if let Value::Object(plugins) = plugins {
        plugins.extend(rest.map(|rest| ("rest".to_owned(), rest)));
        if plugins.is_empty() {
            zenoh.remove("plugins");
        }
    }
}

fn check_rest(report: &mut Report<'_>, rest: &Value) {
    let path = KeyPath::parse("rest");
    let Some(table) = Table::open(report, path, rest, "`rest`", &[REST_FIELDS]) else {
        return;
    };
    let good = match table.get("http_port") {
        None => {
            let help = "add `http_port: 8000`, or \"127.0.0.1:8000\"";
            return report.missing(&table.path, "`rest` has no `http_port`", help);
        }
        Some(Value::Number(port)) => port
            .as_u64()
            .is_some_and(|port| u16::try_from(port).is_ok()),
        // The plugin splits at the first colon, and so knows no IPv6 addresses.
        Some(Value::String(text)) => {
            text.parse::<u16>().is_ok() || text.parse::<std::net::SocketAddrV4>().is_ok()
        }
        Some(other) => {
            return report.wrong_type(
                &table.at("http_port"),
                "a port, or an address and a port",
                other,
            );
        }
    };
    if !good {
        let help = "write a port, or an IPv4 address and a port: \"127.0.0.1:8000\"";
        report.invalid(
            &table.at("http_port"),
            "this is no address to listen on",
            help,
        );
    }
}

fn check_plugins(report: &mut Report<'_>, zenoh: &Map<String, Value>) {
    let Some(Value::Object(plugins)) = zenoh.get("plugins") else {
        return;
    };
    for name in plugins.keys() {
        let path = KeyPath::from_iter(["plugins", name]);
        let help = "built in are rest and storage_manager; others are not loaded";
        report.ignored(&path, format!("there is no plugin `{name}`"), help);
    }
}

/// A directory as it is in force: from the root, so that it means the same wherever it is read.
pub(crate) fn path_json(path: &std::path::Path) -> Value {
    json!(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
}

impl Settings {
    fn to_json(&self) -> Value {
        let mut all = match &self.zenoh {
            Value::Object(zenoh) => zenoh.clone(),
            _ => Map::new(),
        };
        let http = self.http.as_ref();
        all.insert(
            "http".into(),
            http.map_or(json!(false), |h| json!({ "listen": h.listen })),
        );
        all.insert("data_dir".into(), path_json(&self.data_dir));
        let declared = |volume: &&VolumeSettings| {
            volume.dir.is_some()
                || volume::BACKENDS
                    .iter()
                    .all(|(name, _)| *name != volume.name)
        };
        let volumes = self.volumes.values().filter(declared).map(|volume| {
            let mut json = json!({ "backend": volume.backend.name() });
            if let Some(dir) = &volume.dir {
                json["dir"] = path_json(dir);
            }
            (volume.name.clone(), json)
        });
        let volumes: Map<String, Value> = volumes.collect();
        let storages = self
            .storages
            .iter()
            .map(|(name, storage)| (name.clone(), storage.to_json()));
        let storages: Map<String, Value> = storages.collect();
        let groups = self.shard_groups.iter().map(|(name, patterns)| {
            let patterns: Vec<&str> = patterns.iter().map(|pattern| pattern.as_str()).collect();
            (name.clone(), json!(patterns))
        });
        let groups: Map<String, Value> = groups.collect();
        for (name, map) in [
            ("volumes", volumes),
            ("storages", storages),
            ("shard_groups", groups),
        ] {
            if !map.is_empty() {
                all.insert(name.into(), Value::Object(map));
            }
        }
        Value::Object(all)
    }
}

/// Reads a volume that is added at run time; relative directories lie below `data_dir`.
///
/// # Errors
/// Everything that is wrong with it. Paths start with `volumes/NAME`; there are no locations.
pub fn parse_volume(
    name: &str,
    value: &Value,
    roots: &Roots,
) -> Result<VolumeSettings, Vec<Diagnostic>> {
    let sources = Sources::default();
    let mut report = Report::new(&sources);
    let volume = volume::read_volume(&mut report, name, value, &roots.data_dir);
    verdict(volume, report)
}

/// Reads a storage that is added at run time, against the volumes that are there.
///
/// # Errors
/// Everything that is wrong with it. Paths start with `storages/NAME`; there are no locations.
/// Whether its directory is another storage's is for the caller to check.
pub fn parse_storage(
    name: &str,
    value: &Value,
    form: Form,
    volumes: &BTreeMap<String, VolumeSettings>,
    roots: &Roots,
) -> Result<StorageSettings, Vec<Diagnostic>> {
    let sources = Sources::default();
    let mut report = Report::new(&sources);
    let around = Surroundings {
        volumes,
        roots,
        form,
    };
    let mut value = value.clone();
    if let Value::Object(storage) = &mut value {
        canonical_storage(storage);
    }
    let storage = storage::read_storage(&mut report, name, &value, &around);
    verdict(storage, report)
}

fn verdict<T>(value: Option<T>, report: Report<'_>) -> Result<T, Vec<Diagnostic>> {
    let failed = report
        .diagnostics
        .iter()
        .any(|d| d.severity == Severity::Error);
    value.filter(|_| !failed).ok_or(report.diagnostics)
}
