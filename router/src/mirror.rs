//! Mirrors: storages of other routers that are kept the same as ours (S9).
//!
//! ```text
//! liveliness on @weir/v1/*/mirror/* -> discovery -> hello -> a task for each (storage, mirror)
//!                                                              |  Mirror (core): what to ask, what
//!                                                              v  to push, what to make of answers
//!                          frames: queries on @weir/v1/<router>/mirror/<storage>, in the background
//!                                                              |
//!                                                answering <---+  the other side; remembers nothing
//! ```
//!
//! The control plane is ordinary Zenoh: routed, through stock routers too, encrypted and access
//! controlled like everything else.

mod answering;
mod board;
mod discovery;
pub(crate) mod hello;
pub(crate) mod line;
mod packing;
pub(crate) mod seeker;
mod sightings;
mod task;
pub(crate) mod upstream;

use std::sync::Arc;

use anyhow::{Result, anyhow};
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use weir_settings::StorageSettings;

pub(crate) use self::board::{MirrorStatus, State};
use self::{
    board::Board,
    discovery::{Command, Discovery},
    seeker::Seeker,
};
use crate::{forward::Links, service::Service, session::Bus, storage::Storage};

/// The mirrors of a router's storages.
pub(crate) struct Mirrors {
    /// Absent once it is stopped.
    commands: Mutex<Option<mpsc::Sender<Command>>>,
    board: Board,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Mirrors {
    /// Begins to look for mirrors. What links bring to a storage is carried on by `links`.
    ///
    /// # Errors
    /// What Zenoh says.
    pub(crate) async fn start(bus: Bus, router: String, links: Arc<Links>) -> Result<Self> {
        let board = Board::default();
        let discovery = Discovery::new(bus, router, board.clone(), links).await?;
        // Storages are added and removed one at a time.
        let (commands, received) = mpsc::channel(16);
        let task = tokio::spawn(discovery.run(received));
        Ok(Self {
            commands: Mutex::new(Some(commands)),
            board,
            task: Mutex::new(Some(task)),
        })
    }

    /// Announces a storage, and keeps it and its mirrors the same from now on.
    ///
    /// # Errors
    /// What Zenoh says.
    pub(crate) async fn add(&self, storage: Arc<Storage>, settings: StorageSettings) -> Result<()> {
        let (done, outcome) = oneshot::channel();
        self.command(Command::Add(storage, Box::new(settings), done))
            .await?;
        Ok(outcome.await??)
    }

    /// Announces a storage no more; nothing of it is at work when this returns.
    pub(crate) async fn remove(&self, name: &str) {
        let (done, outcome) = oneshot::channel();
        let commanded = self.command(Command::Remove(name.to_owned(), done)).await;
        if commanded.is_ok() {
            // An error means that everything has been removed already.
            let _ = outcome.await;
        }
    }

    /// Has a link hear of its upstreams from now on.
    ///
    /// # Errors
    /// If nobody looks any more.
    pub(crate) async fn seek(&self, seeker: Seeker) -> Result<()> {
        self.command(Command::Seek(seeker)).await
    }

    /// Ends everything.
    pub(crate) async fn stop(&self) {
        drop(self.commands.lock().take());
        let task = self.task.lock().take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "looking for mirrors ended badly");
        }
    }

    /// The mirrors of a storage.
    pub(crate) fn of(&self, storage: &str) -> Vec<MirrorStatus> {
        let all = self.board.all().into_iter();
        all.filter(|(name, _)| name == storage)
            .map(|(_, status)| status)
            .collect()
    }

    async fn command(&self, command: Command) -> Result<()> {
        let commands = self.commands.lock().clone();
        let commands = commands.ok_or_else(|| anyhow!("the router is stopping"))?;
        commands
            .send(command)
            .await
            .map_err(|_| anyhow!("nobody looks for mirrors any more"))
    }
}

/// A figure of a mirror: its name, what it says, and how it is read.
type Figure<T> = (&'static str, &'static str, fn(&MirrorStatus) -> T);

const COUNTERS: [Figure<u64>; 8] = [
    (
        "taken",
        "records and wildcard operations that were lacking and came from the mirror",
        |m| m.taken,
    ),
    (
        "given",
        "records and wildcard operations that the mirror lacked and was given",
        |m| m.given,
    ),
    ("rounds", "comparisons of the whole", |m| m.rounds),
    ("sent_bytes", "bytes of frames sent to the mirror", |m| {
        m.sent_bytes
    }),
    (
        "received_bytes",
        "bytes of frames received from the mirror",
        |m| m.received_bytes,
    ),
    ("asks", "frames that the mirror was asked", |m| m.asks),
    ("answers", "frames of the mirror that were answered", |m| {
        m.answers
    }),
    (
        "failures",
        "frames that the mirror did not answer, and what else went wrong",
        |m| m.failures,
    ),
];

const GAUGES: [Figure<Option<f64>>; 5] = [
    ("in_step", "1 if both were found to hold the same", |m| {
        Some(f64::from(u8::from(m.state == State::InStep)))
    }),
    ("gone", "1 if the mirror is not there", |m| {
        Some(f64::from(u8::from(m.state == State::Gone)))
    }),
    ("divergent_ranges", "ranges that are known to differ", |m| {
        Some(m.divergent_ranges as f64)
    }),
    (
        "clock_offset_seconds",
        "the mirror's clock minus ours",
        |m| m.clock_offset_ms.map(|ms| ms as f64 / 1e3),
    ),
    (
        "same_revision",
        "1 if the same revision of the resolver serves on both",
        |m| m.same_revision.map(|same| f64::from(u8::from(same))),
    ),
];

/// The mirrors' figures, read when they are asked for.
pub(crate) struct Metrics(pub(crate) Arc<Service>);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("mirror::Metrics")
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mirrors = self
            .0
            .mirrors()
            .map(|mirrors| mirrors.board.all())
            .unwrap_or_default();
        if mirrors.is_empty() {
            return Ok(());
        }
        let labels = |storage: &str, mirror: &MirrorStatus| {
            [
                ("storage", storage.to_owned()),
                ("router", mirror.router.clone()),
                ("mirror", mirror.storage.clone()),
            ]
        };
        for (name, help, read) in COUNTERS {
            let name = format!("mirror_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            for (storage, mirror) in &mirrors {
                let labels = labels(storage, mirror);
                ConstCounter::new(read(mirror)).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "changes of the mirror's stores that were noticed";
        let name = "mirror_store_changes";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (storage, mirror) in &mirrors {
            let [storage, router, name] = labels(storage, mirror);
            for (kind, count) in mirror.store.changes.each() {
                let labels = [
                    storage.clone(),
                    router.clone(),
                    name.clone(),
                    ("kind", kind.to_owned()),
                ];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        for (name, help, read) in GAUGES {
            let name = format!("mirror_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            for (storage, mirror) in &mirrors {
                let Some(value) = read(mirror) else { continue };
                let labels = labels(storage, mirror);
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
