//! A storage as an upstream: what it answers the links that forward to it.

use std::{sync::Arc, time::Instant};

use weir_core::{
    change::KeptChange,
    forward::{
        self, Cause,
        answer::{Limits, answer},
        frame::{Reply, Stored},
    },
    mirror::{State, answer::Admit},
    record::Record,
    version::Version,
};

use super::answering::{Answering, Asker};
use crate::{
    forward::time,
    storage::lost::{self, Lost},
};

/// What links may have under way together at the most, in bytes that they have not packed yet, and what
/// each of them may have at least and at the most.
const CREDIT_ALL: usize = 64 << 20;
const CREDIT_MIN: usize = 256 << 10;
const CREDIT_MAX: usize = 8 << 20;
/// The most that a parcel may become when it is unpacked. Links ship some hundred KiB at once, as they lie
/// in a journal, where long keys that are alike take little; and one record however long it is.
const PARCEL_BYTES_MAX: usize = 64 << 20;
const RECORD_BYTES_MAX: usize = 512 << 20;

impl Answering {
    /// Answers a frame of a link that came at `came`. Nothing is said to be stored before it is as durable as
    /// the storage makes anything.
    ///
    /// # Errors
    /// In words: nobody forwards, or the storage takes nothing now. The link asks again.
    pub(super) async fn answer_link(
        self: &Arc<Self>,
        frame: Vec<u8>,
        came: Instant,
        peer: &Arc<Asker>,
    ) -> Result<Vec<u8>, String> {
        let Some(link) = &peer.who.link else {
            return Err("only links may forward".to_owned());
        };
        let (answering, asker) = (Arc::clone(self), Arc::clone(peer));
        let answered = tokio::task::spawn_blocking(move || {
            let mut replica = answering.storage.replica(&asker.keys);
            let limits = Limits {
                take: !answering.own.read_only,
                ..Limits::default()
            };
            answer(&frame, &mut replica, &limits)
        });
        let answer = match answered.await.map_err(|error| error.to_string())? {
            Ok(answer) => answer,
            Err(refused) => {
                let storage = &self.own.address.storage;
                let from = &peer.who.router;
                tracing::debug!(storage, from, link, why = %refused, cause = ?refused.unreadable, "a link is refused");
                return Ok(refused.reply);
            }
        };
        if let Some(lost) = answer.lost {
            self.note(&peer.who.router, link, &lost).await?;
        }
        match answer.ship {
            Some(packed) => {
                let mut stored = self.store(packed).await?;
                stored.spent_us = u64::try_from(came.elapsed().as_micros()).unwrap_or(u64::MAX);
                Ok(Reply::Stored(stored).encode())
            }
            None => Ok(answer.reply),
        }
    }

    async fn store(&self, packed: bytes::Bytes) -> Result<Stored, String> {
        let unpack =
            move || weir_journal::pack::unpack_long(&packed, PARCEL_BYTES_MAX, RECORD_BYTES_MAX);
        let unpacked = tokio::task::spawn_blocking(unpack).await;
        let unpacked = unpacked.map_err(|error| error.to_string())?;
        let changes = unpacked.map_err(|error| format!("a parcel cannot be unpacked: {error}"))?;
        let mut admit = Admit {
            // What comes is as it was put: what resolves conflicts here resolves these.
            revision: self.storage.revision(),
            horizon: Version::ZERO,
            ..Admit::default()
        };
        for change in &changes {
            match change.clone() {
                KeptChange::Key(change) => {
                    let stamp = change.stamp.ok_or("a parcel holds what nobody stamped")?;
                    let version = change.version(stamp);
                    admit.states.push(State {
                        record: Record::own(version, change.value),
                        key: change.key,
                    });
                }
                KeptChange::Wildcard(change) => {
                    let stamp = change.stamp.ok_or("a parcel holds what nobody stamped")?;
                    admit.ops.push(change.into_op(stamp));
                }
            }
        }
        // Links of this router did not see it on Zenoh. First it waits for those behind, then it is here:
        // never the other way round. What one of them could not keep is not stored, and comes again.
        self.desk.links().carry(&changes).await?;
        let admitted = self.storage.admit(admit).await?;
        Ok(Stored {
            applied: admitted.applied,
            superfluous: admitted.superfluous,
            aside: admitted.aside,
            refused: admitted.refused,
            credit: self.credit() as u64,
            spent_us: 0,
        })
    }

    /// The more links wait for their turn, the less each may have under way.
    fn credit(&self) -> usize {
        (CREDIT_ALL / (self.desk.waiting() + 1)).clamp(CREDIT_MIN, CREDIT_MAX)
    }

    /// Remembers what a link has lost, and says so.
    async fn note(&self, router: &str, link: &str, all: &[forward::Lost]) -> Result<(), String> {
        let shown = |lost: &forward::Lost| Lost {
            router: router.to_owned(),
            link: link.to_owned(),
            source: lost::source(lost.stretch.source),
            from: time(lost.stretch.from).unwrap_or_default(),
            to: time(lost.stretch.to).unwrap_or_default(),
            records: lost.count,
            cause: cause(lost.cause).to_owned(),
        };
        let all: Vec<Lost> = all.iter().map(shown).collect();
        self.storage.remember_lost(&all).await?;
        let storage = &self.own.address.storage;
        for lost in &all {
            let Lost {
                source,
                from,
                to,
                records,
                cause,
                ..
            } = lost;
            tracing::warn!(
                storage,
                router,
                link,
                source,
                from,
                to,
                records,
                cause,
                "a link has lost samples on the way: they will not come"
            );
        }
        Ok(())
    }
}

/// A cause in a word.
pub(crate) const fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Full => "full",
        Cause::Age => "age",
        Cause::Damage => "damage",
        Cause::Other => "other",
    }
}
