//! The journal: who owns it appends, flushes, certifies and trims. Everything here but [`Journal::append`]
//! in memory may wait for the disk.

use std::{fs, fs::File, path::PathBuf, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use weir_core::{
    backlog::LANES,
    change::KeptChange,
    forward::{Cause, Lost, Mark, Stretch},
    ledger::Item,
};

use crate::{
    calendar::slot_of,
    error::{JournalError, Result},
    files::{self, Disk, Files},
    newest::Place,
    options::{
        Appended, Keep, LaneStatus, Options, Recovery, Scope, Status, Trimmed, Upstream,
        UpstreamStatus, Waiting,
    },
    outbox::JournalOutbox,
    rank::Again,
    recovery,
    state::{Counted, ROOM_MIN, State, bound},
    writer::Writer,
};

/// How long what was given up may be known in memory alone (NTP64): a second.
const LOST_DELAY: u64 = 1 << 32;
/// Bytes that wait to be written before an append writes them itself.
const UNWRITTEN_MAX: u64 = 1 << 20;
/// When so much waits in memory what comes is refused.
const STUCK: u64 = 2 * UNWRITTEN_MAX;
/// More than is appended before any of it is written: so much is skipped when a journal is opened again.
const MARKS_BETWEEN: u64 = 1 << 32;
/// A certificate has a bit for each upstream.
const UPSTREAMS_MAX: usize = 64;

/// The durable file under a link's outbox. See the crate. One owner writes; [`Journal::outbox`] gives any
/// number of readers, which may live on other threads.
#[derive(Debug)]
pub struct Journal {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) dir: PathBuf,
    pub(crate) files: Arc<dyn Files>,
    pub(crate) writer: Writer,
    /// The segment that is being decided about again.
    pub(crate) again: Option<Again>,
    /// When the list of what was given up was written last.
    lost_at: u64,
    /// The lock is held as long as this file is open.
    _lock: File,
}

impl Journal {
    /// Opens a journal, or begins one. `upstreams` are those that must certify what is trimmed; `now` is
    /// NTP64. Costs a read of the footer of each segment, and of all of those that were not closed.
    ///
    /// # Errors
    /// If another process has it open, a file is of a later release, or the disk refuses. What is damaged
    /// is no error: it is told in [`Recovery`].
    pub fn open(options: Options, upstreams: &[&str], now: u64) -> Result<(Self, Recovery)> {
        Self::open_on(Arc::new(Disk), options, upstreams, now)
    }

    /// [`Journal::open`], writing through something else than the file system's own calls.
    ///
    /// # Errors
    /// As there.
    pub fn open_on(
        files: Arc<dyn Files>,
        options: Options,
        upstreams: &[&str],
        now: u64,
    ) -> Result<(Self, Recovery)> {
        let dir = options.dir.clone();
        fs::create_dir_all(&dir).map_err(JournalError::io(&dir))?;
        let path = dir.join(files::LOCK);
        let was_there = path.exists();
        let lock = files::lock(&dir).map_err(JournalError::io(&path))?;
        let lock = lock.ok_or(JournalError::Locked { path })?;
        let mut state = State::new(options);
        let recovery = recovery::recover(&mut state, &*files)?;
        if was_there {
            // What had not been written was counted in it, and somebody may remember that count.
            state.mark += MARKS_BETWEEN;
        }
        files::sync_dir(&dir).map_err(JournalError::io(&dir))?;
        let mut journal = Self {
            state: Arc::new(Mutex::new(state)),
            writer: Writer::new(dir.clone(), files.clone()),
            again: None,
            dir,
            files,
            lost_at: now,
            _lock: lock,
        };
        for name in upstreams {
            journal.upstream(name)?;
        }
        Ok((journal, recovery))
    }

