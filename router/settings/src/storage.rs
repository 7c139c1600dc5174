//! Storages: which keys, on which volumes, under which rules.

mod keys;
mod shards;

use crate::path::KeyPath;
use crate::settings::path_json;
use crate::table::{Field, Report, Table, field};
use crate::units::duration_text;
use crate::volume::{Form, Roots, VolumeSettings, check_name};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use weir_core::pattern::KeySet;
use zenoh_keyexpr::OwnedKeyExpr;

pub(crate) use keys::read_texts;
pub use shards::ShardSettings;
pub(crate) use shards::{SHARD_FIELDS, VOLUME_ID_FIELDS};
pub use weir_core::admission::History;

/// Everything that one storage is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageSettings {
    /// Its name: a chunk of admin keys, and of its default directory.
    pub name: String,
    /// The keys that it stores.
    pub keys: KeySet,
    /// The shard group that it belongs to.
    pub group: Option<String>,
    /// Where it stores them: one entry unless it is spread over several volumes.
    pub shards: Vec<ShardSettings>,
    /// Which chunk of the key decides on the shard, counted from 0, from the end if negative; the
    /// whole key if absent.
    pub shard_by: Option<i32>,
    /// What is cut off the front of keys before they are stored.
    pub strip_prefix: Option<OwnedKeyExpr>,
    /// Whether it claims to hold all that exists under its keys, so that one reply is enough.
    pub complete: bool,
    /// Whether it keeps one version of a key or all.
    pub history: History,
    /// How safe a change must be before it counts as stored.
    pub durability: Durability,
    /// What becomes of changes without timestamp.
    pub timestamps: Timestamps,
    /// How far ahead of this router's clock a timestamp may be; 500 ms by default.
    pub future_drift: Duration,
    /// What is dropped for age, size or number.
    pub retain: Retain,
    /// When what is needed no longer is collected.
    pub garbage_collection: GarbageCollection,
    /// Whether it only answers.
    pub read_only: bool,
    /// What becomes of the data when the storage is removed.
    pub on_closure: OnClosure,
    /// How many changes may wait to be stored; 16,384 by default.
    pub queue_changes: usize,
    /// Where changes wait while their volume cannot take them.
    pub spool: Spool,
}

/// How safe a change must be before it counts as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// With the operating system: survives the process.
    #[default]
    Written,
    /// On the disk: survives a loss of power.
    Synced,
}

/// What becomes of changes that come without timestamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timestamps {
    /// They are given one.
    #[default]
    Stamp,
    /// They are refused and counted.
    Reject,
}

/// What becomes of the data when a storage is removed at run time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnClosure {
    /// It stays.
    #[default]
    DoNothing,
    /// It is deleted.
    Destroy,
}

/// Limits on what is kept; whatever is absent has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retain {
    /// The oldest timestamp to keep, as an age.
    pub age: Option<Duration>,
    /// The most bytes to keep.
    pub bytes: Option<u64>,
    /// The most versions to keep of one key.
    pub versions: Option<u64>,
}

/// When metadata that is needed no longer is collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GarbageCollection {
    /// Time between two collections; 30 s by default.
    pub period: Duration,
    /// How long deletes and wildcard changes are remembered at least; 24 h by default.
    pub lifespan: Duration,
}

impl Default for GarbageCollection {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(30),
            lifespan: Duration::from_secs(86_400),
        }
    }
}

/// A durable queue on this router's own disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    /// Its directory; `spool/NAME` under `data_dir` by default.
    pub dir: PathBuf,
    /// The most bytes that it may hold; 1 GiB by default.
    pub bytes_max: u64,
}

// Half a second is Zenoh's own tolerance (uhlc's default), in front of which nothing is re-stamped.
const FUTURE_DRIFT_DEFAULT_MS: i64 = 500;
// At 100,000 changes a second, a sixth of a second of silence from the disk.
const QUEUE_CHANGES_DEFAULT: usize = 16_384;
const SPOOL_BYTES_DEFAULT: u64 = 1 << 30;

