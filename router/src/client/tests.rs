//! Rows for what the commands share.

use super::*;

#[test]
fn a_wrong_key_expression_is_told_with_what_to_write() {
    let rows = [
        ("demo/a", None),
        ("demo/**", None),
        ("demo/a$*/*", None),
        ("", Some("it is empty")),
        ("/demo", Some("neither starts nor ends")),
        ("demo/", Some("neither starts nor ends")),
        ("demo//a", Some("cannot be empty")),
        ("demo/**/**", Some("write `demo/**`")),
        ("demo/a?x=1", Some("cannot be part of a key")),
        ("demo/a$b", Some("only legal in `$*`")),
        ("demo/a*", Some("is no key expression")),
    ];
    for (text, expected) in rows {
        let refused = check_key_expr(text).err().map(|error| format!("{error:#}"));
        match (&refused, expected) {
            (None, None) => {}
            (Some(refused), Some(part)) => assert!(refused.contains(part), "{text}: {refused}"),
            _ => panic!("{text}: {refused:?} is not {expected:?}"),
        }
    }
}

#[test]
fn a_duration_is_a_number_of_seconds_or_has_units() {
    let rows = [
        ("3", Ok(3_000)),
        ("0.5", Ok(500)),
        ("10s", Ok(10_000)),
        ("500ms", Ok(500)),
        ("1m 30s", Ok(90_000)),
        ("soon", Err(())),
        ("-1", Err(())),
        ("", Err(())),
    ];
    for (text, millis) in rows {
        let expected = millis.map(Duration::from_millis);
        assert_eq!(parse_duration(text).map_err(|_| ()), expected, "{text}");
    }
}
