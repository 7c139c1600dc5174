//! `prioritize`: what leaves a backlog first.

use std::sync::Arc;

use weir_core::{
    backlog::{LANES, LinkState, Verdict},
    placement::Description,
};

use crate::{
    asker::{Asker, reason},
    bindings,
    environment::{Environment, Hook, Manifest},
    fault::{Cause, Fault},
    revision::Revision,
    stats::Stats,
};

/// An instance of a policy that orders backlogs. It is asked by one thread at a time.
pub struct PrioritizeInstance {
    asker: Asker<bindings::Link, bindings::Verdict>,
    name: Arc<str>,
}

impl PrioritizeInstance {
    /// Starts an instance.
    ///
    /// # Errors
    /// If the instance does not start, or does not serve `prioritize`.
    pub fn new(
        revision: &Arc<Revision>,
        environment: &Environment,
        stats: Arc<Stats>,
    ) -> Result<Self, Fault> {
        Ok(Self {
            asker: Asker::new(revision, Hook::Prioritize, environment, stats)?,
            name: "".into(),
        })
    }

    /// What the policy says about itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        self.asker.manifest()
    }

    /// What it was made from.
    #[must_use]
    pub fn revision(&self) -> &Arc<Revision> {
        self.asker.revision()
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> &Arc<Stats> {
        self.asker.stats()
    }

    /// Pushes one verdict for each sample, in order, whatever happens: those of a call that failed are
    /// [`Verdict::Default`]. The keys in `batch` are relative to `prefix`. A batch is asked about in
    /// calls of up to 1,024 samples.
    ///
    /// # Errors
    /// The first failure of a call. An instance that trapped or ran too long is replaced by a fresh one
    /// at the next call.
    pub fn prioritize(
        &mut self,
        prefix: &str,
        link: LinkState<'_>,
        batch: &[Description<'_>],
        out: &mut Vec<Verdict>,
    ) -> Result<(), Fault> {
        if *self.name != *link.name {
            self.name = link.name.into();
        }
        out.reserve(batch.len());
        let mut first_fault = Ok(());
        let mut rest = batch;
        while !rest.is_empty() {
            let param = bindings::Link {
                name: Arc::clone(&self.name),
                now: link.now,
                queued: link.queued,
                queued_bytes: link.queued_bytes,
                capacity_bytes: link.capacity_bytes,
            };
            let (count, fault) = self
                .asker
                .ask(prefix, param, rest.iter(), |manifest, answers| {
                    let before = out.len();
                    let checked = push(manifest, answers, out);
                    checked.inspect_err(|_| out.truncate(before))
                });
            let (asked, unasked) = rest.split_at(count.max(1));
            if fault.is_err() {
                out.extend(asked.iter().map(|_| Verdict::Default));
            }
            first_fault = first_fault.and(fault);
            rest = unasked;
        }
        first_fault
    }
}

/// Pushes what was answered, if all of it makes sense.
fn push(
    manifest: &Manifest,
    answers: Vec<bindings::Verdict>,
    out: &mut Vec<Verdict>,
) -> Result<(), Fault> {
    for (index, answer) in answers.into_iter().enumerate() {
        let verdict = Verdict::from(answer);
        check(manifest, verdict).map_err(|fault| Fault {
            message: format!("sample {index}: {}", fault.message),
            ..fault
        })?;
        out.push(verdict);
    }
    Ok(())
}

fn check(manifest: &Manifest, verdict: Verdict) -> Result<(), Fault> {
    match verdict {
        Verdict::Default => Ok(()),
        Verdict::Place(placement) if placement.lane < LANES => Ok(()),
        Verdict::Place(placement) => Err(Fault::guest(
            Cause::Answer,
            format!(
                "it named lane {}, there are {LANES}, counted from 0",
                placement.lane
            ),
        )),
        Verdict::Drop(number) => reason(manifest, number),
    }
}
