//! Mirrored replicas: histories in which changes reach some and not others, the network between them
//! loses, repeats, reorders and parts, stores fail, die and come back from a backup; and all the same
//! everybody ends with everything.
//!
//! Each replica is the core that ships over a store of its own: admission, ledger, reconciliation.

mod contending;
mod reached;
mod replica;
mod scenario;
mod world;

pub use contending::{Contended, Contention, Policy, RuleOf, Seated};
pub use reached::{Outcome, Reached};
pub use scenario::{Member, Packet, Scenario, Step};
pub use world::run;

/// Plays the history of a seed; on a failure says what failed, and the fewest steps that still do.
///
/// # Errors
/// What was violated, with the shrunk history and the command that replays it.
pub fn check(seed: u64) -> Result<Outcome, String> {
    play("mirroring", seed, &Scenario::new(seed))
}

/// As [`check`], of replicas that tell nothing of their stores.
///
/// # Errors
/// As [`check`].
pub fn check_without_ids(seed: u64) -> Result<Outcome, String> {
    play("mirroring without ids", seed, &Scenario::without_ids(seed))
}

/// As [`check`], of replicas whose conflicts a policy resolves.
///
/// # Errors
/// As [`check`].
pub fn check_contending(seed: u64) -> Result<Outcome, String> {
    play("contending", seed, &Scenario::contending(seed))
}

fn play(kind: &str, seed: u64, scenario: &Scenario) -> Result<Outcome, String> {
    run(scenario).map_err(|violation| {
        let (fewest, violation) =
            crate::shrink(scenario, violation, |scenario| &mut scenario.steps, run);
        let mut report = format!("{kind}, seed {seed}: {violation}\n");
        report.push_str(&format!("replay: make sim SEED={seed}\n"));
        if let Some(contention) = &fewest.contention {
            report.push_str(&format!("  {contention:?}\n"));
        }
        for (index, member) in fewest.members.iter().enumerate() {
            report.push_str(&format!("  replica {index}: {member:?}\n"));
        }
        for step in &fewest.steps {
            report.push_str(&format!("  {step:?}\n"));
        }
        report
    })
}
