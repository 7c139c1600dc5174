//! Reading a database at one moment.

use rocksdb::{DB, DBRawIteratorWithThreadMode, ReadOptions, SnapshotWithThreadMode};
use weir_backend_api::{Direction, Result, Row, Rows, Snapshot};
use weir_core::{
    key::{Key, KeyRange},
    record::Record,
    version::Version,
};

use crate::{
    errors,
    options::{HISTORY, LATEST},
    rows,
    store::{RocksdbStore, decode},
};

/// A RocksDB snapshot. It keeps old versions of overwritten rows on the disk while it lives.
pub struct RocksdbSnapshot<'a> {
    store: &'a RocksdbStore,
    snapshot: SnapshotWithThreadMode<'a, DB>,
}

/// The rows of a range, one at a time. Holds a block of each file, however long the range is.
struct Scan<'s> {
    iter: DBRawIteratorWithThreadMode<'s, DB>,
    direction: Direction,
    shape: Shape,
    done: bool,
}

/// What the rows of a scan are.
enum Shape {
    Latest,
    /// With the versions that are wanted of each key.
    History(Option<(Version, Version)>),
}

/// What a scan does with the row that it stands on.
enum Step {
    Yield(Key, Record),
    /// The row's version is not wanted: go where the next wanted one can be.
    Seek(Vec<u8>),
}

impl<'a> RocksdbSnapshot<'a> {
    pub(crate) fn new(store: &'a RocksdbStore) -> Self {
        Self {
            store,
            snapshot: store.db().snapshot(),
        }
    }

    fn scan(
        &self,
        family: &str,
        (from, to): (Vec<u8>, Option<Vec<u8>>),
        direction: Direction,
        shape: Shape,
    ) -> Result<Scan<'_>> {
        let family = self.store.family(family)?;
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        if let Some(to) = to {
            options.set_iterate_upper_bound(to);
        }
        let mut iter = self.snapshot.raw_iterator_cf_opt(&family, options);
        match direction {
            Direction::Forward => iter.seek_to_first(),
            Direction::Backward => iter.seek_to_last(),
        }
        Ok(Scan {
            iter,
            direction,
            shape,
            done: false,
        })
    }
}

impl Snapshot for RocksdbSnapshot<'_> {
    fn get(&self, key: &Key) -> Result<Option<Record>> {
        let latest = self.store.family(LATEST)?;
        let row = self
            .snapshot
            .get_pinned_cf(&latest, key.ordered())
            .map_err(errors::reading)?;
        row.map(|row| decode(&row)).transpose()
    }

    fn latest<'s>(&'s self, range: &KeyRange, direction: Direction) -> Rows<'s> {
        if range.is_empty() {
            return Box::new(std::iter::empty());
        }
        let bounds = (range.from.clone(), range.to.clone());
        boxed(self.scan(LATEST, bounds, direction, Shape::Latest))
    }

    fn history<'s>(
        &'s self,
        range: &KeyRange,
        versions: Option<(Version, Version)>,
        direction: Direction,
    ) -> Rows<'s> {
        if range.is_empty() || versions.is_some_and(|(first, last)| first > last) {
            return Box::new(std::iter::empty());
        }
        let bounds = rows::history_bounds(range, versions);
        boxed(self.scan(HISTORY, bounds, direction, Shape::History(versions)))
    }
}

fn boxed(scan: Result<Scan<'_>>) -> Rows<'_> {
    match scan {
        Ok(scan) => Box::new(scan),
        Err(error) => Box::new(std::iter::once(Err(error))),
    }
}

impl Scan<'_> {
    /// What to do with the row that the scan stands on; nothing at its end.
    fn step(&self) -> Result<Option<Step>> {
        let Some((row, value)) = self.iter.item() else {
            return self.iter.status().map(|()| None).map_err(errors::reading);
        };
        let key = match &self.shape {
            Shape::Latest => row,
            Shape::History(wanted) => {
                let (key, version) =
                    rows::split_history(row).ok_or_else(|| errors::corrupt("history key"))?;
                if let Some(target) = self.detour(key, version, *wanted) {
                    return Ok(Some(Step::Seek(target)));
                }
                key
            }
        };
        let key = Key::from_ordered(key).ok_or_else(|| errors::corrupt("key"))?;
        Ok(Some(Step::Yield(key, decode(value)?)))
    }

    /// Where to go on if this version of the key is not wanted.
    fn detour(
        &self,
        key: &[u8],
        version: Version,
        wanted: Option<(Version, Version)>,
    ) -> Option<Vec<u8>> {
        let (first, last) = wanted?;
        let forward = self.direction == Direction::Forward;
        if version < first {
            Some(if forward {
                rows::seek_version(key, first)
            } else {
                rows::seek_before(key)
            })
        } else if version > last {
            Some(if forward {
                rows::seek_behind(key)
            } else {
                rows::seek_version(key, last)
            })
        } else {
            None
        }
    }
}

impl Iterator for Scan<'_> {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        while !self.done {
            match self.step() {
                Ok(Some(Step::Yield(key, record))) => {
                    match self.direction {
                        Direction::Forward => self.iter.next(),
                        Direction::Backward => self.iter.prev(),
                    }
                    return Some(Ok((key, record)));
                }
                Ok(Some(Step::Seek(target))) => match self.direction {
                    Direction::Forward => self.iter.seek(target),
                    Direction::Backward => self.iter.seek_for_prev(target),
                },
                Ok(None) => self.done = true,
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
