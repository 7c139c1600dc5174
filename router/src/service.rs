//! The storage service: which storages there are, and what changes that at run time.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use anyhow::{Context, Result, anyhow, bail};
use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use weir_policy::Policies;
use weir_settings::{Form, OnClosure, Roots, Settings, StorageSettings, VolumeSettings};

use crate::{
    clock::SharedClock,
    forward::{Links, Surroundings},
    mirror::Mirrors,
    plan::Engines,
    policies,
    query::QueryPool,
    session::{Bus, Service as Serving, Subscription},
    share::Share,
    storage::Storage,
};

/// The storages of a router.
pub(crate) struct Service {
    router: String,
    engines: Engines,
    /// Those that can be bound; `None` if the settings say nothing of any.
    policies: Option<Arc<Policies>>,
    clock: Arc<SharedClock>,
    pool: QueryPool,
    roots: Roots,
    state: RwLock<State>,
    /// Why changes of the configuration were refused, by their path.
    refusals: Mutex<BTreeMap<String, Refusal>>,
    bus: OnceLock<Bus>,
    mirrors: OnceLock<Mirrors>,
    links: OnceLock<Arc<Links>>,
    commands: mpsc::UnboundedSender<Command>,
}

#[derive(Default)]
struct State {
    volumes: BTreeMap<String, VolumeSettings>,
    storages: BTreeMap<String, Entry>,
}

/// A storage that is configured; `open` is `None` while it is being opened or closed.
struct Entry {
    settings: StorageSettings,
    open: Option<Open>,
}

struct Open {
    storage: Arc<Storage>,
    declared: Option<Declared>,
}

/// What keeps a storage known to the network.
struct Declared {
    subscriptions: Vec<Subscription>,
    serving: Vec<Serving>,
}

/// A change of the configuration that was refused.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Refusal {
    /// When; RFC 3339 where it is shown.
    #[serde(serialize_with = "crate::convert::as_rfc3339")]
    pub at: SystemTime,
    /// Why, in a sentence for each mistake.
    pub reason: String,
}

/// A change of the configuration that was accepted and is to be carried out.
enum Command {
    Add(Box<StorageSettings>),
    Remove(String),
}

impl Service {
    /// A service without storages, and the task that changes it at run time.
    pub(crate) fn new(
        router: String,
        clock: SharedClock,
        roots: Roots,
        volumes: BTreeMap<String, VolumeSettings>,
        policies: Option<Arc<Policies>>,
    ) -> Arc<Self> {
        let (commands, queue) = mpsc::unbounded_channel();
        let service = Arc::new(Self {
            pool: QueryPool::new(router.clone()),
            router,
            engines: Engines::new(),
            policies,
            clock: Arc::new(clock),
            roots,
            state: RwLock::new(State {
                volumes,
                storages: BTreeMap::new(),
            }),
            refusals: Mutex::default(),
            bus: OnceLock::new(),
            mirrors: OnceLock::new(),
            links: OnceLock::new(),
            commands,
        });
        tokio::spawn(carry_out(Arc::downgrade(&service), queue));
        service
    }

    /// Opens the journals of the links, and the storages of the settings, several at once.
    pub(crate) async fn open_all(self: &Arc<Self>, settings: &Settings) -> Result<()> {
        // Opening a database mostly waits for the disk.
        const AT_ONCE: usize = 8;
        let around = Surroundings {
            router: self.router.clone(),
            clock: Arc::clone(&self.clock),
            acks: self.pool.acks(),
            policies: self.policies.clone(),
        };
        let links = Links::open(&settings.forward, &around).await?;
        let _ = self.links.set(Arc::new(links));
        let mut opening = tokio::task::JoinSet::new();
        for storage in settings.storages.values() {
            if opening.len() >= AT_ONCE
                && let Some(opened) = opening.join_next().await
            {
                opened??;
            }
            let service = Arc::clone(self);
            let storage = storage.clone();
            opening.spawn(async move { service.open(storage).await });
        }
        while let Some(opened) = opening.join_next().await {
            opened??;
        }
        Ok(())
    }

