//! Volumes: an engine and a place that storages share.

use crate::diagnostic::Diagnostic;
use crate::influx::{InfluxVersion, Part, SERVER_FIELDS};
use crate::path::KeyPath;
use crate::source::Spot;
use crate::table::{Field, Report, Table, did_you_mean, field};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A kind of storage engine that is built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Backend {
    /// Memory: gone with the process.
    Memory,
    /// One file a key.
    Filesystem,
    /// A RocksDB database.
    RocksDb,
    /// An InfluxDB server, and a RocksDB database for what it does not hold.
    InfluxDb,
}

impl Backend {
    /// The name that configuration knows it by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Filesystem => "filesystem",
            Self::RocksDb => "rocksdb",
            Self::InfluxDb => "influxdb",
        }
    }

    /// Whether it keeps its data in a directory.
    #[must_use]
    pub fn has_directory(self) -> bool {
        self != Self::Memory
    }
}

/// Every name of a backend; each is also a volume that exists without being declared.
pub(crate) const BACKENDS: [(&str, Backend); 6] = [
    ("memory", Backend::Memory),
    ("filesystem", Backend::Filesystem),
    ("fs", Backend::Filesystem),
    ("rocksdb", Backend::RocksDb),
    ("influxdb", Backend::InfluxDb),
    (INFLUXDB_2, Backend::InfluxDb),
];

/// The name that zenohd has for a server of 2.x.
const INFLUXDB_2: &str = "influxdb2";

/// Backends that are announced, or that Zenoh has, and that this version cannot run.
const BACKENDS_LATER: [&str; 2] = ["s3", "aws-s3"];

/// A declared volume, or one of those that need no declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSettings {
    /// The name that storages use.
    pub name: String,
    /// The engine.
    pub backend: Backend,
    /// The directory below which relative directories of its storages lie.
    pub dir: Option<PathBuf>,
    /// What it says of a server.
    pub(crate) server: Part,
}

pub(crate) const VOLUME_FIELDS: &[Field] = &[
    field(
        "backend",
        r#"{"enum":["memory","filesystem","fs","rocksdb","influxdb","influxdb2"]}"#,
        "The engine; the volume's own name if absent.",
    ),
    field(
        "dir",
        r#"{"type":"string"}"#,
        "The directory below which its storages lie; below `data_dir` if relative.",
    ),
    field("private", r#"{"type":"object"}"#, "Secrets; never shown."),
    field("__path__", "true", "Ignored: backends are built in."),
    field("__required__", "true", "Ignored: backends are built in."),
];

/// Where directories lie that are not absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// Where our own files lie.
    pub data_dir: PathBuf,
    /// Where storages of a backend lie, in any form, if `ZENOH_BACKEND_ROCKSDB_ROOT` or
    /// `ZENOH_BACKEND_FS_ROOT` says so and their volume has no directory.
    pub environment: BTreeMap<Backend, PathBuf>,
    /// Zenoh's home directory: `ZENOH_HOME` or `~/.zenoh`.
    pub zenoh_home: PathBuf,
}

/// Whose rules a storage's configuration follows where they differ: the base of relative
/// directories, and whether a database is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Ours: below the volume's directory or `data_dir`; created.
    Weir,
    /// Those of zenohd's `plugins.storage_manager`: below the backend's root; created only with
    /// `create_db`.
    Zenohd,
}

impl Roots {
    pub(crate) fn new(data_dir: PathBuf, environment: &[(String, String)]) -> Self {
        let variable = |name: &str| {
            let found = environment
                .iter()
                .rfind(|(n, value)| n == name && !value.is_empty());
            found.map(|(_, value)| PathBuf::from(value))
        };
        let roots = [
            (Backend::RocksDb, "ZENOH_BACKEND_ROCKSDB_ROOT"),
            (Backend::Filesystem, "ZENOH_BACKEND_FS_ROOT"),
        ];
        let home = || variable("HOME").unwrap_or_default().join(".zenoh");
        Self {
            data_dir,
            environment: roots
                .into_iter()
                .filter_map(|(backend, name)| Some((backend, variable(name)?)))
                .collect(),
            zenoh_home: variable("ZENOH_HOME").unwrap_or_else(home),
        }
    }

    /// Where the directories of a volume's storages lie.
    pub(crate) fn of(&self, volume: &VolumeSettings, form: Form) -> PathBuf {
        let root = volume
            .dir
            .as_ref()
            .or_else(|| self.environment.get(&volume.backend));
        root.cloned()
            .unwrap_or_else(|| match (form, volume.backend) {
                (Form::Zenohd, Backend::RocksDb) => self.zenoh_home.join("zenoh_backend_rocksdb"),
                (Form::Zenohd, Backend::Filesystem) => self.zenoh_home.join("zenoh_backend_fs"),
                _ => self.data_dir.clone(),
            })
    }
}

