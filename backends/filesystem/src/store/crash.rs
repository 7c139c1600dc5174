//! Crashes at every step: what a kill -9 leaves is what the directory holds at that moment, so a copy
//! of it, taken there and opened later, is the crash.

use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
};

use weir_backend_api::{Direction, StoreSpec};
use weir_core::{
    key::KeyRange,
    record::Record,
    value::Value,
    version::{Stamp, Version},
};

use super::*;

/// The directory as it was at a step, and where its copy lies.
type Image = (Step, PathBuf);

thread_local! {
    /// Where copies go, and those taken.
    static IMAGES: RefCell<Option<(PathBuf, Vec<Image>)>> = const { RefCell::new(None) };
}

/// Takes a copy, if asked to on this thread.
pub(super) fn at(step: Step, dir: &Path) {
    IMAGES.with_borrow_mut(|images| {
        if let Some((root, taken)) = images {
            let image = root.join(taken.len().to_string());
            copy(dir, &image);
            taken.push((step, image));
        }
    });
}

/// Copies taken while `act` ran.
fn images(root: &Path, act: impl FnOnce()) -> Vec<Image> {
    fs::create_dir_all(root).unwrap();
    IMAGES.set(Some((root.to_owned(), Vec::new())));
    act();
    IMAGES.take().unwrap().1
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            // Without the time: a backup may lose it, and the content decides.
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn open(dir: &Path) -> FilesystemStore {
    FilesystemStore::open(&StoreSpec {
        dir: dir.to_owned(),
        create: true,
        history: true,
        ..StoreSpec::default()
    })
    .unwrap()
}

fn put(time: u64, payload: &str) -> Record {
    let value = Value::bytes(payload.to_owned());
    let version = Version::put(
        Stamp {
            time: time << 32,
            id: [7; 16],
        },
        value.hash(),
    );
    Record::own(version, Some(value))
}

fn delete(time: u64) -> Record {
    Record::own(
        Version::delete(Stamp {
            time: time << 32,
            id: [7; 16],
        }),
        None,
    )
}

/// What a store shows, and the files that a user sees.
#[derive(Clone, PartialEq, Eq, Debug)]
struct State {
    latest: Vec<(Key, Record)>,
    history: Vec<(Key, Record)>,
    rows: Vec<(Vec<u8>, Vec<u8>)>,
    keys: u64,
    files: Vec<(String, Vec<u8>)>,
}

impl State {
    fn of(store: &FilesystemStore) -> Self {
        let all = KeyRange::all();
        let snapshot = store.snapshot().unwrap();
        let latest: Vec<_> = snapshot
            .latest(&all, Direction::Forward)
            .map(Result::unwrap)
            .collect();
        let heads = store.heads(&latest.iter().map(|(key, _)| key).collect::<Vec<_>>());
        for ((key, record), head) in latest.iter().zip(heads.unwrap()) {
            assert_eq!(head, Some(record.head), "{key:?}");
        }
        let mut files = Vec::new();
        list(store.shared.files.dir(), "", &mut files);
        files.sort();
        Self {
            latest,
            history: snapshot
                .history(&all, None, Direction::Forward)
                .map(Result::unwrap)
                .collect(),
            rows: store.rows(Table::Jobs, b"", 9).unwrap(),
            keys: store.count().unwrap().keys,
            files,
        }
    }
}

fn list(dir: &Path, prefix: &str, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            if name != names::SIDECAR {
                list(&entry.path(), &format!("{name}/"), files);
            }
        } else {
            files.push((name, fs::read(entry.path()).unwrap()));
        }
    }
}

/// A store with something of everything, closed.
fn prepare_store(dir: &Path) {
    let store = open(dir);
    let keys = ["", "a", "b/c", "b/d", "e", "f/../g"].map(Key::from);
    let record = put(1, "one");
    let batch: Vec<_> = keys
        .iter()
        .map(|key| Write::Latest {
            key,
            record: record.as_ref(),
        })
        .collect();
    store.commit(&batch, Durability::Synced).unwrap();
    Box::new(store).close().unwrap();
}

/// A batch that replaces, deletes, forgets, makes a conflict both ways, and writes other rows.
fn commit_batch(store: &FilesystemStore) {
    let (two, gone) = (put(2, "two"), delete(2));
    let [root, a, under_a, c, d, b, e, g, new] =
        ["", "a", "a/x/y", "b/c", "b/d", "b", "e", "f/../g", "n/e/w"].map(Key::from);
    let latest = |key, record: &'static Record| Write::Latest {
        key,
        record: record.as_ref(),
    };
    let (two, gone): (&'static _, &'static _) =
        (Box::leak(Box::new(two)), Box::leak(Box::new(gone)));
    let batch = [
        latest(&root, two),
        latest(&under_a, two),
        latest(&a, two),
        latest(&c, gone),
        Write::ForgetLatest { key: &d },
        latest(&b, gone),
        latest(&b, two),
        latest(&e, gone),
        latest(&g, two),
        latest(&new, two),
        Write::History {
            key: &a,
            record: two.as_ref(),
        },
        Write::Row {
            table: Table::Jobs,
            key: vec![1],
            value: Some(vec![2]),
        },
    ];
    store.commit(&batch, Durability::Written).unwrap();
}

