//! Timestamps as a person writes and reads them.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use zenoh::time::{NTP64, Timestamp, TimestampId};

/// A timestamp as given on the command line: the id may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenTimestamp {
    time: NTP64,
    id: Option<TimestampId>,
}

impl GivenTimestamp {
    /// Parses `TIME` or `TIME/ID`. `TIME` is RFC 3339 in UTC (`2026-05-04T10:00:00.5Z`) or the
    /// exact 64-bit NTP number that Zenoh prints; `ID` is hexadecimal.
    pub fn parse(text: &str) -> Result<Self> {
        let (time, id) = match text.split_once('/') {
            Some((time, id)) => (time, Some(id)),
            None => (text, None),
        };
        let id = id
            .map(|id| {
                id.parse::<TimestampId>()
                    .map_err(|e| anyhow!("`{id}` is no timestamp id: {}", e.cause))
            })
            .transpose()?;
        Ok(Self {
            time: parse_time(time)?,
            id,
        })
    }

    /// The timestamp, with `own` where no id was given.
    pub fn resolve(self, own: TimestampId) -> Timestamp {
        Timestamp::new(self.time, self.id.unwrap_or(own))
    }
}

/// RFC 3339 to the nanosecond, which is coarser than the timestamp itself.
pub fn rfc3339(timestamp: &Timestamp) -> String {
    timestamp.get_time().to_string_rfc3339_lossy()
}

/// The 64-bit number and the id, which `--timestamp` takes back without loss.
pub fn exact(timestamp: &Timestamp) -> String {
    timestamp.to_string()
}

fn parse_time(text: &str) -> Result<NTP64> {
    if let Ok(ntp64) = text.parse() {
        return Ok(NTP64(ntp64));
    }
    let time: SystemTime = humantime::parse_rfc3339(text).with_context(|| {
        format!("`{text}` is no time: write one such as 2026-05-04T10:00:00Z, in UTC, after 1970")
    })?;
    let since_epoch = time.duration_since(UNIX_EPOCH)?;
    if u32::try_from(since_epoch.as_secs()).is_err() {
        bail!("`{text}` is after 2106, which a timestamp cannot hold");
    }
    Ok(NTP64::from(since_epoch))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Ok` holds what the timestamp prints as with id 7 of our own.
    fn check(text: &str, expected: Result<&str, &str>) {
        let own = "7".parse().unwrap();
        let parsed = GivenTimestamp::parse(text).map(|given| exact(&given.resolve(own)));
        match (parsed, expected) {
            (Ok(parsed), Ok(expected)) => assert_eq!(parsed, expected, "{text}"),
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{text}: {error}");
            }
            (parsed, expected) => panic!("{text}: {parsed:?} is not {expected:?}"),
        }
    }

    #[test]
    fn takes_what_zenoh_prints_and_what_a_person_writes() {
        check("4294967296", Ok("4294967296/7"));
        check("4294967296/33", Ok("4294967296/33"));
        check("1970-01-01T00:00:01Z", Ok("4294967296/7"));
        check("1970-01-01T00:00:01.5Z/ab", Ok("6442450944/ab"));
    }

    #[test]
    fn refuses_with_a_reason() {
        check("yesterday", Err("2026-05-04T10:00:00Z"));
        check("", Err("no time"));
        check("1960-01-01T00:00:00Z", Err("after 1970"));
        // uhlc itself panics on this one.
        check("2200-01-01T00:00:00Z", Err("after 2106"));
        check("1/", Err("no timestamp id"));
        check("1/xyz", Err("no timestamp id"));
        check("1/0", Err("no timestamp id"));
    }
}
