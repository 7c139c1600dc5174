//! `weir journal`: what lies in the directory of a link's journal, whether a router has it open or not.
//! Nothing is written and nothing is locked.

use std::borrow::Cow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueHint};
use indicatif::{HumanBytes, HumanCount};
use serde_json::{Value, json};
use weir_core::change::KeptChange;
use weir_core::forward::{Cause, Entry, Lost};
use weir_journal::Damaged;
use weir_journal::inspect::{self, Segment, Verified};
use zenoh::key_expr::{OwnedKeyExpr, keyexpr};
use zenoh::sample::SampleKind;

use super::EXIT_NOTHING;
use crate::client::{Format, Printer, Row, Streams, Table};
use crate::convert;
use crate::storage::lost;

/// Arguments of `weir journal`.
#[derive(Args, Clone, Debug)]
pub struct JournalArgs {
    #[command(subcommand)]
    command: JournalCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum JournalCommand {
    /// List the segments of a journal, and what was given up
    Inspect(DirArgs),
    /// Read everything in a journal and say what is damaged
    Verify(DirArgs),
    /// Print the samples in a journal
    Export(ExportArgs),
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir journal inspect weir-data/forward/cloud
  weir journal verify weir-data/forward/cloud --json

A router may have the journal open: then what it is writing at that moment is no block yet, and is told
as such.

Exit status: 0 nothing is wrong; 1 something is damaged, or there is no segment; 2 error.")]
struct DirArgs {
    /// The journal's directory: `dir` of the link
    #[arg(value_hint = ValueHint::DirPath)]
    dir: PathBuf,

    /// Print JSON: `inspect` one object a line, `verify` one document
    #[arg(long)]
    json: bool,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir journal export weir-data/forward/cloud > samples.ndjson
  weir journal export weir-data/forward/cloud --lane 0 --key '**/alarm' --format table

Prints every sample that can be read, certified or not, lane by lane as they were appended, in the form of
`weir get --format json`. Damaged blocks are left out: see `weir journal verify`.

Exit status: 0 done; 1 there is no such sample; 2 error.")]
struct ExportArgs {
    /// The journal's directory: `dir` of the link
    #[arg(value_hint = ValueHint::DirPath)]
    dir: PathBuf,

    /// Only what is in this lane
    #[arg(long, value_name = "0-7", value_parser = clap::value_parser!(u8).range(0..8))]
    lane: Option<u8>,

    /// Only keys that match
    #[arg(long, value_name = "KEYEXPR")]
    key: Option<OwnedKeyExpr>,

    /// What to print of each
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
}

/// Runs `weir journal ...`.
pub fn journal(args: &JournalArgs, streams: &mut Streams<'_>) -> Result<ExitCode> {
    let is_well = match &args.command {
        JournalCommand::Inspect(args) => inspect(args, streams)?,
        JournalCommand::Verify(args) => verify(args, streams)?,
        JournalCommand::Export(args) => export(args, streams)?,
    };
    Ok(match is_well {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(EXIT_NOTHING),
    })
}

fn inspect(args: &DirArgs, streams: &mut Streams<'_>) -> Result<bool> {
    let segments = inspect::segments(&args.dir)?;
    let lost = inspect::lost(&args.dir)?;
    if args.json {
        for segment in &segments {
            writeln!(streams.out, "{}", segment_json(segment))?;
        }
        for (lane, lost) in &lost {
            writeln!(streams.out, "{}", lost_json(*lane, lost))?;
        }
    } else {
        print_segments(&segments, streams)?;
        print_lost(&lost, streams)?;
    }
    let is_well = |segment: &Segment| segment.damaged.is_empty() && segment.problems.is_empty();
    Ok(!segments.is_empty() && segments.iter().all(is_well))
}

fn verify(args: &DirArgs, streams: &mut Streams<'_>) -> Result<bool> {
    let found = inspect::verify(&args.dir)?;
    let is_well = found.damaged.is_empty() && found.problems.is_empty();
    if args.json {
        writeln!(streams.out, "{}", verified_json(&found))?;
        return Ok(is_well && found.segments > 0);
    }
    for damaged in &found.damaged {
        let Damaged {
            file,
            offset,
            bytes,
            why,
            ..
        } = damaged;
        let records = damaged.head.map_or_else(String::new, |head| {
            format!(", {} records", HumanCount(head.records.into()))
        });
        writeln!(
            streams.out,
            "{file}: {bytes} bytes at {offset}{records}: {why}"
        )?;
    }
    for (file, problem) in &found.problems {
        writeln!(streams.out, "{file}: {problem}")?;
    }
    let wrong = found.damaged.len() + found.problems.len();
    let verdict = match wrong {
        0 => "nothing is damaged".to_owned(),
        1 => "1 thing is wrong".to_owned(),
        several => format!("{several} things are wrong"),
    };
    writeln!(
        streams.out,
        "{} segments, {} blocks, {} records, {}: {verdict}",
        found.segments,
        HumanCount(found.blocks),
        HumanCount(found.records),
        HumanBytes(found.bytes),
    )?;
    Ok(is_well && found.segments > 0)
}

fn export(args: &ExportArgs, streams: &mut Streams<'_>) -> Result<bool> {
    if !args.dir.is_dir() {
        bail!("there is no directory {}", args.dir.display());
    }
    let mut printer = Printer::for_replies(args.format, streams.out_is_terminal);
    let mut is_empty = true;
    for entry in inspect::entries(&args.dir)? {
        let (_, entry) = entry?;
        let row = row(&entry);
        let is_wanted = args.lane.is_none_or(|lane| lane == entry.lane)
            && args
                .key
                .as_ref()
                .is_none_or(|wanted| matches(wanted, row.key));
        if is_wanted {
            is_empty = false;
            printer.print(&row, streams.out)?;
        }
    }
    printer.finish(streams.out)?;
    Ok(!is_empty)
}

fn matches(wanted: &OwnedKeyExpr, key: &str) -> bool {
    keyexpr::new(key).is_ok_and(|key| wanted.intersects(key))
}

fn row(entry: &Entry) -> Row<'_> {
    let (key, stamp, value) = match &entry.change {
        KeptChange::Key(change) => (&*change.key, change.stamp, &change.value),
        KeptChange::Wildcard(change) => (change.expr.as_str(), change.stamp, &change.value),
    };
    let bytes = |value: &weir_core::value::Value| Cow::Owned(value.payload.to_vec());
    let attachment = value.as_ref().and_then(|value| value.attachment.as_ref());
    Row {
        key,
        kind: match value {
            Some(_) => SampleKind::Put,
            None => SampleKind::Delete,
        },
        payload: value.as_ref().map(bytes).unwrap_or_default(),
        encoding: value.as_ref().map_or_else(String::new, |value| {
            convert::encoding(&value.encoding).to_string()
        }),
        timestamp: stamp.and_then(convert::timestamp),
        source: None,
        attachment: attachment.map(|bytes| Cow::Borrowed(&bytes[..])),
    }
}

fn print_segments(segments: &[Segment], streams: &mut Streams<'_>) -> Result<()> {
    let mut table = Table::held([
        "SEGMENT", "LANE", "STATE", "BLOCKS", "RECORDS", "BYTES", "FROM", "TO", "WRONG",
    ]);
    for segment in segments {
        let times = segment.times();
        let wrong = segment.damaged.len() + segment.problems.len();
        let cells = [
            segment.file.clone(),
            segment.lane.to_string(),
            state(segment).to_owned(),
            segment.blocks.len().to_string(),
            segment.records().to_string(),
            HumanBytes(segment.bytes).to_string(),
            times.map_or_else(|| "-".to_owned(), |(from, _)| time(from)),
            times.map_or_else(|| "-".to_owned(), |(_, to)| time(to)),
            match wrong {
                0 => "-".to_owned(),
                wrong => wrong.to_string(),
            },
        ];
        table.row(cells, streams.out)?;
    }
    table.finish(streams.out)?;
    if segments.is_empty() {
        writeln!(streams.err, "there are no segments")?;
    }
    Ok(())
}

fn print_lost(all: &[(u8, Lost)], streams: &mut Streams<'_>) -> Result<()> {
    let mut table = Table::held(["LOST FROM", "TO", "LANE", "SOURCE", "RECORDS", "CAUSE"]);
    for (index, (lane, given_up)) in all.iter().enumerate() {
        if index == 0 {
            writeln!(streams.out)?;
        }
        let cells = [
            time(given_up.stretch.from),
            time(given_up.stretch.to),
            lane.to_string(),
            lost::source(given_up.stretch.source),
            given_up.count.to_string(),
            cause(given_up.cause).to_owned(),
        ];
        table.row(cells, streams.out)?;
    }
    table.finish(streams.out)?;
    Ok(())
}

fn segment_json(segment: &Segment) -> Value {
    let times = segment.times();
    json!({
        "file": segment.file,
        "lane": segment.lane,
        "state": state(segment),
        "coalesced": segment.is_coalesced,
        "blocks": segment.blocks.len(),
        "records": segment.records(),
        "bytes": segment.bytes,
        "from": times.map(|(from, _)| time(from)),
        "to": times.map(|(_, to)| time(to)),
        "tail_bytes": segment.tail,
        "damaged": segment.damaged.iter().map(damaged_json).collect::<Vec<_>>(),
        "problems": segment.problems,
    })
}

fn lost_json(lane: u8, given_up: &Lost) -> Value {
    json!({
        "lost": given_up.count,
        "lane": lane,
        "source": lost::source(given_up.stretch.source),
        "from": time(given_up.stretch.from),
        "to": time(given_up.stretch.to),
        "cause": cause(given_up.cause),
    })
}

fn verified_json(found: &Verified) -> Value {
    let problem = |(file, problem): &(String, String)| json!({ "file": file, "problem": problem });
    json!({
        "segments": found.segments,
        "blocks": found.blocks,
        "records": found.records,
        "bytes": found.bytes,
        "damaged": found.damaged.iter().map(damaged_json).collect::<Vec<_>>(),
        "problems": found.problems.iter().map(problem).collect::<Vec<_>>(),
    })
}

fn damaged_json(damaged: &Damaged) -> Value {
    json!({
        "file": damaged.file,
        "offset": damaged.offset,
        "bytes": damaged.bytes,
        "records": damaged.head.map(|head| head.records),
        "why": damaged.why,
    })
}

fn state(segment: &Segment) -> &'static str {
    match (segment.is_closed, segment.is_coalesced) {
        (false, _) => "open",
        (true, false) => "closed",
        (true, true) => "coalesced",
    }
}

fn time(ntp64: u64) -> String {
    let time = UNIX_EPOCH + convert::span(ntp64);
    humantime::format_rfc3339_millis(time).to_string()
}

fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Full => "full",
        Cause::Age => "age",
        Cause::Damage => "damage",
        Cause::Other => "other",
    }
}

#[cfg(test)]
mod tests;
