//! What a policy decides about recorded traffic, and what two policies decide differently.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;
use serde_json::{Value as Json, json};
use weir_core::{key::Key, laws::Held, version::Version};

use super::{
    answer::{Asked, contender, resolution_json, resolve},
    case::Link,
    recording::RecordingError,
    sample::Sample,
    written::{line, stamp_text},
};
use crate::{Cause, Environment, Fault, Hook, ResolveFault, Revision, Statistics, Stats};

/// Samples in a call, as a busy storage asks.
const BATCH: usize = 256;
/// Keys whose last version is remembered to ask a resolver about; then all are forgotten.
const KEYS_MAX: usize = 1 << 20;
/// Examples of one kind of change.
const EXAMPLES_MAX: usize = 3;
/// Bytes that may wait, as policies are told: far from full.
const CAPACITY_BYTES: u64 = 1 << 30;

/// How a policy is asked.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The hook.
    pub hook: Hook,
    /// What the policy is told when it begins.
    pub environment: Environment,
    /// The name of the link whose backlog `prioritize` is told of.
    pub link: String,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The recording cannot be read.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// The policy does not start.
    #[error("{policy} does not start: {}", .fault.message)]
    Start {
        /// The policy.
        policy: String,
        /// Why not.
        fault: Fault,
    },
    /// The host was interrupted.
    #[error("the host could not ask: {0}")]
    Host(String),
}

/// A decision about a sample, or about two versions of a key.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Decision {
    /// The key.
    pub key: String,
    /// The stamp of the sample, or of the two versions.
    pub stamps: Vec<String>,
    /// As cases write it.
    pub answer: Json,
}

/// What a policy decided.
#[derive(Clone, Debug, Serialize)]
pub struct Replayed {
    /// Samples in the recording.
    pub samples: u64,
    /// Decisions: as many as samples, but for a resolver.
    pub decisions: u64,
    /// Decisions by kind, as cases write them.
    pub by_kind: BTreeMap<String, u64>,
    /// Counts, time and memory of the policy.
    pub statistics: Statistics,
}

/// What two policies decide differently.
#[derive(Clone, Debug, Serialize)]
pub struct Diff {
    /// Samples in the recording.
    pub samples: u64,
    /// Decisions.
    pub decisions: u64,
    /// Decisions that differ.
    pub changed: u64,
    /// The kinds of changes, the most frequent first.
    pub changes: Vec<Change>,
}

/// Decisions that changed alike.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Change {
    /// What the old policy decides.
    pub from: String,
    /// What the new one decides.
    pub to: String,
    /// How often.
    pub count: u64,
    /// Some of them.
    pub examples: Vec<Example>,
}

/// A decision that changed.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Example {
    /// The key.
    pub key: String,
    /// The stamp of the sample, or of the two versions.
    pub stamps: Vec<String>,
    /// What the old policy decides.
    pub from: Json,
    /// What the new one decides.
    pub to: Json,
}

/// Asks a policy about every sample of a recording, in calls of 256; `each` sees every decision. A
/// resolver is asked about each version of a key and the one recorded before it, as if they knew nothing
/// of each other.
///
/// # Errors
/// If the policy does not start, the recording is damaged, or the host is interrupted.
pub fn replay(
    revision: &Arc<Revision>,
    setup: &Setup,
    samples: impl Iterator<Item = Result<Sample, RecordingError>>,
    mut each: impl FnMut(&Decision),
) -> Result<Replayed, ReplayError> {
    let mut player = Player::new(revision, setup)?;
    let mut by_kind: BTreeMap<String, u64> = BTreeMap::new();
    let mut decisions = 0;
    let total = batches(samples, |batch| {
        for decision in player.decide(batch)? {
            *by_kind.entry(kind(&decision.answer)).or_default() += 1;
            decisions += 1;
            each(&decision);
        }
        Ok(())
    })?;
    Ok(Replayed {
        samples: total,
        decisions,
        by_kind,
        statistics: player.stats.statistics(),
    })
}

