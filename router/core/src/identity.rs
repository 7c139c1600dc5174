//! Which store a replica is kept in, and whether it is still the one that was known.
//!
//! What a replica once held says what its store holds now only if that is the same store, with all that
//! was in it. So a store has an id, drawn when it is made; each time it is opened to be written to it
//! begins another *run*, which is drawn too; and it counts the batches of changes that are committed, its
//! *position*, in the batches themselves. A run says from which one it came and where that one had ended:
//!
//! ```text
//! run 7 (the third), position 40  ->  run 2 (the fourth), from run 7, opened at 41     the same, restarted
//!                                 ->  run 5 (the fourth), from run 7, opened at 12     an older copy of it
//!                                 ->  run 5 (the third),  from run 9                   an older copy of it
//!                                 ->  run 5 (the sixth),  from run 3, opened at 90     nobody can say
//! ```
//!
//! Where nobody can say, what was known of the replica counts no more: it is compared anew, which costs a
//! question. What is not noticed is never taken for granted, whatever it is called.
//!
//! Ids have 64 bits: they go with every comparison, and of a million stores two have one id with a chance
//! of one in thirty million; then a clone is told that is none.

use bytes::Bytes;

use crate::wire::{Bad, Reader, varint};

/// A store, at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Identity {
    /// Drawn when the store was made.
    pub id: u64,
    /// How often it was opened to be written to.
    pub incarnation: u64,
    /// Drawn when it was opened: no two openings have the same one, whatever was copied before.
    pub run: u32,
    /// The run before this one; 0 for the first.
    pub parent: u32,
    /// The position when it was opened.
    pub opened: u64,
    /// How many batches of changes were committed to it since it was made.
    pub position: u64,
}

/// What has become of a store, by what is told of it. The later ones outweigh the earlier.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fate {
    /// It was opened again, and nothing of it is lost.
    Restarted,
    /// It was opened more than once since: nobody can say whether an older copy was put back meanwhile.
    Missed,
    /// It is an older state of itself.
    Restored,
    /// A new and empty store is in its place.
    Wiped,
    /// Another store is in its place.
    Swapped,
    /// Two copies of it are in use.
    Cloned,
}

impl Identity {
    /// The key of its row in [`crate::change::Table::System`].
    pub const ROW: &'static [u8] = b"store";
    /// The key of the row for [`Identity::position`], which is written with every batch of changes.
    pub const POSITION: &'static [u8] = b"position";

    /// Of a store that is opened to be written to: `held` is what it was before, `None` if it is new;
    /// `chance` makes its id and its run.
    #[must_use]
    pub fn next(held: Option<Self>, position: u64, chance: u128) -> Self {
        let before = held.unwrap_or(Self {
            // 0 stands for none, here and below.
            id: u64::try_from(chance >> 64).unwrap_or(1).max(1),
            ..Self::default()
        });
        Self {
            id: before.id,
            incarnation: before.incarnation.saturating_add(1),
            run: u32::try_from(chance & u128::from(u32::MAX))
                .unwrap_or(1)
                .max(1),
            parent: before.run,
            opened: position,
            position,
        }
    }

    /// Its row: all but the position, integers big-endian.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut row = self.id.to_be_bytes().to_vec();
        row.extend(self.incarnation.to_be_bytes());
        row.extend(self.run.to_be_bytes());
        row.extend(self.parent.to_be_bytes());
        row.extend(self.opened.to_be_bytes());
        row
    }

    /// Of a row and a position; `None` if it is no such row. What a later version adds to it is left.
    #[must_use]
    pub fn decode(row: &[u8], position: u64) -> Option<Self> {
        let mut row = Reader::new(Bytes::copy_from_slice(row));
        let mut read = || -> Result<Self, Bad> {
            Ok(Self {
                id: row.u64()?,
                incarnation: row.u64()?,
                run: u32::from_be_bytes(row.array()?),
                parent: u32::from_be_bytes(row.array()?),
                opened: row.u64()?,
                position,
            })
        };
        read().ok()
    }

    /// Appends it as it is told and remembered: about 22 bytes.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.id.to_be_bytes());
        out.extend(self.run.to_be_bytes());
        out.extend(self.parent.to_be_bytes());
        varint(out, self.incarnation);
        varint(out, self.opened);
        varint(out, self.position.saturating_sub(self.opened));
    }

    /// The inverse of [`Identity::write`].
    pub(crate) fn read(from: &mut Reader) -> Result<Self, Bad> {
        let mut identity = Self {
            id: from.u64()?,
            run: u32::from_be_bytes(from.array()?),
            parent: u32::from_be_bytes(from.array()?),
            incarnation: from.varint()?,
            opened: from.varint()?,
            position: 0,
        };
        let since = from.varint()?;
        identity.position = identity.opened.checked_add(since).ok_or(Bad::Malformed)?;
        Ok(identity)
    }

    /// Appends several.
    pub(crate) fn write_all(stores: &[Self], out: &mut Vec<u8>) {
        for store in stores {
            store.write(out);
        }
    }

    /// The inverse of [`Identity::write_all`]: all that is left.
    pub(crate) fn read_all(from: &mut Reader) -> Result<Vec<Self>, Bad> {
        let mut stores = Vec::new();
        while !from.is_empty() {
            stores.push(Self::read(from)?);
        }
        Ok(stores)
    }

    /// Whether this is `known` some time later, without having been opened again.
    fn goes_on_from(&self, known: &Self) -> bool {
        self.id == known.id && self.run == known.run && self.position >= known.position
    }

    /// What has become of a store of this id since it was `known`; `None` if nothing has.
    fn fate_since(&self, known: &Self) -> Option<Fate> {
        if self.goes_on_from(known) {
            return None;
        }
        // A position never goes back from run to run, nor within one: unless the process was put back
        // with all its memory, as a virtual machine is from a snapshot.
        let is_older = self.run == known.run || self.opened < known.position;
        let is_later = self.incarnation > known.incarnation;
        let is_next = is_later && self.incarnation - known.incarnation == 1;
        Some(match (is_older || !is_later, is_next) {
            (true, _) => Fate::Restored,
            (false, true) if self.parent != known.run => Fate::Restored,
            (false, true) => Fate::Restarted,
            (false, false) => Fate::Missed,
        })
    }
}

