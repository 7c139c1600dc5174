//! A link's task: takes what the tap hands over in batches, stamps what nobody stamped, asks where it
//! waits, appends it to the journal, and answers who waits for that. In between it decides again about
//! what waits, if another decides than did.

mod ranking;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;
use weir_backend_api::Durability;
use weir_core::{
    backlog::{LinkState, Placement, Prioritize, Verdict},
    change::{Change, KeptChange},
    forward::Entry,
    placement::Description,
};
use weir_journal::{Appended, Keep, Waiting as Offered};
use weir_settings::{ForwardSettings, JournalSync};

use self::ranking::Ranking;
use super::{
    journal::SharedJournal,
    lanes::ByRules,
    stamping::Stamping,
    tap::{Handed, Sender, Tap, Tapped, Waiting},
};
use crate::{
    clock::{SharedClock, wall},
    storage::{offer, queue::Batch},
};

/// How long the task waits for more after a batch while samples keep coming.
const LINGER: Duration = Duration::from_millis(1);
/// How often what is certified, or too old, is looked for.
const TRIM_EVERY: Duration = Duration::from_secs(1);
/// A link's task.
pub(super) struct Keeper {
    link: String,
    tap: Arc<Tap>,
    journal: Arc<SharedJournal>,
    clock: Arc<SharedClock>,
    native: ByRules,
    policy: Option<Box<dyn Prioritize>>,
    capacity_bytes: u64,
    sync: JournalSync,
    /// Since when something is appended and not synced.
    unsynced: Option<Instant>,
    /// The last flush has failed: not tried again at once.
    must_flush: bool,
    trimmed: Instant,
    stamping: Stamping,
    ranking: Ranking,
    /// Room for the next batch.
    batch: Batch<Handed>,
    verdicts: Vec<Verdict>,
}

/// A batch on its way into the journal.
#[derive(Default)]
struct Taken {
    tapped: Vec<Tapped>,
    /// Who waits, and for which of them.
    senders: Vec<(usize, Sender)>,
    /// Who waits for the whole.
    carried: Vec<oneshot::Sender<Result<(), String>>>,
}

impl Taken {
    /// Tells who has brought something what became of all there was.
    fn tell_carriers(&mut self, kept: &Result<(), String>) {
        for done in self.carried.drain(..) {
            // Who waited may have stopped waiting.
            let _ = done.send(kept.clone());
        }
    }
}

impl Keeper {
    pub(super) fn new(
        settings: &ForwardSettings,
        tap: Arc<Tap>,
        journal: Arc<SharedJournal>,
        clock: Arc<SharedClock>,
        native: ByRules,
        policy: Option<Box<dyn Prioritize>>,
    ) -> Self {
        let stamping = Stamping::new(Arc::clone(&clock));
        Self {
            link: settings.name.clone(),
            tap,
            journal,
            clock,
            native,
            policy,
            capacity_bytes: settings.budget.bytes,
            sync: settings.sync,
            unsynced: None,
            must_flush: false,
            trimmed: Instant::now(),
            stamping,
            ranking: Ranking::new(settings.order),
            batch: Batch::default(),
            verdicts: Vec::new(),
        }
    }

    /// Works until there is nothing to do; answers how long it may sleep.
    fn turn(&mut self) -> Duration {
        let mut linger = Duration::ZERO;
        self.tap.queue.attend();
        // However much comes: there is more to do than to take it.
        while self.take(linger) {
            self.do_what_is_due();
            self.rank_between();
            linger = LINGER;
        }
        self.do_what_is_due();
        if self.rank_meanwhile() {
            return Duration::ZERO;
        }
        let trim = TRIM_EVERY.saturating_sub(self.trimmed.elapsed());
        let sync = self.unsynced.map(|since| match self.sync {
            JournalSync::Within(span) => span.saturating_sub(since.elapsed()),
            JournalSync::Always | JournalSync::Never => TRIM_EVERY,
        });
        sync.unwrap_or(trim).min(trim)
    }

    /// Keeps what is queued, durably, and closes the journal.
    fn finish(&mut self) {
        while self.take(Duration::ZERO) {}
        self.journal.close();
    }

