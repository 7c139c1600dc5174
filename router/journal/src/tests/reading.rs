//! What a link asks an outbox.

use weir_core::{
    forward::Position,
    pattern::{KeyPattern, KeySet},
};

use super::*;

/// A journal with small blocks and segments: lane 0 has these, some of them in memory.
fn journal(entries: &[Entry]) -> (tempfile::TempDir, Journal) {
    let dir = tempdir();
    let options = Options {
        segment_bytes: 700,
        block_bytes: 200,
        ..Options::new(dir.path())
    };
    let mut journal = open_with(options);
    let (first, second) = entries.split_at(entries.len() * 4 / 5);
    for chunk in first.chunks(7) {
        journal.append(&kept(chunk), 0).unwrap();
        journal.flush(false).unwrap();
    }
    journal.append(&kept(second), 0).unwrap();
    (dir, journal)
}

fn rows(count: u64) -> Vec<Entry> {
    let row = |i: u64| {
        entry(
            0,
            &format!("k/{}", i % 3),
            A,
            i * SECOND / 10,
            &format!("value {i}"),
        )
    };
    (0..count).map(row).collect()
}

#[test]
fn pages_are_in_order_and_no_longer_than_asked() {
    let all = rows(100);
    let (_dir, mut journal) = journal(&all);
    let (_, mut outbox) = cloud(&mut journal);
    for bytes_max in [0, 1, 50, 333, 100_000] {
        assert_eq!(
            drain(&mut outbox, 0, Order::OldestFirst, bytes_max),
            all,
            "{bytes_max}"
        );
        let mut newest = drain(&mut outbox, 0, Order::NewestFirst, bytes_max);
        assert_eq!(newest.len(), 100, "{bytes_max}");
        assert_eq!(
            newest[99], all[6],
            "the first block goes last, from its beginning"
        );
        assert_ne!(newest[0], all[0]);
        newest.sort_by_key(|entry| counted(&entry.change).0.time);
        assert_eq!(newest, all);
    }
    let page = outbox
        .page(0, Order::OldestFirst, None, &everything(), 0, 100)
        .unwrap();
    assert!(page.bytes <= 100 && page.entries.len() > 1 && page.next > Some(Position(0)));
    assert_eq!(drain(&mut outbox, 1, Order::OldestFirst, 9), []);
}

#[test]
fn reading_goes_on_where_it_was_although_much_has_changed() {
    let all = rows(100);
    for order in [Order::OldestFirst, Order::NewestFirst] {
        let (_dir, mut journal) = journal(&all);
        let (cloud, mut outbox) = cloud(&mut journal);
        let first = outbox.page(0, order, None, &everything(), 0, 400).unwrap();
        // The oldest half is trimmed and the block in memory is written meanwhile.
        let mark = outbox.mark();
        journal.certified(
            cloud,
            &[Stretch {
                source: A,
                from: 0,
                to: 5 * SECOND,
            }],
            mark,
        );
        assert!(journal.trim(0).unwrap().segments > 0);
        journal.flush(true).unwrap();
        let mut found = first.entries;
        let mut from = first.next;
        while let Some(at) = from {
            let page = outbox
                .page(0, order, Some(at), &everything(), 0, 400)
                .unwrap();
            found.extend(page.entries);
            from = page.next;
        }
        let waits = |entry: &&Entry| counted(&entry.change).0.time >= 5 * SECOND;
        assert!(
            all.iter().filter(waits).all(|entry| found.contains(entry)),
            "{order:?}"
        );
        found.sort_by_key(|entry| counted(&entry.change).0.time);
        let len = found.len();
        found.dedup();
        assert_eq!(found.len(), len, "{order:?}: something came twice");
    }
}

#[test]
fn only_what_is_missing_is_in_a_page() {
    let all = rows(100);
    let (_dir, mut journal) = journal(&all);
    let (_, mut outbox) = cloud(&mut journal);
    let whole = Stretch {
        source: A,
        from: 3 * SECOND,
        to: 4 * SECOND,
    };
    let partly = Stretch {
        source: A,
        from: 7 * SECOND,
        to: 8 * SECOND,
    };
    let ids: Vec<u64> = outbox
        .items(&partly)
        .unwrap()
        .iter()
        .map(Item::id)
        .step_by(4)
        .collect();
    let mut missing = Missing::default();
    missing.add_whole(whole);
    missing.add_ids(partly, ids.iter().copied());
    let page = outbox
        .page(0, Order::OldestFirst, None, &missing, 0, 1 << 20)
        .unwrap();
    let wanted: Vec<Entry> = (30..40)
        .chain([70, 74, 78])
        .map(|at: usize| all[at].clone())
        .collect();
    assert_eq!((page.entries, page.next), (wanted, None));
    let none = outbox
        .page(0, Order::OldestFirst, None, &Missing::default(), 0, 9)
        .unwrap();
    assert_eq!(none, Page::default());
}

