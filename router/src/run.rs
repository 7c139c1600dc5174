//! `weir run`: settings are read and checked, then built, then started, then stopped on a signal.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use weir_settings::{Layers, Severity};

use crate::{
    admin::{self, Permissions},
    clock::SharedClock,
    convert, identity, plugin, policies,
    runtime::{self, Router},
    service::Service,
    session::Service as Serving,
    zenoh_settings,
};

/// How far ahead of the wall clock a stamp may pull ours: what Zenoh allows too.
const DRIFT: Duration = Duration::from_millis(500);
/// How often rates are measured.
const MEASURE: Duration = Duration::from_secs(1);
/// The exit code of an error.
const FAILURE: u8 = 2;

/// What `weir run` is told.
#[derive(Debug)]
pub struct RunOptions {
    /// Where settings come from.
    pub layers: Layers,
    /// Only count what comes on this key expression, and answer the count on `@weir/bench/count`:
    /// the yardstick of the benchmarks.
    pub bench_count: Option<String>,
}

/// Runs a router until SIGTERM or SIGINT.
///
/// # Errors
/// What prevents the start; mistakes in the settings are printed and make exit code 2.
pub async fn run(options: RunOptions) -> Result<ExitCode> {
    let began = Instant::now();
    let mut loaded = weir_settings::load(&options.layers);
    zenoh_settings::check(&mut loaded);
    if let Some(settings) = &loaded.settings {
        loaded
            .diagnostics
            .extend(weir_settings::check_directories(settings));
    }
    if !loaded.diagnostics.is_empty() {
        let mut stderr = std::io::stderr();
        let color = stderr.is_terminal();
        writeln!(
            stderr,
            "{}",
            loaded.sources.render(&loaded.diagnostics, color).trim_end()
        )?;
    }
    let failed = loaded
        .diagnostics
        .iter()
        .any(|diagnostic| diagnostic.severity == Severity::Error);
    let Some(settings) = loaded.settings.filter(|_| !failed) else {
        return Ok(ExitCode::from(FAILURE));
    };
    raise_file_limit();
    let own_id = match settings.zenoh.get("id") {
        Some(_) => None,
        None => Some(identity::of(&settings.data_dir)?.to_string()),
    };
    let config = runtime::config(&settings, own_id.as_deref())?;

    // The signals are caught before anything is opened, so that none is missed.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let id: uhlc::ID = config
        .get_json("id")
        .ok()
        .and_then(|id| id.trim_matches('"').parse().ok())
        .context("the router's `id` is not a Zenoh id")?;
    let clock = SharedClock::open(
        &settings.data_dir,
        id.to_le_bytes(),
        convert::ntp64_span(DRIFT),
    )?;
    let stamped_before = clock.now();
    let permissions = permissions(&config);
    let policies = match &settings.policies {
        Some(policies) => Some(policies::start(policies, &id.to_string())?),
        None => None,
    };
    let service = Service::new(
        id.to_string(),
        clock,
        settings.roots.clone(),
        settings.volumes.clone(),
        policies.clone(),
    );
    service.open_all(&settings).await?;
    if let Some(policies) = &policies {
        policies::wait_until_loaded(policies).await;
    }
    plugin::provide(Arc::clone(&service));
    let mut router = Router::build(config).await?;
    router.follow(stamped_before);
    service.attach(router.bus.clone()).await?;
    let _status = serve_status(&router, &service, permissions).await?;
    let _count = match &options.bench_count {
        Some(expr) => Some(crate::bench::count(&router.bus, expr).await?),
        None => None,
    };
    router.start().await?;
    let http = match &settings.http {
        Some(http) => {
            let bus = router.bus.clone();
            Some(crate::http::serve(http.listen, Arc::clone(&service), bus).await?)
        }
        None => None,
    };
    let measuring = tokio::spawn(measure(Arc::clone(&service)));
    greet(
        &options.layers,
        &settings,
        &service,
        &router,
        began.elapsed(),
    )?;

    let signal = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal, "stopping: what is queued is stored first");
    measuring.abort();
    if let Some(http) = http {
        http.abort();
    }
    service.close().await;
    if let Some(policies) = &policies {
        policies.stop();
    }
    router.close().await?;
    Ok(ExitCode::SUCCESS)
}

