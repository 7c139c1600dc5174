//! Stores whose history is in InfluxDB: 1.x, 2.x and 3.x, over HTTP.
//!
//! A store is another store, on the router's own disk, and a server. The local store holds everything
//! but history: the latest records, the wildcard journal, every table. So the latest is answered as on
//! any backend, and nothing ever waits for the server but a reader of history. A version of a key is
//! a point in the server (`point`).
//!
//! ```text
//! commit --> local store: one batch, history and spool rows included      (durable: it counts)
//!                |
//!            shipper: 1,000 points a request, gzip --> server
//!                |    400: halve, set the bad one aside   413: halve
//!                |    429, 5xx, away: pause, for ever     401, 403, no database: not ready, go on asking
//!                v
//!            taken out of the local store
//!
//! history <-- local store (what waits) over server (pages)
//! ```
//!
//! With [`Fields::Typed`] a payload that is a number is the field `n`, too, and the members of a JSON
//! object are `n.NAME` (numbers), `b.NAME` (booleans) and `s.NAME` (texts), with `.` between the names
//! of objects in objects.
//!
//! Who writes to the same database by other means is not hindered: points without the fields of a
//! storage are not seen, and points of the stock backend are read as the versions that they are.

mod forget;
mod holds;
mod http;
mod keys;
mod name;
mod point;
mod query;
mod scan;
mod server;
mod settings;
mod shared;
mod shipper;
mod spool;
mod store;
mod text;
mod ties;
mod time;
mod typed;

use std::sync::Arc;

use weir_backend_api::{
    Capability, Durability, Error, ErrorKind, Result, Store, StoreSpec, Volume,
};

pub use settings::{Closure, Fields, Generation, InfluxSettings};

use crate::store::InfluxStore;

/// Opens stores whose history is on one server.
pub struct InfluxVolume {
    settings: InfluxSettings,
    local: Arc<dyn Volume>,
}

/// What a closed store can do.
const NOTHING: Capability = Capability {
    durability_max: Durability::Memory,
    history: true,
    persistent: false,
    exact_count: false,
};

impl InfluxVolume {
    /// A volume over another, which opens the stores on the router's own disk: it must keep history,
    /// and should be persistent, since what waits for the server is as durable as it is. Asks nobody
    /// yet.
    ///
    /// # Errors
    /// [`ErrorKind::Rejected`] if the settings cannot be right or `local` keeps no history.
    pub fn new(settings: InfluxSettings, local: Arc<dyn Volume>) -> Result<Self> {
        let rejected = |message: String| Error::new(ErrorKind::Rejected, message);
        server::Server::new(&settings, "any").map_err(rejected)?;
        if !local.capability().history {
            let kind = local.kind();
            return Err(rejected(format!(
                "{kind} keeps no history, so nothing can wait in it"
            )));
        }
        Ok(Self { settings, local })
    }
}

/// What a store can do over a local one that can do `local`.
const fn capability(local: Capability) -> Capability {
    Capability {
        history: true,
        ..local
    }
}

impl Volume for InfluxVolume {
    fn kind(&self) -> &'static str {
        "influxdb"
    }

    fn capability(&self) -> Capability {
        capability(self.local.capability())
    }

    fn open(&self, spec: &StoreSpec) -> Result<Box<dyn Store>> {
        Ok(Box::new(InfluxStore::open(
            &self.settings,
            &*self.local,
            spec,
        )?))
    }
}
