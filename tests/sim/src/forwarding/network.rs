//! What goes between edges and upstreams in a forwarded history, and what each makes of it.

use std::hash::Hash;

use weir_backend_api::ErrorKind;
use weir_core::{
    change::{Admission, KeptChange},
    forward::{
        Entry, Mark, Stretch,
        answer::{Limits, answer},
        frame::{Bad, Reply, Request, Stored},
        link::{Effect, Event, State},
    },
};

use super::{journal::View, scenario::Packet, world::World};

/// More effects of one event than questions and parcels that a link may have under way.
const EFFECTS_MAX: usize = 16;
/// More packets that arrive at one moment than any exchange needs.
const ARRIVALS_MAX: usize = 20_000;

/// Something on the way between an edge and an upstream.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Live(KeptChange),
    Ask { life: u64, ask: u64, frame: Vec<u8> },
    Reply { life: u64, ask: u64, frame: Vec<u8> },
}

impl World {
    pub(super) fn packet(&mut self, pick: u64, how: Packet) -> Result<(), String> {
        if self.messages.is_empty() {
            return Ok(());
        }
        let at = usize::try_from(pick % self.messages.len() as u64).unwrap_or(0);
        match how {
            Packet::Arrives => {
                let (edge, upstream, up, message) = self.messages.swap_remove(at);
                self.arrive(edge, upstream, up, message)
            }
            Packet::Repeats => {
                self.reached.repeated += 1;
                let (edge, upstream, up, message) = self.messages[at].clone();
                self.arrive(edge, upstream, up, message)
            }
            Packet::Lost => {
                self.reached.lost += 1;
                self.messages.swap_remove(at);
                Ok(())
            }
        }
    }

    /// A packet arrives, if the way is open.
    fn arrive(
        &mut self,
        edge: usize,
        upstream: usize,
        up: bool,
        message: Message,
    ) -> Result<(), String> {
        if self.cut.contains(&(edge, upstream, up)) {
            self.reached.lost += 1;
            return Ok(());
        }
        match message {
            Message::Live(change) => {
                let now = self.upstream_now(upstream);
                let heard = self.stores[upstream].hear(now, change);
                self.judge(upstream, heard)?;
                Ok(())
            }
            Message::Ask { life, ask, frame } => {
                if let Some(frame) = self.answer(upstream, &frame)? {
                    let reply = Message::Reply { life, ask, frame };
                    self.messages.push((edge, upstream, false, reply));
                }
                Ok(())
            }
            Message::Reply { life, ask, frame } if life == self.routers[edge].life => {
                let frame = frame.into();
                self.tell(edge, upstream, Event::Reply { ask, frame })
            }
            Message::Reply { .. } => Ok(()),
        }
    }

    /// What an upstream answers, if it does.
    fn answer(&mut self, upstream: usize, frame: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let now = self.upstream_now(upstream);
        let store = &mut self.stores[upstream];
        let Some(shard) = &mut store.shard else {
            return Ok(None);
        };
        shard.now = now;
        let mut shown = shard.replica(&store.keys, &store.keys);
        let answered = answer(frame, &mut shown, &Limits::default());
        drop(shown);
        let answered = match answered {
            Ok(answered) => answered,
            Err(refused) => return Err(format!("a frame was refused: {refused:?}")),
        };
        if let Some(lost) = answered.lost {
            self.reached.noted += lost.len() as u64;
            store.noted.extend(lost);
        }
        let Some(packed) = answered.ship else {
            return Ok(Some(answered.reply));
        };
        let changes = unpack(&packed)?;
        store.parcels += 1;
        let every = store.of.full_every;
        let is_full = every > 0 && store.parcels.is_multiple_of(every);
        let taken = store.take(now, changes);
        let crashes = self.reached.crashes;
        let Some(admissions) = self.judge(upstream, taken)? else {
            if self.reached.crashes > crashes {
                self.reached.crash_at_parcel += 1;
                return Ok(None);
            }
            return Ok(Some(Reply::Refused(Bad::Unreadable).encode()));
        };
        self.reached.stored += 1;
        if !self.parcels.insert((upstream, packed.to_vec())) {
            self.reached.parcel_again += 1;
        }
        let mut stored = Stored {
            credit: if is_full { 0 } else { 700 },
            ..Stored::default()
        };
        self.reached.credit += u64::from(is_full);
        for admission in admissions {
            *match admission {
                Admission::Applied(_) | Admission::Merged(_) => &mut stored.applied,
                Admission::Known(_) | Admission::Outdated(_) | Admission::Nothing => {
                    &mut stored.superfluous
                }
                Admission::Parked(_) | Admission::Quarantined(_) => &mut stored.aside,
                Admission::Rejected(_) => &mut stored.refused,
            } += 1;
        }
        self.reached.superfluous += stored.superfluous;
        Ok(Some(Reply::Stored(stored).encode()))
    }

