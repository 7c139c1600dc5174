//! The side that ships: one [`Link`] for each upstream of an outbox.
//!
//! ```text
//! Down -> Probing                    the upstream is there
//! Probing -> Up                      it has all that waits
//!         -> Draining                it lacks something
//! Up -> Draining                     the same, found in a later round
//! Draining -> Probing                all of that was shipped and stored
//! any -> Faulted -> Probing          certificates do not come; tried again, later each time
//! any -> Down                        the upstream is gone
//! ```

mod pace;
mod round;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    Entry, Lost, Mark, Order, Outbox, Stretch,
    frame::{Bad, Reply, Request},
};
use pace::Pace;
use round::{Job, Next, Round};
pub use status::{Failure, Status};

/// How often a question is asked before the round is given up. Each waits twice as long.
const TRIES: u32 = 3;
/// How often a parcel is shipped: it may be long for the line, and what has come of it counts.
const TRIES_SHIP: u32 = 5;
/// Questions at once.
const QUESTIONS: usize = 4;
/// Rounds in a row that begin at once because the last one has shipped something. Then whatever the live
/// path loses waits for its period.
const REPEATS: u32 = 2;
/// The longest wait after rounds that failed, in periods.
const PERIODS_MAX: u64 = 8;

/// How a link behaves towards an upstream. Times are NTP64.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// In which order a lane is shipped.
    pub order: Order,
    /// From one certificate to the next.
    pub period: u64,
    /// What is younger is still under way and is not asked for.
    pub settle: u64,
    /// How long an answer may take the first time.
    pub timeout: u64,
    /// Parcels that are shipped at once.
    pub in_flight: usize,
    /// Bytes of a parcel, before it is packed.
    pub parcel_bytes: usize,
    /// Bytes a second that are shipped at the most, before they are packed; `None` for no limit.
    pub rate: Option<u64>,
}

/// How much is asked at once. The defaults suit any upstream; with small ones little data reaches every
/// branch, in tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// Stretches in a round.
    pub stretches_max: usize,
    /// Stretches in a question.
    pub compare_max: usize,
    /// Versions in the stretches of a question: an upstream may have to read them all to answer.
    pub versions_max: u64,
    /// Up to so many versions are listed, beyond that a stretch is cut.
    pub list_below: u64,
    /// Into how many parts.
    pub parts: usize,
    /// Ids in a question.
    pub ids_max: usize,
    /// Keys in a question.
    pub heads_max: usize,
    /// Versions that are read at once to find the newest of each key.
    pub items_max: u64,
    /// Into how many parts a stretch is cut whose certificate is asked for while it is being shipped.
    pub ripe_parts: usize,
    /// After so many bytes the oldest of these parts is asked for.
    pub ripe_bytes: usize,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Time has passed, or something was appended.
    Tick,
    /// An answer has come, to a question or to a parcel.
    Reply {
        /// To which.
        ask: u64,
        /// Its bytes ([`super::frame::Reply`]).
        frame: Bytes,
    },
    /// A parcel is packed, and leaves now.
    Sent {
        /// Which.
        ask: u64,
    },
    /// There will be no answer.
    Failed {
        /// To which.
        ask: u64,
        /// In words.
        why: String,
    },
    /// The upstream is there, or there again, or is another one now: a new round at once, whatever was
    /// going on. What was certified before may be gone with it, so the journal has to be told first:
    /// everything that it still keeps waits again.
    Wake,
    /// The upstream is not there.
    Gone,
}

/// What is to be done.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Ask the upstream; [`Event::Reply`] or [`Event::Failed`] is told with this number.
    Ask {
        /// The question's number.
        ask: u64,
        /// Its bytes.
        frame: Bytes,
    },
    /// Pack this and ask the upstream to store it ([`super::frame::Request::Ship`]), as a question.
    Ship {
        /// The question's number.
        ask: u64,
        /// The lane.
        lane: u8,
        /// What to ship.
        entries: Vec<Entry>,
    },
    /// The upstream durably has, or will never want, everything of these stretches that was appended up to
    /// the mark. To be told to the journal.
    Certified {
        /// Of what.
        stretches: Vec<Stretch>,
        /// Up to where.
        mark: Mark,
    },
    /// The upstream knows that this was given up. To be told to the journal.
    Noted(Vec<Lost>),
}

