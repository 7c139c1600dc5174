//! How much is shipped at once: by how long that is on the way, by what the upstream says that it can
//! take, and by the rate that the settings allow.
//!
//! What is under way beyond what the line carries stands in a queue, and live samples stand behind it. So
//! the window grows only while parcels and answers are on the way little longer than the shortest were,
//! and shrinks when they are much longer, as in LEDBAT (RFC 6817), which makes way for other traffic.

#[cfg(test)]
mod tests;

use super::Rules;

/// A parcel is no smaller because of a slow line, in bytes before it is packed: less would be mostly
/// overhead.
const PARCEL_BYTES_MIN: usize = 4 << 10;
/// What is under way at first: some seconds of a line of 16 kbit/s, packed.
const WINDOW_FIRST: usize = 32 << 10;
/// It becomes no smaller than this: half a second of a line of 16 kbit/s, packed.
const WINDOW_MIN: usize = 16 << 10;
/// Parcels of a window: while one is answered the others keep the line busy, and none takes long by itself.
const PARCELS: usize = 8;
/// How much longer than the shortest of them a parcel may be on the way (NTP64, 100 ms, the most of RFC 6817).
const QUEUE: u64 = (1 << 32) / 10;
/// When a line is measured anew, since its way may be another, longer one (NTP64, five minutes).
const ANEW: u64 = 300 << 32;
/// A shipment may begin so much earlier than its rate says (NTP64, 100 ms), so that late ticks cost nothing.
const BURST: u64 = (1 << 32) / 10;
const SECOND: u128 = 1 << 32;

/// The pace of one link.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Bytes that may be under way.
    window: usize,
    /// The shortest that a parcel and its answer were on the way since `began` (NTP64).
    shortest: u64,
    /// Of what was answered since the window was last adapted: the shortest, and bytes.
    shortest_now: u64,
    answered: usize,
    /// A queue was seen since `began`: from now on it is gone about carefully.
    is_known: bool,
    /// When the first parcel went of which that was measured; `None` if none has gone yet.
    began: Option<u64>,
    /// What the upstream can take at once, as it last said.
    credit: Option<u64>,
    /// It can take nothing; when to try again (NTP64).
    retry: u64,
    /// When the rate allows the next parcel (NTP64).
    free: u64,
}

impl Pace {
    /// Of a line that nothing is known of.
    pub fn new(rules: &Rules) -> Self {
        Self {
            window: WINDOW_FIRST.min(Self::window_max(rules)),
            shortest: u64::MAX,
            shortest_now: u64::MAX,
            answered: 0,
            is_known: false,
            began: None,
            credit: None,
            retry: 0,
            free: 0,
        }
    }

    /// How large the next parcel may be, if it may be shipped now; `in_flight` is how many parcels are
    /// under way, and their bytes.
    pub fn room(&self, now: u64, rules: &Rules, in_flight: (usize, usize)) -> Option<usize> {
        let room = self.goal(rules, in_flight)?;
        let at = self.waits_until(rules, in_flight)?;
        (at <= now).then_some(room)
    }

    /// When time alone lets the next parcel go; `None` if it waits for an answer.
    pub fn waits_until(&self, rules: &Rules, in_flight: (usize, usize)) -> Option<u64> {
        self.goal(rules, in_flight)?;
        let credit = if self.credit == Some(0) {
            self.retry
        } else {
            0
        };
        Some(self.free.saturating_sub(BURST).max(credit))
    }

    /// A parcel was handed out.
    pub fn shipped(&mut self, now: u64, bytes: usize, rules: &Rules) {
        if now.saturating_sub(*self.began.get_or_insert(now)) > ANEW {
            *self = Self {
                began: Some(now),
                credit: self.credit,
                retry: self.retry,
                free: self.free,
                ..Self::new(rules)
            };
        }
        if let Some(rate) = rules.rate {
            let time = bytes as u128 * SECOND / u128::from(rate.max(1));
            let time = u64::try_from(time).unwrap_or(u64::MAX);
            self.free = self.free.max(now).saturating_add(time);
        }
        if self.credit == Some(0) {
            self.retry = now.saturating_add(rules.timeout / 4);
        }
    }

    /// A parcel is stored, and this is what can be taken from now on. `seen` is when it went and how long
    /// it and its answer were on the way, if that says something of the line.
    pub fn stored(
        &mut self,
        now: u64,
        seen: Option<(u64, u64)>,
        bytes: usize,
        credit: u64,
        rules: &Rules,
    ) {
        if let (Some((sent, way)), Some(began)) = (seen, self.began)
            && sent >= began
        {
            self.shortest = self.shortest.min(way);
            self.shortest_now = self.shortest_now.min(way);
            self.answered += bytes;
            // The shortest of a window's: what else it took may be anything, a busy machine for one.
            if self.answered >= self.window {
                let queued = self.shortest_now - self.shortest;
                self.adapt(queued, self.answered, rules);
                (self.answered, self.shortest_now) = (0, u64::MAX);
            }
        }
        self.credit = Some(credit);
        if credit == 0 {
            self.retry = now.saturating_add((rules.timeout / 4).max(1));
        }
    }

    /// Doubles until something stands in a queue; then grows and shrinks by how much does.
    fn adapt(&mut self, queued: u64, bytes: usize, rules: &Rules) {
        let part = |time: u64| {
            let part = bytes as u128 * u128::from(time.min(QUEUE)) / u128::from(QUEUE);
            usize::try_from(part).unwrap_or(bytes)
        };
        self.is_known |= queued > QUEUE / 2;
        self.window = if !self.is_known {
            self.window + bytes
        } else if queued <= QUEUE {
            self.window + part(QUEUE - queued) / 4
        } else {
            self.window.saturating_sub(part(queued - QUEUE) / 2)
        };
        let least = WINDOW_MIN.min(Self::window_max(rules));
        self.window = self.window.clamp(least, Self::window_max(rules));
    }

    /// A parcel was not answered in time.
    pub fn was_late(&mut self) {
        self.window = (self.window / 2).max(WINDOW_MIN.min(self.window));
    }

    fn goal(&self, rules: &Rules, (parcels, bytes): (usize, usize)) -> Option<usize> {
        if parcels >= rules.in_flight.max(1) {
            return None;
        }
        let mut goal = (self.window / PARCELS).max(PARCEL_BYTES_MIN);
        goal = goal.min(rules.parcel_bytes.max(1));
        if let Some(rate) = rules.rate {
            let second = usize::try_from(rate).unwrap_or(usize::MAX);
            goal = goal.min(second.max(PARCEL_BYTES_MIN));
        }
        if parcels == 0 {
            // One may always be under way: nothing else would ask for credit.
            let credit = self.credit.filter(|credit| *credit > 0);
            let credit = credit.map_or(goal, |credit| usize::try_from(credit).unwrap_or(goal));
            return Some(goal.min(credit));
        }
        let credit = self.credit.unwrap_or(u64::MAX);
        let fits = bytes as u64 + goal as u64 <= credit && bytes + goal <= self.window;
        fits.then_some(goal)
    }

    fn window_max(rules: &Rules) -> usize {
        rules
            .parcel_bytes
            .saturating_mul(rules.in_flight.max(1))
            .max(1)
    }
}
