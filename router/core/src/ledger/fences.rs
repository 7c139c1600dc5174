//! The sorted first positions of runs, and the search among them: on the way of every write.
//!
//! The bytes stand in one piece. The search compares sixteen bytes of each fence, those behind what all
//! fences have in common, and whole fences only where these are equal.

/// Sorted byte strings without repetitions, of which the first is empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Fences {
    bytes: Vec<u8>,
    /// Where each ends in `bytes`.
    ends: Vec<usize>,
    /// How many bytes all but the first have in common.
    common: usize,
    /// The sixteen bytes of each behind those.
    heads: Vec<u128>,
}

impl Fences {
    /// Adds one behind the others. [`Fences::seal`] has to follow before anything is found.
    pub(super) fn push(&mut self, fence: &[u8]) {
        debug_assert!(self.ends.is_empty() || self.get(self.len() - 1) < fence);
        self.bytes.extend_from_slice(fence);
        self.ends.push(self.bytes.len());
    }

    /// Makes everything that was pushed ready for the search.
    pub(super) fn seal(&mut self) {
        let len = self.len();
        self.common = 0;
        if len > 1 {
            let (first, last) = (self.get(1), self.get(len - 1));
            let common = first.iter().zip(last).take_while(|(a, b)| a == b);
            self.common = common.count();
        }
        self.heads = (1..len)
            .map(|index| head(&self.get(index)[self.common..]))
            .collect();
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn get(&self, index: usize) -> &[u8] {
        let from = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[from..self.ends[index]]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// The last fence that is not behind `position`. Among six thousand it costs some 60 ns.
    pub(super) fn find(&self, position: &[u8]) -> usize {
        let len = self.len();
        if len < 2 {
            return 0;
        }
        let common = &self.get(1)[..self.common];
        let Some((start, rest)) = position.split_at_checked(self.common) else {
            // Too short to have it all.
            return if position < common { 0 } else { len - 1 };
        };
        if start != common {
            return if start < common { 0 } else { len - 1 };
        }
        let sought = head(rest);
        // Heads are of all fences but the first: fence `low` is the one before that of `heads[low]`.
        let mut low = self.heads.partition_point(|head| *head < sought);
        if self.heads.get(low) != Some(&sought) {
            return low;
        }
        // Few are equal, if any: looks near by for the end of those.
        let mut step = 1;
        while self.heads.get(low + step) == Some(&sought) {
            step *= 2;
        }
        let end = self.heads.len().min(low + step);
        let equal = &self.heads[low + step / 2..end];
        let mut high = low + step / 2 + equal.partition_point(|head| *head == sought);
        while low < high {
            let middle = low.midpoint(high);
            if self.get(middle + 1) <= position {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The fence that is `position`.
    pub(super) fn exactly(&self, position: &[u8]) -> Option<usize> {
        let index = self.find(position);
        (self.get(index) == position).then_some(index)
    }
}

fn head(bytes: &[u8]) -> u128 {
    if let Some(head) = bytes.first_chunk() {
        return u128::from_be_bytes(*head);
    }
    let mut head = [0; 16];
    head[..bytes.len()].copy_from_slice(bytes);
    u128::from_be_bytes(head)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn fences<'a>(sorted: impl IntoIterator<Item = &'a Vec<u8>>) -> Fences {
        let mut fences = Fences::default();
        sorted.into_iter().for_each(|fence| fences.push(fence));
        fences.seal();
        fences
    }

    fn position() -> impl Strategy<Value = Vec<u8>> {
        // Long ones with little in them, so that heads are equal and something is in common.
        (
            prop_oneof![Just(0), Just(3), Just(9)],
            proptest::collection::vec(0u8..3, 0..12),
        )
            .prop_map(|(sevens, rest)| [vec![7; sevens], rest].concat())
    }

    proptest! {
        #[test]
        fn the_search_finds_what_a_plain_one_finds(
            mut sorted in proptest::collection::btree_set(position(), 0..40),
            sought in proptest::collection::vec(position(), 1..40),
            shared in any::<bool>(),
        ) {
            if shared {
                sorted = sorted.into_iter().map(|fence| [b"fleet".to_vec(), fence].concat()).collect();
            }
            sorted.insert(Vec::new());
            let fences = fences(&sorted);
            let sorted: Vec<_> = BTreeSet::into_iter(sorted).collect();
            let shared = sought.iter().map(|sought| [b"fleet".to_vec(), sought.clone()].concat());
            for sought in shared.chain(sought.iter().cloned()).chain(sorted.clone()) {
                let index = sorted.iter().rposition(|fence| *fence <= sought).unwrap();
                prop_assert_eq!(fences.find(&sought), index, "{:?}", sought);
                let exactly = sorted.iter().position(|fence| *fence == sought);
                prop_assert_eq!(fences.exactly(&sought), exactly);
            }
        }
    }
}
