//! From append to trim.

use weir_core::forward::{Cause, Mark};

use super::*;
use crate::{Appended, JournalError, inspect};

#[test]
fn what_is_appended_waits_until_it_is_certified() {
    let dir = tempdir();
    let mut journal = open(dir.path());
    let (cloud, mut outbox) = cloud(&mut journal);
    let all: Vec<_> = (0..10u8)
        .map(|i| entry(i % 3, "a/b", A, u64::from(i) * SECOND + 5, "x"))
        .collect();
    let appended = journal.append(&kept(&all), 10 * SECOND).unwrap();
    assert_eq!(
        appended,
        Appended {
            kept: 10,
            ..Appended::default()
        }
    );
    for sync in [None, Some(false), Some(true)] {
        if let Some(sync) = sync {
            journal.flush(sync).unwrap();
        }
        let pending = outbox.pending(20 * SECOND, 9).unwrap();
        assert_eq!(
            pending,
            [(
                Stretch {
                    source: A,
                    from: 0,
                    to: 10 * SECOND
                },
                sum(&all)
            )]
        );
        assert_eq!(sum_of(&outbox.items(&pending[0].0).unwrap()), sum(&all));
        let lane: Vec<_> = [1, 4, 7].map(|i: usize| all[i].clone()).to_vec();
        assert_eq!(drain(&mut outbox, 1, Order::OldestFirst, 1), lane);
    }
    assert_eq!(
        outbox.pending(9 * SECOND + 7, 9).unwrap()[0].0.to,
        9 * SECOND
    );
    let mark = outbox.mark();
    journal.certified(
        cloud,
        &[Stretch {
            source: A,
            from: 0,
            to: 10 * SECOND,
        }],
        mark,
    );
    assert_eq!(outbox.pending(20 * SECOND, 9).unwrap(), []);
    assert_eq!(journal.trim(10 * SECOND).unwrap().records, 10);
    let status = journal.status();
    assert_eq!((status.bytes, status.segments, status.seconds), (0, 0, 0));
    assert!(
        std::fs::read_dir(dir.path())
            .unwrap()
            .all(|file| file.unwrap().file_name() == "lock")
    );
    assert!(
        journal.append(&kept(&all[..1]), 0).unwrap().kept == 1,
        "it goes on"
    );
}

/// A round that began before the journal was opened again has not seen what was appended since.
#[test]
fn what_is_appended_after_a_restart_is_behind_every_mark_from_before() {
    let dir = tempdir();
    let mut journal = open(dir.path());
    let row = |i: u64| entry(0, "a", A, i, "x");
    journal.append(&kept(&[row(1)]), 0).unwrap();
    journal.flush(true).unwrap();
    let all: Vec<Entry> = (2..90).map(row).collect();
    // These are gone with the process, and the mark knows of them.
    journal.append(&kept(&all), 0).unwrap();
    let mark = journal.mark();
    drop(journal);
    let mut journal = open(dir.path());
    journal.append(&kept(&[row(100)]), 0).unwrap();
    let (cloud, mut outbox) = cloud(&mut journal);
    journal.certified(cloud, &[always(A)], mark);
    assert_eq!(outbox.pending(u64::MAX, 9).unwrap().len(), 1);
    assert_eq!(journal.depth().0, 2);
}

#[test]
fn a_reopened_journal_has_all_of_it_and_knows_of_no_certificate() {
    for is_closed in [true, false] {
        let dir = tempdir();
        let mut journal = open(dir.path());
        let all: Vec<_> = (0..50u64)
            .map(|i| entry(0, &format!("k/{}", i % 7), A, i * SECOND / 7, "value"))
            .collect();
        journal.append(&kept(&all), 0).unwrap();
        journal
            .append(&kept(&[operation(0, "k/**", A, 8 * SECOND)]), 0)
            .unwrap();
        certify_all(&mut journal);
        let mark = journal.mark();
        if is_closed {
            journal.close().unwrap();
        } else {
            journal.flush(false).unwrap();
            journal
                .append(&kept(&[entry(0, "late", A, 0, "not flushed")]), 0)
                .unwrap();
            drop(journal);
        }
        let (mut journal, recovery) =
            Journal::open(Options::new(dir.path()), &["cloud"], 0).unwrap();
        assert_eq!(
            (recovery.records, recovery.scanned),
            (51, u64::from(!is_closed))
        );
        assert_eq!((recovery.torn.len(), recovery.damaged.len()), (0, 0));
        assert!(journal.mark() >= mark);
        assert_eq!(all_of(&mut journal), all);
        let (_, mut outbox) = cloud(&mut journal);
        let pending = outbox.pending(u64::MAX, 9).unwrap();
        assert_eq!(
            pending,
            [(
                Stretch {
                    source: A,
                    from: 0,
                    to: 9 * SECOND
                },
                sum(&all)
            )]
        );
        assert_eq!(outbox.operations().unwrap().len(), 1);
        // And it goes on behind what was there.
        journal
            .append(&kept(&[entry(0, "new", A, 0, "n")]), 0)
            .unwrap();
        assert_eq!(drain(&mut outbox, 0, Order::OldestFirst, 64).len(), 51);
    }
}

