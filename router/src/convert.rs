//! Between Zenoh's types and the core's.

use std::{
    ops::Bound,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use weir_core::{
    value::{Encoding, Value},
    version::Stamp,
};
use zenoh::{
    bytes::ZBytes,
    internal::buffers::ZSlice,
    query::{TimeBound, TimeExpr, TimeRange},
    sample::{Sample, SampleKind},
    time::{NTP64, Timestamp},
};

/// The value of a sample, copied out of the network's buffer; `None` for a delete.
pub(crate) fn value_of(sample: &Sample) -> Option<Value> {
    (sample.kind() == SampleKind::Put).then(|| {
        value(
            sample.payload(),
            Some(sample.encoding()),
            sample.attachment(),
        )
    })
}

/// A value from its parts. Copies: the parts are slices of network buffers that are much larger.
pub(crate) fn value(
    payload: &ZBytes,
    encoding: Option<&zenoh::bytes::Encoding>,
    attachment: Option<&ZBytes>,
) -> Value {
    let encoding = encoding.map_or_else(Encoding::default, |encoding| Encoding {
        id: encoding.id(),
        schema: encoding
            .schema()
            .map(|schema| Bytes::copy_from_slice(schema)),
    });
    Value {
        encoding,
        attachment: attachment.map(copy),
        payload: copy(payload),
    }
}

/// The encoding of a value.
pub(crate) fn encoding(encoding: &Encoding) -> zenoh::bytes::Encoding {
    let schema = encoding
        .schema
        .as_ref()
        .map(|schema| ZSlice::from(schema.to_vec()));
    zenoh::bytes::Encoding::new(encoding.id, schema)
}

/// The bytes of a value, shared.
pub(crate) fn zbytes(bytes: &Bytes) -> ZBytes {
    ZBytes::from(bytes.clone())
}

/// A stamp as Zenoh carries it; `None` for a stamp that no HLC can have given.
pub(crate) fn timestamp(stamp: Stamp) -> Option<Timestamp> {
    stamp.to_uhlc()
}

/// The time of a selector's `_time`, relative expressions resolved at `now`.
pub(crate) fn time_range(range: TimeRange<TimeExpr>, now: SystemTime) -> (Bound<u64>, Bound<u64>) {
    let range = range.resolve_at(now);
    let bound = |bound: TimeBound<SystemTime>| match bound {
        TimeBound::Inclusive(time) => Bound::Included(ntp64(time)),
        TimeBound::Exclusive(time) => Bound::Excluded(ntp64(time)),
        TimeBound::Unbounded => Bound::Unbounded,
    };
    (bound(range.start), bound(range.end))
}

/// A time as NTP64; before 1970 it is 0.
pub(crate) fn ntp64(time: SystemTime) -> u64 {
    NTP64::from(time.duration_since(UNIX_EPOCH).unwrap_or_default()).as_u64()
}

/// A time for people and programs alike: `2026-11-23T07:36:56.123Z`.
///
/// # Errors
/// The serializer's.
pub(crate) fn as_rfc3339<S: serde::Serializer>(
    time: &SystemTime,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

/// A duration as NTP64.
pub(crate) fn ntp64_span(span: Duration) -> u64 {
    NTP64::from(span).as_u64()
}

/// A span of NTP64 as a duration.
pub(crate) fn span(ntp64: u64) -> Duration {
    NTP64(ntp64).to_duration()
}

fn copy(bytes: &ZBytes) -> Bytes {
    match bytes.to_bytes() {
        std::borrow::Cow::Borrowed(slice) => Bytes::copy_from_slice(slice),
        std::borrow::Cow::Owned(vec) => Bytes::from(vec),
    }
}
