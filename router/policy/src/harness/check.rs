//! What a module is, whether it starts, and whether it keeps what it promises: for a resolver the laws,
//! for a router that it depends on what its manifest says.

use std::{collections::BTreeSet, sync::Arc};

use serde::Serialize;
use serde_json::{Value as Json, json};
use weir_core::{
    laws::{self, Counterexample, Domain, Law, Passed},
    value::Value,
};

use super::{
    answer::{Asked, resolve},
    case::{Case, Link, Question},
    sample::Sample,
    written::line,
};
use crate::{Environment, Fault, Hook, Limits, Manifest, Resolver, Revision};

/// Environments of one hook that are tried, the caller's own among them.
const ENVIRONMENTS_MAX: usize = 8;
/// Keys that a router is asked about in several ways.
const KEYS_MAX: usize = 32;

/// How a module is checked.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What the policy is told, if the caller says; without it, what its cases say.
    pub environment: Option<Environment>,
    /// The policy's cases: their settings start it, their values are tried on the laws.
    pub cases: Vec<Case>,
    /// Questions to a resolver for each of its environments; 40 us each.
    pub calls_max: u64,
}

/// What was found.
#[derive(Debug)]
pub struct Checked {
    /// What the module exports.
    pub hooks: Vec<Hook>,
    /// What the policy says about itself, where it started.
    pub manifest: Option<Manifest>,
    /// What is wrong; nothing if it may serve.
    pub problems: Vec<Problem>,
    /// What was tried without finding anything.
    pub held: Vec<Held>,
}

/// Something that was tried and held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// The policy's settings.
    pub settings_json: String,
    /// How much was tried.
    pub passed: Passed,
}

/// Something that is wrong with a module.
#[derive(Clone, Debug)]
pub enum Problem {
    /// It does not start.
    Start {
        /// The hook.
        hook: Hook,
        /// The policy's settings.
        settings_json: String,
        /// Why not.
        fault: Fault,
    },
    /// A law is broken.
    Unlawful {
        /// The policy's settings.
        settings_json: String,
        /// How.
        example: Box<Counterexample>,
    },
    /// A router's answer depends on what its manifest does not name.
    Undeclared {
        /// The policy's settings.
        settings_json: String,
        /// The key.
        key: String,
        /// Two answers about it.
        answers: [Json; 2],
    },
}

/// Checks a module.
#[must_use]
pub fn check(revision: &Arc<Revision>, setup: &Setup) -> Checked {
    let mut checked = Checked {
        hooks: revision.hooks.iter().collect(),
        manifest: None,
        problems: Vec::new(),
        held: Vec::new(),
    };
    for hook in revision.hooks.iter() {
        let environments = environments(setup, hook);
        let mut first_fault = None;
        let mut started = 0;
        for environment in &environments {
            match Asked::start(revision, hook, environment, Arc::default()) {
                Ok(asked) => {
                    started += 1;
                    checked
                        .manifest
                        .get_or_insert_with(|| asked.manifest().clone());
                    if let Asked::Resolve(resolver) = &asked {
                        checked.try_laws(resolver, setup, environment);
                    } else if hook == Hook::Route && asked.manifest().routes_by_key_alone() {
                        checked.try_keys(revision, setup, environment);
                    }
                }
                Err(fault) => {
                    let place = (environment.settings_json.clone(), fault);
                    first_fault.get_or_insert(place);
                }
            }
        }
        // Some cases are about settings that are refused; one that starts is enough, unless the caller
        // named the one that counts.
        let is_enough = started > 0 && setup.environment.is_none();
        if let (Some((settings_json, fault)), false) = (first_fault, is_enough) {
            checked.problems.push(Problem::Start {
                hook,
                settings_json,
                fault,
            });
        }
    }
    checked
}

/// Tries the laws on a resolver, with values of its own cases among what is tried.
///
/// # Errors
/// The first counterexample, made small.
pub fn try_laws(
    resolver: &Resolver,
    samples: Vec<Value>,
    calls_max: u64,
) -> Result<Passed, Box<Counterexample>> {
    let domain = Domain {
        samples,
        calls_max,
        ..Domain::default()
    };
    laws::check(&domain, |key, first, second| {
        resolve(resolver, key, first, second)
    })
}

