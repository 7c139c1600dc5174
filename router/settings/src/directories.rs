//! Whether directories are there, ours alone, and writable.

use crate::diagnostic::Diagnostic;
use crate::path::KeyPath;
use crate::settings::Settings;
use crate::storage::StorageSettings;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Looks for directories that cannot be used: by writing and removing a small file in each, or in
/// the nearest directory above that exists; and for storages that meet in one directory once
/// symbolic links are followed. Creates nothing.
#[must_use]
pub fn check_directories(settings: &Settings) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let mut real = Vec::new();
    for used in used(settings.storages.values()) {
        if let Err(diagnostic) = check_usable(&used) {
            diagnostics.push(*diagnostic);
        }
        let dir = canonical(&used.dir);
        // What is written alike was told when the settings were read.
        real.push(Used { dir, ..used });
    }
    diagnostics.extend(clashes(&real, |a, b| a.written != b.written));
    diagnostics
}

/// Storages that are told to use one directory, as far as that is written in so many words.
pub(crate) fn check_written<'s>(
    storages: impl Iterator<Item = &'s StorageSettings>,
) -> Vec<Diagnostic> {
    clashes(&used(storages), |_, _| true)
}

struct Used {
    /// The entry that says so.
    path: KeyPath,
    storage: String,
    dir: PathBuf,
    written: PathBuf,
    read_only: bool,
    create: bool,
}

fn used<'s>(storages: impl Iterator<Item = &'s StorageSettings>) -> Vec<Used> {
    storages
        .flat_map(|storage| {
            let several = storage.shards.len() > 1;
            storage
                .shards
                .iter()
                .enumerate()
                .filter_map(move |(index, shard)| {
                    let root = KeyPath::from_iter(["storages", &storage.name]);
                    let path = match several {
                        true => root.join("shards").join(index.to_string()).join("dir"),
                        false => root.join("dir"),
                    };
                    let dir = plain(shard.dir.as_ref()?);
                    Some(Used {
                        path,
                        storage: storage.name.clone(),
                        written: dir.clone(),
                        dir,
                        read_only: storage.read_only,
                        create: shard.create_db,
                    })
                })
        })
        .collect()
}

fn clashes(used: &[Used], new: impl Fn(&Used, &Used) -> bool) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let mut seen: BTreeMap<&Path, &Used> = BTreeMap::new();
    for b in used {
        let Some(a) = seen.get(b.dir.as_path()) else {
            seen.insert(&b.dir, b);
            continue;
        };
        if new(a, b) {
            let who = match a.storage == b.storage {
                true => format!("two shards of storage `{}`", a.storage),
                false => format!("storages `{}` and `{}`", a.storage, b.storage),
            };
            let message = format!("{who} are in one directory, `{}`", b.dir.display());
            let diagnostic = Diagnostic::error("weir::shared-directory", message)
                .help("give each a `dir` of its own");
            diagnostics.push(Diagnostic {
                path: b.path.to_string(),
                ..diagnostic
            });
        }
    }
    for b in used {
        // Ancestors only: the directory itself is the case above.
        let above = b.dir.ancestors().skip(1).find_map(|dir| seen.get(dir));
        if let Some(a) = above.filter(|a| new(a, b)) {
            let message = format!(
                "storage `{}` is inside of the directory of storage `{}`, `{}`",
                b.storage,
                a.storage,
                a.dir.display()
            );
            let diagnostic = Diagnostic::error("weir::shared-directory", message)
                .help("put them beside each other");
            diagnostics.push(Diagnostic {
                path: b.path.to_string(),
                ..diagnostic
            });
        }
    }
    diagnostics
}

fn check_usable(used: &Used) -> Result<(), Box<Diagnostic>> {
    let dir = &used.dir;
    let problem = |message: String, help: &str| {
        let diagnostic = Diagnostic::error("weir::unusable-directory", message).help(help);
        Err(Box::new(Diagnostic {
            path: used.path.to_string(),
            ..diagnostic
        }))
    };
    match fs::metadata(dir) {
        Ok(found) if !found.is_dir() => {
            return problem(
                format!("`{}` is no directory", dir.display()),
                "name another one",
            );
        }
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound && (used.read_only || !used.create) => {
            let message = format!("there is no directory `{}`", dir.display());
            return problem(
                message,
                "create it, or set `create_db: true` without `read_only`",
            );
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => {
            let message = format!("cannot use the directory `{}`: {e}", dir.display());
            return problem(
                message,
                "name another one, or give this user the right to use it",
            );
        }
    }
    if used.read_only {
        return match fs::read_dir(dir) {
            Ok(_) => Ok(()),
            Err(e) => problem(
                format!("cannot read the directory `{}`: {e}", dir.display()),
                "give this user the right to read it",
            ),
        };
    }
    match nearest(dir).map_or(Ok(()), |there| try_write(&there)) {
        Ok(()) => Ok(()),
        Err(e) => problem(
            format!("cannot write to the directory `{}`: {e}", dir.display()),
            "name another one, or give this user the right to write there",
        ),
    }
}

/// The directory, or the first one above it that exists.
fn nearest(dir: &Path) -> Option<PathBuf> {
    let there = |dir: &&Path| fs::exists(dir).unwrap_or(true);
    let found = dir.ancestors().map(or_here).find(there)?;
    Some(found.to_owned())
}

fn or_here(dir: &Path) -> &Path {
    if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    }
}

fn try_write(dir: &Path) -> io::Result<()> {
    let probe = dir.join(format!(".weir-check-{}", std::process::id()));
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&probe)?;
    fs::remove_file(&probe)
}

/// The directory with all links followed, as far as it exists.
fn canonical(dir: &Path) -> PathBuf {
    for above in dir.ancestors() {
        if let (Ok(real), Ok(rest)) = (fs::canonicalize(or_here(above)), dir.strip_prefix(above)) {
            return if rest.as_os_str().is_empty() {
                real
            } else {
                real.join(rest)
            };
        }
    }
    dir.to_owned()
}

/// The path without `.`, doubled slashes, and `x/..` where that is only a matter of writing.
fn plain(path: &Path) -> PathBuf {
    path.components()
        .filter(|part| *part != Component::CurDir)
        .collect()
}
