//! `weir storage verify`: whether two live storages hold the same, and what differs.
//!
//! Both are asked what mirrors ask each other: sums of ranges first, so that what is equal costs
//! nothing, then the items of ranges that differ, then the records of these items.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use super::ask::ask;
use super::import::progress::Progress;
use super::table::{Table, printable};
use super::{ConnectArgs, Outcome, Streams, parse_duration};
use crate::mirror::hello::{Address, EVERYONE, Hello, Introduction};
use crate::mirror::line::Line;
use crate::session::Bus;

mod compare;

use compare::{Compared, Comparison, Difference, Side};

/// Between two comparisons while differences may still vanish.
const AGAIN: Duration = Duration::from_millis(250);

/// Arguments of `weir storage verify`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir storage verify telemetry --against 5a1f
  weir storage verify telemetry --against 5a1f/us_east_master --within 10s
  weir storage verify seoul_rocks_backup_node --against us_east_master_backup_node --json

Compares what both store of the keys that they have in common: the latest of every key, tombstones
included, the wildcard operations that are remembered, and every version if both keep all. Changes
that come while it compares may count as differences: --within looks again until there are none.

Exit status: 0 nothing differs; 1 something does; 2 error.")]
pub struct VerifyArgs {
    /// The storage: its name (on the router that is connected to, or the only one that has it), or
    /// ROUTER/NAME
    pub name: String,

    /// What to compare with: the id of a router or the beginning of one, a storage's name, or
    /// ROUTER/NAME
    #[arg(long, value_name = "PEER")]
    pub against: String,

    /// Look again for so long until nothing differs: 10s, 500ms, 3
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "0s")]
    pub within: Duration,

    /// How many of the keys that differ to print
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    pub limit: usize,

    /// Print one JSON document
    #[arg(long)]
    pub json: bool,

    /// How long a storage may take for one answer: 10s, 500ms, 3
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "30s")]
    pub timeout: Duration,

    /// Where the router is.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Compares two storages.
pub async fn verify(args: &VerifyArgs, streams: &mut Streams<'_>) -> Result<Outcome> {
    let bus = args.connect.open().await?;
    let outcome = run(args, &bus, streams).await;
    bus.close().await?;
    outcome
}

async fn run(args: &VerifyArgs, bus: &Bus, streams: &mut Streams<'_>) -> Result<Outcome> {
    let all = hellos(bus, args.timeout, streams).await?;
    let near: Vec<String> = bus
        .routers()
        .await
        .iter()
        .map(ToString::to_string)
        .collect();
    let (here, there) = choose(&all, &args.name, &args.against, &near)?;
    if !here.keys.meet(&there.keys) {
        bail!("{} and {} have no keys in common", name(here), name(there));
    }
    let is_series = here.series && there.series;
    let sides = [side(bus, here, there), side(bus, there, here)];
    let end = Instant::now() + args.within;
    loop {
        // How much there is is told by the first answers.
        let mut progress = Progress::new(Some(0))?;
        let comparison = Comparison::new(&sides, is_series, args.limit, args.timeout);
        let compared = comparison.run(&mut progress, streams.err).await;
        progress.finish();
        let compared = compared?;
        if compared.differing() > 0 && Instant::now() + AGAIN < end {
            tokio::time::sleep(AGAIN).await;
            continue;
        }
        return print(args, [here, there], &compared, streams);
    }
}

/// What all storages that can be reached say of themselves.
async fn hellos(bus: &Bus, timeout: Duration, streams: &mut Streams<'_>) -> Result<Vec<Hello>> {
    let answers = ask(bus, EVERYONE, timeout, streams).await?;
    let hello = |(key, value): (String, Value)| {
        serde_json::from_value(value).with_context(|| format!("{key} says something else"))
    };
    answers.values.into_iter().map(hello).collect()
}

fn side(bus: &Bus, hello: &Hello, other: &Hello) -> Side {
    let address = Address {
        router: hello.router.clone(),
        storage: hello.name.clone(),
    };
    let who = Introduction {
        router: bus.zid().to_string(),
        storage: None,
        link: None,
        keys: other.keys.clone(),
    };
    Side {
        name: name(hello),
        line: Line::new(bus.clone(), &address, &who),
    }
}

fn name(hello: &Hello) -> String {
    format!("{}/{}", hello.router, hello.name)
}

/// The two storages that are meant. `near` are the routers that are connected to.
fn choose<'h>(
    all: &'h [Hello],
    name: &str,
    against: &str,
    near: &[String],
) -> Result<(&'h Hello, &'h Hello)> {
    let named: Vec<&Hello> = match name.split_once('/') {
        Some((router, storage)) => all
            .iter()
            .filter(|hello| hello.router.starts_with(router) && hello.name == storage)
            .collect(),
        None => {
            let named = all.iter().filter(|hello| hello.name == name);
            let close: Vec<_> = named.clone().filter(|h| near.contains(&h.router)).collect();
            match close.is_empty() {
                true => named.collect(),
                false => close,
            }
        }
    };
    let here = one(
        &named,
        all,
        &format!("storage {name}"),
        "name it as ROUTER/NAME",
    )?;
    let others = all.iter().filter(|hello| !std::ptr::eq(*hello, here));
    let meant: Vec<&Hello> = match against.split_once('/') {
        Some((router, storage)) => others
            .filter(|hello| hello.router.starts_with(router) && hello.name == storage)
            .collect(),
        None => {
            let by_name: Vec<_> = others.clone().filter(|h| h.name == against).collect();
            let of_router = others.filter(|h| h.router.starts_with(against));
            match by_name.is_empty() {
                false => by_name,
                // Of a router with several, the one of this name, or the one on these keys.
                true => {
                    let of_router: Vec<_> = of_router.collect();
                    let pick = |by: &dyn Fn(&Hello) -> bool| -> Vec<&Hello> {
                        of_router
                            .iter()
                            .copied()
                            .filter(|hello| by(hello))
                            .collect()
                    };
                    let same = pick(&|hello| hello.name == here.name);
                    match same.is_empty() {
                        false => same,
                        true => pick(&|hello| hello.keys.meet(&here.keys)),
                    }
                }
            }
        }
    };
    let there = one(
        &meant,
        all,
        &format!("peer {against}"),
        "name it as ROUTER/NAME",
    )?;
    Ok((here, there))
}

