//! The files that the rules read, and what they find.

use std::{fmt, fs, io, path::Path, process::Command};

/// The text files of a repository, in the order of their paths.
#[derive(Debug, Default)]
pub struct Repo {
    files: Vec<File>,
}

/// One text file.
#[derive(Debug)]
pub struct File {
    /// Where it is, from the root, with `/` between the folders.
    pub path: String,
    /// What is in it; empty for a file that is not UTF-8, such as a picture.
    pub text: String,
    /// Whether it may be run.
    pub executable: bool,
}

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, from the root of the repository.
    pub file: String,
    /// The line, from 1; 0 if the whole file is meant.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

impl Repo {
    /// Reads what Git tracks below `root`, and what it would track after `git add` (so that a new
    /// file hears of a rule before its first commit).
    ///
    /// # Errors
    ///
    /// If Git does not run there, or a file cannot be read.
    pub fn from_git(root: &Path) -> io::Result<Self> {
        let listed = Command::new("git")
            .arg("-C")
            .arg(root)
            .args([
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ])
            .output()?;
        if !listed.status.success() {
            let reason = String::from_utf8_lossy(&listed.stderr);
            return Err(io::Error::other(format!("git ls-files: {}", reason.trim())));
        }
        let mut files = Vec::new();
        for path in String::from_utf8_lossy(&listed.stdout).split_terminator('\0') {
            match read(root, path) {
                Ok(file) => files.push(file),
                // Deleted, and the deletion is not committed yet.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io::Error::new(error.kind(), format!("{path}: {error}"))),
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { files })
    }

    /// A repository made of paths and texts, for examples. Nothing in it may be run.
    pub fn of(files: &[(&str, &str)]) -> Self {
        let file = |(path, text): &(&str, &str)| File {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
            executable: false,
        };
        Self {
            files: files.iter().map(file).collect(),
        }
    }

    /// Every file.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// The files whose name ends in `.` and `extension`.
    pub fn with_extension(&self, extension: &str) -> impl Iterator<Item = &File> {
        let suffix = format!(".{extension}");
        self.files
            .iter()
            .filter(move |file| file.path.ends_with(&suffix))
    }

    /// The file at exactly this path.
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Whether there is a file at `path`, or a folder with something in it.
    pub fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let below = format!("{path}/");
        path.is_empty()
            || self
                .files
                .iter()
                .any(|f| f.path == path || f.path.starts_with(&below))
    }
}

impl File {
    /// The lines with their numbers, from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    /// A problem on one of the file's lines (0 for the whole file).
    pub fn problem(&self, line: usize, what: impl Into<String>, fix: impl Into<String>) -> Problem {
        Problem {
            file: self.path.clone(),
            line,
            what: what.into(),
            fix: fix.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}; fix: {}", self.what, self.fix)
    }
}

fn read(root: &Path, path: &str) -> io::Result<File> {
    let full = root.join(path);
    let text = String::from_utf8(fs::read(&full)?).unwrap_or_default();
    Ok(File {
        path: path.to_owned(),
        text,
        executable: is_executable(&fs::metadata(&full)?),
    })
}

#[cfg(unix)]
fn is_executable(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o111 != 0
}

#[cfg(not(unix))]
fn is_executable(_: &fs::Metadata) -> bool {
    true // There is no such bit: nothing can be wrong with it.
}

#[cfg(test)]
impl Repo {
    pub(crate) fn make_all_executable(&mut self) {
        self.files
            .iter_mut()
            .for_each(|file| file.executable = true);
    }
}

/// What a rule says about a small repository: one line a problem, without the fix.
#[cfg(test)]
pub(crate) fn findings(rule: fn(&Repo) -> Vec<Problem>, files: &[(&str, &str)]) -> Vec<String> {
    let line = |p: Problem| {
        assert!(!p.fix.is_empty(), "no fix for: {}", p.what);
        format!("{}:{}: {}", p.file, p.line, p.what)
    };
    rule(&Repo::of(files)).into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_the_place_and_the_fix() {
        let file = File {
            path: "a/b.rs".into(),
            text: String::new(),
            executable: false,
        };
        assert_eq!(file.problem(3, "w", "f").to_string(), "a/b.rs:3: w; fix: f");
        assert_eq!(file.problem(0, "w", "f").to_string(), "a/b.rs: w; fix: f");
    }

    #[test]
    fn a_folder_is_there_if_a_file_is_in_it() {
        let repo = Repo::of(&[("router/src/main.rs", "")]);
        for (path, there) in [
            ("router", true),
            ("router/src/", true),
            ("router/src/main.rs", true),
            ("router/s", false),
            ("tests", false),
        ] {
            assert_eq!(repo.has(path), there, "{path}");
        }
    }
}
