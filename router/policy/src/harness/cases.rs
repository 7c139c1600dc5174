//! Case files: finding them, running what is in them, and what came of it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;
use serde_json::Value as Json;

use super::{
    answer::{ask, is_expected},
    case::Case,
    written::line,
};
use crate::{Hook, Revision};

/// Bytes of one case file; a longer one is not read.
pub const FILE_BYTES_MAX: u64 = 8 << 20;
/// Cases of one policy; more are an error, because a router runs them before the policy serves.
pub const CASES_MAX: usize = 4096;

/// A case in its file.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The file.
    pub file: PathBuf,
    /// Its place in the file, counted from 0.
    pub index: usize,
    /// Its name, as far as it could be read.
    pub name: String,
    /// The case, or what is wrong with it.
    pub case: Result<Case, String>,
}

/// What became of all cases of a policy.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// The policy's name.
    pub policy: String,
    /// blake3 of the module.
    pub hash: String,
    /// One for each case, in the order of files.
    pub cases: Vec<Ran>,
}

/// What became of a case.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Ran {
    /// The file.
    pub file: PathBuf,
    /// Its place in the file, counted from 0.
    pub index: usize,
    /// What was promised.
    pub name: String,
    /// The hook that was asked.
    pub hook: Option<Hook>,
    /// How long it took.
    pub took_ms: f64,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a case.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// The answer is as promised.
    Passed,
    /// It is not.
    Failed {
        /// What was promised; nothing if the case says nothing.
        expected: Option<Json>,
        /// The whole answer.
        got: Json,
        /// Where the two differ.
        differences: Vec<Difference>,
    },
    /// It could not be asked.
    Broken {
        /// Why.
        message: String,
    },
}

/// A place where an answer is not as promised.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Difference {
    /// `sample 1 (fleet/7)`; empty if it is the whole answer.
    pub place: String,
    /// What was promised, on one line.
    pub expected: String,
    /// What came, on one line.
    pub got: String,
}

/// How many cases came to what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counts {
    /// As promised.
    pub passed: usize,
    /// Not as promised.
    pub failed: usize,
    /// Could not be asked.
    pub broken: usize,
}

/// Where the cases of `DIR/NAME.wasm` lie, those of these that exist: `NAME.cases.json` and
/// `NAME.cases/` beside it, `cases/` beside it if it is the only module there.
#[must_use]
pub fn beside(module: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = ["cases.json", "cases"]
        .into_iter()
        .map(|ending| module.with_extension(ending))
        .filter(|path| path.exists())
        .collect();
    let shared = module.with_file_name("cases");
    if found.is_empty() && shared.is_dir() && is_only_module(module) {
        found.push(shared);
    }
    found
}

/// Reads a case file, or every `.json` file of a directory in the order of their names.
///
/// # Errors
/// If a file or directory cannot be read or is no JSON; what is wrong with one case is in its entry.
pub fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for file in files(path)? {
        let about = |error: String| io::Error::other(format!("{}: {error}", file.display()));
        let size = fs::metadata(&file)
            .map_err(|error| about(error.to_string()))?
            .len();
        if size > FILE_BYTES_MAX {
            let mib = FILE_BYTES_MAX >> 20;
            return Err(about(format!(
                "it has {size} bytes; {mib} MiB is the most of a case file"
            )));
        }
        let text = fs::read_to_string(&file).map_err(|error| about(error.to_string()))?;
        entries.extend(parse(&file, &text).map_err(about)?);
        if entries.len() > CASES_MAX {
            return Err(about(format!("more than {CASES_MAX} cases for one policy")));
        }
    }
    Ok(entries)
}

/// The cases in the text of a file: one case, a list of cases, or `{"cases": [...]}` with what they
/// share beside it.
///
/// # Errors
/// If it is no JSON, or none of these.
pub fn parse(file: &Path, text: &str) -> Result<Vec<Entry>, String> {
    let json: Json = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let cases = match json {
        Json::Array(cases) => cases,
        Json::Object(mut shared) if shared.contains_key("cases") => {
            let Some(Json::Array(cases)) = shared.remove("cases") else {
                return Err("`cases` is not a list".into());
            };
            let whole = |case| match case {
                Json::Object(own) => {
                    let mut whole = shared.clone();
                    whole.extend(own);
                    Json::Object(whole)
                }
                other => other,
            };
            cases.into_iter().map(whole).collect()
        }
        case => vec![case],
    };
    let entry = |(index, case): (usize, Json)| Entry {
        file: file.to_owned(),
        index,
        name: match case["name"].as_str() {
            Some(name) => name.to_owned(),
            None => format!("case {}", index + 1),
        },
        case: Case::parse(case),
    };
    Ok(cases.into_iter().enumerate().map(entry).collect())
}

/// Runs cases, each on a fresh instance: what the command and a router both do. Costs about a
/// millisecond a case.
#[must_use]
pub fn run(revision: &Arc<Revision>, entries: &[Entry]) -> Report {
    let cases = entries.iter().map(|entry| run_one(revision, entry));
    Report {
        policy: revision.name.to_string(),
        hash: revision.hash_hex(),
        cases: cases.collect(),
    }
}

