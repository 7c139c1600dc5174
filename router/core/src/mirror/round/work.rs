//! What a round has still to do, in queues of independent pieces.
//!
//! ```text
//! nodes, lists --Compare, List--> nodes, lists, fetches, holes, pushes
//! fetches      --Fetch----------> batches being admitted
//! holes        --Push
//! pushes       --Push             when nothing is being fetched: what came then is not sent back, and
//!                                 what it replaced is not sent at all
//! ```

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;

use super::{Effect, Failure, Mirror, Peer, Phase, Rules};
use crate::{
    key::Key,
    ledger::{Axis, Item, Span, Summary},
    mirror::{
        Marks, Replica, Unreadable,
        answer::{self, ITEMS_MAX, LIST_READ_MAX},
        frame::{
            Bad, Brief, Cut, Parcel, Probe, Reply, Request, Rest, Strip, Verdict, Want, op_id,
        },
    },
    version::Version,
    wildcard::WildcardOp,
};

/// Records of one frame, in bytes, about; and the most that are packed into one.
pub(super) const PAGE: usize = 256 << 10;
const PAGE_MAX: usize = 2 << 20;
/// What a small record takes of a page.
const RECORD: usize = 128;
/// Ids in one list.
const LIST_MAX: u64 = 4096;
/// Spans that differ whose parts are asked about in one frame.
const SPANS_MAX: usize = 64;
/// Pieces of work in one question.
const WANTS_MAX: usize = 256;
/// Ids in one question.
const WANTED_IDS_MAX: u64 = 4096;
/// Spans that wait to be compared; what is found beyond that is found again by the next look.
const NODES_MAX: usize = 1 << 16;
/// Pieces that wait to be sent or fetched before no more are looked for.
const QUEUE_MAX: usize = 4096;

/// What a question was about.
#[derive(Clone, Debug)]
pub(super) enum Job {
    Probe(Box<(Marks, Probe, Rest)>),
    Wildcards,
    /// Each part, in order, and what we have in it.
    Compare(Vec<(Span, Brief)>),
    List {
        span: Span,
        of: u64,
        part: u64,
    },
    Fetch(Vec<Wanted>),
    /// So many records or operations.
    Push(u64),
}

impl Job {
    /// Items that come or go with it.
    pub(super) fn items(&self) -> u64 {
        match self {
            Self::Fetch(wanted) => wanted.iter().map(|wanted| wanted.count).sum(),
            Self::Push(count) => *count,
            _ => 0,
        }
    }
}

/// A piece to be sent or fetched.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    want: Want,
    /// About how many items.
    count: u64,
}

#[derive(Clone, Default, Debug)]
pub(super) struct Work {
    marks: Marks,
    pub(super) from: bool,
    to: bool,
    /// Wildcard operations below do not count.
    cutoff: Version,
    /// The wildcard operations are yet to be compared.
    asks_wildcards: bool,
    /// The peer has to hear of our horizon.
    tells_horizon: bool,
    ops: VecDeque<Arc<WildcardOp>>,
    /// Spans and what the peer has in them, the first at the end: what is deepest is done first, so
    /// that there are never many.
    nodes: Vec<(Span, Brief)>,
    /// Spans that the peer has yet to speak about.
    again: Vec<Span>,
    lists: VecDeque<(Span, u64, u64)>,
    fetches: VecDeque<Wanted>,
    holes: VecDeque<Wanted>,
    pushes: VecDeque<Wanted>,
    /// The peer's horizon.
    pub(super) horizon: Version,
    /// What the peer has forgotten and did not take.
    pub(super) forgotten: Vec<(Key, Version)>,
    /// Tombstones that the peer has forgotten are still here.
    pub(super) is_garbage: bool,
    /// Something was sent or has come.
    pub(super) is_moved: bool,
    /// The latest records are yet to be compared.
    pub(super) is_series_first: bool,
    /// Something was found that there was no room for.
    pub(super) is_left: bool,
    /// Holes that touch become one, up to about so many items: several are fetched at once.
    hole_items: u64,
}

