//! What the documents name exists: links, headings, files of the repository and make targets.
//!
//! A path is taken for one of ours if it begins with a folder that stands at the top of the
//! repository; a command for one of ours if it is `make` and words.

use crate::{File, Problem, Repo, makefile};

/// The changelog tells of things that were.
const HISTORY: &str = "CHANGELOG.md";

/// Code blocks in these languages hold commands and pictures; the rest is configuration or code,
/// where a key expression may look like a path.
const READ_BLOCKS: [&str; 5] = ["", "text", "sh", "bash", "console"];

/// Checks every Markdown file.
pub fn check(repo: &Repo) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in repo.with_extension("md") {
        for (line, part) in parts(&file.text) {
            match part {
                Part::Link(target) => check_link(repo, file, line, target, &mut problems),
                Part::Code(_) if file.path == HISTORY => {}
                Part::Code(code) => {
                    check_paths(repo, file, line, code, &mut problems);
                    check_make(repo, file, line, code, &mut problems);
                }
            }
        }
    }
    problems
}

/// A piece of a Markdown document.
#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    /// Where a link leads.
    Link(&'a str),
    /// A code span, or a line of a code block.
    Code(&'a str),
}

fn parts(text: &str) -> Vec<(usize, Part<'_>)> {
    let mut parts = Vec::new();
    let mut block: Option<&str> = None; // its language
    for (index, line) in text.lines().enumerate() {
        if let Some(fence) = line.trim_start().strip_prefix("```") {
            block = if block.is_some() {
                None
            } else {
                Some(fence.trim())
            };
        } else if let Some(language) = block {
            if READ_BLOCKS.contains(&language) {
                parts.push((index + 1, Part::Code(line)));
            }
        } else {
            parts.extend(inline_parts(line).map(|part| (index + 1, part)));
        }
    }
    parts
}

/// Code spans are the odd pieces between back quotes; links are looked for in the even ones.
fn inline_parts(line: &str) -> impl Iterator<Item = Part<'_>> {
    line.split('`')
        .enumerate()
        .flat_map(|(index, piece)| -> Vec<Part<'_>> {
            if index % 2 == 1 {
                return vec![Part::Code(piece)];
            }
            let targets = piece.split("](").skip(1);
            targets
                .filter_map(|rest| Some(Part::Link(rest.split_once(')')?.0)))
                .collect()
        })
}

fn check_link(repo: &Repo, file: &File, line: usize, target: &str, problems: &mut Vec<Problem>) {
    if target.contains("://") || target.starts_with("mailto:") {
        return;
    }
    let (path, heading) = target.split_once('#').unwrap_or((target, ""));
    let path = if path.is_empty() {
        file.path.clone()
    } else {
        resolve(&file.path, path)
    };
    if !repo.has(&path) {
        let what = format!("links to {path}, which is not there");
        problems.push(file.problem(line, what, "correct the link"));
    } else if let Some(other) = repo.file(&path)
        && !heading.is_empty()
        && !headings(&other.text).any(|anchor| anchor == heading)
    {
        let what = format!("links to #{heading}, which {path} has not");
        problems.push(file.problem(line, what, "correct the part after the #"));
    }
}

/// The path of the repository that a link in `from` means.
fn resolve(from: &str, link: &str) -> String {
    let mut path: Vec<&str> = from.split('/').collect();
    path.pop();
    for piece in link.split('/') {
        match piece {
            "." | "" => {}
            ".." => drop(path.pop()),
            name => path.push(name),
        }
    }
    path.join("/")
}

/// The anchors of a document's headings, as GitHub makes them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
}

fn check_paths(repo: &Repo, file: &File, line: usize, code: &str, problems: &mut Vec<Problem>) {
    let around = |c: char| c.is_whitespace() || "\"'()=;".contains(c);
    for word in code.split(around).flat_map(alternatives) {
        let word = word
            .strip_prefix("./")
            .unwrap_or(&word)
            .trim_end_matches(['.', ',', ':']);
        let is_ours = word
            .split_once('/')
            .is_some_and(|(top, _)| !["", ".."].contains(&top) && repo.has(top));
        // `<name>` and `$VARIABLE` stand for something, `...` for anything.
        if !is_ours || word.contains(['<', '$']) || word.contains("...") {
            continue;
        }
        let path = without_position(word);
        let there = match path.split_once('*') {
            Some((start, _)) => repo.files().iter().any(|file| file.path.starts_with(start)),
            None => repo.has(path),
        };
        if !there {
            let what = format!("names {path}, which is not there");
            problems.push(file.problem(line, what, "correct the path, or add the file"));
        }
    }
}

