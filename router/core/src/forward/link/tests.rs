use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::{
    change::{Change, KeptChange},
    forward::{
        Lost, Missing, Page, Position,
        frame::{Found, Stored},
    },
    key::Key,
    ledger::{Item, Summary},
    mirror::Unreadable,
    value::Value,
    version::Stamp,
    wildcard::WildcardOp,
};

const BEGIN: u64 = 1_000 * SECOND;
const SIZE: usize = 100;

/// A second in which so much waits in each lane, and is never certified.
#[derive(Default)]
struct Full {
    lanes: BTreeMap<u8, usize>,
    is_broken: bool,
    moved: u64,
}

const SOURCE: [u8; 16] = [3; 16];

fn second() -> Stretch {
    Stretch {
        source: SOURCE,
        from: 900 * SECOND,
        to: 901 * SECOND,
    }
}

impl Outbox for Full {
    fn mark(&mut self) -> Mark {
        Mark(7)
    }

    fn pending(&mut self, _: u64, _: usize) -> Result<Vec<(Stretch, Summary)>, Unreadable> {
        if self.is_broken {
            return Err(Unreadable("a bad sector".to_owned()));
        }
        let count = self.lanes.values().sum::<usize>() as u64;
        let summary = Summary { count, sum: 5 };
        Ok((count > 0)
            .then_some((second(), summary))
            .into_iter()
            .collect())
    }

    fn split(
        &mut self,
        stretch: &Stretch,
        _: usize,
    ) -> Result<Vec<(Stretch, Summary)>, Unreadable> {
        Ok(vec![(*stretch, Summary { count: 1, sum: 5 })])
    }

    fn items(&mut self, _: &Stretch) -> Result<Vec<Item>, Unreadable> {
        Ok(Vec::new())
    }

    fn operations(&mut self) -> Result<Vec<WildcardOp>, Unreadable> {
        Ok(Vec::new())
    }

    fn page(
        &mut self,
        lane: u8,
        _: Order,
        from: Option<Position>,
        _: &Missing,
        _: u64,
        bytes_max: usize,
    ) -> Result<Page, Unreadable> {
        let all = self.lanes.get(&lane).copied().unwrap_or(0);
        let from = from.map_or(0, |from| usize::try_from(from.0).unwrap());
        let to = all.min(from + (bytes_max / SIZE).max(1));
        let entry = |at: usize| {
            let stamp = Stamp {
                time: second().from + at as u64,
                id: SOURCE,
            };
            let change = Change {
                key: Key::from("a"),
                stamp: Some(stamp),
                value: Some(Value::bytes("x")),
            };
            Entry {
                change: KeptChange::Key(change),
                lane,
                expires: None,
            }
        };
        Ok(Page {
            entries: (from..to).map(entry).collect(),
            bytes: (to - from) * SIZE,
            next: (to < all).then_some(Position(to as u64)),
        })
    }

    fn moved(&mut self) -> u64 {
        self.moved
    }
}

fn rules() -> Rules {
    Rules {
        parcel_bytes: 4 * SIZE,
        in_flight: 4,
        ..Rules::default()
    }
}

fn full(lanes: &[(u8, usize)]) -> Full {
    Full {
        lanes: lanes.iter().copied().collect(),
        is_broken: false,
        moved: 0,
    }
}

fn told(ask: u64, reply: &Reply) -> Event {
    let frame = reply.encode().into();
    Event::Reply { ask, frame }
}

fn question(effects: &[Effect]) -> u64 {
    let [Effect::Ask { ask, .. }] = effects else {
        panic!("{effects:?}");
    };
    *ask
}

/// Wakes a link whose upstream lacks everything; returns the first parcels.
fn drain(link: &mut Link, outbox: &mut Full) -> Vec<Effect> {
    let ask = question(&link.handle(BEGIN, Event::Wake, outbox));
    let absent = Reply::Compared(vec![Found::Absent]);
    let effects = link.handle(BEGIN, told(ask, &absent), outbox);
    assert_eq!(link.status().state, State::Draining);
    effects
}

