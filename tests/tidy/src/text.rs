//! White space, and nothing of one machine.

use crate::{File, Problem, Repo};

/// Files that hold what others wrote, byte by byte, each with the reason.
const FOREIGN: &[(&str, &str)] = &[
    (
        "backends/stock/tests/fixtures/filesystem",
        "values, as zenohd wrote them and answered them",
    ),
    (
        "backends/stock/tests/fixtures/rocksdb",
        "values, as zenohd wrote them and answered them",
    ),
];

/// Where paths of one machine begin. In pieces, or this file would break its own rule. An invented
/// home, as in an example of somebody's configuration, is nobody's.
const MACHINE_PATHS: [&str; 2] = [concat!("/", "work/"), concat!("/", "root/")];

/// Checks every text file.
pub fn check(repo: &Repo) -> Vec<Problem> {
    let own = |file: &&File| !FOREIGN.iter().any(|(path, _)| file.path.starts_with(path));
    repo.files()
        .iter()
        .filter(own)
        .flat_map(check_file)
        .collect()
}

fn check_file(file: &File) -> Vec<Problem> {
    let mut problems = Vec::new();
    // Not `lines`, which takes a carriage return for part of the line break.
    for (index, line) in file.text.split('\n').enumerate() {
        let number = index + 1;
        if line.ends_with([' ', '\t', '\r']) {
            problems.push(file.problem(number, "ends in white space", "remove it"));
        }
        for path in MACHINE_PATHS {
            if has_path(line, path) {
                problems.push(file.problem(
                    number,
                    format!("names a path of one machine, {path}"),
                    "name it from the repository, or take it from the environment",
                ));
            }
        }
    }
    if !file.text.is_empty() && (!file.text.ends_with('\n') || file.text.ends_with("\n\n")) {
        problems.push(file.problem(0, "does not end in one line break", "end it in one"));
    }
    problems
}

/// Whether the line holds an absolute path that begins like this: `a/root/b` is none.
fn has_path(line: &str, start: &str) -> bool {
    line.match_indices(start).any(|(position, _)| {
        let before = line[..position].chars().last();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-~/*}])".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::findings;

    #[test]
    fn lines_and_files_end_where_they_end() {
        let end = "a:0: does not end in one line break";
        let rows: &[(&str, &[&str])] = &[
            ("a\nb\n", &[]),
            ("", &[]),
            (
                "a \nb\t\n",
                &["a:1: ends in white space", "a:2: ends in white space"],
            ),
            ("a\r\n", &["a:1: ends in white space"]),
            ("a", &[end]),
            ("a\n\n", &[end]),
        ];
        for (text, expected) in rows {
            assert_eq!(findings(check, &[("a", text)]), *expected, "{text:?}");
        }
    }

    #[test]
    fn nothing_names_one_machine() {
        for path in MACHINE_PATHS {
            let bad = [
                format!("cd {path}a\n"),
                format!("(\"{path}\")\n"),
                format!("A={path}b\n"),
            ];
            for line in bad {
                let expected = format!("a:1: names a path of one machine, {path}");
                assert_eq!(findings(check, &[("a", &line)]), [expected], "{line}");
            }
            let good = [format!("https://a.b{path}c\n"), format!("fleet{path}**\n")];
            for line in good {
                assert_eq!(findings(check, &[("a", &line)]), [""; 0], "{line}");
            }
        }
    }
}
