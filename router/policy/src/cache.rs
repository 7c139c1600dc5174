//! Machine code of modules that were compiled before, in a directory that only the router can write.
//!
//! A file holds: magic (8 bytes), the hooks (1), blake3 of what follows (32), the code. Its name says
//! what it was made of and for: the module's hash, the engine, and a hash of everything that makes
//! code of one build unfit for another. Whoever can write here can run code as the router, so a
//! directory that others can write is refused.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use wasmtime::Engine;

use crate::{engine::Metering, environment::Hooks};

const MAGIC: &[u8; 8] = b"WEIRPC01";
const HEADER_LEN: usize = MAGIC.len() + 1 + blake3::OUT_LEN;
/// Bytes of all files; the one not used longest goes first. Python's interpreter takes some 60 MB.
const BYTES_MAX: u64 = 1 << 30;

pub(crate) struct Cache {
    directory: PathBuf,
    bytes_max: u64,
}

/// What a file holds.
pub(crate) struct Compiled {
    pub hooks: Hooks,
    bytes: Vec<u8>,
}

impl Compiled {
    /// As `Component::serialize` made it.
    pub fn code(&self) -> &[u8] {
        &self.bytes[HEADER_LEN..]
    }
}

impl Cache {
    /// The cache in this directory, which is created if it is not there.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory)?;
        let found = fs::symlink_metadata(directory)?;
        let refuse = |why: &str| {
            let directory = directory.display();
            Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{directory} {why}: whoever can write there can run code as the router"),
            ))
        };
        if !found.is_dir() {
            return refuse("is no directory");
        }
        if found.permissions().mode() & 0o077 != 0 {
            return refuse("is open to others, make it mode 0700");
        }
        // A file of our own shows who we are; there is no safe call that tells.
        let probe = directory.join(format!(".probe-{}", std::process::id()));
        let owner = fs::File::create(&probe)
            .and_then(|file| file.metadata())?
            .uid();
        fs::remove_file(&probe)?;
        if owner != found.uid() {
            return refuse("belongs to somebody else");
        }
        Ok(Self {
            directory: directory.to_owned(),
            bytes_max: BYTES_MAX,
        })
    }

    fn path(&self, module: &blake3::Hash, engine: &Engine, metering: Metering) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        // What was accepted by an older build may be refused by this one.
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        let (fit, metering) = (hasher.finish(), metering.name());
        let module = module.to_hex();
        self.directory
            .join(format!("{module}-{metering}-{fit:016x}.code"))
    }

    /// What was stored for the module; a file that is damaged is removed.
    pub fn get(
        &self,
        module: &blake3::Hash,
        engine: &Engine,
        metering: Metering,
    ) -> Option<Compiled> {
        let path = self.path(module, engine, metering);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read a compiled policy");
                return None;
            }
        };
        let compiled = decode(bytes);
        if compiled.is_none() {
            tracing::warn!(path = %path.display(), "a compiled policy is damaged; it is compiled again");
            self.remove(&path);
        } else if let Err(error) = touch(&path) {
            tracing::debug!(path = %path.display(), %error, "cannot mark a compiled policy as used");
        }
        compiled
    }

    /// Stores what was compiled. A failure costs the time to compile again, and is logged.
    pub fn put(
        &self,
        module: &blake3::Hash,
        engine: &Engine,
        metering: Metering,
        hooks: Hooks,
        code: &[u8],
    ) {
        let path = self.path(module, engine, metering);
        if let Err(error) = self
            .write(&path, hooks, code)
            .and_then(|()| self.trim(&path))
        {
            tracing::warn!(path = %path.display(), %error, "cannot keep a compiled policy");
        }
    }

    /// Forgets what was stored for the module.
    pub fn forget(&self, module: &blake3::Hash, engine: &Engine, metering: Metering) {
        self.remove(&self.path(module, engine, metering));
    }

    fn write(&self, path: &Path, hooks: Hooks, code: &[u8]) -> io::Result<()> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let pid = std::process::id();
        let temporary = self.directory.join(format!(".new-{pid}-{number}"));
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        let written = file
            .write_all(MAGIC)
            .and_then(|()| file.write_all(&[hooks.bits()]))
            .and_then(|()| file.write_all(digest(hooks, code).as_bytes()))
            .and_then(|()| file.write_all(code))
            .and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            self.remove(&temporary);
        }
        written
    }

    /// Removes the files that were not used longest until the rest fits; never `newest`.
    fn trim(&self, newest: &Path) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            // Another router that shares the directory may remove files meanwhile.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_file() && entry.path() != newest {
                files.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        files.sort();
        let mut total = fs::metadata(newest)?.len() + files.iter().map(|file| file.1).sum::<u64>();
        for (_, length, path) in files {
            if total <= self.bytes_max {
                break;
            }
            self.remove(&path);
            total -= length;
        }
        Ok(())
    }

    fn remove(&self, path: &Path) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "cannot remove a compiled policy");
            }
            _ => {}
        }
    }
}

