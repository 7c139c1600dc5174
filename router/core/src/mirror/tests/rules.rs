//! What a mirror may do, what it says about it, and what becomes of a round that is disturbed.

use std::time::Duration;

use super::model::{Admitting, Model, Trace, op, round, stamp, state};
use crate::{
    ledger::Axis,
    mirror::{
        Unreadable,
        answer::{Limits, answer},
        frame::{Bad, Cut, Parcel, Reply, Request, Verdict},
        round::{Effect, Event, Failure, Mirror, Priority, Rules},
    },
    version::Version,
};

const SECOND: u64 = 1 << 32;

fn pair(count: usize) -> (Model, Model) {
    let (mut ours, mut theirs) = (Model::new(7), Model::new(10));
    for at in 0..count {
        let both = state(
            &format!("a/{at:05}"),
            stamp(at as u64 + 1, 1),
            Some("value"),
        );
        ours.put(both.clone());
        theirs.put(both);
    }
    (ours, theirs)
}

fn once(mirror: &mut Mirror, ours: &mut Model, theirs: &mut Model, limits: &Limits) -> Trace {
    round(mirror, &mut (1_000 * SECOND), ours, theirs, limits, 200)
}

fn mirror(from: bool, to: bool) -> Mirror {
    Mirror::new(
        Rules {
            from,
            to,
            ..Rules::default()
        },
        1,
    )
}

/// Both settings of ours, and both of the peer's: who holds the other's record in the end.
#[test]
fn records_go_only_where_both_sides_allow() {
    let rows = [
        // ours from, to; theirs give, take; ours has theirs, theirs has ours
        (true, true, true, true, true, true),
        (true, false, true, true, true, false),
        (false, true, true, true, false, true),
        (true, true, false, true, false, true),
        (true, true, true, false, true, false),
        (false, false, true, true, false, false),
    ];
    for (from, to, give, take, fetched, pushed) in rows {
        let (mut ours, mut theirs) = pair(300);
        ours.put(state("a/00100", stamp(9_000, 1), Some("ours")));
        ours.put(state("b/1", stamp(9_000, 1), Some("ours")));
        theirs.put(state("a/00200", stamp(9_000, 2), Some("theirs")));
        theirs.put(state("c/1", stamp(9_000, 2), Some("theirs")));
        ours.journal.insert(op("x/**", stamp(5_000, 1), None));
        theirs.journal.insert(op("y/**", stamp(5_000, 1), None));
        let limits = Limits {
            give,
            take,
            ..Limits::default()
        };
        let mut mirror = mirror(from, to);
        let trace = once(&mut mirror, &mut ours, &mut theirs, &limits);
        let row = (from, to, give, take);
        let holds = |replica: &Model, key: &str, who: &str| {
            let held = replica.latest.get(&crate::key::Key::from(key).ordered());
            held.is_some_and(|held| {
                held.record
                    .value
                    .as_ref()
                    .is_some_and(|value| &*value.payload == who.as_bytes())
            })
        };
        assert_eq!(holds(&ours, "a/00200", "theirs"), fetched, "{row:?}");
        assert_eq!(holds(&ours, "c/1", "theirs"), fetched, "{row:?}");
        assert_eq!(holds(&theirs, "a/00100", "ours"), pushed, "{row:?}");
        assert_eq!(holds(&theirs, "b/1", "ours"), pushed, "{row:?}");
        assert_eq!(ours.journal.len(), 1 + usize::from(fetched), "{row:?}");
        assert_eq!(theirs.journal.len(), 1 + usize::from(pushed), "{row:?}");
        match trace.ends[..] {
            [Effect::InStep(_)] => assert!(fetched && pushed, "{row:?}"),
            [Effect::Differs { live: false, .. }] => assert!(!fetched || !pushed, "{row:?}"),
            ref ends => panic!("{row:?}: {ends:?}"),
        }
    }
}

