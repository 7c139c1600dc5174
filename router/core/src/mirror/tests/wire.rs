//! What it costs on the wire, counted in bytes of frames, both ways, on a million keys and on months of
//! a series. The replicas hold no records: sums are differences of running sums.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use super::model::{Admitting, Trace, cut, op, round, stamp, state, thin};
use crate::{
    identity::Identity,
    key::Key,
    ledger::{Axis, Item, Span, Summary},
    mirror::{
        Marks, Page, Replica, State, Unreadable,
        answer::{Admit, Limits},
        frame::Request,
        round::{Effect, Mirror, Rules, Status},
    },
    version::Version,
    wildcard::WildcardOp,
};

const SECOND: u64 = 1 << 32;
const KEYS: usize = 1_000_000;
/// A store of some age, as every replica tells of.
const STORE: Identity = Identity {
    id: u64::MAX,
    incarnation: 200,
    run: u32::MAX,
    parent: u32::MAX,
    opened: 1_000_000_000,
    position: 1_010_000_000,
};
const PAYLOAD: &str = "0123456789abcdef0123456789abcdef";

/// Keys as they are: not shortened, of a fleet.
struct Keys {
    names: Vec<Key>,
    ordered: Vec<Vec<u8>>,
    hashes: Vec<u128>,
}

fn keys() -> &'static Keys {
    static KEYS_ONCE: OnceLock<Keys> = OnceLock::new();
    KEYS_ONCE.get_or_init(|| {
        let name =
            |at: usize| format!("fleet/vehicle/{:05}/sensor/{:02}/value", at / 100, at % 100);
        let names: Vec<Key> = (0..KEYS).map(|at| Key::from(name(at).as_str())).collect();
        let mut ordered: Vec<(Vec<u8>, Key)> =
            names.into_iter().map(|key| (key.ordered(), key)).collect();
        ordered.sort();
        let (ordered, names): (Vec<_>, Vec<_>) = ordered.into_iter().unzip();
        let hashes = names.iter().map(|key| item(key, 0).hash()).collect();
        Keys {
            names,
            ordered,
            hashes,
        }
    })
}

fn version(change: u64) -> Version {
    state("", stamp(1_000 * SECOND + change, 1), Some(PAYLOAD))
        .record
        .head
        .own
}

fn item(key: &Key, change: u64) -> Item {
    static FIRST: OnceLock<Version> = OnceLock::new();
    let version = match change {
        0 => *FIRST.get_or_init(|| version(0)),
        change => version(change),
    };
    Item {
        key: key.clone(),
        version,
        merged: 0,
    }
}

/// All keys, some of them changed.
struct Fleet {
    changed: BTreeMap<usize, u64>,
    /// The sums of all before.
    sums: Vec<u128>,
    run: usize,
}

impl Fleet {
    fn new(run: usize, changed: impl IntoIterator<Item = usize>) -> Self {
        let changed = changed.into_iter().map(|at| (at, 1)).collect();
        let mut fleet = Self {
            changed,
            sums: Vec::new(),
            run,
        };
        fleet.add_up();
        fleet
    }

    fn add_up(&mut self) {
        let keys = keys();
        let mut total = 0u128;
        self.sums.clear();
        self.sums.push(0);
        for at in 0..KEYS {
            let hash = match self.changed.get(&at) {
                None => keys.hashes[at],
                Some(_) => self.item(at).hash(),
            };
            total = total.wrapping_add(hash);
            self.sums.push(total);
        }
    }

    fn item(&self, at: usize) -> Item {
        item(
            &keys().names[at],
            self.changed.get(&at).copied().unwrap_or(0),
        )
    }

    fn range(span: &Span) -> std::ops::Range<usize> {
        let keys = &keys().ordered;
        let at = |position: &Vec<u8>| keys.partition_point(|key| key < position);
        at(&span.from)..span.to.as_ref().map_or(KEYS, at)
    }
}

