//! What is shown of mirrors.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Notify;

use weir_core::identity::Identity;

use super::hello::{Address, Directions};
use crate::storage::noticed::{Noticed, StoreStatus};

/// What every mirror of this router shows, by our storage's name and the mirror's address.
#[derive(Clone, Default)]
pub(super) struct Board(Arc<Mutex<Pairs>>);

type Pairs = BTreeMap<(String, Address), Arc<Figures>>;

/// What a mirror shows: counted where it happens, the rest set by the mirror's task.
#[derive(Debug)]
pub(super) struct Figures {
    directions: Directions,
    sent: AtomicU64,
    received: AtomicU64,
    asks: AtomicU64,
    answers: AtomicU64,
    failures: AtomicU64,
    shown: Mutex<Shown>,
    probed: Notify,
    behind: Notify,
    last_probe: Mutex<Inquiry>,
    /// What the storage's task has noticed of its stores.
    noticed: Arc<Noticed>,
}

/// A mirror has asked whether both hold the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Inquiry {
    /// They do.
    pub in_step: bool,
    /// The stores that it told of.
    pub stores: Vec<Identity>,
    /// When it was found out (NTP64).
    pub at: u64,
}

/// How far a mirror is.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    /// In a word.
    pub state: State,
    /// The last that was logged.
    pub said: State,
    /// Since when both were last found to hold the same.
    pub in_step_since: Option<SystemTime>,
    /// Ranges that are known to differ.
    pub divergent: u64,
    /// Records and wildcard operations that we lacked and have now.
    pub taken: u64,
    /// Records and wildcard operations that the mirror lacked and was given.
    pub given: u64,
    /// Comparisons of the whole.
    pub rounds: u64,
    /// Its clock minus ours, in milliseconds.
    pub clock_offset_ms: Option<i64>,
    /// Whether the same revision of the resolver serves on both.
    pub same_revision: Option<bool>,
    /// What went wrong last.
    pub last_error: Option<Mishap>,
}

/// In a word, how a mirror is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// It has just been met.
    #[default]
    Meeting,
    /// Both hold the same.
    InStep,
    /// What differs is being found and repaired.
    Repairing,
    /// It stays different: one of both does not take what the other has.
    Differing,
    /// It is not there.
    Gone,
    /// It is there and cannot be compared with; tried again.
    Failing,
}

/// What went wrong, and when.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Mishap {
    /// When; RFC 3339 where it is shown.
    #[serde(serialize_with = "crate::convert::as_rfc3339")]
    pub at: SystemTime,
    /// What.
    pub message: String,
}

/// A mirror, as it is shown on `@weir/<id>/storages/<name>`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MirrorStatus {
    /// Its router.
    pub router: String,
    /// Its name.
    pub storage: String,
    /// How it is.
    pub state: State,
    /// Whether we take its changes.
    pub takes: bool,
    /// Whether it takes ours.
    pub gives: bool,
    /// Since when both are known to hold the same; RFC 3339.
    #[serde(serialize_with = "as_time")]
    pub in_step_since: Option<SystemTime>,
    /// Ranges that are known to differ.
    pub divergent_ranges: u64,
    /// Records and wildcard operations that we lacked and have now.
    pub taken: u64,
    /// Records and wildcard operations that it lacked and was given.
    pub given: u64,
    /// Comparisons of the whole.
    pub rounds: u64,
    /// Bytes of frames sent to it, answers included.
    pub sent_bytes: u64,
    /// Bytes of frames received from it.
    pub received_bytes: u64,
    /// Frames that it was asked.
    pub asks: u64,
    /// Frames of its that were answered.
    pub answers: u64,
    /// Frames that it did not answer.
    pub failures: u64,
    /// Its clock minus ours.
    pub clock_offset_ms: Option<i64>,
    /// Whether the same revision of the resolver serves on both.
    pub same_revision: Option<bool>,
    /// What was noticed of its stores.
    pub store: StoreStatus,
    /// What went wrong last.
    pub last_error: Option<Mishap>,
}

