//! A replica that is as plain as can be, and how to drive a mirror against another without a network.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use crate::{
    identity::Identity,
    key::Key,
    keyexpr::{OwnedKeyExpr, keyexpr},
    ledger::{Axis, Item, Span, Summary, merged_hash},
    mirror::{
        Marks, Page, Replica, State, Unreadable,
        answer::{Admit, Limits, answer},
        frame::{Bad, Parcel, Reply},
        round::{Effect, Event, Mirror},
    },
    record::Record,
    value::{Encoding, Value},
    version::{Stamp, Version},
    wildcard::{Effect as Touched, Insertion, WildcardJournal, WildcardOp},
};

/// What a test can do with a replica.
pub trait Admitting: Replica {
    fn admit(&mut self, admit: &Admit);
}

/// The greatest own version wins; wildcard operations touch what is read, as in a storage.
#[derive(Clone, Default)]
pub struct Model {
    pub latest: BTreeMap<Vec<u8>, State>,
    pub series: BTreeMap<(u64, Version, Key), State>,
    pub journal: WildcardJournal,
    pub marks: Marks,
    /// Items in a run; replicas have runs of their own.
    pub run: usize,
    /// Records that were read to be sent.
    pub sent: usize,
    pub broken: bool,
    /// Its stores.
    pub stores: Vec<Identity>,
    /// So many times its stores are told as they are; then the first has another run.
    pub reopens_after: Option<usize>,
    /// Whether it packs.
    pub packs: bool,
    /// Pages that it has packed.
    pub packed: usize,
}

pub fn stamp(time: u64, id: u8) -> Stamp {
    let mut bytes = [0; 16];
    bytes[0] = id.max(1);
    Stamp { time, id: bytes }
}

pub fn state(key: &str, stamp: Stamp, payload: Option<&str>) -> State {
    let value = payload.map(|payload| Value {
        encoding: Encoding {
            id: 0,
            schema: None,
        },
        attachment: None,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    });
    let version = value.as_ref().map_or(Version::delete(stamp), |value| {
        Version::put(stamp, value.hash())
    });
    State {
        key: Key::from(key),
        record: Record::own(version, value),
    }
}

pub fn op(expr: &str, stamp: Stamp, payload: Option<&str>) -> WildcardOp {
    let of = state("", stamp, payload);
    WildcardOp {
        expr: OwnedKeyExpr::new(expr).unwrap(),
        version: of.record.head.own,
        value: of.record.value,
    }
}

impl Model {
    pub fn new(run: usize) -> Self {
        Self {
            run,
            ..Self::default()
        }
    }

    pub fn put(&mut self, state: State) {
        let own = state.record.head.own;
        if self.marks.series && !own.is_delete() {
            let at = (own.stamp.time, own, state.key.clone());
            self.series.insert(at, state.clone());
        }
        let held = self.latest.get(&state.key.ordered());
        if held.is_none_or(|held| held.record.head.own < own) {
            self.latest.insert(state.key.ordered(), state);
        }
    }

    fn item(&self, axis: Axis, state: &State) -> Item {
        let own = state.record.head.own;
        let version = match axis {
            Axis::Times => own,
            Axis::Keys => match self.journal.effect(own, keyexpr::new(&*state.key).unwrap()) {
                Touched::Own => own,
                Touched::Put(op) => op.version,
                Touched::Deleted(version) => version,
            },
        };
        let merged = merged_hash(state.record.merged.as_deref());
        Item {
            key: state.key.clone(),
            version,
            merged,
        }
    }

    fn all(&self, span: &Span) -> Vec<(Item, &State)> {
        let states: Vec<&State> = match span.axis {
            Axis::Keys => self.latest.values().collect(),
            Axis::Times => self.series.values().collect(),
        };
        states
            .into_iter()
            .map(|state| (self.item(span.axis, state), state))
            .filter(|(item, _)| span.contains(&item.position(span.axis)))
            .collect()
    }