pub(crate) const STORAGE_FIELDS: &[Field] = &[
    field(
        "key_expr",
        r#"{"type":["string","array"],"items":{"type":"string"}}"#,
        "The keys to store: one key pattern or several.",
    ),
    field(
        "key_exprs",
        r#"{"type":["string","array"],"items":{"type":"string"}}"#,
        "Another name for `key_expr`.",
    ),
    field(
        "exclude",
        r#"{"type":["string","array"],"items":{"type":"string"}}"#,
        "Key expressions to leave out.",
    ),
    field(
        "group",
        r#"{"type":"string"}"#,
        "The shard group it belongs to; its members are checked for overlaps and gaps.",
    ),
    field(
        "volume",
        r#"{"type":["string","object"]}"#,
        "The volume to store on: a name, or an object with `id` and settings of the backend.",
    ),
    field(
        "backend",
        r#"{"type":["string","object"]}"#,
        "Another name for `volume`.",
    ),
    field(
        "shards",
        r#"{"type":"array"}"#,
        "Several volumes to spread the keys over.",
    ),
    field(
        "shard_by",
        r#"{"type":"object","properties":{"chunk":{"type":"integer"}}}"#,
        "Which chunk of the key decides on the shard (negative: from the end); else the whole key.",
    ),
    field(
        "strip_prefix",
        r#"{"type":"string"}"#,
        "What is cut off the front of keys before they are stored.",
    ),
    field(
        "complete",
        r#"{"enum":[true,false,"true","false"],"default":false}"#,
        "Whether it holds all that exists under its keys, so that one reply is enough.",
    ),
    field(
        "history",
        r#"{"enum":["latest","all"],"default":"latest"}"#,
        "Whether to keep one version of a key, or all.",
    ),
    field(
        "durability",
        r#"{"enum":["written","synced"],"default":"written"}"#,
        "What a change must survive to count as stored: the end of the process, or a power loss.",
    ),
    field(
        "timestamps",
        r#"{"enum":["stamp","reject"],"default":"stamp"}"#,
        "What becomes of changes without timestamp.",
    ),
    field(
        "future_drift_ms",
        r#"{"type":"integer","minimum":0,"default":500}"#,
        "How far ahead of the router's clock a timestamp may be, in milliseconds.",
    ),
    field("retain", r#"{"type":"object"}"#, "Limits on what is kept."),
    field(
        "garbage_collection",
        r#"{"type":"object"}"#,
        "When forgotten metadata is collected.",
    ),
    field(
        "queue",
        r#"{"type":"object"}"#,
        "How many changes may wait to be stored.",
    ),
    field(
        "spool",
        r#"{"type":"object"}"#,
        "Where changes wait while the volume cannot take them.",
    ),
    field(
        "replication",
        r#"{"type":"object"}"#,
        "Ignored: mirrors are to find each other.",
    ),
];

/// What may stand beside `volume`, or inside of it.
pub(crate) const ENGINE_FIELDS: &[Field] = &[
    field(
        "dir",
        r#"{"type":"string"}"#,
        "Its directory; below the volume's directory or `data_dir` if relative.",
    ),
    field(
        "create_db",
        r#"{"type":"boolean"}"#,
        "Whether to create what is not there; true, but false in zenohd's form.",
    ),
    field(
        "read_only",
        r#"{"type":"boolean","default":false}"#,
        "Whether it only answers.",
    ),
    field(
        "on_closure",
        r#"{"enum":["do_nothing","destroy_db","delete_all"],"default":"do_nothing"}"#,
        "What becomes of the data when the storage is removed.",
    ),
    field(
        "follow_links",
        r#"{"type":"boolean","default":false}"#,
        "Whether the filesystem backend follows symbolic links.",
    ),
    field(
        "keep_mime_types",
        r#"{"type":"boolean","default":true}"#,
        "Whether the filesystem backend names files after their encoding.",
    ),
    field("private", r#"{"type":"object"}"#, "Secrets; never shown."),
    field(
        "url",
        r#"{"type":"string"}"#,
        "The server of a remote backend.",
    ),
    field(
        "db",
        r#"{"type":"string"}"#,
        "The database of a remote backend.",
    ),
];

pub(crate) const RETAIN_FIELDS: &[Field] = &[
    field(
        "age",
        r#"{"type":["number","string"]}"#,
        "The oldest to keep: seconds, or \"7d\".",
    ),
    field(
        "bytes",
        r#"{"type":["integer","string"]}"#,
        "The most bytes to keep, or \"10GiB\".",
    ),
    field(
        "versions",
        r#"{"type":"integer","minimum":1}"#,
        "The most versions to keep of a key.",
    ),
];

pub(crate) const COLLECTION_FIELDS: &[Field] = &[
    field(
        "period",
        r#"{"type":["number","string"],"default":30}"#,
        "Seconds between two.",
    ),
    field(
        "lifespan",
        r#"{"type":["number","string"],"default":86400}"#,
        "Seconds for which deletes and wildcard changes are remembered.",
    ),
];

pub(crate) const QUEUE_FIELDS: &[Field] = &[field(
    "changes",
    r#"{"type":"integer","minimum":1,"default":16384}"#,
    "How many.",
)];

pub(crate) const SPOOL_FIELDS: &[Field] = &[
    field(
        "dir",
        r#"{"type":"string"}"#,
        "Its directory; below `data_dir` if relative.",
    ),
    field(
        "bytes",
        r#"{"type":["integer","string"],"default":"1GiB"}"#,
        "The most that it holds.",
    ),
];

pub(crate) const SHARD_BY_FIELDS: &[Field] = &[field(
    "chunk",
    r#"{"type":"integer"}"#,
    "Counted from 0, from the end if negative.",
)];

/// What a storage is read against.
pub(crate) struct Surroundings<'a> {
    pub(crate) volumes: &'a BTreeMap<String, VolumeSettings>,
    pub(crate) roots: &'a Roots,
    pub(crate) form: Form,
}

pub(crate) fn read_storage(
    report: &mut Report<'_>,
    name: &str,
    value: &Value,
    around: &Surroundings<'_>,
) -> Option<StorageSettings> {
    let path = KeyPath::from_iter(["storages", name]);
    check_name(report, &path, "storage");
    let place = format!("storage `{name}`");
    let table = Table::open(
        report,
        path,
        value,
        &place,
        &[STORAGE_FIELDS, ENGINE_FIELDS],
    )?;

    let keys = keys::read_keys(report, &table, name);
    let strip_prefix = keys::read_strip_prefix(report, &table, keys.as_ref());
    let engine = shards::read_shards(report, name, &table, around);
    let history = table
        .choice(
            report,
            "history",
            &[("latest", History::Latest), ("all", History::All)],
        )
        .unwrap_or_default();
    if table.get("replication").is_some() {
        let help = "mirrors will find each other by their key expressions, without settings";
        report.ignored(
            &table.at("replication"),
            "`replication` has no effect yet",
            help,
        );
    }
    let drift = table.integer(report, "future_drift_ms", (0, 86_400_000));
    let group = table.string(report, "group").map(str::to_owned);
    let shard_by = shards::read_shard_by(report, &table);
    let complete = read_complete(report, &table);
    let durability = [
        ("written", Durability::Written),
        ("synced", Durability::Synced),
    ];
    let durability = table
        .choice(report, "durability", &durability)
        .unwrap_or_default();
    let timestamps = [("stamp", Timestamps::Stamp), ("reject", Timestamps::Reject)];
    let timestamps = table
        .choice(report, "timestamps", &timestamps)
        .unwrap_or_default();
    let retain = read_retain(report, &table, history);
    let garbage_collection = read_collection(report, &table);
    let queue_changes = read_queue(report, &table);
    let spool = read_spool(report, &table, name, around.roots);

    // Only now, when every mistake was told, give up for want of the essential.
    let (keys, engine) = (keys?, engine?);
    Some(StorageSettings {
        name: name.to_owned(),
        keys,
        group,
        shards: engine.shards,
        shard_by,
        strip_prefix,
        complete,
        history,
        durability,
        timestamps,
        future_drift: Duration::from_millis(
            drift.unwrap_or(FUTURE_DRIFT_DEFAULT_MS).unsigned_abs(),
        ),
        retain,
        garbage_collection,
        read_only: engine.read_only,
        on_closure: engine.on_closure,
        queue_changes,
        spool,
    })
}

fn read_complete(report: &mut Report<'_>, table: &Table<'_>) -> bool {
    let read = |value: &Value| match value {
        Value::Bool(complete) => Some(*complete),
        Value::String(word) => word.parse().ok(),
        _ => None,
    };
    table
        .read(report, "complete", "true or false", read)
        .unwrap_or_default()
}

fn inner<'v>(
    report: &mut Report<'_>,
    table: &Table<'v>,
    name: &str,
    fields: &[Field],
) -> Option<Table<'v>> {
    let value = table.get(name)?;
    Table::open(
        report,
        table.at(name),
        value,
        &format!("`{name}`"),
        &[fields],
    )
}

