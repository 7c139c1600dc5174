//! `/metrics`, `/livez` and `/readyz`, on an address of their own.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use axum::{
    Router,
    extract::{Query, State},
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use serde::Deserialize;

use crate::{
    admin, forward, mirror, policies,
    service::Service,
    session::{Bus, GetOptions},
    storage::Storage,
};

/// What the pages are made of.
#[derive(Clone)]
struct Shown {
    service: Arc<Service>,
    registry: Arc<Registry>,
    bus: Bus,
}

/// Binds the address and serves until the task that is returned is aborted.
pub(crate) async fn serve(
    address: SocketAddr,
    service: Arc<Service>,
    bus: Bus,
) -> Result<tokio::task::JoinHandle<()>> {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on http://{address} (set `http.listen`)"))?;
    let mut registry = Registry::with_prefix("weir");
    registry.register_collector(Box::new(Storages(Arc::clone(&service))));
    registry.register_collector(Box::new(mirror::Metrics(Arc::clone(&service))));
    if let Some(links) = service.links() {
        let metrics = forward::Metrics(Arc::clone(links));
        registry.register_collector(Box::new(metrics));
    }
    if let Some(policies) = service.policies() {
        let metrics = policies::Metrics(Arc::clone(policies));
        registry.register_collector(Box::new(metrics));
    }
    let shown = Shown {
        service,
        registry: Arc::new(registry),
        bus,
    };
    let pages = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(shown);
    Ok(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, pages).await {
            tracing::error!(%error, "the metrics server stopped");
        }
    }))
}

/// Ours in OpenMetrics text, then Zenoh's.
async fn metrics(State(shown): State<Shown>) -> impl IntoResponse {
    let mut text = String::new();
    if let Err(error) = encode(&mut text, &shown.registry) {
        return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
    }
    let text = text.trim_end_matches("# EOF\n").to_owned();
    let zenoh = zenoh_metrics(&shown)
        .await
        .unwrap_or_else(|| "# EOF\n".to_owned());
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text + &zenoh).into_response()
}

/// What Zenoh counts itself, from its admin space.
async fn zenoh_metrics(shown: &Shown) -> Option<String> {
    // As text: the handler packs it unless told otherwise.
    let key = format!(
        "@/{}/router/metrics?compression=false",
        shown.service.router()
    );
    let mut replies = shown.bus.get(&key, GetOptions::default()).await.ok()?;
    let reply = replies.next().await?;
    let text = reply
        .result()
        .ok()?
        .payload()
        .try_to_string()
        .ok()?
        .into_owned();
    Some(if text.ends_with("# EOF\n") {
        text
    } else {
        text + "# EOF\n"
    })
}

/// `verbose` says of each storage how it is.
#[derive(Deserialize)]
struct Readiness {
    verbose: Option<String>,
}

async fn readyz(State(shown): State<Shown>, query: Query<Readiness>) -> impl IntoResponse {
    let ready = admin::is_ready(&shown.service);
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut text = String::new();
    if query.verbose.is_some() {
        for storage in shown.service.storages() {
            let condition = storage.condition();
            let mark = if storage.is_well() { '+' } else { '-' };
            let server = storage.backlog().unwrap_or_default();
            let state = match (condition.current, condition.failed) {
                (true, _) => match server.last_error {
                    None => "up".to_owned(),
                    Some(why) => {
                        format!("up, {} changes wait for its server: {why}", server.changes)
                    }
                },
                (false, true) => "failed".to_owned(),
                (false, false) => {
                    let last = storage.counters.last_error.lock();
                    let why = last
                        .as_ref()
                        .map_or("catching up", |error| error.message.as_str());
                    format!("down, {} changes spooled: {why}", condition.spooled_changes)
                }
            };
            text.push_str(&format!("[{mark}] storage {}: {state}\n", storage.name));
        }
        for name in shown.service.not_open() {
            text.push_str(&format!("[-] storage {name}: opening\n"));
        }
        let links = shown.service.links().map(|links| links.conditions());
        for (name, state, is_well) in links.unwrap_or_default() {
            let mark = if is_well { '+' } else { '-' };
            text.push_str(&format!("[{mark}] link {name}: {state}\n"));
        }
    }
    text.push_str(if ready { "ready\n" } else { "not ready\n" });
    (status, text)
}

/// A figure of a storage: its name, what it says, and how it is read (nothing if it is unknown).
type Gauge = (&'static str, &'static str, fn(&Storage) -> Option<u64>);

/// The storages' figures, read when they are asked for.
struct Storages(Arc<Service>);

impl std::fmt::Debug for Storages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Storages")
    }
}

impl Collector for Storages {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let storages = self.0.storages();
        let totals: Vec<_> = storages
            .iter()
            .map(|storage| storage.counters.totals())
            .collect();
        let Some(first) = totals.first() else {
            return Ok(());
        };
        for (index, (name, help, _)) in first.each().enumerate() {
            let name = format!("storage_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            for (storage, totals) in storages.iter().zip(&totals) {
                let value = totals.each().nth(index).map_or(0, |total| total.2);
                let labels = [("storage", storage.name.as_str())];
                ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        let gauges: [Gauge; 9] = [
            ("storage_keys", "keys held, tombstones included", |s| {
                s.count().map(|c| c.keys)
            }),
            ("storage_stored_bytes", "bytes that the stores take", |s| {
                s.count().map(|c| c.bytes)
            }),
            ("storage_queued", "changes in the queue", |s| {
                Some(s.queued() as u64)
            }),
            (
                "storage_spool_changes",
                "changes that wait in spools",
                |s| Some(s.condition().spooled_changes),
            ),
            ("storage_spool_bytes", "bytes of spools", |s| {
                Some(s.condition().spooled_bytes)
            }),
            (
                "storage_up",
                "1 if every store is up and nothing waits",
                |s| Some(u64::from(s.condition().current)),
            ),
            (
                "storage_server_up",
                "1 if the server that keeps the history takes what it is given",
                |s| Some(u64::from(s.backlog()?.last_error.is_none())),
            ),
            (
                "storage_server_waiting_changes",
                "changes that wait for the server that keeps the history",
                |s| Some(s.backlog()?.changes),
            ),
            (
                "storage_server_waiting_bytes",
                "bytes that they take here",
                |s| Some(s.backlog()?.bytes),
            ),
        ];
        for (name, help, gauge) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for storage in &storages {
                let Some(value) = gauge(storage) else {
                    continue;
                };
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                let labels = [("storage", storage.name.as_str())];
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
