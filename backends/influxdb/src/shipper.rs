//! Carries out what waits in the spool: a thread of its own for each store.
//!
//! ```text
//! idle -> gathering (a few ms, or a full batch) -> sending -> idle
//! sending -> backing off (the server is away or says no) -> sending
//! any -> over (the store was closed)
//! ```
//!
//! The thread holds the local store only for the short times in which it reads or writes it, never
//! while it waits for the server, so that a store can be closed at any moment.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    ops::Range,
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use weir_backend_api::{Durability, Error, ErrorKind, Result, Store};
use weir_core::{change::Table, record::Record};

use crate::{
    forget,
    http::Trouble,
    name, point, query,
    settings::Fields,
    shared::Shared,
    spool::{self, Entry, Outcome, Spool, Task},
    ties,
};

/// Bytes of records that are under way at a time, before compression. Far below what servers refuse (25 MB).
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Requests that are under way at a time: while the server stores some, others are made and packed.
const CONNECTIONS: usize = 4;
/// How long a pause lasts, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long the thread sleeps when nobody wakes it: snapshots grow old without saying so.
const DOZE: Duration = Duration::from_secs(1);

/// The thread's state.
pub(crate) struct Shipper {
    pub shared: Arc<Shared>,
    pub local: Weak<Box<dyn Store>>,
    /// Every entry below is carried out.
    pub done: u64,
}

/// A line of a record.
struct Line {
    /// Which of the entries it is of.
    index: usize,
    is_tie: bool,
    text: String,
}

/// Entries and, for puts, what they put.
type Work = Vec<(Entry, Option<Record>)>;

impl Shipper {
    /// Runs until the store is closed.
    pub(crate) fn run(mut self) {
        let mut failures = 0;
        while self.wait_for_work() {
            match self.round() {
                Ok(()) => failures = 0,
                Err(trouble) => {
                    failures += 1;
                    self.shared.failed(&trouble, failures);
                    self.shared.pause(pause(&trouble, failures));
                }
            }
        }
    }

    /// Waits until there is something to do and a batch had time to gather; false if all is over.
    fn wait_for_work(&self) -> bool {
        let shared = &self.shared;
        let mut spool = shared.spool.lock();
        let mut since: Option<Instant> = None;
        loop {
            if shared.is_over() {
                return false;
            }
            let now = Instant::now();
            let ready = self.end(&spool).saturating_sub(self.done);
            if ready == 0 {
                shared.wake.wait_for(&mut spool, DOZE);
                continue;
            }
            let full = usize::try_from(ready).unwrap_or(usize::MAX) >= shared.settings.batch_points;
            let deadline = *since.get_or_insert(now) + shared.settings.linger;
            if full || now >= deadline {
                return true;
            }
            shared.wake.wait_until(&mut spool, deadline);
        }
    }

    /// The serial below which entries may be carried out now.
    fn end(&self, spool: &Spool) -> u64 {
        let age_max = self.shared.settings.snapshot_max;
        let limit = self.shared.holds.lock().limit(Instant::now(), age_max);
        limit
            .map_or(spool.next, |limit| spool.next.min(limit + 1))
            .max(self.done)
    }

    /// Takes some entries, carries them out, and takes them out of the spool.
    fn round(&mut self) -> std::result::Result<(), Trouble> {
        let Some((skipped, work, end)) = self.take().map_err(local_trouble)? else {
            return Ok(());
        };
        if skipped.is_empty() && work.is_empty() {
            // Nothing is left below.
            self.done = end;
            return Ok(());
        }
        let is_forget = work
            .first()
            .is_some_and(|(entry, _)| entry.task == Task::Forget);
        let outcomes = if is_forget {
            forget::carry_out(&self.shared.server, &work)?
        } else {
            self.write(&work)?
        };
        let mut finished: Vec<(Entry, Outcome)> = skipped
            .into_iter()
            .map(|entry| (entry, Outcome::Done))
            .collect();
        finished.extend(work.into_iter().map(|(entry, _)| entry).zip(outcomes));
        self.finish(&finished).map_err(local_trouble)
    }

