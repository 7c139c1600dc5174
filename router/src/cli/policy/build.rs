//! `weir policy build`: from sources to a module, by the one script that tests and CI use.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueHint};

use crate::client::Streams;

/// The script, for who has this program and not the repository.
const SCRIPT: &str = include_str!("../../../../policies/build");

/// Arguments of `weir policy build`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir policy build                       the policy in this directory
  weir policy build my-policy --out policies.d

Prints the path of each module. A policy is built when something of it changed; its module is
replaced in one step, so --out may be a directory that a router watches.

Exit status: 0 built; 2 error.")]
pub(super) struct BuildArgs {
    /// Directories of policies
    #[arg(value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    dirs: Vec<PathBuf>,

    /// Where the modules go [default: beside their sources]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,
}

/// Runs `weir policy build`.
pub(super) fn build(args: &BuildArgs, streams: &mut Streams<'_>) -> Result<ExitCode> {
    for dir in &args.dirs {
        if !dir.is_dir() {
            bail!("{} is no directory", dir.display());
        }
        let module = build_one(dir, Some(args.out.as_deref().unwrap_or(dir)), streams.err)?;
        writeln!(streams.out, "{}", module.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether the script may know what to do with a directory.
pub(super) fn is_project(dir: &Path) -> bool {
    const MARKS: [&str; 4] = ["Cargo.toml", "policy.js", "policy.py", "policy.c"];
    MARKS.iter().any(|mark| dir.join(mark).is_file())
}

/// Builds one policy and gives its module, in the script's own cache unless `out` says where. What the
/// tools say goes to standard error as it comes.
pub(super) fn build_one(dir: &Path, out: Option<&Path>, err: &mut dyn Write) -> Result<PathBuf> {
    err.flush()?;
    let dir = dir
        .canonicalize()
        .with_context(|| format!("cannot find {}", dir.display()))?;
    let mut command = Command::new("bash");
    let own;
    match script_of_repository(&dir) {
        Some(script) => {
            command.arg(script);
        }
        None => {
            own = OwnScript::write()?;
            command.arg(&own.0);
        }
    }
    if let Some(out) = out {
        command.arg("--out").arg(out);
    }
    let output = command
        .arg(&dir)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run bash, which builds policies")?;
    if !output.status.success() {
        bail!("{} was not built", dir.display());
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    match printed.lines().next_back() {
        Some(module) => Ok(PathBuf::from(module)),
        None => bail!("the build of {} names no module", dir.display()),
    }
}

/// The script of the repository that a policy lies in: it may be newer than this program's.
fn script_of_repository(dir: &Path) -> Option<PathBuf> {
    let scripts = dir.ancestors().map(|dir| dir.join("policies/build"));
    scripts.into_iter().find(|script| {
        let sdk = script.with_file_name("sdk");
        script.is_file() && sdk.is_dir()
    })
}

/// The program's own script in a file that goes away with it.
struct OwnScript(PathBuf);

impl OwnScript {
    fn write() -> Result<Self> {
        let name = format!("weir-policy-build-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Never through a link that somebody else has put there.
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let own = Self(path);
        file.write_all(SCRIPT.as_bytes())?;
        Ok(own)
    }
}

impl Drop for OwnScript {
    fn drop(&mut self) {
        // A script in the directory for temporary files harms nobody.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_inside_the_repository_is_built_by_its_script() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let script = script_of_repository(&repository.join("policies/route/by-region"));
        assert_eq!(script, Some(repository.join("policies/build")));
        let elsewhere = tempfile::tempdir().unwrap();
        assert_eq!(script_of_repository(elsewhere.path()), None);
    }

    #[test]
    fn the_programs_own_script_is_whole_and_goes_away() {
        let own = OwnScript::write().unwrap();
        let path = own.0.clone();
        let help = Command::new("bash")
            .arg(&path)
            .arg("--help")
            .output()
            .unwrap();
        assert!(
            String::from_utf8_lossy(&help.stdout).contains("--out DIR"),
            "{help:?}"
        );
        drop(own);
        assert!(!path.exists());
    }
}