    /// What became of changes that were offered; `None` if the store did not take them.
    pub(super) fn judge(
        &mut self,
        upstream: usize,
        taken: weir_backend_api::Result<Vec<Admission>>,
    ) -> Result<Option<Vec<Admission>>, String> {
        format!("{upstream} {taken:?}").hash(&mut self.trace);
        match taken {
            Ok(admissions) => {
                for admission in &admissions {
                    match admission {
                        Admission::Parked(_) => self.reached.parked += 1,
                        Admission::Quarantined(_) | Admission::Rejected(_) => {
                            return Err(admission.name().to_owned());
                        }
                        _ => {}
                    }
                }
                Ok(Some(admissions))
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                self.reached.refused += 1;
                Ok(None)
            }
            Err(error) => {
                let is_dead = self.stores[upstream].faults.is_dead();
                if !is_dead && error.kind() != ErrorKind::Poisoned {
                    return Err(format!("unexpected: {error}"));
                }
                self.reached.crashes += 1;
                self.restart(upstream)?;
                Ok(None)
            }
        }
    }

    /// Tells a link what happened, and does what it wants.
    pub(super) fn tell(
        &mut self,
        edge: usize,
        upstream: usize,
        event: Event,
    ) -> Result<(), String> {
        let now = self.edge_now(edge);
        let router = &mut self.routers[edge];
        if matches!(event, Event::Wake | Event::Gone) {
            self.reached.gone += 1;
            router.journal.doubt(upstream);
        }
        let life = router.life;
        let Some(link) = router.links.get_mut(upstream) else {
            return Ok(());
        };
        let before = link.status();
        let looks = router.journal.looks;
        let is_unreadable = router.journal.unreadable > 0;
        let journal = &mut router.journal;
        let effects = link.handle(now, event, &mut View { journal, upstream });
        let after = link.status();
        if link.deadline().is_some_and(|deadline| deadline <= now) {
            return Err(format!("it is due and did nothing: {link:?}"));
        }
        self.reached.faulted += after.failures - before.failures;
        if is_unreadable && after.failures > before.failures {
            self.reached.unreadable += 1;
        }
        if effects.len() > EFFECTS_MAX {
            return Err(format!("{} effects of one event", effects.len()));
        }
        let has_looked = router.journal.looks > looks;
        let is_draining = before.state == State::Draining && after.state == State::Draining;
        self.reached.tail += u64::from(is_draining && has_looked);
        for effect in effects {
            let (ask, frame) = match effect {
                Effect::Ask { ask, frame } => (ask, frame.to_vec()),
                Effect::Ship { ask, entries, .. } => {
                    let packed = pack(&entries).into();
                    (ask, Request::Ship { packed }.encode())
                }
                Effect::Certified { stretches, mark } => {
                    self.reached.certified += stretches.len() as u64;
                    self.reached.ripe += u64::from(is_draining);
                    self.certified(edge, upstream, &stretches, mark)?;
                    continue;
                }
                Effect::Noted(lost) => {
                    self.routers[edge].journal.noted(upstream, &lost);
                    continue;
                }
            };
            match Request::decode(&frame.clone().into()) {
                Ok(Request::List { .. }) => self.reached.listed += 1,
                Ok(Request::Heads(_)) => self.reached.heads += 1,
                Ok(Request::Operations(_)) => self.reached.operations += 1,
                Ok(_) => {}
                Err(bad) => return Err(format!("a link asks what {bad}")),
            }
            let asked = &mut self.routers[edge].asked[upstream];
            self.reached.retried += u64::from(ask <= *asked);
            *asked = ask.max(*asked);
            let message = Message::Ask { life, ask, frame };
            self.messages.push((edge, upstream, true, message));
        }
        Ok(())
    }

    /// What is certified is there, to stay.
    fn certified(
        &mut self,
        edge: usize,
        upstream: usize,
        stretches: &[Stretch],
        mark: Mark,
    ) -> Result<(), String> {
        if let Some(part) = stretches.iter().find(|of| **of != of.seconds()) {
            return Err(format!("a part of a second is certified: {part:?}"));
        }
        let now = self.edge_now(edge);
        format!("{edge} {upstream} {stretches:?} {mark:?}").hash(&mut self.trace);
        let journal = &mut self.routers[edge].journal;
        for version in journal.of(stretches, mark) {
            let sample = &self.samples[&version];
            let is_expired = sample.expires.is_some_and(|expires| expires < now);
            if !is_expired && !self.stores[upstream].holds(&sample.change)? {
                return Err(format!(
                    "edge {edge} was told that upstream {upstream} has {:?}",
                    sample.change
                ));
            }
        }
        journal.certify(now, upstream, stretches, mark);
        Ok(())
    }

    pub(super) fn arrive_all(&mut self) -> Result<(), String> {
        for _ in 0..ARRIVALS_MAX {
            if self.messages.is_empty() {
                return Ok(());
            }
            let (edge, upstream, up, message) = self.messages.remove(0);
            self.arrive(edge, upstream, up, message)?;
        }
        Err("they go on for ever".to_owned())
    }
}

fn pack(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        let bytes = entry.change.encode();
        out.extend((bytes.len() as u64).to_be_bytes());
        out.extend(bytes);
    }
    out
}

fn unpack(mut packed: &[u8]) -> Result<Vec<KeptChange>, String> {
    let mut next = || {
        let (len, rest) = packed.split_first_chunk::<8>()?;
        let len = usize::try_from(u64::from_be_bytes(*len)).ok()?;
        let (bytes, rest) = rest.split_at_checked(len)?;
        packed = rest;
        KeptChange::decode(&bytes.to_vec().into())
    };
    let mut changes = Vec::new();
    while let Some(change) = next() {
        changes.push(change);
    }
    if packed.is_empty() {
        Ok(changes)
    } else {
        Err("a parcel makes no sense".to_owned())
    }
}