impl Work {
    pub(super) fn new(
        rules: &Rules,
        peer: &Peer,
        marks: &Marks,
        horizon: Version,
        operations: bool,
    ) -> Self {
        Self {
            marks: *marks,
            from: rules.from && !peer.is_silent,
            to: rules.to && !peer.is_deaf,
            cutoff: marks.horizon.max(horizon),
            asks_wildcards: operations,
            tells_horizon: marks.horizon > horizon,
            horizon,
            hole_items: (if peer.unpacks { PAGE_MAX } else { PAGE } / RECORD) as u64,
            ..Self::default()
        }
    }

    /// Spans of the peer's, to be compared.
    pub(super) fn add_nodes(&mut self, parts: Vec<(Span, Brief)>) {
        if self.nodes.len() + parts.len() > NODES_MAX {
            self.is_left = true;
            return;
        }
        self.nodes.extend(parts.into_iter().rev());
    }

    /// A span that differs somehow.
    pub(super) fn add_again(&mut self, span: Span) {
        self.again.push(span);
    }

    /// All that lies in a span is to be fetched.
    fn fetch_hole(&mut self, span: Span, count: u64) {
        if self.from {
            add_hole(&mut self.fetches, span, count, self.hole_items);
        }
    }

    /// All that lies in a span is to be sent.
    fn push_hole(&mut self, span: Span, count: u64) {
        if self.to {
            add_hole(&mut self.holes, span, count, self.hole_items);
        }
    }

    /// The items of a span on both sides.
    fn add_items(&mut self, span: &Span, mine: BTreeSet<u64>, theirs: BTreeSet<u64>) {
        let fetch: Vec<u64> = theirs.difference(&mine).copied().collect();
        let push: Vec<u64> = mine.difference(&theirs).copied().collect();
        let sides = [
            (self.from, fetch, &mut self.fetches),
            (self.to, push, &mut self.pushes),
        ];
        for (is_allowed, ids, queue) in sides {
            if is_allowed && !ids.is_empty() {
                let count = ids.len() as u64;
                let (span, ids) = (span.clone(), Some(ids));
                queue.push_back(Wanted {
                    want: Want { span, ids },
                    count,
                });
            }
        }
    }

    /// Items that are to be fetched or sent.
    pub(super) fn waiting(&self) -> u64 {
        let queues = [&self.fetches, &self.holes, &self.pushes];
        let counts = queues.into_iter().flatten().map(|wanted| wanted.count);
        counts.sum::<u64>() + self.ops.len() as u64
    }

    /// Some of a queue, for one question.
    fn take(queue: &mut VecDeque<Wanted>, most: u64) -> Vec<Wanted> {
        let mut taken = Vec::new();
        let (mut items, mut ids) = (0, 0);
        while let Some(next) = queue.front() {
            items += next.count;
            ids += next.want.ids.as_ref().map_or(0, |ids| ids.len() as u64);
            let is_full = items > most || ids > WANTED_IDS_MAX || taken.len() == WANTS_MAX;
            if is_full && !taken.is_empty() {
                break;
            }
            taken.extend(queue.pop_front());
        }
        taken
    }
}

fn add_hole(queue: &mut VecDeque<Wanted>, span: Span, count: u64, most: u64) {
    if let Some(last) = queue.back_mut()
        && last.want.ids.is_none()
        && last.want.span.axis == span.axis
        && last.want.span.to.as_ref() == Some(&span.from)
        && last.count + count <= most
    {
        last.want.span.to = span.to;
        last.count += count;
        return;
    }
    queue.push_back(Wanted {
        want: Want { span, ids: None },
        count,
    });
}

impl Mirror {
    /// Asks as much as may be under way.
    pub(super) fn fill(
        &mut self,
        now: u64,
        replica: &mut dyn Replica,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        while self.flights.len() < self.rules.in_flight.max(1) {
            let next = if self.phase == Phase::Wildcards {
                self.next_of_wildcards(replica)?
            } else {
                self.next_of_work(replica)?
            };
            let Some((job, request, bytes)) = next else {
                break;
            };
            self.ask(now, job, &request, bytes, effects);
        }
        if let Some((batch, admit)) = self.set_aside() {
            effects.push(Effect::Admit { batch, admit });
        }
        Ok(())
    }

