//! What the tests of the whole journal share.

mod damage;
mod faults;
mod format;
mod full;
mod life;
mod model;
mod newest;
mod ranking;
mod reading;

use std::path::Path;

use weir_core::{
    backlog::LANES,
    change::{Change, KeptChange, WildcardChange},
    forward::{Entry, Missing, Order, Outbox, Page, Source, Stretch},
    key::Key,
    ledger::{Item, Summary},
    value::Value,
    version::Stamp,
};
use zenoh_keyexpr::OwnedKeyExpr;

use crate::{
    Journal, JournalOutbox, Keep, Options, Scope, Upstream, Waiting, block::PRIORITY, options::one,
    recovery::counted,
};

const SECOND: u64 = 1 << 32;
const A: Source = [1; 16];
const B: Source = [2; 16];

/// A directory in memory where there is one: these tests sync thousands of times, and none of them is about
/// what a real disk keeps.
fn tempdir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn entry(lane: u8, key: &str, source: Source, time: u64, payload: &str) -> Entry {
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

fn operation(lane: u8, expr: &str, source: Source, time: u64) -> Entry {
    Entry {
        change: KeptChange::Wildcard(WildcardChange {
            expr: OwnedKeyExpr::new(expr).unwrap(),
            stamp: Some(Stamp { time, id: source }),
            value: None,
        }),
        lane,
        expires: None,
    }
}

fn kept(entries: &[Entry]) -> Vec<Waiting> {
    let waiting = |entry: &Entry| Waiting {
        entry: entry.clone(),
        priority: PRIORITY,
        keep: Keep::Yes,
    };
    entries.iter().map(waiting).collect()
}

fn open(dir: &Path) -> Journal {
    open_with(Options::new(dir))
}

fn open_with(options: Options) -> Journal {
    Journal::open(options, &["cloud"], 0).unwrap().0
}

fn cloud(journal: &mut Journal) -> (Upstream, JournalOutbox) {
    let upstream = journal.upstream("cloud").unwrap();
    (upstream, journal.outbox(upstream, Scope::All))
}

fn always(source: Source) -> Stretch {
    Stretch {
        source,
        from: 0,
        to: u64::MAX,
    }
}

fn everything() -> Missing {
    let mut missing = Missing::default();
    for source in [A, B] {
        missing.add_whole(always(source));
    }
    missing
}

/// Everything that a lane has, page by page.
fn drain(outbox: &mut JournalOutbox, lane: u8, order: Order, bytes_max: usize) -> Vec<Entry> {
    let mut all = Vec::new();
    let mut from = None;
    loop {
        let Page { entries, next, .. } = outbox
            .page(lane, order, from, &everything(), 0, bytes_max)
            .unwrap();
        all.extend(entries);
        match next {
            Some(next) => from = Some(next),
            None => return all,
        }
    }
}

/// What all lanes have.
fn all_of(journal: &mut Journal) -> Vec<Entry> {
    let (_, mut outbox) = cloud(journal);
    (0..LANES)
        .flat_map(|lane| drain(&mut outbox, lane, Order::OldestFirst, 4096))
        .collect()
}

fn certify_all(journal: &mut Journal) {
    let (cloud, mut outbox) = cloud(journal);
    let mark = outbox.mark();
    journal.certified(cloud, &[always(A), always(B)], mark);
}

fn sum(entries: &[Entry]) -> Summary {
    entries
        .iter()
        .filter_map(|entry| counted(&entry.change).1)
        .map(one)
        .sum()
}

fn sum_of(items: &[Item]) -> Summary {
    items.iter().map(|item| one(item.hash())).sum()
}
