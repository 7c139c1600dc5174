//! Times that a test makes up: nanoseconds since 1970, in the past.

use std::time::{SystemTime, UNIX_EPOCH};

/// A second, in nanoseconds.
pub const SECOND: u64 = 1_000_000_000;

/// The full second an hour ago: later than what is collected, earlier than what is being put.
///
/// # Panics
/// If the machine lives before 1970.
#[must_use]
pub fn hour_ago() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    (now - 3_600) * SECOND
}

/// As in `_time=[A..B]`, to the second.
#[must_use]
pub fn rfc3339(nanos: u64) -> String {
    let seconds = nanos / SECOND;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    // Years are counted from March, so that the leap day is the last of its year.
    let (mut year, mut left) = (1969, days + 306);
    loop {
        let next = year + 1;
        let is_leap = next % 4 == 0 && (next % 100 != 0 || next % 400 == 0);
        let length = if is_leap { 366 } else { 365 };
        if left < length {
            break;
        }
        left -= length;
        year = next;
    }
    let lengths = [31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31, 29];
    let mut month = 0;
    while left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    let (year, month) = if month < 10 {
        (year, month + 3)
    } else {
        (year + 1, month - 9)
    };
    format!(
        "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z",
        left + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        let rows = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_704_067_199, "2023-12-31T23:59:59Z"),
            (1_714_816_800, "2024-05-04T10:00:00Z"),
            (1_740_787_199, "2025-02-28T23:59:59Z"),
        ];
        for (seconds, expected) in rows {
            assert_eq!(rfc3339(seconds * SECOND), expected);
        }
    }
}
