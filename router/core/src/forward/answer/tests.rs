use std::sync::Arc;

use proptest::prelude::*;
use zenoh_keyexpr::OwnedKeyExpr;

use super::*;
use crate::{
    forward::Cause,
    mirror::Page,
    record::{Merged, Record},
    vector::Vector,
    version::Stamp,
    wildcard::WildcardOp,
};

const SECOND: u64 = 1 << 32;

/// A storage of items that are given.
#[derive(Default)]
struct Held {
    marks: Marks,
    series: Vec<Item>,
    latest: Vec<Item>,
    /// The own version of what it holds, if a wildcard operation lies on top.
    own: Option<Version>,
    merged: Option<Box<Merged>>,
    ops: Vec<Arc<WildcardOp>>,
    is_broken: bool,
}

impl Held {
    fn of(&self, span: &Span) -> Result<Vec<Item>, Unreadable> {
        if self.is_broken {
            return Err(Unreadable("a bad sector".to_owned()));
        }
        let items = match span.axis {
            Axis::Keys => &self.latest,
            Axis::Times => &self.series,
        };
        let inside = items
            .iter()
            .filter(|item| span.contains(&item.position(span.axis)));
        Ok(inside.cloned().collect())
    }
}

impl Replica for Held {
    fn marks(&mut self) -> Result<Marks, Unreadable> {
        Ok(self.marks)
    }

    fn wildcards(&mut self) -> Result<Vec<Arc<WildcardOp>>, Unreadable> {
        Ok(self.ops.clone())
    }

    fn summary(&mut self, span: &Span) -> Result<Summary, Unreadable> {
        Ok(sum(&self.of(span)?))
    }

    fn split(&mut self, span: &Span, _: usize) -> Result<Vec<(Span, Summary)>, Unreadable> {
        Ok(vec![(span.clone(), self.summary(span)?)])
    }

    fn items(&mut self, span: &Span, max: usize) -> Result<Vec<Item>, Unreadable> {
        let mut items = self.of(span)?;
        items.truncate(max);
        Ok(items)
    }

    fn read(
        &mut self,
        span: &Span,
        wanted: &mut dyn FnMut(&Item) -> bool,
        _: usize,
    ) -> Result<Page, Unreadable> {
        let mut page = Page::default();
        for item in self.of(span)?.into_iter().filter(|item| wanted(item)) {
            let own = self.own.unwrap_or(item.version);
            page.states.push(State {
                key: item.key,
                record: Record {
                    merged: self.merged.clone(),
                    ..Record::own(own, None)
                },
            });
        }
        Ok(page)
    }
}

fn sum(items: &[Item]) -> Summary {
    let mut summary = Summary::EMPTY;
    for item in items {
        summary.add(item.hash());
    }
    summary
}

fn item(key: &str, source: u8, second: u64) -> Item {
    let stamp = Stamp {
        time: second * SECOND + 7,
        id: [source; 16],
    };
    Item {
        key: Key::from(key),
        version: Version::put(stamp, 9),
        merged: 0,
    }
}

fn stretch(source: u8, from: u64, to: u64) -> Stretch {
    Stretch {
        source: [source; 16],
        from: from * SECOND,
        to: to * SECOND,
    }
}

fn ask(request: &Request, replica: &mut Held) -> Result<Answer, Bad> {
    let answered = answer(&request.encode(), replica, &Limits::default());
    answered.map_err(|refused| {
        let reply = Reply::decode(&refused.reply.into());
        assert_eq!(reply, Ok(Reply::Refused(refused.why)));
        refused.why
    })
}

fn reply(request: &Request, replica: &mut Held) -> Reply {
    Reply::decode(&ask(request, replica).unwrap().reply.into()).unwrap()
}

