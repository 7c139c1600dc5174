//! Links: which samples wait for which storages of other routers, where, and for how long.

mod fields;
mod json;
mod lanes;

use crate::path::KeyPath;
use crate::policy::{read_policy_name, read_span};
use crate::storage::{Peers, inner, read_keys};
use crate::table::{Report, Table};
use crate::volume::check_name;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use weir_core::pattern::KeySet;

pub(crate) use fields::{BUDGET_FIELDS, FORWARD_FIELDS, FORWARD_POLICY_FIELDS, LANE_FIELDS};
pub use lanes::LaneRule;
pub use weir_core::forward::Order;

/// Everything that one link is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardSettings {
    /// Its name: a chunk of admin keys, and of its default directory.
    pub name: String,
    /// The keys that it forwards.
    pub keys: KeySet,
    /// For which storages of other routers: all that intersect its keys (`discover`), or some of them.
    pub to: Peers,
    /// Where its journal lies; `forward/NAME` under `data_dir` by default.
    pub dir: PathBuf,
    /// How much may wait.
    pub budget: Budget,
    /// What becomes of samples when the budget is used up.
    pub on_full: OnFull,
    /// Which lane a sample takes; the first rule whose keys it has. By Zenoh's priority without one.
    pub lanes: Vec<LaneRule>,
    /// In which order a lane is sent.
    pub order: Order,
    /// The most bytes to send in a second, before they are packed; no limit if absent.
    pub rate: Option<u64>,
    /// When the journal is synced to the disk.
    pub sync: JournalSync,
    /// Time between two certificates; 2 s by default.
    pub period: Duration,
    /// How long an upstream may take for an answer; 5 s by default.
    pub timeout: Duration,
    /// How long what is certified is kept, so that an upstream that was restored from a backup can be
    /// given it again; 10 min by default.
    pub keep: Duration,
    /// The policy that decides on lane, expiry and coalescing: `policies.prioritize`.
    pub prioritize: Option<String>,
}

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The most bytes on the disk; 8 GiB by default.
    pub bytes: u64,
    /// How long a sample may wait; for ever if absent.
    pub age: Option<Duration>,
}

/// What becomes of samples when the budget is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// New ones are not kept.
    RejectNew,
    /// The oldest of all lanes make room.
    #[default]
    DropOldest,
    /// The oldest of the lowest lane that holds any make room.
    DropLowestLane,
    /// All but the newest of each key make room, and then the oldest.
    Coalesce,
}

/// When the journal is synced to the disk: what a loss of power may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalSync {
    /// After every batch.
    Always,
    /// At the latest so long after a sample was appended; 10 ms by default.
    Within(Duration),
    /// When the operating system does.
    Never,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            bytes: 8 << 30,
            age: None,
        }
    }
}

impl Default for JournalSync {
    fn default() -> Self {
        Self::Within(Duration::from_millis(10))
    }
}

const PERIOD_DEFAULT: Duration = Duration::from_secs(2);
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
const KEEP_DEFAULT: Duration = Duration::from_secs(600);
/// Shorter, and asking would be all that a link does.
const PERIOD_MIN: Duration = Duration::from_millis(100);
const DAY: Duration = Duration::from_secs(86_400);
/// A disk takes about as long for one sync.
const SYNC_MIN: Duration = Duration::from_millis(1);
const SYNC_MAX: Duration = Duration::from_secs(60);
/// A block of the journal has up to 64 KiB: less is not even that for every lane.
const BUDGET_MIN: u64 = 1 << 20;
/// A parcel that never leaves would be no link.
const RATE_MIN: u64 = 1 << 10;

pub(crate) fn read_links(
    report: &mut Report<'_>,
    value: Option<&Value>,
    data_dir: &Path,
) -> BTreeMap<String, ForwardSettings> {
    let value = value.filter(|value| !value.is_null());
    let table =
        value.and_then(|value| Table::open_any(report, KeyPath::from_iter(["forward"]), value));
    table
        .iter()
        .flat_map(Table::iter)
        .filter_map(|(name, value)| {
            Some((name.to_owned(), read_link(report, name, value, data_dir)?))
        })
        .collect()
}

