//! The Zenoh seam: the one file that names `zenoh::Session`.
//!
//! [`Bus`] is what the rest of the crate sees of the network: subscribe, serve, ask, put, delete,
//! announce. Both sides of the program use it, the storages inside the router (on the router's own
//! runtime) and the client commands (on a connection of their own).
//!
//! Callbacks run on Zenoh's receive threads. They must hand over and return: one that waits for
//! something which needs the network to move (a `get`, for instance) stops the thread that would
//! have moved it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use zenoh::Session;
use zenoh::bytes::{Encoding, ZBytes};
use zenoh::cancellation::CancellationToken;
use zenoh::handlers::{FifoChannel, FifoChannelHandler};
use zenoh::qos::{CongestionControl, Priority};
use zenoh::query::{ConsolidationMode, Query, QueryTarget, Reply};
use zenoh::sample::Sample;
use zenoh::session::ZenohId;
use zenoh::time::Timestamp;

/// The endpoint a client tries when none is named: a router on this machine, on Zenoh's port.
pub const DEFAULT_ENDPOINT: &str = "tcp/127.0.0.1:7447";

/// A key that nobody serves, asked to learn that everything sent before it has arrived. It starts
/// with `@`, so that a storage on `**` does not answer.
const FENCE_KEY: &str = "@weir/fence";

/// How long a client waits for a transport to open. Zenoh's own limit is 10 s an endpoint and the
/// operating system's for a host that drops packets is minutes; a person waits this long.
const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// Replies or samples held between the receive thread and their reader. When it is full the receive
/// thread waits, and so does the sender: a slow reader costs no memory.
const HELD_MAX: usize = 1024;

/// What stopped an operation on the network.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Nobody listens at the endpoints, or what listens does not speak Zenoh (or refuses us).
    #[error("no router at {endpoints}: start one with `weir run`, or name one with -e")]
    NoRouter {
        /// The endpoints that were tried, separated by commas.
        endpoints: String,
        /// What Zenoh said.
        #[source]
        source: Reason,
    },
    /// The text is no endpoint such as `tcp/192.0.2.7:7447`.
    #[error("`{endpoint}` is not an endpoint: write one such as {DEFAULT_ENDPOINT}")]
    BadEndpoint {
        /// The text.
        endpoint: String,
        /// What Zenoh said.
        #[source]
        source: Reason,
    },
    /// The Zenoh configuration file cannot be used.
    #[error("cannot use the configuration file {}", path.display())]
    BadConfig {
        /// The file.
        path: PathBuf,
        /// What Zenoh said.
        #[source]
        source: Reason,
    },
    /// Any other refusal of Zenoh's.
    #[error("cannot {operation} {subject}")]
    Zenoh {
        /// What was tried, as a verb: `subscribe to`.
        operation: &'static str,
        /// On what: a key expression, an endpoint.
        subject: String,
        /// What Zenoh said.
        #[source]
        source: Reason,
    },
}

/// Zenoh's own error, as a cause.
#[derive(Debug)]
pub struct Reason(zenoh::Error);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Zenoh appends the place in its source (" at /path/file.rs:12."), of no use to an operator.
        let text = self.0.to_string();
        let end = text.find(" at /").unwrap_or(text.len());
        f.write_str(text[..end].trim_end())
    }
}

impl std::error::Error for Reason {}

impl BusError {
    fn zenoh(operation: &'static str, subject: impl fmt::Display, source: zenoh::Error) -> Self {
        Self::Zenoh {
            operation,
            subject: subject.to_string(),
            source: Reason(source),
        }
    }
}

/// Result of an operation on the network.
pub type Result<T> = std::result::Result<T, BusError>;

/// How a client connects.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    /// Endpoints to try in this order; when empty, those of `config`, else [`DEFAULT_ENDPOINT`].
    pub endpoints: Vec<String>,
    /// Whether to connect as `client` (the default) or as `peer`.
    pub mode: ClientMode,
    /// A Zenoh configuration file with what a connection may need: TLS, users, access.
    pub config: Option<PathBuf>,
}

/// A client's place in the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientMode {
    /// One connection to one router, which routes for it.
    #[default]
    Client,
    /// Connections to every peer and router that is named.
    Peer,
}

