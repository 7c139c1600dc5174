//! The two engines: one cuts by CPU time and serves batches, one counts fuel and serves `resolve`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use wasmtime::{Config, Engine};

use crate::limits::Limits;

/// How often a running call is looked at. It is cut within this much CPU time of its budget.
pub const TICK: Duration = Duration::from_millis(2);
/// Ticks without a call after which the ticking thread goes to sleep: an idle router wakes for nothing.
const IDLE_TICKS_MAX: u32 = 50;

/// Which of the two engines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Metering {
    /// By CPU time: `route` and `prioritize`.
    Time,
    /// By fuel: `resolve`.
    Fuel,
}

impl Metering {
    /// Part of the names of cached files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Fuel => "fuel",
        }
    }
}

pub(crate) struct Engines {
    time: Engine,
    fuel: Engine,
    ticker: Ticker,
}

impl Engines {
    pub fn new(limits: &Limits, parallel: bool) -> Result<Self, wasmtime::Error> {
        let engine = |metering| Engine::new(&config(limits, metering, parallel));
        let (time, fuel) = (engine(Metering::Time)?, engine(Metering::Fuel)?);
        let ticker = Ticker::start([time.clone(), fuel.clone()])?;
        Ok(Self { time, fuel, ticker })
    }

    pub fn of(&self, metering: Metering) -> &Engine {
        match metering {
            Metering::Time => &self.time,
            Metering::Fuel => &self.fuel,
        }
    }

    /// Has the epoch advance until the answer is dropped.
    pub fn watch(&self) -> Watch<'_> {
        self.ticker.watch()
    }
}

fn config(limits: &Limits, metering: Metering, parallel: bool) -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.consume_fuel(metering == Metering::Fuel);
    // Whatever a policy computes, it computes alike on every machine.
    config.cranelift_nan_canonicalization(true);
    config.relaxed_simd_deterministic(true);
    // A policy has no use for more than 4 GiB; 32-bit memories need no bounds checks.
    config.wasm_memory64(false);
    config.max_wasm_stack(limits.stack_bytes_max);
    config.wasm_backtrace_max_frames(std::num::NonZeroUsize::new(8));
    config.parallel_compilation(parallel);
    config
}

/// Advances the engines' epochs while somebody watches.
struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Calls begun and calls ended. The thread sleeps only while they are equal and do not move.
    begun: AtomicU64,
    ended: AtomicU64,
    asleep: AtomicBool,
    stop: AtomicBool,
}

/// A call is running.
pub(crate) struct Watch<'a>(&'a Shared);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, SeqCst);
    }
}

impl Ticker {
    fn start(engines: [Engine; 2]) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("weir-policy-tick".into())
            .spawn(move || tick(&theirs, &engines))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    fn watch(&self) -> Watch<'_> {
        // Invariant: either this thread sees `asleep`, or the ticking thread sees `begun` before it
        // parks. Both write before they read, in one order for all.
        self.shared.begun.fetch_add(1, SeqCst);
        if self.shared.asleep.load(SeqCst) {
            self.wake();
        }
        Watch(&self.shared)
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // It never panics; if it did, there is nothing left to stop.
            drop(thread.join());
        }
    }
}

fn tick(shared: &Shared, engines: &[Engine]) {
    let mut idle = 0;
    let mut seen = 0;
    while !shared.stop.load(SeqCst) {
        thread::park_timeout(TICK);
        engines.iter().for_each(Engine::increment_epoch);
        let begun = shared.begun.load(SeqCst);
        let quiet = begun == seen && shared.ended.load(SeqCst) == begun;
        idle = if quiet { idle + 1 } else { 0 };
        seen = begun;
        if idle > IDLE_TICKS_MAX {
            shared.asleep.store(true, SeqCst);
            while shared.begun.load(SeqCst) == seen && !shared.stop.load(SeqCst) {
                thread::park();
            }
            shared.asleep.store(false, SeqCst);
            idle = 0;
        }
    }
}

/// CPU time that the calling thread has used, in nanoseconds. Costs a system call.
pub(crate) fn thread_cpu_nanos() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    #[expect(
        unsafe_code,
        reason = "the standard library does not know a thread's CPU time; the call only writes `time`"
    )]
    // SAFETY: `time` is a valid timespec for the duration of the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    if result != 0 {
        // Cannot happen on Linux: the clock exists for every thread. A clock that stands still would
        // let a runaway call run on; the greatest time cuts it.
        return u64::MAX;
    }
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_epoch_advances_while_somebody_watches_and_after_a_sleep() {
        let engines = Engines::new(&Limits::default(), false).unwrap();
        for round in 0..3 {
            let start = Instant::now();
            while !engines.ticker.shared.asleep.load(SeqCst) {
                assert!(
                    start.elapsed() < Duration::from_secs(10),
                    "round {round}: never idle"
                );
                thread::yield_now();
            }
            let watch = engines.watch();
            let start = Instant::now();
            while engines.ticker.shared.asleep.load(SeqCst) {
                assert!(
                    start.elapsed() < Duration::from_secs(10),
                    "round {round}: never woken"
                );
                thread::yield_now();
            }
            drop(watch);
        }
    }

    #[test]
    fn cpu_time_stands_still_while_the_thread_sleeps() {
        let before = thread_cpu_nanos();
        thread::sleep(Duration::from_millis(30));
        let slept = thread_cpu_nanos() - before;
        assert!(slept < 20_000_000, "{slept}");
        let before = thread_cpu_nanos();
        let start = Instant::now();
        while thread_cpu_nanos() - before < 2_000_000 {
            assert!(start.elapsed() < Duration::from_secs(10));
        }
    }
}
