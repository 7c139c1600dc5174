//! Flipped bits and cut files cost their block and nothing else.

use std::{collections::BTreeSet, fs, path::PathBuf};

use proptest::prelude::*;

use super::*;
use crate::{JournalError, inspect};

/// A directory with a closed segment of blocks of some entries each; the file and the entries by block.
fn segment(
    blocks: u32,
    entries: u32,
    payload: usize,
) -> (tempfile::TempDir, PathBuf, Vec<Vec<Entry>>) {
    let dir = tempdir();
    let mut journal = open(dir.path());
    let mut all = Vec::new();
    for block in 0..blocks {
        let row = |at: u32| {
            let time = u64::from(block) * SECOND + u64::from(at);
            entry(
                0,
                &format!("k/{at}"),
                A,
                time,
                &format!("{block:0payload$}"),
            )
        };
        let rows: Vec<_> = (0..entries).map(row).collect();
        journal.append(&kept(&rows), 5 * SECOND).unwrap();
        journal.flush(false).unwrap();
        all.push(rows);
    }
    journal.close().unwrap();
    let file = inspect::segments(dir.path()).unwrap().remove(0).file;
    let path = dir.path().join(file);
    (dir, path, all)
}

/// Opens the damaged file and checks that at most one block is missing, that the rest is as it was, and that
/// something was said. Returns how many blocks are missing.
#[track_caller]
fn check(
    what: &str,
    path: &PathBuf,
    bytes: &[u8],
    blocks: &[Vec<Entry>],
    cut_at: Option<u64>,
) -> usize {
    let dir = path.parent().unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    fs::write(path, bytes).unwrap();
    let verified = inspect::verify(dir);
    let opened = Journal::open(Options::new(dir), &["cloud"], 0);
    let (mut journal, recovery) = match opened {
        Ok(opened) => opened,
        Err(error) => panic!("{what}: {error}"),
    };
    let found = all_of(&mut journal);
    let mut at = 0;
    let mut missing = BTreeSet::new();
    for (number, block) in blocks.iter().enumerate() {
        if found[at..].starts_with(block) {
            at += block.len();
        } else {
            missing.insert(number);
        }
    }
    assert_eq!(at, found.len(), "{what}: something was invented or split");
    let status = journal.status();
    match cut_at {
        Some(_) => {
            let first = blocks.len() - missing.len();
            assert!(
                missing.iter().all(|block| *block >= first),
                "{what}: {missing:?}"
            );
        }
        None => {
            assert!(missing.len() <= 1, "{what}: {missing:?}");
            if !missing.is_empty() {
                assert_eq!(status.damaged.len() + recovery.torn.len(), 1, "{what}");
            }
        }
    }
    let verified = verified.unwrap();
    let is_told = !verified.damaged.is_empty() || !verified.problems.is_empty();
    assert!(is_told || cut_at.is_some(), "{what}: nobody saw it");
    missing.len()
}

#[test]
fn every_flipped_bit_costs_its_block_at_the_most() {
    let (_dir, path, blocks) = segment(4, 2, 3);
    let bytes = fs::read(&path).unwrap();
    let mut costs = 0;
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            costs += check(&format!("byte {at} bit {bit}"), &path, &bad, &blocks, None);
        }
    }
    assert!(
        costs > 1000,
        "{costs} of {} flips cost a block",
        bytes.len() * 8
    );
}

#[test]
fn every_truncation_costs_what_was_cut() {
    let (_dir, path, blocks) = segment(4, 2, 3);
    let bytes = fs::read(&path).unwrap();
    let ends: Vec<u64> = {
        let segments = inspect::segments(path.parent().unwrap()).unwrap();
        let end = |block: &inspect::BlockAt| block.offset + block.head.len();
        segments[0].blocks.iter().map(end).collect()
    };
    for len in 0..bytes.len() {
        let missing = check(
            &format!("cut at {len}"),
            &path,
            &bytes[..len],
            &blocks,
            Some(len as u64),
        );
        let whole = ends.iter().filter(|end| **end <= len as u64).count();
        assert_eq!(missing, blocks.len() - whole, "cut at {len}");
    }
}

#[test]
fn flips_and_cuts_of_a_mebibyte_do_too() {
    let (_dir, path, blocks) = segment(17, 60, 1024);
    let bytes = fs::read(&path).unwrap();
    assert!(bytes.len() > 1 << 20);
    let mut seed = 11u64;
    for turn in 0..120 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = usize::try_from(seed >> 33).unwrap() % bytes.len();
        if turn % 3 == 0 {
            check(
                &format!("cut at {at}"),
                &path,
                &bytes[..at],
                &blocks,
                Some(at as u64),
            );
        } else {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (turn % 8);
            check(&format!("byte {at}"), &path, &bad, &blocks, None);
        }
    }
}