    /// All that it holds, to be compared.
    pub fn contents(&self) -> (Vec<Item>, Vec<Item>, Vec<Version>) {
        let items = |axis| {
            self.all(&Span::all(axis))
                .into_iter()
                .map(|(item, _)| item)
                .collect()
        };
        let series = if self.marks.series {
            items(Axis::Times)
        } else {
            Vec::new()
        };
        (
            items(Axis::Keys),
            series,
            self.journal.iter().map(|op| op.version).collect(),
        )
    }

    fn readable(&self) -> Result<(), Unreadable> {
        if self.broken {
            Err(Unreadable("closed".into()))
        } else {
            Ok(())
        }
    }
}

impl Admitting for Model {
    fn admit(&mut self, admit: &Admit) {
        for op in &admit.ops {
            let (Insertion::Inserted(_) | Insertion::Known | Insertion::Subsumed) =
                self.journal.insert(op.clone());
        }
        for state in &admit.states {
            self.put(state.clone());
        }
    }
}

impl Replica for Model {
    fn marks(&mut self) -> Result<Marks, Unreadable> {
        self.readable()?;
        Ok(self.marks)
    }

    fn stores(&mut self) -> Result<Vec<Identity>, Unreadable> {
        self.readable()?;
        match &mut self.reopens_after {
            None => {}
            Some(0) => {
                self.reopens_after = None;
                let first = &mut self.stores[0];
                *first = Identity::next(Some(*first), first.position, u128::from(first.run) + 1);
            }
            Some(after) => *after -= 1,
        }
        Ok(self.stores.clone())
    }

    fn wildcards(&mut self) -> Result<Vec<Arc<WildcardOp>>, Unreadable> {
        self.readable()?;
        Ok(self.journal.iter().cloned().collect())
    }

    fn summary(&mut self, span: &Span) -> Result<Summary, Unreadable> {
        self.readable()?;
        let mut summary = Summary::EMPTY;
        for (item, _) in self.all(span) {
            summary.add(item.hash());
        }
        Ok(summary)
    }

    fn split(&mut self, span: &Span, parts: usize) -> Result<Vec<(Span, Summary)>, Unreadable> {
        let all = self.all(span);
        let mut fences: Vec<Vec<u8>> = match span.axis {
            Axis::Keys => {
                let step = if all.len() > self.run { self.run } else { 1 };
                let every = all.iter().step_by(step);
                every.map(|(item, _)| item.position(Axis::Keys)).collect()
            }
            Axis::Times => {
                let second = |item: &Item| item.version.stamp.time >> 32 << 32;
                let starts = all
                    .iter()
                    .map(|(item, _)| second(item).to_be_bytes().to_vec());
                starts.collect()
            }
        };
        fences.retain(|fence| span.contains(fence) && *fence != span.from);
        cut(self, span, thin(fences, parts))
    }

    fn items(&mut self, span: &Span, max: usize) -> Result<Vec<Item>, Unreadable> {
        self.readable()?;
        Ok(self
            .all(span)
            .into_iter()
            .map(|(item, _)| item)
            .take(max)
            .collect())
    }

    fn read(
        &mut self,
        span: &Span,
        wanted: &mut dyn FnMut(&Item) -> bool,
        bytes_max: usize,
    ) -> Result<Page, Unreadable> {
        let mut page = Page::default();
        let mut bytes = 0;
        let mut last = Vec::new();
        for (item, state) in self.all(span) {
            let position = item.position(span.axis);
            if !wanted(&item) {
                continue;
            }
            if bytes > bytes_max && position != last {
                page.next = Some(position);
                break;
            }
            bytes += 60 + state.record.value.as_ref().map_or(0, |value| value.len());
            last = position;
            page.states.push(state.clone());
        }
        self.sent += page.states.len();
        Ok(page)
    }

    fn packs(&self) -> bool {
        self.packs
    }

