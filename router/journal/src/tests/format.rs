//! Format 1, as it was written first: later releases read it, and write it as long as they call it 1.

use std::fs;

use bytes::Bytes;

use super::*;
use crate::{
    files::name_of,
    inspect,
    pack::{pack, unpack},
};

const SEGMENT: &str = concat!(
    "574549524a524e4c010002000100000000000000000000000000000047278c9257424b018e000000ac8bc1d204",
    "000000000000000000000005000000000000000000000004000000010000000600000001000000010000000800",
    "000085845ba2dd0001010101010101010101010101010101000003612f6280808080a001808080808001050173",
    "026174097b2276223a312e357d020102022a2a8080808020410202026263020001788001020202020202020202",
    "0202020202020200818080804001010101010101010101010101010101010700000001000000000000003fdb44",
    "64bb9796be6f427809470266d30101010101010101010101010101010105000000010000000100000000000000",
    "b50d2c7c33e8a430b0c067f8b17d8b0c0101010101010101010101010101010106000000020000000100000000",
    "0000003356a6b20f940b51128a9d0fa0b55df00101010101010101010101010101010107000000000000000100",
    "0000000000003fdb4464bb9796be6f427809470266d30202020202020202020202020202020204000000010000",
    "000100000000000000d5b67f749ed6220cd67ea56ac0cb0695200000000000000057424b018e000000ac8bc1d2",
    "040000000000000000000000050000000000000000000000040000000100000006000000010000000100000008",
    "00000085845ba257454952464f4f54010001000400000060e035e001000000a53c4c40ee000000000000000000",
    "000000000000040000000000000005000000000000000800000000000000bf6505fc",
);

fn entries() -> Vec<Entry> {
    let mut first = entry(2, "a/b", A, 5 * SECOND, "{\"v\":1.5}");
    first.expires = Some(9 * SECOND);
    let KeptChange::Key(change) = &mut first.change else {
        panic!()
    };
    if let Some(value) = &mut change.value {
        value.encoding.id = 5;
        value.encoding.schema = Some("s".into());
        value.attachment = Some("at".into());
    }
    let mut last = entry(2, "a/b", B, 4 * SECOND, "");
    let KeptChange::Key(change) = &mut last.change else {
        panic!()
    };
    change.value = None;
    vec![
        first,
        operation(2, "a/**", A, 6 * SECOND),
        entry(2, "a/bc", A, 6 * SECOND + 1, "x"),
        last,
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

#[test]
fn the_first_format_is_written_as_ever() {
    let dir = tempdir();
    let mut journal = open(dir.path());
    let mut batch = kept(&entries());
    batch.push(Waiting {
        entry: entry(2, "d", A, 7 * SECOND, "y"),
        priority: PRIORITY,
        keep: Keep::Drop(1),
    });
    journal.append(&batch, 8 * SECOND).unwrap();
    journal.close().unwrap();
    assert_eq!(
        hex(&fs::read(dir.path().join(name_of(2, 1))).unwrap()),
        SEGMENT
    );
}

#[test]
fn the_first_format_is_read_as_ever() {
    let dir = tempdir();
    fs::write(dir.path().join(name_of(2, 1)), bytes_of(SEGMENT)).unwrap();
    assert_eq!(inspect::verify(dir.path()).unwrap().problems, []);
    let found = inspect::entries(dir.path())
        .unwrap()
        .map(|row| row.unwrap().1);
    assert!(found.eq(entries()));
    let mut journal = open(dir.path());
    let (_, mut outbox) = cloud(&mut journal);
    assert_eq!(outbox.operations().unwrap().len(), 1);
    let mut seen = entries();
    seen.push(entry(2, "d", A, 7 * SECOND, "y"));
    let pending = outbox.pending(u64::MAX, 9).unwrap();
    // Nothing is kept of what was dropped, so its second does not wait.
    assert_eq!(
        pending.iter().map(|(_, sum)| *sum).sum::<Summary>(),
        sum(&seen[..4])
    );
    assert_eq!(pending.len(), 2);
}

const PARCEL: &str = concat!(
    "014d4128b52ffd204dc50100f402020102030000000005030173010000030004612f2a2a010100010201620002",
    "03010701001e000103016300010301010200a0131dc00204000001020001000202006174000008007b2276223a",
    "007d780000040000ffff02040000ffff00040000ffff00040000ffff0004000c01010204000000000004000000",
    "000004000000000000000000000000000000000000000000",
);

#[test]
fn the_first_parcels_are_read_as_ever() {
    let changes = |entries: Vec<Entry>| -> Vec<KeptChange> {
        entries.into_iter().map(|entry| entry.change).collect()
    };
    let mut expected = changes(entries());
    // By key: "a/**", "a/b" twice, "a/bc".
    expected.swap(0, 1);
    expected.swap(2, 3);
    assert_eq!(
        unpack(&Bytes::from(bytes_of(PARCEL)), 1 << 10).unwrap(),
        expected
    );
    assert_eq!(unpack(&pack(&entries()), 1 << 10).unwrap(), expected);
}
