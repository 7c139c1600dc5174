//! A batch as guests see it: scalars in a row each, text and bytes in columns beside them. The buffers
//! are filled again for every call, so that a sample costs no allocation.

use std::sync::Arc;

use weir_core::placement::Description;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    bindings::{Batch, Hlc, Sample, SampleKind},
    environment::{Fields, Manifest},
    limits::{BATCH_BYTES_MAX, BATCH_SAMPLES_MAX},
};

/// The buffers of one instance.
#[derive(Default)]
pub(crate) struct Columns {
    batch: Arc<Batch>,
    /// A key in full, where keys are not given but hashed.
    key: String,
}

/// What a policy asked for.
#[derive(Clone, Copy)]
pub(crate) struct Needs {
    fields: Fields,
    payload_prefix: usize,
}

impl From<&Manifest> for Needs {
    fn from(manifest: &Manifest) -> Self {
        Self {
            fields: manifest.needs,
            payload_prefix: usize::try_from(manifest.payload_prefix).unwrap_or(usize::MAX),
        }
    }
}

impl Columns {
    /// Takes samples from the front, as many as fit into one call, and says how many those are: at
    /// least one, unless there is none.
    pub fn fill<'a>(
        &mut self,
        prefix: &str,
        needs: Needs,
        samples: impl Iterator<Item = &'a Description<'a>>,
    ) -> usize {
        // Nobody holds the batch between calls; if a call kept it, a fresh one costs an allocation.
        if Arc::get_mut(&mut self.batch).is_none() {
            self.batch = Arc::default();
        }
        let Some(batch) = Arc::get_mut(&mut self.batch) else {
            return 0;
        };
        batch.samples.clear();
        batch.keys.clear();
        batch.payloads.clear();
        batch.attachments.clear();
        for description in samples.take(BATCH_SAMPLES_MAX) {
            let sample = append(batch, &mut self.key, prefix, needs, description);
            batch.samples.push(sample);
            let bytes = batch.keys.len() + batch.payloads.len() + batch.attachments.len();
            if bytes >= BATCH_BYTES_MAX {
                break;
            }
        }
        batch.samples.len()
    }

    /// What was filled in last.
    pub fn batch(&self) -> Arc<Batch> {
        Arc::clone(&self.batch)
    }
}

fn append(
    batch: &mut Batch,
    scratch: &mut String,
    prefix: &str,
    needs: Needs,
    description: &Description<'_>,
) -> Sample {
    let has = |field| needs.fields.contains(field);
    let key_hash = if has(Fields::KEY) {
        let start = batch.keys.len();
        push_key(&mut batch.keys, prefix, description.key);
        xxh3_64(&batch.keys.as_bytes()[start..])
    } else {
        scratch.clear();
        push_key(scratch, prefix, description.key);
        xxh3_64(scratch.as_bytes())
    };
    let value = description.value;
    if let (true, Some(value)) = (has(Fields::PAYLOAD), value) {
        let length = value.payload.len().min(needs.payload_prefix);
        batch.payloads.extend_from_slice(&value.payload[..length]);
    }
    let attachment = value.and_then(|value| value.attachment.as_ref());
    if let (true, Some(attachment)) = (has(Fields::ATTACHMENT), attachment) {
        batch.attachments.extend_from_slice(attachment);
    }
    let size = value.map_or(0, |value| value.payload.len());
    let kind = match value {
        None if has(Fields::KIND) => SampleKind::Delete,
        _ => SampleKind::Put,
    };
    Sample {
        key_hash,
        timestamp: match description.stamp {
            Some(stamp) if has(Fields::TIMESTAMP) => stamp.into(),
            _ => Hlc::default(),
        },
        payload_size: if has(Fields::SIZE) { clamp(size) } else { 0 },
        key_end: clamp(batch.keys.len()),
        payload_end: clamp(batch.payloads.len()),
        attachment_end: clamp(batch.attachments.len()),
        encoding: match value {
            Some(value) if has(Fields::ENCODING) => value.encoding.id,
            _ => 0,
        },
        priority: if has(Fields::PRIORITY) {
            description.priority
        } else {
            0
        },
        kind,
    }
}

