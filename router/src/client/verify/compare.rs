//! Compares two storages by the frames of mirrors: what one says of a range is shown to the other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use serde_json::{Value, json};
use weir_core::ledger::{Axis, Span, Summary};
use weir_core::mirror::frame::{
    Brief, Cut, MINUTE, Probe, Probed, Reply, Request, Rest, Strip, Verdict, Want, op_id,
    times_from,
};
use weir_core::version::Version;
use zenoh::qos::Priority;

use super::super::import::progress::Progress;
use crate::mirror::line::Line;

/// Ids that are asked for at once.
const LIST_MAX: u64 = 8_192;
/// Bytes of records that are asked for at once: they are read for their keys and versions alone.
const CREDIT: u64 = 256 << 10;
/// Bytes of wildcard operations that are asked for at once.
const OPS_CREDIT: u64 = 256 << 10;

/// One of two storages.
pub(super) struct Side {
    /// What it is called.
    pub name: String,
    /// The way to it.
    pub line: Line,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// How many items both have of what they have in common.
    pub counts: [u64; 2],
    /// Items that only one has.
    pub only: [u64; 2],
    /// Wildcard operations that only one has.
    pub wildcards: u64,
    /// Some of the keys that differ.
    pub differences: Vec<Difference>,
    /// Questions.
    pub asked: u64,
    /// Bytes of questions and answers.
    pub bytes: u64,
}

/// A key, or a version of a series, that differs.
#[derive(Debug)]
pub(super) struct Difference {
    /// The key.
    pub key: String,
    /// What each holds; nothing at all, or not this version of a series.
    pub held: [Option<Version>; 2],
}

/// A comparison under way.
pub(super) struct Comparison<'s> {
    sides: &'s [Side; 2],
    is_series: bool,
    keys_max: usize,
    limit: Duration,
    found: Compared,
    asked: AtomicU64,
    bytes: AtomicU64,
    /// What is to be shown to a side: what the other has there.
    work: VecDeque<(usize, Strip)>,
}

impl Compared {
    /// How much differs: items and operations that only one has.
    pub(super) fn differing(&self) -> u64 {
        self.only[0] + self.only[1] + self.wildcards
    }
}

impl Difference {
    /// For people.
    pub(super) fn shown(&self) -> [String; 2] {
        self.held.map(|held| match held {
            None => "-".to_owned(),
            Some(version) if version.is_delete() => format!("deleted {}", version.stamp),
            Some(version) => format!("put {}", version.stamp),
        })
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let [here, there] = self
            .held
            .map(|held| held.map(|version| version.to_string()));
        json!({ "key": self.key, "here": here, "there": there })
    }
}

impl<'s> Comparison<'s> {
    /// Of two storages; both are to be asked for each other's keys.
    pub(super) fn new(
        sides: &'s [Side; 2],
        is_series: bool,
        keys_max: usize,
        limit: Duration,
    ) -> Self {
        Self {
            sides,
            is_series,
            keys_max,
            limit,
            found: Compared::default(),
            asked: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            work: VecDeque::new(),
        }
    }

    /// Compares.
    ///
    /// # Errors
    /// If one does not answer, or not what it should.
    pub(super) async fn run(
        mut self,
        progress: &mut Progress,
        err: &mut dyn Write,
    ) -> Result<Compared> {
        let first = [self.probe(0, 0).await?, self.probe(1, 0).await?];
        let rests = self.rests(&first)?;
        self.wildcards(rests[0].horizon.max(rests[1].horizon))
            .await?;
        self.begin(Span::all(Axis::Keys), [&first[0].keys, &first[1].keys]);
        if self.is_series {
            // From the next full minute but one that both keep, as mirrors do.
            let floor = rests[0].floor.max(rests[1].floor);
            let minute = if floor == 0 { 0 } else { floor / MINUTE + 2 };
            let first = [self.probe(0, minute).await?, self.probe(1, minute).await?];
            self.begin(times_from(minute), [&first[0].times, &first[1].times]);
        }
        progress.expect(self.found.counts[0].max(self.found.counts[1]));
        while let Some((side, strip)) = self.work.pop_front() {
            let equal = self.show(side, &strip).await?;
            progress.advance(equal, Instant::now(), err)?;
        }
        self.found.differences.sort_by(|a, b| a.key.cmp(&b.key));
        self.found.differences.truncate(self.keys_max);
        self.found.asked = self.asked.load(Relaxed);
        self.found.bytes = self.bytes.load(Relaxed);
        Ok(self.found)
    }

