//! Work on every key of a shard, done in chunks between batches: folding wildcard operations in,
//! expanding wildcard deletes without a stamp, collecting tombstones, retention.
//!
//! Each walks a snapshot, so that it sees the shard at one moment, and writes through the shard, so
//! that a change that came since wins. Each may stop at any write and is begun again after a restart.

use std::{ops::ControlFlow, sync::atomic::Ordering::Relaxed, time::Duration};

use weir_backend_api::{Direction, Result, Snapshot, Store};
use weir_core::{
    admission::{Admitter, History},
    change::{Change, KeptChange, Table, WildcardChange, Write},
    collection::{self, AgeHistogram, Collect},
    key::{Key, KeyRange},
    record::Record,
    version::{Stamp, Version},
    view::View,
};

use super::{
    offer::{self, Offer},
    shard::Job,
    worker::{Retained, Worker},
};

/// Keys between two looks at the queue: a few milliseconds of work.
const CHUNK: usize = 1_024;

/// Runs a job to its end; `false` if the store failed on the way, or the storage is being closed. The
/// job is then to be begun again when the store is back.
pub(crate) fn run(worker: &mut Worker, shard: usize, job: &Job) -> bool {
    tracing::debug!(job = job.name(), shard, "begun");
    match job {
        Job::Fold(range) => fold(worker, shard, range),
        Job::Expand {
            row,
            change,
            ceiling,
        } => expand(worker, shard, row, change, *ceiling),
    }
}

/// Collects what nobody needs any more and drops what retention does not keep.
pub(crate) fn upkeep(worker: &mut Worker, shard: usize) {
    let now = worker.clock.now();
    let upkeep = worker.upkeep.clone();
    let known = worker.shards[shard].have_all_before(now, upkeep.patience);
    let Some((_, admitter)) = worker.shards[shard].parts() else {
        return;
    };
    let old = now.saturating_sub(upkeep.lifespan).min(known);
    let has_garbage = admitter.garbage().is_some_and(|oldest| oldest < old);
    if has_garbage && admitter.history() == History::Latest {
        collect(worker, shard, collection::before(old));
    }
    retain(worker, shard, now);
    worker.shards[shard].keep_ledger(now, false);
}

/// Walks the latest records of a range in a snapshot, a chunk at a time, with the queue served in
/// between. `false` if the store failed or was replaced on the way.
fn walk(
    worker: &mut Worker,
    shard: usize,
    range: &KeyRange,
    mut chunk: impl FnMut(&mut Worker, &View, Vec<(Key, Record)>) -> bool,
) -> bool {
    let now = worker.clock.now();
    let Some((store, admitter)) = worker.shards[shard].parts() else {
        return false;
    };
    let view = admitter.view(now);
    let walked = (|| -> Result<bool> {
        let snapshot = store.snapshot()?;
        let mut rows = snapshot.latest(range, Direction::Forward);
        loop {
            let some = rows.by_ref().take(CHUNK).collect::<Result<Vec<_>>>()?;
            if some.is_empty() {
                return Ok(true);
            }
            if !chunk(worker, &view, some) || worker.queue.is_closed() {
                return Ok(false);
            }
            worker.drain(Duration::ZERO);
        }
    })();
    walked.unwrap_or_else(|error| {
        worker.shards[shard].fail(now, &error);
        false
    })
}

/// Writes the effect of the wildcard journal into the records.
fn fold(worker: &mut Worker, shard: usize, range: &KeyRange) -> bool {
    let mut scratch = String::new();
    walk(worker, shard, range, |worker, view, records| {
        let folded = records
            .into_iter()
            .filter_map(|(key, record)| {
                let folded = view.fold(&key, &record, &mut scratch)?;
                Some((key, record, folded))
            })
            .collect();
        replace(worker, shard, folded)
    })
}

