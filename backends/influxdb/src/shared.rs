//! What a store, its readers and its shipper share.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use weir_backend_api::Backlog;

use crate::{
    holds::Holds,
    http::Trouble,
    server::Server,
    settings::InfluxSettings,
    spool::{Entry, Outcome, Spool},
};

/// How often removing everything is tried, and how long between.
const DESTROY_TRIES: u32 = 10;
const DESTROY_PAUSE: Duration = Duration::from_millis(200);

/// Everything but the local store.
pub(crate) struct Shared {
    pub name: String,
    pub server: Server,
    pub settings: InfluxSettings,
    /// Held by whoever commits to the local store.
    pub spool: Mutex<Spool>,
    /// There is something to do, or all is over. Goes with `spool`.
    pub wake: Condvar,
    pub holds: Mutex<Holds>,
    /// The last serial that was committed.
    pub newest: AtomicU64,
    /// Held by the shipper while it holds the local store.
    pub busy: Mutex<()>,
    over: AtomicBool,
    told: Mutex<Told>,
}

/// What is told of the server.
#[derive(Default)]
struct Told {
    is_ready: bool,
    shipped: u64,
    refused: u64,
    expired: u64,
    last_error: Option<String>,
}

impl Shared {
    pub(crate) fn new(name: &str, server: Server, settings: InfluxSettings, spool: Spool) -> Self {
        Self {
            name: name.to_owned(),
            server,
            settings,
            newest: AtomicU64::new(spool.next - 1),
            spool: Mutex::new(spool),
            wake: Condvar::new(),
            holds: Mutex::new(Holds::default()),
            busy: Mutex::new(()),
            over: AtomicBool::new(false),
            told: Mutex::new(Told::default()),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Ends the shipper. When this returns it does not hold the local store, and never will again.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
        // With the lock, so that nobody is between looking and waiting.
        drop(self.spool.lock());
        self.wake.notify_all();
        drop(self.busy.lock());
    }

    /// Removes what the server holds. A few tries: 1.x refuses it while it drops another database.
    ///
    /// # Errors
    /// [`Trouble`] of the last try.
    pub(crate) fn destroy(&self) -> Result<(), Trouble> {
        let mut left = DESTROY_TRIES;
        loop {
            left -= 1;
            match self.server.destroy() {
                Err(Trouble::Later(..)) if left > 0 => thread::sleep(DESTROY_PAUSE),
                done => return done,
            }
        }
    }

    /// Waits, until the time is over or the store is closed. New work is no reason to wake.
    pub(crate) fn pause(&self, pause: Duration) {
        let deadline = Instant::now() + pause;
        let mut spool = self.spool.lock();
        while !self.is_over() && !self.wake.wait_until(&mut spool, deadline).timed_out() {}
    }

    /// The server took these, or said for good that it does not.
    pub(crate) fn took(&self, finished: &[(Entry, Outcome)]) {
        let refused = finished
            .iter()
            .filter(|(_, outcome)| matches!(outcome, Outcome::Refused(_)));
        let refused = count(refused.count());
        let mut told = self.told.lock();
        if told.last_error.is_some() || !told.is_ready {
            tracing::info!(store = %self.name, "InfluxDB takes what it is given");
        }
        told.is_ready = true;
        told.last_error = None;
        told.refused += refused;
        told.shipped += count(finished.len()) - refused;
    }

    pub(crate) fn expired(&self, message: &str, most: usize) {
        // "... dropped=N"
        let dropped = message.rsplit_once("dropped=").and_then(|(_, number)| {
            let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse().ok()
        });
        self.told.lock().expired += dropped.unwrap_or(count(most));
    }

    /// The server did not take something. Logged once for each reason.
    pub(crate) fn failed(&self, trouble: &Trouble, failures: u32) {
        let message = trouble.message();
        let mut told = self.told.lock();
        told.is_ready = false;
        if told.last_error.as_deref() == Some(message) {
            return;
        }
        if matches!(trouble, Trouble::Later(..)) {
            tracing::warn!(store = %self.name, failures, "InfluxDB does not take anything now: {message}");
        } else {
            tracing::error!(store = %self.name, "InfluxDB takes nothing until somebody acts: {message}");
        }
        told.last_error = Some(message.to_owned());
    }

    pub(crate) fn backlog(&self) -> Backlog {
        let (changes, bytes) = {
            let spool = self.spool.lock();
            (spool.entries, spool.bytes)
        };
        let told = self.told.lock();
        Backlog {
            ready: told.is_ready,
            changes,
            bytes,
            shipped: told.shipped,
            refused: told.refused,
            expired: told.expired,
            last_error: told.last_error.clone(),
        }
    }
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
