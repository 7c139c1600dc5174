//! With whom a storage is kept the same.

use super::inner;
use crate::table::{Field, Report, Table, field};
use crate::units::duration_text;
use serde_json::{Value, json};
use std::time::Duration;

/// What may be said of a storage's mirrors.
pub(crate) const MIRROR_FIELDS: &[Field] = &[
    field(
        "from",
        r#"{"type":["string","array"],"items":{"type":"string"},"default":"*"}"#,
        "Whose changes it takes: router ids, names of storages, ROUTER/STORAGE, or \"*\" for all.",
    ),
    field(
        "to",
        r#"{"type":["string","array"],"items":{"type":"string"},"default":"*"}"#,
        "Who gets its changes: router ids, names of storages, ROUTER/STORAGE, or \"*\" for all.",
    ),
    field(
        "period",
        r#"{"type":["number","string"],"default":"10s"}"#,
        "Time between two comparisons with a mirror that nothing is heard of.",
    ),
    field(
        "timeout",
        r#"{"type":["number","string"],"default":"10s"}"#,
        "How long a mirror may take for an answer.",
    ),
];

/// With whom a storage is kept the same. By default: with every storage of another router whose key
/// expressions intersect its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorSettings {
    /// Whose changes it takes.
    pub from: Peers,
    /// Who gets its changes.
    pub to: Peers,
    /// Time between two comparisons with a mirror that nothing is heard of; 10 s by default.
    pub period: Duration,
    /// How long a mirror may take for an answer; 10 s by default.
    pub timeout: Duration,
}

/// Some of the storages of all routers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Peers {
    /// All of them.
    #[default]
    All,
    /// Those of these routers, those of these names, or those of these names on these routers:
    /// `ROUTER`, `STORAGE`, `ROUTER/STORAGE`. None if it is empty.
    Named(Vec<String>),
}

impl Default for MirrorSettings {
    fn default() -> Self {
        Self {
            from: Peers::All,
            to: Peers::All,
            // A probe of an idle mirror is some hundred bytes: ten of them are a kilobyte in 10 s.
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(10),
        }
    }
}

impl MirrorSettings {
    /// In our form: `true` if nothing is narrowed.
    #[must_use]
    pub fn to_json(&self) -> Value {
        if *self == Self::default() {
            return json!(true);
        }
        json!({
            "from": self.from.to_json(),
            "to": self.to.to_json(),
            "period": duration_text(self.period),
            "timeout": duration_text(self.timeout),
        })
    }
}

impl Peers {
    /// Whether the storage of a router (by its id) is among them.
    #[must_use]
    pub fn contains(&self, router: &str, storage: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.iter().any(|name| {
                name == storage
                    || name.eq_ignore_ascii_case(router)
                    || pair(name, router) == Some(storage)
            }),
        }
    }

    /// Whether a storage is among them by its router's id and not by its name alone: what it takes for
    /// two storages of one router to be mirrors.
    #[must_use]
    pub fn names_router(&self, router: &str, storage: &str) -> bool {
        match self {
            Self::All => false,
            Self::Named(names) => names.iter().any(|name| {
                name.eq_ignore_ascii_case(router) || pair(name, router) == Some(storage)
            }),
        }
    }

    /// As it is written: `"*"`, or a list.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::All => json!(["*"]),
            Self::Named(names) => json!(names),
        }
    }

    /// The inverse of [`Peers::to_json`]; `None` if it is nothing of the kind.
    #[must_use]
    pub fn from_json(value: &Value) -> Option<Self> {
        let texts = match value {
            Value::String(one) => vec![one.clone()],
            Value::Array(several) => several
                .iter()
                .map(|name| name.as_str().map(str::to_owned))
                .collect::<Option<_>>()?,
            _ => return None,
        };
        Some(match texts.iter().any(|name| name == "*") {
            true => Self::All,
            false => Self::Named(texts),
        })
    }
}

/// The storage of `ROUTER/STORAGE`, if this is the router.
fn pair<'n>(name: &'n str, router: &str) -> Option<&'n str> {
    let (first, storage) = name.split_once('/')?;
    first.eq_ignore_ascii_case(router).then_some(storage)
}

/// The settings, or nothing if the storage has no mirrors.
pub(super) fn read_mirror(report: &mut Report<'_>, table: &Table<'_>) -> Option<MirrorSettings> {
    let mut settings = MirrorSettings::default();
    match table.get("mirror") {
        None | Some(Value::Bool(true)) => return Some(settings),
        Some(Value::Bool(false)) => return None,
        Some(Value::Object(_)) => {}
        Some(other) => {
            report.wrong_type(&table.at("mirror"), "true, false or an object", other);
            return Some(settings);
        }
    }
    let Some(mirror) = inner(report, table, "mirror", MIRROR_FIELDS) else {
        return Some(settings);
    };
    for (name, peers) in [("from", &mut settings.from), ("to", &mut settings.to)] {
        let expected = "a router id, the name of a storage, or a list of them";
        if let Some(read) = mirror.read(report, name, expected, Peers::from_json) {
            *peers = read;
        }
    }
    let mut span = |name, default: Duration| {
        let span = mirror.duration(report, name).unwrap_or(default);
        // Shorter, and comparing would be all that two routers do.
        if span < Duration::from_millis(100) {
            let help = "write 100ms or more";
            report.invalid(&mirror.at(name), format!("`{name}` is too short"), help);
        }
        span
    };
    settings.period = span("period", settings.period);
    settings.timeout = span("timeout", settings.timeout);
    let nobody = Peers::Named(Vec::new());
    if settings.from == nobody && settings.to == nobody {
        let message = "it neither takes changes nor gives them";
        report.conflict(&mirror.path, message, "write `mirror: false`");
    }
    Some(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_named_by_its_router_its_name_or_both() {
        let rows: [(&[&str], [bool; 2]); 8] = [
            (&["*"], [true, false]),
            (&[], [false, false]),
            (&["demo"], [true, false]),
            (&["other"], [false, false]),
            (&["5A1F"], [true, true]),
            (&["5a1f/demo"], [true, true]),
            (&["5a1f/other"], [false, false]),
            (&["other", "5a"], [false, false]),
        ];
        for (names, expected) in rows {
            let peers = Peers::from_json(&json!(names)).unwrap();
            let found = [
                peers.contains("5a1f", "demo"),
                peers.names_router("5a1f", "demo"),
            ];
            assert_eq!(found, expected, "{names:?}");
            assert_eq!(Peers::from_json(&peers.to_json()), Some(peers));
        }
        assert_eq!(Peers::from_json(&json!("*")), Some(Peers::All));
        assert_eq!(Peers::from_json(&json!([1])), None);
        assert_eq!(Peers::from_json(&json!(true)), None);
    }
}
