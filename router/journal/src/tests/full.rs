//! Budgets, full disks and bad ones.

use std::sync::Arc;

use weir_core::forward::{Cause, Lost};

use super::{faults::Faults, *};
use crate::{Files, JournalError, OnFull, inspect};

fn small(dir: &Path, on_full: OnFull) -> Options {
    Options {
        budget_bytes: 32 << 10,
        segment_bytes: 2 << 10,
        block_bytes: 512,
        on_full,
        ..Options::new(dir)
    }
}

fn on(files: Arc<dyn Files>, options: Options) -> Journal {
    Journal::open_on(files, options, &["cloud"], 0).unwrap().0
}

/// A journal with five hundred entries on a disk that has no room left, and one more that is not written;
/// it drops the oldest.
fn on_a_full_disk(dir: &Path, faults: &Faults) -> (Journal, Vec<Entry>) {
    let options = Options {
        segment_bytes: 2 << 10,
        block_bytes: 512,
        on_full: OnFull::DropOldest,
        ..Options::new(dir)
    };
    let mut journal = on(faults.files(), options);
    let all: Vec<_> = (0..500u64)
        .map(|i| entry(0, "a", A, i * SECOND, "0123456789"))
        .collect();
    journal.append(&kept(&all), 0).unwrap();
    journal.flush(true).unwrap();
    faults.set_room(0);
    journal.append(&kept(&all[..1]), 0).unwrap();
    (journal, all)
}

/// Appends an entry at a time, a tenth to lane 1, a third to lane 2, the others to lane 3, twice as much as fits; returns them.
fn overfill(journal: &mut Journal, keys: u64) -> Vec<Entry> {
    let budget = journal.lock().options.budget_bytes;
    let mut all = Vec::new();
    for i in 0..1600u64 {
        let lane = [1, 2, 2, 2, 3, 3, 3, 3, 3, 3][usize::try_from(i % 10).unwrap()];
        let entry = entry(
            lane,
            &format!("key/{}", (i / 10 % 10 + i * 10) % keys),
            A,
            i * SECOND / 10,
            "0123456789012345",
        );
        journal
            .append(&kept(std::slice::from_ref(&entry)), i * SECOND / 10)
            .unwrap();
        all.push(entry);
        if i % 30 == 0 {
            journal.flush(false).unwrap();
        }
        let bytes = journal.status().bytes;
        assert!(bytes <= budget, "{bytes} of {budget}");
    }
    let dir = journal.dir.clone();
    journal.flush(true).unwrap();
    let files: u64 = inspect::segments(&dir)
        .unwrap()
        .iter()
        .map(|segment| segment.bytes)
        .sum();
    assert!(files <= budget && files > budget / 2, "{files} of {budget}");
    all
}

/// Every entry is there, or in an interval that says it is lost; and the counts are right.
fn check_nothing_vanished(journal: &mut Journal, all: &[Entry]) -> Vec<Entry> {
    let found = all_of(journal);
    let lost: Vec<(u8, Lost)> = journal.status().lost;
    for entry in all {
        let (stamp, _) = counted(&entry.change);
        let is_lost =
            |(lane, lost): &(u8, Lost)| *lane == entry.lane && lost.stretch.contains(&stamp);
        assert!(
            found.contains(entry) || lost.iter().any(is_lost),
            "{stamp:?} has vanished"
        );
    }
    let count: u64 = lost.iter().map(|(_, lost)| lost.count).sum();
    assert_eq!(count + found.len() as u64, all.len() as u64);
    assert!(lost.iter().all(|(_, lost)| lost.cause == Cause::Full));
    found
}

#[test]
fn a_full_journal_refuses_what_comes() {
    let dir = tempdir();
    let mut journal = open_with(small(dir.path(), OnFull::RejectNew));
    let all = overfill(&mut journal, 10);
    let found = check_nothing_vanished(&mut journal, &all);
    let len = found.len();
    assert!(
        all[..len].iter().all(|entry| found.contains(entry)),
        "the first are kept"
    );
    let rejected: u64 = journal
        .status()
        .lanes
        .iter()
        .map(|lane| lane.rejected)
        .sum();
    assert_eq!(rejected, (all.len() - len) as u64);
    // Once it is certified there is room again.
    certify_all(&mut journal);
    journal.trim(0).unwrap();
    assert_eq!(journal.append(&kept(&all[..1]), 0).unwrap().kept, 1);
}

