//! A dockerd of the test's own, to be killed and stopped as it likes: with a folder, a bridge, networks
//! and addresses of its own, and without a word to the firewall.
//!
//! The bridge matters: a dockerd that is set to have none removes `docker0`, even if another one uses it. So does one
//! that starts again with address pools of its own; the default ones keep off the routes that are there.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::support::{Docker, Program, eventually, eventually_or, unmount_below};

/// How long it may take to start. After a kill it first waits some 10 s for the containers that ran.
const TO_START: Duration = Duration::from_secs(60);

/// Ends with its value, and leaves nothing: no process, no mount, no folder.
pub(crate) struct PrivateEngine {
    dir: tempfile::TempDir,
    docker: Docker,
    program: Option<Program>,
    bridge: Bridge,
    /// More arguments of dockerd.
    more: &'static [&'static str],
}

/// A bridge of the host's; it goes with its value.
struct Bridge(String);

impl Bridge {
    #[track_caller]
    fn add(name: String, address: &str) -> Self {
        assert!(ip(&["link", "add", &name, "type", "bridge"]), "a bridge can be made by ip, of iproute2");
        let bridge = Self(name);
        assert!(ip(&["addr", "add", address, "dev", &bridge.0]), "it gets its address");
        bridge
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        ip(&["link", "delete", &self.0]);
    }
}

/// Whether `ip ARGS...` succeeds.
fn ip(args: &[&str]) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{path}:/usr/local/sbin:/usr/sbin:/sbin");
    Command::new("ip").args(args).env("PATH", path).status().is_ok_and(|status| status.success())
}

impl PrivateEngine {
    /// Starts one that has nothing, for the client of `docker`.
    #[track_caller]
    pub(crate) fn start(docker: &Docker) -> Self {
        Self::start_with(docker, &[])
    }

    /// As [`start`](Self::start), with more arguments.
    #[track_caller]
    pub(crate) fn start_with(docker: &Docker, more: &'static [&'static str]) -> Self {
        let dir = tempfile::Builder::new().prefix("cotter-").tempdir_in("/tmp").expect("a folder in /tmp");
        let docker = docker.of(&dir.path().join("docker.sock"));
        static ENGINES: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), ENGINES.fetch_add(1, Ordering::Relaxed));
        let address = format!("10.{}.{}.1/24", 200 + process % 50, 255 - number);
        let bridge = Bridge::add(format!("cot{process}-{number}"), &address);
        let mut engine = Self { dir, docker, program: None, bridge, more };
        engine.start_again();
        engine
    }

    pub(crate) fn docker(&self) -> &Docker {
        &self.docker
    }

    fn exec_root(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// Starts it after [`cut`](Self::cut), and waits until it answers.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        assert!(self.program.is_none(), "it runs already");
        self.clear_remains();
        let at = |name: &str| self.dir.path().join(name);
        let mut command = Command::new("dockerd");
        command.arg("--data-root").arg(at("data")).arg("--exec-root").arg(self.exec_root());
        command.arg("--pidfile").arg(at("docker.pid"));
        command.arg("--host").arg(format!("unix://{}", self.docker.socket().display()));
        command.args(["--bridge", &self.bridge.0, "--iptables=false", "--ip-masq=false"]);
        command.args(self.more);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"));
        let mut program = Program::start("the private engine", command, &at("dockerd.log"));
        eventually("the private engine answers", TO_START, || {
            assert!(program.is_running(), "the private engine ended");
            self.docker.try_run(&["version"]).status.success().then_some(())
        });
        self.program = Some(program);
    }

    /// SIGKILL. Its containers go on without it until it starts again.
    #[track_caller]
    pub(crate) fn cut(&mut self) {
        self.program.take().expect("it runs").cut();
    }

    /// It ends as it does with its machine: its containers end before it.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.program.take().expect("it runs").stop();
    }

    /// It stands still for a while.
    #[track_caller]
    pub(crate) fn stand_still(&mut self, period: Duration) {
        let program = self.program.as_mut().expect("it runs");
        program.signal("STOP");
        std::thread::sleep(period);
        program.signal("CONT");
    }

    /// A dockerd that was killed leaves pid files that keep the next one from starting, and its
    /// containerd may take a while to follow it.
    fn clear_remains(&self) {
        let file = self.exec_root().join("containerd/containerd.pid");
        let pid = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
        if let Some(pid) = pid {
            let gone = || (!self.is_ours(pid)).then_some(());
            if eventually_or(Duration::from_secs(5), gone).is_none() {
                end(pid);
            }
        }
        for remains in [file, self.dir.path().join("docker.pid"), self.docker.socket().to_owned()] {
            let _may_not_be_there = fs::remove_file(remains);
        }
    }

    /// Whether a process runs and names our folder in its command line.
    fn is_ours(&self, pid: u32) -> bool {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&self.exec_root().display().to_string())
    }

    /// Containers' shims outlive their engine when it was killed.
    fn end_what_is_left(&self) {
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_string_lossy().parse().ok();
            if let Some(pid) = pid.filter(|pid| self.is_ours(*pid)) {
                end(pid);
            }
        }
        unmount_below(self.dir.path());
    }
}

fn end(pid: u32) {
    let _may_have_ended = Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status();
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        if let Some(mut program) = self.program.take() {
            program.signal("CONT");
            let all = self.docker.try_run(&["ps", "--all", "--quiet"]);
            let ids = String::from_utf8_lossy(&all.stdout).into_owned();
            let mut args = vec!["rm", "--force", "--volumes"];
            args.extend(ids.lines());
            if args.len() > 3 {
                self.docker.try_run(&args);
            }
            let networks = self.docker.try_run(&["network", "ls", "--quiet", "--filter", "type=custom"]);
            let ids = String::from_utf8_lossy(&networks.stdout).into_owned();
            for id in ids.lines() {
                self.docker.try_run(&["network", "rm", id]);
            }
            program.signal("TERM");
            let _killed_with_its_value =
                eventually_or(Duration::from_secs(15), || program.has_ended().then_some(()));
        }
        self.end_what_is_left();
    }
}
