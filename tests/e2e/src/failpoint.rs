//! A process that ends, or whose disk fails, at a chosen one of the calls by which it changes the files of
//! one directory. What does it is `c/failpoint.c`, preloaded into the process.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// The library, made for this test.
#[derive(Debug)]
pub struct Failpoints {
    home: TempDir,
    dir: PathBuf,
}

/// What happens at the chosen call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum How {
    /// SIGKILL before it is made.
    Before,
    /// SIGKILL after it.
    After,
    /// SIGKILL when half of what was to be written is.
    Torn,
    /// It fails with EIO.
    Fails,
    /// It fails with EIO, and so do all later ones of its kind.
    Broken,
}

impl Failpoints {
    /// Compiles it, for what is done in a directory; `None`, and the test is skipped, without a compiler.
    ///
    /// # Panics
    /// If it cannot be compiled.
    #[must_use]
    pub fn of(dir: &Path) -> Option<Self> {
        let home = tempfile::tempdir().unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/c/failpoint.c");
        let compiled = Command::new("cc")
            .args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
            .args([&home.path().join("failpoint.so"), Path::new(source)])
            .output();
        let Ok(compiled) = compiled else {
            crate::skip("there is no C compiler (cc)");
            return None;
        };
        let said = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "{said}");
        let dir = dir.to_owned();
        Some(Self { home, dir })
    }

    /// The environment of a process to which `how` happens at the Nth `call` there (from 1). With N = 0
    /// nothing does, and calls are only noted.
    #[must_use]
    pub fn at(&self, call: &str, number: usize, how: How) -> Vec<(String, String)> {
        let how = match how {
            How::Before => "before",
            How::After => "after",
            How::Torn => "torn",
            How::Fails => "fails",
            How::Broken => "broken",
        };
        let path = |name: &str| self.home.path().join(name).display().to_string();
        [
            ("LD_PRELOAD", path("failpoint.so")),
            ("FAILPOINT_DIR", self.dir.display().to_string()),
            ("FAILPOINT_LOG", path("log")),
            ("FAILPOINT_CALL", call.to_owned()),
            ("FAILPOINT_AT", number.to_string()),
            ("FAILPOINT_HOW", how.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// The calls since this was asked last, in order: what, and of which file.
    ///
    /// # Panics
    /// If the log cannot be read.
    pub fn take_calls(&self) -> Vec<(String, String)> {
        let path = self.home.path().join("log");
        // A process that did nothing there has made none.
        let text = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(&path);
        let parse = |line: &str| {
            let (call, file) = line.split_once(' ').expect("a call and a file");
            (call.to_owned(), file.to_owned())
        };
        text.lines().map(parse).collect()
    }
}

/// How many of each call there are.
#[must_use]
pub fn counts(calls: &[(String, String)]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for (call, _) in calls {
        *counts.entry(call.as_str()).or_default() += 1;
    }
    counts
}
