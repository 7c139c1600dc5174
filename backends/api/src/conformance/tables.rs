//! Rows of the tables.

use std::collections::BTreeMap;

use weir_core::change::{Table, Write};

use super::{Site, commit};
use crate::Store;

type Expected = BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>;

fn set(table: Table, key: &[u8], value: Option<&[u8]>) -> Write<'static> {
    Write::Row {
        table,
        key: key.to_vec(),
        value: value.map(<[u8]>::to_vec),
    }
}

/// Every table from every row on, with limits around every length.
fn check(store: &dyn Store, expected: &Expected) {
    for table in Table::ALL {
        let rows: Vec<(Vec<u8>, Vec<u8>)> = expected
            .get(&table)
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        assert_eq!(
            store.rows(table, &[], usize::MAX).unwrap(),
            rows,
            "{table:?}"
        );
        for (index, (key, _)) in rows.iter().enumerate() {
            for limit in 0..=rows.len() - index + 1 {
                let page = &rows[index..rows.len().min(index + limit)];
                let held = store.rows(table, key, limit).unwrap();
                assert_eq!(held, page, "{table:?} from {key:?}, {limit} rows");
            }
            // From just behind the row, as the next page is read.
            let behind = [key, &[0][..]].concat();
            let at = rows.partition_point(|(key, _)| *key < behind);
            assert_eq!(store.rows(table, &behind, usize::MAX).unwrap(), rows[at..]);
        }
    }
}

/// Rows are ordered by their bytes, tables are apart, an empty value is a value.
pub fn tables_keep_their_rows(site: &mut Site) {
    let mut store = site.open();
    let mut expected = Expected::new();
    check(&*store, &expected);
    let keys: [&[u8]; 10] = [
        b"\0",
        b"\0\0",
        b"a",
        b"a\0",
        b"a\0b",
        b"ab",
        b"b",
        b"\x7f",
        b"\xff",
        b"\xff\xff\xff",
    ];
    for (n, table) in (0u8..).zip(Table::ALL) {
        let mut batch = Vec::new();
        // Backwards, so that the order is the store's; tables share keys but not values.
        for (index, key) in keys
            .iter()
            .enumerate()
            .rev()
            .filter(|(i, _)| i % 5 != usize::from(n))
        {
            let value = vec![n; index];
            batch.push(set(table, key, Some(&value)));
            expected
                .entry(table)
                .or_default()
                .insert(key.to_vec(), value);
        }
        commit(&*store, &batch);
    }
    check(&*store, &expected);

    // In a batch the last word counts.
    let table = Table::System;
    commit(
        &*store,
        &[
            set(table, b"new", Some(b"1")),
            set(table, b"new", None),
            set(table, b"a\0b", None),
            set(table, b"a\0b", Some(b"again")),
            set(table, b"absent", None),
            set(Table::Jobs, b"\xff", None),
            set(Table::Parked, b"long", Some(&vec![5; 1 << 20])),
            set(Table::Quarantine, &vec![9; 40 << 10], Some(b"long key")),
        ],
    );
    let row = |table, key: &[u8], value: &[u8]| (table, key.to_vec(), value.to_vec());
    for (table, key, value) in [
        row(table, b"a\0b", b"again"),
        row(Table::Parked, b"long", &vec![5; 1 << 20]),
        row(Table::Quarantine, &vec![9; 40 << 10], b"long key"),
    ] {
        expected.entry(table).or_default().insert(key, value);
    }
    expected
        .entry(Table::Jobs)
        .or_default()
        .remove(&b"\xff"[..]);
    check(&*store, &expected);
    if site.can().persistent {
        store = site.reopen(store);
        check(&*store, &expected);
    }
    store.close().unwrap();
}
