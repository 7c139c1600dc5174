//! A link and one upstream of it: the task that owns the core's [`Link`], tells it what happens and does
//! what it says.

use std::{future::pending, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{sync::watch, task::JoinSet};
use weir_core::forward::{
    frame::Request,
    link::{Effect, Event, Link, Rules},
};
use zenoh::qos::Priority;

use super::{journal::SharedJournal, show::Figures};
use crate::{
    clock::SharedClock,
    convert,
    mirror::{hello::Address, line::Line},
};

/// How long an answer is waited for, in timeouts of the core's: it asks again meanwhile, and takes an
/// answer to either. As long as it asks at all, so that an upstream that is slow gets somewhere.
const PATIENCE: u32 = 32;
/// Pauses before a task whose machine has failed begins anew.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A link and one upstream of it.
pub(super) struct Upstream {
    /// The link's name.
    pub link: String,
    /// Where the upstream is.
    pub address: Address,
    /// The way there.
    pub line: Arc<Line>,
    /// How the link behaves.
    pub rules: Rules,
    /// How long an answer may take the first time.
    pub timeout: Duration,
    /// What is kept for it.
    pub journal: Arc<SharedJournal>,
    /// What is shown of it.
    pub figures: Arc<Figures>,
    /// Now.
    pub clock: Arc<SharedClock>,
}

/// What a link tells an upstream's task. Only the last that it was told counts, so however many come while the
/// task is busy, none is kept waiting and none is lost that matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Call {
    /// The upstream is there, or there again.
    Back,
    /// The upstream is not there.
    Gone,
}

/// What a task has done for the machine.
enum Done {
    /// A parcel is packed, and is to be sent.
    Packed { ask: u64, packed: Bytes },
    /// The machine is to be told.
    Told(Event),
}

/// Why a machine is driven no further.
enum Ended {
    /// The upstream is none any more.
    Stopped,
    /// A bug of ours.
    Broken(String),
}

/// The last call, once there is one that was not taken; `None` when there will be no more.
async fn next(calls: &mut watch::Receiver<Call>) -> Option<Call> {
    calls.changed().await.ok()?;
    Some(*calls.borrow_and_update())
}