    fn next_of_wildcards(
        &mut self,
        replica: &mut dyn Replica,
    ) -> Result<Option<(Job, Request, usize)>, Unreadable> {
        if self.work.asks_wildcards && self.is_quiet() {
            self.work.asks_wildcards = false;
            let horizon = self.work.cutoff;
            let ops = replica.wildcards()?;
            let held = ops.iter().filter(|op| op.version >= horizon);
            let mut ids: Vec<u64> = held.map(|op| op_id(op)).collect();
            ids.sort_unstable();
            let credit = if self.work.from { PAGE as u64 } else { 0 };
            let request = Request::Wildcards {
                horizon,
                ids,
                credit,
            };
            return Ok(Some((Job::Wildcards, request, 0)));
        }
        let tells = std::mem::take(&mut self.work.tells_horizon) && self.work.to;
        if (!tells && self.work.ops.is_empty()) || !self.has_room() {
            return Ok(None);
        }
        let mut parcel = answer::parcel_of(&self.work.marks);
        let mut bytes = 0;
        while bytes < PAGE
            && let Some(op) = self.work.ops.pop_front()
        {
            bytes += op.expr.len() + op.value.as_ref().map_or(0, |value| value.len());
            parcel.ops.push((*op).clone());
        }
        let job = Job::Push(parcel.ops.len() as u64);
        Ok(Some((job, Request::Push(parcel), bytes)))
    }

    fn next_of_work(
        &mut self,
        replica: &mut dyn Replica,
    ) -> Result<Option<(Job, Request, usize)>, Unreadable> {
        if self.has_room() && !self.work.fetches.is_empty() {
            let wanted = Work::take(&mut self.work.fetches, (self.page / RECORD) as u64);
            let request = Request::Fetch {
                wants: wanted.iter().map(|wanted| wanted.want.clone()).collect(),
                floor: self.work.marks.floor,
                // It may have risen since the probe.
                horizon: replica.marks()?.horizon,
                credit: self.page as u64,
                unpacks: replica.packs(),
            };
            return Ok(Some((Job::Fetch(wanted), request, self.page)));
        }
        if self.has_room() {
            let mut holes = std::mem::take(&mut self.work.holes);
            let parcel = self.pack(&mut holes, replica)?;
            self.work.holes = holes;
            if let Some(parcel) = parcel {
                return Ok(Some(parcel));
            }
        }
        if let Some((span, of, part)) = self.work.lists.pop_front() {
            let request = Request::List {
                span: span.clone(),
                of,
                part,
            };
            return Ok(Some((Job::List { span, of, part }, request, 0)));
        }
        let waiting = self.work.fetches.len() + self.work.holes.len() + self.work.pushes.len();
        if waiting < QUEUE_MAX {
            if let Some((asked, strips)) = self.compare(replica)? {
                return Ok(Some((Job::Compare(asked), Request::Compare(strips), 0)));
            }
            // There may have been holes, and nothing to ask.
            if self.work.fetches.len() + self.work.holes.len() + self.work.pushes.len() > waiting
                && self.has_room()
            {
                return self.next_of_work(replica);
            }
        }
        // What was fetched must be held before what it replaced is looked for.
        let is_comparing = self.flights.values().any(|flight| {
            matches!(flight.job, Job::Compare(_) | Job::List { .. }) && waiting < QUEUE_MAX
        });
        let is_fetching = !self.work.fetches.is_empty()
            || !self.batches.is_empty()
            || self
                .flights
                .values()
                .any(|flight| matches!(flight.job, Job::Fetch(_)));
        if is_comparing || is_fetching || !self.has_room() {
            return Ok(None);
        }
        let mut pushes = std::mem::take(&mut self.work.pushes);
        let parcel = self.pack(&mut pushes, replica)?;
        self.work.pushes = pushes;
        if parcel.is_none() && !self.work.nodes.is_empty() {
            // None of so many is there any more; now there is room for others.
            return self.next_of_work(replica);
        }
        Ok(parcel)
    }

    /// Whether another page of records may be under way.
    fn has_room(&self) -> bool {
        let asked: usize = self.flights.values().map(|flight| flight.bytes).sum();
        let admitted: usize = self.batches.values().sum();
        let bytes = asked + admitted;
        bytes == 0 || bytes + self.page <= self.rules.bytes_in_flight
    }

    /// Lets pages grow for as long as what they are packed to is short: packing gains by it, and what is
    /// long waits long for its answer. `len` is what one was packed to.
    pub(super) fn fit_page(&mut self, len: usize) {
        if len < PAGE / 2 {
            self.page = (2 * self.page).min(PAGE_MAX);
        } else if len > PAGE {
            self.page = (self.page / 2).max(PAGE);
        }
    }

