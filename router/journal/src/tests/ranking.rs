//! What waits is decided again when another decides: it waits where that one says, each entry once, and the
//! sums are what they were, wherever it stops.

use proptest::prelude::*;
use weir_core::backlog::{Placement, Verdict};

use super::{faults::Faults, *};
use crate::{Unranked, inspect, state::State};

fn options(dir: &Path) -> Options {
    Options {
        segment_bytes: 900,
        block_bytes: 220,
        ..Options::new(dir)
    }
}

fn place(lane: u8) -> Verdict {
    Verdict::Place(Placement {
        lane,
        expires: None,
        newest_only: false,
    })
}

/// What one decides of a key: each in another way. `who` 0 leaves all as it is.
fn verdict(who: u32, key: &str) -> Verdict {
    let number = u32::from(key.as_bytes()[key.len() - 1]);
    match (number * 7 + who * 5) % 6 {
        _ if who == 0 => Verdict::Default,
        5 => Verdict::Drop(who),
        lane => place(u8::try_from(lane / 2).unwrap()),
    }
}

fn key_of(entry: &Entry) -> &str {
    let KeptChange::Key(change) = &entry.change else {
        panic!("an operation is not asked about: {entry:?}")
    };
    &change.key
}

/// Decides about everything that is stale; returns how much was asked about.
fn rank_all(journal: &mut Journal, decide: impl Fn(&Unranked) -> Verdict) -> usize {
    let mut count = 0;
    journal.flush(true).unwrap();
    while let Some(asked) = journal.unranked(Order::OldestFirst).unwrap() {
        count += asked.len();
        let verdicts: Vec<Verdict> = asked.iter().map(&decide).collect();
        journal.rank(&verdicts).unwrap();
        let total = journal.lock().total();
        assert_eq!(total, journal.status().bytes);
    }
    count
}

fn summed(state: &State) -> Summary {
    let all = [A, B].map(|source| state.calendar.within(&always(source)));
    all.iter().flatten().map(|(_, cell)| cell.all).sum()
}

/// Wherever an entry is now, it is the same one.
fn without_lane(entry: &Entry) -> Entry {
    Entry {
        lane: 0,
        ..entry.clone()
    }
}

fn rows(count: u64) -> Vec<Entry> {
    (0..count)
        .map(|i| entry(2, &format!("k/{}", i % 6), A, i * SECOND / 10, "0123456789"))
        .collect()
}

#[test]
fn what_waits_goes_where_the_new_one_says() {
    let dir = tempdir();
    let mut journal = open_with(options(dir.path()));
    let all = rows(200);
    for part in all.chunks(20) {
        journal.append(&kept(part), 0).unwrap();
    }
    let before = summed(&journal.lock());
    assert_eq!(journal.status().unranked, 0);
    journal.rank_by(1);
    assert_eq!(journal.status().unranked, 200);
    // The one that decides now is not asked about what it has decided already.
    journal
        .append(&kept(&[entry(7, "k/0", B, 5, "new")]), 0)
        .unwrap();
    let count = rank_all(&mut journal, |it| verdict(1, key_of(&it.entry)));
    assert_eq!(count, 200);

    let status = journal.status();
    assert_eq!((status.unranked, status.ranked.decided), (0, 200));
    let dropped = status.lanes[2].dropped.clone();
    let gone = all
        .iter()
        .filter(|it| matches!(verdict(1, key_of(it)), Verdict::Drop(_)));
    let gone = gone.count() as u64;
    assert_eq!(dropped, [(1, gone)]);
    assert_eq!(status.ranked.dropped, gone);
    for turn in 0..3 {
        let found = all_of(&mut journal);
        assert_eq!(found.len() as u64, 201 - gone, "turn {turn}");
        for entry in &found {
            if counted(&entry.change).0.id == A {
                assert_eq!(verdict(1, key_of(entry)), place(entry.lane), "turn {turn}");
            }
        }
        // In each lane as they were appended.
        let times = |lane| found.iter().filter(move |entry| entry.lane == lane);
        for lane in 0..3 {
            let times: Vec<u64> = times(lane)
                .map(|entry| counted(&entry.change).0)
                .filter_map(|stamp| (stamp.id == A).then_some(stamp.time))
                .collect();
            assert!(times.is_sorted(), "lane {lane}: {times:?}");
        }
        let added = sum(&[entry(7, "k/0", B, 5, "new")]);
        let mut expected = before;
        expected += added;
        assert_eq!(summed(&journal.lock()), expected, "turn {turn}");
        if turn == 0 {
            journal.flush(true).unwrap();
            drop(journal);
        } else {
            journal.close().unwrap();
        }
        let verified = inspect::verify(dir.path()).unwrap();
        assert_eq!((verified.damaged, verified.problems), (vec![], vec![]));
        journal = open_with(options(dir.path()));
        // Who decided is remembered, but for what a crash has left open. That stays as it is, footer included.
        journal.rank_by(1);
        assert_eq!(journal.status().unranked, 1, "turn {turn}");
        assert_eq!(rank_all(&mut journal, |_| place(7)), 1);
        assert_eq!(journal.status().unranked, 0);
    }
}

