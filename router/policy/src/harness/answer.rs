//! What policies answer, as cases write it, and whether it is what was promised.

use std::{sync::Arc, time::Instant};

use serde::Serialize;
use serde_json::{Value as Json, json};
use weir_core::{
    backlog::{LinkState, Verdict},
    laws::Held,
    placement::{Description, Destination},
    resolution::{Contender, Resolution},
};

use super::{
    case::{Case, Conflict, Link, Question},
    sample::Sample,
    written::{payload, payload_json, time, time_json},
};
use crate::{
    Cause, Environment, Fault, Hook, Manifest, PrioritizeInstance, ResolveFault, Resolver,
    Revision, RouteInstance, Stats,
};

/// Times that a question is asked again if the host was interrupted.
const INTERRUPTIONS_MAX: usize = 3;

/// A policy that was started for one hook, in one environment.
pub enum Asked {
    /// For `route`, with the names of the shards.
    Route(Box<RouteInstance>, Vec<String>),
    /// For `prioritize`.
    Prioritize(Box<PrioritizeInstance>),
    /// For `resolve`.
    Resolve(Box<Resolver>),
}

impl Asked {
    /// Starts the policy.
    ///
    /// # Errors
    /// If it does not start, or does not serve the hook.
    pub fn start(
        revision: &Arc<Revision>,
        hook: Hook,
        environment: &Environment,
        stats: Arc<Stats>,
    ) -> Result<Self, Fault> {
        Ok(match hook {
            Hook::Route => {
                let instance = RouteInstance::new(revision, environment, stats)?;
                Self::Route(Box::new(instance), environment.shards.clone())
            }
            Hook::Prioritize => {
                let instance = PrioritizeInstance::new(revision, environment, stats)?;
                Self::Prioritize(Box::new(instance))
            }
            Hook::Resolve => {
                let resolver = Resolver::new(revision, &environment.settings_json, stats)?;
                Self::Resolve(Box::new(resolver))
            }
        })
    }

    /// What the policy says about itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        match self {
            Self::Route(instance, _) => instance.manifest(),
            Self::Prioritize(instance) => instance.manifest(),
            Self::Resolve(resolver) => resolver.manifest(),
        }
    }

    /// The answer about each sample. A resolver has none.
    ///
    /// # Errors
    /// The first call that failed.
    pub fn samples(&mut self, link: &Link, samples: &[Sample]) -> Result<Vec<Json>, Fault> {
        let batch: Vec<Description<'_>> = samples.iter().map(Sample::describe).collect();
        match self {
            Self::Route(instance, names) => {
                let mut out = Vec::with_capacity(batch.len());
                let shards = u32::try_from(names.len()).unwrap_or(u32::MAX);
                instance.route("", shards, &batch, &mut out)?;
                let manifest = instance.manifest();
                Ok(out
                    .iter()
                    .map(|answer| destination_json(answer, names, manifest))
                    .collect())
            }
            Self::Prioritize(instance) => {
                let mut out = Vec::with_capacity(batch.len());
                instance.prioritize("", link.state(), &batch, &mut out)?;
                let manifest = instance.manifest();
                Ok(out
                    .iter()
                    .map(|answer| verdict_json(answer, manifest))
                    .collect())
            }
            Self::Resolve(_) => Ok(Vec::new()),
        }
    }
}

impl Link {
    /// As the host takes it.
    #[must_use]
    pub fn state(&self) -> LinkState<'_> {
        LinkState {
            name: &self.name,
            now: self.now,
            queued: self.queued,
            queued_bytes: self.queued_bytes,
            capacity_bytes: self.capacity_bytes,
        }
    }
}

/// What a policy answered to a case.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Answer {
    /// As cases write it: the answers, or `{"error": ...}`, or `{"init_error": ...}`.
    pub json: Json,
    /// How long it took, in milliseconds, with starting the policy.
    pub took_ms: f64,
}

/// Asks a policy what a case asks, on a fresh instance.
///
/// # Errors
/// If the host could not ask it, which says nothing about the policy.
pub fn ask(revision: &Arc<Revision>, case: &Case) -> Result<Answer, String> {
    let start = Instant::now();
    let asked = Asked::start(revision, case.hook, &case.environment, Arc::default());
    let json = match asked {
        Ok(mut asked) => match &case.question {
            Question::Route(samples) => listed(asked.samples(&Link::default(), samples)),
            Question::Prioritize(link, samples) => listed(asked.samples(link, samples)),
            Question::Resolve(conflict) => match &asked {
                Asked::Resolve(resolver) => resolved(resolver, conflict),
                Asked::Route(..) | Asked::Prioritize(_) => Err("it is no resolver".to_owned()),
            },
        },
        Err(fault) => failed(&fault),
    }?;
    Ok(Answer {
        json,
        took_ms: start.elapsed().as_secs_f64() * 1e3,
    })
}

/// Asks a resolver, and again if the host was interrupted.
///
/// # Errors
/// As [`Resolver::resolve`]; an interruption only after several.
pub fn resolve(
    resolver: &Resolver,
    key: &str,
    first: Contender<'_>,
    second: Contender<'_>,
) -> Result<Resolution, ResolveFault> {
    let mut answer = resolver.resolve(key, first, second);
    for _ in 1..INTERRUPTIONS_MAX {
        if !matches!(answer, Err(ResolveFault::Interrupted(_))) {
            break;
        }
        answer = resolver.resolve(key, first, second);
    }
    answer
}