    /// Reads the next page of what is to be sent; `None` if none of it is there any more.
    fn pack(
        &mut self,
        queue: &mut VecDeque<Wanted>,
        replica: &mut dyn Replica,
    ) -> Result<Option<(Job, Request, usize)>, Unreadable> {
        let floor = self.peer.floor.map_or(0, |(floor, _)| floor);
        let mut parcel = answer::parcel_of(&self.work.marks);
        let mut bytes = 0;
        while bytes < self.page
            && let Some(mut wanted) = queue.pop_front()
        {
            let since = (floor, self.work.horizon);
            let (mut states, next) = answer::read(replica, &wanted.want, since, self.page - bytes)?;
            if wanted.want.span.axis == Axis::Keys {
                self.sift(&mut states);
            }
            bytes += states.iter().map(answer::size).sum::<usize>();
            parcel.states.extend(states);
            if let Some(position) = next {
                wanted.want.span.from = position;
                queue.push_front(wanted);
                if !parcel.states.is_empty() {
                    break;
                }
            }
        }
        if parcel.states.is_empty() {
            return Ok(None);
        }
        let job = Job::Push(parcel.states.len() as u64);
        if self.peer.unpacks {
            parcel.packed = replica.pack(&mut parcel.states);
        }
        Ok(Some((job, Request::Push(parcel), bytes)))
    }

    /// The next spans to ask about, cut as we would; what needs no question is decided.
    #[expect(clippy::type_complexity, reason = "what was asked, and how")]
    fn compare(
        &mut self,
        replica: &mut dyn Replica,
    ) -> Result<Option<(Vec<(Span, Brief)>, Vec<Strip>)>, Unreadable> {
        let mut different: Vec<(Span, Summary, u64)> = Vec::new();
        while different.len() < SPANS_MAX {
            if let Some(span) = self.work.again.pop() {
                let mine = replica.summary(&span)?;
                // As one part: it is for the peer to say how it differs.
                different.push((span, mine, 0));
                continue;
            }
            let Some((span, theirs)) = self.work.nodes.pop() else {
                break;
            };
            let mine = replica.summary(&span)?;
            if Brief::of(mine) == theirs {
                continue;
            }
            if mine.is_empty() {
                self.report.spans += 1;
                self.work.fetch_hole(span, theirs.count);
            } else if theirs.is_empty() {
                self.report.spans += 1;
                self.work.push_hole(span, mine.count);
            } else {
                different.push((span, mine, theirs.count));
            }
        }
        let spans = different.len();
        let (mut asked, mut strips) = (Vec::new(), Vec::with_capacity(spans));
        for (span, mine, theirs) in different {
            let is_small = theirs == 0 || mine.count.max(theirs) <= ITEMS_MAX;
            let parts = if is_small {
                vec![(span.clone(), mine)]
            } else {
                answer::split(replica, &span, spans)?
            };
            let cut = Cut::of(&parts);
            asked.extend(
                parts
                    .into_iter()
                    .map(|(span, mine)| (span, Brief::of(mine))),
            );
            strips.push(Strip { span, cut });
        }
        Ok((!strips.is_empty()).then_some((asked, strips)))
    }

    /// What an answer says.
    pub(super) fn found(
        &mut self,
        job: Job,
        reply: Reply,
        replica: &mut dyn Replica,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        match (job, reply) {
            (
                Job::Wildcards,
                Reply::Wildcards {
                    parcel,
                    more,
                    missing,
                },
            ) => {
                self.wildcards_found(parcel, more, &missing, replica, effects)?;
            }
            (Job::Compare(asked), Reply::Compared(verdicts)) => {
                for (index, verdict) in verdicts {
                    let index = usize::try_from(index).unwrap_or(usize::MAX);
                    let part = asked.get(index).ok_or(Failure::Answer(Bad::Malformed))?;
                    self.judged(part.clone(), verdict, replica)?;
                }
            }
            (Job::List { span, of, part }, Reply::Listed(ids)) => {
                let items = replica.items(&span, LIST_READ_MAX)?;
                let mine = items.iter().map(Item::id).filter(|id| id % of == part);
                self.work
                    .add_items(&span, mine.collect(), ids.into_iter().collect());
            }
            (Job::Fetch(wanted), Reply::Page { mut parcel, next }) => {
                let packed = parcel.packed.as_ref().map(Bytes::len);
                packed.into_iter().for_each(|len| self.fit_page(len));
                parcel.unpack(replica).map_err(Failure::Answer)?;
                self.page_found(wanted, parcel, next, effects)?;
            }
            (Job::Push(count), Reply::Stored) => {
                self.report.pushed += count;
                self.work.is_moved |= count > 0;
            }
            _ => return Err(Failure::Answer(Bad::Kind)),
        }
        Ok(())
    }