impl Board {
    /// Begins to show a mirror.
    pub(super) fn open(
        &self,
        storage: &str,
        address: &Address,
        directions: Directions,
        noticed: Arc<Noticed>,
    ) -> Arc<Figures> {
        let figures = Arc::new(Figures {
            directions,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            asks: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            shown: Mutex::default(),
            probed: Notify::new(),
            behind: Notify::new(),
            last_probe: Mutex::default(),
            noticed,
        });
        let pair = (storage.to_owned(), address.clone());
        self.0.lock().insert(pair, Arc::clone(&figures));
        figures
    }

    /// Shows it no more.
    pub(super) fn close(&self, storage: &str, address: &Address) {
        self.0.lock().remove(&(storage.to_owned(), address.clone()));
    }

    /// What a mirror shows, if there is one.
    pub(super) fn get(&self, storage: &str, address: &Address) -> Option<Arc<Figures>> {
        let board = self.0.lock();
        board.get(&(storage.to_owned(), address.clone())).cloned()
    }

    /// All mirrors, by our storage's name.
    pub(super) fn all(&self) -> Vec<(String, MirrorStatus)> {
        let board = self.0.lock();
        let shown = board
            .iter()
            .map(|((storage, address), figures)| (storage.clone(), figures.status(address)));
        shown.collect()
    }
}

impl Figures {
    /// A frame was asked.
    pub(super) fn asked(&self, bytes: usize) {
        self.asks.fetch_add(1, Relaxed);
        self.sent.fetch_add(bytes as u64, Relaxed);
    }

    /// The answer to one came.
    pub(super) fn heard(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Relaxed);
    }

    /// A frame of the mirror's was answered.
    pub(super) fn answered(&self, asked: usize, reply: usize) {
        self.answers.fetch_add(1, Relaxed);
        self.received.fetch_add(asked as u64, Relaxed);
        self.sent.fetch_add(reply as u64, Relaxed);
    }

    /// The mirror has asked whether both hold the same.
    pub(super) fn probed(&self, inquiry: Inquiry) {
        *self.last_probe.lock() = inquiry;
        self.probed.notify_one();
    }

    /// The mirror has said that it has forgotten more than we have.
    pub(super) fn fell_behind(&self) {
        self.behind.notify_one();
    }

    /// Waits until it has said so.
    pub(super) async fn await_behind(&self) {
        self.behind.notified().await;
    }

    /// Waits until the mirror has asked so, and says how it did last. Cancel safe.
    pub(super) async fn await_probe(&self) -> Inquiry {
        self.probed.notified().await;
        self.last_probe.lock().clone()
    }

    /// Waits until the mirror has to be asked which stores it has. Cancel safe.
    pub(super) async fn await_doubt(&self) {
        self.noticed.await_doubt().await;
    }

    /// How many frames of the mirror's were answered.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Relaxed)
    }

    /// Something went wrong.
    pub(super) fn failed(&self, message: String) {
        self.failures.fetch_add(1, Relaxed);
        self.shown.lock().last_error = Some(Mishap {
            at: SystemTime::now(),
            message,
        });
    }

    /// Changes what is shown.
    pub(super) fn show(&self, change: impl FnOnce(&mut Shown)) {
        change(&mut self.shown.lock());
    }

    fn status(&self, address: &Address) -> MirrorStatus {
        let shown = self.shown.lock().clone();
        MirrorStatus {
            router: address.router.clone(),
            storage: address.storage.clone(),
            state: shown.state,
            takes: self.directions.takes,
            gives: self.directions.gives,
            in_step_since: shown.in_step_since,
            divergent_ranges: shown.divergent,
            taken: shown.taken,
            given: shown.given,
            rounds: shown.rounds,
            sent_bytes: self.sent.load(Relaxed),
            received_bytes: self.received.load(Relaxed),
            asks: self.asks.load(Relaxed),
            answers: self.answers.load(Relaxed),
            failures: self.failures.load(Relaxed),
            clock_offset_ms: shown.clock_offset_ms,
            same_revision: shown.same_revision,
            store: self.noticed.status(),
            last_error: shown.last_error,
        }
    }
}

fn as_time<S: serde::Serializer>(
    time: &Option<SystemTime>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => crate::convert::as_rfc3339(time, serializer),
        None => serializer.serialize_none(),
    }
}
