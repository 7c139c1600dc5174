//! Samples as a policy reads them: one at a time out of the columns of a batch.

use std::slice;

use crate::{Hlc, bindings::weir::policy::types};

/// One to 1024 samples, in the order in which they arrived.
#[derive(Clone, Debug)]
pub struct Batch(types::Batch);

/// One sample of a batch. What the manifest does not ask for is zero or empty.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    scalars: &'a types::Sample,
    key: &'a str,
    payload: &'a [u8],
    attachment: &'a [u8],
}

/// The samples of a batch, in order.
#[derive(Debug)]
pub struct Samples<'a> {
    batch: &'a types::Batch,
    rest: slice::Iter<'a, types::Sample>,
    /// Where the pieces of the next sample begin.
    starts: [usize; 3],
}

impl Batch {
    /// The samples, in order.
    #[must_use]
    pub fn iter(&self) -> Samples<'_> {
        Samples {
            batch: &self.0,
            rest: self.0.samples.iter(),
            starts: [0; 3],
        }
    }

    /// How many samples there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.samples.len()
    }

    /// Whether there is none, which the host never sends.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.samples.is_empty()
    }
}

impl From<types::Batch> for Batch {
    fn from(columns: types::Batch) -> Self {
        Self(columns)
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = Sample<'a>;
    type IntoIter = Samples<'a>;

    fn into_iter(self) -> Samples<'a> {
        self.iter()
    }
}

impl<'a> Iterator for Samples<'a> {
    type Item = Sample<'a>;

    fn next(&mut self) -> Option<Sample<'a>> {
        let scalars = self.rest.next()?;
        let [key, payload, attachment] = self.starts;
        self.starts =
            [scalars.key_end, scalars.payload_end, scalars.attachment_end].map(|end| end as usize);
        let [key_end, payload_end, attachment_end] = self.starts;
        // Offsets are the host's promise; one that broke it would get empty pieces, not a trap.
        Some(Sample {
            scalars,
            key: self.batch.keys.get(key..key_end).unwrap_or_default(),
            payload: self
                .batch
                .payloads
                .get(payload..payload_end)
                .unwrap_or_default(),
            attachment: self
                .batch
                .attachments
                .get(attachment..attachment_end)
                .unwrap_or_default(),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.rest.size_hint()
    }
}

impl ExactSizeIterator for Samples<'_> {}

impl<'a> Sample<'a> {
    /// The key in full, with the storage's prefix ([`KEY`](crate::Fields::KEY)).
    #[must_use]
    pub fn key(&self) -> &'a str {
        self.key
    }

    /// xxh3-64 of the key: the same on every router, in every version. Always there.
    #[must_use]
    pub fn key_hash(&self) -> u64 {
        self.scalars.key_hash
    }

    /// Part of the key, counted from 0, or from the end if negative: -1 is the last.
    #[must_use]
    pub fn chunk(&self, index: i32) -> Option<&'a str> {
        let place = usize::try_from(index.unsigned_abs()).ok()?;
        if index < 0 {
            self.key.rsplit('/').nth(place - 1)
        } else {
            self.key.split('/').nth(place)
        }
    }

    /// When and by which clock it was stamped ([`TIMESTAMP`](crate::Fields::TIMESTAMP)); only a delete may lack it.
    #[must_use]
    pub fn timestamp(&self) -> Option<Hlc> {
        let stamp = self.scalars.timestamp;
        (!stamp.is_none()).then_some(stamp)
    }

    /// The first bytes of the payload, as many as the manifest asks for ([`PAYLOAD`](crate::Fields::PAYLOAD)).
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Bytes of the whole payload ([`SIZE`](crate::Fields::SIZE)).
    #[must_use]
    pub fn payload_size(&self) -> u32 {
        self.scalars.payload_size
    }

    /// What was attached ([`ATTACHMENT`](crate::Fields::ATTACHMENT)); empty if nothing was.
    #[must_use]
    pub fn attachment(&self) -> &'a [u8] {
        self.attachment
    }

    /// Zenoh's number of the encoding, without the schema ([`ENCODING`](crate::Fields::ENCODING)).
    #[must_use]
    pub fn encoding(&self) -> u16 {
        self.scalars.encoding
    }

    /// Zenoh's priority ([`PRIORITY`](crate::Fields::PRIORITY)): 1 (real time) to 7 (background).
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.scalars.priority
    }

    /// Whether it deletes its key ([`KIND`](crate::Fields::KIND)).
    #[must_use]
    pub fn is_delete(&self) -> bool {
        matches!(self.scalars.kind, types::SampleKind::Delete)
    }
}
