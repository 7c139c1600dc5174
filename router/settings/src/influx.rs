//! What is said of an InfluxDB server: in a volume, in a storage on it, or partly in each.

use crate::path::KeyPath;
use crate::table::{Field, Report, Table, field};
use serde_json::{Map, Value, json};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Which interface a server has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InfluxVersion {
    /// It is asked.
    #[default]
    Auto,
    /// 1.x.
    One,
    /// 2.x.
    Two,
    /// 3.x.
    Three,
}

/// The server and database of a storage's history.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct InfluxSettings {
    /// `http://HOST:PORT` or `https://...`.
    pub url: String,
    /// The database (1.x, 3.x) or bucket (2.x); `{name}` in it is the storage's name, and the
    /// shard's number if there are several.
    pub db: String,
    /// Name and password.
    pub login: Option<(String, String)>,
    /// Instead of a name and password (2.x, 3.x).
    pub token: Option<String>,
    /// The organisation (2.x).
    pub org: Option<String>,
    /// Certificates (PEM) of those who may vouch for the server.
    pub ca_file: Option<PathBuf>,
    /// Which interface it has.
    pub version: InfluxVersion,
    /// Whether numbers and members of JSON objects are fields of their own, too.
    pub typed: bool,
    /// Whether to make the database.
    pub create_db: bool,
    /// How long a database that is made keeps what it is given.
    pub retention: Option<Duration>,
    /// Whether the whole database goes when the storage is removed with its data.
    pub drop_db: bool,
    /// Bytes that may wait for the server.
    pub backlog_bytes_max: u64,
}

/// An hour of 5,000 samples a second, at 400 bytes each: longer than most servers are away.
const BACKLOG_BYTES_DEFAULT: u64 = 8 << 30;

/// What may be said in a volume and in a storage alike, beside `private`.
pub(crate) const SERVER_FIELDS: &[Field] = &[
    field(
        "url",
        r#"{"type":"string"}"#,
        "The server of a remote backend.",
    ),
    field(
        "db",
        r#"{"type":"string"}"#,
        "The database or bucket of a remote backend; `{name}` is the storage's name.",
    ),
    field(
        "username",
        r#"{"type":"string"}"#,
        "Who signs in there; better inside `private`.",
    ),
    field(
        "org",
        r#"{"type":"string"}"#,
        "The organisation there (InfluxDB 2.x).",
    ),
    field(
        "ca_file",
        r#"{"type":"string"}"#,
        "Certificates of those who may vouch for the server.",
    ),
    field(
        "version",
        r#"{"enum":["auto","1","2","3",1,2,3],"default":"auto"}"#,
        "The interface of an InfluxDB server.",
    ),
    field(
        "fields",
        r#"{"enum":["stock","typed"],"default":"stock"}"#,
        "Whether numbers and members of JSON objects are written as fields of their own, too.",
    ),
    field(
        "retention",
        r#"{"type":["number","string"]}"#,
        "How long a database made here keeps points: seconds, or \"30d\".",
    ),
    field(
        "backlog",
        r#"{"type":["integer","string"],"default":"8GiB"}"#,
        "The most that waits for the server.",
    ),
];

