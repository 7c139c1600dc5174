//! A thousand swaps under load: nothing is lost, nothing is decided twice, nothing piles up.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "registry/fleet.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod fleet;
#[path = "host/guest.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod guest;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use fleet::{Fleet, NATIVE, answers, ask};

/// Memory of this process that is in use, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn a_thousand_swaps_lose_nothing_and_keep_nothing() {
    const SWAPS: u64 = 1_000;
    const BATCH: usize = 256;
    let fleet = Fleet::new();
    let mut slot = fleet.bind("geo");
    // Two modules in turn, so that both come from the cache: what is measured is the swap.
    let modules = [answers(1).wasm(), answers(2).wasm()];
    let hashes = [0, 1].map(|n: usize| blake3::hash(&modules[n]).to_string());
    fleet.drop_in("geo.wasm", &modules[0]);
    fleet.wait_for_verdict(&mut slot, 1);
    let before = fleet.slot("geo");
    let stop = Arc::new(AtomicBool::new(false));
    let asking = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let (mut decided, mut turns, mut last) = ([0u64; 2], 0u64, 1);
            let mut slowest = Duration::ZERO;
            while !stop.load(Relaxed) {
                let began = Instant::now();
                let by = ask(&mut slot, BATCH);
                slowest = slowest.max(began.elapsed());
                assert!(by != NATIVE, "a batch fell between two revisions");
                decided[usize::try_from(by - 1).unwrap()] += BATCH as u64;
                turns += u64::from(by != last);
                last = by;
            }
            (decided, turns, slowest, slot)
        })
    };
    let mut memory = Vec::new();
    let began = Instant::now();
    for swap in 1..=SWAPS {
        let next = usize::try_from(swap % 2).unwrap();
        fleet.drop_in("geo.wasm", &modules[next]);
        let is_next = |status: &weir_policy::status::PolicyStatus| {
            status.slots[0].revision.as_ref() == Some(&hashes[next])
        };
        fleet.wait("geo", is_next);
        if swap % 100 == 0 {
            memory.push(resident() >> 20);
        }
    }
    let each = began.elapsed() / u32::try_from(SWAPS).unwrap();
    stop.store(true, Relaxed);
    let (decided, turns, slowest, slot) = asking.join().unwrap();
    println!("{each:?} a swap; {decided:?} samples; slowest batch {slowest:?}; {memory:?} MiB");
    let found = fleet.slot("geo");
    assert_eq!(found.samples - before.samples, decided[0] + decided[1]);
    assert_eq!((found.fallbacks, found.native), (0, before.native));
    assert_eq!(found.swaps, SWAPS + 1);
    // A batch takes microseconds, a swap milliseconds: most revisions have decided something before the
    // next came, even where this thread got half of a core.
    assert!(turns > SWAPS / 2, "{turns}");
    // Half of the swaps later there is not a tenth more.
    let (early, late) = (memory[memory.len() / 2], memory[memory.len() - 1]);
    assert!(late <= early + early / 10, "{memory:?} MiB");
    drop(slot);
}
