//! What a policy costs, as numbers and as a multiple of the least that a call can cost, measured in the
//! same run.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;
use weir_core::{
    laws::Held,
    placement::Description,
    value::Value,
    version::{Stamp, Version},
};

use super::{
    answer::{Asked, contender},
    case::{Case, Link, Question},
    sample::Sample,
};
use crate::{Environment, Fault, Hook, ResolveFault, Revision, Stats};

/// Calls before the first that is measured: caches and the branch predictor are warm in a router.
const WARM_UP: usize = 50;
/// Calls at the least, however long they take.
const CALLS_MIN: usize = 100;
/// Calls whose times are kept: 80 MB.
const CALLS_MAX: usize = 10_000_000;
/// Calls after which the clock is asked whether it is time to stop.
const ROUND: usize = 32;

/// `(func (export "f") (param i32 i64 i32) (result i32) local.get 0)`: into WebAssembly with three
/// numbers, and back with one.
const EMPTY: &[u8] = &[
    0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, // module, version 1
    1, 8, 1, 0x60, 3, 0x7f, 0x7e, 0x7f, 1, 0x7f, // its type
    3, 2, 1, 0, // one function of it
    7, 5, 1, 1, b'f', 0, 0, // exported as f
    10, 6, 1, 4, 0, 0x20, 0, 0x0b, // local.get 0
];

/// What is measured.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The hook.
    pub hook: Hook,
    /// What the policy is told when it begins.
    pub environment: Environment,
    /// The link of `prioritize`.
    pub link: Link,
    /// What it is asked about, again and again.
    pub samples: Vec<Sample>,
    /// Samples in a call.
    pub batch: usize,
    /// What a resolver is asked about, in turn.
    pub conflicts: Vec<(String, Held, Held)>,
    /// How long.
    pub time: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// The hook.
    pub hook: Hook,
    /// Samples in a call; 1 for a conflict.
    pub batch: usize,
    /// Calls that were measured.
    pub calls: usize,
    /// Samples, or conflicts, a second on one core.
    pub samples_per_second: f64,
    /// Half of the calls took at most so long, in microseconds.
    pub p50_us: f64,
    /// 99 of 100.
    pub p99_us: f64,
    /// All of them.
    pub max_us: f64,
    /// One sample in the median call, in nanoseconds.
    pub sample_ns: f64,
    /// An empty call of a core module in this run, in nanoseconds.
    pub empty_call_ns: f64,
    /// The one as a multiple of the other.
    pub ratio: f64,
    /// The dearest question, in units of fuel; only `resolve` runs on fuel.
    pub fuel_max: Option<u64>,
    /// The most memory of an instance, in bytes.
    pub memory_bytes_peak: u64,
    /// Calls that failed.
    pub failed: u64,
    /// The first failure.
    pub first_fault: Option<Fault>,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The policy does not start.
    #[error("it does not start: {}", .0.message)]
    Start(Fault),
    /// There is nothing to ask.
    #[error("there is nothing to ask it about: give it cases or a recording")]
    Nothing,
    /// The machine cannot run WebAssembly.
    #[error("cannot measure an empty call: {0}")]
    Engine(String),
}

/// Measures calls on one thread until the time is over.
///
/// # Errors
/// See [`MeasureError`].
pub fn measure(revision: &Arc<Revision>, setup: &Setup) -> Result<Measured, MeasureError> {
    let empty_call_ns = empty_call().map_err(|error| MeasureError::Engine(format!("{error:#}")))?;
    let stats = Arc::new(Stats::default());
    let asked = Asked::start(revision, setup.hook, &setup.environment, Arc::clone(&stats));
    let mut asked = asked.map_err(MeasureError::Start)?;
    let mut run = Run::default();
    let batch = match &mut asked {
        Asked::Resolve(resolver) => {
            if setup.conflicts.is_empty() {
                return Err(MeasureError::Nothing);
            }
            let mut conflicts = setup.conflicts.iter().cycle();
            let mut fuel_max = 0;
            run.repeat(setup.time, || {
                let Some((key, first, second)) = conflicts.next() else {
                    return Ok(());
                };
                let (first, second) = (contender(first), contender(second));
                let (answer, fuel) = resolver.resolve_metered(key, first, second);
                fuel_max = fuel_max.max(fuel);
                match black_box(answer) {
                    Err(ResolveFault::Guest(fault)) => Err(fault),
                    // An interruption is the machine's and says nothing of the policy.
                    Ok(_) | Err(ResolveFault::Interrupted(_)) => Ok(()),
                }
            });
            run.fuel_max = Some(fuel_max);
            1
        }
        Asked::Route(instance, names) => {
            let batches = batches(setup)?;
            let shards = u32::try_from(names.len()).unwrap_or(u32::MAX);
            let mut turns = batches.iter().cycle();
            let mut out = Vec::new();
            run.repeat(setup.time, || {
                out.clear();
                let batch = turns.next().map_or(&[][..], Vec::as_slice);
                let answer = instance.route("", shards, black_box(batch), &mut out);
                black_box(&out);
                answer
            });
            batches[0].len()
        }
        Asked::Prioritize(instance) => {
            let batches = batches(setup)?;
            let mut turns = batches.iter().cycle();
            let mut out = Vec::new();
            run.repeat(setup.time, || {
                out.clear();
                let batch = turns.next().map_or(&[][..], Vec::as_slice);
                let answer =
                    instance.prioritize("", setup.link.state(), black_box(batch), &mut out);
                black_box(&out);
                answer
            });
            batches[0].len()
        }
    };
    Ok(run.measured(setup.hook, batch, empty_call_ns, &stats))
}

