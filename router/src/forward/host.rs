//! A link: its journal, its task, its tap, its upstreams.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinHandle};
use weir_core::{
    change::KeptChange,
    forward::link::{Rules, State},
};
use weir_policy::Policies;
use weir_settings::ForwardSettings;

use super::{
    Surroundings,
    journal::{SharedJournal, pinned},
    keeper::{self, Keeper},
    lanes::ByRules,
    seeking::Seeking,
    show::{self, Figures, Rate},
    tap::Tap,
};
use crate::{
    clock::SharedClock,
    convert,
    mirror::{
        Mirrors,
        hello::{Address, Keys},
        seeker::{Found, Seeker},
    },
    policies,
    session::{Bus, Service as Serving, Subscription},
    share::Share,
};

/// How long a link may take to keep what came and to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(60);

/// A link.
pub(super) struct Host {
    /// What it is told.
    pub settings: ForwardSettings,
    /// The router's id.
    pub router: String,
    /// Now.
    pub clock: Arc<SharedClock>,
    /// What waits.
    pub journal: Arc<SharedJournal>,
    tap: Arc<Tap>,
    policies: Option<Arc<Policies>>,
    upstreams: Mutex<BTreeMap<Address, Arc<Figures>>>,
    appended: Mutex<Rate>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    attached: Mutex<Option<Attached>>,
}

/// What keeps a link known to the network.
struct Attached {
    subscriptions: Vec<Subscription>,
    serving: Vec<Serving>,
    /// Held for its drop.
    stop: oneshot::Sender<()>,
    seeking: JoinHandle<()>,
}

impl Host {
    /// Opens the journal, if it can be, and starts the task.
    pub(super) async fn open(settings: ForwardSettings, around: Surroundings) -> Result<Arc<Self>> {
        let tap = Tap::new(&settings.name, settings.keys.clone(), around.acks);
        let native = ByRules::new(&settings.lanes);
        let policy = settings.prioritize.as_ref().map(|_| {
            let native = Box::new(native.clone());
            policies::bind_prioritize(around.policies.as_deref(), &settings, native)
        });
        let (of, now) = (settings.clone(), around.clock.now());
        let journal = tokio::task::spawn_blocking(move || SharedJournal::open(&of, now));
        let journal = Arc::new(journal.await?);
        let keeper = Keeper::new(
            &settings,
            Arc::clone(&tap),
            Arc::clone(&journal),
            Arc::clone(&around.clock),
            native,
            policy,
        );
        let upstreams = pinned(&settings.to).into_iter();
        let upstreams = upstreams.map(|address| (address, Arc::default()));
        let task = tokio::spawn(keeper::drive(
            keeper,
            Arc::clone(&tap),
            Arc::clone(&journal),
        ));
        Ok(Arc::new(Self {
            settings,
            router: around.router,
            clock: around.clock,
            journal,
            tap,
            policies: around.policies,
            upstreams: Mutex::new(upstreams.collect()),
            appended: Mutex::default(),
            keeper: Mutex::new(Some(task)),
            attached: Mutex::new(None),
        }))
    }

    /// Begins to listen, and to look for upstreams.
    ///
    /// # Errors
    /// What Zenoh says.
    pub(super) async fn attach(self: &Arc<Self>, bus: &Bus, mirrors: &Mirrors) -> Result<()> {
        let exprs = self.settings.keys.declared();
        let (mut subscriptions, mut serving) = (Vec::new(), Vec::new());
        for (expr, share) in exprs.iter().zip(Share::of(&exprs)) {
            let (tap, part) = (Arc::clone(&self.tap), share.clone());
            // Not complete: a query goes to storages, wherever they are, and the link answers none but
            // those that ask for an acknowledgement.
            let answering = bus.declare_queryable(expr, false, move |query| {
                if part.takes(query.key_expr()) {
                    tap.ask(query);
                }
            });
            serving.push(answering.await?);
            let tap = Arc::clone(&self.tap);
            let subscription = bus.declare_subscriber(expr, move |sample| {
                if share.takes(sample.key_expr()) {
                    tap.take(sample);
                }
            });
            subscriptions.push(subscription.await?);
        }
        let found = Arc::<Found>::default();
        let seeking = Seeking {
            host: Arc::clone(self),
            bus: bus.clone(),
            found: Arc::clone(&found),
            running: BTreeMap::new(),
        };
        let (stop, stopped) = oneshot::channel();
        let seeking = tokio::spawn(seeking.run(stopped));
        *self.attached.lock() = Some(Attached {
            subscriptions,
            serving,
            stop,
            seeking,
        });
        let seeker = Seeker {
            keys: Keys::of(&self.settings.keys),
            to: self.settings.to.clone(),
            found,
        };
        let sought = mirrors.seek(seeker).await;
        sought.with_context(|| format!("link `{}` cannot look for upstreams", self.name()))
    }

