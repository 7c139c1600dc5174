//! `route`: which shard keeps a sample.

use std::sync::Arc;

use weir_core::placement::{Description, Destination};

use crate::{
    asker::{Asker, reason},
    bindings,
    environment::{Environment, Hook, Manifest},
    fault::{Cause, Fault},
    limits::COPIES_MAX,
    memo::Memo,
    revision::Revision,
    stats::Stats,
};

/// An instance of a policy that routes. One for each worker: it is asked by one thread at a time.
pub struct RouteInstance {
    asker: Asker<u32, bindings::Destination>,
    memo: Option<Memo>,
    /// What the remembered answers were given for.
    prefix: String,
    shards: u32,
    missing: Vec<usize>,
}

impl RouteInstance {
    /// Starts an instance. `environment.shards` are the names of the storage's shards.
    ///
    /// # Errors
    /// If the instance does not start, or does not serve `route`.
    pub fn new(
        revision: &Arc<Revision>,
        environment: &Environment,
        stats: Arc<Stats>,
    ) -> Result<Self, Fault> {
        let asker = Asker::new(revision, Hook::Route, environment, stats)?;
        let keys_max = revision.host().limits().memo_keys_max;
        let remembers = asker.manifest().routes_by_key_alone() && keys_max > 0;
        Ok(Self {
            memo: remembers.then(|| Memo::new(keys_max)),
            asker,
            prefix: String::new(),
            shards: 0,
            missing: Vec::new(),
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

    /// Pushes one destination for each sample, in order, whatever happens: those of a call that failed
    /// are [`Destination::Default`]. The keys in `batch` are relative to `prefix`; the policy sees them
    /// in full. A batch is asked about in calls of up to 1,024 samples.
    ///
    /// # Errors
    /// The first failure of a call. An instance that trapped or ran too long is replaced by a fresh one
    /// at the next call.
    pub fn route(
        &mut self,
        prefix: &str,
        shards: u32,
        batch: &[Description<'_>],
        out: &mut Vec<Destination>,
    ) -> Result<(), Fault> {
        out.reserve(batch.len());
        if self.memo.is_some() {
            return self.recall(prefix, shards, batch, out);
        }
        let mut first_fault = Ok(());
        let mut rest = batch;
        while !rest.is_empty() {
            let (count, fault) =
                self.asker
                    .ask(prefix, shards, rest.iter(), |manifest, answers| {
                        let before = out.len();
                        let checked = push(manifest, shards, answers, out);
                        checked.inspect_err(|_| out.truncate(before))
                    });
            let (asked, unasked) = rest.split_at(count.max(1));
            if fault.is_err() {
                out.extend(asked.iter().map(|_| Destination::Default));
            }
            first_fault = first_fault.and(fault);
            rest = unasked;
        }
        first_fault
    }

    /// The same for a policy that depends on the key alone: asks about keys that it was not asked about
    /// lately. Failures are not remembered.
    fn recall(
        &mut self,
        prefix: &str,
        shards: u32,
        batch: &[Description<'_>],
        out: &mut Vec<Destination>,
    ) -> Result<(), Fault> {
        let Some(memo) = &mut self.memo else {
            return Ok(());
        };
        if shards != self.shards || prefix != self.prefix {
            memo.clear();
            self.shards = shards;
            prefix.clone_into(&mut self.prefix);
        }
        let base = out.len();
        self.missing.clear();
        for (index, sample) in batch.iter().enumerate() {
            out.push(memo.get(sample.key_hash).unwrap_or_else(|| {
                self.missing.push(index);
                Destination::Default
            }));
        }
        self.asker
            .stats()
            .remembered(batch.len() - self.missing.len());
        let mut first_fault = Ok(());
        let mut rest = self.missing.as_slice();
        while !rest.is_empty() {
            let samples = rest.iter().map(|index| &batch[*index]);
            let (count, answers) = self
                .asker
                .ask(prefix, shards, samples, |manifest, answers| {
                    let mut destinations = Vec::with_capacity(answers.len());
                    push(manifest, shards, answers, &mut destinations).map(|()| destinations)
                });
            let (asked, unasked) = rest.split_at(count.max(1));
            match answers {
                Ok(destinations) => {
                    for (index, destination) in asked.iter().zip(destinations) {
                        memo.insert(batch[*index].key_hash, destination.clone());
                        out[base + index] = destination;
                    }
                }
                Err(fault) => first_fault = first_fault.and(Err(fault)),
            }
            rest = unasked;
        }
        first_fault
    }
}

/// Pushes what was answered, if all of it makes sense.
fn push(
    manifest: &Manifest,
    shards: u32,
    answers: Vec<bindings::Destination>,
    out: &mut Vec<Destination>,
) -> Result<(), Fault> {
    for (index, answer) in answers.into_iter().enumerate() {
        let mut destination = Destination::from(answer);
        check(manifest, shards, &mut destination).map_err(|fault| Fault {
            message: format!("sample {index}: {}", fault.message),
            ..fault
        })?;
        out.push(destination);
    }
    Ok(())
}

fn check(manifest: &Manifest, shards: u32, destination: &mut Destination) -> Result<(), Fault> {
    let in_range = |shard: u32| {
        if shard < shards {
            return Ok(());
        }
        Err(Fault::guest(
            Cause::ShardRange,
            format!("it named shard {shard}, there are {shards}, counted from 0"),
        ))
    };
    match destination {
        Destination::Default | Destination::Token(_) => Ok(()),
        Destination::Shard(shard) => in_range(*shard),
        Destination::Shards(list) => {
            let named = list.len();
            if !(1..=COPIES_MAX).contains(&named) {
                return Err(Fault::guest(
                    Cause::Answer,
                    format!("it named {named} shards at once, 1 to {COPIES_MAX} are allowed"),
                ));
            }
            // A copy on a shard is one copy, however often it is named.
            list.sort_unstable();
            list.dedup();
            list.iter().try_for_each(|shard| in_range(*shard))
        }
        Destination::Reject(number) => reason(manifest, *number),
    }
}
