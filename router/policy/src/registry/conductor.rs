//! The thread that owns policies and slots.

mod loading;

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender},
    },
    time::{Duration, Instant},
};

use weir_core::slot::{self, ContentHash, Effect, Report, Service, Slot, State, Verdicts};

use super::{
    PoliciesSettings, Wanted,
    bound::{Bound, Prepared},
    clock::Clock,
    file::{Condition, File, Loaded},
    loader::Loader,
};
use crate::{
    directory::{Dropped, Event, Notes},
    environment::{Environment, Hook},
    host::Host,
    slot::{Port, Told},
    status::{DirectoryStatus, PolicyStatus, Refused, rfc3339},
};

/// How often slots that have to prove themselves are asked how many calls they have answered.
const COUNT_EVERY: Duration = Duration::from_millis(250);
/// Questions of one look at the laws: a few milliseconds of a loading thread.
const LAW_CALLS_MAX: u64 = 200;
/// Nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// What the thread is told.
pub(super) enum Message {
    Directory(Event),
    /// A file's module was loaded, or not.
    Loaded(String, ContentHash, Result<Loaded, Refused>),
    /// A revision was started for a slot and has passed what it had to, or not.
    Prepared(u64, ContentHash, Result<Prepared, Refused>),
    Told(u64, Told),
    /// A resolver breaks a law on what it was asked about.
    Unlawful(u64, ContentHash, String),
    Bind {
        id: u64,
        owner: String,
        policy: String,
        port: Arc<dyn Port>,
        done: SyncSender<()>,
    },
    Settled(SyncSender<()>),
    Status(SyncSender<(Vec<PolicyStatus>, Option<DirectoryStatus>)>),
    Stop,
}

pub(super) struct Conductor {
    settings: Arc<PoliciesSettings>,
    host: Arc<Host>,
    environment: Environment,
    inbox: Sender<Message>,
    loader: Loader,
    notes: Notes,
    policies: BTreeMap<String, Policy>,
    slots: BTreeMap<u64, Bound>,
    /// Why the directory cannot be read.
    lost: Option<String>,
    /// Told when the directory was looked at for the first time.
    looked: Option<SyncSender<()>>,
    settled: Vec<SyncSender<()>>,
    clock: Clock,
    counted: Instant,
    /// When the laws were last tried on resolvers that serve.
    tried: Instant,
}

#[derive(Default)]
struct Policy {
    file: Option<File>,
    /// The load that is under way.
    load: Option<(ContentHash, Wanted)>,
    /// What stands in the note beside the file.
    note: Option<String>,
}

impl Conductor {
    pub(super) fn new(
        settings: PoliciesSettings,
        host: Arc<Host>,
        environment: Environment,
        inbox: Sender<Message>,
        looked: SyncSender<()>,
    ) -> io::Result<Self> {
        Ok(Self {
            notes: Notes::new(std::path::absolute(&settings.directory.dir)?),
            settings: Arc::new(settings),
            host,
            environment,
            inbox,
            loader: Loader::start()?,
            policies: BTreeMap::new(),
            slots: BTreeMap::new(),
            lost: None,
            looked: Some(looked),
            settled: Vec::new(),
            clock: Clock::start(),
            counted: Instant::now(),
            tried: Instant::now(),
        })
    }

    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        loop {
            match messages.recv_timeout(self.wait()) {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(message) => self.handle(message),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.tick();
            self.tell_settled();
        }
    }

