//! What two replicas say to each other, and its bytes.
//!
//! ```text
//! 0      version (1): of another one nothing is understood
//! 1      kind of request or reply; replies have the highest bit
//! 2..    fields: tag u8, length (varint), value. A tag that is not known is skipped, so a later
//!        version may add fields to these kinds.
//! ```
//!
//! Sums are cut to 64 bits, except in a probe, where one comparison decides about everything. Bounds
//! and keys say only what they do not share with the one before. All that is read is checked, and what
//! a frame decodes to is within a constant times its length.

mod body;

use bytes::Bytes;

use crate::{
    identity::Identity,
    ledger::{Axis, Span, Summary},
    mirror::State,
    version::Version,
    wildcard::WildcardOp,
};

pub use crate::wire::Bad;
pub use body::op_id;

/// What this build speaks.
const VERSION: u8 = 1;

/// How much lies in a span, as lists of spans say it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Brief {
    /// Items.
    pub count: u64,
    /// The lower half of the sum.
    pub sum: u64,
}

/// A span cut into parts: one more than there are bounds between them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cut {
    /// Where the parts meet, rising.
    pub bounds: Vec<Vec<u8>>,
    /// What lies in each part.
    pub briefs: Vec<Brief>,
}

/// A span and how it is cut.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Strip {
    /// The span.
    pub span: Span,
    /// Its parts.
    pub cut: Cut,
}

/// Items that are wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Want {
    /// Where they lie.
    pub span: Span,
    /// Their ids ([`crate::ledger::Item::id`]), sorted; `None` for all that lies there.
    pub ids: Option<Vec<u64>>,
}

/// "Are we equal?"
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Probe {
    /// The sum of the latest records.
    pub keys: Summary,
    /// The first minute since the epoch that is compared of a series, and the sum from there; `None`
    /// without a series.
    pub times: Option<(u64, Summary)>,
    /// Stands for the horizon, the revision and the wildcard journal.
    pub rest: u64,
    /// See [`crate::mirror::Marks::revision`].
    pub revision: u64,
    /// See [`crate::mirror::Marks::waits`].
    pub waits: bool,
    /// See [`crate::mirror::Replica::stores`].
    pub stores: Vec<Identity>,
}

/// The answer to a [`Probe`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Probed {
    /// The clock of who answers (NTP64).
    pub now: u64,
    /// It sends no records: its settings say so.
    pub is_silent: bool,
    /// It takes no records: its settings say so.
    pub is_deaf: bool,
    /// See [`crate::mirror::Marks::waits`].
    pub waits: bool,
    /// Whether what it is sent may be packed.
    pub unpacks: bool,
    /// Its sum and cut, if the latest records differ.
    pub keys: Option<(Summary, Cut)>,
    /// Its sum and cut, if the series differ.
    pub times: Option<(Summary, Cut)>,
    /// It keeps nothing older (NTP64) and so cannot compare the series from as early as was asked.
    pub floor: Option<u64>,
    /// Said if the rest or the latest records differ.
    pub rest: Option<Rest>,
    /// See [`crate::mirror::Replica::stores`].
    pub stores: Vec<Identity>,
}

/// What decides about more than one key, and may differ from peer to peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rest {
    /// See [`crate::mirror::Marks::horizon`].
    pub horizon: Version,
    /// See [`crate::mirror::Marks::floor`].
    pub floor: u64,
    /// See [`crate::mirror::Marks::revision`].
    pub revision: u64,
    /// Stands for the wildcard journal from the horizon on.
    pub wildcards: u64,
}

/// What is sent of a replica, either way.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Parcel {
    /// The revision of the sender's resolver.
    pub revision: u64,
    /// The sender's horizon.
    pub horizon: Version,
    /// Wildcard operations, to be admitted before the records.
    pub ops: Vec<WildcardOp>,
    /// Records.
    pub states: Vec<State>,
    /// More records, packed ([`crate::mirror::Replica::pack`]). Only for who says that it unpacks them.
    pub packed: Option<Bytes>,
}

/// What can be asked of a replica. Each says all there is to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// "Are we equal?"
    Probe(Probe),
    /// "These are my wildcard operations at or above this version."
    Wildcards {
        /// What lies below does not count.
        horizon: Version,
        /// [`op_id`] of each, sorted.
        ids: Vec<u64>,
        /// About how many bytes of operations to send.
        credit: u64,
    },
    /// "This is what I have in these spans."
    Compare(Vec<Strip>),
    /// "Which items have you in this span?", of those whose id modulo `of` is `part`.
    List {
        /// The span.
        span: Span,
        /// How many parts there are.
        of: u64,
        /// Which part.
        part: u64,
    },
    /// "Send me these."
    Fetch {
        /// What is wanted, to be read in order.
        wants: Vec<Want>,
        /// Records older than this (NTP64) are of no use.
        floor: u64,
        /// The asker's horizon: what operations have made of a record from below it has to be said.
        horizon: Version,
        /// About how many bytes to send, before they are packed.
        credit: u64,
        /// Whether they may be packed.
        unpacks: bool,
    },
    /// "Store this."
    Push(Parcel),
}