#[test]
fn what_comes_behind_the_mark_waits_again() {
    let dir = tempdir();
    let mut journal = open(dir.path());
    let (cloud, mut outbox) = cloud(&mut journal);
    let first = entry(0, "a", A, 5, "1");
    let late = entry(0, "b", A, 6, "2");
    journal
        .append(&kept(std::slice::from_ref(&first)), 0)
        .unwrap();
    let mark = outbox.mark();
    journal
        .append(&kept(std::slice::from_ref(&late)), 0)
        .unwrap();
    journal.certified(cloud, &[always(A)], mark);
    assert_eq!(outbox.pending(SECOND, 9).unwrap()[0].1, sum(&[first, late]));
    assert_eq!(journal.trim(0).unwrap().segments, 0);
    journal.certified(cloud, &[always(A)], Mark(mark.0 + 1));
    assert_eq!(journal.trim(0).unwrap().segments, 1);
}

#[test]
fn every_upstream_has_to_certify_and_may_be_forgotten() {
    let dir = tempdir();
    let mut journal = open(dir.path());
    let (cloud, _) = cloud(&mut journal);
    let depot = journal.upstream("depot").unwrap();
    assert_eq!(journal.upstream("depot").unwrap(), depot);
    journal
        .append(&kept(&[entry(4, "a", A, 5, "1")]), 0)
        .unwrap();
    journal.certified(cloud, &[always(A)], Mark(9));
    assert_eq!(journal.trim(0).unwrap().segments, 0);
    let status = journal.status();
    let waiting: Vec<_> = status
        .upstreams
        .iter()
        .map(|it| (&*it.name, it.waiting))
        .collect();
    assert_eq!(waiting, [("cloud", 0), ("depot", 1)]);
    assert_eq!(
        (status.lanes[4].waiting, status.lanes[4].oldest),
        (1, Some(0))
    );
    journal.reset(cloud);
    assert_eq!(journal.status().upstreams[0].waiting, 1);
    journal.certified(cloud, &[always(A)], Mark(9));
    journal.forget_upstream(depot);
    assert_eq!(journal.trim(0).unwrap().segments, 1);
    // Without an upstream nobody has anything.
    journal.forget_upstream(cloud);
    journal
        .append(&kept(&[entry(4, "a", A, 5, "1")]), 0)
        .unwrap();
    assert_eq!(journal.trim(0).unwrap().segments, 0);
}

#[test]
fn what_is_certified_stays_for_a_while_if_that_is_wanted() {
    let dir = tempdir();
    let mut journal = open_with(Options {
        keep: 60 * SECOND,
        ..Options::new(dir.path())
    });
    let (cloud, mut outbox) = cloud(&mut journal);
    journal
        .append(&kept(&[entry(0, "a", A, 5, "1")]), 0)
        .unwrap();
    certify_all(&mut journal);
    assert_eq!(journal.trim(SECOND).unwrap().segments, 0);
    assert_eq!(journal.trim(60 * SECOND).unwrap().segments, 0);
    journal.reset(cloud);
    assert_eq!(outbox.pending(SECOND, 9).unwrap().len(), 1, "given again");
    assert_eq!(journal.trim(62 * SECOND).unwrap().segments, 0);
    certify_all(&mut journal);
    assert_eq!(
        journal.trim(63 * SECOND).unwrap().segments,
        0,
        "and from then on"
    );
    assert_eq!(journal.trim(123 * SECOND).unwrap().segments, 1);
}

