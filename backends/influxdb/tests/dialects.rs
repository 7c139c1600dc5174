//! 2.x and 3.x, for which no server can be had here: a small HTTP server that does what their
//! documentation says of the calls that a store makes, and refuses everything else.
//!
//! 2.x: `POST /api/v2/write?org&bucket&precision=ns`, `Authorization: Token`, 204, gzip; `/query`
//! through the mapping of buckets. 3.x: `POST /api/v3/write_lp?db&precision=nanosecond`, tables made
//! by writing to them, tags that cannot change, `/query`; databases made by
//! `/api/v3/configure/database`.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "common/contract.rs"]
mod contract;
#[path = "common/shipped.rs"]
mod shipped;

use std::sync::Arc;

use weir_backend_api::{Direction, Durability, Store, StoreSpec, Volume};
use weir_backend_influxdb::{Generation, InfluxSettings, InfluxVolume};
use weir_backend_memory::MemoryVolume;
use weir_core::{
    change::Write,
    key::{Key, KeyRange},
    record::Record,
    value::Value,
    version::{Stamp, Version},
};

use crate::{contract::Contract, shipped::settle};

fn put(time: u64, payload: &str) -> Record {
    let mut id = [0; 16];
    id[0] = 7;
    let value = Value::bytes(payload.to_owned());
    Record::own(Version::put(Stamp { time, id }, value.hash()), Some(value))
}

fn settings(server: &Contract, generation: Generation) -> InfluxSettings {
    InfluxSettings {
        token: Some("secret".to_owned()),
        org: Some("acme & co".to_owned()),
        create_db: true,
        generation,
        ..InfluxSettings::new(server.url(), "fleet data")
    }
}

fn open(settings: InfluxSettings) -> Box<dyn Store> {
    let volume = InfluxVolume::new(settings, Arc::new(MemoryVolume::new())).unwrap();
    let spec = StoreSpec {
        name: "s".to_owned(),
        create: true,
        history: true,
        ..StoreSpec::default()
    };
    volume.open(&spec).unwrap()
}

fn history(store: &dyn Store, range: &KeyRange, direction: Direction) -> Vec<(Key, Record)> {
    let snapshot = store.snapshot().unwrap();
    snapshot
        .history(range, None, direction)
        .map(Result::unwrap)
        .collect()
}

/// Written, read in both directions and by prefix, forgotten: whatever the generation.
fn check(server: &Contract, generation: Generation) {
    let store = open(settings(server, generation));
    let keys = ["", "a", "a/b", "a b,c=d", "it's \"x\"", "a\\", "서울/온도"].map(Key::from);
    let now = 1_790_000_000 << 32;
    let mut rows: Vec<(Key, Record)> = Vec::new();
    for key in &keys {
        // Several to a nanosecond.
        rows.extend(
            (0..200u64).map(|n| (key.clone(), put(now + n * 3, &format!("{{\"n\": {n}}}")))),
        );
    }
    let batch: Vec<Write<'_>> = rows
        .iter()
        .map(|(key, record)| Write::History {
            key,
            record: record.as_ref(),
        })
        .collect();
    store.commit(&batch, Durability::Memory).unwrap();
    settle(&*store);
    let backlog = store.backlog().unwrap();
    assert_eq!(
        (backlog.refused, backlog.shipped),
        (0, 1_400),
        "{backlog:?}"
    );
    assert_eq!(server.points(), 1_400);
    rows.sort_by_key(|(key, record)| (key.ordered(), record.head.own));
    let all = KeyRange::all();
    let held = history(&*store, &all, Direction::Forward);
    for key in &keys {
        let count = |rows: &[(Key, Record)]| rows.iter().filter(|(k, _)| k == key).count();
        assert_eq!(count(&held), count(&rows), "{key:?}");
    }
    assert_eq!(held, rows);
    let backward: Vec<_> = rows.iter().rev().cloned().collect();
    assert_eq!(history(&*store, &all, Direction::Backward), backward);
    let under = KeyRange::under(&Key::from("a"));
    assert_eq!(history(&*store, &under, Direction::Forward).len(), 400);

    let (key, version) = (&rows[300].0, rows[300].1.head.own);
    store
        .commit(&[Write::ForgetHistory { key, version }], Durability::Memory)
        .unwrap();
    settle(&*store);
    let mut left = rows.clone();
    left.remove(300);
    assert_eq!(
        history(&*store, &all, Direction::Forward),
        left,
        "what is forgotten stays hidden"
    );
    store.close().unwrap();
}

#[test]
fn a_2_x_server_keeps_history() {
    let server = Contract::start(2);
    server.make("fleet data");
    check(&server, Generation::Two);
}

#[test]
fn a_3_x_server_keeps_history_in_one_table() {
    let server = Contract::start(3);
    check(&server, Generation::Three);
    assert_eq!(server.tables(), ["weir"]);
}

#[test]
fn a_server_is_asked_what_it_is() {
    for generation in [2, 3] {
        let server = Contract::start(generation);
        server.make("fleet data");
        check(&server, Generation::Auto);
    }
}

/// Servers that are busy, and tokens that are wrong.
#[test]
fn answers_are_understood() {
    let server = Contract::start(2);
    server.make("fleet data");
    server.fail_next(429, 2);
    server.fail_next(503, 1);
    let store = open(settings(&server, Generation::Two));
    let key = Key::from("a");
    let record = put(1 << 40, "x");
    let batch = [Write::History {
        key: &key,
        record: record.as_ref(),
    }];
    store.commit(&batch, Durability::Memory).unwrap();
    settle(&*store);
    assert_eq!(server.points(), 1);
    store.close().unwrap();

    let wrong = InfluxSettings {
        token: Some("guess".to_owned()),
        ..settings(&server, Generation::Auto)
    };
    let store = open(wrong);
    store.commit(&batch, Durability::Memory).unwrap();
    let told = loop {
        let backlog = store.backlog().unwrap();
        if backlog.last_error.is_some() {
            break backlog;
        }
        std::thread::yield_now();
    };
    assert!(!told.ready && told.changes == 1 && told.last_error.unwrap().contains("401"));
    assert_eq!(server.points(), 1);
    store.close().unwrap();
}
