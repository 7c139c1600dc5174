//! What is shown of links: on `@weir/<id>/forward/<name>`, and in the metrics.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use serde_json::{Value, json};
use weir_core::forward::link::{State, Status};
use weir_journal::LaneStatus;

use crate::{
    convert,
    mirror::{hello::Address, upstream::cause},
    storage::lost::source,
};

/// The weight of the last second in a rate that is shown: about ten seconds count.
const WEIGHT: f64 = 0.2;

/// What an upstream shows.
#[derive(Debug, Default)]
pub(super) struct Figures {
    packed: AtomicU64,
    shown: Mutex<Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    status: Status,
    /// A bug of ours has stopped it.
    broken: Option<String>,
    shipped: Rate,
}

/// How fast a count grows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    count: u64,
    /// A second.
    pub per_s: f64,
}

impl Rate {
    /// Notes how far the count has come in the last `span`.
    pub(super) fn measure(&mut self, count: u64, span: Duration) {
        // It begins anew with the machine that counts.
        let more = count.saturating_sub(self.count) as f64 / span.as_secs_f64();
        self.count = count;
        self.per_s += WEIGHT * (more - self.per_s);
        if self.per_s < 0.01 {
            self.per_s = 0.0;
        }
    }
}

impl Figures {
    /// A parcel was packed, of so many bytes.
    pub(super) fn packed(&self, bytes: usize) {
        self.packed.fetch_add(bytes as u64, Relaxed);
    }

    /// What the machine knows now; gives the state it had before if that is another.
    pub(super) fn show(&self, status: Status) -> Option<State> {
        let mut shown = self.shown.lock();
        let before = shown.status.state;
        let is_other = status.state != before;
        shown.status = status;
        shown.broken = None;
        is_other.then_some(before)
    }

    /// A bug of ours has stopped the machine.
    pub(super) fn broke(&self, why: String) {
        self.shown.lock().broken = Some(why);
    }

    /// Takes the measure of the last `span`.
    pub(super) fn measure(&self, span: Duration) {
        let mut shown = self.shown.lock();
        let count = shown.status.shipped;
        shown.shipped.measure(count, span);
    }

    /// What the machine knew last, and how many bytes parcels had.
    pub(super) fn status(&self) -> (Status, u64) {
        (self.shown.lock().status.clone(), self.packed.load(Relaxed))
    }

    /// In a word.
    pub(super) fn state(&self) -> State {
        let shown = self.shown.lock();
        match shown.broken {
            Some(_) => State::Faulted,
            None => shown.status.state,
        }
    }

    /// Records that are shipped a second.
    pub(super) fn drain_per_s(&self) -> f64 {
        self.shown.lock().shipped.per_s
    }

    pub(super) fn to_json(&self, address: &Address) -> Value {
        let state = self.state();
        let shown = self.shown.lock();
        let status = &shown.status;
        let last_error = status.last_error.as_ref().map(ToString::to_string);
        let rate = shown.shipped.per_s;
        let left = (status.waiting > 0 && rate > 0.0).then(|| status.waiting as f64 / rate);
        json!({
            "router": address.router,
            "storage": address.storage,
            "state": word(state),
            "since": time(status.since),
            "certified_through": status.certified_through.and_then(time),
            "waiting": status.waiting,
            "shipped_records": status.shipped,
            "shipped_bytes": status.shipped_bytes,
            "packed_bytes": self.packed.load(Relaxed),
            "superfluous": status.superfluous,
            "aside": status.aside,
            "refused": status.refused,
            "resent": status.resent,
            "rounds": status.rounds,
            "failures": status.failures,
            "asked_bytes": status.asked_bytes,
            "answered_bytes": status.answered_bytes,
            "last_error": shown.broken.clone().or(last_error),
            "left_s": left.map(f64::ceil),
        })
    }
}

