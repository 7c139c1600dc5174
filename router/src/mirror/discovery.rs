//! The task that finds mirrors: who announces itself, what it says of itself, which of our storages it
//! is a mirror of. It starts a task for each pair, and tells it when the other comes and goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::{AbortHandle, JoinHandle, JoinSet},
};
use weir_settings::StorageSettings;

use super::{
    answering::{Answering, Desk},
    board::Board,
    hello::{Address, Directions, EVERYONE, Hello, Own},
    seeker::Seeker,
    sightings::{PEERS_MAX, Sightings},
    task::{self, Call, Pair},
};
use crate::{
    forward::Links,
    session::{Bus, GetOptions, Liveliness, Result as BusResult, Service as Serving, Subscription},
    storage::Storage,
};

/// Storages that are asked for their hello at once.
const GREETINGS_AT_ONCE: usize = 16;
/// How long one may take, and the pauses before it is asked again.
const GREETING_LIMIT: Duration = Duration::from_secs(5);
const GREETING_PAUSE_MIN: Duration = Duration::from_millis(250);
const GREETING_PAUSE_MAX: Duration = Duration::from_secs(30);
/// A mirror that is gone for longer is forgotten, with what is shown of it: a router without an `id`
/// in its settings has another one after every start.
const GONE_MAX: Duration = Duration::from_secs(600);
/// How often such are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(30);
/// How long a task may take to end.
const END_LIMIT: Duration = Duration::from_secs(10);

/// What the rest of the router asks of discovery.
pub(super) enum Command {
    /// A storage is open. Answered when it is announced.
    Add(
        Arc<Storage>,
        Box<StorageSettings>,
        oneshot::Sender<BusResult<()>>,
    ),
    /// A storage is to be closed. Answered when nothing of it is at work any more.
    Remove(String, oneshot::Sender<()>),
    /// A link looks for upstreams.
    Seek(Seeker),
}

/// A storage of ours.
struct Local {
    own: Own,
    storage: Arc<Storage>,
    // Held for their drop: first it is announced no more, then it answers no more.
    token: Option<Liveliness>,
    serving: Serving,
}

/// A storage that announces itself.
enum Peer {
    /// It is being asked what it is.
    Asked(AbortHandle),
    /// It has said what it is.
    Met(Arc<Hello>),
}

/// A pair's task.
struct Running {
    calls: mpsc::Sender<Call>,
    task: JoinHandle<()>,
    hello: Arc<Hello>,
    directions: Directions,
    /// Since when its other side is not there.
    gone: Option<Instant>,
}

/// The task's state.
pub(super) struct Discovery {
    bus: Bus,
    router: String,
    board: Board,
    desk: Arc<Desk>,
    sightings: Arc<Sightings<bool>>,
    seekers: Vec<Seeker>,
    locals: BTreeMap<String, Local>,
    peers: BTreeMap<Address, Peer>,
    running: BTreeMap<(String, Address), Running>,
    /// Storages of our own router that nobody wants as a mirror.
    passed: BTreeSet<Address>,
    greetings: JoinSet<(Address, Hello)>,
    turns: Arc<Semaphore>,
    _watch: Subscription,
}

impl Discovery {
    /// Begins to watch who is there.
    ///
    /// # Errors
    /// What Zenoh says.
    pub(super) async fn new(
        bus: Bus,
        router: String,
        board: Board,
        links: Arc<Links>,
    ) -> BusResult<Self> {
        let sightings = Arc::<Sightings<bool>>::default();
        let seen = Arc::clone(&sightings);
        let watch = bus.watch_liveliness(EVERYONE, move |sample| {
            if let Some(address) = Address::parse(sample.key_expr()) {
                seen.note(address, sample.kind() == zenoh::sample::SampleKind::Put);
            }
        });
        Ok(Self {
            _watch: watch.await?,
            desk: Arc::new(Desk::new(board.clone(), links)),
            bus,
            router,
            board,
            sightings,
            seekers: Vec::new(),
            locals: BTreeMap::new(),
            peers: BTreeMap::new(),
            running: BTreeMap::new(),
            passed: BTreeSet::new(),
            greetings: JoinSet::new(),
            turns: Arc::new(Semaphore::new(GREETINGS_AT_ONCE)),
        })
    }