/// How a link stands with an upstream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum State {
    /// The upstream is not there.
    #[default]
    Down,
    /// It is being asked what it has.
    Probing,
    /// It is being sent what it lacks.
    Draining,
    /// It has what waits, but for the last moments.
    Up,
    /// It is there, and gives no certificates.
    Faulted,
}

const SECOND: u64 = 1 << 32;

/// A question or a parcel that waits for its answer.
#[derive(Clone, Debug)]
struct Flight {
    job: Job,
    /// Of a question; empty for a parcel.
    frame: Bytes,
    sent: u64,
    due: u64,
    tries: u32,
    /// What was said when no answer came.
    why: String,
}

/// An outbox's view of one upstream. Whoever drives it calls [`Link::handle`] with what happens, and with
/// [`Event::Tick`] when [`Link::deadline`] is over.
///
/// A round keeps nothing that the next one could not find again: what was stored makes the difference
/// smaller. So an error ends it, and to resume is to begin anew.
#[derive(Clone, Debug)]
pub struct Link {
    rules: Rules,
    sizes: Sizes,
    chance: u64,
    /// When the next round is to begin; `None` while the upstream is gone.
    due: Option<u64>,
    round: Option<Round>,
    flights: BTreeMap<u64, Flight>,
    next: u64,
    pace: Pace,
    repeats: u32,
    failures: u32,
    status: Status,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            order: Order::OldestFirst,
            period: 5 * SECOND,
            settle: 2 * SECOND,
            timeout: 5 * SECOND,
            in_flight: 8,
            // Packed some ten times smaller: eight of them keep 100 Mbit/s busy for a thirtieth of a second.
            parcel_bytes: 512 << 10,
            rate: None,
        }
    }
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            stretches_max: 4_096,
            compare_max: 64,
            // Half a second or so of reading.
            versions_max: 1 << 19,
            // As many ids are as dear as a hundred sums.
            list_below: 256,
            parts: 16,
            ids_max: 4_096,
            heads_max: 512,
            items_max: 1 << 16,
            ripe_parts: 64,
            ripe_bytes: 4 << 20,
        }
    }
}

impl Link {
    /// To an upstream that is not there yet. `seed` spreads the times of rounds.
    #[must_use]
    pub fn new(rules: Rules, seed: u64) -> Self {
        Self::with_sizes(rules, Sizes::default(), seed)
    }

    /// The same, with sizes of its own.
    #[must_use]
    pub fn with_sizes(rules: Rules, sizes: Sizes, seed: u64) -> Self {
        Self {
            rules,
            sizes,
            chance: seed,
            due: None,
            round: None,
            flights: BTreeMap::new(),
            next: 0,
            pace: Pace::new(&rules),
            repeats: 0,
            failures: 0,
            status: Status::default(),
        }
    }

