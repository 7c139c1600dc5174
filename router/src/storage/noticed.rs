//! What was noticed of the stores of a storage's mirrors: judged by the storage's task, shown by whoever
//! asks.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use parking_lot::Mutex;
use serde::{Serialize, Serializer, ser::SerializeMap};
use tokio::sync::Notify;
use weir_core::identity::Fate;

/// What was noticed, by the mirror's address. A mirror that is forgotten leaves some bytes behind.
#[derive(Clone, Default)]
pub(crate) struct Notices(Arc<Mutex<BTreeMap<String, Arc<Noticed>>>>);

/// What was noticed of one mirror.
#[derive(Debug, Default)]
pub(crate) struct Noticed {
    status: Mutex<StoreStatus>,
    doubt: Notify,
}

/// What was noticed of the stores of a mirror, as its status shows it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct StoreStatus {
    /// The last that somebody should know of.
    pub last: Option<Notice>,
    /// How often each was noticed since the storage was opened.
    pub changes: Changes,
}

/// Something that has become of a store.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Notice {
    /// What, in a word.
    pub kind: &'static str,
    /// When it was noticed; RFC 3339 where it is shown.
    #[serde(serialize_with = "crate::convert::as_rfc3339")]
    pub at: SystemTime,
    /// What it means.
    pub message: &'static str,
}

/// How often each fate was noticed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Changes([u64; Fate::ALL.len()]);

impl Notices {
    /// Of the mirror at this address.
    pub(crate) fn of(&self, mirror: &str) -> Arc<Noticed> {
        let mut all = self.0.lock();
        Arc::clone(all.entry(mirror.to_owned()).or_default())
    }

    /// Counts, shows and logs what has become of a mirror's store.
    pub(crate) fn note(&self, storage: &str, mirror: &str, fate: Fate) {
        let message = meaning(fate);
        let kind = fate.name();
        if fate.is_notable() {
            tracing::warn!(storage, mirror, kind, "the store of a mirror: {message}");
        } else {
            tracing::info!(storage, mirror, kind, "the store of a mirror: {message}");
        }
        let noticed = self.of(mirror);
        let mut status = noticed.status.lock();
        if let Some(index) = Fate::ALL.iter().position(|of| *of == fate) {
            status.changes.0[index] += 1;
        }
        if fate.is_notable() {
            status.last = Some(Notice {
                kind,
                at: SystemTime::now(),
                message,
            });
        }
    }

    /// The mirror at this address has to be asked which store it has.
    pub(crate) fn doubt(&self, mirror: &str) {
        self.of(mirror).doubt.notify_one();
    }
}

impl Noticed {
    /// Now.
    pub(crate) fn status(&self) -> StoreStatus {
        self.status.lock().clone()
    }

    /// Waits until the mirror has to be asked which store it has. Cancel safe.
    pub(crate) async fn await_doubt(&self) {
        self.doubt.notified().await;
    }
}

impl Changes {
    /// Each by name.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Fate::ALL.iter().map(|fate| fate.name()).zip(self.0)
    }
}

impl Serialize for Changes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, count) in self.each() {
            map.serialize_entry(name, &count)?;
        }
        map.end()
    }
}

/// What has happened, and what follows from it.
const fn meaning(fate: Fate) -> &'static str {
    match fate {
        Fate::Restarted => "it was opened again, and holds all that it did",
        Fate::Missed => {
            "it was opened several times since it was last heard of; it is compared anew before \
             deletes are forgotten on its account"
        }
        Fate::Restored => {
            "it is an older state of itself: put back from a copy, or not everything was on the disk \
             when the power went; what it lacks is given to it again"
        }
        Fate::Wiped => {
            "a new and empty one is in its place; what the one before held is given to it as far as it \
             is held here"
        }
        Fate::Swapped => "another one is in its place; both are compared anew",
        Fate::Cloned => {
            "it is a copy of one that is in use too; each is compared for itself, but to tell them \
             apart later, remove one and let it be filled anew"
        }
    }
}
