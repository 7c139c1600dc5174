//! Policies: where their files lie, whom they have to be signed by, what they may use, and what they
//! are told.

use crate::diagnostic::Diagnostic;
use crate::path::KeyPath;
use crate::settings::path_json;
use crate::source::Spot;
use crate::storage::History;
use crate::table::{Field, Report, Table, did_you_mean, field};
use crate::units::duration_text;
use minisign_verify::PublicKey;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
pub use weir_core::slot::OnRemove;

/// Everything that is said of policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySettings {
    /// The watched directory; `./policies` by default.
    pub dir: PathBuf,
    /// How often it is looked at without an event; 2 s by default.
    pub poll: Duration,
    /// Whether events of the file system are listened to.
    pub events: bool,
    /// What becomes of files that nobody has signed.
    pub signatures: Signatures,
    /// Whose signatures count.
    pub keys: Vec<PolicyKey>,
    /// What serves when a file is removed.
    pub on_remove: OnRemove,
    /// Where compiled modules are kept; `policy-cache` below `data_dir` by default, nowhere if `None`.
    pub cache: Option<PathBuf>,
    /// The zone that policies are told; empty by default.
    pub zone: String,
    /// What policies may use.
    pub limits: PolicyLimits,
    /// Their own settings by name, as JSON with sorted keys: the same text on every router.
    pub settings: BTreeMap<String, String>,
}

/// What becomes of files that nobody has signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signatures {
    /// Signatures are not looked at.
    #[default]
    Off,
    /// They serve with a warning.
    Warn,
    /// They are refused.
    Require,
}

/// A minisign public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyKey {
    /// The file that it was read from; `None` if it stood in the settings.
    pub file: Option<PathBuf>,
    /// The key: the text of a `.pub` file, or its second line.
    pub text: String,
}

/// What policies may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyLimits {
    /// Bytes of memory of one instance; 64 MiB by default.
    pub memory: u64,
    /// CPU time of one batch in `route` and `prioritize`; 20 ms by default.
    pub cpu: Duration,
    /// Fuel of one call of `resolve`; 100 million units by default. The same on all routers that
    /// mirror each other.
    pub fuel: u64,
}

impl Default for PolicyLimits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            cpu: Duration::from_millis(20),
            fuel: 100_000_000,
        }
    }
}

/// Which policies decide for a storage, by name: `geo` is `geo.wasm`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoragePolicies {
    /// On which shard a sample is kept.
    pub route: Option<String>,
    /// What becomes of two versions that know nothing of each other.
    pub resolve: Option<String>,
}

impl StoragePolicies {
    /// Those that are named, with their hooks.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [("route", &self.route), ("resolve", &self.resolve)];
        all.into_iter()
            .filter_map(|(hook, name)| Some((hook, name.as_deref()?)))
    }

    /// Whether none is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    pub(crate) fn to_json(&self) -> Value {
        let all = self.iter();
        let all = all.map(|(hook, name)| (hook.to_owned(), json!(name)));
        Value::Object(all.collect())
    }
}

