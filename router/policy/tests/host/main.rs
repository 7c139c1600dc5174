//! The host against real guests: each test loads modules, runs them, and looks at what came of it.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers fail with the test, and say where"
)]

mod answers;
mod budgets;
mod faults;
mod guest;
mod loading;
mod resolving;
mod support;

/// Workers own instances, and everybody shares the rest.
#[test]
fn what_is_shared_can_be() {
    fn sent<T: Send>() {}
    fn shared<T: Send + Sync>() {}
    sent::<weir_policy::RouteInstance>();
    sent::<weir_policy::PrioritizeInstance>();
    shared::<weir_policy::Resolver>();
    shared::<weir_policy::Revision>();
    shared::<weir_policy::Host>();
    shared::<weir_policy::Stats>();
}
