//! How much is shipped at once: by what the line has shown that it carries, by what the upstream says
//! that it can take, and by the rate that the settings allow.

use super::Rules;

/// A parcel is no smaller because of a slow line, in bytes before it is packed: less would be mostly
/// overhead.
const PARCEL_BYTES_MIN: usize = 4 << 10;
/// What is under way at first: some seconds of a line of 16 kbit/s, packed.
const WINDOW_FIRST: usize = 32 << 10;
/// A shipment may begin so much earlier than its rate says (NTP64, 100 ms), so that late ticks cost nothing.
const BURST: u64 = (1 << 32) / 10;
const SECOND: u128 = 1 << 32;

/// The pace of one link.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Bytes that may be under way. Doubles with what is answered quickly, halves with what is not.
    window: usize,
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
        if let Some(rate) = rules.rate {
            let time = bytes as u128 * SECOND / u128::from(rate.max(1));
            let time = u64::try_from(time).unwrap_or(u64::MAX);
            self.free = self.free.max(now).saturating_add(time);
        }
        if self.credit == Some(0) {
            self.retry = now.saturating_add(rules.timeout / 4);
        }
    }

    /// A parcel is stored, and this is what can be taken from now on.
    pub fn stored(&mut self, now: u64, bytes: usize, credit: u64, is_quick: bool, rules: &Rules) {
        if is_quick {
            self.window = (self.window + bytes).min(Self::window_max(rules));
        }
        self.credit = Some(credit);
        if credit == 0 {
            self.retry = now.saturating_add((rules.timeout / 4).max(1));
        }
    }

    /// A parcel was not answered in time.
    pub fn was_late(&mut self) {
        self.window = (self.window / 2).max(PARCEL_BYTES_MIN.min(self.window));
    }

    fn goal(&self, rules: &Rules, (parcels, bytes): (usize, usize)) -> Option<usize> {
        if parcels >= rules.in_flight.max(1) {
            return None;
        }
        // A parcel for each half, so that one is under way while the other is answered.
        let mut goal = (self.window / 2).max(PARCEL_BYTES_MIN);
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