pub(crate) const POLICY_FIELDS: &[Field] = &[
    field(
        "dir",
        r#"{"type":"string","default":"./policies"}"#,
        "The watched directory: `NAME.wasm` in it is the policy `NAME`.",
    ),
    field(
        "poll",
        r#"{"type":["number","string"],"default":"2s"}"#,
        "How often to look at the directory without having been told; for file systems without events.",
    ),
    field(
        "events",
        r#"{"type":"boolean","default":true}"#,
        "Whether to listen to events of the file system.",
    ),
    field(
        "signatures",
        r#"{"enum":["off","warn","require"],"default":"off"}"#,
        "Whether policies have to be signed with minisign, as `NAME.wasm.minisig` beside them.",
    ),
    field(
        "keys",
        r#"{"type":["string","array"],"items":{"type":"string"}}"#,
        "Whose signatures count: minisign public keys, or the files that hold them.",
    ),
    field(
        "on_remove",
        r#"{"enum":["native","keep"],"default":"native"}"#,
        "What serves when a file is removed: the native rule, or what served last.",
    ),
    field(
        "cache",
        r#"{"type":["string","boolean"]}"#,
        "Where compiled policies are kept, or false; `policy-cache` below `data_dir` by default.",
    ),
    field(
        "zone",
        r#"{"type":"string","default":""}"#,
        "The router's zone, as policies are told.",
    ),
    field("limits", r#"{"type":"object"}"#, "What policies may use."),
    field(
        "settings",
        r#"{"type":"object","additionalProperties":{"type":"object"}}"#,
        "The policies' own settings, by name.",
    ),
];

pub(crate) const LIMIT_FIELDS: &[Field] = &[
    field(
        "memory",
        r#"{"type":["integer","string"],"default":"64MiB"}"#,
        "Memory of one instance.",
    ),
    field(
        "cpu",
        r#"{"type":["number","string"],"default":"20ms"}"#,
        "CPU time of one batch in `route` and `prioritize`.",
    ),
    field(
        "fuel",
        r#"{"type":"integer","minimum":1,"default":100000000}"#,
        "Fuel of one call of `resolve`, about one unit an instruction; the same on all mirrors.",
    ),
];

pub(crate) const STORAGE_POLICY_FIELDS: &[Field] = &[
    field(
        "route",
        r#"{"type":"string"}"#,
        "The policy that decides on which of several shards a sample is kept.",
    ),
    field(
        "resolve",
        r#"{"type":"string"}"#,
        "The policy that decides between two versions that know nothing of each other.",
    ),
];

/// `None` if nothing is said of policies and no storage or link names one: `bound` are those that are.
pub(crate) fn read_policies(
    report: &mut Report<'_>,
    value: Option<&Value>,
    data_dir: &Path,
    bound: &[&str],
) -> Option<PolicySettings> {
    let empty = Value::Object(Map::new());
    let value = match value.filter(|value| !value.is_null()) {
        Some(value) => value,
        None if !bound.is_empty() => &empty,
        None => return None,
    };
    let path = KeyPath::parse("policies");
    let table = Table::open(report, path, value, "`policies`", &[POLICY_FIELDS])?;
    let signatures = [
        ("off", Signatures::Off),
        ("warn", Signatures::Warn),
        ("require", Signatures::Require),
    ];
    let on_remove = [("native", OnRemove::Native), ("keep", OnRemove::Keep)];
    let mode = table.choice(report, "signatures", &signatures);
    // What a word that is none should have been decides what else is wrong.
    let is_known = mode.is_some() || table.get("signatures").is_none();
    let signatures = mode.unwrap_or_default();
    let dir = table.string(report, "dir").unwrap_or("./policies");
    Some(PolicySettings {
        dir: dir.into(),
        poll: read_span(report, &table, "poll", (POLL_MIN, DAY)).unwrap_or(POLL_DEFAULT),
        events: table.bool(report, "events").unwrap_or(true),
        keys: read_keys(report, &table, is_known.then_some(signatures)),
        signatures,
        on_remove: table
            .choice(report, "on_remove", &on_remove)
            .unwrap_or_default(),
        cache: read_cache(report, &table, data_dir),
        zone: table.string(report, "zone").unwrap_or_default().to_owned(),
        limits: read_limits(report, &table),
        settings: read_own(report, &table, bound),
    })
}

const POLL_DEFAULT: Duration = Duration::from_secs(2);
/// Listing a directory costs some ten microseconds: a hundred times a second is already a waste.
const POLL_MIN: Duration = Duration::from_millis(10);
const DAY: Duration = Duration::from_secs(86_400);
/// A running call is looked at every 2 ms; less cannot be told apart.
const CPU_MIN: Duration = Duration::from_millis(2);
/// A batch holds up its storage for as long as it is decided.
const CPU_MAX: Duration = Duration::from_secs(10);
/// A page of WebAssembly, and all that 32 bits can address.
const MEMORY_MIN: u64 = 64 << 10;
const MEMORY_MAX: u64 = 4 << 30;

pub(crate) fn read_span(
    report: &mut Report<'_>,
    table: &Table<'_>,
    name: &str,
    (low, high): (Duration, Duration),
) -> Option<Duration> {
    let span = table.duration(report, name)?;
    if (low..=high).contains(&span) {
        return Some(span);
    }
    let (low, high) = (duration_text(low), duration_text(high));
    let help = format!("write a duration from \"{low}\" to \"{high}\"");
    report.invalid(&table.at(name), "this is out of range", &help);
    None
}

fn read_cache(report: &mut Report<'_>, table: &Table<'_>, data_dir: &Path) -> Option<PathBuf> {
    let default = || Some(data_dir.join("policy-cache"));
    match table.get("cache") {
        None | Some(Value::Bool(true)) => default(),
        Some(Value::Bool(false)) => None,
        Some(Value::String(dir)) => Some(data_dir.join(dir)),
        Some(other) => {
            report.wrong_type(&table.at("cache"), "a directory or false", other);
            default()
        }
    }
}

fn read_limits(report: &mut Report<'_>, table: &Table<'_>) -> PolicyLimits {
    let default = PolicyLimits::default();
    let Some(value) = table.get("limits") else {
        return default;
    };
    let path = table.at("limits");
    let Some(limits) = Table::open(
        report,
        path,
        value,
        "`limits` of `policies`",
        &[LIMIT_FIELDS],
    ) else {
        return default;
    };
    let memory = limits.bytes(report, "memory");
    if memory.is_some_and(|bytes| !(MEMORY_MIN..=MEMORY_MAX).contains(&bytes)) {
        let help = "write a size from \"64KiB\" to \"4GiB\"";
        report.invalid(&limits.at("memory"), "this is out of range", help);
    }
    PolicyLimits {
        memory: memory.unwrap_or(default.memory),
        cpu: read_span(report, &limits, "cpu", (CPU_MIN, CPU_MAX)).unwrap_or(default.cpu),
        fuel: limits
            .integer(report, "fuel", (1, i64::MAX))
            .map_or(default.fuel, i64::unsigned_abs),
    }
}

fn read_keys(
    report: &mut Report<'_>,
    table: &Table<'_>,
    signatures: Option<Signatures>,
) -> Vec<PolicyKey> {
    let path = table.at("keys");
    let written: Vec<(KeyPath, &Value)> = match table.get("keys") {
        None => Vec::new(),
        Some(Value::Array(all)) => {
            let all = all.iter().enumerate();
            all.map(|(index, value)| (path.join(index.to_string()), value))
                .collect()
        }
        Some(one) => vec![(path.clone(), one)],
    };
    if written.is_empty() {
        match signatures {
            Some(Signatures::Off) | None => {}
            Some(Signatures::Warn) => {
                let help = "add `keys` with the minisign public keys to trust";
                let at = table.at("signatures");
                report.ignored(&at, "without `keys` every policy is warned of", help);
            }
            Some(Signatures::Require) => {
                let help = "add `keys` with the minisign public keys to trust";
                let message = "`signatures: \"require\"` without `keys`: no policy could serve";
                report.missing(&table.at("signatures"), message, help);
            }
        }
    } else if signatures == Some(Signatures::Off) {
        let help = "set `signatures: \"require\"` to run only what is signed";
        report.ignored(&path, "`keys` has no effect: signatures are off", help);
    }
    let keys = written.into_iter();
    keys.filter_map(|(path, value)| read_key(report, &path, value))
        .collect()
}

fn read_key(report: &mut Report<'_>, path: &KeyPath, value: &Value) -> Option<PolicyKey> {
    let Some(text) = value.as_str() else {
        report.wrong_type(
            path,
            "a minisign public key or a file that holds one",
            value,
        );
        return None;
    };
    let help = "`minisign -G` writes one: `minisign.pub`";
    if PublicKey::from_base64(text.trim()).is_ok() {
        return Some(PolicyKey {
            file: None,
            text: text.trim().to_owned(),
        });
    }
    let tell = |report: &mut Report<'_>, message: String| {
        let diagnostic = Diagnostic::error("weir::unusable-key", message).help(help);
        report.tell(path, Spot::Value, diagnostic);
    };
    let key = match std::fs::read_to_string(text) {
        Ok(key) => key,
        Err(error) => {
            tell(
                report,
                format!("cannot read the key file `{text}`: {error}"),
            );
            return None;
        }
    };
    if let Err(error) = PublicKey::decode(&key) {
        let message = format!("`{text}` holds no minisign public key: {error}");
        tell(report, message);
        return None;
    }
    Some(PolicyKey {
        file: Some(text.into()),
        text: key,
    })
}