/// Pages are packed only for who says that it unpacks them, and a page that cannot be unpacked ends the
/// round.
#[test]
fn records_are_packed_where_both_sides_can() {
    for (we, they) in [(true, true), (true, false), (false, true), (false, false)] {
        let (mut ours, mut theirs) = pair(300);
        (ours.packs, theirs.packs) = (we, they);
        for at in 0..100 {
            ours.put(state(&format!("b/{at}"), stamp(9_000, 1), Some("ours")));
            theirs.put(state(&format!("c/{at}"), stamp(9_000, 2), Some("theirs")));
        }
        let mut mirror = mirror(true, true);
        let trace = once(&mut mirror, &mut ours, &mut theirs, &Limits::default());
        assert!(matches!(trace.ends[..], [Effect::InStep(_)]), "{we} {they}");
        assert_eq!(ours.latest, theirs.latest, "{we} {they}");
        let packed = [ours.packed > 0, theirs.packed > 0];
        assert_eq!(packed, [we && they; 2], "{we} {they}");
    }
    let mut theirs = Model::new(7);
    let parcel = Parcel {
        packed: Some(bytes::Bytes::from_static(b"packed by another build")),
        ..Parcel::default()
    };
    let push = Request::Push(parcel).encode();
    for (packs, why) in [(false, Bad::Kind), (true, Bad::Version)] {
        theirs.packs = packs;
        let refused = answer(&push, &mut theirs, &Limits::default()).unwrap_err();
        assert_eq!(refused.why, why);
    }
}

