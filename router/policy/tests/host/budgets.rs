//! CPU time is what a batch may use: a thread that does not run uses none.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use tracing::{Event, Metadata, Subscriber, span};
use weir_policy::{Cause, Limits};

use crate::{
    guest::Guest,
    support::{host_with, route, router},
};

/// Takes its time with every line, without using the CPU: what a descheduled thread looks like to the
/// budget, only certain to happen.
struct Slow {
    pause: Duration,
    lines: Arc<AtomicUsize>,
}

impl Subscriber for Slow {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "weir::policy"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &Event<'_>) {
        self.lines.fetch_add(1, SeqCst);
        thread::sleep(self.pause);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn limits(batch_cpu_max: Duration) -> Limits {
    Limits {
        batch_cpu_max,
        ..Limits::default()
    }
}

#[test]
fn a_call_that_waits_for_the_cpu_is_not_cut() {
    // Logs once, and then works for a while, so that the deadline is met with most of the time slept.
    let guest = Guest::router_each(
        "(local $n i32)
        (call $log (i32.const 2) (i32.const 1024) (i32.const 16))
        (local.set $n (i32.const 2000000))
        (loop $l (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))",
    );
    // `local` declarations have to come first in a function.
    let route_body = guest.route.clone().unwrap().replace("(local $n i32)", "");
    let guest = Guest {
        route: Some(format!("(local $n i32) {route_body}")),
        ..guest
    };
    let host = host_with(limits(Duration::from_millis(100)));
    let mut instance = router(&host, &guest).unwrap();
    let lines = Arc::new(AtomicUsize::new(0));
    let slow = Slow {
        pause: Duration::from_millis(300),
        lines: Arc::clone(&lines),
    };
    let start = Instant::now();
    tracing::subscriber::with_default(slow, || {
        let (_, result) = route(&mut instance, 1);
        assert_eq!(result, Ok(()));
    });
    assert_eq!(lines.load(SeqCst), 1);
    assert!(start.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_call_on_a_busy_machine_is_not_cut_and_a_runaway_one_is() {
    // It answers nothing, which is wrong too; but it has to get there.
    let works = Guest::router(
        "(local $n i32)
        (local.set $n (i32.const 10000000))
        (loop $l (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
        (call $list (i32.const 2048) (i32.const 0))",
    );
    // What it takes on this machine, before anything else runs; three times that is allowed below.
    let mut alone = router(&host_with(limits(Duration::from_secs(10))), &works).unwrap();
    let before = alone.stats().statistics().cpu;
    assert_eq!(route(&mut alone, 1).1.unwrap_err().cause, Cause::Length);
    let budget = 3 * (alone.stats().statistics().cpu - before);

    // Eight threads for each core, so that a call waits for the CPU longer than its budget.
    let stop = Arc::new(AtomicUsize::new(0));
    let cores = thread::available_parallelism().unwrap().get();
    let burners: Vec<_> = (0..8 * cores)
        .map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || while stop.load(SeqCst) == 0 {})
        })
        .collect();
    let host = host_with(limits(budget));
    let mut works = router(&host, &works).unwrap();
    let mut longest = Duration::ZERO;
    let mut faults = Vec::new();
    // When a call has to wait is the scheduler's to say: until one has waited longer than its budget.
    for call in 0.. {
        assert!(call < 10_000, "no call waited longer than {budget:?}");
        let start = Instant::now();
        faults.extend(route(&mut works, 1).1.err());
        longest = longest.max(start.elapsed());
        if call >= 20 && longest > budget {
            break;
        }
    }
    let mut loops = router(&host, &Guest::router("(loop $l (br $l)) (unreachable)")).unwrap();
    let before = loops.stats().statistics().cpu;
    let cut = route(&mut loops, 1).1.unwrap_err();
    let used = loops.stats().statistics().cpu - before;
    stop.store(1, SeqCst);
    burners
        .into_iter()
        .for_each(|burner| burner.join().unwrap());

    for fault in faults {
        assert_eq!(fault.cause, Cause::Length, "{fault}");
    }
    assert_eq!(cut.cause, Cause::Timeout);
    let late = used.checked_sub(budget).expect("it was cut early");
    assert!(
        late < Duration::from_millis(100),
        "cut {late:?} of CPU time after {budget:?}"
    );
}