    /// What a side has altogether, told because it is not nothing.
    async fn probe(&self, side: usize, minute: u64) -> Result<Probed> {
        let request = Request::Probe(Probe {
            keys: Summary::EMPTY,
            times: self.is_series.then_some((minute, Summary::EMPTY)),
            rest: 0,
            revision: 0,
            waits: false,
            stores: Vec::new(),
        });
        match self.ask(side, &request).await? {
            Reply::Probed(probed) => Ok(*probed),
            reply => Err(self.strange(side, &reply)),
        }
    }

    fn rests(&self, probed: &[Probed; 2]) -> Result<[Rest; 2]> {
        let rest = |side: usize| {
            let name = &self.sides[side].name;
            probed[side]
                .rest
                .ok_or_else(|| anyhow!("{name} does not tell its horizon"))
        };
        Ok([rest(0)?, rest(1)?])
    }

    /// Shows the second side what the first has altogether of an axis.
    fn begin(&mut self, span: Span, found: [&Option<(Summary, Cut)>; 2]) {
        let summary =
            |found: &Option<(Summary, Cut)>| found.as_ref().map_or(Summary::EMPTY, |f| f.0);
        let sums = found.map(summary);
        for (count, sum) in self.found.counts.iter_mut().zip(sums) {
            *count += sum.count;
        }
        // The whole sums are longer than those of parts: equal here is equal.
        if sums[0] != sums[1] {
            self.work.push_back((1, whole(span, Brief::of(sums[0]))));
        }
    }

    /// Shows a side what the other has; gives how many items were found to be equal.
    async fn show(&mut self, side: usize, strip: &Strip) -> Result<u64> {
        let reply = self
            .ask(side, &Request::Compare(vec![strip.clone()]))
            .await?;
        let Reply::Compared(verdicts) = reply else {
            return Err(self.strange(side, &reply));
        };
        let Some(parts) = strip.cut.parts(&strip.span) else {
            bail!("{} cuts ranges in a strange way", self.sides[1 - side].name);
        };
        let mut equal: u64 = parts.iter().map(|(_, brief)| brief.count).sum();
        for (index, verdict) in verdicts {
            let part = usize::try_from(index)
                .ok()
                .and_then(|index| parts.get(index));
            let Some((span, brief)) = part else {
                bail!("{} answers what was not asked", self.sides[side].name);
            };
            equal -= brief.count.min(equal);
            match verdict {
                Verdict::Later => self.work.push_back((side, whole(span.clone(), *brief))),
                Verdict::Split(_, cut) => {
                    let span = span.clone();
                    self.work.push_back((1 - side, Strip { span, cut }));
                }
                Verdict::Empty => {
                    self.leaf(span, side, Some(BTreeSet::new()), brief.count)
                        .await?
                }
                Verdict::Whole(count) => {
                    self.leaf(span, 1 - side, Some(BTreeSet::new()), count)
                        .await?;
                }
                Verdict::Ids(ids) => {
                    let ids = Some(ids.into_iter().collect());
                    self.leaf(span, side, ids, brief.count).await?;
                }
                Verdict::Dense(count) => {
                    self.leaf(span, side, None, brief.count.max(count)).await?;
                }
            }
        }
        Ok(equal)
    }

    /// Compares the items of a span that differs. Of `side` they are known, or are to be asked for as
    /// those of the other; there are about `count`.
    async fn leaf(
        &mut self,
        span: &Span,
        side: usize,
        known: Option<BTreeSet<u64>>,
        count: u64,
    ) -> Result<()> {
        let of = count / LIST_MAX + 1;
        for part in 0..of {
            let other = self.list(1 - side, span, of, part).await?;
            let mine = match &known {
                Some(known) => known.iter().copied().filter(|id| id % of == part).collect(),
                None => self.list(side, span, of, part).await?,
            };
            let only = |a: &BTreeSet<u64>, b: &BTreeSet<u64>| a.difference(b).copied().collect();
            let mut ids: [Vec<u64>; 2] = [Vec::new(), Vec::new()];
            ids[side] = only(&mine, &other);
            ids[1 - side] = only(&other, &mine);
            for (total, ids) in self.found.only.iter_mut().zip(&ids) {
                *total += ids.len() as u64;
            }
            self.name(span, ids).await?;
        }
        Ok(())
    }

    async fn list(&self, side: usize, span: &Span, of: u64, part: u64) -> Result<BTreeSet<u64>> {
        let request = Request::List {
            span: span.clone(),
            of,
            part,
        };
        match self.ask(side, &request).await? {
            Reply::Listed(ids) => Ok(ids.into_iter().collect()),
            reply => Err(self.strange(side, &reply)),
        }
    }