/// A difference that settings forbid to repair costs a probe a round from then on, not a search.
#[test]
fn what_cannot_be_repaired_is_not_searched_for_again() {
    let (mut ours, mut theirs) = pair(300);
    ours.put(state("a/00100", stamp(9_000, 1), Some("ours")));
    let mut mirror = mirror(true, false);
    once(&mut mirror, &mut ours, &mut theirs, &Limits::default());
    // By its time, not by a wake, which asks for a closer look.
    let now = mirror.deadline().unwrap();
    let effects = mirror.handle(now, Event::Tick, &mut ours);
    let [Effect::Ask { ask, frame, .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    let reply = answer(frame, &mut theirs, &Limits::default()).unwrap();
    let reply = Event::Reply {
        ask: *ask,
        frame: reply.reply.into(),
    };
    let effects = mirror.handle(now, reply, &mut ours);
    assert!(
        matches!(effects[..], [Effect::Differs { live: false, .. }]),
        "{effects:?}"
    );
}

/// A record alone would be alive where the operation that deleted it is not known.
#[test]
fn operations_arrive_before_records() {
    let (mut ours, mut theirs) = pair(50);
    theirs.journal.insert(op("z/**", stamp(50, 2), None));
    theirs.put(state("z/1", stamp(40, 2), Some("deleted")));
    let mut mirror = mirror(true, true);
    let trace = once(&mut mirror, &mut ours, &mut theirs, &Limits::default());
    let kinds = trace
        .frames
        .iter()
        .map(|(_, ask, _)| Request::decode(ask).unwrap());
    let kinds: Vec<Request> = kinds.collect();
    let at = |is: fn(&Request) -> bool| kinds.iter().position(is).unwrap();
    let wildcards = at(|ask| matches!(ask, Request::Wildcards { .. }));
    assert!(wildcards < at(|ask| matches!(ask, Request::Fetch { .. })));
    assert_eq!(ours.contents(), theirs.contents());
}

#[test]
fn a_difference_in_horizons_is_reported_and_told() {
    for greater in [true, false] {
        let (mut ours, mut theirs) = pair(20);
        let horizon = Version::delete(stamp(7, 7));
        let (who, other) = if greater {
            (&mut theirs, &mut ours)
        } else {
            (&mut ours, &mut theirs)
        };
        who.marks.horizon = horizon;
        // Below the horizon: on one side it is forgotten already.
        other.journal.insert(op("x/**", stamp(3, 1), None));
        let mut mirror = mirror(true, true);
        let effects = mirror.handle(SECOND, Event::Wake, &mut ours);
        let [Effect::Ask { ask, frame, .. }] = &effects[..] else {
            panic!()
        };
        let limits = Limits::default();
        let reply = answer(frame, &mut theirs, &limits).unwrap();
        let reply = Event::Reply {
            ask: *ask,
            frame: reply.reply.into(),
        };
        let effects = mirror.handle(SECOND, reply, &mut ours);
        // Not before both hold the same.
        assert!(!effects.contains(&Effect::Horizon(horizon)), "{effects:?}");
        let told = effects.iter().any(|effect| match effect {
            Effect::Ask { frame, .. } => match Request::decode(frame).unwrap() {
                Request::Push(parcel) => parcel.horizon == horizon,
                _ => false,
            },
            _ => false,
        });
        assert_eq!(told, !greater);
        let trace = once(
            &mut self::mirror(true, true),
            &mut ours,
            &mut theirs,
            &limits,
        );
        assert!(
            matches!(trace.ends[..], [Effect::InStep(_)]),
            "{:?}",
            trace.ends
        );
        let ops = (ours.journal.len(), theirs.journal.len());
        let alone = if greater { (1, 0) } else { (0, 1) };
        assert_eq!(ops, alone, "an operation below a horizon is none");
    }
}

/// Cut off in the middle of a hole: what was admitted is not shipped again.
#[test]
fn a_round_resumes_where_it_was() {
    for pulls in [true, false] {
        let (mut ours, mut theirs) = pair(10);
        let source = if pulls { &mut theirs } else { &mut ours };
        let payload = "x".repeat(500);
        for at in 0..6_000 {
            source.put(state(&format!("b/{at:05}"), stamp(99, 1), Some(&payload)));
        }
        let rules = Rules {
            bytes_in_flight: 512 << 10,
            ..Rules::default()
        };
        let mut mirror = Mirror::new(rules, 1);
        let mut now = 1_000 * SECOND;
        let limits = Limits::default();
        for trips in [5, 4, 6] {
            round(
                &mut mirror,
                &mut now,
                &mut ours,
                &mut theirs,
                &limits,
                trips,
            );
            mirror.handle(now, Event::Gone, &mut ours);
            assert_eq!(mirror.deadline(), None);
            // What was being admitted when the peer went is admitted all the same.
            for batch in 0..200 {
                mirror.handle(now, Event::Admitted { batch }, &mut ours);
            }
        }
        let trace = round(&mut mirror, &mut now, &mut ours, &mut theirs, &limits, 200);
        assert!(
            matches!(trace.ends[..], [Effect::InStep(_)]),
            "{:?}",
            trace.ends
        );
        assert_eq!(ours.contents(), theirs.contents());
        let sent = ours.sent + theirs.sent;
        // Three times, two pages of some 460 records.
        assert!(sent > 6_000, "nothing was in flight");
        assert!(sent <= 6_000 + 3 * 2 * 480, "{sent} sent, pulls: {pulls}");
        let report = mirror.status().total;
        assert_eq!(if pulls { report.pushed } else { report.fetched }, 0);
    }
}

#[test]
fn who_does_not_answer_is_asked_again_and_then_later() {
    let (mut ours, _) = pair(10);
    let mut mirror = mirror(true, true);
    let mut now = SECOND;
    let mut effects = mirror.handle(now, Event::Wake, &mut ours);
    let mut asked = 0;
    let retry = loop {
        match &effects[..] {
            [
                Effect::Ask {
                    ask: 1,
                    priority: Priority::Control,
                    ..
                },
            ] => asked += 1,
            [
                Effect::Failed {
                    why: Failure::Silent,
                    retry,
                },
            ] => break *retry,
            other => panic!("{other:?}"),
        }
        let deadline = mirror.deadline().unwrap();
        assert!(deadline > now);
        now = deadline;
        effects = mirror.handle(now, Event::Tick, &mut ours);
    };
    assert_eq!(asked, 5);
    assert_eq!(mirror.deadline(), Some(retry));
    assert_eq!(mirror.status().last_error, Some(Failure::Silent));
    // A late answer to a question of then is nobody's.
    let frame = Reply::Stored.encode().into();
    assert_eq!(
        mirror.handle(now, Event::Reply { ask: 1, frame }, &mut ours),
        []
    );
}

#[test]
fn what_cannot_be_stored_ends_the_round() {
    let (mut ours, mut theirs) = pair(10);
    theirs.put(state("b/1", stamp(99, 1), Some("x")));
    let mut mirror = mirror(true, true);
    let now = SECOND;
    let mut effects = mirror.handle(now, Event::Wake, &mut ours);
    let refused = loop {
        let event = match &effects[..] {
            [Effect::Ask { ask, frame, .. }] => {
                let limits = Limits::default();
                let said = answer(frame, &mut theirs, &limits).unwrap();
                Event::Reply {
                    ask: *ask,
                    frame: said.reply.into(),
                }
            }
            [Effect::Admit { batch, .. }] => Event::Refused {
                batch: *batch,
                why: "disk full".into(),
            },
            other => break other.to_vec(),
        };
        effects = mirror.handle(now, event, &mut ours);
    };
    let failed = |effect: &Effect| matches!(effect, Effect::Failed { why: Failure::Admission(why), .. } if why == "disk full");
    assert!(refused.len() == 1 && failed(&refused[0]), "{refused:?}");
    assert!(mirror.deadline().unwrap() > now);
}

#[test]
fn a_store_that_cannot_be_read_is_said_by_either_side() {
    let (mut ours, mut theirs) = pair(10);
    ours.broken = true;
    let mut failing = mirror(true, true);
    let effects = failing.handle(SECOND, Event::Wake, &mut ours);
    let why = Failure::Unreadable(Unreadable("closed".into()));
    assert!(matches!(&effects[..], [Effect::Failed { why: said, .. }] if *said == why));
    ours.broken = false;
    theirs.broken = true;
    let mut asking = mirror(true, true);
    let trace = once(&mut asking, &mut ours, &mut theirs, &Limits::default());
    assert_eq!(
        trace.frames.len(),
        5,
        "asked again: it may be readable then"
    );
    assert_eq!(trace.frames[0].2, Reply::Refused(Bad::Unreadable).encode());
}

#[test]
fn who_follows_asks_only_when_not_asked() {
    let (mut ours, _) = pair(10);
    let rules = Rules {
        lead: false,
        period: Duration::from_secs(10),
        ..Rules::default()
    };
    let mut mirror = Mirror::new(rules, 3);
    mirror.handle(SECOND, Event::Wake, &mut ours);
    mirror.handle(SECOND, Event::Gone, &mut ours);
    assert_eq!(
        mirror.handle(SECOND, Event::Probed { in_step: true }, &mut ours),
        []
    );
    assert_eq!(mirror.deadline(), None, "gone is gone");
    let mut theirs = ours.clone();
    let mut now = SECOND;
    round(
        &mut mirror,
        &mut now,
        &mut ours,
        &mut theirs,
        &Limits::default(),
        5,
    );
    for _ in 0..20 {
        now += 14 * SECOND;
        assert_eq!(mirror.handle(now, Event::Tick, &mut ours), []);
        assert_eq!(
            mirror.handle(now, Event::Probed { in_step: true }, &mut ours),
            []
        );
    }
    now += 20 * SECOND;
    let effects = mirror.handle(now, Event::Tick, &mut ours);
    assert!(matches!(effects[..], [Effect::Ask { .. }]));
}

/// Writers change one side faster than a round can follow.
#[test]
fn writes_meanwhile_do_not_keep_a_round_going_for_ever() {
    let (mut ours, mut theirs) = pair(100);
    let mut mirror = mirror(true, true);
    let mut now = SECOND;
    let mut effects = mirror.handle(now, Event::Wake, &mut ours);
    for written in 0..2_000u64 {
        theirs.put(state("live", stamp(1_000 + written, 1), Some("x")));
        let mut events = Vec::new();
        for effect in effects.drain(..) {
            match effect {
                Effect::Ask { ask, frame, .. } => {
                    let limits = Limits::default();
                    let said = answer(&frame, &mut theirs, &limits).unwrap();
                    events.push(Event::Reply {
                        ask,
                        frame: said.reply.into(),
                    });
                }
                Effect::Admit { batch, admit } => {
                    ours.admit(&admit);
                    events.push(Event::Admitted { batch });
                }
                Effect::Differs { live: true, report } => {
                    let bytes = report.asked_bytes + report.answered_bytes;
                    assert!(bytes < 3_000, "{report:?}");
                    return;
                }
                other => panic!("{other:?}"),
            }
        }
        if events.is_empty() {
            now = mirror.deadline().unwrap();
            events.push(Event::Tick);
        }
        for event in events {
            effects.extend(mirror.handle(now, event, &mut ours));
        }
    }
    panic!("it goes on and on");
}

#[test]
fn the_status_tells_clock_revision_and_counts() {
    let (mut ours, mut theirs) = pair(10);
    theirs.put(state("b/1", stamp(99, 1), Some("x")));
    theirs.marks.revision = 5;
    theirs.marks.now = 1_003 * SECOND;
    let mut mirror = mirror(true, true);
    let trace = once(&mut mirror, &mut ours, &mut theirs, &Limits::default());
    let status = mirror.status();
    assert_eq!(status.revision_agrees, Some(false));
    assert_eq!(
        (
            status.total.fetched,
            status.total.pushed,
            status.total.spans
        ),
        (1, 0, 0)
    );
    let bytes = status.total.asked_bytes + status.total.answered_bytes;
    assert_eq!(bytes, trace.bytes() as u64);
    let offset = status.clock_offset.unwrap();
    assert!((offset - (3 << 32)).unsigned_abs() < SECOND, "{offset}");
    assert!(status.in_step_since.is_some() && status.last_error.is_none() && status.is_present);
    theirs.put(state("b/2", stamp(99, 1), Some("x")));
    once(
        &mut mirror,
        &mut ours,
        &mut theirs,
        &Limits {
            give: false,
            ..Limits::default()
        },
    );
    assert_eq!(mirror.status().in_step_since, None);
    assert_eq!(mirror.status().total.spans, 1);
}

/// Retention: what is too old for the peer is neither compared nor sent.
#[test]
fn a_series_is_compared_from_where_both_keep_it() {
    for (ours_floor, theirs_floor) in [(0, 500), (500, 0), (500, 300)] {
        let (mut ours, mut theirs) = (Model::new(7), Model::new(9));
        for (replica, floor) in [(&mut ours, ours_floor), (&mut theirs, theirs_floor)] {
            replica.marks.series = true;
            replica.marks.floor = floor * SECOND;
            for time in floor..1_000 {
                let at = stamp(time * SECOND, 1);
                replica.put(state("a", at, Some("x")));
            }
        }
        theirs.put(state("a", stamp(900 * SECOND + 1, 2), Some("lacking")));
        let (before, sent) = (ours.series.len(), ours.sent);
        let mut mirror = mirror(true, true);
        let trace = once(&mut mirror, &mut ours, &mut theirs, &Limits::default());
        assert!(
            matches!(trace.ends[..], [Effect::InStep(_)]),
            "{:?}",
            trace.ends
        );
        assert_eq!(ours.series.len(), before + 1);
        assert_eq!(ours.sent, sent);
        assert_eq!(theirs.sent, 1);
    }
}

/// More in one second than one list holds, and no way to cut it.
#[test]
fn a_dense_second_is_listed_in_parts() {
    let (mut ours, mut theirs) = (Model::new(7), Model::new(9));
    for replica in [&mut ours, &mut theirs] {
        replica.marks.series = true;
        for at in 0..9_000u64 {
            replica.put(state("a", stamp(5 * SECOND + at, 1), Some("x")));
        }
    }
    for at in 0..30u64 {
        ours.put(state("a", stamp(5 * SECOND + 100 * at, 2), Some("ours")));
        theirs.put(state("a", stamp(5 * SECOND + 200 * at, 3), Some("theirs")));
    }
    let mut mirror = mirror(true, true);
    let trace = once(&mut mirror, &mut ours, &mut theirs, &Limits::default());
    assert!(
        matches!(trace.ends[..], [Effect::InStep(_)]),
        "{:?}",
        trace.ends
    );
    assert_eq!(ours.contents(), theirs.contents());
    assert_eq!((ours.sent, theirs.sent), (30, 30));
    let lists = trace
        .frames
        .iter()
        .filter(|(_, ask, _)| matches!(Request::decode(ask), Ok(Request::List { .. })));
    assert_eq!(lists.count(), 3);
}

/// Everything differs, on two sides that share nothing but their keys' beginnings.
#[test]
fn replicas_that_share_nothing_become_equal() {
    for (ours_count, theirs_count) in [(0, 1_500), (1_500, 0), (1_500, 1_200), (39, 1), (1, 1)] {
        let (mut ours, mut theirs) = (Model::new(7), Model::new(16));
        for (replica, count, who) in [(&mut ours, ours_count, 1), (&mut theirs, theirs_count, 2)] {
            for at in 0..count {
                let key = format!("a/{:05}", 2 * at + who % 2);
                let stamp = stamp(5, u8::try_from(who).unwrap());
                replica.put(state(&key, stamp, Some("x")));
            }
        }
        let mut mirror = mirror(true, true);
        let trace = once(&mut mirror, &mut ours, &mut theirs, &Limits::default());
        let what = (ours_count, theirs_count);
        assert!(matches!(trace.ends[..], [Effect::InStep(_)]), "{what:?}");
        assert_eq!(ours.contents(), theirs.contents(), "{what:?}");
        assert_eq!((ours.sent, theirs.sent), what, "nothing twice");
    }
}

/// What an answer had no room for is asked about again, and what makes no sense ends the round.
#[test]
fn answers_are_taken_as_they_are() {
    let answers: [(Reply, Option<Failure>); 5] = [
        (Reply::Compared(vec![(0, Verdict::Later)]), None),
        (
            Reply::Compared(vec![(5_000, Verdict::Empty)]),
            Some(Failure::Answer(Bad::Malformed)),
        ),
        (
            Reply::Compared(vec![(0, Verdict::Split(Axis::Keys, Cut::default()))]),
            Some(Failure::Answer(Bad::Malformed)),
        ),
        (Reply::Stored, Some(Failure::Answer(Bad::Kind))),
        (
            Reply::Refused(Bad::Version),
            Some(Failure::Refused(Bad::Version)),
        ),
    ];
    for (said, expected) in answers {
        let (mut ours, mut theirs) = pair(600);
        theirs.put(state("a/00300", stamp(9_000, 1), Some("x")));
        let mut mirror = mirror(true, true);
        let mut effects = mirror.handle(SECOND, Event::Wake, &mut ours);
        let mut said = Some(said);
        let end = loop {
            let event = match &effects[..] {
                [Effect::Ask { ask, frame, .. }] => {
                    let limits = Limits::default();
                    let right = answer(frame, &mut theirs, &limits).unwrap();
                    if let Some(admit) = &right.admit {
                        theirs.admit(admit);
                    }
                    let compares = matches!(Request::decode(frame), Ok(Request::Compare(_)));
                    let wrong = said.take_if(|_| compares).map(|said| said.encode());
                    Event::Reply {
                        ask: *ask,
                        frame: wrong.unwrap_or(right.reply).into(),
                    }
                }
                [Effect::Admit { batch, admit }] => {
                    ours.admit(admit);
                    Event::Admitted { batch: *batch }
                }
                [end] => break end.clone(),
                other => panic!("{other:?}"),
            };
            effects = mirror.handle(SECOND, event, &mut ours);
        };
        match (end, expected) {
            (Effect::InStep(_), None) => assert_eq!(ours.contents(), theirs.contents()),
            (Effect::Failed { why, .. }, Some(expected)) => assert_eq!(why, expected),
            other => panic!("{other:?}"),
        }
    }
}

/// The newest version of a series is also the key's latest record.
#[test]
fn a_version_is_not_sent_twice() {
    let (mut ours, mut theirs) = (Model::new(7), Model::new(9));
    for replica in [&mut ours, &mut theirs] {
        replica.marks.series = true;
    }
    for at in 0..600u64 {
        let of = state(
            &format!("k/{:02}", at % 50),
            stamp((at + 1) * SECOND, 1),
            Some("x"),
        );
        theirs.put(of.clone());
        if at < 400 {
            ours.put(of);
        }
    }
    // No version of the series: by key alone.
    theirs.put(state("k/07", stamp(900 * SECOND, 1), None));
    let mut mirror = mirror(true, true);
    let trace = once(&mut mirror, &mut ours, &mut theirs, &Limits::default());
    assert!(
        matches!(trace.ends[..], [Effect::InStep(_)]),
        "{:?}",
        trace.ends
    );
    assert_eq!(ours.contents(), theirs.contents());
    // And the one that was deleted.
    assert_eq!((ours.sent, theirs.sent), (0, 201));
}

/// What is too old for who asks, or for who is asked, stays where it is; admission would refuse it.
#[test]
fn latest_records_that_are_too_old_are_not_sent() {
    for ours_old in [true, false] {
        let (mut ours, mut theirs) = pair(10);
        let (old, young) = if ours_old {
            (&mut ours, &mut theirs)
        } else {
            (&mut theirs, &mut ours)
        };
        young.marks.floor = 500 * SECOND;
        old.put(state("b/1", stamp(300 * SECOND, 1), Some("too old")));
        old.put(state("b/2", stamp(600 * SECOND, 1), Some("young enough")));
        let mut mirror = mirror(true, true);
        let trace = once(&mut mirror, &mut ours, &mut theirs, &Limits::default());
        assert!(matches!(
            trace.ends[..],
            [Effect::Differs { live: false, .. }]
        ));
        assert_eq!(ours.sent + theirs.sent, 1);
    }
}

/// What is being admitted would be found missing.
#[test]
fn a_round_waits_for_what_the_last_one_left() {
    let (mut ours, mut theirs) = pair(10);
    theirs.put(state("b/1", stamp(99, 1), Some("x")));
    let mut mirror = mirror(true, true);
    let mut effects = mirror.handle(SECOND, Event::Wake, &mut ours);
    let (left, admit) = loop {
        let event = match &effects[..] {
            [Effect::Ask { ask, frame, .. }] => Event::Reply {
                ask: *ask,
                frame: answer(frame, &mut theirs, &Limits::default())
                    .unwrap()
                    .reply
                    .into(),
            },
            [Effect::Admit { batch, admit }] => break (*batch, admit.clone()),
            other => panic!("{other:?}"),
        };
        effects = mirror.handle(SECOND, event, &mut ours);
    };
    assert_eq!(mirror.handle(SECOND, Event::Gone, &mut ours), []);
    assert_eq!(mirror.handle(SECOND, Event::Wake, &mut ours), []);
    assert_eq!(
        mirror.deadline(),
        None,
        "there is nothing to wait for but the store"
    );
    ours.admit(&admit);
    let effects = mirror.handle(SECOND, Event::Admitted { batch: left }, &mut ours);
    assert!(matches!(effects[..], [Effect::Ask { .. }]), "{effects:?}");
}