/// Holds other records in place of those that were read, if they are still what is held.
fn replace(worker: &mut Worker, shard: usize, changes: Vec<(Key, Record, Record)>) -> bool {
    let now = worker.clock.now();
    let Some((store, admitter)) = worker.shards[shard].parts() else {
        return false;
    };
    let read = changes.iter().map(|(key, read, _)| (key, read));
    let unchanged = match unchanged(&**store, read, admitter.resolves()) {
        Ok(unchanged) => unchanged,
        Err(error) => {
            worker.shards[shard].fail(now, &error);
            return false;
        }
    };
    admitter.begin();
    let mut writes = Vec::new();
    for ((key, _, new), unchanged) in changes.iter().zip(unchanged) {
        if unchanged {
            admitter.learn(key, Some(new.head));
            writes.push(Write::Latest {
                key,
                record: new.as_ref(),
            });
        }
    }
    writes.is_empty() || worker.shards[shard].maintain(now, writes)
}

/// Whether each record is still held as it was read. Where conflicts are resolved the same version may
/// have merged more since, which is not to be forgotten.
fn unchanged<'a>(
    store: &dyn Store,
    read: impl Iterator<Item = (&'a Key, &'a Record)>,
    resolves: bool,
) -> Result<Vec<bool>> {
    if resolves {
        let same = |(key, read): (&Key, &Record)| {
            let held = store.get(key)?;
            Ok(held.is_some_and(|held| held.head == read.head && held.merged == read.merged))
        };
        return read.map(same).collect();
    }
    let (keys, read): (Vec<_>, Vec<_>) = read.unzip();
    let heads = store.heads(&keys)?.into_iter();
    let same = |(held, read): (_, &Record)| held == Some(read.head);
    Ok(heads.zip(read).map(same).collect())
}

/// Forgets keys whose record is still the one that was read.
fn forget(worker: &mut Worker, shard: usize, gone: &[(Key, Record)]) -> bool {
    let now = worker.clock.now();
    let counters = std::sync::Arc::clone(&worker.counters);
    let Some((store, admitter)) = worker.shards[shard].parts() else {
        return false;
    };
    let read = gone.iter().map(|(key, read)| (key, read));
    let unchanged = match unchanged(&**store, read, admitter.resolves()) {
        Ok(unchanged) => unchanged,
        Err(error) => {
            worker.shards[shard].fail(now, &error);
            return false;
        }
    };
    admitter.begin();
    let mut writes = Vec::new();
    for ((key, _), unchanged) in gone.iter().zip(unchanged) {
        if unchanged {
            admitter.learn(key, None);
            writes.push(Write::ForgetLatest { key });
        }
    }
    if writes.is_empty() {
        return true;
    }
    counters.collected.fetch_add(writes.len() as u64, Relaxed);
    worker.shards[shard].maintain(now, writes)
}

/// One unstamped delete for each key that was held when a wildcard delete without a stamp came.
fn expand(
    worker: &mut Worker,
    shard: usize,
    row: &[u8],
    change: &WildcardChange,
    ceiling: Stamp,
) -> bool {
    let space = worker.shards[shard].space().clone();
    let Some(range) = space.range(&change.expr) else {
        return true;
    };
    let (mut full, mut scratch) = (String::new(), String::new());
    let finished = walk(worker, shard, &range, |worker, view, records| {
        let mut deletes = Vec::new();
        for (key, record) in records {
            let matches = space
                .full(&key, &mut full)
                .is_some_and(|full| change.expr.intersects(full));
            let version = view.effective(&key, record.head, &mut scratch);
            if matches && !version.is_delete() && version.stamp <= ceiling {
                // The tombstone of the version that was held: what was put since is greater.
                let stamp = Some(version.stamp);
                let change = Change {
                    key,
                    stamp,
                    value: None,
                };
                deletes.push(Offer::silent(KeptChange::Key(change)));
            }
        }
        let now = worker.clock.now();
        worker.shards[shard].offer(now, &mut deletes);
        // What neither the store nor the spool could take is in memory alone, and must not be all.
        !worker.shards[shard].is_holding()
    });
    let done = Write::Row {
        table: Table::Jobs,
        key: row.to_vec(),
        value: None,
    };
    let now = worker.clock.now();
    finished && worker.shards[shard].maintain(now, vec![done])
}

