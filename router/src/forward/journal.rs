//! A link's journal, shared by its task, its upstreams' tasks and who looks at it. It may not be open: a
//! directory that cannot be used, or a disk that has failed, stops the link alone, and is tried again.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use weir_core::{
    backlog::Verdict,
    forward::{Lost, Mark, Missing, Order, Outbox, Page, Position, Stretch},
    ledger::{Item, Summary},
    mirror::Unreadable,
    pattern::KeySet,
    wildcard::WildcardOp,
};
use weir_journal::{
    Appended, Journal, JournalError, Options, Scope, Status, Unranked, Upstream, Waiting,
};
use weir_settings::{ForwardSettings, OnFull, Peers};

use crate::{convert, mirror::hello::Address};

/// Pauses between tries to open it.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How old may be what is told of its depth: to look, the journal has to be free.
const DEPTH_EVERY: Duration = Duration::from_millis(100);

/// A journal that may not be open.
pub(super) struct SharedJournal {
    link: String,
    options: Options,
    keys: KeySet,
    state: RwLock<State>,
    /// Which keys concern each upstream.
    known: Mutex<BTreeMap<Address, Scope>>,
    /// Samples that were kept.
    kept: AtomicU64,
    /// Samples that came while it was not open, or could not be kept for another reason of its own.
    rejected: AtomicU64,
    /// How many wait and their bytes, and when that was looked at.
    depth: Mutex<(Instant, u64, u64)>,
    /// Whether the last that came was not kept.
    failing: AtomicBool,
    /// Whether the last flush has failed.
    failing_flush: AtomicBool,
    /// Who decides about what comes.
    who: Mutex<u32>,
    /// Whether what waits could not be decided about again the last time.
    failing_rank: AtomicBool,
    retry: Mutex<Retry>,
}

enum State {
    Open(Open),
    Broken(String),
    Closed,
}

#[derive(Clone)]
struct Open {
    journal: Arc<Mutex<Journal>>,
    upstreams: Arc<Mutex<BTreeMap<Address, (Upstream, Scope)>>>,
}

/// When it is tried again to open it.
struct Retry {
    at: Instant,
    pause: Duration,
}

impl SharedJournal {
    /// Opens a link's journal if it can be. Reads the ends of its files.
    pub(super) fn open(settings: &ForwardSettings, now: u64) -> Self {
        let shared = Self {
            link: settings.name.clone(),
            options: options(settings),
            keys: settings.keys.clone(),
            state: RwLock::new(State::Closed),
            known: Mutex::default(),
            kept: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            depth: Mutex::new((Instant::now(), 0, 0)),
            failing: AtomicBool::new(false),
            failing_flush: AtomicBool::new(false),
            who: Mutex::new(0),
            failing_rank: AtomicBool::new(false),
            retry: Mutex::new(Retry {
                at: Instant::now(),
                pause: PAUSE_MIN,
            }),
        };
        for address in pinned(&settings.to) {
            shared.known.lock().insert(address, Scope::All);
        }
        shared.reopen(now);
        shared
    }

    /// Names an upstream: what it has not certified is kept for it from now on.
    ///
    /// # Errors
    /// If there are too many.
    pub(super) fn know(&self, address: &Address, theirs: KeySet) -> Result<(), String> {
        let covers = |ours: &weir_core::keyexpr::keyexpr| {
            let declared = theirs.declared();
            theirs.is_exact() && declared.iter().any(|their| their.includes(ours))
        };
        let scope = match self.keys.declared().iter().all(|ours| covers(ours)) {
            true => Scope::All,
            false => Scope::Only(theirs),
        };
        if let Some(open) = self.get() {
            open.know(address, scope.clone())?;
        }
        self.known.lock().insert(address.clone(), scope);
        Ok(())
    }

    /// Keeps nothing for an upstream any longer.
    pub(super) fn forget(&self, address: &Address) {
        self.known.lock().remove(address);
        if let Some(open) = self.get()
            && let Some((upstream, _)) = open.upstreams.lock().remove(address)
        {
            open.journal.lock().forget_upstream(upstream);
        }
    }

