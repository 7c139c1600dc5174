//! What the commands share: loading modules, settings, and where guests are built.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueHint};
use weir_policy::harness::case::Case;
use weir_policy::harness::cases::{self, Entry};
use weir_policy::{Environment, Hook, Host, Limits, Revision, Settings};

/// Where a policy is made to believe that it is.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Environment")]
pub(super) struct EnvironmentArgs {
    /// The policy's own settings: JSON, or a file that holds it [default: those of its cases]
    #[arg(long, value_name = "JSON|FILE", value_hint = ValueHint::FilePath)]
    settings: Option<String>,

    /// The names of the storage's shards, for `route` [default: those of its cases]
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    shards: Option<Vec<String>>,

    /// The router's zone
    #[arg(long, value_name = "ZONE", default_value = "")]
    zone: String,
}

impl EnvironmentArgs {
    /// The environment, if the command line says anything about it.
    pub(super) fn given(&self) -> Result<Option<Environment>> {
        if self.settings.is_none() && self.shards.is_none() && self.zone.is_empty() {
            return Ok(None);
        }
        Ok(Some(Environment {
            router_id: String::new(),
            zone: self.zone.clone(),
            shards: self.shards.clone().unwrap_or_default(),
            settings_json: match &self.settings {
                Some(settings) => read_settings(settings)?,
                None => "{}".to_owned(),
            },
        }))
    }

    /// The environment for one hook: what is given, else that of the first case in which the policy
    /// starts, else an empty one.
    pub(super) fn resolve(
        &self,
        revision: &Revision,
        hook: Hook,
        cases: &[Case],
    ) -> Result<Environment> {
        if let Some(given) = self.given()? {
            return Ok(match hook {
                Hook::Resolve => Environment::for_resolve(given.settings_json),
                Hook::Route | Hook::Prioritize => given,
            });
        }
        let of_hook = cases.iter().filter(|case| case.hook == hook);
        let told = of_hook.map(|case| &case.environment);
        let starts = told.clone().find(|told| revision.manifest(told).is_ok());
        Ok(starts.cloned().unwrap_or_default())
    }
}

/// Whose limits hold.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct LimitsArgs {
    /// A router's configuration, whose limits of policies hold; may be repeated [default: the limits
    /// of a router that says nothing]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Vec<PathBuf>,
}

impl LimitsArgs {
    pub(super) fn limits(&self) -> Result<Limits> {
        if self.config.is_empty() {
            return Ok(Limits::default());
        }
        let loaded = weir_settings::load(&weir_settings::Layers {
            files: self.config.clone(),
            ..weir_settings::Layers::default()
        });
        match loaded.settings {
            Some(settings) => {
                let policies = settings.policies.as_ref();
                let limits = policies.map(|policies| crate::policies::limits(&policies.limits));
                Ok(limits.unwrap_or_default())
            }
            None => bail!("the configuration has mistakes: `weir check` tells which"),
        }
    }
}

/// A module that was loaded.
pub(super) struct Module {
    pub(super) revision: Arc<Revision>,
    pub(super) path: PathBuf,
    pub(super) cases: Vec<Entry>,
}

impl Module {
    /// The cases that could be read.
    pub(super) fn sound_cases(&self) -> Vec<Case> {
        let sound = self
            .cases
            .iter()
            .filter_map(|entry| entry.case.as_ref().ok());
        sound.cloned().collect()
    }

    /// The hook that is meant: the one that was named, or the only one there is.
    pub(super) fn hook(&self, named: Option<HookArg>) -> Result<Hook> {
        let hooks = self.revision.hooks;
        match named.map(Hook::from) {
            Some(hook) if hooks.contains(hook) => Ok(hook),
            Some(hook) => bail!(
                "{} does not serve {hook}; it serves {hooks}",
                self.path.display()
            ),
            None => {
                let mut all = hooks.iter();
                match (all.next(), all.next()) {
                    (Some(only), None) => Ok(only),
                    _ => bail!(
                        "{} serves {hooks}: say which with --hook",
                        self.path.display()
                    ),
                }
            }
        }
    }
}

/// A hook on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum HookArg {
    /// Which shard of a storage keeps a sample
    Route,
    /// What becomes of two concurrent versions
    Resolve,
    /// What leaves a backlog first
    Prioritize,
}

impl From<HookArg> for Hook {
    fn from(hook: HookArg) -> Self {
        match hook {
            HookArg::Route => Self::Route,
            HookArg::Resolve => Self::Resolve,
            HookArg::Prioritize => Self::Prioritize,
        }
    }
}

/// A host with a router's limits.
pub(super) fn host(limits: Limits) -> Result<Arc<Host>> {
    Ok(Host::new(Settings {
        limits,
        cache: None,
        compile_in_parallel: true,
    })?)
}

/// Loads a module with its cases: those in `cases`, or those beside it.
pub(super) fn load(host: &Arc<Host>, path: &Path, cases: Option<&Path>) -> Result<Module> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let revision = host
        .load(&name, &bytes)
        .map_err(|refusal| anyhow!("{} is refused: {refusal}", path.display()))?;
    Ok(Module {
        revision,
        path: path.to_owned(),
        cases: read_cases(path, cases)?,
    })
}

/// The cases in `cases`, or those beside the module.
pub(super) fn read_cases(module: &Path, cases: Option<&Path>) -> Result<Vec<Entry>> {
    let places = match cases {
        Some(place) => vec![place.to_owned()],
        None => cases::beside(module),
    };
    let mut entries = Vec::new();
    for place in places {
        entries.extend(cases::read(&place).context("cannot read cases")?);
    }
    Ok(entries)
}

fn read_settings(given: &str) -> Result<String> {
    let text = if given.trim_start().starts_with('{') {
        given.to_owned()
    } else {
        std::fs::read_to_string(given)
            .with_context(|| format!("cannot read the settings in {given}"))?
    };
    let json: serde_json::Value =
        serde_json::from_str(&text).context("the policy's settings are no JSON")?;
    if !json.is_object() {
        bail!("the policy's settings are an object: {{ \"name\": value }}");
    }
    Ok(text)
}

/// `98.3 KiB`.
pub(super) fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}

/// Makes text stand out on a terminal.
#[derive(Clone, Copy)]
pub(super) struct Paint(pub(super) bool);

impl Paint {
    pub(super) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_an_object_here_or_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s.json");
        std::fs::write(&file, "{\"a\": 1}").unwrap();
        let file = file.display().to_string();
        let rows = [
            ("{}", Ok("{}")),
            (" {\"a\": 1}", Ok(" {\"a\": 1}")),
            (&file, Ok("{\"a\": 1}")),
            ("{", Err("no JSON")),
            ("/nonexistent.json", Err("cannot read")),
        ];
        for (given, expected) in rows {
            let read = read_settings(given).map_err(|error| error.to_string());
            match (read, expected) {
                (Ok(read), Ok(expected)) => assert_eq!(read, expected),
                (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
                other => panic!("{given}: {other:?}"),
            }
        }
    }
}
