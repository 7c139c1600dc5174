//! What serves while files come, change and go.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use weir_core::{
    backlog::{ByPriority, LinkState, Placement, Prioritize, Verdict},
    placement::Destination,
    slot::OnRemove,
};

use crate::{
    fleet::{Fleet, NATIVE, PATIENCE, answers, ask, samples, settings},
    guest::Guest,
};
use weir_core::placement::Route;

#[test]
fn a_file_serves_when_it_is_dropped_and_no_more_when_it_is_removed() {
    let fleet = Fleet::new();
    let mut slot = fleet.bind("geo");
    assert!(fleet.policies.wait_until_loaded(PATIENCE));
    assert_eq!(ask(&mut slot, 5), NATIVE);
    let status = fleet.status("geo");
    assert_eq!(status.warning.as_deref(), Some("geo.wasm is not there"));
    assert_eq!(
        (status.slots[0].state.as_str(), status.slots[0].native),
        ("absent", 5)
    );

    fleet.drop_in("geo.wasm", answers(1).wasm());
    println!(
        "first verdict after {:?}",
        fleet.wait_for_verdict(&mut slot, 1)
    );
    let status = fleet.status("geo");
    let (file, found) = (status.file.unwrap(), &status.slots[0]);
    assert_eq!(file.state, "ready");
    assert_eq!(file.hooks, ["route"]);
    assert_eq!(found.revision, file.hash);
    assert_eq!(
        (found.state.as_str(), found.service.as_str()),
        ("probation", "policy")
    );
    assert_eq!(
        (found.module.as_deref(), found.version.as_deref()),
        (Some("test"), Some("1.2.3"))
    );
    assert_eq!((found.calls, found.samples, status.warning), (1, 3, None));

    fleet.drop_in("geo.wasm", answers(2).wasm());
    println!("a swap takes {:?}", fleet.wait_for_verdict(&mut slot, 2));
    fleet.drop_in("geo.wasm", answers(1).wasm());
    println!(
        "a swap from the cache takes {:?}",
        fleet.wait_for_verdict(&mut slot, 1)
    );
    fs::remove_file(fleet.at("geo.wasm")).unwrap();
    fleet.wait_for_verdict(&mut slot, NATIVE);
    // Counts are kept over revisions: one call each of 1, 2 and 1 again at the least.
    let found = fleet.slot("geo");
    assert_eq!((found.state.as_str(), &found.revision), ("absent", &None));
    assert!(
        found.calls >= 3 && found.samples == 3 * found.calls && found.swaps == 3,
        "{found:?}"
    );
    drop(slot);
    crate::fleet::wait(|| match &fleet.policies.status()[..] {
        [] => Ok(()),
        left => Err(format!("{left:?}")),
    });
}

#[test]
fn a_removed_file_may_go_on_serving() {
    let fleet = Fleet::with(|settings| settings.on_remove = OnRemove::Keep);
    let mut slot = fleet.bind("geo");
    fleet.drop_in("geo.wasm", answers(1).wasm());
    fleet.wait_for_verdict(&mut slot, 1);
    fs::remove_file(fleet.at("geo.wasm")).unwrap();
    fleet.wait("geo", |status| status.file.is_none());
    assert_eq!(ask(&mut slot, 3), 1);
    fleet.drop_in("geo.wasm", answers(2).wasm());
    fleet.wait_for_verdict(&mut slot, 2);
}

#[test]
fn what_is_there_at_the_start_serves_the_first_sample() {
    let root = tempfile::TempDir::new().unwrap();
    fs::create_dir_all(root.path().join("policies")).unwrap();
    fs::write(
        settings(&root).directory.dir.join("geo.wasm"),
        answers(1).wasm(),
    )
    .unwrap();
    let fleet = Fleet::over(root, |_| {});
    let mut slot = fleet.bind("geo");
    assert!(fleet.policies.wait_until_loaded(PATIENCE));
    assert_eq!(ask(&mut slot, 3), 1);
}

