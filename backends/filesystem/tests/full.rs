//! A real full disk: nothing committed is lost or torn, and writing resumes when there is space.

#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps and fails says where"
)]

use std::{fs, io::Write as _, path::Path, process::Command};

use weir_backend_api::{Durability, ErrorKind, Result, Store, StoreSpec, Volume};
use weir_backend_filesystem::FilesystemVolume;
use weir_core::{
    change::Write,
    key::Key,
    record::Record,
    value::Value,
    version::{Stamp, Version},
};

/// A small file system in memory, until it is dropped.
struct Mount(tempfile::TempDir);

impl Mount {
    /// Nothing, and a line for the test runner, if this user may not mount.
    fn new(test: &str, bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "none"])
            .arg(dir.path())
            .output()
            .unwrap();
        if mount.status.success() {
            return Some(Self(dir));
        }
        if let Some(skipped) = std::env::var_os("WEIR_SKIPPED") {
            let mut skipped = fs::File::options()
                .append(true)
                .create(true)
                .open(skipped)
                .unwrap();
            writeln!(skipped, "{test}\tthis user may not mount a tmpfs").unwrap();
        }
        None
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let umount = Command::new("umount").arg(self.0.path()).status();
        assert!(umount.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

fn open(dir: &Path) -> Result<Box<dyn Store>> {
    FilesystemVolume::new().open(&StoreSpec {
        dir: dir.to_owned(),
        create: true,
        ..StoreSpec::default()
    })
}

fn record(n: u64) -> Record {
    let value = Value::bytes(vec![n.to_le_bytes()[0]; 50_000]);
    let stamp = Stamp {
        time: n << 32,
        id: [1; 16],
    };
    Record::own(Version::put(stamp, value.hash()), Some(value))
}

fn put(store: &dyn Store, n: u64) -> Result<Durability> {
    let keys = [Key::new(format!("k/{n}")), Key::from("last")];
    let record = record(n);
    let batch = keys.each_ref().map(|key| Write::Latest {
        key,
        record: record.as_ref(),
    });
    store.commit(&batch, Durability::Synced)
}

fn check(store: &dyn Store, committed: u64) {
    for n in 1..=committed {
        let held = store.get(&Key::new(format!("k/{n}"))).unwrap();
        assert_eq!(held, Some(record(n)), "{n} of {committed}");
    }
    assert_eq!(
        store.get(&Key::from("last")).unwrap(),
        Some(record(committed))
    );
    let next = Key::new(format!("k/{}", committed + 1));
    assert_eq!(store.get(&next).unwrap(), None);
}

#[test]
fn a_full_disk_tears_nothing_and_writing_resumes() {
    let Some(mount) = Mount::new("a_full_disk_tears_nothing_and_writing_resumes", 12 << 20) else {
        return;
    };
    let ballast = mount.0.path().join("ballast");
    fs::write(&ballast, vec![1; 4 << 20]).unwrap();
    let dir = mount.0.path().join("store");
    let store = open(&dir).unwrap();
    let mut committed = 0;
    let error = loop {
        match put(&*store, committed + 1) {
            Ok(_) => committed += 1,
            Err(error) => break error,
        }
    };
    assert!(committed > 10, "{committed}");
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    // It says so again, as often as one tries, and what is there can be read.
    for _ in 0..3 {
        assert_eq!(
            put(&*store, committed + 1).unwrap_err().kind(),
            ErrorKind::Full
        );
        check(&*store, committed);
    }
    fs::remove_file(&ballast).unwrap();
    for _ in 0..10 {
        put(&*store, committed + 1).unwrap();
        committed += 1;
    }
    check(&*store, committed);
    drop(store);
    let store = open(&dir).unwrap();
    check(&*store, committed);
    store.close().unwrap();
}