/// Forgets tombstones and wildcard operations below `old`.
fn collect(worker: &mut Worker, shard: usize, old: Version) {
    let mut scratch = String::new();
    // What is deleted from here on is not seen by the walk, so the mark that something is left never
    // goes away; it only moves on, and costs one walk in each lifespan.
    let (mut bound, mut oldest) = (None::<Version>, worker.clock.now());
    let all = KeyRange::all();
    let found = walk(worker, shard, &all, |_, view, records| {
        for (key, record) in records {
            bound = bound.max(collection::bound_of(view, &key, &record, old, &mut scratch));
            let version = view.effective(&key, record.head, &mut scratch);
            if version.is_delete() && version >= old {
                oldest = oldest.min(version.stamp.time);
            }
        }
        true
    });
    if !found {
        return;
    }
    let now = worker.clock.now();
    let raised = with_admitter(worker, shard, |admitter, writes| {
        let journal = admitter.journal().iter().map(|op| op.version);
        bound = bound.max(journal.filter(|version| *version < old).max());
        if let Some(bound) = bound {
            // Just above the greatest that goes.
            admitter.raise_horizon(
                Version {
                    hash: bound.hash.saturating_add(1),
                    ..bound
                },
                writes,
            );
        }
    });
    let Some(bound) = bound.filter(|_| raised) else {
        // There was nothing old enough after all: look again when the oldest that was seen is.
        with_admitter(worker, shard, |admitter, writes| {
            admitter.finish_collection(None, Some(oldest), writes)
        });
        return;
    };
    let horizon = Version {
        hash: bound.hash.saturating_add(1),
        ..bound
    };
    let swept = walk(worker, shard, &all, |worker, view, records| {
        let (mut gone, mut folded) = (Vec::new(), Vec::new());
        for (key, record) in records {
            match collection::collect(view, History::Latest, &key, &record, horizon, &mut scratch) {
                Collect::Keep => {}
                Collect::Forget => gone.push((key, record)),
                Collect::Fold(new) => folded.push((key, record, new)),
            }
        }
        forget(worker, shard, &gone) && replace(worker, shard, folded)
    });
    if swept {
        with_admitter(worker, shard, |admitter, writes| {
            admitter.finish_collection(Some(horizon), Some(oldest), writes)
        });
        tracing::debug!(shard, now, %horizon, "collected");
    }
}

