//! What a policy has done so far: counted by whoever asks it, read by status and metrics at any time.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;
use serde::Serialize;

use crate::{
    fault::{Cause, Fault},
    limits::COUNTERS_MAX,
    log::Throttle,
};

/// Counts of one instance, or of all instances of a slot that share it. Every method may be called
/// from any thread; counting costs a few atomic additions a call.
#[derive(Debug)]
pub struct Stats {
    calls: AtomicU64,
    samples: AtomicU64,
    remembered: AtomicU64,
    fallbacks: AtomicU64,
    interruptions: AtomicU64,
    starts: AtomicU64,
    faults: [AtomicU64; Cause::ALL.len()],
    cpu_nanos: AtomicU64,
    fuel: AtomicU64,
    memory_bytes_peak: AtomicU64,
    latency: Histogram,
    counters: [AtomicU64; COUNTERS_MAX],
    last_fault: Mutex<Option<Fault>>,
    pub(crate) throttle: Throttle,
}

/// [`Stats`] at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Statistics {
    /// Calls of the hook; a batch is one.
    pub calls: u64,
    /// Samples, or conflicts, that were asked about.
    pub samples: u64,
    /// Samples whose route was remembered, so that the policy was not asked.
    pub remembered: u64,
    /// Samples, or conflicts, that the native rule decided because a call failed.
    pub fallbacks: u64,
    /// Conflicts that have to be asked again because the host was interrupted.
    pub interruptions: u64,
    /// Instances that were started.
    pub starts: u64,
    /// Failed calls by cause, those with none left out.
    pub faults: Vec<(Cause, u64)>,
    /// CPU time of the calls of `route` and `prioritize`, and of starting their instances.
    pub cpu: Duration,
    /// Fuel of the calls of `resolve`.
    pub fuel: u64,
    /// The most memory that one instance had.
    pub memory_bytes_peak: u64,
    /// Half of the calls took at most so long.
    pub p50: Duration,
    /// 99 of 100 calls took at most so long.
    pub p99: Duration,
    /// The counters of the policy, by their places in its manifest.
    pub counters: Vec<u64>,
    /// Lines of its log that were dropped because they came too fast.
    pub log_lines_dropped: u64,
    /// The last failed call.
    pub last_fault: Option<Fault>,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            calls: AtomicU64::default(),
            samples: AtomicU64::default(),
            remembered: AtomicU64::default(),
            fallbacks: AtomicU64::default(),
            interruptions: AtomicU64::default(),
            starts: AtomicU64::default(),
            faults: Default::default(),
            cpu_nanos: AtomicU64::default(),
            fuel: AtomicU64::default(),
            memory_bytes_peak: AtomicU64::default(),
            latency: Histogram::default(),
            counters: std::array::from_fn(|_| AtomicU64::default()),
            last_fault: Mutex::default(),
            throttle: Throttle::default(),
        }
    }
}

impl Stats {
    /// What it stands at. The parts are read one after the other: calls that end meanwhile may be in
    /// one and not yet in another.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let faults = Cause::ALL.into_iter().filter_map(|cause| {
            let count = self.faults[cause.index()].load(Relaxed);
            (count > 0).then_some((cause, count))
        });
        Statistics {
            calls: self.calls.load(Relaxed),
            samples: self.samples.load(Relaxed),
            remembered: self.remembered.load(Relaxed),
            fallbacks: self.fallbacks.load(Relaxed),
            interruptions: self.interruptions.load(Relaxed),
            starts: self.starts.load(Relaxed),
            faults: faults.collect(),
            cpu: Duration::from_nanos(self.cpu_nanos.load(Relaxed)),
            fuel: self.fuel.load(Relaxed),
            memory_bytes_peak: self.memory_bytes_peak.load(Relaxed),
            p50: self.latency.quantile(0.5),
            p99: self.latency.quantile(0.99),
            counters: self
                .counters
                .iter()
                .map(|count| count.load(Relaxed))
                .collect(),
            log_lines_dropped: self.throttle.dropped(),
            last_fault: self.last_fault.lock().clone(),
        }
    }

    pub(crate) fn call(&self, samples: usize, took: Duration) {
        self.calls.fetch_add(1, Relaxed);
        self.samples.fetch_add(samples as u64, Relaxed);
        self.latency.record(took);
    }

    pub(crate) fn remembered(&self, samples: usize) {
        self.remembered.fetch_add(samples as u64, Relaxed);
    }

    pub(crate) fn fault(&self, fault: &Fault, samples: usize) {
        self.faults[fault.cause.index()].fetch_add(1, Relaxed);
        self.fallbacks.fetch_add(samples as u64, Relaxed);
        *self.last_fault.lock() = Some(fault.clone());
    }

    pub(crate) fn interrupted(&self, fault: &Fault) {
        self.interruptions.fetch_add(1, Relaxed);
        self.faults[fault.cause.index()].fetch_add(1, Relaxed);
        *self.last_fault.lock() = Some(fault.clone());
    }

    pub(crate) fn started(&self) {
        self.starts.fetch_add(1, Relaxed);
    }

    pub(crate) fn cpu(&self, nanos: u64) {
        self.cpu_nanos.fetch_add(nanos, Relaxed);
    }

    pub(crate) fn fuel(&self, units: u64) {
        self.fuel.fetch_add(units, Relaxed);
    }

    pub(crate) fn memory(&self, bytes: usize) {
        self.memory_bytes_peak.fetch_max(bytes as u64, Relaxed);
    }

    pub(crate) fn count(&self, id: u32, n: u64) {
        let counter = usize::try_from(id)
            .ok()
            .and_then(|id| self.counters.get(id));
        if let Some(counter) = counter {
            counter.fetch_add(n, Relaxed);
        }
    }
}

