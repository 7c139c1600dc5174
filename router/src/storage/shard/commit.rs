//! One batch into the store, and into the ledger.

use weir_backend_api::{Durability, Error, Store};
use weir_core::{
    change::{Admission, Write},
    version::Stamp,
};

use super::Open;
use crate::storage::offer::{self, Offer};

/// Commits a sealed batch that changes nothing of how records are seen, and tells the ledger.
pub(super) fn commit(
    open: &Open,
    mut writes: Vec<Write<'_>>,
    durability: Durability,
) -> Result<Durability, Error> {
    open.ledger
        .note(&mut writes, open.admitter.newest_at_begin());
    let reached = write(&**open.store, &writes, durability);
    open.ledger.settle(reached.is_ok());
    reached
}

/// Commits a batch. If there is nothing to write, what was held already is made as durable as asked.
pub(super) fn write(
    store: &dyn Store,
    writes: &[Write<'_>],
    durability: Durability,
) -> Result<Durability, Error> {
    let most = store.capability().durability_max;
    if !writes.is_empty() {
        store.commit(writes, durability)
    } else if durability == Durability::Synced && most == Durability::Synced {
        store.sync()
    } else {
        Ok(durability.min(most))
    }
}

/// It is unknown what was written, and the batch will be offered again. An unstamped delete must then
/// mean what it meant now, not what was put behind it since.
pub(super) fn keep_meaning<'a>(
    offers: &mut [Offer],
    admissions: impl Iterator<Item = &'a Admission>,
) {
    for (offer, admission) in offers.iter_mut().zip(admissions) {
        if offer::stamp_of(&offer.op).is_none() {
            let version = admission.version();
            let stamp = version.map_or(Stamp::ZERO, |version| version.stamp);
            offer::set_stamp(&mut offer.op, stamp);
        }
    }
}
