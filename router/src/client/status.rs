//! `weir status`: how the routers, their storages and their links are.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use super::ask::{ask, router_of, shown, shown_bytes, shown_keys};
use super::forward::print_links;
use super::table::{Table, printable};
use super::{ConnectArgs, Outcome, Streams, parse_duration};
use crate::session::Bus;

/// Takes the cursor home and clears what is below: the next look overwrites the one before.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Arguments of `weir status`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir status
  weir status --watch
  weir status --json | jq '.routers[].storages[] | {name, keys}'

Shows every Weir router that can be reached through the one that is connected to. KEYS with a ~ in
front is an estimate; APPLIED to ERRORS count since the storage was opened; QUEUE and SPOOL are
changes that wait for the store, in memory and on disk. A link has a row for each upstream.

Exit status: 0 every router is ready; 1 one is not, or none answered; 2 error.")]
pub struct StatusArgs {
    /// Print one JSON document; with --watch one a line
    #[arg(long)]
    pub json: bool,

    /// Look again and again, until interrupted
    #[arg(
        short,
        long,
        value_name = "EVERY",
        value_parser = parse_duration,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2s"
    )]
    pub watch: Option<Duration>,

    /// How long to wait for the answers: 10s, 500ms, 3
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "5s")]
    pub timeout: Duration,

    /// Where the router is.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// What all routers said of themselves at one moment.
#[derive(Debug, Default)]
struct Report {
    /// Each with its storages and links.
    routers: Vec<(Value, Vec<Value>, Vec<Value>)>,
    /// Error replies, which have been printed.
    errors: usize,
}

/// Prints how the routers and their storages are.
pub async fn status(args: &StatusArgs, streams: &mut Streams<'_>) -> Result<Outcome> {
    let bus = args.connect.open().await?;
    let outcome = match args.watch {
        None => look(&bus, args, streams).await?,
        Some(every) => watch(&bus, args, every, streams).await?,
    };
    bus.close().await?;
    Ok(outcome)
}

/// Looks until interrupted; that what it saw last was not ready is no fault of the command.
async fn watch(
    bus: &Bus,
    args: &StatusArgs,
    every: Duration,
    streams: &mut Streams<'_>,
) -> Result<Outcome> {
    // Made once: an interrupt that comes while something is printed is not missed.
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    // Zero would panic, and asking without a pause is of no use to anybody.
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(100)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            interrupted = &mut interrupt => {
                interrupted.context("cannot wait for an interrupt")?;
                return Ok(Outcome::Done);
            }
        }
        tokio::select! {
            looked = look(bus, args, streams) => { looked?; }
            interrupted = &mut interrupt => {
                interrupted.context("cannot wait for an interrupt")?;
                return Ok(Outcome::Done);
            }
        }
    }
}

async fn look(bus: &Bus, args: &StatusArgs, streams: &mut Streams<'_>) -> Result<Outcome> {
    let report = Report::gather(bus, args.timeout, streams).await?;
    if args.watch.is_some() && streams.out_is_terminal && !args.json {
        write!(streams.out, "{CLEAR}")?;
    }
    if args.json {
        writeln!(streams.out, "{}", report.json())?;
    } else {
        report.print(streams)?;
    }
    streams.out.flush()?;
    if report.routers.is_empty() && report.errors == 0 {
        writeln!(streams.err, "no weir router answers")?;
    }
    Ok(report.outcome())
}

impl Report {
    async fn gather(bus: &Bus, timeout: Duration, streams: &mut Streams<'_>) -> Result<Self> {
        let routers = ask(bus, "@weir/*/status", timeout, streams).await?;
        let storages = ask(bus, "@weir/*/storages/*", timeout, streams).await?;
        let links = ask(bus, "@weir/*/forward/*", timeout, streams).await?;
        let errors = routers.errors.len() + storages.errors.len() + links.errors.len();
        let [mut storages, mut links] = [storages.values, links.values].map(by_router);
        let with_all = |(key, router): (String, Value)| {
            let of = |all: &mut BTreeMap<String, Vec<Value>>| all.remove(router_of(&key));
            let storages = of(&mut storages).unwrap_or_default();
            (router, storages, of(&mut links).unwrap_or_default())
        };
        Ok(Self {
            routers: routers.values.into_iter().map(with_all).collect(),
            errors,
        })
    }

    fn is_ready(&self) -> bool {
        !self.routers.is_empty() && self.routers.iter().all(|(router, ..)| is_ready(router))
    }

