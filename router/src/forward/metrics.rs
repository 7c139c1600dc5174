//! The links' figures, read when they are asked for.

use std::sync::Arc;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use weir_core::forward::link::State;
use weir_journal::{LaneStatus, Status};

use super::{Links, host::Host, show::Figures};
use crate::mirror::hello::Address;

/// The links' figures.
pub(crate) struct Metrics(pub(crate) Arc<Links>);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("forward::Metrics")
    }
}

/// A figure: its name, what it says, and how it is read.
type Figure<S, T> = (&'static str, &'static str, fn(&S) -> T);

/// A link at one moment.
struct Seen {
    name: String,
    host: Arc<Host>,
    status: Status,
    upstreams: Vec<(Address, Arc<Figures>)>,
}

const LINK_COUNTERS: [Figure<Seen, u64>; 4] = [
    (
        "rejected",
        "samples that were not kept because there was no room, or no journal",
        |seen| sum(seen, |lane| lane.rejected) + seen.host.journal.rejected(),
    ),
    (
        "overrun",
        "samples that were not kept because the queue was full and they did not ask to wait",
        |seen| seen.host.overrun(),
    ),
    (
        "ranked",
        "samples that waited and were decided again, after another policy",
        |seen| seen.status.ranked.decided,
    ),
    (
        "ranked_moved",
        "samples of these that wait in another lane since",
        |seen| seen.status.ranked.moved,
    ),
];

const LINK_GAUGES: [Figure<Seen, f64>; 5] = [
    ("up", "1 if every upstream has what waits", |seen| {
        f64::from(u8::from(seen.host.state() == State::Up))
    }),
    ("poisoned", "1 if nothing is kept", |seen| {
        f64::from(u8::from(seen.host.journal.broken().is_some()))
    }),
    ("journal_bytes", "bytes of the journal's files", |seen| {
        seen.status.bytes as f64
    }),
    (
        "unranked",
        "samples that wait to be decided again, after another policy",
        |seen| seen.status.unranked as f64,
    ),
    (
        "lost_records",
        "samples in known-lost intervals that are remembered",
        |seen| {
            let lost = seen.status.lost.iter().map(|(_, lost)| lost.count);
            lost.sum::<u64>() as f64
        },
    ),
];

const TOTALS: [Figure<LaneStatus, u64>; 5] = [
    ("appended", "samples appended to the journal", |lane| {
        lane.kept
    }),
    ("given_up", "samples given up to make room", |lane| {
        lane.given_up
    }),
    ("expired", "samples that had waited for too long", |lane| {
        lane.expired
    }),
    (
        "coalesced",
        "samples of which there was a newer one",
        |lane| lane.coalesced,
    ),
    ("dropped", "samples that a policy dropped", |lane| {
        lane.dropped.iter().map(|(_, count)| count).sum()
    }),
];

const UPSTREAM_COUNTERS: [Figure<Figures, u64>; 6] = [
    ("shipped_records", "records shipped and stored", |figures| {
        figures.status().0.shipped
    }),
    (
        "shipped_bytes",
        "their bytes, before they are packed",
        |figures| figures.status().0.shipped_bytes,
    ),
    (
        "packed_bytes",
        "bytes of parcels as they are sent",
        |figures| figures.status().1,
    ),
    ("resent_records", "records shipped again", |figures| {
        figures.status().0.resent
    }),
    ("rounds", "rounds of certificates", |figures| {
        figures.status().0.rounds
    }),
    ("failures", "rounds that failed", |figures| {
        figures.status().0.failures
    }),
];

const UPSTREAM_GAUGES: [Figure<Figures, f64>; 3] = [
    ("upstream_up", "1 if it has what waits", |figures| {
        f64::from(u8::from(figures.state() == State::Up))
    }),
    (
        "upstream_waiting",
        "records that it is known to lack",
        |figures| figures.status().0.waiting as f64,
    ),
    (
        "upstream_drain_per_second",
        "records shipped a second",
        Figures::drain_per_s,
    ),
];

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let links: Vec<Seen> = self.0.hosts.iter().map(seen).collect();
        if links.is_empty() {
            return Ok(());
        }
        for (name, help, read) in TOTALS {
            let name = format!("forward_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            for link in &links {
                let labels = [("link", link.name.as_str())];
                let total = link.status.lanes.iter().map(read).sum::<u64>();
                ConstCounter::new(total).encode(family.encode_family(&labels)?)?;
            }
        }
        for (name, help, read) in LINK_COUNTERS {
            let name = format!("forward_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            for link in &links {
                let labels = [("link", link.name.as_str())];
                ConstCounter::new(read(link)).encode(family.encode_family(&labels)?)?;
            }
        }
        for (name, help, read) in LINK_GAUGES {
            let name = format!("forward_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            for link in &links {
                let labels = [("link", link.name.as_str())];
                ConstGauge::new(read(link)).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "samples that wait, by lane";
        let mut family =
            encoder.encode_descriptor("forward_waiting", help, None, MetricType::Gauge)?;
        for link in &links {
            for (lane, number) in link.status.lanes.iter().zip(0..) {
                let labels = [("link", link.name.clone()), ("lane", number.to_string())];
                let waiting = i64::try_from(lane.waiting).unwrap_or(i64::MAX);
                ConstGauge::new(waiting).encode(family.encode_family(&labels)?)?;
            }
        }
        let upstreams = || {
            links.iter().flat_map(|link| {
                link.upstreams.iter().map(|(address, figures)| {
                    let labels = [
                        ("link", link.name.clone()),
                        ("router", address.router.clone()),
                        ("storage", address.storage.clone()),
                    ];
                    (labels, figures)
                })
            })
        };
        for (name, help, read) in UPSTREAM_COUNTERS {
            let name = format!("forward_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            for (labels, figures) in upstreams() {
                ConstCounter::new(read(figures)).encode(family.encode_family(&labels)?)?;
            }
        }
        for (name, help, read) in UPSTREAM_GAUGES {
            let name = format!("forward_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            for (labels, figures) in upstreams() {
                ConstGauge::new(read(figures)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn seen(host: &Arc<Host>) -> Seen {
    Seen {
        name: host.name().to_owned(),
        host: Arc::clone(host),
        status: host.journal.status(),
        upstreams: host.upstreams().into_iter().collect(),
    }
}

fn sum(seen: &Seen, of: fn(&LaneStatus) -> u64) -> u64 {
    seen.status.lanes.iter().map(of).sum()
}
