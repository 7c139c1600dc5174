//! What calls of policies cost, each as a multiple of an empty call of a core module measured in the
//! same run.
//!
//! ```sh
//! cargo run --release -p weir-policy --example call_costs [-- MODULE.wasm[=SETTINGS]...]
//! ```
//!
//! Measures guests of its own, written as WebAssembly text, and the modules that are named. Exits with
//! a failure if a target is missed; `--no-gate` only prints.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool that measures: it talks to whoever runs it, and stops where something fails"
)]

use std::{
    hint::black_box,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use weir_core::{
    backlog::LinkState,
    key::Key,
    placement::Description,
    resolution::Contender,
    value::Value,
    version::{Stamp, Version},
};
use weir_policy::{
    Environment, Hook, Host, Origin, PrioritizeInstance, Resolver, Revision, RouteInstance,
    Settings, Stats,
};

#[path = "../tests/host/guest.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod guest;

use guest::{Guest, KEY, PAYLOAD};

/// Samples in a batch, as a busy storage takes them.
const BATCH: usize = 256;
/// What the product promises, as multiples of an empty call; see the policies' part of the README.
const ROUTE_MAX: f64 = 8.0;
const PRIORITIZE_MAX: f64 = 12.0;
const RESOLVE_P99_MAX: Duration = Duration::from_micros(100);

fn main() -> ExitCode {
    let (flags, modules): (Vec<_>, Vec<_>) = std::env::args()
        .skip(1)
        .partition(|argument| argument.starts_with("--"));
    let cache = tempfile::tempdir().unwrap();
    let settings = || Settings {
        cache: Some(cache.path().join("cache")),
        ..Settings::default()
    };
    let host = Host::new(settings()).unwrap();
    let mut bench = Bench {
        empty: empty_call(),
        missed: Vec::new(),
    };
    println!(
        "empty call of a core module with three scalars: {:.1} ns",
        bench.empty
    );

    let token = "(i32.store8 (local.get $answer) (i32.const 1))
        (i64.store offset=8 (local.get $answer) (i64.load (local.get $sample)))";
    let route = |needs, varies| Guest {
        needs,
        varies,
        payload_prefix: 256,
        ..Guest::router_each(token)
    };
    let load = |guest: Guest| host.load("own", &guest.wasm()).unwrap();
    let plain = Environment::default();
    bench.route(
        "route by hash",
        &load(route(0, 1)),
        &plain,
        BATCH,
        Some(ROUTE_MAX),
    );
    bench.route(
        "route by key",
        &load(route(KEY, 1)),
        &plain,
        BATCH,
        Some(ROUTE_MAX),
    );
    bench.route(
        "route by 256 bytes of payload",
        &load(route(PAYLOAD, 1)),
        &plain,
        BATCH,
        None,
    );
    bench.route(
        "route by key, remembered",
        &load(route(KEY, 0)),
        &plain,
        BATCH,
        Some(ROUTE_MAX),
    );
    bench.route("route, batch of 1", &load(route(KEY, 1)), &plain, 1, None);
    let place = "(i32.store8 (local.get $answer) (i32.const 1))
        (i32.store8 offset=8 (local.get $answer) (i32.const 3))";
    bench.prioritize("prioritize", &load(Guest::prioritizer_each(place)), &plain);
    bench.resolve("resolve", &load(Guest::resolver_concatenating()), &plain);

    for module in &modules {
        let (path, json) = module.split_once('=').unwrap_or((module, "{}"));
        let bytes = std::fs::read(path).unwrap();
        let revision = host
            .load(path, &bytes)
            .unwrap_or_else(|refusal| panic!("{refusal}"));
        let environment = Environment {
            settings_json: json.into(),
            shards: (0..4).map(|n| format!("shard-{n}")).collect(),
            ..Environment::default()
        };
        let name = path.rsplit('/').next().unwrap_or(path);
        for hook in revision.hooks.iter() {
            match hook {
                Hook::Route => {
                    bench.route(name, &revision, &environment, BATCH, Some(ROUTE_MAX));
                }
                Hook::Prioritize => bench.prioritize(name, &revision, &environment),
                Hook::Resolve => bench.resolve(name, &revision, &environment),
            }
        }
    }

    let large = large_module();
    let kib = large.len() >> 10;
    let compiled = host.load("large", &large).unwrap();
    let mut cached = Vec::new();
    for _ in 0..20 {
        let revision = Host::new(settings())
            .unwrap()
            .load("large", &large)
            .unwrap();
        assert_eq!(
            (compiled.origin, revision.origin),
            (Origin::Compiled, Origin::Cache)
        );
        cached.push(revision.took);
    }
    cached.sort();
    let (took, cached) = (
        compiled.took.as_secs_f64() * 1e3,
        cached[10].as_secs_f64() * 1e3,
    );
    println!("load a module of {kib} KiB: {took:.1} ms compiled, {cached:.2} ms from the cache");

    if bench.missed.is_empty() || flags.iter().any(|flag| flag == "--no-gate") {
        return ExitCode::SUCCESS;
    }
    println!("missed: {}", bench.missed.join(", "));
    ExitCode::FAILURE
}

struct Bench {
    /// Nanoseconds.
    empty: f64,
    missed: Vec<String>,
}

impl Bench {
    fn route(
        &mut self,
        name: &str,
        revision: &Arc<Revision>,
        environment: &Environment,
        batch: usize,
        max: Option<f64>,
    ) {
        let stats = Arc::new(Stats::default());
        let mut instance = RouteInstance::new(revision, environment, stats).unwrap();
        let samples = Samples::new(batch);
        let batch = samples.describe();
        let mut out = Vec::new();
        let nanos = fastest(batch.len(), || {
            out.clear();
            instance
                .route("fleet", 4, black_box(&batch), &mut out)
                .unwrap();
            black_box(&out);
        });
        self.report(name, batch.len(), nanos, max);
    }

    fn prioritize(&mut self, name: &str, revision: &Arc<Revision>, environment: &Environment) {
        let stats = Arc::new(Stats::default());
        let mut instance = PrioritizeInstance::new(revision, environment, stats).unwrap();
        let samples = Samples::new(BATCH);
        let batch = samples.describe();
        let link = LinkState {
            name: "cloud",
            now: 1 << 60,
            queued: 10_000,
            queued_bytes: 1 << 20,
            capacity_bytes: 1 << 30,
        };
        let mut out = Vec::new();
        let nanos = fastest(batch.len(), || {
            out.clear();
            instance
                .prioritize("fleet", link, black_box(&batch), &mut out)
                .unwrap();
            black_box(&out);
        });
        self.report(name, batch.len(), nanos, Some(PRIORITIZE_MAX));
    }

    fn report(&mut self, name: &str, batch: usize, nanos: f64, max: Option<f64>) {
        let ratio = nanos / self.empty;
        let target = max.map_or_else(String::new, |max| format!(" (at most {max}x)"));
        println!("{name}, a sample in a batch of {batch}: {nanos:.1} ns, {ratio:.1}x{target}");
        if max.is_some_and(|max| ratio > max) {
            self.missed.push(name.into());
        }
    }

    fn resolve(&mut self, name: &str, revision: &Arc<Revision>, environment: &Environment) {
        let stats = Arc::new(Stats::default());
        let resolver = Resolver::new(revision, &environment.settings_json, stats).unwrap();
        let (first, second) = (Value::bytes("[1,2,3]"), Value::bytes("[3,4,5]"));
        let contender = |value, time| {
            let stamp = Stamp { time, id: [1; 16] };
            Contender {
                version: Version::put(stamp, Value::hash(value)),
                value: Some(value),
            }
        };
        let (first, second) = (contender(&first, 1), contender(&second, 2));
        let ask = || black_box(resolver.resolve("fleet/7", first, second)).unwrap();
        (0..1000).for_each(|_| drop(ask()));
        let mut took: Vec<_> = (0..20_000)
            .map(|_| {
                let start = Instant::now();
                ask();
                start.elapsed()
            })
            .collect();
        took.sort();
        let [p50, p99] = [took.len() / 2, took.len() * 99 / 100].map(|index| took[index]);
        let (_, fuel) = resolver.resolve_metered("fleet/7", first, second);
        let ratio = p50.as_nanos() as f64 / self.empty;
        println!(
            "{name}, a fresh instance each: p50 {p50:?} ({ratio:.0}x), p99 {p99:?} (at most \
             {RESOLVE_P99_MAX:?}), {fuel} units of fuel"
        );
        if p99 > RESOLVE_P99_MAX {
            self.missed.push(name.into());
        }
    }
}

/// What nothing can be faster than: into WebAssembly with three numbers, and back with one.
fn empty_call() -> f64 {
    let engine = wasmtime::Engine::default();
    let wasm = wat::parse_str(
        "(module (func (export \"f\") (param i32 i64 i32) (result i32) (local.get 0)))",
    );
    let module = wasmtime::Module::new(&engine, wasm.unwrap()).unwrap();
    let mut store = wasmtime::Store::new(&engine, ());
    let instance = wasmtime::Instance::new(&mut store, &module, &[]).unwrap();
    let function = instance
        .get_typed_func::<(i32, i64, i32), i32>(&mut store, "f")
        .unwrap();
    fastest(1000, || {
        for n in 0..1000 {
            black_box(function.call(&mut store, (black_box(n), 2, 3)).unwrap());
        }
    })
}

/// Nanoseconds of one of the `per` things that `work` does, in the median of many rounds: neither the
/// luckiest nor those where the machine was busy elsewhere.
fn fastest(per: usize, mut work: impl FnMut()) -> f64 {
    let repeat = (20_000 / per).max(1);
    let mut rounds: Vec<_> = (0..60)
        .map(|_| {
            let start = Instant::now();
            (0..repeat).for_each(|_| work());
            start.elapsed().as_nanos() as f64 / (repeat * per) as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

struct Samples(Vec<(Key, Value)>);

impl Samples {
    fn new(count: usize) -> Self {
        let sample = |n| {
            (
                Key::from(&*format!("drone/{n}/video")),
                Value::bytes(vec![b'x'; 300]),
            )
        };
        Self((0..count).map(sample).collect())
    }

    fn describe(&self) -> Vec<Description<'_>> {
        let samples = self.0.iter().zip(0u64..);
        let describe = samples.map(|((key, value), n)| Description {
            key,
            key_hash: n,
            stamp: Some(Stamp {
                time: n,
                id: [1; 16],
            }),
            value: Some(value),
            priority: 5,
        });
        describe.collect()
    }
}

/// About 50 KB of functions: what a policy in Rust weighs.
fn large_module() -> Vec<u8> {
    let function = |n: usize| {
        format!(
            "(func (param i32 i32) (result i32) (local i32)
              (loop $l
                (local.set 2 (i32.xor (i32.mul (local.get 0) (i32.const {n})) (local.get 2)))
                (i32.store (i32.and (local.get 2) (i32.const 65532)) (local.get 1))
                (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
                (if (i32.gt_u (local.get 2) (i32.const {n})) (then
                  (local.set 1 (i32.rotl (local.get 1) (i32.const 3)))))
                (br_if $l (local.get 0)))
              (i32.add (local.get 2) (local.get 1)))"
        )
    };
    let guest = Guest {
        more: (0..800).map(function).collect(),
        ..Guest::router_each("(i32.store8 (local.get $answer) (i32.const 2))")
    };
    guest.wasm()
}
