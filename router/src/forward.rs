//! Store-and-forward: links, each with a journal on this router's disk, and the storages of other
//! routers that are brought what they lack of it (S11).
//!
//! ```text
//! samples, `_put` ---> tap ---> keeper: stamp, lane, append, sync ---> journal (weir-journal)
//!   (receive threads)  queue    (a task; file work on threads that may block)    |
//!                                                                                v
//! mirror::discovery ---> seeking ---> upstream: a task that owns the core's Link, one for each
//!   who is there                      storage; frames on @weir/v1/<router>/mirror/<storage>
//! ```
//!
//! The live path stays plain Zenoh: nothing of this is between a publisher and the cloud.

mod host;
mod journal;
mod keeper;
mod lanes;
mod metrics;
mod seeking;
mod show;
mod stamping;
mod tap;
#[cfg(test)]
mod tests;
mod upstream;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Result;
use serde_json::Value;
use weir_core::change::KeptChange;
use weir_policy::Policies;
use weir_settings::ForwardSettings;

use self::host::Host;
pub(crate) use self::{metrics::Metrics, show::time};
use crate::{clock::SharedClock, mirror::Mirrors, query::Acks, session::Bus};

/// The links of a router.
#[derive(Default)]
pub(crate) struct Links {
    hosts: Vec<Arc<Host>>,
}

/// What links are made of, besides their settings.
#[derive(Clone)]
pub(crate) struct Surroundings {
    /// The router's id.
    pub router: String,
    /// Its clock.
    pub clock: Arc<SharedClock>,
    /// Who answers those that wait.
    pub acks: Acks,
    /// Those that can be bound.
    pub policies: Option<Arc<Policies>>,
}

impl Links {
    /// Opens the journals. One that cannot be opened stops its own link (S15); it is tried again.
    pub(crate) async fn open(
        settings: &BTreeMap<String, ForwardSettings>,
        around: &Surroundings,
    ) -> Result<Self> {
        let mut hosts = Vec::new();
        for link in settings.values() {
            hosts.push(Host::open(link.clone(), around.clone()).await?);
        }
        Ok(Self { hosts })
    }

    /// Begins to listen, and to look for upstreams.
    ///
    /// # Errors
    /// What Zenoh says.
    pub(crate) async fn attach(&self, bus: &Bus, mirrors: &Mirrors) -> Result<()> {
        for host in &self.hosts {
            host.attach(bus, mirrors).await?;
        }
        Ok(())
    }

    /// Keeps what came, syncs and closes the journals.
    pub(crate) async fn close(&self) {
        let mut closing = tokio::task::JoinSet::new();
        for host in &self.hosts {
            let host = Arc::clone(host);
            closing.spawn(async move { host.close().await });
        }
        while let Some(closed) = closing.join_next().await {
            if let Err(error) = closed {
                tracing::error!(%error, "a link did not close");
            }
        }
    }

    /// Has links keep what another router's link has brought to a storage here, for those behind: none of
    /// them has seen it on Zenoh. Returns when it is as durable as each makes anything. What one rejects by
    /// its own rules counts as kept: it is told as lost, or counted by cause.
    ///
    /// # Errors
    /// In words, if one could not keep it: it has to be brought again. Those before it have it, and find it
    /// to be the same then.
    pub(crate) async fn carry(&self, changes: &[KeptChange]) -> Result<(), String> {
        for host in &self.hosts {
            host.carry(changes).await?;
        }
        Ok(())
    }

    /// Takes the measure of the last `span`.
    pub(crate) fn measure(&self, span: Duration) {
        for host in &self.hosts {
            host.measure(span);
        }
    }

    /// Whether every link keeps what comes, and none gets no certificates from one that is there.
    pub(crate) fn are_well(&self) -> bool {
        self.hosts.iter().all(|host| host.ill().is_none())
    }

    /// How each link is: its name, a sentence, and whether that is well.
    pub(crate) fn conditions(&self) -> Vec<(String, String, bool)> {
        let condition = |host: &Arc<Host>| {
            let ill = host.ill();
            let is_well = ill.is_none();
            let state = ill.unwrap_or_else(|| show::word(host.state()).to_owned());
            (host.name().to_owned(), state, is_well)
        };
        self.hosts.iter().map(condition).collect()
    }

    /// The names of the links.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().map(|host| host.name())
    }

    /// What is shown of a link. May wait for its journal.
    pub(crate) fn status(&self, name: &str) -> Option<Value> {
        let host = self.hosts.iter().find(|host| host.name() == name)?;
        Some(host.to_json())
    }
}
