//! Ranges of a view, in order: rows of the index merged with files by hand, and history.

use std::{cmp::Ordering, iter::Peekable, ops::Bound};

use bytes::Bytes;
use redb::Range;
use weir_backend_api::{Direction, Error, ErrorKind, Result, Row as RowResult, Rows};
use weir_core::{
    key::{Key, KeyRange},
    record::Record,
    version::Version,
};

use crate::{
    index::{self, failed},
    view::View,
    walk::Walk,
};

type Entries = Range<'static, &'static [u8], &'static [u8]>;

/// The latest records of a range.
pub fn latest<'v>(view: &'v View, range: &KeyRange, direction: Direction) -> Rows<'v> {
    if range.is_empty() {
        return Box::new(std::iter::empty());
    }
    let bounds = (
        Bound::Included(&*range.from),
        range
            .to
            .as_deref()
            .map_or(Bound::Unbounded, Bound::Excluded),
    );
    let rows = match view.reading().latest.range::<&[u8]>(bounds) {
        Ok(rows) => rows,
        Err(e) => return Box::new(std::iter::once(Err(failed(e)))),
    };
    let rows: Box<dyn Iterator<Item = _>> = match direction {
        Direction::Forward => Box::new(rows),
        Direction::Backward => Box::new(rows.rev()),
    };
    let rows = rows.map(|row| {
        let (key, row) = row.map_err(failed)?;
        Ok((key.value().to_vec(), row.value().to_vec()))
    });
    fuse(Latest {
        view,
        rows: (Box::new(rows) as IndexRows).peekable(),
        by_hand: Walk::new(view, range, direction).peekable(),
        direction,
    })
}

/// Ordered keys and rows.
type IndexRows = Box<dyn Iterator<Item = Result<(Vec<u8>, Vec<u8>)>>>;

struct Latest<'v> {
    view: &'v View,
    rows: Peekable<IndexRows>,
    by_hand: Peekable<Walk<'v>>,
    direction: Direction,
}

impl Iterator for Latest<'_> {
    type Item = RowResult;

    fn next(&mut self) -> Option<RowResult> {
        loop {
            let row_first = match (self.rows.peek(), self.by_hand.peek()) {
                (None, None) => return None,
                (Some(_), None) | (Some(Err(_)), Some(_)) => true,
                (None, Some(_)) | (Some(Ok(_)), Some(Err(_))) => false,
                (Some(Ok((row, _))), Some(Ok((file, _)))) => {
                    let order = row.cmp(file);
                    match self.direction {
                        Direction::Forward => order == Ordering::Less,
                        Direction::Backward => order == Ordering::Greater,
                    }
                }
            };
            let item = if row_first {
                let row = self.rows.next()?;
                row.and_then(|(ordered, bytes)| {
                    let key = key_of(&ordered)?;
                    let record = self.view.record(&key, &bytes)?;
                    Ok(Some((key, record)))
                })
            } else {
                let file = self.by_hand.next()?;
                file.and_then(|(_, key)| {
                    let record = self.view.by_hand(&key, None)?;
                    Ok(record.map(|record| (key, record)))
                })
            };
            // Nothing: removed since it was listed.
            if let Some(item) = item.transpose() {
                return Some(item);
            }
        }
    }
}

/// Every version of the keys of a range.
pub fn history<'v>(
    rows: &'v index::Rows,
    range: &KeyRange,
    versions: Option<(Version, Version)>,
    direction: Direction,
) -> Rows<'v> {
    if range.is_empty() || versions.is_some_and(|(first, last)| first > last) {
        return Box::new(std::iter::empty());
    }
    let from = bound(&range.from);
    let to = range.to.as_deref().map(bound);
    match versions {
        None => match entries(rows, Bound::Included(&from), to.as_deref()) {
            Ok(entries) => fuse(in_order(entries, direction)),
            Err(e) => Box::new(std::iter::once(Err(e))),
        },
        Some((first, last)) => fuse(
            Seeking {
                rows,
                from,
                to,
                first,
                last,
                direction,
            }
            .flatten_rows(),
        ),
    }
}

/// Reads some versions of every key: from one key's last to the next one's first by a seek.
struct Seeking<'v> {
    rows: &'v index::Rows,
    /// What is left of the range, as rows.
    from: Vec<u8>,
    to: Option<Vec<u8>>,
    first: Version,
    last: Version,
    direction: Direction,
}

impl<'v> Seeking<'v> {
    fn flatten_rows(mut self) -> impl Iterator<Item = RowResult> + 'v {
        let mut current: Option<Box<dyn Iterator<Item = RowResult>>> = None;
        std::iter::from_fn(move || {
            loop {
                if let Some(row) = current.as_mut().and_then(Iterator::next) {
                    return Some(row);
                }
                match self.seek() {
                    Ok(Some(entries)) => {
                        current = Some(Box::new(in_order(entries, self.direction)));
                    }
                    Ok(None) => return None,
                    Err(e) => return Some(Err(e)),
                }
            }
        })
    }

    /// The wanted versions of the next key.
    fn seek(&mut self) -> Result<Option<Entries>> {
        let mut left = entries(self.rows, Bound::Included(&self.from), self.to.as_deref())?;
        let next = match self.direction {
            Direction::Forward => left.next(),
            Direction::Backward => left.next_back(),
        };
        let Some(next) = next else { return Ok(None) };
        let (row, _) = next.map_err(failed)?;
        let row = row.value();
        let end = row.len().saturating_sub(Version::LEN);
        // With its 0.
        let key = row[..end].to_vec();
        let from = [&*key, &self.first.to_bytes()].concat();
        let mut to = [&*key, &self.last.to_bytes()].concat();
        to.push(0);
        match self.direction {
            Direction::Forward => self.from = bound(&key),
            Direction::Backward => self.to = Some(key),
        }
        entries(self.rows, Bound::Included(&from), Some(&to)).map(Some)
    }
}

fn entries(rows: &index::Rows, from: Bound<&[u8]>, to: Option<&[u8]>) -> Result<Entries> {
    let to = to.map_or(Bound::Unbounded, Bound::Excluded);
    rows.range::<&[u8]>((from, to)).map_err(failed)
}

fn in_order(entries: Entries, direction: Direction) -> impl Iterator<Item = RowResult> {
    let entries: Box<dyn Iterator<Item = _>> = match direction {
        Direction::Forward => Box::new(entries),
        Direction::Backward => Box::new(entries.rev()),
    };
    entries.map(|row| {
        let (row, record) = row.map_err(failed)?;
        let row = row.value();
        let key = key_of(&row[..row.len().saturating_sub(Version::LEN + 1)])?;
        let record = Record::decode(&Bytes::copy_from_slice(record.value()))
            .map_err(|e| Error::new(ErrorKind::Corrupt, "corrupt history").because(e))?;
        Ok((key, record))
    })
}

/// The row of the history table where the bound of a key range lies: rows of a key are the key, 0 and
/// a version, and the bound just behind a key, which is the key and 0, is behind all of them.
fn bound(ordered: &[u8]) -> Vec<u8> {
    let mut bound = ordered.to_vec();
    if let Some(last @ 0) = bound.last_mut() {
        *last = 1;
    }
    bound
}

fn key_of(ordered: &[u8]) -> Result<Key> {
    Key::from_ordered(ordered)
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, "corrupt index: a row's key"))
}

/// Ends a scan with its first error.
fn fuse<'v>(rows: impl Iterator<Item = RowResult> + 'v) -> Rows<'v> {
    let mut failed = false;
    Box::new(rows.take_while(move |row| {
        let before = failed;
        failed = row.is_err();
        !before
    }))
}