fn run_one(revision: &Arc<Revision>, entry: &Entry) -> Ran {
    let mut ran = Ran {
        file: entry.file.clone(),
        index: entry.index,
        name: entry.name.clone(),
        hook: entry.case.as_ref().ok().map(|case| case.hook),
        took_ms: 0.0,
        outcome: Outcome::Passed,
    };
    let asked = match &entry.case {
        Ok(case) => ask(revision, case).map(|answer| (case, answer)),
        Err(message) => Err(message.clone()),
    };
    match asked {
        Err(message) => ran.outcome = Outcome::Broken { message },
        Ok((case, answer)) => {
            ran.took_ms = answer.took_ms;
            let is_kept = |expected| is_expected(expected, &answer.json);
            if !case.expect.as_ref().is_some_and(is_kept) {
                ran.outcome = Outcome::Failed {
                    differences: differences(case, &answer.json),
                    expected: case.expect.clone(),
                    got: answer.json,
                };
            }
        }
    }
    ran
}

/// Where an answer is not as promised: sample by sample, if both are lists of one length.
fn differences(case: &Case, got: &Json) -> Vec<Difference> {
    let difference = |place: String, expected: Option<&Json>, got: &Json| Difference {
        place,
        expected: expected.map_or_else(|| "nothing is promised".to_owned(), line),
        got: line(got),
    };
    match (&case.expect, got) {
        (Some(Json::Array(expected)), Json::Array(answers)) if expected.len() == answers.len() => {
            let pairs = expected.iter().zip(answers).enumerate();
            pairs
                .filter(|(_, (expected, got))| !is_expected(expected, got))
                .map(|(index, (expected, got))| {
                    let key = case.samples().get(index).map_or("", |sample| &*sample.key);
                    difference(format!("sample {index} ({key})"), Some(expected), got)
                })
                .collect()
        }
        (expected, got) => vec![difference(String::new(), expected.as_ref(), got)],
    }
}

impl Report {
    /// How many cases came to what.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for ran in &self.cases {
            match ran.outcome {
                Outcome::Passed => counts.passed += 1,
                Outcome::Failed { .. } => counts.failed += 1,
                Outcome::Broken { .. } => counts.broken += 1,
            }
        }
        counts
    }
}

impl Counts {
    /// Whether every case passed.
    #[must_use]
    pub fn is_clean(self) -> bool {
        self.failed == 0 && self.broken == 0
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            broken: self.broken + other.broken,
        }
    }
}

impl Ran {
    /// What is wrong, in lines; none if it passed.
    #[must_use]
    pub fn complaint(&self) -> Vec<String> {
        match &self.outcome {
            Outcome::Passed => Vec::new(),
            Outcome::Broken { message } => vec![message.clone()],
            Outcome::Failed { differences, .. } => {
                let lines = differences.iter().flat_map(|difference| {
                    let place = (!difference.place.is_empty()).then(|| difference.place.clone());
                    let expected = format!("- expected {}", difference.expected);
                    place
                        .into_iter()
                        .chain([expected, format!("+ got      {}", difference.got)])
                });
                lines.collect()
            }
        }
    }
}

fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let about =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if !fs::metadata(path).map_err(about)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(about)? {
        let file = entry.map_err(about)?.path();
        if has_extension(&file, "json") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn is_only_module(module: &Path) -> bool {
    let dir = match module.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    let Ok(entries) = fs::read_dir(dir) else {
        return false;
    };
    let modules = entries
        .flatten()
        .filter(|entry| has_extension(&entry.path(), "wasm"));
    modules.count() == 1
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_replaces_what_it_shares_with_others() {
        let text = r#"{ "hook": "route", "shards": ["a"], "samples": [{ "key": "k" }], "cases": [
            { "name": "own", "samples": [{ "key": "l" }], "expect": [] },
            { "name": "shared" },
            { "expect": 1 },
            7
        ] }"#;
        let entries = parse(Path::new("x.json"), text).unwrap();
        let key = |index: usize| {
            entries[index].case.as_ref().unwrap().samples()[0]
                .key
                .to_string()
        };
        assert_eq!((key(0), key(1)), ("l".into(), "k".into()));
        assert_eq!(entries[2].name, "case 3");
        assert!(entries[2].case.as_ref().unwrap_err().contains("`name`"));
        assert!(entries[3].case.is_err());
    }

    #[test]
    fn a_module_finds_its_own_cases_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("cases")).unwrap();
        fs::write(path("geo.wasm"), b"").unwrap();
        assert_eq!(beside(&path("geo.wasm")), [path("cases")]);
        fs::write(path("other.wasm"), b"").unwrap();
        assert!(beside(&path("geo.wasm")).is_empty(), "whose are they?");
        fs::write(path("geo.cases.json"), b"[]").unwrap();
        fs::create_dir(path("geo.cases")).unwrap();
        assert_eq!(
            beside(&path("geo.wasm")),
            [path("geo.cases.json"), path("geo.cases")]
        );
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.json");
        for (text, expected) in [("{", "EOF"), (r#"{"cases": 1}"#, "not a list")] {
            fs::write(&file, text).unwrap();
            let error = read(dir.path()).unwrap_err().to_string();
            assert!(
                error.contains(expected) && error.contains("a.json"),
                "{error}"
            );
        }
        assert!(
            read(&dir.path().join("gone"))
                .unwrap_err()
                .to_string()
                .contains("gone")
        );
    }
}
