//! The recorded flights in `../shared/data` beside the checkout: what a robot really sends.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::python::python;

/// One recorded sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Microseconds since boot.
    pub at_us: u64,
    /// `<topic>/<instance>`
    pub topic: String,
    /// The value, as JSON text.
    pub value: String,
}

/// The first `limit` samples of a recording; `None`, and the test is skipped, if it is not there.
///
/// # Panics
/// If it is there and cannot be read.
#[must_use]
pub fn read(name: &str, limit: usize) -> Option<Vec<Recorded>> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");
    let path = PathBuf::from(dir).join(name);
    if !path.is_file() {
        crate::skip(&format!("the flight log {} is not there", path.display()));
        return None;
    }
    Some(unpack(&path).lines().take(limit).map(parse).collect())
}

/// The text in a file packed with zstd. Python unpacks it, which the client needs anyway: the crate
/// `zstd` asks zstd-sys for one feature more than the router does, and `make test` after `make run`
/// would compile RocksDB a second time.
fn unpack(path: &Path) -> String {
    let program = "import sys, zstandard; \
        zstandard.ZstdDecompressor().copy_stream(open(sys.argv[1], 'rb'), sys.stdout.buffer)";
    let done = Command::new(python())
        .args(["-c", program])
        .arg(path)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{}: {errors}", path.display());
    String::from_utf8(done.stdout).unwrap()
}

fn parse(line: &str) -> Recorded {
    let sample: Value = serde_json::from_str(line).unwrap();
    Recorded {
        at_us: sample["t_us"].as_u64().unwrap(),
        topic: sample["key"].as_str().unwrap().to_owned(),
        value: value(line).to_owned(),
    }
}

/// The value as it was recorded, digit by digit: parsing and printing may change how a number looks.
fn value(line: &str) -> &str {
    let (_, rest) = line
        .split_once("\"value\":")
        .expect("a recorded line has a value");
    rest.trim()
        .strip_suffix('}')
        .expect("a recorded line is an object")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line = r#"{"t_us": 7, "key": "vehicle/0", "value": {"x": 1.50, "y": null}}"#;
        let recorded = parse(line);
        assert_eq!((recorded.at_us, recorded.topic.as_str()), (7, "vehicle/0"));
        assert_eq!(recorded.value, r#"{"x": 1.50, "y": null}"#);
    }
}