fn digest(hooks: Hooks, code: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[hooks.bits()]).update(code).finalize()
}

fn decode(bytes: Vec<u8>) -> Option<Compiled> {
    let (header, code) = bytes.split_at_checked(HEADER_LEN)?;
    let (magic, rest) = header.split_at(MAGIC.len());
    let (hooks, expected) = rest.split_first()?;
    let hooks = Hooks::from_bits(*hooks)?;
    let sound = magic == MAGIC && digest(hooks, code).as_bytes() == expected;
    sound.then_some(Compiled { hooks, bytes })
}

fn touch(path: &Path) -> io::Result<()> {
    let file = fs::OpenOptions::new().append(true).open(path)?;
    file.set_modified(std::time::SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Hook;

    const MODULE: &[u8] = b"a module";

    fn cache(directory: &Path) -> (Cache, Engine, blake3::Hash) {
        let cache = Cache::open(&directory.join("cache")).unwrap();
        (cache, Engine::default(), blake3::hash(MODULE))
    }

    fn hooks() -> Hooks {
        [Hook::Route, Hook::Resolve].into_iter().collect()
    }

    #[test]
    fn no_flipped_bit_and_no_cut_goes_unnoticed() {
        let directory = tempfile::tempdir().unwrap();
        let (cache, engine, module) = cache(directory.path());
        let code = b"machine code";
        let path = cache.path(&module, &engine, Metering::Fuel);
        assert!(cache.get(&module, &engine, Metering::Fuel).is_none());
        cache.put(&module, &engine, Metering::Fuel, hooks(), code);
        let whole = fs::read(&path).unwrap();
        let back = cache.get(&module, &engine, Metering::Fuel).unwrap();
        assert_eq!((back.hooks, back.code()), (hooks(), &code[..]));
        assert!(cache.get(&module, &engine, Metering::Time).is_none());
        for index in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[index] ^= 1 << bit;
                assert!(decode(flipped).is_none(), "bit {bit} of byte {index}");
            }
            fs::write(&path, &whole[..index]).unwrap();
            assert!(
                cache.get(&module, &engine, Metering::Fuel).is_none(),
                "cut at {index}"
            );
            assert!(!path.exists(), "a damaged file is removed");
        }
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("open");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).unwrap();
        let error = Cache::open(&path).err().unwrap();
        assert!(error.to_string().contains("0700"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        Cache::open(&path).unwrap();
        std::os::unix::fs::symlink(&path, directory.path().join("link")).unwrap();
        assert!(Cache::open(&directory.path().join("link")).is_err());
    }

    #[test]
    fn the_file_that_was_not_used_longest_goes_first() {
        let directory = tempfile::tempdir().unwrap();
        let (mut cache, engine, _) = cache(directory.path());
        cache.bytes_max = 250;
        let module = |n: u8| blake3::hash(&[n]);
        for n in 0..3 {
            cache.put(&module(n), &engine, Metering::Time, hooks(), &[n; 60]);
            let path = cache.path(&module(n), &engine, Metering::Time);
            let used = std::time::UNIX_EPOCH + std::time::Duration::from_secs(u64::from(n) + 1);
            // Only the test's own clock decides what is older.
            if n < 2 {
                fs::File::open(path).unwrap().set_modified(used).unwrap();
            }
        }
        let kept = |n| cache.get(&module(n), &engine, Metering::Time).is_some();
        assert_eq!([kept(0), kept(1), kept(2)], [false, true, true]);
    }
}