    /// Takes one batch from the queue and keeps it; `false` if there was none.
    fn take(&mut self, linger: Duration) -> bool {
        let mut batch = std::mem::take(&mut self.batch);
        if !self.tap.queue.take(&mut batch, linger) {
            self.batch = batch;
            return false;
        }
        let mut taken = Taken::default();
        taken.tapped.reserve(batch.items.len());
        let mut unpacker = batch.arena.unpack();
        for handed in batch.items.drain(..) {
            let tapped = match handed {
                Handed::Packed(packed, came) => self.tap.unpacked(unpacker.next(&packed), came),
                Handed::Sample(sample, came) => self.tap.read(&sample, came),
                Handed::Asked(None, _) => None,
                Handed::Carried(changes, done) => {
                    // On a full disk it would lie in memory, be refused there, and come again and again: it
                    // would count as lost each time.
                    if let Err(why) = self.flush_again() {
                        let _ = done.send(Err(why));
                        continue;
                    }
                    let came = wall();
                    let tapped = changes.into_iter().map(|change| Tapped {
                        change,
                        came,
                        priority: offer::PRIORITY_DATA,
                    });
                    taken.tapped.extend(tapped);
                    taken.carried.push(done);
                    None
                }
                Handed::Asked(Some(waiting), came) => {
                    let Waiting { change, sender } = *waiting;
                    taken.senders.push((taken.tapped.len(), sender));
                    Some(Tapped {
                        change,
                        came,
                        priority: offer::PRIORITY_DATA,
                    })
                }
            };
            // What is none of the link's keys came because the declared key expressions are wider.
            taken.tapped.extend(tapped);
        }
        drop(unpacker);
        // The queue gets the room of this batch for the next but one.
        self.batch = batch;
        self.keep(taken);
        true
    }

    fn keep(&mut self, mut taken: Taken) {
        if let Err(error) = self.stamping.stamp(&mut taken.tapped) {
            let why = format!("nothing can be stamped: {error}");
            tracing::error!(link = self.link, why, "a batch is not kept");
            self.journal.count_rejected(taken.tapped.len());
            taken.tell_carriers(&Err(why.clone()));
            return self.refuse(taken.senders, &why);
        }
        let tapped = std::mem::take(&mut taken.tapped);
        let mut offered = self.place(tapped).into_iter();
        let mut kept = Ok(());
        let (mut at, mut outcomes) = (0, Vec::with_capacity(taken.senders.len()));
        // One by one, where somebody asks what became of it.
        for (index, _) in &taken.senders {
            let before: Vec<Offered> = offered.by_ref().take(index - at).collect();
            kept = kept.and(self.append_unasked(before));
            let asked: Vec<Offered> = offered.by_ref().take(1).collect();
            let stamp = asked
                .first()
                .and_then(|one| offer::stamp_of(&one.entry.change));
            outcomes.push((self.append(asked), stamp));
            at = index + 1;
        }
        kept = kept.and(self.append_unasked(offered.collect()));
        self.unsynced.get_or_insert_with(Instant::now);
        let synced = taken
            .senders
            .iter()
            .any(|(_, sender)| sender.durability == Durability::Synced);
        // Who has brought something forgets it once it is told that it is here.
        let carried = !taken.carried.is_empty() && self.sync != JournalSync::Never;
        let synced = synced || carried || self.sync == JournalSync::Always;
        if taken.senders.is_empty() && taken.carried.is_empty() && !synced {
            return;
        }
        let durability = match self.flush(synced) {
            Ok(durability) => durability,
            Err(why) => {
                taken.tell_carriers(&Err(why.clone()));
                return self.refuse(taken.senders, &why);
            }
        };
        taken.tell_carriers(&kept);
        for ((_, sender), (outcome, stamp)) in taken.senders.into_iter().zip(outcomes) {
            match outcome.map(|appended| refusal(&appended)) {
                Ok(None) => {
                    let acks = &self.tap.acks;
                    acks.accept(sender.query, &self.link, "queued", stamp, durability);
                }
                Ok(Some(why)) => self.tap.refuse(sender.query, why),
                Err(why) => self.tap.refuse(sender.query, &why),
            }
        }
    }

    /// What cannot be kept is counted, and the journal says so. What it rejects by its own rules is no
    /// error: that is an interval that is lost, and is told.
    fn append_unasked(&self, offered: Vec<Offered>) -> Result<(), String> {
        self.append(offered).map(drop)
    }

    fn append(&self, offered: Vec<Offered>) -> Result<Appended, String> {
        if offered.is_empty() {
            return Ok(Appended::default());
        }
        self.journal.append(self.clock.now(), offered)
    }

    /// Where each waits: as the policy says, else as the settings do.
    fn place(&mut self, all: Vec<Tapped>) -> Vec<Offered> {
        let verdicts = self.ask(&all);
        let mut next = verdicts.iter();
        let offered = all
            .into_iter()
            .map(|tapped| {
                let verdict = match &tapped.change {
                    KeptChange::Key(_) => next.next(),
                    // A policy is asked about samples; an operation is for many.
                    KeptChange::Wildcard(_) => None,
                };
                let native = || self.place_natively(&tapped);
                let (place, dropped) = match verdict {
                    Some(Verdict::Drop(reason)) => (native(), Some(*reason)),
                    Some(Verdict::Place(place)) => (*place, None),
                    Some(Verdict::Default) | None => (native(), None),
                };
                let keep = match dropped {
                    Some(reason) => Keep::Drop(reason),
                    None if place.newest_only => Keep::NewestOnly,
                    None => Keep::Yes,
                };
                Offered {
                    entry: Entry {
                        change: tapped.change,
                        lane: place.lane,
                        expires: place.expires,
                    },
                    priority: tapped.priority,
                    keep,
                }
            })
            .collect();
        self.verdicts = verdicts;
        offered
    }