    /// Makes every storage known to the network.
    pub(crate) async fn attach(&self, bus: Bus) -> Result<()> {
        let links = self.links.get_or_init(Arc::default);
        let mirrors = Mirrors::start(bus.clone(), self.router.clone(), Arc::clone(links)).await?;
        let _ = self.mirrors.set(mirrors);
        let bus = self.bus.get_or_init(|| bus);
        for storage in self.storages() {
            self.declare(bus, &storage).await?;
        }
        match self.mirrors() {
            Some(mirrors) => links.attach(bus, mirrors).await,
            None => Ok(()),
        }
    }

    /// The open storages, by name.
    pub(crate) fn storages(&self) -> Vec<Arc<Storage>> {
        let state = self.state.read();
        let open = state
            .storages
            .values()
            .filter_map(|entry| entry.open.as_ref());
        open.map(|open| Arc::clone(&open.storage)).collect()
    }

    /// An open storage and its settings.
    pub(crate) fn storage(&self, name: &str) -> Option<(Arc<Storage>, StorageSettings)> {
        let state = self.state.read();
        let entry = state.storages.get(name)?;
        Some((
            Arc::clone(&entry.open.as_ref()?.storage),
            entry.settings.clone(),
        ))
    }

    /// The names of the storages that are configured but not open.
    pub(crate) fn not_open(&self) -> Vec<String> {
        let state = self.state.read();
        let closed = state
            .storages
            .iter()
            .filter(|(_, entry)| entry.open.is_none());
        closed.map(|(name, _)| name.clone()).collect()
    }

    /// The volumes, by name.
    pub(crate) fn volumes(&self) -> BTreeMap<String, VolumeSettings> {
        self.state.read().volumes.clone()
    }

    /// Why changes of the configuration were refused, by their path.
    pub(crate) fn refusals(&self) -> BTreeMap<String, Refusal> {
        self.refusals.lock().clone()
    }

    /// The mirrors of the storages; absent until they are known to the network.
    pub(crate) fn mirrors(&self) -> Option<&Mirrors> {
        self.mirrors.get()
    }

    /// The links; absent until their journals were opened.
    pub(crate) fn links(&self) -> Option<&Arc<Links>> {
        self.links.get()
    }

    /// The policies.
    pub(crate) fn policies(&self) -> Option<&Arc<Policies>> {
        self.policies.as_ref()
    }

    /// The router's id.
    pub(crate) fn router(&self) -> &str {
        &self.router
    }

    /// Whether the storages are known to the network.
    pub(crate) fn is_attached(&self) -> bool {
        self.bus.get().is_some()
    }

    /// Checks a change of the configuration of `plugins/storage_manager` and, if it makes sense, has
    /// it carried out. Called in Zenoh's admin handler: does not block.
    ///
    /// # Errors
    /// Why it is refused; also to be found under [`Service::refusals`] until it succeeds.
    pub(crate) fn change(
        &self,
        path: &str,
        old: &Map<String, Value>,
        new: &Map<String, Value>,
    ) -> Result<()> {
        let result = self.check(old, new);
        let mut refusals = self.refusals.lock();
        match result {
            Ok(commands) => {
                refusals.remove(path);
                for command in commands {
                    self.commands
                        .send(command)
                        .map_err(|_| anyhow!("the router is stopping"))?;
                }
                Ok(())
            }
            Err(error) => {
                let refusal = Refusal {
                    at: SystemTime::now(),
                    reason: format!("{error:#}"),
                };
                tracing::warn!(
                    path,
                    reason = refusal.reason,
                    "a change of the configuration is refused"
                );
                refusals.insert(path.to_owned(), refusal);
                Err(error)
            }
        }
    }

