//! What the registry shows of policies: for the admin space, `weir policy ls` and metrics.

use std::{collections::BTreeMap, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::signature::Signer;

/// The watched directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DirectoryStatus {
    /// Its path.
    pub dir: String,
    /// Why it cannot be read, if so. What serves goes on serving.
    pub error: Option<String>,
}

/// A policy: a file in the directory, or a name that something is bound to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// `geo` for `geo.wasm`.
    pub name: String,
    /// The file; `None` if there is none.
    pub file: Option<FileStatus>,
    /// What an operator should know: that the file is missing, or not signed.
    pub warning: Option<String>,
    /// Where it is bound.
    pub slots: Vec<SlotStatus>,
}

/// What a file holds.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FileStatus {
    /// `loading`, `ready` or `refused`.
    pub state: String,
    /// Why it is refused: a code and a sentence.
    pub refusal: Option<Refused>,
    /// blake3 of its bytes; `None` if it cannot be read.
    pub hash: Option<String>,
    /// Bytes.
    pub size: usize,
    /// Who signed it.
    pub signer: Option<Signer>,
    /// The hooks that it exports, once it is loaded.
    pub hooks: Vec<String>,
    /// What it calls itself, if it said so without being bound anywhere.
    pub module: Option<String>,
    /// Its own version, likewise.
    pub version: Option<String>,
    /// Whether it was compiled, or taken from the cache: `compiled` or `cache`.
    pub origin: Option<String>,
    /// How long loading took, in milliseconds.
    pub load_ms: Option<f64>,
    /// Since when it holds this (RFC 3339).
    pub since: String,
}

/// Why something does not serve.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refused {
    /// A word that never changes.
    pub code: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// One place where a policy is bound.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SlotStatus {
    /// Whose: `storages/NAME` or `forward/NAME`.
    pub owner: String,
    /// `route`, `resolve` or `prioritize`.
    pub hook: String,
    /// `absent`, `probation`, `serving`, `rolled-back`, `open` or `half-open`.
    pub state: String,
    /// Who answers: `policy`, `native`, or `wait` (changes are kept until there is an answer).
    pub service: String,
    /// blake3 of the revision that answers, or would if it were not resting.
    pub revision: Option<String>,
    /// For `resolve`: the number that marks what it has merged.
    pub resolver_revision: Option<String>,
    /// blake3 of the revision that is being loaded.
    pub loading: Option<String>,
    /// What the revision calls itself.
    pub module: Option<String>,
    /// Its own version.
    pub version: Option<String>,
    /// Calls since it was bound, over all revisions.
    pub calls: u64,
    /// Samples or conflicts that the policy was asked about, likewise.
    pub samples: u64,
    /// Samples whose answer was remembered, likewise.
    pub remembered: u64,
    /// Samples that the native rule decided because a call failed, likewise.
    pub fallbacks: u64,
    /// Samples that the native rule decided because nothing served, likewise.
    pub native: u64,
    /// Conflicts that were to be asked again, likewise.
    pub interruptions: u64,
    /// Failed calls by cause, likewise.
    pub errors: BTreeMap<String, u64>,
    /// CPU time of this revision's calls, in seconds.
    pub cpu_seconds: f64,
    /// Fuel of this revision's calls.
    pub fuel: u64,
    /// Half of this revision's calls took at most so long, in microseconds.
    pub p50_us: f64,
    /// 99 of 100 took at most so long, in microseconds.
    pub p99_us: f64,
    /// The most memory that one instance of it had.
    pub memory_bytes_peak: u64,
    /// Its own counters, by name.
    pub counters: BTreeMap<String, u64>,
    /// Lines of its log that were dropped because they came too fast.
    pub log_lines_dropped: u64,
    /// How often another revision began to serve.
    pub swaps: u64,
    /// The last failed call.
    pub last_error: Option<LastError>,
    /// What happened to a revision that an operator should know.
    pub report: Option<SlotReport>,
}

/// A failed call.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LastError {
    /// When (RFC 3339).
    pub at: String,
    /// What it was counted as.
    pub cause: String,
    /// `guest`: the policy's author has to do something. `host`: the operator.
    pub blame: String,
    /// What happened.
    pub message: String,
}

/// What happened to a revision.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SlotReport {
    /// When (RFC 3339).
    pub at: String,
    /// `refused`, `rolled-back` or `opened`.
    pub what: String,
    /// blake3 of the revision.
    pub revision: String,
    /// A sentence.
    pub message: String,
}

pub(crate) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
