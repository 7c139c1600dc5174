//! Mirrored replicas: histories in which changes reach some and not others, the network between them
//! loses, repeats, reorders and parts, stores fail, die and come back from a backup; and all the same
//! everybody ends with everything.
//!
//! Each replica is the core that ships over a store of its own: admission, ledger, reconciliation.

mod reached;
mod replica;
mod scenario;
mod world;

pub use reached::{Outcome, Reached};
pub use scenario::{Member, Packet, Scenario, Step};
pub use world::run;

/// Plays the history of a seed; on a failure says what failed, and the fewest steps that still do.
///
/// # Errors
/// What was violated, with the shrunk history and the command that replays it.
pub fn check(seed: u64) -> Result<Outcome, String> {
    let scenario = Scenario::new(seed);
    run(&scenario).map_err(|violation| {
        let (fewest, violation) =
            crate::shrink(&scenario, violation, |scenario| &mut scenario.steps, run);
        let mut report = format!("mirroring, seed {seed}: {violation}\n");
        report.push_str(&format!("replay: make sim SEED={seed}\n"));
        for (index, member) in fewest.members.iter().enumerate() {
            report.push_str(&format!("  replica {index}: {member:?}\n"));
        }
        for step in &fewest.steps {
            report.push_str(&format!("  {step:?}\n"));
        }
        report
    })
}