    /// Works until nobody can command any more; then ends every pair.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut forget = tokio::time::interval(FORGET_EVERY);
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => break,
                },
                () = self.sightings.woken() => {
                    for (address, is_there) in self.sightings.take() {
                        self.sight(address, is_there);
                    }
                }
                // Nobody is greeted: nothing to wait for.
                Some(met) = self.greetings.join_next() => {
                    if let Ok((address, hello)) = met {
                        self.meet(address, Arc::new(hello)).await;
                    }
                }
                _ = forget.tick() => self.forget().await,
            }
        }
        let names: Vec<String> = self.locals.keys().cloned().collect();
        for name in names {
            self.remove(&name).await;
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Add(storage, settings, done) => {
                // Whoever asked and is gone needs no answer.
                let _ = done.send(self.add(storage, &settings).await);
            }
            Command::Remove(name, done) => {
                self.remove(&name).await;
                let _ = done.send(());
            }
            Command::Seek(seeker) => {
                for (address, peer) in &self.peers {
                    if let Peer::Met(hello) = peer {
                        seeker.meet(&self.router, address, hello);
                    }
                }
                self.seekers.push(seeker);
            }
        }
    }

    async fn add(&mut self, storage: Arc<Storage>, settings: &StorageSettings) -> BusResult<()> {
        let own = Own::new(&self.router, &storage, settings);
        let mut backends: Vec<String> = settings
            .shards
            .iter()
            .map(|shard| shard.backend.name().to_owned())
            .collect();
        backends.dedup();
        let answering = Arc::new(Answering {
            own: own.clone(),
            storage: Arc::clone(&storage),
            backends,
            desk: Arc::clone(&self.desk),
        });
        let key = own.address.key();
        // First it answers, then it is announced.
        let take = move |query| answering.take(query);
        let serving = self.bus.declare_queryable(&key, true, take).await?;
        // Who is no mirror may still be an upstream.
        let token = Some(self.bus.declare_liveliness(&key).await?);
        let (name, wants) = (own.address.storage.clone(), own.clone());
        let local = Local {
            own,
            storage,
            token,
            serving,
        };
        self.locals.insert(name, local);
        let met = self.peers.iter().filter_map(|(address, peer)| match peer {
            Peer::Met(hello) => Some((address.clone(), Arc::clone(hello))),
            Peer::Asked(_) => None,
        });
        let met: Vec<_> = met.collect();
        for (address, hello) in met {
            self.pair(&address, &hello).await;
        }
        // Of those of our own router that nobody wanted before, the ones that this storage wants.
        let wanted: Vec<_> = self
            .passed
            .extract_if(.., |other| wants.names(other))
            .collect();
        for address in wanted {
            self.sight(address, true);
        }
        Ok(())
    }

    async fn remove(&mut self, name: &str) {
        let Some(local) = self.locals.remove(name) else {
            return;
        };
        drop(local.token);
        let pairs: Vec<_> = self
            .running
            .keys()
            .filter(|(storage, _)| storage == name)
            .cloned()
            .collect();
        for pair in pairs {
            self.end(&pair).await;
        }
        if let Err(error) = local.serving.undeclare().await {
            tracing::warn!(%error, "a mirror's queryable could not be undeclared");
        }
    }

    /// Somebody came or went.
    fn sight(&mut self, address: Address, is_there: bool) {
        if !is_there {
            self.passed.remove(&address);
            if let Some(Peer::Asked(asking)) = self.peers.remove(&address) {
                asking.abort();
            }
            for ((_, other), running) in &mut self.running {
                if *other == address {
                    running.gone.get_or_insert_with(Instant::now);
                    running.call(Call::Gone);
                }
            }
            for seeker in &self.seekers {
                seeker.lose(&address);
            }
            return;
        }
        if self.peers.contains_key(&address) {
            return;
        }
        if !self.is_of_interest(&address) {
            self.passed.insert(address);
            return;
        }
        if self.peers.len() >= PEERS_MAX {
            tracing::warn!(%address, "too many storages announce themselves: not mirrored with");
            return;
        }
        let (bus, turns) = (self.bus.clone(), Arc::clone(&self.turns));
        let asked = address.clone();
        let asking = self.greetings.spawn(async move {
            let hello = greet(&bus, &asked, &turns).await;
            (asked, hello)
        });
        self.peers.insert(address, Peer::Asked(asking));
    }

    /// Of our own router only who is named is looked at.
    fn is_of_interest(&self, address: &Address) -> bool {
        address.router != self.router || self.locals.values().any(|local| local.own.names(address))
    }

    /// Somebody has said what it is.
    async fn meet(&mut self, address: Address, hello: Arc<Hello>) {
        let Some(peer) = self.peers.get_mut(&address) else {
            // It went while it was asked.
            return;
        };
        *peer = Peer::Met(Arc::clone(&hello));
        for seeker in &self.seekers {
            seeker.meet(&self.router, &address, &hello);
        }
        self.pair(&address, &hello).await;
    }

    /// Has a task for each of our storages that this one is a mirror of.
    async fn pair(&mut self, address: &Address, hello: &Arc<Hello>) {
        let names: Vec<String> = self.locals.keys().cloned().collect();
        for name in names {
            let Some(local) = self.locals.get(&name) else {
                continue;
            };
            let directions = local.own.directions(hello);
            let pair = (name, address.clone());
            if let Some(running) = self.running.get_mut(&pair) {
                let is_same = Some(running.directions) == directions
                    && running.hello.keys == hello.keys
                    && running.hello.series == hello.series;
                if is_same && !running.task.is_finished() {
                    running.gone = None;
                    running.call(Call::Back);
                    continue;
                }
                self.end(&pair).await;
            }
            let (Some(directions), Some(local)) = (directions, self.locals.get(&pair.0)) else {
                continue;
            };
            let running = self.start(local, address, hello, directions);
            self.running.insert(pair, running);
        }
    }

    fn start(
        &self,
        local: &Local,
        address: &Address,
        hello: &Arc<Hello>,
        directions: Directions,
    ) -> Running {
        tracing::info!(
            storage = local.own.address.storage,
            mirror = %address,
            takes = directions.takes,
            gives = directions.gives,
            "a mirror is found"
        );
        let noticed = local.storage.notices.of(&address.to_string());
        let name = &local.own.address.storage;
        let figures = self.board.open(name, address, directions, noticed);
        // One call replaces another in effect; a task that is that far behind looks anyway.
        let (calls, received) = mpsc::channel(16);
        let pair = Pair {
            bus: self.bus.clone(),
            storage: Arc::clone(&local.storage),
            own: local.own.clone(),
            peer: address.clone(),
            hello: Arc::clone(hello),
            directions,
            figures,
        };
        Running {
            calls,
            task: tokio::spawn(task::run(pair, received)),
            hello: Arc::clone(hello),
            directions,
            gone: None,
        }
    }

    /// Ends a pair's task and waits until it has.
    async fn end(&mut self, pair: &(String, Address)) {
        let Some(running) = self.running.remove(pair) else {
            return;
        };
        drop(running.calls);
        let stop = running.task.abort_handle();
        if tokio::time::timeout(END_LIMIT, running.task).await.is_err() {
            tracing::warn!(storage = pair.0, mirror = %pair.1, "a mirror's task did not end in time");
            stop.abort();
        }
        self.board.close(&pair.0, &pair.1);
    }

    /// Forgets who is gone for long.
    async fn forget(&mut self) {
        let is_old = |gone: Option<Instant>| gone.is_some_and(|gone| gone.elapsed() > GONE_MAX);
        let old: Vec<_> = self
            .running
            .iter()
            .filter(|(_, running)| is_old(running.gone))
            .map(|(pair, _)| pair.clone())
            .collect();
        for pair in old {
            self.end(&pair).await;
        }
    }
}

