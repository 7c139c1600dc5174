use std::collections::VecDeque;

use super::*;

const SECOND: u64 = 1 << 32;
const MILLI: u64 = SECOND / 1_000;

/// A line that carries one byte after another, and an upstream that answers each parcel.
struct Line {
    now: u64,
    /// Bytes a second.
    rate: u64,
    /// There and back, and to be stored.
    delay: u64,
    /// When the last byte handed over will have been carried.
    free: u64,
    /// When it went, when its answer comes, its bytes.
    flights: VecDeque<(u64, u64, usize)>,
    pace: Pace,
    rules: Rules,
    /// Up to so much later an answer is seen, each by another part of it.
    noise: u64,
    answers: u64,
}

/// What a stretch of time showed.
#[derive(Debug)]
struct Seen {
    /// The part of the line that was used.
    used: f64,
    /// The longest that a sample would have waited behind what was under way, in milliseconds.
    queue_ms: u64,
}

impl Line {
    fn new(rate: u64, delay: u64) -> Self {
        let rules = Rules::default();
        Self {
            now: SECOND,
            rate,
            delay,
            free: 0,
            flights: VecDeque::new(),
            pace: Pace::new(&rules),
            rules,
            noise: 0,
            answers: 0,
        }
    }

    fn run(&mut self, seconds: u64) -> Seen {
        let began = self.now;
        let (mut bytes_stored, mut queue) = (0, 0);
        while self.now < began + seconds * SECOND {
            let in_flight = self.flights.iter().map(|(.., bytes)| bytes).sum();
            let in_flight = (self.flights.len(), in_flight);
            if let Some(bytes) = self.pace.room(self.now, &self.rules, in_flight) {
                let takes = bytes as u128 * u128::from(SECOND) / u128::from(self.rate);
                self.free = self.free.max(self.now) + u64::try_from(takes).unwrap();
                let flight = (self.now, self.free + self.delay, bytes);
                self.flights.push_back(flight);
                queue = queue.max(self.free - self.now);
                self.pace.shipped(self.now, bytes, &self.rules);
                continue;
            }
            let (sent, answered, bytes) = self.flights.pop_front().unwrap();
            self.answers += 1;
            let answered = answered + self.noise / 8 * (self.answers * 5 % 8);
            self.now = self.now.max(answered);
            bytes_stored += bytes;
            self.pace.stored(
                answered,
                Some((sent, answered - sent)),
                bytes,
                u64::MAX,
                &self.rules,
            );
        }
        let took = (self.now - began) as f64 / SECOND as f64;
        Seen {
            used: bytes_stored as f64 / took / self.rate as f64,
            queue_ms: queue / MILLI,
        }
    }
}

#[test]
fn a_line_is_used_and_no_long_queue_stands_on_it() {
    // Bytes a second before they are packed, which makes some eighteen of one.
    for rate in [200_000, 2_000_000, 20_000_000, 100_000_000] {
        for delay in [1, 10, 100] {
            let mut line = Line::new(rate, delay * MILLI);
            line.run(30);
            let seen = line.run(60);
            let most = line.rules.parcel_bytes * line.rules.in_flight;
            let window = most as f64 / (rate as f64 * delay as f64 / 1e3);
            let possible = window.min(1.0);
            assert!(
                seen.used >= 0.9 * possible,
                "{rate} B/s, {delay} ms: {seen:?}"
            );
            // The shortest answer had a parcel of its own on the line, so there may be that and a parcel more.
            let parcel = 1_000 * 2 * 8_192 / rate;
            assert!(
                seen.queue_ms <= 160 + parcel,
                "{rate} B/s, {delay} ms: {seen:?}"
            );
        }
    }
}

#[test]
fn a_very_slow_line_has_one_small_parcel_after_another() {
    // 16 kbit/s, packed eighteen times smaller.
    let mut line = Line::new(36_000, 10 * MILLI);
    line.run(60);
    let seen = line.run(60);
    assert!(seen.used > 0.8, "{seen:?}");
    assert!(seen.queue_ms < 600, "{seen:?}");
}

#[test]
fn a_line_that_has_become_longer_is_measured_anew() {
    let mut line = Line::new(2_000_000, MILLI);
    line.run(30);
    line.delay = 500 * MILLI;
    line.run(30);
    // Every answer seems to have stood in a queue, until nothing of before counts any more.
    line.run(ANEW / SECOND);
    // Eight parcels at once are little for half a second, since each is on the line for a while itself.
    let seen = line.run(60);
    assert!(seen.used > 0.75, "{seen:?}");
}

#[test]
fn a_busy_machine_is_no_queue() {
    let mut line = Line::new(2_000_000, 10 * MILLI);
    // Most answers are late by up to 300 ms, which has nothing to do with the line.
    line.noise = 300 * MILLI;
    line.run(30);
    let seen = line.run(60);
    assert!(seen.used > 0.6, "{seen:?}");
}

#[test]
fn an_upstream_that_halts_for_a_moment_costs_a_moment() {
    let mut line = Line::new(20_000_000, 10 * MILLI);
    line.run(30);
    let before = line.pace.window;
    line.free = line.now + SECOND;
    line.run(1);
    line.run(1);
    assert!(line.pace.window > before / 2, "{}", line.pace.window);
    assert!(line.run(10).used > 0.9);
}

#[test]
fn what_was_shipped_again_says_nothing_of_the_line() {
    let rules = Rules::default();
    let mut pace = Pace::new(&rules);
    pace.shipped(SECOND, 8_192, &rules);
    let before = pace.window;
    pace.stored(2 * SECOND, None, 8_192, u64::MAX, &rules);
    assert_eq!(pace.answered, 0);
    pace.stored(2 * SECOND, Some((SECOND, SECOND)), 8_192, u64::MAX, &rules);
    assert_eq!((pace.answered, pace.window), (8_192, before));
}
