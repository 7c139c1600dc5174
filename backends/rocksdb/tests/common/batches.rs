//! What the tests of this crate share.

#![allow(
    dead_code,
    reason = "each test file is a program of its own and needs a part of this"
)]

use std::path::Path;

use weir_backend_api::{Durability, Result, Store, StoreSpec, Volume};
use weir_backend_rocksdb::{RocksdbSettings, RocksdbVolume};
use weir_core::{
    change::{Table, Write},
    key::Key,
    record::Record,
    value::Value,
    version::{Stamp, Version},
};

/// Keys of a batch of [`commit`].
pub const BATCH_KEYS: u64 = 10;

pub fn spec(dir: &Path) -> StoreSpec {
    StoreSpec {
        name: "test".to_owned(),
        dir: dir.to_path_buf(),
        create: true,
        history: true,
        ..StoreSpec::default()
    }
}

pub fn open(dir: &Path) -> Result<Box<dyn Store>> {
    open_with(dir, RocksdbSettings::default())
}

pub fn open_with(dir: &Path, settings: RocksdbSettings) -> Result<Box<dyn Store>> {
    RocksdbVolume::new(settings).open(&spec(dir))
}

pub fn record(number: u64, payload_bytes: usize) -> Record {
    // Noise, so that compression saves nothing: what is written is what the disk holds.
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let payload: Vec<u8> = (0..payload_bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect();
    let value = Value::bytes(payload);
    let stamp = Stamp {
        time: number + 1,
        id: [1; 16],
    };
    Record::own(Version::put(stamp, value.hash()), Some(value))
}

pub fn key(batch: u64, index: u64) -> Key {
    Key::new(format!("batch/{batch}/{index}"))
}

/// Commits batch number `batch`: some keys with history, and its number as a row.
pub fn commit(
    store: &dyn Store,
    batch: u64,
    payload_bytes: usize,
    durability: Durability,
) -> Result<Durability> {
    let keys: Vec<Key> = (0..BATCH_KEYS).map(|index| key(batch, index)).collect();
    let record = record(batch, payload_bytes);
    let mut writes = Vec::new();
    for key in &keys {
        let record = record.as_ref();
        writes.push(Write::Latest { key, record });
    }
    writes.push(Write::History {
        key: &keys[0],
        record: record.as_ref(),
    });
    writes.push(Write::Row {
        table: Table::Jobs,
        key: batch.to_be_bytes().to_vec(),
        value: Some(Vec::new()),
    });
    store.commit(&writes, durability)
}

/// Whether batch number `batch` is there; panics if it is there in parts.
pub fn has_batch(store: &dyn Store, batch: u64, payload_bytes: usize) -> bool {
    let expected = record(batch, payload_bytes);
    let held = (0..BATCH_KEYS)
        .filter(|index| {
            let record = store.get(&key(batch, *index)).unwrap();
            assert!(record.as_ref().is_none_or(|record| *record == expected));
            record.is_some()
        })
        .count();
    let row = batch.to_be_bytes().to_vec();
    let has_row = store
        .rows(Table::Jobs, &row, 1)
        .unwrap()
        .first()
        .is_some_and(|(key, _)| *key == row);
    match held {
        0 => assert!(!has_row, "batch {batch} is torn"),
        held => assert!(
            held as u64 == BATCH_KEYS && has_row,
            "batch {batch} is torn"
        ),
    }
    has_row
}
