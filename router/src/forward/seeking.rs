//! The task of a link that knows its upstreams: it has a task for each, and tells it when the upstream
//! comes and goes.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use super::{
    host::Host,
    show::Figures,
    upstream::{Call, Upstream},
};
use crate::{
    mirror::{
        hello::{Address, Hello, Introduction, Keys},
        line::Line,
        seeker::Found,
    },
    session::Bus,
};

/// An upstream that is gone for longer is waited for no more, if there is another: what it lacks is kept
/// for it no longer. One that the settings name by its router and storage is waited for always.
const GONE_MAX: Duration = Duration::from_secs(600);
/// How often such are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(30);
/// How long a task may take to end.
const END_LIMIT: Duration = Duration::from_secs(10);

/// The task's state.
pub(super) struct Seeking {
    pub host: Arc<Host>,
    pub bus: Bus,
    pub found: Arc<Found>,
    pub running: BTreeMap<Address, Running>,
}

/// An upstream's task.
pub(super) struct Running {
    calls: watch::Sender<Call>,
    task: JoinHandle<()>,
    hello: Arc<Hello>,
    gone: Option<Instant>,
}

impl Seeking {
    /// Works until it is stopped; then ends every upstream's task.
    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut forget = tokio::time::interval(FORGET_EVERY);
        loop {
            tokio::select! {
                // A sender that is gone stops it, too.
                _ = &mut stop => break,
                () = self.found.woken() => {
                    for (address, hello) in self.found.take() {
                        match hello {
                            Some(hello) => self.meet(address, hello).await,
                            None => self.lose(&address),
                        }
                    }
                }
                _ = forget.tick() => self.forget().await,
            }
        }
        let all: Vec<Address> = self.running.keys().cloned().collect();
        for address in all {
            self.end(&address).await;
        }
    }

    /// An upstream is there, or there again.
    async fn meet(&mut self, address: Address, hello: Arc<Hello>) {
        if let Some(running) = self.running.get_mut(&address) {
            let is_same = running.hello.keys == hello.keys && running.hello.series == hello.series;
            if is_same && !running.task.is_finished() {
                running.gone = None;
                running.call(Call::Back);
                return;
            }
            self.end(&address).await;
        }
        let (Ok(theirs), host) = (hello.keys.set(), &self.host) else {
            // It would not have been taken for an upstream.
            return;
        };
        let (link, upstream) = (host.name(), &address);
        if let Err(error) = host.journal.know(&address, theirs) {
            tracing::error!(link, %upstream, %error, "an upstream is one too many: it is brought nothing");
            return;
        }
        tracing::info!(link, %upstream, "an upstream is found");
        let figures = Arc::<Figures>::default();
        host.show_upstream(address.clone(), Arc::clone(&figures));
        let who = Introduction {
            router: host.router.clone(),
            storage: None,
            link: Some(host.name().to_owned()),
            keys: Keys::of(&host.settings.keys),
        };
        let upstream = Arc::new(Upstream {
            link: host.name().to_owned(),
            line: Arc::new(Line::new(self.bus.clone(), &address, &who)),
            rules: host.rules(),
            timeout: host.settings.timeout,
            journal: Arc::clone(&host.journal),
            figures,
            clock: Arc::clone(&host.clock),
            address: address.clone(),
        });
        // Its task begins as if this one had been heard.
        let (calls, received) = watch::channel(Call::Back);
        let running = Running {
            calls,
            task: tokio::spawn(upstream.run(received)),
            hello,
            gone: None,
        };
        self.running.insert(address, running);
    }

    /// An upstream is gone.
    fn lose(&mut self, address: &Address) {
        if let Some(running) = self.running.get_mut(address) {
            running.gone.get_or_insert_with(Instant::now);
            running.call(Call::Gone);
        }
    }

    /// Waits no more for those that are gone for long.
    async fn forget(&mut self) {
        if self.running.values().all(|running| running.gone.is_some()) {
            return;
        }
        let is_old = |running: &Running| running.gone.is_some_and(|at| at.elapsed() > GONE_MAX);
        let old: Vec<Address> = self
            .running
            .iter()
            .filter(|(address, running)| is_old(running) && !self.host.names(address))
            .map(|(address, _)| address.clone())
            .collect();
        for address in old {
            let (link, upstream) = (self.host.name(), &address);
            tracing::warn!(link, %upstream, "an upstream is gone for long: it is waited for no more");
            self.end(&address).await;
            self.host.journal.forget(&address);
            self.host.hide_upstream(&address);
        }
    }

    /// Ends an upstream's task and waits until it has.
    async fn end(&mut self, address: &Address) {
        let Some(running) = self.running.remove(address) else {
            return;
        };
        drop(running.calls);
        let stop = running.task.abort_handle();
        if tokio::time::timeout(END_LIMIT, running.task).await.is_err() {
            let (link, upstream) = (self.host.name(), address);
            tracing::warn!(link, %upstream, "an upstream's task did not end in time");
            stop.abort();
        }
    }
}

impl Running {
    fn call(&self, call: Call) {
        // A closed channel belongs to a task that has failed, and that is shown.
        let _ = self.calls.send(call);
    }
}