#[test]
fn it_is_told_how_each_waits_and_with_which_priority() {
    let dir = tempdir();
    let mut journal = open_with(options(dir.path()));
    let mut all = kept(&rows(40));
    for (waiting, priority) in all.iter_mut().zip((1u8..8).cycle()) {
        waiting.priority = priority;
        waiting.entry.expires = Some(u64::from(priority) * SECOND);
    }
    journal.append(&all, 0).unwrap();
    // An operation is for many keys: nobody is asked about it.
    journal
        .append(&kept(&[operation(3, "k/**", A, 7)]), 0)
        .unwrap();
    for who in 1..4 {
        journal.rank_by(who);
        // To other lanes and back: no priority is lost on the way.
        let asked = rank_all(&mut journal, |it| {
            let expected = all
                .iter()
                .find(|one| counted(&one.entry.change) == counted(&it.entry.change));
            let expected = expected.unwrap();
            assert_eq!(it.priority, expected.priority);
            assert_eq!(it.entry.expires, expected.entry.expires);
            Verdict::Place(Placement {
                lane: u8::try_from(u32::from(it.priority) % 3 + who % 2).unwrap(),
                expires: it.entry.expires,
                newest_only: false,
            })
        });
        assert_eq!(asked, 40, "{who}");
        let (_, mut outbox) = cloud(&mut journal);
        assert_eq!(outbox.operations().unwrap().len(), 1);
    }
}

#[test]
fn verdicts_may_change_how_it_waits_in_its_place() {
    let dir = tempdir();
    let mut journal = open_with(options(dir.path()));
    let all = rows(60);
    journal.append(&kept(&all), 0).unwrap();
    journal.rank_by(1);
    rank_all(&mut journal, |_| {
        Verdict::Place(Placement {
            lane: 2,
            expires: Some(99 * SECOND),
            newest_only: true,
        })
    });
    // Of six keys the newest is left, and expires as it was told.
    let found = all_of(&mut journal);
    assert_eq!(found.len(), 6, "{found:?}");
    for entry in &found {
        assert_eq!((entry.lane, entry.expires), (2, Some(99 * SECOND)));
        assert!(all[54..].iter().any(|one| key_of(one) == key_of(entry)));
    }
    assert_eq!(journal.status().lanes[2].coalesced, 54);
    assert_eq!(summed(&journal.lock()), sum(&all));
    // What nobody waits for is left alone.
    journal.rank_by(2);
    certify_all(&mut journal);
    assert_eq!(rank_all(&mut journal, |_| place(0)), 0);
}

#[test]
fn wrong_verdicts_leave_all_as_it_is() {
    let dir = tempdir();
    let mut journal = open_with(options(dir.path()));
    let all = rows(60);
    journal.append(&kept(&all), 0).unwrap();
    journal.rank_by(1);
    journal.flush(true).unwrap();
    while let Some(asked) = journal.unranked(Order::NewestFirst).unwrap() {
        let mut verdicts = vec![place(0); asked.len()];
        match asked.len() % 3 {
            0 => verdicts.clear(),
            1 => verdicts.push(place(1)),
            _ => verdicts.fill(place(LANES)),
        }
        // Nothing was asked about when a segment begins or ends.
        if asked.is_empty() {
            verdicts.clear();
        }
        journal.rank(&verdicts).unwrap();
    }
    assert_eq!(all_of(&mut journal), all);
    assert_eq!(journal.status().ranked.moved, 0);
}