    fn check(&self, old: &Map<String, Value>, new: &Map<String, Value>) -> Result<Vec<Command>> {
        let mut commands = Vec::new();
        let mut state = self.state.write();
        let mut volumes = state.volumes.clone();
        for (name, value) in differing(old, new, "volumes") {
            match value {
                None => {
                    let uses = |entry: &&Entry| {
                        entry
                            .settings
                            .shards
                            .iter()
                            .any(|shard| shard.volume == name)
                    };
                    if let Some(user) = state.storages.values().find(uses) {
                        bail!(
                            "volume `{name}` is used by storage `{}`",
                            user.settings.name
                        );
                    }
                    volumes.remove(&name);
                }
                Some(value) => {
                    let volume = weir_settings::parse_volume(&name, value, &self.roots);
                    volumes.insert(name, volume.map_err(in_words)?);
                }
            }
        }
        for (name, value) in differing(old, new, "storages") {
            let Some(value) = value else {
                commands.push(Command::Remove(name));
                continue;
            };
            if state.storages.contains_key(&name) {
                bail!("storage `{name}` is there; remove it before you change it");
            }
            // `volume` with an object is how zenohd's scripts write it, with its rules for directories.
            let form = if value.get("volume").is_some() {
                Form::Zenohd
            } else {
                Form::Weir
            };
            let storage = weir_settings::parse_storage(&name, value, form, &volumes, &self.roots);
            let storage = storage.map_err(in_words)?;
            for shard in storage.shards.iter().filter(|shard| shard.dir.is_some()) {
                let clash = |other: &&Entry| {
                    other
                        .settings
                        .shards
                        .iter()
                        .any(|used| used.dir == shard.dir)
                };
                if let Some(other) = state.storages.values().find(clash) {
                    bail!("storage `{}` has the same directory", other.settings.name);
                }
            }
            self.engines.plan(&storage, self.router())?;
            if self.policies.is_none() && !storage.policies.is_empty() {
                bail!("this router has no policies: start it with `policies` in its settings");
            }
            commands.push(Command::Add(Box::new(storage)));
        }
        state.volumes = volumes;
        Ok(commands)
    }

    /// Refuses more changes, decides what is queued, closes every storage.
    pub(crate) async fn close(&self) {
        if let Some(mirrors) = self.mirrors() {
            mirrors.stop().await;
        }
        if let Some(links) = self.links() {
            links.close().await;
        }
        let names: Vec<String> = self.state.read().storages.keys().cloned().collect();
        let mut closing = tokio::task::JoinSet::new();
        for name in names {
            let open = self
                .state
                .write()
                .storages
                .get_mut(&name)
                .and_then(|entry| entry.open.take());
            if let Some(open) = open {
                closing.spawn(open.close());
            }
        }
        while let Some(closed) = closing.join_next().await {
            if let Err(error) = closed {
                tracing::error!(%error, "a storage did not close");
            }
        }
    }

    async fn open(self: Arc<Self>, settings: StorageSettings) -> Result<Arc<Storage>> {
        let name = settings.name.clone();
        let mut plan = self.engines.plan(&settings, self.router())?;
        let route = self.policies.as_deref();
        let route = route.and_then(|all| policies::bind(all, &settings, &mut plan));
        self.state.write().storages.insert(
            name.clone(),
            Entry {
                settings,
                open: None,
            },
        );
        let clock = Arc::clone(&self.clock);
        let storage = tokio::task::spawn_blocking(move || Storage::open(plan, route, clock))
            .await?
            .with_context(|| format!("storage `{name}` cannot be opened"))?;
        let open = Open {
            storage: Arc::clone(&storage),
            declared: None,
        };
        if let Some(entry) = self.state.write().storages.get_mut(&name) {
            entry.open = Some(open);
        }
        Ok(storage)
    }

    async fn declare(&self, bus: &Bus, storage: &Arc<Storage>) -> Result<()> {
        let mut declared = Declared {
            subscriptions: Vec::new(),
            serving: Vec::new(),
        };
        let exprs = storage.set.declared();
        for (expr, share) in exprs.iter().zip(Share::of(&exprs)) {
            // First the queryable: who sees the subscriber may ask at once.
            let (pool, asked, part) = (self.pool.clone(), Arc::clone(storage), share.clone());
            let serving = bus.declare_queryable(expr, storage.complete, move |query| {
                if part.takes(query.key_expr()) {
                    pool.take(&asked, query);
                }
            });
            declared.serving.push(serving.await?);
            let taker = Arc::clone(storage);
            let subscription = bus.declare_subscriber(expr, move |sample| {
                if share.takes(sample.key_expr()) {
                    taker.take(sample);
                }
            });
            declared.subscriptions.push(subscription.await?);
        }
        let settings = {
            let mut state = self.state.write();
            let Some(entry) = state.storages.get_mut(&storage.name) else {
                return Ok(());
            };
            if let Some(open) = &mut entry.open {
                open.declared = Some(declared);
            }
            entry.settings.clone()
        };
        // Last: what it has when it is compared includes what came since it subscribed.
        match self.mirrors() {
            Some(mirrors) => mirrors.add(Arc::clone(storage), settings).await,
            None => Ok(()),
        }
    }