/// Asks two policies about every sample of a recording and counts where they differ.
///
/// # Errors
/// As [`replay`].
pub fn diff(
    old: &Arc<Revision>,
    new: &Arc<Revision>,
    setup: &Setup,
    samples: impl Iterator<Item = Result<Sample, RecordingError>>,
) -> Result<Diff, ReplayError> {
    let (mut old, mut new) = (Player::new(old, setup)?, Player::new(new, setup)?);
    let mut changes: BTreeMap<(String, String), Change> = BTreeMap::new();
    let (mut decisions, mut changed) = (0, 0);
    let samples = batches(samples, |batch| {
        for (was, is) in old.decide(batch)?.into_iter().zip(new.decide(batch)?) {
            decisions += 1;
            if was.answer == is.answer {
                continue;
            }
            changed += 1;
            let (from, to) = (kind(&was.answer), kind(&is.answer));
            let change = changes.entry((from.clone(), to.clone())).or_insert(Change {
                from,
                to,
                count: 0,
                examples: Vec::new(),
            });
            change.count += 1;
            if change.examples.len() < EXAMPLES_MAX {
                change.examples.push(Example {
                    key: was.key,
                    stamps: was.stamps,
                    from: was.answer,
                    to: is.answer,
                });
            }
        }
        Ok(())
    })?;
    let mut changes: Vec<Change> = changes.into_values().collect();
    changes.sort_by_key(|change| std::cmp::Reverse(change.count));
    Ok(Diff {
        samples,
        decisions,
        changed,
        changes,
    })
}

/// Two versions of one key, the earlier first, for each two that follow each other.
#[derive(Default, Debug)]
pub struct Neighbours(BTreeMap<Key, Held>);

impl Neighbours {
    /// The sample with the one before it of its key; nothing for the first, for one without a stamp,
    /// and for one that came twice.
    pub fn next(&mut self, sample: &Sample) -> Option<(Held, Held)> {
        let stamp = sample.stamp?;
        let held = Held {
            version: match &sample.value {
                Some(value) => Version::put(stamp, value.hash()),
                None => Version::delete(stamp),
            },
            value: sample.value.clone(),
        };
        if self.0.len() >= KEYS_MAX && !self.0.contains_key(&sample.key) {
            self.0.clear();
        }
        let before = self.0.insert(sample.key.clone(), held.clone())?;
        match before.version.cmp(&held.version) {
            std::cmp::Ordering::Less => Some((before, held)),
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some((held, before)),
        }
    }
}

/// A policy that is asked about one batch after the other.
struct Player {
    asked: Asked,
    stats: Arc<Stats>,
    neighbours: Neighbours,
    link: String,
}

impl Player {
    fn new(revision: &Arc<Revision>, setup: &Setup) -> Result<Self, ReplayError> {
        let stats = Arc::new(Stats::default());
        let started = Asked::start(revision, setup.hook, &setup.environment, Arc::clone(&stats));
        let asked = started.map_err(|fault| ReplayError::Start {
            policy: revision.name.to_string(),
            fault,
        })?;
        Ok(Self {
            asked,
            stats,
            neighbours: Neighbours::default(),
            link: setup.link.clone(),
        })
    }

    fn decide(&mut self, batch: &[Sample]) -> Result<Vec<Decision>, ReplayError> {
        let text = |version: &Held| stamp_text(version.version.stamp);
        if let Asked::Resolve(resolver) = &self.asked {
            let pairs = batch.iter().filter_map(|sample| {
                let (first, second) = self.neighbours.next(sample)?;
                Some((sample, first, second))
            });
            return pairs
                .map(|(sample, first, second)| {
                    let asked =
                        resolve(resolver, &sample.key, contender(&first), contender(&second));
                    let answer = match asked {
                        Ok(resolution) => resolution_json(&resolution),
                        Err(ResolveFault::Guest(fault)) => failed(&fault)?,
                        Err(ResolveFault::Interrupted(why)) => {
                            return Err(ReplayError::Host(why.to_string()));
                        }
                    };
                    Ok(Decision {
                        key: sample.key.to_string(),
                        stamps: vec![text(&first), text(&second)],
                        answer,
                    })
                })
                .collect();
        }
        let bytes: usize = batch
            .iter()
            .map(|sample| {
                sample
                    .value
                    .as_ref()
                    .map_or(0, weir_core::value::Value::len)
            })
            .sum();
        let link = Link {
            name: self.link.clone(),
            // The only clock that a recording has.
            now: batch
                .iter()
                .filter_map(|sample| sample.stamp)
                .map(|stamp| stamp.time)
                .max()
                .unwrap_or(0),
            queued: batch.len() as u64,
            queued_bytes: bytes as u64,
            capacity_bytes: CAPACITY_BYTES,
        };
        let answers = match self.asked.samples(&link, batch) {
            Ok(answers) => answers,
            Err(fault) => vec![failed(&fault)?; batch.len()],
        };
        let decisions = batch.iter().zip(answers).map(|(sample, answer)| Decision {
            key: sample.key.to_string(),
            stamps: sample.stamp.map(stamp_text).into_iter().collect(),
            answer,
        });
        Ok(decisions.collect())
    }
}

