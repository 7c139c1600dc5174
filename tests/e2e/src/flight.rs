//! The recorded flights in `../shared/data` beside the checkout: what a robot really sends.

use std::path::PathBuf;

use serde_json::Value;

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

/// The first `limit` samples of a recording; `None`, and a line that says so, if it is not there.
///
/// # Panics
/// If it is there and cannot be read.
#[must_use]
pub fn read(name: &str, limit: usize) -> Option<Vec<Recorded>> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");
    let path = PathBuf::from(dir).join(name);
    let Ok(file) = std::fs::File::open(&path) else {
        crate::say(&format!(
            "SKIPPED: the flight log {} is not there",
            path.display()
        ));
        return None;
    };
    let text = zstd::decode_all(file).unwrap();
    let lines = std::str::from_utf8(&text).unwrap().lines().take(limit);
    Some(lines.map(parse).collect())
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
