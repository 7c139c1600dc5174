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

use std::collections::BTreeMap;

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
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Member {
    /// When it was last heard of (NTP64).
    pub seen: u64,
    /// When the last comparison began that found both equal (NTP64); 0 if none did.
    pub in_step: u64,
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
    pub fn get(&self, name: &str) -> Option<Member> {
        self.members.get(name).copied()
    }

    /// Who they are.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Member)> {
        self.members.iter().map(|(name, member)| (&**name, member))
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

    /// The row: `seen` and `in_step`, big-endian.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        [self.seen.to_be_bytes(), self.in_step.to_be_bytes()].concat()
    }

    /// The member of a row; `None` if it is not one.
    #[must_use]
    pub fn decode(key: &[u8], value: &[u8]) -> Option<(String, Self)> {
        let name = std::str::from_utf8(key.strip_prefix(PREFIX)?).ok()?;
        let (seen, in_step) = value.split_first_chunk::<8>()?;
        let member = Self {
            seen: u64::from_be_bytes(*seen),
            in_step: u64::from_be_bytes(in_step.try_into().ok()?),
        };
        Some((name.to_owned(), member))
    }

    /// Where such rows begin.
    #[must_use]
    pub fn first_row() -> Vec<u8> {
        PREFIX.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_forgotten_that_somebody_may_lack() {
        let mut members = Members::new([], 2, 10);
        assert_eq!(members.have_all_before(), u64::MAX, "alone");
        members.seen("a", 11);
        assert_eq!(members.have_all_before(), 0, "never in step");
        members.in_step("a", 20);
        assert_eq!(members.have_all_before(), 18);
        members.in_step("b", 15);
        members.in_step("b", 12);
        assert_eq!(
            members.have_all_before(),
            13,
            "the slowest counts, and never goes back"
        );
        members.deleted(19, 21);
        assert_eq!(members.have_all_before(), 13, "hardly late");
        members.deleted(14, 22);
        assert_eq!(members.have_all_before(), 0, "so late that b may lack it");
        members.in_step("a", 33);
        assert_eq!(members.have_all_before(), 0, "b may lack it still");
        members.in_step("b", 34);
        assert_eq!(members.have_all_before(), 31);
    }

    #[test]
    fn who_is_silent_too_long_is_waited_for_no_more() {
        let mut members = Members::new([], 0, 0);
        members.in_step("a", 5);
        members.seen("b", 90);
        assert_eq!(members.retire(100, 95), Vec::<String>::new());
        assert_eq!(members.retire(101, 95), ["a"]);
        let left: Vec<&str> = members.iter().map(|(name, _)| name).collect();
        assert_eq!(left, ["b"]);
    }

    #[test]
    fn a_start_comes_after_whatever_came_late() {
        let member = Member {
            seen: 9,
            in_step: 8,
        };
        let (name, read) = Member::decode(&Member::row_key("z/s"), &member.encode()).unwrap();
        assert_eq!((name.as_str(), read), ("z/s", member));
        assert_eq!(Member::decode(b"newest", &member.encode()), None);
        assert_eq!(Member::decode(&Member::row_key("z"), b"short"), None);
        let mut members = Members::new([(name, read)], 0, 10);
        assert_eq!(members.have_all_before(), 0);
        members.in_step("z/s", 11);
        assert_eq!(members.have_all_before(), 11);
    }
}
