//! The routers that are compared and how each is started.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use zenoh::Session;

use crate::{client, dataset, process::Process, worker::Yardstick};

/// How long a router may take to start: the stock one opens a million keys in half a minute.
const START: Duration = Duration::from_secs(180);

/// How long it may take to stop; everything that it has accepted must be on disk by then.
const STOP: Duration = Duration::from_secs(60);

/// A router that can be measured.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A plain router of the same Zenoh build, with something trivial inside.
    Yardstick(Yardstick),
    /// Ours, with these storages.
    Weir(Storages),
    /// Ours, without storages, with a subscriber in it that only counts: the limit.
    Counting,
    /// The stock router with its storage manager and one storage.
    Stock(StockVolume),
}

/// The storages of our router.
#[derive(Clone, Debug)]
pub enum Storages {
    /// None: a router and nothing else.
    None,
    /// One on everything that is published here.
    One {
        backend: &'static str,
        durability: &'static str,
    },
    /// One on two shards in memory.
    Sharded(Placed),
    /// One in memory that mirrors that of the router at this endpoint.
    MirrorOf(String),
    /// One that keeps every sample, on RocksDB.
    Series,
    /// None, and a link to what is behind this endpoint.
    Forward(String),
    /// None, connected to this endpoint.
    Relay(String),
    /// This many, each on a prefix of its own.
    Many { backend: &'static str, count: usize },
}

/// What decides between two shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// The native rule.
    Natively,
    /// A policy that depends on the key alone, so that it is asked once for each key.
    ByKey,
    /// A policy that looks at every sample.
    BySample,
}

impl Placed {
    /// The policy's name, which is its module's too.
    const fn policy(self) -> Option<&'static str> {
        match self {
            Self::Natively => None,
            Self::ByKey => Some("consistent-hash"),
            Self::BySample => Some("hot-key-spread"),
        }
    }

    /// What the policy is told.
    const fn settings(self) -> &'static str {
        match self {
            Self::Natively => "{}",
            Self::ByKey => "{ chunk: -1 }",
            Self::BySample => "{ from_bytes: 65536, spread: 2 }",
        }
    }
}

/// Where the stock router stores.
#[derive(Clone, Copy, Debug)]
pub enum StockVolume {
    Memory,
    RocksDb,
}

/// Where the programs are.
pub struct Programs {
    /// This program, for the yardsticks and the workers.
    pub bench: PathBuf,
    /// Ours.
    pub weir: Option<PathBuf>,
    /// The folder of the stock router and its plugins.
    pub stock: Option<PathBuf>,
    /// The folder of the policies that ship, compiled.
    pub policies: PathBuf,
}

impl Programs {
    fn module(&self, policy: &str) -> PathBuf {
        self.policies.join(format!("{policy}.wasm"))
    }
}

impl Kind {
    /// Our router with one storage.
    pub fn weir(backend: &'static str, durability: &'static str) -> Self {
        Self::Weir(Storages::One {
            backend,
            durability,
        })
    }

    /// A name for the progress and the table.
    pub fn name(&self) -> String {
        match self {
            Self::Yardstick(_) => "yardstick".to_owned(),
            Self::Counting => "weir counting".to_owned(),
            Self::Weir(Storages::None) => "weir without storage".to_owned(),
            Self::Weir(Storages::One {
                backend: "memory", ..
            }) => "weir memory".to_owned(),
            Self::Weir(Storages::One {
                backend,
                durability,
            }) => format!("weir {backend} {durability}"),
            Self::Weir(Storages::MirrorOf(_)) => "weir mirror".to_owned(),
            Self::Weir(Storages::Series) => "weir series".to_owned(),
            Self::Weir(Storages::Forward(_)) => "weir link".to_owned(),
            Self::Weir(Storages::Relay(_)) => "weir relay".to_owned(),
            Self::Weir(Storages::Sharded(Placed::Natively)) => "native rule".to_owned(),
            Self::Weir(Storages::Sharded(Placed::ByKey)) => "policy, once a key".to_owned(),
            Self::Weir(Storages::Sharded(Placed::BySample)) => "policy, every sample".to_owned(),
            Self::Weir(Storages::Many { backend, count }) => format!("weir {count} x {backend}"),
            Self::Stock(StockVolume::Memory) => "zenohd memory".to_owned(),
            Self::Stock(StockVolume::RocksDb) => "zenohd rocksdb".to_owned(),
        }
    }

