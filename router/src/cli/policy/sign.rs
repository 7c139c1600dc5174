//! `weir policy keygen`, `sign` and `verify`: minisign's keys and signatures.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueHint};
use weir_policy::harness::signing;
use weir_policy::signature::{self, Key};

use crate::cli::EXIT_NOTHING;
use crate::client::Streams;

/// Where a password comes from: a command line is for everybody to read.
const PASSWORD: &str = "WEIR_POLICY_PASSWORD";

/// Arguments of `weir policy keygen`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir policy keygen ops                  writes ops.key (secret) and ops.pub
  WEIR_POLICY_PASSWORD=... weir policy keygen ops

With a password in WEIR_POLICY_PASSWORD the secret key is locked with it. The files are minisign's:
`minisign -S -s ops.key -m geo.wasm` signs as `weir policy sign` does. Routers take ops.pub in
`policies.keys`.

Exit status: 0 written; 2 error.")]
pub(super) struct KeygenArgs {
    /// Name of the two files, without .key and .pub
    #[arg(value_name = "NAME", value_hint = ValueHint::FilePath)]
    name: PathBuf,
}

/// Arguments of `weir policy sign`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  weir policy sign geo.wasm --key ops.key --comment 'released by ops'

Writes geo.wasm.minisig, which goes beside geo.wasm into the policies' directory; put it there first.
A locked key is unlocked with WEIR_POLICY_PASSWORD.

Exit status: 0 signed; 2 error.")]
pub(super) struct SignArgs {
    /// The module
    #[arg(value_name = "FILE.wasm", value_hint = ValueHint::FilePath)]
    module: PathBuf,

    /// The secret key
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    key: PathBuf,

    /// What is signed with the module and shown by routers [default: the time and the file's name]
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

/// Arguments of `weir policy verify`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  weir policy verify geo.wasm --key ops.pub

Exit status: 0 one of the keys has signed it; 1 none has; 2 error.")]
pub(super) struct VerifyArgs {
    /// The module; its signature is FILE.wasm.minisig
    #[arg(value_name = "FILE.wasm", value_hint = ValueHint::FilePath)]
    module: PathBuf,

    /// A public key: a file, or its second line; may be repeated
    #[arg(long, value_name = "FILE|KEY", required = true, value_hint = ValueHint::FilePath)]
    key: Vec<String>,
}

/// Runs `weir policy keygen`.
pub(super) fn keygen(args: &KeygenArgs, streams: &mut Streams<'_>) -> Result<ExitCode> {
    let named = |ending: &str| {
        let mut name = args.name.clone().into_os_string();
        name.push(ending);
        PathBuf::from(name)
    };
    let (secret, public) = (named(".key"), named(".pub"));
    for file in [&secret, &public] {
        if file.exists() {
            bail!(
                "{} is there already, and a key that is lost cannot be made again",
                file.display()
            );
        }
    }
    let password = password();
    let is_locked = password.is_some();
    let keys = signing::generate(password)?;
    write_new(&secret, &keys.secret, 0o600)?;
    write_new(&public, &keys.public, 0o644)?;
    let lock = if is_locked {
        "locked"
    } else {
        "not locked with a password"
    };
    writeln!(streams.out, "{}: the secret key, {lock}", secret.display())?;
    writeln!(
        streams.out,
        "{}: the public key {}",
        public.display(),
        Key::parse(&keys.public)?.id()
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Runs `weir policy sign`.
pub(super) fn sign(args: &SignArgs, streams: &mut Streams<'_>) -> Result<ExitCode> {
    let bytes = read(&args.module)?;
    let key = args.key.display();
    let secret =
        std::fs::read_to_string(&args.key).with_context(|| format!("cannot read {key}"))?;
    let comment = match &args.comment {
        Some(comment) if comment.contains(['\n', '\r']) => bail!("a comment is one line"),
        Some(comment) => comment.clone(),
        None => {
            let now = humantime::format_rfc3339_seconds(SystemTime::now());
            format!("{now} {}", file_name(&args.module))
        }
    };
    let signature = signing::sign(&bytes, &secret, password(), &comment)
        .with_context(|| format!("cannot sign with {key} (a password goes into {PASSWORD})"))?;
    let file = signature_of(&args.module);
    // Renamed at the end: a router that watches never sees half a signature.
    let mut new = file.clone().into_os_string();
    new.push(".new");
    std::fs::write(&new, signature)
        .and_then(|()| std::fs::rename(&new, &file))
        .with_context(|| format!("cannot write {}", file.display()))?;
    writeln!(streams.out, "{}", file.display())?;
    Ok(ExitCode::SUCCESS)
}

/// Runs `weir policy verify`.
pub(super) fn verify(args: &VerifyArgs, streams: &mut Streams<'_>) -> Result<ExitCode> {
    let bytes = read(&args.module)?;
    let mut keys = Vec::new();
    for key in &args.key {
        let path = Path::new(key);
        let parsed = if path.exists() {
            Key::read(path)
        } else {
            Key::parse(key)
        };
        keys.push(parsed.with_context(|| format!("{key} is neither a key nor the file of one"))?);
    }
    let file = signature_of(&args.module);
    let signature = match std::fs::read_to_string(&file) {
        Ok(text) => Some(Ok(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(error.to_string())),
    };
    let name = args
        .module
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy();
    let module = args.module.display();
    match signature::verify(&name, &bytes, signature.as_ref(), &keys) {
        Ok(signer) => {
            writeln!(
                streams.out,
                "{module}: signed by {}: {}",
                signer.key_id, signer.comment
            )?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            writeln!(streams.err, "{module}: {error}")?;
            Ok(ExitCode::from(EXIT_NOTHING))
        }
    }
}

fn password() -> Option<String> {
    std::env::var(PASSWORD)
        .ok()
        .filter(|password| !password.is_empty())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn signature_of(module: &Path) -> PathBuf {
    let mut file = module.as_os_str().to_owned();
    file.push(".minisig");
    PathBuf::from(file)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}
