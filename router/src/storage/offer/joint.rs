//! One answer for a change that goes to several shards.
//!
//! It is given when the last of them has answered, and promises no more than every shard has done:
//! the first failure if there is one, else the least durability, and the admission that says most of
//! what became of the change, in this order: applied, merged, parked, quarantined, known, outdated,
//! rejected, nothing. Of two that say the same it is that of the newer version.

use std::{cmp::Reverse, sync::Arc};

use parking_lot::Mutex;
use weir_core::{change::Admission, version::Version};

use super::{Ack, Outcome};

/// Whom to tell, as [`Ack`] has it.
type Answer = Box<dyn FnOnce(Outcome) + Send>;

struct Joint {
    left: usize,
    outcome: Option<Outcome>,
    answer: Option<Answer>,
}

/// An acknowledgement for each of so many shards, each as durable as was asked for.
pub(super) fn share(ack: Ack, shards: usize) -> impl Iterator<Item = Ack> {
    let Ack { durability, answer } = ack;
    let joint = Arc::new(Mutex::new(Joint {
        left: shards,
        outcome: None,
        answer: Some(answer),
    }));
    (0..shards).map(move |_| {
        let joint = Arc::clone(&joint);
        Ack {
            durability,
            answer: Box::new(move |outcome| {
                let last = joint.lock().hear(outcome);
                if let Some((answer, outcome)) = last {
                    answer(outcome);
                }
            }),
        }
    })
}

impl Joint {
    /// Takes note of a shard's answer; with the last of them, whom to tell and what.
    fn hear(&mut self, outcome: Outcome) -> Option<(Answer, Outcome)> {
        let outcome = match self.outcome.take() {
            Some(before) => join(before, outcome),
            None => outcome,
        };
        self.left = self.left.saturating_sub(1);
        if self.left > 0 {
            self.outcome = Some(outcome);
            return None;
        }
        Some((self.answer.take()?, outcome))
    }
}

fn join(before: Outcome, next: Outcome) -> Outcome {
    match (before, next) {
        (Outcome::Failed(why), _) | (Outcome::Decided(..), Outcome::Failed(why)) => {
            Outcome::Failed(why)
        }
        (Outcome::Decided(a, reached), Outcome::Decided(b, reached_too)) => {
            let says_most = if rank(&b) < rank(&a) { b } else { a };
            Outcome::Decided(says_most, reached.min(reached_too))
        }
    }
}

/// The smaller says more.
fn rank(admission: &Admission) -> (u8, Reverse<Option<Version>>) {
    let kind = match admission {
        Admission::Applied(_) => 0,
        Admission::Merged(_) => 1,
        Admission::Parked(_) => 2,
        Admission::Quarantined(_) => 3,
        Admission::Known(_) => 4,
        Admission::Outdated(_) => 5,
        Admission::Rejected(_) => 6,
        Admission::Nothing => 7,
    };
    (kind, Reverse(admission.version()))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use weir_backend_api::Durability::{self, Memory, Synced, Written};
    use weir_core::{change::Rejection, version::Stamp};

    use super::*;

    /// What is heard in the end of what the shards answer, and of how much before.
    fn check(answers: &[Outcome], expected: &str) {
        let (sender, receiver) = mpsc::channel();
        let ack = Ack {
            durability: Synced,
            answer: Box::new(move |outcome| sender.send(outcome).unwrap()),
        };
        for (ack, outcome) in share(ack, answers.len()).zip(answers) {
            assert_eq!(ack.durability, Synced, "each shard is asked for the same");
            assert!(receiver.try_recv().is_err(), "not before the last");
            (ack.answer)(outcome.clone());
        }
        let heard = match receiver.try_recv().unwrap() {
            Outcome::Decided(admission, reached) => {
                let time = admission.version().map_or(0, |version| version.stamp.time);
                format!("{} {time} {reached:?}", admission.name())
            }
            Outcome::Failed(why) => why,
        };
        assert_eq!(heard, expected);
    }

    fn decided(admission: Admission, durability: Durability) -> Outcome {
        Outcome::Decided(admission, durability)
    }

    fn version(time: u64) -> Version {
        let id = [1; 16];
        Version::delete(Stamp { time, id })
    }

    #[test]
    fn it_promises_no_more_than_every_shard_has_done() {
        use Admission::{Applied, Known, Nothing, Outdated, Parked, Quarantined, Rejected};
        let v = version(1);
        let failed = || Outcome::Failed("first".into());
        check(
            &[decided(Applied(v), Written), decided(Applied(v), Synced)],
            "applied 1 Written",
        );
        check(
            &[decided(Nothing, Synced), decided(Applied(v), Memory)],
            "applied 1 Memory",
        );
        let newer = version(2);
        check(
            &[decided(Applied(newer), Synced), decided(Applied(v), Synced)],
            "applied 2 Synced",
        );
        let order = [
            Parked(v),
            Quarantined(v),
            Known(v),
            Outdated(v),
            Rejected(Rejection::Expired),
            Nothing,
        ];
        for pair in order.windows(2) {
            let [a, b] = [pair[0], pair[1]].map(|admission| decided(admission, Synced));
            let Outcome::Decided(first, _) = join(b.clone(), a.clone()) else {
                panic!("decided")
            };
            assert_eq!(first, pair[0]);
            let Outcome::Decided(first, _) = join(a, b) else {
                panic!("decided")
            };
            assert_eq!(first, pair[0]);
        }
        let second = Outcome::Failed("second".into());
        check(&[decided(Applied(v), Synced), failed(), second], "first");
        check(&[failed(), decided(Applied(v), Synced)], "first");
    }
}