impl Upstream {
    /// Brings the upstream what it lacks until the calls end. What breaks stops itself and is tried
    /// again (S15).
    pub(super) async fn run(self: Arc<Self>, mut calls: watch::Receiver<Call>) {
        let mut is_there = true;
        let mut pause = PAUSE_MIN;
        loop {
            let why = match self.drive(&mut calls, &mut is_there).await {
                Ended::Stopped => return,
                Ended::Broken(why) => why,
            };
            let (link, upstream) = (&self.link, &self.address);
            tracing::error!(link, %upstream, why, "forwarding failed; it begins anew");
            self.figures.broke(why);
            let again = tokio::time::sleep(pause);
            tokio::pin!(again);
            loop {
                tokio::select! {
                    () = &mut again => break,
                    call = next(&mut calls) => match call {
                        Some(call) => is_there = call == Call::Back,
                        None => return,
                    },
                }
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn drive(
        self: &Arc<Self>,
        calls: &mut watch::Receiver<Call>,
        is_there: &mut bool,
    ) -> Ended {
        let mut machine = Box::new(Link::new(self.rules, self.seed()));
        // Questions and parcels that are under way: the machine has limits of both.
        let mut under_way = JoinSet::new();
        let mut event = match *is_there {
            true => Event::Wake,
            false => Event::Gone,
        };
        loop {
            let this = Arc::clone(self);
            let handled = tokio::task::spawn_blocking(move || {
                let effects = this.handle(&mut machine, event);
                (machine, effects)
            });
            let effects;
            (machine, effects) = match handled.await {
                Ok(handled) => handled,
                Err(error) => return Ended::Broken(error.to_string()),
            };
            for effect in effects {
                self.perform(effect, &mut under_way);
            }
            self.show(&machine);
            let deadline = machine.deadline();
            event = tokio::select! {
                call = next(calls) => match call {
                    Some(Call::Back) => {
                        *is_there = true;
                        Event::Wake
                    }
                    Some(Call::Gone) => {
                        *is_there = false;
                        Event::Gone
                    }
                    None => return Ended::Stopped,
                },
                Some(done) = under_way.join_next() => match done {
                    Ok(Done::Packed { ask, packed }) => {
                        self.send(ask, packed, &mut under_way);
                        Event::Sent { ask }
                    }
                    Ok(Done::Told(event)) => event,
                    Err(error) => return Ended::Broken(error.to_string()),
                },
                () = self.sleep(deadline) => Event::Tick,
            };
        }
    }

    /// Has the machine decide, and the journal take note. Blocks.
    fn handle(&self, machine: &mut Link, event: Event) -> Vec<Effect> {
        if event == Event::Wake {
            // What it certified it may have lost since.
            self.journal.reset(&self.address);
        }
        let now = self.clock.now();
        let mut effects = self
            .journal
            .read(&self.address, |outbox| machine.handle(now, event, outbox));
        effects.retain(|effect| match effect {
            Effect::Certified { stretches, mark } => {
                self.journal.certified(&self.address, stretches, *mark);
                false
            }
            Effect::Noted(lost) => {
                self.journal.noted(&self.address, lost);
                false
            }
            Effect::Ask { .. } | Effect::Ship { .. } => true,
        });
        effects
    }

    fn perform(self: &Arc<Self>, effect: Effect, under_way: &mut JoinSet<Done>) {
        match effect {
            Effect::Ask { ask, frame } => {
                let this = Arc::clone(self);
                under_way.spawn(async move { this.ask(ask, &frame, Priority::DataLow).await });
            }
            Effect::Ship { ask, lane, entries } => {
                let (link, upstream) = (&self.link, &self.address);
                let records = entries.len();
                tracing::trace!(link, %upstream, lane, records, "a parcel is shipped");
                under_way.spawn_blocking(move || Done::Packed {
                    ask,
                    packed: weir_journal::pack::pack(&entries),
                });
            }
            // The journal was told.
            Effect::Certified { .. } | Effect::Noted(_) => {}
        }
    }

    fn send(self: &Arc<Self>, ask: u64, packed: Bytes, under_way: &mut JoinSet<Done>) {
        self.figures.packed(packed.len());
        let frame = Request::Ship { packed }.encode();
        let this = Arc::clone(self);
        under_way.spawn(async move { this.ask(ask, &frame, Priority::Background).await });
    }

    async fn ask(&self, ask: u64, frame: &[u8], priority: Priority) -> Done {
        let patience = self.timeout * PATIENCE;
        let answered = self.line.ask(frame, priority, patience).await;
        Done::Told(match answered {
            Ok(frame) => Event::Reply { ask, frame },
            Err(why) => Event::Failed { ask, why },
        })
    }

    /// Sleeps until a time of the clock; for ever without one.
    async fn sleep(&self, deadline: Option<u64>) {
        match deadline {
            Some(deadline) => {
                let left = deadline.saturating_sub(self.clock.now());
                // A millisecond: a clock that stands still for a moment must not make this spin.
                tokio::time::sleep(convert::span(left).max(Duration::from_millis(1))).await;
            }
            None => pending().await,
        }
    }

    /// Shows how far it is; says so when that has changed.
    fn show(&self, machine: &Link) {
        let status = machine.status();
        let (link, upstream) = (&self.link, &self.address);
        if let Some(before) = self.figures.show(status.clone()) {
            let why = status.last_error.map(|why| why.to_string());
            tracing::info!(link, %upstream, ?before, state = ?status.state, why, "forwarding");
        }
    }

    /// Spreads what several tasks of a fleet do at the same time.
    fn seed(&self) -> u64 {
        let text = format!("{} {}", self.link, self.address);
        xxhash_rust::xxh3::xxh3_64(text.as_bytes()) ^ self.clock.now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_call_is_heard_however_many_came() {
        let (calls, mut called) = watch::channel(Call::Back);
        for _ in 0..40 {
            calls.send(Call::Gone).unwrap();
        }
        calls.send(Call::Back).unwrap();
        assert_eq!(next(&mut called).await, Some(Call::Back));
        calls.send(Call::Back).unwrap();
        assert_eq!(
            next(&mut called).await,
            Some(Call::Back),
            "it is back again"
        );
        drop(calls);
        assert_eq!(next(&mut called).await, None);
    }
}