#[test]
fn a_stretch_is_compared_by_its_source_alone() {
    let ours: Vec<Item> = (10..20).map(|second| item("a", 1, second)).collect();
    let others: Vec<Item> = (10..30).map(|second| item("b", 2, second)).collect();
    let all = [&ours[..], &others[..]].concat();
    let some = [&ours[3..], &others[..]].concat();
    // what the storage holds, since when, what is found of source 1 from second 10 to 20
    let rows = [
        (ours.clone(), 0, Found::Have),
        (all.clone(), 0, Found::Have),
        (some, 0, Found::Differs { count: 7 }),
        (others, 0, Found::Absent),
        (Vec::new(), 0, Found::Absent),
        (all.clone(), 15, Found::Have),
        (all, 20, Found::Gone),
    ];
    for (series, floor, found) in rows {
        let mut replica = Held {
            series,
            ..Held::default()
        };
        replica.marks.series = true;
        replica.marks.floor = floor * SECOND;
        let request = Request::Compare(vec![(stretch(1, 10, 20), sum(&ours))]);
        assert_eq!(
            reply(&request, &mut replica),
            Reply::Compared(vec![found]),
            "{floor}"
        );
    }
}

/// What nobody has sent is not asked for, whoever else was busy then.
#[test]
fn of_a_crowd_a_source_only_differs() {
    let count = ITEMS_MAX + 1;
    let crowd = (0..count).map(|at| item(&format!("b/{at}"), 2, 10));
    let mut replica = Held {
        series: crowd.collect(),
        ..Held::default()
    };
    replica.marks.series = true;
    let seen = sum(&[item("a", 1, 10)]);
    let request = Request::Compare(vec![(stretch(1, 10, 11), seen)]);
    let found = Found::Differs { count };
    assert_eq!(reply(&request, &mut replica), Reply::Compared(vec![found]));
}

#[test]
fn without_a_series_the_newest_of_each_key_counts() {
    let mut replica = Held {
        latest: vec![item("a", 1, 10), item("a/b", 2, 20)],
        ..Held::default()
    };
    let request = Request::Compare(vec![(stretch(1, 10, 20), sum(&[item("a", 1, 10)]))]);
    assert_eq!(
        reply(&request, &mut replica),
        Reply::Compared(vec![Found::Latest])
    );
    let rows = [
        ("a", 9, false),
        ("a", 10, false),
        ("a", 11, true),
        ("a/b", 19, false),
        ("b", 1, true),
        // Neither what lies under it nor what begins like it.
        ("a/bc", 1, true),
    ];
    let heads = rows.map(|(key, second, _)| (Key::from(key), item(key, 1, second).version));
    let absent = rows.map(|(_, _, absent)| absent);
    assert_eq!(
        reply(&Request::Heads(heads.to_vec()), &mut replica),
        Reply::Heads(absent.to_vec())
    );
}

/// What lies on top of an older version is no evidence, unless it deletes; and what a policy has merged
/// it knows by its stamp.
#[test]
fn a_version_is_covered_by_what_makes_it_superfluous() {
    let at = |second| item("a", 1, second).version;
    let delete = |second| at(second).tombstone();
    let vector = |second| {
        let (vector, revision) = (Vector::of(at(second).stamp), 3);
        Some(Box::new(Merged { vector, revision }))
    };
    // what is held, what lies on top, what is merged, asked for, absent
    let rows = [
        (at(10), at(10), None, at(10), false),
        (at(10), at(10), None, at(9), false),
        (at(10), at(30), None, at(20), true),
        (at(10), at(30), None, delete(20), true),
        (at(10), delete(30), None, at(20), false),
        (at(10), delete(15), None, at(20), true),
        (at(10), at(10), vector(10), at(10), false),
        (at(10), at(10), vector(10), at(9), true),
    ];
    for (own, version, merged, asked, absent) in rows {
        let latest = vec![Item {
            version,
            ..item("a", 1, 10)
        }];
        let mut replica = Held {
            latest,
            own: Some(own),
            merged,
            ..Held::default()
        };
        let request = Request::Heads(vec![(Key::from("a"), asked)]);
        assert_eq!(
            reply(&request, &mut replica),
            Reply::Heads(vec![absent]),
            "{own} {version} {asked}"
        );
    }
    let mut replica = Held::default();
    replica.marks.revision = 3;
    let request = Request::Compare(vec![(stretch(1, 10, 20), Summary::EMPTY)]);
    assert_eq!(
        reply(&request, &mut replica),
        Reply::Compared(vec![Found::Merged])
    );
}