    /// Appends; everything of it, and what it costs, is in the answer.
    ///
    /// # Errors
    /// In words, if nothing can be kept now. It is counted.
    pub(super) fn append(&self, now: u64, all: Vec<Waiting>) -> Result<Appended, String> {
        let appended = self.opened().and_then(|open| {
            let appended = open.journal.lock().append(&all, now);
            appended.map_err(|error| self.failed(&error))
        });
        match &appended {
            Ok(appended) => {
                self.kept.fetch_add(appended.kept, Relaxed);
                if self.failing.swap(false, Relaxed) {
                    tracing::info!(link = self.link, "samples are kept again");
                }
            }
            Err(why) => {
                self.count_rejected(all.len());
                if !self.failing.swap(true, Relaxed) {
                    tracing::error!(link = self.link, why, "samples are not kept");
                }
            }
        }
        appended
    }

    /// Hands what was appended to the operating system, and has the disk take it if `synced`.
    ///
    /// # Errors
    /// In words. After a failed sync nothing is taken until it was opened again.
    pub(super) fn flush(&self, synced: bool) -> Result<(), String> {
        let flushed = self.opened()?.journal.lock().flush(synced);
        let is_failing = flushed.is_err();
        let was_failing = self.failing_flush.swap(is_failing, Relaxed);
        flushed.map_err(|error| {
            if !was_failing {
                tracing::error!(link = self.link, %error, "the journal cannot be written");
            }
            self.failed(&error)
        })
    }

    /// Another decides from now on, perhaps; answers whether it is another.
    pub(super) fn rank_by(&self, who: u32) -> bool {
        let mut before = self.who.lock();
        if *before == who {
            return false;
        }
        *before = who;
        if let Some(open) = self.get() {
            open.journal.lock().rank_by(who);
        }
        true
    }

    /// Some of what waits and was decided by another than decides now; `None` if nothing is. Reads files.
    ///
    /// # Errors
    /// In words.
    pub(super) fn unranked(&self, order: Order) -> Result<Option<Vec<Unranked>>, String> {
        let unranked = self.opened()?.journal.lock().unranked(order);
        self.ranked(unranked)
    }

    /// What was decided about it. May write files, and wait for the disk.
    ///
    /// # Errors
    /// In words. Without room for it all stays as it was.
    pub(super) fn rank(&self, verdicts: &[Verdict]) -> Result<(), String> {
        let ranked = self.opened()?.journal.lock().rank(verdicts);
        self.ranked(ranked)
    }

    fn ranked<T>(&self, done: Result<T, JournalError>) -> Result<T, String> {
        let was_failing = self.failing_rank.swap(done.is_err(), Relaxed);
        done.map_err(|error| {
            if !was_failing {
                let link = &self.link;
                tracing::warn!(link, %error, "what waits cannot be decided about again");
            }
            self.failed(&error)
        })
    }

    /// Gives up what nobody needs, and opens the journal again if that is due. To be called now and then.
    pub(super) fn maintain(&self, now: u64) {
        if self.broken().is_some() {
            let mut retry = self.retry.lock();
            if retry.at > Instant::now() {
                return;
            }
            retry.pause = (retry.pause * 2).min(PAUSE_MAX);
            retry.at = Instant::now() + retry.pause;
            drop(retry);
            return self.reopen(now);
        }
        self.trim(now);
    }

    /// What an upstream's machine reads.
    pub(super) fn read<T>(&self, address: &Address, read: impl FnOnce(&mut dyn Outbox) -> T) -> T {
        let outbox = self.of(address).map(|(open, upstream, scope)| {
            // The journal is not held up while it is read.
            open.journal.lock().outbox(upstream, scope)
        });
        match outbox {
            Some(mut outbox) => read(&mut outbox),
            None => read(&mut NotThere),
        }
    }

    /// An upstream has all there was of these stretches.
    pub(super) fn certified(&self, address: &Address, stretches: &[Stretch], mark: Mark) {
        if let Some((open, upstream, _)) = self.of(address) {
            open.journal.lock().certified(upstream, stretches, mark);
        }
    }