    /// All but the first, as a frame of its own.
    fn pack(&mut self, states: &mut Vec<State>) -> Option<Bytes> {
        let states = self.packs.then(|| states.split_off(1))?;
        self.packed += 1;
        let parcel = Parcel {
            states,
            ..Parcel::default()
        };
        Some(Reply::Page { parcel, next: None }.encode().into())
    }

    fn unpack(&mut self, packed: &Bytes) -> Result<Vec<State>, Bad> {
        if !self.packs {
            return Err(Bad::Kind);
        }
        match Reply::decode(packed)? {
            Reply::Page { parcel, .. } => Ok(parcel.states),
            _ => Err(Bad::Malformed),
        }
    }
}

/// At most `parts - 1` of these, evenly.
pub fn thin(mut fences: Vec<Vec<u8>>, parts: usize) -> Vec<Vec<u8>> {
    fences.dedup();
    let (len, keep) = (fences.len(), parts - 1);
    if len <= keep {
        return fences;
    }
    (1..=keep)
        .map(|at| fences[at * len / (keep + 1)].clone())
        .collect()
}

/// The parts that fences make of a span.
pub fn cut(
    replica: &mut dyn Replica,
    span: &Span,
    fences: Vec<Vec<u8>>,
) -> Result<Vec<(Span, Summary)>, Unreadable> {
    let mut from = span.from.clone();
    let mut parts = Vec::new();
    for to in fences.into_iter().map(Some).chain([span.to.clone()]) {
        let part = Span {
            axis: span.axis,
            from,
            to,
        };
        from = part.to.clone().unwrap_or_default();
        let summary = replica.summary(&part)?;
        parts.push((part, summary));
    }
    Ok(parts)
}

/// What was said, one row for each question: by round trip.
#[derive(Default, Debug)]
pub struct Trace {
    /// (round trip, question, answer)
    pub frames: Vec<(usize, Bytes, Vec<u8>)>,
    pub ends: Vec<Effect>,
}

impl Trace {
    pub fn bytes(&self) -> usize {
        self.frames
            .iter()
            .map(|(_, ask, reply)| ask.len() + reply.len())
            .sum()
    }

    pub fn trips(&self) -> usize {
        self.frames.last().map_or(0, |(trip, _, _)| *trip)
    }
}

/// One round, nothing lost, 50 ms there and back; until it ends or `trips` are over.
pub fn round(
    mirror: &mut Mirror,
    now: &mut u64,
    ours: &mut dyn Admitting,
    theirs: &mut dyn Admitting,
    limits: &Limits,
    trips: usize,
) -> Trace {
    let mut trace = Trace::default();
    let mut effects = mirror.handle(*now, Event::Wake, ours);
    for trip in 1..=trips {
        let mut events = Vec::new();
        for effect in effects.drain(..) {
            match effect {
                Effect::Ask { ask, frame, .. } => {
                    let reply = match answer(&frame, theirs, limits) {
                        Ok(answered) => {
                            if let Some(admit) = &answered.admit {
                                theirs.admit(admit);
                            }
                            answered.reply
                        }
                        Err(refused) => refused.reply,
                    };
                    trace.frames.push((trip, frame, reply.clone()));
                    events.push(Event::Reply {
                        ask,
                        frame: reply.into(),
                    });
                }
                Effect::Admit { batch, admit } => {
                    ours.admit(&admit);
                    events.push(Event::Admitted { batch });
                }
                Effect::Told { .. } | Effect::Horizon(_) => {}
                end => trace.ends.push(end),
            }
        }
        if !trace.ends.is_empty() {
            return trace;
        }
        if events.is_empty() {
            *now = mirror.deadline().unwrap();
            events.push(Event::Tick);
        } else {
            *now += (1 << 32) / 20;
        }
        for event in events {
            effects.extend(mirror.handle(*now, event, ours));
        }
    }
    trace.ends.extend(effects.into_iter().filter(|effect| {
        !matches!(
            effect,
            Effect::Ask { .. } | Effect::Admit { .. } | Effect::Told { .. } | Effect::Horizon(_)
        )
    }));
    trace
}
