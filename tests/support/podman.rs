//! A podman of the test's own, as a second engine: with folders, locks and addresses of its own.
//!
//! It speaks Docker's API at its socket, so that the docker client and our adapter ask it as they ask Docker.
//! One runs at a time on a machine: two that have no container at the moment would take the same bridge.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Docker, Lab, Program, eventually_or};

/// How long it may take to start.
const TO_START: Duration = Duration::from_secs(30);

/// Ends with its value, and leaves nothing: no process, no mount, no folder.
#[derive(Debug)]
pub struct Podman {
    docker: Docker,
    dir: tempfile::TempDir,
    program: Option<Program>,
    probes: Option<Probes>,
    _only_one: File,
}

/// Runs the probes of containers where no systemd does: podman leaves that to its timers. Ends with its value.
#[derive(Debug)]
struct Probes {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Podman {
    /// A lab on a podman that has nothing; `None` where podman cannot run, with a line that says why. The lab is to
    /// be dropped first.
    #[track_caller]
    pub fn with_lab(name: &str) -> Option<(Self, Lab)> {
        let mut lab = Lab::new(name);
        let podman = Self::start(&lab)?;
        lab.parts.docker = podman.docker.clone();
        Some((podman, lab))
    }

    #[track_caller]
    fn start(lab: &Lab) -> Option<Self> {
        if let Err(why) = is_possible() {
            return skipped(&why);
        }
        let lock = std::env::temp_dir().join("cotter-podman.lock");
        let only_one = File::options().create(true).append(true).open(&lock).expect("a lock in /tmp");
        only_one.lock().expect("a lock can be waited for");
        let dir = tempfile::Builder::new().prefix("cotter-").tempdir_in("/tmp").expect("a folder in /tmp");
        let docker = lab.docker().of(&dir.path().join("podman.sock"));
        let mut podman = Self { docker, dir, program: None, probes: None, _only_one: only_one };
        podman.write_settings();
        if let Err(why) = podman.begin().and_then(|()| podman.try_container(lab)) {
            return skipped(&why);
        }
        podman.probes = (!Path::new("/run/systemd/system").exists()).then(|| podman.run_probes());
        Some(podman)
    }

    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Its version, "4.3.1".
    #[track_caller]
    pub fn version(&self) -> String {
        self.docker.run(&["version", "--format", "{{.Server.Version}}"])
    }

    /// Where it notes its networks, each in a file.
    pub fn networks_dir(&self) -> PathBuf {
        self.dir.path().join("networks")
    }

    fn write_settings(&self) {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        let number = 100 + std::process::id() % 100;
        // Its usual limits are above what this machine may have.
        let settings = format!(
            "[containers]\ndefault_ulimits = [\"nofile=4096:4096\", \"nproc=4096:4096\"]\n\
             [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nlock_type = \"file\"\n\
             [network]\nnetwork_backend = \"netavark\"\nnetwork_config_dir = \"{}\"\n\
             default_subnet_pools = [{{\"base\" = \"10.{number}.0.0/16\", \"size\" = 24}}]\n",
            at("networks")
        );
        fs::write(at("containers.conf"), settings).expect("a file in the folder");
        // The registry of the tests speaks no TLS.
        let registries =
            "unqualified-search-registries = []\n[[registry]]\nlocation = \"127.0.0.1\"\ninsecure = true\n";
        fs::write(at("registries.conf"), registries).expect("a file in the folder");
    }

    fn command(&self) -> Command {
        self.command_line()()
    }

    /// Makes `podman ARGS...` with its folders and settings.
    fn command_line(&self) -> impl Fn() -> Command + Send + 'static {
        let dir = self.dir.path().to_owned();
        move || command_in(&dir)
    }

