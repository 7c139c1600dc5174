//! What is written is read back, byte for byte, and so is what the stock backend wrote.

use proptest::prelude::*;
use weir_core::{
    record::{Head, Merged},
    vector::Vector,
};

use super::*;

/// The line of a record in the measurement `m`.
fn line_of(record: &Record, is_tie: bool, fields: Fields) -> String {
    let mut out = String::new();
    line(&mut out, "m", record.as_ref(), is_tie, fields);
    out
}

/// A line as a server reads it: tags, fields and the time, in a row of [`COLUMNS`].
fn row_of(line: &str) -> (u64, Vec<Json>) {
    let mut parts = vec![String::new()];
    let mut is_quoted = false;
    let mut chars = line.trim_end_matches('\n').chars();
    while let Some(c) = chars.next() {
        let last = parts.last_mut().unwrap();
        match c {
            '\\' => {
                last.push(c);
                last.extend(chars.next());
            }
            '"' => {
                is_quoted = !is_quoted;
                last.push(c);
            }
            ' ' | ',' if !is_quoted => parts.push(String::new()),
            c => last.push(c),
        }
    }
    let nanos = parts.pop().unwrap().parse().unwrap();
    let mut row = vec![Json::Null; COLUMNS.len()];
    for part in &parts[1..] {
        let (name, value) = part.split_once('=').unwrap();
        let Some(column) = COLUMNS.iter().position(|column| *column == name) else {
            continue;
        };
        row[column] = if let Some(text) = value.strip_prefix('"') {
            let mut text = text.strip_suffix('"').unwrap().chars();
            let mut plain = String::new();
            while let Some(c) = text.next() {
                plain.extend(if c == '\\' { text.next() } else { Some(c) });
            }
            Json::String(plain)
        } else if let Some(number) = value.strip_suffix('i') {
            Json::from(number.parse::<i64>().unwrap())
        } else if value == "true" || value == "false" {
            Json::Bool(value == "true")
        } else {
            Json::from(value)
        };
    }
    (nanos, row)
}

#[track_caller]
fn check(record: &Record) {
    for (is_tie, fields) in [(false, Fields::Stock), (true, Fields::Typed)] {
        let line = line_of(record, is_tie, fields);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let (nanos, row) = row_of(&line);
        let point = read("m", nanos, &row).unwrap().unwrap();
        assert_eq!(point.record, *record, "{line}");
        let rank = point.tags[2].parse().unwrap_or(0);
        assert_eq!(time::join(nanos, rank), Some(record.head.own.stamp.time));
    }
}

fn bytes(len: usize) -> impl Strategy<Value = Bytes> {
    let text = "[a\"\\\\,= \t\n\u{0}é]{0,12}".prop_map(Bytes::from);
    prop_oneof![
        text,
        proptest::collection::vec(any::<u8>(), 0..len).prop_map(Bytes::from)
    ]
}

proptest! {
    #[test]
    fn records_come_back(
        time in any::<u64>(),
        id in any::<[u8; 16]>(),
        value in proptest::option::of((
            any::<u16>(), proptest::option::of(bytes(200)), proptest::option::of(bytes(40)), bytes(300),
        )),
        folded in proptest::option::of(any::<u64>()),
        has_merged in any::<bool>(),
    ) {
        let stamp = Stamp { time, id };
        let value = value.map(|(id, schema, attachment, payload)| Value {
            encoding: Encoding { id, schema: schema.filter(|s| s.len() < 256) }, attachment, payload,
        });
        let own = value.as_ref().map_or(Version::delete(stamp), |value| Version::put(stamp, value.hash()));
        let merged = Merged { revision: 7, vector: Vector::of(stamp) };
        check(&Record::own(own, value.clone()));
        check(&Record {
            head: Head { own, folded: folded.map(|time| Version::put(Stamp { time, id }, 1)) },
            value,
            merged: has_merged.then(|| Box::new(merged)),
        });
    }
}

#[test]
fn a_point_looks_as_the_stock_backend_makes_it() {
    let mut id = [0; 16];
    id[0] = 0x1f;
    let stamp = Stamp {
        time: (7 << 32) + 1,
        id,
    };
    let value = Value {
        encoding: Encoding {
            id: 5,
            schema: Some(Bytes::from("s")),
        },
        attachment: None,
        payload: Bytes::from("{\"a\": 1}"),
    };
    let put = Record::own(Version::put(stamp, value.hash()), Some(value));
    let fields = "base64=false,encoding_prefix=5i,encoding_suffix=\"s\",timestamp=\"30064771073/1f\",value=\"{\\\"a\\\": 1}\"";
    let row =
        |tags: &str, more: &str| format!("m,id=1f,kind=PUT{tags} {fields}{more} 7000000001\n");
    assert_eq!(line_of(&put, false, Fields::Stock), row("", ""));
    assert_eq!(line_of(&put, false, Fields::Typed), row("", ",n.a=1"));
    let tie = format!(",tie={:016x}", put.head.own.hash);
    assert_eq!(line_of(&put, true, Fields::Stock), row(&tie, ""));
    let late = Stamp {
        time: (7 << 32) + 3,
        id,
    };
    assert_eq!(
        line_of(
            &Record::own(Version::delete(late), None),
            false,
            Fields::Typed
        ),
        "m,id=1f,kind=DEL,rank=2 base64=false,encoding_prefix=0i,encoding_suffix=\"\",\
         timestamp=\"30064771075/1f\",value=\"\" 7000000001\n"
    );
}

#[test]
fn what_the_stock_backend_wrote_is_read() {
    let row = |kind: &str, timestamp: &str, value: &str| {
        let mut row = vec![Json::Null; COLUMNS.len()];
        row[0] = Json::from(kind);
        row[1] = Json::from(timestamp);
        row[2] = Json::Bool(false);
        row[3] = Json::from(4);
        row[4] = Json::from("");
        row[5] = Json::from(value);
        row
    };
    let point = read("a", 7, &row("PUT", "30064771073/1f", "x"))
        .unwrap()
        .unwrap();
    let value = point.record.value.unwrap();
    assert_eq!(
        (&*value.payload, value.encoding.id, value.encoding.schema),
        (&b"x"[..], 4, None)
    );
    assert_eq!(point.record.head.own.stamp.time, 30_064_771_073);
    assert_eq!(point.record.head.own.stamp.id[0], 0x1f);
    let point = read("a", 7, &row("DEL", "30064771073/1f", ""))
        .unwrap()
        .unwrap();
    assert!(point.record.head.own.is_delete() && point.record.value.is_none());
    // Points of others are none of ours.
    for (kind, timestamp) in [("", "1/1"), ("PUT", ""), ("PUT", "today"), ("GET", "1/1")] {
        assert_eq!(read("a", 7, &row(kind, timestamp, "x")).unwrap(), None);
    }
    // A server that is still writing shows some of the fields.
    for column in 1..=5 {
        let mut row = row("PUT", "1/1", "x");
        row[column] = Json::Null;
        assert_eq!(read("a", 7, &row).unwrap(), None, "{column}");
    }
    let mut announced = row("PUT", "1/1", "x");
    announced[10] = Json::from("1");
    assert_eq!(read("a", 7, &announced).unwrap(), None);
    let mut moved = row("PUT", "1/1", "x");
    moved[7] = Json::from("1");
    assert!(read("a", 7, &moved).is_err());
    assert!(read("a", 1, &moved).unwrap().is_some());
    let mut bad = row("PUT", "1/1", "*");
    bad[2] = Json::Bool(true);
    assert!(read("a", 7, &bad).is_err());
}