/// What `private` holds.
const PRIVATE_FIELDS: &[Field] = &[
    field("username", r#"{"type":"string"}"#, "Who signs in."),
    field("password", r#"{"type":"string"}"#, "With what."),
    field("token", r#"{"type":"string"}"#, "Instead of both."),
    field("org", r#"{"type":"string"}"#, "The organisation."),
    field("org_id", r#"{"type":"string"}"#, "Another name for `org`."),
];

/// What one place says of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    url: Option<String>,
    db: Option<String>,
    secrets: Secrets,
    org: Option<String>,
    ca_file: Option<PathBuf>,
    version: Option<InfluxVersion>,
    typed: Option<bool>,
    retention: Option<Duration>,
    backlog: Option<u64>,
}

/// Never shown.
#[derive(Clone, Default, PartialEq, Eq)]
struct Secrets {
    username: Option<String>,
    password: Option<String>,
    token: Option<String>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

impl fmt::Debug for InfluxSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InfluxSettings")
            .field("url", &self.url)
            .field("db", &self.db)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl InfluxSettings {
    /// What is shown: no secrets.
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let mut json = Map::new();
        json.insert("url".into(), json!(self.url));
        json.insert("db".into(), json!(self.db));
        if self.version != InfluxVersion::Auto {
            let version = match self.version {
                InfluxVersion::Auto => "auto",
                InfluxVersion::One => "1",
                InfluxVersion::Two => "2",
                InfluxVersion::Three => "3",
            };
            json.insert("version".into(), json!(version));
        }
        if self.typed {
            json.insert("fields".into(), json!("typed"));
        }
        json
    }
}

impl Part {
    /// Reads what is said in one object.
    pub(crate) fn read(report: &mut Report<'_>, table: &Table<'_>) -> Self {
        let private = table.get("private").and_then(|value| {
            Table::open(
                report,
                table.at("private"),
                value,
                "`private`",
                &[PRIVATE_FIELDS],
            )
        });
        let secret = |report: &mut Report<'_>, name: &str| {
            private
                .as_ref()
                .and_then(|private| private.string(report, name))
                .map(str::to_owned)
        };
        let text =
            |report: &mut Report<'_>, name: &str| table.string(report, name).map(str::to_owned);
        let url = text(report, "url");
        if let Some(url) = &url
            && !url.starts_with("http://")
            && !url.starts_with("https://")
        {
            let message = format!("`{url}` is no address of a server");
            report.invalid(&table.at("url"), message, "write `http://HOST:8086`");
        }
        Self {
            url,
            db: text(report, "db"),
            org: text(report, "org")
                .or_else(|| secret(report, "org"))
                .or_else(|| secret(report, "org_id")),
            ca_file: table.string(report, "ca_file").map(PathBuf::from),
            version: read_version(report, table),
            typed: table.choice(report, "fields", &[("stock", false), ("typed", true)]),
            retention: table.duration(report, "retention"),
            backlog: table.bytes(report, "backlog"),
            secrets: Secrets {
                username: text(report, "username").or_else(|| secret(report, "username")),
                password: secret(report, "password"),
                token: secret(report, "token"),
            },
        }
    }

    /// Tells what is said of a server where there is none.
    pub(crate) fn has_no_effect(report: &mut Report<'_>, table: &Table<'_>, backend: &str) {
        for field in SERVER_FIELDS {
            if table.get(field.name).is_some() {
                let message = format!("`{}` has no effect here", field.name);
                let help = format!("the {backend} backend has no server: remove it");
                report.ignored(&table.at(field.name), message, &help);
            }
        }
    }

    /// A shard's word over its storage's, or a storage's over its volume's.
    #[must_use]
    pub(crate) fn or(self, below: &Self) -> Self {
        // A name and its password come from one place.
        let has_secrets = self.secrets != Secrets::default();
        Self {
            url: self.url.or_else(|| below.url.clone()),
            db: self.db.or_else(|| below.db.clone()),
            secrets: if has_secrets {
                self.secrets
            } else {
                below.secrets.clone()
            },
            org: self.org.or_else(|| below.org.clone()),
            ca_file: self.ca_file.or_else(|| below.ca_file.clone()),
            version: self.version.or(below.version),
            typed: self.typed.or(below.typed),
            retention: self.retention.or(below.retention),
            backlog: self.backlog.or(below.backlog),
        }
    }

    /// All that was said, with defaults for the rest.
    ///
    /// `None`, and the report says why, if there is no server.
    pub(crate) fn finish(
        self,
        report: &mut Report<'_>,
        path: &KeyPath,
        create_db: bool,
        drop_db: bool,
    ) -> Option<InfluxSettings> {
        let Some(url) = self.url else {
            let message = "no `url` says where the InfluxDB server is";
            report.missing(
                path,
                message,
                "add `url: \"http://localhost:8086\"`, here or in the volume",
            );
            return None;
        };
        let login = match (self.secrets.username, self.secrets.password) {
            (Some(username), Some(password)) => Some((username, password)),
            (None, None) => None,
            _ => {
                let message = "a user name without a password, or the other way round";
                report.invalid(path, message, "put both into `private`");
                None
            }
        };
        Some(InfluxSettings {
            url,
            db: self.db.unwrap_or_else(|| "{name}".to_owned()),
            login,
            token: self.secrets.token,
            org: self.org,
            ca_file: self.ca_file,
            version: self.version.unwrap_or_default(),
            typed: self.typed.unwrap_or_default(),
            create_db,
            retention: self.retention,
            drop_db,
            backlog_bytes_max: self.backlog.unwrap_or(BACKLOG_BYTES_DEFAULT),
        })
    }

    /// The volume kind of zenohd that speaks to 2.x alone.
    pub(crate) fn default_version(mut self, version: InfluxVersion) -> Self {
        self.version = self.version.or(Some(version));
        self
    }
}

/// `1` and `"1"` alike.
fn read_version(report: &mut Report<'_>, table: &Table<'_>) -> Option<InfluxVersion> {
    let read = |value: &Value| {
        let word = value.as_i64().map(|number| number.to_string());
        match word.as_deref().or_else(|| value.as_str())? {
            "auto" => Some(InfluxVersion::Auto),
            "1" => Some(InfluxVersion::One),
            "2" => Some(InfluxVersion::Two),
            "3" => Some(InfluxVersion::Three),
            _ => None,
        }
    };
    table.read(report, "version", "\"auto\", 1, 2 or 3", read)
}