#[test]
fn who_reads_meanwhile_certifies_nothing_that_it_has_not_seen() {
    let dir = tempdir();
    let mut journal = open_with(options(dir.path()));
    let all = rows(200);
    for part in all.chunks(20) {
        journal.append(&kept(part), 0).unwrap();
    }
    for order in [Order::OldestFirst, Order::NewestFirst] {
        let (upstream, mut outbox) = cloud(&mut journal);
        // The first lanes are read to their end, the others to somewhere.
        let mark = outbox.mark();
        let moved = outbox.moved();
        let mut seen: Vec<Entry> = Vec::new();
        let page = |outbox: &mut JournalOutbox, from, bytes| {
            outbox
                .page(2, order, from, &everything(), 0, bytes)
                .unwrap()
        };
        for lane in 0..2 {
            seen.extend(drain(&mut outbox, lane, order, 400));
        }
        let first = page(&mut outbox, None, 700);
        seen.extend(first.entries);
        let who = 1 + u32::from(order == Order::NewestFirst);
        journal.rank_by(who);
        rank_all(&mut journal, |it| match verdict(who, key_of(&it.entry)) {
            Verdict::Drop(_) => place(2),
            other => other,
        });
        assert!(outbox.moved() > moved);
        let mut from = first.next;
        while from.is_some() {
            let next = page(&mut outbox, from, 700);
            seen.extend(next.entries);
            from = next.next;
        }
        // Some went to lanes that were read already: this round may not say that they have arrived.
        let seen: Vec<Entry> = seen.iter().map(without_lane).collect();
        assert!(all.iter().any(|it| !seen.contains(&without_lane(it))));
        journal.certified(upstream, &[always(A)], mark);
        assert_eq!(journal.depth().0, 200, "{order:?}");
        drop(outbox);
    }
    certify_all(&mut journal);
    assert_eq!(journal.depth().0, 0, "the next round does");
}

#[test]
fn without_room_all_stays_as_it_was() {
    let dir = tempdir();
    let faults = Faults::none();
    let opened = Journal::open_on(faults.files(), options(dir.path()), &["cloud"], 0);
    let mut journal = opened.unwrap().0;
    let all = rows(200);
    journal.append(&kept(&all), 0).unwrap();
    journal.rank_by(1);
    journal.flush(true).unwrap();
    faults.set_room(1_500);
    let mut failed = 0;
    loop {
        let step = journal.unranked(Order::OldestFirst).and_then(|asked| {
            let Some(asked) = asked else { return Ok(false) };
            let verdicts: Vec<Verdict> = asked.iter().map(|_| place(0)).collect();
            journal.rank(&verdicts).map(|()| true)
        });
        match step {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                assert!(error.is_full(), "{error}");
                failed += 1;
                let (found, sums) = (all_of(&mut journal).len(), summed(&journal.lock()));
                assert_eq!((found, sums), (200, sum(&all)));
                let names = std::fs::read_dir(dir.path()).unwrap();
                let unfinished = |name: &std::ffi::OsStr| name.to_string_lossy().contains(".new");
                assert!(!names.flatten().any(|it| unfinished(&it.file_name())));
                faults.set_room(i64::MAX);
            }
        }
    }
    assert_eq!(failed, 1);
    assert!(all_of(&mut journal).iter().all(|entry| entry.lane == 0));
}

/// Once `moved` has its name nothing is taken back, even if the names cannot be made durable for want of room.
#[test]
fn a_move_that_has_happened_is_completed() {
    for syncs in 0..3 {
        let dir = tempdir();
        let faults = Faults::none();
        let opened = Journal::open_on(faults.files(), options(dir.path()), &["cloud"], 0);
        let mut journal = opened.unwrap().0;
        let all = rows(200);
        journal.append(&kept(&all), 0).unwrap();
        journal.rank_by(1);
        journal.flush(true).unwrap();
        faults.fill_at_dir_sync(syncs);
        let failed = loop {
            let asked = match journal.unranked(Order::OldestFirst) {
                Ok(asked) => asked.unwrap(),
                Err(error) => break error,
            };
            let verdicts = vec![place(0); asked.len()];
            if let Err(error) = journal.rank(&verdicts) {
                break error;
            }
        };
        assert!(!failed.is_full(), "{syncs}: {failed}");
        assert!(journal.status().poisoned.is_some());
        drop(journal);
        let mut journal = open_with(options(dir.path()));
        assert_eq!(all_of(&mut journal).len(), 200, "{syncs}");
        assert_eq!(summed(&journal.lock()), sum(&all), "{syncs}");
    }
}

