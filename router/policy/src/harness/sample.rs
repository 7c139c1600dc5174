//! A sample as cases and recordings write it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use weir_core::{
    key::Key,
    placement::Description,
    value::{Encoding, Value},
    version::Stamp,
};
use xxhash_rust::xxh3::xxh3_64;

use super::written::{encoding, payload, payload_json, stamp, stamp_text};

/// Zenoh's priority of a sample that names none.
pub const PRIORITY_DEFAULT: u8 = 5;
/// Bytes that a case may have its payload filled up to: what Zenoh itself takes at once.
const SIZE_MAX: usize = 1 << 30;

/// A sample, whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sample {
    /// The key in full.
    pub key: Key,
    /// When and by whom it was stamped, if it was.
    pub stamp: Option<Stamp>,
    /// What it puts; nothing if it deletes.
    pub value: Option<Value>,
    /// Zenoh's priority: 1 (real time) to 7 (background).
    pub priority: u8,
}

/// A sample as it is written; what is absent is what it would be anyway.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<Json>,
    /// What follows the encoding's `;`.
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attachment: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Json>,
    /// Zero bytes are added to the payload up to here.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<usize>,
}

impl Sample {
    /// The sample as policies are told of it, the key in full.
    #[must_use]
    pub fn describe(&self) -> Description<'_> {
        Description {
            key: &self.key,
            key_hash: xxh3_64(self.key.as_bytes()),
            stamp: self.stamp,
            value: self.value.as_ref(),
            priority: self.priority,
        }
    }
}

impl TryFrom<Row> for Sample {
    type Error = String;

    fn try_from(row: Row) -> Result<Self, String> {
        let is_put = match row.kind.as_deref() {
            None | Some("put") => true,
            Some("delete") => false,
            Some(other) => return Err(format!("`{other}` is no kind: put or delete")),
        };
        let priority = row.priority.unwrap_or(PRIORITY_DEFAULT);
        if !(1..=7).contains(&priority) {
            return Err(format!(
                "priority {priority}: 1 (real time) to 7 (background)"
            ));
        }
        let value = is_put.then(|| row.value()).transpose()?;
        Ok(Self {
            stamp: row.timestamp.as_ref().map(stamp).transpose()?,
            key: Key::new(row.key),
            value,
            priority,
        })
    }
}

impl Row {
    fn value(&self) -> Result<Value, String> {
        let bytes = |written: &Option<Json>| written.as_ref().map(payload).transpose();
        let mut body = bytes(&self.payload)?.unwrap_or_default();
        if let Some(size) = self.size.filter(|size| *size > body.len()) {
            if size > SIZE_MAX {
                return Err(format!("a payload of {size} bytes: {SIZE_MAX} is the most"));
            }
            let mut padded = body.to_vec();
            padded.resize(size, 0);
            body = Bytes::from(padded);
        }
        Ok(Value {
            encoding: Encoding {
                id: self.encoding.as_ref().map_or(Ok(0), encoding)?,
                schema: bytes(&self.schema)?,
            },
            attachment: bytes(&self.attachment)?,
            payload: body,
        })
    }
}

impl From<&Sample> for Row {
    fn from(sample: &Sample) -> Self {
        let value = sample.value.as_ref();
        let bytes = |bytes: &Bytes| payload_json(bytes);
        Self {
            key: sample.key.to_string(),
            timestamp: sample.stamp.map(|stamp| json!(stamp_text(stamp))),
            kind: value.is_none().then(|| "delete".to_owned()),
            priority: (sample.priority != PRIORITY_DEFAULT).then_some(sample.priority),
            encoding: value
                .filter(|value| value.encoding.id != 0)
                .map(|value| json!(value.encoding.id)),
            schema: value
                .and_then(|value| value.encoding.schema.as_ref())
                .map(bytes),
            attachment: value.and_then(|value| value.attachment.as_ref()).map(bytes),
            payload: value
                .filter(|value| !value.payload.is_empty())
                .map(|value| bytes(&value.payload)),
            size: None,
        }
    }
}
