//! The suite that every backend passes: one test for each promise of the traits.
//!
//! ```text
//! // In the backend's `tests/conformance.rs`; its dev-dependency on this crate has the feature
//! // `conformance`.
//! use std::path::Path;
//! weir_backend_api::conformance!(|_: &Path| MyVolume::new());
//! ```
//!
//! The closure is given a fresh directory for each test and makes the volume; the stores that a test
//! opens lie inside it ([`crate::StoreSpec::dir`]). It is called again for each restart, as a new
//! process would. [`crate::Capability`] decides which promises apply.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "the suite's verdict is a panic"
)]

pub mod admission;
pub mod faults;
pub mod harness;
pub mod history;
pub mod identity;
pub mod lifecycle;
pub mod model;
pub mod ranges;
pub mod records;
mod samples;
pub mod tables;

use std::path::Path;

use tempfile::TempDir;

use crate::{Capability, Durability, Store, StoreSpec, Volume};

/// Tests of a volume; the argument is a closure from a fresh directory to the volume.
#[macro_export]
macro_rules! conformance {
    ($volume:expr) => {
        $crate::conformance_tests! { $volume;
            records: [
                holds_what_was_committed,
                the_last_write_of_a_batch_wins,
                forgets_a_key_entirely,
                takes_a_large_batch,
                keeps_every_key,
                keeps_values_byte_for_byte,
                keeps_tombstones_and_folded_heads,
                keeps_what_was_merged,
            ],
            ranges: [
                scans_ranges_in_both_directions,
                scans_are_independent,
                a_snapshot_is_one_moment,
                readers_see_whole_batches,
            ],
            history: [
                history_takes_each_version_once,
                history_is_read_by_key_and_version,
                a_snapshot_of_history_is_one_moment,
            ],
            tables: [
                tables_keep_their_rows,
            ],
            lifecycle: [
                says_how_durable_a_commit_is,
                counts_keys,
                a_restart_loses_nothing,
                a_drop_without_close_loses_nothing,
                read_only_refuses_writes,
                an_absent_store_is_an_error,
                destroys_on_close,
                a_second_open_is_refused,
                stores_are_apart,
                a_refused_batch_leaves_nothing,
            ],
            admission: [
                any_order_ends_alike,
                any_order_ends_alike_with_history,
                collections_bring_nothing_back,
                each_change_has_its_admission,
                the_future_waits,
                the_memory_comes_back,
                a_broken_row_is_told,
            ],
            identity: [
                a_store_is_known_again,
            ],
            faults: [
                passing_faults_lose_nothing,
                doubts_and_crashes_lose_nothing,
                a_crash_at_any_write_loses_nothing,
                a_full_store_resumes,
            ],
        }
    };
}

/// Expands to the tests; of use to [`conformance!`] alone.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_tests {
    ($volume:expr; $($module:ident: [$($name:ident),* $(,)?],)*) => {
        $($(
            #[test]
            fn $name() {
                $crate::conformance::run($volume, $crate::conformance::$module::$name);
            }
        )*)*
    };
}

/// From a fresh directory to the volume.
type Make = Box<dyn Fn(&Path) -> Box<dyn Volume>>;

/// A fresh directory, a volume in it, and the store that a test works on.
pub struct Site {
    make: Make,
    volume: Box<dyn Volume>,
    root: TempDir,
}

/// Runs one test on a volume of its own.
pub fn run<V: Volume + 'static>(make: impl Fn(&Path) -> V + 'static, test: impl FnOnce(&mut Site)) {
    let root = tempfile::Builder::new()
        .prefix("weir-conformance-")
        .tempdir()
        .unwrap();
    let make = Box::new(move |dir: &Path| Box::new(make(dir)) as Box<dyn Volume>);
    let volume = make(root.path());
    test(&mut Site { make, volume, root });
}

impl Site {
    /// The volume.
    #[must_use]
    pub fn volume(&self) -> &dyn Volume {
        &*self.volume
    }

    /// What the volume says that its stores can do.
    #[must_use]
    pub fn can(&self) -> Capability {
        self.volume.capability()
    }

    /// A store named `name`, to be created, with history if the volume can.
    #[must_use]
    pub fn spec(&self, name: &str) -> StoreSpec {
        StoreSpec {
            name: name.to_owned(),
            dir: self.root.path().join("stores").join(name),
            create: true,
            read_only: false,
            history: self.can().history,
            destroy_on_close: false,
        }
    }

    /// The spec of the store that a test works on.
    #[must_use]
    pub fn main(&self) -> StoreSpec {
        self.spec("main")
    }

    /// Opens the store that a test works on.
    #[must_use]
    pub fn open(&self) -> Box<dyn Store> {
        self.volume.open(&self.main()).unwrap()
    }

    /// Another volume on the same directory.
    #[must_use]
    pub fn make_volume(&self) -> Box<dyn Volume> {
        (self.make)(self.root.path())
    }

    /// Makes the volume again, as a new process would.
    pub fn restart_volume(&mut self) {
        self.volume = self.make_volume();
    }

    /// Closes the store and opens it again in a new volume.
    #[must_use]
    pub fn reopen(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
        store.close().unwrap();
        self.restart_volume();
        let spec = StoreSpec {
            create: false,
            ..self.main()
        };
        self.volume.open(&spec).unwrap()
    }
}

/// Commits a batch as written as the store can.
fn commit(store: &dyn Store, batch: &[weir_core::change::Write<'_>]) {
    store.commit(batch, Durability::Written).unwrap();
}