    /// Appends a batch; `now` is NTP64. What is kept waits in memory for the next [`Journal::flush`]; a long
    /// block is written before. Costs a hash of each value and key, and no read.
    ///
    /// # Errors
    /// If the journal is poisoned, or room cannot be made for another reason than want of room: that is a
    /// rejection.
    pub fn append(&mut self, batch: &[Waiting], now: u64) -> Result<Appended> {
        self.check()?;
        let mut appended = Appended::default();
        let chunk_max = self.lock().options.segment_max().max(1);
        let mut rest = batch;
        while !rest.is_empty() {
            let mut wanted = 0;
            let fits = |waiting: &&Waiting| {
                wanted += bound(&waiting.entry);
                wanted <= chunk_max
            };
            let len = rest.iter().take_while(fits).count().max(1);
            let (chunk, others) = rest.split_at(len);
            rest = others;
            appended.lost += self.make_room(wanted, len, now)?;
            // There may be room on the disk again since it was full.
            self.write_beyond(STUCK)?;
            self.append_chunk(chunk, now, &mut appended);
            self.write_beyond(UNWRITTEN_MAX)?;
        }
        self.write_lost(now, false)?;
        Ok(appended)
    }

    /// Writes what was appended; with `sync`, waits until the disk has it. Called every 10 ms or so it makes
    /// a group commit. Without a sync what it wrote survives the process, not the power.
    ///
    /// # Errors
    /// [`JournalError::Full`] if there is no room: what was appended waits in memory. Any other failure of a
    /// write or a sync poisons the journal.
    pub fn flush(&mut self, sync: bool) -> Result<()> {
        self.check()?;
        self.seal();
        let written = self.write();
        if sync {
            self.writer.sync(&self.state)?;
        }
        let mut state = self.lock();
        let bytes = state.written_bytes();
        // It takes more than it did.
        state.disk = state.disk.map(|disk| disk.max(bytes));
        drop(state);
        written
    }