#[test]
fn what_is_too_old_is_given_up() {
    let dir = tempdir();
    let options = Options {
        age: Some(60 * SECOND),
        ..Options::new(dir.path())
    };
    let mut journal = open_with(options);
    journal
        .append(
            &kept(&[entry(2, "a", A, 5, "1"), entry(2, "a", A, 6, "1")]),
            SECOND,
        )
        .unwrap();
    assert_eq!(journal.trim(61 * SECOND).unwrap().segments, 0);
    let trimmed = journal.trim(62 * SECOND).unwrap();
    assert_eq!(
        (trimmed.segments, trimmed.records, trimmed.expired),
        (1, 2, 2)
    );
    let status = journal.status();
    assert_eq!(status.lanes[2].expired, 2);
    assert_eq!(status.lost.len(), 1);
    assert_eq!(
        (status.lost[0].1.count, status.lost[0].1.cause),
        (2, Cause::Age)
    );
    // It is told until it is noted, and known after a restart.
    drop(journal);
    let mut journal = open(dir.path());
    let (cloud, mut outbox) = cloud(&mut journal);
    let lost = outbox.lost(9).unwrap();
    assert_eq!(lost, [status.lost[0].1]);
    journal.noted(cloud, &lost);
    assert_eq!(outbox.lost(9).unwrap(), []);
    assert_eq!(inspect::lost(dir.path()).unwrap(), status.lost);
}

#[test]
fn what_a_rule_drops_is_in_the_sums_alone() {
    let dir = tempdir();
    let mut journal = open(dir.path());
    let all: Vec<_> = (0..6u64).map(|i| entry(0, "a", A, i, "x")).collect();
    let mut batch = kept(&all);
    batch[1].keep = Keep::Drop(7);
    batch[4].keep = Keep::Drop(7);
    batch[5].keep = Keep::Drop(9);
    let appended = journal.append(&batch, 0).unwrap();
    assert_eq!((appended.kept, appended.dropped), (3, 3));
    assert_eq!(journal.status().lanes[0].dropped, [(7, 2), (9, 1)]);
    for turn in 0..3 {
        let (_, mut outbox) = cloud(&mut journal);
        assert_eq!(
            outbox.pending(SECOND, 9).unwrap()[0].1,
            sum(&all),
            "turn {turn}"
        );
        assert_eq!(outbox.items(&always(A)).unwrap().len(), 3);
        // Once read through, once by its footer.
        if turn == 0 {
            journal.flush(true).unwrap();
            drop(journal);
        } else {
            journal.close().unwrap();
        }
        journal = open(dir.path());
    }
    // A policy's numbers do not fill the memory.
    let many = |reason| Waiting {
        entry: entry(7, "a", B, 5, "x"),
        priority: PRIORITY,
        keep: Keep::Drop(reason),
    };
    journal
        .append(&(0..1000).map(many).collect::<Vec<_>>(), 0)
        .unwrap();
    let dropped = &journal.status().lanes[7].dropped;
    assert_eq!((dropped.len(), dropped[256]), (257, (u32::MAX, 744)));
    // A second of which nothing is kept waits for nobody.
    let mut batch = kept(&[entry(0, "a", B, 5, "x")]);
    batch[0].keep = Keep::Drop(7);
    certify_all(&mut journal);
    journal.append(&batch, 0).unwrap();
    assert_eq!(journal.trim(0).unwrap().records, 3);
    assert_eq!(journal.status().segments, 0);
}

#[test]
fn the_newest_of_a_key_may_stand_for_all() {
    let dir = tempdir();
    let mut journal = open(dir.path());
    let all: Vec<_> = [3u64, 1, 5, 4, 9, 7]
        .map(|i| entry(1, "a", A, i, "x"))
        .to_vec();
    let mut batch = kept(&all);
    for waiting in &mut batch[1..] {
        waiting.keep = Keep::NewestOnly;
    }
    batch.extend(kept(&[entry(1, "b", A, 2, "y")]));
    let appended = journal.append(&batch, 0).unwrap();
    // 4 and 7 come too late, 5 and 9 supersede.
    assert_eq!((appended.kept, appended.coalesced), (5, 4));
    let (_, mut outbox) = cloud(&mut journal);
    let whole: Vec<Entry> = batch.iter().map(|waiting| waiting.entry.clone()).collect();
    assert_eq!(outbox.pending(SECOND, 9).unwrap()[0].1, sum(&whole));
    let left = [all[4].clone(), entry(1, "b", A, 2, "y")];
    assert_eq!(drain(&mut outbox, 1, Order::OldestFirst, 1), left);
    assert_eq!(sum_of(&outbox.items(&always(A)).unwrap()), sum(&left));
}

