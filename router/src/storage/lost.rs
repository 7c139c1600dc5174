//! What links have told that they lost on the way to a storage: stretches of time of which something will
//! never come. Remembered with the storage, so that whoever reads it can know of the hole.

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use weir_core::{change::Table, version::Stamp};

use super::{
    Storage,
    queue::{Manners, Pushed},
    worker::Handed,
};

/// Before the names of the rows.
const PREFIX: &[u8] = b"lost/";
/// How many are shown.
const SHOWN_MAX: usize = 1_000;

/// A stretch of one source's time of which a link has lost something.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Lost {
    /// The link's router.
    pub router: String,
    /// The link.
    pub link: String,
    /// Who had stamped what was lost: the id of an HLC.
    pub source: String,
    /// From when on (RFC 3339).
    pub from: String,
    /// Until when (RFC 3339, exclusive).
    pub to: String,
    /// How many records.
    pub records: u64,
    /// Why.
    pub cause: String,
}

/// The id of an HLC as Zenoh writes it.
pub(crate) fn source(id: weir_core::forward::Source) -> String {
    let stamp = Stamp { time: 0, id };
    stamp
        .to_uhlc()
        .map_or_else(|| "0".to_owned(), |stamp| stamp.get_id().to_string())
}

impl Storage {
    /// Remembers what a link has lost, instead of what was remembered of the same stretches; it is as
    /// durable as a change when this returns.
    ///
    /// # Errors
    /// If the storage takes nothing now.
    pub(crate) async fn remember_lost(&self, all: &[Lost]) -> Result<(), String> {
        if all.is_empty() {
            return Ok(());
        }
        let row = |lost: &Lost| {
            let name = [
                &*lost.router,
                &lost.link,
                &lost.source,
                &lost.from,
                &lost.cause,
            ]
            .join("/");
            let value = serde_json::to_vec(lost).map_err(|error| error.to_string())?;
            Ok(([PREFIX, name.as_bytes()].concat(), value))
        };
        let rows = all.iter().map(row).collect::<Result<Vec<_>, String>>()?;
        let (done, outcome) = oneshot::channel();
        let manners = Manners {
            block: false,
            hurry: true,
            bytes: 0,
        };
        if self.queue.push(Handed::Lost { rows, done }, manners) == Pushed::Dropped {
            return Err("the queue is full".to_owned());
        }
        match outcome.await {
            Ok(true) => Ok(()),
            Ok(false) => Err("the store failed".to_owned()),
            Err(_) => Err("the storage was closed".to_owned()),
        }
    }

    /// What links have lost, as far as is remembered and can be read now. Reads a few rows.
    pub(crate) fn lost(&self) -> Vec<Lost> {
        let Some(reader) = self.readers.first().and_then(|reader| reader.get()) else {
            return Vec::new();
        };
        let rows = reader.store.rows(Table::System, PREFIX, SHOWN_MAX);
        let ours = rows.unwrap_or_default().into_iter();
        ours.take_while(|(name, _)| name.starts_with(PREFIX))
            .filter_map(|(_, value)| serde_json::from_slice(&value).ok())
            .collect()
    }
}
