//! Every exception from a lint carries a reason.
//!
//! Clippy has a lint for it (`allow_attributes_without_reason`), but sees only the code that is
//! compiled here: not what is under another platform's `cfg`, and no template.

use crate::{
    File, Problem, Repo,
    lexer::{code, group_end, line_of, word_positions},
};

/// Checks every Rust file.
pub fn check(repo: &Repo) -> Vec<Problem> {
    repo.with_extension("rs").flat_map(check_file).collect()
}

fn check_file(file: &File) -> Vec<Problem> {
    let code = code(&file.text);
    let mut problems = Vec::new();
    for opening in ["#[", "#!["] {
        for start in word_positions(&code, opening) {
            let bracket = start + opening.len() - 1;
            let attribute = &code[bracket..group_end(&code, bracket)];
            for word in ["allow(", "expect("] {
                for found in word_positions(attribute, word) {
                    let group = &attribute[found..group_end(attribute, found + word.len() - 1)];
                    if word_positions(group, "reason").next().is_none() {
                        problems.push(file.problem(
                            line_of(&code, bracket + found),
                            format!("`{})` gives no reason", group.trim_end_matches(')')),
                            "add `reason = \"...\"`, or do what the lint asks for",
                        ));
                    }
                }
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::findings;

    #[test]
    fn an_exception_needs_a_reason() {
        let rows: &[(&str, &[&str])] = &[
            (
                "#[allow(dead_code)] fn a() {}",
                &["a.rs:1: `allow(dead_code)` gives no reason"],
            ),
            (
                "#![expect(unused)]",
                &["a.rs:1: `expect(unused)` gives no reason"],
            ),
            (
                "\n#[cfg_attr(\n    test,\n    allow(clippy::x)\n)]",
                &["a.rs:4: `allow(clippy::x)` gives no reason"],
            ),
            (
                "#[expect(clippy::x, reason = \"one arm per event\")] fn a() {}",
                &[],
            ),
            (
                "#[cfg_attr(test, allow(clippy::x, reason = \"a test\"))] fn a() {}",
                &[],
            ),
            ("fn a() { b.expect(\"c\"); allow(d); } // #[allow(e)]", &[]),
            ("#[cfg(allow)] fn a() {}", &[]),
        ];
        for (text, expected) in rows {
            assert_eq!(findings(check, &[("a.rs", text)]), *expected, "{text}");
        }
    }
}
