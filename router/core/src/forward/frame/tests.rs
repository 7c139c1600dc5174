use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    forward::{Cause, Source},
    version::Stamp,
};

/// A second (NTP64) of this decade.
const NOW: u64 = 1_790_000_000 << 32;

fn stretch() -> impl Strategy<Value = Stretch> {
    let seconds = (0u8..3, 1u64..9, 1u64..9).prop_map(|(source, from, length)| {
        let from = NOW + (from << 32);
        let to = from + (length << 32);
        let source = [source; 16];
        Stretch { source, from, to }
    });
    let any = (any::<Source>(), any::<u64>(), any::<u64>())
        .prop_filter_map("nothing inside", |(source, from, to)| {
            (from < to).then_some(Stretch { source, from, to })
        });
    prop_oneof![seconds, any]
}

fn version() -> impl Strategy<Value = Version> {
    any::<(u64, [u8; 16], Option<u64>)>().prop_map(|(time, id, hash)| {
        let stamp = Stamp { time, id };
        hash.map_or(Version::delete(stamp), |hash| Version::put(stamp, hash))
    })
}

fn request() -> impl Strategy<Value = Request> {
    let ids = || proptest::collection::vec(any::<u64>(), 0..5);
    let summary = any::<(u64, u128)>().prop_map(|(count, sum)| Summary { count, sum });
    let head = ("[a-c/]{0,9}", version()).prop_map(|(key, version)| (Key::new(key), version));
    let cause = prop_oneof![
        Just(Cause::Full),
        Just(Cause::Age),
        Just(Cause::Damage),
        Just(Cause::Other)
    ];
    let lost = (stretch(), any::<u64>(), cause).prop_map(|(stretch, count, cause)| Lost {
        stretch,
        count,
        cause,
    });
    prop_oneof![
        proptest::collection::vec((stretch(), summary), 0..6).prop_map(Request::Compare),
        (stretch(), ids()).prop_map(|(stretch, ids)| Request::List { stretch, ids }),
        proptest::collection::vec(head, 0..6).prop_map(Request::Heads),
        ids().prop_map(Request::Operations),
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| Request::Ship {
            packed: bytes.into()
        }),
        proptest::collection::vec(lost, 0..6).prop_map(Request::Lost),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let absent = || proptest::collection::vec(any::<bool>(), 0..40);
    let found = prop_oneof![
        Just(Found::Have),
        Just(Found::Absent),
        any::<u64>().prop_map(|count| Found::Differs { count }),
        Just(Found::Latest),
        Just(Found::Gone),
        Just(Found::Merged),
    ];
    prop_oneof![
        proptest::collection::vec(found, 0..6).prop_map(Reply::Compared),
        absent().prop_map(Reply::Listed),
        absent().prop_map(Reply::Heads),
        absent().prop_map(Reply::Operations),
        any::<(u64, u64, u64, u64, u64, u64)>().prop_map(
            |(applied, superfluous, aside, refused, credit, spent_us)| Reply::Stored(Stored {
                applied,
                superfluous,
                aside,
                refused,
                credit,
                spent_us,
            })
        ),
        Just(Reply::Noted),
        Just(Reply::Refused(Bad::Unreadable)),
    ]
}

proptest! {
    #[test]
    fn frames_come_back_as_they_were(request in request(), reply in reply()) {
        prop_assert!(is_forward(&request.encode()));
        prop_assert_eq!(Request::decode(&request.encode().into()), Ok(request));
        prop_assert_eq!(Reply::decode(&reply.encode().into()), Ok(reply));
    }

    #[test]
    fn whatever_is_cut_off_or_changed_is_an_error_or_a_frame(
        request in request(),
        reply in reply(),
        cut in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        for mut frame in [request.encode(), reply.encode()] {
            let short = Bytes::copy_from_slice(&frame[..cut.index(frame.len())]);
            let _ = (Request::decode(&short), Reply::decode(&short));
            let place = at.index(frame.len());
            frame[place] = byte;
            let changed = Bytes::from(frame);
            let _ = (Request::decode(&changed), Reply::decode(&changed));
        }
    }

    #[test]
    fn random_bytes_are_an_error_or_a_frame(
        kind in 0u8..9,
        tag in 0u8..12,
        bytes in proptest::collection::vec(any::<u8>(), 0..127),
    ) {
        let len = u8::try_from(bytes.len()).unwrap();
        for kind in [kind, kind | 0x80] {
            let frame = Bytes::from([&[FORWARD, VERSION, kind, tag, len][..], &bytes].concat());
            // What is read is what was meant: it comes back.
            if let Ok(request) = Request::decode(&frame) {
                prop_assert_eq!(Request::decode(&request.encode().into()), Ok(request));
            }
            if let Ok(reply) = Reply::decode(&frame) {
                prop_assert_eq!(Reply::decode(&reply.encode().into()), Ok(reply));
            }
        }
    }

    /// What a later version adds to a frame.
    #[test]
    fn unknown_fields_are_skipped(
        request in request(),
        tag in 11u8..,
        value in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut frame = request.encode();
        frame.extend([tag, u8::try_from(value.len()).unwrap()]);
        frame.extend(value);
        prop_assert_eq!(Request::decode(&frame.into()), Ok(request));
    }
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let row = |bytes: &[u8], why| {
        let frame = Bytes::copy_from_slice(bytes);
        assert_eq!(Request::decode(&frame), Err(why), "{bytes:?}");
        assert_eq!(Reply::decode(&frame), Err(why), "{bytes:?}");
    };
    row(&[FORWARD, 2, 1], Bad::Version);
    row(&[FORWARD, VERSION, 77], Bad::Kind);
    row(&[FORWARD, VERSION], Bad::Malformed);
    row(&[1, 1, 1], Bad::Malformed);
    row(&[], Bad::Malformed);
}

/// A certificate every few seconds has to cost next to nothing.
#[test]
fn a_comparison_costs_what_it_may() {
    let source = [7; 16];
    let seconds = |from: u64, length: u64| Stretch {
        source,
        from: NOW + (from << 32),
        to: NOW + ((from + length) << 32),
    };
    let summary = Summary {
        count: 10_000,
        sum: u128::MAX,
    };
    let one = Request::Compare(vec![(seconds(0, 1), summary)]).encode();
    let answer = Reply::Compared(vec![Found::Differs { count: 9_999 }]).encode();
    assert!(one.len() <= 52, "{}", one.len());
    assert!(answer.len() <= 10, "{}", answer.len());
    // The parts of one that was cut share their source.
    let parts = (0..16).map(|at| (seconds(at * 40, 40), summary)).collect();
    let parts = Request::Compare(parts).encode();
    assert!(parts.len() <= 44 + 16 * 22, "{}", parts.len());
}

#[test]
fn lengths_that_lie_claim_no_memory() {
    for tag in 1..=10u8 {
        for kind in (1..=6).chain(0x80..=0x86) {
            let value = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
            let len = u8::try_from(value.len()).unwrap();
            let frame = Bytes::from([&[FORWARD, VERSION, kind, tag, len][..], &value].concat());
            let is_harmless = matches!(
                (Request::decode(&frame), Reply::decode(&frame)),
                (
                    Err(_) | Ok(Request::Ship { .. }),
                    Err(_) | Ok(Reply::Noted | Reply::Refused(_))
                )
            );
            assert!(is_harmless, "{kind} {tag}");
        }
    }
}