/// The values that cases of `resolve` speak of.
#[must_use]
pub fn values_of(cases: &[Case]) -> Vec<Value> {
    let mut values: Vec<Value> = Vec::new();
    for case in cases {
        if let Question::Resolve(conflict) = &case.question {
            let own = [&conflict.first.value, &conflict.second.value];
            for value in own.into_iter().flatten() {
                if !values.contains(value) {
                    values.push(value.clone());
                }
            }
        }
    }
    values
}

/// What is told, by the caller or by the cases, without what is told twice.
fn environments(setup: &Setup, hook: Hook) -> Vec<Environment> {
    if let Some(environment) = &setup.environment {
        return vec![match hook {
            Hook::Resolve => Environment::for_resolve(environment.settings_json.clone()),
            Hook::Route | Hook::Prioritize => environment.clone(),
        }];
    }
    let mut seen = BTreeSet::new();
    let cases = setup.cases.iter().filter(|case| case.hook == hook);
    let told = cases.map(|case| case.environment.clone());
    let mut told: Vec<_> = told
        .filter(|told| seen.insert((told.settings_json.clone(), told.shards.clone())))
        .take(ENVIRONMENTS_MAX)
        .collect();
    if told.is_empty() {
        told.push(Environment::default());
    }
    told
}

impl Checked {
    fn try_laws(&mut self, resolver: &Resolver, setup: &Setup, environment: &Environment) {
        let settings_json = environment.settings_json.clone();
        match try_laws(resolver, values_of(&setup.cases), setup.calls_max) {
            Ok(passed) => self.held.push(Held {
                settings_json,
                passed,
            }),
            Err(example) => self.problems.push(Problem::Unlawful {
                settings_json,
                example,
            }),
        }
    }

    /// Asks about the same keys with other samples: what a host remembers for a key must not depend on
    /// them.
    fn try_keys(&mut self, revision: &Arc<Revision>, setup: &Setup, environment: &Environment) {
        let own = setup
            .cases
            .iter()
            .filter(|case| case.environment == *environment);
        let samples: Vec<&Sample> = own.flat_map(Case::samples).take(KEYS_MAX).collect();
        for sample in samples {
            let mut first: Option<Json> = None;
            for variant in variants(sample) {
                // A fresh instance each: one remembers what it answered.
                let asked = Asked::start(revision, Hook::Route, environment, Arc::default());
                let Ok(mut asked) = asked else { return };
                let Ok(mut answers) = asked.samples(&Link::default(), &[variant]) else {
                    continue;
                };
                let Some(answer) = answers.pop() else {
                    continue;
                };
                match &first {
                    None => first = Some(answer),
                    Some(first) if *first != answer => {
                        self.problems.push(Problem::Undeclared {
                            settings_json: environment.settings_json.clone(),
                            key: sample.key.to_string(),
                            answers: [first.clone(), answer],
                        });
                        return;
                    }
                    Some(_) => {}
                }
            }
        }
    }
}

/// A sample, and others with its key.
fn variants(sample: &Sample) -> [Sample; 4] {
    let other = |value: Option<Value>, priority| Sample {
        value,
        priority,
        stamp: None,
        key: sample.key.clone(),
    };
    let large = Value {
        attachment: Some("x".into()),
        ..Value::bytes(vec![b'7'; 1 << 20])
    };
    [
        sample.clone(),
        other(None, 1),
        other(Some(Value::bytes("{}")), 7),
        other(Some(large), 5),
    ]
}

