//! Finding what a query asks for: a key, a range by key, a time series, or the first in time.

use std::{collections::BTreeMap, sync::Arc};

use weir_backend_api::{Direction, Row, Snapshot};
use weir_core::{
    admission::History,
    collection,
    key::{Key, KeyRange},
    record::Record,
    selection::{Order, Selection},
    version::{Kind, Stamp, Version},
    view::{Live, View},
};
use zenoh::key_expr::keyexpr;

use super::{Asked, Refusal, merge::Merge};
use crate::storage::{
    Storage,
    shard::{Reader, SharedReader},
};

/// A sample that was found.
pub(crate) struct Found<'a> {
    /// Its full key.
    pub key: &'a keyexpr,
    /// Version and value.
    pub live: &'a Live,
}

/// A row of a scan that is asked for.
struct Hit<'a> {
    /// The stored key.
    key: &'a Key,
    /// The full one.
    full: &'a keyexpr,
    /// Version and value.
    live: &'a Live,
}

/// Takes the rows of a scan while it answers `Ok(true)`.
type Visit<'a> = &'a mut dyn FnMut(Hit<'_>) -> Result<bool, Refusal>;

/// Finds what is asked and calls `send` for each sample in order, while it answers `Ok`.
pub(crate) fn run(
    storage: &Storage,
    asked: &keyexpr,
    selection: &Selection,
    mut send: impl FnMut(Found<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let Some(range) = storage.space.range(asked) else {
        return Ok(());
    };
    let readers = readers(storage)?;
    let is_series = storage.history == History::All && selection.time.is_some();
    let plain = !asked.is_wild() && !is_series && selection.cursor.is_none();
    if plain {
        return point(&readers, asked, selection, storage, &mut send);
    }
    match selection.order {
        Order::Key | Order::KeyDescending => {
            let mut left = selection.limit.unwrap_or(usize::MAX);
            let range = page(storage, selection, range);
            each(&readers, asked, selection, is_series, &range, &mut |row| {
                if !is_before_cursor(selection, &row, is_series) {
                    send(Found {
                        key: row.full,
                        live: row.live,
                    })?;
                    left -= 1;
                }
                Ok(left > 0)
            })
        }
        Order::Time | Order::TimeDescending => {
            for (key, live) in
                first_in_time(storage, &readers, asked, selection, is_series, &range)?
            {
                let mut full = String::new();
                if let Some(key) = storage.space.full(&key, &mut full) {
                    send(Found { key, live: &live })?;
                }
            }
            Ok(())
        }
    }
}

/// The shards' readers with their views as of now.
fn readers(storage: &Storage) -> Result<Vec<Reader>, Refusal> {
    let now = storage.now();
    let open = |reader: &Arc<SharedReader>| {
        let mut reader = reader.get()?;
        if let Some(age) = reader.age_max {
            reader.view.floor = reader.view.floor.max(now.saturating_sub(age));
        }
        Some(reader)
    };
    storage
        .readers()
        .iter()
        .map(|reader| open(reader).ok_or_else(|| down(storage)))
        .collect()
}

fn down(storage: &Storage) -> Refusal {
    let last = storage.counters.last_error.lock();
    let why = last
        .as_ref()
        .map_or("it is not open", |error| error.message.as_str());
    format!("the store is down: {why}")
}

/// One key: the latest of what the shards hold for it.
fn point(
    readers: &[Reader],
    asked: &keyexpr,
    selection: &Selection,
    storage: &Storage,
    send: &mut impl FnMut(Found<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let Some(key) = storage.space.relative(asked) else {
        return Ok(());
    };
    let mut latest: Option<(Record, &Reader)> = None;
    for reader in readers {
        let record = reader.store.get(&key).map_err(|error| error.to_string())?;
        let Some(record) = record else { continue };
        if latest
            .as_ref()
            .is_none_or(|(held, _)| record.head.own > held.head.own)
        {
            latest = Some((record, reader));
        }
    }
    let Some((record, reader)) = latest else {
        return Ok(());
    };
    let live = reader.view.live(&key, record, &mut String::new());
    match live.filter(|live| selection.in_time(live.version.stamp)) {
        Some(live) => send(Found {
            key: asked,
            live: &live,
        }),
        None => Ok(()),
    }
}

/// The part of the range in which the page lies.
fn page(storage: &Storage, selection: &Selection, range: KeyRange) -> KeyRange {
    let Some(cursor) = &selection.cursor else {
        return range;
    };
    let key = Key::from(cursor.key.as_str());
    let all = KeyRange::all();
    let page = match (selection.order, cursor.stamp) {
        // A time series goes on within the key.
        (Order::Key, Some(_)) => KeyRange {
            from: key.ordered(),
            ..all
        },
        (Order::Key, None) => all.after(&key),
        (Order::KeyDescending, Some(_)) => KeyRange {
            to: KeyRange::only(&key).to,
            ..all
        },
        _ => all.before(&key),
    };
    // The page before may have ended among another storage's keys, in front of ours or behind them.
    storage.space.stored(&page).meet(&range)
}

/// Whether a version of the cursor's own key was on the page before.
fn is_before_cursor(selection: &Selection, hit: &Hit<'_>, is_series: bool) -> bool {
    let Some(cursor) = &selection.cursor else {
        return false;
    };
    let Some(stamp) = cursor.stamp else {
        return false;
    };
    if *cursor.key != *hit.full.as_str() {
        return false;
    }
    match selection.order {
        _ if !is_series => true,
        Order::KeyDescending => hit.live.version.stamp >= stamp,
        _ => hit.live.version.stamp <= stamp,
    }
}

/// Calls `visit` with every sample asked for, in key order, while it answers `Ok(true)`.
fn each(
    readers: &[Reader],
    asked: &keyexpr,
    selection: &Selection,
    is_series: bool,
    range: &KeyRange,
    visit: Visit<'_>,
) -> Result<(), Refusal> {
    let snapshots = readers
        .iter()
        .map(|reader| reader.store.snapshot())
        .collect::<weir_backend_api::Result<Vec<_>>>()
        .map_err(|error| error.to_string())?;
    let view = |reader: &Reader| {
        let mut view = reader.view.clone();
        view.journal = Arc::new(view.journal.about(asked));
        view
    };
    // Each shard forgets at a pace of its own, so each record is seen as its shard sees it.
    let views: Vec<View> = readers.iter().map(view).collect();
    let asked = &Asked::new(asked);
    let direction = match selection.order {
        Order::KeyDescending => Direction::Backward,
        Order::Key | Order::Time | Order::TimeDescending => Direction::Forward,
    };
    if is_series {
        series(
            &snapshots, &views, asked, selection, range, direction, visit,
        )
    } else {
        latest(
            &snapshots, &views, asked, selection, range, direction, visit,
        )
    }
}

/// What the keys of a range hold now.
fn latest(
    snapshots: &[Box<dyn Snapshot + '_>],
    views: &[View],
    asked: &Asked<'_>,
    selection: &Selection,
    range: &KeyRange,
    direction: Direction,
    visit: Visit<'_>,
) -> Result<(), Refusal> {
    let rows = snapshots
        .iter()
        .map(|snapshot| snapshot.latest(range, direction))
        .collect();
    let by_key = |a: &Row, b: &Row| match (a, b) {
        // Forwards the older of two shards' records comes first, backwards the newer: see below.
        (Ok(a), Ok(b)) => (a.0.ordered(), a.1.head.own).cmp(&(b.0.ordered(), b.1.head.own)),
        _ => std::cmp::Ordering::Equal,
    };
    let mut rows = Merge::new(rows, direction, by_key).peekable();
    let (mut full, mut scratch) = (String::new(), String::new());
    while let Some((mut shard, row)) = rows.next() {
        let (key, mut record) = row.map_err(|error| error.to_string())?;
        // A key that was moved between shards is held by both: the newest counts.
        while let Some((of, Ok((_, other)))) =
            rows.next_if(|next| matches!(&next.1, Ok(next) if next.0 == key))
        {
            if other.head.own > record.head.own {
                (shard, record) = (of, other);
            }
        }
        let view = &views[shard];
        let full = view.space.full(&key, &mut full);
        let Some(full) = full.filter(|full| asked.has(full)) else {
            continue;
        };
        let Some(live) = view.live(&key, record, &mut scratch) else {
            continue;
        };
        let hit = Hit {
            key: &key,
            full,
            live: &live,
        };
        if selection.in_time(live.version.stamp) && !visit(hit)? {
            break;
        }
    }
    Ok(())
}

/// Every version inside the asked time.
fn series(
    snapshots: &[Box<dyn Snapshot + '_>],
    views: &[View],
    asked: &Asked<'_>,
    selection: &Selection,
    range: &KeyRange,
    direction: Direction,
    visit: Visit<'_>,
) -> Result<(), Refusal> {
    let (from, to) = selection.time.unwrap_or((0, u64::MAX));
    let floor = views.iter().map(|view| view.floor).min();
    let from = from.max(floor.unwrap_or_default());
    let last = Version {
        stamp: Stamp {
            time: to,
            id: [u8::MAX; 16],
        },
        kind: Kind::Delete,
        hash: u64::MAX,
    };
    let in_time = |version: Version| (from..=to).contains(&version.stamp.time);
    let virtual_rows = views
        .iter()
        .flat_map(|view| view.journal.iter())
        .any(|op| op.value.is_some() && in_time(op.version));
    // A wildcard put counts only for keys that existed when it came, so what came before is needed.
    let first = if virtual_rows {
        Version::ZERO
    } else {
        collection::before(from)
    };
    let rows = snapshots
        .iter()
        .map(|snapshot| snapshot.history(range, Some((first, last)), direction))
        .collect();
    let by_version = |a: &Row, b: &Row| match (a, b) {
        (Ok(a), Ok(b)) => (a.0.ordered(), a.1.head.own).cmp(&(b.0.ordered(), b.1.head.own)),
        _ => std::cmp::Ordering::Equal,
    };
    let mut rows = Merge::new(rows, direction, by_version).peekable();
    let mut full = String::new();
    while let Some((mut shard, row)) = rows.next() {
        let (key, record) = row.map_err(|error| error.to_string())?;
        let full = views[shard].space.full(&key, &mut full);
        let full = full.filter(|full| asked.has(full));
        let is_kept = |shard: usize, version: Version| version.stamp.time >= views[shard].floor;
        if !virtual_rows {
            let version = record.head.own;
            let mut is_kept_here = is_kept(shard, version);
            // The same version on two shards is one sample.
            while let Some((of, _)) = rows.next_if(
                |next| matches!(&next.1, Ok(next) if next.0 == key && next.1.head.own == version),
            ) {
                is_kept_here |= is_kept(of, version);
            }
            let value = record.value.filter(|_| is_kept_here && in_time(version));
            let (Some(full), Some(value)) = (full, value) else {
                continue;
            };
            let live = Live { version, value };
            let hit = Hit {
                key: &key,
                full,
                live: &live,
            };
            if !visit(hit)? {
                return Ok(());
            }
            continue;
        }
        let mut own = vec![record];
        while let Some((of, Ok((_, next)))) =
            rows.next_if(|next| matches!(&next.1, Ok(next) if next.0 == key))
        {
            // Of a key that was moved, the shard that keeps most tells what is kept.
            if views[of].floor < views[shard].floor {
                shard = of;
            }
            own.push(next);
        }
        let Some(full) = full else { continue };
        let mut line = views[shard].timeline(&key, own);
        if direction == Direction::Backward {
            line.reverse();
        }
        let is_asked = |version| in_time(version) && is_kept(shard, version);
        for live in line.iter().filter(|live| is_asked(live.version)) {
            let hit = Hit {
                key: &key,
                full,
                live,
            };
            if !visit(hit)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The first samples in time, at most as many as asked: all are looked at, no more are held.
fn first_in_time(
    storage: &Storage,
    readers: &[Reader],
    asked: &keyexpr,
    selection: &Selection,
    is_series: bool,
    range: &KeyRange,
) -> Result<Vec<(Key, Live)>, Refusal> {
    let limit = selection.limit.unwrap_or(weir_core::selection::SORTED_MAX);
    let descending = selection.order == Order::TimeDescending;
    let cursor = selection
        .cursor
        .as_ref()
        .and_then(|cursor| Some((cursor.stamp?, Key::from(cursor.key.as_str()).ordered())));
    let mut first: BTreeMap<(Stamp, Vec<u8>, Version), (Key, Live)> = BTreeMap::new();
    each(readers, asked, selection, is_series, range, &mut |hit| {
        let Hit { key, live, .. } = hit;
        // By full keys: those of a page may belong to several storages.
        let at = storage.space.position(&key.ordered());
        let place = (live.version.stamp, at, live.version);
        let is_behind = cursor.as_ref().is_none_or(|(stamp, at)| {
            let (here, there) = ((place.0, &place.1), (*stamp, at));
            if descending {
                here < there
            } else {
                here > there
            }
        });
        if is_behind {
            first.insert(place, (key.clone(), live.clone()));
            if first.len() > limit {
                let _ = if descending {
                    first.pop_first()
                } else {
                    first.pop_last()
                };
            }
        }
        Ok(true)
    })?;
    let mut found: Vec<_> = first.into_values().collect();
    if descending {
        found.reverse();
    }
    Ok(found)
}
