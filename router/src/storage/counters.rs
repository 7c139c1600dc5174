//! What a storage counts. Written by its task and its readers, read by anybody.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::SystemTime,
};

use parking_lot::Mutex;
use serde::Serialize;
use weir_core::change::Admission;

macro_rules! counters {
    ($($name:ident: $help:literal,)*) => {
        /// Running totals since the storage was opened.
        #[derive(Default)]
        pub(crate) struct Counters {
            $(#[doc = $help] pub $name: AtomicU64,)*
            /// The last error.
            pub last_error: Mutex<Option<LastError>>,
        }

        /// The totals at one moment.
        #[derive(Clone, Copy, Debug, Default, Serialize)]
        pub(crate) struct Totals {
            $(#[doc = $help] pub $name: u64,)*
        }

        impl Counters {
            /// Reads every total.
            pub(crate) fn totals(&self) -> Totals {
                Totals { $($name: self.$name.load(Relaxed),)* }
            }
        }

        impl Totals {
            /// Name, help and value of each total.
            pub(crate) fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), $help, self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    received: "changes handed over by the network",
    received_bytes: "bytes of their values",
    foreign: "changes that came because the declared key expressions are wider than the storage, or that a read-only storage does not take",
    dropped: "changes dropped because the queue was full and they did not ask to wait",
    applied: "changes that the storage holds now",
    known: "changes that it held already",
    outdated: "changes older than what it held",
    merged: "changes of which a policy made something else, together with what was held",
    parked: "changes from the future, or that wait for their policy, set aside until they are due",
    quarantined: "changes older than what could be judged, set aside",
    nothing: "deletes of keys that were not there",
    rejected: "changes refused",
    interrupted: "questions that a policy could not be asked; the changes wait among the parked ones",
    apart: "records of other replicas left where they are, because the replicas do not agree about the policy",
    ties: "different changes of one key with the same timestamp",
    spooled: "changes written to the spool because the store was not to be used",
    errors: "errors of the store or the spool",
    batches: "batches committed",
    collected: "tombstones and expired records forgotten",
    queries: "queries received",
    replies: "samples sent in reply",
    query_errors: "queries answered with an error",
}

/// An error that a storage met.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LastError {
    /// When; RFC 3339 where it is shown.
    #[serde(serialize_with = "crate::convert::as_rfc3339")]
    pub at: SystemTime,
    /// What went wrong.
    pub message: String,
}

impl Counters {
    /// Counts what became of a change.
    pub(crate) fn admitted(&self, admission: &Admission) {
        let counter = match admission {
            Admission::Applied(_) => &self.applied,
            Admission::Known(_) => &self.known,
            Admission::Outdated(_) => &self.outdated,
            Admission::Merged(_) => &self.merged,
            Admission::Parked(_) => &self.parked,
            Admission::Quarantined(_) => &self.quarantined,
            Admission::Nothing => &self.nothing,
            Admission::Rejected(_) => &self.rejected,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// Counts and remembers an error.
    pub(crate) fn failed(&self, message: String) {
        self.errors.fetch_add(1, Relaxed);
        *self.last_error.lock() = Some(LastError {
            at: SystemTime::now(),
            message,
        });
    }
}
