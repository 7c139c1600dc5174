//! What is asked of the storages, and what their answers come to.

use serde_json::json;
use weir_core::key::Key;
use weir_core::value::{Encoding, Value};

use super::*;

fn receipt(admission: &str, durability: &str) -> Receipt {
    let receipt = json!({
        "storage": "s", "router": "r", "admission": admission, "timestamp": "1/33",
        "durability": durability,
    });
    serde_json::from_value(receipt).unwrap()
}

#[test]
fn an_answer_is_a_fate_or_a_failure() {
    let rows = [
        ("applied", "written", Some(Fate::Imported)),
        ("applied", "synced", Some(Fate::Imported)),
        ("applied", "memory", None),
        ("known", "written", Some(Fate::Known)),
        ("known", "memory", None),
        ("nothing", "written", Some(Fate::Known)),
        ("outdated", "written", Some(Fate::Outdated)),
        ("parked", "written", Some(Fate::Parked)),
        ("parked", "memory", None),
        ("quarantined", "written", Some(Fate::Quarantined)),
        ("rejected", "written", None),
        ("new word", "written", None),
    ];
    for (admission, durability, expected) in rows {
        let fate = Fate::of(&receipt(admission, durability), Durability::Written);
        assert_eq!(fate.ok(), expected, "{admission} {durability}");
    }
}

#[test]
fn of_several_storages_the_one_that_matters_counts() {
    let rows = [
        (&[Fate::Known, Fate::Known][..], Fate::Known),
        (&[Fate::Imported, Fate::Known], Fate::Imported),
        (&[Fate::Outdated, Fate::Imported], Fate::Imported),
        (&[Fate::Quarantined, Fate::Imported], Fate::Quarantined),
    ];
    for (fates, expected) in rows {
        assert_eq!(fates.iter().copied().max(), Some(expected));
    }
}

#[test]
fn the_summary_counts_what_became_of_each() {
    let all = [
        Fate::Imported,
        Fate::Imported,
        Fate::Known,
        Fate::Outdated,
        Fate::Parked,
        Fate::Quarantined,
    ];
    let rows = [
        (
            &[][..],
            0,
            "0 imported, 0 already there, 0 outdated, 0 quarantined, 0 failed",
            Outcome::Nothing,
        ),
        (
            &all[..4],
            0,
            "2 imported, 1 already there, 1 outdated, 0 quarantined, 0 failed",
            Outcome::Done,
        ),
        (
            &all,
            0,
            "2 imported, 1 already there, 1 outdated, 1 parked until they are due, 1 quarantined, \
             0 failed",
            Outcome::Refused,
        ),
        (
            &all[..1],
            25,
            "1 imported, 0 already there, 0 outdated, 0 quarantined, 25 failed",
            Outcome::Refused,
        ),
        (
            &[],
            25,
            "0 imported, 0 already there, 0 outdated, 0 quarantined, 25 failed",
            Outcome::Refused,
        ),
    ];
    for (fates, failed, summary, outcome) in rows {
        let (mut tally, mut err) = (Tally::default(), Vec::new());
        for fate in fates {
            tally.add(Ok(*fate), &mut err).unwrap();
        }
        for _ in 0..failed {
            tally
                .add(Err(anyhow!("disk full").context("`a`")), &mut err)
                .unwrap();
        }
        assert_eq!(
            (tally.summary().as_str(), tally.outcome()),
            (summary, outcome)
        );
        let printed = String::from_utf8(err).unwrap();
        assert_eq!(printed, "error: `a`: disk full\n".repeat(failed.min(20)));
        assert_eq!(tally.not_printed(), (failed > 20).then_some(5));
    }
}

/// Large values are few at once, small ones are many, none is too large.
#[test]
fn what_is_on_its_way_is_bounded() {
    let change = |bytes: usize| Change {
        key: Key::from("a"),
        stamp: None,
        value: Some(Value {
            encoding: Encoding::default(),
            attachment: None,
            payload: bytes::Bytes::from(vec![0; bytes]),
        }),
    };
    for (bytes, at_once) in [(0, 512), (100, 512), (1 << 20, 15), (64 << 20, 1)] {
        assert_eq!(
            IN_FLIGHT_MAX / units(&change(bytes)) as usize,
            at_once,
            "{bytes}"
        );
    }
}

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    args: ImportArgs,
}

fn parse(line: &[&str]) -> ImportArgs {
    let line = ["import", "/d", "--from", "zenohd-rocksdb"]
        .iter()
        .chain(line);
    <Cli as clap::Parser>::try_parse_from(line).unwrap().args
}

#[test]
fn wrong_names_are_told_before_anything_is_opened() {
    let rows = [
        (&[][..], true),
        (&["--prefix", "demo/a", "--storage", "demo"], true),
        (&["--into", "demo"], true),
        (&["--prefix", "demo/"], false),
        (&["--prefix", "demo/*"], false),
        (&["--prefix", ""], false),
        (&["--storage", "a;durability=memory"], false),
        (&["--storage", "*"], false),
        (&["--storage", ""], false),
    ];
    for (line, expected) in rows {
        assert_eq!(parse(line).check().is_ok(), expected, "{line:?}");
    }
}
