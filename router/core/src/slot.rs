//! The place where a policy serves, and which revision serves there (S12, S14).
//!
//! ```text
//!            ready                calls and time
//! Absent ------------> Probation ----------------> Serving <------------+
//!   ^                   |     |                     |                   |
//!   |            faults |     | faults, and         | faults            | calls
//!   |                   |     | none was good       |                   |
//!   | removed           v     v                     v       due         |
//!   +------ any     RolledBack ------- faults ---> Open ------------> HalfOpen
//!                       ^                            ^     a fault      |  |
//!                       |                            +------------------+  |
//!                       +--------------- calls, if it was rolled back -----+
//! ```
//!
//! A revision that is being loaded stands beside the state: whatever serves goes on serving until the
//! new one is ready ([`Slot::loading`]). What was refused, and what was rolled back from, is not tried
//! again until the file holds something else.
//!
//! **Where verdicts are local** (`route`, `prioritize`) a fault costs its verdict, and several in a
//! short time cost the revision: it is rolled back while on probation and something good was there
//! before, otherwise the breaker opens. The native rule answers then, and after a while, which doubles
//! up to a limit, the revision is tried again.
//!
//! **Where verdicts are replicated** (`resolve`) neither may happen. Every replica asks the same
//! question of the same revision, so a guest's fault is an answer like any other: the later version
//! wins, everywhere. If faults opened a breaker, a replica that had met some hard questions would
//! decide the easy ones differently from one that had not, by its own history alone; and so if they
//! rolled back. So faults of the guest change nothing but counters, and only the operator's file
//! changes the revision. What the host could not ask is no answer: it waits. Several such
//! interruptions open the breaker here too, but open means [`Service::Wait`], never the native rule.
//! While the first revision is being loaded, changes wait too. The native rule decides only where the
//! operator has no file, or one that was refused.

use std::{collections::VecDeque, fmt};

use xxhash_rust::xxh3::xxh3_64;

/// What names a revision: blake3 of the module's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(pub [u8; 32]);

/// Whose business the verdicts are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdicts {
    /// This router's alone: `route`, `prioritize`.
    Local,
    /// Every replica's: `resolve`.
    Replicated,
}

/// What serves when the file is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnRemove {
    /// The native rule.
    #[default]
    Native,
    /// The revision that served last.
    Keep,
}

/// How much a revision may get wrong. Times are NTP64.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Calls without which probation does not end.
    pub probation_calls: u64,
    /// How long probation lasts at the least.
    pub probation: u64,
    /// So many faults ...
    pub faults_max: usize,
    /// ... within this time are too many.
    pub faults_within: u64,
    /// How long the breaker is open the first time.
    pub rest_min: u64,
    /// It doubles up to this.
    pub rest_max: u64,
    /// Calls without a fault that close it again.
    pub trial_calls: u64,
}

/// Who answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Service {
    /// The native rule.
    Native,
    /// This revision.
    Revision(ContentHash),
    /// Nobody yet: what needs an answer is kept until there is one.
    Wait,
}

/// Where a slot stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum State {
    /// Nothing serves but the native rule.
    #[default]
    Absent,
    /// A new revision serves and has yet to prove itself.
    Probation {
        /// Which.
        revision: ContentHash,
        /// How many calls it has answered.
        calls: u64,
        /// Until when at the least (NTP64).
        until: u64,
    },
    /// A revision serves.
    Serving {
        /// Which.
        revision: ContentHash,
    },
    /// The last good revision serves again.
    RolledBack {
        /// Which.
        to: ContentHash,
        /// Which one failed.
        from: ContentHash,
    },
    /// Nobody is asked.
    Open {
        /// Which revision failed.
        revision: ContentHash,
        /// When it is tried again (NTP64).
        until: u64,
        /// How often in a row it has failed.
        failures: u32,
        /// What it serves in place of, if that was rolled back.
        from: Option<ContentHash>,
    },
    /// It is tried again.
    HalfOpen {
        /// Which.
        revision: ContentHash,
        /// How many calls it has answered since.
        calls: u64,
        /// How often in a row it had failed.
        failures: u32,
        /// What it serves in place of, if that was rolled back.
        from: Option<ContentHash>,
    },
}