    fn outcome(&self) -> Outcome {
        match (self.errors, self.is_ready()) {
            (0, true) => Outcome::Done,
            (0, false) => Outcome::Nothing,
            _ => Outcome::Refused,
        }
    }

    /// `{"ready": true, "routers": [{..., "storages": [{...}], "forward": [{...}]}]}`: a router's own
    /// number of storages gives way to the storages.
    fn json(&self) -> Value {
        let routers = self.routers.iter().map(|(router, storages, links)| {
            let mut router = router.clone();
            if let Some(fields) = router.as_object_mut() {
                fields.insert("storages".to_owned(), json!(storages));
                fields.insert("forward".to_owned(), json!(links));
            }
            router
        });
        json!({ "ready": self.is_ready(), "routers": routers.collect::<Vec<_>>() })
    }

    fn print(&self, streams: &mut Streams<'_>) -> Result<()> {
        for (index, (router, storages, links)) in self.routers.iter().enumerate() {
            if index > 0 {
                writeln!(streams.out)?;
            }
            print_router(router, storages, streams)?;
            if !links.is_empty() {
                writeln!(streams.out)?;
                let id = router["router"].as_str().unwrap_or("-");
                print_links(links.iter().map(|link| (id, link)), streams)?;
            }
        }
        Ok(())
    }
}

fn by_router(answers: Vec<(String, Value)>) -> BTreeMap<String, Vec<Value>> {
    let mut of_router: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (key, value) in answers {
        let router = router_of(&key).to_owned();
        of_router.entry(router).or_default().push(value);
    }
    of_router
}

fn is_ready(router: &Value) -> bool {
    router["ready"] == json!(true)
}

fn print_router(router: &Value, storages: &[Value], streams: &mut Streams<'_>) -> Result<()> {
    let cell = |field| shown(router, field);
    let ready = if is_ready(router) { "yes" } else { "no" };
    let mut table = Table::held(["ROUTER", "VERSION", "READY", "DOWN"]);
    let down = match router["down"].as_array().map_or(0, Vec::len) {
        0 => "-".to_owned(),
        _ => cell("down"),
    };
    table.row(
        [cell("router"), cell("version"), ready.to_owned(), down],
        streams.out,
    )?;
    table.finish(streams.out)?;
    if !storages.is_empty() {
        writeln!(streams.out)?;
        print_storages(storages, streams)?;
        print_mirrors(storages, streams)?;
        print_lost(storages, streams)?;
    }
    for name in router["opening"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        let name = printable(name, 200);
        writeln!(
            streams.out,
            "{name} is opening or cannot be opened: see the router's log"
        )?;
    }
    Ok(())
}

fn print_storages(storages: &[Value], streams: &mut Streams<'_>) -> Result<()> {
    let mut table = Table::held([
        "STORAGE",
        "STATE",
        "KEYS",
        "BYTES",
        "INGEST/S",
        "QUERIES/S",
        "APPLIED",
        "OUTDATED",
        "PARKED",
        "QUARANTINED",
        "ERRORS",
        "QUEUE",
        "SPOOL",
        "UNSENT",
        "DURABILITY",
        "LAST ERROR",
    ]);
    for storage in storages {
        let cell = |field| shown(storage, field);
        let cells = [
            cell("name"),
            cell("state"),
            shown_keys(storage),
            shown_bytes(storage),
            cell("ingest_per_s"),
            cell("queries_per_s"),
            cell("totals.applied"),
            cell("totals.outdated"),
            cell("totals.parked"),
            cell("totals.quarantined"),
            cell("totals.errors"),
            cell("queued"),
            cell("spooled_changes"),
            cell("server.waiting_changes"),
            cell("durability"),
            cell("last_error.message"),
        ];
        table.row(cells, streams.out)?;
    }
    table.finish(streams.out)?;
    Ok(())
}

