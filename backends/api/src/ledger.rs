//! The ledger of one store, shared by who writes and who compares.
//!
//! Who writes tells it of every batch: [`Ledger::note`] before the commit, [`Ledger::settle`] after it
//! (and after readers can see what it did). Who compares counts again what has become stale, beside the
//! writer: [`crate::replica`]. A store that nobody has ever compared has no ledger and pays nothing.

use std::{
    ops::ControlFlow,
    sync::{Mutex, MutexGuard, PoisonError},
};

use weir_core::{
    change::{Table, Write},
    keyspace::KeySpace,
    ledger::{calendar::Calendar, runs::Runs},
    version::Version,
};

use crate::{Result, Store, recover::each_row};

/// What a store knows it has; see the module.
#[derive(Debug)]
pub struct Ledger {
    space: KeySpace,
    /// Whether it is to have a calendar.
    series: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) runs: Option<Runs>,
    pub(crate) calendar: Option<Calendar>,
    /// A batch is being committed of which a ledger that begins now knows nothing.
    in_flight: bool,
}

impl Ledger {
    /// The ledger that the store has kept, or none as long as nobody compares. Costs a read for each
    /// 1,024 rows.
    ///
    /// # Errors
    /// Any of the store.
    pub fn open(store: &dyn Store, space: KeySpace, series: bool) -> Result<Self> {
        let mut rows = Vec::new();
        each_row(store, Table::Ledger, Vec::new(), |key, value| {
            rows.push((key, value));
            Ok(ControlFlow::Continue(()))
        })?;
        let mut state = State::default();
        if !rows.is_empty() {
            state.calendar = series.then(|| Calendar::load(&rows));
            state.runs = Some(Runs::load(&rows));
        }
        let state = Mutex::new(state);
        Ok(Self {
            space,
            series,
            state,
        })
    }

    /// Takes note of a sealed batch that is about to be committed, and adds what the ledger itself has
    /// to write. `newest` is the newest version that was held before it. Costs a lookup for each write.
    pub fn note(&self, writes: &mut Vec<Write<'_>>, newest: Version) {
        let mut state = self.state();
        state.in_flight = true;
        if let Some(calendar) = &mut state.calendar {
            calendar.note(&self.space, writes, newest);
        }
        if let Some(runs) = &mut state.runs {
            runs.note(writes);
        }
    }

    /// The batch was committed and readers see it, or it was not.
    pub fn settle(&self, done: bool) {
        let mut state = self.state();
        state.in_flight = false;
        if let Some(calendar) = &mut state.calendar {
            calendar.settle(done);
        }
        if let Some(runs) = &mut state.runs {
            runs.settle(done);
        }
    }

    /// What has been counted again and should be written when there is time (`all`: also what will
    /// soon change again, for a store that is about to be closed), as a batch of its own that counts as
    /// noted: commit it and [`Ledger::settle`]. Empty if nobody compares.
    #[must_use]
    pub fn rows_to_write(&self, all: bool) -> Vec<Write<'static>> {
        let mut state = self.state();
        let mut rows = Vec::new();
        if let Some(calendar) = &mut state.calendar {
            rows.extend(if all {
                calendar.all_rows_to_write()
            } else {
                calendar.rows_to_write()
            });
        }
        if let Some(runs) = &mut state.runs {
            rows.extend(runs.rows_to_write());
        }
        state.in_flight = !rows.is_empty();
        rows
    }

    /// The state, from now on with all there is to compare.
    pub(crate) fn begun(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        let in_flight = state.in_flight;
        if state.runs.is_none() {
            state.runs = Some(Runs::begin(in_flight));
        }
        if self.series && state.calendar.is_none() {
            state.calendar = Some(Calendar::begin(in_flight));
        }
        state
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A reader that panicked has changed nothing by halves.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