/// Nobody would ever end a segment that got no footer for want of room: it is not waited for.
#[test]
fn what_has_no_footer_is_not_waited_for() {
    let dir = tempdir();
    let mut journal = open_with(options(dir.path()));
    journal.append(&kept(&rows(40)), 0).unwrap();
    journal.flush(true).unwrap();
    {
        // As recovery leaves it on a full disk.
        let mut state = journal.lock();
        let segment = state.lane_mut(2).segments.values_mut().next().unwrap();
        assert!(segment.is_closed());
        segment.blocks = Some(Vec::new());
    }
    journal.rank_by(1);
    rank_all(&mut journal, |_| Verdict::Default);
    assert_eq!(journal.status().unranked, 0);
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(u8, u8, u64, usize)>),
    Flush(bool),
    /// Another decides.
    RankBy(u32),
    /// So many steps of deciding again.
    Rank(usize),
    Certify(u64),
    Close,
    Kill,
    PowerLoss(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let row = (0u8..3, 0u8..9, 0u64..5 * SECOND, 0usize..80);
    prop_oneof![
        5 => prop::collection::vec(row, 1..16).prop_map(Step::Append),
        2 => any::<bool>().prop_map(Step::Flush),
        3 => (0u32..4).prop_map(Step::RankBy),
        5 => (1usize..40).prop_map(Step::Rank),
        1 => (0u64..5).prop_map(Step::Certify),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        1 => (0u64..100).prop_map(Step::PowerLoss),
    ]
}

/// What should be there.
#[derive(Default)]
struct Model {
    /// Everything that was appended, and whether it may have been dropped.
    all: Vec<Entry>,
    synced: usize,
    written: usize,
    serial: u64,
    /// Who has decided so far.
    who: Vec<u32>,
}

impl Model {
    fn append(&mut self, rows: &[(u8, u8, u64, usize)]) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (lane, key, time, len) in rows {
            self.serial += 1;
            let payload = format!("{:0len$}", self.serial);
            entries.push(entry(*lane, &format!("k/{key}"), A, *time, &payload));
        }
        self.all.extend(entries.iter().cloned());
        entries
    }

    fn may_drop(&self, entry: &Entry) -> bool {
        let drops = |who: &u32| matches!(verdict(*who, key_of(entry)), Verdict::Drop(_));
        self.who.iter().any(drops)
    }

    /// Each is there once, or was dropped; the first `sure` have to be. The sums are of all that is or was.
    /// What was not sure and is not there was never appended.
    fn check(&mut self, journal: &mut Journal, sure: usize) -> Result<(), TestCaseError> {
        let mut found: Vec<Entry> = all_of(journal).iter().map(without_lane).collect();
        let mut there = Vec::new();
        for (at, entry) in std::mem::take(&mut self.all).into_iter().enumerate() {
            let is = |other: &Entry| *other == without_lane(&entry);
            if let Some(at) = found.iter().position(is) {
                found.swap_remove(at);
            } else if at < sure {
                // Deciding begins with a sync, so only what is sure can have been dropped.
                prop_assert!(self.may_drop(&entry), "{entry:?} is gone");
            } else {
                continue;
            }
            there.push(entry);
        }
        prop_assert!(found.is_empty(), "invented, or there twice: {found:?}");
        self.all = there;
        prop_assert_eq!(summed(&journal.lock()), sum(&self.all));
        let status = journal.status();
        let waiting = status.lanes.iter().map(|lane| lane.waiting).sum();
        prop_assert_eq!(journal.depth(), (waiting, status.bytes));
        Ok(())
    }

    fn reopen(
        &mut self,
        dir: &Path,
        faults: &Faults,
        sure: usize,
    ) -> Result<Journal, TestCaseError> {
        let opened = Journal::open_on(faults.files(), options(dir), &["cloud"], 0);
        let (mut journal, found) =
            opened.map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert!(
            found.damaged.is_empty() && found.repaired.is_empty(),
            "{found:?}"
        );
        self.check(&mut journal, sure)?;
        (self.written, self.synced) = (self.all.len(), self.all.len());
        journal.rank_by(self.who.last().copied().unwrap_or(0));
        Ok(journal)
    }
}

