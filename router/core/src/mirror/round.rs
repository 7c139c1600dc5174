//! The side that asks: one [`Mirror`] for each storage and peer.
//!
//! ```text
//! Resting -> Probing -> Resting                  in step, or nothing can be done about it
//!            Probing -> Wildcards -> Working     the operations first, then records
//!            Probing -> Working -> Probing       until a probe finds nothing more
//! any -> Resting                                 an error, or the peer is gone
//! ```
//!
//! A round keeps nothing that the next one could not find again: whatever was admitted has shrunk the
//! difference. So an error ends it, and to resume is to begin anew.

mod events;
mod forgotten;
mod status;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;

use super::{
    Marks, Replica, answer,
    frame::{Bad, MINUTE, Probe, Probed, Reply, Request, Rest, times_from},
};
use crate::{
    key::Key,
    ledger::{Axis, Span, Summary},
    version::Version,
};
pub use events::{Effect, Event, Priority};
pub use status::{Failure, Report, Status};
use work::{Job, Work};

/// How often a question is asked before the round is given up. Each waits twice as long.
const TRIES: u32 = 5;
/// How often a round probes again before it takes the rest for the work of writers.
const REPEATS: u32 = 5;
/// How many rounds a difference that nothing can be done about is believed to be the same. The sums
/// say so; but what the replica refused then it may take now.
const SETTLED_ROUNDS: u32 = 16;

/// For so long (NTP64) a peer's floor is taken to rise with time. It says where it is if it has risen
/// further, and nothing if it stood still.
const FLOOR_KNOWN: u64 = 60 * MINUTE;

/// How a storage is mirrored with a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Whether records are taken from it.
    pub from: bool,
    /// Whether records are sent to it.
    pub to: bool,
    /// Whether this side leads: of two that may ask each other, the one with the smaller id. The other
    /// asks only if it has not been asked for two periods.
    pub lead: bool,
    /// From one round to the next.
    pub period: Duration,
    /// How long an answer may take the first time.
    pub timeout: Duration,
    /// Questions at once.
    pub in_flight: usize,
    /// Bytes of records asked for, under way or being admitted, at once; before they are packed.
    pub bytes_in_flight: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            from: true,
            to: true,
            lead: true,
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            in_flight: 4,
            bytes_in_flight: 4 << 20,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Resting,
    /// A probe is under way, or due ([`Mirror::due`]).
    Probing,
    Wildcards,
    Working,
}

/// A question that waits for its answer.
#[derive(Clone, Debug)]
struct Flight {
    job: Job,
    frame: Bytes,
    priority: Priority,
    /// When it was asked for the first time.
    first: u64,
    /// Bytes of records in the question or to be expected in its answer.
    bytes: usize,
    sent: u64,
    due: u64,
    tries: u32,
}

/// What both sides said of themselves in a probe. The same again: nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Pair {
    keys: [Summary; 2],
    times: [Summary; 2],
    wildcards: [u64; 2],
    horizons: [Version; 2],
    revisions: [u64; 2],
}

/// What is known of the peer.
#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    is_silent: bool,
    is_deaf: bool,
    /// What it is sent may be packed.
    unpacks: bool,
    /// The earliest it keeps, and when it said so.
    floor: Option<(u64, u64)>,
}

/// A storage's view of one mirror. Whoever drives it calls [`Mirror::handle`] with what happens, and
/// with [`Event::Tick`] when [`Mirror::deadline`] is over.
#[derive(Clone, Debug)]
pub struct Mirror {
    rules: Rules,
    chance: u64,
    phase: Phase,
    /// When the next probe is to be made; `None` while the peer is gone.
    due: Option<u64>,
    /// A round was wanted while one was running.
    is_woken: bool,
    work: Work,
    flights: BTreeMap<u64, Flight>,
    /// What is being admitted: bytes.
    batches: BTreeMap<u64, usize>,
    next: u64,
    peer: Peer,
    /// Bytes of records of one frame, before they are packed ([`Mirror::fit_page`]).
    page: usize,
    repeats: u32,
    /// This round has compared the series by itself.
    had_series_first: bool,
    /// Ours and the peer's, by the last probe.
    horizons: [Version; 2],
    /// Changes wait for a resolver, ours or the peer's: both may hold the same, and not all there is.
    waits: bool,
    /// What was sent in this round although it is below the peer's horizon: keys and own versions.
    old: BTreeSet<(Key, Version)>,
    /// A look was made to find what of that the peer did not take.
    is_second_look: bool,
    failures: u32,
    /// What the last probe of this round said.
    pair: Option<Pair>,
    /// What a round ended with that could do nothing.
    settled: Option<Pair>,
    settled_rounds: u32,
    report: Report,
    status: Status,
}

