//! The rows of several shards as one sequence.

use std::cmp::Ordering;

use weir_backend_api::{Direction, Row, Rows};

/// Merges sorted rows by `order`, each with the number of its shard. A row that stands in several shards
/// comes once for each, next to each other; an error comes as soon as it is met.
pub(crate) struct Merge<'a, F> {
    heads: Vec<(Option<Row>, Rows<'a>)>,
    order: F,
    direction: Direction,
}

impl<'a, F: Fn(&Row, &Row) -> Ordering> Merge<'a, F> {
    pub(crate) fn new(shards: Vec<Rows<'a>>, direction: Direction, order: F) -> Self {
        let heads = shards
            .into_iter()
            .map(|mut rows| (rows.next(), rows))
            .collect();
        Self {
            heads,
            order,
            direction,
        }
    }
}

impl<F: Fn(&Row, &Row) -> Ordering> Iterator for Merge<'_, F> {
    type Item = (usize, Row);

    fn next(&mut self) -> Option<(usize, Row)> {
        let order = |a: &Row, b: &Row| match (a, b) {
            (Err(_), Err(_)) => Ordering::Equal,
            (Err(_), Ok(_)) => Ordering::Less,
            (Ok(_), Err(_)) => Ordering::Greater,
            (Ok(_), Ok(_)) if self.direction == Direction::Backward => (self.order)(b, a),
            (Ok(_), Ok(_)) => (self.order)(a, b),
        };
        if let [(head, rows)] = self.heads.as_mut_slice() {
            return std::mem::replace(head, rows.next()).map(|row| (0, row));
        }
        let first = self
            .heads
            .iter()
            .enumerate()
            .filter_map(|(index, (head, _))| head.as_ref().map(|head| (index, head)))
            .min_by(|(_, a), (_, b)| order(a, b))?
            .0;
        let (head, rows) = &mut self.heads[first];
        std::mem::replace(head, rows.next()).map(|row| (first, row))
    }
}
