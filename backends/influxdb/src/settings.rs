//! What a volume is told.

use std::time::Duration;

/// Which server it is, and so which interface is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Generation {
    /// Ask the server.
    #[default]
    Auto,
    /// 1.x: `/write` and `/query`.
    One,
    /// 2.x: `/api/v2/write`, and `/query` through the mapping of buckets to databases.
    Two,
    /// 3.x: `/api/v3/write_lp` and `/query`; one table, the key is a tag.
    Three,
}

/// Which fields a point has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fields {
    /// Those of the stock backend.
    #[default]
    Stock,
    /// Numbers and the members of JSON objects as fields, too ([`crate`] says under which names).
    Typed,
}

/// What becomes of the server's side when a store is closed that is to be destroyed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Closure {
    /// Every series of the database goes; the database stays.
    #[default]
    DropSeries,
    /// The database goes.
    DropDatabase,
}

/// What a volume is told. [`InfluxSettings::new`] gives the rest its defaults.
#[derive(Clone, PartialEq, Eq)]
pub struct InfluxSettings {
    /// The server: `http://HOST:PORT` or `https://...`, with a path in front if there is one.
    pub url: String,
    /// The database (1.x, 3.x) or bucket (2.x). `{name}` stands for the store's name; two stores must
    /// not share one, since each reads all that is there.
    pub db: String,
    /// Name and password (1.x).
    pub login: Option<(String, String)>,
    /// Token (2.x, 3.x).
    pub token: Option<String>,
    /// Organisation (2.x).
    pub org: Option<String>,
    /// Certificates (PEM) of those who may vouch for the server; without any, the usual ones.
    pub ca_pem: Option<Vec<u8>>,
    /// Which interface is spoken.
    pub generation: Generation,
    /// Which fields a point has.
    pub fields: Fields,
    /// Make the database if it is not there.
    pub create_db: bool,
    /// How long a database that is made here keeps points; for ever without.
    pub retention: Option<Duration>,
    /// What becomes of the points when the store is destroyed.
    pub closure: Closure,
    /// How long one request may take.
    pub timeout: Duration,
    /// Bytes that may wait for the server; beyond, commits are refused as `Full`.
    pub backlog_bytes_max: u64,
    /// Points of one request.
    pub batch_points: usize,
    /// How long a request waits for more points.
    pub linger: Duration,
    /// How long a reader can hold back what was committed after its snapshot. Beyond, its snapshot
    /// may also show later versions, and miss what was forgotten meanwhile.
    pub snapshot_max: Duration,
}

impl InfluxSettings {
    /// Settings for a server and a database, the rest as is best for most.
    #[must_use]
    pub fn new(url: impl Into<String>, db: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            db: db.into(),
            login: None,
            token: None,
            org: None,
            ca_pem: None,
            generation: Generation::Auto,
            fields: Fields::Stock,
            create_db: false,
            retention: None,
            closure: Closure::DropSeries,
            timeout: Duration::from_secs(10),
            backlog_bytes_max: 8 << 30,
            // Measured on one connection to 1.6: 577 points/s one by one, 18,800 with 100 a request,
            // 53,000 with 1,000, 23,600 with 5,000.
            batch_points: 1_000,
            linger: Duration::from_millis(5),
            snapshot_max: Duration::from_secs(60),
        }
    }
}

/// Without password and token, so that no log holds them.
impl std::fmt::Debug for InfluxSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InfluxSettings")
            .field("url", &self.url)
            .field("db", &self.db)
            .field("generation", &self.generation)
            .field("fields", &self.fields)
            .finish_non_exhaustive()
    }
}
