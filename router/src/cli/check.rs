//! `weir check`, `weir config show`, `weir config schema`: what the settings are, and what is wrong
//! with them.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand, ValueHint};
use serde_json::{Map, Value};
use weir_settings::{Diagnostic, Loaded, Origin, Severity, Sources, check_directories};

use super::logging::Color;
use super::settings::{SettingsArgs, process_env};
use super::{EXIT_ERROR, EXIT_NOTHING};
use crate::client::Streams;
use crate::zenoh_settings;

/// Arguments of `weir check`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir check weir.json5
  weir check -c base.json5 -c site.json5 --deny-warnings
  weir check -c zenohd.json5 --json

Takes every flag of `weir run` and looks at what would run. Nothing is started or created.

Exit status: 0 fine; 1 warnings, with --deny-warnings; 2 errors.")]
pub struct CheckArgs {
    /// Configuration files, as with --config
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,

    /// Exit with 1 if there are warnings
    #[arg(long)]
    pub deny_warnings: bool,

    /// Print one JSON object a line for each problem
    #[arg(long)]
    pub json: bool,

    /// What would run.
    #[command(flatten)]
    pub settings: SettingsArgs,
}

/// Arguments of `weir config`.
#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum ConfigCommand {
    /// Print the settings that `weir run` with the same flags would have
    Show(Box<ShowArgs>),
    /// Print the JSON schema of the configuration file
    Schema,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir config show --effective --origin
  weir config show -c weir.json5 --rest-http-port 9000 --origin

Secrets are masked. Exit status: 0 done; 2 the settings have errors.")]
struct ShowArgs {
    /// With everything that nobody set and holds by default
    #[arg(long)]
    effective: bool,

    /// With where each value was written
    #[arg(long)]
    origin: bool,

    /// What would run.
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Checks the settings and prints what is wrong with them.
pub fn check(args: CheckArgs, color: Color, streams: &mut Streams<'_>) -> Result<ExitCode> {
    let mut settings = args.settings;
    settings.config.extend(args.files);
    let mut loaded = load(&settings)?;
    if let Some(settings) = &loaded.settings {
        loaded.diagnostics.extend(check_directories(settings));
    }
    for remark in settings.remarks() {
        writeln!(streams.err, "{remark}")?;
    }
    if args.json {
        for diagnostic in &loaded.diagnostics {
            writeln!(streams.out, "{}", as_json(diagnostic, &loaded.sources))?;
        }
    } else {
        print(&loaded, color, streams.err)?;
        writeln!(streams.err, "{}", summary(&loaded))?;
    }
    streams.out.flush()?;
    Ok(exit_code(&loaded.diagnostics, args.deny_warnings))
}

/// Prints the settings, or their schema.
pub fn config(args: ConfigArgs, color: Color, streams: &mut Streams<'_>) -> Result<ExitCode> {
    match args.command {
        ConfigCommand::Schema => {
            writeln!(
                streams.out,
                "{}",
                serde_json::to_string_pretty(&weir_settings::schema())?
            )?;
        }
        ConfigCommand::Show(args) => {
            let mut loaded = load(&args.settings)?;
            print(&loaded, color, streams.err)?;
            let Some(settings) = &mut loaded.settings else {
                return Ok(ExitCode::from(EXIT_ERROR));
            };
            if !args.effective {
                let all = std::mem::take(&mut settings.effective);
                settings.effective =
                    written(all, "", &loaded.sources).unwrap_or_else(|| Value::Object(Map::new()));
            }
            write!(streams.out, "{}", weir_settings::show(&loaded, args.origin))?;
        }
    }
    streams.out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Reads every layer, and lets Zenoh look at its part.
pub fn load(args: &SettingsArgs) -> Result<Loaded> {
    let mut loaded = weir_settings::load(&args.layers(process_env())?);
    zenoh_settings::check(&mut loaded);
    Ok(loaded)
}

/// Prints diagnostics with source lines and carets.
pub fn print(loaded: &Loaded, color: Color, err: &mut dyn Write) -> Result<()> {
    if !loaded.diagnostics.is_empty() {
        let color = color.wanted(std::io::stderr().is_terminal());
        writeln!(
            err,
            "{}\n",
            loaded.sources.render(&loaded.diagnostics, color)
        )?;
    }
    Ok(())
}

fn summary(loaded: &Loaded) -> String {
    let (errors, warnings) = count(&loaded.diagnostics);
    let plural = |count, what| match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    let found = match (errors, warnings) {
        (0, 0) => "no problem".to_owned(),
        (errors, 0) => plural(errors, "error"),
        (0, warnings) => plural(warnings, "warning"),
        (errors, warnings) => {
            format!(
                "{}, {}",
                plural(errors, "error"),
                plural(warnings, "warning")
            )
        }
    };
    match &loaded.settings {
        Some(settings) if errors == 0 => {
            let storages = settings.storages.len();
            format!("{found}; {}", plural(storages, "storage"))
        }
        _ => found,
    }
}

fn count(diagnostics: &[Diagnostic]) -> (usize, usize) {
    let errors = diagnostics
        .iter()
        .filter(|d| d.severity == Severity::Error)
        .count();
    (errors, diagnostics.len() - errors)
}

fn exit_code(diagnostics: &[Diagnostic], deny_warnings: bool) -> ExitCode {
    match count(diagnostics) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) if deny_warnings => ExitCode::from(EXIT_NOTHING),
        (0, _) => ExitCode::SUCCESS,
        _ => ExitCode::from(EXIT_ERROR),
    }
}

fn as_json(diagnostic: &Diagnostic, sources: &Sources) -> Value {
    let severity = match diagnostic.severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    let (file, line, column) = match sources.origin(&diagnostic.path) {
        Origin::File { name, line, column } if diagnostic.location.is_some() => {
            (Some(name), Some(line), Some(column))
        }
        _ => (
            diagnostic
                .location
                .as_ref()
                .map(|location| location.file.clone()),
            None,
            None,
        ),
    };
    serde_json::json!({
        "severity": severity,
        "code": diagnostic.code,
        "path": diagnostic.path,
        "message": diagnostic.message,
        "help": diagnostic.help,
        "file": file,
        "line": line,
        "column": column,
    })
}

/// What somebody wrote, without what holds by default.
fn written(value: Value, path: &str, sources: &Sources) -> Option<Value> {
    match value {
        Value::Object(map) => {
            let inner = |name: &str| match path {
                "" => name.to_owned(),
                path => format!("{path}/{name}"),
            };
            let kept: Map<String, Value> = map
                .into_iter()
                .filter_map(|(name, value)| {
                    let value = written(value, &inner(&name), sources)?;
                    Some((name, value))
                })
                .collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        leaf => (sources.origin(path) != Origin::Default).then_some(leaf),
    }
}

#[cfg(test)]
mod tests;
