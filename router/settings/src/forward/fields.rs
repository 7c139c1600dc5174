//! What may be said of a link.

use crate::table::{Field, field};

pub(crate) const FORWARD_FIELDS: &[Field] = &[
    field(
        "key_expr",
        r#"{"type":["string","array"],"items":{"type":"string"}}"#,
        "The keys to forward: one key pattern or several.",
    ),
    field(
        "exclude",
        r#"{"type":["string","array"],"items":{"type":"string"}}"#,
        "Key expressions to leave out.",
    ),
    field(
        "to",
        r#"{"type":["string","array"],"items":{"type":"string"},"default":"discover"}"#,
        "For whom: \"discover\" for all storages of other routers on its keys; or router ids, names of storages, ROUTER/STORAGE.",
    ),
    field(
        "dir",
        r#"{"type":"string"}"#,
        "The directory of its journal; below `data_dir` if relative.",
    ),
    field("budget", r#"{"type":"object"}"#, "How much may wait."),
    field(
        "on_full",
        r#"{"enum":["reject-new","drop-oldest","drop-lowest-lane","coalesce"],"default":"drop-oldest"}"#,
        "What becomes of samples when the budget is used up.",
    ),
    field(
        "lanes",
        r#"{"type":"array"}"#,
        "Which lane a sample takes, by its key: the first that matches; else by Zenoh's priority.",
    ),
    field(
        "order",
        r#"{"enum":["oldest-first","newest-first"],"default":"oldest-first"}"#,
        "In which order a lane is sent.",
    ),
    field(
        "rate",
        r#"{"type":["integer","string"]}"#,
        "The most bytes to send in a second, before they are packed.",
    ),
    field(
        "sync",
        r#"{"type":["number","string"],"default":"10ms"}"#,
        "When the journal is synced to the disk: \"always\", \"never\", or the longest time to wait.",
    ),
    field(
        "period",
        r#"{"type":["number","string"],"default":"2s"}"#,
        "Time between two certificates.",
    ),
    field(
        "timeout",
        r#"{"type":["number","string"],"default":"5s"}"#,
        "How long an upstream may take for an answer.",
    ),
    field(
        "keep",
        r#"{"type":["number","string"],"default":"10m"}"#,
        "How long certified samples are kept for an upstream that may be restored from a backup.",
    ),
    field(
        "policies",
        r#"{"type":"object"}"#,
        "Which policy decides for it: `prioritize`, by name.",
    ),
];

pub(crate) const BUDGET_FIELDS: &[Field] = &[
    field(
        "bytes",
        r#"{"type":["integer","string"],"default":"8GiB"}"#,
        "The most bytes on the disk.",
    ),
    field(
        "age",
        r#"{"type":["number","string"]}"#,
        "How long a sample may wait.",
    ),
];

pub(crate) const LANE_FIELDS: &[Field] = &[
    field(
        "key_expr",
        r#"{"type":["string","array"],"items":{"type":"string"}}"#,
        "The keys it is for: one key pattern or several.",
    ),
    field(
        "lane",
        r#"{"type":"integer","minimum":0,"maximum":7}"#,
        "The lane, 0 to 7: 0 leaves first; by Zenoh's priority if absent.",
    ),
    field(
        "expires",
        r#"{"type":["number","string"]}"#,
        "How old a sample may become before it is no longer worth sending.",
    ),
    field(
        "newest_only",
        r#"{"type":"boolean","default":false}"#,
        "Whether only the newest sample of a key is kept.",
    ),
];

pub(crate) const FORWARD_POLICY_FIELDS: &[Field] = &[field(
    "prioritize",
    r#"{"type":"string"}"#,
    "The policy that decides what leaves first, and what need not leave.",
)];
