//! A journal in memory: what the core asks of an outbox, and what a real one loses when it dies.

use std::collections::{BTreeMap, BTreeSet};

use weir_core::{
    change::KeptChange,
    forward::{Cause, Entry, Lost, Mark, Missing, Order, Outbox, Page, Position, Source, Stretch},
    ledger::{Item, Summary},
    mirror::Unreadable,
    version::Version,
    wildcard::WildcardOp,
};

/// A source and a second since the epoch.
type Second = (Source, u64);

/// An edge's journal.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    /// Entries that are kept at the most; of more the oldest are given up.
    capacity: usize,
    /// How long (NTP64) what is certified by all is kept all the same.
    keep: u64,
    entries: BTreeMap<u64, Kept>,
    seen: BTreeMap<Second, Seen>,
    appended: u64,
    /// What was appended up to here survives a crash.
    synced: u64,
    /// By upstream: up to where a second is certified.
    certified: Vec<BTreeMap<Second, u64>>,
    /// What was given up, and by which upstreams that is not noted yet.
    lost: Vec<(Lost, Version, BTreeSet<usize>)>,
    /// Reading fails so many times more.
    pub(super) unreadable: u64,
    /// How often entries were put into other lanes.
    moves: u64,
    /// How often a stretch was cut, within a second too; a second got something after it was certified.
    pub(super) splits: u64,
    pub(super) fine_splits: u64,
    pub(super) late: u64,
    /// How often somebody asked what waits.
    pub(super) looks: u64,
}

#[derive(Clone, Debug)]
struct Kept {
    entry: Entry,
    version: Version,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    summary: Summary,
    /// All that was seen, to be counted again when some of it is lost: when, and the hash (of a put or
    /// delete).
    each: Vec<(u64, Option<u128>)>,
    /// When some of it was put into another lane last, as a mark.
    moved: u64,
    /// When everybody had certified it.
    done: Option<u64>,
}

/// The journal as a link sees it.
pub(super) struct View<'a> {
    pub(super) journal: &'a mut Journal,
    pub(super) upstream: usize,
}

impl Journal {
    pub(super) fn new(upstreams: usize, capacity: usize, keep: u64) -> Self {
        Self {
            capacity,
            keep,
            entries: BTreeMap::new(),
            seen: BTreeMap::new(),
            appended: 0,
            synced: 0,
            certified: vec![BTreeMap::new(); upstreams],
            lost: Vec::new(),
            unreadable: 0,
            moves: 0,
            splits: 0,
            fine_splits: 0,
            late: 0,
            looks: 0,
        }
    }

    /// Takes note of an entry, and keeps it unless a policy drops it; answers what was given up for it.
    pub(super) fn append(&mut self, entry: Entry, is_kept: bool) -> Vec<Version> {
        let version = version_of(&entry.change);
        let second = second_of(&version);
        self.appended += 1;
        if self.certified.iter().any(|of| of.contains_key(&second)) {
            self.late += 1;
        }
        let hash = item(&entry.change).map(|item| item.hash());
        let seen = self.seen.entry(second).or_default();
        seen.each.push((self.appended, hash));
        seen.done = None;
        if let Some(hash) = hash {
            seen.summary.add(hash);
        }
        let mut given_up = Vec::new();
        if is_kept {
            self.entries.insert(self.appended, Kept { entry, version });
            while self.entries.len() > self.capacity {
                let Some((_, kept)) = self.entries.pop_first() else {
                    break;
                };
                let (source, second) = second_of(&kept.version);
                let lost = Lost {
                    stretch: stretch(source, second, second + 1),
                    count: 1,
                    cause: Cause::Full,
                };
                let everybody = (0..self.certified.len()).collect();
                self.lost.push((lost, kept.version, everybody));
                given_up.push(kept.version);
            }
        }
        given_up
    }

