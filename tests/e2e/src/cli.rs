//! The program's own commands.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Exit status; -1 if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: Vec<u8>,
    /// Standard error.
    pub err: String,
}

impl Ended {
    /// What it printed, a JSON value a line.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> Vec<Value> {
        let out = String::from_utf8_lossy(&self.out);
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}: {self:?}"))
        };
        out.lines().map(parse).collect()
    }

    /// Itself, if it ended with this status; panics with what it said if not.
    #[track_caller]
    #[must_use]
    pub fn with_code(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            code,
            "{}{}",
            String::from_utf8_lossy(&self.out),
            self.err
        );
        self
    }
}

/// Runs `weir ARGS` with nothing on its standard input.
#[must_use]
pub fn weir(args: &[&str]) -> Ended {
    weir_with(args, b"")
}

/// Runs `weir ARGS` with this on its standard input.
///
/// # Panics
/// If the program is not there.
#[must_use]
pub fn weir_with(args: &[&str], stdin: &[u8]) -> Ended {
    let mut child = command()
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that takes its value from elsewhere closes its end at once.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: output.stdout,
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The program, without the settings of whoever runs the tests.
#[must_use]
pub fn command() -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        let ours = name.to_str().is_some_and(|name| {
            name.starts_with("WEIR_") || name.starts_with("ZENOH_") || name == "RUST_LOG"
        });
        if ours {
            command.env_remove(name);
        }
    }
    command
}

/// `WEIR_BIN`, or the release build in the target directory of this very test.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("WEIR_BIN") {
        return path.into();
    }
    // TARGET/<profile>/deps/<test>
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).unwrap();
    let path = target.join("release/weir");
    assert!(
        path.exists(),
        "{} is missing: build it, or set WEIR_BIN",
        path.display()
    );
    path
}
