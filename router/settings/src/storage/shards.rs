//! On which volumes and in which directories a storage keeps its data.

use super::{ENGINE_FIELDS, OnClosure, SHARD_BY_FIELDS, Surroundings, inner};
use crate::influx::{InfluxSettings, Part, SERVER_FIELDS};
use crate::path::KeyPath;
use crate::settings::path_json;
use crate::table::{Field, Report, Table, field};
use crate::volume::{Backend, Form, VolumeSettings, find_volume};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// One volume behind a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardSettings {
    /// What policies and the status call it: as given, or the last part of its directory, or its place
    /// in the list.
    pub name: String,
    /// Whether the name was given; then it stands for the shard wherever its data lies.
    pub is_named: bool,
    /// The volume's name.
    pub volume: String,
    /// The volume's engine.
    pub backend: Backend,
    /// Where the data lies; absent for engines without directory.
    pub dir: Option<PathBuf>,
    /// Its share of the keys, relative to the other shards; 1 by default.
    pub weight: u32,
    /// Whether to create what is not there.
    pub create_db: bool,
    /// Whether the filesystem backend follows symbolic links.
    pub follow_links: bool,
    /// Whether the filesystem backend names files after their encoding.
    pub keep_mime_types: bool,
    /// The server of the influxdb backend.
    pub influx: Option<InfluxSettings>,
}

impl ShardSettings {
    pub(super) fn to_json(&self) -> Map<String, Value> {
        let mut json = Map::new();
        if self.is_named {
            json.insert("name".into(), json!(self.name));
        }
        json.insert("volume".into(), json!(self.volume));
        if let Some(dir) = &self.dir {
            json.insert("dir".into(), path_json(dir));
            json.insert("create_db".into(), json!(self.create_db));
        }
        if self.weight != 1 {
            json.insert("weight".into(), json!(self.weight));
        }
        if self.backend == Backend::Filesystem {
            json.insert("follow_links".into(), json!(self.follow_links));
            json.insert("keep_mime_types".into(), json!(self.keep_mime_types));
        }
        if let Some(influx) = &self.influx {
            json.extend(influx.to_json());
        }
        json
    }
}

