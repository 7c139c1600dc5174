//! Who else holds what a storage holds, and so what it may forget (S2).
//!
//! A tombstone protects a key from older changes that somebody may still hold. It may go once every
//! replica has it. That a replica has it is known when a comparison finds both equal: then it has
//! everything that was here when the comparison began. What is deleted is known by its timestamp alone,
//! so a delete that arrives long after it was made spoils that, until the next comparison: changes are
//! believed to arrive within a margin, and one that does not holds everything up.
//!
//! A replica that is gone holds everything up, until it has been silent for longer than is waited for.
//! What it still holds when it comes back is then set aside, never brought back.
//!
//! All that is known of a replica is known of its stores ([`crate::identity`]). When others are in their
//! place, or older copies of them, it is compared anew before it counts again.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    identity::{self, Fate, Identity},
    wire::Reader,
};

/// Before the name of a member in its row's key.
const PREFIX: &[u8] = b"member/";

/// The replicas of a storage, apart from itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Members {
    members: BTreeMap<String, Member>,
    /// How late a change may be (NTP64). Not shorter than from one comparison to the next.
    margin: u64,
    /// When a delete was last admitted that was later than that (NTP64).
    late: u64,
}

/// A replica of a storage.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Member {
    /// When it was last heard of (NTP64).
    pub seen: u64,
    /// When the last comparison began that found both equal (NTP64); 0 if none did.
    pub in_step: u64,
    /// Its stores, as it last told of them; empty if it never did.
    pub stores: Vec<Identity>,
    /// When it last did, since the start (NTP64).
    told: u64,
    /// A copy of a store of it is in use elsewhere, and that is known.
    is_cloned: bool,
}

impl Members {
    /// Those that are remembered, at the time of a start (`now`, NTP64): whether something had come late
    /// before it is not, so it has.
    #[must_use]
    pub fn new(members: impl IntoIterator<Item = (String, Member)>, margin: u64, now: u64) -> Self {
        Self {
            members: members.into_iter().collect(),
            margin,
            late: now,
        }
    }

    /// A member was heard of.
    pub fn seen(&mut self, name: &str, now: u64) {
        let member = self.member(name);
        member.seen = member.seen.max(now);
    }

    /// A comparison that began at `at` (NTP64) found both equal. [`Members::deleted`] is to be told at
    /// once of what was admitted until now.
    pub fn in_step(&mut self, name: &str, at: u64) {
        let member = self.member(name);
        member.seen = member.seen.max(at);
        member.in_step = member.in_step.max(at);
    }

    /// A member has told of its stores, in answer to a question that was asked at `first` (NTP64). Answers
    /// what has become of them. If that is doubtful, it counts as never in step; [`Members::in_step`] is
    /// told afterwards what the same answer says. `own` are the stores of this replica.
    ///
    /// Answers are to come in the order of their questions. What the member has asked since may be known
    /// already, and then the answer tells less.
    pub fn told(
        &mut self,
        name: &str,
        stores: &[Identity],
        own: &[Identity],
        (first, now): (u64, u64),
    ) -> Option<Fate> {
        if identity::go_on(stores, &self.member(name).stores) && self.member(name).told >= first {
            return None;
        }
        let before = self.member(name).clone();
        let is_elsewhere =
            |id| has(own, id) || self.others(name).any(|other| has(&other.stores, id));
        let fate = identity::fate(&before.stores, stores, is_elsewhere);
        let is_cloned = self.is_cloned(name, stores, own);
        let fate = fate.max((is_cloned && !before.is_cloned).then_some(Fate::Cloned));
        let member = self.member(name);
        // What was found of stores that nobody had told of counts for none.
        if before.stores.is_empty() || fate.is_some_and(Fate::is_doubtful) {
            member.in_step = 0;
        }
        member.seen = member.seen.max(now);
        member.told = now;
        member.stores = stores.to_vec();
        member.is_cloned = is_cloned;
        fate
    }

    /// A member has told of its stores in a question, which may have been long on its way. Answers whether
    /// they are those that were known, so that what is found out by that question counts. If not, it has to
    /// be asked itself, and counts as never in step until then.
    pub fn asked(&mut self, name: &str, stores: &[Identity], own: &[Identity], now: u64) -> bool {
        let is_cloned = self.is_cloned(name, stores, own);
        let member = self.member(name);
        member.seen = member.seen.max(now);
        let counts = identity::go_on(&member.stores, stores) && is_cloned == member.is_cloned;
        if counts {
            member.told = now;
            member.stores = stores.to_vec();
        } else {
            member.in_step = 0;
        }
        counts
    }