    /// Drops older entries of a key, as a policy may say; answers which.
    pub(super) fn coalesce(&mut self, newest: &Entry) -> Vec<Version> {
        let KeptChange::Key(newest_change) = &newest.change else {
            return Vec::new();
        };
        let version = version_of(&newest.change);
        let mut dropped = Vec::new();
        self.entries.retain(|_, kept| {
            let is_older = matches!(&kept.entry.change, KeptChange::Key(change)
                if change.key == newest_change.key)
                && kept.version < version;
            if is_older {
                dropped.push(kept.version);
            }
            !is_older
        });
        dropped
    }

    /// Puts what waits into the lanes that another policy says; answers how much went to another one.
    pub(super) fn rank(&mut self, how: u64) -> u64 {
        // What was read before has not seen what is moved now.
        self.appended += 1;
        let mut moved = 0;
        for (at, kept) in &mut self.entries {
            if matches!(kept.entry.change, KeptChange::Wildcard(_)) {
                continue;
            }
            let lane = u8::try_from((at ^ how).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61);
            let lane = lane.unwrap_or_default();
            if lane == kept.entry.lane {
                continue;
            }
            kept.entry.lane = lane;
            moved += 1;
            if let Some(seen) = self.seen.get_mut(&second_of(&kept.version)) {
                seen.moved = self.appended;
                seen.done = None;
            }
        }
        self.moves += u64::from(moved > 0);
        moved
    }

    pub(super) fn sync(&mut self) {
        self.synced = self.appended;
    }

    /// Dies and comes back; answers what was not synced.
    pub(super) fn crash(&mut self) -> Vec<Version> {
        let lost = self.entries.split_off(&(self.synced + 1));
        self.appended = self.synced;
        let synced = self.synced;
        self.seen.retain(|_, seen| {
            seen.each.retain(|(at, _)| *at <= synced);
            seen.done = None;
            seen.moved = 0;
            seen.summary = Summary::EMPTY;
            for hash in seen.each.iter().filter_map(|(_, hash)| *hash) {
                seen.summary.add(hash);
            }
            !seen.each.is_empty()
        });
        for upstream in 0..self.certified.len() {
            self.doubt(upstream);
        }
        lost.into_values().map(|kept| kept.version).collect()
    }

    /// Nothing is certified by an upstream any more.
    pub(super) fn doubt(&mut self, upstream: usize) {
        self.certified[upstream].clear();
        for seen in self.seen.values_mut() {
            seen.done = None;
        }
        for (_, _, whom) in &mut self.lost {
            whom.insert(upstream);
        }
    }

    pub(super) fn certify(&mut self, now: u64, upstream: usize, stretches: &[Stretch], mark: Mark) {
        let seconds: Vec<Second> = self.seen.keys().copied().collect();
        for second in seconds {
            let (source, begin) = (second.0, second.1 << 32);
            let end = begin + (1 << 32);
            let is_in = stretches
                .iter()
                .any(|of| of.source == source && of.from <= begin && end <= of.to);
            if is_in {
                let upto = self.certified[upstream].entry(second).or_default();
                *upto = mark.0.max(*upto);
            }
            let is_done = (0..self.certified.len()).all(|upstream| !self.waits(upstream, &second));
            if let Some(seen) = self.seen.get_mut(&second) {
                seen.done = is_done.then(|| seen.done.unwrap_or(now));
            }
        }
    }

    pub(super) fn noted(&mut self, upstream: usize, noted: &[Lost]) {
        for (lost, _, whom) in &mut self.lost {
            if noted.contains(lost) {
                whom.remove(&upstream);
            }
        }
    }

    /// Forgets what everybody has certified, and what expired before `now`.
    pub(super) fn trim(&mut self, now: u64) {
        let keep = self.keep;
        let old = |seen: &Seen| seen.done.is_some_and(|done| done + keep <= now);
        let trimmed = self.seen.iter().filter(|(_, seen)| old(seen));
        let trimmed: BTreeSet<Second> = trimmed.map(|(second, _)| *second).collect();
        self.seen.retain(|second, _| !trimmed.contains(second));
        self.entries.retain(|_, kept| {
            !trimmed.contains(&second_of(&kept.version))
                && kept.entry.expires.is_none_or(|expires| now <= expires)
        });
        for certified in &mut self.certified {
            certified.retain(|second, _| !trimmed.contains(second));
        }
    }

