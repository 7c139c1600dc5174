//! What a link answers whoever brings it something from another router's link.

use std::{fs, path::Path};

use weir_core::{change::Change, key::Key, pattern::KeyPattern, value::Value, version::Stamp};
use weir_settings::{Budget, JournalSync, OnFull, Order, Peers};

use super::{tap::Tap, *};

fn settings(dir: &Path, bytes: u64) -> ForwardSettings {
    ForwardSettings {
        name: "up".to_owned(),
        keys: KeyPattern::parse("v/**").unwrap().into(),
        to: Peers::Named(vec!["cloud/all".to_owned()]),
        dir: dir.join("journal"),
        budget: Budget { bytes, age: None },
        on_full: OnFull::RejectNew,
        lanes: Vec::new(),
        order: Order::OldestFirst,
        rate: None,
        sync: JournalSync::Always,
        period: Duration::from_secs(2),
        timeout: Duration::from_secs(5),
        keep: Duration::from_secs(600),
        prioritize: None,
    }
}

async fn open(dir: &Path, bytes: u64) -> Links {
    let around = Surroundings {
        router: "depot".to_owned(),
        clock: Arc::new(SharedClock::open(dir, [7; 16], 1 << 32).unwrap()),
        acks: Acks::new("depot".to_owned()),
        policies: None,
    };
    let links = BTreeMap::from([("up".to_owned(), settings(dir, bytes))]);
    Links::open(&links, &around).await.unwrap()
}

fn changes(key: &str, len: usize) -> Vec<KeptChange> {
    let id = [1; 16];
    vec![KeptChange::Key(Change {
        key: Key::from(key),
        stamp: Some(Stamp { time: 5 << 32, id }),
        value: Some(Value::bytes("x".repeat(len))),
    })]
}

/// How many are kept, and how many are known to be lost.
fn counts(links: &Links) -> (u64, u64) {
    let status = links.hosts[0].journal.status();
    let kept = status.lanes.iter().map(|lane| lane.records).sum();
    let lost = status.lost.iter().map(|(_, lost)| lost.count).sum();
    (kept, lost)
}

#[tokio::test]
async fn what_is_brought_is_kept_when_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let links = open(dir.path(), 1 << 20).await;
    links.carry(&changes("v/1", 10)).await.unwrap();
    assert_eq!(counts(&links), (1, 0));
    // It is for others.
    links.carry(&changes("w/1", 10)).await.unwrap();
    assert_eq!(counts(&links), (1, 0));
    // What its own rule refuses is known as lost, and told: it need not come again.
    links.carry(&changes("v/1", 2 << 20)).await.unwrap();
    assert_eq!(counts(&links), (1, 1));
    links.close().await;
    let why = links.carry(&changes("v/2", 10)).await.unwrap_err();
    assert!(why.starts_with("link `up`"), "{why}");
}

#[tokio::test]
async fn what_a_broken_journal_does_not_keep_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("journal"), "no directory").unwrap();
    let links = open(dir.path(), 1 << 20).await;
    links.carry(&changes("w/1", 10)).await.unwrap();
    assert!(links.carry(&changes("v/1", 10)).await.is_err());
    links.close().await;
}

#[tokio::test]
async fn what_finds_no_place_in_the_queue_is_not_kept() {
    let keys = KeyPattern::parse("v/**").unwrap();
    // Nobody takes what is in it.
    let tap = Tap::new("up", keys.into(), Acks::new("depot".to_owned()));
    let other = Arc::clone(&tap);
    let first = tokio::spawn(async move { other.carry(&changes("v/1", 65 << 20)).await });
    while tap.queue.len() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(tap.carry(&changes("v/2", 10)).await.is_err());
    // Nor does anybody ever.
    first.abort();
}