fn stored(credit: u64) -> Reply {
    Reply::Stored(Stored {
        credit,
        ..Stored::default()
    })
}

#[test]
fn what_has_nothing_to_say_is_up() {
    let mut link = Link::new(rules(), 1);
    assert_eq!(link.status().state, State::Down);
    assert_eq!(link.deadline(), None);
    assert_eq!(link.handle(BEGIN, Event::Wake, &mut full(&[])), []);
    let status = link.status();
    assert_eq!((status.state, status.since), (State::Up, BEGIN));
    assert_eq!(status.certified_through, Some(BEGIN - rules().settle));
    let due = link.deadline().unwrap() - BEGIN;
    assert!((rules().period * 3 / 4..=rules().period).contains(&due));
}

#[test]
fn what_is_there_is_certified_at_once() {
    for found in [Found::Have, Found::Gone] {
        let (mut link, mut outbox) = (Link::new(rules(), 1), full(&[(3, 2)]));
        let ask = question(&link.handle(BEGIN, Event::Wake, &mut outbox));
        assert_eq!(link.status().state, State::Probing);
        let effects = link.handle(BEGIN, told(ask, &Reply::Compared(vec![found])), &mut outbox);
        let stretches = vec![second()];
        let mark = Mark(7);
        assert_eq!(effects, [Effect::Certified { stretches, mark }]);
        assert_eq!(link.status().state, State::Up);
    }
}

#[test]
fn what_is_absent_is_shipped_and_then_certified() {
    let (mut link, mut outbox) = (Link::new(rules(), 1), full(&[(3, 2)]));
    let parcels = drain(&mut link, &mut outbox);
    let [
        Effect::Ship {
            ask,
            lane: 3,
            entries,
        },
    ] = &parcels[..]
    else {
        panic!("{parcels:?}");
    };
    assert_eq!(entries.len(), 2);
    assert_eq!(link.status().waiting, 2);
    let effects = link.handle(BEGIN, told(*ask, &stored(1_000)), &mut outbox);
    assert!(
        matches!(effects[0], Effect::Certified { .. }),
        "{effects:?}"
    );
    // What was taken meanwhile is asked for as soon as this is told.
    assert_eq!((effects.len(), link.deadline()), (1, Some(BEGIN + 1)));
    question(&link.handle(BEGIN + 1, Event::Tick, &mut outbox));
    let status = link.status();
    assert_eq!((status.state, status.shipped), (State::Probing, 2));
    assert_eq!(status.shipped_bytes, 2 * SIZE as u64);
}

/// What has moved may be in a lane that was read to its end: this round certifies nothing any more, and the
/// next one begins with the first lane.
#[test]
fn a_round_begins_anew_when_what_waits_has_moved() {
    let (mut link, mut outbox) = (Link::new(rules(), 1), full(&[(3, 400)]));
    let mut under_way = VecDeque::from(drain(&mut link, &mut outbox));
    outbox.moved = 1;
    outbox.lanes.insert(0, 4);
    let (mut now, mut lanes) = (BEGIN, Vec::new());
    while let Some(effect) = under_way.pop_front() {
        let Effect::Ship { ask, lane, .. } = effect else {
            panic!("{effect:?}");
        };
        lanes.push(lane);
        now += SECOND / 4;
        let answer = told(ask, &stored(1 << 20));
        under_way.extend(link.handle(now, answer, &mut outbox));
    }
    assert!((8..90).contains(&lanes.len()), "{lanes:?}");
    assert!(lanes.iter().all(|lane| *lane == 3), "{lanes:?}");
    now = link.deadline().unwrap();
    let ask = question(&link.handle(now, Event::Tick, &mut outbox));
    let absent = Reply::Compared(vec![Found::Absent]);
    let effects = link.handle(now, told(ask, &absent), &mut outbox);
    assert!(
        matches!(effects[0], Effect::Ship { lane: 0, .. }),
        "{effects:?}"
    );
}

