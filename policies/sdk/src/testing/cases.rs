//! Reads case files and compares.

use std::{fs, path::Path};

use serde::Deserialize;
use serde_json::{Value as Json, json};
use xxhash_rust::xxh3::xxh3_64;

use super::values::{encoding, payload, stamp, time};
use crate::{Batch, Environment, Fields, Hlc, Link, Value, Version, bindings::weir::policy::types};

/// One case; `policies/README.md` says what each field means.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    name: String,
    hook: String,
    #[serde(default)]
    settings: Option<Json>,
    #[serde(default)]
    router_id: String,
    #[serde(default)]
    zone: String,
    #[serde(default)]
    shards: Vec<String>,
    #[serde(default)]
    link: LinkState,
    #[serde(default)]
    samples: Vec<Sample>,
    key: Option<String>,
    first: Option<Contender>,
    second: Option<Contender>,
    expect: Json,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct LinkState {
    name: String,
    now: Option<Json>,
    queued: u64,
    queued_bytes: u64,
    capacity_bytes: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    key: String,
    payload: Option<Json>,
    /// Zero bytes are added up to here.
    size: Option<usize>,
    timestamp: Option<Json>,
    priority: Option<u8>,
    encoding: Option<Json>,
    kind: Option<String>,
    attachment: Option<Json>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Contender {
    timestamp: Json,
    put: Option<Json>,
    #[serde(default)]
    delete: bool,
    encoding: Option<Json>,
    schema: Option<String>,
    attachment: Option<Json>,
}

/// Runs `answer` on every case of `hook`, and says all that is wrong.
pub fn run(directory: &str, hook: &str, answer: impl Fn(&Case) -> Result<Json, String>) {
    let mut ran = 0;
    let mut wrong = Vec::new();
    for (file, case) in read(Path::new(directory)) {
        let case = case.unwrap_or_else(|error| panic!("{file}: {error}"));
        if case.hook != hook {
            continue;
        }
        ran += 1;
        match answer(&case) {
            Ok(answer) if is_expected(&case.expect, &answer) => {}
            Ok(answer) => wrong.push(format!(
                "{file}: {}\n  expected {}\n  answered {answer}",
                case.name, case.expect
            )),
            Err(error) => wrong.push(format!("{file}: {}\n  {error}", case.name)),
        }
    }
    assert!(ran > 0, "no {hook} case in {directory}");
    assert!(
        wrong.is_empty(),
        "{} of {ran} cases:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Every case of every `.json` file, in the order of the names of the files.
fn read(directory: &Path) -> Vec<(String, Result<Case, String>)> {
    let entries = fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", directory.display()));
    let mut paths: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    });
    paths.sort();
    let mut cases = Vec::new();
    for path in paths {
        let file = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
        let json: Json =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        for case in split(json) {
            let case = serde_json::from_value(case).map_err(|error| error.to_string());
            cases.push((file.clone(), case));
        }
    }
    cases
}

/// A file holds a case, a list of cases, or `{"cases": [...]}` with what they share beside it.
fn split(json: Json) -> Vec<Json> {
    match json {
        Json::Array(cases) => cases,
        Json::Object(mut shared) if shared.contains_key("cases") => {
            let Some(Json::Array(cases)) = shared.remove("cases") else {
                panic!("`cases` is a list");
            };
            let whole = |case: Json| match case {
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
    }
}

/// Errors by a part of their text, everything else exactly, with payloads and times as bytes and
/// instants, however they are written.
fn is_expected(expected: &Json, answer: &Json) -> bool {
    match (expected, answer) {
        (Json::Array(expected), Json::Array(answers)) => {
            expected.len() == answers.len()
                && expected
                    .iter()
                    .zip(answers)
                    .all(|(one, other)| is_expected(one, other))
        }
        (Json::Object(expected), Json::Object(answer)) => {
            expected.len() == answer.len()
                && expected.iter().all(|(name, one)| {
                    answer.get(name).is_some_and(|other| match name.as_str() {
                        "error" | "init_error" => match (one.as_str(), other.as_str()) {
                            (Some(part), Some(text)) => text.contains(part),
                            _ => false,
                        },
                        "merge" => payload(one).is_ok() && payload(one) == payload(other),
                        "expires" => time(one).is_ok() && time(one) == time(other),
                        _ => one == other,
                    })
                })
        }
        _ => expected == answer,
    }
}

impl Case {
    pub fn environment(&self) -> Result<Environment, String> {
        Ok(Environment {
            router_id: self.router_id.clone(),
            zone: self.zone.clone(),
            shards: self.shards.clone(),
            settings: self
                .settings
                .clone()
                .unwrap_or_else(|| json!({}))
                .to_string(),
        })
    }

    pub fn shard_name(&self, shard: u32) -> Result<&str, String> {
        let name = self.shards.get(shard as usize);
        name.map(String::as_str)
            .ok_or_else(|| format!("there is no shard {shard}"))
    }

    pub fn link(&self) -> Result<Link, String> {
        Ok(Link {
            name: self.link.name.clone(),
            now: self.link.now.as_ref().map_or(Ok(0), time)?,
            queued: self.link.queued,
            queued_bytes: self.link.queued_bytes,
            capacity_bytes: self.link.capacity_bytes,
        })
    }

    pub fn key(&self) -> Result<&str, String> {
        self.key
            .as_deref()
            .ok_or_else(|| "a resolve case needs a `key`".to_owned())
    }

    pub fn versions(&self) -> Result<(Version, Version), String> {
        let version = |contender: &Option<Contender>| match contender {
            Some(contender) => contender.version(),
            None => Err("a resolve case needs `first` and `second`".to_owned()),
        };
        Ok((version(&self.first)?, version(&self.second)?))
    }

    /// The samples as the host would hand them over: what is not needed is zero or empty.
    pub fn batch(&self, needs: Fields, prefix: usize) -> Result<Batch, String> {
        if self.samples.is_empty() {
            return Err("a case needs `samples`".to_owned());
        }
        let mut batch = types::Batch {
            samples: Vec::new(),
            keys: String::new(),
            payloads: Vec::new(),
            attachments: Vec::new(),
        };
        for sample in &self.samples {
            sample.push(needs, prefix, &mut batch)?;
        }
        Ok(batch.into())
    }
}

impl Sample {
    fn push(&self, needs: Fields, prefix: usize, batch: &mut types::Batch) -> Result<(), String> {
        let kind = match self.kind.as_deref() {
            None | Some("put") => types::SampleKind::Put,
            Some("delete") => types::SampleKind::Delete,
            Some(other) => return Err(format!("`{other}` is no kind: put or delete")),
        };
        let mut bytes = self.payload.as_ref().map_or(Ok(Vec::new()), payload)?;
        bytes.resize(self.size.unwrap_or(bytes.len()).max(bytes.len()), 0);
        let size = bytes.len();
        bytes.truncate(prefix);
        if needs.contains(Fields::KEY) {
            batch.keys.push_str(&self.key);
        }
        if needs.contains(Fields::PAYLOAD) {
            batch.payloads.extend(bytes);
        }
        if needs.contains(Fields::ATTACHMENT) {
            batch
                .attachments
                .extend(self.attachment.as_ref().map_or(Ok(Vec::new()), payload)?);
        }
        let none = Hlc {
            ntp64: 0,
            id_high: 0,
            id_low: 0,
        };
        let end =
            |length: usize| u32::try_from(length).map_err(|_| "too much for a batch".to_owned());
        let encoding = self.encoding.as_ref().map_or(Ok(0), encoding)?;
        let timestamp = self.timestamp.as_ref().map_or(Ok(none), stamp)?;
        let has = |field| needs.contains(field);
        batch.samples.push(types::Sample {
            key_hash: xxh3_64(self.key.as_bytes()),
            timestamp: if has(Fields::TIMESTAMP) {
                timestamp
            } else {
                none
            },
            payload_size: if has(Fields::SIZE) { end(size)? } else { 0 },
            key_end: end(batch.keys.len())?,
            payload_end: end(batch.payloads.len())?,
            attachment_end: end(batch.attachments.len())?,
            encoding: if has(Fields::ENCODING) { encoding } else { 0 },
            // Zenoh's priority of a sample that names none.
            priority: if has(Fields::PRIORITY) {
                self.priority.unwrap_or(5)
            } else {
                0
            },
            kind: if has(Fields::KIND) {
                kind
            } else {
                types::SampleKind::Put
            },
        });
        Ok(())
    }
}

impl Contender {
    fn version(&self) -> Result<Version, String> {
        let value = match (&self.put, self.delete) {
            (Some(written), false) => Some(Value {
                encoding: self.encoding.as_ref().map_or(Ok(0), encoding)?,
                schema: self.schema.clone().unwrap_or_default().into_bytes(),
                payload: payload(written)?,
                attachment: self.attachment.as_ref().map(payload).transpose()?,
            }),
            (None, true) => None,
            _ => return Err("a version has either `put` or `\"delete\": true`".to_owned()),
        };
        Ok(Version {
            timestamp: stamp(&self.timestamp)?,
            value,
        })
    }
}
