//! One of our storages and one mirror of it: the task that owns the core's [`Mirror`], tells it what
//! happens and does what it says.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use weir_core::{
    mirror::round::{Effect, Event, Mirror, Priority, Rules, Status},
    pattern::KeySet,
};
use weir_settings::MirrorSettings;

use super::{
    board::{Figures, Inquiry, State},
    hello::{Address, Directions, Hello, Own},
    line::Line,
    packing::Packing,
};
use crate::{
    convert,
    session::Bus,
    storage::{News, Storage, Told},
};

/// How long an answer is waited for, in timeouts of the core's: it asks again meanwhile, and takes an
/// answer to either.
const PATIENCE: u32 = 3;
/// Of two that meet the one that leads begins. The other looks for itself when it has not been asked
/// anything for so long: both would send the same, the same way.
const HEAD_START: Duration = Duration::from_secs(1);
/// Pauses before a task whose machine has failed begins anew.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A storage of ours and a mirror of it.
pub(super) struct Pair {
    /// The network.
    pub bus: Bus,
    /// Our storage.
    pub storage: Arc<Storage>,
    /// What it is.
    pub own: Own,
    /// Where the mirror is.
    pub peer: Address,
    /// What it said of itself.
    pub hello: Arc<Hello>,
    /// In which directions changes go.
    pub directions: Directions,
    /// What is shown of it.
    pub figures: Arc<Figures>,
}

/// What discovery tells a pair's task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Call {
    /// The mirror is there again.
    Back,
    /// The mirror is not there.
    Gone,
}

/// Why a machine is driven no further.
enum Ended {
    /// The pair is no pair any more.
    Stopped,
    /// A bug of ours.
    Broken(String),
}