    /// Starts it after [`stop`](Self::stop), and waits until it answers.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.begin().unwrap_or_else(|why| panic!("{why}"));
    }

    #[track_caller]
    fn begin(&mut self) -> Result<(), String> {
        assert!(self.program.is_none(), "it runs already");
        let mut command = self.command();
        command.args(["system", "service", "--time=0"]);
        command.arg(format!("unix://{}", self.docker.socket().display()));
        let log = self.dir.path().join("podman.log");
        let program = self.program.insert(Program::start("podman", command, &log));
        let said = || fs::read_to_string(&log).unwrap_or_default().trim().to_owned();
        let answers = || {
            if !program.is_running() {
                return Some(Err(format!("its service ends: {}", said())));
            }
            self.docker.try_run(&["version"]).status.success().then_some(Ok(()))
        };
        let silent = || Err(format!("its service does not answer: {}", said()));
        eventually_or(TO_START, answers).unwrap_or_else(silent)
    }

    /// Its service ends; containers go on.
    #[track_caller]
    pub fn stop(&mut self) {
        self.program.take().expect("it runs").stop();
    }

    fn run_probes(&self) -> Probes {
        let is_over = Arc::new(AtomicBool::new(false));
        let (is_over_now, docker) = (Arc::clone(&is_over), self.docker.clone());
        let ask = self.command_line();
        let thread = std::thread::spawn(move || {
            while !is_over_now.load(Ordering::Relaxed) {
                let running = docker.try_run(&["ps", "--quiet"]);
                for id in String::from_utf8_lossy(&running.stdout).lines() {
                    let _has_none_or_fails = ask().args(["healthcheck", "run", id]).output();
                }
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        Probes { is_over, thread: Some(thread) }
    }

    /// Whether it runs a container at all.
    fn try_container(&self, lab: &Lab) -> Result<(), String> {
        let run = ["run", "--detach", "--name", "first", "--network", "none", lab.image("r3")];
        let out = self.docker.try_run(&run);
        self.docker.try_run(&["rm", "--force", "first"]);
        if out.status.success() {
            Ok(())
        } else {
            Err(format!("it runs no container: {}", String::from_utf8_lossy(&out.stderr).trim()))
        }
    }
}

/// What `act` comes to, which makes a network. podman looks at all interfaces of the machine for it, and fails when one
/// goes meanwhile, whose ever it is: the agent tries again, and so does this, a few times.
pub async fn until_interfaces_stay<E: Display>(mut act: impl AsyncFnMut() -> Result<(), E>) -> Result<(), E> {
    for _ in 0..9 {
        match act().await {
            Err(error) if error.to_string().contains("no such network interface") => {}
            other => return other,
        }
    }
    act().await
}

fn command_in(dir: &Path) -> Command {
    let at = |name: &str| dir.join(name);
    let mut command = Command::new("podman");
    command.arg("--root").arg(at("root")).arg("--runroot").arg(at("run")).arg("--tmpdir").arg(at("tmp"));
    command.env("CONTAINERS_CONF", at("containers.conf"));
    command.env("CONTAINERS_REGISTRIES_CONF", at("registries.conf"));
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"));
    command
}

/// Says so past the test's own output, which is shown for a test that fails alone.
fn skipped<T>(why: &str) -> Option<T> {
    let _unseen = writeln!(std::io::stderr(), "skipped: podman as a second engine: {why}");
    None
}

fn is_possible() -> Result<(), String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is_root = status.lines().any(|line| line.starts_with("Uid:") && line.ends_with("\t0"));
    if !is_root {
        return Err("this is not root".to_owned());
    }
    let found = Command::new("podman").arg("--version").output();
    found.map_err(|error| format!("podman does not run: {error}; scripts/prepare.sh installs it"))?;
    Ok(())
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panics_with_its_message = thread.join();
        }
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.probes = None;
        // By podman itself, which needs no service for it.
        for args in
            [&["rm", "--force", "--all", "--volumes", "--time=0"][..], &["network", "prune", "--force"]]
        {
            let _may_have_none = self.command().args(args).output();
        }
        if let Some(mut program) = self.program.take() {
            program.signal("TERM");
            let _killed_with_its_value =
                eventually_or(Duration::from_secs(15), || program.has_ended().then_some(()));
        }
        unmount_below(self.dir.path());
    }
}

/// Takes away what an engine has left mounted below its folder.
pub fn unmount_below(dir: &Path) {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for at in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
        if Path::new(at).starts_with(dir) {
            let _shown_by_the_folder = Command::new("umount").args(["--lazy", at]).status();
        }
    }
}
