//! What came of a mirrored history.

use super::contending::Contended;
use crate::coverage::counted;

counted! {
    /// How often the rare branches were reached.
    Reached {
        /// Records and operations that came by asking.
        fetched,
        /// Those that were sent unasked.
        pushed,
        /// Rounds that ended in step.
        in_step,
        /// Rounds that ended with a difference.
        differed,
        /// Rounds that ended early.
        failed,
        /// Packets that never arrived.
        lost,
        /// Packets that arrived more than once.
        repeated,
        /// Deaths during a commit.
        crashes,
        /// Commits in doubt.
        torn,
        /// Admissions of what a mirror sent that the store refused.
        refused,
        /// Disks put back from a copy.
        restored,
        /// Disks lost.
        wiped,
        /// Changes from the future.
        parked,
        /// Collections that forgot something.
        collected,
        /// Horizons taken over from a replica that has forgotten more.
        horizons,
        /// Values set aside that a replica has forgotten.
        forgotten,
        /// Stores that replicas were in step with and that others took the place of.
        replaced,
        /// Those that were noticed before they counted again.
        noticed,
        /// Stores opened again with everything in them, by what was told of them.
        known_again,
        /// Stores opened more than once before they were heard of.
        missed,
        /// Older copies that were noticed.
        seen_restored,
        /// Empty stores that were noticed.
        seen_wiped,
        /// Other stores that were noticed.
        seen_swapped,
        /// Copies in use that were noticed.
        seen_cloned,
        /// Questions that did not count, since the store was not the one that was known.
        doubted,
    }
}

/// What came of a history.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// A hash of everything that happened and of the final states.
    pub trace: u64,
    /// What was reached.
    pub reached: Reached,
    /// What was reached of resolving.
    pub contended: Contended,
}
