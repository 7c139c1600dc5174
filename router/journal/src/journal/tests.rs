use weir_core::{
    change::Change,
    forward::{Entry, Missing, Order, Outbox, Page, Source},
    key::Key,
    ledger::Summary,
    value::Value,
    version::Stamp,
};

use super::*;

pub(crate) const SECOND: u64 = 1 << 32;
pub(crate) const A: Source = [1; 16];
pub(crate) const B: Source = [2; 16];

pub(crate) fn entry(lane: u8, key: &str, source: Source, time: u64, payload: &str) -> Entry {
    Entry {
        change: KeptChange::Key(Change {
            key: Key::from(key),
            stamp: Some(Stamp { time, id: source }),
            value: Some(Value::bytes(payload.to_owned())),
        }),
        lane,
        expires: None,
    }
}

pub(crate) fn waiting(entry: Entry) -> Waiting {
    Waiting {
        entry,
        keep: Keep::Yes,
    }
}

pub(crate) fn open(dir: &std::path::Path) -> Journal {
    Journal::open(Options::new(dir), &["cloud"], 0).unwrap().0
}

pub(crate) fn cloud(journal: &mut Journal) -> (Upstream, JournalOutbox) {
    let upstream = journal.upstream("cloud").unwrap();
    (upstream, journal.outbox(upstream, Scope::All))
}

/// Everything that a lane has, page by page.
pub(crate) fn drain(
    outbox: &mut JournalOutbox,
    lane: u8,
    order: Order,
    bytes_max: usize,
) -> Vec<Entry> {
    let mut missing = Missing::default();
    for source in [A, B] {
        missing.add_whole(Stretch {
            source,
            from: 0,
            to: u64::MAX,
        });
    }
    let mut all = Vec::new();
    let mut from = None;
    loop {
        let Page { entries, next, .. } = outbox
            .page(lane, order, from, &missing, 0, bytes_max)
            .unwrap();
        all.extend(entries);
        match next {
            Some(next) => from = Some(next),
            None => return all,
        }
    }
}

#[test]
fn what_is_appended_waits_until_it_is_certified() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let (cloud, mut outbox) = cloud(&mut journal);
    let all: Vec<_> = (0..10)
        .map(|i| entry(i % 3, "a/b", A, u64::from(i) * SECOND + 5, "x"))
        .collect();
    let batch: Vec<_> = all.iter().cloned().map(waiting).collect();
    let appended = journal.append(&batch, 10 * SECOND).unwrap();
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
        assert_eq!(pending.len(), 1);
        let sum: Summary = outbox
            .items(&pending[0].0)
            .unwrap()
            .iter()
            .map(|item| crate::options::one(item.hash()))
            .sum();
        assert_eq!((pending[0].1, sum.count), (sum, 10));
        assert_eq!(
            drain(&mut outbox, 1, Order::OldestFirst, 1),
            [&all[1], &all[4], &all[7]].map(Clone::clone)
        );
    }
    let mark = outbox.mark();
    let pending = outbox.pending(20 * SECOND, 9).unwrap();
    journal.certified(cloud, &[pending[0].0], mark);
    assert_eq!(outbox.pending(20 * SECOND, 9).unwrap(), []);
    assert_eq!(journal.trim(10 * SECOND).unwrap().records, 10);
    assert_eq!(journal.status().bytes, 0);
    assert_eq!(journal.status().segments, 0);
}