impl Running {
    fn call(&self, call: Call) {
        // A full channel holds calls enough; a closed one belongs to a task that has failed, and that
        // is shown.
        let _ = self.calls.try_send(call);
    }
}

/// Asks a storage what it is until it answers. Ends by being aborted when it is gone.
async fn greet(bus: &Bus, address: &Address, turns: &Semaphore) -> Hello {
    let mut pause = GREETING_PAUSE_MIN;
    loop {
        // The semaphore is never closed.
        let turn = turns.acquire().await;
        match hello_of(bus, address).await {
            Ok(hello) => return hello,
            Err(why) => tracing::debug!(mirror = %address, why, "no hello yet"),
        }
        drop(turn);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(GREETING_PAUSE_MAX);
    }
}

/// Asks a storage once what it is.
async fn hello_of(bus: &Bus, address: &Address) -> Result<Hello, String> {
    let options = GetOptions {
        timeout: GREETING_LIMIT,
        ..GetOptions::default()
    };
    let mut replies = bus
        .get(&address.key(), options)
        .await
        .map_err(|error| error.to_string())?;
    let reply = replies.next().await.ok_or("nobody answers")?;
    // Zenoh warns of the end of a query that nobody waits for any more.
    while replies.next().await.is_some() {}
    match reply.result() {
        Ok(sample) => {
            let hello: Hello = serde_json::from_slice(&sample.payload().to_bytes())
                .map_err(|error| error.to_string())?;
            let said = (hello.router == address.router) && (hello.name == address.storage);
            said.then_some(hello)
                .ok_or_else(|| "it says that it is another".to_owned())
        }
        Err(error) => Err(String::from_utf8_lossy(&error.payload().to_bytes()).into_owned()),
    }
}