#[test]
fn a_crash_at_any_step_leaves_the_whole_batch_or_nothing_of_it() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    prepare_store(&dir);
    let before = {
        let store = open(&dir);
        let state = State::of(&store);
        Box::new(store).close().unwrap();
        state
    };
    let store = open(&dir);
    let taken = images(&temp.path().join("first"), || commit_batch(&store));
    let after = State::of(&store);
    assert_ne!(before, after);
    let mut writer = store.writer().unwrap().lock();
    let checkpoint = images(&temp.path().join("second"), || writer.checkpoint().unwrap());
    drop(writer);

    let steps: Vec<_> = taken
        .iter()
        .chain(&checkpoint)
        .map(|(step, _)| *step)
        .collect();
    for step in [
        Step::Staged,
        Step::Logged,
        Step::Kept,
        Step::Moved,
        Step::Shown,
        Step::FilesSynced,
        Step::IndexSynced,
        Step::Cut,
    ] {
        assert!(steps.contains(&step), "no crash at {step:?}");
    }
    for (number, (step, image)) in taken.iter().chain(&checkpoint).enumerate() {
        let expected = if *step == Step::Staged {
            &before
        } else {
            &after
        };
        // The recovery itself crashes, too: once at every kind of step, for every kind of step.
        let root = temp.path().join(format!("third-{number}"));
        let is_first = steps.iter().position(|other| other == step) == Some(number);
        let mut opened = None;
        let mut again = Vec::new();
        if is_first {
            again = images(&root, || opened = Some(open(image)));
            again.dedup_by_key(|(step, _)| *step);
        }
        let store = opened.unwrap_or_else(|| open(image));
        assert_eq!(&State::of(&store), expected, "crash {number} at {step:?}");
        drop(store);
        for (later, image) in again {
            let store = open(&image);
            let state = State::of(&store);
            assert_eq!(
                &state, expected,
                "crash {number} at {step:?}, then at {later:?}"
            );
        }
    }
}

#[test]
fn a_torn_log_leaves_what_was_before() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    prepare_store(&dir);
    let store = open(&dir);
    let before = State::of(&store);
    let taken = images(&temp.path().join("images"), || commit_batch(&store));
    let (_, image) = taken
        .iter()
        .find(|(step, _)| *step == Step::Logged)
        .unwrap();
    let log = image.join(".weir/log");
    let whole = fs::read(&log).unwrap();
    for cut in [0, 1, 15, 16, 24, whole.len() / 2, whole.len() - 1] {
        fs::write(&log, &whole[..cut]).unwrap();
        let store = open(image);
        assert_eq!(State::of(&store), before, "torn after {cut} bytes");
        Box::new(store).close().unwrap();
    }
}

#[test]
fn a_damaged_log_is_kept_and_what_is_before_the_damage_holds() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    prepare_store(&dir);
    let store = open(&dir);
    commit_batch(&store);
    let before = State::of(&store);
    let log = dir.join(".weir/log");
    let good = fs::metadata(&log).unwrap().len();
    let (key, record) = (Key::from("last"), put(9, "nine"));
    let batch = [Write::Latest {
        key: &key,
        record: record.as_ref(),
    }];
    let taken = images(&temp.path().join("images"), || {
        store.commit(&batch, Durability::Written).unwrap();
    });
    let (_, image) = taken
        .iter()
        .find(|(step, _)| *step == Step::Logged)
        .unwrap();
    let log = image.join(".weir/log");
    let mut bytes = fs::read(&log).unwrap();
    let at = usize::try_from(good).unwrap() + 40;
    bytes[at] ^= 4;
    fs::write(&log, &bytes).unwrap();
    let store = open(image);
    assert_eq!(State::of(&store), before);
    assert_eq!(fs::read(image.join(".weir/log.damaged")).unwrap(), bytes);
}

#[test]
fn a_full_log_is_cut() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path());
    let record = put(1, &"x".repeat(1 << 20));
    for n in 0..40 {
        let key = Key::new(format!("k/{n}"));
        let batch = [Write::Latest {
            key: &key,
            record: record.as_ref(),
        }];
        store.commit(&batch, Durability::Written).unwrap();
        let log = fs::metadata(temp.path().join(".weir/log")).unwrap().len();
        assert!(log <= LOG_BYTES_MAX + (1 << 20), "{log} bytes of log");
    }
    let bytes = store.count().unwrap().bytes;
    assert!((40 << 20..70 << 20).contains(&bytes), "{bytes}");
}
