//! Whether directories are there, ours alone, and writable.

use crate::diagnostic::Diagnostic;
use crate::forward::ForwardSettings;
use crate::path::KeyPath;
use crate::policy::PolicySettings;
use crate::settings::Settings;
use crate::storage::StorageSettings;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Names in `data_dir` that are for the router's own files.
const OWN: [&str; 5] = ["clock", "forward", "id", "policy-cache", "spool"];

/// Looks for directories that cannot be used: by writing and removing a small file in each, or in
/// the nearest directory above that exists; and for storages and links that meet in one directory
/// once symbolic links are followed. Creates nothing.
#[must_use]
pub fn check_directories(settings: &Settings) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let mut probes = Probes::default();
    let mut real = Vec::new();
    for used in used(&settings.storages, &settings.forward) {
        if let Err(diagnostic) = check_usable(&used, &mut probes) {
            diagnostics.push(*diagnostic);
        }
        let dir = canonical(&used.dir);
        real.push(Used { dir, ..used });
    }
    // What is written alike was told when the settings were read.
    diagnostics.extend(clashes(&real, |a, b| {
        !a.written.starts_with(&b.written) && !b.written.starts_with(&a.written)
    }));
    diagnostics.extend(settings.policies.as_ref().and_then(check_policies));
    diagnostics
}

/// A policies' directory need not be there; but what is there has to be one.
fn check_policies(policies: &PolicySettings) -> Option<Diagnostic> {
    let dir = &policies.dir;
    if !dir.exists() || dir.is_dir() {
        return None;
    }
    let message = format!("`{}` is no directory", dir.display());
    let help = "name the directory where `NAME.wasm` files are dropped";
    let mut diagnostic = Diagnostic::error("weir::unusable-directory", message).help(help);
    diagnostic.path = KeyPath::parse("policies/dir").to_string();
    Some(diagnostic)
}

/// Storages and links that are told to use one directory, as far as that is written in so many words.
pub(crate) fn check_written(
    storages: &BTreeMap<String, StorageSettings>,
    links: &BTreeMap<String, ForwardSettings>,
    data_dir: &Path,
) -> Vec<Diagnostic> {
    let used = used(storages, links);
    let mut diagnostics = clashes(&used, |_, _| true);
    for used in &used {
        // Where spools and journals lie if nothing is said is theirs.
        let own = match used.what {
            What::Data => OWN.iter().find(|own| lies_in(used, data_dir, own)),
            What::Journal => {
                let mut others = OWN.iter().filter(|own| **own != "forward");
                others.find(|own| lies_in(used, data_dir, own))
            }
            What::Spool => None,
        };
        if let Some(own) = own {
            let own = plain(&data_dir.join(own));
            let message = format!("`{}` is for the router's own files", own.display());
            let help = match used.what {
                What::Journal => "name another `dir`",
                What::Data | What::Spool => "name another `dir`, or rename the storage",
            };
            diagnostics.push(used.error("weir::shared-directory", message, help));
        }
    }
    diagnostics
}

fn lies_in(used: &Used, data_dir: &Path, own: &str) -> bool {
    used.dir.starts_with(plain(&data_dir.join(own)))
}

/// A directory that a storage or a link uses.
struct Used {
    /// The entry that says so.
    path: KeyPath,
    /// The storage or link.
    owner: String,
    what: What,
    dir: PathBuf,
    written: PathBuf,
    read_only: bool,
    create: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum What {
    Data,
    Spool,
    Journal,
}

impl Used {
    fn error(&self, code: &'static str, message: String, help: &str) -> Diagnostic {
        let diagnostic = Diagnostic::error(code, message).help(help);
        Diagnostic {
            path: self.path.to_string(),
            ..diagnostic
        }
    }

    fn name(&self) -> String {
        match self.what {
            What::Data => format!("storage `{}`", self.owner),
            What::Spool => format!("the spool of storage `{}`", self.owner),
            What::Journal => format!("link `{}`", self.owner),
        }
    }
}

fn used(
    storages: &BTreeMap<String, StorageSettings>,
    links: &BTreeMap<String, ForwardSettings>,
) -> Vec<Used> {
    let mut all = Vec::new();
    for storage in storages.values() {
        let root = KeyPath::from_iter(["storages", &storage.name]);
        let mut add = |path: KeyPath, what: What, dir: &Path, create: bool| {
            let dir = plain(dir);
            all.push(Used {
                path,
                owner: storage.name.clone(),
                what,
                written: dir.clone(),
                dir,
                read_only: storage.read_only,
                create,
            });
        };
        for (index, shard) in storage.shards.iter().enumerate() {
            let Some(dir) = &shard.dir else { continue };
            let path = match storage.shards.len() {
                1 => root.join("dir"),
                _ => root.join("shards").join(index.to_string()).join("dir"),
            };
            add(path, What::Data, dir, shard.create_db);
        }
        // What is only read never waits to be written.
        if !storage.read_only {
            add(
                root.join("spool").join("dir"),
                What::Spool,
                &storage.spool.dir,
                true,
            );
        }
    }
    for link in links.values() {
        let dir = plain(&link.dir);
        all.push(Used {
            path: KeyPath::from_iter(["forward", &link.name, "dir"]),
            owner: link.name.clone(),
            what: What::Journal,
            written: dir.clone(),
            dir,
            read_only: false,
            create: true,
        });
    }
    all
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
            let who = match (a.what, b.what) {
                (What::Data, What::Data) if a.owner == b.owner => {
                    format!("two shards of storage `{}`", a.owner)
                }
                _ => format!("{} and {}", a.name(), b.name()),
            };
            let message = format!("{who} are in one directory, `{}`", b.dir.display());
            diagnostics.push(b.error("weir::shared-directory", message, "give each its own"));
        }
    }
    for b in used {
        // Ancestors only: the directory itself is the case above.
        let above = b.dir.ancestors().skip(1).find_map(|dir| seen.get(dir));
        if let Some(a) = above.filter(|a| new(a, b)) {
            let (b_name, a_name, dir) = (b.name(), a.name(), a.dir.display());
            let message = format!("{b_name} is inside of the directory of {a_name}, `{dir}`");
            diagnostics.push(b.error("weir::shared-directory", message, "put them side by side"));
        }
    }
    diagnostics
}

/// What came of writing to directories. Thousands of storages may share one that is there.
#[derive(Default)]
struct Probes(BTreeMap<PathBuf, Option<String>>);

impl Probes {
    /// Why a directory cannot be written to; for the first to ask, others have been told.
    fn fails(&mut self, dir: PathBuf) -> Option<String> {
        if self.0.contains_key(&dir) {
            return None;
        }
        let failure = try_write(&dir).err().map(|e| e.to_string());
        self.0.insert(dir, failure.clone());
        failure
    }
}

fn check_usable(used: &Used, probes: &mut Probes) -> Result<(), Box<Diagnostic>> {
    let dir = &used.dir;
    let problem = |message: String, help: &str| {
        Err(Box::new(used.error(
            "weir::unusable-directory",
            message,
            help,
        )))
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
    match nearest(dir).and_then(|there| probes.fails(there)) {
        None => Ok(()),
        Some(why) => problem(
            format!("cannot write to the directory `{}`: {why}", dir.display()),
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
