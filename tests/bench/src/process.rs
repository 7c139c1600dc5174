//! Child processes and what the kernel knows about them.
//!
//! A [`Process`] is killed by its own id when it is dropped, so a scenario that fails half-way
//! leaves nothing running.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write as _},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;

/// A tick of the times in /proc: Linux has shown them in hundredths of a second on every
/// architecture since before it was threaded.
const TICK: Duration = Duration::from_millis(10);

/// How many of its last lines are shown when a process fails.
const TAIL: usize = 20;

/// A running child.
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    tail: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    /// Starts it; what it says on either stream is read as lines.
    pub fn spawn(name: impl Into<String>, command: &mut Command) -> Result<Self> {
        let name = name.into();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {name}: {}", command.get_program().display()))?;
        let (sender, lines) = channel();
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(stdout) = child.stdout.take() {
            forward(stdout, sender.clone(), Arc::clone(&tail));
        }
        if let Some(stderr) = child.stderr.take() {
            forward(stderr, sender, Arc::clone(&tail));
        }
        let stdin = child.stdin.take();
        Ok(Self {
            name,
            child,
            stdin,
            lines,
            tail,
        })
    }

    /// Waits for the first line of which `find` makes something.
    pub fn wait_line<T>(&self, within: Duration, find: impl Fn(&str) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    if let Some(found) = find(&line) {
                        return Ok(found);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "{} said nothing of it in {within:?}:\n{}",
                        self.name,
                        self.tail()
                    )
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("{} ended early:\n{}", self.name, self.tail())
                }
            }
        }
    }

    /// Waits for the answer of one of our own workers, a line of JSON.
    pub fn answer<T: DeserializeOwned>(&self, within: Duration) -> Result<T> {
        let line = self.wait_line(within, |line| {
            line.starts_with('{').then(|| line.to_owned())
        })?;
        serde_json::from_str(&line).with_context(|| format!("answer of {}: {line}", self.name))
    }

    /// Writes a line to its standard input.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("its input is closed")?;
        writeln!(stdin, "{line}").with_context(|| format!("write to {}", self.name))
    }

    /// The CPU time that all its threads have used so far, in steps of 10 ms.
    pub fn cpu(&self) -> Result<Duration> {
        cpu(&self.child.id().to_string())
    }

    /// Memory in use now, in bytes.
    pub fn resident(&self) -> Result<u64> {
        self.status("VmRSS:")
    }

    /// Waits until it uses less than 3 % of a core: compaction is over, caches are written.
    pub fn settle(&self) -> Result<()> {
        const STEP: Duration = Duration::from_secs(1);
        // A minute and a half: the stock router compacts that long after a million keys.
        for _ in 0..90 {
            let before = self.cpu()?;
            thread::sleep(STEP);
            if self.cpu()? - before <= TICK * 3 {
                return Ok(());
            }
        }
        eprintln!("  {} never came to rest; measuring all the same", self.name);
        Ok(())
    }

    /// Ends it: end of input and SIGTERM, and SIGKILL to one that does not go within `patience`.
    /// A process that had to be killed is an error.
    pub fn stop(mut self, patience: Duration) -> Result<ExitStatus> {
        drop(self.stdin.take());
        self.terminate()?;
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!(
            "{} did not stop in {patience:?}:\n{}",
            self.name,
            self.tail()
        )
    }

    /// The standard library only knows SIGKILL; every shell has the rest.
    fn terminate(&self) -> Result<()> {
        let kill = format!("kill -TERM {}", self.child.id());
        Command::new("sh")
            .args(["-c", &kill])
            .stderr(Stdio::null())
            .status()?;
        Ok(())
    }

    fn status(&self, field: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kib = kib.with_context(|| format!("no {field} in {path}"))?;
        Ok(kib.trim().parse::<u64>()? * 1024)
    }

    fn tail(&self) -> String {
        match self.tail.lock() {
            Ok(tail) => tail.iter().map(|line| format!("    {line}\n")).collect(),
            Err(_) => String::new(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Either fails only if it is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The CPU time of this process, in steps of 10 ms.
pub fn own_cpu() -> Result<Duration> {
    cpu("self")
}

fn cpu(process: &str) -> Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    ticks(&text)
        .map(|ticks| TICK * ticks)
        .with_context(|| format!("no times in {path}: {text}"))
}

/// User and system time of a line of /proc/PID/stat (proc_pid_stat(5)). The name of the program
/// stands in parentheses and may hold anything, blanks and parentheses included.
fn ticks(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(") ")?;
    // The state, which is field 3, comes first now; utime is field 14, stime 15.
    let mut times = fields.split(' ').skip(11);
    let user: u32 = times.next()?.parse().ok()?;
    let system: u32 = times.next()?.parse().ok()?;
    Some(user + system)
}

fn forward(
    stream: impl Read + Send + 'static,
    to: Sender<String>,
    tail: Arc<Mutex<VecDeque<String>>>,
) {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if let Ok(mut tail) = tail.lock() {
                if tail.len() == TAIL {
                    tail.pop_front();
                }
                tail.push_back(line.clone());
            }
            // Nobody listens any more once the process is being dropped.
            if to.send(line).is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("12 (a"), None);
    }

    #[test]
    fn a_process_is_heard_and_stopped() {
        let mut cat = Process::spawn("cat", &mut Command::new("cat")).unwrap();
        cat.tell("{\"sent\": 3}").unwrap();
        let answer: serde_json::Value = cat.answer(Duration::from_secs(10)).unwrap();
        assert_eq!(answer["sent"], 3);
        assert!(cat.resident().unwrap() > 0);
        cat.stop(Duration::from_secs(10)).unwrap();
    }

    #[test]
    fn what_a_process_said_last_is_in_the_error() {
        let mut command = Command::new("sh");
        let child = Process::spawn("sh", command.args(["-c", "echo sorry >&2"])).unwrap();
        let error = child
            .answer::<serde_json::Value>(Duration::from_secs(10))
            .unwrap_err();
        assert_eq!(error.to_string(), "sh ended early:\n    sorry\n");
    }
}