/// The mirrors of all storages, if there are any.
fn print_mirrors(storages: &[Value], streams: &mut Streams<'_>) -> Result<()> {
    let mut table = Table::held([
        "STORAGE",
        "MIRROR",
        "STATE",
        "IN STEP SINCE",
        "DIVERGENT",
        "TAKEN",
        "GIVEN",
        "ROUNDS",
        "SENT",
        "RECEIVED",
        "CLOCK",
        "STORE",
        "LAST ERROR",
    ]);
    let mut is_empty = true;
    for storage in storages {
        for mirror in storage["mirrors"].as_array().into_iter().flatten() {
            if std::mem::take(&mut is_empty) {
                writeln!(streams.out)?;
            }
            let cell = |field| shown(mirror, field);
            let bytes = |field: &str| {
                let bytes = mirror[field].as_u64();
                bytes.map_or("-".to_owned(), |bytes| {
                    indicatif::HumanBytes(bytes).to_string()
                })
            };
            let clock = mirror["clock_offset_ms"].as_i64();
            let cells = [
                shown(storage, "name"),
                format!("{}/{}", cell("router"), cell("storage")),
                cell("state"),
                cell("in_step_since"),
                cell("divergent_ranges"),
                cell("taken"),
                cell("given"),
                cell("rounds"),
                bytes("sent_bytes"),
                bytes("received_bytes"),
                clock.map_or("-".to_owned(), |ms| format!("{ms:+} ms")),
                store(mirror),
                cell("last_error.message"),
            ];
            table.row(cells, streams.out)?;
        }
    }
    table.finish(streams.out)?;
    Ok(())
}

/// What was noticed last of a mirror's store, and when.
fn store(mirror: &Value) -> String {
    let last = &mirror["store"]["last"];
    match (last["kind"].as_str(), last["at"].as_str()) {
        (Some(kind), Some(at)) => printable(&format!("{kind} {at}"), 60),
        _ => "-".to_owned(),
    }
}

