//! Acknowledged operations: a query with parameter `_put` or `_delete`, answered by every storage
//! on the key with what became of the change and how durable it is.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::Value;
use zenoh::bytes::{Encoding, ZBytes};
use zenoh::query::{ConsolidationMode, QueryTarget};
use zenoh::time::Timestamp;

use super::table::{Table, printable};
use super::{Format, Outcome, Streams, parse_duration};
use crate::session::{Bus, GetOptions};

/// Characters of a cell of the table of receipts.
const CELL_CHARS_MAX: usize = 64;

/// Arguments of an operation that can be acknowledged.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Acknowledgement")]
pub struct AckArgs {
    /// Wait for every storage on the key to say what became of it
    #[arg(long)]
    pub ack: bool,

    /// Wait until it is this durable (implies --ack)
    #[arg(long, value_enum)]
    pub durability: Option<Durability>,

    /// How long to wait for the answers: 10s, 500ms, 3
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10s")]
    pub timeout: Duration,

    /// How to print the answers [default: table on a terminal, else json]
    #[arg(long, value_enum)]
    pub format: Option<Format>,
}

/// How safe an acknowledged change is. The order is the strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// In memory: lost with the process
    Memory,
    /// Survives the process
    Written,
    /// Survives a power cut
    Synced,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Put this value.
    Put {
        payload: ZBytes,
        encoding: Option<Encoding>,
    },
    /// Delete the key.
    Delete,
}

/// A storage's answer.
#[derive(Debug, Deserialize)]
pub(super) struct Receipt {
    pub storage: String,
    router: String,
    pub admission: String,
    timestamp: Option<String>,
    durability: Option<Durability>,
    #[serde(default)]
    reason: Option<String>,
}

impl AckArgs {
    /// Whether the user wants an acknowledgement.
    pub fn wanted(&self) -> bool {
        self.ack || self.durability.is_some()
    }

    /// Asks, prints the answers as they come, and says how it went: [`Outcome::Refused`] when any
    /// storage refused or reached less than was asked for, [`Outcome::Nothing`] when none answered.
    pub async fn ask(
        &self,
        bus: &Bus,
        key_expr: &str,
        operation: Operation,
        attachment: Option<ZBytes>,
        timestamp: Option<Timestamp>,
        streams: &mut Streams<'_>,
    ) -> Result<Outcome> {
        let selector = selector(key_expr, &operation, self.durability, timestamp);
        let options = GetOptions {
            payload: match operation {
                Operation::Put { payload, encoding } => Some((payload, encoding)),
                Operation::Delete => None,
            },
            attachment,
            timeout: self.timeout,
            // Every storage, and every answer: two storages answer for the same key.
            target: QueryTarget::All,
            consolidation: ConsolidationMode::None,
            ..GetOptions::default()
        };
        let format = Format::or_default(self.format, streams.out_is_terminal);
        let mut receipts = Receipts::new(format, self.durability);
        let mut replies = bus.get(&selector, options).await?;
        while let Some(reply) = replies.next().await {
            let source = reply.replier_id().map(|id| id.zid().to_string());
            match reply.result() {
                Ok(sample) => receipts.answer(&sample.payload().to_bytes(), source, streams)?,
                Err(error) => receipts.error(&error.payload().to_bytes(), source, streams)?,
            }
        }
        let outcome = receipts.finish(streams)?;
        if outcome == Outcome::Nothing {
            writeln!(streams.err, "no storage holds or takes {key_expr}")?;
        }
        Ok(outcome)
    }
}

/// `KEY?_put;durability=synced`
fn selector(
    key_expr: &str,
    operation: &Operation,
    durability: Option<Durability>,
    timestamp: Option<Timestamp>,
) -> String {
    let verb = match operation {
        Operation::Put { .. } => "_put",
        Operation::Delete => "_delete",
    };
    let mut selector = format!("{key_expr}?{verb}");
    if let Some(durability) = durability {
        selector.push_str(&format!(";durability={durability}"));
    }
    if let Some(timestamp) = timestamp {
        // A query carries no timestamp of its own.
        selector.push_str(&format!(";timestamp={timestamp}"));
    }
    selector
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Written => "written",
            Self::Synced => "synced",
        })
    }
}

