//! What a newer one has superseded waits no longer, and nothing else of its second stops waiting with it.

use weir_core::backlog::{Placement, Verdict};

use super::*;

/// What one decides about an entry.
type Decide = fn(&Entry) -> Verdict;

fn newest(entries: &[Entry]) -> Vec<Waiting> {
    let mut all = kept(entries);
    for waiting in &mut all {
        waiting.keep = Keep::NewestOnly;
    }
    all
}

/// The seconds that wait: from and to.
fn pending(journal: &mut Journal) -> Vec<(u64, u64)> {
    let (_, mut outbox) = cloud(journal);
    let found = outbox.pending(u64::MAX, 99).unwrap();
    let seconds = |(it, _): &(Stretch, Summary)| (it.from / SECOND, it.to / SECOND);
    found.iter().map(seconds).collect()
}

/// The upstream has what was stamped in these seconds; what nobody waits for goes.
fn certify(journal: &mut Journal, from: u64, to: u64) {
    let (cloud, mut outbox) = cloud(journal);
    let mark = outbox.mark();
    let stretch = Stretch {
        source: A,
        from: from * SECOND,
        to: to * SECOND,
    };
    journal.certified(cloud, &[stretch], mark);
    journal.flush(true).unwrap();
    journal.trim(0).unwrap();
}

fn rank_all(journal: &mut Journal, who: u32, decide: impl Fn(&Entry) -> Verdict) {
    journal.rank_by(who);
    journal.flush(true).unwrap();
    while let Some(asked) = journal.unranked(Order::OldestFirst).unwrap() {
        let verdicts: Vec<Verdict> = asked.iter().map(|it| decide(&it.entry)).collect();
        journal.rank(&verdicts).unwrap();
    }
}

fn is_of(entry: &Entry, wanted: &str) -> bool {
    matches!(&entry.change, KeptChange::Key(change) if &*change.key == wanted)
}

fn newest_only(lane: u8) -> Verdict {
    Verdict::Place(Placement {
        lane,
        expires: None,
        newest_only: true,
    })
}

fn place(lane: u8) -> Verdict {
    Verdict::Place(Placement {
        lane,
        expires: None,
        newest_only: false,
    })
}

/// Each row says what becomes of `k` before its newest version comes.
#[test]
fn what_has_left_its_segment_is_not_superseded_once_more() {
    let rows: [(&str, Decide); 4] = [
        ("it is dropped", |it| match is_of(it, "k") {
            true => Verdict::Drop(1),
            false => Verdict::Default,
        }),
        ("it goes, as it was", |it| match is_of(it, "k") {
            true => newest_only(5),
            false => Verdict::Default,
        }),
        ("it goes, and waits like any", |it| match is_of(it, "k") {
            true => place(5),
            false => Verdict::Default,
        }),
        ("it stays, and waits like any", |it| match is_of(it, "k") {
            true => place(2),
            false => Verdict::Default,
        }),
    ];
    for (what, decide) in rows {
        let dir = tempdir();
        let mut journal = open(dir.path());
        let b = entry(2, "b", A, 10 * SECOND + 1, "x");
        journal
            .append(&newest(&[entry(2, "k", A, 10 * SECOND, "1")]), 0)
            .unwrap();
        journal.append(&kept(std::slice::from_ref(&b)), 0).unwrap();
        rank_all(&mut journal, 1, decide);
        journal
            .append(&newest(&[entry(2, "k", A, 20 * SECOND, "3")]), 0)
            .unwrap();
        assert_eq!(pending(&mut journal), [(10, 21)], "{what}");
        let (records, waiting) = (journal.status().lanes, journal.depth().0);
        let records: u64 = records.iter().map(|lane| lane.records).sum();
        assert!((2..=records).contains(&waiting), "{what}: {waiting}");
        certify(&mut journal, 20, 21);
        assert!(all_of(&mut journal).contains(&b), "{what}");
        certify(&mut journal, 10, 11);
        assert_eq!(journal.depth().0, 0, "{what}");
    }
}