/// Lets the judge make marks and commits them.
fn with_admitter(
    worker: &mut Worker,
    shard: usize,
    mark: impl FnOnce(&mut Admitter, &mut Vec<Write<'_>>),
) -> bool {
    let now = worker.clock.now();
    let Some((_, admitter)) = worker.shards[shard].parts() else {
        return false;
    };
    admitter.begin();
    let mut writes = Vec::new();
    mark(admitter, &mut writes);
    writes.is_empty() || worker.shards[shard].maintain(now, writes)
}

/// Whether retention should look again: when a twentieth of the age or of the budget has gone by, so
/// that a storage holds at most that much more than it should, and a look costs little beside.
fn is_retention_due(worker: &Worker, shard: usize, now: u64) -> bool {
    let last = worker.retained[shard];
    let aged = worker.shards[shard].rules().age_max;
    let received = worker.counters.received_bytes.load(Relaxed) - last.received_bytes;
    let grown = |max: u64| received > max / 20;
    last.at == 0
        || aged.is_some_and(|age| now.saturating_sub(last.at) > age / 20)
        || worker.upkeep.bytes_max.is_some_and(grown)
        || worker.upkeep.versions_max.is_some() && received > 0
}

/// Drops what is too old, too much, or too many versions.
fn retain(worker: &mut Worker, shard: usize, now: u64) {
    if !is_retention_due(worker, shard, now) {
        return;
    }
    let received_bytes = worker.counters.received_bytes.load(Relaxed);
    worker.retained[shard] = Retained {
        at: now,
        received_bytes,
    };
    let rules = worker.shards[shard].rules().clone();
    let by_age = rules.age_max.map(|age| now.saturating_sub(age));
    let by_bytes = worker
        .upkeep
        .bytes_max
        .and_then(|max| floor_for(worker, shard, now, max));
    let Some(floor) = by_age.max(by_bytes) else {
        return trim_versions(worker, shard, 0);
    };
    if by_bytes.is_some()
        && !with_admitter(worker, shard, |admitter, writes| {
            admitter.raise_floor(floor, writes)
        })
    {
        return;
    }
    let mut scratch = String::new();
    walk(worker, shard, &KeyRange::all(), |worker, view, records| {
        let gone: Vec<_> = records
            .into_iter()
            .filter(|(key, record)| {
                view.effective(key, record.head, &mut scratch).stamp.time < floor
            })
            .collect();
        forget(worker, shard, &gone)
    });
    trim_versions(worker, shard, floor);
}

/// The time before which everything has to go for the rest to fit the budget.
fn floor_for(worker: &mut Worker, shard: usize, now: u64, bytes_max: u64) -> Option<u64> {
    let mut histogram = AgeHistogram::new(now);
    let history = worker.shards[shard].rules().history;
    let walked = if history == History::All {
        walk_history(worker, shard, |_, row| {
            histogram.add(row.1.head.own.stamp.time, offer::record_size(&row.1));
            ControlFlow::Continue(())
        })
    } else {
        walk(worker, shard, &KeyRange::all(), |_, _, records| {
            for (_, record) in &records {
                let time = record.head.effective().stamp.time;
                histogram.add(time, offer::record_size(record));
            }
            true
        })
    };
    if walked {
        histogram.floor(bytes_max)
    } else {
        None
    }
}

/// Drops versions of a time series below `floor`, and the oldest of those that are too many.
fn trim_versions(worker: &mut Worker, shard: usize, floor: u64) {
    let max = worker.upkeep.versions_max;
    if worker.shards[shard].rules().history != History::All || (floor == 0 && max.is_none()) {
        return;
    }
    let mut kept: Vec<Version> = Vec::new();
    let mut key_of_kept = Key::root();
    let mut gone: Vec<(Key, Version)> = Vec::new();
    let finished = walk_history(worker, shard, |worker, (key, record)| {
        if key != key_of_kept {
            key_of_kept = key.clone();
            kept.clear();
        }
        let version = record.head.own;
        if version.stamp.time < floor {
            gone.push((key, version));
        } else {
            // Versions come oldest first: when one more would be too many, the oldest goes.
            kept.push(version);
            if max.is_some_and(|max| kept.len() > max) {
                gone.push((key, kept.remove(0)));
            }
        }
        if gone.len() < CHUNK {
            return ControlFlow::Continue(());
        }
        drop_versions(worker, shard, &mut gone)
    });
    if finished {
        let _ = drop_versions(worker, shard, &mut gone);
    }
}

fn drop_versions(
    worker: &mut Worker,
    shard: usize,
    gone: &mut Vec<(Key, Version)>,
) -> ControlFlow<()> {
    if gone.is_empty() {
        return ControlFlow::Continue(());
    }
    let now = worker.clock.now();
    let writes: Vec<_> = gone
        .iter()
        .map(|(key, version)| Write::ForgetHistory {
            key,
            version: *version,
        })
        .collect();
    worker
        .counters
        .collected
        .fetch_add(writes.len() as u64, Relaxed);
    let done = worker.shards[shard].maintain(now, writes);
    gone.clear();
    if done {
        ControlFlow::Continue(())
    } else {
        ControlFlow::Break(())
    }
}

/// Walks every version of every key in a snapshot, with the queue served in between.
fn walk_history(
    worker: &mut Worker,
    shard: usize,
    mut each: impl FnMut(&mut Worker, (Key, Record)) -> ControlFlow<()>,
) -> bool {
    let now = worker.clock.now();
    let Some((store, _)) = worker.shards[shard].parts() else {
        return false;
    };
    let walked = (|| -> Result<bool> {
        let snapshot: Box<dyn Snapshot + '_> = store.snapshot()?;
        let rows = snapshot.history(&KeyRange::all(), None, Direction::Forward);
        for (index, row) in rows.enumerate() {
            if each(worker, row?).is_break() || worker.queue.is_closed() {
                return Ok(false);
            }
            if index % CHUNK == CHUNK - 1 {
                worker.drain(Duration::ZERO);
            }
        }
        Ok(true)
    })();
    walked.unwrap_or_else(|error| {
        worker.shards[shard].fail(now, &error);
        false
    })
}
