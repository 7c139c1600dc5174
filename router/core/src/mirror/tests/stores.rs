//! Of which stores a comparison is.

use super::model::{Model, round, stamp, state};
use crate::{
    identity::Identity,
    mirror::{
        Unreadable,
        answer::{Limits, answer},
        frame::Bad,
        round::{Effect, Event, Failure, Mirror, Rules},
    },
};

const SECOND: u64 = 1 << 32;

fn store(id: u64) -> Identity {
    Identity::next(None, 9, u128::from(id) << 64 | u128::from(id))
}

fn pair(ours: Vec<Identity>, theirs: Vec<Identity>) -> (Model, Model) {
    let model = |stores| {
        let mut model = Model {
            stores,
            ..Model::new(7)
        };
        model.put(state("a", stamp(1, 1), Some("value")));
        model
    };
    (model(ours), model(theirs))
}

/// What the asker's end hears of stores, in order with how the round ends.
fn told(ours: &mut Model, theirs: &mut Model) -> Vec<Effect> {
    let mut mirror = Mirror::new(Rules::default(), 1);
    let asked = mirror.handle(SECOND, Event::Wake, ours);
    let [Effect::Ask { ask, frame, .. }] = &asked[..] else {
        return asked;
    };
    let answered = answer(frame, theirs, &Limits::default()).unwrap();
    assert_eq!(answered.stores, ours.stores, "who answers hears of ours");
    let frame = answered.reply.into();
    mirror.handle(2 * SECOND, Event::Reply { ask: *ask, frame }, ours)
}

#[test]
fn both_hear_of_the_stores_that_were_compared() {
    let rows = [
        (vec![store(1)], vec![store(2)]),
        (vec![store(1), store(3)], vec![store(2)]),
        (vec![], vec![store(2), store(4), store(5)]),
        (vec![store(1)], vec![]),
    ];
    for (ours, theirs) in rows {
        let (mut ours, mut theirs) = pair(ours, theirs);
        let effects = told(&mut ours, &mut theirs);
        let end = match (&effects[..], theirs.stores.is_empty()) {
            // Before whatever else is learnt.
            ([Effect::Told { stores, first }, end], false) => {
                assert_eq!((stores, *first), (&theirs.stores, SECOND));
                end
            }
            // A router that gives no ids tells of none.
            ([end], true) => end,
            _ => panic!("{effects:?}"),
        };
        assert!(matches!(end, Effect::InStep(_)), "{end:?}");
    }
}

/// What was counted of one store would be believed of another.
#[test]
fn a_store_that_is_opened_anew_meanwhile_is_compared_again() {
    let (mut ours, mut theirs) = pair(vec![store(1)], vec![store(2)]);
    ours.reopens_after = Some(1);
    let mut mirror = Mirror::new(Rules::default(), 1);
    let failed = mirror.handle(SECOND, Event::Wake, &mut ours);
    let why = Unreadable("a store was opened anew meanwhile".to_owned());
    let [Effect::Failed { why: said, .. }] = &failed[..] else {
        panic!("{failed:?}")
    };
    assert_eq!(*said, Failure::Unreadable(why));

    // The other side says that it cannot be read now, and is asked again.
    theirs.reopens_after = Some(1);
    let mut now = 100 * SECOND;
    let limits = Limits::default();
    let trace = round(&mut mirror, &mut now, &mut ours, &mut theirs, &limits, 10);
    assert!(
        matches!(trace.ends[..], [Effect::InStep(_)]),
        "{:?}",
        trace.ends
    );
    assert_eq!(trace.frames.len(), 2);
    theirs.reopens_after = Some(1);
    let refused = answer(&trace.frames[0].1, &mut theirs, &limits).unwrap_err();
    assert_eq!(refused.why, Bad::Unreadable);
}