/// The answers so far.
struct Receipts {
    format: Format,
    durability: Option<Durability>,
    table: Table<5>,
    accepted: usize,
    refused: usize,
}

impl Receipts {
    fn new(format: Format, durability: Option<Durability>) -> Self {
        let table = Table::held(["ADMISSION", "DURABILITY", "STORAGE", "ROUTER", "TIMESTAMP"]);
        Self {
            format,
            durability,
            table,
            accepted: 0,
            refused: 0,
        }
    }

    fn answer(
        &mut self,
        payload: &[u8],
        source: Option<String>,
        streams: &mut Streams<'_>,
    ) -> Result<()> {
        let Ok(receipt) = serde_json::from_slice::<Receipt>(payload) else {
            // Somebody else's queryable on the key: it does not know the parameter, and what it
            // says acknowledges nothing.
            let source = source.as_deref().unwrap_or("somebody");
            writeln!(
                streams.err,
                "{source} answers on this key, but is no storage: ignored"
            )?;
            return Ok(());
        };
        match self.format {
            Format::Raw | Format::Json => {
                let line: Value = serde_json::from_slice(payload)?;
                writeln!(streams.out, "{line}")?;
            }
            Format::Table => self.table.row(receipt.cells(), streams.out)?,
        }
        match receipt.refusal(self.durability) {
            // There was nothing to delete.
            None if receipt.admission == "nothing" => {}
            None => self.accepted += 1,
            Some(refusal) => {
                self.refused += 1;
                let (storage, router) = (&receipt.storage, &receipt.router);
                writeln!(
                    streams.err,
                    "error: storage {storage} of {router}: {refusal}"
                )?;
            }
        }
        Ok(())
    }

    fn error(
        &mut self,
        payload: &[u8],
        source: Option<String>,
        streams: &mut Streams<'_>,
    ) -> Result<()> {
        self.refused += 1;
        print_reply_error(payload, source, streams)
    }

    fn finish(mut self, streams: &mut Streams<'_>) -> Result<Outcome> {
        self.table.finish(streams.out)?;
        streams.out.flush()?;
        Ok(match (self.accepted, self.refused) {
            (0, 0) => Outcome::Nothing,
            (_, 0) => Outcome::Done,
            _ => Outcome::Refused,
        })
    }
}

impl Receipt {
    fn cells(&self) -> [String; 5] {
        let timestamp = self.timestamp.as_deref().unwrap_or("-");
        [
            printable(&self.admission, CELL_CHARS_MAX),
            self.durability
                .map_or_else(|| "-".to_owned(), |durability| durability.to_string()),
            printable(&self.storage, CELL_CHARS_MAX),
            printable(&self.router, CELL_CHARS_MAX),
            printable(timestamp, CELL_CHARS_MAX),
        ]
    }

    /// Why this is no yes, if it is none. `outdated` is a yes: the storage holds something newer,
    /// which is what was asked of it.
    pub fn refusal(&self, asked: Option<Durability>) -> Option<String> {
        let reason = || printable(self.reason.as_deref().unwrap_or("it does not say why"), 200);
        match self.admission.as_str() {
            "rejected" => return Some(format!("rejected: {}", reason())),
            // Kept, but no reader will see it until somebody decides.
            "quarantined" => return Some("quarantined: too old to be decided".to_owned()),
            _ => {}
        }
        match (self.durability, asked) {
            (Some(reached), Some(asked)) if reached < asked => Some(format!(
                "{asked} was asked for and only {reached} is reached"
            )),
            (None, Some(asked)) if self.admission == "applied" => Some(format!(
                "{asked} was asked for and the answer does not say so"
            )),
            _ => None,
        }
    }
}

