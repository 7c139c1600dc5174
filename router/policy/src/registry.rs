//! The policies of a router: which files there are, what is bound to them, and what serves.
//!
//! One thread owns it all (`conductor`): it takes note of what the watched directory, the loading
//! threads and the slots tell, asks each slot's machine ([`weir_core::slot`]) and does what that says.
//! It never runs a guest and never compiles. Whoever asks policies holds a slot and never waits for
//! this thread.

mod bound;
mod clock;
mod conductor;
mod file;
mod loader;

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{Sender, SyncSender, channel, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::Mutex;
use weir_core::{
    backlog::Prioritize,
    placement::Route,
    slot::{Limits, OnRemove},
};

use crate::{
    directory::{Directory, DirectorySettings},
    environment::{Environment, Hook},
    host::Host,
    revision::Revision,
    signature::{Key, SignatureMode},
    slot::{Notebook, Port, PrioritizeSlot, ResolvePort, ResolveSlot, RouteSlot, Told},
    status::{DirectoryStatus, PolicyStatus},
};

use conductor::{Conductor, Message};

/// How long the first look at the directory may take before the router goes on without it.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(10);

/// What the registry is told.
#[derive(Clone)]
pub struct PoliciesSettings {
    /// Where the files are.
    pub directory: DirectorySettings,
    /// What becomes of files that nobody has signed.
    pub signatures: SignatureMode,
    /// Whose signatures count.
    pub keys: Vec<Key>,
    /// What serves when a file is removed.
    pub on_remove: OnRemove,
    /// How much a revision may get wrong.
    pub breaker: Limits,
    /// The policies' own settings as JSON, by name.
    pub settings: BTreeMap<String, String>,
    /// How often the laws are tried on resolvers that serve, with values that they were asked about.
    pub laws_every: Duration,
    /// What a revision has to pass before it serves, besides starting.
    pub admission: Vec<Arc<dyn Admit>>,
}

/// A check of a revision before it serves. Runs on a loading thread and may take its time: what served
/// before goes on serving.
pub trait Admit: Send + Sync {
    /// Whether it may serve there.
    ///
    /// # Errors
    /// Why not: a word that never changes, and what to do about it.
    fn admit(&self, candidate: &Candidate<'_>) -> Result<(), NotAdmitted>;
}

/// A revision that could serve.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// The policy's name: its file is `NAME.wasm`.
    pub name: &'a str,
    /// The module.
    pub revision: &'a Arc<Revision>,
    /// Where it is to serve.
    pub hook: Hook,
    /// What it is told there, its settings among it.
    pub environment: &'a Environment,
}

/// Why a revision is not admitted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotAdmitted {
    /// A word that never changes: `law`, `case`.
    pub code: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl<F: Fn(&Candidate<'_>) -> Result<(), NotAdmitted> + Send + Sync> Admit for F {
    fn admit(&self, candidate: &Candidate<'_>) -> Result<(), NotAdmitted> {
        self(candidate)
    }
}

/// The policies of a router.
pub struct Policies {
    inbox: Sender<Message>,
    directory: Mutex<Option<Directory>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    environment: Environment,
    settings: BTreeMap<String, String>,
    slots: AtomicU64,
}

impl Policies {
    /// Begins to watch the directory, and looks at it once, so that what is bound next finds the files
    /// that are there. `environment` has the router's id and zone.
    ///
    /// # Errors
    /// A thread cannot be started. A directory that is not there is no error: it may come.
    pub fn start(
        settings: PoliciesSettings,
        host: Arc<Host>,
        environment: Environment,
    ) -> io::Result<Arc<Self>> {
        let (inbox, messages) = channel();
        let (looked, first_look) = sync_channel(1);
        let own_settings = settings.settings.clone();
        let watched = settings.directory.clone();
        let base = environment.clone();
        let conductor = Conductor::new(settings, host, base, inbox.clone(), looked)?;
        let thread = std::thread::Builder::new().name("policies".into());
        let thread = thread.spawn(move || conductor.run(&messages))?;
        let tell = inbox.clone();
        let directory = Directory::watch(watched, move |event| {
            // Nobody listens any more: the router stops.
            let _ = tell.send(Message::Directory(event));
        })?;
        if first_look.recv_timeout(FIRST_LOOK_MAX).is_err() {
            tracing::warn!("the policies' directory does not answer: going on without it");
        }
        Ok(Arc::new(Self {
            inbox,
            directory: Mutex::new(Some(directory)),
            thread: Mutex::new(Some(thread)),
            environment,
            settings: own_settings,
            slots: AtomicU64::new(0),
        }))
    }

    /// Has `policy` decide on which of `shards` (their names on the ring) the samples of `storage` are
    /// kept, and `native` when it does not. Keys are relative to `prefix`. Dropping the slot ends it.
    #[must_use]
    pub fn bind_route(
        &self,
        storage: &str,
        policy: &str,
        prefix: &str,
        shards: Vec<String>,
        native: Box<dyn Route>,
    ) -> RouteSlot {
        let environment = Environment {
            shards,
            ..self.environment_of(policy)
        };
        let id = self.next();
        let notes = self.notebook(id);
        let (port, slot) = RouteSlot::new(environment, prefix.to_owned(), native, notes);
        self.bind(id, format!("storages/{storage}"), policy, Arc::new(port));
        slot
    }

    /// Has `policy` resolve the conflicts of `storage`. Dropping the last clone of the slot ends it.
    #[must_use]
    pub fn bind_resolve(&self, storage: &str, policy: &str) -> ResolveSlot {
        let settings = self.environment_of(policy).settings_json;
        let id = self.next();
        let (port, slot) = ResolvePort::new(&settings, self.notebook(id));
        self.bind(id, format!("storages/{storage}"), policy, Arc::new(port));
        slot
    }

    /// Has `policy` decide what leaves the backlog of `link` first, and `native` when it does not.
    #[must_use]
    pub fn bind_prioritize(
        &self,
        link: &str,
        policy: &str,
        prefix: &str,
        native: Box<dyn Prioritize>,
    ) -> PrioritizeSlot {
        let environment = self.environment_of(policy);
        let id = self.next();
        let notes = self.notebook(id);
        let (port, slot) = PrioritizeSlot::new(environment, prefix.to_owned(), native, notes);
        self.bind(id, format!("forward/{link}"), policy, Arc::new(port));
        slot
    }

    /// Waits until everything that was there when this was called has been loaded, refused or found
    /// missing. False if that takes longer than `patience`.
    #[must_use]
    pub fn wait_until_loaded(&self, patience: Duration) -> bool {
        self.ask(patience, Message::Settled).is_some()
    }

    /// Every policy that is in the directory or bound, by name. Waits for the registry's thread, which
    /// never takes long.
    #[must_use]
    pub fn status(&self) -> Vec<PolicyStatus> {
        self.ask(Duration::from_secs(5), Message::Status)
            .unwrap_or_default()
            .0
    }

    /// The watched directory.
    #[must_use]
    pub fn directory(&self) -> Option<DirectoryStatus> {
        self.ask(Duration::from_secs(5), Message::Status)?.1
    }

    /// Looks at every file anew, as if all of them might have changed.
    pub fn rescan(&self) {
        if let Some(directory) = &*self.directory.lock() {
            directory.rescan();
        }
    }

    /// Stops watching. What serves goes on serving until its slots are dropped.
    pub fn stop(&self) {
        drop(self.directory.lock().take());
        // Already stopped: nothing to do.
        let _ = self.inbox.send(Message::Stop);
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that owns the policies has panicked");
        }
    }

    fn environment_of(&self, policy: &str) -> Environment {
        let mut environment = self.environment.clone();
        if let Some(settings) = self.settings.get(policy) {
            environment.settings_json.clone_from(settings);
        }
        environment
    }

    fn next(&self) -> u64 {
        self.slots.fetch_add(1, Relaxed)
    }

    fn notebook(&self, slot: u64) -> Notebook {
        let tell = self.inbox.clone();
        Notebook::new(move |told: Told| {
            // Nobody listens any more: the router stops.
            let _ = tell.send(Message::Told(slot, told));
        })
    }

    /// Returns when the registry knows of the slot: if the file is there, `resolve` waits for it from
    /// the first change on.
    fn bind(&self, id: u64, owner: String, policy: &str, port: Arc<dyn Port>) {
        let policy = policy.to_owned();
        let bound = self.ask(Duration::from_secs(5), |done| Message::Bind {
            id,
            owner,
            policy,
            port,
            done,
        });
        if bound.is_none() {
            tracing::error!("a policy was bound, and the registry does not answer");
        }
    }

    fn ask<T>(
        &self,
        patience: Duration,
        message: impl FnOnce(SyncSender<T>) -> Message,
    ) -> Option<T> {
        let (reply, answer) = sync_channel(1);
        self.inbox.send(message(reply)).ok()?;
        answer.recv_timeout(patience).ok()
    }
}

impl Drop for Policies {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A load that is under way, until nobody wants it any more.
#[derive(Clone, Debug)]
struct Wanted(Arc<AtomicBool>);

impl Wanted {
    fn new() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    fn cancel(&self) {
        self.0.store(false, Relaxed);
    }

    fn is_wanted(&self) -> bool {
        self.0.load(Relaxed)
    }
}
