//! Where files may be, and how long one may get.

use std::collections::BTreeSet;

use crate::{
    File, Problem, Repo,
    lexer::{code, without_tests},
    makefile,
    source::is_test,
};

/// What may stand at the top. A new name there is a decision, not an accident.
const TOP: &[&str] = &[
    ".cargo",
    ".ci",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "backends",
    "clippy.toml",
    "examples",
    "policies",
    "router",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "tests",
    "wit",
];

/// The longest file, in lines of code without comments, blank lines and tests. Past that there is
/// a second idea in it.
const CODE_LINES_MAX: usize = 600;

/// Files that may be longer, each with the reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// Checks the names, lengths and modes of all files, and the list of make targets.
pub fn check(repo: &Repo) -> Vec<Problem> {
    let mut problems = Vec::new();
    check_top(repo, &mut problems);
    for file in repo.with_extension("rs") {
        check_module_name(file, &mut problems);
        check_length(file, &mut problems);
    }
    check_long_files_exist(repo, &mut problems);
    repo.files()
        .iter()
        .for_each(|file| check_script(file, &mut problems));
    repo.file("Makefile")
        .into_iter()
        .for_each(|file| check_targets(file, &mut problems));
    problems
}

fn check_top(repo: &Repo, problems: &mut Vec<Problem>) {
    let names = repo
        .files()
        .iter()
        .map(|file| file.path.split('/').next().unwrap_or(&file.path));
    for name in names.collect::<BTreeSet<_>>() {
        if !TOP.contains(&name) {
            problems.push(Problem {
                file: name.to_owned(),
                line: 0,
                what: "is not one of the names that stand at the top".to_owned(),
                fix: "move it into one of the folders; helper scripts live in tests/tools"
                    .to_owned(),
            });
        }
    }
}

/// What several integration tests share is the exception: Cargo takes `tests/x.rs` for one more
/// test, so that it has to be `tests/x/mod.rs`.
fn check_module_name(file: &File, problems: &mut Vec<Problem>) {
    let Some(folder) = file.path.strip_suffix("/mod.rs") else {
        return;
    };
    let is_shared_by_tests = folder.rsplit('/').nth(1) == Some("tests");
    if !is_shared_by_tests {
        problems.push(file.problem(
            0,
            "is called mod.rs, like every other module file of that style in an editor",
            "put `x.rs` beside the folder `x/`",
        ));
    }
}

fn check_length(file: &File, problems: &mut Vec<Problem>) {
    if is_test(&file.path) || LONG_FILES.iter().any(|(path, _)| *path == file.path) {
        return;
    }
    let lines = code_lines(&file.text);
    if lines > CODE_LINES_MAX {
        problems.push(file.problem(
            0,
            format!("{lines} lines of code, {CODE_LINES_MAX} are the limit"),
            "find the second idea in it and give that a file of its own",
        ));
    }
}

/// An exception that is no longer needed would cover the next long file of that name.
fn check_long_files_exist(repo: &Repo, problems: &mut Vec<Problem>) {
    for (path, reason) in LONG_FILES {
        if repo
            .file(path)
            .is_none_or(|file| code_lines(&file.text) <= CODE_LINES_MAX)
        {
            problems.push(Problem {
                file: (*path).to_owned(),
                line: 0,
                what: format!("may be long ({reason}) and is not"),
                fix: "remove it from LONG_FILES in tests/tidy/src/layout.rs".to_owned(),
            });
        }
    }
}

fn code_lines(text: &str) -> usize {
    without_tests(&code(text))
        .lines()
        .filter(|line| !line.trim().is_empty())
        .count()
}

/// A script can be run, and a shell script stops at its first error.
fn check_script(file: &File, problems: &mut Vec<Problem>) {
    let Some(interpreter) = file
        .text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("#!/"))
    else {
        return;
    };
    if !file.executable {
        problems.push(file.problem(1, "is a script that cannot be run", "chmod +x"));
    }
    let is_shell = interpreter.ends_with("bash") || interpreter.ends_with("/sh");
    if is_shell && !file.text.contains("\nset -euo pipefail") {
        problems.push(file.problem(
            1,
            "is a shell script that goes on after an error",
            "add `set -euo pipefail` (and use bash)",
        ));
    }
}

fn check_targets(makefile: &File, problems: &mut Vec<Problem>) {
    let mut names = BTreeSet::new();
    for target in makefile::targets(makefile) {
        if !names.insert(target.name) {
            problems.push(makefile.problem(
                target.line,
                format!("`{}` is there twice, and make takes the last", target.name),
                "keep one of the two",
            ));
        }
        if target.help.is_none() {
            problems.push(makefile.problem(
                target.line,
                format!("`make help` does not know what `{}` does", target.name),
                "write `## what it does` after its prerequisites",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::findings;

    #[test]
    fn the_top_is_fixed() {
        let found = findings(
            check,
            &[("scripts/a.txt", ""), ("router/b.txt", ""), ("c.txt", "")],
        );
        let problem = "0: is not one of the names that stand at the top";
        assert_eq!(
            found,
            [format!("c.txt:{problem}"), format!("scripts:{problem}")]
        );
    }

    #[test]
    fn no_file_is_called_mod() {
        let found = findings(
            check,
            &[("router/src/a/mod.rs", ""), ("router/src/model.rs", "")],
        );
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("router/src/a/mod.rs:0: is called mod.rs"),
            "{found:?}"
        );
    }

    #[test]
    fn a_file_has_an_end() {
        let code = |lines| "a();\n".repeat(lines);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", code(500));
        let comments = "// why\n\n".repeat(500);
        let long = ["router/src/a.rs:0: 601 lines of code, 600 are the limit"];
        for (path, text, expected) in [
            ("router/src/a.rs", code(600), &[][..]),
            ("router/src/a.rs", code(601), &long[..]),
            ("router/src/a.rs", code(600) + &tests + &comments, &[][..]),
            ("router/src/a/tests.rs", code(601), &[][..]),
            ("router/tests/a.rs", code(601), &[][..]),
        ] {
            assert_eq!(findings(check, &[(path, &text)]), expected, "{path}");
        }
    }

    #[test]
    fn a_script_runs_and_stops_at_its_first_error() {
        let strict = "#!/usr/bin/env bash\n# Why.\nset -euo pipefail\n";
        let mut repo = Repo::of(&[("tests/tools/a", strict), ("tests/tools/b", "#!/bin/sh\n")]);
        let what = |repo: &Repo| check(repo).into_iter().map(|p| p.what).collect::<Vec<_>>();
        let cannot_run = "is a script that cannot be run";
        assert_eq!(
            what(&repo),
            [
                cannot_run,
                cannot_run,
                "is a shell script that goes on after an error"
            ]
        );
        repo.make_all_executable();
        assert_eq!(
            what(&repo),
            ["is a shell script that goes on after an error"]
        );
    }

    #[test]
    fn every_target_is_explained() {
        let found = findings(check, &[("Makefile", "a: b ## Does a\n\tc\nb:\n\td\n")]);
        assert_eq!(
            found,
            ["Makefile:3: `make help` does not know what `b` does"]
        );
    }
}
