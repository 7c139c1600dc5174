//! Who still reads which state, and the replaced files that are kept for them.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    path::PathBuf,
    sync::Arc,
};

use parking_lot::Mutex;
use weir_backend_api::Result;
use weir_core::key::Key;

use crate::index::{Index, Reading, Writing};

/// Readers and the writer meet here, for as long as it takes to begin a read or to show a batch.
#[derive(Debug, Default)]
pub struct Readers {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The batch that readers who begin now see.
    seq: u64,
    /// Batch -> readers who see it as the latest.
    live: BTreeMap<u64, usize>,
    /// Files that the batch replaced; those who see an earlier one may still read them.
    kept: VecDeque<(u64, PathBuf)>,
    /// Keys whose files are of a batch that the index does not show yet.
    publishing: HashSet<Key>,
}

/// Keeps the files of one state, until it is dropped.
#[derive(Debug)]
pub struct Pin {
    readers: Arc<Readers>,
    seq: u64,
}

impl Readers {
    /// Readers of a store whose last batch is `seq`.
    pub fn new(seq: u64) -> Self {
        Self {
            state: Mutex::new(State {
                seq,
                ..State::default()
            }),
        }
    }

    /// Begins to read.
    pub fn begin(self: &Arc<Self>, index: &Index) -> Result<(Reading, Pin)> {
        let mut state = self.state.lock();
        let reading = index.read()?;
        let seq = state.seq;
        *state.live.entry(seq).or_default() += 1;
        drop(state);
        let readers = Arc::clone(self);
        Ok((reading, Pin { readers, seq }))
    }

    /// Says whose files are about to change.
    pub fn publish(&self, keys: impl Iterator<Item = Key>) {
        self.state.lock().publishing.extend(keys);
    }

    /// Whether the key's file is of a batch that the index does not show yet.
    pub fn is_publishing(&self, key: &Key) -> bool {
        self.state.lock().publishing.contains(key)
    }

    /// Shows a batch to those who begin to read from now on.
    pub fn show(&self, seq: u64, writing: Writing, kept: Vec<PathBuf>) -> Result<()> {
        let mut state = self.state.lock();
        writing.commit()?;
        state.seq = seq;
        state.publishing.clear();
        state.kept.extend(kept.into_iter().map(|path| (seq, path)));
        let unread = state.unread();
        drop(state);
        remove(unread);
        Ok(())
    }
}

impl State {
    /// Takes the kept files that nobody reads any more.
    fn unread(&mut self) -> Vec<PathBuf> {
        let oldest = self.live.first_key_value().map(|(seq, _)| *seq);
        let end = self
            .kept
            .partition_point(|(seq, _)| oldest.is_none_or(|oldest| *seq <= oldest));
        self.kept.drain(..end).map(|(_, path)| path).collect()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = self.readers.state.lock();
        if let Some(count) = state.live.get_mut(&self.seq) {
            *count -= 1;
            if *count == 0 {
                state.live.remove(&self.seq);
            }
        }
        let unread = state.unread();
        drop(state);
        remove(unread);
    }
}

fn remove(files: Vec<PathBuf>) {
    for path in files {
        if let Err(error) = std::fs::remove_file(&path) {
            // It costs space until the store is opened again, no more.
            let path = path.display();
            tracing::warn!(%path, %error, "cannot remove a replaced value");
        }
    }
}