/// A version as the host takes it.
#[must_use]
pub fn contender(held: &Held) -> Contender<'_> {
    Contender {
        version: held.version,
        value: held.value.as_ref(),
    }
}

/// A resolution as cases write it.
#[must_use]
pub fn resolution_json(resolution: &Resolution) -> Json {
    match resolution {
        Resolution::Default => json!("default"),
        Resolution::First => json!("keep-first"),
        Resolution::Second => json!("keep-second"),
        Resolution::Delete => json!("delete"),
        Resolution::Merge(value) => json!({ "merge": payload_json(&value.payload) }),
    }
}

fn resolved(resolver: &Resolver, conflict: &Conflict) -> Result<Json, String> {
    let (first, second) = (contender(&conflict.first), contender(&conflict.second));
    match resolve(resolver, &conflict.key, first, second) {
        Ok(resolution) => Ok(resolution_json(&resolution)),
        Err(ResolveFault::Guest(fault)) => failed(&fault),
        Err(ResolveFault::Interrupted(interrupted)) => Err(interrupted.to_string()),
    }
}

fn listed(answers: Result<Vec<Json>, Fault>) -> Result<Json, String> {
    answers.map(Json::Array).or_else(|fault| failed(&fault))
}

/// A failure as cases write it, unless it is the host's own.
fn failed(fault: &Fault) -> Result<Json, String> {
    match fault.cause {
        Cause::Host => Err(fault.to_string()),
        Cause::Init => Ok(json!({ "init_error": fault.message })),
        Cause::GuestError => Ok(json!({ "error": fault.message })),
        _ => Ok(json!({ "error": fault.to_string() })),
    }
}

fn destination_json(answer: &Destination, names: &[String], manifest: &Manifest) -> Json {
    let name = |shard: &u32| {
        let name = usize::try_from(*shard)
            .ok()
            .and_then(|shard| names.get(shard));
        name.map_or_else(|| json!(shard), |name| json!(name))
    };
    match answer {
        Destination::Default => json!("default"),
        Destination::Token(token) => json!({ "token": token }),
        Destination::Shard(shard) => json!({ "shard": name(shard) }),
        Destination::Shards(shards) => {
            json!({ "shards": shards.iter().map(name).collect::<Vec<_>>() })
        }
        Destination::Reject(reason) => json!({ "reject": reason_json(*reason, manifest) }),
    }
}

fn verdict_json(answer: &Verdict, manifest: &Manifest) -> Json {
    match answer {
        Verdict::Default => json!("default"),
        Verdict::Drop(reason) => json!({ "drop": reason_json(*reason, manifest) }),
        Verdict::Place(placement) => {
            let mut shown = json!({ "lane": placement.lane });
            if let Some(expires) = placement.expires {
                shown["expires"] = time_json(expires);
            }
            if placement.newest_only {
                shown["newest_only"] = json!(true);
            }
            shown
        }
    }
}

fn reason_json(number: u32, manifest: &Manifest) -> Json {
    let reason = usize::try_from(number)
        .ok()
        .and_then(|number| manifest.reasons.get(number));
    reason.map_or_else(|| json!(number), |reason| json!(reason))
}

/// Whether an answer is what was promised: errors by a part of their text, everything else exactly,
/// with payloads and times as bytes and instants, however they are written.
#[must_use]
pub fn is_expected(expected: &Json, answer: &Json) -> bool {
    match (expected, answer) {
        (Json::Array(expected), Json::Array(answers)) => {
            let pairs = || expected.iter().zip(answers);
            expected.len() == answers.len() && pairs().all(|(one, other)| is_expected(one, other))
        }
        (Json::Object(expected), Json::Object(answer)) => {
            let is_field = |name: &str, one: &Json, other: &Json| match name {
                "error" | "init_error" => match (one.as_str(), other.as_str()) {
                    (Some(part), Some(text)) => text.contains(part),
                    _ => false,
                },
                "merge" => payload(one).is_ok_and(|one| payload(other) == Ok(one)),
                "expires" => time(one).is_ok_and(|one| time(other) == Ok(one)),
                _ => one == other,
            };
            expected.len() == answer.len()
                && expected.iter().all(|(name, one)| {
                    answer
                        .get(name)
                        .is_some_and(|other| is_field(name, one, other))
                })
        }
        _ => expected == answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_compared_by_what_it_means() {
        let rows = [
            (json!("default"), json!("default"), true),
            (json!(["default"]), json!(["default", "default"]), false),
            (
                json!({ "merge": { "json": [1, 2] } }),
                json!({ "merge": "[1,2]" }),
                true,
            ),
            (
                json!({ "merge": "[1, 2]" }),
                json!({ "merge": "[1,2]" }),
                false,
            ),
            (
                json!({ "lane": 1, "expires": "0.5" }),
                json!({ "lane": 1, "expires": 0.5 }),
                true,
            ),
            (
                json!({ "lane": 1 }),
                json!({ "lane": 1, "expires": 0.5 }),
                false,
            ),
            (
                json!({ "error": "no such" }),
                json!({ "error": "there is no such shard" }),
                true,
            ),
            (json!({ "init_error": "x" }), json!({ "error": "x" }), false),
        ];
        for (expected, answer, same) in rows {
            assert_eq!(is_expected(&expected, &answer), same, "{expected} {answer}");
        }
    }
}