/// A version that moved is hidden where it is now, by one that comes before the move is over, too.
#[test]
fn what_moved_is_superseded_where_it_is() {
    for is_between in [false, true] {
        let dir = tempdir();
        let mut journal = open(dir.path());
        journal
            .append(&newest(&[entry(2, "k", A, 10 * SECOND, "1")]), 0)
            .unwrap();
        journal.rank_by(1);
        journal.flush(true).unwrap();
        let newer = newest(&[entry(2, "k", A, 20 * SECOND, "2")]);
        while let Some(asked) = journal.unranked(Order::OldestFirst).unwrap() {
            let verdicts: Vec<Verdict> = asked.iter().map(|_| newest_only(5)).collect();
            journal.rank(&verdicts).unwrap();
            if is_between && !verdicts.is_empty() {
                journal.append(&newer, 0).unwrap();
            }
        }
        if !is_between {
            journal.append(&newer, 0).unwrap();
        }
        assert_eq!(pending(&mut journal), [(20, 21)], "{is_between}");
        assert_eq!(journal.depth().0, 1, "{is_between}");
    }
}

/// More keys than are known at once, and decided about twice: what was superseded is counted once.
#[test]
fn a_key_that_was_forgotten_is_superseded_once() {
    let dir = tempdir();
    let mut journal = open(dir.path());
    let mut others = Vec::new();
    for i in 0..100u64 {
        let (key, other) = (format!("k/{i}"), format!("o/{i}"));
        journal
            .append(&newest(&[entry(2, &key, A, 10 * SECOND + i, "1")]), 0)
            .unwrap();
        others.push(entry(2, &other, A, 10 * SECOND + 1000 + i, "1"));
    }
    journal.append(&newest(&others), 0).unwrap();
    let again = |i: u64| entry(2, &format!("k/{i}"), A, 20 * SECOND + i, "2");
    let again: Vec<Entry> = (0..100).map(again).collect();
    journal.append(&newest(&again), 0).unwrap();
    let many = |i: u64| entry(2, &format!("m/{i}"), A, 21 * SECOND + i, "m");
    let many: Vec<Entry> = (0..66_000).map(many).collect();
    journal.append(&newest(&many), 0).unwrap();
    assert_eq!(pending(&mut journal), [(10, 22)]);
    for who in 1..3 {
        rank_all(&mut journal, who, |_| newest_only(2));
        assert_eq!(pending(&mut journal), [(10, 22)], "{who}");
    }
    certify(&mut journal, 20, 25);
    let found = all_of(&mut journal);
    for other in &others {
        assert!(found.contains(other), "{other:?}");
    }
}

/// What was rewritten without a version that a plain one supersedes holds that version no longer.
#[test]
fn what_was_thinned_is_not_superseded_once_more() {
    let dir = tempdir();
    let mut journal = open(dir.path());
    let b = entry(2, "b", A, SECOND + 1, "x");
    journal
        .append(&newest(&[entry(2, "k", A, SECOND, "1")]), 0)
        .unwrap();
    journal.append(&kept(std::slice::from_ref(&b)), 0).unwrap();
    let close = |journal: &mut Journal| {
        journal.lock().close_all();
        journal.flush(true).unwrap();
    };
    close(&mut journal);
    journal
        .append(&kept(&[entry(2, "k", A, 11 * SECOND, "2")]), 0)
        .unwrap();
    close(&mut journal);
    let id = *journal.lock().lane(2).segments.keys().next().unwrap();
    journal.thin(2, id).unwrap();
    assert_eq!(journal.status().lanes[2].coalesced, 1);
    journal
        .append(&newest(&[entry(2, "k", A, 20 * SECOND, "3")]), 0)
        .unwrap();
    assert_eq!(pending(&mut journal), [(1, 21)]);
    certify(&mut journal, 11, 21);
    assert!(all_of(&mut journal).contains(&b));
    certify(&mut journal, 1, 2);
    assert_eq!(journal.depth().0, 0);
}