/// What is shown of a journal, beside what `overrun` samples were not even handed over, and `rejected`
/// ones that came while it was not open.
pub(super) fn of_journal(status: &weir_journal::Status, overrun: u64, rejected: u64) -> Value {
    let lanes = || status.lanes.iter().zip(0u8..);
    let sum = |of: fn(&LaneStatus) -> u64| -> u64 { status.lanes.iter().map(of).sum() };
    let shown_lanes: Vec<Value> = lanes()
        .filter(|(lane, _)| lane.records > 0)
        .map(|(lane, number)| {
            json!({
                "lane": number,
                "records": lane.waiting,
                "bytes": part(lane.bytes, lane.waiting, lane.records),
                "oldest": lane.oldest.and_then(time),
            })
        })
        .collect();
    let mut dropped: BTreeMap<String, u64> = BTreeMap::new();
    for (lane, _) in lanes() {
        for (reason, count) in &lane.dropped {
            *dropped.entry(format!("policy:{reason}")).or_default() += count;
        }
    }
    for (cause, count) in [("full", sum(|lane| lane.given_up)), ("queue", overrun)] {
        if count > 0 {
            dropped.insert(cause.to_owned(), count);
        }
    }
    let lost: Vec<Value> = status
        .lost
        .iter()
        .map(|(lane, lost)| {
            json!({
                "lane": lane,
                "source": source(lost.stretch.source),
                "from": time(lost.stretch.from),
                "to": time(lost.stretch.to),
                "records": lost.count,
                "cause": cause(lost.cause),
            })
        })
        .collect();
    let damaged: Vec<Value> = status
        .damaged
        .iter()
        .map(|damaged| {
            let (file, why) = (&damaged.file, &damaged.why);
            json!({ "file": file, "offset": damaged.offset, "bytes": damaged.bytes, "why": why })
        })
        .collect();
    let (waiting, records) = (sum(|lane| lane.waiting), sum(|lane| lane.records));
    json!({
        "queued": { "records": waiting, "bytes": part(status.bytes, waiting, records) },
        "kept": { "records": records, "bytes": status.bytes, "segments": status.segments },
        "lanes": shown_lanes,
        "oldest": status.lanes.iter().filter_map(|lane| lane.oldest).min().and_then(time),
        "appended": sum(|lane| lane.kept),
        "rejected": sum(|lane| lane.rejected) + rejected,
        "expired": sum(|lane| lane.expired),
        "dropped": dropped,
        "coalesced": sum(|lane| lane.coalesced),
        "ranked": {
            "decided": status.ranked.decided,
            "moved": status.ranked.moved,
            "dropped": status.ranked.dropped,
            "left": status.unranked,
        },
        "lost": lost,
        "damaged": damaged,
    })
}

/// Bytes of what waits, about: files also hold what is certified.
fn part(bytes: u64, waiting: u64, records: u64) -> u64 {
    if records == 0 {
        return 0;
    }
    let bytes = u128::from(bytes) * u128::from(waiting) / u128::from(records);
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// How a link stands that has upstreams in these states: as with the one it stands worst with.
pub(super) fn worst(states: impl Iterator<Item = State>) -> State {
    let badness = |state: &State| match state {
        State::Up => 0,
        State::Draining => 1,
        State::Probing => 2,
        State::Down => 3,
        State::Faulted => 4,
    };
    states.max_by_key(badness).unwrap_or(State::Down)
}

/// A state in a word.
pub(super) const fn word(state: State) -> &'static str {
    match state {
        State::Down => "down",
        State::Probing => "probing",
        State::Draining => "draining",
        State::Up => "up",
        State::Faulted => "faulted",
    }
}

/// A time for people and programs alike; nothing for none.
pub(crate) fn time(ntp64: u64) -> Option<String> {
    let time = SystemTime::UNIX_EPOCH + convert::span(ntp64);
    (ntp64 > 0).then(|| humantime::format_rfc3339_millis(time).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_as_well_as_with_the_upstream_it_is_worst_with() {
        use State::{Down, Draining, Faulted, Probing, Up};
        let rows: [(&[State], State); 6] = [
            (&[], Down),
            (&[Up], Up),
            (&[Up, Draining], Draining),
            (&[Probing, Draining, Up], Probing),
            (&[Down, Probing], Down),
            (&[Up, Faulted, Down], Faulted),
        ];
        for (states, expected) in rows {
            assert_eq!(worst(states.iter().copied()), expected, "{states:?}");
        }
    }

    #[test]
    fn a_rate_follows_a_count_that_may_begin_anew() {
        let mut rate = Rate::default();
        for count in 1..=100 {
            rate.measure(count * 1_000, Duration::from_secs(1));
        }
        assert!((rate.per_s - 1_000.0).abs() < 1.0, "{rate:?}");
        rate.measure(0, Duration::from_secs(1));
        assert!((rate.per_s - 800.0).abs() < 1.0, "{rate:?}");
    }
}
