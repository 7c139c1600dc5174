use super::*;

#[test]
fn nothing_is_forgotten_that_somebody_may_lack() {
    let mut members = Members::new([], 2, 10);
    assert_eq!(members.have_all_before(), u64::MAX, "alone");
    members.seen("a", 11);
    assert_eq!(members.have_all_before(), 0, "never in step");
    members.in_step("a", 20);
    assert_eq!(members.have_all_before(), 18);
    members.in_step("b", 15);
    members.in_step("b", 12);
    assert_eq!(
        members.have_all_before(),
        13,
        "the slowest counts, and never goes back"
    );
    members.deleted(19, 21);
    assert_eq!(members.have_all_before(), 13, "hardly late");
    members.deleted(14, 22);
    assert_eq!(members.have_all_before(), 0, "so late that b may lack it");
    members.in_step("a", 33);
    assert_eq!(members.have_all_before(), 0, "b may lack it still");
    members.in_step("b", 34);
    assert_eq!(members.have_all_before(), 31);
}

#[test]
fn who_is_silent_too_long_is_waited_for_no_more() {
    let mut members = Members::new([], 0, 0);
    members.in_step("a", 5);
    members.seen("b", 90);
    assert_eq!(members.retire(100, 95), Vec::<String>::new());
    assert_eq!(members.retire(101, 95), ["a"]);
    let left: Vec<&str> = members.iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["b"]);
}

#[test]
fn a_start_comes_after_whatever_came_late() {
    let member = Member {
        seen: 9,
        in_step: 8,
        stores: vec![store(3), store(4)],
        ..Member::default()
    };
    let key = Member::row_key("z/s");
    let (name, read) = Member::decode(&key, &member.encode()).unwrap();
    assert_eq!((name.as_str(), &read), ("z/s", &member));
    // A row from before stores had ids, and one that ends too early.
    let decode = |len| Member::decode(&key, &member.encode()[..len]).unwrap().1;
    let old = Member {
        stores: Vec::new(),
        ..member.clone()
    };
    assert_eq!(decode(16), old);
    assert_eq!(decode(20), Member { in_step: 0, ..old });
    assert_eq!(Member::decode(b"newest", &member.encode()), None);
    assert_eq!(Member::decode(&Member::row_key("z"), b"short"), None);
    let mut members = Members::new([(name, read)], 0, 10);
    assert_eq!(members.have_all_before(), 0);
    members.in_step("z/s", 11);
    assert_eq!(members.have_all_before(), 11);
}

/// The second opening of a store, after so many batches.
fn store(id: u64) -> Identity {
    Identity {
        id,
        incarnation: 2,
        run: u32::try_from(10 * id + 2).unwrap(),
        parent: u32::try_from(10 * id + 1).unwrap(),
        opened: 5,
        position: 8,
    }
}

/// Opened once more, after so many batches, from this run.
fn reopened(of: Identity, position: u64, parent: u32) -> Identity {
    Identity {
        incarnation: of.incarnation + 1,
        run: of.run + 1_000,
        parent,
        opened: position,
        position,
        ..of
    }
}

/// A replica that was in step tells of its stores: what that is taken for, and whether it still counts.
#[track_caller]
fn check(told: &[Identity], expected: Option<Fate>, counts: bool) {
    let known = [store(1)];
    let members = || {
        let mut members = Members::new([], 0, 0);
        // Another one has the store 2, and we have the store 3.
        members.told("b", &[store(2)], &[store(3)], (1, 1));
        members.told("a", &known, &[store(3)], (1, 1));
        members.in_step("a", 5);
        members
    };
    let mut answered = members();
    assert_eq!(
        answered.told("a", told, &[store(3)], (8, 9)),
        expected,
        "{told:?}"
    );
    let member = answered.get("a").unwrap();
    assert_eq!(member.in_step, if counts { 5 } else { 0 }, "{told:?}");
    assert_eq!((member.seen, &*member.stores), (9, told));
    // The same in a question counts only if nothing has changed; what it is, the answer to ours says.
    let mut asked = members();
    let is_same = counts && expected.is_none();
    assert_eq!(asked.asked("a", told, &[store(3)], 9), is_same, "{told:?}");
    let member = asked.get("a").unwrap();
    assert_eq!(member.in_step, if is_same { 5 } else { 0 }, "{told:?}");
    assert_eq!(
        asked.told("a", told, &[store(3)], (9, 10)),
        expected,
        "{told:?}"
    );
}

