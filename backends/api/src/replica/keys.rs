//! The latest records, by key.

use weir_core::{
    key::{Key, KeyRange},
    ledger::{Axis, Item, Span, Summary},
    mirror::{Page, Unreadable},
    record::Record,
};

use super::{Filling, StoreReplica, fences_of, unreadable};
use crate::{Direction, Snapshot};

/// A record of one of several shards, to be merged with the others in key order.
type Next = (Vec<u8>, Key, Record);

impl StoreReplica {
    pub(super) fn summary_of_keys(&mut self, span: &Span) -> Result<Summary, Unreadable> {
        let ranges = self.ranges(span);
        let mut total = Summary::EMPTY;
        for index in 0..self.sources.len() {
            for range in &ranges {
                total += if self.is_filtered() {
                    self.count_keys(index, range)?
                } else {
                    self.known_keys(index, range)?
                };
            }
        }
        Ok(total)
    }

    /// Fences that cut a span into about equal parts, as far as the ledgers know, as positions.
    pub(super) fn cut_keys(
        &mut self,
        span: &Span,
        parts: usize,
    ) -> Result<Vec<Vec<u8>>, Unreadable> {
        let ranges = self.ranges(span);
        let mut cuts = Vec::new();
        for reading in self.readings()? {
            for range in &ranges {
                let state = reading.ledger.begun();
                let runs = state.runs.as_ref();
                cuts.extend(runs.map_or(Vec::new(), |runs| runs.cut(range, parts)));
            }
        }
        let cuts = cuts.iter().map(|cut| self.space.position(cut)).collect();
        let fences = fences_of(span, cuts, parts);
        if parts > 1 && fences.is_empty() {
            let cuts = self.cut_finely(span, parts)?;
            return Ok(fences_of(span, cuts, parts));
        }
        Ok(fences)
    }

    pub(super) fn items_of_keys(
        &mut self,
        span: &Span,
        max: usize,
    ) -> Result<Vec<Item>, Unreadable> {
        let mut items = Vec::new();
        self.walk(span, &mut |item, _| {
            if items.len() < max {
                items.push(item);
            }
            items.len() < max
        })?;
        Ok(items)
    }

    pub(super) fn read_keys(
        &mut self,
        span: &Span,
        wanted: &mut dyn FnMut(&Item) -> bool,
        bytes_max: usize,
    ) -> Result<Page, Unreadable> {
        let mut filling = Filling::default();
        self.walk(span, &mut |item, record| {
            !wanted(&item) || filling.add(&item, record, Axis::Keys, bytes_max)
        })?;
        Ok(filling.page)
    }

    /// The sum of a range of one shard, from its ledger where that knows; the rest is read, and known
    /// from then on.
    fn known_keys(&mut self, index: usize, range: &KeyRange) -> Result<Summary, Unreadable> {
        let ledger = self.reading(index)?.ledger;
        let stale = ledger.begun().runs.as_ref().map(|runs| runs.stale(range));
        if let Some(stale) = stale.filter(|stale| !stale.is_empty()) {
            // The view and the snapshot after the ledger was asked: whatever it counts as committed,
            // they show.
            let reading = self.reading_of(index, &ledger)?;
            let snapshot = reading.store.snapshot().map_err(unreadable)?;
            let mut counter = stale.counter();
            for range in stale.ranges() {
                for row in snapshot.latest(range, Direction::Forward) {
                    let (key, record) = row.map_err(unreadable)?;
                    if let Some(item) = self.latest_item(&reading.view, &key, &record) {
                        let hash = self.hash(&item);
                        counter.add(&key.ordered(), hash);
                    }
                }
            }
            let counted = counter.finish();
            if let Some(runs) = &mut ledger.begun().runs {
                runs.renew(counted);
            }
        }
        let covered = ledger.begun().runs.as_ref().map(|runs| runs.summary(range));
        let Some(covered) = covered else {
            return Ok(Summary::EMPTY);
        };
        let mut total = covered.summary;
        for part in &covered.partial {
            total += self.count_keys(index, part)?;
        }
        Ok(total)
    }

    /// Reads and counts a range of one shard.
    fn count_keys(&mut self, index: usize, range: &KeyRange) -> Result<Summary, Unreadable> {
        let reading = self.reading(index)?;
        let snapshot = reading.store.snapshot().map_err(unreadable)?;
        let mut summary = Summary::EMPTY;
        for row in snapshot.latest(range, Direction::Forward) {
            let (key, record) = row.map_err(unreadable)?;
            if let Some(item) = self.latest_item(&reading.view, &key, &record) {
                summary.add(self.hash(&item));
            }
        }
        Ok(summary)
    }

    /// Fences from the keys themselves, where the ledgers have none.
    fn cut_finely(&mut self, span: &Span, parts: usize) -> Result<Vec<Vec<u8>>, Unreadable> {
        let mut keys = Vec::new();
        let mut step = 1;
        let mut seen = 0_usize;
        let most = parts.saturating_mul(16).max(2);
        self.walk(span, &mut |item, _| {
            if seen.is_multiple_of(step) {
                keys.push(item.key.ordered());
            }
            seen += 1;
            if keys.len() == most {
                // Every other one, from here on too: memory stays bounded.
                let mut keep = false;
                keys.retain(|_| {
                    keep = !keep;
                    keep
                });
                step *= 2;
            }
            true
        })?;
        keys.drain(..keys.len().min(1));
        Ok(keys)
    }

    /// Walks the records of a span in key order over all shards, until told to stop.
    fn walk(
        &mut self,
        span: &Span,
        visit: &mut dyn FnMut(Item, Record) -> bool,
    ) -> Result<(), Unreadable> {
        let ranges = self.ranges(span);
        let readings = self.readings()?;
        let snapshots = readings.iter().map(|reading| reading.store.snapshot());
        let snapshots: Vec<Box<dyn Snapshot + '_>> =
            snapshots.collect::<Result<_, _>>().map_err(unreadable)?;
        for range in &ranges {
            let mut rows: Vec<_> = snapshots
                .iter()
                .map(|snapshot| snapshot.latest(range, Direction::Forward))
                .collect();
            let mut heads: Vec<Option<Next>> = Vec::with_capacity(rows.len());
            for rows in &mut rows {
                heads.push(next(rows)?);
            }
            loop {
                let first = heads.iter().enumerate().filter_map(|(index, head)| {
                    head.as_ref().map(|(ordered, _, _)| (ordered, index))
                });
                let Some((_, index)) = first.min() else { break };
                let Some((_, key, record)) =
                    std::mem::replace(&mut heads[index], next(&mut rows[index])?)
                else {
                    break;
                };
                let view = &readings[index].view;
                let Some(item) = self.latest_item(view, &key, &record) else {
                    continue;
                };
                // Who has collected the operation would take what it has deleted for a put of old.
                let record = view.fold(&key, &record, &mut self.full).unwrap_or(record);
                if !visit(item, record) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn next(rows: &mut crate::Rows<'_>) -> Result<Option<Next>, Unreadable> {
    let row = rows.next().transpose().map_err(unreadable)?;
    Ok(row.map(|(key, record)| (key.ordered(), key, record)))
}