    /// Finds the keys of items that only one has, until there are enough to print.
    async fn name(&mut self, span: &Span, ids: [Vec<u64>; 2]) -> Result<()> {
        // A version of a series is of interest by itself, a key's latest beside the other's.
        let is_series = span.axis == Axis::Times;
        let mut named = BTreeMap::<(String, Option<Version>), [Option<Version>; 2]>::new();
        for (side, ids) in ids.into_iter().enumerate() {
            let room = self.keys_max.saturating_sub(self.found.differences.len());
            if room == 0 || ids.is_empty() {
                continue;
            }
            for (key, version) in self.fetch(side, span, ids, room).await? {
                let entry = named
                    .entry((key, is_series.then_some(version)))
                    .or_default();
                entry[side] = Some(version);
            }
        }
        let differences = named
            .into_iter()
            .map(|((key, _), held)| Difference { key, held });
        self.found.differences.extend(differences);
        Ok(())
    }

    /// Keys and versions of some items, at least `room` if there are so many.
    async fn fetch(
        &self,
        side: usize,
        span: &Span,
        ids: Vec<u64>,
        room: usize,
    ) -> Result<Vec<(String, Version)>> {
        let mut found = Vec::new();
        let mut span = span.clone();
        loop {
            let want = Want {
                span: span.clone(),
                ids: Some(ids.clone()),
            };
            let request = Request::Fetch {
                horizon: Version::ZERO,
                unpacks: false,
                wants: vec![want],
                floor: 0,
                credit: CREDIT,
            };
            let (parcel, next) = match self.ask(side, &request).await? {
                Reply::Page { parcel, next } => (parcel, next),
                reply => return Err(self.strange(side, &reply)),
            };
            let items = parcel.states.into_iter().map(|state| {
                let version = match span.axis {
                    Axis::Keys => state.record.head.effective(),
                    Axis::Times => state.record.head.own,
                };
                (state.key.to_string(), version)
            });
            found.extend(items);
            match next {
                // Where it goes on lies behind: else this would not end.
                Some((_, position)) if found.len() < room && position > span.from => {
                    span.from = position;
                }
                _ => return Ok(found),
            }
        }
    }

    /// Compares the wildcard operations from a horizon on.
    async fn wildcards(&mut self, horizon: Version) -> Result<()> {
        let mut ids = BTreeSet::new();
        loop {
            let known = ids.iter().copied().collect();
            let (ops, more, _) = self.ops(0, horizon, known).await?;
            let before = ids.len();
            ids.extend(ops);
            if !more || ids.len() == before {
                break;
            }
        }
        let known: Vec<u64> = ids.iter().copied().collect();
        let (mut theirs, mut more, missing) = self.ops(1, horizon, known).await?;
        self.found.wildcards += missing.len() as u64;
        // What the other has and the first has not.
        while !theirs.is_empty() {
            self.found.wildcards += theirs.len() as u64;
            if !more {
                break;
            }
            ids.extend(theirs);
            let known = ids.iter().copied().collect();
            (theirs, more, _) = self.ops(1, horizon, known).await?;
        }
        Ok(())
    }

    /// The ids of a side's wildcard operations that are not among `known`, whether there are more, and
    /// which of `known` it has not.
    async fn ops(
        &self,
        side: usize,
        horizon: Version,
        ids: Vec<u64>,
    ) -> Result<(Vec<u64>, bool, Vec<u64>)> {
        let request = Request::Wildcards {
            horizon,
            ids,
            credit: OPS_CREDIT,
        };
        match self.ask(side, &request).await? {
            Reply::Wildcards {
                parcel,
                more,
                missing,
            } => Ok((parcel.ops.iter().map(op_id).collect(), more, missing)),
            reply => Err(self.strange(side, &reply)),
        }
    }

    async fn ask(&self, side: usize, request: &Request) -> Result<Reply> {
        let Side { name, line } = &self.sides[side];
        let frame = request.encode();
        let answer = line.ask(&frame, Priority::DataLow, self.limit).await;
        let answer = answer.map_err(|why| anyhow!("{name} does not answer: {why}"))?;
        self.asked.fetch_add(1, Relaxed);
        self.bytes
            .fetch_add((frame.len() + answer.len()) as u64, Relaxed);
        match Reply::decode(&answer) {
            Ok(Reply::Refused(why)) => bail!("{name} refuses: {why}"),
            Ok(reply) => Ok(reply),
            Err(why) => bail!("the answer of {name} is not understood: {why}"),
        }
    }

    fn strange(&self, side: usize, reply: &Reply) -> anyhow::Error {
        let name = &self.sides[side].name;
        tracing::debug!(name, ?reply, "an answer to something else");
        anyhow!("{name} answers something else")
    }
}

fn whole(span: Span, brief: Brief) -> Strip {
    Strip {
        span,
        cut: Cut {
            bounds: Vec::new(),
            briefs: vec![brief],
        },
    }
}
