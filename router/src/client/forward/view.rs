//! What a link says of itself, as a person reads it.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use indicatif::{HumanBytes, HumanCount};
use serde_json::Value;

use crate::client::Streams;
use crate::client::ask::shown;
use crate::client::table::{Table, printable};

/// Known-lost intervals that are shown: the rest is counted.
const LOST_SHOWN_MAX: usize = 3;
/// The link's own problem goes before those of its upstreams.
const POISONED: &str = "the journal takes nothing";

/// Prints the links of routers, a row for each upstream. Prints nothing if there are none.
pub(in crate::client) fn print_links<'v>(
    links: impl IntoIterator<Item = (&'v str, &'v Value)>,
    streams: &mut Streams<'_>,
) -> Result<()> {
    let mut table = Table::held([
        "LINK",
        "ROUTER",
        "UPSTREAM",
        "STATE",
        "WAITING",
        "BYTES",
        "OLDEST",
        "LACKS",
        "IN/S",
        "OUT/S",
        "LEFT",
        "CERTIFIED THROUGH",
        "SHIPPED",
        "LOST",
        "LAST ERROR",
    ]);
    for (router, link) in links {
        let nobody = [Value::Null];
        let upstreams = match link["upstreams"].as_array() {
            Some(upstreams) if !upstreams.is_empty() => &upstreams[..],
            _ => &nobody,
        };
        for upstream in upstreams {
            let cell = |field| shown(upstream, field);
            let (name, state) = match upstream {
                Value::Null => ("-".to_owned(), shown(link, "state")),
                _ => {
                    let name = format!("{}/{}", cell("router"), cell("storage"));
                    (name, cell("state"))
                }
            };
            let cells = [
                shown(link, "name"),
                router.to_owned(),
                name,
                state,
                shown(link, "queued.records"),
                bytes(&link["queued"]["bytes"]),
                shown(link, "oldest"),
                cell("waiting"),
                shown(link, "rates.append_per_s"),
                shown(link, "rates.drain_per_s"),
                span(upstream["left_s"].as_f64()),
                cell("certified_through"),
                cell("shipped_records"),
                lost(link).to_string(),
                problem(link, upstream),
            ];
            table.row(cells, streams.out)?;
        }
    }
    table.finish(streams.out)?;
    Ok(())
}

/// A link on one line, for a log or above the bar.
pub(super) fn line(router: &str, link: &Value, now: SystemTime) -> String {
    let number = |field| match number(link, field) {
        Some(number) => HumanCount(number).to_string(),
        None => "-".to_owned(),
    };
    let rate = |field: &str| match link["rates"][field].as_f64() {
        Some(rate) => format!("{rate:.0}/s"),
        None => "-".to_owned(),
    };
    let mut line = format!(
        "{}@{}: {}, {} waiting ({} of {}), oldest {}, in {}, out {}",
        shown(link, "name"),
        router.get(..8).unwrap_or(router),
        shown(link, "state"),
        number("/queued/records"),
        bytes(&link["queued"]["bytes"]),
        bytes(&link["budget_bytes"]),
        age(&link["oldest"], now),
        rate("append_per_s"),
        rate("drain_per_s"),
    );
    let left = upstreams(link).filter_map(|upstream| upstream["left_s"].as_f64());
    if let Some(left) = left.reduce(f64::max) {
        line.push_str(&format!(", {} left", span(Some(left))));
    }
    if lost(link) > 0 {
        line.push_str(&format!(", {} lost", HumanCount(lost(link))));
    }
    line
}