    /// Whether anything waits for an upstream.
    pub(super) fn is_waiting(&self, upstream: usize) -> bool {
        self.seen.keys().any(|second| self.waits(upstream, second))
    }

    pub(super) fn keeps(&self, version: &Version) -> bool {
        self.entries.values().any(|kept| kept.version == *version)
    }

    /// The versions of a second that were appended up to a mark and are in these stretches.
    pub(super) fn of(&self, stretches: &[Stretch], mark: Mark) -> Vec<Version> {
        let entries = self.entries.range(..=mark.0);
        let versions = entries.map(|(_, kept)| kept.version);
        // What was moved since is not certified by that.
        let versions = versions.filter(|version| {
            let seen = self.seen.get(&second_of(version));
            seen.is_none_or(|seen| seen.moved <= mark.0)
        });
        versions
            .filter(|version| stretches.iter().any(|of| of.contains(&version.stamp)))
            .collect()
    }

    fn waits(&self, upstream: usize, second: &Second) -> bool {
        let certified = self.certified[upstream].get(second).copied().unwrap_or(0);
        self.seen.get(second).is_some_and(|seen| {
            let last = seen.each.last().map_or(0, |(last, _)| *last);
            last.max(seen.moved) > certified
        })
    }

    fn summary(&self, stretch: &Stretch) -> Summary {
        let seconds = (stretch.source, stretch.from >> 32)..(stretch.source, stretch.to >> 32);
        self.seen.range(seconds).map(|(_, seen)| seen.summary).sum()
    }

    fn kept(&self, stretch: &Stretch) -> Vec<Item> {
        let entries = self.entries.values();
        let inside = entries.filter(|kept| stretch.contains(&kept.version.stamp));
        inside.filter_map(|kept| item(&kept.entry.change)).collect()
    }

    fn read(&mut self) -> Result<(), Unreadable> {
        if self.unreadable > 0 {
            self.unreadable -= 1;
            return Err(Unreadable("a bad sector".to_owned()));
        }
        Ok(())
    }

    /// Cuts within a second: only what is kept is known so finely.
    fn split_finely(&mut self, of: &Stretch, parts: usize) -> Vec<(Stretch, Summary)> {
        let mut items = self.kept(of);
        items.sort_by_key(|item| item.version);
        let size = items.len().div_ceil(parts.max(1)).max(1);
        let mut cuts: Vec<u64> = items
            .chunks(size)
            .skip(1)
            .map(|part| part[0].version.stamp.time)
            .collect();
        cuts.dedup();
        cuts.retain(|cut| of.from < *cut);
        self.fine_splits += u64::from(!cuts.is_empty());
        cuts.push(of.to);
        let mut from = of.from;
        let mut found = Vec::new();
        for to in cuts {
            let part = Stretch { from, to, ..*of };
            let mut summary = Summary::EMPTY;
            for item in items
                .iter()
                .filter(|item| part.contains(&item.version.stamp))
            {
                summary.add(item.hash());
            }
            found.push((part, summary));
            from = to;
        }
        found
    }
}