    /// The next entries of one kind, those before and between them that need nothing any more, and
    /// the serial below which was looked. `None` if the store was closed.
    fn take(&self) -> Result<Option<(Vec<Entry>, Work, u64)>> {
        let shared = &self.shared;
        self.with_local(|local| {
            let (mut skipped, mut work): (Vec<Entry>, Work) = (Vec::new(), Vec::new());
            let end = self.end(&shared.spool.lock());
            let rows = local.rows(
                Table::Spool,
                &spool::queue_row(self.done),
                shared.settings.batch_points.saturating_mul(CONNECTIONS),
            )?;
            // The snapshot is younger than the rows, so it has what they speak of.
            let snapshot = local.snapshot()?;
            let mut bytes = 0;
            for (row, value) in rows {
                if !Entry::is_row(&row) {
                    break;
                }
                let corrupt =
                    || Error::new(ErrorKind::Corrupt, "an entry of the spool cannot be read");
                let entry = Entry::decode(&row, &value).ok_or_else(corrupt)?;
                let is_other = work.first().is_some_and(|(first, _)| {
                    (first.task == Task::Forget) != (entry.task == Task::Forget)
                });
                if is_other || bytes > BATCH_BYTES_MAX || entry.serial >= end {
                    break;
                }
                if !shared.spool.lock().is_last(&entry) {
                    skipped.push(entry);
                    continue;
                }
                let held = spool::local_row(&*snapshot, &entry.key, entry.version)?;
                match (entry.task, held) {
                    (Task::Put { .. }, Some(record)) if !spool::is_mask(record.head) => {
                        bytes += record
                            .value
                            .as_ref()
                            .map_or(0, weir_core::value::Value::len);
                        work.push((entry, Some(record)));
                    }
                    (Task::Forget, Some(record)) if spool::is_mask(record.head) => {
                        work.push((entry, None));
                    }
                    // A later entry has the last word and was committed meanwhile.
                    _ => skipped.push(entry),
                }
            }
            Ok((skipped, work, end))
        })
    }

    /// Takes entries out of the spool.
    fn finish(&mut self, finished: &[(Entry, Outcome)]) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let done = self.with_local(|local| {
            let mut spool = shared.spool.lock();
            let batch = spool.finish(finished);
            // Done again after a crash it is the same: no need to sync.
            local.commit(&batch, Durability::Memory)?;
            spool.finished(finished);
            // Before the lock goes: who sees that nothing waits sees what became of it, too.
            shared.took(finished);
            Ok(())
        })?;
        if done.is_some() {
            let last = finished.iter().map(|(entry, _)| entry.serial).max();
            self.done = last.map_or(self.done, |last| last + 1);
        }
        Ok(())
    }

    /// Calls `act` with the local store; `None` if the store was closed.
    fn with_local<T>(&self, act: impl FnOnce(&dyn Store) -> Result<T>) -> Result<Option<T>> {
        let _busy = self.shared.busy.lock();
        if self.shared.is_over() {
            return Ok(None);
        }
        // Dropped before the lock, so that whoever closes the store holds it alone.
        let Some(local) = self.local.upgrade() else {
            return Ok(None);
        };
        act(&**local).map(Some)
    }

    /// Writes what is put, over several connections, and says what became of each.
    fn write(&self, work: &Work) -> std::result::Result<Vec<Outcome>, Trouble> {
        let ties = ties::find(&self.shared.server, work)?;
        let size = self.shared.settings.batch_points.max(1);
        // No version is there twice, so their order is of no matter.
        let written = thread::scope(|scope| {
            let parts: Vec<_> = (0..work.len())
                .step_by(size)
                .map(|begin| (begin, &work[begin..work.len().min(begin + size)]))
                .map(|(begin, part)| {
                    let ties = &ties;
                    scope.spawn(move || self.write_part(part, begin, ties))
                })
                .collect();
            let joined = parts.into_iter().map(|part| {
                let failed = || Trouble::Later("a thread that writes panicked".to_owned(), None);
                part.join().unwrap_or_else(|_| Err(failed()))
            });
            joined.collect::<Vec<_>>()
        });
        let mut outcomes = Vec::with_capacity(work.len());
        for part in written {
            // What other parts have written is written again with this one, which changes nothing.
            outcomes.extend(part?);
        }
        Ok(outcomes)
    }

    /// Writes a part of the work, which begins at a place of it.
    fn write_part(
        &self,
        part: &[(Entry, Option<Record>)],
        begin: usize,
        ties: &HashSet<usize>,
    ) -> std::result::Result<Vec<Outcome>, Trouble> {
        let fields = self.shared.server.fields();
        let mut lines = Vec::with_capacity(part.len());
        for (index, (entry, record)) in part.iter().enumerate() {
            if let Some(record) = record {
                let is_tie = ties.contains(&(begin + index));
                let text = self.line(entry, record, is_tie, fields)?;
                lines.push(Line {
                    index,
                    is_tie,
                    text,
                });
            }
        }
        let mut outcomes = vec![Outcome::Done; part.len()];
        self.send(part, &lines, 0..lines.len(), &mut outcomes)?;
        Ok(outcomes)
    }

    fn line(
        &self,
        entry: &Entry,
        record: &Record,
        is_tie: bool,
        fields: Fields,
    ) -> std::result::Result<String, Trouble> {
        let generation = self.shared.server.generation()?;
        // Commits refuse what has no name.
        let name = name::of(&entry.key).unwrap_or_default();
        let mut text = String::new();
        let series = query::series(generation, &name);
        point::line(&mut text, &series, record.as_ref(), is_tie, fields);
        Ok(text)
    }

    /// Sends lines; halves them until those that are refused stand alone.
    fn send(
        &self,
        work: &[(Entry, Option<Record>)],
        lines: &[Line],
        part: Range<usize>,
        outcomes: &mut [Outcome],
    ) -> std::result::Result<(), Trouble> {
        let text: String = lines[part.clone()].iter().map(|line| &*line.text).collect();
        if text.is_empty() {
            return Ok(());
        }
        match self.shared.server.write(&text) {
            Ok(()) => Ok(()),
            Err(Trouble::Bad(message)) if is_expired(&message) => {
                // All others are stored; these the server would drop again.
                tracing::debug!(message, "older than InfluxDB keeps");
                self.shared.expired(&message, part.len());
                Ok(())
            }
            Err(Trouble::Bad(_) | Trouble::TooLarge(_)) if part.len() > 1 => {
                let middle = part.start + part.len() / 2;
                self.send(work, lines, part.start..middle, outcomes)?;
                self.send(work, lines, middle..part.end, outcomes)
            }
            Err(Trouble::Bad(message) | Trouble::TooLarge(message)) => {
                let line = &lines[part.start];
                let Some((entry, Some(record))) = work.get(line.index) else {
                    return Ok(());
                };
                if self.shared.server.fields() == Fields::Typed {
                    // What is added for plots must not cost the sample.
                    let stock = self.line(entry, record, line.is_tie, Fields::Stock)?;
                    match self.shared.server.write(&stock) {
                        Err(Trouble::Bad(_) | Trouble::TooLarge(_)) => {}
                        done => return done,
                    }
                }
                tracing::error!(
                    key = %entry.key,
                    version = %entry.version,
                    message,
                    "InfluxDB refuses this change; it is kept here, and in quarantine"
                );
                outcomes[line.index] = Outcome::Refused(record.clone());
                Ok(())
            }
            Err(trouble) => Err(trouble),
        }
    }
}

