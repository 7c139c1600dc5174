//! How samples are printed: as bytes, as a JSON object a line, as a table.

use std::borrow::Cow;
use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::ValueEnum;
use serde_json::json;
use zenoh::sample::{Sample, SampleKind};
use zenoh::time::Timestamp;

use super::table::{Table, printable};
use super::timestamp::{exact, rfc3339};

/// Characters of a value, and of a key, that a table shows.
const VALUE_CHARS_MAX: usize = 48;
const KEY_CHARS_MAX: usize = 120;
const ENCODING_CHARS_MAX: usize = 40;

/// What a command prints for each sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The payload, byte by byte, and nothing else
    Raw,
    /// One JSON object a line: key, kind, value (or base64), encoding, timestamp, source
    Json,
    /// Columns: key, value (cut), encoding, time, source
    Table,
}

impl Format {
    /// The format to use when none was asked for: a table for a person, JSON for a program.
    pub fn or_default(given: Option<Self>, out_is_terminal: bool) -> Self {
        given.unwrap_or(if out_is_terminal {
            Self::Table
        } else {
            Self::Json
        })
    }
}

/// A sample as it is printed.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// Key.
    pub key: &'a str,
    /// Put or delete.
    pub kind: SampleKind,
    /// Payload; empty for a delete.
    pub payload: Cow<'a, [u8]>,
    /// Encoding as Zenoh writes it, such as `application/json`.
    pub encoding: String,
    /// Timestamp, when the sample has one.
    pub timestamp: Option<Timestamp>,
    /// Zenoh id of who answered, where that is known.
    pub source: Option<String>,
    /// Attachment.
    pub attachment: Option<Cow<'a, [u8]>>,
}

impl<'a> Row<'a> {
    /// The row of a sample that `source` sent.
    pub fn new(sample: &'a Sample, source: Option<String>) -> Self {
        Self {
            key: sample.key_expr().as_str(),
            kind: sample.kind(),
            payload: sample.payload().to_bytes(),
            encoding: sample.encoding().to_string(),
            timestamp: sample.timestamp().copied(),
            source,
            attachment: sample.attachment().map(|attachment| attachment.to_bytes()),
        }
    }
}

/// Prints samples in one format.
#[derive(Debug)]
pub struct Printer {
    format: Format,
    table: Table<5>,
    /// Ends a raw payload with a line break, for a terminal.
    break_raw: bool,
}

impl Printer {
    /// For the answers of a query: all rows of it within moments.
    pub fn for_replies(format: Format, out_is_terminal: bool) -> Self {
        let table = Table::held(["KEY", "VALUE", "ENCODING", "TIME", "SOURCE"]);
        Self {
            format,
            table,
            break_raw: out_is_terminal,
        }
    }

    /// For samples that come when they come.
    pub fn for_stream(format: Format, out_is_terminal: bool) -> Self {
        let table = Table::immediate(["KEY", "VALUE", "ENCODING", "TIME", "SOURCE"]);
        Self {
            format,
            table,
            break_raw: out_is_terminal,
        }
    }

    /// Prints one sample. The table may hold it back until [`Printer::finish`].
    pub fn print(&mut self, row: &Row<'_>, out: &mut dyn Write) -> io::Result<()> {
        match self.format {
            Format::Raw => {
                out.write_all(&row.payload)?;
                if self.break_raw {
                    out.write_all(b"\n")
                } else {
                    Ok(())
                }
            }
            Format::Json => writeln!(out, "{}", json_line(row)),
            Format::Table => self.table.row(cells(row), out),
        }
    }

    /// Prints what is held back.
    pub fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.table.finish(out)?;
        out.flush()
    }
}

