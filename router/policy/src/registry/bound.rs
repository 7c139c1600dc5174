//! What the registry knows of one slot.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::SystemTime,
};

use weir_core::slot::{ContentHash, Report, Service, Slot, State};

use crate::{
    environment::{Hook, Manifest},
    slot::Port,
    stats::{Statistics, Stats},
    status::{LastError, SlotReport, SlotStatus, rfc3339},
};

/// A slot: where something is bound to a policy.
pub(super) struct Bound {
    /// `storages/NAME` or `forward/NAME`.
    pub(super) owner: String,
    pub(super) policy: String,
    pub(super) port: Arc<dyn Port>,
    pub(super) machine: Slot,
    /// What was started here and may serve.
    pub(super) revisions: BTreeMap<ContentHash, Prepared>,
    retired: Retired,
    report: Option<(SystemTime, ContentHash, Report)>,
    swaps: u64,
}

/// A revision that was started for a slot.
pub(super) struct Prepared {
    pub(super) stats: Arc<Stats>,
    pub(super) manifest: Manifest,
}

/// Counts of revisions that serve no more.
#[derive(Default)]
struct Retired {
    /// Those whose last batch may still be counted.
    leaving: Vec<Arc<Stats>>,
    totals: Totals,
}

#[derive(Clone, Default)]
struct Totals {
    calls: u64,
    samples: u64,
    remembered: u64,
    fallbacks: u64,
    interruptions: u64,
    errors: BTreeMap<String, u64>,
}

impl Bound {
    pub(super) fn new(owner: String, policy: String, port: Arc<dyn Port>, machine: Slot) -> Self {
        Self {
            owner,
            policy,
            port,
            machine,
            revisions: BTreeMap::new(),
            retired: Retired::default(),
            report: None,
            swaps: 0,
        }
    }

    /// Publishes who answers from now on.
    pub(super) fn publish(&mut self, is_swap: bool) {
        let service = self.machine.service();
        if is_swap && matches!(service, Service::Revision(_)) {
            self.swaps += 1;
        }
        let mut keep: Vec<ContentHash> = self.revisions.keys().copied().collect();
        // Last, what is waited for, if anything is.
        keep.extend(self.rests());
        keep.extend(self.machine.loading());
        self.port.publish(service, &keep);
    }

    pub(super) fn forget(&mut self, content: ContentHash) {
        if let Some(prepared) = self.revisions.remove(&content) {
            self.retired.add(prepared.stats);
        }
    }

    pub(super) fn report(&mut self, content: ContentHash, report: Report) {
        self.report = Some((SystemTime::now(), content, report));
    }

    pub(super) fn clear(&mut self) {
        self.report = None;
    }

    /// What was said of a revision is over when another serves.
    pub(super) fn clear_of_others(&mut self, serving: ContentHash) {
        let is_over = |(_, content, report): &(SystemTime, ContentHash, Report)| {
            *content != serving && matches!(report, Report::Opened(_) | Report::Unlawful(_))
        };
        if self.report.as_ref().is_some_and(is_over) {
            self.report = None;
        }
    }

    /// What a note beside the file has to say of this slot, if the file holds `content`.
    pub(super) fn complaint(&self, content: ContentHash) -> Option<(SystemTime, String)> {
        let (at, _, report) = self.report.as_ref().filter(|(_, of, _)| *of == content)?;
        let place = format!("{} ({})", self.owner, self.port.hook());
        let text = match report {
            Report::Refused(reason) => format!("it cannot serve {place}: {reason}"),
            Report::RolledBack(to) => format!(
                "it failed too often in {place}, and revision {to:?} serves again{}",
                self.last_words()
            ),
            Report::Opened(_) => format!(
                "it fails too often in {place}: it is asked no more, and tried again after a while{}",
                self.last_words()
            ),
            Report::Unlawful(example) => format!("it serves {place}, and breaks a law: {example}"),
        };
        Some((*at, text))
    }

    fn last_words(&self) -> String {
        let fault = self.port.notes().last_fault();
        fault.map_or_else(String::new, |(_, fault)| format!(": {fault}"))
    }

    fn rests(&self) -> Option<ContentHash> {
        match self.machine.state() {
            State::Open { revision, .. } => Some(revision),
            _ => None,
        }
    }

    /// What serves, or rests.
    fn revision(&self) -> Option<ContentHash> {
        match self.machine.service() {
            Service::Revision(content) => Some(content),
            Service::Native | Service::Wait => self.rests(),
        }
    }