pub(crate) fn read_volumes(
    report: &mut Report<'_>,
    value: Option<&Value>,
    data_dir: &Path,
) -> BTreeMap<String, VolumeSettings> {
    let mut volumes: BTreeMap<String, VolumeSettings> = BACKENDS
        .into_iter()
        .map(|(name, backend)| (name.to_owned(), built_in(name, backend)))
        .collect();
    let path = KeyPath::parse("volumes");
    let table = value.and_then(|value| Table::open_any(report, path, value));
    for (name, value) in table.iter().flat_map(Table::iter) {
        match read_volume(report, name, value, data_dir) {
            Some(volume) => volumes.insert(name.to_owned(), volume),
            // Its mistake is told once, here, and not again by every storage on it.
            None => volumes.insert(name.to_owned(), built_in(name, Backend::Memory)),
        };
    }
    volumes
}

fn built_in(name: &str, backend: Backend) -> VolumeSettings {
    VolumeSettings {
        name: name.to_owned(),
        backend,
        dir: None,
        server: server_of(name, Part::default()),
    }
}

/// What a volume on a backend of this name says of its server.
fn server_of(backend: &str, part: Part) -> Part {
    if backend == INFLUXDB_2 {
        part.default_version(InfluxVersion::Two)
    } else {
        part
    }
}

pub(crate) fn read_volume(
    report: &mut Report<'_>,
    name: &str,
    value: &Value,
    data_dir: &Path,
) -> Option<VolumeSettings> {
    let path = KeyPath::from_iter(["volumes", name]);
    check_name(report, &path, "volume");
    let any = Table::open_any(report, path.clone(), value)?;
    let word = match any.get("backend") {
        Some(_) => any.string(report, "backend")?,
        None => name,
    };
    let at = if any.get("backend").is_some() {
        any.at("backend")
    } else {
        path.clone()
    };
    // What the settings of an unknown backend may be called, nobody knows.
    let backend = find_backend(report, &at, word)?;
    let table = Table::open(
        report,
        path,
        value,
        &format!("volume `{name}`"),
        &[VOLUME_FIELDS, SERVER_FIELDS],
    )?;
    for field in ["__path__", "__required__"] {
        if table.get(field).is_some() {
            let message = format!("`{field}` has no effect");
            report.ignored(
                &table.at(field),
                message,
                "backends are built in: remove it",
            );
        }
    }
    let dir = table.string(report, "dir").map(|dir| data_dir.join(dir));
    let server = if backend == Backend::InfluxDb {
        server_of(word, Part::read(report, &table))
    } else {
        Part::has_no_effect(report, &table, backend.name());
        Part::default()
    };
    Some(VolumeSettings {
        name: name.to_owned(),
        backend,
        dir,
        server,
    })
}

fn find_backend(report: &mut Report<'_>, at: &KeyPath, word: &str) -> Option<Backend> {
    if let Some((_, backend)) = BACKENDS.iter().find(|(name, _)| *name == word) {
        return Some(*backend);
    }
    let spot = if at.last() == Some(word) {
        Spot::Key
    } else {
        Spot::Value
    };
    let names = BACKENDS.iter().map(|(name, _)| *name);
    let all = || "built in are memory, filesystem (or fs), rocksdb and influxdb".to_owned();
    let diagnostic = if BACKENDS_LATER.contains(&word) {
        not_yet(word)
    } else {
        let help = did_you_mean(word, names).unwrap_or_else(all);
        Diagnostic::error(
            "weir::unknown-backend",
            format!("there is no backend `{word}`"),
        )
        .help(help)
    };
    report.tell(at, spot, diagnostic);
    None
}

fn not_yet(backend: &str) -> Diagnostic {
    let message = format!("the `{backend}` backend is not built in yet");
    let help = "built in are memory, filesystem (or fs), rocksdb and influxdb";
    Diagnostic::error("weir::backend-not-built-in", message).help(help)
}

/// The volume that a storage names.
pub(crate) fn find_volume<'v>(
    report: &mut Report<'_>,
    at: &KeyPath,
    name: &str,
    volumes: &'v BTreeMap<String, VolumeSettings>,
) -> Option<&'v VolumeSettings> {
    let found = volumes.get(name);
    if found.is_none() {
        let diagnostic = if BACKENDS_LATER.contains(&name) {
            not_yet(name)
        } else {
            let help =
                did_you_mean(name, volumes.keys().map(String::as_str)).unwrap_or_else(|| {
                    format!("add `{name}` to `volumes`, or use memory, filesystem (fs), rocksdb or influxdb")
                });
            let message = format!("volume `{name}` is not declared");
            Diagnostic::error("weir::unknown-volume", message).help(help)
        };
        report.tell(at, Spot::Value, diagnostic);
    }
    found
}

/// Names of volumes and storages are chunks of admin keys, and of directories.
pub(crate) fn check_name(report: &mut Report<'_>, path: &KeyPath, what: &str) {
    let name = path.last().unwrap_or_default();
    let bad = name.is_empty() || name == "." || name == ".." || name.starts_with('@');
    if bad || name.contains(|c: char| "/*$?#\\".contains(c) || c.is_control()) {
        let message = format!("`{name}` cannot be the name of a {what}");
        let help = "a name is part of admin keys and paths: no `/ \\ * $ ? #`, no `@` in front";
        report.tell(
            path,
            Spot::Key,
            Diagnostic::error("weir::invalid-value", message).help(help),
        );
    }
}
