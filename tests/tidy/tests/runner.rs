//! The test runner, on logs of real test runs.
//!
//! If `tests/tools/run-tests` counted wrongly, every other test could fail unseen.

use std::{path::Path, process::Command};

/// The exit code, and the lines that the runner closes with: what failed, and the sum.
fn run(steps: &[&str]) -> (Option<i32>, Vec<String>) {
    run_with(steps, &[])
}

fn run_with(steps: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, Vec<String>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let done = Command::new(folder.join("../tools/run-tests"))
        .args(steps)
        .envs(environment.iter().copied())
        .current_dir(folder.join("fixtures"))
        .output()
        .expect("the test runner starts");
    let text = String::from_utf8(done.stdout).expect("its output is UTF-8");
    let is_closing = |line: &&str| {
        line.starts_with("failed: ") || line.starts_with("skipped: ") || line.contains(" passed, ")
    };
    (
        done.status.code(),
        text.lines().filter(is_closing).map(str::to_owned).collect(),
    )
}

#[track_caller]
fn check(steps: &[&str], code: i32, closing: &[&str]) {
    let (found_code, found) = run(steps);
    assert_eq!(found, closing, "{steps:?}");
    assert_eq!(found_code, Some(code), "{steps:?}");
}

#[test]
fn sums_up_all_that_passed() {
    check(&["a: cat ok.log"], 0, &["3 passed, 0 failed, 1 skipped"]);
    check(
        &["a: cat ok.log", "b: true", "c: cat ok.log"],
        0,
        &["6 passed, 0 failed, 2 skipped"],
    );
}

#[test]
fn a_failed_test_and_a_dead_binary_fail_the_run() {
    check(
        &["a: cat crash.log; exit 101", "b: cat ok.log"],
        1,
        &[
            "failed: tests/crash.rs: died before its summary, 2 of 4 tests not passed",
            "failed: tests/wrong.rs: is_wrong",
            "9 passed, 3 failed, 2 skipped",
        ],
    );
}

#[test]
fn a_binary_that_dies_last_or_after_all_its_tests_is_noticed() {
    let header = "     Running tests/a.rs (x)";
    let last = format!("a: printf '{header}\\nrunning 2 tests\\ntest a ... ok\\n'");
    let died = "failed: tests/a.rs: died before its summary, 1 of 2 tests not passed";
    check(&[&last], 1, &[died, "1 passed, 1 failed, 0 skipped"]);
    let done = format!("a: printf '{header}\\nrunning 1 test\\ntest a ... ok\\n'");
    let died = "failed: tests/a.rs: died before its summary, 1 of 1 tests not passed";
    check(&[&done], 1, &[died, "0 passed, 1 failed, 0 skipped"]);
}

#[test]
fn a_step_without_tests_fails_as_one() {
    check(
        &[
            "clippy: exit 101",
            "tests: cat compile.log; exit 101",
            "other: cat ok.log",
        ],
        1,
        &[
            "failed: clippy: exit code 101 without a failed test",
            "failed: tests: exit code 101 without a failed test",
            "3 passed, 2 failed, 1 skipped",
        ],
    );
}

#[test]
fn the_harness_is_believed_even_if_the_step_says_ok() {
    let closing = [
        "failed: tests/crash.rs: died before its summary, 2 of 4 tests not passed",
        "failed: tests/wrong.rs: is_wrong",
        "6 passed, 3 failed, 1 skipped",
    ];
    check(&["a: cat crash.log"], 1, &closing);
}

#[test]
fn a_run_without_a_test_has_failed() {
    check(
        &["a: true"],
        1,
        &["failed: no test ran", "0 passed, 1 failed, 0 skipped"],
    );
}

#[test]
fn colours_do_not_hide_a_failure() {
    let line =
        r"a: printf 'test result: \033[31mFAILED\033[0m. 1 passed; 2 failed; 0 ignored; 0\n'";
    check(&[line], 1, &["1 passed, 2 failed, 0 skipped"]);
}

#[test]
fn a_test_that_could_not_run_is_skipped_and_says_why() {
    let say = r#"a: cat ok.log; printf 'flight_log\tno real data here\n' >>"$WEIR_SKIPPED""#;
    check(
        &[say],
        0,
        &[
            "skipped: flight_log: no real data here",
            "2 passed, 0 failed, 2 skipped",
        ],
    );
}

#[test]
fn a_step_that_hangs_is_ended() {
    let (code, closing) = run_with(
        &["a: cat ok.log; sleep 600"],
        &[("WEIR_TEST_SILENCE_MAX_S", "0.5")],
    );
    assert_eq!(
        closing,
        [
            "failed: a: printed nothing for 0.5 s and was ended",
            "3 passed, 1 failed, 1 skipped"
        ]
    );
    assert_eq!(code, Some(1));
}

#[test]
fn an_interrupted_run_says_how_far_it_came() {
    let interrupt = "b: cat ok.log; kill -TERM $PPID; sleep 600";
    let closing = [
        "failed: b: interrupted",
        "failed: c: not run, interrupted",
        "6 passed, 2 failed, 2 skipped",
    ];
    check(&["a: cat ok.log", interrupt, "c: cat ok.log"], 1, &closing);
}

#[test]
fn what_a_step_leaves_running_does_not_hold_the_run_up() {
    // It keeps the pipe open, as a router would that a test forgot.
    check(
        &["a: cat ok.log; sleep 600 & true"],
        0,
        &["3 passed, 0 failed, 1 skipped"],
    );
}

#[test]
fn a_call_without_steps_is_refused() {
    for steps in [&[][..], &["cargo test"], &["name:"]] {
        assert_eq!(run(steps), (Some(1), vec![]), "{steps:?}");
    }
}
