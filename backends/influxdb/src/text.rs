//! The languages that are sent to the server, one escaping function for each place in them. Nothing
//! else in this crate puts text that it was given into a line or a query.

use std::fmt::Write;

/// A measurement's name in line protocol. The name must be one that [`crate::name`] makes: without
/// control characters and backslashes.
pub(crate) fn measurement(out: &mut String, name: &str) {
    escaped(out, name, &[',', ' ']);
}

/// A tag's value in line protocol; under the same condition.
pub(crate) fn tag(out: &mut String, value: &str) {
    escaped(out, value, &[',', ' ', '=']);
}

/// A field's name in line protocol; under the same condition.
pub(crate) fn field_name(out: &mut String, name: &str) {
    escaped(out, name, &[',', ' ', '=']);
}

/// A string field's value in line protocol, with its quotes.
pub(crate) fn string_field(out: &mut String, value: &str) {
    out.push('"');
    escaped(out, value, &['"', '\\']);
    out.push('"');
}

/// An identifier of InfluxQL, with its quotes.
pub(crate) fn identifier(name: &str) -> String {
    quoted(name, '"')
}

/// A string of InfluxQL, with its quotes.
pub(crate) fn string(value: &str) -> String {
    quoted(value, '\'')
}

/// A piece of a regular expression of InfluxQL, without its slashes, that matches `text` alone.
pub(crate) fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || !c.is_ascii() {
            out.push(c);
        } else {
            // A number cannot be taken for a metacharacter, a delimiter or the end of a line.
            let _ = write!(out, "\\x{:02X}", u32::from(c));
        }
    }
    out
}

/// A part of a URL's query or of a form.
pub(crate) fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn escaped(out: &mut String, text: &str, special: &[char]) {
    for c in text.chars() {
        if special.contains(&c) {
            out.push('\\');
        }
        out.push(c);
    }
}

fn quoted(text: &str, quote: char) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(escape: impl Fn(&mut String, &str), rows: &[(&str, &str)]) {
        for (text, expected) in rows {
            let mut out = String::new();
            escape(&mut out, text);
            assert_eq!(out, *expected, "{text}");
        }
    }

    #[test]
    fn line_protocol_cannot_be_left() {
        check(
            measurement,
            &[
                ("a/b", "a/b"),
                ("a b,c=d", "a\\ b\\,c=d"),
                ("quote's/\"x\"", "quote's/\"x\""),
                ("서울/온도", "서울/온도"),
            ],
        );
        let rows = [("a b,c=d", "a\\ b\\,c\\=d"), ("\"", "\"")];
        check(tag, &rows);
        check(field_name, &rows);
        check(
            string_field,
            &[
                ("", "\"\""),
                ("a\" b=1,c", "\"a\\\" b=1,c\""),
                ("ends in \\", "\"ends in \\\\\""),
                ("\\\"", "\"\\\\\\\"\""),
            ],
        );
    }

    #[test]
    fn queries_cannot_be_left() {
        let rows = [
            ("a", "\"a\"", "'a'"),
            (
                "x\"; DROP DATABASE y --",
                "\"x\\\"; DROP DATABASE y --\"",
                "'x\"; DROP DATABASE y --'",
            ),
            ("it's", "\"it's\"", "'it\\'s'"),
            ("a\\", "\"a\\\\\"", "'a\\\\'"),
            ("\\\"", "\"\\\\\\\"\"", "'\\\\\"'"),
            ("line\nbreak", "\"line\\nbreak\"", "'line\\nbreak'"),
        ];
        for (text, as_identifier, as_string) in rows {
            assert_eq!(identifier(text), as_identifier);
            assert_eq!(string(text), as_string);
        }
        let rows = [
            ("a/b", "a\\x2Fb"),
            (".*", "\\x2E\\x2A"),
            ("a\\", "a\\x5C"),
            ("\n", "\\x0A"),
            ("é", "é"),
        ];
        for (text, expected) in rows {
            assert_eq!(literal(text), expected);
        }
    }

    #[test]
    fn urls_hold_unreserved_characters_alone() {
        assert_eq!(percent("a b&c=é/~"), "a%20b%26c%3D%C3%A9%2F~");
    }
}
