//! What leaves a backlog first: the seam where a policy answers.

use crate::placement::Description;

/// The link whose backlog it is.
#[derive(Clone, Copy, Debug)]
pub struct LinkState<'a> {
    /// Its name in the settings.
    pub name: &'a str,
    /// Now (NTP64).
    pub now: u64,
    /// How many samples wait.
    pub queued: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// How many bytes may wait.
    pub capacity_bytes: u64,
}

/// How many lanes there are; 0 leaves first.
pub const LANES: u8 = 8;

/// How a sample waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    /// Its lane, below [`LANES`].
    pub lane: u8,
    /// When it is no longer worth sending (NTP64).
    pub expires: Option<u64>,
    /// Of all that wait with its key, keep only the newest.
    pub newest_only: bool,
}

/// What becomes of a sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// As the link's own settings say.
    Default,
    /// As said.
    Place(Placement),
    /// It is not kept; the number says why.
    Drop(u32),
}

/// Decides the order of a backlog.
pub trait Prioritize: Send {
    /// Pushes one verdict for each sample, in order. The stamp in a sample is when it was made.
    fn prioritize(
        &mut self,
        link: LinkState<'_>,
        batch: &[Description<'_>],
        verdicts: &mut Vec<Verdict>,
    );

    /// Decides again about samples that wait already, as [`Prioritize::prioritize`] does about new ones.
    /// `false` if nothing could be decided: what was pushed means nothing then, and all stays as it is.
    fn decide_again(
        &mut self,
        link: LinkState<'_>,
        batch: &[Description<'_>],
        verdicts: &mut Vec<Verdict>,
    ) -> bool {
        self.prioritize(link, batch, verdicts);
        true
    }

    /// Who decides now: 0 for the link's own settings, another number for each policy. `None` while that
    /// may change back by itself: a policy is being loaded, or rests because it has failed.
    fn revision(&mut self) -> Option<u32> {
        Some(0)
    }
}

/// Samples without a lane of their own go by Zenoh's priority: 1 (real time) to 7 (background).
#[derive(Clone, Copy, Debug, Default)]
pub struct ByPriority;

impl Prioritize for ByPriority {
    fn prioritize(
        &mut self,
        _: LinkState<'_>,
        batch: &[Description<'_>],
        verdicts: &mut Vec<Verdict>,
    ) {
        verdicts.extend(batch.iter().map(|sample| {
            Verdict::Place(Placement {
                lane: sample.priority.min(LANES - 1),
                expires: None,
                newest_only: false,
            })
        }));
    }
}