/// What a put carries besides key and payload.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// Encoding; Zenoh's default (`zenoh/bytes`) when absent.
    pub encoding: Option<Encoding>,
    /// Attachment.
    pub attachment: Option<ZBytes>,
    /// Event time; the first router stamps when absent.
    pub timestamp: Option<Timestamp>,
}

/// How a query is asked.
#[derive(Clone, Debug)]
pub struct GetOptions {
    /// Payload, with its encoding.
    pub payload: Option<(ZBytes, Option<Encoding>)>,
    /// Attachment.
    pub attachment: Option<ZBytes>,
    /// The query is over when this has passed, answered or not.
    pub timeout: Duration,
    /// Who is asked.
    pub target: QueryTarget,
    /// What is done with several answers for one key.
    pub consolidation: ConsolidationMode,
    /// How urgent it is; the answers are as urgent.
    pub priority: Priority,
}

impl Default for GetOptions {
    fn default() -> Self {
        Self {
            payload: None,
            attachment: None,
            timeout: Duration::from_secs(10),
            target: QueryTarget::BestMatching,
            consolidation: ConsolidationMode::Auto,
            priority: Priority::Data,
        }
    }
}

/// A connection to the network. Cloning copies a pointer; the connection closes with
/// [`Bus::close`] or with the last clone.
#[derive(Clone, Debug)]
pub struct Bus {
    session: Session,
}

impl Bus {
    /// Wraps a session made elsewhere: the router's own runtime makes one for its storages.
    pub fn from_session(session: Session) -> Self {
        Self { session }
    }

    /// A session inside a router that runs in this process.
    ///
    /// # Errors
    /// What Zenoh says.
    pub async fn inside(runtime: zenoh::internal::runtime::DynamicRuntime) -> Result<Self> {
        match zenoh::session::init(runtime).await {
            Ok(session) => Ok(Self::from_session(session)),
            Err(error) => Err(BusError::zenoh("open a session in", "the router", error)),
        }
    }

    /// Connects to a router. Tries each endpoint once, without scouting, and fails at once when
    /// all refuse; a host that swallows packets costs [`OPEN_LIMIT`].
    pub async fn open_client(options: ClientOptions) -> Result<Self> {
        let (config, endpoints) = options.into_zenoh()?;
        let opened = tokio::time::timeout(OPEN_LIMIT, async { zenoh::open(config).await }).await;
        let refused = match opened {
            Ok(Ok(session)) => return Ok(Self { session }),
            Ok(Err(refused)) => refused,
            Err(_) => format!("no answer within {} s", OPEN_LIMIT.as_secs()).into(),
        };
        Err(BusError::NoRouter {
            endpoints: endpoints.join(", "),
            source: Reason(refused),
        })
    }

    /// Our own Zenoh id.
    pub fn zid(&self) -> ZenohId {
        self.session.zid()
    }

    /// The routers that we are connected to.
    pub async fn routers(&self) -> Vec<ZenohId> {
        self.session.info().routers_zid().await.collect()
    }

    /// A timestamp of now with our id: from the session's HLC if it has one, else the wall clock.
    pub fn new_timestamp(&self) -> Timestamp {
        self.session.new_timestamp()
    }

    /// Receives every sample on `key_expr`, until the guard is dropped.
    pub async fn declare_subscriber(
        &self,
        key_expr: &str,
        callback: impl Fn(Sample) + Send + Sync + 'static,
    ) -> Result<Subscription> {
        self.session
            .declare_subscriber(key_expr)
            .callback(callback)
            .await
            .map(Subscription)
            .map_err(|source| BusError::zenoh("subscribe to", key_expr, source))
    }

    /// Streams every sample on `key_expr`, for a reader that is a task of its own. A slow reader
    /// holds up the receive thread: see [`HELD_MAX`].
    pub async fn subscribe(&self, key_expr: &str) -> Result<Samples> {
        self.session
            .declare_subscriber(key_expr)
            .with(FifoChannel::new(HELD_MAX))
            .await
            .map(Samples)
            .map_err(|source| BusError::zenoh("subscribe to", key_expr, source))
    }

