//! Payloads, times and encodings as cases write them.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value as Json, json};

use crate::Hlc;

/// Zenoh's numbers of the encodings that cases name most.
const ENCODINGS: [(&str, u16); 9] = [
    ("zenoh/bytes", 0),
    ("zenoh/string", 1),
    ("zenoh/serialized", 2),
    ("application/octet-stream", 3),
    ("text/plain", 4),
    ("application/json", 5),
    ("text/json", 6),
    ("application/cdr", 7),
    ("application/cbor", 8),
];

/// `"text"`, `{"json": ...}` (compact, fields in order) or `{"base64": "..."}`.
pub fn payload(written: &Json) -> Result<Vec<u8>, String> {
    let wrong = || {
        format!("{written} is no payload: write a text, {{\"json\": ...}} or {{\"base64\": ...}}")
    };
    match written {
        Json::String(text) => Ok(text.clone().into_bytes()),
        Json::Object(fields) if fields.len() == 1 => {
            match (fields.get("json"), fields.get("base64")) {
                (Some(value), None) => Ok(value.to_string().into_bytes()),
                (None, Some(Json::String(text))) => BASE64_STANDARD
                    .decode(text)
                    .map_err(|error| format!("base64 `{text}`: {error}")),
                _ => Err(wrong()),
            }
        }
        _ => Err(wrong()),
    }
}

pub fn payload_json(payload: &[u8]) -> Json {
    match std::str::from_utf8(payload) {
        Ok(text) => json!(text),
        Err(_) => json!({ "base64": BASE64_STANDARD.encode(payload) }),
    }
}

/// A number, or one of the names above.
pub fn encoding(written: &Json) -> Result<u16, String> {
    let number = match written {
        Json::String(name) => ENCODINGS.iter().find(|row| row.0 == name).map(|row| row.1),
        _ => written.as_u64().and_then(|number| number.try_into().ok()),
    };
    number.ok_or_else(|| {
        format!(
            "{written} is no encoding: write its number, or one of {:?}",
            ENCODINGS.map(|row| row.0)
        )
    })
}

/// `TIME` or `TIME/ID`; the id is hexadecimal as Zenoh prints it, 1 if none is written.
pub fn stamp(written: &Json) -> Result<Hlc, String> {
    let (time_part, id) = match written.as_str().and_then(|text| text.split_once('/')) {
        Some((time, id)) => (json!(time), id),
        None => (written.clone(), "1"),
    };
    let id = u128::from_str_radix(id, 16).map_err(|_| format!("`{id}` is no clock id"))?;
    // Zenoh keeps an id with the lowest byte first, and compares it so.
    let bytes = id.to_le_bytes();
    let [high, low] = [0, 8].map(|start| {
        bytes[start..start + 8]
            .iter()
            .fold(0, |half, byte| half << 8 | u64::from(*byte))
    });
    Ok(Hlc {
        ntp64: time(&time_part)?,
        id_high: high,
        id_low: low,
    })
}

/// Seconds since the Unix epoch (a number, or its text) or `2024-05-01T12:00:00.5Z`, as NTP64.
pub fn time(written: &Json) -> Result<u64, String> {
    let wrong = || format!("{written} is no time: write seconds, or 2024-05-01T12:00:00Z");
    let text = match written {
        Json::Number(number) => number.to_string(),
        Json::String(text) => text.clone(),
        _ => return Err(wrong()),
    };
    let parse = |text: &str| text.parse::<u64>().ok();
    let (seconds, fraction) = match text.strip_suffix('Z') {
        None => text
            .split_once('.')
            .map_or((parse(&text), ""), |(s, f)| (parse(s), f)),
        Some(text) => {
            let (text, fraction) = text.split_once('.').unwrap_or((text, ""));
            (calendar(text), fraction)
        }
    };
    let seconds = seconds
        .filter(|seconds| *seconds < 1 << 32)
        .ok_or_else(wrong)?;
    let fraction_number = match fraction {
        "" => 0,
        // Twelve digits say more than 2^-32 s.
        digits if digits.len() <= 12 => parse(digits).ok_or_else(wrong)?,
        _ => return Err(wrong()),
    };
    let scale = 10u128.pow(fraction.len().try_into().map_err(|_| wrong())?);
    // Rounded up, so that what `time_json` cuts off comes back as it was.
    let below = (u128::from(fraction_number) << 32).div_ceil(scale);
    Ok((seconds << 32) + u64::try_from(below).map_err(|_| wrong())?)
}

/// Seconds with as many digits as it takes.
pub fn time_json(ntp64: u64) -> Json {
    let seconds = ntp64 >> 32;
    match ntp64 & 0xffff_ffff {
        0 => json!(seconds),
        below => {
            // Twelve digits, the last few of which no two neighbouring fractions share.
            let digits = (u128::from(below) * 1_000_000_000_000) >> 32;
            json!(format!("{seconds}.{digits:012}").trim_end_matches('0'))
        }
    }
}

/// Seconds of `2024-05-01T12:00:00`.
///
/// Source of the day count: Hinnant, "chrono-compatible low-level date algorithms".
fn calendar(text: &str) -> Option<u64> {
    let (date, clock) = text.split_once('T')?;
    let numbers = |text: &str, separator| {
        let numbers: Option<Vec<u64>> = text
            .split(separator)
            .map(|part| part.parse().ok())
            .collect();
        <[u64; 3]>::try_from(numbers?).ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(clock, ':')?;
    let in_range = (1970..2106).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !in_range {
        return None;
    }
    // The year begins in March, so that the leap day is its last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    const DAYS_TO_EPOCH: u64 = 719_468;
    Some((days - DAYS_TO_EPOCH) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        assert_eq!(time(&json!("1970-01-01T00:00:00Z")), Ok(0));
        assert_eq!(
            time(&json!("2024-02-29T12:00:00Z")),
            Ok(1_709_208_000 << 32)
        );
        assert_eq!(
            time(&json!("2024-03-01T00:00:00.5Z")),
            Ok((1_709_251_200 << 32) + (1 << 31))
        );
        assert_eq!(time(&json!(2.25)), Ok((2 << 32) + (1 << 30)));
        for ntp64 in [
            0,
            1,
            7 << 32,
            (7 << 32) + 1,
            (7 << 32) - 1,
            (9 << 32) + 123_456_789,
        ] {
            assert_eq!(time(&time_json(ntp64)), Ok(ntp64), "{}", time_json(ntp64));
        }
        for wrong in [
            json!("noon"),
            json!("2024-13-01T00:00:00Z"),
            json!(-1),
            json!(null),
        ] {
            assert!(time(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn stamps_have_ids_in_zenohs_order() {
        let stamp = stamp(&json!("12.5/1234")).unwrap();
        assert_eq!(stamp.ntp64, (12 << 32) + (1 << 31));
        assert_eq!((stamp.id_high, stamp.id_low), (0x3412_0000_0000_0000, 0));
    }
}