fn read_own(
    report: &mut Report<'_>,
    table: &Table<'_>,
    bound: &[&str],
) -> BTreeMap<String, String> {
    let path = table.at("settings");
    let own = table.get("settings");
    let own = own.and_then(|value| Table::open_any(report, path, value));
    let mut all = BTreeMap::new();
    for (name, value) in own.iter().flat_map(Table::iter) {
        let path = table.at("settings").join(name);
        check_policy_name(report, &path, Spot::Key, name);
        if !value.is_object() {
            report.wrong_type(&path, "an object", value);
            continue;
        }
        if !bound.contains(&name)
            && let Some(help) = did_you_mean(name, bound.iter().copied())
        {
            let message = format!("no storage or link names the policy `{name}`");
            let diagnostic = Diagnostic::warning("weir::unknown-policy", message).help(help);
            report.tell(&path, Spot::Key, diagnostic);
        }
        all.insert(name.to_owned(), sorted(value).to_string());
    }
    all
}

/// Replicas compare what their resolvers are told: the order in which it was written is no difference.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut fields: Vec<_> = map.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            let fields = fields.into_iter();
            Value::Object(
                fields
                    .map(|(name, value)| (name.clone(), sorted(value)))
                    .collect(),
            )
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        leaf => leaf.clone(),
    }
}