/// What cases ask, to measure with: samples, or conflicts.
#[must_use]
pub fn conflicts_of(cases: &[Case]) -> Vec<(String, Held, Held)> {
    let conflicts = cases.iter().filter_map(|case| match &case.question {
        Question::Resolve(conflict) => Some((
            conflict.key.clone(),
            conflict.first.clone(),
            conflict.second.clone(),
        )),
        Question::Route(_) | Question::Prioritize(..) => None,
    });
    conflicts.collect()
}

/// Samples for who has none: 256 keys with 300 bytes each.
#[must_use]
pub fn own_samples() -> Vec<Sample> {
    let sample = |n: u64| Sample {
        key: format!("fleet/drone/{n}/video").as_str().into(),
        stamp: Some(Stamp {
            time: n << 32,
            id: [1; 16],
        }),
        value: Some(Value::bytes(vec![b'x'; 300])),
        priority: 5,
    };
    (1..=256).map(sample).collect()
}

/// A conflict for who has none: two JSON arrays of three.
#[must_use]
pub fn own_conflict() -> (String, Held, Held) {
    let held = |time: u64, text: &'static str| {
        let value = Value::bytes(text);
        let stamp = Stamp {
            time: time << 32,
            id: [1; 16],
        };
        Held {
            version: Version::put(stamp, value.hash()),
            value: Some(value),
        }
    };
    (
        "fleet/drone/7/faults".into(),
        held(1, "[1,2,3]"),
        held(2, "[3,4,5]"),
    )
}

/// Full batches, the samples taken round and round.
fn batches(setup: &Setup) -> Result<Vec<Vec<Description<'_>>>, MeasureError> {
    if setup.samples.is_empty() {
        return Err(MeasureError::Nothing);
    }
    let batch = setup.batch.clamp(1, crate::limits::BATCH_SAMPLES_MAX);
    let count = setup.samples.len().div_ceil(batch);
    let mut samples = setup.samples.iter().cycle();
    let mut next = || samples.by_ref().take(batch).map(Sample::describe).collect();
    Ok((0..count).map(|_| next()).collect())
}

#[derive(Default)]
struct Run {
    took: Vec<Duration>,
    failed: u64,
    first_fault: Option<Fault>,
    fuel_max: Option<u64>,
}

impl Run {
    fn repeat(&mut self, time: Duration, mut call: impl FnMut() -> Result<(), Fault>) {
        for _ in 0..WARM_UP {
            if call().is_err() {
                // It will fail again, and be counted then.
                break;
            }
        }
        let begin = Instant::now();
        while self.took.len() < CALLS_MAX && (self.took.len() < CALLS_MIN || begin.elapsed() < time)
        {
            for _ in 0..ROUND {
                let start = Instant::now();
                let result = call();
                self.took.push(start.elapsed());
                if let Err(fault) = result {
                    self.failed += 1;
                    self.first_fault.get_or_insert(fault);
                }
            }
        }
    }

    fn measured(mut self, hook: Hook, batch: usize, empty_call_ns: f64, stats: &Stats) -> Measured {
        self.took.sort_unstable();
        let calls = self.took.len();
        let micros = |at: usize| {
            self.took
                .get(at)
                .map_or(0.0, |took| took.as_secs_f64() * 1e6)
        };
        let total: Duration = self.took.iter().sum();
        let p50_us = micros(calls / 2);
        let sample_ns = p50_us * 1e3 / batch as f64;
        Measured {
            hook,
            batch,
            calls,
            samples_per_second: (calls * batch) as f64 / total.as_secs_f64().max(f64::MIN_POSITIVE),
            p50_us,
            p99_us: micros(calls * 99 / 100),
            max_us: micros(calls.saturating_sub(1)),
            sample_ns,
            empty_call_ns,
            ratio: sample_ns / empty_call_ns,
            fuel_max: self.fuel_max,
            memory_bytes_peak: stats.statistics().memory_bytes_peak,
            failed: self.failed,
            first_fault: self.first_fault,
        }
    }
}

/// Nanoseconds, in the median of many rounds.
fn empty_call() -> Result<f64, wasmtime::Error> {
    const ROUNDS: usize = 60;
    const CALLS: i32 = 10_000;
    let engine = wasmtime::Engine::default();
    let module = wasmtime::Module::new(&engine, EMPTY)?;
    let mut store = wasmtime::Store::new(&engine, ());
    let instance = wasmtime::Instance::new(&mut store, &module, &[])?;
    let function = instance.get_typed_func::<(i32, i64, i32), i32>(&mut store, "f")?;
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for n in 0..CALLS {
            black_box(function.call(&mut store, (black_box(n), 2, 3))?);
        }
        rounds.push(start.elapsed().as_nanos() as f64 / f64::from(CALLS));
    }
    rounds.sort_by(f64::total_cmp);
    Ok(rounds[ROUNDS / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_call_is_measured() {
        let nanos = empty_call().unwrap();
        assert!(nanos > 0.1, "{nanos}");
    }
}
