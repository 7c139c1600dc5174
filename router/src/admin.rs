//! What the router shows of its storages: on Zenoh's own admin keys, on `@weir/<id>/...`, and what
//! can be done there.
//!
//! | key | answer |
//! | --- | --- |
//! | `@/<id>/router/status/plugins/storage_manager/{version,volumes/*,storages/*,refusals/**}` | as the stock storage manager's, with more in it |
//! | `@weir/<id>/status` | the router |
//! | `@weir/<id>/storages/<name>` | one storage |
//! | `@weir/<id>/forward/<name>` | one link, its journal and its upstreams |
//! | `@weir/<id>/policies` | the policies' directory |
//! | `@weir/<id>/policies/<name>` | one policy and where it serves |
//! | `@weir/<id>/storages/<name>/{parked,quarantine}` | what was set aside; with `_purge` it is dropped, with `_release` it is put again under a new timestamp |

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use weir_backend_api::{Count, Durability};
use weir_core::change::{KeptChange, Table};
use zenoh::{
    Wait,
    bytes::Encoding,
    key_expr::{KeyExpr, keyexpr},
    query::Query,
};

use crate::{
    policies,
    query::durability_name,
    service::Service,
    storage::{Aside, Storage, offer::stamp_of, total},
};

/// How many changes that were set aside are listed in one answer.
const LISTED_MAX: usize = 1_000;

/// What may be done on `@weir/...`: as for Zenoh's own admin space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permissions {
    /// Show.
    pub read: bool,
    /// Purge and release.
    pub write: bool,
}

/// The entries under the plugin's status key, by relative path.
pub(crate) fn stock_status(service: &Service) -> Vec<(String, Value)> {
    let mut entries = vec![("version".to_owned(), json!(env!("CARGO_PKG_VERSION")))];
    for (name, volume) in service.volumes() {
        let status = json!({ "backend": volume.backend.name(), "dir": volume.dir });
        entries.push((format!("volumes/{name}"), status));
        entries.push((format!("volumes/{name}/__path__"), json!("__static_lib__")));
    }
    for storage in service.storages() {
        entries.push((
            format!("storages/{}", storage.name),
            storage_status(service, &storage),
        ));
    }
    for name in service.not_open() {
        entries.push((format!("storages/{name}"), json!({ "state": "opening" })));
    }
    for (path, refusal) in service.refusals() {
        entries.push((format!("refusals/{path}"), json!(refusal)));
    }
    entries
}

/// One storage.
pub(crate) fn storage_status(service: &Service, storage: &Storage) -> Value {
    let condition = storage.condition();
    let totals = storage.counters.totals();
    let counts: Vec<_> = storage.counts().collect();
    let count = total(counts.iter().map(|(_, count)| *count));
    let durability = service
        .storage(&storage.name)
        .map(|(_, settings)| settings.durability);
    let durability = match durability {
        Some(weir_settings::Durability::Synced) => Durability::Synced,
        _ => Durability::Written,
    };
    let rates = storage.rates();
    json!({
        "name": storage.name,
        "state": if condition.failed { "failed" } else if storage.is_well() { "up" } else { "down" },
        "key_expr": storage.set.declared().iter().map(|expr| expr.as_str()).collect::<Vec<_>>(),
        "strip_prefix": storage.space.prefix().map(|prefix| prefix.as_str()),
        "complete": storage.complete,
        "history": if storage.history == weir_core::admission::History::All { "all" } else { "latest" },
        "durability": durability_name(durability.min(storage.capability.durability_max)),
        "keys": count.map(|count| count.keys),
        "keys_exact": storage.capability.exact_count,
        "shards": shards(&counts),
        "stores": stores(storage),
        "bytes": count.map(|count| count.bytes),
        "queued": storage.queued(),
        "spooled_changes": condition.spooled_changes,
        "spooled_bytes": condition.spooled_bytes,
        "server": storage.backlog().map(|backlog| json!({
            "ready": backlog.ready,
            "waiting_changes": backlog.changes,
            "waiting_bytes": backlog.bytes,
            "sent": backlog.shipped,
            "refused": backlog.refused,
            "expired": backlog.expired,
            "last_error": backlog.last_error,
        })),
        "jobs": condition.jobs,
        "ingest_per_s": rates.ingest,
        "queries_per_s": rates.queries,
        "totals": totals,
        "mirrors": service.mirrors().map(|mirrors| mirrors.of(&storage.name)),
        "lost": storage.lost(),
        "last_error": storage.counters.last_error.lock().clone(),
    })
}

/// How much each shard holds, by name.
fn shards(counts: &[(&str, Option<Count>)]) -> Value {
    let shown = counts.iter().map(|(label, count)| {
        let count = json!({
            "keys": count.map(|count| count.keys),
            "bytes": count.map(|count| count.bytes),
        });
        ((*label).to_owned(), count)
    });
    Value::Object(shown.collect())
}

/// Which store each shard is kept in, by the shard's name.
fn stores(storage: &Storage) -> Value {
    let shown = storage.stores().map(|(label, store)| {
        let store = store.map(|store| {
            json!({
                "id": format!("{:016x}", store.id),
                "incarnation": store.incarnation,
                "position": store.position,
            })
        });
        (label.to_owned(), json!(store))
    });
    Value::Object(shown.collect())
}