fn failed(fault: &Fault) -> Result<Json, ReplayError> {
    match fault.cause {
        Cause::Host => Err(ReplayError::Host(fault.message.clone())),
        _ => Ok(json!({ "error": fault.to_string() })),
    }
}

fn batches(
    samples: impl Iterator<Item = Result<Sample, RecordingError>>,
    mut take: impl FnMut(&[Sample]) -> Result<(), ReplayError>,
) -> Result<u64, ReplayError> {
    let mut batch = Vec::with_capacity(BATCH);
    let mut total = 0;
    for sample in samples {
        batch.push(sample?);
        total += 1;
        if batch.len() == BATCH {
            take(&batch)?;
            batch.clear();
        }
    }
    if !batch.is_empty() {
        take(&batch)?;
    }
    Ok(total)
}

/// An answer without what is another for every sample: tokens, merged values, times, texts of errors.
fn kind(answer: &Json) -> String {
    let Json::Object(fields) = answer else {
        return line(answer).trim_matches('"').to_owned();
    };
    let mut shown = fields.clone();
    for (name, value) in &mut shown {
        if matches!(name.as_str(), "token" | "merge" | "expires") {
            *value = json!("...");
        }
        if let ("error", Some(text)) = (name.as_str(), value.as_str()) {
            *value = json!(text.split(':').next().unwrap_or(text));
        }
    }
    line(&Json::Object(shown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::{value::Value, version::Stamp};

    #[test]
    fn a_kind_leaves_out_what_always_differs() {
        let rows = [
            (json!("default"), "default"),
            (json!({ "token": 17 }), r#"{ "token": "..." }"#),
            (json!({ "shard": "eu" }), r#"{ "shard": "eu" }"#),
            (
                json!({ "lane": 1, "expires": 7.5 }),
                r#"{ "expires": "...", "lane": 1 }"#,
            ),
            (
                json!({ "error": "trap: at 0x12" }),
                r#"{ "error": "trap" }"#,
            ),
        ];
        for (answer, expected) in rows {
            assert_eq!(kind(&answer), expected);
        }
    }

    #[test]
    fn neighbours_are_versions_of_one_key_the_earlier_first() {
        let sample = |key: &str, time: u64, text: &'static str| Sample {
            key: Key::from(key),
            stamp: (time > 0).then_some(Stamp { time, id: [1; 16] }),
            value: Some(Value::bytes(text)),
            priority: 5,
        };
        let mut neighbours = Neighbours::default();
        let mut times = |key: &str, time, text| {
            let pair = neighbours.next(&sample(key, time, text));
            pair.map(|(first, second)| (first.version.stamp.time, second.version.stamp.time))
        };
        assert_eq!(times("a", 5, "x"), None);
        assert_eq!(times("b", 6, "x"), None);
        assert_eq!(times("a", 0, "x"), None, "nobody stamped it");
        assert_eq!(times("a", 5, "x"), None, "it came twice");
        assert_eq!(times("a", 7, "y"), Some((5, 7)));
        assert_eq!(times("a", 6, "z"), Some((6, 7)));
        assert!(times("a", 6, "w").is_some(), "one stamp, two values");
    }
}
