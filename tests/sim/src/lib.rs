//! A seeded simulation of several replicas of a storage: the core that ships, over stores that fail,
//! fed by gateways with bad clocks through a network that delays, reorders and repeats.
//!
//! A seed makes a [`Scenario`], a list of steps; [`run`] plays it. The same seed gives the same trace.
//! In it every change reaches every replica in the end, by itself. Replicas that repair each other have
//! histories of their own ([`mirroring`]), as have those under a resolver ([`resolving`]), and edges that
//! forward to upstreams ([`forwarding`]).

mod coverage;
mod disk;
pub mod forwarding;
pub mod mirroring;
pub mod resolving;
pub mod scenario;
pub mod world;

pub use scenario::{Scenario, Step};
pub use world::{Coverage, Outcome, run};

/// Plays the scenario of a seed; on a failure says what failed, and the fewest steps that still do.
///
/// # Errors
/// What was violated, with the shrunk scenario and the command that replays it.
pub fn check(seed: u64) -> Result<Outcome, String> {
    let scenario = Scenario::new(seed);
    run(&scenario).map_err(|violation| {
        let (steps, violation) = shrink(&scenario, violation, |scenario| &mut scenario.steps, run);
        let mut report = format!("seed {seed}: {violation}\nreplay: make sim SEED={seed}\n");
        report.push_str(&format!(
            "{} replicas, {:?}, steps:\n",
            steps.replicas, steps.history
        ));
        for step in &steps.steps {
            report.push_str(&format!("  {step:?}\n"));
        }
        report
    })
}

/// Leaves out steps while it still fails.
fn shrink<S: Clone, T, O>(
    scenario: &S,
    violation: String,
    steps: impl Fn(&mut S) -> &mut Vec<T>,
    run: impl Fn(&S) -> Result<O, String>,
) -> (S, String) {
    let mut best = (scenario.clone(), violation);
    let mut part = steps(&mut best.0).len().div_ceil(2);
    while part > 0 {
        let mut at = 0;
        while at < steps(&mut best.0).len() {
            let mut fewer = best.0.clone();
            let left = steps(&mut fewer);
            let end = (at + part).min(left.len());
            left.drain(at..end);
            match run(&fewer) {
                Err(violation) => best = (fewer, violation),
                Ok(_) => at += part,
            }
        }
        part /= 2;
    }
    best
}
