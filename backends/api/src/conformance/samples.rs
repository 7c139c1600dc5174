//! Keys, versions and values that the tests work with.

use bytes::Bytes;
use weir_core::{
    change::Write,
    key::Key,
    record::Record,
    value::{Encoding, Value},
    version::{Stamp, Version},
};

/// A stamp at `time` by source `id`.
pub fn stamp(time: u64, id: u8) -> Stamp {
    let mut bytes = [0; 16];
    bytes[0] = id + 1;
    Stamp { time, id: bytes }
}

/// What a put of `payload` at `time` leaves.
pub fn put(time: u64, payload: impl Into<Bytes>) -> Record {
    put_value(time, Value::bytes(payload))
}

/// What a put of `value` at `time` leaves.
pub fn put_value(time: u64, value: Value) -> Record {
    Record::own(Version::put(stamp(time, 0), value.hash()), Some(value))
}

/// What a delete at `time` leaves.
pub fn tombstone(time: u64) -> Record {
    Record::own(Version::delete(stamp(time, 0)), None)
}

/// The write that sets what `key` holds.
pub fn latest<'a>(key: &'a Key, record: &'a Record) -> Write<'a> {
    Write::Latest {
        key,
        record: record.as_ref(),
    }
}

/// The write that adds a version to the history of `key`.
pub fn history<'a>(key: &'a Key, record: &'a Record) -> Write<'a> {
    Write::History {
        key,
        record: record.as_ref(),
    }
}

/// Keys that a careless backend loses, mixes up or refuses, in no order.
pub fn keys() -> Vec<Key> {
    let mut keys: Vec<Key> = [
        // The root, and keys that are prefixes of others with and without a chunk's end.
        "",
        "a",
        "a/b",
        "a/b/c",
        "a/b/c/d",
        "ab",
        "a-b",
        "a.b",
        "a b",
        "A",
        "a/B",
        // What file systems and shells mind.
        "a/.b",
        "a/...",
        "a/b.",
        "a/b ",
        " a/b",
        "a/ /b",
        "con",
        "a/nul.txt",
        "a/LPT1",
        "a/~",
        "a/-rf",
        "a/b.tmp",
        "a/.tmp",
        "a/.weir",
        "quote's/\"double\"/`back`/\\back\\slash",
        "<angle>|pipe|{brace}[bracket](paren);semi:colon,comma&and=is+plus^hat",
        "line\nbreak/tab\t/return\r",
        // What escapes itself.
        "%",
        "%25",
        "a%2Fb",
        "a%/b",
        "a%00b",
        "100%/sure",
        // What ordered form escapes, and bytes beside it.
        "\u{0}",
        "\u{1}",
        "\u{2}",
        "\u{3}",
        "a\u{0}b",
        "a\u{0}/b",
        "a\u{1}b",
        "a\u{1}/b",
        "a\u{2}b",
        "a\u{2}\u{1}",
        "a\u{7f}b",
        // Beyond ASCII: composed and decomposed differ, and so do cases without a lower form.
        "caf\u{e9}",
        "cafe\u{301}",
        "\u{130}/\u{df}",
        "서울/온도",
        "🚁/🛰️",
        "\u{10ffff}",
        "\u{fffd}",
        // Numbers sort as text.
        "n/10",
        "n/9",
        "n/010",
    ]
    .into_iter()
    .map(Key::from)
    .collect();
    // Chunks as long as a file name may be and longer, with one byte of difference at the end.
    for len in [200, 255, 256, 300, 1_000] {
        let chunk = "x".repeat(len - 1);
        keys.push(Key::new(format!("long/{chunk}a")));
        keys.push(Key::new(format!("long/{chunk}b")));
        keys.push(Key::new(format!("long/{chunk}a/under")));
        keys.push(Key::new(format!("wide/{}", "é".repeat(len))));
    }
    for len in [1 << 10, 4 << 10, 32 << 10] {
        let deep = "chunk/".repeat(len / 6);
        keys.push(Key::new(format!("{deep}a")));
        keys.push(Key::new(format!("{deep}b")));
    }
    keys
}

/// Values that a careless backend changes.
pub fn values() -> Vec<Value> {
    let encoding = |id, schema: Option<&[u8]>| Encoding {
        id,
        schema: schema.map(Bytes::copy_from_slice),
    };
    let value = |encoding, attachment: Option<&[u8]>, payload: &[u8]| Value {
        encoding,
        attachment: attachment.map(Bytes::copy_from_slice),
        payload: Bytes::copy_from_slice(payload),
    };
    let every_byte: Vec<u8> = (0..=255).collect();
    let mebibyte: Vec<u8> = (0u32..1 << 18).flat_map(u32::to_be_bytes).collect();
    vec![
        value(encoding(0, None), None, b""),
        value(encoding(0, None), None, b"\0"),
        value(encoding(0, None), None, b"line\r\nline\n"),
        value(encoding(0, None), None, &every_byte),
        value(encoding(0, None), None, &mebibyte),
        // An empty attachment is not none, and an empty schema is not none.
        value(encoding(0, None), Some(b""), b"x"),
        value(encoding(0, None), Some(b"meta"), b"x"),
        value(encoding(0, Some(b"")), None, b"x"),
        value(encoding(10, Some(b"schema")), None, b"x"),
        value(encoding(10, Some(&every_byte[..255])), Some(b""), b""),
        value(encoding(u16::MAX, None), Some(&every_byte), &every_byte),
        value(encoding(7, Some(b"s")), Some(&mebibyte), b""),
    ]
}