/// What links have told storages that it was lost on the way, if there is anything.
fn print_lost(storages: &[Value], streams: &mut Streams<'_>) -> Result<()> {
    let mut table = Table::held([
        "STORAGE",
        "LOST FROM",
        "TO",
        "BY LINK",
        "SOURCE",
        "RECORDS",
        "CAUSE",
    ]);
    let mut is_empty = true;
    for storage in storages {
        for lost in storage["lost"].as_array().into_iter().flatten() {
            if std::mem::take(&mut is_empty) {
                writeln!(streams.out)?;
            }
            let cell = |field| shown(lost, field);
            let cells = [
                shown(storage, "name"),
                cell("from"),
                cell("to"),
                format!("{}/{}", cell("router"), cell("link")),
                cell("source"),
                cell("records"),
                cell("cause"),
            ];
            table.row(cells, streams.out)?;
        }
    }
    table.finish(streams.out)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_a_table_of_their_own() {
        let mirror = json!({
            "router": "77b2", "storage": "demo", "state": "in_step", "divergent_ranges": 0,
            "in_step_since": "2026-11-23T07:36:56.123Z", "taken": 3, "given": 5, "rounds": 7,
            "sent_bytes": 2048, "received_bytes": 10, "clock_offset_ms": -12,
            "store": { "last": { "kind": "restored", "at": "2026-11-23T07:36:50Z" } },
            "last_error": { "at": "2026-11-23T07:36:56.123Z", "message": "nobody\nanswers" },
        });
        let mut with = storage(true);
        with["mirrors"] = json!([mirror]);
        let mut report = Report {
            routers: vec![(router(true), vec![with], vec![])],
            ..Report::default()
        };
        let expected = "
STORAGE  MIRROR     STATE    IN STEP SINCE             DIVERGENT  TAKEN  GIVEN  ROUNDS  SENT      RECEIVED  CLOCK   STORE                          LAST ERROR
demo     77b2/demo  in_step  2026-11-23T07:36:56.123Z  0          3      5      7       2.00 KiB  10 B      -12 ms  restored 2026-11-23T07:36:50Z  nobody\\nanswers
";
        assert_eq!(printed(&report), format!("{READY}{expected}"));
        report.routers[0].1[0]["mirrors"] = json!([]);
        assert_eq!(printed(&report), READY);
    }

    #[test]
    fn what_links_have_lost_is_a_table_of_its_own() {
        let mut with = storage(true);
        with["lost"] = json!([{
            "router": "42", "link": "cloud", "source": "5a1f", "from": "2026-11-23T07:00:00Z",
            "to": "2026-11-23T07:00:09Z", "records": 12, "cause": "full",
        }]);
        let report = Report {
            routers: vec![(router(true), vec![with], vec![])],
            ..Report::default()
        };
        let expected = "
STORAGE  LOST FROM             TO                    BY LINK   SOURCE  RECORDS  CAUSE
demo     2026-11-23T07:00:00Z  2026-11-23T07:00:09Z  42/cloud  5a1f    12       full
";
        assert_eq!(printed(&report), format!("{READY}{expected}"));
    }

    fn router(ready: bool) -> Value {
        json!({
            "router": "ab12", "version": "0.1.0", "zenoh": "v1", "storages": 1, "ready": ready,
            "down": if ready { vec![] } else { vec!["demo"] },
            "opening": if ready { vec![] } else { vec!["b"] },
        })
    }

    fn storage(ready: bool) -> Value {
        json!({
            "name": "demo", "state": if ready { "up" } else { "down" }, "keys": 1200,
            "keys_exact": ready, "bytes": 1536, "ingest_per_s": 0.0, "queries_per_s": 1.25,
            "queued": 3, "spooled_changes": 7, "durability": "written",
            "totals": { "applied": 9, "outdated": 1, "parked": 2, "quarantined": 0, "errors": 4 },
            "last_error": if ready { Value::Null } else { json!({ "message": "disk\nfull" }) },
        })
    }

    fn printed(report: &Report) -> String {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut streams = Streams {
            out: &mut out,
            err: &mut err,
            out_is_terminal: true,
        };
        report.print(&mut streams).unwrap();
        String::from_utf8(out).unwrap()
    }

    const READY: &str = "\
ROUTER  VERSION  READY  DOWN
ab12    0.1.0    yes    -

STORAGE  STATE  KEYS  BYTES     INGEST/S  QUERIES/S  APPLIED  OUTDATED  PARKED  QUARANTINED  ERRORS  QUEUE  SPOOL  UNSENT  DURABILITY  LAST ERROR
demo     up     1200  1.50 KiB  0.0       1.2        9        1         2       0            4       3      7      -       written     -
";
    const NOT_READY: &str = "\
ROUTER  VERSION  READY  DOWN
ab12    0.1.0    no     demo

STORAGE  STATE  KEYS   BYTES     INGEST/S  QUERIES/S  APPLIED  OUTDATED  PARKED  QUARANTINED  ERRORS  QUEUE  SPOOL  UNSENT  DURABILITY  LAST ERROR
demo     down   ~1200  1.50 KiB  0.0       1.2        9        1         2       0            4       3      7      -       written     disk\\nfull
b is opening or cannot be opened: see the router's log
";

    #[test]
    fn a_person_reads_tables_and_a_script_the_status() {
        let report = |readiness: &[bool], errors| Report {
            routers: readiness
                .iter()
                .map(|r| (router(*r), vec![storage(*r)], vec![]))
                .collect(),
            errors,
        };
        let rows = [
            (report(&[], 0), String::new(), Outcome::Nothing),
            (report(&[true], 0), READY.to_owned(), Outcome::Done),
            (report(&[false], 0), NOT_READY.to_owned(), Outcome::Nothing),
            (
                report(&[true, false], 0),
                format!("{READY}\n{NOT_READY}"),
                Outcome::Nothing,
            ),
            (report(&[true], 1), READY.to_owned(), Outcome::Refused),
        ];
        for (report, expected, outcome) in rows {
            assert_eq!(printed(&report), expected);
            assert_eq!(report.outcome(), outcome, "{expected}");
        }
    }

    #[test]
    fn json_is_one_document_with_the_storages_in_their_routers() {
        let report = Report {
            routers: vec![(
                router(true),
                vec![storage(true)],
                vec![json!({ "name": "cloud" })],
            )],
            ..Report::default()
        };
        let json = report.json();
        assert_eq!(json["ready"], json!(true));
        assert_eq!(json["routers"][0]["router"], json!("ab12"));
        assert_eq!(json["routers"][0]["storages"], json!([storage(true)]));
        assert_eq!(json["routers"][0]["forward"][0]["name"], "cloud");
        assert_eq!(
            Report::default().json(),
            json!({ "ready": false, "routers": [] })
        );
    }

    #[test]
    fn watching_has_a_period_of_its_own() {
        use clap::Parser;
        #[derive(Parser)]
        struct Cli {
            #[command(flatten)]
            args: StatusArgs,
        }
        let rows = [
            (&[][..], None),
            (&["--watch"], Some(2.0)),
            (&["--watch=500ms"], Some(0.5)),
            (&["-w"], Some(2.0)),
        ];
        for (line, expected) in rows {
            let cli = Cli::try_parse_from(std::iter::once(&"status").chain(line)).unwrap();
            assert_eq!(
                cli.args.watch,
                expected.map(Duration::from_secs_f64),
                "{line:?}"
            );
        }
        assert!(Cli::try_parse_from(["status", "--watch=soon"]).is_err());
    }
}
