//! Whatever happens in whatever order: what was synced is there, nothing is invented, the order is kept.

use proptest::prelude::*;

use super::{faults::Faults, *};

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(u8, u8, u64, usize)>),
    Flush(bool),
    Trim,
    Certify(u64),
    Reset,
    Close,
    /// The process ends.
    Kill,
    /// The power goes; so much of what was not synced, in hundredths, is there all the same.
    PowerLoss(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let row = (0u8..3, 0u8..4, 0u64..5 * SECOND, 0usize..80);
    prop_oneof![
        5 => prop::collection::vec(row, 1..12).prop_map(Step::Append),
        3 => any::<bool>().prop_map(Step::Flush),
        1 => Just(Step::Trim),
        2 => (0u64..5).prop_map(Step::Certify),
        1 => Just(Step::Reset),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        1 => (0u64..100).prop_map(Step::PowerLoss),
    ]
}

fn options(dir: &Path) -> Options {
    Options {
        segment_bytes: 900,
        block_bytes: 220,
        ..Options::new(dir)
    }
}

/// What should be there.
#[derive(Default)]
struct Model {
    /// Every entry that was ever appended, and whether it was certified at the end.
    all: Vec<(Entry, bool)>,
    /// How many of them are synced, written.
    synced: usize,
    written: usize,
    serial: u64,
}

impl Model {
    fn append(&mut self, rows: &[(u8, u8, u64, usize)]) -> Vec<Entry> {
        let entries: Vec<Entry> = rows
            .iter()
            .map(|(lane, key, time, len)| {
                // Each is another one, so that one that comes twice is seen.
                self.serial += 1;
                entry(
                    *lane,
                    &format!("k/{key}"),
                    A,
                    *time,
                    &format!("{:0len$}", self.serial),
                )
            })
            .collect();
        self.all
            .extend(entries.iter().map(|entry| (entry.clone(), false)));
        entries
    }

    /// Checks what was found in a lane; what is certified may be there or not. Everything up to `sure` has to
    /// be, of the others a beginning.
    fn check(&self, lane: u8, found: &[Entry], sure: usize) -> Result<(), TestCaseError> {
        let mut found = found.iter().peekable();
        let mut is_over = false;
        for (at, (entry, is_certified)) in self.all.iter().enumerate() {
            if entry.lane != lane {
                continue;
            }
            if found.peek() == Some(&entry) {
                prop_assert!(!is_over, "there is a hole before {entry:?}");
                found.next();
            } else if !is_certified {
                prop_assert!(at >= sure, "{entry:?} is gone");
                is_over = true;
            }
        }
        prop_assert!(found.peek().is_none(), "invented: {:?}", found.peek());
        Ok(())
    }

    /// What is not there any more was never appended.
    fn forget(&mut self, found: &[Vec<Entry>]) {
        self.all.retain(|(entry, is_certified)| {
            *is_certified || found[usize::from(entry.lane)].contains(entry)
        });
        self.written = self.all.len();
        self.synced = self.all.len();
        // No certificate is written down, but what was trimmed is gone.
        for (entry, is_certified) in &mut self.all {
            *is_certified = !found[usize::from(entry.lane)].contains(entry);
        }
    }
}

fn lanes_of(journal: &mut Journal) -> Vec<Vec<Entry>> {
    let (_, mut outbox) = cloud(journal);
    (0..3)
        .map(|lane| drain(&mut outbox, lane, Order::OldestFirst, 300))
        .collect()
}

fn check_all(
    journal: &mut Journal,
    model: &Model,
    sure: usize,
) -> Result<Vec<Vec<Entry>>, TestCaseError> {
    let status = journal.status();
    let waiting = status.lanes.iter().map(|lane| lane.waiting).sum();
    prop_assert_eq!(journal.depth(), (waiting, status.bytes));
    let lanes = lanes_of(journal);
    for (lane, found) in (0..).zip(&lanes) {
        model.check(lane, found, sure)?;
    }
    Ok(lanes)
}

fn reopen(
    dir: &Path,
    faults: &Faults,
    model: &mut Model,
    sure: usize,
) -> Result<Journal, TestCaseError> {
    let opened = Journal::open_on(faults.files(), options(dir), &["cloud"], 0);
    let (mut journal, recovery) = opened.map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert!(recovery.damaged.is_empty(), "{:?}", recovery.damaged);
    let lanes = check_all(&mut journal, model, sure)?;
    model.forget(&lanes);
    // What waits is what is kept, by sums too.
    let (_, mut outbox) = cloud(&mut journal);
    let pending = outbox.pending(u64::MAX, 99).unwrap();
    let listed: Vec<Item> = pending
        .iter()
        .flat_map(|(stretch, _)| outbox.items(stretch).unwrap())
        .collect();
    prop_assert_eq!(listed.len(), lanes.iter().map(Vec::len).sum::<usize>());
    prop_assert_eq!(
        sum_of(&listed),
        pending.iter().map(|(_, sum)| *sum).sum::<Summary>()
    );
    Ok(journal)
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
            Step::Trim => journal.trim(0).map(drop),
            Step::Certify(second) => {
                let (cloud, mut outbox) = cloud(&mut journal);
                let mark = outbox.mark();
                let stretch = Stretch {
                    source: A,
                    from: second * SECOND,
                    to: (second + 1) * SECOND,
                };
                journal.certified(cloud, &[stretch], mark);
                for (entry, is_certified) in &mut model.all {
                    *is_certified |= stretch.contains(&counted(&entry.change).0);
                }
                Ok(())
            }
            Step::Reset => {
                let (cloud, _) = cloud(&mut journal);
                journal.reset(cloud);
                // What is there waits again; what was trimmed is not.
                let lanes = lanes_of(&mut journal);
                for (entry, is_certified) in &mut model.all {
                    *is_certified &= !lanes[usize::from(entry.lane)].contains(entry);
                }
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
                journal = reopen(dir.path(), &faults, &mut model, sure)?;
                Ok(())
            }
            Step::Kill => {
                drop(journal);
                faults = Faults::none();
                let sure = model.written;
                journal = reopen(dir.path(), &faults, &mut model, sure)?;
                Ok(())
            }
            Step::PowerLoss(part) => {
                drop(journal);
                faults.lose_unsynced(|unsynced| unsynced * part / 100);
                faults = Faults::none();
                let sure = model.synced;
                journal = reopen(dir.path(), &faults, &mut model, sure)?;
                Ok(())
            }
        };
        if done.is_err() {
            // It has stopped in the middle of something: as if it were killed.
            let is_trim = matches!(step, Step::Trim);
            prop_assert!(is_trim || journal.status().poisoned.is_some());
            drop(journal);
            faults = Faults::none();
            let sure = model.written;
            journal = reopen(dir.path(), &faults, &mut model, sure)?;
        }
        let all = model.all.len();
        check_all(&mut journal, &model, all)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_nothing_is_invented(steps in prop::collection::vec(any_step(), 1..30)) {
        run(&steps, None)?;
    }

    #[test]
    fn nor_if_it_stops_at_any_write(
        steps in prop::collection::vec(any_step(), 1..30),
        stop_after in 1i64..60,
    ) {
        run(&steps, Some(stop_after))?;
    }
}