#[test]
fn a_full_journal_drops_the_oldest() {
    let dir = tempdir();
    let mut journal = open_with(small(dir.path(), OnFull::DropOldest));
    let all = overfill(&mut journal, 10);
    let found = check_nothing_vanished(&mut journal, &all);
    assert!(
        all[all.len() - 100..]
            .iter()
            .all(|entry| found.contains(entry)),
        "the last are kept"
    );
    let given_up: u64 = journal
        .status()
        .lanes
        .iter()
        .map(|lane| lane.given_up)
        .sum();
    assert_eq!(given_up, (all.len() - found.len()) as u64);
    let lost = journal.status().lost;
    drop(journal);
    assert_eq!(
        open(dir.path()).status().lost,
        lost,
        "it is known after a restart"
    );
}

#[test]
fn a_full_journal_drops_from_the_lowest_lane() {
    let dir = tempdir();
    let mut journal = open_with(small(dir.path(), OnFull::DropLowestLane));
    let all = overfill(&mut journal, 10);
    check_nothing_vanished(&mut journal, &all);
    let lanes = journal.status().lanes;
    assert!(lanes[3].given_up > 0);
    assert_eq!(lanes[1].given_up, 0, "the second lowest has enough to give");
    assert!(lanes[2].given_up < lanes[3].given_up);
}

#[test]
fn a_full_journal_keeps_the_newest_of_each_key() {
    let dir = tempdir();
    let mut journal = open_with(small(dir.path(), OnFull::Coalesce));
    let all = overfill(&mut journal, 10);
    let found = all_of(&mut journal);
    let status = journal.status();
    assert!(
        status.lost.is_empty(),
        "nothing was dropped: {:?}",
        status.lost
    );
    let coalesced: u64 = status.lanes.iter().map(|lane| lane.coalesced).sum();
    assert_eq!(coalesced, (all.len() - found.len()) as u64);
    assert!(
        all[all.len() - 10..]
            .iter()
            .all(|entry| found.contains(entry))
    );
    for turn in 0..2 {
        let (_, mut outbox) = cloud(&mut journal);
        let pending = outbox.pending(u64::MAX, 99).unwrap();
        let seen: Summary = pending.iter().map(|(_, sum)| *sum).sum();
        let seconds = |at: u64| pending.iter().any(|(it, _)| it.from <= at && at < it.to);
        let in_them: Vec<Entry> = all
            .iter()
            .filter(|it| seconds(counted(&it.change).0.time))
            .cloned()
            .collect();
        // What was removed as a whole is no longer in the sums then.
        assert!(turn > 0 || seen == sum(&in_them));
        journal.close().unwrap();
        assert_eq!(inspect::verify(dir.path()).unwrap().problems, []);
        journal = open_with(small(dir.path(), OnFull::Coalesce));
        assert_eq!(all_of(&mut journal), found);
    }
}

/// What is certified and kept for a while only is what goes, however a full journal gives up.
#[test]
fn a_full_journal_gives_back_what_is_certified_before_anything_that_waits() {
    for on_full in [
        OnFull::RejectNew,
        OnFull::DropOldest,
        OnFull::DropLowestLane,
        OnFull::Coalesce,
    ] {
        let dir = tempdir();
        let options = Options {
            keep: 600 * SECOND,
            ..small(dir.path(), on_full)
        };
        let mut journal = open_with(options);
        let waits = entry(7, "waits", A, SECOND, "0123456789");
        journal
            .append(&kept(std::slice::from_ref(&waits)), 0)
            .unwrap();
        let (mut kept_count, mut rejected) = (0, 0);
        for i in 0..2_000u64 {
            let time = (20 + i) * SECOND / 10;
            let row = entry(2, &format!("k/{i}"), A, time, "0123456789");
            let appended = journal.append(&kept(&[row]), time).unwrap();
            kept_count += appended.kept;
            rejected += appended.rejected;
            if i % 30 == 0 {
                journal.flush(false).unwrap();
            }
            let (cloud, mut outbox) = cloud(&mut journal);
            let mark = outbox.mark();
            let stretch = Stretch {
                from: 2 * SECOND,
                ..always(A)
            };
            journal.certified(cloud, &[stretch], mark);
            journal.trim(time).unwrap();
        }
        let status = journal.status();
        assert_eq!((kept_count, rejected), (2_000, 0), "{on_full:?}");
        assert_eq!(status.lost, [], "{on_full:?}");
        assert!(all_of(&mut journal).contains(&waits), "{on_full:?}");
        assert_eq!(journal.depth().0, 1, "{on_full:?}");
        // Some of what is certified is kept all the same.
        assert!(status.bytes > 16 << 10, "{on_full:?}");
    }
}

