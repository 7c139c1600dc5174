//! Numbers, booleans and texts of JSON payloads as fields of their own, so that they can be plotted.
//!
//! A field's name begins with its type (`n.`, `b.`, `s.`), so that a member that is a number today
//! and a text tomorrow is two fields and no conflict, and no member can be called as another field.
//! The original value stands beside them; they are never read back.

use std::fmt::Write;

use serde_json::Value as Json;

use crate::text;

/// Fields of one point; the rest of a larger object is in its value alone.
const FIELDS_MAX: usize = 64;
/// Objects inside objects that are looked into.
const DEPTH_MAX: usize = 4;
/// Bytes of a field's name, and of a text that becomes a field.
const NAME_BYTES_MAX: usize = 128;
const TEXT_BYTES_MAX: usize = 1_024;

/// Writes `,NAME=VALUE` for a number (`n`) and for each member of a JSON object (`n.speed`,
/// `n.pose.x`, `b.armed`, `s.mode`). Writes nothing for anything else.
pub(crate) fn write(out: &mut String, payload: &str) {
    // Text that can be neither is not parsed.
    if !payload
        .trim_start()
        .starts_with(|c: char| c == '{' || c == '-' || c.is_ascii_digit())
    {
        return;
    }
    match serde_json::from_str(payload) {
        Ok(Json::Number(number)) => {
            if let Some(number) = number.as_f64() {
                let _ = write!(out, ",n={number}");
            }
        }
        Ok(object @ Json::Object(_)) => {
            let mut left = FIELDS_MAX;
            members(out, "", &object, DEPTH_MAX, &mut left);
        }
        // Whatever else it is, it stands in the value.
        Ok(_) | Err(_) => {}
    }
}

fn members(out: &mut String, path: &str, object: &Json, depth: usize, left: &mut usize) {
    for (name, member) in object.as_object().into_iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let is_name = !path.is_empty()
            && path.len() <= NAME_BYTES_MAX
            && !path.contains(|c: char| c.is_ascii_control() || c == '\\');
        if !is_name || *left == 0 {
            continue;
        }
        let mut field = |kind: &str| {
            *left -= 1;
            out.push(',');
            text::field_name(out, &format!("{kind}.{path}"));
            out.push('=');
        };
        match member {
            Json::Number(number) => {
                // Always a float: an integer that becomes a fraction would be a conflict.
                if let Some(number) = number.as_f64() {
                    field("n");
                    let _ = write!(out, "{number}");
                }
            }
            Json::Bool(is) => {
                field("b");
                let _ = write!(out, "{is}");
            }
            Json::String(value)
                if value.len() <= TEXT_BYTES_MAX
                    && !value.contains(|c: char| c.is_ascii_control()) =>
            {
                field("s");
                text::string_field(out, value);
            }
            Json::Object(_) if depth > 1 => members(out, &path, member, depth - 1, left),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_objects_become_fields() {
        let rows = [
            ("21.5", ",n=21.5"),
            ("-3", ",n=-3"),
            ("1e400", ""),
            ("warm", ""),
            ("12 degrees", ""),
            ("[1]", ""),
            ("\"x\"", ""),
            ("{}", ""),
            ("{\"v\": 3, \"ok\": true}", ",b.ok=true,n.v=3"),
            (
                "{\"a b\": {\"x,y\": 1}, \"m\": \"say \\\"hi\\\"\"}",
                ",n.a\\ b.x\\,y=1,s.m=\"say \\\"hi\\\"\"",
            ),
            (
                "{\"a\\\\\": 1, \"\": 2, \"n\\n\": 3, \"l\": [1], \"z\": null}",
                "",
            ),
            (
                "{\"a\":{\"b\":{\"c\":{\"d\":1,\"e\":{\"f\":1}}}}}",
                ",n.a.b.c.d=1",
            ),
        ];
        for (payload, fields) in rows {
            let mut out = String::new();
            write(&mut out, payload);
            // Members come in no promised order.
            let sorted = |text: &str| {
                let mut parts: Vec<String> = text.split(',').map(str::to_owned).collect();
                parts.sort();
                parts
            };
            assert_eq!(sorted(&out), sorted(fields), "{payload}");
        }
    }

    #[test]
    fn a_large_object_is_cut() {
        let members: Vec<String> = (0..1_000).map(|n| format!("\"k{n}\": {n}")).collect();
        let mut out = String::new();
        write(&mut out, &format!("{{{}}}", members.join(",")));
        assert_eq!(out.matches(",n.k").count(), FIELDS_MAX);
    }
}
