//! What it costs to ask a policy where samples go.
//!
//! The same publisher, keys and shards, placed by the native rule, by a policy that is asked once for
//! each key, and by one that is asked about every sample. After a run the router must say that the
//! policy decided every sample: a fallback would be measured as a fast policy.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use zenoh::Session;

use super::{
    Bench,
    ingest::{Mode, Outcome, measure_and},
    series,
};
use crate::{
    client,
    report::{Report, Row, Target, Unit},
    router::{Kind, Placed, Storages},
};

/// Bytes of a sample.
const SIZE: usize = 64;

/// Measures all contestants in turn, round by round.
pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let placed = [
        (Placed::Natively, Target::None),
        (Placed::ByKey, Target::AtLeast(0.97)),
        (Placed::BySample, Target::AtLeast(0.85)),
    ];
    let kinds = placed.map(|(placed, _)| Kind::Weir(Storages::Sharded(placed)));
    let present = bench.present(kinds.clone(), report);
    let is_present = |kind: &Kind| present.iter().any(|other| other.name() == kind.name());
    let mut outcomes: [Vec<Outcome>; 3] = Default::default();
    for _ in 0..bench.rounds {
        for ((kind, (placed, _)), outcomes) in kinds.iter().zip(placed).zip(&mut outcomes) {
            if !is_present(kind) {
                continue;
            }
            let look = |session: &Session, sent: u64| check_decided(session, placed, sent);
            let outcome = measure_and(bench, kind, SIZE, Mode::Undeclared, look)
                .with_context(|| kind.name())?;
            eprintln!(
                "  {}: {:.1} k/s, router {:.2} us a sample",
                kind.name(),
                outcome.rate / 1e3,
                outcome.router_cpu,
            );
            outcomes.push(outcome);
        }
    }
    let [native, others @ ..] = &outcomes;
    for ((kind, (_, target)), ours) in kinds.iter().zip(placed).skip(1).zip(others) {
        if ours.is_empty() {
            continue;
        }
        let cpu = |outcomes: &[Outcome]| series(outcomes, |outcome| outcome.router_cpu).median();
        report.row(Row {
            name: format!("ingest {SIZE} B, 2 shards: {} / native rule", kind.name()),
            unit: Unit::Rate,
            ours: series(ours, |outcome| outcome.rate),
            yardstick: series(native, |outcome| outcome.rate),
            target,
            notes: format!(
                "CPU a sample: router {:.2} / {:.2} us",
                cpu(ours),
                cpu(native)
            ),
        });
    }
    Ok(())
}

/// The policy, where there is one, has decided every sample.
fn check_decided(session: &Session, placed: Placed, sent: u64) -> Result<()> {
    if placed == Placed::Natively {
        return Ok(());
    }
    let policies = client::statuses(session, "@weir/*/policies/*")?;
    let slot = policies
        .iter()
        .find_map(|policy| policy.pointer("/slots/0"));
    let slot = slot.context("no policy is bound")?;
    let figure = |name: &str| slot.get(name).and_then(Value::as_u64).unwrap_or_default();
    let decided = figure("samples") + figure("remembered");
    ensure!(
        figure("fallbacks") == 0 && figure("native") == 0 && decided >= sent,
        "{sent} samples were sent, and the policy did not decide all: {slot}"
    );
    Ok(())
}
