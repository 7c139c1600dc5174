//! Cases and laws as native tests: seconds, no WebAssembly, a debugger where one is wanted.
//!
//! ```no_run
//! # use weir_policy_sdk::prelude::*;
//! # struct Video;
//! # impl Policy for Video {
//! #     type Settings = ();
//! #     fn new(_: &Environment, _: ()) -> Result<Self, InitError> { Ok(Self) }
//! #     fn manifest(&self) -> Manifest { manifest!() }
//! # }
//! # impl Route for Video { fn route(&mut self, _: Sample<'_>) -> Destination { Destination::Default } }
//! // In a #[test]: every case of every file in `cases` beside the crate's Cargo.toml.
//! weir_policy_sdk::testing::route::<Video>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
//! ```
//!
//! `weir policy test` runs the same files against the module, in the router's own engine. The form of
//! a case is described in `policies/README.md`.

mod cases;
mod laws;
mod values;

pub use laws::{Held, check_laws, check_laws_of_all};

use serde_json::{Value as Json, json};

use crate::{
    Batch, Destination, Environment, Fields, Hooks, InitError, Link, Manifest, Policy, Prioritize,
    Resolution, Resolve, Route, Verdict, policy::start,
};
use cases::Case;
use values::{payload_json, time_json};

/// Runs every route case in a directory.
///
/// # Panics
/// If a case is not as expected, cannot be read, or there is none.
pub fn route<P: Route>(directory: &str) {
    cases::run(directory, "route", |case| {
        let (mut policy, manifest) = match begin::<P>(case, Hooks::ROUTE)? {
            Ok(policy) => policy,
            Err(refusal) => return Ok(refusal),
        };
        let batch = case.batch(manifest.needed(), manifest.prefix())?;
        answers(policy.route_batch(&batch), |answer| {
            destination_json(case, &manifest, answer)
        })
    });
}

/// Runs every prioritize case in a directory.
///
/// # Panics
/// If a case is not as expected, cannot be read, or there is none.
pub fn prioritize<P: Prioritize>(directory: &str) {
    cases::run(directory, "prioritize", |case| {
        let (mut policy, manifest) = match begin::<P>(case, Hooks::PRIORITIZE)? {
            Ok(policy) => policy,
            Err(refusal) => return Ok(refusal),
        };
        let link: Link = case.link()?;
        let batch: Batch = case.batch(manifest.needed(), manifest.prefix())?;
        answers(policy.prioritize_batch(&link, &batch), |answer| {
            verdict_json(&manifest, answer)
        })
    });
}

/// Runs every resolve case in a directory.
///
/// # Panics
/// If a case is not as expected, cannot be read, or there is none.
pub fn resolve<P: Resolve>(directory: &str) {
    cases::run(directory, "resolve", |case| {
        let (mut policy, _) = match begin::<P>(case, Hooks::RESOLVE)? {
            Ok(policy) => policy,
            Err(refusal) => return Ok(refusal),
        };
        let (first, second) = case.versions()?;
        Ok(match policy.resolve(case.key()?, &first, &second) {
            Ok(Resolution::Default) => json!("default"),
            Ok(Resolution::KeepFirst) => json!("keep-first"),
            Ok(Resolution::KeepSecond) => json!("keep-second"),
            Ok(Resolution::Delete) => json!("delete"),
            Ok(Resolution::Merge(value)) => json!({ "merge": payload_json(&value.payload) }),
            Err(error) => json!({ "error": error }),
        })
    });
}

/// A policy and its manifest, or what a case would expect of its refusal.
fn begin<P: Policy>(case: &Case, hooks: Hooks) -> Result<Result<(P, Manifest), Json>, String> {
    let mut environment: Environment = case.environment()?;
    if hooks != Hooks::ROUTE {
        environment.shards.clear();
    }
    if hooks == Hooks::RESOLVE {
        environment.router_id.clear();
        environment.zone.clear();
    }
    Ok(match start::<P>(&environment) {
        Ok(policy) => {
            let manifest = policy.manifest();
            Ok((policy, manifest))
        }
        Err(
            InitError::BadSettings(text) | InitError::Unsupported(text) | InitError::Other(text),
        ) => Err(json!({ "init_error": text })),
    })
}

fn answers<T>(
    answers: Result<Vec<T>, String>,
    show: impl Fn(T) -> Result<Json, String>,
) -> Result<Json, String> {
    match answers {
        Ok(answers) => answers
            .into_iter()
            .map(show)
            .collect::<Result<Vec<_>, _>>()
            .map(Json::Array),
        Err(error) => Ok(json!({ "error": error })),
    }
}

fn destination_json(case: &Case, manifest: &Manifest, answer: Destination) -> Result<Json, String> {
    Ok(match answer {
        Destination::Default => json!("default"),
        Destination::Token(token) => json!({ "token": token }),
        Destination::Shard(shard) => json!({ "shard": case.shard_name(shard)? }),
        Destination::Shards(mut shards) => {
            // As the host takes it: a copy is one copy, in whatever order and however often it is
            // named.
            shards.sort_unstable();
            shards.dedup();
            let names = shards.into_iter().map(|shard| case.shard_name(shard));
            json!({ "shards": names.collect::<Result<Vec<_>, _>>()? })
        }
        Destination::Reject(reason) => json!({ "reject": manifest.reason(reason)? }),
    })
}

fn verdict_json(manifest: &Manifest, answer: Verdict) -> Result<Json, String> {
    Ok(match answer {
        Verdict::Default => json!("default"),
        Verdict::Drop(reason) => json!({ "drop": manifest.reason(reason)? }),
        Verdict::Place(place) => {
            let mut shown = json!({ "lane": place.lane });
            if place.lane > 7 {
                return Err(format!("lane {} does not exist", place.lane));
            }
            if place.expires != 0 {
                shown["expires"] = time_json(place.expires);
            }
            if place.newest_only {
                shown["newest_only"] = json!(true);
            }
            shown
        }
    })
}

impl Manifest {
    fn reason(&self, number: u32) -> Result<&str, String> {
        let name = self.reason_names().get(number as usize);
        name.map(String::as_str)
            .ok_or_else(|| format!("the manifest has no reason {number}"))
    }

    fn needed(&self) -> Fields {
        self.fields()
    }

    fn prefix(&self) -> usize {
        self.prefix_bytes().min(4096) as usize
    }
}
