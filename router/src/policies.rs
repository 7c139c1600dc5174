//! Policies in the router: from settings to the registry, from the registry to storages, and what is
//! shown of them on `@weir/<id>/policies/...` and in the metrics.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use serde_json::{Value, json};
use weir_core::{
    backlog::Prioritize,
    placement::{ByChunk, Route},
};
use weir_policy::{
    Environment, Host, Limits, Policies, PoliciesSettings,
    directory::DirectorySettings,
    harness::admission::{Cases, Laws},
    signature::{Key, SignatureMode},
    slot::ResolveSlot,
    status::{PolicyStatus, SlotStatus},
};
use weir_settings::{ForwardSettings, PolicyLimits, PolicySettings, Signatures, StorageSettings};

use crate::storage::{
    Plan,
    shard::{ResolverSlot, Resolving},
};

/// How long the start waits for policies that are there to be loaded, so that the first sample is
/// decided by them. A large one that was never compiled here takes longer, and comes when it comes.
const LOAD_MAX: Duration = Duration::from_secs(10);
/// Questions that a resolver is asked before it serves, at 40 us each a fifth of a second; interpreters
/// take longer. `weir policy check` asks more.
const LAW_CALLS_MAX: u64 = 5_000;

/// How often resolvers are tried on what they were asked about: 200 questions of 40 us each.
const LAWS_EVERY: Duration = Duration::from_secs(60);

/// Starts to watch the policies' directory.
///
/// # Errors
/// The machine cannot run WebAssembly, the cache cannot be used, or a key is none.
pub(crate) fn start(settings: &PolicySettings, router: &str) -> Result<Arc<Policies>> {
    let host = Host::new(weir_policy::Settings {
        limits: limits(&settings.limits),
        cache: settings.cache.clone(),
        compile_in_parallel: false,
    });
    let host =
        host.context("policies cannot be run (set `policies.cache: false` to do without it)")?;
    let keys = settings.keys.iter().map(|key| Key::parse(&key.text));
    let policies = PoliciesSettings {
        directory: DirectorySettings {
            dir: settings.dir.clone(),
            poll: settings.poll,
            events: settings.events,
        },
        signatures: match settings.signatures {
            Signatures::Off => SignatureMode::Off,
            Signatures::Warn => SignatureMode::Warn,
            Signatures::Require => SignatureMode::Require,
        },
        keys: keys
            .collect::<Result<_, _>>()
            .context("a key in `policies.keys` cannot be used")?,
        on_remove: settings.on_remove,
        breaker: weir_core::slot::Limits::default(),
        settings: settings.settings.clone(),
        laws_every: LAWS_EVERY,
        admission: vec![
            Arc::new(Cases {
                dir: settings.dir.clone(),
            }),
            Arc::new(Laws {
                calls_max: LAW_CALLS_MAX,
            }),
        ],
    };
    let environment = Environment {
        router_id: router.to_owned(),
        zone: settings.zone.clone(),
        ..Environment::default()
    };
    Policies::start(policies, host, environment).context("the policies cannot be watched")
}

/// What policies may use, as the settings say.
pub(crate) fn limits(settings: &PolicyLimits) -> Limits {
    Limits {
        memory_bytes_max: usize::try_from(settings.memory).unwrap_or(usize::MAX),
        batch_cpu_max: settings.cpu,
        resolve_fuel: settings.fuel,
        ..Limits::default()
    }
}

/// Waits until what is in the directory is loaded, for as long as a start may take.
pub(crate) async fn wait_until_loaded(policies: &Arc<Policies>) {
    let policies = Arc::clone(policies);
    let waited = tokio::task::spawn_blocking(move || policies.wait_until_loaded(LOAD_MAX)).await;
    if !matches!(waited, Ok(true)) {
        tracing::warn!("policies are still being loaded: the native rule decides until then");
    }
}

/// Has the policies that a storage names decide for what is planned; the route, if one is named.
pub(crate) fn bind(
    policies: &Policies,
    settings: &StorageSettings,
    plan: &mut Plan,
) -> Option<Box<dyn Route>> {
    if let Some(policy) = &settings.policies.resolve {
        let slot = policies.bind_resolve(&settings.name, policy);
        let slot: Arc<dyn ResolverSlot> = Arc::new(slot);
        for (_, _, shard) in &mut plan.shards {
            shard.rules.resolves = true;
            shard.resolver = Some(Arc::clone(&slot));
        }
    }
    let policy = settings.policies.route.as_deref()?;
    let native = Box::new(ByChunk {
        chunk: plan.shard_by,
    });
    let prefix = settings.strip_prefix.as_ref();
    let prefix = prefix.map_or("", |prefix| prefix.as_str());
    let shards = plan.labels.clone();
    let slot = policies.bind_route(&settings.name, policy, prefix, shards, native);
    Some(Box::new(slot))
}

