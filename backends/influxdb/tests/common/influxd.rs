//! A real influxd 1.x on a free port of this machine, in directories of its own.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use weir_backend_influxdb::InfluxSettings;

/// A server that can be stopped and started again. Gone when dropped, or when the test's process is.
pub struct Influxd {
    dir: TempDir,
    port: u16,
    running: Option<Child>,
}

/// The server that all tests of a file share; `None`, and the test is skipped, if there is no influxd.
pub fn shared() -> Option<&'static Influxd> {
    static SERVER: OnceLock<Option<Influxd>> = OnceLock::new();
    let server = SERVER.get_or_init(|| Influxd::start("")).as_ref();
    if server.is_none() {
        skip();
    }
    server
}

/// A server of the test's own, with some more settings in its section `[http]`.
pub fn own(http: &str) -> Option<Influxd> {
    let server = Influxd::start(http);
    if server.is_none() {
        skip();
    }
    server
}

/// Says that this test cannot run here; `tests/tools/run-tests` then counts it as skipped.
fn skip() {
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test").to_owned();
    let reason = "there is no influxd (Debian: apt-get install influxdb)";
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
    if let Some(path) = std::env::var_os("WEIR_SKIPPED") {
        let mut skipped = fs::File::options().append(true).open(path).unwrap();
        writeln!(skipped, "{test}\t{reason}").unwrap();
    }
}

impl Influxd {
    fn start(http: &str) -> Option<Self> {
        let found = Command::new("influxd").arg("version").output();
        // 2.x answers on a port alone; here it would be another program.
        let is_one = found.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains("v1."));
        if !is_one {
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix("weir-influxd-")
            .tempdir()
            .unwrap();
        let (port, rpc) = (free_port(), free_port());
        let place = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            "reporting-disabled = true\nbind-address = \"127.0.0.1:{rpc}\"\n\
             [meta]\ndir = \"{}\"\nlogging-enabled = false\n\
             [data]\ndir = \"{}\"\nwal-dir = \"{}\"\nquery-log-enabled = false\n\
             [monitor]\nstore-enabled = false\n\
             [http]\nbind-address = \"127.0.0.1:{port}\"\nlog-enabled = false\n{http}\n",
            place("meta"),
            place("data"),
            place("wal"),
        );
        fs::write(dir.path().join("influxdb.conf"), config).unwrap();
        let mut server = Self {
            dir,
            port,
            running: None,
        };
        server.resume();
        Some(server)
    }

    /// Starts it again, and waits until it answers.
    pub fn resume(&mut self) {
        assert!(self.running.is_none());
        // The shell ends the server when its own input ends, with this process at the latest, and
        // unless it is told otherwise removes what it wrote: a shared server is never dropped.
        let script = "influxd run -config \"$0/influxdb.conf\" >\"$0/log\" 2>&1 </dev/null & \
                      server=$!; read -r word; kill -9 $server; wait $server 2>/dev/null; \
                      [ \"$word\" = keep ] || rm -rf \"$0\"";
        let child = Command::new("sh")
            .args(["-c", script])
            .arg(self.dir.path())
            .stdin(Stdio::piped())
            .spawn();
        self.running = Some(child.unwrap());
        let deadline = Instant::now() + Duration::from_secs(60);
        let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
        while agent.get(format!("{}/ping", self.url())).call().is_err() {
            assert!(Instant::now() < deadline, "influxd does not answer");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            if let Some(mut words) = running.stdin.take() {
                words.write_all(b"keep\n").unwrap();
            }
            running.wait().unwrap();
        }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Settings for a database on it, which is made.
    pub fn settings(&self, db: &str) -> InfluxSettings {
        InfluxSettings {
            create_db: true,
            ..InfluxSettings::new(self.url(), db)
        }
    }

    /// What it answers to a query, as its text.
    pub fn query(&self, db: &str, query: &str) -> String {
        let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
        let mut answer = agent
            .post(format!("{}/query", self.url()))
            .send_form([("db", db), ("q", query), ("epoch", "ns")])
            .unwrap();
        answer
            .body_mut()
            .with_config()
            .limit(1 << 30)
            .read_to_string()
            .unwrap()
    }

    /// Writes lines past any store.
    pub fn write(&self, db: &str, lines: &str) {
        let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
        agent
            .post(format!("{}/write?db={db}&precision=ns", self.url()))
            .send(lines)
            .unwrap();
    }
}

impl Drop for Influxd {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