impl Admitting for Fleet {
    fn admit(&mut self, admit: &Admit) {
        for admitted in &admit.states {
            let at = keys()
                .ordered
                .binary_search(&admitted.key.ordered())
                .unwrap();
            let change = admitted.record.head.own.stamp.time - 1_000 * SECOND;
            let held = self.changed.entry(at).or_default();
            *held = change.max(*held);
        }
        self.changed.retain(|_, change| *change > 0);
        self.add_up();
    }
}

impl Replica for Fleet {
    fn marks(&mut self) -> Result<Marks, Unreadable> {
        Ok(Marks {
            now: 5,
            revision: 7,
            horizon: version(0),
            ..Marks::default()
        })
    }

    fn stores(&mut self) -> Result<Vec<Identity>, Unreadable> {
        Ok(vec![STORE])
    }

    fn wildcards(&mut self) -> Result<Vec<Arc<WildcardOp>>, Unreadable> {
        Ok(vec![Arc::new(op(
            "fleet/*/9/**",
            stamp(1_000 * SECOND + 5, 1),
            None,
        ))])
    }

    fn summary(&mut self, span: &Span) -> Result<Summary, Unreadable> {
        let range = Self::range(span);
        Ok(Summary {
            count: range.len() as u64,
            sum: self.sums[range.end].wrapping_sub(self.sums[range.start]),
        })
    }

    fn split(&mut self, span: &Span, parts: usize) -> Result<Vec<(Span, Summary)>, Unreadable> {
        let range = Self::range(span);
        let runs = (range.start + 1..range.end).filter(|at| at % self.run == 0);
        let mut fences: Vec<usize> = runs.collect();
        if fences.is_empty() {
            fences = (range.start + 1..range.end).collect();
        }
        let fences = fences
            .into_iter()
            .map(|at| keys().ordered[at].clone())
            .collect();
        cut(self, span, thin(fences, parts))
    }

    fn items(&mut self, span: &Span, max: usize) -> Result<Vec<Item>, Unreadable> {
        Ok(Self::range(span)
            .take(max)
            .map(|at| self.item(at))
            .collect())
    }

    fn read(
        &mut self,
        span: &Span,
        wanted: &mut dyn FnMut(&Item) -> bool,
        _: usize,
    ) -> Result<Page, Unreadable> {
        let items = Self::range(span)
            .map(|at| self.item(at))
            .filter(|item| wanted(item));
        let states = items.map(|item| {
            let mut of = state(&item.key, item.version.stamp, Some(PAYLOAD));
            of.record.head.own = item.version;
            of
        });
        Ok(Page {
            states: states.collect(),
            next: None,
        })
    }
}

fn compare(
    ours: &mut dyn Admitting,
    theirs: &mut dyn Admitting,
    rules: Rules,
    trips: usize,
) -> (Trace, Status) {
    let mut mirror = Mirror::new(rules, 1);
    let mut now = 9_000 * SECOND;
    let trace = round(
        &mut mirror,
        &mut now,
        ours,
        theirs,
        &Limits::default(),
        trips,
    );
    (trace, mirror.status())
}

/// What the records themselves take: key and record, as they are sent alone.
fn record_bytes(count: usize) -> usize {
    let of = state(
        "fleet/vehicle/00000/sensor/00/value",
        stamp(1, 1),
        Some(PAYLOAD),
    );
    count * (of.key.len() + of.record.as_ref().encode().len())
}

