//! The yardstick of the benchmarks: a subscriber inside the router that only counts.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use anyhow::Result;
use zenoh::Wait;

use crate::session::{Bus, Service, Subscription};

/// Counts what comes on a key expression and answers the count on `@weir/bench/count`.
pub(crate) async fn count(bus: &Bus, expr: &str) -> Result<(Subscription, Service)> {
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let subscription = bus.declare_subscriber(expr, move |_| {
        counted.fetch_add(1, Relaxed);
    });
    let serving = bus.declare_queryable("@weir/bench/count", true, move |query| {
        let sent = query
            .reply("@weir/bench/count", count.load(Relaxed).to_string())
            .wait();
        if let Err(error) = sent {
            tracing::debug!(%error, "the count could not be sent");
        }
    });
    Ok((subscription.await?, serving.await?))
}