    async fn add(self: &Arc<Self>, settings: StorageSettings) -> Result<()> {
        let name = settings.name.clone();
        let added = async {
            let storage = Arc::clone(self).open(settings).await?;
            match self.bus.get() {
                Some(bus) => self.declare(bus, &storage).await,
                None => Ok(()),
            }
        };
        let result = added.await;
        if result.is_err() {
            self.state.write().storages.remove(&name);
        }
        result
    }

    /// Closes a storage; it is known until it answers no more.
    async fn remove(&self, name: &str) -> Result<()> {
        let (open, settings) = {
            let mut state = self.state.write();
            let Some(entry) = state.storages.get_mut(name) else {
                return Ok(());
            };
            (entry.open.take(), entry.settings.clone())
        };
        if let Some(mirrors) = self.mirrors() {
            mirrors.remove(name).await;
        }
        if let Some(open) = open {
            open.close().await;
        }
        self.state.write().storages.remove(name);
        if settings.on_closure == OnClosure::Destroy {
            let plan = self.engines.plan(&settings, self.router())?;
            tokio::task::spawn_blocking(move || {
                for (_, _, shard) in plan.shards {
                    shard.destroy()?;
                }
                anyhow::Ok(())
            })
            .await??;
        }
        Ok(())
    }
}

impl Open {
    async fn close(self) {
        if let Some(declared) = self.declared {
            for subscription in declared.subscriptions {
                if let Err(error) = subscription.undeclare().await {
                    tracing::warn!(%error, "a subscriber could not be undeclared");
                }
            }
            for serving in declared.serving {
                if let Err(error) = serving.undeclare().await {
                    tracing::warn!(%error, "a queryable could not be undeclared");
                }
            }
        }
        self.storage.close().await;
    }
}

/// Carries out accepted changes, one after the other.
async fn carry_out(service: std::sync::Weak<Service>, mut queue: mpsc::UnboundedReceiver<Command>) {
    while let Some(command) = queue.recv().await {
        let Some(service) = service.upgrade() else {
            return;
        };
        let (path, result) = match command {
            Command::Add(settings) => {
                let path = format!("storages/{}", settings.name);
                (path, service.add(*settings).await)
            }
            Command::Remove(name) => {
                let result = service.remove(&name).await;
                (format!("storages/{name}"), result)
            }
        };
        match result {
            Ok(()) => tracing::info!(path, "the configuration was changed"),
            Err(error) => {
                tracing::error!(
                    path,
                    error = format!("{error:#}"),
                    "a change could not be carried out"
                );
                let refusal = Refusal {
                    at: SystemTime::now(),
                    reason: format!("{error:#}"),
                };
                service.refusals.lock().insert(path, refusal);
            }
        }
    }
}

/// The entries of a section that differ, with their new value if they have one.
fn differing<'a>(
    old: &'a Map<String, Value>,
    new: &'a Map<String, Value>,
    section: &str,
) -> Vec<(String, Option<&'a Value>)> {
    let entries = |map: &'a Map<String, Value>| map.get(section).and_then(Value::as_object);
    let (old, new) = (entries(old), entries(new));
    let mut differing = Vec::new();
    for (name, value) in new.into_iter().flatten() {
        if old.and_then(|old| old.get(name)) != Some(value) {
            differing.push((name.clone(), Some(value)));
        }
    }
    for name in old.into_iter().flatten().map(|(name, _)| name) {
        if new.is_none_or(|new| !new.contains_key(name)) {
            differing.push((name.clone(), None));
        }
    }
    differing
}

/// Every mistake, a sentence each.
fn in_words(diagnostics: Vec<weir_settings::Diagnostic>) -> anyhow::Error {
    let sentences: Vec<String> = diagnostics
        .into_iter()
        .filter(|diagnostic| diagnostic.severity == weir_settings::Severity::Error)
        .map(|diagnostic| match diagnostic.help {
            Some(help) => format!("{}: {} ({help})", diagnostic.path, diagnostic.message),
            None => format!("{}: {}", diagnostic.path, diagnostic.message),
        })
        .collect();
    anyhow!(sentences.join("; "))
}
