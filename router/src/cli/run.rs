//! `weir run`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::settings::{SettingsArgs, process_env};
use crate::run::{self, RunOptions};

/// Arguments of `weir run`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir run
  weir run -c weir.json5 --rest-http-port 8000
  weir run -l tcp/0.0.0.0:7447 -e tcp/hub.example.com:7447 --data-dir /var/lib/weir
  weir run --cfg 'storages/demo:{key_expr:\"demo/**\",volume:\"memory\"}'

Without any configuration it stores everything (`**`) in RocksDB under ./weir-data and serves REST
on 127.0.0.1:8000. SIGTERM and Ctrl-C stop it when what was accepted is stored.

Exit status: 0 stopped by a signal; 2 error.")]
pub struct RunArgs {
    /// What to run.
    #[command(flatten)]
    pub settings: SettingsArgs,

    /// Only count what comes on this key expression, for benchmarks
    #[arg(long, value_name = "KEYEXPR", hide = true)]
    pub bench_count: Option<String>,
}

/// Runs a router until a signal stops it.
pub fn run(args: &RunArgs) -> Result<ExitCode> {
    for remark in args.settings.remarks() {
        tracing::warn!("{remark}");
    }
    let layers = args.settings.layers(process_env())?;
    let options = RunOptions {
        layers,
        bench_count: args.bench_count.clone(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(Box::pin(run::run(options)))
}