/// Whether points were refused for their age alone.
fn is_expired(message: &str) -> bool {
    message.contains("beyond retention policy") || message.contains("outside retention")
}

/// The local store could not be read or written: wait, as for the server.
fn local_trouble(error: Error) -> Trouble {
    Trouble::Later(format!("the local store: {error}"), None)
}

/// How long to wait after the nth failure in a row: twice as long each time, up to a limit, and a
/// different part of it for each of many routers.
fn pause(trouble: &Trouble, failures: u32) -> Duration {
    let longest = match trouble {
        Trouble::Later(..) => PAUSE.0.saturating_mul(1 << failures.min(10)).min(PAUSE.1),
        // Somebody has to act; nothing is gained by asking often.
        _ => PAUSE.1,
    };
    let chance = RandomState::new().hash_one(failures) % 512;
    let jitter =
        longest / 2 + longest.mul_f64(f64::from(u32::try_from(chance).unwrap_or(0)) / 1024.0);
    match trouble {
        Trouble::Later(_, Some(after)) => jitter.max(*after),
        _ => jitter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let later = |after| Trouble::Later(String::new(), after);
        let bounds = [
            (1, 100, 200),
            (3, 400, 800),
            (6, 2_500, 5_000),
            (1_000, 2_500, 5_000),
        ];
        for (failures, least, most) in bounds {
            let pause = pause(&later(None), failures).as_millis();
            assert!((least..=most).contains(&pause), "{failures}: {pause}");
        }
        let asked = Duration::from_secs(30);
        assert_eq!(pause(&later(Some(asked)), 1), asked);
        assert!(pause(&Trouble::Blocked(String::new()), 1) >= PAUSE.1 / 2);
    }
}