/// What happens to a slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The file holds this now. Any number of times.
    Offered(ContentHash),
    /// The file is gone.
    Removed,
    /// It was loaded and checked: it could serve.
    Ready(ContentHash),
    /// It cannot serve, for this reason.
    Refused(ContentHash, String),
    /// It has answered so many calls.
    Succeeded(ContentHash, u64),
    /// It has failed a call.
    Failed(ContentHash, Blame),
    /// Time passed.
    Time,
}

/// Whose fault it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blame {
    /// The module's: a trap, a spent budget, nonsense. The same question fails again.
    Guest,
    /// The host's: it could not ask, or was interrupted.
    Host,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Load and check what the file holds, and tell [`Event::Ready`] or [`Event::Refused`].
    Load(ContentHash),
    /// From the next batch on this answers.
    Serve(Service),
    /// Its compiled code is of no more use here.
    Forget(ContentHash),
    /// Say it in the log, the status and the file beside the module.
    Report(ContentHash, Report),
    /// What was said is over.
    Clear,
}

/// What an operator should know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Report {
    /// It cannot serve, for this reason; what served before goes on.
    Refused(String),
    /// It failed too often while on probation; this serves again.
    RolledBack(ContentHash),
    /// It fails too often; it is not asked until then (NTP64).
    Opened(u64),
    /// It serves, and breaks a law on values that were resolved here: the counterexample. The machine
    /// never says so; whoever tries the laws while a resolver serves does. It goes on serving, for
    /// whether a replica stops must not depend on what that replica happened to try.
    Unlawful(String),
}

/// Which revision serves in one place.
#[derive(Clone, Debug)]
pub struct Slot {
    verdicts: Verdicts,
    on_remove: OnRemove,
    limits: Limits,
    state: State,
    loading: Option<ContentHash>,
    /// Served well before the one on probation; its code is kept.
    good: Option<ContentHash>,
    /// Not to be tried while the file holds it.
    bad: Option<ContentHash>,
    /// When the last faults were (NTP64), at most [`Limits::faults_max`].
    faults: VecDeque<u64>,
}

const SECOND: u64 = 1 << 32;

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A batch is a call: about a second of a busy storage.
            probation_calls: 1_000,
            probation: 10 * SECOND,
            // One can be chance, and two the same; five in ten seconds are a bug.
            faults_max: 5,
            faults_within: 10 * SECOND,
            rest_min: SECOND,
            rest_max: 300 * SECOND,
            trial_calls: 16,
        }
    }
}

impl Slot {
    /// An empty slot.
    #[must_use]
    pub const fn new(verdicts: Verdicts, on_remove: OnRemove, limits: Limits) -> Self {
        Self {
            verdicts,
            on_remove,
            limits,
            state: State::Absent,
            loading: None,
            good: None,
            bad: None,
            faults: VecDeque::new(),
        }
    }

    /// Where it stands.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// What is being loaded beside.
    #[must_use]
    pub const fn loading(&self) -> Option<ContentHash> {
        self.loading
    }

    /// What is not tried while the file holds it.
    #[must_use]
    pub const fn bad(&self) -> Option<ContentHash> {
        self.bad
    }

    /// Who answers now.
    #[must_use]
    pub const fn service(&self) -> Service {
        match (self.state, self.verdicts) {
            (State::Absent, Verdicts::Replicated) if self.loading.is_some() => Service::Wait,
            (State::Open { .. }, Verdicts::Replicated) => Service::Wait,
            (State::Absent | State::Open { .. }, _) => Service::Native,
            (
                State::Probation { revision, .. }
                | State::Serving { revision }
                | State::RolledBack { to: revision, .. }
                | State::HalfOpen { revision, .. },
                _,
            ) => Service::Revision(revision),
        }
    }

    /// When [`Event::Time`] changes something (NTP64).
    #[must_use]
    pub const fn deadline(&self) -> Option<u64> {
        match self.state {
            State::Open { until, .. } => Some(until),
            State::Probation { calls, until, .. } if calls >= self.limits.probation_calls => {
                Some(until)
            }
            _ => None,
        }
    }

