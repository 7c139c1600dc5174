//! A child process whose lines are read as they come, and which does not outlive its test.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

/// How many of its last lines are kept, to be looked into and to be shown when a test fails.
const KEPT: usize = 2_000;
/// How much of a line.
const SHOWN: usize = 240;

/// A running child. Dropping it kills it by its own id.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
    kept: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    /// Starts it. Lines of its standard output can be waited for; those of its standard error are
    /// kept beside them.
    ///
    /// # Panics
    /// If there is no such program.
    #[must_use]
    pub fn start(name: &str, command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let program = command.get_program().display().to_string();
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{program} cannot be started: {error}"));
        let (sender, lines) = channel();
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        read(stdout, Some(sender), Arc::clone(&kept));
        read(stderr, None, Arc::clone(&kept));
        Self {
            name: name.to_owned(),
            child,
            lines,
            kept,
        }
    }

    /// Waits for a line of its standard output that `is_it` takes; gives all up to that one.
    ///
    /// # Panics
    /// When it ends before, or says nothing of the kind in time.
    pub fn wait_line(&mut self, patience: Duration, is_it: impl Fn(&str) -> bool) -> Vec<String> {
        match self.wait_line_or_end(patience, is_it) {
            Ok(seen) => seen,
            Err(status) => panic!("{} ended with {status}\n{}", self.name, self.log()),
        }
    }

    /// As [`Process::wait_line`]; `Err` when it ends before.
    ///
    /// # Errors
    /// How it ended.
    ///
    /// # Panics
    /// When it says nothing of the kind in time.
    pub fn wait_line_or_end(
        &mut self,
        patience: Duration,
        is_it: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>, ExitStatus> {
        let end = Instant::now() + patience;
        let mut seen = Vec::new();
        loop {
            match self
                .lines
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    let done = is_it(&line);
                    seen.push(line);
                    if done {
                        return Ok(seen);
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("{} is silent: {seen:?}", self.name),
                Err(RecvTimeoutError::Disconnected) => return Err(self.child.wait().unwrap()),
            }
        }
    }

    /// What the child reads, to be taken once.
    pub fn stdin(&mut self) -> std::process::ChildStdin {
        self.child
            .stdin
            .take()
            .expect("standard input was not asked for")
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, `TERM` for one.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success(), "kill -{name} of {}", self.name);
    }

    /// SIGKILL, and what is left of it is gone.
    pub fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        crate::until_within(patience, &format!("{} ends", self.name), || {
            self.child.try_wait().unwrap().ok_or_else(|| self.log())
        })
    }

    /// Its last lines.
    #[must_use]
    pub fn log(&self) -> String {
        let kept = self.kept.lock().unwrap();
        kept.iter()
            .map(|line| format!("  {}| {line}\n", self.name))
            .collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            crate::say(&self.log());
        }
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(
    stream: impl Read + Send + 'static,
    sender: Option<Sender<String>>,
    kept: Arc<Mutex<VecDeque<String>>>,
) {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut kept = kept.lock().unwrap();
            if kept.len() == KEPT {
                kept.pop_front();
            }
            // An answer of the client may be megabytes.
            kept.push_back(line.chars().take(SHOWN).collect());
            drop(kept);
            // Nobody may wait for lines any more.
            let _ = sender.as_ref().map(|sender| sender.send(line));
        }
    });
}
