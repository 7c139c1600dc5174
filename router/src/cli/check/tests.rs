//! Rows for `check` and `config`: real files, what is printed, the exit status.

use std::path::Path;

use clap::Parser;

use super::*;

#[derive(Parser)]
enum Cli {
    Check(Box<CheckArgs>),
    Config(ConfigArgs),
}

/// Runs a command line in which `FILE` stands for a file with `text`; gives exit status, standard
/// output and standard error.
fn run(line: &str, name: &str, text: &str) -> (ExitCode, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(name);
    std::fs::write(&file, text).unwrap();
    let data_dir = dir.path().join("data");
    let words = std::iter::once("weir".to_owned())
        .chain(
            line.split_whitespace()
                .map(|word| word.replace("FILE", &shown(&file))),
        )
        .chain((!line.contains("schema")).then(|| format!("--data-dir={}", shown(&data_dir))));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut streams = Streams {
        out: &mut out,
        err: &mut err,
        out_is_terminal: false,
    };
    let code = match Cli::try_parse_from(words).unwrap() {
        Cli::Check(args) => check(*args, Color::Never, &mut streams).unwrap(),
        Cli::Config(args) => config(args, Color::Never, &mut streams).unwrap(),
    };
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (code, text(out), text(err))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

const GOOD: &str = r#"{ storages: { demo: { key_expr: "demo/**", volume: "memory" } } }"#;
const WARNED: &str = r#"{
  plugins: { storage_manager: { backend_search_dirs: [], storages: {
    demo: { key_expr: "demo/**", volume: "memory" } } } },
}"#;
const BAD: &str = r#"{
  mode: "ruter",
  storages: { demo: { key_expr: "demo/**", volume: "memory" } },
}"#;
const WORSE: &str = r#"{
  storages: {
    demo: { key_exp: "demo/**", volume: "memory" },
    other: { key_expr: "a//b", volume: "memry" },
  },
}"#;

#[test]
fn the_exit_status_tells_errors_from_warnings() {
    let rows = [
        ("check FILE", GOOD, 0),
        ("check -c FILE --deny-warnings", GOOD, 0),
        ("check -c FILE", WARNED, 0),
        ("check -c FILE --deny-warnings", WARNED, EXIT_NOTHING),
        ("check -c FILE", BAD, EXIT_ERROR),
        ("check -c FILE --deny-warnings", WORSE, EXIT_ERROR),
        ("check -c FILE.missing", GOOD, EXIT_ERROR),
    ];
    for (line, text, expected) in rows {
        let (code, out, err) = run(line, "weir.json5", text);
        assert_eq!(code, ExitCode::from(expected), "{line}: {text}\n{out}{err}");
    }
}

#[test]
fn every_mistake_is_shown_where_it_was_written() {
    let (_, out, err) = run("check -c FILE", "weir.json5", WORSE);
    assert_eq!(out, "");
    for part in [
        "weir.json5:3",
        "weir.json5:4",
        "key_exp",
        "did you mean",
        "^",
    ] {
        assert!(err.contains(part), "{part} is missing in\n{err}");
    }
    let (_, _, err) = run("check -c FILE", "weir.json5", BAD);
    assert!(
        err.contains("weir.json5:2") && err.contains("1 error"),
        "{err}"
    );
}

#[test]
fn json_is_for_programs() {
    let (_, out, err) = run("check -c FILE --json", "weir.json5", BAD);
    assert_eq!(err, "");
    let problem: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(problem["severity"], "error");
    assert_eq!(problem["path"], "mode");
    assert_eq!(problem["line"], 2);
}

#[test]
fn show_tells_what_was_written_or_everything_in_force() {
    let (code, out, _) = run("config show -c FILE", "weir.json5", GOOD);
    assert_eq!(code, ExitCode::SUCCESS);
    assert!(out.contains("demo/**") && !out.contains("history"), "{out}");
    let line = "config show -c FILE --effective --origin --rest-http-port 9000";
    let (_, out, _) = run(line, "weir.json5", GOOD);
    for part in [
        "history",
        "// default",
        "weir.json5:1",
        "// --rest-http-port",
    ] {
        assert!(out.contains(part), "{part} is missing in\n{out}");
    }
    let (code, out, err) = run("config show -c FILE", "weir.json5", BAD);
    assert_eq!((code, out.as_str()), (ExitCode::from(EXIT_ERROR), ""));
    assert!(err.contains("weir.json5:2"), "{err}");
}

#[test]
fn the_schema_is_json() {
    let (_, out, _) = run("config schema", "weir.json5", "{}");
    let schema: Value = serde_json::from_str(&out).unwrap();
    assert!(schema["properties"]["storages"].is_object());
}
