//! What was seen of a directory, and when a difference is believed: pure.
//!
//! A file that is being written looks different every time; one that was written is the same twice.
//! So a difference to what is accepted is a candidate until two looks, a span apart, have seen the
//! same; an absence too, since "remove, then copy" is how many replace a file. The span is shorter if
//! the file system has told that the writer is done.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What the file system says of a file without opening it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Look {
    /// Its device and inode.
    pub(crate) id: (u64, u64),
    /// Bytes.
    pub(crate) size: u64,
    /// When it was written to (seconds, nanoseconds since the epoch).
    pub(crate) modified: (i64, i64),
    /// When anything about it changed; nobody can set it back.
    pub(crate) changed: (i64, i64),
}

/// What is in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// The hash of its bytes.
    Hash(blake3::Hash),
    /// It cannot be read, or will not be.
    Unreadable(String),
}

/// A file as it was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    pub(crate) look: Look,
    pub(crate) content: Content,
}

/// A module and its signature as they were seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fingerprint {
    pub(crate) module: Seen,
    pub(crate) signature: Option<Seen>,
}

impl Fingerprint {
    /// Whether both hold the same bytes, however they came there.
    fn is_same_content(&self, other: &Self) -> bool {
        let signature = |print: &Self| print.signature.as_ref().map(|seen| seen.content.clone());
        self.module.content == other.module.content && signature(self) == signature(other)
    }
}

/// The modules of a directory by policy name (`geo` for `geo.wasm`).
pub(crate) type Listing = BTreeMap<String, Fingerprint>;

/// What became of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Difference {
    Added,
    Changed,
    Removed,
}

/// In which contents two listings differ, by name.
pub(crate) fn diff(old: &Listing, new: &Listing) -> Vec<(String, Difference)> {
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    let mut differences: Vec<_> = gone
        .map(|name| (name.clone(), Difference::Removed))
        .collect();
    for (name, print) in new {
        match old.get(name) {
            None => differences.push((name.clone(), Difference::Added)),
            Some(before) if !before.is_same_content(print) => {
                differences.push((name.clone(), Difference::Changed));
            }
            Some(_) => {}
        }
    }
    differences.sort_by(|(a, _), (b, _)| a.cmp(b));
    differences
}

/// Believes what it has seen twice.
#[derive(Debug)]
pub(crate) struct Settling {
    span: Duration,
    span_finished: Duration,
    accepted: Listing,
    candidates: BTreeMap<String, Candidate>,
}

#[derive(Debug)]
struct Candidate {
    print: Option<Fingerprint>,
    since: Duration,
    span: Duration,
}

impl Settling {
    /// With `span` between the two looks, or `span_finished` for a file whose writer is done.
    pub(crate) fn new(span: Duration, span_finished: Duration) -> Self {
        Self {
            span,
            span_finished,
            accepted: Listing::new(),
            candidates: BTreeMap::new(),
        }
    }

    /// Takes a look into account; returns what has settled and is to be read and then accepted, by
    /// name. `now` is a monotonic time from any beginning.
    pub(crate) fn observe(
        &mut self,
        now: Duration,
        listing: &Listing,
        finished: &BTreeSet<String>,
    ) -> Vec<(String, Difference)> {
        let differences = diff(&self.accepted, listing);
        // What is again as it was accepted needs no second look.
        self.candidates
            .retain(|name, _| differences.iter().any(|(other, _)| other == name));
        let mut ripe = Vec::new();
        for (name, difference) in differences {
            let print = listing.get(&name).cloned();
            let is_finished = print.is_some() && finished.contains(&name);
            let span = if is_finished {
                self.span_finished
            } else {
                self.span
            };
            match self.candidates.get_mut(&name).filter(|c| c.print == print) {
                Some(candidate) => {
                    candidate.span = candidate.span.min(span);
                    if now.saturating_sub(candidate.since) >= candidate.span {
                        ripe.push((name, difference));
                    }
                }
                None => {
                    let candidate = Candidate {
                        print,
                        since: now,
                        span,
                    };
                    self.candidates.insert(name, candidate);
                }
            }
        }
        ripe
    }

    /// What is seen now needs no second look: it has lain there since before we came.
    pub(crate) fn trust(&mut self, name: &str, now: Duration, print: Fingerprint) {
        let candidate = Candidate {
            print: Some(print),
            since: now,
            span: Duration::ZERO,
        };
        self.candidates.insert(name.to_owned(), candidate);
    }

    /// The fingerprint that has settled; `None` if it is the absence that has.
    pub(crate) fn settled(&self, name: &str) -> Option<&Fingerprint> {
        self.candidates.get(name)?.print.as_ref()
    }

    /// It was read as it was seen, or is gone.
    pub(crate) fn accept(&mut self, name: &str) {
        match self.candidates.remove(name).and_then(|c| c.print) {
            Some(print) => self.accepted.insert(name.to_owned(), print),
            None => self.accepted.remove(name),
        };
    }

    /// It was not read as it was seen: begin again.
    pub(crate) fn again(&mut self, name: &str, now: Duration) {
        if let Some(candidate) = self.candidates.get_mut(name) {
            candidate.since = now;
            candidate.span = self.span;
        }
    }

    #[cfg(test)]
    fn accepted(&self) -> Vec<&str> {
        self.accepted.keys().map(String::as_str).collect()
    }

    /// When to look again, if something is about to settle.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let due = self.candidates.values().map(|one| one.since + one.span);
        due.min()
    }
}

#[cfg(test)]
mod tests;
