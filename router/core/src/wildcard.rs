//! Wildcard puts and deletes, kept as operations (S3).
//!
//! What a key holds is a pure function of its own latest change and of the journal of wildcard
//! operations, equal to applying every change ever made in version order. Why the own latest change
//! is enough: whatever came before it, it overwrote. Why the journal is needed as a whole: an
//! operation may arrive after a change it precedes, or before a change it covers.

use std::sync::Arc;

use zenoh_keyexpr::{OwnedKeyExpr, keyexpr};

use crate::{value::Value, version::Version};

/// A put or delete on a key expression. A put touches only keys that exist when it happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WildcardOp {
    /// What it was made on, with the storage's prefix.
    pub expr: OwnedKeyExpr,
    /// When and by whom.
    pub version: Version,
    /// What it puts; `None` for a delete.
    pub value: Option<Value>,
}

/// The wildcard operations that are still remembered, by version.
///
/// Cloning costs a reference count for each; readers take a clone before they take a snapshot.
#[derive(Clone, Default, Debug)]
pub struct WildcardJournal {
    ops: Vec<Arc<WildcardOp>>,
}

/// What the journal makes of a key's own latest change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Nothing newer touched it.
    Own,
    /// It was overwritten by a wildcard put.
    Put(Arc<WildcardOp>),
    /// It was deleted by a wildcard delete of this version.
    Deleted(Version),
}

/// What became of an operation offered to the journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Insertion {
    /// It is remembered; these it made superfluous are forgotten.
    Inserted(Vec<Arc<WildcardOp>>),
    /// It was there already.
    Known,
    /// A remembered later one covers everything it could do.
    Subsumed,
}

impl WildcardOp {
    /// Whether a journal that holds `self` needs `other` for nothing.
    ///
    /// A later operation on every key of `other` hides it, except that a put does not hide a
    /// delete: it touches only what the delete left alive.
    fn subsumes(&self, other: &Self) -> bool {
        self.version > other.version
            && (self.value.is_none() || other.value.is_some())
            && self.expr.includes(&other.expr)
    }
}

impl WildcardJournal {
    /// Remembers an operation. Costs one key expression comparison for each remembered one.
    pub fn insert(&mut self, op: WildcardOp) -> Insertion {
        for held in &self.ops {
            if held.version == op.version && held.expr == op.expr {
                return Insertion::Known;
            }
            if held.subsumes(&op) {
                return Insertion::Subsumed;
            }
        }
        let forgotten = self
            .ops
            .iter()
            .filter(|held| op.subsumes(held))
            .cloned()
            .collect();
        self.ops.retain(|held| !op.subsumes(held));
        let at = self.ops.partition_point(|held| {
            (held.version, held.expr.as_str()) < (op.version, op.expr.as_str())
        });
        self.ops.insert(at, Arc::new(op));
        Insertion::Inserted(forgotten)
    }

    /// What the key holds whose own latest change has version `own`.
    #[must_use]
    pub fn effect(&self, own: Version, key: &keyexpr) -> Effect {
        Self::effect_of(&self.ops, own, key)
    }

    /// The same, of the operations below `horizon` alone.
    #[must_use]
    pub fn effect_below(&self, horizon: Version, own: Version, key: &keyexpr) -> Effect {
        let end = self.ops.partition_point(|op| op.version < horizon);
        Self::effect_of(&self.ops[..end], own, key)
    }

    fn effect_of(ops: &[Arc<WildcardOp>], own: Version, key: &keyexpr) -> Effect {
        if own.is_delete() {
            // Nothing brings a deleted key back but a change of its own.
            return Effect::Own;
        }
        let from = ops.partition_point(|op| op.version <= own);
        let mut effect = Effect::Own;
        for op in &ops[from..] {
            if !op.expr.intersects(key) {
                continue;
            }
            if op.value.is_none() {
                return Effect::Deleted(op.version);
            }
            effect = Effect::Put(Arc::clone(op));
        }
        effect
    }

    /// The operations that can touch keys of `expr`.
    #[must_use]
    pub fn about(&self, expr: &keyexpr) -> Self {
        let ops = self
            .ops
            .iter()
            .filter(|op| op.expr.intersects(expr))
            .cloned()
            .collect();
        Self { ops }
    }

    /// Forgets every operation below `horizon`; returns them.
    pub fn forget_below(&mut self, horizon: Version) -> Vec<Arc<WildcardOp>> {
        let keep = self.ops.partition_point(|op| op.version < horizon);
        self.ops.drain(..keep).collect()
    }

    /// The remembered operations in version order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<WildcardOp>> {
        self.ops.iter()
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}