    fn wildcards_found(
        &mut self,
        mut parcel: Parcel,
        more: bool,
        missing: &[u64],
        replica: &mut dyn Replica,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        if !parcel.ops.is_empty() || !missing.is_empty() {
            self.report.spans += 1;
        }
        if !self.work.from {
            parcel.ops.clear();
        }
        if self.work.to {
            let missing: BTreeSet<u64> = missing.iter().copied().collect();
            let mut ops: VecDeque<_> = replica.wildcards()?.into();
            ops.retain(|op| missing.contains(&op_id(op)));
            self.work.ops = ops;
        }
        // One that sends none says that there are more for ever.
        self.work.asks_wildcards = more && !parcel.ops.is_empty();
        self.admit(parcel, effects);
        Ok(())
    }

    /// What the peer says of a part that is not equal.
    fn judged(
        &mut self,
        (span, mine): (Span, Brief),
        verdict: Verdict,
        replica: &mut dyn Replica,
    ) -> Result<(), Failure> {
        match verdict {
            Verdict::Later => {
                self.work.add_again(span);
                return Ok(());
            }
            Verdict::Split(axis, cut) => {
                let parts = cut
                    .parts(&span)
                    .filter(|parts| parts.len() > 1 && axis == span.axis);
                let parts = parts.ok_or(Failure::Answer(Bad::Malformed))?;
                self.work.add_nodes(parts);
                return Ok(());
            }
            Verdict::Empty => self.work.push_hole(span, mine.count),
            Verdict::Whole(count) => self.work.fetch_hole(span, count),
            Verdict::Ids(ids) => {
                let items = replica.items(&span, LIST_READ_MAX)?;
                let mine = items.iter().map(Item::id).collect();
                self.work.add_items(&span, mine, ids.into_iter().collect());
            }
            Verdict::Dense(count) => {
                let count = count.max(mine.count).min(LIST_READ_MAX as u64);
                let of = count.div_ceil(LIST_MAX).max(1);
                self.work
                    .lists
                    .extend((0..of).map(|part| (span.clone(), of, part)));
            }
        }
        self.report.spans += 1;
        Ok(())
    }

    fn page_found(
        &mut self,
        mut wanted: Vec<Wanted>,
        parcel: Parcel,
        next: Option<(u64, Vec<u8>)>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        if let Some((index, position)) = next {
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            let Some(first) = wanted.get_mut(index) else {
                return Err(Failure::Answer(Bad::Malformed));
            };
            // A page that brings nothing and goes on where it began would come for ever.
            let is_further = index > 0 || position > first.want.span.from;
            if !is_further
                || !first.want.span.contains(&position) && position != first.want.span.from
            {
                return Err(Failure::Answer(Bad::Malformed));
            }
            let sent = parcel.states.len() as u64;
            first.count = first.count.saturating_sub(sent).max(1);
            first.want.span.from = position;
            for rest in wanted.drain(index..).rev() {
                self.work.fetches.push_front(rest);
            }
        }
        self.admit(parcel, effects);
        Ok(())
    }

    fn admit(&mut self, parcel: Parcel, effects: &mut Vec<Effect>) {
        let count = parcel.ops.len() + parcel.states.len();
        if count == 0 {
            return;
        }
        // As they are now, however short they came.
        let of_ops = parcel.ops.iter().map(|op| {
            let value = op.value.as_ref();
            op.expr.len() + value.map_or(0, |value| value.len())
        });
        let bytes = parcel.states.iter().map(answer::size).sum::<usize>() + of_ops.sum::<usize>();
        self.report.fetched += count as u64;
        self.work.is_moved = true;
        self.next += 1;
        self.batches.insert(self.next, bytes);
        effects.push(Effect::Admit {
            batch: self.next,
            admit: parcel.into(),
        });
    }
}