/// `a/{b,c}` stands for `a/b` and `a/c`.
fn alternatives(word: &str) -> Vec<String> {
    let parsed = word.split_once('{').and_then(|(start, rest)| {
        let (choices, end) = rest.split_once('}')?;
        Some((start, choices, end))
    });
    match parsed {
        Some((start, choices, end)) => choices
            .split(',')
            .map(|choice| format!("{start}{}{end}", choice.trim()))
            .collect(),
        None => vec![word.to_owned()],
    }
}

/// A path without `:12` or `:12:3` at its end.
fn without_position(path: &str) -> &str {
    path.trim_end_matches(|c: char| c.is_ascii_digit() || c == ':')
        .strip_suffix('/')
        .unwrap_or_else(|| path.split(':').next().unwrap_or(path))
}

fn check_make(repo: &Repo, file: &File, line: usize, code: &str, problems: &mut Vec<Problem>) {
    let Some(makefile) = repo.file("Makefile") else {
        return;
    };
    let targets = makefile::targets(makefile);
    for command in code.split(['&', ';', '|']) {
        let command = command.split('#').next().unwrap_or(command);
        let mut words = command
            .split_whitespace()
            .skip_while(|w| ["$", "sudo"].contains(w));
        if words.next() != Some("make") {
            continue;
        }
        let is_target = |w: &&str| w.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        for word in words.filter(|w| !w.contains('=')).take_while(is_target) {
            if !targets.iter().any(|target| target.name == word) {
                let what = format!("names `make {word}`, which the Makefile has not");
                problems.push(file.problem(line, what, "see `make help` for the targets"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::findings;

    /// What the rule says about a README with this text, in a small repository.
    #[track_caller]
    fn check_row(text: &str, expected: &[&str]) {
        let found = findings(
            check,
            &[
                ("README.md", text),
                ("Makefile", "run: ## Runs\ntest-fast: ## Tests\n"),
                ("router/src/main.rs", ""),
                ("backends/api/src/lib.rs", ""),
                ("tests/e2e/NOTES.md", "# One, two: Three\n"),
            ],
        );
        let expected: Vec<_> = expected.iter().map(|e| format!("README.md:{e}")).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn links_lead_somewhere() {
        check_row(
            "[a](router/src/main.rs) [b](https://x.y/z) [c](./tests/e2e/)\n",
            &[],
        );
        check_row(
            "\n[a](router/gone.rs)\n",
            &["2: links to router/gone.rs, which is not there"],
        );
        check_row("[a](tests/e2e/NOTES.md#one-two-three)\n", &[]);
        check_row(
            "[a](tests/e2e/NOTES.md#four)\n",
            &["1: links to #four, which tests/e2e/NOTES.md has not"],
        );
        check_row(
            "# Use it\n[a](#use-it) [b](#use-her)\n",
            &["2: links to #use-her, which README.md has not"],
        );
        check_row("`[a](gone.md)`\n", &[]);
        let found = findings(check, &[("tests/a.md", "[a](../b.md)\n"), ("b.md", "")]);
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn named_files_exist() {
        check_row(
            "`router/src/main.rs:12` `./router/src/` `backends/{api,api/src}`\n",
            &[],
        );
        check_row(
            "`router/gone.rs`\n",
            &["1: names router/gone.rs, which is not there"],
        );
        check_row(
            "`backends/{api,influxdb}`\n",
            &["1: names backends/influxdb, which is not there"],
        );
        check_row(
            "```sh\n./tests/gone.sh --all\n```\n",
            &["2: names tests/gone.sh, which is not there"],
        );
        check_row(
            "`tests/e*` `tests/x*`\n",
            &["1: names tests/x*, which is not there"],
        );
        check_row(
            "`fleet/drone/**` `tests/<name>` `a/b` `/router/gone.rs` router/gone.rs\n",
            &[],
        );
        check_row("```json5\nkey_expr: \"router/gone\"\n```\n", &[]);
    }

    #[test]
    fn named_targets_exist() {
        check_row(
            "`make run`, then make sure. `make test-fast A=b run`\n",
            &[],
        );
        check_row(
            "`make jump`\n",
            &["1: names `make jump`, which the Makefile has not"],
        );
        check_row(
            "```\n$ sudo make run && make jump # make jump\n```\n",
            &["2: names `make jump`, which the Makefile has not"],
        );
    }

    #[test]
    fn the_changelog_may_name_what_was() {
        let files = [
            ("CHANGELOG.md", "`make jump` `router/gone.rs`\n"),
            ("router/a", ""),
        ];
        assert_eq!(findings(check, &files), [""; 0]);
    }
}