fn read_retain(report: &mut Report<'_>, table: &Table<'_>, history: History) -> Retain {
    let Some(retain) = inner(report, table, "retain", RETAIN_FIELDS) else {
        return Retain::default();
    };
    let versions = retain
        .integer(report, "versions", (1, i64::MAX))
        .map(i64::unsigned_abs);
    if versions.is_some() && history == History::Latest {
        let help = "set `history: \"all\"` to keep more than the latest version of a key";
        report.ignored(
            &retain.at("versions"),
            "`versions` has no effect here",
            help,
        );
    }
    Retain {
        age: retain.duration(report, "age"),
        bytes: retain.bytes(report, "bytes"),
        versions,
    }
}

fn read_collection(report: &mut Report<'_>, table: &Table<'_>) -> GarbageCollection {
    let default = GarbageCollection::default();
    let Some(table) = inner(report, table, "garbage_collection", COLLECTION_FIELDS) else {
        return default;
    };
    GarbageCollection {
        period: table.duration(report, "period").unwrap_or(default.period),
        lifespan: table
            .duration(report, "lifespan")
            .unwrap_or(default.lifespan),
    }
}

fn read_queue(report: &mut Report<'_>, table: &Table<'_>) -> usize {
    inner(report, table, "queue", QUEUE_FIELDS)
        // Sixteen million changes of 64 bytes are more than a gigabyte of waiting.
        .and_then(|queue| queue.integer(report, "changes", (1, 1 << 24)))
        .and_then(|changes| usize::try_from(changes).ok())
        .unwrap_or(QUEUE_CHANGES_DEFAULT)
}