    /// Writes what waits in memory if it is more than this. On a full disk it goes on waiting, and what comes
    /// is refused once that is much.
    fn write_beyond(&mut self, most: u64) -> Result<()> {
        if self.lock().unwritten <= most {
            return Ok(());
        }
        match self.write() {
            Err(error) if !error.is_full() => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes what waits in memory. On a full disk as much as that is given up first, if the options say
    /// what; more is not, since then others fill it.
    fn write(&mut self) -> Result<()> {
        let mut written = self.writer.write(&self.state);
        let is_full = |written: &Result<()>| matches!(written, Err(error) if error.is_full());
        if !is_full(&written) {
            return written;
        }
        let mut wanted = {
            let mut state = self.lock();
            state.disk = Some(state.written_bytes());
            state.unwritten
        };
        loop {
            let Some(freed) = self.give_way()? else {
                return written;
            };
            wanted = wanted.saturating_sub(freed);
            written = self.writer.write(&self.state);
            if wanted == 0 || !is_full(&written) {
                return written;
            }
        }
    }

    /// Flushes, closes every segment and ends. A journal that is dropped without it is read through when it
    /// is opened again, and lacks what was not flushed.
    ///
    /// # Errors
    /// As [`Journal::flush`].
    pub fn close(mut self) -> Result<()> {
        self.flush(true)?;
        self.lock().close_all();
        self.writer.write(&self.state)?;
        self.writer.sync(&self.state)?;
        self.write_lost(0, true)
    }

    /// Names an upstream, which has to certify what is trimmed from now on. The same name is the same one.
    ///
    /// # Errors
    /// If there are 64 others.
    pub fn upstream(&mut self, name: &str) -> Result<Upstream> {
        let mut state = self.lock();
        let is = |other: &Option<String>| other.as_deref() == Some(name);
        let known = state.upstreams.iter().position(is);
        let at = match known.or_else(|| state.upstreams.iter().position(Option::is_none)) {
            Some(at) => at,
            None if state.upstreams.len() < UPSTREAMS_MAX => {
                state.upstreams.push(None);
                state.upstreams.len() - 1
            }
            None => return Err(JournalError::Upstreams),
        };
        state.upstreams[at] = Some(name.to_owned());
        state.require();
        Ok(Upstream(
            u8::try_from(at).map_err(|_| JournalError::Upstreams)?,
        ))
    }

    /// What an upstream has or has not no longer matters. Its outboxes show nothing that is right any more.
    pub fn forget_upstream(&mut self, upstream: Upstream) {
        let mut state = self.lock();
        state.reset(upstream.bit());
        state.caches.remove(&upstream.bit());
        if let Some(name) = state.upstreams.get_mut(usize::from(upstream.0)) {
            *name = None;
        }
        state.require();
    }

    /// What waits for an upstream, as its link sees it. Cheap: what one has read is left for the next.
    #[must_use]
    pub fn outbox(&self, upstream: Upstream, scope: Scope) -> JournalOutbox {
        JournalOutbox::new(self.state.clone(), upstream.bit(), scope)
    }

    /// An upstream has everything of these stretches that had been appended up to the mark. Operations
    /// belong to the second of their stamp like everything else.
    pub fn certified(&mut self, upstream: Upstream, stretches: &[Stretch], mark: Mark) {
        let mut state = self.lock();
        for stretch in stretches {
            state.calendar.certify(upstream.bit(), stretch, mark.0);
        }
    }

    /// An upstream may have lost what it had: everything that is kept waits for it again, and it is told
    /// again what was given up.
    pub fn reset(&mut self, upstream: Upstream) {
        self.lock().reset(upstream.bit());
    }

    /// An upstream knows that these were given up.
    pub fn noted(&mut self, upstream: Upstream, lost: &[Lost]) {
        self.lock().lost.note(upstream.bit(), lost);
    }

    /// Removes the segments of which every upstream has certified everything, [`Options::keep`] ago, and
    /// those that are older than [`Options::age`]. Needs no room on the disk. Without an upstream nothing
    /// is certified.
    ///
    /// # Errors
    /// If a file cannot be removed; it is forgotten all the same, and is back when the journal is opened
    /// again.
    pub fn trim(&mut self, now: u64) -> Result<Trimmed> {
        let mut trimmed = Trimmed::default();
        let due = self.lock().due(now);
        for (lane, id, is_expired) in due {
            let (records, expired, bytes) = {
                let mut state = self.lock();
                let expired = if is_expired {
                    state.mourn(lane, id, Cause::Age)
                } else {
                    0
                };
                state.lane_mut(lane).counters.expired += expired;
                let Some(segment) = state.remove(lane, id) else {
                    continue;
                };
                (segment.records(), expired, segment.bytes)
            };
            trimmed.segments += 1;
            trimmed.records += records;
            trimmed.expired += expired;
            trimmed.bytes += bytes;
            if expired > 0 {
                self.write_lost(now, true)?;
            }
            self.writer.remove(lane, id)?;
        }
        if trimmed.segments > 0 {
            files::sync_dir(&self.dir).map_err(JournalError::io(&self.dir))?;
        }
        self.write_lost(now, false)?;
        Ok(trimmed)
    }

    /// What it holds. Costs a look at each second of each segment.
    #[must_use]
    pub fn status(&self) -> Status {
        self.lock().status()
    }

    /// How many entries wait for an upstream, and the bytes of all segments. Costs next to nothing.
    #[must_use]
    pub fn depth(&self) -> (u64, u64) {
        let state = self.lock();
        (state.calendar.depth(), state.total())
    }

    /// How much has been appended.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark(self.lock().mark)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(crate) fn check(&self) -> Result<()> {
        match &self.lock().poisoned {
            Some(why) => Err(JournalError::Poisoned { why: why.clone() }),
            None => Ok(()),
        }
    }

    pub(crate) fn seal(&self) {
        let mut state = self.lock();
        for lane in 0..LANES {
            state.seal(lane);
        }
    }

    /// Writes what was given up, at once or once a second, and then what was set aside. Want of room is no
    /// error: it is tried again.
    pub(crate) fn write_lost(&mut self, now: u64, at_once: bool) -> Result<()> {
        if !at_once && now.wrapping_sub(self.lost_at) < LOST_DELAY {
            return Ok(());
        }
        let (bytes, mut aside) = {
            let mut state = self.lock();
            let aside = std::mem::take(&mut state.unwritten_aside);
            (state.lost.take_changes(), aside)
        };
        if let Some(bytes) = bytes {
            self.lost_at = now;
            if let Err(error) = files::replace(&*self.files, &self.dir, files::LOST, &bytes) {
                let mut state = self.lock();
                state.lost.keep_changes();
                aside.append(&mut state.unwritten_aside);
                state.unwritten_aside = aside;
                let error = JournalError::io(self.dir.join(files::LOST))(error);
                return if error.is_full() { Ok(()) } else { Err(error) };
            }
        }
        for (damaged, bytes) in aside {
            recovery::keep_aside(&self.dir, &damaged, &bytes);
        }
        Ok(())
    }

    fn append_chunk(&self, chunk: &[Waiting], now: u64, appended: &mut Appended) {
        let mut state = self.lock();
        let used = state.total() + ROOM_MIN;
        let mut room = state.options.budget_bytes.saturating_sub(used);
        let is_stuck = state.unwritten > STUCK;
        let mut bytes = Vec::new();
        for waiting in chunk {
            let entry = &waiting.entry;
            let Some((counted, version)) = counted(&entry.change, &mut bytes) else {
                appended.refused += 1;
                continue;
            };
            if entry.lane >= LANES {
                appended.refused += 1;
                continue;
            }
            let slot = slot_of(&counted.stamp);
            let has_second = state.calendar.len() < state.options.budget_seconds
                || state.calendar.get(&slot).is_some();
            if let Keep::Drop(reason) = waiting.keep {
                appended.dropped += 1;
                state.lane_mut(entry.lane).count_dropped(reason, 1);
                if has_second {
                    state.pass(entry.lane, counted, now);
                }
                continue;
            }
            let size = bound(entry);
            if is_stuck || size > room || !has_second {
                appended.rejected += 1;
                let state = &mut *state;
                state.lane_mut(entry.lane).counters.rejected += 1;
                state
                    .lost
                    .add(entry.lane, slot_of(&counted.stamp), 1, Cause::Full);
                continue;
            }
            room -= size;
            let is_newest = waiting.keep == Keep::NewestOnly;
            let newest = match &entry.change {
                KeptChange::Key(change) if is_newest => Some(&change.key),
                _ => None,
            };
            if let Some(key) = newest {
                let place = state.newest.offer(key, version);
                if place != Place::First {
                    appended.coalesced += 1;
                    state.lane_mut(entry.lane).counters.coalesced += 1;
                }
                match place {
                    Place::First => {}
                    Place::Newer(before) => state.hide(&before),
                    Place::Older => {
                        state.pass(entry.lane, counted, now);
                        continue;
                    }
                }
            }
            let segment = state.keep(entry, waiting.priority, is_newest, counted, now);
            if let Some(key) = newest {
                state.newest.put(key, version, segment);
            }
            appended.kept += 1;
        }
    }
}

impl Upstream {
    pub(crate) const fn bit(self) -> u64 {
        1 << self.0
    }
}

impl State {
    fn require(&mut self) {
        let required = self.required();
        self.calendar.require(required);
    }

