//! The watched directory: `NAME.wasm` and `NAME.wasm.minisig`, as they come, change and go.
//!
//! Events are hints. After any, and every [`DirectorySettings::poll`] without one, the directory is
//! looked at and what differs is hashed; what two looks agree on is believed ([`listing`]). A
//! directory that cannot be read says nothing about the files in it: what serves goes on serving
//! until the directory is back.

mod listing;
mod notes;
mod scan;
mod watches;

use std::{
    collections::BTreeSet,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;

use listing::{Content, Difference, Settling};
pub use notes::Notes;
use scan::Scanner;
use watches::Watches;

/// How far apart the two looks are that must agree. Well below the 200 ms within which a dropped
/// file is to serve, and longer than a copy pauses between two writes.
const SETTLE: Duration = Duration::from_millis(50);
/// The same for a file that its writer has closed, or that was moved into place: long enough for
/// another writer to show.
const SETTLE_FINISHED: Duration = Duration::from_millis(10);

/// Which directory, and how.
#[derive(Clone, Debug)]
pub struct DirectorySettings {
    /// Its path; it need not exist.
    pub dir: PathBuf,
    /// How often to look without being told.
    pub poll: Duration,
    /// Whether to listen to events; without them `poll` is the delay of everything.
    pub events: bool,
}

/// What is known of a directory.
#[derive(Debug)]
pub enum Event {
    /// A file is there, whole.
    Present(Dropped),
    /// A file is there that cannot be read, and why.
    Unreadable(String, String),
    /// No file of this name is there any more.
    Absent(String),
    /// All that was there at this look has been told; or why the directory cannot be read, which says
    /// nothing of its files.
    Looked(Result<(), String>),
}

/// A module as it was dropped.
#[derive(Clone, Debug)]
pub struct Dropped {
    /// `geo` for `geo.wasm`.
    pub name: String,
    /// All of the file.
    pub bytes: Bytes,
    /// The text of `geo.wasm.minisig`, if it is there; or why it cannot be read.
    pub signature: Option<Result<String, String>>,
}

/// Watches a directory on a thread of its own until it is dropped.
#[derive(Debug)]
pub struct Directory {
    shared: Arc<Shared>,
    wake: SyncSender<()>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    is_stopped: AtomicBool,
    is_anew: AtomicBool,
    /// Files that were closed by their writer or moved into place since the last look.
    finished: Mutex<BTreeSet<String>>,
}

impl Directory {
    /// Begins to watch; `tell` is called on the watching thread.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn watch(
        settings: DirectorySettings,
        tell: impl FnMut(Event) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        // One place: a hint that waits already stands for all that follow.
        let (wake, woken) = sync_channel(1);
        let dir = std::path::absolute(&settings.dir)?;
        let (hint, ours) = (wake.clone(), Arc::clone(&shared));
        let watches = match settings.events {
            true => Watches::new(&dir, move |finished| {
                ours.finished.lock().extend(finished);
                // Full: a look is due in any case.
                let _ = hint.try_send(());
            }),
            false => Watches::none(&dir),
        };
        let watching = Watching {
            shared: Arc::clone(&shared),
            woken,
            watches,
            scanner: Scanner::new(dir),
            settling: Settling::new(SETTLE, SETTLE_FINISHED),
            began: Instant::now(),
            poll: settings.poll,
            is_first: true,
            ignored: Vec::new(),
            tell,
        };
        let thread = std::thread::Builder::new().name("policies".into());
        let thread = thread.spawn(move || watching.run())?;
        Ok(Self {
            shared,
            wake,
            thread: Some(thread),
        })
    }

    /// Looks now, and hashes every file anew.
    pub fn rescan(&self) {
        self.shared.is_anew.store(true, Relaxed);
        // Full: a look is due in any case, and finds the flag.
        let _ = self.wake.try_send(());
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Relaxed);
        let _ = self.wake.try_send(());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that watches policies has panicked");
        }
    }
}

struct Watching<T> {
    shared: Arc<Shared>,
    woken: Receiver<()>,
    watches: Watches,
    scanner: Scanner,
    settling: Settling,
    began: Instant,
    poll: Duration,
    is_first: bool,
    ignored: Vec<String>,
    tell: T,
}

impl<T: FnMut(Event)> Watching<T> {
    fn run(mut self) {
        while !self.shared.is_stopped.load(Relaxed) {
            let is_new = self.look();
            // What happened between the look and the new watch sent no event.
            let wait = if is_new { Duration::ZERO } else { self.wait() };
            match self.woken.recv_timeout(wait) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn wait(&self) -> Duration {
        let now = self.began.elapsed();
        let due = self.settling.deadline().map(|due| due.saturating_sub(now));
        due.unwrap_or(self.poll).min(self.poll)
    }

    /// Looks once; whether watches were set that were not there before.
    fn look(&mut self) -> bool {
        if self.shared.is_anew.swap(false, Relaxed) {
            self.scanner.forget();
        }
        // Taken before the look: what is finished after it is seen by the next.
        let finished = std::mem::take(&mut *self.shared.finished.lock());
        let found = match self.scanner.look() {
            Ok(found) => found,
            Err(error) => {
                self.is_first = false;
                (self.tell)(Event::Looked(Err(error.to_string())));
                return self.watches.keep(&Default::default());
            }
        };
        let is_new = self.watches.keep(&found.places);
        if found.ignored != self.ignored {
            for file in &found.ignored {
                tracing::warn!(file, "a file in the policies' directory is ignored");
            }
            self.ignored = found.ignored;
        }
        let now = self.began.elapsed();
        if std::mem::take(&mut self.is_first) {
            let old = found.listing.iter();
            for (name, print) in old.filter(|(_, print)| Scanner::is_old(print)) {
                self.settling.trust(name, now, print.clone());
            }
        }
        for (name, difference) in self.settling.observe(now, &found.listing, &finished) {
            self.report(name, difference, now);
        }
        if self.settling.deadline().is_none() {
            (self.tell)(Event::Looked(Ok(())));
        }
        is_new
    }

    fn report(&mut self, name: String, difference: Difference, now: Duration) {
        let Some(print) = self.settling.settled(&name) else {
            self.settling.accept(&name);
            tracing::info!(policy = name, "removed");
            return (self.tell)(Event::Absent(name));
        };
        if let Content::Unreadable(reason) = &print.module.content {
            let reason = reason.clone();
            self.settling.accept(&name);
            return (self.tell)(Event::Unreadable(name, reason));
        }
        match self.scanner.read(&name, print) {
            Some(dropped) => {
                self.settling.accept(&name);
                tracing::debug!(policy = name, ?difference, "found");
                (self.tell)(Event::Present(dropped));
            }
            None => self.settling.again(&name, now),
        }
    }
}

#[cfg(test)]
mod tests;
