//! Durations and sizes as people write them.

use std::time::Duration;

/// Reads `7d`, `1h 30m`, `1.5s`, `500ms`; a number alone is seconds.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = number(rest)?;
        let unit_len = after
            .find(|c: char| !c.is_alphabetic())
            .unwrap_or(after.len());
        let seconds = match &after[..unit_len] {
            "ms" => 0.001,
            "s" | "sec" | "second" | "seconds" => 1.0,
            "m" | "min" | "minute" | "minutes" => 60.0,
            "h" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86_400.0,
            "w" | "week" | "weeks" => 604_800.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = after[unit_len..].trim_start();
    }
    Some(total)
}

/// Reads `10GiB`, `512 MB`, `64k`; a number alone is bytes.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = number(text.trim())?;
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "ki" | "kib" => 1 << 10,
        "mi" | "mib" => 1 << 20,
        "gi" | "gib" => 1 << 30,
        "ti" | "tib" => 1 << 40,
        _ => return None,
    };
    if number.fract() == 0.0 {
        // Whole numbers exactly, whatever their size.
        let whole = text.trim().split(|c: char| !c.is_ascii_digit()).next()?;
        return whole.parse::<u64>().ok()?.checked_mul(factor);
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "a fraction of a unit is no exact number"
    )]
    let bytes = number * factor as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "compared with the bound, and digits without a sign are never negative"
    )]
    (bytes < 9e18).then_some(bytes as u64)
}

/// Writes a duration so that [`duration`] reads it back.
pub(crate) fn duration_text(duration: Duration) -> String {
    if duration.subsec_millis() != 0 {
        return format!("{}ms", duration.as_millis());
    }
    let seconds = duration.as_secs();
    match [(86_400, "d"), (3600, "h"), (60, "m")]
        .iter()
        .find(|(n, _)| seconds != 0 && seconds.is_multiple_of(*n))
    {
        Some((n, unit)) => format!("{}{unit}", seconds / n),
        None => format!("{seconds}s"),
    }
}

fn number(text: &str) -> Option<(f64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        for (text, millis) in [
            ("7d", Some(604_800_000)),
            ("1h 30m", Some(5_400_000)),
            ("1h30m", Some(5_400_000)),
            ("1.5s", Some(1500)),
            ("500ms", Some(500)),
            ("90", Some(90_000)),
            ("2 weeks", Some(1_209_600_000)),
            ("", None),
            ("7 moons", None),
            ("d", None),
            ("-1s", None),
            ("1e40", None),
        ] {
            assert_eq!(duration(text).map(|d| d.as_millis()), millis, "{text}");
        }
        for text in ["7d", "90m", "0s", "1500ms", "36h", "61s"] {
            assert_eq!(duration_text(duration(text).unwrap()), text);
        }
    }

    #[test]
    fn reads_sizes() {
        for (text, expected) in [
            ("10GiB", Some(10 << 30)),
            ("512 MB", Some(512_000_000)),
            ("64k", Some(64_000)),
            ("1.5KiB", Some(1536)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551615k", None),
            ("ten", None),
            ("10 bananas", None),
            ("-1", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