/// Keeps the two the same until the calls end. What breaks stops itself and is tried again (S15).
pub(super) async fn run(pair: Pair, mut calls: mpsc::Receiver<Call>) {
    let Ok(keys) = pair.hello.keys.set() else {
        // It would not have been taken for a mirror.
        return;
    };
    let driver = Driver {
        line: Arc::new(Line::new(
            pair.bus.clone(),
            &pair.peer,
            &pair.own.introduction(),
        )),
        rules: pair.rules(),
        keys: Arc::new(keys),
        pair,
    };
    let mut is_there = true;
    let mut pause = PAUSE_MIN;
    loop {
        let why = match driver.drive(&mut calls, &mut is_there).await {
            Ended::Stopped => return,
            Ended::Broken(why) => why,
        };
        let (storage, mirror) = (&driver.pair.storage.name, &driver.pair.peer);
        tracing::error!(storage, %mirror, why, "mirroring failed; it begins anew");
        driver.pair.figures.failed(why);
        driver
            .pair
            .figures
            .show(|shown| shown.state = State::Failing);
        let again = tokio::time::sleep(pause);
        tokio::pin!(again);
        loop {
            tokio::select! {
                () = &mut again => break,
                call = calls.recv() => match call {
                    Some(call) => is_there = call == Call::Back,
                    None => return,
                },
            }
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

impl Pair {
    fn rules(&self) -> Rules {
        let default = MirrorSettings::default();
        let settings = self.own.mirror.as_ref().unwrap_or(&default);
        Rules {
            from: self.directions.takes,
            to: self.directions.gives,
            lead: self.own.address < self.peer,
            period: settings.period,
            timeout: settings.timeout,
            ..Rules::default()
        }
    }
}

/// The head start of the other side.
#[derive(Default)]
struct HeadStart {
    /// When it ends; `None` if there is none.
    end: Option<Instant>,
    /// What the other had asked when it was looked at last.
    answers: u64,
}

/// What a round has found out so far.
#[derive(Default)]
struct Round {
    /// When its first question was asked (NTP64): what both are found to have is from before.
    began: Option<u64>,
    /// What the mirror has told of its stores last.
    told: Option<Told>,
}

struct Driver {
    pair: Pair,
    line: Arc<Line>,
    rules: Rules,
    /// The mirror's keys: what of our storage concerns it.
    keys: Arc<KeySet>,
}

impl Driver {
    async fn drive(&self, calls: &mut mpsc::Receiver<Call>, is_there: &mut bool) -> Ended {
        let storage = &self.pair.storage;
        let mut machine = Box::new(Mirror::new(self.rules, self.seed()));
        // Questions that are under way and batches that are being admitted: the machine has limits of
        // both.
        let mut under_way = JoinSet::new();
        let mut round = Round::default();
        let mut start = HeadStart::default();
        let mut event = match *is_there {
            true => self.meet(&mut start),
            false => Event::Gone,
        };
        loop {
            let now = storage.now();
            let (reader, keys) = (Arc::clone(storage), Arc::clone(&self.keys));
            let handled = tokio::task::spawn_blocking(move || {
                let mut replica = Packing(reader.replica(&keys));
                let effects = machine.handle(now, event, &mut replica);
                (machine, effects)
            });
            let effects;
            (machine, effects) = match handled.await {
                Ok(handled) => handled,
                Err(error) => return Ended::Broken(error.to_string()),
            };
            for effect in effects {
                self.note(now, &effect, &mut round);
                self.perform(effect, &mut under_way);
            }
            self.show(&machine.status(), *is_there);
            let deadline = machine.deadline();
            event = tokio::select! {
                call = calls.recv() => match call {
                    Some(Call::Back) => {
                        *is_there = true;
                        self.meet(&mut start)
                    }
                    Some(Call::Gone) => {
                        *is_there = false;
                        start.end = None;
                        Event::Gone
                    }
                    None => return Ended::Stopped,
                },
                Some(done) = under_way.join_next() => match done {
                    Ok(event) => event,
                    Err(error) => return Ended::Broken(error.to_string()),
                },
                inquiry = self.pair.figures.await_probe() => self.probed(inquiry),
                // It has asked, and whether that was by the stores that are known nobody can say.
                () = self.pair.figures.await_doubt() => Event::Wake,
                // What the mirror has forgotten is found by whoever looks for it.
                () = self.pair.figures.await_behind() => Event::Wake,
                () = until(start.end) => self.end_start(&mut start),
                () = self.sleep(deadline) => Event::Tick,
            };
        }
    }

    /// Of two one asks: the other learns so how they are.
    fn probed(&self, inquiry: Inquiry) -> Event {
        let Inquiry {
            in_step,
            stores,
            at,
        } = inquiry;
        self.turn(if in_step {
            State::InStep
        } else {
            State::Repairing
        });
        let at = in_step.then_some(at);
        match (stores.is_empty(), at) {
            (false, in_step) => self.learn(News::Asked {
                stores,
                in_step,
                counts: !self.pair.hello.series,
            }),
            // It is of a version that tells of none.
            (true, Some(at)) => self.learn(News::InStep(at, None)),
            (true, None) => {}
        }
        Event::Probed { in_step }
    }

    /// The mirror is there, or there again.
    fn meet(&self, start: &mut HeadStart) -> Event {
        self.learn(News::Seen);
        if self.rules.lead {
            return Event::Wake;
        }
        *start = HeadStart {
            end: Some(Instant::now() + HEAD_START),
            answers: self.pair.figures.answers(),
        };
        Event::Tick
    }

    /// A head start is over, unless the other is at work.
    fn end_start(&self, start: &mut HeadStart) -> Event {
        let answers = self.pair.figures.answers();
        let is_at_work = answers > start.answers;
        *start = HeadStart {
            end: is_at_work.then(|| Instant::now() + HEAD_START),
            answers,
        };
        if is_at_work { Event::Tick } else { Event::Wake }
    }

    /// Sleeps until a time of the storage's clock; for ever without one.
    async fn sleep(&self, deadline: Option<u64>) {
        match deadline {
            Some(deadline) => {
                let left = deadline.saturating_sub(self.pair.storage.now());
                // A millisecond: a clock that stands still for a moment must not make this spin.
                tokio::time::sleep(convert::span(left).max(Duration::from_millis(1))).await;
            }
            None => pending().await,
        }
    }

    /// Tells the storage what a round says of its replica.
    fn note(&self, now: u64, effect: &Effect, round: &mut Round) {
        match effect {
            Effect::Ask { .. } => {
                round.began.get_or_insert(now);
            }
            Effect::Admit { .. } => {}
            Effect::Told { stores, first } => {
                let told = Told {
                    stores: stores.clone(),
                    first: *first,
                };
                round.told = Some(told.clone());
                self.learn(News::Told(told));
            }
            Effect::Horizon(horizon) => {
                // Of keys that are none of the mirror's business it says nothing.
                if self.pair.storage.is_covered_by(&self.keys) {
                    self.learn(News::Horizon(*horizon));
                }
            }
            Effect::InStep(_) => {
                let Round { began, told } = std::mem::take(round);
                if let Some(at) = began {
                    self.learn(News::InStep(at, told));
                }
            }
            Effect::Differs { .. } => {
                *round = Round::default();
                self.learn(News::Seen);
            }
            Effect::Failed { .. } => *round = Round::default(),
        }
    }

    /// Who takes nothing of ours need not have it before it is forgotten.
    fn learn(&self, news: News) {
        if self.pair.directions.gives {
            // Who keeps a series keeps its tombstones: forgotten here alone they would differ for ever.
            let news = match news {
                News::InStep(..) if self.pair.hello.series => News::Seen,
                news => news,
            };
            self.pair.storage.learn(&self.pair.peer.to_string(), news);
        }
    }

    fn perform(&self, effect: Effect, under_way: &mut JoinSet<Event>) {
        let (storage, mirror) = (&self.pair.storage.name, &self.pair.peer);
        match effect {
            Effect::Ask {
                ask,
                frame,
                priority,
            } => {
                under_way.spawn(self.ask(ask, frame, priority));
            }
            Effect::Admit { batch, admit } => {
                let storage = Arc::clone(&self.pair.storage);
                let figures = Arc::clone(&self.pair.figures);
                under_way.spawn(async move {
                    match storage.admit(admit).await {
                        Ok(admitted) => {
                            figures.show(|shown| shown.taken += admitted.applied);
                            Event::Admitted { batch }
                        }
                        Err(why) => Event::Refused { batch, why },
                    }
                });
            }
            Effect::Told { stores, .. } => {
                tracing::trace!(storage, %mirror, ?stores, "its stores");
            }
            Effect::Horizon(horizon) => {
                tracing::debug!(storage, %mirror, %horizon, "what is older, both have forgotten");
            }
            Effect::InStep(report) => {
                tracing::debug!(storage, %mirror, ?report, "in step");
                self.turn(State::InStep);
            }
            Effect::Differs { report, live } => {
                tracing::debug!(storage, %mirror, ?report, live, "not in step");
                self.turn(if live {
                    State::Repairing
                } else {
                    State::Differing
                });
            }
            Effect::Failed { why, .. } => {
                tracing::debug!(storage, %mirror, %why, "a round failed");
                self.pair.figures.failed(why.to_string());
                self.turn(State::Failing);
            }
        }
    }

    fn ask(
        &self,
        ask: u64,
        frame: Bytes,
        priority: Priority,
    ) -> impl Future<Output = Event> + Send + 'static {
        let (line, figures) = (Arc::clone(&self.line), Arc::clone(&self.pair.figures));
        let limit = self.rules.timeout * PATIENCE;
        // Below live data, both.
        let priority = match priority {
            Priority::Control => zenoh::qos::Priority::DataLow,
            Priority::Bulk => zenoh::qos::Priority::Background,
        };
        async move {
            figures.asked(frame.len());
            match line.ask(&frame, priority, limit).await {
                Ok(answer) => {
                    figures.heard(answer.len());
                    Event::Reply { ask, frame: answer }
                }
                Err(why) => {
                    figures.failed(why);
                    Event::Failed { ask }
                }
            }
        }
    }

    /// Shows how a round has ended. Says it, unless it was so before or is being repaired: that happens
    /// all the time while others write.
    fn turn(&self, state: State) {
        let mut is_news = false;
        self.pair.figures.show(|shown| {
            shown.state = state;
            is_news = state != State::Repairing && shown.said != state;
            if is_news {
                shown.said = state;
            }
        });
        if !is_news {
            return;
        }
        let (storage, mirror) = (&self.pair.storage.name, &self.pair.peer);
        match state {
            State::Differing => {
                tracing::warn!(storage, %mirror, "a mirror stays different: it, or we, refuse changes");
            }
            State::Failing => tracing::warn!(storage, %mirror, "a mirror cannot be compared with"),
            _ => tracing::info!(storage, %mirror, "in step with a mirror"),
        }
    }

    fn show(&self, status: &Status, is_there: bool) {
        self.pair.figures.show(|shown| {
            if !is_there {
                shown.state = State::Gone;
                shown.said = State::Gone;
            } else if shown.state == State::Gone {
                shown.state = State::Meeting;
            }
            shown.in_step_since = status.in_step_since.map(time);
            shown.divergent = status.total.spans;
            shown.given = status.total.pushed;
            shown.rounds = status.rounds;
            // 2^-32 s to milliseconds; it fits whatever the clocks say.
            let ms = |offset| i64::try_from((i128::from(offset) * 1_000) >> 32).unwrap_or_default();
            shown.clock_offset_ms = status.clock_offset.map(ms);
            shown.same_revision = status.revision_agrees;
        });
    }

    /// Spreads what several tasks of a router do at the same time.
    fn seed(&self) -> u64 {
        let text = format!("{} {}", self.pair.own.address, self.pair.peer);
        xxhash_rust::xxh3::xxh3_64(text.as_bytes()) ^ self.pair.storage.now()
    }
}

/// Sleeps until then; for ever without a time.
async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => pending().await,
    }
}

fn time(ntp64: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + convert::span(ntp64)
}
