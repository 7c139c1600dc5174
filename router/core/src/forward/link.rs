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

mod status;

use bytes::Bytes;

use super::{Entry, Lost, Mark, Order, Outbox, Stretch};

pub use status::{Failure, Status};

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

impl Default for Rules {
    fn default() -> Self {
        Self {
            order: Order::OldestFirst,
            period: 5 * SECOND,
            settle: 2 * SECOND,
            timeout: 5 * SECOND,
            in_flight: 4,
            parcel_bytes: 256 << 10,
            rate: None,
        }
    }
}

/// An outbox's view of one upstream. Whoever drives it calls [`Link::handle`] with what happens, and with
/// [`Event::Tick`] when [`Link::deadline`] is over.
#[derive(Clone, Debug)]
pub struct Link {
    rules: Rules,
    chance: u64,
    due: Option<u64>,
    status: Status,
}

impl Link {
    /// To an upstream that is not there yet. `seed` spreads the times of rounds.
    #[must_use]
    pub fn new(rules: Rules, seed: u64) -> Self {
        Self {
            rules,
            chance: seed,
            due: None,
            status: Status::default(),
        }
    }

    /// What is known.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.clone()
    }

    /// When to tick at the latest (NTP64).
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.due
    }

    /// Tells what happened at `now` (NTP64); returns what to do. Reads the outbox, and so may block.
    pub fn handle(&mut self, now: u64, event: Event, outbox: &mut dyn Outbox) -> Vec<Effect> {
        let _ = (&self.rules, self.chance, outbox);
        if let Event::Wake | Event::Gone = event {
            self.due = (event == Event::Wake).then_some(now);
            self.status.state = State::Down;
            self.status.since = now;
        }
        Vec::new()
    }
}