/// Which policies decide for a storage with so many shards and this history.
pub(crate) fn read_storage_policies(
    report: &mut Report<'_>,
    table: &Table<'_>,
    name: &str,
    shards: Option<usize>,
    history: History,
) -> StoragePolicies {
    let mut policies = StoragePolicies::default();
    let Some(Value::Object(written)) = table.get("policies") else {
        if let Some(other) = table.get("policies") {
            report.wrong_type(&table.at("policies"), "an object", other);
        }
        return policies;
    };
    let mut written = written.clone();
    let path = table.at("policies");
    if written.remove("prioritize").is_some() {
        let message = "`prioritize` orders what a link forwards, not what a storage keeps";
        let diagnostic = Diagnostic::error("weir::unknown-field", message);
        let help = "a storage has `route` and `resolve`";
        report.tell(&path.join("prioritize"), Spot::Key, diagnostic.help(help));
    }
    let value = Value::Object(written);
    let place = format!("`policies` of storage `{name}`");
    let Some(table) = Table::open(report, path, &value, &place, &[STORAGE_POLICY_FIELDS]) else {
        return policies;
    };
    for (hook, policy) in [
        ("route", &mut policies.route),
        ("resolve", &mut policies.resolve),
    ] {
        *policy = read_policy_name(report, &table, hook);
    }
    if policies.route.is_some() && shards.is_some_and(|shards| shards < 2) {
        let message = format!("storage `{name}` has one shard: there is nothing to route");
        let help = "give it several `shards`, or remove `route`";
        report.conflict(&table.at("route"), message, help);
    }
    if policies.resolve.is_some() && history == History::All {
        let message = "a storage that keeps all versions has no conflicts to resolve";
        let help = "set `history: \"latest\"`, or remove `resolve`";
        report.conflict(&table.at("resolve"), message, help);
    }
    policies
}

/// The policy that serves a hook.
pub(crate) fn read_policy_name(
    report: &mut Report<'_>,
    table: &Table<'_>,
    hook: &str,
) -> Option<String> {
    let text = table.string(report, hook)?;
    check_policy_name(report, &table.at(hook), Spot::Value, text);
    Some(text.to_owned())
}

/// A name is part of a file's name and of admin keys.
fn check_policy_name(report: &mut Report<'_>, path: &KeyPath, spot: Spot, name: &str) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_name = !name.is_empty() && name.len() <= 128 && !name.starts_with('.');
    if is_name && name.chars().all(allowed) {
        if let Some(stem) = name.strip_suffix(".wasm") {
            let help = format!("write `{stem}`");
            let message = format!("`{name}` would be the file `{name}.wasm`");
            let diagnostic = Diagnostic::warning("weir::invalid-value", message);
            report.tell(path, spot, diagnostic.help(help));
        }
        return;
    }
    let message = format!("`{name}` cannot be the name of a policy");
    let help = "`geo` is the file `geo.wasm`: letters, digits, `-`, `_` and `.`";
    let diagnostic = Diagnostic::error("weir::invalid-value", message).help(help);
    report.tell(path, spot, diagnostic);
}

impl PolicySettings {
    /// Everything in force, in our form.
    pub(crate) fn to_json(&self) -> Value {
        let keys = self.keys.iter().map(|key| match &key.file {
            Some(file) => path_json(file),
            None => json!(key.text),
        });
        let keys: Vec<Value> = keys.collect();
        let own = self.settings.iter().map(|(name, text)| {
            // It was written from a value by `read_own`.
            let value = serde_json::from_str(text).unwrap_or_default();
            (name.clone(), value)
        });
        let own: Map<String, Value> = own.collect();
        let mut json = json!({
            "dir": path_json(&self.dir),
            "poll": duration_text(self.poll),
            "events": self.events,
            "signatures": match self.signatures {
                Signatures::Off => "off",
                Signatures::Warn => "warn",
                Signatures::Require => "require",
            },
            "on_remove": match self.on_remove {
                OnRemove::Native => "native",
                OnRemove::Keep => "keep",
            },
            "cache": self.cache.as_deref().map_or(json!(false), path_json),
            "limits": {
                "memory": self.limits.memory,
                "cpu": duration_text(self.limits.cpu),
                "fuel": self.limits.fuel,
            },
        });
        if !keys.is_empty() {
            json["keys"] = json!(keys);
        }
        if !self.zone.is_empty() {
            json["zone"] = json!(self.zone);
        }
        if !own.is_empty() {
            json["settings"] = Value::Object(own);
        }
        json
    }
}