/// Who decides what leaves a link's backlog first: the policy that it names
/// (`forward.NAME.policies.prioritize`) wherever that serves and says something, else `native`. Keys are
/// those of Zenoh, in full. Dropping it ends the policy's seat.
pub(crate) fn bind_prioritize(
    policies: Option<&Policies>,
    settings: &ForwardSettings,
    native: Box<dyn Prioritize>,
) -> Box<dyn Prioritize> {
    match (policies, settings.prioritize.as_deref()) {
        (Some(policies), Some(policy)) => {
            Box::new(policies.bind_prioritize(&settings.name, policy, "", native))
        }
        // Naming a policy is enough for the registry to be there.
        _ => native,
    }
}

impl ResolverSlot for ResolveSlot {
    fn resolving(&self) -> Resolving {
        match self.current() {
            None => Resolving::Native,
            Some(current) if current.is_awaited() => Resolving::Wait,
            Some(current) => Resolving::Policy(current.revision(), Box::new(current)),
        }
    }
}

/// What is shown below `policies/`, by relative key.
pub(crate) fn status(policies: &Policies) -> Vec<(String, Value)> {
    let mut entries = vec![("policies".to_owned(), json!(policies.directory()))];
    let all = policies.status().into_iter();
    entries.extend(all.map(|policy| (format!("policies/{}", policy.name), json!(policy))));
    entries
}

/// A figure of a slot: its name, what it says, and how it is read.
type Figure<T> = (&'static str, &'static str, fn(&SlotStatus) -> T);

/// The slots' figures, read when they are asked for.
pub(crate) struct Metrics(pub(crate) Arc<Policies>);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("policies::Metrics")
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let policies = self.0.status();
        let slots = |policies: &[PolicyStatus]| -> Vec<([(&'static str, String); 3], SlotStatus)> {
            let labelled = policies.iter().flat_map(|policy| {
                policy.slots.iter().map(|slot| {
                    let labels = [
                        ("policy", policy.name.clone()),
                        ("owner", slot.owner.clone()),
                        ("hook", slot.hook.clone()),
                    ];
                    (labels, slot.clone())
                })
            });
            labelled.collect()
        };
        let slots = slots(&policies);
        if slots.is_empty() {
            return Ok(());
        }
        for (name, help, read) in COUNTERS {
            let name = format!("policy_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            for (labels, slot) in &slots {
                ConstCounter::new(read(slot)).encode(family.encode_family(labels)?)?;
            }
        }
        let help = "failed calls by cause";
        let mut family =
            encoder.encode_descriptor("policy_errors", help, None, MetricType::Counter)?;
        for (labels, slot) in &slots {
            for (cause, count) in &slot.errors {
                let [policy, owner, hook] = labels.clone();
                let labels = [policy, owner, hook, ("cause", cause.clone())];
                ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
            }
        }
        for (name, help, read) in GAUGES {
            let name = format!("policy_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            for (labels, slot) in &slots {
                ConstGauge::new(read(slot)).encode(family.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

const COUNTERS: [Figure<u64>; 7] = [
    ("calls", "calls of the policy", |slot| slot.calls),
    (
        "samples",
        "samples that the policy was asked about",
        |slot| slot.samples,
    ),
    (
        "remembered",
        "samples whose answer was remembered",
        |slot| slot.remembered,
    ),
    (
        "fallbacks",
        "samples that the native rule decided because a call failed",
        |slot| slot.fallbacks,
    ),
    (
        "native",
        "samples that the native rule decided because nothing served",
        |slot| slot.native,
    ),
    (
        "interruptions",
        "conflicts that were to be asked again",
        |slot| slot.interruptions,
    ),
    (
        "swaps",
        "how often another revision began to serve",
        |slot| slot.swaps,
    ),
];

const GAUGES: [Figure<f64>; 6] = [
    ("serving", "1 if the policy answers", |slot| {
        f64::from(u8::from(slot.service == "policy"))
    }),
    ("cpu_seconds", "CPU time of this revision's calls", |slot| {
        slot.cpu_seconds
    }),
    ("fuel", "fuel of this revision's calls", |slot| {
        slot.fuel as f64
    }),
    (
        "p50_seconds",
        "half of the calls took at most so long",
        |slot| slot.p50_us / 1e6,
    ),
    (
        "p99_seconds",
        "99 of 100 calls took at most so long",
        |slot| slot.p99_us / 1e6,
    ),
    (
        "memory_bytes_peak",
        "the most memory that one instance had",
        |slot| slot.memory_bytes_peak as f64,
    ),
];