/// What is superseded is kept until its segment goes, and is not said to wait.
#[test]
fn what_is_superseded_does_not_wait() {
    let dir = tempdir();
    let mut journal = open_with(Options {
        segment_bytes: 900,
        block_bytes: 220,
        ..Options::new(dir.path())
    });
    let all: Vec<_> = (0..200u64)
        .map(|i| entry(1, &format!("k/{}", i % 5), A, i * SECOND / 4, "0123456789"))
        .collect();
    for part in all.chunks(9) {
        let mut batch = kept(part);
        batch
            .iter_mut()
            .for_each(|waiting| waiting.keep = Keep::NewestOnly);
        journal.append(&batch, 0).unwrap();
    }
    let check = |journal: &mut Journal| {
        let status = journal.status();
        let waiting: u64 = status.lanes.iter().map(|lane| lane.waiting).sum();
        assert_eq!((journal.depth().0, waiting), (5, 5));
        assert_eq!(status.upstreams[0].waiting, 5);
        assert_eq!(all_of(journal).len(), 5);
    };
    check(&mut journal);
    // Nobody waits for segments that have nothing else.
    journal.flush(true).unwrap();
    assert!(journal.trim(0).unwrap().records > 150);
    check(&mut journal);
    // Nor when others decide, to the same end.
    for who in 1..4 {
        journal.rank_by(who);
        journal.flush(true).unwrap();
        while let Some(asked) = journal.unranked(Order::OldestFirst).unwrap() {
            let place = weir_core::backlog::Placement {
                lane: u8::try_from(who).unwrap(),
                expires: None,
                newest_only: true,
            };
            let verdicts = vec![weir_core::backlog::Verdict::Place(place); asked.len()];
            journal.rank(&verdicts).unwrap();
            check(&mut journal);
        }
        assert_eq!(journal.status().unranked, 0);
    }
    certify_all(&mut journal);
    assert_eq!(journal.depth().0, 0);
}

#[test]
fn nobody_else_opens_it_meanwhile() {
    let dir = tempdir();
    let journal = open(dir.path());
    let error = Journal::open(Options::new(dir.path()), &[], 0).unwrap_err();
    assert!(matches!(error, JournalError::Locked { .. }), "{error}");
    drop(journal);
    open(dir.path());
}

#[test]
fn what_cannot_wait_is_refused() {
    let dir = tempdir();
    let mut journal = open(dir.path());
    let mut unstamped = entry(0, "a", A, 5, "1");
    let KeptChange::Key(change) = &mut unstamped.change else {
        panic!()
    };
    change.stamp = None;
    let no_lane = entry(LANES, "a", A, 5, "1");
    assert_eq!(
        journal
            .append(&kept(&[unstamped, no_lane]), 0)
            .unwrap()
            .refused,
        2
    );
    assert_eq!(journal.status().segments, 0);
    for name in 1..64 {
        journal.upstream(&name.to_string()).unwrap();
    }
    assert!(matches!(
        journal.upstream("one more"),
        Err(JournalError::Upstreams)
    ));
}

#[test]
fn it_can_be_looked_at_while_it_is_open() {
    let dir = tempdir();
    let options = Options {
        segment_bytes: 600,
        block_bytes: 200,
        ..Options::new(dir.path())
    };
    let mut journal = open_with(options);
    let all: Vec<_> = (0..60u64)
        .map(|i| entry(2, &format!("k/{}", i % 5), A, i, "value"))
        .collect();
    for chunk in all.chunks(6) {
        journal.append(&kept(chunk), 0).unwrap();
        journal.flush(false).unwrap();
    }
    let segments = inspect::segments(dir.path()).unwrap();
    assert!(segments.len() > 2);
    assert!(
        segments
            .iter()
            .rev()
            .skip(1)
            .all(|segment| segment.is_closed)
    );
    assert_eq!(
        segments.iter().map(inspect::Segment::records).sum::<u64>(),
        60
    );
    assert_eq!(segments[0].times().map(|(from, _)| from), Some(0));
    let verified = inspect::verify(dir.path()).unwrap();
    assert_eq!(
        (
            verified.records,
            verified.problems.len(),
            verified.damaged.len()
        ),
        (60, 0, 0)
    );
    let entries: Vec<_> = inspect::entries(dir.path())
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(entries.iter().map(|(position, _)| *position).eq(0..60));
    assert!(entries.into_iter().map(|(_, entry)| entry).eq(all));
}