impl Mirror {
    /// Of a peer that is not there yet. `seed` spreads the times of rounds.
    #[must_use]
    pub fn new(rules: Rules, seed: u64) -> Self {
        Self {
            rules,
            chance: seed,
            phase: Phase::Resting,
            due: None,
            is_woken: false,
            work: Work::default(),
            flights: BTreeMap::new(),
            batches: BTreeMap::new(),
            next: 0,
            peer: Peer::default(),
            page: work::PAGE,
            repeats: 0,
            had_series_first: false,
            horizons: [Version::ZERO; 2],
            waits: false,
            old: BTreeSet::new(),
            is_second_look: false,
            failures: 0,
            pair: None,
            settled: None,
            settled_rounds: 0,
            report: Report::default(),
            status: Status::default(),
        }
    }

    /// What is known.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut status = self.status.clone();
        status.total.add(&self.report);
        status.total.spans = self.report.spans;
        let jobs = self.flights.values().map(|flight| &flight.job);
        status.waiting = self.work.waiting() + jobs.map(Job::items).sum::<u64>();
        status.is_present = self.due.is_some() || self.phase != Phase::Resting;
        status
    }

    /// When to tick at the latest (NTP64).
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let flights = self.flights.values().map(|flight| flight.due);
        let due = self.due.filter(|_| self.may_probe());
        flights.chain(due).min()
    }

    /// Tells what happened at `now` (NTP64); returns what to do. Reads the replica, and so may block.
    pub fn handle(&mut self, now: u64, event: Event, replica: &mut dyn Replica) -> Vec<Effect> {
        let mut effects = Vec::new();
        let done = self
            .apply(now, event, replica, &mut effects)
            .and_then(|()| self.expire(now, &mut effects))
            .and_then(|()| self.advance(now, replica, &mut effects));
        if let Err(why) = done {
            self.fail(now, why, &mut effects);
        }
        effects
    }

    fn apply(
        &mut self,
        now: u64,
        event: Event,
        replica: &mut dyn Replica,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        match event {
            Event::Tick => {}
            Event::Reply { ask, frame } => return self.reply(now, ask, &frame, replica, effects),
            Event::Failed { ask } => {
                let again = self.spread(ntp(self.rules.timeout) / 2);
                if let Some(flight) = self.flights.get_mut(&ask) {
                    flight.due = flight.due.min(now.saturating_add(again));
                }
            }
            Event::Admitted { batch } => {
                self.batches.remove(&batch);
            }
            Event::Refused { batch, why } => {
                // Of a batch that a round before this one had left, too: the store is not well.
                if self.batches.remove(&batch).is_some() {
                    return Err(Failure::Admission(why));
                }
            }
            Event::Wake if self.phase == Phase::Resting => {
                self.due = Some(now);
                self.failures = 0;
                self.settled = None;
            }
            Event::Wake => self.is_woken = true,
            Event::Gone => {
                self.rest();
                self.due = None;
                self.is_woken = false;
                self.status.in_step_since = None;
            }
            Event::Probed { in_step } if self.phase == Phase::Resting => {
                if in_step {
                    self.status.in_step_since.get_or_insert(now);
                    self.report.spans = 0;
                } else {
                    self.status.in_step_since = None;
                }
                if !self.rules.lead && self.due.is_some() {
                    let later = self.spread(2 * ntp(self.rules.period));
                    self.due = Some(now.saturating_add(later));
                }
            }
            // The round at hand finds out for itself.
            Event::Probed { .. } => {}
        }
        Ok(())
    }

    /// Asks again what was not answered in time.
    fn expire(&mut self, now: u64, effects: &mut Vec<Effect>) -> Result<(), Failure> {
        let timeout = ntp(self.rules.timeout);
        for (ask, flight) in &mut self.flights {
            if flight.due > now {
                continue;
            }
            if flight.tries == TRIES {
                return Err(Failure::Silent);
            }
            flight.due = now.saturating_add(timeout << flight.tries);
            flight.tries += 1;
            flight.sent = now;
            self.report.asked_bytes += flight.frame.len() as u64;
            effects.push(Effect::Ask {
                ask: *ask,
                frame: flight.frame.clone(),
                priority: flight.priority,
            });
        }
        Ok(())
    }

    /// Does whatever can be done now.
    fn advance(
        &mut self,
        now: u64,
        replica: &mut dyn Replica,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        loop {
            if self.may_probe() {
                if self.due.is_none_or(|due| now < due) {
                    return Ok(());
                }
                if self.phase == Phase::Resting {
                    self.old.clear();
                    self.is_second_look = false;
                    self.repeats = 0;
                    self.had_series_first = false;
                    self.pair = None;
                }
                self.phase = Phase::Probing;
                self.probe(now, replica, effects)?;
                return Ok(());
            }
            match self.phase {
                Phase::Resting | Phase::Probing => return Ok(()),
                Phase::Wildcards | Phase::Working => self.fill(now, replica, effects)?,
            }
            if !self.is_quiet() {
                return Ok(());
            }
            if self.phase == Phase::Wildcards {
                self.phase = Phase::Working;
            } else {
                self.end_of_work(now, effects);
            }
        }
    }

    /// Nothing is under way.
    fn is_quiet(&self) -> bool {
        self.flights.is_empty() && self.batches.is_empty()
    }

    /// A probe waits for nothing but its time. What the last round left to be admitted would be found
    /// missing.
    fn may_probe(&self) -> bool {
        matches!(self.phase, Phase::Resting | Phase::Probing) && self.is_quiet()
    }

    fn probe(
        &mut self,
        now: u64,
        replica: &mut dyn Replica,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        let before = replica.stores()?;
        let marks = replica.marks()?;
        let floor = self.peer_floor(now).max(marks.floor);
        // The next full minute but one: until the answer is made the floors will have moved on.
        let minute = if floor == 0 { 0 } else { floor / MINUTE + 2 };
        let (probe, rest) =
            answer::probe_of(replica, &before, &marks, marks.series.then_some(minute))?;
        let request = Request::Probe(probe.clone());
        let job = Job::Probe(Box::new((marks, probe, rest)));
        self.ask(now, job, &request, 0, effects);
        Ok(())
    }

    /// How old a record may be to be of use to the peer.
    fn peer_floor(&self, now: u64) -> u64 {
        let floor = self.peer.floor.filter(|(floor, _)| *floor > 0);
        floor.map_or(0, |(floor, at)| {
            let since = now.saturating_sub(at).min(FLOOR_KNOWN);
            floor.saturating_add(since)
        })
    }

    fn ask(
        &mut self,
        now: u64,
        job: Job,
        request: &Request,
        bytes: usize,
        effects: &mut Vec<Effect>,
    ) {
        let frame = Bytes::from(request.encode());
        let priority = match request {
            Request::Fetch { .. } | Request::Push(_) => Priority::Bulk,
            _ => Priority::Control,
        };
        self.report.asked_bytes += frame.len() as u64;
        if matches!(request, Request::Push(parcel) if parcel.packed.is_some()) {
            self.fit_page(frame.len());
        }
        self.next += 1;
        let flight = Flight {
            job,
            frame: frame.clone(),
            priority,
            bytes,
            first: now,
            sent: now,
            due: now.saturating_add(ntp(self.rules.timeout)),
            tries: 1,
        };
        self.flights.insert(self.next, flight);
        effects.push(Effect::Ask {
            ask: self.next,
            frame,
            priority,
        });
    }

    fn reply(
        &mut self,
        now: u64,
        ask: u64,
        frame: &Bytes,
        replica: &mut dyn Replica,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        // Of a question that was answered already, or of a round that has ended.
        let Some(flight) = self.flights.get(&ask) else {
            return Ok(());
        };
        self.report.answered_bytes += frame.len() as u64;
        let reply = Reply::decode(frame).map_err(Failure::Answer)?;
        if reply == Reply::Refused(Bad::Unreadable) {
            // Its turn comes again when its time is over.
            return Ok(());
        }
        let (sent, tries) = (flight.sent, flight.tries);
        let Some(Flight { job, first, .. }) = self.flights.remove(&ask) else {
            return Ok(());
        };
        match (job, reply) {
            (_, Reply::Refused(why)) => Err(Failure::Refused(why)),
            (Job::Probe(asked), Reply::Probed(mut probed)) => {
                if tries == 1 {
                    let middle = sent + now.saturating_sub(sent) / 2;
                    self.status.clock_offset = Some(probed.now.wrapping_sub(middle).cast_signed());
                }
                if !probed.stores.is_empty() {
                    let stores = std::mem::take(&mut probed.stores);
                    effects.push(Effect::Told { stores, first });
                }
                self.probed(now, &asked, *probed, effects);
                Ok(())
            }
            (job, reply) => self.found(job, reply, replica, effects),
        }
    }

    fn probed(
        &mut self,
        now: u64,
        (marks, mine, own): &(Marks, Probe, Rest),
        probed: Probed,
        effects: &mut Vec<Effect>,
    ) {
        let theirs = probed.rest.unwrap_or(Rest { floor: 0, ..*own });
        self.waits = marks.waits || probed.waits;
        self.peer.is_silent = probed.is_silent;
        self.peer.is_deaf = probed.is_deaf;
        self.peer.unpacks = probed.unpacks;
        if !probed.unpacks {
            self.page = work::PAGE;
        }
        if let Some(floor) = probed.floor.or(probed.rest.map(|rest| rest.floor)) {
            self.peer.floor = Some((floor, now));
        }
        self.status.revision_agrees = Some(theirs.revision == marks.revision);
        self.horizons = [marks.horizon, theirs.horizon];
        let summary = |found: &Option<(Summary, _)>, mine| found.as_ref().map_or(mine, |(s, _)| *s);
        let times = mine.times.map_or(Summary::EMPTY, |(_, times)| times);
        let pair = Pair {
            keys: [mine.keys, summary(&probed.keys, mine.keys)],
            times: [times, summary(&probed.times, times)],
            wildcards: [own.wildcards, theirs.wildcards],
            horizons: [marks.horizon, theirs.horizon],
            revisions: [marks.revision, theirs.revision],
        };
        let differs = probed.keys.is_some() || probed.times.is_some();
        let unequal_horizons = theirs.horizon != marks.horizon;
        let operations = unequal_horizons || own.wildcards != theirs.wildcards;
        if probed.floor.is_some() && self.repeats < REPEATS {
            // The series could not be compared from so early on.
            return self.again(now, 0);
        }
        if !differs && !operations {
            return self.end(now, None, effects);
        }
        let is_settled = self.settled == Some(pair) && self.settled_rounds < SETTLED_ROUNDS;
        // What the peer has forgotten is found by its not being there after it was sent.
        let looks_again = !self.old.is_empty() && !self.is_second_look && self.pair == Some(pair);
        self.is_second_look |= looks_again;
        if !looks_again && (is_settled || self.pair == Some(pair)) {
            let differs = differs || (operations && !unequal_horizons);
            return self.settle(now, pair, differs, effects);
        }
        if self.repeats > REPEATS {
            return self.end(now, Some(true), effects);
        }
        self.pair = Some(pair);
        self.report.spans = 0;
        self.work = Work::new(&self.rules, &self.peer, marks, theirs.horizon, operations);
        // A version that comes is the latest as well, if it is newer: what still differs then is little.
        let is_series_first =
            probed.keys.is_some() && probed.times.is_some() && !self.had_series_first;
        self.had_series_first |= is_series_first;
        self.work.is_series_first = is_series_first;
        let minute = mine.times.map_or(0, |(minute, _)| minute);
        let keys = probed.keys.filter(|_| !is_series_first);
        let spans = [
            (Span::all(Axis::Keys), keys),
            (times_from(minute), probed.times),
        ];
        for (span, found) in spans {
            if let Some((_, cut)) = found {
                // A cut that does not fit says no more than that the span differs.
                match cut.parts(&span) {
                    Some(parts) => self.work.add_nodes(parts),
                    None => self.work.add_again(span),
                }
            }
        }
        self.phase = if operations {
            Phase::Wildcards
        } else {
            Phase::Working
        };
    }

    /// Nothing is left to be done for this look: look again, unless nothing could be done.
    fn end_of_work(&mut self, now: u64, effects: &mut Vec<Effect>) {
        let (is_moved, is_left) = (self.work.is_moved, self.work.is_left);
        if self.work.is_garbage && !is_moved && !is_left {
            self.work = Work::default();
            return self.end(now, None, effects);
        }
        let differs = self.report.spans > 0 || is_left;
        if std::mem::take(&mut self.work).is_series_first {
            self.pair = None;
        }
        if let Some(pair) = self.pair.filter(|_| !is_moved && !is_left) {
            return self.settle(now, pair, differs, effects);
        }
        let wait = match self.repeats {
            0 | 1 => 0,
            repeats => self.spread(ntp(self.rules.timeout) << (repeats - 1) >> 3),
        };
        self.again(now, wait);
        if is_left && is_moved {
            // It was known not to be the last look, and is nearer to it.
            self.repeats -= 1;
        }
    }

    fn again(&mut self, now: u64, wait: u64) {
        self.repeats += 1;
        self.phase = Phase::Probing;
        self.due = Some(now.saturating_add(wait));
    }

    /// Ends a round that can do nothing about what differs.
    fn settle(&mut self, now: u64, pair: Pair, differs: bool, effects: &mut Vec<Effect>) {
        if self.settled == Some(pair) {
            self.settled_rounds += 1;
        } else {
            self.settled_rounds = 0;
        }
        if self.settled_rounds > SETTLED_ROUNDS {
            self.settled_rounds = 0;
        }
        self.settled = Some(pair);
        self.end(now, differs.then_some(false), effects);
    }

    fn end(&mut self, now: u64, differs: Option<bool>, effects: &mut Vec<Effect>) {
        self.rest();
        let differs = differs.or(self.waits.then_some(true));
        if differs.is_none() {
            self.report.spans = 0;
        }
        let report = self.close(now);
        self.failures = 0;
        self.status.last_error = None;
        let [ours, theirs] = self.horizons;
        if differs.is_none() && theirs > ours {
            effects.push(Effect::Horizon(theirs));
        }
        effects.push(match differs {
            None => {
                self.status.in_step_since.get_or_insert(now);
                Effect::InStep(report)
            }
            Some(live) => {
                self.status.in_step_since = None;
                Effect::Differs { report, live }
            }
        });
        let periods = if self.rules.lead { 1 } else { 2 };
        let wait = self.spread(periods * ntp(self.rules.period));
        let wait = if std::mem::take(&mut self.is_woken) {
            0
        } else {
            wait
        };
        self.due = Some(now.saturating_add(wait));
    }

    fn fail(&mut self, now: u64, why: Failure, effects: &mut Vec<Effect>) {
        self.rest();
        self.close(now);
        self.status.in_step_since = None;
        self.status.last_error = Some(why.clone());
        let most = ntp(self.rules.period.max(self.rules.timeout));
        let wait = (ntp(self.rules.timeout) << self.failures.min(16)).min(most);
        self.failures += 1;
        self.is_woken = false;
        let retry = now.saturating_add(self.spread(wait));
        self.due = self.due.map(|_| retry);
        effects.push(Effect::Failed { why, retry });
    }

    fn rest(&mut self) {
        self.phase = Phase::Resting;
        self.flights.clear();
        self.work = Work::default();
    }

    fn close(&mut self, now: u64) -> Report {
        let report = std::mem::take(&mut self.report);
        self.status.total.add(&report);
        self.status.rounds += 1;
        self.status.last_round = Some(now);
        self.report.spans = report.spans;
        report
    }

    /// A time between three quarters of this and all of it, so that many mirrors do not act at once.
    fn spread(&mut self, time: u64) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.chance;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        time - word % (time / 4).max(1)
    }
}

/// A duration as NTP64 counts.
fn ntp(duration: Duration) -> u64 {
    (duration.as_secs() << 32) + (u64::from(duration.subsec_nanos()) << 32) / 1_000_000_000
}
