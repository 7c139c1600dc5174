//! The bounded queue between Zenoh's receive threads and a storage's task.
//!
//! A receive thread only hands over. When the queue is full it waits if the sample asked for blocking
//! congestion control, so that back-pressure reaches the publisher; other samples are dropped and
//! counted. The wait cannot deadlock: whoever empties the queue never waits for the network.
//!
//! Items may keep parts of themselves in the queue's [`Arena`], in the order in which they are pushed.

use std::{
    mem,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::packed::Arena;

/// Bytes of values that may wait in a queue, whatever their number: a burst of camera images must
/// not take the router's memory.
const BYTES_MAX: usize = 64 << 20;

/// Items beyond the limit that are let in if somebody waits for their outcome.
const HURRY_RESERVE: usize = 1_024;

/// A bounded queue of `T` that one task empties in batches.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    space: Condvar,
    hurry: Condvar,
    wake: Notify,
    items_max: usize,
}

/// What was in the queue at one moment.
pub(crate) struct Batch<T> {
    /// The items, in order.
    pub items: Vec<T>,
    /// What they keep there.
    pub arena: Arena,
}

struct State<T> {
    batch: Batch<T>,
    bytes: usize,
    /// How many receive threads wait for space.
    waiting: usize,
    /// Something in the queue should not linger.
    hurried: bool,
    /// The task is at work and will look again before it sleeps.
    attended: bool,
    closed: bool,
}

/// What became of an item that was handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pushed {
    /// It is in the queue.
    Queued,
    /// The queue was full and the item did not ask to wait, or the queue is closed.
    Dropped,
}

/// How an item wants to be treated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manners {
    /// Wait for space rather than be dropped.
    pub block: bool,
    /// Somebody waits for the outcome: do not let it linger.
    pub hurry: bool,
    /// Bytes that count against the queue.
    pub bytes: usize,
}

impl<T> Queue<T> {
    pub(crate) fn new(items_max: usize) -> Self {
        let state = State {
            batch: Batch::default(),
            bytes: 0,
            waiting: 0,
            hurried: false,
            attended: false,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            space: Condvar::new(),
            hurry: Condvar::new(),
            wake: Notify::new(),
            items_max,
        }
    }

    /// Hands an item over. Blocks the calling thread while the queue is full and `manners.block`.
    pub(crate) fn push(&self, item: T, manners: Manners) -> Pushed {
        self.push_with(manners, |_| item)
    }

    /// [`Queue::push`] of an item that keeps some of itself in the arena. `make` is called when there
    /// is space, under the queue's lock: it must do no more than copy.
    pub(crate) fn push_with(&self, manners: Manners, make: impl FnOnce(&mut Arena) -> T) -> Pushed {
        let mut state = self.state.lock();
        // Whoever waits for an outcome sends one change at a time; a few of them get in beside
        // publishers that keep the queue full. The limit of bytes holds for all.
        let reserve = if manners.hurry { HURRY_RESERVE } else { 0 };
        while state.is_full(self.items_max + reserve) && !state.closed {
            if !manners.block {
                return Pushed::Dropped;
            }
            state.waiting += 1;
            self.space.wait(&mut state);
            state.waiting -= 1;
        }
        if state.closed {
            return Pushed::Dropped;
        }
        let item = make(&mut state.batch.arena);
        state.batch.items.push(item);
        state.bytes += manners.bytes;
        let half_full = state.batch.items.len() * 2 >= self.items_max;
        if (manners.hurry || half_full) && !mem::replace(&mut state.hurried, true) {
            self.hurry.notify_one();
        }
        if !mem::replace(&mut state.attended, true) {
            drop(state);
            self.wake.notify_one();
        }
        Pushed::Queued
    }