/// An answer that does not come is asked for again, ever later; then the round has failed, and so the
/// next ones, ever later.
#[test]
fn an_upstream_that_is_silent_is_faulted() {
    let (mut link, mut outbox) = (Link::new(rules(), 1), full(&[(0, 1)]));
    let ask = question(&link.handle(BEGIN, Event::Wake, &mut outbox));
    let mut waits = Vec::new();
    let mut now = BEGIN;
    for _ in 0..12 {
        let at = link.deadline().unwrap();
        waits.push((at - now) / SECOND);
        now = at;
        let effects = link.handle(now, Event::Tick, &mut outbox);
        assert!(effects.len() <= 1, "{effects:?}");
        if link.status().failures == 0 {
            assert_eq!(question(&effects), ask);
        }
    }
    let (first, later) = waits.split_at(3);
    assert_eq!(first, [5, 10, 20]);
    // A pause that grows, and three tries again.
    assert!((3..=5).contains(&later[0]), "{waits:?}");
    assert_eq!(later[1..4], [5, 10, 20]);
    assert!((7..=10).contains(&later[4]), "{waits:?}");
    assert_eq!(later[5..8], [5, 10, 20]);
    assert!((15..=20).contains(&later[8]), "{waits:?}");
    let status = link.status();
    assert_eq!(status.failures, 3);
    assert!(matches!(status.last_error, Some(Failure::Silent(_))));
    // It comes back by itself, and whoever wakes it has it at once.
    let effects = link.handle(now, Event::Wake, &mut outbox);
    assert!(question(&effects) > ask);
    assert_eq!(link.status().state, State::Probing);
}

#[test]
fn a_round_ends_in_an_error_of_its_name() {
    let rows = [
        (Reply::Noted.encode(), Failure::Answer(Bad::Malformed)),
        (
            Reply::Compared(vec![]).encode(),
            Failure::Answer(Bad::Malformed),
        ),
        (vec![9], Failure::Answer(Bad::Malformed)),
        (vec![0x46, 9, 9], Failure::Answer(Bad::Version)),
        (
            Reply::Refused(Bad::Forbidden).encode(),
            Failure::Refused(Bad::Forbidden),
        ),
    ];
    for (frame, why) in rows {
        let (mut link, mut outbox) = (Link::new(rules(), 1), full(&[(0, 1)]));
        let ask = question(&link.handle(BEGIN, Event::Wake, &mut outbox));
        let frame = frame.into();
        assert_eq!(
            link.handle(BEGIN, Event::Reply { ask, frame }, &mut outbox),
            []
        );
        let status = link.status();
        assert_eq!(
            (status.state, status.last_error),
            (State::Faulted, Some(why))
        );
    }
    let mut outbox = full(&[]);
    outbox.is_broken = true;
    let mut link = Link::new(rules(), 1);
    link.handle(BEGIN, Event::Wake, &mut outbox);
    let why = link.status().last_error;
    assert!(matches!(why, Some(Failure::Unreadable(_))), "{why:?}");
}

/// What a peer of a former life says is nobody's.
#[test]
fn gone_and_waking_forget_what_was_asked() {
    for event in [Event::Gone, Event::Wake] {
        let (mut link, mut outbox) = (Link::new(rules(), 1), full(&[(0, 1)]));
        let ask = question(&link.handle(BEGIN, Event::Wake, &mut outbox));
        link.handle(BEGIN, event.clone(), &mut outbox);
        let have = told(ask, &Reply::Compared(vec![Found::Have]));
        assert_eq!(link.handle(BEGIN, have, &mut outbox), [], "{event:?}");
        if event == Event::Gone {
            assert_eq!((link.status().state, link.deadline()), (State::Down, None));
        }
    }
}

