//! Keys to the names of measurements and back.
//!
//! A key is its own name, as the stock backend has it, and the root is `@@none_key@@`. What line
//! protocol cannot carry (control characters), what servers corrupt (backslashes) or skip (a line
//! that begins with `#` or a space), and what would be taken for one of these names, is written
//! `@@weir@@` and percent-encoded. So no two keys share a name.

use std::fmt::Write;

use weir_core::key::Key;

/// The name of the root, as the stock backend writes it.
const ROOT: &str = "@@none_key@@";
/// What a percent-encoded name begins with.
pub(crate) const ENCODED: &str = "@@weir@@";
/// Bytes of a name. A server takes 65,535 for a name and its tags, each comma and space twice.
const BYTES_MAX: usize = 30_000;

/// The name of a key; `None` if it is longer than a server takes.
pub(crate) fn of(key: &Key) -> Option<String> {
    let name = if key.is_empty() {
        ROOT.to_owned()
    } else if is_plain(key) {
        key.to_string()
    } else {
        encode(key)
    };
    (name.len() <= BYTES_MAX).then_some(name)
}

/// The key of a name. Every name has one: what nobody encoded is a key as it stands.
pub(crate) fn key_of(name: &str) -> Key {
    if name == ROOT {
        return Key::root();
    }
    // Only what `of` gives for a key is its encoding; anything else is somebody's own name.
    name.strip_prefix(ENCODED)
        .and_then(decode)
        .map(Key::new)
        .filter(|key| !key.is_empty() && !is_plain(key) && encode(key) == name)
        .unwrap_or_else(|| Key::from(name))
}

/// All names that a key may be found under: its own and, if that is encoded, the plain one that the
/// stock backend may have given it. Line protocol carries no control characters, and InfluxQL not all.
pub(crate) fn all_of(key: &Key) -> Vec<String> {
    let mut names: Vec<String> = of(key).into_iter().collect();
    if !key.contains(|c: char| c.is_ascii_control()) && !is_plain(key) && key_of(key) == *key {
        names.push(key.to_string());
    }
    names
}

/// Regular expressions (InfluxQL, without slashes) of the names of all keys that begin with
/// `prefix`, and of some others.
pub(crate) fn pattern(prefix: &str) -> String {
    if prefix.is_empty() {
        return String::new();
    }
    let literal = crate::text::literal;
    format!(
        "^({}|{}|{})",
        literal(prefix),
        literal(ENCODED),
        literal(ROOT)
    )
}

fn is_plain(key: &str) -> bool {
    let is_reserved = key == ROOT || key.starts_with(ENCODED) || key.starts_with(['#', ' ']);
    !is_reserved && !key.contains(|c: char| c.is_ascii_control() || c == '\\')
}

fn encode(key: &str) -> String {
    let mut name = String::from(ENCODED);
    for c in key.chars() {
        if c.is_ascii_control() || c == '\\' || c == '%' {
            let _ = write!(name, "%{:02X}", u32::from(c));
        } else {
            name.push(c);
        }
    }
    name
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_have_the_names_that_others_gave_them() {
        let rows = [
            ("", "@@none_key@@"),
            ("a/b", "a/b"),
            ("a b,c=\"d\"", "a b,c=\"d\""),
            ("100%/sure", "100%/sure"),
            ("@/router/x", "@/router/x"),
            ("a\\", "@@weir@@a%5C"),
            ("a\nb", "@@weir@@a%0Ab"),
            ("#a", "@@weir@@#a"),
            (" a%", "@@weir@@ a%25"),
            ("@@none_key@@", "@@weir@@@@none_key@@"),
            ("@@weir@@a", "@@weir@@@@weir@@a"),
        ];
        for (key, name) in rows {
            let key = Key::from(key);
            assert_eq!(of(&key).as_deref(), Some(name));
            assert_eq!(key_of(name), key);
        }
        assert_eq!(of(&Key::new("x".repeat(BYTES_MAX + 1))), None);
        // What looks encoded and is not, was written by somebody else.
        for name in [
            "@@weir@@",
            "@@weir@@a",
            "@@weir@@%",
            "@@weir@@%5c",
            "@@weir@@%ff",
        ] {
            assert_eq!(key_of(name), Key::from(name));
        }
    }

    #[test]
    fn a_key_is_looked_for_where_the_stock_backend_put_it() {
        let rows: [(&str, &[&str]); 5] = [
            ("a", &["a"]),
            ("", &["@@none_key@@"]),
            ("a\\", &["@@weir@@a%5C", "a\\"]),
            ("@@none_key@@", &["@@weir@@@@none_key@@"]),
            ("a\r", &["@@weir@@a%0D"]),
        ];
        for (key, names) in rows {
            assert_eq!(all_of(&Key::from(key)), names, "{key}");
        }
    }

    proptest! {
        #[test]
        fn names_are_exact(key in "[a%@/\\\\ #\n\u{0}é5C_]{0,8}|@@weir@@.{0,4}") {
            let key = Key::new(key);
            let name = of(&key).unwrap();
            prop_assert_eq!(key_of(&name), key);
            prop_assert!(!name.contains(|c: char| c.is_ascii_control() || c == '\\'));
        }

        #[test]
        fn every_name_has_its_key(name in "[a%@/\\\\5C]{1,6}|@@weir@@[a%5C\\\\]{0,6}") {
            let key = key_of(&name);
            prop_assert!(all_of(&key).contains(&name));
        }
    }
}