#[test]
fn what_was_in_step_is_asked_anew_when_its_store_may_be_another() {
    let known = store(1);
    let later = Identity {
        position: 9,
        ..known
    };
    let older = Identity {
        position: 7,
        ..known
    };
    let new = Identity::next(None, 0, (7 << 64) | 1);
    check(&[known], None, true);
    check(&[known, store(3)], Some(Fate::Cloned), false);
    check(&[later], None, true);
    check(&[store(9), later], None, true);
    check(
        &[reopened(known, 8, known.run)],
        Some(Fate::Restarted),
        true,
    );
    check(&[older], Some(Fate::Restored), false);
    check(
        &[reopened(known, 7, known.run)],
        Some(Fate::Restored),
        false,
    );
    check(&[reopened(known, 8, 1)], Some(Fate::Restored), false);
    check(&[new], Some(Fate::Wiped), false);
    check(&[store(9)], Some(Fate::Swapped), false);
    check(
        &[Identity {
            opened: 0,
            ..store(2)
        }],
        Some(Fate::Swapped),
        false,
    );
    // It is a copy of ours.
    check(&[store(3)], Some(Fate::Cloned), false);
    let twice = reopened(reopened(known, 8, known.run), 9, 1_012);
    check(&[twice], Some(Fate::Missed), false);
}

#[test]
fn a_store_that_two_tell_of_in_turns_is_there_twice() {
    let (one, copy) = (store(1), reopened(store(1), 8, 12));
    let mut members = Members::new([], 0, 0);
    let mut tell = |name, store, now| members.told(name, &[store], &[], (now, now));
    assert_eq!(tell("a", one, 1), None);
    // It may have been moved.
    assert_eq!(tell("b", copy, 2), None);
    assert_eq!(tell("b", copy, 3), None);
    assert_eq!(tell("a", one, 4), Some(Fate::Cloned));
    assert_eq!(tell("b", copy, 5), Some(Fate::Cloned));
    // That is known now.
    assert_eq!(tell("a", one, 6), None);
    assert_eq!(tell("b", copy, 7), None);
    assert_eq!(tell("b", copy, 8), None);
    assert_eq!(tell("a", one, 9), None);
    // Until one of them is another store, and then for good.
    assert_eq!(tell("b", store(2), 10), Some(Fate::Swapped));
    assert_eq!(tell("a", one, 11), None);
    assert_eq!(tell("b", copy, 12), Some(Fate::Swapped));
    // A question may be old: the store may have been moved since.
    assert!(!members.asked("a", &[one], &[], 13));
    assert_eq!(members.told("a", &[one], &[], (14, 14)), Some(Fate::Cloned));
    assert!(members.asked("a", &[one], &[], 15));
}

#[test]
fn what_was_found_of_unknown_stores_counts_for_none() {
    let mut members = Members::new([], 0, 0);
    members.in_step("a", 5);
    assert!(!members.asked("a", &[store(1)], &[], 6));
    members.in_step("a", 7);
    assert_eq!(members.told("a", &[store(1)], &[], (8, 8)), None);
    assert_eq!(members.get("a").unwrap().in_step, 0);
    members.leave_out("a");
    assert_eq!(members.get("a"), None);
}

/// Seen in the simulator: an answer was long on its way, and a question behind it was faster.
#[test]
fn an_answer_that_was_overtaken_by_a_question_is_no_older_state() {
    let at = |position| {
        [Identity {
            position,
            ..store(1)
        }]
    };
    let mut members = Members::new([], 0, 0);
    members.told("a", &at(8), &[], (1, 2));
    assert!(members.asked("a", &at(10), &[], 5));
    members.in_step("a", 5);
    assert_eq!(members.told("a", &at(9), &[], (4, 6)), None);
    assert_eq!(members.get("a").unwrap().stores, at(10));
    assert_eq!(members.get("a").unwrap().in_step, 5);
    assert_eq!(members.told("a", &at(9), &[], (6, 7)), Some(Fate::Restored));
}
