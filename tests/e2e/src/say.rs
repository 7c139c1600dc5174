//! What a person has to see whether the test passes or not: that it was skipped, its seed.

use std::{fs::File, io::Write, thread};

/// Writes a line past the test runner, which holds back what a passing test prints.
pub fn say(line: &str) {
    // Nobody is left to tell if standard error is closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Says that this test cannot run here, and why. `tests/tools/run-tests` then counts it as skipped:
/// to the test harness it has passed.
///
/// # Panics
/// If the runner's file of skipped tests cannot be written.
pub fn skip(reason: &str) {
    // The harness gives the thread of a test the test's name.
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    say(&format!("SKIPPED: {test}: {reason}"));
    if let Some(path) = std::env::var_os("WEIR_SKIPPED") {
        let mut skipped = File::options().append(true).open(path).unwrap();
        writeln!(skipped, "{test}\t{reason}").unwrap();
    }
}