impl Fate {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::Restarted,
        Self::Missed,
        Self::Restored,
        Self::Wiped,
        Self::Swapped,
        Self::Cloned,
    ];

    /// What it is called in status and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Restarted => "restarted",
            Self::Missed => "missed",
            Self::Restored => "restored",
            Self::Wiped => "wiped",
            Self::Swapped => "swapped",
            Self::Cloned => "cloned",
        }
    }

    /// Whether what was known to be in the store may not be there any more.
    #[must_use]
    pub const fn is_doubtful(self) -> bool {
        !matches!(self, Self::Restarted)
    }

    /// Whether somebody should hear of it, whatever else happens to the store.
    #[must_use]
    pub const fn is_notable(self) -> bool {
        !matches!(self, Self::Restarted | Self::Missed)
    }
}

/// Whether all stores of a replica are those that were known, some time later.
#[must_use]
pub fn go_on(known: &[Identity], told: &[Identity]) -> bool {
    let goes_on = |known: &Identity| told.iter().any(|told| told.goes_on_from(known));
    !known.is_empty() && known.iter().all(goes_on)
}

/// What has become of a replica's stores, one for each of its shards in any order, since they were
/// `known`; `None` if nothing has, or if nothing was known. `is_elsewhere` says whether an id is that of
/// another replica's store. A store that is added is no news.
#[must_use]
pub fn fate(
    known: &[Identity],
    told: &[Identity],
    is_elsewhere: impl Fn(u64) -> bool,
) -> Option<Fate> {
    let of = |all: &[Identity], id| all.iter().find(|one| one.id == id).copied();
    let is_foreign = |told: &&Identity| of(known, told.id).is_none();
    let in_its_place = || {
        let mut foreign = told.iter().filter(is_foreign);
        // Nothing was in it when it was opened, and nobody has it elsewhere: it was made there.
        let is_new = |store: &Identity| store.opened == 0 && !is_elsewhere(store.id);
        let is_wiped = foreign.clone().next().is_some() && foreign.all(is_new);
        if is_wiped { Fate::Wiped } else { Fate::Swapped }
    };
    let fates = known.iter().map(|known| match of(told, known.id) {
        Some(told) => told.fate_since(known),
        None => Some(in_its_place()),
    });
    fates.max().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The third opening of a store, from which others go on.
    const KNOWN: Identity = Identity {
        id: 1,
        incarnation: 3,
        run: 7,
        parent: 6,
        opened: 30,
        position: 40,
    };

    #[track_caller]
    fn check(told: &[Identity], expected: Option<Fate>) {
        let known = [KNOWN];
        assert_eq!(fate(&known, told, |id| id == 4), expected, "{told:?}");
        assert_eq!(go_on(&known, told), expected.is_none(), "{told:?}");
    }

    #[test]
    fn what_has_become_of_a_store_is_said_by_its_run_and_position() {
        let next = Identity {
            incarnation: 4,
            run: 8,
            parent: 7,
            opened: 41,
            position: 41,
            ..KNOWN
        };
        let rows = [
            (KNOWN, None),
            (
                Identity {
                    position: 50,
                    ..KNOWN
                },
                None,
            ),
            // The machine was put back, memory and all.
            (
                Identity {
                    position: 39,
                    ..KNOWN
                },
                Some(Fate::Restored),
            ),
            (next, Some(Fate::Restarted)),
            (Identity { opened: 40, ..next }, Some(Fate::Restarted)),
            (Identity { opened: 39, ..next }, Some(Fate::Restored)),
            // A copy of the second, opened twice since: it has overtaken what was known.
            (Identity { parent: 9, ..next }, Some(Fate::Restored)),
            // A copy of the second, opened, and of the first.
            (
                Identity {
                    run: 8,
                    parent: 6,
                    ..KNOWN
                },
                Some(Fate::Restored),
            ),
            (
                Identity {
                    incarnation: 2,
                    run: 8,
                    parent: 5,
                    ..KNOWN
                },
                Some(Fate::Restored),
            ),
            (
                Identity {
                    incarnation: 5,
                    parent: 9,
                    ..next
                },
                Some(Fate::Missed),
            ),
            (
                Identity {
                    incarnation: 5,
                    opened: 12,
                    ..next
                },
                Some(Fate::Restored),
            ),
        ];
        for (told, expected) in rows {
            check(&[told], expected);
        }
    }

    #[test]
    fn another_id_is_a_new_store_or_another_one() {
        let new = Identity::next(None, 0, 5 << 64);
        let rows = [
            (new, Fate::Wiped),
            (Identity { position: 9, ..new }, Fate::Wiped),
            (
                Identity {
                    opened: 9,
                    position: 9,
                    ..new
                },
                Fate::Swapped,
            ),
            (Identity { id: 4, ..new }, Fate::Swapped),
        ];
        for (told, expected) in rows {
            check(&[told], Some(expected));
        }
    }

    #[test]
    fn of_several_shards_the_worst_counts() {
        let added = Identity { id: 2, ..KNOWN };
        check(&[added, KNOWN], None);
        let older = Identity {
            position: 3,
            ..KNOWN
        };
        check(&[added, older], Some(Fate::Restored));
        check(&[added], Some(Fate::Swapped));
        check(&[], Some(Fate::Swapped));
        assert_eq!(fate(&[], &[KNOWN], |_| true), None, "nothing was known");
        assert!(!go_on(&[], &[KNOWN]), "nothing was known");
        let both = [KNOWN, added];
        let told = [older, Identity::next(None, 0, 9 << 64)];
        assert_eq!(fate(&both, &told, |_| false), Some(Fate::Wiped));
    }

    #[test]
    fn a_run_says_from_which_it_comes() {
        let first = Identity::next(None, 0, (8 << 64) | 3);
        let expected = Identity {
            id: 8,
            incarnation: 1,
            run: 3,
            parent: 0,
            opened: 0,
            position: 0,
        };
        assert_eq!(first, expected);
        let second = Identity::next(Some(first), 17, (9 << 64) | 4);
        let expected = Identity {
            incarnation: 2,
            run: 4,
            parent: 3,
            opened: 17,
            position: 17,
            ..first
        };
        assert_eq!(second, expected);
        let none = Identity::next(None, 0, 0);
        assert_eq!((none.id, none.run), (1, 1), "chance may be 0");
        assert_eq!(fate(&[first], &[second], |_| false), Some(Fate::Restarted));
    }

    #[test]
    fn rows_and_what_is_told_are_read_as_they_were_written() {
        for identity in [
            KNOWN,
            Identity::default(),
            Identity {
                position: u64::MAX,
                ..KNOWN
            },
        ] {
            let row = identity.encode();
            assert_eq!(Identity::decode(&row, identity.position), Some(identity));
            assert_eq!(Identity::decode(&row[1..], 0), None);
            let longer = [&row[..], b"more"].concat();
            assert_eq!(Identity::decode(&longer, identity.position), Some(identity));
            let mut told = Vec::new();
            identity.write(&mut told);
            let mut reader = Reader::new(told.clone().into());
            assert_eq!(Identity::read(&mut reader), Ok(identity));
            assert!(reader.is_empty());
            let mut short = Reader::new(told[1..].to_vec().into());
            assert_eq!(Identity::read(&mut short), Err(Bad::Malformed));
        }
        let mut told = Vec::new();
        KNOWN.write(&mut told);
        assert!(told.len() <= 20, "{} B", told.len());
        let mut beyond = Identity {
            opened: u64::MAX,
            ..KNOWN
        };
        beyond.position = u64::MAX;
        let mut told = Vec::new();
        beyond.write(&mut told);
        *told.last_mut().unwrap() = 1;
        assert_eq!(
            Identity::read(&mut Reader::new(told.into())),
            Err(Bad::Malformed)
        );
    }
}