fn read_link(
    report: &mut Report<'_>,
    name: &str,
    value: &Value,
    data_dir: &Path,
) -> Option<ForwardSettings> {
    let path = KeyPath::from_iter(["forward", name]);
    check_name(report, &path, "link");
    let place = format!("link `{name}`");
    if !value.is_object() {
        // A key expression alone has become an object by now.
        report.wrong_type(&path, "a key expression or an object", value);
        return None;
    }
    let table = Table::open(report, path, value, &place, &[FORWARD_FIELDS])?;

    let keys = read_keys(report, &table, &place);
    let to = read_to(report, &table);
    let dir = table.string(report, "dir").map(Path::new);
    let own = || Path::new("forward").join(name);
    let dir = data_dir.join(dir.map_or_else(own, Path::to_owned));
    let budget = read_budget(report, &table);
    let on_full = [
        ("reject-new", OnFull::RejectNew),
        ("drop-oldest", OnFull::DropOldest),
        ("drop-lowest-lane", OnFull::DropLowestLane),
        ("coalesce", OnFull::Coalesce),
    ];
    let order = [
        ("oldest-first", Order::OldestFirst),
        ("newest-first", Order::NewestFirst),
    ];
    let on_full = table.choice(report, "on_full", &on_full);
    let order = table.choice(report, "order", &order);
    let lanes = lanes::read_lanes(report, &table, name, keys.as_ref());
    let rate = table.bytes(report, "rate");
    if rate.is_some_and(|rate| rate < RATE_MIN) {
        let help = "write bytes a second, 1KiB or more, or leave it out";
        report.invalid(&table.at("rate"), "`rate` is too low", help);
    }
    let sync = read_sync(report, &table);
    let spans = [
        ("period", PERIOD_DEFAULT, (PERIOD_MIN, DAY)),
        ("timeout", TIMEOUT_DEFAULT, (PERIOD_MIN, DAY)),
        ("keep", KEEP_DEFAULT, (Duration::ZERO, Duration::MAX)),
    ];
    let [period, timeout, keep] = spans
        .map(|(name, default, bounds)| read_span(report, &table, name, bounds).unwrap_or(default));
    let prioritize = read_prioritize(report, &table, &place);

    // Only now, when every mistake was told, give up for want of the essential.
    Some(ForwardSettings {
        name: name.to_owned(),
        keys: keys?,
        to,
        dir,
        budget,
        on_full: on_full.unwrap_or_default(),
        lanes,
        order: order.unwrap_or_default(),
        rate,
        sync,
        period,
        timeout,
        keep,
        prioritize,
    })
}

/// `"discover"` is everybody that intersects.
fn read_to(report: &mut Report<'_>, table: &Table<'_>) -> Peers {
    let expected = "\"discover\", a router id, the name of a storage, or a list of them";
    let read = |value: &Value| match value.as_str() {
        Some("discover") => Some(Peers::All),
        _ => Peers::from_json(value),
    };
    let to = table.read(report, "to", expected, read).unwrap_or_default();
    if to == Peers::Named(Vec::new()) {
        let help = "name a storage or a router, write \"discover\", or remove the link";
        report.invalid(&table.at("to"), "it forwards to nobody", help);
    }
    to
}

fn read_budget(report: &mut Report<'_>, table: &Table<'_>) -> Budget {
    let default = Budget::default();
    let Some(budget) = inner(report, table, "budget", BUDGET_FIELDS) else {
        return default;
    };
    let bytes = budget.bytes(report, "bytes").unwrap_or(default.bytes);
    if bytes < BUDGET_MIN {
        let help = "write 1MiB or more";
        report.invalid(&budget.at("bytes"), "the budget is too small", help);
    }
    let age = budget.duration(report, "age");
    if age == Some(Duration::ZERO) {
        let help = "write how long a sample may wait, or leave it out";
        report.invalid(&budget.at("age"), "nothing could ever wait", help);
    }
    Budget { bytes, age }
}

fn read_sync(report: &mut Report<'_>, table: &Table<'_>) -> JournalSync {
    let word = match table.get("sync") {
        None => return JournalSync::default(),
        Some(value) => value.as_str().unwrap_or_default(),
    };
    match word {
        "always" => return JournalSync::Always,
        "never" => return JournalSync::Never,
        _ => {}
    }
    if word.starts_with(|c: char| c.is_ascii_alphabetic()) {
        let help = "write \"always\", \"never\", or the longest time to wait, such as \"10ms\"";
        report.invalid(&table.at("sync"), "this is no way to sync", help);
        return JournalSync::default();
    }
    read_span(report, table, "sync", (SYNC_MIN, SYNC_MAX))
        .map_or_else(JournalSync::default, JournalSync::Within)
}

fn read_prioritize(report: &mut Report<'_>, table: &Table<'_>, place: &str) -> Option<String> {
    let value = table.get("policies")?;
    let path = table.at("policies");
    let place = format!("`policies` of {place}");
    let table = Table::open(report, path, value, &place, &[FORWARD_POLICY_FIELDS])?;
    read_policy_name(report, &table, "prioritize")
}
