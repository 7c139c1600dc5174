//! What was set aside is dropped, or put again.

use weir_core::{
    change::{KeptChange, Write},
    version::Stamp,
};

use super::{Aside, Worker};
use crate::storage::offer::{self, Offer};

impl Worker {
    /// Drops what was set aside, or puts it again under new timestamps; answers how many there were.
    pub(super) fn empty_table(&mut self, aside: &Aside) -> Result<u64, String> {
        const AT_ONCE: usize = 1_024;
        let failed = |error: std::io::Error| error.to_string();
        // What the store can never hold comes back to the table, under its new stamp: it is left there.
        let first = match aside.release {
            true => Some(self.clock.stamp().map_err(failed)?),
            false => None,
        };
        let came_back = |key: &[u8]| {
            let stamp = Stamp::from_bytes(key.get(..Stamp::LEN).unwrap_or_default());
            let given = |stamp: Stamp| first.is_some_and(|f| stamp.id == f.id && stamp >= f);
            stamp.is_some_and(given)
        };
        let mut count = 0;
        for index in 0..self.shards.len() {
            let mut from = Vec::new();
            loop {
                let now = self.clock.now();
                let shard = &mut self.shards[index];
                let Some((store, _)) = shard.parts() else {
                    return Err("the store is down".into());
                };
                let rows = store
                    .rows(aside.table, &from, AT_ONCE)
                    .map_err(|error| error.to_string())?;
                let Some((last, _)) = rows.last() else {
                    break;
                };
                from.clone_from(last);
                from.push(0);
                let mut again = Vec::with_capacity(rows.len());
                let mut writes = Vec::with_capacity(rows.len());
                for (key, row) in rows {
                    if came_back(&key) {
                        continue;
                    }
                    if aside.release {
                        // What a later version has written is left for that one.
                        let Some(mut op) = KeptChange::decode(&row.into()) else {
                            continue;
                        };
                        let stamp = self.clock.stamp().map_err(failed)?;
                        offer::set_stamp(&mut op, stamp);
                        again.push(Offer::silent(op));
                    }
                    writes.push(Write::Row {
                        table: aside.table,
                        key,
                        value: None,
                    });
                }
                if writes.is_empty() {
                    continue;
                }
                // First it is put again, then it is no longer aside: never neither.
                shard.offer(now, &mut again);
                count += writes.len() as u64;
                if shard.is_holding() || !shard.maintain(now, writes) {
                    return Err("the store failed".into());
                }
            }
        }
        Ok(count)
    }
}