/// The first lines: what runs, from which settings, with what, where.
fn greet(
    layers: &Layers,
    settings: &weir_settings::Settings,
    service: &Service,
    router: &Router,
    took: Duration,
) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "weir {} (zenoh {})",
        env!("CARGO_PKG_VERSION"),
        zenoh::GIT_VERSION
    )?;
    writeln!(out, "  id        {}", service.router())?;
    if layers.files.is_empty() {
        writeln!(out, "  settings  embedded defaults (name a file with -c)")?;
    }
    for file in &layers.files {
        writeln!(out, "  settings  {}", file.display())?;
    }
    // A fleet's router has thousands: the first few say what kind they are.
    const SHOWN: usize = 10;
    for storage in settings.storages.values().take(SHOWN) {
        let keys: Vec<&str> = storage
            .keys
            .patterns
            .iter()
            .map(|pattern| pattern.as_str())
            .collect();
        let places: Vec<String> = storage
            .shards
            .iter()
            .map(|shard| match &shard.dir {
                Some(dir) => format!("{} in {}", shard.backend.name(), dir.display()),
                None => shard.backend.name().to_owned(),
            })
            .collect();
        let (name, keys, places) = (&storage.name, keys.join(", "), places.join("; "));
        writeln!(out, "  storage   {name} on {keys}: {places}")?;
    }
    if settings.storages.len() > SHOWN {
        writeln!(
            out,
            "  storage   ... and {} more",
            settings.storages.len() - SHOWN
        )?;
    }
    for link in settings.forward.values() {
        let keys: Vec<&str> = link
            .keys
            .patterns
            .iter()
            .map(|pattern| pattern.as_str())
            .collect();
        let (name, keys, dir) = (&link.name, keys.join(", "), link.dir.display());
        writeln!(out, "  forward   {name} on {keys}: journal in {dir}")?;
    }
    if let Some(policies) = &settings.policies {
        writeln!(out, "  policies  {}", policies.dir.display())?;
    }
    for endpoint in router.endpoints() {
        writeln!(out, "  listening {endpoint}")?;
    }
    if let Some(rest) = settings.zenoh.pointer("/plugins/rest/http_port") {
        let rest = rest.to_string();
        let rest = rest.trim_matches('"');
        let address = if rest.contains(':') {
            rest.to_owned()
        } else {
            format!("0.0.0.0:{rest}")
        };
        writeln!(out, "  rest      http://{address}")?;
    }
    if let Some(http) = &settings.http {
        writeln!(out, "  metrics   http://{}/metrics", http.listen)?;
    }
    writeln!(out, "ready in {} ms", took.as_millis())?;
    out.flush()?;
    Ok(())
}

/// A database takes five files at the least and two dozen when it is large, and shells start programs
/// with 1,024: takes as many as the system gives without asking its administrator.
fn raise_file_limit() {
    match rlimit::increase_nofile_limit(rlimit::INFINITY) {
        Ok(limit) => tracing::debug!(limit, "open files"),
        Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised"),
    }
}

/// Answers on `@weir/<id>/**`.
async fn serve_status(
    router: &Router,
    service: &Arc<Service>,
    permissions: Permissions,
) -> Result<Serving> {
    let key = format!("@weir/{}/**", service.router());
    let service = Arc::clone(service);
    let handle = tokio::runtime::Handle::current();
    let serving = router.bus.declare_queryable(&key, true, move |query| {
        let service = Arc::clone(&service);
        handle.spawn_blocking(move || admin::answer(&service, permissions, &query));
    });
    Ok(serving.await?)
}

/// What the admin space permits.
fn permissions(config: &zenoh::Config) -> Permissions {
    let is_on = |name: &str, default: bool| {
        let value = config.get_json(&format!("adminspace/permissions/{name}"));
        value
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    Permissions {
        read: is_on("read", true),
        write: is_on("write", false),
    }
}

async fn measure(service: Arc<Service>) {
    let mut ticks = tokio::time::interval(MEASURE);
    loop {
        ticks.tick().await;
        for storage in service.storages() {
            storage.measure(MEASURE);
        }
        if let Some(links) = service.links() {
            // It may wait for a journal that waits for its disk.
            let links = Arc::clone(links);
            let measured = tokio::task::spawn_blocking(move || links.measure(MEASURE)).await;
            if let Err(error) = measured {
                tracing::error!(%error, "links could not be measured");
            }
        }
    }
}
