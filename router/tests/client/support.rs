//! A router in this process, and the program in another.

use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use zenoh::bytes::ZBytes;
use zenoh::query::{Query, Queryable};
use zenoh::time::Timestamp;
use zenoh::{Session, Wait};

/// No command of these tests works for longer; one that does hangs.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// A Zenoh router that listens on a port of its own.
pub struct Router {
    pub session: Session,
    pub endpoint: String,
}

impl Router {
    pub async fn start() -> Self {
        // Between finding a port and listening on it somebody else may take it.
        for _ in 0..10 {
            let endpoint = format!("tcp/127.0.0.1:{}", free_port());
            let mut config = zenoh::Config::default();
            for (key, value) in [
                ("mode", "\"router\"".to_owned()),
                ("listen/endpoints", format!("[\"{endpoint}\"]")),
                ("scouting/multicast/enabled", "false".to_owned()),
            ] {
                config.insert_json5(key, &value).unwrap();
            }
            if let Ok(session) = zenoh::open(config).await {
                return Self { session, endpoint };
            }
        }
        panic!("no free port in ten attempts");
    }

    /// Answers queries on a key expression, as a storage would.
    pub fn answer(
        &self,
        key_expr: &'static str,
        answer: impl Fn(&Query) + Send + Sync + 'static,
    ) -> Queryable<()> {
        let queryable = self.session.declare_queryable(key_expr);
        queryable
            .callback(move |query| answer(&query))
            .wait()
            .unwrap()
    }
}

/// Short ways to answer.
pub trait Answer {
    fn reply_value(&self, key: &str, value: &str);
    fn reply_with(&self, key: &str, value: &str, encoding: &str);
    fn refuse(&self, reason: &str);
}

impl Answer for Query {
    fn reply_value(&self, key: &str, value: &str) {
        self.reply_with(key, value, "zenoh/bytes");
    }

    fn reply_with(&self, key: &str, value: &str, encoding: &str) {
        let timestamp: Timestamp = "4294967296/33".parse().unwrap();
        let reply = self
            .reply(key.to_owned(), ZBytes::from(value))
            .encoding(encoding);
        // The querier may have left.
        let _ = reply.timestamp(timestamp).wait();
    }

    fn refuse(&self, reason: &str) {
        self.reply_err(ZBytes::from(reason)).wait().unwrap();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// An end without a word.
    pub fn quietly(code: i32) -> Self {
        Self {
            code,
            out: String::new(),
            err: String::new(),
        }
    }

    pub fn sorted_lines(&self) -> Vec<&str> {
        let mut lines: Vec<&str> = self.out.lines().collect();
        lines.sort_unstable();
        lines
    }

    /// Waits for the end of a command; what was read of its output before is not in it.
    pub async fn of(child: Child) -> Self {
        let output = tokio::time::timeout(COMMAND_LIMIT, child.wait_with_output());
        let output = output.await.expect("the command hangs").unwrap();
        Self {
            code: output.status.code().expect("the command was killed"),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs a command with nothing on its standard input.
pub async fn weir(args: &[&str]) -> Ended {
    Ended::of(start(args)).await
}

/// Runs a command with something on its standard input.
pub async fn weir_with(args: &[&str], stdin: &[u8]) -> Ended {
    let mut child = command(args).stdin(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // A command that takes its value from elsewhere closes its end at once.
    let _ = pipe.write_all(stdin).await;
    drop(pipe);
    Ended::of(child).await
}

/// Starts a command.
pub fn start(args: &[&str]) -> Child {
    start_with(args, Stdio::piped())
}

/// Starts a command with its standard error going there.
pub fn start_with(args: &[&str], err: Stdio) -> Child {
    command(args)
        .stdin(Stdio::null())
        .stderr(err)
        .spawn()
        .unwrap()
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    for variable in ["RUST_LOG", "WEIR_LOG", "WEIR_ENDPOINT", "WEIR_CONFIG"] {
        command.env_remove(variable);
    }
    command
}

/// Waits until a command prints a line on its standard error.
pub async fn wait_for_line(child: &mut Child, expected: &str) {
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    let read = tokio::time::timeout(COMMAND_LIMIT, err.read_line(&mut line)).await;
    read.expect("the command says nothing").unwrap();
    if line.trim_end() != expected {
        let _ = err.read_to_string(&mut line).await;
        panic!("{line}");
    }
    assert!(err.buffer().is_empty());
    child.stderr = Some(err.into_inner());
}

/// What Ctrl-C does.
pub async fn interrupt(child: &Child) {
    signal("-INT", child).await;
}

/// What a service manager does.
pub async fn terminate(child: &Child) {
    signal("-TERM", child).await;
}

async fn signal(signal: &str, child: &Child) {
    let pid = child.id().expect("the command has ended").to_string();
    let sent = Command::new("kill")
        .args([signal, &pid])
        .status()
        .await
        .unwrap();
    assert!(sent.success());
}
