//! What came of a forwarded history.

use crate::coverage::counted;

counted! {
    /// How often the rare branches were reached.
    Reached {
        /// Stretches that were certified.
        certified,
        /// Stretches that differed and were cut, between seconds.
        cut,
        /// The same, within a second.
        cut_finely,
        /// Questions about ids.
        listed,
        /// Questions about the newest of each key.
        heads,
        /// Questions about operations.
        operations,
        /// Certificates of parts while the rest was being shipped.
        ripe,
        /// Looks at what came while the rest was being shipped.
        tail,
        /// Parcels that were stored.
        stored,
        /// Questions and parcels that were sent again.
        retried,
        /// Rounds that failed.
        faulted,
        /// Links that went down, or were told that the upstream is another one.
        gone,
        /// Answers that an upstream can take nothing now.
        credit,
        /// Samples of a second that was certified already.
        late,
        /// Packets that never arrived.
        lost,
        /// Packets that arrived more than once.
        repeated,
        /// Parcels that were stored more than once.
        parcel_again,
        /// Upstreams that died or were in doubt during a commit.
        crashes,
        /// Of those, at a parcel.
        crash_at_parcel,
        /// Commits that the store of an upstream refused.
        refused,
        /// Upstreams put back from a copy.
        restored,
        /// Upstreams that were replaced by an empty one.
        wiped,
        /// Edges that died.
        edge_died,
        /// Samples that were not synced then.
        unsynced,
        /// Samples that a policy dropped.
        dropped,
        /// Samples given up by a full outbox.
        given_up,
        /// Known-lost intervals that an upstream has noted.
        noted,
        /// Samples that expired.
        expired,
        /// Samples from the future.
        parked,
        /// Reads of a journal that failed.
        unreadable,
        /// Upstreams that were owed everything.
        owed_all,
        /// Samples that waited and were put into another lane.
        ranked,
        /// The same, while they were being shipped.
        ranked_in_drain,
        /// Samples that were shipped in vain.
        superfluous,
    }
}

/// What came of a history.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// A hash of everything that happened and of the final states.
    pub trace: u64,
    /// What was reached.
    pub reached: Reached,
}