/// The router.
pub(crate) fn router_status(service: &Service) -> Value {
    let storages = service.storages();
    let down: Vec<&str> = storages
        .iter()
        .filter(|storage| !storage.is_well())
        .map(|storage| storage.name.as_str())
        .collect();
    json!({
        "router": service.router(),
        "version": env!("CARGO_PKG_VERSION"),
        "zenoh": zenoh::GIT_VERSION,
        "storages": storages.len(),
        "links": service.links().map_or(0, |links| links.names().count()),
        "down": down,
        "opening": service.not_open(),
        "ready": is_ready(service),
    })
}

/// Whether every storage is open and keeps up.
pub(crate) fn is_ready(service: &Service) -> bool {
    let storages = service.storages();
    service.is_attached()
        && service.not_open().is_empty()
        && storages.iter().all(|storage| storage.is_well())
        && service.links().is_none_or(|links| links.are_well())
}

/// Answers a query on `@weir/<id>/**`. Runs on a thread that may block.
pub(crate) fn answer(service: &Arc<Service>, permissions: Permissions, query: &Query) {
    if !permissions.read {
        return refuse(query, "adminspace.permissions.read is off");
    }
    let root = format!("@weir/{}", service.router());
    let mut entries = vec![(format!("{root}/status"), router_status(service))];
    for storage in service.storages() {
        let key = format!("{root}/storages/{}", storage.name);
        for (name, table) in [("parked", Table::Parked), ("quarantine", Table::Quarantine)] {
            let key = format!("{key}/{name}");
            if !asks_for(query, &key) {
                continue;
            }
            match aside(&storage, table, permissions, query) {
                Ok(value) => entries.push((key, value)),
                Err(why) => refuse(query, &why),
            }
        }
        if asks_for(query, &key) {
            entries.push((key, storage_status(service, &storage)));
        }
    }
    if let Some(links) = service.links() {
        for name in links.names() {
            let key = format!("{root}/forward/{name}");
            if asks_for(query, &key)
                && let Some(status) = links.status(name)
            {
                entries.push((key, status));
            }
        }
    }
    if let Some(policies) = service.policies()
        && asks_for(query, &format!("{root}/policies/**"))
    {
        let shown = policies::status(policies).into_iter();
        entries.extend(shown.map(|(key, value)| (format!("{root}/{key}"), value)));
    }
    for (key, value) in entries.into_iter().filter(|(key, _)| asks_for(query, key)) {
        let Ok(key) = KeyExpr::new(key) else { continue };
        let sent = query
            .reply(key, value.to_string())
            .encoding(Encoding::APPLICATION_JSON)
            .wait();
        if let Err(error) = sent {
            tracing::debug!(%error, "a status could not be sent");
            return;
        }
    }
}

/// Lists, purges or releases what was set aside.
fn aside(
    storage: &Storage,
    table: Table,
    permissions: Permissions,
    query: &Query,
) -> Result<Value, String> {
    let parameters = query.parameters();
    let (purge, release) = (
        parameters.contains_key("_purge"),
        parameters.contains_key("_release"),
    );
    if !purge && !release {
        return list(storage, table);
    }
    if !permissions.write {
        return Err("adminspace.permissions.write is off".to_owned());
    }
    let (done, outcome) = std::sync::mpsc::channel();
    storage.set_aside(Aside {
        table,
        release,
        done,
    })?;
    let count = outcome
        .recv_timeout(Duration::from_secs(30))
        .map_err(|_| "the storage did not answer in time".to_owned())??;
    Ok(if release {
        json!({ "released": count })
    } else {
        json!({ "purged": count })
    })
}

fn list(storage: &Storage, table: Table) -> Result<Value, String> {
    let mut changes = Vec::new();
    let mut more = false;
    for reader in storage.readers() {
        let Some(reader) = reader.get() else {
            return Err("the store is down".to_owned());
        };
        let rows = reader
            .store
            .rows(table, &[], LISTED_MAX)
            .map_err(|error| error.to_string())?;
        more |= rows.len() == LISTED_MAX;
        changes.extend(
            rows.into_iter()
                .filter_map(|(_, row)| KeptChange::decode(&row.into())),
        );
    }
    let changes: Vec<Value> = changes
        .iter()
        .map(|op| {
            let (key, value) = match op {
                KeptChange::Key(change) => {
                    let mut full = String::new();
                    storage.space.full(&change.key, &mut full);
                    (full, change.value.as_ref())
                }
                KeptChange::Wildcard(change) => (change.expr.to_string(), change.value.as_ref()),
            };
            json!({
                "key": key,
                "kind": if value.is_some() { "put" } else { "delete" },
                "timestamp": stamp_of(op).map(|stamp| stamp.to_string()),
                "bytes": value.map_or(0, weir_core::value::Value::len),
            })
        })
        .collect();
    Ok(json!({ "changes": changes, "more": more }))
}

fn asks_for(query: &Query, key: &str) -> bool {
    keyexpr::new(key).is_ok_and(|key| query.key_expr().intersects(key))
}

fn refuse(query: &Query, why: &str) {
    if let Err(error) = query.reply_err(why).encoding(Encoding::TEXT_PLAIN).wait() {
        tracing::debug!(%error, "a refusal could not be sent");
    }
}