    fn reset(&mut self, upstream: u64) {
        self.calendar.reset(upstream);
        self.lost.reset(upstream);
    }

    /// The segments to be removed: lane, id and whether they are too old.
    fn due(&mut self, now: u64) -> Vec<(u8, u64, bool)> {
        let required = self.required();
        let mut due = Vec::new();
        let mut certified = Vec::new();
        for lane in 0..LANES {
            for segment in self.lane(lane).segments.values() {
                let is_over = |age: u64| segment.appended.saturating_add(age) < now;
                if self.options.age.is_some_and(is_over) {
                    due.push((lane, segment.id, true));
                } else if required != 0 && !self.waits(segment, required) {
                    let since = segment.certified.unwrap_or(now);
                    certified.push((lane, segment.id, Some(since)));
                    if now.saturating_sub(since) >= self.options.keep {
                        due.push((lane, segment.id, false));
                    }
                } else {
                    certified.push((lane, segment.id, None));
                }
            }
        }
        for (lane, id, since) in certified {
            if let Some(segment) = self.lane_mut(lane).segments.get_mut(&id) {
                segment.certified = since;
            }
        }
        due
    }

    /// Notes what waits of a segment as given up; returns how much that is.
    pub(crate) fn mourn(&mut self, lane: u8, id: u64, cause: Cause) -> u64 {
        let required = self.required();
        let Some(segment) = self.lane(lane).segments.get(&id) else {
            return 0;
        };
        let slots: Vec<_> = segment.shown().collect();
        let mut lost = 0;
        for slot in slots {
            let count = self.share(slot, required);
            if count > 0 {
                self.lost.add(lane, slot.0, count, cause);
            }
            lost += count;
        }
        lost
    }