impl Problem {
    /// A word that never changes: `init`, `law`, `undeclared`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Start { .. } => "init",
            Self::Unlawful { .. } => "law",
            Self::Undeclared { .. } => "undeclared",
        }
    }

    /// What is wrong and what to do; several lines.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Start {
                hook,
                settings_json,
                fault,
            } => format!(
                "it does not start for {hook} with settings {settings_json}: {}",
                fault.message
            ),
            Self::Unlawful {
                settings_json,
                example,
            } => format!(
                "with settings {settings_json} it is {example}\n  {}",
                explanation(example.law).meaning
            ),
            Self::Undeclared {
                settings_json,
                key,
                answers: [one, other],
            } => format!(
                "with settings {settings_json} key {key} is answered with {} and, for another sample, \
                 with {}; the host would remember the first: name in `route-varies-with` what it \
                 depends on",
                line(one),
                line(other)
            ),
        }
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Json {
        let mut json = json!({ "code": self.code(), "message": self.text() });
        match self {
            Self::Start {
                hook,
                settings_json,
                ..
            } => {
                json["hook"] = json!(hook.name());
                json["settings"] = json!(settings_json);
            }
            Self::Unlawful {
                settings_json,
                example,
            } => {
                let inputs = example.inputs.iter().map(ToString::to_string);
                json["settings"] = json!(settings_json);
                json["law"] = json!(example.law.name());
                json["inputs"] = json!(inputs.collect::<Vec<_>>());
                json["left"] = json!({ "how": example.left.how, "gave": example.left.gave });
                json["right"] = json!({ "how": example.right.how, "gave": example.right.gave });
            }
            Self::Undeclared {
                settings_json,
                key,
                answers,
            } => {
                json["settings"] = json!(settings_json);
                json["key"] = json!(key);
                json["answers"] = json!(answers);
            }
        }
        json
    }
}

/// A law in words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Explanation {
    /// Its name.
    pub law: &'static str,
    /// What it says, and what becomes of a resolver that breaks it.
    pub meaning: &'static str,
    /// The law as an equation, or in place of one.
    pub equation: &'static str,
    /// What breaks it.
    pub broken_by: &'static str,
}

/// Every law, in the order in which they are tried.
pub const LAWS: [Law; 6] = [
    Law::Total,
    Law::Deterministic,
    Law::Closed,
    Law::Commutative,
    Law::Associative,
    Law::Idempotent,
];

/// A law in words.
#[must_use]
pub fn explanation(law: Law) -> Explanation {
    let (meaning, equation, broken_by) = match law {
        Law::Total => (
            "Every two versions have an answer. Where it fails, the later version wins and the merge is lost.",
            "merge(a, b) is an answer",
            "parsing payloads as JSON and panicking on one that is none",
        ),
        Law::Deterministic => (
            "The same question has the same answer. Otherwise replicas answer differently.",
            "merge(a, b) = merge(a, b), asked again",
            "the order of a hash map's entries in the merged value",
        ),
        Law::Closed => (
            "What it answers can be kept and merged again. Otherwise a third version finds no answer.",
            "merge(merge(a, b), c) is an answer",
            "writing a document that its own parser refuses",
        ),
        Law::Commutative => (
            "The order in which versions arrive does not matter. Otherwise replicas that received them in another order hold another value.",
            "merge(merge(a, b), c) = merge(merge(a, c), b)",
            "\"first + second\" as text",
        ),
        Law::Associative => (
            "Which were merged with each other first does not matter. Otherwise two sites that merged on their own do not agree.",
            "merge(merge(a, b), merge(c, d)) = merge(merge(merge(a, b), c), d)",
            "the average of two numbers",
        ),
        Law::Idempotent => (
            "Merging again what was merged before changes nothing. Otherwise a change that comes twice counts twice.",
            "merge(merge(a, b), a) = merge(a, b)",
            "the sum of two counters",
        ),
    };
    Explanation {
        law: law.name(),
        meaning,
        equation,
        broken_by,
    }
}

/// What a policy may use, for programs.
#[must_use]
pub fn limits_json(limits: &Limits) -> Json {
    json!({
        "module_bytes_max": limits.module_bytes_max,
        "memory_bytes_max": limits.memory_bytes_max,
        "stack_bytes_max": limits.stack_bytes_max,
        "batch_cpu_ms_max": limits.batch_cpu_max.as_secs_f64() * 1e3,
        "init_cpu_ms_max": limits.init_cpu_max.as_secs_f64() * 1e3,
        "resolve_fuel": limits.resolve_fuel,
    })
}
