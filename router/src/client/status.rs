//! `weir status`: how the routers and their storages are.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::ask::{Answers, ask, router_of, shown};
use super::table::Table;
use super::{ConnectArgs, Outcome, Streams, parse_duration};

/// Arguments of `weir status`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir status
  weir status --json | jq '.storages[] | {name, keys}'

Shows every Weir router that can be reached through the one that is connected to.

Exit status: 0 somebody answered; 1 nobody; 2 error, or somebody answered with one.")]
pub struct StatusArgs {
    /// Print one JSON object a line for each router
    #[arg(long)]
    pub json: bool,

    /// How long to wait for the answers: 10s, 500ms, 3
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "5s")]
    pub timeout: Duration,

    /// Where the router is.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Fields of a router's or storage's status, with the heads of their columns.
const COLUMNS: [(&str, &str); 13] = [
    ("STORAGE", "name"),
    ("STATE", "state"),
    ("KEYS", "keys"),
    ("BYTES", "bytes"),
    ("IN/S", "ingest_per_s"),
    ("QUERIES/S", "queries_per_s"),
    ("QUEUED", "queued"),
    ("SPOOLED", "spooled_changes"),
    ("OUTDATED", "totals.outdated"),
    ("PARKED", "totals.parked"),
    ("QUARANTINED", "totals.quarantined"),
    ("ERRORS", "totals.errors"),
    ("DURABILITY", "durability"),
];

/// Prints how the routers and their storages are.
pub async fn status(args: &StatusArgs, streams: &mut Streams<'_>) -> Result<Outcome> {
    let bus = args.connect.open().await?;
    let routers = ask(&bus, "@weir/*/status", args.timeout, streams).await?;
    let storages = ask(&bus, "@weir/*/storages/*", args.timeout, streams).await?;
    bus.close().await?;
    let outcome = outcome(&routers, &storages);
    let mut of_router: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (key, storage) in storages.values {
        of_router
            .entry(router_of(&key).to_owned())
            .or_default()
            .push(storage);
    }
    for (key, router) in routers.values {
        let storages = of_router.remove(router_of(&key)).unwrap_or_default();
        print(&router, storages, args.json, streams)?;
    }
    streams.out.flush()?;
    if outcome == Outcome::Nothing {
        writeln!(streams.err, "no weir router answers")?;
    }
    Ok(outcome)
}

fn outcome(routers: &Answers, storages: &Answers) -> Outcome {
    match (routers.values.len(), routers.errors + storages.errors) {
        (0, 0) => Outcome::Nothing,
        (_, 0) => Outcome::Done,
        _ => Outcome::Refused,
    }
}

fn print(
    router: &Value,
    storages: Vec<Value>,
    json: bool,
    streams: &mut Streams<'_>,
) -> Result<()> {
    if json {
        writeln!(
            streams.out,
            "{}",
            json!({ "router": router, "storages": storages })
        )?;
        return Ok(());
    }
    let ready = if router["ready"] == json!(true) {
        "ready"
    } else {
        "not ready"
    };
    let (id, version, zenoh) = (
        shown(router, "router"),
        shown(router, "version"),
        shown(router, "zenoh"),
    );
    writeln!(
        streams.out,
        "router {id}: {ready}, weir {version}, zenoh {zenoh}"
    )?;
    let mut table = Table::held(COLUMNS.map(|(head, _)| head));
    for storage in &storages {
        table.row(COLUMNS.map(|(_, field)| shown(storage, field)), streams.out)?;
    }
    table.finish(streams.out)?;
    for name in router["opening"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        writeln!(
            streams.out,
            "{name} is opening or cannot be opened: see the router's log"
        )?;
    }
    for storage in &storages {
        let error = &storage["last_error"];
        if !error.is_null() {
            let text = error.get("message").unwrap_or(error);
            let text = text
                .as_str()
                .map_or_else(|| text.to_string(), str::to_owned);
            let text = super::table::printable(&text, 500);
            writeln!(
                streams.out,
                "{}: last error: {text}",
                shown(storage, "name")
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_a_table_and_what_is_wrong_below() {
        let router = json!({
            "router": "ab12", "version": "0.1.0", "zenoh": "v1", "ready": false, "opening": ["b"],
        });
        let storage = json!({
            "name": "demo", "state": "down", "keys": 2, "bytes": 50, "ingest_per_s": 0.0,
            "queries_per_s": 1.25, "queued": 0, "spooled_changes": 7, "durability": "written",
            "totals": { "outdated": 1, "parked": 0, "quarantined": 0, "errors": 1 },
            "last_error": { "at": 5, "message": "disk full" },
        });
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut streams = Streams {
            out: &mut out,
            err: &mut err,
            out_is_terminal: true,
        };
        print(&router, vec![storage], false, &mut streams).unwrap();
        let expected = "\
router ab12: not ready, weir 0.1.0, zenoh v1
STORAGE  STATE  KEYS  BYTES  IN/S  QUERIES/S  QUEUED  SPOOLED  OUTDATED  PARKED  QUARANTINED  ERRORS  DURABILITY
demo     down   2     50     0.0   1.2        0       7        1         0       0            1       written
b is opening or cannot be opened: see the router's log
demo: last error: disk full
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
