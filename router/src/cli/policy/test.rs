//! `weir policy test`: the cases of policies, in the router's own engine.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueHint};
use weir_policy::harness::cases::{self, Counts, Entry, Outcome, Ran, Report};
use weir_policy::harness::{golden, junit};

use super::build;
use super::common::{LimitsArgs, Module, Paint, host, load};
use crate::cli::{EXIT_ERROR, EXIT_NOTHING};
use crate::client::Streams;

/// How deep directories are searched for policies.
const DEPTH_MAX: usize = 4;

/// Arguments of `weir policy test`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir policy test                        the policy in this directory, built first
  weir policy test policies               every policy under it
  weir policy test geo.wasm               a module, with geo.cases/, geo.cases.json or cases/ beside it
  weir policy test geo.wasm --update      write what it answers now into its cases

A case is data: samples, settings, and what is promised. Routers run the cases beside a module, in
geo.cases.json or geo.cases/, before they let it serve.

Exit status: 0 all cases pass; 1 some do not; 2 error.")]
pub(super) struct TestArgs {
    /// Modules, or directories of policies
    #[arg(value_name = "DIR|FILE.wasm", default_value = ".", value_hint = ValueHint::AnyPath)]
    paths: Vec<PathBuf>,

    /// Where the cases are [default: beside each module]
    #[arg(long, value_name = "DIR|FILE", value_hint = ValueHint::AnyPath)]
    cases: Option<PathBuf>,

    /// Run only cases whose name holds this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,

    /// Write what the policies answer now into the cases that fail
    #[arg(long)]
    update: bool,

    /// Print JSON, one object for each policy
    #[arg(long)]
    json: bool,

    /// Write the results as JUnit XML, too
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    junit: Option<PathBuf>,

    #[command(flatten)]
    limits: LimitsArgs,
}

/// Runs `weir policy test`.
pub(super) fn test(args: &TestArgs, paint: Paint, streams: &mut Streams<'_>) -> Result<ExitCode> {
    let host = host(args.limits.limits()?)?;
    let mut reports = Vec::new();
    let mut total = Counts::default();
    for target in targets(&args.paths, streams)? {
        let cases = args.cases.as_deref().or(target.cases.as_deref());
        let mut module = load(&host, &target.module, cases)?;
        if let Some(part) = &args.filter {
            module.cases.retain(|entry| entry.name.contains(part));
        }
        let mut report = cases::run(&module.revision, &module.cases);
        if args.update {
            let updated = update(&report)?;
            if updated > 0 {
                writeln!(
                    streams.err,
                    "{}: {updated} cases written anew",
                    report.policy
                )?;
                report = run_again(&module, &report)?;
            }
        }
        if args.json {
            writeln!(streams.out, "{}", serde_json::to_string(&report)?)?;
        } else {
            show(&report, paint, streams.out)?;
        }
        total = total.plus(report.counts());
        reports.push(report);
    }
    if let Some(file) = &args.junit {
        std::fs::write(file, junit::render(&reports))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    let all = total.passed + total.failed + total.broken;
    if all == 0 {
        writeln!(
            streams.err,
            "there is no case{}",
            if args.filter.is_some() {
                " of that name"
            } else {
                ""
            }
        )?;
        return Ok(ExitCode::from(EXIT_ERROR));
    }
    let of = |count: usize, one: &str, many: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    };
    let Counts {
        passed,
        failed,
        broken,
    } = total;
    let summary = format!(
        "{} of {}: {passed} passed, {failed} failed, {broken} broken",
        of(all, "case", "cases"),
        of(reports.len(), "policy", "policies"),
    );
    let last = if total.is_clean() {
        paint.good(&summary)
    } else {
        paint.bad(&summary)
    };
    let out: &mut dyn Write = if args.json { streams.err } else { streams.out };
    writeln!(out, "{last}")?;
    Ok(match total {
        Counts { broken: 1.., .. } => ExitCode::from(EXIT_ERROR),
        Counts { failed: 1.., .. } => ExitCode::from(EXIT_NOTHING),
        _ => ExitCode::SUCCESS,
    })
}

/// A module to test.
struct Target {
    module: PathBuf,
    cases: Option<PathBuf>,
}

/// The modules that are meant; policies that are there as sources are built.
fn targets(paths: &[PathBuf], streams: &mut Streams<'_>) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for path in paths {
        let before = targets.len();
        if path.is_dir() {
            search(path, 0, &mut targets, streams)?;
            if targets.len() == before {
                bail!(
                    "there is no policy in {}: neither a module nor sources with a directory `cases`",
                    path.display()
                );
            }
        } else {
            targets.push(Target {
                module: path.clone(),
                cases: None,
            });
        }
    }
    Ok(targets)
}