#[test]
fn lanes_go_by_rank_and_the_lowest_never_stands_still() {
    let rules = Rules {
        in_flight: 1,
        ..rules()
    };
    let (mut link, mut outbox) = (Link::new(rules, 1), full(&[(1, 80), (4, 40), (7, 40)]));
    let mut effects = drain(&mut link, &mut outbox);
    let mut order = Vec::new();
    while let [Effect::Ship { ask, lane, .. }] = &effects[..] {
        order.push(*lane);
        effects = link.handle(BEGIN, told(*ask, &stored(1 << 20)), &mut outbox);
    }
    let is_lowest = |at: usize| at % 16 == 15;
    let places = order.iter().enumerate();
    let others: Vec<u8> = places
        .filter(|(at, _)| !is_lowest(*at))
        .map(|(_, lane)| *lane)
        .collect();
    assert!(others.is_sorted(), "{order:?}");
    assert_eq!(order[15], 7);
    assert_eq!(order.len(), 40);
}

#[test]
fn no_more_is_under_way_than_the_upstream_can_take() {
    let (mut link, mut outbox) = (Link::new(rules(), 1), full(&[(0, 100)]));
    let parcels = drain(&mut link, &mut outbox);
    assert_eq!(parcels.len(), 4);
    let asks: Vec<u64> = parcels
        .iter()
        .map(|effect| match effect {
            Effect::Ship { ask, .. } => *ask,
            other => panic!("{other:?}"),
        })
        .collect();
    // Room for two parcels more or less: none beside the three that are under way.
    let two = 2 * 4 * SIZE as u64;
    assert_eq!(
        link.handle(BEGIN, told(asks[0], &stored(two)), &mut outbox),
        []
    );
    assert_eq!(
        link.handle(BEGIN, told(asks[1], &stored(two)), &mut outbox),
        []
    );
    let one = link.handle(BEGIN, told(asks[2], &stored(two)), &mut outbox);
    assert_eq!(one.len(), 1);
    // Nothing at all: one parcel asks again, later.
    link.handle(BEGIN, told(asks[3], &stored(0)), &mut outbox);
    let Effect::Ship { ask, .. } = one[0] else {
        panic!("{one:?}");
    };
    assert_eq!(link.handle(BEGIN, told(ask, &stored(0)), &mut outbox), []);
    let later = link.deadline().unwrap();
    assert!(later > BEGIN);
    assert_eq!(link.handle(later, Event::Tick, &mut outbox).len(), 1);
}

#[test]
fn a_rate_is_kept() {
    let rules = Rules {
        rate: Some(1_000),
        ..rules()
    };
    let (mut link, mut outbox) = (Link::new(rules, 1), full(&[(0, 100)]));
    let mut effects = drain(&mut link, &mut outbox);
    let mut now = BEGIN;
    let mut shipped = 0;
    while now < BEGIN + 8 * SECOND {
        for effect in effects {
            if let Effect::Ship { ask, entries, .. } = effect {
                shipped += entries.len() * SIZE;
                let more = link.handle(now, told(ask, &stored(1 << 20)), &mut outbox);
                assert_eq!(more, [], "faster than the rate");
            }
        }
        now = link.deadline().unwrap();
        effects = link.handle(now, Event::Tick, &mut outbox);
    }
    assert!((7_600..=8_800).contains(&shipped), "{shipped}");
}

/// A parcel that is not answered is shipped again as it was; and less at once from then on.
#[test]
fn a_parcel_is_shipped_again() {
    let (mut link, mut outbox) = (Link::new(rules(), 1), full(&[(0, 100)]));
    let first = drain(&mut link, &mut outbox);
    let at = link.deadline().unwrap();
    let again = link.handle(at, Event::Tick, &mut outbox);
    assert_eq!(first, again);
    assert_eq!(link.status().resent, 16);
}

