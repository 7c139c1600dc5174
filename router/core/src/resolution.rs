//! What becomes of two versions of a key that know nothing of each other: the seam where a policy
//! answers (S13).

use thiserror::Error;

use crate::{value::Value, version::Version};

/// One of two versions that are to be resolved.
#[derive(Clone, Copy, Debug)]
pub struct Contender<'a> {
    /// Its version; of a merged value, the newest of those that it was merged from.
    pub version: Version,
    /// What it puts; nothing if it is a delete.
    pub value: Option<&'a Value>,
}

/// What the key holds from now on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// The later one, as without a policy.
    Default,
    /// The first.
    First,
    /// The second.
    Second,
    /// This instead.
    Merge(Value),
    /// Nothing: the key is deleted.
    Delete,
}

/// The host was interrupted: no answer was given, and the same question is to be asked again later.
/// Never a failure of the policy itself, which is an answer ([`Resolution::Default`]), because every
/// replica fails in the same way.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("the resolver was interrupted: {0}")]
pub struct Interrupted(pub String);

/// Decides conflicts: a pure function of its arguments.
pub trait Resolve: Send {
    /// Which answer two versions of `key` get. `first` is the earlier in the total order of versions;
    /// `key` is in full, with the storage's prefix.
    ///
    /// # Errors
    /// [`Interrupted`] if the question could not be put; ask it again.
    fn resolve(
        &mut self,
        key: &str,
        first: Contender<'_>,
        second: Contender<'_>,
    ) -> Result<Resolution, Interrupted>;
}