fn search(
    dir: &Path,
    depth: usize,
    targets: &mut Vec<Target>,
    streams: &mut Streams<'_>,
) -> Result<()> {
    let cases = dir.join("cases");
    if cases.is_dir() && build::is_project(dir) {
        let module = build::build_one(dir, None, streams.err)?;
        targets.push(Target {
            module,
            cases: Some(cases),
        });
        return Ok(());
    }
    let entries =
        std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path
            .extension()
            .is_some_and(|extension| extension == "wasm")
        {
            // A module without a case has nothing to fail.
            if !cases::beside(&path).is_empty() {
                targets.push(Target {
                    module: path,
                    cases: None,
                });
            }
        } else if path.is_dir() && depth < DEPTH_MAX && !is_output(&path) {
            search(&path, depth + 1, targets, streams)?;
        }
    }
    Ok(())
}

/// Whether a directory holds what tools have made.
fn is_output(dir: &Path) -> bool {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.')
        || name.ends_with(".cases")
        || matches!(&*name, "target" | "node_modules" | "cases")
}

/// Writes the answers of failed cases into their files; gives how many those are.
fn update(report: &Report) -> Result<usize> {
    let mut files: BTreeMap<&Path, Vec<Option<serde_json::Value>>> = BTreeMap::new();
    for ran in &report.cases {
        if let Outcome::Failed { got, .. } = &ran.outcome {
            let answers = files.entry(&ran.file).or_default();
            if answers.len() <= ran.index {
                answers.resize(ran.index + 1, None);
            }
            answers[ran.index] = Some(got.clone());
        }
    }
    let mut updated = 0;
    for (file, answers) in files {
        let name = file.display();
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
        let rewritten = golden::rewrite(&text, &answers)
            .map_err(|error| anyhow::anyhow!("cannot rewrite {name}: {error}"))?;
        std::fs::write(file, rewritten).with_context(|| format!("cannot write {name}"))?;
        updated += answers.iter().flatten().count();
    }
    Ok(updated)
}

/// Runs the same cases as they are in their files now.
fn run_again(module: &Module, before: &Report) -> Result<Report> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut files: Vec<&Path> = before.cases.iter().map(|ran| ran.file.as_path()).collect();
    files.dedup();
    for file in files {
        entries.extend(cases::read(file).context("cannot read cases")?);
    }
    let is_meant = |entry: &Entry| {
        let mut ran = before.cases.iter();
        ran.any(|ran| ran.file == entry.file && ran.index == entry.index)
    };
    entries.retain(is_meant);
    Ok(cases::run(&module.revision, &entries))
}

fn show(report: &Report, paint: Paint, out: &mut dyn Write) -> Result<()> {
    let revision = report.hash.get(..8).unwrap_or_default();
    writeln!(out, "{} {}", report.policy, paint.dim(revision))?;
    for ran in &report.cases {
        let mark = match ran.outcome {
            Outcome::Passed => paint.good("ok    "),
            Outcome::Failed { .. } => paint.bad("FAILED"),
            Outcome::Broken { .. } => paint.bad("BROKEN"),
        };
        let hook = ran.hook.map_or("-", weir_policy::Hook::name);
        let took = paint.dim(&format!("{hook}, {:.1} ms", ran.took_ms));
        writeln!(out, "  {mark} {}  {took}", ran.name)?;
        show_complaint(ran, paint, out)?;
    }
    Ok(())
}

fn show_complaint(ran: &Ran, paint: Paint, out: &mut dyn Write) -> Result<()> {
    let complaint = ran.complaint();
    if complaint.is_empty() {
        return Ok(());
    }
    let place = format!("{}, case {}", ran.file.display(), ran.index + 1);
    writeln!(out, "         {}", paint.dim(&place))?;
    for line in complaint {
        let line = match line.as_bytes().first() {
            Some(b'-') => paint.bad(&line),
            Some(b'+') => paint.good(&line),
            _ => line,
        };
        writeln!(out, "         {line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_that_tools_made_are_not_searched() {
        for (name, skipped) in [
            ("target", true),
            (".git", true),
            ("geo.cases", true),
            ("route", false),
        ] {
            assert_eq!(is_output(&Path::new("a").join(name)), skipped, "{name}");
        }
    }
}