#[test]
fn what_is_damaged_is_told_once_and_counted_as_lost() {
    let (dir, path, blocks) = segment(4, 3, 3);
    let mut bytes = fs::read(&path).unwrap();
    let block = inspect::segments(dir.path()).unwrap()[0].blocks[2];
    bytes[usize::try_from(block.offset).unwrap() + 70] ^= 1;
    fs::write(&path, &bytes).unwrap();
    for turn in 0..2 {
        let mut journal = open(dir.path());
        assert_eq!(all_of(&mut journal).len(), 9);
        let status = journal.status();
        assert_eq!(status.lost.len(), 1, "turn {turn}");
        let (lane, lost) = status.lost[0];
        assert_eq!((lane, lost.count, lost.stretch.source), (0, 3, A));
        let Stretch { from, to, .. } = lost.stretch;
        assert!(from <= 2 * SECOND && 2 * SECOND + 2 < to);
        journal.close().unwrap();
    }
    let aside = fs::read(path.with_extension("journal.damaged")).unwrap();
    assert_eq!(aside.len() as u64, 12 + block.head.len());
    assert_eq!(blocks.len(), 4);
}

fn damage(path: &PathBuf, block: usize) {
    let block = inspect::segments(path.parent().unwrap()).unwrap()[0].blocks[block];
    let mut bytes = fs::read(path).unwrap();
    bytes[usize::try_from(block.offset).unwrap() + 70] ^= 1;
    fs::write(path, &bytes).unwrap();
}

fn lost(journal: &Journal) -> u64 {
    let lost = journal.status().lost;
    lost.iter().map(|(_, lost)| lost.count).sum()
}

/// To write it again without the block would be to lose it, and to tell nobody.
#[test]
fn a_segment_with_a_damaged_block_is_not_written_again() {
    // The last one stands before the footer, which is no block.
    for block in [1, 3] {
        let (_dir, path, _) = segment(4, 3, 3);
        let mut journal = open(path.parent().unwrap());
        damage(&path, block);
        let id = *journal.lock().lane(0).segments.keys().next().unwrap();
        journal.thin(0, id).unwrap();
        assert_eq!(journal.status().lanes[0].coalesced, 0, "{block}");
        assert_eq!(all_of(&mut journal).len(), 9, "{block}");
        assert_eq!(lost(&journal), 3, "{block}");
    }
}

#[test]
fn nor_is_it_if_its_index_is_damaged_too() {
    let (_dir, path, _) = segment(4, 3, 3);
    let mut journal = open(path.parent().unwrap());
    let last = inspect::segments(path.parent().unwrap()).unwrap()[0].blocks[3];
    damage(&path, 1);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() - crate::segment::TRAILER_LEN - 9;
    assert!(at as u64 > last.offset + last.head.len());
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    journal.rank_by(1);
    while let Some(asked) = journal.unranked(Order::OldestFirst).unwrap() {
        let verdicts = vec![weir_core::backlog::Verdict::Drop(1); asked.len()];
        journal.rank(&verdicts).unwrap();
    }
    assert_eq!((all_of(&mut journal).len(), lost(&journal)), (9, 3));
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

/// A block that was set aside is one of a file that had this name, not of every file that has it ever.
#[test]
fn damage_is_told_although_another_was_at_the_same_place() {
    let (dir, path, blocks) = segment(4, 3, 3);
    damage(&path, 2);
    let mut journal = open(dir.path());
    assert_eq!(all_of(&mut journal).len(), 9);
    certify_all(&mut journal);
    journal.trim(5 * SECOND).unwrap();
    journal.close().unwrap();
    assert!(inspect::segments(dir.path()).unwrap().is_empty());
    let mut journal = open(dir.path());
    for rows in &blocks {
        journal.append(&kept(rows), 5 * SECOND).unwrap();
        journal.flush(false).unwrap();
    }
    journal.close().unwrap();
    let file = inspect::segments(dir.path()).unwrap().remove(0).file;
    damage(&dir.path().join(file), 2);
    let mut journal = open(dir.path());
    assert_eq!(all_of(&mut journal).len(), 9);
    assert_eq!(lost(&journal), 6);
}

/// Whenever the process ends: what is told once must not be thought to be told before it is.
#[test]
fn damage_is_known_as_lost_before_it_counts_as_told() {
    for is_footless in [false, true] {
        let (dir, path, _) = segment(4, 3, 3);
        damage(&path, 2);
        if is_footless {
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
        }
        let mut journal = open(dir.path());
        assert_eq!(all_of(&mut journal).len(), 9);
        assert_eq!(lost(&journal), 3);
        drop(journal);
        for turn in 0..3 {
            let mut journal = open(dir.path());
            assert_eq!(all_of(&mut journal).len(), 9);
            assert_eq!(lost(&journal), 3, "{is_footless} {turn}");
            journal.trim((turn + 9) * SECOND).unwrap();
        }
        let aside = fs::read(path.with_extension("journal.damaged")).unwrap();
        assert!(aside.len() > 12 && inspect::verify(dir.path()).is_ok());
    }
}

/// What a later release has written of what was lost, or moved, is not for this one to judge.
#[test]
fn later_lists_are_refused_and_left_alone() {
    for (name, magic) in [("lost", b"WEIRLOST"), ("moved", b"WEIRMOVE")] {
        let (dir, ..) = segment(1, 1, 1);
        let mut bytes = magic.to_vec();
        bytes.extend([2, 0, 7, 7, 7]);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        fs::write(dir.path().join(name), &bytes).unwrap();
        let error = Journal::open(Options::new(dir.path()), &[], 0).unwrap_err();
        assert!(
            matches!(error, JournalError::Version { version: 2, .. }),
            "{name}: {error}"
        );
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), bytes, "{name}");
    }
}