fn read_spool(report: &mut Report<'_>, table: &Table<'_>, name: &str, roots: &Roots) -> Spool {
    let spool = inner(report, table, "spool", SPOOL_FIELDS);
    let dir = spool.as_ref().and_then(|spool| spool.string(report, "dir"));
    let bytes = spool
        .as_ref()
        .and_then(|spool| spool.bytes(report, "bytes"));
    Spool {
        dir: match dir {
            Some(dir) => roots.data_dir.join(dir),
            None => roots.data_dir.join("spool").join(name),
        },
        bytes_max: bytes.unwrap_or(SPOOL_BYTES_DEFAULT),
    }
}

impl StorageSettings {
    /// Everything in force for this storage, in our form.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let patterns: Vec<&str> = self.keys.patterns.iter().map(|p| p.as_str()).collect();
        let mut json = json!({
            "key_expr": if let [one] = patterns[..] { json!(one) } else { json!(patterns) },
            "complete": self.complete,
            "history": match self.history { History::Latest => "latest", History::All => "all" },
            "durability": match self.durability {
                Durability::Written => "written",
                Durability::Synced => "synced",
            },
            "timestamps": match self.timestamps {
                Timestamps::Stamp => "stamp",
                Timestamps::Reject => "reject",
            },
            "future_drift_ms": u64::try_from(self.future_drift.as_millis()).unwrap_or(u64::MAX),
            "garbage_collection": {
                "period": duration_text(self.garbage_collection.period),
                "lifespan": duration_text(self.garbage_collection.lifespan),
            },
            "read_only": self.read_only,
            "on_closure": match self.on_closure {
                OnClosure::DoNothing => "do_nothing",
                OnClosure::Destroy => "destroy_db",
            },
            "queue": { "changes": self.queue_changes },
            "spool": { "dir": path_json(&self.spool.dir), "bytes": self.spool.bytes_max },
        });
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                json[name] = value;
            }
        };
        let exclude: Vec<&str> = self.keys.exclude.iter().map(|ke| ke.as_str()).collect();
        set("exclude", (!exclude.is_empty()).then(|| json!(exclude)));
        set("group", self.group.as_ref().map(|group| json!(group)));
        set(
            "strip_prefix",
            self.strip_prefix
                .as_ref()
                .map(|prefix| json!(prefix.as_str())),
        );
        set(
            "shard_by",
            self.shard_by.map(|chunk| json!({ "chunk": chunk })),
        );
        let Retain {
            age,
            bytes,
            versions,
        } = &self.retain;
        let retain = [
            ("age", age.map(|age| json!(duration_text(age)))),
            ("bytes", bytes.map(|bytes| json!(bytes))),
            ("versions", versions.map(|versions| json!(versions))),
        ];
        if retain.iter().any(|(_, limit)| limit.is_some()) {
            let retain = retain
                .into_iter()
                .filter_map(|(name, limit)| Some((name.to_owned(), limit?)));
            set("retain", Some(Value::Object(retain.collect())));
        }
        match &self.shards[..] {
            [one] => {
                for (name, value) in one.to_json() {
                    set(&name, Some(value));
                }
            }
            several => {
                set(
                    "shards",
                    Some(
                        several
                            .iter()
                            .map(|shard| Value::Object(shard.to_json()))
                            .collect(),
                    ),
                );
            }
        }
        json
    }
}