    /// Why it cannot be measured here; nothing if it can.
    pub fn missing(&self, programs: &Programs) -> Option<String> {
        let library = match self {
            Self::Yardstick(_) => return None,
            Self::Weir(_) | Self::Counting if programs.weir.is_none() => {
                return Some("weir: WEIR_BIN is no file".to_owned());
            }
            Self::Weir(Storages::Sharded(placed)) => {
                let policy = placed.policy();
                let policy = policy.filter(|name| !programs.module(name).is_file());
                return policy.map(|name| format!("{name}: not built (`make policies` builds it)"));
            }
            Self::Weir(_) | Self::Counting => return None,
            Self::Stock(StockVolume::Memory) => "libzenoh_plugin_storage_manager.so",
            Self::Stock(StockVolume::RocksDb) => "libzenoh_backend_rocksdb.so",
        };
        let built = programs
            .stock
            .as_ref()
            .is_some_and(|dir| dir.join("bin").join(library).is_file());
        (!built).then(|| format!("{}: not built (`make bench-stock` builds it)", self.name()))
    }

    fn command(&self, programs: &Programs, home: &Path, endpoint: &str) -> Result<Command> {
        let config = home.join("config.json5");
        Ok(match self {
            Self::Yardstick(yardstick) => {
                let mut command = Command::new(&programs.bench);
                let listening = Yardstick {
                    listen: endpoint.to_owned(),
                    ..yardstick.clone()
                };
                command.args(listening.arguments());
                command
            }
            Self::Weir(storages) => {
                if let Storages::Sharded(placed) = storages
                    && let Some(policy) = placed.policy()
                {
                    let dir = home.join("policies");
                    fs::create_dir(&dir)?;
                    fs::copy(programs.module(policy), dir.join(format!("{policy}.wasm")))?;
                }
                weir(programs, home, &storages.config(home, endpoint))?
            }
            Self::Counting => {
                let mut command = weir(programs, home, &Storages::None.config(home, endpoint))?;
                command.args(["--bench-count", dataset::ALL]);
                command
            }
            Self::Stock(volume) => {
                fs::write(&config, volume.config(endpoint))?;
                let bin = programs.stock.as_ref().context("stock")?.join("bin");
                let mut command = Command::new(bin.join("zenohd"));
                command
                    .arg("-c")
                    .arg(&config)
                    .arg("--plugin-search-dir")
                    .arg(&bin);
                command
                    .env("ZENOH_BACKEND_ROCKSDB_ROOT", home)
                    .env("RUST_LOG", "warn");
                command
            }
        })
    }
}

fn weir(programs: &Programs, home: &Path, text: &str) -> Result<Command> {
    let config = home.join("config.json5");
    fs::write(&config, text)?;
    let mut command = Command::new(programs.weir.as_ref().context("weir")?);
    command.arg("run").arg("-c").arg(&config).current_dir(home);
    Ok(command)
}

