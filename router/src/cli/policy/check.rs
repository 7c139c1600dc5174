//! `weir policy check` and `weir policy laws`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, ValueHint};
use serde_json::json;
use weir_policy::harness::check::{self, Checked, LAWS, Setup, explanation, limits_json};
use weir_policy::{Hook, Manifest, Revision};

use super::common::{EnvironmentArgs, LimitsArgs, Paint, bytes, host, read_cases};
use crate::cli::EXIT_NOTHING;
use crate::client::Streams;

/// Arguments of `weir policy check`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir policy check geo.wasm
  weir policy check set.wasm --settings '{\"deletes\": \"lose\"}' --calls 50000

Loads a module as a router does and says what it is. A resolver is tried on the laws (`weir policy
laws`) with values that are made to hurt and with those of its cases; what breaks one is made as
small as it gets. A router that says that it depends on the key alone is asked about one key in
several ways.

Exit status: 0 it may serve; 1 it may not; 2 error.")]
pub(super) struct CheckArgs {
    /// The module
    #[arg(value_name = "FILE.wasm", value_hint = ValueHint::FilePath)]
    module: PathBuf,

    /// Where its cases are [default: beside it]
    #[arg(long, value_name = "DIR|FILE", value_hint = ValueHint::AnyPath)]
    cases: Option<PathBuf>,

    /// Questions to a resolver, at the most, for each of its settings
    #[arg(long, value_name = "COUNT", default_value_t = 5_000)]
    calls: u64,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    limits: LimitsArgs,

    #[command(flatten)]
    environment: EnvironmentArgs,
}

/// Runs `weir policy check`.
pub(super) fn check(args: &CheckArgs, paint: Paint, streams: &mut Streams<'_>) -> Result<ExitCode> {
    let host = host(args.limits.limits()?)?;
    let name = args.module.display();
    let module = std::fs::read(&args.module).with_context(|| format!("cannot read {name}"))?;
    let stem = args
        .module
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy();
    let revision = match host.load(&stem, &module) {
        Ok(revision) => revision,
        Err(refusal) => {
            if args.json {
                let problem = json!({ "code": refusal.code.as_str(), "message": refusal.message });
                writeln!(
                    streams.out,
                    "{}",
                    json!({ "policy": stem, "problems": [problem] })
                )?;
            } else {
                writeln!(streams.out, "{stem} {}", paint.bad("is refused"))?;
                writeln!(streams.out, "  {}: {}", refusal.code, refusal.message)?;
            }
            return Ok(ExitCode::from(EXIT_NOTHING));
        }
    };
    let entries = read_cases(&args.module, args.cases.as_deref())?;
    let cases = entries.into_iter().filter_map(|entry| entry.case.ok());
    let setup = Setup {
        environment: args.environment.given()?,
        cases: cases.collect(),
        calls_max: args.calls,
    };
    let checked = check::check(&revision, &setup);
    if args.json {
        writeln!(streams.out, "{}", as_json(&revision, &checked))?;
    } else {
        show(&revision, &checked, paint, streams.out)?;
    }
    Ok(match checked.problems.as_slice() {
        [] => ExitCode::SUCCESS,
        _ => ExitCode::from(EXIT_NOTHING),
    })
}

/// Runs `weir policy laws`.
pub(super) fn laws(json: bool, streams: &mut Streams<'_>) -> Result<ExitCode> {
    let explained: Vec<_> = LAWS.into_iter().map(explanation).collect();
    if json {
        writeln!(streams.out, "{}", serde_json::to_string(&explained)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(
        streams.out,
        "Replicas hold the same data whatever a resolver answers. They hold what was meant, in\n\
         whatever order changes came and however often, if it keeps these laws:"
    )?;
    for law in explained {
        writeln!(
            streams.out,
            "\n{}\n  {}\n  {}\n  broken by: {}",
            law.law, law.meaning, law.equation, law.broken_by
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(revision: &Revision, checked: &Checked, paint: Paint, out: &mut dyn Write) -> Result<()> {
    let size = bytes(revision.size as u64);
    writeln!(out, "{}", revision.name)?;
    writeln!(out, "  module    {size}, blake3 {}", revision.hash_hex())?;
    writeln!(out, "  exports   {}", revision.hooks)?;
    if let Some(manifest) = &checked.manifest {
        show_manifest(manifest, revision, out)?;
    }
    let limits = revision.host().limits();
    let memory = bytes(limits.memory_bytes_max as u64);
    if revision.hooks.contains(Hook::Resolve) {
        let fuel = limits.resolve_fuel;
        writeln!(
            out,
            "  limits    {memory} of memory, {fuel} units of fuel a question"
        )?;
    } else {
        let cpu = limits.batch_cpu_max;
        writeln!(
            out,
            "  limits    {memory} of memory, {cpu:?} of CPU time a call"
        )?;
    }
    for held in &checked.held {
        let (calls, equations) = (held.passed.calls, held.passed.equations);
        let text = format!("hold with settings {}", held.settings_json);
        writeln!(
            out,
            "  laws      {}: {equations} equations, {calls} questions",
            paint.good(&text)
        )?;
    }
    for problem in &checked.problems {
        let mark = paint.bad(&format!("{:<9}", problem.code()));
        writeln!(
            out,
            "  {mark} {}",
            problem.text().replace('\n', "\n            ")
        )?;
    }
    Ok(())
}

fn show_manifest(manifest: &Manifest, revision: &Revision, out: &mut dyn Write) -> Result<()> {
    let names = |names: Vec<&str>| match names.as_slice() {
        [] => "nothing".to_owned(),
        names => names.join(", "),
    };
    let Manifest { name, version, .. } = manifest;
    writeln!(
        out,
        "  manifest  {name} {version}, serves {}",
        manifest.hooks
    )?;
    let mut needs = names(manifest.needs.names().collect());
    if manifest.needs.contains(weir_policy::Fields::PAYLOAD) {
        needs.push_str(&format!(" (the first {} bytes)", manifest.payload_prefix));
    }
    writeln!(out, "  sees      {needs}")?;
    if revision.hooks.contains(Hook::Route) {
        let varies = match manifest.routes_by_key_alone() {
            true => "the key alone: a router asks once for each key".to_owned(),
            false => names(manifest.route_varies_with.names().collect()),
        };
        writeln!(out, "  varies    with {varies}")?;
    }
    for (what, list) in [
        ("reasons ", &manifest.reasons),
        ("counters", &manifest.counters),
    ] {
        if !list.is_empty() {
            writeln!(out, "  {what}  {}", list.join(", "))?;
        }
    }
    Ok(())
}

fn as_json(revision: &Revision, checked: &Checked) -> serde_json::Value {
    let held = checked.held.iter().map(|held| {
        let (calls, equations) = (held.passed.calls, held.passed.equations);
        json!({ "settings": held.settings_json, "calls": calls, "equations": equations })
    });
    let problems = checked.problems.iter().map(check::Problem::json);
    json!({
        "policy": &*revision.name,
        "hash": revision.hash_hex(),
        "size": revision.size,
        "exports": revision.hooks,
        "manifest": checked.manifest,
        "limits": limits_json(revision.host().limits()),
        "laws": held.collect::<Vec<_>>(),
        "problems": problems.collect::<Vec<_>>(),
    })
}