/// On a full disk, too: the list of what was lost is written with the room that the loss has made.
#[test]
fn a_loss_is_on_the_disk_once_there_is_room() {
    let dir = tempdir();
    let (mut journal, _) = on_a_full_disk(dir.path(), &Faults::none());
    journal.flush(true).unwrap();
    let lost = journal.status().lost;
    assert_eq!(lost.len(), 1);
    drop(journal);
    assert_eq!(open(dir.path()).status().lost, lost);
}

#[test]
fn a_journal_may_be_full_of_seconds() {
    for on_full in [OnFull::RejectNew, OnFull::DropOldest, OnFull::Coalesce] {
        let dir = tempdir();
        let options = Options {
            budget_seconds: 100,
            budget_bytes: 1 << 20,
            segment_bytes: 1 << 10,
            block_bytes: 300,
            on_full,
            ..Options::new(dir.path())
        };
        let mut journal = open_with(options);
        let rows = |i: u64| entry(0, &format!("k/{i}"), A, i * SECOND / 2, "x");
        let all: Vec<Entry> = (0..600).map(rows).collect();
        for chunk in all.chunks(9) {
            journal.append(&kept(chunk), 0).unwrap();
            journal.flush(false).unwrap();
            assert!(journal.status().seconds <= 100, "{on_full:?}");
        }
        let found = check_nothing_vanished(&mut journal, &all);
        assert!(found.len() > 100, "{on_full:?}: {}", found.len());
        let end = if on_full == OnFull::RejectNew {
            &all[0]
        } else {
            &all[599]
        };
        assert!(found.contains(end), "{on_full:?}");
    }
}

#[test]
fn if_no_key_comes_twice_the_oldest_is_dropped() {
    let dir = tempdir();
    let mut journal = open_with(small(dir.path(), OnFull::Coalesce));
    let all = overfill(&mut journal, 10_000);
    let found = check_nothing_vanished(&mut journal, &all);
    assert!(
        all[all.len() - 50..]
            .iter()
            .all(|entry| found.contains(entry))
    );
    assert!(journal.status().lanes.iter().any(|lane| lane.given_up > 0));
}

#[test]
fn a_full_disk_refuses_keeps_what_it_has_and_drains() {
    let dir = tempdir();
    let faults = Faults::none();
    let options = Options {
        segment_bytes: 4 << 10,
        block_bytes: 512,
        ..Options::new(dir.path())
    };
    let mut journal = on(faults.files(), options);
    let rows = |from: u64, to: u64| -> Vec<Entry> {
        (from..to)
            .map(|i| entry(0, "a", A, i * SECOND / 100, "0123456789"))
            .collect()
    };
    journal.append(&kept(&rows(0, 1000)), 0).unwrap();
    journal.flush(true).unwrap();
    faults.set_room(0);
    journal.append(&kept(&rows(1000, 1100)), 0).unwrap();
    let error = journal.flush(true).unwrap_err();
    assert!(error.is_full(), "{error}");
    assert!(journal.status().poisoned.is_none());
    assert_eq!(
        all_of(&mut journal),
        rows(0, 1100),
        "what waits in memory is read like all"
    );
    // Memory is not without end.
    let mut rejected = 0;
    let long = "x".repeat(1000);
    for i in 1100..6000u64 {
        let row = entry(0, "a", A, i * SECOND / 100, &long);
        rejected += journal.append(&kept(&[row]), 0).unwrap().rejected;
    }
    assert!((1000..4000).contains(&rejected), "{rejected}");
    let (cloud, mut outbox) = cloud(&mut journal);
    let mark = outbox.mark();
    // Draining goes on with no room at all: the closed segments go.
    journal.certified(
        cloud,
        &[Stretch {
            source: A,
            from: 0,
            to: 10 * SECOND,
        }],
        mark,
    );
    assert!(journal.trim(0).unwrap().segments > 2);
    // With room again everything is written, and nothing is refused.
    faults.set_room(i64::MAX);
    let row = entry(0, "a", A, 6_000 * SECOND / 100, &long);
    let appended = journal.append(&kept(&[row]), 0).unwrap();
    assert_eq!((appended.kept, appended.rejected), (1, 0));
    journal.flush(true).unwrap();
    let lost: u64 = journal
        .status()
        .lost
        .iter()
        .map(|(_, lost)| lost.count)
        .sum();
    assert_eq!(lost, rejected);
    let found = all_of(&mut journal);
    drop(journal);
    let verified = inspect::verify(dir.path()).unwrap();
    assert_eq!((verified.damaged, verified.problems), (vec![], vec![]));
    assert_eq!(all_of(&mut open(dir.path())), found);
}

