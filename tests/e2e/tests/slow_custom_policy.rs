//! The example that takes an author from nothing to a running router.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::{net::TcpListener, process::Command};

#[test]
fn the_example_walks_from_a_new_policy_to_one_that_serves() {
    // Free again at the end of the statement.
    let address = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr();
    let port = address.unwrap().port();
    let walk = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../examples/custom-policy/walk"
    );
    let mut command = Command::new(walk);
    command.arg(port.to_string());
    command.env("WEIR_BIN", weir_e2e::cli::command().get_program());
    let done = command.output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    let errors = String::from_utf8_lossy(&done.stderr);
    if errors.contains("cannot build Rust guests") {
        return weir_e2e::skip(&format!("no guest can be built here: {errors}"));
    }
    assert!(done.status.success(), "{said}\n{errors}");
    for expected in [
        " 2 passed, 0 failed",
        "\"value\":\"frame-2\"",
        "my-policy.wasm is refused: invalid: ",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!said.contains("\"value\":\"frame-1\""), "each once: {said}");
    assert!(said.ends_with("done\n"), "{said}");
}
