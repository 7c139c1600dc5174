//! Work on many keys, and the row that lets it survive a restart.

use weir_core::{
    change::{KeptChange, Table, WildcardChange, Write},
    key::KeyRange,
    version::Stamp,
};

use super::Shard;

/// Work that takes long and is done between batches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Job {
    /// Fold the wildcard journal into the records of a range.
    Fold(KeyRange),
    /// One unstamped delete for each key that a wildcard delete without a stamp matches, among those
    /// that were held when it came: nothing with a stamp above the ceiling.
    Expand {
        /// The row in [`Table::Jobs`] that remembers it.
        row: Vec<u8>,
        /// What is deleted.
        change: WildcardChange,
        /// The newest stamp that was held.
        ceiling: Stamp,
    },
}

impl Shard {
    /// Has a job that did not come to its end begun again. A store that is to be opened again brings
    /// its jobs along.
    pub(crate) fn begin_again(&mut self, job: Job) {
        if self.open.is_some() && !self.jobs.contains(&job) {
            self.jobs.insert(0, job);
        }
    }
}

impl Job {
    /// The deletes that a wildcard delete without a stamp stands for.
    pub(super) fn expand(change: WildcardChange, ceiling: Stamp) -> Self {
        let mut row = ceiling.to_bytes().to_vec();
        row.extend_from_slice(change.expr.as_bytes());
        Self::Expand {
            row,
            change,
            ceiling,
        }
    }

    /// The write that remembers it.
    pub(super) fn row(&self) -> Option<Write<'static>> {
        let Self::Expand { row, change, .. } = self else {
            return None;
        };
        let value = Some(KeptChange::Wildcard(change.clone()).encode());
        Some(Write::Row {
            table: Table::Jobs,
            key: row.clone(),
            value,
        })
    }

    /// What [`Job::row`] wrote; nothing if a later version wrote it.
    pub(super) fn decode(row: Vec<u8>, value: Vec<u8>) -> Option<Self> {
        let ceiling = Stamp::from_bytes(row.get(..Stamp::LEN)?)?;
        match KeptChange::decode(&value.into())? {
            KeptChange::Wildcard(change) => Some(Self::Expand {
                row,
                change: WildcardChange {
                    stamp: None,
                    ..change
                },
                ceiling,
            }),
            KeptChange::Key(_) => None,
        }
    }
}
