//! Resolvers that keep the laws by construction.
//!
//! A resolver converges to what its author meant if it is a join: commutative, associative and
//! idempotent. What authors forget is the delete: "merge two values, leave the rest to the default"
//! breaks associativity as soon as a delete is among three versions. [`join`] puts the delete at one
//! end of the order, above every value or below, and asks for the merge of two values alone.

use serde::Deserialize;

use crate::{Resolution, Value, Version};

/// What becomes of a put and a delete that know nothing of each other.
///
/// A put that was made in the knowledge of the delete is no conflict: it brings the key back either
/// way.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deletes {
    /// The key is deleted.
    #[default]
    Win,
    /// The put stays.
    Lose,
}

/// What two values make.
#[derive(Clone, PartialEq, Debug)]
pub enum Joined {
    /// The first holds all that the second does.
    First,
    /// The second holds all that the first does.
    Second,
    /// Neither does: this holds both.
    Merged(Value),
}

/// Resolves two versions by the merge of their values.
///
/// The result is lawful if `merge` is commutative and associative, and answers with one of the two
/// whenever that one is what the merge makes; `merge` is not asked about equal values.
pub fn join(
    first: &Version,
    second: &Version,
    deletes: Deletes,
    merge: impl FnOnce(&Value, &Value) -> Joined,
) -> Resolution {
    match (&first.value, &second.value) {
        (None, None) => Resolution::KeepSecond,
        (None, Some(_)) if deletes == Deletes::Win => Resolution::KeepFirst,
        (Some(_), None) if deletes == Deletes::Win => Resolution::KeepSecond,
        (None, Some(_)) => Resolution::KeepSecond,
        (Some(_), None) => Resolution::KeepFirst,
        (Some(first), Some(second)) if first == second => Resolution::KeepSecond,
        (Some(first), Some(second)) => match merge(first, second) {
            Joined::First => Resolution::KeepFirst,
            Joined::Second => Resolution::KeepSecond,
            Joined::Merged(value) => Resolution::Merge(value),
        },
    }
}

impl Value {
    /// The bytes as text; nothing if they are none.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.payload).ok()
    }

    /// This payload with what two values say about it: the greater encoding with its schema, the
    /// greater attachment. "Greater" is arbitrary and the same everywhere, which is what counts.
    #[must_use]
    pub fn merged(payload: Vec<u8>, first: &Self, second: &Self) -> Self {
        let encoded = |value: &Self| (value.encoding, value.schema.clone());
        let (encoding, schema) = encoded(first).max(encoded(second));
        let attachment = first.attachment.clone().max(second.attachment.clone());
        Self {
            encoding,
            schema,
            payload,
            attachment,
        }
    }

    /// The greater of two values, in an arbitrary order of all that is in them.
    #[must_use]
    pub fn greater(first: &Self, second: &Self) -> Joined {
        if first > second {
            Joined::First
        } else {
            Joined::Second
        }
    }
}

impl Joined {
    /// A merged value, or the one of the two that it equals.
    #[must_use]
    pub fn of(value: Value, first: &Value, second: &Value) -> Self {
        if value == *second {
            Self::Second
        } else if value == *first {
            Self::First
        } else {
            Self::Merged(value)
        }
    }
}