/// Durations from 1 ns to hours in buckets that are an eighth of their octave wide, so that a quantile
/// is at most 12.5 % too high and a record is one addition.
#[derive(Debug)]
struct Histogram {
    buckets: [AtomicU64; Self::BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| AtomicU64::default()),
        }
    }
}

impl Histogram {
    const STEPS: u32 = 8;
    const OCTAVES: u32 = 42;
    const BUCKETS: usize = (Self::STEPS * Self::OCTAVES) as usize;

    fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[Self::bucket(nanos)].fetch_add(1, Relaxed);
    }

    /// Values below 8 have a bucket each; above, the three bits behind the leading one choose it.
    fn bucket(nanos: u64) -> usize {
        let bucket = if nanos < u64::from(Self::STEPS) {
            nanos
        } else {
            let octave = u64::from(nanos.ilog2()) - 2;
            octave * u64::from(Self::STEPS) + ((nanos >> (octave - 1)) & 7)
        };
        usize::try_from(bucket).map_or(Self::BUCKETS - 1, |bucket| bucket.min(Self::BUCKETS - 1))
    }

    /// The greatest value of a bucket.
    fn upper(bucket: usize) -> u64 {
        let (octave, step) = (bucket as u64 / 8, bucket as u64 % 8);
        match octave {
            0 => step,
            _ => ((8 + step + 1) << (octave - 1)) - 1,
        }
    }

    fn quantile(&self, q: f64) -> Duration {
        let counts: Vec<u64> = self
            .buckets
            .iter()
            .map(|bucket| bucket.load(Relaxed))
            .collect();
        let total: u64 = counts.iter().sum();
        let mut above = (total as f64 * (1.0 - q)).floor();
        for (bucket, count) in counts.iter().enumerate().rev() {
            above -= *count as f64;
            if above < 0.0 {
                return Duration::from_nanos(Self::upper(bucket));
            }
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_ordered_and_hold_what_they_say() {
        let mut last = 0;
        for nanos in (0..100_000).chain((17..40).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit])) {
            let bucket = Histogram::bucket(nanos);
            assert!(bucket >= last, "{nanos}");
            last = bucket;
            assert!(Histogram::upper(bucket) >= nanos, "{nanos}");
            assert!(Histogram::upper(bucket) <= nanos + nanos / 8, "{nanos}");
        }
        assert_eq!(Histogram::bucket(u64::MAX), Histogram::BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.99), Duration::ZERO);
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros));
        }
        for (q, micros) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let got = histogram.quantile(q).as_nanos() as f64 / 1000.0;
            assert!((micros..micros * 1.13).contains(&got), "{q}: {got}");
        }
    }

    #[test]
    fn a_counter_that_is_not_there_is_ignored() {
        let stats = Stats::default();
        stats.count(63, 2);
        stats.count(64, 3);
        stats.count(u32::MAX, 3);
        assert_eq!(stats.statistics().counters.iter().sum::<u64>(), 2);
    }
}