#[test]
fn what_was_lost_is_told() {
    struct Losing(Full, Vec<Lost>);
    impl Outbox for Losing {
        fn mark(&mut self) -> Mark {
            self.0.mark()
        }
        fn pending(&mut self, to: u64, max: usize) -> Result<Vec<(Stretch, Summary)>, Unreadable> {
            self.0.pending(to, max)
        }
        fn split(
            &mut self,
            of: &Stretch,
            parts: usize,
        ) -> Result<Vec<(Stretch, Summary)>, Unreadable> {
            self.0.split(of, parts)
        }
        fn items(&mut self, of: &Stretch) -> Result<Vec<Item>, Unreadable> {
            self.0.items(of)
        }
        fn operations(&mut self) -> Result<Vec<WildcardOp>, Unreadable> {
            self.0.operations()
        }
        fn page(
            &mut self,
            lane: u8,
            order: Order,
            from: Option<Position>,
            missing: &Missing,
            now: u64,
            bytes_max: usize,
        ) -> Result<Page, Unreadable> {
            self.0.page(lane, order, from, missing, now, bytes_max)
        }
        fn lost(&mut self, _: usize) -> Result<Vec<Lost>, Unreadable> {
            Ok(self.1.clone())
        }
    }
    let lost = vec![Lost {
        stretch: second(),
        count: 4,
        cause: crate::forward::Cause::Full,
    }];
    let mut outbox = Losing(full(&[]), lost.clone());
    let mut link = Link::new(rules(), 1);
    let effects = link.handle(BEGIN, Event::Wake, &mut outbox);
    let [Effect::Ask { ask, frame }] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(Request::decode(frame), Ok(Request::Lost(lost.clone())));
    let effects = link.handle(BEGIN, told(*ask, &Reply::Noted), &mut outbox);
    assert_eq!(effects, [Effect::Noted(lost)]);
    assert_eq!(link.status().state, State::Up);
}

fn reply() -> impl Strategy<Value = Reply> {
    let found = prop_oneof![
        Just(Found::Have),
        Just(Found::Absent),
        Just(Found::Differs { count: 3 }),
        Just(Found::Latest),
        Just(Found::Merged),
        Just(Found::Gone),
    ];
    prop_oneof![
        6 => proptest::collection::vec(found, 0..3).prop_map(Reply::Compared),
        1 => proptest::collection::vec(any::<bool>(), 0..3).prop_map(Reply::Listed),
        1 => proptest::collection::vec(any::<bool>(), 0..3).prop_map(Reply::Heads),
        4 => (0u64..3).prop_map(|parcels| stored(parcels * 4 * SIZE as u64)),
        1 => Just(Reply::Noted),
        1 => Just(Reply::Refused(Bad::Unreadable)),
        1 => Just(Reply::Refused(Bad::Forbidden)),
    ]
}

proptest! {
    /// Whatever an upstream says, and when: no more is under way than may be, and something is always due.
    #[test]
    fn whatever_comes_a_link_goes_on(
        rate in proptest::option::of(1u64..2_000),
        steps in proptest::collection::vec((0u8..12, 0u64..8, 1u64..40, reply()), 1..80),
    ) {
        let rules = Rules { rate, ..rules() };
        let (mut link, mut outbox) = (Link::new(rules, 1), full(&[(1, 9), (6, 30)]));
        let mut now = BEGIN;
        let mut asked = vec![0];
        for (kind, back, later, reply) in steps {
            now += later * SECOND / 4;
            let back = usize::try_from(back).unwrap().min(asked.len() - 1);
            let ask = asked[asked.len() - 1 - back];
            let event = match kind {
                0 => Event::Wake,
                1 => Event::Gone,
                2 => Event::Failed { ask, why: "no way".to_owned() },
                3..6 => Event::Tick,
                _ => told(ask, &reply),
            };
            let effects = link.handle(now, event, &mut outbox);
            prop_assert!(effects.len() <= QUESTIONS + rules.in_flight + 1, "{:?}", effects);
            for effect in effects {
                if let Effect::Ask { ask, .. } | Effect::Ship { ask, .. } = effect {
                    asked.push(ask);
                }
            }
            prop_assert!(link.flights.len() <= QUESTIONS + rules.in_flight);
            let is_down = link.status().state == State::Down;
            prop_assert_eq!(link.deadline().is_none(), is_down);
            prop_assert!(link.deadline().is_none_or(|deadline| deadline > now));
        }
    }
}
