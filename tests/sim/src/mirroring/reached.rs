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