impl Outbox for View<'_> {
    fn mark(&mut self) -> Mark {
        Mark(self.journal.appended)
    }

    fn pending(&mut self, before: u64, max: usize) -> Result<Vec<(Stretch, Summary)>, Unreadable> {
        self.journal.read()?;
        self.journal.looks += 1;
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut is_open = false;
        for second in self.journal.seen.keys() {
            let is_old = (second.1 + 1) << 32 <= before;
            if !is_old || !self.journal.waits(self.upstream, second) {
                is_open = false;
                continue;
            }
            let next = stretch(second.0, second.1, second.1 + 1);
            match stretches.last_mut() {
                Some(last) if is_open && last.source == next.source => last.to = next.to,
                _ => stretches.push(next),
            }
            is_open = true;
        }
        stretches.truncate(max);
        let summary = |of| (of, self.journal.summary(&of));
        Ok(stretches.into_iter().map(summary).collect())
    }

    fn split(&mut self, of: &Stretch, parts: usize) -> Result<Vec<(Stretch, Summary)>, Unreadable> {
        self.journal.read()?;
        let (begin, end) = (of.from >> 32, of.to >> 32);
        let is_whole = *of == of.seconds();
        let seconds = (of.source, begin)..(of.source, end);
        let is_one = self.journal.seen.range(seconds).count() < 2;
        if !is_whole || (is_one && parts > 1) {
            return Ok(self.journal.split_finely(of, parts));
        }
        let step = (end - begin).div_ceil(parts as u64).max(1);
        let mut found = Vec::new();
        let mut from = begin;
        while from < end {
            let to = (from + step).min(end);
            let part = stretch(of.source, from, to);
            found.push((part, self.journal.summary(&part)));
            from = to;
        }
        self.journal.splits += u64::from(found.len() > 1);
        Ok(found)
    }

    fn items(&mut self, of: &Stretch) -> Result<Vec<Item>, Unreadable> {
        self.journal.read()?;
        Ok(self.journal.kept(of))
    }

    fn operations(&mut self) -> Result<Vec<WildcardOp>, Unreadable> {
        self.journal.read()?;
        let entries = self.journal.entries.values();
        let ops = entries.filter_map(|kept| match &kept.entry.change {
            KeptChange::Wildcard(change)
                if self.journal.waits(self.upstream, &second_of(&kept.version)) =>
            {
                Some(change.clone().into_op(kept.version.stamp))
            }
            _ => None,
        });
        Ok(ops.collect())
    }

    fn page(
        &mut self,
        lane: u8,
        order: Order,
        from: Option<Position>,
        missing: &Missing,
        now: u64,
        bytes_max: usize,
    ) -> Result<Page, Unreadable> {
        self.journal.read()?;
        let mut entries: Vec<(u64, &Kept)> = match order {
            Order::OldestFirst => {
                let from = from.map_or(0, |position| position.0);
                let entries = self.journal.entries.range(from..);
                entries.map(|(at, kept)| (*at, kept)).collect()
            }
            Order::NewestFirst => {
                let upto = from.map_or(u64::MAX, |position| position.0);
                let entries = self.journal.entries.range(..=upto).rev();
                entries.map(|(at, kept)| (*at, kept)).collect()
            }
        };
        entries.retain(|(_, kept)| kept.entry.lane == lane);
        let mut page = Page::default();
        for (at, kept) in entries {
            let is_expired = kept.entry.expires.is_some_and(|expires| expires < now);
            let Some(item) = item(&kept.entry.change) else {
                continue;
            };
            if is_expired || !missing.wants(&kept.version, || item.hash()) {
                continue;
            }
            let size = 40 + item.key.len();
            if !page.entries.is_empty() && page.bytes + size > bytes_max {
                page.next = Some(Position(at));
                break;
            }
            page.bytes += size;
            page.entries.push(kept.entry.clone());
        }
        Ok(page)
    }

    fn lost(&mut self, max: usize) -> Result<Vec<Lost>, Unreadable> {
        self.journal.read()?;
        let lost = self.journal.lost.iter();
        let untold = lost.filter(|(_, _, whom)| whom.contains(&self.upstream));
        Ok(untold.map(|(lost, _, _)| *lost).take(max).collect())
    }

    fn moved(&mut self) -> u64 {
        self.journal.moves
    }
}

/// What a put or delete is in sums; `None` for an operation.
pub(super) fn item(change: &KeptChange) -> Option<Item> {
    let KeptChange::Key(key) = change else {
        return None;
    };
    Some(Item {
        key: key.key.clone(),
        version: version_of(change),
        merged: 0,
    })
}

pub(super) fn version_of(change: &KeptChange) -> Version {
    match change {
        KeptChange::Key(change) => change.version(change.stamp.unwrap_or_default()),
        KeptChange::Wildcard(change) => change.version(change.stamp.unwrap_or_default()),
    }
}

fn second_of(version: &Version) -> Second {
    (version.stamp.id, version.stamp.time >> 32)
}

fn stretch(source: Source, from: u64, to: u64) -> Stretch {
    Stretch {
        source,
        from: from << 32,
        to: to << 32,
    }
}
