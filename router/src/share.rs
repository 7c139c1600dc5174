//! A storage declares several key expressions; who takes what matches more than one of them.
//!
//! Zenoh calls every subscriber and queryable of a session that matches, so a query on
//! `fleet/drone/**` comes once for each expression of a shard. It is answered once, with all that
//! the storage has: by the first expression, in the order of declaration, that matches.

use zenoh::key_expr::{OwnedKeyExpr, keyexpr};

/// The part of one declared key expression.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    /// The expressions before it.
    before: Vec<OwnedKeyExpr>,
    /// Those of them that a plain key can match besides this one; mostly none.
    overlapping: Vec<OwnedKeyExpr>,
}

impl Share {
    /// The part of each expression, in order.
    pub(crate) fn of(declared: &[OwnedKeyExpr]) -> Vec<Self> {
        let share = |(index, expr): (usize, &OwnedKeyExpr)| {
            let before = declared[..index].to_vec();
            let overlapping = before.iter().filter(|before| before.intersects(expr));
            Self {
                overlapping: overlapping.cloned().collect(),
                before,
            }
        };
        declared.iter().enumerate().map(share).collect()
    }

    /// Whether what came on `expr`, which this part's expression matches, is for this part. Costs
    /// nothing for a plain key unless declared expressions overlap.
    pub(crate) fn takes(&self, expr: &keyexpr) -> bool {
        if self.before.is_empty() {
            return true;
        }
        let rivals = if expr.is_wild() {
            &self.before
        } else {
            &self.overlapping
        };
        !rivals.iter().any(|rival| rival.intersects(expr))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matches_is_taken_once() {
        let expr = |text: &str| OwnedKeyExpr::try_from(text).unwrap();
        let sets = [
            vec!["a/**"],
            vec!["a/0$*/**", "a/1$*/**", "a/2$*/**"],
            vec!["a/*/c", "a/b/*", "x"],
        ];
        let asked = [
            "a/**", "a/0", "a/2/x", "a/b/c", "a/1$*/**", "**", "x", "a/z/c",
        ];
        for set in sets {
            let declared: Vec<_> = set.iter().map(|text| expr(text)).collect();
            let shares = Share::of(&declared);
            for asked in asked.map(expr) {
                let matching: Vec<_> = declared
                    .iter()
                    .zip(&shares)
                    .filter(|(declared, _)| declared.intersects(&asked))
                    .collect();
                let taken = matching.iter().filter(|(_, share)| share.takes(&asked));
                let expected = usize::from(!matching.is_empty());
                assert_eq!(taken.count(), expected, "{asked} of {set:?}");
            }
        }
    }
}
