//! The versions of a time series, by time.
//!
//! Stores keep a series by key and then by time. So a span of time is read key by key, and put in
//! order here: no more than a window of it at once, which is widened as long as little comes of it.

use weir_core::{
    key::KeyRange,
    ledger::{Axis, Item, Span, Summary},
    mirror::{Page, Unreadable},
    record::Record,
    version::{Kind, Stamp, Version},
};

use super::{Filling, StoreReplica, fences_of, unreadable};
use crate::Direction;

/// The first window of a page: a second (NTP64).
const WINDOW: u64 = 1 << 32;

/// A span of time, both ends inclusive (NTP64).
type Times = (u64, u64);

impl StoreReplica {
    pub(super) fn summary_of_times(&mut self, span: &Span) -> Result<Summary, Unreadable> {
        let Some(times) = times_of(span) else {
            return Ok(Summary::EMPTY);
        };
        let mut total = Summary::EMPTY;
        for index in 0..self.sources.len() {
            total += if matches!(self.scope, super::Scope::All) {
                self.known_times(index, times)?
            } else {
                self.count_times(index, times)?
            };
        }
        Ok(total)
    }

    /// Times that cut a span into about equal parts of what there is of it.
    pub(super) fn cut_times(
        &mut self,
        span: &Span,
        parts: usize,
    ) -> Result<Vec<Vec<u8>>, Unreadable> {
        let Some(times) = times_of(span) else {
            return Ok(Vec::new());
        };
        let mut cuts = Vec::new();
        for reading in self.readings()? {
            let state = reading.ledger.begun();
            let calendar = state.calendar.as_ref();
            cuts.extend(calendar.map_or(Vec::new(), |calendar| calendar.cut(times, parts)));
        }
        let cuts = cuts.iter().map(|time| time.to_be_bytes().to_vec());
        Ok(fences_of(span, cuts.collect(), parts))
    }

    pub(super) fn items_of_times(
        &mut self,
        span: &Span,
        max: usize,
    ) -> Result<Vec<Item>, Unreadable> {
        let mut items = Vec::new();
        self.walk_times(span, &mut |item, _| {
            if items.len() < max {
                items.push(item);
            }
            items.len() < max
        })?;
        Ok(items)
    }

    pub(super) fn read_times(
        &mut self,
        span: &Span,
        wanted: &mut dyn FnMut(&Item) -> bool,
        bytes_max: usize,
    ) -> Result<Page, Unreadable> {
        let mut filling = Filling::default();
        // A position is a time; what shares it with the last record of a page is on that page, too.
        let mut last = None;
        self.walk_times(span, &mut |item, record| {
            if !wanted(&item) {
                return true;
            }
            let time = item.version.stamp.time;
            let room = if last == Some(time) {
                usize::MAX
            } else {
                bytes_max
            };
            last = Some(time);
            filling.add(&item, record, Axis::Times, room)
        })?;
        Ok(filling.page)
    }

    /// The sum of a span of time of one shard, from its ledger where that knows; the rest is read, and
    /// known from then on.
    fn known_times(&mut self, index: usize, times: Times) -> Result<Summary, Unreadable> {
        let ledger = self.reading(index)?.ledger;
        let stale = ledger
            .begun()
            .calendar
            .as_ref()
            .map(|calendar| calendar.stale(times));
        if let Some(stale) = stale.filter(|stale| !stale.is_empty()) {
            self.reading_of(index, &ledger)?;
            let mut counter = stale.counter();
            for times in stale.times() {
                self.each_version(index, *times, &mut |item, hash, _| {
                    counter.add(item.version.stamp.time, hash);
                })?;
            }
            let counted = counter.finish();
            if let Some(calendar) = &mut ledger.begun().calendar {
                calendar.renew(counted);
            }
        }
        let covered = ledger
            .begun()
            .calendar
            .as_ref()
            .map(|calendar| calendar.summary(times));
        let Some(covered) = covered else {
            return Ok(Summary::EMPTY);
        };
        let mut total = covered.summary;
        for times in &covered.partial {
            total += self.count_times(index, *times)?;
        }
        Ok(total)
    }

    /// Reads and counts a span of time of one shard.
    fn count_times(&mut self, index: usize, times: Times) -> Result<Summary, Unreadable> {
        let mut summary = Summary::EMPTY;
        self.each_version(index, times, &mut |_, hash, _| summary.add(hash))?;
        Ok(summary)
    }

    /// Walks the versions of a span in the order of time over all shards, until told to stop.
    fn walk_times(
        &mut self,
        span: &Span,
        visit: &mut dyn FnMut(Item, Record) -> bool,
    ) -> Result<(), Unreadable> {
        let Some((mut from, to)) = times_of(span) else {
            return Ok(());
        };
        let mut window = WINDOW;
        loop {
            let end = from.saturating_add(window - 1).min(to);
            let mut found = Vec::new();
            for index in 0..self.sources.len() {
                self.each_version(index, (from, end), &mut |item, _, record| {
                    found.push((item, record));
                })?;
            }
            found.sort_by(|(a, _), (b, _)| (a.version, &a.key).cmp(&(b.version, &b.key)));
            if found.is_empty() {
                window = window.saturating_mul(2);
            }
            for (item, record) in found {
                if !visit(item, record) {
                    return Ok(());
                }
            }
            if end == to {
                return Ok(());
            }
            from = end + 1;
        }
    }

    /// Reads the versions of a span of time of one shard, key by key.
    fn each_version(
        &mut self,
        index: usize,
        (from, to): Times,
        visit: &mut dyn FnMut(Item, u128, Record),
    ) -> Result<(), Unreadable> {
        let reading = self.reading(index)?;
        let ranges = match &self.scope {
            super::Scope::Ranges(ranges) => ranges.clone(),
            super::Scope::All | super::Scope::Matching(_) => vec![KeyRange::all()],
        };
        let first = Version::put(
            Stamp {
                time: from,
                id: [0; 16],
            },
            0,
        );
        let last = Version {
            stamp: Stamp {
                time: to,
                id: [u8::MAX; 16],
            },
            kind: Kind::Delete,
            hash: u64::MAX,
        };
        let snapshot = reading.store.snapshot().map_err(unreadable)?;
        for range in &ranges {
            for row in snapshot.history(range, Some((first, last)), Direction::Forward) {
                let (key, record) = row.map_err(unreadable)?;
                if let Some(item) = self.version_item(&key, &record) {
                    let hash = self.hash(&item);
                    visit(item, hash, record);
                }
            }
        }
        Ok(())
    }
}

/// The times of a span; `None` if there are none.
fn times_of(span: &Span) -> Option<Times> {
    let time = |position: &[u8]| {
        let mut bytes = [0; 8];
        let len = position.len().min(8);
        bytes[..len].copy_from_slice(&position[..len]);
        u64::from_be_bytes(bytes)
    };
    let from = time(&span.from);
    let to = match &span.to {
        None => u64::MAX,
        Some(to) => time(to).checked_sub(1)?,
    };
    (from <= to).then_some((from, to))
}
