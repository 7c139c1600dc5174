//! The machine as tables: when, what happens, what is to be done, and where it stands then.

use proptest::prelude::*;

use super::*;

const A: ContentHash = ContentHash([0xA; 32]);
const B: ContentHash = ContentHash([0xB; 32]);
const C: ContentHash = ContentHash([0xC; 32]);

const LIMITS: Limits = Limits {
    probation_calls: 10,
    probation: 100,
    faults_max: 3,
    faults_within: 50,
    rest_min: 1_000,
    rest_max: 3_000,
    trial_calls: 4,
};

/// One line of a table: at, event, effects, state.
type Row<'a> = (u64, Event, &'a [Effect], &'a str);

fn check(verdicts: Verdicts, on_remove: OnRemove, rows: &[Row<'_>]) -> Slot {
    let mut slot = Slot::new(verdicts, on_remove, LIMITS);
    for (line, (now, event, effects, state)) in rows.iter().enumerate() {
        let done = slot.handle(*now, event.clone());
        assert_eq!(done, *effects, "line {line}: {event:?}");
        assert_eq!(slot.state().name(), *state, "line {line}: {event:?}");
    }
    slot
}

fn local(rows: &[Row<'_>]) -> Slot {
    check(Verdicts::Local, OnRemove::Native, rows)
}

use Effect::{Clear, Forget, Load, Serve};
use Event::{Failed, Offered, Ready, Removed, Succeeded, Time};
use Service::{Native, Wait};

const fn refused(content: ContentHash) -> Event {
    Event::Refused(content, String::new())
}

const fn report_refused(content: ContentHash) -> Effect {
    Effect::Report(content, Report::Refused(String::new()))
}

const fn opened(content: ContentHash, until: u64) -> Effect {
    Effect::Report(content, Report::Opened(until))
}

const fn by(content: ContentHash) -> Effect {
    Serve(Service::Revision(content))
}

const fn fault(content: ContentHash) -> Event {
    Failed(content, Blame::Guest)
}

#[test]
fn a_file_serves_on_probation_and_then_for_good() {
    let slot = local(&[
        (0, Offered(A), &[Load(A)], "absent"),
        // The directory is looked at again before it is compiled, and after.
        (1, Offered(A), &[], "absent"),
        (2, Ready(A), &[by(A)], "probation"),
        (3, Offered(A), &[], "probation"),
        // Time alone is no proof, nor are calls alone.
        (200, Time, &[], "probation"),
        (201, Succeeded(A, 9), &[], "probation"),
        (202, Succeeded(A, 1), &[], "serving"),
        (203, Offered(B), &[Load(B)], "serving"),
        (204, Ready(B), &[by(B)], "probation"),
        (205, Succeeded(B, 100), &[], "probation"),
        // The old one is kept until the new one has proved itself.
        (303, Time, &[], "probation"),
        (304, Time, &[Forget(A)], "serving"),
    ]);
    assert_eq!(slot.deadline(), None);
}

#[test]
fn what_is_refused_leaves_the_old_one_serving() {
    local(&[
        (0, Offered(A), &[Load(A)], "absent"),
        (1, Ready(A), &[by(A)], "probation"),
        (200, Succeeded(A, 10), &[], "serving"),
        (201, Offered(B), &[Load(B)], "serving"),
        (202, refused(B), &[report_refused(B)], "serving"),
        // Not again while the file holds it.
        (203, Offered(B), &[], "serving"),
        // The file was put back: it serves already.
        (204, Offered(A), &[Clear], "serving"),
        // And now the file does hold something else than before.
        (205, Offered(B), &[Load(B)], "serving"),
        (206, refused(B), &[report_refused(B)], "serving"),
        (207, Offered(C), &[Clear, Load(C)], "serving"),
        (208, Ready(C), &[by(C)], "probation"),
    ]);
}

#[test]
fn a_file_that_changes_while_it_is_loaded_is_loaded_again() {
    local(&[
        (0, Offered(A), &[Load(A)], "absent"),
        (1, Offered(B), &[Load(B)], "absent"),
        (2, Ready(A), &[Forget(A)], "absent"),
        (3, refused(A), &[], "absent"),
        (4, Ready(B), &[by(B)], "probation"),
        (5, Offered(C), &[Load(C)], "probation"),
        // Back to what serves: what is being loaded is of no use when it comes.
        (6, Offered(B), &[], "probation"),
        (7, Ready(C), &[Forget(C)], "probation"),
        (8, Offered(C), &[Load(C)], "probation"),
        // One that was never proven is nothing to go back to.
        (9, Ready(C), &[by(C), Forget(B)], "probation"),
        // Told too late.
        (10, fault(B), &[], "probation"),
        (11, Succeeded(B, 1_000), &[], "probation"),
    ]);
}

#[test]
fn faults_on_probation_roll_back() {
    local(&[
        (0, Offered(A), &[Load(A)], "absent"),
        (0, Ready(A), &[by(A)], "probation"),
        (200, Succeeded(A, 10), &[], "serving"),
        (201, Offered(B), &[Load(B)], "serving"),
        (202, Ready(B), &[by(B)], "probation"),
        (203, fault(B), &[], "probation"),
        (204, fault(B), &[], "probation"),
        // The host's own trouble is no reason to go back.
        (205, Failed(B, Blame::Host), &[], "probation"),
        // The first two are long ago.
        (255, fault(B), &[], "probation"),
        (256, fault(B), &[], "probation"),
        (
            257,
            fault(B),
            &[by(A), Effect::Report(B, Report::RolledBack(A)), Forget(B)],
            "rolled-back",
        ),
        (258, Offered(B), &[], "rolled-back"),
        (259, fault(B), &[], "rolled-back"),
        // The operator puts the old file back.
        (260, Offered(A), &[Clear], "serving"),
        // Or changes it back during probation: it was proven before.
        (261, Offered(B), &[Load(B)], "serving"),
        (262, Ready(B), &[by(B)], "probation"),
        (263, Offered(A), &[by(A), Forget(B)], "serving"),
    ]);
}

#[test]
fn the_one_rolled_back_to_may_fail_too() {
    local(&[
        (0, Offered(A), &[Load(A)], "absent"),
        (0, Ready(A), &[by(A)], "probation"),
        (200, Succeeded(A, 10), &[], "serving"),
        (201, Offered(B), &[Load(B)], "serving"),
        (202, Ready(B), &[by(B)], "probation"),
        (203, fault(B), &[], "probation"),
        (203, fault(B), &[], "probation"),
        (
            203,
            fault(B),
            &[by(A), Effect::Report(B, Report::RolledBack(A)), Forget(B)],
            "rolled-back",
        ),
        (204, fault(A), &[], "rolled-back"),
        (204, fault(A), &[], "rolled-back"),
        (204, fault(A), &[Serve(Native), opened(A, 1_204)], "open"),
        (1_204, Time, &[by(A)], "half-open"),
        (1_205, Succeeded(A, 4), &[], "rolled-back"),
        (1_206, Offered(B), &[], "rolled-back"),
        (1_207, Offered(C), &[Clear, Load(C)], "rolled-back"),
        (1_208, Ready(C), &[by(C)], "probation"),
        (1_209, fault(C), &[], "probation"),
        (1_209, fault(C), &[], "probation"),
        (
            1_209,
            fault(C),
            &[by(A), Effect::Report(C, Report::RolledBack(A)), Forget(C)],
            "rolled-back",
        ),
    ]);
}

#[test]
fn the_breaker_opens_longer_each_time_up_to_a_limit() {
    let slot = local(&[
        (0, Offered(A), &[Load(A)], "absent"),
        (0, Ready(A), &[by(A)], "probation"),
        (1, fault(A), &[], "probation"),
        (1, fault(A), &[], "probation"),
        // There was nothing before it.
        (1, fault(A), &[Serve(Native), opened(A, 1_001)], "open"),
        (1_000, Time, &[], "open"),
        (1_000, fault(A), &[], "open"),
        (1_001, Time, &[by(A)], "half-open"),
        (1_002, Succeeded(A, 3), &[], "half-open"),
        // On trial one fault is enough.
        (1_003, fault(A), &[Serve(Native), opened(A, 3_003)], "open"),
        (3_003, Time, &[by(A)], "half-open"),
        (3_004, fault(A), &[Serve(Native), opened(A, 6_004)], "open"),
        (6_004, Time, &[by(A)], "half-open"),
        (6_005, fault(A), &[Serve(Native), opened(A, 9_005)], "open"),
        (9_005, Time, &[by(A)], "half-open"),
        (9_006, Succeeded(A, 4), &[Clear], "serving"),
        // And begins anew.
        (9_007, fault(A), &[], "serving"),
        (9_007, Failed(A, Blame::Host), &[], "serving"),
        (9_007, fault(A), &[Serve(Native), opened(A, 10_007)], "open"),
        // A new file does not wait for that.
        (9_008, Offered(B), &[Load(B)], "open"),
        (9_009, Ready(B), &[by(B), Forget(A)], "probation"),
    ]);
    assert_eq!(slot.deadline(), None);
}

#[test]
fn a_removed_file_leaves_the_native_rule() {
    local(&[
        (0, Removed, &[], "absent"),
        (0, Offered(A), &[Load(A)], "absent"),
        (1, Removed, &[], "absent"),
        (2, Ready(A), &[Forget(A)], "absent"),
        (3, Offered(A), &[Load(A)], "absent"),
        (4, Ready(A), &[by(A)], "probation"),
        (200, Succeeded(A, 10), &[], "serving"),
        (201, Offered(B), &[Load(B)], "serving"),
        (202, Ready(B), &[by(B)], "probation"),
        (
            203,
            Removed,
            &[Serve(Native), Forget(B), Forget(A)],
            "absent",
        ),
        (204, Offered(C), &[Load(C)], "absent"),
        (205, refused(C), &[report_refused(C)], "absent"),
        (206, Removed, &[Clear], "absent"),
        (207, Offered(C), &[Load(C)], "absent"),
    ]);
}

#[test]
fn or_what_served_last() {
    check(
        Verdicts::Local,
        OnRemove::Keep,
        &[
            (0, Offered(A), &[Load(A)], "absent"),
            (1, Ready(A), &[by(A)], "probation"),
            (2, Removed, &[], "probation"),
            (200, Succeeded(A, 10), &[], "serving"),
            (201, Offered(B), &[Load(B)], "serving"),
            (202, Removed, &[], "serving"),
            (203, Ready(B), &[Forget(B)], "serving"),
            (204, Offered(A), &[], "serving"),
        ],
    );
}

/// What one replica has met must not change what it answers.
#[test]
fn a_resolver_that_faults_goes_on_and_one_that_cannot_be_asked_waits() {
    check(
        Verdicts::Replicated,
        OnRemove::Native,
        &[
            // Nothing is decided by the native rule because compiling takes a while.
            (0, Offered(A), &[Serve(Wait), Load(A)], "absent"),
            (1, Ready(A), &[by(A)], "serving"),
            (2, fault(A), &[], "serving"),
            (2, fault(A), &[], "serving"),
            (2, fault(A), &[], "serving"),
            (2, fault(A), &[], "serving"),
            (3, Failed(A, Blame::Host), &[], "serving"),
            (3, Failed(A, Blame::Host), &[], "serving"),
            (
                3,
                Failed(A, Blame::Host),
                &[Serve(Wait), opened(A, 1_003)],
                "open",
            ),
            (1_003, Time, &[by(A)], "half-open"),
            (1_004, fault(A), &[], "half-open"),
            (1_005, Succeeded(A, 4), &[Clear], "serving"),
            (1_006, Offered(B), &[Load(B)], "serving"),
            (1_007, Ready(B), &[by(B), Forget(A)], "serving"),
            (1_008, fault(B), &[], "serving"),
            (1_008, fault(B), &[], "serving"),
            (1_008, fault(B), &[], "serving"),
            (1_009, Removed, &[Serve(Native), Forget(B)], "absent"),
            // Refused, it is as if there were none.
            (1_010, Offered(C), &[Serve(Wait), Load(C)], "absent"),
            (
                1_011,
                refused(C),
                &[Serve(Native), report_refused(C)],
                "absent",
            ),
        ],
    );
}

#[test]
fn a_revision_is_of_content_and_settings() {
    let revisions = [
        A.resolver_revision("{}"),
        A.resolver_revision("{\"field\":1}"),
        B.resolver_revision("{}"),
    ];
    assert!(revisions[0] != revisions[1] && revisions[0] != revisions[2]);
    assert_eq!(A.resolver_revision("{}"), revisions[0]);
    assert!(A.to_string().starts_with("0a0a") && A.to_string().len() == 64);
}

fn event() -> impl Strategy<Value = Event> {
    let content = prop_oneof![Just(A), Just(B), Just(C)];
    let blame = prop_oneof![4 => Just(Blame::Guest), 1 => Just(Blame::Host)];
    prop_oneof![
        3 => content.clone().prop_map(Offered),
        1 => Just(Removed),
        3 => content.clone().prop_map(Ready),
        1 => content.clone().prop_map(refused),
        4 => (content.clone(), 1u64..12).prop_map(|(content, calls)| Succeeded(content, calls)),
        6 => (content, blame).prop_map(|(content, blame)| Failed(content, blame)),
        3 => Just(Time),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    /// Whatever happens: what serves was loaded and not forgotten, every code that was loaded and is
    /// neither serving nor kept is forgotten once, a change of service is always told, and where
    /// verdicts are replicated faults of the guest change nothing.
    #[test]
    fn nothing_serves_that_was_forgotten(
        replicated: bool,
        keep: bool,
        events in proptest::collection::vec((0u64..120, event()), 1..80),
    ) {
        let verdicts = if replicated { Verdicts::Replicated } else { Verdicts::Local };
        let on_remove = if keep { OnRemove::Keep } else { OnRemove::Native };
        let mut slot = Slot::new(verdicts, on_remove, LIMITS);
        let (mut now, mut service) = (0, slot.service());
        let mut asked = Vec::new();
        let mut compiled = Vec::new();
        for (pass, event) in events {
            now += pass;
            // Only what was asked for is answered, and once.
            if let Ready(content) | Event::Refused(content, _) = event {
                let Some(at) = asked.iter().position(|asked| *asked == content) else { continue };
                asked.swap_remove(at);
            }
            if let Ready(content) = event
                && !compiled.contains(&content)
            {
                compiled.push(content);
            }
            let before = slot.state();
            let effects = slot.handle(now, event.clone());
            if replicated && matches!(event, Failed(_, Blame::Guest)) {
                prop_assert_eq!(before, slot.state());
            }
            for effect in &effects {
                match effect {
                    Load(content) => asked.push(*content),
                    Serve(next) => service = *next,
                    Forget(content) => {
                        prop_assert!(compiled.contains(content), "{content:?} was not there");
                        compiled.retain(|held| held != content);
                    }
                    Effect::Report(..) | Clear => {}
                }
            }
            prop_assert_eq!(service, slot.service());
            if let Service::Revision(content) = service {
                prop_assert!(compiled.contains(&content), "{content:?} serves and was forgotten");
            }
            let used: Vec<_> = slot.revision().into_iter().chain(slot.good).collect();
            compiled.sort_unstable();
            let mut expected = used.clone();
            expected.sort_unstable();
            prop_assert_eq!(&compiled, &expected);
            prop_assert!(slot.bad.is_none() || slot.bad != slot.loading);
        }
    }
}