    /// Takes note of an event at `now` (NTP64); what is to be done, in order.
    pub fn handle(&mut self, now: u64, event: Event) -> Vec<Effect> {
        let before = self.service();
        let mut effects = Vec::new();
        match event {
            Event::Offered(content) => self.offered(content, &mut effects),
            Event::Removed => self.removed(&mut effects),
            Event::Ready(content) if self.loading == Some(content) => {
                self.ready(now, content, &mut effects);
            }
            Event::Ready(content) if self.uses(content) => {}
            Event::Ready(content) => effects.push(Effect::Forget(content)),
            Event::Refused(content, reason) if self.loading == Some(content) => {
                self.loading = None;
                self.bad = Some(content);
                effects.push(Effect::Report(content, Report::Refused(reason)));
            }
            // Calls that ended after their revision: what they tell is told too late.
            Event::Succeeded(content, calls) if self.revision() == Some(content) => {
                self.succeeded(now, calls, &mut effects);
            }
            Event::Failed(content, blame) if self.revision() == Some(content) => {
                self.failed(now, blame, &mut effects);
            }
            Event::Refused(..) | Event::Succeeded(..) | Event::Failed(..) => {}
            Event::Time => self.due(now, &mut effects),
        }
        let after = self.service();
        if after != before {
            // Before anything is forgotten: nobody is to be left without an answer.
            effects.insert(0, Effect::Serve(after));
        }
        effects
    }

    fn offered(&mut self, content: ContentHash, effects: &mut Vec<Effect>) {
        if self.loading == Some(content) {
            return;
        }
        // Whatever else was being loaded is no longer what the file holds.
        self.loading = None;
        if self.bad == Some(content) {
            return;
        }
        if self.bad.take().is_some() {
            effects.push(Effect::Clear);
        }
        match self.state {
            // Proven before the one that is on probation: it needs no second one.
            State::Probation { revision, .. } if self.good == Some(content) => {
                self.good = None;
                self.serve(content);
                effects.push(Effect::Forget(revision));
            }
            State::RolledBack { to, .. } if to == content => self.serve(content),
            _ if self.revision() == Some(content) => {}
            _ => {
                self.loading = Some(content);
                effects.push(Effect::Load(content));
            }
        }
    }

    fn removed(&mut self, effects: &mut Vec<Effect>) {
        self.loading = None;
        if self.bad.take().is_some() {
            effects.push(Effect::Clear);
        }
        if self.on_remove == OnRemove::Keep {
            return;
        }
        let gone = self.revision().into_iter().chain(self.good.take());
        effects.extend(gone.map(Effect::Forget));
        self.state = State::Absent;
        self.faults.clear();
    }

    fn ready(&mut self, now: u64, content: ContentHash, effects: &mut Vec<Effect>) {
        self.loading = None;
        let unproven = match self.state {
            State::Absent => None,
            State::Serving { revision } | State::RolledBack { to: revision, .. } => {
                match self.verdicts {
                    Verdicts::Local => {
                        self.good = Some(revision);
                        None
                    }
                    Verdicts::Replicated => Some(revision),
                }
            }
            State::Probation { revision, .. }
            | State::Open { revision, .. }
            | State::HalfOpen { revision, .. } => Some(revision),
        };
        effects.extend(unproven.map(Effect::Forget));
        self.serve(content);
        if self.verdicts == Verdicts::Local {
            self.state = State::Probation {
                revision: content,
                calls: 0,
                until: now.saturating_add(self.limits.probation),
            };
        }
    }

    fn succeeded(&mut self, now: u64, count: u64, effects: &mut Vec<Effect>) {
        match &mut self.state {
            State::Probation { calls, .. } => {
                *calls = calls.saturating_add(count);
                self.due(now, effects);
            }
            State::HalfOpen {
                revision,
                calls,
                from,
                ..
            } => {
                *calls = calls.saturating_add(count);
                if *calls < self.limits.trial_calls {
                    return;
                }
                let (revision, from) = (*revision, *from);
                self.serve(revision);
                match from {
                    Some(from) => self.state = State::RolledBack { to: revision, from },
                    None => effects.push(Effect::Clear),
                }
            }
            State::Absent
            | State::Serving { .. }
            | State::RolledBack { .. }
            | State::Open { .. } => {}
        }
    }

