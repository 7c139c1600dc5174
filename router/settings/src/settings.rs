//! The whole of the settings: Zenoh's part is passed on, ours is read.

use crate::diagnostic::{Diagnostic, Severity};
use crate::directories;
use crate::form::canonical_storage;
use crate::forward::{self, ForwardSettings};
use crate::group::{self, ShardGroups};
use crate::layer::{self, Layers};
use crate::path::KeyPath;
use crate::plugins::{ZENOH_FIELDS, check_manager, check_plugins};
use crate::policy::{self, PolicySettings};
use crate::servers::{HttpSettings, put_rest, read_http};
use crate::source::Sources;
use crate::storage::{self, StorageSettings, Surroundings};
use crate::table::{Field, Report, Table, field};
use crate::volume::{self, Form, Roots, VolumeSettings};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
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
    /// The links by name: what is stored and forwarded.
    pub forward: BTreeMap<String, ForwardSettings>,
    /// What is said of policies; `None` if nothing is, and no storage or link names one.
    pub policies: Option<PolicySettings>,
    /// Where relative directories lie; for [`parse_storage`].
    pub roots: Roots,
    /// Everything in force, in our form, with the defaults of storages filled in.
    pub effective: Value,
}

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
    field(
        "forward",
        r#"{"type":"object"}"#,
        "Store-and-forward: links to storages of other routers, by name.",
    ),
    field(
        "policies",
        r#"{"type":"object"}"#,
        "WebAssembly modules that decide: where they lie, who signs them, what they may use.",
    ),
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
    take_unknown(report, &mut zenoh);
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
    let forward = forward::read_links(report, ours.get("forward"), &data_dir);
    report
        .diagnostics
        .extend(directories::check_written(&storages, &forward, &data_dir));
    let shard_groups = group::read_groups(report, ours.get("shard_groups"));
    group::check_groups(report, &shard_groups, &storages);
    let bound = storages
        .values()
        .flat_map(|storage| storage.policies.iter().map(|(_, name)| name));
    let bound = bound.chain(
        forward
            .values()
            .filter_map(|link| link.prioritize.as_deref()),
    );
    let bound: Vec<&str> = bound.collect();
    let policies = policy::read_policies(report, ours.get("policies"), &data_dir, &bound);

    let zenoh = Value::Object(zenoh);
    let mut settings = Settings {
        effective: Value::Null,
        zenoh,
        data_dir,
        http,
        volumes,
        storages,
        shard_groups,
        forward,
        policies,
        roots,
    };
    settings.effective = settings.to_json();
    settings
}

/// Tells what nobody knows, and takes it out, so that Zenoh does not tell it again.
fn take_unknown(report: &mut Report<'_>, merged: &mut Map<String, Value>) {
    let known = top_level();
    merged.retain(|name, _| {
        let is_known = known.contains(&name.as_str());
        if !is_known {
            let path = KeyPath::from_iter([name]);
            report.unknown_field(&path, "the configuration", known.iter().copied());
        }
        is_known
    });
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
        let links = self.forward.iter();
        let links = links.map(|(name, link)| (name.clone(), link.to_json()));
        let links: Map<String, Value> = links.collect();
        for (name, map) in [
            ("volumes", volumes),
            ("storages", storages),
            ("shard_groups", groups),
            ("forward", links),
        ] {
            if !map.is_empty() {
                all.insert(name.into(), Value::Object(map));
            }
        }
        if let Some(policies) = &self.policies {
            all.insert("policies".into(), policies.to_json());
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
