//! What may be said of a storage.

use crate::table::{Field, field};

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
        "Whether to keep one version of a key, or all; latest, but all on influxdb.",
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
        "policies",
        r#"{"type":"object"}"#,
        "Which policies decide for it: `route` and `resolve`, by name.",
    ),
    field(
        "mirror",
        r#"{"type":["boolean","object"],"default":true}"#,
        "Whether, or with whom, it is kept the same as storages of other routers on its keys.",
    ),
    field(
        "replication",
        r#"{"type":"object"}"#,
        "Ignored: mirrors find each other; see `mirror`.",
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
        r#"{"enum":["do_nothing","destroy_db","delete_all","drop_db","drop_series"],"default":"do_nothing"}"#,
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