#[test]
fn what_has_expired_is_left_out_and_counted_once() {
    let mut all = rows(20);
    for entry in &mut all[5..15] {
        entry.expires = Some(100);
    }
    let (_dir, mut journal) = journal(&all);
    let (_, mut outbox) = cloud(&mut journal);
    for now in [100, 101, 102] {
        let page = outbox
            .page(0, Order::OldestFirst, None, &everything(), now, 1 << 20)
            .unwrap();
        assert_eq!(page.entries.len(), if now == 100 { 20 } else { 10 });
    }
    assert_eq!(journal.status().lanes[0].expired, 10);
}

#[test]
fn a_stretch_is_cut_by_seconds_and_then_by_time() {
    let mut all = rows(100);
    all.push(entry(0, "b", B, 5, "x"));
    let (_dir, mut journal) = journal(&all);
    let (_, mut outbox) = cloud(&mut journal);
    let pending = outbox.pending(u64::MAX, 9).unwrap();
    assert_eq!(pending.len(), 2);
    assert_eq!(outbox.pending(u64::MAX, 1).unwrap(), pending[..1]);
    let mut open = vec![pending[0]];
    let mut depth = 0;
    while open.iter().any(|(_, sum)| sum.count > 1) {
        depth += 1;
        let mut parts = Vec::new();
        for (stretch, whole) in &open {
            let cut = outbox.split(stretch, 3).unwrap();
            assert!(!cut.is_empty() && cut.len() <= 3);
            assert_eq!(
                (cut[0].0.from, cut[cut.len() - 1].0.to),
                (stretch.from, stretch.to)
            );
            assert!(cut.windows(2).all(|pair| pair[0].0.to == pair[1].0.from));
            assert_eq!(cut.iter().map(|(_, sum)| *sum).sum::<Summary>(), *whole);
            let is_whole = |stretch: &Stretch| (stretch.from | stretch.to) << 32 == 0;
            if stretch.to - stretch.from > SECOND {
                assert!(cut.iter().all(|(part, _)| is_whole(part)));
            }
            for (part, sum) in &cut {
                assert_eq!(sum_of(&outbox.items(part).unwrap()), *sum);
            }
            parts.extend(cut);
        }
        open = parts;
        assert!(depth < 9, "it does not end: {open:?}");
    }
    assert_eq!(open.len(), 100);
    assert_eq!(outbox.split(&pending[1].0, 16).unwrap(), pending[1..]);
    // Into one part is to ask for the sum, in which is also what was dropped.
    let mut dropped = kept(&[entry(0, "d", A, SECOND + 7, "x")]);
    dropped[0].keep = Keep::Drop(1);
    journal.append(&dropped, 0).unwrap();
    for (from, to, count) in [(1, 2, 11), (0, 10, 101), (1, 3, 21)] {
        let stretch = Stretch {
            source: A,
            from: from * SECOND,
            to: to * SECOND,
        };
        let one = outbox.split(&stretch, 1).unwrap();
        assert_eq!((one.len(), one[0].0, one[0].1.count), (1, stretch, count));
    }
}

#[test]
fn operations_wait_in_their_second() {
    let dir = tempdir();
    let mut journal = open(dir.path());
    let all = [
        entry(0, "a/x", A, 5, "x"),
        operation(3, "a/**", A, 2 * SECOND + 1),
        operation(0, "b/**", B, 9),
    ];
    journal.append(&kept(&all), 0).unwrap();
    let (cloud, mut outbox) = cloud(&mut journal);
    for is_written in [false, true] {
        if is_written {
            journal.flush(true).unwrap();
        }
        let pending = outbox.pending(u64::MAX, 9).unwrap();
        let counts: Vec<_> = pending
            .iter()
            .map(|(at, sum)| (at.source, sum.count))
            .collect();
        assert_eq!(counts, [(A, 1), (B, 0)]);
        let exprs: Vec<_> = outbox
            .operations()
            .unwrap()
            .iter()
            .map(|op| op.expr.to_string())
            .collect();
        assert_eq!(exprs, ["b/**", "a/**"]);
        assert_eq!(outbox.items(&always(A)).unwrap().len(), 1);
    }
    let mark = outbox.mark();
    journal.certified(
        cloud,
        &[Stretch {
            source: A,
            from: 2 * SECOND,
            to: 3 * SECOND,
        }],
        mark,
    );
    assert_eq!(outbox.operations().unwrap().len(), 1);
    journal.certified(cloud, &[always(B)], mark);
    assert_eq!(outbox.operations().unwrap(), []);
    assert_eq!(
        journal.trim(0).unwrap().records,
        1,
        "the lane of the operation alone"
    );
}