/// What is found out about one part of a [`Request::Compare`] that is not equal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The answer was full: ask again.
    Later,
    /// The answerer has nothing there.
    Empty,
    /// Who asks has nothing there, the answerer so many items.
    Whole(u64),
    /// These are the items.
    Ids(Vec<u64>),
    /// Too many to list, and not to be cut any further: [`Request::List`].
    Dense(u64),
    /// These are the parts.
    Split(Axis, Cut),
}

/// The answers, in the order of [`Request`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// To a probe.
    Probed(Box<Probed>),
    /// To ids of wildcard operations.
    Wildcards {
        /// Those that the asker lacks, as many as the credit allows; the first of them at least.
        parcel: Parcel,
        /// Whether there are more.
        more: bool,
        /// The ids of those that the answerer lacks.
        missing: Vec<u64>,
    },
    /// The index of each part that is not equal, counted over all strips, rising.
    Compared(Vec<(u64, Verdict)>),
    /// The ids of a list.
    Listed(Vec<u64>),
    /// Some of what is wanted.
    Page {
        /// The records.
        parcel: Parcel,
        /// Where to go on: the index of the want, and the position in it. `None` if that was all.
        next: Option<(u64, Vec<u8>)>,
    },
    /// What was pushed is stored.
    Stored,
    /// No.
    Refused(Bad),
}

impl Request {
    /// The frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, 0];
        out[1] = body::write_request(self, &mut out);
        out
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`Bad::Version`], [`Bad::Kind`] or [`Bad::Malformed`].
    pub fn decode(frame: &[u8]) -> Result<Self, Bad> {
        let (kind, fields) = open(&Bytes::copy_from_slice(frame))?;
        body::read_request(kind, fields)
    }
}

impl Reply {
    /// The frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, 0];
        out[1] = body::write_reply(self, &mut out);
        out
    }

    /// Reads a frame; the records in it are slices of it.
    ///
    /// # Errors
    /// As [`Request::decode`].
    pub fn decode(frame: &Bytes) -> Result<Self, Bad> {
        let (kind, fields) = open(frame)?;
        body::read_reply(kind, fields)
    }
}

fn open(frame: &Bytes) -> Result<(u8, Bytes), Bad> {
    match &**frame {
        [VERSION, kind, ..] => Ok((*kind, frame.slice(2..))),
        [] | [VERSION] => Err(Bad::Malformed),
        _ => Err(Bad::Version),
    }
}

impl Brief {
    /// Nothing.
    pub const EMPTY: Self = Self { count: 0, sum: 0 };

    /// Of a summary.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the lower half of a sum is a sum"
    )]
    #[must_use]
    pub const fn of(summary: Summary) -> Self {
        Self {
            count: summary.count,
            sum: summary.sum as u64,
        }
    }

    /// Whether there is nothing.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.count == 0
    }
}

impl Cut {
    /// Of what [`crate::mirror::Replica::split`] gave.
    #[must_use]
    pub fn of(parts: &[(Span, Summary)]) -> Self {
        Self {
            bounds: parts
                .iter()
                .skip(1)
                .map(|(span, _)| span.from.clone())
                .collect(),
            briefs: parts
                .iter()
                .map(|(_, summary)| Brief::of(*summary))
                .collect(),
        }
    }

    /// The parts that it makes of a span; `None` if it does not fit it.
    #[must_use]
    pub fn parts(&self, span: &Span) -> Option<Vec<(Span, Brief)>> {
        if self.briefs.len() != self.bounds.len() + 1 {
            return None;
        }
        let mut parts = Vec::with_capacity(self.briefs.len());
        let mut from = &span.from;
        let ends = self.bounds.iter().map(Some).chain([span.to.as_ref()]);
        for (to, brief) in ends.zip(&self.briefs) {
            if to.is_some_and(|to| to <= from) {
                return None;
            }
            let part = Span {
                axis: span.axis,
                from: from.clone(),
                to: to.cloned(),
            };
            parts.push((part, *brief));
            from = to.unwrap_or(from);
        }
        Some(parts)
    }
}

/// The span of a series from a minute since the epoch on.
#[must_use]
pub fn times_from(minute: u64) -> Span {
    let time = minute.saturating_mul(MINUTE);
    Span {
        axis: Axis::Times,
        from: if time == 0 {
            Vec::new()
        } else {
            time.to_be_bytes().to_vec()
        },
        to: None,
    }
}

/// A minute (NTP64).
pub const MINUTE: u64 = 60 << 32;