    fn wait(&self) -> Duration {
        let due = self
            .slots
            .values()
            .filter_map(|bound| bound.machine.deadline())
            .min();
        let mut due = due.map_or(IDLE, |due| self.clock.until(due));
        if self
            .slots
            .values()
            .any(|bound| bound.port.hook() == Hook::Resolve)
        {
            due = due.min(
                self.settings
                    .laws_every
                    .saturating_sub(self.tried.elapsed()),
            );
        }
        if self.slots.values().any(|bound| unproven(bound).is_some()) {
            return due.min(COUNT_EVERY.saturating_sub(self.counted.elapsed()));
        }
        due
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Directory(Event::Present(dropped)) => self.present(&dropped),
            Message::Directory(Event::Unreadable(name, reason)) => {
                let file = File::unreadable(reason);
                self.policies.entry(name.clone()).or_default().file = Some(file);
                self.note(&name);
            }
            Message::Directory(Event::Absent(name)) => self.absent(&name),
            Message::Directory(Event::Looked(found)) => self.looked(found.err()),
            Message::Loaded(name, content, result) => self.loaded(&name, content, result),
            Message::Prepared(id, content, result) => self.prepared(id, content, result),
            Message::Told(id, Told::Failed(content, blame)) => {
                self.feed(id, slot::Event::Failed(content, blame));
            }
            Message::Told(id, Told::Left) => self.left(id),
            Message::Unlawful(id, content, example) => self.unlawful(id, content, example),
            Message::Bind {
                id,
                owner,
                policy,
                port,
                done,
            } => {
                self.bind(id, owner, policy, port);
                answer(&done, ());
            }
            Message::Settled(reply) => self.settled.push(reply),
            Message::Status(reply) => {
                let status = self.status();
                let directory = DirectoryStatus {
                    dir: self.settings.directory.dir.display().to_string(),
                    error: self.lost.clone(),
                };
                answer(&reply, (status, Some(directory)));
            }
            Message::Stop => {}
        }
    }

    // What the directory tells.

    fn present(&mut self, dropped: &Dropped) {
        let name = dropped.name.clone();
        let mut file = File::of(dropped, self.settings.signatures, &self.settings.keys);
        let policy = self.policies.entry(name.clone()).or_default();
        let content = file.content.filter(|_| file.refusal().is_none());
        if let Some(warning) = &file.warning {
            tracing::warn!(
                policy = name,
                warning,
                "a policy that nobody vouches for serves"
            );
        }
        if let Some(content) = content {
            let before = policy.file.take();
            match before.map(|before| (before.content, before.condition)) {
                // Only its signature has changed.
                Some((Some(same), condition @ Condition::Ready(_))) if same == content => {
                    file.condition = condition;
                }
                _ if policy
                    .load
                    .as_ref()
                    .is_some_and(|(loading, _)| *loading == content) => {}
                _ => {
                    if let Some((_, wanted)) = policy.load.take() {
                        wanted.cancel();
                    }
                    let wanted = Wanted::new();
                    policy.load = Some((content, wanted.clone()));
                    self.load(&name, content, dropped, wanted);
                }
            }
        }
        self.policies.entry(name.clone()).or_default().file = Some(file);
        if let Some(content) = content {
            self.feed_all(&name, &slot::Event::Offered(content));
        }
        self.note(&name);
    }

    fn absent(&mut self, name: &str) {
        if let Some(policy) = self.policies.get_mut(name) {
            policy.file = None;
            if let Some((_, wanted)) = policy.load.take() {
                wanted.cancel();
            }
        }
        self.feed_all(name, &slot::Event::Removed);
        self.note(name);
        if self.is_bound(name) {
            tracing::warn!(policy = name, on_remove = ?self.settings.on_remove, "its file is gone");
        } else {
            self.policies.remove(name);
        }
    }

    fn looked(&mut self, lost: Option<String>) {
        if lost != self.lost {
            let dir = self.settings.directory.dir.display();
            match &lost {
                Some(error) => {
                    tracing::warn!(%dir, error, "the policies' directory cannot be read: what serves goes on");
                }
                None => tracing::info!(%dir, "the policies' directory is back"),
            }
        }
        self.lost = lost;
        if let Some(looked) = self.looked.take() {
            let policies = &self.policies;
            self.notes.sweep(|name| policies.contains_key(name));
            answer(&looked, ());
        }
    }

    // Slots.

    fn bind(&mut self, id: u64, owner: String, policy: String, port: Arc<dyn Port>) {
        let verdicts = match port.hook() {
            Hook::Route | Hook::Prioritize => Verdicts::Local,
            Hook::Resolve => Verdicts::Replicated,
        };
        let machine = Slot::new(verdicts, self.settings.on_remove, self.settings.breaker);
        let name = policy.clone();
        self.slots
            .insert(id, Bound::new(owner, policy, port, machine));
        let policy = self.policies.entry(name.clone()).or_default();
        let acceptable = policy.file.as_ref().filter(|file| {
            // What could not be loaded is offered too, so that the slot says why it does not serve.
            file.refusal()
                .is_none_or(|refused| refused.code != "signature")
        });
        match acceptable.and_then(|file| file.content) {
            Some(content) => self.feed(id, slot::Event::Offered(content)),
            None => {
                let dir = self.settings.directory.dir.display();
                let file = format!("{name}.wasm");
                tracing::warn!(policy = name, %dir, file, "no such policy: the native rule decides");
            }
        }
        self.note(&name);
    }

    fn left(&mut self, id: u64) {
        let Some(bound) = self.slots.remove(&id) else {
            return;
        };
        let name = bound.policy;
        let is_there = self
            .policies
            .get(&name)
            .is_some_and(|policy| policy.file.is_some());
        self.note(&name);
        if !is_there && !self.is_bound(&name) {
            self.policies.remove(&name);
        }
    }

    fn feed_all(&mut self, name: &str, event: &slot::Event) {
        for id in self.slots_of(name) {
            self.feed(id, event.clone());
        }
    }

    fn feed(&mut self, id: u64, event: slot::Event) {
        let now = self.clock.now();
        let Some(bound) = self.slots.get_mut(&id) else {
            return;
        };
        let effects = bound.machine.handle(now, event);
        if effects.is_empty() {
            return;
        }
        let mut changes = Changes::default();
        for effect in effects {
            self.perform(id, effect, &mut changes);
        }
        if let Some(bound) = self.slots.get_mut(&id)
            && (changes.service || changes.kept)
        {
            bound.publish(changes.service);
        }
        if changes.told
            && let Some(name) = self.slots.get(&id).map(|bound| bound.policy.clone())
        {
            self.note(&name);
        }
    }

    fn perform(&mut self, id: u64, effect: Effect, changes: &mut Changes) {
        let Some(bound) = self.slots.get_mut(&id) else {
            return;
        };
        let (owner, policy, hook) = (&bound.owner, &bound.policy, bound.port.hook());
        match effect {
            Effect::Serve(service) => {
                changes.service = true;
                match service {
                    Service::Revision(revision) => {
                        tracing::info!(policy, owner, %hook, ?revision, "a policy serves");
                        bound.clear_of_others(revision);
                        changes.told = true;
                    }
                    Service::Native => {
                        tracing::info!(policy, owner, %hook, "the native rule serves");
                    }
                    Service::Wait => {
                        tracing::info!(policy, owner, %hook, "conflicts wait for the policy");
                    }
                }
            }
            Effect::Forget(content) => {
                bound.forget(content);
                changes.kept = true;
            }
            Effect::Report(revision, report) => {
                match &report {
                    Report::Refused(reason) => {
                        tracing::warn!(policy, owner, %hook, ?revision, reason, "a policy is refused");
                    }
                    Report::RolledBack(to) => {
                        tracing::warn!(policy, owner, %hook, ?revision, ?to, "a policy is rolled back");
                    }
                    Report::Opened(_) => {
                        tracing::warn!(policy, owner, %hook, ?revision, "a policy fails too often");
                    }
                    Report::Unlawful(example) => {
                        tracing::warn!(policy, owner, %hook, ?revision, example, "a resolver breaks a law");
                    }
                }
                bound.report(revision, report);
                changes.told = true;
            }
            Effect::Clear => {
                bound.clear();
                changes.told = true;
            }
            Effect::Load(content) => self.wanted(id, content),
        }
    }

    /// Has the laws tried on resolvers that serve, with values that they were asked about.
    fn try_laws(&self) {
        for (id, bound) in &self.slots {
            let Some((content, asked)) = bound.port.take_asked() else {
                continue;
            };
            let (id, tell) = (*id, self.inbox.clone());
            self.loader.submit(
                move || asked.broken_law(LAW_CALLS_MAX),
                |panicked| {
                    tracing::error!(panicked, "the laws cannot be tried");
                    None
                },
                move |example| {
                    if let Some(example) = example {
                        // Nobody listens any more: the router stops.
                        let _ = tell.send(Message::Unlawful(id, content, example));
                    }
                },
            );
        }
    }

    fn unlawful(&mut self, id: u64, content: ContentHash, example: String) {
        let Some(bound) = self.slots.get_mut(&id) else {
            return;
        };
        if bound.machine.service() != Service::Revision(content) {
            return;
        }
        let (owner, policy) = (&bound.owner, &bound.policy);
        tracing::warn!(policy, owner, revision = ?content, example, "a resolver breaks a law");
        let policy = policy.clone();
        bound.report(content, Report::Unlawful(example));
        self.note(&policy);
    }

    fn tick(&mut self) {
        if self.tried.elapsed() >= self.settings.laws_every {
            self.tried = Instant::now();
            self.try_laws();
        }
        if self.counted.elapsed() >= COUNT_EVERY {
            self.counted = Instant::now();
            let counts: Vec<_> = self
                .slots
                .iter()
                .filter_map(|(id, bound)| {
                    let content = unproven(bound)?;
                    Some((*id, content, bound.port.take_answered(content)))
                })
                .collect();
            for (id, content, count) in counts.into_iter().filter(|(_, _, count)| *count > 0) {
                self.feed(id, slot::Event::Succeeded(content, count));
            }
        }
        let now = self.clock.now();
        let is_due = |bound: &Bound| bound.machine.deadline().is_some_and(|due| due <= now);
        let due = self.slots.iter().filter(|(_, bound)| is_due(bound));
        let due: Vec<u64> = due.map(|(id, _)| *id).collect();
        for id in due {
            self.feed(id, slot::Event::Time);
        }
    }

    // What is told.

    fn tell_settled(&mut self) {
        let is_loading = self.policies.values().any(|policy| policy.load.is_some())
            || self
                .slots
                .values()
                .any(|bound| bound.machine.loading().is_some());
        if !is_loading && self.looked.is_none() {
            self.settled.drain(..).for_each(|reply| answer(&reply, ()));
        }
    }

    /// Writes the note beside a file, or removes it.
    fn note(&mut self, name: &str) {
        let text = self.complaints(name);
        let Some(policy) = self.policies.get_mut(name) else {
            return;
        };
        if policy.note == text {
            return;
        }
        match &text {
            Some(text) => self.notes.write(name, text),
            None => self.notes.clear(name),
        }
        policy.note = text;
    }

    fn complaints(&self, name: &str) -> Option<String> {
        let file = self.policies.get(name)?.file.as_ref()?;
        let mut lines = Vec::new();
        if let Some(Refused { code, message }) = file.refusal() {
            let at = rfc3339(file.since);
            lines.push(format!("{at} {name}.wasm is refused: {code}: {message}\n"));
        } else if let Some(content) = file.content {
            for bound in self.slots.values().filter(|bound| bound.policy == name) {
                if let Some((at, complaint)) = bound.complaint(content) {
                    lines.push(format!("{} {name}.wasm: {complaint}\n", rfc3339(at)));
                }
            }
        }
        (!lines.is_empty()).then(|| lines.concat())
    }

    fn status(&mut self) -> Vec<PolicyStatus> {
        let mut all: BTreeMap<&str, PolicyStatus> = BTreeMap::new();
        for (name, policy) in &self.policies {
            let file = policy.file.as_ref();
            let status = PolicyStatus {
                name: name.clone(),
                file: file.map(File::status),
                warning: match file {
                    None => Some(format!("{name}.wasm is not there")),
                    Some(file) => file.warning.clone(),
                },
                slots: Vec::new(),
            };
            all.insert(name, status);
        }
        for bound in self.slots.values_mut() {
            if let Some(status) = all.get_mut(bound.policy.as_str()) {
                status.slots.push(bound.status());
            }
        }
        all.into_values().collect()
    }

    fn environment_of(&self, name: &str) -> Environment {
        let mut environment = self.environment.clone();
        if let Some(settings) = self.settings.settings.get(name) {
            environment.settings_json.clone_from(settings);
        }
        environment
    }

    fn slots_of(&self, name: &str) -> Vec<u64> {
        let slots = self.slots.iter().filter(|(_, bound)| bound.policy == name);
        slots.map(|(id, _)| *id).collect()
    }

    fn is_bound(&self, name: &str) -> bool {
        self.slots.values().any(|bound| bound.policy == name)
    }
}

/// What the effects of one event have changed.
#[derive(Default)]
struct Changes {
    service: bool,
    kept: bool,
    told: bool,
}

/// The revision that has to prove itself.
fn unproven(bound: &Bound) -> Option<ContentHash> {
    match bound.machine.state() {
        State::Probation { revision, .. } | State::HalfOpen { revision, .. } => Some(revision),
        _ => None,
    }
}

fn answer<T>(reply: &SyncSender<T>, value: T) {
    // Whoever asked has lost patience.
    let _ = reply.try_send(value);
}