#[test]
fn a_million_keys_cost_what_the_issue_allows() {
    let scattered: BTreeSet<usize> = (0..100).map(|at| (at * 9_973 + 17) % KEYS).collect();
    let prefix: BTreeSet<usize> = (412_300..412_400).collect();
    // what, changed here, changed there, records sent, bytes at most, with the records or beyond them
    let rows = [
        ("in step", BTreeSet::new(), BTreeSet::new(), 0, 120, true),
        (
            "one, there",
            BTreeSet::new(),
            [654_321].into(),
            1,
            4_000,
            true,
        ),
        (
            "one, here",
            [654_321].into(),
            BTreeSet::new(),
            2,
            4_000,
            true,
        ),
        (
            "scattered, there",
            BTreeSet::new(),
            scattered.clone(),
            100,
            150_000,
            true,
        ),
        (
            "scattered, here",
            scattered,
            BTreeSet::new(),
            200,
            150_000,
            true,
        ),
        (
            "a prefix, there",
            BTreeSet::new(),
            prefix.clone(),
            100,
            6_000,
            false,
        ),
        ("a prefix, here", prefix, BTreeSet::new(), 200, 6_000, false),
    ];
    for (what, here, there, sent, most, with_records) in rows {
        let (mut ours, mut theirs) = (Fleet::new(180, here), Fleet::new(167, there));
        let (trace, _) = compare(&mut ours, &mut theirs, Rules::default(), 50);
        assert!(
            matches!(trace.ends[..], [Effect::InStep(_)]),
            "{what}: {:?}",
            trace.ends
        );
        assert_eq!(ours.changed, theirs.changed, "{what}");
        let records = if with_records { 0 } else { record_bytes(sent) };
        let bytes = trace.bytes().saturating_sub(records);
        let (frames, trips) = (trace.frames.len(), trace.trips());
        println!("{what}: {bytes} B (+ {records} B), {frames} questions, {trips} round trips");
        assert!(bytes <= most, "{what}: {bytes} bytes, {most} allowed");
        if what == "in step" {
            let (_, ask, reply) = &trace.frames[0];
            println!("  {} B there, {} B back", ask.len(), reply.len());
            assert!(frames == 1 && ask.len() <= 75 && reply.len() <= 45);
        }
    }
}

/// 36 million records, ten a second, some of them missing. Sums by the second.
struct Months {
    sums: Vec<u128>,
    missing: std::ops::Range<usize>,
}

const SECONDS: usize = 3_600_000;
const BEGIN: u64 = 1_700_000_000;

impl Months {
    fn new(missing: std::ops::Range<usize>) -> Self {
        let mut total = 0u128;
        let mut sums = vec![0];
        for at in 0..SECONDS as u128 {
            let word = (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834);
            total = total.wrapping_add(word ^ (word >> 64));
            sums.push(total);
        }
        Self { sums, missing }
    }

    fn range(span: &Span) -> std::ops::Range<usize> {
        let at = |position: &[u8]| {
            let time = <[u8; 8]>::try_from(position).map_or(0, u64::from_be_bytes);
            usize::try_from((time >> 32).saturating_sub(BEGIN))
                .unwrap()
                .min(SECONDS)
        };
        at(&span.from)..span.to.as_deref().map_or(SECONDS, at)
    }

    fn sum(&self, range: &std::ops::Range<usize>) -> Summary {
        if range.is_empty() {
            return Summary::EMPTY;
        }
        let sum = self.sums[range.end].wrapping_sub(self.sums[range.start]);
        Summary {
            count: 10 * range.len() as u64,
            sum,
        }
    }
}

impl Admitting for Months {
    fn admit(&mut self, _: &Admit) {}
}

impl Replica for Months {
    fn marks(&mut self) -> Result<Marks, Unreadable> {
        Ok(Marks {
            series: true,
            floor: 1_699_999_000 << 32,
            ..Marks::default()
        })
    }

    fn stores(&mut self) -> Result<Vec<Identity>, Unreadable> {
        Ok(vec![STORE])
    }

    fn wildcards(&mut self) -> Result<Vec<Arc<WildcardOp>>, Unreadable> {
        Ok(Vec::new())
    }

    fn summary(&mut self, span: &Span) -> Result<Summary, Unreadable> {
        if span.axis == Axis::Keys {
            // Of the latest, both hold the same.
            return Ok(Summary {
                count: 2_000,
                sum: u128::MAX / 3,
            });
        }
        let range = Self::range(span);
        let start = self.missing.start.clamp(range.start, range.end);
        let end = self.missing.end.clamp(range.start, range.end);
        let (all, missing) = (self.sum(&range), self.sum(&(start..end.max(start))));
        let sum = all.sum.wrapping_sub(missing.sum);
        Ok(Summary {
            count: all.count - missing.count,
            sum,
        })
    }