#[test]
fn a_directory_that_vanishes_leaves_what_serves() {
    let fleet = Fleet::new();
    let mut slot = fleet.bind("geo");
    fleet.drop_in("geo.wasm", answers(1).wasm());
    fleet.wait_for_verdict(&mut slot, 1);
    fs::rename(fleet.at(""), fleet.root.path().join("away")).unwrap();
    crate::fleet::wait(|| match fleet.policies.directory().unwrap().error {
        Some(_) => Ok(()),
        None => Err("it is still there".into()),
    });
    assert_eq!(ask(&mut slot, 3), 1);
    fs::create_dir(fleet.at("")).unwrap();
    fleet.drop_in("geo.wasm", answers(2).wasm());
    fleet.wait_for_verdict(&mut slot, 2);
    assert_eq!(fleet.policies.directory().unwrap().error, None);
}

#[test]
fn a_default_is_what_the_native_rule_says() {
    let fleet = Fleet::new();
    let mut slot = fleet.bind("geo");
    // Shard 1 for every other sample, the default for the rest.
    let body = "(if (i32.and (i32.const 1) (local.get $i))
          (then (i32.store8 (local.get $answer) (i32.const 2))
                (i32.store (i32.add (local.get $answer) (i32.const 8)) (i32.const 1))))";
    fleet.drop_in("geo.wasm", Guest::router_each(body).wasm());
    fleet.wait("geo", |status| status.slots[0].service == "policy");
    let mut destinations = Vec::new();
    slot.route(&samples(4), &mut destinations);
    let (native, first) = (Destination::Token(NATIVE), Destination::Shard(1));
    assert_eq!(destinations, [native.clone(), first.clone(), native, first]);
}

#[test]
fn every_sample_is_decided_once_by_one_revision_while_files_are_swapped() {
    const SWAPS: u64 = 100;
    let fleet = Fleet::new();
    let mut slot = fleet.bind("geo");
    fleet.drop_in("geo.wasm", answers(1).wasm());
    fleet.wait_for_verdict(&mut slot, 1);
    let before = fleet.slot("geo");
    let stop = Arc::new(AtomicBool::new(false));
    let asking = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            // Samples by the revision that has decided them; `ask` checks that a batch has one.
            let mut decided: BTreeMap<u64, u64> = BTreeMap::new();
            while !stop.load(Relaxed) {
                for count in [1, 64, 256] {
                    *decided.entry(ask(&mut slot, count)).or_default() += count as u64;
                }
            }
            (decided, slot)
        })
    };
    for version in 2..=SWAPS {
        fleet.drop_in("geo.wasm", answers(version).wasm());
        let hash = blake3::hash(&answers(version).wasm()).to_string();
        fleet.wait("geo", |status| {
            status.slots[0].revision.as_ref() == Some(&hash)
        });
    }
    stop.store(true, Relaxed);
    let (decided, mut slot) = asking.join().unwrap();
    assert_eq!(ask(&mut slot, 1), SWAPS);
    assert!(
        !decided.contains_key(&NATIVE),
        "nothing fell between two revisions"
    );
    println!("{} revisions decided something", decided.len());
    let total: u64 = decided.values().sum::<u64>() + 1;
    let found = fleet.slot("geo");
    assert_eq!(
        found.samples - before.samples,
        total,
        "each was asked about once"
    );
    assert_eq!((found.native, found.fallbacks), (before.native, 0));
    assert_eq!(found.swaps, SWAPS);
}

/// A link of which nothing waits.
const LINK: LinkState<'_> = LinkState {
    name: "cloud",
    now: 1,
    queued: 0,
    queued_bytes: 0,
    capacity_bytes: 1,
};