fn run(steps: &[Step], stop_after: Option<i64>) -> Result<(), TestCaseError> {
    let dir = tempdir();
    let mut faults = Faults::none();
    if let Some(steps) = stop_after {
        faults.stop_after(steps);
    }
    let mut model = Model::default();
    let opened = Journal::open_on(faults.files(), options(dir.path()), &["cloud"], 0);
    let mut journal = opened.unwrap().0;
    for step in steps {
        let done = match step {
            Step::Append(rows) => {
                let entries = model.append(rows);
                journal.append(&kept(&entries), 0).map(drop)
            }
            Step::Flush(sync) => {
                let flushed = journal.flush(*sync);
                if flushed.is_ok() {
                    model.written = model.all.len();
                    model.synced = if *sync { model.all.len() } else { model.synced };
                }
                flushed
            }
            Step::RankBy(who) => {
                model.who.push(*who);
                journal.rank_by(*who);
                Ok(())
            }
            Step::Rank(count) => {
                let who = model.who.last().copied().unwrap_or(0);
                let mut step = || -> crate::error::Result<()> {
                    journal.flush(true)?;
                    (model.written, model.synced) = (model.all.len(), model.all.len());
                    for _ in 0..*count {
                        let Some(asked) = journal.unranked(Order::OldestFirst)? else {
                            break;
                        };
                        let decide = |it: &Unranked| verdict(who, key_of(&it.entry));
                        let verdicts: Vec<Verdict> = asked.iter().map(decide).collect();
                        journal.rank(&verdicts)?;
                    }
                    Ok(())
                };
                step()
            }
            Step::Certify(second) => {
                let (cloud, mut outbox) = cloud(&mut journal);
                let mark = outbox.mark();
                let stretch = Stretch {
                    source: A,
                    from: second * SECOND,
                    to: (second + 1) * SECOND,
                };
                journal.certified(cloud, &[stretch], mark);
                Ok(())
            }
            Step::Close => {
                let closed = journal.close();
                let sure = if closed.is_ok() {
                    model.all.len()
                } else {
                    model.synced
                };
                faults = Faults::none();
                journal = model.reopen(dir.path(), &faults, sure)?;
                Ok(())
            }
            Step::Kill => {
                drop(journal);
                faults = Faults::none();
                let sure = model.written;
                journal = model.reopen(dir.path(), &faults, sure)?;
                Ok(())
            }
            Step::PowerLoss(part) => {
                drop(journal);
                faults.lose_unsynced(|unsynced| unsynced * part / 100);
                faults = Faults::none();
                let sure = model.synced;
                journal = model.reopen(dir.path(), &faults, sure)?;
                Ok(())
            }
        };
        if done.is_err() {
            // It has stopped in the middle of something: as if it were killed.
            prop_assert!(journal.status().poisoned.is_some());
            drop(journal);
            faults = Faults::none();
            let sure = model.written;
            journal = model.reopen(dir.path(), &faults, sure)?;
        }
        let all = model.all.len();
        model.check(&mut journal, all)?;
    }
    faults.stop_after(i64::MAX);
    // In the end each waits where the last one says.
    let who = model.who.last().copied().unwrap_or(0);
    certify_nothing(&mut journal);
    journal.rank_by(who);
    rank_all(&mut journal, |it| verdict(who, key_of(&it.entry)));
    let all = model.all.len();
    model.check(&mut journal, all)?;
    journal.close().unwrap();
    prop_assert_eq!(inspect::verify(dir.path()).unwrap().problems, vec![]);
    Ok(())
}

/// What was certified waits again.
fn certify_nothing(journal: &mut Journal) {
    let (cloud, _) = cloud(journal);
    journal.reset(cloud);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    #[test]
    fn each_is_there_once_and_the_sums_stay(steps in prop::collection::vec(any_step(), 1..30)) {
        run(&steps, None)?;
    }

    #[test]
    fn and_if_it_stops_at_any_write(
        steps in prop::collection::vec(any_step(), 1..30),
        stop_after in 1i64..120,
    ) {
        run(&steps, Some(stop_after))?;
    }
}
