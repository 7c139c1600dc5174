//! Recordings: samples of a running router, in a file, for replay.
//!
//! A recording is text, one JSON object a line. The first says what it is; each further one is a sample
//! as cases write it, so that a line can be pasted into a case:
//!
//! ```text
//! {"weir_recording":1,"key_expr":"fleet/**","begun":"2026-05-04T10:00:00Z"}
//! {"key":"fleet/7/pose","timestamp":"1777888800.5/a1","encoding":5,"payload":"{\"x\":1}"}
//! {"key":"fleet/7/pose","timestamp":"1777888801/a1","kind":"delete"}
//! ```
//!
//! A later version may add fields to samples, which a reader of this one refuses by name; anything else
//! is another number.

use std::io::{self, BufRead, Read as _, Write};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::sample::{Row, Sample};

/// The version that is written.
pub const VERSION: u32 = 1;
/// Bytes of one line: a payload of a hundred MB in base64. A longer one is an error.
pub const LINE_BYTES_MAX: u64 = 256 << 20;

/// What a recording says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct About {
    /// The version of the format.
    weir_recording: u32,
    /// What was recorded.
    pub key_expr: String,
    /// When that began (RFC 3339).
    pub begun: String,
}

/// Why a recording cannot be read.
#[derive(Debug, Error)]
pub enum RecordingError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no recording.
    #[error(
        "this is no recording: its first line does not say `weir_recording`; make one with `weir tap`"
    )]
    Foreign,
    /// It is of another version.
    #[error("the recording has version {0}, this program reads {VERSION}")]
    Version(u32),
    /// A line is damaged.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
}

impl About {
    /// Of a recording that begins now.
    #[must_use]
    pub fn new(key_expr: impl Into<String>, begun: impl Into<String>) -> Self {
        Self {
            weir_recording: VERSION,
            key_expr: key_expr.into(),
            begun: begun.into(),
        }
    }
}