#[test]
fn a_backlog_is_ordered_by_the_policy_or_by_priority() {
    let fleet = Fleet::new();
    let mut slot = fleet
        .policies
        .bind_prioritize("cloud", "alarms", "", Box::new(ByPriority));
    let mut ask = move || {
        let mut verdicts = Vec::new();
        slot.prioritize(LINK, &samples(1), &mut verdicts);
        match verdicts[..] {
            [Verdict::Place(Placement { lane, .. })] => lane,
            _ => panic!("{verdicts:?}"),
        }
    };
    assert_eq!(ask(), 5);
    let body = "(i32.store8 (local.get $answer) (i32.const 1))
        (i32.store8 (i32.add (local.get $answer) (i32.const 8)) (i32.const 2))";
    fleet.drop_in("alarms.wasm", Guest::prioritizer_each(body).wasm());
    fleet.wait("alarms", |status| status.slots[0].service == "policy");
    assert_eq!(ask(), 2);
    assert_eq!(fleet.slot("alarms").owner, "forward/cloud");
}

#[test]
fn what_a_policy_leaves_open_the_link_decides() {
    let fleet = Fleet::new();
    let body = "(i32.store8 (local.get $answer)
          (i32.and (i32.const 1) (local.get $i)))
        (i32.store8 (i32.add (local.get $answer) (i32.const 8)) (i32.const 2))";
    fleet.drop_in("odd.wasm", Guest::prioritizer_each(body).wasm());
    let mut slot = fleet
        .policies
        .bind_prioritize("cloud", "odd", "", Box::new(ByPriority));
    fleet.wait("odd", |status| status.slots[0].service == "policy");
    let lanes = |verdicts: &[Verdict]| -> Vec<u8> {
        let lane = |verdict: &Verdict| match verdict {
            Verdict::Place(placement) => placement.lane,
            other => panic!("{other:?}"),
        };
        verdicts.iter().map(lane).collect()
    };
    // Behind what is there already.
    let mut verdicts = vec![Verdict::Drop(7)];
    slot.prioritize(LINK, &samples(5), &mut verdicts);
    assert_eq!(verdicts[0], Verdict::Drop(7));
    assert_eq!(lanes(&verdicts[1..]), [5, 2, 5, 2, 5]);
}

/// Who decides is told by a number, so that what waits is decided again by another; what fails, or may come
/// back by itself, decides nothing again.
#[test]
fn who_decides_is_known_and_what_fails_decides_nothing_again() {
    let fleet = Fleet::new();
    let mut slot = fleet
        .policies
        .bind_prioritize("cloud", "alarms", "", Box::new(ByPriority));
    let mut again = move || {
        let mut verdicts = Vec::new();
        let who = slot.revision();
        let is_decided = slot.decide_again(LINK, &samples(1), &mut verdicts);
        let lane = match verdicts[..] {
            [Verdict::Place(Placement { lane, .. })] if is_decided => Some(lane),
            _ if is_decided => panic!("{verdicts:?}"),
            _ => None,
        };
        (who, lane)
    };
    // What will serve is still to be found.
    assert_eq!(again(), (None, None));
    let body = "(i32.store8 (local.get $answer) (i32.const 1))
        (i32.store8 (i32.add (local.get $answer) (i32.const 8)) (i32.const 2))";
    fleet.drop_in("alarms.wasm", Guest::prioritizer_each(body).wasm());
    fleet.wait("alarms", |status| status.slots[0].swaps == 1);
    let (good, lane) = again();
    assert!(good.is_some_and(|good| good != 0), "{good:?}");
    assert_eq!(lane, Some(2));
    fleet.drop_in(
        "alarms.wasm",
        Guest::prioritizer_each("(unreachable)").wasm(),
    );
    fleet.wait("alarms", |status| status.slots[0].swaps == 2);
    let (bad, lane) = again();
    assert!(bad.is_some() && bad != good, "{bad:?}");
    assert_eq!(lane, None);
    fs::remove_file(fleet.at("alarms.wasm")).unwrap();
    fleet.wait("alarms", |status| status.slots[0].state == "absent");
    // It was there, and is gone: the link's own rule decides for good.
    assert_eq!(again(), (Some(0), Some(5)));
}