/// The only one of some.
fn one<'h>(some: &[&'h Hello], all: &[Hello], what: &str, help: &str) -> Result<&'h Hello> {
    let names = |some: &[&Hello]| some.iter().map(|h| name(h)).collect::<Vec<_>>().join(", ");
    match some {
        [one] => Ok(one),
        [] => {
            let all: Vec<&Hello> = all.iter().collect();
            match all.is_empty() {
                true => bail!("there is no {what}: no router with storages can be reached"),
                false => bail!("there is no {what}; there are {}", names(&all)),
            }
        }
        several => bail!("{what} may be any of {}: {help}", names(several)),
    }
}

fn print(
    args: &VerifyArgs,
    [here, there]: [&Hello; 2],
    compared: &Compared,
    streams: &mut Streams<'_>,
) -> Result<Outcome> {
    let differing = compared.differing();
    if args.json {
        let document = json!({
            "here": here,
            "there": there,
            "counts": compared.counts,
            "only_here": compared.only[0],
            "only_there": compared.only[1],
            "wildcards_differ": compared.wildcards,
            "differences": differing,
            "keys": compared.differences.iter().map(Difference::json).collect::<Vec<_>>(),
            "round_trips": compared.asked,
            "bytes": compared.bytes,
        });
        writeln!(streams.out, "{document}")?;
    } else {
        let mut table = Table::held(["KEY", "HERE", "THERE"]);
        for difference in &compared.differences {
            let [here, there] = difference.shown();
            table.row([printable(&difference.key, 200), here, there], streams.out)?;
        }
        table.finish(streams.out)?;
        let (a, b) = (name(here), name(there));
        let [of_a, of_b] = compared.counts;
        let cost = format!("{} questions, {} bytes", compared.asked, compared.bytes);
        match differing {
            0 => writeln!(
                streams.out,
                "{a} and {b} hold the same: {of_a} items ({cost})"
            )?,
            _ => {
                let [only_a, only_b] = compared.only;
                writeln!(
                    streams.out,
                    "{a} and {b} differ: {of_a} and {of_b} items, {only_a} only here, {only_b} only \
                     there, {} wildcard operations not on both ({cost})",
                    compared.wildcards
                )?;
            }
        }
    }
    streams.out.flush()?;
    Ok(match differing {
        0 => Outcome::Done,
        _ => Outcome::Nothing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::hello::{Keys, PROTOCOL};

    fn hello(router: &str, name: &str, expr: &str) -> Hello {
        Hello {
            protocol: vec![PROTOCOL],
            router: router.to_owned(),
            name: name.to_owned(),
            keys: Keys {
                key_exprs: vec![expr.to_owned()],
                exclude: Vec::new(),
            },
            series: false,
            backends: Vec::new(),
            mirror: None,
            upstream: true,
            now: 0,
        }
    }

    #[test]
    fn two_storages_are_named_as_shortly_as_is_clear() {
        let all = [
            hello("5a1f", "demo", "demo/**"),
            hello("77b2", "demo", "demo/**"),
            hello("77b2", "all", "**"),
            hello("9c00", "cloud", "demo/x/**"),
            hello("9c00", "other", "other/**"),
        ];
        let rows = [
            ("demo", "77b2", "5a1f", Some(("5a1f/demo", "77b2/demo"))),
            ("demo", "5a", "77b2", Some(("77b2/demo", "5a1f/demo"))),
            ("demo", "9c", "5a1f", Some(("5a1f/demo", "9c00/cloud"))),
            ("demo", "cloud", "5a1f", Some(("5a1f/demo", "9c00/cloud"))),
            ("demo", "demo", "5a1f", Some(("5a1f/demo", "77b2/demo"))),
            (
                "77b2/demo",
                "77b2/all",
                "5a1f",
                Some(("77b2/demo", "77b2/all")),
            ),
            ("cloud", "5a1f", "5a1f", Some(("9c00/cloud", "5a1f/demo"))),
            // Two of that name and neither is near, nobody of that name, itself.
            ("demo", "cloud", "9c00", None),
            ("nothing", "5a1f", "5a1f", None),
            ("demo", "5a1f/demo", "5a1f", None),
            ("demo", "ffff", "5a1f", None),
        ];
        for (storage, against, near, expected) in rows {
            let chosen = choose(&all, storage, against, &[near.to_owned()]);
            let chosen = chosen.ok().map(|(a, b)| (name(a), name(b)));
            let expected = expected.map(|(a, b)| (a.to_owned(), b.to_owned()));
            assert_eq!(chosen, expected, "{storage} {against} {near}");
        }
    }
}
