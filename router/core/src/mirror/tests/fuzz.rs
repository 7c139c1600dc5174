//! Whatever bytes come: an error or an answer, and no more memory than the frame is long, times a
//! constant.

use bytes::Bytes;
use proptest::prelude::*;

use super::model::{Model, op, stamp, state};
use crate::{
    identity::Identity,
    ledger::{Axis, Span, Summary},
    mirror::{
        answer::{Limits, answer},
        frame::{
            Bad, Brief, Cut, Parcel, Probe, Probed, Reply, Request, Rest, Strip, Verdict, Want,
        },
    },
    version::Version,
};

fn position() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(1u8..4, 1..6)
}

fn cut() -> impl Strategy<Value = (Span, Cut)> {
    let brief = (0u64..9, any::<u64>()).prop_map(|(count, sum)| Brief {
        count,
        sum: if count == 0 { 0 } else { sum },
    });
    let bounds = proptest::collection::btree_set(position(), 0..8);
    (bounds, proptest::collection::vec(brief, 9), any::<bool>()).prop_map(
        |(bounds, briefs, time)| {
            let axis = if time { Axis::Times } else { Axis::Keys };
            let bounds = bounds.into_iter().map(|mut bound| {
                if time {
                    bound.resize(8, 0);
                }
                bound
            });
            let bounds: Vec<_> = bounds.collect();
            let briefs = briefs[..=bounds.len()].to_vec();
            (Span::all(axis), Cut { bounds, briefs })
        },
    )
}

fn parcel() -> impl Strategy<Value = Parcel> {
    let states = proptest::collection::vec(("[a-c/]{0,9}", any::<u64>(), any::<bool>()), 0..6);
    (any::<u64>(), any::<u64>(), states, 0usize..3).prop_map(|(revision, time, states, ops)| {
        Parcel {
            revision,
            horizon: if time % 2 == 0 {
                Version::ZERO
            } else {
                Version::delete(stamp(time, 1))
            },
            ops: (0..ops)
                .map(|at| op("a/**", stamp(at as u64, 1), Some("x")))
                .collect(),
            states: states
                .into_iter()
                .map(|(key, time, live)| state(&key, stamp(time, 2), live.then_some("value")))
                .collect(),
            packed: (revision % 2 == 0).then(|| Bytes::from_static(b"packed")),
        }
    })
}

/// Up to three stores.
fn stores(seed: u64) -> Vec<Identity> {
    let store = |number| Identity {
        id: seed ^ number,
        incarnation: seed >> 50,
        run: 7,
        parent: 6,
        opened: seed >> 9,
        position: (seed >> 9) + number,
    };
    (0..seed % 4).map(store).collect()
}

