//! From settings to what is built of them.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use weir_backend_api::{Durability, StoreSpec, Volume};
use weir_backend_filesystem::FilesystemVolume;
use weir_backend_influxdb::{Closure, Fields, Generation, InfluxSettings, InfluxVolume};
use weir_backend_memory::MemoryVolume;
use weir_backend_rocksdb::{RocksdbSettings, RocksdbVolume};
use weir_core::{
    admission::{History, Rules},
    keyspace::KeySpace,
};
use weir_settings::{Backend, InfluxVersion, ShardSettings, StorageSettings, Timestamps};

use crate::{
    convert,
    storage::{Plan, Upkeep, shard},
};

/// Heads that a shard remembers, at 120 bytes each and twice as many at the most: the keys that a
/// fleet of a few hundred robots changes all the time.
const CACHE_KEYS: usize = 32_768;

/// One engine of each kind, shared by all storages.
pub(crate) struct Engines {
    memory: Arc<dyn Volume>,
    filesystem: Arc<dyn Volume>,
    rocksdb: Arc<dyn Volume>,
}

/// How long tombstones wait for a replica that is silent. What it still holds when it comes back after
/// all is set aside, not brought back.
const PATIENCE: Duration = Duration::from_secs(30 * 86_400);

impl Engines {
    /// Opens nothing.
    pub(crate) fn new() -> Self {
        Self {
            memory: Arc::new(MemoryVolume::new()),
            filesystem: Arc::new(FilesystemVolume::new()),
            rocksdb: Arc::new(RocksdbVolume::new(RocksdbSettings::default())),
        }
    }

    fn of(&self, backend: Backend) -> Arc<dyn Volume> {
        Arc::clone(match backend {
            Backend::Memory => &self.memory,
            Backend::Filesystem => &self.filesystem,
            // What the server does not hold lies in a database, too.
            Backend::RocksDb | Backend::InfluxDb => &self.rocksdb,
        })
    }

    /// The volume of a shard: one of ours, or a server's over one of ours.
    fn volume(&self, shard: &ShardSettings) -> anyhow::Result<Arc<dyn Volume>> {
        let local = self.of(shard.backend);
        let Some(influx) = &shard.influx else {
            return Ok(local);
        };
        Ok(Arc::new(InfluxVolume::new(
            influx_settings(influx)?,
            local,
        )?))
    }

    /// What a storage of the router with this id is built of.
    pub(crate) fn plan(&self, settings: &StorageSettings, router: &str) -> anyhow::Result<Plan> {
        let space = KeySpace::new(settings.strip_prefix.clone())?;
        let durability = match settings.durability {
            weir_settings::Durability::Written => Durability::Written,
            weir_settings::Durability::Synced => Durability::Synced,
        };
        let rules = Rules {
            history: settings.history,
            drift: convert::ntp64_span(settings.future_drift),
            age_max: settings.retain.age.map(convert::ntp64_span),
            cache_keys: CACHE_KEYS,
            resolves: false,
        };
        let shards = settings.shards.iter().enumerate();
        let shards = shards.map(|(index, shard)| -> anyhow::Result<_> {
            let several = settings.shards.len() > 1;
            let name = if several {
                format!("{}-{index}", settings.name)
            } else {
                settings.name.clone()
            };
            // A shard is known on the ring by its name, or else by its volume and place, so that it
            // keeps its keys when another is added.
            let dir = shard.dir.clone().unwrap_or_default();
            let place = if shard.is_named {
                shard.name.clone()
            } else {
                format!("{}:{}", shard.volume, dir.display())
            };
            let plan = shard::Plan {
                volume: self.volume(shard)?,
                spec: StoreSpec {
                    name: name.clone(),
                    dir,
                    // For a server it says whether to make a database there.
                    create: shard.create_db || shard.influx.is_some(),
                    read_only: settings.read_only,
                    history: settings.history == History::All,
                    destroy_on_close: false,
                },
                rules: rules.clone(),
                space: space.clone(),
                durability,
                spool: (settings.spool.dir.join(name), settings.spool.bytes_max),
                resolver: None,
                address: format!("{router}/{}", settings.name),
            };
            Ok((place, f64::from(shard.weight), plan))
        });
        let period = settings
            .garbage_collection
            .period
            .max(Duration::from_secs(1));
        let share = u64::try_from(settings.shards.len()).unwrap_or(1).max(1);
        Ok(Plan {
            name: settings.name.clone(),
            set: settings.keys.clone(),
            space: space.clone(),
            complete: settings.complete,
            read_only: settings.read_only,
            stamp: settings.timestamps == Timestamps::Stamp,
            queue_max: settings.queue_changes,
            upkeep: Upkeep {
                period: convert::ntp64_span(period),
                lifespan: convert::ntp64_span(settings.garbage_collection.lifespan),
                patience: convert::ntp64_span(PATIENCE),
                bytes_max: settings.retain.bytes.map(|bytes| bytes / share),
                versions_max: settings
                    .retain
                    .versions
                    .map(|versions| usize::try_from(versions).unwrap_or(usize::MAX)),
            },
            shard_by: settings.shard_by,
            shards: shards.collect::<anyhow::Result<_>>()?,
            labels: shard_labels(&settings.shards),
        })
    }
}

/// The server of a storage, as its backend is told. Reads the file of certificates, if there is one.
fn influx_settings(settings: &weir_settings::InfluxSettings) -> anyhow::Result<InfluxSettings> {
    let ca_pem =
        match &settings.ca_file {
            Some(file) => {
                let read = std::fs::read(file);
                Some(read.with_context(|| {
                    format!("cannot read the certificates in {}", file.display())
                })?)
            }
            None => None,
        };
    Ok(InfluxSettings {
        login: settings.login.clone(),
        token: settings.token.clone(),
        org: settings.org.clone(),
        ca_pem,
        generation: match settings.version {
            InfluxVersion::Auto => Generation::Auto,
            InfluxVersion::One => Generation::One,
            InfluxVersion::Two => Generation::Two,
            InfluxVersion::Three => Generation::Three,
        },
        fields: if settings.typed {
            Fields::Typed
        } else {
            Fields::Stock
        },
        create_db: settings.create_db,
        retention: settings.retention,
        closure: if settings.drop_db {
            Closure::DropDatabase
        } else {
            Closure::DropSeries
        },
        backlog_bytes_max: settings.backlog_bytes_max,
        ..InfluxSettings::new(&settings.url, &settings.db)
    })
}

/// What policies and the status call the shards: their names, or their places in the list where two
/// would have the same.
fn shard_labels(shards: &[ShardSettings]) -> Vec<String> {
    let is_unique = |shard: &ShardSettings| {
        let same = shards.iter().filter(|other| other.name == shard.name);
        same.count() == 1
    };
    let label = |(index, shard): (usize, &ShardSettings)| match &shard.name {
        name if is_unique(shard) => name.clone(),
        _ => index.to_string(),
    };
    shards.iter().enumerate().map(label).collect()
}