/// Writes a recording.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    samples: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the first line.
    ///
    /// # Errors
    /// If `out` fails.
    pub fn new(mut out: W, about: &About) -> io::Result<Self> {
        serde_json::to_writer(&mut out, about)?;
        out.write_all(b"\n")?;
        Ok(Self { out, samples: 0 })
    }

    /// Writes a sample. Costs one call of `out` for each piece of it: give a buffered one.
    ///
    /// # Errors
    /// If `out` fails.
    pub fn write(&mut self, sample: &Sample) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, &Row::from(sample))?;
        self.out.write_all(b"\n")?;
        self.samples += 1;
        Ok(())
    }

    /// How many samples were written.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Hands what was written on to the file.
    ///
    /// # Errors
    /// If `out` fails.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Flushes, and gives `out` back.
    ///
    /// # Errors
    /// If `out` fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Reads a recording, sample by sample.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    about: About,
    line: u64,
    text: Vec<u8>,
    was_cut: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads the first line.
    ///
    /// # Errors
    /// If it is no recording, or one of another version.
    pub fn new(mut input: R) -> Result<Self, RecordingError> {
        let mut text = Vec::new();
        // What is no recording may have no line at all.
        (&mut input).take(1 << 16).read_until(b'\n', &mut text)?;
        #[derive(Deserialize)]
        struct Version {
            weir_recording: u32,
        }
        let version: Version =
            serde_json::from_slice(&text).map_err(|_| RecordingError::Foreign)?;
        if version.weir_recording != VERSION {
            return Err(RecordingError::Version(version.weir_recording));
        }
        let about = serde_json::from_slice(&text).map_err(|error| RecordingError::Line {
            line: 1,
            reason: error.to_string(),
        })?;
        Ok(Self {
            input,
            about,
            line: 1,
            text,
            was_cut: false,
        })
    }

    /// What it says of itself.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Whether it ended in the middle of a line, because whoever wrote it was stopped. The sample in
    /// that line is lost, those before it are whole.
    #[must_use]
    pub fn was_cut(&self) -> bool {
        self.was_cut
    }

    /// The next sample; `None` at the end.
    ///
    /// # Errors
    /// If the file cannot be read, or a line is damaged.
    pub fn read(&mut self) -> Result<Option<Sample>, RecordingError> {
        loop {
            self.text.clear();
            self.line += 1;
            let mut input = (&mut self.input).take(LINE_BYTES_MAX);
            let read = input.read_until(b'\n', &mut self.text)?;
            if read == 0 {
                return Ok(None);
            }
            let is_whole = self.text.ends_with(b"\n");
            if !is_whole && input.limit() == 0 {
                return Err(self.damaged(format!("it is longer than {LINE_BYTES_MAX} bytes")));
            }
            if self.text.trim_ascii().is_empty() {
                continue;
            }
            let row: Row = match serde_json::from_slice(&self.text) {
                Ok(row) => row,
                Err(error) if !is_whole && error.is_eof() => {
                    self.was_cut = true;
                    return Ok(None);
                }
                Err(error) => return Err(self.damaged(error.to_string())),
            };
            return Sample::try_from(row)
                .map(Some)
                .map_err(|reason| self.damaged(reason));
        }
    }

    fn damaged(&self, reason: String) -> RecordingError {
        RecordingError::Line {
            line: self.line,
            reason,
        }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Sample, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use weir_core::{
        key::Key,
        value::{Encoding, Value},
        version::Stamp,
    };

    fn write(samples: &[Sample]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), &About::new("**", "now")).unwrap();
        samples
            .iter()
            .for_each(|sample| writer.write(sample).unwrap());
        assert_eq!(writer.samples(), samples.len() as u64);
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<(Vec<Sample>, bool), RecordingError> {
        let mut reader = Reader::new(bytes)?;
        let samples = reader.by_ref().collect::<Result<Vec<_>, _>>()?;
        Ok((samples, reader.was_cut()))
    }

    fn any_sample() -> impl Strategy<Value = Sample> {
        let bytes = || any::<Vec<u8>>().prop_map(Bytes::from);
        let value = (
            any::<u16>(),
            proptest::option::of(bytes()),
            proptest::option::of(bytes()),
            bytes(),
        );
        let value = value.prop_map(|(id, schema, attachment, payload)| Value {
            encoding: Encoding { id, schema },
            attachment,
            payload,
        });
        let stamp = any::<(u64, [u8; 16])>().prop_map(|(time, id)| Stamp { time, id });
        (
            ".{0,12}",
            proptest::option::of(stamp),
            proptest::option::of(value),
            1u8..=7,
        )
            .prop_map(|(key, stamp, value, priority)| Sample {
                key: Key::new(key),
                stamp,
                value,
                priority,
            })
    }

    proptest! {
        #[test]
        fn what_was_recorded_is_what_is_replayed(samples in proptest::collection::vec(any_sample(), 0..8)) {
            prop_assert_eq!(read(&write(&samples)).unwrap(), (samples, false));
        }

        #[test]
        fn a_recording_that_was_cut_has_all_that_is_whole(samples in proptest::collection::vec(any_sample(), 1..6), at: proptest::sample::Index) {
            let bytes = write(&samples);
            let head = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
            let cut = &bytes[..head + at.index(bytes.len() - head + 1)];
            let whole = cut.iter().filter(|byte| **byte == b'\n').count() - 1;
            let (read, was_cut) = read(cut).unwrap();
            // A line may lack its end and nothing else.
            prop_assert!(read.len() == whole || read.len() == whole + 1);
            prop_assert_eq!(&read[..], &samples[..read.len()]);
            prop_assert_eq!(was_cut, read.len() == whole && !cut.ends_with(b"\n"));
        }

        #[test]
        fn nothing_that_is_read_is_a_panic(bytes: Vec<u8>, line: Vec<u8>) {
            let _ = read(&bytes);
            let mut about = write(&[]);
            about.extend(line);
            let _ = read(&about);
        }
    }

    #[test]
    fn what_is_no_recording_is_told() {
        let rows = [
            ("", "no recording"),
            ("{\"key\":\"a\"}\n", "no recording"),
            ("{\"weir_recording\":2}\n", "version 2"),
            (
                "{\"weir_recording\":1,\"key_expr\":\"a\",\"begun\":\"b\"}\n\n{\"kay\":1}\n",
                "line 3",
            ),
            (
                "{\"weir_recording\":1,\"key_expr\":\"a\",\"begun\":\"b\"}\n{\"key\":\"a\",\"priority\":0}\n",
                "line 2: priority 0",
            ),
        ];
        for (text, expected) in rows {
            let error = read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