    /// What is known.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut status = self.status.clone();
        status.waiting = self.round.as_ref().map_or(0, Round::waiting);
        status.waiting_bytes = status.bytes_of(status.waiting);
        status
    }

    /// When to tick at the latest (NTP64).
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let flights = self.flights.values().map(|flight| flight.due);
        let due = match &self.round {
            None => self.due,
            Some(round) if round.wants_to_ship() => {
                self.pace.waits_until(&self.rules, self.in_flight())
            }
            Some(_) => None,
        };
        flights.chain(due).min()
    }

    /// Tells what happened at `now` (NTP64); returns what to do. Reads the outbox, and so may block.
    pub fn handle(&mut self, now: u64, event: Event, outbox: &mut dyn Outbox) -> Vec<Effect> {
        let mut effects = Vec::new();
        let done = self
            .apply(now, event, outbox, &mut effects)
            .and_then(|()| self.expire(now, &mut effects))
            .and_then(|()| self.advance(now, outbox, &mut effects));
        self.certify(&mut effects);
        if let Err(why) = done {
            self.fail(now, why);
        }
        effects
    }

    fn apply(
        &mut self,
        now: u64,
        event: Event,
        outbox: &mut dyn Outbox,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        match event {
            Event::Tick => {}
            Event::Reply { ask, frame } => return self.reply(now, ask, &frame, outbox, effects),
            Event::Sent { ask } => {
                if let Some(flight) = self.flights.get_mut(&ask) {
                    flight.sent = now;
                    flight.due = now.saturating_add(self.rules.timeout << (flight.tries - 1));
                }
            }
            Event::Failed { ask, why } => {
                let again = self.spread(self.rules.timeout / 2);
                if let Some(flight) = self.flights.get_mut(&ask) {
                    flight.due = flight.due.min(now.saturating_add(again));
                    flight.why = why;
                }
            }
            Event::Wake => {
                self.rest();
                self.pace = Pace::new(&self.rules);
                self.due = Some(now);
                self.failures = 0;
                self.repeats = 0;
                self.turn(now, State::Probing);
            }
            Event::Gone => {
                self.rest();
                self.due = None;
                self.turn(now, State::Down);
            }
        }
        Ok(())
    }

    fn reply(
        &mut self,
        now: u64,
        ask: u64,
        frame: &Bytes,
        outbox: &mut dyn Outbox,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        // Of a question that was answered already, or of a round that has ended.
        let Some(flight) = self.flights.get_mut(&ask) else {
            return Ok(());
        };
        self.status.round_trips += 1;
        self.status.answered_bytes += frame.len() as u64;
        match Reply::decode(frame).map_err(Failure::Answer)? {
            Reply::Refused(Bad::Unreadable) => {
                // Its turn comes again when its time is over.
                flight.why = Bad::Unreadable.to_string();
                Ok(())
            }
            Reply::Refused(why) => Err(Failure::Refused(why)),
            reply => {
                let Some(flight) = self.flights.remove(&ask) else {
                    return Ok(());
                };
                if let (Job::Ship(parcel), Reply::Stored(stored)) = (&flight.job, &reply) {
                    let took = now.saturating_sub(flight.sent);
                    let spent = u128::from(stored.spent_us) * u128::from(SECOND) / 1_000_000;
                    let way = took.saturating_sub(u64::try_from(spent).unwrap_or(took));
                    // One that was shipped again says nothing of the line.
                    let seen = (flight.tries == 1).then_some((flight.sent, way));
                    self.pace
                        .stored(now, seen, parcel.bytes, stored.credit, &self.rules);
                    self.status.stored(parcel, stored);
                }
                let Some(round) = &mut self.round else {
                    return Ok(());
                };
                if let Some(lost) = round.found(flight.job, reply, outbox)? {
                    effects.push(Effect::Noted(lost));
                }
                Ok(())
            }
        }
    }

    /// Asks and ships again what was not answered in time.
    fn expire(&mut self, now: u64, effects: &mut Vec<Effect>) -> Result<(), Failure> {
        for (ask, flight) in &mut self.flights {
            if flight.due > now {
                continue;
            }
            let tries = match flight.job {
                Job::Ship(_) => TRIES_SHIP,
                _ => TRIES,
            };
            if flight.tries == tries {
                return Err(Failure::Silent(std::mem::take(&mut flight.why)));
            }
            flight.due = now.saturating_add(self.rules.timeout << flight.tries);
            flight.tries += 1;
            flight.sent = now;
            if let Job::Ship(parcel) = &flight.job {
                self.pace.was_late();
                self.status.resent += parcel.entries.len() as u64;
            } else {
                self.status.asked_bytes += flight.frame.len() as u64;
            }
            effects.push(flight.effect(*ask));
        }
        Ok(())
    }

    /// Does whatever can be done now.
    fn advance(
        &mut self,
        now: u64,
        outbox: &mut dyn Outbox,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        loop {
            let Some(round) = &mut self.round else {
                if self.due.is_none_or(|due| now < due) {
                    return Ok(());
                }
                if self.status.state != State::Up {
                    self.turn(now, State::Probing);
                }
                let before = now.saturating_sub(self.rules.settle);
                self.round = Some(Round::new(before, self.sizes, outbox)?);
                continue;
            };
            let asked = self.flights.values().filter(|flight| !flight.is_parcel());
            let asked = asked.count();
            if asked < QUESTIONS
                && let Some((job, request)) = round.question(now, &self.rules, outbox)?
            {
                self.ask(now, job, &request, effects);
                continue;
            }
            let in_flight = self.in_flight();
            let room = self.pace.room(now, &self.rules, in_flight);
            if let Some(room) = room
                && let Some(parcel) = self.parcel(now, room, outbox)?
            {
                self.ship(now, parcel, effects);
                continue;
            }
            let is_quiet = self.flights.is_empty();
            let Some(round) = &mut self.round else {
                continue;
            };
            match round.next(is_quiet, outbox)? {
                Next::Wait => return Ok(()),
                Next::Again => {}
                Next::Drain => self.turn(now, State::Draining),
                Next::End => self.end(now, effects),
            }
        }
    }

    fn parcel(
        &mut self,
        now: u64,
        room: usize,
        outbox: &mut dyn Outbox,
    ) -> Result<Option<round::Parcel>, Failure> {
        let order = self.rules.order;
        let round = self.round.as_mut();
        round.map_or(Ok(None), |round| round.parcel(now, order, room, outbox))
    }

    fn ask(&mut self, now: u64, job: Job, request: &Request, effects: &mut Vec<Effect>) {
        let frame = Bytes::from(request.encode());
        self.status.asked_bytes += frame.len() as u64;
        self.fly(now, job, frame, effects);
    }

    fn ship(&mut self, now: u64, parcel: round::Parcel, effects: &mut Vec<Effect>) {
        self.pace.shipped(now, parcel.bytes, &self.rules);
        self.fly(now, Job::Ship(parcel), Bytes::new(), effects);
    }

    fn fly(&mut self, now: u64, job: Job, frame: Bytes, effects: &mut Vec<Effect>) {
        self.next += 1;
        let flight = Flight {
            job,
            frame,
            sent: now,
            due: now.saturating_add(self.rules.timeout),
            tries: 1,
            why: "none came in time".to_owned(),
        };
        effects.push(flight.effect(self.next));
        self.flights.insert(self.next, flight);
    }

    /// Parcels under way, and their bytes.
    fn in_flight(&self) -> (usize, usize) {
        let bytes = self
            .flights
            .values()
            .filter_map(|flight| match &flight.job {
                Job::Ship(parcel) => Some(parcel.bytes),
                _ => None,
            });
        bytes.fold((0, 0), |(count, total), bytes| (count + 1, total + bytes))
    }

    /// Tells what this call has found certain.
    fn certify(&mut self, effects: &mut Vec<Effect>) {
        let certain = self.round.as_mut().map(Round::take_certain);
        for (mark, stretches) in certain.into_iter().flatten() {
            effects.push(Effect::Certified { stretches, mark });
        }
    }

    fn end(&mut self, now: u64, effects: &mut Vec<Effect>) {
        self.certify(effects);
        let Some(round) = self.round.take() else {
            return;
        };
        self.status.rounds += 1;
        self.status.last_error = None;
        self.failures = 0;
        if round.is_all {
            self.status.certified_through = Some(round.before);
        }
        if round.has_shipped {
            self.repeats += 1;
        } else {
            self.repeats = 0;
        }
        if !round.is_all || (round.has_shipped && self.repeats <= REPEATS) {
            self.turn(now, State::Probing);
            // Not at once: what this call has certified has to be told first.
            self.due = Some(now.saturating_add(1));
        } else {
            self.turn(now, State::Up);
            let wait = self.spread(self.rules.period);
            self.due = Some(now.saturating_add(wait.max(1)));
        }
    }

    fn fail(&mut self, now: u64, why: Failure) {
        self.rest();
        self.status.rounds += 1;
        self.status.failures += 1;
        self.status.last_error = Some(why);
        let most = self.rules.period.max(self.rules.timeout) * PERIODS_MAX;
        let wait = (self.rules.timeout << self.failures.min(16)).min(most);
        self.failures += 1;
        let wait = self.spread(wait).max(1);
        self.due = self.due.map(|_| now.saturating_add(wait));
        self.turn(now, State::Faulted);
    }

    fn rest(&mut self) {
        self.flights.clear();
        self.round = None;
    }

    fn turn(&mut self, now: u64, state: State) {
        if self.status.state != state {
            self.status.state = state;
            self.status.since = now;
        }
    }

    /// A time between three quarters of this and all of it, so that many links do not act at once.
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

impl Flight {
    const fn is_parcel(&self) -> bool {
        matches!(self.job, Job::Ship(_))
    }

    fn effect(&self, ask: u64) -> Effect {
        match &self.job {
            Job::Ship(parcel) => Effect::Ship {
                ask,
                lane: parcel.lane,
                entries: parcel.entries.clone(),
            },
            _ => Effect::Ask {
                ask,
                frame: self.frame.clone(),
            },
        }
    }
}