/// The key as everybody else knows it: with the storage's prefix.
fn push_key(out: &mut String, prefix: &str, key: &str) {
    out.push_str(prefix);
    if !prefix.is_empty() && !key.is_empty() {
        out.push('/');
    }
    out.push_str(key);
}

fn clamp(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use weir_core::{key::Key, value::Value, version::Stamp};

    use super::*;

    fn needs(fields: Fields, payload_prefix: usize) -> Needs {
        Needs {
            fields,
            payload_prefix,
        }
    }

    fn describe<'a>(key: &'a Key, value: Option<&'a Value>) -> Description<'a> {
        Description {
            key,
            key_hash: 1,
            stamp: Some(Stamp {
                time: 5,
                id: [3; 16],
            }),
            value,
            priority: 2,
        }
    }

    #[test]
    fn only_what_is_asked_for_is_filled_in() {
        let (key, root) = (Key::from("7/video"), Key::root());
        let value = Value {
            attachment: Some(Bytes::from_static(b"meta")),
            ..Value::bytes("payload")
        };
        let batch = [describe(&key, Some(&value)), describe(&root, None)];
        let mut columns = Columns::default();
        assert_eq!(
            columns.fill("fleet", needs(Fields::NONE, 3), batch.iter()),
            2
        );
        let bare = columns.batch();
        assert_eq!(
            (bare.keys.len(), bare.payloads.len(), bare.attachments.len()),
            (0, 0, 0)
        );
        assert_eq!(bare.samples[0].key_hash, xxh3_64(b"fleet/7/video"));
        assert_eq!(bare.samples[1].key_hash, xxh3_64(b"fleet"));
        assert_eq!(
            (bare.samples[0].payload_size, bare.samples[0].priority),
            (0, 0)
        );
        assert!(matches!(bare.samples[1].kind, SampleKind::Put));

        let all = Fields::KEY | Fields::PAYLOAD | Fields::ATTACHMENT | Fields::SIZE | Fields::KIND;
        assert_eq!(columns.fill("fleet", needs(all, 3), batch.iter()), 2);
        let full = columns.batch();
        assert_eq!(full.keys, "fleet/7/videofleet");
        assert_eq!(full.samples[0].key_end, 13);
        assert_eq!(full.samples[0].key_hash, bare.samples[0].key_hash);
        assert_eq!(
            (&full.payloads[..], &full.attachments[..]),
            (&b"pay"[..], &b"meta"[..])
        );
        assert_eq!(full.samples[0].payload_size, 7);
        assert_eq!(
            (full.samples[1].payload_end, full.samples[1].attachment_end),
            (3, 4)
        );
        assert!(matches!(full.samples[1].kind, SampleKind::Delete));
    }

    #[test]
    fn a_long_batch_is_cut_by_number_and_by_bytes_but_never_in_a_sample() {
        let key = Key::from("k");
        let value = Value {
            attachment: Some(Bytes::from(vec![0; BATCH_BYTES_MAX / 2])),
            ..Value::default()
        };
        let small = vec![describe(&key, None); BATCH_SAMPLES_MAX + 1];
        let large = vec![describe(&key, Some(&value)); 5];
        let mut columns = Columns::default();
        let none = needs(Fields::NONE, 0);
        assert_eq!(columns.fill("", none, small.iter()), BATCH_SAMPLES_MAX);
        assert_eq!(columns.fill("", none, small[BATCH_SAMPLES_MAX..].iter()), 1);
        assert_eq!(columns.fill("", none, [].iter()), 0);
        assert_eq!(
            columns.fill("", needs(Fields::ATTACHMENT, 0), large.iter()),
            2
        );
    }
}