    /// Answers queries on `key_expr`, until the guard is dropped. `complete` promises that the
    /// answers hold everything there is under `key_expr`, so that nobody else need be asked.
    pub async fn declare_queryable(
        &self,
        key_expr: &str,
        complete: bool,
        callback: impl Fn(Query) + Send + Sync + 'static,
    ) -> Result<Service> {
        self.session
            .declare_queryable(key_expr)
            .complete(complete)
            .callback(callback)
            .await
            .map(Service)
            .map_err(|source| BusError::zenoh("answer queries on", key_expr, source))
    }

    /// Shows on the network that we are here, until the guard is dropped or the connection breaks.
    pub async fn declare_liveliness(&self, key_expr: &str) -> Result<Liveliness> {
        self.session
            .liveliness()
            .declare_token(key_expr)
            .await
            .map(Liveliness)
            .map_err(|source| BusError::zenoh("declare liveliness on", key_expr, source))
    }

    /// Sees who is there on `key_expr`, those that are there already included: a put when one appears,
    /// a delete when one is gone. Until the guard is dropped.
    pub async fn watch_liveliness(
        &self,
        key_expr: &str,
        callback: impl Fn(Sample) + Send + Sync + 'static,
    ) -> Result<Subscription> {
        self.session
            .liveliness()
            .declare_subscriber(key_expr)
            .history(true)
            .callback(callback)
            .await
            .map(Subscription)
            .map_err(|source| BusError::zenoh("watch liveliness on", key_expr, source))
    }

    /// Asks `selector` and streams the replies as they arrive.
    pub async fn get(&self, selector: &str, options: GetOptions) -> Result<Replies> {
        let cancel = CancellationToken::default();
        let mut query = self
            .session
            .get(selector)
            .target(options.target)
            .consolidation(options.consolidation)
            .priority(options.priority)
            .congestion_control(CongestionControl::Block)
            .timeout(options.timeout)
            .attachment(options.attachment)
            .cancellation_token(cancel.clone());
        if let Some((payload, encoding)) = options.payload {
            query = query.payload(payload);
            if let Some(encoding) = encoding {
                query = query.encoding(encoding);
            }
        }
        let replies = query
            .with(FifoChannel::new(HELD_MAX))
            .await
            .map_err(|source| BusError::zenoh("query", selector, source))?;
        Ok(Replies {
            replies: Some(replies),
            cancel,
        })
    }

    /// Puts a value. Returns when Zenoh has taken it, not when anybody has received it: see
    /// [`Bus::flush`].
    pub async fn put(&self, key_expr: &str, payload: ZBytes, options: PutOptions) -> Result<()> {
        let mut put = self
            .session
            .put(key_expr, payload)
            .congestion_control(CongestionControl::Block)
            .timestamp(options.timestamp)
            .attachment(options.attachment);
        if let Some(encoding) = options.encoding {
            put = put.encoding(encoding);
        }
        put.await
            .map_err(|source| BusError::zenoh("put on", key_expr, source))
    }

    /// Deletes a key, or every key that a key expression matches. `encoding` does not apply.
    pub async fn delete(&self, key_expr: &str, options: PutOptions) -> Result<()> {
        self.session
            .delete(key_expr)
            .congestion_control(CongestionControl::Block)
            .timestamp(options.timestamp)
            .attachment(options.attachment)
            .await
            .map_err(|source| BusError::zenoh("delete", key_expr, source))
    }

    /// Waits until the router has handled everything that was sent before: one round trip in the
    /// same priority class, so on the same ordered queue. Gives up silently after `limit`, for it
    /// is a courtesy: a put is fire and forget.
    pub async fn flush(&self, limit: Duration) -> Result<()> {
        let options = GetOptions {
            timeout: limit,
            ..GetOptions::default()
        };
        let mut replies = self.get(FENCE_KEY, options).await?;
        while replies.next().await.is_some() {}
        Ok(())
    }

    /// Closes the connection. Guards made from it are void.
    pub async fn close(&self) -> Result<()> {
        self.session
            .close()
            .await
            .map_err(|source| BusError::zenoh("close", "the session", source))
    }
}