/// Prints an error reply.
pub(super) fn print_reply_error(
    payload: &[u8],
    source: Option<String>,
    streams: &mut Streams<'_>,
) -> Result<()> {
    let text = match String::from_utf8_lossy(payload) {
        // Made by Zenoh itself: by our session, or by a router that waited for somebody in vain.
        timeout if timeout == "Timeout" => {
            "not everybody who was asked answered in time: raise --timeout".to_owned()
        }
        text => printable(&text, 1000),
    };
    match source {
        None => writeln!(streams.err, "error: {text}")?,
        Some(source) => writeln!(streams.err, "error: {source}: {text}")?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selector_is_what_the_storages_expect() {
        let put = Operation::Put {
            payload: ZBytes::from("v"),
            encoding: None,
        };
        let timestamp = "4294967296/33".parse().unwrap();
        let rows = [
            (&put, None, None, "a/b?_put"),
            (&Operation::Delete, None, None, "a/b?_delete"),
            (
                &put,
                Some(Durability::Synced),
                None,
                "a/b?_put;durability=synced",
            ),
            (
                &Operation::Delete,
                Some(Durability::Written),
                Some(timestamp),
                "a/b?_delete;durability=written;timestamp=4294967296/33",
            ),
        ];
        for (operation, durability, timestamp, expected) in rows {
            assert_eq!(selector("a/b", operation, durability, timestamp), expected);
        }
    }

    /// Feeds answers (`Ok`) and error replies (`Err`); gives outcome, output, remarks.
    fn check(
        asked: Option<Durability>,
        answers: &[Result<&str, &str>],
        expected: (Outcome, &str, &str),
    ) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut streams = Streams {
            out: &mut out,
            err: &mut err,
            out_is_terminal: true,
        };
        let mut receipts = Receipts::new(Format::Table, asked);
        for answer in answers {
            let source = Some("z1".to_owned());
            match answer {
                Ok(payload) => receipts
                    .answer(payload.as_bytes(), source, &mut streams)
                    .unwrap(),
                Err(payload) => receipts
                    .error(payload.as_bytes(), source, &mut streams)
                    .unwrap(),
            }
        }
        let outcome = receipts.finish(&mut streams).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        assert_eq!((outcome, text(out).as_str(), text(err).as_str()), expected);
    }

    const APPLIED: &str = r#"{"storage":"s","router":"r","admission":"applied","timestamp":"4294967296/33","durability":"written"}"#;
    const REJECTED: &str = r#"{"storage":"s","router":"r","admission":"rejected","timestamp":null,"durability":null,"reason":"no stamp"}"#;
    const TABLE: &str = "\
ADMISSION  DURABILITY  STORAGE  ROUTER  TIMESTAMP
applied    written     s        r       4294967296/33
";

    #[test]
    fn every_storage_must_say_yes() {
        check(None, &[], (Outcome::Nothing, "", ""));
        check(None, &[Ok(APPLIED)], (Outcome::Done, TABLE, ""));
        check(
            Some(Durability::Written),
            &[Ok(APPLIED)],
            (Outcome::Done, TABLE, ""),
        );
        let less = "error: storage s of r: synced was asked for and only written is reached\n";
        check(
            Some(Durability::Synced),
            &[Ok(APPLIED)],
            (Outcome::Refused, TABLE, less),
        );
        let error = "error: z1: disk full\n";
        check(
            None,
            &[Ok(APPLIED), Err("disk full")],
            (Outcome::Refused, TABLE, error),
        );
        let table = "\
ADMISSION  DURABILITY  STORAGE  ROUTER  TIMESTAMP
rejected   -           s        r       -
";
        let error = "error: storage s of r: rejected: no stamp\n";
        check(None, &[Ok(REJECTED)], (Outcome::Refused, table, error));
    }

    #[test]
    fn a_delete_of_nothing_matches_nothing() {
        let nothing = APPLIED.replace("applied", "nothing");
        let table = TABLE.replace("applied", "nothing");
        check(None, &[Ok(&nothing)], (Outcome::Nothing, &table, ""));
        let both = format!("{TABLE}nothing    written     s        r       4294967296/33\n");
        check(
            None,
            &[Ok(APPLIED), Ok(&nothing)],
            (Outcome::Done, &both, ""),
        );
    }

    #[test]
    fn an_answer_from_no_storage_acknowledges_nothing() {
        let remark = "z1 answers on this key, but is no storage: ignored\n";
        check(None, &[Ok("25")], (Outcome::Nothing, "", remark));
    }
}