#[test]
fn a_full_disk_makes_room_if_that_is_wanted() {
    let dir = tempdir();
    let (mut journal, all) = on_a_full_disk(dir.path(), &Faults::none());
    // The oldest goes, and no other.
    let segments = journal.status().segments;
    journal.flush(true).unwrap();
    let status = journal.status();
    assert!(status.lanes[0].given_up > 0);
    assert_eq!(status.segments, segments - 1);
    assert!(all_of(&mut journal).contains(&all[499]));
    assert_eq!(
        status.lost.iter().map(|(_, lost)| lost.count).sum::<u64>(),
        status.lanes[0].given_up
    );
}

/// However the journal gives up when it is full: a disk that is full while there is but one segment costs
/// what comes, not what is there.
#[test]
fn the_only_segment_is_not_given_up_for_a_full_disk() {
    for on_full in [
        OnFull::RejectNew,
        OnFull::DropOldest,
        OnFull::DropLowestLane,
        OnFull::Coalesce,
    ] {
        let dir = tempdir();
        let faults = Faults::none();
        let options = Options {
            on_full,
            ..Options::new(dir.path())
        };
        let mut journal = on(faults.files(), options);
        faults.set_room(1 << 20);
        let long = "x".repeat(1_000);
        let mut all = Vec::new();
        for i in 0..6_000u64 {
            let row = entry(3, &format!("k/{}", i % 9), A, i * SECOND / 100, &long);
            journal
                .append(&kept(std::slice::from_ref(&row)), 0)
                .unwrap();
            all.push(row);
            if i % 50 == 0 {
                let flushed = journal.flush(true);
                assert!(flushed.is_ok() || flushed.unwrap_err().is_full());
            }
        }
        let found = check_nothing_vanished(&mut journal, &all);
        let status = journal.status();
        assert_eq!(status.lanes[3].given_up, 0, "{on_full:?}");
        assert_eq!(
            status.lanes[3].rejected,
            (all.len() - found.len()) as u64,
            "{on_full:?}"
        );
        assert!(found.len() > 2_000, "{on_full:?}: {}", found.len());
        assert_eq!(found, all[..found.len()], "{on_full:?}");
        // What is certified costs nothing: it goes, and what waits in memory is written.
        certify_all(&mut journal);
        let more = entry(3, "k/1", B, SECOND, &long);
        journal.trim(0).unwrap();
        journal
            .append(&kept(std::slice::from_ref(&more)), 0)
            .unwrap();
        journal.flush(true).unwrap();
        assert!(all_of(&mut journal).contains(&more), "{on_full:?}");
    }
}

/// Once the disk has been full, segments are eighths of it.
#[test]
fn on_a_small_disk_an_eighth_is_given_up_at_once() {
    let dir = tempdir();
    let faults = Faults::none();
    let options = Options {
        block_bytes: 4 << 10,
        on_full: OnFull::DropOldest,
        ..Options::new(dir.path())
    };
    let mut journal = on(faults.files(), options);
    faults.set_room(256 << 10);
    let long = "x".repeat(1_000);
    let row = |i: u64| entry(3, "k", A, i * SECOND / 100, &long);
    for i in 0..400 {
        journal.append(&kept(&[row(i)]), 0).unwrap();
    }
    assert!(journal.flush(true).unwrap_err().is_full());
    assert_eq!(journal.status().lanes[3].given_up, 0);
    certify_all(&mut journal);
    journal.trim(0).unwrap();
    let (mut before, mut most) = (0, 0);
    for i in 400..2_000 {
        journal.append(&kept(&[row(i)]), 0).unwrap();
        journal.flush(true).unwrap();
        let given_up = journal.status().lanes[3].given_up;
        most = most.max(given_up - before);
        before = given_up;
        assert!(all_of(&mut journal).contains(&row(i)));
    }
    let status = journal.status();
    assert_eq!(status.lanes[3].rejected, 0);
    assert!(before > 1_000, "{before}");
    assert!((20..40).contains(&most), "{most}");
    let lost: u64 = status.lost.iter().map(|(_, lost)| lost.count).sum();
    assert_eq!(lost, before);
}