    /// An upstream knows what was lost.
    pub(super) fn noted(&self, address: &Address, lost: &[Lost]) {
        if let Some((open, upstream, _)) = self.of(address) {
            open.journal.lock().noted(upstream, lost);
        }
    }

    /// What an upstream has certified counts no longer.
    pub(super) fn reset(&self, address: &Address) {
        if let Some((open, upstream, _)) = self.of(address) {
            open.journal.lock().reset(upstream);
        }
    }

    /// Why nothing is kept, if nothing is.
    pub(super) fn broken(&self) -> Option<String> {
        match &*self.state.read() {
            State::Broken(why) => Some(why.clone()),
            State::Open(_) | State::Closed => None,
        }
    }

    /// What it holds; nothing while it is not open.
    pub(super) fn status(&self) -> Status {
        self.get()
            .map(|open| open.journal.lock().status())
            .unwrap_or_default()
    }

    /// How many wait, and the bytes of the files, as of a moment ago: it is asked for every batch.
    pub(super) fn depth(&self) -> (u64, u64) {
        let mut depth = self.depth.lock();
        if depth.0.elapsed() >= DEPTH_EVERY {
            let (waiting, bytes) = self
                .get()
                .map(|open| open.journal.lock().depth())
                .unwrap_or_default();
            *depth = (Instant::now(), waiting, bytes);
        }
        (depth.1, depth.2)
    }

    /// How many were kept since the start.
    pub(super) fn kept(&self) -> u64 {
        self.kept.load(Relaxed)
    }

    /// Samples that were not kept for a reason of its own.
    pub(super) fn count_rejected(&self, count: usize) {
        self.rejected.fetch_add(count as u64, Relaxed);
    }

    /// How many those are.
    pub(super) fn rejected(&self) -> u64 {
        self.rejected.load(Relaxed)
    }

    /// Nothing can be kept any more: a bug of ours.
    pub(super) fn fail(&self, why: String) {
        *self.state.write() = State::Broken(why);
    }

    /// Syncs it and closes it.
    pub(super) fn close(&self) {
        let state = std::mem::replace(&mut *self.state.write(), State::Closed);
        let State::Open(open) = state else { return };
        let closed = match Arc::try_unwrap(open.journal) {
            Ok(journal) => journal.into_inner().close(),
            // An upstream's task is still looking at it: it is read through when it is opened again.
            Err(shared) => shared.lock().flush(true),
        };
        if let Err(error) = closed {
            tracing::error!(link = self.link, %error, "what came last may not be kept");
        }
    }

