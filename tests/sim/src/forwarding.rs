//! Store-and-forward: edges that hear samples of which the upstreams miss some, over a network that
//! loses, repeats, reorders and parts, with journals that lose what was not synced, upstreams that die,
//! come back from a backup or empty; and all the same every upstream ends with everything that was not
//! given up by rule, and nothing was certified that it did not have.
//!
//! The links, the answers, and the upstreams' admission and ledgers are the core that ships.

#[cfg(test)]
mod costs;
mod journal;
mod network;
mod reached;
mod scenario;
mod upstream;
mod world;

pub use reached::{Outcome, Reached};
pub use scenario::{Edge, Packet, Scenario, Step, Taken, Upstream};
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
        let mut report = format!("forwarding, seed {seed}: {violation}\n");
        report.push_str(&format!("replay: make sim SEED={seed}\n"));
        for (index, edge) in fewest.edges.iter().enumerate() {
            report.push_str(&format!("  edge {index}: {edge:?}\n"));
        }
        for (index, upstream) in fewest.upstreams.iter().enumerate() {
            report.push_str(&format!("  upstream {index}: {upstream:?}\n"));
        }
        for step in &fewest.steps {
            report.push_str(&format!("  {step:?}\n"));
        }
        report
    })
}