/// The lowest lane gives, and no better one in its place, even if its segment is being written.
/// However much comes at once, and however small the segments are that make room for it.
#[test]
fn a_full_disk_makes_room_for_all_that_waits() {
    let dir = tempdir();
    let faults = Faults::none();
    let options = Options {
        segment_bytes: 64 << 10,
        block_bytes: 4 << 10,
        on_full: OnFull::DropOldest,
        ..Options::new(dir.path())
    };
    let mut journal = on(faults.files(), options);
    let long = "x".repeat(1_000);
    let row = |i: u64| entry(0, "a", A, i * SECOND / 100, &long);
    let first: Vec<Entry> = (0..8_000).map(row).collect();
    journal.append(&kept(&first), 0).unwrap();
    journal.flush(true).unwrap();
    faults.set_room(0);
    let mut all = first;
    for batch in 0..8 {
        let rows: Vec<Entry> = (8_000 + batch * 1_500..8_000 + (batch + 1) * 1_500)
            .map(row)
            .collect();
        let appended = journal.append(&kept(&rows), 0).unwrap();
        assert_eq!(appended.rejected, 0, "{batch}");
        all.extend(rows);
    }
    journal.flush(true).unwrap();
    let found = check_nothing_vanished(&mut journal, &all);
    assert_eq!(found, all[all.len() - found.len()..]);
    assert!(found.len() > 6_000, "{}", found.len());
}

#[test]
fn a_full_disk_takes_from_the_lowest_lane_alone() {
    let dir = tempdir();
    let faults = Faults::none();
    let options = Options {
        block_bytes: 4 << 10,
        on_full: OnFull::DropLowestLane,
        ..Options::new(dir.path())
    };
    let mut journal = on(faults.files(), options);
    faults.set_room(256 << 10);
    let long = "x".repeat(1_000);
    let row = |i: u64| {
        let lane = if i.is_multiple_of(4) { 1 } else { 6 };
        entry(lane, "k", A, i * SECOND / 100, &long)
    };
    let mut refused = 0;
    for i in 0..600 {
        journal.append(&kept(&[row(i)]), 0).unwrap();
        refused += u32::from(journal.flush(true).is_err());
    }
    let status = journal.status();
    assert_eq!(status.lanes[1].given_up, 0);
    assert!(status.lanes[6].given_up > 100, "{:?}", status.lanes[6]);
    assert_eq!(status.lanes[1].waiting, 150);
    assert!((1..10).contains(&refused), "{refused}");
}

#[test]
fn after_a_failed_sync_nothing_is_taken() {
    let dir = tempdir();
    let faults = Faults::none();
    let mut journal = on(faults.files(), Options::new(dir.path()));
    let all: Vec<_> = (0..9u64).map(|i| entry(0, "a", A, i, "x")).collect();
    journal.append(&kept(&all), 0).unwrap();
    journal.flush(true).unwrap();
    faults.break_sync();
    journal.append(&kept(&all), 0).unwrap();
    assert!(journal.flush(true).is_err());
    for _ in 0..2 {
        let error = journal.append(&kept(&all), 0).unwrap_err();
        assert!(matches!(error, JournalError::Poisoned { .. }), "{error}");
        assert!(journal.flush(false).is_err());
    }
    assert!(journal.status().poisoned.is_some());
    assert_eq!(all_of(&mut journal).len(), 18, "it is still read");
    drop(journal);
    let mut journal = open(dir.path());
    assert!(all_of(&mut journal).starts_with(&all));
    assert_eq!(journal.append(&kept(&all), 0).unwrap().kept, 9);
}