    /// Takes everything there is into `batch`, which must be empty. If there is nothing, or after a
    /// batch came so recently that more is to be expected, lets up to `linger` pass first, so that a
    /// busy queue is taken in hundreds and not one by one. `false`: there was nothing, and the next
    /// push wakes the task again.
    pub(crate) fn take(&self, batch: &mut Batch<T>, linger: Duration) -> bool {
        let mut state = self.state.lock();
        if !linger.is_zero() && !state.hurried && !state.closed {
            let until = Instant::now() + linger;
            while !state.hurried && !state.closed {
                if self.hurry.wait_until(&mut state, until).timed_out() {
                    break;
                }
            }
        }
        state.hurried = false;
        if state.batch.items.is_empty() {
            state.attended = false;
            return false;
        }
        mem::swap(&mut state.batch, batch);
        state.bytes = 0;
        if state.waiting > 0 {
            self.space.notify_all();
        }
        true
    }

    /// Waits until something was pushed that nobody attends to.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// The task goes to work for another reason than a push.
    pub(crate) fn attend(&self) {
        self.state.lock().attended = true;
    }

    /// Refuses everything from now on; what is queued can still be taken.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.space.notify_all();
        self.hurry.notify_all();
        self.wake.notify_one();
    }

    /// How many items wait.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().batch.items.len()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            arena: Arena::default(),
        }
    }
}

impl<T> State<T> {
    fn is_full(&self, items_max: usize) -> bool {
        self.batch.items.len() >= items_max || self.bytes >= BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    const BLOCK: Manners = Manners {
        block: true,
        hurry: false,
        bytes: 1,
    };
    const DROP: Manners = Manners {
        block: false,
        hurry: false,
        bytes: 1,
    };

    #[test]
    fn what_did_not_ask_to_wait_is_dropped_when_full() {
        let queue = Queue::new(2);
        let pushed: Vec<_> = (0..3).map(|item| queue.push(item, DROP)).collect();
        assert_eq!(pushed, [Pushed::Queued, Pushed::Queued, Pushed::Dropped]);
    }

    #[test]
    fn whoever_waits_for_an_outcome_gets_in_beside_a_full_queue() {
        let hurry = Manners {
            hurry: true,
            ..DROP
        };
        let queue = Queue::new(1);
        assert_eq!(queue.push(0, DROP), Pushed::Queued);
        assert_eq!(queue.push(1, DROP), Pushed::Dropped);
        let pushed: Vec<_> = (0..=HURRY_RESERVE).map(|n| queue.push(n, hurry)).collect();
        assert_eq!(pushed[HURRY_RESERVE - 1], Pushed::Queued);
        assert_eq!(pushed[HURRY_RESERVE], Pushed::Dropped);
    }

    #[test]
    fn bytes_fill_it_too() {
        let queue = Queue::new(100);
        assert_eq!(
            queue.push(
                0,
                Manners {
                    bytes: BYTES_MAX,
                    ..DROP
                }
            ),
            Pushed::Queued
        );
        assert_eq!(queue.push(1, DROP), Pushed::Dropped);
    }

    #[test]
    fn what_asked_to_wait_gets_in_and_nothing_is_lost() {
        let queue = Arc::new(Queue::new(4));
        let pushers: Vec<_> = (0..3)
            .map(|pusher| {
                let queue = Arc::clone(&queue);
                thread::spawn(move || {
                    for item in 0..1_000 {
                        assert_eq!(queue.push((pusher, item), BLOCK), Pushed::Queued);
                    }
                })
            })
            .collect();
        let mut taken = Vec::new();
        let mut batch = Batch::default();
        while taken.len() < 3_000 {
            queue.take(&mut batch, Duration::from_micros(50));
            taken.append(&mut batch.items);
        }
        for pusher in pushers {
            pusher.join().unwrap();
        }
        for pusher in 0..3 {
            let items = taken
                .iter()
                .filter(|item| item.0 == pusher)
                .map(|item| item.1);
            assert!(items.eq(0..1_000), "the order of one pusher is kept");
        }
    }

    #[test]
    fn closing_lets_waiters_go() {
        let queue = Arc::new(Queue::new(1));
        queue.push(0, BLOCK);
        let waiter = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.push(1, BLOCK))
        };
        while queue.state.lock().waiting == 0 {
            thread::yield_now();
        }
        queue.close();
        assert_eq!(waiter.join().unwrap(), Pushed::Dropped);
        let mut batch = Batch::default();
        assert!(queue.take(&mut batch, Duration::ZERO));
        assert_eq!(batch.items, [0]);
    }
}