/// What is told below the bar: upstreams, lanes that hold something, what was given up.
pub(super) fn details(link: &Value, now: SystemTime) -> Vec<String> {
    let mut lines = Vec::new();
    for upstream in upstreams(link) {
        let cell = |field| shown(upstream, field);
        let mut line = format!(
            "  {}/{} {} for {}: lacks {}, certified through {}, shipped {} ({})",
            cell("router"),
            cell("storage"),
            cell("state"),
            age(&upstream["since"], now),
            cell("waiting"),
            cell("certified_through"),
            cell("shipped_records"),
            bytes(&upstream["shipped_bytes"]),
        );
        if !matches!(upstream["last_error"], Value::Null) {
            line.push_str(&format!("; {}", problem(&Value::Null, upstream)));
        }
        lines.push(line);
    }
    let lanes = link["lanes"].as_array().into_iter().flatten();
    let lanes = lanes.filter(|lane| lane["records"].as_u64() != Some(0));
    let lanes = lanes.map(|lane| format!("{}: {}", shown(lane, "lane"), shown(lane, "records")));
    let lanes: Vec<String> = lanes.collect();
    if !lanes.is_empty() {
        lines.push(format!("  lanes {}", lanes.join(", ")));
    }
    let left_out = [
        ("expired", "/expired"),
        ("coalesced", "/coalesced"),
        ("rejected", "/rejected"),
    ];
    let left_out = left_out
        .into_iter()
        .map(|(name, field)| (name.to_owned(), number(link, field)));
    let dropped = link["dropped"].as_object().into_iter().flatten();
    let dropped = dropped.map(|(cause, count)| (format!("dropped ({cause})"), count.as_u64()));
    let left_out = left_out.chain(dropped).filter_map(|(name, count)| {
        let count = count.filter(|count| *count > 0)?;
        Some(format!("{name} {}", HumanCount(count)))
    });
    let left_out: Vec<String> = left_out.collect();
    if !left_out.is_empty() {
        lines.push(printable(&format!("  {}", left_out.join(", ")), 200));
    }
    let known = link["lost"].as_array().map_or(&[][..], Vec::as_slice);
    for lost in known.iter().rev().take(LOST_SHOWN_MAX) {
        let cell = |field| shown(lost, field);
        lines.push(format!(
            "  known lost: {} of {} from {} to {} ({})",
            cell("records"),
            cell("source"),
            cell("from"),
            cell("to"),
            cell("cause"),
        ));
    }
    if let Some(more) = known.len().checked_sub(LOST_SHOWN_MAX + 1) {
        lines.push(format!("  and {} intervals more", more + 1));
    }
    if link["poisoned"].is_string() {
        lines.push(format!("  {POISONED}: {}", shown(link, "poisoned")));
    }
    lines
}

/// Whether nothing waits and all upstreams, of which there is one at least, have said so.
pub(super) fn is_certified(link: &Value) -> bool {
    let mut all = upstreams(link).peekable();
    link["state"] == "up"
        && number(link, "/queued/records") == Some(0)
        && all.peek().is_some()
        && all.all(|upstream| upstream["waiting"].as_u64() == Some(0))
}

/// How much of a backlog is done. What has waited at the most since nothing did is the whole.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    peak: u64,
}

impl Backlog {
    /// Done and total. All is done if nothing waits.
    pub(super) fn look<'v>(&mut self, links: impl Iterator<Item = &'v Value>) -> (u64, u64) {
        let waiting: u64 = links
            .filter_map(|link| number(link, "/queued/records"))
            .sum();
        if waiting == 0 {
            self.peak = 0;
            return (1, 1);
        }
        self.peak = self.peak.max(waiting);
        (self.peak - waiting, self.peak)
    }
}

fn upstreams(link: &Value) -> impl Iterator<Item = &Value> {
    link["upstreams"].as_array().into_iter().flatten()
}

fn number(link: &Value, pointer: &str) -> Option<u64> {
    link.pointer(pointer)?.as_u64()
}

fn lost(link: &Value) -> u64 {
    let lost = link["lost"].as_array().into_iter().flatten();
    lost.filter_map(|lost| lost["records"].as_u64()).sum()
}

fn bytes(value: &Value) -> String {
    let bytes = value.as_u64();
    bytes.map_or("-".to_owned(), |bytes| HumanBytes(bytes).to_string())
}

/// What is wrong: with the link's own journal first.
fn problem(link: &Value, upstream: &Value) -> String {
    if link["poisoned"].is_string() {
        return format!("{POISONED}: {}", shown(link, "poisoned"));
    }
    match &upstream["last_error"] {
        // With the moment when it came, or without.
        Value::Object(_) => shown(upstream, "last_error.message"),
        _ => shown(upstream, "last_error"),
    }
}

/// How long ago something was, in two units at the most.
fn age(at: &Value, now: SystemTime) -> String {
    let at = at.as_str().and_then(|at| humantime::parse_rfc3339(at).ok());
    let Some(at) = at else {
        return "-".to_owned();
    };
    // Ahead of this clock is no age.
    let age = now.duration_since(at).unwrap_or_default();
    span(Some(age.as_secs_f64()))
}

/// `3m 20s`, `2h 5m`, `1.5s`.
fn span(seconds: Option<f64>) -> String {
    let span = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let Some(span) = span else {
        return "-".to_owned();
    };
    let whole = match span.as_secs() {
        0..60 => return format!("{:.1}s", span.as_secs_f64()),
        60..3_600 => Duration::from_secs(span.as_secs()),
        3_600..86_400 => Duration::from_secs(span.as_secs() / 60 * 60),
        seconds => Duration::from_secs(seconds / 3_600 * 3_600),
    };
    humantime::format_duration(whole).to_string()
}

#[cfg(test)]
mod tests;
