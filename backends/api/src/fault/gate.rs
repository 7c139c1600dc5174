//! A gate that calls stop at, so that a test decides how long "slow" is.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Fault;

/// Calls park at it until it is opened. Clones are the same gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    parked: usize,
    open: bool,
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A call that meets this fault parks here.
    #[must_use]
    pub fn fault(&self) -> Fault {
        let gate = self.clone();
        Fault::Slow(Arc::new(move || gate.pass()))
    }

    /// Parks until the gate is open.
    pub fn pass(&self) {
        let mut state = self.state();
        state.parked += 1;
        self.0.1.notify_all();
        let wait = self.0.1.wait_while(state, |state| !state.open);
        state = wait.unwrap_or_else(PoisonError::into_inner);
        state.parked -= 1;
    }

    /// Parks until `count` calls are parked here.
    pub fn wait_for(&self, count: usize) {
        let wait = self
            .0
            .1
            .wait_while(self.state(), |state| state.parked < count);
        drop(wait.unwrap_or_else(PoisonError::into_inner));
    }

    /// Lets everyone through, now and later.
    pub fn open(&self) {
        self.state().open = true;
        self.0.1.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