    fn place_natively(&self, tapped: &Tapped) -> Placement {
        let expr = match &tapped.change {
            KeptChange::Key(change) => &*change.key,
            KeptChange::Wildcard(change) => change.expr.as_str(),
        };
        let stamp = offer::stamp_of(&tapped.change);
        self.native.place(expr, stamp, tapped.priority)
    }

    /// The policy's verdicts on the changes of keys, in order; none without a policy.
    fn ask(&mut self, all: &[Tapped]) -> Vec<Verdict> {
        self.tell_who_decides();
        let mut verdicts = std::mem::take(&mut self.verdicts);
        verdicts.clear();
        let depth = self.journal.depth();
        let state = link_state(&self.link, self.clock.now(), depth, self.capacity_bytes);
        if let Some(policy) = &mut self.policy {
            let described: Vec<Description<'_>> = all
                .iter()
                .filter_map(|tapped| describe(&tapped.change, tapped.priority))
                .collect();
            policy.prioritize(state, &described, &mut verdicts);
        }
        verdicts
    }

    fn do_what_is_due(&mut self) {
        self.sync_when_due();
        if self.trimmed.elapsed() < TRIM_EVERY {
            return;
        }
        self.trimmed = Instant::now();
        self.journal.maintain(self.clock.now());
        if self.must_flush {
            // The journal says what went wrong, and it is tried again.
            let _ = self.flush(self.sync != JournalSync::Never);
        }
    }

    fn sync_when_due(&mut self) {
        let Some(since) = self.unsynced else { return };
        let is_due = match self.sync {
            JournalSync::Within(span) => since.elapsed() >= span,
            // Everything was, with its batch.
            JournalSync::Always => false,
            JournalSync::Never => since.elapsed() >= TRIM_EVERY,
        };
        if is_due {
            // The journal says what went wrong, and it is tried again.
            let _ = self.flush(self.sync != JournalSync::Never);
        }
    }

    /// Makes what was appended durable: given to the operating system, or synced, too.
    fn flush(&mut self, synced: bool) -> Result<Durability, String> {
        let flushed = self.journal.flush(synced);
        self.must_flush = flushed.is_err();
        if synced || self.sync == JournalSync::Never || flushed.is_err() {
            self.unsynced = None;
        }
        flushed.map(|()| match synced {
            true => Durability::Synced,
            false => Durability::Written,
        })
    }

    /// Makes durable what the last flush could not.
    fn flush_again(&mut self) -> Result<(), String> {
        match self.must_flush {
            true => self.flush(self.sync != JournalSync::Never).map(drop),
            false => Ok(()),
        }
    }

    fn refuse(&self, senders: Vec<(usize, Sender)>, why: &str) {
        for (_, sender) in senders {
            self.tap.refuse(sender.query, why);
        }
    }
}

/// The task: sleeps until there is something to do, then works on a thread that may block.
pub(super) async fn drive(mut keeper: Keeper, tap: Arc<Tap>, journal: Arc<SharedJournal>) {
    let mut sleep = Duration::ZERO;
    let link = keeper.link.clone();
    loop {
        // Either is a reason to look; which of them it was does not matter.
        let _ = tokio::time::timeout(sleep, tap.queue.woken()).await;
        let closed = tap.queue.is_closed();
        let turn = tokio::task::spawn_blocking(move || {
            if closed {
                keeper.finish();
                return None;
            }
            let sleep = keeper.turn();
            Some((keeper, sleep))
        });
        match turn.await {
            Ok(Some(next)) => (keeper, sleep) = next,
            Ok(None) => return,
            Err(error) => {
                // A bug of ours: this link stops, the router does not (S15).
                tracing::error!(link, %error, "the link's task failed; it is stopped");
                tap.queue.close();
                journal.fail(format!("the link's task failed: {error}"));
                return;
            }
        }
    }
}

/// Why what was appended will not wait; `None` if it does, or a newer one of its key.
fn refusal(appended: &Appended) -> Option<&'static str> {
    if appended.rejected > 0 {
        return Some("the journal is full");
    }
    if appended.dropped > 0 {
        return Some("rejected: the policy drops it");
    }
    (appended.refused > 0).then_some("it makes no sense")
}

/// What a policy is told of a link; `depth` is how many wait, and their bytes.
fn link_state(name: &str, now: u64, depth: (u64, u64), capacity_bytes: u64) -> LinkState<'_> {
    LinkState {
        name,
        now,
        queued: depth.0,
        queued_bytes: depth.1,
        capacity_bytes,
    }
}

/// A sample as a policy is told of it; nothing of an operation, which is for many keys.
fn describe(change: &KeptChange, priority: u8) -> Option<Description<'_>> {
    let KeptChange::Key(Change { key, stamp, value }) = change else {
        return None;
    };
    Some(Description {
        key,
        key_hash: u64::try_from(key.hash128() >> 64).unwrap_or_default(),
        stamp: *stamp,
        value: value.as_ref(),
        priority,
    })
}