#[test]
fn ids_and_operations_are_looked_up() {
    let held = [item("a", 1, 10), item("a", 1, 11), item("b", 1, 30)];
    let op = |second| WildcardOp {
        expr: OwnedKeyExpr::new("a/**").unwrap(),
        version: item("", 1, second).version,
        value: None,
    };
    let mut replica = Held {
        series: held.to_vec(),
        ops: vec![Arc::new(op(5))],
        ..Held::default()
    };
    let ids = [item("a", 1, 10), item("a", 1, 12), item("b", 1, 30)].map(|item| item.id());
    let request = Request::List {
        stretch: stretch(1, 10, 20),
        ids: ids.to_vec(),
    };
    let absent = vec![false, true, true];
    assert_eq!(reply(&request, &mut replica), Reply::Listed(absent));
    let request = Request::Operations(vec![op_id(&op(5)), op_id(&op(6))]);
    let absent = vec![false, true];
    assert_eq!(reply(&request, &mut replica), Reply::Operations(absent));
}

#[test]
fn parcels_and_what_is_lost_are_handed_on() {
    let packed = Bytes::from_static(b"some");
    let request = Request::Ship {
        packed: packed.clone(),
    };
    let answered = ask(&request, &mut Held::default()).unwrap();
    assert_eq!((answered.ship, answered.reply), (Some(packed), Vec::new()));
    let lost = vec![Lost {
        stretch: stretch(1, 10, 20),
        count: 3,
        cause: Cause::Full,
    }];
    let answered = ask(&Request::Lost(lost.clone()), &mut Held::default()).unwrap();
    assert_eq!(answered.lost, Some(lost));
    assert_eq!(answered.reply, Reply::Noted.encode());
}

#[test]
fn too_much_is_refused() {
    let limits = Limits {
        take: false,
        frame_bytes_max: 500,
        stretches_max: 2,
        ids_max: 2,
        keys_max: 2,
        lost_max: 2,
    };
    let some = (stretch(1, 1, 2), Summary::EMPTY);
    let head = (Key::from("a"), Version::ZERO);
    let lost = Lost {
        stretch: stretch(1, 1, 2),
        count: 1,
        cause: Cause::Age,
    };
    let list = |count| Request::List {
        stretch: stretch(1, 1, 2),
        ids: vec![1; count],
    };
    let packed = |len| Request::Ship {
        packed: vec![0; len].into(),
    };
    let rows = [
        (Request::Compare(vec![some; 2]), None),
        (Request::Compare(vec![some; 3]), Some(Bad::Length)),
        (list(2), None),
        (list(3), Some(Bad::Length)),
        (Request::Operations(vec![1; 3]), Some(Bad::Length)),
        (Request::Heads(vec![head.clone(); 2]), None),
        (Request::Heads(vec![head; 3]), Some(Bad::Length)),
        (Request::Lost(vec![lost; 3]), Some(Bad::Length)),
        (packed(400), Some(Bad::Forbidden)),
        (packed(600), Some(Bad::Length)),
    ];
    for (request, expected) in rows {
        let answered = answer(&request.encode(), &mut Held::default(), &limits);
        let why = answered.err().map(|refused| refused.why);
        assert_eq!(why, expected, "{request:?}");
    }
    let mut broken = Held {
        is_broken: true,
        ..Held::default()
    };
    assert_eq!(ask(&list(1), &mut broken), Err(Bad::Unreadable));
}

proptest! {
    #[test]
    fn random_bytes_are_an_error_or_an_answer(
        kind in 0u8..9,
        tag in 0u8..12,
        bytes in proptest::collection::vec(any::<u8>(), 0..127),
    ) {
        let mut replica = Held { series: vec![item("a", 1, 10)], ..Held::default() };
        replica.marks.series = true;
        let len = u8::try_from(bytes.len()).unwrap();
        let frame = [&[0x46, 1, kind, tag, len][..], &bytes].concat();
        let _ = answer(&frame, &mut replica, &Limits::default());
        let _ = answer(&bytes, &mut replica, &Limits::default());
    }
}
