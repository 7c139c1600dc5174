//! A storage as reconciliation sees it ([`weir_core::mirror::Replica`]): its stores, through the view
//! that readers have, with the ledgers that say what need not be read.
//!
//! Nothing here writes to a store. What a ledger does not know any more is read, counted, and known
//! again; so a comparison costs what has changed since the last one, once.
//!
//! Where only a part of the storage concerns the peer and that part is no range of keys, the ledgers
//! cannot help: every comparison reads all of the part.

mod keys;
mod times;

use std::{collections::BTreeMap, sync::Arc};

use weir_core::{
    change::Table,
    collection::newest_seen,
    identity::Identity,
    key::{Key, KeyRange},
    keyexpr::keyexpr,
    keyspace::KeySpace,
    ledger::{Axis, Item, Span, Summary, merged_hash},
    mirror::{Marks, Page, Replica, State, Unreadable},
    pattern::KeySet,
    record::Record,
    version::{Stamp, Version},
    view::View,
    wildcard::WildcardOp,
};

use crate::{Error, Ledger, Store, recover};

/// Where a replica's stores come from; one for each shard. Asked again for every read, because a store
/// may be opened anew at any time.
pub trait Source: Send + Sync {
    /// The store now; `None` while it is not open. The view must be at least as new as what the ledger
    /// was told to have been committed.
    fn reading(&self) -> Option<Reading>;
}

/// A store to read, how to see it, and what it knows it has.
#[derive(Clone)]
pub struct Reading {
    /// The store.
    pub store: Arc<Box<dyn Store>>,
    /// The view.
    pub view: View,
    /// The ledger; the same one as long as the store is open.
    pub ledger: Arc<Ledger>,
}

/// What of a storage concerns a peer.
#[derive(Clone, Debug, Default)]
pub enum Scope {
    /// Everything.
    #[default]
    All,
    /// What lies in these ranges of stored keys, which do not overlap.
    Ranges(Vec<KeyRange>),
    /// What the peer's keys match.
    Matching(Box<KeySet>),
}

/// A storage, whole or in part, read through its ledgers. Blocks.
pub struct StoreReplica {
    sources: Vec<Arc<dyn Source>>,
    space: KeySpace,
    scope: Scope,
    /// Whether it keeps a series that is to be compared.
    series: bool,
    revision: u64,
    now: u64,
    /// A buffer for full keys.
    full: String,
    bytes: Vec<u8>,
}

impl Scope {
    /// What of a storage with the keys `ours` under `space` concerns a peer with the keys `theirs`.
    #[must_use]
    pub fn of(ours: &KeySet, space: &KeySpace, theirs: &KeySet) -> Self {
        let declared = theirs.declared();
        let covers = |own: &keyexpr| declared.iter().any(|their| their.includes(own));
        if ours == theirs {
            return Self::All;
        }
        if theirs.is_exact() && ours.declared().iter().all(|own| covers(own)) {
            return Self::All;
        }
        let is_range = |expr: &keyexpr| {
            let rest = expr.strip_suffix("/**").unwrap_or(expr);
            !rest.contains('*') && !rest.contains('$')
        };
        if !theirs.is_exact() || !declared.iter().all(|expr| is_range(expr)) {
            return Self::Matching(Box::new(theirs.clone()));
        }
        let mut ranges: Vec<KeyRange> = declared
            .iter()
            .filter_map(|expr| space.range(expr))
            .collect();
        ranges.sort_by(|a, b| a.from.cmp(&b.from));
        // Of two ranges of this form one holds the other, or they are apart.
        ranges.dedup_by(|later, earlier| earlier.contains(&later.from));
        Self::Ranges(ranges)
    }

    /// Whether everything concerns the peer: only then what is found of both holds of all there is.
    #[must_use]
    pub const fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }
}

impl StoreReplica {
    /// A storage's stores at a time (`now`, NTP64), with the revision of its resolver (0 for none).
    #[must_use]
    pub fn new(
        sources: Vec<Arc<dyn Source>>,
        space: KeySpace,
        scope: Scope,
        series: bool,
        revision: u64,
        now: u64,
    ) -> Self {
        Self {
            sources,
            space,
            scope,
            series,
            revision,
            now,
            full: String::new(),
            bytes: Vec::new(),
        }
    }

