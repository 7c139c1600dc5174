//! Who was seen to come or go and has not been attended to yet.

use std::{collections::BTreeMap, mem};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::hello::Address;

/// Storages that are known at once. A storage more is not mirrored with, and a warning says so.
pub(super) const PEERS_MAX: usize = 16_384;

/// The last that was seen of each storage: bounded by their number, however often they come and go.
pub(crate) struct Sightings<T> {
    seen: Mutex<BTreeMap<Address, T>>,
    wake: Notify,
}

impl<T> Default for Sightings<T> {
    fn default() -> Self {
        Self {
            seen: Mutex::default(),
            wake: Notify::new(),
        }
    }
}

impl<T> Sightings<T> {
    /// Notes what was seen of a storage. May be called on Zenoh's receive threads.
    pub(super) fn note(&self, address: Address, seen_last: T) {
        let mut seen = self.seen.lock();
        if seen.len() >= PEERS_MAX && !seen.contains_key(&address) {
            drop(seen);
            tracing::warn!(%address, "too many storages announce themselves: not looked at");
            return;
        }
        seen.insert(address, seen_last);
        drop(seen);
        self.wake.notify_one();
    }

    /// Waits until there is something to attend to. Cancel safe.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// All that is to be attended to.
    pub(crate) fn take(&self) -> BTreeMap<Address, T> {
        mem::take(&mut self.seen.lock())
    }
}
