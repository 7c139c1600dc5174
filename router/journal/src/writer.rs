//! Performs what a journal has to write, in order, one open file for each lane.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use weir_core::backlog::LANES;

use crate::{
    error::{JournalError, Result},
    files::{self, Files, Output},
    segment::{self, HEADER_LEN, Header},
    state::{Job, Slots, State},
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Writer {
    dir: PathBuf,
    files: Arc<dyn Files>,
    outputs: [Option<Open>; LANES as usize],
    /// A file was made whose name may not be on the disk.
    has_new_names: bool,
}

/// A file that is written to.
#[derive(Debug)]
struct Open {
    id: u64,
    output: Box<dyn Output>,
    len: u64,
    is_synced: bool,
}

impl Writer {
    pub(crate) fn new(dir: PathBuf, files: Arc<dyn Files>) -> Self {
        Self {
            dir,
            files,
            outputs: [const { None }; LANES as usize],
            has_new_names: false,
        }
    }

    /// Writes all there is. If a lane finds no room the others go on.
    ///
    /// # Errors
    /// If there is no room; anything else poisons the journal.
    pub(crate) fn write(&mut self, state: &Mutex<State>) -> Result<()> {
        let mut result = Ok(());
        for lane in 0..LANES {
            loop {
                let job = state.lock().lane(lane).jobs.front().cloned();
                let Some(job) = job else { break };
                match self.perform(state, lane, job) {
                    Ok(footer_len) => state.lock().written(lane, footer_len),
                    Err(error) if error.is_full() => {
                        result = Err(error);
                        break;
                    }
                    Err(error) => {
                        state.lock().poisoned = Some(error.to_string());
                        return Err(error);
                    }
                }
            }
        }
        result
    }

    /// Waits until the disk has what was written, and the names of its files.
    ///
    /// # Errors
    /// If it does not, which poisons the journal.
    pub(crate) fn sync(&mut self, state: &Mutex<State>) -> Result<()> {
        let synced = self.sync_files();
        if let Err(error) = &synced {
            state.lock().poisoned = Some(error.to_string());
        }
        synced
    }

    /// Removes a segment's file, whether it is being written or not.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn remove(&mut self, lane: u8, id: u64) -> Result<()> {
        let output = &mut self.outputs[usize::from(lane)];
        if output.as_ref().is_some_and(|open| open.id == id) {
            *output = None;
        }
        let path = self.dir.join(files::name_of(lane, id));
        self.files.remove(&path).map_err(JournalError::io(&path))
    }

    fn sync_files(&mut self) -> Result<()> {
        for (lane, open) in (0..LANES).zip(&mut self.outputs) {
            if let Some(open) = open.as_mut().filter(|open| !open.is_synced) {
                let path = self.dir.join(files::name_of(lane, open.id));
                open.output.sync().map_err(failed(path))?;
                open.is_synced = true;
            }
        }
        if self.has_new_names {
            files::sync_dir(&self.dir).map_err(failed(self.dir.clone()))?;
            self.has_new_names = false;
        }
        Ok(())
    }

    /// Returns the length of the footer if the segment was closed.
    fn perform(&mut self, state: &Mutex<State>, lane: u8, job: Job) -> Result<u64> {
        match job {
            Job::Block { id, bytes } => {
                self.append(state, lane, id, &bytes)?;
                Ok(0)
            }
            Job::Close { id } => {
                let footer = Bytes::from(footer(&state.lock(), lane, id));
                self.append(state, lane, id, &footer)?;
                // A closed segment is believed by its footer, so that has to be there with all the rest.
                self.sync_files()?;
                self.outputs[usize::from(lane)] = None;
                Ok(footer.len() as u64)
            }
        }
    }

    fn append(&mut self, state: &Mutex<State>, lane: u8, id: u64, bytes: &[u8]) -> Result<()> {
        let path = self.dir.join(files::name_of(lane, id));
        let output = &mut self.outputs[usize::from(lane)];
        let open = match output {
            Some(open) if open.id == id => open,
            _ => {
                let first = state
                    .lock()
                    .lane(lane)
                    .segments
                    .get(&id)
                    .map_or(0, |it| it.first);
                let header = Header {
                    lane,
                    is_coalesced: false,
                    id,
                    first,
                };
                let mut file = self.files.create(&path).map_err(JournalError::io(&path))?;
                if let Err(error) = file.append(&header.encode()) {
                    drop(file);
                    files::remove(&path).map_err(JournalError::io(&path))?;
                    return Err(JournalError::io(&path)(error));
                }
                self.has_new_names = true;
                let len = HEADER_LEN as u64;
                output.insert(Open {
                    id,
                    output: file,
                    len,
                    is_synced: false,
                })
            }
        };
        open.is_synced = false;
        if let Err(error) = open.output.append(bytes) {
            let error = JournalError::io(&path)(error);
            if error.is_full() {
                // Half a block in the middle would be damage to whoever reads it.
                open.output.cut(open.len).map_err(failed(path))?;
            }
            return Err(error);
        }
        open.len += bytes.len() as u64;
        Ok(())
    }
}

/// A failure that more room does not mend.
fn failed(path: PathBuf) -> impl FnOnce(std::io::Error) -> JournalError {
    |source| JournalError::Io { path, source }
}

/// The footer of a segment that is not closed.
fn footer(state: &State, lane: u8, id: u64) -> Vec<u8> {
    let Some(segment) = state.lane(lane).segments.get(&id) else {
        return Vec::new();
    };
    let Slots::Open(sums) = &segment.slots else {
        return Vec::new();
    };
    let blocks = segment.blocks.as_deref().unwrap_or_default();
    segment::footer(
        sums.iter(),
        blocks,
        segment.bytes,
        (segment.first, segment.end),
        segment.ranked,
    )
}
