//! A router in a process of its own, in a folder of its own, on ports of its own.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU16, Ordering::Relaxed},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Answer, Client, Ended, PATIENCE, cli, http, netns::Namespace, process::Process};

/// How long a start may take: hundreds of databases on a busy machine.
const START: Duration = Duration::from_secs(120);

/// What every configuration that is only about storages begins with.
const COMMON: &str = r#"
  listen: { endpoints: ["$LISTEN"] },
  scouting: { multicast: { enabled: false } },
  adminspace: { enabled: true, permissions: { read: true, write: true } },
  rest: { http_port: "127.0.0.1:$REST" },
  http: { listen: "127.0.0.1:$HTTP" },
  data_dir: "$DIR/data",
"#;

/// A router. Dropping it kills the process and removes its folder.
#[derive(Debug)]
pub struct Router {
    /// Where clients connect.
    pub endpoint: String,
    /// The port of REST.
    pub rest: u16,
    /// The port of metrics and health.
    pub http: u16,
    /// What it said up to `ready`, a line each.
    pub greeting: Vec<String>,
    /// The namespace that it runs in, if not in ours.
    namespace: Option<String>,
    args: Vec<String>,
    variables: Vec<(String, String)>,
    process: Option<Process>,
    // Dropped last, when nobody writes there any more.
    home: Home,
}

/// A folder that is removed when nobody has it any more, or somebody else's.
#[derive(Debug)]
enum Home {
    Own(TempDir),
    Given(PathBuf),
}

impl Router {
    /// Starts one with storages (the entries of `storages`), all else as tests want it.
    #[must_use]
    pub fn start(storages: &str) -> Self {
        Self::start_with(&format!("storages: {{ {storages} }},"))
    }

    /// Starts one with top-level settings, all else as tests want it.
    #[must_use]
    pub fn start_with(settings: &str) -> Self {
        Self::start_file("weir.json5", &format!("{{{COMMON}{settings}}}"), &[])
    }

    /// As [`Router::start_with`], in a folder that somebody else removes.
    #[must_use]
    pub fn start_in(home: &Path, settings: &str) -> Self {
        let text = format!("{{{COMMON}{settings}}}");
        Self::start_at(
            Home::Given(home.to_owned()),
            Some(("weir.json5", &text)),
            &[],
            &[],
        )
    }

    /// Starts one with a configuration file of this name and text, and flags. In both, `$DIR` is
    /// its folder, `$LISTEN` an endpoint, `$REST` and `$HTTP` ports.
    #[must_use]
    pub fn start_file(name: &str, text: &str, flags: &[&str]) -> Self {
        Self::start_variables(name, text, flags, &[])
    }

    /// As [`Router::start_file`], with environment variables too.
    #[must_use]
    pub fn start_variables(
        name: &str,
        text: &str,
        flags: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        Self::start_at(
            Home::Own(tempfile::tempdir().unwrap()),
            Some((name, text)),
            flags,
            variables,
        )
    }

    /// Starts one with flags alone, in a folder of its own.
    #[must_use]
    pub fn start_flags(flags: &[&str]) -> Self {
        Self::start_at(Home::Own(tempfile::tempdir().unwrap()), None, flags, &[])
    }

    /// As [`Router::start_with`], in a network namespace: nobody but a router that it connects to reaches
    /// it.
    #[must_use]
    pub fn start_in_namespace(space: &Namespace, settings: &str) -> Self {
        let text = format!("{{{COMMON}{settings}}}");
        let home = Home::Own(tempfile::tempdir().unwrap());
        let mut router = Self::prepare(home, Some(("weir.json5", &text)), &[], &[]);
        router.namespace = Some(space.name.clone());
        router.restart();
        router
    }

    fn start_at(
        home: Home,
        file: Option<(&str, &str)>,
        flags: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let mut router = Self::prepare(home, file, flags, variables);
        router.restart();
        router
    }

