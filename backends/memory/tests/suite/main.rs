//! The suite itself, on a simulated disk: its persistent part passes where nothing is wrong, and each
//! flaw that a backend could have is found by the test that promises to find it.

#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps and fails says where"
)]

mod disk;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use disk::{Disk, Flaw};
use weir_backend_api::{
    conformance::{Site, admission, faults, history, lifecycle, ranges, records, run, tables},
    fault::{Faults, Faulty},
};

mod flawless {
    use super::{Disk, Path};

    weir_backend_api::conformance!(|_: &Path| Disk::flawless());
}

mod behind_faults_that_never_come {
    use super::{Disk, Faults, Faulty, Path};

    weir_backend_api::conformance!(|_: &Path| Faulty::new(Disk::flawless(), Faults::new()));
}

/// A test of the suite.
type Test = fn(&mut Site);

/// The tests that find a flaw.
fn check(flaw: Flaw, tests: &[(&str, Test)]) {
    for (name, test) in tests {
        let finds = || {
            let verdict = catch_unwind(AssertUnwindSafe(|| {
                run(move |_: &Path| Disk::new(Some(flaw)), test);
            }));
            verdict.is_err()
        };
        // A test that draws its cases at random may miss a flaw in one draw, hardly in ten.
        let found = (0..10).any(|_| finds());
        assert!(found, "{name} passes in spite of {flaw:?}");
    }
}

macro_rules! tests {
    ($($module:ident::$name:ident),* $(,)?) => {
        &[$((stringify!($name), $module::$name as Test)),*]
    };
}

#[test]
fn a_lost_commit_is_found() {
    check(
        Flaw::LosesLastCommitOfADeadProcess,
        tests![
            lifecycle::a_drop_without_close_loses_nothing,
            faults::doubts_and_crashes_lose_nothing,
            faults::a_crash_at_any_write_loses_nothing,
        ],
    );
}

#[test]
fn a_torn_batch_is_found() {
    check(
        Flaw::TearsLastCommitOfADeadProcess,
        tests![
            lifecycle::a_drop_without_close_loses_nothing,
            faults::doubts_and_crashes_lose_nothing,
            faults::a_crash_at_any_write_loses_nothing,
        ],
    );
    check(
        Flaw::CommitsInTwoParts,
        tests![ranges::readers_see_whole_batches],
    );
}

#[test]
fn a_snapshot_that_moves_is_found() {
    check(
        Flaw::SnapshotsMove,
        tests![
            ranges::a_snapshot_is_one_moment,
            history::a_snapshot_of_history_is_one_moment,
        ],
    );
}

#[test]
fn rows_that_are_lost_are_found() {
    check(
        Flaw::ForgetsJournalRows,
        tests![
            tables::tables_keep_their_rows,
            admission::any_order_ends_alike,
            admission::the_memory_comes_back,
        ],
    );
    check(
        Flaw::ForgetsTombstones,
        tests![
            records::keeps_tombstones_and_folded_heads,
            lifecycle::counts_keys,
            admission::any_order_ends_alike,
        ],
    );
    check(
        Flaw::DropsHistoryThatComesLate,
        tests![
            history::history_takes_each_version_once,
            admission::any_order_ends_alike_with_history,
        ],
    );
}

#[test]
fn changed_bytes_are_found() {
    check(
        Flaw::DropsEmptyAttachments,
        tests![records::keeps_values_byte_for_byte],
    );
    check(
        Flaw::FoldsCase,
        tests![
            records::keeps_every_key,
            ranges::scans_ranges_in_both_directions
        ],
    );
    check(
        Flaw::LeavesOutTheLastOfARange,
        tests![
            ranges::scans_ranges_in_both_directions,
            ranges::scans_are_independent,
            history::history_is_read_by_key_and_version,
        ],
    );
}

#[test]
fn wrong_answers_of_a_volume_are_found() {
    check(
        Flaw::OpensTwice,
        tests![lifecycle::a_second_open_is_refused],
    );
    check(
        Flaw::CreatesUnasked,
        tests![lifecycle::an_absent_store_is_an_error],
    );
    check(
        Flaw::KeepsWhatItShouldDestroy,
        tests![lifecycle::destroys_on_close],
    );
    check(
        Flaw::WritesThoughReadOnly,
        tests![lifecycle::read_only_refuses_writes],
    );
    check(
        Flaw::SaysSynced,
        tests![lifecycle::says_how_durable_a_commit_is],
    );
}

#[test]
fn a_batch_out_of_order_is_found() {
    check(
        Flaw::AppliesBackwards,
        tests![
            records::the_last_write_of_a_batch_wins,
            tables::tables_keep_their_rows,
        ],
    );
}