    fn failed(&mut self, now: u64, blame: Blame, effects: &mut Vec<Effect>) {
        let counts = match (self.verdicts, blame) {
            (Verdicts::Local, Blame::Guest) | (Verdicts::Replicated, Blame::Host) => true,
            (Verdicts::Replicated, Blame::Guest) => false,
            // It says nothing about a new revision: not a reason to go back to an old one.
            (Verdicts::Local, Blame::Host) => !matches!(self.state, State::Probation { .. }),
        };
        if !counts {
            return;
        }
        if let State::HalfOpen {
            revision,
            failures,
            from,
            ..
        } = self.state
        {
            return self.open(now, revision, failures, from, effects);
        }
        while self.faults.len() >= self.limits.faults_max {
            self.faults.pop_front();
        }
        self.faults.push_back(now);
        let since = now.saturating_sub(self.limits.faults_within);
        self.faults.retain(|at| *at >= since);
        if self.faults.len() < self.limits.faults_max {
            return;
        }
        match (self.state, self.good.take()) {
            (State::Probation { revision, .. }, Some(good)) => {
                self.faults.clear();
                self.bad = Some(revision);
                self.state = State::RolledBack {
                    to: good,
                    from: revision,
                };
                effects.push(Effect::Report(revision, Report::RolledBack(good)));
                effects.push(Effect::Forget(revision));
            }
            (State::Probation { revision, .. } | State::Serving { revision }, _) => {
                self.open(now, revision, 0, None, effects);
            }
            (State::RolledBack { to, from }, _) => self.open(now, to, 0, Some(from), effects),
            (State::Absent | State::Open { .. } | State::HalfOpen { .. }, _) => {}
        }
    }

    fn open(
        &mut self,
        now: u64,
        revision: ContentHash,
        failures: u32,
        from: Option<ContentHash>,
        effects: &mut Vec<Effect>,
    ) {
        self.faults.clear();
        // Twice as long each time: 2^32 s are more than any limit.
        let rest = self.limits.rest_min.saturating_mul(1 << failures.min(31));
        let until = now.saturating_add(rest.min(self.limits.rest_max));
        self.state = State::Open {
            revision,
            until,
            failures: failures.saturating_add(1),
            from,
        };
        effects.push(Effect::Report(revision, Report::Opened(until)));
    }

    fn due(&mut self, now: u64, effects: &mut Vec<Effect>) {
        if self.deadline().is_none_or(|due| now < due) {
            return;
        }
        match self.state {
            State::Probation { revision, .. } => {
                self.state = State::Serving { revision };
                effects.extend(self.good.take().map(Effect::Forget));
            }
            State::Open {
                revision,
                failures,
                from,
                ..
            } => {
                self.state = State::HalfOpen {
                    revision,
                    calls: 0,
                    failures,
                    from,
                };
            }
            State::Absent
            | State::Serving { .. }
            | State::RolledBack { .. }
            | State::HalfOpen { .. } => {}
        }
    }

    fn serve(&mut self, revision: ContentHash) {
        self.faults.clear();
        self.state = State::Serving { revision };
    }

    /// What serves, or would if its breaker were closed.
    const fn revision(&self) -> Option<ContentHash> {
        match self.state {
            State::Absent => None,
            State::Probation { revision, .. }
            | State::Serving { revision }
            | State::RolledBack { to: revision, .. }
            | State::Open { revision, .. }
            | State::HalfOpen { revision, .. } => Some(revision),
        }
    }

    fn uses(&self, content: ContentHash) -> bool {
        self.revision() == Some(content) || self.good == Some(content)
    }
}

impl State {
    /// One word for status and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Probation { .. } => "probation",
            Self::Serving { .. } => "serving",
            Self::RolledBack { .. } => "rolled-back",
            Self::Open { .. } => "open",
            Self::HalfOpen { .. } => "half-open",
        }
    }
}

impl ContentHash {
    /// The revision by which resolved records and replicas know this module with these settings
    /// (JSON text); never 0, which is the native rule's.
    #[must_use]
    pub fn resolver_revision(&self, settings: &str) -> u64 {
        let mut all = self.0.to_vec();
        all.extend_from_slice(settings.as_bytes());
        xxh3_64(&all).max(1)
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Enough to tell revisions apart in a log.
        self.0[..4]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests;