fn request() -> impl Strategy<Value = Request> {
    let ids = || proptest::collection::vec(any::<u64>(), 0..5);
    let want = (cut(), proptest::option::of(ids()));
    prop_oneof![
        (any::<(u64, u128, u64)>(), any::<Option<(u64, u64, u128)>>()).prop_map(
            |((count, sum, rest), times)| Request::Probe(Probe {
                keys: Summary { count, sum },
                times: times.map(|(minute, count, sum)| (minute, Summary { count, sum })),
                rest,
                revision: rest % 3,
                waits: rest % 2 == 0,
                stores: stores(rest),
            })
        ),
        (any::<u64>(), ids(), any::<u64>()).prop_map(|(time, ids, credit)| Request::Wildcards {
            horizon: Version::delete(stamp(time, 3)),
            ids,
            credit,
        }),
        proptest::collection::vec(cut(), 0..4).prop_map(|strips| {
            let strips = strips.into_iter().map(|(span, cut)| Strip { span, cut });
            Request::Compare(strips.collect())
        }),
        (cut(), any::<u64>(), any::<u64>()).prop_map(|((span, _), of, part)| Request::List {
            span,
            of,
            part
        }),
        (
            proptest::collection::vec(want, 0..4),
            any::<u64>(),
            any::<u64>()
        )
            .prop_map(|(wants, floor, credit)| Request::Fetch {
                horizon: Version::ZERO,
                unpacks: credit % 2 == 0,
                wants: wants
                    .into_iter()
                    .map(|((span, _), ids)| Want { span, ids })
                    .collect(),
                floor,
                credit,
            }),
        parcel().prop_map(Request::Push),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let ids = || proptest::collection::vec(any::<u64>(), 0..5);
    let verdict = prop_oneof![
        Just(Verdict::Later),
        Just(Verdict::Empty),
        any::<u64>().prop_map(Verdict::Whole),
        ids().prop_map(Verdict::Ids),
        any::<u64>().prop_map(Verdict::Dense),
        cut().prop_map(|(span, cut)| Verdict::Split(span.axis, cut)),
    ];
    let rest = any::<(u64, u64, u64)>().prop_map(|(floor, revision, wildcards)| Rest {
        horizon: Version::delete(stamp(floor, 4)),
        floor,
        revision,
        wildcards,
    });
    let probed = (
        any::<(u64, bool, bool)>(),
        proptest::option::of(cut()),
        proptest::option::of(rest),
    );
    prop_oneof![
        (probed, any::<Option<u64>>()).prop_map(
            |(((now, is_silent, is_deaf), cut, rest), floor)| {
                let found = |axis| {
                    let cut = cut.clone().filter(|(span, _)| span.axis == axis);
                    cut.map(|(_, cut)| {
                        (
                            Summary {
                                count: now,
                                sum: u128::MAX,
                            },
                            cut,
                        )
                    })
                };
                let (keys, times) = (found(Axis::Keys), found(Axis::Times));
                Reply::Probed(Box::new(Probed {
                    now,
                    is_silent,
                    is_deaf,
                    waits: now % 2 == 0,
                    unpacks: now % 3 == 0,
                    keys,
                    times,
                    floor,
                    rest,
                    stores: stores(now),
                }))
            }
        ),
        (parcel(), any::<bool>(), ids()).prop_map(|(parcel, more, missing)| Reply::Wildcards {
            parcel,
            more,
            missing
        }),
        proptest::collection::vec((0u64..1000, verdict), 0..6).prop_map(|verdicts| {
            let mut at = 0;
            let verdicts = verdicts.into_iter().map(|(skip, verdict)| {
                at += skip + 1;
                (at, verdict)
            });
            Reply::Compared(verdicts.collect())
        }),
        ids().prop_map(Reply::Listed),
        (parcel(), proptest::option::of((any::<u64>(), position())))
            .prop_map(|(parcel, next)| Reply::Page { parcel, next }),
        Just(Reply::Stored),
        Just(Reply::Refused(Bad::Unreadable)),
    ]
}

fn asked(frame: &[u8]) -> Result<Vec<u8>, Bad> {
    let mut replica = Model::new(3);
    for at in 0..50 {
        replica.put(state(&format!("a/{at}"), stamp(at, 1), Some("x")));
    }
    let answered = answer(frame, &mut replica, &Limits::default());
    answered.map(|answered| answered.reply).map_err(|refused| {
        assert_eq!(
            Reply::decode(&refused.reply.into()),
            Ok(Reply::Refused(refused.why))
        );
        refused.why
    })
}

proptest! {
    #[test]
    fn frames_come_back_as_they_were(request in request(), reply in reply()) {
        prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
        prop_assert_eq!(Reply::decode(&reply.encode().into()), Ok(reply));
    }

    #[test]
    fn whatever_is_cut_off_or_changed_is_an_error_or_an_answer(
        request in request(),
        reply in reply(),
        cut in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut frame = request.encode();
        let _ = asked(&frame[..cut.index(frame.len())]);
        let place = at.index(frame.len());
        frame[place] = byte;
        let _ = asked(&frame);
        let mut frame = reply.encode();
        let _ = Reply::decode(&Bytes::copy_from_slice(&frame[..cut.index(frame.len())]));
        let place = at.index(frame.len());
        frame[place] = byte;
        let _ = Reply::decode(&frame.into());
    }

    #[test]
    fn random_bytes_are_an_error_or_an_answer(
        kind in 0u8..8,
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let _ = asked(&bytes);
        let frame = [&[1, kind][..], &bytes].concat();
        let _ = asked(&frame);
        let _ = Reply::decode(&[&[1, kind | 0x80][..], &bytes].concat().into());
    }

    /// What a later version adds to a frame.
    #[test]
    fn unknown_fields_are_skipped(
        request in request(),
        tag in 26u8..,
        value in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut frame = request.encode();
        frame.extend([tag, u8::try_from(value.len()).unwrap()]);
        frame.extend(value);
        prop_assert_eq!(Request::decode(&frame), Ok(request));
    }
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let mut frame = Request::Probe(Probe::default()).encode();
    assert!(asked(&frame).is_ok());
    frame[0] = 2;
    assert_eq!(asked(&frame), Err(Bad::Version));
    assert_eq!(asked(&[1, 77]), Err(Bad::Kind));
    assert_eq!(asked(&[1]), Err(Bad::Malformed));
    assert_eq!(asked(&[]), Err(Bad::Malformed));
    // A number of more than 64 bits.
    let nine = [0xff; 9];
    let list = |last: u8| [&[1, 4, 15, 4, 0, 0, 0, 255, 16, 11], &nine[..], &[last, 0]].concat();
    assert_eq!(asked(&list(2)), Err(Bad::Malformed));
    assert!(asked(&list(1)).is_ok());
}

/// A bound may repeat the one before, so a short frame could stand for long ones.
#[test]
fn a_frame_decodes_to_no_more_than_a_constant_times_its_length() {
    let long = vec![7; 4_000];
    let bounds: Vec<Vec<u8>> = (0..2_000u32)
        .map(|at| [&long[..], &at.to_be_bytes()].concat())
        .collect();
    let briefs = vec![Brief::EMPTY; bounds.len() + 1];
    let decoded: usize = bounds.iter().map(Vec::len).sum();
    let strip = Strip {
        span: Span::all(Axis::Keys),
        cut: Cut { bounds, briefs },
    };
    let frame = Request::Compare(vec![strip]).encode();
    assert!(frame.len() * 128 > decoded, "{} for {decoded}", frame.len());
    // Lengths that lie claim memory that is not there.
    for tag in [12u8, 14, 17, 18, 19] {
        for kind in 1..=6 {
            let value = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
            let len = u8::try_from(value.len()).unwrap();
            let frame = [&[1, kind, tag, len][..], &value].concat();
            // A push has no use for most of these fields.
            let decoded = Request::decode(&frame);
            assert!(
                decoded == Err(Bad::Malformed) || decoded == Ok(Request::Push(Parcel::default()))
            );
        }
    }
}
