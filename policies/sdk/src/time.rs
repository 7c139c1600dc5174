//! Time as stamps carry it, and spans as people write them.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

use crate::Hlc;

impl Hlc {
    /// Whether it stands for no stamp at all.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.ntp64 == 0 && self.id_high == 0 && self.id_low == 0
    }
}

/// A length of time, in units of 2^-32 s, as differences of NTP64 stamps are. In settings a number
/// of seconds (`0.5`) or a text: `"250ms"`, `"10s"`, `"5m"`, `"2h"`, `"7d"`. At most 68 years.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Span(pub u64);

const UNITS: [(&str, f64); 5] = [
    ("ms", 0.001),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
    ("d", 86400.0),
];
/// So that a stamp and a span never make more than NTP64 holds before the year 2106.
const SECONDS_MAX: f64 = (1u64 << 31) as f64;

impl Span {
    /// A number of seconds.
    #[must_use]
    pub const fn seconds(seconds: u32) -> Self {
        Self((seconds as u64) << 32)
    }

    fn parse(text: &str) -> Option<Self> {
        let number_end = text
            .find(|c: char| c.is_ascii_alphabetic())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(number_end);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
        Self::from_seconds(number.trim().parse::<f64>().ok()? * factor)
    }

    fn from_seconds(seconds: f64) -> Option<Self> {
        if !(0.0..=SECONDS_MAX).contains(&seconds) {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range was checked, and what is below one unit is nothing"
        )]
        Some(Self((seconds * (1u64 << 32) as f64) as u64))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds, or a text like \"250ms\", \"10s\", \"5m\", \"2h\" or \"7d\"")
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Span, E> {
                Span::from_seconds(seconds)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Float(seconds), &self))
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Span, E> {
                self.visit_f64(seconds as f64)
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Span, E> {
                self.visit_f64(seconds as f64)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                Span::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_people_write_them() {
        let span = |json: &str| serde_json::from_str::<Span>(json).ok();
        assert_eq!(span("\"250ms\""), Some(Span(1 << 30)));
        assert_eq!(span("\"5m\""), Some(Span::seconds(300)));
        assert_eq!(span("\" 2 h \""), Some(Span::seconds(7200)));
        assert_eq!(span("\"2 h\""), Some(Span::seconds(7200)));
        assert_eq!(span("0.5"), Some(Span(1 << 31)));
        assert_eq!(span("7"), Some(Span::seconds(7)));
        for wrong in [
            "\"\"",
            "\"5\"",
            "\"m\"",
            "\"5 weeks\"",
            "-1",
            "1e300",
            "\"nand\"",
            "null",
        ] {
            assert_eq!(span(wrong), None, "{wrong}");
        }
    }
}
