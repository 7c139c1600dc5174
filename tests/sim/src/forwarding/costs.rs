//! What it costs to find out what is missing, in bytes of questions and answers, and what is shipped in
//! vain. Against the admission and the ledger that ship.

use weir_core::{
    admission::History,
    change::{Change, KeptChange},
    forward::{
        Entry,
        answer::{Limits, answer},
        frame::{Reply, Stored},
        link::{Effect, Event, Link, Rules, State, Status},
    },
    key::Key,
    value::Value,
    version::Stamp,
};

use super::{
    journal::{Journal, View},
    scenario::Upstream,
    upstream::Store,
    world::START,
};

const SECOND: u64 = 1 << 32;
const SECONDS: u64 = 40;
const A_SECOND: u64 = 250;
const NOW: u64 = START + (SECONDS + 60) * SECOND;

/// The sample of a sensor at a place in time.
fn sample(sensor: u8, at: u64) -> KeptChange {
    let mut id = [0; 16];
    id[0] = sensor + 1;
    let time = START + at * SECOND / A_SECOND;
    KeptChange::Key(Change {
        key: Key::new(format!("vehicle/42/sensor/{}", at % 20)),
        stamp: Some(Stamp { time, id }),
        value: Some(Value::bytes(at.to_be_bytes().to_vec())),
    })
}

/// An edge that has heard everything, and an upstream that has missed some.
fn missed(
    history: History,
    sensors: u8,
    is_missed: impl Fn(u64) -> bool,
) -> (Journal, Store, Vec<KeptChange>) {
    let of = Upstream {
        history,
        skew: 0,
        full_every: 0,
    };
    let mut store = Store::new(of).unwrap();
    let mut journal = Journal::new(1, usize::MAX, 0);
    let (mut heard, mut missing) = (Vec::new(), Vec::new());
    for at in 0..SECONDS * A_SECOND {
        for sensor in 0..sensors {
            let change = sample(sensor, at);
            let entry = Entry {
                change: change.clone(),
                lane: u8::try_from(at % 8).unwrap(),
                expires: None,
            };
            journal.append(entry, true);
            if is_missed(at) {
                missing.push(change);
            } else {
                heard.push(change);
            }
        }
    }
    store.take(NOW, heard).unwrap();
    (journal, store, missing)
}

/// Wakes a link and answers until it is up.
fn reconnect(journal: &mut Journal, store: &mut Store) -> Status {
    let mut link = Link::new(Rules::default(), 1);
    let upstream = 0;
    let (mut now, mut events) = (NOW, vec![Event::Wake]);
    while link.status().state != State::Up {
        let event = events.pop().unwrap_or(Event::Tick);
        now = if event == Event::Tick {
            link.deadline().unwrap()
        } else {
            now
        };
        for effect in link.handle(now, event, &mut View { journal, upstream }) {
            let (ask, frame) = match effect {
                Effect::Ask { ask, frame } => {
                    let shard = store.shard.as_ref().unwrap();
                    let mut shown = shard.replica(&store.keys, &store.keys);
                    let answered = answer(&frame, &mut shown, &Limits::default());
                    (ask, answered.unwrap().reply)
                }
                Effect::Ship { ask, entries, .. } => {
                    let changes = entries.into_iter().map(|entry| entry.change).collect();
                    let admitted = store.take(NOW, changes).unwrap();
                    let superfluous = admitted.iter().filter(|of| of.name() != "applied");
                    let superfluous = superfluous.count() as u64;
                    let stored = Stored {
                        applied: admitted.len() as u64 - superfluous,
                        superfluous,
                        credit: 1 << 20,
                        ..Stored::default()
                    };
                    (ask, Reply::Stored(stored).encode())
                }
                Effect::Certified { stretches, mark } => {
                    journal.certify(NOW, upstream, &stretches, mark);
                    continue;
                }
                Effect::Noted(_) => continue,
            };
            let frame = frame.into();
            events.push(Event::Reply { ask, frame });
        }
    }
    let status = link.status();
    assert_eq!(status.state, State::Up, "{status:?}");
    assert!(!journal.is_waiting(0));
    status
}

/// 4 KiB is what a reconnect may cost that finds nothing missing.
#[test]
fn nothing_missing_costs_next_to_nothing() {
    let rows = [
        (History::All, 1, 100),
        (History::All, 3, 300),
        (History::Latest, 1, 4_096),
    ];
    for (history, sensors, most) in rows {
        let (mut journal, mut store, _) = missed(history, sensors, |_| false);
        let status = reconnect(&mut journal, &mut store);
        let bytes = status.asked_bytes + status.answered_bytes;
        assert!(bytes <= most, "{history:?}, {sensors}: {bytes} B");
        assert_eq!((status.shipped, status.resent), (0, 0));
    }
}

/// Exactly what is missing is shipped, wherever it is: a tunnel, a grain here and there, or all of it.
#[test]
fn what_is_missing_is_found_exactly() {
    let tunnel = |at: u64| (1_234..6_789).contains(&at);
    let grains = |at: u64| at % 97 == 5;
    // what, bytes of questions and answers for each missing record at the most
    type Row<'a> = (&'a str, &'a dyn Fn(u64) -> bool, f64);
    let rows: [Row<'_>; 4] = [
        ("a tunnel", &tunnel, 2.0),
        ("a minute and grains", &|at| tunnel(at) || grains(at), 20.0),
        ("grains", &grains, 900.0),
        ("all", &|_| true, 0.2),
    ];
    for (what, is_missed, most) in rows {
        let (mut journal, mut store, missing) = missed(History::All, 1, is_missed);
        let status = reconnect(&mut journal, &mut store);
        let count = missing.len() as u64;
        assert_eq!(status.shipped, count, "{what}");
        // 0.5 % may be shipped in vain.
        assert!(status.superfluous + status.resent <= count / 200, "{what}");
        let held = store.versions().unwrap();
        assert_eq!(held.len() as u64, SECONDS * A_SECOND, "{what}");
        let each = (status.asked_bytes + status.answered_bytes) as f64 / count as f64;
        println!("{what}: {count} missing, {each:.1} B of questions for each");
        assert!(each <= most, "{what}: {each}");
    }
}

/// Of a storage that keeps the latest alone no more is shipped than there are keys.
#[test]
fn the_latest_of_each_key_is_enough() {
    let (mut journal, mut store, missing) = missed(History::Latest, 1, |at| at > 5_000);
    let status = reconnect(&mut journal, &mut store);
    assert_eq!((status.shipped, status.superfluous), (20, 0));
    assert_eq!(missing.len(), 4_999);
}
