//! Events of the file system: hints that it is time to look, and nothing more.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind, RenameMode},
};

/// Watches the directory, its parent (so that it is noticed when it vanishes, returns or is swapped)
/// and the places where its links point.
pub(crate) struct Watches {
    watcher: Option<RecommendedWatcher>,
    /// What is watched, by path, with the device and inode that it was when the watch was set: a
    /// watch stays with its inode when another directory takes the path.
    placed: BTreeMap<PathBuf, (u64, u64)>,
    dir: PathBuf,
    is_told: bool,
}

impl Watches {
    /// Calls `wake` when something has happened that is worth a look, with the names of the policies
    /// whose files are finished, for all that the event tells. Where events cannot be had, there are
    /// none, and the log says so.
    pub(crate) fn new(dir: &Path, wake: impl Fn(Vec<String>) + Send + 'static) -> Self {
        let watched = dir.to_owned();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event
                .as_ref()
                .map_or(true, |event| matters(event, &watched))
            {
                wake(event.as_ref().map(finished).unwrap_or_default());
            }
        });
        let mut watches = Self {
            watcher: None,
            placed: BTreeMap::new(),
            dir: dir.to_owned(),
            is_told: false,
        };
        match watcher {
            Ok(watcher) => watches.watcher = Some(watcher),
            Err(error) => watches.tell(&error),
        }
        watches
    }

    /// Polls alone.
    pub(crate) fn none(dir: &Path) -> Self {
        Self {
            watcher: None,
            placed: BTreeMap::new(),
            dir: dir.to_owned(),
            is_told: false,
        }
    }

    /// Watches these places too and no others. Whether a watch was set that was not there: what
    /// happened before is to be looked for.
    pub(crate) fn keep(&mut self, places: &BTreeSet<PathBuf>) -> bool {
        let Some(mut watcher) = self.watcher.take() else {
            return false;
        };
        let mut wanted = places.clone();
        wanted.insert(self.dir.clone());
        wanted.extend(self.dir.parent().map(Path::to_owned));
        let wanted: BTreeMap<PathBuf, (u64, u64)> = wanted
            .into_iter()
            .filter_map(|path| {
                let meta = fs::metadata(&path).ok()?;
                Some((path, (meta.dev(), meta.ino())))
            })
            .collect();
        let stale: Vec<PathBuf> = self
            .placed
            .iter()
            .filter(|(path, id)| wanted.get(*path) != Some(*id))
            .map(|(path, _)| path.clone())
            .collect();
        for path in stale {
            self.placed.remove(&path);
            // The watch of a directory that is gone went with it: an error says no more than that.
            let _ = watcher.unwatch(&path);
        }
        let mut is_new = false;
        for (path, id) in wanted {
            if self.placed.contains_key(&path) {
                continue;
            }
            match watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.placed.insert(path, id);
                    is_new = true;
                }
                Err(error) => self.tell(&error),
            }
        }
        self.watcher = Some(watcher);
        is_new
    }

    fn tell(&mut self, error: &notify::Error) {
        if !std::mem::replace(&mut self.is_told, true) {
            let dir = self.dir.display();
            tracing::warn!(%dir, %error, "no events from the policies' directory: it is polled alone");
        }
    }
}

/// Whether an event is worth a look. Our own reading and our own notes beside refused files are not,
/// or every look would cause another; nor is what happens beside the directory.
fn matters(event: &notify::Event, dir: &Path) -> bool {
    let is_access = matches!(event.kind, EventKind::Access(_));
    let is_written = EventKind::Access(AccessKind::Close(AccessMode::Write));
    if is_access && event.kind != is_written {
        return false;
    }
    let matters = |path: &PathBuf| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let is_note = name.ends_with(".wasm.error") || name.ends_with(".wasm.error.tmp");
        let is_ours = path == dir || path.starts_with(dir);
        !is_note && (is_ours || name.ends_with(".wasm") || name.ends_with(".minisig"))
    };
    event.need_rescan() || event.paths.is_empty() || event.paths.iter().any(matters)
}

/// The policies whose files were closed by a writer or moved into place.
fn finished(event: &notify::Event) -> Vec<String> {
    let is_written = EventKind::Access(AccessKind::Close(AccessMode::Write));
    let is_moved = matches!(
        event.kind,
        EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both))
    );
    if event.kind != is_written && !is_moved {
        return Vec::new();
    }
    let name = |path: &PathBuf| {
        let file = path.file_name()?.to_str()?;
        let module = file.strip_suffix(".minisig").unwrap_or(file);
        Some(module.strip_suffix(".wasm")?.to_owned())
    };
    event.paths.iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{CreateKind, Flag};

    #[test]
    fn looks_only_for_what_others_have_done() {
        let created = EventKind::Create(CreateKind::File);
        let opened = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let read = EventKind::Access(AccessKind::Close(AccessMode::Read));
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        let rows = [
            (created, "/srv/policies/geo.wasm", true),
            (written, "/srv/policies/geo.wasm", true),
            (renamed, "/srv/policies/..data", true),
            (created, "/srv/policies/geo.wasm.minisig", true),
            (created, "/srv/policies", true),
            (created, "/elsewhere/geo.wasm", true),
            (opened, "/srv/policies/geo.wasm", false),
            (read, "/srv/policies/geo.wasm", false),
            (created, "/srv/policies/geo.wasm.error", false),
            (written, "/srv/policies/.geo.wasm.error.tmp", false),
            (created, "/srv/other", false),
            (created, "/srv/policies.old", false),
        ];
        for (kind, path, expected) in rows {
            let event = notify::Event::new(kind).add_path(path.into());
            assert_eq!(
                matters(&event, Path::new("/srv/policies")),
                expected,
                "{kind:?} {path}"
            );
        }
        let lost = notify::Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert!(matters(&lost, Path::new("/srv/policies")));
    }
}