    /// A delete with this time was admitted not long before `now` (both NTP64).
    pub fn deleted(&mut self, time: u64, now: u64) {
        let margin = self.margin;
        let is_known = |member: &Member| time <= member.in_step.saturating_sub(margin);
        if self.members.values().any(is_known) {
            self.late = self.late.max(now);
        }
    }

    /// Forgets members that have been silent for longer than `patience` (NTP64); answers who.
    pub fn retire(&mut self, now: u64, patience: u64) -> Vec<String> {
        let is_gone = |member: &Member| now.saturating_sub(member.seen) > patience;
        let gone = self.members.iter().filter(|(_, member)| is_gone(member));
        let gone: Vec<String> = gone.map(|(name, _)| name.clone()).collect();
        self.members.retain(|_, member| !is_gone(member));
        gone
    }

    /// Every member has every delete from before this time (NTP64); 0 if that cannot be said of any.
    #[must_use]
    pub fn have_all_before(&self) -> u64 {
        let all = self.members.values().map(|member| member.in_step);
        match all.min() {
            None => u64::MAX,
            Some(all) if all > self.late => all.saturating_sub(self.margin),
            Some(_) => 0,
        }
    }

    /// What is known of one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Member> {
        self.members.get(name)
    }

    /// Leaves one out: the replica itself, which is remembered where the store was another's.
    pub fn leave_out(&mut self, name: &str) {
        self.members.remove(name);
    }

    /// Who they are.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Member)> {
        self.members.iter().map(|(name, member)| (&**name, member))
    }

    /// Whether a store is in use here too, or elsewhere: two cannot tell of one store in turns, each in a
    /// run of its own, unless there are two of it. A store that was moved is told of at one place no more.
    /// What was found stays so until the other one tells of another store.
    fn is_cloned(&self, name: &str, stores: &[Identity], own: &[Identity]) -> bool {
        let Some(before) = self.members.get(name) else {
            return stores.iter().any(|store| has(own, store.id));
        };
        stores.iter().any(|store| {
            let mut known = before.stores.iter().filter(|known| known.id == store.id);
            let goes_on = known.any(|known| identity::go_on(&[*known], &[*store]));
            let is_proven =
                |other: &Member| before.is_cloned || goes_on && other.told > before.told;
            let mut others = self
                .others(name)
                .filter(|other| has(&other.stores, store.id));
            has(own, store.id) || others.any(is_proven)
        })
    }

    fn others<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Member> {
        let others = self.members.iter().filter(move |(other, _)| *other != name);
        others.map(|(_, other)| other)
    }

    fn member(&mut self, name: &str) -> &mut Member {
        self.members.entry(name.to_owned()).or_default()
    }
}

impl Member {
    /// The key of a member's row in [`crate::change::Table::System`].
    #[must_use]
    pub fn row_key(name: &str) -> Vec<u8> {
        [PREFIX, name.as_bytes()].concat()
    }

    /// The row: `seen` and `in_step`, big-endian; then its stores.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut row = [self.seen.to_be_bytes(), self.in_step.to_be_bytes()].concat();
        Identity::write_all(&self.stores, &mut row);
        row
    }

    /// The member of a row; `None` if it is not one. A row without stores is one from before there were
    /// any ids.
    #[must_use]
    pub fn decode(key: &[u8], value: &[u8]) -> Option<(String, Self)> {
        let name = std::str::from_utf8(key.strip_prefix(PREFIX)?).ok()?;
        let mut row = Reader::new(Bytes::copy_from_slice(value));
        let mut member = Self {
            seen: row.u64().ok()?,
            in_step: row.u64().ok()?,
            ..Self::default()
        };
        match Identity::read_all(&mut row) {
            Ok(stores) => member.stores = stores,
            // Nobody knows any more of which stores it was found.
            Err(_) => member.in_step = 0,
        }
        Some((name.to_owned(), member))
    }

    /// Where such rows begin.
    #[must_use]
    pub fn first_row() -> Vec<u8> {
        PREFIX.to_vec()
    }
}

fn has(stores: &[Identity], id: u64) -> bool {
    stores.iter().any(|store| store.id == id)
}

#[cfg(test)]
mod tests;