    fn split(&mut self, span: &Span, parts: usize) -> Result<Vec<(Span, Summary)>, Unreadable> {
        let range = Self::range(span);
        let step = range.len().div_ceil(parts).max(1);
        let fences = (range.start..range.end).step_by(step).skip(1);
        let fences = fences.map(|at| ((BEGIN + at as u64) << 32).to_be_bytes().to_vec());
        let fences = fences.collect();
        cut(self, span, fences)
    }

    fn items(&mut self, _: &Span, _: usize) -> Result<Vec<Item>, Unreadable> {
        Ok(Vec::new())
    }

    fn read(
        &mut self,
        span: &Span,
        _: &mut dyn FnMut(&Item) -> bool,
        _: usize,
    ) -> Result<Page, Unreadable> {
        // One record for each second stands for all of it.
        let states = Self::range(span)
            .filter(|at| !self.missing.contains(at))
            .map(|at| {
                let of: State = state("a", stamp((BEGIN + at as u64) << 32, 1), Some("x"));
                of
            });
        Ok(Page {
            states: states.collect(),
            next: None,
        })
    }
}

/// An hour is missing of a thousand, and begins at no full minute. After two round trips all of it but
/// its ends is asked for or on its way; in the third the ends are.
#[test]
fn a_missing_hour_is_known_at_once() {
    let (mut ours, mut theirs) = (Months::new(0..0), Months::new(0..0));
    let (trace, _) = compare(&mut ours, &mut theirs, Rules::default(), 2);
    let [(1, ask, reply)] = &trace.frames[..] else {
        panic!("{trace:?}");
    };
    println!("in step: {} B there, {} B back", ask.len(), reply.len());
    assert!(ask.len() <= 90 && reply.len() <= 45);
    let hole = 1_234_567..1_238_167;
    // All at once, to see what is known by what is asked for.
    let rules = Rules {
        in_flight: 1_000,
        bytes_in_flight: 1 << 30,
        ..Rules::default()
    };
    for misses_here in [true, false] {
        let (mut ours, mut theirs) = (Months::new(0..0), Months::new(0..0));
        let who = if misses_here { &mut ours } else { &mut theirs };
        who.missing = hole.clone();
        let (_, status) = compare(&mut ours, &mut theirs, Rules::default(), 2);
        println!("{} items known after 2 round trips", status.waiting);
        // What is pushed is read already: one record for each second.
        let least = if misses_here { 34_000 } else { 3_400 };
        assert!((least..=36_000).contains(&status.waiting));
        for (trips, known_least) in [(3, 3_400), (4, 3_600)] {
            let (trace, _) = compare(&mut ours, &mut theirs, rules, trips);
            let mut bytes = 0;
            let mut known = BTreeSet::new();
            for (trip, ask, reply) in &trace.frames {
                if *trip < trips {
                    bytes += ask.len() + reply.len();
                }
                match Request::decode(ask).unwrap() {
                    Request::Fetch { wants, .. } => {
                        bytes -= if *trip < trips {
                            ask.len() + reply.len()
                        } else {
                            0
                        };
                        for want in wants {
                            known.extend(Months::range(&want.span));
                        }
                    }
                    Request::Push(parcel) => {
                        bytes -= if *trip < trips {
                            ask.len() + reply.len()
                        } else {
                            0
                        };
                        let times = parcel.states.iter().map(|state| {
                            let second = state.record.head.own.stamp.time >> 32;
                            usize::try_from(second - BEGIN).unwrap()
                        });
                        known.extend(times);
                    }
                    _ => {}
                }
            }
            println!(
                "{} s known after {} round trips, {bytes} B",
                known.len(),
                trips - 1
            );
            assert!(
                known.iter().all(|second| hole.contains(second)),
                "more than is missing"
            );
            assert!(
                known.len() >= known_least,
                "{} of {}",
                known.len(),
                hole.len()
            );
            assert!(bytes <= 16_000, "{bytes}");
        }
    }
}
