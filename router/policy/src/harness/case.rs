//! One case: a question to a policy and the answer that is promised. `policies/README.md` describes
//! every field.

use serde::Deserialize;
use serde_json::Value as Json;
use weir_core::{
    laws::Held,
    value::{Encoding, Value},
    version::Version,
};

use super::{
    sample::{Row, Sample},
    written::{compact, encoding, payload, stamp, time},
};
use crate::{Environment, Hook};

/// A case that can be asked.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is promised.
    pub name: String,
    /// Which hook is asked.
    pub hook: Hook,
    /// What the policy is told when it begins.
    pub environment: Environment,
    /// What it is asked.
    pub question: Question,
    /// What it should answer; a case that was just written has none.
    pub expect: Option<Json>,
}

/// What a policy is asked.
#[derive(Clone, Debug)]
pub enum Question {
    /// Where these samples go.
    Route(Vec<Sample>),
    /// How these samples wait.
    Prioritize(Link, Vec<Sample>),
    /// Which of two versions a key holds.
    Resolve(Box<Conflict>),
}

/// Two versions of a key, the earlier first.
#[derive(Clone, Debug)]
pub struct Conflict {
    /// The key in full.
    pub key: String,
    /// The earlier version.
    pub first: Held,
    /// The later version.
    pub second: Held,
}

/// The link whose backlog it is: [`weir_core::backlog::LinkState`] with a name of its own.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its name in the settings.
    pub name: String,
    /// Now (NTP64).
    pub now: u64,
    /// How many samples wait.
    pub queued: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// How many bytes may wait.
    pub capacity_bytes: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    hook: String,
    settings: Option<Json>,
    #[serde(default)]
    router_id: String,
    #[serde(default)]
    zone: String,
    #[serde(default)]
    shards: Vec<String>,
    #[serde(default)]
    link: WrittenLink,
    #[serde(default)]
    samples: Vec<Row>,
    key: Option<String>,
    first: Option<WrittenVersion>,
    second: Option<WrittenVersion>,
    expect: Option<Json>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct WrittenLink {
    name: String,
    now: Option<Json>,
    queued: u64,
    queued_bytes: u64,
    capacity_bytes: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenVersion {
    timestamp: Json,
    put: Option<Json>,
    #[serde(default)]
    delete: bool,
    encoding: Option<Json>,
    schema: Option<Json>,
    attachment: Option<Json>,
}

impl Case {
    /// Reads a case.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn parse(json: Json) -> Result<Self, String> {
        let written: Written = serde_json::from_value(json).map_err(|error| error.to_string())?;
        let hook = Hook::ALL
            .into_iter()
            .find(|hook| hook.name() == written.hook)
            .ok_or_else(|| {
                format!(
                    "`{}` is no hook: route, resolve or prioritize",
                    written.hook
                )
            })?;
        let question = written.question(hook)?;
        let settings_json = written.settings.as_ref().map_or("{}".into(), compact);
        // As a router tells it: a resolver answers alike everywhere, so it is not told where it is.
        let environment = match hook {
            Hook::Resolve => Environment::for_resolve(settings_json),
            Hook::Route | Hook::Prioritize => Environment {
                router_id: written.router_id,
                zone: written.zone,
                shards: match hook {
                    Hook::Route => written.shards,
                    Hook::Prioritize | Hook::Resolve => Vec::new(),
                },
                settings_json,
            },
        };
        Ok(Self {
            name: written.name,
            hook,
            environment,
            question,
            expect: written.expect,
        })
    }

    /// The samples that it asks about, if it asks about samples.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        match &self.question {
            Question::Route(samples) | Question::Prioritize(_, samples) => samples,
            Question::Resolve(_) => &[],
        }
    }
}

impl Written {
    fn question(&self, hook: Hook) -> Result<Question, String> {
        let samples = || match self.samples.as_slice() {
            [] => Err(format!("a {hook} case needs `samples`")),
            rows => rows
                .iter()
                .cloned()
                .map(Sample::try_from)
                .collect::<Result<Vec<_>, _>>(),
        };
        Ok(match hook {
            Hook::Route => Question::Route(samples()?),
            Hook::Prioritize => Question::Prioritize(self.link()?, samples()?),
            Hook::Resolve => {
                let (Some(key), Some(first), Some(second)) = (&self.key, &self.first, &self.second)
                else {
                    return Err("a resolve case needs `key`, `first` and `second`".into());
                };
                let (first, second) = (first.held()?, second.held()?);
                if first.version.stamp > second.version.stamp {
                    return Err(
                        "`first` is the later version: exchange the two, since a policy is \
                                always told the earlier one first"
                            .into(),
                    );
                }
                Question::Resolve(Box::new(Conflict {
                    key: key.clone(),
                    first,
                    second,
                }))
            }
        })
    }

    fn link(&self) -> Result<Link, String> {
        Ok(Link {
            name: self.link.name.clone(),
            now: self.link.now.as_ref().map_or(Ok(0), time)?,
            queued: self.link.queued,
            queued_bytes: self.link.queued_bytes,
            capacity_bytes: self.link.capacity_bytes,
        })
    }
}

impl WrittenVersion {
    fn held(&self) -> Result<Held, String> {
        let stamp = stamp(&self.timestamp)?;
        match (&self.put, self.delete) {
            (None, true) => Ok(Held {
                version: Version::delete(stamp),
                value: None,
            }),
            (Some(put), false) => {
                let value = Value {
                    encoding: Encoding {
                        id: self.encoding.as_ref().map_or(Ok(0), encoding)?,
                        schema: self.schema.as_ref().map(payload).transpose()?,
                    },
                    attachment: self.attachment.as_ref().map(payload).transpose()?,
                    payload: payload(put)?,
                };
                Ok(Held {
                    version: Version::put(stamp, value.hash()),
                    value: Some(value),
                })
            }
            _ => Err("a version has either `put` or `\"delete\": true`".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_wrong_with_a_case_is_said() {
        let version = json!({ "timestamp": 1, "put": "x" });
        let rows = [
            (json!({ "hook": "route" }), "missing field `name`"),
            (json!({ "name": "n", "hook": "fly" }), "`fly` is no hook"),
            (json!({ "name": "n", "hook": "route" }), "needs `samples`"),
            (
                json!({ "name": "n", "hook": "route", "sample": [] }),
                "unknown field `sample`",
            ),
            (
                json!({ "name": "n", "hook": "route", "samples": [{ "key": "a", "priority": 9 }] }),
                "priority 9",
            ),
            (
                json!({ "name": "n", "hook": "resolve", "key": "k" }),
                "`first` and `second`",
            ),
            (
                json!({ "name": "n", "hook": "resolve", "key": "k", "second": version,
                        "first": { "timestamp": 2, "put": "y" } }),
                "`first` is the later",
            ),
            (
                json!({ "name": "n", "hook": "resolve", "key": "k", "second": version,
                        "first": { "timestamp": 1 } }),
                "either `put` or",
            ),
        ];
        for (case, expected) in rows {
            let error = Case::parse(case.clone()).unwrap_err();
            assert!(error.contains(expected), "{case}: {error}");
        }
    }
}