    pub(super) fn status(&mut self) -> SlotStatus {
        self.retired.settle();
        let revision = self.revision();
        let prepared = revision.and_then(|content| self.revisions.get(&content));
        let statistics = prepared.map(|prepared| prepared.stats.statistics());
        let mut totals = self.retired.totals.clone();
        for stats in &self.retired.leaving {
            totals.add(&stats.statistics());
        }
        for prepared in self.revisions.values() {
            totals.add(&prepared.stats.statistics());
        }
        let manifest = prepared.map(|prepared| &prepared.manifest);
        let names = manifest.map_or(&[][..], |manifest| &manifest.counters);
        let counts = statistics.as_ref().map_or(&[][..], |now| &now.counters);
        let notes = self.port.notes();
        let micros =
            |time: Option<std::time::Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e6);
        let now = statistics.as_ref();
        let is_resolve = self.port.hook() == Hook::Resolve;
        let settings = &self.port.environment().settings_json;
        SlotStatus {
            owner: self.owner.clone(),
            hook: self.port.hook().name().into(),
            state: self.machine.state().name().into(),
            service: match self.machine.service() {
                Service::Native => "native",
                Service::Revision(_) => "policy",
                Service::Wait => "wait",
            }
            .into(),
            revision: revision.map(|content| content.to_string()),
            resolver_revision: revision
                .filter(|_| is_resolve)
                .map(|content| format!("{:016x}", content.resolver_revision(settings))),
            loading: self.machine.loading().map(|content| content.to_string()),
            module: manifest.map(|manifest| manifest.name.clone()),
            version: manifest.map(|manifest| manifest.version.clone()),
            calls: totals.calls,
            samples: totals.samples,
            remembered: totals.remembered,
            fallbacks: totals.fallbacks,
            native: notes.native.load(Relaxed),
            interruptions: totals.interruptions,
            errors: totals.errors,
            cpu_seconds: now.map_or(0.0, |now| now.cpu.as_secs_f64()),
            fuel: now.map_or(0, |now| now.fuel),
            p50_us: micros(now.map(|now| now.p50)),
            p99_us: micros(now.map(|now| now.p99)),
            memory_bytes_peak: now.map_or(0, |now| now.memory_bytes_peak),
            counters: names.iter().cloned().zip(counts.iter().copied()).collect(),
            log_lines_dropped: now.map_or(0, |now| now.log_lines_dropped),
            swaps: self.swaps,
            last_error: notes.last_fault().map(|(at, fault)| LastError {
                at: rfc3339(at),
                cause: fault.cause.code().into(),
                blame: match fault.blame {
                    crate::fault::Blame::Guest => "guest",
                    crate::fault::Blame::Host => "host",
                }
                .into(),
                message: fault.message,
            }),
            report: self
                .report
                .as_ref()
                .map(|(at, content, report)| SlotReport {
                    at: rfc3339(*at),
                    what: match report {
                        Report::Refused(_) => "refused",
                        Report::RolledBack(_) => "rolled-back",
                        Report::Opened(_) => "opened",
                        Report::Unlawful(_) => "unlawful",
                    }
                    .into(),
                    revision: content.to_string(),
                    message: match report {
                        Report::Refused(reason) | Report::Unlawful(reason) => reason.clone(),
                        Report::RolledBack(to) => format!("failed too often; {to:?} serves again"),
                        Report::Opened(_) => {
                            "fails too often; it is tried again after a while".into()
                        }
                    },
                }),
        }
    }
}

impl Retired {
    fn add(&mut self, stats: Arc<Stats>) {
        self.leaving.push(stats);
        self.settle();
    }

    /// Counts that nobody can add to any more become part of the totals.
    fn settle(&mut self) {
        let totals = &mut self.totals;
        self.leaving.retain(|stats| {
            let is_held = Arc::strong_count(stats) > 1;
            if !is_held {
                totals.add(&stats.statistics());
            }
            is_held
        });
    }
}

impl Totals {
    fn add(&mut self, more: &Statistics) {
        self.calls += more.calls;
        self.samples += more.samples;
        self.remembered += more.remembered;
        self.fallbacks += more.fallbacks;
        self.interruptions += more.interruptions;
        for (cause, count) in &more.faults {
            *self.errors.entry(cause.code().to_owned()).or_default() += count;
        }
    }
}
