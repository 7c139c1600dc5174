//! The Python client: `py/client.py` in the environment that `make venv` makes.

use std::{
    io::Write,
    path::PathBuf,
    process::{ChildStdin, Command, Stdio},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};

use crate::process::Process;

/// How long one operation may take: a query has 20 s of its own.
const OPERATION: Duration = Duration::from_secs(60);

/// A session of the real client.
#[derive(Debug)]
pub struct Client {
    process: Process,
    stdin: ChildStdin,
}

/// A sample that it received or was answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sample {
    /// Key.
    pub key: String,
    /// `put` or `delete`.
    pub kind: String,
    /// Payload.
    pub value: Vec<u8>,
    /// As Zenoh writes it.
    pub encoding: String,
    /// Attachment.
    pub attachment: Option<Vec<u8>>,
    /// As Zenoh writes it, `NTP64/ID`.
    pub timestamp: Option<String>,
}

/// What a query gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Got {
    /// Samples, as they came.
    pub samples: Vec<Sample>,
    /// The texts of error replies.
    pub errors: Vec<String>,
}

impl Client {
    /// Opens a session with a router.
    ///
    /// # Panics
    /// If there is no Python client, or nobody to connect to.
    #[must_use]
    pub fn connect(endpoint: &str) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/py/client.py");
        let mut command = Command::new(python());
        command.arg(script).arg(endpoint).stdin(Stdio::piped());
        let mut process = Process::start("python", &mut command);
        process.wait_line(OPERATION, |line| line.contains("zid"));
        let stdin = process.stdin();
        Self { process, stdin }
    }

    /// Puts text.
    #[track_caller]
    pub fn put(&mut self, key: &str, value: &str) {
        self.put_with(json!({ "key": key, "value": BASE64.encode(value) }));
    }

    /// Puts text under a timestamp, in nanoseconds since 1970; gives the timestamp as it will be
    /// answered.
    #[track_caller]
    pub fn put_at(&mut self, key: &str, value: &str, at: u64) -> String {
        self.put_with(json!({ "key": key, "value": BASE64.encode(value), "at": at }))
    }

    /// Puts with all that the script knows: `key`, `value` (base64), `encoding`, `attachment`, `at`.
    #[track_caller]
    pub fn put_with(&mut self, mut put: Value) -> String {
        put["op"] = json!("put");
        let answer = self.call(&put);
        answer["timestamp"].as_str().unwrap_or_default().to_owned()
    }

    /// Many puts, one after the other; gives their timestamps.
    #[track_caller]
    pub fn puts(&mut self, puts: &[Value]) -> Vec<String> {
        let answer = self.call(&json!({ "op": "puts", "puts": puts }));
        let stamps = answer["timestamps"].as_array().unwrap();
        stamps
            .iter()
            .map(|stamp| stamp.as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// Deletes a key or what a key expression matches.
    #[track_caller]
    pub fn delete(&mut self, key: &str) {
        self.call(&json!({ "op": "delete", "key": key }));
    }

    /// Deletes under a timestamp, in nanoseconds since 1970.
    #[track_caller]
    pub fn delete_at(&mut self, key: &str, at: u64) {
        self.call(&json!({ "op": "delete", "key": key, "at": at }));
    }

    /// Gets as a client does that asks for nothing special.
    #[track_caller]
    pub fn get(&mut self, selector: &str) -> Got {
        self.get_with(json!({ "selector": selector }))
    }

    /// Gets every reply of everybody.
    #[track_caller]
    pub fn get_all(&mut self, selector: &str) -> Got {
        self.get_with(json!({ "selector": selector, "target": "all", "consolidation": "none" }))
    }

    /// Gets with all that the script knows: `selector`, `target`, `consolidation`, `value`,
    /// `encoding`, `attachment`, `timeout`.
    #[track_caller]
    pub fn get_with(&mut self, mut get: Value) -> Got {
        get["op"] = json!("get");
        let answer = self.call(&get);
        let errors = answer["errors"].as_array().unwrap();
        Got {
            samples: samples(&answer),
            errors: errors
                .iter()
                .map(|text| text.as_str().unwrap().to_owned())
                .collect(),
        }
    }

    /// Acknowledged operations, each as in [`Client::get_with`], a few in flight, up to the first that
    /// is not acknowledged; meanwhile something may happen to the router. Gives the receipts: one
    /// without `admission` acknowledges nothing.
    #[track_caller]
    pub fn acks(&mut self, ops: &[Value], meanwhile: impl FnOnce()) -> Vec<Value> {
        self.tell(&json!({ "op": "acks", "ops": ops, "width": 16 }));
        meanwhile();
        let mut answer = self.hear("acks");
        match answer["receipts"].take() {
            Value::Array(receipts) => receipts,
            other => panic!("no receipts: {other}"),
        }
    }

    /// Opens a new session in place of one whose router has died.
    #[track_caller]
    pub fn reconnect(&mut self) {
        self.call(&json!({ "op": "reconnect" }));
    }

    /// As [`Client::reconnect`], to a router that may die meanwhile; whether there is a session now.
    #[track_caller]
    pub fn try_reconnect(&mut self) -> bool {
        self.tell(&json!({ "op": "reconnect" }));
        self.hear_any()["exception"].is_null()
    }

    /// Opens a new session with another router.
    #[track_caller]
    pub fn connect_to(&mut self, endpoint: &str) {
        self.call(&json!({ "op": "reconnect", "endpoint": endpoint }));
    }

    /// Starts to receive; what comes is to be had from [`Client::received`].
    #[track_caller]
    pub fn subscribe(&mut self, key: &str) {
        self.call(&json!({ "op": "subscribe", "key": key }));
    }

    /// What the subscribers received so far, waiting until it is `count` samples.
    #[track_caller]
    pub fn received(&mut self, count: usize) -> Vec<Sample> {
        samples(&self.call(&json!({ "op": "received", "count": count })))
    }

    /// The values that a selector answers, as `key=value`, sorted.
    #[track_caller]
    pub fn values(&mut self, selector: &str) -> Vec<String> {
        self.get(selector).values()
    }

    /// Waits until a selector answers exactly these `key=value`.
    #[track_caller]
    pub fn wait_values(&mut self, selector: &str, expected: &[&str]) {
        crate::until(&format!("`{selector}` answers {expected:?}"), || {
            let got = self.get(selector);
            let as_expected = got.values() == expected && got.errors.is_empty();
            if as_expected {
                Ok(())
            } else {
                Err(format!("{:?} {:?}", got.values(), got.errors))
            }
        });
    }

    #[track_caller]
    fn call(&mut self, op: &Value) -> Value {
        self.tell(op);
        self.hear(op["op"].as_str().unwrap_or_default())
    }

    #[track_caller]
    fn tell(&mut self, op: &Value) {
        writeln!(self.stdin, "{op}").expect("the client is there");
    }

    #[track_caller]
    fn hear(&mut self, op: &str) -> Value {
        let answer = self.hear_any();
        assert!(answer.get("exception").is_none(), "{op}: {answer}");
        answer
    }

    #[track_caller]
    fn hear_any(&mut self) -> Value {
        let is_answer = |line: &str| line.starts_with('{');
        let line = self.process.wait_line(OPERATION, is_answer).pop().unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Got {
    /// `key=value`, sorted.
    #[must_use]
    pub fn values(&self) -> Vec<String> {
        let mut values: Vec<String> = self.samples.iter().map(Sample::shown).collect();
        values.sort();
        values
    }

    /// The keys as they came.
    #[must_use]
    pub fn keys(&self) -> Vec<&str> {
        self.samples
            .iter()
            .map(|sample| sample.key.as_str())
            .collect()
    }
}

impl Sample {
    /// `key=value`.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("{}={}", self.key, String::from_utf8_lossy(&self.value))
    }
}

/// Base64, for [`Client::put_with`].
#[must_use]
pub fn packed(bytes: impl AsRef<[u8]>) -> String {
    BASE64.encode(bytes)
}

fn samples(answer: &Value) -> Vec<Sample> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let bytes = |value: &Value| value.as_str().map(|text| BASE64.decode(text).unwrap());
    let sample = |value: &Value| Sample {
        key: text(&value["key"]).unwrap(),
        kind: text(&value["kind"]).unwrap(),
        value: bytes(&value["value"]).unwrap(),
        encoding: text(&value["encoding"]).unwrap(),
        attachment: bytes(&value["attachment"]),
        timestamp: text(&value["timestamp"]),
    };
    answer["samples"]
        .as_array()
        .unwrap()
        .iter()
        .map(sample)
        .collect()
}

/// `WEIR_PYTHON`, or the environment in the target directory of this very test.
pub(crate) fn python() -> PathBuf {
    if let Some(path) = std::env::var_os("WEIR_PYTHON") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(3).unwrap().join("venv/bin/python");
    assert!(
        path.exists(),
        "{} is missing: `make venv` makes it",
        path.display()
    );
    path
}