#[test]
fn another_version_is_refused_and_left_alone() {
    let (dir, path, _) = segment(1, 1, 1);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    let crc = crc32fast::hash(&bytes[..28]).to_le_bytes();
    bytes[28..32].copy_from_slice(&crc);
    fs::write(&path, &bytes).unwrap();
    let error = Journal::open(Options::new(dir.path()), &[], 0).unwrap_err();
    assert!(
        matches!(error, JournalError::Version { version: 2, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("use the release that wrote it"));
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert!(inspect::verify(dir.path()).is_err());
}

#[test]
fn a_damaged_list_of_what_was_given_up_begins_anew() {
    let dir = tempdir();
    let options = Options {
        age: Some(SECOND),
        ..Options::new(dir.path())
    };
    let mut journal = open_with(options);
    journal
        .append(&kept(&[entry(0, "a", A, 5, "x")]), 0)
        .unwrap();
    assert_eq!(journal.trim(9 * SECOND).unwrap().expired, 1);
    journal
        .append(&kept(&[entry(0, "a", A, 6, "x")]), 9 * SECOND)
        .unwrap();
    journal.close().unwrap();
    let path = dir.path().join("lost");
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(inspect::verify(dir.path()).unwrap().problems.len(), 1);
    let (journal, recovery) = Journal::open(Options::new(dir.path()), &["cloud"], 0).unwrap();
    assert_eq!(recovery.repaired.len(), 1);
    assert_eq!(fs::read(dir.path().join("lost.damaged")).unwrap(), bytes);
    let status = journal.status();
    assert_eq!((status.lost.len(), status.lanes[0].records), (0, 1));
}

#[test]
fn closed_segments_are_opened_by_their_footers_alone() {
    let (dir, path, blocks) = segment(20, 10, 30);
    let mut bytes = fs::read(&path).unwrap();
    let last = inspect::segments(dir.path()).unwrap()[0].blocks[19];
    let end = usize::try_from(last.offset + last.head.len()).unwrap();
    bytes[32..end].fill(0);
    fs::write(&path, &bytes).unwrap();
    let (mut journal, recovery) = Journal::open(Options::new(dir.path()), &["cloud"], 0).unwrap();
    assert_eq!(
        (recovery.records, recovery.damaged.len(), recovery.scanned),
        (200, 0, 0)
    );
    let (_, mut outbox) = cloud(&mut journal);
    let all: Vec<Entry> = blocks.concat();
    assert_eq!(outbox.pending(u64::MAX, 9).unwrap()[0].1, sum(&all));
    // Who reads them finds out.
    assert_eq!(all_of(&mut journal), []);
    let status = journal.status();
    assert_eq!(status.damaged.len(), 20);
    assert_eq!(
        status.lost.iter().map(|(_, lost)| lost.count).sum::<u64>(),
        200
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn nonsense_in_a_file_is_never_more_than_nonsense(
        from: prop::sample::Index,
        to: prop::sample::Index,
        nonsense in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let (dir, path, blocks) = segment(6, 2, 20);
        let mut bytes = fs::read(&path).unwrap();
        let (a, b) = (from.index(bytes.len()), to.index(bytes.len()));
        bytes.splice(a.min(b)..a.max(b), nonsense);
        fs::write(&path, &bytes).unwrap();
        for entry in inspect::entries(dir.path()).unwrap() {
            prop_assert!(blocks.concat().contains(&entry.unwrap().1));
        }
        for _ in 0..2 {
            let mut journal = open(dir.path());
            for entry in all_of(&mut journal) {
                prop_assert!(blocks.concat().contains(&entry));
            }
            let more = entry(0, "more", B, 0, "x");
            prop_assert_eq!(journal.append(&kept(&[more]), 0).unwrap().kept, 1);
        }
    }
}