    /// Whether a change waits for its policy: what is no longer from the future and still lies aside.
    fn waits(&self, readings: &[Reading]) -> Result<bool, Unreadable> {
        for Reading { view, store, .. } in readings {
            if !view.resolves {
                continue;
            }
            let first = store.rows(Table::Parked, &[], 1).map_err(unreadable)?;
            let stamp = first.first().and_then(|(row, _)| row.get(..Stamp::LEN));
            if stamp
                .and_then(Stamp::from_bytes)
                .is_some_and(|stamp| stamp.time <= self.now)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn readings(&self) -> Result<Vec<Reading>, Unreadable> {
        (0..self.sources.len())
            .map(|index| self.reading(index))
            .collect()
    }

    fn reading(&self, index: usize) -> Result<Reading, Unreadable> {
        self.sources[index]
            .reading()
            .ok_or_else(|| Unreadable("a store of the storage is not open".into()))
    }

    /// The reading that still goes with a ledger.
    fn reading_of(&self, index: usize, ledger: &Arc<Ledger>) -> Result<Reading, Unreadable> {
        let reading = self.reading(index)?;
        if Arc::ptr_eq(&reading.ledger, ledger) {
            Ok(reading)
        } else {
            Err(Unreadable("the store was opened anew".into()))
        }
    }

    /// The ranges of stored keys that a range of positions (keys in full) means for this replica.
    fn ranges(&self, span: &Span) -> Vec<KeyRange> {
        let (from, to) = (span.from.clone(), span.to.clone());
        let range = self.space.stored(&KeyRange { from, to });
        match &self.scope {
            Scope::All | Scope::Matching(_) => vec![range],
            Scope::Ranges(ranges) => ranges
                .iter()
                .map(|of| of.meet(&range))
                .filter(|range| !range.is_empty())
                .collect(),
        }
    }

    /// Whether the ledgers know nothing of what is compared.
    const fn is_filtered(&self) -> bool {
        matches!(self.scope, Scope::Matching(_))
    }

    /// The item that a latest record is; `None` if it does not concern the peer, or is a tombstone that
    /// is about to be collected here, and perhaps has been already there.
    fn latest_item(&mut self, view: &View, key: &Key, record: &Record) -> Option<Item> {
        let version = view.effective(key, record.head, &mut self.full);
        if version.is_delete() && version.max(newest_seen(record)) < view.horizon {
            return None;
        }
        self.item(key, version, merged_hash(record.merged.as_deref()))
    }

    /// The item that a version of a series is.
    fn version_item(&mut self, key: &Key, record: &Record) -> Option<Item> {
        self.item(key, record.head.own, 0)
    }

    fn item(&mut self, key: &Key, version: Version, merged: u64) -> Option<Item> {
        let full = self.space.full(key, &mut self.full)?;
        if let Scope::Matching(set) = &self.scope
            && !set.matches(full)
        {
            return None;
        }
        let key = if self.space.prefix().is_none() {
            key.clone()
        } else {
            Key::from(full.as_str())
        };
        Some(Item {
            key,
            version,
            merged,
        })
    }

    fn hash(&mut self, item: &Item) -> u128 {
        item.hash_with(&mut self.bytes)
    }
}

impl Replica for StoreReplica {
    fn marks(&mut self) -> Result<Marks, Unreadable> {
        let readings = self.readings()?;
        let views = || readings.iter().map(|reading| &reading.view);
        Ok(Marks {
            series: self.series,
            horizon: views().map(|view| view.horizon).max().unwrap_or_default(),
            floor: views().map(|view| view.floor).max().unwrap_or_default(),
            revision: self.revision,
            waits: self.waits(&readings)?,
            now: self.now,
        })
    }

    fn stores(&mut self) -> Result<Vec<Identity>, Unreadable> {
        let readings = self.readings()?;
        let identities = readings
            .iter()
            .map(|reading| recover::identity(&**reading.store).map_err(unreadable));
        let stores: Option<Vec<Identity>> = identities.collect::<Result<_, _>>()?;
        // Of some of several nothing could be said of the whole.
        Ok(stores.unwrap_or_default())
    }

    fn wildcards(&mut self) -> Result<Vec<Arc<WildcardOp>>, Unreadable> {
        let mut ops = BTreeMap::new();
        for reading in self.readings()? {
            for op in reading.view.journal.iter() {
                let concerns = match &self.scope {
                    Scope::All => true,
                    Scope::Matching(set) => set.intersects(&op.expr),
                    Scope::Ranges(ranges) => self
                        .space
                        .range(&op.expr)
                        .is_some_and(|of| ranges.iter().any(|range| !range.meet(&of).is_empty())),
                };
                if concerns {
                    ops.insert((op.version, op.expr.to_string()), Arc::clone(op));
                }
            }
        }
        Ok(ops.into_values().collect())
    }

    fn summary(&mut self, span: &Span) -> Result<Summary, Unreadable> {
        match span.axis {
            Axis::Keys => self.summary_of_keys(span),
            Axis::Times => self.summary_of_times(span),
        }
    }

    fn split(&mut self, span: &Span, parts: usize) -> Result<Vec<(Span, Summary)>, Unreadable> {
        let fences = match span.axis {
            Axis::Keys => self.cut_keys(span, parts)?,
            Axis::Times => self.cut_times(span, parts)?,
        };
        let mut spans = Vec::with_capacity(fences.len() + 1);
        let mut from = span.from.clone();
        for to in fences.into_iter().map(Some).chain([span.to.clone()]) {
            let part = Span {
                axis: span.axis,
                from,
                to,
            };
            from = part.to.clone().unwrap_or_default();
            let summary = self.summary(&part)?;
            spans.push((part, summary));
        }
        Ok(spans)
    }

    fn items(&mut self, span: &Span, max: usize) -> Result<Vec<Item>, Unreadable> {
        match span.axis {
            Axis::Keys => self.items_of_keys(span, max),
            Axis::Times => self.items_of_times(span, max),
        }
    }

    fn read(
        &mut self,
        span: &Span,
        wanted: &mut dyn FnMut(&Item) -> bool,
        bytes_max: usize,
    ) -> Result<Page, Unreadable> {
        match span.axis {
            Axis::Keys => self.read_keys(span, wanted, bytes_max),
            Axis::Times => self.read_times(span, wanted, bytes_max),
        }
    }

    fn fold(&mut self, horizon: Version, states: &mut [State]) -> Result<(), Unreadable> {
        for Reading { view, .. } in self.readings()? {
            // Operations below either horizon are not told by themselves.
            let horizon = horizon.max(view.horizon);
            if !view.resolves || view.journal.is_empty() || horizon == Version::ZERO {
                continue;
            }
            for state in &mut *states {
                let Some(key) = self.space.relative(&state.key) else {
                    continue;
                };
                let record = &state.record;
                if let Some(folded) = view.fold_for(horizon, &key, record, &mut self.full) {
                    state.record = folded;
                }
            }
        }
        Ok(())
    }
}

/// What a record takes of a page beside its key and value. In memory it is some more.
const RECORD_BYTES: usize = 64;

/// A page that is being filled.
#[derive(Default)]
struct Filling {
    page: Page,
    bytes: usize,
}

impl Filling {
    /// Adds a record, unless the page is full: then the page goes on at `position`, and that is all.
    fn add(&mut self, item: &Item, record: Record, axis: Axis, bytes_max: usize) -> bool {
        let size = item.key.len() + RECORD_BYTES + record.value.as_ref().map_or(0, |v| v.len());
        if !self.page.states.is_empty() && self.bytes + size > bytes_max {
            self.page.next = Some(item.position(axis));
            return false;
        }
        self.bytes += size;
        self.page.states.push(State {
            key: item.key.clone(),
            record,
        });
        true
    }
}

/// Of the positions of `fences` those that cut the span, sorted, `parts - 1` at most, evenly.
fn fences_of(span: &Span, mut fences: Vec<Vec<u8>>, parts: usize) -> Vec<Vec<u8>> {
    fences.retain(|fence| span.is_cut_by(fence));
    fences.sort_unstable();
    fences.dedup();
    let keep = parts.saturating_sub(1);
    let len = fences.len();
    if len > keep {
        let mut at = 0;
        fences.retain(|_| {
            at += 1;
            // The multiples of len / keep, rounded.
            at * keep / len != (at - 1) * keep / len
        });
    }
    fences
}

fn unreadable(error: Error) -> Unreadable {
    Unreadable(error.to_string())
}
