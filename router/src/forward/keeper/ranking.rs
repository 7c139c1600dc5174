//! What waits is decided again after another policy began to serve, or the one that did was removed: a
//! little at a time, in the pauses between batches, and at once where there are none.

use std::time::{Duration, Instant};

use weir_core::{
    backlog::{Prioritize, Verdict},
    forward::Order,
    placement::Description,
};
use weir_journal::Unranked;
use weir_settings::JournalSync;

use super::{Keeper, describe, link_state};

/// How long it may take at once, while nothing comes.
const SLICE: Duration = Duration::from_millis(20);
/// And between two batches, and how often: a tenth of the time.
const SLICE_BETWEEN: Duration = Duration::from_millis(2);
const BETWEEN: Duration = Duration::from_millis(20);
/// How often it is looked whether there is something to decide again.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long it rests when something has failed: the disk is full, most likely.
const REST: Duration = Duration::from_secs(10);

/// When something is to be decided again.
pub(super) struct Ranking {
    order: Order,
    /// Not before.
    next: Instant,
    /// When it was worked on last.
    last: Instant,
}

impl Ranking {
    pub(super) fn new(order: Order) -> Self {
        let now = Instant::now();
        Self {
            order,
            next: now,
            last: now,
        }
    }
}

impl Keeper {
    /// The journal knows who decides from now on. `false` if that may change back by itself: then nothing is
    /// decided again, and what comes counts as decided by who did before.
    pub(super) fn tell_who_decides(&mut self) -> bool {
        let who = match &mut self.policy {
            Some(policy) => policy.revision(),
            None => Some(0),
        };
        let Some(who) = who else { return false };
        if self.journal.rank_by(who) {
            // What was appended until now is closed, and can be read as a whole once it is written. The
            // journal says what goes wrong, and it is tried again.
            let _ = self.flush(self.sync != JournalSync::Never);
            self.ranking.next = Instant::now();
        }
        true
    }

    /// Decides again for a moment, between two batches.
    pub(super) fn rank_between(&mut self) {
        if self.ranking.last.elapsed() >= BETWEEN {
            self.rank(SLICE_BETWEEN);
        }
    }

    /// Decides again while nothing comes; `true` if there is more of it to do now.
    pub(super) fn rank_meanwhile(&mut self) -> bool {
        self.rank(SLICE)
    }

    fn rank(&mut self, slice: Duration) -> bool {
        let begin = Instant::now();
        if begin < self.ranking.next || !self.tell_who_decides() {
            return false;
        }
        loop {
            let asked = match self.journal.unranked(self.ranking.order) {
                Ok(Some(asked)) => asked,
                Ok(None) => {
                    self.ranking.next = Instant::now() + LOOK_EVERY;
                    return false;
                }
                Err(_) => return self.rest(),
            };
            let verdicts = self.decide_again(&asked);
            if self.journal.rank(&verdicts).is_err() {
                return self.rest();
            }
            self.ranking.last = Instant::now();
            if begin.elapsed() >= slice {
                return true;
            }
        }
    }

    /// The journal has said what is wrong.
    fn rest(&mut self) -> bool {
        self.ranking.next = Instant::now() + REST;
        false
    }

    /// The verdicts on what waits, in order; none if the policy gives none, which leaves it as it is.
    fn decide_again(&mut self, asked: &[Unranked]) -> Vec<Verdict> {
        let mut verdicts = Vec::with_capacity(asked.len());
        if asked.is_empty() {
            return verdicts;
        }
        let described = asked
            .iter()
            .filter_map(|waits| describe(&waits.entry.change, waits.priority));
        let described: Vec<Description<'_>> = described.collect();
        let depth = self.journal.depth();
        let state = link_state(&self.link, self.clock.now(), depth, self.capacity_bytes);
        let is_decided = match &mut self.policy {
            Some(policy) => policy.decide_again(state, &described, &mut verdicts),
            None => self.native.decide_again(state, &described, &mut verdicts),
        };
        if !is_decided {
            verdicts.clear();
        }
        verdicts
    }
}
