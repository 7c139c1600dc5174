//! Commands on a journal that is written here, whole and damaged.

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use weir_core::change::{Change, WildcardChange};
use weir_core::key::Key;
use weir_core::value::{Encoding, Value as Payload};
use weir_core::version::Stamp;
use weir_journal::{Journal, Keep, Options, Waiting};

use super::*;

/// 2026-11-23T07:40:00Z.
const SECONDS: u64 = 1_795_419_600;

fn sample(key: &str, at: u64, lane: u8, value: Option<&str>) -> Entry {
    let mut id = [0; 16];
    id[0] = 0x42;
    let time = (SECONDS + at) << 32;
    let change = Change {
        key: Key::from(key),
        stamp: Some(Stamp { time, id }),
        value: value.map(|text| Payload {
            encoding: Encoding::default(),
            attachment: None,
            payload: text.to_owned().into(),
        }),
    };
    Entry {
        change: KeptChange::Key(change),
        lane,
        expires: None,
    }
}

/// Three samples in two lanes, and an operation.
fn written() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(Options::new(dir.path()), &[], SECONDS << 32).unwrap();
    let mut all = vec![
        sample("v/a", 0, 5, Some("one")),
        sample("v/alarm", 1, 0, Some("fire")),
        sample("v/b", 2, 5, None),
    ];
    let stamp = all[0].change.clone();
    let KeptChange::Key(Change { stamp, .. }) = stamp else {
        panic!("it is one of a key");
    };
    all.push(Entry {
        change: KeptChange::Wildcard(WildcardChange {
            expr: OwnedKeyExpr::new("v/**").unwrap(),
            stamp,
            value: None,
        }),
        lane: 5,
        expires: None,
    });
    let all = all.into_iter().map(|entry| Waiting {
        entry,
        priority: 5,
        keep: Keep::Yes,
    });
    let all: Vec<Waiting> = all.collect();
    journal.append(&all, SECONDS << 32).unwrap();
    journal.flush(true).unwrap();
    journal.close().unwrap();
    dir
}

fn run(command: &str, dir: &Path, more: &[&str]) -> (bool, String) {
    use clap::Parser;
    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: JournalArgs,
    }
    let dir = dir.to_str().unwrap();
    let line = ["journal", command, dir]
        .into_iter()
        .chain(more.iter().copied());
    let args = Cli::try_parse_from(line).unwrap().args;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut streams = Streams {
        out: &mut out,
        err: &mut err,
        out_is_terminal: false,
    };
    let code = journal(&args, &mut streams).unwrap();
    (code == ExitCode::SUCCESS, String::from_utf8(out).unwrap())
}

#[test]
fn segments_are_a_table() {
    let dir = written();
    let (is_well, text) = run("inspect", dir.path(), &[]);
    assert!(is_well, "{text}");
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[0][..4], ["SEGMENT", "LANE", "STATE", "BLOCKS"]);
    let cells = |line: usize| {
        (
            lines[line][1],
            lines[line][2],
            lines[line][3],
            lines[line][4],
        )
    };
    assert_eq!(cells(1), ("0", "closed", "1", "1"));
    assert_eq!(cells(2), ("5", "closed", "1", "3"));
    assert!(text.contains("2026-11-23T07:40:02.000Z"), "{text}");

    let (_, text) = run("inspect", dir.path(), &["--json"]);
    let segments: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(segments[1]["records"], 3);
    assert_eq!(segments[1]["from"], "2026-11-23T07:40:00.000Z");
}

#[test]
fn samples_are_exported_as_they_were_put() {
    let dir = written();
    let exported = |more: &[&str]| -> Vec<(String, String)> {
        let (is_any, text) = run("export", dir.path(), more);
        assert_eq!(is_any, !text.is_empty());
        let read = |line: &str| serde_json::from_str::<Value>(line).unwrap();
        let short = |value: Value| {
            let text = |field: &str| value[field].as_str().unwrap_or("-").to_owned();
            assert!(text("timestamp").ends_with("/42"), "{value}");
            (text("key"), text("value"))
        };
        text.lines().map(read).map(short).collect()
    };
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let all = [
        pair("v/alarm", "fire"),
        pair("v/a", "one"),
        pair("v/b", "-"),
        pair("v/**", "-"),
    ];
    assert_eq!(exported(&[]), all);
    assert_eq!(exported(&["--lane", "0"]), all[..1]);
    assert_eq!(exported(&["--key", "v/b"]), all[2..]);
    assert_eq!(exported(&["--key", "w/**"]), []);
}

#[test]
fn damage_is_told() {
    let dir = written();
    let (is_well, text) = run("verify", dir.path(), &[]);
    assert!(is_well, "{text}");
    assert!(
        text.starts_with("2 segments, 2 blocks, 4 records, "),
        "{text}"
    );
    assert!(text.ends_with(": nothing is damaged\n"), "{text}");

    let files = fs::read_dir(dir.path())
        .unwrap()
        .map(|file| file.unwrap().path());
    let lane = files.filter(|file| {
        file.file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("5-")
    });
    let file = lane.last().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    // Inside of the only block: behind the header of the segment and the head of the block.
    bytes[100] ^= 1;
    fs::write(&file, bytes).unwrap();
    let (is_well, text) = run("verify", dir.path(), &[]);
    assert!(
        !is_well && text.contains("3 records: the checksum of the block is wrong"),
        "{text}"
    );
    let (is_well, text) = run("verify", dir.path(), &["--json"]);
    let found: Value = serde_json::from_str(&text).unwrap();
    assert!(!is_well && found["damaged"][0]["records"] == 3, "{text}");
    let (_, text) = run("export", dir.path(), &[]);
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn an_empty_directory_is_nothing_and_none_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["inspect", "verify", "export"] {
        assert!(!run(command, dir.path(), &[]).0, "{command}");
    }
    assert!(inspect::segments(&dir.path().join("none")).is_err());
}
