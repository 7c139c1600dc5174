//! Which store a shard is kept in.

use weir_backend_api::{Error, ErrorKind, Store, recover};
use weir_core::identity::Identity;

use super::Shard;

impl Shard {
    /// The store, as it was opened, while open.
    pub(crate) fn store_id(&self) -> Option<Identity> {
        self.open.as_ref()?.run
    }

    /// Tells this opening of the store from every other one. A full disk must not keep anybody from
    /// reading: then the run of before goes on, and a copy that is put back is known by its position alone.
    pub(super) fn begin_run(&self, store: &dyn Store) -> Result<Option<Identity>, Error> {
        if self.plan.spec.read_only {
            return Ok(None);
        }
        let chance = u128::from_le_bytes(uhlc::ID::rand().to_le_bytes());
        match recover::begin_run(store, chance) {
            Ok(run) => Ok(Some(run)),
            Err(error) if error.kind() == ErrorKind::Full => recover::identity(store),
            Err(error) => Err(error),
        }
    }
}