    /// Listens no more; then keeps what came, and closes the journal.
    pub(super) async fn close(&self) {
        let attached = self.attached.lock().take();
        if let Some(attached) = attached {
            for subscription in attached.subscriptions {
                if let Err(error) = subscription.undeclare().await {
                    tracing::warn!(%error, "a subscriber could not be undeclared");
                }
            }
            for serving in attached.serving {
                if let Err(error) = serving.undeclare().await {
                    tracing::warn!(%error, "a queryable could not be undeclared");
                }
            }
            drop(attached.stop);
            if let Err(error) = attached.seeking.await {
                tracing::error!(link = self.name(), %error, "looking for upstreams ended badly");
            }
        }
        self.tap.queue.close();
        let task = self.keeper.lock().take();
        let Some(task) = task else { return };
        match tokio::time::timeout(CLOSE_LIMIT, task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(link = self.name(), %error, "the link's task ended badly");
            }
            Err(_) => tracing::error!(link = self.name(), "the link's task did not end in time"),
        }
    }

    /// Keeps what of these is its own; returns when it is.
    ///
    /// # Errors
    /// In words, if it is not.
    pub(super) async fn carry(&self, changes: &[KeptChange]) -> Result<(), String> {
        let carried = self.tap.carry(changes).await;
        carried.map_err(|why| format!("link `{}` cannot carry it on: {why}", self.name()))
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.settings.name
    }

    /// How it behaves towards an upstream.
    pub(super) fn rules(&self) -> Rules {
        let settings = &self.settings;
        Rules {
            order: settings.order,
            period: convert::ntp64_span(settings.period),
            timeout: convert::ntp64_span(settings.timeout),
            rate: settings.rate,
            ..Rules::default()
        }
    }

    /// Whether the settings name a storage by its router and its own name: it is waited for however long
    /// it is gone.
    pub(super) fn names(&self, address: &Address) -> bool {
        pinned(&self.settings.to).contains(address)
    }

    /// Shows an upstream from now on.
    pub(super) fn show_upstream(&self, address: Address, figures: Arc<Figures>) {
        self.upstreams.lock().insert(address, figures);
    }

    /// Shows it no more.
    pub(super) fn hide_upstream(&self, address: &Address) {
        self.upstreams.lock().remove(address);
    }

    /// Takes the measure of the last `span`.
    pub(super) fn measure(&self, span: Duration) {
        let appended = self.journal.kept();
        self.appended.lock().measure(appended, span);
        for figures in self.upstreams().values() {
            figures.measure(span);
        }
    }

    /// What its upstreams show.
    pub(super) fn upstreams(&self) -> BTreeMap<Address, Arc<Figures>> {
        self.upstreams.lock().clone()
    }

    /// How it stands with its upstreams.
    pub(super) fn state(&self) -> State {
        match self.journal.broken() {
            Some(_) => State::Faulted,
            None => show::worst(self.upstreams().values().map(|figures| figures.state())),
        }
    }

    /// What is wrong, if something is that somebody has to see to: that nobody is there is not.
    pub(super) fn ill(&self) -> Option<String> {
        if let Some(why) = self.journal.broken() {
            return Some(format!("nothing is kept: {why}"));
        }
        let upstreams = self.upstreams();
        let faulted = upstreams
            .iter()
            .find(|(_, figures)| figures.state() == State::Faulted);
        faulted.map(|(address, _)| format!("faulted: {address} gives no certificates"))
    }

    /// Samples that were not even handed over.
    pub(super) fn overrun(&self) -> u64 {
        self.tap.overrun.load(Relaxed)
    }

    /// Records that are appended, and shipped, a second.
    fn rates(&self) -> (f64, f64) {
        let upstreams = self.upstreams();
        let drained = upstreams.values().map(|figures| figures.drain_per_s());
        (self.appended.lock().per_s, drained.sum())
    }

    /// What is shown of it. May wait for its journal.
    pub(super) fn to_json(&self) -> Value {
        let upstreams: Vec<Value> = self
            .upstreams()
            .iter()
            .map(|(address, figures)| figures.to_json(address))
            .collect();
        let (append_per_s, drain_per_s) = self.rates();
        let keys = Keys::of(&self.settings.keys);
        let mut shown = json!({
            "name": self.name(),
            "key_exprs": keys.key_exprs,
            "exclude": keys.exclude,
            "dir": self.settings.dir,
            "state": show::word(self.state()),
            "budget_bytes": self.settings.budget.bytes,
            "upstreams": upstreams,
            "rates": { "append_per_s": append_per_s, "drain_per_s": drain_per_s },
            "poisoned": self.journal.broken(),
            "policy": self.policy(),
        });
        let status = self.journal.status();
        if let (Value::Object(shown), Value::Object(more)) = (
            &mut shown,
            show::of_journal(&status, self.overrun(), self.journal.rejected()),
        ) {
            shown.extend(more);
        }
        shown
    }

    /// The seat of the policy that decides, if one is named.
    fn policy(&self) -> Option<Value> {
        let (policies, name) = (self.policies.as_ref()?, self.settings.prioritize.as_ref()?);
        let owner = format!("forward/{}", self.name());
        let all = policies.status();
        let policy = all.iter().find(|policy| policy.name == *name)?;
        let slot = policy.slots.iter().find(|slot| slot.owner == owner)?;
        let mut shown = json!(slot);
        shown["name"] = json!(name);
        Some(shown)
    }
}
