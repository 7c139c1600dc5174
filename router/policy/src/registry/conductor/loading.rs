//! From a file's bytes to what can serve in a slot: on loading threads, told to the registry's own.

use std::sync::Arc;

use weir_core::slot::{self, ContentHash};

use super::{Conductor, Message};
use crate::{
    directory::Dropped,
    registry::{
        Candidate, Wanted,
        bound::{Bound, Prepared},
        file::{Condition, Loaded},
    },
    revision::Revision,
    stats::Stats,
    status::Refused,
};

impl Conductor {
    pub(super) fn load(&self, name: &str, content: ContentHash, dropped: &Dropped, wanted: Wanted) {
        let (host, bytes) = (Arc::clone(&self.host), dropped.bytes.clone());
        let environment = self.environment_of(name);
        let (of, tell) = (name.to_owned(), self.inbox.clone());
        let name = name.to_owned();
        let make = move || {
            if !wanted.is_wanted() {
                return Err(refused("replaced", "another file took its place".into()));
            }
            let revision = host.load(&of, &bytes);
            let revision = revision.map_err(|refusal| Refused {
                code: refusal.code.as_str().into(),
                message: refusal.message,
            })?;
            // Some policies have nothing to say without shards; they are heard where they are bound.
            let manifest = revision.manifest(&environment).ok();
            Ok(Loaded { revision, manifest })
        };
        self.loader.submit(make, panicked, move |result| {
            // Nobody listens any more: the router stops.
            let _ = tell.send(Message::Loaded(name, content, result));
        });
    }

    pub(super) fn loaded(
        &mut self,
        name: &str,
        content: ContentHash,
        result: Result<Loaded, Refused>,
    ) {
        let Some(policy) = self.policies.get_mut(name) else {
            return;
        };
        if policy
            .load
            .as_ref()
            .is_none_or(|(loading, _)| *loading != content)
        {
            return;
        }
        policy.load = None;
        if let Some(file) = policy
            .file
            .as_mut()
            .filter(|file| file.content == Some(content))
        {
            match &result {
                Ok(loaded) => file.condition = Condition::Ready(loaded.clone()),
                Err(refused) => {
                    let Refused { code, message } = refused;
                    tracing::warn!(policy = name, code, message, "a policy is refused");
                    file.refuse(code, message.clone());
                }
            }
        }
        for id in self.slots_of(name) {
            let is_waiting = |bound: &Bound| bound.machine.loading() == Some(content);
            if !self.slots.get(&id).is_some_and(is_waiting) {
                continue;
            }
            match &result {
                Ok(loaded) => self.prepare(id, content, Arc::clone(&loaded.revision)),
                Err(refused) => {
                    let reason = format!("{}: {}", refused.code, refused.message);
                    self.feed(id, slot::Event::Refused(content, reason));
                }
            }
        }
        self.note(name);
    }

    /// Starts a revision for a slot and has it pass what it must.
    pub(super) fn prepare(&self, id: u64, content: ContentHash, revision: Arc<Revision>) {
        let Some(bound) = self.slots.get(&id) else {
            return;
        };
        let (port, name) = (Arc::clone(&bound.port), bound.policy.clone());
        let settings = Arc::clone(&self.settings);
        let make = move || {
            let stats = Arc::new(Stats::default());
            let manifest = port.prepare(content, &revision, &stats);
            let manifest = manifest.map_err(|fault| refused(fault.cause.code(), fault.message))?;
            let candidate = Candidate {
                name: &name,
                revision: &revision,
                hook: port.hook(),
                environment: port.environment(),
            };
            for check in &settings.admission {
                let admitted = check.admit(&candidate);
                admitted.map_err(|error| refused(&error.code, error.message))?;
            }
            Ok(Prepared { stats, manifest })
        };
        let tell = self.inbox.clone();
        self.loader.submit(make, panicked, move |result| {
            // Nobody listens any more: the router stops.
            let _ = tell.send(Message::Prepared(id, content, result));
        });
    }

    pub(super) fn prepared(
        &mut self,
        id: u64,
        content: ContentHash,
        result: Result<Prepared, Refused>,
    ) {
        let Some(bound) = self.slots.get_mut(&id) else {
            return;
        };
        let name = bound.policy.clone();
        match result {
            Ok(prepared) => {
                bound.revisions.insert(content, prepared);
                self.feed(id, slot::Event::Ready(content));
            }
            Err(Refused { code, message }) => {
                // Whatever was laid out for it goes.
                bound.publish(false);
                self.feed(
                    id,
                    slot::Event::Refused(content, format!("{code}: {message}")),
                );
            }
        }
        self.note(&name);
    }

    /// A slot wants what the file holds.
    pub(super) fn wanted(&mut self, id: u64, content: ContentHash) {
        let Some(bound) = self.slots.get(&id) else {
            return;
        };
        let file = self
            .policies
            .get(&bound.policy)
            .and_then(|policy| policy.file.as_ref());
        let file = file.filter(|file| file.content == Some(content));
        match file.map(|file| &file.condition) {
            Some(Condition::Ready(loaded)) => {
                self.prepare(id, content, Arc::clone(&loaded.revision));
            }
            Some(Condition::Refused(refused)) => {
                let reason = format!("{}: {}", refused.code, refused.message);
                self.feed(id, slot::Event::Refused(content, reason));
            }
            // It is told when it is loaded. If the file holds something else by now, that is offered.
            Some(Condition::Loading) | None => {}
        }
    }
}

fn refused(code: &str, message: String) -> Refused {
    Refused {
        code: code.to_owned(),
        message,
    }
}

fn panicked<T>(text: String) -> Result<T, Refused> {
    Err(refused("host", format!("the host has failed: {text}")))
}