fn cells(row: &Row<'_>) -> [String; 5] {
    let value = match (row.kind, std::str::from_utf8(&row.payload)) {
        (SampleKind::Delete, _) => "(deleted)".to_owned(),
        (SampleKind::Put, Ok(text)) => printable(text, VALUE_CHARS_MAX),
        (SampleKind::Put, Err(_)) => format!("({} bytes)", row.payload.len()),
    };
    [
        printable(row.key, KEY_CHARS_MAX),
        value,
        printable(&row.encoding, ENCODING_CHARS_MAX),
        row.timestamp
            .as_ref()
            .map_or_else(|| "-".to_owned(), rfc3339),
        row.source.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

/// The object is put together by hand, for two reasons: its fields keep the order in which a
/// person reads them, and a JSON value goes in as it was put (parsing it would sort its fields and
/// round its numbers).
fn json_line(row: &Row<'_>) -> String {
    let mut line = format!(r#"{{"key":{},"kind":"#, json!(row.key));
    line.push_str(match row.kind {
        SampleKind::Put => r#""put""#,
        SampleKind::Delete => r#""delete""#,
    });
    if row.kind == SampleKind::Put {
        push_bytes(
            &mut line,
            "value",
            "base64",
            &row.payload,
            is_json(&row.encoding),
        );
        line.push_str(&format!(r#","encoding":{}"#, json!(row.encoding)));
    }
    if let Some(timestamp) = &row.timestamp {
        let (exact, time) = (exact(timestamp), rfc3339(timestamp));
        line.push_str(&format!(
            r#","timestamp":{},"time":{}"#,
            json!(exact),
            json!(time)
        ));
    }
    if let Some(source) = &row.source {
        line.push_str(&format!(r#","source":{}"#, json!(source)));
    }
    if let Some(attachment) = &row.attachment {
        push_bytes(
            &mut line,
            "attachment",
            "attachment_base64",
            attachment,
            false,
        );
    }
    line.push('}');
    line
}

/// Adds a field that is JSON, text or bytes; bytes that are no text go under another name.
fn push_bytes(line: &mut String, name: &str, binary_name: &str, bytes: &[u8], as_json: bool) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        line.push_str(&format!(r#","{binary_name}":"{}""#, BASE64.encode(bytes)));
        return;
    };
    if as_json && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        // A line break in JSON is only ever space between tokens.
        line.push_str(&format!(
            r#","{name}":{}"#,
            text.trim().replace(['\n', '\r'], " ")
        ));
    } else {
        line.push_str(&format!(r#","{name}":{}"#, json!(text)));
    }
}

/// `application/json`, `text/json`, `application/geo+json;crs84`.
fn is_json(encoding: &str) -> bool {
    let media_type = encoding.split(';').next().unwrap_or(encoding);
    media_type.ends_with("/json") || media_type.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(payload: &'static [u8], encoding: &str) -> Row<'static> {
        Row {
            key: "demo/a",
            kind: SampleKind::Put,
            payload: Cow::Borrowed(payload),
            encoding: encoding.to_owned(),
            timestamp: None,
            source: None,
            attachment: None,
        }
    }

    fn printed(format: Format, rows: &[Row<'_>]) -> String {
        let mut printer = Printer::for_replies(format, false);
        let mut out = Vec::new();
        for row in rows {
            printer.print(row, &mut out).unwrap();
        }
        printer.finish(&mut out).unwrap();
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn json_keeps_a_json_value_as_it_was_put() {
        let check = |payload, encoding, expected: &str| {
            let line = printed(Format::Json, &[row(payload, encoding)]);
            let expected = format!(
                "{{\"key\":\"demo/a\",\"kind\":\"put\",{expected},\"encoding\":\"{encoding}\"}}\n"
            );
            assert_eq!(line, expected);
            serde_json::from_str::<serde_json::Value>(&line).unwrap();
        };
        let exact = "\"value\":{\"b\":0.10, \"a\":123456789012345678901234567890}";
        check(
            b"{\"b\":0.10,\n\"a\":123456789012345678901234567890}\n",
            "application/json",
            exact,
        );
        check(b"[1]", "application/geo+json;crs84", "\"value\":[1]");
        // What says that it is JSON and is not, is text.
        check(b"{oops", "application/json", "\"value\":\"{oops\"");
        // What does not say so is text too.
        check(b"[1]", "text/plain", "\"value\":\"[1]\"");
        check(b"25\n", "zenoh/bytes", "\"value\":\"25\\n\"");
        check(b"", "application/json", "\"value\":\"\"");
        check(b"\xff\x00", "zenoh/bytes", "\"base64\":\"/wA=\"");
    }

    #[test]
    fn json_tells_the_rest() {
        let full = Row {
            timestamp: Some("4294967296/33".parse().unwrap()),
            source: Some("ab12".to_owned()),
            attachment: Some(Cow::Borrowed(b"note")),
            ..row(b"x", "text/plain")
        };
        let delete = Row {
            kind: SampleKind::Delete,
            payload: Cow::Borrowed(b""),
            ..full.clone()
        };
        let rest = r#""timestamp":"4294967296/33","time":"1970-01-01T00:00:01.000000000Z","source":"ab12","attachment":"note"}"#;
        let put = r#"{"key":"demo/a","kind":"put","value":"x","encoding":"text/plain","#;
        let deleted = r#"{"key":"demo/a","kind":"delete","#;
        let expected = format!("{put}{rest}\n{deleted}{rest}\n");
        assert_eq!(printed(Format::Json, &[full, delete]), expected);
    }

    #[test]
    fn raw_is_the_payload_and_nothing_else() {
        let rows = [row(b"a\n", "text/plain"), row(b"\x00b", "zenoh/bytes")];
        assert_eq!(printed(Format::Raw, &rows), "a\n\0b");
        let mut out = Vec::new();
        Printer::for_replies(Format::Raw, true)
            .print(&rows[0], &mut out)
            .unwrap();
        assert_eq!(out, b"a\n\n");
    }

    #[test]
    fn table_shows_a_value_on_one_line() {
        let rows = [
            row(b"two\nlines", "text/plain"),
            row(b"\xff\xfe\xfd", "zenoh/bytes"),
            Row {
                kind: SampleKind::Delete,
                ..row(b"", "zenoh/bytes")
            },
            Row {
                timestamp: Some("4294967296/33".parse().unwrap()),
                source: Some("ab".to_owned()),
                ..row(b"7", "text/plain")
            },
        ];
        let expected = "\
KEY     VALUE       ENCODING     TIME                            SOURCE
demo/a  two\\nlines  text/plain   -                               -
demo/a  (3 bytes)   zenoh/bytes  -                               -
demo/a  (deleted)   zenoh/bytes  -                               -
demo/a  7           text/plain   1970-01-01T00:00:01.000000000Z  ab
";
        assert_eq!(printed(Format::Table, &rows), expected);
    }

    #[test]
    fn a_person_gets_a_table_and_a_program_json() {
        assert_eq!(Format::or_default(None, true), Format::Table);
        assert_eq!(Format::or_default(None, false), Format::Json);
        assert_eq!(Format::or_default(Some(Format::Raw), true), Format::Raw);
    }
}
