//! What a router asks of a module before it serves: the cases that lie beside it, and the laws.

use std::{path::PathBuf, sync::Arc};

use super::{
    cases::{self, Outcome},
    check::{explanation, try_laws, values_of},
};
use crate::{
    Hook, Resolver,
    registry::{Admit, Candidate, NotAdmitted},
};

/// Refuses a module whose cases do not pass. They are those beside it in the watched directory:
/// `NAME.cases.json`, or the files in `NAME.cases/`. A module without any is admitted. A case that is
/// dropped after its module does not count until the module is loaded again: drop it first.
#[derive(Clone, Debug)]
pub struct Cases {
    /// The watched directory.
    pub dir: PathBuf,
}

/// Refuses a resolver that breaks a law. Costs about 40 us for each question.
#[derive(Clone, Copy, Debug)]
pub struct Laws {
    /// Questions at the most.
    pub calls_max: u64,
}

impl Admit for Cases {
    fn admit(&self, candidate: &Candidate<'_>) -> Result<(), NotAdmitted> {
        let refuse = |message| {
            Err(NotAdmitted {
                code: "case".into(),
                message,
            })
        };
        let mut entries = Vec::new();
        for path in self.files(candidate.name) {
            match cases::read(&path) {
                Ok(more) => entries.extend(more),
                Err(error) => return refuse(format!("its cases cannot be read: {error}")),
            }
        }
        // What cannot be read as a case is nobody's: it counts for every hook.
        entries.retain(|entry| {
            entry
                .case
                .as_ref()
                .map_or(true, |case| case.hook == candidate.hook)
        });
        let report = cases::run(candidate.revision, &entries);
        let counts = report.counts();
        if counts.is_clean() {
            return Ok(());
        }
        let wrong = report
            .cases
            .iter()
            .find(|ran| ran.outcome != Outcome::Passed);
        let first = wrong.map_or_else(String::new, |ran| {
            format!("{}: {}", ran.name, ran.complaint().join("; "))
        });
        let (wrong, all) = (counts.failed + counts.broken, report.cases.len());
        refuse(format!(
            "{wrong} of its {all} cases do not pass (`weir policy test`): {first}"
        ))
    }
}

impl Cases {
    fn files(&self, name: &str) -> impl Iterator<Item = PathBuf> {
        let beside =
            ["cases.json", "cases"].map(|ending| self.dir.join(format!("{name}.{ending}")));
        beside.into_iter().filter(|path| path.exists())
    }
}

impl Admit for Laws {
    fn admit(&self, candidate: &Candidate<'_>) -> Result<(), NotAdmitted> {
        if candidate.hook != Hook::Resolve {
            return Ok(());
        }
        let refuse = |message| {
            Err(NotAdmitted {
                code: "law".into(),
                message,
            })
        };
        let settings = &candidate.environment.settings_json;
        let resolver = match Resolver::new(candidate.revision, settings, Arc::default()) {
            Ok(resolver) => resolver,
            Err(fault) => return refuse(fault.to_string()),
        };
        try_laws(&resolver, values_of(&[]), self.calls_max)
            .map(|_| ())
            .or_else(|example| {
                let meaning = explanation(example.law).meaning;
                refuse(format!("it is {example}\n{meaning} (`weir policy check`)"))
            })
    }
}
