//! What an author implements.

use serde::de::DeserializeOwned;

use crate::{
    Destination, Environment, InitError, Link, Manifest, Resolution, Verdict, Version,
    batch::{Batch, Sample},
};

/// A policy: made of its settings, once per instance.
pub trait Policy: Sized + 'static {
    /// What an operator writes under the policy's `settings`. With `#[serde(deny_unknown_fields)]` a
    /// misspelt name is refused by name; `()` and unit structs take no settings at all.
    type Settings: DeserializeOwned;

    /// Makes the policy. Must answer alike for the same environment and settings.
    ///
    /// # Errors
    /// [`InitError::BadSettings`] with what would make sense; the text is what an operator reads. A
    /// `String` or `&str` becomes one with `?`.
    fn new(environment: &Environment, settings: Self::Settings) -> Result<Self, InitError>;

    /// What the policy needs; begin with [`manifest!`](crate::manifest). The hooks are filled in by
    /// [`export!`](crate::export).
    fn manifest(&self) -> Manifest;
}

/// Decides which shard of a storage keeps a sample.
pub trait Route: Policy {
    /// Where this sample goes.
    fn route(&mut self, sample: Sample<'_>) -> Destination;

    /// Where these samples go: one answer for each, in order.
    ///
    /// # Errors
    /// Fails the whole batch: its samples go where the router's own rule puts them.
    fn route_batch(&mut self, batch: &Batch) -> Result<Vec<Destination>, String> {
        Ok(batch.iter().map(|sample| self.route(sample)).collect())
    }
}

/// Decides what becomes of two versions of a key that know nothing of each other.
pub trait Resolve: Policy {
    /// What the key holds from now on. `first` is the earlier version.
    ///
    /// What replicas hold converges to what was meant if this is commutative, associative and
    /// idempotent; [`join`](crate::join) takes care of deletes.
    ///
    /// # Errors
    /// The later version wins.
    fn resolve(
        &mut self,
        key: &str,
        first: &Version,
        second: &Version,
    ) -> Result<Resolution, String>;
}

/// Decides what leaves a backlog first.
pub trait Prioritize: Policy {
    /// How this sample waits.
    fn prioritize(&mut self, link: &Link, sample: Sample<'_>) -> Verdict;

    /// How these samples wait: one answer for each, in order.
    ///
    /// # Errors
    /// Fails the whole batch: the link's settings decide it.
    fn prioritize_batch(&mut self, link: &Link, batch: &Batch) -> Result<Vec<Verdict>, String> {
        Ok(batch
            .iter()
            .map(|sample| self.prioritize(link, sample))
            .collect())
    }
}

/// Reads the settings and makes the policy.
pub(crate) fn start<P: Policy>(environment: &Environment) -> Result<P, InitError> {
    let text = match environment.settings.trim() {
        "" => "{}",
        text => text,
    };
    let settings = serde_json::from_str(text)
        // Nothing written is no settings, whatever the type calls that.
        .or_else(|error| {
            if text == "{}" {
                serde_json::from_str("null").or(Err(error))
            } else {
                Err(error)
            }
        })
        .map_err(|error| InitError::BadSettings(format!("settings: {error}")))?;
    P::new(environment, settings)
}

impl Environment {
    /// The index of the shard with this name.
    ///
    /// # Errors
    /// [`InitError::BadSettings`] if there is none, with the names that there are.
    pub fn shard(&self, name: &str) -> Result<u32, InitError> {
        let index = self.shards.iter().position(|shard| shard == name);
        index
            .and_then(|index| u32::try_from(index).ok())
            .ok_or_else(|| {
                let names = self.shards.join(", ");
                InitError::BadSettings(format!("no shard is called `{name}`; there are: {names}"))
            })
    }
}

impl From<String> for InitError {
    fn from(message: String) -> Self {
        Self::BadSettings(message)
    }
}

impl From<&str> for InitError {
    fn from(message: &str) -> Self {
        Self::BadSettings(message.to_owned())
    }
}