    fn status(&self) -> Status {
        let required = self.required();
        let mut status = Status {
            bytes: self.total(),
            seconds: self.calendar.len() as u64,
            lost: self.lost.list(),
            damaged: self.damaged.clone(),
            poisoned: self.poisoned.clone(),
            ranked: self.ranked,
            unranked: self.unranked(),
            ..Status::default()
        };
        for (at, lane) in self.lanes.iter().enumerate() {
            let it = &mut status.lanes[at];
            *it = LaneStatus {
                dropped: lane
                    .dropped
                    .iter()
                    .map(|(reason, count)| (*reason, *count))
                    .collect(),
                ..lane.counters.clone()
            };
            status.segments += lane.segments.len() as u64;
            for segment in lane.segments.values() {
                it.bytes += segment.bytes;
                it.records += segment.records();
                for (slot, shown) in segment.shown().filter(|(_, shown)| *shown > 0) {
                    let waiting = self.share((slot, shown), required);
                    if waiting > 0 {
                        it.waiting += waiting;
                        let second = u64::from(slot.1) << 32;
                        it.oldest = Some(it.oldest.map_or(second, |oldest| oldest.min(second)));
                    }
                }
            }
        }
        for (at, name) in self.upstreams.iter().enumerate() {
            let Some(name) = name else { continue };
            let mut upstream = UpstreamStatus {
                name: name.clone(),
                ..UpstreamStatus::default()
            };
            for ((_, second), kept) in self.calendar.waiting(1 << at) {
                upstream.waiting += kept;
                let second = u64::from(second) << 32;
                upstream.oldest = Some(upstream.oldest.map_or(second, |oldest| oldest.min(second)));
            }
            status.upstreams.push(upstream);
        }
        status
    }
}

/// How a change is counted, and its version; `None` without a stamp.
fn counted(
    change: &KeptChange,
    bytes: &mut Vec<u8>,
) -> Option<(Counted, weir_core::version::Version)> {
    match change {
        KeptChange::Key(change) => {
            let stamp = change.stamp?;
            let version = change.version(stamp);
            let item = Item {
                key: change.key.clone(),
                version,
                merged: 0,
            };
            Some((
                Counted {
                    stamp,
                    hash: Some(item.hash_with(bytes)),
                },
                version,
            ))
        }
        KeptChange::Wildcard(change) => {
            let stamp = change.stamp?;
            Some((Counted { stamp, hash: None }, change.version(stamp)))
        }
    }
}
