//! Storages: which keys, on which volumes, under which rules.

mod fields;
mod json;
mod keys;
mod mirror;
mod shards;

use crate::influx::SERVER_FIELDS;
use crate::path::KeyPath;
use crate::policy::{StoragePolicies, read_storage_policies};
use crate::table::{Field, Report, Table};
use crate::volume::{Backend, Form, Roots, VolumeSettings, check_name};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use weir_core::pattern::KeySet;
use zenoh_keyexpr::OwnedKeyExpr;

pub(crate) use fields::{
    COLLECTION_FIELDS, ENGINE_FIELDS, QUEUE_FIELDS, RETAIN_FIELDS, SHARD_BY_FIELDS, SPOOL_FIELDS,
    STORAGE_FIELDS,
};
pub(crate) use keys::{read_keys, read_texts};
pub(crate) use mirror::MIRROR_FIELDS;
pub use mirror::{MirrorSettings, Peers};
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
    /// Which policies decide for it.
    pub policies: StoragePolicies,
    /// With whom it is kept the same; with nobody if `None`.
    pub mirror: Option<MirrorSettings>,
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
        &[STORAGE_FIELDS, ENGINE_FIELDS, SERVER_FIELDS],
    )?;

    let keys = keys::read_keys(report, &table, &place);
    let strip_prefix = keys::read_strip_prefix(report, &table, keys.as_ref());
    let engine = shards::read_shards(report, name, &table, around);
    let history = table.choice(
        report,
        "history",
        &[("latest", History::Latest), ("all", History::All)],
    );
    let history = history_of(report, &table, engine.as_ref(), history);
    if table.get("replication").is_some() {
        let help = "mirrors find each other by their key expressions and compare what they hold, so \
                    that intervals, hot and warm eras and delays are not needed; `mirror` narrows it";
        let message = "`replication` tunes nothing here";
        report.ignored(&table.at("replication"), message, help);
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
    let shards = engine.as_ref().map(|engine| engine.shards.len());
    let policies = read_storage_policies(report, &table, name, shards, history);
    let mirror = mirror::read_mirror(report, &table);

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
        policies,
        mirror,
    })
}

/// A time-series server keeps every version: that is its default, and all that it can.
fn history_of(
    report: &mut Report<'_>,
    table: &Table<'_>,
    engine: Option<&shards::Engine>,
    given: Option<History>,
) -> History {
    let is_series = |shard: &ShardSettings| shard.backend == Backend::InfluxDb;
    if !engine.is_some_and(|engine| engine.shards.iter().any(is_series)) {
        return given.unwrap_or_default();
    }
    if given == Some(History::Latest) {
        let message = "InfluxDB keeps every version of a key";
        let help =
            "remove `history`, or write `history: \"all\"`: a query gets the latest all the same";
        report.invalid(&table.at("history"), message, help);
    }
    History::All
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

pub(crate) fn inner<'v>(
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
