//! Payloads, times and encodings as people write them in cases and recordings; `policies/README.md`
//! describes the forms.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde_json::{Value as Json, json};
use weir_core::version::Stamp;

/// Encodings that are named in cases besides those that files have.
const ENCODINGS: [(&str, u16); 4] = [
    ("zenoh/bytes", 0),
    ("zenoh/string", 1),
    ("zenoh/serialized", 2),
    ("application/cdr", 7),
];

/// Digits of a fraction of a second: as many as tell 2^-32 s apart, and a few.
const FRACTION_DIGITS: usize = 12;

/// Seconds from 0000-03-01 to 1970-01-01 are this many days.
const DAYS_TO_EPOCH: u64 = 719_468;

/// Reads `"text"`, `{"json": ...}` (compact, fields in order) or `{"base64": "..."}`.
///
/// # Errors
/// A sentence that says how payloads are written.
pub fn payload(written: &Json) -> Result<Bytes, String> {
    let wrong = || {
        format!("{written} is no payload: write a text, {{\"json\": ...}} or {{\"base64\": ...}}")
    };
    match written {
        Json::String(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        Json::Object(fields) if fields.len() == 1 => {
            match (fields.get("json"), fields.get("base64")) {
                (Some(value), None) => Ok(compact(value).into()),
                (None, Some(Json::String(text))) => BASE64_STANDARD
                    .decode(text)
                    .map(Bytes::from)
                    .map_err(|error| format!("base64 `{text}`: {error}")),
                _ => Err(wrong()),
            }
        }
        _ => Err(wrong()),
    }
}

/// The inverse of [`payload`]: text where it is text.
#[must_use]
pub fn payload_json(payload: &[u8]) -> Json {
    match std::str::from_utf8(payload) {
        Ok(text) => json!(text),
        Err(_) => json!({ "base64": BASE64_STANDARD.encode(payload) }),
    }
}

/// Reads Zenoh's number of an encoding, or its name.
///
/// # Errors
/// A sentence that says how encodings are written.
pub fn encoding(written: &Json) -> Result<u16, String> {
    use weir_core::value::Encoding;
    let number = match written {
        Json::String(name) => {
            let named = ENCODINGS.iter().find(|row| row.0 == name).map(|row| row.1);
            let media_type = Encoding::of_media_type(name);
            named.or((media_type.schema.is_none()).then_some(media_type.id))
        }
        _ => written.as_u64().and_then(|number| number.try_into().ok()),
    };
    number.ok_or_else(|| {
        format!("{written} is no encoding: write Zenoh's number of it, or a name such as \"application/json\"")
    })
}

/// Reads `TIME` or `TIME/ID`; the id is hexadecimal as Zenoh prints it, 1 if none is written.
///
/// # Errors
/// A sentence that says how timestamps are written.
pub fn stamp(written: &Json) -> Result<Stamp, String> {
    let (instant, id) = match written.as_str().and_then(|text| text.split_once('/')) {
        Some((instant, id)) => (time_of_text(instant, written)?, id),
        None => (time(written)?, "1"),
    };
    let number = u128::from_str_radix(id, 16).map_err(|_| format!("`{id}` is no clock id"))?;
    Ok(Stamp {
        time: instant,
        id: number.to_le_bytes(),
    })
}

/// The inverse of [`stamp`], without loss.
#[must_use]
pub fn stamp_text(stamp: Stamp) -> String {
    let id = u128::from_le_bytes(stamp.id);
    format!("{}/{id:x}", time_text(stamp.time))
}

/// Reads seconds since the Unix epoch (a number, or its text) or `2024-05-01T12:00:00.5Z`, as NTP64.
///
/// # Errors
/// A sentence that says how times are written.
pub fn time(written: &Json) -> Result<u64, String> {
    match written {
        Json::Number(number) => time_of_text(&number.to_string(), written),
        Json::String(text) => time_of_text(text, written),
        _ => Err(no_time(written)),
    }
}

/// The inverse of [`time`]: a number where that is exact.
#[must_use]
pub fn time_json(ntp64: u64) -> Json {
    match ntp64 & 0xffff_ffff {
        0 => json!(ntp64 >> 32),
        _ => json!(time_text(ntp64)),
    }
}

/// Seconds, with as many digits as it takes.
fn time_text(ntp64: u64) -> String {
    let (seconds, below) = (ntp64 >> 32, ntp64 & 0xffff_ffff);
    if below == 0 {
        return seconds.to_string();
    }
    // Twelve digits, the last few of which no two neighbouring fractions share.
    let digits = (u128::from(below) * 10u128.pow(12)) >> 32;
    let text = format!("{seconds}.{digits:0FRACTION_DIGITS$}");
    text.trim_end_matches('0').to_owned()
}

fn time_of_text(text: &str, written: &Json) -> Result<u64, String> {
    let number = |text: &str| text.parse::<u64>().ok();
    let (text, is_calendar) = match text.strip_suffix('Z') {
        Some(text) => (text, true),
        None => (text, false),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds = if is_calendar {
        calendar(whole)
    } else {
        number(whole)
    };
    let seconds = seconds.filter(|seconds| *seconds < 1 << 32);
    let below = match fraction.len() {
        0 => Some(0),
        1..=FRACTION_DIGITS => number(fraction),
        _ => None,
    };
    let (Some(seconds), Some(below)) = (seconds, below) else {
        return Err(no_time(written));
    };
    let scale = (0..fraction.len()).fold(1u128, |scale, _| scale * 10);
    // Rounded up, so that what `time_text` cuts off comes back as it was.
    let below = (u128::from(below) << 32).div_ceil(scale);
    u64::try_from(below)
        .map(|below| (seconds << 32).saturating_add(below))
        .map_err(|_| no_time(written))
}

fn no_time(written: &Json) -> String {
    format!("{written} is no time: write seconds since 1970, or 2024-05-01T12:00:00Z")
}

/// Seconds of `2024-05-01T12:00:00`.
///
/// Source of the day count: Hinnant, "chrono-compatible low-level date algorithms".
fn calendar(text: &str) -> Option<u64> {
    let (date, clock) = text.split_once('T')?;
    let three = |text: &str, separator| {
        let parts: Option<Vec<u64>> = text
            .split(separator)
            .map(|part| part.parse().ok())
            .collect();
        <[u64; 3]>::try_from(parts?).ok()
    };
    let [year, month, day] = three(date, '-')?;
    let [hour, minute, second] = three(clock, ':')?;
    let is_date =
        (1970..2106).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_date || hour >= 24 || minute >= 60 || second >= 60 {
        return None;
    }
    // The year begins in March, so that the leap day is its last.
    let (year, month) = match month {
        3.. => (year, month - 3),
        _ => (year - 1, month + 9),
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    let days = year * 365 + leap_days + (153 * month + 2) / 5 + day - 1;
    Some((days - DAYS_TO_EPOCH) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// JSON without a space, the fields in the order of their names: the same bytes however it was written.
#[must_use]
pub fn compact(json: &Json) -> String {
    match json {
        Json::Array(items) => {
            let items: Vec<String> = items.iter().map(compact).collect();
            format!("[{}]", items.join(","))
        }
        Json::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            let field =
                |(name, value): (&String, &Json)| format!("{}:{}", json!(name), compact(value));
            let fields: Vec<String> = fields.into_iter().map(field).collect();
            format!("{{{}}}", fields.join(","))
        }
        leaf => leaf.to_string(),
    }
}

/// JSON on one line as people write it: `{ "lane": 2 }`.
#[must_use]
pub fn line(json: &Json) -> String {
    match json {
        Json::Array(items) => {
            let items: Vec<String> = items.iter().map(line).collect();
            format!("[{}]", items.join(", "))
        }
        Json::Object(fields) if fields.is_empty() => "{}".to_owned(),
        Json::Object(fields) => {
            let field =
                |(name, value): (&String, &Json)| format!("{}: {}", json!(name), line(value));
            let fields: Vec<String> = fields.iter().map(field).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        leaf => leaf.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_seconds_or_a_date() {
        let rows = [
            (json!("1970-01-01T00:00:00Z"), Some(0)),
            (json!("2024-02-29T12:00:00Z"), Some(1_709_208_000 << 32)),
            (
                json!("2024-03-01T00:00:00.5Z"),
                Some((1_709_251_200 << 32) + (1 << 31)),
            ),
            (json!(2.25), Some((2 << 32) + (1 << 30))),
            (json!("2.25"), Some((2 << 32) + (1 << 30))),
            (json!("4294967296"), None),
            (json!("2106-01-01T00:00:00Z"), None),
            (json!("2024-13-01T00:00:00Z"), None),
            (json!("noon"), None),
            (json!(-1), None),
            (json!("1.0000000000000"), None),
            (json!(null), None),
        ];
        for (written, expected) in rows {
            assert_eq!(time(&written).ok(), expected, "{written}");
        }
    }

    #[test]
    fn payloads_are_text_json_or_base64() {
        let rows = [
            (json!("text"), Some(&b"text"[..])),
            (
                json!({ "json": { "b": [1, 2.5], "a": { "d": null, "c": "x" } } }),
                Some(br#"{"a":{"c":"x","d":null},"b":[1,2.5]}"#),
            ),
            (json!({ "base64": "/wA=" }), Some(b"\xff\x00")),
            (json!({ "base64": "?" }), None),
            (json!({ "json": 1, "base64": "" }), None),
            (json!({ "hex": "00" }), None),
            (json!(1), None),
        ];
        for (written, expected) in rows {
            assert_eq!(payload(&written).ok().as_deref(), expected, "{written}");
        }
    }

    #[test]
    fn encodings_have_numbers_and_names() {
        let rows = [
            (json!(5), Some(5)),
            (json!("application/json"), Some(5)),
            (json!("zenoh/bytes"), Some(0)),
            (json!("application/unheard-of"), None),
            (json!(70_000), None),
        ];
        for (written, expected) in rows {
            assert_eq!(encoding(&written).ok(), expected, "{written}");
        }
    }

    #[test]
    fn an_id_is_as_zenoh_prints_it() {
        let stamp = stamp(&json!("12.5/1234")).unwrap();
        let zenoh = stamp.to_uhlc().unwrap();
        assert_eq!(
            (stamp.time, zenoh.get_id().to_string()),
            ((12 << 32) + (1 << 31), "1234".into())
        );
    }

    proptest! {
        #[test]
        fn a_stamp_comes_back_as_it_was(time: u64, id: u128) {
            let given = Stamp { time, id: id.to_le_bytes() };
            prop_assert_eq!(stamp(&json!(stamp_text(given))), Ok(given));
            prop_assert_eq!(super::time(&time_json(time)), Ok(time));
        }

        #[test]
        fn a_payload_comes_back_as_it_was(bytes: Vec<u8>) {
            prop_assert_eq!(payload(&payload_json(&bytes)), Ok(Bytes::from(bytes)));
        }
    }
}