#[test]
fn an_upstream_of_some_keys_is_asked_for_those() {
    let mut all = rows(100);
    all.push(entry(3, "other", A, 70 * SECOND, "x"));
    all.push(entry(3, "k/1", A, 50 * SECOND, "y"));
    all.push(operation(3, "k/*", B, SECOND));
    let (_dir, mut journal) = journal(&all);
    let depot = journal.upstream("depot").unwrap();
    let keys = KeySet::from(KeyPattern::parse("k/1").unwrap());
    let mut outbox = journal.outbox(depot, Scope::Only(keys));
    let is_ours = |entry: &&Entry| match &entry.change {
        KeptChange::Key(change) => &*change.key == "k/1",
        KeptChange::Wildcard(_) => true,
    };
    let ours: Vec<Entry> = all.iter().filter(is_ours).cloned().collect();
    for _ in 0..2 {
        let pending = outbox.pending(u64::MAX, 9).unwrap();
        assert_eq!(
            pending.iter().map(|(_, sum)| *sum).sum::<Summary>(),
            sum(&ours)
        );
        assert!(
            pending
                .iter()
                .all(|(stretch, _)| stretch.from < 60 * SECOND)
        );
    }
    assert_eq!(outbox.operations().unwrap().len(), 1);
    assert_eq!(drain(&mut outbox, 0, Order::OldestFirst, 99).len(), 33);
    // What does not concern it does not wait for it, the second of "other".
    let waiting = journal.status().upstreams[1].waiting;
    assert_eq!(waiting, 102);
}

#[test]
fn what_does_not_concern_an_upstream_hides_nothing() {
    let mut all = rows(100);
    all.push(entry(3, "z", B, 70 * SECOND, "x"));
    let (_dir, mut journal) = journal(&all);
    let depot = journal.upstream("depot").unwrap();
    let keys = KeySet::from(KeyPattern::parse("z").unwrap());
    let mut outbox = journal.outbox(depot, Scope::Only(keys));
    let pending = outbox.pending(u64::MAX, 1).unwrap();
    assert_eq!(
        pending,
        [(
            Stretch {
                source: B,
                from: 70 * SECOND,
                to: 71 * SECOND
            },
            sum(&all[100..])
        )]
    );
    assert_eq!(journal.status().upstreams[1].waiting, 1);
}

#[test]
fn outboxes_read_while_the_journal_is_written_and_trimmed() {
    const ROWS: u64 = 4000;
    let dir = tempdir();
    let options = Options {
        segment_bytes: 4 << 10,
        block_bytes: 512,
        ..Options::new(dir.path())
    };
    let mut journal = open_with(options);
    let (cloud, mut outbox) = cloud(&mut journal);
    let reader = std::thread::spawn(move || {
        // Each position is read once and in order, whatever happens to the files meanwhile.
        let (mut found, mut from) = (Vec::new(), None);
        while found.last() != Some(&(ROWS - 1)) {
            let page = outbox
                .page(0, Order::OldestFirst, from, &everything(), 0, 300)
                .unwrap();
            let times = page
                .entries
                .iter()
                .map(|entry| counted(&entry.change).0.time);
            found.extend(times);
            from = page.next.or(found.last().map(|last| Position(last + 1)));
            outbox.pending(u64::MAX, 9).unwrap();
        }
        found
    });
    for at in 0..ROWS / 20 {
        let rows: Vec<_> = (at * 20..at * 20 + 20)
            .map(|i| entry(0, &format!("k/{}", i % 7), A, i, "value"))
            .collect();
        journal.append(&kept(&rows), 0).unwrap();
        journal.flush(at % 8 == 0).unwrap();
        if at == ROWS / 40 {
            // All is of one second: it goes at once.
            let mark = journal.mark();
            journal.certified(cloud, &[always(A)], mark);
            journal.trim(0).unwrap();
        }
    }
    let found = reader.join().unwrap();
    assert!(
        found.windows(2).all(|pair| pair[0] < pair[1]),
        "in order, none twice"
    );
    let behind = found.iter().filter(|time| **time >= ROWS / 2 + 20).count() as u64;
    assert_eq!(
        behind,
        ROWS / 2 - 20,
        "nothing of what was not trimmed is missing"
    );
}
