//! Words that may not stand in Rust code, or only in one place.

use crate::{
    File, Problem, Repo,
    lexer::{code, group_end, is_word, line_of, without_tests, word_positions},
};

/// A row bans some words from some files.
struct Ban {
    words: &'static [&'static str],
    /// Where the row applies.
    place: Place,
    why: &'static str,
    fix: &'static str,
}

/// The files that a row is about.
#[derive(Clone, Copy)]
enum Place {
    /// Every Rust file, its tests included.
    Anywhere,
    /// The core, its tests included: they are as deterministic as the code.
    Core,
}

const BANS: &[Ban] = &[
    Ban {
        words: &["todo!", "unimplemented!"],
        place: Place::Anywhere,
        why: "is a hole that somebody falls into",
        fix: "write it, or answer with an error that says what to do",
    },
    Ban {
        words: &["dbg!"],
        place: Place::Anywhere,
        why: "was left from looking for something",
        fix: "remove it, or log at debug",
    },
    Ban {
        words: &["SystemTime::now", "Instant::now"],
        place: Place::Core,
        why: "reads a clock in the core",
        fix: "take `now` as an argument",
    },
    Ban {
        words: &["thread::sleep", "thread::park", "thread::spawn"],
        place: Place::Core,
        why: "waits or runs on its own in the core",
        fix: "return a deadline or an effect, and let the driver do it",
    },
    Ban {
        words: &["std::fs", "std::net", "std::process", "std::env"],
        place: Place::Core,
        why: "acts in the core",
        fix: "return an effect, and let the driver perform it",
    },
];

/// The one file that may name Zenoh's session: it is the seam between the router and Zenoh.
const SESSION_FILE: &str = "router/src/session.rs";

/// What of Zenoh's crate belongs to that file.
const SESSION_WORDS: [&str; 3] = ["Session", "open", "init"];

/// Checks every Rust file.
pub fn check(repo: &Repo) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in repo.with_extension("rs") {
        let code = code(&file.text);
        for ban in BANS.iter().filter(|ban| ban.place.holds(&file.path)) {
            check_ban(file, &code, ban, &mut problems);
        }
        check_session(file, &code, &mut problems);
    }
    problems
}

fn check_ban(file: &File, code: &str, ban: &Ban, problems: &mut Vec<Problem>) {
    for word in ban.words {
        for position in word_positions(code, word) {
            let what = format!("`{word}` {}", ban.why);
            problems.push(file.problem(line_of(code, position), what, ban.fix));
        }
    }
}

/// Tests are clients and may open sessions of their own, like anybody outside the router.
fn check_session(file: &File, code: &str, problems: &mut Vec<Problem>) {
    let in_router = ["router/src/", "router/policy/", "backends/"];
    let is_bound = in_router.iter().any(|place| file.path.starts_with(place));
    if !is_bound || file.path == SESSION_FILE || is_test(&file.path) {
        return;
    }
    let code = without_tests(code);
    for position in word_positions(&code, "zenoh::") {
        let before = code[..position].strip_suffix("::");
        if before.is_some_and(|before| is_word(before.chars().last())) {
            continue; // A module of ours with that name.
        }
        let path = use_path(&code, position);
        for word in SESSION_WORDS {
            if word_positions(path, word).next().is_some() {
                problems.push(file.problem(
                    line_of(&code, position),
                    format!("names `{word}` of Zenoh, which only {SESSION_FILE} may"),
                    "go through the types of that file; it is the seam to Zenoh",
                ));
            }
        }
    }
}

/// The path, with its braces if it is a `use` of several, that begins at `start`.
fn use_path(code: &str, start: usize) -> &str {
    let mut at = start;
    while let Some(character) = code[at..].chars().next() {
        match character {
            '{' if code[..at].ends_with("::") => return &code[start..group_end(code, at)],
            ':' => at += 1,
            c if is_word(Some(c)) => at += c.len_utf8(),
            _ => break,
        }
    }
    &code[start..at]
}

impl Place {
    fn holds(self, path: &str) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Core => path.starts_with("router/core/"),
        }
    }
}

/// Whether a file inside a crate holds tests alone.
pub(crate) fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::findings;

    #[track_caller]
    fn check_row(path: &str, text: &str, expected: &[&str]) {
        let found = findings(check, &[(path, text)]);
        let expected: Vec<_> = expected.iter().map(|e| format!("{path}:{e}")).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn holes_are_found_anywhere() {
        check_row(
            "router/src/a.rs",
            "fn a() {\n    todo!()\n}",
            &["2: `todo!` is a hole that somebody falls into"],
        );
        check_row(
            "tests/e2e/src/lib.rs",
            "#[cfg(test)] mod a { fn b() { dbg!(1) } }",
            &["1: `dbg!` was left from looking for something"],
        );
        check_row(
            "router/src/a.rs",
            "// todo!()\nconst A: &str = \"dbg!\"; my_todo!();",
            &[],
        );
    }

    #[test]
    fn the_core_has_no_clock_no_sleep_and_no_file() {
        let core = "router/core/src/a.rs";
        check_row(
            core,
            "use std::time::Instant;\nfn a() { Instant::now(); }",
            &["2: `Instant::now` reads a clock in the core"],
        );
        check_row(
            core,
            "#[cfg(test)] mod tests { fn a() { std::thread::sleep(b); } }",
            &["1: `thread::sleep` waits or runs on its own in the core"],
        );
        check_row(
            "router/core/tests/a.rs",
            "use std::fs;",
            &["1: `std::fs` acts in the core"],
        );
        check_row(
            core,
            "fn a(now: std::time::Instant) {} // Instant::now",
            &[],
        );
        check_row(
            "router/src/a.rs",
            "fn a() { Instant::now(); std::thread::sleep(b); }",
            &[],
        );
    }

    #[test]
    fn one_file_names_the_session() {
        let session = &["1: names `Session` of Zenoh, which only router/src/session.rs may"];
        let open = &["1: names `open` of Zenoh, which only router/src/session.rs may"];
        let row = |text, expected: &[&str]| check_row("router/src/driver.rs", text, expected);
        row("fn a(b: &zenoh::Session) {}", session);
        row("use zenoh::Session;", session);
        row(
            "use zenoh::{key_expr::{KeyExpr, A}, Session as S};",
            session,
        );
        row("use zenoh::session::Session;", session);
        row("fn a(b: &::zenoh::Session) {}", session);
        row("zenoh::open(config).await;", open);
        row(
            "use zenoh::{key_expr::KeyExpr, sample::Sample}; struct Session;",
            &[],
        );
        row(
            "use zenoh::session::ZenohId; use crate::session::Session;",
            &[],
        );
        row("use crate::zenoh::Session; // zenoh::Session", &[]);
        row("#[cfg(test)] mod tests { use zenoh::Session; }", &[]);
        check_row("router/src/session.rs", "use zenoh::Session;", &[]);
        check_row("router/tests/client.rs", "use zenoh::Session;", &[]);
        check_row("backends/memory/src/lib.rs", "use zenoh::Session;", session);
        check_row("tests/bench/src/main.rs", "use zenoh::Session;", &[]);
    }
}