impl Storages {
    fn config(&self, home: &Path, endpoint: &str) -> String {
        let dir = home.join("data").display().to_string();
        let storages = match self {
            Self::None | Self::Forward(_) | Self::Relay(_) => String::new(),
            Self::Series => {
                "    bench: { key_expr: \"bench/**\", backend: \"rocksdb\", history: \"all\" },\n"
                    .to_owned()
            }
            Self::One {
                backend,
                durability,
            } => format!(
                "    bench: {{ key_expr: \"bench/**\", {} }},\n",
                backend_settings(backend, durability)
            ),
            Self::MirrorOf(_) => {
                "    bench: { key_expr: \"bench/**\", backend: \"memory\" },\n".to_owned()
            }
            Self::Sharded(placed) => {
                let shard = |name| format!("{{ name: {name:?}, backend: \"memory\" }}");
                let policy = placed.policy();
                let bound = policy.map(|name| format!(", policies: {{ route: {name:?} }}"));
                format!(
                    "    bench: {{ key_expr: \"bench/**\", shards: [{}, {}]{} }},\n",
                    shard("a"),
                    shard("b"),
                    bound.unwrap_or_default()
                )
            }
            Self::Many { backend, count } => (0..*count)
                .map(|n| {
                    let settings = backend_settings(backend, "written");
                    format!("    s{n}: {{ key_expr: \"bench/many/{n}/**\", {settings} }},\n")
                })
                .collect(),
        };
        let policies = match self {
            Self::Sharded(placed) => placed.policy().map(|name| {
                let dir = home.join("policies").display().to_string();
                let settings = placed.settings();
                format!("  policies: {{ dir: {dir:?}, settings: {{ {name:?}: {settings} }} }},\n")
            }),
            _ => None,
        };
        let policies = policies.unwrap_or_default();
        let connect = match self {
            Self::MirrorOf(other) => format!("  connect: {{ endpoints: [{other:?}] }},\n"),
            // Zenoh tries ever more seldom; what is measured is not when it tries.
            Self::Forward(other) | Self::Relay(other) => format!(
                "  connect: {{ endpoints: [{other:?}], \
                 retry: {{ period_init_ms: 100, period_max_ms: 100 }} }},\n"
            ),
            _ => String::new(),
        };
        let forward = match self {
            Self::Forward(_) => "  forward: { cloud: { key_expr: \"bench/**\" } },\n",
            _ => "",
        };
        // Two routers of one machine would pass what is large by its memory, and no line would see it.
        let memory = match self {
            Self::Series | Self::Forward(_) | Self::Relay(_) => {
                "  transport: { shared_memory: { enabled: false } },\n"
            }
            _ => "",
        };
        format!(
            "{{\n  mode: \"router\",\n  listen: {{ endpoints: [{endpoint:?}] }},\n  \
             scouting: {{ multicast: {{ enabled: false }} }},\n  data_dir: {dir:?},\n{memory}  \
             storages: {{\n{storages}  }},\n{policies}{connect}{forward}}}\n"
        )
    }
}

/// Memory has one durability, and it need not be named.
fn backend_settings(backend: &str, durability: &str) -> String {
    match backend {
        "memory" => "backend: \"memory\"".to_owned(),
        _ => format!("backend: {backend:?}, durability: {durability:?}"),
    }
}

impl StockVolume {
    fn config(self, endpoint: &str) -> String {
        let (volumes, volume) = match self {
            Self::Memory => ("", "\"memory\""),
            Self::RocksDb => (
                "rocksdb: {}",
                "{ id: \"rocksdb\", dir: \"bench\", create_db: true }",
            ),
        };
        format!(
            "{{ mode: \"router\", listen: {{ endpoints: [{endpoint:?}] }}, \
             scouting: {{ multicast: {{ enabled: false }} }}, \
             plugins: {{ storage_manager: {{ __required__: true, volumes: {{ {volumes} }}, \
             storages: {{ bench: {{ key_expr: \"bench/**\", volume: {volume} }} }} }} }} }}"
        )
    }
}

/// A running router.
pub struct Router {
    pub process: Process,
    pub endpoint: String,
    /// From its start until it said that it is ready, or, where it says no such thing, until it
    /// accepts connections.
    pub ready: Duration,
    /// What it says about that itself, in milliseconds.
    pub said_ms: Option<f64>,
}

