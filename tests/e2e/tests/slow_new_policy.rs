//! Ten minutes of a policy's author: a new policy is built, passes its cases, and is found wanting when
//! it is changed. Says so and ends where WebAssembly cannot be built.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that fails says where; one that cannot be run says why"
)]

use std::{fs, path::Path};

use weir_e2e::weir;

#[test]
fn a_new_policy_builds_passes_its_cases_and_keeps_the_laws() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    for hook in ["route", "resolve", "prioritize"] {
        let project = path(&format!("by-night-{hook}"));
        let made = weir(&["policy", "new", &project, "--hook", hook]).with_code(0);
        let said = String::from_utf8_lossy(&made.out).into_owned();
        assert!(said.contains(&format!("a {hook} policy in rust")), "{said}");
        let again = weir(&["policy", "new", &project]).with_code(2);
        assert!(again.err.contains("is there already"), "{}", again.err);

        let built = weir(&["policy", "build", &project]);
        if built.err.contains("cannot build Rust guests") {
            println!("NOT TRIED: {}", built.err.trim());
            return;
        }
        let built = built.with_code(0);
        let module = Path::new(&project).join(format!("by-night-{hook}.wasm"));
        let printed = String::from_utf8(built.out).unwrap();
        assert_eq!(Path::new(printed.trim()), module.canonicalize().unwrap());
        let tested = weir(&["policy", "test", &project]).with_code(0);
        let said = String::from_utf8_lossy(&tested.out).into_owned();
        assert!(
            said.contains("of 1 policy") && said.contains(" 0 failed"),
            "{said}"
        );
        let module = module.display().to_string();
        let _ = weir(&["policy", "check", &module]).with_code(0);
    }

    // An author's mistake: the same put again counts twice.
    let source = path("by-night-resolve/src/lib.rs");
    let good = fs::read_to_string(&source).unwrap();
    let bad = good.replace(
        "return Ok(Resolution::KeepFirst);",
        "let mut value = first.value.clone().ok_or(\"no value\")?;
            value.payload.extend(&second.value.as_ref().ok_or(\"no value\")?.payload);
            return Ok(Resolution::Merge(value));",
    );
    assert_ne!(good, bad);
    fs::write(&source, bad).unwrap();
    let project = path("by-night-resolve");
    let failed = weir(&["policy", "test", &project]).with_code(1);
    let said = String::from_utf8_lossy(&failed.out).into_owned();
    assert!(said.contains("- expected \"keep-first\""), "{said}");
    assert!(
        said.contains("+ got      { \"merge\": \"seoulohio\" }"),
        "{said}"
    );
    let built = weir(&["policy", "build", &project]).with_code(0);
    let module = String::from_utf8(built.out).unwrap();
    let unlawful = weir(&["policy", "check", module.trim()]).with_code(1);
    let said = String::from_utf8_lossy(&unlawful.out).into_owned();
    assert!(
        said.contains("it is not ") && said.contains("merge("),
        "{said}"
    );
}