    fn trim(&self, now: u64) {
        let Some(open) = self.get() else { return };
        let trimmed = open.journal.lock().trim(now);
        match trimmed {
            Ok(trimmed) if trimmed.segments > 0 => {
                tracing::debug!(link = self.link, ?trimmed, "trimmed");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(link = self.link, %error, "the journal cannot be trimmed"),
        }
    }

    fn reopen(&self, now: u64) {
        // What is open is closed first: it has the directory.
        let before = std::mem::replace(&mut *self.state.write(), State::Closed);
        drop(before);
        let dir = self.options.dir.display();
        let known = self.known.lock().clone();
        let names: Vec<String> = known.keys().map(ToString::to_string).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let state = match Journal::open(self.options.clone(), &names, now) {
            Ok((mut journal, recovery)) => {
                journal.rank_by(*self.who.lock());
                tracing::info!(link = self.link, %dir, records = recovery.records, "the journal is open");
                let is_whole = recovery.damaged.is_empty() && recovery.torn.is_empty();
                if !is_whole || !recovery.repaired.is_empty() {
                    tracing::warn!(link = self.link, ?recovery, "the journal was not whole");
                }
                let open = Open {
                    journal: Arc::new(Mutex::new(journal)),
                    upstreams: Arc::default(),
                };
                for (address, scope) in known {
                    if let Err(why) = open.know(&address, scope) {
                        tracing::error!(link = self.link, upstream = %address, why, "an upstream is one too many");
                    }
                }
                self.retry.lock().pause = PAUSE_MIN;
                State::Open(open)
            }
            Err(error) => {
                tracing::error!(
                    link = self.link, %dir, %error,
                    "the journal cannot be opened: nothing is kept for this link until it can"
                );
                State::Broken(error.to_string())
            }
        };
        *self.state.write() = state;
    }

    /// What an error says. Unless room would help, nothing is kept until the journal was opened again.
    fn failed(&self, error: &JournalError) -> String {
        let why = error.to_string();
        let mut state = self.state.write();
        if !error.is_full() && matches!(*state, State::Open(_)) {
            *state = State::Broken(why.clone());
        }
        why
    }

    fn get(&self) -> Option<Open> {
        match &*self.state.read() {
            State::Open(open) => Some(open.clone()),
            State::Broken(_) | State::Closed => None,
        }
    }

    fn opened(&self) -> Result<Open, String> {
        match &*self.state.read() {
            State::Open(open) => Ok(open.clone()),
            State::Broken(why) => Err(why.clone()),
            State::Closed => Err("the link is stopping".to_owned()),
        }
    }

    fn of(&self, address: &Address) -> Option<(Open, Upstream, Scope)> {
        let open = self.get()?;
        let (upstream, scope) = open.upstreams.lock().get(address).cloned()?;
        Some((open, upstream, scope))
    }
}

impl Open {
    fn know(&self, address: &Address, scope: Scope) -> Result<(), String> {
        let known = self.journal.lock().upstream(&address.to_string());
        let upstream = known.map_err(|error| error.to_string())?;
        self.upstreams
            .lock()
            .insert(address.clone(), (upstream, scope));
        Ok(())
    }
}

/// The upstreams that the settings name by router and storage: something is kept for them from the
/// beginning, before they are met.
pub(super) fn pinned(to: &Peers) -> Vec<Address> {
    let names = match to {
        Peers::All => &[][..],
        Peers::Named(names) => names,
    };
    names
        .iter()
        .filter_map(|name| {
            let (router, storage) = name.split_once('/')?;
            Some(Address {
                router: router.to_owned(),
                storage: storage.to_owned(),
            })
        })
        .collect()
}

fn options(settings: &ForwardSettings) -> Options {
    Options {
        budget_bytes: settings.budget.bytes,
        age: settings.budget.age.map(convert::ntp64_span),
        on_full: match settings.on_full {
            OnFull::RejectNew => weir_journal::OnFull::RejectNew,
            OnFull::DropOldest => weir_journal::OnFull::DropOldest,
            OnFull::DropLowestLane => weir_journal::OnFull::DropLowestLane,
            OnFull::Coalesce => weir_journal::OnFull::Coalesce,
        },
        keep: convert::ntp64_span(settings.keep),
        ..Options::new(&settings.dir)
    }
}

/// What is read of a journal that is not open.
struct NotThere;

impl NotThere {
    fn error<T>() -> Result<T, Unreadable> {
        Err(Unreadable("the journal is not open".to_owned()))
    }
}

impl Outbox for NotThere {
    fn mark(&mut self) -> Mark {
        Mark::default()
    }

    fn pending(&mut self, _: u64, _: usize) -> Result<Vec<(Stretch, Summary)>, Unreadable> {
        Self::error()
    }

    fn split(&mut self, _: &Stretch, _: usize) -> Result<Vec<(Stretch, Summary)>, Unreadable> {
        Self::error()
    }

    fn items(&mut self, _: &Stretch) -> Result<Vec<Item>, Unreadable> {
        Self::error()
    }

    fn operations(&mut self) -> Result<Vec<WildcardOp>, Unreadable> {
        Self::error()
    }

    fn page(
        &mut self,
        _: u8,
        _: Order,
        _: Option<Position>,
        _: &Missing,
        _: u64,
        _: usize,
    ) -> Result<Page, Unreadable> {
        Self::error()
    }
}