impl Router {
    /// Starts it on a free port, with its data in `home`.
    pub fn start(kind: &Kind, programs: &Programs, home: &Path) -> Result<Self> {
        let port = free_port()?;
        let endpoint = format!("tcp/127.0.0.1:{port}");
        let mut command = kind.command(programs, home, &endpoint)?;
        let start = Instant::now();
        let process = Process::spawn(kind.name(), &mut command)?;
        let mut said_ms = None;
        match kind {
            Kind::Yardstick(_) => {
                process.wait_line(START, |line| (line == "ready").then_some(()))?
            }
            Kind::Weir(_) | Kind::Counting => {
                said_ms = Some(process.wait_line(START, ready_millis)?)
            }
            Kind::Stock(_) => client::poll(START, "it does not listen", || {
                Ok(TcpStream::connect(("127.0.0.1", port)).is_ok())
            })?,
        }
        Ok(Self {
            process,
            endpoint,
            ready: start.elapsed(),
            said_ms,
        })
    }

    /// Starts it in a folder of its own and waits until its storage, if it has one, answers.
    pub fn start_serving(kind: &Kind, programs: &Programs, home: &TempDir) -> Result<Self> {
        let router = Self::start(kind, programs, home.path())?;
        let has_storage = match kind {
            Kind::Yardstick(_)
            | Kind::Counting
            | Kind::Weir(
                Storages::None | Storages::Many { .. } | Storages::Forward(_) | Storages::Relay(_),
            ) => false,
            Kind::Weir(
                Storages::One { .. }
                | Storages::Series
                | Storages::Sharded(_)
                | Storages::MirrorOf(_),
            )
            | Kind::Stock(_) => true,
        };
        if has_storage {
            client::wait_serving(&router.client()?, START)?;
        }
        Ok(router)
    }

    /// A client of it.
    pub fn client(&self) -> Result<Session> {
        client::connect(&self.endpoint)
    }

    /// Stops it in good order.
    pub fn stop(self) -> Result<()> {
        self.process.stop(STOP).map(drop)
    }
}

/// The figure in `ready in 12 ms`, wherever in a line that stands.
fn ready_millis(line: &str) -> Option<f64> {
    let (_, after) = line.split_once("ready in ")?;
    after.split_whitespace().next()?.parse().ok()
}

/// A port that is free now. Somebody else could take it before the router does, which then fails
/// to start and says so.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_is_understood() {
        assert_eq!(ready_millis("ready in 12 ms"), Some(12.0));
        assert_eq!(
            ready_millis("2026-01-01 INFO weir: ready in 3.5 ms (3 storages)"),
            Some(3.5)
        );
        assert_eq!(ready_millis("reading"), None);
    }

    #[test]
    fn a_configuration_names_what_it_measures() {
        let one = Storages::One {
            backend: "rocksdb",
            durability: "synced",
        };
        let text = one.config(Path::new("/x"), "tcp/127.0.0.1:1");
        assert!(
            text.contains("backend: \"rocksdb\", durability: \"synced\""),
            "{text}"
        );
        assert!(text.contains("data_dir: \"/x/data\""), "{text}");
        let many = Storages::Many {
            backend: "memory",
            count: 2,
        };
        let text = many.config(Path::new("/x"), "tcp/127.0.0.1:1");
        assert!(
            text.contains("s1: { key_expr: \"bench/many/1/**\", backend: \"memory\" }"),
            "{text}"
        );
    }

    #[test]
    fn what_is_not_built_is_named() {
        let programs = Programs {
            bench: PathBuf::new(),
            weir: None,
            stock: None,
            policies: PathBuf::new(),
        };
        let missing = |kind: Kind| kind.missing(&programs);
        assert_eq!(missing(Kind::Yardstick(Yardstick::bare())), None);
        assert!(missing(Kind::weir("memory", "written")).is_some());
        assert_eq!(
            missing(Kind::Stock(StockVolume::RocksDb)).as_deref(),
            Some("zenohd rocksdb: not built (`make bench-stock` builds it)")
        );
    }
}
