//! A program under test: started with its output in a file, ended with its value.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::eventually;

/// How long a program may take to stop when it is asked to.
const TO_STOP: Duration = Duration::from_secs(25);

/// A child process. Killed when dropped; its log is shown if the test fails.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

/// What a process has read and written, in bytes (`/proc/PID/io`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Io {
    /// Bytes of all reads, sockets included.
    pub read_calls_bytes: u64,
    /// Bytes of all writes, sockets included.
    pub write_calls_bytes: u64,
    /// Bytes it caused to be written to a disk.
    pub disk_written: u64,
}

impl Program {
    /// `cotter` as it is under test (COTTER_TEST_BINARY names another one than this build's), without any
    /// setting from this process's environment.
    pub fn cotter() -> Command {
        Self::cotter_by(&[Self::binary()])
    }

    /// `cotter-fleet` as it is under test (COTTER_TEST_FLEET_BINARY names another one), in the same way.
    pub fn fleet() -> Command {
        Self::cotter_by(&[Self::fleet_binary()])
    }

    /// Where the `cotter` under test is.
    pub fn binary() -> PathBuf {
        let other = std::env::var_os("COTTER_TEST_BINARY");
        other.unwrap_or_else(|| env!("CARGO_BIN_EXE_cotter").into()).into()
    }

    /// Where the `cotter-fleet` under test is.
    pub fn fleet_binary() -> PathBuf {
        let other = std::env::var_os("COTTER_TEST_FLEET_BINARY");
        other.unwrap_or_else(|| env!("CARGO_BIN_EXE_cotter-fleet").into()).into()
    }

    /// What runs the agents under test and the verbs of their devices: COTTER_TEST_AGENT, a binary made
    /// for another architecture with the words of its emulator before it; else the binary under test.
    pub fn agent_words() -> Vec<PathBuf> {
        match std::env::var("COTTER_TEST_AGENT") {
            Ok(words) => words.split_whitespace().map(PathBuf::from).collect(),
            Err(_) => vec![Self::binary()],
        }
    }

    /// A command of these words, e.g. an emulator and the binary, without any setting from this process's
    /// environment.
    #[track_caller]
    pub fn cotter_by(words: &[PathBuf]) -> Command {
        let (first, rest) = words.split_first().expect("COTTER_TEST_AGENT names a binary");
        let mut command = Command::new(first);
        command.args(rest);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("COTTER_") {
                command.env_remove(name);
            }
        }
        command.env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    /// Starts `command`; its output is appended to `log`.
    #[track_caller]
    pub fn start(name: &str, mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("the log can be opened");
        command.stdout(file.try_clone().expect("a second handle")).stderr(file).stdin(Stdio::null());
        let child = command.spawn().unwrap_or_else(|e| panic!("{name} does not start: {e}"));
        Self { name: name.to_owned(), child, log: log.to_owned() }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All it has said so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_none()
    }

    /// Whether it has ended, asked without waiting for it: its `/proc/PID/stat` says zombie.
    pub fn has_ended(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
    }

    /// Sends `signal` ("TERM", "STOP", "CONT" ...). A process that has ended is no error.
    pub fn signal(&mut self, signal: &str) {
        if self.is_running() {
            // A child that was not waited for keeps its id, so this meets no stranger.
            let id = self.id().to_string();
            Command::new("kill").args(["-s", signal, &id]).status().expect("kill runs");
        }
    }

    /// Asks it to stop, and waits for its end, 25 s at most.
    #[track_caller]
    pub fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended(TO_STOP)
    }

    /// Waits for its own end.
    #[track_caller]
    pub fn ended(&mut self, patience: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        eventually(&what, patience, || self.child.try_wait().expect("a child can be asked"))
    }

    /// SIGKILL, as a power cut for the process.
    pub fn cut(mut self) {
        self.end();
    }

    /// What it has read and written so far.
    #[track_caller]
    pub fn io(&self) -> Io {
        let text = fs::read_to_string(format!("/proc/{}/io", self.id())).expect("the process runs");
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
        };
        Io {
            read_calls_bytes: field("rchar"),
            write_calls_bytes: field("wchar"),
            disk_written: field("write_bytes"),
        }
    }

    /// Its share of memory in KiB (`Pss` of `/proc/PID/smaps_rollup`).
    #[track_caller]
    pub fn pss_kib(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.id())).expect("the process runs");
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let words = line.expect("a line of Pss").split_whitespace().next();
        words.and_then(|n| n.parse().ok()).expect("a number of KiB")
    }

    fn end(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.lines().count().saturating_sub(60);
            let last: Vec<_> = log.lines().skip(from).collect();
            eprintln!("--- the last lines of {}:\n{}", self.name, last.join("\n"));
        }
    }
}