impl ClientOptions {
    /// The Zenoh configuration, and the endpoints that it tries.
    fn into_zenoh(self) -> Result<(zenoh::Config, Vec<String>)> {
        let mut config = match &self.config {
            None => zenoh::Config::default(),
            Some(path) => zenoh::Config::from_file(path).map_err(|e| BusError::BadConfig {
                path: path.clone(),
                source: Reason(e),
            })?,
        };
        let endpoints = if self.endpoints.is_empty() {
            configured_endpoints(&config).unwrap_or_else(|| vec![DEFAULT_ENDPOINT.to_owned()])
        } else {
            self.endpoints
        };
        for endpoint in &endpoints {
            if let Err(source) = endpoint.parse::<zenoh::config::EndPoint>() {
                let endpoint = endpoint.clone();
                return Err(BusError::BadEndpoint {
                    endpoint,
                    source: Reason(source),
                });
            }
        }
        let mode = match self.mode {
            ClientMode::Client => "client",
            ClientMode::Peer => "peer",
        };
        let settings = [
            ("mode", serde_json::json!(mode)),
            ("connect/endpoints", serde_json::json!(endpoints)),
            // Zero: each endpoint is tried once, and a refusal is told at once.
            ("connect/timeout_ms", serde_json::json!(0)),
            ("connect/exit_on_failure", serde_json::json!(true)),
            // A file made for a router also says where to listen; we must not take its place.
            ("listen/endpoints", serde_json::json!([])),
            ("scouting/multicast/enabled", serde_json::json!(false)),
        ];
        for (path, value) in settings {
            config
                .insert_json5(path, &value.to_string())
                .map_err(|source| BusError::zenoh("configure", path, source))?;
        }
        Ok((config, endpoints))
    }
}

/// The endpoints that a configuration names, if it names any.
fn configured_endpoints(config: &zenoh::Config) -> Option<Vec<String>> {
    let endpoints = serde_json::from_str(&config.get_json("connect/endpoints").ok()?).ok()?;
    match endpoints {
        serde_json::Value::Array(list) if !list.is_empty() => list
            .into_iter()
            .map(|endpoint| Some(endpoint.as_str()?.to_owned()))
            .collect(),
        _ => None,
    }
}

/// Guard of a subscriber: dropped, it undeclares.
#[derive(Debug)]
#[must_use = "dropping it undeclares the subscriber"]
pub struct Subscription(zenoh::pubsub::Subscriber<()>);

impl Subscription {
    /// Undeclares, and returns when no callback runs any more.
    pub async fn undeclare(self) -> Result<()> {
        let key_expr = self.0.key_expr().to_string();
        self.0
            .undeclare()
            .wait_callbacks()
            .await
            .map_err(|source| BusError::zenoh("unsubscribe from", key_expr, source))
    }
}

/// Guard of a queryable: dropped, it undeclares.
#[derive(Debug)]
#[must_use = "dropping it undeclares the queryable"]
pub struct Service(zenoh::query::Queryable<()>);

impl Service {
    /// Undeclares, and returns when no callback runs any more.
    pub async fn undeclare(self) -> Result<()> {
        let key_expr = self.0.key_expr().to_string();
        self.0
            .undeclare()
            .wait_callbacks()
            .await
            .map_err(|source| BusError::zenoh("stop answering on", key_expr, source))
    }
}

/// Guard of a liveliness token: dropped, it is gone from the network.
#[derive(Debug)]
#[must_use = "dropping it undeclares the token"]
pub struct Liveliness(
    #[expect(dead_code, reason = "held for its Drop")] zenoh::liveliness::LivelinessToken,
);

/// The samples of one subscription, in order of arrival. Dropped, it undeclares.
#[derive(Debug)]
#[must_use = "dropping it undeclares the subscriber"]
pub struct Samples(zenoh::pubsub::Subscriber<FifoChannelHandler<Sample>>);

impl Samples {
    /// The next sample, or `None` when the connection is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Sample> {
        self.0.recv_async().await.ok()
    }
}

/// The replies of one query, in order of arrival. Dropped, it cancels what is left of the query.
#[derive(Debug)]
pub struct Replies {
    /// Absent only while dropping.
    replies: Option<FifoChannelHandler<Reply>>,
    cancel: CancellationToken,
}

impl Replies {
    /// The next reply, or `None` when all who were asked are done or the time is over. Cancel safe.
    pub async fn next(&mut self) -> Option<Reply> {
        self.replies.as_ref()?.recv_async().await.ok()
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        // The receiver first: a receive thread that waits for room in it is let go, and the
        // cancellation, which waits for that thread, can end.
        drop(self.replies.take());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(self.cancel.cancel().into_future());
        }
    }
}
