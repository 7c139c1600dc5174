//! Threads on which modules are compiled, started and tried, so that nobody waits for them.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
};

use parking_lot::Mutex;

use crate::load::panic_text;

/// How many. One that compiles Python for a minute does not hold up the others' reload.
const THREADS: usize = 2;
/// How much less than others they get of the processor: data goes first.
const NICENESS: libc::c_int = 5;

type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs in the order in which they come. What runs when it is dropped is not waited for.
pub(super) struct Loader(Sender<Job>);

impl Loader {
    pub(super) fn start() -> io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..THREADS {
            let queue = Arc::clone(&queue);
            let thread = std::thread::Builder::new().name(format!("policy-load-{number}"));
            thread.spawn(move || work(&queue))?;
        }
        Ok(Self(jobs))
    }

    /// Has `make` run, and its answer told. If it panics, `panicked` answers for it.
    pub(super) fn submit<T: 'static>(
        &self,
        make: impl FnOnce() -> T + Send + 'static,
        panicked: impl FnOnce(String) -> T + Send + 'static,
        tell: impl FnOnce(T) + Send + 'static,
    ) {
        let job = move || {
            let made = catch_unwind(AssertUnwindSafe(make));
            tell(made.unwrap_or_else(|panic| panicked(panic_text(panic.as_ref()).to_owned())));
        };
        if self.0.send(Box::new(job)).is_err() {
            // Its threads end only after it.
            tracing::error!("no thread is left to load policies");
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    lower_priority();
    loop {
        // The lock is held while waiting: one waits for the next job, the others for the lock.
        let Ok(job) = queue.lock().recv() else { return };
        job();
    }
}

fn lower_priority() {
    #[expect(
        unsafe_code,
        reason = "the standard library does not know priorities; the call touches no memory of ours"
    )]
    // SAFETY: no pointers; on Linux, 0 means the calling thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
    if result != 0 {
        let error = io::Error::last_os_error();
        tracing::debug!(%error, "policies are loaded at ordinary priority");
    }
}