pub(crate) const VOLUME_ID_FIELDS: &[Field] =
    &[field("id", r#"{"type":"string"}"#, "The volume's name.")];

pub(crate) const SHARD_FIELDS: &[Field] = &[
    field(
        "name",
        r#"{"type":"string"}"#,
        "What policies call it; else the last part of its directory.",
    ),
    field("volume", r#"{"type":"string"}"#, "The volume's name."),
    field(
        "backend",
        r#"{"type":"string"}"#,
        "Another name for `volume`.",
    ),
    field(
        "weight",
        r#"{"type":"integer","minimum":1,"default":1}"#,
        "Its share of the keys.",
    ),
];

/// Where a storage keeps its data, and what holds for all of it.
pub(super) struct Engine {
    pub(super) shards: Vec<ShardSettings>,
    pub(super) read_only: bool,
    pub(super) on_closure: OnClosure,
}

pub(super) fn read_shards(
    report: &mut Report<'_>,
    name: &str,
    table: &Table<'_>,
    around: &Surroundings<'_>,
) -> Option<Engine> {
    let named = volume_field(report, table)?;
    if let Some(shards) = table.get("shards") {
        return read_several(report, name, table, shards, named, around);
    }
    let Some(named) = named else {
        let help = "add `volume: \"rocksdb\"`, or memory, filesystem, or a declared volume";
        report.missing(
            &table.path,
            format!("storage `{name}` has no `volume`"),
            help,
        );
        return None;
    };
    let id_path;
    let id = match table.get(named)? {
        Value::String(id) => {
            id_path = table.at(named);
            id.as_str()
        }
        object @ Value::Object(_) => {
            // The settings of the engine have moved beside it. What is left is unknown, or is
            // said in both places.
            let place = format!("`{named}` of storage `{name}`");
            let fields = &[VOLUME_ID_FIELDS, ENGINE_FIELDS, SERVER_FIELDS];
            let inside = Table::open(report, table.at(named), object, &place, fields)?;
            for (field, _) in inside
                .iter()
                .filter(|(field, _)| table.get(field).is_some())
            {
                let message = format!("`{field}` stands in `{named}` and beside it");
                report.conflict(&inside.at(field), message, "keep one of them");
            }
            if inside.get("id").is_none() {
                report.missing(
                    &inside.path,
                    format!("`{named}` has no `id`"),
                    "add `id: \"rocksdb\"`",
                );
            }
            id_path = inside.at("id");
            inside.string(report, "id")?
        }
        other => {
            report.wrong_type(&table.at(named), "a volume's name or an object", other);
            return None;
        }
    };
    let volume = find_volume(report, &id_path, id, around.volumes);
    let shard = read_shard(report, &[table], volume, name.as_ref(), around);
    let read_only = table.bool(report, "read_only").unwrap_or_default();
    let on_closure = read_on_closure(report, table);
    Some(Engine {
        shards: vec![shard?],
        read_only,
        on_closure,
    })
}

/// Which of its two names the volume goes by, if any. `Err` in the guise of `None` if by both.
#[expect(clippy::option_option, reason = "wrong, absent or present")]
fn volume_field(report: &mut Report<'_>, table: &Table<'_>) -> Option<Option<&'static str>> {
    match (table.get("volume"), table.get("backend")) {
        (Some(_), Some(_)) => {
            let message = "`volume` and `backend` are two names for one setting";
            report.conflict(&table.at("backend"), message, "keep one of them");
            None
        }
        (Some(_), None) => Some(Some("volume")),
        (None, Some(_)) => Some(Some("backend")),
        (None, None) => Some(None),
    }
}

fn read_several(
    report: &mut Report<'_>,
    name: &str,
    table: &Table<'_>,
    value: &Value,
    named: Option<&str>,
    around: &Surroundings<'_>,
) -> Option<Engine> {
    for field in named
        .into_iter()
        .chain(["dir"])
        .filter(|field| table.get(field).is_some())
    {
        let message = format!("`{field}` and `shards` exclude each other");
        report.conflict(&table.at(field), message, "say it in each shard");
    }
    let path = table.at("shards");
    let Value::Array(items) = value else {
        report.wrong_type(&path, "a list of shards", value);
        return None;
    };
    if items.is_empty() {
        report.invalid(
            &path,
            "no shards",
            "name at least one volume, or use `volume`",
        );
        return None;
    }
    let shards: Vec<Option<ShardSettings>> = items
        .iter()
        .enumerate()
        .map(|(index, item)| {
            let path = path.join(index.to_string());
            let place = format!("shard {index} of storage `{name}`");
            let item = Table::open(
                report,
                path,
                item,
                &place,
                &[SHARD_FIELDS, ENGINE_FIELDS, SERVER_FIELDS],
            )?;
            let Some(field) = volume_field(report, &item)? else {
                let message = format!("{place} has no `volume`");
                report.missing(&item.path, message, "add `volume: \"rocksdb\"`");
                return None;
            };
            let id = item.string(report, field)?;
            let volume = find_volume(report, &item.at(field), id, around.volumes);
            let default = PathBuf::from(name).join(index.to_string());
            read_shard(report, &[&item, table], volume, &default, around)
        })
        .collect();
    for (index, shard) in shards.iter().enumerate() {
        let Some(shard) = shard else { continue };
        let mut before = shards[..index].iter().flatten();
        if shard.is_named && before.any(|other| other.name == shard.name) {
            let at = path.join(index.to_string()).join("name");
            let message = format!("two shards of storage `{name}` are called `{}`", shard.name);
            report.conflict(
                &at,
                message,
                "policies tell shards apart by name: change one",
            );
        }
    }
    refuse_shared_databases(report, &path, &shards);
    let read_only = table.bool(report, "read_only").unwrap_or_default();
    let on_closure = read_on_closure(report, table);
    Some(Engine {
        shards: shards.into_iter().collect::<Option<_>>()?,
        read_only,
        on_closure,
    })
}

/// Each store reads all that is in its database.
fn refuse_shared_databases(
    report: &mut Report<'_>,
    path: &KeyPath,
    shards: &[Option<ShardSettings>],
) {
    let server = |shard: &ShardSettings| {
        let influx = shard.influx.as_ref()?;
        Some((influx.url.clone(), influx.db.clone())).filter(|(_, db)| !db.contains("{name}"))
    };
    let mut seen = Vec::new();
    for (index, shard) in shards.iter().enumerate() {
        let Some(server) = shard.as_ref().and_then(server) else {
            continue;
        };
        if seen.contains(&server) {
            let message = format!("two shards share the database `{}`", server.1);
            let help = "give each its own, or put `{name}` into `db`";
            report.conflict(&path.join(index.to_string()), message, help);
        }
        seen.push(server);
    }
}

/// Reads everything, and only then gives up for want of a volume.
fn read_shard(
    report: &mut Report<'_>,
    places: &[&Table<'_>],
    volume: Option<&VolumeSettings>,
    dir_default: &std::path::Path,
    around: &Surroundings<'_>,
) -> Option<ShardSettings> {
    // A storage's own `dir` is no shard's: several in one directory would be a mistake.
    let given = places[0]
        .string(report, "name")
        .filter(|_| places.len() > 1);
    let dir = places[0].string(report, "dir");
    let weight = places[0].integer(report, "weight", (1, 1 << 16));
    let create_db = first(report, places, "create_db", Table::bool);
    let follow_links = first(report, places, "follow_links", Table::bool);
    let keep_mime_types = first(report, places, "keep_mime_types", Table::bool);
    let volume = volume?;
    let create_influx = create_db.unwrap_or(around.form == Form::Weir);
    let influx = read_influx(report, places, volume, create_influx)?;
    let root = around.roots.of(volume, around.form);
    let dir = root.join(dir.map_or(dir_default, |dir| std::path::Path::new(dir)));
    // The stock filesystem backend always creates its directory.
    let create_default = around.form == Form::Weir || volume.backend == Backend::Filesystem;
    let last = dir
        .file_name()
        .map(|last| last.to_string_lossy().into_owned());
    Some(ShardSettings {
        name: given.map_or_else(|| last.unwrap_or_default(), str::to_owned),
        is_named: given.is_some(),
        volume: volume.name.clone(),
        backend: volume.backend,
        dir: volume.backend.has_directory().then_some(dir),
        weight: weight
            .and_then(|weight| u32::try_from(weight).ok())
            .unwrap_or(1),
        create_db: create_db.unwrap_or(create_default),
        follow_links: follow_links.unwrap_or(false),
        keep_mime_types: keep_mime_types.unwrap_or(true),
        influx,
    })
}

/// The server of a shard that has one. The outer `None` is a mistake, and told.
#[expect(clippy::option_option, reason = "wrong, absent or present")]
fn read_influx(
    report: &mut Report<'_>,
    places: &[&Table<'_>],
    volume: &VolumeSettings,
    create_db: bool,
) -> Option<Option<InfluxSettings>> {
    if volume.backend != Backend::InfluxDb {
        Part::has_no_effect(report, places[0], volume.backend.name());
        return Some(None);
    }
    let own = Part::read(report, places[0]);
    let part = match places.get(1) {
        Some(storage) => {
            let storage = Part::read(report, storage);
            own.or(&storage)
        }
        None => own,
    };
    let storage = places.last().and_then(|table| table.get("on_closure"));
    let drops = storage.and_then(Value::as_str);
    let drop_db = matches!(drops, Some("drop_db" | "destroy_db"));
    let part = part.or(&volume.server);
    part.finish(report, &places[0].path, create_db, drop_db)
        .map(Some)
}

fn read_on_closure(report: &mut Report<'_>, table: &Table<'_>) -> OnClosure {
    let choices = [
        ("do_nothing", OnClosure::DoNothing),
        ("destroy_db", OnClosure::Destroy),
        ("delete_all", OnClosure::Destroy),
        ("drop_db", OnClosure::Destroy),
        ("drop_series", OnClosure::Destroy),
    ];
    table
        .choice(report, "on_closure", &choices)
        .unwrap_or_default()
}

/// A field of the first object that has it.
fn first<'v, T>(
    report: &mut Report<'_>,
    places: &[&Table<'v>],
    name: &str,
    read: impl Fn(&Table<'v>, &mut Report<'_>, &str) -> Option<T>,
) -> Option<T> {
    let place = places.iter().find(|place| place.get(name).is_some())?;
    read(place, report, name)
}

pub(super) fn read_shard_by(report: &mut Report<'_>, table: &Table<'_>) -> Option<i32> {
    let by = inner(report, table, "shard_by", SHARD_BY_FIELDS)?;
    let chunk: KeyPath = by.at("chunk");
    if by.get("chunk").is_none() {
        report.missing(
            &by.path,
            "`shard_by` has no `chunk`",
            "add `chunk: 0`, or another number",
        );
    }
    if table.get("shards").is_none() {
        let help = "it chooses between `shards`, of which there are none: remove it";
        report.ignored(&chunk, "`shard_by` has no effect here", help);
    }
    by.integer(report, "chunk", (i64::from(i16::MIN), i64::from(i16::MAX)))
        .and_then(|chunk| i32::try_from(chunk).ok())
}