    fn prepare(
        home: Home,
        file: Option<(&str, &str)>,
        flags: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let (endpoint, rest, http) = (format!("tcp/127.0.0.1:{}", port()), port(), port());
        let dir = home.path().display().to_string();
        let fill = |text: &str| {
            text.replace("$LISTEN", &endpoint)
                .replace("$REST", &rest.to_string())
                .replace("$HTTP", &http.to_string())
                .replace("$DIR", &dir)
        };
        let mut args = vec!["run".to_owned()];
        if let Some((name, text)) = file {
            let path = home.path().join(name);
            std::fs::write(&path, fill(text)).unwrap();
            args.extend(["-c".to_owned(), path.display().to_string()]);
        }
        args.extend(flags.iter().map(|flag| fill(flag)));
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), fill(value)))
            .collect();
        let greeting = Vec::new();
        Self {
            endpoint,
            rest,
            http,
            greeting,
            namespace: None,
            args,
            variables,
            process: None,
            home,
        }
    }

    /// Starts it again, on the same ports with the same data, and waits until it is ready.
    ///
    /// # Panics
    /// If it ends instead.
    pub fn restart(&mut self) {
        if let Err(ended) = self.try_restart() {
            panic!("a router that should be ready: {ended}");
        }
    }

    /// As [`Router::restart`]; a router that may end before it is ready.
    ///
    /// # Errors
    /// How it ended, and what it said.
    pub fn try_restart(&mut self) -> Result<(), String> {
        self.process = None;
        let mut command = cli::command();
        if let Some(name) = &self.namespace {
            let program = command.get_program().to_owned();
            let variables: Vec<_> = command
                .get_envs()
                .map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned)))
                .collect();
            // It becomes the program: a signal for the one is for the other.
            command = Command::new("ip");
            command.args(["netns", "exec", name]).arg(program);
            for (name, value) in variables {
                match value {
                    Some(value) => command.env(name, value),
                    None => command.env_remove(name),
                };
            }
        }
        command
            .args(&self.args)
            .envs(self.variables.iter().cloned())
            .current_dir(self.home.path())
            .stdin(Stdio::null());
        let port = self.endpoint.rsplit(':').next().unwrap();
        let mut process = Process::start(&format!("weir:{port}"), &mut command);
        let is_ready = |line: &str| line.starts_with("ready in ") && line.ends_with(" ms");
        match process.wait_line_or_end(START, is_ready) {
            Ok(greeting) => self.greeting = greeting,
            Err(status) => return Err(format!("{status}\n{}", process.log())),
        }
        self.process = Some(process);
        Ok(())
    }

    /// The environment it is started with the next time, beside our own.
    pub fn set_variables(&mut self, variables: Vec<(String, String)>) {
        self.variables = variables;
    }

    /// Whether it runs; it may have ended by itself.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// SIGTERM to one that may end otherwise, or has ended; whether it ended by itself with status 0.
    pub fn try_term(&mut self) -> bool {
        let Some(mut process) = self.process.take() else {
            return false;
        };
        if !process.is_running() {
            return false;
        }
        process.signal("TERM");
        process.wait(PATIENCE).code() == Some(0)
    }

    /// The process's id.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// SIGKILL.
    pub fn kill9(&mut self) {
        self.process.take().expect("it runs").kill9();
    }

    /// SIGTERM; it must end by itself with status 0.
    #[track_caller]
    pub fn term(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.signal("TERM");
        let status = process.wait(PATIENCE);
        assert_eq!(status.code(), Some(0), "{status}\n{}", process.log());
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.home.path()
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Its Zenoh id, from its greeting.
    #[must_use]
    pub fn id(&self) -> &str {
        let id = self
            .greeting
            .iter()
            .find_map(|line| line.trim().strip_prefix("id "));
        id.expect("the greeting tells the id").trim()
    }

    /// A session of the Python client.
    #[must_use]
    pub fn python(&self) -> Client {
        Client::connect(&self.endpoint)
    }

    /// Runs a client command of the program against it.
    #[must_use]
    pub fn weir(&self, args: &[&str]) -> Ended {
        cli::weir(&[args, &["-e", &self.endpoint]].concat())
    }

    /// `GET /selector` of REST.
    #[track_caller]
    #[must_use]
    pub fn rest_get(&self, selector: &str) -> Answer {
        http::get(self.rest, &format!("/{selector}"))
    }

    /// `PUT /key` of REST.
    #[track_caller]
    pub fn rest_put(&self, key: &str, kind: &str, body: &str) -> Answer {
        http::request(self.rest, "PUT", &format!("/{key}"), kind, body.as_bytes())
    }

    /// `DELETE /key` of REST.
    #[track_caller]
    pub fn rest_delete(&self, key: &str) -> Answer {
        http::request(self.rest, "DELETE", &format!("/{key}"), "text/plain", b"")
    }

    /// The value that REST answers for one key, or nothing.
    #[track_caller]
    #[must_use]
    pub fn rest_value(&self, key: &str) -> Option<Value> {
        Self::value_of(key, &self.rest_get(key))
    }

    /// As [`Router::rest_value`], of a router that may be gone.
    #[must_use]
    pub fn try_rest_value(&self, key: &str) -> Option<Value> {
        let answer = http::try_request(self.rest, "GET", &format!("/{key}"), "text/plain", b"");
        Self::value_of(key, &answer.ok()?)
    }

    fn value_of(key: &str, answer: &Answer) -> Option<Value> {
        answer
            .json()
            .as_array()?
            .iter()
            .find(|entry| entry["key"] == key)
            .map(|e| e["value"].clone())
    }

    /// The status of a storage, as `@weir/<id>/storages/<name>` tells it.
    #[track_caller]
    #[must_use]
    pub fn storage(&self, name: &str) -> Option<Value> {
        self.rest_value(&format!("@weir/{}/storages/{name}", self.id()))
    }

    /// A counter in the status of a storage.
    #[track_caller]
    #[must_use]
    pub fn total(&self, storage: &str, counter: &str) -> u64 {
        let status = self
            .storage(storage)
            .unwrap_or_else(|| panic!("no storage {storage}"));
        status["totals"][counter]
            .as_u64()
            .unwrap_or_else(|| panic!("no {counter}: {status}"))
    }

    /// How many changes a storage has decided, whatever became of them.
    #[track_caller]
    #[must_use]
    pub fn decided(&self, storage: &str) -> u64 {
        const OUTCOMES: [&str; 8] = [
            "applied",
            "known",
            "outdated",
            "merged",
            "parked",
            "quarantined",
            "nothing",
            "rejected",
        ];
        let status = self
            .storage(storage)
            .unwrap_or_else(|| panic!("no storage {storage}"));
        let outcome = |name: &&str| {
            status["totals"][name]
                .as_u64()
                .unwrap_or_else(|| panic!("no {name}: {status}"))
        };
        OUTCOMES.iter().map(outcome).sum()
    }

    /// Waits until a storage has decided that many changes since it was opened.
    #[track_caller]
    pub fn wait_decided(&self, storage: &str, expected: u64) {
        crate::until(&format!("{storage} has decided {expected}"), || {
            let seen = self.decided(storage);
            if seen == expected {
                Ok(())
            } else {
                Err(seen.to_string())
            }
        });
    }

    /// Waits until a counter is what it should be.
    #[track_caller]
    pub fn wait_total(&self, storage: &str, counter: &str, expected: u64) {
        crate::until(&format!("{counter} of {storage} is {expected}"), || {
            let seen = self.total(storage, counter);
            if seen == expected {
                Ok(())
            } else {
                Err(seen.to_string())
            }
        });
    }
}

impl Home {
    fn path(&self) -> &Path {
        match self {
            Self::Own(dir) => dir.path(),
            Self::Given(path) => path,
        }
    }
}

/// A port that is free, and that the kernel gives to nobody who connects: it stays free until the
/// router takes it, and while the router is restarted.
fn port() -> u16 {
    // Below 32,768, where Linux begins to choose from; by process, so that two test programs at
    // once rarely try the same.
    const FIRST: u16 = 12_000;
    const SPAN: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = u16::try_from(std::process::id() * 97 % u32::from(SPAN)).unwrap();
    loop {
        let port = FIRST + begin.wrapping_add(NEXT.fetch_add(1, Relaxed)) % SPAN;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
