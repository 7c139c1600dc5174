//! A store: the local store, the server, and the thread between them.

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::Instant,
};

use weir_backend_api::{
    Backlog, Capability, Count, Direction, Durability, Error, ErrorKind, Result, Rows, Snapshot,
    Store, StoreSpec, Volume,
};
use weir_core::{
    change::{Table, Write},
    key::{Key, KeyRange},
    record::{Head, Record},
    version::Version,
};

use crate::{
    scan::Scan,
    server::Server,
    settings::InfluxSettings,
    shared::Shared,
    shipper::Shipper,
    spool::{self, Spool},
};

/// A store whose history is on a server.
pub(crate) struct InfluxStore {
    /// Only ever shared with the shipper, and by it only for moments. An option, because closing
    /// takes it out.
    local: Option<Arc<Box<dyn Store>>>,
    shared: Arc<Shared>,
    read_only: bool,
    destroy_on_close: bool,
}

impl InfluxStore {
    pub(crate) fn open(
        settings: &InfluxSettings,
        volume: &dyn Volume,
        spec: &StoreSpec,
    ) -> Result<Self> {
        let server = Server::new(settings, &spec.name)
            .map_err(|message| Error::new(ErrorKind::Rejected, message))?;
        let local = volume.open(&StoreSpec {
            // What waits for the server is history there.
            history: true,
            ..spec.clone()
        })?;
        let spool = Spool::load(&*local)?;
        if spool.entries > 0 {
            tracing::info!(store = %spec.name, changes = spool.entries, "changes wait for InfluxDB since the last run");
        }
        let shared = Arc::new(Shared::new(&spec.name, server, settings.clone(), spool));
        let store = Self {
            local: Some(Arc::new(local)),
            shared: Arc::clone(&shared),
            read_only: spec.read_only,
            destroy_on_close: spec.destroy_on_close,
        };
        if !spec.read_only {
            let shipper = Shipper {
                shared,
                local: store.local.as_ref().map(Arc::downgrade).unwrap_or_default(),
                done: 0,
            };
            let thread = thread::Builder::new().name(format!("influxdb {}", spec.name));
            thread.spawn(move || shipper.run()).map_err(|error| {
                Error::io("cannot start a thread that writes to InfluxDB", error)
            })?;
        }
        Ok(store)
    }

    fn local(&self) -> Result<&dyn Store> {
        let local = self.local.as_ref();
        let local = local.ok_or_else(|| Error::new(ErrorKind::Closed, "the store is closed"))?;
        Ok(&***local)
    }
}

impl Store for InfluxStore {
    fn capability(&self) -> Capability {
        self.local().map_or(crate::NOTHING, |local| {
            crate::capability(local.capability())
        })
    }

    fn heads(&self, keys: &[&Key]) -> Result<Vec<Option<Head>>> {
        self.local()?.heads(keys)
    }

    fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.local()?.get(key)
    }

    fn commit(&self, batch: &[Write<'_>], durability: Durability) -> Result<Durability> {
        let local = self.local()?;
        if self.read_only {
            // It says why.
            return local.commit(batch, durability);
        }
        let mut spool = self.shared.spool.lock();
        let mut plan = spool.plan(local, batch, self.shared.settings.backlog_bytes_max)?;
        let before = spool.next;
        let reached = local.commit(&plan.writes, durability)?;
        spool.planned(&mut plan);
        if spool.next > before {
            self.shared.newest.store(spool.next - 1, Ordering::Release);
            self.shared.wake.notify_one();
        }
        Ok(reached)
    }

    fn sync(&self) -> Result<Durability> {
        self.local()?.sync()
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        // Held first, then taken: what comes between is seen, and waits.
        let hold = Hold::new(&self.shared);
        let local = self.local()?.snapshot()?;
        Ok(Box::new(InfluxSnapshot { local, hold }))
    }

    fn rows(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let local = self.local()?;
        if table != Table::Spool {
            return local.rows(table, from, limit);
        }
        let rows = local.rows(table, &spool::user_row(from), limit)?;
        let own = rows.into_iter().filter_map(|(row, value)| {
            let row = spool::of_user_row(&row)?;
            Some((row.to_vec(), value))
        });
        Ok(own.collect())
    }

    fn count(&self) -> Result<Count> {
        self.local()?.count()
    }

    fn backlog(&self) -> Option<Backlog> {
        Some(self.shared.backlog())
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        self.shared.end();
        let Some(local) = self.local.take() else {
            return Ok(());
        };
        let closed = match Arc::try_unwrap(local) {
            Ok(local) => local.close(),
            Err(local) => local.sync().map(drop),
        };
        if self.destroy_on_close {
            self.shared.destroy().map_err(|trouble| {
                let message = format!("cannot remove what InfluxDB holds: {}", trouble.message());
                Error::new(ErrorKind::Unavailable, message)
            })?;
        }
        closed
    }
}

impl Drop for InfluxStore {
    fn drop(&mut self) {
        self.shared.end();
    }
}

/// What keeps the server as it was for a snapshot.
struct Hold<'a> {
    shared: &'a Shared,
    number: u64,
}

impl<'a> Hold<'a> {
    fn new(shared: &'a Shared) -> Self {
        let mut holds = shared.holds.lock();
        let newest = shared.newest.load(Ordering::Acquire);
        let number = holds.open(newest, Instant::now());
        Self { shared, number }
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.shared.holds.lock().close(self.number);
        self.shared.wake.notify_one();
    }
}

/// The local store at one moment, and the server held back at it.
struct InfluxSnapshot<'a> {
    local: Box<dyn Snapshot + 'a>,
    hold: Hold<'a>,
}

impl Snapshot for InfluxSnapshot<'_> {
    fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.local.get(key)
    }

    fn latest<'s>(&'s self, range: &KeyRange, direction: Direction) -> Rows<'s> {
        self.local.latest(range, direction)
    }

    fn history<'s>(
        &'s self,
        range: &KeyRange,
        versions: Option<(Version, Version)>,
        direction: Direction,
    ) -> Rows<'s> {
        let local = self.local.history(range, versions, direction);
        let server = &self.hold.shared.server;
        Box::new(Scan::new(local, server, range, versions, direction))
    }
}
